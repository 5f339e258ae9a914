//! The oracle: a materialized view equals its query.
//!
//! It learns from the statements that succeed which views there are and how they are defined, and compares each view's
//! content with its definition run as a batch, as bags of rows, floats within 1e-9. What the batch side itself gets
//! wrong it cannot see: the expected values in the files come from PostgreSQL's semantics.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_sql::{Drop, ObjectKind, ObjectName, Parsed, Statement};
use tidewire_types::SqlType;

use crate::database::{Answer, Database, Failure};

/// How far two floats may be apart, relative to the larger.
const FLOAT_TOLERANCE: f64 = 1e-9;
/// Rows of a difference that are shown.
const SHOWN_MAX: usize = 5;

/// A row as text; None is NULL.
pub type Row = Vec<Option<String>>;

/// What is known of a server's views and tables.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    views: Vec<View>,
    tables: BTreeSet<String>,
    /// Views that are not compared (`ORACLE OFF v`), because their query cannot be run as a batch.
    off: BTreeSet<String>,
    /// After DROP .. CASCADE some of what is known may be gone.
    stale: bool,
    /// How many comparisons were made.
    pub n_checks: usize,
}

/// What a statement may have changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that a view shows.
    Nothing,
    /// There is a new view of this name; the others are as they were.
    View(String),
    /// Rows.
    Rows,
}

#[derive(Clone, Debug)]
struct View {
    name: String,
    definition: String,
}

impl Oracle {
    /// Learns from a statement that succeeded.
    pub fn observe(&mut self, parsed: &Parsed) -> Change {
        match &parsed.statement {
            Statement::CreateView(view) if view.materialized => {
                let name = quoted(&view.name);
                let known = self.views.iter().any(|v| v.name == name);
                if !known || view.or_replace {
                    self.views.retain(|v| v.name != name);
                    self.views.push(View { name: name.clone(), definition: view.query_text.clone() });
                }
                Change::View(name)
            }
            Statement::CreateTable(table) => {
                self.tables.insert(quoted(&table.name));
                Change::Nothing
            }
            Statement::Drop(drop) => {
                self.forget(drop);
                Change::Nothing
            }
            Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Truncate(_)
            | Statement::Copy(_)
            | Statement::CopyFrom(_)
            | Statement::Commit => Change::Rows,
            _ => Change::Nothing,
        }
    }

    fn forget(&mut self, drop: &Drop) {
        self.stale |= drop.cascade;
        for name in drop.names.iter().map(quoted) {
            match drop.kind {
                ObjectKind::MaterializedView => self.views.retain(|v| v.name != name),
                ObjectKind::Table => {
                    self.tables.remove(&name);
                }
                _ => {}
            }
        }
    }

    /// Stops or resumes comparing a view.
    pub fn switch(&mut self, view: &str, on: bool) {
        if on {
            self.off.remove(view);
        } else {
            self.off.insert(view.to_string());
        }
    }

    /// The rows of all tables, sorted.
    pub async fn tables(&mut self, db: &mut dyn Database) -> Result<BTreeMap<String, Vec<Row>>, Failure> {
        self.drop_stale(db).await?;
        let mut contents = BTreeMap::new();
        for name in &self.tables {
            let mut rows = db.run(&format!("SELECT * FROM {name}")).await?.rows;
            rows.sort();
            contents.insert(name.clone(), rows);
        }
        Ok(contents)
    }

    /// Compares with their queries the views that a change concerns.
    pub async fn check(&mut self, db: &mut dyn Database, change: &Change) -> Result<(), Failure> {
        self.drop_stale(db).await?;
        let concerned = |view: &&View| match change {
            Change::Nothing => false,
            Change::View(name) => view.name == *name,
            Change::Rows => true,
        };
        for view in self.views.iter().filter(concerned).filter(|v| !self.off.contains(&v.name)) {
            let content = db.run(&format!("SELECT * FROM {}", view.name)).await;
            let batch = db.run(&view.definition).await;
            if has_no_value(&content) && has_no_value(&batch) {
                self.n_checks += 1;
                continue;
            }
            let content = content.map_err(|e| Failure::of_test(format!("cannot read {}: {e}", view.name)))?;
            let batch = batch.map_err(|e| Failure::of_test(format!("cannot run {} as a batch: {e}", view.name)))?;
            compare(&content, &batch).map_err(|difference| {
                let View { name, definition } = view;
                Failure::of_test(format!("materialized view {name} is not its query\n{difference}\n{definition}"))
            })?;
            self.n_checks += 1;
        }
        Ok(())
    }

    async fn drop_stale(&mut self, db: &mut dyn Database) -> Result<(), Failure> {
        if !std::mem::take(&mut self.stale) {
            return Ok(());
        }
        let mut gone = BTreeSet::new();
        for name in self.views.iter().map(|v| &v.name).chain(&self.tables) {
            match db.run(&format!("SELECT * FROM {name} LIMIT 0")).await {
                Err(e) if e.code == "42P01" => {
                    gone.insert(name.clone());
                }
                other => {
                    other?;
                }
            }
        }
        self.views.retain(|v| !gone.contains(&v.name));
        self.tables.retain(|t| !gone.contains(t));
        Ok(())
    }

    /// Deletes all rows of all tables, in two steps, and compares after each.
    pub async fn empty_tables(&mut self, db: &mut dyn Database) -> Result<(), Failure> {
        self.drop_stale(db).await?;
        for table in self.tables.clone() {
            let rows = db.run(&format!("SELECT * FROM {table}")).await?;
            let mut first: Vec<&str> = rows.rows.iter().filter_map(|r| r.first()?.as_deref()).collect();
            first.sort_unstable();
            if let (Some(column), Some(middle)) = (rows.columns.first(), first.get(first.len() / 2)) {
                let (column, middle) = (column.replace('"', "\"\""), middle.replace('\'', "''"));
                db.run(&format!("DELETE FROM {table} WHERE CAST(\"{column}\" AS text) < '{middle}'")).await?;
                self.check(db, &Change::Rows).await?;
            }
            db.run(&format!("DELETE FROM {table}")).await?;
            let left = db.run(&format!("SELECT * FROM {table}")).await?;
            if !left.rows.is_empty() {
                return Err(Failure::of_test(format!("table {table} still has {} rows", left.rows.len())));
            }
            self.check(db, &Change::Rows).await?;
        }
        Ok(())
    }
}

/// Whether a subquery has a second row: `21000`.
fn has_no_value(answer: &Result<Answer, Failure>) -> bool {
    answer.as_ref().is_err_and(|failure| failure.code == "21000")
}

fn quoted(name: &ObjectName) -> String {
    let quote = |s: &str| match s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        true => s.to_string(),
        false => format!("\"{}\"", s.replace('"', "\"\"")),
    };
    match &name.schema {
        Some(schema) if schema != "public" => format!("{}.{}", quote(schema), quote(&name.name)),
        _ => quote(&name.name),
    }
}

/// Compares two answers as bags of rows. The error says what only one of them has.
pub fn compare(view: &Answer, batch: &Answer) -> Result<(), String> {
    if let (Some(view), Some(batch)) = (&view.types, &batch.types)
        && view != batch
    {
        return Err(format!("types of the view: {view:?}\ntypes of the query: {batch:?}"));
    }
    let floats = floats(view);
    let mut view = sorted(view, &floats);
    let mut batch = sorted(batch, &floats);
    let (mut only_view, mut only_batch) = (vec![], vec![]);
    loop {
        match (view.last(), batch.last()) {
            (Some(v), Some(b)) if equal(v, b, &floats) => {
                view.pop();
                batch.pop();
            }
            (Some(v), Some(b)) if key(v, &floats) > key(b, &floats) => only_view.extend(view.pop()),
            (Some(_), None) => only_view.extend(view.pop()),
            (_, Some(_)) => only_batch.extend(batch.pop()),
            (None, None) => break,
        }
    }
    if only_view.is_empty() && only_batch.is_empty() {
        return Ok(());
    }
    Err(format!("only in the view: {}\nonly in the query: {}", shown(&only_view), shown(&only_batch)))
}

/// For each column, whether its values may be floats: known by type in process, by looks over the wire.
fn floats(answer: &Answer) -> Vec<bool> {
    match &answer.types {
        Some(types) => types.iter().map(has_float).collect(),
        None => vec![true; answer.rows.first().map_or(0, Vec::len)],
    }
}

fn has_float(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Float4 | SqlType::Float8)
}

/// What rows are sorted by: floats that differ only by rounding must come to lie beside each other.
fn key(row: &Row, floats: &[bool]) -> Row {
    let rounded = |(cell, float): (&Option<String>, &bool)| match (cell.as_deref().map(str::parse::<f64>), float) {
        (Some(Ok(number)), true) => Some(format!("{number:.6e}")),
        _ => cell.clone(),
    };
    row.iter().zip(floats).map(rounded).collect()
}

fn sorted(answer: &Answer, floats: &[bool]) -> Vec<Row> {
    let mut rows = answer.rows.clone();
    rows.sort_by_cached_key(|row| (key(row, floats), row.clone()));
    rows
}

fn equal(a: &Row, b: &Row, floats: &[bool]) -> bool {
    let close = |((a, b), float): ((&Option<String>, &Option<String>), &bool)| {
        a == b
            || *float
                && match (a.as_deref().map(str::parse::<f64>), b.as_deref().map(str::parse::<f64>)) {
                    (Some(Ok(a)), Some(Ok(b))) => (a - b).abs() <= FLOAT_TOLERANCE * a.abs().max(b.abs()).max(1e-300),
                    _ => false,
                }
    };
    a.len() == b.len() && a.iter().zip(b).zip(floats).all(close)
}

fn shown(rows: &[Row]) -> String {
    let cell = |c: &Option<String>| c.clone().unwrap_or_else(|| "NULL".into());
    let mut lines: Vec<String> =
        rows.iter().take(SHOWN_MAX).map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" | ")).collect();
    if rows.len() > SHOWN_MAX {
        lines.push(format!(".. {} in all", rows.len()));
    }
    if lines.is_empty() { "nothing".into() } else { format!("\n  {}", lines.join("\n  ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(types: Option<Vec<SqlType>>, rows: &[&[&str]]) -> Answer {
        let cell = |c: &&str| if *c == "NULL" { None } else { Some((*c).to_string()) };
        Answer { types, rows: rows.iter().map(|r| r.iter().map(cell).collect()).collect(), ..Answer::default() }
    }

    fn same(a: &[&[&str]], b: &[&[&str]]) -> bool {
        let types = Some(vec![SqlType::Text, SqlType::Float8]);
        compare(&answer(types.clone(), a), &answer(types, b)).is_ok()
    }

    #[test]
    fn bags_are_compared() {
        assert!(same(&[&["a", "1"], &["b", "NULL"]], &[&["b", "NULL"], &["a", "1"]]));
        assert!(!same(&[&["a", "1"], &["a", "1"]], &[&["a", "1"]]));
        assert!(!same(&[&["a", "1"]], &[&["a", "1"], &["b", "1"]]));
        assert!(!same(&[&["a", "NULL"]], &[&["a", "0"]]));
        assert!(!same(&[], &[&["a", "0"]]));
    }

    #[test]
    fn floats_may_differ_by_rounding_and_nothing_else_may() {
        assert!(same(&[&["a", "0.30000000000000004"], &["a", "5"]], &[&["a", "5"], &["a", "0.3"]]));
        assert!(!same(&[&["a", "0.3001"]], &[&["a", "0.3"]]));
        assert!(!same(&[&["0.30000000000000004", "1"]], &[&["0.3", "1"]]));
    }

    #[test]
    fn types_are_compared() {
        let a = answer(Some(vec![SqlType::Int4]), &[&["1"]]);
        let b = answer(Some(vec![SqlType::Int8]), &[&["1"]]);
        assert!(compare(&a, &b).is_err());
    }
}

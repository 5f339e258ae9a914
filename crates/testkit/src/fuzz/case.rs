//! A case: tables, views and what happens to them, as a script that is a function of the seed.

use std::fmt;

use super::tree::{Body, Expr, Query};
use super::types::Type;

/// What one seed gives.
#[derive(Clone, Debug)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// The tables.
    pub tables: Vec<Table>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<TableColumn>,
    /// The name of its primary key's column.
    pub key: Option<String>,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type in expressions.
    pub ty: Type,
    /// Its type in CREATE TABLE.
    pub declared: &'static str,
    /// NOT NULL.
    pub not_null: bool,
}

/// One statement.
#[derive(Clone, Debug)]
pub enum Step {
    /// CREATE MATERIALIZED VIEW.
    View(View),
    /// INSERT .. VALUES.
    Insert(Insert),
    /// Any other.
    Sql(Expr),
}

/// A materialized view.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name.
    pub name: String,
    /// Its query.
    pub query: Query,
}

/// INSERT .. VALUES.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The table.
    pub table: String,
    /// The columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// ON CONFLICT ..
    pub conflict: Option<Expr>,
}

impl Case {
    /// A case of statements that someone wrote, each of which ends with `;` at the end of a line.
    pub fn of_script(script: &str) -> Case {
        let mut case = Case { seed: 0, tables: vec![], steps: vec![] };
        for sql in script.split(";\n").map(str::trim).filter(|sql| !sql.is_empty()) {
            let sql = sql.trim_end_matches(';');
            let view = sql.strip_prefix("CREATE MATERIALIZED VIEW ").and_then(|rest| rest.split_once(" AS "));
            case.steps.push(match view {
                Some((name, query)) => {
                    let query = Query { ctes: vec![], body: Body::Text(query.to_string()), top: None };
                    Step::View(View { name: name.to_string(), query })
                }
                None => Step::Sql(Expr::text(Type::Bool, sql)),
            });
        }
        case
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = |c: &TableColumn| {
            let key = if self.key.as_ref() == Some(&c.name) { " PRIMARY KEY" } else { "" };
            format!("{} {}{key}{}", c.name, c.declared, if c.not_null { " NOT NULL" } else { "" })
        };
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        write!(f, "CREATE TABLE {} ({})", self.name, columns.join(", "))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::View(view) => write!(f, "CREATE MATERIALIZED VIEW {} AS {}", view.name, view.query),
            Step::Insert(insert) => {
                let rows: Vec<_> = insert.rows.iter().map(|row| format!("({})", row.join(", "))).collect();
                write!(f, "INSERT INTO {} ({}) VALUES {}", insert.table, insert.columns.join(", "), rows.join(", "))?;
                insert.conflict.iter().try_for_each(|c| write!(f, " {c}"))
            }
            Step::Sql(sql) => sql.fmt(f),
        }
    }
}

/// The script, as psql takes it.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| writeln!(f, "{table};"))?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step};"))?;
        let views = self.steps.iter().filter_map(|s| if let Step::View(v) = s { Some(v) } else { None });
        views.into_iter().try_for_each(|view| writeln!(f, "{}; -- {}", view.query, view.name))
    }
}

//! Makes a case of a seed.
//!
//! Invariant: what is generated is valid in PostgreSQL, and its result, as a bag of rows, is determined: LIMIT stands
//! behind ORDER BY all columns, window functions that number rows have an order that tells rows apart or are the only
//! one of their kind in the query, array_agg sorts by what it collects, and sums of floats are exact.

mod expr;
mod filtered;
mod from;
mod query;
mod subquery;
mod window;

use super::case::{Case, Insert, Step, Table, TableColumn, View};
use super::features::{Feature, Features};
use super::random::Random;
use super::tree::{Expr, Part};
use super::types::Type;

use self::expr::Cx;

/// A column that expressions can use.
#[derive(Clone, Debug)]
struct Column {
    sql: String,
    ty: Type,
}

/// Something that can stand in FROM by its name.
#[derive(Clone, Debug)]
struct Relation {
    name: String,
    columns: Vec<(String, Type)>,
    /// Columns that tell its rows apart.
    key: Option<Vec<String>>,
    is_table: bool,
}

/// The choices, and what exists so far.
struct Generator {
    random: Random,
    features: Features,
    relations: Vec<Relation>,
    n_names: usize,
    next_id: usize,
    in_transaction: bool,
}

/// The case of this seed.
pub fn case(seed: u64, features: &Features) -> Case {
    let mut random = Random::new(seed);
    let features = features.swarm(&mut random);
    let mut generator =
        Generator { random, features, relations: vec![], n_names: 0, next_id: 1, in_transaction: false };
    generator.case(seed)
}

impl Generator {
    fn on(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// Whether to use a feature here: in `percent` of the places where it could be.
    fn uses(&mut self, feature: Feature, percent: usize) -> bool {
        // Drawn even where it is off: what follows stays the same.
        let drawn = self.random.chance(percent);
        drawn && self.on(feature)
    }

    fn name(&mut self) -> String {
        self.n_names += 1;
        format!("q{}", self.n_names)
    }

    /// A type that columns may have.
    fn any_type(&mut self) -> Type {
        let features = &self.features;
        let types: Vec<Type> =
            Type::ALL.iter().copied().filter(|t| t.feature().is_none_or(|f| features.has(f))).collect();
        *self.random.pick(&types)
    }

    /// A type that this one is compared with: most often itself.
    fn compared_type(&mut self, ty: Type) -> Type {
        let features = &self.features;
        let others = ty.comparable().iter().copied();
        let others: Vec<Type> = others.filter(|t| t.feature().is_none_or(|f| features.has(f))).collect();
        if others.is_empty() || !self.uses(Feature::MixedTypes, 25) { ty } else { *self.random.pick(&others) }
    }

    /// Pairs of columns that can be compared: of one type, but for a part of the places.
    fn pairs<'a>(&mut self, left: &'a [Column], right: &'a [Column]) -> Vec<(&'a Column, &'a Column)> {
        let is_mixed = self.uses(Feature::MixedTypes, 25);
        let pairs = left.iter().flat_map(|l| right.iter().map(move |r| (l, r)));
        let compares = |l: Type, r: Type| l == r || is_mixed && l.comparable().contains(&r);
        pairs.filter(|(l, r)| compares(l.ty, r.ty) && l.ty.ordered()).collect()
    }

    fn case(&mut self, seed: u64) -> Case {
        let n_tables = self.random.between(1, 3);
        let tables: Vec<Table> = (0..n_tables).map(|idx| self.table(idx)).collect();
        self.relations = tables.iter().map(relation).collect();
        let mut steps = vec![];
        let n_views = self.random.between(1, 3);
        let n_early = self.random.below(n_views + 1);
        for idx in 0..n_views {
            if idx == n_early {
                self.fill(&tables, &mut steps);
            }
            steps.push(Step::View(self.view(idx)));
        }
        if n_early == n_views {
            self.fill(&tables, &mut steps);
        }
        for _ in 0..self.random.between(2, 5) {
            self.change(&tables, &mut steps);
        }
        for table in &tables {
            steps.push(Step::Sql(Expr::text(Type::Bool, format!("DELETE FROM {}", table.name))));
        }
        Case { seed, tables, steps }
    }

    fn table(&mut self, idx: usize) -> Table {
        let keyless = self.uses(Feature::Keyless, 40);
        let mut columns = vec![];
        if !keyless {
            let declared = *self.random.pick(&["int4", "int8"]);
            let ty = if declared == "int4" { Type::Int4 } else { Type::Int8 };
            columns.push(TableColumn { name: "id".into(), ty, declared, not_null: false });
        }
        for _ in 0..self.random.between(2, 4) {
            let ty =
                if self.random.chance(40) { *self.random.pick(&[Type::Int4, Type::Text]) } else { self.any_type() };
            let nth = columns.iter().filter(|c| c.ty == ty && c.name != "id").count();
            let declared = ty.column(&mut self.random);
            let not_null = self.random.chance(10);
            columns.push(TableColumn { name: format!("{}{nth}", ty.prefix()), ty, declared, not_null });
        }
        Table { name: format!("t{idx}"), columns, key: (!keyless).then(|| "id".to_string()) }
    }

    fn view(&mut self, idx: usize) -> View {
        let (query, types, key) = self.query(None, &[], 2);
        let name = format!("v{idx}");
        if self.on(Feature::ViewOnView) {
            let columns = types.into_iter().enumerate().map(|(idx, ty)| (format!("c{idx}"), ty)).collect();
            self.relations.push(Relation { name: name.clone(), columns, key, is_table: false });
        }
        View { name, query }
    }

    fn fill(&mut self, tables: &[Table], steps: &mut Vec<Step>) {
        for table in tables {
            let n_rows = self.random.between(1, 6);
            steps.push(Step::Insert(self.insert(table, n_rows)));
        }
    }

    fn insert(&mut self, table: &Table, n_rows: usize) -> Insert {
        let rows = (0..n_rows).map(|_| table.columns.iter().map(|c| self.value(table, c)).collect()).collect();
        let columns = table.columns.iter().map(|c| c.name.clone()).collect();
        Insert { table: table.name.clone(), columns, rows, conflict: None }
    }

    fn value(&mut self, table: &Table, column: &TableColumn) -> String {
        if table.key.as_ref() == Some(&column.name) {
            self.next_id += 1;
            let taken = self.uses(Feature::Violation, 3);
            return (if taken { 2 } else { self.next_id }).to_string();
        }
        let violates = self.uses(Feature::Violation, 3);
        if self.random.chance(25) && (!column.not_null || violates) {
            return "NULL".into();
        }
        column.ty.value(&mut self.random)
    }

    /// One change, or a transaction of a few.
    fn change(&mut self, tables: &[Table], steps: &mut Vec<Step>) {
        if !self.uses(Feature::Transaction, 25) {
            let step = self.statement(tables);
            steps.push(step);
            return;
        }
        let sql = |text: &str| Step::Sql(Expr::text(Type::Bool, text));
        steps.push(sql("BEGIN"));
        self.in_transaction = true;
        for _ in 0..self.random.between(1, 3) {
            let step = self.statement(tables);
            steps.push(step);
        }
        self.in_transaction = false;
        let end = *self.random.pick(&["COMMIT", "COMMIT", "ROLLBACK"]);
        steps.push(sql(end));
    }

    fn statement(&mut self, tables: &[Table]) -> Step {
        let table = self.random.pick(tables).clone();
        match self.random.below(12) {
            0..=3 => {
                let n_rows = self.random.between(1, 4);
                Step::Insert(self.insert(&table, n_rows))
            }
            4 | 5 if table.key.is_some() && self.on(Feature::Upsert) => Step::Insert(self.upsert(&table)),
            4..=7 => Step::Sql(self.update(&table)),
            8 if self.on(Feature::Truncate) => Step::Sql(Expr::text(Type::Bool, format!("TRUNCATE {}", table.name))),
            _ => {
                let filter = self.condition(&table);
                let parts = vec![Part::Text(format!("DELETE FROM {} WHERE ", table.name)), Part::Expr(filter)];
                Step::Sql(Expr { ty: Type::Bool, parts })
            }
        }
    }

    fn update(&mut self, table: &Table) -> Expr {
        let columns: Vec<_> = table.columns.iter().filter(|c| table.key.as_ref() != Some(&c.name)).cloned().collect();
        let column = self.random.pick(&columns).clone();
        let value = self.assigned(table, &column, "");
        let filter = self.condition(table);
        let set = Part::Text(format!("UPDATE {} SET {} = ", table.name, column.name));
        let filter = Part::Optional(vec![Part::Text(" WHERE ".into()), Part::Expr(filter)]);
        Expr { ty: Type::Bool, parts: vec![set, Part::Expr(value), filter] }
    }

    /// A value for a column that has its type without a cast.
    fn assigned(&mut self, table: &Table, column: &TableColumn, excluded: &str) -> Expr {
        let mut columns = named(table, &table.name);
        if !excluded.is_empty() {
            columns.extend(named(table, excluded));
        }
        let cx = Cx::of_columns(&columns);
        let ty = self.compared_type(column.ty);
        let depth = if matches!(ty, Type::Text | Type::Numeric | Type::Int2) || ty != column.ty {
            0
        } else {
            self.random.below(2)
        };
        self.expr(ty, &cx, depth)
    }

    fn upsert(&mut self, table: &Table) -> Insert {
        let n_rows = self.random.between(1, 3);
        let mut insert = self.insert(table, n_rows);
        let first = self.random.below(self.next_id);
        for (nth, row) in insert.rows.iter_mut().enumerate() {
            row.iter_mut().take(1).for_each(|id| *id = (first + nth).to_string());
        }
        let others: Vec<_> = table.columns.iter().skip(1).cloned().collect();
        // Writes of a transaction take effect when it commits: how many rows are there already is not known before.
        insert.conflict = Some(if self.random.chance(25) && !self.in_transaction {
            let target = *self.random.pick(&["", " (id)"]);
            Expr::text(Type::Bool, format!("ON CONFLICT{target} DO NOTHING"))
        } else {
            let column = self.random.pick(&others).clone();
            let value = self.assigned(table, &column, "excluded");
            let set = Part::Text(format!("ON CONFLICT (id) DO UPDATE SET {} = ", column.name));
            Expr { ty: Type::Bool, parts: vec![set, Part::Expr(value)] }
        });
        insert
    }

    /// A condition on the rows of a table.
    fn condition(&mut self, table: &Table) -> Expr {
        let columns = named(table, &table.name);
        let mut cx = Cx::of_columns(&columns);
        cx.nest = usize::from(self.uses(Feature::SubqueryAnywhere, 20));
        self.predicate(&cx, 1)
    }
}

fn named(table: &Table, qualifier: &str) -> Vec<Column> {
    table.columns.iter().map(|c| Column { sql: format!("{qualifier}.{}", c.name), ty: c.ty }).collect()
}

fn relation(table: &Table) -> Relation {
    Relation {
        name: table.name.clone(),
        columns: table.columns.iter().map(|c| (c.name.clone(), c.ty)).collect(),
        key: table.key.clone().map(|key| vec![key]),
        is_table: true,
    }
}

//! The CHECK constraints of a new table: their names, and whether they can be planned.

use arrow::array::RecordBatch;
use tidewire_catalog::{CheckDef, Object};
use tidewire_sql::{Check, ast, column_names};
use tidewire_types::{Result, SqlError, SqlState};

use super::Session;
use super::query::shift;

impl Session {
    /// The constraints as the catalog keeps them. `table` has everything else.
    ///
    /// Errors: as planning a condition, with its place in the statement; `42710` for a name that is there twice.
    pub(super) async fn new_checks(&mut self, table: &Object, checks: &[Check]) -> Result<Vec<CheckDef>> {
        let mut named: Vec<CheckDef> = vec![];
        for check in checks {
            let planned = self.plan(&check.text, |cx| cx.check(table, &check.condition, &check.text)).await;
            let (planned, _) = planned.map_err(|e| shift(e, check.offset))?;
            // What a literal cannot be read as is known without rows.
            let none = RecordBatch::new_empty(table.schema.clone());
            if let Err(error) = planned.conditions(&none, &self.engine.datafusion)
                && is_of_literal(&error)
            {
                return Err(error);
            }
            let is_free = |name: &String| named.iter().all(|other| other.name != *name);
            let name = match &check.name {
                Some(name) if is_free(name) => name.clone(),
                Some(name) => {
                    let message = format!("check constraint \"{name}\" already exists");
                    return Err(SqlError::new(SqlState::DuplicateObject, message));
                }
                None => {
                    let column = only_column(&check.condition, table).map_or(String::new(), |c| format!("_{c}"));
                    let stem = format!("{}{column}_check", table.name.name);
                    let numbered = (1..).map(|n| format!("{stem}{n}"));
                    std::iter::once(stem.clone()).chain(numbered).find(is_free).unwrap_or_default()
                }
            };
            named.push(CheckDef { name, condition: check.text.clone() });
        }
        // They are checked in this order, as PostgreSQL does.
        named.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(named)
    }
}

fn is_of_literal(error: &SqlError) -> bool {
    let states =
        [SqlState::InvalidTextRepresentation, SqlState::InvalidDatetimeFormat, SqlState::DatetimeFieldOverflow];
    states.contains(&error.state())
}

/// The column that the condition reads, where it reads one.
fn only_column<'a>(condition: &ast::Expr, table: &'a Object) -> Option<&'a str> {
    let read = column_names(condition);
    let mut columns = table.columns.iter().map(|c| c.name.as_str()).filter(|name| read.iter().any(|r| r == name));
    let first = columns.next()?;
    columns.next().is_none().then_some(first)
}

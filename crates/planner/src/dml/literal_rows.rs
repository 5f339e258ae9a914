//! VALUES of nothing but literals, as columns: thousands of rows are then one conversion a column, not a plan a value.
//!
//! Invariant: what comes out is what planning each value on its own gives; where that is not plain to see, there are
//! no columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{Field, Schema};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{Expr, UnaryOperator, Value};
use tidewire_types::SqlType;

/// One literal.
enum Literal<'a> {
    Null,
    Boolean(bool),
    /// Untyped: it becomes what its column is.
    Text(&'a str),
    /// As it is written.
    Number(String),
}

/// A column of the rows, and whether its values are untyped.
pub(super) struct LiteralColumn {
    pub(super) values: ArrayRef,
    pub(super) is_untyped: bool,
}

/// The columns of `rows`, which will be assigned to columns of `types`; None where a value is no plain literal, or a column's
/// values do not go together.
pub(super) fn literal_columns(rows: &[&[Expr]], types: &[&SqlType]) -> Option<Vec<LiteralColumn>> {
    let column = |(idx, sql_type): (usize, &&SqlType)| {
        let cells = rows.iter().map(|row| literal(row.get(idx)?)).collect::<Option<Vec<_>>>()?;
        literal_column(&cells, sql_type)
    };
    types.iter().enumerate().map(column).collect()
}

/// A relation with these columns, called by their places.
pub(super) fn relation(columns: &[LiteralColumn]) -> datafusion::common::Result<LogicalPlan> {
    let field =
        |(idx, column): (usize, &LiteralColumn)| Field::new(idx.to_string(), column.values.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
    let rows = RecordBatch::try_new(schema.clone(), columns.iter().map(|c| c.values.clone()).collect())?;
    let table = provider_as_source(Arc::new(MemTable::try_new(schema, vec![vec![rows]])?));
    LogicalPlanBuilder::scan("values", table, None)?.build()
}

fn literal_column(cells: &[Literal<'_>], sql_type: &SqlType) -> Option<LiteralColumn> {
    let is_null = |cell: &Literal<'_>| matches!(cell, Literal::Null);
    let all = |is: fn(&Literal<'_>) -> bool| cells.iter().all(|cell| is_null(cell) || is(cell));
    if all(|cell| matches!(cell, Literal::Text(_))) {
        let text = |cell: &Literal<'_>| match cell {
            Literal::Text(text) => Some(text.to_string()),
            _ => None,
        };
        let values = Arc::new(cells.iter().map(text).collect::<StringViewArray>());
        return Some(LiteralColumn { values, is_untyped: true });
    }
    if all(|cell| matches!(cell, Literal::Boolean(_))) {
        let boolean = |cell: &Literal<'_>| match cell {
            Literal::Boolean(value) => Some(*value),
            _ => None,
        };
        let values = Arc::new(cells.iter().map(boolean).collect::<BooleanArray>());
        return Some(LiteralColumn { values, is_untyped: false });
    }
    if !all(|cell| matches!(cell, Literal::Number(_))) {
        return None;
    }
    let number = |cell: &Literal<'_>| match cell {
        Literal::Number(number) => Some(number.clone()),
        _ => None,
    };
    let numbers = cells.iter().map(number);
    if matches!(sql_type, SqlType::Numeric(_) | SqlType::Float4 | SqlType::Float8) {
        // These types read what a number literal looks like, and lose nothing on the way.
        return Some(LiteralColumn { values: Arc::new(numbers.collect::<StringViewArray>()), is_untyped: true });
    }
    let integers = numbers.map(|number| number.map(|n| n.parse::<i64>()).transpose());
    let values = Arc::new(integers.collect::<Result<Int64Array, _>>().ok()?);
    Some(LiteralColumn { values, is_untyped: false })
}

fn literal(expr: &Expr) -> Option<Literal<'_>> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Null => Some(Literal::Null),
            Value::Boolean(value) => Some(Literal::Boolean(*value)),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(Literal::Text(text)),
            Value::Number(number, _) => Some(Literal::Number(plain_number(number)?.to_string())),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => Some(Literal::Number(format!("-{}", plain_number(number)?))),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// A decimal number; others (hexadecimal, with underscores) are left to the planner.
fn plain_number(number: &str) -> Option<&str> {
    number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then_some(number)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use sqlparser::ast::SetExpr;
    use tidewire_sql::Statement;

    use super::*;

    fn columns(values: &str, types: &[SqlType]) -> Option<Vec<LiteralColumn>> {
        let parsed = tidewire_sql::parse(&format!("VALUES {values}")).unwrap().remove(0);
        let Statement::Query(query) = parsed.statement else { panic!("no query") };
        let SetExpr::Values(values) = query.body.as_ref() else { panic!("no VALUES") };
        let rows: Vec<&[Expr]> = values.rows.iter().map(|row| row.content.as_slice()).collect();
        literal_columns(&rows, &types.iter().collect::<Vec<_>>())
    }

    #[test]
    fn literals_of_one_kind_are_a_column() {
        let types = [SqlType::Int4, SqlType::Text, SqlType::Bool, SqlType::Float8];
        let columns =
            columns("(1, 'a''b', true, 1.50), (NULL, NULL, NULL, -2), (-9223372036854775808, '', false, 3)", &types);
        let columns = columns.unwrap();
        assert_eq!(columns.iter().map(|c| c.is_untyped).collect::<Vec<_>>(), [false, true, false, true]);
        assert_eq!(
            columns[0].values.as_primitive::<Int64Type>(),
            &Int64Array::from(vec![Some(1), None, Some(i64::MIN)])
        );
        assert_eq!(columns[1].values.as_string_view().iter().collect::<Vec<_>>(), [Some("a'b"), None, Some("")]);
        assert_eq!(
            columns[3].values.as_string_view().iter().collect::<Vec<_>>(),
            [Some("1.50"), Some("-2"), Some("3")]
        );
    }

    #[test]
    fn what_is_no_plain_literal_is_planned_by_itself() {
        for values in [
            "(1), ('2')",
            "(1), (1 + 1)",
            "(1), (default)",
            "(1), ($1)",
            "(1.5)",
            "(9223372036854775808)",
            "(1), (true)",
        ] {
            assert!(columns(values, &[SqlType::Int4]).is_none(), "{values}");
        }
    }
}

//! Literals of one kind as a column of values.
//!
//! Invariant: what comes out, converted to the column's type, is what planning each value on its own gives; where that is
//! not plain to see, there is no column.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringViewArray, new_null_array};
use arrow::datatypes::Int32Type;
use sqlparser::ast::{Expr, UnaryOperator, Value};
use tidewire_types::SqlType;

/// One literal.
enum Literal<'a> {
    Null,
    Boolean(bool),
    /// Untyped: it becomes what its column is.
    Text(&'a str),
    /// As it is written.
    Number(Cow<'a, str>),
}

/// Values of a column.
#[derive(Clone, Debug)]
pub(super) struct Literals {
    pub(super) values: ArrayRef,
    /// The type that they have before they are assigned.
    pub(super) sql_type: SqlType,
    /// Whether they become what their column is, whatever it is.
    pub(super) is_untyped: bool,
}

/// The values of `exprs`, which will be assigned to a column of type `target`; None where one is no plain literal, or they do
/// not go together.
pub(super) fn literals(exprs: &[&Expr], target: &SqlType) -> Option<Literals> {
    let cells = exprs.iter().map(|expr| literal(expr)).collect::<Option<Vec<_>>>()?;
    let all = |is: fn(&Literal<'_>) -> bool| cells.iter().all(|cell| matches!(cell, Literal::Null) || is(cell));
    if all(|_| false) {
        let values = new_null_array(&target.data_type(), cells.len());
        return Some(Literals { values, sql_type: target.clone(), is_untyped: true });
    }
    if all(|cell| matches!(cell, Literal::Text(_))) {
        let text = cells.iter().map(|cell| match cell {
            Literal::Text(text) => Some(*text),
            _ => None,
        });
        let values = Arc::new(text.collect::<StringViewArray>());
        return Some(Literals { values, sql_type: SqlType::Text, is_untyped: true });
    }
    if all(|cell| matches!(cell, Literal::Boolean(_))) {
        let booleans = cells.iter().map(|cell| match cell {
            Literal::Boolean(value) => Some(*value),
            _ => None,
        });
        let values = Arc::new(booleans.collect::<BooleanArray>());
        return Some(Literals { values, sql_type: SqlType::Bool, is_untyped: false });
    }
    if !all(|cell| matches!(cell, Literal::Number(_))) {
        return None;
    }
    let numbers = cells.iter().map(|cell| match cell {
        Literal::Number(number) => Some(number.as_ref()),
        _ => None,
    });
    if matches!(target, SqlType::Numeric(_) | SqlType::Float4 | SqlType::Float8) {
        // These types read what a number literal looks like, and lose nothing on the way.
        let values = Arc::new(numbers.collect::<StringViewArray>());
        return Some(Literals { values, sql_type: SqlType::Text, is_untyped: true });
    }
    let integers = numbers.map(|number| number.map(str::parse::<i64>).transpose());
    let values = integers.collect::<Result<Int64Array, _>>().ok()?;
    // A literal is an integer where it fits.
    let (values, sql_type): (ArrayRef, _) = match values.try_unary::<_, Int32Type, _>(i32::try_from) {
        Ok(values) => (Arc::new(values), SqlType::Int4),
        Err(_) => (Arc::new(values), SqlType::Int8),
    };
    Some(Literals { values, sql_type, is_untyped: false })
}

fn literal(expr: &Expr) -> Option<Literal<'_>> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Null => Some(Literal::Null),
            Value::Boolean(value) => Some(Literal::Boolean(*value)),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(Literal::Text(text)),
            Value::Number(number, _) => Some(Literal::Number(Cow::Borrowed(plain_number(number)?))),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => Some(Literal::Number(Cow::Owned(format!("-{}", plain_number(number)?)))),
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
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;
    use sqlparser::ast::SetExpr;
    use tidewire_sql::Statement;

    use super::*;

    /// The columns of a VALUES list.
    fn columns(values: &str, types: &[SqlType]) -> Option<Vec<Literals>> {
        let parsed = tidewire_sql::parse(&format!("VALUES {values}")).unwrap().remove(0);
        let Statement::Query(query) = parsed.statement else { panic!("no query") };
        let SetExpr::Values(values) = query.body.as_ref() else { panic!("no VALUES") };
        let column = |(idx, sql_type): (usize, &SqlType)| {
            literals(&values.rows.iter().map(|row| &row.content[idx]).collect::<Vec<_>>(), sql_type)
        };
        types.iter().enumerate().map(column).collect()
    }

    #[test]
    fn literals_of_one_kind_are_a_column() {
        let types = [SqlType::Int4, SqlType::Text, SqlType::Bool, SqlType::Float8, SqlType::Date];
        let columns = columns(
            "(1, 'a''b', true, 1.50, NULL), (NULL, NULL, NULL, -2, NULL), (-9223372036854775808, '', false, 3, NULL)",
            &types,
        );
        let columns = columns.unwrap();
        assert_eq!(columns.iter().map(|c| c.is_untyped).collect::<Vec<_>>(), [false, true, false, true, true]);
        assert_eq!(
            columns[0].values.as_primitive::<Int64Type>(),
            &Int64Array::from(vec![Some(1), None, Some(i64::MIN)])
        );
        assert_eq!(columns[1].values.as_string_view().iter().collect::<Vec<_>>(), [Some("a'b"), None, Some("")]);
        assert_eq!(
            columns[3].values.as_string_view().iter().collect::<Vec<_>>(),
            [Some("1.50"), Some("-2"), Some("3")]
        );
        assert_eq!((columns[4].values.null_count(), &columns[4].sql_type), (3, &SqlType::Date));
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

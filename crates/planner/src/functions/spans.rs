//! The lengths of intervals, by which they are compared, and the longest and the shortest of some.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, IntervalMonthDayNanoArray, ListArray};
use arrow::datatypes::{Field, IntervalMonthDayNano, IntervalMonthDayNanoType};
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use tidewire_types::{SqlError, SqlType};

use super::cast::external;
use super::defined::{self, Definition, Overload};

const DAY_US: i128 = 86_400_000_000;
const DAYS_OF_MONTH: i128 = 30;
/// Microseconds: 2^31 months are 22 digits.
pub(super) const SPAN: SqlType = SqlType::Numeric(Some((28, 0)));

static SPAN_OF: Definition = Definition {
    name: "span of interval",
    resolve: |types| match types {
        [SqlType::Interval] => Overload::of(types, SPAN, |columns, _| spans_of(first(columns)?)),
        [SqlType::Array(item)] if **item == SqlType::Interval => {
            Overload::of(types, SqlType::Array(Box::new(SPAN)), |columns, _| spans_of_items(first(columns)?))
        }
        // What is compared with an interval and is no other is NULL.
        [_] => Overload::of(&[SqlType::Interval], SPAN, |columns, _| spans_of(first(columns)?)),
        _ => None,
    },
};

static LONGEST: Definition =
    Definition { name: "longest interval", resolve: |types| of_intervals(types, |c, _| extreme(c, |a, b| a > b)) };

static SHORTEST: Definition =
    Definition { name: "shortest interval", resolve: |types| of_intervals(types, |c, _| extreme(c, |a, b| a < b)) };

/// The span of an interval, or of each of an array's items.
pub(crate) fn span(interval: Expr) -> Expr {
    defined::call(&SPAN_OF, vec![interval])
}

/// `greatest(..)` of intervals.
pub(crate) fn longest(intervals: Vec<Expr>) -> Expr {
    defined::call(&LONGEST, intervals)
}

/// `least(..)` of intervals.
pub(crate) fn shortest(intervals: Vec<Expr>) -> Expr {
    defined::call(&SHORTEST, intervals)
}

fn of_intervals(types: &[SqlType], call: defined::Call) -> Option<Overload> {
    Some(Overload { args: vec![SqlType::Interval; types.len()], result: SqlType::Interval, call })
}

pub(super) fn first(columns: &[ArrayRef]) -> Result<&ArrayRef> {
    columns.first().ok_or_else(|| external(SqlError::internal("no argument")))
}

fn span_of(interval: IntervalMonthDayNano) -> i128 {
    let days = i128::from(interval.months) * DAYS_OF_MONTH + i128::from(interval.days);
    days * DAY_US + i128::from(interval.nanoseconds / 1000)
}

pub(super) fn spans_of(intervals: &ArrayRef) -> Result<ArrayRef> {
    let spans: Decimal128Array = intervals.as_primitive::<IntervalMonthDayNanoType>().unary(span_of);
    Ok(Arc::new(spans.with_data_type(SPAN.data_type())))
}

pub(super) fn spans_of_items(lists: &ArrayRef) -> Result<ArrayRef> {
    with_items(lists, spans_of, Field::new_list_field(SPAN.data_type(), true))
}

/// The lists with other items in the place of theirs.
pub(super) fn with_items(lists: &ArrayRef, of: fn(&ArrayRef) -> Result<ArrayRef>, field: Field) -> Result<ArrayRef> {
    let lists: &ListArray = lists.as_list();
    let items = of(lists.values())?;
    Ok(Arc::new(ListArray::try_new(Arc::new(field), lists.offsets().clone(), items, lists.nulls().cloned())?))
}

/// Of each row's intervals the one that `wins` over the others, the first of equal ones; NULLs do not count.
fn extreme(columns: &[ArrayRef], wins: impl Fn(i128, i128) -> bool) -> Result<ArrayRef> {
    let columns: Vec<_> = columns.iter().map(|c| c.as_primitive::<IntervalMonthDayNanoType>()).collect();
    let n_rows = columns.first().map_or(0, |c| c.len());
    let of_row = |row: usize| {
        let values = columns.iter().filter(|c| c.is_valid(row)).map(|c| c.value(row));
        values.reduce(|best, next| if wins(span_of(next), span_of(best)) { next } else { best })
    };
    Ok(Arc::new((0..n_rows).map(of_row).collect::<IntervalMonthDayNanoArray>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_order_intervals_by_their_length() {
        let month = IntervalMonthDayNano::new(1, 0, 0);
        assert_eq!(span_of(month), span_of(IntervalMonthDayNano::new(0, 30, 0)));
        assert_eq!(span_of(month), span_of(IntervalMonthDayNano::new(0, 0, 30 * 86_400_000_000_000)));
        assert!(span_of(month) < span_of(IntervalMonthDayNano::new(0, 31, 0)));
        assert!(span_of(IntervalMonthDayNano::new(-1, 30, 1000)) > 0);
        assert!(span_of(IntervalMonthDayNano::new(i32::MIN, i32::MIN, i64::MIN)).to_string().len() < 28);
    }
}

//! `x = ANY (array)` and its like: NULL where no item is the one and some item, or `x`, is NULL.
//!
//! DataFusion has `=` alone, as `array_has`, for which a NULL among the items is no item. `x < ALL (array)` is
//! `NOT x >= ANY (array)`.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, ListArray, Scalar, UInt32Array};
use arrow::compute;
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, InList};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use sqlparser::ast::BinaryOperator as Op;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::arrays::common;
use super::cast::external;
use super::convert::convert;

/// The name of what `x = ANY (array)` calls.
pub const EQUALS_ANY: &str = "= ANY";

type Compare = fn(&dyn Datum, &dyn Datum) -> std::result::Result<BooleanArray, ArrowError>;

/// The operators, and the functions that they call.
const OPERATORS: &[(Op, &str, Compare)] = &[
    (Op::Eq, EQUALS_ANY, cmp::eq),
    (Op::NotEq, "<> ANY", cmp::neq),
    (Op::Lt, "< ANY", cmp::lt),
    (Op::LtEq, "<= ANY", cmp::lt_eq),
    (Op::Gt, "> ANY", cmp::gt),
    (Op::GtEq, ">= ANY", cmp::gt_eq),
];

/// The name of the function that `x op ANY (array)` calls. None: there is none.
pub(crate) fn name_of(op: &Op) -> Option<&'static str> {
    OPERATORS.iter().find(|(own, ..)| own == op).map(|(_, name, _)| *name)
}

/// The functions.
pub(super) fn all() -> impl Iterator<Item = ScalarUDF> {
    let function = |name| ScalarUDF::from(AnyItem { name, signature: Signature::any(2, Volatility::Immutable) });
    OPERATORS.iter().map(move |(_, name, _)| function(*name))
}

/// Whether it is one of the functions.
pub(crate) fn is_any(name: &str) -> bool {
    OPERATORS.iter().any(|(_, own, _)| *own == name)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AnyItem {
    name: &'static str,
    signature: Signature,
}

impl AnyItem {
    fn operator(&self) -> Result<&'static (Op, &'static str, Compare)> {
        let own = OPERATORS.iter().find(|(_, name, _)| *name == self.name);
        own.ok_or_else(|| external(SqlError::internal("no such operator")))
    }

    /// The type in which `x` and the items are compared. Errors: `42883`, `42809` where there is no array.
    fn item(&self, args: &[FieldRef]) -> Result<SqlType> {
        let [own, array] = args else { return Err(external(SqlError::internal("two arguments"))) };
        let (own, array) = (SqlType::of(own), SqlType::of(array));
        let item = match &array {
            SqlType::Array(item) => item.as_ref(),
            // A literal is an array of what it is compared with.
            SqlType::Text | SqlType::Null => return Ok(if own == SqlType::Null { SqlType::Text } else { own }),
            _ => {
                let message = "op ANY/ALL (array) requires array on right side";
                return Err(external(SqlError::new(SqlState::WrongObjectType, message)));
            }
        };
        // A literal is still text.
        let operator = &self.operator()?.0;
        common(&own, item).or_else(|| (own == SqlType::Text).then(|| item.clone())).ok_or_else(|| {
            let message = format!("operator does not exist: {own} {operator} {item}");
            external(SqlError::new(SqlState::UndefinedFunction, message).with_hint(
                "No operator matches the given name and argument types. You might need to add explicit type casts.",
            ))
        })
    }
}

impl ScalarUDFImpl for AnyItem {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.item(args.arg_fields)?;
        Ok(Arc::new(SqlType::Bool.field(self.name, true)))
    }

    /// `x = ANY (constant)` is IN: an index and a hash table find its values.
    fn simplify(&self, args: Vec<Expr>, cx: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let [own, Expr::Literal(array, metadata)] = args.as_slice() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        if self.name != EQUALS_ANY {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let (_, field) = own.to_field(cx.schema())?;
        let (_, array_field) = Expr::Literal(array.clone(), metadata.clone()).to_field(cx.schema())?;
        let item = self.item(&[field.clone(), array_field.clone()])?;
        let to = SqlType::Array(Box::new(item.clone()));
        let lists = convert(&array.to_array()?, &SqlType::of(&array_field), &to, false)?;
        let lists = lists.as_list::<i32>();
        if lists.is_null(0) {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let items = lists.value(0);
        let list = (0..items.len()).map(|idx| Ok(Expr::Literal(ScalarValue::try_from_array(&items, idx)?, None)));
        let list = list.collect::<Result<Vec<_>>>()?;
        let own = match *field.data_type() == item.data_type() {
            true => own.clone(),
            false => Expr::Cast(Cast::new_from_field(Box::new(own.clone()), Arc::new(item.field("", true)))),
        };
        Ok(ExprSimplifyResult::Simplified(Expr::InList(InList { expr: Box::new(own), list, negated: false })))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (item, compare) = (self.item(&args.arg_fields)?, self.operator()?.2);
        let types: Vec<SqlType> = args.arg_fields.iter().map(|field| SqlType::of(field)).collect();
        let ([own, array], [own_type, array_type]) = (args.args.as_slice(), types.as_slice()) else {
            return Err(external(SqlError::internal("two arguments")));
        };
        let to = SqlType::Array(Box::new(item.clone()));
        let is_scalar = matches!((own, array), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let n_rows = if is_scalar { 1 } else { args.number_rows };
        let own = convert(&own.to_array(n_rows)?, own_type, &item, false)?;
        let found = match array {
            ColumnarValue::Scalar(array) => {
                let lists = convert(&array.to_array()?, array_type, &to, false)?;
                match self.name == EQUALS_ANY {
                    true => is_in(&own, lists.as_list())?,
                    false => of_one(&own, lists.as_list(), compare)?,
                }
            }
            ColumnarValue::Array(array) => of_each(&own, convert(array, array_type, &to, false)?.as_list(), compare)?,
        };
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(Arc::new(found)),
        })
    }
}

/// Compares each row with the items of its own array.
fn of_each(own: &ArrayRef, lists: &ListArray, compare: Compare) -> Result<BooleanArray> {
    let lengths = || lists.offsets().lengths();
    let first = lists.value_offsets().first().map_or(0, |first| *first as usize);
    let rows: UInt32Array = (0..).zip(lengths()).flat_map(|(row, n)| std::iter::repeat_n(row, n)).collect();
    let matched = compare(&compute::take(own, &rows, None)?, &lists.values().slice(first, rows.len()))?;
    let mut matched = matched.iter();
    let found = lengths().enumerate().map(|(row, n)| {
        let found = any(matched.by_ref().take(n));
        found.filter(|_| lists.is_valid(row))
    });
    Ok(found.collect())
}

/// Looks all rows up among the items of one array.
fn is_in(own: &ArrayRef, list: &ListArray) -> Result<BooleanArray> {
    if list.is_null(0) {
        return Ok(BooleanArray::new_null(own.len()));
    }
    let items = list.value(0);
    let converter = RowConverter::new(vec![SortField::new(items.data_type().clone())])?;
    let rows = converter.convert_columns(std::slice::from_ref(own))?;
    let wanted = converter.convert_columns(std::slice::from_ref(&items))?;
    let wanted: HashSet<_> =
        wanted.iter().enumerate().filter(|(idx, _)| items.is_valid(*idx)).map(|(_, row)| row).collect();
    let is_known = items.null_count() == 0;
    let found = rows.iter().enumerate().map(|(row, value)| match own.is_valid(row) {
        _ if items.is_empty() => Some(false),
        true if wanted.contains(&value) => Some(true),
        true => is_known.then_some(false),
        false => None,
    });
    Ok(found.collect())
}

/// Compares all rows with the items of one array.
fn of_one(own: &ArrayRef, list: &ListArray, compare: Compare) -> Result<BooleanArray> {
    if list.is_null(0) {
        return Ok(BooleanArray::new_null(own.len()));
    }
    let items = list.value(0);
    let mut found = BooleanArray::from(vec![false; own.len()]);
    for idx in 0..items.len() {
        let matched = compare(own, &Scalar::new(items.slice(idx, 1)))?;
        found = compute::or_kleene(&found, &matched)?;
    }
    Ok(found)
}

/// OR of all, which NULLs may be among. Takes all.
fn any(matched: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let (mut is_found, mut has_null) = (false, false);
    for matched in matched {
        is_found |= matched == Some(true);
        has_null |= matched.is_none();
    }
    (is_found || !has_null).then_some(is_found)
}

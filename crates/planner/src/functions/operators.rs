//! PostgreSQL's operators over DataFusion's: json access, and string literals that take the type of the other side.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, TableReference};
use datafusion::functions::string::{rtrim, starts_with};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr, RawWindowExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, ScalarUDF};
use sqlparser::ast::BinaryOperator;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::{
    arithmetic, array_join, array_parts, arrays, byte_parts, cast, date_fields, defined, json, json_operators,
    json_path, regexp,
};
use crate::parameters;
use crate::planned_types::in_operand;
use crate::type_classes::{are_compared, is_number};
use crate::windows;

/// Plans binary operators before DataFusion's own planners see them.
#[derive(Debug)]
pub(crate) struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    /// `a.b` names a field only of a column `a` that has fields; else there is no table `a`.
    fn plan_compound_identifier(
        &self,
        field: &Field,
        _qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        if matches!(field.data_type(), DataType::Struct(_)) {
            return Ok(PlannerResult::Original(vec![]));
        }
        let column = Column::new(Some(TableReference::bare(field.name().as_str())), nested_names.join("."));
        Ok(PlannerResult::Planned(Expr::Column(column)))
    }

    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let (mut left, mut right) = (in_operand(left, schema), in_operand(right, schema));
        let access = match op {
            BinaryOperator::Arrow => Some((false, false)),
            BinaryOperator::LongArrow => Some((false, true)),
            BinaryOperator::HashArrow => Some((true, false)),
            BinaryOperator::HashLongArrow => Some((true, true)),
            _ => None,
        };
        if let Some((path, text)) = access {
            let is_json = matches!(arithmetic::type_of(&left, schema), Some(SqlType::Json | SqlType::Jsonb));
            if path && is_json {
                right = operand(right, &SqlType::Array(Box::new(SqlType::Text)));
            }
            let function = Arc::new(json::operator(path, text));
            let call = ScalarFunction::new_udf(function, vec![left, right]);
            return Ok(PlannerResult::Planned(Expr::ScalarFunction(call)));
        }
        if matches!(op, BinaryOperator::StringConcat) {
            // A char(n) becomes text, which has no blanks at its end.
            (left, right) = (trimmed(left, schema), trimmed(right, schema));
        }
        (left, right) = read_operand(&op, left, right, schema);
        if let (Some(l), Some(r)) = (arithmetic::type_of(&left, schema), arithmetic::type_of(&right, schema)) {
            let types = (&l, &r);
            let planned = json_operators::plan(&op, &left, &right, types);
            let planned = planned.or_else(|| json_path::plan(&op, &left, &right, types));
            let planned = planned.or_else(|| arrays::plan(&op, &left, &right, types));
            if let Some(planned) = planned.or_else(|| array_join::plan(&op, &left, &right, types)) {
                return Ok(PlannerResult::Planned(planned));
            }
            let is_of_others =
                matches!(op, BinaryOperator::AtArrow | BinaryOperator::ArrowAt | BinaryOperator::PGOverlap);
            if is_of_others && !matches!((&l, &r), (SqlType::Text, SqlType::Text)) {
                return Err(no_operator(&l, &op, &r));
            }
            if matches!(op, BinaryOperator::PGBitwiseShiftLeft | BinaryOperator::PGBitwiseShiftRight)
                && l != r
                && matches!(l, SqlType::Int2 | SqlType::Int4 | SqlType::Int8)
            {
                // The result is of the left side's type.
                right = Expr::Cast(Cast::new(Box::new(right), l.data_type()));
            }
        }
        if op == BinaryOperator::StringConcat {
            // NULL is a text there, unless the other side is something else that can be joined.
            let is_null = |expr: &Expr| arithmetic::type_of(expr, schema) == Some(SqlType::Null);
            let text = || Expr::Literal(ScalarValue::Utf8(None), None);
            if is_null(&left) && !is_joined(&right, schema) {
                left = text();
            }
            if is_null(&right) && !is_joined(&left, schema) {
                right = text();
            }
            let is_bytes = |expr: &Expr| arithmetic::type_of(expr, schema) == Some(SqlType::Bytea);
            if is_bytes(&left) {
                right = typed(right, &left, schema);
            } else if is_bytes(&right) {
                left = typed(left, &right, schema);
            }
            let is_of_bytes = is_bytes(&left) && is_bytes(&right);
            if !is_of_bytes && is_text(&left, schema) {
                right = shown(right, schema);
            } else if !is_of_bytes && is_text(&right, schema) {
                left = shown(left, schema);
            }
        }
        if op == BinaryOperator::Modulo {
            check_modulo(&left, &right, schema)?;
        }
        if op == BinaryOperator::PGStartsWith {
            return Ok(PlannerResult::Planned(starts_with().call(vec![left, right])));
        }
        if let Some(planned) = arithmetic::plan(&op, &mut left, &mut right, schema) {
            return Ok(PlannerResult::Planned(planned));
        }
        check_operands(&op, &left, &right, schema)?;
        if !takes_type_of_other_side(&op) {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        }
        let (left, right) = (typed(left, &right, schema), right);
        let right = typed(right, &left, schema);
        check_comparable(&op, &left, &right, schema)?;
        let (left, right) = without_blanks(left, right, schema);
        let (left, right) = met(left, right, schema);
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }

    /// `j['a']` is `j -> 'a'`.
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { expr, field_access } = access;
        let expr = in_operand(expr, schema);
        let is_json = arithmetic::type_of(&expr, schema) == Some(SqlType::Jsonb);
        let key = match field_access {
            GetFieldAccess::NamedStructField { name } if is_json => Expr::Literal(name, None),
            GetFieldAccess::ListIndex { key } if is_json => *key,
            GetFieldAccess::NamedStructField { name }
                if matches!(arithmetic::type_of(&expr, schema), Some(SqlType::Array(_))) =>
            {
                let key = operand(Expr::Literal(name, None), &SqlType::Int4);
                return Ok(PlannerResult::Planned(array_parts::item(expr, key)));
            }
            GetFieldAccess::ListIndex { key } => {
                return Ok(PlannerResult::Planned(array_parts::item(expr, operand(*key, &SqlType::Int4))));
            }
            GetFieldAccess::ListRange { start, stop, .. } => {
                let (start, stop) = (operand(*start, &SqlType::Int4), operand(*stop, &SqlType::Int4));
                return Ok(PlannerResult::Planned(array_parts::slice(expr, start, stop)));
            }
            field_access => return Ok(PlannerResult::Original(RawFieldAccessExpr { expr, field_access })),
        };
        let function = Arc::new(json::operator(false, false));
        let call = ScalarFunction::new_udf(function, vec![expr, key]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let function = Arc::new(date_fields::function("extract"));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let is_number = |expr: &Expr| match expr {
            Expr::Literal(value, _) => value.data_type().is_integer(),
            Expr::Cast(cast) => cast.field.data_type().is_integer(),
            _ => false,
        };
        match args.as_slice() {
            [_, from] if !is_number(from) => Ok(PlannerResult::Planned(defined::call(&regexp::SUBSTRING, args))),
            [_, from, length] if is_number(from) || is_number(length) => {
                let numbers = args.into_iter().enumerate();
                let args = numbers.map(|(idx, arg)| if idx == 0 { arg } else { operand(arg, &SqlType::Int4) });
                Ok(planned(byte_parts::substr(), args.collect()))
            }
            _ => Ok(planned(byte_parts::substr(), args)),
        }
    }

    /// `position(x IN y)`: the arguments are y and x.
    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(planned(byte_parts::strpos(), args))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(planned(byte_parts::overlay(), args))
    }

    fn plan_window(&self, expr: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        Ok(windows::function::plan(expr))
    }
}

fn planned(function: ScalarUDF, args: Vec<Expr>) -> PlannerResult<Vec<Expr>> {
    PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), args)))
}

/// A float has no remainder. Errors: `42883`.
fn check_modulo(left: &Expr, right: &Expr, schema: &DFSchema) -> Result<()> {
    let types = (arithmetic::type_of(left, schema), arithmetic::type_of(right, schema));
    let is_float = |t: &SqlType| matches!(t, SqlType::Float4 | SqlType::Float8);
    match types {
        (Some(left), Some(right)) if is_float(&left) || is_float(&right) => {
            Err(no_operator(&left, &BinaryOperator::Modulo, &right))
        }
        _ => Ok(()),
    }
}

/// What DataFusion's own operators are left with: numbers, and moments and intervals. Errors: `42883` for other types.
fn check_operands(op: &BinaryOperator, left: &Expr, right: &Expr, schema: &DFSchema) -> Result<()> {
    use {BinaryOperator as Op, SqlType as T};
    let (Some(l), Some(r)) = (arithmetic::type_of(left, schema), arithmetic::type_of(right, schema)) else {
        return Ok(());
    };
    let is_integer = |t: &T| matches!(t, T::Int2 | T::Int4 | T::Int8);
    let is_shifted = |t: &T| matches!(t, T::Timestamp | T::Timestamptz | T::Interval);
    let is_joined = |t: &T| matches!(t, T::Text | T::Varchar(_) | T::Char(_) | T::Bytea | T::Jsonb | T::Array(_));
    let exists = match op {
        _ if l == T::Null || r == T::Null => true,
        Op::Plus => {
            is_number(&l) && is_number(&r) || is_shifted(&l) && r == T::Interval || l == T::Interval && is_shifted(&r)
        }
        Op::Minus => is_number(&l) && is_number(&r) || is_shifted(&l) && r == T::Interval,
        Op::Multiply | Op::Divide | Op::Modulo => is_number(&l) && is_number(&r),
        Op::BitwiseAnd | Op::BitwiseOr | Op::PGBitwiseXor | Op::PGBitwiseShiftLeft | Op::PGBitwiseShiftRight => {
            is_integer(&l) && is_integer(&r)
        }
        Op::StringConcat => is_joined(&l) || is_joined(&r),
        _ => true,
    };
    if exists { Ok(()) } else { Err(no_operator(&l, op, &r)) }
}

/// DataFusion would read a text as a number, and take an integer for a date. Errors: `42883`.
fn check_comparable(op: &BinaryOperator, left: &Expr, right: &Expr, schema: &DFSchema) -> Result<()> {
    // A parameter takes whatever type the other side has, also one that the client declared to be a text.
    let is_text = |field: &FieldRef| matches!(SqlType::of(field), SqlType::Text | SqlType::Varchar(_));
    let is_open =
        |expr: &Expr| matches!(expr, Expr::Placeholder(parameter) if parameter.field.as_ref().is_none_or(is_text));
    if is_open(left) || is_open(right) {
        return Ok(());
    }
    match (arithmetic::type_of(left, schema), arithmetic::type_of(right, schema)) {
        (Some(left), Some(right)) if !are_compared(&left, &right) => Err(no_operator(&left, op, &right)),
        _ => Ok(()),
    }
}

fn no_operator(left: &SqlType, op: &BinaryOperator, right: &SqlType) -> datafusion::common::DataFusionError {
    let message = format!("operator does not exist: {left} {op} {right}");
    cast::external(
        SqlError::new(SqlState::UndefinedFunction, message).with_hint(
            "No operator matches the given name and argument types. You might need to add explicit type casts.",
        ),
    )
}

/// Both sides of a comparison that is no binary operator, as that of `op` would get them. Errors: `42883`.
pub(crate) fn comparable(op: &BinaryOperator, left: Expr, right: Expr, schema: &DFSchema) -> Result<(Expr, Expr)> {
    let left = typed(left, &right, schema);
    let right = typed(right, &left, schema);
    check_comparable(op, &left, &right, schema)?;
    let (left, right) = without_blanks(left, right, schema);
    Ok(met(left, right, schema))
}

/// Both sides of a comparison as the type in which PostgreSQL compares them.
pub(crate) fn met(left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    match (arithmetic::type_of(&left, schema), arithmetic::type_of(&right, schema)) {
        (Some(l), Some(r)) => (met_as(left, &l, &r), met_as(right, &r, &l)),
        _ => (left, right),
    }
}

/// One side, as what it is compared with the other as. DataFusion would make nanoseconds of a date and a timestamp, which
/// reach from 1677 to 2262 only.
pub(crate) fn met_as(expr: Expr, own: &SqlType, other: &SqlType) -> Expr {
    use SqlType as T;
    match (own, other) {
        (T::Date, T::Timestamp | T::Timestamptz) | (T::Timestamp, T::Timestamptz) | (T::Time, T::Interval) => {
            cast::to_moment(expr, other)
        }
        (own, other) if meet_as_doubles(own, other) => as_double(expr, own),
        (T::Char(_), T::Char(_) | T::Varchar(_) | T::Text) | (T::Varchar(_), T::Char(_)) => rtrim().call(vec![expr]),
        _ => expr,
    }
}

/// Whether values of two types, a float and another number, are compared as doubles: DataFusion would make numerics or
/// reals of both.
fn meet_as_doubles(left: &SqlType, right: &SqlType) -> bool {
    use SqlType as T;
    let is_float = |t: &T| matches!(t, T::Float4 | T::Float8);
    left != right && is_number(left) && is_number(right) && (is_float(left) || is_float(right))
}

/// A number as a double.
pub(crate) fn as_double(expr: Expr, own: &SqlType) -> Expr {
    match own {
        SqlType::Float8 => expr,
        _ => Expr::Cast(Cast::new(Box::new(expr), DataType::Float64)),
    }
}

/// A string literal beside an operator of arithmetic: it has the other side's type, or is what is added to a moment.
fn read_operand(op: &BinaryOperator, left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    use BinaryOperator as Op;
    use SqlType as T;
    if matches!(op, Op::PGBitwiseShiftLeft | Op::PGBitwiseShiftRight) {
        return (left, operand(right, &T::Int4));
    }
    let is_like_other = match op {
        Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo => false,
        Op::AtArrow | Op::ArrowAt | Op::PGOverlap | Op::StringConcat => true,
        Op::BitwiseAnd | Op::BitwiseOr | Op::PGBitwiseXor => true,
        _ => return (left, right),
    };
    if is_like_other {
        let is_other = |other: &Expr| match arithmetic::type_of(other, schema) {
            Some(T::Jsonb) => true,
            Some(T::Array(_)) => *op != Op::StringConcat,
            Some(T::Int2 | T::Int4 | T::Int8) => *op != Op::StringConcat,
            _ => false,
        };
        let left = if is_other(&right) { typed(left, &right, schema) } else { left };
        let right = if is_other(&left) { typed(right, &left, schema) } else { right };
        return (left, right);
    }
    let read = |literal: Expr, other: &Expr| match arithmetic::type_of(other, schema) {
        Some(T::Timestamp | T::Timestamptz | T::Time) if matches!(op, Op::Plus) => operand(literal, &T::Interval),
        Some(own @ (T::Interval | T::Date | T::Time | T::Timestamp | T::Timestamptz)) if matches!(op, Op::Minus) => {
            operand(literal, &own)
        }
        Some(T::Interval) if matches!(op, Op::Plus) => typed(literal, other, schema),
        Some(T::Interval) if matches!(op, Op::Multiply | Op::Divide) => operand(literal, &T::Float8),
        Some(T::Int2 | T::Int4 | T::Int8 | T::Numeric(_) | T::Float4 | T::Float8) => typed(literal, other, schema),
        Some(T::Timestamp | T::Timestamptz) => typed(literal, other, schema),
        _ => literal,
    };
    let left = read(left, &right);
    let right = read(right, &left);
    (left, right)
}

/// A literal as a value of this type, NULL too.
fn operand(literal: Expr, target: &SqlType) -> Expr {
    let data_type = target.data_type();
    match &literal {
        Expr::Literal(value, _)
            if value.is_null() && (value.data_type().is_null() || value.data_type().is_string()) =>
        {
            ScalarValue::try_from(&data_type).map_or(literal, |null| Expr::Literal(null, None))
        }
        _ => read_as(literal, target, &data_type),
    }
}

/// Blanks at the end of a char(n) do not count in a comparison, nor those of a literal that it is compared with.
fn without_blanks(left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let is_char = |expr: &Expr| matches!(arithmetic::type_of(expr, schema), Some(SqlType::Char(_)));
    let is_varchar = |expr: &Expr| matches!(arithmetic::type_of(expr, schema), Some(SqlType::Varchar(_)));
    let (left_char, right_char) = (is_char(&left), is_char(&right));
    let trimmed = |expr: Expr, other_char: bool, own_char: bool| match own_char
        || (other_char && (matches!(expr, Expr::Literal(..) | Expr::Placeholder(_)) || is_varchar(&expr)))
    {
        true => rtrim().call(vec![expr]),
        false => expr,
    };
    (trimmed(left, right_char, left_char), trimmed(right, left_char, right_char))
}

/// Whether `||` joins values of its type that are no texts.
fn is_joined(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(arithmetic::type_of(expr, schema), Some(SqlType::Bytea | SqlType::Jsonb | SqlType::Array(_)))
}

fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(arithmetic::type_of(expr, schema), Some(SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_)))
}

/// What is not text, and is put together with a text, as PostgreSQL shows it.
fn shown(expr: Expr, schema: &DFSchema) -> Expr {
    use SqlType as T;
    let own = arithmetic::type_of(&expr, schema);
    if own.is_none_or(|own| matches!(own, T::Null | T::Text | T::Varchar(_) | T::Char(_) | T::Array(_))) {
        return expr;
    }
    cast::to(expr, &T::Text)
}

/// A char(n) without the blanks at its end.
fn trimmed(expr: Expr, schema: &DFSchema) -> Expr {
    match arithmetic::type_of(&expr, schema) {
        Some(SqlType::Char(_)) => Expr::ScalarFunction(ScalarFunction::new_udf(rtrim(), vec![expr])),
        _ => expr,
    }
}

fn takes_type_of_other_side(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// A string literal compared with something that is no text is read as that thing's type, so that a bad one is an
/// error and not a comparison of texts.
fn typed(literal: Expr, other: &Expr, schema: &DFSchema) -> Expr {
    match other.to_field(schema) {
        Ok((_, field)) => read_as(literal, &SqlType::of(&field), field.data_type()),
        Err(_) => literal,
    }
}

/// The precision and scale of a number as it is written down. None: it is not written with digits and a point alone.
fn digits_of(literal: &Expr) -> Option<(u8, i8)> {
    let Expr::Literal(value, _) = literal else { return None };
    let text = value.try_as_str()??.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    let precision = u8::try_from(whole.len() + fraction.len()).ok().filter(|n| *n <= 38 && is_number)?;
    Some((precision, i8::try_from(fraction.len()).ok()?))
}

/// A string literal as a value of a type that is no text; any other expression as it is.
pub(crate) fn read_as(literal: Expr, target: &SqlType, data_type: &DataType) -> Expr {
    let is_text = matches!(&literal, Expr::Literal(ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)), _));
    if !is_text {
        return literal;
    }
    if let Expr::Literal(value, _) = &literal
        && let Some(text) = value.try_as_str().flatten()
    {
        parameters::is_found(text, target);
    }
    match (target, data_type) {
        (
            SqlType::Uuid | SqlType::Json | SqlType::Jsonb | SqlType::Bytea | SqlType::Interval | SqlType::Array(_),
            _,
        ) => match cast::function(&format!("cast to {target}")) {
            Some(function) => Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![literal])),
            None => literal,
        },
        // Any number may stand in the text, not only one that fits the column.
        (_, DataType::Decimal128(..)) => {
            let (precision, scale) = digits_of(&literal).unwrap_or((38, 9));
            Expr::Cast(Cast::new(Box::new(literal), DataType::Decimal128(precision, scale)))
        }
        (_, data_type) if data_type.is_numeric() || data_type.is_temporal() || *data_type == DataType::Boolean => {
            Expr::Cast(Cast::new(Box::new(literal), data_type.clone()))
        }
        _ => literal,
    }
}

//! Values of one type agree before DataFusion coerces them: those of CASE, coalesce(), an array, a column of a UNION.
//!
//! Among them a string literal is read as the type of the others, numbers beside a float are floats, and dates beside
//! timestamps are timestamps: DataFusion would make texts, numerics and nanoseconds of them. What fields say beyond an
//! Arrow type comes after coercion (`common_types.rs`).

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, Cast};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, Union};
use tidewire_types::SqlType;

use crate::functions::{cast, float_of, read_as};
use crate::type_classes::{check_one_type, is_moment, is_number};

/// What the values have in common, where a float or a literal is among them, or moments or arrays of several types.
struct Common {
    float: Option<DataType>,
    /// The moments, or the arrays.
    wide: Option<SqlType>,
    literal: Option<(SqlType, DataType)>,
}

impl Common {
    /// Of the fields of the values that are no literals.
    fn of(typed: &[FieldRef]) -> Common {
        let types: Vec<_> = typed.iter().map(|field| field.data_type().clone()).collect();
        let is_mixed = types.windows(2).any(|pair| pair.first() != pair.last());
        let float = float_of(&types);
        let wide = widest_moment(typed).or_else(|| widest_array(typed)).filter(|_| is_mixed);
        let literal = typed.first().map(|first| match &wide {
            Some(wide) => (wide.clone(), wide.data_type()),
            None => (SqlType::of(first), float.clone().unwrap_or_else(|| first.data_type().clone())),
        });
        Common { float: float.filter(|_| is_mixed), wide, literal }
    }

    fn read(&self, value: Expr, schema: &DFSchema) -> Expr {
        let value = match &self.literal {
            Some((target, data_type)) => read_as(value, target, data_type),
            None => value,
        };
        if let Some(target) = &self.wide {
            let own = value.to_field(schema).map(|(_, own)| SqlType::of(&own));
            return match (own, target) {
                (Ok(own), target) if own == *target => value,
                (Ok(SqlType::Array(_)), SqlType::Array(_)) => cast::to(value, target),
                (Ok(own), target) if is_moment(&own) => cast::to_moment(value, target),
                _ => value,
            };
        }
        match &self.float {
            Some(float) if value.get_type(schema).is_ok_and(|own| own.is_numeric() && own != *float) => {
                Expr::Cast(Cast::new(Box::new(value), float.clone()))
            }
            _ => value,
        }
    }
}

/// The type that has all moments of these types, where they are all moments. DataFusion would make nanoseconds of them.
fn widest_moment(typed: &[FieldRef]) -> Option<SqlType> {
    let types: Vec<_> = typed.iter().map(|field| SqlType::of(field)).collect();
    let by_width = [SqlType::Timestamptz, SqlType::Timestamp, SqlType::Date];
    types.iter().all(is_moment).then(|| by_width.into_iter().find(|t| types.contains(t))).flatten()
}

/// The type that has all these arrays of numbers.
fn widest_array(typed: &[FieldRef]) -> Option<SqlType> {
    use SqlType as T;
    let item = |field: &FieldRef| match T::of(field) {
        T::Array(item) => Some(*item).filter(is_number),
        _ => None,
    };
    let items: Vec<T> = typed.iter().map(item).collect::<Option<_>>()?;
    let widest = match float_of(&items.iter().map(T::data_type).collect::<Vec<_>>()) {
        Some(DataType::Float32) => T::Float4,
        Some(_) => T::Float8,
        None if items.iter().any(|item| matches!(item, T::Numeric(_))) => T::Numeric(None),
        None => [T::Int8, T::Int4, T::Int2].into_iter().find(|t| items.contains(t))?,
    };
    Some(T::Array(Box::new(widest)))
}

/// None: it is a literal that takes the type of the others, or cannot be told.
fn typed_field(value: &Expr, schema: &DFSchema) -> Option<FieldRef> {
    let is_literal = |e: &Expr| matches!(e, Expr::Literal(v, _) if v.is_null() || v.data_type().is_string());
    if is_literal(value) {
        return None;
    }
    value.to_field(schema).ok().map(|(_, field)| field).filter(|field| !field.data_type().is_null())
}

/// Whether it is a function that gives one of its arguments, or an array of them.
pub(crate) fn is_choice(function: &str) -> bool {
    matches!(function, "coalesce" | "greatest" | "least" | "make_array")
}

/// Makes the values agree of which the expression gives one, or an array. Errors: `42804` where they cannot.
pub(crate) fn agreed(mut expr: Expr, schema: &DFSchema) -> Result<Expr> {
    match &mut expr {
        Expr::Case(Case { when_then_expr, else_expr, .. }) => {
            let thens = when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            agree("CASE", thens.chain(else_expr.as_deref_mut()).collect(), schema)?;
        }
        Expr::ScalarFunction(call) if is_choice(call.func.name()) => {
            let what = match call.func.name() {
                "make_array" => "ARRAY".to_owned(),
                name => name.to_uppercase(),
            };
            agree(&what, call.args.iter_mut().collect(), schema)?;
        }
        _ => {}
    }
    Ok(expr)
}

/// Makes values agree that are to have one type: those of `what`. Errors: `42804` where they cannot.
fn agree(what: &str, values: Vec<&mut Expr>, schema: &DFSchema) -> Result<()> {
    let typed: Vec<_> = values.iter().filter_map(|value| typed_field(value, schema)).collect();
    check_one_type(what, &typed.iter().map(|field| SqlType::of(field)).collect::<Vec<_>>())?;
    let common = Common::of(&typed);
    for value in values {
        let taken = std::mem::replace(value, Expr::Literal(ScalarValue::Null, None));
        *value = common.read(taken, schema);
    }
    Ok(())
}

/// The union of inputs whose columns agree.
pub(crate) fn united(union: Union) -> Result<Transformed<LogicalPlan>> {
    let mut columns = vec![];
    for idx in 0..union.schema.fields().len() {
        let typed = union.inputs.iter().filter_map(|input| match input.as_ref() {
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                expr.get(idx).and_then(|expr| typed_field(&expr.clone().unalias(), input.schema()))
            }
            other => other.schema().fields().get(idx).cloned().filter(|field| !field.data_type().is_null()),
        });
        columns.push(Common::of(&typed.collect::<Vec<_>>()));
    }
    let mut changed = false;
    let mut inputs = vec![];
    for input in union.inputs {
        let (exprs, below) = match input.as_ref() {
            LogicalPlan::Projection(Projection { expr, input, .. }) => (expr.clone(), input.clone()),
            other => (other.schema().columns().into_iter().map(Expr::Column).collect(), input.clone()),
        };
        let schema = below.schema().clone();
        let fields = input.schema().iter().zip(union.schema.fields());
        let read = exprs.iter().zip(&columns).zip(fields).map(|((expr, common), ((qualifier, field), named))| {
            let value = expr.clone().unalias();
            match common.read(value.clone(), &schema) {
                // DataFusion looks for the union's names in each input, when it flattens unions or finds the others empty.
                read if field.name() != named.name() => read.alias(named.name()),
                same if same == value => expr.clone(),
                read => read.alias_qualified(qualifier.cloned(), field.name()),
            }
        });
        let read: Vec<_> = read.collect();
        inputs.push(match read == exprs {
            true => input,
            false => {
                changed = true;
                Arc::new(LogicalPlan::Projection(Projection::try_new(read, below)?))
            }
        });
    }
    // One of the inputs may be a union that has other types since.
    let of_inputs = Union::try_new_with_loose_types(inputs)?;
    let types = |schema: &DFSchema| schema.fields().iter().map(|field| SqlType::of(field)).collect::<Vec<_>>();
    Ok(match changed || types(&of_inputs.schema) != types(&union.schema) {
        true => Transformed::yes(LogicalPlan::Union(of_inputs)),
        false => Transformed::no(LogicalPlan::Union(Union { inputs: of_inputs.inputs, schema: union.schema })),
    })
}

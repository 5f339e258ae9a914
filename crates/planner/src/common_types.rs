//! The types that CASE, coalesce(), greatest(), least(), nullif(), ARRAY[] and UNION give their values.
//!
//! DataFusion finds the common Arrow type and forgets what the fields say beyond it: whether a text is a uuid or a
//! jsonb, and that a numeric has no scale of its own. Here the result of such an expression is [`typed`] again, after
//! the analyzer has coerced the values. Invariant: both inputs of a UNION have the same fields but for names.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, Union};
use tidewire_types::SqlType;

use crate::column_names::map_named;
use crate::functions::cast;
use crate::functions::typed::{bare, given_type, retyped};

/// Gives all expressions and unions of an analyzed plan their types.
pub(crate) fn in_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let plan = match plan {
            LogicalPlan::Union(union) => return union_of_types(union).map(Transformed::yes),
            other => other,
        };
        let schema = merge_schema(&plan.inputs());
        let plan = map_named(plan, |expr| retype(expr, &schema))?;
        // What an input has been given changes the columns of everything above it.
        Ok(Transformed::yes(plan.data.recompute_schema()?))
    })
    .map(|t| t.data)
}

/// Gives an expression over the columns of `schema` its types.
pub(crate) fn in_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    retype(expr, schema).map(|t| t.data)
}

pub(crate) fn retype(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|mut expr| {
        // A literal that Arrow's cast makes forgets what the items are.
        if let Expr::Cast(cast) = &expr
            && bare(cast.field.data_type()).is_some()
            && is_represented(&SqlType::of(&cast.field), &cast.expr.get_type(schema)?)
        {
            return Ok(Transformed::yes(retyped(cast.expr.as_ref().clone(), SqlType::of(&cast.field))));
        }
        // What it was given before the plan was analyzed, it has by now.
        if let Some((inner, target)) = given_type(&expr)
            && let (_, field) = inner.to_field(schema)?
            && SqlType::of(&field) == *target
            && is_represented(target, field.data_type())
        {
            return Ok(Transformed::yes(inner.clone()));
        }
        let values = match &mut expr {
            Expr::Case(case) => {
                // PostgreSQL takes ELSE for the first.
                let otherwise = case.else_expr.iter_mut().map(|otherwise| otherwise.as_mut());
                otherwise.chain(case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut())).collect()
            }
            Expr::ScalarFunction(call) => match call.func.name() {
                "coalesce" | "nvl" | "greatest" | "least" | "make_array" => call.args.iter_mut().collect(),
                "nullif" => call.args.iter_mut().take(1).collect(),
                _ => vec![],
            },
            _ => vec![],
        };
        let mut values: Vec<&mut Expr> = values;
        let mut types = vec![];
        for value in &values {
            types.push(type_of(value, schema)?);
        }
        // A char(n) among other texts loses its blanks.
        let mut is_trimmed = false;
        if types.iter().flatten().any(|own| matches!(own, SqlType::Text | SqlType::Varchar(_))) {
            for (value, own) in values.iter_mut().zip(&types) {
                if matches!(own, Some(SqlType::Char(_))) {
                    let padded = std::mem::replace(*value, Expr::Literal(ScalarValue::Null, None));
                    **value = cast::to(padded, &SqlType::Text);
                    is_trimmed = true;
                }
            }
        }
        let Some(target) = common(types.into_iter().flatten()) else {
            return Ok(if is_trimmed { Transformed::yes(expr) } else { Transformed::no(expr) });
        };
        for value in &mut values {
            read_literal(value, &target, schema)?;
        }
        let is_call = |name: &str| matches!(&expr, Expr::ScalarFunction(call) if call.func.name() == name);
        // `=` of a varchar is that of texts.
        if is_call("nullif") && matches!(target, SqlType::Varchar(_)) {
            return Ok(Transformed::no(expr));
        }
        let is_array = is_call("make_array");
        let target = if is_array { SqlType::Array(Box::new(target)) } else { target };
        let (_, field) = expr.to_field(schema)?;
        if SqlType::of(&field) == target || !is_represented(&target, field.data_type()) {
            return Ok(Transformed::no(expr));
        }
        Ok(Transformed::yes(retyped(expr, target)))
    })
}

/// Whether values of the type are of that Arrow type, but for what the fields inside say.
pub(crate) fn is_represented(target: &SqlType, data_type: &arrow::datatypes::DataType) -> bool {
    target.data_type().equals_datatype(data_type)
}

/// The type of a value. None: it is NULL, or a literal that takes the type of the others.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<Option<SqlType>> {
    if is_open(expr) {
        return Ok(None);
    }
    // The analyzer's own cast says only which Arrow type the value has now.
    if let Expr::Cast(cast) = expr
        && cast.field.metadata().is_empty()
        && cast.field.name().is_empty()
        && let Some(inner) = type_of(&cast.expr, schema)?
        && matches!(inner, SqlType::Numeric(_) | SqlType::Int2 | SqlType::Int4 | SqlType::Int8)
        && cast.field.data_type().is_decimal()
    {
        return Ok(Some(if matches!(inner, SqlType::Numeric(None)) { inner } else { SqlType::of(&cast.field) }));
    }
    let sql_type = SqlType::of(&expr.to_field(schema)?.1);
    Ok((sql_type != SqlType::Null).then_some(sql_type))
}

fn is_open(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null() || value.data_type().is_string(),
        Expr::Cast(cast) => {
            let to = cast.field.data_type();
            is_open(&cast.expr) && (to.is_string() || to.is_binary() || is_null(&cast.expr))
        }
        Expr::Alias(alias) => is_open(&alias.expr),
        _ => false,
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.is_null())
}

/// The common type of values, where their fields have to say it. None: it is what DataFusion found.
fn common(mut types: impl Iterator<Item = SqlType>) -> Option<SqlType> {
    let first = types.next()?;
    types.try_fold(first, common_of).filter(is_tagged)
}

fn common_of(before: SqlType, next: SqlType) -> Option<SqlType> {
    use SqlType as T;
    match (before, next) {
        (before, next) if before == next => Some(before),
        (T::Numeric(_), T::Numeric(_)) => Some(T::Numeric(None)),
        // Of texts, the first one's type counts.
        (T::Varchar(_), T::Varchar(_) | T::Text | T::Char(_)) | (T::Char(_), T::Varchar(_)) => Some(T::Varchar(None)),
        (T::Text, T::Varchar(_) | T::Char(_)) | (T::Char(_), T::Text) => Some(T::Text),
        (T::Array(before), T::Array(next)) => common_of(*before, *next).map(|item| T::Array(Box::new(item))),
        _ => None,
    }
}

fn is_tagged(sql_type: &SqlType) -> bool {
    use SqlType as T;
    match sql_type {
        T::Array(element) => is_tagged(element),
        other => {
            matches!(other, T::Uuid | T::Json | T::Jsonb | T::Bytea | T::Varchar(_) | T::Char(_) | T::Numeric(None))
        }
    }
}

/// A literal among values of a type is one of that type.
fn read_literal(expr: &mut Expr, target: &SqlType, schema: &DFSchema) -> Result<()> {
    let is_read = matches!(target, SqlType::Uuid | SqlType::Json | SqlType::Jsonb | SqlType::Bytea);
    if !is_read || !is_open(expr) || is_null(expr) {
        return Ok(());
    }
    let Some(function) = cast::function_name(target).and_then(|name| cast::function(&name)) else { return Ok(()) };
    let data_type = expr.get_type(schema)?;
    let mut literal = std::mem::replace(expr, Expr::Literal(ScalarValue::Null, None));
    // The analyzer's cast takes the letters of a bytea for its bytes.
    while let Expr::Cast(cast) = literal {
        literal = *cast.expr;
    }
    let value = Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![literal]));
    // Before the plan is analyzed the literal is a text still.
    let is_bytes = *target == SqlType::Bytea && data_type.is_string();
    *expr = if is_bytes { value } else { value.cast_to(&data_type, schema)? };
    Ok(())
}

/// The union with fields that are the same in all inputs.
pub(crate) fn union_of_types(union: Union) -> Result<LogicalPlan> {
    let n_columns = union.schema.fields().len();
    let mut targets: Vec<Option<SqlType>> = vec![];
    for idx in 0..n_columns {
        let fields: Vec<_> =
            union.inputs.iter().filter_map(|input| input.schema().fields().get(idx).cloned()).collect();
        let said: Vec<_> = fields.iter().map(|field| (field.metadata(), field.data_type())).collect();
        let same = said.windows(2).all(|pair| pair.first() == pair.last());
        if same {
            targets.push(None);
            continue;
        }
        let types = union.inputs.iter().filter_map(|input| column_type(input, idx).transpose());
        let types: Vec<SqlType> = types.collect::<Result<_>>()?;
        let data_type = fields.first().map_or(arrow::datatypes::DataType::Null, |f| f.data_type().clone());
        let target = common(types.into_iter()).filter(|target| is_represented(target, &data_type));
        targets.push(Some(target.unwrap_or_else(|| SqlType::of_data_type(&data_type))));
    }
    let inputs = union.inputs.iter().map(|input| match targets.iter().any(Option::is_some) {
        false => Ok(input.clone()),
        true => with_types(input, &targets).map(Arc::new),
    });
    Ok(LogicalPlan::Union(Union::try_new(inputs.collect::<Result<_>>()?)?))
}

/// The type of a column of one input. None: it is open.
fn column_type(input: &LogicalPlan, idx: usize) -> Result<Option<SqlType>> {
    if let LogicalPlan::Projection(Projection { expr, input, .. }) = input
        && let Some(expr) = expr.get(idx)
    {
        if let Expr::Column(column) = unaliased(expr)
            && let LogicalPlan::Projection(_) = input.as_ref()
            && let Some(below) = input.schema().maybe_index_of_column(column)
        {
            return column_type(input, below);
        }
        let cast_of_column = match unaliased(expr) {
            Expr::Cast(cast) => match cast.expr.as_ref() {
                Expr::Column(column) => input.schema().maybe_index_of_column(column),
                _ => None,
            },
            _ => None,
        };
        if let Some(below) = cast_of_column
            && column_type(input, below)?.is_none()
        {
            return Ok(None);
        }
        return type_of(unaliased(expr), input.schema());
    }
    Ok(input.schema().fields().get(idx).map(|field| SqlType::of(field)))
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

fn with_types(input: &Arc<LogicalPlan>, targets: &[Option<SqlType>]) -> Result<LogicalPlan> {
    let columns = input.schema().iter().zip(targets).enumerate().map(|(idx, ((qualifier, field), target))| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let Some(target) =
            target.as_ref().filter(|target| SqlType::of(field) != **target || !field.metadata().is_empty())
        else {
            return Ok(column);
        };
        let value = match (column_type(input, idx)?, target) {
            (None, SqlType::Uuid | SqlType::Json | SqlType::Jsonb) => cast::to(column, target),
            (Some(SqlType::Char(_)), SqlType::Text | SqlType::Varchar(_)) => cast::to(column, &SqlType::Text),
            _ => column,
        };
        Ok(retyped(value, target.clone()).alias_qualified(qualifier.cloned(), field.name()))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlan::Projection(Projection::try_new(columns, input.clone())?))
}

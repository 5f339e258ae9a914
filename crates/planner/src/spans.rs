//! What Arrow compares in another way than PostgreSQL is compared by a key: intervals, arrays and jsonb.
//!
//! Intervals are equal, and come before each other, by their length: a month has 30 days, a day 24 hours.
//! Arrow compares months, then days, then the time. So everything that compares intervals or tells them apart does so by
//! their [`span`], a numeric of microseconds: comparisons, and the keys of sorts, windows, joins, groups and DISTINCT.
//! The value that is shown stays the one that was stored; of a group's values it is the least, so that a view and its
//! query agree on it. Invariant: no rule after this one makes a comparison of intervals, but for the values that a
//! subquery is computed for once each ([`crate::unnest_query`]), which must not be mixed up.
//!
//! Arrays are ordered by bytes that are in PostgreSQL's order: Arrow has a NULL inside an array where NULLS FIRST or LAST
//! has the array that is NULL, and DataFusion's threshold of a LIMIT compares arrays in yet another way.
//!
//! jsonb, a text to Arrow, is compared, ordered and told apart by such bytes too: 1.0 is 1. So are arrays of intervals and
//! of jsonb.

mod distinct_values;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, Schema};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{
    AggregateFunction, Between, BinaryExpr, Case, InList, ScalarFunction, Sort as SortExpr, WindowFunction,
};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Sort, when,
};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_operators::aggregate::Function;
use tidewire_operators::aggregate::functions::{function_of, udaf_of};
use tidewire_types::{SqlError, SqlType};

use crate::column_names::map_named;
use crate::functions::typed::retyped;
use crate::functions::{self, ROW_VALUE, cast, span};
use crate::provider::to_datafusion;
use crate::windows::spec::frame_items;

/// Puts spans in the place of all intervals of an analyzed plan that are compared.
pub(crate) fn in_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        map_named(plan, |expr| in_expr(expr, &schema))?.transform_data(keys)
    })
    .map(|t| t.data)
}

/// Whether values of the expression are intervals.
fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Interval(IntervalUnit::MonthDayNano)))
}

fn is_array(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::List(_)))
}

fn is_jsonb(expr: &Expr, schema: &DFSchema) -> bool {
    // Asked of all expressions that are compared: most are no texts.
    matches!(expr.get_type(schema), Ok(DataType::Utf8View))
        && matches!(expr.to_field(schema), Ok((_, field)) if SqlType::of(&field) == SqlType::Jsonb)
}

/// Whether it is an array whose equal items may differ.
fn is_array_of_forms(expr: &Expr, schema: &DFSchema) -> bool {
    is_array(expr, schema)
        && matches!(expr.to_field(schema), Ok((_, field)) if matches!(
            SqlType::of(&field), SqlType::Array(item) if matches!(*item, SqlType::Interval | SqlType::Jsonb)
        ))
}

/// Whether the expression is not compared as it is.
pub(crate) fn has_key(expr: &Expr, schema: &DFSchema) -> bool {
    is_interval(expr, schema) || is_array(expr, schema) || is_jsonb(expr, schema)
}

/// Whether equal values may differ, so that they are told apart by a key.
pub(crate) fn has_forms(expr: &Expr, schema: &DFSchema) -> bool {
    is_interval(expr, schema) || is_jsonb(expr, schema) || is_array_of_forms(expr, schema)
}

/// The expression as a key that values are told apart by.
pub(crate) fn key(expr: Expr, schema: &DFSchema) -> Expr {
    if is_interval(&expr, schema) {
        span(expr)
    } else if is_jsonb(&expr, schema) {
        functions::in_json_order(expr)
    } else if is_array_of_forms(&expr, schema) {
        functions::in_order(expr)
    } else {
        expr
    }
}

/// What rows are told apart by, as expressions over them. None: by themselves, for equal ones do not differ.
pub(crate) fn row_keys(schema: &Schema) -> Result<Option<Vec<Arc<dyn PhysicalExpr>>>> {
    // Two columns may have one name.
    let named =
        schema.fields().iter().enumerate().map(|(idx, field)| field.as_ref().clone().with_name(idx.to_string()));
    let schema = DFSchema::try_from(Schema::new(named.collect::<Vec<_>>()))?;
    let columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    if !columns.iter().any(|column| has_forms(column, &schema)) {
        return Ok(None);
    }
    let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let keys = columns.into_iter().map(|column| create_physical_expr(&key(column, &schema), &schema, &props, &context));
    keys.collect::<Result<_>>().map(Some)
}

/// The same of what may be a row of such values.
fn distinct_key(expr: Expr, schema: &DFSchema) -> Expr {
    match expr {
        Expr::ScalarFunction(mut call) if call.func.name() == ROW_VALUE => {
            call.args = call.args.into_iter().map(|arg| distinct_key(arg, schema)).collect();
            Expr::ScalarFunction(call)
        }
        expr => key(expr, schema),
    }
}

/// The expression as a key that values are ordered by.
pub(crate) fn sort_key(expr: Expr, schema: &DFSchema) -> Expr {
    if is_array(&expr, schema) { functions::in_order(expr) } else { key(expr, schema) }
}

fn sort_keys(keys: Vec<SortExpr>, schema: &DFSchema) -> Vec<SortExpr> {
    keys.into_iter().map(|sort| SortExpr { expr: sort_key(sort.expr, schema), ..sort }).collect()
}

/// Comparisons, and what stands inside of expressions and compares.
fn in_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        if let Some(key) = compared_by(&expr, schema) {
            return Ok(Transformed::yes(compared(expr, key)));
        }
        Ok(Transformed::yes(match expr {
            Expr::ScalarFunction(call) => return in_call(call, schema),
            Expr::AggregateFunction(call) => in_aggregate(call, schema),
            Expr::WindowFunction(call) => in_window(*call, schema),
            other => return Ok(Transformed::no(other)),
        }))
    })
}

type Key = fn(Expr) -> Expr;

/// What the expression's operands are compared by. None: it compares nothing, or its operands as they are.
fn compared_by(expr: &Expr, schema: &DFSchema) -> Option<Key> {
    let operands: Vec<&Expr> = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => vec![left, right],
        Expr::InList(InList { expr, list, .. }) => std::iter::once(expr.as_ref()).chain(list).collect(),
        Expr::Between(Between { expr, low, high, .. }) => vec![expr, low, high],
        Expr::Case(Case { expr: Some(expr), when_then_expr, .. }) => {
            std::iter::once(expr.as_ref()).chain(when_then_expr.iter().map(|(value, _)| value.as_ref())).collect()
        }
        _ => vec![],
    };
    let first = operands.first()?;
    let is_of_two = matches!(expr, Expr::BinaryExpr(_));
    if is_interval(first, schema) && (!is_of_two || operands.iter().all(|operand| is_interval(operand, schema))) {
        return Some(span);
    }
    if is_jsonb(first, schema) && operands.iter().all(|operand| is_jsonb(operand, schema)) {
        return Some(functions::in_json_order);
    }
    if operands.iter().all(|operand| is_array_of_forms(operand, schema)) {
        return Some(functions::in_order);
    }
    // Arrow finds the same arrays of other items equal, and an index is asked for them as they are.
    let is_order = match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => {
            matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
        }
        Expr::Between(_) => true,
        _ => false,
    };
    (is_order && operands.iter().all(|operand| is_array(operand, schema))).then_some(functions::in_order)
}

/// The comparison with keys in the place of its operands.
fn compared(expr: Expr, key: Key) -> Expr {
    let boxed = |expr: Box<Expr>| Box::new(key(*expr));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            Expr::BinaryExpr(BinaryExpr { left: boxed(left), op, right: boxed(right) })
        }
        Expr::InList(InList { expr, list, negated }) => {
            Expr::InList(InList { expr: boxed(expr), list: list.into_iter().map(key).collect(), negated })
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            Expr::Between(Between { expr: boxed(expr), negated, low: boxed(low), high: boxed(high) })
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let when_then_expr = when_then_expr.into_iter().map(|(value, then)| (boxed(value), then)).collect();
            Expr::Case(Case { expr: expr.map(boxed), when_then_expr, else_expr })
        }
        other => other,
    }
}

fn compares(op: Operator) -> bool {
    use Operator as O;
    matches!(op, O::Eq | O::NotEq | O::Lt | O::LtEq | O::Gt | O::GtEq | O::IsDistinctFrom | O::IsNotDistinctFrom)
}

fn in_call(call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let unchanged = |call| Ok(Transformed::no(Expr::ScalarFunction(call)));
    let is_by_bytes = |arg: &Expr| is_array(arg, schema) || is_jsonb(arg, schema);
    if matches!(call.func.name(), "greatest" | "least") && call.args.first().is_some_and(is_by_bytes) {
        let is_greatest = call.func.name() == "greatest";
        return Ok(Transformed::yes(functions::extreme_in_order(call.args, is_greatest)));
    }
    if let ("nullif", [value, other]) = (call.func.name(), call.args.as_slice())
        && is_array_of_forms(value, schema)
        && is_array_of_forms(other, schema)
    {
        return nullif(value, other, schema).map(Transformed::yes);
    }
    if !call.args.iter().any(|arg| is_interval(arg, schema)) {
        return unchanged(call);
    }
    match (call.func.name(), call.args.as_slice()) {
        ("nullif", [value, other]) => nullif(value, other, schema).map(Transformed::yes),
        ("greatest", _) => Ok(Transformed::yes(functions::longest(call.args))),
        ("least", _) => Ok(Transformed::yes(functions::shortest(call.args))),
        (name, [_, _]) if functions::any::is_any(name) => {
            let args = call.args.into_iter().map(span).collect();
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { args, ..call })))
        }
        _ => unchanged(call),
    }
}

fn nullif(value: &Expr, other: &Expr, schema: &DFSchema) -> Result<Expr> {
    let by = |expr: &Expr| if is_array(value, schema) { functions::in_order(expr.clone()) } else { span(expr.clone()) };
    let field = value.to_field(schema)?.1;
    let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(field.metadata()));
    let null = Expr::Literal(ScalarValue::try_from(field.data_type())?, metadata);
    when(by(value).eq(by(other)), null).otherwise(value.clone())
}

fn in_aggregate(mut call: AggregateFunction, schema: &DFSchema) -> Expr {
    let params = &mut call.params;
    if call.func.name() == "count" && params.distinct {
        params.args = std::mem::take(&mut params.args).into_iter().map(|arg| distinct_key(arg, schema)).collect();
    }
    // An ordered-set aggregate returns what it is ordered by, and one of different values is ordered by those.
    if !params.distinct && !matches!(function_of(&call.func), Function::Ordered(_)) {
        params.order_by = sort_keys(std::mem::take(&mut params.order_by), schema);
    }
    Expr::AggregateFunction(call)
}

/// The rows of a window, and the offsets of a RANGE over intervals.
fn in_window(mut call: WindowFunction, schema: &DFSchema) -> Expr {
    let params = &mut call.params;
    let by_interval = matches!(params.order_by.as_slice(), [only] if is_interval(&only.expr, schema));
    let (n_frame_items, is_range) = frame_items(&params.partition_by);
    let partition_by = std::mem::take(&mut params.partition_by).into_iter().enumerate();
    params.partition_by = partition_by
        .map(|(idx, expr)| match idx {
            idx if idx >= n_frame_items => key(expr, schema),
            1.. if is_range && by_interval => key(as_interval(expr), schema),
            _ => expr,
        })
        .collect();
    params.order_by = sort_keys(std::mem::take(&mut params.order_by), schema);
    Expr::WindowFunction(Box::new(call))
}

/// An offset that is still text.
fn as_interval(offset: Expr) -> Expr {
    let is_text = matches!(&offset, Expr::Literal(value, _) if value.try_as_str().is_some());
    if is_text { cast::to(offset, &SqlType::Interval) } else { offset }
}

/// What a plan node tells rows apart by, or orders them by.
fn keys(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    Ok(Transformed::yes(match plan {
        LogicalPlan::Sort(Sort { expr, input, fetch }) => {
            LogicalPlan::Sort(Sort { expr: sort_keys(expr, input.schema()), input, fetch })
        }
        LogicalPlan::Join(join) => {
            let on = join.on.into_iter().map(|(left, right)| {
                let (lefts, rights) = (join.left.schema(), join.right.schema());
                let are_alike = is_interval(&left, lefts) && is_interval(&right, rights)
                    || is_jsonb(&left, lefts) && is_jsonb(&right, rights)
                    || is_array_of_forms(&left, lefts) && is_array_of_forms(&right, rights);
                if are_alike { (key(left, lefts), key(right, rights)) } else { (left, right) }
            });
            LogicalPlan::Join(Join { on: on.collect(), ..join })
        }
        LogicalPlan::Aggregate(aggregate) => {
            let aggregate = distinct_values::in_aggregate(aggregate)?;
            match aggregate.group_expr.iter().any(|expr| has_forms(expr, aggregate.input.schema())) {
                true => grouped(aggregate)?,
                false => LogicalPlan::Aggregate(aggregate),
            }
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            if !columns.iter().any(|column| has_forms(column, input.schema())) {
                return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::All(input))));
            }
            grouped(Aggregate::try_new(input, columns, vec![])?)?
        }
        LogicalPlan::Distinct(Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, schema })) => {
            let on_expr = on_expr.into_iter().map(|expr| sort_key(expr, input.schema())).collect();
            let sort_expr = sort_expr.map(|keys| sort_keys(keys, input.schema()));
            LogicalPlan::Distinct(Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, schema }))
        }
        other => return Ok(Transformed::no(other)),
    }))
}

fn least(value: Expr) -> Result<Expr> {
    let min = udaf_of(&Function::Min).ok_or_else(|| to_datafusion(SqlError::internal("no function min")))?;
    Ok(Expr::AggregateFunction(AggregateFunction::new_udf(min, vec![value], false, None, vec![], None)))
}

/// The aggregate by keys that tell values apart, and the least of each group's values in the place of the key.
fn grouped(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, mut aggr_expr, schema, .. } = aggregate;
    // A key that is said twice is one column.
    let mut seen = HashSet::new();
    let group_expr: Vec<Expr> = group_expr.into_iter().filter(|expr| seen.insert(expr.clone())).collect();
    let n_keys = group_expr.len();
    let n_calls = aggr_expr.len();
    let mut places: Vec<usize> = (0..n_keys + n_calls).collect();
    let mut by = vec![];
    for ((idx, expr), place) in group_expr.into_iter().enumerate().zip(&mut places) {
        if has_forms(&expr, input.schema()) {
            *place = n_keys + aggr_expr.len();
            let bare = expr.clone().unalias();
            // For min() a jsonb is a text, and so is an array.
            let value = match () {
                () if is_jsonb(&expr, input.schema()) => retyped(bare, SqlType::Text),
                () if is_array(&expr, input.schema()) => cast::to(bare, &SqlType::Text),
                () => bare,
            };
            aggr_expr.push(least(value)?.alias(format!("least\u{1}{idx}")));
            by.push(key(expr.unalias(), input.schema()).alias(format!("key\u{1}{idx}")));
        } else {
            by.push(expr);
        }
    }
    let by_keys = Aggregate::try_new(input, by, aggr_expr)?;
    let columns: Vec<Column> = by_keys.schema.columns();
    let shown = places.into_iter().zip(schema.iter()).filter_map(|(place, (qualifier, field))| {
        let column = Expr::Column(columns.get(place)?.clone());
        let column = match SqlType::of(field) {
            SqlType::Jsonb => retyped(column, SqlType::Jsonb),
            array @ SqlType::Array(_) if place >= n_keys + n_calls => cast::to(column, &array),
            _ => column,
        };
        Some(column.alias_qualified(qualifier.cloned(), field.name()))
    });
    let shown: Vec<Expr> = shown.collect();
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(by_keys)).project(shown)?.build()
}

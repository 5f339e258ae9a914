//! From DataFusion's window expressions to what the operator takes. Views and batch queries both go through here.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{Alias, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Window as WindowPlan, WindowFunctionDefinition};
use datafusion::physical_expr::create_physical_expr;
use tidewire_operators::aggregate;
use tidewire_operators::expr::sql_error;
use tidewire_operators::top_n::SortKey;
use tidewire_operators::window::{Arg, Bound, Call, Exclude, Frame, Function, Units, Window};
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::{FRAME, function};

/// Functions over one PARTITION BY and ORDER BY.
pub(crate) struct Spec {
    partition_by: Vec<Expr>,
    order_by: Vec<SortExpr>,
    calls: Vec<CallSpec>,
}

struct CallSpec {
    /// Its number among the window's expressions.
    idx: usize,
    function: Function,
    args: Vec<ArgSpec>,
    filter: Option<Expr>,
    frame: Frame,
    field: FieldRef,
}

enum ArgSpec {
    Expr(Expr),
    Constant(ScalarValue),
}

/// The expressions of a window node, those over the same rows together; `fields` are the results'.
pub(crate) fn specs(window_exprs: &[Expr], fields: &[FieldRef]) -> Result<Vec<Spec>> {
    let mut specs: Vec<Spec> = vec![];
    for (idx, (expr, field)) in window_exprs.iter().zip(fields).enumerate() {
        let Expr::WindowFunction(window) = unaliased(expr) else {
            return Err(SqlError::internal("a window without a function"));
        };
        let (partition_by, frame) = frame_of(&window.params.partition_by)?;
        let call = call(idx, window, frame, field)?;
        let order_by = &window.params.order_by;
        match specs.iter_mut().find(|s| s.partition_by == partition_by && s.order_by == *order_by) {
            Some(spec) => spec.calls.push(call),
            None => {
                specs.push(Spec { partition_by: partition_by.to_vec(), order_by: order_by.clone(), calls: vec![call] })
            }
        }
    }
    Ok(specs)
}

/// Windows that stand directly on each other, over the rows of the lowest one's input: DataFusion makes a node for each
/// PARTITION BY and ORDER BY, and so for each frame. The expressions are in the order of the highest one's columns.
pub(crate) fn stacked(window: &WindowPlan) -> (Vec<Expr>, Arc<LogicalPlan>) {
    let mut exprs = window.window_expr.clone();
    let mut input = window.input.clone();
    while let LogicalPlan::Window(below) = input.as_ref() {
        let results = below.schema.columns().split_off(below.input.schema().fields().len());
        if exprs.iter().any(|e| e.column_refs().iter().any(|column| results.contains(column))) {
            break;
        }
        exprs.splice(0..0, below.window_expr.iter().cloned());
        input = below.input.clone();
    }
    (exprs, input)
}

/// Errors in frames, which PostgreSQL finds before a query runs: `42804`, `22013`, `22004`, `42P10`, `0A000`.
pub(crate) fn check_frames(plan: &LogicalPlan) -> Result<()> {
    check(plan, check_window)
}

/// FILTER (WHERE ..) takes only a boolean, which must be seen before DataFusion casts. Errors: `42804`.
pub(crate) fn check_filters(plan: &LogicalPlan) -> Result<()> {
    check(plan, |window| {
        for expr in &window.window_expr {
            let Expr::WindowFunction(function) = unaliased(expr) else { continue };
            let Some(filter) = &function.params.filter else { continue };
            match SqlType::of(&filter.to_field(window.input.schema()).map_err(sql_error)?.1) {
                SqlType::Bool | SqlType::Null => {}
                other => {
                    let message = format!("argument of FILTER must be type boolean, not type {other}");
                    return Err(SqlError::new(SqlState::DatatypeMismatch, message));
                }
            }
        }
        Ok(())
    })
}

fn check(plan: &LogicalPlan, check_window: impl Fn(&WindowPlan) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Window(window) = node
            && let Err(error) = check_window(window)
        {
            failed = Some(error);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(sql_error)?;
    failed.map_or(Ok(()), Err)
}

fn check_window(window: &WindowPlan) -> Result<()> {
    let input = window.input.schema();
    for expr in &window.window_expr {
        let Expr::WindowFunction(function) = unaliased(expr) else { continue };
        let params = &function.params;
        let is_open = |e: &Expr| e.exists(|e| Ok(matches!(e, Expr::Placeholder(_)))).unwrap_or(false);
        if params.partition_by.iter().any(is_open) {
            // The offsets are known when the query runs.
            continue;
        }
        let (_, frame) = frame_of(&params.partition_by)?;
        let order_type = match params.order_by.as_slice() {
            [key] => Some(key.expr.get_type(input).map_err(sql_error)?),
            _ => None,
        };
        frame.check(order_type.as_ref())?;
    }
    Ok(())
}

pub(crate) fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(Alias { expr, .. }) => unaliased(expr),
        other => other,
    }
}

/// How many items of PARTITION BY are the frame and its offsets, and whether it is a RANGE.
pub(crate) fn frame_items(partition_by: &[Expr]) -> (usize, bool) {
    let Some(words) = words_of(partition_by) else { return (0, false) };
    let n_offsets = words.split(',').filter(|word| matches!(*word, "preceding" | "following")).count();
    (1 + n_offsets, words.starts_with("range,"))
}

/// The words of the frame that stands before the PARTITION BY of the query.
fn words_of(partition_by: &[Expr]) -> Option<&str> {
    match partition_by.first() {
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten().and_then(|text| text.strip_prefix(FRAME)),
        _ => None,
    }
}

/// The PARTITION BY of the query, and the frame that was put before it.
pub(crate) fn frame_of(partition_by: &[Expr]) -> Result<(&[Expr], Frame)> {
    let Some(words) = words_of(partition_by) else { return Ok((partition_by, Frame::standard())) };
    let lost = || SqlError::internal("a frame without its words");
    let [units, start, end, exclude] = words.split(',').collect::<Vec<_>>()[..] else { return Err(lost()) };
    let (units, clause) = match units {
        "rows" => (Units::Rows, "ROWS"),
        "groups" => (Units::Groups, "GROUPS"),
        "range" => (Units::Range, "RANGE"),
        _ => return Err(lost()),
    };
    let mut rest = partition_by.get(1..).unwrap_or_default();
    let mut bound = |word: &str| {
        let mut offset = || {
            let (offset, behind) = rest.split_first().ok_or_else(lost)?;
            rest = behind;
            constant(offset, clause, units)
        };
        Ok::<_, SqlError>(match word {
            "first" => Bound::UnboundedPreceding,
            "last" => Bound::UnboundedFollowing,
            "current" => Bound::CurrentRow,
            "preceding" => Bound::Preceding(offset()?),
            "following" => Bound::Following(offset()?),
            _ => return Err(lost()),
        })
    };
    let (start, end) = (bound(start)?, bound(end)?);
    let exclude = match exclude {
        "no others" => Exclude::NoOthers,
        "current row" => Exclude::CurrentRow,
        "group" => Exclude::Group,
        "ties" => Exclude::Ties,
        _ => return Err(lost()),
    };
    Ok((rest, Frame { units, start, end, exclude }))
}

/// The value of an offset. Errors: `42P10` where it reads a column, `42804` where it is no number of rows.
fn constant(expr: &Expr, clause: &str, units: Units) -> Result<ScalarValue> {
    let value = match unaliased(expr) {
        Expr::Literal(value, _) => value.clone(),
        expr => {
            if !expr.column_refs().is_empty() {
                let message = format!("argument of {clause} must not contain variables");
                return Err(SqlError::new(SqlState::InvalidColumnReference, message));
            }
            let props = ExecutionProps::new();
            let context = PhysicalPlanningContext::default();
            let physical = create_physical_expr(expr, &DFSchema::empty(), &props, &context).map_err(sql_error)?;
            let options = RecordBatchOptions::new().with_row_count(Some(1));
            let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
            let array = physical.evaluate(&row).and_then(|v| v.into_array(1)).map_err(sql_error)?;
            ScalarValue::try_from_array(&array, 0).map_err(sql_error)?
        }
    };
    let data_type = value.data_type();
    if units != Units::Range && !data_type.is_numeric() && !data_type.is_null() {
        let found = SqlType::of_data_type(&data_type);
        let message = format!("argument of {clause} must be type bigint, not type {found}");
        return Err(SqlError::new(SqlState::DatatypeMismatch, message));
    }
    Ok(value)
}

fn call(idx: usize, window: &WindowFunction, frame: Frame, field: &FieldRef) -> Result<CallSpec> {
    let params = &window.params;
    let function = match &window.fun {
        WindowFunctionDefinition::WindowUDF(udwf) => function::by_name(udwf.name()),
        WindowFunctionDefinition::AggregateUDF(udaf) => Some(Function::Aggregate(match udaf.name() {
            "count" => aggregate::Function::Count,
            "sum" => aggregate::Function::Sum,
            "avg" => aggregate::Function::Avg,
            "min" => aggregate::Function::Min,
            "max" => aggregate::Function::Max,
            _ => aggregate::Function::Other(udaf.clone()),
        })),
    };
    let function = function.ok_or_else(|| SqlError::unsupported(format!("{}() OVER ..", window.fun.name())))?;
    let constant = |e: &Expr| match unaliased(e) {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    };
    let is_count = matches!(function, Function::Aggregate(aggregate::Function::Count));
    let args = match params.args.as_slice() {
        // count(*) is count(1) by now.
        [one] if is_count && constant(one).is_some_and(|v| !v.is_null()) => vec![],
        args => args
            .iter()
            .enumerate()
            .map(|(arg_idx, arg)| match constant(arg) {
                // What an aggregate adds up is a column, if of equal values.
                Some(value) if arg_idx > 0 || !matches!(function, Function::Aggregate(_)) => ArgSpec::Constant(value),
                _ => ArgSpec::Expr(unaliased(arg).clone()),
            })
            .collect(),
    };
    let filter = params.filter.as_deref().map(|f| unaliased(f).clone());
    Ok(CallSpec { idx, function, args, filter, frame, field: field.clone() })
}

impl Spec {
    /// What must be columns of the operator's input.
    pub(crate) fn exprs(&self) -> Vec<Expr> {
        let partition_by = self.partition_by.iter().map(|e| unaliased(e).clone());
        let order_by = self.order_by.iter().map(|key| unaliased(&key.expr).clone());
        let of_calls = self.calls.iter().flat_map(|call| {
            let args = call.args.iter().filter_map(|arg| match arg {
                ArgSpec::Expr(expr) => Some(expr.clone()),
                ArgSpec::Constant(_) => None,
            });
            args.chain(call.filter.clone())
        });
        partition_by.chain(order_by).chain(of_calls).collect()
    }

    /// The results: the number of each among the window's expressions, and its field.
    pub(crate) fn results(&self) -> impl Iterator<Item = (usize, &FieldRef)> {
        self.calls.iter().map(|call| (call.idx, &call.field))
    }

    /// The operator, where [`Spec::exprs`] stand at `places` of an input with the columns `input`, the first ones of
    /// which are those of the query, by `names`.
    pub(crate) fn plan(&self, places: &[usize], input: &SchemaRef, names: &[String]) -> Result<Window> {
        let mut places = places.iter().copied();
        let mut place = || places.next().ok_or_else(|| SqlError::internal("a column is lost"));
        let partition_by = self.partition_by.iter().map(|_| place()).collect::<Result<_>>()?;
        let order_by = self
            .order_by
            .iter()
            .map(|key| Ok(SortKey { column: place()?, descending: !key.asc, nulls_first: key.nulls_first }));
        let order_by = order_by.collect::<Result<_>>()?;
        let mut calls = vec![];
        for spec in &self.calls {
            let args = spec.args.iter().map(|arg| match arg {
                ArgSpec::Expr(_) => Ok(Arg::Column(place()?)),
                ArgSpec::Constant(value) => Ok(Arg::Constant(value.clone())),
            });
            let args = args.collect::<Result<_>>()?;
            let filter = spec.filter.as_ref().map(|_| place()).transpose()?;
            let (function, frame) = (spec.function.clone(), spec.frame.clone());
            calls.push(Call { function, args, filter, frame, field: spec.field.clone() });
        }
        let fields = input.fields().iter().cloned().chain(calls.iter().map(|c| c.field.clone()));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Window { partition_by, order_by, tie_break: tie_break(names, input.fields().len()), calls, schema })
    }
}

/// By the names of the query's columns, because a view's plan and a batch plan may have them in different orders; columns
/// that were computed from those tell no more rows apart.
fn tie_break(names: &[String], n_columns: usize) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..n_columns).collect();
    columns.sort_by(|a, b| match (names.get(*a), names.get(*b)) {
        (Some(x), Some(y)) => x.cmp(y).then(a.cmp(b)),
        (x, y) => y.is_some().cmp(&x.is_some()).then(a.cmp(b)),
    });
    columns
}

/// The columns that tell peers apart, in order.
pub(crate) fn tie_break_columns(schema: &DFSchema) -> Vec<Expr> {
    let columns = schema.columns();
    let order = tie_break(&names(schema), columns.len());
    order.into_iter().filter_map(|idx| columns.get(idx).cloned()).map(Expr::Column).collect()
}

/// The names of a plan's columns.
pub(crate) fn names(schema: &DFSchema) -> Vec<String> {
    schema.columns().iter().map(|c| c.flat_name()).collect()
}

/// Whether values of the type can be told apart by their hash: equal floats may differ in their bits.
pub(crate) fn is_hashable(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

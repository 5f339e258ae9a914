//! What PostgreSQL refuses in aggregate calls, found in the plan, where types and columns are known.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};
use tidewire_operators::aggregate::Function;
use tidewire_operators::aggregate::functions::function_of;
use tidewire_types::{SqlError, SqlState, SqlType};

use crate::column_names::visible;
use crate::provider::to_datafusion;

/// Checks all aggregate calls of a plan.
///
/// Errors: `42804` for a FILTER that is not boolean, `42883` for a count of several columns, `42803` for a direct
/// argument that is not the same for the whole group.
pub(crate) fn check(plan: &LogicalPlan) -> datafusion::common::Result<()> {
    plan.apply_with_subqueries(|node| {
        let LogicalPlan::Aggregate(aggregate) = node else { return Ok(TreeNodeRecursion::Continue) };
        for expr in &aggregate.aggr_expr {
            expr.apply(|expr| {
                if let Expr::AggregateFunction(call) = expr {
                    check_call(call, aggregate)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

fn check_call(call: &AggregateFunction, aggregate: &Aggregate) -> datafusion::common::Result<()> {
    let input = aggregate.input.schema();
    // DataFusion would take any number.
    if let Some(filter) = &call.params.filter {
        let filter = SqlType::of(&filter.to_field(input)?.1);
        if !matches!(filter, SqlType::Bool | SqlType::Null) {
            let message = format!("argument of FILTER must be type boolean, not type {filter}");
            return Err(to_datafusion(SqlError::new(SqlState::DatatypeMismatch, message)));
        }
    }
    match function_of(&call.func) {
        Function::Count if call.params.args.len() > 1 => Err(undefined(call, input)?),
        Function::Ordered(function) => {
            let direct = call.params.args.iter().take(function.n_direct(call.params.args.len()));
            direct.into_iter().try_for_each(|arg| check_direct(arg, aggregate))
        }
        _ => Ok(()),
    }
}

fn undefined(
    call: &AggregateFunction,
    input: &DFSchema,
) -> datafusion::common::Result<datafusion::common::DataFusionError> {
    let mut types = vec![];
    for arg in &call.params.args {
        types.push(SqlType::of(&arg.to_field(input)?.1).to_string());
    }
    let message = format!("function {}({}) does not exist", call.func.name(), types.join(", "));
    let error = SqlError::new(SqlState::UndefinedFunction, message)
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.");
    Ok(to_datafusion(error))
}

/// A direct argument is evaluated once for a group: it may use only what is the same in all of its rows.
fn check_direct(arg: &Expr, aggregate: &Aggregate) -> datafusion::common::Result<()> {
    let keys = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let mut ungrouped = None;
    arg.apply(|expr| {
        if keys.contains(&expr) {
            return Ok(TreeNodeRecursion::Jump);
        }
        if let Expr::Column(column) = expr {
            ungrouped = Some(column.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let Some(column) = ungrouped else { return Ok(()) };
    let name = match &column.relation {
        Some(relation) => format!("{}.{}", relation.table(), visible(&column.name)),
        None => visible(&column.name).to_owned(),
    };
    let message = format!("column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function");
    let error = SqlError::new(SqlState::GroupingError, message)
        .with_detail("Direct arguments of an ordered-set aggregate must use only grouped columns.");
    Err(to_datafusion(error))
}

//! The rules that a view's plan goes through: DataFusion's, without those that fold time, push limits, or turn joins
//! into ones that need more state (DESIGN §4).

mod bare_lists;
mod common_parts;
mod dependencies;
pub(crate) mod distinct_on;
mod empty_branches;
mod join_order;
mod linked_first;
mod new_rows;
mod null_safe_keys;
mod ordered_limits;
mod pauses;
mod push_down;
mod top_keys;

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_limit::EliminateLimit;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::filter_null_join_keys::FilterNullJoinKeys;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use tidewire_types::{Result, SqlError};

use self::bare_lists::BareLists;
use self::common_parts::CommonParts;
use self::dependencies::NoDependencies;
pub(crate) use self::dependencies::{has_dependencies, without_dependencies};
use self::empty_branches::EmptyBranches;
use self::new_rows::NewRows;
use self::null_safe_keys::{NullSafeKeys, OrderJoins};
use self::ordered_limits::OrderedLimits;
use self::pauses::Pauses;
use self::push_down::PushDownConditions;
use self::top_keys::WholeTopKeys;
use crate::errors::planning_error;
use crate::flat_map::PruneFlatMap;
use crate::single_distinct::SingleDistinct;

/// Applies the rules. The plan's columns keep their names, order and types.
pub(crate) fn optimize_for_view(plan: LogicalPlan, state: &SessionState, text: &str) -> Result<LogicalPlan> {
    let mut options = state.config_options().as_ref().clone();
    // NULL keys match nothing and would only fill the join's state.
    options.optimizer.filter_null_join_keys = true;
    let context = OptimizerContext::new_with_config_options(Arc::new(options)).without_query_execution_start_time();
    Optimizer::with_rules(rules()).optimize(plan, &context, |_, _| {}).map_err(|e| planning_error(e, text))
}

/// The rules for physical plans of queries.
pub(crate) fn physical() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    // It finds the columns of a projection by their names, which repeat here, and takes one for the other. Conditions are
    // pushed down before, in the logical plan, and our scans take no filters that are made while a query runs.
    rules.retain(|rule| !rule.name().starts_with("FilterPushdown"));
    let sorts_settled = rules.iter().position(|rule| rule.name() == "EnsureRequirements").unwrap_or(rules.len());
    rules.insert(sorts_settled, Arc::new(OrderedLimits));
    rules.push(Arc::new(WholeTopKeys));
    rules.push(Arc::new(BareLists));
    rules.push(Arc::new(NewRows));
    rules.push(Arc::new(Pauses));
    rules
}

fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(NullSafeKeys),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(NoDependencies),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(OrderJoins::of_a_view()),
        Arc::new(EliminateLimit::new()),
        Arc::new(EmptyBranches::default()),
        Arc::new(FilterNullJoinKeys::default()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownConditions::default()),
        Arc::new(NullSafeKeys),
        Arc::new(SingleDistinct::default()),
        Arc::new(CommonParts::new()),
        Arc::new(NoDependencies),
        Arc::new(OptimizeProjections::new()),
        Arc::new(PruneFlatMap),
    ]
}

/// DataFusion's rules for batch queries, with ours where its own are wrong.
pub(crate) fn for_queries() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![];
    for rule in Optimizer::new().rules {
        match rule.name() {
            // It takes an aggregate over a join for unique by what was unique below the join, and loses rows.
            "eliminate_join" => {}
            "common_sub_expression_eliminate" => rules.push(Arc::new(CommonParts::new())),
            "propagate_empty_relation" => rules.push(Arc::new(EmptyBranches::default())),
            "eliminate_cross_join" => rules.push(Arc::new(OrderJoins::default())),
            "extract_equijoin_predicate" => rules.extend([Arc::new(NullSafeKeys) as _, rule]),
            "push_down_filter" => {
                rules.push(Arc::new(PushDownConditions::default()));
                rules.push(Arc::new(NullSafeKeys));
            }
            "replace_distinct_aggregate" | "eliminate_duplicated_expr" | "optimize_projections" => {
                rules.extend([Arc::new(NoDependencies) as _, rule])
            }
            "single_distinct_aggregation_to_group_by" => rules.push(Arc::new(SingleDistinct::default())),
            _ => rules.push(rule),
        }
    }
    rules.push(Arc::new(PruneFlatMap));
    rules
}

/// Refuses functions whose value is not a function of their arguments. Errors: `0A000`.
pub(crate) fn check_functions(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                refused = refusal(expr);
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    });
    walked.map_err(tidewire_operators::expr::sql_error)?;
    refused.map_or(Ok(()), Err)
}

fn refusal(expr: &Expr) -> Option<SqlError> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let name = call.func.name();
    let of_time = matches!(name, "now" | "current_date" | "current_time" | "current_timestamp");
    if call.func.signature().volatility != Volatility::Volatile && !of_time {
        return None;
    }
    let error = SqlError::new(
        tidewire_types::SqlState::FeatureNotSupported,
        format!("a materialized view cannot use {name}()"),
    );
    Some(match of_time {
        true => error
            .with_detail("Its rows would have to change as time passes, without any input.")
            .with_hint(format!("Compute {name}() in the query that reads the view, or compare with a column there.")),
        false => error
            .with_detail("A row that must be retracted later could not be computed again.")
            .with_hint(format!("Compute {name}() in the query that reads the view.")),
    })
}

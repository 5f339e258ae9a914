//! Plans that can be kept: what a query reads is put in again for each run, everything else stays as it was planned.
//!
//! Invariant: a kept plan gives what planning its text again would give, as long as the catalog and the settings are the
//! same. A plan in which a function depends on the time is none: its value was put in when it was planned.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, Volatility};
use tidewire_operators::expr::sql_error;
use tidewire_types::Result;

use crate::provider::to_datafusion;
use crate::query::Planned;

/// Whether every function of a plan that no rule has seen yet gives the same at any time.
pub(crate) fn is_lasting(plan: &LogicalPlan) -> bool {
    let mut lasting = true;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    lasting &= call.func.signature().volatility == Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    lasting && visited.is_ok()
}

impl Planned {
    /// The same query over other tables: `table` says what to put in the place of each.
    ///
    /// Errors: those of `table`; `XX000` where a plan cannot be taken apart.
    pub fn with_tables(&self, table: impl Fn(&dyn TableProvider) -> Result<Arc<dyn TableProvider>>) -> Result<Planned> {
        let over = |plan: LogicalPlan| {
            let plan = plan.transform_up_with_subqueries(|node| match node {
                LogicalPlan::TableScan(scan) => {
                    let present = source_as_provider(&scan.source)?;
                    let source = provider_as_source(table(present.as_ref()).map_err(to_datafusion)?);
                    Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
                }
                other => Ok(Transformed::no(other)),
            });
            plan.map(|plan| plan.data).map_err(sql_error)
        };
        let analyzed = self.analyzed.as_ref().map(|plan| over(plan.as_ref().clone())).transpose()?.map(Box::new);
        Ok(Planned { plan: over(self.plan.clone())?, analyzed, ..self.clone() })
    }
}

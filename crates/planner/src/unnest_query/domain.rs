//! The distinct values of the outer query that a subquery refers to.

use std::sync::Arc;

use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use super::scope::Scope;
use super::{Unnester, project};

/// A subquery and the level that it refers to.
pub(super) struct Domain<'a> {
    pub(super) scope: &'a Scope,
    /// The rows of that level.
    outer: &'a LogicalPlan,
    /// What is referred to, as it stands in the subquery.
    pub(super) values: Vec<Expr>,
}

impl<'a> Domain<'a> {
    pub(super) fn of(scope: &'a Scope, outer: &'a LogicalPlan, subquery: &LogicalPlan) -> Result<Domain<'a>> {
        Ok(Domain { scope, outer, values: scope.used_in(subquery)? })
    }

    /// The values as they are computed at the level itself.
    pub(super) fn outer_values(&self) -> Result<Vec<Expr>> {
        self.values.iter().map(|value| self.scope.inline(value.clone())).collect()
    }

    /// The set itself, under new names.
    pub(super) fn plan(&self, unnester: &mut Unnester) -> Result<(LogicalPlan, Vec<Column>)> {
        let keys: Vec<Column> = self.values.iter().map(|_| Column::new_unqualified(unnester.name("outer"))).collect();
        let values = self.outer_values()?.into_iter().zip(&keys).map(|(value, key)| value.alias(&key.name));
        let values = project(self.outer.clone(), values.collect())?;
        Ok((LogicalPlan::Distinct(Distinct::All(Arc::new(values))), keys))
    }

    /// The expression with the columns `keys` in the place of what it refers to.
    pub(super) fn replace(&self, expr: Expr, keys: &[Column]) -> Result<Expr> {
        self.scope.replace(expr, &|value| {
            let idx = self.values.iter().position(|v| v == value)?;
            keys.get(idx).cloned().map(Expr::Column)
        })
    }
}

//! Which level of the query a reference means.
//!
//! DataFusion's references outside have a name only, and a name may mean something at several levels. [`bind`] gives
//! each the number of its level and the place of its column there: the innermost level that has the name, as SQL says.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{Expr, LogicalPlan, cast};
use tidewire_types::{SqlError, SqlState};

use super::contains;
use crate::provider::to_datafusion;

/// The columns of one level.
#[derive(Clone)]
pub(super) struct Scope {
    relation: TableReference,
    schema: Arc<DFSchema>,
}

impl Scope {
    pub(super) fn new(id: usize, schema: Arc<DFSchema>) -> Scope {
        Scope { relation: TableReference::bare(format!("outer\u{1}{id}")), schema }
    }

    fn reference(&self, name: &Column) -> Option<Expr> {
        let idx = self.schema.maybe_index_of_column(name)?;
        let (_, field) = self.schema.qualified_field(idx);
        Some(Expr::OuterReferenceColumn(field.clone(), Column::new(Some(self.relation.clone()), idx.to_string())))
    }

    /// The column of this scope that the expression refers to.
    fn column(&self, expr: &Expr) -> Option<Column> {
        let Expr::OuterReferenceColumn(_, reference) = expr else { return None };
        let idx = reference.name.parse::<usize>().ok()?;
        let is_ours = reference.relation.as_ref() == Some(&self.relation) && idx < self.schema.fields().len();
        is_ours.then(|| Column::from(self.schema.qualified_field(idx)))
    }

    /// Whether the expression refers to a column of this scope.
    pub(super) fn is_in(&self, expr: &Expr) -> bool {
        contains(expr, |e| self.column(e).is_some())
    }

    /// Whether anything in the plan refers to a column of this scope.
    pub(super) fn is_used_in(&self, plan: &LogicalPlan) -> Result<bool> {
        let mut found = false;
        plan.apply(|node| {
            node.apply_expressions(|expr| {
                found |= self.is_in(expr);
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(found)
    }

    /// What the plan refers to: columns, or casts of columns, each once.
    pub(super) fn used_in(&self, plan: &LogicalPlan) -> Result<Vec<Expr>> {
        let mut used = vec![];
        plan.apply(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    if !self.is_value(expr) {
                        return Ok(TreeNodeRecursion::Continue);
                    }
                    if !used.contains(expr) {
                        used.push(expr.clone());
                    }
                    Ok(TreeNodeRecursion::Jump)
                })
            })
        })?;
        Ok(used)
    }

    /// Whether the expression is a reference to this scope, or a cast of one.
    pub(super) fn is_value(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Cast(cast) => self.is_value(&cast.expr),
            other => self.column(other).is_some(),
        }
    }

    /// The expression as it is computed at the level itself: columns in the place of references.
    pub(super) fn inline(&self, expr: Expr) -> Result<Expr> {
        self.replace(expr, &|_| None)
    }

    /// The expression with `f` of each value that it refers to; where `f` has none, the column itself.
    pub(super) fn replace(&self, expr: Expr, f: &dyn Fn(&Expr) -> Option<Expr>) -> Result<Expr> {
        expr.transform_down(|expr| {
            if self.is_value(&expr)
                && let Some(value) = f(&expr)
            {
                return Ok(Transformed::new(value, true, TreeNodeRecursion::Jump));
            }
            Ok(match self.column(&expr) {
                Some(column) => Transformed::yes(Expr::Column(column)),
                None => Transformed::no(expr),
            })
        })
        .map(|t| t.data)
    }
}

/// What a query may refer to.
#[derive(Clone, Default)]
pub(super) struct Scopes {
    /// The levels around it, from the outermost.
    enclosing: Vec<Scope>,
    /// What a LATERAL item of its FROM clause sees of the items before.
    lateral: Vec<Scope>,
}

impl Scopes {
    /// Whether there is nothing to refer to.
    pub(super) fn is_outermost(&self) -> bool {
        self.enclosing.is_empty()
    }

    pub(super) fn without_lateral(&self) -> Scopes {
        Scopes { enclosing: self.enclosing.clone(), lateral: vec![] }
    }

    /// Inside a LATERAL item: the items before are a level around it.
    pub(super) fn inside_lateral(&self) -> Scopes {
        Scopes { enclosing: self.enclosing.iter().chain(&self.lateral).cloned().collect(), lateral: vec![] }
    }

    /// For the items of a FROM clause behind those of `scope`.
    pub(super) fn and_lateral(&self, scope: &Scope) -> Scopes {
        let mut scopes = self.clone();
        scopes.lateral.push(scope.clone());
        scopes
    }

    /// Whether only subqueries inside an item of a FROM clause refer to the items before. DataFusion does not mark such
    /// a LATERAL item.
    pub(super) fn is_lateral_inside(&self, item: &LogicalPlan) -> Result<bool> {
        let has = |scopes: &[Scope], column: &Column| scopes.iter().any(|scope| scope.reference(column).is_some());
        let mut found = false;
        item.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                found |= contains(expr, |e| {
                    matches!(e, Expr::OuterReferenceColumn(_, column)
                        if has(&self.lateral, column) && !has(&self.enclosing, column))
                });
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(found)
    }

    /// For a subquery in an expression over `scope`.
    pub(super) fn with(&self, scope: &Scope) -> Scopes {
        let mut scopes = self.without_lateral();
        scopes.enclosing.push(scope.clone());
        scopes
    }
}

/// Binds each reference outside to its level. Errors: `42803` for a column that grouping has taken away.
pub(super) fn bind(expr: Expr, scopes: &Scopes) -> Result<Expr> {
    expr.transform_up(|expr| {
        let Expr::OuterReferenceColumn(field, column) = &expr else { return Ok(Transformed::no(expr)) };
        let Some(bound) = scopes.enclosing.iter().rev().find_map(|scope| scope.reference(column)) else {
            let name = column.flat_name();
            let message = format!("subquery uses ungrouped column \"{name}\" from outer query");
            return Err(to_datafusion(SqlError::new(SqlState::GroupingError, message)));
        };
        // The types of the level may have been found out after the subquery was read.
        let same = matches!(&bound, Expr::OuterReferenceColumn(now, _) if now.data_type() == field.data_type());
        Ok(Transformed::yes(if same { bound } else { cast(bound, field.data_type().clone()) }))
    })
    .map(|t| t.data)
}

/// All columns and references by name; one that a level inside means is one too many, which does no harm.
pub(crate) fn names_in(expr: &Expr) -> Result<Vec<Column>> {
    let mut names = vec![];
    expr.apply(|expr| {
        match expr {
            Expr::Column(column) => names.push(column.clone()),
            Expr::ScalarSubquery(subquery)
            | Expr::Exists(Exists { subquery, .. })
            | Expr::InSubquery(InSubquery { subquery, .. })
            | Expr::SetComparison(SetComparison { subquery, .. }) => {
                subquery.subquery.apply_with_subqueries(|node| {
                    node.apply_expressions(|expr| {
                        expr.apply(|expr| {
                            if let Expr::OuterReferenceColumn(_, column) = expr {
                                names.push(column.clone());
                            }
                            Ok(TreeNodeRecursion::Continue)
                        })
                    })
                })?;
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

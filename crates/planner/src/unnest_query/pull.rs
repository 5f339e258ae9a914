//! A subquery of nothing but filters, projections and inner joins, taken apart: closed rows, conditions over them, and
//! the columns as expressions. Conditions that refer outside can then be those of a join.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Filter, Join, JoinConstraint, LogicalPlan, Operator, binary_expr};

use super::filtered;
use super::scope::Scope;

/// A subquery taken apart.
pub(super) struct Pulled {
    /// Rows that do not depend on the scope.
    pub(super) plan: LogicalPlan,
    /// The subquery's columns, over those of `plan` and the scope.
    pub(super) columns: Vec<Expr>,
    /// Conditions that refer to the scope.
    pub(super) conditions: Vec<Expr>,
}

/// Takes a subquery apart. None: it has operators that its rows must be known for.
pub(super) fn pull(plan: &LogicalPlan, scope: &Scope) -> Result<Option<Pulled>> {
    let Some(Parts { plan, columns, conditions }) = parts(plan, scope)? else { return Ok(None) };
    let (conditions, closed): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|c| scope.is_in(c));
    Ok(Some(Pulled { plan: filtered(plan, closed)?, columns, conditions }))
}

struct Parts {
    plan: LogicalPlan,
    columns: Vec<Expr>,
    conditions: Vec<Expr>,
}

fn parts(plan: &LogicalPlan, scope: &Scope) -> Result<Option<Parts>> {
    if !scope.is_used_in(plan)? {
        let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
        return Ok(Some(Parts { plan: plan.clone(), columns, conditions: vec![] }));
    }
    match plan {
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            let Some(mut inner) = parts(input, scope)? else { return Ok(None) };
            let predicates: Vec<Expr> = split_conjunction(predicate).into_iter().cloned().collect();
            let Some(predicates) = substituted(predicates, input.schema(), &inner.columns)? else { return Ok(None) };
            inner.conditions.extend(predicates);
            Ok(Some(inner))
        }
        LogicalPlan::Projection(projection) => {
            let Some(inner) = parts(&projection.input, scope)? else { return Ok(None) };
            let exprs = projection.expr.iter().map(|e| e.clone().unalias()).collect();
            let columns = substituted(exprs, projection.input.schema(), &inner.columns)?;
            Ok(columns.map(|columns| Parts { columns, ..inner }))
        }
        LogicalPlan::SubqueryAlias(alias) => parts(&alias.input, scope),
        // The rows of a subquery have no order.
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => parts(&sort.input, scope),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => inner_join(join, scope),
        _ => Ok(None),
    }
}

fn inner_join(join: &Join, scope: &Scope) -> Result<Option<Parts>> {
    let (Some(left), Some(right)) = (parts(&join.left, scope)?, parts(&join.right, scope)?) else { return Ok(None) };
    // Without their aliases both sides may have columns of one name.
    let names: Vec<&String> = left.plan.schema().fields().iter().map(|f| f.name()).collect();
    let qualified = left.plan.schema().columns();
    let clash = right.plan.schema().iter().any(|(qualifier, field)| {
        let same = Column::new(qualifier.cloned(), field.name());
        qualified.contains(&same) || (qualifier.is_none() && names.contains(&field.name()))
    });
    let unqualified = |schema: &DFSchema| schema.iter().any(|(q, _)| q.is_none());
    if clash
        || (unqualified(left.plan.schema()) && right.plan.schema().fields().iter().any(|f| names.contains(&f.name())))
    {
        return Ok(None);
    }
    let equal = match join.null_equality {
        NullEquality::NullEqualsNothing => Operator::Eq,
        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
    };
    let on = join.on.iter().map(|(l, r)| binary_expr(l.clone(), equal, r.clone()));
    let filters = join.filter.iter().flat_map(|f| split_conjunction(f)).cloned();
    let columns: Vec<Expr> = left.columns.into_iter().chain(right.columns).collect();
    let Some(mut conditions) = substituted(on.chain(filters).collect(), &join.schema, &columns)? else {
        return Ok(None);
    };
    conditions.extend(left.conditions);
    conditions.extend(right.conditions);
    let plan = self::join(left.plan, right.plan, vec![], vec![], JoinType::Inner, NullEquality::NullEqualsNothing)?;
    Ok(Some(Parts { plan, columns, conditions }))
}

/// `exprs` with `columns` in the place of those of `schema`. None: something would be computed several times.
pub(super) fn substituted(exprs: Vec<Expr>, schema: &DFSchema, columns: &[Expr]) -> Result<Option<Vec<Expr>>> {
    let mut n_uses: HashMap<usize, usize> = HashMap::new();
    let mut replaced = vec![];
    for expr in exprs {
        let expr = expr.transform_down(|expr| {
            let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
            let idx = schema.index_of_column(column)?;
            *n_uses.entry(idx).or_default() += 1;
            Ok(match columns.get(idx) {
                Some(column) => Transformed::new(column.clone(), true, TreeNodeRecursion::Jump),
                None => Transformed::no(expr),
            })
        });
        replaced.push(expr?.data);
    }
    let cheap = |idx: &usize| columns.get(*idx).is_none_or(is_cheap);
    let again = n_uses.iter().any(|(idx, n)| *n > 1 && !cheap(idx));
    let volatile = columns.iter().any(Expr::is_volatile);
    Ok((!again && !volatile).then_some(replaced))
}

/// The expression with `columns` in the place of those of `schema`, however often.
pub(super) fn in_place_of(expr: Expr, schema: &DFSchema, columns: &[Expr]) -> Result<Expr> {
    expr.transform_down(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let value = schema.maybe_index_of_column(column).and_then(|idx| columns.get(idx));
        Ok(match value {
            Some(value) => Transformed::new(value.clone(), true, TreeNodeRecursion::Jump),
            None => Transformed::no(expr),
        })
    })
    .map(|t| t.data)
}

fn is_cheap(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) | Expr::OuterReferenceColumn(..) => true,
        Expr::Cast(cast) => is_cheap(&cast.expr),
        _ => false,
    }
}

/// A plan whose columns have new names under one alias, so that it can be joined to anything.
pub(super) struct Renamed {
    pub(super) plan: LogicalPlan,
    names: HashMap<Column, Column>,
}

impl Renamed {
    /// Computes `exprs` over `plan`, and the columns of `plan` that stand in `wanted`; returns the places of `exprs`.
    pub(super) fn of(
        unnester: &mut super::Unnester,
        plan: LogicalPlan,
        exprs: &[Expr],
        wanted: &[Expr],
    ) -> Result<(Renamed, Vec<Column>)> {
        let alias = unnester.name("subquery");
        let mut names = HashMap::new();
        let mut items = vec![];
        let column = |unnester: &mut super::Unnester| Column::new(Some(alias.clone()), unnester.name("column"));
        for expr in wanted {
            expr.apply(|expr| {
                if let Expr::Column(present) = expr
                    && plan.schema().maybe_index_of_column(present).is_some()
                    && !names.contains_key(present)
                {
                    let renamed = column(unnester);
                    items.push(expr.clone().alias(&renamed.name));
                    names.insert(present.clone(), renamed);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        let mut places = vec![];
        for expr in exprs {
            let place = column(unnester);
            items.push(expr.clone().unalias().alias(&place.name));
            places.push(place);
        }
        if items.is_empty() {
            items.push(datafusion::logical_expr::lit(true).alias(unnester.name("row")));
        }
        let projection = Arc::new(super::project(plan, items)?);
        let aliased = datafusion::logical_expr::SubqueryAlias::try_new(projection, alias)?;
        Ok((Renamed { plan: LogicalPlan::SubqueryAlias(aliased), names }, places))
    }

    /// The expression with the new names.
    pub(super) fn rename(&self, expr: Expr) -> Result<Expr> {
        expr.transform_up(|expr| match &expr {
            Expr::Column(column) => match self.names.get(column) {
                Some(renamed) => Ok(Transformed::yes(Expr::Column(renamed.clone()))),
                None => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        })
        .map(|t| t.data)
    }
}

/// An equality of the condition: `value = e` where `value` is what the scope gives and `e` has nothing of it.
pub(super) fn equated(condition: &Expr, value: &Expr, scope: &Scope) -> Option<(Expr, NullEquality)> {
    let Expr::BinaryExpr(binary) = condition else { return None };
    let nulls = match binary.op {
        Operator::Eq => NullEquality::NullEqualsNothing,
        Operator::IsNotDistinctFrom => NullEquality::NullEqualsNull,
        _ => return None,
    };
    let other = match (binary.left.as_ref() == value, binary.right.as_ref() == value) {
        (true, false) => &binary.right,
        (false, true) => &binary.left,
        _ => return None,
    };
    (!scope.is_in(other)).then(|| (other.as_ref().clone(), nulls))
}

/// A join of two plans.
pub(super) fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    filter: Vec<Expr>,
    join_type: JoinType,
    nulls: NullEquality,
) -> Result<LogicalPlan> {
    let filter = filter.into_iter().reduce(Expr::and);
    let (left, right) = (Arc::new(left), Arc::new(right));
    Join::try_new(left, right, on, filter, join_type, JoinConstraint::On, nulls, false).map(LogicalPlan::Join)
}

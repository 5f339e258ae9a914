//! `JOIN .. USING (k)` and NATURAL joins: the columns of that name become one.
//!
//! DataFusion takes the left side's column for it, whatever the join, and leaves the others where they stand. In
//! PostgreSQL the merged column is the right side's in a RIGHT JOIN and the one that is not NULL in a FULL JOIN, `*` has
//! it first, and `a.k` and `b.k` are still there by their full names.
//!
//! [`nest`] puts each such join in brackets, which come to [`UsingPlanner`]. It plans the join and a projection that has
//! the merged columns in front, under a table name of their own. DataFusion learns what belongs to a merged column from
//! joins with USING: one more such join, with nothing, tells it. [`strip`] takes these away when names are resolved.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, JoinConstraint, JoinType, NullEquality, Result, TableReference};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::utils::expand_wildcard;
use datafusion::logical_expr::{EmptyRelation, Expr, Join, LogicalPlan, Projection};
use sqlparser::ast::{self, BinaryOperator, Ident, JoinOperator, TableFactor, TableWithJoins};
use tidewire_sql::{fold, own_exprs_mut};
use tidewire_types::{SqlError, SqlState};

use crate::functions::comparable;
use crate::primary_keys;
use crate::provider::to_datafusion;

/// Begins the table names of merged columns. It sorts before all names of users: DataFusion takes the first.
const PREFIX: &str = "\u{1}using";

/// Puts the joins with USING and NATURAL of a FROM clause in brackets; `n` counts them. A column that is named without
/// its table means the merged one.
pub(crate) fn nest(select: &mut ast::Select, n: &mut usize) {
    let mut merged = HashMap::new();
    let is_grouped = matches!(&select.group_by, ast::GroupByExpr::Expressions(exprs, _) if !exprs.is_empty());
    for item in &mut select.from {
        nest_item(item, n, &mut merged, is_grouped);
    }
    // With other tables beside them the name may be ambiguous; that is found out later.
    if merged.is_empty() || select.from.len() > 1 {
        return;
    }
    let qualify = &mut |expr: &mut ast::Expr| {
        if let ast::Expr::Identifier(ident) = &*expr
            && let Some(table) = merged.get(&fold(ident))
        {
            *expr = ast::Expr::CompoundIdentifier(vec![Ident::with_quote('"', table), ident.clone()]);
        }
        ControlFlow::Continue(())
    };
    let _ = own_exprs_mut(&mut select.projection, qualify);
    let _ = own_exprs_mut(&mut select.selection, qualify);
    let _ = own_exprs_mut(&mut select.group_by, qualify);
    let _ = own_exprs_mut(&mut select.having, qualify);
    let _ = own_exprs_mut(&mut select.qualify, qualify);
}

/// The same for joins that stand in brackets already.
pub(crate) fn nest_in_brackets(table: &mut TableFactor, n: &mut usize) {
    if let TableFactor::NestedJoin { table_with_joins, alias } = table
        && !alias.as_ref().is_some_and(|alias| is_merged(&alias.name.value))
    {
        nest_item(table_with_joins, n, &mut HashMap::new(), false);
    }
}

/// With `keeps_keys` also joins of which DataFusion would forget the primary keys: [`FromPlanner`] knows them.
///
/// [`FromPlanner`]: crate::from_planner::FromPlanner
fn nest_item(item: &mut TableWithJoins, n: &mut usize, merged: &mut HashMap<String, String>, keeps_keys: bool) {
    let is_lateral = |table: &TableFactor| {
        matches!(
            table,
            TableFactor::Derived { lateral: true, .. }
                | TableFactor::Function { lateral: true, .. }
                | TableFactor::UNNEST { .. }
        )
    };
    let takes_place = |join: &ast::Join| constraint(&join.join_operator).is_some() && !is_lateral(&join.relation);
    let forgets = |join: &ast::Join| {
        let operator = &join.join_operator;
        let is_outer =
            matches!(operator, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_));
        keeps_keys && is_outer && !is_lateral(&join.relation)
    };
    let Some(last) = item.joins.iter().rposition(|join| takes_place(join) || forgets(join)) else { return };
    let behind = item.joins.split_off(last + 1);
    for join in std::mem::replace(&mut item.joins, behind) {
        let alias = takes_place(&join).then(|| {
            *n += 1;
            let name = format!("{PREFIX}{n}");
            if let Some((_, ast::JoinConstraint::Using(columns))) = constraint(&join.join_operator) {
                let idents = columns.iter().filter_map(|c| c.0.last().and_then(|part| part.as_ident()));
                merged.extend(idents.map(|ident| (fold(ident), name.clone())));
            }
            let name = Ident::with_quote('"', name);
            ast::TableAlias { explicit: true, name, columns: vec![], at: None }
        });
        let nothing = TableFactor::NestedJoin {
            table_with_joins: Box::new(TableWithJoins { relation: join.relation.clone(), joins: vec![] }),
            alias: None,
        };
        let relation = std::mem::replace(&mut item.relation, nothing);
        let table_with_joins = Box::new(TableWithJoins { relation, joins: vec![join] });
        item.relation = TableFactor::NestedJoin { table_with_joins, alias };
    }
}

fn is_merged(table: &str) -> bool {
    table.starts_with(PREFIX)
}

/// The kind of a join with USING or NATURAL.
pub(crate) fn constraint(operator: &JoinOperator) -> Option<(JoinType, &ast::JoinConstraint)> {
    let (kind, constraint) = match operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) => (JoinType::Inner, c),
        JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => (JoinType::Left, c),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (JoinType::Right, c),
        JoinOperator::FullOuter(c) => (JoinType::Full, c),
        _ => return None,
    };
    matches!(constraint, ast::JoinConstraint::Using(_) | ast::JoinConstraint::Natural).then_some((kind, constraint))
}

/// Plans what [`nest`] has put in brackets.
#[derive(Debug)]
pub(crate) struct UsingPlanner;

impl RelationPlanner for UsingPlanner {
    fn plan_relation(&self, relation: TableFactor, cx: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let TableFactor::NestedJoin { table_with_joins, alias: Some(alias) } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        match table_with_joins.joins.as_slice() {
            [join] if is_merged(&alias.name.value) => {
                let left = cx.plan(table_with_joins.relation.clone())?;
                let right = cx.plan(join.relation.clone())?;
                let Some((kind, constraint)) = constraint(&join.join_operator) else {
                    return Ok(RelationPlanning::Original(Box::new(relation)));
                };
                let names = match constraint {
                    ast::JoinConstraint::Using(columns) => Some(columns.iter().filter_map(|c| c.0.last()?.as_ident())),
                    _ => None,
                };
                let names = names.map(|idents| idents.map(|ident| cx.normalize_ident(ident.clone())).collect());
                let plan = merged_join(left, right, kind, names, &alias.name.value)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
            }
            // A name for all of it: nothing else can be named from outside.
            [] => {
                let plan = cx.plan(table_with_joins.relation.clone())?;
                let columns = visible(&plan)?.into_iter().map(Expr::Column).collect();
                let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?);
                let alias = Some(alias.clone());
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            _ => Ok(RelationPlanning::Original(Box::new(relation))),
        }
    }
}

/// The columns that `*` stands for.
fn visible(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let all = expand_wildcard(plan.schema(), plan, None)?;
    Ok(all.into_iter().filter_map(|e| if let Expr::Column(column) = e { Some(column) } else { None }).collect())
}

fn merged_join(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    names: Option<Vec<String>>,
    table: &str,
) -> Result<LogicalPlan> {
    let (of_left, of_right) = (visible(&left)?, visible(&right)?);
    let names = names.unwrap_or_else(|| {
        let common = of_left.iter().filter(|l| of_right.iter().any(|r| r.name == l.name));
        common.map(|c| c.name.clone()).collect()
    });
    let mut on = vec![];
    let mut exprs = vec![];
    let table = TableReference::bare(table);
    let both = left.schema().join(right.schema())?;
    for name in &names {
        let l = only_column(&of_left, name, "left")?;
        let r = only_column(&of_right, name, "right")?;
        let type_of = |plan: &LogicalPlan, c: &Column| {
            plan.schema().qualified_field_from_column(c).map(|(_, f)| f.data_type().clone())
        };
        let same_type = type_of(&left, l)? == type_of(&right, r)?;
        let (l, r) = (Expr::Column(l.clone()), Expr::Column(r.clone()));
        let merged = match kind {
            JoinType::Full => coalesce(vec![l.clone(), r.clone()]),
            JoinType::Right if same_type => r.clone(),
            JoinType::Right => coalesce(vec![r.clone(), l.clone()]),
            _ if same_type => l.clone(),
            // The column has the type that both sides have in common.
            _ => coalesce(vec![l.clone(), r.clone()]),
        };
        exprs.push(merged.alias_qualified(Some(table.clone()), name));
        // Columns that have no `=` are an error of its own kind, which is found when all types are known.
        on.push(comparable(&BinaryOperator::Eq, l.clone(), r.clone(), &both).unwrap_or((l, r)));
    }
    let replaced = |c: &Column| names.contains(&c.name) && c.relation.as_ref().is_some_and(|r| is_merged(r.table()));
    let columns = left.schema().columns().into_iter().chain(right.schema().columns());
    exprs.extend(columns.filter(|c| !replaced(c)).map(Expr::Column));
    let keys = primary_keys::of_merged(&exprs, &left, &right);
    let (left, right) = (Arc::new(left), Arc::new(right));
    let nulls = NullEquality::NullEqualsNothing;
    let joined = Join::try_new(left, right, on, None, kind, JoinConstraint::On, nulls, false)?;
    let mut plan = Projection::try_new(exprs, Arc::new(LogicalPlan::Join(joined)))?;
    plan.schema = Arc::new(plan.schema.as_ref().clone().with_functional_dependencies(keys)?);
    marked(LogicalPlan::Projection(plan), &names, &table)
}

/// Errors: `42703`, `42702`, for a column that is not there or there twice.
fn only_column<'a>(columns: &'a [Column], name: &str, side: &str) -> Result<&'a Column> {
    let mut found = columns.iter().filter(|c| c.name == name);
    match (found.next(), found.next()) {
        (Some(column), None) => Ok(column),
        (None, _) => {
            let message = format!("column \"{name}\" specified in USING clause does not exist in {side} table");
            Err(to_datafusion(SqlError::new(SqlState::UndefinedColumn, message)))
        }
        (Some(_), Some(_)) => {
            let message = format!("common column name \"{name}\" appears more than once in {side} table");
            Err(to_datafusion(SqlError::new(SqlState::AmbiguousColumn, message)))
        }
    }
}

/// Tells DataFusion which columns are behind the merged ones.
fn marked(plan: LogicalPlan, names: &[String], table: &TableReference) -> Result<LogicalPlan> {
    let hidden = |c: &Column| names.contains(&c.name) && c.relation.as_ref() != Some(table);
    let columns = plan.schema().columns().into_iter().filter(hidden);
    let on = columns.map(|c| (Expr::Column(Column::new(Some(table.clone()), &c.name)), Expr::Column(c)));
    let on: Vec<(Expr, Expr)> = on.collect();
    if on.is_empty() {
        return Ok(plan);
    }
    let nothing = EmptyRelation { produce_one_row: true, schema: Arc::new(DFSchema::empty()) };
    let schema = plan.schema().clone();
    Ok(LogicalPlan::Join(Join {
        left: Arc::new(plan),
        right: Arc::new(LogicalPlan::EmptyRelation(nothing)),
        on,
        filter: None,
        join_type: JoinType::Inner,
        join_constraint: JoinConstraint::Using,
        schema,
        null_equality: NullEquality::NullEqualsNothing,
        null_aware: false,
    }))
}

/// The plan without the joins that only told about names.
pub(crate) fn strip(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join)
            if join.join_constraint == JoinConstraint::Using
                && matches!(join.right.as_ref(), LogicalPlan::EmptyRelation(_)) =>
        {
            Ok(Transformed::yes(Arc::unwrap_or_clone(join.left)))
        }
        other => Ok(Transformed::no(other)),
    })
    .map(|t| t.data)
}

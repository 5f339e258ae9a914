//! Subqueries become joins: a plan without `Expr::OuterReferenceColumn`, LATERAL, EXISTS, IN, ANY and ALL.
//!
//! A subquery that refers to the query around it is a *dependent join*: its rows are asked for once for each row outside.
//! It is enough to ask once for each *distinct* set of the values that it refers to (the [`domain::Domain`]): that set
//! is pushed down through the subquery's operators until nothing refers outside any more ([`push`]), and the result is
//! joined back to the outer rows. Where the subquery itself says which values can match (`inner.k = outer.k`), its own
//! column takes the place of the set, and no set is kept. Filters over plain joins become conditions of the join.
//!
//! Invariant: the plan that comes out has the columns of the plan that went in, refers to nothing outside of itself, and
//! holds no subquery but uncorrelated scalar ones, which have a value of their own. It runs as a batch and as a view.
//!
//! Subqueries are taken from the innermost to the outermost; the references of one level stay references while the
//! levels inside are unnested. Each is bound to its level first ([`scope`]), for names repeat.
//!
//! Source: Neumann and Kemper, "Unnesting Arbitrary Queries", BTW 2015; Neumann, "Improving Unnesting of Complex
//! Queries", BTW 2025.

mod domain;
mod lateral;
mod membership;
mod on_condition;
mod one_row;
mod pull;
mod push;
mod quantified;
mod rows;
mod scalar;
mod scope;
mod types;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, Sort as SortExpr};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    BinaryExpr, Distinct, DistinctOn, Expr, Filter, LogicalPlan, Operator, Projection, Sort, Subquery, SubqueryAlias,
    lit,
};
pub(crate) use one_row::{asked, given, only_row, when_asked};
pub(crate) use rows::{ROW, RowPlanner, row_function};
pub(crate) use scalar::at_most_one;
use tidewire_types::SqlType;
pub(crate) use types::check_types;

use self::membership::Member;
pub(crate) use self::scope::names_in;
use self::scope::{Scope, Scopes, bind};
use crate::functions::maybe_null::maybe_null;
use crate::functions::typed::{self, retyped};

/// Unnests all subqueries of an analyzed plan.
pub(crate) fn unnest(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_subquery(&plan)? {
        return Ok(plan);
    }
    Unnester::default().rewrite(plan, &Scopes::default())
}

fn has_subquery(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_)) || node.expressions().iter().any(is_nested);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether a subquery stands in the expression.
fn is_nested(expr: &Expr) -> bool {
    contains(expr, |e| {
        matches!(e, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
    })
}

/// Whether the expression or one inside it is such.
fn contains(expr: &Expr, is_such: impl Fn(&Expr) -> bool) -> bool {
    expr.exists(|e| Ok(is_such(e))).unwrap_or(false)
}

#[derive(Default)]
struct Unnester {
    n_scopes: usize,
    n_names: usize,
}

impl Unnester {
    /// A name that no user's column has; users see it as `kind`.
    fn name(&mut self, kind: &str) -> String {
        self.n_names += 1;
        format!("{kind}\u{1}{}", self.n_names)
    }

    fn scope(&mut self, schema: &Arc<DFSchema>) -> Scope {
        self.n_scopes += 1;
        Scope::new(self.n_scopes, schema.clone())
    }

    /// The plan without subqueries; what it refers to in `scopes` stays, bound to its scope.
    fn rewrite(&mut self, plan: LogicalPlan, scopes: &Scopes) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Subquery(lateral) => {
                self.rewrite(Arc::unwrap_or_clone(lateral.subquery), &scopes.inside_lateral())
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.rewrite(Arc::unwrap_or_clone(alias.input), scopes)?;
                Ok(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?))
            }
            LogicalPlan::Join(join) => self.join(join, scopes),
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let scopes = scopes.without_lateral();
                let input = self.rewrite(Arc::unwrap_or_clone(input), &scopes)?;
                let predicate = bind(predicate, &scopes)?;
                self.filter(split_conjunction_owned(predicate), input, &scopes)
            }
            other => self.node(other, &scopes.without_lateral()),
        }
    }

    fn node(&mut self, plan: LogicalPlan, scopes: &Scopes) -> Result<LogicalPlan> {
        let names: Vec<_> = qualified(plan.schema());
        let plan = with_columns_of_order(plan)?;
        let inputs = plan.inputs().into_iter().cloned().map(|input| self.rewrite(input, scopes));
        let mut inputs: Vec<LogicalPlan> = inputs.collect::<Result<_>>()?;
        let exprs = plan.expressions().into_iter().map(|e| {
            let bound = bind(e.clone(), scopes)?;
            Ok(if bound == e { bound } else { named_as(bound, &e) })
        });
        let mut exprs: Vec<Expr> = exprs.collect::<Result<_>>()?;
        let mut widened = qualified(plan.schema()) != names;
        if exprs.iter().any(is_nested)
            && let [input] = inputs.as_mut_slice()
        {
            let before = input.schema().fields().len();
            let scope = self.scope(input.schema());
            let present = std::mem::replace(input, LogicalPlan::EmptyRelation(empty_relation()));
            let mut query = Query::new(present, scope, scopes);
            for expr in &mut exprs {
                let old = std::mem::replace(expr, lit(true));
                let new = self.without_subqueries(old.clone(), &mut query)?;
                *expr = if new == old { new } else { named_as(new, &old) };
            }
            widened |= query.input.schema().fields().len() != before;
            *input = query.input;
        }
        let keeps_input = matches!(plan, LogicalPlan::Sort(_) | LogicalPlan::Window(_) | LogicalPlan::Limit(_));
        let plan = rebuilt(plan, exprs, inputs)?;
        if widened && keeps_input { only(plan, &names) } else { Ok(plan) }
    }

    /// `input` with the rows for which all of `conjuncts` are true.
    fn filter(&mut self, conjuncts: Vec<Expr>, input: LogicalPlan, scopes: &Scopes) -> Result<LogicalPlan> {
        let conjuncts: Vec<Expr> = conjuncts.into_iter().map(without_not).flat_map(split_conjunction_owned).collect();
        let (nested, plain): (Vec<_>, Vec<_>) = conjuncts.into_iter().partition(is_nested);
        let input = filtered(input, plain)?;
        if nested.is_empty() {
            return Ok(input);
        }
        let names = qualified(input.schema());
        let scope = self.scope(input.schema());
        let mut query = Query::new(input, scope, scopes);
        let mut others = vec![];
        for conjunct in nested {
            match conjunct {
                Expr::Exists(Exists { subquery, negated }) => {
                    let subquery = self.subquery(subquery, &query)?;
                    self.keep_rows(&mut query, Member::exists(subquery), negated)?;
                }
                Expr::InSubquery(in_subquery) => {
                    let negated = in_subquery.negated;
                    let member = self.member(in_subquery, &mut query)?;
                    self.keep_rows(&mut query, member, negated)?;
                }
                other => others.push(other),
            }
        }
        let others = others.into_iter().map(|e| self.truth(e, &mut query));
        let others: Vec<Expr> = others.collect::<Result<_>>()?;
        only(filtered(query.input, others)?, &names)
    }

    /// The expression where only being true counts: under AND and OR an IN need not tell NULL from false.
    fn truth(&mut self, expr: Expr, query: &mut Query<'_>) -> Result<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let left = self.truth(without_not(*left), query)?;
                let right = self.truth(without_not(*right), query)?;
                Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            Expr::InSubquery(in_subquery) if !in_subquery.negated => {
                let member = self.member(in_subquery, query)?;
                self.mark(query, &member)
            }
            other => self.without_subqueries(other, query),
        }
    }

    /// The expression over the columns of `query.input`, to which the values of its subqueries are joined.
    fn without_subqueries(&mut self, expr: Expr, query: &mut Query<'_>) -> Result<Expr> {
        expr.transform_up(|expr| {
            Ok(Transformed::yes(match expr {
                Expr::Exists(Exists { subquery, negated }) => {
                    let subquery = self.subquery(subquery, query)?;
                    let mark = self.mark(query, &Member::exists(subquery))?;
                    if negated { !mark } else { mark }
                }
                Expr::InSubquery(in_subquery) => {
                    let negated = in_subquery.negated;
                    let member = self.member(in_subquery, query)?;
                    self.membership(query, &member, negated)?
                }
                Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                    let subquery = self.subquery(subquery, query)?;
                    self.quantified(query, *expr, op, &quantifier, subquery)?
                }
                Expr::ScalarSubquery(subquery) => {
                    let spans = subquery.spans.clone();
                    let plan = self.subquery(subquery, query)?;
                    if query.scopes.is_outermost() && !query.scope.is_used_in(&plan)? {
                        // It has one value, which is computed once; NULL where there is no row.
                        let is_nullable = plan.schema().fields().iter().all(|field| field.is_nullable())
                            && !scalar::may_be_folded(&plan, 0);
                        let field = plan.schema().fields().first().cloned();
                        let (plan, forgotten) = with_bare_value(plan)?;
                        let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns: vec![], spans };
                        let value = Expr::ScalarSubquery(subquery);
                        // A plan that runs knows only the Arrow type.
                        let value = match (forgotten, field) {
                            (Some(forgotten), _) => retyped(value, forgotten),
                            (None, Some(field)) => scalar::as_field(value, &field),
                            (None, None) => value,
                        };
                        if is_nullable { value } else { maybe_null(value) }
                    } else {
                        self.scalar(query, plan)?
                    }
                }
                other => return Ok(Transformed::no(other)),
            }))
        })
        .map(|t| t.data)
    }

    /// The plan of a subquery in an expression over `query.input`.
    fn subquery(&mut self, subquery: Subquery, query: &Query<'_>) -> Result<LogicalPlan> {
        self.rewrite(Arc::unwrap_or_clone(subquery.subquery), &query.scopes.with(&query.scope))
    }

    fn member(&mut self, in_subquery: InSubquery, query: &mut Query<'_>) -> Result<Member> {
        let InSubquery { expr, subquery, .. } = in_subquery;
        let expr = self.without_subqueries(*expr, query)?;
        let subquery = self.subquery(subquery, query)?;
        Member::of(expr, subquery, query.input.schema())
    }
}

/// The rows that expressions are computed over, while the values of subqueries are joined to them.
struct Query<'a> {
    /// The rows, with all columns of the scope under their names.
    input: LogicalPlan,
    /// The rows as they were before anything was joined to them: each subquery takes its domain from here, for one that
    /// had the others in it would double the plan with each subquery.
    rows: LogicalPlan,
    /// What subqueries see of them.
    scope: Scope,
    /// What they see around.
    scopes: &'a Scopes,
}

impl<'a> Query<'a> {
    fn new(input: LogicalPlan, scope: Scope, scopes: &'a Scopes) -> Query<'a> {
        Query { rows: input.clone(), input, scope, scopes }
    }
}

/// The subquery with a value that a scalar can be made of, and the type that the value has.
fn with_bare_value(plan: LogicalPlan) -> Result<(LogicalPlan, Option<SqlType>)> {
    let columns = plan.schema().columns();
    let ([name], [field]) = (columns.as_slice(), plan.schema().fields().as_ref()) else { return Ok((plan, None)) };
    let Some(bare) = typed::bare(field.data_type()) else { return Ok((plan, None)) };
    let own = SqlType::of(field);
    let value = output(retyped(Expr::Column(name.clone()), bare), name.relation.as_ref(), &name.name);
    Ok((project(plan, vec![value])?, Some(own)))
}

/// The node with other expressions and inputs.
fn rebuilt(plan: LogicalPlan, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<LogicalPlan> {
    let LogicalPlan::Distinct(Distinct::On(distinct)) = plan else { return plan.with_new_exprs(exprs, inputs) };
    let mut exprs = exprs.into_iter();
    let on = exprs.by_ref().take(distinct.on_expr.len()).map(Expr::unalias).collect();
    let select = exprs.by_ref().take(distinct.select_expr.len()).collect();
    let sort = distinct
        .sort_expr
        .map(|keys| keys.into_iter().zip(exprs).map(|(key, expr)| SortExpr { expr: expr.unalias(), ..key }).collect());
    let input = inputs.into_iter().next().map_or(distinct.input, Arc::new);
    Ok(LogicalPlan::Distinct(Distinct::On(DistinctOn::try_new(on, select, sort, input)?)))
}

/// `SELECT a FROM t ORDER BY (SELECT .. t.b)`: the rows that are sorted have `b` as well.
fn with_columns_of_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Sort(sort) = &plan else { return Ok(plan) };
    let LogicalPlan::Projection(projection) = sort.input.as_ref() else { return Ok(plan) };
    let mut missing = vec![];
    for key in sort.expr.iter().filter(|key| is_nested(&key.expr)) {
        for column in names_in(&key.expr)? {
            let is_there = projection.schema.maybe_index_of_column(&column).is_some() || missing.contains(&column);
            if !is_there && projection.input.schema().maybe_index_of_column(&column).is_some() {
                missing.push(column);
            }
        }
    }
    if missing.is_empty() {
        return Ok(plan);
    }
    let exprs = projection.expr.iter().cloned().chain(missing.into_iter().map(Expr::Column)).collect();
    let input = Arc::new(project(projection.input.as_ref().clone(), exprs)?);
    Ok(LogicalPlan::Sort(Sort { input, expr: sort.expr.clone(), fetch: sort.fetch }))
}

/// NOT goes into what it can be taken into: `NOT EXISTS`, `NOT IN`, AND and OR.
fn without_not(expr: Expr) -> Expr {
    let Expr::Not(inner) = expr else { return expr };
    match *inner {
        Expr::Not(inner) => without_not(*inner),
        Expr::Exists(exists) => Expr::Exists(Exists { negated: !exists.negated, ..exists }),
        Expr::InSubquery(member) => Expr::InSubquery(InSubquery { negated: !member.negated, ..member }),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            without_not(Expr::Not(left)).and(without_not(Expr::Not(right)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) if is_nested(&left) || is_nested(&right) => {
            without_not(Expr::Not(left)).or(without_not(Expr::Not(right)))
        }
        other => Expr::Not(Box::new(other)),
    }
}

/// `expr` under the name that `old` has as a column.
fn named_as(expr: Expr, old: &Expr) -> Expr {
    match expr {
        Expr::Alias(_) => expr,
        other => {
            let (relation, name) = old.qualified_name();
            other.alias_qualified(relation, name)
        }
    }
}

fn empty_relation() -> datafusion::logical_expr::EmptyRelation {
    let schema = Arc::new(DFSchema::empty());
    datafusion::logical_expr::EmptyRelation { produce_one_row: false, schema }
}

fn qualified(schema: &DFSchema) -> Vec<(Option<TableReference>, String)> {
    schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.name().clone())).collect()
}

/// Only the columns of these names.
fn only(plan: LogicalPlan, names: &[(Option<TableReference>, String)]) -> Result<LogicalPlan> {
    if qualified(plan.schema()) == names {
        return Ok(plan);
    }
    let columns = names.iter().map(|(qualifier, name)| Expr::Column(Column::new(qualifier.clone(), name)));
    project(plan, columns.collect())
}

fn project(plan: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

fn filtered(plan: LogicalPlan, conjuncts: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(match conjuncts.into_iter().reduce(Expr::and) {
        None => plan,
        Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?),
    })
}

/// The keys of a GROUP BY as its columns are: one that is written twice is one column.
fn written_once(keys: &[Expr]) -> Vec<&Expr> {
    let mut once: Vec<&Expr> = vec![];
    for key in keys {
        if !once.contains(&key) {
            once.push(key);
        }
    }
    once
}

/// `expr` as the output column of that name.
fn output(expr: Expr, qualifier: Option<&TableReference>, name: &str) -> Expr {
    match expr {
        Expr::Column(column) if column.relation.as_ref() == qualifier && column.name == name => Expr::Column(column),
        other => other.unalias().alias_qualified(qualifier.cloned(), name),
    }
}

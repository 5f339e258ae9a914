//! The set of outer values goes down through a subquery's operators.
//!
//! [`Unnester::push`] gives the rows of the subquery for every set of outer values, with the values as columns behind
//! its own (the *keys*). Where they come from the subquery's own columns they may hold sets that the outer query does
//! not have: whoever joins them back leaves those out. Every operator keeps sets apart: aggregates and DISTINCT group by
//! the keys, windows and LIMIT are partitioned by them, joins compare them, and a global aggregate has a row for each.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{
    Column, DFSchema, DataFusionError, JoinType, NullEquality, Result, ScalarValue, TableReference,
};
use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::logical_plan::TableScanBuilder;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, EmptyRelation, Expr, ExprFunctionExt, ExprSchemable, FetchType, Filter, Join,
    Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection, RecursiveQuery, SkipType, SubqueryAlias, TableScan,
    Union, Unnest, Values, Window, binary_expr, cast, lit,
};
use tidewire_types::SqlError;

use super::domain::Domain;
use super::pull::{Pulled, equated, join, pull};
use super::{Unnester, filtered, only, output, project, qualified, written_once};
use crate::flat_map::{Call, FlatMap};
use crate::lower::has_sort;
use crate::provider::{to_datafusion, work_source, work_table};

/// A subquery for all sets of outer values.
pub(super) struct Pushed {
    pub(super) plan: LogicalPlan,
    /// A column for each value of the domain.
    pub(super) keys: Vec<Column>,
    /// How an outer value finds its key: where keys come from an equality, a NULL finds nothing.
    pub(super) nulls: NullEquality,
}

impl Unnester {
    /// The rows of `plan` for each set of values of `domain`.
    pub(super) fn push(&mut self, plan: &LogicalPlan, domain: &Domain<'_>) -> Result<Pushed> {
        if let Some(pulled) = pull(plan, domain.scope)? {
            return self.join_domain(plan, pulled, domain);
        }
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.push(&projection.input, domain)?;
                projected(projection, input, domain)
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let input = self.push(input, domain)?;
                let predicate = domain.replace(predicate.clone(), &input.keys)?;
                Ok(Pushed { plan: filtered(input.plan, vec![predicate])?, ..input })
            }
            LogicalPlan::SubqueryAlias(alias) => aliased(alias, self.push(&alias.input, domain)?),
            LogicalPlan::Sort(sort) => match sort.fetch {
                None => self.push(&sort.input, domain),
                Some(n) => self.first_rows(plan, &Bounds { skip: None, fetch: Some(lit(n as i64)) }, domain),
            },
            LogicalPlan::Limit(limit) => {
                let bounds = Bounds::of(limit)?;
                self.first_rows(&limit.input, &bounds, domain)
            }
            LogicalPlan::Aggregate(aggregate) => self.push_aggregate(aggregate, domain),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let pushed = self.push(input, domain)?;
                let Pushed { plan, keys, nulls } = trimmed(pushed, input)?;
                Ok(Pushed { plan: LogicalPlan::Distinct(Distinct::All(Arc::new(plan))), keys, nulls })
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.push_distinct_on(distinct, None, domain),
            LogicalPlan::Union(union) => self.push_union(union, domain),
            LogicalPlan::Window(window) => self.push_window(window, domain),
            LogicalPlan::Join(join) => self.push_join(join, domain),
            LogicalPlan::Unnest(unnest) => self.push_unnest(unnest, domain),
            LogicalPlan::Values(values) => self.push_values(values, domain),
            LogicalPlan::Extension(_) => match FlatMap::of(plan) {
                Some(flat_map) => self.push_flat_map(flat_map, domain),
                None => Err(refused("this correlated subquery")),
            },
            LogicalPlan::RecursiveQuery(query) => self.push_recursive(query, domain),
            _ => Err(refused("this correlated subquery")),
        }
    }

    /// Rows that depend on nothing but conditions: their own columns give the keys where they are equated with all of
    /// them; else the rows are joined to the set.
    fn join_domain(&mut self, plan: &LogicalPlan, pulled: Pulled, domain: &Domain<'_>) -> Result<Pushed> {
        let Pulled { plan: rows, columns, mut conditions } = pulled;
        let mut own = vec![];
        let mut nulls = NullEquality::NullEqualsNothing;
        let mut not_null = vec![];
        for value in &domain.values {
            let found = conditions.iter().enumerate().find_map(|(idx, condition)| {
                let (key, nulls) = equated(condition, value, domain.scope)?;
                Some((idx, key, nulls))
            });
            let Some((idx, key, equality)) = found else { break };
            if key.get_type(rows.schema())? != value.get_type(rows.schema())? {
                break;
            }
            match equality {
                NullEquality::NullEqualsNothing => not_null.push(key.clone().is_not_null()),
                NullEquality::NullEqualsNull => nulls = NullEquality::NullEqualsNull,
            }
            own.push((value.clone(), key, idx));
        }
        let keys: Vec<Column>;
        let (rows, values) = if own.len() == domain.values.len() {
            let used: Vec<usize> = own.iter().map(|(_, _, idx)| *idx).collect();
            let others = conditions.into_iter().enumerate().filter(|(idx, _)| !used.contains(idx));
            conditions = others.map(|(_, condition)| condition).collect();
            keys = own.iter().map(|_| Column::new_unqualified(self.name("outer"))).collect();
            let values: Vec<Expr> = own.into_iter().map(|(_, key, _)| key).collect();
            (rows, values)
        } else {
            not_null.clear();
            nulls = NullEquality::NullEqualsNull;
            let (set, set_keys) = domain.plan(self)?;
            keys = set_keys.iter().map(|_| Column::new_unqualified(self.name("outer"))).collect();
            let values: Vec<Expr> = set_keys.into_iter().map(Expr::Column).collect();
            let on = std::mem::take(&mut conditions).into_iter().map(|c| in_place(c, domain, &values));
            let on: Vec<Expr> = on.collect::<Result<_>>()?;
            // One row that stands for "no FROM clause" adds nothing.
            let rows = match rows {
                LogicalPlan::EmptyRelation(e) if e.produce_one_row && e.schema.fields().is_empty() => {
                    filtered(set, on)?
                }
                rows => join(rows, set, vec![], on, JoinType::Inner, NullEquality::NullEqualsNothing)?,
            };
            (rows, values)
        };
        let conditions = conditions.into_iter().map(|c| in_place(c, domain, &values));
        let conditions: Vec<Expr> = not_null.into_iter().map(Ok).chain(conditions).collect::<Result<_>>()?;
        let rows = filtered(rows, conditions)?;
        let mut exprs = vec![];
        for (column, (qualifier, field)) in columns.into_iter().zip(plan.schema().iter()) {
            exprs.push(output(in_place(column, domain, &values)?, qualifier, field.name()));
        }
        exprs.extend(values.into_iter().zip(&keys).map(|(value, key)| value.alias(&key.name)));
        Ok(Pushed { plan: project(rows, exprs)?, keys, nulls })
    }

    /// GROUP BY with the keys. Without other columns to group by, a set of values without rows has a row as well.
    fn push_aggregate(&mut self, aggregate: &Aggregate, domain: &Domain<'_>) -> Result<Pushed> {
        if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Err(refused("GROUPING SETS, ROLLUP or CUBE in a correlated subquery"));
        }
        let grouped = self.grouped(aggregate, domain)?;
        if !aggregate.group_expr.is_empty() {
            return Ok(grouped);
        }
        let (set, set_keys) = domain.plan(self)?;
        let on = set_keys.iter().zip(&grouped.keys).map(|(a, b)| (Expr::Column(a.clone()), Expr::Column(b.clone())));
        let joined = join(set, grouped.plan, on.collect(), vec![], JoinType::Left, NullEquality::NullEqualsNull)?;
        let mut exprs = vec![];
        for (expr, (qualifier, field)) in aggregate.aggr_expr.iter().zip(aggregate.schema.iter()) {
            let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            exprs.push(output(or_empty(column, expr, aggregate)?, qualifier, field.name()));
        }
        exprs.extend(set_keys.iter().cloned().map(Expr::Column));
        Ok(Pushed { plan: project(joined, exprs)?, keys: set_keys, nulls: NullEquality::NullEqualsNull })
    }

    /// The aggregate for each set of values that has rows.
    pub(super) fn grouped(&mut self, aggregate: &Aggregate, domain: &Domain<'_>) -> Result<Pushed> {
        let input = self.push(&aggregate.input, domain)?;
        let mut group = vec![];
        let mut aggregates = vec![];
        let own_keys = written_once(&aggregate.group_expr);
        let exprs = own_keys.iter().copied().chain(&aggregate.aggr_expr);
        for (idx, (expr, (qualifier, field))) in exprs.zip(aggregate.schema.iter()).enumerate() {
            let replaced = domain.replace(expr.clone(), &input.keys)?;
            let same = replaced == *expr;
            let replaced = if same { replaced } else { output(replaced, qualifier, field.name()) };
            if idx < own_keys.len() { group.push(replaced) } else { aggregates.push(replaced) }
        }
        group.extend(input.keys.iter().cloned().map(Expr::Column));
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input.plan), group, aggregates)?);
        Ok(Pushed { plan, keys: input.keys, nulls: input.nulls })
    }

    /// The first row of each group, by its number; of these those in bounds, in the same order.
    fn push_distinct_on(
        &mut self,
        distinct: &DistinctOn,
        bounds: Option<&Bounds>,
        domain: &Domain<'_>,
    ) -> Result<Pushed> {
        let input = self.push(&distinct.input, domain)?;
        let replaced = |e: &Expr, keys: &[Column]| domain.replace(e.clone().unalias(), keys);
        let groups = distinct.on_expr.iter().map(|e| replaced(e, &input.keys)).collect::<Result<_>>()?;
        let mut order = vec![];
        for key in distinct.sort_expr.iter().flatten() {
            order.push(SortExpr { expr: replaced(&key.expr, &input.keys)?, ..key.clone() });
        }
        let first = Bounds { skip: None, fetch: Some(lit(1i64)) };
        let mut firsts = self.numbered(input, &distinct.input, groups, &order, &first, domain)?;
        if let Some(bounds) = bounds {
            firsts = self.numbered(firsts, &distinct.input, vec![], &order, bounds, domain)?;
        }
        let Pushed { plan, keys, nulls } = firsts;
        let mut select = vec![];
        for (expr, (qualifier, field)) in distinct.select_expr.iter().zip(distinct.schema.iter()) {
            select.push(output(domain.replace(expr.clone(), &keys)?, qualifier, field.name()));
        }
        select.extend(keys.iter().cloned().map(Expr::Column));
        Ok(Pushed { plan: project(plan, select)?, keys, nulls })
    }

    /// VALUES that refer outside: one SELECT a row.
    fn push_values(&mut self, values: &Values, domain: &Domain<'_>) -> Result<Pushed> {
        let row = |exprs: &Vec<Expr>| {
            let one = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: empty_schema() });
            let exprs = exprs.iter().cloned().zip(values.schema.iter());
            let exprs = exprs.map(|(e, (qualifier, field))| {
                cast(e.unalias(), field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name())
            });
            project(one, exprs.collect())
        };
        let mut rows: Vec<LogicalPlan> = values.values.iter().map(row).collect::<Result<_>>()?;
        if rows.len() == 1
            && let Some(only) = rows.pop()
        {
            return self.push(&only, domain);
        }
        let union = Union::try_new(rows.into_iter().map(Arc::new).collect())?;
        self.push_union(&union, domain)
    }

    /// All inputs get the union's names: DataFusion, which flattens unions, finds the columns of each under them.
    fn push_union(&mut self, union: &Union, domain: &Domain<'_>) -> Result<Pushed> {
        let keys: Vec<Column> = domain.values.iter().map(|_| Column::new_unqualified(self.name("outer"))).collect();
        let mut inputs = vec![];
        let mut all_nulls = NullEquality::NullEqualsNothing;
        for input in &union.inputs {
            let pushed = self.push(input, domain)?;
            let Pushed { plan, nulls, .. } = trimmed(pushed, input)?;
            if nulls == NullEquality::NullEqualsNull {
                all_nulls = nulls;
            }
            let names = qualified(&union.schema).into_iter().chain(keys.iter().map(|k| (None, k.name.clone())));
            let exprs = plan.schema().columns().into_iter().zip(names);
            let exprs =
                exprs.map(|(column, (qualifier, name))| output(Expr::Column(column), qualifier.as_ref(), &name));
            let exprs = exprs.collect();
            inputs.push(Arc::new(project(plan, exprs)?));
        }
        Ok(Pushed { plan: LogicalPlan::Union(Union::try_new(inputs)?), keys, nulls: all_nulls })
    }

    /// One recursion for all sets: its relation has the keys as columns too, and the recursive term refers to the rows in it
    /// that have the term's own set.
    fn push_recursive(&mut self, query: &RecursiveQuery, domain: &Domain<'_>) -> Result<Pushed> {
        let keys: Vec<Column> = domain.values.iter().map(|_| Column::new_unqualified(self.name("outer"))).collect();
        let first = self.push(&query.static_term, domain)?;
        let own_keys = first.keys.iter().zip(&keys).map(|(own, key)| {
            let data_type = Expr::Column(own.clone()).get_type(first.plan.schema())?;
            Ok(Arc::new(Field::new(&key.name, data_type, true)))
        });
        let fields = own_keys.collect::<Result<Vec<_>>>()?;
        let term = Arc::unwrap_or_clone(query.recursive_term.clone()).transform_down(|node| {
            if let LogicalPlan::TableScan(scan) = &node
                && let Some((name, schema)) = work_table(scan)
                && name == query.name
            {
                let rows = of_own_set(scan, &name, &schema, &fields, &domain.values)?;
                return Ok(Transformed::new(rows, true, TreeNodeRecursion::Jump));
            }
            Ok(Transformed::no(node))
        });
        let next = self.push(&term?.data, domain)?;
        let nulls = both(first.nulls, next.nulls);
        let with_keys = |pushed: Pushed, term: &LogicalPlan| {
            let columns = qualified(term.schema()).into_iter().map(|(q, name)| Expr::Column(Column::new(q, name)));
            let as_keys = pushed.keys.into_iter().zip(&keys).map(|(own, key)| Expr::Column(own).alias(&key.name));
            Ok::<_, DataFusionError>(Arc::new(project(pushed.plan, columns.chain(as_keys).collect())?))
        };
        let (first, next) = (with_keys(first, &query.static_term)?, with_keys(next, &query.recursive_term)?);
        let query = RecursiveQuery::try_new(query.name.clone(), first, next, query.is_distinct)?;
        Ok(Pushed { plan: LogicalPlan::RecursiveQuery(query), keys, nulls })
    }

    fn push_window(&mut self, window: &Window, domain: &Domain<'_>) -> Result<Pushed> {
        let input = self.push(&window.input, domain)?;
        let Pushed { plan, keys, nulls } = trimmed(input, &window.input)?;
        let n_columns = window.input.schema().fields().len();
        let mut exprs = vec![];
        for (expr, (qualifier, field)) in window.window_expr.iter().zip(window.schema.iter().skip(n_columns)) {
            let expr = domain.replace(expr.clone().unalias(), &keys)?;
            let Expr::WindowFunction(mut function) = expr else { return Err(refused("this window function")) };
            function.params.partition_by.extend(keys.iter().cloned().map(Expr::Column));
            exprs.push(output(Expr::WindowFunction(function), qualifier, field.name()));
        }
        let plan = LogicalPlan::Window(Window::try_new(exprs, Arc::new(plan))?);
        Ok(Pushed { plan, keys, nulls })
    }

    /// The keys come from the side that has rows of its own in the result; where both depend on the outer query,
    /// rows meet within their set.
    fn push_join(&mut self, plan: &Join, domain: &Domain<'_>) -> Result<Pushed> {
        use JoinType as T;
        let (of_left, of_right) = (domain.scope.is_used_in(&plan.left)?, domain.scope.is_used_in(&plan.right)?);
        let left_first = matches!(plan.join_type, T::Left | T::LeftSemi | T::LeftAnti | T::LeftMark);
        let right_first = matches!(plan.join_type, T::Right | T::RightSemi | T::RightAnti | T::RightMark);
        let inner = plan.join_type == T::Inner;
        let push_left = of_left || left_first || plan.join_type == T::Full || (inner && !of_right);
        let push_right = of_right || right_first || plan.join_type == T::Full;
        if plan.null_aware && push_right {
            return Err(refused("NOT IN in a correlated subquery"));
        }
        let left = if push_left { Some(trimmed(self.push(&plan.left, domain)?, &plan.left)?) } else { None };
        let mut right = if push_right { Some(trimmed(self.push(&plan.right, domain)?, &plan.right)?) } else { None };
        if plan.join_type == T::LeftMark {
            right = right.map(|right| under_mark(right, plan)).transpose()?;
        }
        let first = if right_first { right.as_ref().or(left.as_ref()) } else { left.as_ref().or(right.as_ref()) };
        let Some(first) = first else { return Err(refused("this correlated subquery")) };
        let mut keys = first.keys.clone();
        let mut on = vec![];
        for (l, r) in &plan.on {
            on.push((domain.replace(l.clone(), &keys)?, domain.replace(r.clone(), &keys)?));
        }
        let mut filter: Vec<Expr> = plan.filter.iter().flat_map(|f| split_conjunction(f)).cloned().collect();
        filter = filter.into_iter().map(|e| domain.replace(e, &keys)).collect::<Result<_>>()?;
        let mut nulls = plan.null_equality;
        if let (Some(l), Some(r)) = (&left, &right) {
            let equality = both(l.nulls, r.nulls);
            if equality == NullEquality::NullEqualsNull && nulls == NullEquality::NullEqualsNothing {
                filter.extend(on.iter().map(|(l, _)| l.clone().is_not_null()));
                nulls = equality;
            } else if on.is_empty() {
                nulls = equality;
            }
            let pairs = l.keys.iter().cloned().zip(r.keys.iter().cloned());
            on.extend(pairs.map(|(l, r)| (Expr::Column(l), Expr::Column(r))));
        }
        let key_nulls = match (&left, &right) {
            (Some(l), Some(r)) => both(l.nulls, r.nulls),
            _ => first.nulls,
        };
        let full = match (&left, &right) {
            (Some(l), Some(r)) if plan.join_type == T::Full => Some((l.keys.clone(), r.keys.clone())),
            _ => None,
        };
        let left = left.map_or_else(|| plan.left.as_ref().clone(), |p| p.plan);
        let right = right.map_or_else(|| plan.right.as_ref().clone(), |p| p.plan);
        let filter = filter.into_iter().reduce(Expr::and);
        let (left, right) = (Arc::new(left), Arc::new(right));
        let joined =
            Join::try_new(left, right, on, filter, plan.join_type, plan.join_constraint, nulls, plan.null_aware)?;
        let mut exprs: Vec<Expr> = plan.schema.columns().into_iter().map(Expr::Column).collect();
        if let Some((left, right)) = full {
            // A row without a partner has its values on one side only.
            let values = left.into_iter().zip(right);
            keys = keys.iter().map(|_| Column::new_unqualified(self.name("outer"))).collect();
            let either =
                |(l, r)| datafusion::functions::core::expr_fn::coalesce(vec![Expr::Column(l), Expr::Column(r)]);
            exprs.extend(values.map(either).zip(&keys).map(|(value, key)| value.alias(&key.name)));
        } else {
            exprs.extend(keys.iter().cloned().map(Expr::Column));
        }
        Ok(Pushed { plan: project(LogicalPlan::Join(joined), exprs)?, keys, nulls: key_nulls })
    }

    fn push_unnest(&mut self, unnest: &Unnest, domain: &Domain<'_>) -> Result<Pushed> {
        let Pushed { plan, keys, nulls } = self.push(&unnest.input, domain)?;
        let plan = LogicalPlanBuilder::from(plan)
            .unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?
            .build()?;
        Ok(Pushed { plan, keys, nulls })
    }

    /// Set-returning functions of each set's rows.
    fn push_flat_map(&mut self, flat_map: &FlatMap, domain: &Domain<'_>) -> Result<Pushed> {
        let input = self.push(&flat_map.input, domain)?;
        let Pushed { plan, keys, nulls } = trimmed(input, &flat_map.input)?;
        let calls = flat_map.calls.iter().map(|call| {
            let args = call.args.iter().map(|arg| domain.replace(arg.clone(), &keys)).collect::<Result<_>>()?;
            Ok(Call { args, ..call.clone() })
        });
        let calls = calls.collect::<Result<_>>()?;
        let filter = flat_map.filter.clone().map(|filter| domain.replace(filter, &keys)).transpose()?;
        let plan = flat_map.over(plan, calls, filter, &keys)?.into_plan();
        Ok(Pushed { plan, keys, nulls })
    }

    /// LIMIT and OFFSET within each set of values, in the order of the Sort below, which may stand under projections.
    fn first_rows(&mut self, plan: &LogicalPlan, bounds: &Bounds, domain: &Domain<'_>) -> Result<Pushed> {
        match plan {
            LogicalPlan::Sort(sort) => {
                let bounds_of_sort = sort.fetch.map(|n| Bounds { skip: None, fetch: Some(lit(n as i64)) });
                let mut input = self.push(&sort.input, domain)?;
                let order = sort
                    .expr
                    .iter()
                    .map(|key| Ok(SortExpr { expr: domain.replace(key.expr.clone(), &input.keys)?, ..key.clone() }));
                let order: Vec<SortExpr> = order.collect::<Result<_>>()?;
                for bounds in bounds_of_sort.iter().chain([bounds]) {
                    input = self.numbered(input, &sort.input, vec![], &order, bounds, domain)?;
                }
                Ok(input)
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.push_distinct_on(distinct, Some(bounds), domain),
            LogicalPlan::Projection(projection) if has_sort(&projection.input) => {
                let input = self.first_rows(&projection.input, bounds, domain)?;
                projected(projection, input, domain)
            }
            LogicalPlan::SubqueryAlias(alias) if has_sort(&alias.input) => {
                aliased(alias, self.first_rows(&alias.input, bounds, domain)?)
            }
            other => {
                let input = self.push(other, domain)?;
                self.numbered(input, other, vec![], &[], bounds, domain)
            }
        }
    }

    /// The rows whose number within their set, and within `groups`, is in bounds. `rows` tells the columns that break ties, so that it is
    /// always the same rows.
    fn numbered(
        &mut self,
        input: Pushed,
        rows: &LogicalPlan,
        groups: Vec<Expr>,
        order: &[SortExpr],
        bounds: &Bounds,
        domain: &Domain<'_>,
    ) -> Result<Pushed> {
        let Pushed { plan, keys, nulls } = input;
        let ties = rows.schema().columns().into_iter().map(|c| Expr::Column(c).sort(true, false));
        let order: Vec<SortExpr> = order.iter().cloned().chain(ties).collect();
        let partition = keys.iter().cloned().map(Expr::Column).chain(groups).collect();
        let number = Column::new_unqualified(self.name("number"));
        let function = crate::windows::function::row_number().partition_by(partition).order_by(order).build()?;
        let names: Vec<_> = qualified(plan.schema());
        let window = Window::try_new(vec![function.alias(&number.name)], Arc::new(plan))?;
        let conditions = bounds.conditions(&number, |e| domain.replace(e, &keys))?;
        let plan = only(filtered(LogicalPlan::Window(window), conditions)?, &names)?;
        Ok(Pushed { plan, keys, nulls })
    }
}

/// LIMIT and OFFSET.
struct Bounds {
    skip: Option<Expr>,
    fetch: Option<Expr>,
}

impl Bounds {
    fn of(limit: &Limit) -> Result<Bounds> {
        let skip = match limit.get_skip_type()? {
            SkipType::Literal(0) => None,
            SkipType::Literal(n) => Some(lit(n as i64)),
            SkipType::UnsupportedExpr => limit.skip.as_deref().cloned(),
        };
        let fetch = match limit.get_fetch_type()? {
            FetchType::Literal(n) => n.map(|n| lit(n as i64)),
            FetchType::UnsupportedExpr => limit.fetch.as_deref().cloned(),
        };
        Ok(Bounds { skip, fetch })
    }

    fn conditions(&self, number: &Column, replace: impl Fn(Expr) -> Result<Expr>) -> Result<Vec<Expr>> {
        let constant = |e: &Expr| match e {
            Expr::Literal(ScalarValue::Int64(Some(n)), _) => Some(*n).filter(|n| *n >= 0),
            _ => None,
        };
        let number = Expr::Column(number.clone());
        let skip = self.skip.as_ref().map_or(Some(0), constant);
        let fetch = self.fetch.as_ref().map_or(Some(i64::MAX), constant);
        if let (Some(skip), Some(fetch)) = (skip, fetch) {
            // Also where there is only an OFFSET, for a view to know a top-N by it.
            let last = skip.saturating_add(fetch);
            let mut all = vec![number.clone().lt_eq(lit(last))];
            if skip > 0 {
                all.push(number.gt(lit(skip)));
            }
            return Ok(all);
        }
        let bigint = arrow::datatypes::DataType::Int64;
        let or_zero = |e: Expr| datafusion::functions::core::expr_fn::coalesce(vec![e, lit(0i64)]);
        let skip = self.skip.clone().map(&replace).transpose()?.map(|e| or_zero(cast(e, bigint.clone())));
        let fetch = self.fetch.clone().map(&replace).transpose()?.map(|e| cast(e, bigint.clone()));
        let mut all = vec![];
        if let Some(skip) = &skip {
            all.push(number.clone().gt(skip.clone()));
        }
        if let Some(fetch) = fetch {
            let before = skip.unwrap_or_else(|| lit(0i64));
            all.push(fetch.clone().is_null().or((number - before).lt_eq(fetch)));
        }
        Ok(all)
    }
}

fn empty_schema() -> Arc<DFSchema> {
    Arc::new(DFSchema::empty())
}

fn refused(what: &str) -> DataFusionError {
    to_datafusion(SqlError::unsupported(what))
}

fn both(a: NullEquality, b: NullEquality) -> NullEquality {
    if a == NullEquality::NullEqualsNull { a } else { b }
}

/// `values` in the place of what the expression refers to.
fn in_place(expr: Expr, domain: &Domain<'_>, values: &[Expr]) -> Result<Expr> {
    domain.scope.replace(expr, &|value| {
        let idx = domain.values.iter().position(|v| v == value)?;
        values.get(idx).cloned()
    })
}

/// What an aggregate is over no rows, where that is not NULL.
pub(super) fn or_empty(column: Expr, expr: &Expr, aggregate: &Aggregate) -> Result<Expr> {
    let Expr::AggregateFunction(call) = expr.clone().unalias() else { return Ok(column) };
    let data_type = expr.get_type(aggregate.input.schema())?;
    let empty = match call.func.name() {
        "count" | "regr_count" | "approx_distinct" => ScalarValue::new_zero(&data_type)?,
        _ => call.func.default_value(&data_type)?,
    };
    if empty.is_null() {
        return Ok(column);
    }
    Ok(datafusion::functions::core::expr_fn::coalesce(vec![column, lit(empty)]))
}

fn projected(projection: &Projection, input: Pushed, domain: &Domain<'_>) -> Result<Pushed> {
    let mut exprs = vec![];
    for (expr, (qualifier, field)) in projection.expr.iter().zip(projection.schema.iter()) {
        exprs.push(output(domain.replace(expr.clone(), &input.keys)?, qualifier, field.name()));
    }
    exprs.extend(input.keys.iter().cloned().map(Expr::Column));
    Ok(Pushed { plan: project(input.plan, exprs)?, ..input })
}

fn aliased(alias: &SubqueryAlias, input: Pushed) -> Result<Pushed> {
    let Pushed { plan, keys, nulls } = trimmed(input, &alias.input)?;
    let keys = keys.into_iter().map(|key| Column::new(Some(alias.alias.clone()), key.name)).collect();
    let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias.alias.clone())?);
    Ok(Pushed { plan, keys, nulls })
}

/// Exactly the columns of `rows`, and the keys.
fn trimmed(input: Pushed, rows: &LogicalPlan) -> Result<Pushed> {
    let keys = input.keys.iter().map(|k| (k.relation.clone(), k.name.clone()));
    let names: Vec<(Option<TableReference>, String)> = qualified(rows.schema()).into_iter().chain(keys).collect();
    Ok(Pushed { plan: only(input.plan, &names)?, ..input })
}

/// The rows of a recursion's relation, which has the keys `fields` too, that have the set `values`.
fn of_own_set(
    scan: &TableScan,
    name: &str,
    schema: &Schema,
    fields: &[FieldRef],
    values: &[Expr],
) -> Result<LogicalPlan> {
    let columns = schema.fields().iter().chain(fields).cloned().collect::<Vec<_>>();
    let source = work_source(name, Arc::new(Schema::new(columns)));
    let rows = LogicalPlan::TableScan(TableScanBuilder::new(scan.table_name.clone(), source).build()?);
    let same = fields.iter().zip(values).map(|(field, value)| {
        let key = Expr::Column(Column::new(Some(scan.table_name.clone()), field.name()));
        binary_expr(key, Operator::IsNotDistinctFrom, value.clone())
    });
    only(filtered(rows, same.collect())?, &qualified(&scan.projected_schema))
}

/// The right side of a mark join with its keys under the name of its columns. A mark has the name that all columns of the right
/// have, and which of those stay is the optimizer's choice.
fn under_mark(right: Pushed, join: &Join) -> Result<Pushed> {
    let mark = join.schema.iter().last().and_then(|(qualifier, _)| qualifier.cloned());
    let keys: Vec<Column> = right.keys.iter().map(|key| Column::new(mark.clone(), &key.name)).collect();
    let columns = qualified(join.right.schema()).into_iter().map(|(q, name)| Expr::Column(Column::new(q, name)));
    let as_keys = right.keys.into_iter().map(|key| {
        let name = key.name.clone();
        output(Expr::Column(key), mark.as_ref(), &name)
    });
    Ok(Pushed { plan: project(right.plan, columns.chain(as_keys).collect())?, keys, nulls: right.nulls })
}

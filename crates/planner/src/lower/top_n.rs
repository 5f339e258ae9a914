//! ORDER BY .. LIMIT, DISTINCT ON, and `row_number() <= n`: the first rows of each partition.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Distinct, DistinctOn, Expr, FetchType, Filter, Limit, LogicalPlan, Operator, SkipType, Sort, Window,
    cast, lit,
};
use tidewire_operators::Plan;
use tidewire_operators::top_n::{SortKey, TopN};
use tidewire_types::{Result, SqlError};

use super::{Lowering, Relation, not_maintained, qualified, unaliased};
use crate::dataflow::NodeKind;
use crate::errors::planning_error;
use crate::windows::spec::{frame_of, names, stacked, tie_break_columns};

/// Which rows of a partition stay.
#[derive(Clone, Copy)]
pub(super) struct Range {
    offset: u64,
    limit: Option<u64>,
}

impl Lowering<'_> {
    pub(super) fn limit(&mut self, plan: &Limit) -> Result<Relation> {
        let constant = |e| planning_error(e, self.text);
        let offset = match plan.get_skip_type().map_err(constant)? {
            SkipType::Literal(n) => n as u64,
            SkipType::UnsupportedExpr => return Err(not_maintained("an OFFSET that is no constant")),
        };
        let limit = match plan.get_fetch_type().map_err(constant)? {
            FetchType::Literal(n) => n.map(|n| n as u64),
            FetchType::UnsupportedExpr => return Err(not_maintained("a LIMIT that is no constant")),
        };
        self.first_rows(&plan.input, Range { offset, limit })
    }

    pub(super) fn sort_with_fetch(&mut self, sort: &Sort) -> Result<Relation> {
        let input = self.lower(&sort.input)?;
        let limit = sort.fetch.map(|n| n as u64);
        self.top_n(input, &[], &sort.expr, Range { offset: 0, limit })
    }

    /// The first rows in the order of the Sort below, which may stand under projections.
    fn first_rows(&mut self, plan: &LogicalPlan, range: Range) -> Result<Relation> {
        match plan {
            LogicalPlan::Sort(sort) => {
                let input = match sort.fetch {
                    None => self.lower(&sort.input)?,
                    Some(_) => self.sort_with_fetch(sort)?,
                };
                self.top_n(input, &[], &sort.expr, range)
            }
            LogicalPlan::Projection(projection) if has_sort(&projection.input) => {
                let input = self.first_rows(&projection.input, range)?;
                self.projection(projection, input)
            }
            LogicalPlan::SubqueryAlias(alias) if has_sort(&alias.input) => {
                let input = self.first_rows(&alias.input, range)?;
                self.alias(alias, input)
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(distinct, Some(range)),
            // Any rows will do, but always the same ones: the order is that of all columns.
            other => {
                let input = self.lower(other)?;
                self.top_n(input, &[], &[], range)
            }
        }
    }

    /// DISTINCT ON (on) select .. ORDER BY sort; the ORDER BY is that of a LIMIT as well.
    pub(super) fn distinct_on(&mut self, plan: &DistinctOn, limit: Option<Range>) -> Result<Relation> {
        let input = self.lower(&plan.input)?;
        let on: Vec<&Expr> = plan.on_expr.iter().collect();
        let sort = plan.sort_expr.as_deref().unwrap_or_default();
        let mut input = self.top_n(input, &on, sort, Range { offset: 0, limit: Some(1) })?;
        if let Some(range) = limit {
            input = self.top_n(input, &[], sort, range)?;
        }
        let (exprs, input) = self.with_scalars(plan.select_expr.clone(), input)?;
        self.project(&input, &exprs, qualified(&plan.schema))
    }

    fn top_n(&mut self, input: Relation, partition_by: &[&Expr], sort: &[SortExpr], range: Range) -> Result<Relation> {
        let exprs: Vec<Expr> =
            partition_by.iter().map(|e| (*e).clone()).chain(sort.iter().map(|s| s.expr.clone())).collect();
        let (exprs, input) = self.with_scalars(exprs, input)?;
        let (input, columns) = self.columns(input, &exprs.iter().collect::<Vec<_>>())?;
        let (partition_by, sort_columns) = columns.split_at(partition_by.len().min(columns.len()));
        let order_by = sort_columns
            .iter()
            .zip(sort)
            .map(|(column, s)| SortKey { column: *column, descending: !s.asc, nulls_first: s.nulls_first })
            .collect();
        let before = self.properties(&input);
        let schema = self.schema(&input);
        let properties = before.top_n(partition_by, range.limit);
        let operator = TopN {
            partition_by: partition_by.to_vec(),
            order_by,
            offset: range.offset,
            limit: range.limit,
            append_only: before.append_only,
            schema: schema.clone(),
        };
        let node = self.push(NodeKind::Operator(Plan::TopN(operator)), vec![input.node], schema, properties);
        Ok(Relation { node, columns: input.columns })
    }

    /// `row_number() OVER (PARTITION BY .. ORDER BY ..) <= n`. The numbers themselves are those of the rows that stay.
    /// None: another filter.
    pub(super) fn row_number(&mut self, filter: &Filter) -> Result<Option<Relation>> {
        let conjuncts = split_conjunction(&filter.predicate);
        let bound = conjuncts.iter().enumerate().find_map(|(idx, e)| bound(e).map(|(column, n)| (idx, column, n)));
        let Some((idx, column, limit)) = bound else { return Ok(None) };
        let Some((window, number)) = window_under(&filter.input, column) else { return Ok(None) };
        let relation = self.lower(&window.input)?;
        let Expr::WindowFunction(function) = unaliased(number) else { return Ok(None) };
        let params = &function.params;
        let (partition_by, _) = frame_of(&params.partition_by)?;
        let partition_by: Vec<&Expr> = partition_by.iter().collect();
        // Ties are broken as the window itself breaks them.
        let (_, base) = stacked(window);
        let is_settled =
            |column: &Expr| params.order_by.iter().any(|key| key.expr == *column) || partition_by.contains(&column);
        let ties = tie_break_columns(base.schema()).into_iter().filter(|column| !is_settled(column));
        let ties = ties.map(|column| column.sort(true, false));
        let order: Vec<SortExpr> = params.order_by.iter().cloned().chain(ties).collect();
        let relation = self.top_n(relation, &partition_by, &order, Range { offset: 0, limit: Some(limit) })?;
        let relation = self.above_window(&filter.input, relation, limit == 1)?;
        let rest: Vec<Expr> =
            conjuncts.iter().enumerate().filter(|(i, _)| *i != idx).map(|(_, e)| (*e).clone()).collect();
        match rest.into_iter().reduce(Expr::and) {
            None => Ok(Some(relation)),
            Some(rest) => self.filter(&rest, relation).map(Some),
        }
    }

    /// Applies what stands between the filter and the window, and the window itself; `is_one`: the number is always 1.
    fn above_window(&mut self, plan: &LogicalPlan, input: Relation, is_one: bool) -> Result<Relation> {
        match plan {
            LogicalPlan::Window(window) if is_one => {
                let mut exprs: Vec<Expr> = input.columns.iter().map(Expr::from).collect();
                let mut fields = qualified(&input.columns);
                let number = qualified(&window.schema).pop();
                // DataFusion's own row_number(), which subqueries are planned with, is unsigned.
                if let Some((_, field)) = &number {
                    exprs.push(cast(lit(1i64), field.data_type().clone()));
                }
                fields.extend(number);
                self.project(&input, &exprs, fields)
            }
            LogicalPlan::Window(window) => {
                let (schema, (_, base)) = (window.input.schema(), stacked(window));
                let input = self.by_position(input, schema, &qualified(schema))?;
                self.windows_over(&window.window_expr, &window.schema, &names(base.schema()), input)
            }
            LogicalPlan::Projection(projection) => {
                let input = self.above_window(&projection.input, input, is_one)?;
                self.projection(projection, input)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.above_window(&alias.input, input, is_one)?;
                self.alias(alias, input)
            }
            _ => Err(SqlError::internal("no window under a row number")),
        }
    }
}

/// Whether the rows have an order that LIMIT goes by.
pub(crate) fn has_sort(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => has_sort(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_sort(&alias.input),
        LogicalPlan::Distinct(Distinct::On(distinct)) => distinct.sort_expr.is_some(),
        _ => false,
    }
}

/// `column <= n`, `column < n`, `column = 1`: the column and the largest number that stays.
fn bound(expr: &Expr) -> Option<(&Column, u64)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    let (Expr::Column(column), Expr::Literal(value, _)) = (left.as_ref(), right.as_ref()) else { return None };
    let ScalarValue::Int64(Some(n)) = value.cast_to(&arrow::datatypes::DataType::Int64).ok()? else { return None };
    let n = u64::try_from(n).ok()?;
    match op {
        Operator::LtEq => Some((column, n)),
        Operator::Lt => Some((column, n.checked_sub(1)?)),
        Operator::Eq if n == 1 => Some((column, 1)),
        _ => None,
    }
}

/// The window below projections whose only function is the row number behind `column`.
fn window_under<'p>(plan: &'p LogicalPlan, column: &Column) -> Option<(&'p Window, &'p Expr)> {
    match plan {
        LogicalPlan::Window(window) => {
            let [only] = window.window_expr.as_slice() else { return None };
            let number = window.schema.columns().pop()?;
            let is_row_number = matches!(
                unaliased(only),
                Expr::WindowFunction(f) if is_row_number(f)
            );
            (number == *column && is_row_number).then_some((window, only))
        }
        LogicalPlan::Projection(projection) => {
            let idx = projection.schema.maybe_index_of_column(column)?;
            match unaliased(projection.expr.get(idx)?) {
                Expr::Column(inner) => window_under(&projection.input, inner),
                _ => None,
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let idx = alias.schema.maybe_index_of_column(column)?;
            let inner = alias.input.schema().columns().into_iter().nth(idx)?;
            window_under(&alias.input, &inner)
        }
        _ => None,
    }
}

fn is_row_number(function: &WindowFunction) -> bool {
    function.fun.name() == "row_number" && function.params.filter.is_none()
}

//! GROUP BY and DISTINCT: keys, arguments and filters become plain columns of the operator's input.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, NullTreatment};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};
use tidewire_operators::Plan;
use tidewire_operators::aggregate::functions::function_of;
use tidewire_operators::aggregate::{self, Call, Function};
use tidewire_operators::top_n::SortKey;
use tidewire_types::{Result, SqlError};

use super::{Lowering, Relation, dfschema, not_maintained, nullable, qualified, unaliased};
use crate::dataflow::NodeKind;
use crate::errors::planning_error;

/// The columns that an aggregate reads, each once.
struct Needed(Vec<Expr>);

impl Needed {
    fn index(&mut self, expr: &Expr) -> usize {
        let expr = unaliased(expr);
        match self.0.iter().position(|e| e == expr) {
            Some(idx) => idx,
            None => {
                self.0.push(expr.clone());
                self.0.len() - 1
            }
        }
    }
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, plan: &Aggregate) -> Result<Relation> {
        let input = self.lower(&plan.input)?;
        let (exprs, input) = {
            let all = plan.group_expr.iter().chain(&plan.aggr_expr).cloned().collect();
            self.with_scalars(all, input)?
        };
        let (group, aggregates) = exprs.split_at(plan.group_expr.len().min(exprs.len()));
        let mut needed = Needed(vec![]);
        let mut keys: Vec<usize> = group.iter().map(|e| needed.index(e)).collect();
        let fields = plan.schema.fields().iter().skip(group.len());
        let mut calls: Vec<Call> =
            aggregates.iter().zip(fields).map(|(e, field)| call(e, field, &mut needed)).collect::<Result<_>>()?;

        let (input, places) = self.needed(input, &needed.0)?;
        let place = |idx: &mut usize| *idx = places.get(*idx).copied().unwrap_or(*idx);
        keys.iter_mut().for_each(place);
        for call in &mut calls {
            call.args.iter_mut().for_each(place);
            call.filter.iter_mut().for_each(place);
            call.order_by.iter_mut().for_each(|key| place(&mut key.column));
        }

        let columns = dfschema(qualified(&plan.schema))?;
        // A constant key tells no groups apart.
        let is_constant = |e: &Expr| matches!(unaliased(e), Expr::Literal(..));
        let telling = group.iter().zip(&keys).enumerate().filter(|(_, (e, _))| !is_constant(e));
        let telling: Vec<(usize, usize)> = telling.map(|(idx, (_, key))| (idx, *key)).collect();
        let n_calls = calls.len();
        let before = self.properties(&input);
        let schema = nullable(columns.as_arrow());
        let (append_only, rows) = (before.append_only, self.schema(&input));
        let operator = aggregate::Aggregate { keys, calls, append_only, input: rows, schema: schema.clone() };
        let properties = before.aggregate(&telling, n_calls);
        let node = self.push(NodeKind::Operator(Plan::Aggregate(operator)), vec![input.node], schema, properties);
        Ok(Relation { node, columns })
    }

    /// Makes columns of `exprs`: nothing to do where they are columns already, else a projection to just them.
    fn needed(&mut self, input: Relation, exprs: &[Expr]) -> Result<(Relation, Vec<usize>)> {
        let plain: Option<Vec<usize>> = exprs
            .iter()
            .map(|e| match e {
                Expr::Column(column) => input.columns.maybe_index_of_column(column),
                _ => None,
            })
            .collect();
        if let Some(places) = plain {
            return Ok((input, places));
        }
        let mut fields = vec![];
        for expr in exprs {
            let (qualifier, field) = expr.to_field(input.columns.as_ref()).map_err(|e| planning_error(e, self.text))?;
            let field = match expr {
                Expr::Column(_) => field,
                _ => Arc::new(field.as_ref().clone().with_name(self.hidden())),
            };
            fields.push((qualifier, field));
        }
        let relation = self.project(&input, exprs, fields)?;
        Ok((relation, (0..exprs.len()).collect()))
    }

    pub(super) fn distinct(&mut self, plan: &LogicalPlan) -> Result<Relation> {
        let input = self.lower(plan)?;
        let input = self.by_position(input, plan.schema(), &qualified(plan.schema()))?;
        let before = self.properties(&input);
        if !before.unique_keys.is_empty() {
            // No two rows are equal.
            return Ok(input);
        }
        let keys: Vec<usize> = (0..self.schema(&input).fields().len()).collect();
        let schema = nullable(&self.schema(&input));
        let properties = before.aggregate(&keys.iter().map(|key| (*key, *key)).collect::<Vec<_>>(), 0);
        let (append_only, rows) = (before.append_only, self.schema(&input));
        let operator = aggregate::Aggregate { keys, calls: vec![], append_only, input: rows, schema: schema.clone() };
        let node = self.push(NodeKind::Operator(Plan::Aggregate(operator)), vec![input.node], schema, properties);
        Ok(Relation { node, columns: input.columns })
    }
}

fn call(expr: &Expr, field: &Field, needed: &mut Needed) -> Result<Call> {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = unaliased(expr) else {
        return Err(SqlError::internal("an aggregate without a function"));
    };
    let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
    let function = function_of(func);
    let ignore_nulls = *null_treatment == Some(NullTreatment::IgnoreNulls);
    let constant = |e: &Expr| matches!(unaliased(e), Expr::Literal(value, _) if !value.is_null());
    let args = match &function {
        // count(*) is count(1) by now.
        Function::Count if args.iter().all(constant) && !distinct => vec![],
        // A fraction: DataFusion's own functions take constants behind the first argument.
        Function::Other(_) if args.first().is_some_and(constant) => {
            return Err(not_maintained(&format!("{}() of a constant", func.name())));
        }
        _ => args.iter().map(|e| needed.index(e)).collect(),
    };
    // The order of rows does not change the others.
    let order_by = match &function {
        Function::List(_) | Function::Ordered(_) | Function::Other(_) => order_by
            .iter()
            .map(|key| SortKey { column: needed.index(&key.expr), descending: !key.asc, nulls_first: key.nulls_first })
            .collect(),
        _ => vec![],
    };
    let filter = filter.as_deref().map(|e| needed.index(e));
    let field = Arc::new(field.clone().with_nullable(true));
    Ok(Call { function, args, distinct: *distinct, filter, order_by, ignore_nulls, field })
}

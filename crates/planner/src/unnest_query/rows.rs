//! Row values: `(a, b) IN (SELECT x, y ..)`.
//!
//! DataFusion compares one column. [`crate::rewrite`] makes a call of [`row_function`] of the values on either side,
//! which is taken apart here before anything computes it.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    binary_expr, cast,
};
use sqlparser::ast::{TableAlias, TableFactor};
use tidewire_types::{SqlError, SqlState};

use super::project;
use crate::provider::to_datafusion;
use crate::rewrite::ARRAY_ITEM;

/// The function's name, which no user's function can have.
pub(crate) const ROW: &str = "row of values";

static FUNCTION: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Row { signature: Signature::variadic_any(Volatility::Immutable) })));

/// The function of that name, if it is the one that makes rows.
pub(crate) fn row_function(name: &str) -> Option<Arc<ScalarUDF>> {
    (name == ROW).then(|| FUNCTION.clone())
}

/// Plans the subqueries that rows are compared with, and those of ARRAY(query). DataFusion would say of their columns only
/// that aliases are wrong, and nothing where there are more columns than names.
#[derive(Debug)]
pub(crate) struct RowPlanner;

impl RelationPlanner for RowPlanner {
    fn plan_relation(&self, relation: TableFactor, cx: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let TableFactor::Derived { lateral, subquery, alias: Some(alias), sample: None } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let is_array = alias.name.value == ARRAY_ITEM;
        if alias.name.value != ROW && !is_array {
            let alias = Some(alias);
            let relation = TableFactor::Derived { lateral, subquery, alias, sample: None };
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let plan = cx.plan(TableFactor::Derived { lateral, subquery, alias: None, sample: None })?;
        let columns = plan.schema().columns();
        if columns.len() != alias.columns.len() {
            let message = match (is_array, columns.len() < alias.columns.len()) {
                (true, _) => "subquery must return only one column",
                (false, true) => "subquery has too few columns",
                (false, false) => "subquery has too many columns",
            };
            return Err(to_datafusion(SqlError::new(SqlState::SyntaxError, message)));
        }
        let named = columns.into_iter().zip(&alias.columns);
        let named = named.map(|(column, name)| Expr::Column(column).alias(&name.name.value)).collect();
        let plan = project(plan, named)?;
        let alias = Some(TableAlias { columns: vec![], ..alias });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The values of a row, as they are compared.
pub(super) fn elements(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Alias(alias) => elements(&alias.expr),
        Expr::Cast(outer) => {
            let values = elements(&outer.expr)?;
            let DataType::Struct(fields) = outer.field.data_type() else { return None };
            Some(values.into_iter().zip(fields).map(|(v, f)| cast(v, f.data_type().clone())).collect())
        }
        Expr::ScalarFunction(call) if call.func.name() == ROW => Some(call.args.clone()),
        _ => None,
    }
}

/// A subquery of rows with their values as columns. Errors: `42601` where their number is not `n`.
pub(super) fn columns(plan: LogicalPlan, n: usize) -> Result<(LogicalPlan, Vec<Expr>)> {
    let values = match &plan {
        LogicalPlan::Projection(projection) => match projection.expr.as_slice() {
            [only] => match elements(only) {
                Some(values) => Some((projection.input.as_ref().clone(), values)),
                None => through_cast(only, &projection.input),
            },
            _ => None,
        },
        _ => None,
    };
    let Some((input, values)) = values.filter(|(_, values)| values.len() == n) else {
        let message = "unequal number of entries in row expressions";
        return Err(to_datafusion(SqlError::new(SqlState::SyntaxError, message)));
    };
    let named = values.into_iter().enumerate().map(|(idx, value)| value.unalias().alias(format!("row\u{1}{idx}")));
    let plan = project(input, named.collect())?;
    let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
    Ok((plan, columns))
}

/// A projection that only casts the row below it.
fn through_cast(expr: &Expr, input: &LogicalPlan) -> Option<(LogicalPlan, Vec<Expr>)> {
    let Expr::Cast(outer) = expr.clone().unalias() else { return None };
    let LogicalPlan::Projection(below) = input else { return None };
    let [only] = below.expr.as_slice() else { return None };
    let values = elements(only)?;
    let DataType::Struct(fields) = outer.field.data_type() else { return None };
    let values = values.into_iter().zip(fields).map(|(v, f)| cast(v, f.data_type().clone())).collect();
    Some((below.input.as_ref().clone(), values))
}

/// `outer op inner`, for rows from the left to the right.
pub(super) fn comparison(op: Operator, outer: &[Expr], inner: &[Expr]) -> Expr {
    let pairs: Vec<(Expr, Expr)> = outer.iter().cloned().zip(inner.iter().cloned()).collect();
    let strict = match op {
        Operator::LtEq => Operator::Lt,
        Operator::GtEq => Operator::Gt,
        other => other,
    };
    let mut pairs = pairs.into_iter().rev();
    let last = pairs.next().map(|(o, i)| binary_expr(o, op, i));
    let whole = last.map(|last| {
        pairs.fold(last, |rest, (o, i)| match op {
            Operator::Eq => o.eq(i).and(rest),
            Operator::NotEq => o.not_eq(i).or(rest),
            _ => binary_expr(o.clone(), strict, i.clone()).or(o.eq(i).and(rest)),
        })
    });
    whole.unwrap_or_else(|| datafusion::logical_expr::lit(true))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Row {
    signature: Signature,
}

impl ScalarUDFImpl for Row {
    fn name(&self) -> &str {
        ROW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let fields = types.iter().enumerate().map(|(idx, t)| Field::new(format!("f{}", idx + 1), t.clone(), true));
        Ok(DataType::Struct(Fields::from_iter(fields)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Struct(fields) = args.return_field.data_type() else {
            return internal_err!("a row that is no struct");
        };
        let columns = args.args.into_iter().map(|arg| arg.into_array(args.number_rows));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let fields = fields.clone();
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new_with_length(fields, columns, None, args.number_rows)?)))
    }
}

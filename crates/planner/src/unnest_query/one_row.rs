//! The value of a subquery that should have one row: an error where it has more, and only where it is asked for.
//!
//! In a query that is an error of the function which gives the value. In a view the rows for which it would be one are told
//! apart before ([`asked`]), and the value is given without a look ([`given`]).

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, new_null_array};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility, lit,
};
use tidewire_operators::assert::several_rows;

use super::rows::{ROW, row_function};
use super::scalar::{at_most_one, one_of};
use crate::column_names::map_named;
use crate::provider::to_datafusion;

static ONLY: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Only { signature: Signature::any(2, Volatility::Immutable) })));

/// The first of (value, number of rows). Errors while it runs: `21000`, where there are several rows.
pub(crate) fn only_row(args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(ONLY.clone(), args))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Only {
    signature: Signature,
}

impl ScalarUDFImpl for Only {
    fn name(&self) -> &str {
        "only row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields.first() {
            // With the metadata, which says what type it is in SQL.
            Some(value) => Ok(Arc::new(value.as_ref().clone().with_nullable(true))),
            None => internal_err!("a subquery without a value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Ok([value, n_rows]) = <[ColumnarValue; 2]>::try_from(args.args) else {
            return internal_err!("a subquery without a value");
        };
        let n_rows = n_rows.into_array(args.number_rows)?;
        if n_rows.as_primitive::<Int64Type>().iter().flatten().any(|n| n > 1) {
            return Err(to_datafusion(several_rows()));
        }
        Ok(value)
    }
}

/// The arguments of [`only_row`]: the value and how many rows there are.
fn checked(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::ScalarFunction(call) if call.func.inner().is::<Only>() => Some(&call.args),
        _ => None,
    }
}

/// For which rows the expression asks for the value of a subquery with several rows. None: it never does.
pub(crate) fn asked(expr: &Expr) -> Result<Option<Expr>> {
    if !super::contains(expr, |e| checked(e).is_some()) {
        return Ok(None);
    }
    if let Some([value, n_rows]) = checked(expr) {
        return Ok(either(asked(value)?, Some(given(n_rows.clone())?.gt(lit(1i64)))));
    }
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let left_value = Box::new(given(left.as_ref().clone())?);
            let is_open = match op {
                Operator::And => Expr::IsNotFalse(left_value),
                _ => Expr::IsNotTrue(left_value),
            };
            Ok(either(asked(left)?, asked(right)?.map(|right| is_open.and(right))))
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            // From the last branch to the first: each is reached where those before it are not taken.
            let mut found = else_expr.as_deref().map(asked).transpose()?.flatten();
            for (when, then) in when_then_expr.iter().rev() {
                let condition = match expr {
                    Some(expr) => expr.as_ref().clone().eq(when.as_ref().clone()),
                    None => when.as_ref().clone(),
                };
                let is_taken = given(condition)?;
                let is_not_taken = Expr::IsNotTrue(Box::new(is_taken.clone()));
                let of_then = asked(then)?.map(|then| is_taken.and(then));
                found = either(either(asked(when)?, of_then), found.map(|found| is_not_taken.and(found)));
            }
            Ok(either(expr.as_deref().map(asked).transpose()?.flatten(), found))
        }
        other => {
            let mut found = None;
            other.apply_children(|child| {
                found = either(found.take(), asked(child)?);
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(found)
        }
    }
}

fn either(left: Option<Expr>, right: Option<Expr>) -> Option<Expr> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.or(right)),
        (left, right) => left.or(right),
    }
}

/// The expression for rows that [`asked`] does not name.
pub(crate) fn given(expr: Expr) -> Result<Expr> {
    let given = expr.transform_up(|expr| match checked(&expr) {
        Some([value, ..]) => Ok(Transformed::yes(value.clone())),
        _ => Ok(Transformed::no(expr)),
    });
    given.map(|given| given.data)
}

/// A query whose uncorrelated subqueries are refused for a second row where their value is asked for. DataFusion runs
/// them before everything else, also those in a CASE branch that no row takes.
pub(crate) fn when_asked(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        map_named(plan, |expr| {
            expr.transform_up(|expr| match expr {
                Expr::ScalarSubquery(subquery) if !at_most_one(&subquery.subquery) => {
                    of_first_rows(subquery).map(Transformed::yes)
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })
    .map(|t| t.data)
}

/// The subquery's value and the number of its rows as one value, and what the value is of it.
fn of_first_rows(subquery: Subquery) -> Result<Expr> {
    let schema = Arc::clone(subquery.subquery.schema());
    let (Some((qualifier, field)), Some(row)) = (schema.iter().next(), row_function(ROW)) else {
        return Ok(Expr::ScalarSubquery(subquery));
    };
    let value = one_of(Expr::from((qualifier, field)), &schema)?;
    let field = Arc::new(field.as_ref().clone().with_nullable(true));
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .limit(0, Some(2))?
        .aggregate(Vec::<Expr>::new(), [value.alias("value"), count(lit(1i64)).alias("count")])?;
    let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let pair = Expr::ScalarFunction(ScalarFunction::new_udf(row, columns)).alias("pair");
    let pair = Subquery { subquery: Arc::new(plan.project([pair])?.build()?), ..subquery };
    let udf = ScalarUDF::from(Asked { field, signature: Signature::any(1, Volatility::Immutable) });
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(udf), vec![Expr::ScalarSubquery(pair)])))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    field: FieldRef,
    signature: Signature,
}

impl ScalarUDFImpl for Asked {
    fn name(&self) -> &str {
        "only row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.number_rows == 0 {
            return Ok(ColumnarValue::Array(new_null_array(self.field.data_type(), 0)));
        }
        let pairs = args.args.into_iter().next().map(|pair| pair.into_array(args.number_rows)).transpose()?;
        let Some(pairs) = pairs.as_ref().and_then(|pairs| pairs.as_struct_opt()) else {
            return internal_err!("a subquery without a value");
        };
        let [value, n_rows] = pairs.columns() else { return internal_err!("a subquery without a value") };
        match n_rows.as_primitive::<Int64Type>().values().iter().any(|n| *n > 1) {
            true => Err(to_datafusion(several_rows())),
            false => Ok(ColumnarValue::Array(Arc::clone(value))),
        }
    }
}

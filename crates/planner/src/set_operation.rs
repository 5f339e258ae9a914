//! EXCEPT and INTERSECT, with and without ALL, as bags: a row that is l times in the left input and r times in the
//! right one comes out max(l - r, 0) or min(l, r) times, without ALL once or not at all. NULLs are equal.
//!
//! DataFusion makes semi and anti joins of them, which count copies wrongly and give the result the left side's types.
//! Here the AST gets a UNION ALL under a name that says what it stands for, so that DataFusion finds the types; the
//! plan of that then counts each row of both sides in one GROUP BY. For a view that is one aggregate of two counts a
//! row, and copies are weights.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinConstraint, Result, ScalarValue, TableReference};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, SubqueryAlias, lit, when};
use sqlparser::ast::{Ident, SetExpr, SetOperator, SetQuantifier};
use tidewire_types::{SqlError, SqlType};

use crate::column_names::visible;
use crate::dml::{all_of, taken};
use crate::flat_map::{Call, FlatMap};
use crate::functions::sets;
use crate::planned_types::in_operand;
use crate::provider::to_datafusion;
use crate::type_classes::check_one_type;

/// Begins the names of the unions that stand for other operations.
const PREFIX: &str = "set operation\u{1}";
const EXCEPT: &str = "except";
const INTERSECT: &str = "intersect";
const ALL: &str = " all";

/// Rewrites every EXCEPT and INTERSECT of a query's body. Errors: `0A000` for BY NAME.
pub(crate) fn rewrite(body: &mut SetExpr) -> Result<(), SqlError> {
    let SetExpr::SetOperation { left, op, set_quantifier, right } = body else { return Ok(()) };
    rewrite(left)?;
    rewrite(right)?;
    let all = match set_quantifier {
        SetQuantifier::All => ALL,
        SetQuantifier::Distinct | SetQuantifier::None => "",
        SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => {
            return Err(SqlError::unsupported("a set operation BY NAME"));
        }
    };
    let operation = match op {
        SetOperator::Union => return Ok(()),
        SetOperator::Except | SetOperator::Minus => EXCEPT,
        SetOperator::Intersect => INTERSECT,
    };
    (*op, *set_quantifier) = (SetOperator::Union, SetQuantifier::All);
    let name = Ident::with_quote('"', format!("{PREFIX}{operation}{all}"));
    *body = *all_of(taken(body), name).body;
    Ok(())
}

/// A number and a text are no columns of one set. DataFusion would make texts of both. Errors: `42804`.
///
/// A literal has no type of its own, nor has a parameter.
pub(crate) fn check_types(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::SubqueryAlias(alias) => {
                let operation =
                    alias.alias.table().strip_prefix(PREFIX).map(|o| o.trim_end_matches(ALL).to_uppercase());
                if let (Some(operation), LogicalPlan::Union(union)) = (operation, alias.input.as_ref()) {
                    check_union(&union.inputs, &operation)?;
                }
            }
            LogicalPlan::Union(union) => check_union(&union.inputs, "UNION")?,
            LogicalPlan::Values(values) => check_values(&values.values)?,
            LogicalPlan::Join(join) if join.join_constraint == JoinConstraint::Using => {
                let (left, right) = (join.left.schema(), join.right.schema());
                for (l, r) in &join.on {
                    check_one_type("JOIN/USING", [&type_of(l, left)?, &type_of(r, right)?])?;
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

fn check_union(inputs: &[Arc<LogicalPlan>], operation: &str) -> Result<()> {
    let [left, right, ..] = inputs else { return Ok(()) };
    for idx in 0..left.schema().fields().len().min(right.schema().fields().len()) {
        let (Some(left), Some(right)) = (column_type(left, idx), column_type(right, idx)) else { continue };
        check_one_type(operation, [&left, &right])?;
    }
    Ok(())
}

fn type_of(expr: &Expr, schema: &DFSchema) -> Result<SqlType> {
    expr.to_field(schema).map(|(_, field)| SqlType::of(&field))
}

/// The builder has made one Arrow type of each column by then.
fn check_values(rows: &[Vec<Expr>]) -> Result<()> {
    let schema = DFSchema::empty();
    let own = |expr: &Expr| {
        let expr = match expr {
            Expr::Cast(cast) => cast.expr.as_ref(),
            other => other,
        };
        let is_open = matches!(expr, Expr::Literal(value, _) if value.is_null() || value.data_type().is_string());
        if is_open { None } else { type_of(expr, &schema).ok() }
    };
    let n_columns = rows.first().map_or(0, Vec::len);
    for idx in 0..n_columns {
        let types: Vec<_> = rows.iter().filter_map(|row| row.get(idx).and_then(own)).collect();
        check_one_type("VALUES", &types)?;
    }
    Ok(())
}

/// None: it is a literal, or cannot be told.
fn column_type(plan: &LogicalPlan, idx: usize) -> Option<SqlType> {
    let field = plan.schema().fields().get(idx)?;
    let is_open = match plan {
        LogicalPlan::Projection(projection) => {
            let expr = projection.expr.get(idx)?.clone().unalias();
            if matches!(expr, Expr::Literal(..) | Expr::Placeholder(_)) && matches!(SqlType::of(field), SqlType::Text) {
                return None;
            }
            let schema = projection.input.schema();
            return type_of(&in_operand(expr, schema), schema).ok();
        }
        LogicalPlan::Values(_) => true,
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::TableScan(_) | LogicalPlan::Aggregate(_) => false,
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Distinct(_) => {
            return column_type(plan.inputs().first()?, idx);
        }
        _ => true,
    };
    (!is_open).then(|| SqlType::of(field))
}

/// Whether a union under this name stands for another operation.
pub(crate) fn is_name(name: &TableReference) -> bool {
    name.table().starts_with(PREFIX)
}

/// Plans a union that stands for another operation. Its columns keep their names and types.
pub(crate) fn plan(alias: SubqueryAlias) -> Result<Transformed<LogicalPlan>> {
    let Some(operation) = alias.alias.table().strip_prefix(PREFIX) else {
        return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)));
    };
    let LogicalPlan::Union(union) = alias.input.as_ref() else { return Err(lost()) };
    let [left, right] = union.inputs.as_slice() else { return Err(lost()) };
    if union.schema.fields().is_empty() {
        return Err(to_datafusion(SqlError::unsupported("EXCEPT or INTERSECT without columns")));
    }
    let names: Vec<String> = union
        .schema
        .fields()
        .iter()
        .enumerate()
        .map(|(idx, f)| format!("{}\u{1}side{idx}", visible(f.name())))
        .collect();
    let both = LogicalPlanBuilder::from(side(left, &names, true)?).union(side(right, &names, false)?)?;
    let columns: Vec<Expr> = names.iter().map(|name| Expr::Column(Column::from_name(name))).collect();
    let counted =
        both.aggregate(columns.clone(), [count(marker(LEFT)).alias(N_LEFT), count(marker(RIGHT)).alias(N_RIGHT)])?;
    let (n_left, n_right) = (marker(N_LEFT), marker(N_RIGHT));
    let present = match operation {
        EXCEPT => counted.filter(n_left.gt(lit(0i64)).and(n_right.eq(lit(0i64))))?.build()?,
        INTERSECT => counted.filter(n_left.gt(lit(0i64)).and(n_right.gt(lit(0i64))))?.build()?,
        other => {
            let copies = match other == format!("{EXCEPT}{ALL}") {
                true => n_left - n_right,
                false => when(n_left.clone().lt(n_right.clone()), n_left).otherwise(n_right)?,
            };
            let call = Call { function: sets::copies(), args: vec![copies], names: vec![] };
            let kept = |column: &Column| names.contains(&column.name);
            FlatMap::new(Arc::new(counted.build()?), vec![call], None)?.keeping(kept)?.into_plan()
        }
    };
    let shown = columns.into_iter().zip(alias.schema.iter());
    let shown = shown.map(|(column, (qualifier, field))| column.alias_qualified(qualifier.cloned(), field.name()));
    let plan = LogicalPlanBuilder::from(present).project(shown.collect::<Vec<_>>())?.build()?;
    Ok(Transformed::yes(plan))
}

const LEFT: &str = "left\u{1}side";
const RIGHT: &str = "right\u{1}side";
const N_LEFT: &str = "n_left\u{1}side";
const N_RIGHT: &str = "n_right\u{1}side";

fn marker(name: &str) -> Expr {
    Expr::Column(Column::new(None::<TableReference>, name))
}

/// One input under the common names, with a column for each side that is not NULL in its own rows.
fn side(input: &LogicalPlan, names: &[String], is_left: bool) -> Result<LogicalPlan> {
    let columns = input.schema().columns().into_iter().zip(names);
    let mut exprs: Vec<Expr> = columns.map(|(column, name)| Expr::Column(column).alias(name)).collect();
    for (name, is_own) in [(LEFT, is_left), (RIGHT, !is_left)] {
        exprs.push(lit(ScalarValue::Int64(is_own.then_some(1))).alias(name));
    }
    LogicalPlanBuilder::from(input.clone()).project(exprs)?.build()
}

fn lost() -> DataFusionError {
    DataFusionError::Internal("a set operation without its two sides".into())
}

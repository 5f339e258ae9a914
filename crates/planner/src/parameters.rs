//! The types of parameters that the client did not declare, and plans with the values of parameters.
//!
//! The types are those that literals without a type would have in the same places, as in PostgreSQL: the statement is planned
//! with a text in the place of each parameter that no type but text can be read from, and what it is to be read as is the
//! parameter's type.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ParamValues, Result, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, FetchType, Limit, LogicalPlan};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext};
use sqlparser::ast::{self, Value, Visit, VisitMut, Visitor, VisitorMut};
use tidewire_sql::{fold, walk, walk_mut};
use tidewire_types::{SqlError, SqlType};

use crate::dml::{relation, select};
use crate::functions::cast;
use crate::functions::untyped::{self, UNTYPED};
use crate::query::Planned;
use crate::rewrite::parameter_number;

/// What the texts begin with, before the number of the parameter and a blank.
const MARK: &str = "\u{1}parameter ";

thread_local! {
    /// While types are looked for: which parameters were read as which types. A plan does not show all that was read to
    /// make it: constants are gone, and a query of a WITH that nobody reads is in no plan.
    static READ: RefCell<Option<Vec<(usize, SqlType)>>> = const { RefCell::new(None) };
}

/// Finds the types that are not known. `plan` plans a statement with such texts, whose other parameters have the types
/// given, and hands over what shows how they are read; the error is the one that it meets.
///
/// A type stays unknown only where the statement has another error.
pub(crate) fn find<T: Clone + Visit + VisitMut>(
    statement: &T,
    types: &mut [Option<SqlType>],
    plan: impl Fn(&T, &[Option<SqlType>], &mut dyn FnMut(&Expr)) -> Result<(), SqlError>,
) {
    // An error tells about one parameter.
    while types.iter().any(Option::is_none) {
        let mut marked = statement.clone();
        let mut names = Names(HashSet::new());
        let _ = walk(statement, &mut names);
        let mut marker = Marker { types, numbers: vec![], read: names.0 };
        let _ = walk_mut(&mut marked, &mut marker);
        let numbers = marker.numbers;
        if numbers.is_empty() {
            return;
        }
        let known: Vec<_> = types.iter().map(|t| Some(t.clone().unwrap_or(SqlType::Text))).collect();
        READ.set(Some(vec![]));
        let planned = plan(&marked, &known, &mut |expr| read_casts(expr, types));
        READ.take().iter().flatten().for_each(|(number, sql_type)| set(types, *number, sql_type));
        match planned {
            Ok(()) => numbers.iter().for_each(|number| set(types, *number, &SqlType::Text)),
            Err(error) => read_error(&error, types),
        }
        if numbers.iter().all(|number| is_unknown(types, *number)) {
            return;
        }
    }
}

/// Makes room for so many parameters, and adds the types that are found of those without one.
pub(crate) fn add(
    types: &mut Vec<Option<SqlType>>,
    n_parameters: usize,
    found: impl IntoIterator<Item = (usize, SqlType)>,
) {
    types.resize(n_parameters.max(types.len()), None);
    for (number, sql_type) in found {
        if let Some(slot @ None) = types.get_mut(number.wrapping_sub(1)) {
            *slot = Some(sql_type);
        }
    }
}

/// What is declared of the parameters that a part of the statement may have, those up to its highest: others may be found
/// in a later part.
pub(crate) fn of_part<'a, T: Visit>(declared: &'a [Option<SqlType>], part: &T) -> &'a [Option<SqlType>] {
    let mut highest = Highest(0);
    let _ = walk(part, &mut highest);
    declared.get(..highest.0).unwrap_or(declared)
}

struct Highest(usize);

impl Visitor for Highest {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Value(value) = expr {
            self.0 = self.0.max(parameter_number(&value.value).unwrap_or(0));
        }
        ControlFlow::Continue(())
    }
}

fn is_unknown(types: &[Option<SqlType>], number: usize) -> bool {
    matches!(number.checked_sub(1).and_then(|idx| types.get(idx)), Some(None))
}

/// All expressions of a plan. Literals among others that are not read yet, as in a query with grouping sets, are read.
pub(crate) fn each_expr(plan: &LogicalPlan, f: &mut dyn FnMut(&Expr)) {
    let _ = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && call.func.name() == UNTYPED
                {
                    let _ = untyped::read(call, &schema);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
            f(expr);
            Ok(TreeNodeRecursion::Continue)
        })
    });
}

struct Marker<'a> {
    types: &'a [Option<SqlType>],
    /// The parameters that were found.
    numbers: Vec<usize>,
    /// The names of all relations that the statement reads.
    read: HashSet<String>,
}

impl VisitorMut for Marker<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Value(value) = expr
            && let Some(number) = parameter_number(&value.value)
            && is_unknown(self.types, number)
        {
            self.numbers.push(number);
            value.value = Value::SingleQuotedString(format!("{MARK}{number} "));
        }
        ControlFlow::Continue(())
    }

    /// A query of a WITH that nobody reads is in no plan: so it is read.
    fn post_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        let Some(with) = &query.with else { return ControlFlow::Continue(()) };
        let Some(selection) = first_condition(&mut query.body) else { return ControlFlow::Continue(()) };
        for cte in with.cte_tables.iter().filter(|cte| !self.read.contains(&fold(&cte.alias.name))) {
            let name = ast::ObjectName::from(vec![cte.alias.name.clone()]);
            let exists = ast::Expr::Exists { subquery: Box::new(reading(name)), negated: false };
            *selection = Some(match selection.take() {
                None => exists,
                Some(present) => ast::Expr::BinaryOp {
                    left: Box::new(ast::Expr::Nested(Box::new(present))),
                    op: ast::BinaryOperator::And,
                    right: Box::new(exists),
                },
            });
        }
        ControlFlow::Continue(())
    }
}

/// `SELECT * FROM name`
fn reading(name: ast::ObjectName) -> ast::Query {
    let relation = relation(name, None);
    let all = ast::SelectItem::Wildcard(ast::WildcardAdditionalOptions::default());
    select(vec![all], vec![ast::TableWithJoins { relation, joins: vec![] }], None, None)
}

/// The WHERE of a query, or of the first branch of it.
fn first_condition(body: &mut ast::SetExpr) -> Option<&mut Option<ast::Expr>> {
    match body {
        ast::SetExpr::Select(select) => Some(&mut select.selection),
        ast::SetExpr::SetOperation { left, .. } => first_condition(left),
        ast::SetExpr::Query(query) => first_condition(&mut query.body),
        _ => None,
    }
}

struct Names(HashSet<String>);

impl Visitor for Names {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<()> {
        if let Some(name) = relation.0.last().and_then(|part| part.as_ident()) {
            self.0.insert(fold(name));
        }
        ControlFlow::Continue(())
    }
}

/// Whether the text stands for a parameter whose type is looked for.
pub(crate) fn is_marked(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Whether the text stands for a parameter whose type is looked for; it is this one then, and any value will do.
pub(crate) fn is_found(text: &str, sql_type: &SqlType) -> bool {
    READ.with_borrow_mut(|read| match (read, marked_number(text)) {
        (Some(read), Some(number)) => {
            read.push((number, sql_type.clone()));
            true
        }
        _ => false,
    })
}

/// The number of a parameter that is named in the text.
fn marked_number(text: &str) -> Option<usize> {
    text.split_once(MARK)?.1.split_once(' ')?.0.parse().ok()
}

/// What casts the texts stand in.
fn read_casts(expr: &Expr, types: &mut [Option<SqlType>]) {
    let _ = expr.apply(|expr| {
        let read = match expr {
            Expr::Cast(cast) => Some((cast.expr.as_ref(), SqlType::of(&cast.field))),
            Expr::ScalarFunction(call) => cast::of_call(call).map(|(value, target)| (value, target.clone())),
            _ => None,
        };
        if let Some((Expr::Literal(value, _), sql_type)) = read
            && let Some(Some(text)) = value.try_as_str()
            && let Some(number) = marked_number(text)
        {
            set(types, number, &sql_type);
        }
        Ok(TreeNodeRecursion::Continue)
    });
}

/// What one of the texts could not be read as; where that is not said, it is to be a text.
fn read_error(error: &SqlError, types: &mut [Option<SqlType>]) {
    let texts = [Some(error.message()), error.detail()];
    let Some(number) = texts.into_iter().flatten().find_map(marked_number) else { return };
    let name = error.message().strip_prefix("invalid input syntax for type ").and_then(|rest| rest.split_once(": \""));
    let sql_type = name.and_then(|(name, _)| cast::spelled(name)).unwrap_or(SqlType::Text);
    set(types, number, &sql_type);
}

/// A parameter has no bounds: it may have more digits, or more characters, than what it is compared with.
fn set(types: &mut [Option<SqlType>], number: usize, sql_type: &SqlType) {
    if let Some(slot @ None) = number.checked_sub(1).and_then(|idx| types.get_mut(idx)) {
        *slot = Some(match sql_type {
            SqlType::Varchar(_) => SqlType::Varchar(None),
            other => untyped::unbounded(other),
        });
    }
}

/// The optimized plan with the values of its parameters.
///
/// A value may decide a condition, and so what is read at all: the query is optimized with its values then, from the
/// beginning, for in a plan that is optimized twice names repeat that stand for different expressions.
pub(crate) fn with_values(planned: &Planned, values: Vec<ScalarValue>, state: &SessionState) -> Result<LogicalPlan> {
    let values = ParamValues::from(values);
    let bound = |plan: &LogicalPlan| with_limits(of_lasting_types(plan.clone())?.replace_params_with_values(&values)?);
    let plan = bound(&planned.plan)?;
    let options = OptimizerContext::new_with_config_options(state.config_options().clone()).with_max_passes(1);
    let simplify = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
    let plan = simplify.optimize(plan, &options, |_, _| {})?;
    match &planned.analyzed {
        Some(analyzed) if has_decided(&plan)? => state.optimize(&bound(analyzed)?),
        _ => Ok(plan),
    }
}

/// The plan, with functions of parameters cast to the types that it was planned with: what `round(n, $1)` gives has
/// another scale where it is told how many digits there are.
fn of_lasting_types(plan: LogicalPlan) -> Result<LogicalPlan> {
    let is_open = |expr: &Expr| expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_)))).unwrap_or(true);
    let lasting = plan.transform_up_with_subqueries(|node| {
        let schema = match &node {
            LogicalPlan::TableScan(scan) => {
                DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
            }
            node => merge_schema(&node.inputs()),
        };
        node.map_expressions(|expr| {
            expr.transform_up(|part| match &part {
                Expr::ScalarFunction(call) if call.args.iter().any(is_open) => {
                    let field = part.to_field(&schema)?.1;
                    Ok(Transformed::yes(Expr::Cast(Cast::new_from_field(Box::new(part), field))))
                }
                _ => Ok(Transformed::no(part)),
            })
        })
    });
    lasting.map(|lasting| lasting.data)
}

/// Whether a condition is a constant, or no row is asked for.
fn has_decided(plan: &LogicalPlan) -> Result<bool> {
    let is_constant = |expr: &Expr| matches!(expr, Expr::Literal(..));
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        found |= match plan {
            LogicalPlan::Filter(filter) => is_constant(&filter.predicate),
            LogicalPlan::Join(join) => join.filter.as_ref().is_some_and(is_constant),
            LogicalPlan::TableScan(scan) => scan.filters.iter().any(is_constant),
            LogicalPlan::Limit(limit) => matches!(limit.get_fetch_type()?, FetchType::Literal(Some(0))),
            _ => false,
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The plan with bigints for the integers that clients declared LIMIT and OFFSET to be.
fn with_limits(plan: LogicalPlan) -> Result<LogicalPlan> {
    let of_limit = |value: Option<Box<Expr>>| match value.as_deref().and_then(bigint) {
        Some(n) => Some(Box::new(n)),
        None => value,
    };
    let typed = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Limit(Limit { skip, fetch, input }) => {
            Ok(Transformed::yes(LogicalPlan::Limit(Limit { skip: of_limit(skip), fetch: of_limit(fetch), input })))
        }
        other => Ok(Transformed::no(other)),
    });
    typed.map(|typed| typed.data)
}

fn bigint(value: &Expr) -> Option<Expr> {
    match value {
        Expr::Cast(cast) => bigint(&cast.expr),
        Expr::Literal(value, _) if value.data_type().is_integer() => {
            value.cast_to(&DataType::Int64).ok().map(|n| Expr::Literal(n, None))
        }
        _ => None,
    }
}

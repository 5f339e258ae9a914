//! The types of parameters that the client did not declare.
//!
//! They are those that literals without a type would have in the same places, as in PostgreSQL: the statement is planned
//! with a text in the place of each parameter that no type but text can be read from, and what it is to be read as is the
//! parameter's type.

use std::cell::RefCell;
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, Limit, LogicalPlan};
use sqlparser::ast::{self, Value, VisitMut, VisitorMut};
use tidewire_sql::walk_mut;
use tidewire_types::{SqlError, SqlType};

use crate::functions::{cast, untyped};
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
pub(crate) fn find<T: Clone + VisitMut>(
    statement: &T,
    types: &mut [Option<SqlType>],
    plan: impl Fn(&T, &[Option<SqlType>], &mut dyn FnMut(&Expr)) -> Result<(), SqlError>,
) {
    // An error tells about one parameter.
    while types.iter().any(Option::is_none) {
        let mut marked = statement.clone();
        let mut marker = Marker { types, numbers: vec![] };
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

fn is_unknown(types: &[Option<SqlType>], number: usize) -> bool {
    matches!(number.checked_sub(1).and_then(|idx| types.get(idx)), Some(None))
}

/// All expressions of a plan.
pub(crate) fn each_expr(plan: &LogicalPlan, f: &mut dyn FnMut(&Expr)) {
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            f(expr);
            Ok(TreeNodeRecursion::Continue)
        })
    });
}

struct Marker<'a> {
    types: &'a [Option<SqlType>],
    /// The parameters that were found.
    numbers: Vec<usize>,
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

/// The plan with bigints for the integers that clients declared LIMIT and OFFSET to be.
pub(crate) fn with_limits(plan: LogicalPlan) -> Result<LogicalPlan> {
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

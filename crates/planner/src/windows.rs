//! Windows as PostgreSQL reads them: which window a function is over, its frame, and where window functions may stand.
//!
//! DataFusion knows neither EXCLUDE nor windows made from other windows, and takes only literals as offsets. So before it
//! plans a query every OVER gets its whole definition, and the frame is put into PARTITION BY as a call (`FRAME`) whose
//! arguments are the frame's words and its offsets, where it changes nothing; [`spec`] reads it there. Invariant: DataFusion's
//! own frames are never looked at.

pub(crate) mod batch;
pub(crate) mod function;
pub(crate) mod spec;

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use sqlparser::ast::{
    self, Expr, Function, FunctionArguments, Ident, JoinConstraint, JoinOperator, LimitClause, NamedWindowDefinition,
    NamedWindowExpr, Query, Select, SetExpr, Value, Visit, VisitMut, Visitor, VisitorMut, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};
use tidewire_sql::{EXCLUDE, fold, own_exprs, walk, walk_mut};
use tidewire_types::{Result, SqlError, SqlState};

/// The function that stands for a frame.
pub(crate) const FRAME: &str = "\u{1}frame";

fn windowing(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::WindowingError, message)
}

/// A window by its name.
struct Named {
    name: String,
    spec: WindowSpec,
}

/// Gives every OVER of this SELECT its whole definition. Errors: `42P20`, `42704`, `0A000`.
pub(crate) fn resolve_select(select: &mut Select) -> Result<()> {
    for (place, expr) in [("WHERE", &select.selection), ("HAVING", &select.having)] {
        refuse(place, expr)?;
    }
    refuse("GROUP BY", &select.group_by)?;
    for join in select.from.iter_mut().flat_map(|table| &mut table.joins) {
        if let Some(JoinConstraint::On(condition)) = constraint(&mut join.join_operator) {
            refuse("JOIN conditions", condition)?;
        }
    }
    let named = named_windows(&select.named_window)?;
    select.named_window.clear();
    resolve(&named, &mut select.projection)?;
    resolve(&named, &mut select.qualify)?;
    resolve(&named, &mut select.distinct)
}

/// The same for what a query has behind its SELECT: ORDER BY may name its windows.
pub(crate) fn resolve_query(query: &mut Query) -> Result<()> {
    if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
        refuse("LIMIT", limit)?;
        refuse("OFFSET", offset)?;
    }
    if let SetExpr::Values(values) = query.body.as_ref() {
        refuse("VALUES", values)?;
    }
    let named = match query.body.as_ref() {
        SetExpr::Select(select) => named_windows(&select.named_window)?,
        _ => vec![],
    };
    resolve(&named, &mut query.order_by)
}

/// What a join has behind it: ON, USING or NATURAL.
pub(crate) fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => Some(c),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) | JoinOperator::FullOuter(c) => Some(c),
        _ => None,
    }
}

/// Checks that what is OVER a window is a function that can be. Errors: `42809`.
pub(crate) fn check_functions(query: &Query, state: &SessionState) -> Result<()> {
    struct Checker<'a>(&'a SessionState);
    impl Visitor for Checker<'_> {
        type Break = Box<SqlError>;

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Box<SqlError>> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let Some(name) = function.name.0.last().and_then(|p| p.as_ident()).map(fold) else {
                return ControlFlow::Continue(());
            };
            let is_aggregate = self.0.aggregate_functions().contains_key(&name);
            let is_window = self.0.window_functions().contains_key(&name);
            let wrong =
                |message: String| ControlFlow::Break(Box::new(SqlError::new(SqlState::WrongObjectType, message)));
            if function.over.is_none() && function.within_group.is_empty() && is_window && !is_aggregate {
                return wrong(format!("window function {name} requires an OVER clause"));
            }
            let is_scalar = self.0.scalar_functions().contains_key(&name);
            if function.over.is_some() && is_scalar && !is_aggregate && !is_window {
                return wrong(format!("OVER specified, but {name} is not a window function nor an aggregate function"));
            }
            ControlFlow::Continue(())
        }
    }
    match walk(query, &mut Checker(state)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Refuses window functions where rows are not yet together. Errors: `42P20`.
pub(crate) fn refuse(place: &str, node: &impl Visit) -> Result<()> {
    match has_window(node) {
        true => Err(windowing(format!("window functions are not allowed in {place}"))),
        false => Ok(()),
    }
}

/// Whether a window function stands in the node itself, not in a subquery of it.
pub(crate) fn has_window(node: &impl Visit) -> bool {
    let is_window = |expr: &Expr| matches!(expr, Expr::Function(function) if function.over.is_some());
    own_exprs(node, &mut |expr| if is_window(expr) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        .is_break()
}

fn resolve(named: &[Named], node: &mut impl VisitMut) -> Result<()> {
    struct Resolver<'a> {
        named: &'a [Named],
        depth: usize,
    }
    impl VisitorMut for Resolver<'_> {
        type Break = Box<SqlError>;

        fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Box<SqlError>> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Box<SqlError>> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<SqlError>> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            // A subquery's functions know its own windows only.
            if self.depth > 0 || function.over.is_none() {
                return ControlFlow::Continue(());
            }
            match resolve_function(self.named, function) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(Box::new(error)),
            }
        }
    }
    match walk_mut(node, &mut Resolver { named, depth: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

fn resolve_function(named: &[Named], function: &mut Function) -> Result<()> {
    check_call(function)?;
    let spec = match function.over.take() {
        None => return Ok(()),
        Some(WindowType::NamedWindow(name)) => find(named, &name)?.clone(),
        Some(WindowType::WindowSpec(spec)) => complete(named, spec)?,
    };
    refuse("window definitions", &spec.partition_by)?;
    refuse("window definitions", &spec.order_by)?;
    function.over = Some(WindowType::WindowSpec(with_frame_call(spec)?));
    Ok(())
}

fn check_call(function: &Function) -> Result<()> {
    if has_window(&function.args) {
        return Err(windowing("window function calls cannot be nested"));
    }
    refuse("FILTER", &function.filter)?;
    if let FunctionArguments::List(list) = &function.args {
        if matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct)) {
            let message = "DISTINCT is not implemented for window functions";
            return Err(SqlError::new(SqlState::FeatureNotSupported, message));
        }
        for clause in &list.clauses {
            if let ast::FunctionArgumentClause::OrderBy(_) = clause {
                let message = "aggregate ORDER BY is not implemented for window functions";
                return Err(SqlError::new(SqlState::FeatureNotSupported, message));
            }
            if let ast::FunctionArgumentClause::IgnoreOrRespectNulls(ast::NullTreatment::IgnoreNulls) = clause {
                return Err(SqlError::unsupported("IGNORE NULLS"));
            }
        }
    }
    if function.null_treatment == Some(ast::NullTreatment::IgnoreNulls) {
        return Err(SqlError::unsupported("IGNORE NULLS"));
    }
    if !function.within_group.is_empty() {
        let message = "OVER is not supported for ordered-set aggregates";
        return Err(SqlError::new(SqlState::FeatureNotSupported, message));
    }
    let name = function.name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
    if function.filter.is_some() && function::is_window(&name) {
        let message = "FILTER is not implemented for non-aggregate window functions";
        return Err(SqlError::new(SqlState::FeatureNotSupported, message));
    }
    Ok(())
}

fn named_windows(definitions: &[NamedWindowDefinition]) -> Result<Vec<Named>> {
    let mut named: Vec<Named> = vec![];
    for NamedWindowDefinition(name, definition) in definitions {
        let name = fold(name);
        if named.iter().any(|n| n.name == name) {
            return Err(windowing(format!("window \"{name}\" is already defined")));
        }
        let spec = match definition {
            NamedWindowExpr::NamedWindow(other) => find(&named, other)?.clone(),
            NamedWindowExpr::WindowSpec(spec) => complete(&named, spec.clone())?,
        };
        named.push(Named { name, spec });
    }
    Ok(named)
}

fn find<'a>(named: &'a [Named], name: &Ident) -> Result<&'a WindowSpec> {
    let name = fold(name);
    let found = named.iter().find(|n| n.name == name).map(|n| &n.spec);
    found.ok_or_else(|| SqlError::new(SqlState::UndefinedObject, format!("window \"{name}\" does not exist")))
}

/// A window that is made from another one, as PostgreSQL allows it.
fn complete(named: &[Named], mut spec: WindowSpec) -> Result<WindowSpec> {
    let Some(name) = spec.window_name.take() else { return Ok(spec) };
    let base = find(named, &name)?.clone();
    let name = fold(&name);
    let is_own = |e: &Expr| excluded(e).is_none();
    if spec.partition_by.iter().any(is_own) {
        return Err(windowing(format!("cannot override PARTITION BY clause of window \"{name}\"")));
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return Err(windowing(format!("cannot override ORDER BY clause of window \"{name}\"")));
    }
    if base.window_frame.is_some() {
        let error = windowing(format!("cannot copy window \"{name}\" because it has a frame clause"));
        let is_plain = spec.order_by.is_empty() && spec.window_frame.is_none();
        return Err(if is_plain { error.with_hint("Omit the parentheses in this OVER clause.") } else { error });
    }
    spec.partition_by.extend(base.partition_by);
    if spec.order_by.is_empty() {
        spec.order_by = base.order_by;
    }
    Ok(spec)
}

/// What the parser has put into PARTITION BY for an EXCLUDE.
fn excluded(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Identifier(name) => name.value.strip_prefix(EXCLUDE),
        _ => None,
    }
}

/// Moves the frame into PARTITION BY.
fn with_frame_call(mut spec: WindowSpec) -> Result<WindowSpec> {
    let exclude = spec.partition_by.iter().find_map(excluded).map(str::to_owned);
    spec.partition_by.retain(|e| excluded(e).is_none());
    let Some(frame) = spec.window_frame.take() else { return Ok(spec) };
    let WindowFrame { units, start_bound, end_bound } = frame;
    let end_is_given = end_bound.is_some();
    let end_bound = end_bound.unwrap_or(WindowFrameBound::CurrentRow);
    check_bounds(&start_bound, &end_bound, end_is_given)?;
    let has_offset = |bound: &WindowFrameBound| {
        matches!(bound, WindowFrameBound::Preceding(Some(_)) | WindowFrameBound::Following(Some(_)))
    };
    let name = match units {
        WindowFrameUnits::Rows => "rows",
        WindowFrameUnits::Range => "range",
        WindowFrameUnits::Groups => "groups",
    };
    if units == WindowFrameUnits::Groups && spec.order_by.is_empty() {
        return Err(windowing("GROUPS mode requires an ORDER BY clause"));
    }
    let ranged = units == WindowFrameUnits::Range && (has_offset(&start_bound) || has_offset(&end_bound));
    if ranged && spec.order_by.len() != 1 {
        return Err(windowing("RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column"));
    }
    let mut offsets = vec![];
    let mut word = |bound: WindowFrameBound| {
        let (word, offset) = match bound {
            WindowFrameBound::CurrentRow => ("current", None),
            WindowFrameBound::Preceding(None) => ("first", None),
            WindowFrameBound::Following(None) => ("last", None),
            WindowFrameBound::Preceding(Some(offset)) => ("preceding", Some(offset)),
            WindowFrameBound::Following(Some(offset)) => ("following", Some(offset)),
        };
        offsets.extend(offset.map(|o| *o));
        word
    };
    let (start, end) = (word(start_bound), word(end_bound));
    let words = format!("{name},{start},{end},{}", exclude.as_deref().unwrap_or("no others"));
    let mut args = vec![Expr::value(Value::SingleQuotedString(words))];
    args.extend(offsets);
    spec.partition_by.insert(0, crate::rewrite::call(FRAME, args));
    Ok(spec)
}

/// The offsets of a frame that counts rows or groups, where the expression is such a frame.
pub(crate) fn counted_offsets(expr: &Expr) -> Vec<&Expr> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else {
        return vec![];
    };
    let args = list.args.iter().filter_map(|arg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(arg)) => Some(arg),
        _ => None,
    });
    let args: Vec<&Expr> = args.collect();
    let is_frame = name.0.last().and_then(|part| part.as_ident()).is_some_and(|name| name.value == FRAME);
    match args.split_first() {
        Some((Expr::Value(words), offsets)) if is_frame => match &words.value {
            Value::SingleQuotedString(words) if !words.starts_with("range") => offsets.to_vec(),
            _ => vec![],
        },
        _ => vec![],
    }
}

/// Errors: `42P20` for a frame that ends before it begins.
fn check_bounds(start: &WindowFrameBound, end: &WindowFrameBound, end_is_given: bool) -> Result<()> {
    use WindowFrameBound as B;
    let message = match (start, end) {
        (B::Following(None), _) => "frame start cannot be UNBOUNDED FOLLOWING",
        (_, B::Preceding(None)) => "frame end cannot be UNBOUNDED PRECEDING",
        (B::CurrentRow, B::Preceding(_)) => "frame starting from current row cannot have preceding rows",
        (B::Following(_), B::CurrentRow) if !end_is_given => {
            "frame starting from following row cannot end with current row"
        }
        (B::Following(_), B::Preceding(_) | B::CurrentRow) => {
            "frame starting from following row cannot have preceding rows"
        }
        _ => return Ok(()),
    };
    Err(windowing(message))
}

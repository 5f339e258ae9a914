//! What is done to the AST before DataFusion plans it: PostgreSQL's column names, casts that Arrow does not have,
//! and refusals of what DataFusion would plan wrongly or silently leave out.

mod any_array;
mod arguments;
mod array_query;
mod integers;
mod like_any;
mod named_arguments;
mod named_casts;
mod not_exists;
mod operators;
mod order_names;
pub(crate) mod outer_tables;
mod row_values;
mod subquery_order;
mod untyped;
mod with_ties;

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Query, Select, SetExpr,
    SetOperator, SetQuantifier, TableFactor, Value, VisitorMut,
};
use tidewire_sql::{fold, is_collation, sql_type, walk, walk_mut};
use tidewire_types::{Result, SqlError, SqlState, SqlType};

pub(crate) use self::array_query::ITEM as ARRAY_ITEM;
use crate::dml::{all_of, select};
use crate::set_returning::from::RowNames;
use crate::{
    aggregates, column_names, functions, primary_keys, recursive, set_operation, set_returning, using, windows,
};

/// Expressions and queries inside each other. Evaluation recurses once a level on a thread of 2 MB.
const DEPTH_MAX: usize = 500;
/// Digits before or behind the point of a numeric.
const NUMERIC_DIGITS_MAX: i64 = 38;

/// A query that DataFusion can plan.
pub(crate) struct Rewritten {
    /// The query.
    pub(crate) query: Query,
    /// Types of parameters that follow from where they stand: `$1::int`, `LIMIT $1`.
    pub(crate) parameters: HashMap<usize, SqlType>,
    /// The largest number of a parameter.
    pub(crate) n_parameters: usize,
}

/// How deep expressions and queries stand inside each other. Errors: `54001` when too deep.
pub(crate) fn check_depth<T: ast::Visit>(node: &T) -> Result<usize> {
    struct Depth {
        now: usize,
        max: usize,
    }
    impl ast::Visitor for Depth {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.enter()
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.now -= 1;
            ControlFlow::Continue(())
        }

        // Each further table of a FROM clause is a join around the tables before it.
        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            self.now += n_joins(select);
            self.max = self.max.max(self.now);
            if self.now > DEPTH_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }

        fn post_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            self.now -= n_joins(select);
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.enter()
        }

        fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.now -= 1;
            ControlFlow::Continue(())
        }
    }
    impl Depth {
        fn enter(&mut self) -> ControlFlow<()> {
            self.now += 1;
            self.max = self.max.max(self.now);
            if self.now > DEPTH_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let mut depth = Depth { now: 0, max: 0 };
    match walk(node, &mut depth) {
        ControlFlow::Continue(()) => Ok(depth.max),
        ControlFlow::Break(()) => Err(SqlError::new(SqlState::StatementTooComplex, "stack depth limit exceeded")
            .with_detail(format!("Expressions and joins may stand at most {DEPTH_MAX} levels inside each other."))),
    }
}

fn n_joins(select: &Select) -> usize {
    select.from.iter().map(|item| 1 + item.joins.len()).sum::<usize>().saturating_sub(1)
}

/// Rewrites a query. Errors: `0A000` for what cannot be planned, `42704` for a type that does not exist.
pub(crate) fn rewrite(query: &Query, row_names: &mut RowNames) -> Result<Rewritten> {
    let mut query = query.clone();
    let mut rewriter = Rewriter { row_names: std::mem::take(row_names), ..Rewriter::default() };
    let flow = walk_mut(&mut query, &mut rewriter);
    *row_names = rewriter.row_names;
    match flow {
        ControlFlow::Continue(()) => {
            integers::of_query(&mut query);
            order_names::separate(&mut query);
            outer_tables::mark(&mut query);
            row_values::as_values(&mut query);
            Ok(Rewritten { query, parameters: rewriter.parameters, n_parameters: rewriter.n_parameters })
        }
        ControlFlow::Break(error) => Err(*error),
    }
}

/// An expression that DataFusion can plan.
pub(crate) struct RewrittenExpr {
    /// The expression.
    pub(crate) expr: Expr,
    /// Types of parameters that follow from where they stand.
    pub(crate) parameters: HashMap<usize, SqlType>,
    /// The largest number of a parameter.
    pub(crate) n_parameters: usize,
}

/// Rewrites an expression outside of a query.
pub(crate) fn rewrite_with_parameters(expr: &Expr) -> Result<RewrittenExpr> {
    let mut expr = expr.clone();
    let mut rewriter = Rewriter::default();
    match walk_mut(&mut expr, &mut rewriter) {
        ControlFlow::Continue(()) => {
            integers::of_expr(&mut expr);
            Ok(RewrittenExpr { expr, parameters: rewriter.parameters, n_parameters: rewriter.n_parameters })
        }
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Whether a query stands in the expression.
pub(crate) fn has_subquery(expr: &Expr) -> bool {
    struct Finder;
    impl ast::Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    walk(expr, &mut Finder).is_break()
}

#[derive(Default)]
struct Rewriter {
    parameters: HashMap<usize, SqlType>,
    n_parameters: usize,
    n_copies: usize,
    n_merged: usize,
    row_names: RowNames,
}

type Flow = ControlFlow<Box<SqlError>>;

fn refuse(what: &str) -> Flow {
    ControlFlow::Break(Box::new(SqlError::unsupported(what)))
}

fn flow(result: Result<()>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

impl VisitorMut for Rewriter {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        if let Err(error) = recursive::check(query) {
            return flow(Err(error));
        }
        if let Some(lock) = query.locks.first() {
            let error = SqlError::unsupported(format!("FOR {}", lock.lock_type))
                .with_detail("A query reads one moment of all tables, and no row is ever locked.")
                .with_hint(
                    "Leave the clause out; a condition of the UPDATE tells whether the row is still as it was read.",
                );
            return flow(Err(error));
        }
        recursive::prepare(query);
        if let Err(error) = set_operation::rewrite(&mut query.body) {
            return flow(Err(error));
        }
        if let Err(error) = windows::resolve_query(query) {
            return flow(Err(error));
        }
        values_to_selects(&mut query.body);
        subquery_order::in_aggregates(query);
        if let Some(ast::LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            for expr in limit.iter_mut().chain(offset.iter_mut().map(|o| &mut o.value)) {
                self.infer(expr, SqlType::Int8);
                untyped::number(expr);
            }
        }
        query.fetch.iter().filter_map(|f| f.quantity.as_ref()).for_each(|n| self.infer(n, SqlType::Int8));
        if let Err(error) = fetch_to_limit(query) {
            return flow(Err(error));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> Flow {
        subquery_order::keep(query);
        named_casts::rewrite(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        if select.into.is_some() {
            return refuse("SELECT INTO");
        }
        if select.prewhere.is_some() || !select.connect_by.is_empty() || select.value_table_mode.is_some() {
            return refuse("PREWHERE, CONNECT BY or SELECT AS");
        }
        if let Err(error) = windows::resolve_select(select) {
            return flow(Err(error));
        }
        column_names::name_select_list(select);
        if let Err(error) = refuse_rows(select) {
            return flow(Err(error));
        }
        using::nest(select, &mut self.n_merged);
        aggregates::group_for_having(select);
        flow(
            aggregates::check_select(select)
                .and_then(|()| aggregates::places_in_sets(select))
                .and_then(|()| aggregates::spell_out_sets(select)),
        )
    }

    fn post_visit_select(&mut self, select: &mut Select) -> Flow {
        untyped::conditions(select);
        primary_keys::mark_sets(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> Flow {
        using::nest_in_brackets(table, &mut self.n_merged);
        let functions = set_returning::record::rewrite(table)
            .and_then(|()| set_returning::from::rewrite(table, &mut self.row_names));
        if let Err(error) = functions {
            return flow(Err(error));
        }
        match table {
            TableFactor::Table { version: Some(_), .. } => refuse("FOR SYSTEM_TIME AS OF"),
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                refuse("TABLESAMPLE")
            }
            TableFactor::Table { with_ordinality: true, args: None, .. } => {
                flow(Err(SqlError::new(SqlState::SyntaxError, "syntax error at or near \"ORDINALITY\"")))
            }
            TableFactor::Table { with_ordinality: true, .. } => refuse("WITH ORDINALITY of this function"),
            TableFactor::Table { with_hints, partitions, index_hints, .. }
                if !with_hints.is_empty() || !partitions.is_empty() || !index_hints.is_empty() =>
            {
                refuse("a table hint")
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        not_exists::rewrite(expr);
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Ok(target) = sql_type(data_type)
        {
            if matches!(target, SqlType::Float4 | SqlType::Float8) {
                number_to_text(inner);
            }
            self.infer(inner, target);
        }
        windows::counted_offsets(expr).into_iter().for_each(|offset| self.infer(offset, SqlType::Int8));
        set_returning::from::column_of_row(expr);
        whole_slice(expr);
        values_to_relation(expr);
        any_to_in(expr);
        any_array::rewrite(expr);
        let arrays = array_query::rewrite(expr);
        if let Err(error) = arrays
            .and_then(|()| like_any::rewrite(expr))
            .and_then(|()| named_arguments::rewrite(expr))
            .and_then(|()| row_values::rewrite(expr, &mut self.n_copies))
            .and_then(|()| aggregates::check_call(expr))
        {
            return flow(Err(error));
        }
        if let Expr::Value(value) = expr
            && let Some(number) = parameter_number(&value.value)
        {
            if number == 0 || number > usize::from(u16::MAX) {
                let error = SqlError::new(SqlState::UndefinedParameter, format!("there is no parameter ${number}"));
                return flow(Err(error));
            }
            self.n_parameters = self.n_parameters.max(number);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        if let Expr::AtTimeZone { timestamp, time_zone } = expr {
            let take = |e: &mut Expr| std::mem::replace(e, Expr::value(Value::Null));
            *expr = call("timezone", vec![take(time_zone), take(timestamp)]);
        }
        if let Expr::Collate { expr: inner, collation } = expr {
            if !is_collation(collation) {
                return flow(Err(no_collation(collation)));
            }
            *expr = std::mem::replace(inner, Expr::value(Value::Null));
        }
        untyped::rewrite(expr);
        array_to_call(expr);
        rename_function(expr);
        operators::rewrite(expr);
        if let Err(error) = aggregates::rewrite_call(expr) {
            return flow(Err(error));
        }
        plain_number(expr);
        if let Expr::Interval(interval) = expr {
            return flow(plain_interval(interval));
        }
        flow(rewrite_cast(expr))
    }
}

fn no_collation(name: &ast::ObjectName) -> SqlError {
    let name = name.0.iter().map(|part| part.as_ident().map(fold).unwrap_or_default()).collect::<Vec<_>>().join(".");
    let message = format!("collation \"{name}\" for encoding \"UTF8\" does not exist");
    SqlError::new(SqlState::UndefinedObject, message).with_hint("Text is ordered by its bytes, as COLLATE \"C\" says.")
}

/// `count(1)` is `count(*)`: DataFusion has one name for both.
fn count_of_rows(function: &mut ast::Function) {
    if let FunctionArguments::List(list) = &mut function.args
        && list.duplicate_treatment.is_none()
        && let [FunctionArg::Unnamed(arg)] = list.args.as_mut_slice()
        && let FunctionArgExpr::Expr(value) = arg
    {
        let is_value = match value {
            Expr::Value(value) => {
                matches!(value.value, Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_))
            }
            // It fits in any type.
            Expr::Cast { expr, .. } => {
                matches!(expr.as_ref(), Expr::Value(ast::ValueWithSpan { value: Value::Number(digits, _), .. }) if digits.len() < 3)
            }
            _ => false,
        };
        if is_value {
            *arg = FunctionArgExpr::Wildcard;
        }
    }
}

/// A number that becomes a float is read as one, not by way of a numeric.
fn number_to_text(expr: &mut Expr) {
    let (sign, value) = match &*expr {
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr: inner } => ("-", inner.as_ref()),
        value => ("", value),
    };
    if let Expr::Value(literal) = value
        && let Value::Number(digits, _) = &literal.value
    {
        let text = format!("{sign}{}", digits.replace('_', ""));
        *expr = Expr::Value(ast::ValueWithSpan { value: Value::SingleQuotedString(text), span: literal.span });
    }
}

/// A number with an exponent, as digits; one with more digits than a numeric has here, as a float.
fn plain_number(expr: &mut Expr) {
    let Expr::Value(literal) = expr else { return };
    let Value::Number(number, _) = &mut literal.value else { return };
    let Some((digits, exponent)) = number.split_once(['e', 'E']) else { return };
    let Ok(exponent) = exponent.parse::<i64>() else { return };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits = format!("{whole}{fraction}").replace('_', "");
    let point = whole.replace('_', "").len() as i64 + exponent;
    let n_digits = digits.len() as i64;
    if point > NUMERIC_DIGITS_MAX || n_digits - point > NUMERIC_DIGITS_MAX || n_digits > NUMERIC_DIGITS_MAX {
        number_to_text(expr);
        let inner = Box::new(std::mem::replace(expr, Expr::value(Value::Null)));
        let data_type = ast::DataType::DoublePrecision;
        *expr = Expr::Cast { kind: ast::CastKind::Cast, expr: inner, data_type, array: false, format: None };
        return;
    }
    *number = match usize::try_from(point) {
        Ok(point) if point >= digits.len() => format!("{digits:0<point$}."),
        Ok(point) => {
            let (whole, fraction) = digits.split_at(point);
            format!("0{whole}.{fraction}")
        }
        Err(_) => format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
    };
}

/// `a[:n]` begins at the first item, `a[n:]` ends at the last one.
fn whole_slice(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { access_chain, .. } = expr else { return };
    for access in access_chain {
        if let ast::AccessExpr::Subscript(ast::Subscript::Slice { lower_bound, upper_bound, .. }) = access {
            let number = |n: i32| Expr::value(Value::Number(n.to_string(), false));
            lower_bound.get_or_insert_with(|| number(1));
            upper_bound.get_or_insert_with(|| number(i32::MAX));
        }
    }
}

/// An interval in the words that DataFusion knows.
fn plain_interval(interval: &mut ast::Interval) -> Result<()> {
    if interval.leading_field.is_some() || interval.last_field.is_some() {
        return Ok(());
    }
    if let Expr::Value(literal) = interval.value.as_mut()
        && let Value::SingleQuotedString(text) = &mut literal.value
    {
        let read = functions::interval::parse_interval(text)?;
        *text = format!("{} months {} days {} nanoseconds", read.months, read.days, read.nanoseconds);
    }
    Ok(())
}

/// `ARRAY[..]` as a call: DataFusion plans the items of such a literal as if nothing were around the query that it is in.
fn array_to_call(expr: &mut Expr) {
    if let Expr::Array(array) = expr
        && !array.elem.is_empty()
    {
        *expr = call(functions::ARRAY, std::mem::take(&mut array.elem));
    }
}

/// Functions that DataFusion has under another name, or as an operator.
fn rename_function(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    let [part] = function.name.0.as_slice() else { return };
    let Some(name) = part.as_ident().map(fold) else { return };
    let renamed = match name.as_str() {
        "ceiling" => "ceil",
        "array_to_json" | "row_to_json" => "to_json",
        "every" => "bool_and",
        "count" => {
            count_of_rows(function);
            return;
        }
        "sign" => "signum",
        "clock_timestamp" | "statement_timestamp" | "transaction_timestamp" => "now",
        "localtimestamp" | "localtime" => {
            let zone = ast::TimezoneInfo::None;
            let data_type = match name.as_str() {
                "localtime" => ast::DataType::Time(None, zone),
                _ => ast::DataType::Timestamp(None, zone),
            };
            let kind = ast::CastKind::Cast;
            *expr = Expr::Cast { kind, expr: Box::new(call("now", vec![])), data_type, array: false, format: None };
            return;
        }
        // From the day's beginning, where nothing else is said.
        "age" => {
            if let FunctionArguments::List(list) = &mut function.args
                && list.args.len() == 1
            {
                let today = call("current_date", vec![]);
                list.args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(today)));
            }
            return;
        }
        // By the clocks of a zone.
        "date_trunc" => {
            if let FunctionArguments::List(list) = &function.args
                && let [
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(unit)),
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(moment)),
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(zone)),
                ] = list.args.as_slice()
            {
                let data_type = ast::DataType::Timestamp(None, ast::TimezoneInfo::WithTimeZone);
                let (kind, moment) = (ast::CastKind::Cast, Box::new(moment.clone()));
                let moment = Expr::Cast { kind, expr: moment, data_type, array: false, format: None };
                let local = call("timezone", vec![zone.clone(), moment]);
                let truncated = call("date_trunc", vec![unit.clone(), local]);
                *expr = call("timezone", vec![zone.clone(), truncated]);
            }
            return;
        }
        "mod" => {
            if let FunctionArguments::List(list) = &function.args
                && let [
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
                ] = list.args.as_slice()
            {
                let nested = |e: &Expr| Box::new(Expr::Nested(Box::new(e.clone())));
                *expr = Expr::BinaryOp { left: nested(left), op: ast::BinaryOperator::Modulo, right: nested(right) };
            }
            return;
        }
        "json_extract_path" | "jsonb_extract_path" | "json_extract_path_text" | "jsonb_extract_path_text" => {
            path_to_operator(expr, &name);
            return;
        }
        name => {
            if let Some(cast) = cast_by_name(name, function) {
                *expr = cast;
            }
            return;
        }
    };
    function.name = ast::ObjectName::from(vec![ast::Ident::new(renamed)]);
}

/// `float8(x)` is `x::float8`.
fn cast_by_name(name: &str, function: &ast::Function) -> Option<Expr> {
    use ast::DataType as T;
    let data_type = match name {
        "bool" => T::Boolean,
        "int2" => T::SmallInt(None),
        "int4" => T::Integer(None),
        "int8" => T::BigInt(None),
        "float4" => T::Real,
        "float8" => T::DoublePrecision,
        "numeric" => T::Numeric(ast::ExactNumberInfo::None),
        "text" => T::Text,
        "date" => T::Date,
        "timestamptz" => T::Timestamp(None, ast::TimezoneInfo::Tz),
        "uuid" => T::Uuid,
        "json" => T::JSON,
        "jsonb" => T::JSONB,
        _ => return None,
    };
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))] = list.args.as_slice() else { return None };
    let expr = Box::new(arg.clone());
    Some(Expr::Cast { kind: ast::CastKind::Cast, expr, data_type, array: false, format: None })
}

/// `jsonb_extract_path(j, a, b)` is `j #> ARRAY[a, b]`.
fn path_to_operator(expr: &mut Expr, name: &str) {
    let Expr::Function(ast::Function { args: FunctionArguments::List(list), .. }) = expr else { return };
    let args = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    let Some(mut args) = args.collect::<Option<Vec<_>>>().filter(|args| args.len() > 1) else { return };
    let path = args.split_off(1);
    let (Some(json), is_text) = (args.pop(), name.ends_with("_text")) else { return };
    let data_type = if name.starts_with("jsonb") { ast::DataType::JSONB } else { ast::DataType::JSON };
    let json = match json {
        literal @ Expr::Value(_) => {
            let mut cast = Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(literal),
                data_type,
                array: false,
                format: None,
            };
            // The visitor has been here.
            let _ = rewrite_cast(&mut cast);
            cast
        }
        other => other,
    };
    let op = if is_text { ast::BinaryOperator::HashLongArrow } else { ast::BinaryOperator::HashArrow };
    let right = Box::new(call(functions::ARRAY, path));
    *expr = Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(json), op, right }));
}

/// `f(t.*)` becomes something else where it can (`whole_rows`). `count(t.*)` counts the rows of `t` that are there;
/// DataFusion counts all rows, which is the same where no outer join can leave one out.
fn refuse_rows(select: &Select) -> Result<()> {
    #[derive(Default)]
    struct Finder {
        counted: bool,
        other: bool,
    }
    impl ast::Visitor for Finder {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(ast::Function { name, args: FunctionArguments::List(list), .. }) = expr {
                let is_row =
                    |arg: &FunctionArg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(_)));
                let has_row = list.args.iter().any(is_row);
                let is_count = name.to_string().eq_ignore_ascii_case("count");
                self.counted |= has_row && is_count;
                self.other |= has_row && !is_count;
            }
            ControlFlow::Continue(())
        }
    }
    let is_outer = |join: &ast::Join| {
        !matches!(
            &join.join_operator,
            ast::JoinOperator::Join(_) | ast::JoinOperator::Inner(_) | ast::JoinOperator::CrossJoin(_)
        )
    };
    let mut finder = Finder::default();
    let _ = walk(&select.projection, &mut finder);
    let _ = walk(&select.having, &mut finder);
    let has_outer_join = select.from.iter().flat_map(|from| &from.joins).any(is_outer);
    match finder.other || finder.counted && has_outer_join {
        false => Ok(()),
        true => Err(SqlError::unsupported("this row as an argument").with_hint("Name the columns.")),
    }
}

/// `x = ANY (SELECT ..)` and `x = ANY (ARRAY[a, b])` are IN, `x <> ALL (..)` is NOT IN.
fn any_to_in(expr: &mut Expr) {
    let (left, right, any) = match expr {
        Expr::AnyOp { left, compare_op: ast::BinaryOperator::Eq, right, .. } => (left, right, true),
        Expr::AllOp { left, compare_op: ast::BinaryOperator::NotEq, right } => (left, right, false),
        _ => return,
    };
    let is_row = |expr: &Expr| matches!(expr, Expr::Tuple(_) | Expr::Array(_));
    match right.as_ref() {
        Expr::Subquery(subquery) => {
            *expr = Expr::InSubquery { expr: left.clone(), subquery: subquery.clone(), negated: !any };
        }
        Expr::Array(items) if !items.elem.is_empty() && !items.elem.iter().chain([left.as_ref()]).any(is_row) => {
            *expr = Expr::InList { expr: left.clone(), list: items.elem.clone(), negated: !any };
        }
        _ => {}
    }
}

impl Rewriter {
    fn infer(&mut self, expr: &Expr, sql_type: SqlType) {
        if let Expr::Value(value) = expr
            && let Some(number) = parameter_number(&value.value)
        {
            self.parameters.entry(number).or_insert(sql_type);
        }
    }
}

/// The number of `$n`.
pub(crate) fn parameter_number(value: &Value) -> Option<usize> {
    match value {
        Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}

/// A subquery that is VALUES becomes one that selects from them: DataFusion looks for a SELECT list.
fn values_to_relation(expr: &mut Expr) {
    let (Expr::InSubquery { subquery, .. } | Expr::Subquery(subquery) | Expr::Exists { subquery, .. }) = expr else {
        return;
    };
    if !matches!(subquery.body.as_ref(), SetExpr::Values(_)) {
        return;
    }
    let values = std::mem::replace(subquery.as_mut(), select(vec![], vec![], None, None));
    **subquery = all_of(values, ast::Ident::with_quote('"', "*VALUES*"));
}

/// VALUES with subqueries: DataFusion computes values before it runs any query. A SELECT for each row does the same.
/// So it is with the columns of what stands before a LATERAL (VALUES ..).
fn values_to_selects(body: &mut SetExpr) {
    if let SetExpr::SetOperation { left, right, .. } = body {
        values_to_selects(left);
        values_to_selects(right);
    }
    let SetExpr::Values(values) = body else { return };
    cast_literals(&mut values.rows);
    let is_plain = |expr: &Expr| !has_subquery(expr) && !set_returning::from::reads_columns(expr);
    if values.rows.iter().all(|row| row.content.iter().all(is_plain)) && !has_mixed_casts(&values.rows) {
        return;
    }
    let rows = std::mem::take(&mut values.rows).into_iter().map(|row| {
        let items = row.content.into_iter().enumerate().map(|(idx, expr)| ast::SelectItem::ExprWithAlias {
            expr,
            alias: ast::Ident::with_quote('"', format!("column{}", idx + 1)),
        });
        select(items.collect(), vec![], None, None).body
    });
    let united = rows.reduce(|left, right| {
        let (op, set_quantifier) = (SetOperator::Union, SetQuantifier::All);
        Box::new(SetExpr::SetOperation { left, op, set_quantifier, right })
    });
    if let Some(united) = united {
        *body = *united;
    }
}

/// A string literal in VALUES has the type of another value of its column that shows one.
fn cast_literals(rows: &mut [ast::Parens<Vec<Expr>>]) {
    let n_columns = rows.first().map_or(0, |row| row.content.len());
    for idx in 0..n_columns {
        if !rows.iter().any(|row| row.content.get(idx).is_some_and(is_text)) {
            continue;
        }
        let Some(data_type) = rows.iter().find_map(|row| shown_type(row.content.get(idx)?)) else { continue };
        for value in rows.iter_mut().filter_map(|row| row.content.get_mut(idx)).filter(|value| is_text(value)) {
            let expr = Box::new(std::mem::replace(value, Expr::value(Value::Null)));
            let data_type = data_type.clone();
            *value = Expr::Cast { kind: ast::CastKind::Cast, expr, data_type, array: false, format: None };
        }
    }
}

/// Whether it is a literal, and no parameter.
fn is_literal(value: &Expr) -> bool {
    matches!(value, Expr::Value(value) if parameter_number(&value.value).is_none())
}

fn is_text(value: &Expr) -> bool {
    matches!(value, Expr::Value(literal) if matches!(literal.value, Value::SingleQuotedString(_)))
}

fn shown_type(value: &Expr) -> Option<ast::DataType> {
    match value {
        Expr::Cast { data_type, .. } => Some(data_type.clone()),
        Expr::TypedString(typed) => Some(typed.data_type.clone()),
        Expr::Value(literal) => match &literal.value {
            Value::Number(digits, _) if digits.parse::<i32>().is_ok() => Some(ast::DataType::Integer(None)),
            Value::Number(digits, _) if digits.parse::<i64>().is_ok() => Some(ast::DataType::BigInt(None)),
            Value::Number(..) => Some(ast::DataType::Numeric(ast::ExactNumberInfo::None)),
            Value::Boolean(_) => Some(ast::DataType::Boolean),
            _ => None,
        },
        _ => None,
    }
}

/// Whether some values of a column are cast to a type that fields have to tell, and others are not, or to other types than
/// those before: DataFusion takes no such VALUES, or finds another common type than a UNION. So it is with strings
/// beside what shows no type before it is planned.
fn has_mixed_casts(rows: &[ast::Parens<Vec<Expr>>]) -> bool {
    let is_cast = |expr: &Expr| matches!(expr, Expr::Cast { .. } | Expr::TypedString(_));
    let cast_to = |expr: &Expr| match expr {
        Expr::Cast { data_type, .. } => sql_type(data_type).ok().filter(|t| !t.field("", true).metadata().is_empty()),
        _ => None,
    };
    let n_columns = rows.first().map_or(0, |row| row.content.len());
    (0..n_columns).any(|idx| {
        let values = || rows.iter().filter_map(|row| row.content.get(idx));
        let shown = |value| sql_type(&shown_type(value)?).ok();
        differ(values().map(cast_to))
            || values().any(is_cast) && differ(values().map(shown).filter(Option::is_some))
            || values().any(is_text) && !values().all(is_literal)
    })
}

fn differ(mut types: impl Iterator<Item = Option<SqlType>>) -> bool {
    types.next().is_some_and(|first| types.any(|other| other != first))
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn fetch_to_limit(query: &mut Query) -> Result<()> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.percent {
        return Err(SqlError::unsupported("FETCH FIRST .. PERCENT"));
    }
    let quantity = fetch.quantity.unwrap_or_else(|| Expr::value(Value::Number("1".into(), false)));
    if fetch.with_ties {
        return with_ties::rewrite(query, quantity);
    }
    match &mut query.limit_clause {
        None => {
            query.limit_clause =
                Some(ast::LimitClause::LimitOffset { limit: Some(quantity), offset: None, limit_by: vec![] });
            Ok(())
        }
        Some(ast::LimitClause::LimitOffset { limit: limit @ None, .. }) => {
            *limit = Some(quantity);
            Ok(())
        }
        Some(_) => Err(SqlError::new(SqlState::SyntaxError, "multiple LIMIT clauses not allowed")),
    }
}

/// A cast to a type that Arrow does not have becomes a call of ours.
fn rewrite_cast(expr: &mut Expr) -> Result<()> {
    let (target, inner) = match expr {
        Expr::Cast {
            kind: ast::CastKind::Cast | ast::CastKind::DoubleColon, expr, data_type, format: None, ..
        } => (sql_type(data_type)?, expr.as_mut()),
        Expr::TypedString(typed) => {
            let target = sql_type(&typed.data_type)?;
            if let Some(name) = functions::cast::function_name(&target) {
                *expr = call(&name, vec![Expr::Value(typed.value.clone())]);
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    if let Expr::Value(literal) = inner {
        let whole = matches!(&literal.value, Value::Number(n, _) if !n.contains(['.', 'e', 'E']));
        if whole && matches!(target, SqlType::Int2 | SqlType::Int4 | SqlType::Int8) {
            return Ok(());
        }
    }
    if let Some(name) = functions::cast::function_name(&target) {
        let inner = std::mem::replace(inner, Expr::value(Value::Null));
        *expr = call(&name, vec![inner]);
    }
    Ok(())
}

/// A call of the function of exactly that name.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::with_quote('"', name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

//! Aggregate calls before DataFusion plans them: WITHIN GROUP, json aggregates, functions that are others in disguise,
//! and PostgreSQL's errors for aggregates in the wrong place.
//!
//! `f(direct) WITHIN GROUP (ORDER BY a, b)` becomes `"f within group"(direct, a, b ORDER BY a, b)`; functions that are
//! something else with OVER get such a name too. The json aggregates
//! take json: `jsonb_agg(x)` becomes `json_agg("to json"(x) ORDER BY x)::jsonb`; without an ORDER BY of its own the rows
//! are ordered by the arguments, here as in every aggregate.
//!
//! The approximate functions are exact: sketches cannot forget a row that leaves, and a view keeps what it needs to be
//! exact anyway. `approx_count_distinct(x)` is `count(DISTINCT x)`, `approx_percentile_cont` is `percentile_cont`.

use std::ops::ControlFlow;

use sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, GroupByExpr, JoinConstraint, JoinOperator, OrderByExpr, OrderByOptions, Select, Value,
};
use tidewire_operators::aggregate::functions::{is_within_group, within_group_name};
use tidewire_sql::own_exprs;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use crate::functions;

/// All names that are aggregates without OVER.
const AGGREGATES: &[&str] = &[
    "any_value",
    "approx_count_distinct",
    "approx_distinct",
    "approx_median",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "every",
    "first_value",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "last_value",
    "max",
    "median",
    "min",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
];

/// Those that need WITHIN GROUP.
const ORDERED_SETS: &[&str] = &[
    "approx_percentile_cont",
    "cume_dist",
    "dense_rank",
    "mode",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "rank",
];

fn name_of(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [part] => part.as_ident().map(tidewire_sql::fold),
        _ => None,
    }
}

/// The name of an aggregate function, where the expression is a call of one.
fn aggregate_name(expr: &Expr) -> Option<String> {
    let Expr::Function(function) = expr else { return None };
    if function.over.is_some() {
        return None;
    }
    let name = name_of(function)?;
    let is_aggregate = AGGREGATES.contains(&name.as_str())
        || is_within_group(&name)
        || (!function.within_group.is_empty() && ORDERED_SETS.contains(&name.as_str()));
    is_aggregate.then_some(name)
}

/// Whether an aggregate or a window function stands in a node, subqueries apart.
#[derive(Default)]
struct Found {
    aggregate: bool,
    window: bool,
}

fn found<T: ast::Visit>(node: &T) -> Found {
    let mut found = Found::default();
    let _ = own_exprs(node, &mut |expr| {
        found.aggregate |= aggregate_name(expr).is_some();
        found.window |= matches!(expr, Expr::Function(f) if f.over.is_some());
        ControlFlow::Continue(())
    });
    found
}

fn grouping_error(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::GroupingError, message)
}

/// Whether an aggregate or a window function stands in the items, subqueries apart.
pub(crate) fn in_items(items: &Vec<ast::SelectItem>) -> bool {
    let found = found(items);
    found.aggregate || found.window
}

/// Whether an aggregate is called, other than over a window or in a subquery.
pub(crate) fn has_aggregate(expr: &Expr) -> bool {
    found(expr).aggregate
}

/// A place of a column becomes the column where there are GROUPING SETS, ROLLUP or CUBE. Errors: `42P10` for a place that is none.
pub(crate) fn places_in_sets(select: &mut Select) -> Result<()> {
    let Select { group_by: GroupByExpr::Expressions(exprs, _), projection, .. } = select else { return Ok(()) };
    if !exprs.iter().any(is_set) {
        return Ok(());
    }
    for expr in exprs {
        let columns: Vec<&mut Expr> = match expr {
            Expr::GroupingSets(sets) | Expr::Rollup(sets) | Expr::Cube(sets) => sets.iter_mut().flatten().collect(),
            plain => vec![plain],
        };
        for column in columns {
            let mut inner = &*column;
            while let Expr::Nested(nested) = inner {
                inner = nested.as_ref();
            }
            let Expr::Value(ast::ValueWithSpan { value: Value::Number(place, _), .. }) = inner else { continue };
            let item = place.parse::<usize>().ok().and_then(|place| projection.get(place.checked_sub(1)?));
            let item = item.ok_or_else(|| {
                let message = format!("GROUP BY position {place} is not in select list");
                SqlError::new(SqlState::InvalidColumnReference, message)
            })?;
            if let ast::SelectItem::UnnamedExpr(item) | ast::SelectItem::ExprWithAlias { expr: item, .. } = item {
                *column = item.clone();
            }
        }
    }
    Ok(())
}

/// Refuses aggregates where they cannot stand. Errors: `42803`.
pub(crate) fn check_select(select: &Select) -> Result<()> {
    let refuse = |is_there: bool, place: &str| match is_there {
        true => Err(grouping_error(format!("aggregate functions are not allowed in {place}"))),
        false => Ok(()),
    };
    refuse(select.selection.as_ref().is_some_and(|e| found(e).aggregate), "WHERE")?;
    if let GroupByExpr::Expressions(exprs, _) = &select.group_by {
        refuse(exprs.iter().any(|e| found(e).aggregate), "GROUP BY")?;
    }
    for join in select.from.iter().flat_map(|table| &table.joins) {
        refuse(condition(&join.join_operator).is_some_and(|e| found(e).aggregate), "JOIN conditions")?;
    }
    Ok(())
}

/// HAVING without GROUP BY makes one group of all rows; DataFusion plans that only where there is an aggregate.
pub(crate) fn group_for_having(select: &mut Select) {
    let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let Some(having) = &mut select.having else { return };
    if is_grouped || found(having).aggregate || found(&select.projection).aggregate {
        return;
    }
    let number = |n: &str| Expr::value(Value::Number(n.into(), false));
    let binary = |left: Expr, op, right: Expr| Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) };
    let rows = binary(crate::rewrite::call("count", vec![number("1")]), ast::BinaryOperator::GtEq, number("0"));
    let given = Expr::Nested(Box::new(std::mem::replace(having, number("0"))));
    *having = binary(given, ast::BinaryOperator::And, rows);
}

/// Spells out what DataFusion cannot plan: `ROLLUP ((a, b), c)`, `GROUPING SETS (ROLLUP (a), ..)`, `()`, `(a, b)`.
///
/// Errors: `54001` for more sets than PostgreSQL takes.
pub(crate) fn spell_out_sets(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(exprs, _) = &mut select.group_by else { return Ok(()) };
    let flat = exprs.drain(..).flat_map(|expr| match expr {
        Expr::Tuple(columns) if !columns.is_empty() => columns,
        expr => vec![expr],
    });
    *exprs = flat.collect();
    for expr in exprs.iter_mut() {
        let is_composite =
            |elements: &[Vec<Expr>]| elements.iter().any(|e| e.len() != 1 || matches!(e.as_slice(), [Expr::Tuple(_)]));
        // DataFusion takes each column once.
        let repeats = |elements: &[Vec<Expr>]| {
            elements.iter().enumerate().any(|(idx, e)| elements.iter().take(idx).any(|before| before == e))
        };
        let sets = match expr {
            Expr::Tuple(columns) if columns.is_empty() => vec![vec![]],
            Expr::Rollup(elements) if is_composite(elements) || repeats(elements) => rollup(elements),
            Expr::Cube(elements) if is_composite(elements) || repeats(elements) => cube(elements)?,
            Expr::GroupingSets(sets) if sets.iter().any(|set| nested(set).is_some()) => {
                let mut all = vec![];
                for set in sets.iter() {
                    match nested(set) {
                        Some(("rollup", elements)) => all.extend(rollup(&elements)),
                        Some((_, elements)) => all.extend(cube(&elements)?),
                        None => all.push(set.clone()),
                    }
                }
                all
            }
            _ => continue,
        };
        *expr = Expr::GroupingSets(sets);
    }
    if has_shared_columns(exprs) {
        *exprs = vec![Expr::GroupingSets(product_of_sets(exprs)?)];
    }
    // What is in all sets stands before them, where it can be known for a primary key.
    if let [Expr::GroupingSets(sets)] = exprs.as_mut_slice()
        && let Some((first, others)) = sets.split_first()
    {
        let in_all = |column: &&Expr| others.iter().all(|set| set.contains(column));
        let common: Vec<Expr> = first.iter().filter(in_all).cloned().collect();
        sets.iter_mut().for_each(|set| set.retain(|column| !common.contains(column)));
        exprs.splice(0..0, common);
    }
    Ok(())
}

fn is_set(element: &Expr) -> bool {
    matches!(element, Expr::GroupingSets(_) | Expr::Rollup(_) | Expr::Cube(_))
}

/// Whether a column stands in several elements of a GROUP BY with sets, which DataFusion takes in one only.
fn has_shared_columns(elements: &[Expr]) -> bool {
    let columns = |e: &Expr| match e {
        Expr::GroupingSets(sets) | Expr::Rollup(sets) | Expr::Cube(sets) => sets.concat(),
        plain => vec![plain.clone()],
    };
    let columns: Vec<_> = elements.iter().map(columns).collect();
    let is_shared = |(idx, own): (usize, &Vec<Expr>)| {
        columns.iter().take(idx).any(|before| before.iter().any(|column| own.contains(column)))
    };
    elements.iter().any(is_set) && columns.iter().enumerate().any(is_shared)
}

/// The sets that several elements of a GROUP BY make together. Errors: `54001`.
fn product_of_sets(elements: &[Expr]) -> Result<Vec<Vec<Expr>>> {
    let mut product: Vec<Vec<Expr>> = vec![vec![]];
    for element in elements {
        let sets = match element {
            Expr::GroupingSets(sets) => sets.clone(),
            Expr::Rollup(elements) => rollup(elements),
            Expr::Cube(elements) => cube(elements)?,
            plain => vec![vec![plain.clone()]],
        };
        if product.len().saturating_mul(sets.len()) > crate::grouping_sets::SETS_MAX {
            let message = "too many grouping sets present (maximum 4096)";
            return Err(SqlError::new(SqlState::StatementTooComplex, message));
        }
        product = product.iter().flat_map(|before| sets.iter().map(|set| joined(before, set))).collect();
    }
    Ok(product)
}

/// The columns of both sets, each once.
fn joined(before: &[Expr], set: &[Expr]) -> Vec<Expr> {
    let more = set.iter().filter(|column| !before.contains(column));
    before.iter().chain(more).cloned().collect()
}

/// ROLLUP or CUBE in a list of sets, which the parser takes for a function call: its elements.
fn nested(set: &[Expr]) -> Option<(&'static str, Vec<Vec<Expr>>)> {
    let [Expr::Function(function)] = set else { return None };
    let name = match name_of(function)?.as_str() {
        "rollup" => "rollup",
        "cube" => "cube",
        _ => return None,
    };
    let element = |arg: Expr| match arg {
        Expr::Tuple(columns) => columns,
        Expr::Nested(inner) => vec![*inner],
        other => vec![other],
    };
    Some((name, args(function).into_iter().map(element).collect()))
}

fn rollup(elements: &[Vec<Expr>]) -> Vec<Vec<Expr>> {
    (0..=elements.len()).rev().map(|n| elements.iter().take(n).flatten().cloned().collect()).collect()
}

fn cube(elements: &[Vec<Expr>]) -> Result<Vec<Vec<Expr>>> {
    if elements.len() > 12 {
        return Err(SqlError::new(SqlState::StatementTooComplex, "CUBE is limited to 12 elements"));
    }
    let is_in = |set: usize, idx: usize| set >> (elements.len() - 1 - idx) & 1 == 1;
    let of =
        |set| elements.iter().enumerate().filter(|(idx, _)| is_in(set, *idx)).flat_map(|(_, e)| e.clone()).collect();
    Ok((0..1usize << elements.len()).rev().map(of).collect())
}

fn condition(operator: &JoinOperator) -> Option<&Expr> {
    use JoinOperator as J;
    let constraint = match operator {
        J::Join(c) | J::Inner(c) | J::Left(c) | J::LeftOuter(c) | J::Right(c) | J::RightOuter(c) | J::FullOuter(c) => c,
        _ => return None,
    };
    match constraint {
        JoinConstraint::On(expr) => Some(expr),
        _ => None,
    }
}

/// Refuses aggregates in aggregates, and in the FILTER of a window. Errors: `42803`.
pub(crate) fn check_call(expr: &Expr) -> Result<()> {
    let Expr::Function(function) = expr else { return Ok(()) };
    if function.filter.as_ref().is_some_and(|filter| found(filter.as_ref()).aggregate) {
        return Err(grouping_error("aggregate functions are not allowed in FILTER"));
    }
    if aggregate_name(expr).is_none() {
        return Ok(());
    }
    let (in_args, in_order) = (found(&function.args), found(&function.within_group));
    if in_args.aggregate || in_order.aggregate {
        return Err(grouping_error("aggregate function calls cannot be nested"));
    }
    if in_args.window || in_order.window {
        return Err(grouping_error("aggregate function calls cannot contain window function calls"));
    }
    Ok(())
}

/// Rewrites a call of an aggregate function.
///
/// Errors: `42P10` for DISTINCT with an order by something else, `42809` for a WITHIN GROUP that makes no sense.
pub(crate) fn rewrite_call(expr: &mut Expr) -> Result<()> {
    let Expr::Function(function) = expr else { return Ok(()) };
    let Some(name) = name_of(function) else { return Ok(()) };
    if !function.within_group.is_empty() {
        return within_group(function, &name);
    }
    check_distinct_order(function)?;
    keep_constants(function);
    let is_plain = function.over.is_none();
    match name.as_str() {
        "approx_distinct" | "approx_count_distinct" => {
            if let FunctionArguments::List(list) = &mut function.args {
                list.duplicate_treatment = Some(ast::DuplicateTreatment::Distinct);
            }
            rename(function, "count");
        }
        "median" | "approx_median" if is_plain => {
            if let [value] = args(function).as_slice() {
                let (half, value) = (Expr::value(Value::Number("0.5".into(), false)), value.clone());
                set_call(function, "percentile_cont", vec![half], vec![ascending(value)]);
            }
        }
        // As DataFusion has it: the value first.
        "approx_percentile_cont" | "quantile_cont" | "percentile_cont" if is_plain => {
            if let [value, fraction] | [value, fraction, _] = args(function).as_slice() {
                let (value, fraction) = (value.clone(), fraction.clone());
                set_call(function, "percentile_cont", vec![fraction], vec![ascending(value)]);
            }
        }
        "array_agg" | "string_agg" | "first_value" | "last_value" if is_plain => {
            rename(function, &within_group_name(&name));
        }
        "json_agg" | "jsonb_agg" | "json_object_agg" | "jsonb_object_agg" => {
            let is_object = name.ends_with("object_agg");
            match is_plain || args(function).len() != json_arity(is_object) {
                true => json_call(function, is_object),
                false => *expr = json_over(function, is_object),
            }
            if name.starts_with("jsonb") {
                let json = std::mem::replace(expr, Expr::value(Value::Null));
                *expr = scalar_call(&functions::cast::function_name(&SqlType::Jsonb).unwrap_or_default(), vec![json]);
            }
        }
        _ => {}
    }
    Ok(())
}

fn within_group(function: &mut Function, name: &str) -> Result<()> {
    let mut keys = std::mem::take(&mut function.within_group);
    keys.iter_mut().for_each(|key| nest_number(&mut key.expr));
    let FunctionArguments::List(list) = &function.args else { return Ok(()) };
    if list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct) {
        return Err(SqlError::new(SqlState::SyntaxError, "cannot use DISTINCT with WITHIN GROUP"));
    }
    if function.over.is_some() {
        return Err(SqlError::unsupported(format!("OVER for ordered-set aggregate {name}")));
    }
    let mut direct = args(function);
    if !ORDERED_SETS.contains(&name) {
        let n_args = direct.len() + keys.len();
        let is_of_two = name.starts_with("regr_") || name.starts_with("covar_");
        let n_wanted = if is_of_two || matches!(name, "string_agg" | "json_object_agg" | "corr") { 2 } else { 1 };
        if AGGREGATES.contains(&name) && n_args == n_wanted {
            let message = format!("{name} is not an ordered-set aggregate, so it cannot have WITHIN GROUP");
            return Err(SqlError::new(SqlState::WrongObjectType, message));
        }
        // There is no such function: the planner says so, and names the types.
        direct.extend(keys.into_iter().map(|key| key.expr));
        set_args(function, direct, vec![]);
        return Ok(());
    }
    let name = if name == "approx_percentile_cont" {
        // The number of centroids means nothing here.
        direct.truncate(1);
        "percentile_cont"
    } else {
        name
    };
    set_call(function, name, direct, keys);
    Ok(())
}

/// Makes a call of an ordered-set aggregate.
fn set_call(function: &mut Function, name: &str, direct: Vec<Expr>, keys: Vec<OrderByExpr>) {
    let sorted = keys.iter().map(|key| key.expr.clone());
    set_args(function, direct.into_iter().chain(sorted).collect(), keys.clone());
    rename(function, &within_group_name(name));
}

fn rename(function: &mut Function, name: &str) {
    function.name = ast::ObjectName::from(vec![ast::Ident::with_quote('"', name)]);
}

fn set_args(function: &mut Function, args: Vec<Expr>, order: Vec<OrderByExpr>) {
    let duplicate_treatment = match &function.args {
        FunctionArguments::List(list) => list.duplicate_treatment,
        _ => None,
    };
    let clauses = if order.is_empty() { vec![] } else { vec![FunctionArgumentClause::OrderBy(order)] };
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    function.args = FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args, clauses });
}

fn args(function: &Function) -> Vec<Expr> {
    let FunctionArguments::List(list) = &function.args else { return vec![] };
    let expr = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().filter_map(expr).collect()
}

fn order_of(function: &Function) -> Vec<OrderByExpr> {
    let FunctionArguments::List(list) = &function.args else { return vec![] };
    let order = |clause: &FunctionArgumentClause| match clause {
        FunctionArgumentClause::OrderBy(order) => Some(order.clone()),
        _ => None,
    };
    list.clauses.iter().find_map(order).unwrap_or_default()
}

fn ascending(expr: Expr) -> OrderByExpr {
    OrderByExpr { expr, options: OrderByOptions { asc: None, nulls_first: None }, with_fill: None }
}

fn check_distinct_order(function: &Function) -> Result<()> {
    let FunctionArguments::List(list) = &function.args else { return Ok(()) };
    if list.duplicate_treatment != Some(ast::DuplicateTreatment::Distinct) {
        return Ok(());
    }
    let args: Vec<String> = args(function).iter().map(ToString::to_string).collect();
    if order_of(function).iter().all(|key| args.contains(&key.expr.to_string())) {
        return Ok(());
    }
    let message = "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list";
    Err(SqlError::new(SqlState::InvalidColumnReference, message))
}

/// A number in an ORDER BY here is a constant, and not the number of a column as DataFusion takes it.
fn keep_constants(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    for clause in &mut list.clauses {
        if let FunctionArgumentClause::OrderBy(order) = clause {
            order.iter_mut().for_each(|key| nest_number(&mut key.expr));
        }
    }
}

fn nest_number(expr: &mut Expr) {
    if matches!(expr, Expr::Value(value) if matches!(value.value, Value::Number(..))) {
        let number = std::mem::replace(expr, Expr::value(Value::Null));
        *expr = Expr::Nested(Box::new(number));
    }
}

/// Arguments as json (keys as text), in the order of the arguments where the call has none.
fn json_call(function: &mut Function, is_object: bool) {
    let values = args(function);
    let mut order = order_of(function);
    if order.is_empty() && function.over.is_none() {
        order = values.iter().cloned().map(ascending).collect();
    }
    set_args(function, json_args(values, is_object), order);
    rename(function, if is_object { "json_object_agg" } else { "json_agg" });
}

fn json_arity(is_object: bool) -> usize {
    if is_object { 2 } else { 1 }
}

/// The arrays of a window's values, which are in its order, as one json.
fn json_over(function: &Function, is_object: bool) -> Expr {
    let array = |arg: Expr| {
        let mut call = function.clone();
        set_args(&mut call, vec![arg], order_of(function));
        rename(&mut call, "array_agg");
        Expr::Function(call)
    };
    let arrays = json_args(args(function), is_object).into_iter().map(array).collect();
    scalar_call(if is_object { functions::JSON_MEMBERS } else { functions::JSON_LIST }, arrays)
}

/// The arguments of a json aggregate as json, a key as text. As they are where they are too few or too many.
fn json_args(args: Vec<Expr>, is_object: bool) -> Vec<Expr> {
    let text = functions::cast::function_name(&SqlType::Text).unwrap_or_default();
    let json = |value: &Expr| scalar_call(functions::TO_JSON, vec![value.clone()]);
    match (is_object, args.as_slice()) {
        (false, [value]) => vec![json(value)],
        (true, [key, value]) => vec![scalar_call(&text, vec![key.clone()]), json(value)],
        // The planner says so.
        _ => args,
    }
}

fn scalar_call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
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

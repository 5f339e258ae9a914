//! Literals without a type as arguments of functions, where DataFusion would take them for texts and find no function, or
//! another one. What they are is PostgreSQL's: that of the only function with so many arguments, that of another argument
//! (`generate_series(1, '3')`), or the item of an array (`array_append(a, '3')`).

use sqlparser::ast::{self, DataType, Expr, Subscript, Value};

use super::call;
use super::untyped::is_untyped;
use crate::functions::{ARRAY, any};
use crate::parameters::is_marked;

/// What a literal is.
pub(super) enum Argument {
    /// Of this type.
    Of(DataType),
    /// Of the type of this expression, by the other arguments.
    Like(Box<Expr>),
}

/// Names: the types of their arguments. `_`: whatever it is; `=n`: that of the n-th argument, from 1; `^n`: that of the
/// items of the n-th, `[n]`: an array of such items; `-n`: that of the difference of two such values, or a period; `/n`:
/// that of its root. Functions of other numbers of arguments are others.
const ARGUMENTS: &str = "
    left right repeat substr trim_array: _ int
    substr substring: _ int int
    overlay regexp_count regexp_instr regexp_substr: _ _ int
    overlay regexp_instr regexp_substr: _ _ int int
    regexp_count: _ _ int _
    regexp_instr: _ _ int int int
    regexp_instr: _ _ int int int _
    regexp_instr: _ _ int int int _ int
    regexp_substr: _ _ int int _
    regexp_substr: _ _ int int _ int
    split_part: _ _ int
    lpad rpad: _ int
    lpad rpad: _ int _
    chr ntile: int
    nth_value array_length array_lower array_upper: _ int
    lag lead: _ int
    lag lead: _ int _
    width_bucket: =2 =1 =1 int
    width_bucket: ^2 [1]
    make_date: int int int
    make_time: int int double
    make_timestamp: int int int int int double
    to_timestamp: double
    justify_days justify_hours justify_interval: interval
    round trunc: numeric int
    round trunc ceil ceiling floor sign abs sqrt cbrt exp ln log degrees radians: double
    sin cos tan cot asin acos atan sinh cosh tanh asinh acosh atanh: double
    sind cosd tand cotd asind acosd atand log10: double
    stddev stddev_pop stddev_samp variance var_pop var_samp: double
    atan2 atan2d: double double
    pow power: /2 /1
    div log: numeric numeric
    factorial: int8
    scale min_scale trim_scale: numeric
    percentile_cont percentile_disc: double
    bool_and bool_or every: boolean
    corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy: double double
    gcd lcm: =2 =1
    encode: bytea _
    get_byte: bytea int
    set_byte: bytea int int
    get_bit: bytea int8
    set_bit: bytea int8 int
    sha224 sha256 sha384 sha512: bytea
    json_object jsonb_object: text[]
    json_object jsonb_object: text[] text[]
    json_array_elements json_array_elements_text json_array_length json_each json_each_text: json
    json_object_keys json_strip_nulls json_typeof: json
    jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_each jsonb_each_text: jsonb
    jsonb_object_keys jsonb_pretty jsonb_strip_nulls jsonb_typeof: jsonb
    jsonb_set jsonb_insert: jsonb text[] jsonb
    jsonb_set jsonb_insert: jsonb text[] jsonb boolean
    age: =2 =1
    overlaps: =3 =3 =1 =1
    date_bin: interval =3 =2
    generate_series: =2 =1
    generate_series: =2 =1 -1
    array_append: _ ^1
    array_prepend: ^2 _
    array_position array_positions array_remove: [2] ^1
    array_position: [2] ^1 int
    array_replace: [2] ^1 ^1
    array_fill: _ int[]
    array_fill: _ int[] int[]
    generate_subscripts: _ int
    generate_subscripts: _ int boolean
    current_schemas: boolean
    any: ^2 [1]
";

/// What a literal is as an argument of the function. None: what stands there alone tells it.
pub(super) fn of_function(name: &str, args: &[&Expr], idx: usize) -> Option<Argument> {
    // Functions of `x = ANY (array)` and the other comparisons.
    let name = if any::is_any(name) { "any" } else { name };
    let rules = ARGUMENTS.lines().filter_map(|line| line.split_once(": "));
    let rules = rules.filter(|(names, _)| names.split_whitespace().any(|known| known == name));
    let types = rules.map(|(_, types)| types.split(' ').collect::<Vec<_>>()).find(|types| types.len() == args.len())?;
    let rule = *types.get(idx)?;
    let nth = |digit: &str| {
        let other = digit.parse::<usize>().ok()?.checked_sub(1)?;
        args.get(other).filter(|arg| other != idx && !is_untyped(arg)).map(|other| (*other).clone())
    };
    let like = match rule.split_at_checked(1)? {
        ("_", _) => return None,
        ("=", digit) => nth(digit)?,
        ("^", digit) => item(nth(digit)?),
        ("[", digit) => array(nth(digit.trim_end_matches(']'))?),
        ("/", digit) => call("sqrt", vec![nth(digit)?]),
        ("-", _) if args.get(idx).is_some_and(|step| is_period(step)) => {
            return data_type("interval").map(Argument::Of);
        }
        ("-", digit) => {
            let other = nth(digit)?;
            Expr::BinaryOp { left: Box::new(other.clone()), op: ast::BinaryOperator::Minus, right: Box::new(other) }
        }
        _ => return data_type(rule).map(Argument::Of),
    };
    Some(Argument::Like(Box::new(like)))
}

/// Whether the literal can be no number.
fn is_period(literal: &Expr) -> bool {
    let Expr::Value(value) = literal else { return false };
    let text = value.value.clone().into_string().unwrap_or_default();
    text.parse::<f64>().is_err() && !is_marked(&text)
}

fn data_type(name: &str) -> Option<DataType> {
    Some(match name {
        "int" => DataType::Int(None),
        "int8" => DataType::BigInt(None),
        "int[]" => DataType::Array(ast::ArrayElemTypeDef::SquareBracket(Box::new(DataType::Int(None)), None)),
        "double" => DataType::DoublePrecision,
        "numeric" => DataType::Numeric(ast::ExactNumberInfo::None),
        "boolean" => DataType::Boolean,
        "interval" => DataType::Interval { fields: None, precision: None },
        "bytea" => DataType::Bytea,
        "json" => DataType::JSON,
        "jsonb" => DataType::JSONB,
        "text[]" => DataType::Array(ast::ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None)),
        _ => return None,
    })
}

fn item(array: Expr) -> Expr {
    let first = Expr::value(Value::Number("1".into(), false));
    let access_chain = vec![ast::AccessExpr::Subscript(Subscript::Index { index: first })];
    Expr::CompoundFieldAccess { root: Box::new(Expr::Nested(Box::new(array))), access_chain }
}

fn array(item: Expr) -> Expr {
    call(ARRAY, vec![item])
}

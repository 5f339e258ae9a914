//! The functions and operators that are generated: those that PostgreSQL and Tidewire both have.
//!
//! A line is `result: template`, where `{type}` is an argument. `T` stands for any of the types behind `;;`. `{=0}` is
//! the first argument once more, `{!type}` a literal of that type and `{?type}` one without a type, like `'2024-01-01'`
//! or NULL; in aggregates `{distinct}` is where DISTINCT may stand. Templates avoid errors that depend on rows (they
//! divide by `nullif(x, 0)`), because which of several errors is seen is not a matter of right or wrong. A new function
//! is a line here.

use std::sync::LazyLock;

use super::features::{Feature, Features};
use super::types::Type;

/// A function or operator.
#[derive(Clone, Debug)]
pub struct Function {
    feature: Option<Feature>,
    /// The type of its result.
    pub result: Type,
    /// Its text.
    pub template: Vec<Hole>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hole {
    /// Text.
    Text(String),
    /// An argument.
    Argument(Type),
    /// An argument that is a literal.
    Literal(Type),
    /// A literal without a type, which PostgreSQL takes for one of this type here; or NULL.
    Untyped(Type),
    /// The n-th argument once more.
    Again(usize),
    /// DISTINCT.
    Distinct,
}

impl Function {
    /// Whether it can be used.
    pub fn on(&self, features: &Features) -> bool {
        self.feature.is_none_or(|f| features.has(f))
            && self.types().all(|t| t.feature().is_none_or(|f| features.has(f)))
    }

    fn types(&self) -> impl Iterator<Item = Type> {
        let of_hole = |hole: &Hole| match hole {
            Hole::Argument(ty) | Hole::Literal(ty) | Hole::Untyped(ty) => Some(*ty),
            _ => None,
        };
        std::iter::once(self.result).chain(self.template.iter().filter_map(of_hole))
    }
}

/// Functions of values.
pub static SCALAR: LazyLock<Vec<Function>> = LazyLock::new(|| read_all(SCALAR_LINES));
/// Aggregates.
pub static AGGREGATES: LazyLock<Vec<Function>> = LazyLock::new(|| read_all(AGGREGATE_LINES));
/// Functions that need OVER and give the same for rows that are equal in its order.
pub static RANKING: LazyLock<Vec<Function>> = LazyLock::new(|| read_all(RANKING_LINES));
/// Functions that need OVER with an order without ties.
pub static POSITIONAL: LazyLock<Vec<Function>> = LazyLock::new(|| read_all(POSITIONAL_LINES));
/// Functions that give several rows.
pub static ROWS: LazyLock<Vec<Function>> = LazyLock::new(|| read_all(ROWS_LINES));

type Lines = &'static [(Option<Feature>, &'static str)];

const SCALAR_LINES: Lines = &[
    (
        None,
        "
        bool: ({T} = {T}) ;; every
        bool: ({T} <> {T}) ;; every
        bool: ({T} < {T}) ;; ordered
        bool: ({T} >= {T}) ;; ordered
        bool: ({bool} AND {bool})
        bool: ({bool} OR {bool})
        bool: (NOT {bool})
        bool: ({T} IS NULL) ;; every
        bool: ({T} IS NOT NULL) ;; every
    ",
    ),
    (
        Some(Feature::Conditional),
        "
        T: coalesce({T}, {T}) ;; every
        T: nullif({T}, {T}) ;; every
        T: CASE WHEN {bool} THEN {T} ELSE {T} END ;; every
        T: CASE WHEN {bool} THEN {T} WHEN {bool} THEN {T} END ;; every
        T: CASE {int4} WHEN 1 THEN {T} WHEN {int4} THEN {T} ELSE {T} END ;; every
        T: greatest({T}, {T}, {T}) ;; ordered
        T: least({T}, {T}) ;; ordered
        bool: ({T} IS DISTINCT FROM {T}) ;; every
        bool: ({T} IS NOT DISTINCT FROM {T}) ;; every
        bool: ({T} IN ({T}, {T})) ;; every
        bool: ({T} NOT IN ({T}, {T}, {T})) ;; every
        bool: ({T} BETWEEN {T} AND {T}) ;; ordered
        bool: ({T} NOT BETWEEN {T} AND {T}) ;; ordered
        bool: ({bool} IS TRUE)
        bool: ({bool} IS NOT FALSE)
        bool: ({bool} IS UNKNOWN)
        bool: ({bool} IS NOT UNKNOWN)
    ",
    ),
    (
        Some(Feature::Symmetric),
        "
        bool: ({T} BETWEEN SYMMETRIC {T} AND {T}) ;; ordered
    ",
    ),
    (
        Some(Feature::RowValue),
        "
        bool: (({T}, {int4}) = ({T}, {int4})) ;; ordered
        bool: (({T}, {text}) <> ({T}, {text})) ;; ordered
        bool: (({T}, {int4}) < ({T}, {int4})) ;; ordered
        bool: (({T}, {int4}) >= ({T}, {int4})) ;; ordered
        bool: (({T}, {int4}) IN (({T}, {int4}), ({T}, {int4}))) ;; ordered
        bool: (({int4}, {text}) IS NOT DISTINCT FROM ({int4}, {text}))
    ",
    ),
    (
        Some(Feature::Arithmetic),
        "
        T: ({T} + {T}) ;; numbers
        T: ({T} - {T}) ;; numbers
        T: ({T} * {T}) ;; int4 int8 numeric float8
        T: ({T} / nullif({T}, 0)) ;; numbers
        T: ({T} % nullif({T}, 0)) ;; int2 int4 int8 numeric
        T: (- {T}) ;; numbers
        T: abs({T}) ;; numbers
    ",
    ),
    (
        Some(Feature::MixedTypes),
        "
        int8: ({int4} + {int8})
        int4: ({int2} - {int4})
        int8: ({int8} * {int2})
        numeric: ({int4} * {numeric})
        numeric: ({numeric} + {int8})
        numeric: ({numeric} / nullif({int4}, 0))
        float8: ({float8} + {int4})
        float8: ({float8} * {numeric})
        float8: ({int8} / nullif({float8}, 0))
        bool: ({int4} = {int8})
        bool: ({int2} < {int4})
        bool: ({int4} >= {numeric})
        bool: ({numeric} = {int8})
        bool: ({float8} > {int4})
        bool: ({numeric} < {float8})
        bool: ({date} <= {timestamp})
        bool: ({timestamp} = {date})
        bool: ({timestamptz} > {date})
        bool: ({int8} IN ({int4}, {int2}))
        int8: coalesce({int8}, {int4})
        numeric: coalesce({int4}, {numeric})
        int8: CASE WHEN {bool} THEN {int4} ELSE {int8} END
        float8: greatest({int4}, {float8})
        numeric: CASE WHEN {bool} THEN {int4} ELSE {numeric} END
        numeric: CASE WHEN {bool} THEN {numeric} WHEN {bool} THEN {int8} END
        float8: CASE {int4} WHEN 1 THEN {int4} ELSE {float8} END
        float8: CASE WHEN {bool} THEN {numeric} ELSE {float8} END
        int4: CASE WHEN {bool} THEN {int2} ELSE {int4} END
        timestamp: CASE WHEN {bool} THEN {date} ELSE {timestamp} END
        timestamp: coalesce({date}, {timestamp})
        numeric: least({int4}, {numeric})
        numeric: (ARRAY[{int4}, {numeric}])[1]
    ",
    ),
    (
        Some(Feature::Untyped),
        "
        T: coalesce({T}, {?T}) ;; every
        T: coalesce({?T}, {T}) ;; every
        T: coalesce({?T}, {?T}, {T}) ;; every
        T: nullif({T}, {?T}) ;; every
        T: nullif({?T}, {T}) ;; every
        T: CASE WHEN {bool} THEN {?T} ELSE {T} END ;; every
        T: CASE WHEN {bool} THEN {T} ELSE {?T} END ;; every
        T: CASE WHEN {bool} THEN {?T} WHEN {bool} THEN {?T} ELSE {T} END ;; every
        T: CASE {int4} WHEN {?int4} THEN {?T} WHEN 1 THEN {T} END ;; every
        T: CASE {text} WHEN {?text} THEN {T} ELSE {?T} END ;; every
        T: CASE WHEN {?bool} THEN {T} ELSE {?T} END ;; every
        T: greatest({T}, {?T}) ;; ordered
        T: least({?T}, {T}, {?T}) ;; ordered
        bool: ({T} = {?T}) ;; every
        bool: ({?T} <> {T}) ;; every
        bool: ({T} < {?T}) ;; ordered
        bool: ({?T} >= {T}) ;; ordered
        bool: ({T} IN ({?T}, {?T})) ;; every
        bool: ({T} NOT IN ({?T}, {T})) ;; every
        bool: ({?T} IN ({T})) ;; every
        bool: ({T} BETWEEN {?T} AND {?T}) ;; ordered
        bool: ({?T} NOT BETWEEN {T} AND {T}) ;; ordered
        bool: ({T} IS DISTINCT FROM {?T}) ;; every
        bool: ({?T} IS NOT DISTINCT FROM {T}) ;; every
        bool: ({bool} AND {?bool})
        bool: ({?bool} OR {bool})
        bool: (NOT {?bool})
        bool: (({T}, {int4}) = ({?T}, {?int4})) ;; ordered
        bool: (({T}, {text}) IN (({?T}, {?text}), ({T}, {?text}))) ;; ordered
        bool: (({?T}, {int4}) < ({T}, {?int4})) ;; ordered
        T: ({T} + {?T}) ;; numbers
        T: ({?T} - {T}) ;; numbers
        T: ({T} * {?T}) ;; int4 int8 numeric float8
        int4: ({date} - {?date})
        interval: ({timestamp} - {?timestamp})
        timestamp: ({timestamp} + {?interval})
        timestamptz: ({?interval} + {timestamptz})
        interval: ({interval} + {?interval})
        text: ({text} || {?text})
        text: ({?text} || {text})
        jsonb: ({jsonb} || {?jsonb})
        bool: ({jsonb} @> {?jsonb})
        int4[]: ({int4[]} || {?int4[]})
        text[]: array_append({text[]}, {?text})
        int4: array_position({int4[]}, {?int4})
        bool: ({int4} = ANY({?int4[]}))
        bool: ({text} <> ALL({?text[]}))
        bool: ({?int4} = ANY({int4[]}::int4[]))
        int4[]: ARRAY[{?int4}, {int4}]
        text[]: ARRAY[{text}::text, {?text}]
        text: concat({?text}, {text}, {?text})
        text: replace({text}, {?text}, {?text})
        int4: length({?text})
        bool: ({text} LIKE {?text})
        jsonb: jsonb_build_object('x', {?text}, 'y', {text})
        timestamp: date_trunc('day', {timestamp} + {?interval})
        numeric: extract(epoch FROM {timestamp} - {?timestamp})
    ",
    ),
    (
        Some(Feature::Math),
        "
        numeric: round({numeric})
        numeric: round({numeric}, 1)
        numeric: trunc({numeric})
        numeric: trunc({numeric}, 1)
        T: ceil({T}) ;; numeric float8
        T: floor({T}) ;; numeric float8
        T: sign({T}) ;; numeric float8
        float8: round({float8})
        float8: trunc({float8})
        float8: sqrt(abs({float8}))
        float8: power({float8}, 2)
        float8: cbrt({float8})
        float8: exp(least({float8}, 3))
        float8: ln(abs({float8}) + 1)
        float8: degrees({float8})
        float8: atan2({float8}, 2)
        T: mod({T}, 3) ;; int2 int4 int8 numeric
        T: gcd({T}, {T}) ;; int4 int8
        int4: width_bucket({float8}, 0, 3, 4)
    ",
    ),
    (
        Some(Feature::Bits),
        "
        T: ({T} & {T}) ;; ints
        T: ({T} | {T}) ;; ints
        T: ({T} # {T}) ;; ints
        T: (~ {T}) ;; ints
        T: ({T} << 1) ;; int4 int8
        T: ({T} >> 1) ;; ints
    ",
    ),
    (
        Some(Feature::TextFunctions),
        "
        text: lower({text})
        text: upper({text})
        text: initcap({text})
        text: trim({text})
        text: trim(LEADING 'a' FROM {text})
        text: btrim({text}, 'ab')
        text: ltrim({text})
        text: rtrim({text}, 'b')
        text: substr({text}, {int4})
        text: substr({text}, 1, 2)
        text: substring({text} FROM 2 FOR 1)
        text: left({text}, {int4})
        text: right({text}, {int4})
        text: replace({text}, 'a', {text})
        text: reverse({text})
        text: repeat({text}, 2)
        text: lpad({text}, 4, 'xy')
        text: rpad({text}, 3)
        text: split_part({text}, 'b', 1)
        text: concat({text}, {int4}, {text})
        text: concat_ws('-', {text}, {text})
        text: ({text} || {text})
        text: ({text} || {int4})
        text: translate({text}, 'ab', 'x')
        text: md5({text})
        text: overlay({text} PLACING 'z' FROM 2 FOR 1)
        text: to_hex(abs({int4}))
        text: chr(65 + abs({int4}) % 26)
        text: quote_literal({text})
        text: format('%s-%s', {text}, {int4})
        int4: length({text})
        int4: char_length({text})
        int4: octet_length({text})
        int4: bit_length({text})
        int4: strpos({text}, 'b')
        int4: position('a' IN {text})
        int4: ascii({text})
        bool: starts_with({text}, 'a')
    ",
    ),
    (
        Some(Feature::Like),
        "
        bool: ({text} LIKE 'a%')
        bool: ({text} NOT LIKE '%b')
        bool: ({text} LIKE '_')
        bool: ({text} ILIKE '%B%')
        bool: ({text} NOT ILIKE 'a_b')
        bool: ({text} LIKE {text})
        bool: ({text} LIKE 'a#%' ESCAPE '#')
        bool: ({text} SIMILAR TO '(a|b)%')
    ",
    ),
    (
        Some(Feature::Regex),
        "
        bool: ({text} ~ '^a')
        bool: ({text} ~* 'B$')
        bool: ({text} !~ '[a-c] ')
        text: regexp_replace({text}, '[ab]', 'x')
        text: regexp_replace({text}, '(a)(b)', '\\2\\1', 'g')
        int4: regexp_count({text}, '[a-z]')
        bool: regexp_like({text}, 'a.*b')
        text[]: regexp_match({text}, '(a)(b)?')
        text: substring({text} FROM 'a.')
        text: regexp_substr({text}, 'b.*')
    ",
    ),
    (
        Some(Feature::Time),
        "
        int4: ({date} - {date})
        date: ({date} + {int4})
        date: ({date} - 1)
        interval: ({timestamp} - {timestamp})
        numeric: extract(year FROM {T}) ;; date timestamp timestamptz
        numeric: extract(month FROM {T}) ;; date timestamp
        numeric: extract(dow FROM {T}) ;; date timestamp
        numeric: extract(doy FROM {date})
        numeric: extract(week FROM {T}) ;; date timestamp
        numeric: extract(quarter FROM {date})
        numeric: extract(epoch FROM {T}) ;; date timestamp timestamptz
        numeric: extract(hour FROM {T}) ;; timestamp time
        numeric: extract(second FROM {T}) ;; timestamp time
        float8: date_part('day', {T}) ;; date timestamp
        timestamp: date_trunc('month', {timestamp})
        timestamp: date_trunc('hour', {timestamp})
        timestamp: date_trunc('week', {timestamp})
        timestamptz: date_trunc('day', {timestamptz})
        timestamp: ({timestamptz} AT TIME ZONE 'UTC')
        timestamptz: ({timestamp} AT TIME ZONE 'Europe/Amsterdam')
        date: make_date(2024, 1 + abs({int4}) % 12, 1)
        text: to_char({timestamp}, 'YYYY-MM-DD HH24:MI:SS')
        timestamp: ({date} + {time})
    ",
    ),
    (
        Some(Feature::Interval),
        "
        timestamp: ({timestamp} + {interval})
        timestamp: ({timestamp} - {interval})
        timestamptz: ({timestamptz} + {interval})
        timestamp: ({date} + {interval})
        interval: ({interval} + {interval})
        interval: ({interval} * 2)
        interval: (- {interval})
        interval: ({int4} * interval '1 day')
        interval: age({timestamp}, {timestamp})
        numeric: extract(day FROM {interval})
        numeric: extract(epoch FROM {interval})
        interval: justify_hours({interval})
        time: ({time} + {interval})
    ",
    ),
    (
        Some(Feature::Cast),
        "
        T: {bool}::int4::T ;; int4 int8
        text: {T}::text ;; bool int2 int4 int8 date timestamp timestamptz time uuid jsonb int4[] text[] bytea
        T: {int4}::T ;; int8 numeric float8
        T: {int2}::T ;; int4 int8 numeric float8
        int4: {T}::int4 ;; int2 int8 numeric float8 bool
        int8: CAST({T} AS bigint) ;; numeric float8
        numeric: {numeric}::numeric(6,1)
        bool: {int4}::bool
        date: {timestamp}::date
        date: {timestamptz}::date
        timestamp: {date}::timestamp
        timestamp: {timestamptz}::timestamp
        timestamptz: {timestamp}::timestamptz
        time: {timestamp}::time
        text: {text}::varchar(1)
        text: {interval}::text
        int4: length({text})::text::int4
        float8: {numeric}::float8
        float8: {float8}::float4::float8
    ",
    ),
    (
        Some(Feature::Json),
        "
        text: ({jsonb} ->> 'a')
        jsonb: ({jsonb} || {jsonb})
        jsonb: ({jsonb} -> 'b')
        jsonb: ({jsonb} -> 0)
        jsonb: ({jsonb} -> {text})
        text: ({jsonb} ->> {int4})
        text: ({jsonb} #>> '{b,0}')
        bool: ({jsonb} @> '{\"a\": 1}')
        bool: ({jsonb} ? 'a')
        text: jsonb_typeof({jsonb})
        jsonb: jsonb_build_object('x', {int4}, 'y', {text})
        jsonb: jsonb_build_array({int4}, {text}, {bool})
        jsonb: to_jsonb({T}) ;; int4 text bool
        int4: jsonb_array_length(jsonb_build_array({int4}))
        jsonb: jsonb_strip_nulls({jsonb})
    ",
    ),
    (
        Some(Feature::Array),
        "
        int4: cardinality({T}) ;; int4[] text[]
        int4: array_length({T}, 1) ;; int4[] text[]
        int4: array_upper({int4[]}, 1)
        int4: ({int4[]})[1]
        text: ({text[]})[{int4}]
        int4[]: ({int4[]})[1:2]
        int4[]: array_append({int4[]}, {int4})
        int4[]: array_prepend({int4}, {int4[]})
        int4[]: array_cat({int4[]}, {int4[]})
        int4[]: ({int4[]} || {int4})
        text[]: ({text[]} || {text[]})
        int4[]: array_remove({int4[]}, {int4})
        int4: array_position({int4[]}, {int4})
        int4[]: ARRAY[{int4}, {int4}]
        text[]: ARRAY[{text}::text, {text}, {text}::text]
        bool: ({int4} = ANY({int4[]}::int4[]))
        bool: ({int4} <> ALL({int4[]}::int4[]))
        bool: ({text} = ANY({text[]}::text[]))
        bool: ({int4[]} @> {int4[]})
        bool: ({int4[]} && {int4[]})
        text: array_to_string({text[]}, ',')
        text: array_to_string({text[]}, ',', '*')
        text[]: string_to_array({text}, 'b')
        text[]: array_replace({text[]}, 'a', {text})
    ",
    ),
    (
        Some(Feature::Bytes),
        "
        int4: length({bytea})
        text: encode({bytea}, 'hex')
        bytea: ({bytea} || {bytea})
        bytea: decode(md5({text}), 'hex')
    ",
    ),
];

const AGGREGATE_LINES: Lines = &[
    (
        None,
        "
        int8: count(*)
        int8: count({distinct}{T}) ;; every
        int8: sum({distinct}{T}) ;; int2 int4
        numeric: sum({distinct}{T}) ;; int8 numeric
        float8: sum({float8})
        T: min({T}) ;; minmax
        T: max({T}) ;; minmax
        numeric: avg({distinct}{T}) ;; int2 int4 int8 numeric
        float8: avg({float8})
    ",
    ),
    (
        Some(Feature::Interval),
        "
        interval: sum({interval})
        interval: avg({interval})
    ",
    ),
    (
        Some(Feature::AggregateBits),
        "
        bool: bool_and({bool})
        bool: bool_or({bool})
        bool: every({bool})
        T: bit_and({T}) ;; ints
        T: bit_or({T}) ;; ints
        T: bit_xor({distinct}{T}) ;; ints
    ",
    ),
    (
        Some(Feature::AggregateOrder),
        "
        text: string_agg({distinct}{text}, ',' ORDER BY {=0})
        text: string_agg({text}, '-' ORDER BY {=0} DESC)
        T: array_agg({distinct}{E} ORDER BY {=0}) ;; int4[]
        text[]: array_agg({text} ORDER BY {=0} DESC NULLS LAST)
        jsonb: jsonb_agg({T} ORDER BY {=0}) ;; int4 text bool
        jsonb: jsonb_object_agg('k' || coalesce({text}, '') , 1)
    ",
    ),
    (
        Some(Feature::Statistics),
        "
        numeric: var_pop({T}) ;; int4 numeric
        numeric: stddev({T}) ;; int4 int8
        numeric: variance({distinct}{int4})
        float8: var_samp({float8})
        float8: stddev_pop({float8})
        float8: corr({float8}, {float8})
        float8: covar_pop({float8}, {float8})
        float8: covar_samp({float8}, {float8})
        float8: regr_slope({float8}, {float8})
        float8: regr_intercept({float8}, {float8})
        float8: regr_r2({float8}, {float8})
        float8: regr_avgx({float8}, {float8})
        float8: regr_avgy({float8}, {float8})
        float8: regr_sxy({float8}, {float8})
        int8: regr_count({float8}, {float8})
    ",
    ),
    (
        Some(Feature::OrderedSet),
        "
        float8: percentile_cont(0.5) WITHIN GROUP (ORDER BY {float8})
        float8: percentile_cont(0.25) WITHIN GROUP (ORDER BY {float8} DESC)
        T: percentile_disc(0.5) WITHIN GROUP (ORDER BY {T}) ;; int4 text numeric date
        T: percentile_disc(0.9) WITHIN GROUP (ORDER BY {T} DESC) ;; int4 text
        T: mode() WITHIN GROUP (ORDER BY {T}) ;; int4 text date bool
        int8: rank({!int4}) WITHIN GROUP (ORDER BY {int4})
        int8: dense_rank({!text}) WITHIN GROUP (ORDER BY {text})
        float8: percent_rank({!int4}) WITHIN GROUP (ORDER BY {int4})
        float8: cume_dist({!int4}) WITHIN GROUP (ORDER BY {int4})
    ",
    ),
    (
        Some(Feature::Untyped),
        "
        int8: count({?text})
        text: string_agg({text}, {?text} ORDER BY {=0})
        T: max(coalesce({T}, {?T})) ;; minmax
        int8: count({distinct}coalesce({T}, {?T})) ;; every
        int8: rank({?T}) WITHIN GROUP (ORDER BY {T}) ;; int4 date numeric
    ",
    ),
];

const RANKING_LINES: Lines = &[(
    None,
    "
    int8: rank()
    int8: dense_rank()
    float8: percent_rank()
    float8: cume_dist()
",
)];

const POSITIONAL_LINES: Lines = &[
    (
        None,
        "
        int8: row_number()
        int4: ntile(3)
        T: lag({T}) ;; every
        T: lag({T}, 2, {!T}) ;; int4 text
        T: lead({T}) ;; every
        T: first_value({T}) ;; every
        T: last_value({T}) ;; every
        T: nth_value({T}, 2) ;; every
    ",
    ),
    (
        Some(Feature::Untyped),
        "
        T: lead({T}, 1, {?T}) ;; every
    ",
    ),
];

const ROWS_LINES: Lines = &[
    (
        Some(Feature::GenerateSeries),
        "
        int4: generate_series(1, {int4})
        int4: generate_series({int4}, 3)
        int4: generate_series({int4}, {int4}, 2)
        int8: generate_series({int8}, 2)
        timestamp: generate_series({timestamp}, {=0} + interval '2 days', interval '1 day')
    ",
    ),
    (
        Some(Feature::Unnest),
        "
        int4: unnest({int4[]})
        text: unnest({text[]})
        text: unnest(ARRAY[{text}, 'z'])
    ",
    ),
    (
        Some(Feature::TextRows),
        "
        text: regexp_split_to_table({text}, ' ')
        text: string_to_table({text}, 'b')
        text: jsonb_array_elements_text(jsonb_build_array({int4}, {text}))
        jsonb: jsonb_array_elements(jsonb_build_array({text}, 1))
        text: jsonb_object_keys(jsonb_build_object('p', {int4}, 'q', 1))
        text[]: regexp_matches({text}, '[ab]', 'g')
    ",
    ),
];

fn read_all(lines: Lines) -> Vec<Function> {
    let of_group = |(feature, text): &(Option<Feature>, &'static str)| {
        let feature = *feature;
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
        lines.flat_map(move |line| read_line(line, feature)).collect::<Vec<_>>()
    };
    lines.iter().flat_map(of_group).collect()
}

/// One function for each of the types that T stands for.
fn read_line(line: &str, feature: Option<Feature>) -> Vec<Function> {
    let (text, types) = line.split_once(" ;; ").unwrap_or((line, ""));
    let Some((result, template)) = text.split_once(": ") else { return vec![] };
    let types: Vec<Option<Type>> = match types {
        "" => vec![None],
        "every" => Type::ALL.iter().copied().map(Some).collect(),
        "ordered" => Type::ALL.iter().copied().filter(|t| t.ordered()).map(Some).collect(),
        "minmax" => {
            let without = [Type::Bool, Type::Uuid, Type::Bytea, Type::Jsonb];
            Type::ALL.iter().copied().filter(|t| !without.contains(t)).map(Some).collect()
        }
        "numbers" => vec!["int2", "int4", "int8", "numeric", "float8"].into_iter().map(Type::named).collect(),
        "ints" => vec!["int2", "int4", "int8"].into_iter().map(Type::named).collect(),
        list => list.split(' ').map(Type::named).collect(),
    };
    let of_type = |ty: Option<Type>| {
        let named = |name: &str| match name {
            "T" => ty,
            "E" => Some(if ty == Some(Type::Texts) { Type::Text } else { Type::Int4 }),
            name => Type::named(name),
        };
        let template = template.replace("::T", &format!("::{}", ty.map_or("", Type::sql)));
        Some(Function { feature, result: named(result)?, template: holes(&template, named) })
    };
    types.into_iter().filter_map(of_type).collect()
}

fn holes(template: &str, named: impl Fn(&str) -> Option<Type>) -> Vec<Hole> {
    let mut holes = vec![];
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else { break };
        let hole = match name {
            "distinct" => Some(Hole::Distinct),
            again if again.starts_with('=') => again.trim_start_matches('=').parse().ok().map(Hole::Again),
            literal if literal.starts_with('!') => named(literal.trim_start_matches('!')).map(Hole::Literal),
            untyped if untyped.starts_with('?') => named(untyped.trim_start_matches('?')).map(Hole::Untyped),
            name => named(name).map(Hole::Argument),
        };
        holes.push(Hole::Text(before.to_string()));
        match hole {
            Some(hole) => holes.push(hole),
            // A brace of the text itself: an array or a JSON value.
            None => holes.push(Hole::Text(format!("{{{name}}}"))),
        }
        rest = behind;
    }
    holes.push(Hole::Text(rest.to_string()));
    holes.retain(|h| *h != Hole::Text(String::new()));
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_a_function_for_each_type() {
        let functions = read_line("T: ({T} + {int4}::T) ;; int4 int8", None);
        assert_eq!(functions.iter().map(|f| f.result).collect::<Vec<_>>(), [Type::Int4, Type::Int8]);
        let text = |t: &str| Hole::Text(t.into());
        let expected =
            [text("("), Hole::Argument(Type::Int8), text(" + "), Hole::Argument(Type::Int4), text("::int8)")];
        assert_eq!(functions[1].template, expected);
    }

    #[test]
    fn braces_of_values_stay() {
        let functions = read_line("text: ({jsonb} #>> '{b,0}')", None);
        assert_eq!(functions[0].template[2], Hole::Text(" #>> '".into()));
        assert_eq!(functions[0].template[3], Hole::Text("{b,0}".into()));
    }

    #[test]
    fn every_line_can_be_read() {
        for lines in [SCALAR_LINES, AGGREGATE_LINES, RANKING_LINES, POSITIONAL_LINES, ROWS_LINES] {
            for (feature, text) in lines {
                for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
                    assert!(!read_line(line, *feature).is_empty(), "{line}");
                }
            }
        }
    }
}

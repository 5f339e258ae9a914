//! The aggregate functions as SQL knows them: names, types of arguments and results, and which state computes them.
//!
//! A [`Udaf`] is what DataFusion plans and runs in a batch query; [`function_of`] tells which incremental form a view
//! uses. Both sides stand on the same states, so that a view equals its query. Types are PostgreSQL's: the sum of
//! bigints is a numeric, the average of integers too, and what PostgreSQL has no function for is `42883`.
//!
//! `WITHIN GROUP (ORDER BY ..)` reaches these functions as sort columns behind the direct arguments. Functions that are
//! something else with OVER (`rank`, `first_value`, `array_agg`) have the names that [`within_group_name`] makes.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, TypeSignature, Volatility,
};
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::Function;
use super::batch::{Buffered, MakeMergeable, Merged, rows_type};
use super::bits::Xor;
use super::extremes::BestFloats;
use super::lists::{List, ListCall, Lists};
use super::ordered::{Ordered, is_interpolated, list_of_type, ordered};
use super::statistics::{Statistic, statistics};
use super::totals::totals;
use super::values::{Mergeable, Values};
use crate::expr::{sql_error, to_datafusion};

/// Digits behind the point of an average.
const AVERAGE_SCALE: i8 = 16;
const PRECISION: u8 = 38;

/// All functions. They take the place of DataFusion's of the same name.
pub fn all() -> Vec<AggregateUDF> {
    use {List as L, Native as N, Ordered as O, Statistic as S};
    let lists = [L::Text, L::Array, L::Json, L::JsonObject, L::First, L::Last, L::Any].map(N::List);
    let statistics = [
        S::VarSamp,
        S::VarPop,
        S::StddevSamp,
        S::StddevPop,
        S::CovarSamp,
        S::CovarPop,
        S::Corr,
        S::RegrAvgx,
        S::RegrAvgy,
        S::RegrCount,
        S::RegrIntercept,
        S::RegrR2,
        S::RegrSlope,
        S::RegrSxx,
        S::RegrSxy,
        S::RegrSyy,
    ]
    .map(N::Statistic);
    let ordered = [O::PercentileCont, O::PercentileDisc, O::Mode, O::Rank, O::DenseRank, O::PercentRank, O::CumeDist]
        .map(N::Ordered);
    let plain = [N::Sum, N::Avg, N::Min, N::Max, N::BoolAnd, N::BoolOr, N::BitAnd, N::BitOr, N::BitXor];
    let all = plain.into_iter().chain(lists).chain(statistics).chain(ordered).map(Udaf::new);
    // Functions of their own: an alias would hide from us whose function it is.
    let others = [("variance", S::VarSamp), ("stddev", S::StddevSamp)];
    all.chain(others.map(|(name, statistic)| Udaf::named(name.to_owned(), N::Statistic(statistic)))).collect()
}

/// The one of them that computes `function` in a batch query.
pub fn udaf_of(function: &Function) -> Option<Arc<AggregateUDF>> {
    all().into_iter().find(|udaf| udaf.name() == function.name()).map(Arc::new)
}

const WITHIN_GROUP: &str = " within group";

/// The name under which a function is registered that is another one with OVER.
pub fn within_group_name(name: &str) -> String {
    format!("{name}{WITHIN_GROUP}")
}

/// Whether it is such a name.
pub fn is_within_group(name: &str) -> bool {
    name.ends_with(WITHIN_GROUP)
}

/// The incremental form of a planned function.
pub fn function_of(function: &Arc<AggregateUDF>) -> Function {
    match function.inner().downcast_ref::<Udaf>() {
        Some(udaf) => udaf.native.function(),
        None if function.name() == "count" => Function::Count,
        None => Function::Other(Arc::clone(function)),
    }
}

/// What a function computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Native {
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    BitAnd,
    BitOr,
    BitXor,
    List(List),
    Ordered(Ordered),
    Statistic(Statistic),
}

/// An aggregate function of ours.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Udaf {
    name: String,
    native: Native,
    signature: Signature,
}

/// The columns of a call: their types, and the order of the sort columns at their end.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// Of the arguments, then the ORDER BY columns.
    pub(super) types: Vec<DataType>,
    pub(super) order: Vec<SortOptions>,
}

impl Columns {
    fn n_args(&self) -> usize {
        self.types.len().saturating_sub(self.order.len())
    }

    fn args(&self) -> &[DataType] {
        self.types.get(..self.n_args()).unwrap_or(&self.types)
    }
}

impl Function {
    /// The name as SQL has it.
    pub fn name(&self) -> &str {
        use {List as L, Ordered as O, Statistic as S};
        match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Avg => "avg",
            Function::Min | Function::Ordered(O::First) => "min",
            Function::Max | Function::Ordered(O::Last) => "max",
            Function::BoolAnd => "bool_and",
            Function::BoolOr => "bool_or",
            Function::BitAnd => "bit_and",
            Function::BitOr => "bit_or",
            Function::BitXor => "bit_xor",
            Function::List(L::Text) => "string_agg",
            Function::List(L::Array) => "array_agg",
            Function::List(L::Json) => "json_agg",
            Function::List(L::JsonObject) => "json_object_agg",
            Function::List(L::First) => "first_value",
            Function::List(L::Last) => "last_value",
            Function::List(L::Any) => "any_value",
            Function::Ordered(O::PercentileCont) => "percentile_cont",
            Function::Ordered(O::PercentileDisc) => "percentile_disc",
            Function::Ordered(O::Mode) => "mode",
            Function::Ordered(O::Rank) => "rank",
            Function::Ordered(O::DenseRank) => "dense_rank",
            Function::Ordered(O::PercentRank) => "percent_rank",
            Function::Ordered(O::CumeDist) => "cume_dist",
            Function::Statistic(S::VarPop) => "var_pop",
            Function::Statistic(S::VarSamp) => "var_samp",
            Function::Statistic(S::StddevPop) => "stddev_pop",
            Function::Statistic(S::StddevSamp) => "stddev_samp",
            Function::Statistic(S::CovarPop) => "covar_pop",
            Function::Statistic(S::CovarSamp) => "covar_samp",
            Function::Statistic(S::Corr) => "corr",
            Function::Statistic(S::RegrAvgx) => "regr_avgx",
            Function::Statistic(S::RegrAvgy) => "regr_avgy",
            Function::Statistic(S::RegrCount) => "regr_count",
            Function::Statistic(S::RegrIntercept) => "regr_intercept",
            Function::Statistic(S::RegrR2) => "regr_r2",
            Function::Statistic(S::RegrSlope) => "regr_slope",
            Function::Statistic(S::RegrSxx) => "regr_sxx",
            Function::Statistic(S::RegrSxy) => "regr_sxy",
            Function::Statistic(S::RegrSyy) => "regr_syy",
            Function::Other(function) => function.name(),
        }
    }

    /// The state of a call whose result is in no slot; None where there is another way.
    pub(super) fn values(
        &self,
        columns: &Columns,
        field: &FieldRef,
        distinct: bool,
        ignore_nulls: bool,
    ) -> Result<Option<Box<dyn Values>>> {
        Ok(Some(match self {
            Function::List(function) => Box::new(Lists::new(&ListCall {
                function: *function,
                field,
                distinct,
                ignore_nulls,
                types: &columns.types,
                order: &columns.order,
            })?),
            Function::Ordered(function) => ordered(*function, columns.args(), &columns.order, field)?,
            Function::Min => ordered(Ordered::First, columns.args(), &[], field)?,
            Function::Max => ordered(Ordered::Last, columns.args(), &[], field)?,
            Function::BitXor => Box::new(Xor::new(Arc::clone(field))),
            _ => match self.mergeable(columns.args(), field) {
                Some(state) => state,
                None => return Ok(None),
            },
        }))
    }

    /// The same where its parts can be put together.
    pub(super) fn mergeable(&self, types: &[DataType], field: &FieldRef) -> Option<Box<dyn Mergeable>> {
        let first = types.first()?;
        match self {
            Function::Sum => Some(totals(false, first, field)),
            Function::Avg => Some(totals(true, first, field)),
            Function::Statistic(function) => Some(statistics(*function, types, field)),
            Function::Min | Function::Max if first.is_floating() => {
                Some(Box::new(BestFloats::new(*self == Function::Max, Arc::clone(field))))
            }
            _ => None,
        }
    }

    /// The result over no rows.
    pub(super) fn over_nothing(&self, data_type: &DataType) -> Result<ScalarValue> {
        match self {
            Function::Count => Ok(ScalarValue::Int64(Some(0))),
            Function::Ordered(function) => function.over_nothing(data_type),
            Function::Statistic(function) => function.over_nothing(data_type),
            Function::Other(function) => function.default_value(data_type).map_err(sql_error),
            _ => ScalarValue::try_new_null(data_type).map_err(sql_error),
        }
    }
}

impl Native {
    fn function(self) -> Function {
        match self {
            Native::Sum => Function::Sum,
            Native::Avg => Function::Avg,
            Native::Min => Function::Min,
            Native::Max => Function::Max,
            Native::BoolAnd => Function::BoolAnd,
            Native::BoolOr => Function::BoolOr,
            Native::BitAnd => Function::BitAnd,
            Native::BitOr => Function::BitOr,
            Native::BitXor => Function::BitXor,
            Native::List(list) => Function::List(list),
            Native::Ordered(ordered) => Function::Ordered(ordered),
            Native::Statistic(statistic) => Function::Statistic(statistic),
        }
    }
}

impl Udaf {
    #[expect(clippy::new_ret_no_self, reason = "nobody needs the bare one")]
    fn new(native: Native) -> AggregateUDF {
        let function = native.function();
        let name = match native {
            // DataFusion's of these names are those of windows, whose rows have an order already.
            Native::List(List::Text | List::Array | List::First | List::Last) => within_group_name(function.name()),
            Native::Ordered(_) => within_group_name(function.name()),
            _ => function.name().to_owned(),
        };
        Udaf::named(name, native)
    }

    fn named(name: String, native: Native) -> AggregateUDF {
        let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
        let signature = Signature::one_of(any, Volatility::Immutable);
        AggregateUDF::from(Udaf { name, native, signature })
    }

    /// `42883`, with the types of the arguments.
    fn undefined(&self, types: &[SqlType]) -> SqlError {
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        let name = self.name.trim_end_matches(WITHIN_GROUP);
        let message = format!("function {name}({}) does not exist", types.join(", "));
        SqlError::new(SqlState::UndefinedFunction, message).with_hint(
            "No function matches the given name and argument types. You might need to add explicit type casts.",
        )
    }

    /// The result's type. None: there is no such function.
    fn result(&self, types: &[SqlType], fields: &[FieldRef]) -> Option<Field> {
        let of = |sql_type: SqlType| Some(sql_type.field(&self.name, true));
        let same = |field: &FieldRef| Some(field.as_ref().clone().with_name(&self.name).with_nullable(true));
        let array_of = |item: Field| Some(Field::new(&self.name, list_of_type(item), true));
        match (self.native, types, fields) {
            (Native::Sum, [t], _) => of(sum_type(t)?),
            (Native::Avg, [t], _) => of(average_type(t)?),
            // They are functions of text.
            (Native::Min | Native::Max, [SqlType::Varchar(_)], _) => of(SqlType::Text),
            (Native::Min | Native::Max, [t], [field]) if is_ordered(t) => same(field),
            (Native::BoolAnd | Native::BoolOr, [SqlType::Bool | SqlType::Null], _) => of(SqlType::Bool),
            (
                Native::BitAnd | Native::BitOr | Native::BitXor,
                [SqlType::Int2 | SqlType::Int4 | SqlType::Int8],
                [field],
            ) => same(field),
            (Native::Statistic(f), [y, x], _) if f.is_of_pairs() && is_number(y) && is_number(x) => {
                of(if f == Statistic::RegrCount { SqlType::Int8 } else { SqlType::Float8 })
            }
            (Native::Statistic(f), [t], _) if !f.is_of_pairs() && is_number(t) => of(average_type(t)?),
            (Native::List(list), types, fields) => self.list_result(list, types, fields),
            (Native::Ordered(function), types, fields) => {
                let n_direct = function.n_direct(types.len());
                let (direct, sorted) = types.split_at(n_direct);
                let key = fields.get(n_direct)?;
                if function.is_hypothetical() {
                    let is_rank = matches!(function, Ordered::Rank | Ordered::DenseRank);
                    let matches = !direct.is_empty() && direct.len() == sorted.len();
                    return of(if is_rank { SqlType::Int8 } else { SqlType::Float8 }).filter(|_| matches);
                }
                let [_] = sorted else { return None };
                let item = match function {
                    Ordered::Mode => return same(key),
                    Ordered::PercentileCont if !is_interpolated(key.data_type()) => return None,
                    Ordered::PercentileCont if key.data_type().is_numeric() => SqlType::Float8.field(&self.name, true),
                    _ => same(key)?,
                };
                match direct {
                    [SqlType::Array(fraction)] if is_number(fraction) => array_of(item),
                    [fraction] if is_number(fraction) || *fraction == SqlType::Null => Some(item),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn list_result(&self, list: List, types: &[SqlType], fields: &[FieldRef]) -> Option<Field> {
        let of = |sql_type: SqlType| Some(sql_type.field(&self.name, true));
        match (list, types, fields) {
            (List::Text, [value, separator], _) if is_text(value) && is_text(separator) => of(SqlType::Text),
            (List::Text, [SqlType::Bytea, SqlType::Bytea | SqlType::Null], _) => of(SqlType::Bytea),
            (List::Array, [_], [field]) => {
                let item = field.as_ref().clone();
                Some(Field::new(&self.name, list_of_type(item), true))
            }
            (List::Json, [_], _) | (List::JsonObject, [_, _], _) => of(SqlType::Json),
            (List::First | List::Last | List::Any, [_], [field]) => {
                Some(field.as_ref().clone().with_name(&self.name).with_nullable(true))
            }
            _ => None,
        }
    }
}

fn is_number(sql_type: &SqlType) -> bool {
    use SqlType as T;
    matches!(sql_type, T::Int2 | T::Int4 | T::Int8 | T::Float4 | T::Float8 | T::Numeric(_))
}

fn is_text(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Null)
}

/// Whether PostgreSQL has min and max of the type.
fn is_ordered(sql_type: &SqlType) -> bool {
    use SqlType as T;
    match sql_type {
        T::Bool | T::Bytea | T::Uuid | T::Json | T::Jsonb | T::Struct(_) => false,
        T::Array(item) => !matches!(**item, T::Json),
        _ => true,
    }
}

fn sum_type(sql_type: &SqlType) -> Option<SqlType> {
    use SqlType as T;
    Some(match sql_type {
        T::Int2 | T::Int4 => T::Int8,
        T::Int8 => T::Numeric(Some((PRECISION, 0))),
        T::Numeric(None) => T::Numeric(None),
        T::Numeric(Some((_, scale))) => T::Numeric(Some((PRECISION, *scale))),
        T::Float4 => T::Float4,
        T::Float8 => T::Float8,
        T::Interval => T::Interval,
        _ => return None,
    })
}

/// Of averages and variances.
fn average_type(sql_type: &SqlType) -> Option<SqlType> {
    use SqlType as T;
    Some(match sql_type {
        T::Int2 | T::Int4 | T::Int8 | T::Numeric(None) => T::Numeric(Some((PRECISION, AVERAGE_SCALE))),
        T::Numeric(Some((_, scale))) => T::Numeric(Some((PRECISION, AVERAGE_SCALE.max(*scale)))),
        T::Float4 | T::Float8 => T::Float8,
        T::Interval => T::Interval,
        _ => return None,
    })
}

fn columns_of(args: &AccumulatorArgs<'_>) -> DfResult<Columns> {
    let mut types: Vec<DataType> = args.expr_fields.iter().map(|f| f.data_type().clone()).collect();
    for key in args.order_bys {
        types.push(key.expr.data_type(args.schema)?);
    }
    Ok(Columns { types, order: args.order_bys.iter().map(|key| key.options).collect() })
}

impl Udaf {
    fn merged(&self, args: &AccumulatorArgs<'_>, columns: &Columns) -> Option<Merged> {
        let (function, types, field) =
            (self.native.function(), columns.args().to_vec(), Arc::clone(&args.return_field));
        if args.is_distinct {
            return None;
        }
        function.mergeable(&types, &field)?;
        let made = Arc::clone(&field);
        let make: MakeMergeable = Box::new(move || match function.mergeable(&types, &made) {
            Some(state) => state,
            // It was there a moment ago.
            None => totals(false, &DataType::Int64, &made),
        });
        Some(Merged::new(make, field))
    }

    fn buffered(&self, args: &AccumulatorArgs<'_>, columns: Columns) -> Buffered {
        let (function, field) = (self.native.function(), Arc::clone(&args.return_field));
        let (distinct, ignore_nulls) = (args.is_distinct, args.ignore_nulls);
        let is_order_free = matches!(self.native, Native::Min | Native::Max);
        let n_distinct = (distinct && !is_order_free).then(|| columns.n_args());
        let types = columns.types.clone();
        let made = Arc::clone(&field);
        let make = Box::new(move || {
            let values = function.values(&columns, &made, distinct, ignore_nulls)?;
            values.ok_or_else(|| SqlError::internal("a function without a state"))
        });
        Buffered::new(make, field, &types, n_distinct)
    }

    /// DataFusion's own, where it is right.
    fn delegate(&self, types: &[DataType], distinct: bool) -> Option<Arc<AggregateUDF>> {
        use datafusion::functions_aggregate::{bit_and_or_xor as bits, bool_and_or as bools, min_max};
        let is_simple = |t: &DataType| !t.is_nested() && !t.is_floating() && !matches!(t, DataType::Interval(_));
        let is_simple = types.first().is_none_or(is_simple);
        match self.native {
            Native::Min if is_simple => Some(min_max::min_udaf()),
            Native::Max if is_simple => Some(min_max::max_udaf()),
            Native::BoolAnd => Some(bools::bool_and_udaf()),
            Native::BoolOr => Some(bools::bool_or_udaf()),
            Native::BitAnd => Some(bits::bit_and_udaf()),
            Native::BitOr => Some(bits::bit_or_udaf()),
            Native::BitXor if !distinct => Some(bits::bit_xor_udaf()),
            _ => None,
        }
    }
}

impl AggregateUDFImpl for Udaf {
    fn name(&self) -> &str {
        &self.name
    }

    /// With the casts of the arguments: `sum(x)` and `sum(x::int)` are two columns.
    fn schema_name(&self, params: &AggregateFunctionParams) -> DfResult<String> {
        let shown = |exprs: &mut dyn Iterator<Item = String>| exprs.collect::<Vec<_>>().join(",");
        let args = shown(&mut params.args.iter().map(ToString::to_string));
        let distinct = if params.distinct { "DISTINCT " } else { "" };
        let mut name = format!("{}({distinct}{args})", self.name.trim_end_matches(WITHIN_GROUP));
        if let Some(treatment) = &params.null_treatment {
            name += &format!(" {treatment}");
        }
        if let Some(filter) = &params.filter {
            name += &format!(" FILTER (WHERE {filter})");
        }
        if !params.order_by.is_empty() {
            name += &format!(" ORDER BY [{}]", shown(&mut params.order_by.iter().map(ToString::to_string)));
        }
        Ok(name)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        let fields: Vec<FieldRef> = types.iter().map(|t| Arc::new(Field::new("", t.clone(), true))).collect();
        Ok(self.return_field(&fields)?.data_type().clone())
    }

    fn return_field(&self, fields: &[FieldRef]) -> DfResult<FieldRef> {
        let types: Vec<SqlType> = fields.iter().map(|f| SqlType::of(f)).collect();
        match self.result(&types, fields) {
            Some(field) => Ok(Arc::new(field)),
            None => Err(to_datafusion(self.undefined(&types))),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        let columns = columns_of(&args)?;
        if let Some(delegate) = self.delegate(&columns.types, args.is_distinct) {
            return delegate.accumulator(args);
        }
        Ok(match self.merged(&args, &columns) {
            Some(merged) => Box::new(merged),
            None => Box::new(self.buffered(&args, columns)),
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> DfResult<Box<dyn Accumulator>> {
        let columns = columns_of(&args)?;
        if let Some(delegate) = self.delegate(&columns.types, args.is_distinct) {
            return delegate.create_sliding_accumulator(args);
        }
        Ok(match self.merged(&args, &columns) {
            // The best of what has left is not known any more.
            Some(merged) if !matches!(self.native, Native::Min | Native::Max) => Box::new(merged),
            _ => Box::new(self.buffered(&args, columns).sliding()),
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match columns_of(&args).map(|columns| self.delegate(&columns.types, args.is_distinct)) {
            Ok(Some(delegate)) => delegate.groups_accumulator_supported(args),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> DfResult<Box<dyn GroupsAccumulator>> {
        let columns = columns_of(&args)?;
        if let Some(delegate) = self.delegate(&columns.types, args.is_distinct) {
            return delegate.create_groups_accumulator(args);
        }
        Ok(match self.merged(&args, &columns) {
            Some(merged) => Box::new(merged),
            None => Box::new(self.buffered(&args, columns)),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DfResult<Vec<FieldRef>> {
        let mut types: Vec<DataType> = args.input_fields.iter().map(|f| f.data_type().clone()).collect();
        if let Some(delegate) = self.delegate(&types, args.is_distinct) {
            return delegate.state_fields(args);
        }
        let mergeable = match args.is_distinct {
            true => None,
            false => self.native.function().mergeable(&types, &args.return_field),
        };
        types.extend(args.ordering_fields.iter().map(|f| f.data_type().clone()));
        let states = mergeable.map_or_else(|| vec![rows_type(&types)], |state| state.state_types());
        let field = |(idx, t)| Arc::new(Field::new(format!("{}[state {idx}]", args.name), t, true));
        Ok(states.into_iter().enumerate().map(field).collect())
    }

    fn default_value(&self, data_type: &DataType) -> DfResult<ScalarValue> {
        self.native.function().over_nothing(data_type).map_err(to_datafusion)
    }

    /// The rows come with their sort columns, and are sorted here.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        match self.native {
            Native::List(_) | Native::Ordered(_) => AggregateOrderSensitivity::Beneficial,
            _ => AggregateOrderSensitivity::Insensitive,
        }
    }

    fn with_beneficial_ordering(self: Arc<Self>, _: bool) -> DfResult<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn supports_null_handling_clause(&self) -> bool {
        matches!(self.native, Native::List(List::First | List::Last | List::Any))
    }
}

//! The names and types of PostgreSQL's window functions. DataFusion plans them; the window operator computes them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::planner::{PlannerResult, RawWindowExpr};
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use datafusion::logical_expr::{
    ColumnarValue, Expr, PartitionEvaluator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowUDF, WindowUDFImpl, lit,
};
use tidewire_operators::window::Function;
use tidewire_types::{SqlError, SqlType};

use super::FRAME;
use crate::functions::cast::external;

const NAMES: [(&str, Function); 11] = [
    ("row_number", Function::RowNumber),
    ("rank", Function::Rank),
    ("dense_rank", Function::DenseRank),
    ("percent_rank", Function::PercentRank),
    ("cume_dist", Function::CumeDist),
    ("ntile", Function::Ntile),
    ("lag", Function::Lag),
    ("lead", Function::Lead),
    ("first_value", Function::FirstValue),
    ("last_value", Function::LastValue),
    ("nth_value", Function::NthValue),
];

/// All of them, to register in a session.
pub(crate) fn all() -> Vec<WindowUDF> {
    NAMES.iter().map(|(name, function)| WindowUDF::from(Declared::new(name, function))).collect()
}

/// A call of `row_number()`.
pub(crate) fn row_number() -> Expr {
    let function = Arc::new(WindowUDF::from(Declared::new("row_number", &Function::RowNumber)));
    Expr::from(WindowFunction::new(function, vec![]))
}

/// Whether PostgreSQL has a window function of that name.
pub(crate) fn is_window(name: &str) -> bool {
    by_name(name).is_some()
}

/// The function of that name.
pub(crate) fn by_name(name: &str) -> Option<Function> {
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, function)| function.clone())
}

/// A window function that is only declared: the plans that run hold the operator in the place of DataFusion's node.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Declared {
    name: &'static str,
    signature: Signature,
}

impl Declared {
    fn new(name: &'static str, function: &Function) -> Declared {
        let exact = |types: Vec<DataType>| TypeSignature::Exact(types);
        let type_signature = match function {
            Function::Ntile => exact(vec![DataType::Int64]),
            Function::FirstValue | Function::LastValue => TypeSignature::Any(1),
            Function::NthValue | Function::Lag | Function::Lead => TypeSignature::UserDefined,
            _ => TypeSignature::Nullary,
        };
        Declared { name, signature: Signature::new(type_signature, Volatility::Immutable) }
    }
}

impl WindowUDFImpl for Declared {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Err(external(SqlError::internal(format_args!("{} outside of a window operator", self.name))))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let named = |sql_type: SqlType| Arc::new(sql_type.field(args.name(), true));
        Ok(match by_name(self.name) {
            Some(Function::RowNumber | Function::Rank | Function::DenseRank) => named(SqlType::Int8),
            Some(Function::PercentRank | Function::CumeDist) => named(SqlType::Float8),
            Some(Function::Ntile) => named(SqlType::Int4),
            _ => match args.get_input_field(0) {
                Some(field) if field.data_type().is_null() => named(SqlType::Text),
                Some(field) => Arc::new(Field::clone(&field).with_name(args.name()).with_nullable(true)),
                None => return plan_err!("{} needs an argument", self.name),
            },
        })
    }

    /// `nth_value(value, n)`; `lag(value, offset, default)`, where value and default have one type.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_offset = |t: &DataType| t.is_integer() || t.is_null();
        let is_nth = self.name == "nth_value";
        match types {
            [value] if !is_nth => Ok(vec![value.clone()]),
            [value, offset] if is_offset(offset) => Ok(vec![value.clone(), DataType::Int64]),
            [value, offset, default] if !is_nth && is_offset(offset) => {
                // DataFusion would read texts as numbers.
                let is_text = |t: &DataType| t.is_string();
                if is_text(value) != is_text(default) && !value.is_null() && !default.is_null() {
                    return plan_err!("no common type");
                }
                let both = match (value.is_null(), default.is_null()) {
                    (true, _) => Some(default.clone()),
                    (_, true) => Some(value.clone()),
                    _ => type_union_resolution(&[value.clone(), default.clone()]),
                };
                match both {
                    Some(both) => Ok(vec![both.clone(), DataType::Int64, both]),
                    None => plan_err!("no common type"),
                }
            }
            _ => plan_err!("wrong arguments"),
        }
    }
}

/// The call that carries a frame, see [`super`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct FrameCall {
    signature: Signature,
}

/// The function that carries a frame, while the query is being planned.
pub(crate) fn frame() -> ScalarUDF {
    ScalarUDF::from(FrameCall { signature: Signature::variadic_any(Volatility::Immutable) })
}

impl ScalarUDFImpl for FrameCall {
    fn name(&self) -> &str {
        FRAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(external(SqlError::internal("a frame is no value")))
    }
}

/// Takes a window's frame out of the call that carries it: its words and offsets come first in PARTITION BY.
pub(crate) fn plan(mut window: RawWindowExpr) -> PlannerResult<RawWindowExpr> {
    let is_frame = |e: &Expr| matches!(e, Expr::ScalarFunction(call) if call.func.name() == FRAME);
    let carried = window.partition_by.iter().position(is_frame).map(|idx| window.partition_by.remove(idx));
    if let Some(Expr::ScalarFunction(ScalarFunction { args, .. })) = carried {
        let mut args = args.into_iter();
        let words = match args.next() {
            Some(Expr::Literal(value, _)) => value.try_as_str().flatten().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let words = lit(ScalarValue::Utf8View(Some(format!("{FRAME}{words}"))));
        window.partition_by.splice(0..0, std::iter::once(words).chain(args));
    }
    // DataFusion's frame says nothing, in a form that its rules accept with any ORDER BY.
    let everything = ScalarValue::UInt64(None);
    window.window_frame = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(everything.clone()),
        WindowFrameBound::Following(everything),
    );
    PlannerResult::Original(window)
}

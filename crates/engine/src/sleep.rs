//! `pg_sleep(seconds)`: a query that takes its time, which a client can cancel.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::compute;
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use tidewire_types::SqlType;

/// A year: no client waits longer.
const SECONDS_MAX: f64 = 31_536_000.0;

/// The function to register.
pub(crate) fn function() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Float64], Volatility::Volatile);
    AsyncScalarUDF::new(Arc::new(Sleep { signature })).into_scalar_udf()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sleep {
    signature: Signature,
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// PostgreSQL's void is shown as an empty text.
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SqlType::Text.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("pg_sleep() is called asynchronously")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let Some(seconds) = args.args.first() else { return internal_err!("pg_sleep() without an argument") };
        let seconds: ArrayRef = compute::cast(&seconds.to_array(args.number_rows)?, &DataType::Float64)?;
        let seconds = seconds.as_primitive::<Float64Type>();
        let total: f64 = seconds.iter().flatten().filter(|seconds| *seconds > 0.0).sum();
        pause_for(Duration::from_secs_f64(total.min(SECONDS_MAX))).await;
        let slept: StringViewArray = seconds.iter().map(|seconds| seconds.map(|_| "")).collect();
        Ok(ColumnarValue::Array(Arc::new(slept)))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is what the client asks for")]
async fn pause_for(pause: Duration) {
    tokio::time::sleep(pause).await;
}

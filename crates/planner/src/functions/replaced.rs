//! Functions that DataFusion has under the same name, with other results: `concat`, `concat_ws`, and digests, which give
//! bytes, `gen_random_uuid`; and `convert_from`, which it has not.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::crypto;
use datafusion::functions::string::uuid;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use tidewire_operators::expr::sql_error;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::text;

pub(super) fn all() -> Vec<ScalarUDF> {
    let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
    let bytes = [crypto::digest(), crypto::sha224(), crypto::sha256(), crypto::sha384(), crypto::sha512()];
    let mut all: Vec<_> = bytes.into_iter().map(|inner| ScalarUDF::from(Bytes { inner })).collect();
    all.extend([
        ScalarUDF::from(Concat { separated: false, signature: Signature::new(any, Volatility::Immutable) }),
        ScalarUDF::from(Concat { separated: true, signature: Signature::variadic_any(Volatility::Immutable) }),
        ScalarUDF::from(RandomUuid { inner: uuid::UuidFunc::new() }),
        ScalarUDF::from(ConvertFrom { signature: Signature::any(2, Volatility::Immutable) }),
    ]);
    all
}

/// The texts of all arguments that are not NULL, as PostgreSQL shows values (a boolean is `t`).
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    /// `concat_ws`: the first argument stands between the others.
    separated: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        if self.separated { "concat_ws" } else { "concat" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if types.len() <= usize::from(self.separated) {
            let types: Vec<_> = types.iter().map(|t| SqlType::of_data_type(t).to_string()).collect();
            let message = format!("function {}({}) does not exist", self.name(), types.join(", "));
            return Err(external(SqlError::new(SqlState::UndefinedFunction, message)));
        }
        Ok(SqlType::Text.data_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalars = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let n_rows = if all_scalars { 1 } else { args.number_rows };
        let mut texts = vec![];
        for (arg, field) in args.args.iter().zip(&args.arg_fields) {
            texts.push(shown(&arg.to_array(n_rows)?, &SqlType::of(field))?);
        }
        let mut output = StringViewBuilder::with_capacity(n_rows);
        let mut joined = String::new();
        let (separators, texts) = texts.split_at(usize::from(self.separated));
        let text_of = |texts: &ArrayRef, row| texts.is_valid(row).then(|| texts.as_string_view().value(row).to_owned());
        for row in 0..n_rows {
            let separator = match separators.first() {
                None => String::new(),
                Some(separators) => match text_of(separators, row) {
                    Some(separator) => separator,
                    None => {
                        output.append_null();
                        continue;
                    }
                },
            };
            joined.clear();
            for (idx, text) in texts.iter().filter(|text| text.is_valid(row)).enumerate() {
                if idx > 0 {
                    joined.push_str(&separator);
                }
                joined.push_str(text.as_string_view().value(row));
            }
            output.append_value(&joined);
        }
        finished(Arc::new(output.finish()), all_scalars)
    }
}

/// Values as PostgreSQL shows them.
pub fn show(values: &ArrayRef, sql_type: &SqlType) -> Result<ArrayRef, SqlError> {
    shown(values, sql_type).map_err(sql_error)
}

/// As PostgreSQL shows a value where it becomes text by itself.
pub(super) fn shown(array: &ArrayRef, sql_type: &SqlType) -> Result<ArrayRef> {
    match array.as_boolean_opt() {
        None => text::of(array, sql_type),
        Some(flags) => {
            let mut output = StringViewBuilder::with_capacity(flags.len());
            for flag in flags {
                output.append_option(flag.map(|flag| if flag { "t" } else { "f" }));
            }
            Ok(Arc::new(output.finish()))
        }
    }
}

fn finished(output: ArrayRef, scalar: bool) -> Result<ColumnarValue> {
    match scalar {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&output, 0)?)),
        false => Ok(ColumnarValue::Array(output)),
    }
}

/// DataFusion's `uuid`, whose value is a text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RandomUuid {
    inner: uuid::UuidFunc,
}

impl ScalarUDFImpl for RandomUuid {
    fn name(&self) -> &str {
        "gen_random_uuid"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SqlType::Uuid.data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(SqlType::Uuid.field(self.name(), false)))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.return_field = Arc::new(Field::new(self.name(), self.inner.return_type(&[])?, false));
        self.inner.invoke_with_args(args)?.cast_to(&SqlType::Uuid.data_type(), None)
    }
}

/// DataFusion's, whose `Binary` would not go together with a bytea, a `BinaryView`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bytes {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Bytes {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types).map(|_| SqlType::Bytea.data_type())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<_> = args.args.iter().map(ColumnarValue::data_type).collect();
        args.return_field = Arc::new(Field::new(self.name(), self.inner.return_type(&types)?, true));
        self.inner.invoke_with_args(args)?.cast_to(&SqlType::Bytea.data_type(), None)
    }
}

/// `convert_from(bytea, encoding)`, for UTF8.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ConvertFrom {
    signature: Signature,
}

impl ScalarUDFImpl for ConvertFrom {
    fn name(&self) -> &str {
        "convert_from"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SqlType::Text.data_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| SqlType::of(f)).collect();
        match types.as_slice() {
            [SqlType::Bytea | SqlType::Null, SqlType::Text | SqlType::Varchar(_) | SqlType::Null] => {
                Ok(Arc::new(SqlType::Text.field(self.name(), true)))
            }
            other => {
                let types: Vec<_> = other.iter().map(ToString::to_string).collect();
                let message = format!("function convert_from({}) does not exist", types.join(", "));
                Err(external(SqlError::new(SqlState::UndefinedFunction, message)))
            }
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [bytes, encoding] = args.args.as_slice() else {
            return Err(external(SqlError::internal("two arguments")));
        };
        let encodings = compute::cast(&encoding.to_array(1)?, &DataType::Utf8View)?;
        for name in encodings.as_string_view().iter().flatten() {
            if !is_utf8(name) {
                return Err(external(SqlError::unsupported(format!("convert_from with encoding \"{name}\""))));
            }
        }
        if matches!(encoding, ColumnarValue::Scalar(scalar) if scalar.is_null()) {
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(None)));
        }
        by_bytes(bytes, args.number_rows, |bytes| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let bad = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
                let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{bad:02x}");
                Err(SqlError::new(SqlState::CharacterNotInRepertoire, message))
            }
        })
    }
}

pub(super) fn is_utf8(encoding: &str) -> bool {
    ["utf8", "utf-8", "unicode"].iter().any(|name| encoding.eq_ignore_ascii_case(name))
}

fn by_bytes(
    value: &ColumnarValue,
    n_rows: usize,
    show: impl Fn(&[u8]) -> Result<String, SqlError>,
) -> Result<ColumnarValue> {
    let scalar = matches!(value, ColumnarValue::Scalar(_));
    let input = compute::cast(&value.to_array(if scalar { 1 } else { n_rows })?, &DataType::BinaryView)?;
    let mut output = StringViewBuilder::with_capacity(input.len());
    for bytes in input.as_binary_view() {
        output.append_option(bytes.map(&show).transpose().map_err(external)?);
    }
    finished(Arc::new(output.finish()), scalar)
}

//! Patterns of LIKE and SIMILAR TO in the forms that DataFusion knows: LIKE's with a backslash as its escape, SIMILAR
//! TO's as a regular expression. [`crate::rewrite`] puts the calls in.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::compute;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use tidewire_types::{SqlError, SqlState};

use super::cast::external;

/// `LIKE pattern ESCAPE e` is `LIKE like_escape(pattern, e)`.
pub(crate) const LIKE_ESCAPE: &str = "like_escape";
/// `SIMILAR TO pattern [ESCAPE e]` is `~ similar_to_escape(pattern [, e])`.
pub(crate) const SIMILAR_TO_ESCAPE: &str = "similar_to_escape";

/// The functions to register.
pub(super) fn all() -> Vec<ScalarUDF> {
    let function = |name| {
        let text = |n| TypeSignature::String(n);
        let counts = if name == LIKE_ESCAPE { vec![text(2)] } else { vec![text(1), text(2)] };
        ScalarUDF::from(Pattern { name, signature: Signature::one_of(counts, Volatility::Immutable) })
    };
    vec![function(LIKE_ESCAPE), function(SIMILAR_TO_ESCAPE)]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Pattern {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Pattern {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = arrays.iter().map(|array| compute::cast(array, &DataType::Utf8View));
        let texts: Vec<ArrayRef> = texts.collect::<Result<_, _>>()?;
        let Some(patterns) = texts.first() else { return Err(external(SqlError::internal("no argument"))) };
        let translate = if self.name == LIKE_ESCAPE { like } else { similar };
        let translated = patterns.as_string_view().iter().enumerate().map(|(row, pattern)| {
            let escape = match texts.get(1) {
                None => Some("\\"),
                Some(escapes) => escapes.as_string_view().iter().nth(row).flatten(),
            };
            let (Some(pattern), Some(escape)) = (pattern, escape) else { return Ok(None) };
            escape_char(escape).and_then(|escape| translate(pattern, escape)).map(Some).map_err(external)
        });
        let output: ArrayRef = Arc::new(translated.collect::<Result<StringViewArray>>()?);
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&output, 0)?),
            false => ColumnarValue::Array(output),
        })
    }
}

/// None: no character is an escape.
fn escape_char(escape: &str) -> Result<Option<char>, SqlError> {
    let mut chars = escape.chars();
    match (chars.next(), chars.next()) {
        (first, None) => Ok(first),
        _ => Err(SqlError::new(SqlState::InvalidEscapeSequence, "invalid escape string")
            .with_hint("Escape string must be empty or one character.")),
    }
}

fn like(pattern: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut translated = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            let Some(escaped) = chars.next() else {
                return Err(SqlError::new(
                    SqlState::InvalidEscapeSequence,
                    "LIKE pattern must not end with escape character",
                ));
            };
            translated.extend(['\\', escaped]);
        } else if c == '\\' {
            translated.push_str("\\\\");
        } else {
            translated.push(c);
        }
    }
    Ok(translated)
}

/// As PostgreSQL's `similar_escape` does it. Errors: `0A000` for the separators of `substring(.. SIMILAR ..)`.
fn similar(pattern: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut regex = String::from("(?s)^(?:");
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => match chars.next() {
                Some('"') if !in_class => return Err(SqlError::unsupported("a separator in a pattern of SIMILAR TO")),
                Some(escaped) => regex.extend(['\\', escaped]),
                None => {}
            },
            c if in_class => {
                if c == '\\' {
                    regex.push('\\');
                }
                regex.push(c);
                in_class = c != ']';
            }
            '[' => {
                regex.push(c);
                in_class = true;
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => regex.push_str("(?:"),
            '\\' | '.' | '^' | '$' => regex.extend(['\\', c]),
            c => regex.push(c),
        }
    }
    regex.push_str(")$");
    Ok(regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_get_a_backslash_as_their_escape() {
        assert_eq!(like("a#%\\b##", Some('#')).unwrap(), "a\\%\\\\b\\#");
        assert_eq!(like("a\\_", None).unwrap(), "a\\\\_");
        assert!(like("a#", Some('#')).is_err());
        assert!(escape_char("ab").is_err());
    }

    #[test]
    fn patterns_of_similar_to_are_regular_expressions() {
        assert_eq!(similar("(a|b)%", Some('\\')).unwrap(), "(?s)^(?:(?:a|b).*)$");
        assert_eq!(similar("a.[b%]#%_", Some('#')).unwrap(), "(?s)^(?:a\\.[b%]\\%.)$");
    }
}

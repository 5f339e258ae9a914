//! Pieces of a json document as they are written: an element of a json keeps its blanks and digits.

use datafusion::common::{DataFusionError, Result};
use serde::de::IgnoredAny;
use tidewire_types::{SqlError, SqlState};

use super::cast::external;

/// An item of a document: its key, where the document is an object, and its value, both as they are written.
pub(super) type Item<'a> = (Option<&'a str>, &'a str);

/// `22P02`
pub(super) fn invalid() -> DataFusionError {
    external(SqlError::new(SqlState::InvalidTextRepresentation, "invalid input syntax for type json"))
}

/// A document without blanks around it. Errors: `22P02` if it is none.
pub(super) fn checked(document: &str) -> Result<&str> {
    serde_json::from_str::<IgnoredAny>(document).map_err(|_| invalid())?;
    Ok(document.trim_matches(is_blank))
}

/// The value of a field of a valid document; of fields that are there twice, the last.
pub(super) fn by_key<'a>(document: &'a str, key: &str) -> Option<&'a str> {
    if !document.starts_with('{') {
        return None;
    }
    let is_named = |item: &&Item<'_>| item.0.is_some_and(|own| unquoted(own).is_ok_and(|own| own == key));
    cut(document).iter().rev().find(is_named).map(|(_, value)| *value)
}

/// The element of an array. Negative indices count from the end.
pub(super) fn by_index(document: &str, idx: i64) -> Option<&str> {
    if !document.starts_with('[') {
        return None;
    }
    let items = cut(document);
    let idx = if idx < 0 { idx.checked_add(i64::try_from(items.len()).ok()?)? } else { idx };
    items.get(usize::try_from(idx).ok()?).map(|(_, value)| *value)
}

/// One step of a path: the name of a field, or the index of an element.
pub(super) fn by_step<'a>(document: &'a str, step: &str) -> Option<&'a str> {
    match document.starts_with('[') {
        true => by_index(document, step.parse().ok()?),
        false => by_key(document, step),
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Cuts a valid array or object, without blanks around it, at its commas (and colons).
pub(super) fn cut(document: &str) -> Vec<Item<'_>> {
    let mut items = vec![];
    let is_object = document.starts_with('{');
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut begin = 1;
    let mut key = None;
    let part = |begin: usize, end: usize| document.get(begin..end).unwrap_or_default().trim_matches(is_blank);
    for (at, byte) in document.bytes().enumerate() {
        if in_string {
            (in_string, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b':' if depth == 1 && is_object => {
                key = Some(part(begin, at));
                begin = at + 1;
            }
            b',' | b']' | b'}' if depth == 1 => {
                let value = part(begin, at);
                // Nothing stands in `[]`.
                if !value.is_empty() {
                    items.push((key.take(), value));
                }
                begin = at + 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    items
}

/// A string, without its quotes and escapes.
pub(super) fn unquoted(text: &str) -> Result<String> {
    serde_json::from_str(text).map_err(|_| invalid())
}

/// As `->>` shows it: a string without its quotes, null as NULL.
pub(super) fn as_text(value: &str) -> Result<Option<String>> {
    match value.as_bytes().first() {
        Some(b'"') => unquoted(value).map(Some),
        _ if value == "null" => Ok(None),
        _ => Ok(Some(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_cut_at_its_outermost_level() {
        assert_eq!(cut("[]"), []);
        assert_eq!(cut("{ }"), []);
        assert_eq!(
            cut(r#"[1, "a,]\"" , [2,3],{"x":1} ]"#).iter().map(|i| i.1).collect::<Vec<_>>(),
            ["1", r#""a,]\"""#, "[2,3]", r#"{"x":1}"#]
        );
        let twice = r#"{"b" : 1, "a": {"b": [2]}, "b": "\\"}"#;
        assert_eq!(cut(twice), [(Some(r#""b""#), "1"), (Some(r#""a""#), r#"{"b": [2]}"#), (Some(r#""b""#), r#""\\""#)]);
    }

    #[test]
    fn keys_indices_and_paths_find_values() {
        let document = r#"{"a": [1, {"b" : "x"}], "\u0061": [2,  3]}"#;
        let find = |path: &[&str]| path.iter().try_fold(document, |document, step| by_step(document, step));
        assert_eq!(find(&["a"]), Some("[2,  3]"));
        assert_eq!(find(&["a", "-2"]), Some("2"));
        assert_eq!(find(&["a", "5"]), None);
        assert_eq!(find(&["b"]), None);
        assert_eq!(by_index("[1, 2]", i64::MIN), None);
        assert_eq!(by_key("5", "a"), None);
    }

    #[test]
    fn text_is_without_quotes() {
        assert_eq!(as_text(r#""\u00e9\n""#).unwrap().as_deref(), Some("é\n"));
        assert_eq!(as_text("null").unwrap(), None);
        assert_eq!(as_text("1.50").unwrap().as_deref(), Some("1.50"));
    }
}

//! `substring(text FROM pattern)` and `regexp_substr`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, StringViewArray};
use arrow::datatypes::Int32Type;
use datafusion::common::Result;
use tidewire_types::SqlType;

use super::cast::external;
use super::defined::{Definition, Overload, implied};
use super::sets::Pattern;

/// What `substring(text FROM pattern)` calls.
pub(super) static SUBSTRING: Definition = Definition { name: "substring", resolve: substring };

/// The functions to register.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "regexp_count",
        resolve: |types| Overload::exact(types, &[SqlType::Text, SqlType::Text], SqlType::Int4, count),
    },
    Definition { name: "regexp_substr", resolve: |types| of_texts(types, |c, _| first_match(c, false)) },
];

/// From a place, or what a pattern finds.
fn substring(types: &[SqlType]) -> Option<Overload> {
    match types {
        [text, SqlType::Int2 | SqlType::Int4] if implied(text, &SqlType::Text) => {
            Some(Overload { args: vec![SqlType::Text, SqlType::Int4], result: SqlType::Text, call: from_place })
        }
        _ => of_texts(types, |c, _| first_match(c, true)),
    }
}

fn from_place(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [texts, places] = columns else {
        return Err(external(tidewire_types::SqlError::internal("two arguments")));
    };
    let rows = texts.as_string_view().iter().zip(places.as_primitive::<Int32Type>()).map(|pair| {
        let (text, place) = (pair.0?, pair.1?);
        let n_before = usize::try_from(place.saturating_sub(1)).unwrap_or(0);
        Some(text.chars().skip(n_before).collect::<String>())
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

fn of_texts(types: &[SqlType], call: super::defined::Call) -> Option<Overload> {
    Overload::exact(types, &[SqlType::Text, SqlType::Text], SqlType::Text, call)
}

fn count(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let counts = by_row(columns, |pattern, subject| i32::try_from(pattern.regex().find_iter(subject).count()).ok())?;
    Ok(Arc::new(counts.into_iter().collect::<Int32Array>()))
}

/// What the pattern finds first; `group`: only its first group, if it has one.
fn first_match(columns: &[ArrayRef], group: bool) -> Result<ArrayRef> {
    let found = by_row(columns, |pattern, subject| {
        let captures = pattern.regex().captures(subject)?;
        let found = if group && captures.len() > 1 { captures.get(1) } else { captures.get(0) };
        found.map(|found| found.as_str().to_owned())
    })?;
    Ok(Arc::new(found.into_iter().collect::<StringViewArray>()))
}

/// What `of` makes of the pattern and the text of each row.
fn by_row<T>(columns: &[ArrayRef], of: impl Fn(&Pattern, &str) -> Option<T>) -> Result<Vec<Option<T>>> {
    let [subjects, patterns] = columns else {
        return Err(external(tidewire_types::SqlError::internal("two arguments")));
    };
    let mut last: Option<Pattern> = None;
    let rows = subjects.as_string_view().iter().zip(patterns.as_string_view()).map(|pair| {
        let (Some(subject), Some(text)) = pair else { return Ok(None) };
        if last.as_ref().is_none_or(|pattern| pattern.text() != text) {
            last = Some(Pattern::new(text, "").map_err(external)?);
        }
        Ok(last.as_ref().and_then(|pattern| of(pattern, subject)))
    });
    rows.collect()
}

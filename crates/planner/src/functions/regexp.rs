//! `substring(text FROM pattern)`, `regexp_substr`, `regexp_instr`, `regexp_count`, `regexp_like`, `regexp_match` and
//! `regexp_split_to_array`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListBuilder, StringViewArray, StringViewBuilder,
};
use arrow::datatypes::Int32Type;
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::byte_parts;
use super::cast::external;
use super::defined::{Definition, Overload, implied};
use super::sets::{Pattern, groups, split_at};

/// What `substring(text FROM pattern)` calls.
pub(super) static SUBSTRING: Definition = Definition { name: "substring", resolve: substring };

/// The functions to register.
pub(super) static ALL: &[Definition] = &[
    Definition { name: "regexp_count", resolve: |types| searching(types, COUNT, SqlType::Int4, count) },
    Definition { name: "regexp_substr", resolve: |types| searching(types, SUBSTR, SqlType::Text, substr) },
    Definition { name: "regexp_instr", resolve: |types| searching(types, INSTR, SqlType::Int4, instr) },
    Definition { name: "regexp_like", resolve: |types| searching(types, LIKE, SqlType::Bool, like) },
    Definition { name: "regexp_match", resolve: |types| searching(types, MATCH, texts(), first_groups) },
    Definition { name: "regexp_split_to_array", resolve: |types| searching(types, SPLIT, texts(), split) },
];

/// An argument behind the text and the pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arg {
    /// The character to begin at, from 1.
    Start,
    /// Which match, from 1.
    Nth,
    /// 1: the place behind the match.
    End,
    Flags,
    /// Which group of the pattern, 0 for all of it.
    Group,
}

const COUNT: &[Arg] = &[Arg::Start, Arg::Flags];
const SUBSTR: &[Arg] = &[Arg::Start, Arg::Nth, Arg::Flags, Arg::Group];
const INSTR: &[Arg] = &[Arg::Start, Arg::Nth, Arg::End, Arg::Flags, Arg::Group];
const LIKE: &[Arg] = &[Arg::Flags];
const MATCH: &[Arg] = &[Arg::Flags];
const SPLIT: &[Arg] = &[Arg::Flags];

fn texts() -> SqlType {
    SqlType::Array(Box::new(SqlType::Text))
}

fn searching(types: &[SqlType], args: &[Arg], result: SqlType, call: super::defined::Call) -> Option<Overload> {
    let more = args.iter().map(|arg| if *arg == Arg::Flags { SqlType::Text } else { SqlType::Int4 });
    let wanted: Vec<_> = [SqlType::Text, SqlType::Text].into_iter().chain(more).collect();
    Overload::exact(types, wanted.get(..types.len().max(2))?, result, call)
}

/// One row's search.
struct Search<'a> {
    /// The text from where the search begins.
    text: &'a str,
    /// How many characters stand before it.
    n_before: usize,
    pattern: &'a Pattern,
    nth: usize,
    at_end: bool,
    group: usize,
}

impl Search<'_> {
    /// The match that is asked for: where its group begins and ends.
    fn found(&self) -> Option<(usize, usize)> {
        let captures = self.pattern.regex().captures_iter(self.text).nth(self.nth - 1)?;
        captures.get(self.group).map(|group| (group.start(), group.end()))
    }
}

/// What `of` makes of each row without a NULL. Errors: `22023` for an argument out of range, `2201B` for a pattern.
fn search<T>(columns: &[ArrayRef], args: &[Arg], name: &str, of: impl Fn(&Search<'_>) -> T) -> Result<Vec<Option<T>>> {
    let [subjects, patterns, rest @ ..] = columns else { return Err(external(SqlError::internal("two arguments"))) };
    let mut last: Option<(String, Pattern)> = None;
    let rows = subjects.as_string_view().iter().zip(patterns.as_string_view()).enumerate().map(|(row, pair)| {
        let (Some(text), Some(pattern)) = pair else { return Ok(None) };
        let (mut start, mut nth, mut end, mut group, mut flags) = (1, 1, 0, 0, "");
        for (column, arg) in rest.iter().zip(args) {
            if column.is_null(row) {
                return Ok(None);
            }
            let (slot, parameter, min, max) = match arg {
                Arg::Flags => {
                    flags = column.as_string_view().value(row);
                    continue;
                }
                Arg::Start => (&mut start, "start", 1, i32::MAX),
                Arg::Nth => (&mut nth, "n", 1, i32::MAX),
                Arg::End => (&mut end, "endoption", 0, 1),
                Arg::Group => (&mut group, "subexpr", 0, i32::MAX),
            };
            *slot = column.as_primitive::<Int32Type>().value(row);
            if !(min..=max).contains(slot) {
                return Err(invalid(format!("invalid value for parameter \"{parameter}\": {slot}")));
            }
        }
        if flags.contains('g') {
            return Err(invalid(format!("{name}() does not support the \"global\" option")));
        }
        if last.as_ref().is_none_or(|(known, last)| known != flags || last.text() != pattern) {
            last = Some((flags.to_owned(), Pattern::new(pattern, flags)?));
        }
        let Some((_, pattern)) = &last else { return Ok(None) };
        let n_before = (start - 1) as usize;
        let text =
            text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(n_before).and_then(|at| text.get(at..));
        Ok(text.map(|text| {
            of(&Search { text, n_before, pattern, nth: nth as usize, at_end: end == 1, group: group as usize })
        }))
    });
    rows.collect::<Result<_, SqlError>>().map_err(external)
}

fn invalid(message: String) -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, message)
}

fn count(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let of = |search: &Search<'_>| search.pattern.regex().find_iter(search.text).count();
    let counts = search(columns, COUNT, "regexp_count", of)?;
    Ok(Arc::new(counts.into_iter().map(|n| n.map(|n| i32::try_from(n).unwrap_or(i32::MAX))).collect::<Int32Array>()))
}

fn substr(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let of =
        |search: &Search<'_>| search.found().and_then(|(start, end)| Some(search.text.get(start..end)?.to_owned()));
    let found = search(columns, SUBSTR, "regexp_substr", of)?;
    Ok(Arc::new(found.into_iter().map(Option::flatten).collect::<StringViewArray>()))
}

/// The place of the match, in characters from 1; 0 where there is none.
fn instr(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let of = |search: &Search<'_>| {
        let Some((start, end)) = search.found() else { return 0 };
        let n_chars = |at: usize| search.text.get(..at).map_or(0, |before| before.chars().count());
        let place = search.n_before + n_chars(if search.at_end { end } else { start }) + 1;
        i32::try_from(place).unwrap_or(i32::MAX)
    };
    let places = search(columns, INSTR, "regexp_instr", of)?;
    Ok(Arc::new(places.into_iter().collect::<Int32Array>()))
}

fn like(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let found = search(columns, LIKE, "regexp_like", |search| search.pattern.regex().is_match(search.text))?;
    Ok(Arc::new(found.into_iter().collect::<BooleanArray>()))
}

fn split(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let of = |search: &Search<'_>| {
        let parts = split_at(search.text, search.pattern.regex());
        parts.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut output = ListBuilder::new(StringViewBuilder::new()).with_field(SqlType::Text.field("item", true));
    for parts in search(columns, SPLIT, "regexp_split_to_array", of)? {
        parts.iter().flatten().for_each(|part| output.values().append_value(part));
        output.append(parts.is_some());
    }
    Ok(Arc::new(output.finish()))
}

/// The groups of the first match.
fn first_groups(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let of = |search: &Search<'_>| {
        let captures = search.pattern.regex().captures(search.text)?;
        Some(groups(&captures).map(|group| group.map(str::to_owned)).collect::<Vec<_>>())
    };
    let mut output = ListBuilder::new(StringViewBuilder::new()).with_field(SqlType::Text.field("item", true));
    for groups in search(columns, MATCH, "regexp_match", of)? {
        let groups = groups.flatten();
        groups.iter().flatten().for_each(|group| output.values().append_option(group.as_ref()));
        output.append(groups.is_some());
    }
    Ok(Arc::new(output.finish()))
}

/// From a place, or what a pattern finds.
fn substring(types: &[SqlType]) -> Option<Overload> {
    match types {
        [text, SqlType::Int2 | SqlType::Int4] if implied(text, &SqlType::Text) => {
            Some(Overload { args: vec![SqlType::Text, SqlType::Int4], result: SqlType::Text, call: from_place })
        }
        [SqlType::Bytea, _] => byte_parts::part_of(types),
        _ => of_texts(types, first_match),
    }
}

fn from_place(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let [texts, places] = columns else {
        return Err(external(SqlError::internal("two arguments")));
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

/// What the pattern finds first: its first group, if it has one.
fn first_match(columns: &[ArrayRef], _: &[SqlType]) -> Result<ArrayRef> {
    let found = by_row(columns, |pattern, subject| {
        let captures = pattern.regex().captures(subject)?;
        groups(&captures).next().flatten().map(str::to_owned)
    })?;
    Ok(Arc::new(found.into_iter().collect::<StringViewArray>()))
}

/// What `of` makes of the pattern and the text of each row.
fn by_row<T>(columns: &[ArrayRef], of: impl Fn(&Pattern, &str) -> Option<T>) -> Result<Vec<Option<T>>> {
    let [subjects, patterns] = columns else {
        return Err(external(SqlError::internal("two arguments")));
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

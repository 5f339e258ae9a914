//! Sets from text: `regexp_matches`, `regexp_split_to_table`, `string_to_table`.
//!
//! Regular expressions are those of Rust's regex crate, which the other regular expression functions use too.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::compute;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result};
use regex::{Captures, Regex, RegexBuilder};
use tidewire_operators::flat_map::{SetFunction, Sets};
use tidewire_types::{SqlError, SqlState, SqlType};

use super::column;
use crate::functions::cast::external;

fn are_texts(types: &[SqlType]) -> bool {
    types.iter().all(|t| matches!(t, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Null))
}

/// The arguments as texts.
fn texts(args: &[ArrayRef]) -> Result<Vec<StringViewArray>> {
    args.iter().map(|arg| Ok(compute::cast(arg, &DataType::Utf8View)?.as_string_view().clone())).collect()
}

fn value(texts: &StringViewArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

/// A pattern with its flags, compiled.
#[derive(Clone, Debug)]
pub(in crate::functions) struct Pattern {
    text: String,
    flags: String,
    regex: Regex,
    /// All matches and not only the first.
    global: bool,
}

impl Pattern {
    /// Errors: `2201B`, `22023`.
    pub(in crate::functions) fn new(text: &str, flags: &str) -> Result<Pattern, SqlError> {
        let (mut literal, mut global) = (false, false);
        let (mut ignore_case, mut dot_matches_new_line, mut multi_line, mut extended) = (false, true, false, false);
        for flag in flags.chars() {
            match flag {
                'g' => global = true,
                'i' => ignore_case = true,
                'c' => ignore_case = false,
                'n' | 'm' => (dot_matches_new_line, multi_line) = (false, true),
                's' => (dot_matches_new_line, multi_line) = (true, false),
                'p' => (dot_matches_new_line, multi_line) = (false, false),
                'w' => (dot_matches_new_line, multi_line) = (true, true),
                'x' => extended = true,
                't' => extended = false,
                'q' => literal = true,
                'b' | 'e' => {}
                other => {
                    let message = format!("invalid regular expression option: \"{other}\"");
                    return Err(SqlError::new(SqlState::InvalidParameterValue, message));
                }
            }
        }
        let escaped = literal.then(|| regex::escape(text));
        let regex = RegexBuilder::new(escaped.as_deref().unwrap_or(text))
            .case_insensitive(ignore_case)
            .dot_matches_new_line(dot_matches_new_line)
            .multi_line(multi_line)
            .ignore_whitespace(extended)
            .build()
            .map_err(|error| {
                let message = error.to_string();
                let reason = message.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
                let message = format!("invalid regular expression: {reason}");
                SqlError::new(SqlState::InvalidRegularExpression, message)
            })?;
        Ok(Pattern { text: text.into(), flags: flags.into(), regex, global })
    }

    /// As it was written.
    pub(in crate::functions) fn text(&self) -> &str {
        &self.text
    }

    pub(in crate::functions) fn regex(&self) -> &Regex {
        &self.regex
    }
}

#[derive(Debug)]
struct RegexpSet {
    name: &'static str,
    fields: Vec<FieldRef>,
    /// The last pattern: mostly all rows have the same.
    last: Mutex<Option<Pattern>>,
}

pub(super) fn matches(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    regexp(name, types, &SqlType::Array(Box::new(SqlType::Text)))
}

pub(super) fn split(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    regexp(name, types, &SqlType::Text)
}

fn regexp(name: &'static str, types: &[SqlType], result: &SqlType) -> Option<Arc<dyn SetFunction>> {
    let fits = (2..=3).contains(&types.len()) && are_texts(types);
    fits.then(|| -> Arc<dyn SetFunction> {
        Arc::new(RegexpSet { name, fields: vec![column(result, name)], last: Mutex::new(None) })
    })
}

impl RegexpSet {
    fn pattern(&self, text: &str, flags: &str) -> Result<Pattern> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(|p| p.text == text && p.flags == flags) {
            return Ok(known.clone());
        }
        let pattern = Pattern::new(text, flags).map_err(external)?;
        Ok(last.insert(pattern).clone())
    }

    /// Calls `each` with the text and the pattern of every row without a NULL; it says how many rows it makes.
    fn rows(
        &self,
        args: &[ArrayRef],
        n_rows: usize,
        mut each: impl FnMut(&str, &Pattern) -> Result<u32>,
    ) -> Result<Vec<u32>> {
        let args = texts(args)?;
        let [subjects, patterns, rest @ ..] = args.as_slice() else {
            return Err(external(SqlError::internal("too few arguments")));
        };
        let mut counts = Vec::with_capacity(n_rows);
        for row in 0..n_rows {
            let flags = rest.first().map_or(Some(""), |flags| value(flags, row));
            counts.push(match (value(subjects, row), value(patterns, row), flags) {
                (Some(subject), Some(pattern), Some(flags)) => each(subject, &self.pattern(pattern, flags)?)?,
                _ => 0,
            });
        }
        Ok(counts)
    }

    fn all_matches(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets> {
        let item = Arc::new(SqlType::Text.field("item", true));
        let mut output = ListBuilder::new(StringViewBuilder::new()).with_field(item);
        let counts = self.rows(args, n_rows, |subject, pattern| {
            let n_max = if pattern.global { usize::MAX } else { 1 };
            let mut n = 0;
            for captures in pattern.regex.captures_iter(subject).take(n_max) {
                groups(&captures).for_each(|group| output.values().append_option(group));
                output.append(true);
                n += 1;
            }
            Ok(n)
        })?;
        Ok(Sets { counts, columns: vec![Arc::new(output.finish())] })
    }

    fn all_parts(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets> {
        let mut output = StringViewBuilder::new();
        let counts = self.rows(args, n_rows, |subject, pattern| {
            if pattern.global {
                let message = format!("{}() does not support the \"global\" option", self.name);
                return Err(external(SqlError::new(SqlState::InvalidParameterValue, message)));
            }
            let parts = split_at(subject, &pattern.regex);
            parts.iter().for_each(|part| output.append_value(part));
            Ok(parts.len() as u32)
        })?;
        Ok(Sets { counts, columns: vec![Arc::new(output.finish())] })
    }
}

/// The groups of a match, None for one that has no part in it; the whole match where the pattern has no groups.
pub(in crate::functions) fn groups<'a>(captures: &'a Captures<'a>) -> impl Iterator<Item = Option<&'a str>> {
    let skip = usize::from(captures.len() > 1);
    captures.iter().skip(skip).map(|group| group.map(|group| group.as_str()))
}

/// The text between matches. Empty matches at the ends of the text or right behind another match do not count.
pub(in crate::functions) fn split_at<'a>(subject: &'a str, regex: &Regex) -> Vec<&'a str> {
    let mut parts = vec![];
    let mut at = 0;
    for found in regex.find_iter(subject).filter(|m| m.start() < subject.len()) {
        if found.end() > at {
            parts.push(subject.get(at..found.start()).unwrap_or_default());
            at = found.end();
        }
    }
    parts.push(subject.get(at..).unwrap_or_default());
    parts
}

impl SetFunction for RegexpSet {
    fn name(&self) -> &str {
        self.name
    }

    fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    fn call(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets, DataFusionError> {
        match self.name {
            "regexp_matches" => self.all_matches(args, n_rows),
            _ => self.all_parts(args, n_rows),
        }
    }
}

/// The parts of a text between delimiters.
#[derive(Debug)]
struct StringToTable {
    fields: Vec<FieldRef>,
}

pub(super) fn parts(name: &'static str, types: &[SqlType]) -> Option<Arc<dyn SetFunction>> {
    let fits = (2..=3).contains(&types.len()) && are_texts(types);
    fits.then(|| -> Arc<dyn SetFunction> { Arc::new(StringToTable { fields: vec![column(&SqlType::Text, name)] }) })
}

impl SetFunction for StringToTable {
    fn name(&self) -> &str {
        "string_to_table"
    }

    fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    fn call(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets, DataFusionError> {
        let args = texts(args)?;
        let [subjects, delimiters, rest @ ..] = args.as_slice() else {
            return Err(external(SqlError::internal("too few arguments")));
        };
        let mut counts = Vec::with_capacity(n_rows);
        let mut output = StringViewBuilder::new();
        for row in 0..n_rows {
            let parts = match value(subjects, row) {
                None | Some("") => vec![],
                Some(subject) => match value(delimiters, row) {
                    None => subject.split("").filter(|part| !part.is_empty()).collect(),
                    Some("") => vec![subject],
                    Some(delimiter) => subject.split(delimiter).collect(),
                },
            };
            let null = rest.first().and_then(|nulls| value(nulls, row));
            parts.iter().for_each(|part| output.append_option((Some(*part) != null).then_some(part)));
            counts.push(parts.len() as u32);
        }
        Ok(Sets { counts, columns: vec![Arc::new(output.finish())] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_matches_at_the_ends_do_not_split() {
        let split = |subject, pattern: &str| split_at(subject, &Regex::new(pattern).unwrap());
        assert_eq!(split("abc", ""), ["a", "b", "c"]);
        assert_eq!(split("a  b c", r"\s+"), ["a", "b", "c"]);
        assert_eq!(split("the quick", r"\s*"), ["t", "h", "e", "q", "u", "i", "c", "k"]);
        assert_eq!(split("", "x"), [""]);
        assert_eq!(split(",a,", ","), ["", "a", ""]);
    }

    #[test]
    fn options_are_postgresqls() {
        assert!(Pattern::new("A.C", "i").unwrap().regex.is_match("a\nc"));
        assert!(!Pattern::new("a.c", "n").unwrap().regex.is_match("a\nc"));
        assert!(Pattern::new("a.c", "q").unwrap().regex.is_match("a.c"));
        assert!(!Pattern::new("a.c", "q").unwrap().regex.is_match("abc"));
        assert_eq!(Pattern::new("(", "").unwrap_err().state(), SqlState::InvalidRegularExpression);
        assert_eq!(Pattern::new("a", "?").unwrap_err().state(), SqlState::InvalidParameterValue);
    }
}

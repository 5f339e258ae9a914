//! `format('%s %I %L', ..)`: texts, identifiers and literals put into a text; `quote_ident`, `quote_literal` and
//! `quote_nullable`, which make these.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use datafusion::common::Result;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Call, Definition, Overload};
use super::replaced::shown;
use super::text;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "format",
        resolve: |types| match types {
            [SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Null, ..] => {
                Overload::of(types, SqlType::Text, formatted)
            }
            _ => None,
        },
    },
    Definition {
        name: "quote_ident",
        resolve: |types| {
            Overload::exact(types, &[SqlType::Text], SqlType::Text, |c, t| quoted(c, t, |text| text.map(identifier)))
        },
    },
    Definition { name: "quote_literal", resolve: |types| of_any(types, |c, t| quoted(c, t, |text| text.map(literal))) },
    Definition {
        name: "quote_nullable",
        resolve: |types| of_any(types, |c, t| quoted(c, t, |text| Some(text.map_or("NULL".into(), literal)))),
    },
];

fn of_any(types: &[SqlType], call: Call) -> Option<Overload> {
    if types.len() == 1 { Overload::of(types, SqlType::Text, call) } else { None }
}

fn quoted(columns: &[ArrayRef], types: &[SqlType], quote: impl Fn(Option<&str>) -> Option<String>) -> Result<ArrayRef> {
    let ([values], [from]) = (columns, types) else { return Err(external(SqlError::internal("one argument"))) };
    let texts = text::of(values, from)?;
    Ok(Arc::new(texts.as_string_view().iter().map(quote).collect::<StringViewArray>()))
}

fn formatted(columns: &[ArrayRef], types: &[SqlType]) -> Result<ArrayRef> {
    let texts = columns.iter().zip(types).map(|(column, from)| shown(column, from));
    let texts: Vec<ArrayRef> = texts.collect::<Result<_>>()?;
    let Some((formats, args)) = texts.split_first() else { return Err(external(SqlError::internal("no argument"))) };
    let rows = formats.as_string_view().iter().enumerate().map(|(row, format)| {
        let Some(format) = format else { return Ok(None) };
        let value = |column: &ArrayRef| column.is_valid(row).then(|| column.as_string_view().value(row).to_owned());
        let args: Vec<Option<String>> = args.iter().map(value).collect();
        fill_in(format, &args).map(Some).map_err(external)
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray>>()?))
}

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, message)
}

/// Errors: `22023` for a specifier that is none, or that has no argument.
fn fill_in(format: &str, args: &[Option<String>]) -> Result<String, SqlError> {
    let mut output = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            output.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            output.push('%');
            continue;
        }
        // [n$] [-] [width | * | *n$] type
        let mut left = false;
        let mut position = None;
        let mut width = number(&mut chars);
        if width.is_some() && chars.next_if_eq(&'$').is_some() {
            position = width.take();
        }
        while chars.next_if_eq(&'-').is_some() {
            left = true;
        }
        if chars.next_if_eq(&'*').is_some() {
            let place = number(&mut chars);
            if place.is_some() && chars.next_if_eq(&'$').is_none() {
                return Err(invalid("width argument position must be ended by \"$\""));
            }
            let given = argument(args, place, &mut next)?;
            let given: i64 = match given {
                None => 0,
                Some(text) => text.parse().map_err(|_| {
                    SqlError::new(
                        SqlState::InvalidTextRepresentation,
                        format!("invalid input syntax for type integer: \"{text}\""),
                    )
                })?,
            };
            left |= given < 0;
            width = usize::try_from(given.unsigned_abs()).ok();
        } else if width.is_none() {
            width = number(&mut chars);
        }
        let Some(kind) = chars.next() else {
            return Err(invalid("unterminated format() type specifier").with_hint("For a single \"%\" use \"%%\"."));
        };
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(invalid(format!("unrecognized format() type specifier \"{kind}\""))
                .with_hint("For a single \"%\" use \"%%\"."));
        }
        let value = match (kind, argument(args, position, &mut next)?) {
            ('s', value) => value.unwrap_or_default(),
            ('I', None) => {
                return Err(SqlError::new(
                    SqlState::NullValueNotAllowed,
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            ('I', Some(value)) => identifier(&value),
            (_, None) => "NULL".into(),
            (_, Some(value)) => literal(&value),
        };
        let blanks = " ".repeat(width.unwrap_or(0).saturating_sub(value.chars().count()).min(1 << 20));
        match left {
            true => output.extend([value.as_str(), &blanks]),
            false => output.extend([blanks.as_str(), &value]),
        }
    }
    Ok(output)
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    digits.parse().ok()
}

fn argument(args: &[Option<String>], position: Option<usize>, next: &mut usize) -> Result<Option<String>, SqlError> {
    let idx = match position {
        Some(0) => return Err(invalid("format specifies argument 0, but arguments are numbered from 1")),
        Some(position) => position - 1,
        None => *next,
    };
    *next = idx + 1;
    args.get(idx).cloned().ok_or_else(|| invalid("too few arguments for format()"))
}

fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !tidewire_sql::is_reserved(name);
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn literal(text: &str) -> String {
    let quoted = format!("'{}'", text.replace('\'', "''"));
    if text.contains('\\') { format!("E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_put_in() {
        let args = ["a", "B c", "it's"].map(|text| Some(text.to_owned()));
        let fill = |format| fill_in(format, &args);
        assert_eq!(fill("%s-%I-%L").unwrap(), "a-\"B c\"-'it''s'");
        assert_eq!(fill("%3$s %1$s %s %%").unwrap(), "it's a B c %");
        assert_eq!(fill("%4s|%-4s|").unwrap(), "   a|B c |");
        assert!(fill("%s %s %s %s").is_err());
        assert!(fill("%d").is_err());
        assert!(fill("%").is_err());
    }
}

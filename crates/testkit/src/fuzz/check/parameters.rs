//! A statement as a driver sends it: its literals as parameters of the extended protocol, its rows in the binary format.
//!
//! Which literals are bound, and of which type they are declared, follows from the literals and what stands beside
//! them, so that a part of a statement means the same when shrinking takes away the rest, and equal keys of a GROUP BY
//! and a SELECT list stay equal.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::BytesMut;
use futures::TryStreamExt;
use tidewire_types::SqlType;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};

use crate::database::{Answer, Failure, failure};

/// Words behind which a literal says no value of its own: `interval '1 day'`, `IS NULL`, `ESCAPE ''`.
const NO_VALUE_AFTER: &[&str] = &["IS", "NOT", "NULLS", "ESCAPE", "E"];
/// Words behind which a number is a value, wherever they stand.
const VALUE_AFTER: &[&str] =
    &["THEN", "ELSE", "WHEN", "BETWEEN", "AND", "OR", "LIMIT", "OFFSET", "FIRST", "ROWS", "GROUPS", "FROM", "FOR"];
/// What follows these in parentheses is a type's modifier, or a number of columns.
const NO_CALLS: &[&str] = &["numeric", "varchar", "char", "bpchar", "time", "timestamp", "timestamptz", "interval"];

/// A statement with parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// Its text.
    pub(super) sql: String,
    /// The types that the client declares; UNKNOWN: none.
    pub(super) declared: Vec<Type>,
    /// The values; None is NULL.
    pub(super) values: Vec<Option<String>>,
    /// In how many places each stands.
    pub(super) n_places: Vec<usize>,
}

impl Bound {
    /// The same where a client knows, as `types`, what those parameters are that stand in several places: which of them
    /// is the one that an undeclared type follows from is PostgreSQL's own affair.
    pub(super) fn with_types(&self, types: &[Type]) -> Bound {
        let declared = self.declared.iter().zip(&self.n_places).zip(types);
        let declared = declared.map(|((own, n), found)| if *n > 1 { found.clone() } else { own.clone() });
        Bound { declared: declared.collect(), ..self.clone() }
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "prepared: {}", self.sql)?;
        for (idx, (ty, value)) in self.declared.iter().zip(&self.values).enumerate() {
            write!(f, "\n  ${} {ty} = {}", idx + 1, value.as_deref().unwrap_or("NULL"))?;
        }
        Ok(())
    }
}

/// What binds literals of a statement.
pub(super) struct Binder {
    /// The choices are a function of it.
    pub(super) seed: u64,
    /// Whether numbers may go without a declared type. What they are read as then may differ from what they are as
    /// literals, so that it takes PostgreSQL to say what is right.
    pub(super) undeclared: bool,
}

impl Binder {
    /// The statement with a part of its literals bound. None: it has none.
    pub(super) fn bind(&self, sql: &str) -> Option<Bound> {
        let tokens = tokens(sql);
        let mut bound = Bound { sql: String::new(), declared: vec![], values: vec![], n_places: vec![] };
        // The literals that are bound, with what stands beside them.
        let mut known: Vec<[&str; 3]> = vec![];
        // For each open parenthesis, whether numbers behind it and its commas are values.
        let mut values: Vec<bool> = vec![false];
        for (idx, token) in tokens.iter().enumerate() {
            let nth = |idx: Option<usize>| idx.and_then(|i| tokens.get(i)).map_or("", |t| t.text);
            let (before, after) = (nth(idx.checked_sub(1)), nth(Some(idx + 1)));
            match token.text {
                "(" => values.push(holds_values(before)),
                ")" => drop(values.pop()),
                "BY" => values.iter_mut().rev().take(1).for_each(|v| *v = false),
                _ => {}
            }
            bound.sql.push_str(token.blank);
            let is_value = values.last().is_some_and(|v| *v);
            let Some((value, types)) = self.literal(token.text, before, after, is_value) else {
                bound.sql.push_str(token.text);
                continue;
            };
            let key = [before, token.text, after];
            if self.draw(&key) % 100 < 20 {
                bound.sql.push_str(token.text);
                continue;
            }
            let number = known.iter().position(|k| *k == key).unwrap_or_else(|| {
                known.push(key);
                let ty = types.get((self.draw(&("type", key)) % types.len().max(1) as u64) as usize);
                bound.declared.push(ty.cloned().unwrap_or(Type::UNKNOWN));
                bound.values.push(value);
                bound.n_places.push(0);
                known.len() - 1
            });
            bound.n_places.iter_mut().skip(number).take(1).for_each(|n| *n += 1);
            bound.sql.push_str(&format!("${}", number + 1));
        }
        (!known.is_empty()).then_some(bound)
    }

    /// The value of a literal that can be bound, and the types that it may be declared of.
    fn literal(&self, text: &str, before: &str, after: &str, is_value: bool) -> Option<(Option<String>, Vec<Type>)> {
        let is_cast = after == "::";
        if NO_VALUE_AFTER.contains(&before) {
            return None;
        }
        if let Some(inner) = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')) {
            // `interval '1 day'`
            if before.starts_with(|c: char| c.is_ascii_lowercase()) {
                return None;
            }
            let types = if is_cast && self.undeclared { vec![Type::UNKNOWN, Type::TEXT] } else { vec![Type::UNKNOWN] };
            return Some((Some(inner.replace("''", "'")), types));
        }
        match text {
            "NULL" => return Some((None, vec![Type::UNKNOWN])),
            "true" | "false" => return Some((Some(text.into()), vec![Type::BOOL])),
            _ => {}
        }
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let follows = VALUE_AFTER.contains(&before) || is_operator(before) && !["::", "["].contains(&before);
        let in_list = is_value && ["(", ","].contains(&before);
        if !follows && !in_list {
            return None;
        }
        let own = if text.contains('.') { Type::NUMERIC } else { Type::INT4 };
        // What has no type behind a sign is a float, and in SUBSTRING a pattern.
        let types = if self.undeclared && !["-", "FROM", "FOR"].contains(&before) {
            vec![own, Type::UNKNOWN]
        } else {
            vec![own]
        };
        Some((Some(text.into()), types))
    }

    fn draw(&self, of: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, of).hash(&mut hasher);
        hasher.finish()
    }

    /// Other values for the `nth` execution: one of them is NULL, or another's of its type.
    pub(super) fn others(&self, bound: &Bound, nth: usize) -> Vec<Option<String>> {
        let mut values = bound.values.clone();
        let n = values.len().max(1) as u64;
        let changed = (self.draw(&("changed", nth)) % n) as usize;
        let source = (self.draw(&("source", nth)) % n) as usize;
        let same_type = bound.declared.get(changed) == bound.declared.get(source) && changed != source;
        let value = if same_type { bound.values.get(source).cloned().flatten() } else { None };
        values.iter_mut().skip(changed).take(1).for_each(|v| v.clone_from(&value));
        values
    }
}

/// Whether what stands in parentheses behind this are values: arguments, rows, lists.
fn holds_values(before: &str) -> bool {
    let is_function = before.starts_with(|c: char| c.is_ascii_lowercase()) && !NO_CALLS.contains(&before);
    is_function || is_operator(before) || ["IN", "VALUES", "(", ",", "AND", "OR", "NOT"].contains(&before)
}

fn is_operator(token: &str) -> bool {
    token.starts_with(|c: char| "+-*/<>=~!@#%^&|?:".contains(c))
}

/// A word, number, string, operator or other sign, and the blanks before it.
struct Token<'a> {
    blank: &'a str,
    text: &'a str,
}

fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut all = vec![];
    let mut rest = sql;
    while !rest.is_empty() {
        let (blank, start) = rest.split_at(rest.len() - rest.trim_start().len());
        let length = token_length(start);
        let (text, behind) = start.split_at(length);
        all.push(Token { blank, text });
        rest = behind;
    }
    all
}

fn token_length(text: &str) -> usize {
    let run = |is_in: fn(char) -> bool| text.find(|c| !is_in(c)).unwrap_or(text.len());
    match text.chars().next() {
        None => 0,
        // Two quotes are one in the string: what is behind the first begins another token, which is joined here.
        Some(quote @ ('\'' | '"')) => {
            let mut end = 1;
            while let Some(at) = text.get(end..).and_then(|t| t.find(quote)) {
                end += at + 1;
                if !text.get(end..).is_some_and(|t| t.starts_with(quote)) {
                    return end;
                }
                end += 1;
            }
            text.len()
        }
        Some(c) if c.is_ascii_digit() => run(|c| c.is_ascii_digit() || c == '.'),
        Some(c) if c.is_alphabetic() || c == '_' => run(|c| c.is_alphanumeric() || c == '_'),
        Some(c) if is_operator(&c.to_string()) => run(|c| "+-*/<>=~!@#%^&|?:".contains(c)),
        Some(c) => c.len_utf8(),
    }
}

/// Prepares a statement.
pub(super) async fn prepare(client: &Client, bound: &Bound) -> Result<Statement, Failure> {
    client.prepare_typed(&bound.sql, &bound.declared).await.map_err(failure)
}

/// Runs it. Values of the result are texts of which equal ones are equal, after [`values::normalized`](super::super::values).
pub(super) async fn execute(
    client: &Client,
    statement: &Statement,
    values: &[Option<String>],
) -> Result<Answer, Failure> {
    let values = values.iter().map(|v| Text(v.as_deref()));
    let rows = client.query_raw(statement, values).await.map_err(failure)?;
    let mut rows = std::pin::pin!(rows);
    let columns = statement.columns();
    let mut answer = Answer {
        columns: columns.iter().map(|c| c.name().to_string()).collect(),
        types: Some(columns.iter().map(|c| compared_as(c.type_())).collect()),
        ..Answer::default()
    };
    while let Some(row) = rows.try_next().await.map_err(failure)? {
        let value = |(idx, column): (usize, &tokio_postgres::Column)| {
            let raw: Option<Raw> = row.try_get(idx).map_err(failure)?;
            raw.map(|raw| show(column.type_(), &raw.0)).transpose()
        };
        let cells: Result<_, Failure> = columns.iter().enumerate().map(value).collect();
        answer.rows.push(cells?);
    }
    answer.count = rows.rows_affected().unwrap_or_default();
    Ok(answer)
}

/// Prepares and runs a statement that is run once.
pub(super) async fn run(client: &Client, bound: &Bound) -> Result<Answer, Failure> {
    let statement = prepare(client, bound).await?;
    execute(client, &statement, &bound.values).await
}

fn compared_as(ty: &Type) -> SqlType {
    match *ty {
        Type::FLOAT4 | Type::FLOAT8 => SqlType::Float8,
        Type::NUMERIC => SqlType::Numeric(None),
        _ => SqlType::Text,
    }
}

/// A value that is sent as text, whatever its type.
#[derive(Debug)]
struct Text<'a>(Option<&'a str>);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(text) = self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A value as it came.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A value in the binary format as text: equal values of one type have one text.
fn show(ty: &Type, raw: &[u8]) -> Result<String, Failure> {
    let mut bytes = Bytes(raw);
    let shown = match (ty.kind(), ty) {
        (Kind::Array(element), _) => bytes.array(element)?,
        (_, &Type::NUMERIC) => bytes.numeric(),
        (_, &Type::FLOAT4) => bytes.take().map(|b| f32::from_be_bytes(b).to_string()),
        (_, &Type::FLOAT8) => bytes.take().map(|b| f64::from_be_bytes(b).to_string()),
        (_, &Type::INTERVAL) => bytes.interval(),
        (_, &Type::TEXT | &Type::VARCHAR | &Type::BPCHAR | &Type::JSON | &Type::NAME | &Type::UNKNOWN) => {
            std::str::from_utf8(std::mem::take(&mut bytes.0)).ok().map(str::to_string)
        }
        (_, &Type::JSONB) => {
            std::str::from_utf8(std::mem::take(&mut bytes.0)).ok().and_then(|t| t.strip_prefix('\x01')).map(Into::into)
        }
        // Records hold the types of their fields, which are texts here and of unknown type there.
        (_, &Type::RECORD) => Some("(..)".into()).inspect(|_| bytes.0 = &[]),
        (_, &Type::BOOL | &Type::BYTEA | &Type::UUID) => {
            Some(std::mem::take(&mut bytes.0).iter().map(|b| format!("{b:02x}")).collect())
        }
        _ => bytes.integer(),
    };
    match shown.filter(|_| bytes.0.is_empty()) {
        Some(shown) => Ok(shown),
        None => Err(Failure::of_test(format!("not the binary format of {ty}: {raw:02x?}"))),
    }
}

/// What is left of a value.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn int2(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn int4(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    /// Whatever is a number of 2, 4 or 8 bytes: dates and times too.
    fn integer(&mut self) -> Option<String> {
        match self.0.len() {
            2 => self.int2().map(|n| n.to_string()),
            4 => self.int4().map(|n| n.to_string()),
            8 => self.take().map(|b| i64::from_be_bytes(b).to_string()),
            _ => None,
        }
    }

    /// Its microseconds, where a month has 30 days: what intervals are compared by.
    fn interval(&mut self) -> Option<String> {
        let us = i64::from_be_bytes(self.take()?);
        let (days, months) = (self.int4()?, self.int4()?);
        let days = i128::from(days) + 30 * i128::from(months);
        Some((i128::from(us) + days * 86_400_000_000).to_string())
    }

    fn numeric(&mut self) -> Option<String> {
        let (n_groups, weight, sign, _scale) = (self.int2()?, self.int2()?, self.int2()?, self.int2()?);
        let mut value = 0.0;
        for nth in 0..n_groups {
            value += f64::from(self.int2()?) * 10f64.powi(4 * (i32::from(weight) - i32::from(nth)));
        }
        // As much as values::normalized takes into account.
        match sign {
            0 => Some(format!("{value:.9e}")),
            0x4000 => Some(format!("{:.9e}", -value)),
            _ => Some("NaN".into()),
        }
    }

    fn array(&mut self, element: &Type) -> Result<Option<String>, Failure> {
        let header = (|| Some((self.int4()?, self.int4()?, self.int4()?)))();
        let Some((n_dimensions, _, _)) = header else { return Ok(None) };
        let mut shown = String::new();
        let mut n_elements = i32::from(n_dimensions > 0);
        for _ in 0..n_dimensions {
            let (Some(length), Some(first)) = (self.int4(), self.int4()) else { return Ok(None) };
            shown.push_str(&format!("[{length} from {first}]"));
            n_elements *= length;
        }
        for _ in 0..n_elements {
            let Some(length) = self.int4() else { return Ok(None) };
            let Ok(length) = usize::try_from(length) else {
                shown.push_str(",NULL");
                continue;
            };
            let Some((value, rest)) = self.0.split_at_checked(length) else { return Ok(None) };
            self.0 = rest;
            shown.push_str(&format!(",{:?}", show(element, value)?));
        }
        Ok(Some(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(sql: &str) -> Vec<String> {
        // Some seed binds each of them.
        let all = (0..200).filter_map(|seed| Binder { seed, undeclared: false }.bind(sql));
        let mut all: Vec<Bound> = all.collect();
        all.sort_by_key(|bound| std::cmp::Reverse(bound.values.len()));
        all.first().map(|bound| bound.to_string().lines().map(str::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn literals_are_values() {
        assert_eq!(
            bound("SELECT f(q1.c0, 1) AS c, 'it''s'::text FROM t WHERE a = NULL AND b IS NULL ORDER BY 1 LIMIT 2"),
            [
                "prepared: SELECT f(q1.c0, $1) AS c, $2::text FROM t WHERE a = $3 AND b IS NULL ORDER BY 1 LIMIT $4",
                "  $1 int4 = 1",
                "  $2 unknown = it's",
                "  $3 unknown = NULL",
                "  $4 int4 = 2"
            ]
        );
    }

    #[test]
    fn what_is_no_value_stays() {
        assert!(bound("SELECT interval '1 day', a::numeric(6,1), (ARRAY[1])[1], rank() OVER (ORDER BY 1)").is_empty());
    }

    #[test]
    fn equal_numerics_are_equal() {
        let numeric = |raw: &[i16]| {
            let bytes: Vec<u8> = raw.iter().flat_map(|n| n.to_be_bytes()).collect();
            show(&Type::NUMERIC, &bytes).unwrap()
        };
        assert_eq!(numeric(&[2, 0, 0, 2, 1, 5000]), numeric(&[2, 0, 0, 1, 1, 5000]));
        assert_eq!(numeric(&[1, 0, 0x4000, 0, 3]), format!("{:.9e}", -3.0));
        assert!(show(&Type::NUMERIC, &[0, 1]).is_err());
    }
}

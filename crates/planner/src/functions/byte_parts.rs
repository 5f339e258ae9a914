//! Functions of texts that take a bytea too: `substr`, `strpos`, `btrim`, `ltrim`, `rtrim`, `overlay`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray, Int32Array};
use arrow::datatypes::Int64Type;
use datafusion::common::{DataFusionError, Result};
use datafusion::functions::{string, unicode};
use datafusion::logical_expr::ScalarUDF;
use tidewire_types::{SqlError, SqlState, SqlType};

use super::cast::external;
use super::defined::{Definition, Overload};
use super::either;

const BYTEA: SqlType = SqlType::Bytea;

static SUBSTR: Definition = Definition { name: "substr", resolve: part_of };
static OVERLAY: Definition = Definition { name: "overlay", resolve: |types| with_places(types, 2, |c, _| overlaid(c)) };
static STRPOS: Definition =
    Definition { name: "strpos", resolve: |types| of_two(types, SqlType::Int4, |c, _| places(c)) };
static BTRIM: Definition = Definition {
    name: "btrim",
    resolve: |types| of_two(types, BYTEA, |c, _| trimmed(c, |bytes, set| from_end(from_start(bytes, set), set))),
};
static LTRIM: Definition =
    Definition { name: "ltrim", resolve: |types| of_two(types, BYTEA, |c, _| trimmed(c, from_start)) };
static RTRIM: Definition =
    Definition { name: "rtrim", resolve: |types| of_two(types, BYTEA, |c, _| trimmed(c, from_end)) };

/// `substr(x, from)` and `substr(x, from, for)`.
pub(super) fn substr() -> ScalarUDF {
    either::function(unicode::substr(), &SUBSTR)
}

/// `strpos(x, of)`.
pub(super) fn strpos() -> ScalarUDF {
    either::function(unicode::strpos(), &STRPOS)
}

/// `overlay(x, by, from)` and `overlay(x, by, from, for)`.
pub(super) fn overlay() -> ScalarUDF {
    either::function(datafusion::functions::core::overlay(), &OVERLAY)
}

/// The functions.
pub(super) fn all() -> Vec<ScalarUDF> {
    let trims = [(string::btrim(), &BTRIM), (string::ltrim(), &LTRIM), (string::rtrim(), &RTRIM)];
    let trims = trims.into_iter().map(|(theirs, ours)| either::function(theirs, ours));
    [substr(), strpos(), overlay()].into_iter().chain(trims).collect()
}

/// The overload of `substr` for a bytea.
pub(super) fn part_of(types: &[SqlType]) -> Option<Overload> {
    with_places(types, 1, |c, _| parts(c))
}

/// So many bytea, then one or two integers. A literal is still text.
fn with_places(types: &[SqlType], n_bytes: usize, call: super::defined::Call) -> Option<Overload> {
    let n_places = types.len().checked_sub(n_bytes).filter(|n| matches!(n, 1 | 2))?;
    let wanted = [vec![BYTEA; n_bytes], vec![SqlType::Int8; n_places]].concat();
    (types.first() == Some(&BYTEA)).then(|| Overload::exact(types, &wanted, BYTEA, call))?
}

fn of_two(types: &[SqlType], result: SqlType, call: super::defined::Call) -> Option<Overload> {
    types.contains(&BYTEA).then(|| Overload::exact(types, &[BYTEA, BYTEA], result, call))?
}

fn missing() -> DataFusionError {
    external(SqlError::internal("too few arguments"))
}

/// The bytes from a place on, counted from 1, or so many of them. Errors: `22011`.
fn part(bytes: &[u8], from: i64, length: Option<i64>) -> Result<&[u8]> {
    let from = from.saturating_sub(1);
    let end = match length {
        Some(..0) => {
            let error = SqlError::new(SqlState::SubstringError, "negative substring length not allowed");
            return Err(external(error));
        }
        Some(length) => from.saturating_add(length),
        None => i64::MAX,
    };
    let within = |place: i64| usize::try_from(place).map_or(0, |place| place.min(bytes.len()));
    Ok(bytes.get(within(from)..within(end)).unwrap_or_default())
}

fn parts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [bytes, from, length @ ..] = columns else { return Err(missing()) };
    let length = lengths(length, bytes.len());
    let rows = bytes.as_binary_view().iter().zip(from.as_primitive::<Int64Type>()).zip(length);
    let rows = rows.map(|row| match row {
        ((Some(bytes), Some(from)), Some(length)) => part(bytes, from, length).map(Some),
        _ => Ok(None),
    });
    Ok(Arc::new(rows.collect::<Result<BinaryViewArray>>()?))
}

/// Of each row; of no column, none is given.
fn lengths(column: &[ArrayRef], n_rows: usize) -> Vec<Option<Option<i64>>> {
    match column.first() {
        Some(lengths) => lengths.as_primitive::<Int64Type>().iter().map(|length| length.map(Some)).collect(),
        None => vec![Some(None); n_rows],
    }
}

fn overlaid(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [bytes, by, from, length @ ..] = columns else { return Err(missing()) };
    let length = lengths(length, bytes.len());
    let rows = bytes.as_binary_view().iter().zip(by.as_binary_view()).zip(from.as_primitive::<Int64Type>()).zip(length);
    let rows = rows.map(|row| {
        let (((Some(bytes), Some(by)), Some(from)), Some(length)) = row else { return Ok(None) };
        let length = length.unwrap_or_else(|| i64::try_from(by.len()).unwrap_or(i64::MAX));
        let before = part(bytes, 1, Some(from.saturating_sub(1)))?;
        Ok(Some([before, by, part(bytes, from.saturating_add(length), None)?].concat()))
    });
    Ok(Arc::new(rows.collect::<Result<BinaryViewArray>>()?))
}

/// Where the second is in the first, counted from 1; 0 where it is not.
fn places(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [bytes, of] = columns else { return Err(missing()) };
    let rows = bytes.as_binary_view().iter().zip(of.as_binary_view()).map(|(bytes, of)| {
        let (bytes, of) = bytes.zip(of)?;
        let place = match of.len() {
            0 => Some(0),
            length => bytes.windows(length).position(|window| window == of),
        };
        i32::try_from(place.map_or(0, |place| place + 1)).ok()
    });
    Ok(Arc::new(rows.collect::<Int32Array>()))
}

fn trimmed(columns: &[ArrayRef], of: impl for<'a> Fn(&'a [u8], &[u8]) -> &'a [u8]) -> Result<ArrayRef> {
    let [bytes, set] = columns else { return Err(missing()) };
    let rows = bytes.as_binary_view().iter().zip(set.as_binary_view());
    let rows = rows.map(|(bytes, set)| bytes.zip(set).map(|(bytes, set)| of(bytes, set)));
    Ok(Arc::new(rows.collect::<BinaryViewArray>()))
}

fn from_start<'a>(bytes: &'a [u8], set: &[u8]) -> &'a [u8] {
    let n = bytes.iter().take_while(|byte| set.contains(byte)).count();
    bytes.get(n..).unwrap_or_default()
}

fn from_end<'a>(bytes: &'a [u8], set: &[u8]) -> &'a [u8] {
    let n = bytes.iter().rev().take_while(|byte| set.contains(byte)).count();
    bytes.get(..bytes.len() - n).unwrap_or_default()
}

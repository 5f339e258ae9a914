//! Arrays and rows: `{1,NULL,"a b"}` and `(1,,"a b")`, and their binary forms.
//!
//! Arrays of arrays are PostgreSQL's arrays of several dimensions; in binary all rows of one must have equal lengths.

use arrow::array::ListArray;
use bytes::{BufMut, BytesMut};
use tidewire_types::{Result, SqlError, SqlState};

use super::{Column, Format, Style, Values};

pub(super) fn write_array(out: &mut BytesMut, lists: &ListArray, elements: &Column, row: usize, style: Style) {
    let mut scratch = BytesMut::new();
    out.put_u8(b'{');
    for (n, idx) in element_range(lists, row).enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        match &elements.values {
            _ if elements.is_null(idx) => out.put_slice(b"NULL"),
            Values::Array(inner, inner_elements, _) => write_array(out, inner, inner_elements, idx, style),
            _ => {
                scratch.clear();
                elements.write_text(idx, style, &mut scratch);
                write_element(out, &scratch);
            }
        }
    }
    out.put_u8(b'}');
}

fn element_range(lists: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offset = |at: usize| lists.value_offsets().get(at).and_then(|o| usize::try_from(*o).ok()).unwrap_or(0);
    offset(row)..offset(row + 1)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// An element of an array, in quotes where it could be read as something else.
fn write_element(out: &mut BytesMut, text: &[u8]) {
    let special = |b: &u8| matches!(*b, b'{' | b'}' | b',' | b'"' | b'\\') || is_space(*b);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(special) {
        return out.put_slice(text);
    }
    out.put_u8(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

pub(super) fn write_record(out: &mut BytesMut, columns: &[(u32, Column)], row: usize, style: Style) {
    let mut scratch = BytesMut::new();
    out.put_u8(b'(');
    for (n, (_, column)) in columns.iter().enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        if !column.is_null(row) {
            scratch.clear();
            column.write_text(row, style, &mut scratch);
            write_record_field(out, &scratch);
        }
    }
    out.put_u8(b')');
}

/// A field of a row: quotes and backslashes are doubled.
fn write_record_field(out: &mut BytesMut, text: &[u8]) {
    let special = |b: &u8| matches!(*b, b'(' | b')' | b',' | b'"' | b'\\') || is_space(*b);
    if !text.is_empty() && !text.iter().any(special) {
        return out.put_slice(text);
    }
    out.put_u8(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(*byte);
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

/// Dimensions, whether there are NULLs, OID of an element, length and first index of each dimension, elements.
pub(super) fn write_array_binary(
    out: &mut BytesMut,
    lists: &ListArray,
    elements: &Column,
    oid: u32,
    row: usize,
    style: Style,
) -> Result<()> {
    let mut shape = Shape { lengths: vec![], leaves: vec![] };
    let (leaf, leaf_oid) = shape.visit(lists, elements, oid, row, 0)?;
    let n_dimensions = if shape.leaves.is_empty() { 0 } else { shape.lengths.len() };
    out.put_i32(n_dimensions as i32);
    out.put_i32(i32::from(shape.leaves.iter().any(|idx| leaf.is_null(*idx))));
    out.put_u32(element_oid(leaf_oid, leaf));
    for length in shape.lengths.iter().take(n_dimensions) {
        out.put_i32(*length as i32);
        out.put_i32(1);
    }
    for idx in shape.leaves {
        leaf.write_field(idx, Format::Binary, style, out)?;
    }
    Ok(())
}

/// The innermost OID; the one kept at an array of arrays is that of the array type.
fn element_oid(oid: u32, leaf: &Column) -> u32 {
    match &leaf.values {
        Values::Array(_, _, inner) => *inner,
        _ => oid,
    }
}

struct Shape {
    lengths: Vec<usize>,
    /// Indices of the innermost elements.
    leaves: Vec<usize>,
}

impl Shape {
    fn visit<'a>(
        &mut self,
        lists: &'a ListArray,
        elements: &'a Column,
        oid: u32,
        row: usize,
        depth: usize,
    ) -> Result<(&'a Column, u32)> {
        let ragged = || {
            SqlError::new(
                SqlState::DataException,
                "multidimensional arrays must have sub-arrays with matching dimensions",
            )
        };
        let range = element_range(lists, row);
        match self.lengths.get(depth) {
            None => self.lengths.push(range.len()),
            Some(length) if *length == range.len() => {}
            Some(_) => return Err(ragged()),
        }
        let Values::Array(inner, inner_elements, inner_oid) = &elements.values else {
            self.leaves.extend(range);
            return Ok((elements, oid));
        };
        for idx in range {
            if elements.is_null(idx) {
                return Err(ragged());
            }
            self.visit(inner, inner_elements, *inner_oid, idx, depth + 1)?;
        }
        Ok(innermost(inner_elements, *inner_oid))
    }
}

fn innermost(column: &Column, oid: u32) -> (&Column, u32) {
    match &column.values {
        Values::Array(_, elements, inner) => innermost(elements, *inner),
        _ => (column, oid),
    }
}

/// Number of fields, then OID, length and value of each.
pub(super) fn write_record_binary(
    out: &mut BytesMut,
    columns: &[(u32, Column)],
    row: usize,
    style: Style,
) -> Result<()> {
    out.put_i32(columns.len() as i32);
    for (oid, column) in columns {
        out.put_u32(*oid);
        column.write_field(row, Format::Binary, style, out)?;
    }
    Ok(())
}

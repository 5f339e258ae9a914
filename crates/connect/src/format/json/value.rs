//! JSON values into columns: for each kind of value, what each type makes of it.

use super::cursor::{Cursor, Number};
use super::jsonb::write_jsonb;
use super::keys::{Key, Keys};
use crate::bad::{Outcome, out_of_range, wrong_kind};
use crate::column::{Builder, Lists, NamedBuilder, TextKind, append_string};
use crate::text::{self, EpochUnit, Wrong};

/// What reading values needs besides the text and the columns.
#[derive(Debug)]
pub(super) struct Context {
    /// For strings with escapes.
    scratch: String,
    epoch: EpochUnit,
}

/// Memory kept for the next record's escaped strings.
const SCRATCH_BYTES_MAX: usize = 1 << 16;

impl Context {
    pub(super) fn new(epoch: EpochUnit) -> Context {
        Context { scratch: String::new(), epoch }
    }

    /// Reads the object that begins here into the `row`th row of `fields`. After an error the fields are ragged: the
    /// caller truncates them.
    #[inline]
    pub(super) fn object(
        &mut self,
        cursor: &mut Cursor<'_>,
        fields: &mut [NamedBuilder],
        keys: &mut Keys,
        row: usize,
        depth: u32,
    ) -> Outcome<()> {
        let depth = cursor.enter(depth)?;
        let mut n_keys = 0;
        let mut n_filled = 0;
        cursor.members(|cursor| {
            let key = keys.read(cursor, n_keys)?;
            n_keys += 1;
            let Some(column) = key.column else { return cursor.skip(depth) };
            let Some(field) = fields.get_mut(column) else { return cursor.skip(depth) };
            if field.builder.len() > row {
                if is_outranked(key, column, keys, n_keys - 1) {
                    return cursor.skip(depth);
                }
                field.builder.truncate(row);
            } else {
                n_filled += 1;
            }
            self.value(cursor, &mut field.builder, depth).map_err(|bad| bad.within(&field.name))
        })?;
        if n_filled < fields.len() {
            fields.iter_mut().filter(|f| f.builder.len() == row).for_each(|f| f.builder.append_null());
        }
        Ok(())
    }

    /// Reads one value.
    #[inline]
    pub(super) fn value(&mut self, cursor: &mut Cursor<'_>, builder: &mut Builder, depth: u32) -> Outcome<()> {
        match cursor.peek() {
            b'n' => {
                cursor.literal("null")?;
                builder.append_null();
                Ok(())
            }
            first => match builder {
                Builder::Text(strings, TextKind::Json) => {
                    let start = cursor.position();
                    cursor.skip(depth)?;
                    strings.append(cursor.since(start));
                    Ok(())
                }
                Builder::Text(strings, TextKind::Jsonb) => {
                    let mut text = String::new();
                    write_jsonb(cursor, depth, &mut text)?;
                    strings.append(&text);
                    Ok(())
                }
                builder => self.typed(cursor, first, builder, depth),
            },
        }
    }

    #[inline]
    fn typed(&mut self, cursor: &mut Cursor<'_>, first: u8, builder: &mut Builder, depth: u32) -> Outcome<()> {
        match first {
            b'"' => self.string(cursor, builder),
            b'-' | b'0'..=b'9' => append_number(builder, cursor.number()?, self.epoch),
            b't' => {
                cursor.literal("true")?;
                append_boolean(builder, true)
            }
            b'f' => {
                cursor.literal("false")?;
                append_boolean(builder, false)
            }
            b'{' => match builder {
                Builder::Struct(structs) => {
                    let row = structs.valid.len();
                    self.object(cursor, &mut structs.fields, &mut structs.keys, row, depth)?;
                    structs.valid.append_non_null();
                    Ok(())
                }
                builder => skip_wrong(cursor, depth, builder, "an object"),
            },
            b'[' => match builder {
                Builder::Array(lists) => self.array(cursor, lists, depth),
                builder => skip_wrong(cursor, depth, builder, "an array"),
            },
            _ => Err(cursor.error("expected a value")),
        }
    }

    #[inline]
    fn string(&mut self, cursor: &mut Cursor<'_>, builder: &mut Builder) -> Outcome<()> {
        let text = cursor.string(&mut self.scratch)?;
        let appended = match builder {
            Builder::Text(strings, kind) => append_string(strings, *kind, text),
            Builder::Array(_) | Builder::Struct(_) => Err(wrong_kind(builder.type_name(), "a string")),
            builder => builder.append_text(text),
        };
        if self.scratch.capacity() > SCRATCH_BYTES_MAX {
            self.scratch = String::new();
        }
        appended
    }

    fn array(&mut self, cursor: &mut Cursor<'_>, lists: &mut Lists, depth: u32) -> Outcome<()> {
        let depth = cursor.enter(depth)?;
        cursor
            .elements(|cursor, n| self.value(cursor, &mut lists.element, depth).map_err(|bad| bad.within_element(n)))?;
        lists.close_row(true);
        Ok(())
    }
}

/// Whether a column that this object has filled already keeps its value: its name came exactly, and this key differs
/// from it in case.
#[cold]
fn is_outranked(key: Key, column: usize, keys: &Keys, n_before: usize) -> bool {
    !key.exact && keys.had_exact(column, n_before)
}

/// The value is of a kind that the type does not take; what is not JSON is said to be that.
#[cold]
fn skip_wrong(cursor: &mut Cursor<'_>, depth: u32, builder: &Builder, kind: &str) -> Outcome<()> {
    cursor.skip(depth)?;
    Err(wrong_kind(builder.type_name(), kind))
}

fn append_boolean(builder: &mut Builder, value: bool) -> Outcome<()> {
    match builder {
        Builder::Bool(b) => b.append(value),
        Builder::Text(strings, kind) if *kind != TextKind::Uuid => {
            return append_string(strings, *kind, if value { "true" } else { "false" });
        }
        builder => return Err(wrong_kind(builder.type_name(), "a boolean")),
    }
    Ok(())
}

#[inline]
fn append_number(builder: &mut Builder, number: Number<'_>, epoch: EpochUnit) -> Outcome<()> {
    let name = builder.type_name();
    let appended = match builder {
        Builder::Int8(b) => whole(&number).map(|v| b.append(v)),
        Builder::Int4(b) => whole(&number).and_then(|v| b.append_integer(v)),
        Builder::Int2(b) => whole(&number).and_then(|v| b.append_integer(v)),
        Builder::Float8(b) => text::float::<f64>(number.text).map(|v| b.append(v)),
        Builder::Float4(b) => text::float::<f32>(number.text).map(|v| b.append(v)),
        Builder::Numeric(b) => text::decimal(number.text, b.precision, b.scale).map(|v| b.values.append(v)),
        Builder::Timestamp(b) | Builder::Timestamptz(b) => {
            text::timestamp_of_number(number.text, epoch).map(|v| b.append(v))
        }
        Builder::Date(b) => text::date_of_number(number.text, epoch).map(|v| b.append(v)),
        Builder::Time(b) => text::time_of_number(number.text, epoch).map(|v| b.append(v)),
        Builder::Text(strings, kind) if *kind != TextKind::Uuid => return append_string(strings, *kind, number.text),
        _ => return Err(wrong_kind(name, "a number")),
    };
    appended.map_err(|wrong| match wrong {
        Wrong::Range => out_of_range(name, number.text),
        Wrong::Syntax => wrong_kind(name, "a number with a fraction"),
    })
}

/// A whole number, also one that is written with a point or an exponent: `5.0`, `1e3`.
#[inline]
fn whole(number: &Number<'_>) -> Result<i64, Wrong> {
    match number.integer() {
        Some(value) => Ok(value),
        None if number.integral => Err(Wrong::Range),
        None => whole_of_fraction(number.text),
    }
}

#[cold]
fn whole_of_fraction(text: &str) -> Result<i64, Wrong> {
    /// Up to here floats hold every whole number.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let value: f64 = text::float(text)?;
    if value.fract() != 0.0 {
        Err(Wrong::Syntax)
    } else if value.abs() > EXACT_MAX {
        i64::try_from(text::decimal(text, 38, 0)?).map_err(|_| Wrong::Range)
    } else {
        Ok(value as i64)
    }
}

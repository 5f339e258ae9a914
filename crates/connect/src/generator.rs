//! `connector = 'generator'`: made-up rows of any columns.
//!
//! Each value is a function of the seed, the column and the number of its row, so that any position can be read again.
//! By default values are random and small enough that groups and joins find partners; `fields.<column>.*` says more.

use std::sync::Arc;

use arrow::array::ArrayRef;
use tidewire_types::{Result, SqlError, SqlState, SqlType, closest};

use crate::column::{Builder, Structs, TextKind};
use crate::log::{self, GlobalRows, Log, Rows, below, random};
use crate::{Column, ColumnSource, Connector, OptionSpec, Options, Source, SourceSpec, text};

/// `connector = 'generator'`.
#[derive(Debug)]
pub(crate) struct Generator;

const OPTIONS: &[OptionSpec] = &[
    log::ROWS,
    log::RATE,
    log::SPLITS,
    OptionSpec { name: "seed", required: false, help: "A number that picks the random values; default 0." },
    OptionSpec {
        name: "fields.*",
        required: false,
        help: "About one column: fields.<column>.kind = random (default) or sequence; .min and .max of random numbers \
               and times; .start, .end and .step of a sequence, which begins again behind .end; .length of texts; \
               .values = 'a,b,c' to pick from; .nulls = the share of NULLs.",
    },
];

/// What can be said about a column.
const SETTINGS: &[&str] = &["kind", "min", "max", "start", "end", "step", "length", "values", "nulls"];

impl Connector for Generator {
    fn name(&self) -> &'static str {
        "generator"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn create(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
        spec.options.check(&[OPTIONS])?;
        check_fields(&spec)?;
        let seed: u64 = spec.options.parse_or("seed", 0)?;
        let fields = spec.columns.iter().enumerate().map(|(idx, column)| {
            let seed = random(seed, idx as u64);
            Field::new(column, seed, &spec.options)
        });
        let rows = Box::new(Generated { fields: fields.collect::<Result<_>>()? });
        Ok(Arc::new(Log::new(rows, spec)?))
    }
}

/// Refuses `fields.x.y` where there is no column x or no setting y.
fn check_fields(spec: &SourceSpec) -> Result<()> {
    for (name, _) in spec.options.with_prefix("fields.") {
        let invalid = |message: String| SqlError::new(SqlState::InvalidParameterValue, message);
        let (column, setting) = name
            .rsplit_once('.')
            .ok_or_else(|| invalid(format!("option \"fields.{name}\" is not of the form fields.<column>.<setting>")))?;
        if !spec.columns.iter().any(|c| c.source == ColumnSource::Value && c.name.to_lowercase() == column) {
            let error = invalid(format!("option \"fields.{name}\" names no column"));
            return Err(match closest(column, spec.columns.iter().map(|c| c.name.as_str())) {
                Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
                None => error,
            });
        }
        if !SETTINGS.contains(&setting) {
            let error = invalid(format!("option \"fields.{name}\" is not recognized"));
            return Err(error.with_hint(format!("A column has the settings {}.", SETTINGS.join(", "))));
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Generated {
    fields: Vec<Field>,
}

impl Rows for Generated {
    fn fill(&self, column: usize, rows: &GlobalRows) -> Result<ArrayRef> {
        let field = self.fields.get(column).ok_or_else(|| SqlError::internal("projection beyond the columns"))?;
        let mut builder = Builder::new(&field.sql_type);
        for index in rows.indices() {
            field.append(&mut builder, index)?;
        }
        builder.finish()
    }

    fn row_bytes(&self) -> u64 {
        16 * self.fields.len().max(1) as u64
    }
}

/// How one column is made.
#[derive(Debug)]
struct Field {
    sql_type: SqlType,
    seed: u64,
    values: Values,
    /// Of 2^64 rows so many are NULL.
    nulls: u64,
}

/// Where the values come from.
#[derive(Debug)]
enum Values {
    /// Numbers and times, as integers of the type: microseconds, days, units of the last digit of a numeric.
    Between { min: i64, max: i64 },
    /// The same, one after the other.
    Sequence { start: i64, step: i64, n: u64 },
    /// Floats.
    Floats { min: f64, max: f64 },
    /// One of these texts.
    OneOf(Vec<String>),
    /// Letters, digits or bytes, so many; for other types what comes to mind.
    Free { length: u64 },
}

impl Field {
    fn new(column: &Column, seed: u64, options: &Options) -> Result<Field> {
        let setting = Setting { column, options };
        let share: f64 = setting.parse("nulls")?.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&share) {
            return Err(setting.invalid("nulls", "it must be between 0 and 1"));
        }
        let nulls = (share * u64::MAX as f64) as u64;
        Ok(Field { sql_type: column.sql_type.clone(), seed, values: setting.values()?, nulls })
    }

    fn append(&self, builder: &mut Builder, index: u64) -> Result<()> {
        let choice = random(self.seed, index);
        if self.nulls > 0 && random(!self.seed, index) <= self.nulls {
            builder.append_null();
            return Ok(());
        }
        let appended = match &self.values {
            Values::Between { min, max } => append_integer(builder, between(choice, *min, *max)),
            Values::Sequence { start, step, n } => {
                let steps = (index % n).cast_signed().saturating_mul(*step);
                append_integer(builder, start.saturating_add(steps))
            }
            Values::Floats { min, max } => {
                // 53 bits are all that a float holds.
                let share = (choice >> 11) as f64 / (1u64 << 53) as f64;
                let value = min + (max - min) * share;
                match builder {
                    Builder::Float4(b) => b.append(value as f32),
                    Builder::Float8(b) => b.append(value),
                    _ => {}
                }
                Ok(())
            }
            Values::OneOf(values) => match values.get(below(choice, values.len() as u64) as usize) {
                Some(value) => builder.append_text(value),
                None => Ok(()),
            },
            Values::Free { length } => append_free(builder, choice, *length),
        };
        appended.map_err(|bad| SqlError::new(SqlState::DataException, bad.to_string()))
    }
}

/// The options about one column.
struct Setting<'a> {
    column: &'a Column,
    options: &'a Options,
}

impl Setting<'_> {
    fn name(&self, setting: &str) -> String {
        format!("fields.{}.{setting}", self.column.name.to_lowercase())
    }

    fn get(&self, setting: &str) -> Option<&str> {
        self.options.get(&self.name(setting))
    }

    fn invalid(&self, setting: &str, why: &str) -> SqlError {
        self.options.invalid(&self.name(setting), why)
    }

    fn parse<T: std::str::FromStr>(&self, setting: &str) -> Result<Option<T>> {
        let parse = |text: &str| text.parse().map_err(|_| self.invalid(setting, &format!("\"{text}\" is not valid")));
        self.get(setting).map(parse).transpose()
    }

    fn values(&self) -> Result<Values> {
        let is_sequence = match self.get("kind").unwrap_or("random") {
            "random" => false,
            "sequence" => true,
            _ => return Err(self.invalid("kind", "it must be random or sequence")),
        };
        if let Some(list) = self.get("values") {
            let values: Vec<String> = list.split(',').map(|v| v.trim().to_string()).collect();
            let mut trial = Builder::new(&self.column.sql_type);
            for value in &values {
                trial.append_text(value).map_err(|bad| self.invalid("values", &bad.to_string()))?;
            }
            return Ok(Values::OneOf(values));
        }
        if let SqlType::Float4 | SqlType::Float8 = self.column.sql_type
            && !is_sequence
        {
            let (min, max) = (self.parse("min")?.unwrap_or(0.0), self.parse("max")?.unwrap_or(1000.0));
            return if min <= max { Ok(Values::Floats { min, max }) } else { Err(self.empty_range()) };
        }
        match (self.default_range(), is_sequence) {
            (Some((min, max)), false) => {
                let (min, max) = (self.integer("min")?.unwrap_or(min), self.integer("max")?.unwrap_or(max.max(min)));
                if min <= max { Ok(Values::Between { min, max }) } else { Err(self.empty_range()) }
            }
            (_, true) => self.sequence(),
            (None, false) => Ok(Values::Free { length: self.length()? }),
        }
    }

    fn empty_range(&self) -> SqlError {
        self.invalid("max", "it is less than min")
    }

    fn length(&self) -> Result<u64> {
        const LENGTH_MAX: u64 = 1 << 20;
        let default = match self.column.sql_type {
            SqlType::Varchar(Some(n)) | SqlType::Char(n) => u64::from(n).min(10),
            _ => 10,
        };
        let length = self.parse("length")?.unwrap_or(default);
        let limit = match self.column.sql_type {
            SqlType::Varchar(Some(n)) | SqlType::Char(n) => u64::from(n),
            _ => LENGTH_MAX,
        };
        if length > limit { Err(self.invalid("length", &format!("it is more than {limit}"))) } else { Ok(length) }
    }

    fn sequence(&self) -> Result<Values> {
        let start = match self.integer("start")? {
            Some(start) => start,
            None => match self.column.sql_type {
                SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz => self.default_range().unwrap_or_default().0,
                _ => 0,
            },
        };
        let step = match self.step()? {
            0 => return Err(self.invalid("step", "it must not be zero")),
            step => step,
        };
        let n = match self.integer("end")? {
            None => u64::MAX,
            Some(end) => match (i128::from(end) - i128::from(start)) / i128::from(step) {
                n @ 0.. => u64::try_from(n + 1).unwrap_or(u64::MAX),
                _ => return Err(self.invalid("end", "the sequence does not reach it")),
            },
        };
        if append_integer(&mut Builder::new(&self.column.sql_type), start).is_err() {
            let message = format!("a column of type {} cannot be a sequence", self.column.sql_type);
            return Err(self.invalid("kind", &message));
        }
        Ok(Values::Sequence { start, step, n })
    }

    /// The step in the type's own units: an interval where the values are times.
    fn step(&self) -> Result<i64> {
        let is_time = matches!(self.column.sql_type, SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz);
        let Some(text) = self.get("step").filter(|_| is_time) else {
            return Ok(self.parse("step")?.unwrap_or(if is_time { 1_000_000 } else { 1 }));
        };
        match text::interval(text) {
            Ok(step) if step.months == 0 => Ok(i64::from(step.days) * text::DAY_US + step.nanoseconds / 1000),
            _ => Err(self.invalid("step", "it must be an interval without months")),
        }
    }

    /// A value of the column's type as the integer that stands for it.
    fn integer(&self, setting: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(setting) else { return Ok(None) };
        let scale = match self.column.sql_type.data_type() {
            arrow::datatypes::DataType::Decimal128(_, scale) => scale,
            _ => 0,
        };
        let read = match self.column.sql_type {
            SqlType::Date => text::date(text).map(i64::from),
            SqlType::Time => text::time_of_day(text),
            SqlType::Timestamp => text::timestamp(text, text::Offset::Ignored),
            SqlType::Timestamptz => text::timestamp(text, text::Offset::Applied),
            SqlType::Numeric(_) => text::decimal(text, 18, scale).map(|v| v as i64),
            _ => text::integer(text),
        };
        read.map(Some).map_err(|_| self.invalid(setting, &format!("\"{text}\" is not a {}", self.column.sql_type)))
    }

    /// The range of random values, as integers that stand for them; None where values are not in an order.
    fn default_range(&self) -> Option<(i64, i64)> {
        // The year 2026.
        const DAYS: (i64, i64) = (20_454, 20_818);
        Some(match self.column.sql_type {
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => (0, 1000),
            SqlType::Numeric(_) => match self.column.sql_type.data_type() {
                arrow::datatypes::DataType::Decimal128(precision, scale) => {
                    let digits = u32::from(precision.min(18)).min(u32::from(scale.max(0).unsigned_abs()) + 3);
                    (0, 10i64.pow(digits) - 1)
                }
                _ => return None,
            },
            SqlType::Date => DAYS,
            SqlType::Time => (0, text::DAY_US - 1),
            SqlType::Timestamp | SqlType::Timestamptz => (DAYS.0 * text::DAY_US, (DAYS.1 + 1) * text::DAY_US - 1),
            _ => return None,
        })
    }
}

/// A number between two, both included.
fn between(choice: u64, min: i64, max: i64) -> i64 {
    let width = max.wrapping_sub(min).cast_unsigned().saturating_add(1);
    min.wrapping_add_unsigned(below(choice, width))
}

/// Appends the value that an integer stands for.
fn append_integer(builder: &mut Builder, value: i64) -> crate::bad::Outcome<()> {
    let name = builder.type_name();
    let appended = match builder {
        Builder::Int2(b) => b.append_integer(value),
        Builder::Int4(b) => b.append_integer(value),
        Builder::Int8(b) => b.append_integer(value),
        Builder::Date(b) => b.append_integer(value),
        Builder::Time(b) => b.append_integer(value.rem_euclid(text::DAY_US)),
        Builder::Timestamp(b) | Builder::Timestamptz(b) => b.append_integer(value),
        Builder::Float4(b) => {
            b.append(value as f32);
            Ok(())
        }
        Builder::Float8(b) => {
            b.append(value as f64);
            Ok(())
        }
        Builder::Numeric(b) => {
            b.values.append(i128::from(value));
            Ok(())
        }
        Builder::Text(_, TextKind::Text | TextKind::Varchar(_)) => return builder.append_text(&value.to_string()),
        _ => Err(text::Wrong::Syntax),
    };
    appended.map_err(|_| crate::bad::out_of_range(name, &value.to_string()))
}

/// Appends something of a type that has no range.
fn append_free(builder: &mut Builder, choice: u64, length: u64) -> crate::bad::Outcome<()> {
    match builder {
        Builder::Bool(b) => b.append(choice.is_multiple_of(2)),
        Builder::Text(_, TextKind::Text | TextKind::Varchar(_) | TextKind::Char(_)) => {
            return builder.append_text(&letters(choice, length));
        }
        Builder::Text(_, TextKind::Uuid) => {
            let (high, low) = (random(choice, 0), random(choice, 1));
            // Version 4, variant 10.
            let high = high & !0xf000 | 0x4000;
            let low = low & !(3 << 62) | 1 << 63;
            return builder.append_text(&format!("{high:016x}{low:016x}"));
        }
        Builder::Text(_, TextKind::Json | TextKind::Jsonb) => {
            let (n, tag) = (below(choice, 1000), letters(choice, 4));
            return builder.append_text(&format!("{{\"n\": {n}, \"tag\": \"{tag}\"}}"));
        }
        Builder::Bytea(b) => {
            let bytes: Vec<u8> = (0..length).map(|n| random(choice, n) as u8).collect();
            b.append(&bytes);
        }
        Builder::Interval(b) => b.append(crate::column::interval(0, 0, below(choice, 86_400) as i64 * 1_000_000_000)),
        Builder::Array(lists) => {
            for n in 0..choice % 4 {
                append_any(&mut lists.element, random(choice, n))?;
            }
            lists.close_row(true);
        }
        Builder::Struct(structs) => {
            let Structs { fields, valid, .. } = structs.as_mut();
            for (n, field) in fields.iter_mut().enumerate() {
                append_any(&mut field.builder, random(choice, n as u64))?;
            }
            valid.append_non_null();
        }
        other => other.append_null(),
    }
    Ok(())
}

/// Appends a value inside an array or a struct, about which nothing can be said.
fn append_any(builder: &mut Builder, choice: u64) -> crate::bad::Outcome<()> {
    const DAY_0: u64 = 20_454;
    let day = DAY_0 + below(choice, 365);
    match builder {
        Builder::Int2(_) | Builder::Int4(_) | Builder::Int8(_) | Builder::Float4(_) | Builder::Float8(_) => {
            append_integer(builder, below(choice, 1001).cast_signed())
        }
        Builder::Numeric(b) => {
            b.values.append(i128::from(below(choice, 10)));
            Ok(())
        }
        Builder::Date(_) => append_integer(builder, day.cast_signed()),
        Builder::Time(_) => append_integer(builder, below(choice, text::DAY_US.unsigned_abs()).cast_signed()),
        Builder::Timestamp(_) | Builder::Timestamptz(_) => {
            append_integer(builder, day.cast_signed() * text::DAY_US + below(choice, 86_400).cast_signed() * 1_000_000)
        }
        Builder::Text(_, TextKind::Varchar(n) | TextKind::Char(n)) => {
            let length = u64::from(*n).min(10);
            append_free(builder, choice, length)
        }
        builder => append_free(builder, choice, 10),
    }
}

fn letters(choice: u64, n: u64) -> String {
    (0..n).map(|at| char::from(b'a' + below(random(choice, at), 26) as u8)).collect()
}

#[cfg(test)]
mod tests;

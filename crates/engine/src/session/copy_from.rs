//! `COPY .. FROM STDIN`: lines become rows of a table, all or none.
//!
//! Lines are read many at a time, column by column. Where that fails, they are read one by one, and the first that fails
//! says why and where, as PostgreSQL does. Invariant: nothing is written before the last line was read.

mod fields;
mod lines;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch, StringViewArray, StringViewBuilder};
use arrow::compute;
use arrow::datatypes::Schema;
use datafusion::prelude::SessionContext;
use tidewire_catalog::{Kind, Object};
use tidewire_planner::{Defaults, RowExprs, read_text};
use tidewire_sql::{CopyFrom, NamedColumn};
use tidewire_types::{Result, SqlError, SqlState, closest};

use self::fields::{Field, FieldReader, utf8};
use self::lines::Lines;
use super::dml::table_rows;
use super::{Outcome, Session, Transaction};
use crate::memory::row_bytes;
use crate::shared::Shared;
use crate::table::{Change, Constraints, OnConflict, Operation, shortened};

/// Lines that are read together, and their bytes.
const CHUNK_LINES: usize = 8192;
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of a line or value that messages show.
const SHOWN_BYTES: usize = 100;

/// A COPY whose lines are coming.
pub struct CopyIn {
    shared: Arc<Shared>,
    session: SessionContext,
    table: Arc<Object>,
    columns: Vec<CopiedColumn>,
    header: Option<Header>,
    lines: Lines,
    reader: FieldReader,
    /// The defaults of the columns that lines do not have.
    others: (Vec<usize>, Defaults),
    /// The defaults of the columns that they have, where a field may say that it takes it.
    defaults: Option<Defaults>,
    condition: Option<RowExprs>,
    constraints: Constraints,
    chunk: Chunk,
    rows: Vec<Numbered>,
    n_bytes: usize,
}

/// A column that lines have.
struct CopiedColumn {
    /// Which one of the table.
    idx: usize,
    is_never_null: bool,
    /// The text that stands for NULL does so in quotes too.
    is_null_in_quotes: bool,
}

/// What the first line is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Anything,
    Names,
}

/// Lines that were not read yet.
#[derive(Default)]
struct Chunk {
    text: String,
    /// The number of each line, and where it ends in the text.
    ends: Vec<(u64, usize)>,
}

/// Rows, and the number of each one's line.
struct Numbered {
    rows: RecordBatch,
    numbers: Vec<u64>,
}

impl Session {
    /// Begins a COPY.
    ///
    /// Errors: `42P01`, `42703`, `42809` for what is no table, `42P10` for an option about a column that lines do not have.
    pub(super) async fn copy_from(&mut self, copy: &CopyFrom, text: &str) -> Result<Outcome> {
        let catalog = self.shared().published().catalog;
        let table = self.resolve(&catalog, &copy.table)?.clone();
        if !matches!(table.def, Kind::Table(_)) {
            let message = format!("cannot copy to {} \"{}\"", table.kind(), table.name.name);
            return Err(SqlError::new(SqlState::WrongObjectType, message).with_detail("Only tables can be changed."));
        }
        let listed = copy.columns.iter().map(|column| column_idx(&table, column)).collect::<Result<Vec<_>>>()?;
        let listed = if listed.is_empty() { (0..table.columns.len()).collect() } else { listed };
        let never_null = forced(&table, &listed, &copy.force_not_null, "FORCE_NOT_NULL")?;
        let null_in_quotes = forced(&table, &listed, &copy.force_null, "FORCE_NULL")?;
        let others: Vec<usize> = (0..table.columns.len()).filter(|idx| !listed.contains(idx)).collect();
        let has_marker = copy.default.is_some();
        let planned = self.plan(text, |cx| {
            let condition = copy.condition.as_ref().map(|condition| cx.copy_condition(&table, condition, text));
            let defaults = if has_marker { Some(cx.defaults(&table, &listed)?) } else { None };
            Ok((cx.defaults(&table, &others)?, defaults, condition.transpose()?))
        });
        let ((other_defaults, defaults, condition), _) = planned.await?;
        let constraints = self.constraints(&table).await?;
        let column = |idx: usize| CopiedColumn {
            idx,
            is_never_null: never_null.contains(&idx),
            is_null_in_quotes: null_in_quotes.contains(&idx),
        };
        let header = match (copy.options.header, copy.header_match) {
            (_, true) => Some(Header::Names),
            (true, false) => Some(Header::Anything),
            (false, false) => None,
        };
        Ok(Outcome::CopyIn(Box::new(CopyIn {
            shared: self.shared().clone(),
            session: self.engine.datafusion.clone(),
            columns: listed.into_iter().map(column).collect(),
            header,
            lines: Lines::new(&copy.options),
            reader: FieldReader { options: copy.options.clone(), default: copy.default.clone() },
            others: (others, other_defaults),
            defaults,
            condition,
            constraints,
            table,
            chunk: Chunk::default(),
            rows: vec![],
            n_bytes: 0,
        })))
    }

    /// Ends a COPY whose lines have all come: writes its rows.
    ///
    /// Errors: as a line's; `23505` for a key that is there already. Then nothing is written.
    pub async fn finish_copy(&mut self, copy: CopyIn) -> Result<Outcome> {
        let (table, rows) = copy.end()?;
        let n_rows: usize = rows.iter().map(|rows| rows.numbers.len()).sum();
        let operation = |Numbered { rows, numbers }| {
            let name = table.name.name.clone();
            let context = move |idx| match numbers.get(idx) {
                Some(number) => format!("COPY {name}, line {number}"),
                None => format!("COPY {name}"),
            };
            Operation { table: table.id, change: Change::Insert(rows, OnConflict::FailIn(Arc::new(context))) }
        };
        let operations: Vec<Operation> = rows.into_iter().map(operation).collect();
        match self.transaction {
            Transaction::Open => self.written.extend(operations),
            Transaction::Idle | Transaction::Failed if operations.is_empty() => {}
            Transaction::Idle | Transaction::Failed => drop(self.write(operations).await?),
        }
        Ok(Outcome::command(format!("COPY {n_rows}")))
    }
}

impl CopyIn {
    /// How many columns lines have.
    pub fn n_columns(&self) -> usize {
        self.columns.len()
    }

    /// Takes bytes of lines as they come. Errors: `22P04`, `22P02`, `23502`, `23514`, .. for a line that cannot be a row,
    /// with the line as context; `53200` where there is no memory for its rows.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.lines.push(bytes).map_err(|e| self.in_line(e, self.lines.number))?;
        self.take_lines(false)
    }

    /// What the client's giving up is.
    pub fn failed(&self, reason: &str) -> SqlError {
        let error = SqlError::new(SqlState::QueryCanceled, format!("COPY from stdin failed: {reason}"));
        self.in_line(error, self.lines.number)
    }

    fn end(mut self) -> Result<(Arc<Object>, Vec<Numbered>)> {
        self.take_lines(true)?;
        self.read_chunk()?;
        Ok((self.table, self.rows))
    }

    fn in_line(&self, error: SqlError, number: u64) -> SqlError {
        error.with_context(format!("COPY {}, line {number}", self.table.name.name))
    }

    fn take_lines(&mut self, is_end: bool) -> Result<()> {
        loop {
            let next = self.lines.next(is_end).and_then(|line| line.map(|line| utf8(line.to_vec())).transpose());
            let number = self.lines.number;
            let line = match next {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(error) => {
                    // What is wrong about a line before comes first.
                    self.read_chunk()?;
                    return Err(self.in_line(error, number));
                }
            };
            self.lines.passed();
            match self.header.take() {
                Some(Header::Anything) => {}
                Some(Header::Names) => self.check_header(&line).map_err(|e| self.in_text(e, number, &line))?,
                None => {
                    self.chunk.text.push_str(&line);
                    self.chunk.ends.push((number, self.chunk.text.len()));
                }
            }
            if self.chunk.ends.len() >= CHUNK_LINES || self.chunk.text.len() >= CHUNK_BYTES {
                self.read_chunk()?;
            }
        }
    }

    fn in_text(&self, error: SqlError, number: u64, line: &str) -> SqlError {
        error.with_context(format!(
            "COPY {}, line {number}: \"{}\"",
            self.table.name.name,
            shortened(line, SHOWN_BYTES)
        ))
    }

    fn check_header(&self, line: &str) -> Result<()> {
        let bad = |message: String| Err(SqlError::new(SqlState::BadCopyFileFormat, message));
        let fields = self.reader.fields(line)?;
        let (n_fields, n_columns) = (fields.len(), self.columns.len());
        if n_fields != n_columns {
            return bad(format!("wrong number of fields in header line: got {n_fields}, expected {n_columns}"));
        }
        for (number, (field, name)) in (1..).zip(fields.iter().zip(self.names())) {
            match field {
                Field::Text(text) if text == name => {}
                Field::Text(text) => {
                    return bad(format!(
                        "column name mismatch in header line field {number}: got \"{text}\", expected \"{name}\""
                    ));
                }
                Field::Null | Field::Default => {
                    let null = &self.reader.options.null;
                    return bad(format!(
                        "column name mismatch in header line field {number}: got null value (\"{null}\"), expected \
                         \"{name}\""
                    ));
                }
            }
        }
        Ok(())
    }

    /// The names of the columns that lines have.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter_map(|column| Some(self.table.columns.get(column.idx)?.name.as_str()))
    }

    /// Makes rows of the lines at hand.
    fn read_chunk(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let lines = chunk.lines();
        if lines.is_empty() {
            return Ok(());
        }
        let first_error = |error| lines.iter().find_map(|line| self.error_of(*line)).unwrap_or(error);
        let read = self.rows_of(&lines).map_err(first_error)?;
        self.n_bytes += row_bytes(&read.rows);
        self.shared.memory.check_bytes(&self.table.name.name, self.n_bytes)?;
        if !read.numbers.is_empty() {
            self.rows.push(read);
        }
        Ok(())
    }

    /// What is wrong about a line, if anything is.
    fn error_of(&self, line @ (number, text): (u64, &str)) -> Option<SqlError> {
        let in_text = |error| self.in_text(error, number, text);
        let fields = match self.reader.fields(text) {
            Ok(fields) => fields,
            Err(error) => return Some(in_text(error)),
        };
        let bad = |message: String| Some(in_text(SqlError::new(SqlState::BadCopyFileFormat, message)));
        if fields.len() > self.columns.len() {
            return bad("extra data after last expected column".into());
        }
        for (place, (column, name)) in self.columns.iter().zip(self.names()).enumerate() {
            let Some(field) = fields.get(place) else { return bad(format!("missing data for column \"{name}\"")) };
            let has_default = self.table.columns.get(column.idx).is_some_and(|column| column.default.is_some());
            if *field == Field::Default && !has_default {
                let error = SqlError::new(SqlState::BadCopyFileFormat, "unexpected default marker in COPY data");
                return Some(in_text(error.with_detail(format!("Column \"{name}\" has no default value."))));
            }
            let mut values = Values::default();
            values.add(column, field, &self.reader.options.null);
            if let (Err(error), Field::Text(value)) = (self.typed(column, values.text.finish()), field) {
                let (table, value) = (&self.table.name.name, shortened(value, SHOWN_BYTES));
                return Some(error.with_context(format!("COPY {table}, line {number}, column {name}: \"{value}\"")));
            }
        }
        self.rows_of(&[line]).err().map(in_text)
    }

    fn typed(&self, column: &CopiedColumn, text: StringViewArray) -> Result<ArrayRef> {
        let column = self.table.columns.get(column.idx).ok_or_else(|| SqlError::internal("no such column"))?;
        read_text(&(Arc::new(text) as ArrayRef), &column.sql_type)
    }

    /// The rows of lines. The error of any of them; [`CopyIn::error_of`] finds the first.
    fn rows_of(&self, lines: &[(u64, &str)]) -> Result<Numbered> {
        let wrong = || SqlError::new(SqlState::BadCopyFileFormat, "a line has another number of fields");
        let mut values: Vec<Values> = self.columns.iter().map(|_| Values::default()).collect();
        for (_, line) in lines {
            let fields = self.reader.fields(line)?;
            if fields.len() != self.columns.len() {
                return Err(wrong());
            }
            for ((values, column), field) in values.iter_mut().zip(&self.columns).zip(&fields) {
                values.add(column, field, &self.reader.options.null);
            }
        }
        let n_rows = lines.len();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.table.columns.len()];
        let mut put = |idx: usize, values: ArrayRef| {
            if let Some(slot) = columns.get_mut(idx) {
                *slot = Some(values);
            }
        };
        let mut defaults = None;
        for (place, (mut values, column)) in values.into_iter().zip(&self.columns).enumerate() {
            let mut typed = self.typed(column, values.text.finish())?;
            if values.n_defaults > 0 {
                if self.table.columns.get(column.idx).is_none_or(|column| column.default.is_none()) {
                    return Err(wrong());
                }
                let planned = self.defaults.as_ref().ok_or_else(wrong)?;
                let evaluated = match &mut defaults {
                    Some(evaluated) => evaluated,
                    none => none.insert(planned.evaluate(n_rows, &self.session)?),
                };
                let default = evaluated.get(place).ok_or_else(wrong)?;
                let takes_default = BooleanArray::new(values.takes_default.finish(), None);
                typed = compute::kernels::zip::zip(&takes_default, default, &typed)?;
            }
            put(column.idx, typed);
        }
        let (others, other_defaults) = &self.others;
        for (idx, values) in others.iter().zip(other_defaults.evaluate(n_rows, &self.session)?) {
            put(*idx, values);
        }
        let columns = columns.into_iter().collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        let fields = self.table.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let mut rows = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?;
        let mut numbers: Vec<u64> = lines.iter().map(|(number, _)| *number).collect();
        if let Some(condition) = &self.condition {
            let taken = condition.conditions(&rows, &self.session)?.pop().ok_or_else(wrong)?;
            rows = compute::filter_record_batch(&rows, &taken)?;
            let mut taken = taken.iter().map(|taken| taken == Some(true));
            numbers.retain(|_| taken.next() == Some(true));
        }
        self.constraints.check(&rows)?;
        Ok(Numbered { rows: table_rows(&self.table, &rows)?, numbers })
    }
}

impl Chunk {
    fn lines(&self) -> Vec<(u64, &str)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let lines = starts.zip(&self.ends);
        lines.map(|(start, (number, end))| (*number, self.text.get(start..*end).unwrap_or_default())).collect()
    }
}

/// The fields of one column.
struct Values {
    text: StringViewBuilder,
    takes_default: BooleanBufferBuilder,
    n_defaults: usize,
}

impl Default for Values {
    fn default() -> Values {
        Values { text: StringViewBuilder::new(), takes_default: BooleanBufferBuilder::new(0), n_defaults: 0 }
    }
}

impl Values {
    fn add(&mut self, column: &CopiedColumn, field: &Field<'_>, null: &str) {
        self.takes_default.append(*field == Field::Default);
        match field {
            Field::Null if column.is_never_null => self.text.append_value(null),
            Field::Text(text) if column.is_null_in_quotes && text == null => self.text.append_null(),
            Field::Text(text) => self.text.append_value(text),
            Field::Null => self.text.append_null(),
            Field::Default => {
                self.n_defaults += 1;
                self.text.append_null();
            }
        }
    }
}

/// The columns that an option names. Errors: `42703`; `42P10` for one that lines do not have.
fn forced(table: &Object, listed: &[usize], columns: &[NamedColumn], option: &str) -> Result<Vec<usize>> {
    let forced = columns.iter().map(|column| {
        let idx = column_idx(table, column)?;
        if listed.contains(&idx) {
            return Ok(idx);
        }
        let message = format!("{option} column \"{}\" not referenced by COPY", column.name);
        Err(SqlError::new(SqlState::InvalidColumnReference, message).at(column.position))
    });
    forced.collect()
}

fn column_idx(table: &Object, column: &NamedColumn) -> Result<usize> {
    let names = || table.columns.iter().map(|c| c.name.as_str());
    names().position(|name| name == column.name).ok_or_else(|| {
        let message = format!("column \"{}\" of relation \"{}\" does not exist", column.name, table.name.name);
        let error = SqlError::new(SqlState::UndefinedColumn, message).at(column.position);
        match closest(&column.name, names()) {
            Some(near) => error.with_hint(format!("Perhaps you meant the column \"{near}\".")),
            None => error,
        }
    })
}

//! How much memory state may take, and whom it is taken from when there is no more.
//!
//! Counted is what tables, views and builds keep. The limit is of all of them; a view may have its own (`WITH (memory_limit =
//! '1GB')`). A view that passes its limit is stopped; when all together pass theirs, the largest of those that grew in
//! that epoch. A stopped view's state is let go at once, it says why, and all else goes on. A build fails alone. Rows
//! that are written to tables are refused; rows can always be deleted.
//!
//! To sum up what a view or a table takes costs more the larger it is. So that is done when what has come to it since the last
//! time is a small part of it, and else every tenth of a second.
//!
//! Invariant: what is not counted yet came with changes of less than a thousandth of what is, or in the last tenth of a second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use parking_lot::Mutex;
use tidewire_catalog::Object;
use tidewire_sql::Statement;
use tidewire_types::{ObjectId, Result, SqlError, SqlState};

/// The option of a view.
pub const MEMORY_LIMIT: &str = "memory_limit";

/// Reads an amount of memory: a number with a unit (B, kB, MB, GB, TB), or of bytes. Errors: `22023`.
pub fn memory_size(text: &str) -> Result<usize> {
    let wrong = || {
        SqlError::new(SqlState::InvalidParameterValue, format!("invalid amount of memory: \"{text}\""))
            .with_hint("Valid units are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\".")
    };
    let trimmed = text.trim();
    let (number, unit) =
        trimmed.split_at(trimmed.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(trimmed.len()));
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        "tb" => 1 << 40,
        _ => return Err(wrong()),
    };
    let n_bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    match n_bytes >= 1.0 && n_bytes <= 2_f64.powi(62) {
        true => Ok(n_bytes as usize),
        false => Err(wrong()),
    }
}

/// The limit that the options of CREATE MATERIALIZED VIEW set. Errors: `0A000` for another option.
pub fn limit_of_options(options: &[(String, String)]) -> Result<Option<usize>> {
    let mut limit = None;
    for (name, value) in options {
        match name.as_str() {
            MEMORY_LIMIT => limit = Some(memory_size(value)?),
            other => return Err(SqlError::unsupported(format_args!("option \"{other}\" of a view"))),
        }
    }
    Ok(limit)
}

/// The limit that a view was created with.
pub fn limit_of(object: &Object) -> Option<usize> {
    let parsed = tidewire_sql::parse(&object.sql).ok()?;
    match parsed.first().map(|p| &p.statement) {
        Some(Statement::CreateView(create)) => limit_of_options(&create.options).ok().flatten(),
        _ => None,
    }
}

/// What all threads of a server know.
pub struct Memory {
    limit: usize,
    // Of tables and views, after the last epoch.
    state: AtomicUsize,
    builds: Mutex<HashMap<ObjectId, usize>>,
}

impl Memory {
    pub fn new(limit: Option<usize>) -> Memory {
        Memory { limit: limit.unwrap_or(usize::MAX), state: AtomicUsize::new(0), builds: Mutex::default() }
    }

    /// Bytes that everything takes.
    fn used(&self) -> usize {
        self.state.load(Ordering::Relaxed) + self.builds.lock().values().sum::<usize>()
    }

    /// Bytes that are left.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    /// Errors: `53200` where there is no room for rows of a table.
    pub fn check_write(&self, table: &str, rows: &RecordBatch) -> Result<()> {
        if self.limit == usize::MAX { Ok(()) } else { self.check_bytes(table, row_bytes(rows)) }
    }

    /// Errors: `53200` where there is no room for rows of a table that take so much.
    pub fn check_bytes(&self, table: &str, n_bytes: usize) -> Result<()> {
        let room = self.room();
        if self.limit == usize::MAX || n_bytes <= room {
            return Ok(());
        }
        Err(SqlError::new(SqlState::OutOfMemory, format!("there is no memory for more rows in table \"{table}\""))
            .with_detail(format!("The rows take {n_bytes} bytes; {room} of {} are left.", self.limit))
            .with_hint("Delete rows, drop views, or start the server with a larger --memory-limit."))
    }

    /// A view that is being built takes so much now. Errors: `53200`.
    pub fn build_takes(&self, id: ObjectId, name: &str, n_bytes: usize, own: Option<usize>) -> Result<()> {
        self.builds.lock().insert(id, n_bytes);
        if let Some(limit) = own.filter(|limit| n_bytes > *limit) {
            return Err(over_own(name, n_bytes, limit));
        }
        let used = self.used();
        if used > self.limit { Err(over_all(name, n_bytes, used, self.limit)) } else { Ok(()) }
    }

    /// What a build took is a view's now, or is let go.
    pub fn build_ended(&self, id: ObjectId) {
        self.builds.lock().remove(&id);
    }
}

/// What the epoch loop knows of its tables and views.
#[derive(Default)]
pub struct StateMemory {
    tables: HashMap<ObjectId, Taken>,
    views: HashMap<ObjectId, OfView>,
    n_bytes: usize,
}

/// Which part of what is counted may come before it is counted anew.
const UNCOUNTED_PART: usize = 1024;

/// What something takes.
#[derive(Default)]
struct Taken {
    n_bytes: usize,
    /// Bytes of changes since that was counted.
    n_uncounted: usize,
}

impl Taken {
    /// Changes of so many bytes came. Whether it shall be counted anew.
    fn brought(&mut self, n_bytes: usize) -> bool {
        self.n_uncounted += n_bytes;
        self.n_uncounted > self.n_bytes / UNCOUNTED_PART
    }
}

#[derive(Default)]
struct OfView {
    taken: Taken,
    grew: bool,
    /// Read once: the statement says it.
    limit: Option<Option<usize>>,
}

impl StateMemory {
    /// Changes of so many bytes came to a table. Whether it shall be counted anew.
    pub fn table_brought(&mut self, id: ObjectId, n_bytes: usize) -> bool {
        self.tables.entry(id).or_default().brought(n_bytes)
    }

    /// Changes of so many bytes came to a view, or out of it. Whether it shall be counted anew.
    pub fn view_brought(&mut self, id: ObjectId, n_bytes: usize) -> bool {
        self.views.entry(id).or_default().taken.brought(n_bytes)
    }

    /// Whether changes of a table are not counted yet.
    pub fn is_table_uncounted(&self, id: ObjectId) -> bool {
        self.tables.get(&id).is_none_or(|table| table.n_uncounted > 0)
    }

    /// Whether changes of a view are not counted yet.
    pub fn is_view_uncounted(&self, id: ObjectId) -> bool {
        self.views.get(&id).is_none_or(|view| view.taken.n_uncounted > 0)
    }

    /// A table takes so much now.
    pub fn table_took(&mut self, id: ObjectId, n_bytes: usize) {
        let before = self.tables.insert(id, Taken { n_bytes, n_uncounted: 0 }).map_or(0, |table| table.n_bytes);
        self.n_bytes = self.n_bytes + n_bytes - before;
    }

    /// Bytes that the view may put out in one step.
    pub fn room(&self, id: ObjectId, memory: &Memory) -> usize {
        let own = self.views.get(&id).and_then(|view| Some(view.limit??.saturating_sub(view.taken.n_bytes)));
        memory.room().min(own.unwrap_or(usize::MAX))
    }

    /// A view takes so much now. Errors: `53200` where its own limit is passed.
    pub fn view_took(&mut self, id: ObjectId, name: &str, n_bytes: usize, object: Option<&Object>) -> Result<()> {
        let view = self.views.entry(id).or_default();
        let limit = *view.limit.get_or_insert_with(|| object.and_then(limit_of));
        self.n_bytes = self.n_bytes + n_bytes - view.taken.n_bytes;
        view.grew |= n_bytes > view.taken.n_bytes;
        view.taken = Taken { n_bytes, n_uncounted: 0 };
        match limit {
            Some(limit) if n_bytes > limit => Err(over_own(name, n_bytes, limit)),
            _ => Ok(()),
        }
    }

    /// Whether the view has a limit of its own.
    pub fn has_limit(&self, id: ObjectId) -> bool {
        self.views.get(&id).is_some_and(|view| view.limit.flatten().is_some())
    }

    /// The table or view is gone.
    pub fn forget(&mut self, id: ObjectId) {
        let view = self.views.remove(&id).map(|view| view.taken);
        for gone in self.tables.remove(&id).into_iter().chain(view) {
            self.n_bytes -= gone.n_bytes;
        }
    }

    /// Tells everybody what is used. The view to be stopped where that is too much.
    pub fn too_much(&mut self, memory: &Memory, name: impl Fn(ObjectId) -> String) -> Option<(ObjectId, SqlError)> {
        memory.state.store(self.n_bytes, Ordering::Relaxed);
        let used = memory.used();
        let stopped = match used > memory.limit {
            true => self.views.iter().filter(|(_, view)| view.grew).max_by_key(|(_, view)| view.taken.n_bytes),
            false => None,
        };
        let stopped = stopped.map(|(id, view)| (*id, over_all(&name(*id), view.taken.n_bytes, used, memory.limit)));
        if stopped.is_none() {
            self.views.values_mut().for_each(|view| view.grew = false);
        }
        stopped
    }
}

fn over_own(name: &str, n_bytes: usize, limit: usize) -> SqlError {
    SqlError::new(SqlState::OutOfMemory, format!("materialized view \"{name}\" takes more memory than it may"))
        .with_detail(format!("Its state takes {n_bytes} bytes, and its {MEMORY_LIMIT} is {limit}."))
        .with_hint("Create it with a larger memory_limit.")
}

fn over_all(name: &str, n_bytes: usize, used: usize, limit: usize) -> SqlError {
    SqlError::new(SqlState::OutOfMemory, format!("materialized view \"{name}\" takes more memory than there is"))
        .with_detail(format!("Its state takes {n_bytes} bytes; all state takes {used}, and the limit is {limit}."))
        .with_hint("Drop other views, or start the server with a larger --memory-limit.")
}

/// Bytes of rows, whatever they share with others.
pub fn row_bytes(rows: &RecordBatch) -> usize {
    let long = |lengths: &mut dyn Iterator<Item = u128>| -> usize {
        lengths.map(|view| view as u32 as usize).filter(|len| *len > 12).sum()
    };
    let of = |column: &arrow::array::ArrayRef| match column.data_type() {
        DataType::Utf8View => column.len() * 16 + long(&mut column.as_string_view().views().iter().copied()),
        DataType::BinaryView => column.len() * 16 + long(&mut column.as_binary_view().views().iter().copied()),
        data_type => match data_type.primitive_width() {
            Some(width) => column.len() * width,
            None => column.to_data().get_slice_memory_size().unwrap_or(0),
        },
    };
    rows.columns().iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_unit() {
        assert_eq!(memory_size("4GB").unwrap(), 4 << 30);
        assert_eq!(memory_size(" 1.5 mb ").unwrap(), 3 << 19);
        assert_eq!(memory_size("1000").unwrap(), 1000);
        for wrong in ["", "GB", "0", "-1", "4 apples", "1e9", "99999999TB"] {
            assert_eq!(memory_size(wrong).unwrap_err().state(), SqlState::InvalidParameterValue, "{wrong}");
        }
    }

    #[test]
    fn the_largest_of_those_that_grew_is_stopped() {
        let (memory, mut views) = (Memory::new(Some(100)), StateMemory::default());
        let name = |id: ObjectId| format!("v{}", id.0);
        views.table_took(ObjectId(9), 20);
        views.view_took(ObjectId(1), "v1", 60, None).unwrap();
        assert!(views.too_much(&memory, name).is_none());
        views.view_took(ObjectId(2), "v2", 5, None).unwrap();
        views.view_took(ObjectId(3), "v3", 30, None).unwrap();
        let (id, error) = views.too_much(&memory, name).unwrap();
        assert_eq!((id, error.state()), (ObjectId(3), SqlState::OutOfMemory));
        assert!(error.message().contains("\"v3\"") && error.detail().unwrap().contains("30 bytes"));
        views.forget(id);
        assert!(views.too_much(&memory, name).is_none());
        assert_eq!(memory.room(), 15);
        views.forget(ObjectId(9));
        assert!(views.too_much(&memory, name).is_none());
        assert_eq!(memory.room(), 35);
    }

    #[test]
    fn it_is_counted_anew_when_a_thousandth_has_come() {
        let (mut state, (table, view)) = (StateMemory::default(), (ObjectId(1), ObjectId(2)));
        assert!(state.table_brought(table, 1) && state.view_brought(view, 1));
        state.table_took(table, 1 << 20);
        state.view_took(view, "v", 1 << 20, None).unwrap();
        assert!(!state.is_table_uncounted(table) && !state.is_view_uncounted(view));
        assert!(!state.table_brought(table, 1000) && !state.view_brought(view, 1000));
        assert!(state.is_table_uncounted(table) && state.is_view_uncounted(view));
        assert!(state.table_brought(table, 1000) && state.view_brought(view, 1000));
    }
}

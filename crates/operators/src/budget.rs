//! How much one operator may put out in one step.
//!
//! A join by mistake (`FROM a, b` without a condition), or a long `generate_series` for each row, can turn one epoch into
//! more rows than there is memory, before its step has ended and anybody could look. So whoever makes many rows of few
//! counts them while it does.
//! The runtime sets the budget of the thread that runs a shard; where none is set, as in tests, there is no end.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use tidewire_types::{Result, SqlError, SqlState};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Budget>>> = const { RefCell::new(None) };
}

/// Bytes that all shards of a node may put out together in one step.
#[derive(Debug)]
pub struct Budget {
    n_bytes_max: usize,
    n_bytes: AtomicUsize,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(n_bytes_max: usize) -> Arc<Budget> {
        Arc::new(Budget { n_bytes_max, n_bytes: AtomicUsize::new(0) })
    }

    /// Runs `f`; what it spends on this thread is of this budget.
    pub fn run<T>(self: &Arc<Self>, f: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(self.clone()));
        let _restored = Restored(before);
        f()
    }
}

/// Puts the budget before in its place, also when the step panics.
struct Restored(Option<Arc<Budget>>);

impl Drop for Restored {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// Counts rows that were made. Errors: `53200` when the budget is spent.
pub fn spend(rows: &RecordBatch) -> Result<()> {
    CURRENT.with_borrow(|budget| {
        let Some(budget) = budget else { return Ok(()) };
        let added = new_bytes(rows);
        let n_bytes = budget.n_bytes.fetch_add(added, Ordering::Relaxed) + added;
        if n_bytes <= budget.n_bytes_max {
            return Ok(());
        }
        let message = "a join or set-returning function puts out more rows at once than there is memory for";
        Err(SqlError::new(SqlState::OutOfMemory, message)
            .with_detail(format!("It has put out {n_bytes} bytes, and may put out {}.", budget.n_bytes_max))
            .with_hint("Check that joins have a condition, and how many rows functions make."))
    })
}

/// Bytes of rows that were taken together: texts are shared with where they come from.
fn new_bytes(rows: &RecordBatch) -> usize {
    let of = |column: &arrow::array::ArrayRef| match column.data_type() {
        DataType::Utf8View | DataType::BinaryView => column.len() * size_of::<u128>(),
        DataType::Boolean => column.len() / 8,
        data_type => match data_type.primitive_width() {
            Some(width) => column.len() * width,
            None => column.get_array_memory_size(),
        },
    };
    rows.columns().iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn a_budget_ends_where_it_says_and_only_on_its_thread() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
        let rows = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let budget = Budget::new(200);
        budget.run(|| {
            spend(&rows).unwrap();
            spend(&rows).unwrap();
            assert_eq!(spend(&rows).unwrap_err().state(), SqlState::OutOfMemory);
        });
        spend(&rows).unwrap();
    }
}

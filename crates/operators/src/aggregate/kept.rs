//! The state of an aggregate as rows that a checkpoint keeps: a group's key, the words of its slot, and what it has beside.
//!
//! Only for states whose size does not follow the rows of a group ([`Layout::is_small`]); where a call keeps a multiset, a
//! checkpoint keeps the input instead. A step that touches a group for the first time after a cut notes its number; a cut
//! copies the slots of these groups and nothing else, and makes rows of the copy later, where nobody waits.
//!
//! Invariant: `dirty` has every group that was touched since the last cut, `removed` the key of every group that the last
//! checkpoint has and that is gone.
#![expect(clippy::indexing_slicing, reason = "hot loops; words and numbers of groups come from this operator's state")]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, RecordBatch, UInt64Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use tidewire_types::{Delta, Result, SqlError};

use super::arena::Arena;
use super::groups::{Groups, IN_CHECKPOINT, STAMP};
use super::keys::Keys;
use super::layout::Layout;
use super::shard::{State, push_words, types_of};
use super::values::taken;
use super::{Aggregate, Function};
use crate::{Kept, StateChanges};

/// What the words of a slot, and the bytes beside them, mean: another number for every change of that.
pub const STATE_VERSION: u32 = 1;

/// Rows of one delta.
const DELTA_ROWS: usize = 1 << 16;
/// Marks how far a sum is beyond its words, among the bytes beside a slot.
const OVERFLOW: u32 = 1 << 31;

impl Aggregate {
    /// How a checkpoint keeps the state.
    pub fn kept(&self) -> Kept {
        // The rows of DataFusion's own functions are all there.
        if self.calls.iter().any(|call| matches!(call.function, Function::Other(_))) {
            return Kept::Inputs;
        }
        let Ok(keys) = keys_of(self) else { return Kept::Inputs };
        match Layout::new(self, &types_of(self), 1 + keys.n_words()) {
            Ok(layout) if layout.is_small() => {
                let n_words = layout.width() - 1 - keys.n_words();
                Kept::Rows { schema: schema_of(self, n_words), n_key_columns: Some(self.keys.len()) }
            }
            // What cannot be laid out is refused when it is built.
            _ => Kept::Inputs,
        }
    }
}

pub(super) fn keys_of(plan: &Aggregate) -> Result<Keys> {
    Keys::new(&plan.schema.fields().iter().take(plan.keys.len()).map(AsRef::as_ref).collect::<Vec<_>>())
}

/// The keys, `n_words` words of the slot behind them, what is beside the slot.
fn schema_of(plan: &Aggregate, n_words: usize) -> SchemaRef {
    let keys = plan.schema.fields().iter().take(plan.keys.len()).enumerate();
    let mut fields: Vec<Field> =
        keys.map(|(idx, f)| Field::new(format!("k{idx}"), f.data_type().clone(), true)).collect();
    fields.extend((0..n_words).map(|idx| Field::new(format!("w{idx}"), DataType::UInt64, false)));
    fields.push(Field::new("beside", DataType::Binary, true));
    Arc::new(Schema::new(fields))
}

/// What a checkpoint does not have yet.
pub(super) struct Tracking {
    is_on: bool,
    /// The last step before the last cut.
    pub(super) cut: u32,
    dirty: Vec<u32>,
    removed: Copies,
}

impl Tracking {
    pub(super) fn new(is_on: bool) -> Tracking {
        Tracking { is_on, cut: 0, dirty: vec![], removed: Copies::default() }
    }

    /// From now on it notes what changes.
    pub(super) fn begin(&mut self) {
        self.is_on = true;
    }

    /// A group with this header is touched for the first time in a step. Returns whether the last checkpoint has it, as a
    /// bit of the header.
    #[inline]
    pub(super) fn touch(&mut self, id: u32, header: u32) -> u32 {
        let stamp = header & STAMP;
        if stamp > self.cut || !self.is_on {
            return header & IN_CHECKPOINT;
        }
        self.dirty.push(id);
        if stamp == 0 { 0 } else { IN_CHECKPOINT }
    }

    /// A group that the last checkpoint has goes.
    pub(super) fn forget(&mut self, groups: &Groups, id: u32) {
        self.removed.push(groups, &groups.slots.get(id)[..1 + groups.keys().n_words()]);
    }

    /// Groups that were touched since the last cut; some may be gone.
    pub(super) fn n_dirty(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.dirty.capacity() * size_of::<u32>() + self.removed.bytes()
    }

    /// The groups that are not in the last checkpoint as they are, by number: neighbours in memory one after the other.
    fn take_dirty(&mut self, n_slots: usize) -> Vec<u32> {
        let mut marks = vec![0u64; n_slots.div_ceil(64)];
        // Slots that were given back as a whole have no number any more.
        for id in std::mem::take(&mut self.dirty).into_iter().filter(|id| (*id as usize) < n_slots) {
            marks[id as usize / 64] |= 1 << (id % 64);
        }
        let mut ids = Vec::with_capacity(marks.iter().map(|word| word.count_ones() as usize).sum());
        for (idx, word) in marks.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                ids.push(idx as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        ids
    }
}

/// Copies of the first words of slots, and of the long values in their keys.
#[derive(Default)]
struct Copies {
    words: Vec<u64>,
    long_values: Arena,
}

impl Copies {
    #[inline]
    fn push(&mut self, groups: &Groups, slot: &[u64]) {
        let start = self.words.len();
        push_words(&mut self.words, slot);
        if groups.keys().has_bytes() {
            let key = &mut self.words[start + 1..start + 1 + groups.keys().n_words()];
            groups.keys().relocate(key, groups.arena(), &mut self.long_values);
        }
    }

    fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>() + self.long_values.bytes()
    }
}

/// What a cut has copied.
struct Cut {
    keys: Arc<Keys>,
    schema: SchemaRef,
    removed: Copies,
    /// Words of a copied slot: header, key, state.
    width: usize,
    present: Copies,
    /// Of the copied groups that have something beside the slot; by their place.
    beside: Vec<(usize, Vec<u8>)>,
}

impl State {
    /// What changed since the last cut.
    pub(super) fn take_changes(&mut self, plan: &Aggregate) -> StateChanges {
        let width = self.layout.width();
        let dirty = self.tracking.take_dirty(self.groups.n_slots());
        let mut present = Copies { words: Vec::with_capacity(dirty.len() * width), long_values: Arena::default() };
        let is_beside = !self.overflows.is_empty() || self.layout.accumulators.iter().any(|a| a.is_beside());
        let mut beside = vec![];
        for id in dirty {
            let slot = self.groups.slots.get(id);
            // A slot that no step has touched is free.
            if slot[0] as u32 & STAMP == 0 {
                continue;
            }
            if is_beside {
                let bytes = self.beside(id);
                if !bytes.is_empty() {
                    beside.push((present.words.len() / width, bytes));
                }
            }
            present.push(&self.groups, &slot[..width]);
        }
        self.tracking.cut = self.step - 1;
        let cut = Cut {
            keys: Arc::clone(self.groups.keys()),
            schema: schema_of(plan, width - 1 - self.groups.keys().n_words()),
            removed: std::mem::take(&mut self.tracking.removed),
            width,
            present,
            beside,
        };
        Box::new(move || cut.deltas())
    }

    /// What a group has beside its slot: a mark, a length and the bytes of each.
    fn beside(&self, id: u32) -> Vec<u8> {
        let mut out = vec![];
        let mut put = |mark: u32, write: &dyn Fn(&mut Vec<u8>)| {
            let start = out.len();
            out.extend(mark.to_le_bytes());
            out.extend([0; 4]);
            write(&mut out);
            match (out.len() - start - 8) as u32 {
                0 => out.truncate(start),
                len => out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes()),
            }
        };
        for ((_, idx), carry) in self.overflows.range((id, 0)..=(id, usize::MAX)) {
            put(*idx as u32 | OVERFLOW, &|out| out.extend(carry.to_le_bytes()));
        }
        for (idx, accumulator) in self.layout.accumulators.iter().enumerate().filter(|(_, a)| a.is_beside()) {
            put(idx as u32, &|out| accumulator.save(id, out));
        }
        out
    }

    /// Takes rows back.
    pub(super) fn restore(&mut self, plan: &Aggregate, delta: &Delta) -> Result<()> {
        let (n_keys, n_rows) = (plan.keys.len(), delta.n_rows());
        let columns = delta.rows().columns();
        let base = 1 + self.groups.keys().n_words();
        let (Some(keys), Some((beside, words))) =
            (columns.get(..n_keys), columns.get(n_keys..).and_then(<[_]>::split_last))
        else {
            return Err(foreign());
        };
        let words =
            words.iter().map(|c| c.as_primitive_opt::<UInt64Type>().map(|c| &c.values()[..]).ok_or_else(foreign));
        let words = words.collect::<Result<Vec<_>>>()?;
        let beside = beside.as_binary_opt::<i32>().ok_or_else(foreign)?;
        if base + words.len() != self.layout.width() {
            return Err(foreign());
        }
        let n_before = self.groups.len();
        self.resolve_keys(plan, keys.to_vec(), n_rows)?;
        if !self.is_global && self.groups.len() != n_before + n_rows {
            return Err(SqlError::internal("a group comes back twice"));
        }
        // Restored groups are as the checkpoint has them: touched by a step before the last cut.
        (self.step, self.tracking.cut) = (self.step.max(2), self.tracking.cut.max(1));
        for (row_idx, id) in self.ids.iter().enumerate() {
            let slot = self.groups.slots.get_mut(*id);
            slot[0] = slot[0] >> 32 << 32 | 1;
            for (place, column) in slot[base..].iter_mut().zip(&words) {
                *place = column[row_idx];
            }
        }
        self.restore_beside(beside)
    }

    fn restore_beside(&mut self, beside: &BinaryArray) -> Result<()> {
        let n_slots = self.groups.n_slots();
        let accumulators = &mut self.layout.accumulators;
        let has_any = accumulators.iter().any(|a| a.is_beside());
        if !has_any && beside.null_count() == beside.len() {
            return Ok(());
        }
        for (row_idx, id) in self.ids.iter().enumerate() {
            let mut of_accumulators = vec![&[][..]; accumulators.len()];
            let mut rest = if beside.is_valid(row_idx) { beside.value(row_idx) } else { &[] };
            while !rest.is_empty() {
                let mark = u32::from_le_bytes(taken(&mut rest)?);
                let len = u32::from_le_bytes(taken(&mut rest)?) as usize;
                let (mut bytes, after) = rest.split_at_checked(len).ok_or_else(foreign)?;
                rest = after;
                let idx = (mark & !OVERFLOW) as usize;
                let place = of_accumulators.get_mut(idx).ok_or_else(foreign)?;
                match mark & OVERFLOW {
                    0 => *place = bytes,
                    _ => {
                        self.overflows.insert((*id, idx), i64::from_le_bytes(taken(&mut bytes)?));
                    }
                }
            }
            let slot = self.groups.slots.get(*id);
            for (idx, (accumulator, bytes)) in accumulators.iter_mut().zip(of_accumulators).enumerate() {
                if accumulator.is_beside() && !accumulator.load(*id, slot, n_slots, bytes)? {
                    self.failed.insert((*id, idx));
                }
            }
        }
        Ok(())
    }
}

fn foreign() -> SqlError {
    SqlError::internal("rows of a state that is laid out otherwise")
}

impl Cut {
    /// First the groups that are gone: one of the same key may have come since.
    fn deltas(self) -> Result<Vec<Delta>> {
        let n_key_words = 1 + self.keys.n_words();
        let mut deltas = vec![];
        for words in self.removed.words.chunks(DELTA_ROWS * n_key_words) {
            deltas.push(Delta::delete(self.removed_rows(words)?));
        }
        let mut beside = self.beside.iter().peekable();
        for (idx, words) in self.present.words.chunks(DELTA_ROWS * self.width).enumerate() {
            let n_rows = words.len() / self.width;
            let mut columns = self.keys.decode(words, self.width, &self.present.long_values)?;
            for at in n_key_words..self.width {
                let column = words.chunks_exact(self.width).map(|slot| slot[at]);
                columns.push(Arc::new(column.collect::<UInt64Array>()));
            }
            let mut bytes = BinaryBuilder::new();
            for place in idx * DELTA_ROWS..idx * DELTA_ROWS + n_rows {
                match beside.next_if(|(of, _)| *of == place) {
                    Some((_, value)) => bytes.append_value(value),
                    None => bytes.append_null(),
                }
            }
            columns.push(Arc::new(bytes.finish()));
            deltas.push(Delta::insert(RecordBatch::try_new(Arc::clone(&self.schema), columns)?));
        }
        Ok(deltas)
    }

    /// The keys of groups that are gone; the other columns mean nothing.
    fn removed_rows(&self, words: &[u64]) -> Result<RecordBatch> {
        let width = 1 + self.keys.n_words();
        let n_rows = words.len() / width;
        let mut columns: Vec<ArrayRef> = self.keys.decode(words, width, &self.removed.long_values)?;
        for field in self.schema.fields().iter().skip(columns.len()) {
            columns.push(match field.data_type() {
                DataType::UInt64 => Arc::new(UInt64Array::from(vec![0; n_rows])),
                other => new_null_array(other, n_rows),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

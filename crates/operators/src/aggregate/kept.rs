//! The state of an aggregate as rows that a checkpoint keeps: a group's key, the words of its slot, and what it has beside.
//!
//! Only for states whose size does not follow the rows of a group ([`Layout::is_small`]); where a call keeps a multiset, a
//! checkpoint keeps the input instead. A step that touches a group for the first time after a cut marks it. A cut takes the
//! marks and copies nothing: the groups are copied a few at a time between later steps, and one that a step is about to
//! change is copied before. Copies go to the thread that makes rows of them, piece by piece. Where much of the state has
//! changed since all of it was copied, a cut is all of it: nobody need put that together with what was kept before.
//!
//! Invariant: `dirty` marks every group that was touched since the last cut, `removed` has the key of every group that the
//! last checkpoint has and that is gone. `Copying::marks` are the groups of the cut that are not copied yet, and none of them
//! has changed since the cut.
#![expect(clippy::indexing_slicing, reason = "hot loops; words and numbers of groups come from this operator's state")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

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
/// A cut is all groups where one in so many of them was touched since all were copied.
const TOUCHED_PER_ALL: usize = 3;
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
    dirty: Marks,
    removed: Copies,
    /// Groups that were touched, in the cuts since all were copied.
    n_since_all: usize,
    copying: Option<Copying>,
}

impl Tracking {
    pub(super) fn new(is_on: bool) -> Tracking {
        let (dirty, removed) = (Marks::default(), Copies::default());
        Tracking { is_on, cut: 0, dirty, removed, n_since_all: 0, copying: None }
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
        self.dirty.put(id);
        if stamp == 0 { 0 } else { IN_CHECKPOINT }
    }

    /// A group that the last checkpoint has goes.
    pub(super) fn forget(&mut self, groups: &Groups, id: u32) {
        self.removed.push(groups, &groups.slots.get(id)[..1 + groups.keys().n_words()]);
    }

    pub(super) fn bytes(&self) -> usize {
        let copying = self.copying.as_ref().map_or(0, |copying| copying.marks.bytes() + copying.piece.bytes());
        self.dirty.bytes() + self.removed.bytes() + copying
    }
}

/// A set of groups, by number.
#[derive(Default)]
struct Marks {
    words: Vec<u64>,
    n: usize,
}

impl Marks {
    /// Of all groups below `n`.
    fn all(n: usize) -> Marks {
        let mut words = vec![u64::MAX; n / 64];
        if !n.is_multiple_of(64) {
            words.push((1 << (n % 64)) - 1);
        }
        Marks { words, n }
    }

    #[inline]
    fn put(&mut self, id: u32) {
        let (at, bit) = (id as usize / 64, 1 << (id % 64));
        if at >= self.words.len() {
            self.words.resize((at + 1).next_power_of_two(), 0);
        }
        self.n += usize::from(self.words[at] & bit == 0);
        self.words[at] |= bit;
    }

    /// Takes a group out. Returns whether it was there.
    #[inline]
    fn take(&mut self, id: u32) -> bool {
        let bit = 1 << (id % 64);
        let Some(word) = self.words.get_mut(id as usize / 64).filter(|word| **word & bit != 0) else { return false };
        *word &= !bit;
        self.n -= 1;
        true
    }

    /// The first group from the word `at` on, and its word.
    fn next(&self, at: usize) -> Option<(usize, u32)> {
        let ahead = self.words.get(at..)?.iter().position(|word| *word != 0)?;
        let at = at + ahead;
        Some((at, at as u32 * 64 + self.words[at].trailing_zeros()))
    }

    fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

/// A cut whose groups are being copied.
struct Copying {
    marks: Marks,
    /// No word before this one has a mark.
    at: usize,
    /// Whether a group may have something beside its slot.
    is_beside: bool,
    piece: Piece,
    to: Sender<Message>,
}

/// What goes to the thread that makes rows.
enum Message {
    Piece(Piece),
    /// All has been sent: without it the operator is gone.
    End,
}

/// Copies of some groups.
#[derive(Default)]
struct Piece {
    copies: Copies,
    n_groups: usize,
    /// Of those that have something beside the slot; by their place.
    beside: Vec<(usize, Vec<u8>)>,
}

impl Piece {
    fn bytes(&self) -> usize {
        self.copies.bytes() + self.beside.iter().map(|(_, bytes)| bytes.capacity()).sum::<usize>()
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

/// What makes rows of a cut.
struct Cut {
    keys: Arc<Keys>,
    schema: SchemaRef,
    removed: Copies,
    /// Words of a copied slot: header, key, state.
    width: usize,
    pieces: Receiver<Message>,
}

impl State {
    /// What changed since the last cut, or all there is.
    pub(super) fn take_changes(&mut self, plan: &Aggregate, may_be_all: bool) -> StateChanges {
        while self.copy_changes(usize::MAX) > 0 {}
        let width = self.layout.width();
        let mut marks = std::mem::take(&mut self.tracking.dirty);
        let mut removed = std::mem::take(&mut self.tracking.removed);
        self.tracking.n_since_all += marks.n;
        let is_much = self.tracking.n_since_all * TOUCHED_PER_ALL > self.groups.len();
        let is_all_for = (is_much && may_be_all && !self.is_global).then_some(marks.n);
        if is_all_for.is_some() {
            self.tracking.n_since_all = 0;
            (marks, removed) = (Marks::all(self.groups.n_slots()), Copies::default());
        }
        self.tracking.cut = self.step - 1;
        let is_beside = !self.overflows.is_empty() || self.layout.accumulators.iter().any(|a| a.is_beside());
        let (to, pieces) = channel();
        let keys = Arc::clone(self.groups.keys());
        let schema = schema_of(plan, width - 1 - keys.n_words());
        let cut = Cut { keys, schema, removed, width, pieces };
        self.go_on_copying(Copying { marks, at: 0, is_beside, piece: Piece::default(), to });
        StateChanges { is_all_for, rows: Box::new(move || cut.deltas()) }
    }

    /// Copies groups of a cut, about so many bytes. Returns how many; 0: all are copied.
    pub(super) fn copy_changes(&mut self, n_bytes_max: usize) -> usize {
        let Some(mut copying) = self.tracking.copying.take() else { return 0 };
        let slot_bytes = self.layout.width() * size_of::<u64>();
        let mut n_bytes = 0;
        while n_bytes < n_bytes_max
            && let Some((at, id)) = copying.marks.next(copying.at)
        {
            copying.at = at;
            copying.marks.take(id);
            self.copy(id, &mut copying);
            n_bytes += slot_bytes;
        }
        self.go_on_copying(copying);
        n_bytes
    }

    /// Copies those of the groups that a step is about to touch (`ids`) which a cut still needs as they are.
    pub(super) fn copy_before_change(&mut self) {
        let Some(mut copying) = self.tracking.copying.take() else { return };
        for id in &self.ids {
            if copying.marks.take(*id) {
                self.copy(*id, &mut copying);
            }
        }
        self.go_on_copying(copying);
    }

    fn copy(&self, id: u32, copying: &mut Copying) {
        // Slots that were given back as a whole have no number any more.
        if id as usize >= self.groups.n_slots() {
            return;
        }
        let slot = self.groups.slots.get(id);
        // A slot that no step has touched is free, or new since the cut.
        if slot[0] as u32 & STAMP == 0 {
            return;
        }
        let (piece, width) = (&mut copying.piece, self.layout.width());
        if piece.n_groups == 0 {
            let n_groups = DELTA_ROWS.min(copying.marks.n + 1);
            piece.copies.words.reserve_exact(n_groups * width);
        }
        if copying.is_beside {
            let bytes = self.beside(id);
            if !bytes.is_empty() {
                piece.beside.push((piece.n_groups, bytes));
            }
        }
        piece.copies.push(&self.groups, &slot[..width]);
        piece.n_groups += 1;
        if piece.n_groups == DELTA_ROWS {
            // Whoever does not want them any more is gone.
            let _ = copying.to.send(Message::Piece(std::mem::take(piece)));
        }
    }

    fn go_on_copying(&mut self, mut copying: Copying) {
        if copying.marks.n > 0 {
            self.tracking.copying = Some(copying);
            return;
        }
        let _ = copying.to.send(Message::Piece(std::mem::take(&mut copying.piece)));
        let _ = copying.to.send(Message::End);
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
        loop {
            match self.pieces.recv() {
                Ok(Message::Piece(piece)) if piece.n_groups == 0 => {}
                Ok(Message::Piece(piece)) => deltas.push(Delta::insert(self.rows(&piece)?)),
                Ok(Message::End) => return Ok(deltas),
                Err(_) => return Err(SqlError::internal("an operator ended before its state was copied")),
            }
        }
    }

    fn rows(&self, Piece { copies, n_groups, beside }: &Piece) -> Result<RecordBatch> {
        let mut columns = self.keys.decode(&copies.words, self.width, &copies.long_values)?;
        for at in 1 + self.keys.n_words()..self.width {
            let column: Vec<u64> = copies.words.chunks_exact(self.width).map(|slot| slot[at]).collect();
            columns.push(Arc::new(UInt64Array::from(column)));
        }
        let (mut bytes, mut beside) = (BinaryBuilder::new(), beside.iter().peekable());
        for place in 0..*n_groups {
            match beside.next_if(|(of, _)| *of == place) {
                Some((_, value)) => bytes.append_value(value),
                None => bytes.append_null(),
            }
        }
        columns.push(Arc::new(bytes.finish()));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
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

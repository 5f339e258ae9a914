//! The arrangement against a plain list of rows, over random epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StringViewArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use tidewire_types::{Delta, Epoch, SqlState};

use super::{Arrangement, ArrangementReader, Identity};

/// A row: the key and what all other columns are made of.
type Row = (Option<i64>, u8);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8View, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("d", DataType::Decimal128(12, 2), true),
        Field::new("l", DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))), true),
        Field::new("t", DataType::Utf8, true),
        Field::new("f", DataType::Float64, false),
        Field::new("i", DataType::Int32, true),
    ]))
}

fn text(v: u8) -> Option<String> {
    (v % 7 != 3).then(|| "x".repeat(usize::from(v % 5) * 9) + &v.to_string())
}

fn batch(rows: &[Row]) -> RecordBatch {
    let v = || rows.iter().map(|(_, v)| *v);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|(k, _)| *k))),
        Arc::new(StringViewArray::from_iter(v().map(text))),
        Arc::new(BooleanArray::from_iter(v().map(|v| (v % 3 != 0).then_some(v % 2 == 0)))),
        Arc::new(
            Decimal128Array::from_iter(v().map(|v| (v % 11 != 0).then_some(i128::from(v) * 101)))
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
            v().map(|v| (v % 4 != 0).then(|| (0..i32::from(v % 3)).map(|i| (i != 1).then_some(i)))),
        )),
        Arc::new(StringArray::from_iter(v().map(|v| text(v.wrapping_add(1))))),
        Arc::new(Float64Array::from_iter_values(v().map(f64::from))),
        Arc::new(Int32Array::from_iter(v().map(|v| (v < 200).then_some(i32::from(v))))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The rows as text, in no order.
fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = vec![];
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    rows.sort();
    rows
}

fn scan(reader: &Arc<ArrangementReader>, epoch: u32) -> Vec<RecordBatch> {
    reader.scan(Epoch(epoch), None).unwrap().collect::<Result<_, _>>().unwrap()
}

fn delta(changes: &[(Row, i64)]) -> Delta {
    let rows: Vec<Row> = changes.iter().map(|(row, _)| *row).collect();
    Delta::new(batch(&rows), Some(changes.iter().map(|(_, weight)| *weight).collect::<Vec<_>>().into()))
}

/// An arrangement, what must be in it at each epoch that can still be read, and the first of these.
struct Checked {
    arrangement: Arrangement,
    history: Vec<Vec<Row>>,
    oldest: usize,
}

impl Checked {
    fn new(identity: Identity) -> Checked {
        let arrangement = Arrangement::new(schema(), identity).unwrap();
        Checked { arrangement, history: vec![vec![]], oldest: 0 }
    }

    fn apply(&mut self, deltas: &[Delta], rows: Vec<Row>) {
        let epoch = self.history.len() as u32;
        let before = self.arrangement.reader().scan(Epoch(epoch - 1), None).unwrap();
        self.arrangement.apply(deltas, Epoch(epoch)).unwrap();
        assert_eq!(self.arrangement.n_rows(), rows.len());
        self.history.push(rows);
        // A reader that has begun keeps its epoch.
        let before: Vec<_> = before.collect::<Result<_, _>>().unwrap();
        assert_eq!(sorted(&before), sorted(&[batch(&self.history[epoch as usize - 1])]));
        // One index from the start, one over rows that are there; both are built in small slices.
        for (first, key) in [(1, &[0][..]), (3, &[1, 0])] {
            if epoch >= first {
                self.arrangement.add_index(key);
                self.arrangement.build_index(key, 7).unwrap();
            }
        }
        self.check();
    }

    /// Each key's rows, by both indexes, at `epoch`.
    fn check_lookups(&self, epoch: usize) {
        let reader = self.arrangement.reader();
        for key_idxs in [&[0][..], &[1, 0]] {
            let Some(index) = reader.index_on(key_idxs).filter(|index| index.is_ready(Epoch(epoch as u32))) else {
                continue;
            };
            let mut by_key: BTreeMap<(Option<i64>, Option<String>), Vec<Row>> = BTreeMap::new();
            for row in &self.history[epoch] {
                by_key.entry((row.0, (key_idxs.len() > 1).then(|| text(row.1)).flatten())).or_default().push(*row);
            }
            // A key that is not there.
            by_key.insert((Some(-1), Some("none".into())), vec![]);
            let n_skipped = by_key.len() / 8;
            for ((k, s), rows) in by_key.into_iter().step_by(1 + n_skipped) {
                if k.is_none() || (key_idxs.len() > 1 && s.is_none()) {
                    continue;
                }
                let k: ArrayRef = Arc::new(Int64Array::from(vec![k]));
                let s: ArrayRef = Arc::new(StringViewArray::from_iter([s]));
                let keys = if key_idxs.len() > 1 { vec![s, k] } else { vec![k] };
                let all: Vec<usize> = (0..schema().fields().len()).collect();
                let found = reader.lookup(&index, Epoch(epoch as u32), &keys, &all).unwrap().unwrap();
                assert_eq!(sorted(&found), sorted(&[batch(&rows)]), "epoch {epoch}");
            }
        }
    }

    /// Everything was deleted: nothing may be left.
    fn ends_empty(&mut self) {
        assert_eq!(self.arrangement.index.len(), 0);
        self.arrangement.vacuum(Epoch(self.history.len() as u32 - 1));
        assert!(self.arrangement.indexes().all(|index| index.n_rows == 0));
    }

    fn check(&self) {
        // The oldest, the newest, and one between them.
        let newest = self.history.len() - 1;
        for epoch in BTreeSet::from([self.oldest, self.oldest.midpoint(newest), newest]) {
            let expected = sorted(&[batch(&self.history[epoch])]);
            assert_eq!(sorted(&scan(&self.arrangement.reader(), epoch as u32)), expected, "epoch {epoch}");
            self.check_lookups(epoch);
        }
    }

    fn vacuum(&mut self, n_kept: usize) {
        self.oldest = self.oldest.max((self.history.len() - 1).saturating_sub(n_kept));
        let begun = self.arrangement.reader().scan(Epoch(self.oldest as u32), None).unwrap();
        self.arrangement.vacuum(Epoch(self.oldest as u32));
        let begun: Vec<_> = begun.collect::<Result<_, _>>().unwrap();
        assert_eq!(sorted(&begun), sorted(&[batch(&self.history[self.oldest])]));
        self.check();
    }
}

fn a_row(n_keys: i64) -> impl Strategy<Value = Row> {
    (prop::option::weighted(0.9, 0..n_keys), any::<u8>())
}

/// Per epoch: what is written, how the changes are cut and ordered, whether and how far to vacuum.
type Step<T> = (Vec<T>, u64, Option<usize>);

fn steps<T: std::fmt::Debug>(change: impl Strategy<Value = T>, n_max: usize) -> impl Strategy<Value = Vec<Step<T>>> {
    prop::collection::vec((prop::collection::vec(change, 0..n_max), any::<u64>(), prop::option::of(0..3usize)), 1..12)
}

/// Shuffles and cuts into up to three deltas.
fn cut(mut changes: Vec<(Row, i64)>, seed: u64) -> Vec<Delta> {
    let mut state = seed | 1;
    for idx in (1..changes.len()).rev() {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        changes.swap(idx, (state >> 33) as usize % (idx + 1));
    }
    let at = changes.len().min((seed % 7) as usize * 3);
    let (a, b) = changes.split_at(at);
    vec![delta(a), delta(b), delta(&[])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_unique_key_is_as_a_map(steps in steps((a_row(60), any::<bool>(), any::<bool>()), 60)) {
        let mut checked = Checked::new(Identity::UniqueKey(vec![0]));
        let mut map: BTreeMap<Option<i64>, u8> = BTreeMap::new();
        for (writes, seed, vacuum) in steps {
            let mut changes = vec![];
            // Several changes of one key in an epoch leave the traces in between in the delta, in any order.
            for ((key, value), is_removed, is_kept) in writes {
                if let Some(old) = map.remove(&key) {
                    changes.push(((key, old), -1));
                }
                if !is_removed {
                    changes.push(((key, value), 1));
                    map.insert(key, value);
                }
                if !is_kept && let Some(value) = map.remove(&key) {
                    changes.push(((key, value), -1));
                }
            }
            checked.apply(&cut(changes, seed), map.iter().map(|(k, v)| (*k, *v)).collect());
            if let Some(n_kept) = vacuum {
                checked.vacuum(n_kept);
            }
            let keys: Vec<Option<i64>> = (0..60).map(Some).chain([None]).collect();
            let schema = Arc::new(schema().project(&[0]).unwrap());
            let column: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
            let (found, places) = checked.arrangement.get(&RecordBatch::try_new(schema, vec![column]).unwrap()).unwrap();
            for (key, place) in keys.iter().zip(places) {
                prop_assert_eq!(place.is_some(), map.contains_key(key));
                if let Some(place) = place {
                    prop_assert_eq!(found.slice(place, 1), batch(&[(*key, map[key])]));
                }
            }
        }
        let last: Vec<_> = map.iter().map(|(k, v)| ((*k, *v), -1)).collect();
        checked.apply(&[delta(&last)], vec![]);
        checked.ends_empty();
    }

    #[test]
    fn a_bag_is_as_a_multiset(steps in steps((a_row(4), -3i64..6), 40)) {
        let mut checked = Checked::new(Identity::Bag);
        let mut bag: BTreeMap<Row, i64> = BTreeMap::new();
        for (writes, seed, vacuum) in steps {
            let mut changes = vec![];
            for ((key, value), weight) in writes {
                let row = (key, value % 6);
                let total = bag.entry(row).or_default();
                let weight = weight.max(-*total);
                *total += weight;
                changes.push((row, weight));
            }
            let rows = bag.iter().flat_map(|(row, n)| vec![*row; *n as usize]).collect();
            checked.apply(&cut(changes, seed), rows);
            if let Some(n_kept) = vacuum {
                checked.vacuum(n_kept);
            }
        }
        let last: Vec<_> = bag.iter().map(|(row, n)| (*row, -n)).collect();
        checked.apply(&[delta(&last)], vec![]);
        checked.ends_empty();
    }

    #[test]
    fn an_append_only_relation_is_as_a_list(steps in steps((a_row(9), 0i64..3), 300)) {
        let mut checked = Checked::new(Identity::AppendOnly);
        let mut rows = vec![];
        for (writes, seed, _) in steps {
            rows.extend(writes.iter().flat_map(|(row, n)| vec![*row; *n as usize]));
            checked.apply(&cut(writes, seed), rows.clone());
        }
    }
}

#[test]
fn what_is_loaded_is_as_what_is_applied() {
    let rows = |keys: std::ops::Range<i64>| keys.map(|k| (Some(k), (k % 250) as u8)).collect::<Vec<Row>>();
    for identity in [Identity::UniqueKey(vec![0]), Identity::UniqueKey(vec![0, 1]), Identity::AppendOnly, Identity::Bag]
    {
        for n in [2, 3_000, 80_000] {
            if n > 3_000 && identity != Identity::UniqueKey(vec![0]) {
                continue;
            }
            let [mut loaded, mut applied] = [(); 2].map(|()| Arrangement::new(schema(), identity.clone()).unwrap());
            for keys in [0..n / 2, n / 2..n] {
                loaded.load(&[Delta::insert(batch(&rows(keys))), delta(&[])], Epoch(1)).unwrap();
            }
            loaded.settle(2).unwrap();
            loaded.load(&[Delta::insert(batch(&rows(n..n + 10)))], Epoch(1)).unwrap();
            applied.apply(&[Delta::insert(batch(&rows(0..n + 10)))], Epoch(1)).unwrap();
            for arrangement in [&mut loaded, &mut applied] {
                let mut changes = vec![((Some(n + 10), 1), 1)];
                if identity != Identity::AppendOnly {
                    changes.extend([((Some(1), 1), -1), ((Some(1), 2), 1), ((Some(n + 3), ((n + 3) % 250) as u8), -1)]);
                }
                arrangement.apply(&[delta(&changes)], Epoch(2)).unwrap();
            }
            let (a, b) = (loaded.reader(), applied.reader());
            assert_eq!((loaded.n_rows(), loaded.index.len()), (applied.n_rows(), applied.index.len()));
            [1, 2].iter().for_each(|epoch| assert_eq!(sorted(&scan(&a, *epoch)), sorted(&scan(&b, *epoch))));
            if let Identity::UniqueKey(_) = identity {
                loaded.load(&[Delta::insert(batch(&rows(0..1)))], Epoch(3)).unwrap();
                assert_eq!(loaded.settle(2).unwrap_err().state(), SqlState::InternalError);
            }
        }
    }
}

#[test]
fn memory_is_bounded_when_one_row_is_updated_for_ever() {
    for identity in [Identity::UniqueKey(vec![0]), Identity::UniqueKey(vec![]), Identity::Bag] {
        let mut arrangement = Arrangement::new(schema(), identity).unwrap();
        arrangement.apply(&[delta(&[((Some(1), 0), 1)])], Epoch(1)).unwrap();
        let mut bytes_max = 0;
        for epoch in 2..20_000u32 {
            let changes = [((Some(1), (epoch % 200) as u8), 1), ((Some(1), ((epoch - 1) % 200) as u8), -1)];
            let changes = if epoch == 2 { [changes[0], ((Some(1), 0), -1)] } else { changes };
            arrangement.apply(&[delta(&changes)], Epoch(epoch)).unwrap();
            arrangement.vacuum(Epoch(epoch - 1));
            bytes_max = bytes_max.max(arrangement.state_bytes());
        }
        assert_eq!(scan(&arrangement.reader(), 19_999).iter().map(|b| b.num_rows()).sum::<usize>(), 1);
        assert!(bytes_max < 600_000, "{bytes_max}");
    }
}

#[test]
fn readers_and_the_writer_run_beside_each_other() {
    let mut arrangement = Arrangement::new(schema(), Identity::UniqueKey(vec![0])).unwrap();
    arrangement.add_index(&[0]);
    assert!(arrangement.build_index(&[0], 1).unwrap());
    let reader = arrangement.reader();
    let (send, receive) = std::sync::mpsc::sync_channel::<u32>(0);
    // The epoch that is being read: nothing that it needs may be vacuumed.
    let pinned = Arc::new(AtomicU32::new(u32::MAX));
    let pin = pinned.clone();
    // In epoch e every row has the value e: a reader must never see two.
    let reading = std::thread::spawn(move || {
        while let Ok(epoch) = receive.recv() {
            for batch in reader.scan(Epoch(epoch), Some(&[6])).unwrap() {
                let batch = batch.unwrap();
                let values = batch.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
                assert!(values.iter().all(|v| v == Some(f64::from(epoch))));
            }
            assert_eq!(scan(&reader, epoch).iter().map(|b| b.num_rows()).sum::<usize>(), 500);
            let index = reader.index_on(&[0]).unwrap();
            let key: ArrayRef = Arc::new(Int64Array::from(vec![i64::from(epoch % 500)]));
            let found = reader.lookup(&index, Epoch(epoch), &[key], &[6]).unwrap().unwrap();
            let values = found[0].column(0).as_any().downcast_ref::<Float64Array>().unwrap();
            assert_eq!((found.len(), values), (1, &Float64Array::from(vec![f64::from(epoch)])));
            pin.store(u32::MAX, Ordering::Release);
        }
    });
    for epoch in 1..200u32 {
        let row = |epoch: u32| move |k| (Some(k), epoch as u8);
        let mut changes: Vec<_> = (0..500).map(row(epoch)).map(|row| (row, 1)).collect();
        if epoch > 1 {
            changes.extend((0..500).map(row(epoch - 1)).map(|row| (row, -1)));
        }
        arrangement.apply(&[delta(&changes)], Epoch(epoch)).unwrap();
        // A reader that is idle takes this epoch, and reads it while the next ones are written.
        if pinned.load(Ordering::Acquire) == u32::MAX {
            pinned.store(epoch, Ordering::Release);
            send.send(epoch).unwrap();
        }
        arrangement.vacuum(Epoch((epoch - 1).min(pinned.load(Ordering::Acquire))));
    }
    drop(send);
    reading.join().unwrap();
}

#[test]
fn an_index_holds_what_can_be_read_and_no_more() {
    let mut arrangement = Arrangement::new(schema(), Identity::UniqueKey(vec![0])).unwrap();
    let rows: Vec<Row> = (0..3000).map(|k| (Some(k), (k % 250) as u8)).collect();
    arrangement.apply(&[Delta::insert(batch(&rows))], Epoch(1)).unwrap();
    arrangement.add_index(&[1]);
    // It is not used before it is whole.
    let mut n_slices = 0;
    while !arrangement.build_index(&[1], 500).unwrap() {
        assert!(arrangement.reader().index_on(&[1]).is_none());
        n_slices += 1;
    }
    assert!(n_slices >= 6, "{n_slices}");
    let index = arrangement.reader().index_on(&[1]).unwrap();
    let n_rows = rows.iter().filter(|(_, v)| text(*v).is_some()).count();
    assert_eq!(index.n_rows(), n_rows);
    // One row for ever: what died and cannot be read goes.
    for epoch in 2..3000u32 {
        let (old, new) = (((epoch - 2) % 2) as u8, ((epoch - 1) % 2) as u8);
        arrangement.apply(&[delta(&[((Some(0), old), -1), ((Some(0), new), 1)])], Epoch(epoch)).unwrap();
        arrangement.vacuum(Epoch(epoch - 1));
        assert!(index.n_rows() <= n_rows + 1);
    }
    let before = arrangement.state_bytes();
    assert!(before > index.bytes());
    arrangement.retain_indexes(|_| false);
    assert!(arrangement.state_bytes() < before);
    // A reader that held it makes a scan.
    let key: ArrayRef = Arc::new(StringViewArray::from(vec!["0"]));
    assert_eq!(arrangement.reader().lookup(&index, Epoch(2999), &[key], &[0]).unwrap(), None);
}

#[test]
fn contradictions_are_errors() {
    let unique = |changes: &[&[(Row, i64)]]| {
        let mut arrangement = Arrangement::new(schema(), Identity::UniqueKey(vec![0])).unwrap();
        let mut result = Ok(());
        for (changes, epoch) in changes.iter().zip(1..) {
            assert_eq!(result, Ok(()));
            result = arrangement.apply(&[delta(changes)], Epoch(epoch));
        }
        result
    };
    let (a, b) = ((Some(1), 1), (Some(1), 2));
    for changes in [
        &[&[(a, -1)][..]][..],
        &[&[(a, 1), (b, 1)]],
        &[&[(a, 1)], &[(b, 1)]],
        &[&[(a, 2)]],
        &[&[(a, 1)], &[(a, -1), (a, -1)]],
        &[&[(a, 1), (b, -1)]],
    ] {
        assert_eq!(unique(changes).unwrap_err().state(), SqlState::InternalError, "{changes:?}");
    }
    assert_eq!(unique(&[&[(a, 1), (b, 1), (a, -1)]]), Ok(()));
    assert_eq!(unique(&[&[(a, 1)], &[(b, 1), (a, -1)], &[(b, -1), (a, 1), (b, 1), (a, -1)]]), Ok(()));
    for (identity, changes) in [(Identity::Bag, (a, -1)), (Identity::AppendOnly, (a, -1))] {
        let mut arrangement = Arrangement::new(schema(), identity).unwrap();
        assert!(arrangement.apply(&[delta(&[changes])], Epoch(1)).is_err());
    }
}

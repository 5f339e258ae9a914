//! Sums and averages of floats: an exact sum that slides with the frame.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use tidewire_types::Result;

use super::{Frames, Input, Results, Scope};
use crate::aggregate::ExactSum;
use crate::window::Exclude;
use crate::window::partition::{Partition, Row, Summary};

pub(super) struct Float {
    pub(super) is_average: bool,
}

#[derive(Clone, Default)]
struct Total {
    n: i64,
    sum: ExactSum,
}

/// Of the rows before and behind the span.
pub(super) struct Outside(Total);

/// The values of the span.
struct Values<'a> {
    input: &'a Input,
    values: Option<Float64Array>,
    start: usize,
}

impl Values<'_> {
    fn new(input: &Input, start: usize) -> Result<Values<'_>> {
        let values = match input.columns.first() {
            None => None,
            Some(column) => Some(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone()),
        };
        Ok(Values { input, values, start })
    }

    fn add(&self, total: &mut Total, place: usize, weight: i64) {
        let Some(idx) = place.checked_sub(self.start) else { return };
        if let Some(values) = self.values.as_ref().filter(|v| idx < v.len() && self.input.counts(idx)) {
            total.n += weight;
            total.sum.add(values.value(idx), weight);
        }
    }

    /// Makes the total of `from` that of `to`.
    fn slide(&self, total: &mut Total, from: &mut Range<usize>, to: &Range<usize>) {
        if to.start >= from.end || to.end <= from.start {
            // Nothing in common: what lies in between is not looked at.
            from.clone().for_each(|place| self.add(total, place, -1));
            to.clone().for_each(|place| self.add(total, place, 1));
        } else {
            (from.end..to.end).for_each(|place| self.add(total, place, 1));
            (to.start..from.start).for_each(|place| self.add(total, place, 1));
            (to.end..from.end).for_each(|place| self.add(total, place, -1));
            (from.start..to.start).for_each(|place| self.add(total, place, -1));
        }
        *from = to.clone();
    }
}

impl Float {
    pub(super) fn outside(
        &self,
        partition: &mut Partition,
        call_idx: usize,
        first: Range<usize>,
        last: Range<usize>,
        make: impl Fn(&mut dyn Iterator<Item = &Row>) -> Result<Input>,
    ) -> Result<Outside> {
        let mut total = Total::default();
        for places in [first, last] {
            let summaries = partition.summaries(call_idx, places, |rows| {
                let mut n_rows = 0;
                let input = make(&mut rows.inspect(|_| n_rows += 1))?;
                let mut total = Total::default();
                let values = Values::new(&input, 0)?;
                (0..n_rows).for_each(|place| values.add(&mut total, place, 1));
                Ok(Summary::Float(total.n, total.sum))
            })?;
            for summary in summaries {
                if let Summary::Float(n, sum) = summary {
                    total.n += n;
                    total.sum.merge(sum);
                }
            }
        }
        Ok(Outside(total))
    }

    pub(super) fn evaluate(
        &self,
        frames: &Frames,
        scope: &Scope,
        outside: Option<&Outside>,
        input: &Input,
        to: &DataType,
    ) -> Result<Results> {
        let values = Values::new(input, scope.span.start)?;
        let mut total = outside.map(|o| o.0.clone()).unwrap_or_default();
        let mut present = scope.span.start..scope.span.start;
        let mut results: Vec<Option<f64>> = Vec::with_capacity(frames.pieces.len());
        // Rows of a group share all but themselves.
        let mut around: Option<([Range<usize>; 2], Total)> = None;
        for (pieces, frame) in frames.pieces.iter().zip(&frames.whole) {
            if pieces.iter().all(Range::is_empty) {
                results.push(None);
                continue;
            }
            let start = if scope.from_first { scope.span.start } else { frame.start };
            let end = if scope.to_last { scope.span.end } else { frame.end };
            if frames.exclude == Exclude::NoOthers {
                values.slide(&mut total, &mut present, &(start..end.max(start)));
                results.push(self.result(&total));
                continue;
            }
            let [before, own, behind] = pieces;
            let outer = [before.clone(), behind.clone()];
            let mut without = match around.take() {
                Some((same, without)) if same == outer => without,
                _ => {
                    values.slide(&mut total, &mut present, &(start..end.max(start)));
                    let mut without = total.clone();
                    // The hole, as far as it is in the frame.
                    let hole = match (before.is_empty(), behind.is_empty()) {
                        (true, true) => frame.clone(),
                        (true, false) => frame.start..behind.start,
                        (false, true) => before.end..frame.end,
                        (false, false) => before.end..behind.start,
                    };
                    hole.for_each(|place| values.add(&mut without, place, -1));
                    without
                }
            };
            own.clone().for_each(|place| values.add(&mut without, place, 1));
            results.push(self.result(&without));
            own.clone().for_each(|place| values.add(&mut without, place, -1));
            around = Some((outer, without));
        }
        let column: ArrayRef = Arc::new(Float64Array::from(results));
        let column = if *to == DataType::Float64 { column } else { cast(&column, to)? };
        Ok(Results { column, errors: vec![] })
    }

    fn result(&self, total: &Total) -> Option<f64> {
        let sum = total.sum.value();
        (total.n > 0).then(|| if self.is_average { sum / total.n as f64 } else { sum })
    }
}

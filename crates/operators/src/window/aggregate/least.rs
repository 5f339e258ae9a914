//! min and max: a tree over the rows answers for any run of them.

use std::ops::Range;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use tidewire_types::{Result, SqlError};

use super::{Frames, Input, Results, Scope};
use crate::window::encoding::converter;
use crate::window::partition::{Partition, Row, Summary};

/// Values are encoded so that the wanted one has the least bytes.
pub(super) struct Least {
    values: RowConverter,
    data_type: DataType,
}

/// The best value before and behind the span.
pub(super) struct Outside {
    before: Option<Box<[u8]>>,
    behind: Option<Box<[u8]>>,
}

impl Least {
    /// None: values of that type do not sort as their bytes do.
    pub(super) fn new(from: &DataType, to: &DataType, is_max: bool) -> Option<Result<Least>> {
        let is_plain = from == to && !from.is_nested() && !matches!(from, DataType::Interval(_) | DataType::Null);
        if !is_plain {
            return None;
        }
        let options = SortOptions { descending: is_max, nulls_first: false };
        let values = converter(vec![SortField::new_with_options(from.clone(), options)]);
        Some(values.map(|values| Least { values, data_type: to.clone() }))
    }

    fn encoded(&self, input: &Input) -> Result<Option<Rows>> {
        let encode = |column: &ArrayRef| self.values.convert_columns(std::slice::from_ref(column));
        Ok(input.columns.first().map(encode).transpose()?)
    }

    pub(super) fn outside(
        &self,
        partition: &mut Partition,
        call_idx: usize,
        first: Range<usize>,
        last: Range<usize>,
        make: impl Fn(&mut dyn Iterator<Item = &Row>) -> Result<Input>,
    ) -> Result<Outside> {
        let mut best = |places: Range<usize>| {
            let summaries = partition.summaries(call_idx, places, |rows| {
                let input = make(rows)?;
                let encoded = self.encoded(&input)?;
                let counted = encoded.iter().flat_map(|e| e.iter().enumerate()).filter(|(idx, _)| input.counts(*idx));
                Ok(Summary::Best(counted.map(|(_, row)| row.data()).min().map(Into::into)))
            })?;
            let all = summaries.into_iter().filter_map(|s| match s {
                Summary::Best(best) => best.clone(),
                _ => None,
            });
            Ok::<_, SqlError>(all.min())
        };
        Ok(Outside { before: best(first)?, behind: best(last)? })
    }

    pub(super) fn evaluate(
        &self,
        frames: &Frames,
        scope: &Scope,
        outside: Option<&Outside>,
        input: &Input,
        to: &DataType,
    ) -> Result<Results> {
        let encoded = self.encoded(input)?;
        let value = |idx: usize| encoded.as_ref().filter(|_| input.counts(idx)).map(|e| e.row(idx).data());
        let tree = Tree::new((0..scope.span.len()).map(value).collect());
        let null = self.values.convert_columns(&[new_null_array(&self.data_type, 1)])?;
        let mut found: Vec<&[u8]> = Vec::with_capacity(frames.pieces.len());
        for pieces in &frames.pieces {
            let mut best: Option<&[u8]> = None;
            for piece in pieces.iter().filter(|p| !p.is_empty()) {
                let (mut start, mut end) = (piece.start, piece.end);
                if let Some(outside) = outside {
                    if scope.from_first && start == 0 {
                        best = lesser(best, outside.before.as_deref());
                        start = scope.span.start;
                    }
                    if scope.to_last && end == scope.len {
                        best = lesser(best, outside.behind.as_deref());
                        end = scope.span.end;
                    }
                }
                let local = start.saturating_sub(scope.span.start)..end.saturating_sub(scope.span.start);
                best = lesser(best, tree.least(local));
            }
            found.push(best.unwrap_or(null.row(0).data()));
        }
        let parser = self.values.parser();
        let mut columns = self.values.convert_rows(found.into_iter().map(|bytes| parser.parse(bytes)))?;
        let column = columns.pop().ok_or_else(|| SqlError::internal("a column is lost"))?;
        Ok(Results { column: cast(&column, to)?, errors: vec![] })
    }
}

fn lesser<'a>(a: Option<&'a [u8]>, b: Option<&'a [u8]>) -> Option<&'a [u8]> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The least value of every pair, of every pair of pairs, and so on; the values themselves are the second half.
struct Tree<'a> {
    nodes: Vec<Option<&'a [u8]>>,
    len: usize,
}

impl<'a> Tree<'a> {
    fn new(values: Vec<Option<&'a [u8]>>) -> Tree<'a> {
        let len = values.len();
        let mut nodes = vec![None; len];
        nodes.extend(values);
        for idx in (1..len).rev() {
            let child = |child: usize| nodes.get(child).copied().flatten();
            let least = lesser(child(2 * idx), child(2 * idx + 1));
            if let Some(node) = nodes.get_mut(idx) {
                *node = least;
            }
        }
        Tree { nodes, len }
    }

    fn least(&self, range: Range<usize>) -> Option<&'a [u8]> {
        let node = |idx: usize| self.nodes.get(idx).copied().flatten();
        let (mut start, mut end) = (range.start.min(self.len) + self.len, range.end.min(self.len) + self.len);
        let mut best = None;
        while start < end {
            if start % 2 == 1 {
                best = lesser(best, node(start));
                start += 1;
            }
            if end % 2 == 1 {
                end -= 1;
                best = lesser(best, node(end));
            }
            start /= 2;
            end /= 2;
        }
        best
    }
}

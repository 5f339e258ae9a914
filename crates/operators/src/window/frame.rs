//! From a frame's words to the places of each row's frame.

use std::ops::Range;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use tidewire_types::{Result, SqlError, SqlState};

use super::encoding::Encoding;
use super::groups::Groups;
use super::partition::{Partition, Row};
use super::range::{Distance, Limit};
use super::{Bound, Exclude, Frame, Units};

/// One end of a frame.
#[derive(Clone, Debug)]
pub(super) enum Edge {
    /// The partition's first row.
    First,
    /// The partition's last row.
    Last,
    /// So many rows behind the current one (negative: before).
    Rows(i64),
    /// So many groups behind the current row's.
    Groups(i64),
    /// So far from the current row's value.
    Value { distance: Distance, is_preceding: bool },
}

/// A frame that can be computed.
#[derive(Clone, Debug)]
pub(super) struct Edges {
    pub(super) start: Edge,
    pub(super) end: Edge,
    pub(super) exclude: Exclude,
}

impl Edges {
    /// Errors: as [`Frame::check`].
    pub(super) fn new(frame: &Frame, order_by: Option<&DataType>) -> Result<Edges> {
        let edge = |bound: &Bound, which: &str| -> Result<Edge> {
            let (offset, is_preceding) = match bound {
                Bound::UnboundedPreceding => return Ok(Edge::First),
                Bound::UnboundedFollowing => return Ok(Edge::Last),
                Bound::CurrentRow if frame.units == Units::Rows => return Ok(Edge::Rows(0)),
                Bound::CurrentRow => return Ok(Edge::Groups(0)),
                Bound::Preceding(offset) => (offset, true),
                Bound::Following(offset) => (offset, false),
            };
            let signed = |n: i64| if is_preceding { -n } else { n };
            Ok(match frame.units {
                Units::Rows => Edge::Rows(signed(count(offset, which)?)),
                Units::Groups => Edge::Groups(signed(count(offset, which)?)),
                Units::Range => {
                    let data_type = order_by.ok_or_else(|| {
                        let message = "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column";
                        SqlError::new(SqlState::WindowingError, message)
                    })?;
                    Edge::Value { distance: Distance::new(offset, data_type, which)?, is_preceding }
                }
            })
        };
        let (start, end) = (edge(&frame.start, "starting")?, edge(&frame.end, "ending")?);
        Ok(Edges { start, end, exclude: frame.exclude })
    }

    /// Groups before and behind a row that must be known.
    pub(super) fn n_groups(&self) -> (usize, usize) {
        let of = |edge: &Edge| match edge {
            Edge::Groups(n) => *n,
            _ => 0,
        };
        let (a, b) = (of(&self.start), of(&self.end));
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        (size(-a.min(b)), size(a.max(b)))
    }
}

fn count(offset: &ScalarValue, which: &str) -> Result<i64> {
    match offset.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(n))) if n >= 0 => Ok(n),
        Ok(ScalarValue::Int64(Some(_))) => Err(SqlError::new(
            SqlState::InvalidPrecedingOrFollowingSize,
            format!("frame {which} offset must not be negative"),
        )),
        _ => Err(SqlError::new(SqlState::NullValueNotAllowed, format!("frame {which} offset must not be null"))),
    }
}

/// A partition and the order of its ORDER BY column.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) partition: &'a Partition,
    pub(super) encoding: &'a Encoding,
    pub(super) is_descending: bool,
}

/// Puts frames in places.
pub(super) struct Framing<'a> {
    pub(super) order: Order<'a>,
    pub(super) groups: &'a Groups,
}

impl Framing<'_> {
    /// The frame of each row at `places`, before anything is excluded.
    pub(super) fn frames(&self, edges: &Edges, places: Range<usize>) -> Result<Vec<Range<usize>>> {
        let starts = self.edge(&edges.start, places.clone(), true)?;
        let ends = self.edge(&edges.end, places, false)?;
        Ok(starts.into_iter().zip(ends).map(|(start, end)| start..end.max(start)).collect())
    }

    fn edge(&self, edge: &Edge, places: Range<usize>, is_start: bool) -> Result<Vec<usize>> {
        let Order { partition, encoding, .. } = self.order;
        let len = partition.len();
        let groups = self.groups;
        let of_groups = |of_group: &dyn Fn(usize) -> usize| -> Vec<usize> {
            (0..places.len()).map(|idx| of_group(groups.of_row(idx))).collect()
        };
        Ok(match edge {
            Edge::First => vec![0; places.len()],
            Edge::Last => vec![len; places.len()],
            Edge::Rows(distance) => places.map(|place| moved(place, *distance, !is_start, len)).collect(),
            Edge::Groups(distance) if is_start => of_groups(&|g| groups.start_of(g, *distance, len)),
            Edge::Groups(distance) => of_groups(&|g| groups.end_of(g, *distance, len)),
            Edge::Value { distance, is_preceding } => {
                let own = groups.own();
                let peers = own.clone().filter_map(|g| partition.row(groups.places(g).start)).map(Row::peers);
                let values = encoding.decode_order(peers)?;
                let mut of_group = vec![];
                for (idx, group) in own.clone().enumerate() {
                    of_group.push(match values.is_null(idx) {
                        // NULLs are no distance apart, and any distance from all else.
                        true if is_start => groups.places(group).start,
                        true => groups.places(group).end,
                        false => self.order.value_place(distance, &values, idx, *is_preceding, is_start)?,
                    });
                }
                of_groups(&|g| g.checked_sub(own.start).and_then(|i| of_group.get(i)).copied().unwrap_or(0))
            }
        })
    }
}

impl Order<'_> {
    /// The place where values so far before or behind the value at `idx` begin, or end.
    pub(super) fn value_place(
        &self,
        distance: &Distance,
        values: &ArrayRef,
        idx: usize,
        is_preceding: bool,
        is_start: bool,
    ) -> Result<usize> {
        // In a descending order the larger values come first.
        let down = is_preceding != self.is_descending;
        let is_first = is_start != self.is_descending;
        let is_behind_all = |is_above: bool| is_above != self.is_descending;
        let place = |bytes: &[u8], with_equal: bool| match with_equal {
            false => self.partition.group_start(bytes),
            true => self.partition.group_end(bytes),
        };
        // Every value begins with 1, NULLs with 0 or 255.
        let beyond = |behind: bool| place(if behind { &[2] } else { &[1] }, false);
        Ok(match distance.limit(values, idx, down, is_first)? {
            Limit::BelowAll => beyond(is_behind_all(false)),
            Limit::AboveAll => beyond(is_behind_all(true)),
            Limit::Value(value) => place(self.encoding.encode_order(value)?.row(0).data(), !is_start),
        })
    }
}

fn moved(place: usize, distance: i64, is_behind: bool, len: usize) -> usize {
    let at = (place as i64).saturating_add(distance).saturating_add(i64::from(is_behind));
    usize::try_from(at).unwrap_or(0).min(len)
}

/// What is left of a row's frame: at most three runs of places, some of them empty.
pub(super) type Pieces = [Range<usize>; 3];

/// Takes out what the frame excludes for the row at `place`, whose peers are at `group`.
pub(super) fn pieces(frame: &Range<usize>, place: usize, group: &Range<usize>, exclude: Exclude) -> Pieces {
    let cut = |start: usize, end: usize| {
        let start = start.clamp(frame.start, frame.end);
        start..end.clamp(start, frame.end)
    };
    let own = place..place + 1;
    let (hole, kept) = match exclude {
        Exclude::NoOthers => return [frame.clone(), 0..0, 0..0],
        Exclude::CurrentRow => (&own, 0..0),
        Exclude::Group => (group, 0..0),
        Exclude::Ties => (group, cut(own.start, own.end)),
    };
    [cut(frame.start, hole.start), kept, cut(hole.end.max(frame.start), frame.end)]
}

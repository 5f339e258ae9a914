//! A source whose records were deleted before it read them goes on, when somebody says so.

use std::fmt;

use tidewire_connect::{Position, Positions, Split};
use tidewire_types::{ObjectId, Result, SqlError, SqlState};
use tracing::warn;

use super::{Core, describe, start_reader};
use crate::status::SourceState;

/// A split whose next record is gone. Shown as what its views do not contain.
#[derive(Debug, PartialEq, Eq)]
pub struct Skip {
    split: Split,
    from: Position,
    to: Option<Position>,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Skip { split: Split(split), from, to } = self;
        match to {
            Some(to) if from < to => write!(f, "partition {split}: offsets {from} to {} are skipped", to - 1),
            Some(to) => write!(f, "partition {split} ends before offset {from}: it is read again from offset {to} on"),
            None => write!(f, "partition {split} is no longer there"),
        }
    }
}

/// The splits of `reached` that have no record there any more and do not get one next, in order.
fn lost(reached: &Positions, earliest: &Positions, end: &Positions) -> Vec<Skip> {
    let skip = |(split, from): (&Split, &Position)| {
        let (to, end) = (earliest.get(split).copied(), end.get(split).copied());
        let is_held = to.zip(end).is_some_and(|(to, end)| to <= *from && *from <= end);
        (!is_held).then_some(Skip { split: *split, from: *from, to })
    };
    reached.iter().filter_map(skip).collect()
}

impl Core {
    /// Has a source that has stopped go on at the first records that it still has, which begin at `earliest` and end at
    /// `end`. Errors: `55000` where it has not stopped, or has lost nothing.
    pub fn skip_lost_records(&mut self, id: ObjectId, earliest: &Positions, end: &Positions) -> Result<Vec<Skip>> {
        let source = self.sources.get_mut(&id).ok_or_else(|| SqlError::internal("the source is gone"))?;
        let not_lost = |detail: &str| {
            let message = format!("source \"{}\" has lost no records", source.name);
            Err(SqlError::new(SqlState::ObjectNotInPrerequisiteState, message).with_detail(detail.to_string()))
        };
        let (SourceState::Failed(why), Some(reader)) = (&source.state, &source.reader) else {
            return not_lost("It has not stopped.");
        };
        let skipped = lost(&reader.positions, earliest, end);
        if skipped.is_empty() {
            return not_lost(&describe(why));
        }
        let mut positions = reader.positions.clone();
        for skip in &skipped {
            warn!(source = %source.name, "{skip}");
            match skip.to {
                Some(to) => positions.insert(skip.split, to),
                None => positions.remove(&skip.split),
            };
        }
        let columns = reader.projection.clone();
        source.reader = Some(start_reader(&self.shared, &mut self.next_generation, id, source, positions, &columns)?);
        source.state = SourceState::Running;
        if let Some(durability) = &mut self.durability {
            durability.note_change();
        }
        Ok(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(positions: &[(u32, Position)]) -> Positions {
        positions.iter().map(|(split, position)| (Split(*split), *position)).collect()
    }

    #[test]
    fn only_positions_outside_of_what_is_held_are_lost() {
        let reached = at(&[(0, 5), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
        let earliest = at(&[(0, 5), (1, 6), (2, 0), (3, 2), (4, 5)]);
        let end = at(&[(0, 9), (1, 6), (2, 4), (3, 5), (4, 5)]);
        let told: Vec<String> = lost(&reached, &earliest, &end).iter().map(Skip::to_string).collect();
        assert_eq!(
            told,
            [
                "partition 1: offsets 5 to 5 are skipped",
                "partition 2 ends before offset 5: it is read again from offset 0 on",
                "partition 5 is no longer there"
            ]
        );
    }
}

//! The nouns that every other crate shares: [`Delta`], [`Epoch`], [`SqlType`], the row hash behind shards, and
//! [`SqlError`]. Nothing here does IO, and nothing here knows SQL text, Kafka or the Postgres protocol.

mod delta;
mod epoch;
mod error;
mod hash;
mod object;
mod sql_type;

pub use delta::Delta;
pub use epoch::Epoch;
pub use error::{Result, SqlError, SqlState};
pub use hash::{as_grouped, hash_rows, shard_of};
pub use object::{ObjectId, closest};
pub use sql_type::{NUMERIC_SCALE_DEFAULT, SqlType, TYPE_KEY};

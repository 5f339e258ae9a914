//! The Postgres protocol: connections, results, portals, and the catalog tables that clients look into.
//!
//! [`serve`] runs one task a connection; a connection owns one [`tidewire_engine::Session`] and shares nothing with
//! others but the list of those that can be cancelled. Invariant: whatever bytes a client sends, the worst that
//! happens is that its own connection ends.

mod backend;
mod cancel;
mod connection;
mod encode;
mod extended;
mod frontend;
mod oid;
mod parameter;
mod pg_catalog;
mod rows;
mod serve;
mod startup;
mod wire;

pub use pg_catalog::PgSystem;
pub use serve::{Limits, refuse_until, serve};

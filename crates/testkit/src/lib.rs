//! What tests of Tidewire stand on: the runner of `sql-tests/`, the oracle, the fuzzer, TPC-H in small, sources in memory,
//! and a real Kafka.
//!
//! The oracle: after every write, each materialized view is compared, as a bag of rows, with its defining query run as
//! a batch ([`oracle`]). Each file runs several times: as written, with other epoch cuts and shards, with everything
//! deleted at its end, and over the Postgres protocol ([`slt::Mode`]). A test that proves that a wrong operator is
//! caught stands in `tests/oracle.rs`.

pub mod database;
pub mod faulty;
pub mod fuzz;
pub mod ground;
pub mod kafka;
pub mod memory;
pub mod oracle;
pub mod s3;
pub mod server;
pub mod slt;
pub mod text;
pub mod tpch;

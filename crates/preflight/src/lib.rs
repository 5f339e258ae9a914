//! Says which system package is missing, before a C build fails with a page of output.
//!
//! `build.rs` checks what the C parts of the build need ([`BUILD`]). `tidewire-types` depends on this crate for no other
//! reason than that cargo then runs the check early: cargo starts first what most other crates wait for. `cargo xtask`
//! checks what the tests need besides ([`TEST`]).
//!
//! Without any `cc`, rustc cannot link even a build script, and its own message (linker `cc` not found) is all there is.

mod tool;

pub use tool::{BUILD, TEST, Tool, advice, missing};

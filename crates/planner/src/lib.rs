//! A statement and a catalog become a [`Dataflow`] (for views) or a DataFusion plan (for queries).
//!
//! `sqlparser AST -> PostgreSQL's rules that DataFusion lacks -> SqlToRel with our own ContextProvider -> analyzer ->
//! rules -> plan`. Invariant: every error that leaves this crate has the SQLSTATE that PostgreSQL gives.

mod aggregate_checks;
mod aggregates;
mod agreement;
mod alias_columns;
mod casts;
mod column_names;
mod common_types;
mod comparisons;
mod dataflow;
mod dml;
mod errors;
mod explain;
mod flat_map;
mod from_planner;
mod functions;
mod grouping_sets;
mod in_lists;
mod lasting;
mod literals;
mod lower;
mod parameters;
mod planned_types;
mod point;
mod primary_keys;
mod properties;
mod provider;
mod query;
mod recursive;
mod rewrite;
mod rules;
mod session;
mod set_operation;
mod set_returning;
mod sharing;
mod single_distinct;
mod spans;
mod type_classes;
mod unnest_query;
mod using;
mod whole_rows;
mod windows;

#[cfg(test)]
mod dml_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod lower_tests;
#[cfg(test)]
mod query_tests;
#[cfg(test)]
mod sharing_tests;

pub use dataflow::{Dataflow, InputNode, Node, NodeId, NodeKind, Properties};
pub use dml::{
    BoundUpdate, ConflictUpdate, Defaults, Delete, Insert, InsertRows, OnConflict, Returning, RowExprs, Update,
    ValueRows,
};
pub use functions::any::EQUALS_ANY;
pub use functions::convert::{read_text, read_value};
pub use functions::replaced::show;
pub use point::PointQuery;
pub use query::{Context, Planned, TableResolver, execute, physical_plan};
pub use session::session_context;

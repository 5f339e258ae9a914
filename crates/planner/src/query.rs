//! Names, types and plans of queries.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use tidewire_catalog::{Catalog, Object};
use tidewire_sql::{Parsed, ast};
use tidewire_types::{ObjectId, Result, SqlError, SqlType};

use crate::Dataflow;

/// Makes tables of names, for queries that run: the engine gives snapshots, the server gives pg_catalog.
pub trait TableResolver: Send + Sync {
    /// The rows of a source, table or materialized view, at the query's moment.
    fn object(&self, object: &Arc<Object>) -> Result<Arc<dyn TableProvider>>;

    /// A table that is no catalog object (`pg_catalog.pg_class`, `tidewire.sources`, `information_schema.tables`).
    fn system_table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>>;

    /// The names of all system tables, for hints: (schema, name).
    fn system_tables(&self) -> Vec<(String, String)>;
}

/// What planning may look at. Cheap to make: one for each statement.
pub struct Context<'a> {
    /// All objects.
    pub catalog: &'a Catalog,
    /// Makes tables of names.
    pub tables: &'a dyn TableResolver,
    /// The schemas that unqualified names are looked up in, in order.
    pub search_path: &'a [String],
    /// Holds functions, configuration and the runtime (memory pool) of batch queries.
    pub session: &'a SessionContext,
}

/// A query that can run: types known, rules applied.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The optimized plan; parameters may still be open.
    pub plan: LogicalPlan,
    /// The types of its parameters `$1 ..`.
    pub parameters: Vec<SqlType>,
    /// Its columns, with the metadata of [`SqlType`].
    pub schema: SchemaRef,
    /// The catalog objects that it reads (through plain views too), each once.
    pub objects: Vec<ObjectId>,
}

impl Context<'_> {
    /// Plans a query for running once. `text` is the statement's, for error positions; `parameters` are types that
    /// the client declared (None: to be inferred).
    ///
    /// Errors: as PostgreSQL gives them: `42P01`, `42703`, `42883`, `42804`, `42803`, .. with position and hint.
    pub fn query(&self, query: &ast::Query, text: &str, parameters: &[Option<SqlType>]) -> Result<Planned> {
        let _ = (query, text, parameters);
        Err(SqlError::internal("to be written"))
    }

    /// Plans a view: the dataflow, and the names and types of the view's columns.
    ///
    /// Errors: as [`Context::query`]; `0A000` with the reason for what cannot be maintained.
    pub fn dataflow(&self, query: &ast::Query, text: &str) -> Result<(Dataflow, Planned)> {
        let _ = (query, text);
        Err(SqlError::internal("to be written"))
    }

    /// Plans a DML statement's expression lists and more: see the functions that the engine needs, added as it grows.
    pub fn constant(&self, expr: &ast::Expr, text: &str) -> Result<ScalarValue> {
        let _ = (expr, text);
        let _: Option<(HashMap<String, String>, Parsed)> = None;
        Err(SqlError::internal("to be written"))
    }
}

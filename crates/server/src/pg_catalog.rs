//! `pg_catalog` and `information_schema`: tables made of the catalog of the moment, and the functions beside them.
//!
//! A table is built when a query names it. Invariants: an object has the same OID in every table and after a restart,
//! since OIDs of what PostgreSQL has and Tidewire has not (indexes of keys, types of structs) derive from the object's.

mod facts;
mod fixed;
mod functions;
mod information_schema;
mod relations;
mod rewrite;
mod table;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::ScalarUDF;
use parking_lot::Mutex;
use tidewire_engine::{SystemContext, SystemSchemas};
use tidewire_sql::ast;

use self::facts::Facts;
use self::table::SystemTable;

/// All system tables, in the order of their OIDs: add at the end.
static TABLES: &[&[SystemTable]] = &[relations::TABLES, fixed::TABLES, information_schema::TABLES, fixed::EMPTY_TABLES];

fn tables() -> impl Iterator<Item = &'static SystemTable> {
    TABLES.iter().flat_map(|tables| tables.iter())
}

/// The system tables and functions of the Postgres protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct PgSystem;

/// What was made last. Of the process, not of a server: it only saves work.
static LAST: Mutex<Option<Prepared>> = Mutex::new(None);

/// What was made of one catalog for one user; queries come many to one change of the catalog.
#[derive(Clone)]
struct Prepared {
    facts: Arc<Facts>,
    functions: Arc<Vec<Arc<ScalarUDF>>>,
}

impl PgSystem {
    fn prepared(self, cx: &SystemContext) -> Prepared {
        let mut last = LAST.lock();
        if let Some(prepared) = last.as_ref().filter(|prepared| prepared.facts.is_of(cx)) {
            return prepared.clone();
        }
        let facts = Arc::new(Facts::new(cx));
        let functions = Arc::new(functions::all(&facts));
        last.insert(Prepared { facts, functions }).clone()
    }
}

impl SystemSchemas for PgSystem {
    fn table(&self, schema: &str, name: &str, cx: &SystemContext) -> Option<Arc<dyn TableProvider>> {
        let table = tables().find(|table| table.schema == schema && table.name == name)?;
        table.provider(&self.prepared(cx).facts, cx)
    }

    fn names(&self) -> Vec<(String, String)> {
        tables().map(|table| (table.schema.to_owned(), table.name.to_owned())).collect()
    }

    fn rewrite(&self, query: &mut ast::Query, cx: &SystemContext) {
        rewrite::rewrite(query, &self.prepared(cx).facts, cx);
    }

    fn functions(&self, cx: &SystemContext) -> Vec<Arc<ScalarUDF>> {
        self.prepared(cx).functions.to_vec()
    }
}

#[cfg(test)]
mod tests;

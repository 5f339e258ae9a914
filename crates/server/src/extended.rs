//! The extended query protocol: named statements, portals, row limits.
//!
//! A portal runs when it is first executed and keeps its stream when a limit stops it, so that the next Execute goes on
//! where it was. A portal that failed is gone.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use tidewire_engine::{Outcome, Prepared};
use tidewire_sql::{Parsed, Statement};
use tidewire_types::{SqlError, SqlState, SqlType};

use crate::backend;
use crate::connection::{Connection, Fault, moved};
use crate::encode::Format;
use crate::frontend::{Bind, Target};
use crate::oid;
use crate::parameter;
use crate::rows::{Progress, ResultRows, columns};

/// What Parse made.
pub struct PreparedStatement {
    /// None: a text without a statement.
    prepared: Option<Prepared>,
    /// Where the statement begins in its text, in characters.
    offset: usize,
    /// The result's columns.
    columns: Option<Vec<(String, SqlType)>>,
}

impl PreparedStatement {
    fn parameters(&self) -> &[SqlType] {
        self.prepared.as_ref().map_or(&[], |prepared| &prepared.parameters)
    }
}

/// What Bind made.
pub struct Portal {
    statement: Arc<PreparedStatement>,
    formats: Vec<Format>,
    state: PortalState,
}

enum PortalState {
    Bound(Vec<ScalarValue>),
    Running(Box<ResultRows>),
    /// All rows are sent: the tag of one more Execute.
    Finished,
}

impl Connection {
    pub(crate) async fn parse(&mut self, name: String, query: &str, types: &[u32]) -> Result<(), Fault> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(SqlError::new(SqlState::DuplicatePreparedStatement, message).into());
        }
        self.statements.remove(&name);
        let declared = types.iter().map(|oid| declared(*oid)).collect::<Result<Vec<_>, _>>()?;
        let statement = match one_statement(query)? {
            None => PreparedStatement { prepared: None, offset: 0, columns: None },
            Some(parsed) => {
                let offset = parsed.offset;
                let mut watch = self.watch();
                let preparing = self.session.prepare(parsed, &declared);
                let prepared = watch.run(&mut self.input, preparing).await.and_then(|done| Ok(done?));
                let prepared = prepared.map_err(|fault| moved(fault, offset))?;
                let columns = prepared.schema.as_ref().map(columns);
                PreparedStatement { prepared: Some(prepared), offset, columns }
            }
        };
        self.statements.insert(name, Arc::new(statement));
        backend::parse_complete(&mut self.output.buffer);
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&Arc<PreparedStatement>, SqlError> {
        self.statements.get(name).ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            SqlError::new(SqlState::InvalidSqlStatementName, message)
        })
    }

    pub(crate) fn bind(&mut self, bind: Bind) -> Result<(), Fault> {
        let statement = self.statement(&bind.statement)?.clone();
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            let message = format!("cursor \"{}\" already exists", bind.portal);
            return Err(SqlError::new(SqlState::DuplicateCursor, message).into());
        }
        self.portals.remove(&bind.portal);
        let types = statement.parameters();
        if types.len() != bind.values.len() {
            return Err(violation(format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                bind.values.len(),
                bind.statement,
                types.len()
            ))
            .into());
        }
        let formats = spread(&bind.formats, types.len()).ok_or_else(|| {
            violation(format!(
                "bind message has {} parameter formats but {} parameters",
                bind.formats.len(),
                types.len()
            ))
        })?;
        let zone = self.style().time_zone;
        let values = bind.values.iter().zip(&formats).zip(types);
        let values = values
            .map(|((value, format), sql_type)| parameter::decode(value.as_deref(), *format, sql_type, zone))
            .collect::<Result<Vec<_>, _>>()?;
        let n_columns = statement.columns.as_ref().map_or(0, Vec::len);
        let formats = match n_columns {
            // A statement without rows takes any formats, as in PostgreSQL.
            0 => vec![],
            n => spread(&bind.result_formats, n).ok_or_else(|| {
                let n_formats = bind.result_formats.len();
                violation(format!("bind message has {n_formats} result formats but query has {n} columns"))
            })?,
        };
        self.portals.insert(bind.portal, Portal { statement, formats, state: PortalState::Bound(values) });
        backend::bind_complete(&mut self.output.buffer);
        Ok(())
    }

    pub(crate) fn describe(&mut self, target: &Target) -> Result<(), Fault> {
        let (statement, formats) = match target {
            Target::Statement(name) => {
                let statement = self.statement(name)?.clone();
                backend::parameter_description(&mut self.output.buffer, statement.parameters());
                let n_columns = statement.columns.as_ref().map_or(0, Vec::len);
                (statement, vec![Format::Text; n_columns])
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.statement.clone(), portal.formats.clone())
            }
        };
        match &statement.columns {
            Some(columns) => backend::row_description(&mut self.output.buffer, columns, &formats),
            None => backend::no_data(&mut self.output.buffer),
        }
        Ok(())
    }

    pub(crate) fn close(&mut self, target: &Target) {
        match target {
            Target::Statement(name) => drop(self.statements.remove(name)),
            Target::Portal(name) => drop(self.portals.remove(name)),
        }
        backend::close_complete(&mut self.output.buffer);
    }

    pub(crate) async fn execute_portal(&mut self, name: &str, n_rows_max: u32) -> Result<(), Fault> {
        // Taken out: a portal that fails does not come back.
        let portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        let offset = portal.statement.offset;
        let limit = (n_rows_max > 0).then_some(u64::from(n_rows_max));
        let portal = self.run_portal(portal, limit).await.map_err(|fault| moved(fault, offset))?;
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    async fn run_portal(&mut self, mut portal: Portal, limit: Option<u64>) -> Result<Portal, Fault> {
        let mut watch = self.watch();
        let mut rows = match portal.state {
            PortalState::Running(rows) => rows,
            PortalState::Finished => {
                backend::complete(&mut self.output.buffer, "SELECT 0");
                return Ok(portal);
            }
            PortalState::Bound(values) => {
                portal.state = PortalState::Finished;
                let Some(prepared) = &portal.statement.prepared else {
                    backend::empty(&mut self.output.buffer);
                    return Ok(portal);
                };
                let statement = &prepared.parsed.statement;
                if self.deallocate(statement) {
                    backend::complete(&mut self.output.buffer, "DEALLOCATE");
                    return Ok(portal);
                }
                let forgets_statements = matches!(statement, Statement::Discard | Statement::Deallocate(None));
                let outcome = watch.run(&mut self.input, self.session.execute(prepared, values)).await??;
                if forgets_statements {
                    self.statements.clear();
                }
                let style = self.style();
                let out = &mut self.output.buffer;
                // The columns are those that the client was told at Describe.
                let described = |stream, is_push, tag| {
                    let columns = portal.statement.columns.clone().unwrap_or_default();
                    ResultRows::new(stream, is_push, tag, columns, portal.formats.clone(), style)
                };
                Box::new(match outcome {
                    Outcome::Rows { rows, tag, .. } => described(rows, false, tag),
                    Outcome::Push { rows, tag, .. } => described(rows, true, tag),
                    Outcome::CopyOut { schema, rows, is_push, options } => {
                        ResultRows::copy_out(rows, is_push, columns(&schema), options, style, out)?
                    }
                    Outcome::CopyIn(copy) => {
                        self.copy_in(*copy, &mut watch).await?;
                        return Ok(portal);
                    }
                    Outcome::Command { tag, notices } => {
                        notices.iter().for_each(|notice| backend::notice(out, notice));
                        backend::complete(out, &tag);
                        return Ok(portal);
                    }
                    Outcome::Empty => {
                        backend::empty(out);
                        return Ok(portal);
                    }
                })
            }
        };
        match rows.send(limit, &mut self.input, &mut self.output, &mut watch).await? {
            Progress::Done(tag) => {
                backend::complete(&mut self.output.buffer, &tag);
                portal.state = PortalState::Finished;
            }
            Progress::Suspended => {
                backend::portal_suspended(&mut self.output.buffer);
                portal.state = PortalState::Running(rows);
            }
        }
        Ok(portal)
    }
}

fn violation(message: String) -> SqlError {
    SqlError::new(SqlState::ProtocolViolation, message)
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::InvalidCursorName, format!("portal \"{name}\" does not exist"))
}

/// One format each: none given means text, one given is for all.
fn spread(formats: &[Format], n: usize) -> Option<Vec<Format>> {
    match formats {
        [] => Some(vec![Format::Text; n]),
        [one] => Some(vec![*one; n]),
        each if each.len() == n => Some(each.to_vec()),
        _ => None,
    }
}

fn declared(oid: u32) -> Result<Option<SqlType>, SqlError> {
    oid::sql_type(oid)
        .map_err(|oid| SqlError::new(SqlState::UndefinedObject, format!("type with OID {oid} does not exist")))
}

fn one_statement(query: &str) -> Result<Option<Parsed>, SqlError> {
    let mut statements = tidewire_sql::parse(query)?;
    statements.retain(|parsed| parsed.statement != Statement::Empty);
    let first = statements.pop();
    match statements.is_empty() {
        true => Ok(first),
        false => Err(SqlError::new(SqlState::SyntaxError, "cannot insert multiple commands into a prepared statement")),
    }
}

//! `COPY .. TO STDOUT`: the rows of a query or a subscription, to be written as lines.

use tidewire_sql::{Copy, Parsed};
use tidewire_types::{Result, SqlError, SqlState};

use super::{Outcome, Session};

impl Session {
    /// Runs what is copied. Places in its errors are those in the text of `parsed`, the whole COPY.
    pub(super) async fn copy(&mut self, copy: &Copy, parsed: &Parsed) -> Result<Outcome> {
        let offset = copy.statement.offset.saturating_sub(parsed.offset);
        let outcome = self.run_copied(&copy.statement).await.map_err(|error| {
            let position = error.position().map(|position| position + offset);
            error.with_position(position)
        })?;
        let (schema, rows, is_push) = match outcome {
            Outcome::Rows { schema, rows, .. } => (schema, rows, false),
            Outcome::Push { schema, rows, .. } => (schema, rows, true),
            Outcome::CopyOut { .. } | Outcome::CopyIn(_) | Outcome::Command { .. } | Outcome::Empty => {
                return Err(SqlError::internal("COPY of a statement without rows"));
            }
        };
        Ok(Outcome::CopyOut { schema, rows, is_push, options: copy.options.clone() })
    }

    async fn run_copied(&mut self, statement: &Parsed) -> Result<Outcome> {
        let prepared = Box::pin(self.prepare(statement.clone(), &[])).await?;
        // COPY itself takes none: there is nobody to give their values.
        if !prepared.parameters.is_empty() {
            return Err(SqlError::new(SqlState::UndefinedParameter, "there is no parameter $1"));
        }
        Box::pin(self.execute(&prepared, vec![])).await
    }
}

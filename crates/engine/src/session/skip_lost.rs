//! `ALTER SOURCE s SKIP LOST RECORDS`: a source that stopped because records were deleted before it read them goes on without
//! them. Its views keep what they contain.

use tidewire_catalog::Kind;
use tidewire_sql::ObjectName;
use tidewire_types::{Result, SqlError, SqlState};

use super::Session;
use crate::{Notice, Outcome};

impl Session {
    /// Returns when a checkpoint has the new positions, and tells of each split what is missing.
    pub(super) async fn skip_lost_records(&mut self, name: &ObjectName) -> Result<Outcome> {
        let moment = self.shared().published();
        let object = self.resolve(&moment.catalog, name)?;
        let source = match (&object.def, moment.sources.get(&object.id)) {
            (Kind::Source(_), Some(source)) => source.clone(),
            _ => {
                let message = format!("\"{}\" is not a source", object.name.name);
                return Err(SqlError::new(SqlState::WrongObjectType, message).at(name.position));
            }
        };
        let held = tokio::task::spawn_blocking(move || Ok::<_, SqlError>((source.earliest()?, source.end()?)));
        let (earliest, end) = held.await.map_err(SqlError::internal)??;
        let id = object.id;
        let skipped = self.shared().call(move |core| core.skip_lost_records(id, &earliest, &end)).await??;
        self.engine.checkpoint().await?;
        let warning = |message| Notice { severity: "WARNING", code: "01000", message };
        let notices = skipped.into_iter().map(|skip| warning(skip.to_string())).collect();
        Ok(Outcome::Command { tag: "ALTER SOURCE".to_string(), notices })
    }
}

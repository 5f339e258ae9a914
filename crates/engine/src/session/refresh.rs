//! `REFRESH MATERIALIZED VIEW v`: a view that has failed is built again, and what failed because of it.
//!
//! A view that works is up to date already.

use std::sync::Arc;

use tidewire_catalog::{Kind, Object};
use tidewire_sql::ObjectName;
use tidewire_types::{ObjectId, Result, SqlError, SqlState};

use super::Session;
use crate::shared::{Published, Relation};
use crate::{Engine, Notice, Outcome};

const TAG: &str = "REFRESH MATERIALIZED VIEW";

impl Session {
    pub(super) async fn refresh(&mut self, name: &ObjectName) -> Result<Outcome> {
        let moment = self.shared().published();
        let object = self.resolve(&moment.catalog, name)?;
        if !matches!(object.def, Kind::MaterializedView(_)) {
            let message = format!("\"{}\" is not a materialized view", object.name.name);
            return Err(SqlError::new(SqlState::WrongObjectType, message).at(name.position));
        }
        if !has_failed(&moment, object.id) {
            let message = format!("materialized view \"{}\" is kept up to date", object.name.name);
            let notice = Notice { severity: "NOTICE", code: "00000", message };
            return Ok(Outcome::Command { tag: TAG.to_string(), notices: vec![notice] });
        }
        self.engine.build_failed(object.id).await?;
        Ok(Outcome::command(TAG))
    }
}

impl Engine {
    /// Builds a failed view again, then those that failed with it.
    pub(crate) async fn build_failed(self: &Arc<Self>, id: ObjectId) -> Result<()> {
        let moment = self.shared.published();
        let above = moment.catalog.with_dependants(id).into_iter().rev().filter_map(|id| moment.catalog.by_id(id));
        let failed: Vec<Object> =
            above.filter(|object| has_failed(&moment, object.id)).map(|object| Object::clone(object)).collect();
        for object in failed {
            self.session(&object.owner, "tidewire").rebuild_view(object).await?;
        }
        Ok(())
    }
}

/// Whether a view is marked failed.
pub fn has_failed(moment: &Published, id: ObjectId) -> bool {
    matches!(moment.relations.get(&id), Some(Relation::Failed(_)))
}

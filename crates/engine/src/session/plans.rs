//! Plans of queries that a session runs again and again: an application reads by key with the same few texts, and
//! planning would cost it more than reading.
//!
//! Kept is the plan without its tables, which are put in for each run at the moment that the run reads. Invariant: all
//! plans in here were made with the same catalog and settings.

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_planner::Planned;
use tidewire_types::SqlType;

use super::query::Environment;
use crate::tables;

/// Plans that are kept, and the longest text of one.
const PLANS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 8192;

/// The plans of one session.
#[derive(Default)]
pub struct Plans {
    environment: Option<Arc<Environment>>,
    // The one that was used last comes last.
    kept: VecDeque<Kept>,
}

struct Kept {
    text: String,
    parameters: Vec<Option<SqlType>>,
    planned: Planned,
}

impl Plans {
    /// The plan of a text, to be given its tables.
    pub fn get(
        &mut self,
        environment: &Arc<Environment>,
        text: &str,
        parameters: &[Option<SqlType>],
    ) -> Option<Planned> {
        self.forget_unless(environment);
        let idx = self.kept.iter().rposition(|kept| kept.text == text && kept.parameters == parameters)?;
        let kept = self.kept.remove(idx)?;
        let planned = kept.planned.clone();
        self.kept.push_back(kept);
        Some(planned)
    }

    /// Keeps a plan, if that is possible.
    pub fn keep(
        &mut self,
        environment: &Arc<Environment>,
        text: &str,
        parameters: &[Option<SqlType>],
        planned: &Planned,
    ) {
        if !planned.is_lasting || text.len() > TEXT_BYTES_MAX {
            return;
        }
        // System tables are made for one moment.
        let Ok(planned) = planned.with_tables(&tables::unbound) else { return };
        self.forget_unless(environment);
        if self.kept.len() >= PLANS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { text: text.to_string(), parameters: parameters.to_vec(), planned });
    }

    fn forget_unless(&mut self, environment: &Arc<Environment>) {
        if !self.environment.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, environment)) {
            self.kept.clear();
            self.environment = Some(environment.clone());
        }
    }
}

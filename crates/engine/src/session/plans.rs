//! Plans of queries that a session runs again and again: an application reads by key with the same few texts, and
//! planning would cost it more than reading.
//!
//! Kept is the plan without its tables, which are put in for each run at the moment that the run reads. Invariant: all
//! plans in here were made with the same catalog and settings.

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_planner::{Planned, PointQuery};
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
    planned: Arc<Planned>,
    // Where it only reads by key.
    point: Option<Arc<PointQuery>>,
}

impl Kept {
    /// Whether it is the plan of that text, with these types declared or found.
    fn is(&self, text: &str, parameters: &[Option<SqlType>]) -> bool {
        self.text == text
            && (self.parameters == parameters
                || self.planned.parameters.iter().map(Some).eq(parameters.iter().map(Option::as_ref)))
    }
}

impl Plans {
    /// The plan of a text, to be given its tables, and what it is where it only reads by key.
    pub fn get(
        &mut self,
        environment: &Arc<Environment>,
        text: &str,
        parameters: &[Option<SqlType>],
    ) -> Option<(Arc<Planned>, Option<Arc<PointQuery>>)> {
        self.forget_unless(environment);
        let idx = self.kept.iter().rposition(|kept| kept.is(text, parameters))?;
        let kept = self.kept.remove(idx)?;
        let found = (kept.planned.clone(), kept.point.clone());
        self.kept.push_back(kept);
        Some(found)
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
        let Ok(planned) = planned.with_tables(tables::unbound) else { return };
        self.forget_unless(environment);
        if self.kept.len() >= PLANS_MAX {
            self.kept.pop_front();
        }
        let point = PointQuery::of(&planned).map(Arc::new);
        let (text, parameters, planned) = (text.to_string(), parameters.to_vec(), Arc::new(planned));
        self.kept.push_back(Kept { text, parameters, planned, point });
    }

    fn forget_unless(&mut self, environment: &Arc<Environment>) {
        if !self.environment.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, environment)) {
            self.kept.clear();
            self.environment = Some(environment.clone());
        }
    }
}

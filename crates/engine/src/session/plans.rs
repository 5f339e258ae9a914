//! Plans of statements that a session runs again and again: an application reads and writes by key with the same few
//! texts, and planning would cost it more than doing.
//!
//! Kept is the plan without its tables, which are put in for each run at the moment that the run reads. Invariant: all
//! plans in here were made with the same catalog and settings.

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_types::SqlType;

use super::query::Environment;

/// Plans that are kept, and the longest text of one.
const PLANS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 8192;

/// What can be kept.
pub trait Plan {
    /// The types of its parameters.
    fn parameters(&self) -> &[SqlType];
}

/// The plans of one session.
pub struct Plans<P> {
    environment: Option<Arc<Environment>>,
    // The one that was used last comes last.
    kept: VecDeque<Kept<P>>,
}

struct Kept<P> {
    text: String,
    declared: Vec<Option<SqlType>>,
    plan: Arc<P>,
}

impl<P> Default for Plans<P> {
    fn default() -> Plans<P> {
        Plans { environment: None, kept: VecDeque::new() }
    }
}

impl<P: Plan> Kept<P> {
    /// Whether it is the plan of that text, with these types declared or found.
    fn is(&self, text: &str, types: &[Option<SqlType>]) -> bool {
        self.text == text
            && (self.declared == types || self.plan.parameters().iter().map(Some).eq(types.iter().map(Option::as_ref)))
    }
}

impl<P: Plan> Plans<P> {
    /// The plan of a text.
    pub fn get(&mut self, environment: &Arc<Environment>, text: &str, types: &[Option<SqlType>]) -> Option<Arc<P>> {
        self.forget_unless(environment);
        let idx = self.kept.iter().rposition(|kept| kept.is(text, types))?;
        let kept = self.kept.remove(idx)?;
        let plan = kept.plan.clone();
        self.kept.push_back(kept);
        Some(plan)
    }

    /// Keeps a plan that was made with `declared` types.
    pub fn keep(&mut self, environment: &Arc<Environment>, text: &str, declared: &[Option<SqlType>], plan: &Arc<P>) {
        if text.len() > TEXT_BYTES_MAX {
            return;
        }
        self.forget_unless(environment);
        if self.kept.len() >= PLANS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { text: text.to_string(), declared: declared.to_vec(), plan: plan.clone() });
    }

    fn forget_unless(&mut self, environment: &Arc<Environment>) {
        if !self.environment.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, environment)) {
            self.kept.clear();
            self.environment = Some(environment.clone());
        }
    }
}

//! Runs statements as drivers do: prepared, with parameters, over the wire.

use std::time::Duration;

use tokio_postgres::{NoTls, Statement};

use super::parameters::{self, Binder, Bound};
use super::{End, Finding, Run, beginning, is_refusal, kind_of, other_types};
use crate::database::{Answer, Failure};
use crate::fuzz::features::Feature;
use crate::fuzz::{gaps, panics};

/// How long a statement with parameters may take. Its plan is made before their values are known, and may take much longer
/// than that of the same statement without them: where it does, the case is left.
const PREPARED_MAX: Duration = Duration::from_secs(5);

/// A view's query with parameters.
#[derive(Clone)]
pub(super) struct Prepared {
    bound: Bound,
    here: Statement,
    /// PostgreSQL's.
    right: Statement,
    n_runs: usize,
}

impl Run<'_> {
    /// What binds literals in this case; None: nothing does.
    fn binder(&self) -> Option<Binder> {
        let on = self.features.has(Feature::Parameters) && self.postgres.is_some();
        on.then_some(Binder { seed: self.seed, undeclared: self.seed.is_multiple_of(3) })
    }

    /// What a driver asked of Tidewire. A panic and an internal error are findings.
    async fn driven<T>(
        &self,
        asked: impl Future<Output = Result<T, Failure>>,
        bound: &Bound,
    ) -> Result<Result<T, Failure>, Finding> {
        let answer = tokio::time::timeout(PREPARED_MAX, asked).await;
        if let Some(place) = panics::take() {
            return Err(Finding::new(format!("panic: {place}"), bound.to_string()));
        }
        match answer {
            Err(_) => {
                let canceled = self.driver.0.cancel_token().cancel_query(NoTls).await;
                canceled.map_err(|e| Finding::new("a statement cannot be canceled", format!("{e}\n{bound}")))?;
                Ok(Err(Failure { code: "57014".into(), ..Failure::of_test("canceled") }))
            }
            Ok(Err(e)) if e.code.starts_with("XX") || e.code == "TEST" => {
                Err(Finding::new(format!("internal error: {}", kind_of(&e)), format!("{e}\n{bound}")))
            }
            Ok(answer) => Ok(answer),
        }
    }

    /// Runs the query of a view with parameters, prepared when it is compared for the first time, and compares with
    /// PostgreSQL.
    pub(super) async fn compare_prepared(&mut self, idx: usize) -> Result<(), End> {
        let Some(binder) = self.binder() else { return Ok(()) };
        let Some(live) = self.views.get(idx) else { return Ok(()) };
        let query = live.query.clone();
        if live.prepared.is_none() {
            let prepared = self.prepare(&binder, &query).await?;
            self.views.iter_mut().skip(idx).take(1).for_each(|v| v.prepared = Some(prepared.clone()));
        }
        let prepared = self.views.get_mut(idx).and_then(|v| v.prepared.as_mut()).and_then(Option::as_mut);
        let Some(prepared) = prepared else { return Ok(()) };
        prepared.n_runs += 1;
        let Prepared { bound, here, right, n_runs } = prepared.clone();
        let Some(postgres) = &self.postgres else { return Ok(()) };
        let values = if n_runs % 2 == 0 { binder.others(&bound, n_runs) } else { bound.values.clone() };
        let right = parameters::execute(&postgres.0, &right, &values).await;
        let bound = Bound { values, ..bound };
        let here = self.driven(parameters::execute(&self.driver.0, &here, &bound.values), &bound).await?;
        let is_left =
            |answer: &Result<_, Failure>| matches!(answer, Err(e) if e.code == "57014" || e.code.starts_with("53"));
        if is_left(&right) || is_left(&here) {
            return Err(End::Left);
        }
        self.counts.n_bound += 1;
        self.with_postgres(&here, &right, &query, "the query with parameters").map_err(|end| match end {
            End::Found(finding) => {
                End::Found(Finding::new(format!("prepared: {}", finding.kind), format!("{}\n{bound}", finding.detail)))
            }
            End::Left => End::Left,
        })
    }

    /// None: nothing to bind, or what PostgreSQL does not take.
    async fn prepare(&mut self, binder: &Binder, query: &str) -> Result<Option<Prepared>, End> {
        let Some(bound) = binder.bind(query) else { return Ok(None) };
        let Some(postgres) = &self.postgres else { return Ok(None) };
        let Ok(right) = parameters::prepare(&postgres.0, &bound).await else { return Ok(None) };
        let bound = bound.with_types(right.params());
        let here = match self.driven(parameters::prepare(&self.driver.0, &bound), &bound).await? {
            Ok(here) => here,
            Err(e) if is_refusal(&e) => {
                self.refuse(&Failure { message: format!("{} (with parameters)", e.message), ..e });
                return Ok(None);
            }
            Err(e) => {
                let kind = format!("prepared: error {} where PostgreSQL has none", kind_of(&e));
                return Err(Finding::new(kind, format!("{e}\n{bound}")).into());
            }
        };
        if self.features.has(Feature::Types) {
            let names = |statement: &Statement| {
                let parameters: Vec<String> = statement.params().iter().map(|t| t.name().to_string()).collect();
                let columns: Vec<String> = statement.columns().iter().map(|c| c.type_().name().to_string()).collect();
                [parameters, columns]
            };
            for ((here, right), what) in names(&here).iter().zip(&names(&right)).zip(["parameter", "column"]) {
                let is_known = |a: &str, b: &str| what == "parameter" && gaps::is_known_parameter(a, b);
                let other = other_types(here, right).find(|(a, b)| !is_known(a, b));
                if let Some((a, b)) = other {
                    let kind = format!("prepared: {what} {a} where PostgreSQL has {b}");
                    return Err(Finding::new(kind, format!("{here:?}\nPostgreSQL's {right:?}\n{bound}")).into());
                }
            }
        }
        Ok(Some(Prepared { bound, here, right, n_runs: 0 }))
    }

    /// Runs a statement that changes rows with parameters, in both. None: it has none, or PostgreSQL does not take it
    /// so; nothing has changed then.
    pub(super) async fn change_prepared(
        &mut self,
        sql: &str,
    ) -> Result<Option<(Result<Answer, Failure>, Option<Result<Answer, Failure>>)>, Finding> {
        let Some(bound) = self.binder().and_then(|binder| binder.bind(sql)) else { return Ok(None) };
        let Some(postgres) = &self.postgres else { return Ok(None) };
        let Ok(statement) = parameters::prepare(&postgres.0, &bound).await else { return Ok(None) };
        let right = parameters::execute(&postgres.0, &statement, &bound.values).await;
        let bound = bound.with_types(statement.params());
        let here = self.driven(parameters::run(&self.driver.0, &bound), &bound).await?;
        self.counts.n_bound += 1;
        let here = here.map_err(|e| {
            let message = format!("{} (with parameters: {})", e.message, beginning(&bound.sql));
            Failure { message, ..e }
        });
        Ok(Some((here, Some(right))))
    }
}

//! Runs a case and compares: each view with its query as a batch, and both with PostgreSQL.

mod parameters;
mod prepared;

use std::collections::BTreeMap;
use std::time::Duration;

use tidewire_types::SqlType;

use self::prepared::Prepared;
use super::case::{Case, Step, View};
use super::features::{Feature, Features};
use super::{gaps, panics, values};
use crate::database::{Answer, Database, Failure, Wire};
use crate::oracle::compare;
use crate::server::Server;

/// How long a statement may take.
const STATEMENT_MAX: Duration = Duration::from_secs(30);

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Cases that ran to their end.
    pub n_cases: usize,
    /// Materialized views that were made.
    pub n_views: usize,
    /// Comparisons of a view with its query.
    pub n_with_query: usize,
    /// Comparisons with PostgreSQL.
    pub n_with_postgres: usize,
    /// Statements with parameters.
    pub n_bound: usize,
    /// Statements that change rows.
    pub n_changes: usize,
    /// Cases that were left because PostgreSQL did not take the query, or took too long.
    pub n_left: usize,
    /// Queries that failed at some row in PostgreSQL only.
    pub n_row_errors: usize,
    /// Views that had no value (`21000`) where their query, as it was run, asked no subquery for its second row.
    pub n_undefined: usize,
    /// Why views were refused, how often, and the seed of the first case.
    pub refused: BTreeMap<String, (usize, u64)>,
}

/// How a case fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of failure it is: what shrinking must keep.
    pub kind: String,
    /// What was seen.
    pub detail: String,
}

impl Finding {
    fn new(kind: impl Into<String>, detail: impl Into<String>) -> Finding {
        Finding { kind: kind.into(), detail: detail.into() }
    }
}

/// Why a case does not go on.
enum End {
    Found(Finding),
    /// PostgreSQL cannot say what is right.
    Left,
}

impl From<Finding> for End {
    fn from(finding: Finding) -> End {
        End::Found(finding)
    }
}

/// Where cases run.
pub struct Place<'a> {
    /// Tidewire.
    pub server: &'a Server,
    /// A driver that is connected to it.
    pub driver: &'a Wire,
    /// PostgreSQL, if there is one.
    pub postgres: Option<&'a mut Wire>,
    /// Which checks are on.
    pub features: &'a Features,
    /// See [`super::Options`].
    pub batch_every: usize,
}

/// What a case gave.
pub struct Ended {
    /// How it fails.
    pub found: Option<Finding>,
    /// Whether the server is as it was before.
    pub clean: bool,
}

/// Runs a case; the counts are added to. Errors: PostgreSQL is gone.
pub async fn run(case: &Case, place: Place<'_>, counts: &mut Counts) -> Result<Ended, Failure> {
    panics::take();
    let mut run = Run {
        seed: case.seed,
        db: Some(Box::new(place.server.in_process())),
        driver: place.driver,
        postgres: place.postgres,
        features: place.features,
        batch_every: place.batch_every.max(1),
        counts,
        views: vec![],
        refused: vec![],
        in_transaction: false,
        is_emptied: false,
    };
    run.prepare_postgres().await?;
    let found = match run.all(case).await {
        Ok(()) => None,
        Err(End::Left) => {
            run.counts.n_left += 1;
            None
        }
        Err(End::Found(finding)) => Some(finding),
    };
    run.counts.n_cases += 1;
    Ok(match (run.clean_up(case).await, found) {
        (Ok(()), found) => Ended { found, clean: true },
        (Err(failure), None) => {
            let finding = Finding::new(format!("not dropped: {}", failure.code), failure.to_string());
            Ended { found: Some(finding), clean: false }
        }
        (Err(_), found) => Ended { found, clean: false },
    })
}

struct Run<'a> {
    seed: u64,
    /// None after a statement that did not end.
    db: Option<Box<dyn Database>>,
    driver: &'a Wire,
    postgres: Option<&'a mut Wire>,
    features: &'a Features,
    batch_every: usize,
    counts: &'a mut Counts,
    views: Vec<Live>,
    /// Views that do not exist because Tidewire refused them.
    refused: Vec<String>,
    in_transaction: bool,
    /// Everything was deleted.
    is_emptied: bool,
}

/// A view that is compared.
struct Live {
    name: String,
    query: String,
    /// Whether Tidewire maintains it.
    maintained: bool,
    /// Whether Tidewire runs it as a batch.
    runs: bool,
    types_compared: bool,
    /// How often it was compared.
    n_compared: usize,
    /// Its query with parameters; None: not looked at yet, or there is none.
    prepared: Option<Option<Prepared>>,
}

impl Run<'_> {
    async fn prepare_postgres(&mut self) -> Result<(), Failure> {
        let Some(postgres) = &mut self.postgres else { return Ok(()) };
        let _ = postgres.run("ROLLBACK").await;
        postgres.run("DISCARD TEMP").await.map(|_| ())
    }

    async fn clean_up(&mut self, case: &Case) -> Result<(), Failure> {
        let _ = self.tidewire("ROLLBACK").await;
        for table in &case.tables {
            let dropped = self.tidewire(&format!("DROP TABLE {} CASCADE", table.name)).await;
            gone(dropped)?;
        }
        // Views over nothing stand on no table.
        let views: Vec<String> = self.views.drain(..).filter(|v| v.maintained).map(|v| v.name).collect();
        for view in views.into_iter().rev() {
            let dropped = self.tidewire(&format!("DROP MATERIALIZED VIEW IF EXISTS {view} CASCADE")).await;
            gone(dropped)?;
        }
        Ok(())
    }

    async fn all(&mut self, case: &Case) -> Result<(), End> {
        for table in &case.tables {
            let sql = table.to_string();
            self.both(&sql, &sql.replacen("CREATE TABLE", "CREATE TEMP TABLE", 1)).await?;
        }
        for step in &case.steps {
            let sql = step.to_string();
            match step {
                Step::View(view) => {
                    self.create(view).await?;
                    continue;
                }
                _ => self.both(&sql, &sql.replacen("CREATE TABLE", "CREATE TEMP TABLE", 1)).await?,
            }
            self.counts.n_changes += 1;
            self.in_transaction = match sql.as_str() {
                "BEGIN" => true,
                "COMMIT" | "ROLLBACK" => false,
                _ => self.in_transaction,
            };
            if !self.in_transaction {
                self.compare_all().await?;
            }
        }
        for table in &case.tables {
            let rows = self.tidewire(&format!("SELECT 1 FROM {} LIMIT 1", table.name)).await?;
            if self.in_transaction || rows.is_ok_and(|answer| !answer.rows.is_empty()) {
                return Ok(());
            }
        }
        self.is_emptied = true;
        self.compare_all().await
    }

    /// Runs a statement in Tidewire. A panic, an internal error and a statement that does not end are findings.
    async fn tidewire(&mut self, sql: &str) -> Result<Result<Answer, Failure>, Finding> {
        let Some(mut db) = self.db.take() else { return Err(Finding::new("no end", "the connection is gone")) };
        let text = sql.to_string();
        // On a task of its own: planning that does not end would not yield to a timeout.
        let task = tokio::spawn(async move {
            let answer = db.run(&text).await;
            (db, answer)
        });
        let ended = tokio::time::timeout(STATEMENT_MAX, task).await;
        let panicked = panics::take();
        let answer = match ended {
            Err(_) => return Err(Finding::new("no end", beginning(sql))),
            Ok(Err(joined)) => {
                let place = panicked.unwrap_or_else(|| joined.to_string());
                return Err(Finding::new(format!("panic: {place}"), format!("in {}", beginning(sql))));
            }
            Ok(Ok((db, answer))) => {
                self.db = Some(db);
                answer
            }
        };
        if let Some(place) = panicked {
            return Err(Finding::new(format!("panic: {place}"), format!("in {}", beginning(sql))));
        }
        match answer {
            Err(e) if e.code.starts_with("XX") || e.code == "TEST" => Err(Finding::new(
                format!("internal error: {}", normalized(&e.message)),
                format!("{e}\nin {}", beginning(sql)),
            )),
            answer => Ok(answer),
        }
    }

    async fn in_postgres(&mut self, sql: &str) -> Option<Result<Answer, Failure>> {
        match &mut self.postgres {
            None => None,
            Some(postgres) => Some(postgres.run(sql).await),
        }
    }

    /// A statement that is no view, in both.
    async fn both(&mut self, sql: &str, postgres_sql: &str) -> Result<(), End> {
        if self.refused.iter().any(|name| sql.contains(&format!(" {name} AS "))) {
            return Err(End::Left);
        }
        let is_change = !sql.starts_with("CREATE") && !self.in_transaction;
        let (here, right) = match if is_change { self.change_prepared(sql).await? } else { None } {
            Some(both) => both,
            None => {
                let right = self.in_postgres(postgres_sql).await;
                (self.tidewire(sql).await?, right)
            }
        };
        let Some(right) = right else {
            return match here {
                Err(e) if is_refusal(&e) => {
                    self.refuse(&e);
                    Err(End::Left)
                }
                Err(e) if !is_of_data(&e) && e.code != "25P02" => {
                    Err(Finding::new(format!("error {}", kind_of(&e)), format!("{e}\nin {}", beginning(sql))).into())
                }
                _ => Ok(()),
            };
        };
        match (&here, &right) {
            (Ok(here), Ok(right)) if here.count == right.count || sql.starts_with("CREATE") => Ok(()),
            (Ok(_), Ok(_)) if sql.starts_with("TRUNCATE") => Ok(()),
            (Ok(here), Ok(right)) => {
                let detail = format!("{} rows, in PostgreSQL {}, in {}", here.count, right.count, beginning(sql));
                Err(Finding::new("another number of rows is changed", detail).into())
            }
            _ => self.outcomes(&here, &right, sql),
        }
    }

    /// At least one of the two failed.
    fn outcomes(
        &mut self,
        here: &Result<Answer, Failure>,
        right: &Result<Answer, Failure>,
        sql: &str,
    ) -> Result<(), End> {
        match (here, right) {
            (Ok(_), Ok(_)) => Ok(()),
            (Err(here), Ok(_)) if is_refusal(here) => {
                self.refuse(here);
                // What comes next would only differ because of this.
                Err(End::Left)
            }
            // PostgreSQL has plain views here, and asks no subquery of theirs whose value nobody reads.
            (Err(here), Ok(_)) if here.code == "21000" && here.hint.is_some() => {
                self.counts.n_undefined += 1;
                Err(End::Left)
            }
            (Err(here), Ok(_)) => {
                let kind = format!("error {} where PostgreSQL has none", kind_of(here));
                Err(Finding::new(kind, format!("{here}\nin {}", beginning(sql))).into())
            }
            (_, Err(right)) if right.code == "57014" || right.code == "0A000" || right.code.starts_with("53") => {
                Err(End::Left)
            }
            (Ok(_), Err(right)) if is_of_data(right) => {
                self.counts.n_row_errors += 1;
                Err(End::Left)
            }
            (Ok(_), Err(right)) if gaps::is_accepted(&kind_of(right)) => Err(End::Left),
            (Ok(_), Err(right)) => {
                let kind = format!("no error where PostgreSQL has {}", kind_of(right));
                Err(Finding::new(kind, format!("{right}\nin {}", beginning(sql))).into())
            }
            (Err(here), Err(right)) if is_refusal(here) || class(here) == class(right) => {
                // A failed statement leaves both as they were.
                if sql.starts_with("CREATE") { Err(End::Left) } else { Ok(()) }
            }
            (Err(here), Err(right)) => {
                let kind = format!("error {} where PostgreSQL has {}", kind_of(here), right.code);
                Err(Finding::new(kind, format!("{here}\nPostgreSQL: {right}\nin {}", beginning(sql))).into())
            }
        }
    }

    fn refuse(&mut self, error: &Failure) {
        self.counts.refused.entry(normalized(&error.message)).or_insert((0, self.seed)).0 += 1;
    }

    async fn create(&mut self, view: &View) -> Result<(), End> {
        let query = view.query.to_string();
        if self.refused.iter().any(|name| query.contains(&format!(" {name} AS "))) {
            self.refused.push(view.name.clone());
            return Ok(());
        }
        let right = self.in_postgres(&format!("CREATE TEMP VIEW {} AS {query}", view.name)).await;
        if let Some(Err(e)) = &right
            && (e.code == "57014" || e.code == "0A000")
        {
            return Err(End::Left);
        }
        let sql = format!("CREATE MATERIALIZED VIEW {} AS {query}", view.name);
        let here = self.tidewire(&sql).await?;
        let maintained = here.is_ok();
        match (&here, &right) {
            (Ok(_), Some(Ok(_)) | None) => self.counts.n_views += 1,
            (Err(e), Some(Ok(_)) | None) if is_refusal(e) => {
                self.refuse(e);
                self.refused.push(view.name.clone());
            }
            (Err(e), None) => {
                return Err(
                    Finding::new(format!("error {}", kind_of(e)), format!("{e}\nin {}", beginning(&sql))).into()
                );
            }
            (_, Some(right)) => {
                self.outcomes(&here, right, &sql)?;
                return Err(End::Left);
            }
        }
        let name = view.name.clone();
        self.views.push(Live {
            name,
            query,
            maintained,
            runs: true,
            types_compared: false,
            n_compared: 0,
            prepared: None,
        });
        let last = self.views.len() - 1;
        self.compare_view(last).await
    }

    async fn compare_all(&mut self) -> Result<(), End> {
        for idx in 0..self.views.len() {
            self.compare_view(idx).await?;
        }
        Ok(())
    }

    async fn compare_view(&mut self, idx: usize) -> Result<(), End> {
        let Some(live) = self.views.get(idx).filter(|v| v.runs || v.maintained) else { return Ok(()) };
        let (name, query) = (live.name.clone(), live.query.clone());
        let (maintained, types_compared) = (live.maintained, live.types_compared);
        let runs = live.runs && (self.postgres.is_none() || live.n_compared.is_multiple_of(self.batch_every));
        let right = self.in_postgres(&format!("SELECT * FROM {name}")).await;
        if matches!(&right, Some(Err(e)) if e.code == "57014" || e.code.starts_with("53")) {
            return Err(End::Left);
        }
        if let Some(live) = self.views.get_mut(idx) {
            live.n_compared += 1;
        }
        let batch = if runs { Some(self.tidewire(&query).await?) } else { None };
        let content = if maintained { Some(self.tidewire(&format!("SELECT * FROM {name}")).await?) } else { None };
        match &batch {
            Some(Err(e)) if is_refusal(e) => {
                self.refuse(&Failure { message: format!("{} (as a batch)", e.message), ..e.clone() });
                self.views.iter_mut().skip(idx).take(1).for_each(|v| v.runs = false);
            }
            Some(batch) => {
                if let Some(right) = &right {
                    self.with_postgres(batch, right, &query, "the query")?;
                }
                if let Some(content) = &content {
                    self.with_query(content, batch, &query)?;
                }
            }
            None => {}
        }
        if matches!(&batch, Some(Ok(_))) {
            self.compare_prepared(idx).await?;
        }
        let batch_refused = !matches!(&batch, Some(Ok(_)));
        if let (Some(content), Some(right), true) = (&content, &right, batch_refused) {
            self.with_postgres(content, right, &query, "the view")?;
        }
        if let Some(Ok(answer)) = batch.filter(|_| !types_compared) {
            self.compare_types(&answer, &query).await?;
            self.views.iter_mut().skip(idx).take(1).for_each(|v| v.types_compared = true);
        }
        Ok(())
    }

    fn with_query(
        &mut self,
        content: &Result<Answer, Failure>,
        batch: &Result<Answer, Failure>,
        query: &str,
    ) -> Result<(), End> {
        self.counts.n_with_query += 1;
        let finding =
            |kind: &str, detail: String| Err(Finding::new(kind, format!("{detail}\nin {}", beginning(query))).into());
        match (content, batch) {
            (Ok(content), Ok(batch)) => match compare(&values::normalized(content), &values::normalized(batch)) {
                Ok(()) => Ok(()),
                Err(difference) => finding("the view is not its query", difference),
            },
            // A row that fails is dead-lettered, and the view goes on; but a subquery without a value leaves it without one.
            (Ok(_), Err(e)) if is_of_data(e) && e.code != "21000" => Ok(()),
            (Ok(_), Err(e)) => finding("the view can be read, its query fails", e.to_string()),
            // Which subqueries a batch asks depends on how it is run; over nothing none is asked.
            (Err(e), Ok(_)) if e.code == "21000" && !self.is_emptied => {
                self.counts.n_undefined += 1;
                Ok(())
            }
            (Err(e), Ok(_)) => {
                finding(&format!("the view cannot be read, its query can: {}", kind_of(e)), e.to_string())
            }
            (Err(a), Err(b)) if a.code == b.code => Ok(()),
            (Err(a), Err(b)) => finding("the view fails in another way than its query", format!("{a}\n{b}")),
        }
    }

    fn with_postgres(
        &mut self,
        here: &Result<Answer, Failure>,
        right: &Result<Answer, Failure>,
        query: &str,
        which: &str,
    ) -> Result<(), End> {
        self.counts.n_with_postgres += 1;
        match (here, right) {
            (Ok(here), Ok(right)) => {
                let right = Answer { types: here.types.clone(), ..right.clone() };
                compare(&values::normalized(here), &values::normalized(&right)).map_err(|difference| {
                    let difference = difference.replace("only in the view", "only here");
                    let difference = difference.replace("only in the query", "only in PostgreSQL");
                    Finding::new(
                        format!("{which} is not PostgreSQL's"),
                        format!("{difference}\nin {}", beginning(query)),
                    )
                    .into()
                })
            }
            (Ok(_), Err(right)) if is_of_data(right) => {
                self.counts.n_row_errors += 1;
                Ok(())
            }
            _ => self.outcomes(here, right, query),
        }
    }

    async fn compare_types(&mut self, here: &Answer, query: &str) -> Result<(), End> {
        let (true, Some(postgres), Some(types)) = (self.features.has(Feature::Types), &mut self.postgres, &here.types)
        else {
            return Ok(());
        };
        let Ok(prepared) = postgres.0.prepare(query).await else { return Ok(()) };
        let right: Vec<String> = prepared.columns().iter().map(|c| c.type_().name().to_string()).collect();
        let here: Vec<String> = types.iter().map(type_name).collect();
        match other_types(&here, &right).next() {
            None => Ok(()),
            Some((a, b)) => {
                let kind = format!("type {a} where PostgreSQL has {b}");
                Err(Finding::new(kind, format!("types {here:?}\nPostgreSQL's {right:?}")).into())
            }
        }
    }
}

/// The types that are others than in PostgreSQL, with those.
fn other_types<'a>(here: &'a [String], right: &'a [String]) -> impl Iterator<Item = (&'a String, &'a String)> {
    here.iter().zip(right).filter(|(a, b)| a != b && !gaps::is_known_type(a, b))
}

/// What is not there need not be dropped.
fn gone(dropped: Result<Result<Answer, Failure>, Finding>) -> Result<(), Failure> {
    match dropped {
        Err(finding) => Err(Failure::of_test(finding.detail)),
        Ok(Err(e)) if e.code != "42P01" => Err(e),
        _ => Ok(()),
    }
}

/// 0A000, or what should be.
fn is_refusal(error: &Failure) -> bool {
    error.code == "0A000" || gaps::is_known(&kind_of(error))
}

/// An error that depends on rows: cardinality, data, constraints.
fn is_of_data(error: &Failure) -> bool {
    ["21", "22", "23", "54"].contains(&class(error))
}

fn class(error: &Failure) -> &str {
    error.code.get(..2).unwrap_or_default()
}

fn kind_of(error: &Failure) -> String {
    format!("{} {}", error.code, normalized(&error.message))
}

/// A message without what is particular to one case: names in quotes, numbers, aliases.
fn normalized(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    // Where a syntax error is tells which it is; a function's name, without the types of its arguments.
    if first.starts_with("syntax error") {
        return first.to_string();
    }
    if let Some((name, _)) = first.strip_prefix("function ").and_then(|f| f.split_once('(')) {
        return format!("function {name}() does not exist");
    }
    let mut out = String::new();
    let mut quoted = false;
    let mut previous = ' ';
    for c in first.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            _ if quoted => {}
            c if c.is_ascii_digit() && (previous.is_ascii_digit() || previous == '#') => {}
            c if c.is_ascii_digit() => out.push('#'),
            c => out.push(c),
        }
        previous = c;
    }
    out.chars().take(80).collect()
}

/// Enough of a statement to find it in the script.
fn beginning(sql: &str) -> String {
    sql.chars().take(60).collect()
}

/// A type's name in pg_type.
fn type_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Bool => "bool".into(),
        SqlType::Int2 => "int2".into(),
        SqlType::Int4 => "int4".into(),
        SqlType::Int8 => "int8".into(),
        SqlType::Float4 => "float4".into(),
        SqlType::Float8 => "float8".into(),
        SqlType::Numeric(_) => "numeric".into(),
        SqlType::Text | SqlType::Null => "text".into(),
        SqlType::Varchar(_) => "varchar".into(),
        SqlType::Char(_) => "bpchar".into(),
        SqlType::Timestamptz => "timestamptz".into(),
        SqlType::Array(element) => format!("_{}", type_name(element)),
        SqlType::Struct(_) => "record".into(),
        other => other.to_string().split(' ').next().unwrap_or_default().to_string(),
    }
}

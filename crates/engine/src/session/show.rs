//! SHOW, DESCRIBE and EXPLAIN.

use arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use tidewire_catalog::{Kind, Object};
use tidewire_planner::NodeId;
use tidewire_sql::{Explain, ObjectKind, ObjectName, Parsed, Show, Statement, ast};
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::Session;
use crate::status::{OperatorStatus, ViewState};
use crate::system::{bigint, indexes, rows, text, view_state};

impl Session {
    /// The rows of a SHOW.
    pub(super) async fn show_rows(&mut self, parsed: &Parsed) -> Result<RecordBatch> {
        match &parsed.statement {
            Statement::ShowSetting(name) if name == "all" => {
                let all = self.settings.all();
                rows(vec![
                    ("name", SqlType::Text, text(all.iter().map(|s| Some(&s.0)))),
                    ("setting", SqlType::Text, text(all.iter().map(|s| Some(&s.1)))),
                    ("description", SqlType::Text, text(all.iter().map(|s| Some(&s.2)))),
                ])
            }
            Statement::ShowSetting(name) => {
                let value = self.settings.show(name)?;
                rows(vec![(name.as_str(), SqlType::Text, text([Some(value)]))])
            }
            Statement::Show(show) => self.show(show).await,
            _ => Err(SqlError::internal("not a SHOW")),
        }
    }

    async fn show(&mut self, show: &Show) -> Result<RecordBatch> {
        match show {
            Show::Sources => self.show_objects(|o| match &o.def {
                Kind::Source(def) => Some(def.connector.clone()),
                Kind::Table(_) | Kind::View(_) | Kind::MaterializedView(_) | Kind::Index(_) => None,
            }),
            Show::Tables => self.show_objects(|o| matches!(o.def, Kind::Table(_)).then(String::new)),
            Show::Views => self.show_objects(|o| matches!(o.def, Kind::View(_)).then(String::new)),
            Show::MaterializedViews => {
                self.show_objects(|o| matches!(o.def, Kind::MaterializedView(_)).then(String::new))
            }
            Show::Indexes(relation) => self.show_indexes(relation.as_ref()).await,
            Show::Jobs => self.show_jobs().await,
            Show::Columns(name) => self.show_columns(name),
            Show::Create(kind, name) => self.show_create(*kind, name),
        }
    }

    /// Name and owner of the objects that `kind` has a word for; the word is the connector, where there is one.
    fn show_objects(&self, kind: impl Fn(&Object) -> Option<String>) -> Result<RecordBatch> {
        let catalog = self.shared().published().catalog;
        let mut found: Vec<_> = catalog.objects().filter_map(|o| Some((o.clone(), kind(o)?))).collect();
        found.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let mut columns = vec![("name", SqlType::Text, text(found.iter().map(|(o, _)| Some(o.name.to_string()))))];
        if found.iter().any(|(_, connector)| !connector.is_empty()) {
            columns.push(("connector", SqlType::Text, text(found.iter().map(|(_, c)| Some(c)))));
        }
        rows(columns)
    }

    async fn show_indexes(&self, relation: Option<&ObjectName>) -> Result<RecordBatch> {
        let catalog = self.shared().published().catalog;
        let relation = relation.map(|name| self.resolve(&catalog, name)).transpose()?.map(|o| o.name.to_string());
        let mut found = self.shared().call(|core| core.status()).await?.indexes;
        found.retain(|index| relation.as_ref().is_none_or(|name| *name == index.relation));
        indexes(&found)
    }

    async fn show_jobs(&self) -> Result<RecordBatch> {
        let status = self.shared().call(|core| core.status()).await?;
        let each = || status.views.iter();
        let done = |state: &ViewState| match state {
            ViewState::Building { n_rows, n_rows_total } => {
                let total = n_rows_total.map_or_else(String::new, |total| format!(" of {total}"));
                Some(format!("{n_rows}{total} rows"))
            }
            ViewState::Running | ViewState::Undefined | ViewState::Failed(_) => None,
        };
        rows(vec![
            ("id", SqlType::Int8, bigint(each().map(|v| Some(i64::from(v.id.0))))),
            ("name", SqlType::Text, text(each().map(|v| Some(&v.name)))),
            ("state", SqlType::Text, text(each().map(|v| Some(view_state(&v.state).0)))),
            ("progress", SqlType::Text, text(each().map(|v| done(&v.state)))),
            ("error", SqlType::Text, text(each().map(|v| view_state(&v.state).1))),
        ])
    }

    fn show_columns(&self, name: &ObjectName) -> Result<RecordBatch> {
        let catalog = self.shared().published().catalog;
        let object = self.resolve(&catalog, name)?;
        let each = || object.columns.iter();
        rows(vec![
            ("name", SqlType::Text, text(each().map(|c| Some(&c.name)))),
            ("type", SqlType::Text, text(each().map(|c| Some(c.sql_type.to_string())))),
            ("nullable", SqlType::Text, text(each().map(|c| Some(if c.not_null { "no" } else { "yes" })))),
            ("default", SqlType::Text, text(each().map(|c| c.default.as_ref()))),
        ])
    }

    fn show_create(&self, kind: ObjectKind, name: &ObjectName) -> Result<RecordBatch> {
        let catalog = self.shared().published().catalog;
        let object = self.resolve(&catalog, name)?;
        let fits = match &object.def {
            Kind::Source(_) => kind == ObjectKind::Source,
            Kind::Table(_) => kind == ObjectKind::Table,
            Kind::View(_) => kind == ObjectKind::View,
            Kind::MaterializedView(_) => kind == ObjectKind::MaterializedView,
            Kind::Index(_) => kind == ObjectKind::Index,
        };
        if !fits {
            let message = format!("\"{}\" is a {}", object.name, object.kind());
            return Err(SqlError::new(SqlState::WrongObjectType, message).at(name.position).with_hint(format!(
                "Use SHOW CREATE {} {}.",
                object.kind().to_uppercase(),
                object.name
            )));
        }
        rows(vec![
            ("name", SqlType::Text, text([Some(object.name.to_string())])),
            ("create_sql", SqlType::Text, text([Some(&object.sql)])),
        ])
    }

    /// A plan as the rows of an EXPLAIN.
    pub(super) fn explain_rows(plan: &str) -> Result<RecordBatch> {
        rows(vec![("QUERY PLAN", SqlType::Text, text(plan.lines().map(Some)))])
    }

    /// The types of the parameters of an EXPLAIN: those of the query.
    pub(super) async fn explain_parameters(
        &mut self,
        explain: &Explain,
        declared: &[Option<SqlType>],
    ) -> Result<Vec<SqlType>> {
        let Explain::Plan { statement, .. } = explain else { return Ok(vec![]) };
        let Statement::Query(query) = &statement.statement else { return Ok(vec![]) };
        Ok(self.plan_query(query, &statement.text, declared).await?.planned.parameters)
    }

    /// The plan that an EXPLAIN shows. `types` and `parameters` are those of the query.
    pub(super) async fn explain(
        &mut self,
        explain: &Explain,
        types: &[SqlType],
        parameters: Vec<ScalarValue>,
    ) -> Result<String> {
        match explain {
            Explain::MaterializedView { name, analyze } => self.explain_view(name, *analyze).await,
            Explain::State { statement } => {
                let (query, text, offset) = match &statement.statement {
                    Statement::CreateView(create) if create.materialized => {
                        (&create.query, create.query_text.as_str(), create.query_offset)
                    }
                    Statement::Subscribe(subscribe) => (&subscribe.query, statement.text.as_str(), 0),
                    Statement::Query(query) => (query, statement.text.as_str(), 0),
                    _ => {
                        return Err(SqlError::unsupported("EXPLAIN (STATE) of this statement")
                            .with_hint("It takes a SELECT, CREATE MATERIALIZED VIEW or SUBSCRIBE."));
                    }
                };
                let dataflow = self.plan_dataflow(query, text, offset).await?.0;
                self.explain_state(dataflow).await
            }
            Explain::Plan { statement, analyze, verbose: _ } => match &statement.statement {
                Statement::CreateView(create) => {
                    let (query, text, offset) = (&create.query, &create.query_text, create.query_offset);
                    Ok(self.plan_dataflow(query, text, offset).await?.0.to_string())
                }
                Statement::Subscribe(subscribe) => {
                    Ok(self.plan_dataflow(&subscribe.query, &statement.text, 0).await?.0.to_string())
                }
                Statement::Query(query) => {
                    self.explain_query(query, &statement.text, types, parameters, *analyze).await
                }
                Statement::Execute { name, args } => {
                    let (prepared, values) = self.execution(name, args, &statement.text).await?;
                    let Statement::Query(query) = &prepared.parsed.statement else {
                        return Err(SqlError::unsupported("EXPLAIN EXECUTE of what is not a query"));
                    };
                    self.explain_query(query, &prepared.parsed.text, &prepared.parameters, values, *analyze).await
                }
                _ => Err(SqlError::unsupported("EXPLAIN of this statement")
                    .with_hint("EXPLAIN takes a SELECT, EXECUTE, CREATE MATERIALIZED VIEW or SUBSCRIBE.")),
            },
        }
    }

    async fn explain_query(
        &mut self,
        query: &ast::Query,
        text: &str,
        types: &[SqlType],
        parameters: Vec<ScalarValue>,
        analyze: bool,
    ) -> Result<String> {
        let types: Vec<_> = types.iter().cloned().map(Some).collect();
        let planned = self.plan_query(query, text, &types).await?.planned;
        self.engine.explain(&planned, parameters, analyze).await
    }

    async fn explain_view(&mut self, name: &ObjectName, analyze: bool) -> Result<String> {
        let catalog = self.shared().published().catalog;
        let object = self.resolve(&catalog, name)?.clone();
        let Kind::MaterializedView(def) = &object.def else {
            let message = format!("\"{}\" is not a materialized view", object.name);
            return Err(SqlError::new(SqlState::WrongObjectType, message).at(name.position));
        };
        let query = match tidewire_sql::parse(&def.query)?.pop().map(|p| p.statement) {
            Some(Statement::Query(query)) => query,
            _ => return Err(SqlError::internal("the stored query is not a query")),
        };
        let dataflow = self.plan_dataflow(&query, &def.query, 0).await?.0;
        let id = object.id;
        let shared = self.shared().call(move |core| core.shared_with(id)).await?;
        let note = |(node, others): (NodeId, Vec<String>)| match others.is_empty() {
            true => None,
            false => Some((node, format!("shared with {}", others.join(", ")))),
        };
        let plan = dataflow.explain(&shared.into_iter().filter_map(note).collect());
        if !analyze {
            return Ok(plan);
        }
        let status = self.shared().call(|core| core.status()).await?;
        let view = status.views.iter().find(|v| v.id == object.id);
        let view = view.ok_or_else(|| SqlError::internal("the view has no status"))?;
        let mut lines = plan;
        lines.push_str("\n\n");
        for (id, operator) in view.operators.iter().enumerate() {
            lines.push_str(&operator_line(id, operator));
        }
        lines.push_str(&format!("Total: rows={}, state_bytes={}\n", view.n_rows, view.state_bytes));
        Ok(lines)
    }
}

fn operator_line(id: usize, op: &OperatorStatus) -> String {
    let name = op.description.split(':').next().unwrap_or_default();
    format!(
        "#{id} {name}: input_rows={}, output_rows={}, time={:.3} ms, state_rows={}, state_bytes={}\n",
        op.n_input_rows,
        op.n_output_rows,
        op.step_ns as f64 / 1e6,
        op.state_rows,
        op.state_bytes
    )
}

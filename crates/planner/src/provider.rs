//! What DataFusion's SQL planner may ask for: relations by name, functions, types.
//!
//! Relations of the catalog are planned as [`ObjectSource`]s, which know their object; [`crate::query`] puts tables
//! with rows in their place for queries that run, and [`crate::dataflow`] makes inputs of them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableScan, TableSource, WindowUDF,
};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use sqlparser::ast;
use tidewire_catalog::{Kind, Name, Object, ViewDef};
use tidewire_sql::{Statement, sql_type};
use tidewire_types::{ObjectId, Result, SqlError, SqlState, SqlType, closest};

use crate::alias_columns::AliasPlanner;
use crate::errors::planning_error;
use crate::from_planner::FromPlanner;
use crate::functions::{PostgresOperators, cast, sets, unknown_function, untyped};
use crate::query::Context;
use crate::unnest_query::{RowPlanner, row_function};
use crate::using::UsingPlanner;
use crate::{common_types, comparisons, in_lists, parameters, rewrite, windows};

/// Views on views, before a catalog must be taken for broken.
const VIEW_DEPTH_MAX: usize = 100;

/// Answers for one statement.
pub(crate) struct Provider<'a> {
    cx: &'a Context<'a>,
    state: &'a SessionState,
    planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: [Arc<dyn RelationPlanner>; 4],
    views: Arc<Mutex<BTreeSet<ObjectId>>>,
    depth: usize,
    unnests_structs: AtomicBool,
}

/// A source, table or materialized view of the catalog, without rows.
pub(crate) struct ObjectSource(pub(crate) Arc<Object>);

impl TableSource for ObjectSource {
    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }
}

/// A plain view: its plan takes its place.
struct ViewSource {
    id: ObjectId,
    schema: SchemaRef,
    plan: LogicalPlan,
    inside: BTreeSet<ObjectId>,
    views: Arc<Mutex<BTreeSet<ObjectId>>>,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        // The planner asks for every name, also where a CTE hides the view, but takes only the plan that it uses.
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.insert(self.id);
        views.extend(&self.inside);
        Some(Cow::Borrowed(&self.plan))
    }
}

impl<'a> Provider<'a> {
    pub(crate) fn new(cx: &'a Context<'a>, state: &'a SessionState, depth: usize) -> Provider<'a> {
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(PostgresOperators)];
        planners.extend(state.expr_planners().iter().cloned());
        let relation_planners: [Arc<dyn RelationPlanner>; 4] =
            [Arc::new(UsingPlanner), Arc::new(RowPlanner), Arc::new(AliasPlanner), Arc::<FromPlanner>::default()];
        let unnests_structs = AtomicBool::new(false);
        Provider { cx, state, planners, relation_planners, views: Arc::default(), depth, unnests_structs }
    }

    /// From now on unnest() is DataFusion's, which makes columns of a struct's fields.
    pub(crate) fn unnest_structs(&self) {
        self.unnests_structs.store(true, Ordering::Relaxed);
    }

    /// The plain views that plans were taken from.
    pub(crate) fn views(&self) -> BTreeSet<ObjectId> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A rewritten expression over the columns of `schema`; not yet coerced.
    pub(crate) fn plan_expr(
        &self,
        expr: ast::Expr,
        schema: &DFSchema,
        types: &[Option<SqlType>],
        text: &str,
    ) -> Result<Expr> {
        let fields = types.iter().map(|t| t.as_ref().map(|t| Arc::new(t.field("", true)))).collect();
        let mut context = PlannerContext::new().with_prepare_param_data_types(fields);
        let planned = SqlToRel::new(self).sql_to_expr(expr, schema, &mut context);
        let planned = planned.and_then(|expr| comparisons::in_expr(expr, schema));
        let planned = planned.and_then(|expr| common_types::in_expr(expr, schema));
        planned.and_then(in_lists::in_expr).map_err(|e| planning_error(e, text))
    }

    /// An expression over the columns of `schema`; not yet coerced. The types of its parameters are added to `types`.
    pub(crate) fn plan_open(
        &self,
        expr: &ast::Expr,
        schema: &DFSchema,
        types: &mut Vec<Option<SqlType>>,
        text: &str,
    ) -> Result<Expr> {
        let rewritten = rewrite::rewrite_with_parameters(expr)?;
        parameters::add(types, rewritten.n_parameters, rewritten.parameters);
        parameters::find(expr, types, |expr, types, watch| {
            let marked = rewrite::rewrite_with_parameters(expr)?.expr;
            let planned = self.plan_expr(marked, schema, types, text)?;
            let typed = planned.rewrite(&mut TypeCoercionRewriter::new(schema)).map_err(|e| planning_error(e, text))?;
            watch(&typed.data);
            Ok(())
        });
        let known: Vec<_> = types.iter().map(|t| Some(t.clone().unwrap_or(SqlType::Text))).collect();
        self.plan_expr(rewritten.expr, schema, &known, text)
    }

    fn relation(&self, schema: Option<&str>, name: &str) -> Result<Arc<dyn TableSource>> {
        if let Some(table) = self.cx.lookup(schema, name) {
            return match table {
                Found::Object(object) => self.object(object),
                Found::System(table) => Ok(provider_as_source(table)),
            };
        }
        Err(self.cx.undefined_table(schema, name))
    }

    fn object(&self, object: Arc<Object>) -> Result<Arc<dyn TableSource>> {
        match &object.def {
            Kind::View(view) => self.view(&object, view),
            Kind::Index(_) => {
                let message = format!("cannot open relation \"{}\"", object.name.name);
                Err(SqlError::new(SqlState::WrongObjectType, message)
                    .with_detail("This operation is not supported for indexes."))
            }
            Kind::Source(_) | Kind::Table(_) | Kind::MaterializedView(_) => Ok(Arc::new(ObjectSource(object))),
        }
    }

    fn view(&self, object: &Object, view: &ViewDef) -> Result<Arc<dyn TableSource>> {
        if self.depth >= VIEW_DEPTH_MAX {
            let message = format!("view \"{}\" stands on too many views", object.name);
            return Err(SqlError::new(SqlState::StatementTooComplex, message));
        }
        let query = parse_query(&view.query)?;
        let logical = self.cx.logical(&query, &view.query, &[], self.depth + 1).map_err(|e| {
            let detail = format!("View \"{}\" could not be planned.", object.name);
            e.with_position(None).with_detail(detail)
        })?;
        let plan = logical.with_columns(&object.schema)?;
        Ok(Arc::new(ViewSource {
            id: object.id,
            schema: object.schema.clone(),
            plan,
            inside: logical.objects.into_iter().collect(),
            views: self.views.clone(),
        }))
    }
}

/// A stored view's query.
pub(crate) fn parse_query(text: &str) -> Result<Box<ast::Query>> {
    match tidewire_sql::parse(text)?.pop().map(|parsed| parsed.statement) {
        Some(Statement::Query(query)) => Ok(query),
        _ => Err(SqlError::internal("a stored view is no query")),
    }
}

/// What a name stands for.
pub(crate) enum Found {
    /// An object of the catalog.
    Object(Arc<Object>),
    /// A system table.
    System(Arc<dyn TableProvider>),
}

impl Context<'_> {
    /// The relation of that name: along the search path where no schema is given, pg_catalog first.
    pub(crate) fn lookup(&self, schema: Option<&str>, name: &str) -> Option<Found> {
        let path: Vec<&str> = match schema {
            Some(schema) => vec![schema],
            None => {
                let implicit = (!self.search_path.iter().any(|s| s == "pg_catalog")).then_some("pg_catalog");
                implicit.into_iter().chain(self.search_path.iter().map(String::as_str)).collect()
            }
        };
        path.into_iter().find_map(|schema| match self.catalog.get(&Name::new(schema, name)) {
            Some(object) => Some(Found::Object(object.clone())),
            None => self.tables.system_table(schema, name).map(Found::System),
        })
    }

    /// `42P01`, with the closest name that exists as hint.
    pub(crate) fn undefined_table(&self, schema: Option<&str>, name: &str) -> SqlError {
        let shown = schema.map_or(name.to_owned(), |s| format!("{s}.{name}"));
        let error = SqlError::new(SqlState::UndefinedTable, format!("relation \"{shown}\" does not exist"));
        let system = self.tables.system_tables();
        let objects = self.catalog.objects().map(|o| (o.name.schema.as_str(), o.name.name.as_str()));
        let all = objects.chain(system.iter().map(|(s, n)| (s.as_str(), n.as_str())));
        let reachable = all.filter(|(s, _)| match schema {
            Some(schema) => *s == schema,
            None => self.search_path.iter().any(|p| p == s),
        });
        match closest(name, reachable.map(|(_, n)| n)) {
            Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
            None => error,
        }
    }
}

/// Types as PostgreSQL spells them.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, data_type: &ast::DataType) -> DfResult<Option<FieldRef>> {
        Ok(Some(Arc::new(sql_type(data_type).map_err(cast::external)?.field("", true))))
    }
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        self.relation(name.schema(), name.table()).map_err(cast::external)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DfResult<Arc<dyn TableSource>> {
        let Some(function) = self.state.table_functions().get(&name.to_lowercase()) else {
            let known = self.state.table_functions().keys().map(String::as_str);
            let message = format!("function {name}() does not exist");
            let error = SqlError::new(SqlState::UndefinedFunction, message);
            return Err(cast::external(match closest(name, known) {
                Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
                None => error,
            }));
        };
        let args = datafusion::catalog::TableFunctionArgs::new(&args, self.state);
        Ok(provider_as_source(function.create_table_provider_with_args(args)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        Ok(work_source(name, schema))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if name == "unnest" && self.unnests_structs.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(marker) = sets::function(name) {
            return Some(marker);
        }
        if let Some(function) = self.state.scalar_functions().get(name) {
            return Some(function.clone());
        }
        let planned = cast::function(name).or_else(|| row_function(name)).or_else(|| untyped::function(name));
        if let Some(function) = planned {
            return Some(function);
        }
        if name == windows::FRAME {
            return Some(Arc::new(windows::function::frame()));
        }
        let elsewhere = self.state.aggregate_functions().contains_key(name)
            || self.state.window_functions().contains_key(name)
            || self.state.higher_order_functions().contains_key(name)
            || matches!(name, "unnest" | "unnest_outer" | "grouping");
        (!elsewhere).then(|| {
            let scalar = self.state.scalar_functions().keys();
            // Names with blanks are of functions that have another name in SQL.
            let names = scalar.chain(self.state.aggregate_functions().keys()).filter(|name| !name.contains(' '));
            unknown_function(name, names.chain(self.state.window_functions().keys()).map(String::as_str))
        })
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}

/// The object that a planned relation stands for.
pub(crate) fn object_of(source: &Arc<dyn TableSource>) -> Option<&Arc<Object>> {
    source.downcast_ref::<ObjectSource>().map(|source| &source.0)
}

/// A [`SqlError`] on its way through DataFusion.
pub(crate) fn to_datafusion(error: SqlError) -> DataFusionError {
    cast::external(error)
}

/// The name and the columns of the relation that a recursion goes round in, where the scan is one of that.
pub(crate) fn work_table(scan: &TableScan) -> Option<(String, SchemaRef)> {
    let provider = source_as_provider(&scan.source).ok()?;
    provider.downcast_ref::<CteWorkTable>().map(|table| (table.name().to_owned(), table.schema()))
}

/// A source for scans of that relation.
pub(crate) fn work_source(name: &str, schema: SchemaRef) -> Arc<dyn TableSource> {
    provider_as_source(Arc::new(CteWorkTable::new(name, schema)))
}

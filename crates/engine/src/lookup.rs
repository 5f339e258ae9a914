//! Reading a relation by key: which filters of a query name keys, and the node of its plan that looks them up.
//!
//! `WHERE k = 5`, `k IN (1, 2)`, `a = $1 AND b = 'x'` over the columns of a primary key, a view's unique key or an index
//! read the rows with these keys instead of all. The filter itself stays above, so that what equality means (NULL,
//! floats, equal hashes) is decided in one place. Invariant: a lookup gives every row that the filter accepts.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue, Statistics};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ColumnarValue, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream, StatisticsArgs,
};
use tidewire_operators::arrangement::ArrangementReader;
use tidewire_planner::EQUALS_ANY;
use tidewire_types::{ObjectId, Result};

use crate::shared::Snapshot;
use crate::tables::{conform, external};

/// Combinations of key values of one lookup at most.
const KEYS_MAX: usize = 10_000;
/// Rows that a key of an index is taken to have.
const ROWS_A_KEY: usize = 10;
/// Values that EXPLAIN shows of a list.
const SHOWN_MAX: usize = 5;

/// Columns that rows can be found by.
#[derive(Clone, Debug)]
pub struct Key {
    /// The name of the index.
    pub name: String,
    /// Its columns.
    pub column_idxs: Vec<usize>,
    /// At most one row has the same values.
    pub is_unique: bool,
}

/// Whether a filter says which values a column of some key may have.
pub fn names_keys(filter: &Expr, schema: &Schema, keys: &[Key]) -> bool {
    allowed(filter).is_some_and(|(column, _)| {
        schema.index_of(column).is_ok_and(|idx| keys.iter().any(|key| key.column_idxs.contains(&idx)))
    })
}

/// What a filter allows a column to be.
enum Allowed<'a> {
    Value(&'a Expr),
    /// The items of an array.
    Items(&'a Expr),
}

/// The column and the values that a filter allows it to have: `c = 1`, `1 = c`, `c IN (1, 2)`, `c = 1 OR c = 2`,
/// `c = ANY ($1)`.
fn allowed(filter: &Expr) -> Option<(&str, Vec<Allowed<'_>>)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), value) | (value, Expr::Column(column)) if is_constant(value) => {
                Some((&column.name, vec![Allowed::Value(value)]))
            }
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let ((column, mut values), (other, more)) = (allowed(left)?, allowed(right)?);
            values.extend(more);
            (column == other).then_some((column, values))
        }
        Expr::InList(InList { expr, list, negated: false }) => match expr.as_ref() {
            Expr::Column(column) if list.iter().all(is_constant) => {
                Some((&column.name, list.iter().map(Allowed::Value).collect()))
            }
            _ => None,
        },
        Expr::ScalarFunction(call) if call.func.name() == EQUALS_ANY => match call.args.as_slice() {
            [Expr::Column(column), array] if is_constant(array) => Some((&column.name, vec![Allowed::Items(array)])),
            _ => None,
        },
        _ => None,
    }
}

/// Whether it has one value for all rows of a query.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) | Expr::Placeholder(_) => true,
        expr => !expr.any_column_refs() && !expr.is_volatile(),
    }
}

/// The best key whose columns the filters all name, with the values to look up.
pub fn choose(filters: &[Expr], schema: &SchemaRef, keys: &[Key], session: &dyn Session) -> Option<Lookup> {
    let mut values: Vec<(usize, Vec<ScalarValue>)> = vec![];
    for filter in filters {
        let Some((column, exprs)) = allowed(filter) else { continue };
        let Some(idx) = schema.index_of(column).ok().filter(|idx| !values.iter().any(|(other, _)| other == idx)) else {
            continue;
        };
        let data_type = schema.field(idx).data_type();
        let values_of = |allowed| match allowed {
            Allowed::Value(expr) => Some(value_of(expr, data_type, session)?.into_iter().collect()),
            Allowed::Items(array) => items_of(array, data_type, session),
        };
        if let Some(found) = exprs.into_iter().map(values_of).collect::<Option<Vec<Vec<_>>>>() {
            values.push((idx, found.into_iter().flatten().collect()));
        }
    }
    let of = |idx: &usize| values.iter().find(|(other, _)| other == idx).map(|(_, values)| values.as_slice());
    let mut usable: Vec<(&Key, Vec<&[ScalarValue]>)> =
        keys.iter().filter_map(|key| Some((key, key.column_idxs.iter().map(of).collect::<Option<_>>()?))).collect();
    usable.retain(|(_, values)| {
        values.iter().try_fold(1usize, |n, values| n.checked_mul(values.len())).is_some_and(|n| n <= KEYS_MAX)
    });
    // The most columns leave the fewest rows.
    usable.sort_by_key(|(key, _)| (!key.is_unique, std::cmp::Reverse(key.column_idxs.len())));
    let (key, values) = usable.into_iter().next()?;
    Lookup::new(key, &values, schema)
}

/// The value of a constant in a column's type. None: it is not known or of another type. Some(None): NULL, which
/// equals nothing.
fn value_of(expr: &Expr, data_type: &DataType, session: &dyn Session) -> Option<Option<ScalarValue>> {
    of_type(constant(expr, session)?, data_type)
}

/// The items of a constant array in a column's type, without NULLs. None: they are not known or of another type.
fn items_of(array: &Expr, data_type: &DataType, session: &dyn Session) -> Option<Vec<ScalarValue>> {
    let ScalarValue::List(list) = constant(array, session)? else { return None };
    if list.is_null(0) {
        return Some(vec![]);
    }
    let items = list.value(0);
    let items = (0..items.len()).map(|idx| of_type(ScalarValue::try_from_array(&items, idx).ok()?, data_type));
    Some(items.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

fn constant(expr: &Expr, session: &dyn Session) -> Option<ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        return Some(value.clone());
    }
    let physical = session.create_physical_expr(expr.clone(), &DFSchema::empty()).ok()?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).ok()?;
    match physical.evaluate(&row).ok()? {
        ColumnarValue::Scalar(value) => Some(value),
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0).ok(),
    }
}

fn of_type(value: ScalarValue, data_type: &DataType) -> Option<Option<ScalarValue>> {
    if value.is_null() {
        return Some(None);
    }
    let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_bytes = |t: &DataType| matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    let is = value.data_type();
    if is == *data_type {
        return Some(Some(value));
    }
    let same_values = (is_text(&is) && is_text(data_type)) || (is_bytes(&is) && is_bytes(data_type));
    same_values.then(|| value.cast_to(data_type).ok()).flatten().map(Some)
}

/// Keys to look up.
#[derive(Clone, Debug)]
pub struct Lookup {
    key: Key,
    /// The values of each column of the key, one row a combination.
    values: Vec<ArrayRef>,
    /// `k = 5`, for EXPLAIN.
    shown: String,
}

impl Lookup {
    fn new(key: &Key, values: &[&[ScalarValue]], schema: &SchemaRef) -> Option<Lookup> {
        let n_rows = values.iter().map(|values| values.len()).product::<usize>();
        let mut columns = vec![];
        let mut n_repeats = n_rows;
        for (idx, values) in key.column_idxs.iter().zip(values) {
            n_repeats /= values.len().max(1);
            let value = |row: usize| values.get(row / n_repeats.max(1) % values.len().max(1)).cloned();
            let data_type = schema.field(*idx).data_type();
            columns.push(match n_rows {
                0 => arrow::array::new_empty_array(data_type),
                _ => ScalarValue::iter_to_array((0..n_rows).filter_map(value)).ok()?,
            });
        }
        let shown = key.column_idxs.iter().zip(values).map(|(idx, values)| show(schema.field(*idx).name(), values));
        Some(Lookup { key: key.clone(), values: columns, shown: shown.collect::<Vec<_>>().join(" AND ") })
    }
}

impl Lookup {
    /// The rows at the snapshot's epoch. None: a scan must be made.
    pub fn rows(
        &self,
        relation: ObjectId,
        reader: &Arc<ArrangementReader>,
        snapshot: &Snapshot,
        column_idxs: &[usize],
    ) -> Result<Option<Vec<RecordBatch>>> {
        match reader.index_on(&self.key.column_idxs) {
            Some(index) => reader.lookup(&index, snapshot.moment.epoch, &self.values, column_idxs),
            None => {
                // Nobody has read by this key before.
                if self.key.is_unique && !reader.is_small() {
                    snapshot.index_unique_key(relation);
                }
                Ok(None)
            }
        }
    }
}

fn show(column: &str, values: &[ScalarValue]) -> String {
    let text = |value: &ScalarValue| match value.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            format!("'{}'", value.to_string().replace('\'', "''"))
        }
        _ => value.to_string(),
    };
    if let [value] = values {
        return format!("{column} = {}", text(value));
    }
    let mut shown: Vec<String> = values.iter().take(SHOWN_MAX).map(text).collect();
    if values.len() > SHOWN_MAX {
        shown.push(format!(".. {} in all", values.len()));
    }
    format!("{column} IN ({})", shown.join(", "))
}

/// The node of a plan.
pub struct IndexLookup {
    lookup: Lookup,
    relation: ObjectId,
    name: String,
    reader: Arc<ArrangementReader>,
    // Keeps its rows.
    snapshot: Arc<Snapshot>,
    column_idxs: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl IndexLookup {
    /// The rows of a relation at the snapshot's epoch that have one of the keys.
    pub fn new(
        lookup: Lookup,
        (relation, name): (ObjectId, &str),
        reader: Arc<ArrangementReader>,
        snapshot: Arc<Snapshot>,
        column_idxs: Vec<usize>,
        schema: SchemaRef,
    ) -> IndexLookup {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let name = name.to_string();
        IndexLookup { lookup, relation, name, reader, snapshot, column_idxs, properties: Arc::new(properties) }
    }

    fn rows(&self) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> {
        match self.lookup.rows(self.relation, &self.reader, &self.snapshot, &self.column_idxs)? {
            Some(batches) => Ok(Box::new(batches.into_iter().map(Ok))),
            None => self.reader.scan(self.snapshot.moment.epoch, Some(&self.column_idxs)),
        }
    }
}

impl fmt::Debug for IndexLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexLookup").field("name", &self.name).field("lookup", &self.lookup).finish_non_exhaustive()
    }
}

impl DisplayAs for IndexLookup {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexLookup: {} using {} ({})", self.name, self.lookup.key.name, self.lookup.shown)
    }
}

impl ExecutionPlan for IndexLookup {
    fn name(&self) -> &'static str {
        "IndexLookup"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _partition: usize, _cx: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let schema = self.properties.eq_properties.schema().clone();
        let (target, snapshot) = (schema.clone(), self.snapshot.clone());
        let rows = self.rows().map_err(external)?.map(move |rows| {
            // The stream keeps the snapshot, and so its rows.
            let _readable = &snapshot;
            conform(rows.map_err(external)?, &target)
        });
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, futures::stream::iter(rows)))))
    }

    /// So that few rows are not spread over threads.
    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> DfResult<Arc<Statistics>> {
        let n_keys = self.lookup.values.first().map_or(0, |values| values.len());
        let n_rows = if self.lookup.key.is_unique { n_keys } else { n_keys * ROWS_A_KEY };
        let unknown = Statistics::new_unknown(self.properties.eq_properties.schema());
        Ok(Arc::new(unknown.with_num_rows(Precision::Inexact(n_rows))))
    }
}

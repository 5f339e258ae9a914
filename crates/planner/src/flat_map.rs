//! The plan node of set-returning functions: [`FlatMap`] in DataFusion's logical plans.
//!
//! For each input row it gives the input's columns and the columns of its calls, in lock step; see
//! [`tidewire_operators::flat_map`], which both paths run. Invariant: the names of the calls' columns are hidden and
//! unique, so that DataFusion's rules, which go by name, cannot confuse them with the input's.

mod exec;
mod prune;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result, TableReference};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
pub(crate) use exec::{FlatMapExec, FlatMapPlanner};
pub(crate) use prune::PruneFlatMap;
use tidewire_operators::flat_map::SetFunction;
use tidewire_types::SqlType;

/// A call of a set-returning function.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) function: Arc<dyn SetFunction>,
    /// Over the input's columns.
    pub(crate) args: Vec<Expr>,
    /// Names for the function's columns.
    pub(crate) names: Vec<String>,
}

/// Calls of set-returning functions over the rows of `input`.
#[derive(Clone, Debug)]
pub(crate) struct FlatMap {
    pub(crate) input: Arc<LogicalPlan>,
    pub(crate) calls: Vec<Call>,
    /// The input's columns that the output begins with.
    pub(crate) kept: Vec<Column>,
    /// Name of the column that numbers the rows of each input row.
    pub(crate) ordinality: Option<String>,
    /// A condition on output rows.
    pub(crate) filter: Option<Expr>,
    /// An input row without output rows gives one with NULLs.
    pub(crate) outer: bool,
    schema: DFSchemaRef,
}

/// Input, arguments, names, kept columns, condition, and whether it is outer.
type Identity<'a> = (&'a LogicalPlan, Vec<&'a Expr>, Vec<&'a str>, &'a [Column], Option<&'a Expr>, bool);

impl FlatMap {
    /// Calls over all columns of `input`.
    pub(crate) fn new(input: Arc<LogicalPlan>, calls: Vec<Call>, ordinality: Option<String>) -> Result<FlatMap> {
        let kept = input.schema().columns();
        let node =
            FlatMap { schema: input.schema().clone(), input, calls, kept, ordinality, filter: None, outer: false };
        node.with_schema()
    }

    /// The same as a left join: rows that satisfy `filter`, or else one with NULLs.
    pub(crate) fn outer(self, filter: Option<Expr>) -> FlatMap {
        FlatMap { outer: true, filter, ..self }
    }

    /// Only these of the input's columns; with one more where there would be no column at all.
    pub(crate) fn keeping(&self, is_kept: impl Fn(&Column) -> bool) -> Result<FlatMap> {
        let mut kept: Vec<Column> = self.kept.iter().filter(|c| is_kept(c)).cloned().collect();
        if kept.is_empty() && self.own_fields().is_empty() {
            kept.extend(self.kept.first().cloned());
        }
        FlatMap { kept, ..self.clone() }.with_schema()
    }

    /// The same calls with other arguments over another input, of which `more` columns are kept too.
    pub(crate) fn over(
        &self,
        input: LogicalPlan,
        calls: Vec<Call>,
        filter: Option<Expr>,
        more: &[Column],
    ) -> Result<FlatMap> {
        let kept = self.kept.iter().chain(more).cloned().collect();
        FlatMap { input: Arc::new(input), calls, kept, filter, ..self.clone() }.with_schema()
    }

    fn with_schema(mut self) -> Result<FlatMap> {
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = vec![];
        for column in &self.kept {
            let (qualifier, field) = self.input.schema().qualified_field_from_column(column)?;
            fields.push((qualifier.cloned(), field.clone()));
        }
        fields.extend(self.own_fields().into_iter().map(|field| (None, field)));
        let metadata = self.input.schema().metadata().clone();
        self.schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
        Ok(self)
    }

    /// The columns of the calls.
    pub(crate) fn own_fields(&self) -> Vec<FieldRef> {
        let of_call = |call: &Call| {
            let fields = call.function.fields().iter().zip(&call.names);
            fields.map(|(field, name)| Arc::new(field.as_ref().clone().with_name(name))).collect::<Vec<_>>()
        };
        let mut fields: Vec<FieldRef> = self.calls.iter().flat_map(of_call).collect();
        fields.extend(self.ordinality.iter().map(|name| Arc::new(SqlType::Int8.field(name, true))));
        fields
    }

    /// The plan that is this node.
    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The node that the plan is, if it is one.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<&FlatMap> {
        let LogicalPlan::Extension(extension) = plan else { return None };
        extension.node.as_any().downcast_ref::<FlatMap>()
    }

    /// What tells two nodes apart. The functions follow from the arguments' types and the names.
    fn identity(&self) -> Identity<'_> {
        let names =
            self.calls.iter().flat_map(|c| std::iter::once(c.function.name()).chain(c.names.iter().map(|n| &**n)));
        let args = self.calls.iter().flat_map(|call| &call.args).collect();
        (
            &self.input,
            args,
            names.chain(self.ordinality.as_deref()).collect(),
            &self.kept,
            self.filter.as_ref(),
            self.outer,
        )
    }
}

impl PartialEq for FlatMap {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for FlatMap {}

impl PartialOrd for FlatMap {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

impl Hash for FlatMap {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl UserDefinedLogicalNodeCore for FlatMap {
    fn name(&self) -> &str {
        "FlatMap"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// The arguments. The filter is over the output's columns, which DataFusion would look for in the input.
    fn expressions(&self) -> Vec<Expr> {
        self.calls.iter().flat_map(|call| call.args.iter().cloned()).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.own_fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlatMap:")?;
        for call in &self.calls {
            let args: Vec<String> = call.args.iter().map(ToString::to_string).collect();
            write!(f, " {}({})", call.function.name(), args.join(", "))?;
        }
        f.write_str(if self.ordinality.is_some() { " with ordinality" } else { "" })?;
        if let Some(filter) = &self.filter {
            write!(f, " filter={filter}")?;
        }
        f.write_str(if self.outer { " outer" } else { "" })
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let [input] = <[LogicalPlan; 1]>::try_from(inputs)
            .map_err(|_| DataFusionError::Internal("FlatMap has one input".into()))?;
        let mut exprs = exprs.into_iter();
        let mut calls = self.calls.clone();
        for call in &mut calls {
            call.args = exprs.by_ref().take(call.args.len()).collect();
        }
        // The input may have lost columns that nobody reads.
        let kept = self.kept.iter().filter(|c| input.schema().has_column(c)).cloned().collect();
        FlatMap { input: Arc::new(input), calls, kept, ..self.clone() }.with_schema()
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let kept = output_columns.iter().filter_map(|idx| self.kept.get(*idx));
        let read = self.filter.as_ref().map(|f| f.column_refs()).unwrap_or_default();
        let read = self.kept.iter().filter(|column| read.contains(column));
        let index = |column: &Column| self.input.schema().maybe_index_of_column(column);
        let mut needed: Vec<usize> = kept.chain(read).filter_map(index).collect();
        let without_args = self.calls.iter().all(|call| call.args.iter().all(|arg| arg.column_refs().is_empty()));
        // A row without columns cannot be told from none.
        if needed.is_empty() && (without_args || self.own_fields().is_empty()) {
            let any = (!self.input.schema().fields().is_empty()).then_some(0);
            needed.extend(self.kept.first().and_then(index).or(any));
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

//! Functions OVER windows: partition keys, order, arguments and filters become plain columns of the operator's input.

use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, Window};
use tidewire_operators::Plan;
use tidewire_operators::window::Function;
use tidewire_types::Result;

use super::{Lowering, Relation, dfschema, nullable, qualified};
use crate::dataflow::{NodeKind, Properties};
use crate::windows::spec::{Spec, names, specs, stacked};

impl Lowering<'_> {
    pub(super) fn window(&mut self, window: &Window) -> Result<Relation> {
        let (exprs, below) = stacked(window);
        let input = self.lower(&below)?;
        // Nothing but the query's columns: ties are broken by them, as in a batch query.
        let input = self.by_position(input, below.schema(), &qualified(below.schema()))?;
        self.windows_over(&exprs, &window.schema, &names(below.schema()), input)
    }

    /// Functions over a relation, with the last columns of `output` as their results; ties are broken by the columns of
    /// these names.
    pub(super) fn windows_over(
        &mut self,
        exprs: &[Expr],
        output: &DFSchema,
        names: &[String],
        mut input: Relation,
    ) -> Result<Relation> {
        let n_before = output.fields().len() - exprs.len().min(output.fields().len());
        let fields: Vec<_> = output.fields().iter().skip(n_before).cloned().collect();
        for spec in specs(exprs, &fields)? {
            input = self.push_window(&spec, output, n_before, names, input)?;
        }
        Ok(input)
    }

    fn push_window(
        &mut self,
        spec: &Spec,
        output: &DFSchema,
        n_before: usize,
        names: &[String],
        input: Relation,
    ) -> Result<Relation> {
        let (exprs, input) = self.with_scalars(spec.exprs(), input)?;
        let (input, places) = self.columns(input, &exprs.iter().collect::<Vec<_>>())?;
        let mut columns = qualified(&input.columns);
        for (idx, _) in spec.results() {
            let (qualifier, field) = output.qualified_field(n_before + idx);
            columns.push((qualifier.cloned(), field.clone()));
        }
        let columns = dfschema(columns)?;
        let mut operator = spec.plan(&places, &self.schema(&input), names)?;
        operator.schema = nullable(columns.as_arrow());
        let n_columns = input.columns.fields().len();
        let mut unique_keys = self.properties(&input).unique_keys;
        for (idx, call) in operator.calls.iter().enumerate() {
            if call.function == Function::RowNumber {
                let mut key = operator.partition_by.clone();
                key.push(n_columns + idx);
                unique_keys.push(key);
            }
        }
        let schema = operator.schema.clone();
        let properties = Properties::new(false, unique_keys);
        let node = self.push(NodeKind::Operator(Plan::Window(operator)), vec![input.node], schema, properties);
        Ok(Relation { node, columns })
    }
}

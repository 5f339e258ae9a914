//! Functions OVER windows: partition keys, order, arguments and filters become plain columns of the operator's input.

use datafusion::common::DFSchema;
use datafusion::logical_expr::Window;
use tidewire_operators::Plan;
use tidewire_operators::window::Function;
use tidewire_types::Result;

use super::{Lowering, Relation, dfschema, nullable, qualified};
use crate::dataflow::{NodeKind, Properties};
use crate::windows::spec::{Spec, names, specs};

impl Lowering<'_> {
    pub(super) fn window(&mut self, window: &Window) -> Result<Relation> {
        let input = self.lower(&window.input)?;
        self.window_over(window, input)
    }

    /// The functions of `window` over a relation that has the columns of its input.
    pub(super) fn window_over(&mut self, window: &Window, input: Relation) -> Result<Relation> {
        let schema = window.input.schema();
        // Nothing but the query's columns: ties are broken by them, as in a batch query.
        let mut relation = self.by_position(input, schema, &qualified(schema))?;
        let n_input = schema.fields().len();
        let fields: Vec<_> = window.schema.fields().iter().skip(n_input).cloned().collect();
        for spec in specs(&window.window_expr, &fields)? {
            relation = self.push_window(&spec, &window.schema, n_input, schema, relation)?;
        }
        Ok(relation)
    }

    fn push_window(
        &mut self,
        spec: &Spec,
        output: &DFSchema,
        n_input: usize,
        names_of: &DFSchema,
        input: Relation,
    ) -> Result<Relation> {
        let (exprs, input) = self.with_scalars(spec.exprs(), input)?;
        let (input, places) = self.columns(input, &exprs.iter().collect::<Vec<_>>())?;
        let mut columns = qualified(&input.columns);
        for (idx, _) in spec.results() {
            let (qualifier, field) = output.qualified_field(n_input + idx);
            columns.push((qualifier.cloned(), field.clone()));
        }
        let columns = dfschema(columns)?;
        let mut operator = spec.plan(&places, &self.schema(&input), &names(names_of))?;
        operator.schema = nullable(columns.as_arrow());
        let before = self.properties(&input);
        let n_columns = input.columns.fields().len();
        let mut unique_keys = before.unique_keys;
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

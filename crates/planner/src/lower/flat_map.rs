//! Set-returning functions: the arguments become physical expressions, the rest is the operator's.

use datafusion::common::DFSchema;
use datafusion::logical_expr::UserDefinedLogicalNodeCore;
use tidewire_operators::Plan;
use tidewire_operators::flat_map::{self, SetCall};
use tidewire_types::Result;

use super::{Lowering, Relation, dfschema, nullable, qualified};
use crate::dataflow::NodeKind;
use crate::flat_map::FlatMap;

impl Lowering<'_> {
    pub(super) fn flat_map(&mut self, node: &FlatMap) -> Result<Relation> {
        let input = self.lower(&node.input)?;
        let args = node.calls.iter().flat_map(|call| call.args.iter().cloned()).collect();
        let (args, input) = self.with_scalars(args, input)?;
        let (args, input) = self.asserted(args, input)?;
        let mut args = args.iter();
        let mut calls = vec![];
        for call in &node.calls {
            let args = args.by_ref().take(call.args.len()).map(|arg| self.physical(arg, &input.columns));
            calls.push(SetCall { function: call.function.clone(), args: args.collect::<Result<_>>()? });
        }
        let mut kept = node.kept.iter().map(|c| self.index_of(c, &input.columns)).collect::<Result<Vec<_>>>()?;
        let output: &DFSchema = node.schema();
        let mut fields = qualified(output);
        if let Some((idx, field)) = self.number_of(&input.columns) {
            fields.insert(kept.len(), (None, field));
            kept.push(idx);
        }
        let columns = dfschema(fields)?;
        let filter = node.filter.as_ref().map(|filter| self.physical(filter, &columns)).transpose()?;
        let schema = nullable(columns.as_arrow());
        let ordinality = node.ordinality.is_some();
        let number = ordinality.then(|| schema.fields().len().saturating_sub(1));
        let properties = self.properties(&input).flat_map(&kept, number);
        let operator = flat_map::FlatMap { calls, kept, ordinality, filter, outer: node.outer, schema: schema.clone() };
        let node = self.push(NodeKind::Operator(Plan::FlatMap(operator)), vec![input.node], schema, properties);
        Ok(Relation { node, columns })
    }
}

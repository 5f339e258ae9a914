//! The text of EXPLAIN: an indented tree, column names instead of indices, and what is known of each node's rows.

use std::collections::HashMap;
use std::fmt::{self, Write};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::physical_expr_common::physical_expr::fmt_sql;
use tidewire_operators::Plan;
use tidewire_operators::aggregate::{Aggregate, Call};
use tidewire_operators::flat_map::FlatMap;
use tidewire_operators::join::Join;
use tidewire_operators::top_n::{SortKey, TopN};
use tidewire_operators::window::{Arg, Call as WindowCall, Function as WindowFunction, Window};

use crate::dataflow::{Dataflow, Node, NodeId, NodeKind, Properties};

/// As EXPLAIN prints it: an indented tree, the view's own node first. A node that several others use is printed at its
/// first use and named there (`#3`); later uses refer to it.
impl fmt::Display for Dataflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.explain(&HashMap::new()))
    }
}

impl Dataflow {
    /// The same with notes at some nodes.
    pub fn explain(&self, notes: &HashMap<NodeId, String>) -> String {
        let (mut text, mut printed) = (String::new(), vec![false; self.nodes.len()]);
        if let Some(root) = self.nodes.len().checked_sub(1) {
            // Writing to a string does not fail.
            let _ = self.write_node(&mut text, root, 0, notes, &mut printed);
        }
        text
    }

    /// Name and parameters of a node, as EXPLAIN prints them, without what is known of its rows.
    pub fn describe(&self, id: NodeId) -> String {
        self.nodes.get(id).map(|node| self.description(node)).unwrap_or_default()
    }

    fn write_node(
        &self,
        f: &mut String,
        id: NodeId,
        depth: usize,
        notes: &HashMap<NodeId, String>,
        printed: &mut [bool],
    ) -> fmt::Result {
        let Some(node) = self.nodes.get(id) else { return Ok(()) };
        if depth > 0 {
            writeln!(f)?;
        }
        write!(f, "{:1$}", "", depth * 2)?;
        let shared = self.nodes.iter().flat_map(|n| &n.inputs).filter(|input| **input == id).count() > 1;
        match printed.get_mut(id) {
            Some(seen @ false) => *seen = true,
            _ => return write!(f, "see #{id}"),
        }
        if shared {
            write!(f, "#{id} ")?;
        }
        f.write_str(&self.description(node))?;
        write_properties(f, &node.properties, &node.schema)?;
        if let Some(note) = notes.get(&id) {
            write!(f, ", {note}")?;
        }
        for input in &node.inputs {
            self.write_node(f, *input, depth + 1, notes, printed)?;
        }
        Ok(())
    }

    fn description(&self, node: &Node) -> String {
        let input = |idx: usize| {
            let id = node.inputs.get(idx).copied().unwrap_or(usize::MAX);
            self.nodes.get(id).map_or(&node.schema, |n| &n.schema)
        };
        match &node.kind {
            NodeKind::Input(source) => format!("Input: {}, columns=[{}]", source.name, all_names(&node.schema)),
            NodeKind::Constant(rows) => format!("Constant: rows={}", rows.num_rows()),
            NodeKind::Operator(plan) => {
                let parameters = without_suffixes(&parameters(plan, input(0), node));
                match parameters.is_empty() {
                    true => plan.name().to_owned(),
                    false => format!("{}: {parameters}", plan.name()),
                }
            }
        }
    }
}

fn parameters(plan: &Plan, input: &SchemaRef, node: &Node) -> String {
    match plan {
        Plan::Filter(filter) => format!("predicate={}", fmt_sql(filter.predicate.as_ref())),
        Plan::Assert(assert) => format!("violated={}", fmt_sql(assert.violated.as_ref())),
        Plan::Project(project) => {
            let exprs = project.exprs.iter().zip(node.schema.fields()).map(|(expr, field)| {
                let expr = fmt_sql(expr.as_ref()).to_string();
                let name = shown(field.name());
                if expr == name { expr } else { format!("{expr} as {name}") }
            });
            format!("expr=[{}]", exprs.collect::<Vec<_>>().join(", "))
        }
        Plan::FlatMap(flat_map) => of_flat_map(flat_map),
        Plan::Recursion(recursion) => recursion.to_string(),
        Plan::Union(_) | Plan::SingleRow(_) => String::new(),
        Plan::Aggregate(aggregate) => of_aggregate(aggregate, input),
        Plan::Join(join) => of_join(join),
        Plan::TopN(top_n) => of_top_n(top_n, input),
        Plan::Window(window) => of_window(window, input),
    }
}

fn of_flat_map(flat_map: &FlatMap) -> String {
    let calls = flat_map.calls.iter().map(|call| {
        let args: Vec<_> = call.args.iter().map(|arg| fmt_sql(arg.as_ref()).to_string()).collect();
        format!("{}({})", call.function.name(), args.join(", "))
    });
    let mut shown = format!("functions=[{}]", calls.collect::<Vec<_>>().join(", "));
    if let Some(filter) = &flat_map.filter {
        shown += &format!(", filter={}", fmt_sql(filter.as_ref()));
    }
    for (flag, name) in [(flat_map.ordinality, ", ordinality"), (flat_map.outer, ", outer")] {
        shown += if flag { name } else { "" };
    }
    shown
}

fn of_aggregate(aggregate: &Aggregate, input: &Schema) -> String {
    let calls: Vec<_> = aggregate.calls.iter().map(|call| of_call(call, input)).collect();
    format!("gby=[{}], aggr=[{}]", names(&aggregate.keys, input), calls.join(", "))
}

fn of_call(call: &Call, input: &Schema) -> String {
    let name = call.function.name();
    let args = if call.args.is_empty() { "*".to_owned() } else { names(&call.args, input) };
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let mut shown = format!("{name}({distinct}{args}");
    if !call.order_by.is_empty() {
        shown += &format!(" ORDER BY {}", sort_keys(&call.order_by, input));
    }
    shown.push(')');
    if let Some(filter) = call.filter {
        shown += &format!(" FILTER (WHERE {})", names(&[filter], input));
    }
    shown
}

fn of_join(join: &Join) -> String {
    let on: Vec<_> = join
        .left_keys
        .iter()
        .zip(&join.right_keys)
        .map(|(l, r)| format!("{} = {}", names(&[*l], &join.left_schema), names(&[*r], &join.right_schema)))
        .collect();
    let mut shown = format!("join_type={:?}, on=[{}]", join.kind, on.join(", "));
    if let Some(residual) = &join.residual {
        shown += &format!(", filter={}", fmt_sql(residual.as_ref()));
    }
    for (flag, name) in [(join.null_equals_null, "null_equals_null"), (join.null_aware, "null_aware")] {
        if flag {
            shown += &format!(", {name}");
        }
    }
    shown
}

fn of_top_n(top_n: &TopN, input: &Schema) -> String {
    let mut parts = vec![];
    if !top_n.partition_by.is_empty() {
        parts.push(format!("partition_by=[{}]", names(&top_n.partition_by, input)));
    }
    parts.push(format!("order_by=[{}]", sort_keys(&top_n.order_by, input)));
    if let Some(limit) = top_n.limit {
        parts.push(format!("limit={limit}"));
    }
    if top_n.offset > 0 {
        parts.push(format!("offset={}", top_n.offset));
    }
    parts.join(", ")
}

fn of_window(window: &Window, input: &Schema) -> String {
    let mut parts = vec![];
    if !window.partition_by.is_empty() {
        parts.push(format!("partition_by=[{}]", names(&window.partition_by, input)));
    }
    if !window.order_by.is_empty() {
        parts.push(format!("order_by=[{}]", sort_keys(&window.order_by, input)));
    }
    let calls: Vec<_> = window.calls.iter().map(|call| of_window_call(call, input)).collect();
    parts.push(format!("wdw=[{}]", calls.join(", ")));
    parts.join(", ")
}

fn of_window_call(call: &WindowCall, input: &Schema) -> String {
    let (name, has_frame) = match &call.function {
        WindowFunction::RowNumber => ("row_number", false),
        WindowFunction::Rank => ("rank", false),
        WindowFunction::DenseRank => ("dense_rank", false),
        WindowFunction::PercentRank => ("percent_rank", false),
        WindowFunction::CumeDist => ("cume_dist", false),
        WindowFunction::Ntile => ("ntile", false),
        WindowFunction::Lag => ("lag", false),
        WindowFunction::Lead => ("lead", false),
        WindowFunction::FirstValue => ("first_value", true),
        WindowFunction::LastValue => ("last_value", true),
        WindowFunction::NthValue => ("nth_value", true),
        WindowFunction::Aggregate(function) => (function.name(), true),
    };
    let args = call.args.iter().map(|arg| match arg {
        Arg::Column(idx) => names(&[*idx], input),
        Arg::Constant(value) => value.to_string(),
    });
    let mut args = args.collect::<Vec<_>>().join(", ");
    if args.is_empty() && matches!(call.function, WindowFunction::Aggregate(_)) {
        args.push('*');
    }
    let mut shown = format!("{name}({args})");
    if let Some(filter) = call.filter {
        shown += &format!(" FILTER (WHERE {})", names(&[filter], input));
    }
    if has_frame {
        shown += &format!(" {}", call.frame);
    }
    shown
}

fn sort_keys(keys: &[SortKey], input: &Schema) -> String {
    let keys = keys.iter().map(|key| {
        let order = if key.descending { " DESC" } else { "" };
        // The default is NULLS LAST when ascending, NULLS FIRST when descending.
        let nulls = match (key.descending, key.nulls_first) {
            (false, true) => " NULLS FIRST",
            (true, false) => " NULLS LAST",
            _ => "",
        };
        format!("{}{order}{nulls}", names(&[key.column], input))
    });
    keys.collect::<Vec<_>>().join(", ")
}

fn write_properties(f: &mut String, properties: &Properties, schema: &Schema) -> fmt::Result {
    if properties.append_only {
        f.write_str(", append_only")?;
    }
    for key in &properties.unique_keys {
        write!(f, ", unique=({})", names(key, schema))?;
    }
    Ok(())
}

fn names(columns: &[usize], schema: &Schema) -> String {
    let name = |idx: &usize| schema.fields().get(*idx).map_or_else(|| format!("#{idx}"), |f| shown(f.name()));
    columns.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn all_names(schema: &Schema) -> String {
    schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// Names inside expressions, as users see them.
fn without_suffixes(text: &str) -> String {
    let mut parts = text.split('\u{1}');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_place = shown.ends_with('$');
        shown += if is_place { part } else { part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()) };
    }
    shown
}

/// Columns that only the dataflow has are shown by their place.
fn shown(name: &str) -> String {
    match name.split_once('\u{1}') {
        Some((start, _)) if start != "$" => start.to_owned(),
        Some((_, number)) => format!("${number}"),
        None => name.to_owned(),
    }
}

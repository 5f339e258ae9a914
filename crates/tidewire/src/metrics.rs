//! The engine's status as Prometheus text: `tidewire_<noun>_<unit>[_total]`, labels `source`, `split`, `view`, `operator`.
//!
//! Invariant: each metric has its HELP and TYPE once, before its samples, and label values are escaped; so any
//! Prometheus reads it. The format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write;

use tidewire_engine::{SourceState, SourceStatus, Status, ViewState, ViewStatus};

use crate::process::ProcessUse;

/// The whole text of `/metrics`.
pub fn render(status: &Status, process: Option<ProcessUse>) -> String {
    let mut page = Page::default();
    server(&mut page, status);
    sources(&mut page, &status.sources);
    views(&mut page, &status.views);
    operators(&mut page, &status.views);
    if let Some(process) = process {
        page.gauge("process_resident_memory_bytes", "Resident memory.").sample(&[], process.resident_bytes);
        page.counter("process_cpu_seconds_total", "CPU time, user and system.").sample(&[], process.cpu_seconds);
    }
    page.text
}

fn server(page: &mut Page, status: &Status) {
    page.gauge("tidewire_epoch_number", "The last published epoch.").sample(&[], status.epoch.0);
    page.counter("tidewire_epochs_total", "Epochs since the start.").sample(&[], status.n_epochs);
    page.counter("tidewire_input_rows_total", "Rows that entered epochs.").sample(&[], status.n_input_rows);
    page.counter("tidewire_step_seconds_total", "Time of the epoch loop in steps.")
        .sample(&[], seconds(status.step_ns));
    page.gauge("tidewire_state_bytes", "Bytes of all state.").sample(&[], status.state_bytes);
    page.counter("tidewire_dead_letters_total", "Dead letters since the start.").sample(&[], status.n_dead_letters);
    page.gauge("tidewire_subscriptions_open", "Open subscriptions.").sample(&[], status.n_subscriptions);
    let checkpoints = &status.checkpoints;
    page.counter("tidewire_checkpoints_total", "Checkpoints written.").sample(&[], checkpoints.n_written);
    page.counter("tidewire_checkpoints_failed_total", "Checkpoints that could not be written.")
        .sample(&[], checkpoints.n_failed);
    page.counter("tidewire_checkpoint_bytes_total", "Bytes written for checkpoints.").sample(&[], checkpoints.n_bytes);
    page.counter("tidewire_checkpoint_changed_bytes_total", "Bytes in memory of what had changed.")
        .sample(&[], checkpoints.n_changed_bytes);
    page.counter(
        "tidewire_checkpoint_write_seconds_total",
        "Time in which checkpoints were written, beside the epoch loop.",
    )
    .sample(&[], seconds(checkpoints.write_ns));
    page.counter("tidewire_checkpoint_pause_seconds_total", "Time that the epoch loop stood still for checkpoints.")
        .sample(&[], seconds(checkpoints.pause_ns));
    page.gauge("tidewire_checkpoint_pause_seconds_max", "The longest of these pauses since the start.")
        .sample(&[], seconds(checkpoints.pause_ns_max));
    page.gauge("tidewire_checkpoint_held_bytes", "Changes in memory that the next checkpoint will have.")
        .sample(&[], checkpoints.held_bytes);
    page.gauge("tidewire_checkpoint_behind", "1 while sources and writers wait, for so much waits for checkpoints.")
        .sample(&[], u64::from(checkpoints.is_behind));
}

fn sources(page: &mut Page, sources: &[SourceStatus]) {
    let mut counter = |name, help, value: fn(&SourceStatus) -> u64| {
        let mut metric = page.counter(name, help);
        for source in sources {
            metric.sample(&[("source", &source.name)], value(source));
        }
    };
    counter("tidewire_source_rows_total", "Records decoded.", |s| s.n_rows);
    counter("tidewire_source_bytes_total", "Bytes of records.", |s| s.n_bytes);
    counter("tidewire_source_bad_records_total", "Records that could not be decoded.", |s| s.n_bad_records);

    let mut state = page.gauge("tidewire_source_state", "1 for the state that the source is in.");
    for source in sources {
        let name = match source.state {
            SourceState::Idle => "idle",
            SourceState::Running => "running",
            SourceState::Retrying(_) => "retrying",
            SourceState::Failed(_) => "failed",
        };
        state.sample(&[("source", &source.name), ("state", name)], 1);
    }
    let splits = || sources.iter().flat_map(|source| source.splits.iter().map(move |split| (&source.name, split)));
    let mut position = page.gauge("tidewire_split_position", "Position of the next record that views will contain.");
    for (source, split) in splits() {
        position.sample(&[("source", source), ("split", &split.split.to_string())], split.position);
    }
    let mut lag = page.gauge("tidewire_split_lag_records", "Records that arrived and are in no view yet.");
    for (source, split) in splits() {
        if let Some(end) = split.end {
            let lag_records = end.saturating_sub(split.position).max(0);
            lag.sample(&[("source", source), ("split", &split.split.to_string())], lag_records);
        }
    }
}

fn views(page: &mut Page, views: &[ViewStatus]) {
    let mut rows = page.gauge("tidewire_view_rows", "Rows in the view.");
    views.iter().for_each(|view| rows.sample(&[("view", &view.name)], view.n_rows));
    let mut bytes = page.gauge("tidewire_view_state_bytes", "Bytes of the view's operators and content.");
    views.iter().for_each(|view| bytes.sample(&[("view", &view.name)], view.state_bytes));
    let mut state = page.gauge("tidewire_view_state", "1 for the state that the view is in.");
    for view in views {
        let name = match view.state {
            ViewState::Building { .. } => "building",
            ViewState::Running => "running",
            ViewState::Undefined => "undefined",
            ViewState::Failed(_) => "failed",
        };
        state.sample(&[("view", &view.name), ("state", name)], 1);
    }
}

fn operators(page: &mut Page, views: &[ViewStatus]) {
    // The label is the place in the dataflow: descriptions repeat within a view and may be long.
    let all = || {
        views
            .iter()
            .flat_map(|view| view.operators.iter().enumerate().map(move |(i, o)| (&view.name, i.to_string(), o)))
    };
    let mut input = page.counter("tidewire_operator_input_rows_total", "Rows that came into the operator.");
    all().for_each(|(view, place, o)| input.sample(&[("view", view), ("operator", &place)], o.n_input_rows));
    let mut output = page.counter("tidewire_operator_output_rows_total", "Rows that the operator gave out.");
    all().for_each(|(view, place, o)| output.sample(&[("view", view), ("operator", &place)], o.n_output_rows));
    let mut time = page.counter("tidewire_operator_step_seconds_total", "Time of the operator in steps.");
    all().for_each(|(view, place, o)| time.sample(&[("view", view), ("operator", &place)], seconds(o.step_ns)));
    let mut state = page.gauge("tidewire_operator_state_bytes", "Bytes of the operator's state.");
    all().for_each(|(view, place, o)| state.sample(&[("view", view), ("operator", &place)], o.state_bytes));
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn counter(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric(name, help, "counter")
    }

    fn gauge(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric(name, help, "gauge")
    }

    fn metric(&mut self, name: &'static str, help: &str, kind: &str) -> Metric<'_> {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Metric { name, text: &mut self.text }
    }
}

/// One metric, to which samples are added.
struct Metric<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Metric<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tidewire_engine::{OperatorStatus, SplitStatus, ViewOrigin};
    use tidewire_types::{Epoch, ObjectId};

    use super::*;

    fn status() -> Status {
        let split = |split, position, end| SplitStatus { split, position, end };
        let source = SourceStatus {
            id: ObjectId(16384),
            name: "odd \"name\"".to_owned(),
            state: SourceState::Retrying("away".to_owned()),
            n_rows: 7,
            n_bytes: 700,
            n_bad_records: 1,
            splits: vec![split(0, 5, Some(9)), split(1, 3, None)],
        };
        let operator = OperatorStatus { n_input_rows: 7, n_output_rows: 2, step_ns: 500, ..OperatorStatus::default() };
        let view = ViewStatus {
            id: ObjectId(16385),
            name: "v".to_owned(),
            state: ViewState::Running,
            origin: ViewOrigin::Created,
            n_rows: 2,
            state_bytes: 64,
            operators: vec![operator],
        };
        Status {
            epoch: Epoch(12),
            n_epochs: 12,
            n_input_rows: 7,
            step_ns: 2_500_000_000,
            sources: vec![source],
            views: vec![view],
            ..Status::default()
        }
    }

    #[test]
    fn a_status_becomes_prometheus_text() {
        let page = render(&status(), Some(ProcessUse { resident_bytes: 1024, cpu_seconds: 1.5 }));
        let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            tidewire_epoch_number 12
            tidewire_epochs_total 12
            tidewire_input_rows_total 7
            tidewire_step_seconds_total 2.5
            tidewire_state_bytes 0
            tidewire_dead_letters_total 0
            tidewire_subscriptions_open 0
            tidewire_checkpoints_total 0
            tidewire_checkpoints_failed_total 0
            tidewire_checkpoint_bytes_total 0
            tidewire_checkpoint_changed_bytes_total 0
            tidewire_checkpoint_write_seconds_total 0
            tidewire_checkpoint_pause_seconds_total 0
            tidewire_checkpoint_pause_seconds_max 0
            tidewire_checkpoint_held_bytes 0
            tidewire_checkpoint_behind 0
            tidewire_source_rows_total{source="odd \"name\""} 7
            tidewire_source_bytes_total{source="odd \"name\""} 700
            tidewire_source_bad_records_total{source="odd \"name\""} 1
            tidewire_source_state{source="odd \"name\"",state="retrying"} 1
            tidewire_split_position{source="odd \"name\"",split="0"} 5
            tidewire_split_position{source="odd \"name\"",split="1"} 3
            tidewire_split_lag_records{source="odd \"name\"",split="0"} 4
            tidewire_view_rows{view="v"} 2
            tidewire_view_state_bytes{view="v"} 64
            tidewire_view_state{view="v",state="running"} 1
            tidewire_operator_input_rows_total{view="v",operator="0"} 7
            tidewire_operator_output_rows_total{view="v",operator="0"} 2
            tidewire_operator_step_seconds_total{view="v",operator="0"} 0.0000005
            tidewire_operator_state_bytes{view="v",operator="0"} 0
            process_resident_memory_bytes 1024
            process_cpu_seconds_total 1.5"#]]
        .assert_eq(&samples.join("\n"));
    }

    #[test]
    fn each_metric_is_declared_once_and_before_its_samples() {
        let page = render(&status(), ProcessUse::now());
        let mut declared = vec![];
        for line in page.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(declaration) => declared.push(declaration.split(' ').next().unwrap()),
                None if line.starts_with('#') => {}
                None => assert_eq!(declared.last().copied(), line.split(['{', ' ']).next(), "{line}"),
            }
        }
        let n_declared = declared.len();
        declared.sort_unstable();
        declared.dedup();
        assert_eq!(declared.len(), n_declared);
    }
}

//! What each statement becomes, as small tables.

mod commands;
mod definitions;

use std::fmt::Write;

use expect_test::Expect;
use tidewire_sql::{Explain, Parsed, Statement, parse};

/// One line a statement; parts that sqlparser made are shown as it prints them.
fn line(parsed: &Parsed) -> String {
    match &parsed.statement {
        Statement::Query(q) => format!("Query {q}"),
        Statement::Subscribe(s) => format!("Subscribe {} options={:?} limit={:?}", s.query, s.options, s.limit),
        Statement::Insert(i) => format!("Insert {i}"),
        Statement::Update(u) => format!("Update {u}"),
        Statement::Delete(d) => format!("Delete {d}"),
        Statement::Copy(c) => format!("Copy {:?}\n  {}", c.options, within(&c.statement)),
        Statement::CreateTable(t) => {
            let mut out = format!("CreateTable {:?} if_not_exists={}", t.name, t.if_not_exists);
            t.columns.iter().for_each(|c| {
                let _ = write!(
                    out,
                    "\n  {} {} not_null={} default={:?} pk={} @{}",
                    c.name, c.sql_type, c.not_null, c.default, c.primary_key, c.position
                );
            });
            t.checks.iter().for_each(|c| {
                let _ = write!(out, "\n  check {:?}: {} \"{}\" @{}", c.name, c.condition, c.text, c.offset);
            });
            let query = t.query.as_ref().map(ToString::to_string);
            let _ = write!(out, "\n  primary_key={:?} options={:?} query={query:?}", t.primary_key, t.options);
            out
        }
        Statement::CreateSource(s) => {
            let mut out = format!("CreateSource {:?} if_not_exists={} stream={}", s.name, s.if_not_exists, s.stream);
            for c in s.columns.iter().flatten() {
                let _ = write!(out, "\n  {} {} not_null={} @{}", c.name, c.sql_type, c.not_null, c.position);
            }
            for i in &s.include {
                let _ = write!(out, "\n  include {} header={:?} as {:?} @{}", i.what, i.header, i.alias, i.position);
            }
            let _ = write!(out, "\n  options={:?}\n  format={:?}", s.options, s.format);
            out
        }
        Statement::CreateView(v) => format!(
            "CreateView {:?} materialized={} if_not_exists={} or_replace={} columns={:?} options={:?}\n  {:?} at {}",
            v.name, v.materialized, v.if_not_exists, v.or_replace, v.columns, v.options, v.query_text, v.query_offset
        ),
        Statement::Explain(Explain::Plan { statement, analyze, verbose }) => {
            format!("Explain analyze={analyze} verbose={verbose}\n  {}", within(statement))
        }
        Statement::Prepare { name, types, statement } => format!("Prepare {name} {types:?}\n  {}", within(statement)),
        Statement::Declare { name, hold, statement } => format!("Declare {name} hold={hold}\n  {}", within(statement)),
        Statement::Execute { name, args } => {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            format!("Execute {name} {args:?}")
        }
        other => format!("{other:?}"),
    }
}

fn within(parsed: &Parsed) -> String {
    format!("{:?} at {}: {}", parsed.text, parsed.offset, line(parsed))
}

fn check(text: &str, expected: Expect) {
    let actual = match parse(text) {
        Ok(statements) => statements.iter().map(|p| line(p) + "\n").collect(),
        Err(e) => {
            let mut out = format!("{} {} at {:?}\n", e.state().code(), e.message(), e.position());
            e.hint().into_iter().for_each(|hint| out += &format!("  {hint}\n"));
            out
        }
    };
    expected.assert_eq(&actual);
}

/// Each line of `text` by itself.
fn check_lines(text: &str, expected: Expect) {
    let mut out = String::new();
    for sql in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let result = match parse(sql) {
            Ok(statements) => statements.iter().map(line).collect::<Vec<_>>().join(" | "),
            Err(e) => format!(
                "{} {} at {:?}{}",
                e.state().code(),
                e.message(),
                e.position(),
                e.hint().map_or(String::new(), |h| format!(" ({h})"))
            ),
        };
        let _ = writeln!(out, "{sql}\n    {result}");
    }
    expected.assert_eq(&out);
}

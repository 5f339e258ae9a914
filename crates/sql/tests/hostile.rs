//! Text that nobody means well with: never a panic, never a stack overflow, never for long.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidewire_sql::parse;
use tidewire_types::SqlState;

/// Parses and drops, with a clone in between as planning makes one. The limit is far above what is needed, and far
/// below what an exponential parser takes.
fn parse_within(text: &str, limit: Duration) -> Result<(), SqlState> {
    let start = Instant::now();
    let result = parse(text).map(|p| drop(p.clone())).map_err(|e| e.state());
    assert!(start.elapsed() < limit, "{:?} for {}..", start.elapsed(), text.chars().take(80).collect::<String>());
    result
}

#[test]
fn nesting_is_refused_and_never_overflows() {
    let limit = Duration::from_secs(20);
    let nested =
        |open: &str, middle: &str, close: &str, n: usize| format!("{}{middle}{}", open.repeat(n), close.repeat(n));
    let shapes = [
        ("SELECT (", "1", ")", ""),
        ("(", "SELECT 1", ")", ""),
        ("f(", "1", ")", "SELECT "),
        ("(", "a", ")", "SELECT * FROM "),
        ("(SELECT * FROM ", "a", ")", "SELECT * FROM "),
        ("a IN (", "1", ")", "SELECT "),
        ("[", "1", "]", "SELECT "),
        ("ARRAY[", "1", "]", "SELECT "),
        ("{'a': ", "1", "}", "SELECT "),
        ("CASE WHEN a THEN ", "1", " END", "SELECT "),
        ("CASE ", "1", " WHEN 1 THEN 1 END", "SELECT "),
        ("NOT ", "a", "", "SELECT "),
        ("- ", "a", "", "SELECT "),
        ("INTERVAL ", "'1'", "", "SELECT "),
        ("EXISTS (SELECT ", "1", ")", "SELECT "),
        ("WITH a AS (", "SELECT 1", ") SELECT 1", ""),
        ("CAST(", "1", " AS int)", "SELECT "),
        ("struct<a ", "int", ">", "PREPARE p ("),
        ("array<", "int", ">", "PREPARE p ("),
        ("EXPLAIN ", "SELECT 1", "", ""),
        ("PREPARE p AS ", "SELECT 1", "", ""),
        ("a JOIN (", "b", ")", "SELECT * FROM "),
        ("a, LATERAL (SELECT * FROM ", "b", ") x", "SELECT * FROM "),
        ("SUBSCRIBE TO (", "SELECT 1", ")", ""),
        ("a = ANY(", "b", ")", "SELECT "),
        ("extract(year FROM ", "b", ")", "SELECT "),
        ("trim(", "b", ")", "SELECT "),
        ("substring(", "b", " from 1)", "SELECT "),
        ("x[", "1", "]", "SELECT "),
        ("(a.b.c(", "1", "))", "SELECT "),
        ("count(*) FILTER (WHERE ", "a", ")", "SELECT "),
        ("sum(a) OVER (ORDER BY ", "a", ")", "SELECT "),
        ("a BETWEEN ", "1", " AND 2", "SELECT "),
    ];
    for (open, middle, close, before) in shapes {
        for n in [10, 30, 60, 10_000] {
            let text = format!("{before}{}", nested(open, middle, close, n));

            let result = parse_within(&text, limit);
            assert!(n < 10_000 || result.is_err(), "{open} {n} times was accepted");
        }
    }
    let deep = format!("SELECT {}", nested("(", "1", ")", 10_000));
    assert_eq!(parse_within(&deep, limit), Err(SqlState::StatementTooComplex));
    assert_eq!(parse_within(&format!("SELECT {}", nested("(", "1", ")", 60)), limit), Ok(()));
}

#[test]
fn chains_of_operators_never_overflow() {
    let limit = Duration::from_secs(20);
    let chain = |term: &str, operator: &str, n: usize| format!("SELECT {}", vec![term; n].join(operator));
    for operator in
        [" + ", " || ", " = ", " -> ", " IS DISTINCT FROM ", " AT TIME ZONE ", " LIKE ", " ^ ", " UNION SELECT "]
    {
        assert_eq!(
            parse_within(&chain("a", operator, 20_000), limit),
            Err(SqlState::StatementTooComplex),
            "{operator}"
        );

        let _ = parse_within(&chain("a", operator, 250), limit);
    }
    for suffix in
        ["::int", "[1]", " IS NULL", " COLLATE c", ".a", " NOTNULL", " IN (1)", " BETWEEN 1 AND 2", "[]", " NOT NULL"]
    {
        let _ = parse_within(&format!("SELECT a{}", suffix.repeat(20_000)), limit);
    }
    assert_eq!(
        parse_within(&format!("PREPARE p (int{}) AS SELECT 1", "[1]".repeat(20_000)), limit),
        Err(SqlState::StatementTooComplex)
    );
    // Programs write these.
    assert_eq!(parse_within(&chain("a = 1", " OR ", 20_000), limit), Ok(()));
    assert_eq!(parse_within(&chain("a = 1", " AND ", 20_000), limit), Ok(()));
    assert_eq!(parse_within(&chain("a", " UNION ALL SELECT ", 95), limit), Ok(()));
    assert_eq!(parse_within(&format!("SELECT * FROM t WHERE a IN ({})", vec!["1"; 50_000].join(",")), limit), Ok(()));
    assert_eq!(
        parse_within(&format!("INSERT INTO t VALUES {}", vec!["(1, 'a', -2.5, NULL)"; 10_000].join(",")), limit),
        Ok(())
    );
}

/// Chains whose first term is a bracket with a chain: as deep as what is accepted can be.
#[test]
fn chains_within_chains_never_overflow() {
    for (n_levels, n_terms) in [(2, 190), (4, 90), (10, 35), (40, 8), (95, 2), (95, 60), (30, 150)] {
        for (open, close) in
            [("(", ")"), ("f(", ")"), ("ARRAY[", "]"), ("(SELECT ", ")"), ("CASE WHEN ", " THEN 1 END")]
        {
            for operator in [" + a", " -> 'x'", " IS NULL", "::int", " BETWEEN 1 AND 2", " OR a", " IN (1)"] {
                let mut text = "a".to_string();
                for _ in 0..n_levels {
                    text = format!("{open}{text}{}{close}", operator.repeat(n_terms));
                }

                let _ = parse_within(&format!("SELECT {text}"), Duration::from_secs(20));
                let _ = parse_within(&format!("SELECT * FROM t WHERE {text} GROUP BY {text}"), Duration::from_secs(20));
            }
        }
    }
    for n in [20, 40, 60, 95] {
        let _ = parse_within(&format!("SELECT {}", vec!["a"; n].join(" UNION SELECT ")), Duration::from_secs(20));
        let within = format!("SELECT * FROM ({}) x", vec!["SELECT a"; n / 4].join(" UNION "));
        let _ = parse_within(&vec![within.as_str(); n / 2].join(" UNION "), Duration::from_secs(20));
    }
}

#[test]
fn a_long_chain_means_what_it_says() {
    let text = (0..1000).map(|n| format!("a = {n}")).collect::<Vec<_>>().join(" OR ");
    let parsed = parse(&format!("SELECT {text}")).unwrap();
    let shown = format!("{:?}", parsed[0].statement);
    let places: Vec<usize> = (0..1000).map(|n| shown.find(&format!("Number(\"{n}\"")).unwrap()).collect();
    assert!(places.is_sorted());
}

fn token() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "SELECT",
        "FROM",
        "WHERE",
        "a",
        "b",
        "\"C\"",
        "1",
        "2.5e3",
        "'x'",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        ";",
        "*",
        "+",
        "-",
        "<",
        ">",
        ">>",
        "=",
        "::",
        ":",
        "AND",
        "OR",
        "NOT",
        "IS",
        "DISTINCT",
        "NULL",
        "IN",
        "BETWEEN",
        "CASE",
        "WHEN",
        "THEN",
        "END",
        "CREATE",
        "TABLE",
        "SOURCE",
        "STREAM",
        "MATERIALIZED",
        "VIEW",
        "AS",
        "WITH",
        "int",
        "STRUCT",
        "ARRAY",
        "PRIMARY",
        "KEY",
        "DEFAULT",
        "INCLUDE",
        "header",
        "FORMAT",
        "PLAIN",
        "ENCODE",
        "JSON",
        "INSERT",
        "INTO",
        "VALUES",
        "UPDATE",
        "SET",
        "DELETE",
        "RETURNING",
        "ON",
        "CONFLICT",
        "DO",
        "EMIT",
        "CHANGES",
        "LIMIT",
        "SUBSCRIBE",
        "TO",
        "EXPLAIN",
        "ANALYZE",
        "SHOW",
        "ALL",
        "DROP",
        "CASCADE",
        "IF",
        "EXISTS",
        "DECLARE",
        "CURSOR",
        "FOR",
        "FETCH",
        "NEXT",
        "CLOSE",
        "PREPARE",
        "EXECUTE",
        "BEGIN",
        "COPY",
        "STDIN",
        "STDOUT",
        "CSV",
        "TRUNCATE",
        "RESET",
        "TIME",
        "ZONE",
        "INTERVAL",
        "JOIN",
        "LEFT",
        "USING",
        "GROUP",
        "BY",
        "HAVING",
        "ORDER",
        "UNION",
        "OVER",
        "PARTITION",
        "$1",
        "$$q$$",
        "--c\n",
        "/*c*/",
        "é",
        "\n",
        "LATERAL",
        "UNNEST",
        "date",
        "EXTRACT",
        "TRIM",
        "CAST",
        "FILTER",
        "ROLLUP",
        "->",
        "@>",
        "~",
        "!",
        "&",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn token_soup_is_parsed_or_refused(tokens in proptest::collection::vec(token(), 0..60)) {
        let text = tokens.join(" ");
        let n_chars = text.chars().count();
        match parse(&text) {
            Ok(statements) => for p in statements {
                let at: String = text.chars().skip(p.offset).take(p.text.chars().count()).collect();
                prop_assert_eq!(at, p.text);
            },
            Err(e) => prop_assert!(e.position().is_none_or(|p| (1..=n_chars + 1).contains(&p)), "{:?}", e),
        }
    }

    #[test]
    fn a_statement_with_a_hole_is_parsed_or_refused(start in 0_usize..40, text in proptest::sample::select(vec![
        "CREATE SOURCE s (id BIGINT, b STRUCT<n TEXT, c TEXT>) INCLUDE key AS k WITH (connector = 'kafka', a.b = 1) FORMAT PLAIN ENCODE JSON (x = 'y')",
        "CREATE TABLE IF NOT EXISTS a.t (id INT PRIMARY KEY, b TEXT[] NOT NULL DEFAULT '{}', PRIMARY KEY (id)) WITH (x = 1)",
        "CREATE OR REPLACE MATERIALIZED VIEW v (a, b) WITH (x = 1) AS WITH q AS (SELECT 1) SELECT * FROM q LEFT JOIN r ON q.a IS NOT DISTINCT FROM r.a AND true",
        "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SUBSCRIBE TO (SELECT a FROM b) WITH (snapshot = false)",
        "FETCH FORWARD 10 FROM c WITH (timeout = '1s')",
        "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = excluded.a WHERE t.a > 1 RETURNING *",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY",
    ]), with in token()) {
        let mut words: Vec<&str> = text.split_inclusive(' ').collect();
        let hole = start % words.len();
        words[hole] = with;
        let _ = parse(&words.join(""));
        words.truncate(hole);
        let _ = parse(&words.join(""));
    }

    #[test]
    fn any_characters_are_parsed_or_refused(text in "\\PC*") {
        let _ = parse(&text);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }
}

//! All other statements, and errors.

use expect_test::expect;

use super::*;

#[test]
fn several_statements_keep_their_text_and_place() {
    let parsed = parse(" SELECT 1 ; -- é\n /* x */ select 'a;b'  ;;\n\tFLUSH").unwrap();
    let places: Vec<_> = parsed.iter().map(|p| (p.text.as_str(), p.offset)).collect();
    assert_eq!(places, [("SELECT 1", 1), ("select 'a;b'", 26), ("FLUSH", 44)]);
    assert!(matches!(parse(" ; -- nothing\n").unwrap().as_slice(), [Parsed { statement: Statement::Empty, .. }]));
}

#[test]
fn emit_and_subscribe() {
    check_lines(
        "SELECT * FROM per_country EMIT CHANGES
         SELECT a emit FROM t emit
         SELECT a, count(*) FROM t x WHERE b GROUP BY a HAVING true ORDER BY a LIMIT 3 EMIT CHANGES LIMIT 5 WITH (snapshot = false)
         SELECT 1 UNION ALL SELECT 2 EMIT CHANGES
         SELECT * FROM a JOIN b EMIT CHANGES
         SELECT * FROM a JOIN b USING (x) emit changes
         SELECT 1 EMIT CHANGES
         SELECT * FROM t EMIT ON WINDOW CLOSE
         SELECT * FROM t EMIT
         SUBSCRIBE TO big
         SUBSCRIBE public.\"Big\" WITH (SNAPSHOT = false, progress)
         SUBSCRIBE (SELECT a FROM b) WITH (snapshot)
         SUBSCRIBE TO (WITH x AS (SELECT 1) SELECT * FROM x)
         SUBSCRIBE SELECT 1
         SUBSCRIBE
         SUBSCRIBE TO big, small",
        expect![[r#"
            SELECT * FROM per_country EMIT CHANGES
                Subscribe SELECT * FROM per_country options=[] limit=None
            SELECT a emit FROM t emit
                Query SELECT a AS emit FROM t emit
            SELECT a, count(*) FROM t x WHERE b GROUP BY a HAVING true ORDER BY a LIMIT 3 EMIT CHANGES LIMIT 5 WITH (snapshot = false)
                Subscribe SELECT a, count(*) FROM t x WHERE b GROUP BY a HAVING true ORDER BY a LIMIT 3 options=[("snapshot", "false")] limit=Some(5)
            SELECT 1 UNION ALL SELECT 2 EMIT CHANGES
                Subscribe SELECT 1 UNION ALL SELECT 2 options=[] limit=None
            SELECT * FROM a JOIN b EMIT CHANGES
                Subscribe SELECT * FROM a JOIN b options=[] limit=None
            SELECT * FROM a JOIN b USING (x) emit changes
                Subscribe SELECT * FROM a JOIN b USING(x) options=[] limit=None
            SELECT 1 EMIT CHANGES
                Subscribe SELECT 1 options=[] limit=None
            SELECT * FROM t EMIT ON WINDOW CLOSE
                0A000 EMIT ON WINDOW CLOSE is not supported at Some(17)
            SELECT * FROM t EMIT
                Query SELECT * FROM t EMIT
            SUBSCRIBE TO big
                Subscribe SELECT * FROM big options=[] limit=None
            SUBSCRIBE public."Big" WITH (SNAPSHOT = false, progress)
                Subscribe SELECT * FROM public."Big" options=[("snapshot", "false"), ("progress", "true")] limit=None
            SUBSCRIBE (SELECT a FROM b) WITH (snapshot)
                Subscribe (SELECT a FROM b) options=[("snapshot", "true")] limit=None
            SUBSCRIBE TO (WITH x AS (SELECT 1) SELECT * FROM x)
                Subscribe (WITH x AS (SELECT 1) SELECT * FROM x) options=[] limit=None
            SUBSCRIBE SELECT 1
                Subscribe SELECT 1 options=[] limit=None
            SUBSCRIBE
                42601 syntax error at end of input at Some(10)
            SUBSCRIBE TO big, small
                42601 syntax error at or near "," at Some(17)
        "#]],
    );
}

#[test]
fn queries() {
    check_lines(
        "SELECT a IS NOT DISTINCT FROM b AND c, a is distinct from b or c
         SELECT 'a' || b -> 'c' ->> 'd' #> '{e}', x::jsonb @> y, -2 ^ 2
         TABLE t
         VALUES (1, 'a'), (2, 'b')
         (SELECT 1) UNION (SELECT 2)
         WITH x AS (SELECT 1) SELECT * FROM x
         SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC NULLS LAST
         SELECT sum(x) FILTER (WHERE y), row_number() OVER (PARTITION BY a ORDER BY b) FROM t QUALIFY 1 = 1
         SELECT struct(1 AS a), {'b': 2}, [1, 2], ARRAY[3]
         SELECT * EXCLUDE (a) FROM t
         SELECT \"A\"\"b\", E'\\n', U&'\\0041', $$x$$, $1 FROM \"T\"
         SELECT 'a'::uuid, CAST(b AS STRUCT<x INT>), date '2026-01-01', interval '1 day', timestamptz '2026-01-01'
         SELECT * INTO x FROM t
         WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x
         SELECT x FROM t WHERE a IN (SELECT 1) AND EXISTS (SELECT 1) AND b NOT BETWEEN 1 AND 2 AND c NOTNULL",
        expect![[r#"
            SELECT a IS NOT DISTINCT FROM b AND c, a is distinct from b or c
                Query SELECT a IS NOT DISTINCT FROM b AND c, a IS DISTINCT FROM b OR c
            SELECT 'a' || b -> 'c' ->> 'd' #> '{e}', x::jsonb @> y, -2 ^ 2
                Query SELECT 'a' || b -> 'c' ->> 'd' #> '{e}', x::JSONB @> y, -2 ^ 2
            TABLE t
                Query SELECT * FROM t
            VALUES (1, 'a'), (2, 'b')
                Query VALUES (1, 'a'), (2, 'b')
            (SELECT 1) UNION (SELECT 2)
                Query (SELECT 1) UNION (SELECT 2)
            WITH x AS (SELECT 1) SELECT * FROM x
                Query WITH x AS (SELECT 1) SELECT * FROM x
            SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC NULLS LAST
                Query SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC NULLS LAST
            SELECT sum(x) FILTER (WHERE y), row_number() OVER (PARTITION BY a ORDER BY b) FROM t QUALIFY 1 = 1
                Query SELECT sum(x) FILTER (WHERE y), row_number() OVER (PARTITION BY a ORDER BY b) FROM t QUALIFY 1 = 1
            SELECT struct(1 AS a), {'b': 2}, [1, 2], ARRAY[3]
                Query SELECT STRUCT(1 AS a), {'b': 2}, [1, 2], ARRAY[3]
            SELECT * EXCLUDE (a) FROM t
                Query SELECT * EXCLUDE (a) FROM t
            SELECT "A""b", E'\n', U&'\0041', $$x$$, $1 FROM "T"
                Query SELECT "A""b", E'\n', U&'A', $$x$$, $1 FROM "T"
            SELECT 'a'::uuid, CAST(b AS STRUCT<x INT>), date '2026-01-01', interval '1 day', timestamptz '2026-01-01'
                Query SELECT 'a'::UUID, CAST(b AS STRUCT<x INT>), DATE '2026-01-01', INTERVAL '1 day', TIMESTAMPTZ '2026-01-01'
            SELECT * INTO x FROM t
                Unsupported("SELECT INTO")
            WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x
                Insert INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x
            SELECT x FROM t WHERE a IN (SELECT 1) AND EXISTS (SELECT 1) AND b NOT BETWEEN 1 AND 2 AND c NOTNULL
                Query SELECT x FROM t WHERE a IN (SELECT 1) AND EXISTS (SELECT 1) AND b NOT BETWEEN 1 AND 2 AND c IS NOT NULL
        "#]],
    );
}

#[test]
fn dml() {
    check_lines(
        "INSERT INTO accounts VALUES ('a', 'NL', DEFAULT), ('b', 'DE', '2026-01-01')
         INSERT INTO t (a, b) SELECT 1, 2 RETURNING *
         INSERT INTO t AS x (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE x.b > 1 RETURNING a AS z
         INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING
         INSERT INTO t DEFAULT VALUES
         UPDATE t SET a = 1, b = DEFAULT FROM u WHERE t.id = u.id RETURNING t.*
         DELETE FROM t USING u WHERE t.id = u.id RETURNING *
         DELETE FROM t
         TRUNCATE a, b.c CASCADE
         TRUNCATE TABLE ONLY a RESTART IDENTITY
         INSERT INTO t
         UPDATE t a = 1",
        expect![[r#"
            INSERT INTO accounts VALUES ('a', 'NL', DEFAULT), ('b', 'DE', '2026-01-01')
                Insert INSERT INTO accounts VALUES ('a', 'NL', DEFAULT), ('b', 'DE', '2026-01-01')
            INSERT INTO t (a, b) SELECT 1, 2 RETURNING *
                Insert INSERT INTO t (a, b) SELECT 1, 2 RETURNING *
            INSERT INTO t AS x (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE x.b > 1 RETURNING a AS z
                Insert INSERT INTO t AS x (a) VALUES (1) ON CONFLICT(a) DO UPDATE SET b = excluded.b WHERE x.b > 1 RETURNING a AS z
            INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING
                Insert INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING
            INSERT INTO t DEFAULT VALUES
                Insert INSERT INTO t DEFAULT VALUES
            UPDATE t SET a = 1, b = DEFAULT FROM u WHERE t.id = u.id RETURNING t.*
                Update UPDATE t SET a = 1, b = DEFAULT FROM u WHERE t.id = u.id RETURNING t.*
            DELETE FROM t USING u WHERE t.id = u.id RETURNING *
                Delete DELETE FROM t USING u WHERE t.id = u.id RETURNING *
            DELETE FROM t
                Delete DELETE FROM t
            TRUNCATE a, b.c CASCADE
                Truncate([ObjectName { schema: None, name: "a", position: 10 }, ObjectName { schema: Some("b"), name: "c", position: 13 }])
            TRUNCATE TABLE ONLY a RESTART IDENTITY
                Truncate([ObjectName { schema: None, name: "a", position: 21 }])
            INSERT INTO t
                42601 syntax error at end of input at Some(14)
            UPDATE t a = 1
                42601 syntax error at or near "=" at Some(12)
        "#]],
    );
}

#[test]
fn copy() {
    check_lines(
        "COPY t TO STDOUT
         COPY s.t (a, \"B c\") TO STDOUT WITH CSV HEADER DELIMITER ';' NULL AS 'none' QUOTE '''' ESCAPE AS '!'
         COPY (SUBSCRIBE TO v WITH (snapshot = false)) TO STDOUT (FORMAT csv, HEADER off, DELIMITER E'\\t', NULL '-')
         COPY (SELECT (1) EMIT CHANGES LIMIT 3) TO STDOUT DELIMITER '|'
         COPY ( TABLE t ) TO STDOUT WITH (HEADER, ENCODING 'UTF8')
         COPY t FROM STDIN
         COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER)
         COPY s.t (a, \"B c\") FROM STDIN CSV FORCE NOT NULL a FORCE NULL \"B c\" HEADER WHERE a > 1
         COPY t FROM STDIN (FORMAT csv, HEADER match, DEFAULT 'd', FORCE_NULL (a, b), FORCE_NOT_NULL (c))
         COPY t FROM STDIN (DEFAULT 'd', NULL 'd')
         COPY t FROM STDIN (FORCE_NULL (a))
         COPY t FROM STDIN (FORMAT csv, FORCE_NULL a)
         COPY t (a, a) FROM STDIN
         COPY t FROM '/etc/passwd'
         COPY t FROM PROGRAM 'true'
         COPY t FROM STDOUT
         COPY t TO STDOUT (DEFAULT 'd')
         COPY t TO STDOUT (FORMAT csv, FORCE_NULL (a))
         COPY t TO '/etc/passwd'
         COPY t TO PROGRAM 'true'
         COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT
         COPY (SELECT 1) TO STDOUT (FORMAT binary)
         COPY t TO STDOUT BINARY
         COPY t TO STDOUT (FORMAT parquet)
         COPY t TO STDOUT (FORMAT)
         COPY t TO STDOUT (FORCE_QUOTE *)
         COPY t TO STDOUT (HEADER, HEADER)
         COPY t TO STDOUT (FREEZE)
         COPY t TO STDOUT (DELIMITER '||')
         COPY t TO STDOUT (DELIMITER 'a')
         COPY t TO STDOUT (QUOTE 'a')
         COPY t TO STDOUT CSV DELIMITER '\"'
         COPY t TO STDOUT CSV NULL 'a,b'
         COPY t (a, a) TO STDOUT
         COPY (SELECT 1) FROM STDIN
         COPY (SELECT 1 +) TO STDOUT
         COPY () TO STDOUT
         COPY (SHOW TABLES) TO STDOUT
         COPY (SELECT 1 TO STDOUT
         COPY t TO
         COPY t TO STDOUT HEADERS
         COPY",
        expect![[r#"
            COPY t TO STDOUT
                Copy CopyOptions { format: Text, header: false, delimiter: 9, null: "\\N", quote: 34, escape: 34 }
              "COPY t TO STDOUT" at 0: Query SELECT * FROM t
            COPY s.t (a, "B c") TO STDOUT WITH CSV HEADER DELIMITER ';' NULL AS 'none' QUOTE '''' ESCAPE AS '!'
                Copy CopyOptions { format: Csv, header: true, delimiter: 59, null: "none", quote: 39, escape: 33 }
              "COPY s.t (a, \"B c\") TO STDOUT WITH CSV HEADER DELIMITER ';' NULL AS 'none' QUOTE '''' ESCAPE AS '!'" at 0: Query SELECT a, "B c" FROM s.t
            COPY (SUBSCRIBE TO v WITH (snapshot = false)) TO STDOUT (FORMAT csv, HEADER off, DELIMITER E'\t', NULL '-')
                Copy CopyOptions { format: Csv, header: false, delimiter: 9, null: "-", quote: 34, escape: 34 }
              "SUBSCRIBE TO v WITH (snapshot = false)" at 6: Subscribe SELECT * FROM v options=[("snapshot", "false")] limit=None
            COPY (SELECT (1) EMIT CHANGES LIMIT 3) TO STDOUT DELIMITER '|'
                Copy CopyOptions { format: Text, header: false, delimiter: 124, null: "\\N", quote: 34, escape: 34 }
              "SELECT (1) EMIT CHANGES LIMIT 3" at 6: Subscribe SELECT (1) options=[] limit=Some(3)
            COPY ( TABLE t ) TO STDOUT WITH (HEADER, ENCODING 'UTF8')
                Copy CopyOptions { format: Text, header: true, delimiter: 9, null: "\\N", quote: 34, escape: 34 }
              "TABLE t" at 7: Query SELECT * FROM t
            COPY t FROM STDIN
                CopyFrom(CopyFrom { table: ObjectName { schema: None, name: "t", position: 6 }, columns: [], options: CopyOptions { format: Text, header: false, delimiter: 9, null: "\\N", quote: 34, escape: 34 }, header_match: false, default: None, force_not_null: [], force_null: [], condition: None })
            COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER)
                CopyFrom(CopyFrom { table: ObjectName { schema: None, name: "t", position: 6 }, columns: [NamedColumn { name: "a", position: 9 }, NamedColumn { name: "b", position: 12 }], options: CopyOptions { format: Csv, header: true, delimiter: 44, null: "", quote: 34, escape: 34 }, header_match: false, default: None, force_not_null: [], force_null: [], condition: None })
            COPY s.t (a, "B c") FROM STDIN CSV FORCE NOT NULL a FORCE NULL "B c" HEADER WHERE a > 1
                CopyFrom(CopyFrom { table: ObjectName { schema: Some("s"), name: "t", position: 6 }, columns: [NamedColumn { name: "a", position: 11 }, NamedColumn { name: "B c", position: 14 }], options: CopyOptions { format: Csv, header: true, delimiter: 44, null: "", quote: 34, escape: 34 }, header_match: false, default: None, force_not_null: [NamedColumn { name: "a", position: 51 }], force_null: [NamedColumn { name: "B c", position: 64 }], condition: Some(BinaryOp { left: Identifier(Ident { value: "a", quote_style: None, span: Span(Location(1,83)..Location(1,84)) }), op: Gt, right: Value(ValueWithSpan { value: Number("1", false), span: Span(Location(1,87)..Location(1,88)) }) }) })
            COPY t FROM STDIN (FORMAT csv, HEADER match, DEFAULT 'd', FORCE_NULL (a, b), FORCE_NOT_NULL (c))
                CopyFrom(CopyFrom { table: ObjectName { schema: None, name: "t", position: 6 }, columns: [], options: CopyOptions { format: Csv, header: true, delimiter: 44, null: "", quote: 34, escape: 34 }, header_match: true, default: Some("d"), force_not_null: [NamedColumn { name: "c", position: 94 }], force_null: [NamedColumn { name: "a", position: 71 }, NamedColumn { name: "b", position: 74 }], condition: None })
            COPY t FROM STDIN (DEFAULT 'd', NULL 'd')
                22023 NULL specification and DEFAULT specification cannot be the same at None
            COPY t FROM STDIN (FORCE_NULL (a))
                0A000 COPY FORCE_NULL requires CSV mode at None
            COPY t FROM STDIN (FORMAT csv, FORCE_NULL a)
                22023 argument to option "force_null" must be a list of column names at Some(32)
            COPY t (a, a) FROM STDIN
                42701 column "a" specified more than once at Some(12)
            COPY t FROM '/etc/passwd'
                0A000 COPY from a file or program of the server is not supported at Some(13) (Use COPY .. FROM STDIN, or psql's \copy.)
            COPY t FROM PROGRAM 'true'
                0A000 COPY from a file or program of the server is not supported at Some(13) (Use COPY .. FROM STDIN, or psql's \copy.)
            COPY t FROM STDOUT
                42601 syntax error at or near "STDOUT" at Some(13)
            COPY t TO STDOUT (DEFAULT 'd')
                0A000 COPY DEFAULT cannot be used with COPY TO at None
            COPY t TO STDOUT (FORMAT csv, FORCE_NULL (a))
                0A000 COPY FORCE_NULL cannot be used with COPY TO at None
            COPY t TO '/etc/passwd'
                0A000 COPY to a file or program of the server is not supported at Some(11) (Use COPY .. TO STDOUT, or psql's \copy.)
            COPY t TO PROGRAM 'true'
                0A000 COPY to a file or program of the server is not supported at Some(11) (Use COPY .. TO STDOUT, or psql's \copy.)
            COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT
                0A000 COPY of what a statement returns that writes is not supported at Some(7)
            COPY (SELECT 1) TO STDOUT (FORMAT binary)
                0A000 COPY in binary format is not supported at Some(28) (There are the formats text and csv.)
            COPY t TO STDOUT BINARY
                0A000 COPY in binary format is not supported at Some(18) (There are the formats text and csv.)
            COPY t TO STDOUT (FORMAT parquet)
                22023 COPY format "parquet" not recognized at Some(19)
            COPY t TO STDOUT (FORMAT)
                42601 format requires a parameter at Some(19)
            COPY t TO STDOUT (FORCE_QUOTE *)
                0A000 COPY with FORCE QUOTE is not supported at Some(19)
            COPY t TO STDOUT (HEADER, HEADER)
                42601 conflicting or redundant options at Some(27)
            COPY t TO STDOUT (FREEZE)
                0A000 COPY with FREEZE is not supported at Some(19)
            COPY t TO STDOUT (DELIMITER '||')
                0A000 COPY delimiter must be a single one-byte character at Some(19)
            COPY t TO STDOUT (DELIMITER 'a')
                22023 COPY delimiter cannot be "a" at None
            COPY t TO STDOUT (QUOTE 'a')
                0A000 COPY QUOTE requires CSV mode at None
            COPY t TO STDOUT CSV DELIMITER '"'
                22023 COPY delimiter and quote must be different at None
            COPY t TO STDOUT CSV NULL 'a,b'
                22023 COPY delimiter character must not appear in the NULL specification at None
            COPY t (a, a) TO STDOUT
                42701 column "a" specified more than once at Some(12)
            COPY (SELECT 1) FROM STDIN
                42601 syntax error at or near "FROM" at Some(17)
            COPY (SELECT 1 +) TO STDOUT
                42601 syntax error at or near ")" at Some(17)
            COPY () TO STDOUT
                42601 syntax error at or near ")" at Some(7)
            COPY (SHOW TABLES) TO STDOUT
                42601 syntax error at or near "SHOW" at Some(7)
            COPY (SELECT 1 TO STDOUT
                42601 syntax error at end of input at Some(25)
            COPY t TO
                42601 syntax error at end of input at Some(10)
            COPY t TO STDOUT HEADERS
                42601 syntax error at or near "HEADERS" at Some(18)
            COPY
                42601 syntax error at end of input at Some(5)
        "#]],
    );
}

#[test]
fn drop_show_explain() {
    check_lines(
        "DROP MATERIALIZED VIEW per_country
         DROP STREAM IF EXISTS a, b.c CASCADE
         DROP TABLE t RESTRICT
         DROP FUNCTION f
         DROP OWNED BY x
         DROP TABLE
         DROP
         SHOW STREAMS
         SHOW SOURCES
         SHOW TABLES
         SHOW VIEWS
         SHOW MATERIALIZED VIEWS
         SHOW JOBS
         SHOW COLUMNS FROM t
         SHOW CREATE MATERIALIZED VIEW big
         SHOW CREATE TABLE public.t
         SHOW ALL
         SHOW DateStyle
         SHOW a.b
         SHOW TIME ZONE
         SHOW TRANSACTION ISOLATION LEVEL
         SHOW
         DESCRIBE t
         DESC public.t
         EXPLAIN SELECT 1
         EXPLAIN ANALYZE VERBOSE SELECT 1
         EXPLAIN (ANALYZE, VERBOSE off, COSTS false) SELECT 1
         EXPLAIN (SELECT 1)
         EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1
         EXPLAIN MATERIALIZED VIEW v
         EXPLAIN ANALYZE MATERIALIZED VIEW a.v
         EXPLAIN FLUSH
         EXPLAIN EXPLAIN SELECT 1
         EXPLAIN",
        expect![[r#"
            DROP MATERIALIZED VIEW per_country
                Drop(Drop { kind: MaterializedView, names: [ObjectName { schema: None, name: "per_country", position: 24 }], if_exists: false, cascade: false })
            DROP STREAM IF EXISTS a, b.c CASCADE
                Drop(Drop { kind: Source, names: [ObjectName { schema: None, name: "a", position: 23 }, ObjectName { schema: Some("b"), name: "c", position: 26 }], if_exists: true, cascade: true })
            DROP TABLE t RESTRICT
                Drop(Drop { kind: Table, names: [ObjectName { schema: None, name: "t", position: 12 }], if_exists: false, cascade: false })
            DROP FUNCTION f
                Unsupported("DROP FUNCTION")
            DROP OWNED BY x
                Unsupported("DROP OWNED")
            DROP TABLE
                42601 syntax error at end of input at Some(11)
            DROP
                42601 syntax error at end of input at Some(5)
            SHOW STREAMS
                Show(Sources)
            SHOW SOURCES
                Show(Sources)
            SHOW TABLES
                Show(Tables)
            SHOW VIEWS
                Show(Views)
            SHOW MATERIALIZED VIEWS
                Show(MaterializedViews)
            SHOW JOBS
                Show(Jobs)
            SHOW COLUMNS FROM t
                Show(Columns(ObjectName { schema: None, name: "t", position: 19 }))
            SHOW CREATE MATERIALIZED VIEW big
                Show(Create(MaterializedView, ObjectName { schema: None, name: "big", position: 31 }))
            SHOW CREATE TABLE public.t
                Show(Create(Table, ObjectName { schema: Some("public"), name: "t", position: 19 }))
            SHOW ALL
                ShowSetting("all")
            SHOW DateStyle
                ShowSetting("datestyle")
            SHOW a.b
                ShowSetting("a.b")
            SHOW TIME ZONE
                ShowSetting("timezone")
            SHOW TRANSACTION ISOLATION LEVEL
                ShowSetting("transaction_isolation")
            SHOW
                42601 syntax error at end of input at Some(5)
            DESCRIBE t
                Show(Columns(ObjectName { schema: None, name: "t", position: 10 }))
            DESC public.t
                Show(Columns(ObjectName { schema: Some("public"), name: "t", position: 6 }))
            EXPLAIN SELECT 1
                Explain analyze=false verbose=false
              "SELECT 1" at 8: Query SELECT 1
            EXPLAIN ANALYZE VERBOSE SELECT 1
                Explain analyze=true verbose=true
              "SELECT 1" at 24: Query SELECT 1
            EXPLAIN (ANALYZE, VERBOSE off, COSTS false) SELECT 1
                Explain analyze=true verbose=false
              "SELECT 1" at 44: Query SELECT 1
            EXPLAIN (SELECT 1)
                Explain analyze=false verbose=false
              "(SELECT 1)" at 8: Query (SELECT 1)
            EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT 1
                Explain analyze=false verbose=false
              "CREATE MATERIALIZED VIEW v AS SELECT 1" at 8: CreateView ObjectName { schema: None, name: "v", position: 26 } materialized=true if_not_exists=false or_replace=false columns=[] options=[]
              "SELECT 1" at 30
            EXPLAIN MATERIALIZED VIEW v
                Explain(MaterializedView { name: ObjectName { schema: None, name: "v", position: 27 }, analyze: false })
            EXPLAIN ANALYZE MATERIALIZED VIEW a.v
                Explain(MaterializedView { name: ObjectName { schema: Some("a"), name: "v", position: 35 }, analyze: true })
            EXPLAIN FLUSH
                0A000 EXPLAIN of this kind of statement is not supported at Some(9)
            EXPLAIN EXPLAIN SELECT 1
                0A000 EXPLAIN of this kind of statement is not supported at Some(9)
            EXPLAIN
                42601 syntax error at end of input at Some(8)
        "#]],
    );
}

#[test]
fn session() {
    check_lines(
        "SET search_path TO a, \"B\", 'c'
         SET SESSION statement_timeout = 1000
         SET LOCAL a.b = -1.5
         SET extra_float_digits = DEFAULT
         SET TIME ZONE 'Europe/Amsterdam'
         SET TIME ZONE LOCAL
         SET TIME ZONE INTERVAL '+01:00' HOUR TO MINUTE
         SET TIMEZONE TO UTC
         SET NAMES 'utf8'
         SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY
         SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE
         SET ROLE x
         SET x
         SET x =
         RESET x
         RESET ALL
         RESET TIME ZONE
         BEGIN
         BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY NOT DEFERRABLE
         START TRANSACTION READ WRITE
         COMMIT
         END WORK
         COMMIT AND CHAIN
         COMMIT PREPARED 'x'
         ROLLBACK
         ABORT
         ROLLBACK TO SAVEPOINT x
         SAVEPOINT x
         RELEASE x
         DISCARD ALL
         DISCARD x
         DEALLOCATE PREPARE x
         DEALLOCATE ALL
         PREPARE p (int, text) AS SELECT $1, $2
         PREPARE p AS FLUSH
         EXECUTE p (1, 'a' || 'b')
         EXECUTE p
         EXECUTE p ()
         FLUSH
         FLUSH x",
        expect![[r#"
            SET search_path TO a, "B", 'c'
                Set { name: "search_path", value: Some("a, B, c"), local: false }
            SET SESSION statement_timeout = 1000
                Set { name: "statement_timeout", value: Some("1000"), local: false }
            SET LOCAL a.b = -1.5
                Set { name: "a.b", value: Some("-1.5"), local: true }
            SET extra_float_digits = DEFAULT
                Set { name: "extra_float_digits", value: None, local: false }
            SET TIME ZONE 'Europe/Amsterdam'
                Set { name: "timezone", value: Some("Europe/Amsterdam"), local: false }
            SET TIME ZONE LOCAL
                Set { name: "timezone", value: None, local: false }
            SET TIME ZONE INTERVAL '+01:00' HOUR TO MINUTE
                Set { name: "timezone", value: Some("+01:00"), local: false }
            SET TIMEZONE TO UTC
                Set { name: "timezone", value: Some("utc"), local: false }
            SET NAMES 'utf8'
                Set { name: "client_encoding", value: Some("utf8"), local: false }
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY
                Set { name: "transaction_read_only", value: Some("on"), local: true }
            SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE
                Set { name: "default_transaction_isolation", value: Some("serializable"), local: false }
            SET ROLE x
                Set { name: "role", value: Some("x"), local: false }
            SET x
                42601 syntax error at end of input at Some(6)
            SET x =
                42601 syntax error at end of input at Some(8)
            RESET x
                Set { name: "x", value: None, local: false }
            RESET ALL
                ResetAll
            RESET TIME ZONE
                Set { name: "timezone", value: None, local: false }
            BEGIN
                Begin { read_only: false }
            BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY NOT DEFERRABLE
                Begin { read_only: true }
            START TRANSACTION READ WRITE
                Begin { read_only: false }
            COMMIT
                Commit
            END WORK
                Commit
            COMMIT AND CHAIN
                0A000 AND CHAIN is not supported at None
            COMMIT PREPARED 'x'
                Unsupported("COMMIT PREPARED")
            ROLLBACK
                Rollback
            ABORT
                Rollback
            ROLLBACK TO SAVEPOINT x
                Savepoint("ROLLBACK TO SAVEPOINT")
            SAVEPOINT x
                Savepoint("SAVEPOINT")
            RELEASE x
                Savepoint("RELEASE SAVEPOINT")
            DISCARD ALL
                Discard
            DISCARD x
                42601 syntax error at or near "x" at Some(9)
            DEALLOCATE PREPARE x
                Deallocate(Some("x"))
            DEALLOCATE ALL
                Deallocate(None)
            PREPARE p (int, text) AS SELECT $1, $2
                Prepare p [Int4, Text]
              "SELECT $1, $2" at 25: Query SELECT $1, $2
            PREPARE p AS FLUSH
                0A000 PREPARE of this kind of statement is not supported at Some(14)
            EXECUTE p (1, 'a' || 'b')
                Execute p ["1", "'a' || 'b'"]
            EXECUTE p
                Execute p []
            EXECUTE p ()
                Execute p []
            FLUSH
                Flush
            FLUSH x
                42601 syntax error at or near "x" at Some(7)
        "#]],
    );
}

#[test]
fn cursors() {
    check_lines(
        "DECLARE c CURSOR FOR SELECT 1
         DECLARE c NO SCROLL CURSOR WITH HOLD FOR SUBSCRIBE TO v
         DECLARE c CURSOR FOR DELETE FROM t
         DECLARE c SUBSCRIPTION CURSOR FOR v
         FETCH c
         FETCH NEXT FROM c
         FETCH 10 FROM c WITH (timeout = '1s')
         FETCH ALL IN c
         FETCH FORWARD ALL c
         FETCH FORWARD 5 c
         FETCH FORWARD c
         FETCH 0 c WITH (timeout = '250 ms')
         FETCH c WITH (timeout = '1')
         FETCH c WITH (wait = '1s')
         FETCH BACKWARD 5 c
         FETCH -1 FROM c
         FETCH
         CLOSE c
         CLOSE ALL",
        expect![[r#"
            DECLARE c CURSOR FOR SELECT 1
                Declare c hold=false
              "SELECT 1" at 21: Query SELECT 1
            DECLARE c NO SCROLL CURSOR WITH HOLD FOR SUBSCRIBE TO v
                Declare c hold=true
              "SUBSCRIBE TO v" at 41: Subscribe SELECT * FROM v options=[] limit=None
            DECLARE c CURSOR FOR DELETE FROM t
                42601 a cursor needs a query at Some(22)
            DECLARE c SUBSCRIPTION CURSOR FOR v
                0A000 a SUBSCRIPTION CURSOR is not supported at Some(11)
            FETCH c
                Fetch { name: "c", count: Some(1), timeout_ms: None }
            FETCH NEXT FROM c
                Fetch { name: "c", count: Some(1), timeout_ms: None }
            FETCH 10 FROM c WITH (timeout = '1s')
                Fetch { name: "c", count: Some(10), timeout_ms: Some(1000) }
            FETCH ALL IN c
                Fetch { name: "c", count: None, timeout_ms: None }
            FETCH FORWARD ALL c
                Fetch { name: "c", count: None, timeout_ms: None }
            FETCH FORWARD 5 c
                Fetch { name: "c", count: Some(5), timeout_ms: None }
            FETCH FORWARD c
                Fetch { name: "c", count: Some(1), timeout_ms: None }
            FETCH 0 c WITH (timeout = '250 ms')
                Fetch { name: "c", count: Some(0), timeout_ms: Some(250) }
            FETCH c WITH (timeout = '1')
                22023 invalid value for option "timeout": "1" at Some(9) (Write a number with its unit, for example '500ms' or '1s'.)
            FETCH c WITH (wait = '1s')
                22023 option "wait" is not recognized at Some(9)
            FETCH BACKWARD 5 c
                0A000 FETCH in any direction but forward is not supported at Some(7)
            FETCH -1 FROM c
                0A000 FETCH in any direction but forward is not supported at Some(7)
            FETCH
                42601 syntax error at end of input at Some(6)
            CLOSE c
                Close(Some("c"))
            CLOSE ALL
                Close(None)
        "#]],
    );
}

#[test]
fn unsupported_statements_have_names() {
    check_lines(
        "CREATE SINK s FROM v WITH (connector = 'kafka')
         CREATE USER x
         CREATE USER MAPPING FOR x
         CREATE OR REPLACE FUNCTION f() RETURNS int AS $$ select 1; $$ LANGUAGE sql
         ALTER TABLE t ADD COLUMN a int
         ALTER MATERIALIZED VIEW v RENAME TO w
         VACUUM
         GRANT SELECT ON t TO x
         REFRESH MATERIALIZED VIEW v WITH NO DATA
         REFRESH PUBLICATION p
         CANCEL JOBS 1
         LISTEN x
         DO $$ begin end $$
         MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE
         CREATE 1
         CREATE",
        expect![[r#"
            CREATE SINK s FROM v WITH (connector = 'kafka')
                Unsupported("CREATE SINK")
            CREATE USER x
                Unsupported("CREATE USER")
            CREATE USER MAPPING FOR x
                Unsupported("CREATE USER MAPPING")
            CREATE OR REPLACE FUNCTION f() RETURNS int AS $$ select 1; $$ LANGUAGE sql
                Unsupported("CREATE FUNCTION")
            ALTER TABLE t ADD COLUMN a int
                Unsupported("ALTER TABLE")
            ALTER MATERIALIZED VIEW v RENAME TO w
                Unsupported("ALTER MATERIALIZED VIEW")
            VACUUM
                Unsupported("VACUUM")
            GRANT SELECT ON t TO x
                Unsupported("GRANT")
            REFRESH MATERIALIZED VIEW v WITH NO DATA
                Unsupported("REFRESH MATERIALIZED VIEW .. WITH NO DATA")
            REFRESH PUBLICATION p
                Unsupported("REFRESH PUBLICATION")
            CANCEL JOBS 1
                Unsupported("CANCEL JOBS")
            LISTEN x
                Unsupported("LISTEN")
            DO $$ begin end $$
                Unsupported("DO")
            MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE
                Unsupported("MERGE")
            CREATE 1
                42601 syntax error at or near "1" at Some(8)
            CREATE
                42601 syntax error at end of input at Some(7)
        "#]],
    );
}

#[test]
fn syntax_errors_in_the_words_of_postgres() {
    check_lines(
        "SELEC 1
         SELECT
         SELECT 1 +
         SELECT 1 +;
         SELECT 1; SELECT FROM WHERE
         SELECT * FROM t WHERE a = = 1
         SELECT (1
         SELECT 1)
         SELECT 'abc
         SELECT \"abc
         SELECT $$abc
         SELECT $x$abc
         SELECT E'abc
         SELECT 1 /* abc
         SELECT 'é', 'ü' 'x' y z
         SELECT a FROM t GROUP a
         SELECT * FROM t LIMIT LIMIT
         SELECT 1 2
         SELECT a.b.c.d.
         INSERT INTO t VALUES (1,)
         EXPLAIN SELECT é FROM
         PREPARE p AS SELECT 1 FROM FROM
         foo bar
         123
         ,",
        expect![[r#"
            SELEC 1
                42601 syntax error at or near "SELEC" at Some(1)
            SELECT
                42601 syntax error at end of input at Some(7)
            SELECT 1 +
                42601 syntax error at end of input at Some(11)
            SELECT 1 +;
                42601 syntax error at or near ";" at Some(11)
            SELECT 1; SELECT FROM WHERE
                42601 syntax error at or near "WHERE" at Some(23)
            SELECT * FROM t WHERE a = = 1
                42601 syntax error at or near "=" at Some(27)
            SELECT (1
                42601 syntax error at end of input at Some(10)
            SELECT 1)
                42601 syntax error at or near ")" at Some(9)
            SELECT 'abc
                42601 unterminated quoted string at or near "'abc" at Some(8)
            SELECT "abc
                42601 unterminated quoted identifier at or near ""abc" at Some(8)
            SELECT $$abc
                42601 unterminated dollar-quoted string at or near "$$abc" at Some(8)
            SELECT $x$abc
                42601 unterminated dollar-quoted string at or near "$x$abc" at Some(8)
            SELECT E'abc
                42601 unterminated quoted string at or near "E'abc" at Some(8)
            SELECT 1 /* abc
                42601 unterminated /* comment at or near "/* abc" at Some(10)
            SELECT 'é', 'ü' 'x' y z
                42601 syntax error at or near "y" at Some(21)
            SELECT a FROM t GROUP a
                42601 syntax error at or near "GROUP" at Some(17)
            SELECT * FROM t LIMIT LIMIT
                42601 syntax error at or near "LIMIT" at Some(23)
            SELECT 1 2
                42601 syntax error at or near "2" at Some(10)
            SELECT a.b.c.d.
                42601 syntax error at end of input at Some(16)
            INSERT INTO t VALUES (1,)
                42601 syntax error at or near ")" at Some(25)
            EXPLAIN SELECT é FROM
                42601 syntax error at end of input at Some(22)
            PREPARE p AS SELECT 1 FROM FROM
                42601 syntax error at or near "FROM" at Some(28)
            foo bar
                42601 syntax error at or near "foo" at Some(1)
            123
                42601 syntax error at or near "123" at Some(1)
            ,
                42601 syntax error at or near "," at Some(1)
        "#]],
    );
    check(
        "SELECT 1;\n\n  SELECT 'é',\n   a b c",
        expect![[r#"
        42601 syntax error at or near "c" at Some(33)
    "#]],
    );
}

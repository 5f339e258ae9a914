//! What each statement becomes, as small tables.

use std::fmt::Write;

use expect_test::{Expect, expect};
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

#[test]
fn several_statements_keep_their_text_and_place() {
    let parsed = parse(" SELECT 1 ; -- é\n /* x */ select 'a;b'  ;;\n\tFLUSH").unwrap();
    let places: Vec<_> = parsed.iter().map(|p| (p.text.as_str(), p.offset)).collect();
    assert_eq!(places, [("SELECT 1", 1), ("select 'a;b'", 26), ("FLUSH", 44)]);
    assert!(matches!(parse(" ; -- nothing\n").unwrap().as_slice(), [Parsed { statement: Statement::Empty, .. }]));
}

#[test]
fn create_stream() {
    check(
        "CREATE STREAM payments (id BIGINT, account TEXT, amount NUMERIC(12,2), at TIMESTAMPTZ)
  WITH (KAFKA_TOPIC = 'payments', VALUE_FORMAT = 'JSON', properties.bootstrap.server = '127.0.0.1:19092')",
        expect![[r#"
            CreateSource ObjectName { schema: None, name: "payments", position: 15 } if_not_exists=false stream=true
              id bigint not_null=false @25
              account text not_null=false @36
              amount numeric(12,2) not_null=false @50
              at timestamp with time zone not_null=false @72
              options=[("kafka_topic", "payments"), ("value_format", "JSON"), ("properties.bootstrap.server", "127.0.0.1:19092")]
              format=None
        "#]],
    );
}

#[test]
fn create_source() {
    check(
        "CREATE SOURCE IF NOT EXISTS s.\"Orders\" (id BIGINT, item JSONB, tags TEXT[], buyer STRUCT<name TEXT, city STRUCT<a INT, b VARCHAR(3)[]>>, at TIMESTAMP)
  INCLUDE partition INCLUDE offset INCLUDE timestamp AS ts INCLUDE key INCLUDE header AS h INCLUDE header 'trace' AS t
  WITH (connector = 'kafka', topic = 'orders', properties.bootstrap.server = '127.0.0.1:19092', 'Quoted.Name' = -5, flag = true, scan.startup.mode = 'earliest')
  FORMAT PLAIN ENCODE JSON (timestamp.handling.mode = 'milli');
  CREATE SOURCE bids WITH (connector = 'nexmark')",
        expect![[r#"
            CreateSource ObjectName { schema: Some("s"), name: "Orders", position: 29 } if_not_exists=true stream=false
              id bigint not_null=false @41
              item jsonb not_null=false @52
              tags text[] not_null=false @64
              buyer struct<name text, city struct<a integer, b character varying(3)[]>> not_null=false @77
              at timestamp without time zone not_null=false @138
              include partition header=None as None @162
              include offset header=None as None @180
              include timestamp header=None as Some("ts") @195
              include key header=None as None @219
              include header header=None as Some("h") @231
              include header header=Some("trace") as Some("t") @251
              options=[("connector", "kafka"), ("topic", "orders"), ("properties.bootstrap.server", "127.0.0.1:19092"), ("quoted.name", "-5"), ("flag", "true"), ("scan.startup.mode", "earliest")]
              format=Some(Format { format: "PLAIN", encode: "JSON", options: [("timestamp.handling.mode", "milli")] })
            CreateSource ObjectName { schema: None, name: "bids", position: 15 } if_not_exists=false stream=false
              options=[("connector", "nexmark")]
              format=None
        "#]],
    );
    check_lines(
        "CREATE SOURCE s (id INT PRIMARY KEY) WITH (connector = 'x')
         CREATE STREAM s (id INT KEY) WITH (kafka_topic = 'x')
         CREATE STREAM s AS SELECT 1
         CREATE SOURCE s (t TIMESTAMP, WATERMARK FOR t AS t) WITH (connector = 'x')
         CREATE SOURCE s (id INT) INCLUDE foo WITH (connector = 'x')
         CREATE SOURCE s (id INT) WITH (connector 'x'
         CREATE OR REPLACE STREAM s (id INT)",
        expect![[r#"
            CREATE SOURCE s (id INT PRIMARY KEY) WITH (connector = 'x')
                0A000 a primary key of a source is not supported at Some(18)
            CREATE STREAM s (id INT KEY) WITH (kafka_topic = 'x')
                0A000 a KEY column is not supported at Some(25) (Write INCLUDE key or INCLUDE header after the list of columns.)
            CREATE STREAM s AS SELECT 1
                0A000 CREATE STREAM .. AS is not supported at Some(17)
            CREATE SOURCE s (t TIMESTAMP, WATERMARK FOR t AS t) WITH (connector = 'x')
                0A000 WATERMARK is not supported at Some(31)
            CREATE SOURCE s (id INT) INCLUDE foo WITH (connector = 'x')
                42601 cannot include "foo" at Some(34) (A source can include key, partition, offset, timestamp and header.)
            CREATE SOURCE s (id INT) WITH (connector 'x'
                42601 syntax error at end of input at Some(45)
            CREATE OR REPLACE STREAM s (id INT)
                Unsupported("CREATE OR REPLACE STREAM")
        "#]],
    );
}

#[test]
fn create_table() {
    check(
        "CREATE TABLE accounts (id TEXT PRIMARY KEY, country TEXT NOT NULL, opened DATE DEFAULT current_date NOT NULL, n INT DEFAULT -1 + 2 NULL, x double precision DEFAULT 1 NOT NULL);
CREATE TABLE IF NOT EXISTS a.b (k int, \"K 2\" int8, PRIMARY KEY (\"K 2\", K));
CREATE TABLE c AS SELECT 1 AS a; CREATE TABLE d (x, y) AS TABLE c; CREATE TABLE e ()",
        expect![[r#"
            CreateTable ObjectName { schema: None, name: "accounts", position: 14 } if_not_exists=false
              id text not_null=true default=None pk=true @24
              country text not_null=true default=None pk=false @45
              opened date not_null=true default=Some("current_date") pk=false @68
              n integer not_null=false default=Some("-1 + 2") pk=false @111
              x double precision not_null=true default=Some("1") pk=false @138
              primary_key=["id"] options=[] query=None
            CreateTable ObjectName { schema: Some("a"), name: "b", position: 28 } if_not_exists=true
              k integer not_null=true default=None pk=false @33
              K 2 bigint not_null=true default=None pk=false @40
              primary_key=["K 2", "k"] options=[] query=None
            CreateTable ObjectName { schema: None, name: "c", position: 14 } if_not_exists=false
              primary_key=[] options=[] query=Some("SELECT 1 AS a")
            CreateTable ObjectName { schema: None, name: "d", position: 14 } if_not_exists=false
              x text not_null=false default=None pk=false @17
              y text not_null=false default=None pk=false @20
              primary_key=[] options=[] query=Some("SELECT * FROM c")
            CreateTable ObjectName { schema: None, name: "e", position: 14 } if_not_exists=false
              primary_key=[] options=[] query=None
        "#]],
    );
    check_lines(
        "CREATE TABLE t (a int primary key, b int primary key)
         CREATE TABLE t (a int unique)
         CREATE TABLE t (a int, check (a > 0))
         CREATE TABLE t (a int constraint c check(a>0 and a<5) not null check ((a) <> 3), constraint \"D\" check (a = ANY ('{1,2}')) no inherit)
         CREATE TABLE t (a int check a > 0)
         CREATE TABLE t (a int check ())
         CREATE TABLE t (a int references b)
         CREATE TABLE t (a int generated always as identity)
         CREATE TABLE t (a, b)
         CREATE TABLE t (a int, )
         CREATE TABLE t (select int)
         CREATE TABLE t (a int
         CREATE TEMP TABLE t (a int)
         CREATE TABLE t (a int) WITH (connector = 'kafka') FORMAT PLAIN ENCODE JSON
         CREATE TABLE a.b.c (a int)
         CREATE TABLE tidewire.public.c (a int)
         CREATE TABLE a.b.c.d (a int)
         CREATE TABLE t (id serial primary key)",
        expect![[r#"
            CREATE TABLE t (a int primary key, b int primary key)
                42P16 multiple primary keys are not allowed at Some(36)
            CREATE TABLE t (a int unique)
                0A000 a UNIQUE constraint is not supported at Some(23)
            CREATE TABLE t (a int, check (a > 0))
                CreateTable ObjectName { schema: None, name: "t", position: 14 } if_not_exists=false
              a integer not_null=false default=None pk=false @17
              check None: a > 0 "a > 0" @30
              primary_key=[] options=[] query=None
            CREATE TABLE t (a int constraint c check(a>0 and a<5) not null check ((a) <> 3), constraint "D" check (a = ANY ('{1,2}')) no inherit)
                CreateTable ObjectName { schema: None, name: "t", position: 14 } if_not_exists=false
              a integer not_null=true default=None pk=false @17
              check Some("c"): a > 0 AND a < 5 "a>0 and a<5" @41
              check None: (a) <> 3 "(a) <> 3" @70
              check Some("D"): a = ANY('{1,2}') "a = ANY ('{1,2}')" @103
              primary_key=[] options=[] query=None
            CREATE TABLE t (a int check a > 0)
                42601 syntax error at or near "a" at Some(29)
            CREATE TABLE t (a int check ())
                42601 syntax error at or near ")" at Some(30)
            CREATE TABLE t (a int references b)
                0A000 a FOREIGN KEY constraint is not supported at Some(23)
            CREATE TABLE t (a int generated always as identity)
                0A000 a generated column is not supported at Some(23)
            CREATE TABLE t (a, b)
                42601 column "a" has no type at Some(17)
            CREATE TABLE t (a int, )
                42601 syntax error at or near ")" at Some(24)
            CREATE TABLE t (select int)
                42601 syntax error at or near "select" at Some(17)
            CREATE TABLE t (a int
                42601 syntax error at end of input at Some(22)
            CREATE TEMP TABLE t (a int)
                Unsupported("CREATE TEMPORARY TABLE")
            CREATE TABLE t (a int) WITH (connector = 'kafka') FORMAT PLAIN ENCODE JSON
                0A000 a table that is fed by a connector is not supported at Some(51)
            CREATE TABLE a.b.c (a int)
                0A000 cross-database references are not supported: "a" at Some(14)
            CREATE TABLE tidewire.public.c (a int)
                CreateTable ObjectName { schema: Some("public"), name: "c", position: 14 } if_not_exists=false
              a integer not_null=false default=None pk=false @33
              primary_key=[] options=[] query=None
            CREATE TABLE a.b.c.d (a int)
                42601 improper qualified name (too many dotted names) at Some(14)
            CREATE TABLE t (id serial primary key)
                0A000 type serial is not supported at Some(20) (Use bigint, and let the program that inserts choose the numbers.)
        "#]],
    );
}

#[test]
fn types() {
    let types = "bool, boolean, smallint, int2, int, integer, int4, bigint, int8, real, float4, float, float(24), float(25), float8,
        double precision, numeric, numeric(10), numeric(10,2), decimal(5,5), dec(3), text, string, varchar, varchar(10), character varying(3),
        char varying(3), char, char(7), character(2), bpchar, bpchar(3), bytea, bytes, date, time, time(3), time without time zone, timestamp,
        timestamp(3), timestamp without time zone, timestamptz, timestamptz(3), timestamp with time zone, timestamp(0) with time zone,
        interval, interval year to month, uuid, json, jsonb, int[], int[3], text[][], array<int>, numeric(5,1)[], struct<a int, \"B\" struct<c text[]>>[], int4[],
        pg_catalog.int4, pg_catalog.varchar(3), oid, name, \"uuid\", serial, bigserial, money, xml, time with time zone, timetz, bit(3), regclass,
        tinyint, datetime, blob, intger, foo, numeric(39), numeric(3,4), numeric(0), float(60), varchar(0), char(20000000), timestamp(7), struct<int>";
    let mut out = String::new();
    let mut depth = 0;
    for t in types.split(|c: char| {
        depth += i32::from("(<".contains(c)) - i32::from(")>".contains(c));
        c == ',' && depth == 0
    }) {
        let t = t.trim();
        let shown = match parse(&format!("PREPARE p ({t}) AS SELECT 1")).map(|mut p| p.remove(0).statement) {
            Ok(Statement::Prepare { types, .. }) => types.iter().map(ToString::to_string).collect(),
            Ok(other) => format!("{other:?}"),
            Err(e) => {
                format!("{} {}{}", e.state().code(), e.message(), e.hint().map_or(String::new(), |h| format!(" ({h})")))
            }
        };
        let _ = writeln!(out, "{t} => {shown}");
    }
    expect![[r#"
        bool => boolean
        boolean => boolean
        smallint => smallint
        int2 => smallint
        int => integer
        integer => integer
        int4 => integer
        bigint => bigint
        int8 => bigint
        real => real
        float4 => real
        float => double precision
        float(24) => real
        float(25) => double precision
        float8 => double precision
        double precision => double precision
        numeric => numeric
        numeric(10) => numeric(10,0)
        numeric(10,2) => numeric(10,2)
        decimal(5,5) => numeric(5,5)
        dec(3) => numeric(3,0)
        text => text
        string => text
        varchar => character varying
        varchar(10) => character varying(10)
        character varying(3) => character varying(3)
        char varying(3) => character varying(3)
        char => character(1)
        char(7) => character(7)
        character(2) => character(2)
        bpchar => text
        bpchar(3) => character(3)
        bytea => bytea
        bytes => bytea
        date => date
        time => time without time zone
        time(3) => time without time zone
        time without time zone => time without time zone
        timestamp => timestamp without time zone
        timestamp(3) => timestamp without time zone
        timestamp without time zone => timestamp without time zone
        timestamptz => timestamp with time zone
        timestamptz(3) => timestamp with time zone
        timestamp with time zone => timestamp with time zone
        timestamp(0) with time zone => timestamp with time zone
        interval => interval
        interval year to month => interval
        uuid => uuid
        json => json
        jsonb => jsonb
        int[] => integer[]
        int[3] => integer[]
        text[][] => text[][]
        array<int> => integer[]
        numeric(5,1)[] => numeric(5,1)[]
        struct<a int, "B" struct<c text[]>>[] => struct<a integer, B struct<c text[]>[]>
        int4[] => integer[]
        pg_catalog.int4 => integer
        pg_catalog.varchar(3) => character varying(3)
        oid => bigint
        name => text
        "uuid" => uuid
        serial => 0A000 type serial is not supported (Use bigint, and let the program that inserts choose the numbers.)
        bigserial => 0A000 type bigserial is not supported (Use bigint, and let the program that inserts choose the numbers.)
        money => 0A000 type money is not supported
        xml => 0A000 type xml is not supported
        time with time zone => 0A000 type time with time zone is not supported
        timetz => 0A000 type time with time zone is not supported
        bit(3) => 0A000 type bit is not supported
        regclass => 0A000 type regclass is not supported
        tinyint => 42704 type "tinyint" does not exist (Perhaps you meant "smallint".)
        datetime => 42704 type "datetime" does not exist (Perhaps you meant "timestamp".)
        blob => 42704 type "blob" does not exist (Perhaps you meant "bytea".)
        intger => 42704 type "intger" does not exist (Perhaps you meant "integer".)
        foo => 42704 type "foo" does not exist
        numeric(39) => 22023 numeric precision 39 must be between 1 and 38
        numeric(3,4) => 22023 numeric scale 4 must be between 0 and precision 3
        numeric(0) => 22023 numeric precision 0 must be between 1 and 38
        float(60) => 22023 precision for type float must be less than 54 bits
        varchar(0) => 22023 length of a string type must be at least 1
        char(20000000) => 22023 length of a string type cannot exceed 10485760
        timestamp(7) => 22023 timestamp precision must be between 0 and 6
        struct<int> => 42601 a field of a STRUCT needs a name
    "#]].assert_eq(&out);
}

#[test]
fn create_view() {
    check(
        "CREATE MATERIALIZED VIEW per_country AS SELECT country, count(*) AS n, sum(amount) AS total FROM payments p JOIN accounts a ON p.account = a.id GROUP BY country;
  CREATE OR REPLACE VIEW IF NOT EXISTS a.v (x, \"Y\") WITH (k = 'é') AS /* é */ TABLE b; CREATE MATERIALIZED VIEW m AS (SELECT 1) EMIT CHANGES; CREATE MATERIALIZED VIEW m AS SELECT a FROM b WITH DATA",
        expect![[r#"
            CreateView ObjectName { schema: None, name: "per_country", position: 26 } materialized=true if_not_exists=false or_replace=false columns=[] options=[]
              "SELECT country, count(*) AS n, sum(amount) AS total FROM payments p JOIN accounts a ON p.account = a.id GROUP BY country" at 40
            CreateView ObjectName { schema: Some("a"), name: "v", position: 38 } materialized=false if_not_exists=true or_replace=true columns=["x", "Y"] options=[("k", "é")]
              "TABLE b" at 76
            CreateView ObjectName { schema: None, name: "m", position: 26 } materialized=true if_not_exists=false or_replace=false columns=[] options=[]
              "(SELECT 1)" at 30
            CreateView ObjectName { schema: None, name: "m", position: 26 } materialized=true if_not_exists=false or_replace=false columns=[] options=[]
              "SELECT a FROM b" at 30
        "#]],
    );
    check_lines(
        "CREATE VIEW v
         CREATE VIEW v AS
         CREATE VIEW v AS INSERT INTO t VALUES (1)
         CREATE TEMPORARY VIEW v AS SELECT 1
         CREATE RECURSIVE VIEW v AS SELECT 1
         CREATE MATERIALIZED TABLE v AS SELECT 1
         CREATE MATERIALIZED VIEW v AS SELECT 1 WITH NO DATA
         CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT CHANGES LIMIT 1",
        expect![[r#"
            CREATE VIEW v
                42601 syntax error at end of input at Some(14)
            CREATE VIEW v AS
                42601 syntax error at end of input at Some(17)
            CREATE VIEW v AS INSERT INTO t VALUES (1)
                42601 syntax error at or near "INSERT" at Some(18)
            CREATE TEMPORARY VIEW v AS SELECT 1
                Unsupported("CREATE TEMPORARY VIEW")
            CREATE RECURSIVE VIEW v AS SELECT 1
                Unsupported("CREATE RECURSIVE VIEW")
            CREATE MATERIALIZED TABLE v AS SELECT 1
                Unsupported("CREATE MATERIALIZED TABLE")
            CREATE MATERIALIZED VIEW v AS SELECT 1 WITH NO DATA
                0A000 CREATE MATERIALIZED VIEW .. WITH NO DATA is not supported at None
            CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT CHANGES LIMIT 1
                42601 syntax error at end of input at Some(60)
        "#]],
    );
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

#[test]
fn indexes() {
    check_lines(
        "CREATE INDEX ON t (a)
         CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON s.t USING btree (a DESC NULLS LAST, \"B\") INCLUDE (c)
         DROP INDEX CONCURRENTLY IF EXISTS i, j CASCADE
         SHOW INDEXES FROM t
         CREATE INDEX i ON t (lower(a))
         CREATE INDEX i ON t ((a + 1))
         CREATE INDEX i ON t (a) WHERE a > 1
         CREATE INDEX i ON t USING gin (a)
         CREATE INDEX i ON t USING nothing (a)
         CREATE INDEX i ON t (a text_pattern_ops)
         CREATE INDEX IF NOT EXISTS ON t (a)
         CREATE INDEX i ON t",
        expect![[r#"
            CREATE INDEX ON t (a)
                CreateIndex(CreateIndex { name: None, if_not_exists: false, unique: false, relation: ObjectName { schema: None, name: "t", position: 17 }, columns: [NamedColumn { name: "a", position: 20 }], include: [] })
            CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON s.t USING btree (a DESC NULLS LAST, "B") INCLUDE (c)
                CreateIndex(CreateIndex { name: Some(ObjectName { schema: None, name: "i", position: 48 }), if_not_exists: true, unique: true, relation: ObjectName { schema: Some("s"), name: "t", position: 53 }, columns: [NamedColumn { name: "a", position: 70 }, NamedColumn { name: "B", position: 89 }], include: [NamedColumn { name: "c", position: 103 }] })
            DROP INDEX CONCURRENTLY IF EXISTS i, j CASCADE
                Drop(Drop { kind: Index, names: [ObjectName { schema: None, name: "i", position: 35 }, ObjectName { schema: None, name: "j", position: 38 }], if_exists: true, cascade: true })
            SHOW INDEXES FROM t
                Show(Indexes(Some(ObjectName { schema: None, name: "t", position: 19 })))
            CREATE INDEX i ON t (lower(a))
                0A000 an index on an expression is not supported at Some(22) (Create a materialized view with the expression as a column, and the index on it.)
            CREATE INDEX i ON t ((a + 1))
                0A000 an index on an expression is not supported at Some(22) (Create a materialized view with the expression as a column, and the index on it.)
            CREATE INDEX i ON t (a) WHERE a > 1
                0A000 a partial index is not supported at Some(25) (Create a materialized view with that WHERE, and the index on it.)
            CREATE INDEX i ON t USING gin (a)
                0A000 access method "gin" is not supported at Some(27) (Indexes are hash indexes: they find rows by equality.)
            CREATE INDEX i ON t USING nothing (a)
                42704 access method "nothing" does not exist at Some(27)
            CREATE INDEX i ON t (a text_pattern_ops)
                0A000 an operator class is not supported at Some(24)
            CREATE INDEX IF NOT EXISTS ON t (a)
                42601 syntax error at or near "ON" at Some(28)
            CREATE INDEX i ON t
                42601 syntax error at end of input at Some(20)
        "#]],
    );
}

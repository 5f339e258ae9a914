//! Statements that make objects.

use expect_test::expect;

use super::*;

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

//! Queries as users write them: names, types, rows and errors.

use datafusion::common::tree_node::TreeNodeRecursion;
use expect_test::{Expect, expect};

use crate::fixture::Fixture;

fn check(sqls: &[&str], expected: Expect) {
    let fixture = Fixture::new();
    let shown: Vec<_> = sqls.iter().map(|sql| format!("> {sql}\n{}\n", fixture.show(sql))).collect();
    expected.assert_eq(&shown.concat());
}

#[test]
fn columns_have_the_names_and_types_of_postgresql() {
    check(
        &[
            "SELECT count(*), sum(amount), max(amount), count(*) FROM payments",
            "SELECT 1, 1+1, 'x', 1::int, CASE WHEN true THEN 1 END, coalesce(1, 2), true, NULL, now()::date - current_date, 1.5, 1.5::float8",
            "SELECT id, id, p.id, lower(account) FROM payments p WHERE id = 1",
            "SELECT *, i FROM things",
            "SELECT u, u::text, j->'k', j->'k'->>1, j #>> '{k,0}', v, '{\"b\":1}'::jsonb, 'abcdef'::varchar(3) FROM things",
            "SELECT '\\x0102'::bytea, 'x'::text, date '2026-01-01', interval '1 day', '10:30'::time, timestamp '2026-01-01 10:00', timestamptz '2026-01-01 10:00+02'",
            "SELECT true::text, 1.50::numeric::text, 1.5::float8::text, '2026-01-01 10:30'::timestamp::text, timestamptz '2026-01-01 10:00:00.25+02'::varchar, '\\x01'::bytea::text, i::text || 'x' FROM things",
            "SELECT id FROM payments WHERE at > '2026-01-01 11:00' AND amount < '5'",
            "SELECT 1.5::numeric::float8, 1.5::numeric::numeric(5,2), u::text::varchar(3) FROM things",
            "SELECT count FROM (SELECT count(*) FROM accounts) s ORDER BY count",
            "SELECT at - at AS d, extract(year from at), date_trunc('day', at), at + interval '1 hour', at::date, to_char(at, '%Y') FROM payments WHERE id = 1",
            "SELECT string_agg(id, ',' ORDER BY id), array_agg(id ORDER BY id DESC), bool_and(opened IS NULL) FROM accounts",
            "VALUES (1, 'a'), (2, NULL)",
            "SELECT a.id, b.id FROM accounts a JOIN accounts b ON a.id = b.id ORDER BY b.id DESC FETCH FIRST 1 ROW ONLY",
        ],
        expect![[r#"
            > SELECT count(*), sum(amount), max(amount), count(*) FROM payments
            count bigint, sum numeric(38,2), max numeric(12,2), count bigint
            +-------+-------+-------+-------+
            | count | sum   | max   | count |
            +-------+-------+-------+-------+
            | 3     | 12.75 | 10.50 | 3     |
            +-------+-------+-------+-------+
            > SELECT 1, 1+1, 'x', 1::int, CASE WHEN true THEN 1 END, coalesce(1, 2), true, NULL, now()::date - current_date, 1.5, 1.5::float8
            ?column? integer, ?column? integer, ?column? text, int4 integer, case integer, coalesce integer, ?column? boolean, ?column? text, ?column? integer, ?column? numeric(2,1), float8 double precision
            +----------+----------+----------+------+------+----------+----------+----------+----------+----------+--------+
            | ?column? | ?column? | ?column? | int4 | case | coalesce | ?column? | ?column? | ?column? | ?column? | float8 |
            +----------+----------+----------+------+------+----------+----------+----------+----------+----------+--------+
            | 1        | 2        | x        | 1    | 1    | 1        | true     |          | 0        | 1.5      | 1.5    |
            +----------+----------+----------+------+------+----------+----------+----------+----------+----------+--------+
            > SELECT id, id, p.id, lower(account) FROM payments p WHERE id = 1
            id bigint, id bigint, id bigint, lower text
            +----+----+----+-------+
            | id | id | id | lower |
            +----+----+----+-------+
            | 1  | 1  | 1  | a     |
            +----+----+----+-------+
            > SELECT *, i FROM things
            i integer, f double precision, u uuid, j jsonb, v character varying(5), b boolean, s struct<x integer>, tags text[], i integer
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+---+
            | i | f   | u                                    | j               | v   | b    | s | tags | i |
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+---+
            | 1 | 1.5 | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | {"k": [1, "x"]} | abc | true |   |      | 1 |
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+---+
            > SELECT u, u::text, j->'k', j->'k'->>1, j #>> '{k,0}', v, '{"b":1}'::jsonb, 'abcdef'::varchar(3) FROM things
            u uuid, u text, ?column? jsonb, ?column? text, ?column? text, v character varying(5), jsonb jsonb, varchar character varying(3)
            +--------------------------------------+--------------------------------------+----------+----------+----------+-----+----------+---------+
            | u                                    | u                                    | ?column? | ?column? | ?column? | v   | jsonb    | varchar |
            +--------------------------------------+--------------------------------------+----------+----------+----------+-----+----------+---------+
            | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | [1, "x"] | x        | 1        | abc | {"b": 1} | abc     |
            +--------------------------------------+--------------------------------------+----------+----------+----------+-----+----------+---------+
            > SELECT '\x0102'::bytea, 'x'::text, date '2026-01-01', interval '1 day', '10:30'::time, timestamp '2026-01-01 10:00', timestamptz '2026-01-01 10:00+02'
            bytea bytea, text text, date date, interval interval, time time without time zone, timestamp timestamp without time zone, timestamptz timestamp with time zone
            +-------+------+------------+----------+----------+---------------------+----------------------+
            | bytea | text | date       | interval | time     | timestamp           | timestamptz          |
            +-------+------+------------+----------+----------+---------------------+----------------------+
            | 0102  | x    | 2026-01-01 | 1 days   | 10:30:00 | 2026-01-01T10:00:00 | 2026-01-01T08:00:00Z |
            +-------+------+------------+----------+----------+---------------------+----------------------+
            > SELECT true::text, 1.50::numeric::text, 1.5::float8::text, '2026-01-01 10:30'::timestamp::text, timestamptz '2026-01-01 10:00:00.25+02'::varchar, '\x01'::bytea::text, i::text || 'x' FROM things
            text text, text text, text text, text text, varchar character varying, text text, ?column? text
            +------+------+------+---------------------+---------------------------+------+----------+
            | text | text | text | text                | varchar                   | text | ?column? |
            +------+------+------+---------------------+---------------------------+------+----------+
            | true | 1.5  | 1.5  | 2026-01-01 10:30:00 | 2026-01-01 08:00:00.25+00 | \x01 | 1x       |
            +------+------+------+---------------------+---------------------------+------+----------+
            > SELECT id FROM payments WHERE at > '2026-01-01 11:00' AND amount < '5'
            id bigint
            +----+
            | id |
            +----+
            | 2  |
            +----+
            > SELECT 1.5::numeric::float8, 1.5::numeric::numeric(5,2), u::text::varchar(3) FROM things
            float8 double precision, numeric numeric(5,2), u character varying(3)
            +--------+---------+-----+
            | float8 | numeric | u   |
            +--------+---------+-----+
            | 1.5    | 1.50    | a0e |
            +--------+---------+-----+
            > SELECT count FROM (SELECT count(*) FROM accounts) s ORDER BY count
            count bigint
            +-------+
            | count |
            +-------+
            | 2     |
            +-------+
            > SELECT at - at AS d, extract(year from at), date_trunc('day', at), at + interval '1 hour', at::date, to_char(at, '%Y') FROM payments WHERE id = 1
            d interval, extract numeric, date_trunc timestamp with time zone, ?column? timestamp with time zone, at date, to_char text
            +--------+----------------+----------------------+----------------------+------------+---------+
            | d      | extract        | date_trunc           | ?column?             | at         | to_char |
            +--------+----------------+----------------------+----------------------+------------+---------+
            | 0 secs | 2026.000000000 | 2026-01-01T00:00:00Z | 2026-01-01T11:00:00Z | 2026-01-01 | %6      |
            +--------+----------------+----------------------+----------------------+------------+---------+
            > SELECT string_agg(id, ',' ORDER BY id), array_agg(id ORDER BY id DESC), bool_and(opened IS NULL) FROM accounts
            string_agg text, array_agg text[], bool_and boolean
            +------------+-----------+----------+
            | string_agg | array_agg | bool_and |
            +------------+-----------+----------+
            | a,b        | [b, a]    | false    |
            +------------+-----------+----------+
            > VALUES (1, 'a'), (2, NULL)
            column1 integer, column2 text
            +---------+---------+
            | column1 | column2 |
            +---------+---------+
            | 1       | a       |
            | 2       |         |
            +---------+---------+
            > SELECT a.id, b.id FROM accounts a JOIN accounts b ON a.id = b.id ORDER BY b.id DESC FETCH FIRST 1 ROW ONLY
            id text, id text
            +----+----+
            | id | id |
            +----+----+
            | b  | b  |
            +----+----+
        "#]],
    );
}

#[test]
fn relations_are_found_and_hidden_as_in_postgresql() {
    check(
        &[
            "SELECT * FROM rich ORDER BY 1",
            "WITH rich AS (SELECT 1 AS x) SELECT * FROM rich",
            "SELECT * FROM public.accounts WHERE id IN (SELECT account FROM rich)",
            "SELECT a.id FROM accounts a WHERE NOT EXISTS (SELECT 1 FROM rich WHERE account = a.id)",
            "SELECT (SELECT max(id) FROM payments), id FROM accounts ORDER BY id",
            "SELECT id FROM accounts UNION SELECT account FROM payments ORDER BY 1",
            "SELECT id FROM accounts EXCEPT SELECT account FROM rich",
            "SELECT row_number() OVER (ORDER BY id DESC), id FROM accounts ORDER BY id",
            "SELECT id FROM payments WHERE id = 1 OR account NOT IN (SELECT id FROM accounts WHERE id = 'a')",
            "SELECT id FROM payments WHERE id = 7 OR account NOT IN (SELECT account FROM payments UNION ALL SELECT NULL)",
            "SELECT id FROM payments p WHERE amount NOT IN (SELECT amount FROM payments q WHERE q.account = p.account AND q.id <> p.id)",
            "SELECT id FROM payments WHERE (amount IN (SELECT amount FROM payments)) IS NULL",
            "SELECT id FROM payments WHERE account NOT IN (SELECT CAST(NULL AS text))",
            "SELECT id FROM payments WHERE amount = ANY (SELECT amount FROM payments WHERE id < 3)",
            "SELECT id FROM payments WHERE amount > ALL (SELECT amount FROM payments WHERE id = 2)",
            "SELECT x FROM generate_series(1, 3) AS t(x)",
            "SELECT unnest(array[1,2])",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
            "SELECT DISTINCT ON (account) account, id FROM payments ORDER BY account, id DESC",
        ],
        expect![[r#"
            > SELECT * FROM rich ORDER BY 1
            account text, amount numeric(12,2)
            +---------+--------+
            | account | amount |
            +---------+--------+
            | a       | 10.50  |
            +---------+--------+
            > WITH rich AS (SELECT 1 AS x) SELECT * FROM rich
            x integer
            +---+
            | x |
            +---+
            | 1 |
            +---+
            > SELECT * FROM public.accounts WHERE id IN (SELECT account FROM rich)
            id text, country text, opened date
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL      | 2026-01-01 |
            +----+---------+------------+
            > SELECT a.id FROM accounts a WHERE NOT EXISTS (SELECT 1 FROM rich WHERE account = a.id)
            id text
            +----+
            | id |
            +----+
            | b  |
            +----+
            > SELECT (SELECT max(id) FROM payments), id FROM accounts ORDER BY id
            max bigint, id text
            +-----+----+
            | max | id |
            +-----+----+
            | 3   | a  |
            | 3   | b  |
            +-----+----+
            > SELECT id FROM accounts UNION SELECT account FROM payments ORDER BY 1
            id text
            +----+
            | id |
            +----+
            | a  |
            | b  |
            +----+
            > SELECT id FROM accounts EXCEPT SELECT account FROM rich
            id text
            +----+
            | id |
            +----+
            | b  |
            +----+
            > SELECT row_number() OVER (ORDER BY id DESC), id FROM accounts ORDER BY id
            row_number bigint, id text
            +------------+----+
            | row_number | id |
            +------------+----+
            | 2          | a  |
            | 1          | b  |
            +------------+----+
            > SELECT id FROM payments WHERE id = 1 OR account NOT IN (SELECT id FROM accounts WHERE id = 'a')
            id bigint
            +----+
            | id |
            +----+
            | 1  |
            | 2  |
            +----+
            > SELECT id FROM payments WHERE id = 7 OR account NOT IN (SELECT account FROM payments UNION ALL SELECT NULL)
            id bigint
            ++
            ++
            > SELECT id FROM payments p WHERE amount NOT IN (SELECT amount FROM payments q WHERE q.account = p.account AND q.id <> p.id)
            id bigint
            +----+
            | id |
            +----+
            | 2  |
            +----+
            > SELECT id FROM payments WHERE (amount IN (SELECT amount FROM payments)) IS NULL
            id bigint
            +----+
            | id |
            +----+
            | 3  |
            +----+
            > SELECT id FROM payments WHERE account NOT IN (SELECT CAST(NULL AS text))
            id bigint
            ++
            ++
            > SELECT id FROM payments WHERE amount = ANY (SELECT amount FROM payments WHERE id < 3)
            id bigint
            +----+
            | id |
            +----+
            | 1  |
            | 2  |
            +----+
            > SELECT id FROM payments WHERE amount > ALL (SELECT amount FROM payments WHERE id = 2)
            id bigint
            +----+
            | id |
            +----+
            | 1  |
            +----+
            > SELECT x FROM generate_series(1, 3) AS t(x)
            x integer
            +---+
            | x |
            +---+
            | 1 |
            | 2 |
            | 3 |
            +---+
            > SELECT unnest(array[1,2])
            unnest integer
            +--------+
            | unnest |
            +--------+
            | 1      |
            | 2      |
            +--------+
            > WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r
            n integer
            +---+
            | n |
            +---+
            | 1 |
            | 2 |
            | 3 |
            +---+
            > SELECT DISTINCT ON (account) account, id FROM payments ORDER BY account, id DESC
            account text, id bigint
            +---------+----+
            | account | id |
            +---------+----+
            | a       | 3  |
            | b       | 2  |
            +---------+----+
        "#]],
    );
}

#[test]
fn errors_are_those_of_postgresql() {
    check(
        &[
            "SELECT * FROM acounts",
            "SELECT * FROM nowhere.accounts",
            "SELECT amout FROM payments",
            "SELECT p.amout FROM payments p",
            "SELECT q.amount FROM payments p",
            "SELECT id FROM accounts JOIN payments ON account = accounts.id",
            "SELECT lowr(account) FROM payments",
            "SELECT frobnicate(id, 'x') FROM payments",
            "SELECT abs('x'), abs(account) FROM payments",
            "SELECT abs() FROM payments",
            "SELECT account + 1 FROM payments",
            "SELECT i FROM things WHERE i = true",
            "SELECT i FROM things WHERE i = 'x'",
            "SELECT u FROM things WHERE u = 'x'",
            "SELECT id, count(*) FROM payments GROUP BY account",
            "SELECT id FROM payments WHERE count(*) > 1",
            "SELECT id FROM payments HAVING id > 1",
            "SELECT id FROM payments WHERE id",
            "SELECT id FROM payments LIMIT 'x'",
            "SELECT id FROM payments LIMIT -1",
            "SELECT 1/0",
            "SELECT 'x'::int",
            "SELECT 'x'::uuid",
            "SELECT '{'::jsonb",
            "SELECT 'x'::frob",
            "SELECT true::uuid",
            "SELECT id FROM accounts UNION SELECT 1, 2",
            "SELECT * FROM accounts, accounts",
            "SELECT id FROM payments ORDER BY 7",
            "SELECT * FROM payments FOR SYSTEM_TIME AS OF '2026-01-01'",
            "SELECT (SELECT id, country FROM accounts)",
            "SELECT (SELECT id FROM accounts)",
            "SELECT f::int FROM things WHERE 2147483648::int = 1",
            "SELECT sum(account) FROM payments",
            "SELECT * FROM frob(1)",
            "SELECT 1 WHERE EXISTS (SELECT nope FROM accounts)",
        ],
        expect![[r#"
            > SELECT * FROM acounts
            42P01: relation "acounts" does not exist at 15
            HINT: Perhaps you meant "accounts".
            > SELECT * FROM nowhere.accounts
            42P01: relation "nowhere.accounts" does not exist at 23
            > SELECT amout FROM payments
            42703: column "amout" does not exist at 8
            HINT: Perhaps you meant the column "amount".
            > SELECT p.amout FROM payments p
            42703: column p.amout does not exist at 10
            HINT: Perhaps you meant the column "amount".
            > SELECT q.amount FROM payments p
            42P01: missing FROM-clause entry for table "q" at 10
            > SELECT id FROM accounts JOIN payments ON account = accounts.id
            42702: column reference "id" is ambiguous at 8
            > SELECT lowr(account) FROM payments
            42883: function lowr(text) does not exist at 8
            HINT: Perhaps you meant "lower".
            > SELECT frobnicate(id, 'x') FROM payments
            42883: function frobnicate(bigint, text) does not exist at 8
            HINT: No function matches the given name and argument types. You might need to add explicit type casts.
            > SELECT abs('x'), abs(account) FROM payments
            42883: function abs(text) does not exist at 8
            HINT: No function matches the given name and argument types. You might need to add explicit type casts.
            > SELECT abs() FROM payments
            42883: function abs() does not exist at 8
            HINT: No function matches the given name and argument types. You might need to add explicit type casts.
            > SELECT account + 1 FROM payments
            42883: operator does not exist: text + integer at 16
            HINT: No operator matches the given name and argument types. You might need to add explicit type casts.
            > SELECT i FROM things WHERE i = true
            42883: operator does not exist: integer = boolean at 30
            HINT: No operator matches the given name and argument types. You might need to add explicit type casts.
            > SELECT i FROM things WHERE i = 'x'
            22P02: invalid input syntax for type integer: "x" at 32
            > SELECT u FROM things WHERE u = 'x'
            22P02: invalid input syntax for type uuid: "x"
            > SELECT id, count(*) FROM payments GROUP BY account
            42803: column "payments.id" must appear in the GROUP BY clause or be used in an aggregate function at 8
            > SELECT id FROM payments WHERE count(*) > 1
            42803: aggregate functions are not allowed in WHERE
            > SELECT id FROM payments HAVING id > 1
            42803: column "payments.id" must appear in the GROUP BY clause or be used in an aggregate function at 8
            > SELECT id FROM payments WHERE id
            42804: argument of WHERE must be type boolean
            > SELECT id FROM payments LIMIT 'x'
            42804: argument of LIMIT must be type bigint at 25
            > SELECT id FROM payments LIMIT -1
            2201W: LIMIT must not be negative
            > SELECT 1/0
            22012: division by zero
            > SELECT 'x'::int
            22P02: invalid input syntax for type integer: "x"
            > SELECT 'x'::uuid
            22P02: invalid input syntax for type uuid: "x"
            > SELECT '{'::jsonb
            22P02: invalid input syntax for type json
            DETAIL: The value is "{": not JSON: expected a key, found the end of the record.
            > SELECT 'x'::frob
            42704: type "frob" does not exist at 13
            > SELECT true::uuid
            42846: cannot cast type boolean to uuid at 12
            > SELECT id FROM accounts UNION SELECT 1, 2
            42601: each UNION query must have the same number of columns
            > SELECT * FROM accounts, accounts
            42712: table name "accounts" specified more than once
            > SELECT id FROM payments ORDER BY 7
            42P10: ORDER BY position 7 is not in select list
            > SELECT * FROM payments FOR SYSTEM_TIME AS OF '2026-01-01'
            42601: syntax error at or near "SYSTEM_TIME" at 28
            > SELECT (SELECT id, country FROM accounts)
            42601: subquery must return only one column
            > SELECT (SELECT id FROM accounts)
            21000: more than one row returned by a subquery used as an expression
            > SELECT f::int FROM things WHERE 2147483648::int = 1
            22003: integer out of range
            > SELECT sum(account) FROM payments
            42883: function sum(text) does not exist at 8
            HINT: No function matches the given name and argument types. You might need to add explicit type casts.
            > SELECT * FROM frob(1)
            42883: function frob() does not exist at 15
            > SELECT 1 WHERE EXISTS (SELECT nope FROM accounts)
            42703: column "nope" does not exist at 31
        "#]],
    );
}

#[test]
fn functions_that_postgresql_users_expect_are_there() {
    let fixture = Fixture::new();
    let mut failed = String::new();
    for expr in [
        "now()",
        "current_timestamp",
        "current_date",
        "date_trunc('hour', now())",
        "date_part('year', now())",
        "extract(epoch from now())",
        "to_char(now(), '%Y')",
        "to_timestamp(0)",
        "to_date('2026-01-02', 'YYYY-MM-DD')",
        "make_date(2026, 1, 2)",
        "concat('a', 1)",
        "concat_ws(',', 'a', 'b')",
        "length('abc')",
        "char_length('abc')",
        "substr('abc', 2)",
        "substring('abc' from 2 for 1)",
        "position('b' in 'abc')",
        "strpos('abc', 'b')",
        "replace('abc', 'b', 'x')",
        "regexp_replace('abc', 'b', 'x')",
        "split_part('a,b', ',', 2)",
        "lpad('a', 3, '0')",
        "initcap('abc')",
        "left('abc', 1)",
        "right('abc', 1)",
        "md5('a')",
        "random()",
        "greatest(1, 2)",
        "least(1, 2)",
        "nullif(1, 2)",
        "coalesce(NULL, 2)",
        "round(1.25, 1)",
        "trunc(1.5)",
        "ceil(1.5)",
        "ceiling(1.5)",
        "floor(1.5)",
        "mod(5, 3)",
        "5 % 3",
        "power(2, 3)",
        "sqrt(4)",
        "abs(-1)",
        "sign(-2)",
        "ln(1)",
        "log(10)",
        "exp(0)",
        "pi()",
        "array_length(ARRAY[1,2], 1)",
        "cardinality(ARRAY[1,2])",
        "ARRAY[1,2][1]",
        "array_to_string(ARRAY['a'], ',')",
        "string_to_array('a,b', ',')",
        "array_append(ARRAY[1], 2)",
        "1 = ANY(ARRAY[1,2])",
        "gen_random_uuid()",
        "btrim(' a ')",
        "ltrim('a')",
        "trim(both 'x' from 'xax')",
        "upper('a')",
        "reverse('ab')",
        "repeat('a', 2)",
        "starts_with('abc', 'a')",
        "'abc' LIKE 'a%'",
        "'abc' ILIKE 'A%'",
        "'abc' ~ '^a'",
        "'abc' SIMILAR TO 'a.*'",
        "chr(65)",
        "ascii('A')",
        "to_hex(255)",
        "encode('a'::bytea, 'hex')",
        "jsonb_typeof('1'::jsonb)",
        "json_array_length('[1]'::json)",
        "now() - interval '1 day'",
        "interval '1 day' * 2",
        "isfinite(now())",
        "(timestamp '2026-01-01 10:00' AT TIME ZONE 'Europe/Amsterdam')",
        "age(now(), now())",
        "localtimestamp",
        "clock_timestamp()",
        "statement_timestamp()",
        "every(true)",
        "bool_or(true)",
        "stddev(1.0)",
        "count(DISTINCT 1)",
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY 1.0)",
        "json_build_object('a', 1)",
        "div(7, 2)",
        "factorial(3)",
        "date '2026-01-01' + 1",
        "date '2026-01-02' - date '2026-01-01'",
        "overlay('abc' placing 'x' from 2)",
        "regexp_match('abc', 'b')",
        "translate('abc', 'a', 'x')",
        "octet_length('a')",
        "bit_length('a')",
        "cbrt(8)",
        "degrees(1)",
        "atan2(1, 1)",
        "quote_literal('a')",
        "format('%s', 'a')",
        "to_json(1)",
        "row_to_json(ROW(1))",
    ] {
        if let Err(error) = fixture.run(&format!("SELECT {expr}"), vec![]) {
            failed += &format!("{expr}: {}\n", crate::fixture::show_error(&error));
        }
    }
    assert_eq!(failed, "");
}

#[test]
fn times_go_to_zones_and_back() {
    check(
        &[
            "SELECT (timestamp '2026-07-01 12:00' AT TIME ZONE 'Europe/Amsterdam')::text",
            "SELECT (timestamptz '2026-07-01 12:00+00' AT TIME ZONE 'Europe/Amsterdam')::text AS t",
            "SELECT at AT TIME ZONE 'nowhere' FROM payments",
        ],
        expect![[r#"
            > SELECT (timestamp '2026-07-01 12:00' AT TIME ZONE 'Europe/Amsterdam')::text
            timezone text
            +------------------------+
            | timezone               |
            +------------------------+
            | 2026-07-01 10:00:00+00 |
            +------------------------+
            > SELECT (timestamptz '2026-07-01 12:00+00' AT TIME ZONE 'Europe/Amsterdam')::text AS t
            t text
            +---------------------+
            | t                   |
            +---------------------+
            | 2026-07-01 14:00:00 |
            +---------------------+
            > SELECT at AT TIME ZONE 'nowhere' FROM payments
            22023: time zone "nowhere" not recognized
        "#]],
    );
}

#[test]
fn parameters_take_types_from_where_they_stand() {
    let fixture = Fixture::new();
    let mut shown = String::new();
    for sql in [
        "SELECT * FROM payments WHERE id = $1 AND amount > $2 AND at < $3",
        "SELECT $1::int, $2, lower($3) FROM things WHERE u = $4 LIMIT $5",
        "SELECT * FROM payments WHERE id IN ($1, $2) OR amount BETWEEN $3 AND 5 OR account LIKE $4",
        "SELECT coalesce($1, at), greatest(amount, $2), nullif($3, id), at + $4, CASE WHEN $5 THEN $6 ELSE id END FROM payments",
    ] {
        let types = match fixture.plan(sql, &[]) {
            Ok(planned) => planned.parameters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Err(error) => crate::fixture::show_error(&error),
        };
        shown += &format!("{sql}: {types}\n");
    }
    let five = datafusion::common::ScalarValue::Int64(Some(2));
    shown += &fixture.run("SELECT id FROM payments WHERE id = $1", vec![five]).unwrap();
    let declared = fixture.plan("SELECT $1 + 1", &[Some(tidewire_types::SqlType::Int2)]).unwrap();
    shown += &format!("\n{:?} {:?}", declared.parameters, declared.schema.field(0).data_type());
    expect![[r#"
        SELECT * FROM payments WHERE id = $1 AND amount > $2 AND at < $3: bigint, numeric, timestamp with time zone
        SELECT $1::int, $2, lower($3) FROM things WHERE u = $4 LIMIT $5: integer, text, text, uuid, bigint
        SELECT * FROM payments WHERE id IN ($1, $2) OR amount BETWEEN $3 AND 5 OR account LIKE $4: bigint, bigint, numeric, text
        SELECT coalesce($1, at), greatest(amount, $2), nullif($3, id), at + $4, CASE WHEN $5 THEN $6 ELSE id END FROM payments: timestamp with time zone, numeric, bigint, interval, boolean, bigint
        id bigint
        +----+
        | id |
        +----+
        | 2  |
        +----+
        [Int2] Int32"#]].assert_eq(&shown);
}

#[test]
fn deep_statements_are_refused_before_the_stack_ends() {
    let fixture = Fixture::new();
    let chain = |n: usize| format!("SELECT {}", vec!["1"; n].join(" + "));
    assert!(fixture.show(&chain(400)).contains("400"));
    assert!(fixture.show(&chain(20_000)).starts_with("54001"));
    let tables = |n: usize| {
        let names: Vec<String> = (0..n).map(|i| format!("payments p{i}")).collect();
        let equal: Vec<String> = (1..n).map(|i| format!("p{}.id = p{i}.id", i - 1)).collect();
        format!("SELECT p0.id FROM {} WHERE {}", names.join(", "), equal.join(" AND "))
    };
    assert!(!fixture.show(&tables(12)).starts_with("5"));
    assert!(fixture.show(&tables(1_000)).starts_with("54001"));
    let subqueries = |n: usize| {
        let level = |i: usize| format!("EXISTS (SELECT 1 FROM payments p{i} WHERE p{i}.id = p{}.id AND ", i - 1);
        let levels: String = (1..n).map(level).collect();
        format!("SELECT p0.id FROM payments p0 WHERE {levels} true{}", ")".repeat(n - 1))
    };
    assert!(!fixture.show(&subqueries(12)).starts_with("5"));
    assert!(fixture.show(&subqueries(1_000)).starts_with("54001"));
}

#[test]
fn a_plan_grows_with_the_number_of_its_subqueries_and_not_faster() {
    let fixture = Fixture::new();
    let n_nodes = |sql: &str| {
        let mut n = 0;
        let counted = fixture.plan(sql, &[]).unwrap().plan.apply_with_subqueries(|_| {
            n += 1;
            Ok(TreeNodeRecursion::Continue)
        });
        counted.unwrap();
        n
    };
    let one = |i: usize| format!("(SELECT max(q.id) FROM payments q WHERE q.id + {i} < p.id) AS m{i}");
    let in_list = |n: usize| {
        let list: Vec<String> = (0..n).map(one).collect();
        n_nodes(&format!("SELECT {} FROM payments p", list.join(", ")))
    };
    let lateral = |n: usize| {
        let item = |i: usize| {
            format!("LATERAL (SELECT q.id, count(*) AS n FROM payments q WHERE q.id < p{}.id GROUP BY 1) p{i}", i - 1)
        };
        let items: Vec<String> = (1..=n).map(item).collect();
        n_nodes(&format!("SELECT p0.id FROM payments p0, {}", items.join(", ")))
    };
    // A LATERAL item refers to the one before, which stands on the one before that.
    let shapes: [(&dyn Fn(usize) -> usize, usize); 2] = [(&in_list, 5), (&lateral, 25)];
    for (n_nodes, times) in shapes {
        let (few, many) = (n_nodes(4), n_nodes(16));
        assert!(many < times * few, "{few} nodes for 4 subqueries, {many} for 16");
    }
}

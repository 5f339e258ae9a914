//! Queries as users write them: names, types, rows and errors.

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
            "SELECT count FROM (SELECT count(*) FROM accounts) s ORDER BY count",
            "SELECT at - at AS d, extract(year from at), date_trunc('day', at), at + interval '1 hour', at::date, to_char(at, '%Y') FROM payments WHERE id = 1",
            "SELECT string_agg(id, ',' ORDER BY id), array_agg(id ORDER BY id DESC), bool_and(opened IS NULL) FROM accounts",
            "VALUES (1, 'a'), (2, NULL)",
            "SELECT a.id, b.id FROM accounts a JOIN accounts b ON a.id = b.id ORDER BY b.id DESC FETCH FIRST 1 ROW ONLY",
        ],
        expect![[""]],
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
            "SELECT x FROM generate_series(1, 3) AS t(x)",
            "SELECT unnest(array[1,2])",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
            "SELECT DISTINCT ON (account) account, id FROM payments ORDER BY account, id DESC",
        ],
        expect![[""]],
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
            "SELECT id FROM accounts EXCEPT ALL SELECT id FROM accounts",
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
        expect![[""]],
    );
}

//! Views as EXPLAIN shows them, and what cannot be maintained.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use expect_test::{Expect, expect};
use tidewire_operators::{Operator, StepContext};
use tidewire_types::{Delta, Epoch, Result};

use crate::fixture::{Fixture, query, show_error};
use crate::{Dataflow, NodeKind};

fn explain(fixture: &Fixture, sql: &str) -> String {
    let (query, text) = query(sql).unwrap();
    match fixture.context().dataflow(&query, &text) {
        Ok((flow, planned)) => {
            let types = |schema: &Schema| -> Vec<_> {
                schema.fields().iter().map(|f| (f.data_type().clone(), f.metadata().clone())).collect()
            };
            assert_eq!(types(&flow.nodes.last().unwrap().schema), types(&planned.schema));
            for (id, node) in flow.nodes.iter().enumerate() {
                assert!(node.inputs.iter().all(|input| *input < id), "inputs come first");
            }
            format!("{flow}\n-- {:?}", flow.identity)
        }
        Err(error) => show_error(&error),
    }
}

fn check(sqls: &[&str], expected: Expect) {
    let fixture = Fixture::new();
    let shown: Vec<_> = sqls.iter().map(|sql| format!("> {sql}\n{}\n", explain(&fixture, sql))).collect();
    expected.assert_eq(&shown.concat());
}

const VIEWS: &[&str] = &[
    "SELECT * FROM payments",
    "SELECT id AS x, amount * 2 FROM payments WHERE account = 'a' AND amount > 1 ORDER BY 1",
    "SELECT country, count(*) AS n, sum(amount) AS total FROM payments p JOIN accounts a ON p.account = a.id GROUP BY country",
    "SELECT country, count(*) FILTER (WHERE amount > 3), count(DISTINCT p.id), avg(amount), min(at) FROM payments p LEFT JOIN accounts a ON p.account = a.id AND amount > 3 GROUP BY country HAVING count(*) > 1",
    "SELECT country, count(*) FILTER (WHERE amount > 3) AS c, count(DISTINCT p.id) AS d, avg(amount), min(at) FROM payments p LEFT JOIN accounts a ON p.account = a.id AND amount > 3 GROUP BY country HAVING count(*) > 1",
    "SELECT count(*) FROM accounts",
    "SELECT DISTINCT account FROM payments",
    "SELECT id, account FROM payments ORDER BY amount DESC LIMIT 3 OFFSET 1",
    "SELECT id FROM accounts LIMIT 1",
    "SELECT * FROM per_account WHERE n > 1",
    "SELECT p.id, r.amount FROM payments p, rich r WHERE p.account = r.account AND p.amount < r.amount",
    "SELECT id FROM accounts WHERE id IN (SELECT account FROM payments WHERE amount > 3)",
    "SELECT id FROM accounts a WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.account = a.id AND p.amount > 5)",
    "SELECT id FROM payments WHERE account NOT IN (SELECT account FROM payments WHERE amount > 3)",
    "SELECT id FROM payments WHERE amount > (SELECT avg(amount) FROM payments)",
    "SELECT id, (SELECT max(opened) FROM accounts) AS newest FROM payments",
    "SELECT id, (SELECT sum(amount) FROM payments p WHERE p.account = a.id) AS total FROM accounts a",
    "SELECT id FROM accounts UNION ALL SELECT account FROM payments",
    "SELECT id FROM accounts UNION SELECT account FROM payments",
    "SELECT id FROM accounts EXCEPT SELECT account FROM payments",
    "SELECT id FROM accounts INTERSECT SELECT account FROM payments",
    "SELECT id FROM accounts EXCEPT ALL SELECT account FROM payments",
    "SELECT i, tag FROM things LEFT JOIN LATERAL unnest(tags) WITH ORDINALITY AS u(tag, n) ON n < i",
    "WITH RECURSIVE r AS (SELECT id FROM accounts UNION SELECT p.account FROM payments p JOIN r ON p.account > r.id) SELECT * FROM r",
    "WITH t AS (SELECT account, sum(amount) AS s FROM payments GROUP BY account) SELECT a.account FROM t a JOIN t b ON a.s = b.s",
    "SELECT a.id, b.id AS other FROM accounts a FULL JOIN payments b ON a.id = b.account",
    "SELECT a.id, b.amount FROM accounts a CROSS JOIN payments b",
    "SELECT a.id FROM accounts a JOIN payments b ON a.opened < b.at",
    "SELECT id FROM accounts WHERE country = 'NL' OR id IN (SELECT account FROM payments)",
    "SELECT id FROM payments WHERE id = 1 OR account NOT IN (SELECT id FROM accounts)",
    "VALUES (1, 'a'), (2, NULL)",
    "SELECT 1 AS one",
    "SELECT account, id FROM (SELECT account, id, row_number() OVER (PARTITION BY account ORDER BY amount DESC) AS rn FROM payments) s WHERE rn <= 2",
    "SELECT * FROM (SELECT account, id, row_number() OVER (PARTITION BY account ORDER BY amount DESC) AS rn FROM payments) s WHERE rn = 1",
    "SELECT DISTINCT ON (account) account, id FROM payments ORDER BY account, at DESC",
    "SELECT account, bool_or(amount > 1), array_agg(id ORDER BY id) AS ids FROM payments GROUP BY account",
    "SELECT x.id FROM payments x LEFT JOIN accounts y ON x.account = y.id",
    "SELECT upper(country) AS c, count(*) FROM accounts GROUP BY upper(country)",
    "SELECT count(*) FROM (SELECT 1 FROM accounts UNION ALL SELECT 2 FROM payments) s",
    "SELECT country, string_agg(id, ',' ORDER BY id) AS ids FROM accounts GROUP BY country",
    "SELECT string_agg(account, ',' ORDER BY account, id) AS s, stddev(amount) AS d FROM payments",
    "SELECT DISTINCT country FROM accounts",
    "SELECT account, count(DISTINCT id) AS n, sum(DISTINCT amount) AS s FROM payments GROUP BY account",
    "SELECT id FROM accounts a WHERE opened NOT IN (SELECT at::date FROM payments p WHERE p.account = a.id)",
    "SELECT id FROM accounts WHERE (opened IN (SELECT opened FROM accounts)) IS NULL",
    "SELECT a.id, p.id AS pid FROM accounts a RIGHT JOIN payments p ON p.account = a.id AND a.opened < p.at",
    "SELECT i::text AS t, u::text AS x, j->'k' AS k, v FROM things WHERE u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "SELECT id FROM payments WHERE amount = ANY (SELECT amount FROM payments WHERE id < 3)",
    "SELECT id FROM payments WHERE amount > ALL (SELECT amount FROM payments WHERE id = 2)",
    "SELECT id, rank() OVER (ORDER BY amount) FROM payments",
    "SELECT id, sum(amount) OVER (PARTITION BY account ORDER BY at RANGE BETWEEN interval '1 day' PRECEDING AND CURRENT ROW EXCLUDE TIES) AS s, lag(amount, 2, 0) OVER (PARTITION BY account ORDER BY at) AS l, count(*) FILTER (WHERE amount > 3) OVER (PARTITION BY upper(account)) AS n FROM payments",
    "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY amount) AS rn FROM payments) s WHERE rn <= 2 AND rn + 1 > id",
    "SELECT account, id, rn FROM (SELECT account, id, row_number() OVER (PARTITION BY account ORDER BY amount DESC) AS rn FROM payments) s WHERE rn <= 2",
    "SELECT account, sum(amount) AS s, sum(sum(amount)) OVER (ORDER BY account) AS running FROM payments GROUP BY account",
    "SELECT account, id FROM payments QUALIFY dense_rank() OVER (PARTITION BY account ORDER BY amount) = 1",
    "SELECT id, amount FROM payments ORDER BY amount DESC FETCH FIRST 2 ROWS WITH TIES",
    "SELECT a.id, x.id AS other FROM accounts a, LATERAL (SELECT id FROM payments p WHERE p.account = a.id ORDER BY amount LIMIT 1) x",
    "SELECT id, (SELECT sum(amount) FROM payments p WHERE p.at > a.opened) AS later FROM accounts a",
    "SELECT id, (SELECT country FROM accounts a WHERE a.id = p.account) AS country, (SELECT max(p2.id) FROM payments p2 WHERE p2.account = p.account) AS other FROM payments p",
];

#[test]
fn views_become_dataflows() {
    check(
        VIEWS,
        expect![[r#"
            > SELECT * FROM payments
            Input: payments, columns=[id, account, amount, at], append_only
            -- AppendOnly
            > SELECT id AS x, amount * 2 FROM payments WHERE account = 'a' AND amount > 1 ORDER BY 1
            IncrementalProjectionExec: expr=[id as x, amount * 2 as ?column?], append_only
              IncrementalFilterExec: predicate=account = a AND amount > 1.00, append_only
                Input: payments, columns=[id, account, amount], append_only
            -- AppendOnly
            > SELECT country, count(*) AS n, sum(amount) AS total FROM payments p JOIN accounts a ON p.account = a.id GROUP BY country
            IncrementalProjectionExec: expr=[country, count(Int64(1)) as n, sum(p.amount) as total], unique=(country)
              IncrementalAggregateExec: gby=[country], aggr=[count(*), sum(amount)], unique=(country)
                IncrementalProjectionExec: expr=[amount, country]
                  IncrementalJoinExec: join_type=Inner, on=[account = id]
                    IncrementalFilterExec: predicate=account IS NOT NULL, append_only
                      Input: payments, columns=[account, amount], append_only
                    Input: accounts, columns=[id, country], unique=(id)
            -- UniqueKey([0])
            > SELECT country, count(*) FILTER (WHERE amount > 3), count(DISTINCT p.id), avg(amount), min(at) FROM payments p LEFT JOIN accounts a ON p.account = a.id AND amount > 3 GROUP BY country HAVING count(*) > 1
            IncrementalProjectionExec: expr=[country, count(Int64(1)) FILTER (WHERE p.amount > CAST(Int64(3) AS Int32)) as count, count(DISTINCT p.id) as count, avg(p.amount) as avg, min(p.at) as min], unique=(country)
              IncrementalFilterExec: predicate=count(Int64(1)) > 1, unique=(country)
                IncrementalAggregateExec: gby=[country], aggr=[count(*) FILTER (WHERE $), count(DISTINCT id), avg(amount), min(at), count(*)], unique=(country)
                  IncrementalProjectionExec: expr=[country, amount > 3.00 as $, id, amount, at]
                    IncrementalJoinExec: join_type=Left, on=[account = id], filter=amount > 3.00
                      Input: payments, columns=[id, account, amount, at], append_only
                      Input: accounts, columns=[id, country], unique=(id)
            -- UniqueKey([0])
            > SELECT country, count(*) FILTER (WHERE amount > 3) AS c, count(DISTINCT p.id) AS d, avg(amount), min(at) FROM payments p LEFT JOIN accounts a ON p.account = a.id AND amount > 3 GROUP BY country HAVING count(*) > 1
            IncrementalProjectionExec: expr=[country, count(Int64(1)) FILTER (WHERE p.amount > CAST(Int64(3) AS Int32)) as c, count(DISTINCT p.id) as d, avg(p.amount) as avg, min(p.at) as min], unique=(country)
              IncrementalFilterExec: predicate=count(Int64(1)) > 1, unique=(country)
                IncrementalAggregateExec: gby=[country], aggr=[count(*) FILTER (WHERE $), count(DISTINCT id), avg(amount), min(at), count(*)], unique=(country)
                  IncrementalProjectionExec: expr=[country, amount > 3.00 as $, id, amount, at]
                    IncrementalJoinExec: join_type=Left, on=[account = id], filter=amount > 3.00
                      Input: payments, columns=[id, account, amount, at], append_only
                      Input: accounts, columns=[id, country], unique=(id)
            -- UniqueKey([0])
            > SELECT count(*) FROM accounts
            IncrementalProjectionExec: expr=[count(Int64(1)) as count], unique=()
              IncrementalAggregateExec: gby=[], aggr=[count(*)], unique=()
                Input: accounts, columns=[opened]
            -- UniqueKey([])
            > SELECT DISTINCT account FROM payments
            IncrementalAggregateExec: gby=[account], aggr=[], append_only, unique=(account)
              Input: payments, columns=[account], append_only
            -- AppendOnly
            > SELECT id, account FROM payments ORDER BY amount DESC LIMIT 3 OFFSET 1
            IncrementalProjectionExec: expr=[id, account]
              IncrementalTopNExec: order_by=[amount DESC], limit=3, offset=1
                Input: payments, columns=[id, account, amount], append_only
            -- Bag
            > SELECT id FROM accounts LIMIT 1
            IncrementalProjectionExec: expr=[id], unique=()
              IncrementalTopNExec: order_by=[], limit=1, unique=()
                Input: accounts, columns=[id], unique=(id)
            -- UniqueKey([])
            > SELECT * FROM per_account WHERE n > 1
            IncrementalFilterExec: predicate=n > 1, unique=(account)
              Input: per_account, columns=[account, n], unique=(account)
            -- UniqueKey([0])
            > SELECT p.id, r.amount FROM payments p, rich r WHERE p.account = r.account AND p.amount < r.amount
            IncrementalProjectionExec: expr=[id, amount], append_only
              IncrementalJoinExec: join_type=Inner, on=[account = account], filter=amount > amount, append_only
                IncrementalFilterExec: predicate=account IS NOT NULL, append_only
                  Input: payments, columns=[id, account, amount], append_only
                IncrementalProjectionExec: expr=[account, amount], append_only
                  IncrementalFilterExec: predicate=amount > 5.00 AND account IS NOT NULL, append_only
                    Input: payments, columns=[account, amount], append_only
            -- AppendOnly
            > SELECT id FROM accounts WHERE id IN (SELECT account FROM payments WHERE amount > 3)
            IncrementalJoinExec: join_type=LeftSemi, on=[id = column], unique=(id)
              Input: accounts, columns=[id], unique=(id)
              IncrementalProjectionExec: expr=[account as column], append_only
                IncrementalFilterExec: predicate=amount > 3.00 AND account IS NOT NULL, append_only
                  Input: payments, columns=[account, amount], append_only
            -- UniqueKey([0])
            > SELECT id FROM accounts a WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.account = a.id AND p.amount > 5)
            IncrementalJoinExec: join_type=LeftAnti, on=[id = account], unique=(id)
              Input: accounts, columns=[id], unique=(id)
              IncrementalProjectionExec: expr=[account], append_only
                IncrementalFilterExec: predicate=amount > 5.00 AND account IS NOT NULL, append_only
                  Input: payments, columns=[account, amount], append_only
            -- UniqueKey([0])
            > SELECT id FROM payments WHERE account NOT IN (SELECT account FROM payments WHERE amount > 3)
            IncrementalProjectionExec: expr=[id]
              IncrementalJoinExec: join_type=LeftAnti, on=[account = column], null_aware
                Input: payments, columns=[id, account], append_only
                IncrementalProjectionExec: expr=[account as column], append_only
                  IncrementalFilterExec: predicate=amount > 3.00, append_only
                    Input: payments, columns=[account, amount], append_only
            -- Bag
            > SELECT id FROM payments WHERE amount > (SELECT avg(amount) FROM payments)
            IncrementalProjectionExec: expr=[id]
              IncrementalFilterExec: predicate=CAST(amount AS Decimal128(38, 16)) > $1
                IncrementalJoinExec: join_type=Inner, on=[]
                  Input: payments, columns=[id, amount], append_only
                  IncrementalSingleRowExec, unique=()
                    IncrementalProjectionExec: expr=[avg(payments.amount) as avg], unique=()
                      IncrementalAggregateExec: gby=[], aggr=[avg(amount)], unique=()
                        Input: payments, columns=[amount], append_only
            -- Bag
            > SELECT id, (SELECT max(opened) FROM accounts) AS newest FROM payments
            IncrementalProjectionExec: expr=[id, $1 as newest]
              IncrementalJoinExec: join_type=Inner, on=[]
                Input: payments, columns=[id], append_only
                IncrementalSingleRowExec, unique=()
                  IncrementalProjectionExec: expr=[max(accounts.opened) as max], unique=()
                    IncrementalAggregateExec: gby=[], aggr=[max(opened)], unique=()
                      Input: accounts, columns=[opened]
            -- Bag
            > SELECT id, (SELECT sum(amount) FROM payments p WHERE p.account = a.id) AS total FROM accounts a
            IncrementalProjectionExec: expr=[id, column as total], unique=(id)
              IncrementalJoinExec: join_type=Left, on=[id = column], unique=(id)
                Input: accounts, columns=[id], unique=(id)
                IncrementalProjectionExec: expr=[sum(p.amount) as column, outer as column], unique=(column)
                  IncrementalAggregateExec: gby=[outer], aggr=[sum(amount)], unique=(outer)
                    IncrementalProjectionExec: expr=[amount, account as outer], append_only
                      IncrementalFilterExec: predicate=account IS NOT NULL, append_only
                        Input: payments, columns=[account, amount], append_only
            -- UniqueKey([0])
            > SELECT id FROM accounts UNION ALL SELECT account FROM payments
            IncrementalUnionExec
              Input: accounts, columns=[id], unique=(id)
              IncrementalProjectionExec: expr=[account as id], append_only
                Input: payments, columns=[account], append_only
            -- Bag
            > SELECT id FROM accounts UNION SELECT account FROM payments
            IncrementalAggregateExec: gby=[id], aggr=[], unique=(id)
              IncrementalUnionExec
                Input: accounts, columns=[id], unique=(id)
                IncrementalProjectionExec: expr=[account as id], append_only
                  Input: payments, columns=[account], append_only
            -- UniqueKey([0])
            > SELECT id FROM accounts EXCEPT SELECT account FROM payments
            IncrementalProjectionExec: expr=[id as id], unique=(id)
              IncrementalFilterExec: predicate=n_left > 0 AND n_right = 0, unique=(id)
                IncrementalAggregateExec: gby=[id], aggr=[count(left), count(right)], unique=(id)
                  IncrementalUnionExec
                    IncrementalProjectionExec: expr=[id, 1 as left, NULL as right], unique=(id)
                      Input: accounts, columns=[id], unique=(id)
                    IncrementalProjectionExec: expr=[account as id, NULL as left, 1 as right], append_only
                      Input: payments, columns=[account], append_only
            -- UniqueKey([0])
            > SELECT id FROM accounts INTERSECT SELECT account FROM payments
            IncrementalProjectionExec: expr=[id as id], unique=(id)
              IncrementalFilterExec: predicate=n_left > 0 AND n_right > 0, unique=(id)
                IncrementalAggregateExec: gby=[id], aggr=[count(left), count(right)], unique=(id)
                  IncrementalUnionExec
                    IncrementalProjectionExec: expr=[id, 1 as left, NULL as right], unique=(id)
                      Input: accounts, columns=[id], unique=(id)
                    IncrementalProjectionExec: expr=[account as id, NULL as left, 1 as right], append_only
                      Input: payments, columns=[account], append_only
            -- UniqueKey([0])
            > SELECT id FROM accounts EXCEPT ALL SELECT account FROM payments
            IncrementalProjectionExec: expr=[id as id]
              IncrementalFlatMapExec: functions=[copies(n_left - n_right)]
                IncrementalAggregateExec: gby=[id], aggr=[count(left), count(right)], unique=(id)
                  IncrementalUnionExec
                    IncrementalProjectionExec: expr=[id, 1 as left, NULL as right], unique=(id)
                      Input: accounts, columns=[id], unique=(id)
                    IncrementalProjectionExec: expr=[account as id, NULL as left, 1 as right], append_only
                      Input: payments, columns=[account], append_only
            -- Bag
            > SELECT i, tag FROM things LEFT JOIN LATERAL unnest(tags) WITH ORDINALITY AS u(tag, n) ON n < i
            IncrementalProjectionExec: expr=[i, unnest as tag]
              IncrementalFlatMapExec: functions=[unnest(tags)], filter=ordinality < CAST(i AS Int64), ordinality, outer
                Input: things, columns=[i, tags]
            -- Bag
            > WITH RECURSIVE r AS (SELECT id FROM accounts UNION SELECT p.account FROM payments p JOIN r ON p.account > r.id) SELECT * FROM r
            IncrementalRecursionExec: name=r, union=distinct, body=[IncrementalJoinExec, IncrementalProjectionExec], unique=(id)
              Input: accounts, columns=[id], unique=(id)
              Input: payments, columns=[account], append_only
            -- UniqueKey([0])
            > WITH t AS (SELECT account, sum(amount) AS s FROM payments GROUP BY account) SELECT a.account FROM t a JOIN t b ON a.s = b.s
            IncrementalProjectionExec: expr=[account]
              IncrementalJoinExec: join_type=Inner, on=[s = s]
                IncrementalProjectionExec: expr=[account, sum(payments.amount) as s], unique=(account)
                  IncrementalFilterExec: predicate=sum(payments.amount) IS NOT NULL, unique=(account)
                    #1 IncrementalAggregateExec: gby=[account], aggr=[sum(amount)], unique=(account)
                      Input: payments, columns=[account, amount], append_only
                IncrementalProjectionExec: expr=[sum(payments.amount) as s]
                  IncrementalFilterExec: predicate=sum(payments.amount) IS NOT NULL
                    IncrementalProjectionExec: expr=[sum(payments.amount)]
                      see #1
            -- Bag
            > SELECT a.id, b.id AS other FROM accounts a FULL JOIN payments b ON a.id = b.account
            IncrementalProjectionExec: expr=[id, id as other]
              IncrementalJoinExec: join_type=Full, on=[id = account]
                Input: accounts, columns=[id], unique=(id)
                Input: payments, columns=[id, account], append_only
            -- Bag
            > SELECT a.id, b.amount FROM accounts a CROSS JOIN payments b
            IncrementalJoinExec: join_type=Inner, on=[]
              Input: accounts, columns=[id], unique=(id)
              Input: payments, columns=[amount], append_only
            -- Bag
            > SELECT a.id FROM accounts a JOIN payments b ON a.opened < b.at
            IncrementalProjectionExec: expr=[id]
              IncrementalJoinExec: join_type=Inner, on=[], filter=timestamp with time zone(opened) < at
                Input: accounts, columns=[id, opened], unique=(id)
                Input: payments, columns=[at], append_only
            -- Bag
            > SELECT id FROM accounts WHERE country = 'NL' OR id IN (SELECT account FROM payments)
            IncrementalProjectionExec: expr=[id], unique=(id)
              IncrementalFilterExec: predicate=country = NL OR mark, unique=(id)
                IncrementalJoinExec: join_type=LeftMark, on=[id = column], unique=(id)
                  Input: accounts, columns=[id, country], unique=(id)
                  IncrementalProjectionExec: expr=[account as column], append_only
                    IncrementalFilterExec: predicate=account IS NOT NULL, append_only
                      Input: payments, columns=[account], append_only
            -- UniqueKey([0])
            > SELECT id FROM payments WHERE id = 1 OR account NOT IN (SELECT id FROM accounts)
            IncrementalProjectionExec: expr=[id]
              IncrementalFilterExec: predicate=id = 1 OR NOT mark AND (account IS NULL AND mark AND NULL OR account IS NOT NULL OR NOT mark)
                IncrementalJoinExec: join_type=LeftMark, on=[]
                  IncrementalFilterExec: predicate=id = 1 OR NOT mark
                    IncrementalJoinExec: join_type=LeftMark, on=[account = column]
                      Input: payments, columns=[id, account], append_only
                      IncrementalProjectionExec: expr=[id as column], unique=(column)
                        Input: accounts, columns=[id], unique=(id)
                  IncrementalProjectionExec: expr=[true as row]
                    IncrementalAggregateExec: gby=[row], aggr=[], unique=(row)
                      IncrementalProjectionExec: expr=[true as row]
                        Input: accounts, columns=[opened]
            -- Bag
            > VALUES (1, 'a'), (2, NULL)
            IncrementalProjectionExec: expr=[column1, CAST(column2 AS Utf8View) as column2], append_only
              Constant: rows=2, append_only
            -- AppendOnly
            > SELECT 1 AS one
            IncrementalProjectionExec: expr=[1 as one], append_only, unique=()
              Constant: rows=1, append_only, unique=()
            -- AppendOnly
            > SELECT account, id FROM (SELECT account, id, row_number() OVER (PARTITION BY account ORDER BY amount DESC) AS rn FROM payments) s WHERE rn <= 2
            IncrementalProjectionExec: expr=[account, id]
              IncrementalTopNExec: partition_by=[account], order_by=[amount DESC, id], limit=2
                Input: payments, columns=[id, account, amount], append_only
            -- Bag
            > SELECT * FROM (SELECT account, id, row_number() OVER (PARTITION BY account ORDER BY amount DESC) AS rn FROM payments) s WHERE rn = 1
            IncrementalProjectionExec: expr=[account, id, 1 as rn], unique=(account)
              IncrementalTopNExec: partition_by=[account], order_by=[amount DESC, id], limit=1, unique=(account)
                Input: payments, columns=[id, account, amount], append_only
            -- UniqueKey([0])
            > SELECT DISTINCT ON (account) account, id FROM payments ORDER BY account, at DESC
            IncrementalProjectionExec: expr=[account as account, id as id], unique=(account)
              IncrementalTopNExec: partition_by=[account], order_by=[account, at DESC], limit=1, unique=(account)
                IncrementalProjectionExec: expr=[account, id, at], append_only
                  Input: payments, columns=[id, account, at], append_only
            -- UniqueKey([0])
            > SELECT account, bool_or(amount > 1), array_agg(id ORDER BY id) AS ids FROM payments GROUP BY account
            IncrementalProjectionExec: expr=[account, bool_or(payments.amount > CAST(Int64(1) AS Int32)) as bool_or, array_agg(payments.id) ORDER BY [payments.id ASC NULLS LAST] as ids], unique=(account)
              IncrementalAggregateExec: gby=[account], aggr=[bool_or($), array_agg(id ORDER BY id)], unique=(account)
                IncrementalProjectionExec: expr=[account, amount > 1.00 as $, id], append_only
                  Input: payments, columns=[id, account, amount], append_only
            -- UniqueKey([0])
            > SELECT x.id FROM payments x LEFT JOIN accounts y ON x.account = y.id
            IncrementalProjectionExec: expr=[id]
              IncrementalJoinExec: join_type=Left, on=[account = id]
                Input: payments, columns=[id, account], append_only
                Input: accounts, columns=[id], unique=(id)
            -- Bag
            > SELECT upper(country) AS c, count(*) FROM accounts GROUP BY upper(country)
            IncrementalProjectionExec: expr=[upper(accounts.country) as c, count(Int64(1)) as count], unique=(c)
              IncrementalAggregateExec: gby=[$], aggr=[count(*)], unique=(upper(accounts.country))
                IncrementalProjectionExec: expr=[upper(country) as $]
                  Input: accounts, columns=[country]
            -- UniqueKey([0])
            > SELECT count(*) FROM (SELECT 1 FROM accounts UNION ALL SELECT 2 FROM payments) s
            IncrementalProjectionExec: expr=[count(Int64(1)) as count], unique=()
              IncrementalAggregateExec: gby=[], aggr=[count(*)], unique=()
                IncrementalUnionExec
                  IncrementalProjectionExec: expr=[true as $]
                    Input: accounts, columns=[opened]
                  IncrementalProjectionExec: expr=[true as $], append_only
                    Input: payments, columns=[id], append_only
            -- UniqueKey([])
            > SELECT country, string_agg(id, ',' ORDER BY id) AS ids FROM accounts GROUP BY country
            IncrementalProjectionExec: expr=[country, string_agg(accounts.id,Utf8(",")) ORDER BY [accounts.id ASC NULLS LAST] as ids], unique=(country)
              IncrementalAggregateExec: gby=[country], aggr=[string_agg(id, $ ORDER BY id)], unique=(country)
                IncrementalProjectionExec: expr=[country, id, , as $], unique=(id)
                  Input: accounts, columns=[id, country], unique=(id)
            -- UniqueKey([0])
            > SELECT string_agg(account, ',' ORDER BY account, id) AS s, stddev(amount) AS d FROM payments
            IncrementalProjectionExec: expr=[string_agg(payments.account,Utf8(",")) ORDER BY [payments.account ASC NULLS LAST,payments.id ASC NULLS LAST] as s, stddev(payments.amount) as d], unique=()
              IncrementalAggregateExec: gby=[], aggr=[string_agg(account, $ ORDER BY account, id), stddev_samp(amount)], unique=()
                IncrementalProjectionExec: expr=[account, , as $, id, amount], append_only
                  Input: payments, columns=[id, account, amount], append_only
            -- UniqueKey([])
            > SELECT DISTINCT country FROM accounts
            IncrementalAggregateExec: gby=[country], aggr=[], unique=(country)
              Input: accounts, columns=[country]
            -- UniqueKey([0])
            > SELECT account, count(DISTINCT id) AS n, sum(DISTINCT amount) AS s FROM payments GROUP BY account
            IncrementalProjectionExec: expr=[account, count(DISTINCT payments.id) as n, sum(DISTINCT payments.amount) as s], unique=(account)
              IncrementalAggregateExec: gby=[account], aggr=[count(DISTINCT id), sum(DISTINCT amount)], unique=(account)
                Input: payments, columns=[id, account, amount], append_only
            -- UniqueKey([0])
            > SELECT id FROM accounts a WHERE opened NOT IN (SELECT at::date FROM payments p WHERE p.account = a.id)
            IncrementalProjectionExec: expr=[id], unique=(id)
              IncrementalFilterExec: predicate=(mark OR opened IS NULL AND mark) AND NULL OR NOT mark AND (opened IS NOT NULL OR NOT mark), unique=(id)
                IncrementalJoinExec: join_type=LeftMark, on=[id = column], unique=(id)
                  IncrementalFilterExec: predicate=(mark OR opened IS NULL) AND NULL OR NOT mark, unique=(id)
                    IncrementalJoinExec: join_type=LeftMark, on=[id = account], unique=(id)
                      IncrementalProjectionExec: expr=[id, opened], unique=(id)
                        IncrementalFilterExec: predicate=NOT mark, unique=(id)
                          IncrementalJoinExec: join_type=LeftMark, on=[id = column, opened = $], unique=(id)
                            Input: accounts, columns=[id, opened], unique=(id)
                            IncrementalProjectionExec: expr=[account as column, at as column, date(at) as $], append_only
                              IncrementalFilterExec: predicate=account IS NOT NULL AND date(at) IS NOT NULL, append_only
                                #1 Input: payments, columns=[account, at], append_only
                      IncrementalProjectionExec: expr=[account], append_only
                        IncrementalFilterExec: predicate=account IS NOT NULL AND date(at) IS NULL, append_only
                          see #1
                  IncrementalProjectionExec: expr=[account as column], append_only
                    IncrementalFilterExec: predicate=account IS NOT NULL, append_only
                      Input: payments, columns=[account], append_only
            -- UniqueKey([0])
            > SELECT id FROM accounts WHERE (opened IN (SELECT opened FROM accounts)) IS NULL
            IncrementalProjectionExec: expr=[id], unique=(id)
              IncrementalFilterExec: predicate=mark OR (mark OR opened IS NULL AND mark) AND NOT mark AND NULL IS NULL, unique=(id)
                IncrementalJoinExec: join_type=LeftMark, on=[], unique=(id)
                  IncrementalJoinExec: join_type=LeftMark, on=[], unique=(id)
                    IncrementalJoinExec: join_type=LeftMark, on=[opened = column], unique=(id)
                      Input: accounts, columns=[id, opened], unique=(id)
                      IncrementalProjectionExec: expr=[opened as column]
                        IncrementalFilterExec: predicate=opened IS NOT NULL
                          #1 Input: accounts, columns=[opened]
                    IncrementalProjectionExec: expr=[true as row]
                      IncrementalAggregateExec: gby=[row], aggr=[], unique=(row)
                        IncrementalProjectionExec: expr=[true as row]
                          IncrementalProjectionExec: expr=[true as $]
                            IncrementalFilterExec: predicate=opened IS NULL
                              see #1
                  IncrementalProjectionExec: expr=[true as row]
                    IncrementalAggregateExec: gby=[row], aggr=[], unique=(row)
                      IncrementalProjectionExec: expr=[true as row]
                        see #1
            -- UniqueKey([0])
            > SELECT a.id, p.id AS pid FROM accounts a RIGHT JOIN payments p ON p.account = a.id AND a.opened < p.at
            IncrementalProjectionExec: expr=[id, id as pid]
              IncrementalJoinExec: join_type=Right, on=[id = account], filter=timestamp with time zone(opened) < at
                Input: accounts, columns=[id, opened], unique=(id)
                Input: payments, columns=[id, account, at], append_only
            -- Bag
            > SELECT i::text AS t, u::text AS x, j->'k' AS k, v FROM things WHERE u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'
            IncrementalProjectionExec: expr=[text(i) as t, text(u) as x, ->(j, k) as k, v]
              IncrementalFilterExec: predicate=u = a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11
                Input: things, columns=[i, u, j, v]
            -- Bag
            > SELECT id FROM payments WHERE amount = ANY (SELECT amount FROM payments WHERE id < 3)
            IncrementalProjectionExec: expr=[id], append_only
              IncrementalJoinExec: join_type=LeftSemi, on=[amount = column], append_only
                IncrementalFilterExec: predicate=amount IS NOT NULL, append_only
                  #0 Input: payments, columns=[id, amount], append_only
                IncrementalProjectionExec: expr=[amount as column], append_only
                  IncrementalFilterExec: predicate=id < 3 AND amount IS NOT NULL, append_only
                    see #0
            -- AppendOnly
            > SELECT id FROM payments WHERE amount > ALL (SELECT amount FROM payments WHERE id = 2)
            IncrementalProjectionExec: expr=[id]
              IncrementalJoinExec: join_type=Inner, on=[], filter=column = 0 OR (amount IS NULL OR column < column) AND column != 0 AND (column >= amount) IS DISTINCT FROM true AND NULL OR column != 0 AND (column >= amount) IS DISTINCT FROM true AND amount IS NOT NULL AND column >= column
                #0 Input: payments, columns=[id, amount], append_only
                IncrementalProjectionExec: expr=[value as column, value as column, value as column], unique=()
                  IncrementalFilterExec: predicate=value = 0 OR value != 0 AND NULL OR value != 0 AND value >= value, unique=()
                    IncrementalAggregateExec: gby=[], aggr=[count(*), count(amount), max(amount)], unique=()
                      IncrementalProjectionExec: expr=[amount], append_only
                        IncrementalFilterExec: predicate=id = 2, append_only
                          see #0
            -- Bag
            > SELECT id, rank() OVER (ORDER BY amount) FROM payments
            IncrementalProjectionExec: expr=[id, rank() ORDER BY [payments.amount ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING as rank]
              IncrementalWindowExec: order_by=[amount], wdw=[rank()]
                Input: payments, columns=[id, amount], append_only
            -- Bag
            > SELECT id, sum(amount) OVER (PARTITION BY account ORDER BY at RANGE BETWEEN interval '1 day' PRECEDING AND CURRENT ROW EXCLUDE TIES) AS s, lag(amount, 2, 0) OVER (PARTITION BY account ORDER BY at) AS l, count(*) FILTER (WHERE amount > 3) OVER (PARTITION BY upper(account)) AS n FROM payments
            IncrementalProjectionExec: expr=[id, sum(payments.amount) PARTITION BY [Utf8View(",preceding,current,ties"), IntervalMonthDayNano("IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 0 }"), payments.account] ORDER BY [payments.at ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING as s, lag(payments.amount,Int64(2),Int64(0)) PARTITION BY [payments.account] ORDER BY [payments.at ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING as l, count(Int64(1)) FILTER (WHERE payments.amount > CAST(Int64(3) AS Int32)) PARTITION BY [upper(payments.account)] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING as n]
              IncrementalWindowExec: partition_by=[$], wdw=[count(*) FILTER (WHERE $) RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW]
                IncrementalProjectionExec: expr=[id, account, amount, at, lag(payments.amount,Int64(2),Int64(0)) PARTITION BY [payments.account] ORDER BY [payments.at ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING, sum(payments.amount) PARTITION BY [Utf8View(",preceding,current,ties"), IntervalMonthDayNano("IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 0 }"), payments.account] ORDER BY [payments.at ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING as sum(payments.amount) PARTITION BY [Utf8View(", upper(account) as $, amount > 3.00 as $]
                  IncrementalWindowExec: partition_by=[account], order_by=[at], wdw=[lag(amount, 2, 0.00), sum(amount) RANGE BETWEEN IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 0 } PRECEDING AND CURRENT ROW EXCLUDE TIES]
                    Input: payments, columns=[id, account, amount, at], append_only
            -- Bag
            > SELECT id FROM (SELECT id, row_number() OVER (ORDER BY amount) AS rn FROM payments) s WHERE rn <= 2 AND rn + 1 > id
            IncrementalProjectionExec: expr=[id]
              IncrementalFilterExec: predicate=+(row_number() ORDER BY [payments.amount ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING, 1) > id, unique=(row_number() ORDER BY [payments.amount ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
                IncrementalProjectionExec: expr=[id, row_number() ORDER BY [payments.amount ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING], unique=(row_number() ORDER BY [payments.amount ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
                  IncrementalWindowExec: order_by=[amount], wdw=[row_number()], unique=(row_number() ORDER BY [payments.amount ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
                    IncrementalTopNExec: order_by=[amount, id], limit=2
                      Input: payments, columns=[id, amount], append_only
            -- Bag
            > SELECT account, id, rn FROM (SELECT account, id, row_number() OVER (PARTITION BY account ORDER BY amount DESC) AS rn FROM payments) s WHERE rn <= 2
            IncrementalProjectionExec: expr=[account, id, row_number() PARTITION BY [payments.account] ORDER BY [payments.amount DESC NULLS FIRST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING as rn], unique=(account, rn)
              IncrementalWindowExec: partition_by=[account], order_by=[amount DESC], wdw=[row_number()], unique=(account, row_number() PARTITION BY [payments.account] ORDER BY [payments.amount DESC NULLS FIRST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
                IncrementalTopNExec: partition_by=[account], order_by=[amount DESC, id], limit=2
                  Input: payments, columns=[id, account, amount], append_only
            -- UniqueKey([0, 2])
            > SELECT account, sum(amount) AS s, sum(sum(amount)) OVER (ORDER BY account) AS running FROM payments GROUP BY account
            IncrementalProjectionExec: expr=[account, sum(payments.amount) as s, sum(sum(payments.amount)) ORDER BY [payments.account ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING as running], unique=(account)
              IncrementalWindowExec: order_by=[account], wdw=[sum(sum(payments.amount)) RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW], unique=(account)
                IncrementalAggregateExec: gby=[account], aggr=[sum(amount)], unique=(account)
                  Input: payments, columns=[account, amount], append_only
            -- UniqueKey([0])
            > SELECT account, id FROM payments QUALIFY dense_rank() OVER (PARTITION BY account ORDER BY amount) = 1
            IncrementalProjectionExec: expr=[account, id]
              IncrementalFilterExec: predicate=dense_rank() PARTITION BY [payments.account] ORDER BY [payments.amount ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING = 1
                IncrementalProjectionExec: expr=[id, account, dense_rank() PARTITION BY [payments.account] ORDER BY [payments.amount ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING]
                  IncrementalWindowExec: partition_by=[account], order_by=[amount], wdw=[dense_rank()]
                    Input: payments, columns=[id, account, amount], append_only
            -- Bag
            > SELECT id, amount FROM payments ORDER BY amount DESC FETCH FIRST 2 ROWS WITH TIES
            IncrementalProjectionExec: expr=[id, amount]
              IncrementalFilterExec: predicate=rank() ORDER BY [payments.amount DESC NULLS FIRST] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING <= 2
                IncrementalWindowExec: order_by=[amount DESC], wdw=[rank()]
                  Input: payments, columns=[id, amount], append_only
            -- Bag
            > SELECT a.id, x.id AS other FROM accounts a, LATERAL (SELECT id FROM payments p WHERE p.account = a.id ORDER BY amount LIMIT 1) x
            IncrementalProjectionExec: expr=[id, id as other], unique=(id)
              IncrementalJoinExec: join_type=Inner, on=[id = outer], unique=(id), unique=(outer)
                Input: accounts, columns=[id], unique=(id)
                IncrementalProjectionExec: expr=[id, outer as outer], unique=(outer)
                  IncrementalTopNExec: partition_by=[outer], order_by=[amount, id, amount], limit=1, unique=(outer)
                    IncrementalProjectionExec: expr=[id, amount, account as outer], append_only
                      IncrementalFilterExec: predicate=account IS NOT NULL, append_only
                        Input: payments, columns=[id, account, amount], append_only
            -- UniqueKey([0])
            > SELECT id, (SELECT sum(amount) FROM payments p WHERE p.at > a.opened) AS later FROM accounts a
            IncrementalProjectionExec: expr=[id, column as later], unique=(id)
              IncrementalJoinExec: join_type=Left, on=[opened = column], null_equals_null, unique=(id)
                Input: accounts, columns=[id, opened], unique=(id)
                IncrementalProjectionExec: expr=[sum(p.amount) as column, outer as column], unique=(column)
                  IncrementalAggregateExec: gby=[outer], aggr=[sum(amount)], unique=(outer)
                    IncrementalProjectionExec: expr=[amount, outer as outer]
                      IncrementalJoinExec: join_type=Inner, on=[], filter=at > timestamp with time zone(outer)
                        Input: payments, columns=[amount, at], append_only
                        IncrementalAggregateExec: gby=[outer], aggr=[], unique=(outer)
                          IncrementalProjectionExec: expr=[opened as outer]
                            Input: accounts, columns=[opened]
            -- UniqueKey([0])
            > SELECT id, (SELECT country FROM accounts a WHERE a.id = p.account) AS country, (SELECT max(p2.id) FROM payments p2 WHERE p2.account = p.account) AS other FROM payments p
            IncrementalProjectionExec: expr=[id, column as country, column as other]
              IncrementalJoinExec: join_type=Left, on=[account = column]
                IncrementalProjectionExec: expr=[id, account, column as column]
                  IncrementalJoinExec: join_type=Left, on=[account = column]
                    #0 Input: payments, columns=[id, account], append_only
                    IncrementalProjectionExec: expr=[country as column, id as column], unique=(column)
                      Input: accounts, columns=[id, country], unique=(id)
                IncrementalProjectionExec: expr=[max(p2.id) as column, outer as column], unique=(column)
                  IncrementalAggregateExec: gby=[outer], aggr=[max(id)], unique=(outer)
                    IncrementalProjectionExec: expr=[id, account as outer], append_only
                      IncrementalFilterExec: predicate=account IS NOT NULL, append_only
                        see #0
            -- Bag
        "#]],
    );
}

/// The rows of a view, computed by its dataflow: half of each input, the other half, and then, where an input may
/// shrink, all of it taken away and put back.
fn maintained(fixture: &Fixture, flow: &Dataflow) -> Result<Vec<String>> {
    let row_errors = Default::default();
    let mut running: Vec<Option<Box<dyn Operator>>> = vec![];
    for node in &flow.nodes {
        running.push(match &node.kind {
            NodeKind::Operator(plan) => Some(plan.build(0)?),
            NodeKind::Input(_) | NodeKind::Constant(_) => None,
        });
    }
    let mut view: BTreeMap<String, i64> = BTreeMap::new();
    for step in 0..4_u32 {
        let cx = StepContext { epoch: Epoch(step + 1), now_us: 0, row_errors: &row_errors };
        let mut outputs: Vec<Vec<Delta>> = vec![];
        for (node, operator) in flow.nodes.iter().zip(&mut running) {
            let mut out = vec![];
            match (&node.kind, operator) {
                (NodeKind::Input(input), _) => {
                    let rows = fixture.rows_of(input.object).project(&input.columns)?;
                    let half = rows.num_rows() / 2;
                    let append_only = node.properties.append_only;
                    match step {
                        0 => out.push(Delta::insert(rows.slice(0, half))),
                        1 => out.push(Delta::insert(rows.slice(half, rows.num_rows() - half))),
                        2 if !append_only => out.push(Delta::delete(rows)),
                        3 if !append_only => out.push(Delta::insert(rows)),
                        _ => {}
                    }
                }
                (NodeKind::Constant(rows), _) if step == 0 => out.push(Delta::insert(rows.clone())),
                (NodeKind::Operator(_), Some(operator)) => {
                    if step == 0 {
                        operator.start(&cx, &mut out)?;
                    }
                    let mut inputs: Vec<Vec<Delta>> = node.inputs.iter().map(|id| outputs[*id].clone()).collect();
                    operator.step(&mut inputs, &cx, &mut out)?;
                }
                _ => {}
            }
            outputs.push(out);
        }
        for delta in outputs.pop().unwrap_or_default() {
            for (idx, row) in rows_as_text(delta.rows()).into_iter().enumerate() {
                *view.entry(row).or_default() += delta.weight(idx);
            }
        }
    }
    assert!(view.values().all(|weight| *weight >= 0), "negative weights: {view:?}");
    Ok(view.into_iter().flat_map(|(row, weight)| vec![row; weight as usize]).collect())
}

fn rows_as_text(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = rows.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    (0..rows.num_rows())
        .map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" | "))
        .collect()
}

#[test]
fn a_dataflow_gives_what_the_query_gives() {
    let fixture = Fixture::new();
    for sql in VIEWS {
        let (query, text) = query(sql).unwrap();
        let Ok((flow, _)) = fixture.context().dataflow(&query, &text) else { continue };
        // Which rows an unordered LIMIT takes is for each to choose.
        if sql.contains("LIMIT 1") {
            continue;
        }
        let planned = fixture.plan(sql, &[]).unwrap();
        let batches = fixture.batches(&planned, vec![]).unwrap();
        let mut expected: Vec<String> = batches.iter().flat_map(rows_as_text).collect();
        expected.sort();
        let found = maintained(&fixture, &flow).unwrap_or_else(|e| panic!("{sql}: {e}\n{flow}"));
        assert_eq!(found, expected, "{sql}\n{flow}");
    }
}

#[test]
fn what_cannot_be_maintained_is_refused_by_name() {
    check(
        &[
            "SELECT random() FROM payments",
            "SELECT id FROM payments WHERE at > now() - interval '1 hour'",
            "SELECT current_date",
            "SELECT id FROM payments WHERE id = $1",
            "SELECT nope FROM payments",
        ],
        expect![[r#"
            > SELECT random() FROM payments
            0A000: a materialized view cannot use random()
            DETAIL: A row that must be retracted later could not be computed again.
            HINT: Compute random() in the query that reads the view.
            > SELECT id FROM payments WHERE at > now() - interval '1 hour'
            0A000: a materialized view cannot use now()
            DETAIL: Its rows would have to change as time passes, without any input.
            HINT: Compute now() in the query that reads the view, or compare with a column there.
            > SELECT current_date
            0A000: a materialized view cannot use current_date()
            DETAIL: Its rows would have to change as time passes, without any input.
            HINT: Compute current_date() in the query that reads the view, or compare with a column there.
            > SELECT id FROM payments WHERE id = $1
            42P02: there is no parameter $1
            > SELECT nope FROM payments
            42703: column "nope" does not exist at 8
        "#]],
    );
}

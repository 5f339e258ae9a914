//! INSERT, UPDATE and DELETE: the rows that they make, and what is refused.

use arrow::array::RecordBatch;
use arrow::compute;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use expect_test::{Expect, expect};
use futures::TryStreamExt;
use tidewire_operators::expr::sql_error;
use tidewire_sql::Statement;
use tidewire_types::{Result, SqlType};

use crate::fixture::{Fixture, show_error};
use crate::{InsertRows, OnConflict, Planned, Returning, execute};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn collect(stream: SendableRecordBatchStream) -> Result<RecordBatch> {
    let schema = stream.schema();
    let batches: Vec<_> = stream.try_collect().await.map_err(sql_error)?;
    Ok(compute::concat_batches(&schema, &batches)?)
}

fn shown(batch: &RecordBatch) -> String {
    pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string()
}

struct Run<'a> {
    fixture: &'a Fixture,
    parameters: Vec<ScalarValue>,
    shown: String,
}

impl Run<'_> {
    fn rows(&mut self, planned: &Planned) -> Result<RecordBatch> {
        let stream = execute(planned, self.parameters.clone(), &self.fixture.session);
        let rows = block_on(async { collect(stream.await?).await })?;
        self.shown += &shown(&rows);
        Ok(rows)
    }

    fn returning(&mut self, returning: Option<&Returning>, rows: &RecordBatch) -> Result<()> {
        let Some(returning) = returning else { return Ok(()) };
        let stream = returning.evaluate(rows, self.parameters.clone(), &self.fixture.session);
        let rows = block_on(async { collect(stream.await?).await })?;
        self.shown += &format!("\nRETURNING {:?}\n{}", types(&returning.schema), shown(&rows));
        Ok(())
    }

    fn statement(&mut self, sql: &str) -> Result<()> {
        let parsed = tidewire_sql::parse(sql)?.remove(0);
        let (cx, text) = (self.fixture.context(), &parsed.text);
        match &parsed.statement {
            Statement::Insert(insert) => {
                let insert = cx.insert(insert, text, &[])?;
                self.parameters(&insert.parameters);
                let rows = match &insert.rows {
                    InsertRows::Values(values) => {
                        let rows = values.evaluate(&self.parameters, &self.fixture.session)?;
                        self.shown += &shown(&rows);
                        rows
                    }
                    InsertRows::Query(planned) => self.rows(planned)?,
                };
                if let OnConflict::DoUpdate(update) = &insert.on_conflict {
                    let bound = update.bind(&self.parameters, &self.fixture.session)?;
                    let (updated, written) = bound.resolve(&rows, &rows)?;
                    self.shown += &format!("\nDO UPDATE {written:?}\n{}", shown(&updated));
                }
                self.returning(insert.returning.as_ref(), &rows)
            }
            Statement::Update(update) => {
                let update = cx.update(update, text, &[])?;
                self.parameters(&update.parameters);
                let rows = self.rows(&update.rows)?;
                let n = update.table.columns.len();
                let new = rows.project(&(n..2 * n).collect::<Vec<_>>())?;
                self.returning(update.returning.as_ref(), &new)
            }
            Statement::Delete(delete) => {
                let delete = cx.delete(delete, text, &[])?;
                self.parameters(&delete.parameters);
                let rows = self.rows(&delete.rows)?;
                self.returning(delete.returning.as_ref(), &rows)
            }
            other => panic!("no DML: {other:?}"),
        }
    }

    fn parameters(&mut self, types: &[SqlType]) {
        if !types.is_empty() {
            let types: Vec<_> = types.iter().map(ToString::to_string).collect();
            self.shown += &format!("parameters: {}\n", types.join(", "));
        }
    }
}

fn types(schema: &arrow::datatypes::Schema) -> Vec<String> {
    schema.fields().iter().map(|f| format!("{} {}", f.name(), SqlType::of(f))).collect()
}

fn check_with(parameters: &[ScalarValue], sqls: &[&str], expected: Expect) {
    let fixture = Fixture::new();
    let mut all = String::new();
    for sql in sqls {
        let mut run = Run { fixture: &fixture, parameters: parameters.to_vec(), shown: String::new() };
        let result = run.statement(sql);
        let error = result.err().map(|e| show_error(&e)).unwrap_or_default();
        all += &format!("> {sql}\n{}{error}\n", run.shown);
    }
    expected.assert_eq(&all);
}

fn check(sqls: &[&str], expected: Expect) {
    check_with(&[], sqls, expected);
}

#[test]
fn insert_makes_rows_of_the_table() {
    check(
        &[
            "INSERT INTO accounts VALUES ('a', 'NL', '2026-02-01'), ('b', 'DE', DEFAULT), ('c', 'FR', NULL)",
            "INSERT INTO accounts (country, id) VALUES ('NL', 1) RETURNING id, upper(country) AS c, *",
            "INSERT INTO accounts AS x (id, country) SELECT account, 'NL' FROM payments WHERE amount > 3 RETURNING x.id",
            "INSERT INTO things (i, f, u, j, v, b, s, tags) VALUES (2.5, 1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{\"b\":1,\"a\":2}', 'abc  ', 'yes', NULL, '{x,\"y z\"}'), (1, 0.5, NULL, NULL, 12, true, struct(7 AS x), ARRAY['q'])",
            "INSERT INTO things (i) VALUES ((SELECT count(*) FROM accounts))",
            "INSERT INTO things DEFAULT VALUES",
            "INSERT INTO accounts VALUES ('a', 'NL') ON CONFLICT (id) DO UPDATE SET country = excluded.country || '!', opened = accounts.opened + 1 WHERE accounts.country <> 'XX'",
            "INSERT INTO accounts VALUES ('a', 'NL') ON CONFLICT (id) DO UPDATE SET country = excluded.country WHERE accounts.country = 'XX'",
            "INSERT INTO accounts VALUES ('a', 'NL') ON CONFLICT DO NOTHING",
        ],
        expect![[r#"
            > INSERT INTO accounts VALUES ('a', 'NL', '2026-02-01'), ('b', 'DE', DEFAULT), ('c', 'FR', NULL)
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL      | 2026-02-01 |
            | b  | DE      | 2026-01-01 |
            | c  | FR      |            |
            +----+---------+------------+
            > INSERT INTO accounts (country, id) VALUES ('NL', 1) RETURNING id, upper(country) AS c, *
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | 1  | NL      | 2026-01-01 |
            +----+---------+------------+
            RETURNING ["id text", "c text", "id text", "country text", "opened date"]
            +----+----+----+---------+------------+
            | id | c  | id | country | opened     |
            +----+----+----+---------+------------+
            | 1  | NL | 1  | NL      | 2026-01-01 |
            +----+----+----+---------+------------+
            > INSERT INTO accounts AS x (id, country) SELECT account, 'NL' FROM payments WHERE amount > 3 RETURNING x.id
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL      | 2026-01-01 |
            +----+---------+------------+
            RETURNING ["id text"]
            +----+
            | id |
            +----+
            | a  |
            +----+
            > INSERT INTO things (i, f, u, j, v, b, s, tags) VALUES (2.5, 1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"b":1,"a":2}', 'abc  ', 'yes', NULL, '{x,"y z"}'), (1, 0.5, NULL, NULL, 12, true, struct(7 AS x), ARRAY['q'])
            +---+-----+--------------------------------------+------------------+-------+------+--------+----------+
            | i | f   | u                                    | j                | v     | b    | s      | tags     |
            +---+-----+--------------------------------------+------------------+-------+------+--------+----------+
            | 3 | 1.0 | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | {"a": 2, "b": 1} | abc   | true |        | [x, y z] |
            | 1 | 0.5 |                                      |                  | 12    | true | {x: 7} | [q]      |
            +---+-----+--------------------------------------+------------------+-------+------+--------+----------+
            > INSERT INTO things (i) VALUES ((SELECT count(*) FROM accounts))
            +---+---+---+---+---+---+---+------+
            | i | f | u | j | v | b | s | tags |
            +---+---+---+---+---+---+---+------+
            | 2 |   |   |   |   |   |   |      |
            +---+---+---+---+---+---+---+------+
            > INSERT INTO things DEFAULT VALUES
            +---+---+---+---+---+---+---+------+
            | i | f | u | j | v | b | s | tags |
            +---+---+---+---+---+---+---+------+
            |   |   |   |   |   |   |   |      |
            +---+---+---+---+---+---+---+------+
            > INSERT INTO accounts VALUES ('a', 'NL') ON CONFLICT (id) DO UPDATE SET country = excluded.country || '!', opened = accounts.opened + 1 WHERE accounts.country <> 'XX'
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL      | 2026-01-01 |
            +----+---------+------------+
            DO UPDATE BooleanArray
            [
              true,
            ]
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL!     | 2026-01-02 |
            +----+---------+------------+
            > INSERT INTO accounts VALUES ('a', 'NL') ON CONFLICT (id) DO UPDATE SET country = excluded.country WHERE accounts.country = 'XX'
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL      | 2026-01-01 |
            +----+---------+------------+
            DO UPDATE BooleanArray
            [
              false,
            ]
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL      | 2026-01-01 |
            +----+---------+------------+
            > INSERT INTO accounts VALUES ('a', 'NL') ON CONFLICT DO NOTHING
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL      | 2026-01-01 |
            +----+---------+------------+
        "#]],
    );
}

#[test]
fn update_and_delete_give_the_affected_rows() {
    check(
        &[
            "UPDATE accounts SET country = 'BE', opened = '2026-03-01' WHERE id = 'a' RETURNING id, country",
            "UPDATE accounts AS a SET (country, opened) = (p.account, DEFAULT) FROM payments p WHERE p.account = a.id",
            "UPDATE things SET i = f + 1, j = jsonb '[]', v = 'x'",
            "DELETE FROM accounts WHERE opened IS NULL RETURNING *",
            "DELETE FROM accounts USING payments WHERE account = accounts.id AND amount > 5",
            "DELETE FROM things",
        ],
        expect![[r#"
            > UPDATE accounts SET country = 'BE', opened = '2026-03-01' WHERE id = 'a' RETURNING id, country
            +----+---------+------------+----+---------+------------+
            | id | country | opened     | id | country | opened     |
            +----+---------+------------+----+---------+------------+
            | a  | NL      | 2026-01-01 | a  | BE      | 2026-03-01 |
            +----+---------+------------+----+---------+------------+
            RETURNING ["id text", "country text"]
            +----+---------+
            | id | country |
            +----+---------+
            | a  | BE      |
            +----+---------+
            > UPDATE accounts AS a SET (country, opened) = (p.account, DEFAULT) FROM payments p WHERE p.account = a.id
            +----+---------+------------+----+---------+------------+
            | id | country | opened     | id | country | opened     |
            +----+---------+------------+----+---------+------------+
            | a  | NL      | 2026-01-01 | a  | a       | 2026-01-01 |
            | b  | DE      |            | b  | b       | 2026-01-01 |
            +----+---------+------------+----+---------+------------+
            > UPDATE things SET i = f + 1, j = jsonb '[]', v = 'x'
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+---+-----+--------------------------------------+----+---+------+---+------+
            | i | f   | u                                    | j               | v   | b    | s | tags | i | f   | u                                    | j  | v | b    | s | tags |
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+---+-----+--------------------------------------+----+---+------+---+------+
            | 1 | 1.5 | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | {"k": [1, "x"]} | abc | true |   |      | 2 | 1.5 | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | [] | x | true |   |      |
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+---+-----+--------------------------------------+----+---+------+---+------+
            > DELETE FROM accounts WHERE opened IS NULL RETURNING *
            +----+---------+--------+
            | id | country | opened |
            +----+---------+--------+
            | b  | DE      |        |
            +----+---------+--------+
            RETURNING ["id text", "country text", "opened date"]
            +----+---------+--------+
            | id | country | opened |
            +----+---------+--------+
            | b  | DE      |        |
            +----+---------+--------+
            > DELETE FROM accounts USING payments WHERE account = accounts.id AND amount > 5
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | a  | NL      | 2026-01-01 |
            +----+---------+------------+
            > DELETE FROM things
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+
            | i | f   | u                                    | j               | v   | b    | s | tags |
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+
            | 1 | 1.5 | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 | {"k": [1, "x"]} | abc | true |   |      |
            +---+-----+--------------------------------------+-----------------+-----+------+---+------+
        "#]],
    );
}

#[test]
fn parameters_have_the_types_of_their_columns() {
    check_with(
        &[ScalarValue::Utf8View(Some("k".into())), ScalarValue::Utf8View(Some("PT".into()))],
        &[
            "INSERT INTO accounts (id, country) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET country = $2 RETURNING id = $1 AS same",
            "UPDATE accounts SET country = $2 WHERE id = $1",
            "DELETE FROM accounts WHERE id = $1 OR country = $2",
        ],
        expect![[r#"
            > INSERT INTO accounts (id, country) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET country = $2 RETURNING id = $1 AS same
            parameters: text, text
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | k  | PT      | 2026-01-01 |
            +----+---------+------------+
            DO UPDATE BooleanArray
            [
              true,
            ]
            +----+---------+------------+
            | id | country | opened     |
            +----+---------+------------+
            | k  | PT      | 2026-01-01 |
            +----+---------+------------+
            RETURNING ["same boolean"]
            +------+
            | same |
            +------+
            | true |
            +------+
            > UPDATE accounts SET country = $2 WHERE id = $1
            parameters: text, text
            +----+---------+--------+----+---------+--------+
            | id | country | opened | id | country | opened |
            +----+---------+--------+----+---------+--------+
            +----+---------+--------+----+---------+--------+
            > DELETE FROM accounts WHERE id = $1 OR country = $2
            parameters: text, text
            +----+---------+--------+
            | id | country | opened |
            +----+---------+--------+
            +----+---------+--------+
        "#]],
    );
}

#[test]
fn wrong_statements_get_postgresqls_errors() {
    check(
        &[
            "INSERT INTO acounts VALUES (1)",
            "INSERT INTO payments VALUES (1)",
            "INSERT INTO rich VALUES (1)",
            "INSERT INTO accounts (id, contry) VALUES (1, 2)",
            "INSERT INTO accounts (id, id) VALUES (1, 2)",
            "INSERT INTO accounts VALUES (1, 2, NULL, 4)",
            "INSERT INTO accounts (id, country) VALUES (1)",
            "INSERT INTO accounts VALUES (1, 2, 3)",
            "INSERT INTO accounts VALUES (1, 2, 'x')",
            "INSERT INTO accounts SELECT 'a', 'b', 'c'",
            "INSERT INTO accounts SELECT account, account, account FROM payments",
            "INSERT INTO things (v) VALUES ('abcdef')",
            "INSERT INTO things (i) VALUES (3000000000)",
            "INSERT INTO things (u) VALUES ('x')",
            "INSERT INTO accounts VALUES ('a', 'b') ON CONFLICT (country) DO NOTHING",
            "INSERT INTO accounts VALUES ('a', 'b') ON CONFLICT DO UPDATE SET country = 'x'",
            "INSERT INTO accounts VALUES ('a', 'b') ON CONFLICT (id) DO UPDATE SET country = country",
            "INSERT INTO accounts VALUES ('a', 'b') ON CONFLICT (id) DO UPDATE SET opened = 1",
            "INSERT INTO accounts VALUES (1), (2, 3)",
            "UPDATE accounts SET nope = 1",
            "UPDATE accounts SET country = 'a', country = 'b'",
            "UPDATE accounts SET opened = 7",
            "UPDATE accounts SET country = nope",
            "UPDATE things SET i = 1 FROM payments",
            "DELETE FROM per_account",
            "DELETE FROM accounts WHERE nope = 1",
            "INSERT INTO accounts VALUES ('a', 'b') RETURNING nope",
        ],
        expect![[r#"
            > INSERT INTO acounts VALUES (1)
            42P01: relation "acounts" does not exist at 13
            HINT: Perhaps you meant "accounts".
            > INSERT INTO payments VALUES (1)
            42809: cannot insert into stream "payments"
            DETAIL: Only tables can be changed.
            > INSERT INTO rich VALUES (1)
            42809: cannot insert into view "rich"
            DETAIL: Only tables can be changed.
            > INSERT INTO accounts (id, contry) VALUES (1, 2)
            42703: column "contry" of relation "accounts" does not exist at 27
            HINT: Perhaps you meant the column "country".
            > INSERT INTO accounts (id, id) VALUES (1, 2)
            42701: column "id" specified more than once
            > INSERT INTO accounts VALUES (1, 2, NULL, 4)
            42601: INSERT has more expressions than target columns at 42
            > INSERT INTO accounts (id, country) VALUES (1)
            42601: INSERT has more target columns than expressions
            > INSERT INTO accounts VALUES (1, 2, 3)
            42804: column "opened" is of type date but expression is of type integer at 36
            HINT: You will need to rewrite or cast the expression.
            > INSERT INTO accounts VALUES (1, 2, 'x')
            22007: invalid input syntax for type date: "x" at 36
            > INSERT INTO accounts SELECT 'a', 'b', 'c'
            22007: invalid input syntax for type date: "c"
            > INSERT INTO accounts SELECT account, account, account FROM payments
            42804: column "opened" is of type date but expression is of type text
            HINT: You will need to rewrite or cast the expression.
            > INSERT INTO things (v) VALUES ('abcdef')
            22001: value too long for type character varying(5) at 32
            > INSERT INTO things (i) VALUES (3000000000)
            22003: integer out of range at 32
            > INSERT INTO things (u) VALUES ('x')
            22P02: invalid input syntax for type uuid: "x" at 32
            > INSERT INTO accounts VALUES ('a', 'b') ON CONFLICT (country) DO NOTHING
            42P10: there is no unique or exclusion constraint matching the ON CONFLICT specification
            > INSERT INTO accounts VALUES ('a', 'b') ON CONFLICT DO UPDATE SET country = 'x'
            42601: ON CONFLICT DO UPDATE requires inference specification or constraint name
            HINT: For example, ON CONFLICT (column_name).
            > INSERT INTO accounts VALUES ('a', 'b') ON CONFLICT (id) DO UPDATE SET country = country
            42702: column reference "country" is ambiguous at 71
            > INSERT INTO accounts VALUES ('a', 'b') ON CONFLICT (id) DO UPDATE SET opened = 1
            42804: column "opened" is of type date but expression is of type bigint at 71
            HINT: You will need to rewrite or cast the expression.
            > INSERT INTO accounts VALUES (1), (2, 3)
            42601: VALUES lists must all be the same length
            > UPDATE accounts SET nope = 1
            42703: column "nope" of relation "accounts" does not exist at 21
            > UPDATE accounts SET country = 'a', country = 'b'
            42601: multiple assignments to same column "country"
            > UPDATE accounts SET opened = 7
            42804: column "opened" is of type date but expression is of type integer at 21
            HINT: You will need to rewrite or cast the expression.
            > UPDATE accounts SET country = nope
            42703: column "nope" does not exist at 31
            > UPDATE things SET i = 1 FROM payments
            0A000: UPDATE .. FROM of a table without a primary key is not supported
            > DELETE FROM per_account
            42809: cannot delete from materialized view "per_account"
            DETAIL: Only tables can be changed.
            > DELETE FROM accounts WHERE nope = 1
            42703: column "nope" does not exist at 28
            > INSERT INTO accounts VALUES ('a', 'b') RETURNING nope
            42703: column "nope" does not exist at 50
        "#]],
    );
}

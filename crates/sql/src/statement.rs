//! The statements of Tidewire.
//!
//! Identifiers in here are already folded: unquoted ones lower-case, quoted ones as written. Inside a
//! `sqlparser::ast` node they are not; [`fold`] does it.

use sqlparser::ast;
use tidewire_types::SqlType;

/// One statement and where it stood.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The statement.
    pub statement: Statement,
    /// Its text, without the semicolon and surrounding blanks and comments.
    pub text: String,
    /// Where `text` begins in what was parsed: characters, the first is 0. An error position within `text` plus this
    /// is the position that the user sees.
    pub offset: usize,
}

/// A possibly qualified name, folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// The schema, where given.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
    /// Where it stands in the statement's text: characters from 1.
    pub position: usize,
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `SELECT`, `VALUES`, `TABLE t`, `WITH ..`: a snapshot.
    Query(Box<ast::Query>),
    /// `SELECT .. EMIT CHANGES` and `SUBSCRIBE [TO] ..`: pushed until cancelled.
    Subscribe(Subscribe),
    /// `CREATE SOURCE|STREAM`.
    CreateSource(CreateSource),
    /// `CREATE TABLE` (not fed by a connector).
    CreateTable(CreateTable),
    /// `CREATE [MATERIALIZED] VIEW`.
    CreateView(CreateView),
    /// `CREATE INDEX`.
    CreateIndex(CreateIndex),
    /// `DROP ..`.
    Drop(Drop),
    /// `INSERT`, with RETURNING and ON CONFLICT, as sqlparser has it.
    Insert(Box<ast::Insert>),
    /// `UPDATE`.
    Update(Box<ast::Statement>),
    /// `DELETE`.
    Delete(Box<ast::Delete>),
    /// `TRUNCATE [TABLE] a, b`.
    Truncate(Vec<ObjectName>),
    /// `EXPLAIN ..`.
    Explain(Explain),
    /// `SHOW STREAMS`, `SHOW CREATE ..`, `DESCRIBE t`.
    Show(Show),
    /// `SET [SESSION|LOCAL] x = v`, `SET x TO DEFAULT`, `RESET x` (value None), `SET TIME ZONE`, .. The value is text.
    Set {
        /// Lower-case name of the setting (`time zone` is `timezone`, `names` is `client_encoding`).
        name: String,
        /// Its new value; None: the default.
        value: Option<String>,
        /// Only until the transaction ends.
        local: bool,
    },
    /// `RESET ALL`.
    ResetAll,
    /// `SHOW x`, `SHOW ALL` (name "all").
    ShowSetting(String),
    /// `BEGIN`, `START TRANSACTION`; isolation levels are accepted. True: READ ONLY.
    Begin {
        /// `READ ONLY` was given.
        read_only: bool,
    },
    /// `COMMIT`, `END`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    /// `SAVEPOINT`, `RELEASE`, `ROLLBACK TO`: the name of the statement, refused by the session.
    Savepoint(&'static str),
    /// `DISCARD ALL|PLANS|SEQUENCES|TEMP`.
    Discard,
    /// `DEALLOCATE [PREPARE] name | ALL` (None).
    Deallocate(Option<String>),
    /// `PREPARE name [(types)] AS statement`.
    Prepare {
        /// Name of the prepared statement.
        name: String,
        /// Declared parameter types.
        types: Vec<SqlType>,
        /// What it runs.
        statement: Box<Parsed>,
    },
    /// `EXECUTE name (args)`.
    Execute {
        /// Name of the prepared statement.
        name: String,
        /// Constant expressions.
        args: Vec<ast::Expr>,
    },
    /// `DECLARE name CURSOR [WITH HOLD] FOR query | SUBSCRIBE ..`.
    Declare {
        /// Name of the cursor.
        name: String,
        /// Outlives the transaction.
        hold: bool,
        /// Query or Subscribe.
        statement: Box<Parsed>,
    },
    /// `FETCH [n | ALL | NEXT | FORWARD n] [FROM|IN] name [WITH (timeout = '1s')]`.
    Fetch {
        /// Name of the cursor.
        name: String,
        /// Rows at most; None: all.
        count: Option<u64>,
        /// How long to wait for a first row of a subscription, in milliseconds.
        timeout_ms: Option<u64>,
    },
    /// `CLOSE name | ALL` (None).
    Close(Option<String>),
    /// `FLUSH`: returns when all that was written before is visible (it always is).
    Flush,
    /// `COPY .. TO STDOUT`.
    Copy(Copy),
    /// `COPY .. FROM STDIN`.
    CopyFrom(Box<CopyFrom>),
    /// `BACKUP TO 'place'`.
    Backup {
        /// A path, or `s3://bucket/prefix`.
        to: String,
    },
    /// `REFRESH MATERIALIZED VIEW name`.
    Refresh(ObjectName),
    /// `ALTER SOURCE name SKIP LOST RECORDS`.
    SkipLostRecords(ObjectName),
    /// A statement that sqlparser understands and Tidewire does not have: its name, upper-case (`CREATE SINK`).
    Unsupported(String),
    /// Nothing between two semicolons.
    Empty,
}

/// `SELECT .. EMIT CHANGES [WITH (..)]`, `SUBSCRIBE [TO] name|(query) [WITH (..)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// What is followed; `SUBSCRIBE TO v` is `SELECT * FROM v`.
    pub query: Box<ast::Query>,
    /// `snapshot = true|false` and others, lower-case names.
    pub options: Vec<(String, String)>,
    /// `EMIT CHANGES LIMIT n`: ends after n rows.
    pub limit: Option<u64>,
}

/// `COPY name [(columns)] | (query | SUBSCRIBE ..) TO STDOUT [WITH (..)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// Query or Subscribe; `COPY t (a, b)` is `SELECT a, b FROM t`, with the text of the whole COPY.
    pub statement: Box<Parsed>,
    /// How its rows are written.
    pub options: CopyOptions,
}

/// `COPY name [(columns)] FROM STDIN [WITH (..)] [WHERE condition]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyFrom {
    /// The table.
    pub table: ObjectName,
    /// The columns that lines have, in their order; empty: all.
    pub columns: Vec<NamedColumn>,
    /// How lines look.
    pub options: CopyOptions,
    /// The names in the header must be those of the columns.
    pub header_match: bool,
    /// What stands for a column's default.
    pub default: Option<String>,
    /// Columns whose values are never NULL, whatever they look like.
    pub force_not_null: Vec<NamedColumn>,
    /// Columns whose values are NULL also where that is written in quotes.
    pub force_null: Vec<NamedColumn>,
    /// Which rows are taken.
    pub condition: Option<ast::Expr>,
}

/// How the lines of COPY look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// The kind of lines.
    pub format: CopyFormat,
    /// The names of the columns come first.
    pub header: bool,
    /// Between two values; ASCII.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// Around values of CSV that need it; ASCII.
    pub quote: u8,
    /// Before a quote within quotes; ASCII.
    pub escape: u8,
}

/// The kind of lines of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// Backslashes escape.
    Text,
    /// Quotes surround.
    Csv,
}

/// `CREATE SOURCE|STREAM [IF NOT EXISTS] n (columns) [INCLUDE ..] WITH (..) [FORMAT f ENCODE e (..)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSource {
    /// Its name.
    pub name: ObjectName,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// The word was STREAM.
    pub stream: bool,
    /// Declared columns; None where there is no list (the connector may know them).
    pub columns: Option<Vec<Column>>,
    /// `INCLUDE partition [AS p]` ..
    pub include: Vec<Include>,
    /// Options of WITH: lower-case names with their dots, values as text.
    pub options: Vec<(String, String)>,
    /// `FORMAT PLAIN ENCODE JSON (..)`, upper-case words.
    pub format: Option<Format>,
}

/// One column of CREATE TABLE or CREATE SOURCE.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// `NOT NULL` (or PRIMARY KEY).
    pub not_null: bool,
    /// `DEFAULT expr`, as SQL text.
    pub default: Option<String>,
    /// `PRIMARY KEY` at the column.
    pub primary_key: bool,
    /// Where its name stands in the statement's text: characters from 1.
    pub position: usize,
}

/// `[CONSTRAINT name] CHECK (condition)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its name; None: made of the names of table and column.
    pub name: Option<String>,
    /// The condition.
    pub condition: ast::Expr,
    /// The condition's text.
    pub text: String,
    /// Where `text` begins in the statement's text: characters from 0.
    pub offset: usize,
}

/// `INCLUDE what ['header name'] [AS alias]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// `key`, `partition`, `offset`, `timestamp`, `header`; lower-case.
    pub what: String,
    /// The header's name, where one header is meant.
    pub header: Option<String>,
    /// The column's name; default `_tidewire_key` and the like is the planner's choice.
    pub alias: Option<String>,
    /// Where it stands in the statement's text: characters from 1.
    pub position: usize,
}

/// `FORMAT f ENCODE e (options)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Upper-case.
    pub format: String,
    /// Upper-case.
    pub encode: String,
    /// Lower-case names, values as text.
    pub options: Vec<(String, String)>,
}

/// `CREATE TABLE [IF NOT EXISTS] n (columns, PRIMARY KEY (..))`, `CREATE TABLE n AS query`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    /// Its name.
    pub name: ObjectName,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// Its columns (names only matter with `query`).
    pub columns: Vec<Column>,
    /// Names of the primary key's columns, from column or table constraint.
    pub primary_key: Vec<String>,
    /// CHECK constraints, of columns and of the table, as they stand.
    pub checks: Vec<Check>,
    /// `AS query`.
    pub query: Option<Box<ast::Query>>,
    /// Options of WITH.
    pub options: Vec<(String, String)>,
}

/// `CREATE [OR REPLACE] [MATERIALIZED] VIEW [IF NOT EXISTS] n [(columns)] [WITH (..)] AS query`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateView {
    /// Its name.
    pub name: ObjectName,
    /// `MATERIALIZED`.
    pub materialized: bool,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `OR REPLACE`.
    pub or_replace: bool,
    /// Names for the columns.
    pub columns: Vec<String>,
    /// Options of WITH.
    pub options: Vec<(String, String)>,
    /// The query.
    pub query: Box<ast::Query>,
    /// The query's text.
    pub query_text: String,
    /// Where `query_text` begins in the statement's text: characters from 0.
    pub query_offset: usize,
}

/// `CREATE [UNIQUE] INDEX [IF NOT EXISTS] [n] ON t (columns) [INCLUDE (columns)]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateIndex {
    /// Its name; None: made of the names of table and columns.
    pub name: Option<ObjectName>,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `UNIQUE`.
    pub unique: bool,
    /// Whose rows it finds.
    pub relation: ObjectName,
    /// The columns of its key.
    pub columns: Vec<NamedColumn>,
    /// Columns that come with it.
    pub include: Vec<NamedColumn>,
}

/// A column in a list of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedColumn {
    /// Its name.
    pub name: String,
    /// Where it stands in the statement's text: characters from 1.
    pub position: usize,
}

/// What DROP and SHOW name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// SOURCE or STREAM.
    Source,
    /// TABLE
    Table,
    /// VIEW
    View,
    /// MATERIALIZED VIEW
    MaterializedView,
    /// SINK
    Sink,
    /// INDEX
    Index,
    /// SCHEMA
    Schema,
}

/// `DROP kind [IF EXISTS] a, b [CASCADE|RESTRICT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Kind of object.
    pub kind: ObjectKind,
    /// Their names.
    pub names: Vec<ObjectName>,
    /// `IF EXISTS`.
    pub if_exists: bool,
    /// `CASCADE`.
    pub cascade: bool,
}

/// `EXPLAIN [ANALYZE] ..`.
#[derive(Clone, Debug, PartialEq)]
pub enum Explain {
    /// `EXPLAIN CREATE MATERIALIZED VIEW ..` and `EXPLAIN SELECT ..`.
    Plan {
        /// What is planned.
        statement: Box<Parsed>,
        /// `ANALYZE`: run it too.
        analyze: bool,
        /// `VERBOSE`
        verbose: bool,
    },
    /// `EXPLAIN (STATE) ..`: what a view of it would keep.
    State {
        /// A query, SUBSCRIBE or CREATE MATERIALIZED VIEW.
        statement: Box<Parsed>,
    },
    /// `EXPLAIN [ANALYZE] MATERIALIZED VIEW name`.
    MaterializedView {
        /// The view.
        name: ObjectName,
        /// `ANALYZE`: with rows, time and state of each operator.
        analyze: bool,
    },
}

/// `SHOW ..`.
#[derive(Clone, Debug, PartialEq)]
pub enum Show {
    /// `SHOW SOURCES|STREAMS`
    Sources,
    /// `SHOW TABLES`
    Tables,
    /// `SHOW VIEWS`
    Views,
    /// `SHOW MATERIALIZED VIEWS`
    MaterializedViews,
    /// `SHOW INDEXES [FROM t]`
    Indexes(Option<ObjectName>),
    /// `SHOW JOBS`: views being built and views that run.
    Jobs,
    /// `SHOW COLUMNS FROM t`, `DESCRIBE t`
    Columns(ObjectName),
    /// `SHOW CREATE kind name`
    Create(ObjectKind, ObjectName),
}

/// An identifier by PostgreSQL's rules: lower-case unless quoted.
pub fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

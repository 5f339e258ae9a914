//! A generated query as a tree, so that it can be shrunk. Its text is its `Display`.
//!
//! The tree has the shapes that shrinking needs and no more: an expression is text with holes, and its type. Columns
//! are found by names that are unique in the whole case (`q7.c1`), so that a part can move without changing what it
//! means; what loses its column is an invalid query, which the shrinker sees by its error.

use std::fmt::{self, Display, Formatter};

use super::types::Type;

/// An expression of a known type.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Its type.
    pub ty: Type,
    /// Its text, in pieces.
    pub parts: Vec<Part>,
}

/// A piece of an expression.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text.
    Text(String),
    /// An argument.
    Expr(Expr),
    /// A subquery, which stands in parentheses.
    Query(Box<Query>),
    /// What can be left out.
    Optional(Vec<Part>),
    /// The n-th argument once more.
    Again(usize),
}

impl Expr {
    /// An expression of text alone.
    pub fn text(ty: Type, text: impl Into<String>) -> Expr {
        Expr { ty, parts: vec![Part::Text(text.into())] }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_parts(&self.parts, &self.parts, f)
    }
}

fn write_parts(parts: &[Part], all: &[Part], f: &mut Formatter<'_>) -> fmt::Result {
    for part in parts {
        match part {
            Part::Text(text) => f.write_str(text)?,
            Part::Expr(expr) => expr.fmt(f)?,
            Part::Query(query) => write!(f, "({query})")?,
            Part::Optional(parts) => write_parts(parts, all, f)?,
            Part::Again(nth) => {
                let mut arguments = all.iter().filter_map(|p| if let Part::Expr(e) = p { Some(e) } else { None });
                arguments.nth(*nth).iter().try_for_each(|e| e.fmt(f))?;
            }
        }
    }
    Ok(())
}

/// A whole query.
#[derive(Clone, Debug)]
pub struct Query {
    /// WITH.
    pub ctes: Vec<Cte>,
    /// What gives the rows.
    pub body: Body,
    /// ORDER BY and LIMIT.
    pub top: Option<Top>,
}

/// One query of a WITH.
#[derive(Clone, Debug)]
pub struct Cte {
    /// Its name.
    pub name: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Whether it reads itself.
    pub recursive: bool,
    /// The query.
    pub query: Query,
}

/// What gives the rows of a query.
#[derive(Clone, Debug)]
pub enum Body {
    /// SELECT.
    Select(Box<Select>),
    /// UNION and the like, with all its words.
    Set(Box<Body>, &'static str, Box<Body>),
    /// VALUES.
    Values(Vec<Vec<Expr>>),
    /// A query in parentheses.
    Nested(Box<Query>),
    /// A query that was not generated: a replay's.
    Text(String),
}

/// ORDER BY all columns of the result, which leaves no ties that could be seen; and how many rows.
#[derive(Clone, Debug)]
pub struct Top {
    /// ASC, DESC, NULLS FIRST, .. for each column.
    pub directions: Vec<&'static str>,
    /// LIMIT.
    pub limit: Option<usize>,
    /// OFFSET.
    pub offset: Option<usize>,
    /// FETCH FIRST .. WITH TIES, by the first n columns only.
    pub ties: Option<usize>,
}

/// A SELECT.
#[derive(Clone, Debug)]
pub struct Select {
    /// DISTINCT.
    pub distinct: bool,
    /// DISTINCT ON the first n columns. Only where the query has a [`Top`].
    pub distinct_on: usize,
    /// The columns of the result.
    pub items: Vec<Item>,
    /// FROM, its items separated by commas.
    pub from: Vec<From>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY.
    pub grouping: Option<Grouping>,
    /// HAVING.
    pub having: Option<Expr>,
    /// WINDOW w AS (..).
    pub window: Option<String>,
}

/// A column of a result.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its value.
    pub expr: Expr,
    /// Its name.
    pub name: String,
}

/// GROUP BY.
#[derive(Clone, Debug)]
pub struct Grouping {
    /// The keys.
    pub keys: Vec<Expr>,
    /// Which sets of them.
    pub sets: Sets,
}

/// Which sets of keys rows are grouped by.
#[derive(Clone, Debug)]
pub enum Sets {
    /// By all.
    One,
    /// ROLLUP.
    Rollup,
    /// CUBE.
    Cube,
    /// GROUPING SETS, by the keys' numbers.
    Listed(Vec<Vec<usize>>),
}

/// An item of FROM.
#[derive(Clone, Debug)]
pub enum From {
    /// A table, view or CTE under another name.
    Relation {
        /// Its name.
        name: String,
        /// Its name here.
        alias: String,
    },
    /// A subquery.
    Query {
        /// The query.
        query: Box<Query>,
        /// Its name here, with names of columns where they are given.
        alias: String,
        /// Whether it may use columns of items before it.
        lateral: bool,
    },
    /// A function that gives rows.
    Function {
        /// The call, with WITH ORDINALITY.
        call: Expr,
        /// Its name here, with names of columns.
        alias: String,
    },
    /// A join.
    Join {
        /// The left side.
        left: Box<From>,
        /// JOIN with all its words.
        kind: &'static str,
        /// The right side.
        right: Box<From>,
        /// Its condition.
        on: On,
    },
}

/// The condition of a join.
#[derive(Clone, Debug)]
pub enum On {
    /// None: CROSS, NATURAL.
    Nothing,
    /// USING.
    Using(Vec<String>),
    /// ON.
    Expr(Expr),
}

impl Body {
    /// How many columns it has.
    pub fn n_columns(&self) -> usize {
        match self {
            Body::Select(select) => select.items.len(),
            Body::Set(left, ..) => left.n_columns(),
            Body::Values(rows) => rows.first().map_or(0, Vec::len),
            Body::Nested(query) => query.body.n_columns(),
            Body::Text(_) => 0,
        }
    }
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.ctes.is_empty() {
            let recursive = if self.ctes.iter().any(|c| c.recursive) { "RECURSIVE " } else { "" };
            write!(f, "WITH {recursive}")?;
            separated(&self.ctes, f, |cte, f| {
                write!(f, "{}({}) AS ({})", cte.name, cte.columns.join(", "), cte.query)
            })?;
            f.write_str(" ")?;
        }
        self.body.fmt(f)?;
        self.top.iter().try_for_each(|top| top.write(self.body.n_columns(), f))
    }
}

impl Display for Body {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Body::Select(select) => select.fmt(f),
            Body::Set(left, op, right) => {
                operand(left, f)?;
                write!(f, " {op} ")?;
                operand(right, f)
            }
            Body::Values(rows) => {
                f.write_str("VALUES ")?;
                separated(rows, f, |row, f| {
                    f.write_str("(")?;
                    separated(row, f, |expr, f| expr.fmt(f))?;
                    f.write_str(")")
                })
            }
            Body::Nested(query) => write!(f, "({query})"),
            Body::Text(text) => f.write_str(text),
        }
    }
}

/// One side of a set operation: what is one itself stands in parentheses.
fn operand(body: &Body, f: &mut Formatter<'_>) -> fmt::Result {
    match body {
        Body::Set(..) => write!(f, "({body})"),
        _ => body.fmt(f),
    }
}

impl Top {
    fn write(&self, n_columns: usize, f: &mut Formatter<'_>) -> fmt::Result {
        let n_sorted = self.ties.unwrap_or(n_columns).min(n_columns).max(1);
        f.write_str(" ORDER BY ")?;
        let directions: Vec<_> = (1..).zip(self.directions.iter().take(n_sorted)).collect();
        separated(&directions, f, |(nth, direction), f| write!(f, "{nth}{direction}"))?;
        self.offset.iter().try_for_each(|n| write!(f, " OFFSET {n}"))?;
        match (self.limit, self.ties) {
            (Some(n), Some(_)) => write!(f, " FETCH FIRST {n} ROWS WITH TIES"),
            (Some(n), None) => write!(f, " LIMIT {n}"),
            (None, _) => Ok(()),
        }
    }
}

impl Display for Select {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.distinct { "SELECT DISTINCT " } else { "SELECT " })?;
        if self.distinct_on > 0 {
            let on: Vec<_> = self.items.iter().take(self.distinct_on).collect();
            f.write_str("DISTINCT ON (")?;
            separated(&on, f, |item, f| item.expr.fmt(f))?;
            f.write_str(") ")?;
        }
        separated(&self.items, f, |item, f| write!(f, "{} AS {}", item.expr, item.name))?;
        if !self.from.is_empty() {
            f.write_str(" FROM ")?;
            separated(&self.from, f, |from, f| from.fmt(f))?;
        }
        self.filter.iter().try_for_each(|e| write!(f, " WHERE {e}"))?;
        self.grouping.iter().try_for_each(|g| g.fmt(f))?;
        self.having.iter().try_for_each(|e| write!(f, " HAVING {e}"))?;
        self.window.iter().try_for_each(|w| write!(f, " WINDOW w AS ({w})"))
    }
}

impl Display for Grouping {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.keys.is_empty() {
            return Ok(());
        }
        f.write_str(" GROUP BY ")?;
        let keys = |f: &mut Formatter<'_>| separated(&self.keys, f, |key, f| key.fmt(f));
        match &self.sets {
            Sets::One => return keys(f),
            Sets::Rollup => f.write_str("ROLLUP (")?,
            Sets::Cube => f.write_str("CUBE (")?,
            Sets::Listed(sets) => {
                f.write_str("GROUPING SETS (")?;
                separated(sets, f, |set, f| {
                    let members: Vec<_> = set.iter().filter_map(|idx| self.keys.get(*idx)).collect();
                    f.write_str("(")?;
                    separated(&members, f, |key, f| key.fmt(f))?;
                    f.write_str(")")
                })?;
                return f.write_str(")");
            }
        }
        keys(f)?;
        f.write_str(")")
    }
}

impl Display for From {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            From::Relation { name, alias } => write!(f, "{name} AS {alias}"),
            From::Query { query, alias, lateral } => {
                write!(f, "{}({query}) AS {alias}", if *lateral { "LATERAL " } else { "" })
            }
            From::Function { call, alias } => write!(f, "{call} AS {alias}"),
            From::Join { left, kind, right, on } => {
                write!(f, "{left} {kind} ")?;
                match right.as_ref() {
                    join @ From::Join { .. } => write!(f, "({join})")?,
                    right => right.fmt(f)?,
                }
                match on {
                    On::Nothing => Ok(()),
                    On::Using(columns) => write!(f, " USING ({})", columns.join(", ")),
                    On::Expr(expr) => write!(f, " ON {expr}"),
                }
            }
        }
    }
}

fn separated<T>(
    items: &[T],
    f: &mut Formatter<'_>,
    mut write: impl FnMut(&T, &mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    for (idx, item) in items.iter().enumerate() {
        if idx > 0 {
            f.write_str(", ")?;
        }
        write(item, f)?;
    }
    Ok(())
}

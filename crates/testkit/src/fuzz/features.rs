//! What the fuzzer can write, by names that switch it on and off, so that a known gap does not hide others.

use std::fmt;
use std::str::FromStr;

use super::random::Random;

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// A part of what is generated.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Feature { $($(#[$doc])* $name,)* }

        impl Feature {
            /// All of them.
            pub const ALL: &[Feature] = &[$(Feature::$name,)*];

            /// The name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Feature::$name => $word,)* }
            }
        }
    };
}

features! {
    /// LEFT, RIGHT and FULL joins.
    OuterJoin = "outer_join",
    /// CROSS JOIN, and a comma.
    CrossJoin = "cross_join",
    /// Joins on other conditions than equality.
    ThetaJoin = "theta_join",
    /// JOIN .. USING, NATURAL JOIN.
    Using = "using",
    /// IS NOT DISTINCT FROM as a join key.
    NullKey = "null_key",
    /// LATERAL (query).
    Lateral = "lateral",
    /// (query) in FROM.
    Derived = "derived",
    /// Conditions over subqueries whose rows depend on each other: DISTINCT ON, LIMIT, windows, groups.
    Filtered = "filtered",
    /// WITH.
    Cte = "cte",
    /// WITH RECURSIVE.
    Recursive = "recursive",
    /// Materialized views over materialized views.
    ViewOnView = "view_on_view",
    /// (query) as a value.
    ScalarSubquery = "scalar_subquery",
    /// (query) as a value that may have a second row.
    ManyRows = "many_rows",
    /// ARRAY(query).
    ArrayQuery = "array_query",
    /// EXISTS, NOT EXISTS.
    Exists = "exists",
    /// IN, NOT IN (query).
    InSubquery = "in_subquery",
    /// op ANY, op ALL (query).
    Quantified = "quantified",
    /// Subqueries that use columns of the query around them.
    Correlated = "correlated",
    /// Subqueries outside of WHERE, and below other expressions.
    SubqueryAnywhere = "subquery_anywhere",
    /// (a, b) = (c, d), (a, b) IN (query).
    RowValue = "row_value",
    /// GROUP BY and aggregates.
    Aggregate = "aggregate",
    /// GROUP BY a primary key, reading the table's other columns.
    GroupByPrimaryKey = "group_by_primary_key",
    /// HAVING.
    Having = "having",
    /// agg(DISTINCT ..).
    AggregateDistinct = "aggregate_distinct",
    /// FILTER (WHERE ..).
    AggregateFilter = "aggregate_filter",
    /// array_agg, string_agg, jsonb_agg with ORDER BY.
    AggregateOrder = "aggregate_order",
    /// bool_and, bit_and, and the like.
    AggregateBits = "aggregate_bits",
    /// variance, covariance and regression.
    Statistics = "statistics",
    /// WITHIN GROUP.
    OrderedSet = "ordered_set",
    /// GROUPING SETS, ROLLUP, CUBE, grouping().
    GroupingSets = "grouping_sets",
    /// SELECT DISTINCT.
    Distinct = "distinct",
    /// SELECT DISTINCT ON.
    DistinctOn = "distinct_on",
    /// Functions OVER a window.
    Window = "window",
    /// ROWS, RANGE, GROUPS.
    Frame = "frame",
    /// EXCLUDE in frames.
    Exclude = "exclude",
    /// ORDER BY .. LIMIT .. OFFSET.
    TopN = "top_n",
    /// FETCH FIRST .. WITH TIES.
    WithTies = "with_ties",
    /// The first rows of each key by row_number, rank or dense_rank.
    TopNPerKey = "top_n_per_key",
    /// UNION, UNION ALL.
    Union = "union",
    /// INTERSECT, EXCEPT.
    SetDifference = "set_difference",
    /// INTERSECT ALL, EXCEPT ALL.
    BagDifference = "bag_difference",
    /// VALUES in FROM.
    Values = "values",
    /// generate_series in FROM.
    GenerateSeries = "generate_series",
    /// unnest in FROM.
    Unnest = "unnest",
    /// JSON and regular expressions as rows.
    TextRows = "text_rows",
    /// WITH ORDINALITY.
    Ordinality = "ordinality",
    /// Set-returning functions in the SELECT list.
    SelectRows = "select_rows",
    /// CASE, coalesce, nullif, greatest, least.
    Conditional = "conditional",
    /// BETWEEN SYMMETRIC.
    Symmetric = "symmetric",
    /// + - * / %.
    Arithmetic = "arithmetic",
    /// Operators over two different types.
    MixedTypes = "mixed_types",
    /// Literals without a type among values.
    Untyped = "untyped",
    /// round, power, ..
    Math = "math",
    /// & | # ~ << >>.
    Bits = "bits",
    /// Text functions.
    TextFunctions = "text_functions",
    /// LIKE, ILIKE, SIMILAR TO.
    Like = "like",
    /// Regular expressions.
    Regex = "regex",
    /// Functions and operators of dates and times.
    Time = "time",
    /// Intervals.
    Interval = "interval",
    /// Casts.
    Cast = "cast",
    /// jsonb.
    Json = "json",
    /// Arrays.
    Array = "array",
    /// uuid and bytea.
    Bytes = "bytes",
    /// numeric.
    Numeric = "numeric",
    /// double precision.
    Float = "float",
    /// Tables without a primary key.
    Keyless = "keyless",
    /// INSERT .. ON CONFLICT.
    Upsert = "upsert",
    /// TRUNCATE.
    Truncate = "truncate",
    /// BEGIN .. COMMIT or ROLLBACK.
    Transaction = "transaction",
    /// Statements that violate a constraint.
    Violation = "violation",
    /// A check: the columns' types are PostgreSQL's.
    Types = "types",
    /// A check: where PostgreSQL fails at some row, so does the query here.
    RowErrors = "row_errors",
    /// A check, with PostgreSQL: statements whose literals are parameters, as drivers send them.
    Parameters = "parameters",
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(word: &str) -> Result<Feature, String> {
        let known = Feature::ALL.iter().find(|f| f.name() == word);
        known.copied().ok_or_else(|| format!("there is no feature \"{word}\""))
    }
}

/// Which features are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(Vec<Feature>);

impl Default for Features {
    fn default() -> Features {
        Features(Feature::ALL.to_vec())
    }
}

impl Features {
    /// Only these.
    pub fn only(features: &[Feature]) -> Features {
        Features(features.to_vec())
    }

    /// All but these.
    pub fn without(mut self, features: &[Feature]) -> Features {
        self.0.retain(|f| !features.contains(f));
        self
    }

    /// Whether a feature is on.
    pub fn has(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }

    /// The features that one case uses: a few of those that are on. A case that uses little is small and finds what a
    /// case that uses everything would hide (swarm testing, Groce et al., ISSTA 2012).
    pub(super) fn swarm(&self, random: &mut Random) -> Features {
        let share = *random.pick(&[15, 30, 50, 100]);
        let always = [Feature::Types, Feature::RowErrors];
        Features(
            Feature::ALL
                .iter()
                .copied()
                .filter(|f| {
                    // It changes nothing that is generated.
                    if *f == Feature::Parameters {
                        return self.has(*f);
                    }
                    // Drawn for each feature, on or off, so that switching one off changes as little as possible.
                    let drawn = random.chance(share);
                    self.has(*f) && (drawn || always.contains(f))
                })
                .collect(),
        )
    }
}

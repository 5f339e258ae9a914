//! Functions OVER a window.

use std::cell::Cell;

use super::Generator;
use super::expr::Cx;
use crate::fuzz::features::Feature;
use crate::fuzz::functions::{self, Function, Hole};
use crate::fuzz::tree::{Expr, Part};
use crate::fuzz::types::Type;

/// What windows of one SELECT may use.
pub(super) struct Windows {
    /// Columns that can be sorted by.
    pub(super) sortable: Vec<(String, Type)>,
    /// Columns that together tell rows apart; equal rows where there is no key. None: they do not.
    pub(super) total: Option<Vec<String>>,
    /// How many functions may depend on the order of equal rows: any number if there are none.
    pub(super) n_positional: Cell<usize>,
    /// The window `w`, with a total order.
    pub(super) named: Option<String>,
}

const DIRECTIONS: &[&str] = &["", " DESC", " NULLS FIRST", " DESC NULLS LAST"];
const BOUNDS: &[(&str, &str)] = &[
    ("UNBOUNDED PRECEDING", "CURRENT ROW"),
    ("UNBOUNDED PRECEDING", "1 FOLLOWING"),
    ("2 PRECEDING", "1 PRECEDING"),
    ("1 PRECEDING", "1 FOLLOWING"),
    ("CURRENT ROW", "UNBOUNDED FOLLOWING"),
    ("1 FOLLOWING", "3 FOLLOWING"),
    ("UNBOUNDED PRECEDING", "UNBOUNDED FOLLOWING"),
    ("CURRENT ROW", "CURRENT ROW"),
];
const EXCLUDES: &[&str] =
    &["", "", "", " EXCLUDE CURRENT ROW", " EXCLUDE GROUP", " EXCLUDE TIES", " EXCLUDE NO OTHERS"];

impl Generator {
    /// A call with OVER that has this type.
    pub(super) fn windowed(&mut self, ty: Type, cx: &Cx<'_>, windows: &Windows) -> Option<Expr> {
        let kinds: [&[Function]; 3] = [&functions::RANKING, &functions::POSITIONAL, &functions::AGGREGATES];
        let kind = self.random.below(3);
        let is_window = |f: &Function| {
            !f.template.iter().any(|h| matches!(h, Hole::Text(t) if t.contains("ORDER BY")) || *h == Hole::Distinct)
        };
        let functions: Vec<Function> = kinds.get(kind)?.iter().filter(|f| is_window(f)).cloned().collect();
        let function = self.function(&functions, ty)?;
        let over = match kind {
            0 => self.ranked(windows)?,
            1 => self.total_order(windows)?,
            _ => self.framed(windows)?,
        };
        let argument = Cx { windows: None, nest: 0, n_aggregates: Cell::new(0), ..*cx };
        let mut call = self.call(&function, &argument, 0);
        if kind == 2 && self.uses(Feature::AggregateFilter, 20) {
            // No aggregate may stand there.
            let filter = self.predicate(&Cx { aggregated: None, n_aggregates: Cell::new(0), ..argument }, 0);
            let parts = vec![Part::Text(" FILTER (WHERE ".into()), Part::Expr(filter), Part::Text(")".into())];
            call.parts.push(Part::Optional(parts));
        }
        call.parts.push(Part::Text(" OVER ".into()));
        if let Some(_named) = windows.named.as_ref().filter(|_| self.random.chance(40)) {
            call.parts.push(Part::Text("w".into()));
            return Some(call);
        }
        call.parts.push(Part::Text("(".into()));
        call.parts.extend(over);
        call.parts.push(Part::Text(")".into()));
        Some(call)
    }

    fn partition(&mut self, windows: &Windows) -> Option<Part> {
        if windows.sortable.is_empty() || self.random.chance(40) {
            return None;
        }
        let column = &self.random.pick(&windows.sortable).0;
        Some(Part::Optional(vec![Part::Text(format!("PARTITION BY {column} "))]))
    }

    /// An order in which rows may be equal.
    fn ranked(&mut self, windows: &Windows) -> Option<Vec<Part>> {
        if windows.sortable.is_empty() {
            return None;
        }
        let partition = self.partition(windows);
        let (column, _) = self.random.pick(&windows.sortable).clone();
        let direction = *self.random.pick(DIRECTIONS);
        let order = Part::Text(format!("ORDER BY {column}{direction}"));
        Some(partition.into_iter().chain([order]).collect())
    }

    /// An order that tells rows apart.
    pub(super) fn total_order(&mut self, windows: &Windows) -> Option<Vec<Part>> {
        let total = windows.total.as_ref()?;
        windows.n_positional.set(windows.n_positional.get().checked_sub(1)?);
        let partition = self.partition(windows);
        let direction = *self.random.pick(DIRECTIONS);
        let mut order: Vec<String> = vec![];
        if !windows.sortable.is_empty() && self.random.chance(70) {
            order.push(self.random.pick(&windows.sortable).0.clone() + direction);
        }
        order.extend(total.iter().cloned());
        Some(partition.into_iter().chain([Part::Text(format!("ORDER BY {}", order.join(", ")))]).collect())
    }

    fn framed(&mut self, windows: &Windows) -> Option<Vec<Part>> {
        if self.random.chance(25) {
            return Some(self.partition(windows).into_iter().collect());
        }
        if !self.uses(Feature::Frame, 70) {
            return self.ranked(windows);
        }
        let (start, end) = *self.random.pick(BOUNDS);
        let exclude = *self.random.pick(EXCLUDES);
        let exclude = if self.on(Feature::Exclude) { exclude } else { "" };
        let (mut parts, unit) = match self.random.below(3) {
            0 => (self.total_order(windows)?, "ROWS"),
            1 => (self.ranked(windows)?, "GROUPS"),
            _ => {
                let numbers = [Type::Int4, Type::Int8, Type::Numeric, Type::Float8, Type::Int2];
                let columns: Vec<_> =
                    windows.sortable.iter().filter(|(_, ty)| numbers.contains(ty)).map(|(c, _)| c.clone()).collect();
                if columns.is_empty() {
                    return None;
                }
                let partition = self.partition(windows);
                let direction = *self.random.pick(DIRECTIONS);
                let order = Part::Text(format!("ORDER BY {}{direction}", self.random.pick(&columns)));
                (partition.into_iter().chain([order]).collect(), "RANGE")
            }
        };
        parts.push(Part::Optional(vec![Part::Text(format!(" {unit} BETWEEN {start} AND {end}{exclude}"))]));
        Some(parts)
    }
}

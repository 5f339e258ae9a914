//! Joins: equal keys as plain columns of one type, everything else as a residual over left and right.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, cast, lit};
use tidewire_operators::join::{self, Kind};
use tidewire_operators::{Plan, union};
use tidewire_types::Result;

use super::{Lowering, Relation, dfschema, nullable, properties, qualified};
use crate::dataflow::NodeKind;
use crate::errors::planning_error;
use crate::unnest_query::{asked, given};

impl Lowering<'_> {
    pub(super) fn join(&mut self, plan: &Join) -> Result<Relation> {
        let left = self.lower(&plan.left)?;
        let right = self.lower(&plan.right)?;
        let (filter, left) = self.with_scalars(plan.filter.iter().cloned().collect(), left)?;
        let filter = filter.into_iter().next();
        let pairs: Vec<(Expr, Expr)> = plan.on.clone();
        let (kind, swapped) = match plan.join_type {
            JoinType::Inner => (Kind::Inner, false),
            JoinType::Left => (Kind::Left, false),
            JoinType::Right => (Kind::Right, false),
            JoinType::Full => (Kind::Full, false),
            JoinType::LeftSemi => (Kind::LeftSemi, false),
            JoinType::RightSemi => (Kind::LeftSemi, true),
            JoinType::LeftAnti => (Kind::LeftAnti, false),
            JoinType::RightAnti => (Kind::LeftAnti, true),
            JoinType::LeftMark => (Kind::LeftMark, false),
            JoinType::RightMark => (Kind::LeftMark, true),
        };
        let (left, right) = if swapped { (right, left) } else { (left, right) };
        let pairs: Vec<_> = if swapped { pairs.into_iter().map(|(l, r)| (r, l)).collect() } else { pairs };
        let (left_exprs, right_exprs) = self.same_types(pairs, &left.columns, &right.columns)?;
        let (left, left_keys) = self.columns(left, &left_exprs.iter().collect::<Vec<_>>())?;
        let (right, right_keys) = self.columns(right, &right_exprs.iter().collect::<Vec<_>>())?;

        let both = self.both(&left, &right)?;
        let (asking, plain): (Vec<Expr>, Vec<Expr>) =
            filter.into_iter().flat_map(split_conjunction_owned).partition(|condition| {
                // What cannot be looked at is met again where it is planned.
                asked(condition).is_ok_and(|asked| asked.is_some())
            });
        let asking = asking.into_iter().reduce(Expr::and);
        let mut conditions = plain;
        if let (Some(asking), false) = (&asking, kind == Kind::Inner) {
            conditions.push(given(asking.clone()).map_err(|e| planning_error(e, self.text))?);
        }
        let filter = conditions.into_iter().reduce(Expr::and);
        let residual = filter.map(|filter| self.physical(&filter, &both)).transpose()?;
        let columns = match kind {
            Kind::LeftSemi | Kind::LeftAnti => left.columns.clone(),
            Kind::LeftMark => {
                let mut fields = qualified(&left.columns);
                let mark = if swapped { 0 } else { plan.schema.fields().len().saturating_sub(1) };
                let (qualifier, field) = mark_field(&plan.schema, mark);
                fields.push((qualifier, field));
                dfschema(fields)?
            }
            Kind::Inner | Kind::Left | Kind::Right | Kind::Full => both.clone(),
        };
        let joined = Joined {
            kind,
            left_keys,
            right_keys,
            null_equals_null: plan.null_equality == NullEquality::NullEqualsNull,
            null_aware: plan.null_aware,
            residual,
        };
        let Some(asking) = asking else { return Ok(self.push_join(joined, &left, &right, columns)) };
        let pairs = Joined { kind: Kind::Inner, residual: None, null_aware: false, ..joined.clone() };
        let joined = self.push_join(joined, &left, &right, columns);
        if kind == Kind::Inner {
            return self.filtered(asking, joined);
        }
        let pairs = self.push_join(pairs, &left, &right, both);
        self.with_assertion(joined, asking, pairs)
    }

    /// `relation`, which has a value only where `asking` has one for all of `pairs`.
    fn with_assertion(&mut self, relation: Relation, asking: Expr, pairs: Relation) -> Result<Relation> {
        let (_, pairs) = self.asserted(vec![asking], pairs)?;
        let nothing = self.filtered(lit(false), pairs)?;
        let nulls = relation.columns.fields().iter().map(|f| cast(lit(ScalarValue::Null), f.data_type().clone()));
        let nothing = self.project(&nothing, &nulls.collect::<Vec<_>>(), qualified(&relation.columns))?;
        let (schema, properties) = (self.schema(&relation), self.properties(&relation));
        let union = Plan::Union(union::Union { schema: schema.clone() });
        let node = self.push(NodeKind::Operator(union), vec![relation.node, nothing.node], schema, properties);
        Ok(Relation { node, columns: relation.columns })
    }

    /// Every row of `left` with the one row of `right`.
    pub(super) fn cross(&mut self, left: Relation, right: Relation) -> Result<Relation> {
        let columns = self.both(&left, &right)?;
        let joined = Joined {
            kind: Kind::Inner,
            left_keys: vec![],
            right_keys: vec![],
            null_equals_null: false,
            null_aware: false,
            residual: None,
        };
        Ok(self.push_join(joined, &left, &right, columns))
    }

    fn push_join(&mut self, joined: Joined, left: &Relation, right: &Relation, columns: Arc<DFSchema>) -> Relation {
        let Joined { kind, left_keys, right_keys, null_equals_null, null_aware, residual } = joined;
        let (l, r) = (self.properties(left), self.properties(right));
        let schema = nullable(columns.as_arrow());
        let n_left = left.columns.fields().len();
        let properties = properties::join(kind, &l, &r, n_left, &left_keys, &right_keys);
        let operator = join::Join {
            kind,
            null_equals_null,
            null_aware,
            residual,
            left_append_only: l.append_only,
            right_append_only: r.append_only,
            left_unique: l.unique_on(&left_keys),
            right_unique: r.unique_on(&right_keys),
            left_keys,
            right_keys,
            left_schema: self.schema(left),
            right_schema: self.schema(right),
            schema: schema.clone(),
        };
        let inputs = vec![left.node, right.node];
        let node = self.push(NodeKind::Operator(Plan::Join(operator)), inputs, schema, properties);
        Relation { node, columns }
    }

    fn both(&self, left: &Relation, right: &Relation) -> Result<Arc<DFSchema>> {
        dfschema(qualified(&left.columns).into_iter().chain(qualified(&right.columns)).collect())
    }

    /// Key expressions, cast where the two sides still differ.
    fn same_types(
        &self,
        pairs: Vec<(Expr, Expr)>,
        left: &DFSchema,
        right: &DFSchema,
    ) -> Result<(Vec<Expr>, Vec<Expr>)> {
        let mut keys = (vec![], vec![]);
        for (l, r) in pairs {
            let type_of = |e: &Expr, s: &DFSchema| e.get_type(s).map_err(|e| planning_error(e, self.text));
            let (lt, rt) = (type_of(&l, left)?, type_of(&r, right)?);
            let r = if lt == rt { r } else { cast(r, lt) };
            keys.0.push(l);
            keys.1.push(r);
        }
        Ok(keys)
    }
}

#[derive(Clone)]
struct Joined {
    kind: Kind,
    left_keys: Vec<usize>,
    right_keys: Vec<usize>,
    null_equals_null: bool,
    null_aware: bool,
    residual: Option<Arc<dyn datafusion::physical_plan::PhysicalExpr>>,
}

/// The boolean column of a mark join: last for LeftMark; RightMark puts it last as well.
fn mark_field(schema: &DFSchema, fallback: usize) -> (Option<datafusion::common::TableReference>, Arc<Field>) {
    let last = schema.fields().len().checked_sub(1).unwrap_or(fallback);
    match schema.iter().nth(last) {
        Some((qualifier, field)) => (qualifier.cloned(), field.clone()),
        None => (None, Arc::new(Field::new("mark", DataType::Boolean, true))),
    }
}

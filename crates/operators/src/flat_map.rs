//! Set-returning functions: each row of the input gives the rows that its functions return, with the row's weight.
//!
//! Several functions run in lock step: the rows of a shorter one are filled up with NULLs. Linear: needs no state.
//! [`FlatMap::rows`] is the one implementation, for the operator here and for batch queries.
//!
//! Invariant: the output rows of an input row depend on that row alone, so that a removed row removes what it gave.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Delta, Result, SqlError, SqlState};

use crate::expr::by_parts;
use crate::{Operator, StepContext, budget, consolidate};

/// Rows that the functions may give for one slice of the input, and so for one row.
pub const ROWS_MAX: usize = 100_000_000;
/// Input rows that are expanded at a time, so that what is in memory follows one slice's output.
const SLICE_ROWS: usize = 1024;
/// Output rows that a slice is to give: it is shorter where each row gives many.
const OUTPUT_ROWS: usize = 1 << 16;

/// How many input rows the next slice has.
#[derive(Clone, Copy, Debug)]
pub struct SliceRows(usize);

impl Default for SliceRows {
    fn default() -> SliceRows {
        SliceRows(SLICE_ROWS / 16)
    }
}

impl SliceRows {
    /// To learn first how many rows one gives.
    pub const ONE: SliceRows = SliceRows(1);

    /// The slice from `offset` on: so many rows, where there are as many.
    pub fn of(self, n_rows: usize, offset: usize) -> usize {
        self.0.min(n_rows.saturating_sub(offset))
    }

    /// The one after a slice of `n_in` rows that gave `n_out`.
    pub fn after(n_in: usize, n_out: usize) -> SliceRows {
        SliceRows((n_in * OUTPUT_ROWS / n_out.max(1)).clamp(1, SLICE_ROWS))
    }

    /// The one instead of a slice of `n_in` rows that gave too many. None: it was one row.
    pub fn instead(n_in: usize) -> Option<SliceRows> {
        (n_in > 1).then_some(SliceRows(n_in / 2))
    }
}

/// A function that returns a set of rows for each row of its arguments.
pub trait SetFunction: fmt::Debug + Send + Sync {
    /// The name as SQL has it.
    fn name(&self) -> &str;

    /// The columns of the rows that it returns; none: only how many rows there are matters.
    fn fields(&self) -> &[FieldRef];

    /// The sets of `n_rows` rows of arguments. Errors: those of any row.
    fn call(&self, args: &[ArrayRef], n_rows: usize) -> Result<Sets, DataFusionError>;
}

/// What a function returned for some rows of arguments.
#[derive(Debug)]
pub struct Sets {
    /// How many rows it returned for each.
    pub counts: Vec<u32>,
    /// Those rows, one after another.
    pub columns: Vec<ArrayRef>,
}

/// A call of a set-returning function.
#[derive(Clone, Debug)]
pub struct SetCall {
    /// The function.
    pub function: Arc<dyn SetFunction>,
    /// Its arguments, over the input's columns.
    pub args: Vec<Arc<dyn PhysicalExpr>>,
}

/// Parameters of the operator.
#[derive(Clone, Debug)]
pub struct FlatMap {
    /// The calls, in lock step.
    pub calls: Vec<SetCall>,
    /// The input's columns that the output begins with; the columns of each call follow.
    pub kept: Vec<usize>,
    /// Whether the last column (bigint) numbers the rows of each input row from 1.
    pub ordinality: bool,
    /// A condition on output rows.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// An input row without output rows gives one row with NULLs in the functions' columns: LEFT JOIN LATERAL.
    pub outer: bool,
    /// Schema of the output.
    pub schema: SchemaRef,
}

/// Output rows, and the input rows that they come from.
#[derive(Debug)]
pub struct Expanded {
    /// The output rows.
    pub rows: RecordBatch,
    /// For each of them, the index of the input row.
    pub origins: UInt32Array,
}

/// `54000`: the set of one row is too large.
pub fn too_many_rows(name: &str) -> DataFusionError {
    let message = format!("function {name}() returns more than {ROWS_MAX} rows for one row");
    DataFusionError::External(Box::new(SqlError::new(SqlState::ProgramLimitExceeded, message)))
}

impl FlatMap {
    /// A running shard.
    pub fn build(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(FlatMapShard { plan: self.clone() }))
    }

    /// The output rows of a batch, in the order of the input's rows.
    pub fn rows(&self, input: &RecordBatch) -> Result<Expanded, DataFusionError> {
        let sets = self.sets(input)?;
        let lock_step = LockStep::of(&sets, input.num_rows());
        if lock_step.n_rows() > ROWS_MAX {
            return Err(too_many_rows(self.calls.first().map_or("", |call| call.function.name())));
        }
        let expanded = self.expand(input, &sets, &lock_step)?;
        let mask = match &self.filter {
            None => None,
            Some(filter) => Some(filter.evaluate(&expanded.rows)?.into_array(expanded.rows.num_rows())?),
        };
        let is_kept = |idx: usize| match mask.as_ref().and_then(|m| m.as_boolean_opt()) {
            None => true,
            Some(mask) => mask.value(idx) && mask.nulls().is_none_or(|n| n.is_valid(idx)),
        };
        if !self.outer && mask.is_none() {
            return Ok(expanded);
        }
        self.pick(input, &expanded, &lock_step, is_kept)
    }

    fn sets(&self, input: &RecordBatch) -> Result<Vec<Sets>, DataFusionError> {
        let n_rows = input.num_rows();
        let sets = self.calls.iter().map(|call| {
            let args = call.args.iter().map(|arg| arg.evaluate(input)?.into_array(n_rows));
            let sets = call.function.call(&args.collect::<Result<Vec<_>, _>>()?, n_rows)?;
            match sets.counts.len() == n_rows {
                true => Ok(sets),
                false => Err(DataFusionError::Internal(format!("{} lost a row", call.function.name()))),
            }
        });
        sets.collect()
    }

    /// All rows of all sets.
    fn expand(&self, input: &RecordBatch, sets: &[Sets], lock_step: &LockStep) -> Result<Expanded, DataFusionError> {
        let origins = lock_step.origins();
        let mut columns = vec![];
        for idx in &self.kept {
            let column = input.columns().get(*idx).ok_or_else(|| lost_column(*idx))?;
            columns.push(compute::take(column, &origins, None)?);
        }
        for set in sets {
            match lock_step.indices(&set.counts) {
                None => columns.extend(set.columns.iter().cloned()),
                Some(indices) => {
                    for column in &set.columns {
                        columns.push(compute::take(column, &indices, None)?);
                    }
                }
            }
        }
        if self.ordinality {
            columns.push(Arc::new(lock_step.ordinals()));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(origins.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(Expanded { rows, origins })
    }

    /// The rows that are kept, and, where that is wanted, one with NULLs for each input row without any.
    fn pick(
        &self,
        input: &RecordBatch,
        expanded: &Expanded,
        lock_step: &LockStep,
        is_kept: impl Fn(usize) -> bool,
    ) -> Result<Expanded, DataFusionError> {
        let mut origins: Vec<u32> = vec![];
        let mut picked: Vec<Option<u32>> = vec![];
        let mut at = 0;
        for (origin, n_rows) in (0u32..).zip(&lock_step.counts) {
            let n_before = picked.len();
            for idx in at..at + *n_rows {
                if is_kept(idx as usize) {
                    origins.push(origin);
                    picked.push(Some(idx));
                }
            }
            at += *n_rows;
            if self.outer && picked.len() == n_before {
                origins.push(origin);
                picked.push(None);
            }
        }
        let (origins, picked) = (UInt32Array::from(origins), UInt32Array::from(picked));
        let mut columns = vec![];
        for (place, column) in expanded.rows.columns().iter().enumerate() {
            columns.push(match self.kept.get(place).and_then(|idx| input.columns().get(*idx)) {
                Some(column) => compute::take(column, &origins, None)?,
                None => compute::take(column, &picked, None)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(origins.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(Expanded { rows, origins })
    }

    /// Whether all that a call does is to say how often a row comes out.
    fn only_counts(&self) -> bool {
        let no_columns = self.calls.iter().all(|call| call.function.fields().is_empty());
        no_columns && !self.ordinality && !self.outer && self.filter.is_none()
    }

    /// The input rows that come out, and how many times each.
    fn counted(&self, input: &RecordBatch) -> Result<(UInt32Array, Vec<i64>), DataFusionError> {
        let counts = LockStep::of(&self.sets(input)?, input.num_rows()).counts;
        let present = || (0u32..).zip(&counts).filter(|(_, n)| **n > 0);
        Ok((present().map(|(idx, _)| idx).collect(), present().map(|(_, n)| i64::from(*n)).collect()))
    }
}

fn lost_column(idx: usize) -> DataFusionError {
    DataFusionError::Internal(format!("there is no column {idx}"))
}

/// How many rows each input row gives: as many as the longest of its sets has.
struct LockStep {
    counts: Vec<u32>,
}

impl LockStep {
    fn of(sets: &[Sets], n_rows: usize) -> LockStep {
        let longest = |idx: usize| sets.iter().filter_map(|s| s.counts.get(idx).copied()).max().unwrap_or(0);
        LockStep { counts: (0..n_rows).map(longest).collect() }
    }

    fn n_rows(&self) -> usize {
        self.counts.iter().map(|n| *n as usize).sum()
    }

    fn origins(&self) -> UInt32Array {
        (0u32..).zip(&self.counts).flat_map(|(idx, n)| std::iter::repeat_n(idx, *n as usize)).collect()
    }

    fn ordinals(&self) -> Int64Array {
        Int64Array::from_iter_values(self.counts.iter().flat_map(|n| 1..=i64::from(*n)))
    }

    /// Where a function's rows go, when it returned `counts`; None: exactly where they are.
    fn indices(&self, counts: &[u32]) -> Option<UInt32Array> {
        if counts == self.counts {
            return None;
        }
        let mut begin = 0;
        let mut indices: Vec<Option<u32>> = Vec::with_capacity(self.n_rows());
        for (own, all) in counts.iter().zip(&self.counts) {
            indices.extend((0..*all).map(|idx| (idx < *own).then_some(begin + idx)));
            begin += own;
        }
        Some(indices.into())
    }
}

struct FlatMapShard {
    plan: FlatMap,
}

impl Operator for FlatMapShard {
    fn step(&mut self, inputs: &mut [Vec<Delta>], cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for delta in inputs.iter_mut().flat_map(std::mem::take) {
            if self.plan.only_counts() {
                self.multiply(&delta, cx, out)?;
                continue;
            }
            let (mut offset, mut rows) = (0, SliceRows::default());
            while offset < delta.n_rows() {
                let len = rows.of(delta.n_rows(), offset);
                let n_out = self.expand(&delta.slice(offset, len), cx, out)?;
                offset += len;
                rows = SliceRows::after(len, n_out);
            }
        }
        Ok(())
    }
}

impl FlatMapShard {
    /// The number of rows that it put out.
    fn expand(&self, delta: &Delta, cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<usize> {
        let mut n_out = 0;
        for part in by_parts(delta, cx, &|_| self.plan.to_string(), &|rows| self.plan.rows(rows))? {
            let Expanded { rows, origins } = part.value;
            if rows.num_rows() == 0 {
                continue;
            }
            let weights = delta.slice(part.offset, part.len).weights().map(|w| compute::take(w, &origins, None));
            let weights = weights.transpose()?.map(|w| w.as_primitive().clone());
            budget::spend(&rows)?;
            n_out += rows.num_rows();
            out.push(Delta::new(rows, weights));
        }
        Ok(n_out)
    }

    /// Copies need no rows of their own.
    fn multiply(&self, delta: &Delta, cx: &StepContext<'_>, out: &mut Vec<Delta>) -> Result<()> {
        for part in by_parts(delta, cx, &|_| self.plan.to_string(), &|rows| self.plan.counted(rows))? {
            let (indices, counts) = part.value;
            if indices.is_empty() {
                continue;
            }
            let part = delta.slice(part.offset, part.len);
            let kept = compute::take_record_batch(&part.rows().project(&self.plan.kept)?, &indices)?;
            let rows = kept.with_schema(Arc::clone(&self.plan.schema))?;
            let weight = |(idx, n): (&u32, &i64)| {
                let weight = part.weight(*idx as usize).checked_mul(*n);
                weight.ok_or_else(|| SqlError::internal("too many copies of a row"))
            };
            let weights = indices.values().iter().zip(&counts).map(weight).collect::<Result<Vec<_>>>()?;
            // A group's old and new count mostly differ by one.
            let delta = consolidate(Delta::new(rows, Some(weights.into())))?;
            out.extend((!delta.is_empty()).then_some(delta));
        }
        Ok(())
    }
}

impl fmt::Display for SetCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.name())?;
        for (idx, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if idx == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for FlatMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("functions=[")?;
        for (idx, call) in self.calls.iter().enumerate() {
            write!(f, "{}{call}", if idx == 0 { "" } else { ", " })?;
        }
        f.write_str("]")?;
        if let Some(filter) = &self.filter {
            write!(f, ", filter={filter}")?;
        }
        f.write_str(if self.outer { ", outer" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Int64Type};
    use datafusion::logical_expr::Operator as BinaryOperator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;
    use crate::testing::{Row, Steps, Value, batch, check_operator, schema};

    /// 1 to n; an error for 4.
    #[derive(Debug)]
    struct UpTo {
        fields: Vec<FieldRef>,
    }

    impl SetFunction for UpTo {
        fn name(&self) -> &str {
            "up_to"
        }

        fn fields(&self) -> &[FieldRef] {
            &self.fields
        }

        fn call(&self, args: &[ArrayRef], _: usize) -> Result<Sets, DataFusionError> {
            let ends: Vec<i64> = args[0].as_primitive::<Int64Type>().iter().map(|n| n.unwrap_or(0).max(0)).collect();
            if ends.contains(&4) {
                return Err(too_many_rows("up_to"));
            }
            let values = Int64Array::from_iter_values(ends.iter().flat_map(|end| 1..=*end));
            let columns = if self.fields.is_empty() { vec![] } else { vec![Arc::new(values) as ArrayRef] };
            Ok(Sets { counts: ends.iter().map(|end| *end as u32).collect(), columns })
        }
    }

    fn up_to(column: &str, input: &SchemaRef, has_column: bool) -> SetCall {
        let field = Arc::new(Field::new("n", DataType::Int64, true));
        let fields = if has_column { vec![field] } else { vec![] };
        SetCall { function: Arc::new(UpTo { fields }), args: vec![col(column, input).unwrap()] }
    }

    fn input() -> SchemaRef {
        schema(["a", "b"].map(|name| Field::new(name, DataType::Int64, true)).to_vec())
    }

    fn output(names: &[&str]) -> SchemaRef {
        schema(names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect())
    }

    fn length(value: &Value) -> i64 {
        if let Value::Int(n) = value { (*n).max(0) } else { 0 }
    }

    fn at(value: &Value, idx: i64) -> Value {
        if idx <= length(value) { Value::Int(idx) } else { Value::Null }
    }

    #[test]
    fn equals_the_sets_of_all_rows() {
        for outer in [false, true] {
            let plan = FlatMap {
                calls: vec![up_to("a", &input(), true), up_to("b", &input(), true)],
                kept: vec![1],
                ordinality: true,
                filter: None,
                outer,
                schema: output(&["b", "n", "m", "ordinality"]),
            };
            let of_row = |r: &Row| {
                let n = length(&r[0]).max(length(&r[1]));
                let mut rows: Vec<Row> =
                    (1..=n).map(|i| vec![r[1].clone(), at(&r[0], i), at(&r[1], i), Value::Int(i)]).collect();
                if rows.is_empty() && outer {
                    rows.push(vec![r[1].clone(), Value::Null, Value::Null, Value::Null]);
                }
                // A row with an error is left out.
                if r.contains(&Value::Int(4)) { vec![] } else { rows }
            };
            check_operator(&[input()], &crate::Plan::FlatMap(plan.clone()), |i| i[0].iter().flat_map(of_row).collect());
        }
    }

    #[test]
    fn equals_the_sets_that_satisfy_the_condition() {
        for outer in [false, true] {
            let schema = output(&["a", "b", "n"]);
            let filter =
                binary(col("n", &schema).unwrap(), BinaryOperator::Gt, col("b", &schema).unwrap(), &schema).unwrap();
            let plan = FlatMap {
                calls: vec![up_to("a", &input(), true)],
                kept: vec![0, 1],
                ordinality: false,
                filter: Some(filter),
                outer,
                schema: schema.clone(),
            };
            let of_row = |r: &Row| {
                let is_larger = |n: i64| matches!(r[1], Value::Int(b) if n > b);
                let mut rows: Vec<Row> = (1..=length(&r[0]))
                    .filter(|n| is_larger(*n))
                    .map(|n| vec![r[0].clone(), r[1].clone(), Value::Int(n)])
                    .collect();
                if rows.is_empty() && outer {
                    rows.push(vec![r[0].clone(), r[1].clone(), Value::Null]);
                }
                if r[0] == Value::Int(4) { vec![] } else { rows }
            };
            check_operator(&[input()], &crate::Plan::FlatMap(plan.clone()), |i| i[0].iter().flat_map(of_row).collect());
        }
    }

    #[test]
    fn copies_are_weights() {
        let plan = FlatMap {
            calls: vec![up_to("a", &input(), false)],
            kept: vec![1],
            ordinality: false,
            filter: None,
            outer: false,
            schema: output(&["b"]),
        };
        let of_row = |r: &Row| {
            let n = if r[0] == Value::Int(4) { 0 } else { length(&r[0]) };
            std::iter::repeat_n(vec![r[1].clone()], n as usize).collect::<Vec<_>>()
        };
        check_operator(&[input()], &crate::Plan::FlatMap(plan.clone()), |i| i[0].iter().flat_map(of_row).collect());
        let mut out = vec![];
        let row = vec![Value::Int(1000), Value::Int(7)];
        let delta = Delta::insert(batch(&input(), &[&row]));
        plan.build().unwrap().step(&mut [vec![delta]], &Steps::default().context(1), &mut out).unwrap();
        assert_eq!((out[0].n_rows(), out[0].weight(0)), (1, 1000));
    }

    #[test]
    fn a_row_that_fails_is_told_apart() {
        let plan = FlatMap {
            calls: vec![SetCall { args: vec![lit(4i64)], ..up_to("a", &input(), true) }],
            kept: vec![],
            ordinality: false,
            filter: None,
            outer: false,
            schema: output(&["n"]),
        };
        let steps = Steps::default();
        let rows = [vec![Value::Int(1), Value::Null], vec![Value::Null, Value::Null]];
        let delta = Delta::insert(batch(&input(), &rows.iter().collect::<Vec<_>>()));
        plan.build().unwrap().step(&mut [vec![delta]], &steps.context(1), &mut vec![]).unwrap();
        let errors = steps.row_errors();
        assert_eq!(errors.len(), 2);
        assert_eq!(
            (errors[0].error.state(), &errors[0].expr[..]),
            (SqlState::ProgramLimitExceeded, "functions=[up_to(4)]")
        );
    }

    #[test]
    fn slices_have_fewer_rows_where_each_gives_many() {
        assert_eq!(SliceRows::ONE.of(5000, 0), 1);
        assert_eq!(SliceRows::after(1, 0).of(5000, 1), SLICE_ROWS);
        assert_eq!(SliceRows::after(1, 3).of(5000, 4990), 10);
        assert_eq!(SliceRows::after(512, 512 * OUTPUT_ROWS).of(5000, 0), 1);
        assert_eq!(SliceRows::instead(1024).map(|rows| rows.of(5000, 0)), Some(512));
        assert!(SliceRows::instead(1).is_none());
    }
}

//! Any DataFusion aggregate, by its own accumulator.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, new_empty_array};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::PhysicalExpr;
use tidewire_types::{Result, SqlError};

use super::{Frames, Input, Results, Scope};
use crate::expr::sql_error;
use crate::window::{Arg, Call};

pub(super) struct Other {
    function: Arc<AggregateUDF>,
    field: FieldRef,
    args: Vec<Arg>,
    /// Of the arguments that are columns.
    schema: Schema,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl Other {
    pub(super) fn new(function: Arc<AggregateUDF>, call: &Call, types: &[DataType]) -> Result<Other> {
        let fields: Vec<FieldRef> =
            types.iter().enumerate().map(|(i, t)| Arc::new(Field::new(format!("c{i}"), t.clone(), true))).collect();
        let columns = call.args.iter().zip(&fields).filter(|(arg, _)| matches!(arg, Arg::Column(_)));
        let schema = Schema::new(columns.map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>());
        let mut n_columns = 0;
        let exprs = call.args.iter().zip(&fields).map(|(arg, field)| match arg {
            Arg::Constant(value) => Arc::new(Literal::new(value.clone())) as Arc<dyn PhysicalExpr>,
            Arg::Column(_) => {
                n_columns += 1;
                Arc::new(Column::new(field.name(), n_columns - 1))
            }
        });
        let exprs = exprs.collect();
        let other =
            Other { function, field: call.field.clone(), args: call.args.clone(), schema, exprs, expr_fields: fields };
        // What it cannot do is known before any row comes.
        other.accumulator()?;
        Ok(other)
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        let args = AccumulatorArgs {
            return_field: Arc::clone(&self.field),
            schema: &self.schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: self.field.name(),
            is_distinct: false,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        };
        self.function.accumulator(args).map_err(sql_error)
    }

    pub(super) fn evaluate(&self, frames: &Frames, scope: &Scope, input: &Input) -> Result<Results> {
        let n_rows = scope.span.len();
        // The rows that pass the filter, and how many of them stand before each row.
        let mut n_before = Vec::with_capacity(n_rows + 1);
        let passes: Vec<bool> = (0..n_rows).map(|idx| input.passes(idx)).collect();
        let mut n = 0;
        n_before.push(0);
        for pass in &passes {
            n += usize::from(*pass);
            n_before.push(n);
        }
        let mask = BooleanArray::from(passes);
        let columns = self.columns(input, n_rows)?;
        let columns: Vec<ArrayRef> = columns.iter().map(|c| filter(c, &mask)).collect::<Result<_, _>>()?;
        let local = |piece: &Range<usize>| {
            let at = |place: usize| {
                place.checked_sub(scope.span.start).and_then(|idx| n_before.get(idx)).copied().unwrap_or(n)
            };
            if piece.is_empty() { 0..0 } else { at(piece.start)..at(piece.end) }
        };

        let mut results: Vec<ScalarValue> = Vec::with_capacity(frames.pieces.len());
        let mut errors = vec![];
        let null = ScalarValue::try_new_null(self.field.data_type()).map_err(sql_error)?;
        let mut running: Option<(Range<usize>, Box<dyn Accumulator>)> = None;
        let mut last: Option<Vec<Range<usize>>> = None;
        for (idx, pieces) in frames.pieces.iter().enumerate() {
            let runs: Vec<Range<usize>> = pieces.iter().map(&local).filter(|r| !r.is_empty()).collect();
            let same = last.as_ref() == Some(&runs) && idx > 0;
            let result = match (runs.as_slice(), results.last()) {
                (_, Some(result)) if same => Ok(result.clone()),
                ([], _) => self.function.default_value(self.field.data_type()).map_err(sql_error),
                _ => self.over(&runs, &columns, &mut running),
            };
            last = Some(runs);
            match result {
                Ok(value) => results.push(value),
                Err(error) => {
                    // The next row must not take over what this one could not have.
                    (last, running) = (None, None);
                    errors.push((idx, error));
                    results.push(null.clone());
                }
            }
        }
        let column = match results.is_empty() {
            true => new_empty_array(self.field.data_type()),
            false => ScalarValue::iter_to_array(results).map_err(sql_error)?,
        };
        Ok(Results { column: cast(&column, self.field.data_type())?, errors })
    }

    /// The result over some runs of rows; `running` is the accumulator of the last single run.
    fn over(
        &self,
        runs: &[Range<usize>],
        columns: &[ArrayRef],
        running: &mut Option<(Range<usize>, Box<dyn Accumulator>)>,
    ) -> Result<ScalarValue> {
        let feed = |accumulator: &mut Box<dyn Accumulator>, run: Range<usize>| {
            let rows: Vec<ArrayRef> = columns.iter().map(|c| c.slice(run.start, run.len())).collect();
            accumulator.update_batch(&rows).map_err(sql_error)
        };
        if let [run] = runs {
            let (mut accumulator, fed) = match running.take() {
                Some((present, accumulator)) if present.start == run.start && present.end <= run.end => {
                    (accumulator, present.end)
                }
                _ => (self.accumulator()?, run.start),
            };
            feed(&mut accumulator, fed..run.end)?;
            let result = accumulator.evaluate().map_err(sql_error)?;
            *running = Some((run.clone(), accumulator));
            return Ok(result);
        }
        let mut accumulator = self.accumulator()?;
        for run in runs {
            feed(&mut accumulator, run.clone())?;
        }
        accumulator.evaluate().map_err(sql_error)
    }

    /// All arguments, constants written out.
    fn columns(&self, input: &Input, n_rows: usize) -> Result<Vec<ArrayRef>> {
        let mut columns = input.columns.iter();
        let lost = || SqlError::internal("an argument is lost");
        let args = self.args.iter().map(|arg| match arg {
            Arg::Constant(value) => value.to_array_of_size(n_rows).map_err(sql_error),
            Arg::Column(_) => columns.next().cloned().ok_or_else(lost),
        });
        args.collect()
    }
}

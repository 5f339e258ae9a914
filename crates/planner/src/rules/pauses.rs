//! A query that computes for long pauses now and then: so a cancel and a deadline are seen, and other sessions run.
//!
//! DataFusion's plans pause where they read their tables. But a join that makes very many rows of few reads nothing for
//! a long time: above it a filter may drop them all, or an aggregate take them in, and with a condition of its own (or
//! where it only asks whether there are matches) it does not even give rows away. So joins and set-returning functions
//! pause where they give rows, and those joins also get the rows of their probe side in pieces so small that each takes
//! little time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, JoinType, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{Stream, StreamExt};

use crate::flat_map::FlatMapExec;

/// How many rows the first piece has.
const FIRST_ROWS: usize = 32;
/// A piece that took less is followed by one of twice its rows.
const SHORT: Duration = Duration::from_millis(2);
/// A piece that took longer is followed by one of half its rows, and by a pause.
const LONG: Duration = Duration::from_millis(10);

/// Puts the pauses in.
#[derive(Debug)]
pub(crate) struct Pauses;

impl PhysicalOptimizerRule for Pauses {
    fn name(&self) -> &str {
        "pauses"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(with_pauses)?.data)
    }
}

fn with_pauses(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let in_pieces = match plan.downcast_ref::<HashJoinExec>() {
        Some(join) => join.filter().is_some() || !gives_each_match(join.join_type()),
        None => plan.is::<NestedLoopJoinExec>(),
    };
    let plan = match in_pieces {
        true => with_pieces(plan)?,
        false if makes_rows(plan.as_ref()) => plan,
        false => return Ok(Transformed::no(plan)),
    };
    Ok(Transformed::yes(Arc::new(PausesExec { input: plan, in_pieces: false })))
}

/// Whether it may give many rows for each row that it reads.
fn makes_rows(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<HashJoinExec>() || plan.is::<CrossJoinExec>() || plan.is::<FlatMapExec>()
}

fn gives_each_match(join: &JoinType) -> bool {
    matches!(join, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
}

/// The join with its probe side, the second one, in pieces.
fn with_pieces(join: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut children: Vec<_> = join.children().into_iter().cloned().collect();
    if let [_, probe] = children.as_mut_slice() {
        *probe = Arc::new(PausesExec { input: probe.clone(), in_pieces: true });
    }
    join.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// Gives its input's rows, with pauses.
#[derive(Debug)]
struct PausesExec {
    input: Arc<dyn ExecutionPlan>,
    /// Otherwise as they come.
    in_pieces: bool,
}

impl DisplayAs for PausesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PausesExec")
    }
}

impl ExecutionPlan for PausesExec {
    fn name(&self) -> &str {
        "PausesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[Arc<dyn ExecutionPlan>; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("PausesExec has one input".into()))?;
        Ok(Arc::new(PausesExec { input, in_pieces: self.in_pieces }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let max_rows = context.session_config().batch_size();
        let input = self.input.execute(partition, context)?;
        Ok(Box::pin(Paused::new(input, self.in_pieces.then_some(max_rows))))
    }
}

/// Batches with a pause whenever what reads them has been at work for long.
struct Paused {
    input: SendableRecordBatchStream,
    pieces: Option<Pieces>,
    /// When it began to give batches without a pause. None: it is to begin.
    since: Option<Instant>,
}

/// Of batches: the number of their rows follows the time that those before them took.
struct Pieces {
    n_rows: usize,
    max_rows: usize,
    /// What is left of the last batch.
    rest: Option<RecordBatch>,
    /// When the last piece was given. None: there was a pause since.
    given: Option<Instant>,
}

impl Paused {
    fn new(input: SendableRecordBatchStream, max_rows: Option<usize>) -> Paused {
        let pieces =
            max_rows.map(|max_rows| Pieces { n_rows: FIRST_ROWS.min(max_rows), max_rows, rest: None, given: None });
        Paused { input, pieces, since: None }
    }

    /// The next batch of the input, or what is left of the last one.
    fn input_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        match self.pieces.as_mut().and_then(|pieces| pieces.rest.take()) {
            Some(rest) => Poll::Ready(Some(Ok(rest))),
            None => self.input.poll_next_unpin(cx),
        }
    }
}

impl Pieces {
    /// Tells how long the piece before took.
    fn asked_at(&mut self, now: Instant) {
        match self.given.take().map(|given| now - given) {
            Some(took) if took < SHORT => self.n_rows = (self.n_rows * 2).min(self.max_rows),
            Some(took) if took > LONG => self.n_rows = (self.n_rows / 2).max(1),
            _ => {}
        }
    }

    fn first_of(&mut self, batch: RecordBatch) -> RecordBatch {
        self.given = Some(Instant::now());
        let n_rest = batch.num_rows().saturating_sub(self.n_rows);
        if n_rest == 0 {
            return batch;
        }
        self.rest = Some(batch.slice(self.n_rows, n_rest));
        batch.slice(0, self.n_rows)
    }
}

impl RecordBatchStream for Paused {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

impl Stream for Paused {
    type Item = Result<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let now = Instant::now();
        if let Some(pieces) = &mut this.pieces {
            pieces.asked_at(now);
        }
        let since = this.since.take().unwrap_or(now);
        if now - since > LONG {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let batch = ready!(this.input_batch(cx));
        this.since = Some(since);
        Poll::Ready(match (batch, &mut this.pieces) {
            (Some(Ok(batch)), Some(pieces)) => Some(Ok(pieces.first_of(batch))),
            (batch, _) => batch,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::stream;
    use futures::task::{ArcWake, waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Woken>) {
            woken.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rows(n: i64) -> SendableRecordBatchStream {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from_iter_values(0..n))]);
        let batches = stream::iter([batch.map_err(Into::into)]);
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }

    /// As if what was given had taken long.
    fn wait(paused: &mut Paused) {
        let before = |at: Instant| at.checked_sub(LONG * 2).unwrap();
        paused.since = paused.since.map(before);
        if let Some(pieces) = &mut paused.pieces {
            pieces.given = pieces.given.map(before);
        }
    }

    #[test]
    fn pieces_that_take_long_get_smaller_and_are_followed_by_a_pause() {
        let woken = Arc::new(Woken::default());
        let waker = waker(woken.clone());
        let cx = &mut Context::from_waker(&waker);
        let mut paused = Paused::new(rows(70), Some(8192));
        let mut sizes = vec![];
        let mut n_pauses = 0;
        loop {
            match paused.poll_next_unpin(cx) {
                Poll::Ready(None) => break,
                Poll::Ready(Some(batch)) => sizes.push(batch.unwrap().num_rows()),
                Poll::Pending => {
                    n_pauses += 1;
                    continue;
                }
            }
            wait(&mut paused);
        }
        assert_eq!(sizes.iter().sum::<usize>(), 70);
        assert_eq!(&sizes[..4], [32, 16, 8, 4]);
        assert_eq!(n_pauses, sizes.len());
        assert_eq!(woken.0.load(Ordering::Relaxed), n_pauses);
    }

    #[test]
    fn without_pieces_batches_stay_whole() {
        let cx = &mut Context::from_waker(futures::task::noop_waker_ref());
        let mut paused = Paused::new(rows(1000), None);
        let Poll::Ready(Some(Ok(batch))) = paused.poll_next_unpin(cx) else { panic!("a batch") };
        assert_eq!(batch.num_rows(), 1000);
        wait(&mut paused);
        assert!(paused.poll_next_unpin(cx).is_pending());
        assert!(matches!(paused.poll_next_unpin(cx), Poll::Ready(None)));
    }
}

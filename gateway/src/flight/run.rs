//! One execution of a statement: what reads the session's answer on one end, and the streams of Flight that draw from it on the other.
//! Between them lies a bounded queue, so that who does not read holds the statement up, and nothing else. ✗ tickets, gRPC.
//!
//! Several streams may draw from one execution: each batch goes to one of them. A stream that is dropped before the end stops it.

use super::client::{Client, Event, affected, no_copy};
use super::decode::Rows;
use super::failure::Failure;
use super::types::Column;
use crate::server::Shared;
use crate::session::login;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

/// Bytes that wait for a reader.
const QUEUED: usize = 8 << 20;
/// And that wait so that others of the session may go on: a statement that is read slowly, or later, does not keep the session.
const SPOOLED: usize = 64 << 20;
/// Rows of PostgreSQL's that make a batch, and bytes.
const BATCH_ROWS: usize = 16_384;
const BATCH_BYTES: usize = 1 << 20;

/// How many of a session's calls wait for it, and what tells those who keep it.
#[derive(Default)]
pub struct Waiting {
    count: AtomicUsize,
    changed: Notify,
}

impl Waiting {
    /// Counts one until the guard drops.
    pub fn join(self: &Arc<Self>) -> Waits {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
        Waits(self.clone())
    }
}

/// See [`Waiting::join`].
pub struct Waits(Arc<Waiting>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An execution.
pub struct Run {
    state: Mutex<State>,
    /// Something to draw, or the end.
    filled: Notify,
    /// Something was drawn.
    drawn: Notify,
    /// Nobody wants the rest.
    pub stop: CancellationToken,
    waiting: Arc<Waiting>,
    /// What it does is not undone by nobody reading it: it runs on, as far as there is room.
    eager: bool,
}

#[derive(Default)]
struct State {
    batches: VecDeque<RecordBatch>,
    bytes: usize,
    /// Rows that the statement touched.
    end: Option<Result<i64, Failure>>,
    /// By ticket, whether it was drawn from.
    taken: Vec<bool>,
    /// Nobody reads the rows, and what the statement does must be done all the same.
    unread: bool,
}

impl Run {
    pub fn new(tickets: usize, waiting: Arc<Waiting>, eager: bool) -> Arc<Run> {
        Arc::new(Run {
            state: Mutex::new(State { taken: vec![false; tickets], ..State::default() }),
            filled: Notify::new(),
            drawn: Notify::new(),
            stop: CancellationToken::new(),
            waiting,
            eager,
        })
    }

    /// Takes a ticket. False: it was taken.
    pub fn take(&self, ticket: usize) -> bool {
        self.state.lock().taken.get_mut(ticket).is_some_and(|taken| !std::mem::replace(taken, true))
    }

    /// Nothing more comes, whether or not all was drawn.
    pub fn is_over(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// All tickets were taken.
    pub fn is_taken(&self) -> bool {
        self.state.lock().taken.iter().all(|t| *t)
    }

    fn end(&self, end: Result<i64, Failure>) {
        self.state.lock().end.get_or_insert(end);
        self.filled.notify_waiters();
    }

    /// Waits for the end.
    pub async fn ended(&self) -> Result<i64, Failure> {
        loop {
            let filled = self.filled.notified();
            if let Some(end) = &self.state.lock().end {
                return end.clone();
            }
            filled.await;
        }
    }

    /// Waits for room, and puts a batch.
    async fn put(&self, batch: RecordBatch) {
        let bytes = batch.get_array_memory_size();
        loop {
            let (drawn, changed) = (self.drawn.notified(), self.waiting.changed.notified());
            {
                let mut state = self.state.lock();
                if state.unread {
                    return;
                }
                let patient = !self.eager && self.waiting.count.load(Ordering::SeqCst) == 0;
                let room = if patient { QUEUED } else { SPOOLED };
                if state.bytes < room || self.stop.is_cancelled() {
                    state.bytes += bytes;
                    state.batches.push_back(batch);
                    break;
                }
            }
            tokio::select! {
                () = drawn => {}
                () = changed => {}
                () = self.stop.cancelled() => return,
            }
        }
        self.filled.notify_waiters();
    }

    async fn next(&self) -> Option<Result<RecordBatch, Failure>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.state.lock();
                if let Some(batch) = state.batches.pop_front() {
                    state.bytes = state.bytes.saturating_sub(batch.get_array_memory_size());
                    drop(state);
                    self.drawn.notify_waiters();
                    return Some(Ok(batch));
                }
                match &state.end {
                    Some(Ok(_)) => return None,
                    Some(Err(e)) => return Some(Err(e.clone())),
                    None => {}
                }
            }
            filled.await;
        }
    }

    /// Executes a prepared statement once for each row of parameters, and puts what it gives.
    pub async fn execute(
        self: Arc<Self>,
        shared: Arc<Shared>,
        mut client: OwnedMutexGuard<Client>,
        statement: String,
        params: Vec<Vec<Option<Vec<u8>>>>,
        columns: Vec<Column>,
        schema: SchemaRef,
    ) {
        let mut touched = 0;
        for params in params {
            match self.execute_once(&shared, &mut client, &statement, &params, &columns, &schema).await {
                Ok(n) => touched += n,
                Err(e) => return self.end(Err(e)),
            }
        }
        // Who waits for the end may use the session at once.
        drop(client);
        self.end(Ok(touched));
    }

    async fn execute_once(
        &self,
        shared: &Shared,
        client: &mut Client,
        statement: &str,
        params: &[Option<Vec<u8>>],
        columns: &[Column],
        schema: &SchemaRef,
    ) -> Result<i64, Failure> {
        if self.stop.is_cancelled() {
            return Err(cancelled());
        }
        client.begin(statement, params, columns).await?;
        let mut rows = Rows::new(columns, schema.clone());
        let mut touched = 0;
        let mut failed: Option<Failure> = None;
        let mut called_off = false;
        loop {
            let event = tokio::select! {
                event = client.event() => event?,
                () = self.stop.cancelled(), if !called_off => {
                    called_off = true;
                    login::cancel(&shared.upstream, &shared.cancels, client.key()).await;
                    continue;
                }
            };
            match event {
                _ if called_off && matches!(event, Event::Batch(_) | Event::Frame(b'D', _)) => {}
                Event::Batch(batch) => self.put(batch).await,
                Event::Frame(b'D', body) => {
                    if failed.is_none()
                        && let Err(unfit) = rows.add(&body)
                    {
                        failed = Some(unfit.into());
                        called_off = true;
                        login::cancel(&shared.upstream, &shared.cancels, client.key()).await;
                    }
                    if rows.rows() >= BATCH_ROWS || rows.bytes() >= BATCH_BYTES {
                        self.put(rows.take()).await;
                    }
                }
                Event::Frame(b'C', body) => touched = affected(&body),
                Event::Frame(b'E', body) => {
                    failed.get_or_insert_with(|| Failure::read(&body));
                }
                Event::Frame(b'G', _) => client.refuse_copy().await?,
                Event::Frame(b'H', _) => {
                    failed.get_or_insert_with(no_copy);
                }
                Event::Frame(b'Z', _) => break,
                Event::Frame(..) => {}
            }
        }
        match failed {
            Some(e) => Err(e),
            None if self.stop.is_cancelled() => Err(cancelled()),
            None => {
                if !rows.is_empty() {
                    self.put(rows.take()).await;
                }
                Ok(touched)
            }
        }
    }

    /// It could not begin.
    pub fn fail(&self, e: Failure) {
        self.end(Err(e));
    }
}

fn cancelled() -> Failure {
    Failure::new("57014", "canceling statement due to user request")
}

/// One stream's hold on a run.
pub struct Reader {
    run: Arc<Run>,
    whole: bool,
}

impl Reader {
    pub fn new(run: Arc<Run>) -> Reader {
        Reader { run, whole: false }
    }

    /// The next batch; None after the last, or after an error.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, Failure>> {
        if self.whole {
            return None;
        }
        let next = self.run.next().await;
        self.whole = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.whole {
            return;
        }
        if !self.run.eager {
            return self.run.stop.cancel();
        }
        let mut state = self.run.state.lock();
        state.unread = true;
        state.batches.clear();
        drop(state);
        self.run.drawn.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;
    use arrow::datatypes::{DataType, Field, Schema};

    fn batch(n: i32) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int32Array::from(vec![n; 1 << 20]))]).unwrap()
    }

    #[tokio::test]
    async fn readers_share_one_answer() {
        let run = Run::new(2, Arc::default(), false);
        assert!(run.take(0) && run.take(1) && !run.take(1));
        let (mut a, mut b) = (Reader::new(run.clone()), Reader::new(run.clone()));
        let putting = tokio::spawn({
            let run = run.clone();
            async move {
                for n in 0..10 {
                    run.put(batch(n)).await;
                }
                run.end(Ok(10));
            }
        });
        let (mut read, mut left) = (0, true);
        while left {
            left = false;
            for reader in [&mut a, &mut b] {
                if let Some(batch) = reader.next().await {
                    batch.unwrap();
                    read += 1;
                    left = true;
                }
            }
        }
        putting.await.unwrap();
        assert_eq!(read, 10);
        assert!(!run.stop.is_cancelled() || a.whole && b.whole);
    }

    #[tokio::test]
    async fn who_does_not_read_holds_it_up_unless_others_wait() {
        let waiting: Arc<Waiting> = Arc::default();
        let run = Run::new(1, waiting.clone(), false);
        let putting = tokio::spawn({
            let run = run.clone();
            async move {
                for n in 0..10 {
                    run.put(batch(n)).await;
                }
                run.end(Ok(10));
            }
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!run.is_over());
        let _waits = waiting.join();
        tokio::time::timeout(std::time::Duration::from_secs(5), run.ended()).await.unwrap().unwrap();
        putting.await.unwrap();
    }

    #[tokio::test]
    async fn what_changes_something_is_done_though_nobody_reads() {
        let run = Run::new(1, Arc::default(), true);
        drop(Reader::new(run.clone()));
        for n in 0..100 {
            run.put(batch(n)).await;
        }
        assert!(!run.stop.is_cancelled());
    }

    #[tokio::test]
    async fn who_goes_before_the_end_stops_it() {
        let run = Run::new(1, Arc::default(), false);
        drop(Reader::new(run.clone()));
        assert!(run.stop.is_cancelled());
    }
}

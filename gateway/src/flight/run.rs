//! One execution of a statement: what reads the session's answer on one end, and the streams of Flight that draw from it on the other.
//! Between them lies a bounded queue, so that who does not read holds the statement up, and nothing else. ✗ tickets, gRPC.
//!
//! Several streams may draw from one execution: each batch goes to one of them. A stream that is dropped before the end stops it.

use super::client::{AGAIN, Client, Event, affected, no_copy, no_copy_in};
use super::decode::Rows;
use super::failure::Failure;
use super::sessions::Statement;
use crate::server::Shared;
use crate::session::login;
use arrow::array::RecordBatch;
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

/// Waits until nobody wants the rest; if PostgreSQL was asked to stop already, until it should be asked again.
async fn stopped(stop: &CancellationToken, before: bool) {
    stop.cancelled().await;
    if before {
        tokio::time::sleep(AGAIN).await;
    }
}

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
    /// It had to wait for a reader.
    full: bool,
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

    /// It waits for a reader, and never had one.
    pub fn is_forgotten(&self) -> bool {
        let state = self.state.lock();
        state.full && state.end.is_none() && !state.unread && !state.taken.contains(&true)
    }

    /// Bytes that wait for a reader, of what was executed before anybody read.
    fn kept(&self) -> usize {
        if self.eager { self.state.lock().bytes } else { 0 }
    }

    /// Whether as much waits for readers as may, of all these.
    pub fn fill<'r>(runs: impl Iterator<Item = &'r Arc<Run>>) -> bool {
        runs.map(|run| run.kept()).sum::<usize>() >= SPOOLED
    }

    /// It goes on, and never had a reader.
    pub fn is_untouched(&self) -> bool {
        let state = self.state.lock();
        state.end.is_none() && !state.taken.contains(&true)
    }

    /// Nobody wants the rest. What only reads is stopped, what does more is done to its end.
    pub fn leave(&self) {
        if !self.eager {
            return self.stop.cancel();
        }
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.unread = true;
            state.batches.clear();
            state.bytes = 0;
        }
        drop(state);
        self.drawn.notify_waiters();
        self.filled.notify_waiters();
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

    /// Waits until it is done, or has as many rows as may wait.
    pub async fn done(&self) -> Result<(), Failure> {
        loop {
            let filled = self.filled.notified();
            {
                let state = self.state.lock();
                match &state.end {
                    Some(end) => return end.clone().map(|_| ()),
                    None if state.full => return Ok(()),
                    None => {}
                }
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
                state.full = true;
            }
            self.filled.notify_waiters();
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
                    // Whoever still reads is not told that this was all.
                    _ if state.unread => return Some(Err(cancelled())),
                    Some(Ok(_)) => return None,
                    Some(Err(e)) => return Some(Err(e.clone())),
                    None => {}
                }
            }
            filled.await;
        }
    }

    /// Executes a prepared statement once for each row of parameters, all or none of them, and puts what it gives.
    pub async fn execute(&self, shared: &Shared, mut client: OwnedMutexGuard<Client>, statement: &Statement, params: &[Vec<Option<Vec<u8>>>]) {
        let end = self.execute_all(shared, &mut client, statement, params).await;
        // Who waits for the end may use the session at once.
        drop(client);
        self.end(end);
    }

    async fn execute_all(
        &self,
        shared: &Shared,
        client: &mut Client,
        statement: &Statement,
        params: &[Vec<Option<Vec<u8>>>],
    ) -> Result<i64, Failure> {
        let mut touched = 0;
        for (n, row) in params.iter().enumerate() {
            touched += self.execute_once(shared, client, statement, row, n + 1 == params.len()).await?;
        }
        Ok(touched)
    }

    /// Up to ReadyForQuery, of the `last`; up to its own end, of those before.
    async fn execute_once(
        &self,
        shared: &Shared,
        client: &mut Client,
        statement: &Statement,
        params: &[Option<Vec<u8>>],
        last: bool,
    ) -> Result<i64, Failure> {
        if self.stop.is_cancelled() {
            return client.settle().await.and(Err(cancelled()));
        }
        client.begin(&statement.name, params, &statement.columns, last).await?;
        let mut rows = Rows::new(&statement.columns, statement.schema.clone());
        let mut touched = 0;
        let mut failed: Option<Failure> = None;
        let mut called_off = false;
        let mut over = false;
        while !over {
            let event = tokio::select! {
                event = client.event() => event?,
                // Once may be too early: PostgreSQL may not have begun.
                () = stopped(&self.stop, called_off) => {
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
                Event::Frame(b'C', body) => {
                    touched = affected(&body);
                    over = !last;
                }
                Event::Frame(b'I', _) => over = !last,
                Event::Frame(b'E', body) => {
                    failed.get_or_insert_with(|| Failure::read(&body));
                    over = !last;
                }
                Event::Frame(b'G', _) => {
                    failed.get_or_insert_with(no_copy_in);
                    client.refuse_copy().await?;
                }
                Event::Frame(b'H', _) => {
                    failed.get_or_insert_with(no_copy);
                }
                Event::Frame(b'Z', _) => over = true,
                Event::Frame(..) => {}
            }
        }
        match failed.or_else(|| self.stop.is_cancelled().then(cancelled)) {
            Some(e) => client.settle().await.and(Err(e)),
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
        self.run.leave();
        if self.run.eager {
            self.run.state.lock().batches.clear();
        }
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
    async fn answers_that_wait_are_counted_together() {
        let runs = [Run::new(1, Arc::default(), true), Run::new(1, Arc::default(), true), Run::new(1, Arc::default(), false)];
        // 4 MiB a batch; what waits of a statement that only reads is another matter.
        for _ in 0..8 {
            runs[0].put(batch(1)).await;
            runs[1].put(batch(2)).await;
        }
        runs[2].put(batch(3)).await;
        assert!(Run::fill(runs.iter()));
        assert!(!Run::fill(runs[1..].iter()));
        runs[0].leave();
        assert!(!Run::fill(runs.iter()));
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
    async fn what_changes_something_is_waited_for_until_its_rows_wait() {
        let run = Run::new(1, Arc::default(), true);
        let putting = tokio::spawn({
            let run = run.clone();
            async move {
                for n in 0..100 {
                    run.put(batch(n)).await;
                }
                run.end(Ok(100));
            }
        });
        tokio::time::timeout(std::time::Duration::from_secs(5), run.done()).await.unwrap().unwrap();
        assert!(!run.is_over() && run.is_forgotten());
        run.leave();
        tokio::time::timeout(std::time::Duration::from_secs(5), run.ended()).await.unwrap().unwrap();
        putting.await.unwrap();
        assert!(run.next().await.is_some_and(|next| next.is_err()));
    }

    #[tokio::test]
    async fn who_goes_before_the_end_stops_it() {
        let run = Run::new(1, Arc::default(), false);
        drop(Reader::new(run.clone()));
        assert!(run.stop.is_cancelled());
    }
}

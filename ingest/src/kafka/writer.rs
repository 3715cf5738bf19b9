//! Writing: one connection that commits the batches of one lane, in order, each with the positions it moves. Knows no
//! brokers.
//!
//! What can happen to a batch, and what becomes of it:
//! - PostgreSQL is away, starting or out of room: tried again until it is back; nothing is lost and nothing is skipped.
//! - A position is not what was expected: somebody else reads that partition. Its records are dropped here, the others of
//!   the batch go on.
//! - The answer to COMMIT is lost: the positions say whether it happened.
//! - A row is refused: the batch is bisected; what is refused by itself becomes a dead letter.
//! - The table is of another lineage: the batch waits until `watershed rebase` has run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc;

use super::chunk::Part;
use super::source::{LaneState, Note, Shared};
use super::streams::{self, Move};
use super::worker::{Decoder, Prepared, Schema};
use crate::batch::Rejected;
use crate::error::{is_rows_fault, sqlstate};
use crate::map::Origin;
use crate::sink::{self, Care, LetterSource, Numbering, run};
use crate::target::Target;
use crate::{Error, Result, metrics};

/// First pause after a failure, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often a table of another lineage is looked at again.
const LINEAGE_PAUSE: Duration = Duration::from_secs(5);
/// An attempt that takes longer than this is given up: its connection is dropped, and the positions are read.
const ATTEMPT: Duration = Duration::from_secs(120);

/// What the source's sessions are called.
pub(super) const APPLICATION: &str = "watershed kafka";

/// A server that loses its client must not hold a position's lock for hours, nor must we wait for one that does.
const SETTINGS: &str = "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '10s'; \
    SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4; \
    SET tcp_user_timeout = '40s'";

/// How an attempt ended that was not an error.
enum Attempt {
    Committed {
        refused: Vec<Rejected>,
    },
    /// A position was not the expected one.
    Fenced,
    /// The table is no longer tiered.
    Gone,
    /// Columns have changed since the batch was made.
    Schema,
    /// The table's lineage is not the server's.
    Lineage,
}

/// An error, and whether the batch may nevertheless be in.
struct Failure {
    error: sqlx::Error,
    unsure: bool,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Failure {
        Failure { error, unsure: false }
    }
}

/// Commits the batches of one lane.
pub(super) struct Writer {
    shared: Arc<Shared>,
    lane: Arc<LaneState>,
    conn: Option<PgConnection>,
    decoder: Option<Decoder>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, lane: Arc<LaneState>) -> Writer {
        Writer { shared, lane, conn: None, decoder: None }
    }

    /// Until the decoder of the lane has ended, or the source gives up.
    pub async fn run(mut self, mut batches: mpsc::Receiver<Prepared>) {
        while let Some(prepared) = batches.recv().await {
            if self.shared.abort.is_cancelled() {
                break;
            }
            self.write(prepared).await;
        }
        if let Some(conn) = self.conn.take() {
            // Whatever the goodbye says, the socket is gone after it.
            let _ = conn.close().await;
        }
    }

    /// Writes one batch, or drops what is no longer ours of it.
    async fn write(&mut self, mut prepared: Prepared) {
        let began = Instant::now();
        let mut care = Care::None;
        let mut pause = FIRST_PAUSE;
        loop {
            if self.shared.abort.is_cancelled() {
                return;
            }
            let stale = prepared.parts.iter().any(|i| !prepared.chunk.parts[*i].is_open())
                || self.decoder.as_ref().is_some_and(|d| d.schema().epoch > prepared.schema.epoch);
            if stale {
                let Some(again) = self.prepare_again(prepared).await else { return };
                prepared = again;
            }
            if prepared.parts.is_empty() {
                return;
            }
            // Held while a transaction is open: who closes a partition waits for it, and then knows that nothing of the
            // partition is on its way.
            let lane = self.lane.clone();
            let held = lane.gate.lock().await;
            if prepared.parts.iter().any(|i| prepared.chunk.parts[*i].partition.is_closed()) {
                continue;
            }
            let outcome = match tokio::time::timeout(ATTEMPT, self.attempt(&prepared, care)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    Err(Failure { error: sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()), unsure: true })
                }
            };
            drop(held);
            match outcome {
                Ok(Attempt::Committed { refused }) => {
                    self.lane.say(None);
                    self.count(&prepared, &refused, began);
                    for i in &prepared.parts {
                        let part = &prepared.chunk.parts[*i];
                        part.partition.commit(part);
                    }
                    return;
                }
                Ok(Attempt::Fenced) => self.reconcile(&mut prepared).await,
                Ok(Attempt::Schema) => match self.refresh().await {
                    Ok(()) => {}
                    Err(e) => self.rest(&mut pause, &e, &prepared).await,
                },
                Ok(Attempt::Gone) => {
                    self.close_all(&prepared, "the table is no longer tiered");
                    return;
                }
                Ok(Attempt::Lineage) => {
                    self.lane.say(Some(
                        "waiting for `watershed rebase`: the table is of another lineage".to_owned(),
                    ));
                    self.sleep(LINEAGE_PAUSE, &prepared).await;
                }
                Err(failure) => {
                    if care == Care::None && !failure.unsure && is_rows_fault(&failure.error) {
                        care = Care::Bisect;
                        continue;
                    }
                    self.conn = None;
                    self.shared.config.pressure.note_postgres(&failure.error);
                    let unsure = failure.unsure;
                    if sqlstate(&failure.error).as_deref() == Some("55P03") {
                        self.end_sleepers().await;
                    }
                    self.rest(&mut pause, &Error::Postgres(failure.error), &prepared).await;
                    if unsure {
                        self.reconcile(&mut prepared).await;
                    }
                }
            }
        }
    }

    /// One transaction. After an error the connection is of no use any more.
    async fn attempt(&mut self, prepared: &Prepared, care: Care) -> Result<Attempt, Failure> {
        if self.decoder.as_ref().is_none_or(|d| !Arc::ptr_eq(d.schema(), &prepared.schema)) {
            let decoder = Decoder::new(self.lane.route.clone(), prepared.schema.clone());
            // It was made from the same values before.
            self.decoder = Some(decoder.map_err(|e| sqlx::Error::Protocol(e.to_string()))?);
        }
        // Taken, so that a transaction that is cut short (a timeout drops this future) takes its connection with it.
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => connect(&self.shared).await?,
        };
        let Some(decoder) = &self.decoder else {
            return Err(sqlx::Error::Protocol("no decoder".to_owned()).into());
        };
        let mut moves: Vec<Move> = Vec::with_capacity(prepared.parts.len());
        let mut epochs = Vec::new();
        for part in prepared.parts.iter().map(|i| &prepared.chunk.parts[*i]) {
            moves.push(Move { stream: part.partition.stream, from: part.from, to: part.to });
            if part.epoch > part.partition.epoch() {
                epochs.push((part.partition.stream, part.epoch));
            }
        }
        moves.sort_unstable_by_key(|m| m.stream);
        epochs.sort_unstable();
        let target = &prepared.schema.target;
        run(&mut conn, "BEGIN").await?;
        let moved = streams::move_positions(&mut conn, target.relid, &moves).await?;
        lake::crash::point("kafka.position");
        let refusal = match moved {
            None => Some(Attempt::Gone),
            Some(m) if !m.lineage => Some(Attempt::Lineage),
            Some(m) if !m.all => Some(Attempt::Fenced),
            Some(m) if m.schema_epoch != prepared.schema.epoch => Some(Attempt::Schema),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            run(&mut conn, "ROLLBACK").await?;
            self.conn = Some(conn);
            return Ok(refusal);
        }
        let copied =
            sink::copy_batch(&mut conn, decoder.mapper(), &prepared.batch, Numbering::Written, care).await;
        let refused = match copied {
            Ok(refused) => refused,
            Err(e) => {
                if is_rows_fault(&e) {
                    run(&mut conn, "ROLLBACK").await?;
                    self.conn = Some(conn);
                }
                return Err(e.into());
            }
        };
        self.letters(&mut conn, prepared, &prepared.batch.rejected).await?;
        self.letters(&mut conn, prepared, &refused).await?;
        streams::note_epochs(&mut conn, &epochs).await?;
        lake::crash::point("kafka.copied");
        lake::crash::point("kafka.before_commit");
        if let Err(error) = run(&mut conn, "COMMIT").await {
            return Err(Failure { error, unsure: true });
        }
        lake::crash::point("kafka.committed");
        self.conn = Some(conn);
        Ok(Attempt::Committed { refused })
    }

    /// Writes records that are no rows to the dead letters.
    async fn letters(
        &self,
        conn: &mut PgConnection,
        prepared: &Prepared,
        rejected: &[Rejected],
    ) -> Result<(), sqlx::Error> {
        if rejected.is_empty() {
            return Ok(());
        }
        let table = prepared.schema.target.display();
        let envelope = self.lane.route.envelope.name();
        let source = LetterSource { table: &table, source: "kafka", envelope, context: None };
        // Headers first: an origin borrows them.
        let headers: HashMap<u64, Vec<(&str, Option<&[u8]>)>> =
            rejected.iter().map(|r| (r.line, prepared.chunk.record(r.line as usize).headers())).collect();
        sink::letters(conn, &source, rejected, |r| {
            let record = prepared.chunk.record(r.line as usize);
            let place = &prepared.chunk.parts[record.part].partition.place;
            Some(Origin {
                topic: &place.0,
                partition: place.1,
                offset: record.offset,
                timestamp: record.timestamp.map(|ms| ms.saturating_mul(1000)),
                key: record.key,
                headers: headers.get(&r.line).map_or(&[], Vec::as_slice),
            })
        })
        .await
    }

    /// Reads the positions of a batch whose fate is not known, or that was refused: parts that are in are settled, parts
    /// that somebody else moved are closed, the others remain.
    async fn reconcile(&mut self, prepared: &mut Prepared) {
        let streams: Vec<i32> =
            prepared.parts.iter().map(|i| prepared.chunk.parts[*i].partition.stream).collect();
        let mut pause = FIRST_PAUSE;
        let positions = loop {
            if self.shared.abort.is_cancelled() {
                return;
            }
            match self.read_positions(&streams).await {
                Ok(positions) => break positions,
                Err(e) => {
                    self.conn = None;
                    self.rest(&mut pause, &Error::Postgres(e), prepared).await;
                }
            }
        };
        for i in &prepared.parts {
            let part = &mut prepared.chunk.parts[*i];
            let at = positions.iter().find(|(s, _)| *s == part.partition.stream).map(|(_, at)| *at);
            match at {
                Some(at) if at == part.from => {}
                // Whoever it was: the records before this offset are in, each once.
                Some(at) if at == part.to => {
                    part.settled = true;
                    part.partition.commit(part);
                }
                at => {
                    let why = format!(
                        "another process moved the position from {} to {}",
                        part.from,
                        at.map_or("nowhere".to_owned(), |at| at.to_string())
                    );
                    metrics::counter("watershed_kafka_fenced_total", &[]).inc();
                    self.shared.close(&part.partition, why);
                }
            }
        }
    }

    async fn read_positions(&mut self, streams: &[i32]) -> Result<Vec<(i32, i64)>, sqlx::Error> {
        // A transaction whose COMMIT was not answered may still be at it. Its position's lock says when it has ended.
        let conn = match &mut self.conn {
            Some(conn) => conn,
            None => self.conn.insert(connect(&self.shared).await?),
        };
        let read = async {
            run(conn, "BEGIN").await?;
            sqlx::query(
                "SELECT FROM watershed_control.positions WHERE stream = ANY($1) ORDER BY stream FOR UPDATE",
            )
            .bind(streams.to_vec())
            .execute(&mut *conn)
            .await?;
            let positions = streams::positions(conn, streams).await?;
            run(conn, "COMMIT").await?;
            Ok(positions)
        };
        match tokio::time::timeout(ATTEMPT, read).await {
            Ok(read) => read,
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Makes the batch anew from its records, without what is no longer to be written, with the newest schema.
    async fn prepare_again(&mut self, prepared: Prepared) -> Option<Prepared> {
        let decoder = match self.decoder.take() {
            Some(decoder) if decoder.schema().epoch >= prepared.schema.epoch => Ok(decoder),
            _ => Decoder::new(self.lane.route.clone(), prepared.schema.clone()),
        };
        let mut decoder = match decoder {
            Ok(decoder) => decoder,
            Err(e) => {
                self.close_all(&prepared, &e.to_string());
                return None;
            }
        };
        let made = tokio::task::spawn_blocking(move || {
            let again = decoder.prepare(prepared.chunk);
            (decoder, again)
        })
        .await;
        match made {
            Ok((decoder, again)) => {
                self.decoder = Some(decoder);
                Some(again)
            }
            Err(e) => {
                // The records went with it; the partitions stay where PostgreSQL has them, and the source starts again.
                self.shared.fail(format!("decoding died: {e}"));
                None
            }
        }
    }

    /// A lock was not given in time: it may be held by a process that is not awake.
    async fn end_sleepers(&mut self) {
        let ended = async {
            let mut conn = connect(&self.shared).await?;
            streams::end_sleepers(&mut conn, APPLICATION).await
        };
        match ended.await {
            Ok(0) => {}
            Ok(n) => tracing::warn!(sessions = n, "kafka: ended sessions that stood still and held locks"),
            Err(e) => tracing::debug!(error = %e, "kafka: end sessions"),
        }
    }

    /// Looks at the table's columns again.
    async fn refresh(&mut self) -> Result<()> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            None => self.conn.insert(connect(&self.shared).await?),
        };
        let schema = Arc::new(find_schema(conn, &self.lane.route.table).await?);
        self.decoder = Some(Decoder::new(self.lane.route.clone(), schema.clone())?);
        self.lane.set_schema(schema);
        Ok(())
    }

    fn close_all(&self, prepared: &Prepared, why: &str) {
        for i in &prepared.parts {
            self.shared.close(&prepared.chunk.parts[*i].partition, why.to_owned());
        }
    }

    fn count(&self, prepared: &Prepared, refused: &[Rejected], began: Instant) {
        let topic: metrics::Labels<'_> = &[("topic", &self.lane.route.topic)];
        let parts = || prepared.parts.iter().map(|i| &prepared.chunk.parts[*i]);
        metrics::counter("watershed_kafka_records_total", topic).add(prepared.chunk.len() as u64);
        let (table, bytes) = (prepared.schema.target.display(), prepared.chunk.bytes() as u64);
        metrics::taken::committed("kafka", &table, &prepared.batch, refused, bytes, began);
        metrics::counter("watershed_kafka_rows_total", topic)
            .add((prepared.batch.rows() - refused.len()) as u64);
        metrics::counter("watershed_kafka_dead_letters_total", topic)
            .add((prepared.batch.rejected.len() + refused.len()) as u64);
        metrics::counter("watershed_kafka_tombstones_total", topic).add(parts().map(|p| p.tombstones).sum());
        metrics::histogram("watershed_kafka_commit_seconds", topic).since(began);
    }

    /// Says why the lane waits, and waits.
    async fn rest(&self, pause: &mut Duration, why: &Error, prepared: &Prepared) {
        let text = why.to_string();
        if self.lane.say(Some(format!("waiting: {text}"))) {
            tracing::warn!(table = self.lane.route.table, error = text, "kafka: a batch waits");
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        self.sleep(pause.mul_f64(jitter), prepared).await;
        *pause = (*pause * 2).min(LAST_PAUSE);
    }

    /// Waits, but no longer than the batch is ours.
    async fn sleep(&self, time: Duration, prepared: &Prepared) {
        let until = Instant::now() + time;
        while Instant::now() < until && !prepared.chunk.has_closed() {
            let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = self.shared.abort.cancelled() => return,
            }
        }
    }
}

impl Part {
    /// True if its records are still to be written by us.
    pub(super) fn is_open(&self) -> bool {
        !self.settled && !self.partition.is_closed()
    }
}

/// A connection of the source's own.
pub(super) async fn connect(shared: &Shared) -> Result<PgConnection, sqlx::Error> {
    let connect = async {
        let mut conn = PgConnection::connect_with(&shared.options).await?;
        sink::prepare(&mut conn).await?;
        sqlx::raw_sql(SETTINGS).execute(&mut conn).await?;
        Ok(conn)
    };
    match tokio::time::timeout(Duration::from_secs(20), connect).await {
        Ok(connected) => connected,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// The table's columns, with an epoch that is not newer than they are: if they change meanwhile, the first batch finds out.
pub(super) async fn find_schema(conn: &mut PgConnection, table: &str) -> Result<Schema> {
    let unknown = || Error::UnknownTable(table.to_owned());
    let epoch: Option<i32> = sqlx::query_scalar(
        "SELECT schema_epoch FROM watershed_control.tables WHERE relid = pg_catalog.to_regclass($1)",
    )
    .bind(table)
    .fetch_optional(&mut *conn)
    .await?;
    let epoch = epoch.ok_or_else(unknown)?;
    Ok(Schema { target: Target::find(conn, table).await?, epoch })
}

/// What the poller is told when a partition was closed here.
impl Shared {
    pub(super) fn close(&self, partition: &Arc<super::chunk::Partition>, why: String) {
        if !partition.is_closed() {
            partition.close();
            self.note(Note::Closed { partition: partition.clone(), why });
        }
    }
}

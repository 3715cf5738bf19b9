//! A statement that the lake answers, from its Bind to the last row: bind, read the tail, plan, execute, encode. Whatever goes wrong before
//! a row was sent, the bound portal in PostgreSQL is executed instead. ✗ what it means (`decide`), how plans are made and run.

use super::bracket::{Outcome, Probed, unexpected};
use super::decide::{UNSURE, unsure};
use super::give_up::{GiveUp, cancelled, cancelled_report, closed, engine_report, give_up_encoding, give_up_engine, timed_out};
use super::link::BUFFER_LIMIT;
use super::probe::{self, Facts, Settings};
use super::replay::{self, Replay};
use super::{Portal, Prepared, Session, SessionEnd};
use crate::analyze::{self, Analysis};
use crate::classify::{Classified, Override};
use crate::compare::log::Comparison;
use crate::compare::{Order, Side};
use crate::cost;
use crate::engine::{EngineError, QueryStream};
use crate::flight::outgoing::Outgoing;
use crate::flight::types::Column;
use crate::plan::{self, PlanInputs};
use crate::query::record::{Entry, Path, Record};
use crate::telemetry::{self, why::FellBack};
use crate::virtual_tables::{self, Reader};
use crate::wire::frame;
use crate::wire::message::{self, Bind, ErrorReport};
use arrow::array::RecordBatch;
use bytes::{Bytes, BytesMut};
use datafusion::datasource::TableProvider;
use pgexact::encode::{EncodeError, Format, RowEncoder, Target};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Rows are held back up to this many bytes, so that falling back stays possible.
pub(super) const HOLD_BACK: usize = 1024 * 1024;
/// PostgreSQL's type OID.
const TIMESTAMPTZ: u32 = 1184;
const TIMESTAMPTZ_ARRAY: u32 = 1185;
/// Rows encoded at a time, and bytes, as far as rows of a batch are alike.
const ENCODE_ROWS: usize = 1024;
const ENCODE_BYTES: usize = 256 * 1024;

/// What became of a Bind.
pub(super) enum Bound {
    Lake(Box<LakePortal>),
    /// PostgreSQL executes the portal; the reasons are in the record.
    Postgres(Record),
    /// The client has its error.
    Failed,
}

/// What became of an Execute.
pub(super) enum Answer {
    Complete,
    /// The client has its error.
    Failed,
    /// Nothing was sent: execute the bound portal.
    FallBack(Box<Record>),
}

/// A portal that the lake answers. In PostgreSQL its twin is bound, or a stand-in that answers nothing.
pub struct LakePortal {
    /// Its name in PostgreSQL.
    name: Bytes,
    pub(super) probed: Arc<Probed>,
    /// As PostgreSQL describes it, where that was asked: a plan may know its types more narrowly than the statement.
    portal_description: Option<Bytes>,
    pub(super) analysis: Arc<Analysis>,
    path: Path,
    pub(super) settings: Settings,
    /// In the order of the analysis's tables.
    pub(super) facts: Vec<Facts>,
    pub(super) params: Vec<plan::Value>,
    pub(super) folded: Vec<plan::Value>,
    formats: Vec<Format>,
    pub(super) record: Option<Record>,
    stage: Stage,
    /// Its text, by which its twin is known.
    sql: Arc<str>,
    /// SQL may have given the name to another cursor.
    doubtful: bool,
    /// The client's Bind, where only a stand-in is bound.
    late_bind: Option<Bytes>,
    /// PostgreSQL may lack rows that it needs: there is no falling back.
    pub(super) cold: bool,
    /// The client has asked for rows of it.
    executed: bool,
    /// Both stores are to answer; the client waits for both, or for the lake alone.
    compared: bool,
    sampled: bool,
    /// What was visible when the tail was read.
    pub(super) tail_snapshot: Option<::lake::boundary::Boundary>,
}

enum Stage {
    Start,
    Running(Box<Cursor>),
    Done,
}

pub(super) struct Cursor {
    pub(super) stream: QueryStream,
    pub(super) encoder: RowEncoder,
    /// In which types batches leave, where they leave as such.
    pub(super) outgoing: Option<Outgoing>,
    /// The rows at hand, the next of them, and how many of them are encoded at a time.
    batch: Option<(RecordBatch, usize, usize)>,
    cancel: CancellationToken,
    /// Encoded and not yet handed to the client.
    pub(super) held: BytesMut,
    /// A row was handed to the client: falling back is no longer possible.
    pub(super) sent: bool,
    /// The rows, to be compared.
    pub(super) watched: Option<Side>,
    logs_plan: bool,
}

impl Cursor {
    /// Writes down what was read, once all of it was.
    pub(super) fn tell(&self, entry: &mut Entry) {
        let stats = self.stream.stats();
        entry.lake_files = stats.files as i64;
        entry.lake_row_groups = stats.row_groups as i64;
        entry.lake_bytes = stats.bytes_scanned as i64;
        entry.lake_plan = self.logs_plan.then(|| self.stream.plan_report().into());
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl LakePortal {
    pub(super) fn add_probe_us(&mut self, us: i64) {
        if let Some(r) = &mut self.record {
            r.entry.probe_us += us;
        }
    }

    /// One that is not bound in PostgreSQL. `values` are those of parameters and folds.
    #[allow(clippy::too_many_arguments, reason = "everything that a portal is made of")]
    pub(super) fn unbound(
        name: &[u8],
        probed: Arc<Probed>,
        analysis: Arc<Analysis>,
        settings: Settings,
        facts: Vec<Facts>,
        values: (Vec<plan::Value>, Vec<plan::Value>),
        result_formats: &[i16],
        record: Record,
        bind: Bytes,
        cold: bool,
    ) -> LakePortal {
        LakePortal {
            portal_description: None,
            name: Bytes::copy_from_slice(name),
            path: probed.path,
            formats: formats(result_formats, probed.fields.len()),
            analysis,
            settings,
            facts,
            params: values.0,
            folded: values.1,
            sql: record.entry.statement.sql.clone(),
            record: Some(record),
            stage: Stage::Start,
            doubtful: false,
            late_bind: Some(bind),
            cold,
            executed: false,
            compared: false,
            sampled: false,
            tail_snapshot: None,
            probed,
        }
    }

    /// The client's Bind, if PostgreSQL has not had it yet.
    pub(super) fn take_late_bind(&mut self) -> Option<Bytes> {
        self.late_bind.take()
    }

    /// Only a stand-in is bound in PostgreSQL.
    pub(super) fn is_unbound(&self) -> bool {
        self.late_bind.is_some()
    }

    /// Nothing of it was asked for.
    pub(super) fn is_untouched(&self) -> bool {
        !self.executed
    }

    /// What it will give is not settled yet.
    pub(super) fn is_unopened(&self) -> bool {
        matches!(self.stage, Stage::Start)
    }

    /// It was read to its end.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// The tail was read of what is visible to the portal, which was bound between two looks at that.
    fn sees_the_same(&self) -> bool {
        !self.cold && !self.is_unbound() && self.tail_snapshot.is_some() && self.tail_snapshot == self.settings.snapshot.parse().ok()
    }

    /// Its name may have become another cursor's.
    pub(super) fn doubt(&mut self) {
        self.doubtful = true;
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    pub(super) fn into_record(mut self: Box<Self>) -> Option<Record> {
        self.record.take()
    }

    /// RowDescription for a simple Query.
    pub(super) fn row_description(&self) -> Bytes {
        self.portal_description.clone().unwrap_or_else(|| self.probed.row_description.clone())
    }

    /// Its RowDescription, which PostgreSQL cannot give.
    pub(super) fn described(&self) -> Result<BytesMut, message::Malformed> {
        let formats: Vec<i16> = self.formats.iter().map(|f| i16::from(*f == Format::Binary)).collect();
        message::with_formats(&self.probed.row_description, &formats)
    }
}

impl Session {

    /// Binds the statement in PostgreSQL inside a bracket, and reads what the lake needs besides: privileges,
    /// parameters and constants. `bind_frame` is the client's (or the simple Query's) Bind.
    pub(super) async fn bind_lake(
        &mut self,
        probed: &Arc<Probed>,
        statement: &Arc<Classified>,
        bind_frame: &[u8],
        name: &[u8],
        mut record: Record,
    ) -> Result<Bound, SessionEnd> {
        if probed.turned.is_none()
            && let Some(floor) = self.floor(&probed.analysis)
        {
            return self.bind_with_floor(probed, statement, bind_frame, name, record, floor).await;
        }
        let msg = Bind::read(frame::body(bind_frame))?;
        let catalog = self.shared.catalog.current();
        // Of a statement that means something else by now, nothing is known yet.
        let used = if probed.turned.is_none() { probed.analysis.tables.as_slice() } else { &[] };
        let specs = used.iter().map(|t| catalog.tiered(t.relid).or_else(|| probed.catalog.tiered(t.relid)));
        let tables: Vec<_> = used.iter().zip(specs).collect();
        let dimensions = if probed.turned.is_none() { probed.analysis.dimensions.as_slice() } else { &[] };
        let relations = tables.len() + dimensions.len();
        let constants = probed.constants_sql().filter(|_| probed.turned.is_none());
        let weighed = self.extents(probed, statement);
        if let Some(e) = self.compare_meaning(name, probed).await? {
            self.forward_error(&e, &mut record);
            return Ok(Bound::Failed);
        }
        let bracket = self
            .bracket(bind_frame, None, name, |out| {
                for (t, spec) in &tables {
                    let with_event = spec.is_some_and(|s| s.lake_floor_us.is_some());
                    let provenance = spec.map_or_else(|| vec![0], |s| probe::provenance(s, with_event));
                    probe::put_facts(out, t.relid, &t.attnums, &provenance, spec.map_or(0, |s| s.event_time));
                }
                put_dimension_facts(out, dimensions);
                if let Some(sql) = &constants {
                    probe::put_helper_formats(out, sql, &probed.param_types, &msg.param_formats, &msg.params, true);
                }
                if weighed.is_some() {
                    probe::put_explain(out, &statement.sql, &probed.param_types, &msg.param_formats, &msg.params);
                }
                if name == probe::SIMPLE {
                    message::put_describe(out, b'P', probe::SIMPLE);
                }
            })
            .await?;
        let bracket = match bracket {
            Outcome::Done(b) => b,
            Outcome::Failed(e) => {
                self.forward_error(&e, &mut record);
                return Ok(Bound::Failed);
            }
        };
        let followed = self.follow(probed, &bracket, name, true);
        let mut rows = Vec::new();
        for _ in 0..relations + usize::from(constants.is_some()) {
            match self.helper_row().await? {
                Outcome::Done(row) => rows.push(row),
                Outcome::Failed(e) => {
                    self.forward_error(&e, &mut record);
                    return Ok(Bound::Failed);
                }
            }
        }
        let cost = match weighed.is_some() {
            false => None,
            true => match self.helper_row().await? {
                Outcome::Done(row) => {
                    row.into_iter().next().flatten().and_then(|line| cost::total_cost(&String::from_utf8_lossy(&line)))
                }
                Outcome::Failed(e) => {
                    self.forward_error(&e, &mut record);
                    return Ok(Bound::Failed);
                }
            },
        };
        let mut portal_description = None;
        while name == probe::SIMPLE && portal_description.is_none() {
            let f = self.next_frame().await?;
            match f[0] {
                b'T' => portal_description = Some(f),
                b'N' => {}
                b'E' => {
                    self.forward_error(&f, &mut record);
                    return Ok(Bound::Failed);
                }
                other => return Err(unexpected(other)),
            }
        }
        let mut rows = rows.into_iter();
        let facts = rows.by_ref().take(relations).map(|r| Facts::read(&r)).collect();
        let constants = rows.next().unwrap_or_default();
        let settings = bracket.settings.clone();
        let outcome = followed.and_then(|now| {
            let (analysis, facts) = self.admit(&now, statement, &bracket, facts)?;
            Ok((now, analysis, facts))
        });
        let (probed, analysis, facts) = match outcome {
            Ok(admitted) => admitted,
            Err(reason) => {
                record.entry.reasons = reason.into();
                record.entry.path = Path::Postgres;
                return Ok(Bound::Postgres(record));
            }
        };
        let mut values = Vec::with_capacity(constants.len());
        let types = analysis.params.iter().map(|p| p.type_oid).chain(analysis.folds.iter().map(|f| f.type_oid));
        for (oid, bytes) in types.zip(&constants) {
            match plan::Value::from_pg_binary(oid, bytes.as_deref()) {
                Ok(v) => values.push(v),
                Err(e) => {
                    record.entry.reasons = format!("a constant cannot be read: {e}").into();
                    record.entry.path = Path::Postgres;
                    return Ok(Bound::Postgres(record));
                }
            }
        }
        if unsure(&analysis, &constants) {
            record.entry.reasons = UNSURE.into();
            record.entry.path = Path::Postgres;
            return Ok(Bound::Postgres(record));
        }
        let folded = values.split_off(analysis.params.len().min(values.len()));
        let wanted = statement.hint.or_else(|| Override::parse(&bracket.settings.route)).unwrap_or(Override::Auto);
        record.entry.path = probed.path;
        record.entry.reasons = probed.reasons.clone();
        if let (Some(cost), Some(sources)) = (cost, &weighed) {
            let extent: Vec<_> = sources.iter().map(|s| s.extent(analysis.time_from(&values, &folded))).collect();
            let estimate = self.shared.costs.estimate(&catalog.constants, &statement.fingerprint, cost, &extent);
            record.entry.reasons.to_mut().push_str(&format!("; {}", estimate.reason()));
            record.expect(estimate, &self.shared.costs);
            if estimate.path() == Path::Postgres {
                record.entry.path = Path::Postgres;
                return Ok(Bound::Postgres(record));
            }
        }
        Ok(Bound::Lake(Box::new(LakePortal {
            name: Bytes::copy_from_slice(msg.portal),
            probed: probed.clone(),
            portal_description,
            path: probed.path,
            formats: formats(&msg.result_formats, probed.fields.len()),
            analysis,
            settings,
            facts,
            params: values,
            folded,
            sql: record.entry.statement.sql.clone(),
            record: Some(record),
            stage: Stage::Start,
            doubtful: false,
            late_bind: None,
            cold: false,
            executed: false,
            compared: wanted == Override::Compare,
            // The setting was looked at before.
            sampled: wanted != Override::Compare
                && self.state.status() == super::TxStatus::Idle
                && replay::sample(&bracket.settings.compare_sample).is_ok_and(|part| rand::random::<f64>() < part),
            tail_snapshot: None,
        })))
    }

    /// Answers one Execute. `prefix` (a simple Query's RowDescription) goes before the first row.
    pub(super) async fn answer(
        &mut self,
        portal: &mut LakePortal,
        max_rows: i32,
        prefix: Option<&Bytes>,
    ) -> Result<Answer, SessionEnd> {
        if portal.compared && portal.path == Path::Lake && portal.is_unopened() && !portal.cold && !portal.is_unbound() && max_rows <= 0 {
            return self.answer_compared(portal).await;
        }
        let outcome = self.run_portal(portal, max_rows, prefix).await;
        let stopped = self.stopped();
        self.end_work();
        let (give_up, mut record) = match (outcome, portal.record.take()) {
            (Ok(suspended), record) => {
                if suspended {
                    portal.record = record;
                }
                return Ok(Answer::Complete);
            }
            (Err(e), Some(record)) => (e, record),
            (Err(GiveUp::End(e)), None) => return Err(e),
            // It was answered before: what is told now is of no record.
            (Err(GiveUp::Upstream(f)), None) => {
                self.link.client.output.extend_from_slice(&f);
                self.state.failed(false);
                return Ok(Answer::Failed);
            }
            (Err(GiveUp::Error(report)), None) => {
                self.raise(&report).await?;
                return Ok(Answer::Failed);
            }
            (Err(_), None) => return Err(SessionEnd::Protocol("an answered portal failed".into())),
        };
        portal.stage = Stage::Done;
        let kind = give_up.kind();
        match give_up.settled(portal, self.shared.config.cold_door.is_some()) {
            GiveUp::End(e) => {
                record.failed("08006", "the client closed the connection");
                Err(e)
            }
            GiveUp::Upstream(f) => {
                self.forward_error(&f, &mut record);
                Ok(Answer::Failed)
            }
            GiveUp::Error(report) => {
                self.fail(&report, &mut record).await?;
                Ok(Answer::Failed)
            }
            GiveUp::Engine(e) => {
                self.fail(&engine_report(e), &mut record).await?;
                Ok(Answer::Failed)
            }
            GiveUp::Outdated(reason) => {
                // Settled above, and never left as it was.
                self.fail(&ErrorReport::error("XX000", reason), &mut record).await?;
                Ok(Answer::Failed)
            }
            GiveUp::FallBack(_) if stopped => {
                self.fail(&cancelled_report(), &mut record).await?;
                Ok(Answer::Failed)
            }
            GiveUp::FallBack(reason) if portal.path == Path::Virtual => {
                let report = ErrorReport::error("XX000", "the virtual tables could not be read").detail(reason);
                self.fail(&report, &mut record).await?;
                Ok(Answer::Failed)
            }
            GiveUp::FallBack(reason) => {
                telemetry::fell_back(kind);
                tracing::info!(reason, fingerprint = %record.entry.statement.fingerprint, "the lake gave a statement back to PostgreSQL");
                record.entry.path = Path::Postgres;
                record.entry.fell_back = true;
                record.entry.reasons = format!("{}; fell back: {reason}", record.entry.reasons).into();
                Ok(Answer::FallBack(Box::new(record)))
            }
        }
    }

    /// Has the lake compute all of its answer, and leaves the client to PostgreSQL, whose rows are compared as they pass.
    async fn answer_compared(&mut self, portal: &mut LakePortal) -> Result<Answer, SessionEnd> {
        let clock = Instant::now();
        let order = Order::of_statement(&portal.analysis);
        portal.executed = true;
        let computed = self.compute(portal, &order).await;
        let stopped = self.stopped();
        self.end_work();
        portal.stage = Stage::Done;
        let Some(mut record) = portal.record.take() else {
            return Err(SessionEnd::Protocol("a portal without a record was compared".into()));
        };
        let lake = match computed {
            Ok(side) => Ok(side),
            Err(GiveUp::End(e)) => {
                record.failed("08006", "the client closed the connection");
                return Err(e);
            }
            Err(GiveUp::Upstream(f)) => {
                self.forward_error(&f, &mut record);
                return Ok(Answer::Failed);
            }
            Err(GiveUp::Error(report)) => {
                self.fail(&report, &mut record).await?;
                return Ok(Answer::Failed);
            }
            Err(_) if stopped => {
                self.fail(&cancelled_report(), &mut record).await?;
                return Ok(Answer::Failed);
            }
            Err(GiveUp::FallBack(reason) | GiveUp::Outdated(reason)) => Err(format!("the lake gave no answer: {reason}")),
            Err(GiveUp::Engine(e)) => Err(format!("the lake gave no answer: {e}")),
        };
        let us = clock.elapsed().as_micros() as i64;
        let statement = record.entry.statement.clone();
        record.compare(Comparison::begin(&self.shared.comparisons, &self.who, &statement, lake, &order, us));
        record.entry.path = Path::Postgres;
        record.entry.reasons = format!("{}; compared", record.entry.reasons).into();
        Ok(Answer::FallBack(Box::new(record)))
    }

    /// All rows of the lake's, as they would be sent.
    async fn compute(&mut self, portal: &mut LakePortal, order: &Order) -> Result<Side, GiveUp> {
        if self.stopped() {
            return Err(cancelled());
        }
        let deadline = self.deadline(&portal.settings);
        let mut cursor = self.open(portal, deadline).await?;
        if !portal.sees_the_same() {
            return Err(GiveUp::FallBack("rows were committed between the readings of both stores".into()));
        }
        let mut side = Side::new(order);
        while let Some(batch) = self.attend(deadline, cursor.stream.next()).await? {
            let batch = batch.map_err(|e| give_up_engine(false, e))?;
            for row in (0..batch.num_rows()).step_by(ENCODE_ROWS) {
                let n = ENCODE_ROWS.min(batch.num_rows() - row);
                let encoded = cursor.encoder.encode_batch(&batch, row, n, &mut cursor.held);
                encoded.map_err(|e| give_up_encoding(false, &e.to_string()))?;
                side.frames(&cursor.held);
                cursor.held.clear();
            }
        }
        Ok(side)
    }

    /// Reads the tail of a portal that was bound and not executed, so that its rows are those of now. If that cannot be, PostgreSQL
    /// answers, which has had the snapshot since Bind, or a portal that PostgreSQL cannot answer is left as it is.
    pub(super) async fn open_portal(&mut self, name: Bytes, mut portal: Box<LakePortal>) -> Result<(), SessionEnd> {
        let deadline = self.deadline(&portal.settings);
        match self.open(&mut portal, deadline).await {
            Ok(cursor) => {
                cursor.stream.rest();
                portal.stage = Stage::Running(Box::new(cursor));
                self.remember_portal(name, Portal::Lake(portal));
            }
            Err(GiveUp::End(e)) => return Err(e),
            Err(GiveUp::Upstream(f)) => match portal.into_record() {
                Some(mut record) => self.forward_error(&f, &mut record),
                None => {
                    self.link.client.output.extend_from_slice(&f);
                    self.state.failed(false);
                }
            },
            Err(GiveUp::Error(report)) => {
                let record = portal.into_record();
                if let Some(mut record) = record {
                    record.failed(&report.sqlstate, &report.message);
                }
                self.raise(&report).await?;
            }
            Err(_) if portal.is_unbound() => self.remember_portal(name, Portal::Lake(portal)),
            Err(GiveUp::FallBack(reason)) => self.hand_to_postgres(name, portal, &reason, FellBack::Late),
            Err(GiveUp::Outdated(reason)) => self.hand_to_postgres(name, portal, &reason, FellBack::Snapshot),
            Err(GiveUp::Engine(e)) => self.hand_to_postgres(name, portal, &e.to_string(), FellBack::of(&e)),
        }
        Ok(())
    }

    /// From here on PostgreSQL, which has the portal bound, answers it.
    fn hand_to_postgres(&mut self, name: Bytes, portal: Box<LakePortal>, reason: &str, kind: FellBack) {
        let Some(record) = portal.into_record() else { return };
        telemetry::fell_back(kind);
        let prepared = Prepared {
            statement: record.entry.statement.clone(),
            probed: None,
            reasons: format!("{}; fell back: {reason}", record.entry.reasons).into(),
            lines: Vec::new(),
            classify_us: record.entry.classify_us,
            probe_us: record.entry.probe_us,
            added: None,
            unsure: false,
            analyzed_in: None,
            uses: None,
        };
        record.discard();
        self.remember_portal(name, Portal::Relayed { prepared });
    }

    /// True if the portal is suspended, false if it is at its end.
    async fn run_portal(
        &mut self,
        portal: &mut LakePortal,
        max_rows: i32,
        prefix: Option<&Bytes>,
    ) -> Result<bool, GiveUp> {
        if self.stopped() {
            return Err(cancelled());
        }
        if portal.is_done() {
            message::put_command_complete(&mut self.link.client.output, "SELECT 0");
            return Ok(false);
        }
        let deadline = self.deadline(&portal.settings);
        portal.executed = true;
        if portal.is_unopened() {
            let mut cursor = self.open(portal, deadline).await?;
            if let Some(p) = prefix {
                cursor.held.extend_from_slice(p);
            }
            portal.stage = Stage::Running(Box::new(cursor));
        }
        let Stage::Running(cursor) = &mut portal.stage else { return Ok(false) };
        let Some(record) = &mut portal.record else { return Ok(false) };
        let ended = match self.outlet.clone() {
            Some(outlet) if max_rows <= 0 => self.give_batches(cursor, record, &outlet, deadline).await.map(|()| false),
            _ => self.give_rows(cursor, record, max_rows, deadline).await,
        };
        match ended? {
            // What waits for its client takes no place among the running. It is not replayed.
            true => {
                cursor.stream.rest();
                cursor.watched = None;
            }
            false => {
                self.replay = cursor.watched.take().map(|lake| Replay {
                    portal: portal.name.clone(),
                    statement: record.entry.statement.clone(),
                    order: Order::of_statement(&portal.analysis),
                    lake,
                    lake_us: record.elapsed_us() - record.entry.classify_us - record.entry.probe_us,
                });
                portal.stage = Stage::Done;
            }
        }
        Ok(matches!(portal.stage, Stage::Running(_)))
    }

    /// What the engine gives next, while both ends of the session are attended to.
    pub(super) async fn next_batch(
        &mut self,
        cursor: &mut Cursor,
        deadline: Option<Instant>,
    ) -> Result<Option<Result<RecordBatch, EngineError>>, GiveUp> {
        self.attend(deadline, cursor.stream.resume()).await?;
        self.attend(deadline, cursor.stream.next()).await
    }

    /// Gives the client the next rows. True if there may be more.
    async fn give_rows(
        &mut self,
        cursor: &mut Cursor,
        record: &mut Record,
        max_rows: i32,
        deadline: Option<Instant>,
    ) -> Result<bool, GiveUp> {
        let stop = self.stop.clone().unwrap_or_default();
        let mut sent = 0usize;
        let limit = usize::try_from(max_rows).ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
        loop {
            if sent == limit {
                self.hand_over(cursor);
                message::put_portal_suspended(&mut self.link.client.output);
                return Ok(true);
            }
            if let Some((batch, row, at_a_time)) = &mut cursor.batch {
                let n = (batch.num_rows() - *row).min(limit - sent).min(*at_a_time);
                let before = cursor.held.len();
                cursor
                    .encoder
                    .encode_batch(batch, *row, n, &mut cursor.held)
                    .map_err(|e| give_up_encoding(cursor.sent, &e.to_string()))?;
                if record.entry.first_row_us.is_none() && n > 0 {
                    record.entry.first_row_us = Some(record.elapsed_us());
                }
                record.entry.rows += n as i64;
                record.entry.bytes += (cursor.held.len() - before) as i64;
                if let Some(side) = &mut cursor.watched {
                    side.frames(&cursor.held[before..]);
                }
                *row += n;
                sent += n;
                if *row >= batch.num_rows() {
                    cursor.batch = None;
                }
                if cursor.held.len() > HOLD_BACK || cursor.sent {
                    self.hand_over(cursor);
                }
                if self.link.client.output.len() > BUFFER_LIMIT {
                    // A client that does not read keeps nobody else from running.
                    cursor.stream.rest();
                    while self.link.client.output.len() > BUFFER_LIMIT {
                        self.wait(deadline, &stop).await?;
                    }
                }
                continue;
            }
            let next = self.next_batch(cursor, deadline).await?;
            match next {
                Some(Ok(batch)) if batch.num_rows() > 0 => {
                    let of_a_row = (batch.get_array_memory_size() / batch.num_rows()).max(1);
                    let at_a_time = (ENCODE_BYTES / of_a_row).clamp(1, ENCODE_ROWS);
                    cursor.batch = Some((batch, 0, at_a_time));
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(give_up_engine(cursor.sent, e)),
                None => break,
            }
        }
        cursor.tell(&mut record.entry);
        self.hand_over(cursor);
        let tag = format!("SELECT {sent}");
        message::put_command_complete(&mut self.link.client.output, &tag);
        Ok(false)
    }

    /// Waits for what is not PostgreSQL's work as long as the client wants it.
    pub(super) async fn attend<T>(&mut self, deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, GiveUp> {
        let stop = self.stop.clone().unwrap_or_default();
        tokio::pin!(work);
        loop {
            let turn = tokio::select! {
                done = &mut work => return Ok(done),
                turn = self.link.turn() => turn,
                () = stop.cancelled() => return Err(cancelled()),
                () = sleep_until(deadline) => return Err(timed_out()),
            };
            closed(turn)?;
        }
    }

    /// Whether the name still stands for the portal that was bound, and not for a cursor that SQL declared since.
    pub(super) async fn is_twin(&mut self, portal: &LakePortal) -> Result<bool, SessionEnd> {
        let sql = "SELECT statement FROM pg_catalog.pg_cursors WHERE name OPERATOR(pg_catalog.=) $1";
        probe::put_helper(&mut self.link.upstream.output, sql, &[], &[Some(&portal.name)], false);
        message::put_flush(&mut self.link.upstream.output);
        Ok(match self.helper_row().await? {
            Outcome::Done(row) => match row.into_iter().next().flatten() {
                Some(statement) if portal.is_unbound() => statement == probe::STANDIN_SQL.as_bytes(),
                Some(statement) => statement == portal.sql.as_bytes(),
                // It is gone: asking for it says so.
                None => true,
            },
            Outcome::Failed(_) => true,
        })
    }

    /// Asks PostgreSQL whether the portal still exists: its error, if it does not.
    pub(super) async fn has_twin(&mut self, name: &[u8]) -> Result<Option<Bytes>, SessionEnd> {
        message::put_describe(&mut self.link.upstream.output, b'P', name);
        message::put_flush(&mut self.link.upstream.output);
        loop {
            let f = self.next_frame().await?;
            match f[0] {
                b'T' | b'n' => return Ok(None),
                b'N' => {}
                b'E' => return Ok(Some(f)),
                other => return Err(unexpected(other)),
            }
        }
    }

    fn hand_over(&mut self, cursor: &mut Cursor) {
        self.link.client.output.extend_from_slice(&cursor.held);
        cursor.held.clear();
        cursor.sent = true;
    }

    /// One turn of the sockets while the client is slow.
    async fn wait(&mut self, deadline: Option<Instant>, stop: &CancellationToken) -> Result<(), GiveUp> {
        let turn = tokio::select! {
            turn = self.link.turn() => turn,
            () = stop.cancelled() => return Err(cancelled()),
            () = sleep_until(deadline) => return Err(timed_out()),
        };
        closed(turn)
    }

    /// Pins a version, reads the tail, plans and starts.
    async fn open(&mut self, portal: &mut LakePortal, deadline: Option<Instant>) -> Result<Cursor, GiveUp> {
        let mut providers: HashMap<u32, Arc<dyn TableProvider>> = HashMap::new();
        let engine = self.shared.engine.clone();
        if portal.path == Path::Virtual {
            let reader = Reader {
                user: portal.settings.current_user.clone(),
                is_superuser: portal.settings.is_superuser,
            };
            for (oid, table) in &portal.probed.catalog.analyze.virtual_functions {
                let Some(d) = virtual_tables::ALL.iter().find(|d| d.name == table.name) else { continue };
                let files = match portal.analysis.plan.reads(*oid) && d.name == virtual_tables::FILES.name {
                    true => self
                        .attend(deadline, engine.files(&reader.user))
                        .await?
                        .map_err(|e| give_up_engine(false, e))?,
                    false => Vec::new(),
                };
                let rows = d.rows(&self.shared.log, &self.shared.comparisons, &reader, &files).map_err(|e| GiveUp::FallBack(e.to_string()))?;
                let provider = crate::engine::memory_provider(d.schema(), vec![rows])
                    .map_err(|e| GiveUp::FallBack(e.to_string()))?;
                providers.insert(*oid, provider);
            }
        } else {
            providers = self.tiered(portal, deadline).await?;
        }
        let clock = Instant::now();
        // Analysis lets nothing pass that computes in an unknown zone; what is left is printing.
        let printed = |(f, format): (&message::Field, &Format)| matches!(f.type_oid, TIMESTAMPTZ | TIMESTAMPTZ_ARRAY) && *format == Format::Text;
        let prints_zone = portal.probed.fields.iter().zip(&portal.formats).any(printed);
        let known = pgexact::Zone::parse(&portal.settings.timezone);
        let zone = known.or_else(|| (!prints_zone).then(pgexact::Zone::utc)).ok_or_else(|| {
            let name = &portal.settings.timezone;
            if portal.path != Path::Virtual {
                return GiveUp::FallBack(format!("time zone {name}"));
            }
            // Nobody else has the rows.
            let e = ErrorReport::error("0A000", format!("virtual tables cannot be read in time zone \"{name}\""));
            GiveUp::Error(e.hint("SET TimeZone to a zone of the IANA database, such as 'UTC' or 'Europe/Berlin'."))
        })?;
        let inputs = PlanInputs {
            params: portal.params.clone(),
            folded: portal.folded.clone(),
            zone: zone.clone(),
            providers,
            alone: portal.path == Path::Virtual,
        };
        let planned = plan::rows(&portal.analysis, &inputs)?;
        let cancel = CancellationToken::new();
        for plan in planned.first {
            let started = self.attend(deadline, engine.execute(plan, cancel.clone())).await?;
            let mut stream = started.map_err(|e| give_up_engine(false, e))?;
            while let Some(batch) = self.attend(deadline, stream.next()).await? {
                batch.map_err(|e| give_up_engine(false, e))?;
            }
        }
        let started = self.attend(deadline, engine.execute(planned.plan, cancel.clone())).await?;
        let mut stream = started.map_err(|e| give_up_engine(false, e))?;
        let analysis = portal.analysis.clone();
        if let Some(arranged) = &analysis.arranged {
            stream = self.arrange(arranged, stream, inputs, &cancel, deadline).await?;
        }
        if let Some(r) = &mut portal.record {
            r.entry.plan_us += clock.elapsed().as_micros() as i64;
        }
        let targets: Vec<Target> = portal
            .probed
            .fields
            .iter()
            .zip(&portal.formats)
            .map(|(f, format)| Target { type_oid: f.type_oid, typmod: f.typmod, format: *format })
            .collect();
        let encoder = RowEncoder::try_new(&targets, &stream.schema(), &zone).map_err(|e| GiveUp::FallBack(e.to_string()))?;
        let watched = (portal.sampled && portal.sees_the_same()).then(|| Side::new(&Order::of_statement(&portal.analysis)));
        let outgoing = match self.outlet {
            None => None,
            Some(_) => Some(outgoing(&portal.probed.fields, &stream, &zone).map_err(|e| GiveUp::FallBack(e.to_string()))?),
        };
        let logs_plan = portal.settings.logs_plan().unwrap_or(false);
        Ok(Cursor { stream, encoder, outgoing, batch: None, cancel, held: BytesMut::new(), sent: false, watched, logs_plan })
    }

    /// Ends the transaction in PostgreSQL with an error, and tells the client ours.
    pub(super) async fn fail(&mut self, report: &ErrorReport, record: &mut Record) -> Result<(), SessionEnd> {
        record.failed(&report.sqlstate, &report.message);
        self.raise(report).await
    }

    /// As [`Session::fail`], of no statement.
    pub(super) async fn raise(&mut self, report: &ErrorReport) -> Result<(), SessionEnd> {
        probe::put_fail(&mut self.link.upstream.output, &report.sqlstate, &report.message);
        message::put_flush(&mut self.link.upstream.output);
        if let Outcome::Done(_) = self.helper_row().await? {
            return Err(SessionEnd::Protocol("an error could not be raised in PostgreSQL".into()));
        }
        message::put_error(&mut self.link.client.output, report);
        self.state.failed(false);
        Ok(())
    }
}

/// Asks for the facts of tables that only PostgreSQL holds.
pub(super) fn put_dimension_facts(out: &mut BytesMut, dimensions: &[analyze::Dimension]) {
    for dimension in dimensions {
        let attnums: Vec<i16> = dimension.columns.iter().map(|(n, _)| *n).collect();
        probe::put_facts(out, dimension.relid, &attnums, &[], attnums.first().copied().unwrap_or(0));
    }
}

/// The types in which batches of this answer leave.
fn outgoing(fields: &[message::Field], stream: &QueryStream, zone: &pgexact::Zone) -> Result<Outgoing, EncodeError> {
    let names: Vec<String> = fields.iter().map(|f| String::from_utf8_lossy(&f.name).into_owned()).collect();
    Outgoing::try_new(Column::all(fields), &names, &stream.schema(), zone)
}

fn formats(requested: &[i16], columns: usize) -> Vec<Format> {
    let of = |f: i16| if f == 1 { Format::Binary } else { Format::Text };
    match requested {
        [] => vec![Format::Text; columns],
        [one] => vec![of(*one); columns],
        many => (0..columns).map(|i| of(many.get(i).copied().unwrap_or(0))).collect(),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(d) => tokio::time::sleep_until(d.into()).await,
        None => std::future::pending().await,
    }
}

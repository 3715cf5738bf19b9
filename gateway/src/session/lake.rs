//! A statement that the lake may answer, from the analyzed tree to the last row: decide, bind, read the tail,
//! plan, execute, encode. Whatever goes wrong before a row was sent, the bound portal in PostgreSQL is executed
//! instead. ✗ how plans are made and run.

use super::bracket::{Bracket, Outcome, Probed, unexpected};
use super::link::{BUFFER_LIMIT, Turn};
use super::probe::{self, Facts, Settings, Trees};
use super::{Session, SessionEnd, cold};
use crate::analyze::ir::Constant;
use crate::analyze::{self, Analysis, Verdict, tail};
use crate::classify::{Classified, Override};
use crate::engine::{EngineError, Pin, QueryStream, TieredProvider};
use crate::plan::{self, PlanError, PlanInputs};
use crate::query::record::{Path, Record};
use crate::route::{self, Known};
use crate::virtual_tables::{self, Reader};
use crate::wire::frame;
use crate::wire::message::{self, Bind, ErrorReport};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use bytes::{Bytes, BytesMut};
use datafusion::datasource::TableProvider;
use lake::boundary::Boundary;
use lake::pgcopy::CopyDecoder;
use lake::spec::TableSpec;
use lake::types::ColType;
use pgexact::encode::{Format, RowEncoder, Target};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often a newer lake version is pinned because the fence has moved past the one at hand.
const PIN_ATTEMPTS: usize = 3;
/// Rows are held back up to this many bytes, so that falling back stays possible.
const HOLD_BACK: usize = 1024 * 1024;
/// Columns of the fence before those of the tail's rows; the last is NULL where there is no row.
const FENCE: usize = 7;
/// PostgreSQL's type OID.
const TIMESTAMPTZ: u32 = 1184;
/// Rows encoded at a time.
const ENCODE_ROWS: usize = 1024;

/// What is to become of a probed statement.
pub(super) enum Decision {
    /// The lake or a virtual table may answer.
    Lake(Arc<Probed>),
    /// PostgreSQL answers, as long as the floor lies where it does; the reasons are in the record.
    Hot(Arc<Probed>),
    /// PostgreSQL answers; the reasons are in the record.
    Postgres,
    /// Neither may: the client's answer.
    Refuse(ErrorReport),
}

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
    probed: Arc<Probed>,
    analysis: Arc<Analysis>,
    path: Path,
    settings: Settings,
    facts: Option<Facts>,
    params: Vec<plan::Value>,
    folded: Vec<plan::Value>,
    formats: Vec<Format>,
    arrived: Instant,
    record: Option<Record>,
    stage: Stage,
    /// The client's Bind, where only a stand-in is bound.
    late_bind: Option<Bytes>,
    /// PostgreSQL may lack rows that it needs: there is no falling back.
    cold: bool,
}

enum Stage {
    Start,
    Running(Box<Cursor>),
    Done,
}

struct Cursor {
    stream: QueryStream,
    encoder: RowEncoder,
    batch: Option<(RecordBatch, usize)>,
    cancel: CancellationToken,
    /// Encoded and not yet handed to the client.
    held: BytesMut,
    /// A row was handed to the client: falling back is no longer possible.
    sent: bool,
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Why the lake gave up.
enum GiveUp {
    /// PostgreSQL can answer instead.
    FallBack(String),
    /// PostgreSQL can answer instead; if it lacks the rows, the answer is this error.
    Engine(EngineError),
    /// PostgreSQL can answer instead; if it lacks the rows, another transaction may have them answered.
    Outdated(String),
    /// The client's answer.
    Error(ErrorReport),
    /// PostgreSQL's own error, whole: the client's answer.
    Upstream(Bytes),
    End(SessionEnd),
}

impl From<SessionEnd> for GiveUp {
    fn from(e: SessionEnd) -> Self {
        GiveUp::End(e)
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
        facts: Option<Facts>,
        values: (Vec<plan::Value>, Vec<plan::Value>),
        result_formats: &[i16],
        arrived: Instant,
        record: Record,
        bind: Bytes,
        cold: bool,
    ) -> LakePortal {
        LakePortal {
            name: Bytes::copy_from_slice(name),
            path: probed.path,
            formats: formats(result_formats, probed.fields.len()),
            analysis,
            settings,
            facts,
            params: values.0,
            folded: values.1,
            arrived,
            record: Some(record),
            stage: Stage::Start,
            late_bind: Some(bind),
            cold,
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

    /// Its RowDescription, which PostgreSQL cannot give.
    pub(super) fn described(&self) -> Result<BytesMut, message::Malformed> {
        let formats: Vec<i16> = self.formats.iter().map(|f| i16::from(*f == Format::Binary)).collect();
        message::with_formats(&self.probed.row_description, &formats)
    }
}

impl Probed {
    /// Which store the decision at Parse named.
    pub fn path(&self) -> Path {
        self.path
    }

    /// The statement that computes parameters and row-independent expressions, if there are any.
    pub(super) fn constants_sql(&self) -> Option<String> {
        let params = self.analysis.params.iter().map(|p| format!("${}", p.number));
        let folds = self.analysis.folds.iter().map(|f| format!("({})", f.sql));
        let list: Vec<String> = params.chain(folds).collect();
        (!list.is_empty()).then(|| format!("SELECT {}", list.join(", ")))
    }
}

impl Session {
    /// Analyzes and routes what a bracket around Parse brought.
    pub(super) fn decide(&mut self, bracket: Bracket, statement: &Arc<Classified>, record: &mut Record) -> Decision {
        let clock = Instant::now();
        let catalog = self.shared.catalog.current();
        let postgres = |record: &mut Record, reason: &str| {
            record.entry.reasons = reason.to_string();
            Decision::Postgres
        };
        let Some(row_description) = bracket.row_description else {
            return postgres(record, "returns no rows");
        };
        let tree = match bracket.trees {
            Trees::One(tree) => tree,
            Trees::None => return postgres(record, "PostgreSQL printed no tree"),
            Trees::Doubtful => return postgres(record, "the printed tree may not be the statement's own"),
        };
        let Ok(fields) = message::row_description(frame::body(&row_description)) else {
            return postgres(record, "the row description cannot be read");
        };
        let verdict = analyze::analyze(&tree, &catalog.analyze, &analyze_settings(&bracket.settings), &analyze_fields(&fields));
        let setting = Override::parse(&bracket.settings.route);
        let Some(wanted) = statement.hint.or(setting) else {
            // PostgreSQL keeps the setting but cannot know its values.
            let message = format!("invalid value for parameter \"watershed.route\": \"{}\"", bracket.settings.route);
            return Decision::Refuse(ErrorReport::error("22023", message).hint("Available values: auto, postgres, lake."));
        };
        let objection = bracket.settings.objection();
        // What the lake cannot answer may need anything: PostgreSQL's own pruning knows best, and its tripwire holds.
        let floor = match (&verdict, &objection) {
            (Verdict::Lake(a), None) => self.floor(a),
            _ => None,
        };
        let may_need_cold = match &verdict {
            Verdict::Lake(a) => cold::reaches_below(a, a.time_from_us, floor),
            _ => false,
        };
        let known = Known { may_need_cold, objection, verdict: &verdict, wanted };
        record.entry.plan_us += clock.elapsed().as_micros() as i64;
        let route = match route::decide(&known) {
            Ok(route) => route,
            Err(report) => {
                record.entry.reasons = report.detail.clone().unwrap_or_default();
                return Decision::Refuse(report);
            }
        };
        record.entry.reasons = route.reasons.join("; ");
        if self.shared.config.cold_door.is_some() && catalog.has_floor && matches!(verdict, Verdict::Postgres(_)) {
            record.entry.reasons.push_str("; rows that left PostgreSQL come to it through the door");
        }
        record.entry.path = route.path;
        // While there is a floor, what is decided now may be decided otherwise when it has moved on.
        let hot = route.path == Path::Postgres && floor.is_some() && wanted == Override::Auto;
        let analysis = match (verdict, route.path) {
            (Verdict::Lake(a) | Verdict::Virtual(a), Path::Lake | Path::Virtual) => a,
            (Verdict::Lake(a), Path::Postgres) if hot => a,
            _ => {
                record.entry.path = Path::Postgres;
                return Decision::Postgres;
            }
        };
        let probed = Arc::new(Probed {
            settings: bracket.settings,
            tree,
            analysis: Arc::new(analysis),
            path: if hot { Path::Lake } else { route.path },
            reasons: record.entry.reasons.clone(),
            hot,
            wanted,
            param_types: bracket.param_types,
            row_description,
            fields,
            prepared_at: bracket.prepared_at,
            catalog,
        });
        if hot { Decision::Hot(probed) } else { Decision::Lake(probed) }
    }

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
        if let Some(floor) = self.floor(&probed.analysis) {
            return self.bind_with_floor(probed, statement, bind_frame, name, record, floor).await;
        }
        let arrived = Instant::now();
        let msg = Bind::read(frame::body(bind_frame))?;
        let catalog = self.shared.catalog.current();
        let used = probed.analysis.tables.first();
        let table = used.map(|t| (t, catalog.tiered(t.relid).or_else(|| probed.catalog.tiered(t.relid))));
        let constants = probed.constants_sql();
        let bracket = self
            .bracket(bind_frame, None, name, |out| {
                if let Some((t, spec)) = table {
                    let with_event = spec.is_some_and(|s| s.lake_floor_us.is_some());
                    let provenance = spec.map_or_else(|| vec![0], |s| probe::provenance(s, with_event));
                    probe::put_facts(out, t.relid, &t.attnums, &provenance, spec.map_or(0, |s| s.event_time));
                }
                if let Some(sql) = &constants {
                    probe::put_helper_formats(out, sql, &probed.param_types, &msg.param_formats, &msg.params, true);
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
        let mut rows = Vec::new();
        for _ in 0..usize::from(table.is_some()) + usize::from(constants.is_some()) {
            match self.helper_row().await? {
                Outcome::Done(row) => rows.push(row),
                Outcome::Failed(e) => {
                    self.forward_error(&e, &mut record);
                    return Ok(Bound::Failed);
                }
            }
        }
        let mut rows = rows.into_iter();
        let facts = table.and_then(|_| rows.next()).map(|r| Facts::read(&r));
        let constants = rows.next().unwrap_or_default();
        let settings = bracket.settings.clone();
        let outcome = self.admit(probed, statement, &bracket, facts, name);
        let (analysis, facts) = match outcome {
            Ok(admitted) => admitted,
            Err(reason) => {
                record.entry.reasons = reason;
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
                    record.entry.reasons = format!("a constant cannot be read: {e}");
                    record.entry.path = Path::Postgres;
                    return Ok(Bound::Postgres(record));
                }
            }
        }
        let folded = values.split_off(analysis.params.len().min(values.len()));
        record.entry.path = probed.path;
        record.entry.reasons = probed.reasons.clone();
        Ok(Bound::Lake(Box::new(LakePortal {
            name: Bytes::copy_from_slice(msg.portal),
            probed: probed.clone(),
            path: probed.path,
            formats: formats(&msg.result_formats, probed.fields.len()),
            analysis,
            settings,
            facts,
            params: values,
            folded,
            arrived,
            record: Some(record),
            stage: Stage::Start,
            late_bind: None,
            cold: false,
        })))
    }

    /// Whether what was decided at Parse still holds at Bind. The error is the reason why PostgreSQL answers.
    pub(super) fn admit(
        &self,
        probed: &Probed,
        statement: &Classified,
        bracket: &Bracket,
        facts: Option<Option<Facts>>,
        name: &[u8],
    ) -> Result<(Arc<Analysis>, Option<Facts>), String> {
        if let Some(o) = bracket.settings.objection() {
            return Err(o);
        }
        let client_named = !name.is_empty() && name != probe::SIMPLE;
        if client_named && bracket.prepared_at != probed.prepared_at {
            return Err("the name stands for another prepared statement now".into());
        }
        let wanted = statement.hint.or_else(|| Override::parse(&bracket.settings.route)).unwrap_or(Override::Auto);
        if wanted == Override::Postgres {
            return Err("watershed.route asks for PostgreSQL".into());
        }
        if wanted != probed.wanted && probed.wanted == Override::Lake && probed.analysis.shape != analyze::Shape::Aggregate {
            return Err("watershed.route no longer asks for the lake".into());
        }
        let same_zone = bracket.settings.timezone == probed.settings.timezone;
        let analysis = match &bracket.trees {
            Trees::Doubtful => return Err("the printed tree may not be the statement's own".into()),
            Trees::One(tree) if *tree != probed.tree || !same_zone => self.analyze_again(probed, tree, &bracket.settings)?,
            Trees::None if !same_zone => self.analyze_again(probed, &probed.tree, &bracket.settings)?,
            Trees::None | Trees::One(_) => probed.analysis.clone(),
        };
        let facts = match facts {
            None => None,
            Some(None) => return Err("the table has changed".into()),
            Some(Some(f)) if !f.readable => {
                return Err("the user itself may not read the table's columns and _xid".into());
            }
            Some(Some(f)) if f.row_security => return Err("row-level security is active".into()),
            Some(Some(f)) => Some(f),
        };
        Ok((analysis, facts))
    }

    /// After DDL, or under another time zone, the statement may mean something else.
    fn analyze_again(&self, probed: &Probed, tree: &str, settings: &Settings) -> Result<Arc<Analysis>, String> {
        let catalog = self.shared.catalog.current();
        let fields = analyze_fields(&probed.fields);
        match analyze::analyze(tree, &catalog.analyze, &analyze_settings(settings), &fields) {
            Verdict::Lake(a) | Verdict::Virtual(a)
                if a.params == probed.analysis.params
                    && a.folds == probed.analysis.folds
                    && a.tables == probed.analysis.tables =>
            {
                Ok(Arc::new(a))
            }
            Verdict::Postgres(reasons) => Err(reasons.join("; ")),
            _ => Err("the statement's meaning has changed since it was prepared".into()),
        }
    }

    /// Answers one Execute. `prefix` (a simple Query's RowDescription) goes before the first row.
    pub(super) async fn answer(
        &mut self,
        portal: &mut LakePortal,
        max_rows: i32,
        prefix: Option<&Bytes>,
    ) -> Result<Answer, SessionEnd> {
        let outcome = self.run_portal(portal, max_rows, prefix).await;
        self.cancel.handle.end();
        let (give_up, mut record) = match (outcome, portal.record.take()) {
            (Ok(suspended), record) => {
                if suspended {
                    portal.record = record;
                }
                return Ok(Answer::Complete);
            }
            (Err(e), Some(record)) => (e, record),
            (Err(GiveUp::End(e)), None) => return Err(e),
            (Err(_), None) => return Err(SessionEnd::Protocol("an answered portal failed".into())),
        };
        portal.stage = Stage::Done;
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
            GiveUp::FallBack(reason) if portal.path == Path::Virtual => {
                let report = ErrorReport::error("XX000", "the virtual tables could not be read").detail(reason);
                self.fail(&report, &mut record).await?;
                Ok(Answer::Failed)
            }
            GiveUp::FallBack(reason) => {
                tracing::info!(reason, fingerprint = %record.entry.statement.fingerprint, "the lake gave a statement back to PostgreSQL");
                record.entry.path = Path::Postgres;
                record.entry.fell_back = true;
                record.entry.reasons = format!("{}; fell back: {reason}", record.entry.reasons);
                Ok(Answer::FallBack(Box::new(record)))
            }
        }
    }

    /// True if the portal is suspended, false if it is at its end.
    async fn run_portal(
        &mut self,
        portal: &mut LakePortal,
        max_rows: i32,
        prefix: Option<&Bytes>,
    ) -> Result<bool, GiveUp> {
        if matches!(portal.stage, Stage::Done) {
            message::put_command_complete(&mut self.link.client.output, "SELECT 0");
            return Ok(false);
        }
        let deadline = portal.settings.timeout_ms().map(|ms| portal.arrived + Duration::from_millis(ms));
        // The portal may have ended with its transaction or by SQL: its twin knows, and its error is the client's.
        if portal.name != probe::SIMPLE {
            if let Some(e) = self.has_twin(&portal.name).await? {
                return Err(GiveUp::Upstream(e));
            }
        }
        if matches!(portal.stage, Stage::Start) {
            let mut cursor = self.open(portal).await?;
            if let Some(p) = prefix {
                cursor.held.extend_from_slice(p);
            }
            portal.stage = Stage::Running(Box::new(cursor));
        }
        let Stage::Running(cursor) = &mut portal.stage else { return Ok(false) };
        let Some(record) = &mut portal.record else { return Ok(false) };
        let mut sent = 0usize;
        let limit = usize::try_from(max_rows).ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
        loop {
            if sent == limit {
                self.hand_over(cursor);
                message::put_portal_suspended(&mut self.link.client.output);
                return Ok(true);
            }
            if let Some((batch, row)) = &mut cursor.batch {
                let n = (batch.num_rows() - *row).min(limit - sent).min(ENCODE_ROWS);
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
                *row += n;
                sent += n;
                if *row >= batch.num_rows() {
                    cursor.batch = None;
                }
                if cursor.held.len() > HOLD_BACK || cursor.sent {
                    self.hand_over(cursor);
                }
                while self.link.client.output.len() > BUFFER_LIMIT {
                    self.wait(deadline, &cursor.cancel).await?;
                }
                continue;
            }
            let next = loop {
                let turn = tokio::select! {
                    next = cursor.stream.next() => break next,
                    turn = self.link.turn() => turn,
                    () = cursor.cancel.cancelled() => return Err(cancelled()),
                    () = sleep_until(deadline) => return Err(timed_out()),
                };
                closed(turn)?;
            };
            match next {
                Some(Ok(batch)) => cursor.batch = (batch.num_rows() > 0).then_some((batch, 0)),
                Some(Err(e)) => return Err(give_up_engine(cursor.sent, e)),
                None => break,
            }
        }
        let stats = cursor.stream.stats();
        record.entry.lake_files = stats.files as i64;
        record.entry.lake_row_groups = stats.row_groups as i64;
        record.entry.lake_bytes = stats.bytes_scanned as i64;
        self.hand_over(cursor);
        let tag = format!("SELECT {sent}");
        message::put_command_complete(&mut self.link.client.output, &tag);
        portal.stage = Stage::Done;
        Ok(false)
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
    async fn wait(&mut self, deadline: Option<Instant>, cancel: &CancellationToken) -> Result<(), GiveUp> {
        let turn = tokio::select! {
            turn = self.link.turn() => turn,
            () = cancel.cancelled() => return Err(cancelled()),
            () = sleep_until(deadline) => return Err(timed_out()),
        };
        closed(turn)
    }

    /// Pins a version, reads the tail, plans and starts.
    async fn open(&mut self, portal: &mut LakePortal) -> Result<Cursor, GiveUp> {
        let mut providers: HashMap<u32, Arc<dyn TableProvider>> = HashMap::new();
        if portal.path == Path::Virtual {
            let reader = Reader {
                user: portal.settings.current_user.clone(),
                is_superuser: portal.settings.is_superuser,
            };
            for (oid, table) in &portal.probed.catalog.analyze.virtual_functions {
                let Some(d) = virtual_tables::ALL.iter().find(|d| d.name == table.name) else { continue };
                let files = match portal.analysis.plan.reads(*oid) && d.name == virtual_tables::FILES.name {
                    true => self.shared.engine.files(&reader.user).await.map_err(|e| give_up_engine(false, e))?,
                    false => Vec::new(),
                };
                let rows = d.rows(&self.shared.log, &reader, &files).map_err(|e| GiveUp::FallBack(e.to_string()))?;
                let provider = crate::engine::memory_provider(d.schema(), vec![rows])
                    .map_err(|e| GiveUp::FallBack(e.to_string()))?;
                providers.insert(*oid, provider);
            }
        } else if let Some(facts) = portal.facts.clone() {
            let (relid, provider) = self.tiered(portal, &facts).await?;
            providers.insert(relid, provider);
        }
        let clock = Instant::now();
        // Analysis lets nothing pass that computes in an unknown zone; what is left is printing.
        let printed = |(f, format): (&message::Field, &Format)| f.type_oid == TIMESTAMPTZ && *format == Format::Text;
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
        };
        let plan = plan::plan(&portal.analysis, &inputs).map_err(|e| match e {
            // PostgreSQL raises the same, with its own fields.
            PlanError::Postgres { sqlstate, message } => GiveUp::Engine(EngineError::Postgres { sqlstate, message }),
            PlanError::Unproven(_) | PlanError::Internal(_) => GiveUp::FallBack(e.to_string()),
        })?;
        let cancel = self.cancel.handle.begin();
        let stream = self.shared.engine.execute(plan, cancel.clone()).await.map_err(|e| give_up_engine(false, e))?;
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
        Ok(Cursor { stream, encoder, batch: None, cancel, held: BytesMut::new(), sent: false })
    }

    /// The union of a pinned lake version and the tail that the client's own connection reads.
    async fn tiered(&mut self, portal: &mut LakePortal, facts: &Facts) -> Result<(u32, Arc<dyn TableProvider>), GiveUp> {
        let Some(used) = portal.analysis.tables.first().cloned() else {
            return Err(GiveUp::FallBack("no table".into()));
        };
        let engine = self.shared.engine.clone();
        let conditions = tail_tests(portal, used.relid, &used.attnums, facts);
        // The snapshot of a whole transaction may be older than what was dropped since, and a snapshot does not cover that: the
        // table, which is locked by now, is asked for as it is.
        let fixed = portal.settings.transaction_isolation == "repeatable read";
        let mut newer = fixed;
        for _ in 0..PIN_ATTEMPTS {
            let pin = engine.pin(used.relid, newer).await.map_err(|e| give_up_engine(false, e))?;
            if !newer && used.attnums.iter().any(|n| pin.spec.column(*n).is_none()) {
                newer = true;
                continue;
            }
            let clock = Instant::now();
            let mut tests = conditions.clone();
            tests.extend(after_lake_floor(&pin.spec, facts));
            let tail = self.tail(&pin, &used.attnums, facts, &tests).await?;
            if let Some(r) = &mut portal.record {
                r.entry.tail_us += clock.elapsed().as_micros() as i64;
            }
            let Some(fence) = tail.fence else { return Err(GiveUp::FallBack("the table is no longer tiered".into())) };
            if fence.lineage != pin.spec.lineage || fence.schema_epoch != pin.spec.schema_epoch {
                self.shared.catalog.suspect();
                if !newer {
                    newer = true;
                    continue;
                }
                return Err(GiveUp::FallBack("the table's definition or lineage has changed".into()));
            }
            // Day partitions that were dropped since are gone from that snapshot too, with rows that are neither in a version that fits
            // it nor, for it, anywhere else.
            if fixed && (fence.floor_us, fence.lake_floor_us) != (pin.spec.floor_us, pin.spec.lake_floor_us) {
                return Err(GiveUp::Outdated("rows have left PostgreSQL since the transaction took its snapshot".into()));
            }
            if fence.lake_floor_us != pin.spec.lake_floor_us {
                newer = true;
                continue;
            }
            if fence.min_archive.max(pin.spec.min_archive) > pin.version.archive {
                newer = true;
                continue;
            }
            if fixed
                && let Some(boundary) = &pin.boundary
                && !boundary.serves(&fence.snapshot)
            {
                return Err(GiveUp::Outdated("no lake version fits the transaction's snapshot".into()));
            }
            if let Some(r) = &mut portal.record {
                r.entry.lake_version = Some(pin.version.version);
                r.entry.boundary = pin.boundary.as_ref().map(ToString::to_string);
                r.entry.tail_rows = tail.batches.iter().map(|b| b.num_rows() as i64).sum();
            }
            let wishes = plan::coded::wishes(&portal.analysis.plan, used.relid);
            let provider = TieredProvider::prepare(pin, &used.attnums, tail.batches, &wishes)
                .await
                .map_err(|e| give_up_engine(false, e))?;
            return Ok((used.relid, provider));
        }
        Err(GiveUp::FallBack("the lake is behind the fence".into()))
    }

    /// Reads fence and tail in one snapshot, as the current user, in the current transaction.
    async fn tail(
        &mut self,
        pin: &Pin,
        attnums: &[i16],
        facts: &Facts,
        tests: &[String],
    ) -> Result<Tail, GiveUp> {
        let Some(columns) = attnums.iter().map(|n| pin.spec.column(*n)).collect::<Option<Vec<_>>>() else {
            return Err(GiveUp::FallBack("a column is not in the lake yet".into()));
        };
        let mut types =
            vec![ColType::Int8, ColType::Int4, ColType::Text, ColType::Text, ColType::Int8, ColType::Int8, ColType::Bool];
        types.extend(columns.iter().map(|c| c.ty));
        let mut fields: Vec<Field> =
            (0..FENCE).map(|i| Field::new(format!("fence_{i}"), types[i].arrow(), true)).collect();
        fields.extend(columns.iter().map(|c| Field::new(&c.lake_name, c.ty.arrow(), true)));
        let mut decoder = CopyDecoder::new(&types, Arc::new(Schema::new(fields)), 8192)
            .map_err(|e| GiveUp::FallBack(e.to_string()))?;

        let pinned = pin.boundary.as_ref().map(|b| (pin.version.archive, b));
        let sql = probe::tail_sql(pin.spec.relid, facts, pinned, tests);
        probe::put_helper(&mut self.link.upstream.output, &sql, &[], &[], false);
        message::put_flush(&mut self.link.upstream.output);

        let limit = self.shared.config.tail_limit_bytes();
        let mut batches = Vec::new();
        let mut held = 0usize;
        let mut broken: Option<String> = None;
        let mut complete = false;
        loop {
            let f = self.next_frame().await?;
            match f[0] {
                b'd' if broken.is_none() => {
                    if let Err(e) = decoder.push(frame::body(&f)) {
                        broken = Some(e.to_string());
                    }
                    while let Some(b) = decoder.next_batch() {
                        held += b.get_array_memory_size();
                        batches.push(b);
                    }
                    if held + decoder.bytes() > limit {
                        batches.clear();
                        broken = Some(format!("the rows not yet in the lake exceed {limit} bytes"));
                    }
                }
                b'd' | b'H' | b'c' | b'1' | b'2' | b'N' => {}
                // Before the COPY: of the helper's own Close. After it: the last one.
                b'3' if complete => break,
                b'3' => {}
                b'C' => complete = true,
                b'E' => return Err(GiveUp::Upstream(f)),
                other => return Err(unexpected(other).into()),
            }
        }
        if let Some(reason) = broken {
            return Err(GiveUp::FallBack(reason));
        }
        let doubt = |e: &dyn std::fmt::Display| GiveUp::FallBack(format!("the tail cannot be read: {e}"));
        if let Some(b) = decoder.finish().map_err(|e| doubt(&e))? {
            batches.push(b);
        }
        Tail::split(batches).map_err(|e| doubt(&e))
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
        self.state.failed();
        Ok(())
    }
}

/// What PostgreSQL may ask of the tail's rows, so that it sends none that the plan would drop: conditions over `t`.
fn tail_tests(portal: &LakePortal, relid: u32, attnums: &[i16], facts: &Facts) -> Vec<String> {
    fn value_of<'v>(portal: &'v LakePortal, constant: &'v Constant) -> Option<&'v plan::Value> {
        match constant {
            Constant::Literal(value) => Some(value),
            Constant::Param(i) => portal.params.get(*i),
            Constant::Fold(i) => portal.folded.get(*i),
        }
    }
    let conditions = tail::conditions(&portal.analysis.plan, relid, &|c| value_of(portal, c));
    let test = |c: &tail::Condition| {
        let column = facts.column(attnums.iter().position(|n| *n == c.attnum)?)?;
        Some(format!("t.{column} {}", c.test))
    };
    conditions.iter().filter_map(test).collect()
}

/// The condition that keeps the tail's rows at or after the lake's floor, where there is one.
fn after_lake_floor(spec: &TableSpec, facts: &Facts) -> Option<String> {
    let us = spec.lake_floor_us?;
    let day = lake::types::day_text(lake::types::partition_day(us));
    let bound = match spec.event_column().ok()?.ty {
        ColType::TimestampTz => format!("'{day} 00:00:00+00'::pg_catalog.timestamptz"),
        ColType::Timestamp => format!("'{day} 00:00:00'::pg_catalog.timestamp"),
        _ => format!("'{day}'::pg_catalog.date"),
    };
    Some(format!("t.{} OPERATOR(pg_catalog.>=) {bound}", facts.event))
}

/// Fence and tail, read in one snapshot.
struct Tail {
    fence: Option<Fence>,
    batches: Vec<RecordBatch>,
}

struct Fence {
    min_archive: i64,
    schema_epoch: i32,
    lineage: String,
    snapshot: Boundary,
    floor_us: Option<i64>,
    lake_floor_us: Option<i64>,
}

impl Tail {
    /// Takes the fence off the rows, and the rows that only carried the fence.
    fn split(batches: Vec<RecordBatch>) -> Result<Tail, Box<dyn std::error::Error + Send + Sync>> {
        let mut fence = None;
        let mut rows = Vec::with_capacity(batches.len());
        for b in batches.iter().filter(|b| b.num_rows() > 0) {
            if fence.is_none() {
                fence = Some(Fence {
                    min_archive: b.column(0).as_primitive::<Int64Type>().value(0),
                    schema_epoch: b.column(1).as_primitive::<Int32Type>().value(0),
                    lineage: text(b.column(2))?,
                    snapshot: text(b.column(3))?.parse()?,
                    floor_us: micros(b.column(4)),
                    lake_floor_us: micros(b.column(5)),
                });
            }
            let present = compute::is_not_null(b.column(FENCE - 1))?;
            let kept = b.project(&(FENCE..b.num_columns()).collect::<Vec<_>>())?;
            let kept = compute::filter_record_batch(&kept, &present)?;
            if kept.num_rows() > 0 {
                rows.push(kept);
            }
        }
        Ok(Tail { fence, batches: rows })
    }
}

/// Seconds as microseconds.
fn micros(column: &dyn Array) -> Option<i64> {
    let seconds = column.as_primitive::<Int64Type>();
    (!seconds.is_null(0)).then(|| seconds.value(0).saturating_mul(1_000_000))
}

fn text(column: &dyn Array) -> Result<String, arrow::error::ArrowError> {
    let column = compute::cast(column, &DataType::Utf8)?;
    Ok(column.as_string::<i32>().value(0).to_string())
}

fn formats(requested: &[i16], columns: usize) -> Vec<Format> {
    let of = |f: i16| if f == 1 { Format::Binary } else { Format::Text };
    match requested {
        [] => vec![Format::Text; columns],
        [one] => vec![of(*one); columns],
        many => (0..columns).map(|i| of(many.get(i).copied().unwrap_or(0))).collect(),
    }
}

fn analyze_settings(s: &Settings) -> analyze::Settings {
    analyze::Settings { timezone: s.timezone.clone() }
}

fn analyze_fields(fields: &[message::Field]) -> Vec<analyze::Field> {
    fields
        .iter()
        .map(|f| analyze::Field {
            name: String::from_utf8_lossy(&f.name).into_owned(),
            type_oid: f.type_oid,
            typmod: f.typmod,
        })
        .collect()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(d) => tokio::time::sleep_until(d.into()).await,
        None => std::future::pending().await,
    }
}

fn closed(turn: std::io::Result<Turn>) -> Result<(), GiveUp> {
    match turn {
        Ok(Turn::ClientClosed) => Err(GiveUp::End(SessionEnd::Client)),
        Ok(Turn::UpstreamClosed) => Err(GiveUp::End(SessionEnd::Upstream)),
        Ok(_) => Ok(()),
        Err(e) => Err(GiveUp::End(e.into())),
    }
}

fn cancelled() -> GiveUp {
    GiveUp::Error(ErrorReport::error("57014", "canceling statement due to user request"))
}

fn timed_out() -> GiveUp {
    GiveUp::Error(ErrorReport::error("57014", "canceling statement due to statement timeout"))
}

fn give_up_encoding(sent: bool, e: &str) -> GiveUp {
    if sent {
        GiveUp::Error(ErrorReport::error("58030", "the lake's answer could not be completed").detail(e))
    } else {
        GiveUp::FallBack(e.to_string())
    }
}

fn give_up_engine(sent: bool, e: EngineError) -> GiveUp {
    match e {
        EngineError::Cancelled => cancelled(),
        // PostgreSQL will raise it as well, with its own fields.
        e if !sent => GiveUp::Engine(e),
        e => GiveUp::Error(engine_report(e)),
    }
}

/// What the client is told where nobody else can answer.
fn engine_report(e: EngineError) -> ErrorReport {
    match e {
        EngineError::Postgres { sqlstate, message } => ErrorReport::error(&sqlstate, message),
        EngineError::Refused(m) => ErrorReport::error("53200", "out of memory for lake queries")
            .detail(m)
            .hint("Run the statement again, or raise the gateway's memory limit."),
        e => ErrorReport::error("58030", "the lake could not be read").detail(e.to_string()).hint(
            "Run the statement again when the lake's storage answers. What PostgreSQL holds above the floor it answers meanwhile.",
        ),
    }
}

impl GiveUp {
    /// What becomes of it, as PostgreSQL holds the rows that the portal needs or does not, or has a `door` to them.
    fn settled(self, portal: &LakePortal, door: bool) -> GiveUp {
        match self {
            GiveUp::FallBack(reason) if door => GiveUp::FallBack(reason),
            GiveUp::Engine(e) if !portal.cold => GiveUp::FallBack(e.to_string()),
            GiveUp::Outdated(reason) if !portal.cold => GiveUp::FallBack(reason),
            GiveUp::Outdated(reason) => GiveUp::Error(
                ErrorReport::error("40001", "could not serialize access to rows that only the lake has")
                    .detail(format!("{reason}."))
                    .hint("Begin the transaction anew."),
            ),
            GiveUp::FallBack(reason) if portal.cold => {
                let spec = portal.analysis.tables.first().and_then(|t| portal.probed.catalog.tiered(t.relid));
                GiveUp::Error(cold::needs_cold(spec.map(|s| &**s), &reason))
            }
            other => other,
        }
    }
}

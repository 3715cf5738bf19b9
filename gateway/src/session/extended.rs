//! Parse, Bind, Describe, Execute and Close: forwarded, with what concerns a candidate statement probed on
//! the way. Every statement and portal exists in PostgreSQL as well: it describes them, and the portal is
//! what falling back executes. ✗ what the lake does.

use super::bracket::{Outcome, Probed};
use super::decide::Decision;
use super::give_up::cancelled_report;
use super::lake::{Answer, Bound, LakePortal};
use super::probe::{self, HELPER};
use super::state::{Expect, Running};
use super::{MAX_REMEMBERED, MAX_REMEMBERED_BYTES, Portal, Prepared, Session, SessionEnd};
use crate::classify::{Classified, Kind};
use crate::query::record::Record;
use crate::wire::frame;
use crate::wire::message::{self, Bind, ErrorReport, Execute, Fields, Parse, Target};
use bytes::Bytes;
use std::sync::Arc;

impl Session {
    /// Serves one Parse frame.
    pub(super) async fn parse(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Parse::read(frame::body(&f)).map_err(|_| SessionEnd::Malformed)?;
        let name = f.slice_ref(msg.name);
        // PostgreSQL refuses to parse over a named statement; the unnamed one is replaced.
        if name.is_empty() {
            self.forget_statement(&name);
        }
        if is_reserved(&name) {
            return self.refuse_name(&name).await;
        }
        let Ok(sql) = std::str::from_utf8(msg.sql) else {
            self.link.upstream.output.extend_from_slice(&f);
            self.state.sent(Expect::Parse(None));
            return Ok(());
        };
        self.look_again().await;
        let clock = std::time::Instant::now();
        let (statement, _) = self.classify(sql);
        let mut prepared = Prepared {
            statement: statement.clone(),
            probed: None,
            reasons: "".into(),
            lines: Vec::new(),
            classify_us: clock.elapsed().as_micros() as i64,
            probe_us: 0,
            added: None,
            unsure: false,
            analyzed_in: Some(self.turn),
            uses: None,
        };
        if let Kind::Copy(head) = &statement.kind
            && self.state.status() != super::TxStatus::Failed
        {
            return self.copy_parse(&f, sql, head.clone(), prepared).await;
        }
        if let Err(reason) = self.wants_probe(&statement) {
            prepared.reasons = reason.into();
            self.forward_parse(&f, &prepared);
            self.note_effects(&prepared.statement);
            self.remember(name, prepared);
            return Ok(());
        }
        // The transaction may have failed meanwhile: PostgreSQL says so itself.
        if !self.settle().await? || self.state.status() == super::TxStatus::Failed {
            self.pass(&f);
            return Ok(());
        }
        self.begin_work();
        let parsed = self.parse_candidate(&f, &msg, name, prepared).await;
        self.end_work();
        parsed
    }

    /// Serves a Parse that is worth a probe, while PostgreSQL owes nothing.
    async fn parse_candidate(
        &mut self,
        f: &Bytes,
        msg: &Parse<'_>,
        name: Bytes,
        mut prepared: Prepared,
    ) -> Result<(), SessionEnd> {
        let statement = prepared.statement.clone();
        let too_much = self.hears_too_much().await?;
        let clock = std::time::Instant::now();
        let mut record = self.record("extended", &statement);
        match too_much {
            Outcome::Done(false) => {}
            Outcome::Done(true) => {
                record.discard();
                prepared.reasons = "client_min_messages is below NOTICE".into();
                self.forward_parse(f, &prepared);
                self.remember(name, prepared);
                return Ok(());
            }
            Outcome::Failed(e) => {
                self.forward_error(&e, &mut record);
                return Ok(());
            }
        }
        if let Kind::Explain(inner) = &statement.kind {
            self.forward_parse(f, &prepared);
            if !self.settle().await? {
                record.discard();
                return Ok(());
            }
            match self.explain_lines(inner, &msg.param_types).await? {
                Outcome::Done(lines) => {
                    self.notices.clear();
                    prepared.lines = lines;
                }
                Outcome::Failed(e) => {
                    self.forward_error(&e, &mut record);
                    return Ok(());
                }
            }
            prepared.reasons = "EXPLAIN shows PostgreSQL's plan after the route".into();
            prepared.probe_us = clock.elapsed().as_micros() as i64;
            self.remember(name, prepared);
            record.discard();
            return Ok(());
        }
        let bracket = self.bracket(f, Some(&name), &name, |_| {}).await?;
        self.release_notices();
        let bracket = match bracket {
            Outcome::Done(b) => b,
            Outcome::Failed(e) => {
                self.forward_error(&e, &mut record);
                return Ok(());
            }
        };
        if self.stopped() {
            self.end_work();
            return self.fail(&cancelled_report(), &mut record).await;
        }
        prepared.probe_us = clock.elapsed().as_micros() as i64;
        prepared.uses = bracket.uses;
        match self.decide(bracket, &statement, &mut record) {
            Decision::Lake(probed) => prepared.probed = Some(probed),
            Decision::Hot(probed) => {
                prepared.probed = Some(probed);
                prepared.reasons = std::mem::take(&mut record.entry.reasons);
            }
            Decision::Postgres => prepared.reasons = std::mem::take(&mut record.entry.reasons),
            Decision::Refuse(report) => {
                // The client is told that its Parse failed: the name must be free again.
                message::put_close(&mut self.link.upstream.output, b'S', &name);
                return self.fail(&report, &mut record).await;
            }
        }
        record.discard();
        self.link.client.output.extend_from_slice(b"1\0\0\0\x04");
        self.fresh = Some(Bytes::copy_from_slice(&name));
        self.remember(name, prepared);
        Ok(())
    }

    pub(super) fn forward_parse(&mut self, f: &[u8], prepared: &Prepared) {
        self.link.upstream.output.extend_from_slice(f);
        let running = Running { added: prepared.added, ..Running::relayed(self.prepared_record(prepared)) };
        self.state.sent(Expect::Parse(Some(Box::new(running))));
    }

    /// The record of a statement that PostgreSQL answers.
    fn prepared_record(&self, prepared: &Prepared) -> Record {
        let mut record = self.record("extended", &prepared.statement);
        record.entry.classify_us = prepared.classify_us;
        record.entry.probe_us = prepared.probe_us;
        record.entry.reasons = prepared.reasons.clone();
        record
    }

    pub(super) fn remember(&mut self, name: Bytes, prepared: Prepared) {
        self.forget_statement(&name);
        let bytes = prepared.bytes();
        if self.statements.len() < MAX_REMEMBERED && self.remembered + bytes <= MAX_REMEMBERED_BYTES {
            self.remembered += bytes;
            // The key must not keep the whole frame alive.
            self.statements.insert(Bytes::copy_from_slice(&name), prepared);
        }
    }

    pub(super) fn remember_portal(&mut self, name: Bytes, portal: Portal) {
        self.portals.remove(&name);
        self.unopened |= matches!(&portal, Portal::Lake(p) if p.is_unopened());
        if self.portals.len() < MAX_REMEMBERED {
            self.portals.insert(name, portal);
        }
    }

    async fn refuse_name(&mut self, name: &[u8]) -> Result<(), SessionEnd> {
        if !self.settle().await? {
            return Ok(());
        }
        let report = ErrorReport::error("42939", format!("the name \"{}\" is reserved", String::from_utf8_lossy(name)))
            .hint("Names that begin with \"_watershed_\" belong to the gateway: use another one.");
        self.raise(&report).await
    }

    /// Serves one Bind frame.
    pub(super) async fn bind(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Bind::read(frame::body(&f)).map_err(|_| SessionEnd::Malformed)?;
        let name = Bytes::copy_from_slice(msg.portal);
        for reserved in [msg.portal, msg.statement] {
            if is_reserved(reserved) {
                return self.refuse_name(reserved).await;
            }
        }
        let prepared = self.statements.get(msg.statement).cloned();
        let probed = prepared.as_ref().and_then(|p| p.probed.clone());
        let probed = probed.filter(|p| !p.is_hot(self.floor(&p.analysis)));
        let Some((prepared, probed)) = prepared.as_ref().and_then(|p| Some((p, probed?))) else {
            return self.bind_relayed(&f, name, prepared).await;
        };
        if !self.settle().await? || self.state.status() == super::TxStatus::Failed {
            self.pass(&f);
            return Ok(());
        }
        self.begin_work();
        let record = self.prepared_record(prepared);
        let clock = std::time::Instant::now();
        let mut prepared = prepared.clone();
        let bound = self.bind_lake(&probed, &prepared.statement, &f, msg.statement, record).await;
        let stopped = self.stopped();
        self.end_work();
        let bound = bound?;
        self.release_notices();
        match bound {
            Bound::Lake(portal) if stopped => {
                let mut record = portal.into_record().unwrap_or_else(|| self.prepared_record(&prepared));
                self.fail(&cancelled_report(), &mut record).await?;
            }
            Bound::Lake(mut portal) => {
                portal.add_probe_us(clock.elapsed().as_micros() as i64);
                self.link.client.output.extend_from_slice(b"2\0\0\0\x04");
                self.remember_portal(name, Portal::Lake(portal));
            }
            Bound::Postgres(mut record) => {
                self.link.client.output.extend_from_slice(b"2\0\0\0\x04");
                prepared.reasons = std::mem::take(&mut record.entry.reasons);
                prepared.probe_us += clock.elapsed().as_micros() as i64;
                record.discard();
                self.remember_portal(name, Portal::Relayed { prepared });
            }
            // A portal that had the name before has it still, or PostgreSQL says otherwise when it is asked.
            Bound::Failed => {}
        }
        Ok(())
    }

    /// Serves a Bind of a statement that PostgreSQL answers.
    async fn bind_relayed(&mut self, f: &Bytes, name: Bytes, prepared: Option<Prepared>) -> Result<(), SessionEnd> {
        // Where the lake is giving the rows of a portal of that name, it must be sure that it is gone.
        let lakes = matches!(self.portals.get(&name), Some(Portal::Lake(_)));
        if lakes && !self.settle().await? {
            self.pass(f);
            return Ok(());
        }
        if prepared.as_ref().is_some_and(|p| p.probed.is_some())
            && let Ok(msg) = Bind::read(frame::body(f))
        {
            self.doubt_analysis(msg.statement);
        }
        self.link.upstream.output.extend_from_slice(f);
        let running =
            prepared.as_ref().map(|p| Running { added: p.added, ..Running::relayed(self.prepared_record(p)) });
        self.state.sent(Expect::Bind(running.map(Box::new)));
        if lakes && !self.settle().await? {
            return Ok(());
        }
        match prepared {
            Some(prepared) => self.remember_portal(name, Portal::Relayed { prepared }),
            None => drop(self.portals.remove(&name)),
        }
        Ok(())
    }

    /// Serves one Describe frame: PostgreSQL has the statement and the portal, whoever answers.
    pub(super) async fn describe(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Target::read(frame::body(&f)).map_err(|_| SessionEnd::Malformed)?;
        if is_reserved(msg.name) {
            return self.refuse_name(msg.name).await;
        }
        if msg.kind == b'S' && self.fresh.as_deref() != Some(msg.name) {
            self.doubt_analysis(msg.name);
        }
        if msg.kind == b'P'
            && matches!(self.portals.get(msg.name), Some(Portal::Lake(p)) if p.is_unbound())
            && self.settle().await?
            && let Some(Portal::Lake(portal)) = self.portals.get(msg.name)
        {
            let described = portal.described()?;
            match self.has_twin(msg.name).await? {
                None => self.link.client.output.extend_from_slice(&described),
                Some(e) => {
                    self.link.client.output.extend_from_slice(&e);
                    self.state.failed(false);
                }
            }
            return Ok(());
        }
        self.pass(&f);
        Ok(())
    }

    /// A portal gives the rows of the moment at which it was bound. Where something else may come between its Bind and its Execute
    /// (a statement, or time: an answer that the client waits for), its tail is read before that. `but` is the one to be executed.
    pub(super) async fn open_bound(&mut self, but: Option<&[u8]>) -> Result<(), SessionEnd> {
        let is_meant = |name: &Bytes, portal: &Portal| {
            matches!(portal, Portal::Lake(p) if p.is_unopened() && !p.is_doubtful()) && but != Some(&name[..])
        };
        let names: Vec<Bytes> = self.portals.iter().filter(|(n, p)| is_meant(n, p)).map(|(n, _)| n.clone()).collect();
        self.unopened = false;
        for name in names {
            if !self.settle().await? || self.state.status() == super::TxStatus::Failed {
                return Ok(());
            }
            // Settling may have ended the transaction, and the portal with it.
            if let Some(Portal::Lake(portal)) = self.portals.remove(&name) {
                self.begin_work();
                let opened = self.open_portal(name, portal).await;
                self.end_work();
                opened?;
            }
        }
        Ok(())
    }

    /// Serves one Execute frame.
    pub(super) async fn execute(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Execute::read(frame::body(&f)).map_err(|_| SessionEnd::Malformed)?;
        if is_reserved(msg.portal) {
            return self.refuse_name(msg.portal).await;
        }
        let name = Bytes::copy_from_slice(msg.portal);
        if self.unopened {
            self.open_bound(Some(&name)).await?;
        }
        if matches!(self.portals.get(&name), Some(Portal::Lake(_))) {
            if !self.settle().await? {
                self.pass(&f);
                return Ok(());
            }
            // Settling may have ended the transaction, and the portal with it.
            if let Some(Portal::Lake(portal)) = self.portals.remove(&name) {
                self.begin_work();
                let executed = self.execute_lake(&f, name, portal, msg.max_rows).await;
                self.end_work();
                return executed;
            }
        }
        let running = match self.portals.get_mut(&name) {
            Some(Portal::Relayed { prepared }) => {
                // Once: what follows a suspension has no beginning.
                let lines = std::mem::take(&mut prepared.lines);
                let prepared = prepared.clone();
                if self.reads_a_lakes_portal(&prepared.statement) {
                    if self.settle().await? {
                        return self.refuse_fetch().await;
                    }
                    self.pass(&f);
                    return Ok(());
                }
                self.note_effects(&prepared.statement);
                let record = self.prepared_record(&prepared);
                Some(Box::new(Running { lines, added: prepared.added, ..Running::relayed(record) }))
            }
            _ => None,
        };
        self.began = None;
        self.link.upstream.output.extend_from_slice(&f);
        self.state.sent(Expect::Execute(running));
        Ok(())
    }

    /// Executes a portal of the lake, while PostgreSQL owes nothing.
    async fn execute_lake(
        &mut self,
        f: &Bytes,
        name: Bytes,
        mut portal: Box<LakePortal>,
        max_rows: i32,
    ) -> Result<(), SessionEnd> {
        if portal.is_doubtful() && !self.is_twin(&portal).await? {
            // SQL gave the name to another cursor.
            if let Some(record) = portal.into_record() {
                record.discard();
            }
            self.pass(f);
            return Ok(());
        }
        // It may have ended with its transaction, with a savepoint or by SQL: its twin knows, and its error is the client's.
        if let Some(e) = self.has_twin(&name).await? {
            let fields = Fields::head(frame::body(&e));
            if fields.text(b'C') == "34000" {
                if let Some(mut record) = portal.into_record() {
                    record.failed(fields.text(b'C'), fields.text(b'M'));
                }
            } else {
                // The block is aborted; what was opened before a savepoint outlives that.
                self.remember_portal(name, Portal::Lake(portal));
            }
            self.link.client.output.extend_from_slice(&e);
            self.state.failed(false);
            return Ok(());
        }
        match self.answer(&mut portal, max_rows, None).await? {
            Answer::Complete => {
                if portal.is_done() {
                    self.began = None;
                }
                self.remember_portal(name, Portal::Lake(portal));
            }
            Answer::Failed => {}
            Answer::FallBack(mut record) => {
                if let Some(bind) = portal.take_late_bind()
                    && let Some(e) = self.bind_late(&name, &bind).await?
                {
                    self.forward_error(&e, &mut record);
                    return Ok(());
                }
                self.link.upstream.output.extend_from_slice(f);
                let running = Running::relayed(*record);
                self.state.sent(Expect::Execute(Some(Box::new(running))));
            }
        }
        Ok(())
    }

    /// Minds what a statement of PostgreSQL's does with cursors. True if it would read on in a portal whose rows the lake is giving.
    pub(super) fn reads_a_lakes_portal(&mut self, statement: &Classified) -> bool {
        if !statement.cursors || self.portals.is_empty() {
            return false;
        }
        let named = |name: &Bytes| statement.words.iter().any(|w| w.as_bytes() == &name[..]);
        let mut refused = false;
        self.portals.retain(|name, portal| {
            let Portal::Lake(portal) = portal else { return true };
            if !named(name) {
                return true;
            }
            portal.doubt();
            if !statement.fetches {
                return true;
            }
            // Nothing was read yet: it is PostgreSQL's from here on, which has it bound.
            let untouched = portal.is_untouched() && !portal.is_unbound();
            refused |= !untouched;
            !untouched
        });
        refused
    }

    /// Answers a statement that [`Session::reads_a_lakes_portal`], while PostgreSQL owes nothing.
    pub(super) async fn refuse_fetch(&mut self) -> Result<(), SessionEnd> {
        let report = ErrorReport::error("0A000", "this portal is answered by the lake: FETCH and MOVE through SQL cannot read it")
            .hint("Execute it in portions, DECLARE a cursor in SQL, or SET watershed.route = 'postgres'.");
        self.raise(&report).await
    }

    /// Serves one Close frame.
    pub(super) async fn close(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Target::read(frame::body(&f)).map_err(|_| SessionEnd::Malformed)?;
        if is_reserved(msg.name) {
            return self.refuse_name(msg.name).await;
        }
        match msg.kind {
            b'S' => drop(self.forget_statement(msg.name)),
            b'P' => {
                // It may be skipped, and the portal go on.
                let lakes = matches!(self.portals.get(msg.name), Some(Portal::Lake(_)));
                if !lakes || self.settle().await? {
                    self.portals.remove(msg.name);
                }
            }
            _ => {}
        }
        self.pass(&f);
        Ok(())
    }

    /// Route and reasons of an EXPLAINed statement, as lines to stand before PostgreSQL's plan.
    pub(super) async fn explain_lines(
        &mut self,
        inner: &str,
        param_types: &[u32],
    ) -> Result<Outcome<Vec<String>>, SessionEnd> {
        message::put_close(&mut self.link.upstream.output, b'S', probe::EXPLAINED);
        let mut parse = bytes::BytesMut::new();
        message::put_parse(&mut parse, probe::EXPLAINED, inner.as_bytes(), param_types);
        let bracket = match self.bracket(&parse, Some(probe::EXPLAINED), b"", |_| {}).await? {
            Outcome::Done(b) => b,
            Outcome::Failed(e) => return Ok(Outcome::Failed(e)),
        };
        let (statement, _) = self.classify(inner);
        let mut record = self.record("explain", &statement);
        let decision = self.decide(bracket, &statement, &mut record);
        let reasons = std::mem::take(&mut record.entry.reasons);
        record.discard();
        let route = match decision {
            Decision::Lake(p) => p.path_name(),
            Decision::Postgres | Decision::Hot(_) => "postgres",
            Decision::Refuse(report) => {
                return Ok(Outcome::Done(vec![format!("Watershed: refused ({})", report.message)]));
            }
        };
        let mut lines = vec![format!("Watershed route: {route}")];
        lines.extend(reasons.split("; ").filter(|r| !r.is_empty()).map(|r| format!("  because: {r}")));
        Ok(Outcome::Done(lines))
    }
}

impl Probed {
    /// As the virtual tables and EXPLAIN name the route.
    pub fn path_name(self: &Arc<Self>) -> &'static str {
        self.path().name()
    }
}

fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(&HELPER[..11])
}

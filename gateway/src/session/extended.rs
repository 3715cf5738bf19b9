//! Parse, Bind, Describe, Execute and Close: forwarded, with what concerns a candidate statement probed on
//! the way. Every statement and portal exists in PostgreSQL as well: it describes them, and the portal is
//! what falling back executes. ✗ what the lake does.

use super::bracket::{Outcome, Probed};
use super::lake::{Answer, Bound, Decision};
use super::probe::{self, HELPER};
use super::state::{Expect, Running};
use super::{MAX_REMEMBERED, Portal, Prepared, Session, SessionEnd};
use crate::classify::Kind;
use crate::query::record::Record;
use crate::wire::frame;
use crate::wire::message::{self, Bind, ErrorReport, Execute, Parse, Target};
use bytes::Bytes;
use std::sync::Arc;

impl Session {
    /// Serves one Parse frame.
    pub(super) async fn parse(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Parse::read(frame::body(&f))?;
        let name = f.slice_ref(msg.name);
        // PostgreSQL refuses to parse over a named statement; the unnamed one is replaced.
        if name.is_empty() {
            self.statements.remove(&name);
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
            reasons: String::new(),
            lines: Vec::new(),
            classify_us: clock.elapsed().as_micros() as i64,
            probe_us: 0,
            added: None,
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
        if !self.settle().await? {
            self.link.upstream.output.extend_from_slice(&f);
            return Ok(());
        }
        if self.hears_too_much().await? {
            prepared.reasons = "client_min_messages is below NOTICE".into();
            self.forward_parse(&f, &prepared);
            self.remember(name, prepared);
            return Ok(());
        }
        let clock = std::time::Instant::now();
        let mut record = self.record("extended", &statement);
        if let Kind::Explain(inner) = &statement.kind {
            self.forward_parse(&f, &prepared);
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
        let bracket = self.bracket(&f, Some(&name), &name, |_| {}).await?;
        self.release_notices();
        let bracket = match bracket {
            Outcome::Done(b) => b,
            Outcome::Failed(e) => {
                self.forward_error(&e, &mut record);
                return Ok(());
            }
        };
        prepared.probe_us = clock.elapsed().as_micros() as i64;
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
        if self.statements.len() < MAX_REMEMBERED || self.statements.contains_key(&name) {
            // The key must not keep the whole frame alive.
            self.statements.insert(Bytes::copy_from_slice(&name), prepared);
        } else {
            self.statements.remove(&name);
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
        let msg = Bind::read(frame::body(&f))?;
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
            self.link.upstream.output.extend_from_slice(&f);
            let running = prepared
                .as_ref()
                .map(|p| Running { added: p.added, ..Running::relayed(self.prepared_record(p)) });
            self.state.sent(Expect::Bind(running.map(Box::new)));
            self.portals.remove(&name);
            if let Some(prepared) = prepared
                && self.portals.len() < MAX_REMEMBERED
            {
                self.portals.insert(name, Portal::Relayed { prepared });
            }
            return Ok(());
        };
        if !self.settle().await? || self.state.status() == super::TxStatus::Failed {
            self.link.upstream.output.extend_from_slice(&f);
            self.state.sent(Expect::Bind(None));
            return Ok(());
        }
        let record = self.prepared_record(prepared);
        let clock = std::time::Instant::now();
        let mut prepared = prepared.clone();
        self.portals.remove(&name);
        let bound = self.bind_lake(&probed, &prepared.statement, &f, msg.statement, record).await?;
        self.release_notices();
        match bound {
            Bound::Lake(mut portal) => {
                portal.add_probe_us(clock.elapsed().as_micros() as i64);
                self.link.client.output.extend_from_slice(b"2\0\0\0\x04");
                if self.portals.len() < MAX_REMEMBERED {
                    self.portals.insert(name, Portal::Lake(portal));
                }
            }
            Bound::Postgres(mut record) => {
                self.link.client.output.extend_from_slice(b"2\0\0\0\x04");
                prepared.reasons = std::mem::take(&mut record.entry.reasons);
                prepared.probe_us += clock.elapsed().as_micros() as i64;
                record.discard();
                if self.portals.len() < MAX_REMEMBERED {
                    self.portals.insert(name, Portal::Relayed { prepared });
                }
            }
            Bound::Failed => {}
        }
        Ok(())
    }

    /// Serves one Describe frame: PostgreSQL has the statement and the portal, whoever answers.
    pub(super) async fn describe(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Target::read(frame::body(&f))?;
        if is_reserved(msg.name) {
            return self.refuse_name(msg.name).await;
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
                    self.state.failed();
                }
            }
            return Ok(());
        }
        self.link.upstream.output.extend_from_slice(&f);
        self.state.sent(Expect::Describe);
        Ok(())
    }

    /// Serves one Execute frame.
    pub(super) async fn execute(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Execute::read(frame::body(&f))?;
        if is_reserved(msg.portal) {
            return self.refuse_name(msg.portal).await;
        }
        let name = Bytes::copy_from_slice(msg.portal);
        if matches!(self.portals.get(&name), Some(Portal::Lake(_))) {
            if !self.settle().await? {
                self.link.upstream.output.extend_from_slice(&f);
                return Ok(());
            }
            // Settling may have ended the transaction, and the portal with it.
            if let Some(Portal::Lake(mut portal)) = self.portals.remove(&name) {
                match self.answer(&mut portal, msg.max_rows, None).await? {
                    Answer::Complete => {
                        self.portals.insert(name, Portal::Lake(portal));
                    }
                    Answer::Failed => {}
                    Answer::FallBack(mut record) => {
                        if let Some(bind) = portal.take_late_bind()
                            && let Some(e) = self.bind_late(&name, &bind).await?
                        {
                            self.forward_error(&e, &mut record);
                            return Ok(());
                        }
                        self.link.upstream.output.extend_from_slice(&f);
                        let running = Running::relayed(*record);
                        self.state.sent(Expect::Execute(Some(Box::new(running))));
                    }
                }
                return Ok(());
            }
        }
        let running = match self.portals.get(&name) {
            Some(Portal::Relayed { prepared }) => {
                let prepared = prepared.clone();
                self.note_effects(&prepared.statement);
                let record = self.prepared_record(&prepared);
                let (lines, added) = (prepared.lines, prepared.added);
                Some(Box::new(Running { lines, added, ..Running::relayed(record) }))
            }
            _ => None,
        };
        self.link.upstream.output.extend_from_slice(&f);
        self.state.sent(Expect::Execute(running));
        Ok(())
    }

    /// Serves one Close frame.
    pub(super) async fn close(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let msg = Target::read(frame::body(&f))?;
        if is_reserved(msg.name) {
            return self.refuse_name(msg.name).await;
        }
        match msg.kind {
            b'S' => drop(self.statements.remove(msg.name)),
            _ => drop(self.portals.remove(msg.name)),
        }
        self.link.upstream.output.extend_from_slice(&f);
        self.state.sent(Expect::Close);
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

//! A simple Query: relayed whole, or probed and answered by the lake with PostgreSQL's own framing.
//! ✗ what the lake does.

use super::bracket::Outcome;
use super::decide::Decision;
use super::give_up::cancelled_report;
use super::lake::{Answer, Bound};
use super::probe::SIMPLE;
use super::state::{Expect, Running, TxStatus};
use super::copy::COPY_REASON;
use super::{Session, SessionEnd};
use crate::classify::{Classified, Kind, Override};
use crate::query::record::Record;
use crate::wire::frame;
use crate::wire::message;
use bytes::Bytes;
use std::sync::Arc;

impl Session {
    /// Serves one Query frame.
    pub(super) async fn query(&mut self, f: Bytes) -> Result<(), SessionEnd> {
        let text = message::query_text(frame::body(&f)).map_err(|_| SessionEnd::Malformed)?;
        // What ends a portal whose rows the lake is giving must be known for sure.
        if self.unnamed_is_lakes() && !self.settle().await? {
            self.pass(&f);
            return Ok(());
        }
        let Ok(sql) = std::str::from_utf8(text) else {
            self.forget_unnamed();
            self.relay_query(&f, None);
            return Ok(());
        };
        self.look_again().await;
        let clock = std::time::Instant::now();
        let (statement, _) = self.classify(sql);
        let mut record = self.record("simple", &statement);
        record.entry.classify_us = clock.elapsed().as_micros() as i64;
        self.note_effects(&statement);
        if let Kind::Copy(head) = &statement.kind
            && self.state.status() != TxStatus::Failed
        {
            return self.copy_query(&f, sql, head.clone(), record).await;
        }
        let probed = match self.wants_probe(&statement) {
            Ok(()) => true,
            Err(reason) => {
                record.entry.reasons = reason.into();
                false
            }
        };
        if self.reads_a_lakes_portal(&statement) {
            if !self.settle().await? {
                record.discard();
                self.pass(&f);
                return Ok(());
            }
            self.refuse_fetch().await?;
            return self.finish_query().await;
        }
        if !probed {
            self.forget_unnamed();
            self.relay_query(&f, Some(Box::new(Running::relayed(record))));
            return Ok(());
        }
        let reads_on = self.settle().await?;
        // The transaction may have failed meanwhile: PostgreSQL says so itself.
        if !reads_on || self.state.status() == TxStatus::Failed {
            if reads_on {
                self.forget_unnamed();
            }
            self.relay_query(&f, Some(Box::new(Running::relayed(record))));
            return Ok(());
        }
        self.began = None;
        self.begin_work();
        let answered = self.probed_query(&f, sql, &statement, record).await;
        self.end_work();
        self.began = None;
        answered
    }

    /// Serves a Query that is worth a probe, while PostgreSQL owes nothing.
    async fn probed_query(
        &mut self,
        f: &Bytes,
        sql: &str,
        statement: &Arc<Classified>,
        mut record: Record,
    ) -> Result<(), SessionEnd> {
        let too_much = self.hears_too_much().await?;
        self.forget_unnamed();
        match too_much {
            Outcome::Done(false) => {}
            Outcome::Done(true) => {
                record.entry.reasons = "client_min_messages is below NOTICE".into();
                self.sync().await?;
                self.relay_query(f, Some(Box::new(Running::relayed(record))));
                return Ok(());
            }
            Outcome::Failed(e) => {
                self.forward_error(&e, &mut record);
                return self.finish_query().await;
            }
        }
        if let Kind::Explain(inner) = &statement.kind {
            return self.explain_query(f, inner.clone(), record).await;
        }
        self.candidate(f, sql, statement, record).await
    }

    /// The client's CancelRequest found nobody at work on it, but for the gateway.
    async fn stop_query(&mut self, mut record: Record) -> Result<(), SessionEnd> {
        self.end_work();
        self.release_notices();
        self.fail(&cancelled_report(), &mut record).await?;
        self.finish_query().await
    }

    /// Whether the statement is worth a probe in the session's present state, or why not.
    pub(super) fn wants_probe(&self, statement: &Classified) -> Result<(), &'static str> {
        if self.state.status() == TxStatus::Failed {
            return Err("the transaction is aborted");
        }
        if statement.hint == Some(Override::Postgres) {
            return Err("the comment asks for PostgreSQL");
        }
        match &statement.kind {
            Kind::Relay(reason) => Err(reason),
            Kind::Keyed(reason) => {
                let named = self.route_named || statement.hint.is_some();
                if named || self.shared.catalog.current().has_floor { Ok(()) } else { Err(reason) }
            }
            Kind::Copy(_) => Err(COPY_REASON),
            Kind::Candidate | Kind::Explain(_) => Ok(()),
        }
    }

    pub(super) fn relay_query(&mut self, f: &[u8], running: Option<Box<Running>>) {
        self.link.upstream.output.extend_from_slice(f);
        self.state.sent(Expect::Query(running));
    }

    /// Ends the probe's implicit transaction (an explicit one stays open) and lets PostgreSQL have the whole
    /// Query.
    async fn give_up(&mut self, f: &[u8], record: Record, lines: Vec<String>) -> Result<(), SessionEnd> {
        message::put_close(&mut self.link.upstream.output, b'P', SIMPLE);
        self.sync().await?;
        self.relay_query(f, Some(Box::new(Running { lines, ..Running::relayed(record) })));
        Ok(())
    }

    /// After the client's answer is complete: Sync, and its ReadyForQuery to the client.
    pub(super) async fn finish_query(&mut self) -> Result<(), SessionEnd> {
        message::put_close(&mut self.link.upstream.output, b'P', SIMPLE);
        let ready = self.sync().await?;
        self.link.client.output.extend_from_slice(&ready);
        Ok(())
    }

    async fn candidate(
        &mut self,
        f: &[u8],
        sql: &str,
        statement: &Arc<Classified>,
        mut record: Record,
    ) -> Result<(), SessionEnd> {
        let clock = std::time::Instant::now();
        let out = &mut self.link.upstream.output;
        for (kind, name) in [(b'P', SIMPLE), (b'S', SIMPLE), (b'P', b"".as_slice()), (b'S', b"".as_slice())] {
            message::put_close(out, kind, name);
        }
        let mut parse = bytes::BytesMut::new();
        message::put_parse(&mut parse, SIMPLE, sql.as_bytes(), &[]);
        let bracket = match self.bracket(&parse, Some(SIMPLE), b"", |_| {}).await? {
            Outcome::Done(b) => b,
            Outcome::Failed(e) => {
                record.entry.probe_us = clock.elapsed().as_micros() as i64;
                self.release_notices();
                self.forward_error(&e, &mut record);
                return self.finish_query().await;
            }
        };
        record.entry.probe_us = clock.elapsed().as_micros() as i64;
        if !bracket.param_types.is_empty() {
            // A simple Query has no parameters: PostgreSQL's own message says so.
            record.entry.reasons = "the text names parameters".into();
            self.notices.clear();
            return self.give_up(f, record, Vec::new()).await;
        }
        if bracket.row_description.is_none() {
            record.entry.reasons = "returns no rows".into();
            self.notices.clear();
            return self.give_up(f, record, Vec::new()).await;
        };
        let decided = self.decide(bracket, statement, &mut record);
        if self.stopped() {
            return self.stop_query(record).await;
        }
        let probed = match decided {
            Decision::Lake(probed) => probed,
            Decision::Postgres | Decision::Hot(_) => return self.execute_parsed(record).await,
            Decision::Refuse(report) => {
                self.release_notices();
                self.fail(&report, &mut record).await?;
                return self.finish_query().await;
            }
        };
        let clock = std::time::Instant::now();
        let mut bind = bytes::BytesMut::new();
        message::put_bind(&mut bind, SIMPLE, SIMPLE, &[], &[], &[]);
        let bound = self.bind_lake(&probed, statement, &bind, SIMPLE, record).await?;
        let mut portal = match bound {
            Bound::Lake(portal) => portal,
            Bound::Postgres(record) if self.stopped() => return self.stop_query(record).await,
            Bound::Postgres(record) => {
                self.release_notices();
                self.execute_bound(record);
                return Ok(());
            }
            Bound::Failed => return self.finish_query().await,
        };
        self.release_notices();
        portal.add_probe_us(clock.elapsed().as_micros() as i64);
        let described = portal.row_description();
        match self.answer(&mut portal, 0, Some(&described)).await? {
            Answer::Complete | Answer::Failed => match self.replay.take() {
                Some(replay) => self.finish_replayed(replay).await,
                None => self.finish_query().await,
            },
            Answer::FallBack(record) if portal.is_unbound() => self.execute_parsed(*record).await,
            Answer::FallBack(record) => {
                self.execute_bound(*record);
                Ok(())
            }
        }
    }

    /// PostgreSQL answers a Query that it has parsed under the reserved name. (Sending the text again would have
    /// it analyzed twice, and user code can run during analysis.)
    async fn execute_parsed(&mut self, mut record: Record) -> Result<(), SessionEnd> {
        self.release_notices();
        let out = &mut self.link.upstream.output;
        message::put_bind(out, SIMPLE, SIMPLE, &[], &[], &[]);
        message::put_flush(out);
        loop {
            let f = self.next_frame().await?;
            match f[0] {
                b'2' => break,
                b'N' => self.link.client.output.extend_from_slice(&f),
                b'E' => {
                    self.forward_error(&f, &mut record);
                    return self.finish_query().await;
                }
                _ => {}
            }
        }
        self.execute_bound(record);
        Ok(())
    }

    /// Has PostgreSQL execute the portal that is bound under the reserved name, framed as a Query's answer. The columns are the portal's:
    /// the plan may know a type more narrowly than the statement (of UNION ALL with one branch that can have rows).
    fn execute_bound(&mut self, record: Record) {
        let out = &mut self.link.upstream.output;
        message::put_describe(out, b'P', SIMPLE);
        message::put_execute(out, SIMPLE, 0);
        message::put_close(out, b'P', SIMPLE);
        message::put_sync(out);
        self.state.sent(Expect::Describe);
        self.state.sent(Expect::Execute(Some(Box::new(Running::relayed(record)))));
        self.state.sent(Expect::OwnClose);
        self.state.sent(Expect::Sync);
    }

    async fn explain_query(&mut self, f: &[u8], inner: Arc<str>, mut record: Record) -> Result<(), SessionEnd> {
        let clock = std::time::Instant::now();
        // PostgreSQL reads the whole EXPLAIN first: its errors, with their positions, are the client's.
        let text = message::query_text(frame::body(f))?;
        let out = &mut self.link.upstream.output;
        message::put_close(out, b'S', SIMPLE);
        message::put_parse(out, SIMPLE, text, &[]);
        message::put_flush(out);
        loop {
            let reply = self.next_frame().await?;
            match reply[0] {
                b'1' => break,
                b'E' => {
                    self.forward_error(&reply, &mut record);
                    return self.finish_query().await;
                }
                b'N' => self.link.client.output.extend_from_slice(&reply),
                _ => {}
            }
        }
        let lines = match self.explain_lines(&inner, &[]).await? {
            Outcome::Done(lines) => lines,
            Outcome::Failed(e) => {
                self.forward_error(&e, &mut record);
                return self.finish_query().await;
            }
        };
        record.entry.probe_us = clock.elapsed().as_micros() as i64;
        record.entry.reasons = "EXPLAIN shows PostgreSQL's plan after the route".into();
        self.notices.clear();
        self.give_up(f, record, lines).await
    }
}

//! Frames from PostgreSQL to the client: counted, sometimes read, never changed.
//! ✗ statements under probe.

use super::state::{Added, Running, TxStatus};
use super::{Session, SessionEnd};
use crate::wire::frame::{self, Header};
use crate::wire::message::{self, Fields};
use bytes::{Buf, BytesMut};

/// What is read of a message that is only looked at; the rest streams through.
const LOOKED_AT: usize = 64 * 1024;

impl Session {
    /// Relays what has arrived.
    pub(super) fn relay_upstream(&mut self) -> Result<(), SessionEnd> {
        loop {
            if self.upstream_remaining > 0 {
                let n = self.upstream_remaining.min(self.link.upstream.input.len());
                self.pass_up_to(n);
                if self.upstream_remaining > 0 {
                    return Ok(());
                }
            }
            let Some(h) = frame::peek(&self.link.upstream.input)? else { return Ok(()) };
            // Rows, COPY data and other long things stream through; what counts must be there, of errors their head.
            let needed = match h.tag {
                b'D' if h.len <= LOOKED_AT && self.is_compared() => h.len,
                b'D' | b'd' | b'T' | b'V' | b'A' | b'S' => 5,
                b'E' | b'N' => h.len.min(LOOKED_AT),
                _ => h.len,
            };
            if self.link.upstream.input.len() < needed {
                return Ok(());
            }
            if self.state.take_own(h.tag) {
                self.link.upstream.input.advance(h.len);
                continue;
            }
            match h.tag {
                b'D' => self.row(h.len, needed),
                b'E' => {
                    if let Some(other) = self.error(h, needed) {
                        self.link.upstream.input.advance(h.len);
                        self.link.client.output.extend_from_slice(&other);
                        continue;
                    }
                }
                b'Z' => {
                    let status = self.link.upstream.input.get(5).copied().unwrap_or(b'I');
                    drop(self.state.ready(status));
                    self.after_ready();
                }
                b'N' if self.swallow_trees && self.is_tree(needed) => self.discarding = true,
                tag => {
                    let ended = self.state.received(tag);
                    if let (Some(mut running), b'C') = (ended, tag) {
                        running.record.complete();
                    }
                }
            }
            self.upstream_remaining = h.len;
        }
    }

    /// Moves `n` bytes of the frame that is being relayed.
    pub(super) fn pass_up_to(&mut self, n: usize) {
        if self.discarding {
            self.link.upstream.input.advance(n);
        } else {
            self.link.to_client(n);
        }
        self.upstream_remaining -= n;
        if self.upstream_remaining == 0 {
            self.discarding = false;
        }
    }

    /// An ErrorResponse, of which `there` bytes have come. Returns what the client gets in its place, if it is not that.
    fn error(&mut self, h: Header, there: usize) -> Option<BytesMut> {
        let f = self.link.upstream.input[..there].to_vec();
        let fields = Fields::head(frame::body(&f));
        self.farewell_said |= matches!(fields.text(b'V'), "FATAL" | "PANIC");
        let mut ended = self.state.failed(fields.text(b'C') == "08P01");
        if there < h.len {
            if let Some(running) = &mut ended {
                running.record.failed(fields.text(b'C'), "a message too long to keep");
            }
            return None;
        }
        let reasons = ended.as_ref().map_or("", |r| &*r.record.entry.reasons);
        if let Some(report) = self.tripped(&f, reasons) {
            if let Some(running) = &mut ended {
                running.record.failed(&report.sqlstate, &report.message);
            }
            let mut out = BytesMut::new();
            message::put_error(&mut out, &report);
            return Some(out);
        }
        let own = ended.as_ref().and_then(|r| own_position(&f, r.added?));
        self.end_in_error(ended, &f);
        own
    }

    /// The rows that arrive are compared with the lake's.
    fn is_compared(&mut self) -> bool {
        self.state.running().is_some_and(|r| r.record.comparison().is_some())
    }

    /// A DataRow of `len` bytes, of which `there` have come.
    fn row(&mut self, len: usize, there: usize) {
        if let Some(running) = self.state.running() {
            match running.record.comparison() {
                Some(comparison) if there == len => comparison.row(frame::body(&self.link.upstream.input[..len])),
                Some(comparison) => comparison.unseen_row(),
                None => {}
            }
            for line in std::mem::take(&mut running.lines) {
                message::put_text_row(&mut self.link.client.output, &line);
            }
            running.record.row(len);
        }
    }

    fn end_in_error(&mut self, ended: Option<Box<Running>>, f: &[u8]) {
        if let Some(mut running) = ended
            && let Ok(fields) = Fields::read(frame::body(f))
        {
            running.record.failed(fields.text(b'C'), fields.text(b'M'));
        }
    }

    /// After ReadyForQuery: portals end with their transaction, and so do settings of a failed bracket.
    pub(super) fn after_ready(&mut self) {
        match self.state.status() {
            TxStatus::Idle => {
                self.portals.clear();
                self.swallow_trees = false;
                // What it has changed is committed: others learn of it soon, and not at the next look.
                if self.ddl_untold && self.state.settled() {
                    self.ddl_untold = false;
                    self.shared.catalog.suspect();
                }
            }
            TxStatus::Open => self.swallow_trees = false,
            TxStatus::Failed => {}
        }
    }

    fn is_tree(&self, there: usize) -> bool {
        let f = Fields::head(frame::body(&self.link.upstream.input[..there]));
        f.text(b'V') == "LOG" && f.text(b'M') == "rewritten parse tree:"
    }
}

/// The error with its position told in the client's own text; `None` if it stays as it is.
fn own_position(f: &[u8], added: Added) -> Option<BytesMut> {
    let position: usize = Fields::read(frame::body(f)).ok()?.text(b'P').parse().ok()?;
    let own = added.own(position);
    if own == position {
        return None;
    }
    message::with_field(f, b'P', |_| Some(own.to_string()))
}

//! Frames from PostgreSQL to the client: counted, sometimes read, never changed.
//! ✗ statements under probe.

use super::state::{Added, Running, TxStatus};
use super::{Session, SessionEnd};
use crate::wire::frame;
use crate::wire::message::{self, Fields};
use bytes::{BufMut, BytesMut};

impl Session {
    /// Relays what has arrived.
    pub(super) fn relay_upstream(&mut self) -> Result<(), SessionEnd> {
        loop {
            if self.upstream_remaining > 0 {
                let n = self.upstream_remaining.min(self.link.upstream.input.len());
                let part = self.link.upstream.input.split_to(n);
                self.link.client.output.extend_from_slice(&part);
                self.upstream_remaining -= n;
                if self.upstream_remaining > 0 {
                    return Ok(());
                }
            }
            let Some(h) = frame::peek(&self.link.upstream.input)? else { return Ok(()) };
            // Rows and COPY data stream through; what is read must be whole.
            let streamed = matches!(h.tag, b'D' | b'd' | b'T' | b'V');
            if !streamed && self.link.upstream.input.len() < h.len {
                return Ok(());
            }
            if self.state.take_own(h.tag) {
                let _ = self.link.upstream.input.split_to(h.len);
                continue;
            }
            if let Some(prefix) = self.state.running().and_then(|r| r.prefix.take()) {
                self.link.client.output.extend_from_slice(&prefix);
            }
            match h.tag {
                b'D' => self.row(h.len),
                b'E' => {
                    let f = self.link.upstream.input[..h.len].to_vec();
                    let mut ended = self.state.failed();
                    let reasons = ended.as_ref().map_or("", |r| r.record.entry.reasons.as_str());
                    if let Some(report) = self.tripped(&f, reasons) {
                        if let Some(running) = &mut ended {
                            running.record.failed(&report.sqlstate, &report.message);
                        }
                        let _ = self.link.upstream.input.split_to(h.len);
                        message::put_error(&mut self.link.client.output, &report);
                        continue;
                    }
                    let own = ended.as_ref().and_then(|r| own_position(&f, r.added?));
                    self.end_in_error(ended, &f);
                    if let Some(own) = own {
                        let _ = self.link.upstream.input.split_to(h.len);
                        self.link.client.output.extend_from_slice(&own);
                        continue;
                    }
                }
                b'Z' => {
                    let status = self.link.upstream.input.get(5).copied().unwrap_or(b'I');
                    drop(self.state.ready(status));
                    self.after_ready();
                }
                b'N' if self.swallow_trees && self.is_tree(h.len) => {
                    let _ = self.link.upstream.input.split_to(h.len);
                    continue;
                }
                tag => drop(self.state.received(tag)),
            }
            let n = h.len.min(self.link.upstream.input.len());
            let part = self.link.upstream.input.split_to(n);
            self.link.client.output.extend_from_slice(&part);
            self.upstream_remaining = h.len - n;
        }
    }

    fn row(&mut self, len: usize) {
        if let Some(running) = self.state.running() {
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
            }
            TxStatus::Open => self.swallow_trees = false,
            TxStatus::Failed => {}
        }
    }

    fn is_tree(&self, len: usize) -> bool {
        Fields::read(frame::body(&self.link.upstream.input[..len]))
            .is_ok_and(|f| f.text(b'V') == "LOG" && f.text(b'M') == "rewritten parse tree:")
    }
}

/// The error with its position told in the client's own text; `None` if it stays as it is.
fn own_position(f: &[u8], added: Added) -> Option<BytesMut> {
    let position: usize = Fields::read(frame::body(f)).ok()?.text(b'P').parse().ok()?;
    let own = added.own(position);
    if own == position {
        return None;
    }
    let mut body = frame::body(f);
    let mut out = BytesMut::with_capacity(f.len());
    message::frame(&mut out, f[0], |out| {
        // A field is a code and a text that ends with a zero; a zero alone ends them all.
        while let [code, rest @ ..] = body {
            out.put_u8(*code);
            if *code == 0 {
                break;
            }
            let end = memchr::memchr(0, rest).map_or(rest.len(), |n| n + 1);
            if *code == b'P' {
                out.put_slice(own.to_string().as_bytes());
                out.put_u8(0);
            } else {
                out.put_slice(&rest[..end]);
            }
            body = &rest[end..];
        }
    });
    Some(out)
}

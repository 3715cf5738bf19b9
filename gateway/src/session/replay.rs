//! Some of the lake's answers are computed by PostgreSQL as well, from the portal that is bound there, once the client has its own: while it
//! thinks, and no longer than that. Only of a statement that is alone in its transaction, which has written nothing: how that ends is the same
//! to everybody. ✗ what is compared, what becomes of a difference.

use super::bracket::{Outcome, unexpected};
use super::probe::{self, SIMPLE};
use super::state::TxStatus;
use super::{Session, SessionEnd};
use crate::classify::Classified;
use crate::compare::log::Comparison;
use crate::compare::{Order, Side};
use crate::wire::frame;
use crate::wire::message::{self, ErrorReport};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How long PostgreSQL may take.
const LONGEST: Duration = Duration::from_secs(30);
/// Rows longer than this, in bytes, are not compared.
const LONGEST_ROW: usize = 1024 * 1024;
/// At once, in all sessions together.
pub const AT_ONCE: usize = 2;

const WROTE_NOTHING: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NULL";

/// ReadyForQuery, outside of a transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// An answer of the lake's that PostgreSQL is to give too.
pub(super) struct Replay {
    pub portal: Bytes,
    pub statement: Arc<Classified>,
    pub order: Order,
    pub lake: Side,
    pub lake_us: i64,
}

/// The part of the lake's answers that are replayed, as `watershed.compare_sample` says it.
pub(super) fn sample(setting: &str) -> Result<f64, ErrorReport> {
    match setting.trim() {
        "" => Ok(0.0),
        text => text.parse().ok().filter(|part| (0.0..=1.0).contains(part)).ok_or_else(|| {
            ErrorReport::error("22023", format!("invalid value for parameter \"watershed.compare_sample\": \"{setting}\""))
                .hint("A number from 0 to 1: the part of the lake's answers that PostgreSQL computes as well, to compare them.")
        }),
    }
}

impl Session {
    /// Ends the statement, or the pipeline, whose Sync has come: at once, or after a replay that the client does not wait for.
    pub(super) async fn finish_replayed(&mut self, replay: Replay) -> Result<(), SessionEnd> {
        let permit = self.shared.replays.clone().try_acquire_owned();
        let alone = self.state.status() == TxStatus::Idle
            && !self.state.touched()
            && self.link.client.input.is_empty()
            && replay.lake.longest <= LONGEST_ROW;
        if permit.is_err() || !alone || !self.wrote_nothing().await? {
            return self.finish_query().await;
        }
        self.link.client.output.extend_from_slice(READY);
        let stop = self.draining.child_token();
        let limit = {
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LONGEST).await;
                stop.cancel();
            })
        };
        (self.stop, self.stop_passed_on, self.replaying) = (Some(stop), false, true);
        let read = self.replay(replay).await;
        (self.stop, self.stop_passed_on, self.replaying) = (None, false, false);
        limit.abort();
        read?;
        message::put_close(&mut self.link.upstream.output, b'P', SIMPLE);
        // The client has had its own.
        self.sync().await.map(drop)
    }

    async fn wrote_nothing(&mut self) -> Result<bool, SessionEnd> {
        probe::put_helper(&mut self.link.upstream.output, WROTE_NOTHING, &[], &[], false);
        message::put_flush(&mut self.link.upstream.output);
        Ok(match self.helper_row().await? {
            Outcome::Done(row) => row.first() == Some(&Some(b"t".to_vec())),
            // What it says, Sync will say too.
            Outcome::Failed(_) => false,
        })
    }

    async fn replay(&mut self, replay: Replay) -> Result<(), SessionEnd> {
        let Replay { portal, statement, order, lake, lake_us } = replay;
        let mut comparison = Comparison::begin(&self.shared.comparisons, &self.who, &statement, Ok(lake), &order, lake_us);
        message::put_execute(&mut self.link.upstream.output, &portal, 0);
        message::put_flush(&mut self.link.upstream.output);
        loop {
            let f = self.next_frame().await?;
            match f[0] {
                b'D' => comparison.row(frame::body(&f)),
                b'C' => {
                    comparison.complete();
                    return Ok(());
                }
                b'E' => {
                    comparison.failed(message::Fields::head(frame::body(&f)).text(b'C'));
                    return Ok(());
                }
                b'N' | b'3' => {}
                other => return Err(unexpected(other)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_parts() {
        assert_eq!(sample("").ok(), Some(0.0));
        assert_eq!(sample("0.01").ok(), Some(0.01));
        assert_eq!(sample(" 1 ").ok(), Some(1.0));
        for wrong in ["2", "-0.1", "NaN", "half"] {
            assert_eq!(sample(wrong).map_err(|e| e.sqlstate.to_string()), Err("22023".to_string()), "{wrong}");
        }
    }
}

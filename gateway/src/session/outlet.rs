//! Where the lake's rows go when the client is of Arrow Flight: as they come, in batches, beside the wire, on which only the end of the
//! answer or its error travels. What comes of PostgreSQL goes over the wire as ever. ✗ what becomes of the batches.

use super::give_up::{GiveUp, cancelled, give_up_encoding, give_up_engine};
use super::lake::{Cursor, HOLD_BACK};
use super::Session;
use crate::flight::outgoing::OutgoingError;
use crate::query::record::Record;
use crate::wire::message;
use arrow::array::RecordBatch;
use std::time::Instant;
use tokio::sync::mpsc;

/// Where batches go. Who does not take them holds the statement up; who is gone ends it.
pub type Outlet = mpsc::Sender<RecordBatch>;

/// Batches that may wait.
pub const BATCHES_AHEAD: usize = 4;

impl Session {
    /// Gives the client all rows as batches. The same promises as of [`Session::give_rows`]: until a batch left, PostgreSQL may
    /// answer instead.
    pub(super) async fn give_batches(
        &mut self,
        cursor: &mut Cursor,
        record: &mut Record,
        outlet: &Outlet,
        deadline: Option<Instant>,
    ) -> Result<(), GiveUp> {
        let mut held: Vec<RecordBatch> = Vec::new();
        let (mut bytes_held, mut sent) = (0, 0);
        loop {
            let next = self.next_batch(cursor, deadline).await?;
            let batch = match next {
                Some(Ok(batch)) if batch.num_rows() == 0 => continue,
                Some(Ok(batch)) => batch,
                Some(Err(e)) => return Err(give_up_engine(cursor.sent, e)),
                None => break,
            };
            if let Some(side) = &mut cursor.watched {
                let encoded = cursor.encoder.encode_batch(&batch, 0, batch.num_rows(), &mut cursor.held);
                encoded.map_err(|e| give_up_encoding(cursor.sent, &e.to_string()))?;
                side.frames(&cursor.held);
                cursor.held.clear();
            }
            let Some(outgoing) = &cursor.outgoing else {
                return Err(GiveUp::FallBack("no types for batches".into()));
            };
            let batch = outgoing.batch(&batch).map_err(|e| match e {
                // PostgreSQL's row has the same fate.
                OutgoingError::Unfit(unfit) => GiveUp::Error(unfit.report()),
                e => give_up_encoding(cursor.sent, &e.to_string()),
            })?;
            if record.entry.first_row_us.is_none() {
                record.entry.first_row_us = Some(record.elapsed_us());
            }
            let bytes = batch.get_array_memory_size();
            record.entry.rows += batch.num_rows() as i64;
            record.entry.bytes += bytes as i64;
            sent += batch.num_rows();
            bytes_held += bytes;
            held.push(batch);
            if bytes_held > HOLD_BACK || cursor.sent {
                self.deliver(cursor, &mut held, outlet, deadline).await?;
            }
        }
        cursor.tell(&mut record.entry);
        self.deliver(cursor, &mut held, outlet, deadline).await?;
        message::put_command_complete(&mut self.link.client.output, &format!("SELECT {sent}"));
        Ok(())
    }

    async fn deliver(
        &mut self,
        cursor: &mut Cursor,
        held: &mut Vec<RecordBatch>,
        outlet: &Outlet,
        deadline: Option<Instant>,
    ) -> Result<(), GiveUp> {
        for batch in held.drain(..) {
            cursor.sent = true;
            if outlet.capacity() == 0 {
                // A client that does not read keeps nobody else from running.
                cursor.stream.rest();
            }
            // Who takes none any more has gone, which is as good as a request to stop.
            let place = self.attend(deadline, outlet.reserve()).await?.map_err(|_| cancelled())?;
            place.send(batch);
        }
        Ok(())
    }
}

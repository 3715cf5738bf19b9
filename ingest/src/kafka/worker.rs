//! Decoding: a chunk of records to a batch of rows. CPU only: runs on threads of its own, and knows no connection.

use std::sync::Arc;

use super::chunk::Chunk;
use crate::Result;
use crate::batch::Batch;
use crate::map::{Mapper, Origin};
use crate::target::Target;
use crate::topics::TopicRoute;

/// A table's columns as they were at an epoch of its schema.
#[derive(Debug)]
pub(super) struct Schema {
    pub target: Target,
    pub epoch: i32,
}

/// Rows of a chunk, with what they were made of.
#[derive(Debug)]
pub(super) struct Prepared {
    pub chunk: Chunk,
    /// `line` of rows and refused records is the record's number in the chunk.
    pub batch: Batch,
    /// The parts whose records are in the batch.
    pub parts: Vec<usize>,
    pub schema: Arc<Schema>,
}

/// Decodes the chunks of one lane.
#[derive(Debug)]
pub(super) struct Decoder {
    route: Arc<TopicRoute>,
    schema: Arc<Schema>,
    mapper: Mapper,
}

impl Decoder {
    /// # Errors
    /// The table cannot take records, or the route's mapping does not fit it.
    pub fn new(route: Arc<TopicRoute>, schema: Arc<Schema>) -> Result<Decoder> {
        let mapper = Mapper::with_mapping(schema.target.clone(), &route.mapping)?;
        Ok(Decoder { route, schema, mapper })
    }

    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Gives its COPY statements.
    pub fn mapper(&self) -> &Mapper {
        &self.mapper
    }

    /// The rows of the records whose partition is still ours.
    pub fn prepare(&mut self, chunk: Chunk) -> Prepared {
        let open: Vec<bool> = chunk.parts.iter().map(|p| p.is_open()).collect();
        let mut batch = Batch::default();
        for i in 0..chunk.len() {
            let record = chunk.record(i);
            if !open[record.part] {
                continue;
            }
            let partition = &chunk.parts[record.part].partition;
            let headers = record.headers();
            let origin = Origin {
                topic: &partition.place.0,
                partition: partition.place.1,
                offset: record.offset,
                timestamp: record.timestamp.map(|ms| ms.saturating_mul(1000)),
                key: record.key,
                headers: &headers,
            };
            batch.identify(partition.stream, record.offset);
            self.mapper.map_value(self.route.envelope, record.value, &origin, &mut batch, i as u64);
        }
        let parts = (0..open.len()).filter(|i| open[*i]).collect();
        Prepared { chunk, batch, parts, schema: self.schema.clone() }
    }
}

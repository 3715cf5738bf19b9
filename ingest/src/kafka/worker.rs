//! Decoding: a chunk of records to a batch of rows. CPU only: runs on threads of its own, and knows no connection.

use std::borrow::Cow;
use std::sync::Arc;

use super::chunk::Chunk;
use crate::Result;
use crate::batch::{Batch, Rejected};
use crate::decode::{Field, Value, envelope, json};
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
            match &self.route.headers {
                Some(key) if !headers.is_empty() => {
                    map_with_headers(
                        &mut self.mapper,
                        &self.route,
                        key,
                        record.value,
                        &origin,
                        &mut batch,
                        i as u64,
                    );
                }
                _ => {
                    self.mapper.map_value(self.route.envelope, record.value, &origin, &mut batch, i as u64);
                }
            }
        }
        let parts = (0..open.len()).filter(|i| open[*i]).collect();
        Prepared { chunk, batch, parts, schema: self.schema.clone() }
    }
}

/// As [`Mapper::map_value`], with the record's headers as one more key of each record.
fn map_with_headers(
    mapper: &mut Mapper,
    route: &TopicRoute,
    key: &str,
    value: &[u8],
    origin: &Origin<'_>,
    batch: &mut Batch,
    line: u64,
) {
    let text = headers_json(origin.headers);
    let mut records = match envelope::open_at(route.envelope, value, origin.timestamp) {
        Ok(records) => records,
        Err(reason) => {
            batch.rejected.push(Rejected { line, stage: "decode", reason, raw: value.to_vec() });
            return;
        }
    };
    while let Some(record) = records.next() {
        let raw = records.raw();
        let (stage, mapped) = match record {
            Ok(mut record) => {
                let value = Value::Json(Cow::Borrowed(text.as_str()));
                record.push(Field { name: Cow::Borrowed(key), value });
                ("map", mapper.map_from(&record, origin, batch, line, &raw))
            }
            Err(reason) => ("decode", Err(reason)),
        };
        if let Err(reason) = mapped {
            batch.rejected.push(Rejected { line, stage, reason, raw: raw.into_owned() });
        }
    }
}

/// Headers as a JSON object. A value that is no text PostgreSQL can hold is written in hexadecimal after `\\x`.
fn headers_json(headers: &[(&str, Option<&[u8]>)]) -> String {
    let mut out = vec![b'{'];
    for (i, (name, value)) in headers.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::write_string(&mut out, &name.replace('\0', "\u{fffd}"));
        out.push(b':');
        match value.map(|v| (v, std::str::from_utf8(v))) {
            None => out.extend_from_slice(b"null"),
            Some((_, Ok(text))) if !text.contains('\0') => json::write_string(&mut out, text),
            Some((bytes, _)) => json::write_string(&mut out, &format!("\\x{}", hex::encode(bytes))),
        }
    }
    out.push(b'}');
    // Made of whole strings.
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_an_object_whatever_they_hold() {
        let headers: [(&str, Option<&[u8]>); 5] = [
            ("trace", Some(b"a\"b")),
            ("none", None),
            ("bytes", Some(b"\xff\x00")),
            ("nul", Some(b"x\0y")),
            ("empty", Some(b"")),
        ];
        assert_eq!(
            headers_json(&headers),
            r#"{"trace":"a\"b","none":null,"bytes":"\\xff00","nul":"\\x780079","empty":""}"#
        );
        assert_eq!(headers_json(&[]), "{}");
    }
}

//! Records on their way: those of one lane that become one transaction, copied out of librdkafka once into one buffer.
//! Knows no format and no connection.
//!
//! A partition that was given away, or whose position somebody else moved, is *closed*: whatever still holds records of it
//! leaves them out. A partition that is read again is a new [`Partition`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::time::Instant;

use super::raw::{Place, Record};

/// A partition while it is read by this process, from one opening to its closing.
#[derive(Debug)]
pub(super) struct Partition {
    pub place: Place,
    pub stream: i32,
    pub topic_id: Option<String>,
    closed: AtomicBool,
    /// Next offset to be read, as PostgreSQL holds it.
    committed: AtomicI64,
    /// Next offset to be taken from librdkafka.
    taken: AtomicI64,
    /// Leader epoch that PostgreSQL holds.
    epoch: AtomicI32,
    /// Timestamp (ms) of the newest record committed; -1: none yet.
    committed_at: AtomicI64,
}

impl Partition {
    pub fn new(place: Place, stream: i32, topic_id: Option<String>, next: i64, epoch: i32) -> Partition {
        Partition {
            place,
            stream,
            topic_id,
            closed: AtomicBool::new(false),
            committed: AtomicI64::new(next),
            taken: AtomicI64::new(next),
            epoch: AtomicI32::new(epoch),
            committed_at: AtomicI64::new(-1),
        }
    }

    /// From now on nothing of it is committed, but for a transaction that is already on its way.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
    pub fn committed(&self) -> i64 {
        self.committed.load(Ordering::Relaxed)
    }
    pub fn taken(&self) -> i64 {
        self.taken.load(Ordering::Relaxed)
    }
    pub fn epoch(&self) -> i32 {
        self.epoch.load(Ordering::Relaxed)
    }
    pub fn committed_at(&self) -> Option<i64> {
        Some(self.committed_at.load(Ordering::Relaxed)).filter(|at| *at >= 0)
    }
    /// PostgreSQL has what this part holds.
    pub fn commit(&self, part: &Part) {
        self.committed.store(part.to, Ordering::Relaxed);
        if part.epoch >= 0 {
            self.epoch.store(part.epoch, Ordering::Relaxed);
        }
        if let Some(at) = part.last_at {
            self.committed_at.store(at, Ordering::Relaxed);
        }
    }
}

/// What a chunk holds of one partition: records of offsets within `from..to`.
#[derive(Debug)]
pub(super) struct Part {
    pub partition: Arc<Partition>,
    /// The position before.
    pub from: i64,
    /// The position after, past everything that gives no record.
    pub to: i64,
    /// Newest leader epoch seen; -1: none.
    pub epoch: i32,
    pub last_at: Option<i64>,
    pub tombstones: u64,
    /// PostgreSQL is known to have it.
    pub settled: bool,
}

/// Where a record lies in the chunk's buffer: its value, then its key, then its headers.
#[derive(Debug, Clone, Copy)]
struct Entry {
    part: u32,
    start: usize,
    value_len: u32,
    /// `NO_KEY` for none.
    key_len: u32,
    headers_len: u32,
    offset: i64,
    timestamp: i64,
}

const NO_KEY: u32 = u32::MAX;
const NO_VALUE: u32 = u32::MAX;

/// A record of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken<'a> {
    pub part: usize,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub value: &'a [u8],
    pub key: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> Taken<'a> {
    /// Names and values, in order. A name that is no UTF-8 is left out.
    pub fn headers(&self) -> Vec<(&'a str, Option<&'a [u8]>)> {
        let mut all = Vec::new();
        let mut rest = self.headers;
        while let Some((name, after)) = field(rest) {
            let Some((value, after)) = field(after) else { break };
            rest = after;
            if let Some(Ok(name)) = name.map(std::str::from_utf8) {
                all.push((name, value));
            }
        }
        all
    }
}

/// A length and that many bytes.
fn push_field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let len = bytes.map_or(NO_VALUE, |b| b.len() as u32);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn field(from: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (len, rest) = from.split_first_chunk::<4>()?;
    match u32::from_le_bytes(*len) {
        NO_VALUE => Some((None, rest)),
        len => rest.split_at_checked(len as usize).map(|(value, rest)| (Some(value), rest)),
    }
}

/// Records of one lane, in the order they were taken.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    pub parts: Vec<Part>,
    /// Part of the last record: mostly the next one's too.
    last: usize,
    pub born: Instant,
}

impl Chunk {
    pub fn new() -> Chunk {
        Chunk { bytes: Vec::new(), entries: Vec::new(), parts: Vec::new(), last: 0, born: Instant::now() }
    }

    /// True if committing it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    fn part(&mut self, partition: &Arc<Partition>) -> usize {
        if self.parts.is_empty() {
            self.born = Instant::now();
        }
        if self.parts.get(self.last).is_some_and(|p| Arc::ptr_eq(&p.partition, partition)) {
            return self.last;
        }
        self.last = match self.parts.iter().position(|p| Arc::ptr_eq(&p.partition, partition)) {
            Some(at) => at,
            None => {
                let from = partition.taken();
                let partition = partition.clone();
                self.parts.push(Part {
                    partition,
                    from,
                    to: from,
                    epoch: -1,
                    last_at: None,
                    tombstones: 0,
                    settled: false,
                });
                self.parts.len() - 1
            }
        };
        self.last
    }

    /// Takes a record; one that was taken before (fetched again after a pause) is left out.
    pub fn take(&mut self, partition: &Arc<Partition>, record: &Record<'_>) {
        let offset = record.offset();
        if offset < partition.taken() {
            return;
        }
        let at = self.part(partition);
        let part = &mut self.parts[at];
        part.to = offset + 1;
        part.epoch = part.epoch.max(record.leader_epoch());
        let timestamp = record.timestamp();
        part.last_at = timestamp.or(part.last_at);
        partition.taken.store(offset + 1, Ordering::Relaxed);
        let Some(value) = record.value() else {
            part.tombstones += 1;
            return;
        };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        let key = record.key();
        self.bytes.extend_from_slice(key.unwrap_or_default());
        let before = self.bytes.len();
        for (name, value) in record.headers() {
            push_field(&mut self.bytes, Some(name));
            push_field(&mut self.bytes, value);
        }
        self.entries.push(Entry {
            part: at as u32,
            start,
            // Kafka's own lengths are 32 bits and signed.
            value_len: value.len() as u32,
            key_len: key.map_or(NO_KEY, |k| k.len() as u32),
            headers_len: (self.bytes.len() - before) as u32,
            offset,
            timestamp: timestamp.unwrap_or(-1),
        });
    }

    /// Passes everything before `offset`: the log has no more records there.
    pub fn pass(&mut self, partition: &Arc<Partition>, offset: i64) {
        if offset > partition.taken() {
            let at = self.part(partition);
            self.parts[at].to = offset;
            partition.taken.store(offset, Ordering::Relaxed);
        }
    }

    /// The i-th record.
    pub fn record(&self, i: usize) -> Taken<'_> {
        let e = &self.entries[i];
        let value_end = e.start + e.value_len as usize;
        let key_end = value_end + if e.key_len == NO_KEY { 0 } else { e.key_len as usize };
        Taken {
            part: e.part as usize,
            offset: e.offset,
            timestamp: (e.timestamp >= 0).then_some(e.timestamp),
            value: &self.bytes[e.start..value_end],
            key: (e.key_len != NO_KEY).then(|| &self.bytes[value_end..key_end]),
            headers: &self.bytes[key_end..key_end + e.headers_len as usize],
        }
    }

    /// True if a part is of a partition that was closed since.
    pub fn has_closed(&self) -> bool {
        self.parts.iter().any(|p| p.partition.is_closed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(next: i64) -> Arc<Partition> {
        Arc::new(Partition::new(("t".into(), 0), 1, None, next, -1))
    }

    #[test]
    fn an_end_is_passed_once_and_never_backwards() {
        let mut chunk = Chunk::new();
        let p = partition(5);
        chunk.pass(&p, 5);
        assert!(chunk.is_empty(), "nothing was passed");
        chunk.pass(&p, 9);
        chunk.pass(&p, 7);
        assert_eq!((chunk.parts[0].from, chunk.parts[0].to, p.taken(), chunk.len()), (5, 9, 9, 0));
        // The next chunk goes on where this one ends, though nothing is committed yet.
        let mut next = Chunk::new();
        next.pass(&p, 12);
        assert_eq!((next.parts[0].from, next.parts[0].to, p.committed()), (9, 12, 5));
        p.commit(&chunk.parts[0]);
        assert_eq!(p.committed(), 9);
    }

    #[test]
    fn a_partition_that_is_read_again_is_another_part() {
        let mut chunk = Chunk::new();
        let (old, fresh) = (partition(5), partition(3));
        chunk.pass(&old, 9);
        old.close();
        chunk.pass(&fresh, 4);
        assert!(chunk.has_closed());
        let open: Vec<bool> = chunk.parts.iter().map(Part::is_open).collect();
        assert_eq!(open, [false, true]);
    }

    #[test]
    fn fields_of_headers() {
        let mut bytes = Vec::new();
        for (name, value) in [("a", Some(&b"1"[..])), ("b", None), ("", Some(b""))] {
            push_field(&mut bytes, Some(name.as_bytes()));
            push_field(&mut bytes, value);
        }
        let taken = Taken { part: 0, offset: 0, timestamp: None, value: b"", key: None, headers: &bytes };
        assert_eq!(taken.headers(), [("a", Some(&b"1"[..])), ("b", None), ("", Some(&b""[..]))]);
        let cut = Taken { headers: &bytes[..bytes.len() - 1], ..taken };
        assert_eq!(cut.headers().len(), 2);
    }
}

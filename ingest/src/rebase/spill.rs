//! Rows of both stores on disk, in heaps by key, so that however many there are only one heap is held at a time.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use super::decide::{Row, Side};

/// Rows that a heap should hold.
const HEAP_ROWS: u64 = 1 << 20;
/// Heaps at most: each has a file and a buffer.
const MAX_HEAPS: u64 = 512;
/// Bytes of a row on disk.
const WIDTH: usize = 16 + 16 + 8 + 1 + 4 + 4 + 2 + 8;

pub(super) struct Heaps {
    files: Vec<BufWriter<File>>,
}

impl Heaps {
    /// Heaps for about `rows` rows, in unnamed files below `dir` (`None`: the system's temporary directory).
    pub(super) fn new(rows: u64, dir: Option<&Path>) -> std::io::Result<Self> {
        let count = (rows / HEAP_ROWS + 1).min(MAX_HEAPS);
        let open = |_| match dir {
            Some(dir) => tempfile::tempfile_in(dir),
            None => tempfile::tempfile(),
        };
        let files =
            (0..count).map(open).map(|f| f.map(BufWriter::new)).collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { files })
    }

    pub(super) fn add(&mut self, row: &Row) -> std::io::Result<()> {
        // Kafka's keys count up and the others are hashes: mixed, both spread.
        let mixed = (row.key ^ (row.key >> 64)) as u64;
        let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let heap = (mixed % self.files.len() as u64) as usize;
        self.files[heap].write_all(&bytes(row))
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The rows of heap `i`, by key.
    pub(super) fn read(&mut self, i: usize) -> std::io::Result<Vec<Row>> {
        let writer = &mut self.files[i];
        writer.flush()?;
        let file = writer.get_mut();
        file.rewind()?;
        let mut rows = Vec::new();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut one = [0; WIDTH];
        loop {
            match reader.read_exact(&mut one) {
                Ok(()) => rows.push(row(&one)),
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(e) => return Err(e),
            }
        }
        rows.sort_unstable_by_key(|r| r.key);
        Ok(rows)
    }
}

fn bytes(row: &Row) -> [u8; WIDTH] {
    let (kind, a, b, c, d) = match row.side {
        Side::Lake { file, row, below_floor } => (u8::from(below_floor), file, row, 0, 0),
        Side::Postgres { part, block, item, xid } => (2, part, block, item, xid),
    };
    let mut out = [0; WIDTH];
    out[..16].copy_from_slice(&row.key.to_le_bytes());
    out[16..32].copy_from_slice(&row.full.to_le_bytes());
    out[32..40].copy_from_slice(&row.essence.to_le_bytes());
    out[40] = kind;
    out[41..45].copy_from_slice(&a.to_le_bytes());
    out[45..49].copy_from_slice(&b.to_le_bytes());
    out[49..51].copy_from_slice(&c.to_le_bytes());
    out[51..].copy_from_slice(&d.to_le_bytes());
    out
}

fn row(b: &[u8; WIDTH]) -> Row {
    fn part<const N: usize>(b: &[u8; WIDTH], at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&b[at..at + N]);
        out
    }
    let (first, second) = (u32::from_le_bytes(part(b, 41)), u32::from_le_bytes(part(b, 45)));
    Row {
        key: u128::from_le_bytes(part(b, 0)),
        full: u128::from_le_bytes(part(b, 16)),
        essence: u64::from_le_bytes(part(b, 32)),
        side: match b[40] {
            2 => Side::Postgres {
                part: first,
                block: second,
                item: u16::from_le_bytes(part(b, 49)),
                xid: u64::from_le_bytes(part(b, 51)),
            },
            kind => Side::Lake { file: first, row: second, below_floor: kind == 1 },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_together_with_their_kin() {
        let mut heaps = Heaps::new(3 << 20, None).unwrap();
        assert!(heaps.len() > 1);
        let rows: Vec<Row> = (0..5000_u64)
            .map(|i| Row {
                key: u128::from(i / 2) << 60,
                full: u128::from(i) << 100,
                essence: i,
                side: match i % 3 {
                    0 => Side::Lake { file: 7, row: i as u32, below_floor: i % 2 == 0 },
                    _ => Side::Postgres { part: u32::MAX, block: i as u32, item: 9, xid: u64::MAX - i },
                },
            })
            .collect();
        rows.iter().for_each(|r| heaps.add(r).unwrap());
        let mut back = Vec::new();
        let mut keys = std::collections::HashMap::new();
        for i in 0..heaps.len() {
            let heap = heaps.read(i).unwrap();
            assert!(heap.windows(2).all(|w| w[0].key <= w[1].key));
            for r in heap {
                assert_eq!(*keys.entry(r.key).or_insert(i), i);
                back.push(r);
            }
        }
        back.sort_unstable_by_key(|r| r.essence);
        assert_eq!(back, rows);
    }
}

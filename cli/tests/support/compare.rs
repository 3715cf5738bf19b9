//! When two answers are the same answer: frame by frame and byte by byte, with rows as a multiset where SQL leaves their order open.
//!
//! It knows frames and which parts of an error may differ. It does not know which answer is right.

use super::wire::{Frame, Reply};

/// Says how `actual` differs from `expected`, or nothing.
pub fn difference(expected: &Reply, actual: &Reply, rows_in_order: bool) -> Option<String> {
    let (expected, actual) = (normalized(expected, rows_in_order), normalized(actual, rows_in_order));
    if expected == actual {
        return None;
    }
    let at = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    let frame = |frames: &[Frame]| match frames.get(at) {
        Some(frame) => format!("{frame:?}"),
        None => "nothing".to_owned(),
    };
    Some(format!(
        "frame {at} of {} and {}:\n      expected {}\n      actual   {}",
        expected.len(),
        actual.len(),
        frame(&expected),
        frame(&actual)
    ))
}

/// Rows sorted where their order is open; the source line of an error left out, since it differs between builds of PostgreSQL.
fn normalized(reply: &Reply, rows_in_order: bool) -> Vec<Frame> {
    let mut frames: Vec<Frame> = reply
        .frames
        .iter()
        .map(|frame| match frame.tag {
            b'E' | b'N' => Frame { tag: frame.tag, body: without_source(&frame.body) },
            _ => frame.clone(),
        })
        .collect();
    if !rows_in_order {
        let rows: Vec<usize> = (0..frames.len()).filter(|at| frames[*at].tag == b'D').collect();
        let mut sorted: Vec<Frame> = rows.iter().map(|at| frames[*at].clone()).collect();
        sorted.sort();
        for (at, row) in rows.into_iter().zip(sorted) {
            frames[at] = row;
        }
    }
    frames
}

/// Drops the fields F, L and R. An answer computed outside PostgreSQL has no place in its source, and one that PostgreSQL
/// gives keeps them; the relay of untouched frames is checked on its own.
fn without_source(body: &[u8]) -> Vec<u8> {
    let fields = body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let kept = fields.filter(|field| !matches!(field[0], b'F' | b'L' | b'R'));
    kept.flat_map(|field| field.iter().copied().chain([0])).chain([0]).collect()
}

/// The first difference of what two tables answered: names, types, rows to the byte, tags; the tables' own OIDs are not compared.
pub fn table_difference(right: &Reply, got: &Reply, in_order: bool) -> Option<String> {
    if right.shape() != got.shape() || right.sqlstate() != got.sqlstate() {
        return Some(format!("{} and {}", right.shape(), got.shape()));
    }
    let bodies = |reply: &Reply, tag: u8| -> Vec<Vec<u8>> { reply.frames.iter().filter(|f| f.tag == tag).map(|f| f.body.clone()).collect() };
    let columns = |reply: &Reply| -> Vec<String> {
        let of = |d: &super::wire::ColumnDescription| format!("{} {} {} {}", d.name, d.type_oid, d.typmod, d.format);
        reply.frames.iter().filter(|f| f.tag == b'T').flat_map(|f| f.description().iter().map(of).collect::<Vec<_>>()).collect()
    };
    let sorted = |reply: &Reply, tag: u8| {
        let mut rows = bodies(reply, tag);
        if !in_order {
            rows.sort();
        }
        rows
    };
    if columns(right) != columns(got) {
        return Some(format!("columns {:?} and {:?}", columns(right), columns(got)));
    }
    if bodies(right, b'C') != bodies(got, b'C') {
        return Some(format!("tags {:?} and {:?}", right.tags(), got.tags()));
    }
    (sorted(right, b'D') != sorted(got, b'D') || sorted(right, b'd') != sorted(got, b'd')).then(|| "other rows".to_owned())
}

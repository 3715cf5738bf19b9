use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn hash(s: &str) -> String {
    hex::encode(Sha256::digest(s))
}

fn scan_of(content: &str, known: &[Entry]) -> Scan {
    let prefixes = known
        .iter()
        .map(|e| e.content_bytes)
        .filter(|n| *n <= content.len() as u64)
        .map(|n| (n, hash(&content[..n as usize])))
        .collect();
    Scan { bytes: content.len() as u64, hash: hash(content), prefixes }
}

fn entry(id: i64, content: &str, done: u64, finished: bool) -> Entry {
    Entry {
        id,
        content_hash: hash(content),
        content_bytes: content.len() as u64,
        done: Progress { rows: done, lines: done, bytes: done },
        rows_loaded: done,
        rows_rejected: 0,
        tail: None,
        reject_first: false,
        state: None,
        finished,
    }
}

#[test]
fn what_is_next() {
    let known = [entry(1, "a\nb\n", 4, true), entry(2, "a\nb\nc\n", 4, false), entry(3, "x\n", 2, true)];
    let next = |c: &str| next(&known, &scan_of(c, &known));
    assert_eq!(next("a\nb\n"), Next::Done(known[0].clone()));
    assert_eq!(next("a\nb\nc\n"), Next::Continue(known[1].clone()));
    // Begins with an unfinished content: that one first.
    assert_eq!(next("a\nb\nc\nd\n"), Next::Continue(known[1].clone()));
    assert_eq!(next("a\nb\nd\n"), Next::Extend(known[0].clone()));
    // Shorter than anything known, and other content.
    assert_eq!(next("a\n"), Next::Start);
    assert_eq!(next("y\nb\n"), Next::Start);
}

#[test]
fn a_tail_that_grows() {
    let parent = |tail| Entry {
        done: Progress { rows: 3, lines: 2, bytes: 10 },
        rows_loaded: 2,
        rows_rejected: 1,
        tail,
        ..entry(1, "0123456789", 10, true)
    };
    let at = |tail, following: &str| {
        let s = extension(&parent(tail), following.as_bytes());
        (s.done.rows, s.done.bytes, s.rows_loaded, s.rows_rejected, s.reject_first)
    };
    assert_eq!(at(None, "x"), (3, 10, 2, 1, false));
    let loaded = Some(Tail { bytes: 4, loaded: true });
    assert_eq!(at(loaded, "\nx"), (3, 10, 2, 1, false));
    assert_eq!(at(loaded, "\r\n"), (3, 10, 2, 1, false));
    assert_eq!(at(loaded, "x"), (2, 6, 2, 1, true));
    assert_eq!(at(Some(Tail { bytes: 4, loaded: false }), "x"), (2, 6, 2, 0, false));
}

/// A model of loads: each content is a string of one-letter records; the ledger decides, the model loads.
fn load(known: &mut Vec<Entry>, content: &str, stop_after: Option<u64>) -> (String, bool) {
    let mut loaded = String::new();
    let mut left = stop_after.unwrap_or(u64::MAX);
    loop {
        let at = match next(known, &scan_of(content, known)) {
            Next::Done(_) => return (loaded, true),
            Next::Continue(e) => known.iter().position(|k| k.id == e.id).unwrap(),
            other => {
                let start = match other {
                    Next::Extend(p) => extension(&p, &content.as_bytes()[p.content_bytes as usize..]),
                    _ => Start::default(),
                };
                let id = known.len() as i64 + 1;
                let mut e = entry(id, content, 0, false);
                e.done = start.done;
                known.push(e);
                known.len() - 1
            }
        };
        let e = &mut known[at];
        while e.done.bytes < e.content_bytes {
            if left == 0 {
                return (loaded, false);
            }
            left -= 1;
            loaded.push(content.as_bytes()[e.done.bytes as usize] as char);
            e.done.bytes += 1;
            e.done.rows += 1;
        }
        e.finished = true;
    }
}

proptest! {
    /// A file that grows, loaded at any time and interrupted anywhere, in the end is loaded once, in order.
    #[test]
    fn a_growing_file_is_loaded_once(
        text in "[ab]{0,30}",
        visits in proptest::collection::vec((0usize..31, proptest::option::of(0u64..12)), 0..8),
    ) {
        let mut known = Vec::new();
        let mut all = String::new();
        let mut size = 0;
        for (n, stop) in visits {
            size = size.max(n.min(text.len()));
            if size > 0 {
                all += &load(&mut known, &text[..size], stop).0;
            }
            prop_assert!(text.starts_with(&all));
        }
        if !text.is_empty() {
            let (rest, complete) = load(&mut known, &text, None);
            prop_assert!(complete);
            all += &rest;
            prop_assert_eq!(load(&mut known, &text, None), (String::new(), true));
        }
        prop_assert_eq!(all, text);
    }
}

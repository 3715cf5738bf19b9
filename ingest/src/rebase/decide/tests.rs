use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MARK: u64 = 100;

/// A row as a person would write it down: what it says, when it was read, by which transaction.
type Told = (u8, u8, u64);

fn row(kafka: bool, told: Told, side: Side) -> Row {
    let (essence, moment, xid) = told;
    Row {
        key: if kafka { kafka_key(7, 1) } else { content_key(u128::from(essence) << 8 | u128::from(moment)) },
        full: u128::from(essence) << 72 | u128::from(moment) << 64 | u128::from(xid),
        essence: u64::from(essence),
        side,
    }
}

/// What PostgreSQL holds afterwards, inside and outside the mark, and how many rows were surplus.
fn apply(kafka: bool, lake: &[Told], postgres: &[Told]) -> (Vec<Told>, Vec<Told>, usize) {
    let mut rows: Vec<Row> = Vec::new();
    for (i, t) in lake.iter().enumerate() {
        rows.push(row(kafka, *t, Side::Lake { file: 0, row: i as u32, below_floor: false }));
    }
    for (i, t) in postgres.iter().enumerate() {
        rows.push(row(kafka, *t, Side::Postgres { part: 0, block: i as u32, item: 1, xid: t.2 }));
    }
    rows.sort_by_key(|r| r.key);
    let mut after: BTreeMap<u32, Told> = postgres.iter().enumerate().map(|(i, t)| (i as u32, *t)).collect();
    let mut back = Vec::new();
    let mut surplus = 0;
    for group in rows.chunk_by(|a, b| a.key == b.key) {
        decide(group, MARK, |r, fate| match (r.side, fate) {
            (Side::Lake { row, .. }, Fate::Restore | Fate::Replace) => back.push(lake[row as usize]),
            (Side::Postgres { block, .. }, Fate::Drop) => {
                after.remove(&block).unwrap();
            }
            (Side::Postgres { block, xid, .. }, Fate::Stamp | Fate::Surplus) => {
                surplus += usize::from(fate == Fate::Surplus);
                if xid < MARK {
                    after.get_mut(&block).unwrap().2 = MARK + 50;
                }
            }
            other => panic!("{other:?}"),
        });
    }
    back.extend(after.into_values());
    let (mut inside, mut outside): (Vec<_>, Vec<_>) = back.into_iter().partition(|t| t.2 < MARK);
    inside.sort_unstable();
    outside.sort_unstable();
    (inside, outside, surplus)
}

fn told(numbers: std::ops::Range<u64>) -> impl Strategy<Value = Vec<Told>> {
    prop::collection::vec((0..3_u8, 0..2_u8, numbers), 0..6)
}

proptest! {
    /// Inside the mark, PostgreSQL holds exactly the lake's rows afterwards, whatever it held before.
    #[test]
    fn inside_is_the_lake(kafka: bool, lake in told(1..MARK), postgres in told(1..2 * MARK)) {
        let (inside, _, _) = apply(kafka, &lake, &postgres);
        let mut wanted = lake;
        wanted.sort_unstable();
        prop_assert_eq!(inside, wanted);
    }

    /// Rows without a source: each content is there as often as the store that had it more often.
    #[test]
    fn nothing_counts_twice_and_nothing_is_lost(lake in told(1..MARK), postgres in told(1..2 * MARK)) {
        let (inside, outside, _) = apply(false, &lake, &postgres);
        let count = |rows: &[Told]| {
            let mut n = BTreeMap::new();
            for (essence, moment, _) in rows {
                *n.entry((*essence, *moment)).or_insert(0_usize) += 1;
            }
            n
        };
        let (l, p) = (count(&lake), count(&postgres));
        let after = count(&[inside, outside].concat());
        let mut wanted = l.clone();
        for (k, n) in &p {
            let most = wanted.entry(*k).or_insert(0);
            *most = (*most).max(*n);
        }
        prop_assert_eq!(after, wanted);
    }

    /// A record of Kafka that was read again is there once; one that the lake does not know is left alone.
    #[test]
    fn a_record_read_again_counts_once(essences in prop::collection::vec(0..3_u8, 1..4), first in 1..MARK, second in 1..2 * MARK) {
        let lake: Vec<Told> = essences.iter().map(|e| (*e, 0, first)).collect();
        let again: Vec<Told> = essences.iter().map(|e| (*e, 1, second)).collect();
        let (inside, outside, surplus) = apply(true, &lake, &again);
        prop_assert_eq!((inside.len(), outside.len(), surplus), (lake.len(), 0, 0));
        let (inside, outside, surplus) = apply(true, &[], &again);
        prop_assert_eq!((inside.len(), outside.len(), surplus), (0, again.len(), 0));
    }
}

#[test]
fn what_is_no_copy_is_kept_and_reported() {
    let (inside, outside, surplus) = apply(true, &[(1, 0, 5)], &[(1, 0, 5), (2, 1, 6)]);
    assert_eq!((inside, outside, surplus), (vec![(1, 0, 5)], vec![(2, 1, MARK + 50)], 1));
    // And a copy beside the row itself goes.
    let (inside, outside, surplus) = apply(true, &[(1, 0, 5)], &[(1, 0, 5), (1, 1, 6)]);
    assert_eq!((inside, outside, surplus), (vec![(1, 0, 5)], vec![], 0));
}

#[test]
fn keys_do_not_meet() {
    assert_ne!(kafka_key(1, 2), kafka_key(2, 1));
    assert_ne!(kafka_key(-3, 2), kafka_key(3, 2));
    assert_ne!(kafka_key(1, -1), kafka_key(2, -1));
    assert_eq!(content_key(u128::MAX) >> 127, 0);
}

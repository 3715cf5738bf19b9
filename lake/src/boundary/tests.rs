use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What PostgreSQL does, in small: transactions 0..N each begin, and maybe end before the first or the second look.
/// State of a transaction at a look: running, committed, or rolled back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Running,
    Committed,
    RolledBack,
}

/// A history: `first[x]` and `second[x]` are the states of transaction `x` at two moments; `None`: not begun yet.
#[derive(Debug, Clone)]
struct History {
    first: Vec<End>,
    second: Vec<End>,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Running), Just(End::Committed), Just(End::RolledBack)]
}

fn history() -> impl Strategy<Value = History> {
    (
        prop::collection::vec(end(), 0..24),
        prop::collection::vec(end(), 0..24),
        prop::collection::vec(end(), 24),
    )
        .prop_map(|(first, later, resolve)| {
            let mut second: Vec<End> =
                first.iter().zip(&resolve).map(|(f, r)| if *f == End::Running { *r } else { *f }).collect();
            second.extend(later);
            History { first, second }
        })
}

/// PostgreSQL's rule: xmin is the oldest running, xmax one past the latest begun that ended (with all after it unseen); a
/// transaction from xmax on is running by definition.
fn snapshot(states: &[End], base: u64) -> Boundary {
    let xmax = states.iter().rposition(|s| *s != End::Running).map_or(0, |p| p as u64 + 1);
    let xip: Vec<u64> = (0..xmax).filter(|x| states[*x as usize] == End::Running).map(|x| x + base).collect();
    let xmin = xip.first().copied().unwrap_or(xmax + base);
    Boundary { xmin, xmax: xmax + base, xip }
}

fn visible(states: &[End], base: u64) -> BTreeSet<u64> {
    (0..states.len() as u64).filter(|x| states[*x as usize] == End::Committed).map(|x| x + base).collect()
}

/// The predicate's text, evaluated: the two forms that `tail_predicate` writes.
fn in_tail(predicate: &str, xid: u64) -> bool {
    let numbers = |s: &str| -> Vec<u64> {
        s.split(|c: char| !c.is_ascii_digit()).filter(|t| !t.is_empty()).map(|t| t.parse().unwrap()).collect()
    };
    let (later, running) = predicate.split_once(" OR ").unwrap_or((predicate, ""));
    let from = numbers(&later[later.find('\'').unwrap()..later.rfind('\'').unwrap()])[0];
    let listed = match (running.find('{'), running.find('}')) {
        (Some(a), Some(b)) => numbers(&running[a..b]),
        _ => Vec::new(),
    };
    xid >= from || listed.contains(&xid)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn lake_and_tail_partition_what_a_reader_sees(h in history(), base in prop_oneof![Just(3u64), Just(1 << 33)]) {
        let a = snapshot(&h.first, base);
        let lake: BTreeSet<u64> = visible(&h.first, base);
        // What the boundary sees of the committed ones is what was visible when it was taken.
        for x in base..base + h.second.len() as u64 {
            if visible(&h.second, base).contains(&x) {
                prop_assert_eq!(a.sees(x), lake.contains(&x), "{} {}", a, x);
            }
        }
        let predicate = a.tail_predicate("t._xid");
        let seen = visible(&h.second, base);
        let tail: BTreeSet<u64> = seen.iter().copied().filter(|x| in_tail(&predicate, *x)).collect();
        prop_assert!(lake.is_disjoint(&tail));
        let union: BTreeSet<u64> = lake.union(&tail).copied().collect();
        prop_assert_eq!(union, seen);
    }

    #[test]
    fn serves_exactly_those_that_see_all_of_it(h in history(), g in history()) {
        for (a, s) in [(&h.first, &h.second), (&h.second, &h.first), (&h.first, &g.first)] {
            let (a, s) = (snapshot(a, 3), snapshot(s, 3));
            let all = (0..80u64).all(|x| !a.sees(x) || s.sees(x));
            prop_assert_eq!(a.serves(&s), all, "{} {}", a, s);
        }
    }

    #[test]
    fn text_round_trips(h in history(), base in 3u64..1 << 40) {
        let a = snapshot(&h.first, base);
        prop_assert_eq!(a.to_string().parse::<Boundary>().unwrap(), a);
    }

    #[test]
    fn any_text_is_refused_or_printed_back(s in "[0-9:,+ ]{0,20}") {
        if let Ok(b) = s.parse::<Boundary>() {
            prop_assert_eq!(b.to_string().parse::<Boundary>().unwrap(), b);
        }
    }
}

#[test]
fn nothing_sees_nothing_and_serves_all() {
    assert!(!Boundary::NOTHING.sees(0));
    assert!(!Boundary::NOTHING.sees(3));
    assert!(Boundary::NOTHING.serves(&"3:3:".parse().unwrap()));
    assert!(Boundary::NOTHING.serves(&"3:9:3,4".parse().unwrap()));
    assert_eq!(Boundary::NOTHING.tail_predicate("x"), "(x OPERATOR(pg_catalog.>=) '0'::pg_catalog.xid8)");
}

#[test]
fn predicate_is_qualified() {
    let b: Boundary = "731:735:731,733".parse().unwrap();
    assert_eq!(
        b.tail_predicate("t.\"_xid\""),
        "(t.\"_xid\" OPERATOR(pg_catalog.>=) '735'::pg_catalog.xid8 OR t.\"_xid\" OPERATOR(pg_catalog.=) ANY ('{731,733}'::pg_catalog.xid8[]))"
    );
}

#[test]
fn malformed_texts() {
    for s in [
        "",
        ":",
        "1:2",
        "2:1:",
        "1:2:3",
        "1:5:3,2",
        "a:2:",
        "1:2:,",
        "1:5:2,",
        "1:5:2:3",
        "+1:2:",
        "-1:2:",
        "1:99999999999999999999:",
    ] {
        assert!(s.parse::<Boundary>().is_err(), "{s}");
    }
    assert_eq!("10:20:12,12,15".parse::<Boundary>().unwrap().xip, vec![12, 15]);
}

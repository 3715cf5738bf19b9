use std::collections::HashMap;

use super::*;
use crate::decode::json::decode;

fn spec(kind: Kind, rows: u64) -> Spec {
    Spec { kind, seed: 7, rows, days: 3, end: 1_700_000_000_000_000, late: 100 }
}

#[test]
fn any_part_can_be_made_again() {
    for kind in [Kind::Logs, Kind::Events] {
        let spec = spec(kind, 500);
        let mut all = Vec::new();
        assert_eq!(write_all(&spec, &mut all).unwrap(), 500);
        let lines: Vec<&[u8]> = all.split_inclusive(|b| *b == b'\n').collect();
        let mut part = Vec::new();
        let mut rows = Rows::starting_at(&spec, 321);
        while rows.write_ndjson(&mut part) {}
        assert_eq!(part, lines[321..].concat());
        for line in lines {
            decode(std::str::from_utf8(line).unwrap().trim_end()).unwrap();
        }
    }
}

#[test]
fn logs_look_like_logs() {
    let spec = spec(Kind::Logs, 50_000);
    let mut rows = Rows::starting_at(&spec, 0);
    let mut levels: HashMap<String, u32> = HashMap::new();
    let mut services: HashMap<String, u32> = HashMap::new();
    let (mut late, mut high) = (0, 0i64);
    while let Some(r) = rows.next_record() {
        let text = |i: usize| match &r[i].value {
            Value::Text(s) => s.to_string(),
            other => panic!("{other:?}"),
        };
        *levels.entry(text(1)).or_default() += 1;
        *services.entry(text(2)).or_default() += 1;
        let Value::Time(ts) = r[0].value else { panic!() };
        assert!(ts <= spec.end && ts >= spec.end - 6 * DAY);
        late += u32::from(ts < high - 1800 * SECOND);
        high = high.max(ts);
    }
    assert_eq!((levels.len(), services.len()), (5, 15));
    assert!(levels["INFO"] > 30_000 && levels["FATAL"] < 500 && levels["ERROR"] > levels["FATAL"]);
    assert!(services["api-gateway"] > 20 * services["scheduler"]);
    assert!((300..800).contains(&late), "{late}");
}

#[test]
fn identity_leaves_out_the_end_only() {
    let a = spec(Kind::Logs, 10);
    assert_eq!(a.identity(), Spec { end: 5, ..a.clone() }.identity());
    for b in [
        Spec { rows: 11, ..a.clone() },
        Spec { seed: 8, ..a.clone() },
        Spec { days: 4, ..a.clone() },
        Spec { late: 0, ..a.clone() },
        Spec { kind: Kind::Events, ..a.clone() },
    ] {
        assert_ne!(a.identity(), b.identity());
    }
}

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::decode::json::decode;

fn spec(kind: Kind, rows: u64) -> Spec {
    let end = 1_700_000_000_000_000;
    Spec { kind, seed: 7, rows, days: 3, end, late: 10_000, duplicates: 0, bad: 0 }
}

fn lines(spec: &Spec) -> Vec<(Vec<u8>, Vec<u8>, Sort)> {
    let mut rows = Rows::starting_at(spec, 0);
    let mut all = Vec::new();
    while let Some(line) = rows.next_line() {
        all.push((line.bytes.to_vec(), line.key.to_vec(), line.sort));
    }
    all
}

fn value(line: &[u8]) -> serde_json::Value {
    serde_json::from_slice(line).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(line)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However many are asked for at once, and wherever one begins.
    #[test]
    fn any_part_can_be_made_again(
        seed: u64, rows in 1u64..9000, from in 0u64..9000, events: bool,
        late in 0u32..500_000, duplicates in 0u32..500_000, bad in 0u32..500_000,
    ) {
        let kind = if events { Kind::Events } else { Kind::Logs };
        let spec = Spec { seed, late, duplicates, bad, ..spec(kind, rows) };
        let all = lines(&spec);
        prop_assert_eq!(all.len() as u64, rows);
        let mut part = Rows::starting_at(&spec, from);
        for (bytes, key, sort) in all.iter().skip(from as usize) {
            let line = part.next_line().unwrap();
            prop_assert_eq!((line.bytes, line.key, line.sort), (bytes.as_slice(), key.as_slice(), *sort));
        }
        prop_assert!(part.next_line().is_none());
        let mut file = Vec::new();
        let counts = write_all(&spec, None, &mut file).unwrap();
        let joined: Vec<u8> = all.iter().flat_map(|(l, _, _)| l.iter().copied().chain([b'\n'])).collect();
        prop_assert_eq!(file, joined);
        let of = |sort| all.iter().filter(|(_, _, s)| *s == sort).count() as u64;
        prop_assert_eq!(
            (counts.fresh, counts.duplicates, counts.bad),
            (of(Sort::Fresh), of(Sort::Duplicate), of(Sort::Bad))
        );
    }
}

#[test]
fn fields_and_lines_say_the_same() {
    for kind in [Kind::Logs, Kind::Events] {
        let spec = spec(kind, 5000);
        let mut rows = Rows::starting_at(&spec, 0);
        for (line, _, _) in lines(&spec) {
            let told = value(&line);
            let record = rows.next_record().unwrap();
            for f in record {
                let name = if f.name == EVENT_TIME { "ts" } else { f.name.as_ref() };
                let mut text = Vec::new();
                crate::decode::json::write_value(&mut text, &f.value);
                assert_eq!(told[name], value(&text), "{name}");
            }
        }
    }
}

#[test]
fn logs_look_like_logs() {
    let spec = spec(Kind::Logs, 50_000);
    let mut levels: HashMap<String, u32> = HashMap::new();
    let mut services: HashMap<String, u32> = HashMap::new();
    let (mut late, mut high, mut traces) = (0, 0i64, 0);
    let mut rows = Rows::starting_at(&spec, 0);
    while let Some(r) = rows.next_record() {
        let text = |i: usize| match &r[i].value {
            Value::Text(s) | Value::Json(s) => s.to_string(),
            other => panic!("{other:?}"),
        };
        *levels.entry(text(1)).or_default() += 1;
        *services.entry(text(2)).or_default() += 1;
        traces += u32::from(text(5).contains("\"stack\":"));
        let Value::Time(ts) = r[0].value else { panic!() };
        assert!(ts <= spec.end && ts >= spec.end - 6 * DAY);
        late += u32::from(ts < high - 1800 * SECOND);
        high = high.max(ts);
    }
    assert_eq!((levels.len(), services.len()), (5, 15));
    assert!(
        levels["INFO"] > 30_000 && levels["FATAL"] < 700 && levels["ERROR"] > levels["FATAL"],
        "{levels:?}"
    );
    assert!(services["api-gateway"] > 10 * services["scheduler"], "{services:?}");
    assert!((300..800).contains(&late), "{late}");
    assert!(traces > 100 && traces < levels["ERROR"] + levels["FATAL"], "{traces}");
}

#[test]
fn sessions_go_down_the_funnel() {
    let spec = spec(Kind::Events, 40_000);
    let order = ["search", "view", "favourite", "contact"];
    let mut sessions: HashMap<String, (String, Vec<(String, String)>)> = HashMap::new();
    let mut ids = HashSet::new();
    let mut users: HashMap<String, u32> = HashMap::new();
    let mut homes: HashMap<String, (String, String)> = HashMap::new();
    for (line, key, _) in lines(&spec) {
        let v = value(&line);
        let text = |name: &str| v[name].as_str().unwrap().to_owned();
        assert!(ids.insert(text("event_id")));
        assert_eq!(text("user_id").as_bytes(), key);
        *users.entry(text("user_id")).or_default() += 1;
        let home = (v["event_data"]["region"].to_string(), v["device"].to_string());
        assert_eq!(homes.entry(text("user_id")).or_insert(home.clone()), &home);
        let session = sessions.entry(text("session_id")).or_insert((text("user_id"), Vec::new()));
        assert_eq!(session.0, text("user_id"));
        // Times of one length: as texts they are in order.
        let ts = text("ts");
        session.1.push((if ts.len() == 20 { ts.replace('Z', ".000000Z") } else { ts }, text("event_type")));
    }
    let mut reached = [0u32; 4];
    for (_, steps) in sessions.values() {
        assert!(steps.windows(2).all(|w| w[0].0 < w[1].0), "{steps:?}");
        let places: Vec<usize> =
            steps.iter().map(|s| order.iter().position(|o| *o == s.1).unwrap()).collect();
        assert!(places[0] == 0 && places.windows(2).all(|w| w[1] == w[0] || w[1] == w[0] + 1), "{places:?}");
        for n in &mut reached[..=*places.last().unwrap()] {
            *n += 1;
        }
    }
    assert!(reached[3] > 100 && reached.windows(2).all(|w| 2 * w[0] > 3 * w[1]), "{reached:?}");
    let most = *users.values().max().unwrap();
    assert!(most > 100 && users.len() > 2000, "{most} of {}", users.len());
}

#[test]
fn rates_are_kept() {
    for kind in [Kind::Logs, Kind::Events] {
        let spec = Spec { late: 50_000, duplicates: 30_000, bad: 20_000, ..spec(kind, 60_000) };
        let mut rows = Rows::starting_at(&spec, 0);
        while rows.next_line().is_some() {}
        let counts = rows.counts();
        assert_eq!(counts.records(), spec.rows);
        let near = |n: u64, wanted: f64| (n as f64) > wanted * 0.85 && (n as f64) < wanted * 1.15;
        assert!(near(counts.late, 0.05 * counts.fresh as f64), "{counts:?}");
        assert!(near(counts.duplicates, 0.03 * 60_000.0), "{counts:?}");
        assert!(near(counts.bad, 0.02 * 60_000.0), "{counts:?}");
    }
}

#[test]
fn duplicates_repeat_and_bad_ones_stay_in_their_line() {
    for kind in [Kind::Logs, Kind::Events] {
        let spec = Spec { duplicates: 100_000, bad: 100_000, ..spec(kind, 20_000) };
        let mut seen = HashSet::new();
        let mut huge = 0;
        for (line, _, sort) in lines(&spec) {
            assert!(!line.is_empty() && !line.contains(&b'\n'));
            huge += u32::from(line.len() > 200_000);
            match sort {
                Sort::Fresh => {
                    decode(std::str::from_utf8(&line).unwrap()).unwrap();
                    seen.insert(line);
                }
                Sort::Duplicate => assert!(seen.contains(&line)),
                Sort::Bad => assert!(!seen.contains(&line)),
            }
        }
        assert!(huge > 0);
    }
}

#[test]
fn live_rows_happen_now() {
    let spec = Spec { duplicates: 200_000, ..spec(Kind::Events, 0) };
    let mut rows = Rows::live(&spec);
    let now = spec.end + DAY;
    rows.set_now(now);
    let mut fresh: Vec<Vec<u8>> = Vec::new();
    for _ in 0..5000 {
        let line = rows.next_line().unwrap();
        match line.sort {
            Sort::Fresh => fresh.push(line.bytes.to_vec()),
            _ => assert!(line.bytes == fresh.last().unwrap().as_slice()),
        }
    }
    assert!((3800..4200).contains(&fresh.len()), "{}", fresh.len());
    let mut text = Vec::new();
    time::write(&mut text, now, b'T');
    let day = String::from_utf8(text).unwrap()[..10].to_owned();
    let today = fresh.iter().filter(|l| value(l)["ts"].as_str().unwrap().starts_with(&day)).count();
    assert!(today * 100 > fresh.len() * 95, "{today}");
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
        Spec { duplicates: 1, ..a.clone() },
        Spec { bad: 1, ..a.clone() },
        Spec { kind: Kind::Events, ..a.clone() },
    ] {
        assert_ne!(a.identity(), b.identity());
    }
}

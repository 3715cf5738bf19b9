//! What needs no server: literals and quoting. Analysis itself is tested with real trees, next to the plans (`plan::tests`).

use super::fold::{literal, quoted};
use super::{Catalog, Settings, Verdict, analyze};
use pgtree::value::Value;

fn shown(value: Value) -> String {
    literal(&value).expect("has a text").expect("is not NULL")
}

#[test]
fn literals_mean_the_same_under_every_style() {
    assert_eq!(shown(Value::Date(0)), "1970-01-01");
    assert_eq!(shown(Value::Date(19_782)), "2024-02-29");
    assert_eq!(shown(Value::Date(-735_160)), "0044-03-15 BC");
    assert_eq!(shown(Value::Date(i32::MAX)), "infinity");
    assert_eq!(shown(Value::Timestamp(-1)), "1969-12-31 23:59:59.999999");
    assert_eq!(shown(Value::TimestampTz(i64::MIN)), "-infinity");
    assert_eq!(shown(Value::TimestampTz(1_710_000_000_123_456)), "2024-03-09 16:00:00.123456+00");
    assert_eq!(
        shown(Value::Interval { months: -1, days: 7, micros: -3_600_000_001 }),
        "-1 mons +7 days -01:00:00.000001"
    );
    assert_eq!(shown(Value::Float8(f64::NAN)), "NaN");
    assert!(
        literal(&Value::Interval { months: 0, days: 0, micros: i64::MAX }).is_none(),
        "more hours than it reads"
    );
    assert_eq!(literal(&Value::Null), Some(None));
}

#[test]
fn strings_are_quoted_for_both_conforming_settings() {
    assert_eq!(quoted("it's"), "'it''s'");
    assert_eq!(quoted("a\\b'"), "E'a\\\\b'''");
}

/// Whatever its tree looks like: a field that is not read here may change what the others mean.
#[test]
fn versions_that_were_not_compared_are_refused_by_name() {
    let verdict = |major| analyze("()", &Catalog { major, ..Catalog::default() }, &Settings { timezone: "UTC".into() }, &[]);
    for (major, says) in [(14, "PostgreSQL 14"), (15, "cannot be read"), (18, "cannot be read"), (19, "PostgreSQL 19"), (0, "PostgreSQL 0")] {
        let Verdict::Postgres(reasons) = verdict(major) else { panic!("{major}") };
        assert!(reasons.len() == 1 && reasons[0].contains(says), "{major}: {reasons:?}");
    }
}

#[test]
fn letters_are_known_of_languages_without_rules_of_their_own() {
    use super::Letters;
    for (provider, name, letters) in [
        ("c", "C", Letters::Ascii),
        ("c", "C.UTF-8", Letters::Usual),
        ("c", "en_US.UTF-8", Letters::Usual),
        ("c", "tr_TR.UTF-8", Letters::Unknown),
        ("c", "en", Letters::Unknown),
        ("i", "en-US", Letters::Usual),
        ("i", "de@collation=phonebook", Letters::Usual),
        ("i", "und", Letters::Usual),
        ("i", "tr", Letters::Unknown),
        ("i", "az-Latn", Letters::Unknown),
        ("i", "", Letters::Unknown),
        ("b", "C.UTF-8", Letters::Unknown),
    ] {
        assert_eq!(Letters::of(provider, name), letters, "{provider} {name}");
    }
}

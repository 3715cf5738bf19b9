//! Templates against PostgreSQL itself.

use super::*;
use crate::testpg::{Random, cluster, escaped};
use arrow::array::{Array, AsArray};

const TEMPLATES: &[&str] = &[
    "",
    "YYYY-MM-DD",
    "YYYY-MM-DD HH24:MI:SS",
    "YYYY-MM-DD HH24:MI:SS.MS",
    "YYYY-MM-DD\"T\"HH24:MI:SS.US",
    "HH12:MI AM",
    "hh:mi p.m.",
    "Mon DD, YYYY",
    "DD Mon YY",
    "FMMonth FMDD, YYYY",
    "Month|MONTH|month",
    "FMMonth|FMmonth",
    "MON mon Mon",
    "Day DAY day",
    "FMDay, FMDD",
    "Dy DY dy",
    "D ID",
    "DDD",
    "FMDDD",
    "WW W",
    "IYYY-IW",
    "YYYY\"Q\"Q",
    "\"Week\" IW",
    "YYYYMMDDHH24MISS",
    "YYY YY Y",
    "FMHH24:FMMI:FMSS",
    "FMHH12",
    "SSSS",
    "SSSSS",
    "FF1 FF2 FF3 FF4 FF5 FF6",
    "FMMS",
    "yyyy-mm-dd hh24:mi:ss",
    "ddd dd d",
    "q",
    "\"a\\\"b\\\\c\"YYYY",
    "\\\"YYYY\\\"",
    "a\\bY",
    "été YYYY 日",
    "YYYY/MM/DD hh24h",
    "DD.MM.YYYY",
    "\"unclosed YYYY",
    "FM YYYY",
    "Q\\",
    "HH24:00",
    "YYYY-MM-01",
    "  MM  ",
    "xyz",
    // Not written here.
    "TMMonth",
    "DDth",
    "FMDDTH",
    "BC YYYY",
    "YYYY AD",
    "TZ",
    "OF",
    "J",
    "RM",
    "CC",
    "Y,YYY",
    "FXYYYY",
    "I",
    "IDDD",
    "FM",
    "YYYYSP",
];

#[test]
fn templates_are_postgres() {
    let mut random = Random(0x5eed_0030);
    let mut values = vec![
        0,
        i64::MAX,
        i64::MIN,
        1_709_164_799_999_999,
        1_710_054_000_000_000,
        -62_135_596_800_000_000,
        -62_200_000_000_000_000,
    ];
    (0..40).for_each(|_| {
        values.push(random.within(-2_000_000_000, 4_000_000_000) * 1_000_000 + random.within(0, 999_999))
    });
    let mut written = 0;
    for zone in ["UTC", "America/New_York", "Asia/Kolkata"] {
        let parsed = Zone::parse(zone).expect("a zone");
        let array = TimestampMicrosecondArray::from(values.clone()).with_timezone("UTC");
        // Refused values are none of these zones'.
        let literal = |us: &i64| match *us {
            i64::MAX => "'infinity'".into(),
            i64::MIN => "'-infinity'".into(),
            us => format!("timestamptz '1970-01-01 00:00+00' + '{us} microseconds'::interval"),
        };
        let list = values.iter().map(literal).collect::<Vec<_>>().join(", ");
        for template in TEMPLATES {
            let Some(ours) = Template::parse(template) else { continue };
            written += 1;
            let prelude = format!("CREATE TEMP TABLE t AS SELECT U&'{}'::text AS f;", escaped(template));
            let query = format!(
                "SELECT to_char(ts, f) FROM t, unnest(ARRAY[{list}]::timestamptz[]) WITH ORDINALITY u(ts, n) ORDER BY n"
            );
            let rows = cluster().copy_text(&[("TimeZone", zone)], &prelude, &query);
            let texts = to_char(&array, &ours, &parsed).expect("texts");
            let texts: Vec<Option<String>> =
                texts.as_string_view().iter().map(|t| t.map(str::to_owned)).collect();
            let wanted: Vec<Option<String>> = rows.into_iter().map(|mut r| r.remove(0)).collect();
            assert_eq!(texts, wanted, "{template:?} in {zone}");
        }
    }
    assert!(written >= 3 * 45, "{written}");
    for template in &TEMPLATES[TEMPLATES.len() - 16..] {
        assert!(Template::parse(template).is_none(), "{template:?}");
    }
}

/// Templates of random keywords and characters are either refused or PostgreSQL's.
#[test]
fn random_templates_are_postgres() {
    let mut random = Random(0x5eed_0031);
    let array = TimestampMicrosecondArray::from(vec![1_709_164_799_123_456]);
    let mut templates = Vec::new();
    while templates.len() < 400 {
        let mut template = String::new();
        for _ in 0..random.below(5) + 1 {
            match random.below(4) {
                0 => template.push_str(
                    random.pick::<&str>(&["FM", "-", ":", " ", "\"", "\\", "x", "T", "h", "0", "é"]),
                ),
                _ => template.push_str(random.pick(KEYWORDS).0),
            }
        }
        if let Some(ours) = Template::parse(&template) {
            templates.push((template, ours));
        }
    }
    let values: Vec<String> =
        templates.iter().enumerate().map(|(n, t)| format!("({n}, U&'{}')", escaped(&t.0))).collect();
    let prelude = format!("CREATE TEMP TABLE t AS SELECT * FROM (VALUES {}) v(n, f);", values.join(", "));
    let rows = cluster().copy_text(
        &[],
        &prelude,
        "SELECT to_char(timestamp '2024-02-28 23:59:59.123456', f) FROM t ORDER BY n",
    );
    for ((template, ours), want) in templates.iter().zip(rows) {
        let text = to_char(&array, ours, &Zone::utc()).expect("a text");
        let text = (!text.is_null(0)).then(|| text.as_string_view().value(0).to_owned());
        assert_eq!(text, want[0], "{template:?}");
    }
}

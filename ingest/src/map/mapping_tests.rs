use proptest::prelude::*;

use super::*;
use crate::decode::json;
use crate::target::{TargetColumn, standard_logs};

/// A table of odd columns beside an event time and an overflow column.
fn orders() -> Target {
    let column =
        |name: &str, kind| TargetColumn { name: name.into(), kind, not_null: false, has_default: false };
    let mut target = standard_logs();
    target.name = "orders".into();
    target.columns = vec![
        TargetColumn { not_null: true, ..column("ts", Kind::TimestampTz) },
        column("customer", Kind::Text),
        column("amount", Kind::Numeric),
        column("items", Kind::Int4),
        column("paid", Kind::Bool),
        column("tags", Kind::Json),
        column("level", Kind::Text),
        TargetColumn { has_default: true, ..column("note", Kind::Text) },
        column("rest", Kind::Json),
    ];
    target.event_time = 0;
    target.overflow = Some(8);
    target
}

fn mapping(toml: &str) -> Mapping {
    // The settings' own format stands in `cli`; the shape is the same in JSON.
    serde_json::from_str(toml).unwrap_or_else(|e| panic!("{toml}: {e}"))
}

fn mapper(json: &str) -> Mapper {
    Mapper::with_mapping(orders(), &mapping(json)).unwrap()
}

/// The cells of a record's row, those of columns with defaults that are left out missing.
fn cells(mapper: &mut Mapper, origin: &Origin<'_>, record: &str) -> std::result::Result<Vec<String>, String> {
    let mut batch = Batch::default();
    mapper.map_from(&json::decode(record)?, origin, &mut batch, 1, b"")?;
    let segment = batch.segments.iter().find(|s| !s.is_empty()).unwrap();
    let text = String::from_utf8(segment.row(0).text.to_vec()).unwrap();
    Ok(text.split('\t').map(str::to_owned).collect())
}

/// The cell of one column, and the overflow.
fn cell(mapping: &str, column: &str, record: &str) -> std::result::Result<(String, String), String> {
    let mut m = mapper(mapping);
    let cells = cells(&mut m, &Origin::NONE, record)?;
    let at = orders().columns.iter().position(|c| c.name == column).unwrap();
    let skipped = usize::from(cells.len() < 9 && at > 7);
    Ok((cells[at - skipped].clone(), cells.last().unwrap().clone()))
}

#[test]
fn columns_take_what_their_mapping_names() {
    for (mapping, column, record, value, rest) in [
        // A name, a path, a pointer; what was used is not kept twice.
        (r#"{"columns":{"customer":{"from":"user"}}}"#, "customer", r#"{"ts":0,"user":"a"}"#, "a", "\\N"),
        (
            r#"{"columns":{"customer":{"from":"user.name"}}}"#,
            "customer",
            r#"{"ts":0,"user":{"name":"a","age":3}}"#,
            "a",
            r#"{"user":{"age":3}}"#,
        ),
        (
            r#"{"columns":{"customer":{"from":"user.name"}}}"#,
            "customer",
            r#"{"ts":0,"user":{"name":"a"}}"#,
            "a",
            "\\N",
        ),
        (
            r#"{"columns":{"customer":{"from":"user.name"}}}"#,
            "customer",
            r#"{"ts":0,"user.name":"a"}"#,
            "a",
            "\\N",
        ),
        (
            r#"{"columns":{"customer":{"from":"a.b.c"}}}"#,
            "customer",
            r#"{"ts":0,"a":{"b.c":"x","d":1}}"#,
            "x",
            r#"{"a":{"d":1}}"#,
        ),
        (
            r#"{"columns":{"customer":{"from":"/user/names/1"}}}"#,
            "customer",
            r#"{"ts":0,"user":{"names":["a","b"]}}"#,
            "b",
            r#"{"user":{"names":["a","b"]}}"#,
        ),
        (r#"{"columns":{"customer":{"from":"/a~1b"}}}"#, "customer", r#"{"ts":0,"a/b":"x"}"#, "x", "\\N"),
        (
            r#"{"columns":{"customer":{"from":"/a.b"}}}"#,
            "customer",
            r#"{"ts":0,"a":{"b":"x"}}"#,
            "\\N",
            r#"{"a":{"b":"x"}}"#,
        ),
        // The first that is there and not null.
        (
            r#"{"columns":{"customer":{"from":["u","user","/x/0"]}}}"#,
            "customer",
            r#"{"ts":0,"u":null,"user":"b","x":["c"]}"#,
            "b",
            r#"{"u":null,"x":["c"]}"#,
        ),
        // A column's own name counts only where it is named.
        (
            r#"{"columns":{"customer":{"from":"user"}}}"#,
            "customer",
            r#"{"ts":0,"customer":"no"}"#,
            "\\N",
            r#"{"customer":"no"}"#,
        ),
        // Two columns from one key; by name beside it.
        (r#"{"columns":{"level":{"from":"customer"}}}"#, "level", r#"{"ts":0,"customer":"x"}"#, "x", "\\N"),
        // Defaults and constants.
        (r#"{"columns":{"customer":{"default":"nobody"}}}"#, "customer", r#"{"ts":0}"#, "nobody", "\\N"),
        (
            r#"{"columns":{"customer":{"default":"nobody"}}}"#,
            "customer",
            r#"{"ts":0,"customer":null}"#,
            "nobody",
            "\\N",
        ),
        (r#"{"columns":{"items":{"default":5}}}"#, "items", r#"{"ts":0,"items":7}"#, "7", "\\N"),
        (
            r#"{"columns":{"customer":{"constant":"x"}}}"#,
            "customer",
            r#"{"ts":0,"customer":"y"}"#,
            "x",
            r#"{"customer":"y"}"#,
        ),
        (r#"{"columns":{"paid":{"constant":true}}}"#, "paid", r#"{"ts":0}"#, "t", "\\N"),
        (r#"{"columns":{"tags":{"constant":"[1]"}}}"#, "tags", r#"{"ts":0}"#, "[1]", "\\N"),
        // Unknown keys.
        (r#"{"unknown":"drop"}"#, "customer", r#"{"ts":0,"x":1,"customer":"c"}"#, "c", "\\N"),
        (r#"{"unknown":"drop"}"#, "customer", r#"{"ts":0,"x":1,"rest":{"y":2}}"#, "\\N", r#"{"y":2}"#),
        // Casts.
        (r#"{"columns":{"items":{"cast":"integer"}}}"#, "items", r#"{"ts":0,"items":2.5}"#, "3", "\\N"),
        (r#"{"columns":{"items":{"cast":"integer"}}}"#, "items", r#"{"ts":0,"items":"-2.5"}"#, "-3", "\\N"),
        (r#"{"columns":{"items":{"cast":"integer"}}}"#, "items", r#"{"ts":0,"items":1e3}"#, "1000", "\\N"),
        (r#"{"columns":{"items":{"cast":"integer"}}}"#, "items", r#"{"ts":0,"items":""}"#, "\\N", "\\N"),
        (
            r#"{"columns":{"items":{"cast":"integer","default":9}}}"#,
            "items",
            r#"{"ts":0,"items":" "}"#,
            "9",
            "\\N",
        ),
        (
            r#"{"columns":{"amount":{"cast":"number"}}}"#,
            "amount",
            r#"{"ts":0,"amount":" 1.50 "}"#,
            "1.50",
            "\\N",
        ),
        (r#"{"columns":{"tags":{"cast":"number"}}}"#, "tags", r#"{"ts":0,"tags":"1.50"}"#, "1.50", "\\N"),
        (r#"{"columns":{"paid":{"cast":"boolean"}}}"#, "paid", r#"{"ts":0,"paid":2}"#, "t", "\\N"),
        (r#"{"columns":{"paid":{"cast":"boolean"}}}"#, "paid", r#"{"ts":0,"paid":"No"}"#, "f", "\\N"),
        (
            r#"{"columns":{"tags":{"cast":"json"}}}"#,
            "tags",
            r#"{"ts":0,"tags":"{\"a\": 1.0}"}"#,
            r#"{"a": 1.0}"#,
            "\\N",
        ),
        (r#"{"columns":{"tags":{"cast":"text"}}}"#, "tags", r#"{"ts":0,"tags":5}"#, r#""5""#, "\\N"),
        (
            r#"{"columns":{"customer":{"cast":"text"}}}"#,
            "customer",
            r#"{"ts":0,"customer":{"a":[1]}}"#,
            r#"{"a":[1]}"#,
            "\\N",
        ),
        (
            r#"{"columns":{"level":{"cast":"level"}}}"#,
            "level",
            r#"{"ts":0,"level":"Warning"}"#,
            "WARN",
            "\\N",
        ),
        (r#"{"columns":{"level":{"cast":"level"}}}"#, "level", r#"{"ts":0,"level":50}"#, "ERROR", "\\N"),
        (
            r#"{"columns":{"level":{"cast":"level"}}}"#,
            "level",
            r#"{"ts":0,"level":"custom"}"#,
            "custom",
            "\\N",
        ),
        ("{}", "level", r#"{"ts":0,"level":"Warning"}"#, "Warning", "\\N"),
    ] {
        let got = cell(mapping, column, record);
        assert_eq!(got, Ok((value.to_owned(), rest.to_owned())), "{mapping} {record}");
    }
}

#[test]
fn times_are_read_as_the_mapping_says() {
    for (time, value, want) in [
        ("auto", "1709251200", "2024-03-01 00:00:00+00"),
        ("auto", "1709251200000", "2024-03-01 00:00:00+00"),
        ("auto", "\"2024-03-01T01:00:00+01:00\"", "2024-03-01 00:00:00+00"),
        ("s", "1709251200.25", "2024-03-01 00:00:00.250000+00"),
        // By magnitude this would be milliseconds.
        ("s", "253370764800", "9999-01-01 00:00:00+00"),
        ("ms", "1", "1970-01-01 00:00:00.001000+00"),
        ("ms", "\"1709251200000\"", "2024-03-01 00:00:00+00"),
        ("us", "1", "1970-01-01 00:00:00.000001+00"),
        ("ns", "1709251200000000999", "2024-03-01 00:00:00+00"),
        ("iso8601", "\"2024-03-01 00:00:00,5\"", "2024-03-01 00:00:00.500000+00"),
        ("%d/%b/%Y:%H:%M:%S %z", "\"01/Mar/2024:01:00:00 +0100\"", "2024-03-01 00:00:00+00"),
        ("%Y%m%d", "20240301", "2024-03-01 00:00:00+00"),
        ("%d.%m.%Y %H:%M", "\"01.03.2024 12:30\"", "2024-03-01 12:30:00+00"),
        ("%s%.f", "\"1709251200.5\"", "2024-03-01 00:00:00.500000+00"),
    ] {
        let mapping = format!(r#"{{"columns":{{"ts":{{"from":"at","time":"{time}"}}}}}}"#);
        let got = cell(&mapping, "ts", &format!(r#"{{"at":{value}}}"#));
        assert_eq!(got, Ok((want.to_owned(), "\\N".to_owned())), "{time} {value}");
    }
    for (time, value, why) in [
        ("ms", "\"2024-03-01\"", "no epoch number"),
        ("iso8601", "1709251200", "no ISO 8601"),
        ("%Y-%m-%d", "\"2024-13-01\"", "not written as"),
        ("%H:%M", "\"12:30\"", "not written as"),
        ("s", "1e300", "out of range"),
        ("auto", "[1]", "no time"),
        ("auto", "null", "must not be"),
        ("auto", "\"infinity\"", "finite"),
    ] {
        let mapping = format!(r#"{{"columns":{{"ts":{{"from":"at","time":"{time}"}}}}}}"#);
        let got = cell(&mapping, "ts", &format!(r#"{{"at":{value}}}"#)).unwrap_err();
        assert!(got.starts_with("column ts") && got.contains(why), "{time} {value}: {got}");
    }
    // Without a `from`, the column's own name and then the usual names of a time.
    let own = r#"{"columns":{"ts":{"time":"ms"}}}"#;
    assert_eq!(cell(own, "ts", r#"{"ts":1}"#).unwrap().0, "1970-01-01 00:00:00.001000+00");
    assert_eq!(
        cell(own, "ts", r#"{"timestamp":1}"#).unwrap(),
        ("1970-01-01 00:00:00.001000+00".into(), "\\N".into())
    );
    assert!(cell(own, "ts", r#"{"x":1}"#).unwrap_err().contains("no event time: none of /ts, /@timestamp"));
}

#[test]
fn parts_of_the_kafka_record_fill_columns() {
    let headers: [(&str, Option<&[u8]>); 3] = [("h", Some(b"1")), ("h", Some(b"2")), ("bin", Some(b"\xff"))];
    let origin = Origin {
        topic: "t",
        partition: 3,
        offset: 9,
        timestamp: Some(1_709_251_200_000_000),
        key: Some(br#"{"id":7}"#),
        headers: &headers,
    };
    let mut m = mapper(
        r#"{"columns":{"ts":{"from":["at","$timestamp"]},"customer":{"from":"$key"},"amount":{"from":"$key/id"},
            "items":{"from":"$partition"},"level":{"from":"$header.h"},"note":{"from":["$header.no","$topic"]}}}"#,
    );
    assert_eq!(
        cells(&mut m, &origin, r#"{"x":1}"#).unwrap(),
        ["2024-03-01 00:00:00+00", r#"{"id":7}"#, "7", "3", "\\N", "\\N", "2", "t", r#"{"x":1}"#]
    );
    // A record of no topic has none of it.
    assert!(cells(&mut m, &Origin::NONE, r#"{"x":1}"#).unwrap_err().contains("no event time"));
    assert_eq!(cells(&mut m, &Origin::NONE, r#"{"at":0}"#).unwrap()[1..4], ["\\N", "\\N", "\\N"]);
    // A clock that is far off gives no time.
    for us in [i64::MAX, i64::MIN] {
        let origin = Origin { timestamp: Some(us), ..origin };
        assert!(cells(&mut m, &origin, r#"{"x":1}"#).unwrap_err().contains("no event time"));
    }
    let mut m = mapper(r#"{"columns":{"customer":{"from":"$header.bin"}}}"#);
    assert_eq!(cells(&mut m, &origin, r#"{"ts":0}"#).unwrap()[1], "\\\\xff");
}

#[test]
fn a_column_with_a_default_of_its_own_keeps_it() {
    let mut m = mapper(r#"{"columns":{"note":{"from":"n"}}}"#);
    assert_eq!(cells(&mut m, &Origin::NONE, r#"{"ts":0}"#).unwrap().len(), 8);
    assert_eq!(cells(&mut m, &Origin::NONE, r#"{"ts":0,"n":"x"}"#).unwrap()[7], "x");
    assert_eq!(cells(&mut m, &Origin::NONE, r#"{"ts":0,"n":null}"#).unwrap()[7], "\\N");
}

#[test]
fn a_mapping_that_cannot_be_says_so_before_the_first_record() {
    for (json, why) in [
        (r#"{"columns":{"nope":{}}}"#, "no such column"),
        (r#"{"columns":{"customer":{"from":""}}}"#, "empty"),
        (r#"{"columns":{"customer":{"from":"/a~2"}}}"#, "no JSON pointer"),
        (r#"{"columns":{"customer":{"from":"$offest"}}}"#, "written as a pointer"),
        (r#"{"columns":{"customer":{"constant":1,"from":"a"}}}"#, "stands alone"),
        (r#"{"columns":{"items":{"constant":"many"}}}"#, "no integer"),
        (r#"{"columns":{"items":{"default":3000000000}}}"#, "out of range"),
        (r#"{"columns":{"ts":{"default":"infinity"}}}"#, "finite"),
        (r#"{"columns":{"ts":{"time":"minutes"}}}"#, "none of auto"),
        (r#"{"columns":{"ts":{"time":"%Q"}}}"#, "no format"),
        (r#"{"columns":{"ts":{"time":"s","cast":"text"}}}"#, "not both"),
    ] {
        let got = Mapper::with_mapping(orders(), &mapping(json)).unwrap_err().to_string();
        assert!(got.contains(why) && got.contains("mapping of table public.orders"), "{json}: {got}");
    }
    assert!(serde_json::from_str::<Mapping>(r#"{"columns":{"a":{"form":"x"}}}"#).is_err());
    assert!(Mapper::with_mapping(orders(), &Mapping::default()).unwrap().plan.is_none());
}

#[test]
fn unknown_keys_are_refused_where_the_mapping_rejects_them() {
    let mut m = mapper(r#"{"unknown":"reject","columns":{"customer":{"from":"u.name"}}}"#);
    let mut one = |record: &str| cells(&mut m, &Origin::NONE, record);
    assert!(one(r#"{"ts":0,"u":{"name":"a"}}"#).is_ok());
    assert!(one(r#"{"ts":0,"x":1}"#).unwrap_err().contains("rejects unknown keys"));
    assert!(one(r#"{"ts":0,"u":{"name":"a","more":1}}"#).unwrap_err().contains("\"u\""));
    // Without an overflow column they can be dropped all the same.
    let mut target = orders();
    target.overflow = None;
    let mut m = Mapper::with_mapping(target, &mapping(r#"{"unknown":"drop"}"#)).unwrap();
    assert!(cells(&mut m, &Origin::NONE, r#"{"ts":0,"x":1}"#).is_ok());
}

#[test]
fn lifted_keys_fill_their_columns() {
    let mut m = Mapper::new(standard_logs()).unwrap();
    let mut row = |record: &str| cells(&mut m, &Origin::NONE, record).unwrap();
    assert_eq!(
        row(r#"{"ts":0,"log.level":"e","host":{"ip":1},"host.name":"h","service.name":"s"}"#)[1..],
        ["e", "s", "h", "\\N", r#"{"host":{"ip":1}}"#]
    );
    // Two that both could be it: the column's own name wins, and the other is kept.
    assert_eq!(row(r#"{"ts":0,"host":"a","host.name":"b"}"#)[3..], ["a", "\\N", r#"{"host.name":"b"}"#]);
    // A declared path finds what an envelope has lifted, as a path and as a pointer.
    for from in ["log.level", "/log/level"] {
        let mapping = mapping(&format!(r#"{{"columns":{{"message":{{"from":"{from}"}}}}}}"#));
        let mut m = Mapper::with_mapping(standard_logs(), &mapping).unwrap();
        assert_eq!(
            cells(&mut m, &Origin::NONE, r#"{"ts":0,"log.level":"e","log":{"x":1}}"#).unwrap()[4],
            "e"
        );
    }
}

#[test]
fn deep_paths_and_deep_values_do_not_exhaust_the_stack() {
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let path = vec!["a"; MAX_TEST_STEPS].join(".");
    let mapping = format!(r#"{{"columns":{{"customer":{{"from":"x.{path}"}}}}}}"#);
    let mut m = mapper(&mapping);
    let row = cells(&mut m, &Origin::NONE, &format!(r#"{{"ts":0,"x":{deep}}}"#)).unwrap();
    assert!(row[1].starts_with("{\"a\":"));
    assert!(
        Mapper::with_mapping(
            orders(),
            &super::Mapping {
                columns: [(
                    "customer".to_owned(),
                    ColumnMapping { from: vec![vec!["a"; 40].join(".")], ..ColumnMapping::default() }
                )]
                .into_iter()
                .collect(),
                ..Mapping::default()
            }
        )
        .is_err()
    );
}

const MAX_TEST_STEPS: usize = 8;

proptest! {
    #[test]
    fn mapping_never_panics_whatever_comes(
        value in prop::collection::vec(any::<u8>(), 0..300),
        key in prop::collection::vec(any::<u8>(), 0..20),
        timestamp in any::<Option<i64>>(),
    ) {
        let mut m = mapper(r#"{"columns":{"customer":{"from":["a.b","/a/0","$key","$key/x"]},"amount":{"cast":"number"},"items":{"cast":"integer"},"paid":{"cast":"boolean"},"level":{"cast":"level"},"note":{"from":"$timestamp"}}}"#);
        let origin = Origin { topic: "t", key: Some(&key), timestamp, ..Origin::NONE };
        let mut batch = Batch::default();
        m.map_value(Envelope::Auto, &value, &origin, &mut batch, 1);
    }

    #[test]
    fn whatever_is_declared_rows_have_their_cells(
        a in "[ -~]{0,20}", b in any::<f64>(), c in any::<i64>(), which in 0..6usize,
    ) {
        let cast = ["text", "integer", "number", "boolean", "json", "level"][which];
        let mut out = Vec::new();
        json::write_string(&mut out, &a);
        let a = String::from_utf8(out).unwrap();
        let b = if b.is_finite() { b.to_string() } else { "null".to_owned() };
        let mut m = mapper(&format!(r#"{{"columns":{{"customer":{{"from":"a","cast":"{cast}"}},"tags":{{"from":"b","cast":"text"}},"amount":{{"from":"c","cast":"number"}}}}}}"#));
        if let Ok(cells) = cells(&mut m, &Origin::NONE, &format!(r#"{{"ts":0,"a":{a},"b":{b},"c":{c}}}"#)) {
            prop_assert_eq!(cells.len(), 8);
            prop_assert_eq!(&cells[2], &c.to_string());
        }
    }
}

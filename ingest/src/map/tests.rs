use proptest::prelude::*;

use super::*;
use crate::decode::{Decoder, json};
use crate::target::{TargetColumn, standard_logs};

/// Maps one JSON record to its COPY row, as text.
fn row(mapper: &mut Mapper, record: &str) -> std::result::Result<String, String> {
    let mut batch = Batch::default();
    let fields = json::decode(record)?;
    mapper.map(&fields, &mut batch, 1, record.as_bytes())?;
    let segment = batch.segments.iter().find(|s| !s.is_empty()).unwrap();
    Ok(String::from_utf8(segment.row(0).text.to_vec()).unwrap())
}

fn logs() -> Mapper {
    Mapper::new(standard_logs()).unwrap()
}

#[test]
fn keys_go_to_columns_and_the_rest_to_overflow() {
    let mut m = logs();
    for (record, want) in [
        (
            r#"{"ts":"2024-01-01T00:00:00Z","level":"INFO","service":"a","host":"h","message":"m","metadata":{"k":1.50}}"#,
            "2024-01-01 00:00:00+00\tINFO\ta\th\tm\t{\"k\":1.50}",
        ),
        (r#"{"ts":1446249499.5}"#, "2015-10-30 23:58:19.500000+00\t\\N\t\\N\t\\N\t\\N\t\\N"),
        (
            r#"{"timestamp":1446249499322,"x":{"y":[1]},"load_timestamp":2}"#,
            "2015-10-30 23:58:19.322000+00\t\\N\t\\N\t\\N\t\\N\t{\"x\":{\"y\":[1]},\"load_timestamp\":2}",
        ),
        (
            r#"{"@timestamp":"2024-01-01","timestamp":5,"message":"a\tb\\c\nd"}"#,
            "2024-01-01 00:00:00+00\t\\N\t\\N\t\\N\ta\\tb\\\\c\\nd\t{\"timestamp\":5}",
        ),
        (
            r#"{"ts":0,"level":3,"service":true,"host":{"a":"\n"},"message":null,"metadata":null,"z":1}"#,
            "1970-01-01 00:00:00+00\t3\ttrue\t{\"a\":\"\\\\n\"}\t\\N\t{\"z\":1}",
        ),
        (
            r#"{"ts":0,"k":1,"metadata":{"k":2,"j":3}}"#,
            "1970-01-01 00:00:00+00\t\\N\t\\N\t\\N\t\\N\t{\"record.k\":1,\"k\":2,\"j\":3}",
        ),
        (
            r#"{"ts":0,"k":1,"metadata":[7]}"#,
            "1970-01-01 00:00:00+00\t\\N\t\\N\t\\N\t\\N\t{\"k\":1,\"metadata\":[7]}",
        ),
        (r#"{"ts":0,"level":"a","level":"b"}"#, "1970-01-01 00:00:00+00\tb\t\\N\t\\N\t\\N\t\\N"),
    ] {
        assert_eq!(row(&mut m, record).unwrap(), want, "{record}");
    }
}

#[test]
fn columns_with_defaults_are_left_out_unless_named() {
    let mut m = logs();
    let mut batch = Batch::default();
    for r in [
        r#"{"ts":0}"#,
        r#"{"ts":1,"ingested_at":"2024-01-01T00:00:00Z"}"#,
        r#"{"ts":2}"#,
        r#"{"ts":3,"ingested_at":null}"#,
    ] {
        m.map(&json::decode(r).unwrap(), &mut batch, 1, r.as_bytes()).unwrap();
    }
    assert_eq!(batch.segments.iter().map(|s| (s.absent, s.len())).collect::<Vec<_>>(), [(1, 2), (0, 2)]);
    assert_eq!(
        batch.segments.iter().flat_map(|s| (0..s.len()).map(|i| s.row(i).number)).collect::<Vec<_>>(),
        [0, 2, 1, 3]
    );
    assert_eq!(batch.segments[1].row(1).raw, br#"{"ts":3,"ingested_at":null}"#);
    assert!(batch.segments[1].row(1).text.ends_with(b"\t\\N"));
    assert_eq!(
        m.copy_statement(1),
        "COPY \"public\".\"logs\" (\"ts\", \"level\", \"service\", \"host\", \"message\", \"metadata\", _stream, _offset) \
         FROM STDIN (FORMAT text, ENCODING 'UTF8')"
    );
    assert!(m.copy_statement(0).contains("\"ingested_at\", _stream"));
}

#[test]
fn what_is_no_row_says_why_and_leaves_nothing_behind() {
    let mut m = logs();
    for (record, why) in [
        (r#"{"level":"x"}"#, "no event time"),
        (r#"{"ts":null}"#, "must not be"),
        (r#"{"ts":"infinity"}"#, "finite"),
        (r#"{"ts":"-infinity"}"#, "finite"),
        (r#"{"ts":"soon"}"#, "neither an ISO 8601"),
        (r#"{"ts":1e300}"#, "out of range"),
        (r#"{"ts":true}"#, "no time"),
        (r#"{"ts":0,"ingested_at":"x"}"#, "column ingested_at"),
    ] {
        let mut batch = Batch::default();
        let got = m.map(&json::decode(record).unwrap(), &mut batch, 1, b"").unwrap_err();
        assert!(got.contains(why), "{record}: {got}");
        assert_eq!((batch.rows(), batch.bytes()), (0, 0), "{record}");
    }
    // CSV cells can hold what JSON decoding would have refused before.
    let nul = vec![
        Field { name: "ts".into(), value: Value::Int(0) },
        Field { name: "message".into(), value: Value::Text("a\0b".into()) },
    ];
    assert!(m.map(&nul, &mut Batch::default(), 1, b"").unwrap_err().contains("NUL"));
    let nul = vec![
        Field { name: "ts".into(), value: Value::Int(0) },
        Field { name: "other".into(), value: Value::Text("a\0b".into()) },
    ];
    assert!(m.map(&nul, &mut Batch::default(), 1, b"").unwrap_err().contains("NUL"));
}

#[test]
fn without_an_overflow_column_nothing_is_dropped_silently() {
    let mut target = standard_logs();
    target.overflow = None;
    let mut m = Mapper::new(target).unwrap();
    assert!(row(&mut m, r#"{"ts":0,"extra":1}"#).unwrap_err().contains("no overflow column"));
    assert!(row(&mut m, r#"{"timestamp":0,"metadata":{"a":1}}"#).is_ok());
}

#[test]
fn every_type() {
    let kinds = [
        ("b", Kind::Bool),
        ("i2", Kind::Int2),
        ("i4", Kind::Int4),
        ("i8", Kind::Int8),
        ("f4", Kind::Float4),
        ("f8", Kind::Float8),
        ("n", Kind::Numeric),
        ("t", Kind::Timestamp),
        ("d", Kind::Date),
        ("u", Kind::Uuid),
        ("y", Kind::Bytea),
        ("j", Kind::Json),
        ("o", Kind::Other),
    ];
    let mut target = standard_logs();
    target.columns.truncate(1);
    target.overflow = None;
    for (name, kind) in kinds {
        target.columns.push(TargetColumn { name: name.into(), kind, not_null: false, has_default: false });
    }
    let mut m = Mapper::new(target).unwrap();
    let mut one = |name: &str, value: &str| -> std::result::Result<String, String> {
        let at = 1 + kinds.iter().position(|k| k.0 == name).unwrap();
        let r = row(&mut m, &format!("{{\"ts\":0,\"{name}\":{value}}}"))?;
        Ok(r.split('\t').nth(at).unwrap().to_owned())
    };
    for (name, value, want) in [
        ("b", "true", "t"),
        ("b", "\"off\"", "f"),
        ("b", "1", "t"),
        ("i2", "-32768", "-32768"),
        ("i4", "2147483647", "2147483647"),
        ("i8", "-9223372036854775808", "-9223372036854775808"),
        ("i4", "3.0", "3"),
        ("i4", "\" 7 \"", "7"),
        ("i8", "\"+5\"", "5"),
        ("f8", "1.5e3", "1.5e3"),
        ("f8", "\"NaN\"", "NaN"),
        ("f4", "\"-inf\"", "-Infinity"),
        ("f8", "0e999", "0e999"),
        ("n", "123456789012345678901234567890.10", "123456789012345678901234567890.10"),
        ("n", "\"nan\"", "NaN"),
        ("t", "\"2024-01-01T00:00:00+01:00\"", "2023-12-31 23:00:00"),
        ("t", "\"infinity\"", "infinity"),
        ("d", "\"2024-02-29\"", "2024-02-29"),
        ("d", "1704067200", "2024-01-01"),
        ("u", "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("u", "\"{a0eebc999c0b4ef8bb6d6bb9bd380a11}\"", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("y", "\"\\\\xDEad\"", "\\\\xdead"),
        ("y", "\"hi\"", "\\\\x6869"),
        ("j", "[1, {\"a\":2.0}]", "[1, {\"a\":2.0}]"),
        ("j", "\"s\"", "\"s\""),
        ("j", "null", "\\N"),
        ("o", "\"anything\"", "anything"),
        ("i4", "null", "\\N"),
    ] {
        assert_eq!(one(name, value).unwrap(), want, "{name} {value}");
    }
    for (name, value) in [
        ("b", "\"maybe\""),
        ("b", "[]"),
        ("i2", "32768"),
        ("i4", "-2147483649"),
        ("i8", "9223372036854775808"),
        ("i4", "1.5"),
        ("i4", "\"\""),
        ("i4", "true"),
        ("i4", "1e3"),
        ("f4", "1e39"),
        ("f8", "1e309"),
        ("f8", "1e-400"),
        ("f8", "\"one\""),
        ("n", "\"1_000\""),
        ("n", "{}"),
        ("t", "\"2024-13-01\""),
        ("d", "\"x\""),
        ("u", "\"abc\""),
        ("u", "5"),
        ("y", "\"\\\\xzz\""),
    ] {
        let got = one(name, value);
        assert!(
            got.as_ref().is_err_and(|e| e.contains(&format!("column {name}"))),
            "{name} {value}: {got:?}"
        );
    }
}

#[test]
fn csv_cells_in_json_columns_must_be_json() {
    let mut m = logs();
    let header = crate::decode::csv::Header {
        names: vec!["ts".into(), "metadata".into(), "more".into()],
        delimiter: b',',
    };
    let mut d = Decoder::Csv(header);
    let mut batch = Batch::default();
    let r = d.decode(b"2024-01-01,\"{\"\"a\"\":1}\",x").unwrap();
    m.map(&r, &mut batch, 1, b"").unwrap();
    assert!(batch.segments[0].row(0).text.ends_with(b"\t{\"more\":\"x\",\"a\":1}"));
    let r = d.decode(b"2024-01-01,\"{\"\"a\"\":1}\",").unwrap();
    m.map(&r, &mut batch, 1, b"").unwrap();
    assert!(batch.segments[0].row(1).text.ends_with(b"\t{\"more\":null,\"a\":1}"));
}

#[test]
fn web_and_syslog_lines_in_logs() {
    let mut m = logs();
    let mut batch = Batch::default();
    let line = br#"83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /blog/x HTTP/1.1" 200 5 "-" "curl""#;
    let mut d = Decoder::Web;
    m.map(&d.decode(line).unwrap(), &mut batch, 1, line).unwrap();
    assert_eq!(
        std::str::from_utf8(batch.segments[0].row(0).text).unwrap(),
        "2015-05-17 10:05:03+00\tINFO\tblog\t83.149.9.216\tGET /blog/x HTTP/1.1\t\
         {\"method\":\"GET\",\"path\":\"/blog/x\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes\":5,\"user_agent\":\"curl\"}"
    );
    let mut d = Decoder::Syslog(crate::decode::syslog::Years::starting(2015));
    let line = b"Mar 27 13:06:56 h sshd[12]: Invalid user x";
    m.map(&d.decode(line).unwrap(), &mut batch, 2, line).unwrap();
    assert_eq!(
        std::str::from_utf8(batch.segments[0].row(1).text).unwrap(),
        "2015-03-27 13:06:56+00\tWARN\tsshd\th\tInvalid user x\t{\"pid\":12}"
    );
}

proptest! {
    #[test]
    fn rows_have_as_many_cells_as_columns(text in any::<String>(), other in any::<String>()) {
        prop_assume!(!text.contains('\0') && !other.contains('\0'));
        let mut m = logs();
        let mut batch = Batch::default();
        let record = vec![
            Field { name: "ts".into(), value: Value::Int(0) },
            Field { name: "message".into(), value: Value::Text(text.as_str().into()) },
            Field { name: "zz".into(), value: Value::Text(other.as_str().into()) },
        ];
        m.map(&record, &mut batch, 1, b"").unwrap();
        let row = batch.segments[0].row(0).text;
        prop_assert_eq!(row.iter().filter(|b| **b == b'\t').count(), 5);
        prop_assert!(!row.contains(&b'\n'));
    }
}

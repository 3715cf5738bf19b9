use super::*;
use crate::decode::Value;

/// The records of a value as JSON objects, times written as ISO 8601.
fn opened(envelope: Envelope, value: &str) -> Result<Vec<String>, Reason> {
    // 2024-03-01T00:00:00Z
    let now = 1_709_251_200_000_000;
    open_at(envelope, value.as_bytes(), now)?.map(|r| r.map(|r| shown(&r))).collect()
}

fn shown(record: &Record<'_>) -> String {
    let mut out = b"{".to_vec();
    for (i, f) in record.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::write_string(&mut out, &f.name);
        out.push(b':');
        json::write_value(&mut out, &f.value);
    }
    out.push(b'}');
    String::from_utf8(out).unwrap()
}

#[test]
fn a_plain_object_is_one_record_borrowed() {
    let value = br#"{"ts":1,"log":{"level":"info"}}"#;
    let mut records = open(Envelope::Plain, value).unwrap();
    let record = records.next().unwrap().unwrap();
    assert!(matches!(&record[1].value, Value::Json(Cow::Borrowed(r#"{"level":"info"}"#))));
    assert!(matches!(records.raw(), Cow::Borrowed(raw) if raw == value));
    assert!(records.next().is_none());
}

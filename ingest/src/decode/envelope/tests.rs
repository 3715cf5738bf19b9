use super::*;
use crate::decode::Value;

/// The records of a value as JSON objects, times written as ISO 8601.
fn opened(envelope: Envelope, value: &str) -> Result<Vec<String>, Reason> {
    // 2024-03-01T00:00:00Z
    let now = 1_709_251_200_000_000;
    open_at(envelope, value.as_bytes(), Some(now))?.map(|r| r.map(|r| shown(&r))).collect()
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

const FILEBEAT: &str = r#"{"@timestamp":"2024-03-01T10:00:00.123Z","@metadata":{"beat":"filebeat","type":"_doc","version":"8.12.0"},"agent":{"type":"filebeat"},"log":{"level":"warn","offset":7,"file":{"path":"/a"}},"host":{"name":"web-1"},"service":{"name":"shop"},"message":"slow"}"#;

#[test]
fn beats_and_logstash_lift_what_has_a_column() {
    let lifted = r#"{"@timestamp":"2024-03-01T10:00:00.123Z","@metadata":{"beat":"filebeat","type":"_doc","version":"8.12.0"},"agent":{"type":"filebeat"},"log":{"offset":7,"file":{"path":"/a"}},"message":"slow","log.level":"warn","host.name":"web-1","service.name":"shop"}"#;
    assert_eq!(opened(Envelope::Filebeat, FILEBEAT).unwrap(), [lifted]);
    assert_eq!(opened(Envelope::Auto, FILEBEAT).unwrap(), [lifted]);
    assert_eq!(opened(Envelope::Plain, FILEBEAT).unwrap(), [FILEBEAT]);
    for (envelope, value, want) in [
        // Dotted keys stay; a host that is a string is the host.
        (
            Envelope::Auto,
            r#"{"@timestamp":1,"@version":"1","host":"a","log.level":"info","log":{"level":"x"},"tags":[]}"#,
            r#"{"@timestamp":1,"host":"a","log.level":"info","log":{"level":"x"},"tags":[]}"#,
        ),
        (
            Envelope::Logstash,
            r#"{"@timestamp":1,"@version":"1","host":{"hostname":"h","ip":["::1"]},"level":"E"}"#,
            r#"{"@timestamp":1,"host":{"ip":["::1"]},"level":"E","host.name":"h"}"#,
        ),
        // Nothing to lift: an object, null, an empty object.
        (
            Envelope::Filebeat,
            r#"{"log":{"level":{"a":1}},"host":{"name":null},"service":{}}"#,
            r#"{"log":{"level":{"a":1}},"host":{"name":null},"service":{}}"#,
        ),
        // No sign of a shipper: as it stands.
        (Envelope::Auto, r#"{"ts":1,"host":{"name":"h"}}"#, r#"{"ts":1,"host":{"name":"h"}}"#),
        (Envelope::Auto, r#"{"@timestamp":1,"@version":{},"message":1}"#, r#"{"@timestamp":1,"message":1}"#),
    ] {
        assert_eq!(opened(envelope, value).unwrap(), [want], "{value}");
    }
}

#[test]
fn connect_gives_logical_types_their_meaning() {
    let schema = r#"{"type":"struct","fields":[
        {"field":"at","type":"int64","name":"org.apache.kafka.connect.data.Timestamp","version":1},
        {"field":"day","type":"int32","name":"org.apache.kafka.connect.data.Date"},
        {"field":"tod","type":"int32","name":"org.apache.kafka.connect.data.Time"},
        {"field":"price","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}},
        {"field":"blob","type":"bytes"},
        {"field":"us","type":"int64","name":"io.debezium.time.MicroTimestamp"},
        {"field":"ns","type":"int64","name":"io.debezium.time.NanoTimestamp"},
        {"field":"doc","type":"string","name":"io.debezium.data.Json"},
        {"field":"any","type":"struct","name":"io.debezium.data.VariableScaleDecimal"},
        {"field":"list","type":"array","items":{"type":"int32","name":"org.apache.kafka.connect.data.Date"}},
        {"field":"map","type":"map","keys":{"type":"string"},"values":{"type":"bytes"}},
        {"field":"inner","type":"struct","fields":[{"field":"t","type":"int64","name":"org.apache.kafka.connect.data.Timestamp"}]},
        {"field":"name","type":"string","optional":true}]}"#;
    let payload = r#"{"at":1709287200123,"day":19783,"tod":3661001,"price":"MDk=","blob":"AP8=","us":1,"ns":1999,"doc":"{\"a\": [1.50]}","any":{"scale":3,"value":"ew=="},"list":[0,1,null],"map":{"k":"/w=="},"inner":{"t":0,"other":1.10},"name":null,"more":"x"}"#;
    let want = r#"{"at":"2024-03-01T10:00:00.123000Z","day":"2024-03-01","tod":"01:01:01.001000","price":123.45,"blob":"\\x00ff","us":"1970-01-01T00:00:00.000001Z","ns":"1970-01-01T00:00:00.000001Z","doc":"{\"a\": [1.50]}","any":0.123,"list":["1970-01-01","1970-01-02",null],"map":{"k":"\\xff"},"inner":{"t":"1970-01-01T00:00:00Z","other":1.10},"name":null,"more":"x"}"#;
    for envelope in [Envelope::Auto, Envelope::Connect] {
        let value = format!(r#"{{"schema":{schema},"payload":{payload}}}"#);
        // Twice: the second time the schema is remembered.
        assert_eq!(opened(envelope, &value).unwrap(), [want]);
        assert_eq!(opened(envelope, &value).unwrap(), [want]);
        let bare = format!(r#"{{"schema":null,"payload":{payload}}}"#);
        assert_eq!(opened(envelope, &bare).unwrap(), [payload]);
    }
    // A member that is null stays null, and a Decimal is exact however long.
    let one = |kind: &str, value: &str| {
        opened(
            Envelope::Connect,
            &format!(
                r#"{{"schema":{{"type":"struct","fields":[{{"field":"v",{kind}}}]}},"payload":{{"v":{value}}}}}"#
            ),
        )
    };
    let timestamp = r#""type":"int64","name":"org.apache.kafka.connect.data.Timestamp""#;
    let decimal =
        r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"0"}"#;
    assert_eq!(one(timestamp, "null").unwrap(), [r#"{"v":null}"#]);
    assert_eq!(one(decimal, "\"Dkqd0hYn/////w==\"").unwrap().len(), 1);
    for (kind, value, why) in [
        (timestamp, "\"x\"", "no integer"),
        (timestamp, "9223372036854775807", "out of range"),
        (decimal, "5", "no Base64"),
        (decimal, "\"*\"", "no Base64"),
        (r#""type":"int32","name":"org.apache.kafka.connect.data.Date""#, "99999999", "out of range"),
        (r#""type":"int32","name":"org.apache.kafka.connect.data.Time""#, "-1", "no time of a day"),
    ] {
        let got = one(kind, value).unwrap_err();
        assert!(got.contains("field \"v\"") && got.contains(why), "{got}");
    }
    for (value, why) in [
        (r#"{"schema":{"type":"struct"},"payload":null}"#, "tombstone"),
        (r#"{"schema":{"type":"string"},"payload":"x"}"#, "no object"),
        (r#"{"schema":{"type":5},"payload":{}}"#, "the schema"),
        (
            r#"{"schema":{"type":"struct","fields":[{"field":"v","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"999999"}}]},"payload":{}}"#,
            "scale",
        ),
    ] {
        let got = opened(Envelope::Auto, value).unwrap_err();
        assert!(got.contains(why), "{value}: {got}");
    }
}

#[test]
fn a_debezium_change_is_the_row_after_it() {
    let row = r#"{"type":"struct","field":"after","fields":[{"field":"id","type":"int64"},{"field":"at","type":"int32","name":"io.debezium.time.Date"}]}"#;
    let with_schema = |op: &str, after: &str| {
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{row}]}},"payload":{{"before":null,"after":{after},"source":{{"lsn":1}},"op":"{op}","ts_ms":5}}}}"#
        )
    };
    let bare = |op: &str, after: &str| {
        format!(r#"{{"before":null,"after":{after},"source":{{"lsn":1}},"op":"{op}","ts_ms":5}}"#)
    };
    for op in ["c", "r"] {
        assert_eq!(
            opened(Envelope::Auto, &with_schema(op, r#"{"id":7,"at":1}"#)).unwrap(),
            [r#"{"id":7,"at":"1970-01-02"}"#]
        );
        assert_eq!(opened(Envelope::Auto, &bare(op, r#"{"id":7,"at":1}"#)).unwrap(), [r#"{"id":7,"at":1}"#]);
    }
    for (op, why) in [("u", "update"), ("d", "delete"), ("t", "truncate"), ("m", "\"m\"")] {
        for value in [with_schema(op, r#"{"id":7}"#), bare(op, "null")] {
            let got = opened(Envelope::Auto, &value).unwrap_err();
            assert!(got.contains(why), "{got}");
        }
    }
    assert!(opened(Envelope::Auto, &bare("c", "null")).unwrap_err().contains("without a row"));
    let unwrapped = r#"{"schema":null,"payload":{"id":1,"__deleted":"true"}}"#;
    assert!(opened(Envelope::Auto, unwrapped).unwrap_err().contains("delete"));
}

const OTEL: &str = r#"{"resourceLogs":[
 {"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}},{"key":"host.name","value":{"stringValue":"n1"}},{"key":"pid","value":{"intValue":"42"}}]},
  "scopeLogs":[
   {"scope":{"name":"lib","version":"1"},"logRecords":[
    {"timeUnixNano":"1709287200123456789","severityNumber":17,"severityText":"Error","body":{"stringValue":"no"},"attributes":[{"key":"http.method","value":{"stringValue":"GET"}},{"key":"n","value":{"doubleValue":1.50}}],"traceId":"0af7","spanId":"b7ad","flags":1},
    {"timeUnixNano":"0","observedTimeUnixNano":1709287200000000000,"severityNumber":9,"body":{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"boolValue":true},{"bytesValue":"AA=="},{}]}}}]}},"traceId":"","spanId":""}]},
   {"logRecords":[]}]},
 {"scopeLogs":[{"logRecords":[5,{"timeUnixNano":"x"},{"severityNumber":"SEVERITY_NUMBER_WARN2"}]}]}]}"#;

#[test]
fn otel_gives_a_record_for_each_log_record() {
    for envelope in [Envelope::Auto, Envelope::Otel] {
        let mut records = open(envelope, OTEL.as_bytes()).unwrap();
        let mut got = Vec::new();
        while let Some(record) = records.next() {
            let raw = records.raw();
            got.push((record.map(|r| shown(&r)), String::from_utf8(raw.into_owned()).unwrap()));
        }
        assert_eq!(got.len(), 5);
        assert_eq!(
            got[0].0.as_deref().unwrap(),
            r#"{"@timestamp":"2024-03-01T10:00:00.123456Z","level":"Error","severity_number":17,"message":"no","attributes":{"http.method":"GET","n":1.50},"trace_id":"0af7","span_id":"b7ad","flags":1,"service":"cart","host":"n1","resource":{"pid":42},"scope":{"name":"lib","version":"1"}}"#
        );
        assert_eq!(
            got[1].0.as_deref().unwrap(),
            r#"{"@timestamp":"2024-03-01T10:00:00Z","level":"INFO","severity_number":9,"message":{"a":[1,true,"AA==",null]},"service":"cart","host":"n1","resource":{"pid":42},"scope":{"name":"lib","version":"1"}}"#
        );
        assert!(got[2].0.as_ref().is_err_and(|e| e.contains("no object")));
        assert!(got[3].0.as_ref().is_err_and(|e| e.contains("nanoseconds")));
        assert_eq!(
            got[4].0.as_deref().unwrap(),
            r#"{"level":"WARN","severity_number":"SEVERITY_NUMBER_WARN2"}"#
        );
        // The bytes of one record hold it alone, and give the same record again.
        for (record, raw) in got {
            let again = opened(envelope, &raw);
            match record {
                Ok(record) => assert_eq!(again.unwrap(), [record]),
                Err(reason) => assert_eq!(again.unwrap_err(), reason),
            }
        }
    }
    assert_eq!(opened(Envelope::Auto, r#"{"resourceLogs":[]}"#).unwrap().len(), 0);
    assert!(opened(Envelope::Otel, r#"{"resourceLogs":5}"#).is_err());
    let deep = (0..200)
        .fold(r#"{"intValue":"1"}"#.to_owned(), |v, _| format!(r#"{{"arrayValue":{{"values":[{v}]}}}}"#));
    let deep = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{deep}}}]}}]}}]}}"#);
    assert!(opened(Envelope::Otel, &deep).unwrap_err().contains("nested deeper"));
}

#[test]
fn what_is_no_json_is_a_line_of_text_or_nothing() {
    let web = r#"10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET /a/b HTTP/1.1" 200 5 "-" "curl""#;
    assert!(opened(Envelope::Auto, web).unwrap()[0].contains(r#""@timestamp":"2015-05-17T10:05:03Z""#));
    // A syslog time has no year: that of the record's own timestamp, or the one before if it lay ahead of it.
    let syslog = |at: &str| opened(Envelope::Auto, &format!("{at} h sshd[12]: Invalid user x\n")).unwrap();
    assert!(syslog("Mar  1 00:00:00")[0].contains("2024-03-01T00:00:00Z"));
    assert!(syslog("Dec 31 23:59:59")[0].contains("2023-12-31T23:59:59Z"));
    for (value, why) in [
        ("", "empty"),
        (" \n", "empty"),
        ("\u{feff}", "empty"),
        ("hello", "neither"),
        ("a\nb", "neither"),
        ("[{\"ts\":1}]", "neither a JSON object"),
        ("5", "neither"),
        ("null", "neither"),
        ("{\"ts\":1", "EOF"),
        ("{\"ts\":1}x", "trailing"),
    ] {
        let got = opened(Envelope::Auto, value).unwrap_err();
        assert!(got.contains(why), "{value:?}: {got}");
        assert!(opened(Envelope::Plain, value).is_err(), "{value:?}");
    }
    assert!(open(Envelope::Auto, b"{\"a\":\"\xff\"}").unwrap_err().contains("invalid UTF-8 at byte 6"));
    assert_eq!(opened(Envelope::Auto, "\u{feff}{\"ts\":1}").unwrap(), [r#"{"ts":1}"#]);
    assert_eq!(opened(Envelope::Auto, "{}").unwrap(), ["{}"]);
}

#[test]
fn nesting_of_thousands_of_levels_is_only_text() {
    for (open_with, close_with) in [("[", "]"), ("{\"a\":", "}")] {
        let inner = if open_with == "[" { "" } else { "1" };
        let deep = open_with.repeat(100_000) + inner + &close_with.repeat(100_000);
        for value in [
            format!(r#"{{"ts":1,"a":{deep}}}"#),
            format!(r#"{{"@timestamp":1,"@version":"1","host":{deep},"log":{{"level":{deep}}}}}"#),
            format!(r#"{{"schema":null,"payload":{{"a":{deep}}}}}"#),
        ] {
            assert_eq!(opened(Envelope::Auto, &value).unwrap().len(), 1);
        }
        // Where the depth means something it is bounded.
        let schema = format!(r#"{{"schema":{deep},"payload":{{"a":1}}}}"#);
        let _ = opened(Envelope::Auto, &schema);
        let otel = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{deep}}}]}}]}}]}}"#);
        let _ = opened(Envelope::Otel, &otel);
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// JSON of any shape that jsonb can hold.
    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|b| b.to_string()),
            any::<i64>().prop_map(|i| i.to_string()),
            "[a-z.@\\PC]{0,12}".prop_map(|s| {
                let mut out = Vec::new();
                json::write_string(&mut out, &s.replace('\0', ""));
                String::from_utf8(out).unwrap()
            }),
        ];
        let names = prop::sample::select(vec![
            "ts",
            "@timestamp",
            "@version",
            "@metadata",
            "log",
            "level",
            "log.level",
            "host",
            "name",
            "host.name",
            "schema",
            "payload",
            "before",
            "after",
            "op",
            "source",
            "resourceLogs",
            "scopeLogs",
            "logRecords",
            "body",
            "stringValue",
            "kvlistValue",
            "values",
            "key",
            "value",
            "attributes",
            "type",
            "fields",
            "field",
            "x",
        ]);
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|v| format!("[{}]", v.join(","))),
                prop::collection::vec((names.clone(), inner), 0..6).prop_map(|v| {
                    let members: Vec<String> = v.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn opening_never_panics_and_makes_only_json(value in any_json(), envelope in prop::sample::select(Envelope::ALL.to_vec())) {
            if let Ok(records) = opened(envelope, &value) {
                for record in records {
                    prop_assert!(json::is_json(&record), "{}", record);
                }
            }
        }

        #[test]
        fn opening_never_panics_on_bytes(value in prop::collection::vec(any::<u8>(), 0..200), envelope in prop::sample::select(Envelope::ALL.to_vec())) {
            let _ = open(envelope, &value).map(|records| records.count());
        }

        /// What is put into an envelope comes out of it: nothing lost, nothing added.
        #[test]
        fn an_envelope_gives_back_what_it_was_given(
            message in "\\PC{0,40}", level in "[A-Z]{1,6}", host in "[a-z0-9-]{1,12}", extra in any::<i32>(),
        ) {
            let quoted = |s: &str| {
                let mut out = Vec::new();
                json::write_string(&mut out, s);
                String::from_utf8(out).unwrap()
            };
            let (m, l, h) = (quoted(&message), quoted(&level), quoted(&host));
            let beat = format!(r#"{{"@timestamp":"2024-03-01T00:00:00Z","agent":{{"type":"filebeat"}},"message":{m},"log":{{"level":{l}}},"host":{{"name":{h}}},"x":{extra}}}"#);
            let otel = format!(r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"host.name","value":{{"stringValue":{h}}}}}]}},"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"1709251200000000000","severityText":{l},"body":{{"stringValue":{m}}},"x":{extra}}}]}}]}}]}}"#);
            let connect = format!(r#"{{"schema":{{"type":"struct","fields":[{{"field":"@timestamp","type":"int64","name":"org.apache.kafka.connect.data.Timestamp"}}]}},"payload":{{"@timestamp":1709251200000,"message":{m},"level":{l},"host":{h},"x":{extra}}}}}"#);
            for value in [beat, otel, connect] {
                let mut mapper = crate::map::Mapper::new(crate::target::standard_logs()).unwrap();
                let mut batch = crate::batch::Batch::default();
                let taken = mapper.map_value(Envelope::Auto, value.as_bytes(), &crate::map::Origin::NONE, &mut batch, 1);
                prop_assert_eq!(taken.rows, 1, "{:?}", batch.rejected);
                let row = String::from_utf8(batch.segments[0].row(0).text.to_vec()).unwrap();
                let mut text = Vec::new();
                crate::map::coerce::push_text(&mut text, &message).unwrap();
                let message = String::from_utf8(text).unwrap();
                let rest = row.replace("\"agent\":{\"type\":\"filebeat\"},", "");
                prop_assert_eq!(rest, format!("2024-03-01 00:00:00+00\t{level}\t\\N\t{host}\t{message}\t{{\"x\":{extra}}}"));
            }
        }
    }
}

/// Processor time of this thread, which other work on the machine does not lengthen.
fn processor_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

/// Not a test but a measurement: `cargo test -p ingest --lib -- --ignored --nocapture what_opening_costs`.
#[test]
#[ignore = "a measurement, which takes seconds and asserts nothing"]
fn what_opening_costs() {
    use crate::batch::Batch;
    use crate::map::{Mapper, Origin};

    let records: Vec<Vec<u8>> = {
        let mut out = Vec::new();
        let spec = crate::generate::Spec::logs(20_000);
        crate::generate::write_all(&spec, None, &mut out).unwrap();
        out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let mut mapper = Mapper::new(crate::target::standard_logs()).unwrap();
    let mut best = [f64::MAX; 3];
    // In turns, so that a busy machine is busy for all of them.
    for _ in 0..40 {
        for (way, best) in best.iter_mut().enumerate() {
            let mut batch = Batch::default();
            let start = processor_nanos();
            for (i, raw) in records.iter().enumerate() {
                let line = i as u64;
                match way {
                    0 => {
                        let record = crate::decode::Decoder::Json
                            .decode(raw)
                            .map(|r| mapper.map(&r, &mut batch, line, raw));
                        record.unwrap().unwrap();
                    }
                    1 => drop(mapper.map_value(Envelope::Plain, raw, &Origin::NONE, &mut batch, line)),
                    _ => drop(mapper.map_value(Envelope::Auto, raw, &Origin::NONE, &mut batch, line)),
                }
            }
            assert_eq!(batch.rows(), records.len());
            *best = best.min((processor_nanos() - start) as f64 / records.len() as f64);
        }
    }
    let bytes = records.iter().map(Vec::len).sum::<usize>() / records.len();
    println!("{} records of {bytes} bytes; nanoseconds each, decode and map, best of 40:", records.len());
    for (name, ns) in ["decoder (files, HTTP)", "envelope plain", "envelope auto"].iter().zip(best) {
        println!("{name:>22} {ns:7.0}  {:+.1} %", (ns / best[0] - 1.0) * 100.0);
    }
}

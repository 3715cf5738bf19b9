use super::*;
use arrow::array::{AsArray, StringViewArray};
use arrow::datatypes::Int32Type;

fn get(document: &str, key: &str, as_text: bool) -> Option<String> {
    let array = StringViewArray::from(vec![document]);
    let found = jsonb_field(&array, key, as_text).expect("canonical");
    let found = found.as_string_view();
    (!found.is_null(0)).then(|| found.value(0).to_owned())
}

#[test]
fn fields_of_canonical_documents() {
    let document = r#"{"a": 1, "b": null, "s": "x\"y\\z\n\u0001é", "arr": [1, {"a": "]}"}, "q\""], "obj": {"a": {"b": 2}}, "": true, "num": -1.50, "k\"q": "v"}"#;
    let text = |key: &str| get(document, key, true);
    let json = |key: &str| get(document, key, false);
    assert_eq!(text("a").as_deref(), Some("1"));
    assert_eq!(text("b"), None);
    assert_eq!(json("b").as_deref(), Some("null"));
    assert_eq!(text("s").as_deref(), Some("x\"y\\z\n\u{1}é"));
    assert_eq!(json("s").as_deref(), Some(r#""x\"y\\z\n\u0001é""#));
    assert_eq!(text("arr").as_deref(), Some(r#"[1, {"a": "]}"}, "q\""]"#));
    assert_eq!(text("obj").as_deref(), Some(r#"{"a": {"b": 2}}"#));
    assert_eq!(text("").as_deref(), Some("true"));
    assert_eq!(text("num").as_deref(), Some("-1.50"));
    assert_eq!(text("k\"q").as_deref(), Some("v"));
    assert_eq!(text("missing"), None);
    for other in ["{}", "[1, 2]", "\"a\"", "null", "1", "[]"] {
        assert_eq!(get(other, "a", true), None, "{other}");
    }
}

#[test]
fn damaged_documents_are_errors() {
    for damaged in ["{", "{\"a", "{\"a\":1}", "{\"a\": ", "{\"a\": 1", "{1: 2}", "{\"b\": 1;\"a\": 2}"] {
        assert!(jsonb_field(&StringViewArray::from(vec![damaged]), "a", true).is_err(), "{damaged}");
    }
}

#[test]
fn lengths_and_concatenation() {
    let a = StringViewArray::from(vec![Some("héé"), None, Some("")]);
    let lengths = length(&a).expect("lengths");
    assert_eq!(lengths.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(3), None, Some(0)]);
    let joined = concat(&a, &StringViewArray::from(vec!["x", "y", "z"])).expect("texts");
    assert_eq!(joined.as_string_view().iter().collect::<Vec<_>>(), [Some("hééx"), None, Some("z")]);
}

/// Elements and paths against PostgreSQL itself.
#[test]
fn elements_and_paths_are_postgres() {
    use crate::testpg::cluster;
    let documents = [
        r#"[1, 2, {"a": 3}]"#, r#"[1, null, "x,]\"", [true, []], {}]"#, "[]", r#""s""#, "null", "1.50", "true", "{}",
        r#"{"a": {"b": [1, {"c": "d\"e"}]}, "0": "zero", "-1": null, "": {"": 5}}"#, r#"{"a": [10, 20, [30]]}"#, "[[[]]]", r#"["é"]"#,
    ];
    let indexes = [0, 1, 2, 3, -1, -2, -5, i32::MAX, i32::MIN];
    let paths: [&[&str]; 14] = [
        &[], &["a"], &["a", "b"], &["a", "b", "1"], &["a", "b", "1", "c"], &["a", "b", "-1"], &["0"], &["-1"], &["a", "x"], &["", ""],
        &["1"], &["a", "2", "0"], &["+1"], &["3", "0"],
    ];
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
    let quoted = |t: &str| format!("'{}'", t.replace('\'', "''").replace('\\', "\\\\"));
    let values = list(&mut documents.iter().enumerate().map(|(n, d)| format!("({n}, E{}::jsonb)", quoted(d))));
    let prelude = format!("CREATE TEMP TABLE d AS SELECT * FROM (VALUES {values}) v(n, j);");
    let text = |sql: &str| cluster().copy_text(&[], &prelude, sql);
    let canonical: Vec<Option<String>> = text("SELECT j::text FROM d ORDER BY n").into_iter().map(|mut r| r.remove(0)).collect();
    let array = StringViewArray::from_iter(canonical.iter().map(|d| d.as_deref()));
    for index in indexes {
        let rows = text(&format!("SELECT (j -> '{index}'::int)::text, j ->> '{index}'::int FROM d ORDER BY n"));
        for as_text in [false, true] {
            let got = jsonb_element(&array, index, as_text).expect("canonical");
            for (row, want) in rows.iter().enumerate() {
                let got = (!got.is_null(row)).then(|| got.as_string_view().value(row).to_owned());
                assert_eq!(got, want[usize::from(as_text)], "{:?} {index} {as_text}", canonical[row]);
            }
        }
    }
    for path in paths {
        let steps: Vec<String> = path.iter().map(|s| s.to_string()).collect();
        assert!(path.iter().all(|s| is_plain_step(s)));
        let sql = format!("ARRAY[{}]::text[]", list(&mut path.iter().map(|s| quoted(s))));
        let rows = text(&format!("SELECT (j #> {sql})::text, j #>> {sql} FROM d ORDER BY n"));
        for as_text in [false, true] {
            let got = jsonb_path(&array, &steps, as_text).expect("canonical");
            for (row, want) in rows.iter().enumerate() {
                let got = (!got.is_null(row)).then(|| got.as_string_view().value(row).to_owned());
                assert_eq!(got, want[usize::from(as_text)], "{:?} {path:?} {as_text}", canonical[row]);
            }
        }
    }
    assert!(!is_plain_step(" 1") && !is_plain_step("99999999999") && is_plain_step("a long key without any"));
    assert!(jsonb_path(&StringViewArray::from(vec!["[1"]), &["0".to_owned()], true).is_err());
}

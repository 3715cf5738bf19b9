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

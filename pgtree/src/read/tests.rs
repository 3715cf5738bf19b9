use super::*;
use proptest::prelude::*;

fn ok(text: &str) -> Item<'_> {
    read(text, Limits::default()).expect("a tree")
}

fn err(text: &str) -> ReadError {
    read(text, Limits::default()).expect_err("no tree")
}

#[test]
fn tokens_lists_and_nodes() {
    let item = ok("({A :x 1 :y <> :z (o 1 2) :s \"a\\ b\" :v :w} (i) (b 8 9) \"\")");
    let Item::List(ListKind::Values, items) = item else { panic!() };
    let node = items[0].as_node().expect("node");
    assert_eq!(node.name, "A");
    assert_eq!(node.int("x"), Ok(1));
    assert_eq!(node.name("y"), Ok(None));
    assert_eq!(node.numbers("z"), Ok(vec![1, 2]));
    assert_eq!(node.name("s"), Ok(Some("a b".into())));
    // A value may begin with a colon: fields and values alternate.
    assert_eq!(node.name("v"), Ok(Some(":w".into())));
    assert!(!node.has("y") && node.has("z"));
    assert_eq!(items[1], Item::List(ListKind::Ints, vec![]));
    assert_eq!(items[2], Item::List(ListKind::Bits, vec![Item::Token("8"), Item::Token("9")]));
    assert_eq!(items[3].text().as_deref(), Some(""));
}

#[test]
fn datums_are_bytes() {
    let item = ok("{CONST :constvalue 4 [ 1 0 -1 -128 0 0 0 0 ] :b 2 [ 5 255 ]}");
    let node = item.as_node().expect("node");
    assert_eq!(node.get("constvalue"), Some(&Item::Datum(4, vec![1, 0, 255, 128, 0, 0, 0, 0])));
    assert_eq!(node.get("b"), Some(&Item::Datum(2, vec![5, 255])));
    assert!(matches!(err("{C :v 3 [ 1 2 ]}"), ReadError::Unexpected { .. }));
    assert!(matches!(err("{C :v 2 [ 1 256 ]}"), ReadError::Unexpected { .. }));
    assert_eq!(err("{C :v 2 [ 1 2"), ReadError::Truncated);
}

#[test]
fn only_whole_trees() {
    for text in ["", "(", "{A", "{A :x", "{A :x 1", "(i 1"] {
        assert_eq!(err(text), ReadError::Truncated, "{text}");
    }
    for text in [
        ")",
        "}",
        "{A x 1}",
        "{A :x 1 2}",
        "{A :x {B} {C}}",
        "(1) (2)",
        "(}",
        "{A )",
        "(i x)",
        "{a :x 1}",
        "{A : 1}",
    ] {
        assert!(matches!(err(text), ReadError::Unexpected { .. }), "{text}");
    }
}

#[test]
fn bounds_hold() {
    let deep = "(".repeat(100_000);
    assert_eq!(err(&deep), ReadError::TooDeep);
    let nodes = "{A :x ".repeat(100_000);
    assert_eq!(err(&nodes), ReadError::TooDeep);
    let wide = format!("({})", "1 ".repeat(1_000_001));
    assert_eq!(read(&wide, Limits { bytes: 1 << 30, ..Limits::default() }), Err(ReadError::TooMany));
    assert_eq!(read("(1 2)", Limits { bytes: 4, ..Limits::default() }), Err(ReadError::TooLong(5)));
}

#[test]
fn a_token_cut_by_the_line_breaker_is_refused() {
    // 63 escaped braces make a token of 126 bytes; the dumper cuts it after 78 and may separate a backslash from its brace.
    let line = "\\{".repeat(39);
    assert_eq!(line.len(), 78);
    let text = format!("{{TARGETENTRY :resname\n{line}\n:ressortgroupref 0}}");
    assert!(matches!(err(&text), ReadError::BrokenToken(_)));
    // A line that ends at a blank is not cut.
    let line = format!(":resname {}", "a".repeat(69));
    assert_eq!(line.len(), 78);
    ok(&format!("{{T {line}\n:x 1}}"));
}

proptest! {
    /// Garbage gives an error or a tree, never a panic.
    #[test]
    fn garbage_does_no_harm(text in "[ \\n(){}\\[\\]:<>a-cA-C0-9\"\\\\i-]{0,200}") {
        let _ = read(&text, Limits::default());
        let _ = crate::tree::parse(&text, Limits::default());
    }

    #[test]
    fn any_text_does_no_harm(text in "\\PC{0,200}") {
        let _ = read(&text, Limits::default());
    }
}

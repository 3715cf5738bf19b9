use super::*;

#[test]
fn columns_are_aligned_whatever_they_hold() {
    let text = layout(
        &[("query", Align::Left), ("ms", Align::Right)],
        &[vec!["größe".into(), "1.5".into()], vec!["two\nlines".into(), "120.0".into()]],
    );
    assert_eq!(text, "query         ms\n---------  -----\ngröße        1.5\ntwo lines  120.0\n");
}

#[test]
fn numbers_and_long_texts() {
    assert_eq!([0, 999, 1000, 2_000_000].map(grouped), ["0", "999", "1,000", "2,000,000"]);
    assert_eq!(shorten("größer", 6), "größer");
    assert_eq!(shorten("größeres", 6), "größe…");
}

#[test]
fn a_document_gets_cells_that_stay_apart() {
    let text = markdown(
        &[("query", Align::Left), ("ms", Align::Right)],
        &[vec!["a || b".into(), "1.5".into()], vec!["two\nlines".into(), "2".into()]],
    );
    assert_eq!(text, "| query | ms |\n| --- | ---: |\n| a \\|\\| b | 1.5 |\n| two lines | 2 |\n");
}

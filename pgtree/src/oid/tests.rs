use super::*;

#[test]
fn comparisons_know_their_function_and_sides() {
    let c = comparison(1325, 1156).expect("timestamptz >=");
    assert_eq!((c.compare, c.left, c.right), (Compare::Ge, TIMESTAMPTZ, TIMESTAMPTZ));
    assert_eq!(comparison(1325, 1155), None, "another function behind the operator");
    let c = comparison(82, 857).expect("int4 >= int8");
    assert_eq!((c.compare, c.left, c.right), (Compare::Ge, INT4, INT8));
    assert_eq!(comparison(531, 157).map(|c| c.compare), Some(Compare::Ne), "text <>");
    assert_eq!(comparison_operator(666).map(|c| (c.compare, c.left)), Some((Compare::Gt, TEXT)));
    assert_eq!(comparison_operator(1), None);
}

#[test]
fn types_know_their_arrays() {
    for element in [BOOL, INT2, INT4, INT8, NUMERIC, TEXT, VARCHAR, DATE, TIMESTAMP, TIMESTAMPTZ, UUID] {
        assert_eq!(array_of(element).and_then(array_element), Some(element));
    }
    assert_eq!((type_name(TIMESTAMPTZ), type_name(4711)), (Some("timestamptz"), None));
}

#[test]
fn what_may_be_computed_ahead() {
    assert_eq!(foldable_function(1299).map(|f| (f.name, f.result)), Some(("now", TIMESTAMPTZ)));
    assert_eq!(foldable_operator(1329, 1190).map(|o| (o.name, o.result)), Some(("-", TIMESTAMPTZ)));
    assert_eq!(foldable_operator(1329, 1189), None);
}

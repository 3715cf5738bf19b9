use super::*;

fn known<'a>(verdict: &'a Verdict, wanted: Override, may_need_cold: bool) -> Known<'a> {
    Known { verdict, objection: None, wanted, may_need_cold }
}

#[test]
fn what_is_unproven_is_postgresqls_with_its_reasons() {
    let v = Verdict::Postgres(vec!["function f is not proven equal".into()]);
    let r = decide(&known(&v, Override::Auto, false)).unwrap();
    assert_eq!((r.path, r.reasons.len()), (Path::Postgres, 1));
}

#[test]
fn an_override_never_buys_a_wrong_answer() {
    let v = Verdict::Postgres(vec!["a join".into()]);
    let e = decide(&known(&v, Override::Lake, false)).unwrap_err();
    assert_eq!(e.sqlstate, "0A000");
    assert!(e.detail.unwrap().contains("a join") && e.hint.is_some());
}

#[test]
fn cold_rows_are_never_answered_in_part() {
    let v = Verdict::Postgres(vec!["a join".into()]);
    for wanted in [Override::Auto, Override::Postgres, Override::Lake] {
        assert_eq!(decide(&known(&v, wanted, true)).unwrap_err().sqlstate, "0A000");
    }
}

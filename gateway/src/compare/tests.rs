use super::*;

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            None => body.extend((-1i32).to_be_bytes()),
            Some(v) => {
                body.extend((v.len() as i32).to_be_bytes());
                body.extend(v.as_bytes());
            }
        }
    }
    body
}

fn side(order: &Order, rows: &[[&str; 2]]) -> Side {
    let mut side = Side::new(order);
    for r in rows {
        side.row(&row(&[Some(r[0]), Some(r[1])]));
    }
    side
}

#[test]
fn order_counts_as_far_as_it_is_settled() {
    let free = Order::default();
    let by_first = Order { keys: vec![0], sorted: true, open: false };
    let limited = Order { open: true, ..by_first.clone() };
    let verdict = |order: &Order, a: &[[&str; 2]], b: &[[&str; 2]]| compare(&side(order, a), &side(order, b));
    let (a, turned) = ([["1", "x"], ["2", "y"]], [["2", "y"], ["1", "x"]]);
    assert_eq!(verdict(&free, &a, &a), Verdict::Equal);
    assert_eq!(verdict(&free, &a, &turned), Verdict::Equal);
    assert_eq!(
        verdict(&by_first, &a, &turned),
        Verdict::Differs("row 1: PostgreSQL has ('1', 'x'), the lake ('2', 'y')".into())
    );
    let (ties, others) = ([["1", "x"], ["1", "y"]], [["1", "y"], ["1", "x"]]);
    assert_eq!(verdict(&by_first, &ties, &others), Verdict::Ties);
    assert_eq!(verdict(&limited, &[["1", "x"]], &[["1", "y"]]), Verdict::Ties);
    assert_eq!(verdict(&by_first, &[["1", "x"]], &[["1", "y"]]).name(), "differs");
    assert_eq!(verdict(&limited, &[["1", "x"]], &[["2", "x"]]).name(), "differs");
    assert_eq!(verdict(&free, &a, &a[..1]), Verdict::Differs("PostgreSQL has 2 rows, the lake 1".into()));
    // As many, and the same as a set.
    assert_eq!(verdict(&free, &[["1", "x"], ["1", "x"], ["2", "y"]], &[["1", "x"], ["2", "y"], ["2", "y"]]).name(), "differs");
}

#[test]
fn the_first_difference_is_told() {
    let (mut a, mut b) = (Side::new(&Order::default()), Side::new(&Order::default()));
    a.row(&row(&[Some("b"), None]));
    a.row(&row(&[Some("a"), Some("1")]));
    b.row(&row(&[Some("a"), Some("\u{1}")]));
    b.row(&row(&[Some("b"), None]));
    let Verdict::Differs(why) = compare(&a, &b) else { panic!("they differ") };
    assert_eq!(why, "sorted by their bytes, row 1: PostgreSQL has ('a', '1'), the lake ('a', \\x01)");
}

#[test]
fn memory_does_not_grow_with_rows() {
    let mut side = Side::new(&Order::default());
    let long = "x".repeat(10_000);
    for _ in 0..1_000 {
        side.row(&row(&[Some(&long)]));
    }
    assert_eq!(side.rows, 1_000);
    assert!(side.kept_bytes <= KEPT_BYTES && side.kept.len() < 110);
    let mut other = Side::new(&Order::default());
    for n in 0..1_000 {
        other.row(&row(&[Some(if n == 999 { "y" } else { &long })]));
    }
    assert_eq!(compare(&side, &other), Verdict::Differs("the 1000 rows differ, too many of them to tell where".into()));
}

#[test]
fn frames_are_rows() {
    let body = row(&[Some("1"), None]);
    let frame = [b"D".as_slice(), &(body.len() as u32 + 4).to_be_bytes(), &body].concat();
    let (mut a, mut b) = (Side::new(&Order::default()), Side::new(&Order::default()));
    a.frames(&[&frame[..], &frame].concat());
    b.row(&body);
    b.row(&body);
    assert_eq!(compare(&a, &b), Verdict::Equal);
    // What is cut off does no harm.
    a.frames(&frame[..frame.len() - 1]);
    assert_eq!(a.rows, 2);
}

use std::io::Read;

use proptest::prelude::*;

use super::*;

/// Gives its bytes in pieces of the given sizes, to put block borders everywhere.
struct Pieces<'a> {
    data: &'a [u8],
    piece: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.piece.min(out.len()).min(self.data.len());
        out[..n].copy_from_slice(&self.data[..n]);
        self.data = &self.data[n..];
        Ok(n)
    }
}

fn all(data: &[u8], framing: Framing, max: usize, piece: usize) -> Vec<(Shape, u64, u64, Vec<u8>)> {
    let mut frames = Frames::new(Pieces { data, piece }, framing, max, 1);
    let mut out = Vec::new();
    while let Some(f) = frames.next_frame().unwrap() {
        out.push((f.shape, f.line, f.consumed, frames.bytes(&f).to_vec()));
    }
    out
}

fn texts(data: &str, framing: Framing, max: usize) -> Vec<(Shape, u64, String)> {
    let one = all(data.as_bytes(), framing, max, 1);
    let big = all(data.as_bytes(), framing, max, 1 << 20);
    assert!(one == big, "block borders must not matter");
    one.into_iter().map(|(s, l, _, b)| (s, l, String::from_utf8(b).unwrap())).collect()
}

#[test]
fn lines_with_blanks_and_carriage_returns() {
    use Shape::*;
    assert_eq!(
        texts("a\r\n\n  \nbb\nccc", Framing::Lines, 10),
        [(Whole, 1, "a".into()), (Whole, 4, "bb".into()), (Unterminated, 5, "ccc".into())]
    );
    assert_eq!(texts("\n\n", Framing::Lines, 10), []);
}

#[test]
fn an_oversized_line_costs_only_itself() {
    let long = "x".repeat(100_000);
    let got = texts(&format!("a\n{long}\nb\n"), Framing::Lines, 1000);
    assert_eq!(got.len(), 3);
    assert_eq!(got[1].0, Shape::Oversized(100_001));
    assert!(got[1].2.len() == OVERSIZED_HEAD && got[1].2.bytes().all(|b| b == b'x'));
    assert_eq!((got[2].1, got[2].2.as_str()), (3, "b"));
}

#[test]
fn csv_records_span_lines_inside_quotes_only() {
    use Shape::*;
    let csv = Framing::Csv { delimiter: b',' };
    assert_eq!(
        texts("a,\"x\ny\"\"\n\",c\nd,e\"\"f\",g\n\"\",\"\"\n", csv, 100),
        [
            (Whole, 1, "a,\"x\ny\"\"\n\",c".into()),
            (Whole, 4, "d,e\"\"f\",g".into()),
            (Whole, 5, "\"\",\"\"".into())
        ]
    );
}

#[test]
fn an_unclosed_quote_costs_one_line() {
    let csv = Framing::Csv { delimiter: b',' };
    let got = texts("a,\"b\nc,d\ne,f\n", csv, 100);
    assert!(matches!(got[0].0, Shape::Broken(_)));
    assert_eq!(got[1..], [(Shape::Whole, 2, "c,d".into()), (Shape::Whole, 3, "e,f".into())]);
}

#[test]
fn array_elements() {
    use Shape::*;
    let got = texts(" [ {\"a\":\"],\\\"\"} ,\n {\"b\":[1,{}]}\n, 3]\n", Framing::JsonArray, 100);
    assert_eq!(
        got,
        [
            (Whole, 1, "{\"a\":\"],\\\"\"}".into()),
            (Whole, 2, "{\"b\":[1,{}]}".into()),
            (Whole, 3, "3".into())
        ]
    );
    assert_eq!(texts("[]", Framing::JsonArray, 100), []);
}

#[test]
fn broken_arrays_report_once_and_end() {
    for (text, whole) in [("[1,2", 1), ("[1}, 2]", 0), ("[1] 2", 1), ("{\"a\":1}", 0), ("[\"abc", 0)] {
        let got = texts(text, Framing::JsonArray, 100);
        assert_eq!(got.iter().filter(|g| g.0 == Shape::Whole).count(), whole, "{text}");
        assert_eq!(got.iter().filter(|g| matches!(g.0, Shape::Broken(_))).count(), 1, "{text}");
    }
}

#[test]
fn an_oversized_element_costs_only_itself() {
    let long = "x".repeat(100_000);
    let got = texts(&format!("[1,{{\"a\":\"{long},]\"}},2]"), Framing::JsonArray, 1000);
    assert_eq!(got.len(), 3);
    assert!(matches!(got[1].0, Shape::Oversized(_)));
    assert_eq!(got[2].2, "2");
}

proptest! {
    #[test]
    fn consumed_bytes_and_lines_add_up(
        data in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'"'), Just(b','), Just(b'['), Just(b']'),
            Just(b'{'), Just(b'}'), Just(b'\\'), Just(b'\r'), any::<u8>()], 0..400),
        piece in 1usize..50,
        max in 1usize..60,
        which in 0usize..3,
    ) {
        let framing = [Framing::Lines, Framing::Csv { delimiter: b',' }, Framing::JsonArray][which];
        prop_assert!(all(&data, framing, max, piece) == all(&data, framing, max, 1 << 20));
        let mut frames = Frames::new(Pieces { data: &data, piece }, framing, max, 1);
        let mut at = 0usize;
        let mut last_line = 1;
        while let Some(f) = frames.next_frame().unwrap() {
            prop_assert!(f.consumed > 0, "no record consumes nothing");
            prop_assert!(f.line >= last_line);
            last_line = f.line;
            at += f.consumed as usize;
            let newlines = data[..at].iter().filter(|&&b| b == b'\n').count() as u64;
            prop_assert_eq!(frames.line(), 1 + newlines);
            if framing != Framing::JsonArray {
                prop_assert!(at == data.len() || data[at - 1] == b'\n');
            }
        }
        prop_assert!(at <= data.len());
        prop_assert!(data[at..].iter().all(|b| matches!(b, b'\n' | b'\r' | b' ' | b'\t' | b'[' | b']' | b',')));
    }

    #[test]
    fn lines_are_the_lines(lines in proptest::collection::vec("[a-z]{1,20}", 0..30), piece in 1usize..40) {
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        let got: Vec<String> =
            all(text.as_bytes(), Framing::Lines, 100, piece).into_iter().map(|g| String::from_utf8(g.3).unwrap()).collect();
        prop_assert_eq!(got, lines);
    }
}

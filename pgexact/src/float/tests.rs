use super::*;
use crate::testpg::{Random, cluster, copy_binary, take};

fn text64(v: f64) -> String {
    let mut out = BytesMut::new();
    write_f64(v, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn text32(v: f32) -> String {
    let mut out = BytesMut::new();
    write_f32(v, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

/// Values at every power of two and ten with their neighbours, where shortest digits are hardest, and random ones.
fn doubles() -> Vec<f64> {
    let mut out =
        vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX, 5e-324];
    for bits in (0..2047u64).map(|e| e << 52) {
        out.extend([bits.wrapping_sub(1) & !(1 << 63), bits, bits + 1, bits | 1 << 51].map(f64::from_bits));
    }
    for e in -330..310 {
        let p: f64 = format!("1e{e}").parse().unwrap();
        let q: f64 = format!("9007199254740993e{e}").parse().unwrap();
        out.extend([p, f64::from_bits(p.to_bits() + 1), -p, q, 2.5 * p]);
    }
    // Powers of five times small powers of two: decimals that lie exactly between two floats.
    for five in 0..28 {
        for two in -30..30 {
            let exact = 5f64.powi(five) * 2f64.powi(two);
            out.extend([
                exact,
                exact * 3.0,
                f64::from_bits(exact.to_bits() + 1),
                f64::from_bits(exact.to_bits() - 1),
            ]);
        }
    }
    let mut random = Random(7);
    out.extend((0..40_000).map(|_| f64::from_bits(random.next())));
    out.extend((0..20_000).map(|_| random.within(-1_000_000_000, 1_000_000_000) as f64 / 1000.0));
    out
}

#[test]
fn text_equals_postgres() {
    let doubles = doubles();
    let mut random = Random(9);
    let mut singles: Vec<f32> = doubles.iter().map(|d| *d as f32).collect();
    singles.extend(
        (0..=255u32).flat_map(|e| [e << 23, (e << 23) + 1, (e << 23 | 0x7f_ffff)]).map(f32::from_bits),
    );
    singles.extend((0..40_000).map(|_| f32::from_bits(random.next() as u32)));
    let rows = doubles.len().max(singles.len());
    let tuples: Vec<_> = (0..rows)
        .map(|i| {
            vec![
                Some((i as i32).to_be_bytes().to_vec()),
                doubles.get(i).map(|v| v.to_be_bytes().to_vec()),
                singles.get(i).map(|v| v.to_be_bytes().to_vec()),
            ]
        })
        .collect();
    let file = cluster().file(&copy_binary(&tuples));
    let prelude = format!(
        "CREATE TEMP TABLE t (n int, d float8, s float4);\n\\copy t FROM '{}' (FORMAT binary)",
        file.display()
    );
    let theirs = cluster().copy_text(&[], &prelude, "SELECT d, s FROM t ORDER BY n");
    take(&file);
    assert_eq!(theirs.len(), rows);
    for (i, row) in theirs.iter().enumerate() {
        assert_eq!(doubles.get(i).map(|v| text64(*v)), row[0], "{:?}", doubles.get(i).map(|v| v.to_bits()));
        assert_eq!(singles.get(i).map(|v| text32(*v)), row[1], "{:?}", singles.get(i).map(|v| v.to_bits()));
    }
}

#[test]
fn notation() {
    for (value, text) in [
        (1e14, "100000000000000"),
        (1e15, "1e+15"),
        (123456789012345.0, "123456789012345"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1.5e300, "1.5e+300"),
        (-2.0, "-2"),
        (0.1, "0.1"),
    ] {
        assert_eq!(text64(value), text);
    }
    assert_eq!(text32(1e6), "1e+06");
    assert_eq!(text32(123456.0), "123456");
}

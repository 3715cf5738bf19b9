use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::*;
use proptest::prelude::*;

use super::*;
use crate::types::{EPOCH_DAYS, EPOCH_MICROS};

const ALL: [ColType; 17] = [
    ColType::Bool,
    ColType::Int2,
    ColType::Int4,
    ColType::Int8,
    ColType::Float4,
    ColType::Float8,
    ColType::Numeric { precision: 20, scale: 4 },
    ColType::NumericText,
    ColType::Text,
    ColType::Varchar,
    ColType::Date,
    ColType::Timestamp,
    ColType::TimestampTz,
    ColType::Uuid,
    ColType::Jsonb,
    ColType::Bytea,
    ColType::Xid8,
];

fn schema(types: &[ColType]) -> SchemaRef {
    Arc::new(Schema::new(
        types
            .iter()
            .enumerate()
            .map(|(i, t)| Field::new(format!("c{i}"), t.arrow(), true))
            .collect::<Vec<_>>(),
    ))
}

/// What COPY writes: header, rows of fields, trailer.
fn stream(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
    let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for row in rows {
        out.extend((row.len() as i16).to_be_bytes());
        for field in row {
            match field {
                None => out.extend((-1_i32).to_be_bytes()),
                Some(v) => {
                    out.extend((v.len() as i32).to_be_bytes());
                    out.extend(v);
                }
            }
        }
    }
    out.extend((-1_i16).to_be_bytes());
    out
}

/// `numeric_send` of `unscaled` / 10^scale, the way PostgreSQL stores it: no zero digits at either end.
fn numeric_wire(unscaled: i128, scale: usize) -> Vec<u8> {
    let digits = unscaled.unsigned_abs().to_string();
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let mut groups: Vec<u16> = format!("{whole}{fraction}")
        .as_bytes()
        .chunks(4)
        .map(|c| std::str::from_utf8(c).unwrap().parse().unwrap())
        .collect();
    let mut weight = (whole.len() / 4) as i16 - 1;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign: u16 = if unscaled < 0 { 0x4000 } else { 0 };
    let mut out = Vec::new();
    out.extend((groups.len() as i16).to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend((scale as u16).to_be_bytes());
    for g in groups {
        out.extend(g.to_be_bytes());
    }
    out
}

fn special(sign: u16) -> Vec<u8> {
    [0_u16, 0, sign, 0].iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// A value of each type: its bytes on the wire, and what Arrow should print for it.
fn value(ty: ColType) -> BoxedStrategy<(Vec<u8>, Cell)> {
    match ty {
        ColType::Bool => any::<bool>().prop_map(|b| (vec![u8::from(b)], Cell::Bool(b))).boxed(),
        ColType::Int2 => any::<i16>().prop_map(|v| (v.to_be_bytes().to_vec(), Cell::Int(v.into()))).boxed(),
        ColType::Int4 => any::<i32>().prop_map(|v| (v.to_be_bytes().to_vec(), Cell::Int(v.into()))).boxed(),
        ColType::Int8 => any::<i64>().prop_map(|v| (v.to_be_bytes().to_vec(), Cell::Int(v.into()))).boxed(),
        ColType::Xid8 => (0..i64::MAX).prop_map(|v| (v.to_be_bytes().to_vec(), Cell::Int(v.into()))).boxed(),
        ColType::Float4 => any::<u32>().prop_map(|v| (v.to_be_bytes().to_vec(), Cell::Int(v.into()))).boxed(),
        ColType::Float8 => any::<u64>().prop_map(|v| (v.to_be_bytes().to_vec(), Cell::Int(v.into()))).boxed(),
        ColType::Numeric { precision, scale } => {
            let limit = 10_i128.pow(precision.into());
            (-limit + 1..limit).prop_map(move |v| (numeric_wire(v, scale as usize), Cell::Int(v))).boxed()
        }
        ColType::NumericText => (any::<i64>(), 0_usize..30)
            .prop_map(|(v, s)| {
                let d = format!("{:0>w$}", v.unsigned_abs().to_string(), w = s + 1);
                let (a, b) = d.split_at(d.len() - s);
                let text = format!("{}{a}{}{b}", if v < 0 { "-" } else { "" }, if s > 0 { "." } else { "" });
                (numeric_wire(v.into(), s), Cell::Text(text))
            })
            .boxed(),
        ColType::Text | ColType::Varchar => {
            "\\PC{0,40}".prop_map(|s| (s.clone().into_bytes(), Cell::Text(s))).boxed()
        }
        ColType::Jsonb => "\\PC{0,40}".prop_map(|s| ([&[1], s.as_bytes()].concat(), Cell::Text(s))).boxed(),
        ColType::Date => prop_oneof![
            Just((i32::MAX.to_be_bytes().to_vec(), Cell::Int(i32::MAX.into()))),
            Just((i32::MIN.to_be_bytes().to_vec(), Cell::Int(i32::MIN.into()))),
            (-2_451_545..2_145_031_949_i32)
                .prop_map(|d| (d.to_be_bytes().to_vec(), Cell::Int(i128::from(d) + i128::from(EPOCH_DAYS)))),
        ]
        .boxed(),
        ColType::Timestamp | ColType::TimestampTz => prop_oneof![
            Just((i64::MAX.to_be_bytes().to_vec(), Cell::Int(i64::MAX.into()))),
            Just((i64::MIN.to_be_bytes().to_vec(), Cell::Int(i64::MIN.into()))),
            (-211_813_488_000_000_000..i64::MAX - EPOCH_MICROS).prop_map(|t| (
                t.to_be_bytes().to_vec(),
                Cell::Int(i128::from(t) + i128::from(EPOCH_MICROS))
            )),
        ]
        .boxed(),
        ColType::Uuid => any::<[u8; 16]>()
            .prop_map(|b| (b.to_vec(), Cell::Text(uuid::Uuid::from_bytes(b).to_string())))
            .boxed(),
        ColType::Bytea => {
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|b| (b.clone(), Cell::Bytes(b))).boxed()
        }
        ColType::Array(_) => unreachable!("no column that is archived is an array"),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Bool(bool),
    Int(i128),
    Text(String),
    Bytes(Vec<u8>),
}

fn cell(array: &dyn Array, i: usize) -> Cell {
    if array.is_null(i) {
        return Cell::Null;
    }
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(i)),
        DataType::Int16 => Cell::Int(array.as_primitive::<Int16Type>().value(i).into()),
        DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(i).into()),
        DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(i).into()),
        DataType::Float32 => Cell::Int(array.as_primitive::<Float32Type>().value(i).to_bits().into()),
        DataType::Float64 => Cell::Int(array.as_primitive::<Float64Type>().value(i).to_bits().into()),
        DataType::Decimal128(..) => Cell::Int(array.as_primitive::<Decimal128Type>().value(i)),
        DataType::Date32 => Cell::Int(array.as_primitive::<Date32Type>().value(i).into()),
        DataType::Timestamp(..) => {
            Cell::Int(array.as_primitive::<TimestampMicrosecondType>().value(i).into())
        }
        DataType::Utf8View => Cell::Text(array.as_string_view().value(i).into()),
        DataType::BinaryView => Cell::Bytes(array.as_binary_view().value(i).into()),
        other => panic!("{other}"),
    }
}

type Row = Vec<Option<(Vec<u8>, Cell)>>;

fn row() -> impl Strategy<Value = Row> {
    ALL.iter().map(|t| prop::option::weighted(0.8, value(*t))).collect::<Vec<_>>()
}

fn decode(types: &[ColType], chunks: &[&[u8]], batch_rows: usize) -> Result<Vec<RecordBatch>> {
    let mut d = CopyDecoder::new(types, schema(types), batch_rows)?;
    let mut out = Vec::new();
    for c in chunks {
        d.push(c)?;
        while let Some(b) = d.next_batch() {
            out.push(b);
        }
    }
    out.extend(d.finish()?);
    Ok(out)
}

fn cells(batches: &[RecordBatch]) -> Vec<Vec<Cell>> {
    batches
        .iter()
        .flat_map(|b| (0..b.num_rows()).map(move |i| b.columns().iter().map(|c| cell(c, i)).collect()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_type_wherever_chunks_end(
        rows in prop::collection::vec(row(), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        batch_rows in 1_usize..8,
    ) {
        let wire = stream(&rows.iter().map(|r| r.iter().map(|f| f.as_ref().map(|(b, _)| b.clone())).collect()).collect::<Vec<_>>());
        let wanted: Vec<Vec<Cell>> = rows.iter().map(|r| r.iter().map(|f| f.as_ref().map_or(Cell::Null, |(_, c)| c.clone())).collect()).collect();
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(wire.len() + 1)).collect();
        at.extend([0, wire.len()]);
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|w| &wire[w[0]..w[1]]).collect();
        let batches = decode(&ALL, &chunks, batch_rows).unwrap();
        prop_assert!(batches.iter().all(|b| b.num_rows() <= batch_rows));
        prop_assert_eq!(cells(&batches), wanted.clone());
        // Byte by byte, and taken only at the end.
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        let mut d = CopyDecoder::new(&ALL, schema(&ALL), batch_rows).unwrap();
        for b in bytes {
            d.push(b).unwrap();
        }
        prop_assert!(d.is_done());
        let all: Vec<RecordBatch> = d.finish().unwrap().into_iter().collect();
        prop_assert_eq!(cells(&all), wanted);
    }

    #[test]
    fn no_bytes_make_it_panic(
        rows in prop::collection::vec(row(), 0..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        let mut wire = stream(&rows.iter().map(|r| r.iter().map(|f| f.as_ref().map(|(b, _)| b.clone())).collect()).collect::<Vec<_>>());
        for (i, b) in flips {
            let i = i.index(wire.len());
            wire[i] = b;
        }
        wire.truncate(end.index(wire.len() + 1));
        // Either rows or an error.
        let _ = decode(&ALL, &[&wire], 3);
    }

    #[test]
    fn noise_is_no_numeric_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(n) = numeric::Numeric::parse(&bytes) {
            let _ = n.scaled(38, 10);
            let _ = n.scaled(5, 0);
            let _ = n.text();
        }
    }

    #[test]
    fn numerics_of_38_digits(unscaled in any::<i128>(), scale in 0_i8..=38) {
        let limit = 10_i128.pow(38);
        let v = unscaled % limit;
        let ty = ColType::Numeric { precision: 38, scale };
        let wire = stream(&[vec![Some(numeric_wire(v, scale as usize))]]);
        let batches = decode(&[ty], &[&wire], 10).unwrap();
        prop_assert_eq!(cells(&batches), vec![vec![Cell::Int(v)]]);
    }
}

#[test]
fn texts_of_numerics() {
    let text = |w: &[u8]| numeric::Numeric::parse(w).unwrap().text();
    assert_eq!(text(&numeric_wire(0, 0)), "0");
    assert_eq!(text(&numeric_wire(0, 3)), "0.000");
    assert_eq!(text(&numeric_wire(-5, 3)), "-0.005");
    assert_eq!(text(&numeric_wire(120_000_000, 4)), "12000.0000");
    assert_eq!(text(&numeric_wire(10_000_000_000, 0)), "10000000000");
    assert_eq!(text(&special(0xC000)), "NaN");
    assert_eq!(text(&special(0xD000)), "Infinity");
    assert_eq!(text(&special(0xF000)), "-Infinity");
    // 1e-20, whose first digit is far behind the point.
    let mut tiny = Vec::new();
    for w in [1_u16, -5_i16 as u16, 0, 20, 1] {
        tiny.extend(w.to_be_bytes());
    }
    assert_eq!(text(&tiny), "0.00000000000000000001");
}

#[test]
fn what_cannot_be_kept_is_named() {
    let n = ColType::Numeric { precision: 5, scale: 2 };
    for wire in [special(0xC000), special(0xD000), numeric_wire(1_000_000, 2), numeric_wire(1001, 3)] {
        let e = decode(&[n], &[&stream(&[vec![Some(wire)]])], 1).unwrap_err();
        assert!(matches!(&e, Error::Unkeepable { column, .. } if column == "c0"), "{e}");
    }
    let late = (i64::MAX - 1).to_be_bytes().to_vec();
    let e = decode(&[ColType::TimestampTz], &[&stream(&[vec![Some(late)]])], 1).unwrap_err();
    assert!(matches!(e, Error::Unkeepable { .. }), "{e}");
    let e = decode(&[ColType::Xid8], &[&stream(&[vec![Some(vec![0xff; 8])]])], 1).unwrap_err();
    assert!(matches!(e, Error::Unkeepable { .. }), "{e}");
}

#[test]
fn malformed_streams() {
    let good = stream(&[vec![Some(vec![1])]]);
    let b = &[ColType::Bool];
    assert_eq!(decode(b, &[&good], 1).unwrap().len(), 1);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("signature", [b"XGCOPY", &good[6..]].concat()),
        ("flags", [&good[..11], &[0, 1, 0, 0], &good[15..]].concat()),
        ("extension", [&good[..15], &[0xff, 0xff, 0xff, 0xff], &good[19..]].concat()),
        ("fields", stream(&[vec![Some(vec![1]), None]])),
        ("bool", stream(&[vec![Some(vec![2])]])),
        ("bool of two", stream(&[vec![Some(vec![0, 0])]])),
        ("after trailer", [&good[..], &[0]].concat()),
        ("no trailer", good[..good.len() - 2].to_vec()),
        ("half a row", good[..good.len() - 3].to_vec()),
        ("nothing", Vec::new()),
        ("negative length", {
            let mut w = good.clone();
            w[21..25].copy_from_slice(&(-2_i32).to_be_bytes());
            w
        }),
        ("length beyond", {
            let mut w = good.clone();
            w[21..25].copy_from_slice(&i32::MAX.to_be_bytes());
            w
        }),
    ];
    for (what, wire) in cases {
        assert!(matches!(decode(b, &[&wire], 1), Err(Error::Copy(_))), "{what}");
    }
    for (ty, wire) in [
        (ColType::Text, vec![0xff]),
        (ColType::Jsonb, vec![]),
        (ColType::Jsonb, vec![2, b'1']),
        (ColType::Uuid, vec![0; 15]),
        (ColType::Int8, vec![0; 4]),
        (ColType::Date, vec![0; 8]),
    ] {
        assert!(decode(&[ty], &[&stream(&[vec![Some(wire)]])], 1).is_err(), "{ty:?}");
    }
}

#[test]
fn a_header_extension_is_skipped() {
    let good = stream(&[vec![Some(vec![1])]]);
    let wire = [&good[..15], &[0, 0, 0, 3, 9, 9, 9], &good[19..]].concat();
    assert_eq!(
        cells(&decode(&[ColType::Bool], &[&wire[..17], &wire[17..]], 1).unwrap()),
        vec![vec![Cell::Bool(true)]]
    );
}

#[test]
fn types_and_schema_must_fit() {
    assert!(CopyDecoder::new(&[ColType::Int4], schema(&[ColType::Int8]), 1).is_err());
    assert!(CopyDecoder::new(&[], schema(&[ColType::Int8]), 1).is_err());
}

#[test]
fn after_an_error_it_refuses() {
    let mut d = CopyDecoder::new(&[ColType::Bool], schema(&[ColType::Bool]), 1).unwrap();
    d.push(&stream(&[vec![Some(vec![1])], vec![Some(vec![7])]])).unwrap_err();
    assert!(d.push(&[]).is_err());
    assert_eq!(d.next_batch().map(|b| b.num_rows()), Some(1));
    assert!(d.finish().is_err());
}

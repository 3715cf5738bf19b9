use std::sync::Arc;

use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, LargeStringArray, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, i256};

use super::*;
use crate::testpg::{Random, cluster, copy_binary, read_copy_binary, take};

const ZONES: &[&str] = &[
    "UTC",
    "America/New_York",
    "Asia/Kolkata",
    "Europe/Berlin",
    "America/Havana",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
];

type Fields = Vec<Option<Vec<u8>>>;

fn target(type_oid: u32, typmod: i32, format: Format) -> Target {
    Target { type_oid, typmod, format }
}

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Takes DataRow frames apart, checking their lengths.
fn frames(bytes: &[u8]) -> Vec<Fields> {
    let mut rest = bytes;
    let mut rows = Vec::new();
    while !rest.is_empty() {
        assert_eq!(rest[0], b'D');
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let mut body = &rest[5..length + 1];
        let columns = u16::from_be_bytes(body[..2].try_into().unwrap());
        body = &body[2..];
        let mut row = Vec::new();
        for _ in 0..columns {
            let length = i32::from_be_bytes(body[..4].try_into().unwrap());
            body = &body[4..];
            row.push(usize::try_from(length).ok().map(|n| {
                let (value, after) = body.split_at(n);
                body = after;
                value.to_vec()
            }));
        }
        assert!(body.is_empty());
        rows.push(row);
        rest = &rest[length + 1..];
    }
    rows
}

fn encode(
    batch: &RecordBatch,
    types: &[(u32, i32)],
    format: Format,
    zone: &Zone,
) -> Result<Vec<Fields>, EncodeError> {
    let targets: Vec<Target> = types.iter().map(|(o, t)| target(*o, *t, format)).collect();
    let mut out = BytesMut::new();
    let rows =
        RowEncoder::try_new(&targets, &batch.schema(), zone)?.encode_batch(batch, 0, usize::MAX, &mut out)?;
    assert_eq!(rows, batch.num_rows());
    Ok(frames(&out))
}

/// PostgreSQL reads our binary, and must print our text and send our binary.
fn round_trip(batch: &RecordBatch, types: &[(u32, i32)], columns: &str, zone: &Zone) {
    // A number for the order, which a heap does not keep.
    let mut numbered: Vec<ArrayRef> =
        vec![Arc::new(Int32Array::from_iter_values(0..batch.num_rows() as i32))];
    numbered.extend(batch.columns().iter().cloned());
    let (batch, types) = (&self::batch(numbered), &[&[(oid::INT4, -1)], types].concat());
    let binary = encode(batch, types, Format::Binary, zone).unwrap();
    let text = encode(batch, types, Format::Text, zone).unwrap();
    let input = cluster().file(&copy_binary(&binary));
    let output = cluster().file(b"");
    let prelude = format!(
        "CREATE TEMP TABLE t (row_number int, {columns});\n\\copy t FROM '{}' (FORMAT binary)\n\\copy (SELECT * FROM t ORDER BY 1) TO '{}' (FORMAT binary)",
        input.display(),
        output.display()
    );
    let theirs = cluster().copy_text(&[("timezone", zone.name())], &prelude, "SELECT * FROM t ORDER BY 1");
    take(&input);
    let theirs_binary = read_copy_binary(&take(&output));
    assert_eq!(theirs.len(), batch.num_rows());
    for (i, theirs) in theirs.iter().enumerate() {
        let ours: Vec<Option<String>> =
            text[i].iter().map(|f| f.as_ref().map(|b| String::from_utf8(b.clone()).unwrap())).collect();
        assert_eq!(&ours, theirs, "row {i} in {}", zone.name());
        assert_eq!(binary[i], theirs_binary[i], "row {i}: {ours:?}");
    }
}

/// Puts NULLs between values, so that the longest column sets the length.
fn with_nulls<T: Clone>(values: Vec<T>, rows: usize) -> Vec<Option<T>> {
    (0..rows).map(|i| if i % 7 == 3 { None } else { values.get(i - i / 7).cloned() }).collect()
}

#[test]
fn scalar_types_equal_postgres() {
    let rows = 2_500;
    let mut random = Random(61);
    let mut ints: Vec<i64> = vec![i64::MIN, i64::MAX, 0, -1, 1, 10, -10, 99_999_999];
    ints.extend((0..rows).map(|_| (random.next() as i64) >> random.below(63)));
    let clamp = |low: i64, high: i64| ints.iter().map(move |v| (*v).clamp(low, high)).collect::<Vec<_>>();
    let texts: Vec<String> =
        ["", " ", "a\tb\nc\\d\re", "\\N", "語🦀", "'\"", "\u{8}\u{b}\u{c}\u{1}", &"x".repeat(5000)]
            .into_iter()
            .map(String::from)
            .chain(
                (0..rows).map(|_| {
                    (0..random.below(20)).map(|_| char::from(32 + random.below(95) as u8)).collect()
                }),
            )
            .collect();
    let uuids: Vec<String> = ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
        .into_iter()
        .map(String::from)
        .chain((0..rows).map(|_| {
            let hex = format!("{:016x}{:016x}", random.next(), random.next());
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        }))
        .collect();
    let blobs: Vec<Vec<u8>> = [vec![], vec![0], vec![255, 92, 39]]
        .into_iter()
        .chain((0..rows).map(|_| (0..random.below(30)).map(|_| random.next() as u8).collect()))
        .collect();
    let jsons: Vec<String> = [
        "{}",
        "[]",
        "null",
        "true",
        "0",
        "-1.50",
        "\"a\\nb\"",
        "{\"a\": 1, \"bb\": [1, 2.0, null, \"x\\\"y\"]}",
        "{\"\": {}, \"語\": \"🦀\"}",
        "12345678901234567890.12345678901234567890",
    ]
    .into_iter()
    .map(String::from)
    .cycle()
    .take(rows)
    .collect();
    let fixed: Vec<Vec<u8>> = (0..rows).map(|_| (0..16).map(|_| random.next() as u8).collect()).collect();
    let fixed = with_nulls(fixed, rows);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(with_nulls(ints.iter().map(|v| v & 1 == 1).collect(), rows))),
        Arc::new(Int16Array::from(with_nulls(
            clamp(i16::MIN.into(), i16::MAX.into()).iter().map(|v| *v as i16).collect(),
            rows,
        ))),
        Arc::new(Int32Array::from(with_nulls(
            clamp(i32::MIN.into(), i32::MAX.into()).iter().map(|v| *v as i32).collect(),
            rows,
        ))),
        Arc::new(Int64Array::from(with_nulls(ints.clone(), rows))),
        // Wider and narrower than described.
        Arc::new(Int64Array::from(with_nulls(clamp(i16::MIN.into(), i16::MAX.into()), rows))),
        Arc::new(Int16Array::from(with_nulls(clamp(-300, 300).iter().map(|v| *v as i16).collect(), rows))),
        Arc::new(Float32Array::from(with_nulls(
            ints.iter()
                .map(|v| f32::from_bits(*v as u32))
                .map(|v| if v.is_nan() { f32::NAN } else { v })
                .collect(),
            rows,
        ))),
        Arc::new(Float64Array::from(with_nulls(
            ints.iter()
                .map(|v| f64::from_bits(*v as u64))
                .map(|v| if v.is_nan() { f64::NAN } else { v })
                .collect(),
            rows,
        ))),
        Arc::new(Float32Array::from(with_nulls(ints.iter().map(|v| *v as f32 / 7.0).collect(), rows))),
        Arc::new(StringViewArray::from(with_nulls(texts.clone(), rows))),
        Arc::new(StringArray::from(with_nulls(texts.clone(), rows))),
        Arc::new(LargeStringArray::from(with_nulls(texts, rows))),
        Arc::new(StringViewArray::from(with_nulls(uuids, rows))),
        Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed.iter().map(|v| v.as_deref()), 16)
                .unwrap(),
        ),
        Arc::new(StringViewArray::from(with_nulls(jsons, rows))),
        Arc::new(BinaryViewArray::from_iter(with_nulls(blobs.clone(), rows))),
        Arc::new(BinaryArray::from_iter(with_nulls(blobs, rows))),
        Arc::new(Int64Array::from(with_nulls(ints, rows))),
    ];
    let types = [
        (oid::BOOL, -1),
        (oid::INT2, -1),
        (oid::INT4, -1),
        (oid::INT8, -1),
        (oid::INT2, -1),
        (oid::INT8, -1),
        (oid::FLOAT4, -1),
        (oid::FLOAT8, -1),
        (oid::FLOAT8, -1),
        (oid::TEXT, -1),
        (oid::VARCHAR, 6000),
        (oid::TEXT, -1),
        (oid::UUID, -1),
        (oid::UUID, -1),
        (oid::JSONB, -1),
        (oid::BYTEA, -1),
        (oid::BYTEA, -1),
        (oid::XID8, -1),
    ];
    let declared = "a bool, b int2, c int4, d int8, e int2, f int8, g float4, h float8, i float8, j text, k varchar(5996), \
                    l text, m uuid, n uuid, o jsonb, p bytea, q bytea, r xid8";
    round_trip(&batch(columns), &types, declared, &Zone::utc());
}

#[test]
fn numerics_equal_postgres() {
    let rows = 3_000;
    let mut random = Random(62);
    let limit = 10i128.pow(38) - 1;
    let mut wide: Vec<i128> = vec![0, 1, -1, limit, -limit, 10_000, 9_999, 100_000_000, 12_345_678];
    wide.extend((0..38).flat_map(|e| [10i128.pow(e), -10i128.pow(e), 10i128.pow(e) - 1]));
    wide.extend((0..rows).map(|_| {
        let bits = (i128::from(random.next()) << 64 | i128::from(random.next())) % (limit + 1);
        bits / 10i128.pow(random.below(38) as u32) * if random.below(2) == 0 { 1 } else { -1 }
    }));
    let decimal = |scale: i8| -> ArrayRef {
        Arc::new(
            Decimal128Array::from(with_nulls(wide.clone(), rows))
                .with_precision_and_scale(38, scale)
                .unwrap(),
        )
    };
    let wider: Vec<i256> =
        wide.iter().map(|v| i256::from_i128(*v).wrapping_mul(i256::from_i128(limit))).collect();
    let texts: Vec<String> =
        ["NaN", "Infinity", "-Infinity", "0", "0.000", "1e0", "-0.0001", "10000", "1000000.00000000001"]
            .into_iter()
            .map(|s| s.replace("e0", ""))
            .chain(wider.iter().enumerate().map(|(i, v)| Decimal::from_i256(*v, (i % 90) as u16).to_string()))
            .collect();
    let columns: Vec<ArrayRef> = vec![
        decimal(0),
        decimal(2),
        decimal(10),
        decimal(37),
        Arc::new(Decimal256Array::from(with_nulls(wider, rows)).with_precision_and_scale(76, 30).unwrap()),
        Arc::new(StringViewArray::from(with_nulls(texts, rows))),
        Arc::new(Int64Array::from(with_nulls(wide.iter().map(|v| *v as i64).collect(), rows))),
    ];
    let types = [
        (oid::NUMERIC, -1),
        (oid::NUMERIC, ((38 << 16) | 2) + 4),
        (oid::NUMERIC, -1),
        (oid::NUMERIC, -1),
        (oid::NUMERIC, -1),
        (oid::NUMERIC, -1),
        (oid::NUMERIC, -1),
    ];
    let declared = "a numeric, b numeric(38,2), c numeric, d numeric, e numeric, f numeric, g numeric";
    round_trip(&batch(columns), &types, declared, &Zone::utc());
}

#[test]
fn times_equal_postgres_in_every_zone() {
    for name in ZONES {
        let zone = Zone::parse(name).unwrap();
        let mut random = Random(63);
        let far = i64::MAX - 1;
        let last = 253_402_300_799_999_999;
        let mut us = vec![
            i64::MAX,
            i64::MIN,
            0,
            -1,
            1,
            100,
            120_000,
            last,
            last + 1,
            MIN_TIMESTAMP_US + 1_000_000_000_000,
        ];
        for (at, _) in zone.changes() {
            us.extend([-1, 0, 1].map(|d| at * 1_000_000 + d));
        }
        us.extend((0..2_000).map(|_| {
            random.within(-200_000_000_000, 250_000_000_000) * 1_000_000 + random.within(0, 999_999)
        }));
        us.extend((0..500).map(|_| random.within(-300_000_000_000, 4_102_400_000) * 1_000));
        let local = us.iter().copied().chain([MIN_TIMESTAMP_US, far]).collect::<Vec<_>>();
        let (from, to) = zone.range_us();
        us.retain(|v| !calendar::finite(*v) || (*v >= from && *v < to));
        let rows = us.len().max(local.len()) * 7 / 6 + 7;
        let days: Vec<i32> = [
            i32::MAX,
            i32::MIN,
            0,
            -1,
            -2_440_588,
            2_145_031_948 + EPOCH_SHIFT_DAYS,
            2_932_896,
            2_932_897,
            -719_528,
            -719_163,
        ]
        .into_iter()
        .chain((0..2_000).map(|_| random.within(-2_440_588, 4_000_000) as i32))
        .collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(with_nulls(local, rows))),
            Arc::new(TimestampMicrosecondArray::from(with_nulls(us, rows)).with_timezone("UTC")),
            Arc::new(Date32Array::from(with_nulls(days, rows))),
        ];
        let types = [(oid::TIMESTAMP, -1), (oid::TIMESTAMPTZ, -1), (oid::DATE, -1)];
        round_trip(&batch(columns), &types, "a timestamp, b timestamptz, c date", &zone);
    }
}

#[test]
fn pieces_of_a_batch() {
    let data = batch(vec![
        Arc::new(Int32Array::from(vec![1, 2, 3, 4, 5])),
        Arc::new(StringArray::from(vec!["a"; 5])),
    ]);
    let targets = [target(oid::INT4, -1, Format::Text), target(oid::TEXT, -1, Format::Binary)];
    let encoder = RowEncoder::try_new(&targets, &data.schema(), &Zone::utc()).unwrap();
    let (mut whole, mut parts) = (BytesMut::new(), BytesMut::new());
    assert_eq!(encoder.encode_batch(&data, 0, usize::MAX, &mut whole).unwrap(), 5);
    assert_eq!(encoder.encode_batch(&data, 0, 2, &mut parts).unwrap(), 2);
    assert_eq!(encoder.encode_some(&data, 2, 10, 1, &mut parts).unwrap(), 1);
    assert_eq!(encoder.encode_batch(&data, 3, 10, &mut parts).unwrap(), 2);
    assert_eq!(encoder.encode_batch(&data, 5, 10, &mut parts).unwrap(), 0);
    assert_eq!(encoder.encode_batch(&data, 9, 1, &mut parts).unwrap(), 0);
    assert_eq!(whole, parts);
    assert_eq!(&whole[..17], b"D\0\0\0\x10\0\x02\0\0\0\x011\0\0\0\x01a");
}

#[test]
fn rows_without_columns() {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
    let data = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    let encoder = RowEncoder::try_new(&[], &data.schema(), &Zone::utc()).unwrap();
    let mut out = BytesMut::new();
    assert_eq!(encoder.encode_batch(&data, 0, 9, &mut out).unwrap(), 3);
    assert_eq!(&out[..], b"D\0\0\0\x06\0\0".repeat(3));
}

#[test]
fn values_beyond_the_described_type() {
    let data = batch(vec![Arc::new(Int64Array::from(vec![1, 70_000]))]);
    for (type_oid, message) in [(oid::INT2, "smallint out of range")] {
        for format in [Format::Text, Format::Binary] {
            let encoder =
                RowEncoder::try_new(&[target(type_oid, -1, format)], &data.schema(), &Zone::utc()).unwrap();
            let mut out = BytesMut::new();
            let e = encoder.encode_batch(&data, 0, 9, &mut out).unwrap_err();
            assert_eq!(e, EncodeError::Value { column: 0, error: PgError::new("22003", message) });
            // The complete row before it stays.
            assert_eq!(frames(&out).len(), 1);
        }
    }
    let berlin = Zone::parse("Europe/Berlin").unwrap();
    let late = batch(vec![Arc::new(
        TimestampMicrosecondArray::from(vec![4_200_000_000_000_000]).with_timezone("UTC"),
    )]);
    assert!(matches!(
        encode(&late, &[(oid::TIMESTAMPTZ, -1)], Format::Text, &berlin),
        Err(EncodeError::Zone(_))
    ));
    // Binary needs no zone.
    assert!(encode(&late, &[(oid::TIMESTAMPTZ, -1)], Format::Binary, &berlin).is_ok());
    let early = batch(vec![Arc::new(TimestampMicrosecondArray::from(vec![MIN_TIMESTAMP_US - 1]))]);
    assert!(matches!(
        encode(&early, &[(oid::TIMESTAMP, -1)], Format::Text, &berlin),
        Err(EncodeError::Value { .. })
    ));
    for bad in [
        "",
        "0",
        "00000000-0000-0000-0000-00000000000",
        "00000000-0000-0000-0000-0000000000000",
        "0000000000-00-0000-0000-000000000000",
        "zz",
    ] {
        let data = batch(vec![Arc::new(StringArray::from(vec![bad]))]);
        assert!(encode(&data, &[(oid::UUID, -1)], Format::Binary, &Zone::utc()).is_err(), "{bad}");
    }
}

#[test]
fn what_is_not_exact_is_refused() {
    let utc = Zone::utc();
    let refused = |array: ArrayRef, type_oid: u32, typmod: i32| {
        let data = batch(vec![array]);
        let r = RowEncoder::try_new(&[target(type_oid, typmod, Format::Text)], &data.schema(), &utc);
        assert!(matches!(r, Err(EncodeError::Unsupported { column: 0, .. })), "{type_oid}");
    };
    let decimal = |s: i8| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![1]).with_precision_and_scale(10, s).unwrap())
    };
    refused(Arc::new(Float64Array::from(vec![1.0])), oid::NUMERIC, -1);
    refused(Arc::new(Float64Array::from(vec![1.0])), oid::FLOAT4, -1);
    refused(decimal(2), oid::NUMERIC, ((10 << 16) | 3) + 4);
    refused(decimal(-2), oid::NUMERIC, -1);
    refused(Arc::new(StringArray::from(vec!["x"])), 1042, -1);
    refused(Arc::new(StringArray::from(vec!["x"])), oid::INT4, -1);
    refused(Arc::new(TimestampMicrosecondArray::from(vec![1])), oid::TIMESTAMPTZ, -1);
    refused(Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC")), oid::TIMESTAMP, -1);
    refused(Arc::new(arrow::array::TimestampNanosecondArray::from(vec![1])), oid::TIMESTAMP, -1);
    refused(Arc::new(arrow::array::UInt64Array::from(vec![1])), oid::INT8, -1);
    let data = batch(vec![Arc::new(Int32Array::from(vec![1]))]);
    assert!(matches!(RowEncoder::try_new(&[], &data.schema(), &utc), Err(EncodeError::Columns { .. })));
    let encoder = RowEncoder::try_new(&[target(oid::INT4, -1, Format::Text)], &data.schema(), &utc).unwrap();
    let other = batch(vec![Arc::new(Int64Array::from(vec![1]))]);
    assert!(encoder.encode_batch(&other, 0, 1, &mut BytesMut::new()).is_err());
}

/// Arrays of `values`, of random lengths, some of them empty or NULL.
fn lists(values: ArrayRef, random: &mut Random) -> ArrayRef {
    let (mut lengths, mut left) = (Vec::new(), values.len());
    while left > 0 {
        let length = (random.below(5) as usize).min(left);
        lengths.push(length);
        left -= length;
    }
    let nulls = arrow::buffer::NullBuffer::from((0..lengths.len()).map(|i| i % 11 != 5).collect::<Vec<bool>>());
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    Arc::new(arrow::array::ListArray::try_new(field, offsets, values, Some(nulls)).expect("lists"))
}

#[test]
fn arrays_equal_postgres() {
    let mut random = Random(62);
    let rows = 900;
    let ints = |random: &mut Random| -> Vec<Option<i64>> {
        (0..rows).map(|_| (random.below(6) > 0).then(|| (random.next() as i64) >> random.below(63))).collect()
    };
    let texts = ["", " ", "a", "NULL", "null", "Nulls", "a b", "a,b", "{", "}", "\"", "\\", "tab\t", "x\ny", "\u{b}", "ä", "🦀", "'"];
    let texts: Vec<Option<&str>> = (0..rows).map(|_| (random.below(7) > 0).then(|| *random.pick(&texts))).collect();
    let i4: Vec<Option<i32>> = ints(&mut random).iter().map(|v| v.map(|v| v as i32)).collect();
    let times: Vec<Option<i64>> = ints(&mut random)
        .iter()
        .map(|v| v.map(|v| if v % 9 == 0 { i64::MAX } else { v % 4_000_000_000_000_000 }))
        .collect();
    let decimals: Vec<Option<i128>> = ints(&mut random).iter().map(|v| v.map(i128::from)).collect();
    let floats: Vec<Option<f64>> = ints(&mut random).iter().map(|v| v.map(|v| v as f64 / 3.0)).collect();
    let uuids: Vec<Option<String>> = (0..rows)
        .map(|_| {
            let hex = format!("{:016x}{:016x}", random.next(), random.next());
            let uuid = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
            (random.below(6) > 0).then_some(uuid)
        })
        .collect();
    let days: Vec<Option<i32>> = i4.iter().map(|v| v.map(|v| if v % 9 == 0 { i32::MIN } else { v % 100_000 })).collect();
    let columns: Vec<(ArrayRef, u32, &str)> = vec![
        (Arc::new(BooleanArray::from_iter(i4.iter().map(|v| v.map(|v| v % 2 == 0)))), 1000, "bool"),
        (Arc::new(Int16Array::from_iter(i4.iter().map(|v| v.map(|v| v as i16)))), 1005, "int2"),
        (Arc::new(Int32Array::from(i4)), 1007, "int4"),
        (Arc::new(Int64Array::from(ints(&mut random))), 1016, "int8"),
        (Arc::new(Float64Array::from(floats)), 1022, "float8"),
        (Arc::new(Decimal128Array::from(decimals).with_precision_and_scale(30, 3).expect("fits")), 1231, "numeric"),
        (Arc::new(StringViewArray::from_iter(texts.iter().copied())), 1009, "text"),
        (Arc::new(StringViewArray::from_iter(texts.iter().rev().copied())), 1015, "varchar"),
        (Arc::new(Date32Array::from(days)), 1182, "date"),
        (Arc::new(TimestampMicrosecondArray::from(times.clone())), 1115, "timestamp"),
        (Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")), 1185, "timestamptz"),
        (Arc::new(StringViewArray::from_iter(uuids)), 2951, "uuid"),
    ];
    for (values, type_oid, name) in columns {
        for zone in ["UTC", "Asia/Kolkata", "America/Havana"] {
            let list = lists(values.clone(), &mut random);
            let zone = Zone::parse(zone).expect("a zone");
            round_trip(&batch(vec![list]), &[(type_oid, -1)], &format!("a {name}[]"), &zone);
        }
    }
    let nested = lists(lists(Arc::new(Int32Array::from(vec![1, 2, 3])), &mut random), &mut random);
    let refused = encode(&batch(vec![nested]), &[(1007, -1)], Format::Text, &Zone::parse("UTC").expect("UTC"));
    assert!(matches!(refused, Err(EncodeError::Unsupported { .. })));
}

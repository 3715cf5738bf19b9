use arrow::array::RecordBatch;
use url::Url;

use super::*;
use crate::checksum::Checksum;
use crate::log::tests::{column, spec};

/// One row per value of each type at its extremes, and NULLs.
fn extremes(spec: &TableSpec) -> RecordBatch {
    use arrow::array::*;
    let n = 3;
    let columns: Vec<ArrayRef> = spec
        .columns
        .iter()
        .map(|c| -> ArrayRef {
            match c.ty {
                ColType::TimestampTz if c.attnum == 1 => {
                    Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 2]).with_timezone("UTC"))
                }
                ColType::TimestampTz => Arc::new(
                    TimestampMicrosecondArray::from(vec![Some(i64::MAX), None, Some(i64::MIN)])
                        .with_timezone("UTC"),
                ),
                ColType::Timestamp => {
                    Arc::new(TimestampMicrosecondArray::from(vec![Some(i64::MAX), None, Some(i64::MIN)]))
                }
                ColType::Date => Arc::new(Date32Array::from(vec![Some(i32::MAX), None, Some(i32::MIN)])),
                ColType::Bool => Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
                ColType::Int2 => Arc::new(Int16Array::from(vec![Some(i16::MAX), None, Some(i16::MIN)])),
                ColType::Int4 => Arc::new(Int32Array::from(vec![Some(i32::MAX), None, Some(i32::MIN)])),
                ColType::Int8 | ColType::Xid8 => {
                    Arc::new(Int64Array::from(vec![Some(i64::MAX), None, Some(i64::MIN)]))
                }
                ColType::Float4 => Arc::new(Float32Array::from(vec![Some(f32::NAN), None, Some(-0.0)])),
                ColType::Float8 => Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None, Some(-0.0)])),
                ColType::Numeric { precision, scale } => {
                    let max = 10_i128.pow(precision.into()) - 1;
                    Arc::new(
                        Decimal128Array::from(vec![Some(max), None, Some(-max)])
                            .with_precision_and_scale(precision, scale)
                            .unwrap(),
                    )
                }
                ColType::Bytea => {
                    Arc::new(BinaryViewArray::from(vec![Some(&b"\0\xff"[..]), None, Some(&b""[..])]))
                }
                _ => Arc::new(StringViewArray::from(vec![Some("é"), None, Some("")])),
            }
        })
        .collect();
    assert!(columns.iter().all(|c| c.len() == n));
    RecordBatch::try_new(spec.arrow_schema(), columns).unwrap()
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = Url::from_directory_path(dir.path()).unwrap();
    let mut spec = spec();
    let types = [
        ColType::Bool,
        ColType::Int2,
        ColType::Int4,
        ColType::Int8,
        ColType::Float4,
        ColType::Float8,
        ColType::Numeric { precision: 38, scale: 10 },
        ColType::Numeric { precision: 9, scale: 0 },
        ColType::Numeric { precision: 18, scale: 18 },
        ColType::NumericText,
        ColType::Varchar,
        ColType::Date,
        ColType::Timestamp,
        ColType::TimestampTz,
        ColType::Uuid,
        ColType::Jsonb,
        ColType::Bytea,
    ];
    for (i, ty) in types.into_iter().enumerate() {
        spec.columns.push(column(10 + i as i16, &format!("c{i}"), ty));
    }
    let table = LakeTable::open_or_create(&root, &spec).await.unwrap();
    let batch = extremes(&spec);
    let options = WriterOptions { bloom: vec!["level".into()], ..WriterOptions::default() };
    let mut w = FileWriter::create(&table, 0, &options).await.unwrap();
    w.write(&batch).await.unwrap();
    // Nothing can be seen before it is whole.
    let path = dir.path().join("public.logs/_day=1970-01-01");
    assert!(
        std::fs::read_dir(&path).map_or(0, |d| d
            .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "parquet"))
            .count())
            == 0
    );
    let new = w.close().await.unwrap();
    assert_eq!(new.file.rows, 3);
    assert_eq!(
        new.file.size,
        std::fs::metadata(dir.path().join("public.logs").join(&new.file.path)).unwrap().len()
    );

    let bytes =
        bytes::Bytes::from(std::fs::read(dir.path().join("public.logs").join(&new.file.path)).unwrap());
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    assert_eq!(builder.schema().fields(), spec.arrow_schema().fields());
    let group = builder.metadata().row_group(0);
    assert_eq!(group.sorting_columns().unwrap()[0].column_idx, 0);
    assert!(group.columns().iter().any(|c| c.bloom_filter_offset().is_some()));
    let mut reader =
        crate::reader::FileReader::open(&table, &new.file, spec.arrow_schema(), 2).await.unwrap();
    let mut read = Vec::new();
    while let Some(b) = reader.next().await.unwrap() {
        read.push(b);
    }
    let (mut a, mut b) = (Checksum::default(), Checksum::default());
    a.add_batch(&batch).unwrap();
    for r in &read {
        b.add_batch(r).unwrap();
    }
    assert_eq!(a, b);
}

//! Are the rows that are to leave PostgreSQL in the lake? Count and order-free checksum of both stores, over all columns with provenance,
//! at one lake version and its boundary. Reads; changes nothing.

use std::collections::HashMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use lake::boundary::Boundary;
use lake::checksum::{Checksum, row_hashes};
use lake::log::{LakeTable, LakeVersion};
use lake::reader::FileReader;
use lake::spec::{TableSpec, quote};
use lake::stats::Bound;
use lake::types::{self, ColType};
use sqlx::PgConnection;

use crate::archiver::{Result, xid_column};
use crate::verify::{Days, Shape, days_of, scan};

/// Rows of one batch.
const BATCH_ROWS: usize = 8192;

/// The lake at one version, and the boundary that it holds.
pub(super) struct Lake<'a> {
    pub(super) table: &'a LakeTable,
    pub(super) version: &'a LakeVersion,
    pub(super) boundary: &'a Boundary,
}

/// The condition for event times of days from `from` (none: all before) up to `to`, exclusive.
pub(super) fn range(spec: &TableSpec, from: Option<i32>, to: i32) -> Result<String> {
    let event = spec.event_column()?;
    let column = format!("t.{}", quote(&event.name));
    let bound = |day: i32| match event.ty {
        ColType::TimestampTz => format!("'{} 00:00:00+00'::pg_catalog.timestamptz", types::day_text(day)),
        ColType::Timestamp => format!("'{} 00:00:00'::pg_catalog.timestamp", types::day_text(day)),
        _ => format!("'{}'::pg_catalog.date", types::day_text(day)),
    };
    let below = format!("{column} OPERATOR(pg_catalog.<) {}", bound(to));
    Ok(match from {
        Some(from) => format!("{column} OPERATOR(pg_catalog.>=) {} AND {below}", bound(from)),
        None => below,
    })
}

/// How many rows both stores have of these days; the text names the first day in which they differ.
pub(super) async fn days(
    conn: &mut PgConnection,
    spec: &TableSpec,
    lake: &Lake<'_>,
    from: Option<i32>,
    to: i32,
) -> Result<std::result::Result<u64, String>> {
    let shape = Shape::of(spec)?;
    let mut in_lake = Days::new();
    let mut rows = 0;
    for file in lake.version.files.iter().filter(|f| f.day < to && from.is_none_or(|from| f.day >= from)) {
        let mut reader = FileReader::open(lake.table, file, spec.arrow_schema(), BATCH_ROWS).await?;
        while let Some(batch) = reader.next().await? {
            rows += batch.num_rows() as u64;
            shape.add(&batch, &mut in_lake)?;
        }
    }
    let mut in_postgres = Days::new();
    let mut there = 0;
    let inside = format!("NOT {} AND {}", lake.boundary.tail_predicate(&xid_column(spec)?), range(spec, from, to)?);
    scan(conn, spec, &inside, |batch| {
        there += batch.num_rows() as u64;
        shape.add(batch, &mut in_postgres)
    })
    .await?;
    let differs = days_of(&in_lake, &in_postgres).find(|day| in_lake.get(day) != in_postgres.get(day));
    Ok(match differs {
        None => Ok(rows),
        Some(day) => Err(format!(
            "the stores differ in {}: of the days compared PostgreSQL has {there} rows and the lake {rows}; `watershed verify` tells more",
            types::day_text(day)
        )),
    })
}

/// Rows by transaction and day: of each such group either all rows stand among the late ones, or none.
type Groups = HashMap<(i64, i32), Checksum>;

fn add(shape: &Shape<'_>, batch: &RecordBatch, wanted: Option<&Groups>, groups: &mut Groups) -> Result<()> {
    let xids = batch.column(shape.xid).as_primitive::<Int64Type>();
    let times = shape.event_micros(batch);
    let hashes = row_hashes(batch)?;
    for ((hash, xid), time) in hashes.into_iter().zip(xids.values()).zip(times) {
        let key = (*xid, types::partition_day(time));
        if wanted.is_none_or(|w| w.contains_key(&key)) {
            groups.entry(key).or_default().add(hash);
        }
    }
    Ok(())
}

/// How many late rows (of days from `from` up to the floor, exclusive) the boundary sees; the text says why they cannot go.
pub(super) async fn late(
    conn: &mut PgConnection,
    spec: &TableSpec,
    lake: &Lake<'_>,
    from: Option<i32>,
    floor: i32,
) -> Result<std::result::Result<u64, String>> {
    let shape = Shape::of(spec)?;
    let mut here = Groups::new();
    let inside = format!("NOT {} AND {}", lake.boundary.tail_predicate(&xid_column(spec)?), range(spec, from, floor)?);
    let mut rows = 0;
    scan(conn, spec, &inside, |batch| {
        rows += batch.num_rows() as u64;
        add(&shape, batch, None, &mut here)
    })
    .await?;
    let (Some(least), Some(greatest)) = (here.keys().map(|k| k.0).min(), here.keys().map(|k| k.0).max()) else {
        return Ok(Ok(0));
    };
    let days: std::collections::HashSet<i32> = here.keys().map(|k| k.1).collect();
    let mut there = Groups::new();
    for file in lake.version.files.iter().filter(|f| days.contains(&f.day)) {
        let (min, max) = file.column(types::XID).map_or((None, None), |c| (c.min.clone(), c.max.clone()));
        if matches!(min, Some(Bound::Int(min)) if min > greatest) || matches!(max, Some(Bound::Int(max)) if max < least) {
            continue;
        }
        let mut reader = FileReader::open(lake.table, file, spec.arrow_schema(), BATCH_ROWS).await?;
        while let Some(batch) = reader.next().await? {
            add(&shape, &batch, Some(&here), &mut there)?;
        }
    }
    let missing = here.iter().find(|(key, sum)| there.get(*key) != Some(*sum));
    Ok(match missing {
        None => Ok(rows),
        Some(((xid, day), _)) => Err(format!(
            "late rows of transaction {xid} of {} are not in the lake as PostgreSQL has them; `watershed verify` tells more",
            types::day_text(*day)
        )),
    })
}

//! The relations that exist only in the gateway: `watershed.queries`, `watershed.route_stats`, `watershed.files`,
//! `watershed.functions`, `watershed.comparisons` and `watershed.metrics`, as Arrow batches over what is known at the moment of asking. PostgreSQL holds a stub view of each, of the same shape,
//! so its catalog, names and privileges are PostgreSQL's own. ✗ planning, encoding.

use crate::analyze::registry;
use crate::compare::log::{Comparisons, Entry as Comparison};
use crate::engine::FileRow;
use crate::query::log::QueryLog;
use crate::query::record::Entry;
use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// PostgreSQL type OIDs of the columns.
mod oid {
    pub const BOOL: u32 = 16;
    pub const INT8: u32 = 20;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const FLOAT8: u32 = 701;
    pub const DATE: u32 = 1082;
    pub const TIMESTAMPTZ: u32 = 1184;
}

/// One virtual table: name of its stub function in `watershed_control`, and its columns in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// In schema `watershed`.
    pub name: &'static str,
    /// In schema `watershed_control`, without arguments.
    pub function: &'static str,
    /// Name and type OID; no column has a typmod.
    pub columns: &'static [(&'static str, u32)],
}

/// One row a statement, the last ten thousand.
pub const QUERIES: Definition = Definition {
    name: "queries",
    function: "virtual_queries",
    columns: &[
        ("id", oid::INT8),
        ("started_at", oid::TIMESTAMPTZ),
        ("pid", oid::INT4),
        ("usename", oid::TEXT),
        ("datname", oid::TEXT),
        ("protocol", oid::TEXT),
        ("sql", oid::TEXT),
        ("fingerprint", oid::TEXT),
        ("route", oid::TEXT),
        ("reasons", oid::TEXT),
        ("classify_us", oid::INT8),
        ("probe_us", oid::INT8),
        ("plan_us", oid::INT8),
        ("tail_us", oid::INT8),
        ("first_row_us", oid::INT8),
        ("total_us", oid::INT8),
        ("rows", oid::INT8),
        ("bytes", oid::INT8),
        ("lake_version", oid::INT8),
        ("boundary", oid::TEXT),
        ("lake_files", oid::INT8),
        ("lake_row_groups", oid::INT8),
        ("lake_bytes", oid::INT8),
        ("tail_rows", oid::INT8),
        ("fell_back", oid::BOOL),
        ("sqlstate", oid::TEXT),
        ("error", oid::TEXT),
        ("lake_plan", oid::TEXT),
    ],
};

/// One row a fingerprint and route.
pub const ROUTE_STATS: Definition = Definition {
    name: "route_stats",
    function: "virtual_route_stats",
    columns: &[
        ("fingerprint", oid::TEXT),
        ("route", oid::TEXT),
        ("sample_sql", oid::TEXT),
        ("calls", oid::INT8),
        ("rows", oid::INT8),
        ("mean_us", oid::INT8),
        ("p50_us", oid::INT8),
        ("p95_us", oid::INT8),
        ("p99_us", oid::INT8),
        ("min_us", oid::INT8),
        ("max_us", oid::INT8),
    ],
};

/// One row a file of the lake's newest versions.
pub const FILES: Definition = Definition {
    name: "files",
    function: "virtual_files",
    columns: &[
        ("table_schema", oid::TEXT),
        ("table_name", oid::TEXT),
        ("day", oid::DATE),
        ("path", oid::TEXT),
        ("rows", oid::INT8),
        ("bytes", oid::INT8),
        ("sorted", oid::BOOL),
        ("first_event", oid::TIMESTAMPTZ),
        ("last_event", oid::TIMESTAMPTZ),
        ("written_at", oid::TIMESTAMPTZ),
        ("lake_version", oid::INT8),
    ],
};

/// One row a function, operator, aggregate or cast that was judged.
pub const FUNCTIONS: Definition = Definition {
    name: "functions",
    function: "virtual_functions",
    columns: &[
        ("kind", oid::TEXT),
        ("oid", oid::INT8),
        ("name", oid::TEXT),
        ("signature", oid::TEXT),
        ("result", oid::TEXT),
        ("lake", oid::TEXT),
        ("reason", oid::TEXT),
    ],
};

/// One row a comparison of both stores' answers, the last thousand.
pub const COMPARISONS: Definition = Definition {
    name: "comparisons",
    function: "virtual_comparisons",
    columns: &[
        ("id", oid::INT8),
        ("compared_at", oid::TIMESTAMPTZ),
        ("pid", oid::INT4),
        ("usename", oid::TEXT),
        ("sql", oid::TEXT),
        ("fingerprint", oid::TEXT),
        ("verdict", oid::TEXT),
        ("lake_us", oid::INT8),
        ("postgres_us", oid::INT8),
        ("rows", oid::INT8),
        ("detail", oid::TEXT),
    ],
};

/// One row a series of this process; a histogram is two, its number and its sum.
pub const METRICS: Definition = Definition {
    name: "metrics",
    function: "virtual_metrics",
    columns: &[("name", oid::TEXT), ("kind", oid::TEXT), ("labels", oid::TEXT), ("value", oid::FLOAT8)],
};

/// All of them.
pub const ALL: [&Definition; 6] = [&QUERIES, &ROUTE_STATS, &FILES, &FUNCTIONS, &COMPARISONS, &METRICS];

/// Who asks: literals are shown to the owner of a statement and to superusers.
#[derive(Debug, Clone)]
pub struct Reader {
    pub user: String,
    pub is_superuser: bool,
}

impl Definition {
    /// The Arrow schema, every column nullable.
    pub fn schema(&self) -> SchemaRef {
        let field = |(name, oid): &(&str, u32)| {
            let t = match *oid {
                oid::BOOL => DataType::Boolean,
                oid::INT4 => DataType::Int32,
                oid::INT8 => DataType::Int64,
                oid::FLOAT8 => DataType::Float64,
                oid::DATE => DataType::Date32,
                oid::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                _ => DataType::Utf8View,
            };
            Field::new(*name, t, true)
        };
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The rows as of now; `files` are asked for by the caller, and only if this is [`FILES`].
    pub fn rows(
        &self,
        log: &QueryLog,
        comparisons: &Comparisons,
        reader: &Reader,
        files: &[FileRow],
    ) -> Result<RecordBatch, ArrowError> {
        let columns = match self.name {
            name if name == QUERIES.name => queries(&log.recent(), reader),
            name if name == FILES.name => lake_files(files),
            name if name == COMPARISONS.name => compared(&comparisons.recent(), reader),
            name if name == FUNCTIONS.name => functions(&registry::entries()),
            name if name == METRICS.name => metrics(&gauges::samples()),
            _ => route_stats(log),
        };
        let rows = columns.first().map_or(0, |c| c.len());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema(), columns, &options)
    }
}

fn queries(entries: &[Entry], reader: &Reader) -> Vec<ArrayRef> {
    let int = |f: fn(&Entry) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(entries.iter().map(f))) };
    let maybe = |f: fn(&Entry) -> Option<i64>| -> ArrayRef { Arc::new(Int64Array::from_iter(entries.iter().map(f))) };
    fn text<'a>(entries: &'a [Entry], f: impl Fn(&'a Entry) -> Option<&'a str>) -> ArrayRef {
        Arc::new(StringViewArray::from_iter(entries.iter().map(f)))
    }
    let shown = |e: &Entry| reader.is_superuser || e.who.usename == reader.user;
    let started = entries.iter().map(|e| micros(e.started_at));
    vec![
        int(|e| e.id),
        Arc::new(TimestampMicrosecondArray::from_iter_values(started).with_timezone("UTC")),
        Arc::new(Int32Array::from_iter_values(entries.iter().map(|e| e.who.pid))),
        text(entries, |e| Some(&e.who.usename)),
        text(entries, |e| Some(&e.who.datname)),
        text(entries, |e| Some(e.protocol)),
        text(entries, |e| Some(if shown(e) { &e.statement.sql } else { &e.statement.masked })),
        text(entries, |e| Some(&e.statement.fingerprint)),
        text(entries, |e| Some(e.path.name())),
        text(entries, |e| Some(if shown(e) { &e.reasons } else { without_errors(&e.reasons) })),
        int(|e| e.classify_us),
        int(|e| e.probe_us),
        int(|e| e.plan_us),
        int(|e| e.tail_us),
        maybe(|e| e.first_row_us),
        int(|e| e.total_us),
        int(|e| e.rows),
        int(|e| e.bytes),
        maybe(|e| e.lake_version),
        text(entries, |e| e.boundary.as_deref()),
        int(|e| e.lake_files),
        int(|e| e.lake_row_groups),
        int(|e| e.lake_bytes),
        int(|e| e.tail_rows),
        Arc::new(BooleanArray::from_iter(entries.iter().map(|e| Some(e.fell_back)))),
        text(entries, |e| e.sqlstate.as_deref()),
        // An error's text may quote the statement's literals.
        text(entries, |e| e.error.as_deref().map(|m| if shown(e) { m } else { "<hidden>" })),
        // So may a plan.
        text(entries, |e| e.lake_plan.as_deref().map(|p| if shown(e) { p } else { "<hidden>" })),
    ]
}

/// Reasons as far as they speak of the statement: why the lake gave it back may be an error's text, which quotes rows.
fn without_errors(reasons: &str) -> &str {
    reasons.split_once("fell back: ").map_or(reasons, |(before, _)| before.trim_end_matches("; "))
}

fn compared(entries: &[Comparison], reader: &Reader) -> Vec<ArrayRef> {
    let int = |f: fn(&Comparison) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(entries.iter().map(f))) };
    fn text<'a>(entries: &'a [Comparison], f: impl Fn(&'a Comparison) -> Option<&'a str>) -> ArrayRef {
        Arc::new(StringViewArray::from_iter(entries.iter().map(f)))
    }
    let shown = |e: &Comparison| reader.is_superuser || e.who.usename == reader.user;
    vec![
        int(|e| e.id),
        Arc::new(TimestampMicrosecondArray::from_iter_values(entries.iter().map(|e| micros(e.compared_at))).with_timezone("UTC")),
        Arc::new(Int32Array::from_iter_values(entries.iter().map(|e| e.who.pid))),
        text(entries, |e| Some(&e.who.usename)),
        text(entries, |e| Some(if shown(e) { &e.statement.sql } else { &e.statement.masked })),
        text(entries, |e| Some(&e.statement.fingerprint)),
        text(entries, |e| Some(e.verdict.name())),
        int(|e| e.lake_us),
        int(|e| e.postgres_us),
        int(|e| e.rows),
        // It quotes rows.
        text(entries, |e| e.verdict.detail().map(|why| if shown(e) { why } else { "<hidden>" })),
    ]
}

fn micros(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

fn functions(entries: &[registry::Entry]) -> Vec<ArrayRef> {
    fn text<'a>(entries: &'a [registry::Entry], f: fn(&'a registry::Entry) -> &'a str) -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(entries.iter().map(f)))
    }
    vec![
        text(entries, |e| e.kind),
        // Casts through text have no row of their own.
        Arc::new(Int64Array::from_iter(entries.iter().map(|e| (e.oid != 0).then_some(i64::from(e.oid))))),
        text(entries, |e| &e.name),
        text(entries, |e| &e.signature),
        text(entries, |e| e.result),
        text(entries, |e| e.lake),
        text(entries, |e| &e.reason),
    ]
}

fn metrics(samples: &[gauges::Sample]) -> Vec<ArrayRef> {
    fn text<'a>(samples: &'a [gauges::Sample], f: impl Fn(&'a gauges::Sample) -> String) -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(samples.iter().map(f)))
    }
    let labels = |s: &gauges::Sample| {
        let labels = s.labels.iter().map(|(name, value)| ((*name).to_owned(), serde_json::Value::from(value.as_str())));
        serde_json::Value::Object(labels.collect()).to_string()
    };
    vec![
        text(samples, |s| s.name.clone()),
        text(samples, |s| s.kind.to_owned()),
        text(samples, labels),
        Arc::new(Float64Array::from_iter_values(samples.iter().map(|s| s.value))),
    ]
}

fn lake_files(files: &[FileRow]) -> Vec<ArrayRef> {
    let int = |f: fn(&FileRow) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(files.iter().map(f))) };
    let text = |f: fn(&FileRow) -> &str| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(files.iter().map(f))) };
    let time = |f: fn(&FileRow) -> Option<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter(files.iter().map(f)).with_timezone("UTC"))
    };
    vec![
        text(|r| &r.spec.schema),
        text(|r| &r.spec.name),
        Arc::new(Date32Array::from_iter_values(files.iter().map(|r| r.file.day))),
        text(|r| &r.file.path),
        int(|r| r.file.rows as i64),
        int(|r| r.file.size as i64),
        Arc::new(BooleanArray::from_iter(files.iter().map(|r| Some(r.file.sorted)))),
        time(|r| event(r).map(|(first, _)| first)),
        time(|r| event(r).map(|(_, last)| last)),
        time(|r| r.file.modification_ms.checked_mul(1000)),
        int(|r| r.version),
    ]
}

/// First and last event time of a file in microseconds, a date's at its midnight; None if the log does not tell.
fn event(row: &FileRow) -> Option<(i64, i64)> {
    let column = row.spec.event_column().ok()?;
    let (first, last) = row.file.range(&column.lake_name);
    if (first, last) == (i64::MIN, i64::MAX) {
        return None;
    }
    let micros = |v: i64| match column.ty {
        lake::types::ColType::Date => v.checked_mul(lake::types::DAY_MICROS),
        _ => Some(v),
    };
    micros(first).zip(micros(last))
}

fn route_stats(log: &QueryLog) -> Vec<ArrayRef> {
    let stats = log.stats();
    let int = |f: &dyn Fn(&crate::query::log::Stats) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(stats.iter().map(f)))
    };
    vec![
        Arc::new(StringViewArray::from_iter_values(stats.iter().map(|s| &*s.fingerprint))),
        Arc::new(StringViewArray::from_iter_values(stats.iter().map(|s| s.path.name()))),
        Arc::new(StringViewArray::from_iter_values(stats.iter().map(|s| &*s.sample_sql))),
        int(&|s| s.calls),
        int(&|s| s.rows),
        int(&|s| s.mean_us()),
        int(&|s| s.quantile_us(0.50)),
        int(&|s| s.quantile_us(0.95)),
        int(&|s| s.quantile_us(0.99)),
        int(&|s| s.min_us),
        int(&|s| s.max_us),
    ]
}

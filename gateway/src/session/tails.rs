//! The tiered tables of one statement: for each a pinned lake version, and of all of them fence and tail, read in one snapshot by the client's own
//! connection, together with the rows of tables that only PostgreSQL holds, as many as are borne. A version that the fence has moved past, or that does not fit the snapshot, is replaced, and all is read again.
//! ✗ what becomes of the rows.

use super::Session;
use super::bracket::unexpected;
use super::give_up::{GiveUp, give_up_engine};
use super::lake::LakePortal;
use super::probe::{self, Facts};
use crate::analyze::dimension::column_name;
use crate::analyze::floats::Source;
use crate::analyze::ir::Constant;
use crate::analyze::tail;
use crate::engine::{Pin, TieredProvider, Wanted};
use crate::plan;
use crate::wire::frame;
use crate::wire::message;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use datafusion::datasource::TableProvider;
use lake::boundary::Boundary;
use lake::log::LakeVersion;
use lake::pgcopy::CopyDecoder;
use lake::spec::TableSpec;
use lake::stats::is_plain;
use lake::types::ColType;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// How often other lake versions are pinned because the fence has moved past one at hand, or it does not fit the snapshot.
const PIN_ATTEMPTS: usize = 4;
/// Columns of the fence before those of the tail's rows: the number of the table comes first, and the last is NULL where there is no row.
const FENCE: usize = 8;

/// Rows of a table that only PostgreSQL holds; beyond them it is PostgreSQL that joins.
const DIMENSION_ROWS: usize = 500_000;

/// A table that only PostgreSQL holds.
struct Beside {
    relid: u32,
    columns: Vec<(i16, ColType)>,
    facts: Facts,
    conditions: Vec<String>,
}

/// One table of the statement on its way to an answer.
struct Part {
    relid: u32,
    attnums: Vec<i16>,
    facts: Facts,
    conditions: Vec<String>,
    wanted: Wanted,
}

/// What the fence says of a pinned version.
enum Fits {
    Yes,
    /// Pin this one.
    No(Wanted),
}

impl Session {
    /// The unions of pinned lake versions and the tails that the client's own connection reads, by relid.
    pub(super) async fn tiered(
        &mut self,
        portal: &mut LakePortal,
        deadline: Option<Instant>,
    ) -> Result<HashMap<u32, Arc<dyn TableProvider>>, GiveUp> {
        let engine = self.shared.engine.clone();
        // The snapshot of a whole transaction may be older than what was dropped since, and a snapshot does not cover that: the
        // table, which is locked by now, is asked for as it is.
        let fixed = portal.settings.transaction_isolation == "repeatable read";
        let functions = portal.analysis.inlined.clone();
        let mut parts = self.parts(portal, fixed)?;
        let besides = beside(portal);
        'attempts: for _ in 0..PIN_ATTEMPTS {
            let mut pins = Vec::with_capacity(parts.len());
            for part in &mut parts {
                let pin = self.attend(deadline, engine.pin_as(part.relid, &part.wanted)).await?;
                let Some(pin) = pin.map_err(|e| give_up_engine(false, e))? else {
                    if matches!(part.wanted, Wanted::Serving(_)) {
                        return Err(GiveUp::Outdated("no lake version fits the transaction's snapshot".into()));
                    }
                    part.wanted = Wanted::Newest;
                    continue 'attempts;
                };
                let at_hand = matches!(part.wanted, Wanted::AtHand);
                if at_hand && part.attnums.iter().any(|n| pin.spec.column(*n).is_none()) {
                    part.wanted = Wanted::Newest;
                    continue 'attempts;
                }
                pins.push(pin);
            }
            let clock = Instant::now();
            let (tails, rows_beside) = self.tails(&parts, &pins, &besides, (&functions, fixed)).await?;
            if let Some(r) = &mut portal.record {
                r.entry.tail_us += clock.elapsed().as_micros() as i64;
            }
            let mut fit = true;
            for ((part, pin), tail) in parts.iter_mut().zip(&pins).zip(&tails) {
                if let Fits::No(wanted) = self.fits(part, pin, tail, fixed)? {
                    part.wanted = wanted;
                    fit = false;
                }
            }
            if !fit {
                continue;
            }
            for source in &portal.analysis.plain {
                let Source::Column(relid, attnum) = source else { continue };
                let of_it = |(part, _): &(&Part, _)| part.relid == *relid;
                let found = parts.iter().zip(pins.iter().zip(&tails)).find(of_it);
                let found = found.and_then(|(part, found)| Some((part.attnums.iter().position(|n| n == attnum)?, found)));
                let Some((place, (pin, tail))) = found else {
                    return Err(GiveUp::FallBack("a column of floats that is not read".into()));
                };
                let in_tail = tail.batches.iter().any(|b| !is_plain(b.column(place)));
                if let Some(reason) = not_plain(&pin.spec, *attnum, (!in_tail).then_some(&pin.version)) {
                    return Err(GiveUp::FallBack(reason));
                }
            }
            portal.tail_snapshot = tails.first().and_then(|t| t.fence.as_ref()).map(|f| f.snapshot.clone());
            if let (Some(r), Some(first)) = (&mut portal.record, pins.first()) {
                r.entry.lake_version = Some(first.version.version);
                let boundaries: Vec<String> =
                    pins.iter().filter_map(|p| p.boundary.as_ref()).map(ToString::to_string).collect();
                r.entry.boundary = (!boundaries.is_empty()).then(|| boundaries.join("; "));
                let rows = tails.iter().flat_map(|t| &t.batches).map(|b| b.num_rows() as i64);
                r.entry.tail_rows = rows.sum();
                crate::telemetry::tail_read(tails.iter().flat_map(|t| &t.batches).map(RecordBatch::get_array_memory_size).sum());
            }
            let mut providers: HashMap<u32, Arc<dyn TableProvider>> = HashMap::with_capacity(parts.len());
            for (table, batches) in besides.iter().zip(rows_beside) {
                if batches.iter().map(RecordBatch::num_rows).sum::<usize>() > DIMENSION_ROWS {
                    let reason = format!("{} has more than {DIMENSION_ROWS} rows", table.facts.relation);
                    return Err(GiveUp::FallBack(reason));
                }
                let provider = crate::engine::memory_provider(Arc::new(table.schema()), batches);
                providers.insert(table.relid, provider.map_err(|e| GiveUp::FallBack(e.to_string()))?);
            }
            for ((part, pin), tail) in parts.iter().zip(pins).zip(tails) {
                if fixed {
                    // For the transaction's other statements: the archiver goes on, its snapshot does not.
                    self.fixed.insert(part.relid, (pin.spec.clone(), pin.whole.clone()));
                }
                let wishes = plan::coded::wishes(&portal.analysis.plan, part.relid);
                let prepared = TieredProvider::prepare(pin, &part.attnums, tail.batches, &wishes);
                let provider = self.attend(deadline, prepared).await?.map_err(|e| give_up_engine(false, e))?;
                providers.insert(part.relid, provider);
            }
            return Ok(providers);
        }
        Err(GiveUp::FallBack("the lake is behind the fence".into()))
    }

    fn parts(&self, portal: &LakePortal, fixed: bool) -> Result<Vec<Part>, GiveUp> {
        let tables = &portal.analysis.tables;
        if tables.is_empty() || tables.len() + portal.analysis.dimensions.len() != portal.facts.len() {
            return Err(GiveUp::FallBack("what is known of the tables is not of these".into()));
        }
        let parts = tables.iter().zip(&portal.facts).map(|(used, facts)| Part {
            relid: used.relid,
            attnums: used.attnums.clone(),
            conditions: tail_tests(portal, used.relid, &used.attnums, facts),
            facts: facts.clone(),
            wanted: match self.fixed.get(&used.relid) {
                Some((spec, version)) if fixed => Wanted::Again(spec.clone(), version.clone()),
                _ if fixed => Wanted::Newest,
                _ => Wanted::AtHand,
            },
        });
        Ok(parts.collect())
    }

    /// Whether the version may answer beside the tail that was read for it.
    fn fits(&self, part: &Part, pin: &Pin, tail: &Tail, fixed: bool) -> Result<Fits, GiveUp> {
        let Some(fence) = &tail.fence else { return Err(GiveUp::FallBack("the table is no longer tiered".into())) };
        if fence.lineage != pin.spec.lineage || fence.schema_epoch != pin.spec.schema_epoch {
            self.shared.catalog.suspect();
            if matches!(part.wanted, Wanted::AtHand) {
                return Ok(Fits::No(Wanted::Newest));
            }
            return Err(GiveUp::FallBack("the table's definition or lineage has changed".into()));
        }
        // Day partitions that were dropped since are gone from that snapshot too, with rows that are neither in a version that fits
        // it nor, for it, anywhere else.
        if fixed && (fence.floor_us, fence.lake_floor_us) != (pin.spec.floor_us, pin.spec.lake_floor_us) {
            return Err(GiveUp::Outdated("rows have left PostgreSQL since the transaction took its snapshot".into()));
        }
        if fence.lake_floor_us != pin.spec.lake_floor_us
            || fence.min_archive.max(pin.spec.min_archive) > pin.version.archive
        {
            return Ok(Fits::No(Wanted::Newest));
        }
        if fixed
            && let Some(boundary) = &pin.boundary
            && !boundary.serves(&fence.snapshot)
        {
            return Ok(Fits::No(match part.wanted {
                // Of a transaction before this one.
                Wanted::Again(..) => Wanted::Newest,
                _ => Wanted::Serving(fence.snapshot.clone()),
            }));
        }
        Ok(Fits::Yes)
    }

    /// Reads fences and tails in one snapshot, as the current user, in the current transaction.
    async fn tails(
        &mut self,
        parts: &[Part],
        pins: &[Pin],
        besides: &[Beside],
        (functions, fixed): (&[(u32, String)], bool),
    ) -> Result<(Vec<Tail>, Vec<Vec<RecordBatch>>), GiveUp> {
        let mut types = vec![ColType::Int4, ColType::Int8, ColType::Int4, ColType::Text, ColType::Text, ColType::Int8];
        types.extend([ColType::Int8, ColType::Bool]);
        let mut fields: Vec<Field> =
            (0..FENCE).map(|i| Field::new(format!("fence_{i}"), types[i].arrow(), true)).collect();
        let mut spans = Vec::with_capacity(parts.len());
        for (part, pin) in parts.iter().zip(pins) {
            let Some(columns) = part.attnums.iter().map(|n| pin.spec.column(*n)).collect::<Option<Vec<_>>>() else {
                return Err(GiveUp::FallBack("a column is not in the lake yet".into()));
            };
            spans.push(types.len()..types.len() + columns.len());
            types.extend(columns.iter().map(|c| c.ty));
            fields.extend(columns.iter().map(|c| Field::new(&c.lake_name, c.ty.arrow(), true)));
        }
        for table in besides {
            spans.push(types.len()..types.len() + table.columns.len());
            types.extend(table.columns.iter().map(|(_, ty)| *ty));
            // Names of one batch for all: what is told apart by its table is renamed when it is taken out.
            let named = |(n, (_, ty)): (usize, &(i16, ColType))| Field::new(format!("{}_{n}", table.relid), ty.arrow(), true);
            fields.extend(table.columns.iter().enumerate().map(named));
        }
        let mut decoder = CopyDecoder::new(&types, Arc::new(Schema::new(fields)), 8192)
            .map_err(|e| GiveUp::FallBack(e.to_string()))?;

        let legs = parts.iter().zip(pins).enumerate().map(|(number, (part, pin))| {
            let mut tests = part.conditions.clone();
            tests.extend(after_lake_floor(&pin.spec, &part.facts));
            let pinned = pin.boundary.as_ref().map(|b| (pin.version.archive, b));
            let (before, after) = (&types[FENCE..spans[number].start], &types[spans[number].end..]);
            probe::tail_leg(number, pin.spec.relid, &part.facts, pinned, &tests, before, after)
        });
        let mut legs: Vec<String> = legs.collect();
        for (number, table) in (parts.len()..).zip(besides) {
            let (before, after) = (&types[FENCE..spans[number].start], &types[spans[number].end..]);
            // One more tells that there are more.
            let rows = DIMENSION_ROWS + 1;
            legs.push(probe::dimension_leg(number, &table.facts, &table.conditions, rows, before, after));
        }
        let number_of_functions = legs.len();
        if !functions.is_empty() {
            legs.push(probe::functions_leg(number_of_functions, functions, fixed, &types[FENCE..]));
        }
        let sql = probe::tails_sql(&legs);
        probe::put_helper(&mut self.link.upstream.output, &sql, &[], &[], false);
        message::put_flush(&mut self.link.upstream.output);

        let limit = self.shared.config.tail_limit_bytes();
        let mut batches = Vec::new();
        let mut held = 0usize;
        let mut broken: Option<String> = None;
        let mut complete = false;
        let mut remaining = 0;
        loop {
            let f = self.next_piece(&mut remaining).await?;
            match f[0] {
                b'd' if broken.is_none() => {
                    if let Err(e) = decoder.push(frame::body(&f)) {
                        broken = Some(e.to_string());
                    }
                    while let Some(b) = decoder.next_batch() {
                        held += b.get_array_memory_size();
                        batches.push(b);
                    }
                    if held + decoder.bytes() > limit {
                        batches.clear();
                        broken = Some(format!("the rows not yet in the lake exceed {limit} bytes"));
                    }
                }
                b'd' | b'H' | b'c' | b'1' | b'2' | b'N' => {}
                // Before the COPY: of the helper's own Close. After it: the last one.
                b'3' if complete => break,
                b'3' => {}
                b'C' => complete = true,
                b'E' => return Err(GiveUp::Upstream(f)),
                other => return Err(unexpected(other).into()),
            }
        }
        if let Some(reason) = broken {
            return Err(GiveUp::FallBack(reason));
        }
        let doubt = |e: &dyn std::fmt::Display| GiveUp::FallBack(format!("the tail cannot be read: {e}"));
        if let Some(b) = decoder.finish().map_err(|e| doubt(&e))? {
            batches.push(b);
        }
        if !functions.is_empty() && counted(number_of_functions as i32, &batches) != Some(functions.len() as i64) {
            self.shared.catalog.suspect();
            return Err(GiveUp::FallBack("a function in SQL has changed, or is not the user's to call".into()));
        }
        let rows_beside = spans.split_off(parts.len());
        let of = |(number, span)| Tail::of(number as i32, span, &batches).map_err(|e| doubt(&e));
        let tails = spans.into_iter().enumerate().map(of).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::with_capacity(besides.len());
        for ((number, table), span) in (parts.len() as i32..).zip(besides).zip(rows_beside) {
            rows.push(table.rows(number, span, &batches).map_err(|e| doubt(&e))?);
        }
        Ok((tails, rows))
    }
}

/// The number that stands in the row of leg `number`.
fn counted(number: i32, batches: &[RecordBatch]) -> Option<i64> {
    batches.iter().find_map(|b| {
        let place = b.column(0).as_primitive::<Int32Type>().iter().position(|n| n == Some(number))?;
        let counts = b.column(1).as_primitive::<Int64Type>();
        counts.is_valid(place).then(|| counts.value(place))
    })
}

/// Why a column of floats is not known to have neither NaN nor -0; without a version, it is the tail that has one.
pub(super) fn not_plain(spec: &TableSpec, attnum: i16, version: Option<&LakeVersion>) -> Option<String> {
    let Some(column) = spec.column(attnum) else { return Some("a column is not in the lake yet".into()) };
    let place = match version.map(|v| v.files.summary()) {
        // Where no file has the column, it is NULL in all of them.
        Some(all) if all.columns.get(&column.lake_name).is_none_or(|c| c.plain) => return None,
        Some(_) => "has NaN or -0 in the lake, or files from before that was looked at",
        None => "has NaN or -0 among the rows that are not yet in the lake",
    };
    Some(format!("\"{}\" of {} {place}", column.name, spec.qualified()))
}

fn beside(portal: &LakePortal) -> Vec<Beside> {
    let facts = portal.facts.iter().skip(portal.analysis.tables.len());
    let table = |(d, facts): (&crate::analyze::Dimension, &Facts)| {
        let attnums: Vec<i16> = d.columns.iter().map(|(n, _)| *n).collect();
        Beside {
            relid: d.relid,
            columns: d.columns.clone(),
            conditions: tail_tests(portal, d.relid, &attnums, facts),
            facts: facts.clone(),
        }
    };
    portal.analysis.dimensions.iter().zip(facts).map(table).collect()
}

impl Beside {
    fn schema(&self) -> Schema {
        let field = |(n, ty): &(i16, ColType)| Field::new(column_name(*n), ty.arrow(), true);
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>())
    }

    /// Its rows, under its own names.
    fn rows(
        &self,
        number: i32,
        span: std::ops::Range<usize>,
        batches: &[RecordBatch],
    ) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
        let schema = Arc::new(self.schema());
        let wanted: Vec<usize> = span.collect();
        let mut rows = Vec::new();
        for b in batches {
            let numbers = b.column(0).as_primitive::<Int32Type>();
            let own = numbers.iter().map(|n| Some(n == Some(number))).collect();
            let kept = compute::filter_record_batch(&b.project(&wanted)?, &own)?;
            if kept.num_rows() > 0 {
                rows.push(RecordBatch::try_new(schema.clone(), kept.columns().to_vec())?);
            }
        }
        Ok(rows)
    }
}

/// What PostgreSQL may ask of the tail's rows, so that it sends none that the plan would drop: conditions over `t`.
fn tail_tests(portal: &LakePortal, relid: u32, attnums: &[i16], facts: &Facts) -> Vec<String> {
    let value_of = |constant: &Constant| match constant {
        Constant::Literal(value) => Some(value.clone()),
        Constant::Param(i) => portal.params.get(*i).cloned(),
        Constant::Fold(i) => portal.folded.get(*i).cloned(),
    };
    let conditions = tail::conditions(&portal.analysis.plan, relid, &value_of);
    let test = |c: &tail::Condition| {
        let column = facts.column(attnums.iter().position(|n| *n == c.attnum)?)?;
        Some(format!("t.{column} {}", c.test))
    };
    conditions.iter().filter_map(test).collect()
}

/// The condition that keeps the tail's rows at or after the lake's floor, where there is one.
fn after_lake_floor(spec: &TableSpec, facts: &Facts) -> Option<String> {
    let us = spec.lake_floor_us?;
    let day = lake::types::day_text(lake::types::partition_day(us));
    let bound = match spec.event_column().ok()?.ty {
        ColType::TimestampTz => format!("'{day} 00:00:00+00'::pg_catalog.timestamptz"),
        ColType::Timestamp => format!("'{day} 00:00:00'::pg_catalog.timestamp"),
        _ => format!("'{day}'::pg_catalog.date"),
    };
    Some(format!("t.{} OPERATOR(pg_catalog.>=) {bound}", facts.event))
}

/// Fence and tail of one table.
struct Tail {
    fence: Option<Fence>,
    batches: Vec<RecordBatch>,
}

struct Fence {
    min_archive: i64,
    schema_epoch: i32,
    lineage: String,
    snapshot: Boundary,
    floor_us: Option<i64>,
    lake_floor_us: Option<i64>,
}

impl Tail {
    /// The rows of table `number`, whose columns are `span`: takes the fence off them, and leaves out those that only carried the fence.
    fn of(
        number: i32,
        span: std::ops::Range<usize>,
        batches: &[RecordBatch],
    ) -> Result<Tail, Box<dyn std::error::Error + Send + Sync>> {
        let mut fence = None;
        let mut rows = Vec::with_capacity(batches.len());
        let wanted: Vec<usize> = span.collect();
        for b in batches {
            let numbers = b.column(0).as_primitive::<Int32Type>();
            let Some(first) = numbers.iter().position(|n| n == Some(number)) else { continue };
            if fence.is_none() {
                fence = Some(Fence {
                    min_archive: b.column(1).as_primitive::<Int64Type>().value(first),
                    schema_epoch: b.column(2).as_primitive::<Int32Type>().value(first),
                    lineage: text(b.column(3), first)?,
                    snapshot: text(b.column(4), first)?.parse()?,
                    floor_us: micros(b.column(5), first),
                    lake_floor_us: micros(b.column(6), first),
                });
            }
            let own = numbers.iter().map(|n| Some(n == Some(number))).collect();
            let present = compute::and(&own, &compute::is_not_null(b.column(FENCE - 1))?)?;
            let kept = compute::filter_record_batch(&b.project(&wanted)?, &present)?;
            if kept.num_rows() > 0 {
                rows.push(kept);
            }
        }
        Ok(Tail { fence, batches: rows })
    }
}

/// Seconds as microseconds.
fn micros(column: &dyn Array, row: usize) -> Option<i64> {
    let seconds = column.as_primitive::<Int64Type>();
    (!seconds.is_null(row)).then(|| seconds.value(row).saturating_mul(1_000_000))
}

fn text(column: &dyn Array, row: usize) -> Result<String, arrow::error::ArrowError> {
    let column = compute::cast(&column.slice(row, 1), &DataType::Utf8)?;
    Ok(column.as_string::<i32>().value(0).to_string())
}

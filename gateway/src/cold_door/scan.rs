//! The rows of one admitted relation, batch by batch: the lake's files within the fence, as the statement's columns. Comparisons that mean
//! the same here and there are evaluated on the way; all other conditions are PostgreSQL's. ✗ the wire's protocol.

use std::sync::Arc;

use bytes::BytesMut;
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::compute;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column as Name, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator};
use lake::log::LakeVersion;
use lake::spec::TableSpec;
use lake::types::{self, ColType, DAY_MICROS};
use pgexact::Zone;
use pgexact::encode::{Format, RowEncoder, Target, oid};
use tokio_util::sync::CancellationToken;

use super::Door;
use super::fence::{Admitted, Column, unreadable};
use super::judge::{Judge, Texts};
use super::sql::{self, Comparison, Key, Output, Scan};
use crate::engine::{EngineError, QueryStream, TieredProvider};
use crate::wire::frame;
use crate::wire::message::{self, ErrorReport};

/// The name of the relation in plans.
const TABLE: &str = "cold";

/// Rows of a scan, from its first.
pub struct Rows {
    plan: LogicalPlan,
    stream: Option<QueryStream>,
    /// Of the plan's outputs: the first are the statement's, in order, where those are columns.
    columns: Vec<Column>,
    outputs: Vec<Option<usize>>,
    conditions: Vec<String>,
    whole: RowEncoder,
    answer: RowEncoder,
    answer_schema: Arc<Schema>,
    batch: Option<(RecordBatch, usize)>,
    /// Holds the version's files against vacuum.
    _version: Arc<LakeVersion>,
}

fn internal(e: impl std::fmt::Display) -> ErrorReport {
    ErrorReport::error("XX000", format!("the door cannot plan this scan: {e}"))
}

fn told(e: EngineError) -> ErrorReport {
    match e {
        EngineError::Cancelled => ErrorReport::error("57014", "canceling statement due to user request"),
        EngineError::Postgres { sqlstate, message } => ErrorReport::error(&sqlstate, message),
        e => unreadable(&e),
    }
}

impl Rows {
    /// The rows of `scan`; `None`: they are to be sorted as only PostgreSQL sorts.
    pub fn of(admitted: &Admitted, scan: &Scan) -> Result<Option<Rows>, ErrorReport> {
        let Some(order) = scan.order.iter().map(|key| sorted(key, admitted)).collect::<Option<Vec<Sort>>>()
        else {
            return Ok(None);
        };
        let unknown = |name: &str| ErrorReport::error("42703", format!("column \"{name}\" does not exist"));
        let mut wanted: Vec<Column> = Vec::new();
        let place = |wanted: &mut Vec<Column>, column: &Column| match wanted
            .iter()
            .position(|c| c.attnum == column.attnum)
        {
            Some(i) => i,
            None => {
                wanted.push(column.clone());
                wanted.len() - 1
            }
        };
        let mut outputs = Vec::with_capacity(scan.outputs.len());
        for output in &scan.outputs {
            outputs.push(match output {
                Output::Null => None,
                Output::Column(name) => {
                    let column =
                        admitted.columns.iter().find(|c| c.name == *name).ok_or_else(|| unknown(name))?;
                    Some(place(&mut wanted, column))
                }
            });
        }
        let mut tests = fence_tests(admitted)?;
        let mut conditions = Vec::new();
        for condition in &scan.conditions {
            match sql::comparison(condition).and_then(|c| exact(&c, admitted)) {
                Some(test) => tests.push(test),
                None => {
                    let names = sql::names(condition);
                    for column in admitted.columns.iter().filter(|c| names.contains(&c.name)) {
                        place(&mut wanted, column);
                    }
                    conditions.push(condition.clone());
                }
            }
        }
        Rows::new(admitted, wanted, outputs, tests, conditions, order).map(Some)
    }

    /// What a query needs that PostgreSQL answers as a whole: the columns that it names, and at least the rows that fulfil `filters`.
    pub fn for_query(
        admitted: &Admitted,
        columns: &[Column],
        filters: &[String],
    ) -> Result<Rows, ErrorReport> {
        let outputs = (0..columns.len()).map(Some).collect();
        let mut tests = fence_tests(admitted)?;
        tests.extend(filters.iter().filter_map(|f| exact(&sql::comparison(f)?, admitted)));
        Rows::new(admitted, columns.to_vec(), outputs, tests, Vec::new(), Vec::new())
    }

    fn new(
        admitted: &Admitted,
        columns: Vec<Column>,
        outputs: Vec<Option<usize>>,
        tests: Vec<Expr>,
        conditions: Vec<String>,
        order: Vec<Sort>,
    ) -> Result<Rows, ErrorReport> {
        let spec = &admitted.pin.spec;
        let in_lake = |attnum: i16| {
            spec.column(attnum).ok_or_else(|| internal(format!("column {attnum} is not in the lake")))
        };
        let mut attnums: Vec<i16> = columns.iter().map(|c| c.attnum).collect();
        let xid = spec
            .columns
            .iter()
            .find(|c| c.lake_name == types::XID)
            .ok_or_else(|| internal("the lake has no _xid"))?;
        for expr in tests.iter().chain(order.iter().map(|sort| &sort.expr)) {
            for used in expr.column_refs() {
                let column = spec
                    .columns
                    .iter()
                    .find(|c| c.lake_name == used.name)
                    .ok_or_else(|| internal("a test of an unknown column"))?;
                if !attnums.contains(&column.attnum) {
                    attnums.push(column.attnum);
                }
            }
        }
        if attnums.is_empty() {
            attnums.push(xid.attnum);
        }
        let provider = TieredProvider::try_new(admitted.pin.clone(), &attnums, Vec::new()).map_err(told)?;
        let mut plan =
            LogicalPlanBuilder::scan(TABLE, provider_as_source(provider), None).map_err(internal)?;
        if let Some(all) = datafusion::logical_expr::utils::conjunction(tests) {
            plan = plan.filter(all).map_err(internal)?;
        }
        if !order.is_empty() {
            plan = plan.sort(order).map_err(internal)?;
        }
        // At least one column, so that batches have rows.
        let shown: Vec<Expr> = match columns.is_empty() {
            true => vec![name(&xid.lake_name).alias("c0")],
            false => columns
                .iter()
                .enumerate()
                .map(|(i, c)| Ok(name(&in_lake(c.attnum)?.lake_name).alias(format!("c{i}"))))
                .collect::<Result<_, ErrorReport>>()?,
        };
        if columns.is_empty() && !attnums.contains(&xid.attnum) {
            return Err(internal("a scan without columns"));
        }
        let plan = plan.project(shown).map_err(internal)?.build().map_err(internal)?;
        let mut fields = Vec::with_capacity(columns.len());
        let mut targets = Vec::with_capacity(columns.len());
        for column in &columns {
            let known = in_lake(column.attnum)?;
            fields.push(Field::new(&known.lake_name, known.ty.arrow(), true));
            targets.push(Target { type_oid: known.type_oid, typmod: known.typmod, format: Format::Text });
        }
        let zone = Zone::utc();
        let whole = RowEncoder::try_new(&targets, &Schema::new(fields.clone()), &zone).map_err(internal)?;
        let nothing = (
            Field::new("nothing", DataType::Utf8View, true),
            Target { type_oid: oid::TEXT, typmod: -1, format: Format::Text },
        );
        let (answer_fields, answer_targets): (Vec<Field>, Vec<Target>) = outputs
            .iter()
            .map(|o| o.map_or_else(|| nothing.clone(), |i| (fields[i].clone(), targets[i])))
            .unzip();
        let answer_schema = Arc::new(Schema::new(answer_fields));
        let answer = RowEncoder::try_new(&answer_targets, &answer_schema, &zone).map_err(internal)?;
        Ok(Rows {
            plan,
            stream: None,
            columns,
            outputs,
            conditions,
            whole,
            answer,
            answer_schema,
            batch: None,
            _version: admitted.pin.version.clone(),
        })
    }

    /// How many columns the statement gets.
    pub fn width(&self) -> usize {
        self.outputs.len()
    }

    pub fn needs_judge(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// Begins anew.
    pub fn rewind(&mut self) {
        self.stream = None;
        self.batch = None;
    }

    /// The next batch of the plan; `None` after the last.
    async fn next(
        &mut self,
        door: &Door,
        cancel: &CancellationToken,
    ) -> Result<Option<RecordBatch>, ErrorReport> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let started = tokio::select! {
                    started = door.engine.execute_apart(self.plan.clone()) => started.map_err(told)?,
                    () = cancel.cancelled() => return Err(told(EngineError::Cancelled)),
                };
                self.stream.insert(started)
            }
        };
        tokio::select! {
            batch = stream.next() => batch.transpose().map_err(told),
            () = cancel.cancelled() => Err(told(EngineError::Cancelled)),
        }
    }

    /// The next rows as text by column, for a temporary table.
    pub async fn texts(
        &mut self,
        door: &Door,
        cancel: &CancellationToken,
    ) -> Result<Option<Texts>, ErrorReport> {
        Ok(match self.next(door, cancel).await? {
            Some(batch) => Some(self.as_texts(&batch)?),
            None => None,
        })
    }

    fn as_texts(&self, batch: &RecordBatch) -> Result<Texts, ErrorReport> {
        let mut columns: Texts = vec![Vec::with_capacity(batch.num_rows()); self.columns.len()];
        if self.columns.is_empty() {
            return Ok(columns);
        }
        let mut out = BytesMut::new();
        self.whole.encode_batch(batch, 0, batch.num_rows(), &mut out).map_err(internal)?;
        let mut rest = &out[..];
        while let Some(row) = frame::whole(rest).map_err(internal)? {
            let values = message::data_row(frame::body(row)).map_err(internal)?;
            for (column, value) in columns.iter_mut().zip(values) {
                let value = value.map(|v| String::from_utf8(v.to_vec())).transpose().map_err(internal)?;
                column.push(value);
            }
            rest = &rest[row.len()..];
        }
        Ok(columns)
    }

    /// Appends up to `rows` rows to `out`, stopping once it has `enough` bytes. Gives how many, and whether there may be more.
    pub async fn fetch(
        &mut self,
        door: &Door,
        judge: Option<&mut Judge>,
        cancel: &CancellationToken,
        rows: usize,
        enough: usize,
        out: &mut BytesMut,
    ) -> Result<(usize, bool), ErrorReport> {
        if self.batch.is_none() {
            let Some(batch) = self.next(door, cancel).await? else { return Ok((0, false)) };
            let batch = match judge {
                Some(judge) if !self.conditions.is_empty() => {
                    let texts = self.as_texts(&batch)?;
                    let kept = tokio::select! {
                        kept = judge.keep(&self.conditions, &self.columns, texts, batch.num_rows()) => kept?,
                        () = cancel.cancelled() => return Err(told(EngineError::Cancelled)),
                    };
                    compute::filter_record_batch(&batch, &BooleanArray::from(kept)).map_err(internal)?
                }
                _ => batch,
            };
            let columns: Vec<ArrayRef> = (self.outputs.iter())
                .map(|o| match o {
                    Some(i) => batch.column(*i).clone(),
                    None => new_null_array(&DataType::Utf8View, batch.num_rows()),
                })
                .collect();
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let batch = RecordBatch::try_new_with_options(self.answer_schema.clone(), columns, &options)
                .map_err(internal)?;
            self.batch = Some((batch, 0));
        }
        let Some((batch, from)) = &mut self.batch else { return Ok((0, false)) };
        let written = self.answer.encode_some(batch, *from, rows, enough, out).map_err(|e| unreadable(&e))?;
        *from += written;
        if *from >= batch.num_rows() {
            self.batch = None;
        }
        Ok((written, true))
    }
}

fn name(lake_name: &str) -> Expr {
    Expr::Column(Name::new(Some(TABLE), lake_name))
}

fn literal(value: ScalarValue) -> Expr {
    Expr::Literal(value, None)
}

fn compare(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// Below the floor, not below the lake's, and of transactions that the boundary sees.
fn fence_tests(admitted: &Admitted) -> Result<Vec<Expr>, ErrorReport> {
    let spec = &admitted.pin.spec;
    let event = spec.event_column().map_err(internal)?;
    let at = |us: i64| match event.ty {
        ColType::TimestampTz => Ok(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))),
        ColType::Timestamp => Ok(ScalarValue::TimestampMicrosecond(Some(us), None)),
        ColType::Date => {
            i32::try_from(us.div_euclid(DAY_MICROS)).map(|d| ScalarValue::Date32(Some(d))).map_err(internal)
        }
        _ => Err(internal("the event time is of another type")),
    };
    let mut tests = vec![compare(name(&event.lake_name), Operator::Lt, literal(at(admitted.floor_us)?))];
    if let Some(us) = admitted.lake_floor_us {
        tests.push(compare(name(&event.lake_name), Operator::GtEq, literal(at(us)?)));
    }
    let xid = |x: u64| i64::try_from(x).map(|x| literal(ScalarValue::Int64(Some(x)))).map_err(internal);
    tests.push(compare(name(types::XID), Operator::Lt, xid(admitted.boundary.xmax)?));
    for running in &admitted.boundary.xip {
        tests.push(compare(name(types::XID), Operator::NotEq, xid(*running)?));
    }
    Ok(tests)
}

/// The comparison on lake values, where it is PostgreSQL's to the last case: integers, times, and equality of texts.
fn exact(c: &Comparison, admitted: &Admitted) -> Option<Expr> {
    let known = admitted.columns.iter().find(|k| k.name == c.column)?;
    let spec: &TableSpec = &admitted.pin.spec;
    let column = spec.column(known.attnum)?;
    let op = match c.operator.as_str() {
        "=" => Operator::Eq,
        "<>" => Operator::NotEq,
        "<" => Operator::Lt,
        "<=" => Operator::LtEq,
        ">" => Operator::Gt,
        ">=" => Operator::GtEq,
        _ => return None,
    };
    let equality = matches!(op, Operator::Eq | Operator::NotEq);
    let labelled = |names: &[&str]| c.label.as_deref().is_none_or(|l| names.contains(&l));
    let value = match column.ty {
        ColType::Int2 | ColType::Int4 | ColType::Int8 if labelled(&["smallint", "integer", "bigint"]) => {
            let n: i64 = c.value.parse().ok()?;
            match column.ty {
                ColType::Int2 => ScalarValue::Int16(Some(n.try_into().ok()?)),
                ColType::Int4 => ScalarValue::Int32(Some(n.try_into().ok()?)),
                _ => ScalarValue::Int64(Some(n)),
            }
        }
        ColType::TimestampTz if labelled(&["timestamp with time zone"]) => {
            // Without an offset it would be of the time zone there.
            let (local, offset) = split_offset(&c.value)?;
            ScalarValue::TimestampMicrosecond(
                Some(local_micros(local)?.checked_sub(offset * 1_000_000)?),
                Some("UTC".into()),
            )
        }
        ColType::Timestamp if labelled(&["timestamp without time zone"]) => {
            ScalarValue::TimestampMicrosecond(Some(local_micros(&c.value)?), None)
        }
        ColType::Date if labelled(&["date"]) => {
            let day = chrono::NaiveDate::parse_from_str(&c.value, "%Y-%m-%d").ok()?;
            let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1)?;
            ScalarValue::Date32(Some(i32::try_from((day - epoch).num_days()).ok()?))
        }
        ColType::Text | ColType::Varchar
            if equality && known.equal_is_same && labelled(&["text", "character varying"]) =>
        {
            ScalarValue::Utf8View(Some(c.value.clone()))
        }
        ColType::Uuid if equality && labelled(&["uuid"]) => {
            let canonical = c.value.len() == 36
                && uuid::Uuid::parse_str(&c.value).is_ok_and(|u| u.hyphenated().to_string() == c.value);
            canonical.then(|| ScalarValue::Utf8View(Some(c.value.clone())))?
        }
        _ => return None,
    };
    Some(compare(name(&column.lake_name), op, literal(value)))
}

/// The order by a column, where lake values are ordered as PostgreSQL orders its own.
fn sorted(key: &Key, admitted: &Admitted) -> Option<Sort> {
    let known = admitted.columns.iter().find(|k| k.name == key.column)?;
    let column = admitted.pin.spec.column(known.attnum)?;
    match column.ty {
        ColType::Bool
        | ColType::Int2
        | ColType::Int4
        | ColType::Int8
        | ColType::Xid8
        | ColType::Numeric { .. } => {}
        // Canonical, so that its letters are ordered as its bytes are.
        ColType::Date | ColType::Timestamp | ColType::TimestampTz | ColType::Uuid => {}
        ColType::Text | ColType::Varchar if known.byte_order => {}
        _ => return None,
    }
    Some(Sort::new(name(&column.lake_name), key.ascending, key.nulls_first))
}

/// `2026-01-31 12:00:00.5+05:30`: what stands before the offset, and the offset in seconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    let at = text.rfind(['+', '-']).filter(|at| *at > 10)?;
    let (local, offset) = text.split_at(at);
    let mut seconds = 0;
    let mut unit = 3600;
    for part in offset[1..].split(':') {
        seconds += part.parse::<i64>().ok()? * unit;
        unit /= 60;
    }
    Some((local, if offset.starts_with('-') { -seconds } else { seconds }))
}

fn local_micros(text: &str) -> Option<i64> {
    // Four digits of the year: anything else, infinity and BC among it, is PostgreSQL's to read.
    if text.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    Some(
        chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
            .ok()?
            .and_utc()
            .timestamp_micros(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_postgresql_prints_them() {
        assert_eq!(split_offset("2026-01-31 12:00:00.5+05:30"), Some(("2026-01-31 12:00:00.5", 19_800)));
        assert_eq!(split_offset("2026-01-31 12:00:00-08"), Some(("2026-01-31 12:00:00", -28_800)));
        assert_eq!(split_offset("2026-01-31 12:00:00"), None);
        assert_eq!(local_micros("1970-01-02 00:00:00.000001"), Some(86_400_000_001));
        assert_eq!(local_micros("infinity"), None);
        assert_eq!(local_micros("12026-01-31 12:00:00"), None);
        assert_eq!(local_micros("0044-03-15 12:00:00 BC"), None);
    }
}

//! Statements over tables that have a floor. What may need rows below it is not bound in PostgreSQL, whose tripwire would end the client's
//! transaction: PostgreSQL is asked for everything else instead (whether the analysis holds, privileges, parameters), a portal that
//! answers nothing stands in for the client's, and the lake is the only answer. What needs none of these rows goes as ever.
//! ✗ how the lake answers.

use super::bracket::{Outcome, Probed, unexpected};
use super::decide::{UNSURE, unsure};
use super::lake::{Bound, LakePortal, put_dimension_facts};
use super::probe::{self, Facts};
use super::{Session, SessionEnd};
use crate::analyze::{Analysis, Shape};
use crate::classify::{Classified, Override};
use crate::plan;
use crate::query::record::{Path, Record};
use crate::wire::frame;
use crate::wire::message::{self, Bind, ErrorReport, Fields};
use bytes::Bytes;
use lake::spec::{TRIPWIRE, TableSpec};
use std::sync::Arc;

/// How postgres_fdw names the door (`crate::cold_door`) in its errors.
const DOOR: &str = "\"watershed_cold\"";

impl Probed {
    /// PostgreSQL answers as long as the floor lies where it does.
    pub(super) fn is_hot(&self, floor: Option<i64>) -> bool {
        self.hot && !reaches_below(&self.analysis, self.analysis.time_from_us, floor)
    }
}

/// Whether rows below `floor` may be needed by a statement whose rows are all at or after `from`.
pub(super) fn reaches_below(analysis: &Analysis, from: Option<i64>, floor: Option<i64>) -> bool {
    floor.is_some_and(|floor| analysis.with || from.is_none_or(|from| from < floor))
}

/// From which time on PostgreSQL is sure to hold every row, soon at the latest; `None`: it holds all.
fn floor_of(spec: &TableSpec) -> Option<i64> {
    spec.floor_us.max(spec.warned_us)
}

impl Session {
    /// The floor of the table that the statement reads, as last looked at.
    pub(super) fn floor(&self, analysis: &Analysis) -> Option<i64> {
        let catalog = self.shared.catalog.current();
        analysis.tables.iter().filter_map(|t| catalog.tiered(t.relid)).filter_map(|s| floor_of(s)).max()
    }

    /// As `bind_lake`, for a table with a floor.
    pub(super) async fn bind_with_floor(
        &mut self,
        probed: &Arc<Probed>,
        statement: &Arc<Classified>,
        bind_frame: &[u8],
        name: &[u8],
        mut record: Record,
        floor: i64,
    ) -> Result<Bound, SessionEnd> {
        let msg = Bind::read(frame::body(bind_frame))?;
        let catalog = self.shared.catalog.current();
        let tables: Option<Vec<_>> =
            probed.analysis.tables.iter().map(|t| Some((t, catalog.tiered(t.relid)?))).collect();
        let Some(tables) = tables else {
            return self.bind_in_postgres(bind_frame, "a table is no longer tiered".to_owned(), record).await;
        };
        if let Some(report) = miscounted(&msg, probed.param_types.len(), probed.fields.len()) {
            self.fail(&report, &mut record).await?;
            return Ok(Bound::Failed);
        }
        // Every parameter is converted in its place, as Bind would do it.
        let constants = probed.constants_sql().or_else(|| (!probed.param_types.is_empty()).then(|| "SELECT true".to_owned()));
        let (rights, functions) = (&probed.analysis.rights, &probed.analysis.functions);
        if let Some(e) = self.compare_meaning(name, probed).await? {
            self.forward_error(&e, &mut record);
            return Ok(Bound::Failed);
        }
        let bracket = self
            .bracket_describe(name, |out| {
                for (table, spec) in &tables {
                    let provenance = probe::provenance(spec, spec.lake_floor_us.is_some());
                    probe::put_facts(out, table.relid, &table.attnums, &provenance, spec.event_time);
                }
                put_dimension_facts(out, &probed.analysis.dimensions);
                probe::put_rights(out, rights, functions);
                if let Some(sql) = &constants {
                    probe::put_helper_formats(out, sql, &probed.param_types, &msg.param_formats, &msg.params, true);
                }
            })
            .await?;
        let bracket = match bracket {
            Outcome::Done(b) => b,
            Outcome::Failed(e) => {
                self.forward_error(&e, &mut record);
                return Ok(Bound::Failed);
            }
        };
        let followed = self.follow(probed, &bracket, name, false);
        let relations = tables.len() + probed.analysis.dimensions.len();
        let mut rows = Vec::with_capacity(relations + 2);
        for _ in 0..relations + 1 + usize::from(constants.is_some()) {
            match self.helper_row().await? {
                Outcome::Done(row) => rows.push(row),
                Outcome::Failed(e) => {
                    self.forward_error(&of_portal(&e, msg.portal), &mut record);
                    return Ok(Bound::Failed);
                }
            }
        }
        let mut rows = rows.into_iter();
        let facts = rows.by_ref().take(relations).map(|r| Facts::read(&r)).collect();
        let mut checked = rows.next().unwrap_or_default().into_iter();
        let denied = checked.next().flatten();
        let may_call = checked.next().flatten().is_none();
        let constants = rows.next().unwrap_or_default();
        if let Some(denied) = denied {
            self.fail(&permission_denied(&denied), &mut record).await?;
            return Ok(Bound::Failed);
        }
        if !may_call {
            // Which of them it would call, and say so, PostgreSQL knows.
            let reason = "a function in it may not be executed by the current user".to_owned();
            return self.bind_in_postgres(bind_frame, reason, record).await;
        }
        let settings = bracket.settings.clone();
        let admitted = followed.and_then(|now| {
            let (analysis, facts) = self.admit(&now, statement, &bracket, facts)?;
            Ok((now, analysis, facts))
        });
        let (probed, analysis, facts) = match admitted {
            Ok((now, analysis, facts)) if analysis.rights == probed.analysis.rights => (now, analysis, facts),
            // A tree that was analyzed anew may read through other views.
            Ok(_) => {
                let reason = "what must be allowed to be read has changed since it was prepared".to_owned();
                return self.bind_in_postgres(bind_frame, reason, record).await;
            }
            Err(reason) => return self.bind_in_postgres(bind_frame, reason, record).await,
        };
        let mut values = Vec::with_capacity(constants.len());
        let types = analysis.params.iter().map(|p| p.type_oid).chain(analysis.folds.iter().map(|f| f.type_oid));
        for (oid, bytes) in types.zip(&constants) {
            match plan::Value::from_pg_binary(oid, bytes.as_deref()) {
                Ok(v) => values.push(v),
                Err(e) => {
                    return self.bind_in_postgres(bind_frame, format!("a constant cannot be read: {e}"), record).await;
                }
            }
        }
        if unsure(&analysis, &constants) {
            return self.bind_in_postgres(bind_frame, UNSURE.to_owned(), record).await;
        }
        let folded = values.split_off(analysis.params.len().min(values.len()));
        let cold = reaches_below(&analysis, analysis.time_from(&values, &folded), Some(floor));
        let wanted = statement.hint.or_else(|| Override::parse(&settings.route)).unwrap_or(Override::Auto);
        if !cold && analysis.shape != Shape::Aggregate && !wanted.wants_lake() {
            let reason = format!("{}; needs no rows that PostgreSQL no longer holds", crate::route::shape(analysis.shape));
            return self.bind_in_postgres(bind_frame, reason, record).await;
        }
        if name != probe::SIMPLE
            && let Some(e) = self.stand_in(msg.portal).await?
        {
            self.forward_error(&e, &mut record);
            return Ok(Bound::Failed);
        }
        record.entry.path = probed.path;
        record.entry.reasons = probed.reasons.clone();
        Ok(Bound::Lake(Box::new(LakePortal::unbound(
            msg.portal,
            probed.clone(),
            analysis,
            settings,
            facts,
            (values, folded),
            &msg.result_formats,
            record,
            Bytes::copy_from_slice(bind_frame),
            cold,
        ))))
    }

    /// Hands the client's Bind to PostgreSQL after all.
    async fn bind_in_postgres(
        &mut self,
        bind_frame: &[u8],
        reason: String,
        mut record: Record,
    ) -> Result<Bound, SessionEnd> {
        record.entry.reasons = reason.into();
        record.entry.path = Path::Postgres;
        match self.bind_plainly(bind_frame).await? {
            None => Ok(Bound::Postgres(record)),
            Some(e) => {
                self.release_notices();
                self.forward_error(&e, &mut record);
                Ok(Bound::Failed)
            }
        }
    }

    /// Sends a Bind and waits for its answer; an error is returned.
    async fn bind_plainly(&mut self, bind_frame: &[u8]) -> Result<Option<Bytes>, SessionEnd> {
        self.link.upstream.output.extend_from_slice(bind_frame);
        message::put_flush(&mut self.link.upstream.output);
        loop {
            let f = self.next_frame().await?;
            match f[0] {
                b'2' => return Ok(None),
                b'3' => {}
                b'N' => self.notices.extend_from_slice(&f),
                b'E' => return Ok(Some(f)),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Binds a portal under the client's name that lives as long as the client's own would. An error is returned.
    async fn stand_in(&mut self, portal: &[u8]) -> Result<Option<Bytes>, SessionEnd> {
        probe::put_standin(&mut self.link.upstream.output, portal);
        message::put_flush(&mut self.link.upstream.output);
        let mut bound = false;
        loop {
            let f = self.next_frame().await?;
            match f[0] {
                b'2' => bound = true,
                b'3' if bound => return Ok(None),
                b'1' | b'3' | b'N' => {}
                b'E' => return Ok(Some(f)),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Puts the client's own portal where the stand-in was, so that PostgreSQL can answer after all. An error is returned.
    pub(super) async fn bind_late(&mut self, portal: &[u8], bind_frame: &[u8]) -> Result<Option<Bytes>, SessionEnd> {
        self.doubt_analysis(Bind::read(frame::body(bind_frame))?.statement);
        message::put_close(&mut self.link.upstream.output, b'P', portal);
        let outcome = self.bind_plainly(bind_frame).await;
        self.release_notices();
        outcome
    }

    /// What the client is told in the place of the tripwire's own error; `None`: it is another error. PostgreSQL has raised it, so the
    /// transaction is as after any other.
    pub(super) fn tripped(&self, f: &[u8], reasons: &str) -> Option<ErrorReport> {
        let fields = Fields::read(frame::body(f)).ok()?;
        if fields.text(b'C') == "08001" && fields.text(b'M').contains(DOOR) {
            let report = ErrorReport::error("08001", fields.text(b'M')).detail(fields.text(b'D'));
            return Some(report.hint("The gateway that serves rows which left PostgreSQL does not run, or has just started: run the statement again."));
        }
        if fields.text(b'C') != "58P01" {
            return None;
        }
        let (_, rest) = fields.text(b'M').split_once(TRIPWIRE)?;
        let relid: u32 = rest.split('/').next()?.parse().ok()?;
        self.shared.catalog.suspect();
        let catalog = self.shared.catalog.current();
        let spec = catalog.tiered(relid);
        Some(needs_cold(spec.map(|s| &**s), reasons))
    }
}

/// No store can answer: PostgreSQL lacks rows, and the lake, for these reasons, cannot do it exactly.
pub(super) fn needs_cold(spec: Option<&TableSpec>, reasons: &str) -> ErrorReport {
    let table = spec.map_or_else(|| "a tiered table".to_owned(), TableSpec::qualified);
    let floor = spec.and_then(floor_of).and_then(instant).unwrap_or_else(|| "its floor".to_owned());
    let event = spec.and_then(|s| s.event_column().ok()).map_or("the event time", |c| c.name.as_str());
    let why = if reasons.is_empty() { "it is not one plain SELECT" } else { reasons };
    ErrorReport::error("0A000", format!("this statement may need rows of {table} before {floor}, which PostgreSQL no longer holds"))
        .detail(format!("Nor can the lake answer it exactly: {why}."))
        .hint(format!(
            "Add a condition on {event} that excludes rows before {floor}, or leave out what the lake cannot do; a statement that was \
             prepared long ago may only have to be prepared again."
        ))
}

/// An error of the helper that converts parameters, as if the client's own portal had been bound: its context names the portal.
fn of_portal(f: &Bytes, portal: &[u8]) -> Bytes {
    let helper = format!("portal \"{}\" parameter", String::from_utf8_lossy(probe::HELPER));
    let own = match portal {
        [] => "unnamed portal parameter".to_owned(),
        name => format!("portal \"{}\" parameter", String::from_utf8_lossy(name)),
    };
    message::with_field(f, b'W', |context| context.contains(&helper).then(|| context.replace(&helper, &own)))
        .map_or_else(|| f.clone(), bytes::BytesMut::freeze)
}

/// What Bind says of numbers that do not fit the statement, in PostgreSQL's own words and order.
fn miscounted(bind: &Bind<'_>, parameters: usize, columns: usize) -> Option<ErrorReport> {
    let (formats, values, results) = (bind.param_formats.len(), bind.params.len(), bind.result_formats.len());
    let said = if formats > 1 && formats != values {
        format!("bind message has {formats} parameter formats but {values} parameters")
    } else if values != parameters {
        let name = String::from_utf8_lossy(bind.statement);
        format!("bind message supplies {values} parameters, but prepared statement \"{name}\" requires {parameters}")
    } else if results > 1 && results != columns {
        format!("bind message has {results} result formats but query has {columns} columns")
    } else {
        return None;
    };
    Some(ErrorReport::error("08P01", said))
}

/// As PostgreSQL prints a timestamptz in UTC.
fn instant(us: i64) -> Option<String> {
    Some(chrono::DateTime::from_timestamp_micros(us)?.format("%Y-%m-%d %H:%M:%S+00").to_string())
}

/// PostgreSQL's own words; the text is the kind of relation and its name.
fn permission_denied(relation: &[u8]) -> ErrorReport {
    let text = String::from_utf8_lossy(relation);
    let mut chars = text.chars();
    let kind = match chars.next() {
        Some('v') => "view",
        Some('m') => "materialized view",
        Some('f') => "foreign table",
        Some('S') => "sequence",
        _ => "table",
    };
    ErrorReport::error("42501", format!("permission denied for {kind} {}", chars.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_read_as_postgresqls() {
        assert_eq!(permission_denied(b"plogs").message, "permission denied for table logs");
        assert_eq!(permission_denied("vähre".as_bytes()).message, "permission denied for view ähre");
        assert_eq!(permission_denied(b"rx").sqlstate, "42501");
    }

    #[test]
    fn errors_of_parameters_name_the_clients_portal() {
        let mut out = bytes::BytesMut::new();
        message::frame(&mut out, b'E', |b| b.extend_from_slice(b"C22P02\0Mno\0Wportal \"_watershed_helper\" parameter $1\0\0"));
        let f = out.freeze();
        let context = |f: &Bytes| Fields::read(frame::body(f)).unwrap().text(b'W').to_owned();
        assert_eq!(context(&of_portal(&f, b"")), "unnamed portal parameter $1");
        assert_eq!(context(&of_portal(&f, b"p")), "portal \"p\" parameter $1");
        assert_eq!(frame::whole(&of_portal(&f, b"p")).unwrap().unwrap().len(), of_portal(&f, b"p").len());
    }

    #[test]
    fn numbers_that_do_not_fit_are_told_as_postgresql_tells_them() {
        let bind = |formats: &[i16], values: usize, results: &[i16]| {
            let mut out = bytes::BytesMut::new();
            message::put_bind(&mut out, b"", b"s", formats, &vec![None; values], results);
            let bound = Bind::read(frame::body(&out)).unwrap();
            miscounted(&bound, 2, 3).map(|r| r.message)
        };
        assert_eq!(bind(&[], 2, &[]), None);
        assert_eq!(bind(&[0], 2, &[1]), None);
        assert_eq!(bind(&[0, 1], 2, &[1, 0, 1]), None);
        assert_eq!(bind(&[0, 1], 1, &[]).unwrap(), "bind message has 2 parameter formats but 1 parameters");
        let said = "bind message supplies 1 parameters, but prepared statement \"s\" requires 2";
        assert_eq!(bind(&[], 1, &[]).unwrap(), said);
        assert_eq!(bind(&[], 2, &[1, 0]).unwrap(), "bind message has 2 result formats but query has 3 columns");
    }

    #[test]
    fn the_refusal_names_floor_and_reasons() {
        let report = needs_cold(None, "function f");
        assert_eq!(report.sqlstate, "0A000");
        assert!(report.detail.unwrap().contains("function f") && report.hint.is_some());
        assert_eq!(instant(1_704_067_200_000_000).as_deref(), Some("2024-01-01 00:00:00+00"));
    }
}

//! The box: one statement that reads, in a transaction that may only read and is rolled back, with a bound on rows, bytes and time; or the
//! same statement on both stores, in one snapshot. ✗ HTTP.

use super::client::{Answer, Bounds, Client, ClientError};
use super::sessions::WebSession;
use super::failed;
use crate::classify::copy::block_comment;
use serde_json::{Value, json};
use std::time::Instant;

/// What the box shows of an answer.
const SHOWN: Bounds = Bounds { rows: 500, bytes: 1 << 20 };
/// Plans and routes.
const ASIDE: Bounds = Bounds { rows: 1000, bytes: 256 << 10 };
/// Characters of a value.
const VALUE: usize = 4000;

/// Whether a text begins as statements do that read. The transaction sees to it that they do: this keeps out what would end it, and what
/// acts on the server's files or the session.
pub(super) fn only_reads(sql: &str) -> bool {
    let mut rest = sql.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    loop {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            let Some(end) = block_comment(rest) else { return false };
            rest = &rest[end..];
        } else {
            break;
        }
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    }
    let word: String = rest.chars().take_while(|c| c.is_ascii_alphabetic()).collect::<String>().to_ascii_uppercase();
    matches!(word.as_str(), "SELECT" | "WITH" | "VALUES" | "TABLE" | "SHOW" | "EXPLAIN")
}

/// One statement as it comes. The error is the session's end.
pub(super) async fn query(hand: &mut Client, session: &WebSession, sql: &str) -> Result<Value, ClientError> {
    run(hand, "BEGIN TRANSACTION READ ONLY").await?;
    let side = side(hand, session, sql, None).await?;
    run(hand, "ROLLBACK").await?;
    Ok(side.json)
}

/// The same statement on both stores. The error is the session's end.
pub(super) async fn compare(hand: &mut Client, session: &WebSession, sql: &str) -> Result<Value, ClientError> {
    run(hand, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    run(hand, "SAVEPOINT watershed_box").await?;
    let postgres = side(hand, session, sql, Some("postgres")).await?;
    run(hand, "ROLLBACK TO SAVEPOINT watershed_box").await?;
    let lake = side(hand, session, sql, Some("lake")).await?;
    run(hand, "ROLLBACK").await?;
    let verdict = match (&postgres.answer, &lake.answer) {
        (Some(a), Some(b)) => verdict(a, b),
        (None, None) => "both refuse it",
        (Some(_), None) => "the lake may not answer it",
        (None, Some(_)) => "PostgreSQL refuses it",
    };
    Ok(json!({ "postgres": postgres.json, "lake": lake.json, "verdict": verdict }))
}

/// What can be said of the rows that are here.
pub(super) fn verdict(a: &Answer, b: &Answer) -> &'static str {
    if a.columns != b.columns {
        return "the columns differ";
    }
    if a.rows == b.rows && a.tag == b.tag && a.more == b.more {
        return if a.more { "equal, as far as rows are shown" } else { "equal" };
    }
    let sorted = |answer: &Answer| {
        let mut rows = answer.rows.clone();
        rows.sort();
        rows
    };
    match (a.more || b.more, sorted(a) == sorted(b)) {
        (false, true) => "equal, in another order",
        (false, false) => "the rows differ",
        (true, _) => "not told: there are more rows than are shown, in another order",
    }
}

struct Side {
    json: Value,
    /// None: it was an error.
    answer: Option<Answer>,
}

/// A statement and what is to be known of it. `route` is forced.
async fn side(hand: &mut Client, session: &WebSession, sql: &str, route: Option<&str>) -> Result<Side, ClientError> {
    if let Some(route) = route {
        run(hand, &format!("SET LOCAL watershed.route = '{route}'")).await?;
    }
    run(hand, "SET LOCAL watershed.log_plan = on").await?;
    let clock = Instant::now();
    let asked = keep(hand.ask(sql, SHOWN).await)?;
    let took_us = clock.elapsed().as_micros() as u64;
    let mut seen = record(session, hand.pid).await?;
    let mut plan = Vec::new();
    if asked.is_ok() && !begins(sql, "EXPLAIN") && !begins(sql, "SHOW") {
        if let Ok(answer) = keep(hand.ask(&format!("EXPLAIN {sql}"), ASIDE).await)? {
            plan = answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        }
    }
    let mut json = match &asked {
        Ok(answer) => json!({
            "columns": answer.columns.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "rows": answer.rows.iter().map(|row| row.iter().map(|v| v.as_deref().map(cut)).collect::<Vec<_>>()).collect::<Vec<_>>(),
            "tag": answer.tag,
            "more": answer.more,
        }),
        Err(error) => json!({ "error": failed(error) }),
    };
    json["took_us"] = took_us.into();
    json["plan"] = plan.into();
    json["lake_plan"] = seen.as_object_mut().and_then(|record| record.remove("lake_plan")).unwrap_or(Value::Null);
    json["record"] = seen;
    Ok(Side { json, answer: asked.ok() })
}

fn begins(sql: &str, word: &str) -> bool {
    sql.trim_start().get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

fn cut(value: &str) -> String {
    match value.char_indices().nth(VALUE) {
        None => value.to_owned(),
        Some((at, _)) => format!("{}…", &value[..at]),
    }
}

/// What the gateway wrote down of the statement that a session ran last.
async fn record(session: &WebSession, pid: i32) -> Result<Value, ClientError> {
    let sql = format!(
        "SELECT id, route, reasons, fingerprint, classify_us, probe_us, plan_us, tail_us, first_row_us, total_us, lake_version, lake_files, \
         lake_row_groups, lake_bytes, tail_rows, fell_back, lake_plan FROM watershed.queries WHERE pid = {pid} ORDER BY id DESC LIMIT 1"
    );
    let mut eyes = session.eyes.lock().await;
    match keep(eyes.ask(&sql, ASIDE).await)? {
        Ok(answer) => Ok(objects(&answer).into_iter().next().unwrap_or(Value::Null)),
        Err(error) => Ok(failed(&error)),
    }
}

/// Rows as objects of texts by column.
pub(super) fn objects(answer: &Answer) -> Vec<Value> {
    let object = |row: &Vec<Option<String>>| {
        let pairs = answer.columns.iter().zip(row).map(|((name, _), value)| (name.clone(), value.as_deref().map(cut).into()));
        Value::Object(pairs.collect())
    };
    answer.rows.iter().map(object).collect()
}

/// Tells the server's errors, which are answers, from the session's end.
pub(super) fn keep(asked: Result<Answer, ClientError>) -> Result<Result<Answer, ClientError>, ClientError> {
    match asked {
        Err(error @ ClientError::Broken(_)) => Err(error),
        other => Ok(other),
    }
}

/// A statement of the box's own.
async fn run(hand: &mut Client, sql: &str) -> Result<(), ClientError> {
    match hand.ask(sql, ASIDE).await {
        Ok(_) => Ok(()),
        // A session whose transactions cannot be begun or ended is of no use.
        Err(error) => Err(ClientError::Broken(error.to_string())),
    }
}

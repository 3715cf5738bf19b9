//! Two sessions, one past the gateway and one through it, that are asked the same in the same snapshot, and what differs.
//! ✗ which statements, who moves rows meanwhile.

use anyhow::{Context, Result, bail};

use super::expr::Parameters;
use super::random::Random;
use super::statement::Select;
use crate::wire_client::{Answer, Client, ServerError, Target};

/// How a statement is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Query; values as text.
    Simple,
    /// Parse, Bind, Execute; values as text, or binary.
    Text,
    Binary,
    /// And with constants as parameters.
    Parameters,
}

impl Mode {
    pub const ALL: [Mode; 4] = [Mode::Simple, Mode::Text, Mode::Binary, Mode::Parameters];
}

/// What both are told before statements.
#[derive(Clone, Debug)]
pub struct Setting {
    pub zone: &'static str,
    /// Statements go to the lake where they may, not only where that is worth it.
    pub prefer_lake: bool,
}

const ZONES: &[&str] = &["UTC", "America/New_York", "Asia/Kolkata", "Europe/Berlin", "America/Havana"];

impl Setting {
    pub fn pick(random: &mut Random) -> Setting {
        Setting { zone: *random.pick(ZONES), prefer_lake: random.percent(92) }
    }
}

/// The two of them.
pub struct Pair {
    direct: Client,
    gateway: Client,
    gateway_pid: i32,
    /// Number of the last statement of the gateway's log that was looked at.
    seen: i64,
    open: bool,
}

/// One statement's outcome.
pub enum Outcome {
    Equal,
    /// Both failed alike, with this message: the transaction is over.
    BothFailed(String),
    /// Took too long for one of them.
    TimedOut,
    Differs(String),
}

/// A statement of the gateway's log.
pub struct Logged {
    pub route: String,
    pub reasons: String,
    pub fell_back: bool,
}

impl Pair {
    pub async fn connect(direct: &Target, gateway: &Target) -> Result<Pair> {
        let direct = Client::connect(direct).await?;
        let mut gateway = Client::connect(gateway).await?;
        let pid = gateway.simple("SELECT pg_catalog.pg_backend_pid()").await?;
        let gateway_pid = number(&pid).context("the gateway gave no process id")?;
        Ok(Pair { direct, gateway, gateway_pid: i32::try_from(gateway_pid)?, seen: 0, open: false })
    }

    /// Begins a transaction in both, of one snapshot.
    pub async fn begin(&mut self, setting: &Setting) -> Result<()> {
        self.end().await?;
        let route = if setting.prefer_lake { "prefer_lake" } else { "auto" };
        for client in [&mut self.direct, &mut self.gateway] {
            client.simple(&format!("SET TimeZone = '{}'; SET watershed.route = '{route}'; SET statement_timeout = '30s'", setting.zone)).await?;
            client.simple("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        }
        self.open = true;
        let snapshot = self.direct.simple("SELECT pg_catalog.pg_export_snapshot()").await?;
        let snapshot = snapshot.text()?.into_iter().flatten().flatten().next().context("PostgreSQL exported no snapshot")?;
        self.gateway.simple(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'")).await?;
        Ok(())
    }

    pub async fn end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.open) {
            self.direct.simple("ROLLBACK").await?;
            self.gateway.simple("ROLLBACK").await?;
        }
        Ok(())
    }

    /// Asks both. After a failure the transaction is over.
    pub async fn play(&mut self, select: &Select, mode: Mode) -> Result<Outcome> {
        let mut parameters = Parameters::new();
        let sql = select.sql((mode == Mode::Parameters).then_some(&mut parameters));
        let (right, got) = (ask(&mut self.direct, &sql, &parameters, mode).await, ask(&mut self.gateway, &sql, &parameters, mode).await);
        let outcome = match (settle(right)?, settle(got)?) {
            (Ok(right), Ok(got)) => return Ok(compare(&right, &got, select.ordered()).map_or(Outcome::Equal, Outcome::Differs)),
            (Err(right), Err(got)) if right.sqlstate == "57014" || got.sqlstate == "57014" => Outcome::TimedOut,
            (Err(right), Err(got)) if (&right.sqlstate, &right.message) == (&got.sqlstate, &got.message) => Outcome::BothFailed(right.message),
            (Err(e), _) | (_, Err(e)) if e.sqlstate == "57014" => Outcome::TimedOut,
            (Err(right), Err(got)) => Outcome::Differs(format!("the error should be {right}, and is {got}")),
            (Ok(right), Err(got)) => Outcome::Differs(format!("{} rows are right, and an error came: {got}", right.rows.len())),
            (Err(right), Ok(got)) => Outcome::Differs(format!("an error is right ({right}), and {} rows came", got.rows.len())),
        };
        self.end().await?;
        Ok(outcome)
    }

    /// What the gateway's log has of this session since the last look.
    pub async fn logged(&mut self) -> Result<Vec<Logged>> {
        self.end().await?;
        let sql = format!(
            "SELECT id, route, reasons, fell_back FROM watershed.queries WHERE pid = {} AND id > {} AND sql LIKE '%FROM%' AND sql NOT LIKE '%watershed.queries%' ORDER BY id",
            self.gateway_pid, self.seen
        );
        let answer = self.gateway.simple(&sql).await.context("read watershed.queries")?;
        let mut all = Vec::new();
        for row in answer.text()? {
            let mut row = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || row.next().unwrap_or_default();
            self.seen = next().parse().context("read the number of a statement")?;
            all.push(Logged { route: next(), reasons: next(), fell_back: next() == "t" });
        }
        Ok(all)
    }
}

async fn ask(client: &mut Client, sql: &str, parameters: &Parameters, mode: Mode) -> Result<Answer> {
    match mode {
        Mode::Simple => client.simple(sql).await,
        Mode::Text => client.extended(sql, &[], false).await,
        Mode::Binary => client.extended(sql, &[], true).await,
        Mode::Parameters => client.extended(sql, parameters, true).await,
    }
}

/// An error of the server is an answer; any other ends the run.
fn settle(answer: Result<Answer>) -> Result<Result<Answer, ServerError>> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(e) => match e.downcast::<ServerError>() {
            Ok(e) if e.sqlstate.starts_with("57P") || e.sqlstate.starts_with("08") => bail!("the session ended: {e}"),
            Ok(e) => Ok(Err(e)),
            Err(e) => Err(e),
        },
    }
}

/// The first difference.
fn compare(right: &Answer, got: &Answer, ordered: bool) -> Option<String> {
    if right.columns != got.columns {
        return Some(format!("the columns differ: {:?} are right, {:?} came", right.column_names(), got.column_names()));
    }
    if right.tag != got.tag {
        return Some(format!("{} is right, {} came", right.tag, got.tag));
    }
    let sorted = |answer: &Answer| {
        let mut rows: Vec<&Vec<u8>> = answer.rows.iter().collect();
        if !ordered {
            rows.sort_unstable();
        }
        rows.into_iter().cloned().collect::<Vec<_>>()
    };
    let (right, got) = (sorted(right), sorted(got));
    let at = right.iter().zip(&got).position(|(a, b)| a != b)?;
    let shown = |rows: &[Vec<u8>]| rows.get(at).map_or_else(String::new, |row| show(row));
    Some(format!("row {}{} should be {} and is {}", at + 1, if ordered { "" } else { " (sorted)" }, shown(&right), shown(&got)))
}

/// The values of a row, as far as they can be read.
fn show(row: &[u8]) -> String {
    let mut out = Vec::new();
    let mut rest = row.get(2..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => {
                out.push("NULL".to_owned());
                rest = after;
            }
            Ok(length) => {
                let Some((value, after)) = after.split_at_checked(length) else { break };
                let printable = !value.is_empty() && value.iter().all(|b| *b >= 0x20);
                out.push(match std::str::from_utf8(value) {
                    Ok(text) if printable || value.is_empty() => format!("'{text}'"),
                    _ => format!("\\x{}", hex::encode(value)),
                });
                rest = after;
            }
        }
    }
    format!("({})", out.join(", "))
}

fn number(answer: &Answer) -> Option<i64> {
    answer.text().ok()?.first()?.first()?.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rows: &[&[u8]]) -> Answer {
        Answer { rows: rows.iter().map(|r| r.to_vec()).collect(), tag: format!("SELECT {}", rows.len()), ..Answer::default() }
    }

    #[test]
    fn order_counts_where_it_is_settled() {
        let (a, b) = (answer(&[b"\0\0a", b"\0\0b"]), answer(&[b"\0\0b", b"\0\0a"]));
        assert!(compare(&a, &b, true).is_some());
        assert!(compare(&a, &b, false).is_none());
        assert!(compare(&a, &answer(&[b"\0\0a"]), false).is_some());
        assert!(compare(&a, &answer(&[b"\0\0a", b"\0\0a"]), false).is_some());
    }

    #[test]
    fn values_are_shown() {
        assert_eq!(show(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff"), "('a', NULL)");
    }
}

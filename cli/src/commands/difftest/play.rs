//! Two sessions, one past the gateway and one through it, that are asked the same in the same snapshot, and what differs.
//! ✗ which statements, who moves rows meanwhile.

use anyhow::{Context, Result, bail};

use super::expr::Parameters;
use super::over_flight::{Answered, Flight, typed};
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
    /// Asked in place of the gateway's session by the wire, which then reads the log only.
    flight: Option<Flight>,
    /// Of the session that is asked.
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
    /// Over Flight: a value that Arrow has not, and the error that says so.
    NotInArrow,
    Differs(String),
}

/// A statement of the gateway's log.
pub struct Logged {
    pub route: String,
    pub reasons: String,
    pub fell_back: bool,
}

impl Pair {
    /// With `flight`, statements go there; else to the gateway by the wire.
    pub async fn connect(direct: &Target, gateway: &Target, flight: Option<&str>) -> Result<Pair> {
        const PID: &str = "SELECT pg_catalog.pg_backend_pid()::text";
        let as_user = gateway;
        let direct = Client::connect(direct).await?;
        let mut gateway = Client::connect(as_user).await?;
        let (flight, pid) = match flight {
            None => (None, gateway.simple(PID).await?),
            Some(url) => {
                let mut flight = Flight::connect(url, as_user).await?;
                let pid = flight.ask(PID, &Parameters::new()).await?.answer;
                (Some(flight), pid)
            }
        };
        let gateway_pid = number(&pid).context("the gateway gave no process id")?;
        Ok(Pair { direct, gateway, flight, gateway_pid: i32::try_from(gateway_pid)?, seen: 0, open: false })
    }

    /// Tells the session that is asked.
    async fn tell(&mut self, sql: &str) -> Result<()> {
        match &mut self.flight {
            Some(flight) => flight.tell(sql).await,
            None => self.gateway.simple(sql).await.map(|_| ()),
        }
    }

    /// Begins a transaction in both, of one snapshot.
    pub async fn begin(&mut self, setting: &Setting) -> Result<()> {
        self.end().await?;
        let route = if setting.prefer_lake { "prefer_lake" } else { "auto" };
        let zone = format!("SET TimeZone = '{}'", setting.zone);
        for sql in [&zone, &format!("SET watershed.route = '{route}'"), "SET statement_timeout = '30s'", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
            self.direct.simple(sql).await?;
            self.tell(sql).await?;
        }
        self.open = true;
        let snapshot = self.direct.simple("SELECT pg_catalog.pg_export_snapshot()").await?;
        let snapshot = snapshot.text()?.into_iter().flatten().flatten().next().context("PostgreSQL exported no snapshot")?;
        self.tell(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'")).await
    }

    pub async fn end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.open) {
            self.direct.simple("ROLLBACK").await?;
            self.tell("ROLLBACK").await?;
        }
        Ok(())
    }

    /// Asks both. After a failure the transaction is over.
    pub async fn play(&mut self, select: &Select, mode: Mode) -> Result<Outcome> {
        let mut parameters = Parameters::new();
        let sql = select.sql((mode == Mode::Parameters).then_some(&mut parameters));
        if self.flight.is_some() {
            return self.play_over_flight(&typed(&sql, &parameters), &parameters, select.ordered()).await;
        }
        let (right, got) = (ask(&mut self.direct, &sql, &parameters, mode).await, ask(&mut self.gateway, &sql, &parameters, mode).await);
        if let (Ok(right), Ok(got)) = (&right, &got) {
            return Ok(compare(right, got, select.ordered()).map_or(Outcome::Equal, Outcome::Differs));
        }
        let outcome = failed(settle(right)?, settle(got)?);
        self.end().await?;
        Ok(outcome)
    }

    async fn play_over_flight(&mut self, sql: &str, parameters: &Parameters, ordered: bool) -> Result<Outcome> {
        let Some(flight) = &mut self.flight else { bail!("no session over Flight") };
        let (right, got) = (self.direct.extended(sql, parameters, true).await, flight.ask(sql, parameters).await);
        let outcome = match (settle(right)?, settle(got)?) {
            (Ok(right), Ok(Answered { answer, columns })) => {
                if right.columns_with_types() != columns {
                    return Ok(Outcome::Differs(format!("the columns differ: {:?} are right, {columns:?} came", right.columns_with_types())));
                }
                let got = Answer { columns: right.columns.clone(), ..answer };
                return Ok(compare(&right, &got, ordered).map_or(Outcome::Equal, Outcome::Differs));
            }
            (Ok(right), Err(e)) if is_unfit(&e) => {
                // It must be there.
                let text = self.direct.extended(sql, parameters, false).await?.text()?;
                let unfit = |value: &String| UNFIT.iter().any(|has| value.contains(has));
                match text.iter().flatten().flatten().any(unfit) {
                    true => Outcome::NotInArrow,
                    false => failed(Ok(right), Err(e)),
                }
            }
            // Met in a row that came before the one that fails.
            (Err(_), Err(e)) if is_unfit(&e) => Outcome::NotInArrow,
            (right, got) => failed(right, got.map(|got| got.answer)),
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

/// What Arrow's types have not, as PostgreSQL prints it: infinity, NaN of numeric(p,s), the end of a day, arrays of several dimensions.
const UNFIT: [&str; 5] = ["infinity", "NaN", "24:00:00", "{{", "]="];

fn is_unfit(e: &ServerError) -> bool {
    matches!(e.sqlstate.as_str(), "22008" | "22003" | "0A000") && e.message.contains("Arrow")
}

/// Where one of them failed.
fn failed(right: Result<Answer, ServerError>, got: Result<Answer, ServerError>) -> Outcome {
    match (right, got) {
        (Err(e), _) | (_, Err(e)) if e.sqlstate == "57014" => Outcome::TimedOut,
        (Err(right), Err(got)) if (&right.sqlstate, &right.message) == (&got.sqlstate, &got.message) => Outcome::BothFailed(right.message),
        (Err(right), Err(got)) => Outcome::Differs(format!("the error should be {right}, and is {got}")),
        (Ok(right), Err(got)) => Outcome::Differs(format!("{} rows are right, and an error came: {got}", right.rows.len())),
        (Err(right), Ok(got)) => Outcome::Differs(format!("an error is right ({right}), and {} rows came", got.rows.len())),
        (Ok(_), Ok(_)) => Outcome::Equal,
    }
}

/// An error of the server is an answer; any other ends the run.
fn settle<T>(answer: Result<T>) -> Result<Result<T, ServerError>> {
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

//! `watershed dead-letters list | show | replay | drop`: records that could not become rows.

mod view;

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use ingest::letters::replay::{self, Options, Report, Routes};
use ingest::letters::{self, Filter, Letter, Summary};
use ingest::sink::{Session, connect_options};

use crate::args::{
    DeadLettersArgs, LetterFilter, LettersAction, LettersDropArgs, LettersListArgs, LettersReplayArgs,
    LettersShowArgs, Running,
};
use crate::console::{complain, say};
use crate::exit::{Code, Failure};
use crate::text_table::{Align, grouped, layout, shorten};
use crate::units::Bytes;
use crate::{commands, config, discover};

/// Characters of a reason shown on a line of the list.
const REASON_WIDTH: usize = 90;
/// Characters of a key or header shown.
const VALUE_WIDTH: usize = 100;

pub async fn run(args: DeadLettersArgs) -> Result<Code> {
    let running = Running { data_dir: args.data_dir };
    let url = discover::stores(&running).await?.ingest_url;
    match args.action {
        LettersAction::List(args) => list(&url, args).await,
        LettersAction::Show(args) => show(&url, args).await,
        LettersAction::Replay(args) => replay(&url, args).await,
        LettersAction::Drop(args) => drop(&url, args).await,
    }
}

async fn session(url: &str) -> Result<Session> {
    Ok(Session::connect(connect_options(url, "watershed dead-letters")?).await?)
}

fn filter(given: &LetterFilter, ids: &[i64], replayed: Option<bool>) -> Filter {
    Filter {
        ids: (!ids.is_empty()).then(|| ids.to_vec()),
        table: given.table.clone(),
        topic: given.topic.clone(),
        since: given.since.as_ref().map(ToString::to_string),
        stage: given.stage.clone(),
        replayed,
    }
}

async fn list(url: &str, args: LettersListArgs) -> Result<Code> {
    let filter = filter(&args.filter, &[], if args.all { None } else { Some(false) });
    let mut session = session(url).await?;
    let (count, bytes) = letters::count(session.conn(), &filter).await?;
    let found = letters::list(session.conn(), &filter, i64::from(args.limit)).await?;
    session.close().await;
    if args.json {
        for letter in &found {
            say(serde_json::to_string(letter).context("write a letter as JSON")?);
        }
        return Ok(Code::Done);
    }
    if count == 0 {
        say("no dead letters");
        return Ok(Code::Done);
    }
    let heading = [
        ("id", Align::Right),
        ("received", Align::Left),
        ("table", Align::Left),
        ("position", Align::Left),
        ("stage", Align::Left),
        ("bytes", Align::Right),
        ("state", Align::Left),
        ("reason", Align::Left),
    ];
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    say(layout(&heading, &rows).trim_end());
    let shown = if found.len() < count as usize { format!(", {} shown", found.len()) } else { String::new() };
    say(format_args!("{} letters, {}{shown}", grouped(count as u64), Bytes(bytes as u64)));
    Ok(Code::Done)
}

fn row(letter: &Summary) -> Vec<String> {
    let reason = letter.tried_reason.as_ref().unwrap_or(&letter.reason);
    vec![
        letter.id.to_string(),
        clock(&letter.received_at),
        letter.table.clone().unwrap_or_default(),
        place_of(letter),
        letter.stage.clone().unwrap_or_default(),
        letter.bytes.to_string(),
        state(letter),
        shorten(reason.trim(), REASON_WIDTH),
    ]
}

/// A Kafka position says all; a line needs its file.
fn place_of(letter: &Summary) -> String {
    let position = letter.position.as_deref().unwrap_or_default();
    match letter.source.as_deref() {
        Some(source) if position.starts_with("line ") => format!("{source}, {position}"),
        _ => position.to_owned(),
    }
}

fn state(letter: &Summary) -> String {
    match (&letter.replayed_at, letter.attempts) {
        (Some(_), _) => "replayed".to_owned(),
        (None, 0) => "waiting".to_owned(),
        (None, 1) => "failed again".to_owned(),
        (None, n) => format!("failed {n} times"),
    }
}

/// `2026-01-31 12:00:00` of an ISO time.
fn clock(iso: &str) -> String {
    iso.get(..19).unwrap_or(iso).replace('T', " ")
}

async fn show(url: &str, args: LettersShowArgs) -> Result<Code> {
    let routes = config::routes(args.config.as_deref())?;
    let mut session = session(url).await?;
    let letter = letters::get(session.conn(), args.id).await?.ok_or_else(|| {
        Failure::usage(
            format!("there is no dead letter {}", args.id),
            "`watershed dead-letters list --all` shows those there are",
        )
    })?;
    if args.raw {
        // A reader that went away has seen enough.
        let _ = std::io::stdout().lock().write_all(&letter.raw);
        return Ok(Code::Done);
    }
    let now = match &letter.summary.replayed_at {
        Some(_) => None,
        None => Some(replay::check(&mut session, &routes, &letter).await?),
    };
    session.close().await;
    for line in describe(&letter, now) {
        say(line);
    }
    Ok(Code::Done)
}

/// `now`: what a replay would say; nothing for a letter that needs none.
fn describe(letter: &Letter, now: Option<Option<String>>) -> Vec<String> {
    let s = &letter.summary;
    let mut lines = vec![format!("dead letter {}", s.id)];
    let mut put = |name: &str, value: String| lines.push(format!("  {name:<10} {value}"));
    put("received", s.received_at.clone());
    put("table", s.table.clone().unwrap_or_else(|| "none".to_owned()));
    put("source", s.source.clone().unwrap_or_default());
    put("position", s.position.clone().unwrap_or_default());
    if let Some(at) = letter.record_time {
        let mut out = Vec::new();
        ingest::decode::time::write(&mut out, at, b'T');
        put("timestamp", String::from_utf8_lossy(&out).into_owned() + "Z");
    }
    if let Some(key) = &letter.key {
        put("key", shown(key));
    }
    for (name, value) in &letter.headers {
        put("header", format!("{name}: {}", value.as_deref().map_or_else(|| "null".to_owned(), shown)));
    }
    put("format", s.envelope.clone().unwrap_or_else(|| "told by the record".to_owned()));
    let kept = if s.complete { "" } else { ", only the head of a longer record" };
    put("size", format!("{} bytes{kept}", grouped(s.bytes as u64)));
    put("stage", s.stage.clone().unwrap_or_default());
    put("reason", s.reason.clone());
    let mut present = s.reason.clone();
    if let Some(at) = &s.tried_at
        && s.replayed_at.is_none()
    {
        let why = s.tried_reason.clone().unwrap_or_default();
        put("tried", format!("{} times, last {at}: {why}", s.attempts));
        present = why;
    }
    match (&s.replayed_at, now) {
        (Some(at), _) => put("replayed", format!("{at}, as {} rows", s.replayed_rows.unwrap_or_default())),
        (None, Some(Some(reason))) => {
            put("now", format!("would fail: {reason}"));
            present = reason;
        }
        (None, Some(None)) => {
            put("now", "would be a row, unless PostgreSQL itself refuses it".to_owned());
        }
        (None, None) => {}
    }
    lines.push(String::new());
    let place =
        letters::place::find(&letter.raw, &present).or_else(|| letters::place::find(&letter.raw, &s.reason));
    lines.extend(view::lines(&letter.raw, place));
    lines
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => shorten(&text.escape_debug().to_string(), VALUE_WIDTH),
        Err(_) => {
            let digits: String = bytes.iter().take(VALUE_WIDTH / 2).map(|b| format!("{b:02x}")).collect();
            format!("\\x{digits}{}", if bytes.len() > VALUE_WIDTH / 2 { "…" } else { "" })
        }
    }
}

/// Nothing named is no way to say "all".
fn need_a_choice(ids: &[i64], filter: &LetterFilter, all: bool, verb: &str) -> Result<()> {
    if !all && ids.is_empty() && filter.is_empty() {
        return Err(Failure::usage(
            format!("nothing says which letters to {verb}"),
            "give numbers of letters, --table, --topic, --since or --stage, or --all",
        )
        .into());
    }
    Ok(())
}

async fn replay(url: &str, args: LettersReplayArgs) -> Result<Code> {
    need_a_choice(&args.ids, &args.filter, args.all, "replay")?;
    let routes: Routes = config::routes(args.config.as_deref())?;
    let filter = filter(&args.filter, &args.ids, Some(false));
    let options = Options { dry_run: args.dry_run, ..Options::new(url, routes, filter) };
    let bar = bar();
    let progress = |now: &Report| {
        bar.set_length(now.total);
        bar.set_position(now.seen);
        bar.set_message(format!("{} replayed, {} failed", now.replayed, now.failed));
    };
    let outcome = replay::run(options, &progress, commands::stop_on_signal()?).await;
    bar.finish_and_clear();
    let report = outcome?;
    say(summed_up(&report, args.dry_run));
    for failed in &report.failures {
        say(format_args!("  {}: {}", failed.id, shorten(failed.reason.trim(), 2 * REASON_WIDTH)));
    }
    let more = report.failed - report.failures.len() as u64;
    if more > 0 {
        say(format_args!("  and {} more", grouped(more)));
    }
    Ok(if report.failed == 0 { Code::Done } else { Code::Found })
}

fn summed_up(report: &Report, dry_run: bool) -> String {
    let (did, failed) = match dry_run {
        false => ("replayed as", "failed again and stay"),
        true => ("would be replayed as", "would fail again"),
    };
    let mut text = format!(
        "{} of {} letters {did} {} rows",
        grouped(report.replayed),
        grouped(report.seen),
        grouped(report.rows)
    );
    if report.failed > 0 {
        text += &format!("; {} {failed}:", grouped(report.failed));
    }
    text
}

/// Drawn on standard error, if that is a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} letters  {msg}");
    // The template is a constant that the library accepts; with another one it would draw its own.
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn drop(url: &str, args: LettersDropArgs) -> Result<Code> {
    need_a_choice(&args.ids, &args.filter, args.all || args.replayed, "drop")?;
    let filter = filter(&args.filter, &args.ids, args.replayed.then_some(true));
    let mut session = session(url).await?;
    let (count, bytes) = letters::count(session.conn(), &filter).await?;
    if count == 0 {
        say("no such dead letters");
        return Ok(Code::Done);
    }
    if !args.yes && !confirmed(count as u64, bytes as u64)? {
        say("nothing dropped");
        return Ok(Code::Done);
    }
    let dropped = letters::drop_letters(session.conn(), &filter).await?;
    session.close().await;
    say(format_args!("{} letters dropped", grouped(dropped)));
    Ok(Code::Done)
}

fn confirmed(count: u64, bytes: u64) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            format!("{} dead letters would be gone for good", grouped(count)),
            "say --yes to drop them without being asked",
        )
        .into());
    }
    complain(format_args!("Drop {} dead letters ({}) for good? [y/N]", grouped(count), Bytes(bytes)));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            summary: Summary {
                id: 7,
                received_at: "2026-01-31T12:00:00.000000Z".into(),
                table: Some("public.logs".into()),
                source: Some("kafka".into()),
                position: Some("logs.raw/0/42".into()),
                stage: Some("map".into()),
                reason: "column ts: \"soon\" is neither an ISO 8601 time nor an epoch number".into(),
                bytes: 14,
                envelope: Some("auto".into()),
                complete: true,
                attempts: 0,
                tried_at: None,
                tried_reason: None,
                replayed_at: None,
                replayed_rows: None,
            },
            raw: br#"{"ts":"soon"}"#.to_vec(),
            topic: Some("logs.raw".into()),
            partition: Some(0),
            kafka_offset: Some(42),
            record_time: Some(0),
            key: Some(b"k\xff".to_vec()),
            headers: vec![("h".into(), None)],
            context: None,
        }
    }

    #[test]
    fn a_letter_shows_its_reason_and_the_place() {
        let text = describe(&letter(), Some(None)).join("\n");
        for part in [
            "dead letter 7",
            "position   logs.raw/0/42",
            "timestamp  1970-01-01T00:00:00Z",
            "key        \\x6bff",
            "header     h: null",
            "reason     column ts",
            "now        would be a row",
            ">   \"ts\": \"soon\"",
            "          ^^^^^^",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_row_of_the_list_says_how_it_stands() {
        let mut one = letter().summary;
        assert_eq!(
            row(&one)[..7],
            ["7", "2026-01-31 12:00:00", "public.logs", "logs.raw/0/42", "map", "14", "waiting"]
        );
        one.position = Some("line 3".into());
        one.source = Some("a.log".into());
        one.attempts = 2;
        one.tried_reason = Some("still bad".into());
        assert_eq!(
            (row(&one)[3].as_str(), row(&one)[6].as_str(), row(&one)[7].as_str()),
            ("a.log, line 3", "failed 2 times", "still bad")
        );
    }
}

//! One statement, two doors: every statement of the corpus is answered by PostgreSQL directly and through the gateway, in three
//! time zones, in the simple and the extended protocol, in text and in binary, and the answers must be equal to the byte.
//!
//! The rows lie in several Parquet files (before and after a compaction), in the tail, in transactions that were open while the
//! archiver ran, and in some that never commit. The test also asserts which store answered, so that it cannot pass by sending
//! everything to PostgreSQL.

mod corpus;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use corpus::{Case, Expect};
use support::Sequence;
use support::compare::difference;
use support::instance::{Instance, argument};
use support::wire::{Client, Format, Reply};

const ZONES: [&str; 3] = ["UTC", "America/New_York", "Asia/Kolkata"];

/// Statements that may differ are all shown, up to this many.
const SHOWN: usize = 25;

/// The data, made once, and the sessions that keep some of it uncommitted.
struct Fixture {
    instance: &'static Instance,
    _open: std::sync::Mutex<Vec<Client>>,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let instance = Instance::shared();
        let mut owner = Client::connect(&instance.gateway());
        owner.run(include_str!("corpus/schema.sql"));
        let insert = |client: &mut Client, from: i64, to: i64| {
            client.run(
                &include_str!("corpus/rows.sql")
                    .replace(":from", &from.to_string())
                    .replace(":to", &to.to_string()),
            )
        };

        insert(&mut owner, 1, 700);
        load_logs(instance);
        instance.archive();
        insert(&mut owner, 701, 1300);
        let mut late = Client::connect(&instance.direct());
        late.run("BEGIN");
        insert(&mut late, 5001, 5040);
        instance.archive();
        insert(&mut owner, 1301, 1700);
        owner.run(include_str!("corpus/extremes.sql"));
        let mut rolled_back = Client::connect(&instance.direct());
        rolled_back.run("BEGIN");
        insert(&mut rolled_back, 7001, 7010);
        instance.archive();
        instance.run(&["compact"]);
        insert(&mut owner, 1701, 2000);
        instance.archive();

        // From here on everything is tail: rows of transactions that began before the last archive and end after it, rows
        // written since, and rows that must not be seen.
        late.run("COMMIT");
        rolled_back.run("ROLLBACK");
        insert(&mut owner, 2001, 2120);
        owner.run(include_str!("corpus/late_logs.sql"));
        let mut open = Client::connect(&instance.direct());
        open.run("BEGIN");
        insert(&mut open, 8001, 8010);
        let mut prepared = Client::connect(&instance.direct());
        prepared.run("BEGIN");
        insert(&mut prepared, 9001, 9010);
        prepared.run("PREPARE TRANSACTION 'equality'");
        for table in ["zoo", "logs"] {
            owner.run(&format!("ANALYZE {table}"));
        }
        Fixture { instance, _open: std::sync::Mutex::new(vec![open, prepared]) }
    })
}

/// The real logs where they are at hand, else a file of the same kind made here.
fn load_logs(instance: &Instance) {
    let samples =
        std::env::var_os("WATERSHED_SAMPLE_DATA").map(PathBuf::from).filter(|folder| folder.is_dir());
    match samples {
        Some(folder) => {
            let folder = folder.canonicalize().expect("the folder of real logs");
            for (file, options) in [
                ("apache_combined.log", &[][..]),
                ("auth.log", &["--year", "2015"]),
                ("nginxplus_status.ndjson", &[]),
            ] {
                let mut arguments = vec!["load", "logs"];
                arguments.extend(options);
                let path = folder.join(file);
                arguments.push(argument(&path));
                let output = instance.output(&arguments);
                let code = output.status.code();
                assert!(matches!(code, Some(0 | 1)), "load of {file}: {}", support::instance::shown(&output));
            }
        }
        None => {
            let mut lines = String::new();
            for n in 0..6000u32 {
                let (day, hour, minute, second) = (17 + n % 4, n / 7 % 24, n % 60, n * 7 % 60);
                let status = [200, 200, 200, 304, 404, 500, 206][n as usize % 7];
                let _ = writeln!(
                    lines,
                    "10.0.{}.{} - - [{day}/May/2015:{hour:02}:{minute:02}:{second:02} +0000] \"GET /{}/page{} HTTP/1.1\" {status} {} \"-\" \"Mozilla/5.0 (n{n})\"",
                    n % 3,
                    n % 200,
                    ["blog", "images", "projects", "", "caf%C3%A9"][n as usize % 5],
                    n % 50,
                    n * 37 % 100_000,
                ); // writing to a String cannot fail
            }
            let path = instance.file("access.log", lines);
            instance.run(&["load", "logs", argument(&path)]);
        }
    }
}

/// How a statement reaches the server and how its values travel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Mode {
    Simple,
    ExtendedText,
    ExtendedBinary,
}

/// The parameters of a case in one format; binary values are asked of PostgreSQL itself.
fn parameters(direct: &mut Client, case: &Case, format: Format) -> Vec<Option<Vec<u8>>> {
    case.parameters
        .iter()
        .map(|(type_name, text)| {
            let text = text.as_ref()?;
            if format == Format::Text {
                return Some(text.as_bytes().to_vec());
            }
            let sql = format!("SELECT $1::text::{type_name}");
            let reply =
                direct.pipelined(&sql, Format::Text, &[Some(text.as_bytes().to_vec())], Format::Binary).ok();
            let row = reply.frames.iter().find(|frame| frame.tag == b'D').expect("the value in binary");
            row.columns().swap_remove(0)
        })
        .collect()
}

fn ask(client: &mut Client, case: &Case, mode: Mode, values: &[Option<Vec<u8>>]) -> Reply {
    match mode {
        Mode::Simple => client.query(case.sql),
        Mode::ExtendedText => client.pipelined(case.sql, Format::Text, values, Format::Text),
        Mode::ExtendedBinary => client.prepared("equality", case.sql, Format::Binary, values, Format::Binary),
    }
}

/// What the gateway wrote down about one statement.
#[derive(Clone, Debug)]
struct Record {
    sql: String,
    route: String,
    reasons: String,
    fell_back: bool,
    tail_rows: i64,
    lake_files: i64,
}

fn records(client: &mut Client, since: i64) -> Vec<Record> {
    let pid = client.pid;
    let reply = client.run(&format!(
        "SELECT sql, route, reasons, fell_back, tail_rows, lake_files FROM watershed.queries WHERE pid = {pid} AND id > {since} ORDER BY id"
    ));
    let flag = |value: &Option<String>| value.as_deref() == Some("t");
    let number = |value: &Option<String>| value.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let rows = reply.rows();
    rows.iter()
        .map(|row| Record {
            sql: text(&row[0]),
            route: text(&row[1]),
            reasons: text(&row[2]),
            fell_back: flag(&row[3]),
            tail_rows: number(&row[4]),
            lake_files: number(&row[5]),
        })
        .collect()
}

fn last_id(client: &mut Client) -> i64 {
    client.value("SELECT coalesce(max(id), 0) FROM watershed.queries").parse().expect("a number")
}

/// Where one statement was answered, and what was wrong with it.
struct Outcome {
    case: &'static Case,
    mode: Mode,
    forced: bool,
    record: Option<Record>,
    problems: Vec<String>,
}

/// Runs the whole corpus in one zone and one mode; `forced` adds `SET watershed.route = 'lake'`.
fn run_corpus(
    instance: &Instance,
    cases: &[&'static Case],
    zone: &str,
    mode: Mode,
    forced: bool,
) -> Vec<Outcome> {
    let mut direct = Client::connect(&instance.direct());
    let mut gateway = Client::connect(&instance.gateway());
    for client in [&mut direct, &mut gateway] {
        client.run(&format!("SET TimeZone = '{zone}'"));
    }
    if forced {
        gateway.run("SET watershed.route = 'lake'");
    }
    let since = last_id(&mut gateway);
    let mut outcomes = Vec::new();
    for case in cases {
        if mode == Mode::Simple && !case.parameters.is_empty() {
            continue;
        }
        let format =
            if mode == Mode::ExtendedBinary && !case.text_parameters { Format::Binary } else { Format::Text };
        let values = parameters(&mut direct, case, format);
        let expected = ask(&mut direct, case, mode, &values);
        let actual = ask(&mut gateway, case, mode, &values);
        let refused = forced && actual.error().is_some() && expected.error().is_none();
        let mut problems = Vec::new();
        if refused {
            match case.expect {
                // Forcing the lake never buys a wrong answer: what is unproven is an error that says why.
                Expect::Postgres | Expect::Free if actual.sqlstate() == "0A000" => {}
                _ => problems.push(format!("forced to the lake it was refused:\n{actual:?}")),
            }
        } else if let Some(difference) = difference(&expected, &actual, case.ordered) {
            // A statement that fails may be refused for being unproven before it could fail.
            let refused = forced
                && actual.sqlstate() == "0A000"
                && !matches!(case.expect, Expect::Lake | Expect::Lookup);
            if !refused {
                problems.push(format!(
                    "{difference}\n    directly:\n{expected:?}    through the gateway:\n{actual:?}"
                ));
            }
        } else if forced && case.expect == Expect::Postgres && expected.error().is_none() {
            problems.push("forced to the lake, an unproven statement was answered".into());
        }
        outcomes.push(Outcome { case, mode, forced, record: None, problems });
    }
    let mut written: std::collections::VecDeque<Record> = records(&mut gateway, since).into();
    for outcome in &mut outcomes {
        if let Some(at) = written.iter().position(|record| record.sql == outcome.case.sql) {
            outcome.record = written.drain(..=at).next_back();
        }
        check_route(outcome);
    }
    outcomes
}

fn check_route(outcome: &mut Outcome) {
    let Some(record) = &outcome.record else {
        outcome.problems.push("it is missing in watershed.queries".into());
        return;
    };
    let expected = match (outcome.case.expect, outcome.forced) {
        (Expect::Lake, _) | (Expect::Lookup, true) => Some("lake"),
        (Expect::Postgres, false) => Some("postgres"),
        (Expect::Lookup, false) | (Expect::Free | Expect::Error, _) | (Expect::Postgres, true) => None,
    };
    // Beyond the years for which both sides' zone rules are known to agree, giving back is what is promised.
    if record.fell_back && record.reasons.contains("is not known to agree with PostgreSQL") {
        return;
    }
    if expected.is_some_and(|route| route != record.route) || (expected == Some("lake") && record.fell_back) {
        outcome.problems.push(format!("route {} was expected, not {record:?}", expected.unwrap_or_default()));
    }
}

fn report(outcomes: &[Outcome], zone: &str) {
    let mut counts: BTreeMap<(Mode, bool), BTreeMap<String, usize>> = BTreeMap::new();
    for outcome in outcomes {
        let route = outcome.record.as_ref().map_or("unrecorded", |record| record.route.as_str());
        *counts.entry((outcome.mode, outcome.forced)).or_default().entry(route.into()).or_default() += 1;
    }
    for ((mode, forced), routes) in counts {
        let forced = if forced { ", lake forced" } else { "" };
        println!("{zone}, {mode:?}{forced}: {routes:?}");
    }
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.problems.is_empty()).collect();
    let mut text = String::new();
    for outcome in failed.iter().take(SHOWN) {
        let forced = if outcome.forced { ", lake forced" } else { "" };
        let _ = writeln!(text, "  {:?}{forced}, {zone}: {}", outcome.mode, outcome.case.sql);
        if !outcome.case.parameters.is_empty() {
            let _ = writeln!(text, "    parameters {:?}", outcome.case.parameters);
        }
        if let Some(record) = &outcome.record {
            let _ = writeln!(text, "    route {} ({})", record.route, record.reasons);
        }
        for problem in &outcome.problems {
            let _ = writeln!(text, "    {problem}");
        }
    }
    let statements: std::collections::BTreeSet<&str> =
        failed.iter().map(|outcome| outcome.case.sql).collect();
    for sql in &statements {
        let _ = writeln!(text, "  failed: {sql}");
    }
    assert!(
        failed.is_empty(),
        "{} of {} answers ({} statements) are wrong:\n{text}",
        failed.len(),
        outcomes.len(),
        statements.len()
    );
}

fn compare_in(zone: &str) {
    let fixture = fixture();
    let cases: Vec<&'static Case> = corpus::all().collect();
    let mut outcomes = Vec::new();
    for (mode, forced) in [
        (Mode::Simple, false),
        (Mode::ExtendedText, false),
        (Mode::ExtendedBinary, false),
        (Mode::Simple, true),
        (Mode::ExtendedBinary, true),
    ] {
        outcomes.extend(run_corpus(fixture.instance, &cases, zone, mode, forced));
    }
    // The corpus is only worth something if both stores had a part in the answers.
    let lake =
        outcomes.iter().filter_map(|outcome| outcome.record.as_ref()).filter(|record| record.route == "lake");
    let with_both = lake.filter(|record| record.tail_rows > 0 && record.lake_files > 1).count();
    report(&outcomes, zone);
    assert!(with_both > cases.len() / 4, "only {with_both} answers came from several files and the tail");
}

#[test]
fn answers_are_equal_in_utc() {
    compare_in(ZONES[0]);
}

#[test]
fn answers_are_equal_in_new_york() {
    compare_in(ZONES[1]);
}

#[test]
fn answers_are_equal_in_kolkata() {
    compare_in(ZONES[2]);
}

#[test]
fn the_corpus_is_large_and_mostly_for_the_lake() {
    let cases: Vec<_> = corpus::all().collect();
    let lake = cases.iter().filter(|case| matches!(case.expect, Expect::Lake | Expect::Lookup)).count();
    assert!(cases.len() >= 200, "{} statements", cases.len());
    assert!(lake >= 120, "{lake} statements are proven");
}

/// Zones whose clocks do odd things: midnights that come twice or not at all, half hours, quarters, a day left out, POSIX signs.
#[test]
fn answers_about_time_are_equal_in_stranger_zones() {
    let instance = fixture().instance;
    let about_time = |case: &&Case| {
        let sql = case.sql;
        case.parameters.is_empty()
            && case.expect != Expect::Error
            && ["date_", "ts", "tz", "tm", "current_date", "extract"].iter().any(|word| sql.contains(word))
    };
    let cases: Vec<&'static Case> = corpus::all().filter(about_time).collect();
    let (mut direct, mut gateway) =
        (Client::connect(&instance.direct()), Client::connect(&instance.gateway()));
    let mut wrong = String::new();
    for zone in [
        "Europe/Berlin",
        "America/Havana",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Africa/Casablanca",
        "America/Santiago",
        "Asia/Beirut",
        "Pacific/Apia",
        "Europe/Dublin",
        "EST5EDT",
        "UTC+3",
        "-04:30",
    ] {
        for client in [&mut direct, &mut gateway] {
            client.run(&format!("SET TimeZone = '{zone}'"));
        }
        let virtual_rows = gateway.query("SELECT count(*) FROM watershed.queries");
        if virtual_rows.error().is_some() {
            let _ = writeln!(wrong, "  {zone}: virtual tables cannot be read:\n{virtual_rows:?}"); // writing to a String cannot fail
        }
        for case in &cases {
            let (expected, actual) = (direct.query(case.sql), gateway.query(case.sql));
            if let Some(difference) = difference(&expected, &actual, case.ordered) {
                let _ = writeln!(wrong, "  {zone}: {}\n    {difference}", case.sql); // writing to a String cannot fail
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    gateway.run("RESET TimeZone");
    let pid = gateway.pid;
    let routes = gateway.run(&format!("SELECT route, fell_back, count(*) FROM watershed.queries WHERE pid = {pid} GROUP BY 1, 2 ORDER BY 1, 2"));
    println!("in stranger zones: {:?}", routes.rows());
}

/// Statements that nobody thought of: aggregates, groups, filters and orders put together at random, the same in every run.
#[test]
fn random_statements_are_equal() {
    const STATEMENTS: usize = 700;
    let instance = fixture().instance;
    let (mut direct, mut gateway) =
        (Client::connect(&instance.direct()), Client::connect(&instance.gateway()));
    let mut random = Sequence(15_18);
    let mut wrong = String::new();
    for n in 0..STATEMENTS {
        if n % 100 == 0 {
            let zone = ZONES[n / 100 % ZONES.len()];
            for client in [&mut direct, &mut gateway] {
                client.run(&format!("SET TimeZone = '{zone}'"));
            }
        }
        let (sql, ordered) = random_statement(&mut random);
        let mode = [Mode::Simple, Mode::ExtendedText, Mode::ExtendedBinary][n % 3];
        let run = |client: &mut Client| match mode {
            Mode::Simple => client.query(&sql),
            Mode::ExtendedText => client.pipelined(&sql, Format::Text, &[], Format::Text),
            Mode::ExtendedBinary => client.prepared("random", &sql, Format::Binary, &[], Format::Binary),
        };
        let (expected, actual) = (run(&mut direct), run(&mut gateway));
        assert!(
            expected.error().is_none_or(|fields| fields[&'C'] != "42601"),
            "the test's own syntax: {sql}\n{expected:?}"
        );
        if let Some(difference) = difference(&expected, &actual, ordered) {
            let _ = writeln!(wrong, "  {mode:?}: {sql}\n    {difference}"); // writing to a String cannot fail
        }
    }
    let pid = gateway.pid;
    let routes = gateway.run(&format!("SELECT route, count(*) FROM watershed.queries WHERE pid = {pid} AND sql LIKE '% zoo%' GROUP BY route ORDER BY route"));
    let reasons = gateway.run(&format!("SELECT reasons, count(*), min(sql) FROM watershed.queries WHERE pid = {pid} AND sql LIKE '% zoo%' AND route = 'postgres' GROUP BY reasons ORDER BY 2 DESC LIMIT 20"));
    println!("random statements: {:?}\nnot by the lake: {:?}", routes.rows(), reasons.rows());
    assert!(wrong.is_empty(), "{wrong}");
    let by_lake =
        routes.rows().iter().find(|row| row[0].as_deref() == Some("lake")).map_or(0, |row| {
            row[1].as_deref().and_then(|count| count.parse::<usize>().ok()).expect("a number")
        });
    assert!(by_lake > STATEMENTS * 9 / 10, "{:?}\n{:?}", routes.rows(), reasons.rows());
}

/// A statement of the proven set, and whether its rows have one order.
fn random_statement(random: &mut Sequence) -> (String, bool) {
    fn pick<'a>(random: &mut Sequence, from: &[&'a str]) -> &'a str {
        from[random.below(from.len() as u64) as usize]
    }
    fn condition(random: &mut Sequence, depth: u32) -> String {
        if depth > 0 && random.below(2) == 0 {
            let (left, right) = (condition(random, depth - 1), condition(random, depth - 1));
            return match random.below(5) {
                0 => format!("NOT ({left})"),
                1 | 2 => format!("({left}) AND ({right})"),
                _ => format!("({left}) OR ({right})"),
            };
        }
        let comparison = pick(random, &["=", "<>", "<", "<=", ">", ">="]);
        let number = random.below(10_000) as i64 - 5_000;
        let (column, value) = match random.below(13) {
            0 => ("i2", (number / 5).to_string()),
            1 => ("i4", number.to_string()),
            2 => ("i8", (number * 400_000_000_000).to_string()),
            3 => ("n", format!("{}.{:02}", number, random.below(100))),
            4 => ("nb", format!("{}.{:010}", number * 400, random.below(10_000_000_000))),
            5 => (
                "t",
                pick(random, &["''", "'a'", "'A'", "'ä'", "'z'", "'日本語'", "'row 7'", "'a '"]).to_owned(),
            ),
            6 => ("v", pick(random, &["'v'", "'vc4'", "'va'", "'ve4da3b7fbbce2345d7772b0'"]).to_owned()),
            7 => ("d", format!("date '2024-01-01' + {}", random.below(400))),
            8 => ("tm", format!("timestamp '2024-03-10 01:30:00.{:06}'", random.below(1_000_000))),
            9 => (
                "tz",
                pick(
                    random,
                    &["'2024-11-03 01:30:00'", "'infinity'", "'2024-11-03 06:00:00+00'", "'-infinity'"],
                )
                .to_owned(),
            ),
            10 => (
                "ts",
                pick(
                    random,
                    &[
                        "'2024-03-10 02:30:00'",
                        "'2024-07-01'",
                        "now()",
                        "'2000-01-01 00:00:00+00'",
                        "'2015-05-19'",
                    ],
                )
                .to_owned(),
            ),
            11 => ("u", "'c4ca4238-a0b9-2382-0dcc-509a6f75849b'".to_owned()),
            _ => ("g", random.below(14).to_string()),
        };
        match random.below(9) {
            0 => format!("{column} IS NULL"),
            1 => format!("{column} IS NOT NULL"),
            2 => pick(
                random,
                &[
                    "t LIKE 'a%'",
                    "t LIKE '%e%'",
                    "v NOT LIKE 'v_4%'",
                    "t LIKE '_'",
                    "b",
                    "NOT b",
                    "b IS NULL",
                ],
            )
            .to_owned(),
            3 => format!("{column} IN ({value}, {value}, NULL)"),
            4 => format!("{column} NOT IN ({value})"),
            5 => format!("g BETWEEN {} AND {}", random.below(6), random.below(14)),
            _ => format!("{column} {comparison} {value}"),
        }
    }
    let keys: Vec<&str> = (0..random.below(4))
        .map(|_| {
            pick(
                random,
                &[
                    "g",
                    "b",
                    "t",
                    "v",
                    "d",
                    "i2",
                    "u",
                    "\"Odd Name\"",
                    "date_trunc('month', ts)",
                    "date_trunc('day', ts)",
                    "date_trunc('hour', tm)",
                    "date_bin('6 hours', ts, '2001-01-01')",
                    "n",
                ],
            )
        })
        .collect();
    let mut outputs: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    for _ in 0..=random.below(4) {
        let aggregate = pick(
            random,
            &[
                "count(*)",
                "sum(i2)",
                "sum(i4)",
                "sum(i8)",
                "sum(n)",
                "sum(nb)",
                "avg(i2)",
                "avg(i4)",
                "avg(i8)",
                "avg(n)",
                "avg(nb)",
                "min(t)",
                "max(v)",
                "min(d)",
                "max(tm)",
                "min(ts)",
                "max(tz)",
                "min(i8)",
                "max(nb)",
                "count(t)",
                "count(j)",
                "count(DISTINCT g)",
                "count(DISTINCT t)",
                "count(DISTINCT u)",
                "count(DISTINCT tz)",
                "count(DISTINCT i4)",
            ],
        );
        let filter = if random.below(4) == 0 {
            format!(" FILTER (WHERE {})", condition(random, 1))
        } else {
            String::new()
        };
        outputs.push(format!("{aggregate}{filter}"));
    }
    // Most read the table alone; the others read it joined, chosen or put together.
    let from = match random.below(12) {
        0 => "(SELECT z.* FROM zoo z JOIN ant a ON a.id = z.id) zoo",
        1 => "(SELECT z.* FROM zoo z LEFT JOIN ant a ON a.g = z.g AND a.id < 90) zoo",
        2 => "(SELECT z.* FROM ant a RIGHT JOIN zoo z ON a.t = z.t AND a.k = z.g) zoo",
        3 => "(SELECT z.* FROM zoo z WHERE EXISTS (SELECT FROM ant a WHERE a.g = z.g AND a.t = z.t)) zoo",
        4 => "(SELECT z.* FROM zoo z WHERE z.g NOT IN (SELECT g FROM ant WHERE g > 9)) zoo",
        5 => "(SELECT * FROM zoo WHERE g IN (SELECT g FROM kinds WHERE name > 'kind 3') UNION ALL SELECT * FROM zoo WHERE b) zoo",
        6 => "(SELECT z.* FROM zoo z JOIN kinds k USING (g) WHERE z.i4 > (SELECT avg(k) FROM ant)) zoo",
        _ => "zoo",
    };
    let mut sql = format!("SELECT {} FROM {from}", outputs.join(", "));
    if random.below(4) > 0 {
        let _ = write!(sql, " WHERE {}", condition(random, 3)); // writing to a String cannot fail, here and below
    }
    if keys.is_empty() {
        return (sql, true);
    }
    let ordinals: Vec<String> = (1..=keys.len()).map(|n| n.to_string()).collect();
    let _ = write!(sql, " GROUP BY {}", ordinals.join(", "));
    if random.below(3) == 0 {
        let having = pick(
            random,
            &[
                "count(*) > 3",
                "min(i4) < 0",
                "avg(n) > 100",
                "max(t) IS NOT NULL",
                "sum(i8) > 0 OR count(b) = 0",
            ],
        );
        let _ = write!(sql, " HAVING {having}");
    }
    if random.below(5) == 0 {
        return (sql, false);
    }
    let order: Vec<String> = ordinals
        .iter()
        .map(|n| format!("{n}{}", pick(random, &["", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST"])))
        .collect();
    let _ = write!(sql, " ORDER BY {}", order.join(", "));
    if random.below(3) == 0 {
        let _ = write!(sql, " LIMIT {} OFFSET {}", random.below(30), random.below(10));
    }
    (sql, true)
}

/// Every answer again, inside REPEATABLE READ transactions, where the lake may answer only if a version fits the snapshot.
#[test]
fn answers_are_equal_in_a_fixed_snapshot() {
    let instance = fixture().instance;
    let mut direct = Client::connect(&instance.direct());
    let mut gateway = Client::connect(&instance.gateway());
    for client in [&mut direct, &mut gateway] {
        client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    }
    let mut wrong = String::new();
    for case in corpus::all().filter(|case| case.parameters.is_empty() && case.expect == Expect::Lake) {
        let (expected, actual) = (direct.query(case.sql), gateway.query(case.sql));
        if let Some(difference) = difference(&expected, &actual, case.ordered) {
            let _ = writeln!(wrong, "  {}\n    {difference}", case.sql);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let pid = gateway.pid;
    let routes = gateway.run(&format!(
        "SELECT route, count(*) FROM watershed.queries WHERE pid = {pid} GROUP BY route ORDER BY route"
    ));
    println!("in a fixed snapshot: {:?}", routes.rows());
}

/// The cursor of the extended protocol: rows come in portions, and the portions together are the answer.
#[test]
fn portals_with_a_row_limit_give_the_same_portions() {
    use support::wire::frontend;
    let instance = fixture().instance;
    let mut direct = Client::connect(&instance.direct());
    let mut gateway = Client::connect(&instance.gateway());
    let sql = "SELECT t, count(*) FROM zoo GROUP BY t ORDER BY t NULLS FIRST";
    let mut replies = Vec::new();
    for client in [&mut direct, &mut gateway] {
        let mut bytes = frontend::parse("portions", sql, &[]);
        bytes.extend(frontend::bind("p", "portions", Format::Text, &[], Format::Text));
        bytes.extend(frontend::describe(b'P', "p"));
        for _ in 0..3 {
            bytes.extend(frontend::execute("p", 4));
        }
        bytes.extend(frontend::execute("p", 0));
        bytes.extend(frontend::execute("p", 0)); // past its end: an empty portion
        bytes.extend(frontend::close(b'P', "p"));
        bytes.extend(frontend::sync());
        client.send(&bytes);
        replies.push(client.reply());
    }
    assert_eq!(difference(&replies[0], &replies[1], true), None, "{sql}\n{replies:?}");
}

/// The plan of a tiered statement opens with the route and its reasons; below stands PostgreSQL's own plan.
#[test]
fn explain_begins_with_the_route() {
    let instance = fixture().instance;
    let mut gateway = Client::connect(&instance.gateway());
    let lines = gateway.run("EXPLAIN SELECT level, count(*) FROM logs GROUP BY level").column();
    assert!(lines[0].to_lowercase().contains("lake"), "{lines:?}");
    let lines = gateway.run("EXPLAIN SELECT sum(f8) FROM zoo").column();
    assert!(lines[0].to_lowercase().contains("postgres"), "{lines:?}");
    assert!(lines.len() > 1, "PostgreSQL's own plan is missing: {lines:?}");
    let other = gateway.run("EXPLAIN SELECT 1").column();
    let mut direct = Client::connect(&instance.direct());
    assert_eq!(
        other,
        direct.run("EXPLAIN SELECT 1").column(),
        "a statement over no tiered table is PostgreSQL's alone"
    );
}

/// The virtual tables are relations: they are filtered, grouped, ordered, limited and described like any.
#[test]
fn virtual_tables_answer_like_relations() {
    let instance = fixture().instance;
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SELECT count(*) FROM zoo");
    gateway.run("SELECT count(*) FROM zoo WHERE i4 > 17");
    let pid = gateway.pid;
    let rows = gateway.run(&format!(
        "SELECT route, count(*) AS n, max(total_us) >= 0 FROM watershed.queries WHERE pid = {pid} AND sql LIKE 'SELECT count%' GROUP BY route ORDER BY 1"
    ));
    assert_eq!(
        rows.rows(),
        [[Some("lake".to_owned()), Some("2".to_owned()), Some("t".to_owned())]],
        "{rows:?}"
    );
    let stats = gateway.run("SELECT route, calls, p50_us <= p99_us FROM watershed.route_stats WHERE sample_sql = 'SELECT count(*) FROM zoo'");
    assert!(!stats.rows().is_empty(), "{stats:?}");

    // Their shape is the stub's shape, whoever describes them.
    let mut direct = Client::connect(&instance.direct());
    for table in ["watershed.queries", "watershed.route_stats", "watershed.functions"] {
        let sql = format!("SELECT * FROM {table} LIMIT 1");
        let described = |client: &mut Client| {
            let mut bytes = support::wire::frontend::parse("", &sql, &[]);
            bytes.extend(support::wire::frontend::describe(b'S', ""));
            bytes.extend(support::wire::frontend::sync());
            client.send(&bytes);
            client.reply()
        };
        assert_eq!(difference(&described(&mut direct), &described(&mut gateway), true), None, "{sql}");
    }
    // What may run where, as the page says it.
    let judged = gateway.run(
        "SELECT lake, count(*) > 30 FROM watershed.functions WHERE kind = 'function' GROUP BY lake ORDER BY lake",
    );
    let row = |lake: &str| [Some(lake.to_owned()), Some("t".to_owned())];
    assert_eq!(judged.rows(), [row("never"), row("same"), row("same if")], "{judged:?}");
    let random = gateway.value("SELECT reason FROM watershed.functions WHERE signature = 'random()'");
    assert_eq!(random, "volatile");
    // What no row is computed of nobody else could compute either.
    for none in ["LIMIT 0", "WHERE false", "WHERE 1 = 0 AND id + 1 IN (NULL, NULL)"] {
        assert_eq!(gateway.run(&format!("SELECT total_us / 1000 AS ms, id + 1 FROM watershed.queries {none}")).rows().len(), 0, "{none}");
    }
    // Directly on PostgreSQL nothing shows an empty answer.
    assert_eq!(direct.query("SELECT * FROM watershed.queries").sqlstate(), "0A000");
    let through_function = "DO $$ BEGIN PERFORM count(*) FROM watershed.queries; END $$";
    assert_eq!(gateway.query(through_function).sqlstate(), "0A000");
}

/// Literals of others are hidden; one's own and, for a superuser, everybody's are shown.
#[test]
fn literals_in_the_query_log_are_hidden_from_others() {
    let instance = fixture().instance;
    let mut owner = Client::connect(&instance.gateway());
    owner.run("SET watershed.log_plan = on");
    owner.run("/* watershed: lake */ SELECT count(*) FROM zoo WHERE t = 'a secret of the owner'");
    let mut analyst = Client::connect(
        &instance.gateway().login("watershed_analyst", &instance.secret("WATERSHED_ANALYST_PASSWORD")),
    );
    let seen = |client: &mut Client| {
        let pid = owner.pid;
        client.run(&format!("SELECT sql || ' ' || coalesce(lake_plan, '') FROM watershed.queries WHERE pid = {pid}")).column().join("\n")
    };
    let by_analyst = seen(&mut analyst);
    assert!(!by_analyst.contains("secret") && by_analyst.contains("count(*)") && by_analyst.contains("<hidden>"), "{by_analyst}");
    let mut admin = Client::connect(&instance.admin_through_gateway());
    let by_admin = seen(&mut admin);
    assert!(by_admin.matches("a secret of the owner").count() > 1 && by_admin.contains("AggregateExec"), "{by_admin}");
    let by_owner = owner
        .run(&format!("SELECT sql FROM watershed.queries WHERE pid = {}", owner.pid))
        .column()
        .join("\n");
    assert!(by_owner.contains("a secret of the owner"), "{by_owner}");
}

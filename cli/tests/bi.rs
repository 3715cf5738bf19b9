//! What BI tools ask when they connect, browse and draw first charts (`bi/*.sql`), directly and through the gateway: the same
//! bytes, as simple queries and in the extended protocol with results in text and in binary.
//!
//! In the files a blank line ends a statement, `-- lake` before one says that the gateway's answer must come from there, and what
//! stands between `-- together` and `-- apart` goes out as one Query (as well as one by one).

mod support;

use std::fs;
use std::path::Path;

use support::compare::difference;
use support::instance::Instance;
use support::wait_for;
use support::wire::{Client, Format, Reply};

struct Statement {
    sql: String,
    lake: bool,
    /// Several statements in one Query.
    several: bool,
}

fn statements(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut sql = String::new();
    let mut together: Option<String> = None;
    let mut lake = false;
    for line in text.lines() {
        match line.trim_end() {
            "-- lake" => lake = true,
            "-- together" => together = Some(String::new()),
            "-- apart" => {
                let sql = together.take().expect("an end after a beginning");
                statements.push(Statement { sql, lake: false, several: true });
            }
            line if line.starts_with("--") || (line.is_empty() && sql.is_empty()) => {}
            line => {
                sql.push_str(line);
                sql.push('\n');
                if let Some(together) = &mut together {
                    together.push_str(line);
                    together.push('\n');
                }
                if line.ends_with(';') {
                    let sql = std::mem::take(&mut sql);
                    // In a Query of several, what must not happen twice is not repeated alone.
                    if together.is_none() || sql.to_lowercase().starts_with("select") {
                        statements.push(Statement {
                            sql: sql.trim_end_matches([';', '\n']).to_owned(),
                            lake,
                            several: false,
                        });
                    }
                    lake = false;
                }
            }
        }
    }
    assert!(sql.is_empty() && together.is_none(), "an unfinished statement: {sql}");
    statements
}

fn tables(instance: &Instance) {
    let mut owner = Client::connect(&instance.gateway());
    if owner.value("SELECT to_regclass('notes') IS NOT NULL") == "t" {
        return; // an instance that stays, for work on the tests themselves
    }
    let rows = |from: i32, to: i32| {
        include_str!("drivers/rows.sql").replace(":from", &from.to_string()).replace(":to", &to.to_string())
    };
    owner.run(include_str!("drivers/tables.sql"));
    owner.run(&rows(1, 800));
    instance.archive();
    owner.run(&rows(801, 1000));
    owner.run("ANALYZE");
    for table in ["logs", "events"] {
        wait_for(&format!("the gateway to know {table}"), || {
            owner.run(&format!("SELECT count(*) FROM {table}"));
            let mut reader = Client::connect(&instance.admin_through_gateway());
            let sql = format!(
                "SELECT count(*) FROM watershed.queries WHERE pid = {} AND route = 'lake' AND sql LIKE '%{table}%'",
                owner.pid
            );
            (reader.value(&sql) != "0").then_some(())
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Simple,
    Text,
    Binary,
}

fn ask(client: &mut Client, sql: &str, mode: Mode) -> Reply {
    match mode {
        Mode::Simple => client.query(sql),
        Mode::Text => client.pipelined(sql, Format::Text, &[], Format::Text),
        Mode::Binary => client.prepared("bi", sql, Format::Binary, &[], Format::Binary),
    }
}

/// True where a type of a result has no binary form: PostgreSQL itself refuses it.
fn no_binary(reply: &Reply) -> bool {
    reply.error().is_some_and(|e| e[&'M'].starts_with("no binary output function available"))
}

#[track_caller]
fn tool(name: &str) {
    let instance = Instance::shared();
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| tables(instance));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/bi/{name}.sql"));
    let statements = statements(&fs::read_to_string(path).expect("the tool's file"));
    let mut faults = Vec::new();
    let (mut asked, mut expected_lake, mut by_lake) = (0, 0, 0);
    for mode in [Mode::Simple, Mode::Text, Mode::Binary] {
        // A session a mode: these tools keep theirs.
        let (mut direct, mut gateway) =
            (Client::connect(&instance.direct()), Client::connect(&instance.gateway()));
        for statement in &statements {
            if statement.several && !matches!(mode, Mode::Simple) {
                continue;
            }
            let (right, got) =
                (ask(&mut direct, &statement.sql, mode), ask(&mut gateway, &statement.sql, mode));
            asked += 1;
            let state = right.sqlstate();
            let explained = match state.as_str() {
                "00000" => true,
                "0A000" | "42883" => no_binary(&right),
                // The cursor of a Query of several is there only where that was sent.
                "34000" => !matches!(mode, Mode::Simple),
                _ => false,
            };
            if !explained {
                faults.push(format!(
                    "{mode:?}: PostgreSQL itself refuses {}\n{:?}",
                    statement.sql,
                    right.error()
                ));
            }
            let in_order = statement.sql.to_lowercase().contains("order by") || !statement.lake;
            if let Some(difference) = difference(&right, &got, in_order) {
                faults.push(format!("{mode:?}: {}\n    {difference}", statement.sql));
            }
            expected_lake += usize::from(statement.lake);
        }
        let pid = gateway.pid;
        let mut reader = Client::connect(&instance.admin_through_gateway());
        let rows = reader
            .run(&format!(
                "SELECT sql FROM watershed.queries WHERE pid = {pid} AND route = 'lake' AND NOT fell_back"
            ))
            .rows();
        let from_lake: Vec<String> = rows.into_iter().filter_map(|mut row| row.swap_remove(0)).collect();
        by_lake += from_lake.len();
        for statement in statements.iter().filter(|s| s.lake) {
            if !from_lake.iter().any(|sql| sql.trim() == statement.sql.trim()) {
                let reasons = reader
                    .run(&format!("SELECT route, reasons, sql FROM watershed.queries WHERE pid = {pid}"))
                    .rows();
                let row = reasons
                    .iter()
                    .find(|row| row[2].as_deref().is_some_and(|sql| sql.trim() == statement.sql.trim()));
                faults.push(format!(
                    "{mode:?}: not from the lake, {:?}: {}",
                    row.map(|r| &r[..2]),
                    statement.sql
                ));
            }
        }
    }
    println!("{name}: {} statements, asked {asked} times, {by_lake} answers from the lake", statements.len());
    assert!(
        expected_lake > 0 && by_lake >= expected_lake || !faults.is_empty(),
        "{by_lake} answers from the lake, {expected_lake} expected"
    );
    faults.truncate(10);
    assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
}

#[test]
fn dbeaver() {
    tool("dbeaver");
}

#[test]
fn metabase() {
    tool("metabase");
}

#[test]
fn superset() {
    tool("superset");
}

#[test]
fn grafana() {
    tool("grafana");
}

#[test]
fn tableau() {
    tool("tableau");
}

#[test]
fn power_bi() {
    tool("powerbi");
}

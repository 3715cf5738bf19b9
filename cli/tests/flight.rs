//! Arrow Flight SQL, driven by its real clients: ADBC for Python with pandas, Polars and pyarrow, plain `pyarrow.flight`, and the JDBC
//! driver. What they get is compared with what PostgreSQL itself says.
//!
//! `deploy/local/drivers` installs them. What cannot be had is skipped with the reason printed; in CI that fails.

#[allow(dead_code)]
mod corpus;
#[allow(dead_code)]
mod secured;
#[allow(dead_code)]
mod support;

use std::process::{Command, Output};

use secured::Certificates;
use support::drivers::{has, program, wait_until_known};
use support::instance::{Instance, Options, argument, scrub};
use support::wait_for;
use support::wire::Client;

/// Runs a program of `drivers.sh` on an instance; it must say `done`.
#[track_caller]
fn run(instance: &Instance, kind: &str, arguments: &[&str]) -> String {
    let output = outcome(instance, kind, arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.ends_with("done\n"), "{arguments:?}: {}\n{said}\n{wrong}", output.status);
    println!("{said}");
    said
}

fn outcome(instance: &Instance, kind: &str, arguments: &[&str]) -> Output {
    let mut command = program(kind, &instance.gateway(), "flight", arguments);
    for key in ["WATERSHED_FLIGHT_URL", "WATERSHED_POSTGRES_URL"] {
        command.env(key, instance.connection(key));
    }
    command.output().expect("timeout starts")
}

/// The tables of the drivers' tests, in several files and a tail.
fn with_tables(instance: &Instance) {
    let mut owner = Client::connect(&instance.gateway());
    let rows = |from: i32, to: i32| include_str!("drivers/rows.sql").replace(":from", &from.to_string()).replace(":to", &to.to_string());
    owner.run(include_str!("drivers/tables.sql"));
    owner.run(&rows(1, 600));
    owner.run("INSERT INTO heavy SELECT timestamptz '2024-05-01 00:00:00+00', g FROM generate_series(1, 200000) g");
    instance.archive();
    owner.run(&rows(601, 900));
    instance.archive();
    owner.run(&rows(901, 1000));
    wait_until_known(instance, &mut owner, &["samples", "heavy", "logs"]);
}

#[test]
fn real_clients_get_what_postgres_says() {
    let (python, java) = (has("flight"), has("flight-jdbc"));
    if !python && !java {
        return;
    }
    let instance = Instance::start(Options::on_demand());
    with_tables(&instance);
    if python {
        run(&instance, "flight", &["adbc.py"]);
    }
    if java {
        run(&instance, "flight-jdbc", &["WithFlight.java"]);
    }
}

#[test]
fn statements_of_the_corpus_have_the_same_values_and_errors() {
    if !has("flight") {
        return;
    }
    let instance = Instance::start(Options::on_demand());
    let mut owner = Client::connect(&instance.gateway());
    owner.run(include_str!("corpus/schema.sql"));
    let rows = |from: i32, to: i32| include_str!("corpus/rows.sql").replace(":from", &from.to_string()).replace(":to", &to.to_string());
    owner.run(&rows(1, 900));
    instance.archive();
    owner.run(include_str!("corpus/extremes.sql"));
    owner.run(&rows(901, 1700));
    instance.archive();
    owner.run(&rows(1701, 2000));
    wait_until_known(&instance, &mut owner, &["zoo"]);
    let mut lines = String::new();
    let mut count = 0;
    for case in corpus::all().filter(|case| case.parameters.is_empty()) {
        lines.push_str(&serde_json::json!([case.sql, case.ordered]).to_string());
        lines.push('\n');
        count += 1;
    }
    let file = instance.file("statements.json", lines);
    let said = run(&instance, "flight", &["corpus.py", argument(&file)]);
    assert!(said.contains(&format!("{count} statements")) && count > 200, "{said}");
    // It was the lake that was compared.
    let mut reader = Client::connect(&instance.admin_through_gateway());
    let from_lake: i64 =
        reader.value("SELECT count(*) FROM watershed.queries WHERE protocol = 'flight' AND route = 'lake' AND NOT fell_back").parse().expect("a number");
    println!("{count} statements, {from_lake} answered by the lake");
    assert!(from_lake > 100, "{from_lake} of {count} from the lake");
}

/// How fast anything is, this does not judge.
#[test]
fn the_benchmark_fetches_all_rows_each_way() {
    if !has("flight") {
        return;
    }
    let folder = tempfile::Builder::new()
        .prefix("watershed-test-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a temporary directory");
    let mut command = Command::new(support::instance::binary());
    scrub(&mut command);
    command.args(["bench", "flight", "--rows", "20000", "--rounds", "1", "--json", "figures.json", "--python", &python()]);
    let output = command.arg("--dir").arg(folder.path().join("work")).current_dir(folder.path()).output().expect("watershed starts");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // 1: measured, and a goal was not reached.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}\n{complained}");
    let figures = std::fs::read_to_string(folder.path().join("figures.json")).expect("its figures");
    let figures: serde_json::Value = serde_json::from_str(&figures).expect("JSON");
    assert_eq!(figures["measured"]["rows"], 20_000);
    let ways = figures["measured"]["seconds"].as_object().expect("the ways");
    assert_eq!(ways.len(), 9, "{ways:?}");
    assert!(ways.values().all(|runs| runs[0].as_f64() > Some(0.0)), "{ways:?}");
    assert!(!folder.path().join("work").exists(), "the benchmark's folder was left behind");
}

/// Where the Python of `drivers.sh` is.
fn python() -> String {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/drivers/drivers.sh");
    let output = Command::new(script).args(["flight", "-c", "import sys; print(sys.executable)"]).output().expect("bash starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("a path of UTF-8").trim().to_owned()
}

/// Drivers send them in base64, padded or not; for SCRAM they count as SASLprep has them.
#[test]
fn passwords_of_every_length_and_spelling_log_in() {
    if !has("flight") {
        return;
    }
    let instance = Instance::start(Options::on_demand());
    let mut admin = Client::connect(&instance.admin());
    let passwords = ["secret", "secret1", "secret12", "e\u{301}", "x\u{ad}", "x\u{a0}y", "\u{ad}", "\u{627}a"];
    for (n, password) in passwords.iter().enumerate() {
        admin.run(&format!("CREATE ROLE flown_{n} LOGIN PASSWORD '{password}'"));
    }
    let program = format!(
        "from doors import *\nfor n, password in enumerate({}):\n\
         \x20   with flight(user=f'flown_{{n}}', password=password) as f:\n\
         \x20       assert rows(f, 'SELECT current_user') == [(f'flown_{{n}}',)], password\n\
         \x20   fails(lambda: flight(user=f'flown_{{n}}', password=password + '.'), '28P01')\nprint('done')",
        serde_json::json!(passwords)
    );
    run(&instance, "flight", &["-c", &program]);
}

#[test]
fn sessions_end_when_idle_and_when_old() {
    if !has("flight") {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    for (settings, pause) in [("flight_idle = \"6s\"", 9), ("flight_idle = \"1m\"\nflight_lifetime = \"8s\"", 11)] {
        let file = home.path().join("settings.toml");
        std::fs::write(&file, format!("[gateway]\n{settings}\n[ingest.pressure]\nmin_free = \"64MiB\"\nmin_free_percent = 0.1\n")).expect("a file");
        let instance = Instance::start(Options::on_demand().with("WATERSHED_CONFIG", file.to_str().expect("a path of UTF-8")));
        let program = format!(
            "import time\nfrom doors import *\nplain, options = client()\nplain.get_flight_info(statement('SELECT 1'), options)\ntime.sleep({pause})\n\
             fails(lambda: plain.get_flight_info(statement('SELECT 1'), options), '28000')\nprint('done')"
        );
        run(&instance, "flight", &["-c", &program]);
        // PostgreSQL has its connection back.
        let mut admin = Client::connect(&instance.admin());
        wait_for("the session to be gone", || {
            let left = admin.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'Arrow Flight SQL'");
            (left == "0").then_some(())
        });
    }
}

#[test]
fn tls_is_with_the_gateways_certificate() {
    if !has("flight") {
        return;
    }
    let certificates = Certificates::new();
    certificates.authority("authority");
    certificates.authority("stranger");
    certificates.server("server", "authority", "ec -pkeyopt ec_paramgen_curve:P-256");
    let settings = format!(
        "[gateway.tls]\ncert = \"{}\"\nkey = \"{}\"\n[ingest.pressure]\nmin_free = \"64MiB\"\nmin_free_percent = 0.1\n",
        certificates.text("server.crt"),
        certificates.text("server.key")
    );
    std::fs::write(certificates.path("settings.toml"), settings).expect("settings");
    let instance = Instance::start(Options::on_demand().with("WATERSHED_CONFIG", &certificates.text("settings.toml")));
    let program = format!(
        "import pyarrow.flight\nfrom doors import *\nassert URL.startswith('grpc+tls://'), URL\n\
         roots = open('{}').read()\n\
         assert rows(flight(**{{'adbc.flight.sql.client_option.tls_root_certs': roots}}), 'SELECT 1') == [(1,)]\n\
         other = pyarrow.flight.FlightClient(URL, tls_root_certs=open('{}').read())\n\
         try:\n    other.authenticate_basic_token(USER, PASSWORD)\n    raise SystemExit('a stranger is believed')\n\
         except (pyarrow.flight.FlightUnavailableError, pyarrow.flight.FlightInternalError):\n    print('done')",
        certificates.text("authority.crt"),
        certificates.text("stranger.crt")
    );
    run(&instance, "flight", &["-c", &program]);
}

#[test]
fn an_address_that_others_reach_needs_tls() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(support::instance::binary());
    scrub(&mut command);
    command.args(["up", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--flight", "0.0.0.0:0", "--data-dir"]);
    command.arg(folder.path().join("data")).current_dir(folder.path());
    let output = command.output().expect("up starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--flight") && said.contains("TLS"), "{said}");
}

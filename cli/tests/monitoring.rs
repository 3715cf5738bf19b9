//! What `/metrics`, `/healthz` and `/readyz` say of a running product, and whether the rules and dashboards in `deploy/` fit it:
//! promtool checks the rules, each metric and each SQL statement that they name is asked of the real thing.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::instance::{Instance, Options, shown};
use support::wait_for;
use support::wire::Client;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(deploy("prometheus/promtool.sh"))
        .args(arguments)
        .current_dir(deploy("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "promtool {arguments:?}: {}", shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Status and body of a GET.
fn get(instance: &Instance, path: &str) -> (u16, String) {
    ask(instance, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

fn ask(instance: &Instance, request: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", instance.http_port())).expect("the HTTP door is open");
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers in text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    // Chunked where the length was not known.
    let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
        true => unchunked(body),
        false => body.to_owned(),
    };
    (status, body)
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).expect("a chunk's length");
        if length == 0 {
            break;
        }
        out.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    out
}

/// The value of a series, as it is printed.
fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn the_rules_are_rules_and_do_what_they_should() {
    promtool(&["check", "config", "prometheus.yml"], "");
    promtool(&["check", "rules", "recording.rules.yml", "alerts.rules.yml"], "");
    promtool(&["test", "rules", "alerts.test.yml"], "");
}

/// Names that begin like a metric of ours, without what a histogram adds.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let bytes = text.as_bytes();
    let part = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
    let mut at = 0;
    while at < bytes.len() {
        if !part(bytes[at]) {
            at += 1;
            continue;
        }
        let end = (at..bytes.len()).find(|n| !part(bytes[*n])).unwrap_or(bytes.len());
        let word = &text[at..end];
        if (word.starts_with("watershed_") || word.starts_with("process_")) && !word.contains(':') {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s)).unwrap_or(word);
            names.insert(base.to_owned());
        }
        at = end;
    }
    names
}

/// Every string of a JSON value under one of these keys.
fn strings<'a>(json: &'a serde_json::Value, key: &str, out: &mut Vec<&'a str>) {
    match json {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                match value {
                    serde_json::Value::String(text) if name == key => out.push(text),
                    other => strings(other, key, out),
                }
            }
        }
        serde_json::Value::Array(all) => all.iter().for_each(|one| strings(one, key, out)),
        _ => {}
    }
}

fn dashboards() -> Vec<serde_json::Value> {
    let files = fs::read_dir(deploy("grafana")).expect("the folder of dashboards").map(|f| f.expect("a file").path());
    let json = files.filter(|f| f.extension().is_some_and(|e| e == "json"));
    json.map(|f| serde_json::from_str(&fs::read_to_string(&f).expect("text")).unwrap_or_else(|e| panic!("{}: {e}", f.display()))).collect()
}

/// One product with some of everything, and what can be asked of it from outside.
#[test]
fn what_rules_and_dashboards_name_is_there() {
    let instance = Instance::start(Options::busy());
    let mut client = Client::connect(&instance.gateway());
    client.run("INSERT INTO logs (ts, level, message) SELECT now() - i * interval '1 second', (ARRAY['INFO','WARN','ERROR'])[1 + i % 3], 'line ' || i FROM generate_series(1, 3000) i");
    let body = "{\"ts\": \"2025-01-31T12:00:00Z\", \"level\": \"ERROR\", \"message\": \"disk full\"}\nno record\n";
    let post = format!("POST /v1/ingest/logs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (status, answer) = ask(&instance, &post);
    assert_eq!(status, 200, "{answer}");
    client.run("SELECT watershed.set_retention('public.logs', hot_days => 3650)");
    wait_for("rows in the lake", || {
        (client.value("SELECT count(*) FROM watershed.files WHERE table_name = 'logs'") != "0").then_some(())
    });
    client.run("/* watershed: lake */ SELECT level, count(*) FROM logs GROUP BY level");
    client.run("/* watershed: postgres */ SELECT level, count(*) FROM logs GROUP BY level");
    let secret = "SELECT 'very secret', 1 / 0";
    assert_eq!(client.query(secret).sqlstate(), "22012");
    let page = wait_for("a round of everything", || {
        // Another small file of one day each time, until the compactor finds it worth a job.
        client.run("INSERT INTO logs (ts, level, message) VALUES (date_trunc('day', now()) - interval '20 days', 'INFO', 'once more')");
        let page = get(&instance, "/metrics").1;
        let there = ["watershed_postgres_table_bytes{", "watershed_compactor_jobs_total{", "watershed_boundary_age_seconds{"];
        there.iter().all(|name| page.contains(name)).then_some(page)
    });

    // Prometheus' own opinion of the names.
    let opinion = promtool(&["check", "metrics"], &page);
    let ours: Vec<&str> = opinion.lines().filter(|l| l.starts_with("watershed_")).collect();
    assert!(ours.is_empty(), "{ours:#?}");

    // The statements above, by route and result and in every stage.
    for series in [
        "watershed_statements_total{result=\"ok\",route=\"lake\"}",
        "watershed_statements_total{result=\"ok\",route=\"postgres\"}",
        "watershed_statements_total{result=\"ok\",route=\"virtual\"}",
        "watershed_statements_total{result=\"error\",route=\"postgres\"}",
        "watershed_statement_seconds_count{route=\"lake\",stage=\"classify\"}",
        "watershed_statement_seconds_count{route=\"lake\",stage=\"probe\"}",
        "watershed_statement_seconds_count{route=\"lake\",stage=\"plan\"}",
        "watershed_statement_seconds_count{route=\"lake\",stage=\"tail\"}",
        "watershed_statement_seconds_count{route=\"lake\",stage=\"first_row\"}",
        "watershed_statement_seconds_count{route=\"lake\",stage=\"total\"}",
        "watershed_errors_total{class=\"22\"}",
        "watershed_to_postgres_total{reason=\"other_statement\"}",
        "watershed_to_postgres_total{reason=\"asked\"}",
        "watershed_lake_row_groups_read_total",
        "watershed_lake_files_read_total",
        "watershed_lake_scanned_bytes_total",
        "watershed_sessions",
        "watershed_sessions_limit",
        "watershed_relay_bytes_total{from=\"client\"}",
        "watershed_relay_bytes_total{from=\"postgres\"}",
        "watershed_connections_total{result=\"session\"}",
        "watershed_ingest_rows_total{source=\"http\",table=\"public.logs\"}",
        "watershed_ingest_rejected_total{source=\"http\",stage=\"decode\",table=\"public.logs\"}",
        "watershed_archiver_jobs_total{result=\"done\",table=\"public.logs\"}",
        "watershed_postgres_database_bytes",
        "watershed_postgres_up",
        "watershed_lake_memory_limit_bytes",
    ] {
        assert!(value(&page, series).is_some_and(|v| v > 0.0), "{series} is not counted:\n{page}");
    }
    // Bounded, and without what clients say.
    let series = page.lines().filter(|l| !l.starts_with('#')).count();
    assert!(series < 2500, "{series} series");
    assert!(!page.contains("secret") && !page.contains("watershed: lake"), "statements are no labels");

    // Everything that is asked for exists: on this page, or (of brokers and floors, which are not here) as the source names it.
    let mut there: BTreeSet<String> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect();
    for source in ["ingest/src/kafka/status.rs", "ingest/src/retention/mod.rs"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(source)).expect("the source");
        there.extend(named(&text));
    }
    let mut wanted: BTreeMap<String, &str> = BTreeMap::new();
    for file in ["recording.rules.yml", "alerts.rules.yml"] {
        let text = fs::read_to_string(deploy("prometheus").join(file)).expect("the rules");
        wanted.extend(named(&text).into_iter().map(|name| (name, file)));
    }
    let page_of_names = fs::read_to_string(deploy("../docs/metrics.md")).expect("the page");
    // What appears with its first event, and with a store that has a cache.
    let later = ["watershed_traces_sent_total", "watershed_traces_dropped_total", "watershed_log_suppressed_total"];
    let stores = ["watershed_lake_cache_", "watershed_lake_read_failures_total"];
    let documented = named(&page_of_names).into_iter().filter(|name| !later.contains(&name.as_str()) && !stores.iter().any(|s| name.starts_with(s)));
    wanted.extend(documented.map(|name| (name, "docs/metrics.md")));
    let boards = dashboards();
    assert_eq!(boards.len(), 2);
    let mut statements = Vec::new();
    for board in &boards {
        let mut expressions = Vec::new();
        strings(board, "expr", &mut expressions);
        assert!(expressions.len() > 10);
        for expression in expressions {
            wanted.extend(named(expression).into_iter().map(|name| (name, "a dashboard")));
            let parsed = expression.replace("[$__rate_interval]", "[5m]");
            let rules = format!("groups: [{{name: x, rules: [{{record: 'x:y', expr: {}}}]}}]", serde_json::to_string(&parsed).expect("text"));
            let file = instance.file("expression.yml", rules);
            promtool(&["check", "rules", file.to_str().expect("a path")], "");
        }
        strings(board, "rawSql", &mut statements);
    }
    let missing: Vec<_> = wanted.iter().filter(|(name, _)| !there.contains(*name)).collect();
    assert!(missing.is_empty(), "nobody counts {missing:?}; there is {there:#?}");
    assert!(statements.len() > 5);
    for statement in statements {
        let asked = statement.replace("$__timeFilter(started_at)", "started_at BETWEEN now() - interval '1 hour' AND now()");
        assert!(!asked.contains("$__"), "{asked}");
        client.run(&asked);
    }
}

/// The words behind `/healthz` and `/readyz`, as things go wrong and come right.
#[test]
fn what_is_wrong_is_said_in_words() {
    let instance = Instance::start(Options::on_demand().with("WATERSHED_LOG_FORMAT", "json"));
    assert_eq!(get(&instance, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(&instance, "/readyz"), (200, "ready\n".to_owned()));
    // At / Elasticsearch's clients find what they look for, and browsers the page.
    assert!(get(&instance, "/").1.contains("cluster_name"), "{:?}", get(&instance, "/"));
    let browser = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*;q=0.8\r\nConnection: close\r\n\r\n";
    assert!(ask(&instance, browser).1.contains("<title>Watershed</title>"));

    // A restart with other limits: a writer of one second is long, and PostgreSQL is asked often.
    instance.terminate();
    let settings = "[ingest.pressure]\nmin_free = \"64MiB\"\nmin_free_percent = 0.1\n[telemetry]\nvitals = \"200ms\"\nlong_writer = \"1s\"\n";
    instance.launch(&[("WATERSHED_CONFIG", instance.file("vitals.toml", settings).to_str().expect("a path"))]);
    instance.wait_until_ready();
    let mut writer = Client::connect(&instance.gateway());
    writer.run("BEGIN");
    writer.run("INSERT INTO logs (ts, message) VALUES (now(), 'kept open')");
    let told = wait_for("a long writer", || Some(get(&instance, "/healthz").1).filter(|body| body.contains("long_writer")));
    assert!(told.starts_with("ok\nlong_writer: a transaction has been writing for "), "{told}");
    assert!(get(&instance, "/readyz").1.contains("long_writer"));
    assert_eq!(value(&get(&instance, "/metrics").1, "watershed_problem{problem=\"long_writer\"}"), Some(1.0));
    writer.run("COMMIT");
    wait_for("no writer", || (get(&instance, "/healthz").1 == "ok\n").then_some(()));

    // The table says that it was archived on another server.
    let mut admin = Client::connect(&instance.admin());
    admin.run("UPDATE watershed_control.tables SET lineage = 'another/1' WHERE table_name = 'logs'");
    let told = wait_for("another lineage", || Some(get(&instance, "/readyz").1).filter(|body| body.contains("lineage")));
    assert!(told.contains("public.logs") && told.contains("watershed rebase"), "{told}");
    // Each event is one line of JSON.
    let log = instance.log();
    let events: Vec<serde_json::Value> = log.lines().filter(|l| l.starts_with('{')).map(|l| serde_json::from_str(l).expect(l)).collect();
    assert!(events.iter().any(|e| e["problem"] == "lineage" && e["level"] == "WARN"), "{log}");
}

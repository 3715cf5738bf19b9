//! Loads against a real PostgreSQL: each content once, whatever happens in between.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Database, sample};
use ingest::Error;
use ingest::generate::Spec;
use ingest::load::{LoadSummary, Options, exit_code, run, run_generated};
use tokio_util::sync::CancellationToken;

fn options(db: &Database, table: &str, files: &[&Path]) -> Options {
    Options {
        database_url: db.url(),
        table: table.into(),
        files: files.iter().map(|f| f.to_path_buf()).collect(),
        batch_rows: 1000,
        ..Options::default()
    }
}

async fn load(options: Options) -> LoadSummary {
    run(options, CancellationToken::new()).await.unwrap().pop().unwrap()
}

fn counts(s: &LoadSummary) -> (u64, u64, u64) {
    (s.loaded, s.already_present, s.rejected)
}

fn lines(path: &Path) -> u64 {
    std::fs::read(path).unwrap().split(|b| *b == b'\n').filter(|l| !l.is_empty()).count() as u64
}

fn write(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, text).unwrap();
    path.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_logs_load_once() {
    let db = Database::new().await;
    let dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for (name, format) in
        [("apache_combined.log", "combined"), ("auth.log", "syslog"), ("nginxplus_status.ndjson", "ndjson")]
    {
        let path = sample(dir.path(), name);
        let n = lines(&path);
        let s = load(options(&db, "logs", &[&path])).await;
        assert_eq!(
            (counts(&s), s.format.as_str(), s.table.as_str()),
            ((n, 0, 0), format, "public.logs"),
            "{name}"
        );
        assert_eq!(exit_code(&[s]), 0);
        total += n;
        // The same again; under another name; packed.
        let bytes = std::fs::read(&path).unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, &bytes).unwrap();
        let gz = dir.path().join("other.gz");
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(&bytes).unwrap();
        std::fs::write(&gz, e.finish().unwrap()).unwrap();
        let zst = dir.path().join("other.zst");
        std::fs::write(&zst, zstd::encode_all(&bytes[..], 3).unwrap()).unwrap();
        for again in [&path, &other, &gz, &zst] {
            assert_eq!(
                counts(&load(options(&db, "public.logs", &[again])).await),
                (0, n, 0),
                "{}",
                again.display()
            );
        }
    }
    assert_eq!(db.count("SELECT count(*) FROM logs").await, total as i64);
    assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters").await, 0);
    // Every row has its own number in the table's loads stream, without gaps, and the stream stands after them.
    let stream =
        "(SELECT id FROM watershed_control.streams WHERE kind = 'loads' AND relid = 'logs'::regclass)";
    assert_eq!(
        db.count(&format!("SELECT count(DISTINCT _offset) FROM logs WHERE _stream = {stream}")).await,
        total as i64
    );
    assert_eq!(db.count("SELECT max(_offset) + 1 FROM logs").await, total as i64);
    assert_eq!(
        db.count(&format!("SELECT next_offset FROM watershed_control.positions WHERE stream = {stream}"))
            .await,
        total as i64
    );
    // Nested documents keep every digit, and their time is their own.
    assert_eq!(
        db.count(
            "SELECT count(*) FROM logs WHERE metadata ? 'connections' AND ts = '2015-10-30 23:58:19.322+00'"
        )
        .await,
        1
    );
    assert_eq!(
        db.count(
            "SELECT count(*) FROM logs WHERE service = 'sshd' AND metadata ? 'pid' AND level IS NOT NULL"
        )
        .await
            > 1000,
        true
    );
    assert_eq!(
        db.count("SELECT count(*) FROM logs WHERE (metadata->>'status')::int >= 500 AND level <> 'ERROR'")
            .await,
        0
    );
    assert_eq!(db.count("SELECT count(*) FROM logs WHERE ingested_at IS NULL").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grown_file_loads_what_is_new() {
    let db = Database::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.ndjson");
    let line = |i: u32| format!("{{\"ts\":{i},\"message\":\"m{i}\"}}\n");
    let mut text: String = (0..10).map(line).collect();
    write(&path, &text);
    assert_eq!(counts(&load(options(&db, "logs", &[&path])).await), (10, 0, 0));
    text += &line(10);
    write(&path, &text);
    assert_eq!(counts(&load(options(&db, "logs", &[&path])).await), (1, 10, 0));
    // A last line without an end is loaded; its end alone adds nothing.
    text += line(11).trim_end();
    write(&path, &text);
    assert_eq!(counts(&load(options(&db, "logs", &[&path])).await), (1, 11, 0));
    text += "\n";
    write(&path, &text);
    assert_eq!(counts(&load(options(&db, "logs", &[&path])).await), (0, 12, 0));
    // Half a record is rejected, and loaded when it is whole.
    let half = text.clone() + "{\"ts\":12,";
    write(&path, &half);
    assert_eq!(counts(&load(options(&db, "logs", &[&path])).await), (0, 12, 1));
    assert_eq!(counts(&load(options(&db, "logs", &[&path])).await), (0, 12, 0));
    text += &line(12);
    text += &line(13);
    write(&path, &text);
    assert_eq!(counts(&load(options(&db, "logs", &[&path])).await), (2, 12, 0));
    // What was loaded as a whole record and then goes on is refused, with the reason; nothing counts twice.
    let plain = dir.path().join("auth.log");
    write(&plain, "Apr  1 00:00:00 h x: one\nApr  1 00:00:01 h x: tw");
    let o = || Options { year: Some(2020), ..options(&db, "logs", &[&plain]) };
    assert_eq!(counts(&load(o()).await), (2, 0, 0));
    write(&plain, "Apr  1 00:00:00 h x: one\nApr  1 00:00:01 h x: two\nApr  1 00:00:02 h x: three\n");
    assert_eq!(counts(&load(o()).await), (1, 2, 1));
    assert_eq!(counts(&load(o()).await), (0, 3, 0));
    // An old copy of it is still known.
    write(&path, &(0..10).map(line).collect::<String>());
    assert_eq!(counts(&load(options(&db, "logs", &[&path])).await), (0, 10, 0));
    let messages = db.texts("SELECT message FROM logs WHERE host IS NULL ORDER BY _offset").await;
    assert_eq!(messages, (0..14).map(|i| format!("m{i}")).collect::<Vec<_>>());
    let letters = db.texts("SELECT position || ': ' || reason FROM watershed.dead_letters ORDER BY id").await;
    assert_eq!(letters.len(), 2);
    assert!(letters[0].starts_with("line 13: EOF while parsing"), "{letters:?}");
    assert!(letters[1].starts_with("line 2: its first part was loaded"), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_cost_only_themselves() {
    let db = Database::new().await;
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{{\"ts\":1,\"message\":\"{}\"}}", "x".repeat(5000));
    // Each with the reason that must be given; those of PostgreSQL's own come by bisection.
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (b"{\"ts\":1,\"message\":\"a\\u0000b\"}".to_vec(), "NUL"),
        (b"{\"ts\":1,\"message\":\"\xff\xfe\"}".to_vec(), "invalid UTF-8"),
        (long.into_bytes(), "more than the bound"),
        (b"{\"message\":\"no time\"}".to_vec(), "no event time"),
        (b"{\"ts\":\"infinity\"}".to_vec(), "finite"),
        (b"{\"ts\":1e400}".to_vec(), "out of range"),
        (b"{\"ts\":1,\"n\":1e200000}".to_vec(), "numeric"),
        (b"not json".to_vec(), "expected"),
        (b"{\"ts\":1,\"message\":\"forbidden\"}".to_vec(), "23514"),
        (
            b"{\"ts\":1,\"deep\":"
                .iter()
                .copied()
                .chain([b'['; 900])
                .chain([b']'; 900])
                .chain(*b"}")
                .collect(),
            "",
        ),
    ];
    db.run("CREATE TABLE strict (ts timestamptz NOT NULL, message text CHECK (message <> 'forbidden'), small int2, metadata jsonb)").await;
    db.run("SELECT watershed.attach_table('strict', event_time => 'ts', overflow => 'metadata')").await;
    let mut file = Vec::new();
    for i in 0..500u32 {
        if let Some((b, _)) = (i % 50 == 7).then(|| &bad[i as usize / 50]) {
            file.extend_from_slice(b);
            file.push(b'\n');
        }
        file.extend_from_slice(
            format!("{{\"ts\":{i},\"message\":\"m{i}\",\"small\":{}}}\n", i % 100).as_bytes(),
        );
    }
    file.extend_from_slice(b"{\"ts\":1,\"small\":40000}\n");
    let path = dir.path().join("mixed.ndjson");
    std::fs::write(&path, &file).unwrap();
    for batch_rows in [10_000, 7] {
        let o = Options { batch_rows, max_record_bytes: 4000, ..options(&db, "strict", &[&path]) };
        let s = load(o.clone()).await;
        // The deeply nested one is fine for PostgreSQL's stack.
        assert_eq!(counts(&s), (501, 0, 10), "{batch_rows}");
        assert_eq!(exit_code(&[s]), 2);
        assert_eq!(counts(&load(o).await), (0, 501, 0));
        let letters = db.texts("SELECT stage || '|' || position || '|' || source || '|' || reason FROM watershed.dead_letters ORDER BY id").await;
        assert_eq!(letters.len(), 10);
        for (i, (_, why)) in bad.iter().enumerate().take(9) {
            let line = format!("|line {}|", 8 + i * 51);
            assert!(
                letters.iter().any(|l| l.contains(why) && l.contains(&line)),
                "{why} {line}: {letters:#?}"
            );
        }
        assert!(
            letters.iter().any(|l| l.contains("\"40000\" is out of range") && l.contains("mixed.ndjson"))
        );
        assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters WHERE raw = '\\x7b227473223a312c226d657373616765223a22fffe227d'").await, 1);
        assert_eq!(db.count("SELECT count(*) FROM strict").await, 501);
        // In order, and each number once.
        let order = db.texts("SELECT message FROM strict WHERE message IS NOT NULL ORDER BY _offset").await;
        assert_eq!(order, (0..500).map(|i| format!("m{i}")).collect::<Vec<_>>());
        db.run("SELECT watershed.drop_table('strict')").await;
        db.run("DELETE FROM watershed.dead_letters; \
                CREATE TABLE strict (ts timestamptz NOT NULL, message text CHECK (message <> 'forbidden'), small int2, metadata jsonb)").await;
        db.run("SELECT watershed.attach_table('strict', event_time => 'ts', overflow => 'metadata')").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_with_every_type() {
    let db = Database::new().await;
    let dir = tempfile::tempdir().unwrap();
    db.run("CREATE TABLE wide (at timestamptz NOT NULL, b bool, i int4, n numeric(12,3), f float8, d date, u uuid, t text, v varchar(5), \
            \"Mixed Case\" text, y bytea, rest jsonb, made timestamptz DEFAULT now())").await;
    db.run("SELECT watershed.attach_table('wide', event_time => 'at', overflow => 'rest')").await;
    let path = write(
        &dir.path().join("wide.csv"),
        "time;b;I;n;f;d;u;t;v;Mixed Case;y;other\r\n\
         2024-01-01T00:00:00Z;yes;-5;1.2345;NaN;2024-02-29;A0EEBC999C0B4EF8BB6D6BB9BD380A11;\"a;\"\"b\"\"\nc\t\\\";;x;\\x00ff;o\r\n\
         1704067200000;f;;;;;;\"\";abc;;;\r\n\
         2024-01-01;f;;;;;;;toolong;;;\r\n\
         2024-01-01;f;x;;;;;;;;;\r\n",
    );
    let s = load(options(&db, "wide", &[&path])).await;
    assert_eq!((counts(&s), s.format.as_str()), ((2, 0, 2), "csv"));
    assert_eq!(
        db.texts(
            "SELECT row(at, b, i, n, f, d, u, t, v, \"Mixed Case\", y, rest)::text FROM wide ORDER BY _offset"
        )
        .await
        .iter()
        .map(|s| s.replace("+00", ""))
        .collect::<Vec<_>>(),
        [
            "(\"2024-01-01 00:00:00\",t,-5,1.235,NaN,2024-02-29,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,\"a;\"\"b\"\"\nc\t\\\\\",,x,\"\\\\x00ff\",\"{\"\"other\"\": \"\"o\"\"}\")",
            "(\"2024-01-01 00:00:00\",f,,,,,,\"\",abc,,,\"{\"\"other\"\": null}\")",
        ]
    );
    let letters = db
        .texts("SELECT position || ' ' || stage || ' ' || reason FROM watershed.dead_letters ORDER BY id")
        .await;
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().any(|l| l.starts_with("line 5 postgres value too long")), "{letters:?}");
    assert!(letters.iter().any(|l| l.starts_with("line 6 map column i: \"x\" is no integer")), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loads_of_one_content_load_it_once() {
    let db = Database::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = sample(dir.path(), "apache_combined.log");
    let n = lines(&path);
    let o = Options { batch_rows: 100, ..options(&db, "logs", &[&path]) };
    let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(load(o.clone()))).collect();
    let mut all = Vec::new();
    for t in tasks {
        all.push(t.await.unwrap());
    }
    assert_eq!(all.iter().map(|s| s.loaded).sum::<u64>(), n);
    assert!(all.iter().all(|s| s.loaded + s.already_present == n), "{all:?}");
    assert_eq!(db.count("SELECT count(*) FROM logs").await, n as i64);
    // A content and a longer one that begins with it, at the same time.
    let grown = dir.path().join("grown");
    let mut bytes = b"1.1.1.1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1\n".to_vec();
    bytes.extend(std::fs::read(&path).unwrap());
    let short = dir.path().join("short");
    std::fs::write(&short, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(&grown, &bytes).unwrap();
    let a = tokio::spawn(load(Options { files: vec![short], ..o.clone() }));
    // Only what is registered can be continued: two contents that begin alike are otherwise two contents.
    while db.count("SELECT count(*) FROM watershed_control.loads").await < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let b = tokio::spawn(load(Options { files: vec![grown], ..o.clone() }));
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    let rows = db.count("SELECT count(*) FROM logs").await as u64 - n;
    // The line in the middle that `short` cuts is whole in `grown`: at most one record more or less.
    assert!(rows.abs_diff(n + 1) <= 1 && a.loaded + b.loaded == rows, "{rows} {a:?} {b:?}");
    assert_eq!(db.count("SELECT count(*) - count(DISTINCT _offset) FROM logs").await, 0);
}

/// Runs in a child process that dies at a crash point.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_dies() {
    let Ok(url) = std::env::var("INGEST_TEST_URL") else { return };
    let files = vec![PathBuf::from(std::env::var("INGEST_TEST_FILE").unwrap())];
    let o = Options {
        database_url: url,
        table: "logs".into(),
        files,
        batch_rows: 300,
        year: Some(2023),
        ..Options::default()
    };
    run(o, CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_it_continues() {
    let db = Database::new().await;
    let dir = tempfile::tempdir().unwrap();
    // Over New Year's Eve, with a bad record here and there.
    let text: String = (0..2000u32)
        .map(|i| match i % 97 {
            5 => format!("what is this {i}\n"),
            _ => format!(
                "{} {:>2} {:02}:{:02}:00 h app[{i}]: m{i}\n",
                if i < 1000 { "Dec" } else { "Jan" },
                if i < 1000 { 31 } else { 1 },
                i % 1000 / 60,
                i % 60
            ),
        })
        .collect();
    let path = write(&dir.path().join("app.log"), &text);
    let good: Vec<String> = (0..2000).filter(|i| i % 97 != 5).map(|i| format!("m{i}")).collect();
    let mut deaths = 0;
    for point in
        ["load.position", "load.copied", "load.before_commit", "load.committed"].iter().cycle().take(12)
    {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_dies", "--test-threads=1"])
            .env("INGEST_TEST_URL", db.url())
            .env("INGEST_TEST_FILE", &path)
            .env("WATERSHED_CRASH_AT", point)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        if !status.success() {
            deaths += 1;
        }
        let done = db.count("SELECT rows_done FROM watershed_control.loads").await;
        let rows = db.count("SELECT count(*) FROM logs").await
            + db.count("SELECT count(*) FROM watershed.dead_letters").await;
        assert_eq!(done, rows, "after {point}");
    }
    // Only the fourth point lets a batch of 300 through: three of them in twelve deaths.
    assert_eq!(deaths, 12);
    let o = Options { batch_rows: 300, year: Some(2023), ..options(&db, "logs", &[&path]) };
    let s = load(o).await;
    assert_eq!(s.loaded + s.already_present, good.len() as u64);
    assert!(s.already_present > 800 && s.loaded > 800);
    assert_eq!(db.texts("SELECT message FROM logs ORDER BY _offset").await, good);
    assert_eq!(db.count("SELECT count(*) FROM watershed.dead_letters").await, 2000 - good.len() as i64);
    assert_eq!(
        db.count("SELECT count(*) FROM logs WHERE ts >= '2024-01-01' AND ts < '2024-01-02'").await,
        (1000..2000).filter(|i| i % 97 != 5).count() as i64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_killed_while_loading() {
    let db = Database::new().await;
    let o = Options { batch_rows: 2000, ..options(&db, "logs", &[]) };
    let spec = Spec::logs(60_000);
    let task = tokio::spawn(run_generated(o, spec, CancellationToken::new()));
    let mut admin = db.admin().await;
    let mut killed = 0i64;
    let mut seen = 0;
    while !task.is_finished() {
        // A batch gets through between two kills, however slow the machine is: the load gives up only where none does.
        let done = db.count("SELECT coalesce(max(rows_done), 0) FROM watershed_control.loads").await;
        if done <= seen {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        seen = done;
        killed += sqlx::query_scalar::<_, i64>(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'watershed_ingest' AND datname = current_database()",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
    }
    let s = task.await.unwrap().unwrap();
    assert!(killed > 0);
    assert_eq!((s.loaded, s.rejected), (60_000, 0));
    assert_eq!(db.count("SELECT count(DISTINCT _offset) FROM logs").await, 60_000);
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 60_000);
    assert_eq!(db.count("SELECT rows_done FROM watershed_control.loads WHERE finished").await, 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_rows_load_once() {
    let db = Database::new().await;
    for (table, spec) in [("logs", Spec::logs(3000)), ("events", Spec::events(2000))] {
        let n = spec.rows;
        let o = || options(&db, table, &[]);
        let s = run_generated(o(), spec.clone(), CancellationToken::new()).await.unwrap();
        assert_eq!((counts(&s), s.source.as_str()), ((n, 0, 0), "generated"));
        // Later, on the same database: other days, the same rows.
        let later = Spec { end: spec.end + 86_400_000_000, ..spec.clone() };
        let s = run_generated(o(), later, CancellationToken::new()).await.unwrap();
        assert_eq!(counts(&s), (0, n, 0));
        let s = run_generated(o(), Spec { seed: 2, ..spec }, CancellationToken::new()).await.unwrap();
        assert_eq!(counts(&s), (n, 0, 0));
    }
    assert_eq!(db.count("SELECT count(DISTINCT service) FROM logs").await, 15);
    assert_eq!(db.count("SELECT count(DISTINCT event_id) FROM events WHERE device ? 'browser'").await, 4000);
    // The same rows through NDJSON are the same rows.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.ndjson");
    let spec = Spec::logs(3000);
    ingest::generate::write_all(&spec, None, std::fs::File::create(&path).unwrap()).unwrap();
    db.run("CREATE TABLE copy (LIKE logs)").await;
    db.run("ALTER TABLE copy DROP COLUMN _xid, DROP COLUMN _stream, DROP COLUMN _offset").await;
    db.run("SELECT watershed.attach_table('copy', event_time => 'ts', overflow => 'metadata')").await;
    assert_eq!(counts(&load(options(&db, "copy", &[&path])).await), (3000, 0, 0));
    let same = "SELECT count(*) FROM copy c JOIN logs l USING (level, service, host, message, metadata)";
    assert!(db.count(same).await >= 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_progress_is_fenced() {
    let db = Database::new().await;
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..3000).map(|i| format!("{{\"ts\":{i}}}\n")).collect();
    let path = write(&dir.path().join("a.ndjson"), &text);
    // A zombie elsewhere moved the entry on in the middle: a trigger stands in for it.
    db.run("CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
              IF NEW.rows_done = 1000 THEN NEW.rows_done := 1500; END IF; RETURN NEW; END $$; \
            CREATE TRIGGER meddle BEFORE UPDATE ON watershed_control.loads FOR EACH ROW EXECUTE FUNCTION meddle()").await;
    let e = run(options(&db, "logs", &[&path]), CancellationToken::new()).await.unwrap_err();
    assert!(matches!(e, Error::Fenced(_)), "{e}");
    assert_eq!(db.count("SELECT count(*) FROM logs").await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_errors() {
    let db = Database::new().await;
    let dir = tempfile::tempdir().unwrap();
    let odd = write(&dir.path().join("odd.txt"), "nobody knows\nwhat this is\n");
    let empty = write(&dir.path().join("empty"), "");
    let good = write(&dir.path().join("good.ndjson"), "{\"ts\":1}\n");
    let fails = async |table: &str, file: &Path| {
        run(options(&db, table, &[file]), CancellationToken::new()).await.unwrap_err()
    };
    assert!(matches!(fails("nothere", &good).await, Error::UnknownTable(_)));
    assert!(matches!(fails("pg_class", &good).await, Error::UnknownTable(_)));
    assert!(matches!(fails("a.b.c.d; DROP", &good).await, Error::UnknownTable(_)));
    assert!(matches!(fails("logs", &odd).await, Error::UnknownFormat(_)));
    assert!(matches!(fails("logs", Path::new("/does/not/exist")).await, Error::Read { .. }));
    assert_eq!(counts(&load(options(&db, "logs", &[&empty])).await), (0, 0, 0));
    // The one before the failure is complete, and says so.
    match run(options(&db, "logs", &[&good, &odd]), CancellationToken::new()).await.unwrap_err() {
        Error::File { completed, file, .. } => assert_eq!((completed[0].loaded, file), (1, odd)),
        e => panic!("{e}"),
    }
    let stopped = CancellationToken::new();
    stopped.cancel();
    let e = run(options(&db, "logs", &[&good]), stopped).await.unwrap_err();
    assert!(matches!(e, Error::Cancelled));
}

/// Not a test: rows a second, by the clock and by the processor time of the server's side.
/// Run with `--ignored --nocapture speed`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed() {
    let db = Database::new().await;
    let rows: u64 = std::env::var("INGEST_TEST_ROWS").ok().and_then(|v| v.parse().ok()).unwrap_or(1_000_000);
    let spec = Spec::logs(rows);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.ndjson");
    let mut began = (std::time::Instant::now(), db.server_cpu());
    let mut report = |what: &str, rows: u64| {
        // A connection's time is the server's once its process has ended.
        std::thread::sleep(Duration::from_millis(200));
        let (clock, cpu) = (began.0.elapsed().as_secs_f64() - 0.2, db.server_cpu() - began.1);
        println!(
            "{what}: {:.0} rows/s, {:.0} rows per second of server time",
            rows as f64 / clock,
            rows as f64 / cpu
        );
        began = (std::time::Instant::now(), db.server_cpu());
    };
    ingest::generate::write_all(&spec, None, std::fs::File::create(&path).unwrap()).unwrap();
    report("written as ndjson", rows);
    let o = Options { batch_rows: Options::default().batch_rows, ..options(&db, "logs", &[&path]) };
    report("ndjson loaded", load(o.clone()).await.loaded);
    report("ndjson known already", load(o.clone()).await.already_present);
    let s = run_generated(o, Spec { seed: 5, ..spec }, CancellationToken::new()).await.unwrap();
    report("generated and loaded", s.loaded);
    let out = db.scratch("rows.tsv");
    let columns = "ts, level, service, host, message, metadata";
    db.run(&format!("COPY (SELECT {columns} FROM logs LIMIT {rows}) TO '{out}'")).await;
    report("copied out", rows);
    db.run(&format!("COPY logs ({columns}) FROM '{out}'")).await;
    report("one plain COPY of them", rows);
}

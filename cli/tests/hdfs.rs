//! The product with its lake on a real HDFS, and on an S3 server: the whole path, and every way in which HDFS may fail. Meanwhile rows
//! come in and are counted exactly; afterwards both stores hold the same.

mod support;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use support::compare::difference;
use support::hdfs::Hdfs;
use support::instance::{Instance, Options, argument, binary, shown};
use support::proxy::Proxy;
use support::s3::S3;
use support::wait_for;
use support::wire::Client;

/// Timeouts that a test can wait for.
const IMPATIENT: &str = "read_timeout = \"1s\"\nwrite_timeout = \"5s\"\nmetadata_timeout = \"3s\"\n";

/// The product with its lake on `hdfs`.
fn product(hdfs: &Hdfs, options: Options) -> Instance {
    product_at(hdfs, &hdfs.url(), options)
}

/// The same through another address of the NameNode.
fn product_at(hdfs: &Hdfs, url: &str, options: Options) -> Instance {
    product_with(hdfs, url, IMPATIENT, "", options)
}

/// The same with timeouts and more settings.
fn product_with(hdfs: &Hdfs, url: &str, timeouts: &str, more: &str, options: Options) -> Instance {
    let config = hdfs.dir().join("watershed.toml");
    let section = format!(
        "[lake]\nurl = \"{url}/lake\"\nhadoop_conf_dir = \"{}\"\n{timeouts}[retention]\ninterval = \"24h\"\nearly = false\n{more}",
        hdfs.conf_dir().display()
    );
    fs::write(&config, section).expect("a settings file");
    Instance::start(options.with("WATERSHED_CONFIG", argument(&config)))
}

#[track_caller]
fn verify(instance: &Instance) {
    let output = instance.output(&["verify"]);
    assert!(output.status.success(), "the stores differ: {}", shown(&output));
}

/// Rows that come in all the time, each transaction with its number.
struct Feed {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    /// Never less than what may have been committed.
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    fn start(instance: &Instance) -> Feed {
        let feed =
            Feed { stop: Arc::default(), acknowledged: Arc::default(), sent: Arc::default(), thread: None };
        let (stop, acknowledged, sent) = (feed.stop.clone(), feed.acknowledged.clone(), feed.sent.clone());
        let target = instance.gateway();
        let thread = thread::spawn(move || {
            let mut client = Client::connect(&target);
            while !stop.load(Ordering::SeqCst) {
                let from = acknowledged.load(Ordering::SeqCst);
                sent.store(from + 20, Ordering::SeqCst);
                client.run(&format!(
                    "INSERT INTO logs (ts, level, service, host, message) SELECT '2024-03-01'::timestamptz + n * interval '7 seconds', \
                     'INFO', 'feed', 'h' || n % 5, 'row ' || n FROM generate_series({from}, {from} + 19) n"
                ));
                acknowledged.store(from + 20, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
        });
        Feed { thread: Some(thread), ..feed }
    }

    /// Asks the gateway for the rows: every acknowledged one is counted, and none twice.
    #[track_caller]
    fn check(&self, client: &mut Client) {
        let least = self.acknowledged.load(Ordering::SeqCst);
        let reply = client.run("SELECT count(*), count(DISTINCT message) FROM logs WHERE service = 'feed'");
        let most = self.sent.load(Ordering::SeqCst);
        let rows = reply.rows();
        let number = |at: usize| rows[0][at].as_deref().expect("a number").parse::<u64>().expect("a number");
        assert_eq!(number(0), number(1), "a row was counted twice");
        assert!((least..=most).contains(&number(0)), "{} rows, of {least} to {most}", number(0));
    }

    /// Checks until rows have come in for a while: ingest goes on, answers stay exact.
    #[track_caller]
    fn goes_on(&self, instance: &Instance) {
        let mut client = Client::connect(&instance.gateway());
        let goal = self.acknowledged.load(Ordering::SeqCst) + 400;
        wait_for("rows to come in", || {
            self.check(&mut client);
            (self.acknowledged.load(Ordering::SeqCst) >= goal).then_some(())
        });
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("a running feed").join().expect("every row was taken");
    }
}

/// Which store answered the last statement of this session that contains `what`.
fn answered_by(client: &mut Client, what: &str) -> String {
    let pid = client.pid;
    client.value(&format!(
        "SELECT CASE WHEN fell_back THEN 'postgres' ELSE route END FROM watershed.queries \
         WHERE pid = {pid} AND sql LIKE '%{what}%' AND sql NOT LIKE '%watershed.queries%' ORDER BY id DESC LIMIT 1"
    ))
}

/// Ships everything once HDFS lets it, and sees to it that nothing is missing.
#[track_caller]
fn recovers(instance: &Instance, feed: Feed) {
    wait_for("an archive after the trouble", || {
        instance.output(&["archive", "--now"]).status.success().then_some(())
    });
    feed.goes_on(instance);
    let mut client = Client::connect(&instance.gateway());
    client.run("SET watershed.route = 'lake'");
    wait_for("an answer of the lake after the trouble", || {
        feed.check(&mut client);
        (answered_by(&mut client, "count(DISTINCT message)") == "lake").then_some(())
    });
    feed.end();
    instance.archive();
    verify(instance);
    assert!(instance.alive());
}

/// `watershed archive` must fail now, and say why.
#[track_caller]
fn archive_fails_with(instance: &Instance, why: &str) {
    let output = instance.output(&["archive", "--now"]);
    let text = shown(&output);
    assert!(
        !output.status.success() && text.contains(why),
        "an archive that should fail with {why:?}: {text}"
    );
    assert!(!text.contains("\tat "), "a stack trace was shown: {text}");
}

/// Load, archive, compact, query, verify.
#[track_caller]
fn whole_path(instance: &Instance) {
    let rows = instance.dir().with_file_name("rows.ndjson");
    let options = [
        "generate",
        "--rows",
        "30000",
        "--days",
        "3",
        "--end",
        "2024-05-03T00:00:00Z",
        "--out",
        argument(&rows),
    ];
    let generated = Command::new(binary()).args(options).output().expect("the binary starts");
    assert!(generated.status.success(), "{}", shown(&generated));
    let text = fs::read_to_string(&rows).expect("generated rows");
    let lines: Vec<&str> = text.lines().collect();
    for (n, part) in lines.chunks(10_000).enumerate() {
        let file = instance.file(&format!("part-{n}.ndjson"), part.join("\n") + "\n");
        instance.run(&["load", "logs", argument(&file)]);
        if n < 2 {
            instance.archive();
        }
    }
    let queries = [
        "SELECT count(*) FROM logs",
        "SELECT service, level, count(*), min(ts), max(ts) FROM logs GROUP BY service, level ORDER BY service, level",
        "SELECT count(DISTINCT host) FROM logs WHERE ts >= '2024-05-02' AND level = 'ERROR'",
    ];
    let mut direct = Client::connect(&instance.direct());
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'lake'");
    let mut compare = |stage: &str| {
        for sql in queries {
            if let Some(why) = difference(&direct.query(sql), &gateway.query(sql), true) {
                panic!("{stage}: {sql}\n{why}");
            }
            assert_eq!(answered_by(&mut gateway, &sql.replace('\'', "''")), "lake", "{stage}: {sql}");
        }
    };
    compare("with a tail");
    instance.archive();
    compare("archived");
    verify(instance);
    let compacted = instance.run(&["compact"]);
    compare("compacted");
    verify(instance);
    assert!(compacted.contains("public.logs"), "{compacted}");
    // A process that starts anew finds everything there.
    instance.terminate();
    instance.restart();
    let mut gateway = Client::connect(&instance.gateway());
    gateway.run("SET watershed.route = 'lake'");
    assert_eq!(gateway.value("SELECT count(*) FROM logs"), lines.len().to_string());
    verify(instance);
}

#[test]
fn the_whole_path_works_on_hdfs() {
    let hdfs = Hdfs::start();
    let instance = product_with(&hdfs, &hdfs.url(), "", "", Options::on_demand());
    whole_path(&instance);
    let listed = hdfs.dfs(&["-ls", "-R", "/lake"]);
    assert!(
        listed.contains("_delta_log/00000000000000000000.json") && listed.contains(".parquet"),
        "{listed}"
    );
    assert!(!listed.contains(".tmp."), "an unfinished file was left behind: {listed}");
    // Nothing of the lake is on the local disk, and another lake is refused.
    assert_eq!(fs::read_dir(instance.dir().join("lake")).map_or(0, Iterator::count), 0);
    instance.terminate();
    let elsewhere =
        instance.command(&["up", "--lake", &format!("{}/other", hdfs.url())]).output().expect("up starts");
    assert!(shown(&elsewhere).contains("/lake, not "), "{}", shown(&elsewhere));
}

/// Files that nobody needs go soon.
const HASTY: &str = "[compactor]\ngrace = \"2s\"\n[gateway]\nlease_after = \"1s\"\n";

/// Days that expire leave the lake with their folders; the others stay. `folders`: names in the table's directory.
fn days_leave_with_their_folders(instance: &Instance, settings: &str, folders: impl Fn() -> String) {
    let mut client = Client::connect(&instance.gateway());
    client.run("CREATE TABLE readings (ts timestamptz NOT NULL, n int8)");
    client.run("SELECT watershed.attach_table('public.readings', event_time => 'ts', first_day => (now() AT TIME ZONE 'UTC')::date - 6)");
    client.run("INSERT INTO readings (ts, n) SELECT now() - (i % 7) * interval '1 day', i FROM generate_series(0, 69) i");
    instance.archive();
    let days = || folders().matches("_day=").count();
    assert_eq!(days(), 7, "{}", folders());
    client.run("SELECT watershed.set_retention('public.readings', hot_days => 2, lake_days => 3)");
    let done = instance.output(&["retain", "readings", "--notice", "10s"]);
    assert!(done.status.success(), "{}", shown(&done));
    wait_for("the folders of the days that are gone to go", || {
        let compacted = instance.output(&["compact", "readings", "--config", settings]);
        assert!(compacted.status.success(), "{}", shown(&compacted));
        // Today and the three days before.
        (days() == 4).then_some(())
    });
    assert_eq!(client.value("SELECT count(*) FROM readings"), "40");
    // A day's folder that is gone is made again when rows come.
    client.run("INSERT INTO readings (ts, n) SELECT now() + interval '1 day', i FROM generate_series(1, 5) i");
    instance.archive();
    assert_eq!(days(), 5, "{}", folders());
    assert_eq!(client.value("SELECT count(*) FROM readings"), "45");
}

#[test]
fn days_leave_hdfs_with_their_folders() {
    let hdfs = Hdfs::start();
    let instance = product_with(&hdfs, &hdfs.url(), IMPATIENT, HASTY, Options::on_demand());
    let settings = hdfs.dir().join("watershed.toml");
    days_leave_with_their_folders(&instance, argument(&settings), || hdfs.dfs(&["-ls", "/lake/public.readings"]));
}

#[test]
fn days_leave_the_local_disk_with_their_folders() {
    let home = tempfile::tempdir().expect("a folder");
    let settings = home.path().join("watershed.toml");
    fs::write(&settings, format!("[retention]\ninterval = \"24h\"\nearly = false\n{HASTY}")).expect("a settings file");
    let instance = Instance::start(Options::on_demand().with("WATERSHED_CONFIG", argument(&settings)));
    let folder = instance.dir().join("lake/public.readings");
    days_leave_with_their_folders(&instance, argument(&settings), || {
        let names = fs::read_dir(&folder).expect("the table's folder").flatten();
        names.map(|name| name.file_name().to_string_lossy().into_owned() + "\n").collect()
    });
}

#[test]
fn the_whole_path_works_on_s3() {
    let s3 = S3::start();
    s3.make_bucket("watershed");
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("watershed.toml");
    let section = format!(
        "[lake]\nurl = \"s3://watershed/lake\"\n[lake.s3]\nendpoint = \"{}\"\nregion = \"us-east-1\"\nallow_http = true\n\
         access_key_id = \"id\"\nsecret_access_key = \"very-secret\"\n",
        s3.endpoint()
    );
    fs::write(&config, section).expect("a settings file");
    let instance = Instance::start(Options::on_demand().with("WATERSHED_CONFIG", argument(&config)));
    whole_path(&instance);
    assert!(!instance.log().contains("very-secret"));
}

#[test]
fn a_datanode_killed_is_done_without() {
    let hdfs = Hdfs::start();
    let instance = product(&hdfs, Options::busy());
    let feed = Feed::start(&instance);
    feed.goes_on(&instance);
    instance.archive();
    hdfs.kill9("datanode1");
    feed.goes_on(&instance);
    // Rows reach the lake while one of two is dead.
    wait_for("an archive without a DataNode", || {
        instance.output(&["archive", "--now"]).status.success().then_some(())
    });
    hdfs.restart();
    hdfs.wait_for_live(2);
    recovers(&instance, feed);
    hdfs.wait_for_full_replication();
    let report = hdfs.fsck(&["/lake"]);
    assert!(report.contains("is HEALTHY"), "{report}");
}

#[test]
fn a_namenode_killed_stops_the_lake_and_nothing_else() {
    let hdfs = Hdfs::start();
    let instance = product(&hdfs, Options::busy());
    let feed = Feed::start(&instance);
    feed.goes_on(&instance);
    instance.archive();
    for _ in 0..2 {
        hdfs.kill9("namenode");
        feed.goes_on(&instance);
        archive_fails_with(&instance, "HDFS cannot be reached");
        feed.goes_on(&instance);
        hdfs.restart();
    }
    recovers(&instance, feed);
}

#[test]
fn a_commit_whose_answer_is_lost_happens_once() {
    let hdfs = Hdfs::start();
    let port = hdfs.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let proxy = Proxy::start(port);
    let instance = product_at(&hdfs, &format!("hdfs://127.0.0.1:{}", proxy.port()), Options::busy());
    let feed = Feed::start(&instance);
    feed.goes_on(&instance);
    instance.archive();
    // The renaming that makes a commit is carried out; the client, which was not told, sends it again. The second time even that is
    // not told, and the third time nothing is lost.
    for times in [1, 2, 1] {
        let before = proxy.lost_answers();
        proxy.lose_answers(&["rename2", "_delta_log"], times);
        wait_for("commits whose answers got lost", || (proxy.lost_answers() == before + times).then_some(()));
        feed.goes_on(&instance);
        wait_for("an archive after that", || instance.output(&["archive", "--now"]).status.success().then_some(()));
    }
    recovers(&instance, feed);
    // Each archive is in the log once, and their numbers only grow.
    let log = hdfs.dfs(&["-cat", "/lake/public.logs/_delta_log/*.json"]);
    let (mut last, mut archives) = (0, 0);
    // Entries follow one another without a line's end between them.
    for action in serde_json::Deserializer::from_str(&log).into_iter::<serde_json::Value>() {
        let action = action.expect("an action");
        let txn = &action["txn"];
        if txn["appId"] == "watershed" {
            let number = txn["version"].as_i64().expect("a number");
            assert!(number > last, "archive {number} after {last}");
            last = number;
            archives += 1;
        }
    }
    assert!(archives > 4, "{archives} archives");
}

#[test]
fn safe_mode_is_waited_out() {
    let hdfs = Hdfs::start();
    let instance = product(&hdfs, Options::busy());
    let feed = Feed::start(&instance);
    feed.goes_on(&instance);
    instance.archive();
    hdfs.safe_mode(true);
    feed.goes_on(&instance);
    archive_fails_with(&instance, "safe mode");
    feed.goes_on(&instance);
    hdfs.safe_mode(false);
    recovers(&instance, feed);
}

#[test]
fn a_full_hdfs_lets_the_tail_grow() {
    let hdfs = Hdfs::start();
    let instance = product(&hdfs, Options::busy());
    let feed = Feed::start(&instance);
    feed.goes_on(&instance);
    instance.archive();
    hdfs.space_quota("/lake", Some(1 << 20));
    feed.goes_on(&instance);
    archive_fails_with(&instance, "no room");
    feed.goes_on(&instance);
    hdfs.space_quota("/lake", None);
    recovers(&instance, feed);
    instance.terminate();
    let listed = hdfs.dfs(&["-ls", "-R", "/lake"]);
    assert!(!listed.contains(".tmp."), "an unfinished file was left behind: {listed}");
}

#[test]
fn reads_that_stall_go_elsewhere_or_to_postgresql() {
    let hdfs = Hdfs::start();
    let instance = product(&hdfs, Options::on_demand());
    let feed = Feed::start(&instance);
    feed.goes_on(&instance);
    instance.archive();
    // New files: nothing of them is in memory.
    hdfs.freeze("datanode2", true);
    let mut client = Client::connect(&instance.gateway());
    client.run("SET watershed.route = 'lake'");
    feed.check(&mut client);
    assert_eq!(answered_by(&mut client, "count(DISTINCT message)"), "lake");
    hdfs.freeze("datanode2", false);
    hdfs.wait_for_live(2);
    const FILES: &str = "SELECT count(*) FROM watershed.files";
    let known = client.value(FILES);
    instance.archive();
    // Of the version before it may still have all files in memory.
    wait_for("the gateway to know the new files", || (client.value(FILES) != known).then_some(()));
    for who in ["datanode1", "datanode2"] {
        hdfs.freeze(who, true);
    }
    // Both stand still: PostgreSQL has the rows.
    feed.check(&mut client);
    assert_eq!(answered_by(&mut client, "count(DISTINCT message)"), "postgres");
    feed.goes_on(&instance);
    for who in ["datanode1", "datanode2"] {
        hdfs.freeze(who, false);
    }
    hdfs.wait_for_live(2);
    recovers(&instance, feed);
}

#[test]
fn rows_that_only_the_lake_has_are_an_error_while_it_is_away() {
    let hdfs = Hdfs::start();
    let instance = product(&hdfs, Options::on_demand());
    let mut client = Client::connect(&instance.gateway());
    client.run("CREATE TABLE t (id int8, ts timestamptz NOT NULL)");
    client.run(
        "SELECT watershed.attach_table('public.t', event_time => 'ts', first_day => (now() AT TIME ZONE 'UTC')::date - 12)",
    );
    client.run("INSERT INTO t SELECT i, now() - (i % 10) * interval '1 day' FROM generate_series(1, 1000) i");
    instance.archive();
    client.run("SELECT watershed.set_retention('public.t', hot_days => 5)");
    instance.run(&["retain", "t", "--notice", "10s"]);
    assert_eq!(client.value("SELECT count(*) FROM t"), "1000");
    hdfs.kill9("namenode");
    // What is in memory may still be answered with, and exactly; then the log cannot be followed any more.
    let error = wait_for("an error of the lake", || {
        let reply = client.query("SELECT count(*) FROM t");
        if reply.error().is_none() {
            assert_eq!(reply.value(), "1000");
        }
        reply.error()
    });
    assert_eq!(error.get(&'C').map(String::as_str), Some("58030"), "{error:?}");
    assert!(error.get(&'D').is_some_and(|detail| detail.contains("HDFS")), "{error:?}");
    assert!(error.contains_key(&'H'), "{error:?}");
    // Hot rows are PostgreSQL's meanwhile.
    assert_eq!(client.value("SELECT count(*) FROM t WHERE ts >= now() - interval '49 hours'"), "300");
    hdfs.restart();
    wait_for("the lake's answer", || {
        let reply = client.query("SELECT count(*) FROM t");
        reply.error().is_none().then(|| assert_eq!(reply.value(), "1000"))
    });
    verify(&instance);
}

//! Archiver, verify and rebase when PostgreSQL loses transactions that the lake holds: with real servers, a standby that lagged, a
//! recovery to a point in time, a restored backup, and a death at every step of a rebase.

#[path = "../archiver/cluster.rs"]
mod cluster;
mod floor;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ingest::archiver::{self, Error, archive_now};
use ingest::rebase::{self, Found, RebaseReport, rebase};
use ingest::verify;
use lake::Url;
use sqlx::{Connection, Executor, PgConnection, Row};

use cluster::{Cluster, Database};

const TABLE: &str = "public.readings";

/// A lake, and whichever server holds the table at the moment.
struct Stores {
    db: Database,
    _dir: tempfile::TempDir,
    root: Url,
}

impl Stores {
    async fn on(cluster: Arc<Cluster>) -> Self {
        let s = Self::bare(cluster).await;
        let mut admin = s.db.admin().await;
        admin.execute("SELECT watershed.attach_table('public.readings', event_time => 'ts')").await.unwrap();
        s
    }

    /// With a table that is not tiered yet.
    async fn bare(cluster: Arc<Cluster>) -> Self {
        let db = cluster.database().await;
        let dir = tempfile::tempdir().unwrap();
        let root = Url::from_directory_path(dir.path()).unwrap();
        let mut admin = db.admin().await;
        admin
            .execute(
                "CREATE TABLE public.readings (id bigint, ts timestamptz NOT NULL, note text, amount numeric(12,3),
                     doc jsonb, raw bytea, ratio float8, seen timestamptz DEFAULT clock_timestamp())",
            )
            .await
            .unwrap();
        Self { db, _dir: dir, root }
    }

    /// The same lake with another server.
    fn with(self, cluster: Arc<Cluster>) -> Self {
        Self { db: Database { cluster, name: self.db.name.clone() }, ..self }
    }

    async fn archive(&self) -> Result<u64, Error> {
        let cfg = archiver::Config::new(self.db.url("watershed_archiver"), self.root.clone());
        archive_now(cfg, Some(TABLE)).await.map(|r| r[0].rows)
    }

    async fn verify(&self) -> Result<verify::VerifyReport, Error> {
        let cfg =
            verify::Config { database_url: self.db.url("watershed_archiver"), lake_root: self.root.clone() };
        verify::verify(cfg, Some(TABLE)).await.map(|mut r| r.remove(0))
    }

    fn rebase_config(&self) -> rebase::Config {
        let mut cfg = rebase::Config::new(self.db.url("watershed_archiver"), self.root.clone());
        cfg.patience = Duration::from_secs(60);
        cfg
    }

    async fn rebase(&self) -> RebaseReport {
        let said = Mutex::new(Vec::new());
        let report = rebase(self.rebase_config(), Some(TABLE), &|s| said.lock().unwrap().push(s.to_owned())).await;
        println!("{:#?}", said.into_inner().unwrap());
        report.unwrap().remove(0)
    }

    async fn dry_run(&self) -> RebaseReport {
        let cfg = rebase::Config { dry_run: true, ..self.rebase_config() };
        rebase(cfg, Some(TABLE), &|_| {}).await.unwrap().remove(0)
    }

    /// How often each id is in PostgreSQL.
    async fn ids(&self) -> BTreeMap<i64, usize> {
        let mut conn = self.db.admin().await;
        let mut ids = BTreeMap::new();
        for row in conn.fetch_all("SELECT id FROM public.readings").await.unwrap() {
            *ids.entry(row.get(0)).or_insert(0) += 1;
        }
        ids
    }

    /// Both stores are equal, every id of `ranges` is there once, and nothing else is.
    async fn assert_whole(&self, ranges: &[std::ops::Range<i64>]) {
        let v = self.verify().await.unwrap();
        assert!(v.ok, "{v:?}");
        assert_eq!(v.in_both, 0);
        let wanted: BTreeMap<i64, usize> = ranges.iter().cloned().flatten().map(|i| (i, 1)).collect();
        let found = self.ids().await;
        assert_eq!(v.lake.rows + v.tail_rows, wanted.len() as u64);
        assert!(found == wanted, "{} rows, expected {}; {:?}", found.len(), wanted.len(),
            found.iter().find(|(k, n)| wanted.get(k) != Some(n)).or_else(|| wanted.iter().find(|(k, _)| !found.contains_key(k))));
    }
}

/// Rows as any client inserts them, `each` in a transaction.
async fn insert(conn: &mut PgConnection, ids: std::ops::Range<i64>, each: i64) {
    let mut from = ids.start;
    while from < ids.end {
        let to = (from + each).min(ids.end);
        let sql = format!(
            "INSERT INTO {TABLE} (id, ts, note, amount, doc, raw, ratio)
             SELECT i, CASE i % 9 WHEN 0 THEN timestamptz '0044-03-15 12:00:00.5+00 BC' ELSE timestamptz '2024-05-01 10:00+00' END
                       + (i % 4) * interval '1 day' + i * interval '1 microsecond',
                    CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN E'tab\\tline\\nback\\\\slash\\r' ELSE 'note ' || i END, -i / 7.0,
                    jsonb_build_object('i', i, 's', E'a\\\\b\"c\\n'), int8send(i), i / 3.0::float8
             FROM generate_series({from}, {to} - 1) i"
        );
        conn.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        from = to;
    }
}

/// A partition of a topic, registered as the Kafka source does.
async fn register(conn: &mut PgConnection, partition: i32) -> i32 {
    let id = sqlx::query_scalar(
        "INSERT INTO watershed_control.streams (kind, relid, topic, topic_id, partition, leader_epoch, start_offset)
         VALUES ('kafka', 'public.readings'::regclass, 'readings', 'id of it', $1, 3, 0) RETURNING id",
    )
    .bind(partition)
    .fetch_one(&mut *conn)
    .await
    .unwrap();
    sqlx::query("INSERT INTO watershed_control.positions (stream, next_offset) VALUES ($1, 0)")
        .bind(id)
        .execute(conn)
        .await
        .unwrap();
    id
}

/// Records `offsets` of a stream, as the Kafka source commits them; the id of a row is `base` + its offset.
async fn consume(conn: &mut PgConnection, stream: i32, base: i64, offsets: std::ops::Range<i64>) {
    let mut tx = conn.begin().await.unwrap();
    let moved = sqlx::query("UPDATE watershed_control.positions SET next_offset = $3 WHERE stream = $1 AND next_offset = $2")
        .bind(stream)
        .bind(offsets.start)
        .bind(offsets.end)
        .execute(&mut *tx)
        .await
        .unwrap();
    assert_eq!(moved.rows_affected(), 1, "the position is another");
    let sql = format!(
        "INSERT INTO {TABLE} (id, ts, note, _stream, _offset)
         SELECT {base} + i, timestamptz '2024-05-02 00:00+00' + i * interval '1 second', 'record ' || i, {stream}, i
         FROM generate_series({}, {} - 1) i",
        offsets.start, offsets.end
    );
    tx.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    tx.commit().await.unwrap();
}

async fn position(conn: &mut PgConnection, stream: i32) -> i64 {
    sqlx::query_scalar("SELECT next_offset FROM watershed_control.positions WHERE stream = $1")
        .bind(stream)
        .fetch_one(conn)
        .await
        .unwrap()
}

fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("watershed rebase public.readings"), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_loses_what_the_lake_holds() {
    let primary = Arc::new(Cluster::start_new());
    let s = Stores::on(primary.clone()).await;
    let mut conn = s.db.admin().await;
    let mut source = PgConnection::connect(&s.db.url("watershed_ingest")).await.unwrap();
    insert(&mut conn, 0..200, 40).await;
    let a = register(&mut source, 0).await;
    consume(&mut source, a, 10_000, 0..100).await;
    assert_eq!(s.archive().await.unwrap(), 300);

    // A standby that stops following: all that comes now, it will never have.
    let standby = Arc::new(primary.base_backup(true));
    consume(&mut source, a, 10_000, 100..200).await;
    let b = register(&mut source, 1).await;
    consume(&mut source, b, 20_000, 0..50).await;
    insert(&mut conn, 1000..1100, 3).await;
    assert_eq!(s.archive().await.unwrap(), 250);
    // And not even the lake has these.
    insert(&mut conn, 2000..2010, 1).await;
    drop((conn, source));
    primary.stop("immediate");
    standby.start();
    standby.promote();
    let s = s.with(standby);

    // The new primary takes rows, under numbers that the lake knows; and reads a part of a partition again.
    let mut conn = s.db.admin().await;
    let mut source = PgConnection::connect(&s.db.url("watershed_ingest")).await.unwrap();
    insert(&mut conn, 3000..3150, 1).await;
    consume(&mut source, a, 10_000, 100..150).await;
    assert_refused(s.archive().await);
    assert_refused(s.verify().await);

    let before = s.ids().await;
    let dry = s.dry_run().await;
    assert_eq!((dry.found, dry.restored, dry.replaced, dry.surplus, dry.archive), (Found::Broken, 200, 50, 0, 0));
    assert_refused(s.archive().await);
    assert_eq!(s.ids().await, before);

    let done = s.rebase().await;
    assert_eq!((done.found, done.restored, done.replaced, done.surplus), (Found::Broken, 200, 50, 0), "{done:?}");
    assert!(done.kept > 0, "{done:?}");
    let whole = [0..200, 1000..1100, 3000..3150, 10_000..10_200, 20_000..20_050];
    s.assert_whole(&whole).await;
    assert_eq!((position(&mut conn, a).await, position(&mut conn, b).await), (200, 50));
    let next: i32 = register(&mut source, 2).await;
    assert!(next > b);
    let again = s.rebase().await;
    assert_eq!((again.found, again.archive), (Found::Current, 0));

    // Life goes on.
    consume(&mut source, a, 10_000, 200..220).await;
    consume(&mut source, b, 20_000, 50..60).await;
    assert_eq!(s.archive().await.unwrap(), 150 + 20 + 10);
    s.assert_whole(&[0..200, 1000..1100, 3000..3150, 10_000..10_220, 20_000..20_060]).await;
    assert_eq!(s.rebase().await.found, Found::Current);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_moves_no_row() {
    let primary = Arc::new(Cluster::start_new());
    let s = Stores::on(primary.clone()).await;
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0..300, 7).await;
    s.archive().await.unwrap();
    insert(&mut conn, 300..310, 1).await;
    let standby = Arc::new(primary.base_backup(true));
    // Lost with the primary, and not in the lake: nothing that a rebase could help with.
    insert(&mut conn, 310..320, 1).await;
    drop(conn);
    primary.stop("fast");
    standby.start();
    standby.promote();
    let s = s.with(standby);
    let mut conn = s.db.admin().await;
    insert(&mut conn, 400..440, 1).await;
    assert_refused(s.archive().await);
    assert_eq!(s.dry_run().await.found, Found::Unbroken);
    let done = s.rebase().await;
    assert_eq!((done.found, done.restored, done.replaced, done.kept), (Found::Unbroken, 0, 0, 0));
    s.assert_whole(&[0..310, 400..440]).await;
    assert_eq!(s.archive().await.unwrap(), 50);
    s.assert_whole(&[0..310, 400..440]).await;
    // Once more: a chain of lineages.
    let (old, new) = (s.db.cluster.clone(), Arc::new(s.db.cluster.base_backup(true)));
    old.stop("fast");
    new.start();
    new.promote();
    let s = s.with(new);
    assert_eq!(s.rebase().await.found, Found::Unbroken);
    s.assert_whole(&[0..310, 400..440]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_to_an_earlier_point() {
    let original = Arc::new(Cluster::start_new());
    let s = Stores::on(original.clone()).await;
    let backup = Arc::new(original.base_backup(false));
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0..100, 9).await;
    s.archive().await.unwrap();
    let lsn: String = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut conn).await.unwrap();
    for n in 1..4 {
        insert(&mut conn, n * 1000..n * 1000 + 50, 1).await;
        s.archive().await.unwrap();
    }
    drop(conn);
    original.stop("fast");
    backup.recover_until(&original.data().join("pg_wal"), &lsn);
    backup.start();
    let s = s.with(backup);
    let mut conn = s.db.admin().await;
    for _ in 0..100 {
        if sqlx::query_scalar::<_, bool>("SELECT NOT pg_is_in_recovery()").fetch_one(&mut conn).await.unwrap() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    insert(&mut conn, 5000..5200, 1).await;
    assert_refused(s.archive().await);
    // A row that was in an open transaction all the while keeps its place in the tail.
    let mut open = s.db.admin().await;
    open.execute("BEGIN").await.unwrap();
    insert(&mut open, 6000..6001, 1).await;
    let cfg = rebase::Config { patience: Duration::from_secs(1), ..s.rebase_config() };
    let blocked = rebase(cfg, Some(TABLE), &|_| {}).await;
    assert!(matches!(blocked, Err(Error::RebaseBlocked { .. })), "{blocked:?}");
    open.execute("COMMIT").await.unwrap();
    let done = s.rebase().await;
    assert_eq!((done.found, done.restored, done.replaced), (Found::Broken, 150, 0));
    let whole = [0..100, 1000..1050, 2000..2050, 3000..3050, 5000..5200, 6000..6001];
    s.assert_whole(&whole).await;
    s.archive().await.unwrap();
    s.assert_whole(&whole).await;
}

/// A copy of the disk started as it is: the same lineage, an older state.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_of_the_same_lineage() {
    let original = Arc::new(Cluster::start_new());
    let s = Stores::on(original.clone()).await;
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0..100, 9).await;
    s.archive().await.unwrap();
    let backup = Arc::new(original.base_backup(false));
    insert(&mut conn, 1000..1050, 1).await;
    s.archive().await.unwrap();
    drop(conn);
    original.stop("fast");
    backup.start();
    let s = s.with(backup);
    let mut conn = s.db.admin().await;
    insert(&mut conn, 5000..5100, 1).await;
    assert_refused(s.archive().await);
    let done = s.rebase().await;
    assert_eq!((done.found, done.restored), (Found::Broken, 50));
    assert_eq!(done.old_lineage, done.new_lineage);
    s.assert_whole(&[0..100, 1000..1050, 5000..5100]).await;
    s.archive().await.unwrap();
    s.assert_whole(&[0..100, 1000..1050, 5000..5100]).await;
}

/// Not a test of its own: what the crash test runs in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn child_rebases() {
    let (Ok(url), Ok(root)) =
        (std::env::var("WATERSHED_TEST_CHILD_URL"), std::env::var("WATERSHED_TEST_CHILD_LAKE"))
    else {
        return;
    };
    rebase(rebase::Config::new(url, root.parse().unwrap()), Some(TABLE), &|_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_rebase() {
    const POINTS: [&str; 11] = [
        "rebase.leading",
        "rebase.fenced",
        "rebase.burned",
        "rebase.prepared",
        "rebase.moved",
        "rebase.before_commit",
        "rebase.committed",
        "lake.commit.before",
        "lake.commit.after",
        "lake.commit.durable",
        "rebase.done",
    ];
    let s = Stores::on(Cluster::shared()).await;
    let mut conn = s.db.admin().await;
    let mut source = PgConnection::connect(&s.db.url("watershed_ingest")).await.unwrap();
    let stream = register(&mut source, 0).await;
    let mut whole: Vec<std::ops::Range<i64>> = Vec::new();
    for (round, point) in POINTS.into_iter().enumerate() {
        let n = round as i64;
        let (first, kafka) = (n * 1000, 1_000_000 + n * 100);
        insert(&mut conn, first..first + 60, 7).await;
        s.archive().await.unwrap();
        insert(&mut conn, first + 100..first + 160, 7).await;
        consume(&mut source, stream, 1_000_000, n * 100..n * 100 + 100).await;
        s.archive().await.unwrap();
        // What a server that fell back would not have: rows, archive, position.
        conn.execute("SET watershed.maintenance = 'on'").await.unwrap();
        for sql in [
            format!("DELETE FROM {TABLE} WHERE id BETWEEN {} AND {} OR id >= {kafka}", first + 100, first + 160),
            "DELETE FROM watershed_control.archives a WHERE number = (SELECT max(number) FROM watershed_control.archives)".into(),
            format!("UPDATE watershed_control.positions SET next_offset = {} WHERE stream = {stream}", n * 100),
        ] {
            conn.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        }
        conn.execute("RESET watershed.maintenance").await.unwrap();
        insert(&mut conn, first + 200..first + 210, 1).await;
        consume(&mut source, stream, 1_000_000, n * 100..n * 100 + 30).await;
        whole.extend([first..first + 60, first + 100..first + 160, first + 200..first + 210, kafka..kafka + 100]);

        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_rebases", "--nocapture"])
            .env("WATERSHED_CRASH_AT", point)
            .env("WATERSHED_TEST_CHILD_URL", s.db.url("watershed_archiver"))
            .env("WATERSHED_TEST_CHILD_LAKE", s.root.as_str())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "{point} was not passed");
        // Until it is finished, nobody archives.
        if point != "rebase.done" {
            assert_refused(s.archive().await);
        }
        let done = s.rebase().await;
        let expected = match point {
            "rebase.committed" => Found::Unfinished,
            "rebase.done" => Found::Current,
            _ => Found::Broken,
        };
        assert_eq!(done.found, expected, "{point}");
        s.assert_whole(&whole).await;
        assert_eq!(position(&mut conn, stream).await, n * 100 + 100, "{point}");
        assert_eq!(s.rebase().await.found, Found::Current, "{point}");
        s.archive().await.unwrap();
        s.assert_whole(&whole).await;
    }
}

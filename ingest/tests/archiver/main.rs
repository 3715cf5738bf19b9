//! Archiver and verifier against a real PostgreSQL: that every row is in exactly one of lake and tail, whatever is going on.

mod cluster;
mod speed;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use ingest::archiver::{self, ArchiveReport, Error, archive_now};
use ingest::verify;
use lake::Url;
use lake::boundary::Boundary;
use lake::log::LakeTable;
use lake::reader::FileReader;
use lake::spec::{TableSpec, load_specs};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio_util::sync::CancellationToken;

use cluster::{Cluster, Database};

/// A database with a table `events_of(id, ts, ...)`, and a lake.
struct Stores {
    db: Database,
    _dir: tempfile::TempDir,
    root: Url,
}

const TABLE: &str = "public.readings";

impl Stores {
    async fn new() -> Self {
        Self::on(Cluster::shared()).await
    }

    async fn on(cluster: Arc<Cluster>) -> Self {
        let db = cluster.database().await;
        let dir = tempfile::tempdir().unwrap();
        let root = Url::from_directory_path(dir.path()).unwrap();
        let mut admin = db.admin().await;
        admin
            .execute(
                "CREATE TABLE public.readings (id bigint, ts timestamptz NOT NULL, note text, amount numeric(12,3));
                 SELECT watershed.attach_table('public.readings', event_time => 'ts')",
            )
            .await
            .unwrap();
        Self { db, _dir: dir, root }
    }

    fn config(&self) -> archiver::Config {
        archiver::Config::new(self.db.url("watershed_archiver"), self.root.clone())
    }

    async fn archive(&self) -> Result<ArchiveReport, Error> {
        archive_now(self.config(), Some(TABLE)).await.map(|mut r| r.remove(0))
    }

    async fn verify(&self) -> verify::VerifyReport {
        let cfg =
            verify::Config { database_url: self.db.url("watershed_archiver"), lake_root: self.root.clone() };
        verify::verify(cfg, Some(TABLE)).await.unwrap().remove(0)
    }

    async fn spec(&self, conn: &mut PgConnection) -> TableSpec {
        load_specs(conn).await.unwrap().into_iter().find(|s| s.qualified() == TABLE).unwrap()
    }

    /// How often each id is in the lake.
    async fn lake_ids(&self, table: &LakeTable) -> BTreeMap<i64, u64> {
        let mut ids = BTreeMap::new();
        for file in table.current().files.iter() {
            let schema = table.spec().arrow_schema();
            let mut reader = FileReader::open(table, file, schema, 8192).await.unwrap();
            let mut rows = 0;
            while let Some(b) = reader.next().await.unwrap() {
                for id in b.column_by_name("id").unwrap().as_primitive::<Int64Type>().values() {
                    *ids.entry(*id).or_insert(0) += 1;
                    rows += 1;
                }
            }
            assert_eq!(rows, file.rows);
        }
        ids
    }

    /// What any reader must find: lake and tail together are exactly what PostgreSQL shows, no row twice.
    async fn assert_exact(&self) {
        let mut conn = self.db.admin().await;
        let spec = self.spec(&mut conn).await;
        let table = LakeTable::open(&self.root, &spec).await.unwrap();
        let (mut ids, boundary) = match &table {
            Some(t) => {
                let archive = t.current().archive;
                let text: Option<String> = sqlx::query_scalar(
                    "SELECT boundary FROM watershed_control.archives WHERE relid = $1 AND number = $2",
                )
                .bind(sqlx::postgres::types::Oid(spec.relid))
                .bind(archive)
                .fetch_optional(&mut conn)
                .await
                .unwrap();
                let boundary = match (archive, text) {
                    (0, None) => Boundary::NOTHING,
                    (_, text) => text.unwrap().parse().unwrap(),
                };
                (self.lake_ids(t).await, boundary)
            }
            None => (BTreeMap::new(), Boundary::NOTHING),
        };
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
        let tail = format!("SELECT id FROM {TABLE} t WHERE {}", boundary.tail_predicate("t._xid"));
        for row in conn.fetch_all(sqlx::AssertSqlSafe(tail)).await.unwrap() {
            *ids.entry(row.get(0)).or_insert(0) += 1;
        }
        let all = format!("SELECT id FROM {TABLE}");
        let mut wanted = BTreeMap::new();
        for row in conn.fetch_all(sqlx::AssertSqlSafe(all)).await.unwrap() {
            *wanted.entry(row.get::<i64, _>(0)).or_insert(0) += 1;
        }
        assert!(ids == wanted, "{} in lake and tail, {} in PostgreSQL", ids.len(), wanted.len());
        conn.execute("COMMIT").await.unwrap();
    }
}

async fn insert(conn: &mut PgConnection, from: i64, n: i64) {
    let sql = format!(
        "INSERT INTO {TABLE} (id, ts, note, amount)
         SELECT i, now() - (i % 4) * interval '1 day' + i * interval '1 microsecond',
                CASE i % 5 WHEN 0 THEN NULL ELSE 'note ' || i END, i / 7.0
         FROM generate_series({from}, {from} + {n} - 1) i"
    );
    conn.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_many_days_are_shipped_once() {
    let s = Stores::new().await;
    let report = s.archive().await.unwrap();
    assert_eq!((report.archive, report.rows), (None, 0));
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0, 1000).await;
    conn.execute("INSERT INTO public.readings (id, ts) SELECT 6000 + i, now() - i * interval '1 day' FROM generate_series(1, 40) i").await.unwrap();
    conn.execute("INSERT INTO public.readings (id, ts) VALUES (5000, '1999-12-31 23:59:59.999999+00'), (5001, '2000-01-01 00:00+00'), (5002, '2150-01-01 00:00+00')").await.unwrap();
    let report = s.archive().await.unwrap();
    assert_eq!((report.archive, report.rows), (Some(1), 1043));
    assert!(report.files > 30);
    s.assert_exact().await;
    let v = s.verify().await;
    assert!(v.ok, "{v:?}");
    assert_eq!((v.lake.rows, v.postgres.rows, v.tail_rows), (1043, 1043, 0));
    // Nothing new: no commit.
    let again = s.archive().await.unwrap();
    assert_eq!((again.archive, again.version), (None, report.version));
    insert(&mut conn, 2000, 10).await;
    s.assert_exact().await;
    let v = s.verify().await;
    assert_eq!((v.ok, v.tail_rows), (true, 10));
    let more = s.archive().await.unwrap();
    assert_eq!((more.archive, more.rows, more.version), (Some(2), 10, report.version + 1));
    s.assert_exact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_rolled_by_rows() {
    let s = Stores::new().await;
    let mut conn = s.db.admin().await;
    conn.execute("INSERT INTO public.readings (id, ts) SELECT i, '2024-05-01 00:00+00'::timestamptz + (i * 37 % 1000) * interval '1 s' FROM generate_series(0, 49999) i").await.unwrap();
    let mut cfg = s.config();
    cfg.max_rows_per_file = 20_000;
    let report = archive_now(cfg, Some("readings")).await.unwrap().remove(0);
    assert_eq!((report.rows, report.files), (50_000, 3));
    s.assert_exact().await;
    assert!(s.verify().await.ok);
}

/// Sessions that begin, write, prepare, commit, roll back and hang in any order, here and in another database, while archives go on.
#[tokio::test(flavor = "multi_thread")]
async fn any_order_of_commits() {
    let s = Stores::new().await;
    let other = s.db.cluster.database().await;
    let mut elsewhere = other.admin().await;
    elsewhere.execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let seed = std::env::var("WATERSHED_TEST_SEED")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or_else(|| rand::rng().random());
    println!("WATERSHED_TEST_SEED={seed}");
    let mut r = StdRng::seed_from_u64(seed);
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push((s.db.admin().await, false));
    }
    let mut prepared: Vec<u32> = Vec::new();
    let mut control = s.db.admin().await;
    let mut next = 0;
    for step in 0..160_u32 {
        let i = r.random_range(0..sessions.len());
        let (conn, open) = &mut sessions[i];
        match (r.random_range(0..10), *open) {
            (0..=4, _) => {
                if !*open {
                    conn.execute("BEGIN").await.unwrap();
                    *open = true;
                }
                let n = r.random_range(1..4);
                if r.random_bool(0.3) {
                    // Subtransactions have numbers of their own.
                    conn.execute("SAVEPOINT a").await.unwrap();
                    insert(conn, next + 100_000, 2).await;
                    conn.execute("ROLLBACK TO a").await.unwrap();
                    conn.execute("SAVEPOINT b").await.unwrap();
                }
                insert(conn, next, n).await;
                next += n;
            }
            (5 | 6, true) => {
                conn.execute("COMMIT").await.unwrap();
                *open = false;
            }
            (7, true) => {
                conn.execute("ROLLBACK").await.unwrap();
                *open = false;
            }
            (8, true) => {
                conn.execute(sqlx::AssertSqlSafe(format!("PREPARE TRANSACTION 'p{step}'"))).await.unwrap();
                *open = false;
                prepared.push(step);
            }
            (9, _) if !prepared.is_empty() => {
                let p = prepared.swap_remove(r.random_range(0..prepared.len()));
                let what = if r.random_bool(0.7) { "COMMIT" } else { "ROLLBACK" };
                control.execute(sqlx::AssertSqlSafe(format!("{what} PREPARED 'p{p}'"))).await.unwrap();
            }
            _ => {}
        }
        if step % 16 == 15 {
            s.archive().await.unwrap();
            s.assert_exact().await;
        }
    }
    let v = s.verify().await;
    assert!(v.ok, "{v:?}");
    for p in prepared {
        control.execute(sqlx::AssertSqlSafe(format!("COMMIT PREPARED 'p{p}'"))).await.unwrap();
    }
    for (conn, open) in &mut sessions {
        if *open {
            conn.execute("COMMIT").await.unwrap();
        }
    }
    elsewhere.execute("COMMIT").await.unwrap();
    s.assert_exact().await;
    s.archive().await.unwrap();
    s.assert_exact().await;
    let v = s.verify().await;
    assert!(v.ok && v.tail_rows == 0, "{v:?}");
}

/// Not a test of its own: what the crash tests run in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn child_archives() {
    let (Ok(url), Ok(root)) =
        (std::env::var("WATERSHED_TEST_CHILD_URL"), std::env::var("WATERSHED_TEST_CHILD_LAKE"))
    else {
        return;
    };
    archive_now(archiver::Config::new(url, root.parse().unwrap()), Some(TABLE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_changes_no_answer() {
    const POINTS: [&str; 14] = [
        "lake.create.after",
        "archive.leading",
        "archive.snapshot",
        "archive.number",
        "archive.rows",
        "lake.file.before_close",
        "lake.file.closed",
        "lake.file.durable",
        "archive.file",
        "archive.files",
        "lake.commit.before",
        "lake.commit.after",
        "lake.commit.durable",
        "archive.committed",
    ];
    let s = Stores::new().await;
    let mut conn = s.db.admin().await;
    let mut next = 0;
    for round in 0..2 {
        for point in POINTS {
            insert(&mut conn, next, 150).await;
            next += 150;
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child_archives", "--nocapture"])
                .env("WATERSHED_CRASH_AT", point)
                .env("WATERSHED_TEST_CHILD_URL", s.db.url("watershed_archiver"))
                .env("WATERSHED_TEST_CHILD_LAKE", s.root.as_str())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            // The table is made once; every other point is passed in every round.
            assert_eq!(status.success(), round > 0 && point == "lake.create.after", "{point}: {status}");
            s.assert_exact().await;
            let v = s.verify().await;
            assert!(v.ok, "{point}: {v:?}");
            if round > 0 {
                s.archive().await.unwrap();
                s.assert_exact().await;
                assert!(s.verify().await.ok, "{point}");
            }
        }
    }
    s.archive().await.unwrap();
    let v = s.verify().await;
    assert_eq!((v.ok, v.tail_rows, v.lake.rows), (true, 0, next as u64), "{v:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn boundaries_that_nobody_can_name_are_forgotten() {
    let s = Stores::new().await;
    let mut conn = s.db.admin().await;
    for n in 0..4 {
        insert(&mut conn, n * 10, 10).await;
        s.archive().await.unwrap();
    }
    let numbers = "SELECT string_agg(number::text, ',' ORDER BY number) FROM watershed_control.archives";
    let known = |sql: &'static str| sqlx::query_scalar::<_, String>(sql);
    assert_eq!(known(numbers).fetch_one(&mut conn).await.unwrap(), "1,2,3,4");
    // A day later: all but the last of yesterday's, which a reader may have pinned until now.
    conn.execute("UPDATE watershed_control.archives SET created_at = created_at - interval '25 hours' WHERE number < 4").await.unwrap();
    insert(&mut conn, 100, 10).await;
    s.archive().await.unwrap();
    assert_eq!(known(numbers).fetch_one(&mut conn).await.unwrap(), "3,4,5");
    // The newest stays, however old: the lake holds it.
    conn.execute("UPDATE watershed_control.archives SET created_at = created_at - interval '30 days'").await.unwrap();
    s.archive().await.unwrap();
    assert_eq!(known(numbers).fetch_one(&mut conn).await.unwrap(), "3,4,5");
    s.assert_exact().await;
    assert!(s.verify().await.ok);
}

/// Four tables, two archivers that are killed and started again at random: every row is shipped once.
#[tokio::test(flavor = "multi_thread")]
async fn two_archivers_over_four_tables() {
    let s = Stores::new().await;
    let mut conn = s.db.admin().await;
    for t in 1..4 {
        conn.execute(sqlx::AssertSqlSafe(format!(
            "CREATE TABLE public.readings_{t} (id bigint, ts timestamptz NOT NULL, note text, amount numeric(12,3));
             SELECT watershed.attach_table('public.readings_{t}', event_time => 'ts')"
        )))
        .await
        .unwrap();
    }
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_runs", "--nocapture"])
            .env("WATERSHED_TEST_CHILD_URL", s.db.url("watershed_archiver"))
            .env("WATERSHED_TEST_CHILD_LAKE", s.root.as_str())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut children = [spawn(), spawn()];
    for round in 0..12_i64 {
        insert(&mut conn, round * 100, 100).await;
        for t in 1..4 {
            conn.execute(sqlx::AssertSqlSafe(format!(
                "INSERT INTO public.readings_{t} (id, ts, note, amount) SELECT id, ts, note, amount FROM public.readings WHERE id >= {}",
                round * 100
            )))
            .await
            .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(50..700))).await;
        let child = &mut children[(round % 2) as usize];
        child.kill().unwrap();
        child.wait().unwrap();
        *child = spawn();
    }
    let cfg = || verify::Config { database_url: s.db.url("watershed_archiver"), lake_root: s.root.clone() };
    let mut reports = Vec::new();
    for _ in 0..300 {
        reports = verify::verify(cfg(), None).await.unwrap();
        reports.retain(|r| r.table.starts_with(TABLE));
        assert!(reports.iter().all(|r| r.ok), "{reports:?}");
        if reports.iter().all(|r| r.lake.rows == 1200) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let rows: Vec<_> = reports.iter().map(|r| (r.lake.rows, r.tail_rows)).collect();
    assert_eq!(rows, [(1200, 0); 4]);
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Not a test of its own: an archiver that runs until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child_runs() {
    let (Ok(url), Ok(root)) =
        (std::env::var("WATERSHED_TEST_CHILD_URL"), std::env::var("WATERSHED_TEST_CHILD_LAKE"))
    else {
        return;
    };
    let mut cfg = archiver::Config::new(url, root.parse().unwrap());
    cfg.poll = Duration::from_millis(50);
    cfg.interval = Duration::from_millis(100);
    archiver::run(cfg, CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archivers_take_turns() {
    let s = Arc::new(Stores::new().await);
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0, 500).await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let s = s.clone();
        tasks.push(tokio::spawn(async move { s.archive().await.unwrap().rows }));
    }
    let mut rows = 0;
    for t in tasks {
        rows += t.await.unwrap();
    }
    assert_eq!(rows, 500);
    s.assert_exact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_lineage_stops_archiving() {
    let s = Stores::new().await;
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0, 10).await;
    s.archive().await.unwrap();
    insert(&mut conn, 10, 10).await;
    conn.execute("UPDATE watershed_control.tables SET lineage = '1/1'").await.unwrap();
    assert!(matches!(s.archive().await, Err(Error::LineageChanged { .. })));
    conn.execute("UPDATE watershed_control.tables SET lineage = watershed_control.current_lineage()")
        .await
        .unwrap();
    // A boundary that PostgreSQL does not have.
    conn.execute("DELETE FROM watershed_control.archives").await.unwrap();
    assert!(matches!(s.archive().await, Err(Error::UnknownArchive { archive: 1, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_added_and_renamed() {
    let s = Stores::new().await;
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0, 10).await;
    s.archive().await.unwrap();
    conn.execute("ALTER TABLE public.readings ADD COLUMN extra jsonb").await.unwrap();
    conn.execute("ALTER TABLE public.readings RENAME COLUMN note TO remark").await.unwrap();
    conn.execute("INSERT INTO public.readings (id, ts, remark, extra) VALUES (100, now(), 'x', '{\"b\":1, \"a\":[1.50, null]}')").await.unwrap();
    s.archive().await.unwrap();
    s.assert_exact().await;
    let v = s.verify().await;
    assert!(v.ok, "{v:?}");
    assert_eq!(v.lake.rows, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_what_differs() {
    let s = Stores::new().await;
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0, 300).await;
    s.archive().await.unwrap();
    insert(&mut conn, 300, 5).await;
    // Behind the product's back: what append-only tables never do.
    conn.execute("SET session_replication_role = replica; SET watershed.maintenance = 'on'").await.unwrap();
    for t in [
        "UPDATE public.readings SET note = 'changed' WHERE id = 77",
        "DELETE FROM public.readings WHERE id = 78",
    ] {
        conn.execute(sqlx::AssertSqlSafe(format!(
            "DO $$ BEGIN
                EXECUTE (SELECT string_agg(format('ALTER TABLE %s DISABLE TRIGGER ALL', part_relid::regclass), ';') FROM watershed_control.partitions);
                {t}; END $$"
        )))
        .await
        .ok();
    }
    let changed: i64 =
        sqlx::query_scalar("SELECT count(*) FROM public.readings WHERE id IN (77, 78) AND note <> 'changed'")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    if changed == 2 {
        // The guards hold against this road too; write the difference into the lake instead.
        let spec = s.spec(&mut conn).await;
        let mut table = LakeTable::open(&s.root, &spec).await.unwrap().unwrap();
        let archive = table.current().archive;
        let file = table.current().files[0].clone();
        let mut reader = FileReader::open(&table, &file, spec.arrow_schema(), 1).await.unwrap();
        let row = reader.next().await.unwrap().unwrap();
        let mut w = lake::writer::FileWriter::create(&table, file.day, &Default::default()).await.unwrap();
        w.write(&row).await.unwrap();
        let new = w.close().await.unwrap();
        let mut leader = s.db.admin().await;
        leader
            .execute(sqlx::AssertSqlSafe(format!(
                "INSERT INTO watershed_control.archives SELECT relid, number + 1, boundary, lineage, fence FROM watershed_control.archives WHERE number = {archive}"
            )))
            .await
            .unwrap();
        table.commit_append(vec![new], archive + 1, archive, i64::MAX).await.unwrap();
    }
    let v = s.verify().await;
    assert!(!v.ok);
    let text = v.difference.unwrap();
    println!("{text}");
    assert!(text.contains("id=") && text.contains("more of this row"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_crash_with_asynchronous_commits() {
    let cluster = Arc::new(Cluster::start_new());
    let s = Stores::on(cluster.clone()).await;
    for round in 0..3_i64 {
        let stop = CancellationToken::new();
        let mut writers = Vec::new();
        for w in 0..3_i64 {
            let (url, stop) = (s.db.url("watershed_admin"), stop.clone());
            writers.push(tokio::spawn(async move {
                let mut conn = PgConnection::connect(&url).await.unwrap();
                conn.execute("SET synchronous_commit = off").await.unwrap();
                let mut id = round * 1_000_000 + w * 300_000;
                while !stop.is_cancelled() {
                    let sql = format!("INSERT INTO {TABLE} (id, ts, note) SELECT i, now(), 'n' FROM generate_series({id}, {id} + 9) i");
                    if conn.execute(sqlx::AssertSqlSafe(sql)).await.is_err() {
                        break;
                    }
                    id += 10;
                }
            }));
        }
        let mut shipped = 0;
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            shipped += s.archive().await.unwrap().rows;
        }
        assert!(shipped > 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::task::block_in_place(|| cluster.stop("immediate"));
        stop.cancel();
        for w in writers {
            w.await.unwrap();
        }
        tokio::task::block_in_place(|| cluster.start());
        s.assert_exact().await;
        let v = s.verify().await;
        assert!(v.ok, "{v:?}");
        s.archive().await.unwrap();
        s.assert_exact().await;
        assert!(s.verify().await.ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_archives_by_itself() {
    let s = Stores::new().await;
    let mut cfg = s.config();
    cfg.poll = Duration::from_millis(50);
    cfg.interval = Duration::from_secs(3600);
    cfg.min_rows = 100;
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(archiver::run(cfg, shutdown.clone()));
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0, 50).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(s.verify().await.lake.rows, 0);
    insert(&mut conn, 50, 60).await;
    let mut rows = 0;
    for _ in 0..1_000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rows = s.verify().await.lake.rows;
        if rows > 0 {
            break;
        }
    }
    assert_eq!(rows, 110);
    s.assert_exact().await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
}

/// What the decoder makes of PostgreSQL's binary form is what PostgreSQL itself prints, for every type and its extremes.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_postgresqls_own() {
    use lake::types::ColType;
    let db = Cluster::shared().database().await;
    let mut conn = db.admin().await;
    let cases: Vec<(ColType, &str, &str, &[&str])> = vec![
        (ColType::Bool, "bool", "v::text", &["t", "f"]),
        (ColType::Int2, "int2", "v::text", &["-32768", "0", "32767"]),
        (ColType::Int4, "int4", "v::text", &["-2147483648", "7", "2147483647"]),
        (ColType::Int8, "int8", "v::text", &["-9223372036854775808", "9223372036854775807"]),
        (ColType::Xid8, "xid8", "v::text", &["3", "9223372036854775807"]),
        (ColType::Float4, "float4", "v::text", &["1.5", "-0.25", "0", "65536.5"]),
        (ColType::Float8, "float8", "v::text", &["0.1", "-123456.789", "0.3333333333333333"]),
        (
            ColType::NumericText,
            "numeric",
            "v::text",
            &[
                "0",
                "0.000",
                "-0.1",
                "1e-30",
                "1e40",
                "12345678901234567890123456789012345678901234567890.000100",
                "NaN",
                "Infinity",
                "-Infinity",
                "1000000000000",
                "0.00000000000000012300",
                "-9999.9999",
                "10000",
                "9999.0",
            ],
        ),
        (
            ColType::Numeric { precision: 38, scale: 10 },
            "numeric(38,10)",
            "v::text",
            &[
                "0",
                "9999999999999999999999999999.9999999999",
                "-9999999999999999999999999999.9999999999",
                "0.0000000001",
                "-1",
                "10000.0001",
            ],
        ),
        (
            ColType::Numeric { precision: 5, scale: 0 },
            "numeric(5,0)",
            "v::text",
            &["99999", "-99999", "10000", "0"],
        ),
        (ColType::Numeric { precision: 4, scale: 4 }, "numeric(4,4)", "v::text", &["0.9999", "-0.0001", "0"]),
        (
            ColType::Text,
            "text",
            "v::text",
            &["", "a", "z\u{10ffff}é", "twelve bytes", "more than twelve bytes"],
        ),
        (ColType::Varchar, "varchar(9)", "v::text", &["", "ü"]),
        (
            ColType::Uuid,
            "uuid",
            "v::text",
            &["00000000-0000-0000-0000-000000000000", "FEDCBA98-7654-3210-ffff-0123456789ab"],
        ),
        (
            ColType::Jsonb,
            "jsonb",
            "v::text",
            &["null", "{\"b\": [1.50, {}], \"a\": \"\\u00e9\"}", "1e3", "[]"],
        ),
        (ColType::Bytea, "bytea", "encode(v, 'hex')", &["\\x", "\\x00ff10"]),
        (
            ColType::Date,
            "date",
            "CASE WHEN isfinite(v) THEN (v - date '1970-01-01')::text ELSE v::text END",
            &[
                "4713-01-01 BC",
                "1969-12-31",
                "1970-01-01",
                "2000-01-01",
                "5874897-12-31",
                "infinity",
                "-infinity",
            ],
        ),
        (
            ColType::Timestamp,
            "timestamp",
            "CASE WHEN isfinite(v) THEN trim_scale(extract(epoch from v) * 1000000)::text ELSE v::text END",
            &[
                "4713-01-01 00:00:00 BC",
                "1969-12-31 23:59:59.999999",
                "2000-01-01",
                "294246-12-31 23:59:59.999999",
                "infinity",
                "-infinity",
            ],
        ),
        (
            ColType::TimestampTz,
            "timestamptz",
            "CASE WHEN isfinite(v) THEN trim_scale(extract(epoch from v) * 1000000)::text ELSE v::text END",
            &[
                "4713-01-01 00:00:00+00 BC",
                "2024-03-31 02:30:00.5+02",
                "294246-12-31 23:59:59.999999+00",
                "infinity",
                "-infinity",
            ],
        ),
    ];
    for (ty, name, text, values) in cases {
        let listed: Vec<String> = values.iter().map(|v| format!("('{v}'::{name})")).collect();
        let sql = format!(
            "COPY (SELECT v, {text} FROM (VALUES {}, (NULL::{name})) t(v)) TO STDOUT (FORMAT binary)",
            listed.join(", ")
        );
        let fields = [("v", ty), ("t", ColType::Text)];
        let schema = Arc::new(arrow::datatypes::Schema::new(
            fields.map(|(n, t)| arrow::datatypes::Field::new(n, t.arrow(), true)).to_vec(),
        ));
        let mut decoder = lake::pgcopy::CopyDecoder::new(&[ty, ColType::Text], schema, 100).unwrap();
        let mut stream = conn.copy_out_raw(&sql).await.unwrap();
        while let Some(chunk) = stream.try_next().await.unwrap() {
            decoder.push(&chunk).unwrap();
        }
        drop(stream);
        let batch = decoder.finish().unwrap().unwrap();
        assert_eq!(batch.num_rows(), values.len() + 1, "{name}");
        let wanted = batch.column(1).as_string_view();
        for row in 0..batch.num_rows() {
            let ours = shown(batch.column(0).as_ref(), row);
            let theirs = (!batch.column(1).is_null(row)).then(|| wanted.value(row).to_owned());
            assert_eq!(ours, theirs, "{name}");
        }
    }
}

/// The value in the form that the queries above make PostgreSQL print.
fn shown(array: &dyn arrow::array::Array, row: usize) -> Option<String> {
    use arrow::datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
        TimestampMicrosecondType,
    };
    if array.is_null(row) {
        return None;
    }
    let infinite = |low: bool| if low { "-infinity" } else { "infinity" }.to_owned();
    Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Utf8View => array.as_string_view().value(row).to_owned(),
        DataType::BinaryView => {
            array.as_binary_view().value(row).iter().map(|b| format!("{b:02x}")).collect()
        }
        DataType::Date32 => match array.as_primitive::<Date32Type>().value(row) {
            v @ (i32::MIN | i32::MAX) => infinite(v < 0),
            v => v.to_string(),
        },
        DataType::Timestamp(..) => match array.as_primitive::<TimestampMicrosecondType>().value(row) {
            v @ (i64::MIN | i64::MAX) => infinite(v < 0),
            v => v.to_string(),
        },
        other => panic!("{other}"),
    })
}

//! Retention against a real PostgreSQL and a lake: days leave only when the lake holds them, and whoever reads lake and tail under the fence
//! finds every row once, whatever leaves meanwhile.

#[path = "../archiver/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use ingest::archiver::{self, archive_now};
use ingest::retention::{Config, Outcome, Report, retain};
use ingest::verify;
use lake::Url;
use lake::boundary::Boundary;
use lake::log::LakeTable;
use lake::reader::FileReader;
use lake::spec::{PRESENT, TableSpec, load_specs};
use lake::types::partition_day;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use cluster::{Cluster, Database};

const TABLE: &str = "public.readings";

struct Stores {
    db: Database,
    _dir: tempfile::TempDir,
    root: Url,
}

impl Stores {
    /// A table whose days begin ten days ago, with rows of the last `days` days, `each` a day.
    async fn with_days(days: i32, each: i32) -> Self {
        let db = Cluster::shared().database().await;
        let dir = tempfile::tempdir().unwrap();
        let root = Url::from_directory_path(dir.path()).unwrap();
        let stores = Self { db, _dir: dir, root };
        stores
            .run(
                "CREATE TABLE public.readings (id bigint, ts timestamptz NOT NULL, note text);
                 SELECT watershed.attach_table('public.readings', event_time => 'ts', first_day => (now() AT TIME ZONE 'UTC')::date - 10);
                 CREATE SEQUENCE public.ids",
            )
            .await;
        for day in 0..days {
            stores.insert(day, each).await;
        }
        stores
    }

    async fn run(&self, sql: &str) {
        self.db.admin().await.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    /// Rows of the day so many days ago.
    async fn insert(&self, day: i32, rows: i32) {
        self.run(&format!(
            "INSERT INTO {TABLE} (id, ts, note) SELECT nextval('public.ids'), ((now() AT TIME ZONE 'UTC')::date - {day} + i * interval '1 second') AT TIME ZONE 'UTC',
                    'note ' || i FROM generate_series(1, {rows}) i"
        ))
        .await;
    }

    async fn archive(&self) {
        archive_now(archiver::Config::new(self.db.url("watershed_archiver"), self.root.clone()), Some(TABLE)).await.unwrap();
    }

    fn config(&self) -> Config {
        Config {
            notice: Duration::ZERO,
            lock_timeout: Duration::from_millis(50),
            ..Config::new(self.db.url("watershed_archiver"), self.root.clone())
        }
    }

    async fn retain(&self) -> Report {
        retain(self.config(), Some(TABLE), false).await.unwrap().remove(0)
    }

    async fn text(&self, sql: &str) -> String {
        let mut conn = self.db.admin().await;
        sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(sql.to_owned())).fetch_one(&mut conn).await.unwrap().unwrap_or_default()
    }

    /// How many days ago the floor lies.
    async fn floor(&self) -> String {
        self.text("SELECT ((now() AT TIME ZONE 'UTC')::date - (floor AT TIME ZONE 'UTC')::date)::text FROM watershed.tables WHERE table_name = 'public.readings' AND isfinite(floor)
                   UNION ALL SELECT 'none' LIMIT 1").await
    }

    /// Ids that a reader finds who goes by the rules: a pinned version, the fence and the tail in one snapshot, a newer version if the fence
    /// says so.
    async fn seen(&self) -> BTreeMap<i64, u32> {
        let mut conn = self.db.admin().await;
        loop {
            let spec = spec(&mut conn).await;
            let table = LakeTable::open(&self.root, &spec).await.unwrap();
            let version = table.as_ref().map(LakeTable::current);
            let archive = version.as_ref().map_or(0, |v| v.archive);
            let boundary: Option<String> =
                sqlx::query_scalar("SELECT boundary FROM watershed_control.archives WHERE relid = $1 AND number = $2")
                    .bind(sqlx::postgres::types::Oid(spec.relid))
                    .bind(archive)
                    .fetch_optional(&mut conn)
                    .await
                    .unwrap();
            let boundary = boundary.map_or(Boundary::NOTHING, |b| b.parse::<Boundary>().unwrap());
            conn.execute("BEGIN").await.unwrap();
            conn.execute(AssertSqlSafe(format!("LOCK TABLE {TABLE} IN ACCESS SHARE MODE"))).await.unwrap();
            let sql = format!(
                "SELECT f.min_archive, f.lake_floor::text, t.id FROM watershed_control.tables f LEFT JOIN
                 (SELECT id, ts FROM {TABLE} t WHERE {PRESENT} AND {}) t ON t.ts >= f.lake_floor WHERE f.relid = {}",
                boundary.tail_predicate("t._xid"),
                spec.relid
            );
            let rows = conn.fetch_all(AssertSqlSafe(sql)).await.unwrap();
            let lake_floor: Option<i64> = sqlx::query_scalar(
                "SELECT CASE WHEN isfinite(lake_floor) THEN (EXTRACT(epoch FROM lake_floor) * 1000000)::int8 END FROM watershed_control.tables WHERE relid = $1",
            )
            .bind(sqlx::postgres::types::Oid(spec.relid))
            .fetch_one(&mut conn)
            .await
            .unwrap();
            conn.execute("COMMIT").await.unwrap();
            if rows[0].get::<i64, _>(0) > archive {
                continue;
            }
            let mut ids = BTreeMap::new();
            for row in &rows {
                if let Some(id) = row.get::<Option<i64>, _>(2) {
                    *ids.entry(id).or_default() += 1;
                }
            }
            if let (Some(table), Some(version)) = (&table, &version) {
                let shown = |day: i32| lake_floor.is_none_or(|us| day >= partition_day(us));
                for file in version.files.iter().filter(|f| shown(f.day)) {
                    let mut reader = FileReader::open(table, file, table.spec().arrow_schema(), 8192).await.unwrap();
                    while let Some(batch) = reader.next().await.unwrap() {
                        for id in batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values() {
                            *ids.entry(*id).or_default() += 1;
                        }
                    }
                }
            }
            return ids;
        }
    }

    async fn assert_all(&self, rows: usize) {
        let seen = self.seen().await;
        assert!(seen.values().all(|n| *n == 1), "a row is seen twice");
        assert_eq!(seen.len(), rows);
    }
}

async fn spec(conn: &mut PgConnection) -> TableSpec {
    load_specs(conn).await.unwrap().into_iter().find(|s| s.qualified() == TABLE).unwrap()
}

fn blocked(report: &Report) -> Option<&str> {
    report.steps.iter().find_map(|s| match &s.outcome {
        Outcome::Blocked(why) => Some(why.as_str()),
        _ => None,
    })
}

fn done(report: &Report) -> Vec<u64> {
    report.steps.iter().filter_map(|s| match s.outcome { Outcome::Done { rows } => Some(rows), _ => None }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn days_leave_when_the_lake_has_them_and_no_row_is_missed() {
    let s = Stores::with_days(14, 10).await;
    assert!(s.retain().await.steps.is_empty(), "no window, no retention");
    s.run("SELECT watershed.set_retention('public.readings', hot_days => 5)").await;
    let plan = retain(s.config(), Some(TABLE), true).await.unwrap().remove(0);
    assert!(plan.steps.len() == 6 && plan.steps.iter().all(|s| s.outcome == Outcome::Planned), "{plan:?}");
    assert_eq!(s.floor().await, "none");
    assert_eq!(blocked(&s.retain().await), Some("nothing was archived yet"));
    s.archive().await;
    // The rows before the first day, three days of them, go together; then five days one by one.
    assert_eq!(done(&s.retain().await), [30, 10, 10, 10, 10, 10]);
    assert_eq!(s.floor().await, "5");
    assert_eq!(s.text(&format!("SELECT count(*)::text FROM {TABLE} t WHERE {PRESENT}")).await, "60");
    s.assert_all(140).await;
    assert!(s.retain().await.steps.is_empty());
    let cfg = verify::Config { database_url: s.db.url("watershed_archiver"), lake_root: s.root.clone() };
    let report = verify::verify(cfg, Some(TABLE)).await.unwrap().remove(0);
    assert!(report.ok && report.below_floor == 80, "{report:?}");

    // Late rows: tail, then lake and PostgreSQL, then lake alone.
    s.insert(9, 7).await;
    s.insert(300, 2).await;
    s.assert_all(149).await;
    assert!(s.retain().await.steps.is_empty(), "they are not archived yet");
    s.archive().await;
    s.assert_all(149).await;
    assert_eq!(done(&s.retain().await), [9]);
    assert_eq!(s.text(&format!("SELECT count(*)::text FROM {TABLE} t WHERE {PRESENT}")).await, "60");
    s.assert_all(149).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_differs_stays() {
    let s = Stores::with_days(8, 10).await;
    s.archive().await;
    s.run("SELECT watershed.set_retention('public.readings', hot_days => 5)").await;
    s.run("BEGIN; SET LOCAL watershed.maintenance = 'on'; UPDATE public.readings SET note = 'other' WHERE id = 65; COMMIT").await;
    let report = s.retain().await;
    assert!(blocked(&report).is_some_and(|why| why.contains("the stores differ")), "{report:?}");
    assert_eq!(s.text("SELECT retention_note FROM watershed.tables WHERE table_name = 'public.readings'").await.contains("the stores differ"), true);
    let part = s.text("SELECT tableoid::regclass::text FROM public.readings WHERE id = 65 AND ts >= ((now() AT TIME ZONE 'UTC')::date - 6) AT TIME ZONE 'UTC'").await;
    s.run(&format!("BEGIN; SET LOCAL watershed.maintenance = 'on'; UPDATE {part} SET note = 'note 5' WHERE id = 65; COMMIT")).await;
    let report = s.retain().await;
    assert_eq!(blocked(&report), None);
    assert_eq!(s.floor().await, "5");
    s.assert_all(80).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_archived_stay_among_the_late_ones() {
    let s = Stores::with_days(8, 10).await;
    s.archive().await;
    s.insert(7, 3).await;
    s.run("SELECT watershed.set_retention('public.readings', hot_days => 5)").await;
    assert_eq!(blocked(&s.retain().await), None);
    assert_eq!(s.floor().await, "5");
    s.assert_all(83).await;
    s.archive().await;
    assert_eq!(done(&s.retain().await), [3]);
    s.assert_all(83).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_in_the_way_delays_and_a_forward_that_is_behind_does_too() {
    let s = Stores::with_days(8, 10).await;
    s.archive().await;
    s.run("SELECT watershed.set_retention('public.readings', hot_days => 6)").await;
    s.run("INSERT INTO watershed_control.forwards (name, boundary, relid) VALUES ('alerts', '0:0:', 'public.readings'::regclass)").await;
    assert!(blocked(&s.retain().await).is_some_and(|why| why.contains("forward alerts")));
    s.run("UPDATE watershed_control.forwards SET boundary = pg_current_snapshot()::text").await;
    let mut reader = s.db.admin().await;
    reader.execute("BEGIN; SELECT id FROM public.readings WHERE ts > now() - interval '1 day' LIMIT 1").await.unwrap();
    let cfg = s.config();
    let waiting = tokio::spawn(async move { retain(cfg, Some(TABLE), false).await.unwrap().remove(0) });
    // Writers come through all the while.
    for _ in 0..20 {
        s.insert(0, 1).await;
    }
    reader.execute("COMMIT").await.unwrap();
    let report = waiting.await.unwrap();
    assert_eq!(blocked(&report), None, "{report:?}");
    assert_eq!(s.floor().await, "6");
    s.assert_all(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_lake_keeps_is_gone_for_everybody() {
    let s = Stores::with_days(14, 10).await;
    s.archive().await;
    s.run("SELECT watershed.set_retention('public.readings', hot_days => 8, lake_days => 9)").await;
    let report = s.retain().await;
    assert_eq!(blocked(&report), None, "{report:?}");
    // Days 13 to 10 are gone; day 9 is in the lake alone.
    s.assert_all(100).await;
    // Rows from before the floor are taken in, and nobody sees them.
    s.insert(12, 5).await;
    s.assert_all(100).await;
    s.archive().await;
    s.assert_all(100).await;
    s.retain().await;
    assert_eq!(s.text(&format!("SELECT count(*)::text FROM {TABLE} t WHERE {PRESENT}")).await, "90");
    s.assert_all(100).await;
}

/// Rows come, are archived, leave, and are read, all at once; every reader finds exactly what was committed when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_miss_nothing_while_days_leave() {
    for seed in 0..3 {
        let s = std::sync::Arc::new(Stores::with_days(12, 20).await);
        s.archive().await;
        let reading = {
            let s = s.clone();
            tokio::spawn(async move {
                let mut looks = 0;
                let mut last = 0;
                while looks < 40 {
                    let before = s.text("SELECT last_value::text FROM public.ids").await.parse::<usize>().unwrap();
                    let seen = s.seen().await;
                    assert!(seen.values().all(|n| *n == 1), "a row is seen twice");
                    assert!(seen.len() >= last && seen.len() >= 240, "{} rows after {last}", seen.len());
                    // Ids are given in order, and each insert is committed before the next begins.
                    assert!(seen.len() + 5 >= before, "{} rows of {before}", seen.len());
                    last = seen.len();
                    looks += 1;
                }
            })
        };
        let mut random = StdRng::seed_from_u64(seed);
        let mut hot = 9;
        while !reading.is_finished() {
            match random.random_range(0..6) {
                0..2 => s.insert(random.random_range(0..12), random.random_range(1..5)).await,
                2..4 => s.archive().await,
                4 => {
                    hot = (hot - 1).max(1);
                    s.run(&format!("SELECT watershed.set_retention('public.readings', hot_days => {hot})")).await;
                }
                _ => {
                    let report = s.retain().await;
                    assert!(blocked(&report).is_none_or(|why| why.contains("in use")), "{report:?}");
                }
            }
        }
        reading.await.unwrap();
        let all = s.text("SELECT last_value::text FROM public.ids").await.parse().unwrap();
        s.assert_all(all).await;
    }
}

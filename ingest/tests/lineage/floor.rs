//! A server that lost commits while the table has a floor: what is below the floor is the lake's, and stays so; what is above comes back.
//! And one that lost the raising of the floor itself: it holds the old days again, and gets what else the lake knows of them.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use ingest::retention::{self, Outcome, retain};
use lake::log::LakeTable;
use lake::reader::FileReader;
use lake::spec::{PRESENT, load_specs};

use super::*;

/// The days of [`insert`] are 2024-05-01 to 04; every ninth row is of long before.
fn day_of(id: i64) -> i64 {
    if id % 9 == 0 { 0 } else { 1 + id % 4 }
}

impl Stores {
    /// Lets the days before 2024-05-`day` leave PostgreSQL, and late rows too.
    async fn raise_floor(&self, day: i64) {
        let mut admin = self.db.admin().await;
        let sql = format!(
            "SELECT watershed.set_retention('{TABLE}', hot_days => (now() AT TIME ZONE 'UTC')::date - date '2024-05-{day:02}')"
        );
        admin.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        let mut cfg = retention::Config::new(self.db.url("watershed_archiver"), self.root.clone());
        cfg.notice = Duration::from_millis(10);
        for report in retain(cfg, Some(TABLE), false).await.unwrap() {
            assert!(report.steps.iter().all(|s| matches!(s.outcome, Outcome::Done { .. })), "{report:?}");
        }
        assert_eq!(self.floor().await, format!("2024-05-{day:02} 00:00:00+00"));
    }

    async fn floor(&self) -> String {
        let mut admin = self.db.admin().await;
        admin.execute("SET TimeZone = 'UTC'").await.unwrap();
        sqlx::query_scalar("SELECT floor::text FROM watershed_control.tables WHERE relid = 'public.readings'::regclass")
            .fetch_one(&mut admin)
            .await
            .unwrap()
    }

    /// How often each id is in the lake.
    async fn lake_ids(&self) -> BTreeMap<i64, usize> {
        let mut conn = PgConnection::connect(&self.db.url("watershed_archiver")).await.unwrap();
        let spec = load_specs(&mut conn).await.unwrap().into_iter().find(|s| s.qualified() == TABLE).unwrap();
        let lake = LakeTable::open(&self.root, &spec).await.unwrap().unwrap();
        let version = lake.current();
        let mut ids = BTreeMap::new();
        for file in version.files.iter() {
            let mut reader = FileReader::open(&lake, file, spec.arrow_schema(), 8192).await.unwrap();
            while let Some(batch) = reader.next().await.unwrap() {
                for id in batch.column(0).as_primitive::<Int64Type>().values() {
                    *ids.entry(*id).or_insert(0) += 1;
                }
            }
        }
        ids
    }

    /// How often each id is in PostgreSQL, the part of late rows included, from this day on.
    async fn present_ids(&self, from_day: i64) -> BTreeMap<i64, usize> {
        let mut conn = self.db.admin().await;
        let sql = format!(
            "SELECT id FROM {TABLE} t WHERE {PRESENT} AND ts >= timestamptz '2024-05-{from_day:02} 00:00+00'"
        );
        let rows = conn.fetch_all(sqlx::AssertSqlSafe(sql)).await.unwrap();
        let mut ids = BTreeMap::new();
        for row in rows {
            *ids.entry(row.get(0)).or_insert(0) += 1;
        }
        ids
    }

    /// With everything archived: each id once in the lake, and once in PostgreSQL where its day is not below the floor.
    async fn assert_whole_from(&self, day: i64, ranges: &[std::ops::Range<i64>]) {
        let verified = self.verify().await.unwrap();
        assert!(verified.ok, "{verified:?}");
        assert_eq!((verified.in_both, verified.tail_rows), (0, 0), "{verified:?}");
        let all: BTreeMap<i64, usize> = ranges.iter().cloned().flatten().map(|i| (i, 1)).collect();
        assert_eq!(self.lake_ids().await, all);
        let hot: BTreeMap<i64, usize> = all.into_iter().filter(|(id, _)| day_of(*id) >= day).collect();
        assert_eq!(self.present_ids(day).await, hot);
    }
}

async fn stores(cluster: &Arc<Cluster>) -> Stores {
    let s = Stores::bare(cluster.clone()).await;
    let mut admin = s.db.admin().await;
    let attach = "SELECT watershed.attach_table('public.readings', event_time => 'ts', first_day => '2024-05-01')";
    admin.execute(attach).await.unwrap();
    s
}

/// The primary ends, the standby takes over.
async fn fail_over(s: Stores, standby: Arc<Cluster>) -> Stores {
    s.db.cluster.stop("immediate");
    standby.start();
    standby.promote();
    s.with(standby)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_below_the_floor_stay_the_lakes() {
    let primary = Arc::new(Cluster::start_new());
    let s = stores(&primary).await;
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0..200, 40).await;
    s.archive().await.unwrap();
    s.raise_floor(3).await;
    // Late rows that both servers have, of which the lake knows nothing.
    insert(&mut conn, 200..240, 10).await;
    let standby = Arc::new(primary.base_backup(true));

    // What only the primary and the lake have: rows of all days, late ones among them, which then leave the primary.
    insert(&mut conn, 1000..1100, 3).await;
    s.archive().await.unwrap();
    s.raise_floor(3).await;
    let waiting: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "SELECT count(*) FROM {TABLE} t WHERE {PRESENT} AND ts < '2024-05-03 00:00+00'"
    )))
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(waiting, 0, "late rows have left");
    // And not even the lake has these.
    insert(&mut conn, 2000..2010, 1).await;
    drop(conn);
    let s = fail_over(s, standby).await;

    // The new primary has the late rows of before still, and takes new rows of all days under numbers that the lake knows.
    assert_eq!(s.floor().await, "2024-05-03 00:00:00+00");
    let mut conn = s.db.admin().await;
    insert(&mut conn, 3000..3150, 1).await;
    assert_refused(s.archive().await);
    let above = (1000..1100).filter(|id| day_of(*id) >= 3).count() as u64;
    let dry = s.dry_run().await;
    assert_eq!((dry.found, dry.restored, dry.replaced), (Found::Broken, above, 0), "{dry:?}");
    let done = s.rebase().await;
    assert_eq!((done.found, done.restored, done.replaced), (Found::Broken, above, 0), "{done:?}");
    let verified = s.verify().await.unwrap();
    assert!(verified.ok && verified.in_both == 0, "{verified:?}");
    s.archive().await.unwrap();
    let whole = [0..240, 1000..1100, 3000..3150];
    s.assert_whole_from(3, &whole).await;

    // Late rows leave again, the floor goes on.
    s.raise_floor(4).await;
    s.assert_whole_from(4, &whole).await;
    assert_eq!(s.rebase().await.found, Found::Current);
    insert(&mut conn, 4000..4050, 5).await;
    s.archive().await.unwrap();
    s.assert_whole_from(4, &[0..240, 1000..1100, 3000..3150, 4000..4050]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_the_floor_itself_holds_everything_again() {
    let primary = Arc::new(Cluster::start_new());
    let s = stores(&primary).await;
    let mut conn = s.db.admin().await;
    insert(&mut conn, 0..200, 40).await;
    s.archive().await.unwrap();
    let standby = Arc::new(primary.base_backup(true));
    insert(&mut conn, 1000..1100, 3).await;
    s.archive().await.unwrap();
    s.raise_floor(3).await;
    insert(&mut conn, 1100..1140, 10).await;
    s.archive().await.unwrap();
    s.raise_floor(3).await;
    drop(conn);
    let s = fail_over(s, standby).await;
    assert_eq!(s.floor().await, "-infinity");
    let mut conn = s.db.admin().await;
    insert(&mut conn, 3000..3060, 1).await;
    assert_refused(s.archive().await);
    let done = s.rebase().await;
    assert_eq!((done.found, done.restored, done.replaced), (Found::Broken, 140, 0), "{done:?}");
    let whole = [0..200, 1000..1140, 3000..3060];
    s.assert_whole(&whole).await;
    s.archive().await.unwrap();
    s.assert_whole(&whole).await;
    s.raise_floor(3).await;
    s.assert_whole_from(3, &whole).await;
}

//! The compactor on a real PostgreSQL and a local-disk lake: the whole turn, two compactors at once, and death at every step.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use arrow::record_batch::RecordBatch;
use compactor::{CompactReport, Config, Request, compact_now, compact_now_with};
use futures::TryStreamExt;
use lake::checksum::Checksum;
use lake::log::{LakeTable, LakeVersion};
use lake::spec::{TableSpec, load_specs};
use lake::types;
use lake::writer::{FileWriter, WriterOptions};
use object_store::{ObjectStore, ObjectStoreExt};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use url::Url;

/// A PostgreSQL cluster of the test's own, on a socket in its own directory, gone when dropped.
struct Cluster {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

fn programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin"));
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|p| std::env::split_paths(&p).collect::<Vec<_>>());
    installed.chain(on_path).find(|dir| dir.join("initdb").exists()).expect("PostgreSQL is installed")
}

impl Cluster {
    fn run(&self, program: &str, args: &[&str]) {
        let program = self.bin.join(program);
        let mut command = if self.as_root() {
            let mut c = Command::new("setpriv");
            c.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
            c
        } else {
            Command::new(program)
        };
        let out = command
            .args(args)
            .current_dir(self.dir.path())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    fn as_root(&self) -> bool {
        std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
    }

    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Self { bin: programs(), dir };
        let home = cluster.dir.path().to_owned();
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
        let pg = home.join("pg");
        std::fs::create_dir(&pg).unwrap();
        if cluster.as_root() {
            assert!(Command::new("chown").arg("postgres").arg(&pg).status().unwrap().success());
        }
        let (data, log) = (pg.join("data").display().to_string(), pg.join("log").display().to_string());
        cluster.run(
            "initdb",
            &["-D", &data, "-U", "watershed_admin", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"],
        );
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c fsync=off -c max_locks_per_transaction=512",
            pg.display()
        );
        cluster.run("pg_ctl", &["-D", &data, "-w", "-l", &log, "-o", &options, "start"]);
        let mut admin = PgConnection::connect(&cluster.url("watershed_admin", "postgres")).await.unwrap();
        sqlx::query("CREATE DATABASE watershed").execute(&mut admin).await.unwrap();
        let mut db = PgConnection::connect(&cluster.url("watershed_admin", "watershed")).await.unwrap();
        sqlx::migrate!("../sql/migrations").run(&mut db).await.unwrap();
        cluster
    }

    fn url(&self, user: &str, database: &str) -> String {
        let socket = self.dir.path().join("pg").display().to_string().replace('/', "%2F");
        format!("postgres://{user}@{socket}/{database}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.dir.path().join("pg/data").display().to_string();
        self.run("pg_ctl", &["-D", &data, "-m", "immediate", "stop"]);
    }
}

/// A compactor that tidies up at once.
fn config(database_url: String, root: &Url) -> Config {
    Config {
        database_url,
        lake_root: root.clone(),
        interval: Duration::from_millis(50),
        grace: Duration::ZERO,
        orphan_grace: Duration::ZERO,
        memory_limit_bytes: 128 << 20,
        ..Config::default()
    }
}

async fn logs(url: &str) -> TableSpec {
    let mut conn = PgConnection::connect(url).await.unwrap();
    load_specs(&mut conn).await.unwrap().into_iter().find(|s| s.name == "logs").unwrap()
}

/// `n` rows of `day`, every `step` microseconds from `first` on.
fn rows(spec: &TableSpec, day: i64, first: i64, step: i64, n: i64) -> RecordBatch {
    let columns = spec.columns.iter().map(|c| -> ArrayRef {
        let values = || (0..n).map(move |i| day * types::DAY_MICROS + first + i * step);
        match c.lake_name.as_str() {
            "ts" => Arc::new(TimestampMicrosecondArray::from_iter_values(values()).with_timezone("UTC")),
            "message" => {
                Arc::new(StringViewArray::from_iter_values(values().map(|v| format!("what happened at {v}"))))
            }
            types::XID | types::OFFSET => Arc::new(Int64Array::from_iter_values(values())),
            types::STREAM => Arc::new(Int32Array::from_iter_values((0..n).map(|_| 1))),
            _ => new_null_array(&c.ty.arrow(), n as usize),
        }
    });
    RecordBatch::try_new(spec.arrow_schema(), columns.collect()).unwrap()
}

/// Ten archives of two days each, every one overlapping every other.
async fn fill(root: &Url, spec: &TableSpec) -> LakeTable {
    let mut table = LakeTable::open_or_create(root, spec).await.unwrap();
    for archive in 1..=10 {
        let mut files = Vec::new();
        for day in [100, 101] {
            let mut w = FileWriter::create(&table, day, &WriterOptions::default()).await.unwrap();
            w.write(&rows(spec, i64::from(day), archive, 40_000_000, 2000)).await.unwrap();
            files.push(w.close().await.unwrap());
        }
        table.commit_append(files, archive, archive - 1, 1).await.unwrap();
    }
    table
}

/// The sum of every row, read by the Parquet crate alone.
async fn sum(table: &LakeTable, version: &LakeVersion) -> Checksum {
    let mut sum = Checksum::default();
    for file in version.files.iter() {
        let bytes = table.store().get(&file.location).await.unwrap().bytes().await.unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes)
            .unwrap()
            .build()
            .unwrap();
        for batch in reader {
            sum.add_batch(&batch.unwrap()).unwrap();
        }
    }
    sum
}

async fn data_files(table: &LakeTable) -> usize {
    let all: Vec<_> = table.store().list(Some(table.prefix())).try_collect().await.unwrap();
    let listed = all.iter().filter(|m| m.location.as_ref().contains("/_day=")).count();
    let dir = table.url().to_file_path().unwrap();
    let on_disk: usize = std::fs::read_dir(dir)
        .unwrap()
        .map(|d| d.unwrap().path())
        .filter(|d| d.file_name().unwrap().to_string_lossy().starts_with("_day="))
        .map(|d| std::fs::read_dir(d).unwrap().count())
        .sum();
    assert!(on_disk >= listed);
    on_disk
}

fn lake(dir: &Path, name: &str) -> Url {
    let path = dir.join(name);
    std::fs::create_dir_all(&path).unwrap();
    Url::from_directory_path(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_turn() {
    let cluster = Cluster::start().await;
    let archiver = cluster.url("watershed_archiver", "watershed");
    let spec = logs(&archiver).await;

    // From many files to one a day, and the old ones gone.
    let root = lake(cluster.dir.path(), "lake");
    let mut table = fill(&root, &spec).await;
    let before = sum(&table, &table.current()).await;
    assert_eq!(before.rows, 40_000);
    let progress = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let sink = progress.clone();
    let reports = compact_now_with(
        config(archiver.clone(), &root),
        Request { table: Some("logs".into()), full: false },
        Arc::new(move |p| sink.lock().push(p.clone())),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    let [
        CompactReport {
            table: name,
            jobs: 2,
            files_before: 20,
            files_after: 2,
            rows: 40_000,
            deleted_files: 20,
            ..
        },
    ] = reports.as_slice()
    else {
        panic!("{reports:?}");
    };
    assert_eq!(name, "public.logs");
    let last = progress.lock().last().cloned().unwrap();
    assert_eq!((last.rows, last.rows_total, last.day.as_str()), (40_000, 40_000, "1970-04-12"));
    let after = table.refresh().await.unwrap();
    assert_eq!((after.archive, after.rows), (10, 40_000));
    assert_eq!(sum(&table, &after).await, before);
    assert_eq!(data_files(&table).await, 2);

    // Again: nothing. A table that does not exist; a table without a lake.
    let again = compact_now(config(archiver.clone(), &root), Some("public.logs".into())).await.unwrap();
    assert_eq!((again[0].jobs, again[0].files_after, again[0].deleted_files), (0, 2, 0));
    assert!(matches!(
        compact_now(config(archiver.clone(), &root), Some("nothing".into())).await,
        Err(compactor::Error::UnknownTable(_))
    ));
    assert_eq!(compact_now(config(archiver.clone(), &root), Some("events".into())).await.unwrap(), []);

    // Removed files outlive the grace period; two at once take turns, and the loop ends when told.
    let root = lake(cluster.dir.path(), "shared");
    let mut table = fill(&root, &spec).await;
    let patient = Config { grace: Duration::from_secs(3600), ..config(archiver.clone(), &root) };
    let stop = CancellationToken::new();
    let looping = tokio::spawn(compactor::run(patient.clone(), stop.clone()));
    let (a, b) = tokio::join!(compact_now(patient.clone(), None), compact_now(patient.clone(), None));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a[0].jobs + b[0].jobs <= 2, "{a:?} {b:?}");
    stop.cancel();
    looping.await.unwrap().unwrap();
    let after = table.refresh().await.unwrap();
    assert_eq!(after.files.len(), 2);
    assert_eq!(sum(&table, &after).await, before);
    assert_eq!(data_files(&table).await, 22);
    let mut conn = PgConnection::connect(&archiver).await.unwrap();
    let (fence,): (i64,) =
        sqlx::query_as("SELECT fence FROM watershed_control.leaders WHERE kind = 'compactor'")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert!(fence >= 4, "{fence}");

    // A leader that lost its place commits nothing.
    let root = lake(cluster.dir.path(), "taken over");
    let mut table = fill(&root, &spec).await;
    let url = archiver.clone();
    let usurped = compact_now_with(
        config(archiver.clone(), &root),
        Request::default(),
        Arc::new(move |_| {
            let url = url.clone();
            // The sink is called within the compactor's own runtime; another thread has another.
            std::thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                    let mut conn = PgConnection::connect(&url).await.unwrap();
                    sqlx::query(
                        "UPDATE watershed_control.leaders SET fence = fence + 1 WHERE kind = 'compactor'",
                    )
                    .execute(&mut conn)
                    .await
                    .unwrap();
                });
            })
            .join()
            .unwrap();
        }),
        CancellationToken::new(),
    )
    .await;
    assert!(matches!(usurped, Err(compactor::Error::Superseded(_))), "{usurped:?}");
    assert_eq!(table.refresh().await.unwrap().files.len(), 20);
    assert_eq!(data_files(&table).await, 20);

    // Death at every step: the rows are there, and the next turn cleans up.
    let root = lake(cluster.dir.path(), "deaths");
    for (n, point) in [
        "compact.leader.taken",
        "compact.job",
        "lake.file.before_close",
        "lake.file.closed",
        "lake.file.durable",
        "compact.written",
        "compact.verified",
        "lake.commit.before",
        "lake.commit.after",
        "lake.commit.durable",
        "compact.committed",
        "compact.vacuum.delete",
        "compact.vacuum.done",
    ]
    .into_iter()
    .enumerate()
    {
        let root = root.join(&format!("{n}/")).unwrap();
        std::fs::create_dir_all(root.to_file_path().unwrap()).unwrap();
        let mut table = fill(&root, &spec).await;
        let died = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "as_a_child", "--nocapture"])
            .env("COMPACTOR_TEST_CHILD", format!("{archiver} {root}"))
            .env(lake::crash::VARIABLE, point)
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&died.status), Some(6), "{point}: {died:?}");
        let between = table.refresh().await.unwrap();
        assert_eq!(sum(&table, &between).await, before, "{point}");
        compact_now(config(archiver.clone(), &root), None).await.unwrap();
        let after = table.refresh().await.unwrap();
        assert_eq!(after.files.len(), 2, "{point}");
        assert_eq!(sum(&table, &after).await, before, "{point}");
        // A little time, so that what was left behind is older than nothing.
        tokio::time::sleep(Duration::from_millis(20)).await;
        compact_now(config(archiver.clone(), &root), None).await.unwrap();
        assert_eq!(data_files(&table).await, 2, "{point}");
    }
}

/// What the test above runs as a process that dies.
#[tokio::test]
async fn as_a_child() {
    let Ok(given) = std::env::var("COMPACTOR_TEST_CHILD") else { return };
    let (url, root) = given.split_once(' ').unwrap();
    compact_now(config(url.to_owned(), &Url::parse(root).unwrap()), None).await.unwrap();
}

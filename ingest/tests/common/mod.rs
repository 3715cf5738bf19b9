//! A scratch PostgreSQL with the project's migrations, one a test process, one database a test. It stops when the process
//! ends in whatever way: a shell beside it waits for the end of a pipe.
#![allow(dead_code)] // each test file uses its part

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

pub struct Server {
    pub dir: PathBuf,
    _shell: Child,
    _pipe: ChildStdin,
}

fn binaries() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(v, p)| *v >= 15 && p.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("tests need PostgreSQL 15 or newer below /usr/lib/postgresql").1
}

fn id(flag: &str) -> u32 {
    let out = Command::new("id").args([flag, "postgres"]).output().expect("id");
    String::from_utf8(out.stdout).unwrap().trim().parse().expect("tests run as root need a user postgres")
}

const SCRIPT: &str = r#"
set -e
cd "$DIR"
trap '' INT
"$BIN/initdb" -D data -U watershed_admin -A trust -E UTF8 --locale=C.UTF-8 -N >init.log 2>&1
"$BIN/postgres" -D data -c listen_addresses= -c unix_socket_directories="$DIR" -c max_prepared_transactions=10 \
    -c max_connections=60 -c fsync=off -c max_locks_per_transaction=256 -c log_line_prefix='%m [%p] ' >server.log 2>&1 &
pid=$!
for i in $(seq 300); do "$BIN/pg_isready" -q -h "$DIR" && break; sleep 0.05; done
echo up
cat >/dev/null
kill -QUIT $pid
wait $pid || true
cd /; rm -rf "$DIR"
"#;

impl Server {
    fn start() -> Server {
        let dir = tempfile::Builder::new().prefix("ws-ingest-").tempdir().unwrap().keep();
        let root = std::fs::metadata("/proc/self")
            .map(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
            .unwrap_or(false);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", SCRIPT])
            .env("DIR", &dir)
            .env("BIN", binaries())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if root {
            let (uid, gid) = (id("-u"), id("-g"));
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).unwrap();
            shell.uid(uid).gid(gid);
        }
        let mut shell = shell.spawn().expect("sh");
        let pipe = shell.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "PostgreSQL did not start in {}", dir.display());
        Server { dir, _shell: shell, _pipe: pipe }
    }

    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@localhost/{database}?host={}", self.dir.display())
    }
}

static SERVER: OnceCell<Server> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A database of its own, with the project's migrations.
pub struct Database {
    pub name: String,
    server: &'static Server,
}

impl Database {
    pub async fn new() -> Database {
        let server = SERVER
            .get_or_init(|| async {
                let server = Server::start();
                let mut admin = connect(&server.url("watershed_admin", "postgres")).await;
                run(&mut admin, "CREATE DATABASE watershed_template ENCODING 'UTF8' TEMPLATE template0")
                    .await;
                let mut inside = connect(&server.url("watershed_admin", "watershed_template")).await;
                let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/migrations");
                sqlx::migrate::Migrator::new(migrations.as_path())
                    .await
                    .unwrap()
                    .run(&mut inside)
                    .await
                    .unwrap();
                inside.close().await.unwrap();
                server
            })
            .await;
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut admin = connect(&server.url("watershed_admin", "postgres")).await;
        // Another test may be copying the template at this moment.
        run(&mut admin, "SELECT pg_advisory_lock(1)").await;
        run(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE watershed_template")).await;
        Database { name, server }
    }

    /// As the role that loads run as.
    pub fn url(&self) -> String {
        self.server.url("watershed_ingest", &self.name)
    }

    pub async fn admin(&self) -> PgConnection {
        connect(&self.server.url("watershed_admin", &self.name)).await
    }

    pub async fn count(&self, sql: &str) -> i64 {
        let mut c = self.admin().await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut c).await.unwrap()
    }

    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let mut c = self.admin().await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut c).await.unwrap()
    }

    /// A path that the server can write to.
    pub fn scratch(&self, name: &str) -> String {
        self.server.dir.join(name).display().to_string()
    }

    /// Seconds of processor time that the server's finished connections have used.
    pub fn server_cpu(&self) -> f64 {
        let pid = std::fs::read_to_string(self.server.dir.join("data/postmaster.pid")).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.lines().next().unwrap())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[13].parse::<f64>().unwrap() + fields[14].parse::<f64>().unwrap()) / 100.0
    }

    pub async fn run(&self, sql: &str) {
        let mut c = self.admin().await;
        run(&mut c, sql).await;
        c.close().await.unwrap();
    }
}

pub async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

pub async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}

/// The sample named by WATERSHED_SAMPLE_DATA, or one of the same form made here.
pub fn sample(dir: &Path, name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("WATERSHED_SAMPLE_DATA") {
        return PathBuf::from(folder).join(name);
    }
    let text: String = match name {
        "apache_combined.log" => (0..10_000)
            .map(|i| {
                format!(
                    "10.0.{}.{} - - [{:02}/May/2015:{:02}:{:02}:{:02} +0000] \"GET /{}/{i} HTTP/1.1\" {} {} \"-\" \"agent {}\"\n",
                    i % 7, i % 200, 17 + i / 2500, i / 150 % 24, i / 60 % 60, i % 60,
                    ["blog", "images", "projects"][i % 3], [200, 200, 404, 500][i % 4], i * 3, i % 11
                )
            })
            .collect(),
        "auth.log" => (0..7_121)
            .map(|i| {
                let day = 1 + i / 300;
                let what = ["Invalid user x from 1.2.3.4", "session opened for user root", "error: no more sessions"][i % 3];
                format!("Apr {day:>2} {:02}:{:02}:{:02} host-1 sshd[{}]: {what}\n", i / 13 % 24, i / 7 % 60, i % 60, 1000 + i)
            })
            .collect(),
        _ => (0..300)
            .map(|i| {
                format!("{{\"version\":6,\"address\":\"10.0.0.1\",\"timestamp\":{},\"load_timestamp\":1445680800424,\
                         \"connections\":{{\"accepted\":{i},\"idle\":29}},\"zones\":{{\"a.b\":[1,2.50,{{\"x\":null}}]}}}}\n",
                    1_446_249_499_322u64 + i * 1000)
            })
            .collect(),
    };
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

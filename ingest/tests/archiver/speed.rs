//! How fast the archiver is, and where the processor time goes. Not a test: run it by name, with `--ignored --nocapture`.

use std::time::Instant;

use ingest::archiver::{Config, archive_now};
use lake::Url;
use sqlx::Executor;

use crate::cluster::Cluster;

/// User and system time of a process, its children that have ended included, in seconds.
fn cpu(pid: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    fields[11..15].iter().map(|f| f.parse::<f64>().unwrap_or(0.0)).sum::<f64>() / 100.0
}

/// The same of a server and its backends.
fn server_cpu(postmaster: u32) -> f64 {
    let children = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|d| {
        let pid: u32 = d.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent: u32 = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        (parent == postmaster).then(|| cpu(pid))
    });
    cpu(postmaster) + children.sum::<f64>()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed_of_an_archive() {
    let rows: i64 = std::env::var("ROWS").ok().and_then(|v| v.parse().ok()).unwrap_or(2_000_000);
    let batch = 10_000;
    let cluster = std::sync::Arc::new(Cluster::start_new());
    let postmaster = cluster.postmaster();
    let db = cluster.database().await;
    let mut admin = db.admin().await;
    admin.execute("SET synchronous_commit = off").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = Url::from_directory_path(dir.path()).unwrap();
    for round in 0..3 {
        for from in (0..rows / (if round == 0 { 10 } else { 1 })).step_by(batch as usize) {
            let sql = format!(
                "INSERT INTO public.logs (ts, level, service, host, message, metadata)
                 SELECT date_trunc('day', now()) + interval '1 hour' + ({from} + i - random() * 2000) * interval '16 microseconds',
                        (ARRAY['INFO','INFO','INFO','INFO','WARN','ERROR','DEBUG'])[1 + i % 7], 'service-' || i % 23, 'host-' || i % 97,
                        'request ' || md5((i + {from})::text) || ' took ' || i % 1000 || ' ms for user ' || (i * 7919 % 100000),
                        jsonb_build_object('status', 200 + i % 5, 'path', '/api/v1/items/' || i % 5000, 'bytes', i * 31 % 70000)
                 FROM generate_series(1, {batch}) i"
            );
            admin.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        }
        let cfg = Config::new(db.url("watershed_archiver"), root.clone());
        let (began, ours, theirs) = (Instant::now(), cpu(std::process::id()), server_cpu(postmaster));
        let report = archive_now(cfg, Some("public.logs")).await.unwrap().remove(0);
        let seconds = began.elapsed().as_secs_f64();
        let (ours, theirs) = (cpu(std::process::id()) - ours, server_cpu(postmaster) - theirs);
        let million = report.rows as f64 / 1e6;
        println!(
            "{} rows in {} files of {} bytes: {seconds:.2} s, {:.0} rows/s; a million rows: archiver {:.2} s, PostgreSQL {:.2} s of CPU",
            report.rows, report.files, report.bytes, report.rows as f64 / seconds, ours / million, theirs / million
        );
    }
}

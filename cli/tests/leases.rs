//! A statement that reads an old version of the lake for longer than vacuum's grace period: the gateway's lease keeps the files of that
//! version until the statement ends, and no longer. A second table, which nobody reads, shows that vacuum is at work meanwhile.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use support::instance::{Instance, Options, argument, shown};
use support::wait_for;
use support::wire::{Client, frontend};

/// Files of each table, and rows of a KiB in each: more than sockets and engine hold ready.
const FILES: i64 = 8;
const ROWS: i64 = 5000;

fn files(instance: &Instance, table: &str) -> BTreeSet<PathBuf> {
    let days = fs::read_dir(instance.dir().join(format!("lake/public.{table}"))).expect("the table's folder").flatten();
    days.filter(|day| day.file_name().to_string_lossy().starts_with("_day="))
        .flat_map(|day| fs::read_dir(day.path()).into_iter().flatten().flatten().map(|file| file.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .collect()
}

#[test]
fn a_long_statement_keeps_the_files_that_it_reads() {
    let home = tempfile::tempdir().expect("a folder");
    let settings = home.path().join("watershed.toml");
    fs::write(&settings, "[gateway]\nlease_after = \"1s\"\n[compactor]\ngrace = \"4s\"\n").expect("a settings file");
    let instance = Instance::start(Options::on_demand().with("WATERSHED_CONFIG", argument(&settings)));
    let compact = || {
        let output = instance.output(&["compact", "--config", argument(&settings)]);
        assert!(output.status.success(), "{}", shown(&output));
    };
    let mut owner = Client::connect(&instance.gateway());
    for table in ["t", "u"] {
        owner.run(&format!("CREATE TABLE {table} (id int8, ts timestamptz NOT NULL, note text)"));
        owner.run(&format!("SELECT watershed.attach_table('public.{table}', event_time => 'ts')"));
    }
    for file in 0..FILES {
        for table in ["t", "u"] {
            // Random text does not pack. All files are of one day and overlap.
            owner.run(&format!(
                "INSERT INTO {table} (id, ts, note)
                 SELECT i, timestamptz '2026-03-01 00:00+00' + (i % {ROWS}) * interval '1 second',
                        (SELECT string_agg(md5(random()::text || i || j), '') FROM generate_series(1, 30) j)
                 FROM generate_series({}, {}) i",
                file * ROWS,
                (file + 1) * ROWS - 1
            ));
        }
        instance.archive();
    }
    let (old, idle) = (files(&instance, "t"), files(&instance, "u"));
    assert_eq!((old.len(), idle.len()), (FILES as usize, FILES as usize));

    // A client that reads one row and then nothing: the statement runs on.
    let sql = "/* watershed: lake */ SELECT id, length(note) AS bytes, note FROM t";
    let mut reader = Client::connect(&instance.gateway());
    reader.send(&frontend::query(sql));
    let mut first = reader.until(b"DE");
    compact();
    let now = files(&instance, "t");
    assert!(now.len() > old.len(), "the files were merged: {now:?}");
    let mut admin = Client::connect(&instance.admin());
    wait_for("a lease", || {
        let leases = "SELECT count(*) FROM watershed_control.leases WHERE relid = 'public.t'::regclass";
        (admin.value(leases) == "1").then_some(())
    });
    wait_for("the other table's vacuum", || {
        compact();
        files(&instance, "u").is_disjoint(&idle).then_some(())
    });
    // Removed by the same run of the compactor, older than the grace period, and still there.
    assert!(files(&instance, "t").is_superset(&old), "files of a version that is read were deleted");

    // Now it reads on.
    let rest = reader.reply();
    first.frames.extend(rest.frames);
    assert!(first.error().is_none(), "{:?}", first.error());
    let rows = first.rows();
    let ids: BTreeSet<i64> =
        rows.iter().map(|row| row[0].as_deref().and_then(|id| id.parse().ok()).expect("an id")).collect();
    assert_eq!((rows.len() as i64, ids.len() as i64), (FILES * ROWS, FILES * ROWS));
    assert!(rows.iter().all(|row| row[1].as_deref() == Some("960") && row[2].as_ref().is_some_and(|note| note.len() == 960)));
    let record = owner.run(&format!("SELECT route, fell_back FROM watershed.queries WHERE pid = {} AND error IS NULL ORDER BY id DESC LIMIT 1", reader.pid));
    assert_eq!(record.rows(), [[Some("lake".to_owned()), Some("f".to_owned())]]);

    // The lease ends with the statement, and then the files go.
    wait_for("vacuum once nobody reads", || {
        compact();
        files(&instance, "t").is_disjoint(&old).then_some(())
    });
    assert_eq!(admin.value("SELECT count(*) FROM watershed_control.leases"), "0");
    assert_eq!(owner.value("/* watershed: lake */ SELECT count(*) FROM t"), (FILES * ROWS).to_string());
}

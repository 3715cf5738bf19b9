//! A disk that fills up: days that the lake holds leave PostgreSQL early, one after the other until there is room again, never the
//! last ones; and every answer stays what it was. A plain table beside the tiered one holds the same rows and says what is right.
//!
//! Room is what the service measures by itself: the size of the database against what it may have, and, where this user may mount
//! one, a small file system.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::instance::{Instance, Options, argument, shown};
use support::wait_for;
use support::wire::Client;

/// Days of rows before today, as many kilobytes each, and how many stay whatever the disk says.
const DAYS: i64 = 14;
const DAY_KIB: i64 = 2048;
const KEEP: i64 = 3;

fn write_settings(file: &Path, pressure: &str) {
    let text = format!("[retention]\ninterval = \"1s\"\nnotice = \"5s\"\nkeep_days = {KEEP}\n[ingest.pressure]\n{pressure}\n");
    fs::write(file, text).expect("a settings file");
}

/// Room everywhere.
const RELAXED: &str = "min_free = \"1MiB\"\nmin_free_percent = 0.0";

/// The floor in days before today, and why it is there.
fn floor(client: &mut Client) -> Option<(i64, String)> {
    let found = client.run(
        "SELECT (now() AT TIME ZONE 'UTC')::date - (floor AT TIME ZONE 'UTC')::date, floor_reason
         FROM watershed_control.tables WHERE table_name = 't' AND isfinite(floor)",
    );
    let row = found.rows().into_iter().next()?;
    Some((row[0].as_deref()?.parse().ok()?, row[1].clone()?))
}

/// The same statement over the tiered table and its twin, in one transaction.
#[track_caller]
fn assert_same(client: &mut Client) {
    for statement in [
        "SELECT count(*), sum(id), min(ts), max(ts) FROM TABLE",
        "SELECT date_trunc('day', ts, 'UTC'), count(*), sum(length(note)) FROM TABLE GROUP BY 1 ORDER BY 1",
        "SELECT id, ts, note FROM TABLE WHERE ts < now() - interval '8 days' ORDER BY id",
        "SELECT id, ts, note FROM TABLE WHERE id = 7",
        "SELECT id FROM TABLE WHERE ts > now() - interval '2 days' ORDER BY ts, id",
    ] {
        client.run("BEGIN");
        let right = client.query(&statement.replace("TABLE", "twin"));
        let got = client.query(&statement.replace("TABLE", "t"));
        client.run("COMMIT");
        assert!(right.error().is_none() && got.error().is_none(), "{statement}: {right:?} {got:?}");
        assert!(right.rows() == got.rows(), "{statement}: {} and {} rows", right.rows().len(), got.rows().len());
    }
}

/// A small file system in memory; unmounted with this value.
struct Small<'a>(&'a Path);

impl Small<'_> {
    /// None where this user may not mount one.
    fn mount(at: &Path, mib: u64) -> Option<Small<'_>> {
        fs::create_dir_all(at).expect("a folder");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=755"), "tmpfs"]).arg(at);
        let mounted = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Small(at))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status(); // nothing else can be done about it
    }
}

#[test]
fn days_leave_early_while_the_disk_is_short_and_no_answer_changes() {
    let home = tempfile::tempdir().expect("a folder");
    let settings = home.path().join("watershed.toml");
    write_settings(&settings, RELAXED);
    let options = Options::default()
        .with("WATERSHED_CONFIG", argument(&settings))
        .with("WATERSHED_ARCHIVE_INTERVAL", "1s")
        .with("WATERSHED_ARCHIVE_MIN_ROWS", "1")
        .with("WATERSHED_COMPACT_INTERVAL", "24h");
    let instance = Instance::start(options);
    let mut owner = Client::connect(&instance.gateway());
    owner.run("CREATE TABLE t (id int8, ts timestamptz NOT NULL, note text)");
    owner.run(&format!(
        "SELECT watershed.attach_table('public.t', event_time => 'ts', first_day => (now() AT TIME ZONE 'UTC')::date - {})",
        DAYS - 1
    ));
    // Of each day one row a KiB, of random text, which does not pack.
    owner.run(&format!(
        "INSERT INTO t (id, ts, note)
         SELECT i, date_trunc('day', now(), 'UTC') - (i % {DAYS}) * interval '1 day' + i * interval '100 milliseconds',
                (SELECT string_agg(md5(random()::text || i || j), '') FROM generate_series(1, 30) j)
         FROM generate_series(1, {}) i",
        DAYS * DAY_KIB
    ));
    owner.run("CREATE TABLE twin AS SELECT id, ts, note FROM t");
    instance.archive();
    let mut admin = Client::connect(&instance.admin());
    assert_eq!(floor(&mut admin), None, "nothing leaves while there is room");
    assert_same(&mut owner);

    // 28 % of what the database may have is free. Below three tenths room is made until there are four tenths; below one tenth
    // nothing more would be taken in. A day is about a thirty-fifth of the database, so of the ten that may leave six or seven must.
    let size: i64 = admin.value("SELECT pg_database_size(current_database())").parse().expect("bytes");
    let allowed = size / 72 * 100;
    instance.terminate();
    let (most, tenth) = (allowed / 1024, allowed / 10 / 1024);
    write_settings(
        &settings,
        &format!("min_free = \"{tenth}KiB\"\nmin_free_percent = 0.0\nmax_database_size = \"{most}KiB\""),
    );
    instance.restart();
    let mut owner = Client::connect(&instance.gateway());
    let mut admin = Client::connect(&instance.admin());
    let (_, reason) = wait_for("a day that leaves early", || floor(&mut admin));
    assert!(reason.contains("fills up") && reason.contains("are wanted"), "{reason}");
    assert_same(&mut owner);
    // Rows are taken in meanwhile, below the floor too.
    for name in ["t", "twin"] {
        owner.run(&format!(
            "INSERT INTO {name} (id, ts, note) SELECT 1000000 + i, date_trunc('day', now(), 'UTC') - i * interval '1 day', 'late' FROM generate_series(0, {DAYS}) i"
        ));
    }
    let (at, _) = wait_for("room, or the last days", || {
        let room = admin.value("SELECT pg_database_size(current_database())").parse::<i64>().expect("bytes") <= allowed / 10 * 6;
        floor(&mut admin).filter(|(at, _)| room || *at == KEEP)
    });
    assert!(at > KEEP, "more days left than there had to: {at}");
    // Those days are gone from PostgreSQL: it says so itself.
    let mut direct = Client::connect(&instance.direct());
    assert_eq!(direct.query("SELECT count(*) FROM t").sqlstate(), "58P01");
    assert_eq!(direct.value("SELECT count(*) > 0 FROM t WHERE ts >= now() - interval '1 day'"), "t");
    assert_same(&mut owner);

    // A file system that is watched beside the data directory.
    let place = home.path().join("small");
    if let Some(small) = Small::mount(&place, 64) {
        instance.terminate();
        let directories = format!("min_free = \"4MiB\"\nmin_free_percent = 0.0\ndirectories = [\"{}\"]", place.display());
        write_settings(&settings, &directories);
        instance.restart();
        fs::write(place.join("filler"), vec![1u8; 54 << 20]).expect("room for a file");
        let mut admin = Client::connect(&instance.admin());
        let (_, reason) = wait_for("another day", || floor(&mut admin).filter(|(now, _)| *now < at));
        assert!(reason.contains(argument(&place)), "{reason}");
        wait_for("the last days", || floor(&mut admin).filter(|(now, _)| *now == KEEP));
        // It goes on being short, and no further day leaves: the plan says so.
        let plan = instance.run(&["retain", "t", "--plan", "--config", argument(&settings)]);
        assert!(!plan.contains("fills up"), "{plan}");
        drop(small);
    } else {
        eprintln!("no small file system: this user may not mount one");
    }
    assert_same(&mut Client::connect(&instance.gateway()));
    let output = instance.output(&["verify"]);
    assert!(output.status.success(), "{}", shown(&output));
}

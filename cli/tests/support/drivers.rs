//! Programs of real clients, which `deploy/local/drivers` installs and runs. One that cannot be had is skipped with the reason printed; in CI
//! that fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::instance::{Instance, scrub};
use super::wait_for;
use super::wire::{Client, Host, Target};

/// Seconds after which a program hangs.
const PATIENCE: &str = "600";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/drivers/drivers.sh")
}

/// True if clients of this kind are here; says why not. In CI they must be.
pub fn has(kind: &str) -> bool {
    let output = Command::new(script()).args(["has", kind]).stderr(Stdio::null()).output().expect("bash starts");
    if output.status.success() {
        return true;
    }
    let reason = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(std::env::var("CI").as_deref() != Ok("true"), "no {kind} in CI: {reason}");
    println!("skipped: {kind}: {reason}");
    false
}

/// A program of `drivers.sh` at one door, with the environment that clients look at. It runs in `folder` of the tests.
pub fn program(kind: &str, target: &Target, folder: &str, arguments: &[&str]) -> Command {
    let Host::Tcp(host, port) = &target.host else { panic!("a target by TCP") };
    let mut command = Command::new("timeout");
    scrub(&mut command);
    command.args(["--kill-after=10", PATIENCE]).arg(script()).arg(kind).args(arguments);
    command.env("PGHOST", if host == "localhost" { "127.0.0.1" } else { host }).env("PGPORT", port.to_string());
    command.env("PGUSER", &target.user).env("PGPASSWORD", &target.password).env("PGDATABASE", &target.database);
    command.env("TZ", "UTC").env("PYTHONDONTWRITEBYTECODE", "1").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder));
    command
}

/// Waits until the gateway answers by the lake for each of the tables.
pub fn wait_until_known(instance: &Instance, owner: &mut Client, tables: &[&str]) {
    for table in tables {
        wait_for(&format!("the gateway to know {table}"), || {
            owner.run(&format!("SELECT count(*) FROM {table}"));
            let mut reader = Client::connect(&instance.admin_through_gateway());
            let sql = format!("SELECT count(*) FROM watershed.queries WHERE pid = {} AND route = 'lake' AND sql LIKE '%{table}%'", owner.pid);
            (reader.value(&sql) != "0").then_some(())
        });
    }
}

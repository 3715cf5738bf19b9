//! Finding PostgreSQL's programs: the newest of at least [`OLDEST`], or those of one major version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::exit::Failure;

/// The oldest major version that works: SET ON PARAMETER and security-invoker views came with 15.
const OLDEST: u32 = 15;

/// Where Debian, the PostgreSQL project's RPMs and Homebrew keep versions side by side.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    bin: PathBuf,
    pub major: u32,
}

impl Installation {
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// `named`: the only directory to look at. `wanted`: the major version of an existing cluster.
    pub fn find(named: Option<&Path>, wanted: Option<u32>) -> Result<Installation> {
        let places = match named {
            Some(dir) => vec![dir.to_owned()],
            None => usual_places(),
        };
        let found: Vec<Installation> = places.iter().filter_map(|bin| look_at(bin)).collect();
        choose(found, named, wanted)
    }
}

fn choose(mut found: Vec<Installation>, named: Option<&Path>, wanted: Option<u32>) -> Result<Installation> {
    // Stable: of two of one version, the one on PATH stays first.
    found.sort_by_key(|install| std::cmp::Reverse(install.major));
    if let Some(wanted) = wanted {
        if let Some(fit) = found.iter().find(|install| install.major == wanted) {
            return Ok(fit.clone());
        }
        return Err(Failure::environment(
            format!("this data directory was made by PostgreSQL {wanted}, whose programs are not found{}", within(named)),
            format!("install PostgreSQL {wanted} (Debian: apt-get install postgresql-{wanted}), or name its directory with --pg-bin"),
        )
        .into());
    }
    match found.into_iter().next() {
        Some(newest) if newest.major >= OLDEST => Ok(newest),
        Some(newest) => Err(Failure::environment(
            format!("PostgreSQL {} in {} is too old", newest.major, newest.bin.display()),
            format!("install PostgreSQL {OLDEST} or newer (Debian: apt-get install postgresql), or name its directory with --pg-bin"),
        )
        .into()),
        None => Err(Failure::environment(
            format!("no PostgreSQL server programs are found{}", within(named)),
            format!("install PostgreSQL {OLDEST} or newer (Debian: apt-get install postgresql), or name the directory of its programs with --pg-bin"),
        )
        .into()),
    }
}

fn within(named: Option<&Path>) -> String {
    match named {
        Some(dir) => format!(" in {}", dir.display()),
        None => " on PATH or below /usr/lib/postgresql".into(),
    }
}

fn usual_places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    for (parent, bin) in VERSIONED {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        let version = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_digit())
                || name.starts_with("pgsql-")
                || name.starts_with("postgresql@")
        };
        places.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_name().to_str().is_some_and(version))
                .map(|entry| entry.path().join(bin)),
        );
    }
    places
}

/// The installation in a directory; links (as Debian's and hand-made ones on PATH) are followed, because
/// PostgreSQL finds its own files from where its program lies.
fn look_at(bin: &Path) -> Option<Installation> {
    let postgres = fs::canonicalize(bin.join("postgres")).ok()?;
    let bin = postgres.parent()?.to_owned();
    if !bin.join("initdb").exists() {
        return None;
    }
    let output = Command::new(&postgres).arg("--version").output().ok()?;
    let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
    Some(Installation { bin, major })
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15; `17beta1` is 17.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits = number.find(|c: char| !c.is_ascii_digit()).map_or(number, |end| &number[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests;

//! The data directory: its layout, its lock, and the two small files that hold addresses and passwords.
//! Knows no SQL and starts nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use rand::Rng;
use rand::distr::Alphanumeric;

use crate::exit::Failure;

/// `DIR`, absolute.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

/// The directory is ours while this lives.
#[derive(Debug)]
pub struct Held {
    _file: Flock<File>,
}

/// Below this much free space nothing is started: the cluster alone takes 60 MiB, its first WAL 80 MiB.
const MIN_FREE_BYTES: u64 = 256 << 20;

impl DataDir {
    pub fn at(path: &Path) -> Result<DataDir> {
        let root = std::path::absolute(path).with_context(|| format!("resolve {}", path.display()))?;
        // Symbolic links are resolved where they exist, so that one directory has one name.
        Ok(DataDir { root: fs::canonicalize(&root).unwrap_or(root) })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The private PostgreSQL cluster.
    pub fn cluster(&self) -> PathBuf {
        self.root.join("pg")
    }
    /// What PostgreSQL writes to its standard error.
    pub fn cluster_log(&self) -> PathBuf {
        self.root.join("pg.log")
    }
    pub fn lake(&self) -> PathBuf {
        self.root.join("lake")
    }
    pub fn spill(&self) -> PathBuf {
        self.root.join("spill")
    }
    pub fn connection_env(&self) -> PathBuf {
        self.root.join("connection.env")
    }
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }
    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Makes the directory and its parts where missing, and checks that there is room to work in.
    pub fn create(&self) -> Result<()> {
        let as_root = nix::unistd::geteuid().is_root();
        // The unprivileged user that runs PostgreSQL for root must pass through; others cannot list it.
        make_dir(&self.root, if as_root { 0o711 } else { 0o700 })?;
        if as_root {
            let mode = fs::metadata(&self.root)?.permissions().mode();
            if mode & 0o001 == 0 {
                fs::set_permissions(&self.root, fs::Permissions::from_mode(mode | 0o001))?;
            }
        }
        let space = nix::sys::statvfs::statvfs(&self.root).context("look at the disk's free space")?;
        let free = u64::from(space.blocks_available()).saturating_mul(space.fragment_size());
        if free < MIN_FREE_BYTES {
            return Err(Failure::environment(
                format!("the disk that holds {} has only {} MiB free", self.root.display(), free >> 20),
                format!(
                    "free at least {} MiB there, or name a directory on another disk with --data-dir",
                    MIN_FREE_BYTES >> 20
                ),
            )
            .into());
        }
        make_dir(&self.lake(), 0o700)?;
        make_dir(&self.spill(), 0o700)
    }

    /// Takes the directory for this process, or says who has it.
    pub fn hold(&self) -> Result<Held> {
        let path = self.lock_file();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| unwritable(&path, error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0)?;
                lock.rewind()?;
                writeln!(lock, "{}", std::process::id())?;
                lock.sync_all()?;
                Ok(Held { _file: lock })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let pid = match pid.trim() {
                    "" => "unknown",
                    pid => pid,
                };
                Err(Failure::environment(
                    format!("{} is in use by another watershed process (pid {pid})", self.root.display()),
                    format!(
                        "use that one, stop it with `kill {pid}`, or choose another directory with --data-dir"
                    ),
                )
                .into())
            }
            Err((_, errno)) => Err(anyhow::Error::from(errno).context(format!("lock {}", path.display()))),
        }
    }

    /// The pid of the process that holds the directory, if one does.
    pub fn holder(&self) -> Option<String> {
        let mut file = match OpenOptions::new().read(true).write(true).open(self.lock_file()) {
            Ok(file) => file,
            // Someone else's directory: reading its secrets will say so, with advice.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Some(String::new()),
            Err(_) => return None,
        };
        let mut pid = String::new();
        file.read_to_string(&mut pid).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_released_at_once) => None,
            Err(_) => Some(pid.trim().to_owned()),
        }
    }
}

/// Makes a directory with its parents; `mode` is for the last one, and an existing one keeps its own.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| unwritable(parent, error))?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !path.is_dir() => {
            Err(unwritable(path, error))
        }
        _ => Ok(()),
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::StorageFull => {
            "free some space there, or name a directory on another disk with --data-dir"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "name another directory with --data-dir",
        _ => "make it writable for this user, or name another directory with --data-dir",
    };
    Failure::environment(format!("cannot write {}: {error}", path.display()), advice).into()
}

/// Replaces a file in one step with mode 0600; after a crash it holds either its old or its new content.
pub fn replace_private(path: &Path, content: &str) -> Result<()> {
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        // A rename is durable once its directory is.
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(|error| unwritable(path, error))
}

/// `KEY=VALUE` lines; `#` starts a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(BTreeMap<String, String>);

impl Pairs {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_owned(), value.into());
    }

    pub fn parse(text: &str) -> Pairs {
        let pairs = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        Pairs(
            pairs
                .filter_map(|line| line.split_once('='))
                .map(|(key, value)| (key.trim().to_owned(), unquoted(value.trim())))
                .collect(),
        )
    }

    /// The pairs of a file; None if there is no such file.
    pub fn read(path: &Path) -> Result<Option<Pairs>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(Pairs::parse(&text))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Failure::environment(
                format!("cannot read {}: {error}", path.display()),
                owner_advice(path),
            )
            .into()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub fn print(&self, heading: &str) -> String {
        let mut text = format!("# {heading}\n");
        for (key, value) in &self.0 {
            text.push_str(&format!("{key}={}\n", quoted(value)));
        }
        text
    }
}

fn owner_advice(path: &Path) -> String {
    match fs::metadata(path.parent().unwrap_or(path)) {
        Ok(meta) => format!("run this as the user that runs `watershed up` (uid {})", meta.uid()),
        Err(_) => "run this as the user that runs `watershed up`".into(),
    }
}

/// A value as a shell reads it after `KEY=`.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    if value.chars().all(plain) { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

fn unquoted(value: &str) -> String {
    match value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => inner.replace(r"'\''", "'"),
        None => value.to_owned(),
    }
}

/// A password of 32 letters and digits (190 bits), safe in URLs, shells and SQL.
pub fn new_password() -> String {
    rand::rng().sample_iter(Alphanumeric).take(32).map(char::from).collect()
}

#[cfg(test)]
mod tests;

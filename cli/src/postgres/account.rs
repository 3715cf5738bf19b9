//! The unprivileged user that runs PostgreSQL when we are root, and what that user can reach.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User};

use crate::exit::Failure;

#[derive(Clone, Debug)]
pub struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// `postgres` where the system has that user, else `nobody`; None when we are not root and need no other.
    pub fn for_server() -> Result<Option<Account>> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name).context("look up system users")? {
                return Ok(Some(Account { name: user.name, uid: user.uid, gid: user.gid }));
            }
        }
        Err(Failure::environment(
            "PostgreSQL refuses to run as root, and this system has neither a user postgres nor nobody",
            "add one (useradd --system postgres), or run watershed as an ordinary user",
        )
        .into())
    }

    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Makes a command run as this user, without any of root's groups.
    pub fn apply(&self, command: &mut Command) {
        command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
    }

    pub fn give(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
            .with_context(|| format!("give {} to user {}", path.display(), self.name))
    }

    /// Fails, naming the directory in the way, if this user cannot reach `dir`.
    pub fn check_can_enter(&self, dir: &Path) -> Result<()> {
        if self.can_enter(dir)? {
            return Ok(());
        }
        let mut blocking = dir;
        for parent in dir.ancestors().skip(1) {
            if self.can_enter(parent)? {
                break;
            }
            blocking = parent;
        }
        Err(Failure::environment(
            format!(
                "as root, PostgreSQL is run by user {}, who may not enter {}",
                self.name,
                blocking.display()
            ),
            format!(
                "name a directory that {0} can reach (--data-dir /var/lib/watershed), let it pass (chmod o+x {1}), or run watershed as an ordinary user",
                self.name,
                blocking.display()
            ),
        )
        .into())
    }

    fn can_enter(&self, dir: &Path) -> Result<bool> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "cd -- \"$1\"", "sh"]).arg(dir).current_dir("/");
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut shell);
        Ok(shell.status().context("run /bin/sh")?.success())
    }
}

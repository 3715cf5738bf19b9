//! System calls of a running process, counted by strace. Not every system lets it look: then it says why.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// To attach, and to write what was counted.
const PATIENCE: Duration = Duration::from_secs(30);

/// A strace that counts.
pub struct Tracer {
    child: Child,
    summary: std::path::PathBuf,
}

/// Calls by name, and how many of them failed: a read that finds nothing is one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(pub BTreeMap<String, (u64, u64)>);

/// What calls are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    /// For something to happen on a socket.
    Wait,
    /// Threads that wait for one another.
    Futex,
    Other,
}

impl Tracer {
    /// Attaches to a process with its threads. The inner error says, in words, why that is not possible here.
    pub async fn attach(pid: u32, summary: &Path) -> Result<Result<Tracer, String>> {
        let spawned = Command::new("strace")
            .args(["-c", "-f", "-p", &pid.to_string(), "-o"])
            .arg(summary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Err("strace was not found (apt-get install strace)".into()));
            }
            Err(error) => return Err(error).context("run strace"),
        };
        let mut said = BufReader::new(child.stderr.take().context("no standard error of strace")?).lines();
        let first =
            tokio::time::timeout(PATIENCE, said.next_line()).await.context("strace says nothing")??;
        match first {
            Some(line) if line.contains("attached") => {
                // It goes on to name threads; unread, it would wait for us.
                tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
                Ok(Ok(Tracer { child, summary: summary.to_owned() }))
            }
            line => {
                Ok(Err(format!("strace may not look here: {}", line.unwrap_or_else(|| "it ended".into()))))
            }
        }
    }

    /// Lets the process go, and reads what was counted.
    pub async fn finish(mut self) -> Result<Calls> {
        if let Some(pid) = self.child.id() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        }
        tokio::time::timeout(PATIENCE, self.child.wait()).await.context("strace does not end")??;
        let text = std::fs::read_to_string(&self.summary).context("read what strace counted")?;
        Ok(Calls::parse(&text))
    }
}

impl Calls {
    /// Lines of `% time, seconds, usecs/call, calls, [errors,] syscall`.
    fn parse(text: &str) -> Calls {
        let mut calls = BTreeMap::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (count, errors, name) = match fields.as_slice() {
                [_, _, _, count, name] => (count.parse(), Ok(0), *name),
                [_, _, _, count, errors, name] => (count.parse(), errors.parse(), *name),
                _ => continue,
            };
            // The heading and its rule have no numbers there.
            if let (Ok(count), Ok(errors)) = (count, errors)
                && name != "total"
            {
                calls.insert(name.to_owned(), (count, errors));
            }
        }
        Calls(calls)
    }

    pub fn all(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// How many of a kind, and how many of these failed.
    pub fn of(&self, kind: Kind) -> (u64, u64) {
        let alike = self.0.iter().filter(|(name, _)| Kind::of(name) == kind).map(|(_, counts)| counts);
        alike.fold((0, 0), |(count, errors), more| (count + more.0, errors + more.1))
    }
}

impl Kind {
    fn of(name: &str) -> Kind {
        match name {
            "read" | "readv" | "recvfrom" | "recvmsg" | "recvmmsg" => Kind::Read,
            "write" | "writev" | "sendto" | "sendmsg" | "sendmmsg" => Kind::Write,
            "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "poll" | "ppoll" | "select" | "pselect6" => {
                Kind::Wait
            }
            "futex" => Kind::Futex,
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read_with_and_without_errors() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            60.00    0.030000          10      3000           sendto\n \
            30.00    0.020000           5      4000      1000 recvfrom\n \
            10.00    0.001000           1        10           epoll_wait\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.051000          16      7010      1000 total\n";
        let calls = Calls::parse(text);
        assert_eq!(calls.all(), 7010);
        assert_eq!(calls.of(Kind::Read), (4000, 1000));
        assert_eq!(calls.of(Kind::Write), (3000, 0));
        assert_eq!(calls.of(Kind::Wait), (10, 0));
        assert_eq!(calls.of(Kind::Futex), (0, 0));
    }
}

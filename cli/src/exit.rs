//! What the process tells its caller: exit codes, and failures that say what to do about them.
//! Knows nothing of the work that failed.

use std::fmt;

use crate::console::complain;

/// Exit codes, as the README lists them. Code 2 is also what clap uses for wrong arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Everything asked for was done.
    Done = 0,
    /// Done, but the result needs a look: stores differ, lines were rejected, answers were unequal.
    Found = 1,
    /// The command line, the environment or `watershed.toml` is wrong.
    Usage = 2,
    /// The machine is not as it must be: port in use, directory held, no PostgreSQL, disk full, nothing running.
    Environment = 3,
    /// The work itself failed.
    Failed = 4,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}

/// A failure whose cause is understood well enough to say what to do.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    /// One sentence: what is wrong.
    pub problem: String,
    /// One sentence: what to do about it.
    pub advice: String,
}

impl Failure {
    pub fn environment(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Failure { code: Code::Environment, problem: problem.into(), advice: advice.into() }
    }

    pub fn usage(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Failure { code: Code::Usage, problem: problem.into(), advice: advice.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.problem, self.advice)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error: that of the `Failure` in its chain, else [`Code::Failed`].
pub fn code_of(error: &anyhow::Error) -> Code {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(Code::Failed, |f| f.code)
}

/// Prints an error the way every command does: a full disk is named as such wherever it struck.
pub fn report(error: &anyhow::Error) {
    let known = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    match known {
        Some(failure) => complain(format_args!("watershed: {failure}")),
        None if is_disk_full(error) => complain(format_args!(
            "watershed: no space left on the disk: {error:#}\n  free some space, or move the data directory to a larger disk; nothing acknowledged was lost"
        )),
        None => complain(format_args!("watershed: {error:#}")),
    }
}

/// Whether an error, or anything that caused it, says that a disk is full.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull)
            || says_disk_full(&cause.to_string())
    })
}

/// Whether a message of PostgreSQL or of the system says that a disk is full (SQLSTATE 53100 has this text).
pub fn says_disk_full(text: &str) -> bool {
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}

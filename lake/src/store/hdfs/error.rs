//! What HDFS says -> what a caller can do about it, in a line. Hadoop's messages come with stack traces, which nobody is shown.

use std::fmt;
use std::time::Duration;

use hdfs_native::HdfsError;
use object_store::Error;

const STORE: &str = "HDFS";
/// Longest message of Hadoop that is passed on.
const LONGEST: usize = 400;

/// Why HDFS did not do what it was asked.
#[derive(Debug)]
enum Trouble {
    SafeMode(String),
    Full(String),
    /// No DataNode takes a block: all are full, or those that are not have not told the NameNode of their disks yet.
    NoTaker(String),
    Unreachable(std::io::Error),
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SafeMode(what) => write!(f, "the NameNode is in safe mode: {what}"),
            Self::Full(what) => write!(f, "HDFS has no room: {what}"),
            Self::NoTaker(what) => write!(f, "HDFS has no room, or no DataNode that is ready: {what}"),
            Self::Unreachable(e) => write!(f, "HDFS cannot be reached: {e}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(e) => Some(e),
            _ => None,
        }
    }
}

fn generic(trouble: Trouble) -> Error {
    Error::Generic { store: STORE, source: Box::new(trouble) }
}

pub(super) fn other(what: impl Into<String>) -> Error {
    generic(Trouble::Other(what.into()))
}

/// Nothing came for a whole timeout.
pub(super) fn stalled(what: &str, waited: Duration) -> Error {
    other(format!("HDFS stalls: {what} did not come for {} s", waited.as_secs_f64()))
}

pub(super) fn convert(path: &str, error: HdfsError) -> Error {
    let path = path.to_owned();
    match error {
        HdfsError::FileNotFound(_) => Error::NotFound { path, source: "HDFS has no such file".into() },
        HdfsError::AlreadyExists(what) => Error::AlreadyExists { path, source: shortened(&what).into() },
        HdfsError::RPCError(class, message) | HdfsError::FatalRPCError(class, message) => {
            let what = shortened(&message);
            let name = class.rsplit('.').next().unwrap_or_default();
            match name {
                "FileNotFoundException" => Error::NotFound { path, source: what.into() },
                "AccessControlException" | "AuthorizationException" => {
                    Error::PermissionDenied { path, source: what.into() }
                }
                "SafeModeException" => generic(Trouble::SafeMode(what)),
                // Between NameNodes of a pair, safe mode is wrapped into an exception that asks for another try.
                "RetriableException" if message.contains("SafeMode") || message.contains("safe mode") => {
                    generic(Trouble::SafeMode(what))
                }
                "DSQuotaExceededException"
                | "NSQuotaExceededException"
                | "QuotaByStorageTypeExceededException" => generic(Trouble::Full(what)),
                _ if message.contains("could only be written to 0 of the") => generic(Trouble::NoTaker(what)),
                _ => other(format!("{name}: {what}")),
            }
        }
        HdfsError::IOError(e) => generic(Trouble::Unreachable(e)),
        e => other(shortened(&e.to_string())),
    }
}

/// What may help a write that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing that a writer can do.
    None,
    /// Other DataNodes, or fewer of them.
    OtherDataNodes,
    /// A little time: after a start of the NameNode, DataNodes are known before their disks are.
    Time,
}

pub(super) fn remedy(error: &Error) -> Remedy {
    let Error::Generic { source, .. } = error else { return Remedy::None };
    match source.downcast_ref() {
        Some(Trouble::SafeMode(_) | Trouble::Full(_)) => Remedy::None,
        Some(Trouble::NoTaker(_)) => Remedy::Time,
        Some(Trouble::Unreachable(_) | Trouble::Other(_)) | None => Remedy::OtherDataNodes,
    }
}

/// The first line, and not too much of it.
fn shortened(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(class: &str, message: &str) -> Error {
        convert("/lake/x", HdfsError::RPCError(class.into(), message.into()))
    }

    #[test]
    fn what_hadoop_says_is_sorted_by_what_can_be_done() {
        assert!(matches!(
            rpc("java.io.FileNotFoundException", "File does not exist: /lake/x\n\tat a"),
            Error::NotFound { .. }
        ));
        let denied =
            rpc("org.apache.hadoop.security.AccessControlException", "Permission denied: user=a\n\tat b");
        assert!(matches!(denied, Error::PermissionDenied { .. }));
        let safe = rpc(
            "org.apache.hadoop.hdfs.server.namenode.SafeModeException",
            "Cannot create file/lake/x. Name node is in safe mode.\nThe reported blocks",
        );
        assert_eq!(
            safe.to_string(),
            "Generic HDFS error: the NameNode is in safe mode: Cannot create file/lake/x. Name node is in safe mode."
        );
        let quota = rpc(
            "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException",
            "The DiskSpace quota of /lake is exceeded\n\tat c",
        );
        assert!(quota.to_string().contains("no room"), "{quota}");
        let full = rpc(
            "java.io.IOException",
            "File /x could only be written to 0 of the 1 minReplication nodes.\n\tat d",
        );
        assert!(full.to_string().contains("no room"), "{full}");
        assert_eq!(
            [&denied, &safe, &quota, &full, &other("the DataNode hung up")].map(remedy),
            [Remedy::None, Remedy::None, Remedy::None, Remedy::Time, Remedy::OtherDataNodes]
        );
        let odd = rpc("java.lang.IllegalStateException", &format!("{}\n\tat e", "y".repeat(2000)));
        assert!(odd.to_string().len() < 600 && !odd.to_string().contains('\t'), "{odd}");
    }
}

//! From a rewritten job to its commit: what becomes of the files, whatever the answer. Knows no leader and no schedule.

use lake::log::{CommitOutcome, LakeTable, NewFile};

use crate::plan::Job;
use crate::rewrite::discard;
use crate::{Error, Result};

/// What a finished job came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finished {
    /// The job's files are replaced, as of this version.
    Done { version: i64 },
    /// One of them was gone already: nothing was committed, the new files are deleted.
    Lost,
}

/// Commits the files that a job became.
///
/// Errors: where nothing was committed for sure, the new files are deleted; else they stay, and vacuum finds out whether they are needed.
pub(crate) async fn finish(table: &mut LakeTable, job: &Job, files: Vec<NewFile>, fence: i64) -> Result<Finished> {
    match table.commit_rewrite(&job.files, files.clone(), fence).await {
        Ok(CommitOutcome::Done(version)) => {
            lake::crash::point("compact.committed");
            Ok(Finished::Done { version: version.version })
        }
        Ok(CommitOutcome::Lost) => {
            discard(&table.store(), &files).await;
            Ok(Finished::Lost)
        }
        Err(error @ (lake::Error::Fenced { .. } | lake::Error::Schema { .. } | lake::Error::Overdue { .. })) => {
            discard(&table.store(), &files).await;
            Err(Error::Lake(error))
        }
        // The commit may be in the log; or whether anything was written before the error is not certain.
        Err(error) => Err(Error::Lake(error)),
    }
}

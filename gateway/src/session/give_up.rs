//! Why the lake gave up, and what becomes of that: PostgreSQL's answer, or an error where nobody else can answer.
//! ✗ how the lake answers.

use super::lake::LakePortal;
use super::link::Turn;
use super::{SessionEnd, cold};
use crate::engine::EngineError;
use crate::plan::PlanError;
use crate::telemetry::why::FellBack;
use crate::wire::message::ErrorReport;
use bytes::Bytes;

/// Why the lake gave up.
pub(super) enum GiveUp {
    /// PostgreSQL can answer instead.
    FallBack(String),
    /// PostgreSQL can answer instead; if it lacks the rows, the answer is this error.
    Engine(EngineError),
    /// PostgreSQL can answer instead; if it lacks the rows, another transaction may have them answered.
    Outdated(String),
    /// The client's answer.
    Error(ErrorReport),
    /// PostgreSQL's own error, whole: the client's answer.
    Upstream(Bytes),
    End(SessionEnd),
}

impl From<SessionEnd> for GiveUp {
    fn from(e: SessionEnd) -> Self {
        GiveUp::End(e)
    }
}

impl From<PlanError> for GiveUp {
    fn from(e: PlanError) -> Self {
        match e {
            // PostgreSQL raises the same, with its own fields.
            PlanError::Postgres { sqlstate, message } => GiveUp::Engine(EngineError::Postgres { sqlstate, message }),
            PlanError::Unproven(_) | PlanError::Internal(_) => GiveUp::FallBack(e.to_string()),
        }
    }
}

impl GiveUp {
    /// For the count of those that PostgreSQL answers after all.
    pub(super) fn kind(&self) -> FellBack {
        match self {
            GiveUp::Engine(e) => FellBack::of(e),
            GiveUp::Outdated(_) => FellBack::Snapshot,
            _ => FellBack::Late,
        }
    }

    /// What becomes of it, as PostgreSQL holds the rows that the portal needs or does not, or has a `door` to them.
    pub(super) fn settled(self, portal: &LakePortal, door: bool) -> GiveUp {
        match self {
            GiveUp::FallBack(reason) if door => GiveUp::FallBack(reason),
            GiveUp::Engine(e) if !portal.cold => GiveUp::FallBack(e.to_string()),
            // What the lake meets PostgreSQL may never compute, which only PostgreSQL knows.
            GiveUp::Engine(EngineError::Postgres { message, .. }) => {
                GiveUp::FallBack(format!("whether it raises the error \"{message}\" depends on PostgreSQL's plan")).settled(portal, door)
            }
            GiveUp::Engine(EngineError::Internal(reason)) => GiveUp::FallBack(reason).settled(portal, door),
            GiveUp::Outdated(reason) if !portal.cold => GiveUp::FallBack(reason),
            GiveUp::Outdated(reason) => GiveUp::Error(
                ErrorReport::error("40001", "could not serialize access to rows that only the lake has")
                    .detail(format!("{reason}."))
                    .hint("Begin the transaction anew."),
            ),
            GiveUp::FallBack(reason) if portal.cold => {
                let specs = portal.analysis.tables.iter().filter_map(|t| portal.probed.catalog.tiered(t.relid));
                let spec = specs.max_by_key(|s| s.floor_us);
                GiveUp::Error(cold::needs_cold(spec.map(|s| &**s), &reason))
            }
            other => other,
        }
    }
}

pub(super) fn closed(turn: std::io::Result<Turn>) -> Result<(), GiveUp> {
    match turn {
        Ok(Turn::ClientClosed) => Err(GiveUp::End(SessionEnd::Client)),
        Ok(Turn::UpstreamClosed) => Err(GiveUp::End(SessionEnd::Upstream)),
        Ok(_) => Ok(()),
        Err(e) => Err(GiveUp::End(e.into())),
    }
}

pub(super) fn cancelled() -> GiveUp {
    GiveUp::Error(cancelled_report())
}

/// PostgreSQL's own words.
pub(super) fn cancelled_report() -> ErrorReport {
    ErrorReport::error("57014", "canceling statement due to user request")
}

pub(super) fn timed_out() -> GiveUp {
    GiveUp::Error(ErrorReport::error("57014", "canceling statement due to statement timeout"))
}

pub(super) fn give_up_encoding(sent: bool, e: &str) -> GiveUp {
    if sent {
        GiveUp::Error(ErrorReport::error("58030", "the lake's answer could not be completed").detail(e))
    } else {
        GiveUp::FallBack(e.to_string())
    }
}

pub(super) fn give_up_engine(sent: bool, e: EngineError) -> GiveUp {
    match e {
        EngineError::Cancelled => cancelled(),
        // PostgreSQL will raise it as well, with its own fields.
        e if !sent => GiveUp::Engine(e),
        e => GiveUp::Error(engine_report(e)),
    }
}

/// What the client is told where nobody else can answer.
pub(super) fn engine_report(e: EngineError) -> ErrorReport {
    match e {
        EngineError::Postgres { sqlstate, message } => ErrorReport::error(&sqlstate, message),
        EngineError::Refused(m) => ErrorReport::error("53200", "out of memory for lake queries")
            .detail(m)
            .hint("Run the statement again, or raise the gateway's memory limit."),
        e => ErrorReport::error("58030", "the lake could not be read").detail(e.to_string()).hint(
            "Run the statement again when the lake's storage answers. What PostgreSQL holds above the floor it answers meanwhile.",
        ),
    }
}

//! One file a subcommand: arguments in, a library call, lines out, an exit code. None knows another, but `demo`
//! uses `up` as everyone does.

pub mod archive;
pub mod bench;
pub mod calibrate;
pub mod compact;
pub mod compatibility;
pub mod dead_letters;
pub mod demo;
pub mod difftest;
pub mod generate;
pub mod ingest;
pub mod load;
pub mod queries;
pub mod rebase;
pub mod retain;
pub mod reference;
pub mod up;
pub mod verify;

use tokio_util::sync::CancellationToken;

use crate::console::complain;
use crate::up::Stops;

/// A token that the first ctrl-C or SIGTERM cancels; the second ends the process.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut stops = Stops::listen()?;
    tokio::spawn(async move {
        stops.next().await;
        complain("stopping; a second signal stops at once");
        cancelled.cancel();
        stops.next().await;
        std::process::exit(130);
    });
    Ok(token)
}

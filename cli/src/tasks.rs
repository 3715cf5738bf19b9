//! Named tasks of two kinds and their one drain. *Serving* tasks (gateway, HTTP) run once: if one ends before it
//! was told to, the process stops. *Upkeep* tasks (archiver, compactor) are started again with a growing pause
//! when they fail. Knows no service.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Failures in a row, each soon after a start, after which an upkeep task is given up.
const MAX_FAILURES: u32 = 10;
/// A task that ran this long before failing has worked.
const WORKED: Duration = Duration::from_secs(60);

pub struct Tasks {
    set: JoinSet<Result<()>>,
    names: HashMap<Id, String>,
    stop: CancellationToken,
    /// Half the first pause before an upkeep task is started again; doubled at each failure, seven times at most.
    pause: Duration,
}

impl Tasks {
    pub fn new() -> Tasks {
        let pause = Duration::from_millis(250);
        Tasks { set: JoinSet::new(), names: HashMap::new(), stop: CancellationToken::new(), pause }
    }

    /// The token that ends these tasks.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub fn serve<E: Display>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.spawn(name, async move {
            match work.await {
                Err(error) => Err(anyhow!("{error}")),
                Ok(()) if stop.is_cancelled() => Ok(()),
                Ok(()) => Err(anyhow!("ended before it was told to")),
            }
        });
    }

    /// `start` makes the work anew for each try.
    pub fn keep_up<E, F>(&mut self, name: &str, mut start: impl FnMut() -> F + Send + 'static)
    where
        E: Display + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (stop, pause) = (self.stop.clone(), self.pause);
        let label = name.to_owned();
        self.spawn(name, async move {
            let mut failures = 0;
            loop {
                let began = Instant::now();
                // In a task of its own, so that a panic is a failure like any other.
                let outcome = AbortOnDropHandle::new(tokio::spawn(start())).await;
                if stop.is_cancelled() {
                    return Ok(());
                }
                failures = if began.elapsed() > WORKED { 1 } else { failures + 1 };
                let why = match outcome {
                    Ok(Ok(())) => "it ended by itself".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => panic.to_string(),
                };
                if failures >= MAX_FAILURES {
                    return Err(anyhow!("failed {failures} times in a row, last: {why}"));
                }
                let pause = pause * (1 << failures.min(7));
                tracing::warn!(
                    task = label,
                    failures,
                    pause_ms = pause.as_millis() as u64,
                    "{why}; starting it again"
                );
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    fn spawn(&mut self, name: &str, work: impl Future<Output = Result<()>> + Send + 'static) {
        let handle = self.set.spawn(work);
        self.names.insert(handle.id(), name.to_owned());
    }

    /// Waits until a task fails; pends while all run. Cancel safe.
    pub async fn failure(&mut self) -> anyhow::Error {
        loop {
            match self.next().await {
                Some((_, Ok(()))) => {}
                Some((name, Err(error))) => return error.context(format!("{name} stopped")),
                None => std::future::pending().await,
            }
        }
    }

    async fn next(&mut self) -> Option<(String, Result<()>)> {
        let (id, outcome) = match self.set.join_next_with_id().await? {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(anyhow!("{error}"))),
        };
        Some((self.names.remove(&id).unwrap_or_default(), outcome))
    }

    /// Tells the tasks to end and waits for them until `deadline` or `hurry`; then ends them and names them.
    pub async fn drain(&mut self, deadline: Duration, hurry: &CancellationToken) {
        self.stop.cancel();
        let time_is_over = tokio::time::sleep(deadline);
        tokio::pin!(time_is_over);
        loop {
            tokio::select! {
                ended = self.next() => match ended {
                    None => return,
                    Some((_, Ok(()))) => {}
                    Some((name, Err(error))) => tracing::error!(task = name, "{error:#}"),
                },
                () = &mut time_is_over => break,
                () = hurry.cancelled() => break,
            }
        }
        let mut late: Vec<&str> = self.names.values().map(String::as_str).collect();
        late.sort_unstable();
        tracing::warn!(tasks = late.join(", "), "still running at the end of the drain; ending them");
        self.set.shutdown().await;
        self.names.clear();
    }
}

#[cfg(test)]
mod tests;

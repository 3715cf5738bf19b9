//! Finding PostgreSQL's client programs: those of the server that is measured, else those on PATH.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Result;
use tokio::process::Command;

use crate::bootstrap;
use crate::exit::Failure;

/// The program beside the server's own, whose PATH entry is a wrapper on Debian that looks for a cluster first; else on PATH.
pub async fn find(url: &str, name: &str) -> Result<PathBuf> {
    let mut places = Vec::new();
    if let Ok(mut conn) = bootstrap::connect(url).await {
        let dir: Result<String, _> =
            sqlx::query_scalar("SELECT setting FROM pg_catalog.pg_config WHERE name = 'BINDIR'")
                .fetch_one(&mut conn)
                .await;
        places.extend(dir.ok().map(|dir| PathBuf::from(dir).join(name)));
    }
    places.push(PathBuf::from(name));
    for place in places {
        if version(&place).await.is_some() {
            return Ok(place);
        }
    }
    Err(Failure::environment(
        format!("{name} was not found"),
        "install PostgreSQL's programs (apt-get install postgresql postgresql-client)",
    )
    .into())
}

/// What a program says of itself, in its first line; `None` if it cannot be run.
pub async fn version(program: &std::path::Path) -> Option<String> {
    let tried = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .await
        .ok()?;
    let text = String::from_utf8_lossy(&tried.stdout).lines().next().unwrap_or_default().trim().to_owned();
    tried.status.success().then_some(text)
}

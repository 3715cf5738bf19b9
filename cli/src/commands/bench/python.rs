//! Programs in Python that drive what is measured beside us: a job as JSON on their standard input, figures as JSON on their output.
//! ✗ what they measure.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Times statements on DuckDB or Spark.
pub const READERS: &str = include_str!("readers.py");
/// Fetches a table by each of several ways.
pub const FLIGHT: &str = include_str!("flight.py");

/// Whether this Python can import a module.
pub async fn has(python: &Path, module: &str) -> bool {
    let tried = Command::new(python)
        .args(["-c", &format!("import {module}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    tried.is_ok_and(|status| status.success())
}

/// Runs a program to its end.
pub async fn ask(python: &Path, program: &str, job: &Value) -> Result<Value> {
    let mut child = Command::new(python)
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", python.display()))?;
    let mut stdin = child.stdin.take().context("no standard input of Python")?;
    stdin.write_all(job.to_string().as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        bail!("Python ended with {}: {last}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("read what Python said")
}

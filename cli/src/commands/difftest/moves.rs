//! Rows move while statements run: some are added, archived, compacted. One round after so many statements, whoever asked them.
//! ✗ statements.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::bench::instance::watershed;
use super::rows;
use crate::wire_client::{Client, Target};

/// Rows added in a round: few, so that what statements cost does not grow with the length of the run.
const ADDED: u32 = 6;
/// And no more than this in all.
const MOST: u32 = 1_200;
/// Of so many rounds one compacts.
const COMPACT_EVERY: u32 = 5;

/// Makes the tables: rows in several files, one of them compacted of two, and some that are not in the lake yet.
pub async fn load(target: &Target, dir: &Path, rows: u32) -> Result<()> {
    let mut client = Client::connect(target).await?;
    for statement in rows::SCHEMA {
        client.simple(statement).await?;
    }
    let part = (rows / 6).max(1);
    for n in 0..6 {
        add(&mut client, n * part + 1, (n + 1) * part).await?;
        if n < 5 {
            archive(dir).await?;
        }
        if n == 1 {
            compact(dir).await?;
        }
    }
    client.simple("ANALYZE public.facts; ANALYZE public.visits; ANALYZE public.kinds").await?;
    Ok(())
}

async fn add(client: &mut Client, from: u32, to: u32) -> Result<()> {
    for statement in rows::insert(from, to) {
        client.simple(&statement).await?;
    }
    Ok(())
}

async fn archive(dir: &Path) -> Result<()> {
    watershed(dir, &["archive", "--now"]).await.map(drop)
}

async fn compact(dir: &Path) -> Result<()> {
    watershed(dir, &["compact"]).await.map(drop)
}

/// Moves rows each time it is told, until it is to stop. Returns the rounds made.
pub async fn keep_moving(target: Target, dir: PathBuf, next: u32, told: Arc<Notify>, stop: CancellationToken) -> Result<u32> {
    let mut client = Client::connect(&target).await?;
    let (first, mut next) = (next, next);
    let mut rounds = 0;
    loop {
        tokio::select! {
            () = told.notified() => {}
            () = stop.cancelled() => return Ok(rounds),
        }
        if next < first + MOST {
            add(&mut client, next, next + ADDED - 1).await?;
            next += ADDED;
        }
        archive(&dir).await?;
        if rounds % COMPACT_EVERY == COMPACT_EVERY - 1 {
            compact(&dir).await?;
        }
        rounds += 1;
    }
}

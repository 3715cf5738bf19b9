//! What tells how much room there is.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::{Result, sink};

/// Room of one place, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub free: u64,
    pub total: u64,
}

/// One place whose room is watched.
pub trait Probe: Send {
    /// The place, for messages and metrics: bounded, without secrets.
    fn place(&self) -> &str;

    /// Its room now, or why that cannot be told.
    fn read(&mut self) -> BoxFuture<'_, Result<Reading, String>>;
}

/// The file system that a directory is on.
#[derive(Debug)]
pub struct Space {
    directory: PathBuf,
    place: String,
}

impl Space {
    /// The directory need not exist yet.
    pub fn of(directory: PathBuf) -> Space {
        let place = format!("the disk of {}", directory.display());
        Space { directory, place }
    }
}

impl Probe for Space {
    fn place(&self) -> &str {
        &self.place
    }

    fn read(&mut self) -> BoxFuture<'_, Result<Reading, String>> {
        let directory = self.directory.clone();
        Box::pin(async move {
            // A network file system may keep the call waiting.
            let asked = tokio::task::spawn_blocking(move || nix::sys::statvfs::statvfs(&directory));
            let space = asked.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            // Free to users that are not root, as PostgreSQL is none.
            let unit = space.fragment_size();
            Ok(Reading { free: space.blocks_available() * unit, total: space.blocks() * unit })
        })
    }
}

/// A database of another machine, against the size that it is given.
#[derive(Debug)]
pub struct DatabaseSize {
    options: PgConnectOptions,
    conn: Option<PgConnection>,
    max: u64,
}

/// How long PostgreSQL may take to tell its size: it looks at every file.
const PATIENCE: Duration = Duration::from_secs(30);

impl DatabaseSize {
    /// The database of the URL may have `max` bytes.
    ///
    /// # Errors
    /// The URL is none.
    pub fn of(database_url: &str, max: u64) -> Result<DatabaseSize> {
        let options = sink::connect_options(database_url, "watershed pressure")?;
        Ok(DatabaseSize { options, conn: None, max })
    }

    async fn size(&mut self) -> Result<i64, sqlx::Error> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => PgConnection::connect_with(&self.options).await?,
        };
        let size = sqlx::query_scalar("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
            .fetch_one(&mut conn)
            .await?;
        // Kept only if it answered.
        self.conn = Some(conn);
        Ok(size)
    }
}

impl Probe for DatabaseSize {
    fn place(&self) -> &str {
        "the database"
    }

    fn read(&mut self) -> BoxFuture<'_, Result<Reading, String>> {
        Box::pin(async move {
            let size = match tokio::time::timeout(PATIENCE, self.size()).await {
                Ok(size) => size.map_err(|e| e.to_string())?,
                Err(_) => return Err("no answer in time".to_owned()),
            };
            Ok(Reading { free: self.max.saturating_sub(size.unsigned_abs()), total: self.max })
        })
    }
}

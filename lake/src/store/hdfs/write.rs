//! How a file comes into HDFS: under a name of its own beside its place (`.NAME.tmp.UUID`), closed, then renamed to its place. Nobody
//! sees a part of it; a rename that must not replace is the compare-and-set of Delta's commits.
//!
//! A rename whose answer was lost is not in doubt: nobody else knows the name it was renamed from. That name still being there means
//! that nothing happened, and deleting it makes sure that nothing will; else the content at the place tells.
//!
//! The client library gives up a block whose DataNodes cannot all be reached, and the NameNode goes on naming a dead one until it
//! notices. So a write is tried again, then with one replica, to which the NameNode is told to add the others afterwards, then after
//! pauses: a NameNode that has just started knows DataNodes before their disks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use hdfs_native::WriteOptions;
use hdfs_native::file::FileWriter;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::error::{Remedy, convert, other, remedy, stalled};
use super::{Shared, absolute};

/// Tries of a write with all replicas, and then with one.
const TRIES: u32 = 2;
const TRIES_ALONE: u32 = 4;
/// Tries after pauses, and the first pause: eight to twelve seconds together, in which the NameNode may notice who is gone and who is back.
const PAUSES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// After a write that failed, new files are written with one replica first for this long: until the NameNode has noticed.
const SHORT_HANDED: Duration = Duration::from_secs(60);

/// What is known of the cluster's DataNodes from writing.
#[derive(Default)]
pub(super) struct Writing {
    short_handed: Mutex<Option<Instant>>,
    /// How many replicas a file has if nobody says.
    replication: Mutex<Option<u32>>,
}

impl Writing {
    fn is_short_handed(&self) -> bool {
        self.short_handed.lock().is_some_and(|since| since.elapsed() < SHORT_HANDED)
    }

    fn failed(&self) {
        *self.short_handed.lock() = Some(Instant::now());
    }
}

/// A file being written under a name that nobody else knows.
struct Temporary {
    shared: Arc<Shared>,
    path: String,
    /// None once it is closed.
    writer: Option<FileWriter>,
    /// It has one replica only so far.
    alone: bool,
    /// It is still there under this name, as far as is known.
    there: bool,
}

impl Temporary {
    async fn create(shared: &Arc<Shared>, place: &Path, alone: bool) -> Result<Self> {
        let path = temporary(place)?;
        let (connection, hadoop) = (shared.connection(), &shared.settings.hadoop);
        let number = |key: &str| hadoop.get(key).and_then(|v| v.trim().parse::<u64>().ok());
        let options = WriteOptions {
            replication: if alone {
                Some(1)
            } else {
                number("dfs.replication").and_then(|n| u32::try_from(n).ok())
            },
            block_size: number("dfs.blocksize"),
            ..WriteOptions::default()
        };
        let created = connection.client.create(&path, options);
        let writer = shared.asked("a new file", &path, &connection, created).await?;
        Ok(Self { shared: shared.clone(), path, writer: Some(writer), alone, there: true })
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(writer) = self.writer.as_mut() else {
            return Err(other("bytes came after the end of a file"));
        };
        let patience = self.shared.settings.write_timeout;
        // In pieces, so that what is slow and moves is not taken for what stands still.
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(1 << 20));
            match timeout(patience, writer.write(piece)).await {
                Ok(done) => done.map_err(|e| convert(&self.path, e))?,
                Err(_) => return Err(stalled("the DataNodes' room for more", patience)),
            };
        }
        Ok(())
    }

    /// All of it is on the DataNodes' disks after this.
    async fn close(&mut self) -> Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let patience = self.shared.settings.write_timeout;
        match timeout(patience, writer.close()).await {
            Ok(done) => done.map_err(|e| convert(&self.path, e)),
            Err(_) => Err(stalled("the DataNodes' word that all is written", patience)),
        }
    }

    /// Gives it its place. `holds` tells whether the place holds what was written; it is waited for if the answer to the renaming was lost.
    async fn rename(
        &mut self,
        place: &Path,
        overwrite: bool,
        holds: impl Future<Output = bool>,
    ) -> Result<()> {
        let (connection, to) = (self.shared.connection(), absolute(place));
        let renamed = connection.client.rename(&self.path, &to, overwrite);
        let error = match self.shared.asked("a renaming", &to, &connection, renamed).await {
            Ok(()) => {
                self.there = false;
                return Ok(());
            }
            Err(error) => error,
        };
        match self.shared.delete(&self.path).await {
            // It was there, and now it cannot be renamed any more.
            Ok(true) => {
                self.there = false;
                Err(error)
            }
            Ok(false) => {
                self.there = false;
                // Renamed, or deleted by a request that was sent twice.
                if holds.await { Ok(()) } else { Err(error) }
            }
            // Unknown: whoever wrote it must read what is there.
            Err(_) => Err(error),
        }
    }

    /// Sees to it that a file with one replica gets the others.
    async fn replicate(&self, place: &Path) {
        if !self.alone {
            return;
        }
        let replicas = self.shared.writing.replication.lock().unwrap_or(3);
        let (connection, path) = (self.shared.connection(), absolute(place));
        let set = connection.client.set_replication(&path, replicas);
        match self.shared.asked("more replicas", &path, &connection, set).await {
            Ok(_) => tracing::warn!(
                path,
                replicas,
                "a file was written with one replica, HDFS was told to add the others"
            ),
            Err(error) => {
                tracing::warn!(path, %error, "a file has one replica only: hdfs dfs -setrep adds the others")
            }
        }
    }

    /// Learns how many replicas files have here.
    async fn learn(&self) {
        if self.alone || self.shared.writing.replication.lock().is_some() {
            return;
        }
        let (connection, path) = (self.shared.connection(), self.path.clone());
        let status = connection.client.get_file_info(&path);
        if let Ok(status) = self.shared.asked("the status of a file", &path, &connection, status).await {
            *self.shared.writing.replication.lock() = status.replication.filter(|n| *n > 0);
        }
    }

    async fn discard(mut self) {
        self.writer = None;
        if self.there {
            // Left behind if this fails; the compactor sweeps such names.
            if let Err(error) = self.shared.delete(&self.path).await {
                tracing::debug!(path = self.path, %error, "an unfinished file was left behind");
            }
            self.there = false;
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.there {
            self.writer = None;
            let (shared, path) = (self.shared.clone(), std::mem::take(&mut self.path));
            let runtime = shared.runtime.clone();
            runtime.spawn(async move {
                if let Err(error) = shared.delete(&path).await {
                    tracing::debug!(path, %error, "an unfinished file was left behind");
                }
            });
        }
    }
}

fn temporary(place: &Path) -> Result<String> {
    let absolute = absolute(place);
    match absolute.rsplit_once('/') {
        Some((directory, name)) if !name.is_empty() => {
            Ok(format!("{directory}/.{name}.tmp.{}", Uuid::new_v4().simple()))
        }
        _ => Err(other(format!("{absolute} is no name of a file"))),
    }
}

/// The tries of one write, which are bounded.
struct Tries {
    since: Instant,
    /// Further tries that came at once, with other DataNodes,
    at_once: u32,
    /// and after a pause.
    paused: u32,
}

impl Tries {
    fn new() -> Self {
        Self { since: Instant::now(), at_once: 0, paused: 0 }
    }

    /// How long to wait before the next try; none: there is nothing more to try.
    fn next(&mut self, remedy: Remedy) -> Option<Duration> {
        if remedy == Remedy::OtherDataNodes && self.at_once + 1 < TRIES + TRIES_ALONE {
            self.at_once += 1;
            return Some(Duration::ZERO);
        }
        if remedy == Remedy::None || self.paused == PAUSES || self.since.elapsed() > SHORT_HANDED {
            return None;
        }
        // Twice as long each time, and not in step with other writers.
        let pause = FIRST_PAUSE * 2u32.pow(self.paused);
        let jitter = Uuid::new_v4().as_u128() % (pause.as_millis() / 2);
        self.paused += 1;
        Some(pause + Duration::from_millis(jitter as u64))
    }

    /// Notes a failure, and waits where time may help. Returns the error if there is nothing more to try.
    async fn again(&mut self, writing: &Writing, place: &Path, error: Error) -> Result<()> {
        let remedy = remedy(&error);
        if remedy == Remedy::OtherDataNodes {
            writing.failed();
        }
        let Some(pause) = self.next(remedy) else { return Err(error) };
        tracing::debug!(%place, %error, ?pause, "a write to HDFS is tried again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl Shared {
    /// Writes a whole file.
    pub(super) async fn put(
        self: &Arc<Self>,
        place: &Path,
        payload: PutPayload,
        overwrite: bool,
    ) -> Result<()> {
        if !overwrite && self.status(place).await.is_ok() {
            // Cheaper than to find out at the renaming, which decides.
            return Err(Error::AlreadyExists {
                path: absolute(place),
                source: "HDFS has such a file".into(),
            });
        }
        let mut written = self.write_somewhere(place, &payload).await?;
        let renamed = written.rename(place, overwrite, self.holds(place, &payload)).await;
        if let Err(error) = renamed {
            written.discard().await;
            return Err(error);
        }
        written.replicate(place).await;
        Ok(())
    }

    /// A closed file beside `place` that holds `payload`.
    async fn write_somewhere(self: &Arc<Self>, place: &Path, payload: &PutPayload) -> Result<Temporary> {
        let mut tries = Tries::new();
        loop {
            let alone = tries.at_once >= TRIES || (tries.at_once >= 1 && self.writing.is_short_handed());
            let mut file = Temporary::create(self, place, alone).await?;
            let done = async {
                for bytes in payload.iter() {
                    file.write(bytes.clone()).await?;
                }
                file.close().await
            }
            .await;
            match done {
                Ok(()) => return Ok(file),
                Err(error) => {
                    file.learn().await;
                    file.discard().await;
                    tries.again(&self.writing, place, error).await?;
                }
            }
        }
    }

    /// Whether the file at `place` holds `payload`.
    async fn holds(self: &Arc<Self>, place: &Path, payload: &PutPayload) -> bool {
        let found = async {
            let opened = self.open_anew(place).await?;
            let size = opened.meta.size;
            if size != payload.content_length() as u64 {
                return Ok::<_, Error>(false);
            }
            let bytes = self.fetch(place, &opened, 0..size).await?;
            let mut at = 0;
            Ok(payload.iter().all(|part| {
                let same = bytes[at..at + part.len()] == part[..];
                at += part.len();
                same
            }))
        };
        found.await.unwrap_or(false)
    }
}

/// A file that comes in parts. A part's future ends when HDFS has taken the part, and parts are taken in their order: so whoever
/// holds only so many futures at a time holds only so many parts in memory.
pub(super) struct Upload {
    parts: Arc<Parts>,
    /// Parts given out so far.
    count: usize,
}

struct Parts {
    shared: Arc<Shared>,
    place: Path,
    /// The number of the part whose turn it is; [`GIVEN_UP`]: no part is taken any more.
    turn: watch::Sender<usize>,
    file: tokio::sync::Mutex<File>,
}

const GIVEN_UP: usize = usize::MAX;

#[derive(Default)]
struct File {
    temporary: Option<Temporary>,
    written: u64,
}

impl Upload {
    pub(super) fn new(shared: Arc<Shared>, place: Path) -> Self {
        let turn = watch::Sender::new(0);
        Self { parts: Arc::new(Parts { shared, place, turn, file: tokio::sync::Mutex::default() }), count: 0 }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("place", &self.parts.place)
            .field("parts", &self.count)
            .finish_non_exhaustive()
    }
}

/// The turn of a part. One that is dropped before it was taken leaves a gap, which no later part may hide: nobody waits for it.
struct Turn {
    parts: Arc<Parts>,
    number: usize,
    taken: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = if self.taken { self.number + 1 } else { GIVEN_UP };
        self.parts.turn.send_if_modified(|turn| {
            // Given up is for good.
            let moves = *turn != GIVEN_UP;
            if moves {
                *turn = next;
            }
            moves
        });
    }
}

fn given_up() -> Error {
    other("an earlier part of the file could not be written")
}

impl Parts {
    async fn take(&self, turn: &mut Turn, payload: PutPayload) -> Result<()> {
        let number = turn.number;
        let mut turns = self.turn.subscribe();
        let now = turns.wait_for(|turn| *turn == number || *turn == GIVEN_UP).await;
        if now.map_or(true, |turn| *turn == GIVEN_UP) {
            return Err(given_up());
        }
        let mut file = self.file.lock().await;
        let first = file.temporary.is_none();
        let length = payload.content_length() as u64;
        if first {
            file.temporary = Some(self.begin(&payload).await?);
        } else if let Some(temporary) = file.temporary.as_mut() {
            for bytes in payload.iter() {
                if let Err(error) = temporary.write(bytes.clone()).await {
                    if remedy(&error) == Remedy::OtherDataNodes {
                        self.shared.writing.failed();
                    }
                    temporary.learn().await;
                    return Err(error);
                }
            }
        }
        file.written += length;
        turn.taken = true;
        Ok(())
    }

    /// A new file that has taken its first part: other DataNodes are tried as long as nothing else is lost with it.
    async fn begin(&self, payload: &PutPayload) -> Result<Temporary> {
        let mut tries = Tries::new();
        loop {
            let alone = self.shared.writing.is_short_handed();
            let mut file = Temporary::create(&self.shared, &self.place, alone).await?;
            let done = async {
                for bytes in payload.iter() {
                    file.write(bytes.clone()).await?;
                }
                Ok::<(), Error>(())
            }
            .await;
            match done {
                Ok(()) => return Ok(file),
                Err(error) => {
                    file.learn().await;
                    file.discard().await;
                    tries.again(&self.shared.writing, &self.place, error).await?;
                }
            }
        }
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let mut turn = Turn { parts: self.parts.clone(), number: self.count, taken: false };
        self.count += 1;
        async move { turn.parts.clone().take(&mut turn, payload).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if *self.parts.turn.borrow() != self.count {
            return Err(given_up());
        }
        let shared = &self.parts.shared;
        let mut file = self.parts.file.lock().await;
        let written = file.written;
        let Some(mut temporary) = file.temporary.take() else {
            return shared.put(&self.parts.place, PutPayload::default(), true).await.map(|()| nothing_told());
        };
        // From here on a part that comes is refused.
        self.parts.turn.send_replace(GIVEN_UP);
        let done = async {
            temporary.close().await?;
            let place = &self.parts.place;
            let holds =
                async { shared.status(place).await.is_ok_and(|status| status.length as u64 == written) };
            temporary.rename(place, true, holds).await
        }
        .await;
        if let Err(error) = done {
            if remedy(&error) == Remedy::OtherDataNodes {
                shared.writing.failed();
            }
            temporary.learn().await;
            temporary.discard().await;
            return Err(error);
        }
        shared.forget(&self.parts.place);
        temporary.replicate(&self.parts.place).await;
        Ok(nothing_told())
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.turn.send_replace(GIVEN_UP);
        let temporary = self.parts.file.lock().await.temporary.take();
        if let Some(temporary) = temporary {
            temporary.discard().await;
        }
        Ok(())
    }
}

fn nothing_told() -> PutResult {
    PutResult { e_tag: None, version: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_bounded() {
        let pauses = |remedy| {
            let mut tries = Tries::new();
            std::iter::from_fn(move || tries.next(remedy)).take(100).collect::<Vec<_>>()
        };
        assert!(pauses(Remedy::None).is_empty());
        let paused = pauses(Remedy::Time);
        assert_eq!(paused.len(), PAUSES as usize);
        assert!(paused.is_sorted() && paused.iter().sum::<Duration>() < Duration::from_secs(12), "{paused:?}");
        let elsewhere = pauses(Remedy::OtherDataNodes);
        let at_once = elsewhere.iter().filter(|pause| pause.is_zero()).count();
        assert_eq!((at_once, elsewhere.len() - at_once), (5, PAUSES as usize));
    }

    #[test]
    fn a_temporary_name_is_hidden_beside_its_place_and_never_the_same() {
        let place = Path::from("lake/public.logs/_delta_log/00000000000000000007.json");
        let (one, two) = (temporary(&place).unwrap(), temporary(&place).unwrap());
        assert!(one.starts_with("/lake/public.logs/_delta_log/.00000000000000000007.json.tmp."), "{one}");
        assert_ne!(one, two);
        assert!(temporary(&Path::from("")).is_err());
    }
}

//! A store that fails on purpose, for tests: one fault at a chosen place, or faults by seed, or the end of the process at the n-th
//! operation. What a handle of it has seen failing is the world as one process sees it; the store below is what really happened.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::*;
use parking_lot::Mutex;

/// What happens to the next put of a log entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// It fails, and nothing is written.
    Before,
    /// It is written, and the answer is an error.
    After,
    /// It is written, and the answer is that it was there already (a retry inside the client).
    AfterAsExisting,
    /// It is written, the answer is an error, and so is the next read.
    AfterAndBlind,
}

/// What may go wrong by chance: each one in so many operations; 0: never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Odds {
    /// An operation fails and did nothing.
    pub before: u64,
    /// A put or a deletion is done, and the answer is an error.
    pub after: u64,
    /// A put that must not replace anything is done, and the answer is that something was there already.
    pub existing: u64,
    /// A listing ends with an error after some of its entries.
    pub list: u64,
    /// An operation takes longer,
    pub stall: u64,
    /// up to this many milliseconds.
    pub stall_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    next: Mutex<Option<Fault>>,
    blind: Mutex<bool>,
    chance: Mutex<Chance>,
}

#[derive(Debug, Default)]
struct Chance {
    random: u64,
    odds: Odds,
    /// Operations left; at 0 the process is gone.
    left: Option<u64>,
}

/// What becomes of one operation.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Turn {
    Fine,
    Nothing,
    Unanswered,
    Existing,
}

impl Chance {
    /// A number below `n`; by a generator that passes for random and is the same everywhere.
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n.max(1)
    }

    fn hits(&mut self, odds: u64) -> bool {
        odds > 0 && self.below(odds) == 0
    }

    fn turn(&mut self, writes: bool, creates: bool) -> (Turn, Duration) {
        match &mut self.left {
            Some(0) => return (Turn::Nothing, Duration::ZERO),
            Some(left) => {
                *left -= 1;
                if *left == 0 {
                    // The operation that the process died in may have happened.
                    let happened = writes && self.below(2) == 0;
                    return (if happened { Turn::Unanswered } else { Turn::Nothing }, Duration::ZERO);
                }
            }
            None => {}
        }
        let odds = self.odds;
        let stalls = self.hits(odds.stall);
        let stall = Duration::from_millis(if stalls { self.below(odds.stall_ms) } else { 0 });
        let turn = if self.hits(odds.before) {
            Turn::Nothing
        } else if writes && self.hits(odds.after) {
            Turn::Unanswered
        } else if creates && self.hits(odds.existing) {
            Turn::Existing
        } else {
            Turn::Fine
        };
        (turn, stall)
    }
}

impl Faulty {
    /// Fails only when [armed](Self::arm).
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self::chance(inner, 0, Odds::default())
    }

    /// Fails by chance, the same way for the same seed and operations.
    pub fn chance(inner: Arc<dyn ObjectStore>, seed: u64, odds: Odds) -> Self {
        let chance = Mutex::new(Chance { random: seed, odds, left: None });
        Self { inner, next: Mutex::new(None), blind: Mutex::new(false), chance }
    }

    pub fn arm(&self, fault: Fault) {
        *self.next.lock() = Some(fault);
    }

    /// From the n-th operation on (that one may or may not happen) nothing happens any more: the process is gone.
    pub fn crash_in(&self, operations: u64) {
        self.chance.lock().left = Some(operations.max(1));
    }

    pub fn is_gone(&self) -> bool {
        self.chance.lock().left == Some(0)
    }

    async fn turn(&self, writes: bool, creates: bool) -> Turn {
        let (turn, stall) = self.chance.lock().turn(writes, creates);
        if !stall.is_zero() {
            tokio::time::sleep(stall).await;
        }
        turn
    }

    async fn reads(&self) -> Result<()> {
        match self.turn(false, false).await {
            Turn::Fine => Ok(()),
            _ => Err(broken()),
        }
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "the connection was reset".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let turn = self.turn(true, opts.mode == PutMode::Create).await;
        if turn == Turn::Nothing {
            return Err(broken());
        }
        let fault = if location.as_ref().ends_with(".json") { self.next.lock().take() } else { None };
        if fault == Some(Fault::Before) {
            return Err(broken());
        }
        let done = self.inner.put_opts(location, payload, opts).await?;
        let existing = || Error::AlreadyExists { path: location.to_string(), source: "it is there".into() };
        match turn {
            Turn::Fine | Turn::Nothing => {}
            Turn::Unanswered => return Err(broken()),
            Turn::Existing => return Err(existing()),
        }
        match fault {
            None | Some(Fault::Before) => Ok(done),
            Some(Fault::After) => Err(broken()),
            Some(Fault::AfterAsExisting) => Err(existing()),
            Some(Fault::AfterAndBlind) => {
                *self.blind.lock() = true;
                Err(broken())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.reads().await?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if std::mem::take(&mut *self.blind.lock()) {
            return Err(broken());
        }
        self.reads().await?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.reads().await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // Without waiting, for the stream may not borrow from here; deletions do not stall.
        let mut turns = Chance::default();
        {
            let mut chance = self.chance.lock();
            turns.random = chance.below(u64::MAX);
            turns.odds = chance.odds;
            turns.left = chance.left;
            if let Some(left) = &mut chance.left {
                *left = left.saturating_sub(1);
            }
        }
        let inner = self.inner.clone();
        locations
            .and_then(move |location| {
                let turn = turns.turn(true, false).0;
                let inner = inner.clone();
                async move {
                    if turn == Turn::Nothing {
                        return Err(broken());
                    }
                    inner.delete(&location).await?;
                    if turn == Turn::Fine { Ok(location) } else { Err(broken()) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut chance = self.chance.lock();
        let turn = chance.turn(false, false).0;
        let odds = chance.odds.list;
        let cut = (turn != Turn::Fine || chance.hits(odds)).then(|| chance.below(20) as usize);
        drop(chance);
        let all = self.inner.list(prefix);
        match cut {
            None => all,
            Some(n) => all.take(n).chain(futures::stream::once(async { Err(broken()) })).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reads().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.reads().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

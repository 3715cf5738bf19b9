//! What users do: sessions that search, view, mark a favourite and contact, fewer at each step. A user keeps region and
//! device; a few users do most. The sessions of a block of rows are planned together, then told in order of time.

use super::random::{For, Random, mix};
use super::{BLOCK, hex, number, text};
use crate::decode::time::SECOND;

/// Users are numbered from 1 to below two to this.
pub(super) const USER_BITS: u32 = 18;

const REGIONS: [&str; 6] = ["north", "south", "east", "west", "centre", "islands"];
const DEVICES: [(&str, &str, bool); 7] = [
    ("Chrome", "Android", true),
    ("Safari", "iOS", true),
    ("Chrome", "Windows", false),
    ("Chrome", "Android", true),
    ("Firefox", "Linux", false),
    ("Safari", "macOS", false),
    ("Edge", "Windows", false),
];
const CATEGORIES: [&str; 8] = ["cars", "flats", "phones", "furniture", "jobs", "bicycles", "garden", "books"];
const CHANNELS: [&str; 3] = ["message", "phone", "mail"];

/// A step of the funnel, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Search,
    View,
    Favourite,
    Contact,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Step::Search => "search",
            Step::View => "view",
            Step::Favourite => "favourite",
            Step::Contact => "contact",
        }
    }
}

#[derive(Debug)]
struct Session {
    user: u64,
    id: u64,
    /// All of it comes this much late; 0 for most.
    late_by: i64,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    ts: i64,
    session: u32,
    step: Step,
    /// What was viewed, marked or asked about.
    item: u32,
}

/// The steps of a block, in order of time.
#[derive(Debug, Default)]
pub(super) struct Plan {
    sessions: Vec<Session>,
    steps: Vec<Planned>,
}

impl Plan {
    /// `rows` steps of block `block`, whose rows lie between two times.
    pub(super) fn make(&mut self, seed: u64, block: u64, rows: usize, (from, to): (i64, i64), late: u32) {
        let mut r = Random::of(For::Block, seed, block);
        self.sessions.clear();
        self.steps.clear();
        // In one block of eight, a quarter of the sessions come at once.
        let burst = (r.below(8) == 0).then(|| r.below(BLOCK));
        while self.steps.len() < rows {
            let session = self.sessions.len() as u32;
            let at = match burst {
                Some(at) if r.below(4) == 0 => (at + r.below(BLOCK / 50)).min(BLOCK - 1),
                _ => r.below(BLOCK),
            };
            let end = from + ((i128::from(to - from) * i128::from(at)) >> BLOCK.trailing_zeros()) as i64;
            let (user, id) = (r.zipf(USER_BITS), r.next());
            let late_by = if r.chance(late) { super::late_by(&mut r) } else { 0 };
            self.sessions.push(Session { user, id, late_by });
            let first = self.steps.len();
            funnel(&mut r, |gap, step, item| {
                let ts = self.steps.last().filter(|_| self.steps.len() > first).map_or(0, |s| s.ts) + gap;
                self.steps.push(Planned { ts, session, step, item });
            });
            // A session ends within the block's time, so that nothing lies beyond the newest time asked for.
            let lasts = self.steps.last().map_or(0, |s| s.ts);
            for step in &mut self.steps[first..] {
                step.ts += end - lasts;
            }
            // The block is full: the last session breaks off.
            self.steps.truncate(rows);
        }
        // Stable: a session's steps stay in order even if times were equal.
        self.steps.sort_by_key(|s| s.ts);
    }

    /// Event time of a row of the block as planned, not yet late.
    pub(super) fn time(&self, row: usize) -> i64 {
        self.steps[row].ts
    }
}

/// One session: searches, then perhaps views, then perhaps a favourite, then perhaps a contact. `push` gets the time
/// since the step before, the step and its item. At most half an hour.
fn funnel(r: &mut Random, mut push: impl FnMut(i64, Step, u32)) {
    let gap = |r: &mut Random| SECOND + r.skewed(90 * SECOND as u64) as i64;
    let item = |r: &mut Random| r.zipf(20) as u32;
    for _ in 0..1 + r.skewed(5) {
        push(gap(r), Step::Search, 0);
    }
    if r.below(100) >= 64 {
        return;
    }
    let mut seen = 0;
    for _ in 0..1 + r.skewed(12) {
        seen = item(r);
        push(gap(r), Step::View, seen);
    }
    if r.below(100) >= 27 {
        return;
    }
    push(gap(r), Step::Favourite, seen);
    if r.below(100) >= 38 {
        return;
    }
    push(gap(r), Step::Contact, seen);
}

/// One event, as texts that are written over by the next.
#[derive(Debug, Default)]
pub(super) struct Event {
    pub(super) ts: i64,
    pub(super) id: Vec<u8>,
    pub(super) user: Vec<u8>,
    pub(super) session: Vec<u8>,
    pub(super) kind: &'static str,
    pub(super) data: Vec<u8>,
    pub(super) device: Vec<u8>,
}

impl Event {
    /// Row `row` of its block, at `ts`.
    pub(super) fn make(&mut self, r: &mut Random, seed: u64, plan: &Plan, row: usize, ts: i64) {
        let planned = plan.steps[row];
        let session = &plan.sessions[planned.session as usize];
        self.ts = ts - session.late_by;
        self.kind = planned.step.name();
        for text in [&mut self.id, &mut self.user, &mut self.session, &mut self.data, &mut self.device] {
            text.clear();
        }
        // A version 4 UUID made of the row's own random bits.
        let (a, b) = ((r.next() & !0xf000) | 0x4000, (r.next() & !(3 << 62)) | (2 << 62));
        for (part, digits) in [(a >> 32, 8), (a >> 16, 4), (a, 4), (b >> 48, 4), (b, 12)] {
            if !self.id.is_empty() {
                text(&mut self.id, "-");
            }
            hex(&mut self.id, part, digits);
        }
        text(&mut self.user, "user-");
        number(&mut self.user, session.user);
        text(&mut self.session, "s-");
        hex(&mut self.session, session.id, 12);
        let mut user = Random::of(For::User, seed, session.user);
        let (region, device) = (user.pick(&REGIONS), user.pick(&DEVICES));
        let d = &mut self.data;
        text(d, "{\"region\":\"");
        text(d, region);
        text(d, "\",\"category\":\"");
        text(d, CATEGORIES[(mix(session.id) % CATEGORIES.len() as u64) as usize]);
        match planned.step {
            Step::Search => {
                text(d, "\",\"query\":\"q");
                number(d, r.zipf(12));
                text(d, "\",\"results\":");
                number(d, r.skewed(2000));
            }
            Step::View => {
                text(d, "\",\"item\":");
                number(d, u64::from(planned.item));
                text(d, ",\"position\":");
                number(d, r.skewed(40) + 1);
                text(d, ",\"duration_ms\":");
                number(d, r.skewed(60_000));
            }
            Step::Favourite => {
                text(d, "\",\"item\":");
                number(d, u64::from(planned.item));
            }
            Step::Contact => {
                text(d, "\",\"channel\":\"");
                text(d, r.pick(&CHANNELS));
                text(d, "\",\"item\":");
                number(d, u64::from(planned.item));
            }
        }
        text(d, "}");
        let (browser, system, mobile) = device;
        let v = &mut self.device;
        text(v, "{\"browser\":\"");
        text(v, browser);
        text(v, "\",\"os\":\"");
        text(v, system);
        text(v, if mobile { "\",\"mobile\":true}" } else { "\",\"mobile\":false}" });
    }
}

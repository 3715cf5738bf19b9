//! The same statement in both stores, in one snapshot: are the answers the same bytes? Rows are taken as they pass, in memory that does not
//! grow with them. ✗ asking, what becomes of a difference.

pub mod log;

use crate::analyze::Analysis;
use crate::analyze::ir::{Expr, Node, Rel, SortKey};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Bytes of rows that are kept of each side, to tell where they differ.
const KEPT_BYTES: usize = 1024 * 1024;
/// Characters of a row that are told.
const TOLD: usize = 400;

/// How far a statement settles the order of its rows, and which they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Order {
    /// Outputs by which the rows are sorted, first of all: as far as that is known.
    pub keys: Vec<usize>,
    /// Sorted at all.
    pub sorted: bool,
    /// A LIMIT may keep one of several rows that the order cannot tell apart.
    pub open: bool,
}

impl Order {
    /// Of a whole statement.
    pub fn of_statement(analysis: &Analysis) -> Order {
        let Some(arranged) = &analysis.arranged else { return Order::of(&analysis.plan) };
        // A rank stands for its text, which says the same as long as no two texts share it.
        let mut plan = arranged.plan.clone();
        let ranks = analysis.outputs.len();
        for_sort_keys(&mut plan, &mut |keys| {
            let shared = |key: &SortKey| match key.expr.node {
                Node::Column(n) => n.checked_sub(ranks).is_some_and(|rank| !arranged.ranked[rank].deterministic),
                _ => false,
            };
            keys.truncate(keys.iter().position(shared).unwrap_or(keys.len()));
            for key in keys {
                key.expr.renumber(&mut |n| {
                    if let Some(rank) = n.checked_sub(ranks) {
                        *n = arranged.ranked[rank].output;
                    }
                });
            }
        });
        let order = Order::of(&plan);
        Order { open: order.open || limits(&analysis.plan), ..order }
    }

    /// Of a plan that is the whole statement.
    pub fn of(plan: &Rel) -> Order {
        let mut order = Order { open: limits(plan), ..Order::default() };
        let mut outputs: Option<Vec<&Expr>> = None;
        let mut rel = plan;
        loop {
            rel = match rel {
                Rel::Limit { input, .. } | Rel::After { then: input, .. } => input,
                Rel::Project { input, outputs: own, .. } if outputs.is_none() => {
                    outputs = Some(own.iter().map(|(_, e)| e).collect());
                    input
                }
                Rel::Sort { keys, .. } => {
                    order.sorted = true;
                    for key in keys {
                        let Node::Column(column) = key.expr.node else { break };
                        let place = match &outputs {
                            None => Some(column),
                            Some(all) => all.iter().position(|e| e.node == Node::Column(column)),
                        };
                        let Some(place) = place else { break };
                        order.keys.push(place);
                    }
                    return order;
                }
                _ => return order,
            };
        }
    }
}

fn for_sort_keys(rel: &mut Rel, change: &mut dyn FnMut(&mut Vec<SortKey>)) {
    match rel {
        Rel::Limit { input, .. } | Rel::Project { input, .. } => for_sort_keys(input, change),
        Rel::Sort { keys, .. } => change(keys),
        _ => {}
    }
}

fn limits(rel: &Rel) -> bool {
    match rel {
        Rel::Limit { .. } | Rel::DistinctOn { .. } => true,
        Rel::Filter { input, .. }
        | Rel::Project { input, .. }
        | Rel::Aggregate { input, .. }
        | Rel::Distinct { input }
        | Rel::Sort { input, .. }
        | Rel::Window { input, .. }
        | Rel::After { then: input, .. }
        | Rel::Single { input } => limits(input),
        Rel::Join { left, right, .. } | Rel::SetOp { left, right, .. } => limits(left) || limits(right),
        Rel::Attach { input, value } => limits(input) || limits(value),
        _ => false,
    }
}

/// One side's rows.
#[derive(Debug, Clone, Default)]
pub struct Side {
    order: Order,
    pub rows: u64,
    /// Bytes of the longest row.
    pub longest: usize,
    /// Of the rows in their order, of the keys in theirs, and of the rows in any order.
    sequence: u64,
    keys: u64,
    bag: u128,
    kept: Vec<Vec<u8>>,
    kept_bytes: usize,
}

impl Side {
    /// Nothing yet.
    pub fn new(order: &Order) -> Side {
        Side { order: order.clone(), ..Side::default() }
    }

    /// Takes the body of a DataRow.
    pub fn row(&mut self, body: &[u8]) {
        self.rows += 1;
        self.longest = self.longest.max(body.len());
        let (low, high) = (hash(&(0u8, body)), hash(&(1u8, body)));
        self.sequence = hash(&(self.sequence, low, high));
        self.bag = self.bag.wrapping_add(u128::from(low) | u128::from(high) << 64);
        if !self.order.keys.is_empty() {
            let values = values(body);
            let keys: Vec<_> = self.order.keys.iter().map(|k| values.get(*k)).collect();
            self.keys = hash(&(self.keys, keys));
        }
        // All that come first, so that both sides keep rows of the same places.
        if self.kept.len() as u64 + 1 == self.rows && self.kept_bytes + body.len() <= KEPT_BYTES {
            self.kept_bytes += body.len();
            self.kept.push(body.to_vec());
        }
    }

    /// Takes whole DataRow frames, one after another.
    pub fn frames(&mut self, mut frames: &[u8]) {
        while let Some((head, rest)) = frames.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let Some((body, after)) = rest.split_at_checked(length.saturating_sub(4)) else { return };
            if head[0] == b'D' {
                self.row(body);
            }
            frames = after;
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The values of a DataRow; None is NULL.
fn values(body: &[u8]) -> Vec<Option<&[u8]>> {
    let mut values = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (value, after) = match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => (None, after),
            Ok(length) => match after.split_at_checked(length) {
                Some((value, after)) => (Some(value), after),
                None => break,
            },
        };
        values.push(value);
        rest = after;
    }
    values
}

/// A row as people read it.
fn told(body: &[u8]) -> String {
    let value = |v: &Option<&[u8]>| match v {
        None => "NULL".to_owned(),
        Some(v) => match std::str::from_utf8(v) {
            Ok(text) if text.chars().all(|c| !c.is_control()) => format!("'{text}'"),
            _ => v.iter().fold(String::from("\\x"), |all, b| format!("{all}{b:02x}")),
        },
    };
    let text = format!("({})", values(body).iter().map(value).collect::<Vec<_>>().join(", "));
    match text.char_indices().nth(TOLD) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// What comparing told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Equal,
    /// As far as the statement settles its rows and their order.
    Ties,
    /// The first difference.
    Differs(String),
    /// Nothing: other rows could be seen by one than by the other, or one was not read to its end.
    Open(String),
}

impl Verdict {
    /// As `watershed.comparisons` shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::Ties => "ties",
            Verdict::Differs(_) => "differs",
            Verdict::Open(_) => "open",
        }
    }

    /// In words.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Verdict::Equal => None,
            Verdict::Ties => Some("rows that the order does not tell apart came in another order, or others of them"),
            Verdict::Differs(why) | Verdict::Open(why) => Some(why),
        }
    }
}

/// Both read to their ends.
pub fn compare(postgres: &Side, lake: &Side) -> Verdict {
    if postgres.rows != lake.rows {
        return Verdict::Differs(format!("PostgreSQL has {} rows, the lake {}", postgres.rows, lake.rows));
    }
    if postgres.sequence == lake.sequence {
        return Verdict::Equal;
    }
    let order = &lake.order;
    let keys_differ = postgres.keys != lake.keys;
    if postgres.bag == lake.bag && !keys_differ {
        return if order.sorted { Verdict::Ties } else { Verdict::Equal };
    }
    if order.open && !keys_differ {
        return Verdict::Ties;
    }
    Verdict::Differs(first_difference(postgres, lake, keys_differ && postgres.bag == lake.bag))
}

fn first_difference(postgres: &Side, lake: &Side, in_order: bool) -> String {
    let rows = |side: &Side| {
        let mut rows = side.kept.clone();
        if !in_order {
            rows.sort_unstable();
        }
        rows
    };
    let whole = |side: &Side| side.kept.len() as u64 == side.rows;
    if !in_order && !(whole(postgres) && whole(lake)) {
        return format!("the {} rows differ, too many of them to tell where", lake.rows);
    }
    let (a, b) = (rows(postgres), rows(lake));
    match a.iter().zip(&b).position(|(a, b)| a != b) {
        Some(at) => {
            let how = if in_order { "row" } else { "sorted by their bytes, row" };
            format!("{how} {}: PostgreSQL has {}, the lake {}", at + 1, told(&a[at]), told(&b[at]))
        }
        None => format!("of {} rows the order differs, after the first {}", lake.rows, a.len().min(b.len())),
    }
}

#[cfg(test)]
mod tests;

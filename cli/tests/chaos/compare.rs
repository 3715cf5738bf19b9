//! The comparison of a round: the producers' own record against the broker's log, PostgreSQL, and the lake. It trusts none of them.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Entry, Fate, Home, Ledger, Place};
use crate::support::kafka::Read;
use crate::support::wire::Client;

/// Differences printed of one comparison; the rest is counted.
const SHOWN: usize = 20;

/// What differs, in words.
#[derive(Default)]
pub struct Differences {
    pub lines: Vec<String>,
    more: usize,
}

impl Differences {
    pub fn add(&mut self, line: String) {
        if self.lines.len() < SHOWN {
            self.lines.push(line);
        } else {
            self.more += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        if self.more > 0 {
            text += &format!("\nand {} more", self.more);
        }
        text
    }
}

/// The name of the row that a record of a topic carries.
fn name_of(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload).into_owned();
    if let Some(rest) = text.strip_prefix("no row: ") {
        return rest.split(' ').next().unwrap_or_default().to_owned();
    }
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let name = value.get("message").or_else(|| value.get("event_type")).and_then(|name| name.as_str());
    name.map_or(text, str::to_owned)
}

/// The producers' record against what the broker holds: gives the places of the records that consumers see.
pub fn log(
    ledger: &Ledger,
    read: &BTreeMap<String, Vec<Read>>,
    differences: &mut Differences,
) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    for (topic, records) in read {
        for record in records {
            let name = name_of(record.payload.as_deref().unwrap_or_default());
            let place = Place { topic: topic.clone(), partition: record.partition, offset: record.offset };
            if let Some(other) = places.insert(name.clone(), place.clone()) {
                differences.add(format!("the broker has {name} twice: {other:?} and {place:?}"));
            }
        }
    }
    let entries = ledger.entries();
    for (name, entry) in entries.iter().filter(|(_, entry)| entry.kafka) {
        match (&entry.fate, places.get(name)) {
            (Fate::In, None) => differences.add(format!("{name} was acknowledged; the broker lacks it")),
            (Fate::Out, Some(place)) => {
                differences.add(format!("{name} was aborted; a consumer sees it at {place:?}"));
            }
            (Fate::In, Some(place)) if entry.place.as_ref().is_some_and(|said| said != place) => {
                differences.add(format!("{name} was acknowledged at {:?}, but is at {place:?}", entry.place));
            }
            _ => {}
        }
    }
    for (name, place) in &places {
        if !entries.get(name).is_some_and(|entry| entry.kafka) {
            differences.add(format!("nobody produced {name} at {place:?}"));
        }
    }
    places
}

/// A row as a store has it.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub stream: i64,
    pub offset: i64,
}

/// The rows of a round in both tables.
pub fn rows(client: &mut Client, tag: &str) -> BTreeMap<Home, Vec<Row>> {
    let mut found = BTreeMap::new();
    for (home, sql) in [
        (Home::Logs, format!("SELECT message, _stream, _offset FROM logs WHERE host = '{tag}'")),
        (Home::Events, format!("SELECT event_type, _stream, _offset FROM events WHERE session_id = '{tag}'")),
    ] {
        let rows = client.run(&sql).rows().into_iter().map(|row| {
            let number =
                |n: usize| row[n].as_deref().and_then(|text| text.parse().ok()).expect("a whole number");
            Row { name: row[0].clone().unwrap_or_default(), stream: number(1), offset: number(2) }
        });
        found.insert(home, rows.collect());
    }
    found
}

/// The dead letters of a round: as many rows as letters; their place is text.
pub fn letters(client: &mut Client, tag: &str) -> Vec<(String, String)> {
    let sql = format!(
        "SELECT convert_from(raw, 'UTF8'), position FROM watershed.dead_letters WHERE raw LIKE convert_to('no row: % {tag}', 'UTF8')"
    );
    let rows = client.run(&sql).rows();
    rows.into_iter()
        .map(|row| {
            let raw = row[0].clone().unwrap_or_default();
            (name_of(raw.as_bytes()), row[1].clone().unwrap_or_default())
        })
        .collect()
}

/// One store against the record: each row that must be there once, with its place in the source, and nothing else.
pub fn store(
    which: &str,
    ledger: &Ledger,
    places: &BTreeMap<String, Place>,
    streams: &BTreeMap<i64, (String, i32)>,
    rows: &BTreeMap<Home, Vec<Row>>,
    differences: &mut Differences,
) {
    let entries = ledger.entries();
    let mut seen: BTreeMap<&str, &Row> = BTreeMap::new();
    let mut taken: BTreeSet<(i64, i64)> = BTreeSet::new();
    for (home, rows) in rows {
        for row in rows {
            if let Some(other) = seen.insert(&row.name, row) {
                differences.add(format!("{which} has {} twice: {other:?} and {row:?}", row.name));
            }
            let Some(entry) = entries.get(&row.name) else {
                differences.add(format!("{which} has {row:?}, which nobody sent"));
                continue;
            };
            if entry.home != *home {
                differences.add(format!("{which} has {row:?} in {home:?}, it belongs to {:?}", entry.home));
            }
            if !entry.kafka {
                if (row.stream, row.offset) != (0, 0) {
                    differences.add(format!("{which} has {row:?}, which came through no stream"));
                }
                continue;
            }
            let place = streams.get(&row.stream).map(|(topic, partition)| Place {
                topic: topic.clone(),
                partition: *partition,
                offset: row.offset,
            });
            if place.as_ref() != places.get(&row.name) {
                differences.add(format!(
                    "{which} has {row:?}, that is {place:?}; the broker has it at {:?}",
                    places.get(&row.name)
                ));
            }
            if !taken.insert((row.stream, row.offset)) {
                differences.add(format!("{which} has two rows of stream and offset of {row:?}"));
            }
        }
    }
    absent(which, &entries, &|name| seen.contains_key(name), &[Home::Logs, Home::Events], differences);
}

/// What must be there and is not, what must not be and is, and batches that are there in part.
pub fn absent(
    which: &str,
    entries: &BTreeMap<String, Entry>,
    present: &dyn Fn(&str) -> bool,
    homes: &[Home],
    differences: &mut Differences,
) {
    let mut batches: BTreeMap<u64, BTreeMap<bool, Vec<&str>>> = BTreeMap::new();
    for (name, entry) in entries.iter().filter(|(_, entry)| homes.contains(&entry.home)) {
        let here = present(name);
        match &entry.fate {
            Fate::In if !here => {
                differences.add(format!("{which} lacks {name}, acknowledged: {:?}", entry.place));
            }
            Fate::Out if here => differences.add(format!("{which} has {name}, which was undone")),
            Fate::Whole(batch) => {
                batches.entry(*batch).or_default().entry(here).or_default().push(name);
            }
            _ => {}
        }
    }
    for halves in batches.values().filter(|halves| halves.len() > 1) {
        differences.add(format!("{which} has a part of one transaction: there or not: {halves:?}"));
    }
}

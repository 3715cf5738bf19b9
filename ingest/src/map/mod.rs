//! Records to rows of one table: keys go to the columns of the same name, the time to the event-time column, everything
//! else into the overflow column; a declared [`Mapping`] says otherwise for the columns it names. Knows the table's
//! columns; knows neither formats nor the connection.

pub mod coerce;
pub mod mapping;
pub mod origin;
pub mod plan;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use self::plan::Plan;
use crate::batch::{Batch, Rejected};
use crate::decode::envelope::{self, Envelope};
use crate::decode::time::Instant;
use crate::decode::{EVENT_TIME, Field, Reason, Record, Value, json};
use crate::target::{Kind, Target, quote_ident};
use crate::{Error, Result};

pub use self::mapping::{Cast, ColumnMapping, Mapping, Scalar, Unknown};
pub use self::origin::Origin;

/// Names under which records carry their time, best first; taken where the table has no column of that name and the
/// record no key named like the event-time column.
pub const TIME_ALIASES: [&str; 8] =
    [EVENT_TIME, "timestamp", "time", "ts", "event_time", "eventTime", "datetime", "date"];

/// Dotted names of the Elastic Common Schema, and the columns they fill: where the record has no key named like the
/// column, or only the object that the value was lifted from.
pub const COLUMN_ALIASES: [(&str, &str); 3] =
    [("log.level", "level"), ("host.name", "host"), ("service.name", "service")];

/// More columns with defaults than this cannot be told apart row by row.
const MAX_DEFAULTS: usize = 64;

/// Maps records to one table.
#[derive(Debug)]
pub struct Mapper {
    target: Target,
    by_name: HashMap<String, Place, NameHashes>,
    plan: Option<Arc<Plan>>,
    /// Columns with defaults, in order: the bits of [`crate::batch::Segment::absent`].
    defaults: Vec<usize>,
    default_bit: Vec<Option<u32>>,
    slots: Vec<u32>,
    unknown: Vec<u32>,
    /// Column and field, where a field came under an alias.
    aliases: Vec<(usize, u32)>,
    scratch: Vec<u8>,
}

/// Hashes of names. The map holds a table's columns, so nobody can fill it with names that collide, and every key of every
/// record is looked up in it: quick beats random.
#[derive(Debug, Default)]
struct NameHash(u64);

type NameHashes = std::hash::BuildHasherDefault<NameHash>;

impl std::hash::Hasher for NameHash {
    fn write(&mut self, bytes: &[u8]) {
        // Multiplication by an odd number near 2^64 divided by the golden ratio spreads each word over the upper bits.
        let mut add = |word: u64| self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            add(rest.iter().fold(rest.len() as u64, |v, b| v << 8 | u64::from(*b)));
        }
    }

    fn finish(&self) -> u64 {
        // The map takes its buckets from the lower bits.
        self.0 ^ self.0 >> 32
    }
}

/// What a key fills.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The column of its name.
    Column(usize),
    /// See [`COLUMN_ALIASES`].
    Alias(usize),
}

/// A column that the record says nothing of.
const ABSENT: u32 = u32::MAX;
/// From here on, a slot is no field of the record but a value that the plan found.
const FOUND: u32 = 1 << 31;

/// What the plan adds to one record.
#[derive(Debug, Default)]
struct Declared<'r> {
    /// Values of columns, by the slot less [`FOUND`].
    values: Vec<Value<'r>>,
    /// Fields of which a part was used, and what remains of them.
    remains: Vec<(u32, Value<'r>)>,
}

/// What became of one value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Rows appended to the batch.
    pub rows: usize,
    /// Records put among the refused ones.
    pub rejected: usize,
}

impl Mapper {
    /// For this table.
    ///
    /// # Errors
    /// More than 64 columns with defaults.
    pub fn new(target: Target) -> Result<Mapper> {
        let mut by_name: HashMap<String, Place, NameHashes> = HashMap::default();
        for (alias, column) in COLUMN_ALIASES {
            if let Some(i) = target.columns.iter().position(|c| c.name == column) {
                by_name.insert(alias.to_owned(), Place::Alias(i));
            }
        }
        by_name.extend(target.columns.iter().enumerate().map(|(i, c)| (c.name.clone(), Place::Column(i))));
        let defaults: Vec<usize> =
            (0..target.columns.len()).filter(|&i| target.columns[i].has_default).collect();
        if defaults.len() > MAX_DEFAULTS {
            return Err(Error::Unmappable(format!(
                "table {} has {} columns with defaults; at most {MAX_DEFAULTS} can be loaded",
                target.display(),
                defaults.len()
            )));
        }
        let mut default_bit = vec![None; target.columns.len()];
        for (bit, &i) in defaults.iter().enumerate() {
            default_bit[i] = Some(bit as u32);
        }
        let slots = vec![ABSENT; target.columns.len()];
        Ok(Mapper {
            target,
            by_name,
            plan: None,
            defaults,
            default_bit,
            slots,
            unknown: Vec::new(),
            aliases: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// Gives the columns that a plan names to it alone.
    fn planned(mut self, plan: Option<Plan>) -> Mapper {
        if let Some(plan) = plan {
            self.by_name.retain(|_, place| {
                let (Place::Column(i) | Place::Alias(i)) = place;
                plan.columns.iter().all(|declared| declared.column != *i)
            });
            self.plan = Some(Arc::new(plan));
        }
        self
    }

    /// The table.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// True if a key of this name has a place of its own: a column, or a name of the event time.
    pub fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || TIME_ALIASES.contains(&name)
    }

    /// The COPY statement for rows that leave out this set of columns with defaults.
    pub fn copy_statement(&self, absent: u64) -> String {
        let mut names: Vec<String> = Vec::with_capacity(self.target.columns.len() + 2);
        for (i, c) in self.target.columns.iter().enumerate() {
            if self.default_bit[i].is_none_or(|bit| absent & (1 << bit) == 0) {
                names.push(quote_ident(&c.name));
            }
        }
        names.extend(["_stream".to_owned(), "_offset".to_owned()]);
        format!(
            "COPY {} ({}) FROM STDIN (FORMAT text, ENCODING 'UTF8')",
            self.target.qualified(),
            names.join(", ")
        )
    }

    /// Appends the row of one record to the batch.
    ///
    /// # Errors
    /// Why the record is no row of this table; the batch is unchanged then.
    pub fn map(
        &mut self,
        record: &Record<'_>,
        batch: &mut Batch,
        line: u64,
        raw: &[u8],
    ) -> Result<(), Reason> {
        self.map_from(record, &Origin::NONE, batch, line, raw)
    }

    /// As [`Mapper::map`], for a record of a topic.
    ///
    /// # Errors
    /// As there.
    pub fn map_from(
        &mut self,
        record: &Record<'_>,
        origin: &Origin<'_>,
        batch: &mut Batch,
        line: u64,
        raw: &[u8],
    ) -> Result<(), Reason> {
        self.assign(record);
        if let Some(plan) = self.plan.clone() {
            return self.map_planned(&plan, record, origin, batch, line, raw);
        }
        self.find_event_time(record)?;
        self.refuse_unknown(record, Unknown::Keep)?;
        self.append(record, &Declared::default(), batch, line, raw)
    }

    fn map_planned(
        &mut self,
        plan: &Plan,
        record: &Record<'_>,
        origin: &Origin<'_>,
        batch: &mut Batch,
        line: u64,
        raw: &[u8],
    ) -> Result<(), Reason> {
        let mut found = Declared::default();
        let mut used: Vec<(u32, Vec<String>)> = Vec::new();
        for declared in &plan.columns {
            let name = &self.target.columns[declared.column].name;
            let value = declared.find(record, origin).map_err(|r| format!("column {name}: {r}"))?;
            match value {
                Some(value) => {
                    self.slots[declared.column] = FOUND + found.values.len() as u32;
                    found.values.push(value.value);
                    used.extend(value.used);
                }
                None if declared.column == self.target.event_time => {
                    return Err(format!("no event time: none of {}", declared.described()));
                }
                None => {}
            }
        }
        self.find_event_time(record)?;
        if plan.unknown == Unknown::Drop {
            self.unknown.clear();
        }
        // What was used is no longer unknown; of an object that was used in part, the rest is.
        self.unknown.retain(|u| {
            let name = &record[*u as usize].name;
            !used.iter().any(|(at, way)| way.is_empty() && record[*at as usize].name == *name)
        });
        let mut at = 0;
        while let Some(&u) = self.unknown.get(at) {
            let parts: Vec<&[String]> =
                used.iter().filter(|(of, _)| *of == u).map(|(_, way)| way.as_slice()).collect();
            if !parts.is_empty()
                && let Value::Json(raw) = &record[u as usize].value
            {
                match plan::without(raw, &parts) {
                    Some(rest) => found.remains.push((u, Value::Json(Cow::Owned(rest)))),
                    None => {
                        self.unknown.remove(at);
                        continue;
                    }
                }
            }
            at += 1;
        }
        self.refuse_unknown(record, plan.unknown)?;
        self.append(record, &found, batch, line, raw)
    }

    /// Takes the records out of one value and appends their rows; what is no row goes to the batch's refused records.
    /// All rows and refused records get the same `line`.
    pub fn map_value(
        &mut self,
        envelope: Envelope,
        value: &[u8],
        origin: &Origin<'_>,
        batch: &mut Batch,
        line: u64,
    ) -> Taken {
        let mut taken = Taken::default();
        let refuse = |batch: &mut Batch, stage, reason, raw: &[u8]| {
            batch.rejected.push(Rejected { line, stage, reason, raw: raw.to_vec() });
        };
        let mut records = match envelope::open_at(envelope, value, origin.timestamp) {
            Ok(records) => records,
            Err(reason) => {
                refuse(batch, "decode", reason, value);
                return Taken { rejected: 1, ..taken };
            }
        };
        while let Some(record) = records.next() {
            let raw = records.raw();
            let (stage, result) = match record {
                Ok(record) => ("map", self.map_from(&record, origin, batch, line, &raw)),
                Err(reason) => ("decode", Err(reason)),
            };
            match result {
                Ok(()) => taken.rows += 1,
                Err(reason) => {
                    refuse(batch, stage, reason, &raw);
                    taken.rejected += 1;
                }
            }
        }
        taken
    }

    /// Writes the row whose columns were given their values.
    fn append(
        &mut self,
        record: &Record<'_>,
        declared: &Declared<'_>,
        batch: &mut Batch,
        line: u64,
        raw: &[u8],
    ) -> Result<(), Reason> {
        let mut absent = 0u64;
        for (bit, &i) in self.defaults.iter().enumerate() {
            // Unknown keys fill the overflow column even where the record does not name it.
            let fills = self.target.overflow == Some(i) && !self.unknown.is_empty();
            if self.slots[i] == ABSENT && !fills {
                absent |= 1 << bit;
            }
        }
        let (segment, s) = batch.segment(absent);
        let out = s.text_mut();
        match self.write_row(record, declared, absent, out) {
            Ok(()) => {
                batch.accept(segment, line, raw);
                Ok(())
            }
            Err(reason) => {
                s.abandon();
                Err(reason)
            }
        }
    }

    /// Gives each field of the record its column, or puts it among the unknown ones.
    fn assign(&mut self, record: &Record<'_>) {
        self.slots.fill(ABSENT);
        self.unknown.clear();
        self.aliases.clear();
        for (i, f) in record.iter().enumerate() {
            match self.by_name.get(f.name.as_ref()) {
                Some(Place::Column(c)) => self.slots[*c] = i as u32,
                Some(Place::Alias(c)) => self.aliases.push((*c, i as u32)),
                None => self.unknown.push(i as u32),
            }
        }
        for at in 0..self.aliases.len() {
            let (c, i) = self.aliases[at];
            match self.slots[c] {
                ABSENT => self.slots[c] = i,
                // The same name again, or the object that the value was lifted from.
                own if record[own as usize].name == record[i as usize].name => self.slots[c] = i,
                own if json::is_object(&record[own as usize].value) => {
                    self.slots[c] = i;
                    self.unknown.push(own);
                }
                _ => self.unknown.push(i),
            }
        }
    }

    /// Where no key is named like the event-time column, the best of its other names fills it.
    fn find_event_time(&mut self, record: &Record<'_>) -> Result<(), Reason> {
        let event = self.target.event_time;
        if self.slots[event] != ABSENT {
            return Ok(());
        }
        let found = TIME_ALIASES
            .iter()
            .find_map(|alias| self.unknown.iter().rposition(|&u| record[u as usize].name == *alias));
        let Some(at) = found else {
            return Err(format!(
                "no event time: neither {:?} nor any of {}",
                self.target.columns[event].name,
                TIME_ALIASES.join(", ")
            ));
        };
        let used = self.unknown.remove(at);
        self.slots[event] = used;
        // The same name again: the last one counts, as in jsonb.
        let name = &record[used as usize].name;
        self.unknown.retain(|&u| record[u as usize].name != *name);
        Ok(())
    }

    fn refuse_unknown(&self, record: &Record<'_>, unknown: Unknown) -> Result<(), Reason> {
        let Some(&u) = self.unknown.first() else { return Ok(()) };
        let name = &record[u as usize].name;
        match (unknown, self.target.overflow) {
            (Unknown::Reject, _) => {
                Err(format!("no column for {name:?}, and the mapping rejects unknown keys"))
            }
            (_, None) => Err(format!(
                "no column for {name:?}, and table {} has no overflow column",
                self.target.display()
            )),
            _ => Ok(()),
        }
    }

    fn write_row(
        &mut self,
        record: &[Field<'_>],
        declared: &Declared<'_>,
        absent: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let mut first = true;
        for (i, column) in self.target.columns.iter().enumerate() {
            if self.default_bit[i].is_some_and(|bit| absent & (1 << bit) != 0) {
                continue;
            }
            if !first {
                out.push(b'\t');
            }
            first = false;
            let given = match self.slots[i] {
                ABSENT => None,
                at if at >= FOUND => Some(&declared.values[(at - FOUND) as usize]),
                at => Some(&record[at as usize].value),
            };
            let explain = |r: Reason| format!("column {}: {r}", column.name);
            if Some(i) == self.target.overflow && !self.unknown.is_empty() {
                self.scratch.clear();
                write_overflow(
                    &mut self.scratch,
                    &column.name,
                    given,
                    record,
                    &self.unknown,
                    &declared.remains,
                )
                .map_err(explain)?;
                // Made of whole strings, so it is UTF-8.
                let json = std::str::from_utf8(&self.scratch).map_err(|e| e.to_string())?;
                coerce::push_text(out, json).map_err(explain)?;
                continue;
            }
            let value = given.unwrap_or(&Value::Null);
            if column.not_null && coerce::is_null(value) {
                return Err(format!("column {}: missing or null, and it must not be", column.name));
            }
            if i == self.target.event_time {
                match coerce::event_time(value).map_err(explain)? {
                    Instant::At(us)
                        if column.kind == Kind::Date
                            || column.kind == Kind::Timestamp
                            || column.kind == Kind::TimestampTz =>
                    {
                        coerce::push_value(out, column.kind, &Value::Time(us)).map_err(explain)?;
                    }
                    Instant::At(_) => return Err(format!("column {}: its type is no time", column.name)),
                    _ => return Err(format!("column {}: an event time must be finite", column.name)),
                }
                continue;
            }
            coerce::push_value(out, column.kind, value).map_err(explain)?;
        }
        Ok(())
    }
}

/// The members of a JSON object, or none if the text is none.
fn members(raw: &str) -> Option<Record<'_>> {
    json::decode(raw).ok()
}

/// `{unknown keys..., members of the record's own overflow value...}`. Nothing is lost where both have a key: the
/// outer one is kept as `record.<key>`.
fn write_overflow(
    out: &mut Vec<u8>,
    column: &str,
    own: Option<&Value<'_>>,
    record: &[Field<'_>],
    unknown: &[u32],
    remains: &[(u32, Value<'_>)],
) -> Result<(), Reason> {
    let own = own.filter(|v| !coerce::is_null(v));
    let own_text: Option<Cow<'_, str>> = match own {
        Some(Value::Json(raw)) => Some(Cow::Borrowed(raw.as_ref())),
        Some(Value::Text(s)) if json::is_json(s) => Some(Cow::Borrowed(s.as_ref())),
        _ => None,
    };
    let own_members = own_text.as_deref().filter(|t| t.starts_with('{')).and_then(members);
    out.push(b'{');
    let mut first = true;
    let mut key = |out: &mut Vec<u8>, name: &str| {
        if !first {
            out.push(b',');
        }
        first = false;
        json::write_string(out, name);
        out.push(b':');
    };
    let taken = |name: &str| own_members.as_ref().is_some_and(|m| m.iter().any(|f| f.name == name));
    for &u in unknown {
        let f = &record[u as usize];
        let mut name = Cow::Borrowed(f.name.as_ref());
        while taken(&name) {
            name = Cow::Owned(format!("record.{name}"));
        }
        if name.contains('\0') {
            return Err("a key holds a NUL character".to_owned());
        }
        let value = remains.iter().find(|(of, _)| *of == u).map_or(&f.value, |(_, rest)| rest);
        if let Value::Text(s) = value
            && s.contains('\0')
        {
            return Err(format!("{name:?} holds a NUL character, which PostgreSQL cannot store"));
        }
        key(out, &name);
        json::write_value(out, value);
    }
    match (&own_members, own) {
        (Some(members), _) => {
            for f in members {
                key(out, &f.name);
                json::write_value(out, &f.value);
            }
        }
        // A value that is no object stands under the column's own name.
        (None, Some(v)) => {
            key(out, column);
            json::write_value(out, v);
        }
        (None, None) => {}
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod mapping_tests;

//! Records to rows of one table: keys go to the columns of the same name, the time to the event-time column, everything
//! else into the overflow column. Knows the table's columns; knows neither formats nor the connection.

pub mod coerce;

use std::borrow::Cow;
use std::collections::HashMap;

use crate::batch::Batch;
use crate::decode::time::Instant;
use crate::decode::{EVENT_TIME, Field, Reason, Record, Value, json};
use crate::target::{Kind, Target, quote_ident};
use crate::{Error, Result};

/// Names under which records carry their time, best first; taken where the table has no column of that name and the
/// record no key named like the event-time column.
pub const TIME_ALIASES: [&str; 8] =
    [EVENT_TIME, "timestamp", "time", "ts", "event_time", "eventTime", "datetime", "date"];

/// More columns with defaults than this cannot be told apart row by row.
const MAX_DEFAULTS: usize = 64;

/// Maps records to one table.
#[derive(Debug)]
pub struct Mapper {
    target: Target,
    by_name: HashMap<String, usize>,
    /// Columns with defaults, in order: the bits of [`crate::batch::Segment::absent`].
    defaults: Vec<usize>,
    default_bit: Vec<Option<u32>>,
    slots: Vec<u32>,
    unknown: Vec<u32>,
    scratch: Vec<u8>,
}

const ABSENT: u32 = u32::MAX;

impl Mapper {
    /// For this table.
    ///
    /// # Errors
    /// More than 64 columns with defaults.
    pub fn new(target: Target) -> Result<Mapper> {
        let by_name = target.columns.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
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
        Ok(Mapper { target, by_name, defaults, default_bit, slots, unknown: Vec::new(), scratch: Vec::new() })
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
        self.assign(record)?;
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
        match self.write_row(record, absent, out) {
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
    fn assign(&mut self, record: &Record<'_>) -> Result<(), Reason> {
        self.slots.fill(ABSENT);
        self.unknown.clear();
        for (i, f) in record.iter().enumerate() {
            match self.by_name.get(f.name.as_ref()) {
                Some(&c) => self.slots[c] = i as u32,
                None => self.unknown.push(i as u32),
            }
        }
        let event = self.target.event_time;
        if self.slots[event] == ABSENT {
            let found = TIME_ALIASES
                .iter()
                .find_map(|alias| self.unknown.iter().rposition(|&u| record[u as usize].name == *alias));
            match found {
                Some(at) => {
                    let used = self.unknown.remove(at);
                    self.slots[event] = used;
                    // The same name again: the last one counts, as in jsonb.
                    let name = &record[used as usize].name;
                    self.unknown.retain(|&u| record[u as usize].name != *name);
                }
                None => {
                    return Err(format!(
                        "no event time: neither {:?} nor any of {}",
                        self.target.columns[event].name,
                        TIME_ALIASES.join(", ")
                    ));
                }
            }
        }
        if self.target.overflow.is_none()
            && let Some(&u) = self.unknown.first()
        {
            return Err(format!(
                "no column for {:?}, and table {} has no overflow column",
                record[u as usize].name,
                self.target.display()
            ));
        }
        Ok(())
    }

    fn write_row(&mut self, record: &[Field<'_>], absent: u64, out: &mut Vec<u8>) -> Result<(), Reason> {
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
                at => Some(&record[at as usize].value),
            };
            let explain = |r: Reason| format!("column {}: {r}", column.name);
            if Some(i) == self.target.overflow && !self.unknown.is_empty() {
                self.scratch.clear();
                write_overflow(&mut self.scratch, &column.name, given, record, &self.unknown)
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
        if let Value::Text(s) = &f.value
            && s.contains('\0')
        {
            return Err(format!("{name:?} holds a NUL character, which PostgreSQL cannot store"));
        }
        key(out, &name);
        json::write_value(out, &f.value);
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

//! Syslog lines to fields: RFC 3164 as files hold it (no priority, no year), the same with an ISO 8601 time (rsyslog's
//! own default), and RFC 5424. Times without a zone are UTC. Knows no columns, no files.

use std::borrow::Cow;

use super::time::{self, DAY, Instant};
use super::{EVENT_TIME, Reason, Record, Value, field, json, text};

/// The year that a time without one belongs to: the year of the record before, moved across New Year's Eve when the
/// time would otherwise go back by more than a week, or forward by nearly a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Years {
    /// Year of the last record, or that of the first one while there was none.
    pub year: i32,
    /// Microseconds since 1970 of the last record.
    pub last: Option<i64>,
}

/// How far times may go back within one file without meaning another year.
const JITTER: i64 = 7 * DAY;

impl Years {
    /// Starts with the year of the first record.
    pub fn starting(year: i32) -> Years {
        Years { year, last: None }
    }

    /// The instant of a date and time of day without a year; moves on to it.
    pub fn place(&mut self, month: u32, day: u32, of_day: (u32, u32, u32, i64)) -> Result<i64, Reason> {
        let at = |year: i32| time::micros((year, month, day), of_day, 0);
        let Some(last) = self.last else {
            let us = at(self.year).map_err(|e| self.explain(month, day, e))?;
            self.last = Some(us);
            return Ok(us);
        };
        let year = self.year;
        let fits = |us: &i64| *us >= last - JITTER && *us - last < 365 * DAY - JITTER;
        // In order: the same year, the next, the one before (a straggler of New Year's Eve).
        let found = [year, year + 1]
            .into_iter()
            .find_map(|y| at(y).ok().filter(fits).map(|us| (y, us)))
            .or_else(|| at(year - 1).ok().filter(|us| *us >= last - JITTER).map(|us| (year - 1, us)));
        let (y, us) = match found {
            Some(f) => f,
            // 29 February after a gap of years, for instance: the year stays as it was.
            None => (year, at(year).map_err(|e| self.explain(month, day, e))?),
        };
        self.year = y;
        self.last = Some(us);
        Ok(us)
    }

    fn explain(&self, month: u32, day: u32, e: time::TimeError) -> Reason {
        format!("month {month} day {day} of {} {e}", self.year)
    }
}

/// Finds the year of the first record of a file from the time the file was last written: the last record is not later
/// than that (a day of clock error allowed). Fed with every line before the load begins.
#[derive(Debug, Default)]
pub struct YearFinder {
    years: Option<Years>,
    latest: Option<i64>,
}

/// A leap year to count from, so that 29 February always exists at the start.
const ANCHOR: i32 = 2000;

impl YearFinder {
    /// Looks at one line.
    pub fn line(&mut self, line: &[u8]) {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let Some((month, day, of_day, _)) = std::str::from_utf8(&line[..line.len().min(64)])
            .or_else(|e| std::str::from_utf8(&line[..e.valid_up_to()]))
            .ok()
            .and_then(|s| bsd_time(priority(s).1))
        else {
            return;
        };
        let years = self.years.get_or_insert(Years::starting(ANCHOR));
        if let Ok(us) = years.place(month, day, of_day) {
            self.latest = Some(self.latest.map_or(us, |l| l.max(us)));
        }
    }

    /// The year of the first record, if the last is to lie before `modified` (microseconds since 1970).
    pub fn first_year(&self, modified: i64) -> i32 {
        let (this_year, ..) = time::civil_from_days((modified + DAY).div_euclid(DAY));
        let Some(latest) = self.latest else {
            return this_year;
        };
        let (y, m, d) = time::civil_from_days(latest.div_euclid(DAY));
        let rolled = y - ANCHOR;
        let of_day = latest.rem_euclid(DAY);
        // The same date in the year of the file; 29 February is compared as the 28th.
        let day = d.min(time::days_in_month(this_year, m));
        let same_year = time::days_from_civil(this_year, m, day) * DAY + of_day;
        let last_year = if same_year <= modified + DAY { this_year } else { this_year - 1 };
        last_year - rolled
    }
}

/// The priority in angle brackets, if there is one, and the rest.
fn priority(s: &str) -> (Option<u32>, &str) {
    let read = || {
        let (number, rest) = s.strip_prefix('<')?.split_once('>')?;
        let p = (number.len() <= 3 && number.bytes().all(|b| b.is_ascii_digit()))
            .then(|| number.parse::<u32>().ok())??;
        (p <= 191).then_some((p, rest))
    };
    read().map_or((None, s), |(p, rest)| (Some(p), rest))
}

/// `Mar 27 13:06:56[.fff]` or `Mar 27 2015 13:06:56`-less forms; gives month, day, time of day and the rest.
#[allow(clippy::type_complexity)]
fn bsd_time(s: &str) -> Option<(u32, u32, (u32, u32, u32, i64), &str)> {
    let b = s.as_bytes();
    if b.len() < 15 || !b[..15].is_ascii() || b[3] != b' ' || b[6] != b' ' || b[9] != b':' || b[12] != b':' {
        return None;
    }
    let month = time::month(&b[..3])?;
    let two = |i: usize| -> Option<u32> {
        let tens = match b[i] {
            b' ' if i == 4 => 0,
            c if c.is_ascii_digit() => u32::from(c - b'0'),
            _ => return None,
        };
        b[i + 1].is_ascii_digit().then(|| tens * 10 + u32::from(b[i + 1] - b'0'))
    };
    let (day, h, m, sec) = (two(4)?, two(7)?, two(10)?, two(13)?);
    let mut rest = &s[15..];
    let mut micros = 0;
    if let Some(f) = rest.strip_prefix('.') {
        let n = f.bytes().take_while(u8::is_ascii_digit).count();
        if n == 0 {
            return None;
        }
        for i in 0..6 {
            micros = micros * 10 + f.as_bytes()[..n].get(i).map_or(0, |c| i64::from(c - b'0'));
        }
        rest = &f[n..];
    }
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    Some((month, day, (h, m, sec, micros), rest.strip_prefix(' ')?))
}

/// True if the line begins as syslog lines do.
pub fn is_syslog(line: &str) -> bool {
    decode(line, &mut Years::starting(ANCHOR)).is_ok()
}

/// The level that an RFC 5424 severity means.
pub fn severity_level(severity: u32) -> &'static str {
    match severity {
        0..=3 => "ERROR",
        4 => "WARN",
        5 | 6 => "INFO",
        _ => "DEBUG",
    }
}

const ERROR_WORDS: [&str; 8] =
    ["error", "fatal", "panic", "emerg", "alert", "segfault", "critical", "out of memory"];
const WARN_WORDS: [&str; 13] = [
    "fail",
    "invalid",
    "denied",
    "refused",
    "illegal",
    "warn",
    "not allowed",
    "not permitted",
    "break-in",
    "bad protocol",
    "did not receive identification",
    "too many authentication",
    "incorrect",
];

/// Where a line has no priority, its words tell how grave it is.
pub fn level_of_text(message: &str) -> &'static str {
    let contains = |word: &&str| {
        let (m, w) = (message.as_bytes(), word.as_bytes());
        // A word begins here: `nfail` or `terror` say nothing.
        m.windows(w.len())
            .enumerate()
            .any(|(i, x)| x.eq_ignore_ascii_case(w) && (i == 0 || !m[i - 1].is_ascii_alphanumeric()))
    };
    if ERROR_WORDS.iter().any(|w| contains(w)) {
        "ERROR"
    } else if WARN_WORDS.iter().any(|w| contains(w)) {
        "WARN"
    } else {
        "INFO"
    }
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

fn push_priority(record: &mut Record<'_>, priority: Option<u32>) {
    if let Some(p) = priority {
        record.push(text("facility", FACILITIES[(p / 8) as usize % 24]));
        record.push(text("severity", SEVERITIES[(p % 8) as usize]));
    }
}

/// `program[pid]: message`, `program: message`, or a message without a program.
fn split_tag(s: &str) -> (Option<&str>, Option<&str>, &str) {
    let end = s.find([':', '[', ' ']).unwrap_or(s.len());
    let program = &s[..end];
    if program.is_empty() || program.len() > 128 {
        return (None, None, s);
    }
    let mut rest = &s[end..];
    let mut pid = None;
    if let Some((p, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        pid = Some(p);
        rest = after;
    }
    match rest.strip_prefix(':') {
        Some(m) => (Some(program), pid, m.strip_prefix(' ').unwrap_or(m)),
        None if pid.is_some() => (Some(program), pid, rest.trim_start()),
        None => (None, None, s),
    }
}

/// The fields of one line; `years` places times that have no year.
///
/// # Errors
/// The line has no time where syslog has it, or the time does not exist.
pub fn decode<'a>(s: &'a str, years: &mut Years) -> Result<Record<'a>, Reason> {
    let s = s.strip_prefix('\u{feff}').unwrap_or(s);
    let (priority, rest) = priority(s);
    if priority.is_some()
        && let Some(body) = rest.strip_prefix("1 ")
    {
        return decode_5424(body, priority);
    }
    let (micros, rest) = match bsd_time(rest) {
        Some((month, day, of_day, rest)) => (years.place(month, day, of_day)?, rest),
        None => {
            let (stamp, after) = rest.split_once(' ').ok_or("no syslog time at the start of the line")?;
            if !stamp.contains('T') {
                return Err("no syslog time at the start of the line".to_owned());
            }
            (iso(stamp)?, after)
        }
    };
    let (host, body) = rest.trim_start().split_once(' ').ok_or("nothing after the host")?;
    let body = body.trim_start();
    let (program, pid, message) = split_tag(body);
    let mut record = Vec::with_capacity(10);
    record.push(field(EVENT_TIME, Value::Time(micros)));
    let level = priority.map_or_else(|| level_of_text(message), |p| severity_level(p % 8));
    record.push(text("level", level));
    record.extend(program.map(|p| text("service", p)));
    record.push(text("host", host));
    record.push(text("message", message));
    record.extend(pid.map(pid_field));
    push_priority(&mut record, priority);
    Ok(record)
}

fn pid_field(pid: &str) -> super::Field<'_> {
    match pid.parse::<i64>() {
        Ok(n) if n.to_string() == pid => field("pid", Value::Int(n)),
        _ => text("pid", pid),
    }
}

fn iso(stamp: &str) -> Result<i64, Reason> {
    match time::parse(stamp) {
        Ok(Instant::At(us)) => Ok(us),
        Ok(_) => Err("an infinite time".to_owned()),
        Err(e) => Err(format!("{stamp:?} {e}")),
    }
}

/// `TIME HOST APP PROCID MSGID STRUCTURED-DATA [MSG]` of RFC 5424, section 6, after the version.
fn decode_5424(body: &str, priority: Option<u32>) -> Result<Record<'_>, Reason> {
    let mut parts = body.splitn(6, ' ');
    let mut part = |name: &str| parts.next().ok_or_else(|| format!("RFC 5424 line without {name}"));
    let stamp = part("a time")?;
    let (host, app, procid, msgid) =
        (part("a host")?, part("an app name")?, part("a process id")?, part("a message id")?);
    let rest = part("structured data")?;
    let (data, message) = structured_data(rest)?;
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);
    let known = |v: &'static str, s| (s != "-").then(|| text(v, s));
    let mut record = Vec::with_capacity(12);
    record.push(field(EVENT_TIME, Value::Time(iso(stamp)?)));
    record.push(text("level", severity_level(priority.unwrap_or(6) % 8)));
    record.extend(known("service", app));
    record.extend(known("host", host));
    record.push(text("message", message));
    record.extend((procid != "-").then(|| pid_field(procid)));
    record.extend(known("msgid", msgid));
    push_priority(&mut record, priority);
    record.extend(data.map(|d| field("structured_data", Value::Json(Cow::Owned(d)))));
    Ok(record)
}

/// `-` or `[id name="value" ...]...`, as a JSON object of objects, and the message.
fn structured_data(s: &str) -> Result<(Option<String>, &str), Reason> {
    if let Some(rest) = s.strip_prefix('-') {
        return Ok((None, rest.strip_prefix(' ').unwrap_or(rest)));
    }
    let bad = || "broken structured data".to_owned();
    let mut out = vec![b'{'];
    let mut rest = s;
    while let Some(element) = rest.strip_prefix('[') {
        if out.len() > 1 {
            out.push(b',');
        }
        let id_end = element.find([' ', ']']).ok_or_else(bad)?;
        json::write_string(&mut out, &element[..id_end]);
        out.extend_from_slice(b":{");
        let mut params = &element[id_end..];
        let mut first = true;
        while let Some(param) = params.strip_prefix(' ') {
            let (name, value) = param.split_once("=\"").ok_or_else(bad)?;
            if !first {
                out.push(b',');
            }
            first = false;
            json::write_string(&mut out, name);
            out.push(b':');
            let mut unescaped = String::new();
            let mut chars = value.char_indices();
            let end = loop {
                match chars.next().ok_or_else(bad)? {
                    (i, '"') => break i,
                    (_, '\\') => match chars.next().ok_or_else(bad)?.1 {
                        c @ ('"' | '\\' | ']') => unescaped.push(c),
                        c => unescaped.extend(['\\', c]),
                    },
                    (_, c) => unescaped.push(c),
                }
            };
            json::write_string(&mut out, &unescaped);
            params = &value[end + 1..];
        }
        rest = params.strip_prefix(']').ok_or_else(bad)?;
        out.push(b'}');
    }
    if out.len() == 1 {
        return Err(bad());
    }
    out.push(b'}');
    // Built from whole strings above.
    let data = String::from_utf8(out).map_err(|_| bad())?;
    Ok((Some(data), rest.strip_prefix(' ').unwrap_or(rest)))
}

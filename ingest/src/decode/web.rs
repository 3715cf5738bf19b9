//! Web access logs to fields: Apache's and nginx's `common` and `combined`, with or without a virtual host in front and
//! with whatever a site appends. Texts stay as logged, escapes included. Knows no columns.
//!
//! ```text
//! [vhost[:port]] client ident user [17/May/2015:10:05:03 +0000] "request" status bytes ["referrer" "user agent" [extra]]
//! ```

use std::borrow::Cow;

use super::{EVENT_TIME, Reason, Record, Value, field, text, time};

/// The parts of a line, borrowed.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    vhost: Option<&'a str>,
    client: &'a str,
    ident: &'a str,
    user: &'a str,
    micros: i64,
    request: &'a str,
    status: u32,
    bytes: Option<i64>,
    referrer: Option<&'a str>,
    agent: Option<&'a str>,
    extra: &'a str,
}

/// The text between quotes at the start of `s`, and what follows; a backslash escapes the next byte. The flag is false if
/// the line ends before the closing quote.
fn quoted(s: &str) -> Option<(&str, &str, bool)> {
    let inner = s.strip_prefix('"')?;
    let bytes = inner.as_bytes();
    let mut i = 0;
    while let Some(n) = memchr::memchr2(b'"', b'\\', &bytes[i..]) {
        i += n;
        if bytes[i] == b'"' {
            return Some((&inner[..i], &inner[i + 1..], true));
        }
        i = (i + 2).min(bytes.len());
    }
    Some((inner, "", false))
}

/// `17/May/2015:10:05:03 +0000`.
fn clf_time(s: &str) -> Result<i64, Reason> {
    let bad = || format!("{s:?} is not a time like 17/May/2015:10:05:03 +0000");
    let b = s.as_bytes();
    if b.len() < 20
        || !s.is_ascii()
        || b[2] != b'/'
        || b[6] != b'/'
        || b[11] != b':'
        || b[14] != b':'
        || b[17] != b':'
    {
        return Err(bad());
    }
    let number = |r: std::ops::Range<usize>| -> Option<u32> {
        b[r].iter().try_fold(0u32, |v, c| c.is_ascii_digit().then(|| v * 10 + u32::from(c - b'0')))
    };
    let read = || -> Option<_> {
        let month = time::month(&b[3..6])?;
        let date = (number(7..11)? as i32, month, number(0..2)?);
        Some((date, (number(12..14)?, number(15..17)?, number(18..20)?, 0)))
    };
    let (date, of_day) = read().ok_or_else(bad)?;
    let zone = s[20..].trim_start();
    let offset = if zone.is_empty() { 0 } else { time::offset(zone).ok_or_else(bad)? };
    time::micros(date, of_day, offset).map_err(|e| format!("{s:?} {e}"))
}

fn parse(s: &str) -> Result<Line<'_>, Reason> {
    let open = s.find(" [").ok_or("no time in brackets")?;
    let close = s[open..].find("] ").ok_or("no time in brackets")? + open;
    let head = &s[..open];
    let micros = clf_time(&s[open + 2..close])?;
    let mut tokens = head.splitn(4, ' ');
    let (first, second, third) = (tokens.next().unwrap_or(""), tokens.next(), tokens.next());
    let (Some(second), Some(third)) = (second, third) else {
        return Err("fewer than three fields (client, ident, user) before the time".to_owned());
    };
    // A fourth field means a virtual host in front, unless it is a user name with a blank.
    let (vhost, client, ident, user) = match tokens.next() {
        None => (None, first, second, third),
        Some(rest)
            if second.parse::<std::net::IpAddr>().is_ok()
                || first
                    .rsplit_once(':')
                    .is_some_and(|(h, p)| !h.contains(':') && p.parse::<u16>().is_ok()) =>
        {
            (Some(first), second, third, rest)
        }
        Some(_) => (None, first, second, &head[first.len() + second.len() + 2..]),
    };
    if client.is_empty() {
        return Err("no client address".to_owned());
    }
    let (request, rest, _) = quoted(&s[close + 2..]).ok_or("no quoted request after the time")?;
    let rest = rest.strip_prefix(' ').ok_or("no status after the request")?;
    let (status_text, rest) = rest.split_once(' ').ok_or("no size after the status")?;
    let status = match status_text.as_bytes() {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            u32::from(a - b'0') * 100 + u32::from(b - b'0') * 10 + u32::from(c - b'0')
        }
        _ => return Err(format!("{status_text:?} is not an HTTP status")),
    };
    let (bytes_text, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let bytes = match bytes_text {
        "-" => None,
        t => Some(
            t.parse::<i64>()
                .ok()
                .filter(|b| *b >= 0)
                .ok_or_else(|| format!("{t:?} is not a size in bytes"))?,
        ),
    };
    let (referrer, rest) = match quoted(rest) {
        Some((r, rest, _)) => (Some(r), rest.strip_prefix(' ').unwrap_or(rest)),
        None => (None, rest),
    };
    // Clients send what they like: an agent cut off before its closing quote is still the agent.
    let (agent, rest) = match referrer.and_then(|_| quoted(rest)) {
        Some((a, rest, _)) => (Some(a), rest.strip_prefix(' ').unwrap_or(rest)),
        None => (None, rest),
    };
    Ok(Line {
        vhost,
        client,
        ident,
        user,
        micros,
        request,
        status,
        bytes,
        referrer,
        agent,
        extra: rest.trim_end(),
    })
}

/// True if the line is one of an access log.
pub fn is_web(line: &str) -> bool {
    parse(line).is_ok()
}

/// What the level column says of an HTTP status.
pub fn level(status: u32) -> &'static str {
    match status {
        500.. => "ERROR",
        400..=499 => "WARN",
        _ => "INFO",
    }
}

/// Service names longer than this are scanners' noise, not services.
const MAX_SERVICE: usize = 64;

/// The service a request belongs to: the first path segment if it names a folder or has no file extension, else the
/// site itself (the virtual host, or `web` where the log names none).
pub fn service<'a>(target: &'a str, vhost: Option<&'a str>) -> &'a str {
    let host =
        |h: &'a str| h.rsplit_once(':').filter(|(_, p)| p.parse::<u16>().is_ok()).map_or(h, |(h, _)| h);
    let (site, path) = match target.split_once("://") {
        // A proxy request names its host.
        Some((_, rest)) if !target.starts_with('/') => {
            let (h, p) = rest.find('/').map_or((rest, "/"), |i| (&rest[..i], &rest[i..]));
            (Some(h), p)
        }
        _ => (vhost, target),
    };
    let site = site.map_or("web", host);
    let path = &path[..path.find(['?', '#', ';']).unwrap_or(path.len())];
    let Some(path) = path.strip_prefix('/') else {
        return site;
    };
    let path = path.trim_start_matches('/');
    let (segment, folder) = path.split_once('/').map_or((path, false), |(s, _)| (s, true));
    let named = !segment.is_empty() && segment.len() <= MAX_SERVICE && (folder || !segment.contains('.'));
    if named { segment } else { site }
}

fn known(s: &str) -> Option<&str> {
    (!s.is_empty() && s != "-").then_some(s)
}

/// The fields of one access-log line.
///
/// # Errors
/// The first part of the line that is not as the format has it.
pub fn decode(s: &str) -> Result<Record<'_>, Reason> {
    let line = parse(s)?;
    let mut words = line.request.split(' ');
    let method = words.next().filter(|m| !m.is_empty() && m.bytes().all(|b| b.is_ascii_uppercase()));
    let rest = method.map_or("", |m| line.request.get(m.len() + 1..).unwrap_or(""));
    let (target, protocol) = match rest.rsplit_once(' ') {
        Some((t, p)) if p.starts_with("HTTP/") => (t, Some(p)),
        _ => (rest, None),
    };
    let target = known(target).filter(|_| method.is_some());
    let mut record = Vec::with_capacity(16);
    record.push(field(EVENT_TIME, Value::Time(line.micros)));
    record.push(text("level", level(line.status)));
    record.push(field("service", Value::Text(Cow::Borrowed(service(target.unwrap_or(""), line.vhost)))));
    record.push(text("host", line.client));
    record.push(text("message", line.request));
    if let Some(m) = method.filter(|_| target.is_some()) {
        record.push(text("method", m));
    }
    for (name, value) in [("path", target), ("protocol", protocol)] {
        record.extend(value.map(|v| text(name, v)));
    }
    record.push(field("status", Value::Int(i64::from(line.status))));
    record.extend(line.bytes.map(|b| field("bytes", Value::Int(b))));
    for (name, value) in [
        ("referrer", line.referrer.and_then(known)),
        ("user_agent", line.agent.and_then(known)),
        ("ident", known(line.ident)),
        ("user", known(line.user)),
        ("vhost", line.vhost),
        ("extra", known(line.extra)),
    ] {
        record.extend(value.map(|v| text(name, v)));
    }
    Ok(record)
}

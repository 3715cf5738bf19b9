//! Which format a content is in, from its first lines and the table's names. Pure.

use super::{Format, csv, syslog, web};

/// How many bytes of a content are looked at.
pub const SNIFF_BYTES: usize = 64 * 1024;
const SNIFF_LINES: usize = 20;

/// The format of a content that begins with `head`; `complete` says that there is no more of it. `knows` tells whether a
/// name is a column of the table or a name of its event time; a CSV header is recognised by that.
pub fn detect(head: &[u8], complete: bool, knows: &dyn Fn(&str) -> bool) -> Option<Format> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = String::from_utf8_lossy(head);
    let trimmed = text.trim_start();
    match trimmed.as_bytes().first()? {
        b'{' => return Some(Format::Ndjson),
        b'[' if trimmed[1..].trim_start().starts_with(['{', ']']) => return Some(Format::JsonArray),
        _ => {}
    }
    let mut lines: Vec<&str> = text
        .split('\n')
        .map(|l| l.trim_end_matches('\r'))
        .filter(|l| !l.trim().is_empty())
        .take(SNIFF_LINES + 1)
        .collect();
    // The last line of a cut head is not whole.
    if !complete && lines.len() > 1 && lines.len() <= SNIFF_LINES {
        lines.pop();
    }
    lines.truncate(SNIFF_LINES);
    let share = |is: fn(&str) -> bool| lines.iter().filter(|l| is(l)).count() * 2 >= lines.len();
    if share(web::is_web) {
        return Some(Format::Web);
    }
    if share(syslog::is_syslog) {
        return Some(Format::Syslog);
    }
    if lines.iter().filter(|l| l.trim_start().starts_with('{')).count() * 2 > lines.len() {
        return Some(Format::Ndjson);
    }
    let header = csv::Header::parse(lines.first()?, csv::guess_delimiter(lines.first()?)).ok()?;
    header.names.iter().any(|n| knows(n) || knows(&n.to_lowercase())).then_some(Format::Csv)
}

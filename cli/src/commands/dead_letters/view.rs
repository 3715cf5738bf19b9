//! A record's bytes for a terminal, the offending ones marked: JSON indented, other text as it is, anything else in
//! hexadecimal. Bounded, whatever the record's size. Pure.

use std::ops::Range;

/// Lines shown around the place.
const LINES: usize = 60;
/// Lines shown before the place, where not all are.
const BEFORE: usize = 20;
/// Characters of a line.
const WIDTH: usize = 120;
/// Larger records are shown in part, as plain text.
const INDENTED_BYTES: usize = 256 * 1024;
/// Bytes of a part.
const PART_BYTES: usize = 4096;
/// Bytes of a line in hexadecimal.
const HEX_ROW: usize = 16;

/// One character of the output, and the byte of the record it stands for.
type Shown = (char, Option<usize>);

/// The lines, each beginning with `>` where it holds the place, with carets below.
pub fn lines(raw: &[u8], place: Option<Range<usize>>) -> Vec<String> {
    if raw.is_empty() {
        return vec!["  (no bytes)".to_owned()];
    }
    let whole = std::str::from_utf8(raw);
    let rows = match whole {
        Ok(text) if raw.len() <= INDENTED_BYTES => match is_json(text) {
            true => wrap(indented(text)),
            false => wrap(plain(text, 0)),
        },
        _ => {
            let part = part(raw, place.as_ref());
            match std::str::from_utf8(&raw[part.clone()]) {
                Ok(text) => wrap(plain(text, part.start)),
                Err(_) => return hexadecimal(raw, part, place),
            }
        }
    };
    window(rows, place)
}

fn is_json(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A part of a large record around the place, cut where characters begin.
fn part(raw: &[u8], place: Option<&Range<usize>>) -> Range<usize> {
    let middle = place.map_or(0, |p| p.start);
    let mut start = middle.saturating_sub(PART_BYTES / 2);
    let mut end = (start + PART_BYTES).min(raw.len());
    let inside = |at: usize| raw.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    // At most three steps in valid UTF-8; elsewhere it does not matter.
    for _ in 0..3 {
        start -= usize::from(start > 0 && inside(start));
        end += usize::from(end < raw.len() && inside(end));
    }
    start..end
}

/// What a terminal may be given of a character.
fn push(line: &mut Vec<Shown>, c: char, at: usize) {
    if c.is_control() || c == '\u{feff}' {
        line.extend(c.escape_default().map(|e| (e, Some(at))));
    } else {
        line.push((c, Some(at)));
    }
}

fn plain(text: &str, offset: usize) -> Vec<Vec<Shown>> {
    let mut lines = vec![Vec::new()];
    for (at, c) in text.char_indices() {
        if c == '\n' {
            lines.push(Vec::new());
        } else if let Some(line) = lines.last_mut() {
            push(line, c, offset + at);
        }
    }
    lines
}

/// JSON with a line for each member and element. Strings and numbers stay as they were written.
fn indented(text: &str) -> Vec<Vec<Shown>> {
    let mut lines: Vec<Vec<Shown>> = Vec::new();
    let mut line: Vec<Shown> = Vec::new();
    let mut depth = 0usize;
    let (mut quoted, mut escaped) = (false, false);
    // Deeper nesting is not shown as such, or lines would be made of blanks.
    let indent = |depth: usize| vec![(' ', None); 2 * depth.min(20)];
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if quoted {
            push(&mut line, c, at);
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            '"' => {
                quoted = true;
                push(&mut line, c, at);
            }
            '{' | '[' => {
                push(&mut line, c, at);
                while chars.peek().is_some_and(|(_, c)| c.is_ascii_whitespace()) {
                    chars.next();
                }
                if let Some((end, close)) = chars.next_if(|(_, c)| matches!(c, '}' | ']')) {
                    push(&mut line, close, end);
                    continue;
                }
                depth += 1;
                lines.push(std::mem::replace(&mut line, indent(depth)));
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                lines.push(std::mem::replace(&mut line, indent(depth)));
                push(&mut line, c, at);
            }
            ',' => {
                push(&mut line, c, at);
                lines.push(std::mem::replace(&mut line, indent(depth)));
            }
            ':' => {
                push(&mut line, c, at);
                line.push((' ', None));
            }
            c if c.is_ascii_whitespace() => {}
            c => push(&mut line, c, at),
        }
    }
    lines.push(line);
    lines
}

fn wrap(lines: Vec<Vec<Shown>>) -> Vec<Vec<Shown>> {
    let mut wrapped = Vec::with_capacity(lines.len());
    for line in lines {
        if line.len() <= WIDTH {
            wrapped.push(line);
        } else {
            wrapped.extend(line.chunks(WIDTH).map(<[Shown]>::to_vec));
        }
    }
    wrapped
}

fn window(rows: Vec<Vec<Shown>>, place: Option<Range<usize>>) -> Vec<String> {
    let hit = |at: &Option<usize>| at.is_some_and(|at| place.as_ref().is_some_and(|p| p.contains(&at)));
    let marked = rows.iter().position(|row| row.iter().any(|(_, at)| hit(at)));
    let first = if rows.len() <= LINES { 0 } else { marked.unwrap_or(0).saturating_sub(BEFORE) };
    let last = (first + LINES).min(rows.len());
    let mut out = Vec::new();
    if first > 0 {
        out.push(format!("  ... {first} lines before"));
    }
    for row in &rows[first..last] {
        let text: String = row.iter().map(|(c, _)| c).collect();
        if !row.iter().any(|(_, at)| hit(at)) {
            out.push(format!("  {text}").trim_end().to_owned());
            continue;
        }
        let carets: String = row.iter().map(|(_, at)| if hit(at) { '^' } else { ' ' }).collect();
        out.push(format!("> {text}"));
        out.push(format!("  {}", carets.trim_end()));
    }
    if last < rows.len() {
        out.push(format!("  ... {} lines after", rows.len() - last));
    }
    out
}

fn hexadecimal(raw: &[u8], part: Range<usize>, place: Option<Range<usize>>) -> Vec<String> {
    let hit = |at: usize| place.as_ref().is_some_and(|p| p.contains(&at));
    let middle = place.as_ref().map_or(part.start, |p| p.start);
    let start = middle.saturating_sub(BEFORE * HEX_ROW / 2).max(part.start) / HEX_ROW * HEX_ROW;
    let end = (start + LINES / 2 * HEX_ROW).min(raw.len());
    let mut out = Vec::new();
    if start > 0 {
        out.push(format!("  ... {start} bytes before"));
    }
    for (row, bytes) in raw[start..end].chunks(HEX_ROW).enumerate() {
        let at = start + row * HEX_ROW;
        let digits: String = bytes.iter().map(|b| format!("{b:02x} ")).collect();
        let text: String = bytes
            .iter()
            .map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' })
            .collect();
        let marked = (at..at + bytes.len()).any(hit);
        let mark = if marked { '>' } else { ' ' };
        out.push(format!("{mark} {at:08x}  {digits:<width$} {text}", width = HEX_ROW * 3));
        if marked {
            let carets: String = (at..at + bytes.len()).map(|i| if hit(i) { "^^ " } else { "   " }).collect();
            out.push(format!("  {:8}  {}", "", carets.trim_end()));
        }
    }
    if end < raw.len() {
        out.push(format!("  ... {} bytes after", raw.len() - end));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_marked_and_keeps_its_digits() {
        let raw = br#"{"a":[1.50,{}],"b":"x\"y\u0000","c":{"d":null}}"#;
        let at = raw.windows(6).position(|w| w == b"\\u0000").unwrap();
        assert_eq!(
            lines(raw, Some(at..at + 6)),
            [
                "  {",
                "    \"a\": [",
                "      1.50,",
                "      {}",
                "    ],",
                ">   \"b\": \"x\\\"y\\u0000\",",
                "              ^^^^^^",
                "    \"c\": {",
                "      \"d\": null",
                "    }",
                "  }"
            ]
        );
    }

    #[test]
    fn text_that_is_no_json_stays_as_it_is() {
        assert_eq!(lines(b"{\"a\":1\tb\nc", Some(7..8)), ["> {\"a\":1\\tb", "          ^", "  c"]);
        assert_eq!(lines(b"", None), ["  (no bytes)"]);
    }

    #[test]
    fn bytes_are_shown_in_hexadecimal() {
        let mut raw = vec![b'a'; 40];
        raw[17] = 0xff;
        let shown = lines(&raw, Some(17..18));
        assert_eq!(shown[0], format!("  00000000  {}  aaaaaaaaaaaaaaaa", "61 ".repeat(16).trim_end()));
        assert_eq!(shown[1], format!("> 00000010  61 ff {}  a.aaaaaaaaaaaaaa", "61 ".repeat(14).trim_end()));
        assert_eq!(shown[2], "               ^^");
    }

    #[test]
    fn large_records_are_shown_around_the_place() {
        let text = "x".repeat(1 << 20);
        let raw = format!("{{\"a\":\"{text}\u{e9}\",\"b\":}}");
        let at = raw.len() - 1;
        let shown = lines(raw.as_bytes(), Some(at..at + 1));
        assert!(shown.len() <= LINES + 4, "{}", shown.len());
        assert!(shown.iter().any(|l| l.starts_with("> ") && l.ends_with("\"b\":}")), "{shown:?}");
        let rows: String = (0..1000).map(|i| format!("{{\"k\":{i}}},")).collect();
        let many = format!("[{rows}0]");
        let at = many.find("{\"k\":500}").unwrap() + 5;
        let shown = lines(many.as_bytes(), Some(at..at + 3));
        assert!(shown[0].contains("lines before") && shown.last().unwrap().contains("lines after"));
        assert!(shown.iter().any(|l| l.starts_with(">") && l.contains("500")));
    }

    #[test]
    fn nothing_panics_on_any_bytes() {
        for raw in [&b"\xff"[..], b"\xe2\x82", b"{", b"\"", b"[[[[", b"\xef\xbb\xbf{}", b"}}}]]]"] {
            for place in [None, Some(0..1), Some(5..900)] {
                assert!(!lines(raw, place).is_empty());
            }
        }
    }
}

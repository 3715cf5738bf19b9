//! String functions of `varlena.c` and `oracle_compat.c` over UTF-8. Positions and lengths are in characters.

use std::borrow::Cow;

use super::{Column, MAX_BYTES};
use crate::PgError;

fn too_long() -> PgError {
    // PostgreSQL goes on to a gigabyte.
    PgError::not_exact("a text is too long")
}

/// The byte at which the character `n` begins, counted from 0; the end if there is none.
fn at(text: &str, n: usize) -> usize {
    if text.is_ascii() {
        return n.min(text.len());
    }
    text.char_indices().nth(n).map_or(text.len(), |(i, _)| i)
}

fn count(text: &str) -> i64 {
    text.chars().count() as i64
}

fn not_negative(n: i64) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// `text_left`: the first n characters, or all but the last -n.
pub(super) fn left(text: &str, n: i64) -> &str {
    let n = if n < 0 { count(text) + n } else { n };
    &text[..at(text, not_negative(n))]
}

/// `text_right`: the last n characters, or all but the first -n. The smallest integer stays negative when its sign is changed.
pub(super) fn right(text: &str, n: i64) -> &str {
    let skip = match n {
        n if n == i64::from(i32::MIN) => 0,
        n if n < 0 => -n,
        n => count(text) - n,
    };
    &text[at(text, not_negative(skip))..]
}

/// `text_substring`: from the character `from` (counted from 1, may lie before) as many as `length`.
pub(super) fn substr(text: &str, from: i64, length: Option<i64>) -> Result<&str, PgError> {
    let first = from.max(1);
    let begin = not_negative(first - 1);
    let Some(length) = length else { return Ok(&text[at(text, begin)..]) };
    if length < 0 {
        return Err(PgError::new("22011", "negative substring length not allowed"));
    }
    // Beyond 32 bits there is no end.
    let end = from + length;
    if end > i64::from(i32::MAX) {
        return Ok(&text[at(text, begin)..]);
    }
    if end < 1 {
        return Ok("");
    }
    let rest = &text[at(text, begin)..];
    Ok(&rest[..at(rest, not_negative(end - first))])
}

/// `text_position`: where the needle first stands, from 1; 0 if nowhere.
pub(super) fn position(text: &str, needle: &str) -> i64 {
    if needle.is_empty() {
        return 1;
    }
    text.find(needle).map_or(0, |byte| count(&text[..byte]) + 1)
}

/// `dotrim`: without the characters of `set` at the ends.
pub(super) fn trim<'a>(text: &'a str, set: &str, left: bool, right: bool) -> &'a str {
    let mut text = text;
    if left {
        text = text.trim_start_matches(|c| set.contains(c));
    }
    if right {
        text = text.trim_end_matches(|c| set.contains(c));
    }
    text
}

/// `lpad` and `rpad`: exactly `length` characters, cut or filled.
pub(super) fn pad(
    text: &str,
    length: i64,
    fill: &str,
    on_left: bool,
    out: &mut String,
) -> Result<(), PgError> {
    let length = length.max(0);
    let own = count(text).min(length);
    let kept = &text[..at(text, not_negative(own))];
    let missing = if fill.is_empty() { 0 } else { not_negative(length - own) };
    if missing.saturating_mul(4) > MAX_BYTES {
        return Err(too_long());
    }
    if !on_left {
        out.push_str(kept);
    }
    out.extend(fill.chars().cycle().take(missing));
    if on_left {
        out.push_str(kept);
    }
    Ok(())
}

/// `repeat`
pub(super) fn repeat(text: &str, times: i64, out: &mut String) -> Result<(), PgError> {
    let times = not_negative(times);
    if text.len().saturating_mul(times) > MAX_BYTES {
        return Err(too_long());
    }
    if !text.is_empty() {
        (0..times).for_each(|_| out.push_str(text));
    }
    Ok(())
}

/// `replace_text`: nothing is replaced by an empty `from`.
pub(super) fn replace<'a>(text: &'a str, from: &str, to: &str) -> Result<Cow<'a, str>, PgError> {
    if from.is_empty() || !text.contains(from) {
        return Ok(text.into());
    }
    let found = text.matches(from).count();
    if text.len().saturating_add(found.saturating_mul(to.len())) > MAX_BYTES {
        return Err(too_long());
    }
    Ok(text.replace(from, to).into())
}

/// `translate`: characters of `from` become those of `to` at the same place, or nothing where it is shorter. The first occurrence in `from`
/// counts.
pub(super) fn translate(text: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match from.chars().position(|f| f == c) {
            None => out.push(c),
            Some(place) => out.extend(to.chars().nth(place)),
        }
    }
    out
}

/// `split_part`: the field `n`, counted from 1, or from the end where it is negative.
pub(super) fn split_part<'a>(text: &'a str, delimiter: &str, n: i64) -> Result<&'a str, PgError> {
    if n == 0 {
        return Err(PgError::new("22023", "field position must not be zero"));
    }
    if text.is_empty() {
        return Ok("");
    }
    if delimiter.is_empty() {
        return Ok(if n == 1 || n == -1 { text } else { "" });
    }
    let field = match n {
        n if n > 0 => not_negative(n - 1),
        n => match text.split(delimiter).count().checked_sub(not_negative(-n)) {
            Some(field) => field,
            None => return Ok(""),
        },
    };
    Ok(text.split(delimiter).nth(field).unwrap_or(""))
}

/// `text_concat` and `text_concat_ws`: NULLs are left out; a NULL separator makes the result NULL.
pub(super) fn joined<'a>(
    separated: bool,
    columns: &[Column<'a>],
    row: usize,
) -> Result<Option<Cow<'a, str>>, PgError> {
    let mut items = columns.iter();
    let separator = match separated {
        true => match items.next().ok_or_else(super::misused)?.maybe_text(row)? {
            Some(separator) => separator,
            None => return Ok(None),
        },
        false => "",
    };
    let mut out = String::new();
    let mut first = true;
    for item in items {
        if let Some(text) = item.maybe_text(row)? {
            if !first {
                out.push_str(separator);
            }
            first = false;
            out.push_str(text);
            if out.len() > MAX_BYTES {
                return Err(too_long());
            }
        }
    }
    Ok(Some(out.into()))
}

//! Records that no table can take, one way of being wrong each: JSON broken off, no time, wrong types, NULs, bytes that
//! are not UTF-8, and lines of a quarter of a megabyte. Each is one line, and each must be refused.

use super::random::Random;
use super::text;

/// Makes the record that begins at `from` in `out` a bad one. It is a whole JSON object there, with its time first.
pub(super) fn spoil(out: &mut Vec<u8>, from: usize, r: &mut Random) {
    match r.below(8) {
        // Broken off in the middle.
        0 | 1 => out.truncate(from + 1 + r.below((out.len() - from - 1) as u64) as usize),
        // Without a time.
        2 => replace_time(out, from, ""),
        3 => replace_time(out, from, "\"ts\":{\"at\":[\"noon\"]},"),
        4 => replace_time(out, from, "\"ts\":\"the day after tomorrow\","),
        // NULs: as an escape, which jsonb and text cannot hold, or as a byte, which is no JSON.
        5 => {
            let nul = if r.below(2) == 0 { "\\u0000" } else { "\0" };
            end_with(out, |out| {
                text(out, ",\"note\":\"a");
                text(out, nul);
                text(out, "b\"}");
            });
        }
        6 => end_with(out, |out| {
            text(out, ",\"note\":\"");
            out.extend_from_slice(&[0xc3, 0x28, 0xff]);
            text(out, "\"}");
        }),
        // Large, and never closed; seldom, lest they be most of the bytes.
        _ if r.below(16) == 0 => end_with(out, |out| {
            text(out, ",\"note\":\"");
            out.resize(out.len() + 200_000 + r.below(60_000) as usize, b'x');
        }),
        _ => end_with(out, |_| {}),
    }
}

/// Puts other text in place of the time, which stands first.
fn replace_time(out: &mut Vec<u8>, from: usize, with: &str) {
    // `{"ts":"...",`: up to and with the first comma; times hold none.
    let end = memchr::memchr(b',', &out[from..]).map_or(out.len(), |i| from + i + 1);
    out.splice(from + 1..end, with.bytes());
}

/// Takes the closing brace away and lets `write` end the record.
fn end_with(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    if out.last() == Some(&b'}') {
        out.pop();
    }
    write(out);
}

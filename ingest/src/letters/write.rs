//! Refused records into `watershed.dead_letters`, in the transaction of the rows that stood beside them. Knows no
//! decoding.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;

use crate::batch::Rejected;
use crate::decode::csv::Header;
use crate::decode::time;
use crate::map::Origin;

/// What all refused records of a batch have in common.
#[derive(Debug, Clone, Copy, Default)]
pub struct LetterSource<'a> {
    /// Schema and name of the table, as [`crate::target::Target::display`] has them.
    pub table: &'a str,
    /// For people: the file, `http`, `kafka`.
    pub source: &'a str,
    /// Name of the envelope or format; empty if it is not known.
    pub envelope: &'a str,
    /// What the format needs besides the bytes.
    pub context: Option<&'a Context>,
}

/// What a format needs to know besides a record's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// Names of CSV cells, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Between CSV cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Of syslog times, which carry none: that of the record before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub year: Option<i32>,
}

impl Context {
    /// Of the records below a CSV header.
    pub fn of_header(header: &Header) -> Context {
        Context { names: header.names.clone(), delimiter: Some(header.delimiter.into()), year: None }
    }
}

/// The number of bytes of dead letters sent at once.
const LETTER_BYTES: usize = 4 * 1024 * 1024;
/// The number of letters sent at once.
const LETTERS: usize = 1000;

/// Stage of records beyond the bound, of which only the head is kept.
pub const TOO_LARGE: &str = "size";

/// Writes refused records of which no more is known than their bytes.
///
/// # Errors
/// PostgreSQL's; the caller's transaction must be rolled back.
pub async fn dead_letters(
    conn: &mut PgConnection,
    table: &str,
    source: &str,
    rejected: &[Rejected],
) -> Result<(), sqlx::Error> {
    letters(conn, &LetterSource { table, source, ..LetterSource::default() }, rejected, |_| None).await
}

/// Writes refused records inside the caller's open transaction. `origin` tells where in Kafka a record was, for those
/// that come from there; their position reads `topic/partition/offset`.
///
/// # Errors
/// PostgreSQL's; the caller's transaction must be rolled back.
pub async fn letters<'o>(
    conn: &mut PgConnection,
    from: &LetterSource<'_>,
    rejected: &[Rejected],
    origin: impl Fn(&Rejected) -> Option<Origin<'o>>,
) -> Result<(), sqlx::Error> {
    // A context is made of strings and numbers, which can always be written.
    let context = from.context.and_then(|c| serde_json::to_string(c).ok()).map(|c| storable(&c));
    let mut rest = rejected;
    while !rest.is_empty() {
        let mut bytes = 0;
        let n = rest.iter().take(LETTERS).take_while(|r| {
            bytes += r.raw.len();
            bytes <= LETTER_BYTES
        });
        let n = n.count().max(1);
        let (now, later) = rest.split_at(n);
        rest = later;
        let origins: Vec<Option<Origin<'o>>> =
            now.iter().map(|r| origin(r).filter(Origin::is_topic)).collect();
        let of = |i: usize| origins[i].as_ref();
        let each = 0..now.len();
        let positions: Vec<String> = each
            .clone()
            .map(|i| of(i).and_then(Origin::position).unwrap_or_else(|| format!("line {}", now[i].line)))
            .collect();
        let topics: Vec<Option<&str>> = each.clone().map(|i| of(i).map(|o| o.topic)).collect();
        let partitions: Vec<Option<i32>> = each.clone().map(|i| of(i).map(|o| o.partition)).collect();
        let offsets: Vec<Option<i64>> = each.clone().map(|i| of(i).map(|o| o.offset)).collect();
        let times: Vec<Option<String>> =
            each.clone().map(|i| of(i).and_then(|o| o.timestamp).and_then(timestamp)).collect();
        let keys: Vec<Option<&[u8]>> = each.clone().map(|i| of(i).and_then(|o| o.key)).collect();
        let headers: Vec<Option<String>> =
            each.map(|i| of(i).and_then(|o| headers_text(o.headers))).collect();
        sqlx::query(
            "INSERT INTO watershed.dead_letters (table_name, source, envelope, context, position, stage, reason, raw, \
                 complete, topic, partition, kafka_offset, record_time, key, headers) \
             SELECT $1, $2, $3, $4::text::jsonb, p, s, r, b, c, t, n, o, m::timestamptz, k, h::jsonb FROM ROWS FROM ( \
                 pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::text[]), pg_catalog.unnest($7::text[]), \
                 pg_catalog.unnest($8::bytea[]), pg_catalog.unnest($9::bool[]), pg_catalog.unnest($10::text[]), \
                 pg_catalog.unnest($11::int[]), pg_catalog.unnest($12::bigint[]), pg_catalog.unnest($13::text[]), \
                 pg_catalog.unnest($14::bytea[]), pg_catalog.unnest($15::text[])) AS u(p, s, r, b, c, t, n, o, m, k, h)",
        )
        .bind(from.table)
        .bind(storable(from.source))
        .bind((!from.envelope.is_empty()).then_some(from.envelope))
        .bind(context.as_deref())
        .bind(positions)
        .bind(now.iter().map(|r| r.stage).collect::<Vec<_>>())
        .bind(now.iter().map(|r| storable(&r.reason)).collect::<Vec<_>>())
        .bind(now.iter().map(|r| r.raw.as_slice()).collect::<Vec<_>>())
        .bind(now.iter().map(|r| r.stage != TOO_LARGE).collect::<Vec<_>>())
        .bind(topics)
        .bind(partitions)
        .bind(offsets)
        .bind(times)
        .bind(keys)
        .bind(headers)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Text that PostgreSQL can hold.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// For PostgreSQL; nothing if it is outside of the years 1 to 9999, as a producer's clock may be.
fn timestamp(us: i64) -> Option<String> {
    (time::MIN_MICROS..=time::MAX_MICROS).contains(&us).then(|| {
        let mut out = Vec::with_capacity(32);
        time::write(&mut out, us, b' ');
        out.extend_from_slice(b"+00");
        // Digits and signs.
        String::from_utf8_lossy(&out).into_owned()
    })
}

/// A header as it is kept.
#[derive(Debug, Deserialize)]
struct Kept {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    hex: Option<String>,
}

fn headers_text(headers: &[(&str, Option<&[u8]>)]) -> Option<String> {
    if headers.is_empty() {
        return None;
    }
    let list = headers.iter().map(|(name, value)| {
        let name = storable(name);
        match value.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => json!({ "name": name, "value": null }),
            Some((_, Ok(text))) if !text.contains('\0') => json!({ "name": name, "value": text }),
            Some((bytes, _)) => json!({ "name": name, "hex": hex::encode(bytes) }),
        }
    });
    Some(serde_json::Value::Array(list.collect()).to_string())
}

/// Headers as they were, from how they are kept.
pub fn headers_of(text: &str) -> Vec<(String, Option<Vec<u8>>)> {
    // Written by us; what no longer reads is as good as none.
    let kept: Vec<Kept> = serde_json::from_str(text).unwrap_or_default();
    let value = |k: &Kept| match &k.hex {
        Some(digits) => hex::decode(digits).ok(),
        None => k.value.clone().map(String::into_bytes),
    };
    kept.into_iter().map(|k| (k.name.clone(), value(&k))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were() {
        let headers: [(&str, Option<&[u8]>); 5] = [
            ("trace", Some(b"abc")),
            ("empty", Some(b"")),
            ("none", None),
            ("bytes", Some(b"\xff\x00")),
            ("trace", Some("z\u{e9}".as_bytes())),
        ];
        let text = headers_text(&headers).unwrap();
        let back = headers_of(&text);
        let want: Vec<_> = headers.iter().map(|(n, v)| ((*n).to_owned(), v.map(<[u8]>::to_vec))).collect();
        assert_eq!(back, want);
        assert_eq!(headers_text(&[]), None);
        assert!(headers_of("{").is_empty());
    }

    #[test]
    fn a_clock_from_elsewhere_is_no_timestamp() {
        assert_eq!(timestamp(0).as_deref(), Some("1970-01-01 00:00:00+00"));
        assert_eq!((timestamp(i64::MAX), timestamp(i64::MIN)), (None, None));
    }
}

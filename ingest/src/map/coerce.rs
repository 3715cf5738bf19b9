//! One value to one column's COPY text, checked so that PostgreSQL rarely has to refuse it. Knows types; knows neither
//! records nor tables.

use std::borrow::Cow;

use crate::decode::json::{self, shown};
use crate::decode::time::{self, DAY, Instant};
use crate::decode::{Reason, Value};
use crate::target::Kind;

/// Appends text escaped for COPY's text format.
///
/// # Errors
/// A NUL character, which PostgreSQL's text cannot hold.
pub fn push_text(out: &mut Vec<u8>, s: &str) -> Result<(), Reason> {
    let bytes = s.as_bytes();
    let mut from = 0;
    for (i, &b) in bytes.iter().enumerate() {
        if b >= 0x20 && b != b'\\' {
            continue;
        }
        let escape: &[u8] = match b {
            b'\\' => b"\\\\",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            0 => return Err("holds a NUL character, which PostgreSQL cannot store".to_owned()),
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..i]);
        out.extend_from_slice(escape);
        from = i + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    Ok(())
}

/// What a value is, once its JSON quoting is gone.
enum Plain<'a> {
    Text(Cow<'a, str>),
    Number(Cow<'a, str>),
    Bool(bool),
    /// Object or array.
    Nested(&'a str),
    Time(i64),
}

fn plain<'a>(value: &'a Value<'_>) -> Result<Option<Plain<'a>>, Reason> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Text(s) => Plain::Text(Cow::Borrowed(s)),
        Value::Int(i) => Plain::Number(Cow::Owned(i.to_string())),
        Value::Time(us) => Plain::Time(*us),
        Value::Json(raw) => match raw.as_bytes().first() {
            Some(b'"') => Plain::Text(json::unquote(raw)?),
            Some(b'{' | b'[') => Plain::Nested(raw),
            Some(b't') => Plain::Bool(true),
            Some(b'f') => Plain::Bool(false),
            Some(b'n') => return Ok(None),
            _ => Plain::Number(Cow::Borrowed(raw)),
        },
    }))
}

/// True if the value is absent: no value, or JSON null.
pub fn is_null(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Json(raw) => raw == "null",
        _ => false,
    }
}

/// Appends one value as a column of this kind; `\N` for null.
///
/// # Errors
/// Why the value is none of that type; the column's name is for the caller to add.
pub fn push_value(out: &mut Vec<u8>, kind: Kind, value: &Value<'_>) -> Result<(), Reason> {
    if kind == Kind::Json {
        return push_json(out, value);
    }
    let Some(v) = plain(value)? else {
        out.extend_from_slice(b"\\N");
        return Ok(());
    };
    match kind {
        Kind::Text | Kind::Other => match v {
            Plain::Text(s) | Plain::Number(s) => push_text(out, &s)?,
            Plain::Bool(b) => out.extend_from_slice(if b { b"true" } else { b"false" }),
            Plain::Nested(raw) => push_text(out, raw)?,
            Plain::Time(us) => {
                time::write(out, us, b'T');
                out.push(b'Z');
            }
        },
        Kind::Bool => out.push(if boolean(&v)? { b't' } else { b'f' }),
        Kind::Int2 => integer(out, &v, i64::from(i16::MIN), i64::from(i16::MAX))?,
        Kind::Int4 => integer(out, &v, i64::from(i32::MIN), i64::from(i32::MAX))?,
        Kind::Int8 => integer(out, &v, i64::MIN, i64::MAX)?,
        Kind::Float4 | Kind::Float8 => float(out, &v, kind == Kind::Float4)?,
        Kind::Numeric => numeric(out, &v)?,
        Kind::TimestampTz | Kind::Timestamp => match instant(&v)? {
            Instant::At(us) => {
                time::write(out, us, b' ');
                if kind == Kind::TimestampTz {
                    out.extend_from_slice(b"+00");
                }
            }
            Instant::Infinity => out.extend_from_slice(b"infinity"),
            Instant::NegInfinity => out.extend_from_slice(b"-infinity"),
        },
        Kind::Date => match instant(&v)? {
            Instant::At(us) => time::write_date(out, us.div_euclid(DAY)),
            Instant::Infinity => out.extend_from_slice(b"infinity"),
            Instant::NegInfinity => out.extend_from_slice(b"-infinity"),
        },
        Kind::Uuid => uuid(out, &v)?,
        Kind::Bytea => bytea(out, &v)?,
        Kind::Json => {}
    }
    Ok(())
}

/// The instant a value means: ISO 8601 or an epoch number whose unit follows from its magnitude.
pub fn event_time(value: &Value<'_>) -> Result<Instant, Reason> {
    match plain(value)? {
        None => Err("is null".to_owned()),
        Some(v) => instant(&v),
    }
}

fn instant(v: &Plain<'_>) -> Result<Instant, Reason> {
    match v {
        Plain::Time(us) if (time::MIN_MICROS..=time::MAX_MICROS).contains(us) => Ok(Instant::At(*us)),
        Plain::Time(us) => Err(format!("{us} microseconds since 1970 {}", time::TimeError::OutOfRange)),
        Plain::Text(s) => time::parse(s).map_err(|e| format!("{} {e}", shown(s))),
        Plain::Number(s) => time::parse_epoch(s).map(Instant::At).map_err(|e| format!("{} {e}", shown(s))),
        Plain::Bool(_) | Plain::Nested(_) => Err("is neither a string nor a number, so no time".to_owned()),
    }
}

fn boolean(v: &Plain<'_>) -> Result<bool, Reason> {
    let s = match v {
        Plain::Bool(b) => return Ok(*b),
        Plain::Text(s) | Plain::Number(s) => s.trim(),
        _ => return Err("is no boolean".to_owned()),
    };
    truth(s).ok_or_else(|| format!("{} is no boolean", shown(s)))
}

/// What PostgreSQL's words for true and false mean.
pub fn truth(s: &str) -> Option<bool> {
    match s.to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn number_text<'a>(v: &'a Plain<'_>) -> Result<&'a str, Reason> {
    match v {
        Plain::Text(s) | Plain::Number(s) => Ok(s.trim()),
        Plain::Bool(_) => Err("is a boolean, not a number".to_owned()),
        _ => Err("is no number".to_owned()),
    }
}

fn integer(out: &mut Vec<u8>, v: &Plain<'_>, min: i64, max: i64) -> Result<(), Reason> {
    let s = number_text(v)?;
    // 3.0 is the integer 3 to every JSON writer that knows only floats.
    let whole = match s.split_once('.') {
        Some((w, f)) if !f.is_empty() && f.bytes().all(|b| b == b'0') => w,
        _ => s,
    };
    let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{} is no integer", shown(s)));
    }
    match whole.parse::<i64>() {
        Ok(i) if (min..=max).contains(&i) => {
            out.extend_from_slice(i.to_string().as_bytes());
            Ok(())
        }
        _ => Err(format!("{} is out of range ({min} to {max})", shown(s))),
    }
}

/// The spellings of PostgreSQL for what is no finite number.
fn special(s: &str) -> Option<&'static str> {
    match s.to_ascii_lowercase().as_str() {
        "nan" => Some("NaN"),
        "infinity" | "+infinity" | "inf" | "+inf" => Some("Infinity"),
        "-infinity" | "-inf" => Some("-Infinity"),
        _ => None,
    }
}

/// Sign, digits, point, digits, exponent: what JSON, Rust and PostgreSQL all read alike.
fn is_decimal(s: &str) -> bool {
    let s = s.strip_prefix(['-', '+']).unwrap_or(s);
    let (mantissa, exponent) = s.split_once(['e', 'E']).map_or((s, None), |(m, e)| (m, Some(e)));
    let (int, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    });
    all_digits(int) && all_digits(fraction) && !(int.is_empty() && fraction.is_empty()) && exponent_ok
}

fn float(out: &mut Vec<u8>, v: &Plain<'_>, single: bool) -> Result<(), Reason> {
    let s = number_text(v)?;
    if let Some(special) = special(s) {
        out.extend_from_slice(special.as_bytes());
        return Ok(());
    }
    if !is_decimal(s) {
        return Err(format!("{} is no number", shown(s)));
    }
    let (finite, zero) = if single {
        let f: f32 = s.parse().map_err(|_| format!("{} is no number", shown(s)))?;
        (f.is_finite(), f == 0.0)
    } else {
        let f: f64 = s.parse().map_err(|_| format!("{} is no number", shown(s)))?;
        (f.is_finite(), f == 0.0)
    };
    // Like PostgreSQL: what underflows to zero is out of range too.
    let mantissa = s.split(['e', 'E']).next().unwrap_or(s);
    if !finite || (zero && mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b))) {
        return Err(format!("{} is out of range", shown(s)));
    }
    out.extend_from_slice(s.as_bytes());
    Ok(())
}

fn numeric(out: &mut Vec<u8>, v: &Plain<'_>) -> Result<(), Reason> {
    let s = number_text(v)?;
    if let Some(special) = special(s) {
        out.extend_from_slice(special.as_bytes());
    } else if is_decimal(s) {
        out.extend_from_slice(s.as_bytes());
    } else {
        return Err(format!("{} is no number", shown(s)));
    }
    Ok(())
}

fn uuid(out: &mut Vec<u8>, v: &Plain<'_>) -> Result<(), Reason> {
    let Plain::Text(s) = v else {
        return Err("is no UUID".to_owned());
    };
    let trimmed = s.trim();
    let bare = trimmed.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(trimmed);
    let bare = bare.strip_prefix("urn:uuid:").unwrap_or(bare);
    let id = uuid::Uuid::try_parse(bare).map_err(|_| format!("{} is no UUID", shown(s)))?;
    out.extend_from_slice(id.as_hyphenated().to_string().as_bytes());
    Ok(())
}

fn bytea(out: &mut Vec<u8>, v: &Plain<'_>) -> Result<(), Reason> {
    let bytes: Cow<'_, [u8]> = match v {
        Plain::Text(s) => match s.strip_prefix("\\x") {
            Some(digits) => {
                Cow::Owned(hex::decode(digits).map_err(|_| format!("{} is no hexadecimal bytea", shown(s)))?)
            }
            None => Cow::Borrowed(s.as_bytes()),
        },
        Plain::Number(s) => Cow::Borrowed(s.as_bytes()),
        _ => return Err("is no string, so no bytea".to_owned()),
    };
    out.extend_from_slice(b"\\\\x");
    out.extend_from_slice(hex::encode(bytes).as_bytes());
    Ok(())
}

fn push_json(out: &mut Vec<u8>, value: &Value<'_>) -> Result<(), Reason> {
    match value {
        Value::Null => out.extend_from_slice(b"\\N"),
        Value::Json(raw) if raw == "null" => out.extend_from_slice(b"\\N"),
        Value::Json(raw) => push_text(out, raw)?,
        // A CSV cell, or a header: JSON as it stands, or it is refused rather than guessed.
        Value::Text(s) => {
            if !json::is_json(s) {
                return Err(format!("{} is not JSON", shown(s)));
            }
            push_text(out, s)?;
        }
        Value::Int(_) | Value::Time(_) => {
            let mut buf = Vec::with_capacity(32);
            json::write_value(&mut buf, value);
            out.extend_from_slice(&buf);
        }
    }
    Ok(())
}

//! Sizes and durations as people write them in flags and in `watershed.toml`: `64MiB`, `30s`.
//! Knows no setting's meaning.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `1048576`, `64KiB`, `512MiB`, `2GiB`, or decimal `500MB`, `2GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A length of time: `250ms`, `30s`, `5m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Splits `12.5GiB` into its number and unit.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let factor = match unit {
            "" => 1,
            _ => {
                BYTE_UNITS
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                    .ok_or_else(|| format!("`{text}` has no known unit: write it like 512MiB or 2GiB"))?
                    .1
            }
        };
        let value: f64 =
            number.parse().map_err(|_| format!("`{text}` is no size: write it like 512MiB or 2GiB"))?;
        let bytes = value * factor as f64;
        if bytes.is_finite() && bytes <= i64::MAX as f64 {
            Ok(Bytes(bytes as u64))
        } else {
            Err(format!("`{text}` is too large"))
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BYTE_UNITS[..4].iter().find(|(_, factor)| self.0 >= *factor);
        match unit {
            Some((name, factor)) if self.0 % factor == 0 => write!(f, "{}{name}", self.0 / factor),
            Some((name, factor)) => write!(f, "{:.1}{name}", self.0 as f64 / *factor as f64),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text);
        let factor = TIME_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("`{text}` has no known unit: write it like 500ms, 30s, 5m or 2h"))?
            .1;
        let value: f64 =
            number.parse().map_err(|_| format!("`{text}` is no duration: write it like 30s or 5m"))?;
        let ms = value * factor as f64;
        // A century bounds every wait and keeps clock arithmetic far from overflow.
        if ms.is_finite() && ms <= 3.2e12 {
            Ok(Period(Duration::from_millis(ms as u64)))
        } else {
            Err(format!("`{text}` is too long"))
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        match TIME_UNITS.iter().rev().find(|(_, factor)| ms >= *factor && ms % factor == 0) {
            Some((name, factor)) => write!(f, "{}{name}", ms / factor),
            None => write!(f, "{ms}ms"),
        }
    }
}

macro_rules! from_text {
    ($type:ty, $expecting:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)
                    .map_err(|_| serde::de::Error::custom(concat!("expected ", $expecting)))?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
/// Where a door is, or that there is none: `127.0.0.1:8815`, `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Off,
    At(SocketAddr),
}

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Door::Off);
        }
        text.parse().map(Door::At).map_err(|_| format!("`{text}` is no address: write it like 127.0.0.1:8815, or \"off\""))
    }
}

from_text!(Door, "an address in quotes, like \"127.0.0.1:8815\", or \"off\"");
from_text!(Bytes, "a size in quotes, like \"512MiB\"");
from_text!(Period, "a duration in quotes, like \"30s\"");

#[cfg(test)]
mod tests;

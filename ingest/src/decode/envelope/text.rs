//! Values that are no JSON: one line of a web log or of syslog. Knows which of the two it is, or says that it is neither.

use super::super::syslog::{self, Years};
use super::super::{Reason, Record, time, web};

/// How far into the future a time without a year may lie before it belongs to the year before.
const AHEAD: i64 = 7 * time::DAY;

/// The record of one line. `now` gives the year to a syslog time that has none.
///
/// # Errors
/// The text is of no format known here, or broken within one.
pub fn decode(text: &str, now: i64) -> Result<Record<'_>, Reason> {
    let line = text.trim_end_matches(['\n', '\r']);
    if line.contains('\n') {
        return Err("neither a JSON object nor a single line of a web log or of syslog".to_owned());
    }
    if web::is_web(line) {
        return web::decode(line);
    }
    if syslog::is_syslog(line) {
        let (year, ..) = time::civil_from_days(now.div_euclid(time::DAY));
        let mut years = Years::starting(year);
        let record = syslog::decode(line, &mut years)?;
        if years.last.is_some_and(|at| at > now.saturating_add(AHEAD)) {
            return syslog::decode(line, &mut Years::starting(year - 1));
        }
        return Ok(record);
    }
    Err("neither a JSON object nor a line of a web log or of syslog".to_owned())
}

//! When rows happen: more by day than by night, and now and then many at once. Maps row numbers to event times within a
//! fixed span; knows no rows.

use crate::decode::time::DAY;

/// How busy each hour of the day (UTC) is.
const HOURS: [u8; 24] =
    [22, 15, 11, 9, 9, 13, 25, 45, 70, 86, 93, 96, 90, 88, 92, 95, 98, 100, 97, 90, 78, 61, 44, 31];
const HOUR: i64 = DAY / 24;

const fn day_weight() -> i64 {
    let (mut i, mut sum) = (0, 0);
    while i < 24 {
        sum += HOURS[i] as i64;
        i += 1;
    }
    sum
}

/// How much has happened up to this time, in hour weights times microseconds.
fn amount(us: i64) -> i128 {
    let (day, of_day) = (us.div_euclid(DAY), us.rem_euclid(DAY));
    let hour = (of_day / HOUR) as usize;
    let before: i64 = HOURS[..hour].iter().map(|w| i64::from(*w)).sum();
    i128::from(day) * i128::from(day_weight() * HOUR)
        + i128::from(before * HOUR + i64::from(HOURS[hour]) * (of_day % HOUR))
}

/// The time at which this much has happened: the inverse of [`amount`].
fn time_of(amount: i128) -> i64 {
    let of_days = i128::from(day_weight() * HOUR);
    // Whatever the span, days fit, and the rest of a day fits all the more.
    let day = amount.div_euclid(of_days) as i64;
    let mut rest = amount.rem_euclid(of_days) as i64;
    let mut us = day * DAY;
    for weight in HOURS {
        let whole = i64::from(weight) * HOUR;
        if rest < whole {
            return us + rest / i64::from(weight);
        }
        rest -= whole;
        us += HOUR;
    }
    us
}

/// The span that a number of rows lies in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    from: i128,
    to: i128,
    rows: u64,
}

impl Rhythm {
    pub(super) fn new(start: i64, end: i64, rows: u64) -> Rhythm {
        Rhythm { from: amount(start), to: amount(end), rows: rows.max(1) }
    }

    /// Event time of a row, counted from 0; of `rows`, the end. Never falls.
    pub(super) fn at(&self, row: u64) -> i64 {
        time_of(self.from + (self.to - self.from) * i128::from(row.min(self.rows)) / i128::from(self.rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_days_are_busier_than_nights() {
        let (start, end) = (1_700_000_000_123_456, 1_700_000_000_123_456 + 3 * DAY);
        let rhythm = Rhythm::new(start, end, 30_000);
        assert!((rhythm.at(0) - start).abs() <= 1 && (rhythm.at(30_000) - end).abs() <= 1);
        let times: Vec<i64> = (0..=30_000).map(|i| rhythm.at(i)).collect();
        assert!(times.windows(2).all(|w| w[0] <= w[1]));
        let in_hour = |h: i64| times.iter().filter(|t| **t % DAY / HOUR == h).count();
        assert!(in_hour(17) > 8 * in_hour(3), "{} {}", in_hour(17), in_hour(3));
    }

    #[test]
    fn an_amount_has_its_time() {
        for us in [-DAY - 5, -1, 0, 1, HOUR - 1, HOUR, 7 * HOUR + 123, DAY, 1_700_000_000_654_321] {
            assert_eq!(time_of(amount(us)), us);
        }
    }
}

//! The wall clock, as this service writes it: UTC, microseconds.

use mysql_async::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment in UTC, to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    since_epoch: Duration,
}

impl Moment {
    /// Now, by the host's clock.
    #[expect(clippy::disallowed_methods, reason = "the service under test reads its own clock on purpose")]
    pub fn now() -> Moment {
        Moment { since_epoch: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> u128 {
        self.since_epoch.as_millis()
    }

    /// As a `DATETIME(6)`.
    pub fn to_sql(self) -> Value {
        let (year, month, day) = self.date();
        let (hour, minute, second) = self.time();
        // 1970..=9999 fits in 16 bits for every clock that is not absurd.
        let year = u16::try_from(year).unwrap_or(9999);
        Value::Date(year, month, day, hour, minute, second, self.since_epoch.subsec_micros())
    }

    fn date(self) -> (u64, u8, u8) {
        date_of(self.since_epoch.as_secs() / 86_400)
    }

    fn time(self) -> (u8, u8, u8) {
        let second = self.since_epoch.as_secs() % 86_400;
        // Each is below 60.
        ((second / 3600) as u8, (second / 60 % 60) as u8, (second % 60) as u8)
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = self.date();
        let (hour, minute, second) = self.time();
        let micros = self.since_epoch.subsec_micros();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// Year, month and day of a day counted from 1970-01-01.
fn date_of(mut days: u64) -> (u64, u8, u8) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= if leap(year) { 366 } else { 365 } {
        days -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        let at =
            |seconds, micros: u32| Moment { since_epoch: Duration::new(seconds, micros * 1000) }.to_string();
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_827_696, 250_000), "2000-02-29T12:34:56.250000Z");
        assert_eq!(at(1_709_251_199, 999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(at(4_102_444_800, 1), "2100-01-01T00:00:00.000001Z");
    }
}

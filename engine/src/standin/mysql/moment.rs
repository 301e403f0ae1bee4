//! Dates and times as MySQL writes them.
//!
//! Contract: pure; UTC throughout, as the stand-in's time zone is. A moment is microseconds
//! since 1970.
//! Not modelled: time zones and zero dates (strict mode refuses them).

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;

/// Days since 1970 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month, day of a number of days since 1970.
pub fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let index = (5 * of_year + 2) / 153;
    let month = if index < 10 { index + 3 } else { index - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * index + 2) / 5 + 1)
}

fn month_length(year: i64, month: i64) -> i64 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days(next_year, next, 1) - days(year, month, 1)
}

fn micros(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let padded: String = fraction.chars().chain("000000".chars()).take(6).collect();
    padded.parse().ok()
}

/// Hours, minutes, seconds with a fraction; hours may exceed a day in a `TIME`.
pub fn parse_time(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(a, b)| (a, Some(b)));
    let mut parts = whole.split(':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let seconds: i64 = parts.next().map_or(Some(0), |s| s.parse().ok())?;
    let fine = parts.next().is_none()
        && (0..=838).contains(&hours)
        && (0..60).contains(&minutes)
        && (0..60).contains(&seconds);
    let fraction = fraction.map_or(Some(0), micros)?;
    fine.then_some(sign * (((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction))
}

/// `2024-03-01`, `2024-03-01 08:30:00.25`, with `T` and `Z` as drivers send them.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim().trim_end_matches('Z');
    let (date, time) = match text.split_once([' ', 'T']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split(['-', '/']);
    let year: i64 = parts.next().filter(|y| y.len() == 4)?.parse().ok()?;
    let month: i64 = parts.next()?.parse().ok()?;
    let day: i64 = parts.next()?.parse().ok()?;
    let fine = parts.next().is_none() && (0..=9999).contains(&year) && (1..=12).contains(&month);
    if !fine || day < 1 || day > month_length(year, month) {
        return None;
    }
    let time = time.map_or(Some(0), parse_time).filter(|t| (0..DAY).contains(t))?;
    Some(days(year, month, day) * DAY + time)
}

/// Rounded to so many digits of a second.
pub fn round(moment: i64, digits: u8) -> i64 {
    let unit = 10i64.pow(6u32.saturating_sub(u32::from(digits)));
    (moment + unit / 2).div_euclid(unit) * unit
}

fn fraction(moment: i64, digits: u8) -> String {
    if digits == 0 {
        return String::new();
    }
    let all = format!("{:06}", moment.rem_euclid(1_000_000));
    format!(".{}", all.get(..usize::from(digits.min(6))).unwrap_or(&all))
}

/// `2024-03-01`.
pub fn show_date(moment: i64) -> String {
    let (year, month, day) = date(moment.div_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2024-03-01 08:30:00.250000`, with so many digits of a second.
pub fn show(moment: i64, digits: u8) -> String {
    format!("{} {}", show_date(moment), show_time(moment.rem_euclid(DAY), digits))
}

/// `08:30:00`.
pub fn show_time(time: i64, digits: u8) -> String {
    let sign = if time < 0 { "-" } else { "" };
    let time = time.abs();
    let seconds = time / 1_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{sign}{hours:02}:{minutes:02}:{:02}{}", seconds % 60, fraction(time, digits))
}

/// A moment so many units later.
pub fn add(moment: i64, amount: f64, unit: &str) -> Option<i64> {
    let whole = amount as i64;
    let months = match unit {
        "year" => whole.checked_mul(12)?,
        "quarter" => whole.checked_mul(3)?,
        "month" => whole,
        _ => {
            let length = unit_length(unit)?;
            return moment.checked_add((amount * length as f64) as i64);
        }
    };
    let (year, month, day) = date(moment.div_euclid(DAY));
    let total = (year * 12 + month - 1).checked_add(months)?;
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
    let day = day.min(month_length(year, month));
    (0..=9999).contains(&year).then(|| days(year, month, day) * DAY + moment.rem_euclid(DAY))
}

fn unit_length(unit: &str) -> Option<i64> {
    Some(match unit {
        "microsecond" => 1,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => DAY,
        "week" => 7 * DAY,
        _ => return None,
    })
}

/// Whole units from one moment to another.
pub fn difference(from: i64, to: i64, unit: &str) -> Option<i64> {
    if let Some(length) = unit_length(unit) {
        return Some((to - from) / length);
    }
    let per = match unit {
        "year" => 12,
        "quarter" => 3,
        "month" => 1,
        _ => return None,
    };
    let parts = |moment: i64| {
        let (year, month, day) = date(moment.div_euclid(DAY));
        (year * 12 + month, day * DAY + moment.rem_euclid(DAY))
    };
    let ((a, a_rest), (b, b_rest)) = (parts(from), parts(to));
    let months = b - a - i64::from(b > a && b_rest < a_rest) + i64::from(b < a && b_rest > a_rest);
    Some(months / per)
}

/// `DATE_FORMAT`.
pub fn format(moment: i64, pattern: &str) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const WEEKDAYS: [&str; 7] =
        ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let day_number = moment.div_euclid(DAY);
    let (year, month, day) = date(day_number);
    let seconds = moment.rem_euclid(DAY) / 1_000_000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let month_name = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let weekday = WEEKDAYS.get(day_number.rem_euclid(7) as usize).copied().unwrap_or_default();
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let half = if hour < 12 { "AM" } else { "PM" };
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &format!("{year:04}"),
            Some('y') => out += &format!("{:02}", year % 100),
            Some('m') => out += &format!("{month:02}"),
            Some('c') => out += &month.to_string(),
            Some('M') => out += month_name,
            Some('b') => out += month_name.get(..3).unwrap_or_default(),
            Some('d') => out += &format!("{day:02}"),
            Some('e') => out += &day.to_string(),
            Some('W') => out += weekday,
            Some('a') => out += weekday.get(..3).unwrap_or_default(),
            Some('w') => out += &(day_number + 4).rem_euclid(7).to_string(),
            Some('j') => out += &format!("{:03}", day_number - days(year, 1, 1) + 1),
            Some('H') => out += &format!("{hour:02}"),
            Some('k') => out += &hour.to_string(),
            Some('h' | 'I') => out += &format!("{twelve:02}"),
            Some('l') => out += &twelve.to_string(),
            Some('i') => out += &format!("{minute:02}"),
            Some('s' | 'S') => out += &format!("{second:02}"),
            Some('f') => out += &format!("{:06}", moment.rem_euclid(1_000_000)),
            Some('p') => out += half,
            Some('T') => out += &format!("{hour:02}:{minute:02}:{second:02}"),
            Some('r') => out += &format!("{twelve:02}:{minute:02}:{second:02} {half}"),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_round_trip() {
        for text in [
            "1970-01-01 00:00:00.000000",
            "2024-02-29 23:59:59.999999",
            "0001-01-01 00:00:00.000001",
            "9999-12-31 12:00:00.500000",
        ] {
            assert_eq!(show(parse(text).expect(text), 6), text);
        }
        assert_eq!(parse("2023-02-29"), None);
        assert_eq!(show(round(parse("2024-03-01 08:30:00.5").unwrap(), 0), 0), "2024-03-01 08:30:01");
        assert_eq!(show(add(parse("2024-01-31").unwrap(), 1.0, "month").unwrap(), 0), "2024-02-29 00:00:00");
        assert_eq!(difference(parse("2024-01-31").unwrap(), parse("2024-03-30").unwrap(), "month"), Some(1));
        assert_eq!(
            format(parse("2024-03-01 14:05:06").unwrap(), "%W %e %M %Y %h:%i %p %w"),
            "Friday 1 March 2024 02:05 PM 5"
        );
    }
}

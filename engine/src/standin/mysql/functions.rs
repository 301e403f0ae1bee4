//! SQL functions that SQLite lacks, and the checks on what is stored.
//!
//! Contract: [`register`] puts three functions on a connection: `fb_store` (a value into a
//! column of a type), `fb_touch` (counts rows that an update changes) and `fb` (everything
//! MySQL has and SQLite has not, by name). A failure carries MySQL's number through SQLite.
//! Not modelled: locales, time zones, collations inside functions.

use super::locks::NamedLocks;
use super::moment;
use super::schema::ColumnType;
use super::session::{Failure, unsupported};
use crate::protocol::mysql::facts::like;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value as Cell, ValueRef};
use rusqlite::{Connection, Error};
use sha1::Digest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What functions know of the statement that runs.
#[derive(Debug, Default)]
pub struct Running {
    /// The statement's time, microseconds since 1970.
    pub now: i64,
    /// The values last stored, by column: those of the row that met a duplicate.
    pub stored: BTreeMap<String, String>,
    /// Rows that an update looked at, and those that it changed.
    pub touched: u64,
    /// See `touched`.
    pub changed: u64,
    /// A number for the next random value.
    pub random: u64,
    /// Where the session's named locks are.
    pub held: Held,
}

/// A session's way to the named locks.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// All of them.
    pub locks: Arc<NamedLocks>,
    /// The session.
    pub owner: u64,
}

/// Shared between a session and its connection's functions.
pub type Shared = Arc<Mutex<Running>>;

/// The functions that [`call`] knows, for the emitter.
pub const KNOWN: &[&str] = &[
    "concat",
    "concat_ws",
    "left",
    "right",
    "lpad",
    "rpad",
    "reverse",
    "repeat",
    "space",
    "substring_index",
    "locate",
    "instr",
    "length",
    "octet_length",
    "char_length",
    "character_length",
    "ascii",
    "strcmp",
    "field",
    "elt",
    "find_in_set",
    "floor",
    "ceil",
    "ceiling",
    "mod",
    "pow",
    "power",
    "sqrt",
    "exp",
    "ln",
    "log10",
    "log2",
    "truncate",
    "rand",
    "pi",
    "greatest",
    "least",
    "isnull",
    "sha1",
    "sha",
    "sha2",
    "unhex",
    "uuid",
    "date",
    "time",
    "year",
    "month",
    "day",
    "dayofmonth",
    "hour",
    "minute",
    "second",
    "microsecond",
    "dayofweek",
    "weekday",
    "dayofyear",
    "quarter",
    "last_day",
    "convert_tz",
    "date_format",
    "datediff",
    "timestampdiff",
    "date_shift",
    "from_unixtime",
    "unix_timestamp",
    "bin_to_uuid",
    "uuid_to_bin",
    "regexp_like",
    "regexp_replace",
    "regexp_substr",
    "json_unquote",
    "if",
    "to_days",
    "str_lower",
    "str_upper",
    "get_lock",
    "release_lock",
    "release_all_locks",
    "is_free_lock",
    "is_used_lock",
];

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Running> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn raise(failure: Failure) -> Error {
    Error::UserFunctionError(failure.packed().into())
}

/// Puts the functions on a connection.
///
/// # Errors
/// When SQLite refuses.
pub fn register(connection: &Connection, shared: &Shared) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8;
    let stored = shared.clone();
    connection.create_scalar_function("fb_store", 3, flags, move |ctx| {
        let kind = kind_of(ctx)?;
        let column: String = ctx.get(2)?;
        let cell = kind.store(ctx.get_raw(0), &column).map_err(raise)?;
        lock(&stored).stored.insert(column.to_lowercase(), words(&cell));
        Ok(cell)
    })?;
    connection.create_scalar_function(
        "fb_like",
        2,
        flags | FunctionFlags::SQLITE_DETERMINISTIC,
        move |ctx| {
            // What cannot be brought to the column's form equals nothing in it.
            let kind = kind_of(ctx)?;
            Ok(kind.store(ctx.get_raw(0), "").unwrap_or_else(|_| owned(ctx.get_raw(0))))
        },
    )?;
    let touched = shared.clone();
    connection.create_scalar_function("fb_touch", 2, flags, move |ctx| {
        let same: bool = ctx.get(1)?;
        let mut running = lock(&touched);
        running.touched += 1;
        running.changed += u64::from(!same);
        Ok(owned(ctx.get_raw(0)))
    })?;
    let now = shared.clone();
    connection.create_scalar_function("fb_now", 1, flags, move |ctx| {
        let digits: i64 = ctx.get(0)?;
        let digits = digits.clamp(0, 6) as u8;
        // MySQL cuts the current time, it does not round it.
        let unit = 10i64.pow(6 - u32::from(digits));
        let now = lock(&now).now;
        Ok(moment::show(now - now.rem_euclid(unit), digits))
    })?;
    let shared = shared.clone();
    connection.create_scalar_function("fb", -1, flags, move |ctx| {
        let name: String = ctx.get(0)?;
        let args: Vec<Cell> = (1..ctx.len()).map(|index| owned(ctx.get_raw(index))).collect();
        call(&name, &args, &shared).map_err(raise)
    })
}

fn kind_of(ctx: &Context<'_>) -> rusqlite::Result<Arc<ColumnType>> {
    ctx.get_or_create_aux(1, |raw| -> Result<ColumnType, Box<dyn std::error::Error + Send + Sync>> {
        Ok(serde_json::from_str(raw.as_str()?)?)
    })
}

fn owned(raw: ValueRef<'_>) -> Cell {
    match raw {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(n) => Cell::Integer(n),
        ValueRef::Real(n) => Cell::Real(n),
        ValueRef::Text(bytes) => Cell::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
    }
}

fn words(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(n) => n.to_string(),
        Cell::Real(n) => n.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn number(cell: &Cell) -> f64 {
    match cell {
        Cell::Integer(n) => *n as f64,
        Cell::Real(n) => *n,
        other => {
            // MySQL reads the number that a text begins with.
            let text = words(other);
            let text = text.trim();
            let end = text
                .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+'))
                .unwrap_or(text.len());
            text[..end].parse().unwrap_or(0.0)
        }
    }
}

fn random(shared: &Shared) -> u64 {
    let mut running = lock(shared);
    running.random += 1;
    let seed = [running.now as u64, running.random].map(u64::to_le_bytes).concat();
    let hash = blake3::hash(&seed);
    hash.as_bytes().first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight))
}

fn hex(bytes: &[u8]) -> Cell {
    Cell::Text(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn bytes_of(cell: &Cell) -> Vec<u8> {
    match cell {
        Cell::Blob(bytes) => bytes.clone(),
        other => words(other).into_bytes(),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn whole_or_real(n: f64) -> Cell {
    if n.fract() == 0.0 && n.abs() < 9e15 { Cell::Integer(n as i64) } else { Cell::Real(n) }
}

fn call(name: &str, args: &[Cell], shared: &Shared) -> Result<Cell, Failure> {
    let null = |at: usize| args.get(at).is_none_or(|c| *c == Cell::Null);
    // These look at NULLs themselves; everything else is NULL where an argument is.
    let own = ["concat_ws", "field", "elt", "isnull", "if"];
    if !own.contains(&name) && (0..args.len()).any(null) {
        return Ok(Cell::Null);
    }
    let found = text_function(name, args).or_else(|| number_function(name, args, shared));
    let found = found.or_else(|| time_function(name, args, shared));
    let found = found.or_else(|| lock_function(name, args, shared));
    found.ok_or_else(|| unsupported(&format!("the function {}", name.to_uppercase())))
}

fn text_function(name: &str, args: &[Cell]) -> Option<Cell> {
    let null = |at: usize| args.get(at).is_none_or(|c| *c == Cell::Null);
    let text = |at: usize| args.get(at).map(words).unwrap_or_default();
    let count = |at: usize| args.get(at).map_or(0.0, number).max(0.0) as usize;
    let position = |needle: &str, hay: &str| -> i64 {
        let (needle, hay) = (needle.to_lowercase(), hay.to_lowercase());
        hay.find(&needle).map_or(0, |at| hay[..at].chars().count() as i64 + 1)
    };
    let pad = |left: bool| {
        let (base, len, with) = (text(0), count(1).min(1 << 20), text(2));
        let have = base.chars().count();
        let filler: String =
            with.chars().cycle().take(if with.is_empty() { 0 } else { len.saturating_sub(have) }).collect();
        let whole = if left { filler + &base } else { base + &filler };
        if left && have > len {
            text(0).chars().take(len).collect()
        } else {
            whole.chars().take(len).collect::<String>()
        }
    };
    Some(match name {
        "concat" => Cell::Text(args.iter().map(words).collect()),
        "concat_ws" if null(0) => Cell::Null,
        "concat_ws" => {
            let parts: Vec<String> = args.iter().skip(1).filter(|c| **c != Cell::Null).map(words).collect();
            Cell::Text(parts.join(&text(0)))
        }
        "str_lower" => Cell::Text(text(0).to_lowercase()),
        "str_upper" => Cell::Text(text(0).to_uppercase()),
        "left" => Cell::Text(text(0).chars().take(count(1)).collect()),
        "right" => {
            let all = text(0);
            Cell::Text(all.chars().skip(all.chars().count().saturating_sub(count(1))).collect())
        }
        "lpad" => Cell::Text(pad(true)),
        "rpad" => Cell::Text(pad(false)),
        "reverse" => Cell::Text(text(0).chars().rev().collect()),
        "repeat" => Cell::Text(text(0).repeat(count(1).min((16 << 20) / text(0).len().max(1)))),
        "space" => Cell::Text(" ".repeat(count(0).min(1 << 20))),
        "substring_index" => {
            let (all, by) = (text(0), text(1));
            let n = args.get(2).map_or(0.0, number) as i64;
            let parts: Vec<&str> = if by.is_empty() { vec![] } else { all.split(&by).collect() };
            let take = (n.unsigned_abs() as usize).min(parts.len());
            let kept = if n >= 0 { &parts[..take] } else { &parts[parts.len() - take..] };
            Cell::Text(kept.join(&by))
        }
        "locate" => Cell::Integer(position(&text(0), &text(1))),
        "instr" => Cell::Integer(position(&text(1), &text(0))),
        "length" | "octet_length" => Cell::Integer(args.first().map_or(0, |c| bytes_of(c).len()) as i64),
        "char_length" | "character_length" => Cell::Integer(text(0).chars().count() as i64),
        "ascii" => Cell::Integer(i64::from(text(0).bytes().next().unwrap_or(0))),
        "strcmp" => Cell::Integer(text(0).to_lowercase().cmp(&text(1).to_lowercase()) as i64),
        "field" => {
            let found = args.iter().skip(1).position(|c| !null(0) && words(c).eq_ignore_ascii_case(&text(0)));
            Cell::Integer(found.map_or(0, |at| at as i64 + 1))
        }
        "elt" => args.get(count(0)).filter(|_| count(0) > 0).cloned().unwrap_or(Cell::Null),
        "find_in_set" => {
            let found = text(1).split(',').position(|part| part.eq_ignore_ascii_case(&text(0)));
            Cell::Integer(found.map_or(0, |at| at as i64 + 1))
        }
        "isnull" => Cell::Integer(i64::from(null(0))),
        "if" => args.get(if !null(0) && args.first().map_or(0.0, number) != 0.0 { 1 } else { 2 }).cloned()?,
        "sha1" | "sha" => hex(&sha1::Sha1::digest(args.first().map(bytes_of)?)),
        "sha2" if matches!(count(1), 0 | 256) => hex(&sha2::Sha256::digest(args.first().map(bytes_of)?)),
        "sha2" if count(1) == 512 => hex(&sha2::Sha512::digest(args.first().map(bytes_of)?)),
        "unhex" => unhex(&text(0)).map_or(Cell::Null, Cell::Blob),
        "uuid_to_bin" => unhex(&text(0).replace('-', "")).map_or(Cell::Null, Cell::Blob),
        "bin_to_uuid" => {
            let Cell::Text(all) = hex(&args.first().map(bytes_of)?) else { return None };
            let part = |from: usize, to: usize| all.get(from..to).unwrap_or_default();
            Cell::Text(format!(
                "{}-{}-{}-{}-{}",
                part(0, 8),
                part(8, 12),
                part(12, 16),
                part(16, 20),
                part(20, 32)
            ))
        }
        "json_unquote" => Cell::Text(serde_json::from_str::<String>(&text(0)).unwrap_or_else(|_| text(0))),
        "like" => {
            let escape = text(2).chars().next();
            Cell::Integer(i64::from(like(&text(1), &text(0), escape, count(3) > 0)))
        }
        "regexp_like" => Cell::Integer(i64::from(pattern(&text(1), &text(2))?.is_match(&text(0)))),
        "regexp_substr" if args.len() == 2 => {
            pattern(&text(1), "")?.find(&text(0)).map_or(Cell::Null, |m| Cell::Text(m.as_str().to_owned()))
        }
        "regexp_replace" if args.len() == 3 => {
            Cell::Text(pattern(&text(1), "")?.replace_all(&text(0), text(2)).into_owned())
        }
        _ => return None,
    })
}

/// A pattern; `flags` are those of `REGEXP_LIKE`.
fn pattern(pattern: &str, flags: &str) -> Option<regex::Regex> {
    let given = |flag| flags.contains(flag);
    let mut builder = regex::RegexBuilder::new(pattern);
    builder.case_insensitive(!given('c')).multi_line(given('m')).dot_matches_new_line(given('n'));
    builder.size_limit(1 << 20).build().ok()
}

fn number_function(name: &str, args: &[Cell], shared: &Shared) -> Option<Cell> {
    let n = |at: usize| args.get(at).map_or(0.0, number);
    let pick = |greatest: bool| {
        let numeric = args.iter().all(|c| matches!(c, Cell::Integer(_) | Cell::Real(_)));
        let order = |a: &&Cell, b: &&Cell| {
            if numeric { number(a).total_cmp(&number(b)) } else { words(a).cmp(&words(b)) }
        };
        if greatest { args.iter().max_by(order) } else { args.iter().min_by(order) }
    };
    Some(match name {
        "floor" => whole_or_real(n(0).floor()),
        "ceil" | "ceiling" => whole_or_real(n(0).ceil()),
        "mod" if n(1) == 0.0 => Cell::Null,
        "mod" => whole_or_real(n(0) % n(1)),
        "pow" | "power" => Cell::Real(n(0).powf(n(1))),
        "sqrt" if n(0) < 0.0 => Cell::Null,
        "sqrt" => Cell::Real(n(0).sqrt()),
        "exp" => Cell::Real(n(0).exp()),
        "ln" | "log10" | "log2" if n(0) <= 0.0 => Cell::Null,
        "ln" => Cell::Real(n(0).ln()),
        "log10" => Cell::Real(n(0).log10()),
        "log2" => Cell::Real(n(0).log2()),
        "truncate" => {
            let unit = 10f64.powi(n(1) as i32);
            whole_or_real((n(0) * unit).trunc() / unit)
        }
        "pi" => Cell::Real(std::f64::consts::PI),
        "rand" => Cell::Real((random(shared) >> 11) as f64 / (1u64 << 53) as f64),
        "greatest" => pick(true)?.clone(),
        "least" => pick(false)?.clone(),
        "uuid" => {
            let mut bytes = [random(shared).to_le_bytes(), random(shared).to_le_bytes()].concat();
            bytes[6] = bytes[6] & 0x0f | 0x10;
            bytes[8] = bytes[8] & 0x3f | 0x80;
            return text_function("bin_to_uuid", &[Cell::Blob(bytes)]);
        }
        _ => return None,
    })
}

fn time_function(name: &str, args: &[Cell], shared: &Shared) -> Option<Cell> {
    let text = |at: usize| args.get(at).map(words).unwrap_or_default();
    if name == "unix_timestamp" && args.is_empty() {
        return Some(Cell::Integer(lock(shared).now.div_euclid(1_000_000)));
    }
    if name == "from_unixtime" {
        let micros = args.first().map_or(0.0, number) * 1e6;
        let at = micros.round() as i64;
        if args.len() > 1 {
            return Some(Cell::Text(moment::format(at, &text(1))));
        }
        return Some(Cell::Text(moment::show(at, if at % 1_000_000 == 0 { 0 } else { 6 })));
    }
    if name == "timestampdiff" {
        let pair = moment::parse(&text(1)).zip(moment::parse(&text(2)));
        let units = pair.and_then(|(from, to)| moment::difference(from, to, &text(0).to_lowercase()));
        return Some(units.map_or(Cell::Null, Cell::Integer));
    }
    if name == "convert_tz" {
        let zones = offset(&text(1)).zip(offset(&text(2)));
        let moved = moment::parse(&text(0)).zip(zones).map(|(at, (from, to))| at - from + to);
        return Some(
            moved.map_or(Cell::Null, |at| {
                Cell::Text(moment::show(at, if at % 1_000_000 == 0 { 0 } else { 6 }))
            }),
        );
    }
    let known = [
        "date",
        "time",
        "year",
        "month",
        "day",
        "dayofmonth",
        "hour",
        "minute",
        "second",
        "microsecond",
        "dayofweek",
        "weekday",
        "dayofyear",
        "quarter",
        "last_day",
        "date_format",
        "datediff",
        "date_shift",
        "unix_timestamp",
        "to_days",
    ];
    if !known.contains(&name) {
        return None;
    }
    let Some(at) = moment::parse(&text(0)).or_else(|| moment::parse_time(&text(0))) else {
        return Some(Cell::Null);
    };
    let day_number = at.div_euclid(moment::DAY);
    let (year, month, day) = moment::date(day_number);
    let seconds = at.rem_euclid(moment::DAY) / 1_000_000;
    let of = |pattern: &str| Cell::Integer(moment::format(at, pattern).parse().unwrap_or(0));
    Some(match name {
        "date" => Cell::Text(moment::show_date(at)),
        "time" => {
            Cell::Text(moment::show_time(at.rem_euclid(moment::DAY), if at % 1_000_000 == 0 { 0 } else { 6 }))
        }
        "year" => Cell::Integer(year),
        "month" => Cell::Integer(month),
        "day" | "dayofmonth" => Cell::Integer(day),
        "hour" => Cell::Integer(seconds / 3600),
        "minute" => Cell::Integer(seconds / 60 % 60),
        "second" => Cell::Integer(seconds % 60),
        "microsecond" => Cell::Integer(at.rem_euclid(1_000_000)),
        "dayofweek" => Cell::Integer((day_number + 4).rem_euclid(7) + 1),
        "weekday" => Cell::Integer((day_number + 3).rem_euclid(7)),
        "dayofyear" => of("%j"),
        "quarter" => Cell::Integer((month + 2) / 3),
        "to_days" => Cell::Integer(day_number + 719_528),
        "last_day" => {
            let next = moment::add(at - (day - 1) * moment::DAY, 1.0, "month")?;
            Cell::Text(moment::show_date(next - moment::DAY))
        }
        "date_format" => Cell::Text(moment::format(at, &text(1))),
        "datediff" => {
            let other = moment::parse(&text(1));
            other.map_or(Cell::Null, |o| Cell::Integer(day_number - o.div_euclid(moment::DAY)))
        }
        "unix_timestamp" if at % 1_000_000 == 0 => Cell::Integer(at / 1_000_000),
        "unix_timestamp" => Cell::Real(at as f64 / 1e6),
        "date_shift" => {
            let unit = text(2).to_lowercase();
            let Some(shifted) = moment::add(at, args.get(1).map_or(0.0, number), &unit) else {
                return Some(Cell::Null);
            };
            let given = text(0);
            let dated = !given.contains(':')
                && !matches!(unit.as_str(), "hour" | "minute" | "second" | "microsecond");
            let digits = given.split_once('.').map_or(0, |(_, f)| f.len().min(6)) as u8;
            let digits = if shifted % 1_000_000 != 0 && digits == 0 { 6 } else { digits };
            Cell::Text(if dated { moment::show_date(shifted) } else { moment::show(shifted, digits) })
        }
        _ => return None,
    })
}

fn lock_function(name: &str, args: &[Cell], shared: &Shared) -> Option<Cell> {
    let Held { locks, owner } = lock(shared).held.clone();
    let what = args.first().map(words).unwrap_or_default();
    let flag = |held: bool| Cell::Integer(i64::from(held));
    Some(match name {
        "get_lock" => flag(locks.take(&what, owner, args.get(1).map_or(-1.0, number))),
        "release_lock" => locks.release(&what, owner).map_or(Cell::Null, flag),
        "release_all_locks" => Cell::Integer(i64::from(locks.release_all(owner))),
        "is_free_lock" => flag(locks.holder(&what).is_none()),
        "is_used_lock" => locks.holder(&what).map_or(Cell::Null, |id| Cell::Integer(id as i64)),
        _ => return None,
    })
}

/// Microseconds east of UTC of a time zone: of `UTC`, `SYSTEM` (which is UTC here) or `+05:30`. A
/// server without time zone tables knows no other, and answers NULL.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("UTC") || zone.eq_ignore_ascii_case("SYSTEM") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 14 && minutes < 60).then(|| sign * (i64::from(hours) * 60 + i64::from(minutes)) * 60_000_000)
}

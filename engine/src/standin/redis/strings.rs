//! Commands on strings and on keys of any type.

use super::keyspace::*;
use crate::protocol::redis::{command, value};
use faultbox_bundle_format::Value;

/// How the end of a key is given.
fn end(unit: &[u8], amount: &[u8], now: u64, command: &str) -> Result<u64, Value> {
    let invalid = || err(&format!("invalid expire time in '{command}' command"));
    let amount = integer(amount)?;
    let (factor, absolute) = match unit.to_ascii_uppercase().as_slice() {
        b"EX" => (1000, false),
        b"PX" => (1, false),
        b"EXAT" => (1000, true),
        _ => (1, true),
    };
    let millis = amount.checked_mul(factor).filter(|ms| *ms > 0).ok_or_else(invalid)? as u64;
    if absolute { Ok(millis) } else { now.checked_add(millis).ok_or_else(invalid) }
}

pub fn get(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(maybe(run.text(word(words, 1))?.as_deref()))
}

pub fn set(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let key = word(words, 1);
    let (mut expires, mut keep, mut only_new, mut only_old, mut get) = (None, false, false, false, false);
    let mut at = 3;
    while at < words.len() {
        match word(words, at).to_ascii_uppercase().as_slice() {
            unit @ (b"EX" | b"PX" | b"EXAT" | b"PXAT") if expires.is_none() && !keep => {
                let amount = words.get(at + 1).ok_or_else(|| err("syntax error"))?;
                expires = Some(end(unit, amount, run.now, "set")?);
                at += 1;
            }
            b"KEEPTTL" if expires.is_none() => keep = true,
            b"NX" if !only_old => only_new = true,
            b"XX" if !only_new => only_old = true,
            b"GET" => get = true,
            _ => return Err(err("syntax error")),
        }
        at += 1;
    }
    let old = if get { maybe(run.text(key)?.as_deref()) } else { Value::Null };
    let found = run.entry(key).map(|entry| entry.expires);
    if only_new && found.is_some() || only_old && found.is_none() {
        return Ok(old);
    }
    let expires = if keep { found.flatten() } else { expires };
    run.put(key, Data::Text(word(words, 2).to_vec()), expires);
    Ok(if get { old } else { ok() })
}

pub fn setnx(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    if run.entry(word(words, 1)).is_some() {
        return Ok(Value::Int(0));
    }
    run.put(word(words, 1), Data::Text(word(words, 2).to_vec()), None);
    Ok(Value::Int(1))
}

pub fn setex(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let unit: &[u8] = if command::is(words, 0, "SETEX") { b"EX" } else { b"PX" };
    let expires = end(unit, word(words, 2), run.now, "setex")?;
    run.put(word(words, 1), Data::Text(word(words, 3).to_vec()), Some(expires));
    Ok(ok())
}

pub fn getset(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let old = maybe(run.text(word(words, 1))?.as_deref());
    run.put(word(words, 1), Data::Text(word(words, 2).to_vec()), None);
    Ok(old)
}

pub fn getdel(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let old = maybe(run.text(word(words, 1))?.as_deref());
    run.remove(word(words, 1));
    Ok(old)
}

pub fn getex(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let key = word(words, 1);
    let old = maybe(run.text(key)?.as_deref());
    let expires = match (words.len(), word(words, 2).to_ascii_uppercase().as_slice()) {
        (2, _) => return Ok(old),
        (3, b"PERSIST") => None,
        (4, unit @ (b"EX" | b"PX" | b"EXAT" | b"PXAT")) => Some(end(unit, word(words, 3), run.now, "getex")?),
        _ => return Err(err("syntax error")),
    };
    if let Some(entry) = run.entry(key) {
        entry.expires = expires;
    }
    Ok(old)
}

pub fn append(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let text = run.text_or_new(word(words, 1))?;
    text.extend_from_slice(word(words, 2));
    Ok(count(text.len()))
}

pub fn strlen(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(count(run.text(word(words, 1))?.map_or(0, |text| text.len())))
}

/// Adds to the integer at a key.
fn add(run: &mut Run<'_>, key: &[u8], by: i64) -> Reply {
    let old = match run.text(key)? {
        Some(text) => integer(text)?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or_else(|| err("increment or decrement would overflow"))?;
    *run.text_or_new(key)? = new.to_string().into_bytes();
    Ok(Value::Int(new))
}

pub fn incr(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    add(run, word(words, 1), 1)
}

pub fn decr(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    add(run, word(words, 1), -1)
}

pub fn incrby(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    add(run, word(words, 1), integer(word(words, 2))?)
}

pub fn decrby(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let by = integer(word(words, 2))?.checked_neg().ok_or_else(|| err("decrement would overflow"))?;
    add(run, word(words, 1), by)
}

pub fn incrbyfloat(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let by = float(word(words, 2))?;
    let old = match run.text(word(words, 1))? {
        Some(text) => float(text)?,
        None => 0.0,
    };
    if !(old + by).is_finite() {
        return Err(err("increment would produce NaN or Infinity"));
    }
    let new = value::number_text(old + by);
    *run.text_or_new(word(words, 1))? = new.clone().into_bytes();
    Ok(Value::Text(new))
}

pub fn mget(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let each =
        words.iter().skip(1).map(|key| run.text(key).ok().flatten().map_or(Value::Null, |text| bulk(text)));
    Ok(Value::List(each.collect()))
}

pub fn mset(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let only_new = command::is(words, 0, "MSETNX");
    let pairs = words.get(1..).unwrap_or_default();
    if pairs.len() % 2 == 1 {
        return Err(err("wrong number of arguments for 'mset' command"));
    }
    if only_new && pairs.chunks_exact(2).any(|pair| run.entry(word(pair, 0)).is_some()) {
        return Ok(Value::Int(0));
    }
    for pair in pairs.chunks_exact(2) {
        run.put(word(pair, 0), Data::Text(word(pair, 1).to_vec()), None);
    }
    Ok(if only_new { Value::Int(1) } else { ok() })
}

pub fn getrange(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let (start, stop) = (integer(word(words, 2))?, integer(word(words, 3))?);
    let text = run.text(word(words, 1))?.cloned().unwrap_or_default();
    Ok(bulk(text.get(range(start, stop, text.len())).unwrap_or_default()))
}

pub fn setrange(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let at = usize::try_from(integer(word(words, 2))?).map_err(|_| err("offset is out of range"))?;
    let piece = word(words, 3);
    let end = at.checked_add(piece.len()).filter(|end| *end <= 512 << 20);
    let end = end.ok_or_else(|| err("string exceeds maximum allowed size (proto-max-bulk-len)"))?;
    if piece.is_empty() {
        return strlen(run, words);
    }
    let text = run.text_or_new(word(words, 1))?;
    if text.len() < end {
        text.resize(end, 0);
    }
    text.splice(at..end, piece.iter().copied());
    Ok(count(text.len()))
}

pub fn del(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(count(words.iter().skip(1).filter(|key| run.remove(key)).count()))
}

pub fn exists(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(count(words.iter().skip(1).filter(|key| run.entry(key).is_some()).count()))
}

pub fn expire(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let name = command::name(words);
    let amount = integer(word(words, 2))?;
    let factor = if name.starts_with('P') { 1 } else { 1000 };
    let base = if name.ends_with("AT") { 0 } else { run.now as i64 };
    let at = amount.checked_mul(factor).and_then(|ms| ms.checked_add(base));
    let at = at.ok_or_else(|| err(&format!("invalid expire time in '{}' command", name.to_lowercase())))?;
    let now = run.now as i64;
    let Some(entry) = run.entry(word(words, 1)) else { return Ok(Value::Int(0)) };
    let old = entry.expires.map(|at| at as i64);
    for at_word in 3..words.len() {
        let goes = match word(words, at_word).to_ascii_uppercase().as_slice() {
            b"NX" => old.is_none(),
            b"XX" => old.is_some(),
            b"GT" => old.is_some_and(|old| at > old),
            b"LT" => old.is_none_or(|old| at < old),
            _ => return Err(err("Unsupported option")),
        };
        if !goes {
            return Ok(Value::Int(0));
        }
    }
    if at <= now {
        run.remove(word(words, 1));
    } else {
        entry.expires = Some(at as u64);
    }
    Ok(Value::Int(1))
}

pub fn persist(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let had = run.entry(word(words, 1)).and_then(|entry| entry.expires.take());
    Ok(Value::Int(i64::from(had.is_some())))
}

pub fn ttl(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let now = run.now;
    let Some(entry) = run.entry(word(words, 1)) else { return Ok(Value::Int(-2)) };
    let Some(at) = entry.expires else { return Ok(Value::Int(-1)) };
    let left = at.saturating_sub(now);
    Ok(Value::Int(match &*command::name(words) {
        "PTTL" => left,
        "TTL" => left.div_ceil(1000),
        "PEXPIRETIME" => at,
        _ => at / 1000,
    } as i64))
}

pub fn kind(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(value::status(run.entry(word(words, 1)).map_or("none", |entry| entry.data.kind())))
}

pub fn keys(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let pattern = word(words, 1);
    let found = run.live().map(|(key, _)| key).filter(|key| glob(pattern, key));
    Ok(bulks(found))
}

/// The words of a scan after its cursor: `MATCH`, `COUNT`, `TYPE`, and whether values are left out.
pub struct Scan {
    pattern: Option<Vec<u8>>,
    kind: Option<String>,
    /// `NOVALUES`
    pub bare: bool,
}

impl Scan {
    /// Reads the words from `at` on; the cursor is in front of them.
    ///
    /// # Errors
    /// When they are not those of a scan.
    pub fn of(words: &[Vec<u8>], at: usize) -> Result<Self, Value> {
        integer(word(words, at - 1)).map_err(|_| err("invalid cursor"))?;
        let mut scan = Scan { pattern: None, kind: None, bare: false };
        let mut at = at;
        while at < words.len() {
            let argument = words.get(at + 1);
            let need = || argument.ok_or_else(|| err("syntax error"));
            match word(words, at).to_ascii_uppercase().as_slice() {
                b"MATCH" => scan.pattern = Some(need()?.clone()),
                b"COUNT" if integer(need()?)? > 0 => {}
                b"TYPE" => scan.kind = Some(command::text(need()?).to_lowercase()),
                b"NOVALUES" => {
                    scan.bare = true;
                    at += 1;
                    continue;
                }
                _ => return Err(err("syntax error")),
            }
            at += 2;
        }
        Ok(scan)
    }

    /// Whether the name is asked for.
    pub fn wants(&self, name: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| glob(pattern, name))
    }

    /// The reply: everything at once, which `COUNT`, being a hint, permits.
    pub fn reply(items: Vec<Value>) -> Value {
        Value::List(vec!["0".into(), Value::List(items)])
    }
}

pub fn scan(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let scan = Scan::of(words, 2)?;
    let wanted = |kind: &str| scan.kind.as_ref().is_none_or(|wanted| wanted == kind);
    let found = run.live().filter(|(key, entry)| scan.wants(key) && wanted(entry.data.kind()));
    Ok(Scan::reply(found.map(|(key, _)| bulk(key)).collect()))
}

pub fn rename(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let (from, to) = (word(words, 1), word(words, 2));
    let only_new = command::is(words, 0, "RENAMENX");
    if run.entry(from).is_none() {
        return Err(err("no such key"));
    }
    if only_new && run.entry(to).is_some() {
        return Ok(Value::Int(0));
    }
    if let Some(entry) = run.keys().remove(from) {
        run.keys().insert(to.to_vec(), entry);
    }
    Ok(if only_new { Value::Int(1) } else { ok() })
}

pub fn copy(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let replace = match (words.len(), command::is(words, 3, "REPLACE")) {
        (3, _) => false,
        (4, true) => true,
        _ => return Err(err("syntax error")),
    };
    let Some(entry) = run.entry(word(words, 1)).cloned() else { return Ok(Value::Int(0)) };
    if !replace && run.entry(word(words, 2)).is_some() {
        return Ok(Value::Int(0));
    }
    run.keys().insert(word(words, 2).to_vec(), entry);
    Ok(Value::Int(1))
}

/// Any key will do: the first, so that equal histories give equal answers.
pub fn randomkey(run: &mut Run<'_>, _: &[Vec<u8>]) -> Reply {
    let first = run.live().next().map(|(key, _)| bulk(key));
    Ok(first.unwrap_or_default())
}

pub fn dbsize(run: &mut Run<'_>, _: &[Vec<u8>]) -> Reply {
    Ok(count(run.live().count()))
}

pub fn flush(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    if words.len() > 1 && !command::is(words, 1, "ASYNC") && !command::is(words, 1, "SYNC") {
        return Err(err("syntax error"));
    }
    if command::is(words, 0, "FLUSHALL") {
        run.space.dbs.clear();
    } else {
        run.keys().clear();
    }
    Ok(ok())
}

pub fn object(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let sub = word(words, 1).to_ascii_uppercase();
    let Some(entry) = run.entry(word(words, 2)) else { return Ok(Value::Null) };
    Ok(match sub.as_slice() {
        b"REFCOUNT" => Value::Int(1),
        b"IDLETIME" => Value::Int(0),
        b"ENCODING" => Value::text(match &entry.data {
            Data::Text(text) if integer(text).is_ok() => "int",
            Data::Text(text) if text.len() <= 44 => "embstr",
            Data::Text(_) => "raw",
            Data::List(items) if items.len() <= 128 => "listpack",
            Data::List(_) => "quicklist",
            Data::Hash(fields) if fields.len() <= 128 => "listpack",
            Data::Hash(_) => "hashtable",
            Data::Set(members) if members.len() <= 128 => "listpack",
            Data::Set(_) => "hashtable",
            Data::Sorted(members) if members.len() <= 128 => "listpack",
            Data::Sorted(_) => "skiplist",
        }),
        _ => return Err(crate::protocol::redis::serve::not_supported("OBJECT", words)),
    })
}

pub fn echo(_: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(bulk(word(words, 1)))
}

pub fn ping(_: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(words.get(1).map_or_else(|| value::status("PONG"), |said| bulk(said)))
}

pub fn time(run: &mut Run<'_>, _: &[Vec<u8>]) -> Reply {
    let micros = run.now % 1000 * 1000;
    Ok(Value::List(vec![Value::Text((run.now / 1000).to_string()), Value::Text(micros.to_string())]))
}

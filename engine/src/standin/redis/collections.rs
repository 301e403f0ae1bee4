//! Commands on hashes, lists and sets.

use super::keyspace::*;
use super::strings::Scan;
use crate::protocol::redis::{command, value};
use faultbox_bundle_format::Value;
use std::collections::{BTreeSet, VecDeque};

pub fn hset(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let pairs = words.get(2..).unwrap_or_default();
    if pairs.len() % 2 == 1 {
        let name = command::name(words).to_lowercase();
        return Err(err(&format!("wrong number of arguments for '{name}' command")));
    }
    let hash = run.hash_or_new(word(words, 1))?;
    let fresh = pairs.chunks_exact(2).filter(|pair| {
        let field = word(pair, 0).to_vec();
        hash.insert(field, word(pair, 1).to_vec()).is_none()
    });
    let fresh = fresh.count();
    Ok(if command::is(words, 0, "HMSET") { ok() } else { count(fresh) })
}

pub fn hsetnx(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let hash = run.hash_or_new(word(words, 1))?;
    if hash.contains_key(word(words, 2)) {
        return Ok(Value::Int(0));
    }
    hash.insert(word(words, 2).to_vec(), word(words, 3).to_vec());
    Ok(Value::Int(1))
}

pub fn hget(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(maybe(run.hash(word(words, 1))?.and_then(|hash| hash.get(word(words, 2)))))
}

pub fn hmget(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let hash = run.hash(word(words, 1))?;
    let fields = words.iter().skip(2);
    Ok(Value::List(fields.map(|field| maybe(hash.as_ref().and_then(|hash| hash.get(field)))).collect()))
}

pub fn hgetall(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let hash = run.hash(word(words, 1))?;
    Ok(value::map(hash.into_iter().flatten().flat_map(|(name, text)| [bulk(name), bulk(text)]).collect()))
}

pub fn hkeys(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(bulks(run.hash(word(words, 1))?.into_iter().flat_map(|hash| hash.keys())))
}

pub fn hvals(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(bulks(run.hash(word(words, 1))?.into_iter().flat_map(|hash| hash.values())))
}

pub fn hlen(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(count(run.hash(word(words, 1))?.map_or(0, |hash| hash.len())))
}

pub fn hstrlen(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let text = run.hash(word(words, 1))?.and_then(|hash| hash.get(word(words, 2)));
    Ok(count(text.map_or(0, Vec::len)))
}

pub fn hexists(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let found = run.hash(word(words, 1))?.is_some_and(|hash| hash.contains_key(word(words, 2)));
    Ok(Value::Int(i64::from(found)))
}

pub fn hdel(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let Some(hash) = run.hash(word(words, 1))? else { return Ok(Value::Int(0)) };
    let removed = words.iter().skip(2).filter(|field| hash.remove(*field).is_some()).count();
    run.tidy(word(words, 1));
    Ok(count(removed))
}

pub fn hincrby(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let by = integer(word(words, 3))?;
    let old = match run.hash(word(words, 1))?.and_then(|hash| hash.get(word(words, 2))) {
        Some(text) => integer(text).map_err(|_| err("hash value is not an integer"))?,
        None => 0,
    };
    let new = old.checked_add(by).ok_or_else(|| err("increment or decrement would overflow"))?;
    run.hash_or_new(word(words, 1))?.insert(word(words, 2).to_vec(), new.to_string().into_bytes());
    Ok(Value::Int(new))
}

pub fn hincrbyfloat(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let by = float(word(words, 3))?;
    let old = match run.hash(word(words, 1))?.and_then(|hash| hash.get(word(words, 2))) {
        Some(text) => float(text).map_err(|_| err("hash value is not a float"))?,
        None => 0.0,
    };
    if !(old + by).is_finite() {
        return Err(err("increment would produce NaN or Infinity"));
    }
    let new = value::number_text(old + by);
    run.hash_or_new(word(words, 1))?.insert(word(words, 2).to_vec(), new.clone().into_bytes());
    Ok(Value::Text(new))
}

pub fn hscan(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let scan = Scan::of(words, 3)?;
    let fields = run.hash(word(words, 1))?.into_iter().flatten().filter(|(name, _)| scan.wants(name));
    let items = fields.flat_map(|(name, text)| {
        let text = (!scan.bare).then(|| bulk(text));
        std::iter::once(bulk(name)).chain(text)
    });
    Ok(Scan::reply(items.collect()))
}

/// Whether the command works at the left end of the list.
fn left(words: &[Vec<u8>]) -> bool {
    command::name(words).starts_with("BL") || command::name(words).starts_with('L')
}

pub fn push(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let key = word(words, 1);
    if command::name(words).ends_with('X') && run.list(key)?.is_none() {
        return Ok(Value::Int(0));
    }
    let left = left(words);
    let list = run.list_or_new(key)?;
    for item in words.iter().skip(2) {
        if left {
            list.push_front(item.clone());
        } else {
            list.push_back(item.clone());
        }
    }
    Ok(count(list.len()))
}

fn take(list: &mut VecDeque<Vec<u8>>, left: bool) -> Option<Vec<u8>> {
    if left { list.pop_front() } else { list.pop_back() }
}

pub fn pop(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let (key, left) = (word(words, 1), left(words));
    let many = match words.get(2) {
        Some(many) => {
            let many = usize::try_from(integer(many)?);
            Some(many.map_err(|_| err("value is out of range, must be positive"))?)
        }
        None => None,
    };
    let Some(list) = run.list(key)? else {
        return Ok(if many.is_some() { nil_array() } else { Value::Null });
    };
    let reply = match many {
        None => take(list, left).map_or(Value::Null, |item| bulk(&item)),
        Some(many) => {
            let taken: Vec<_> = std::iter::from_fn(|| take(list, left)).take(many).collect();
            bulks(&taken)
        }
    };
    run.tidy(key);
    Ok(reply)
}

/// `BLPOP` and `BRPOP`, without the waiting: nil where there is nothing.
pub fn bpop(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    for key in words.get(1..words.len().saturating_sub(1)).unwrap_or_default() {
        let left = left(words);
        if let Some(item) = run.list(key)?.and_then(|list| take(list, left)) {
            run.tidy(key);
            return Ok(Value::List(vec![bulk(key), bulk(&item)]));
        }
    }
    Ok(nil_array())
}

fn end_of(word: &[u8]) -> Result<bool, Value> {
    match word.to_ascii_uppercase().as_slice() {
        b"LEFT" => Ok(true),
        b"RIGHT" => Ok(false),
        _ => Err(err("syntax error")),
    }
}

/// `LMOVE`, `RPOPLPUSH` and those that wait, without the waiting.
pub fn lmove(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let name = command::name(words);
    let (from_left, to_left) = if name.ends_with("RPOPLPUSH") {
        (false, true)
    } else {
        (end_of(word(words, 3))?, end_of(word(words, 4))?)
    };
    run.list(word(words, 2))?;
    let Some(item) = run.list(word(words, 1))?.and_then(|list| take(list, from_left)) else {
        return Ok(Value::Null);
    };
    let list = run.list_or_new(word(words, 2))?;
    if to_left {
        list.push_front(item.clone());
    } else {
        list.push_back(item.clone());
    }
    run.tidy(word(words, 1));
    Ok(bulk(&item))
}

pub fn lrange(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let (start, stop) = (integer(word(words, 2))?, integer(word(words, 3))?);
    let Some(list) = run.list(word(words, 1))? else { return Ok(Value::List(Vec::new())) };
    let range = range(start, stop, list.len());
    Ok(bulks(list.range(range)))
}

pub fn llen(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(count(run.list(word(words, 1))?.map_or(0, |list| list.len())))
}

fn index(at: i64, len: usize) -> Option<usize> {
    usize::try_from(if at < 0 { at.checked_add(len as i64)? } else { at }).ok().filter(|at| *at < len)
}

pub fn lindex(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let at = integer(word(words, 2))?;
    let list = run.list(word(words, 1))?;
    Ok(maybe(list.as_ref().and_then(|list| list.get(index(at, list.len())?))))
}

pub fn lset(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let at = integer(word(words, 2))?;
    let list = run.list(word(words, 1))?.ok_or_else(|| err("no such key"))?;
    let at = index(at, list.len()).ok_or_else(|| err("index out of range"))?;
    if let Some(item) = list.get_mut(at) {
        *item = word(words, 3).to_vec();
    }
    Ok(ok())
}

pub fn lrem(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let (most, item) = (integer(word(words, 2))?, word(words, 3));
    let Some(list) = run.list(word(words, 1))? else { return Ok(Value::Int(0)) };
    let mut left = if most == 0 { usize::MAX } else { most.unsigned_abs() as usize };
    let before = list.len();
    let mut kept = VecDeque::with_capacity(before);
    let mut keep = |found: Vec<u8>, front: bool| {
        if found == item && left > 0 {
            left -= 1;
        } else if front {
            kept.push_front(found);
        } else {
            kept.push_back(found);
        }
    };
    if most < 0 {
        std::mem::take(list).into_iter().rev().for_each(|found| keep(found, true));
    } else {
        std::mem::take(list).into_iter().for_each(|found| keep(found, false));
    }
    *list = kept;
    let removed = before - list.len();
    run.tidy(word(words, 1));
    Ok(count(removed))
}

pub fn ltrim(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let (start, stop) = (integer(word(words, 2))?, integer(word(words, 3))?);
    if let Some(list) = run.list(word(words, 1))? {
        let range = range(start, stop, list.len());
        list.truncate(range.end);
        list.drain(..range.start.min(list.len()));
    }
    run.tidy(word(words, 1));
    Ok(ok())
}

pub fn linsert(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let after = match word(words, 2).to_ascii_uppercase().as_slice() {
        b"BEFORE" => 0,
        b"AFTER" => 1,
        _ => return Err(err("syntax error")),
    };
    let Some(list) = run.list(word(words, 1))? else { return Ok(Value::Int(0)) };
    let Some(at) = list.iter().position(|item| item == word(words, 3)) else { return Ok(Value::Int(-1)) };
    list.insert(at + after, word(words, 4).to_vec());
    Ok(count(list.len()))
}

pub fn lpos(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    if words.len() > 3 {
        return Err(err("LPOS with options is not supported by the Faultbox stand-in"));
    }
    let list = run.list(word(words, 1))?;
    let at = list.and_then(|list| list.iter().position(|item| item == word(words, 2)));
    Ok(at.map_or(Value::Null, count))
}

pub fn sadd(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let set = run.set_or_new(word(words, 1))?;
    Ok(count(words.iter().skip(2).filter(|member| set.insert(member.to_vec())).count()))
}

pub fn srem(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let Some(set) = run.set(word(words, 1))? else { return Ok(Value::Int(0)) };
    let removed = words.iter().skip(2).filter(|member| set.remove(*member)).count();
    run.tidy(word(words, 1));
    Ok(count(removed))
}

pub fn smembers(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let set = run.set(word(words, 1))?;
    Ok(value::set(set.into_iter().flat_map(|set| set.iter()).map(|member| bulk(member)).collect()))
}

pub fn sismember(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let found = run.set(word(words, 1))?.is_some_and(|set| set.contains(word(words, 2)));
    Ok(Value::Int(i64::from(found)))
}

pub fn smismember(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let set = run.set(word(words, 1))?;
    let found = |member: &Vec<u8>| set.as_ref().is_some_and(|set| set.contains(member));
    Ok(Value::List(words.iter().skip(2).map(|member| Value::Int(i64::from(found(member)))).collect()))
}

pub fn scard(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(count(run.set(word(words, 1))?.map_or(0, |set| set.len())))
}

/// Any members will do: the first, so that equal histories give equal answers.
pub fn spop(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let many = words.get(2).map(|many| integer(many)).transpose()?;
    let set = run.set(word(words, 1))?;
    let reply = match (many, set) {
        (Some(many), _) if many < 0 => return Err(err("value is out of range, must be positive")),
        (None, None) => Value::Null,
        (Some(_), None) => value::set(Vec::new()),
        (None, Some(set)) => set.pop_first().map_or(Value::Null, |member| bulk(&member)),
        (Some(many), Some(set)) => {
            let taken = std::iter::from_fn(|| set.pop_first()).take(many as usize);
            value::set(taken.map(|member| bulk(&member)).collect())
        }
    };
    run.tidy(word(words, 1));
    Ok(reply)
}

pub fn srandmember(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let many = words.get(2).map(|many| integer(many)).transpose()?;
    let set = run.set(word(words, 1))?.cloned().unwrap_or_default();
    Ok(match many {
        None => maybe(set.first()),
        Some(many) if many >= 0 => bulks(set.iter().take(many as usize)),
        // Negative: so many, with repetitions.
        Some(many) if set.is_empty() || many < -(1 << 20) => bulks(set.iter().take(0)),
        Some(many) => bulks(set.iter().cycle().take(many.unsigned_abs() as usize)),
    })
}

pub fn smove(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    run.set(word(words, 2))?;
    let taken = run.set(word(words, 1))?.is_some_and(|set| set.remove(word(words, 3)));
    if taken {
        run.set_or_new(word(words, 2))?.insert(word(words, 3).to_vec());
        run.tidy(word(words, 1));
    }
    Ok(Value::Int(i64::from(taken)))
}

/// `SINTER`, `SUNION`, `SDIFF` of the sets at these keys.
fn combine(run: &mut Run<'_>, name: &str, keys: &[Vec<u8>]) -> Result<BTreeSet<Vec<u8>>, Value> {
    let mut sets = Vec::new();
    for key in keys {
        sets.push(run.set(key)?.cloned().unwrap_or_default());
    }
    let mut sets = sets.into_iter();
    let first = sets.next().unwrap_or_default();
    Ok(sets.fold(first, |all, set| match name.get(..2) {
        Some("SI") => all.intersection(&set).cloned().collect(),
        Some("SU") => all.union(&set).cloned().collect(),
        _ => all.difference(&set).cloned().collect(),
    }))
}

pub fn combined(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let found = combine(run, &command::name(words), words.get(1..).unwrap_or_default())?;
    Ok(value::set(found.iter().map(|member| bulk(member)).collect()))
}

pub fn combined_store(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let found = combine(run, &command::name(words), words.get(2..).unwrap_or_default())?;
    let size = count(found.len());
    run.remove(word(words, 1));
    if !found.is_empty() {
        run.put(word(words, 1), Data::Set(found), None);
    }
    Ok(size)
}

pub fn sscan(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let scan = Scan::of(words, 3)?;
    let members =
        run.set(word(words, 1))?.into_iter().flat_map(|set| set.iter()).filter(|name| scan.wants(name));
    Ok(Scan::reply(members.map(|member| bulk(member)).collect()))
}

//! Commands on sorted sets.

use super::keyspace::*;
use super::strings::Scan;
use crate::protocol::redis::{command, value};
use faultbox_bundle_format::Value;
use std::collections::BTreeMap;

type Member = (Vec<u8>, f64);

/// By score, then by name.
fn ordered(members: Option<&mut BTreeMap<Vec<u8>, f64>>) -> Vec<Member> {
    let mut all: Vec<Member> =
        members.into_iter().flatten().map(|(name, score)| (name.clone(), *score)).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    all
}

fn score_value(score: f64) -> Value {
    Value::map([("double", Value::Text(value::number_text(score)))])
}

pub fn zadd(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let (mut nx, mut xx, mut gt, mut lt, mut ch, mut incr) = (false, false, false, false, false, false);
    let mut at = 2;
    loop {
        match word(words, at).to_ascii_uppercase().as_slice() {
            b"NX" => nx = true,
            b"XX" => xx = true,
            b"GT" => gt = true,
            b"LT" => lt = true,
            b"CH" => ch = true,
            b"INCR" => incr = true,
            _ => break,
        }
        at += 1;
    }
    let pairs = words.get(at..).unwrap_or_default();
    if pairs.is_empty()
        || pairs.len() % 2 == 1
        || nx && (xx || gt || lt)
        || gt && lt
        || incr && pairs.len() > 2
    {
        return Err(err("syntax error"));
    }
    let scores = pairs.chunks_exact(2).map(|pair| float(word(pair, 0))).collect::<Result<Vec<_>, _>>()?;
    let members = run.sorted_or_new(word(words, 1))?;
    let (mut added, mut changed, mut last) = (0, 0, Value::Null);
    for (pair, score) in pairs.chunks_exact(2).zip(scores) {
        let name = word(pair, 1);
        let old = members.get(name).copied();
        let score = if incr { old.unwrap_or(0.0) + score } else { score };
        let goes = match old {
            None => !xx,
            Some(old) => !nx && (!gt || score > old) && (!lt || score < old),
        };
        if goes {
            members.insert(name.to_vec(), score);
            added += usize::from(old.is_none());
            changed += usize::from(old != Some(score));
            last = score_value(score);
        }
    }
    run.tidy(word(words, 1));
    Ok(if incr { last } else { count(if ch { changed } else { added }) })
}

pub fn zincrby(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let by = float(word(words, 2))?;
    let members = run.sorted_or_new(word(words, 1))?;
    let score = members.entry(word(words, 3).to_vec()).or_insert(0.0);
    *score += by;
    Ok(score_value(*score))
}

pub fn zrem(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let Some(members) = run.sorted(word(words, 1))? else { return Ok(Value::Int(0)) };
    let removed = words.iter().skip(2).filter(|name| members.remove(*name).is_some()).count();
    run.tidy(word(words, 1));
    Ok(count(removed))
}

pub fn zscore(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let score = run.sorted(word(words, 1))?.and_then(|members| members.get(word(words, 2)).copied());
    Ok(score.map_or(Value::Null, score_value))
}

pub fn zmscore(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let members = run.sorted(word(words, 1))?;
    let score =
        |name: &Vec<u8>| members.as_ref().and_then(|m| m.get(name).copied()).map_or(Value::Null, score_value);
    Ok(Value::List(words.iter().skip(2).map(score).collect()))
}

pub fn zcard(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    Ok(count(run.sorted(word(words, 1))?.map_or(0, |members| members.len())))
}

pub fn zrank(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    if words.len() > 3 {
        return Err(err("ZRANK WITHSCORE is not supported by the Faultbox stand-in"));
    }
    let mut all = ordered(run.sorted(word(words, 1))?);
    if command::is(words, 0, "ZREVRANK") {
        all.reverse();
    }
    let at = all.iter().position(|(name, _)| name == word(words, 2));
    Ok(at.map_or(Value::Null, count))
}

/// One end of a range of scores: `5`, `(5`, `-inf`.
fn bound(text: &[u8]) -> Result<(f64, bool), Value> {
    let (text, open) = match text.strip_prefix(b"(") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    float(text).map(|score| (score, open)).map_err(|_| err("min or max is not a float"))
}

fn within(all: Vec<Member>, min: &[u8], max: &[u8]) -> Result<Vec<Member>, Value> {
    let ((min, min_open), (max, max_open)) = (bound(min)?, bound(max)?);
    let inside = |score: f64| {
        (if min_open { score > min } else { score >= min })
            && if max_open { score < max } else { score <= max }
    };
    Ok(all.into_iter().filter(|(_, score)| inside(*score)).collect())
}

pub fn zcount(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let all = ordered(run.sorted(word(words, 1))?);
    Ok(count(within(all, word(words, 2), word(words, 3))?.len()))
}

/// `ZRANGE` and its older relatives.
pub fn zrange(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let name = command::name(words);
    let (mut by_score, mut reverse) = (name.ends_with("BYSCORE"), name.starts_with("ZREV"));
    let (mut scores, mut limit) = (false, None);
    let mut at = 4;
    while at < words.len() {
        match word(words, at).to_ascii_uppercase().as_slice() {
            b"BYSCORE" if name == "ZRANGE" => by_score = true,
            b"REV" if name == "ZRANGE" => reverse = true,
            b"WITHSCORES" => scores = true,
            b"LIMIT" => {
                limit = Some((integer(word(words, at + 1))?, integer(word(words, at + 2))?));
                at += 2;
            }
            b"BYLEX" => return Err(err("BYLEX is not supported by the Faultbox stand-in")),
            _ => return Err(err("syntax error")),
        }
        at += 1;
    }
    if limit.is_some() && !by_score {
        return Err(err("syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"));
    }
    let version = run.version;
    let mut all = ordered(run.sorted(word(words, 1))?);
    if by_score {
        let (min, max) = if reverse { (3, 2) } else { (2, 3) };
        all = within(all, word(words, min), word(words, max))?;
    }
    if reverse {
        all.reverse();
    }
    if by_score {
        let (skip, most) = limit.unwrap_or((0, -1));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        all = usize::try_from(skip)
            .map_or_else(|_| Vec::new(), |n| all.into_iter().skip(n).take(most).collect());
    } else {
        let range = range(integer(word(words, 2))?, integer(word(words, 3))?, all.len());
        all = all.get(range).map(<[Member]>::to_vec).unwrap_or_default();
    }
    Ok(members(&all, scores, version))
}

/// Members, with their scores as pairs in version 3 and in turn before.
fn members(all: &[Member], scores: bool, version: i64) -> Value {
    let pair = |(name, score): &Member| [bulk(name), score_value(*score)];
    Value::List(match (scores, version) {
        (false, _) => all.iter().map(|(name, _)| bulk(name)).collect(),
        (true, 3) => all.iter().map(|member| Value::List(pair(member).into())).collect(),
        (true, _) => all.iter().flat_map(pair).collect(),
    })
}

pub fn zremrange(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let all = ordered(run.sorted(word(words, 1))?);
    let gone = if command::name(words).ends_with("SCORE") {
        within(all, word(words, 2), word(words, 3))?
    } else {
        let range = range(integer(word(words, 2))?, integer(word(words, 3))?, all.len());
        all.get(range).map(<[Member]>::to_vec).unwrap_or_default()
    };
    if let Some(members) = run.sorted(word(words, 1))? {
        members.retain(|name, _| !gone.iter().any(|(removed, _)| removed == name));
    }
    run.tidy(word(words, 1));
    Ok(count(gone.len()))
}

pub fn zpop(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let many = words.get(2).map(|many| integer(many)).transpose()?;
    let version = run.version;
    let mut all = ordered(run.sorted(word(words, 1))?);
    if command::name(words).ends_with("MAX") {
        all.reverse();
    }
    let most =
        usize::try_from(many.unwrap_or(1)).map_err(|_| err("value is out of range, must be positive"))?;
    all.truncate(most);
    if let Some(members) = run.sorted(word(words, 1))? {
        for (name, _) in &all {
            members.remove(name);
        }
    }
    run.tidy(word(words, 1));
    // Without a count even version 3 gives member and score in turn.
    Ok(members(&all, true, if many.is_some() { version } else { 2 }))
}

pub fn zscan(run: &mut Run<'_>, words: &[Vec<u8>]) -> Reply {
    let scan = Scan::of(words, 3)?;
    let members = run.sorted(word(words, 1))?.into_iter().flatten().filter(|(name, _)| scan.wants(name));
    let items = members.flat_map(|(name, score)| [bulk(name), Value::Text(value::number_text(*score))]);
    Ok(Scan::reply(items.collect()))
}

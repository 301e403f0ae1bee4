//! Every command that works on the data: its arity and what carries it out.

use super::keyspace::{Reply, Run};
use super::{collections as c, sorted as z, strings as s};
use crate::protocol::redis::{command, serve, value};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Carries a command out.
pub type Handler = fn(&mut Run<'_>, &[Vec<u8>]) -> Reply;

/// Name, number of words (negative: at least so many), handler.
#[rustfmt::skip]
static COMMANDS: &[(&str, i64, Handler)] = &[
    ("GET", 2, s::get), ("SET", -3, s::set), ("SETNX", 3, s::setnx), ("SETEX", 4, s::setex),
    ("PSETEX", 4, s::setex), ("GETSET", 3, s::getset), ("GETDEL", 2, s::getdel), ("GETEX", -2, s::getex),
    ("APPEND", 3, s::append), ("STRLEN", 2, s::strlen), ("INCR", 2, s::incr), ("DECR", 2, s::decr),
    ("INCRBY", 3, s::incrby), ("DECRBY", 3, s::decrby), ("INCRBYFLOAT", 3, s::incrbyfloat),
    ("MGET", -2, s::mget), ("MSET", -3, s::mset), ("MSETNX", -3, s::mset), ("GETRANGE", 4, s::getrange),
    ("SUBSTR", 4, s::getrange), ("SETRANGE", 4, s::setrange),
    ("DEL", -2, s::del), ("UNLINK", -2, s::del), ("EXISTS", -2, s::exists), ("TOUCH", -2, s::exists),
    ("EXPIRE", -3, s::expire), ("PEXPIRE", -3, s::expire), ("EXPIREAT", -3, s::expire),
    ("PEXPIREAT", -3, s::expire), ("PERSIST", 2, s::persist), ("TTL", 2, s::ttl), ("PTTL", 2, s::ttl),
    ("EXPIRETIME", 2, s::ttl), ("PEXPIRETIME", 2, s::ttl), ("TYPE", 2, s::kind), ("KEYS", 2, s::keys),
    ("SCAN", -2, s::scan), ("RENAME", 3, s::rename), ("RENAMENX", 3, s::rename), ("COPY", -3, s::copy),
    ("RANDOMKEY", 1, s::randomkey), ("DBSIZE", 1, s::dbsize), ("FLUSHDB", -1, s::flush),
    ("FLUSHALL", -1, s::flush), ("OBJECT", 3, s::object), ("ECHO", 2, s::echo), ("PING", -1, s::ping),
    ("TIME", 1, s::time),
    ("HSET", -4, c::hset), ("HMSET", -4, c::hset), ("HSETNX", 4, c::hsetnx), ("HGET", 3, c::hget),
    ("HMGET", -3, c::hmget), ("HGETALL", 2, c::hgetall), ("HKEYS", 2, c::hkeys), ("HVALS", 2, c::hvals),
    ("HLEN", 2, c::hlen), ("HSTRLEN", 3, c::hstrlen), ("HEXISTS", 3, c::hexists), ("HDEL", -3, c::hdel),
    ("HINCRBY", 4, c::hincrby), ("HINCRBYFLOAT", 4, c::hincrbyfloat), ("HSCAN", -3, c::hscan),
    ("LPUSH", -3, c::push), ("RPUSH", -3, c::push), ("LPUSHX", -3, c::push), ("RPUSHX", -3, c::push),
    ("LPOP", -2, c::pop), ("RPOP", -2, c::pop), ("LRANGE", 4, c::lrange), ("LLEN", 2, c::llen),
    ("LINDEX", 3, c::lindex), ("LSET", 4, c::lset), ("LREM", 4, c::lrem), ("LTRIM", 4, c::ltrim),
    ("LINSERT", 5, c::linsert), ("LPOS", -3, c::lpos), ("LMOVE", 5, c::lmove), ("RPOPLPUSH", 3, c::lmove),
    ("BLPOP", -3, c::bpop), ("BRPOP", -3, c::bpop), ("BLMOVE", 6, c::lmove), ("BRPOPLPUSH", 4, c::lmove),
    ("SADD", -3, c::sadd), ("SREM", -3, c::srem), ("SMEMBERS", 2, c::smembers), ("SISMEMBER", 3, c::sismember),
    ("SMISMEMBER", -3, c::smismember), ("SCARD", 2, c::scard), ("SPOP", -2, c::spop),
    ("SRANDMEMBER", -2, c::srandmember), ("SMOVE", 4, c::smove), ("SINTER", -2, c::combined),
    ("SUNION", -2, c::combined), ("SDIFF", -2, c::combined), ("SINTERSTORE", -3, c::combined_store),
    ("SUNIONSTORE", -3, c::combined_store), ("SDIFFSTORE", -3, c::combined_store), ("SSCAN", -3, c::sscan),
    ("ZADD", -4, z::zadd), ("ZINCRBY", 4, z::zincrby), ("ZREM", -3, z::zrem), ("ZSCORE", 3, z::zscore),
    ("ZMSCORE", -3, z::zmscore), ("ZCARD", 2, z::zcard), ("ZRANK", -3, z::zrank), ("ZREVRANK", -3, z::zrank),
    ("ZCOUNT", 4, z::zcount), ("ZRANGE", -4, z::zrange), ("ZREVRANGE", -4, z::zrange),
    ("ZRANGEBYSCORE", -4, z::zrange), ("ZREVRANGEBYSCORE", -4, z::zrange),
    ("ZREMRANGEBYRANK", 4, z::zremrange), ("ZREMRANGEBYSCORE", 4, z::zremrange), ("ZPOPMIN", -2, z::zpop),
    ("ZPOPMAX", -2, z::zpop), ("ZSCAN", -3, z::zscan),
];

/// What carries a command out.
///
/// # Errors
/// The error reply for a command that is not in the table, or has too few or too many words.
pub fn find(words: &[Vec<u8>]) -> Result<Handler, faultbox_bundle_format::Value> {
    let name = command::name(words);
    static BY_NAME: LazyLock<BTreeMap<&str, (i64, Handler)>> =
        LazyLock::new(|| COMMANDS.iter().map(|(name, arity, handler)| (*name, (*arity, *handler))).collect());
    let found = BY_NAME.get(&*name);
    let (arity, handler) = found.ok_or_else(|| serve::not_supported(&name, words))?;
    check_arity(&name, words, *arity)?;
    Ok(*handler)
}

/// Whether a command has as many words as it must.
///
/// # Errors
/// The error reply if not.
pub fn check_arity(name: &str, words: &[Vec<u8>], arity: i64) -> Result<(), faultbox_bundle_format::Value> {
    let len = words.len() as i64;
    if len == arity || arity < 0 && len >= -arity {
        return Ok(());
    }
    Err(value::error(format!("ERR wrong number of arguments for '{}' command", name.to_lowercase())))
}

//! What is known about commands: their kind, their keys, what in their replies is volatile.
//!
//! Contract: pure tables and functions. A command that is not in the table counts as one that
//! writes and whose first argument is its key.

use super::codec::Command;
use faultbox_bundle_format::key_template;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

/// How a command counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads; asking again is harmless.
    Read,
    /// Reads something that is another at each call (`RANDOMKEY`).
    Draw,
    /// Writes; the same again changes something.
    Write,
    /// Writes; the same again changes nothing.
    Settle,
    /// Waits for something to take; an empty answer is an empty poll.
    Wait,
    /// As [`Kind::Wait`], without taking.
    Watch,
    /// Sets up the session.
    Session,
    /// Says that somebody is alive, or asks how the server is.
    Ambient,
    /// `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.
    Transaction,
    /// Begins or ends subscriptions.
    Subscribe,
    /// Turns the connection into another protocol (`MONITOR`, replication).
    Takeover,
}

/// Where the keys of a command stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    None,
    /// First, last (negative from the end), step.
    Range(usize, isize, usize),
    /// The number of keys stands here, they follow; and fixed ones before.
    Counted(usize),
    /// One key, then as [`Keys::Counted`].
    StoreCounted,
    /// After the word `STREAMS`, the first half.
    Streams,
}

const ONE: Keys = Keys::Range(1, 1, 1);
const TWO: Keys = Keys::Range(1, 2, 1);
const ALL: Keys = Keys::Range(1, -1, 1);

/// The table, by kind and place of the keys.
#[rustfmt::skip]
const TABLE: &[(Kind, Keys, &str)] = &[
    (Kind::Read, ONE, "GET STRLEN GETRANGE SUBSTR GETBIT BITCOUNT BITPOS BITFIELD_RO TTL PTTL EXPIRETIME PEXPIRETIME \
        TYPE DUMP HGET HMGET HGETALL HEXISTS HKEYS HVALS HLEN HSTRLEN HSCAN HTTL HPTTL LLEN LRANGE LINDEX LPOS \
        SMEMBERS SISMEMBER SMISMEMBER SCARD SSCAN ZSCORE ZMSCORE ZCARD ZCOUNT ZLEXCOUNT ZRANK ZREVRANK ZRANGE \
        ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZREVRANGEBYLEX ZSCAN PFCOUNT GEOPOS GEODIST GEOHASH \
        GEOSEARCH GEORADIUS_RO XLEN XRANGE XREVRANGE XPENDING SORT_RO"),
    (Kind::Read, ALL, "MGET EXISTS TOUCH SINTER SUNION SDIFF"),
    (Kind::Read, TWO, "LCS"),
    (Kind::Read, Keys::Range(2, 2, 1), "OBJECT MEMORY XINFO"),
    (Kind::Read, Keys::None, "CONFIG KEYS SCAN DBSIZE ECHO PUBSUB SCRIPT FUNCTION SLOWLOG LATENCY LOLWUT WAIT WAITAOF ACL \
        ROLE"),
    (Kind::Read, Keys::Counted(1), "SINTERCARD ZINTER ZUNION ZDIFF ZINTERCARD"),
    (Kind::Read, Keys::Counted(2), "EVAL_RO EVALSHA_RO FCALL_RO"),
    (Kind::Draw, ONE, "SRANDMEMBER HRANDFIELD ZRANDMEMBER"),
    (Kind::Draw, Keys::None, "RANDOMKEY TIME LASTSAVE"),
    (Kind::Settle, ONE, "SETEX PSETEX PERSIST EXPIRE PEXPIRE EXPIREAT PEXPIREAT HSET HMSET HDEL SADD SREM ZREM LSET \
        LTRIM SETBIT SETRANGE PFADD GEOADD ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREMRANGEBYLEX HEXPIRE HPEXPIRE HPERSIST"),
    (Kind::Settle, ALL, "DEL UNLINK PFMERGE SINTERSTORE SUNIONSTORE SDIFFSTORE"),
    (Kind::Settle, Keys::Range(1, -1, 2), "MSET"),
    (Kind::Settle, Keys::None, "FLUSHDB FLUSHALL"),
    (Kind::Settle, Keys::StoreCounted, "ZUNIONSTORE ZINTERSTORE ZDIFFSTORE"),
    (Kind::Write, ONE, "SET SETNX GETSET GETDEL GETEX APPEND INCR DECR INCRBY DECRBY INCRBYFLOAT BITFIELD HSETNX \
        HINCRBY HINCRBYFLOAT LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LREM LINSERT SPOP ZADD ZINCRBY ZPOPMIN ZPOPMAX \
        RESTORE SORT XADD XDEL XTRIM XACK XCLAIM XAUTOCLAIM XSETID GEORADIUS MOVE PUBLISH SPUBLISH"),
    (Kind::Write, TWO, "RENAME RENAMENX COPY RPOPLPUSH LMOVE SMOVE ZRANGESTORE GEOSEARCHSTORE"),
    (Kind::Write, Keys::Range(2, 2, 1), "XGROUP"),
    (Kind::Write, Keys::Range(2, -1, 1), "BITOP"),
    (Kind::Write, Keys::Range(1, -1, 2), "MSETNX"),
    (Kind::Write, Keys::Counted(1), "LMPOP ZMPOP"),
    (Kind::Write, Keys::Counted(2), "EVAL EVALSHA FCALL"),
    (Kind::Write, Keys::None, "SWAPDB SAVE BGSAVE BGREWRITEAOF SHUTDOWN FAILOVER REPLICAOF SLAVEOF DEBUG MODULE \
        MIGRATE"),
    (Kind::Wait, Keys::Range(1, -2, 1), "BLPOP BRPOP BZPOPMIN BZPOPMAX"),
    (Kind::Wait, TWO, "BRPOPLPUSH BLMOVE"),
    (Kind::Wait, Keys::Counted(2), "BLMPOP BZMPOP"),
    (Kind::Wait, Keys::Streams, "XREADGROUP"),
    (Kind::Watch, Keys::Streams, "XREAD"),
    (Kind::Session, Keys::None, "HELLO AUTH SELECT CLIENT RESET QUIT COMMAND READONLY READWRITE ASKING CLUSTER"),
    (Kind::Ambient, Keys::None, "PING INFO"),
    (Kind::Transaction, Keys::None, "MULTI EXEC DISCARD UNWATCH"),
    (Kind::Transaction, ALL, "WATCH"),
    (Kind::Subscribe, ALL, "SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE"),
    (Kind::Takeover, Keys::None, "MONITOR SYNC PSYNC REPLCONF"),
];

/// Every name in the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|(_, _, names)| names.split_whitespace())
}

/// What the table says about one name.
struct Row {
    name: &'static str,
    kind: Kind,
    keys: Keys,
}

fn row(name: &str) -> Option<&'static Row> {
    /// By the first letter: asked three times for each command.
    static ROWS: LazyLock<[Vec<Row>; 26]> = LazyLock::new(|| {
        let mut rows = [const { Vec::new() }; 26];
        for (kind, keys, names) in TABLE {
            for name in names.split_whitespace() {
                if let Some(rows) = letter(name).and_then(|at| rows.get_mut(at)) {
                    rows.push(Row { name, kind: *kind, keys: *keys });
                }
            }
        }
        rows
    });
    ROWS.get(letter(name)?)?.iter().find(|row| row.name == name)
}

/// The place of a name's first letter, which is a capital, in the alphabet.
fn letter(name: &str) -> Option<usize> {
    name.bytes().next()?.checked_sub(b'A').map(usize::from)
}

/// A word of a command as text.
pub fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

/// A command's name as Redis knows it.
pub fn name(command: &[impl AsRef<[u8]>]) -> Cow<'static, str> {
    let name = capitals(command);
    row(&name).map_or_else(|| Cow::Owned(name.into_owned()), |row| Cow::Borrowed(row.name))
}

/// The same; clients that write it so already cost no copy.
fn capitals(command: &[impl AsRef<[u8]>]) -> Cow<'_, str> {
    let word = command.first().map(AsRef::as_ref).unwrap_or_default();
    match std::str::from_utf8(word) {
        Ok(name) if !name.bytes().any(|byte| byte.is_ascii_lowercase()) => Cow::Borrowed(name),
        _ => Cow::Owned(text(word).to_ascii_uppercase()),
    }
}

/// Where the last words of a command are groups whose order means nothing (fields and values, members):
/// where they begin, and the groups in order of their names. Not where a name comes twice, nor
/// where one carries something generated (their order is then another in each run).
pub fn any_order<W: AsRef<[u8]>>(command: &[W]) -> Option<(usize, Vec<&[W]>)> {
    let options = |at: &usize| ["NX", "XX", "GT", "LT", "CH"].iter().any(|word| is(command, *at, word));
    let (from, width, named) = match &*capitals(command) {
        "HSET" | "HMSET" => (2, 2, 0),
        "MSET" | "MSETNX" => (1, 2, 0),
        "SADD" | "SREM" | "HDEL" | "ZREM" => (2, 1, 0),
        "DEL" | "UNLINK" | "EXISTS" | "TOUCH" => (1, 1, 0),
        "ZADD" => (2 + (2..command.len()).take_while(options).count(), 2, 1),
        _ => return None,
    };
    let rest = command.get(from..)?;
    if rest.len() <= width || rest.len() % width != 0 {
        return None;
    }
    let mut groups: Vec<(&[u8], &[W])> =
        rest.chunks(width).filter_map(|group| Some((group.get(named)?.as_ref(), group))).collect();
    groups.sort_by(|(a, one), (b, other)| {
        a.cmp(b).then_with(|| one.iter().map(AsRef::as_ref).cmp(other.iter().map(AsRef::as_ref)))
    });
    let twice = groups.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
    let generated = groups.iter().any(|(name, _)| text(name) != key_template::of(&text(name)));
    (!twice && !generated).then(|| (from, groups.into_iter().map(|(_, group)| group).collect()))
}

/// Whether the word at `at` is `word`, in any case.
pub fn is(command: &[impl AsRef<[u8]>], at: usize, word: &str) -> bool {
    command.get(at).is_some_and(|found| found.as_ref().eq_ignore_ascii_case(word.as_bytes()))
}

/// How a command counts.
pub fn kind(command: &[impl AsRef<[u8]>]) -> Kind {
    let has = |words: &[&str]| (1..command.len()).any(|at| words.iter().any(|word| is(command, at, word)));
    let tail = |words: &[&str]| (3..command.len()).any(|at| words.iter().any(|word| is(command, at, word)));
    let name = capitals(command);
    match &*name {
        // Without a condition and without asking for the old value, SET twice is SET once.
        "SET" if !tail(&["NX", "XX", "GET"]) => Kind::Settle,
        "ZADD" if !tail(&["NX", "INCR"]) => Kind::Settle,
        "CONFIG" if is(command, 1, "SET") => Kind::Settle,
        "SCRIPT" | "FUNCTION" if has(&["LOAD", "FLUSH", "DELETE"]) => Kind::Settle,
        "XREAD" if !has(&["BLOCK"]) => Kind::Read,
        "XREADGROUP" if !has(&["BLOCK"]) => Kind::Write,
        other => row(other).map_or(Kind::Write, |row| row.kind),
    }
}

/// The keys (or channels) that a command names.
pub fn keys(command: &[impl AsRef<[u8]>]) -> SmallVec<[&[u8]; 4]> {
    let name = capitals(command);
    let keys = row(&name).map_or(ONE, |row| row.keys);
    let word = |at: usize| command.get(at).map(AsRef::as_ref);
    let count = |at: usize| word(at).and_then(|w| text(w).parse::<usize>().ok()).unwrap_or(0);
    let some = |from: usize, len: usize| command.iter().skip(from).take(len).map(AsRef::as_ref).collect();
    match keys {
        Keys::None => SmallVec::new(),
        Keys::Range(first, last, step) => {
            let len = command.len() as isize;
            let last = if last < 0 { len + last } else { last.min(len - 1) };
            let last = usize::try_from(last + 1).unwrap_or(0);
            (first..last).step_by(step).filter_map(word).collect()
        }
        Keys::Counted(at) => some(at + 1, count(at)),
        Keys::StoreCounted => {
            let mut keys: SmallVec<[&[u8]; 4]> = some(1, 1);
            keys.extend(command.iter().skip(3).take(count(2)).map(AsRef::as_ref));
            keys
        }
        Keys::Streams => {
            let streams = (1..command.len()).find(|at| is(command, *at, "STREAMS"));
            streams.map_or_else(SmallVec::new, |at| some(at + 1, (command.len() - at - 1) / 2))
        }
    }
}

/// Which words of a command stand for a moment or a connection: cursors, which servers make up.
pub fn volatile_word(command: &[impl AsRef<[u8]>]) -> Option<usize> {
    let at = match &*capitals(command) {
        "SCAN" => 1,
        "HSCAN" | "SSCAN" | "ZSCAN" => 2,
        _ => return None,
    };
    (command.get(at).map(AsRef::as_ref) != Some(b"0")).then_some(at)
}

/// Which words of a command are secret.
pub fn secret_word(command: &[impl AsRef<[u8]>], at: usize) -> bool {
    match &*capitals(command) {
        "AUTH" => at > 0,
        "HELLO" => at > 2 && is(command, at - 2, "AUTH"),
        "MIGRATE" => at > 1 && (is(command, at - 1, "AUTH") || is(command, at - 2, "AUTH2")),
        "CONFIG" => at > 2 && (is(command, at - 1, "requirepass") || is(command, at - 1, "masterauth")),
        "ACL" => {
            at > 2 && command.get(at).and_then(|w| w.as_ref().first()).is_some_and(|b| b"><#!".contains(b))
        }
        _ => false,
    }
}

/// What in a reply differs between two equal runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volatile {
    /// Nothing.
    Nothing,
    /// A number above zero: time that is left.
    Countdown,
    /// The first element unless it is 0: a cursor.
    Cursor,
    /// All of it.
    All,
}

/// What in a command's reply differs between two equal runs.
pub fn volatile_reply(command: &[impl AsRef<[u8]>]) -> Volatile {
    match &*capitals(command) {
        "TTL" | "PTTL" | "EXPIRETIME" | "PEXPIRETIME" => Volatile::Countdown,
        "SCAN" | "HSCAN" | "SSCAN" | "ZSCAN" => Volatile::Cursor,
        "TIME" | "INFO" | "LASTSAVE" | "HELLO" | "CLIENT" | "ROLE" | "SLOWLOG" | "LATENCY" | "MEMORY" => {
            Volatile::All
        }
        "OBJECT" if is(command, 1, "IDLETIME") || is(command, 1, "FREQ") => Volatile::All,
        _ => Volatile::Nothing,
    }
}

/// The stable key of a command: its name and its keys with what is generated left out.
pub fn stable_key(command: &[impl AsRef<[u8]>]) -> String {
    let name = capitals(command);
    let mut key = match &*name {
        // Long or odd names come from noise, not from clients.
        odd if odd.len() > 40 || !odd.bytes().all(|b| b.is_ascii_graphic()) => "?".to_owned(),
        "CONFIG" | "CLIENT" | "COMMAND" | "SCRIPT" | "FUNCTION" | "OBJECT" | "PUBSUB" | "XGROUP"
        | "XINFO" | "ACL" => {
            format!(
                "{name} {}",
                command.get(1).map(|w| text(w.as_ref()).to_ascii_uppercase()).unwrap_or_default()
            )
        }
        // The same script, by text or by digest.
        "EVAL" | "EVAL_RO" => format!("SCRIPT {}", script_digest(command)),
        "EVALSHA" | "EVALSHA_RO" => {
            let digest = command.get(1).map(|w| text(w.as_ref()).to_ascii_lowercase()).unwrap_or_default();
            format!("SCRIPT {}", digest.get(..8).unwrap_or(&digest))
        }
        "KEYS" => format!(
            "KEYS {}",
            command.get(1).map(|w| key_template::of(&text(w.as_ref()))).unwrap_or_default()
        ),
        name => {
            let mut key = String::with_capacity(64);
            key.push_str(name);
            key
        }
    };
    let mut last = None;
    for found in keys(command).into_iter().take(8) {
        let before = key.len();
        key.push(' ');
        key_template::put(&mut key, &String::from_utf8_lossy(found));
        // Where several keys in a row look alike, one stands for them.
        let pattern = before..key.len();
        if last.clone().is_some_and(|last: Range<usize>| key.get(last) == key.get(pattern.clone())) {
            key.truncate(before);
        } else {
            last = Some(pattern);
        }
    }
    key
}

fn script_digest(command: &[impl AsRef<[u8]>]) -> String {
    use sha1::Digest;
    let script = command.get(1).map(AsRef::as_ref).unwrap_or_default();
    sha1::Sha1::digest(script).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A command from text, for tests and for ourselves.
pub fn of(words: &[&str]) -> Command {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(words: &str) -> String {
        stable_key(&of(&words.split(' ').collect::<Vec<_>>()))
    }

    #[test]
    fn keys_carry_nothing_generated() {
        assert_eq!(key("get orders:1712345678901:list"), "GET orders:{}:list");
        assert_eq!(key("GET order:3f2504e0-4f89-41d3-9a0c-0305e82c3301"), "GET order:{}");
        assert_eq!(key("GET order:3f2504e0-4f89-41d3-9a0c-0305e82c3301:x"), "GET order:{}:x");
        assert_eq!(key("GET s:9f86d081884c7d65"), "GET s:{}");
        assert_eq!(key("GET v2:user:17"), "GET v2:user:17");
        assert_eq!(key("GET 01HZXW6J8Q9V7K3M2N4P5R6S7T"), "GET {}");
        assert_eq!(key("MGET o:12345 o:12346 p"), "MGET o:{} p");
        assert_eq!(key("BLPOP a b 0"), "BLPOP a b");
        assert_eq!(key("XREAD BLOCK 0 STREAMS a b 0 0"), "XREAD a b");
        assert_eq!(
            key("EVAL return 2 k1 k2 v"),
            format!("SCRIPT {} k1 k2", script_digest(&of(&["", "return"])))
        );
        assert_eq!(key("config get save"), "CONFIG GET");
        assert_eq!(key("ZUNIONSTORE out 2 a b"), "ZUNIONSTORE out a b");
        assert_eq!(key("GET"), "GET");
    }

    #[test]
    fn kinds_follow_the_arguments() {
        let kind = |words: &str| kind(&of(&words.split(' ').collect::<Vec<_>>()));
        assert_eq!(kind("set k v EX 3"), Kind::Settle);
        assert_eq!(kind("set k v nx"), Kind::Write);
        assert_eq!(kind("set nx get"), Kind::Settle);
        assert_eq!(kind("FANCY.MODULE k"), Kind::Write);
        assert_eq!(kind("XREAD STREAMS a 0"), Kind::Read);
        assert_eq!(kind("BLPOP a 0"), Kind::Wait);
    }

    #[test]
    fn no_name_stands_twice() {
        let mut all: Vec<_> = names().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}

//! Step verbs and the readiness question, over a small client of our own.
//!
//! Contract: one connection a step, protocol version 2. An error reply is a step that is not `ok`,
//! with the server's own message. A password is taken from the service's `REDIS_PASSWORD`.
//! Not modelled: subscriptions as steps.

use super::codec::{Command, Frame, FrameDecoder, encode_command};
use super::{command, value};
use crate::link::{Dial, Link, Stream};
use crate::protocol::{Parameter, ProtocolError, Verb};
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const fn must(name: &'static str) -> Parameter {
    Parameter { name, required: true }
}

const fn may(name: &'static str) -> Parameter {
    Parameter { name, required: false }
}

const fn verb(name: &'static str, parameters: &'static [Parameter], doc: &'static str) -> Verb {
    Verb { name, parameters, doc }
}

/// The verbs.
pub static VERBS: &[Verb] = &[
    verb("get", &[must("key")], "the value of a key"),
    verb("set", &[must("key"), must("value"), may("ex"), may("px"), may("nx"), may("xx")], "sets a key"),
    verb("mget", &[must("keys")], "the values of several keys"),
    verb("del", &[must("key")], "deletes a key or a list of keys"),
    verb("exists", &[must("key")], "how many of a key or a list of keys exist"),
    verb("incr", &[must("key"), may("by")], "adds to a number"),
    verb("decr", &[must("key"), may("by")], "subtracts from a number"),
    verb("expire", &[must("key"), must("seconds")], "lets a key expire"),
    verb("ttl", &[must("key")], "seconds until a key expires; -1 never, -2 no such key"),
    verb("type", &[must("key")], "the type of a key"),
    verb("keys", &[may("pattern")], "the keys that match a pattern"),
    verb("lpush", &[must("key"), must("value")], "puts a value or a list of values in front of a list"),
    verb("rpush", &[must("key"), must("value")], "puts a value or a list of values at the end of a list"),
    verb("lpop", &[must("key")], "takes the first element of a list"),
    verb("rpop", &[must("key")], "takes the last element of a list"),
    verb("lrange", &[must("key"), may("start"), may("stop")], "elements of a list"),
    verb("llen", &[must("key")], "the length of a list"),
    verb("hset", &[must("key"), may("field"), may("value"), may("mapping")], "sets fields of a hash"),
    verb("hget", &[must("key"), must("field")], "a field of a hash"),
    verb("hgetall", &[must("key")], "all fields of a hash"),
    verb("hdel", &[must("key"), must("field")], "deletes a field or a list of fields of a hash"),
    verb("sadd", &[must("key"), must("member")], "adds a member or a list of members to a set"),
    verb("srem", &[must("key"), must("member")], "removes a member or a list of members from a set"),
    verb("smembers", &[must("key")], "the members of a set"),
    verb("sismember", &[must("key"), must("member")], "whether a set has a member"),
    verb("zadd", &[must("key"), must("score"), must("member")], "adds a member to a sorted set"),
    verb("zrange", &[must("key"), may("start"), may("stop")], "members of a sorted set by rank"),
    verb("publish", &[must("channel"), must("message")], "sends a message to subscribers"),
    verb("dbsize", &[], "how many keys there are"),
    verb("flushdb", &[], "deletes every key of the database"),
    verb("flushall", &[], "deletes every key"),
    verb("ping", &[], "asks whether the server answers"),
    verb("info", &[may("section")], "what the server says about itself"),
    verb("command", &[must("args")], "any command, as a list of words"),
];

/// The words that a value stands for; lists stand for several.
fn words(value: &Value) -> Result<Vec<Vec<u8>>, String> {
    Ok(match value.bare() {
        Value::Text(text) => vec![text.clone().into_bytes()],
        Value::Bytes(bytes) => vec![bytes.clone()],
        Value::Int(n) => vec![n.to_string().into_bytes()],
        Value::UInt(n) => vec![n.to_string().into_bytes()],
        Value::Float(n) => vec![value::number_text(*n).into_bytes()],
        Value::List(items) => {
            items.iter().map(words).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()
        }
        Value::Map(fields) => {
            let pairs =
                fields.iter().map(|(name, v)| Ok([vec![name.clone().into_bytes()], words(v)?].concat()));
            pairs.collect::<Result<Vec<_>, String>>()?.into_iter().flatten().collect()
        }
        _ => return Err("redis takes text, bytes and numbers".to_owned()),
    })
}

/// The command of a step.
///
/// # Errors
/// What is wrong with its arguments.
pub fn build(call: &StepCall) -> Result<Command, String> {
    let given = |name: &str| call.argument(name).filter(|v| !matches!(v.bare(), Value::Null));
    let need = |name: &str| given(name).ok_or_else(|| format!("{} needs {name}", call.verb)).and_then(words);
    let or =
        |name: &str, default: &str| given(name).map_or_else(|| Ok(vec![default.as_bytes().to_vec()]), words);
    let flag = |name: &str| given(name).and_then(Value::as_bool).unwrap_or(false);
    let verb = call.verb.to_ascii_uppercase();
    let mut command = vec![verb.clone().into_bytes()];
    match verb.as_str() {
        "COMMAND" => command = need("args")?,
        "SET" => {
            command.extend(need("key")?);
            command.extend(need("value")?);
            for unit in ["ex", "px"] {
                if given(unit).is_some() {
                    command.push(unit.to_ascii_uppercase().into_bytes());
                    command.extend(need(unit)?);
                }
            }
            command
                .extend(["nx", "xx"].iter().filter(|n| flag(n)).map(|n| n.to_ascii_uppercase().into_bytes()));
        }
        "INCR" | "DECR" => {
            if given("by").is_some() {
                command = vec![format!("{verb}BY").into_bytes()];
            }
            command.extend(need("key")?);
            command.extend(given("by").map_or_else(|| Ok(Vec::new()), words)?);
        }
        "KEYS" => command.extend(or("pattern", "*")?),
        "LRANGE" | "ZRANGE" => {
            command.extend(need("key")?);
            command.extend(or("start", "0")?);
            command.extend(or("stop", "-1")?);
        }
        "HSET" if given("mapping").is_some() => {
            command.extend(need("key")?);
            command.extend(need("mapping")?);
        }
        "HSET" => {
            for name in ["key", "field", "value"] {
                command.extend(need(name)?);
            }
        }
        _ => {
            let verb = VERBS.iter().find(|known| known.name == call.verb);
            let verb = verb.ok_or_else(|| format!("redis has no step {}", call.verb))?;
            for parameter in verb.parameters {
                if parameter.required || given(parameter.name).is_some() {
                    command.extend(need(parameter.name)?);
                }
            }
        }
    }
    match command.first() {
        None => Err("command needs at least one word".to_owned()),
        Some(_) if matches!(command::kind(&command), command::Kind::Subscribe | command::Kind::Takeover) => {
            Err(format!("{} cannot be a step", command::name(&command)))
        }
        Some(_) => Ok(command),
    }
}

/// Performs a step.
pub async fn step(dial: Arc<dyn Dial>, link: Arc<Link>, call: &StepCall) -> StepResponse {
    let began = link.journal().clock().now_ns();
    let performed = perform(dial, &link, call);
    let mut response = match call.timeout {
        None => performed.await,
        Some(limit) => match link.time().timeout(limit, performed).await {
            Ok(response) => response,
            Err(_) => StepResponse { timed_out: true, ..StepResponse::no_answer("no answer in time") },
        },
    };
    response.duration = Duration::from_nanos(link.journal().clock().now_ns().saturating_sub(began));
    response
}

async fn perform(dial: Arc<dyn Dial>, link: &Link, call: &StepCall) -> StepResponse {
    let command = match build(call) {
        Ok(command) => command,
        Err(problem) => return StepResponse::no_answer(problem),
    };
    match ask(dial, link, &command).await {
        Ok(reply) => respond(&call.verb, &reply),
        Err(error) => StepResponse::no_answer(error.to_string()),
    }
}

fn respond(verb: &str, reply: &Value) -> StepResponse {
    if let Some(message) = value::error_text(reply) {
        let body = message.as_bytes().to_vec();
        return StepResponse { error: Some(message.to_owned()), body, ..StepResponse::default() };
    }
    let data = match (verb, reply) {
        ("hgetall", Value::List(flat)) => value::plain_map(flat),
        (_, reply) => value::plain(reply),
    };
    let body = data.as_bytes().map(<[u8]>::to_vec).unwrap_or_default();
    StepResponse { ok: true, body, data, ..StepResponse::default() }
}

async fn ask(dial: Arc<dyn Dial>, link: &Link, command: &Command) -> Result<Value, ProtocolError> {
    let mut stream = dial.dial().await?;
    let mut decoder = FrameDecoder::default();
    if let Some(password) = link.options.env.get("REDIS_PASSWORD").filter(|p| !p.is_empty()) {
        let answer = exchange(&mut stream, &mut decoder, &command::of(&["AUTH", password])).await?;
        if value::error_text(&answer).is_some() {
            return Ok(answer);
        }
    }
    exchange(&mut stream, &mut decoder, command).await
}

async fn exchange(
    stream: &mut Stream,
    decoder: &mut FrameDecoder,
    command: &Command,
) -> Result<Value, ProtocolError> {
    stream.write_all(&encode_command(command)).await?;
    loop {
        match decoder.next_frame().map_err(|error| ProtocolError::Malformed(error.to_string()))? {
            Some((Frame::Push(_), _)) => {}
            Some((frame, _)) => return Ok(value::of_frame(&frame)),
            None => {
                if stream.read_buf(decoder.buffer()).await? == 0 {
                    let closed = std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "the server closed the connection without an answer",
                    );
                    return Err(closed.into());
                }
            }
        }
    }
}

/// Asks whether the server serves: it answers `PING`, or wants a password first.
///
/// # Errors
/// When it does not answer, or is still loading.
pub async fn ready(mut stream: Stream) -> Result<(), ProtocolError> {
    let reply = exchange(&mut stream, &mut FrameDecoder::default(), &command::of(&["PING"])).await?;
    match value::error_text(&reply) {
        Some(error) if !error.starts_with("NOAUTH") => Err(ProtocolError::Malformed(error.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(verb: &str, arguments: &[(&str, Value)]) -> Result<String, String> {
        let call = StepCall {
            service: String::new(),
            interface: String::new(),
            verb: verb.to_owned(),
            arguments: arguments.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
            timeout: None,
            location: String::new(),
        };
        build(&call).map(|words| words.iter().map(|w| command::text(w)).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn verbs_build_commands() {
        let list = |items: &[&str]| Value::List(items.iter().map(|i| (*i).into()).collect());
        let k = || ("key", Value::text("k"));
        assert_eq!(
            built("set", &[k(), ("value", Value::Int(3)), ("ex", Value::Int(9))]).unwrap(),
            "SET k 3 EX 9"
        );
        assert_eq!(built("set", &[k(), ("value", "v".into()), ("nx", true.into())]).unwrap(), "SET k v NX");
        assert_eq!(built("incr", &[k(), ("by", Value::Int(2))]).unwrap(), "INCRBY k 2");
        assert_eq!(built("decr", &[k()]).unwrap(), "DECR k");
        assert_eq!(built("rpush", &[k(), ("value", list(&["a", "b"]))]).unwrap(), "RPUSH k a b");
        assert_eq!(built("lrange", &[k()]).unwrap(), "LRANGE k 0 -1");
        let mapping = Value::map([("f", Value::Int(1)), ("g", Value::Float(2.5))]);
        assert_eq!(built("hset", &[k(), ("mapping", mapping)]).unwrap(), "HSET k f 1 g 2.5");
        assert_eq!(
            built("command", &[("args", list(&["OBJECT", "ENCODING", "k"]))]).unwrap(),
            "OBJECT ENCODING k"
        );
        assert_eq!(built("keys", &[]).unwrap(), "KEYS *");
        assert!(built("get", &[]).unwrap_err().contains("key"));
        assert!(built("command", &[("args", list(&["MONITOR"]))]).unwrap_err().contains("MONITOR"));
        assert!(built("set", &[k(), ("value", true.into())]).unwrap_err().contains("numbers"));
    }
}

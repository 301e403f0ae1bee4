//! Step verbs and readiness: a small client on this folder's codec.
//!
//! Contract: one connection a step; versions that every broker from 2.4 to 4.x speaks; waits no
//! longer than the step's own timeout. What went wrong is named by the protocol's own error.
//! Not modelled: several brokers (a proxy stands for one), compression, transactions.

use super::codec::{self, Framer, Head};
use super::message::{error_name, record_value};
use super::records::{self, Record};
use super::topic_name;
use crate::link::{Dial, Link, Stream};
use crate::protocol::ProtocolError;
use crate::step::{StepCall, StepResponse};
use crate::virtual_time::Time;
use bytes::Bytes;
use faultbox_bundle_format::Value;
use kafka_protocol::messages::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How often metadata is asked for while a topic is being made, and the pause between.
const METADATA_TRIES: usize = 100;
const METADATA_PAUSE: Duration = Duration::from_millis(20);
/// One long poll of `consume`.
const POLL_MS: i32 = 500;
const FETCH_MAX: i32 = 64 << 20;

/// Why a step has no good answer: the protocol's code (0: none came) and words.
struct Failure(i16, String);

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Failure(0, error.to_string())
    }
}

impl Failure {
    fn code(code: i16, what: &str) -> Self {
        Failure(code, format!("{what}: {}", error_name(code)))
    }

    fn usage(what: impl Into<String>) -> Self {
        Failure(0, what.into())
    }
}

/// A connection that asks one thing at a time.
pub(crate) struct Connection {
    stream: Stream,
    framer: Framer,
    correlation: i32,
    /// A topic was made because of what was asked here: its leader may take a moment.
    made_topic: bool,
    time: Time,
}

impl Connection {
    pub(crate) fn new(stream: Stream, time: Time) -> Self {
        Connection { stream, framer: Framer::default(), correlation: 0, made_topic: false, time }
    }

    pub(crate) async fn ask(
        &mut self,
        api: ApiKey,
        version: i16,
        kind: RequestKind,
    ) -> Result<ResponseKind, ProtocolError> {
        self.correlation += 1;
        let client = Some("faultbox".to_owned());
        let head = Head { api: api as i16, version, correlation: self.correlation, client };
        let malformed = |error: codec::CodecError| ProtocolError::Malformed(error.to_string());
        let bytes = codec::encode_request(&head, &kind).map_err(malformed)?;
        self.stream.write_all(&bytes).await?;
        loop {
            if let Some(frame) = self.framer.next_frame().map_err(malformed)? {
                if codec::response_correlation(&frame) != Ok(head.correlation) {
                    return Err(ProtocolError::Malformed("an answer to another request".into()));
                }
                return codec::decode_response(&head, &frame).map_err(malformed);
            }
            if self.stream.read_buf(self.framer.buffer()).await? == 0 {
                return Err(ProtocolError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Number of partitions of a topic, which is made where the broker makes topics.
    async fn partitions(&mut self, topic: &str) -> Result<i32, Failure> {
        let mut code = 0;
        for _ in 0..METADATA_TRIES {
            let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
            let request = MetadataRequest::default()
                .with_topics(Some(vec![asked]))
                .with_allow_auto_topic_creation(true);
            let ResponseKind::Metadata(answer) = self.ask(ApiKey::Metadata, 7, request.into()).await? else {
                break;
            };
            let found = answer.topics.first();
            code = found.map_or(3, |t| t.error_code);
            match found {
                Some(t) if code == 0 && !t.partitions.is_empty() => return Ok(t.partitions.len() as i32),
                // In the making: no leader yet, or not known yet.
                _ if matches!(code, 0 | 3 | 5) => {
                    self.made_topic = true;
                    self.time.sleep(METADATA_PAUSE).await;
                }
                _ => break,
            }
        }
        Err(Failure::code(code, &format!("topic {topic:?}")))
    }

    /// Offset at a timestamp (-1: the end, -2: the beginning).
    async fn offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<i64, Failure> {
        let asked = list_offsets_request::ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topics = list_offsets_request::ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topics]);
        let answer = self.ask(ApiKey::ListOffsets, 5, request.into()).await?;
        let ResponseKind::ListOffsets(answer) = answer else {
            return Err(Failure::usage("no answer to ListOffsets"));
        };
        let found = answer.topics.iter().flat_map(|t| &t.partitions).next();
        match found {
            Some(p) if p.error_code == 0 => Ok(p.offset),
            other => Err(Failure::code(other.map_or(-1, |p| p.error_code), "offsets")),
        }
    }
}

/// Performs one step.
pub async fn step(dial: Arc<dyn Dial>, link: Arc<Link>, call: &StepCall) -> StepResponse {
    let clock = link.journal().clock();
    let began = clock.now_ns();
    let mut read = Vec::new();
    let work = async {
        let stream = dial.dial().await.map_err(ProtocolError::from)?;
        let mut connection = Connection::new(stream, clock.time().clone());
        match call.verb.as_str() {
            "publish" => {
                let now_ms = (clock.unix_ns() + clock.now_ns()) / 1_000_000;
                publish(&mut connection, call, i64::try_from(now_ms).unwrap_or(0)).await
            }
            "consume" => consume(&mut connection, call, &mut read).await,
            "offsets" => offsets(&mut connection, call).await,
            other => Err(Failure::usage(format!("kafka has no verb {other:?}"))),
        }
    };
    let done = match call.timeout {
        None => Some(work.await),
        Some(limit) => clock.time().timeout(limit, work).await.ok(),
    };
    let duration = Duration::from_nanos(clock.now_ns().saturating_sub(began));
    let mut response = match done {
        Some(Ok(data)) => StepResponse { ok: true, data, ..StepResponse::default() },
        Some(Err(Failure(code, words))) => {
            StepResponse { status: code.into(), ..StepResponse::no_answer(words) }
        }
        None => StepResponse { timed_out: true, ..StepResponse::no_answer("timed out") },
    };
    if call.verb == "consume" && !response.ok {
        response.data = Value::List(read);
    }
    StepResponse { duration, ..response }
}

fn text(call: &StepCall, name: &str) -> Option<String> {
    call.argument(name).and_then(Value::as_text).map(str::to_owned)
}

fn bytes(value: &Value) -> Option<Bytes> {
    match value.bare() {
        Value::Null => None,
        Value::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Value::Bytes(bytes) => Some(Bytes::copy_from_slice(bytes)),
        other => Some(Bytes::from(json(other).to_string())),
    }
}

/// Maps, lists and numbers are published as JSON.
fn json(value: &Value) -> serde_json::Value {
    match value.bare() {
        Value::Null | Value::Volatile(_) => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(n) => (*n).into(),
        Value::UInt(n) => (*n).into(),
        Value::Float(n) => (*n).into(),
        Value::Text(text) => text.clone().into(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(fields) => {
            serde_json::Value::Object(fields.iter().map(|(k, v)| (k.clone(), json(v))).collect())
        }
    }
}

fn topic_of(call: &StepCall) -> Result<String, Failure> {
    text(call, "topic").filter(|t| !t.is_empty()).ok_or_else(|| Failure::usage("topic is missing"))
}

/// The partition that Java's default partitioner gives a key.
fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let (m, mut h) = (0x5bd1_e995_u32, 0x9747_b28c_u32 ^ key.len() as u32);
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0u32, |k, b| k << 8 | u32::from(*b)).wrapping_mul(m);
        k = (k ^ k >> 24).wrapping_mul(m);
        h = h.wrapping_mul(m) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0u32, |k, b| k << 8 | u32::from(*b));
        h = h.wrapping_mul(m);
    }
    h = (h ^ h >> 13).wrapping_mul(m);
    h ^= h >> 15;
    (h & 0x7fff_ffff) as i32 % partitions.max(1)
}

async fn publish(connection: &mut Connection, call: &StepCall, now_ms: i64) -> Result<Value, Failure> {
    let topic = topic_of(call)?;
    let key = call.argument("key").and_then(bytes);
    let headers = call.argument("headers").and_then(Value::as_map).unwrap_or_default();
    let record = Record {
        offset: 0,
        timestamp: now_ms,
        key: key.clone(),
        value: call.argument("value").and_then(bytes),
        headers: headers
            .iter()
            .map(|(name, value)| (Bytes::copy_from_slice(name.as_bytes()), bytes(value)))
            .collect(),
    };
    let partitions = connection.partitions(&topic).await?;
    let partition = match call.argument("partition").and_then(Value::as_int) {
        Some(partition) => i32::try_from(partition).unwrap_or(-1),
        None => key.map_or(0, |key| partition_of(&key, partitions)),
    };
    let data = produce_request::PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(records::encode(&[record])));
    let data = produce_request::TopicProduceData::default()
        .with_name(topic_name(&topic))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
    let mut code = -1;
    for _ in 0..METADATA_TRIES {
        let answer = connection.ask(ApiKey::Produce, 7, request.clone().into()).await?;
        let ResponseKind::Produce(answer) = answer else {
            return Err(Failure::usage("no answer to Produce"));
        };
        let answered = answer.responses.iter().flat_map(|t| &t.partition_responses).next();
        code = answered.map_or(-1, |p| p.error_code);
        match answered {
            Some(p) if code == 0 => {
                return Ok(Value::map([
                    ("topic", Value::text(topic)),
                    ("partition", Value::Int(partition.into())),
                    ("offset", Value::Int(p.base_offset)),
                ]));
            }
            // Known to the cluster, and its leader does not know yet that it is the leader.
            _ if connection.made_topic && matches!(code, 3 | 5 | 6) => {
                connection.time.sleep(METADATA_PAUSE).await;
            }
            _ => break,
        }
    }
    Err(Failure::code(code, "publish"))
}

async fn consume(
    connection: &mut Connection,
    call: &StepCall,
    read: &mut Vec<Value>,
) -> Result<Value, Failure> {
    let topic = topic_of(call)?;
    let number = |name: &str| call.argument(name).and_then(Value::as_int);
    let count = number("count").map(|n| usize::try_from(n).unwrap_or(0));
    let most = number("max").map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(0));
    let partitions = connection.partitions(&topic).await?;
    let wanted: Vec<i32> = match number("partition") {
        Some(partition) => vec![i32::try_from(partition).unwrap_or(-1)],
        None => (0..partitions).collect(),
    };
    // (partition, next offset, end of the log as it is now)
    let mut positions = Vec::new();
    for partition in wanted {
        let end = connection.offset(&topic, partition, -1).await?;
        let from = match call.argument("from").map(Value::bare) {
            Some(Value::Text(text)) if text == "latest" => end,
            Some(Value::Int(offset)) => *offset,
            None | Some(Value::Null) => connection.offset(&topic, partition, -2).await?,
            Some(Value::Text(text)) if text == "earliest" => connection.offset(&topic, partition, -2).await?,
            Some(_) => return Err(Failure::usage("from is \"earliest\", \"latest\" or an offset")),
        };
        positions.push((partition, from, end));
    }
    let enough = count.unwrap_or(usize::MAX).min(most);
    loop {
        // Without a count: what is there now.
        let open = |(_, next, end): &(i32, i64, i64)| count.is_some() || next < end;
        if read.len() >= enough || !positions.iter().any(open) {
            read.truncate(enough);
            return Ok(Value::List(std::mem::take(read)));
        }
        fetch(connection, &topic, &mut positions, read).await?;
    }
}

async fn fetch(
    connection: &mut Connection,
    topic: &str,
    positions: &mut [(i32, i64, i64)],
    read: &mut Vec<Value>,
) -> Result<(), Failure> {
    let partition = |(partition, next, _): &(i32, i64, i64)| {
        fetch_request::FetchPartition::default()
            .with_partition(*partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(*next)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(FETCH_MAX)
    };
    let asked = fetch_request::FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(positions.iter().map(partition).collect());
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(POLL_MS)
        .with_min_bytes(1)
        .with_max_bytes(FETCH_MAX)
        .with_session_epoch(-1)
        .with_topics(vec![asked]);
    let answer = connection.ask(ApiKey::Fetch, 11, request.into()).await?;
    let ResponseKind::Fetch(answer) = answer else { return Err(Failure::usage("no answer to Fetch")) };
    if answer.error_code != 0 {
        return Err(Failure::code(answer.error_code, "consume"));
    }
    for data in answer.responses.iter().flat_map(|t| &t.partitions) {
        if data.error_code != 0 {
            return Err(Failure::code(data.error_code, "consume"));
        }
        let Some(position) = positions.iter_mut().find(|(p, ..)| *p == data.partition_index) else {
            continue;
        };
        let found = records::decode_all(&data.records.clone().unwrap_or_default());
        for record in found.map_err(|error| Failure::usage(error.to_string()))? {
            // A batch is sent whole: its first records may lie before the position.
            if record.offset < position.1 {
                continue;
            }
            position.1 = record.offset + 1;
            let Value::Map(mut fields) = record_value(&record) else { continue };
            fields.insert(0, ("partition".into(), Value::Int(position.0.into())));
            fields.insert(0, ("topic".into(), Value::text(topic)));
            read.push(Value::Map(fields));
        }
    }
    Ok(())
}

async fn offsets(connection: &mut Connection, call: &StepCall) -> Result<Value, Failure> {
    let group = text(call, "group");
    let mut rows = Vec::new();
    if let Some(topic) = text(call, "topic") {
        for partition in 0..connection.partitions(&topic).await? {
            let first = connection.offset(&topic, partition, -2).await?;
            let next = connection.offset(&topic, partition, -1).await?;
            rows.push((topic.clone(), partition, Some((first, next)), None));
        }
    } else if group.is_none() {
        return Err(Failure::usage("offsets wants a topic or a group"));
    }
    if let Some(group) = group {
        let request = OffsetFetchRequest::default().with_group_id(GroupId(group.into())).with_topics(None);
        let answer = connection.ask(ApiKey::OffsetFetch, 5, request.into()).await?;
        let ResponseKind::OffsetFetch(answer) = answer else {
            return Err(Failure::usage("no answer to OffsetFetch"));
        };
        if answer.error_code != 0 {
            return Err(Failure::code(answer.error_code, "offsets"));
        }
        for topic in &answer.topics {
            for p in &topic.partitions {
                let name = topic.name.to_string();
                match rows.iter_mut().find(|(t, partition, ..)| *t == name && *partition == p.partition_index)
                {
                    Some(row) => row.3 = Some(p.committed_offset),
                    None if text(call, "topic").is_none() => {
                        rows.push((name, p.partition_index, None, Some(p.committed_offset)));
                    }
                    None => {}
                }
            }
        }
    }
    let row = |(topic, partition, ends, committed): (String, i32, Option<(i64, i64)>, Option<i64>)| {
        let int = |n: Option<i64>| n.map_or(Value::Null, Value::Int);
        Value::map([
            ("topic", Value::text(topic)),
            ("partition", Value::Int(partition.into())),
            ("first", int(ends.map(|(first, _)| first))),
            ("next", int(ends.map(|(_, next)| next))),
            ("committed", int(committed)),
        ])
    };
    Ok(Value::List(rows.into_iter().map(row).collect()))
}

/// Asks a broker whether it serves: ApiVersions, then metadata with a broker in it.
///
/// # Errors
/// When it does not.
pub async fn ready(stream: Stream) -> Result<(), ProtocolError> {
    let mut connection = Connection::new(stream, Time::default());
    let not_yet = |what: &str| Err(ProtocolError::Malformed(format!("not ready: {what}")));
    match connection.ask(ApiKey::ApiVersions, 0, ApiVersionsRequest::default().into()).await? {
        ResponseKind::ApiVersions(answer) if answer.error_code == 0 => {}
        _ => return not_yet("ApiVersions"),
    }
    let request =
        MetadataRequest::default().with_topics(Some(Vec::new())).with_allow_auto_topic_creation(false);
    match connection.ask(ApiKey::Metadata, 7, request.into()).await? {
        ResponseKind::Metadata(answer) if !answer.brokers.is_empty() => Ok(()),
        _ => not_yet("no broker in its metadata"),
    }
}

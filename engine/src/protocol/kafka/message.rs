//! Messages as [`Value`]s: what a request asks, what a response says, and responses from values.
//!
//! Contract: proxy and server describe requests with the same function, so a recorded request and a
//! live one of the same behaviour have equal stable values. How records were cut into batches, which
//! compression was used, offsets, producer ids and sequence numbers are volatile; records, their
//! topics, partitions, keys, headers and timestamps are not. Topics and partitions are listed in
//! order of name and number, records in order of sending.
//! Not modelled: responses of group membership are not rebuilt from values; the server answers
//! those itself.

use super::codec::Head;
use super::records::{self, Record};
use super::rules;
use crate::link::{CLIENT, Request};
use bytes::Bytes;
use faultbox_bundle_format::{Class, Value};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest,
    FetchResponse, OffsetFetchResponse, ProduceRequest, ProduceResponse, RequestKind, ResponseKind,
};
use std::collections::BTreeSet;

/// What a request is to rules, journal and matching.
pub fn describe(head: &Head, kind: &RequestKind) -> Request {
    let name = head.name();
    let (class, works, mutating, repeatable) = match kind {
        RequestKind::Produce(_) => (Class::Work, true, true, true),
        RequestKind::Fetch(_) => (Class::Ambient, true, false, false),
        RequestKind::CreateTopics(_) | RequestKind::DeleteTopics(_) => (Class::Work, false, true, true),
        RequestKind::Metadata(_) | RequestKind::Heartbeat(_) | RequestKind::OffsetCommit(_) => {
            (Class::Ambient, false, false, true)
        }
        _ => (Class::Control, false, false, true),
    };
    let (topics, groups) = (topics_of(kind), groups_of(kind));
    let names = if topics.is_empty() { &groups } else { &topics };
    let key = match (works, names.is_empty()) {
        (_, true) | (false, _) if !matches!(class, Class::Work) => name.clone(),
        (_, true) => name.clone(),
        _ => format!("{name} {}", names.join(",")),
    };
    let mut fields = vec![
        ("api", Value::text(name.clone())),
        ("version", Value::Int(head.version.into()).volatile()),
        ("client", head.client.clone().map_or(Value::Null, Value::Text).volatile()),
    ];
    fields.extend(request_fields(kind, &topics, &groups));
    Request {
        operation: name.clone().into(),
        key,
        fields: vec![
            (rules::DISTURBED_BY, rules::disturbances_of(&name, &groups)),
            (CLIENT, head.client.clone().into_iter().collect()),
            ("api", vec![name]),
            ("topic", topics),
            ("group", groups),
        ],
        class,
        works,
        mutating,
        repeatable,
        body: Value::map(fields),
    }
}

/// What a request is that is forwarded without being understood.
pub fn opaque(head: &Head, frame: &Bytes) -> Request {
    let name = head.name();
    Request {
        operation: name.clone().into(),
        key: name.clone(),
        fields: vec![("api", vec![name.clone()])],
        class: Class::Control,
        works: false,
        mutating: false,
        repeatable: true,
        body: Value::map([
            ("api", Value::text(name)),
            ("version", Value::Int(head.version.into()).volatile()),
            ("frame", Value::Bytes(frame.to_vec()).volatile()),
        ]),
    }
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Topics that a rule's `topic=` sees: those of requests that move records or make topics. (A rule
/// on a topic is about its records; metadata and offsets are matched by `api=`.)
fn topics_of(kind: &RequestKind) -> Vec<String> {
    match kind {
        RequestKind::Produce(r) => sorted(r.topic_data.iter().map(|t| t.name.to_string())),
        RequestKind::Fetch(r) => sorted(r.topics.iter().map(|t| t.topic.to_string())),
        RequestKind::CreateTopics(r) => sorted(r.topics.iter().map(|t| t.name.to_string())),
        RequestKind::DeleteTopics(r) => {
            let named = r.topics.iter().filter_map(|t| t.name.as_ref());
            sorted(named.chain(&r.topic_names).map(|name| name.to_string()))
        }
        _ => Vec::new(),
    }
}

fn groups_of(kind: &RequestKind) -> Vec<String> {
    match kind {
        RequestKind::JoinGroup(r) => vec![r.group_id.to_string()],
        RequestKind::SyncGroup(r) => vec![r.group_id.to_string()],
        RequestKind::Heartbeat(r) => vec![r.group_id.to_string()],
        RequestKind::LeaveGroup(r) => vec![r.group_id.to_string()],
        RequestKind::OffsetCommit(r) => vec![r.group_id.to_string()],
        RequestKind::OffsetFetch(r) if r.groups.is_empty() => vec![r.group_id.to_string()],
        RequestKind::OffsetFetch(r) => sorted(r.groups.iter().map(|g| g.group_id.to_string())),
        RequestKind::DeleteGroups(r) => sorted(r.groups_names.iter().map(|g| g.to_string())),
        RequestKind::DescribeGroups(r) => sorted(r.groups.iter().map(|g| g.to_string())),
        RequestKind::FindCoordinator(r) if r.key_type == 0 => {
            let keys =
                r.coordinator_keys.iter().chain(Some(&r.key).filter(|_| r.coordinator_keys.is_empty()));
            sorted(keys.map(|key| key.to_string()))
        }
        _ => Vec::new(),
    }
}

fn request_fields(kind: &RequestKind, topics: &[String], groups: &[String]) -> Vec<(&'static str, Value)> {
    let names = |names: &[String]| Value::List(names.iter().map(|n| Value::text(n.clone())).collect());
    match kind {
        RequestKind::Produce(request) => vec![
            ("acks", Value::Int(request.acks.into())),
            (
                "transactional_id",
                request.transactional_id.as_ref().map_or(Value::Null, |id| Value::text(id.to_string())),
            ),
            ("timeout_ms", Value::Int(request.timeout_ms.into()).volatile()),
            ("topics", produced(request)),
        ],
        RequestKind::Fetch(request) => vec![
            ("max_wait_ms", Value::Int(request.max_wait_ms.into()).volatile()),
            ("isolation_level", Value::Int(request.isolation_level.into()).volatile()),
            ("topics", fetched(request)),
        ],
        RequestKind::Metadata(request) => {
            let asked = request.topics.as_ref().map(|topics| {
                let names = topics.iter().filter_map(|t| t.name.as_ref()).map(|name| name.to_string());
                sorted(names).into_iter().map(Value::Text).collect()
            });
            vec![("topics", asked.map_or(Value::Null, Value::List))]
        }
        RequestKind::CreateTopics(request) => {
            let one = |t: &CreatableTopic| {
                let config = |c: &kafka_protocol::messages::create_topics_request::CreatableTopicConfig| {
                    let value = c.value.as_ref().map_or(Value::Null, |v| Value::text(v.to_string()));
                    (c.name.to_string(), value)
                };
                Value::map([
                    ("topic", Value::text(t.name.to_string())),
                    ("partitions", Value::Int(t.num_partitions.into())),
                    ("replication_factor", Value::Int(t.replication_factor.into())),
                    ("configs", Value::map(t.configs.iter().map(config))),
                ])
            };
            vec![
                ("topics", Value::List(request.topics.iter().map(one).collect())),
                ("validate_only", Value::Bool(request.validate_only)),
            ]
        }
        RequestKind::DeleteTopics(_) => vec![("topics", names(topics))],
        RequestKind::ListOffsets(request) => {
            let mut asked = Vec::new();
            for topic in &request.topics {
                for partition in &topic.partitions {
                    asked.push(Value::map([
                        ("topic", Value::text(topic.name.to_string())),
                        ("partition", Value::Int(partition.partition_index.into())),
                        ("timestamp", Value::Int(partition.timestamp)),
                    ]));
                }
            }
            vec![("offsets", Value::List(asked))]
        }
        RequestKind::OffsetCommit(request) => {
            let mut offsets = Vec::new();
            for topic in &request.topics {
                for partition in &topic.partitions {
                    offsets.push(Value::map([
                        ("topic", Value::text(topic.name.to_string())),
                        ("partition", Value::Int(partition.partition_index.into())),
                        ("offset", Value::Int(partition.committed_offset)),
                    ]));
                }
            }
            vec![("groups", names(groups)), ("offsets", Value::List(offsets).volatile())]
        }
        _ if groups.is_empty() => Vec::new(),
        _ => vec![("groups", names(groups))],
    }
}

fn produced(request: &ProduceRequest) -> Value {
    let mut topics: Vec<_> = request.topic_data.iter().collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let topic = |t: &&TopicProduceData| {
        let mut partitions: Vec<_> = t.partition_data.iter().collect();
        partitions.sort_by_key(|p| p.index);
        let partitions = partitions.iter().map(|p| {
            let bytes = p.records.clone().unwrap_or_default();
            Value::map([
                ("partition", Value::Int(p.index.into())),
                ("records", records_value(&bytes)),
                ("batches", batches_value(&bytes).volatile()),
            ])
        });
        Value::map([
            ("topic", Value::text(t.name.to_string())),
            ("partitions", Value::List(partitions.collect())),
        ])
    };
    Value::List(topics.iter().map(topic).collect())
}

fn fetched(request: &FetchRequest) -> Value {
    let mut topics: Vec<_> = request.topics.iter().collect();
    topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    let topic = |t: &&FetchTopic| {
        let mut partitions: Vec<_> = t.partitions.iter().collect();
        partitions.sort_by_key(|p| p.partition);
        let partitions = partitions.iter().map(|p| {
            Value::map([
                ("partition", Value::Int(p.partition.into())),
                ("offset", Value::Int(p.fetch_offset).volatile()),
            ])
        });
        Value::map([
            ("topic", Value::text(t.topic.to_string())),
            ("partitions", Value::List(partitions.collect())),
        ])
    };
    Value::List(topics.iter().map(topic).collect())
}

/// The request that [`describe`] said, its records in one batch a partition.
pub fn produce_request(value: &Value) -> ProduceRequest {
    let partition = |p: &Value| {
        PartitionProduceData::default()
            .with_index(small(p, "partition", 0))
            .with_records(Some(records_from(p.get("records"))))
    };
    let topic = |t: &Value| {
        TopicProduceData::default()
            .with_name(super::topic_name(&text(t, "topic")))
            .with_partition_data(list(t, "partitions").iter().map(partition).collect())
    };
    ProduceRequest::default()
        .with_acks(small(value, "acks", -1))
        .with_timeout_ms(small(value, "timeout_ms", 0))
        .with_topic_data(list(value, "topics").iter().map(topic).collect())
}

/// The request that [`describe`] said.
pub fn fetch_request(value: &Value) -> FetchRequest {
    let partition = |p: &Value| {
        FetchPartition::default()
            .with_partition(small(p, "partition", 0))
            .with_fetch_offset(int(p, "offset"))
            .with_partition_max_bytes(1 << 20)
    };
    let topic = |t: &Value| {
        FetchTopic::default()
            .with_topic(super::topic_name(&text(t, "topic")))
            .with_partitions(list(t, "partitions").iter().map(partition).collect())
    };
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(small(value, "max_wait_ms", 0))
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_isolation_level(small(value, "isolation_level", 0))
        .with_session_epoch(-1)
        .with_topics(list(value, "topics").iter().map(topic).collect())
}

/// The request that [`describe`] said, without its configuration.
pub fn create_topics_request(value: &Value) -> CreateTopicsRequest {
    let topic = |t: &Value| {
        CreatableTopic::default()
            .with_name(super::topic_name(&text(t, "topic")))
            .with_num_partitions(small(t, "partitions", -1))
            .with_replication_factor(small(t, "replication_factor", -1))
    };
    CreateTopicsRequest::default()
        .with_topics(list(value, "topics").iter().map(topic).collect())
        .with_validate_only(value.get("validate_only").and_then(Value::as_bool).unwrap_or(false))
}

/// The request that [`describe`] said.
pub fn delete_topics_request(value: &Value) -> DeleteTopicsRequest {
    let names = list(value, "topics").iter().filter_map(Value::as_text);
    DeleteTopicsRequest::default().with_topic_names(names.map(super::topic_name).collect())
}

fn batches_value(bytes: &Bytes) -> Value {
    let batches = records::batches(bytes).unwrap_or_default();
    let one = |batch: &records::Batch| {
        Value::map([
            ("records", Value::Int(batch.count.into())),
            ("compression", Value::text(batch.compression())),
            ("producer_id", Value::Int(batch.producer_id)),
            ("producer_epoch", Value::Int(batch.producer_epoch.into())),
            ("base_sequence", Value::Int(batch.base_sequence.into())),
        ])
    };
    Value::List(batches.iter().map(one).collect())
}

/// Records as a list; bytes where they cannot be read.
pub fn records_value(bytes: &Bytes) -> Value {
    match records::decode_all(bytes) {
        Ok(records) => Value::List(records.iter().map(record_value).collect()),
        Err(_) => Value::Bytes(bytes.to_vec()),
    }
}

/// One record.
pub fn record_value(record: &Record) -> Value {
    let some = |bytes: &Option<Bytes>| bytes.as_ref().map_or(Value::Null, |b| Value::text_or_bytes(b));
    let header =
        |(name, value): &(Bytes, Option<Bytes>)| Value::List(vec![Value::text_or_bytes(name), some(value)]);
    Value::map([
        ("offset", Value::Int(record.offset).volatile()),
        ("timestamp", Value::Int(record.timestamp)),
        ("key", some(&record.key)),
        ("value", some(&record.value)),
        ("headers", Value::List(record.headers.iter().map(header).collect())),
    ])
}

/// What [`records_value`] said.
fn records_from(value: Option<&Value>) -> Bytes {
    match value {
        Some(Value::Bytes(raw)) => Bytes::copy_from_slice(raw),
        Some(Value::List(records)) => records::encode(&records.iter().map(record_from).collect::<Vec<_>>()),
        _ => Bytes::new(),
    }
}

fn record_from(value: &Value) -> Record {
    let some = |v: Option<&Value>| v.and_then(Value::as_bytes).map(Bytes::copy_from_slice);
    let headers = value.get("headers").and_then(Value::as_list).unwrap_or_default();
    let header = |pair: &Value| {
        let pair = pair.as_list()?;
        Some((some(pair.first())?, some(pair.get(1))))
    };
    Record {
        offset: int(value, "offset"),
        timestamp: int(value, "timestamp"),
        key: some(value.get("key")),
        value: some(value.get("value")),
        headers: headers.iter().filter_map(header).collect(),
    }
}

fn int(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_int).unwrap_or_default()
}

fn small<T: TryFrom<i64>>(value: &Value, name: &str, or: T) -> T {
    value.get(name).and_then(Value::as_int).and_then(|n| T::try_from(n).ok()).unwrap_or(or)
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_text).unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_list).unwrap_or_default()
}

/// The name of an error code as the protocol writes it (`NOT_LEADER_OR_FOLLOWER`).
pub fn error_name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "NONE".into(),
        Some(ResponseError::Unknown(code)) => format!("ERROR_{code}"),
        Some(error) => {
            let mut name = String::new();
            for letter in error.to_string().chars() {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.extend(letter.to_uppercase());
            }
            name
        }
    }
}

fn error_fields(code: i16) -> [(&'static str, Value); 2] {
    [("error_code", Value::Int(code.into())), ("error", Value::text(error_name(code)))]
}

/// What a response says.
pub fn response_value(kind: &ResponseKind) -> Value {
    match kind {
        ResponseKind::Produce(response) => produce_value(response),
        ResponseKind::Fetch(response) => fetch_value(response),
        ResponseKind::Metadata(response) => {
            let topic = |t: &kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
                let [code, name] = error_fields(t.error_code);
                let topic = t.name.as_ref().map_or(Value::Null, |n| Value::text(n.to_string()));
                Value::map([
                    ("topic", topic),
                    ("partitions", Value::Int(t.partitions.len() as i64)),
                    code,
                    name,
                ])
            };
            Value::map([
                ("topics", Value::List(response.topics.iter().map(topic).collect())),
                ("brokers", Value::Int(response.brokers.len() as i64)),
            ])
        }
        ResponseKind::CreateTopics(response) => {
            let topic = |t: &CreatableTopicResult| {
                let [code, name] = error_fields(t.error_code);
                let message = t.error_message.as_ref().map_or(Value::Null, |m| Value::text(m.to_string()));
                let partitions = Value::Int(t.num_partitions.into()).volatile();
                Value::map([
                    ("topic", Value::text(t.name.to_string())),
                    ("partitions", partitions),
                    code,
                    name,
                    ("message", message),
                ])
            };
            Value::map([("topics", Value::List(response.topics.iter().map(topic).collect()))])
        }
        ResponseKind::DeleteTopics(response) => {
            let topic = |t: &DeletableTopicResult| {
                let [code, name] = error_fields(t.error_code);
                let topic = t.name.as_ref().map_or(Value::Null, |n| Value::text(n.to_string()));
                Value::map([("topic", topic), code, name])
            };
            Value::map([("topics", Value::List(response.responses.iter().map(topic).collect()))])
        }
        ResponseKind::ListOffsets(response) => {
            let mut offsets = Vec::new();
            for topic in &response.topics {
                for p in &topic.partitions {
                    let at = Offset {
                        topic: topic.name.to_string(),
                        partition: p.partition_index,
                        offset: p.offset,
                        ..Offset::default()
                    };
                    offsets.push(Offset { timestamp: p.timestamp, error_code: p.error_code, ..at }.value());
                }
            }
            Value::map([("offsets", Value::List(offsets))])
        }
        ResponseKind::OffsetFetch(response) => offset_fetch_value(response),
        other => Value::map(error_fields(first_error(other))),
    }
}

/// What is said about the offset of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offset {
    /// The group whose commit it is, else empty.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Timestamp of the record there.
    pub timestamp: i64,
    /// What was committed with it.
    pub metadata: String,
    /// The error.
    pub error_code: i16,
}

impl Offset {
    fn value(&self) -> Value {
        let [code, name] = error_fields(self.error_code);
        Value::map([
            ("group", Value::text(self.group.clone())),
            ("topic", Value::text(self.topic.clone())),
            ("partition", Value::Int(self.partition.into())),
            ("offset", Value::Int(self.offset).volatile()),
            ("timestamp", Value::Int(self.timestamp).volatile()),
            ("metadata", Value::text(self.metadata.clone()).volatile()),
            code,
            name,
        ])
    }
}

/// The offsets that a response of ListOffsets or OffsetFetch says.
pub fn offsets(value: &Value) -> Vec<Offset> {
    let one = |v: &Value| Offset {
        group: text(v, "group"),
        topic: text(v, "topic"),
        partition: small(v, "partition", 0),
        offset: small(v, "offset", -1),
        timestamp: small(v, "timestamp", -1),
        metadata: text(v, "metadata"),
        error_code: small(v, "error_code", 0),
    };
    list(value, "offsets").iter().map(one).collect()
}

fn offset_fetch_value(response: &OffsetFetchResponse) -> Value {
    let mut offsets = Vec::new();
    for t in &response.topics {
        for p in &t.partitions {
            let metadata = p.metadata.as_ref().map(|m| m.to_string()).unwrap_or_default();
            let at = Offset {
                topic: t.name.to_string(),
                partition: p.partition_index,
                metadata,
                ..Offset::default()
            };
            offsets.push(Offset { offset: p.committed_offset, error_code: p.error_code, ..at }.value());
        }
    }
    for g in &response.groups {
        for t in &g.topics {
            for p in &t.partitions {
                let metadata = p.metadata.as_ref().map(|m| m.to_string()).unwrap_or_default();
                let at = Offset {
                    group: g.group_id.to_string(),
                    topic: t.name.to_string(),
                    metadata,
                    ..Offset::default()
                };
                let at = Offset { partition: p.partition_index, offset: p.committed_offset, ..at };
                offsets.push(Offset { error_code: p.error_code, ..at }.value());
            }
        }
    }
    let [code, name] = error_fields(first_error(&ResponseKind::OffsetFetch(response.clone())));
    Value::map([code, name, ("offsets", Value::List(offsets))])
}

/// The first error code of a response about membership and offsets.
fn first_error(kind: &ResponseKind) -> i16 {
    fn partitions(mut codes: impl Iterator<Item = i16>) -> i16 {
        codes.find(|code| *code != 0).unwrap_or(0)
    }
    match kind {
        ResponseKind::ApiVersions(r) => r.error_code,
        ResponseKind::FindCoordinator(r) if r.error_code != 0 => r.error_code,
        ResponseKind::FindCoordinator(r) => partitions(r.coordinators.iter().map(|c| c.error_code)),
        ResponseKind::JoinGroup(r) => r.error_code,
        ResponseKind::SyncGroup(r) => r.error_code,
        ResponseKind::Heartbeat(r) => r.error_code,
        ResponseKind::LeaveGroup(r) => r.error_code,
        ResponseKind::InitProducerId(r) => r.error_code,
        ResponseKind::OffsetFetch(r) if r.error_code != 0 => r.error_code,
        ResponseKind::OffsetFetch(r) => partitions(r.groups.iter().map(|g| g.error_code)),
        ResponseKind::OffsetCommit(r) => {
            partitions(r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)))
        }
        ResponseKind::ListOffsets(r) => {
            partitions(r.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)))
        }
        _ => 0,
    }
}

fn produce_value(response: &ProduceResponse) -> Value {
    let mut topics: Vec<_> = response.responses.iter().collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let partition = |p: &&PartitionProduceResponse| {
        let [code, name] = error_fields(p.error_code);
        let message = p.error_message.as_ref().map_or(Value::Null, |m| Value::text(m.to_string()));
        Value::map([
            ("partition", Value::Int(p.index.into())),
            code,
            name,
            ("message", message),
            ("base_offset", Value::Int(p.base_offset).volatile()),
            ("log_append_time_ms", Value::Int(p.log_append_time_ms).volatile()),
            ("log_start_offset", Value::Int(p.log_start_offset).volatile()),
        ])
    };
    let topic = |t: &&TopicProduceResponse| {
        let mut partitions: Vec<_> = t.partition_responses.iter().collect();
        partitions.sort_by_key(|p| p.index);
        let partitions = partitions.iter().map(partition).collect();
        Value::map([("topic", Value::text(t.name.to_string())), ("partitions", Value::List(partitions))])
    };
    Value::map([("topics", Value::List(topics.iter().map(topic).collect()))])
}

/// The response that [`response_value`] said.
pub fn produce_response(value: &Value) -> ProduceResponse {
    let partition = |p: &Value| {
        let message = p.get("message").and_then(Value::as_text).map(|m| m.to_owned().into());
        PartitionProduceResponse::default()
            .with_index(small(p, "partition", 0))
            .with_error_code(small(p, "error_code", -1))
            .with_error_message(message)
            .with_base_offset(small(p, "base_offset", -1))
            .with_log_append_time_ms(small(p, "log_append_time_ms", -1))
            .with_log_start_offset(small(p, "log_start_offset", -1))
    };
    let topic = |t: &Value| {
        TopicProduceResponse::default()
            .with_name(super::topic_name(&text(t, "topic")))
            .with_partition_responses(list(t, "partitions").iter().map(partition).collect())
    };
    ProduceResponse::default().with_responses(list(value, "topics").iter().map(topic).collect())
}

fn fetch_value(response: &FetchResponse) -> Value {
    let mut topics: Vec<_> = response.responses.iter().collect();
    topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    let partition = |p: &&PartitionData| {
        let [code, name] = error_fields(p.error_code);
        Value::map([
            ("partition", Value::Int(p.partition_index.into())),
            code,
            name,
            ("high_watermark", Value::Int(p.high_watermark).volatile()),
            ("log_start_offset", Value::Int(p.log_start_offset).volatile()),
            ("records", records_value(&p.records.clone().unwrap_or_default())),
        ])
    };
    let topic = |t: &&FetchableTopicResponse| {
        let mut partitions: Vec<_> = t.partitions.iter().collect();
        partitions.sort_by_key(|p| p.partition_index);
        let partitions = partitions.iter().map(partition).collect();
        Value::map([("topic", Value::text(t.topic.to_string())), ("partitions", Value::List(partitions))])
    };
    let [code, name] = error_fields(response.error_code);
    Value::map([code, name, ("topics", Value::List(topics.iter().map(topic).collect()))])
}

/// The response that [`response_value`] said.
pub fn fetch_response(value: &Value) -> FetchResponse {
    let partition = |p: &Value| {
        let records = records_from(p.get("records"));
        PartitionData::default()
            .with_partition_index(small(p, "partition", 0))
            .with_error_code(small(p, "error_code", -1))
            .with_high_watermark(small(p, "high_watermark", -1))
            .with_last_stable_offset(small(p, "high_watermark", -1))
            .with_log_start_offset(small(p, "log_start_offset", -1))
            .with_aborted_transactions(None)
            .with_preferred_read_replica((-1).into())
            .with_records(Some(records))
    };
    let topic = |t: &Value| {
        FetchableTopicResponse::default()
            .with_topic(super::topic_name(&text(t, "topic")))
            .with_partitions(list(t, "partitions").iter().map(partition).collect())
    };
    FetchResponse::default()
        .with_error_code(small(value, "error_code", 0))
        .with_responses(list(value, "topics").iter().map(topic).collect())
}

/// Whether a fetch brought anything: records or an error.
pub fn brings_something(response: &FetchResponse) -> bool {
    let partitions = response.responses.iter().flat_map(|t| &t.partitions);
    let something =
        |p: &PartitionData| p.error_code != 0 || p.records.as_ref().is_some_and(|r| !r.is_empty());
    response.error_code != 0 || partitions.into_iter().any(something)
}

/// The response that [`response_value`] said.
pub fn create_topics_response(value: &Value) -> CreateTopicsResponse {
    let topic = |t: &Value| {
        let message = t.get("message").and_then(Value::as_text).map(|m| m.to_owned().into());
        CreatableTopicResult::default()
            .with_name(super::topic_name(&text(t, "topic")))
            .with_error_code(small(t, "error_code", -1))
            .with_error_message(message)
            .with_num_partitions(small(t, "partitions", -1))
            .with_replication_factor(1)
    };
    CreateTopicsResponse::default().with_topics(list(value, "topics").iter().map(topic).collect())
}

/// The response that [`response_value`] said.
pub fn delete_topics_response(value: &Value) -> DeleteTopicsResponse {
    let topic = |t: &Value| {
        DeletableTopicResult::default()
            .with_name(Some(super::topic_name(&text(t, "topic"))))
            .with_error_code(small(t, "error_code", -1))
    };
    DeleteTopicsResponse::default().with_responses(list(value, "topics").iter().map(topic).collect())
}

/// Partition counts of the topics in a recorded Metadata response.
pub fn partition_counts(value: &Value) -> Vec<(String, i32)> {
    let topic = |t: &Value| (text(t, "topic"), small(t, "partitions", 0));
    list(value, "topics").iter().map(topic).filter(|(name, count)| !name.is_empty() && *count > 0).collect()
}

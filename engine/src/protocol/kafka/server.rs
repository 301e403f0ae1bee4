//! The server side of a connection: framing, handshake, metadata, groups; records come from a
//! [`Backend`] (a conversation, or the stand-in's log).
//!
//! Contract: requests of one connection are answered one after the other, in order, as brokers do;
//! a client that goes away ends whatever is being waited for. ApiVersions says exactly what is
//! answered; a request beyond it gets `UNSUPPORTED_VERSION` where it can be told and its connection
//! closed where not. Transactions are refused with `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`, which
//! clients take as final.
//! Not modelled: SASL, ACLs, quotas, fetch sessions (every fetch is a full one), several brokers.

use super::codec::{self, Decoded, Framer, Head};
use super::groups::{Committed, Groups, Join};
use super::{message, rules, shape, topic_name};
use crate::link::{BoxFuture, Request, Stream};
use crate::protocol::ProtocolError;
use bytes::Bytes;
use faultbox_bundle_format::Value;
use kafka_protocol::ResponseError as E;
use kafka_protocol::messages::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is served: (api key, lowest, highest version). Metadata ends before topic ids.
pub const SERVED: &[(i16, i16, i16)] = &[
    (0, 3, 9),
    (1, 4, 12),
    (2, 1, 7),
    (3, 0, 9),
    (8, 2, 8),
    (9, 1, 8),
    (10, 0, 4),
    (11, 0, 9),
    (12, 0, 4),
    (13, 0, 5),
    (14, 0, 5),
    (15, 0, 5),
    (16, 0, 4),
    (18, 0, 3),
    (19, 2, 5),
    (20, 1, 5),
    (22, 0, 4),
    (42, 0, 2),
    (60, 0, 1),
];

/// The one broker's number.
pub const BROKER: i32 = 1;
/// The cluster's name.
const CLUSTER: &str = "faultbox";

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// This.
    Send(Box<ResponseKind>),
    /// Nothing (`acks=0`).
    Nothing,
    /// The connection is cut.
    Cut,
}

impl Reply {
    /// An answer.
    pub fn send(kind: impl Into<ResponseKind>) -> Self {
        Reply::Send(Box::new(kind.into()))
    }
}

/// One request and where it came from.
pub struct Call {
    /// Its front.
    pub head: Head,
    /// What it asks.
    pub kind: RequestKind,
    /// Its connection.
    pub connection: u64,
}

impl Call {
    /// What it is to journal and matching.
    pub fn describe(&self) -> Request {
        message::describe(&self.head, &self.kind)
    }
}

/// A topic as metadata tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// 0, or why there is none.
    pub error: i16,
}

/// Where records and topics are.
pub trait Backend: Send + Sync {
    /// `host`, `port` at which clients reach this broker.
    fn advertised(&self) -> (String, i32);
    /// The group coordinator.
    fn groups(&self) -> &Groups;
    /// These topics, made where they may be; all without names.
    fn topics<'a>(
        &'a self,
        call: &'a Call,
        names: Option<Vec<String>>,
        create: bool,
    ) -> BoxFuture<'a, Vec<Topic>>;
    /// Produce.
    fn produce<'a>(&'a self, call: &'a Call, request: &'a ProduceRequest) -> BoxFuture<'a, Reply>;
    /// Fetch, long poll included.
    fn fetch<'a>(&'a self, call: &'a Call, request: &'a FetchRequest) -> BoxFuture<'a, Reply>;
    /// Timestamp and offset of the first record at or after a timestamp (-1: the end, -2: the
    /// beginning), per partition asked.
    fn list_offsets<'a>(
        &'a self,
        call: &'a Call,
        asked: Vec<(String, i32, i64)>,
    ) -> BoxFuture<'a, Vec<message::Offset>>;
    /// Committed offsets; all of the group without partitions.
    fn committed<'a>(
        &'a self,
        call: &'a Call,
        group: String,
        asked: Option<Vec<(String, i32)>>,
    ) -> BoxFuture<'a, Vec<message::Offset>> {
        let _ = call;
        Box::pin(async move { self.groups().offsets(&group, asked) })
    }
    /// CreateTopics.
    fn create_topics<'a>(&'a self, call: &'a Call, request: &'a CreateTopicsRequest) -> BoxFuture<'a, Reply>;
    /// DeleteTopics.
    fn delete_topics<'a>(&'a self, call: &'a Call, names: Vec<String>) -> BoxFuture<'a, Reply>;
    /// A number for an idempotent producer.
    fn producer_id(&self) -> i64;
    /// What happens around an answer that the server makes itself: journal, rules.
    fn around<'a>(&'a self, call: &'a Call, answer: BoxFuture<'a, Reply>) -> BoxFuture<'a, Reply> {
        let _ = call;
        answer
    }
}

impl Groups {
    /// Committed offsets as OffsetFetch tells them (-1: none).
    pub fn offsets(&self, group: &str, asked: Option<Vec<(String, i32)>>) -> Vec<message::Offset> {
        let asked = asked.unwrap_or_else(|| self.committed_partitions(group));
        let one = |(topic, partition): (String, i32)| {
            let (offset, metadata) = self.committed(group, &topic, partition).unwrap_or((-1, String::new()));
            message::Offset {
                group: group.to_owned(),
                topic,
                partition,
                offset,
                metadata,
                ..Default::default()
            }
        };
        asked.into_iter().map(one).collect()
    }
}

/// Serves one connection to its end.
///
/// # Errors
/// When the network fails, the bytes are not Kafka's, or the backend cuts the connection.
pub async fn run(client: Stream, connection: u64, backend: Arc<dyn Backend>) -> Result<(), ProtocolError> {
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut framer = Framer::default();
    loop {
        let frame = match framer.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => match reader.read_buf(framer.buffer()).await? {
                0 => return Ok(()),
                _ => continue,
            },
            Err(error) => return Err(ProtocolError::Malformed(error.to_string())),
        };
        let (head, decoded) =
            codec::decode_request(&frame).map_err(|error| ProtocolError::Malformed(error.to_string()))?;
        // The client may send more meanwhile, or go away.
        let watch = async { while reader.read_buf(framer.buffer()).await.is_ok_and(|n| n > 0) {} };
        let reply = tokio::select! {
            reply = answer(&head, decoded, connection, &*backend) => reply,
            () = watch => return Ok(()),
        };
        match reply {
            Reply::Nothing => {}
            Reply::Cut => return Err(ProtocolError::Cut),
            Reply::Send(kind) => {
                let encoded = codec::encode_response(&head, &kind);
                let bytes = encoded.map_err(|error| ProtocolError::Malformed(error.to_string()))?;
                writer.write_all(&bytes).await?;
            }
        }
    }
}

async fn answer(head: &Head, decoded: Decoded, connection: u64, backend: &dyn Backend) -> Reply {
    let served = SERVED.iter().find(|(api, ..)| *api == head.api);
    let served = served.is_some_and(|(_, min, max)| (*min..=*max).contains(&head.version));
    let kind = match decoded {
        Decoded::Known(kind) if served => *kind,
        _ if head.api == ApiKey::ApiVersions as i16 => {
            return Reply::send(api_versions().with_error_code(E::UnsupportedVersion.code()));
        }
        _ => return Reply::Cut,
    };
    let call = Call { head: head.clone(), kind, connection };
    match &call.kind {
        RequestKind::Produce(request) if request.transactional_id.is_some() => {
            Reply::send(rules::produce_error(request, NO_TRANSACTIONS, None))
        }
        RequestKind::Produce(request) => backend.produce(&call, request).await,
        RequestKind::Fetch(request) => backend.fetch(&call, request).await,
        RequestKind::CreateTopics(request) => backend.create_topics(&call, request).await,
        RequestKind::DeleteTopics(request) => {
            let states = request.topics.iter().filter_map(|t| t.name.as_ref());
            let names = states.chain(&request.topic_names).map(|n| n.to_string()).collect();
            backend.delete_topics(&call, names).await
        }
        _ => backend.around(&call, Box::pin(own(&call, backend))).await,
    }
}

const NO_TRANSACTIONS: i16 = 53;

/// What the server answers by itself.
async fn own(call: &Call, backend: &dyn Backend) -> Reply {
    let groups = backend.groups();
    match &call.kind {
        RequestKind::ApiVersions(_) => Reply::send(api_versions()),
        RequestKind::Metadata(request) => Reply::send(metadata(call, request, backend).await),
        RequestKind::DescribeCluster(_) => {
            let (host, port) = backend.advertised();
            let broker = describe_cluster_response::DescribeClusterBroker::default()
                .with_broker_id(BROKER.into())
                .with_host(host.into())
                .with_port(port);
            Reply::send(
                DescribeClusterResponse::default()
                    .with_cluster_id(CLUSTER.into())
                    .with_controller_id(BROKER.into())
                    .with_brokers(vec![broker]),
            )
        }
        RequestKind::FindCoordinator(request) => Reply::send(find_coordinator(request, backend)),
        RequestKind::InitProducerId(request) => Reply::send(match request.transactional_id {
            Some(_) => InitProducerIdResponse::default()
                .with_error_code(NO_TRANSACTIONS)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1),
            // A producer that lost track gets a new identity, which begins at sequence 0 again.
            None => InitProducerIdResponse::default().with_producer_id(backend.producer_id().into()),
        }),
        RequestKind::ListOffsets(request) => Reply::send(list_offsets(call, request, backend).await),
        RequestKind::JoinGroup(request) => Reply::send(join(call, request, groups).await),
        RequestKind::SyncGroup(request) => Reply::send(sync(request, groups).await),
        RequestKind::Heartbeat(request) => {
            let beat = groups.heartbeat(&request.group_id, request.generation_id, &request.member_id);
            Reply::send(HeartbeatResponse::default().with_error_code(beat.err().unwrap_or(0)))
        }
        RequestKind::LeaveGroup(request) => Reply::send(leave(call, request, groups)),
        RequestKind::OffsetCommit(request) => Reply::send(commit(request, groups)),
        RequestKind::OffsetFetch(request) => Reply::send(offset_fetch(call, request, backend).await),
        RequestKind::ListGroups(_) => {
            let group = |(name, kind, state): (String, String, &'static str)| {
                list_groups_response::ListedGroup::default()
                    .with_group_id(name.into_group())
                    .with_protocol_type(kind.into())
                    .with_group_state(state.into())
            };
            let groups = groups.list().into_iter().map(group).collect();
            Reply::send(ListGroupsResponse::default().with_groups(groups))
        }
        RequestKind::DescribeGroups(request) => Reply::send(describe_groups(request, groups)),
        RequestKind::DeleteGroups(request) => {
            let one = |name: &GroupId| {
                delete_groups_response::DeletableGroupResult::default()
                    .with_group_id(name.clone())
                    .with_error_code(groups.delete(name).err().unwrap_or(0))
            };
            Reply::send(
                DeleteGroupsResponse::default().with_results(request.groups_names.iter().map(one).collect()),
            )
        }
        _ => Reply::Cut,
    }
}

trait IntoGroup {
    fn into_group(self) -> GroupId;
}

impl IntoGroup for String {
    fn into_group(self) -> GroupId {
        GroupId(self.into())
    }
}

fn api_versions() -> ApiVersionsResponse {
    let api = |(key, min, max): &(i16, i16, i16)| {
        debug_assert!(shape::of(*key).is_some_and(|s| s.min <= *min && *max <= s.max));
        api_versions_response::ApiVersion::default()
            .with_api_key(*key)
            .with_min_version(*min)
            .with_max_version(*max)
    };
    ApiVersionsResponse::default().with_api_keys(SERVED.iter().map(api).collect())
}

async fn metadata(call: &Call, request: &MetadataRequest, backend: &dyn Backend) -> MetadataResponse {
    use metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
    let (host, port) = backend.advertised();
    let broker =
        MetadataResponseBroker::default().with_node_id(BROKER.into()).with_host(host.into()).with_port(port);
    let names = request.topics.as_ref().map(|topics| {
        topics.iter().filter_map(|t| t.name.as_ref()).map(|n| n.to_string()).collect::<Vec<_>>()
    });
    // In version 0 no names meant all topics.
    let names = names.filter(|names| call.head.version > 0 || !names.is_empty());
    let create = call.head.version < 4 || request.allow_auto_topic_creation;
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BROKER.into())
            .with_leader_epoch(0)
            .with_replica_nodes(vec![BROKER.into()])
            .with_isr_nodes(vec![BROKER.into()])
    };
    let topics = backend.topics(call, names, create).await.into_iter().map(|topic| {
        MetadataResponseTopic::default()
            .with_name(Some(topic_name(&topic.name)))
            .with_error_code(topic.error)
            .with_partitions((0..topic.partitions).map(partition).collect())
    });
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(CLUSTER.into()))
        .with_controller_id(BROKER.into())
        .with_topics(topics.collect())
}

fn find_coordinator(request: &FindCoordinatorRequest, backend: &dyn Backend) -> FindCoordinatorResponse {
    if request.key_type != 0 {
        let why = "transactions are not supported by this broker";
        let kind = RequestKind::FindCoordinator(request.clone());
        if let Some(ResponseKind::FindCoordinator(refused)) =
            rules::error_response(&kind, NO_TRANSACTIONS, Some(why))
        {
            return refused;
        }
    }
    let (host, port) = backend.advertised();
    if request.coordinator_keys.is_empty() {
        return FindCoordinatorResponse::default()
            .with_node_id(BROKER.into())
            .with_host(host.into())
            .with_port(port);
    }
    let one = |key: &kafka_protocol::protocol::StrBytes| {
        find_coordinator_response::Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BROKER.into())
            .with_host(host.clone().into())
            .with_port(port)
    };
    FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.iter().map(one).collect())
}

async fn list_offsets(
    call: &Call,
    request: &ListOffsetsRequest,
    backend: &dyn Backend,
) -> ListOffsetsResponse {
    use list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
    let mut asked = Vec::new();
    for topic in &request.topics {
        asked.extend(
            topic.partitions.iter().map(|p| (topic.name.to_string(), p.partition_index, p.timestamp)),
        );
    }
    let epoch = if call.head.version >= 4 { 0 } else { -1 };
    let mut topics: BTreeMap<String, Vec<ListOffsetsPartitionResponse>> = BTreeMap::new();
    for found in backend.list_offsets(call, asked).await {
        let partition = ListOffsetsPartitionResponse::default()
            .with_partition_index(found.partition)
            .with_error_code(found.error_code)
            .with_timestamp(found.timestamp)
            .with_offset(found.offset)
            .with_leader_epoch(epoch);
        topics.entry(found.topic).or_default().push(partition);
    }
    let topic = |(name, partitions): (String, Vec<_>)| {
        ListOffsetsTopicResponse::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    ListOffsetsResponse::default().with_topics(topics.into_iter().map(topic).collect())
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

async fn join(call: &Call, request: &JoinGroupRequest, groups: &Groups) -> JoinGroupResponse {
    let session = millis(request.session_timeout_ms);
    let join = Join {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(|i| i.to_string()),
        client: call.head.client.clone().unwrap_or_default(),
        session,
        rebalance: if call.head.version == 0 { session } else { millis(request.rebalance_timeout_ms) },
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.iter().map(|p| (p.name.to_string(), p.metadata.clone())).collect(),
        id_first: call.head.version >= 4,
    };
    let joined = match groups.join(join).await {
        Ok(joined) => joined,
        Err((code, member)) => {
            return JoinGroupResponse::default().with_error_code(code).with_member_id(member.into());
        }
    };
    let member = |(id, instance, said): (String, Option<String>, Bytes)| {
        join_group_response::JoinGroupResponseMember::default()
            .with_member_id(id.into())
            .with_group_instance_id(instance.map(Into::into))
            .with_metadata(said)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(joined.protocol_type.into()))
        .with_protocol_name(Some(joined.protocol.into()))
        .with_leader(joined.leader.into())
        .with_member_id(joined.member.into())
        .with_members(joined.members.into_iter().map(member).collect())
}

async fn sync(request: &SyncGroupRequest, groups: &Groups) -> SyncGroupResponse {
    let assignments =
        request.assignments.iter().map(|a| (a.member_id.to_string(), a.assignment.clone())).collect();
    match groups.sync(&request.group_id, request.generation_id, &request.member_id, assignments).await {
        Err(code) => SyncGroupResponse::default().with_error_code(code),
        Ok((kind, protocol, assignment)) => SyncGroupResponse::default()
            .with_protocol_type(Some(kind.into()))
            .with_protocol_name(Some(protocol.into()))
            .with_assignment(assignment),
    }
}

fn leave(call: &Call, request: &LeaveGroupRequest, groups: &Groups) -> LeaveGroupResponse {
    if call.head.version < 3 {
        let left = groups.leave(&request.group_id, &request.member_id, None);
        return LeaveGroupResponse::default().with_error_code(left.err().unwrap_or(0));
    }
    let one = |m: &leave_group_request::MemberIdentity| {
        let left = groups.leave(&request.group_id, &m.member_id, m.group_instance_id.as_deref());
        leave_group_response::MemberResponse::default()
            .with_member_id(m.member_id.clone())
            .with_group_instance_id(m.group_instance_id.clone())
            .with_error_code(left.err().unwrap_or(0))
    };
    LeaveGroupResponse::default().with_members(request.members.iter().map(one).collect())
}

fn commit(request: &OffsetCommitRequest, groups: &Groups) -> OffsetCommitResponse {
    use offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
    let mut offsets = Vec::new();
    for topic in &request.topics {
        offsets.extend(topic.partitions.iter().map(|p| Committed {
            group: request.group_id.to_string(),
            topic: topic.name.to_string(),
            partition: p.partition_index,
            offset: p.committed_offset,
            metadata: p.committed_metadata.as_ref().map(|m| m.to_string()).unwrap_or_default(),
        }));
    }
    let generation = request.generation_id_or_member_epoch;
    let code = groups.commit(&request.group_id, generation, &request.member_id, offsets).err().unwrap_or(0);
    let topic = |t: &offset_commit_request::OffsetCommitRequestTopic| {
        let partition = |p: &offset_commit_request::OffsetCommitRequestPartition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(p.partition_index)
                .with_error_code(code)
        };
        OffsetCommitResponseTopic::default()
            .with_name(t.name.clone())
            .with_partitions(t.partitions.iter().map(partition).collect())
    };
    OffsetCommitResponse::default().with_topics(request.topics.iter().map(topic).collect())
}

async fn offset_fetch(
    call: &Call,
    request: &OffsetFetchRequest,
    backend: &dyn Backend,
) -> OffsetFetchResponse {
    use offset_fetch_response as answer;
    let by_topic = |found: Vec<message::Offset>| {
        let mut topics: BTreeMap<String, Vec<message::Offset>> = BTreeMap::new();
        for offset in found {
            topics.entry(offset.topic.clone()).or_default().push(offset);
        }
        topics
    };
    if call.head.version < 8 {
        let asked = request.topics.as_ref().map(|topics| {
            let pairs =
                topics.iter().flat_map(|t| t.partition_indexes.iter().map(|p| (t.name.to_string(), *p)));
            pairs.collect::<Vec<_>>()
        });
        let found = by_topic(backend.committed(call, request.group_id.to_string(), asked).await);
        let topic = |(name, offsets): (String, Vec<message::Offset>)| {
            let partition = |o: message::Offset| {
                answer::OffsetFetchResponsePartition::default()
                    .with_partition_index(o.partition)
                    .with_committed_offset(o.offset)
                    .with_committed_leader_epoch(-1)
                    .with_metadata(Some(o.metadata.into()))
                    .with_error_code(o.error_code)
            };
            answer::OffsetFetchResponseTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(offsets.into_iter().map(partition).collect())
        };
        return OffsetFetchResponse::default().with_topics(found.into_iter().map(topic).collect());
    }
    let mut groups = Vec::new();
    for group in &request.groups {
        let asked = group.topics.as_ref().map(|topics| {
            let pairs =
                topics.iter().flat_map(|t| t.partition_indexes.iter().map(|p| (t.name.to_string(), *p)));
            pairs.collect::<Vec<_>>()
        });
        let found = by_topic(backend.committed(call, group.group_id.to_string(), asked).await);
        let topic = |(name, offsets): (String, Vec<message::Offset>)| {
            let partition = |o: message::Offset| {
                answer::OffsetFetchResponsePartitions::default()
                    .with_partition_index(o.partition)
                    .with_committed_offset(o.offset)
                    .with_committed_leader_epoch(-1)
                    .with_metadata(Some(o.metadata.into()))
                    .with_error_code(o.error_code)
            };
            answer::OffsetFetchResponseTopics::default()
                .with_name(topic_name(&name))
                .with_partitions(offsets.into_iter().map(partition).collect())
        };
        let topics = found.into_iter().map(topic).collect();
        let answered = answer::OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
        groups.push(answered.with_topics(topics));
    }
    OffsetFetchResponse::default().with_groups(groups)
}

fn describe_groups(request: &DescribeGroupsRequest, groups: &Groups) -> DescribeGroupsResponse {
    use describe_groups_response::{DescribedGroup, DescribedGroupMember};
    let one = |name: &GroupId| {
        let described = groups.describe(name);
        let member =
            |(id, instance, client, said, assignment): (String, Option<String>, String, Bytes, Bytes)| {
                DescribedGroupMember::default()
                    .with_member_id(id.into())
                    .with_group_instance_id(instance.map(Into::into))
                    .with_client_id(client.into())
                    .with_member_metadata(said)
                    .with_member_assignment(assignment)
            };
        DescribedGroup::default()
            .with_group_id(name.clone())
            .with_group_state(described.state.into())
            .with_protocol_type(described.protocol_type.into())
            .with_protocol_data(described.protocol.into())
            .with_members(described.members.into_iter().map(member).collect())
    };
    DescribeGroupsResponse::default().with_groups(request.groups.iter().map(one).collect())
}

/// What a response says, for whoever journals it.
pub fn reply_value(reply: &Reply) -> Option<Value> {
    match reply {
        Reply::Send(kind) => Some(message::response_value(kind)),
        Reply::Nothing | Reply::Cut => None,
    }
}

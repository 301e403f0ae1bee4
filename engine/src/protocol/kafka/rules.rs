//! Rules on Kafka: what can be matched, what can be done, and the errors on the wire.
//!
//! Contract: an error is the protocol's own: its code stands in every topic-partition of the
//! request (or in the one place that the api has for it), never a made-up status. What cannot be
//! carried out is refused when the spec is loaded.
//! Not modelled: splitting a request that carries several topics: a rule that matches one of them
//! acts on the whole request.

use super::message::error_name;
use super::shape;
use crate::fault::rule::{Effect, Fields, Matcher, Rule};
use crate::protocol::RuleProblem;
use faultbox_bundle_format::Value;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;

/// What rules can match on.
pub static MATCHERS: &[&str] = &["topic", "group", "api"];
/// What `error(...)` takes.
pub static EFFECT_PARAMETERS: &[&str] = &["code", "message"];

/// A way in which a group's coordinator disturbs its members, as the rule of that name does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturbance {
    /// The rule's name in the module `kafka`.
    pub name: &'static str,
    /// What members are answered; `None` cuts the connection instead.
    pub code: Option<&'static str>,
    /// The requests of members that it meets.
    pub apis: &'static [&'static str],
}

/// The field of a request that names the disturbances it can meet.
pub const DISTURBED_BY: &str = "disturbed_by";

const MEMBERSHIP: &[&str] = &["JoinGroup", "SyncGroup", "Heartbeat", "OffsetCommit"];
const WITH_OFFSETS: &[&str] = &["JoinGroup", "SyncGroup", "Heartbeat", "OffsetCommit", "OffsetFetch"];

/// All disturbances.
pub static DISTURBANCES: &[Disturbance] = &[
    Disturbance { name: "rebalance", code: Some("REBALANCE_IN_PROGRESS"), apis: MEMBERSHIP },
    Disturbance { name: "not_coordinator", code: Some("NOT_COORDINATOR"), apis: WITH_OFFSETS },
    Disturbance {
        name: "coordinator_not_available",
        code: Some("COORDINATOR_NOT_AVAILABLE"),
        apis: &["FindCoordinator", "JoinGroup", "SyncGroup", "Heartbeat", "OffsetCommit", "OffsetFetch"],
    },
    Disturbance {
        name: "coordinator_load_in_progress",
        code: Some("COORDINATOR_LOAD_IN_PROGRESS"),
        apis: WITH_OFFSETS,
    },
    // The broker hears nothing, and takes the member for dead once its session is over.
    Disturbance { name: "heartbeat_loss", code: None, apis: &["Heartbeat"] },
];

/// The disturbance of that name.
pub fn disturbance(name: &str) -> Option<&'static Disturbance> {
    DISTURBANCES.iter().find(|disturbance| disturbance.name == name)
}

/// Names of the disturbances that a request to these groups can meet.
pub fn disturbances_of(api: &str, groups: &[String]) -> Vec<String> {
    let met = DISTURBANCES.iter().filter(|d| !groups.is_empty() && d.apis.contains(&api));
    met.map(|disturbance| disturbance.name.to_owned()).collect()
}

/// The code of an `error(...)`.
///
/// # Errors
/// What is wrong with it.
pub fn error_code(fields: &Fields) -> Result<i16, RuleProblem> {
    let problem =
        |message: String, hint: Option<String>| RuleProblem { message, argument: Some("code".into()), hint };
    match fields.get("code") {
        None => Err(RuleProblem {
            message: "a kafka error needs its code".into(),
            argument: None,
            hint: Some("error(code = \"NOT_LEADER_OR_FOLLOWER\"), or its number".into()),
        }),
        Some(Value::Int(number)) => i16::try_from(*number)
            .ok()
            .filter(|code| *code != 0 && known(*code))
            .ok_or_else(|| problem(format!("kafka has no error {number}"), None)),
        Some(Value::Text(name)) => {
            let wanted = name.to_uppercase();
            codes().find(|code| error_name(*code) == wanted).ok_or_else(|| {
                let nearest = codes().map(error_name).max_by_key(|known| similar(known, &wanted));
                problem(
                    format!("kafka has no error {name:?}"),
                    nearest.map(|n| format!("did you mean {n:?}?")),
                )
            })
        }
        Some(_) => Err(problem("the code of a kafka error is its name or its number".into(), None)),
    }
}

fn known(code: i16) -> bool {
    !matches!(ResponseError::try_from_code(code), None | Some(ResponseError::Unknown(_)))
}

fn codes() -> impl Iterator<Item = i16> {
    (-1..=200).filter(|code| known(*code))
}

fn similar(one: &str, other: &str) -> u64 {
    (strsim::jaro(one, other) * 1e6) as u64
}

/// Whether a rule can be carried out.
///
/// # Errors
/// What is wrong with it.
pub fn check(rule: &Rule) -> Result<(), RuleProblem> {
    let refuse = |message: &str, hint: &str| {
        Err(RuleProblem { message: message.into(), argument: None, hint: Some(hint.into()) })
    };
    let disturbed = rule.matchers.iter().find(|m| m.field == DISTURBED_BY);
    let disturbance = disturbed.and_then(|m| disturbance(&m.pattern.glob));
    for matcher in rule.matchers.iter().filter(|m| m.field != DISTURBED_BY) {
        if !MATCHERS.contains(&matcher.field.as_str()) {
            return Err(RuleProblem {
                message: format!("kafka has no matcher {:?}", matcher.field),
                argument: Some(matcher.field.clone()),
                hint: Some(format!("it has {}", MATCHERS.join(", "))),
            });
        }
        if let Some(disturbance) = disturbance {
            meets(disturbance, matcher)?;
        }
        if matcher.field == "api" && !shape::SHAPES.iter().any(|s| matcher.pattern.matches(s.name)) {
            let names: Vec<_> = shape::SHAPES.iter().map(|s| s.name).collect();
            return Err(RuleProblem {
                message: format!("kafka has no api {:?} that a rule can act on", matcher.pattern.glob),
                argument: Some("api".into()),
                hint: Some(format!("one of {}", names.join(", "))),
            });
        }
    }
    match &rule.effect {
        Effect::Error(fields) => {
            error_code(fields)?;
            for (name, _) in &fields.0 {
                if !EFFECT_PARAMETERS.contains(&name.as_str()) {
                    return Err(RuleProblem {
                        message: format!("a kafka error has no {name}"),
                        argument: Some(name.clone()),
                        hint: Some("it has code and message".into()),
                    });
                }
            }
            Ok(())
        }
        Effect::Respond(_) => refuse(
            "kafka answers are not written by hand",
            "use error(code = ...), or response(delay_ms = ...) for the real answer, late",
        ),
        Effect::Corrupt => refuse(
            "records carry checksums: a corrupted answer is an error code here",
            "error(code = \"CORRUPT_MESSAGE\")",
        ),
        Effect::Slow { bytes_per_second: 0 } => refuse("0 bytes a second never end", "use drop()"),
        Effect::Delay(_)
        | Effect::Drop
        | Effect::Allow
        | Effect::Duplicate
        | Effect::Slow { .. }
        | Effect::ResetAfter { .. } => Ok(()),
    }
}

/// Whether requests that a disturbance is about can match.
fn meets(disturbance: &Disturbance, matcher: &Matcher) -> Result<(), RuleProblem> {
    let problem = |message: String, hint: String| {
        Err(RuleProblem { message, argument: Some(matcher.field.clone()), hint: Some(hint) })
    };
    match matcher.field.as_str() {
        "api" if !disturbance.apis.iter().any(|api| matcher.pattern.matches(api)) => problem(
            format!("kafka.{} does not act on {:?}", disturbance.name, matcher.pattern.glob),
            format!("it acts on {}", disturbance.apis.join(", ")),
        ),
        "topic" => problem(
            format!("kafka.{} is about a group, whatever topics it reads", disturbance.name),
            "give `group`".to_owned(),
        ),
        _ => Ok(()),
    }
}

/// The response to a request that says this error for all it asks; `None` where the api has no
/// place for one.
pub fn error_response(request: &RequestKind, code: i16, message: Option<&str>) -> Option<ResponseKind> {
    let words = message.map(|m| m.to_owned().into());
    Some(match request {
        RequestKind::Produce(r) => ResponseKind::Produce(produce_error(r, code, message)),
        RequestKind::Fetch(r) => ResponseKind::Fetch(fetch_error(r, code)),
        RequestKind::ListOffsets(r) => ResponseKind::ListOffsets(list_offsets_error(r, code)),
        RequestKind::Metadata(r) if r.topics.as_ref().is_some_and(|topics| !topics.is_empty()) => {
            ResponseKind::Metadata(metadata_error(r, code))
        }
        RequestKind::OffsetCommit(r) => ResponseKind::OffsetCommit(offset_commit_error(r, code)),
        RequestKind::OffsetFetch(r) => ResponseKind::OffsetFetch(offset_fetch_error(r, code)),
        RequestKind::FindCoordinator(r) => {
            let coordinator = |key: &kafka_protocol::protocol::StrBytes| {
                find_coordinator_response::Coordinator::default()
                    .with_key(key.clone())
                    .with_node_id((-1).into())
                    .with_port(-1)
                    .with_error_code(code)
                    .with_error_message(words.clone())
            };
            // One place or the other, by version: a message may not have both.
            let response = FindCoordinatorResponse::default();
            ResponseKind::FindCoordinator(match r.coordinator_keys.is_empty() {
                true => response
                    .with_error_code(code)
                    .with_error_message(words.clone())
                    .with_node_id((-1).into())
                    .with_port(-1),
                false => response.with_coordinators(r.coordinator_keys.iter().map(coordinator).collect()),
            })
        }
        RequestKind::JoinGroup(r) => ResponseKind::JoinGroup(
            JoinGroupResponse::default()
                .with_error_code(code)
                .with_generation_id(-1)
                .with_protocol_name(Some(Default::default()))
                .with_member_id(r.member_id.clone()),
        ),
        RequestKind::SyncGroup(_) => {
            ResponseKind::SyncGroup(SyncGroupResponse::default().with_error_code(code))
        }
        RequestKind::Heartbeat(_) => {
            ResponseKind::Heartbeat(HeartbeatResponse::default().with_error_code(code))
        }
        RequestKind::LeaveGroup(_) => {
            ResponseKind::LeaveGroup(LeaveGroupResponse::default().with_error_code(code))
        }
        RequestKind::InitProducerId(_) => ResponseKind::InitProducerId(
            InitProducerIdResponse::default()
                .with_error_code(code)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1),
        ),
        RequestKind::CreateTopics(r) => {
            let topic = |t: &create_topics_request::CreatableTopic| {
                create_topics_response::CreatableTopicResult::default()
                    .with_name(t.name.clone())
                    .with_error_code(code)
                    .with_error_message(words.clone())
            };
            ResponseKind::CreateTopics(
                CreateTopicsResponse::default().with_topics(r.topics.iter().map(topic).collect()),
            )
        }
        RequestKind::DeleteTopics(r) => {
            let topic = |name: Option<&TopicName>| {
                delete_topics_response::DeletableTopicResult::default()
                    .with_name(name.cloned())
                    .with_error_code(code)
                    .with_error_message(words.clone())
            };
            let states = r.topics.iter().map(|t| topic(t.name.as_ref()));
            let names = r.topic_names.iter().map(|n| topic(Some(n)));
            ResponseKind::DeleteTopics(
                DeleteTopicsResponse::default().with_responses(states.chain(names).collect()),
            )
        }
        RequestKind::ApiVersions(_) => {
            ResponseKind::ApiVersions(ApiVersionsResponse::default().with_error_code(code))
        }
        _ => return None,
    })
}

/// A Produce response that says this error for every partition.
pub fn produce_error(request: &ProduceRequest, code: i16, message: Option<&str>) -> ProduceResponse {
    use produce_response::{PartitionProduceResponse, TopicProduceResponse};
    let partition = |p: &produce_request::PartitionProduceData| {
        PartitionProduceResponse::default()
            .with_index(p.index)
            .with_error_code(code)
            .with_error_message(message.map(|m| m.to_owned().into()))
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1)
    };
    let topic = |t: &produce_request::TopicProduceData| {
        TopicProduceResponse::default()
            .with_name(t.name.clone())
            .with_partition_responses(t.partition_data.iter().map(partition).collect())
    };
    ProduceResponse::default().with_responses(request.topic_data.iter().map(topic).collect())
}

/// A Fetch response that says this code for every partition (0: nothing there), with the fetch
/// offset as the end of the log.
pub fn fetch_error(request: &FetchRequest, code: i16) -> FetchResponse {
    use fetch_response::{FetchableTopicResponse, PartitionData};
    let partition = |p: &fetch_request::FetchPartition| {
        let end = if code == 0 { p.fetch_offset } else { -1 };
        PartitionData::default()
            .with_partition_index(p.partition)
            .with_error_code(code)
            .with_high_watermark(end)
            .with_last_stable_offset(end)
            .with_log_start_offset(if code == 0 { 0 } else { -1 })
            .with_aborted_transactions(None)
            .with_preferred_read_replica((-1).into())
            .with_records(Some(Default::default()))
    };
    let topic = |t: &fetch_request::FetchTopic| {
        FetchableTopicResponse::default()
            .with_topic(t.topic.clone())
            .with_partitions(t.partitions.iter().map(partition).collect())
    };
    FetchResponse::default()
        .with_error_code(if request.topics.is_empty() { code } else { 0 })
        .with_responses(request.topics.iter().map(topic).collect())
}

fn list_offsets_error(request: &ListOffsetsRequest, code: i16) -> ListOffsetsResponse {
    use list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
    let partition = |p: &list_offsets_request::ListOffsetsPartition| {
        ListOffsetsPartitionResponse::default()
            .with_partition_index(p.partition_index)
            .with_error_code(code)
            .with_timestamp(-1)
            .with_offset(-1)
    };
    let topic = |t: &list_offsets_request::ListOffsetsTopic| {
        ListOffsetsTopicResponse::default()
            .with_name(t.name.clone())
            .with_partitions(t.partitions.iter().map(partition).collect())
    };
    ListOffsetsResponse::default().with_topics(request.topics.iter().map(topic).collect())
}

fn metadata_error(request: &MetadataRequest, code: i16) -> MetadataResponse {
    let topic = |t: &metadata_request::MetadataRequestTopic| {
        metadata_response::MetadataResponseTopic::default()
            .with_name(t.name.clone())
            .with_topic_id(t.topic_id)
            .with_error_code(code)
    };
    let topics = request.topics.iter().flatten().map(topic).collect();
    MetadataResponse::default().with_topics(topics).with_error_code(code)
}

fn offset_commit_error(request: &OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
    use offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
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

fn offset_fetch_error(request: &OffsetFetchRequest, code: i16) -> OffsetFetchResponse {
    let group = |g: &offset_fetch_request::OffsetFetchRequestGroup| {
        offset_fetch_response::OffsetFetchResponseGroup::default()
            .with_group_id(g.group_id.clone())
            .with_error_code(code)
    };
    OffsetFetchResponse::default()
        .with_error_code(if request.groups.is_empty() { code } else { 0 })
        .with_groups(request.groups.iter().map(group).collect())
}

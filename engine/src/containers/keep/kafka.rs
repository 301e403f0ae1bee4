//! Kafka: topics and consumer groups.
//!
//! Contract: every group is deleted (members that are left over are made to leave first), every
//! topic is deleted, and the empty topics that were there are made again with as many partitions.
//! Topics that held records just after `seed` need a cold start. The broker's own topics stay.

use crate::link::Dial;
use crate::protocol::kafka::client::Connection;
use crate::protocol::kafka::message::error_name;
use crate::virtual_time::Time;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Pause between looks at what the broker does in its own time.
const PAUSE: Duration = Duration::from_millis(5);
const TIMEOUT_MS: i32 = 10_000;
/// Codes that pass: a group that is still busy, or already gone.
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
/// So does what a coordinator answers while the topic in which it keeps its groups is being made or read: loading, not
/// available yet, not the coordinator yet.
const NOT_YET: [i16; 3] = [14, 15, 16];

/// Topics as they were: name and number of partitions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    topics: BTreeMap<String, i32>,
}

struct Broker(Connection);

macro_rules! ask {
    ($broker:expr, $api:ident, $version:expr, $request:expr) => {
        match $broker.0.ask(ApiKey::$api, $version, $request.into()).await {
            Ok(ResponseKind::$api(answer)) => Ok(answer),
            Ok(_) => Err(format!("{}: another answer came", stringify!($api))),
            Err(error) => Err(format!("{}: {error}", stringify!($api))),
        }
    };
}

fn checked(what: &str, code: i16) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{what}: {}", error_name(code))) }
}

impl Broker {
    async fn connect(dial: Arc<dyn Dial>) -> Result<Self, String> {
        let stream = dial.dial().await.map_err(|error| error.to_string())?;
        Ok(Broker(Connection::new(stream, Time::default())))
    }

    /// Topics that are not the broker's own.
    async fn topics(&mut self) -> Result<BTreeMap<String, i32>, String> {
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        let answer = ask!(self, Metadata, 7, request)?;
        let own = answer.topics.into_iter().filter(|topic| !topic.is_internal && topic.error_code == 0);
        let pair = |topic: metadata_response::MetadataResponseTopic| {
            Some((topic.name?.to_string(), topic.partitions.len() as i32))
        };
        Ok(own.filter_map(pair).collect())
    }

    /// Whether a partition of the topic has had a record.
    async fn has_records(&mut self, topic: &str, partitions: i32) -> Result<bool, String> {
        let asked = (0..partitions).map(|partition| {
            list_offsets_request::ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(-1)
        });
        let topics = list_offsets_request::ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(asked.collect());
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topics]);
        let answer = ask!(self, ListOffsets, 5, request)?;
        Ok(answer.topics.iter().flat_map(|topic| &topic.partitions).any(|partition| partition.offset > 0))
    }

    async fn groups(&mut self) -> Result<Vec<GroupId>, String> {
        loop {
            let answer = ask!(self, ListGroups, 2, ListGroupsRequest::default())?;
            if NOT_YET.contains(&answer.error_code) {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            checked("groups", answer.error_code)?;
            return Ok(answer.groups.into_iter().map(|group| group.group_id).collect());
        }
    }

    /// Makes every member of a group leave it.
    async fn empty_group(&mut self, group: &GroupId) -> Result<(), String> {
        let request = DescribeGroupsRequest::default().with_groups(vec![group.clone()]);
        let answer = ask!(self, DescribeGroups, 4, request)?;
        let members = answer.groups.iter().flat_map(|group| &group.members).map(|member| {
            leave_group_request::MemberIdentity::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
        });
        let members: Vec<_> = members.collect();
        if !members.is_empty() {
            let request = LeaveGroupRequest::default().with_group_id(group.clone()).with_members(members);
            ask!(self, LeaveGroup, 3, request)?;
        }
        Ok(())
    }

    async fn delete_groups(&mut self) -> Result<(), String> {
        loop {
            let groups = self.groups().await?;
            if groups.is_empty() {
                return Ok(());
            }
            let many = groups.len();
            for group in &groups {
                self.empty_group(group).await?;
            }
            let request = DeleteGroupsRequest::default().with_groups_names(groups);
            let answer = ask!(self, DeleteGroups, 1, request)?;
            let gone = answer.results.iter().filter(|result| result.error_code == 0).count();
            for result in &answer.results {
                let code = result.error_code;
                if ![NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND].contains(&code) && !NOT_YET.contains(&code) {
                    checked(&format!("delete the group {}", result.group_id.as_str()), code)?;
                }
            }
            if gone < many {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn delete_topics(&mut self, names: &[String]) -> Result<(), String> {
        let topics = names.iter().map(|name| TopicName(StrBytes::from_string(name.clone()))).collect();
        let request = DeleteTopicsRequest::default().with_topic_names(topics).with_timeout_ms(TIMEOUT_MS);
        let answer = ask!(self, DeleteTopics, 3, request)?;
        for result in &answer.responses {
            let name = result.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            checked(&format!("delete the topic {name}"), result.error_code)?;
        }
        while self.topics().await?.keys().any(|name| names.contains(name)) {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn create_topics(&mut self, topics: &BTreeMap<String, i32>) -> Result<(), String> {
        let wanted = topics.iter().map(|(name, partitions)| {
            create_topics_request::CreatableTopic::default()
                .with_name(TopicName(StrBytes::from_string(name.clone())))
                .with_num_partitions(*partitions)
                .with_replication_factor(1)
        });
        let request =
            CreateTopicsRequest::default().with_topics(wanted.collect()).with_timeout_ms(TIMEOUT_MS);
        let answer = ask!(self, CreateTopics, 4, request)?;
        answer.topics.iter().try_for_each(|topic| {
            checked(&format!("make the topic {}", topic.name.as_str()), topic.error_code)
        })
    }
}

impl State {
    /// `Ok(Err)`: it cannot be put back, and why.
    pub async fn remember(dial: Arc<dyn Dial>) -> Result<Result<State, String>, String> {
        let mut broker = Broker::connect(dial).await?;
        let topics = broker.topics().await?;
        for (topic, partitions) in &topics {
            if broker.has_records(topic, *partitions).await? {
                return Ok(Err(format!("its topic {topic} holds records")));
            }
        }
        match broker.groups().await?.first() {
            Some(group) => Ok(Err(format!("it has the consumer group {}", group.as_str()))),
            None => Ok(Ok(State { topics })),
        }
    }

    pub async fn put_back(&self, dial: Arc<dyn Dial>) -> Result<(), String> {
        let mut broker = Broker::connect(dial).await?;
        broker.delete_groups().await?;
        let now: Vec<String> = broker.topics().await?.into_keys().collect();
        if !now.is_empty() {
            broker.delete_topics(&now).await?;
        }
        if !self.topics.is_empty() {
            broker.create_topics(&self.topics).await?;
        }
        Ok(())
    }
}

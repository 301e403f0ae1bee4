//! The group coordinator: consumer groups in memory, for the server side (stand-in and replay).
//!
//! Contract: the classic protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit and
//! OffsetFetch, with rebalances, session timeouts, static members and no initial delay, so that a
//! first member is assigned at once. Committed offsets are handed to a keeper before they are
//! acknowledged.
//! Not modelled: the consumer protocol of KIP-848, transactions, expiry of committed offsets.

use crate::virtual_time::Time;
use bytes::Bytes;
use kafka_protocol::ResponseError as E;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// What the client said about it.
    pub metadata: String,
}

/// Keeps committed offsets; an error is answered as a storage error.
pub type Keeper = Box<dyn Fn(&[Committed]) -> std::io::Result<()> + Send + Sync>;

/// What a member wants to join with.
#[derive(Debug, Clone)]
pub struct Join {
    /// The group.
    pub group: String,
    /// Its id, empty at first.
    pub member: String,
    /// Its static name.
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client: String,
    /// How long it may be silent.
    pub session: Duration,
    /// How long a rebalance may take.
    pub rebalance: Duration,
    /// `consumer`.
    pub protocol_type: String,
    /// Assignment strategies with what the member says for each.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new member gets its id before it may join (JoinGroup from version 4 on).
    pub id_first: bool,
}

/// What came of joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// `consumer`.
    pub protocol_type: String,
    /// The strategy chosen.
    pub protocol: String,
    /// The leader's id.
    pub leader: String,
    /// The member's id.
    pub member: String,
    /// For the leader: everyone (id, static name, what it said).
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// A group as `DescribeGroups` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable`, `Dead`.
    pub state: &'static str,
    /// `consumer`.
    pub protocol_type: String,
    /// The strategy.
    pub protocol: String,
    /// Members: id, static name, client, metadata, assignment.
    pub members: Vec<(String, Option<String>, String, Bytes, Bytes)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Empty,
    Preparing,
    Completing,
    Stable,
}

#[derive(Debug)]
struct Member {
    instance: Option<String>,
    client: String,
    session: Duration,
    rebalance: Duration,
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    /// Has asked to join the generation to come.
    awaiting: bool,
    /// When, by the time of the groups; so are all instants here.
    seen: Duration,
    joined_as: u64,
}

#[derive(Debug, Default)]
struct Group {
    state: State,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: String,
    members: BTreeMap<String, Member>,
    promised: BTreeSet<String>,
    rebalance_by: Option<Duration>,
}

#[derive(Default)]
struct Inner {
    groups: BTreeMap<String, Group>,
    committed: BTreeMap<(String, String, i32), (i64, String)>,
    ids: u64,
}

/// All groups of one broker.
#[derive(Default)]
pub struct Groups {
    inner: Mutex<Inner>,
    changed: Notify,
    keeper: Option<Keeper>,
    /// What members and rebalances are waited for by.
    time: Time,
}

type Answer<T> = Result<T, i16>;

impl Groups {
    /// Groups whose committed offsets a keeper keeps, beginning with these.
    pub fn kept(keeper: Keeper, committed: Vec<Committed>) -> Self {
        let groups = Groups { keeper: Some(keeper), ..Groups::default() };
        groups.restore(committed);
        groups
    }

    /// Forgets every member and goes back to these committed offsets.
    pub fn restore(&self, committed: Vec<Committed>) {
        let mut inner = self.lock();
        inner.groups.clear();
        inner.committed = committed
            .into_iter()
            .map(|c| ((c.group, c.topic, c.partition), (c.offset, c.metadata)))
            .collect();
        drop(inner);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Joins, and waits until the group's next generation begins.
    ///
    /// # Errors
    /// The protocol's error code, and the member's id where one was made.
    pub async fn join(&self, join: Join) -> Result<Joined, (i16, String)> {
        let group = join.group.clone();
        let member = match self.enter(join)? {
            Entered::Already(joined) => return Ok(joined),
            Entered::Waits(member) => member,
        };
        self.changed.notify_waiters();
        loop {
            let changed = self.changed.notified();
            let deadline = {
                let mut inner = self.lock();
                let now = self.time.now();
                let Some(group) = inner.groups.get_mut(&group) else {
                    return Err((E::UnknownMemberId.code(), member));
                };
                if group.settle(now) {
                    self.changed.notify_waiters();
                }
                match group.members.get(&member) {
                    None => return Err((E::UnknownMemberId.code(), member)),
                    Some(m) if !m.awaiting => return Ok(group.joined(&member)),
                    Some(_) => group.deadline(now),
                }
            };
            tokio::select! {
                () = changed => {}
                () = self.time.sleep_until(deadline) => {}
            }
        }
    }

    fn enter(&self, join: Join) -> Result<Entered, (i16, String)> {
        let mut inner = self.lock();
        let now = self.time.now();
        if join.group.is_empty() {
            return Err((E::InvalidGroupId.code(), join.member));
        }
        inner.ids += 1;
        let number = inner.ids;
        let group = inner.groups.entry(join.group.clone()).or_default();
        group.settle(now);
        if !group.accepts(&join) {
            return Err((E::InconsistentGroupProtocol.code(), join.member));
        }
        let mut id = join.member.clone();
        let known = group.members.contains_key(&id);
        if id.is_empty() {
            id = format!("{}-{number}", if join.client.is_empty() { "member" } else { &join.client });
            if let Some(instance) = &join.instance {
                // A static member that comes back takes its own place.
                group.members.retain(|_, member| member.instance.as_ref() != Some(instance));
            } else if join.id_first {
                group.promised.insert(id.clone());
                return Err((E::MemberIdRequired.code(), id));
            }
        } else if !known && !group.promised.remove(&id) {
            return Err((E::UnknownMemberId.code(), id));
        }
        if let Some(member) = group.members.get(&id) {
            let same = member.protocols == join.protocols;
            let settled = match group.state {
                State::Stable => same && group.leader != id,
                State::Completing => same,
                State::Empty | State::Preparing => false,
            };
            if settled {
                return Ok(Entered::Already(group.joined(&id)));
            }
        }
        group.protocol_type = join.protocol_type;
        let joined_as = group.members.get(&id).map_or(number, |member| member.joined_as);
        let member = Member {
            instance: join.instance,
            client: join.client,
            session: join.session,
            rebalance: join.rebalance,
            protocols: join.protocols,
            assignment: Bytes::new(),
            awaiting: true,
            seen: now,
            joined_as,
        };
        group.members.insert(id.clone(), member);
        group.prepare(now);
        Ok(Entered::Waits(id))
    }

    /// Hands in (leader) or fetches (others) the assignment; others wait for the leader.
    ///
    /// # Errors
    /// The protocol's error code.
    pub async fn sync(
        &self,
        name: &str,
        generation: i32,
        member: &str,
        assignments: Vec<(String, Bytes)>,
    ) -> Answer<(String, String, Bytes)> {
        let mut assignments = Some(assignments);
        loop {
            let changed = self.changed.notified();
            let deadline = {
                let mut inner = self.lock();
                let now = self.time.now();
                let group = inner.member(name, member, now)?;
                if group.generation != generation {
                    return Err(E::IllegalGeneration.code());
                }
                if group.state == State::Completing && group.leader == member {
                    for (id, assignment) in assignments.take().unwrap_or_default() {
                        if let Some(member) = group.members.get_mut(&id) {
                            member.assignment = assignment;
                        }
                    }
                    group.state = State::Stable;
                    self.changed.notify_waiters();
                }
                match group.state {
                    State::Stable => {
                        let own = group.members.get(member).map(|m| m.assignment.clone()).unwrap_or_default();
                        return Ok((group.protocol_type.clone(), group.protocol.clone(), own));
                    }
                    State::Completing => group.deadline(now),
                    State::Empty | State::Preparing => return Err(E::RebalanceInProgress.code()),
                }
            };
            tokio::select! {
                () = changed => {}
                () = self.time.sleep_until(deadline) => {}
            }
        }
    }

    /// A sign of life.
    ///
    /// # Errors
    /// The protocol's error code, `REBALANCE_IN_PROGRESS` among them.
    pub fn heartbeat(&self, name: &str, generation: i32, member: &str) -> Answer<()> {
        let mut inner = self.lock();
        let group = inner.member(name, member, self.time.now())?;
        let answer = match group.state {
            _ if group.generation != generation => Err(E::IllegalGeneration.code()),
            State::Preparing => Err(E::RebalanceInProgress.code()),
            _ => Ok(()),
        };
        drop(inner);
        self.changed.notify_waiters();
        answer
    }

    /// A member leaves, by its id or its static name.
    ///
    /// # Errors
    /// The protocol's error code.
    pub fn leave(&self, name: &str, member: &str, instance: Option<&str>) -> Answer<()> {
        let mut inner = self.lock();
        let now = self.time.now();
        let group = inner.groups.get_mut(name).ok_or(E::UnknownMemberId.code())?;
        let gone = |id: &String, m: &Member| {
            id == member || (member.is_empty() && instance.is_some() && m.instance.as_deref() == instance)
        };
        let before = group.members.len();
        group.members.retain(|id, m| !gone(id, m));
        if group.members.len() == before {
            return if group.promised.remove(member) { Ok(()) } else { Err(E::UnknownMemberId.code()) };
        }
        group.lost(now);
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Commits offsets.
    ///
    /// # Errors
    /// The protocol's error code.
    pub fn commit(&self, name: &str, generation: i32, member: &str, offsets: Vec<Committed>) -> Answer<()> {
        let mut inner = self.lock();
        if generation >= 0 || !member.is_empty() {
            let group = inner.member(name, member, self.time.now())?;
            if group.generation != generation {
                return Err(E::IllegalGeneration.code());
            }
            if group.state == State::Completing {
                return Err(E::RebalanceInProgress.code());
            }
        } else if inner.groups.get(name).is_some_and(|group| !group.members.is_empty()) {
            return Err(E::UnknownMemberId.code());
        }
        if let Some(keeper) = &self.keeper {
            keeper(&offsets).map_err(|_| E::KafkaStorageError.code())?;
        }
        for c in offsets {
            inner.committed.insert((c.group, c.topic, c.partition), (c.offset, c.metadata));
        }
        Ok(())
    }

    /// A committed offset.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<(i64, String)> {
        self.lock().committed.get(&(group.to_owned(), topic.to_owned(), partition)).cloned()
    }

    /// All partitions that a group has committed.
    pub fn committed_partitions(&self, group: &str) -> Vec<(String, i32)> {
        let inner = self.lock();
        let of_group = inner.committed.keys().filter(|(g, _, _)| g == group);
        of_group.map(|(_, topic, partition)| (topic.clone(), *partition)).collect()
    }

    /// Forgets a topic's committed offsets.
    pub fn forget_topic(&self, topic: &str) {
        self.lock().committed.retain(|(_, t, _), _| t != topic);
    }

    /// Deletes a group without members.
    ///
    /// # Errors
    /// The protocol's error code.
    pub fn delete(&self, name: &str) -> Answer<()> {
        let mut inner = self.lock();
        let known =
            inner.groups.contains_key(name) || inner.committed.keys().any(|(group, _, _)| group == name);
        match inner.groups.get(name) {
            _ if !known => Err(E::GroupIdNotFound.code()),
            Some(group) if !group.members.is_empty() => Err(E::NonEmptyGroup.code()),
            _ => {
                inner.groups.remove(name);
                inner.committed.retain(|(group, _, _), _| group != name);
                Ok(())
            }
        }
    }

    /// Every group's name, protocol type and state.
    pub fn list(&self) -> Vec<(String, String, &'static str)> {
        let mut inner = self.lock();
        let now = self.time.now();
        let mut names: BTreeSet<String> = inner.groups.keys().cloned().collect();
        names.extend(inner.committed.keys().map(|(group, _, _)| group.clone()));
        names
            .into_iter()
            .map(|name| match inner.groups.get_mut(&name) {
                None => (name, String::new(), "Empty"),
                Some(group) => {
                    group.settle(now);
                    (name, group.protocol_type.clone(), group.state.name())
                }
            })
            .collect()
    }

    /// One group.
    pub fn describe(&self, name: &str) -> Described {
        let mut inner = self.lock();
        let kept = inner.committed.keys().any(|(group, _, _)| group == name);
        let Some(group) = inner.groups.get_mut(name) else {
            let state = if kept { "Empty" } else { "Dead" };
            return Described {
                state,
                protocol_type: String::new(),
                protocol: String::new(),
                members: Vec::new(),
            };
        };
        group.settle(self.time.now());
        let member = |(id, m): (&String, &Member)| {
            let said = m.protocols.iter().find(|(name, _)| *name == group.protocol);
            let said = said.map(|(_, said)| said.clone()).unwrap_or_default();
            (id.clone(), m.instance.clone(), m.client.clone(), said, m.assignment.clone())
        };
        Described {
            state: group.state.name(),
            protocol_type: group.protocol_type.clone(),
            protocol: group.protocol.clone(),
            members: group.members.iter().map(member).collect(),
        }
    }
}

enum Entered {
    Already(Joined),
    Waits(String),
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Preparing => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

impl Inner {
    /// A member's group, settled, with the member seen alive.
    fn member(&mut self, group: &str, member: &str, now: Duration) -> Answer<&mut Group> {
        let group = self.groups.get_mut(group).ok_or(E::UnknownMemberId.code())?;
        if let Some(member) = group.members.get_mut(member) {
            member.seen = now;
        }
        group.settle(now);
        if group.members.contains_key(member) { Ok(group) } else { Err(E::UnknownMemberId.code()) }
    }
}

impl Group {
    fn accepts(&self, join: &Join) -> bool {
        let others = || self.members.iter().filter(|(id, _)| **id != join.member);
        if join.protocols.is_empty()
            || (others().next().is_some() && self.protocol_type != join.protocol_type)
        {
            return false;
        }
        let everyone = |name: &str| others().all(|(_, m)| m.protocols.iter().any(|(n, _)| n == name));
        join.protocols.iter().any(|(name, _)| everyone(name))
    }

    /// Drops members that were silent too long and begins the next generation if it can begin.
    /// True if anything changed.
    fn settle(&mut self, now: Duration) -> bool {
        let before = self.members.len();
        self.members.retain(|_, m| m.awaiting || now.saturating_sub(m.seen) <= m.session);
        let lost = self.members.len() != before;
        if lost {
            self.lost(now);
        }
        let ready =
            self.members.values().all(|m| m.awaiting) || self.rebalance_by.is_some_and(|by| now >= by);
        if self.state == State::Preparing && ready {
            self.members.retain(|_, m| m.awaiting);
            self.begin(now);
            return true;
        }
        lost
    }

    fn lost(&mut self, now: Duration) {
        if self.members.is_empty() {
            self.state = State::Empty;
            self.generation += 1;
            self.leader.clear();
            self.rebalance_by = None;
        } else {
            self.prepare(now);
        }
    }

    fn prepare(&mut self, now: Duration) {
        if self.state != State::Preparing {
            self.state = State::Preparing;
            let longest = self.members.values().map(|m| m.rebalance).max().unwrap_or_default();
            self.rebalance_by = Some(now + longest);
        }
    }

    fn begin(&mut self, now: Duration) {
        self.rebalance_by = None;
        self.generation += 1;
        if self.members.is_empty() {
            self.state = State::Empty;
            return;
        }
        self.state = State::Completing;
        if !self.members.contains_key(&self.leader) {
            let first = self.members.iter().min_by_key(|(_, m)| m.joined_as);
            self.leader = first.map(|(id, _)| id.clone()).unwrap_or_default();
        }
        let has = |m: &Member, name: &str| m.protocols.iter().any(|(n, _)| n == name);
        let names = self.members.get(&self.leader).map(|m| m.protocols.as_slice()).unwrap_or_default();
        let common = names.iter().find(|(name, _)| self.members.values().all(|m| has(m, name)));
        self.protocol = common.map(|(name, _)| name.clone()).unwrap_or_default();
        for member in self.members.values_mut() {
            member.awaiting = false;
            member.seen = now;
            member.assignment = Bytes::new();
        }
    }

    /// When something may change without anyone asking.
    fn deadline(&self, now: Duration) -> Duration {
        let silent = self.members.values().filter(|m| !m.awaiting).map(|m| m.seen + m.session);
        let next = silent.chain(self.rebalance_by).min().unwrap_or(now + Duration::from_secs(60));
        // Never now: the loop that waits for it must not spin.
        next.max(now) + Duration::from_millis(1)
    }

    fn joined(&self, id: &str) -> Joined {
        let said = |m: &Member| {
            let said = m.protocols.iter().find(|(name, _)| *name == self.protocol);
            said.map(|(_, said)| said.clone()).unwrap_or_default()
        };
        let everyone = self.members.iter().map(|(id, m)| (id.clone(), m.instance.clone(), said(m)));
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member: id.to_owned(),
            members: if self.leader == id { everyone.collect() } else { Vec::new() },
        }
    }
}

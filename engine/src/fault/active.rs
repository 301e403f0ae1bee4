//! Which rules act now: counting, drawing, and the account of what fired.
//!
//! Contract: every consultation is counted; a match and its decision are journaled in one
//! call. Rules are consulted in order of activation; the first that acts wins, but for pauses of syscalls,
//! which add up and let later rules act too. A rule that
//! matched and did not act (its modifiers said no) shields nothing.

use super::rule::{Assumption, Effect, FdScope, Modifiers, Pattern, Rule, Share, SyscallAction, SyscallRule};
use crate::journal::Journal;
use crate::oracle::{Oracle, Question, Ratio};
use crate::supervisor::{ENOSPC, Interest, Kind};
use faultbox_bundle_format::{Body, Decision, FaultCount, FaultWindow, RuleHit, split_interface};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// A rule that acts on something.
#[derive(Debug, Clone, PartialEq)]
pub struct Firing {
    /// What it does.
    pub effect: Effect,
    /// For the journal.
    pub hit: RuleHit,
}

/// What a rule is consulted about.
pub struct Consultation<'a> {
    /// `service.interface`.
    pub interface: &'a str,
    /// Who asks.
    pub source: &'a str,
    /// The stable key.
    pub key: &'a str,
    /// Whether it does work (rules without matchers apply to these only, `drop` to all).
    pub works: bool,
    /// What the asking client calls itself, where its protocol has that.
    pub client: &'a str,
    /// Values of a field that matchers look at.
    pub field: &'a dyn Fn(&str) -> Vec<String>,
    /// Whether the asker is the service under test.
    pub on_sut: bool,
}

#[derive(Default)]
struct Account {
    matched: BTreeMap<(String, u32, String), u64>,
    draws: BTreeMap<(String, u32, String), u64>,
    totals: BTreeMap<(String, u32), (u64, u64)>,
    /// Bytes that calls of a service were let to write by a rule of a disk that fills up.
    spent: BTreeMap<(String, u32, String), u64>,
}

/// What rules about syscalls are asked about.
pub struct SyscallAsk<'a> {
    /// The service whose process makes the call.
    pub service: &'a str,
    /// The call's families, its own name last.
    pub families: &'a [&'a str],
    /// The service that a `connect` goes to.
    pub peer: Option<&'a str>,
    /// Names and addresses of the peer.
    pub peers: &'a [String],
    /// The resolved path of a file.
    pub path: Option<&'a str>,
    /// What the file or descriptor is.
    pub kind: Option<Kind>,
    /// How many bytes it asks for.
    pub bytes: Option<u64>,
    /// Names of the executable and the thread.
    pub process: &'a [String],
    /// The stable key.
    pub key: &'a str,
}

impl SyscallAsk<'_> {
    /// Whether a rule on `target`'s syscalls is about this one.
    fn is_for(&self, rule: &SyscallRule, target: &str) -> bool {
        if !self.families.contains(&rule.family.as_str()) {
            return false;
        }
        let aimed = match rule.family == "connect" && rule.inbound {
            true => self.peer == Some(target),
            false => self.service == target,
        };
        let any = |pattern: &Option<Pattern>, texts: &[String]| {
            pattern.as_ref().is_none_or(|pattern| texts.iter().any(|text| pattern.matches(text)))
        };
        let right_kind = match rule.fd {
            Some(FdScope::Any) => true,
            Some(FdScope::Kind(kind)) => self.kind == Some(kind),
            None if rule.path.is_some() || rule.to.is_some() => true,
            None => {
                let files = self.families.iter().any(|family| FILE_FAMILIES.contains(family));
                !files || self.kind == Some(Kind::File)
            }
        };
        let right_path =
            rule.path.as_ref().is_none_or(|pattern| self.path.is_some_and(|path| pattern.matches(path)));
        aimed && right_kind && right_path && any(&rule.to, self.peers) && any(&rule.process, self.process)
    }
}

/// The faults of one cell and their account.
pub struct ActiveFaults {
    journal: Arc<Journal>,
    oracle: Arc<dyn Oracle>,
    active: RwLock<Option<(Arc<Assumption>, u64)>>,
    account: Mutex<Account>,
    generation: watch::Sender<u64>,
    suts: BTreeSet<String>,
}

impl ActiveFaults {
    /// No faults yet.
    pub fn new(journal: Arc<Journal>, oracle: Arc<dyn Oracle>, sut: &str) -> Arc<Self> {
        Self::of_fleet(journal, oracle, BTreeSet::from([sut.to_owned()]))
    }

    /// No faults yet; several services are under test.
    pub fn of_fleet(journal: Arc<Journal>, oracle: Arc<dyn Oracle>, suts: BTreeSet<String>) -> Arc<Self> {
        Arc::new(ActiveFaults {
            journal,
            oracle,
            active: RwLock::new(None),
            account: Mutex::new(Account::default()),
            generation: watch::channel(0).0,
            suts,
        })
    }

    /// Whether `service` is under test.
    pub fn is_sut(&self, service: &str) -> bool {
        self.suts.contains(service)
    }

    /// Makes an assumption active from now on.
    pub fn activate(&self, assumption: Arc<Assumption>) {
        self.note_window(&assumption, true);
        let now = self.journal.clock().now_ns();
        *self.active.write().unwrap_or_else(|p| p.into_inner()) = Some((assumption, now));
        self.generation.send_modify(|g| *g += 1);
    }

    /// Ends whatever is active; pauses that it caused end now.
    pub fn deactivate(&self) {
        let ended = self.active.write().unwrap_or_else(|p| p.into_inner()).take();
        self.generation.send_modify(|g| *g += 1);
        if let Some((assumption, _)) = ended {
            self.note_window(&assumption, false);
        }
    }

    /// Changes when faults become active or inactive.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Whether every connection to the interface is to be refused for this asker: an active
    /// `drop` without matchers or modifiers.
    pub fn refuses(&self, interface: &str, source: &str) -> bool {
        self.refusal(interface, source).is_some()
    }

    /// Notes that a connection (open or new) was cut because the interface refuses.
    pub fn note_refusal(&self, interface: &str, source: &str) {
        if let Some((name, index)) = self.refusal(interface, source) {
            let key = "connection";
            let asked = Asked { source, key, share: None, age_ns: None };
            self.count(&name, index, &asked, &Modifiers::default());
        }
    }

    fn refusal(&self, interface: &str, source: &str) -> Option<(String, u32)> {
        self.find(|assumption, _| {
            rules_for(assumption, interface).find_map(|(index, rule)| {
                let plain = rule.matchers.is_empty() && rule.modifiers == Modifiers::default();
                let asked = rule.source.as_deref().is_none_or(|s| s == source);
                (plain && asked && rule.effect == Effect::Drop).then(|| (assumption.name.clone(), index))
            })
        })
    }

    /// Whether an active rule is about requests to this interface.
    pub fn watches(&self, interface: &str) -> bool {
        self.find(|assumption, _| rules_for(assumption, interface).next().map(drop)).is_some()
    }

    /// Asks the rules about a request. At most one acts.
    pub fn consult(&self, about: &Consultation<'_>) -> Option<Firing> {
        self.find(|assumption, since| {
            for (index, rule) in rules_for(assumption, about.interface) {
                if !matches(rule, about) {
                    continue;
                }
                let member =
                    rule.share.as_ref().map(|share| (share, share.member(about.source, about.client)));
                let (share, key) = match &member {
                    None => (None, about.key),
                    Some((share, Some(member))) => (Some(*share), member.as_str()),
                    // Not one of those that the rule is about.
                    Some((_, None)) => continue,
                };
                let age = self.journal.clock().now_ns().saturating_sub(since);
                let asked = Asked { source: about.source, key, share, age_ns: Some(age) };
                if self.count(&assumption.name, index, &asked, &rule.modifiers) {
                    let hit =
                        RuleHit { assumption: assumption.name.clone(), index, action: rule.words.clone() };
                    return Some(Firing { effect: rule.effect.clone(), hit });
                }
            }
            None
        })
        .filter(|firing| firing.effect != Effect::Allow)
    }

    /// Asks the rules about a syscall. Pauses add up; the first rule that does something else ends
    /// the search. What comes back is in the rules' order, for the journal.
    pub fn consult_syscall(&self, about: &SyscallAsk<'_>) -> Vec<(SyscallAction, RuleHit)> {
        let mut acting = Vec::new();
        self.find(|assumption, since| {
            let target = assumption.target.as_ref()?;
            let first = assumption.rules.len() as u32;
            for (offset, rule) in assumption.syscalls.iter().enumerate() {
                let index = first + offset as u32;
                if !about.is_for(rule, &target.service) {
                    continue;
                }
                let spent = (assumption.name.clone(), index, about.service.to_owned());
                let Some(action) = self.now(rule.action, about.bytes, spent) else { continue };
                let age = self.journal.clock().now_ns().saturating_sub(since);
                let asked = Asked { source: about.service, key: about.key, share: None, age_ns: Some(age) };
                if !self.count(&assumption.name, index, &asked, &rule.modifiers) {
                    continue;
                }
                let hit = RuleHit { assumption: assumption.name.clone(), index, action: rule.words.clone() };
                acting.push((action, hit));
                if !matches!(action, SyscallAction::Delay(_)) {
                    return Some(());
                }
            }
            None
        });
        acting
    }

    /// What the action comes to for a call of so many bytes; `None` where it is not about it (yet).
    fn now(
        &self,
        action: SyscallAction,
        bytes: Option<u64>,
        spent: (String, u32, String),
    ) -> Option<SyscallAction> {
        match action {
            SyscallAction::Partial(most) => bytes.filter(|bytes| *bytes > most).map(|_| action),
            SyscallAction::EnospcAfter(room) => {
                let bytes = bytes?;
                let mut account = self.account.lock().unwrap_or_else(|p| p.into_inner());
                let spent = account.spent.entry(spent).or_default();
                let left = room.saturating_sub(*spent);
                *spent = spent.saturating_add(bytes.min(left));
                match left {
                    left if bytes <= left => None,
                    0 => Some(SyscallAction::Deny(ENOSPC)),
                    left => Some(SyscallAction::Partial(left)),
                }
            }
            _ => Some(action),
        }
    }

    /// What active rules about one of these syscall families look at; `None` where there is none.
    pub fn looks_at(&self, families: &[&str]) -> Option<Interest> {
        let active = self.active.read().unwrap_or_else(|p| p.into_inner());
        let (assumption, _) = active.as_ref()?;
        let rules = assumption.flatten().into_iter().flat_map(|part| &part.syscalls);
        rules.filter(|rule| families.contains(&rule.family.as_str())).fold(None, |seen, rule| {
            let Interest { peer, process, bytes } = seen.unwrap_or_default();
            let counts = matches!(rule.action, SyscallAction::Partial(_) | SyscallAction::EnospcAfter(_));
            Some(Interest {
                peer: peer || rule.to.is_some(),
                process: process || rule.process.is_some(),
                bytes: bytes || counts,
            })
        })
    }

    /// Services whose open inbound connections are to be reset when the fault begins.
    pub fn resets_inbound(&self) -> Vec<String> {
        self.denied_inbound(|_| true)
    }

    /// Whether every connect to this service is denied now: a connection that arrives was begun before that, and
    /// counts as an open one.
    pub fn denies_every_connect(&self, service: &str) -> bool {
        let every = |rule: &SyscallRule| {
            let SyscallRule { path, to, fd, process, modifiers, .. } = rule;
            path.is_none()
                && to.is_none()
                && fd.is_none()
                && process.is_none()
                && *modifiers == Modifiers::default()
        };
        self.denied_inbound(every).iter().any(|denied| denied == service)
    }

    /// Services of which such a rule denies inbound connects.
    fn denied_inbound(&self, such: impl Fn(&SyscallRule) -> bool) -> Vec<String> {
        let mut services = Vec::new();
        if let Some((assumption, _)) = &*self.active.read().unwrap_or_else(|p| p.into_inner()) {
            for part in assumption.flatten() {
                let inbound = part.syscalls.iter().any(|r| {
                    r.family == "connect"
                        && r.inbound
                        && matches!(r.action, SyscallAction::Deny(_))
                        && such(r)
                });
                if let (true, Some(target)) = (inbound, &part.target) {
                    services.push(target.service.clone());
                }
            }
        }
        services
    }

    /// How often each rule of an assumption matched and fired.
    pub fn account(&self, assumption: &Assumption) -> Vec<FaultCount> {
        let account = self.account.lock().unwrap_or_else(|p| p.into_inner());
        let mut counts = Vec::new();
        for part in assumption.flatten() {
            let target = part.target.as_ref().map(target_words).unwrap_or_default();
            let words = part.rules.iter().map(|r| &r.words).chain(part.syscalls.iter().map(|r| &r.words));
            for (index, rule) in words.enumerate() {
                let index = index as u32;
                let (matched, fired) =
                    account.totals.get(&(part.name.clone(), index)).copied().unwrap_or_default();
                counts.push(FaultCount {
                    assumption: part.name.clone(),
                    index,
                    rule: rule.clone(),
                    target: target.clone(),
                    matched,
                    fired,
                });
            }
        }
        counts
    }

    fn find<T>(&self, mut ask: impl FnMut(&Assumption, u64) -> Option<T>) -> Option<T> {
        let active = self.active.read().unwrap_or_else(|p| p.into_inner());
        let (assumption, since) = active.as_ref()?;
        assumption.flatten().into_iter().find_map(|part| ask(part, *since))
    }

    /// Counts a match, draws where the rule has odds, journals the decision, says whether
    /// the rule acts.
    fn count(&self, assumption: &str, index: u32, asked: &Asked<'_>, modifiers: &Modifiers) -> bool {
        let Asked { source, key, share, age_ns } = *asked;
        let mut account = self.account.lock().unwrap_or_else(|p| p.into_inner());
        let matched = bump(&mut account.matched, (assumption.to_owned(), index, source.to_owned())) + 1;
        let draw = match share {
            None => bump(&mut account.draws, (assumption.to_owned(), index, key.to_owned())),
            // Who is struck stays struck.
            Some(_) => 0,
        };
        let total = account.totals.entry((assumption.to_owned(), index)).or_default();
        total.0 += 1;
        let in_time = match (modifiers.for_time, age_ns) {
            (Some(limit), Some(age)) => Duration::from_nanos(age) <= limit,
            _ => true,
        };
        let counted = modifiers.nth.is_none_or(|n| matched == n)
            && modifiers.after.is_none_or(|n| matched > n)
            && modifiers.every.is_none_or(|n| n > 0 && matched.is_multiple_of(n))
            && modifiers.times.is_none_or(|n| total.1 < n);
        let drawn = match modifiers.probability {
            None => true,
            Some(ratio) => self.admits(assumption, index, key, draw, ratio, &[]),
        };
        let struck =
            share.is_none_or(|share| self.admits(assumption, index, key, draw, share.ratio, &share.of));
        let fired = in_time && counted && drawn && struck;
        if fired {
            total.1 += 1;
        }
        drop(account);
        let decision = Decision {
            assumption: assumption.to_owned(),
            index,
            key: key.to_owned(),
            source: source.to_owned(),
            matched,
            draw,
            fired,
            on_sut: self.is_sut(source),
        };
        let stream = format!("{assumption}#{index}:{key}");
        self.journal.note("faultbox", &stream, None, Body::Decision(decision));
        fired
    }

    fn admits(
        &self,
        assumption: &str,
        index: u32,
        key: &str,
        draw: u64,
        ratio: Ratio,
        of: &[String],
    ) -> bool {
        let cell = self.journal.cell_name();
        self.oracle.admits(&Question { cell, assumption, index, key, draw, ratio, of })
    }

    fn note_window(&self, assumption: &Assumption, active: bool) {
        let mut targets = Vec::new();
        let mut rules = Vec::new();
        for part in assumption.flatten() {
            let target = part.target.as_ref().map(target_words).unwrap_or_default();
            for words in part.rules.iter().map(|r| &r.words).chain(part.syscalls.iter().map(|r| &r.words)) {
                targets.push(target.clone());
                rules.push(words.clone());
            }
        }
        let window = FaultWindow { assumption: assumption.name.clone(), active, targets, rules };
        self.journal.note("faultbox", "faults", None, Body::FaultWindow(window));
    }
}

/// Who asked for what, when a rule matched.
struct Asked<'a> {
    source: &'a str,
    key: &'a str,
    share: Option<&'a Share>,
    /// Time since the fault began.
    age_ns: Option<u64>,
}

/// Families whose rules mean regular files unless the rule says otherwise.
const FILE_FAMILIES: &[&str] = &["write", "read", "fsync"];

fn bump<K: Ord>(counters: &mut BTreeMap<K, u64>, key: K) -> u64 {
    let counter = counters.entry(key).or_insert(0);
    let before = *counter;
    *counter += 1;
    before
}

fn target_words(target: &super::rule::Target) -> String {
    match &target.interface {
        Some(interface) => format!("{}.{interface}", target.service),
        None => target.service.clone(),
    }
}

fn rules_for<'a>(assumption: &'a Assumption, interface: &str) -> impl Iterator<Item = (u32, &'a Rule)> {
    let aimed = assumption.target.as_ref().is_some_and(|target| {
        let (service, name) = split_interface(interface);
        target.service == service && target.interface.as_deref().is_none_or(|i| i == name)
    });
    let rules = if aimed { assumption.rules.as_slice() } else { &[] };
    rules.iter().enumerate().map(|(index, rule)| (index as u32, rule))
}

fn matches(rule: &Rule, about: &Consultation<'_>) -> bool {
    let asked = rule.source.as_deref().is_none_or(|s| s == about.source);
    let in_scope = !rule.matchers.is_empty() || about.works || rule.effect == Effect::Drop;
    asked
        && in_scope
        && rule.matchers.iter().all(|m| (about.field)(&m.field).iter().any(|text| m.pattern.matches(text)))
}

#[cfg(test)]
#[path = "active_tests.rs"]
mod tests;

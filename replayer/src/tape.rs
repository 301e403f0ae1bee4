//! The tape: the recorded exchanges of one cell, matched by content and served again.
//!
//! Contract: requests wait in queues keyed by (who asks, interface, stable key), first in
//! first out among those whose content is equal up to generated values; exchanges recorded
//! in the phase that the replay is in come first. An answer is held until the mutating
//! requests that completed before it in the recording have arrived again. A request without
//! a recorded counterpart is a divergence and gets its connection closed, never an answer.
//! What a rule made the service wait for takes its time again, or as much of it as decides ([`waits`]).
//! Not modelled: recorded latencies that no rule caused; a replay does not wait for them.
//!
//! [`waits`]: crate::waits

use crate::divergence::{Divergence, Nearest};
use crate::session::Recording;
use crate::waits::{Ledger, Waiting, Waits};
use faultbox_bundle_format::generated::{self, Kind, Scanner};
use faultbox_bundle_format::learned::Side;
use faultbox_bundle_format::redact::Redactor;
use faultbox_bundle_format::{
    Body, Class, Entry, Exchange, Outcome, Phase, RuleHit, Syscall, Value, split_interface,
};
use faultbox_engine::journal::Journal;
use faultbox_engine::link::{Answer, BoxFuture, Conversation, Request, Responder, UNREACHABLE};
use faultbox_engine::protocol;
use faultbox_engine::virtual_time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// How long an answer is held for mutating requests that do not come. Then the order is
/// reported as a divergence. Shorter than the timeouts of ordinary clients: a service that
/// gives up on the held answer and goes on must not look as if it had kept the order.
const HELD_AT_MOST: Duration = Duration::from_millis(700);
/// What is shorter is nothing that could be skipped: what a rule without a pause took.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// How many nearest recorded requests a divergence shows.
const NEAREST: usize = 3;

/// One recorded exchange.
struct Recorded {
    exchange: Exchange,
    phase: Phase,
    /// Position of its end in the journal.
    ended_seq: u64,
    /// The request's stable part with holes for generated values.
    template: Value,
    /// The request as recorded.
    request: Value,
    /// The live request that took it, as it is sent again ([`Scanner::sent_again`]).
    sent: Option<Value>,
    used: bool,
    /// Its answer has been given.
    answered: bool,
    /// It is over: answered, or, where there is no answer, given up.
    over: bool,
}

/// Recorded exchanges of one key, in the order of their beginnings.
#[derive(Default)]
struct Queue {
    all: Vec<usize>,
    /// All before this place are used.
    from: usize,
}

impl Queue {
    /// Those that may not be used yet.
    fn rest(&mut self, recorded: &[Recorded]) -> &[usize] {
        let used = self.all[self.from..].iter().take_while(|index| recorded[**index].used);
        self.from += used.count();
        &self.all[self.from..]
    }
}

#[derive(Default)]
struct State {
    recorded: Vec<Recorded>,
    queues: BTreeMap<(String, String, String), Queue>,
    /// What changed something in the scenario and has not been asked again.
    changes: BTreeSet<usize>,
    bindings: Vec<(String, String)>,
    /// Learned values: what is made up now and what was recorded in its place.
    learned: Vec<(String, String)>,
    divergences: Vec<Divergence>,
    repeats: u64,
    waits: Ledger,
    /// Open connections: to which interface, and whether they end by what they say themselves.
    open: Vec<(String, Arc<AtomicBool>)>,
}

impl State {
    /// This exchange is the counterpart of what was asked.
    fn uses(&mut self, index: usize) -> &mut Recorded {
        self.changes.remove(&index);
        let recorded = &mut self.recorded[index];
        recorded.used = true;
        recorded
    }

    /// Whether something that happened before this exchange had its answer is still to happen: what the
    /// same service asked meanwhile, what it was told meanwhile, a step that ended meanwhile.
    fn is_behind(&self, index: usize) -> bool {
        let this = &self.recorded[index];
        let meanwhile = this.exchange.began_seq..this.ended_seq;
        let missing = self.recorded.iter().enumerate().any(|(at, other)| {
            at != index
                && other.phase == Phase::Scenario
                && other.exchange.class == Class::Work
                && other.exchange.source == this.exchange.source
                && (meanwhile.contains(&other.exchange.began_seq) && !other.used
                    || meanwhile.contains(&other.ended_seq) && !other.over)
        });
        missing || self.waits.step_is_open(this.ended_seq)
    }
}

/// The recorded exchanges of one cell.
pub struct Tape {
    state: Mutex<State>,
    arrived: Notify,
    /// Services that ended unasked in the recording.
    doomed: BTreeSet<String>,
    /// An answer was given.
    answered: Notify,
    /// A connection was closed.
    closed: Notify,
    /// Something arrived, was answered, given up, or a step ended.
    moved: Notify,
    waiting: Waiting,
    /// What it waits by.
    time: Time,
    /// Knows the values that the recording made up.
    recorded: Scanner,
    /// Knows the values that the replay makes up.
    live: Scanner,
    redactor: Redactor,
}

impl Tape {
    /// A tape of a recorded cell, whose values `recorded` knows, for a replay whose values `live` knows. What was
    /// asked of the services that run again is not on it: it does not come here, so nothing may wait for it.
    pub fn new(
        recording: &Recording,
        recorded: Scanner,
        live: Scanner,
        running: &BTreeSet<String>,
        waiting: Waiting,
        time: Time,
    ) -> Arc<Self> {
        let waits = Ledger::of(&recording.entries);
        let mut state = State { bindings: recorded.address_pairs(&live), waits, ..State::default() };
        let begun = Begun::of(&recording.entries);
        for entry in &recording.entries {
            let Body::Exchange(exchange) = &entry.body else { continue };
            if running.contains(split_interface(&exchange.interface).0) {
                continue;
            }
            let Some(request) = exchange.request.value() else { continue };
            let stable = request.stable();
            let seen = recorded.about(&exchange.interface, &exchange.operation, Some(Side::Request));
            let (source, interface) = (exchange.source.to_string(), exchange.interface.to_string());
            let key = (source, interface, seen.keyed(&exchange.key, &stable));
            state.queues.entry(key).or_default().all.push(state.recorded.len());
            // A poll brings what came while it was open: it belongs to where it ended, not to where it began.
            let polled = exchange.class == Class::Ambient;
            let phase = if polled { begun.at(entry.seq).max(entry.phase) } else { entry.phase };
            if exchange.mutating && phase == Phase::Scenario && exchange.class == Class::Work {
                state.changes.insert(state.recorded.len());
            }
            state.recorded.push(Recorded {
                phase,
                ended_seq: entry.seq,
                template: seen.template(&stable),
                request,
                sent: None,
                exchange: exchange.clone(),
                used: false,
                answered: false,
                over: false,
            });
        }
        // Entries lie in the order of their ends; requests are served in the order of their beginnings.
        let began: Vec<u64> = state.recorded.iter().map(|r| r.exchange.began_seq).collect();
        for queue in state.queues.values_mut() {
            queue.all.sort_by_key(|index| began[*index]);
        }
        let ended = recording.entries.iter().filter_map(|entry| match &entry.body {
            Body::ServiceExited(exited) if !exited.asked => Some(exited.service.clone()),
            _ => None,
        });
        let doomed = ended.filter(|service| !running.contains(service)).collect();
        let (state, redactor) = (Mutex::new(state), recording.redactor.clone());
        let [arrived, answered, closed, moved] = std::array::from_fn(|_| Notify::new());
        Arc::new(Tape {
            state,
            arrived,
            doomed,
            answered,
            closed,
            moved,
            waiting,
            time,
            recorded,
            live,
            redactor,
        })
    }

    /// Where what was asked and what was recorded parted ways, in order.
    pub fn divergences(&self) -> Vec<Divergence> {
        self.lock().divergences.clone()
    }

    /// How many requests beyond the recorded number got a repeated answer.
    pub fn repeats(&self) -> u64 {
        self.lock().repeats
    }

    /// What became of the recorded waits.
    pub fn waits(&self) -> Waits {
        self.lock().waits.sum()
    }

    /// How much of the delay of a syscall is to be waited for.
    pub fn syscall_pause(&self, call: &Syscall, pause: Duration) -> Duration {
        match self.waiting {
            Waiting::AsRecorded => pause,
            Waiting::WhereItDecides if pause < LEAST_WAIT => pause,
            Waiting::WhereItDecides => self.lock().waits.syscall(call, pause),
        }
    }

    /// A step has ended. How much longer it would have taken with all of its waits.
    pub fn step_ends(&self) -> Duration {
        let unwaited = self.lock().waits.step_ends();
        self.moved.notify_waiters();
        unwaited
    }

    /// Whether a new connection finds the server down, as it was at this point of the recording:
    /// after what has been asked so far, and before what has not. A server that came back does
    /// so after as many attempts as then.
    pub fn is_down(&self, source: &str, interface: &str) -> bool {
        let mut state = self.lock();
        let (mut last, mut next, mut failed) = (0, u64::MAX, Vec::new());
        for (index, recorded) in state.recorded.iter().enumerate() {
            let exchange = &recorded.exchange;
            if recorded.phase != Phase::Scenario
                || (&*exchange.source, &*exchange.interface) != (source, interface)
            {
                continue;
            }
            match (exchange.class, recorded.used) {
                _ if exchange.key == UNREACHABLE => failed.push((index, exchange.began_seq, recorded.used)),
                (Class::Work, true) => last = last.max(exchange.began_seq),
                (Class::Work, false) => next = next.min(exchange.began_seq),
                _ => {}
            }
        }
        failed.retain(|(_, began, _)| (last..next).contains(began));
        match failed.iter().find(|(_, _, used)| !used) {
            Some((index, ..)) => {
                state.uses(*index);
                true
            }
            None => next == u64::MAX && (!failed.is_empty() || self.has_fallen(&state, interface)),
        }
    }

    /// Returns when the server has come to the end that it came to in the recording: idle connections
    /// to it end then too.
    async fn fall(&self, interface: &str) {
        if !self.is_doomed(interface) {
            // No answer can change that: nobody is to wake for each.
            return std::future::pending().await;
        }
        loop {
            let answered = self.answered.notified();
            if self.has_fallen(&self.lock(), interface) {
                return;
            }
            answered.await;
        }
    }

    /// Whether the server is one that died in the recording.
    fn is_doomed(&self, interface: &str) -> bool {
        self.doomed.contains(split_interface(interface).0)
    }

    /// Whether the server is one that died in the recording, and has given all that it gave up to
    /// the last request that failed with it.
    fn has_fallen(&self, state: &State, interface: &str) -> bool {
        if !self.is_doomed(interface) {
            return false;
        }
        let work = state.recorded.iter().filter(|recorded| {
            recorded.phase == Phase::Scenario
                && recorded.exchange.class == Class::Work
                && recorded.exchange.interface == interface
        });
        let failed = work.clone().filter(|recorded| recorded.exchange.outcome == Outcome::Failed);
        let Some(end) = failed.map(|recorded| recorded.ended_seq).max() else { return false };
        // What began with the number that an end was then given began before it; so did what ended at once.
        work.filter(|recorded| recorded.exchange.began_seq <= end).all(|recorded| recorded.answered)
    }

    /// A connection to an interface, for as long as it is open.
    pub fn connected(self: &Arc<Self>, interface: &str) -> Connected {
        let failing = Arc::new(AtomicBool::new(false));
        self.lock().open.push((interface.to_owned(), failing.clone()));
        Connected { tape: self.clone(), interface: interface.to_owned(), failing }
    }

    /// Waits until the idle connections to a server that has fallen are closed: in the recording they
    /// ended with it, before who asked last could try the next one.
    async fn idle_closed(&self, interface: &str) {
        let closed = async {
            loop {
                let closed = self.closed.notified();
                let idle = |(to, failing): &(String, Arc<AtomicBool>)| {
                    to == interface && !failing.load(Ordering::SeqCst)
                };
                if !self.lock().open.iter().any(idle) {
                    return;
                }
                closed.await;
            }
        };
        // Nothing but the runtime stands between: where it does not get to it, the answer goes out.
        let _ = self.time.timeout(HELD_AT_MOST, closed).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Finds and takes the recorded counterpart of a request.
    fn take(&self, source: &str, interface: &str, request: &Request, phase: Phase) -> Found {
        let body = self.redactor.value(&request.body).stable();
        let mut state = self.lock();
        // What was made up and is known by now reads as what was recorded.
        let asked = generated::substitute(&body, &state.learned);
        let operation = generated::substitute_text(&request.operation, &state.learned);
        let key = generated::substitute_text(&request.key, &state.learned);
        let live = self.live.about(interface, &operation, Some(Side::Request));
        let template = live.template(&asked);
        let key = (source.to_owned(), interface.to_owned(), live.keyed(&key, &asked));
        let sent = live.sent_again(&asked);
        let (mut none, State { queues, recorded, .. }) = (Queue::default(), &mut *state);
        let queue = queues.get_mut(&key).unwrap_or(&mut none);
        let fits = |index: &usize| recorded[*index].template == template;
        let mut candidates = queue.rest(recorded).iter().filter(|i| !recorded[**i].used && fits(i));
        let here = candidates.clone().find(|i| recorded[**i].phase == phase);
        // What a poll or a push brought in the scenario must not come during the start.
        let elsewhere = if request.class == Class::Ambient { None } else { candidates.next() };
        let taken = here.or(elsewhere).copied();
        // What changes something is sent again only with the ids that it had: else it is another one.
        let same = |i: &usize| !request.mutating || recorded[*i].sent.as_ref() == Some(&sent);
        let repeated = || {
            let last = queue.all.iter().rev().find(|i| fits(i) && same(i)).copied();
            last.filter(|i| request.repeatable || recorded[*i].exchange.repeatable)
        };
        let repeated = if taken.is_none() { repeated() } else { None };
        match (taken, repeated) {
            (Some(index), _) => {
                state.uses(index).sent = Some(sent);
                let Recorded { exchange, request, .. } = &state.recorded[index];
                let recorded =
                    self.recorded.about(&exchange.interface, &exchange.operation, Some(Side::Request));
                let pairs = recorded.unify(&request.stable(), &live, &asked);
                for (then, now) in
                    pairs.unwrap_or_default().into_iter().filter(|(then, now)| then.text != now.text)
                {
                    let pair = (then.text, now.text);
                    if then.kind == Kind::Learned && !state.learned.iter().any(|(now, _)| *now == pair.1) {
                        state.learned.push((pair.1.clone(), pair.0.clone()));
                    }
                    if !state.bindings.contains(&pair) {
                        state.bindings.push(pair);
                    }
                }
                drop(state);
                self.arrived.notify_waiters();
                self.moved.notify_waiters();
                Found::Exchange(index)
            }
            (None, Some(index)) => {
                state.repeats += 1;
                Found::Exchange(index)
            }
            (None, None) => {
                if request.class == Class::Work {
                    let nearest = nearest(&state, source, interface, request, &template);
                    state.divergences.push(Divergence::Unexpected {
                        source: source.to_owned(),
                        interface: interface.to_owned(),
                        operation: request.operation.to_string(),
                        request: asked,
                        nearest,
                        phase,
                    });
                }
                Found::Nothing
            }
        }
    }

    /// Recorded requests that changed something and never came, though others like them did: not sent again,
    /// but other ones. (Of equal ones, the comparison knows only that there are some.)
    pub fn missing(&self) -> Vec<Divergence> {
        let state = self.lock();
        let counts = |recorded: &&Recorded| {
            let Recorded { exchange, phase, .. } = recorded;
            *phase == Phase::Scenario
                && exchange.class == Class::Work
                && exchange.mutating
                && exchange.repeatable
        };
        let sent = |recorded: &Recorded| {
            let exchange = &recorded.exchange;
            let seen = self.recorded.about(&exchange.interface, &exchange.operation, Some(Side::Request));
            seen.sent_again(&recorded.request.stable())
        };
        let mut missing = Vec::new();
        for ((source, interface, key), queue) in &state.queues {
            let queue: Vec<&Recorded> = queue.all.iter().map(|index| &state.recorded[*index]).collect();
            let came: Vec<Value> = queue.iter().filter(|r| r.used).map(|r| sent(r)).collect();
            for (at, recorded) in queue.iter().enumerate().filter(|(_, r)| !r.used && counts(r)) {
                if !came.contains(&sent(recorded)) {
                    let operation = &recorded.exchange.operation;
                    missing.push(Divergence::Stream {
                        stream: format!("{source}>{interface}:{key}"),
                        at,
                        recorded: Some(format!("{source} -> {interface} {operation}")),
                        replayed: None,
                        differences: Vec::new(),
                        recorded_seq: Some(recorded.ended_seq),
                        replayed_seq: None,
                    });
                }
            }
        }
        missing
    }

    /// Waits until the mutating requests that had completed before this one began came again.
    /// A poll was open all the while: for it, those that had completed before it ended.
    async fn hold(&self, index: usize, interface: &str, polled: bool) {
        let held = async {
            loop {
                let arrived = self.arrived.notified();
                if self.missing_before(index, polled).is_none() {
                    return;
                }
                arrived.await;
            }
        };
        if self.time.timeout(HELD_AT_MOST, held).await.is_err() && !polled {
            let missing = self.missing_before(index, polled).unwrap_or_default();
            let mut state = self.lock();
            let before = state.recorded[index].exchange.operation.to_string();
            let divergence =
                Divergence::Order { interface: interface.to_owned(), operation: before, missing };
            state.divergences.push(divergence);
        }
    }

    /// Whether an answer may have to wait for other requests. Set-up and what only asks how things stand
    /// (a metadata refresh, a ping) does not: whoever waits behind it would be held with it.
    fn is_held(&self, index: usize, request: &Request) -> bool {
        match request.class {
            Class::Control => false,
            Class::Work => true,
            // A poll, or what brought something after all.
            Class::Ambient => {
                !request.repeatable || self.lock().recorded[index].exchange.class == Class::Work
            }
        }
    }

    fn missing_before(&self, index: usize, polled: bool) -> Option<String> {
        let state = self.lock();
        let this = &state.recorded[index];
        let limit = if polled { this.ended_seq } else { this.exchange.began_seq };
        // They lie in the order of their ends.
        let mut before =
            state.changes.iter().map(|at| &state.recorded[*at]).take_while(|other| other.ended_seq < limit);
        let missing = before.find(|other| {
            other.exchange.source == this.exchange.source && !side_by_side(&this.exchange, &other.exchange)
        });
        missing.map(|other| format!("{} on {}", other.exchange.operation, other.exchange.interface))
    }

    /// Marks an answer as given; whether it is that the server failed.
    fn answers(&self, index: usize) -> bool {
        let recorded = &mut self.lock().recorded[index];
        recorded.answered = true;
        recorded.over = recorded.exchange.outcome != Outcome::Abandoned;
        recorded.exchange.outcome == Outcome::Failed
    }

    /// Lets the pause of an answer pass, or what of it decides.
    async fn pause(&self, index: usize, pause: Duration) {
        if pause.is_zero() {
            return; // A timer takes at least its tick.
        }
        if self.waiting == Waiting::AsRecorded || pause < LEAST_WAIT {
            return self.time.sleep(pause).await;
        }
        let began = self.time.now();
        let caught_up = async {
            loop {
                let moved = self.moved.notified();
                if !self.lock().is_behind(index) {
                    return;
                }
                moved.await;
            }
        };
        // Where it does not come to that, the answer comes when it came then.
        let _ = self.time.timeout(pause, caught_up).await;
        let mut state = self.lock();
        let (from, to) = {
            let exchange = &state.recorded[index].exchange;
            (exchange.began_ns, exchange.ended_ns)
        };
        state.waits.waited(from, to, self.time.now().saturating_sub(began));
    }

    fn answer_of(&self, index: usize) -> (Answer, Option<RuleHit>, Duration) {
        let state = self.lock();
        let exchange = &state.recorded[index].exchange;
        let rule = exchange.rule.clone();
        // A rule's pause is part of the outcome; other latencies are the environment's.
        let pause = match &rule {
            Some(_) => Duration::from_nanos(exchange.ended_ns.saturating_sub(exchange.began_ns)),
            None => Duration::ZERO,
        };
        let answer = match exchange.outcome {
            Outcome::Answered => match exchange.response.as_ref().and_then(|payload| payload.value()) {
                Some(response) => {
                    let response = generated::substitute(&response, &state.bindings);
                    Answer::Reply(self.redactor.restore(&response))
                }
                None => Answer::Unknown,
            },
            Outcome::Dropped | Outcome::Failed => Answer::Cut,
            Outcome::Abandoned => Answer::Silence,
            Outcome::OneWay => Answer::Nothing,
        };
        let pause = if answer == Answer::Silence { Duration::ZERO } else { pause };
        (answer, rule, pause)
    }
}

/// Where in the journal the scenario began and where it was over.
struct Begun {
    scenario: u64,
    tail: u64,
}

impl Begun {
    fn of(entries: &[Entry]) -> Self {
        let first =
            |phase| entries.iter().filter(|e| e.phase == phase).map(|e| e.seq).min().unwrap_or(u64::MAX);
        Begun { scenario: first(Phase::Scenario), tail: first(Phase::Tail) }
    }

    fn at(&self, seq: u64) -> Phase {
        match seq {
            _ if seq >= self.tail => Phase::Tail,
            _ if seq >= self.scenario => Phase::Scenario,
            _ => Phase::Start,
        }
    }
}

enum Found {
    Exchange(usize),
    Nothing,
}

/// Whether two requests go their ways independently.
fn side_by_side(one: &Exchange, other: &Exchange) -> bool {
    (&one.protocol, &one.operation, &one.interface) == (&other.protocol, &other.operation, &other.interface)
        && protocol::by_name(&one.protocol).is_some_and(|protocol| protocol.side_by_side(&one.operation))
}

fn nearest(
    state: &State,
    source: &str,
    interface: &str,
    request: &Request,
    template: &Value,
) -> Vec<Nearest> {
    let same = state.recorded.iter().filter(|r| {
        r.exchange.source == source && r.exchange.interface == interface && r.exchange.class == Class::Work
    });
    let mut ranked: Vec<(usize, Nearest)> = same
        .map(|recorded| {
            let differences = crate::diff::values(&recorded.template, template);
            let other_operation = usize::from(recorded.exchange.operation != request.operation) * 100;
            let spent = usize::from(recorded.used) * 10;
            let nearest = Nearest {
                operation: recorded.exchange.operation.to_string(),
                spent: recorded.used,
                differences: differences.clone(),
            };
            (other_operation + spent + differences.len(), nearest)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(NEAREST).map(|(_, nearest)| nearest).collect()
}

/// See [`Tape::connected`].
pub struct Connected {
    tape: Arc<Tape>,
    interface: String,
    /// Its last answer is that the server died: it ends by that.
    failing: Arc<AtomicBool>,
}

impl Connected {
    /// What answers on this connection, in the cell with this journal.
    pub fn responder(&self, journal: Arc<Journal>) -> Arc<dyn Responder> {
        Arc::new(TapeResponder {
            tape: self.tape.clone(),
            interface: self.interface.clone(),
            failing: self.failing.clone(),
            journal,
        })
    }

    /// Returns when the server has come to the end that it came to in the recording, unless this
    /// connection itself is about to say so.
    pub async fn cut(&self) {
        self.tape.fall(&self.interface).await;
        if self.failing.load(Ordering::SeqCst) {
            std::future::pending().await
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.tape.lock().open.retain(|(_, failing)| !Arc::ptr_eq(failing, &self.failing));
        self.tape.closed.notify_waiters();
    }
}

struct TapeResponder {
    tape: Arc<Tape>,
    interface: String,
    failing: Arc<AtomicBool>,
    journal: Arc<Journal>,
}

impl Responder for TapeResponder {
    fn converse(&self, source: &str, _connection: u64) -> Arc<dyn Conversation> {
        Arc::new(TapeConversation {
            tape: self.tape.clone(),
            source: source.to_owned(),
            interface: self.interface.clone(),
            failing: self.failing.clone(),
            journal: self.journal.clone(),
            unanswered: Mutex::default(),
        })
    }
}

struct TapeConversation {
    tape: Arc<Tape>,
    source: String,
    interface: String,
    failing: Arc<AtomicBool>,
    journal: Arc<Journal>,
    /// What gets no answer, until the asker goes away.
    unanswered: Mutex<Vec<usize>>,
}

impl Drop for TapeConversation {
    fn drop(&mut self) {
        let unanswered = self.unanswered.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !unanswered.is_empty() {
            let mut state = self.tape.lock();
            unanswered.iter().for_each(|index| state.recorded[*index].over = true);
            drop(state);
            self.tape.moved.notify_waiters();
        }
    }
}

impl Conversation for TapeConversation {
    fn cuts_are_failures(&self) -> bool {
        true
    }

    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        Box::pin(async move {
            let phase = self.journal.phase();
            let Found::Exchange(index) = self.tape.take(&self.source, &self.interface, request, phase) else {
                return (Answer::Unknown, None);
            };
            if phase == Phase::Scenario && self.tape.is_held(index, request) {
                self.tape.hold(index, &self.interface, request.class == Class::Ambient).await;
            }
            let (answer, rule, pause) = self.tape.answer_of(index);
            self.tape.pause(index, pause).await;
            if answer == Answer::Silence {
                self.unanswered.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(index);
                if rule.is_some() {
                    self.tape.lock().waits.given_up();
                }
            }
            let failed = self.tape.answers(index);
            self.failing.store(failed, Ordering::SeqCst);
            self.tape.answered.notify_waiters();
            self.tape.moved.notify_waiters();
            if failed && self.tape.has_fallen(&self.tape.lock(), &self.interface) {
                self.tape.idle_closed(&self.interface).await;
            }
            (answer, rule)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faultbox_bundle_format::{Blame, Ending, Entry, Payload, Verdict};

    fn verdict() -> Verdict {
        Verdict {
            ending: Ending::Passed,
            reason: String::new(),
            blame: Blame::None,
            fired: Vec::new(),
            unreached: false,
            scenario_ns: 0,
            cell_ns: 0,
            digest: [0; 32],
        }
    }

    fn entry(seq: u64, body: Body) -> Entry {
        let phase = Phase::Scenario;
        let (actor, stream) = ("api".into(), format!("s{seq}"));
        Entry { seq, at_ns: seq, cell: 1, phase, actor, stream, ordinal: 0, cause: None, body }
    }

    /// What the service asked, one after the other; `None` stands for a server that was down.
    fn tape(asked: &[Option<&str>]) -> Arc<Tape> {
        let exchange = |(seq, key): (usize, &Option<&str>)| {
            let exchange = Exchange {
                protocol: "mysql".into(),
                source: "api".into(),
                interface: "db.main".into(),
                connection: 1,
                operation: key.unwrap_or(UNREACHABLE).into(),
                key: key.unwrap_or(UNREACHABLE).to_owned(),
                class: if key.is_some() { Class::Work } else { Class::Control },
                mutating: false,
                repeatable: false,
                request: Payload::of(&Value::Null),
                outcome: Outcome::Failed,
                response: None,
                rule: None,
                began_ns: 0,
                ended_ns: 0,
                began_seq: seq as u64 + 1,
            };
            entry(seq as u64 + 1, Body::Exchange(exchange))
        };
        let mut entries: Vec<Entry> = asked.iter().enumerate().map(exchange).collect();
        entries.push(entry(99, Body::Verdict(verdict())));
        let redactor = Redactor::new(&[0; 16], Vec::new());
        let live = faultbox_bundle_format::canonical::scanner_of(&entries, 0);
        let recording = Recording::new(entries, 0, 1, redactor).unwrap();
        Tape::new(&recording, live.clone(), live, &BTreeSet::new(), Waiting::AsRecorded, Time::default())
    }

    fn ask(tape: &Tape, key: &str) {
        let request = Request {
            operation: key.to_owned().into(),
            key: key.to_owned(),
            fields: Vec::new(),
            class: Class::Work,
            works: true,
            mutating: false,
            repeatable: false,
            body: Value::Null,
        };
        assert!(
            matches!(tape.take("api", "db.main", &request, Phase::Scenario), Found::Exchange(_)),
            "{key}"
        );
    }

    #[test]
    fn a_server_that_went_down_stays_down() {
        let tape = tape(&[Some("insert"), Some("commit"), None, None]);
        assert!(!tape.is_down("api", "db.main"));
        ask(&tape, "insert");
        assert!(!tape.is_down("api", "db.main"));
        ask(&tape, "commit");
        assert!(!tape.is_down("api", "cache.main"), "another server");
        for attempt in 0..5 {
            assert!(tape.is_down("api", "db.main"), "attempt {attempt}");
        }
    }

    #[tokio::test]
    async fn a_server_that_died_takes_its_idle_connections_along() {
        let tape = tape(&[Some("insert"), Some("commit")]);
        let mut doomed = Arc::into_inner(tape).unwrap();
        doomed.doomed.insert("db".to_owned());
        let tape = Arc::new(doomed);
        for key in ["insert", "commit"] {
            assert!(!tape.has_fallen(&tape.lock(), "db.main"), "before {key}");
            ask(&tape, key);
        }
        assert!(!tape.has_fallen(&tape.lock(), "db.main"), "the last answer is still to be given");
        tape.lock().recorded[0].answered = true;
        assert!(!tape.has_fallen(&tape.lock(), "db.main"), "nothing was noted while the commit failed");
        tape.lock().recorded.iter_mut().for_each(|recorded| recorded.answered = true);
        tape.fall("db.main").await;
        assert!(tape.is_down("api", "db.main"), "nobody saw it refuse, and it is not there");
        assert!(!tape.has_fallen(&tape.lock(), "cache.main"));
    }

    #[test]
    fn a_server_that_came_back_does_so_after_as_many_attempts() {
        let tape = tape(&[Some("insert"), None, None, Some("select")]);
        ask(&tape, "insert");
        let attempts: Vec<bool> = (0..4).map(|_| tape.is_down("api", "db.main")).collect();
        assert_eq!(attempts, [true, true, false, false]);
        ask(&tape, "select");
        assert!(!tape.is_down("api", "db.main"));
    }
}

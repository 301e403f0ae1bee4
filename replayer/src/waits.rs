//! The waits of a recording: the pauses that a rule made, and what a replay does about them.
//!
//! Contract: a wait that is not to be sat through ends as soon as all that the recording saw happen
//! during it has happened again (what the same service asked and was answered, steps that ended), and
//! never later than recorded. So nothing overtakes what it did not overtake then, and a service that
//! gives up on an answer does so by its own clock. What a step would have taken longer is added to its
//! duration. The delay of a syscall is skipped where the recording saw nothing end or begin during it, and sat through
//! otherwise.
//! Not modelled: a service that measures the time itself and acts on it later, unseen by anybody. A cell
//! that is not exact without its waits is therefore to be driven again with them.

use faultbox_bundle_format::{Body, Entry, Phase, Syscall};
use std::time::Duration;

/// Whether recorded waits are sat through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// All of them.
    AsRecorded,
    /// Only as far as they decide what happens.
    WhereItDecides,
}

/// What became of the recorded waits in a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many were cut short.
    pub skipped: u64,
    /// How much less than in the recording was waited, nanoseconds; waits side by side count once.
    pub skipped_ns: u64,
    /// How many were sat through: the service gave up on them, or something hung on their length.
    pub kept: u64,
}

/// The recorded steps, and the waits so far.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Recorded steps: position of the end in the journal, began and ended in nanoseconds.
    steps: Vec<(u64, u64, u64)>,
    ended: usize,
    /// What was not waited for, as it lay in the recording.
    skipped: Vec<(u64, u64)>,
    kept: u64,
    /// Recorded delays of syscalls that have not come again.
    delays: Vec<Delay>,
}

/// A syscall that a rule delayed.
#[derive(Debug)]
struct Delay {
    call: Syscall,
    began_ns: u64,
    /// What began or ended next, by anybody.
    next_ns: Option<u64>,
}

impl Delay {
    fn of(entries: &[Entry]) -> Vec<Delay> {
        let delays = entries.iter().filter_map(|entry| match &entry.body {
            Body::Syscall(call) if call.action.starts_with("delay ") => Some((call, entry.at_ns)),
            _ => None,
        });
        let mut delays: Vec<Delay> =
            delays.map(|(call, began_ns)| Delay { call: call.clone(), began_ns, next_ns: None }).collect();
        if delays.is_empty() {
            return delays;
        }
        let mut moments: Vec<u64> = Vec::new();
        for entry in entries {
            match &entry.body {
                Body::Exchange(exchange) => moments.extend([exchange.began_ns, exchange.ended_ns]),
                Body::StepStarted(_) | Body::StepEnded(_) | Body::FaultWindow(_) | Body::ServiceExited(_) => {
                    moments.push(entry.at_ns);
                }
                _ => {}
            }
        }
        moments.sort_unstable();
        for delay in &mut delays {
            let next = moments.partition_point(|moment| *moment <= delay.began_ns);
            delay.next_ns = moments.get(next).copied();
        }
        delays
    }

    fn is_like(&self, call: &Syscall) -> bool {
        (&self.call.service, &self.call.family, &self.call.action)
            == (&call.service, &call.family, &call.action)
    }
}

impl Ledger {
    /// The steps of a cell's scenario and what follows it.
    pub fn of(entries: &[Entry]) -> Self {
        let mut steps = Vec::new();
        let mut began_ns = 0;
        // The steps of seeds are not taken again.
        for entry in entries.iter().filter(|entry| entry.phase != Phase::Start) {
            match &entry.body {
                Body::StepStarted(_) => began_ns = entry.at_ns,
                Body::StepEnded(_) => steps.push((entry.seq, began_ns, entry.at_ns)),
                _ => {}
            }
        }
        Ledger { steps, delays: Delay::of(entries), ..Ledger::default() }
    }

    /// A syscall is delayed again: how much of its delay decides. Its target may have another name in each run; one of
    /// the same name comes first.
    pub fn syscall(&mut self, call: &Syscall, pause: Duration) -> Duration {
        let same =
            self.delays.iter().position(|delay| delay.is_like(call) && delay.call.target == call.target);
        let place = same.or_else(|| self.delays.iter().position(|delay| delay.is_like(call)));
        let Some(place) = place else { return pause };
        let delay = self.delays.remove(place);
        let over = delay.began_ns.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        if delay.next_ns.is_some_and(|next| next < over) {
            self.kept += 1;
            return pause;
        }
        self.waited(delay.began_ns, over, Duration::ZERO);
        Duration::ZERO
    }

    /// Whether a step that had ended before this point of the journal has not ended yet.
    pub fn step_is_open(&self, before: u64) -> bool {
        self.steps.get(self.ended).is_some_and(|(seq, ..)| *seq < before)
    }

    /// The next step has ended. What of its recorded time was not waited for.
    pub fn step_ends(&mut self) -> Duration {
        let step = self.steps.get(self.ended).copied();
        self.ended += 1;
        step.map_or(Duration::ZERO, |(_, began, ended)| {
            Duration::from_nanos(self.unwaited(began, ended.max(began)))
        })
    }

    /// A recorded wait from `began_ns` to `ended_ns` has ended after `waited`.
    pub fn waited(&mut self, began_ns: u64, ended_ns: u64, waited: Duration) {
        let waited = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        match began_ns.saturating_add(waited) {
            rest if rest < ended_ns => self.skipped.push((rest, ended_ns)),
            _ => self.kept += 1,
        }
    }

    /// The service gave up on an answer that was delayed.
    pub fn given_up(&mut self) {
        self.kept += 1;
    }

    /// What came of all of them.
    pub fn sum(&self) -> Waits {
        Waits { skipped: self.skipped.len() as u64, skipped_ns: self.unwaited(0, u64::MAX), kept: self.kept }
    }

    /// How much of a stretch of the recording was not waited for.
    fn unwaited(&self, from: u64, to: u64) -> u64 {
        let mut parts: Vec<(u64, u64)> =
            self.skipped.iter().map(|(began, ended)| ((*began).max(from), (*ended).min(to))).collect();
        parts.sort_unstable();
        let (mut sum, mut reached) = (0, from);
        for (began, ended) in parts {
            let began = began.max(reached);
            if ended > began {
                sum += ended - began;
                reached = ended;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(steps: &[(u64, u64, u64)]) -> Ledger {
        Ledger { steps: steps.to_vec(), ..Ledger::default() }
    }

    #[test]
    fn waits_side_by_side_count_once_and_only_within_their_step() {
        let mut ledger = ledger(&[(10, 1_000, 5_000), (20, 6_000, 9_000)]);
        ledger.waited(2_000, 4_000, Duration::ZERO);
        ledger.waited(3_000, 4_500, Duration::from_nanos(100));
        // One that goes on in the next step.
        ledger.waited(4_800, 7_000, Duration::ZERO);
        assert_eq!(ledger.step_ends(), Duration::from_nanos(2_500 + 200));
        assert_eq!(ledger.step_ends(), Duration::from_nanos(1_000));
        assert_eq!(ledger.step_ends(), Duration::ZERO, "more steps than were recorded");
        assert_eq!(ledger.sum(), Waits { skipped: 3, skipped_ns: 2_500 + 2_200, kept: 0 });
    }

    #[test]
    fn a_delayed_syscall_is_waited_for_where_something_happened_meanwhile() {
        let call = |target: &str| Syscall {
            service: "api".to_owned(),
            name: "fsync".to_owned(),
            family: "fsync".to_owned(),
            target: target.to_owned(),
            action: "delay 2ms".to_owned(),
            rule: None,
            on_sut: true,
        };
        let delay = |target: &str, began_ns, next_ns| Delay { call: call(target), began_ns, next_ns };
        let mut ledger = ledger(&[(10, 1_000, 9_000_000)]);
        ledger.delays = vec![
            delay("log", 1_000_000, Some(1_500_000)),
            delay("tmp.1", 4_000_000, Some(6_000_000)),
            delay("data", 6_500_000, None),
        ];
        let pause = Duration::from_millis(2);
        assert_eq!(ledger.syscall(&call("data"), pause), Duration::ZERO);
        assert_eq!(ledger.syscall(&call("log"), pause), pause, "an answer came half a millisecond later");
        assert_eq!(ledger.syscall(&call("tmp.2"), pause), Duration::ZERO);
        assert_eq!(ledger.syscall(&call("data"), pause), pause, "one more than was recorded");
        let other = Syscall { family: "write".to_owned(), ..call("log") };
        assert_eq!(ledger.syscall(&other, pause), pause);
        assert_eq!(ledger.sum(), Waits { skipped: 2, skipped_ns: 4_000_000, kept: 1 });
        assert_eq!(ledger.step_ends(), Duration::from_nanos(2_000_000 + 2_000_000));
    }

    #[test]
    fn a_wait_that_took_its_time_is_kept() {
        let mut ledger = ledger(&[]);
        ledger.waited(0, 1_000, Duration::from_nanos(1_000));
        ledger.given_up();
        assert_eq!(ledger.sum(), Waits { skipped: 0, skipped_ns: 0, kept: 2 });
    }

    #[test]
    fn steps_are_open_until_they_end() {
        let mut ledger = ledger(&[(10, 0, 1), (20, 2, 3)]);
        assert!(ledger.step_is_open(15) && !ledger.step_is_open(5));
        ledger.step_ends();
        assert!(!ledger.step_is_open(15) && ledger.step_is_open(25));
    }
}

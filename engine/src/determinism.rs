//! Whose clock and dice a service has: the host's, or ones that follow from the seed.
//!
//! Contract: no I/O and no ambient time. A [`VirtualClock`] tells the wall clock of a cell; it stands still
//! but for events that every run has in the same order, so that what a service stamps is the same each
//! time. [`Entropy`] is one service's randomness, a function of (seed, cell, service, position).
//! Timers, timeouts and measured durations are real, or what [`VirtualTime`] makes of them.

use crate::clock::nanos;
use crate::prng::Key;
use crate::virtual_time::VirtualTime;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

/// Where a virtual clock begins: 2026-01-01 00:00:00 UTC, nanoseconds since the Unix epoch.
pub const BEGINNING_NS: u64 = 1_767_225_600_000_000_000;

/// How much later each step of a scenario is than the one before.
pub const STEP: Duration = Duration::from_millis(1);

/// How long a virtual clock may stand still in real time; from then on it moves, so that a service
/// that waits for the wall clock to change does not wait for ever.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What is put in the place of the host's.
#[derive(Clone, Default)]
pub struct Mediation {
    /// The wall clock.
    pub clock: Option<Arc<VirtualClock>>,
    /// The randomness.
    pub entropy: Option<Arc<Entropy>>,
    /// Whether what the service still asks the host is told of.
    pub watched: bool,
    /// What skips the time that it waits.
    pub time: Option<Arc<VirtualTime>>,
    /// Whether its process ids are its own.
    pub pids: bool,
}

impl Mediation {
    /// Whether there is no call to answer, and none to tell of.
    pub fn is_none(&self) -> bool {
        self.only_time() && self.time.is_none()
    }

    /// Whether nothing is put in its place but waits.
    pub fn only_time(&self) -> bool {
        self.clock.is_none() && self.entropy.is_none() && !self.watched
    }
}

impl std::fmt::Debug for Mediation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mediation")
            .field("clock", &self.clock.is_some())
            .field("entropy", &self.entropy.is_some())
            .field("watched", &self.watched)
            .field("time", &self.time.is_some())
            .field("pids", &self.pids)
            .finish()
    }
}

/// Shows a clock's time to those who read it.
pub trait Face: Send + Sync {
    /// It is now so many nanoseconds after the Unix epoch.
    fn show(&self, now_ns: u64);
}

#[derive(Default)]
struct State {
    now_ns: u64,
    moved: u64,
    crept: bool,
    faces: Vec<Weak<dyn Face>>,
}

/// The wall clock of a cell.
pub struct VirtualClock {
    state: Mutex<State>,
}

impl Default for VirtualClock {
    fn default() -> Self {
        VirtualClock { state: Mutex::new(State { now_ns: BEGINNING_NS, ..State::default() }) }
    }
}

impl VirtualClock {
    /// Nanoseconds since the Unix epoch.
    pub fn now_ns(&self) -> u64 {
        self.lock().now_ns
    }

    /// How often it has moved; grows by one with each move.
    pub fn moved(&self) -> u64 {
        self.lock().moved
    }

    /// Whether it has moved without an event: what services stamped since then depends on real time.
    pub fn crept(&self) -> bool {
        self.lock().crept
    }

    /// Moves on. Every face shows the new time when this returns.
    pub fn advance(&self, by: Duration) {
        self.lock().advance(by);
    }

    /// Moves on because it has stood still for too long, unless it has moved since it had `moved` so often.
    pub fn creep(&self, moved: u64, by: Duration) {
        let mut state = self.lock();
        if state.moved == moved {
            state.crept = true;
            state.advance(by);
        }
    }

    /// Shows the time on another face from now on; `first` does so before the clock can move again.
    pub fn attach<T>(&self, face: Weak<dyn Face>, first: impl FnOnce(u64) -> T) -> T {
        let mut state = self.lock();
        state.faces.retain(|face| face.strong_count() > 0);
        state.faces.push(face);
        first(state.now_ns)
    }

    /// Does something with the time before the clock can move again.
    pub fn at_rest<T>(&self, with: impl FnOnce(u64) -> T) -> T {
        with(self.lock().now_ns)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn advance(&mut self, by: Duration) {
        let by = nanos(by);
        self.now_ns = self.now_ns.saturating_add(by);
        self.moved += 1;
        for face in self.faces.iter().filter_map(Weak::upgrade) {
            face.show(self.now_ns);
        }
    }
}

/// One service's randomness in one cell.
pub struct Entropy {
    key: Key,
    stream: Mutex<Stream>,
}

struct Stream {
    rng: ChaCha8Rng,
    position: u64,
    /// Programs that were started, and devices that were opened.
    begun: u64,
}

impl Entropy {
    /// Of what `key` is the key of.
    pub fn of(key: Key) -> Arc<Self> {
        let stream = Stream { rng: key.below("calls").rng(), position: 0, begun: 0 };
        Arc::new(Entropy { key, stream: Mutex::new(stream) })
    }

    /// The next bytes of the one stream from which calls are answered in the order in which they come;
    /// says where in the stream they stand.
    pub fn draw(&self, into: &mut [u8]) -> u64 {
        let mut stream = self.lock();
        let at = stream.position;
        stream.rng.fill_bytes(into);
        stream.position = at.saturating_add(into.len() as u64);
        at
    }

    /// A stream of its own: for a program that starts, or a device that is opened.
    pub fn another(&self) -> ChaCha8Rng {
        let begun = {
            let mut stream = self.lock();
            stream.begun += 1;
            stream.begun
        };
        self.key.below(&format!("stream {begun}")).rng()
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Hand(Mutex<Vec<u64>>);

    impl Face for Hand {
        fn show(&self, now_ns: u64) {
            self.0.lock().unwrap().push(now_ns);
        }
    }

    #[test]
    fn a_clock_moves_with_events_only_and_shows_every_move() {
        let clock = VirtualClock::default();
        let hand = Arc::new(Hand::default());
        let face: Weak<dyn Face> = Arc::downgrade(&(hand.clone() as Arc<dyn Face>));
        assert_eq!(clock.attach(face, |now| now), BEGINNING_NS);
        clock.advance(STEP);
        clock.advance(STEP);
        assert_eq!(*hand.0.lock().unwrap(), [BEGINNING_NS + 1_000_000, BEGINNING_NS + 2_000_000]);
        assert_eq!((clock.moved(), clock.crept()), (2, false));
    }

    #[test]
    fn a_clock_that_has_moved_meanwhile_does_not_creep() {
        let clock = VirtualClock::default();
        let moved = clock.moved();
        clock.advance(STEP);
        clock.creep(moved, STEP);
        assert!(!clock.crept());
        clock.creep(clock.moved(), STEP);
        assert!(clock.crept());
        assert_eq!(clock.now_ns(), BEGINNING_NS + 2_000_000);
    }

    #[test]
    fn a_face_that_is_gone_is_forgotten() {
        let clock = VirtualClock::default();
        let hand: Arc<dyn Face> = Arc::new(Hand::default());
        clock.attach(Arc::downgrade(&hand), drop);
        drop(hand);
        clock.advance(STEP);
        assert_eq!(clock.moved(), 1);
    }

    #[test]
    fn randomness_follows_from_the_key_and_the_position() {
        let draws = |name: &str| {
            let entropy = Entropy::of(Key::of_run(7).below(name));
            let (mut first, mut second) = ([0; 16], [0; 5]);
            assert_eq!((entropy.draw(&mut first), entropy.draw(&mut second)), (0, 16));
            let mut other = [0; 8];
            entropy.another().fill_bytes(&mut other);
            (first, second, other)
        };
        assert_eq!(draws("api"), draws("api"));
        assert_ne!(draws("api"), draws("web"));
    }
}

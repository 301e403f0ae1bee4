//! Time that is skipped while everybody waits for it.
//!
//! Contract: a [`Time`] is what the parts of a run wait by. It is the host's, or it jumps: where nothing of
//! any service and nothing of this process runs or is under way, to the earliest instant that anybody waits
//! for, and no further. It never goes backwards. What happens by itself (an answer that comes) always comes
//! before what waits for a later instant. Where a service waits in a way that cannot be seen, time is
//! the host's for all from then on, and [`VirtualTime::real`] says whose fault that is.
//!
//! That nothing runs is known from two looks at all threads: each sleeps in both, and none was switched to
//! in between, so none ran between the two. A look that meets anything else is taken again later.
//!
//! Not modelled: waits of this process that do not go through a [`Time`].

use crate::clock::{host_ns, nanos};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// What is nearer is waited for.
const LEAST_JUMP: Duration = Duration::from_millis(1);

/// The pause between two attempts to find everybody asleep.
const BETWEEN_LOOKS: Duration = Duration::from_micros(300);

/// A thread, and how often it was switched to or from.
pub type Sleeper = (u32, u64);

/// A service whose waits are known.
pub trait Body: Send + Sync {
    /// Its threads, where all of them wait.
    fn look(&self) -> Option<Vec<Sleeper>>;
    /// Whether anything is under way to or from it.
    fn is_asked(&self) -> bool;
    /// The earliest instant that any of it waits for.
    fn next(&self) -> Option<u64>;
    /// Its clocks show that so much was skipped in all.
    fn show(&self, skipped: Duration);
    /// Its timers with descriptors come so much earlier. Whoever they wake sees the new time everywhere.
    fn move_timers(&self, by: Duration);
    /// Time was skipped: what is due is told so.
    fn wake(&self);
    /// The thread of this process that looks after it and wakes up by itself now and then.
    fn keeper(&self) -> Option<u32>;
}

/// Whether anything is under way in this process, apart from these threads: what sleeps, as [`Body::look`].
pub type Elsewhere = Box<dyn Fn(&BTreeSet<u32>) -> Option<Vec<Sleeper>> + Send + Sync>;

/// What a run waits by: the host's time, or one that is skipped.
#[derive(Clone, Default)]
pub struct Time(Option<Arc<VirtualTime>>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Time").field(&self.0.as_ref().map(|time| time.skipped())).finish()
    }
}

/// The time was over before it came to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

impl Time {
    /// One that is skipped.
    pub fn skipping(time: Arc<VirtualTime>) -> Self {
        Time(Some(time))
    }

    /// What skips it, if anything.
    pub fn virtual_time(&self) -> Option<&Arc<VirtualTime>> {
        self.0.as_ref()
    }

    /// How much was skipped so far.
    pub fn skipped(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |time| time.skipped())
    }

    /// Now, since an instant of the host's own.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(host_ns(libc::CLOCK_MONOTONIC)) + self.skipped()
    }

    /// Waits so long.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            None => tokio::time::sleep(duration).await,
            Some(_) => self.sleep_until(self.now() + duration).await,
        }
    }

    /// Waits until then.
    pub async fn sleep_until(&self, then: Duration) {
        let Some(time) = &self.0 else {
            return tokio::time::sleep(then.saturating_sub(self.now())).await;
        };
        let (_waits, mut jumped) = time.wait_for(nanos(then));
        loop {
            jumped.borrow_and_update();
            let left = then.saturating_sub(self.now());
            if left == Duration::ZERO {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // Its sender lives in what we hold.
                _ = jumped.changed() => {}
            }
        }
    }

    /// Waits so long, or until `then`, before asking again for what only others can change: while nobody does
    /// anything, nothing is missed by asking later. So only `then` is waited for; time is skipped past the rest.
    pub async fn ask_again(&self, pause: Duration, then: Option<Duration>) {
        let now = self.now();
        let pause = then.map_or(pause, |then| pause.min(then.saturating_sub(now)));
        let Some(time) = &self.0 else { return tokio::time::sleep(pause).await };
        let _waits = then.map(|then| time.wait_for(nanos(then)));
        let mut jumped = time.jumps.subscribe();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Its sender lives in what we hold.
            _ = jumped.changed() => {}
        }
    }

    /// What `work` comes to within so long.
    ///
    /// # Errors
    /// When it takes longer.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        self.timeout_at(self.now().saturating_add(limit), work).await
    }

    /// What `work` comes to by then.
    ///
    /// # Errors
    /// When it takes longer.
    pub async fn timeout_at<T>(&self, then: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep_until(then) => Err(Elapsed),
        }
    }
}

#[derive(Default)]
struct State {
    /// Instants that parts of this process wait for, by a number of their own.
    waits: BTreeMap<u64, u64>,
    begun: u64,
    bodies: Vec<Weak<dyn Body>>,
    /// The number of the [`Skipping`] that there is.
    skipping: Option<u64>,
    /// Services for which the time is the host's, and why.
    real: BTreeMap<String, String>,
}

/// A time that is skipped.
pub struct VirtualTime {
    elsewhere: Elsewhere,
    skipped_ns: AtomicU64,
    jumps: watch::Sender<u64>,
    state: Mutex<State>,
    changed: Condvar,
}

impl VirtualTime {
    /// A time of which nothing was skipped. Nothing is until [`VirtualTime::skip`].
    pub fn new(elsewhere: Elsewhere) -> Arc<Self> {
        Arc::new(VirtualTime {
            elsewhere,
            skipped_ns: AtomicU64::new(0),
            jumps: watch::channel(0).0,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// How much was skipped so far.
    pub fn skipped(&self) -> Duration {
        Duration::from_nanos(self.skipped_ns.load(Ordering::SeqCst))
    }

    /// Nanoseconds now, as [`Time::now`].
    pub fn now_ns(&self) -> u64 {
        host_ns(libc::CLOCK_MONOTONIC).saturating_add(self.skipped_ns.load(Ordering::SeqCst))
    }

    /// How often it jumped.
    pub fn jumps(&self) -> u64 {
        *self.jumps.borrow()
    }

    /// Services for which the time is the host's, and why.
    pub fn real(&self) -> BTreeMap<String, String> {
        self.lock().real.clone()
    }

    /// A service cannot be held: nothing is skipped any more.
    pub fn give_up(&self, service: &str, why: &str) {
        self.lock().real.entry(service.to_owned()).or_insert_with(|| why.to_owned());
    }

    /// The waits of a service count from now on.
    pub fn attach(&self, body: Weak<dyn Body>) {
        let mut state = self.lock();
        state.bodies.retain(|body| body.strong_count() > 0);
        state.bodies.push(body);
    }

    /// Does something with what was skipped before more is.
    pub fn at_rest<T>(&self, with: impl FnOnce(Duration) -> T) -> T {
        let _state = self.lock();
        with(self.skipped())
    }

    /// Skips time while this is held.
    pub fn skip(self: &Arc<Self>) -> Skipping {
        let number = {
            let mut state = self.lock();
            state.begun += 1;
            state.skipping = Some(state.begun);
            state.begun
        };
        let time = self.clone();
        let skipper = std::thread::Builder::new().name("time".to_owned()).spawn(move || time.run(number));
        if let Err(error) = skipper {
            self.give_up("faultbox", &format!("a thread could not be started: {error}"));
        }
        Skipping { time: self.clone(), number }
    }

    fn run(&self, number: u64) {
        let mut state = self.lock();
        while state.skipping == Some(number) && state.real.is_empty() {
            drop(state);
            let jumped = self.try_to_jump(number);
            state = self.lock();
            if !jumped && state.skipping == Some(number) {
                let waited = self.changed.wait_timeout(state, BETWEEN_LOOKS);
                state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            }
        }
    }

    /// Jumps, if everybody waits and somebody for the time.
    fn try_to_jump(&self, number: u64) -> bool {
        let bodies = self.bodies(&self.lock());
        let far = |next: u64| next > self.now_ns().saturating_add(nanos(LEAST_JUMP));
        if !self.next(&bodies).is_some_and(far) {
            return false;
        }
        let Some(first) = self.look(&bodies) else { return false };
        // Where nobody ran since the first look, this is as it was then.
        if bodies.iter().any(|body| body.is_asked()) || self.look(&bodies) != Some(first) {
            return false;
        }
        let state = self.lock();
        let next = [state.waits.values().min().copied(), next_of(&bodies)].into_iter().flatten().min();
        let by = next.map_or(0, |next| next.saturating_sub(self.now_ns()));
        if by == 0 || state.skipping != Some(number) || !state.real.is_empty() {
            return false;
        }
        let skipped = self.skipped() + Duration::from_nanos(by);
        // All clocks first, those that are read here too: whoever is woken by the jump must not see one behind.
        bodies.iter().for_each(|body| body.show(skipped));
        self.skipped_ns.store(nanos(skipped), Ordering::SeqCst);
        bodies.iter().for_each(|body| body.move_timers(Duration::from_nanos(by)));
        drop(state);
        self.jumps.send_modify(|jumps| *jumps += 1);
        bodies.iter().for_each(|body| body.wake());
        true
    }

    fn bodies(&self, state: &State) -> Vec<Arc<dyn Body>> {
        state.bodies.iter().filter_map(Weak::upgrade).collect()
    }

    fn next(&self, bodies: &[Arc<dyn Body>]) -> Option<u64> {
        let ours = self.lock().waits.values().min().copied();
        [ours, next_of(bodies)].into_iter().flatten().min()
    }

    /// Everybody, where everybody sleeps.
    fn look(&self, bodies: &[Arc<dyn Body>]) -> Option<Vec<Sleeper>> {
        let keepers = bodies.iter().filter_map(|body| body.keeper()).collect();
        let mut seen = (self.elsewhere)(&keepers)?;
        for body in bodies {
            seen.extend(body.look()?);
        }
        Some(seen)
    }

    fn wait_for(self: &Arc<Self>, then: u64) -> (Waits, watch::Receiver<u64>) {
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        state.waits.insert(number, then);
        (Waits { time: self.clone(), number }, self.jumps.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn next_of(bodies: &[Arc<dyn Body>]) -> Option<u64> {
    bodies.iter().filter_map(|body| body.next()).min()
}

/// Time is skipped while this is held; none is when it was dropped.
pub struct Skipping {
    time: Arc<VirtualTime>,
    number: u64,
}

impl Drop for Skipping {
    fn drop(&mut self) {
        let mut state = self.time.lock();
        if state.skipping == Some(self.number) {
            state.skipping = None;
        }
        drop(state);
        self.time.changed.notify_all();
    }
}

/// A part of this process waits.
struct Waits {
    time: Arc<VirtualTime>,
    number: u64,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.time.lock().waits.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: where time jumps to, and where it does not. Services are stubs; the host's clock is behind all of it.

    use super::*;
    use std::sync::atomic::AtomicBool;

    /// A service that waits for an instant, or runs.
    #[derive(Default)]
    struct Stub {
        next: Mutex<Option<u64>>,
        runs: AtomicBool,
        looks: AtomicU64,
        restless: AtomicBool,
        asked: AtomicBool,
        shown: Mutex<Vec<Duration>>,
        /// What was skipped when its timers were moved.
        moved: Mutex<Vec<Duration>>,
        time: Mutex<Weak<VirtualTime>>,
    }

    impl Body for Stub {
        fn look(&self) -> Option<Vec<Sleeper>> {
            let looks = self.looks.fetch_add(1, Ordering::SeqCst);
            let switches = if self.restless.load(Ordering::SeqCst) { looks } else { 0 };
            (!self.runs.load(Ordering::SeqCst)).then(|| vec![(1, switches)])
        }
        fn is_asked(&self) -> bool {
            self.asked.load(Ordering::SeqCst)
        }
        fn next(&self) -> Option<u64> {
            *self.next.lock().unwrap()
        }
        fn show(&self, skipped: Duration) {
            self.shown.lock().unwrap().push(skipped);
        }
        fn move_timers(&self, _by: Duration) {
            let time = self.time.lock().unwrap().upgrade().unwrap();
            self.moved.lock().unwrap().push(time.skipped());
        }
        fn wake(&self) {}
        fn keeper(&self) -> Option<u32> {
            None
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// A time, as if it were being skipped, and a service that waits for an hour.
    fn stub() -> (Arc<VirtualTime>, Arc<Stub>) {
        let time = VirtualTime::new(Box::new(|_| Some(Vec::new())));
        time.lock().skipping = Some(0);
        let stub = Arc::new(Stub::default());
        *stub.next.lock().unwrap() = Some(time.now_ns() + nanos(HOUR));
        *stub.time.lock().unwrap() = Arc::downgrade(&time);
        let body: Arc<dyn Body> = stub.clone();
        time.attach(Arc::downgrade(&body));
        (time, stub)
    }

    #[test]
    fn it_jumps_to_the_earliest_wait_and_shows_that_first() {
        let (time, stub) = stub();
        let (_ours, _) = time.wait_for(time.now_ns() + nanos(HOUR / 2));
        assert!(time.try_to_jump(0));
        let half = time.skipped();
        assert!(half <= HOUR / 2 && half > HOUR / 3, "{half:?}");
        drop(_ours);
        assert!(time.try_to_jump(0));
        assert!(time.skipped() <= HOUR && time.skipped() > HOUR / 2);
        assert_eq!(*stub.shown.lock().unwrap(), [half, time.skipped()]);
        // A timer that comes at once finds the new time everywhere.
        assert_eq!(*stub.moved.lock().unwrap(), [half, time.skipped()]);
        // What is due is not jumped to again.
        assert!(!time.try_to_jump(0));
        assert_eq!(time.jumps(), 2);
    }

    #[test]
    fn it_stays_where_anybody_runs_or_ran_or_is_asked() {
        let (time, stub) = stub();
        for flag in [&stub.runs, &stub.restless, &stub.asked] {
            flag.store(true, Ordering::SeqCst);
            assert!(!time.try_to_jump(0));
            flag.store(false, Ordering::SeqCst);
        }
        *stub.next.lock().unwrap() = None;
        assert!(!time.try_to_jump(0), "nobody waits for the time");
        assert_eq!((time.skipped(), time.jumps()), (Duration::ZERO, 0));
    }

    #[test]
    fn it_stays_for_good_where_a_service_cannot_be_held() {
        let (time, _stub) = stub();
        time.give_up("api", "it runs in a container");
        time.give_up("api", "another reason");
        assert!(!time.try_to_jump(0));
        assert_eq!(time.real().into_values().collect::<Vec<_>>(), ["it runs in a container"]);
    }

    #[test]
    fn what_is_not_to_be_skipped_any_more_is_not() {
        let (time, _stub) = stub();
        drop(Skipping { time: time.clone(), number: 0 });
        assert!(!time.try_to_jump(0));
    }

    #[tokio::test]
    async fn sleeps_end_with_jumps_and_what_only_asks_again_holds_none_up() {
        let (time, stub) = stub();
        *stub.next.lock().unwrap() = None;
        let ours = Time::skipping(time.clone());
        let skipping = time.skip();
        let began = ours.now();
        // Who asks again listens before anybody waits for what can be jumped to.
        let late = async { ours.timeout(HOUR, std::future::pending::<()>()).await };
        let ((), late) = tokio::join!(biased; ours.ask_again(HOUR * 9, None), late);
        assert_eq!(late, Err(Elapsed));
        assert!(ours.now() - began >= HOUR && ours.now() - began < HOUR * 2);
        assert_eq!(ours.timeout(HOUR, async { 7 }).await, Ok(7));
        drop(skipping);
        assert!(time.skipped() < HOUR * 2);
    }

    #[tokio::test]
    async fn the_hosts_time_is_not_skipped() {
        let time = Time::default();
        time.sleep(Duration::from_millis(1)).await;
        assert_eq!(time.timeout(Duration::ZERO, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(time.skipped(), Duration::ZERO);
    }
}

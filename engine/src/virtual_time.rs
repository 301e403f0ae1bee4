//! Time that passes only while everybody waits for it.
//!
//! Contract: a [`Time`] is what the parts of a run wait by. It is the host's, or it stands still: while it is
//! skipped, all clocks show one instant, in this process and in the services, and it moves only where nothing
//! of any service and nothing of this process runs or is under way: to the earliest instant that anybody waits
//! for, and no further. So what happens by itself (an answer that comes) comes before what waits for a later
//! instant. It never goes backwards. Who waits for a clock by looking at it again and again does not wait for
//! ever: where services have worked for [`WORK`] since it last moved, it passes as they work, and where
//! somebody has not rested for [`PATIENCE`], as the host's does, until everybody rests. Where a service waits in
//! a way that cannot be seen, it passes as the host's for good, and [`VirtualTime::real`] says whose fault that is.
//!
//! That nothing runs is known from a look at all threads, each of which sleeps, and from what is the same before and
//! after it: the processor time that services took, how many calls of theirs were taken or answered, and how often
//! threads of this process were switched to. So none ran meanwhile, and none was woken by one that did. A look
//! that meets anything else is taken again later.
//!
//! While nobody in this process waits by a [`Time`], nothing is skipped: what it does then is real.
//!
//! Not modelled: waits of this process that do not go through a [`Time`] beside such that do.

use crate::clock::{monotonic_ns, nanos, wall_ns};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// The pause between two attempts to find everybody asleep.
const BETWEEN_LOOKS: Duration = Duration::from_micros(150);

/// How much processor time services take while time stands still: more than a request takes them.
const WORK: Duration = Duration::from_millis(5);

/// How long somebody may run while time stands still.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is moved while somebody runs.
const CREEP: Duration = Duration::from_millis(1);

/// A thread, and how often it was switched to or from.
pub type Sleeper = (u32, u64);

/// A service whose waits are known.
pub trait Body: Send + Sync {
    /// Whether all of its threads wait.
    fn rests(&self) -> bool;
    /// How many of its calls were taken or answered.
    fn calls(&self) -> u64;
    /// Whether anything is under way to or from it.
    fn is_asked(&self) -> bool;
    /// The earliest instant that any of it waits for.
    fn next(&self) -> Option<u64>;
    /// How much processor time its processes have taken, nanoseconds.
    fn worked(&self) -> u64;
    /// Its clocks show this instant.
    fn show(&self, now_ns: u64);
    /// Every clock has moved: what is due ends.
    fn wake(&self);
    /// The thread of this process that looks after it and wakes up by itself now and then.
    fn keeper(&self) -> Option<u32>;
}

/// The threads of this process, where all of them sleep. Those that are given wake up by themselves now and then.
pub type Elsewhere = Box<dyn Fn(&BTreeSet<u32>) -> Option<Vec<Sleeper>> + Send + Sync>;

/// What a run waits by: the host's time, or one that can be skipped.
#[derive(Clone, Default)]
pub struct Time(Option<Arc<VirtualTime>>);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Time").field(&self.0.as_ref().map(|time| time.now_ns())).finish()
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

    /// Something goes on that cannot be seen, a command on the host for example: nothing is skipped until what
    /// this gives is dropped.
    pub fn busy(&self) -> Option<Busy> {
        self.0.as_ref().map(|time| {
            time.lock().busy += 1;
            Busy(time.clone())
        })
    }

    /// Now, since an instant of the host's own.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.0.as_ref().map_or_else(monotonic_ns, |time| time.now_ns()))
    }

    /// Waits so long.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            None => tokio::time::sleep(duration).await,
            Some(_) => self.sleep_until(self.now() + duration).await,
        }
    }

    /// Where time is skipped, waits until everybody rests.
    pub async fn rest(&self) {
        if self.0.is_some() {
            self.sleep(Duration::from_nanos(1)).await;
        }
    }

    /// Waits until then.
    pub async fn sleep_until(&self, then: Duration) {
        let Some(time) = &self.0 else {
            return tokio::time::sleep(then.saturating_sub(self.now())).await;
        };
        let (_waits, mut moved) = time.wait_for(nanos(then));
        loop {
            moved.borrow_and_update();
            let left = then.saturating_sub(self.now());
            if left == Duration::ZERO {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left), if !time.is_led() => {}
                // Its sender lives in what we hold.
                _ = moved.changed() => {}
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
        let mut moved = time.moves.subscribe();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Its sender lives in what we hold.
            _ = moved.changed() => {}
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
    /// How many [`Skipping`]s there are, and the number of the thread that leads meanwhile.
    skippings: u32,
    leader: Option<u64>,
    /// How many [`Busy`] there are.
    busy: u32,
    /// Services for which the time is the host's, and why.
    real: BTreeMap<String, String>,
}

/// What the clocks show.
#[derive(Clone, Copy)]
struct Shown {
    now_ns: u64,
    /// When the host's clock showed it, where time passes as the host's does.
    passes_since: Option<u64>,
}

/// What became of a time that was to be skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How much was: what everybody waited for.
    pub skipped: Duration,
    /// In how many jumps.
    pub jumps: u64,
    /// How much passed as services worked.
    pub worked: Duration,
    /// How much passed as the host's does, as somebody did not rest.
    pub crept: Duration,
    /// Services for which it is the host's, and why.
    pub real: BTreeMap<String, String>,
}

/// A time that can be skipped.
pub struct VirtualTime {
    elsewhere: Elsewhere,
    shown: Mutex<Shown>,
    /// The wall clock at instant 0.
    wall_ns: u64,
    skipped_ns: AtomicU64,
    jumps: AtomicU64,
    worked_ns: AtomicU64,
    crept_ns: AtomicU64,
    /// Says that it has moved, or moves in another way.
    moves: watch::Sender<()>,
    state: Mutex<State>,
}

impl VirtualTime {
    /// A time that passes as the host's does until [`VirtualTime::skip`].
    pub fn new(elsewhere: Elsewhere) -> Arc<Self> {
        let now_ns = monotonic_ns();
        Arc::new(VirtualTime {
            elsewhere,
            shown: Mutex::new(Shown { now_ns, passes_since: Some(now_ns) }),
            wall_ns: wall_ns().saturating_sub(now_ns),
            skipped_ns: AtomicU64::new(0),
            jumps: AtomicU64::new(0),
            worked_ns: AtomicU64::new(0),
            crept_ns: AtomicU64::new(0),
            moves: watch::channel(()).0,
            state: Mutex::default(),
        })
    }

    /// What became of it so far.
    pub fn sum(&self) -> Skipped {
        Skipped {
            skipped: Duration::from_nanos(self.skipped_ns.load(Ordering::SeqCst)),
            jumps: self.jumps.load(Ordering::SeqCst),
            worked: Duration::from_nanos(self.worked_ns.load(Ordering::SeqCst)),
            crept: Duration::from_nanos(self.crept_ns.load(Ordering::SeqCst)),
            real: self.real(),
        }
    }

    /// Nanoseconds now, as [`Time::now`].
    pub fn now_ns(&self) -> u64 {
        let Shown { now_ns, passes_since } = *self.shown();
        now_ns.saturating_add(passes_since.map_or(0, |since| monotonic_ns().saturating_sub(since)))
    }

    /// The wall clock at an instant, nanoseconds since the Unix epoch.
    pub fn wall_ns(&self, now_ns: u64) -> u64 {
        self.wall_ns.saturating_add(now_ns)
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

    /// Does something with what the clocks show before they move.
    pub fn at_rest<T>(&self, with: impl FnOnce(u64) -> T) -> T {
        let _state = self.lock();
        with(self.now_ns())
    }

    /// Time passes only while everybody waits, for as long as what this gives, or has given before, is there.
    pub fn skip(self: &Arc<Self>) -> Skipping {
        let mut state = self.lock();
        state.skippings += 1;
        let skipping = Skipping(self.clone());
        if state.skippings > 1 {
            return skipping;
        }
        state.begun += 1;
        let number = state.begun;
        state.leader = Some(number);
        self.lead();
        drop(state);
        let time = self.clone();
        let leader = std::thread::Builder::new().name("time".to_owned()).spawn(move || time.run(number));
        if let Err(error) = leader {
            self.give_up("faultbox", &format!("a thread could not be started: {error}"));
            self.let_go();
        }
        skipping
    }

    /// Whether it stands still but where it is moved.
    fn is_led(&self) -> bool {
        self.shown().passes_since.is_none()
    }

    fn lead(&self) {
        let now_ns = self.now_ns();
        *self.shown() = Shown { now_ns, passes_since: None };
        self.moves.send_modify(|()| {});
    }

    fn let_go(&self) {
        self.shown().passes_since.get_or_insert_with(monotonic_ns);
        self.moves.send_modify(|()| {});
    }

    fn run(&self, number: u64) {
        let (mut before, mut meanwhile) = (None, Meanwhile::default());
        while self.lock().leader == Some(number) {
            let (given_up, bodies) = {
                let state = self.lock();
                (!state.real.is_empty(), self.bodies(&state))
            };
            let worked = worked(&bodies);
            // Who has worked since the last time may still do so: no look is worth it.
            let still = before.replace(worked) == Some(worked);
            if still && self.try_to_jump(number) {
                (before, meanwhile) = (None, Meanwhile::default());
                continue;
            }
            match meanwhile.passes(monotonic_ns(), given_up, worked) {
                Passes::Nothing => {}
                Passes::AsWorked(by) => self.creep(number, by, &self.worked_ns),
                Passes::AsTheHosts(by) => self.creep(number, by, &self.crept_ns),
            }
            std::thread::park_timeout(if given_up { CREEP } else { BETWEEN_LOOKS });
        }
    }

    /// Moves on though somebody runs, which is summed.
    fn creep(&self, number: u64, by: u64, sum: &AtomicU64) {
        let state = self.lock();
        if state.leader == Some(number) {
            sum.fetch_add(by, Ordering::SeqCst);
            let bodies = self.bodies(&state);
            self.move_on(state, &bodies, by);
        }
    }

    /// Jumps, if everybody waits and somebody for the time.
    fn try_to_jump(&self, number: u64) -> bool {
        let (bodies, by) = {
            let state = self.lock();
            let bodies = self.bodies(&state);
            let by = self.ahead(&state, number, &bodies);
            (bodies, by)
        };
        if by.is_none() {
            return false;
        }
        let Some(before) = self.look(&bodies) else { return false };
        let rest = bodies.iter().all(|body| body.rests()) && !bodies.iter().any(|body| body.is_asked());
        if !rest || self.look(&bodies) != Some(before) {
            return false;
        }
        let state = self.lock();
        let Some(by) = self.ahead(&state, number, &bodies) else { return false };
        self.skipped_ns.fetch_add(by, Ordering::SeqCst);
        self.jumps.fetch_add(1, Ordering::SeqCst);
        self.move_on(state, &bodies, by);
        true
    }

    /// How far ahead the earliest instant is that may be jumped to. Where nobody here waits for the services, what
    /// is done here is real.
    fn ahead(&self, state: &State, number: u64, bodies: &[Arc<dyn Body>]) -> Option<u64> {
        let may = state.leader == Some(number) && state.busy == 0 && state.real.is_empty();
        let ours = state.waits.values().min().copied().filter(|_| may)?;
        let next = bodies.iter().filter_map(|body| body.next()).fold(ours, u64::min);
        Some(next.saturating_sub(self.now_ns())).filter(|by| *by > 0)
    }

    /// All clocks first: whoever is woken must not see one behind.
    fn move_on(&self, state: MutexGuard<'_, State>, bodies: &[Arc<dyn Body>], by: u64) {
        let now_ns = self.now_ns().saturating_add(by);
        bodies.iter().for_each(|body| body.show(now_ns));
        self.shown().now_ns = now_ns;
        drop(state);
        self.moves.send_modify(|()| {});
        bodies.iter().for_each(|body| body.wake());
    }

    fn bodies(&self, state: &State) -> Vec<Arc<dyn Body>> {
        state.bodies.iter().filter_map(Weak::upgrade).collect()
    }

    /// This process's threads, where they sleep, and what services did so far.
    fn look(&self, bodies: &[Arc<dyn Body>]) -> Option<(Vec<Sleeper>, u64, u64)> {
        let keepers = bodies.iter().filter_map(|body| body.keeper()).collect();
        let calls = bodies.iter().map(|body| body.calls()).sum();
        Some(((self.elsewhere)(&keepers)?, worked(bodies), calls))
    }

    fn wait_for(self: &Arc<Self>, then: u64) -> (Waits, watch::Receiver<()>) {
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        state.waits.insert(number, then);
        (Waits { time: self.clone(), number }, self.moves.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn worked(bodies: &[Arc<dyn Body>]) -> u64 {
    bodies.iter().map(|body| body.worked()).sum()
}

/// How much time passes though somebody runs, nanoseconds.
#[derive(Debug, PartialEq, Eq)]
enum Passes {
    Nothing,
    AsWorked(u64),
    AsTheHosts(u64),
}

/// What went on since time last jumped.
#[derive(Default)]
struct Meanwhile {
    /// The host's clock and what services had worked, at first and the last time.
    first: Option<(u64, u64)>,
    last: (u64, u64),
}

impl Meanwhile {
    /// How much passes now.
    fn passes(&mut self, now: u64, given_up: bool, worked: u64) -> Passes {
        let Some(first) = self.first else {
            self.last = (now, worked);
            self.first = Some(self.last);
            return Passes::Nothing;
        };
        let passed = now.saturating_sub(self.last.0);
        if passed < nanos(CREEP) {
            return Passes::Nothing;
        }
        let last = std::mem::replace(&mut self.last, (now, worked));
        // What a process had worked is gone with it.
        let did = self.last.1.saturating_sub(last.1);
        match () {
            () if given_up || now.saturating_sub(first.0) > nanos(PATIENCE) => Passes::AsTheHosts(passed),
            () if did > 0 && self.last.1.saturating_sub(first.1) > nanos(WORK) => Passes::AsWorked(did),
            () => Passes::Nothing,
        }
    }
}

/// Time is skipped while this is held; it passes as the host's does when this was dropped.
pub struct Skipping(Arc<VirtualTime>);

impl Drop for Skipping {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.skippings -= 1;
        if state.skippings == 0 {
            state.leader = None;
            self.0.let_go();
        }
    }
}

/// Nothing is skipped while this is held.
pub struct Busy(Arc<VirtualTime>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
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
        works: AtomicU64,
        restless: AtomicBool,
        asked: AtomicBool,
        shown: Mutex<Vec<u64>>,
        /// What this process's clock showed when it was woken.
        woken: Mutex<Vec<u64>>,
        time: Mutex<Weak<VirtualTime>>,
        /// This process waits for it.
        ours: Mutex<Option<Waits>>,
    }

    impl Body for Stub {
        fn rests(&self) -> bool {
            !self.runs.load(Ordering::SeqCst)
        }
        fn calls(&self) -> u64 {
            0
        }
        fn is_asked(&self) -> bool {
            self.asked.load(Ordering::SeqCst)
        }
        fn next(&self) -> Option<u64> {
            *self.next.lock().unwrap()
        }
        fn worked(&self) -> u64 {
            let works = u64::from(self.restless.load(Ordering::SeqCst));
            self.works.fetch_add(works, Ordering::SeqCst)
        }
        fn show(&self, now_ns: u64) {
            self.shown.lock().unwrap().push(now_ns);
        }
        fn wake(&self) {
            let time = self.time.lock().unwrap().upgrade().unwrap();
            self.woken.lock().unwrap().push(time.now_ns());
        }
        fn keeper(&self) -> Option<u32> {
            None
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// A time, as if it were being skipped, and a service that waits for an hour.
    fn stub() -> (Arc<VirtualTime>, Arc<Stub>) {
        let time = VirtualTime::new(Box::new(|_| Some(Vec::new())));
        {
            let mut state = time.lock();
            (state.skippings, state.leader) = (1, Some(0));
        }
        time.lead();
        let stub = Arc::new(Stub::default());
        *stub.next.lock().unwrap() = Some(time.now_ns() + nanos(HOUR));
        *stub.time.lock().unwrap() = Arc::downgrade(&time);
        *stub.ours.lock().unwrap() = Some(time.wait_for(time.now_ns() + nanos(HOUR * 9)).0);
        let body: Arc<dyn Body> = stub.clone();
        time.attach(Arc::downgrade(&body));
        (time, stub)
    }

    #[test]
    fn it_jumps_to_the_earliest_wait_and_shows_that_first() {
        let (time, stub) = stub();
        let began = time.now_ns();
        let (ours, _) = time.wait_for(began + nanos(HOUR / 2));
        assert!(time.try_to_jump(0));
        assert_eq!((time.now_ns(), time.sum().skipped), (began + nanos(HOUR / 2), HOUR / 2));
        drop(ours);
        assert!(time.try_to_jump(0));
        assert_eq!((time.now_ns(), time.sum().skipped), (began + nanos(HOUR), HOUR));
        assert_eq!(*stub.shown.lock().unwrap(), [HOUR / 2, HOUR].map(|by| began + nanos(by)));
        // Who is woken finds the new time everywhere.
        assert_eq!(*stub.woken.lock().unwrap(), [HOUR / 2, HOUR].map(|by| began + nanos(by)));
        // What is due is not jumped to again.
        assert!(!time.try_to_jump(0));
        assert_eq!((time.sum().jumps, time.sum().crept), (2, Duration::ZERO));
        assert_eq!(time.wall_ns(time.now_ns()) - time.wall_ns(began), nanos(HOUR));
    }

    #[test]
    fn where_somebody_never_rests_it_moves_by_what_passes() {
        let (time, stub) = stub();
        let began = time.now_ns();
        stub.runs.store(true, Ordering::SeqCst);
        time.creep(0, 5, &time.worked_ns);
        time.creep(0, 6, &time.crept_ns);
        time.creep(1, 7, &time.crept_ns);
        assert_eq!((time.now_ns() - began, time.sum().skipped), (11, Duration::ZERO));
        assert_eq!([time.sum().worked, time.sum().crept], [5, 6].map(Duration::from_nanos));
        assert_eq!(*stub.shown.lock().unwrap(), [began + 5, began + 11]);
    }

    #[test]
    fn it_passes_as_services_work_once_they_have_worked_a_while_and_as_the_hosts_later() {
        let mut meanwhile = Meanwhile::default();
        let (work, creep, patience) = (nanos(WORK), nanos(CREEP), nanos(PATIENCE));
        let mut passes = |now, worked| meanwhile.passes(now, false, worked);
        assert_eq!(passes(7, 100), Passes::Nothing);
        assert_eq!(passes(8, 100 + work * 9), Passes::Nothing, "no look is worth it yet");
        assert_eq!(passes(7 + creep, 100 + work), Passes::Nothing);
        assert_eq!(passes(7 + creep * 2, 100 + work + 3), Passes::AsWorked(3));
        assert_eq!(passes(7 + creep * 3, 100 + work + 3), Passes::Nothing, "nobody worked");
        assert_eq!(passes(7 + creep * 4, 50), Passes::Nothing, "a process has ended");
        assert_eq!(passes(8 + patience, 50), Passes::AsTheHosts(patience + 1 - creep * 4));
        let mut meanwhile = Meanwhile { first: Some((0, 0)), last: (0, 0) };
        assert_eq!(meanwhile.passes(creep, true, 0), Passes::AsTheHosts(creep));
    }

    #[test]
    fn it_stays_where_anybody_runs_or_ran_or_is_asked() {
        let (time, stub) = stub();
        for flag in [&stub.runs, &stub.restless, &stub.asked] {
            flag.store(true, Ordering::SeqCst);
            assert!(!time.try_to_jump(0));
            flag.store(false, Ordering::SeqCst);
        }
        let busy = Time::skipping(time.clone()).busy();
        assert!(!time.try_to_jump(0), "a command runs");
        drop(busy);
        *stub.ours.lock().unwrap() = None;
        assert!(!time.try_to_jump(0), "what is done here is real");
        assert_eq!((time.sum().skipped, time.sum().jumps), (Duration::ZERO, 0));
        assert!(time.is_led());
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
        let another = time.skip();
        drop(Skipping(time.clone()));
        assert!(time.is_led(), "somebody else still has it skipped");
        drop(another);
        assert!(!time.try_to_jump(0) && !time.is_led());
    }

    #[tokio::test]
    async fn sleeps_end_with_jumps_and_what_only_asks_again_holds_none_up() {
        let time = VirtualTime::new(Box::new(|_| Some(Vec::new())));
        let ours = Time::skipping(time.clone());
        let skipping = time.skip();
        let began = ours.now();
        // Who asks again listens before anybody waits for what can be jumped to.
        let late = async { ours.timeout(HOUR, std::future::pending::<()>()).await };
        let ((), late) = tokio::join!(biased; ours.ask_again(HOUR * 9, None), late);
        assert_eq!(late, Err(Elapsed));
        assert_eq!((ours.now() - began, time.sum().skipped), (HOUR, HOUR));
        assert_eq!(ours.timeout(HOUR, async { 7 }).await, Ok(7));
        drop(skipping);
        assert_eq!(ours.timeout(Duration::from_millis(1), std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(time.sum().skipped, HOUR);
    }

    #[tokio::test]
    async fn the_hosts_time_is_not_skipped() {
        let time = Time::default();
        time.sleep(Duration::from_millis(1)).await;
        assert_eq!(time.timeout(Duration::ZERO, std::future::pending::<()>()).await, Err(Elapsed));
        assert!(time.virtual_time().is_none());
    }
}

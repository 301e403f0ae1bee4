//! Calls that wait for a time: held here, until what they wait for comes or their time is over.
//!
//! Contract: a held call is not made. What it waits for is looked at through duplicates of its descriptors, or
//! in its caller's memory (a futex's word); when it has come, the call gets what it would have got. When its
//! time is over (by a clock that is skipped, [`VirtualTime`]), it is told so. A signal ends it within
//! [`TICK`], as it would have ended the call. Timers with descriptors are set off when their instant comes.
//! Where a service waits for a time in another way (interval timers, timeouts of sockets,
//! signal masks, priority-inheriting futexes), it is given up: the time is the host's from then on.
//!
//! A futex is not woken: whoever wakes its word changes it before (futex(7)), so all words are looked at when one
//! wakes any, and one that is woken for nothing looks again.
//!
//! Not modelled: timeouts of the kernel's own protocols (connection attempts, keep-alive), time that a
//! processor takes, `rdtsc`.

mod asked;
mod timer;

pub(super) use asked::traps;

use super::mediate::Mediator;
use super::remap::process_of;
use super::stillness::{self, Watch};
use super::sys::{self, Notification, Notifier, Response, Wait};
use super::target::{read_memory, write_memory};
use crate::clock::{monotonic_ns, nanos};
use crate::virtual_time::{Body, VirtualTime};
use asked::{Asked, Until};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use timer::Timer;

/// How long a signal may wait for a held call to end.
const TICK: Duration = Duration::from_millis(10);
/// A sleep that is shorter is made: to hold it would take as long.
const SHORT: Duration = Duration::from_micros(100);
/// How late such a sleep ends at most.
const SURELY: Duration = Duration::from_millis(1);

/// A call that is held.
struct Held {
    call: Notification,
    /// When its time is over.
    deadline: u64,
    until: Until,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    /// Threads whose calls a rule delays.
    delayed: BTreeMap<u32, usize>,
    /// Timers with descriptors that are set, by process and descriptor.
    timers: BTreeMap<(u32, i32), Timer>,
}

/// Holds the calls of one service.
pub(super) struct Holder {
    service: String,
    time: Arc<VirtualTime>,
    notifier: Arc<Notifier>,
    mediator: Arc<Mediator>,
    wakes: EventFd,
    /// The thread that serves the service's calls.
    keeper: AtomicU32,
    /// How many calls were taken or answered.
    activity: AtomicU64,
    /// When all short sleeps are over, by the host's clock.
    short: AtomicU64,
    watch: Watch,
    state: Mutex<State>,
}

/// A call that a rule delays, until this is dropped.
pub(super) struct Delayed(Arc<Holder>, u32);

impl Drop for Delayed {
    fn drop(&mut self) {
        self.0.activity.fetch_add(1, Ordering::SeqCst);
        let mut state = self.0.lock();
        if let Some(count) = state.delayed.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.delayed.remove(&self.1);
            }
        }
    }
}

impl Holder {
    pub(super) fn new(
        service: &str,
        time: Arc<VirtualTime>,
        notifier: Arc<Notifier>,
        mediator: Arc<Mediator>,
    ) -> nix::Result<Arc<Self>> {
        let holder = Arc::new(Holder {
            service: service.to_owned(),
            time: time.clone(),
            notifier,
            mediator,
            wakes: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            keeper: AtomicU32::new(0),
            activity: AtomicU64::new(0),
            short: AtomicU64::new(0),
            watch: Watch::default(),
            state: Mutex::default(),
        });
        let body: Arc<dyn Body> = holder.clone();
        time.attach(Arc::downgrade(&body));
        Ok(holder)
    }

    /// No call of it is held any more.
    pub(super) fn end(&self) {
        self.keeper.store(0, Ordering::SeqCst);
        let mut state = self.lock();
        state.held.clear();
        state.timers.clear();
    }

    /// What its calls wait by.
    pub(super) fn time(&self) -> crate::virtual_time::Time {
        crate::virtual_time::Time::skipping(self.time.clone())
    }

    /// A thread's call is delayed until what this gives is dropped.
    pub(super) fn delay(self: &Arc<Self>, tid: u32) -> Delayed {
        *self.lock().delayed.entry(tid).or_default() += 1;
        Delayed(self.clone(), tid)
    }

    /// Takes on a call that waits for a time. `false`: it is another one, and nothing was done.
    pub(super) fn take(&self, call: &Notification) -> bool {
        match self.asked(call) {
            Asked::Passes => return false,
            Asked::Unseen(why) => {
                self.time.give_up(&self.service, why);
                return false;
            }
            Asked::Gets(response) => self.notifier.respond(call.id, response),
            // What was read is about another thread where this one is gone.
            Asked::Waits(deadline, until) if self.notifier.valid(call.id) => {
                self.lock().held.push(Held { call: *call, deadline, until });
            }
            Asked::Waits(..) => {}
        }
        true
    }

    /// Waits for the next call, and looks after those that are held.
    pub(super) fn wait(&self) -> nix::Result<Wait> {
        self.keeper.store(nix::unistd::gettid().as_raw().cast_unsigned(), Ordering::SeqCst);
        let mut ticked = false;
        loop {
            let pause = self.tend(ticked);
            let watched: Vec<(Arc<OwnedFd>, PollFlags)> =
                self.lock().held.iter().flat_map(Held::watched).collect();
            let mut fds = vec![
                PollFd::new(self.notifier.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.wakes.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(watched.iter().map(|(fd, events)| PollFd::new(fd.as_fd(), *events)));
            let ready = ppoll(&mut fds, pause.map(TimeSpec::from_duration), None)?;
            ticked = ready == 0;
            let calls = fds.first().and_then(PollFd::revents).unwrap_or(PollFlags::empty());
            if calls.contains(PollFlags::POLLIN) {
                self.activity.fetch_add(1, Ordering::SeqCst);
                return Ok(Wait::Ready);
            }
            if !calls.is_empty() {
                return Ok(Wait::Over);
            }
            // Only says that something is due.
            let _ = self.wakes.read();
        }
    }

    /// Ends the calls that have what they wait for. How long the others can do without.
    fn tend(&self, ticked: bool) -> Option<Duration> {
        let now = self.time.now_ns();
        let mut answers = Vec::new();
        let pause = {
            let mut state = self.lock();
            state.held.retain(|held| {
                if !self.notifier.valid(held.call.id) {
                    return false;
                }
                let answer = held.answer(now).or_else(|| {
                    let signalled =
                        || self.watch.thread(held.call.tid).is_some_and(|thread| thread.signals != 0);
                    (ticked && signalled()).then(|| held.interrupted(now))
                });
                answers.extend(answer.map(|answer| (held.deadline, held.call.id, answer)));
                answer.is_none()
            });
            (!state.held.is_empty()).then_some(TICK)
        };
        // In the order in which their times were over.
        answers.sort_by_key(|(deadline, ..)| *deadline);
        for (_, id, answer) in answers {
            self.activity.fetch_add(1, Ordering::SeqCst);
            self.notifier.respond(id, answer);
        }
        pause
    }

    /// Sets off the timers whose instants have come.
    fn set_off(&self, now_ns: u64) {
        self.lock().timers.retain(|(pid, fd), timer| {
            if timer.at_ns > now_ns {
                return true;
            }
            if let Some(kernels) = taken(*pid, *fd) {
                // One that is no timer any more is nobody's.
                let _ = sys::set_timer(kernels.as_fd(), Duration::from_nanos(1));
            }
            let next = timer.next(now_ns);
            *timer = next.unwrap_or(*timer);
            next.is_some()
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Held {
    /// What the call gets now, if it is over.
    fn answer(&self, now: u64) -> Option<Response> {
        let Held { call, deadline, until } = self;
        match until {
            Until::Nothing => {}
            Until::Events(epoll, at, most) => {
                if let Some(answer) = told(call.tid, epoll, *at, *most) {
                    return Some(answer);
                }
            }
            Until::Ready(watched, _) if any_ready(watched) => return Some(Response::Continue),
            Until::Ready(..) => {}
            Until::Word(at, value) => {
                if read_word(call.tid, *at).is_none_or(|word| word != *value) {
                    return Some(Response::Success);
                }
            }
        }
        if *deadline <= now {
            return Some(match until {
                Until::Word(..) => Response::Errno(libc::ETIMEDOUT),
                Until::Ready(_, writes) => {
                    let written = writes.iter().all(|(at, bytes)| write_memory(call.tid, *at, bytes));
                    if written { Response::Success } else { Response::Errno(libc::EFAULT) }
                }
                Until::Nothing | Until::Events(..) => Response::Success,
            });
        }
        None
    }

    /// A signal ends it.
    fn interrupted(&self, now: u64) -> Response {
        let [_, b, _, d, ..] = self.call.args;
        let left = match libc::c_long::from(self.call.number) {
            libc::SYS_nanosleep => Some(b),
            libc::SYS_clock_nanosleep if b as i32 & libc::TIMER_ABSTIME == 0 => Some(d),
            _ => None,
        };
        if let Some(at) = left.filter(|at| *at != 0) {
            let left = Duration::from_nanos(self.deadline.saturating_sub(now));
            let words = [left.as_secs().to_le_bytes(), u64::from(left.subsec_nanos()).to_le_bytes()];
            write_memory(self.call.tid, at, &words.concat());
        }
        Response::Errno(libc::EINTR)
    }

    /// Whether what it waits for is there, unless it is its time.
    fn is_ready(&self) -> bool {
        match &self.until {
            Until::Nothing => false,
            Until::Events(epoll, ..) => any_ready(&[(epoll.clone(), PollFlags::POLLIN)]),
            Until::Ready(watched, _) => any_ready(watched),
            Until::Word(at, value) => read_word(self.call.tid, *at).is_none_or(|word| word != *value),
        }
    }

    fn watched(&self) -> Vec<(Arc<OwnedFd>, PollFlags)> {
        match &self.until {
            Until::Nothing | Until::Word(..) => Vec::new(),
            Until::Events(epoll, ..) => vec![(epoll.clone(), PollFlags::POLLIN)],
            Until::Ready(watched, _) => watched.clone(),
        }
    }
}

impl Body for Holder {
    fn rests(&self) -> bool {
        let (parked, ready): (BTreeSet<u32>, bool) = {
            let state = self.lock();
            let held = state.held.iter().map(|held| held.call.tid);
            (held.chain(state.delayed.keys().copied()).collect(), state.held.iter().any(Held::is_ready))
        };
        let waits = |tid: &u32| {
            self.watch.thread(*tid).is_some_and(|thread| match parked.contains(tid) {
                true => thread.signals == 0,
                false => thread.sleeps(),
            })
        };
        let threads = self.mediator.processes().into_iter().flat_map(stillness::threads).flatten();
        let threads: BTreeSet<u32> = threads.collect();
        self.watch.keep(&threads);
        !ready && threads.iter().all(waits)
    }

    fn calls(&self) -> u64 {
        self.activity.load(Ordering::SeqCst)
    }

    /// What it says and what is said to it goes over sockets of its own or of this process.
    fn is_asked(&self) -> bool {
        monotonic_ns() < self.short.load(Ordering::SeqCst)
            || stillness::under_way(self.mediator.processes().into_iter().chain([std::process::id()]))
    }

    fn next(&self) -> Option<u64> {
        let mut state = self.lock();
        state.timers.retain(|(pid, fd), _| timer::clock_of(*pid, *fd).is_some());
        let timers = state.timers.values().map(|timer| timer.at_ns);
        state.held.iter().map(|held| held.deadline).chain(timers).min()
    }

    fn worked(&self) -> u64 {
        self.mediator.worked()
    }

    fn show(&self, now_ns: u64) {
        self.mediator.show_time(now_ns);
    }

    fn wake(&self) {
        self.set_off(self.time.now_ns());
        // Full means that it was woken already.
        let _ = self.wakes.write(1);
    }

    fn keeper(&self) -> Option<u32> {
        Some(self.keeper.load(Ordering::SeqCst)).filter(|tid| *tid != 0)
    }
}

fn read_word(tid: u32, at: u64) -> Option<u32> {
    let mut bytes = [0; 4];
    (read_memory(tid, at, &mut bytes) == Some(bytes.len())).then(|| u32::from_le_bytes(bytes))
}

fn taken(tid: u32, fd: i32) -> Option<Arc<OwnedFd>> {
    process_of(tid).and_then(|pid| sys::take_descriptor(pid, fd).ok()).map(Arc::new)
}

fn any_ready(watched: &[(Arc<OwnedFd>, PollFlags)]) -> bool {
    let mut fds: Vec<PollFd<'_>> =
        watched.iter().map(|(fd, events)| PollFd::new(fd.as_fd(), *events)).collect();
    !fds.is_empty() && poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Takes an epoll instance's events and tells the caller of them; `None` where there are none.
fn told(tid: u32, epoll: &Arc<OwnedFd>, at: u64, most: usize) -> Option<Response> {
    if !any_ready(&[(epoll.clone(), PollFlags::POLLIN)]) {
        return None;
    }
    let epoll = Epoll(epoll.try_clone().ok()?);
    let mut events = vec![EpollEvent::empty(); most];
    let count = match epoll.wait(&mut events, EpollTimeout::ZERO) {
        Ok(0) => return None,
        Ok(count) => count,
        Err(errno) => return Some(Response::Errno(errno as i32)),
    };
    let bytes: Vec<u8> = events
        .iter()
        .take(count)
        .flat_map(|event| [&event.events().bits().to_le_bytes()[..], &event.data().to_le_bytes()].concat())
        .collect();
    Some(match write_memory(tid, at, &bytes) {
        true => Response::Value(i64::try_from(count).unwrap_or(0)),
        false => Response::Errno(libc::EFAULT),
    })
}

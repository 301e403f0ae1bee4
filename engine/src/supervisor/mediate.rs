//! The wall clock and the randomness of a service that has not the host's.
//!
//! Where time is skipped (`timed`), all its clocks show that time, through the vDSO and by the calls; only a wall
//! clock of its own stays what it is.
//!
//! Contract: when a program of the service starts, its vDSO is changed (`vdso`) and its `AT_RANDOM` bytes
//! are replaced, before any code of its own reads either; what it asks the kernel instead is answered
//! here. A service whose memory cannot be written does not run on with the host's clock: that is the
//! supervision's trouble. Timeouts at an instant of the wall clock are moved to the host's.
//! Of a service that is watched, what it asks the host is told of and nothing is changed.
//! Works without ptrace, on static and dynamic programs, on their children and in containers.
//! Not modelled: `timerfd_settime` at an instant of the wall clock, `adjtimex`, process ids, `rdtsc`,
//! `rdrand`, `FUTEX_LOCK_PI` with a timeout, and the stamps that the kernel puts on files.
//!
//! Source: getauxval(3), futex(2), getrandom(2), random(4), clock_nanosleep(2).

use super::filter::{Trap, When};
use super::remap::process_of;
use super::stillness;
use super::sys::{Notification, Notifier, Response};
use super::target::{decode_address, read_address, read_memory, read_string, write_memory};
use super::vdso::{self, Clocks, MONOTONIC_CLOCKS, WALL_CLOCKS};
use super::{Asked, Given, SyscallPolicy, SyscallTarget};
use crate::clock::{wall_ns, worked_ns};
use crate::determinism::{Face, Mediation};
use rand_core::Rng;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

/// Whether this is an architecture whose vDSO is known here.
pub const MEDIATES: bool = true;

/// Calls that a program makes when it starts, whatever it is written in, and seldom later: the C libraries
/// and Go's runtime set up their thread by the first, others ask for the rest.
const AT_START: [libc::c_long; 3] =
    [libc::SYS_arch_prctl, libc::SYS_set_tid_address, libc::SYS_sched_getaffinity];

/// The futex operations whose timeout is an instant, and the bits that tell an operation.
const UNTIL: [i32; 3] = [libc::FUTEX_WAIT_BITSET, libc::FUTEX_WAIT_REQUEUE_PI, libc::FUTEX_LOCK_PI2];
const FUTEX_COMMAND: i32 = 0x7F;

/// `getrandom` answers this much at a time.
const RANDOM_AT_ONCE: u64 = 1 << 20;

/// The type of the auxiliary value that points to sixteen random bytes.
const AT_RANDOM: u64 = libc::AT_RANDOM;

/// Answers what a service asks about time and randomness.
pub(super) struct Mediator {
    service: String,
    mediation: Mediation,
    /// Processes of which those of the service descend.
    roots: Mutex<BTreeSet<u32>>,
    /// Its processes, and the processor time that they had taken when they were found.
    found: Mutex<(BTreeSet<u32>, u64)>,
    trouble: Arc<Mutex<Option<String>>>,
    policy: Arc<dyn SyscallPolicy>,
}

impl Mediator {
    pub(super) fn new(
        service: &str,
        mediation: Mediation,
        helper: Option<u32>,
        trouble: Arc<Mutex<Option<String>>>,
        policy: Arc<dyn SyscallPolicy>,
    ) -> Arc<Self> {
        let roots = Mutex::new(helper.into_iter().collect());
        let mediator = Arc::new(Mediator {
            service: service.to_owned(),
            mediation,
            roots,
            found: Mutex::default(),
            trouble,
            policy,
        });
        if let Some(clock) = &mediator.mediation.clock {
            let face: Arc<dyn Face> = mediator.clone();
            clock.attach(Arc::downgrade(&face), drop);
        }
        mediator
    }

    /// Answers a trapped call, or does what belongs to it and lets it pass. `None`: it is about something
    /// else.
    pub(super) fn answer(&self, notifier: &Notifier, call: &Notification) -> Option<Response> {
        let number = libc::c_long::from(call.number);
        if AT_START.contains(&number) {
            self.begin(call.tid);
            return Some(Response::Continue);
        }
        if self.mediation.watched {
            self.watch(number, call);
        }
        match number {
            libc::SYS_clock_gettime | libc::SYS_gettimeofday | libc::SYS_time => self.time(number, call),
            libc::SYS_futex if UNTIL.contains(&(call.args[1] as i32 & FUTEX_COMMAND)) => {
                self.postpone(call, call.args[3])
            }
            libc::SYS_clock_nanosleep if call.args[1] as i32 & libc::TIMER_ABSTIME != 0 => {
                self.postpone(call, call.args[2])
            }
            libc::SYS_futex | libc::SYS_clock_nanosleep => Some(Response::Continue),
            libc::SYS_getrandom => self.random(call),
            libc::SYS_open => self.device(notifier, call, call.args[0]),
            libc::SYS_openat => self.device(notifier, call, call.args[1]),
            _ => None,
        }
    }

    /// Tells of what is asked of the host.
    fn watch(&self, number: libc::c_long, call: &Notification) {
        let own_clock = self.mediation.clock.is_none();
        let own_dice = self.mediation.entropy.is_none();
        let device = |path: u64| match read_string(call.tid, path)?.as_slice() {
            b"/dev/urandom" => Some(Asked::Randomness("/dev/urandom")),
            b"/dev/random" => Some(Asked::Randomness("/dev/random")),
            _ => None,
        };
        let asked = match number {
            libc::SYS_clock_gettime if own_clock => Some(Asked::Time("clock_gettime")),
            libc::SYS_gettimeofday if own_clock => Some(Asked::Time("gettimeofday")),
            libc::SYS_time if own_clock => Some(Asked::Time("time")),
            libc::SYS_getrandom if own_dice => Some(Asked::Randomness("getrandom")),
            libc::SYS_open if own_dice => device(call.args[0]),
            libc::SYS_openat if own_dice => device(call.args[1]),
            libc::SYS_connect => read_address(call.tid, call.args[1], call.args[2]).and_then(|bytes| {
                match decode_address(&bytes) {
                    SyscallTarget::Peer(peer) => Some(Asked::Peer(peer)),
                    _ => None,
                }
            }),
            _ => None,
        };
        if let Some(asked) = asked {
            self.policy.asked(asked);
        }
    }

    /// A thread of a program that may have started just now.
    fn begin(&self, tid: u32) {
        let Some(pid) = process_of(tid).and_then(|pid| u32::try_from(pid).ok()) else { return };
        self.roots.lock().unwrap_or_else(|p| p.into_inner()).insert(pid);
        let Mediation { clock, time, .. } = &self.mediation;
        let change = |clocks: Clocks| match clock {
            Some(wall) => wall.at_rest(|now_ns| self.change(pid, Clocks { wall_ns: Some(now_ns), ..clocks })),
            None => self.change(pid, clocks),
        };
        let changed = match time {
            Some(time) => time.at_rest(|now_ns| {
                change(Clocks { wall_ns: Some(time.wall_ns(now_ns)), monotonic_ns: Some(now_ns) })
            }),
            None => change(Clocks::default()),
        };
        if let Err(why) = changed
            && !is_gone(pid)
        {
            if let Some(time) = &self.mediation.time {
                time.give_up(&self.service, &format!("its clocks cannot be replaced: {why}"));
            }
            if self.mediation.only_time() {
                return;
            }
            let trouble = format!("its clock and randomness cannot be replaced: {why}");
            self.trouble.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert(trouble);
        }
    }

    fn change(&self, pid: u32, clocks: Clocks) -> Result<(), String> {
        let (memory, at, image) = Memory::of(pid).map_err(|error| error.to_string())?;
        let entropy = self.mediation.entropy.as_ref();
        let patch = vdso::patch(&image, clocks, entropy.is_some() || self.mediation.watched)
            .map_err(|error| error.to_string())?;
        let Some(patch) = patch else { return Ok(()) };
        for (offset, bytes) in &patch.writes {
            let wrote = memory.write_all_at(bytes, at + *offset as u64);
            wrote.map_err(|error| format!("/proc/{pid}/mem cannot be written: {error}"))?;
        }
        let Some(entropy) = entropy else {
            if self.mediation.watched {
                self.policy.asked(Asked::Randomness("AT_RANDOM"));
            }
            return Ok(());
        };
        if let Some(place) = auxiliary(pid, AT_RANDOM) {
            let mut bytes = [0; 16];
            entropy.another().fill_bytes(&mut bytes);
            memory.write_all_at(&bytes, place).map_err(|error| error.to_string())?;
            self.policy.given(&Given { call: "AT_RANDOM", from: None, bytes: bytes.len() as u64 });
        }
        Ok(())
    }

    /// A program that asks the kernel for the time.
    fn time(&self, number: libc::c_long, call: &Notification) -> Option<Response> {
        let clock = match number {
            libc::SYS_clock_gettime => call.args[0] as i32,
            _ => libc::CLOCK_REALTIME,
        };
        let now_ns = self.now_ns(clock)?;
        let (seconds, rest) = (now_ns / 1_000_000_000, now_ns % 1_000_000_000);
        let (place, fraction) = match number {
            libc::SYS_clock_gettime => (call.args[1], rest),
            _ => (call.args[0], rest / 1000),
        };
        let bytes = [seconds.to_le_bytes(), fraction.to_le_bytes()].concat();
        let told = match number {
            libc::SYS_time if place == 0 => true,
            libc::SYS_time => write_memory(call.tid, place, &bytes[..8]),
            libc::SYS_gettimeofday if place == 0 => true,
            _ => write_memory(call.tid, place, &bytes),
        };
        Some(match (told, number) {
            (false, _) => Response::Errno(libc::EFAULT),
            (true, libc::SYS_time) => Response::Value(i64::try_from(seconds).unwrap_or(i64::MAX)),
            (true, _) => Response::Value(0),
        })
    }

    /// What a clock of the service shows, where it is not the host's.
    pub(super) fn now_ns(&self, clock: libc::clockid_t) -> Option<u64> {
        match (&self.mediation.clock, &self.mediation.time) {
            (Some(wall), _) if WALL_CLOCKS.contains(&clock) => Some(wall.now_ns()),
            (_, Some(time)) if WALL_CLOCKS.contains(&clock) => Some(time.wall_ns(time.now_ns())),
            (_, Some(time)) if MONOTONIC_CLOCKS.contains(&clock) => Some(time.now_ns()),
            _ => None,
        }
    }

    /// The processes of the service, its helper among them. None begins or ends while none of them takes
    /// processor time, so they are not looked for again before one has.
    pub(super) fn processes(&self) -> BTreeSet<u32> {
        let mut found = self.found.lock().unwrap_or_else(|p| p.into_inner());
        let worked = taken_by(&found.0);
        if found.0.is_empty() || worked != found.1 {
            let roots = self.roots.lock().unwrap_or_else(|p| p.into_inner()).iter().copied().collect();
            *found = (stillness::with_descendants(roots), worked);
        }
        found.0.clone()
    }

    /// The processor time that they have taken, nanoseconds.
    pub(super) fn worked(&self) -> u64 {
        taken_by(&self.processes())
    }

    /// All clocks of the service but a wall clock of its own show this instant of the time that is skipped.
    pub(super) fn show_time(&self, now_ns: u64) {
        let wall_ns = match (&self.mediation.clock, &self.mediation.time) {
            (None, Some(time)) => Some(time.wall_ns(now_ns)),
            _ => None,
        };
        self.push(|image| {
            let wall = wall_ns.and_then(|wall_ns| vdso::show(image, wall_ns));
            [vdso::show_monotonic(image, now_ns), wall].into_iter().flatten().flatten().collect()
        });
    }

    fn push(&self, show: impl Fn(&[u8]) -> Vec<(usize, Vec<u8>)>) {
        for pid in self.processes() {
            // One that ended meanwhile, or whose program has only just started, needs no push: it gets the
            // time when it begins.
            let Ok((memory, at, image)) = Memory::of(pid) else { continue };
            for (offset, bytes) in show(&image) {
                if memory.write_all_at(&bytes, at + offset as u64).is_err() {
                    break;
                }
            }
        }
    }

    /// A call that waits until an instant of the service's wall clock: it waits as long on the host's. The
    /// instant stands in the caller's memory and is changed there; one that was changed before is nearer to
    /// the host's time than to the service's, and stays.
    fn postpone(&self, call: &Notification, place: u64) -> Option<Response> {
        let ours = self.mediation.clock.as_ref()?.now_ns();
        let hosts = wall_ns();
        let mut held = [0; 16];
        if place != 0 && read_memory(call.tid, place, &mut held) == Some(held.len()) {
            let half =
                |at: usize| held.get(at..at + 8).and_then(|b| b.try_into().ok()).map(i64::from_le_bytes);
            let until = half(0).zip(half(8)).map(|(s, ns)| i128::from(s) * 1_000_000_000 + i128::from(ns));
            if let Some(until) = until.and_then(|until| on_host(until, ours, hosts)) {
                let moved = [(until / 1_000_000_000).to_le_bytes(), (until % 1_000_000_000).to_le_bytes()];
                write_memory(call.tid, place, &moved.concat());
            }
        }
        Some(Response::Continue)
    }

    fn random(&self, call: &Notification) -> Option<Response> {
        let entropy = self.mediation.entropy.as_ref()?;
        let [place, wanted, ..] = call.args;
        let len = wanted.min(RANDOM_AT_ONCE);
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        let from = entropy.draw(&mut bytes);
        if !write_memory(call.tid, place, &bytes) {
            return Some(Response::Errno(libc::EFAULT));
        }
        self.policy.given(&Given { call: "getrandom", from: Some(from), bytes: len });
        Some(Response::Value(i64::try_from(len).unwrap_or(i64::MAX)))
    }

    /// An `open` of a random device gets a pipe with a stream of its own.
    fn device(&self, notifier: &Notifier, call: &Notification, path: u64) -> Option<Response> {
        let entropy = self.mediation.entropy.as_ref()?;
        let path = read_string(call.tid, path)?;
        let call_name = match path.as_slice() {
            b"/dev/urandom" => "/dev/urandom",
            b"/dev/random" => "/dev/random",
            _ => return None,
        };
        let opened = || -> io::Result<i64> {
            let (reader, mut writer) = io::pipe()?;
            let mut rng = entropy.another();
            let feeder = std::thread::Builder::new().name("random device".to_owned());
            feeder.spawn(move || {
                let mut bytes = [0; 4096];
                rng.fill_bytes(&mut bytes);
                // Ends when nobody can read any more.
                while writer.write_all(&bytes).is_ok() {
                    rng.fill_bytes(&mut bytes);
                }
            })?;
            let number = notifier.add_descriptor(call.id, std::os::fd::AsFd::as_fd(&reader))?;
            Ok(i64::from(number))
        };
        self.policy.given(&Given { call: call_name, from: None, bytes: 0 });
        Some(match opened() {
            Ok(number) => Response::Value(number),
            Err(error) => Response::Errno(error.raw_os_error().unwrap_or(libc::EMFILE)),
        })
    }
}

impl Face for Mediator {
    fn show(&self, now_ns: u64) {
        self.push(|image| vdso::show(image, now_ns).into_iter().flatten().collect());
    }
}

/// What the filter traps for this mediation.
pub(super) fn traps(mediation: &Mediation) -> Vec<Trap> {
    let mut traps = Vec::new();
    let mut always = |number: libc::c_long| traps.push(Trap::always(number as u32));
    if !mediation.is_none() {
        AT_START.into_iter().for_each(&mut always);
    }
    if mediation.entropy.is_some() || mediation.watched {
        [libc::SYS_getrandom, libc::SYS_open, libc::SYS_openat].into_iter().for_each(&mut always);
    }
    if mediation.watched {
        always(libc::SYS_connect);
    }
    let told = mediation.clock.is_some() || mediation.watched;
    if told || mediation.time.is_some() {
        [libc::SYS_gettimeofday, libc::SYS_time].into_iter().for_each(&mut always);
    }
    let walls = (told || mediation.time.is_some()).then_some(WALL_CLOCKS);
    let others = mediation.time.is_some().then_some(MONOTONIC_CLOCKS);
    for clock in walls.into_iter().flatten().chain(others.into_iter().flatten()) {
        traps.push(Trap::when(libc::SYS_clock_gettime as u32, When::is(0, clock.cast_unsigned())));
    }
    if mediation.clock.is_some() {
        let flag = u64::from(libc::FUTEX_CLOCK_REALTIME.cast_unsigned());
        let when = When { argument: 1, mask: flag, value: flag };
        traps.push(Trap::when(libc::SYS_futex as u32, when));
        traps.push(Trap::when(libc::SYS_clock_nanosleep as u32, When::is(0, 0)));
    }
    traps
}

/// The same instant on the host's clock; `None` where it is one of that already, or no instant.
fn on_host(until: i128, ours: u64, hosts: u64) -> Option<i64> {
    let (ours, hosts) = (i128::from(ours), i128::from(hosts));
    let is_ours = (until - ours).abs() < (until - hosts).abs();
    is_ours
        .then_some(hosts + until - ours)
        .and_then(|until| i64::try_from(until).ok())
        .filter(|until| *until >= 0)
}

fn taken_by(processes: &BTreeSet<u32>) -> u64 {
    processes.iter().copied().map(worked_ns).sum()
}

struct Memory;

impl Memory {
    /// The memory of a process, where its vDSO stands in it, and the vDSO's bytes.
    fn of(pid: u32) -> io::Result<(File, u64, Vec<u8>)> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it has no vDSO");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let range =
            maps.lines().find(|line| line.ends_with("[vdso]")).and_then(|line| line.split(' ').next());
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (from, to) = range
            .and_then(|range| range.split_once('-'))
            .and_then(|(from, to)| hex(from).zip(hex(to)))
            .ok_or_else(missing)?;
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        // A vDSO is a few pages.
        let len =
            to.checked_sub(from).and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= 1 << 20);
        let mut image = vec![0; len.ok_or_else(missing)?];
        memory.read_exact_at(&mut image, from)?;
        Ok((memory, from, image))
    }
}

/// Whether a process has no memory any more, and needs no clock. One that was killed as it started is there until
/// somebody asks how it ended.
fn is_gone(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/maps")).map_or_else(
        |error| error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH),
        |maps| maps.is_empty(),
    )
}

/// A value of a process's auxiliary vector.
fn auxiliary(pid: u32, wanted: u64) -> Option<u64> {
    let vector = fs::read(format!("/proc/{pid}/auxv")).ok()?;
    vector.chunks_exact(16).find_map(|pair| {
        let (kind, value) = pair.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
        (number(kind)? == wanted).then(|| number(value)).flatten()
    })
}

/// For tests: an image of this machine.
#[cfg(test)]
pub(super) fn vdso_of_this_process() -> Vec<u8> {
    Memory::of(std::process::id()).unwrap().2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_of_the_services_clock_is_moved_once() {
        let (ours, hosts) = (crate::determinism::BEGINNING_NS, wall_ns());
        let wait = 3_000_000_000;
        let moved = on_host(i128::from(ours) + wait, ours, hosts);
        assert_eq!(moved.map(i128::from), Some(i128::from(hosts) + wait));
        assert_eq!(on_host(i128::from(hosts) + wait, ours, hosts), None);
        // Long gone, for either clock.
        assert_eq!(on_host(0, ours, hosts), Some(i64::try_from(hosts - ours).unwrap()));
        assert_eq!(on_host(i128::MIN / 2, ours, hosts), None);
    }

    #[test]
    fn a_process_that_has_ended_is_gone_before_anybody_asked_how() {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(ended.id().cast_signed());
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(fs::exists(format!("/proc/{pid}/mem")).unwrap());
        assert!(is_gone(ended.id()) && Memory::of(ended.id()).is_err());
        ended.wait().unwrap();
        assert!(is_gone(ended.id()) && !is_gone(std::process::id()));
    }

    #[test]
    fn what_a_process_was_started_with() {
        assert!(auxiliary(std::process::id(), AT_RANDOM).is_some());
        assert_eq!(auxiliary(std::process::id(), 0xFFFF), None);
        assert!(stillness::with_descendants(vec![std::process::id()]).contains(&std::process::id()));
    }
}

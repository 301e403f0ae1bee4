//! Which calls wait for a time, and for what.

use super::super::filter::{Trap, Unless, When};
use super::super::remap::process_of;
use super::super::sys::{self, Notification, Response};
use super::super::target::{read_memory, write_memory};
use super::timer::{self, Timer};
use super::{Holder, SHORT, SURELY, nanos, read_word, taken};
use crate::clock::monotonic_ns;
use nix::poll::PollFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// More descriptors than one call waits for.
const MOST_FDS: u64 = 4096;
/// Events that are told at once.
const MOST_EVENTS: usize = 1024;

/// A futex operation without its flags.
const FUTEX_COMMAND: i32 = 0x7F;
/// Why a call cannot be held.
const MASKED: &str = "it waits with a signal mask of the call's own";

/// What a held call waits for beside its time.
pub(super) enum Until {
    /// Nothing.
    Nothing,
    /// Events of an epoll instance: it, where they are told, and how many.
    Events(Arc<OwnedFd>, u64, usize),
    /// One of these descriptors, which the caller then asks itself; what is written when the time is over.
    Ready(Vec<(Arc<OwnedFd>, PollFlags)>, Vec<(u64, Vec<u8>)>),
    /// Another word than this one at this address.
    Word(u64, u32),
}

/// What a call that may wait comes to.
pub(super) enum Asked {
    /// It does not wait for a time.
    Passes,
    /// It is held.
    Waits(u64, Until),
    /// It gets this.
    Gets(Response),
    /// It cannot be held.
    Unseen(&'static str),
}

impl Holder {
    /// What a call waits for, where it waits for a time.
    pub(super) fn asked(&self, call: &Notification) -> Asked {
        let [a, b, c, d, e, f] = call.args;
        match libc::c_long::from(call.number) {
            libc::SYS_nanosleep => self.sleeps(call, None, a),
            libc::SYS_clock_nanosleep => {
                let until = b as i32 & libc::TIMER_ABSTIME != 0;
                match self.mediator.now_ns(a as i32) {
                    None => Asked::Unseen("it sleeps by a clock of processor time"),
                    Some(now) => self.sleeps(call, until.then_some(now), c),
                }
            }
            libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 if e != 0 => Asked::Unseen(MASKED),
            libc::SYS_ppoll if d != 0 => Asked::Unseen(MASKED),
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => self.events(call, millis(d)),
            libc::SYS_epoll_pwait2 => self.events(call, self.read_time(call.tid, d, 1)),
            libc::SYS_poll => self.polls(call, millis(c)),
            libc::SYS_ppoll => self.polls(call, self.read_time(call.tid, c, 1)),
            libc::SYS_select => self.selects(call, e, 1000),
            libc::SYS_pselect6 => match f != 0 && read_word(call.tid, f) != Some(0) {
                true => Asked::Unseen(MASKED),
                false => self.selects(call, e, 1),
            },
            libc::SYS_futex => self.futex(call),
            libc::SYS_timerfd_settime => self.timer(call),
            libc::SYS_timerfd_gettime => self.told_of_timer(call),
            libc::SYS_setsockopt if b == libc::SOL_SOCKET as u64 => match read_pair(call.tid, d) {
                Some((0, 0)) => Asked::Passes,
                _ => Asked::Unseen("it sets timeouts of sockets (SO_RCVTIMEO, SO_SNDTIMEO)"),
            },
            libc::SYS_alarm | libc::SYS_setitimer | libc::SYS_timer_settime => {
                Asked::Unseen("it uses timers that send signals")
            }
            libc::SYS_rt_sigtimedwait => Asked::Unseen("it waits for a signal for a time"),
            libc::SYS_semtimedop | libc::SYS_mq_timedreceive | libc::SYS_mq_timedsend => {
                Asked::Unseen("it waits for a queue or semaphore of System V or POSIX for a time")
            }
            libc::SYS_io_getevents | libc::SYS_recvmmsg | FUTEX_WAITV => {
                Asked::Unseen("it waits by io_getevents, recvmmsg or futex_waitv for a time")
            }
            _ => Asked::Passes,
        }
    }

    /// The instant after so long from now.
    fn after(&self, wait: Duration) -> u64 {
        self.time.now_ns().saturating_add(nanos(wait))
    }

    /// `now` is what the clock shows by which the time is an instant.
    fn sleeps(&self, call: &Notification, now: Option<u64>, at: u64) -> Asked {
        let Some(time) = self.read_time(call.tid, at, 1) else { return Asked::Passes };
        let wait = time.saturating_sub(Duration::from_nanos(now.unwrap_or(0)));
        if wait <= SHORT {
            // Until it is surely over, its thread is not asleep for good.
            let over = monotonic_ns().saturating_add(nanos(wait + SURELY));
            self.short.fetch_max(over, Ordering::SeqCst);
            return Asked::Passes;
        }
        Asked::Waits(self.after(wait), Until::Nothing)
    }

    fn events(&self, call: &Notification, wait: Option<Duration>) -> Asked {
        let Some(wait) = wait.filter(|wait| *wait > Duration::ZERO) else { return Asked::Passes };
        let Some(epoll) = taken(call.tid, call.args[0] as i32) else { return Asked::Passes };
        let most = usize::try_from(call.args[2] as i32).unwrap_or(0).min(MOST_EVENTS);
        if most == 0 {
            return Asked::Passes;
        }
        Asked::Waits(self.after(wait), Until::Events(epoll, call.args[1], most))
    }

    fn polls(&self, call: &Notification, wait: Option<Duration>) -> Asked {
        const ENTRY: usize = 8; // struct pollfd: int fd, short events, short revents
        let [at, count, ..] = call.args;
        let Some(wait) = wait.filter(|wait| *wait > Duration::ZERO) else { return Asked::Passes };
        if count > MOST_FDS {
            return Asked::Unseen("it polls very many descriptors");
        }
        let mut table = vec![0; count as usize * ENTRY];
        if read_memory(call.tid, at, &mut table) != Some(table.len()) {
            return Asked::Passes;
        }
        let mut watched = Vec::new();
        for entry in table.chunks_exact_mut(ENTRY) {
            let [f0, f1, f2, f3, e0, e1, r0, r1] = entry else { continue };
            let fd = i32::from_le_bytes([*f0, *f1, *f2, *f3]);
            let events = PollFlags::from_bits_truncate(i16::from_le_bytes([*e0, *e1]));
            (*r0, *r1) = (0, 0);
            if fd >= 0 {
                // One that is not open is told at once, by the call itself.
                let Some(taken) = taken(call.tid, fd) else { return Asked::Passes };
                watched.push((taken, events));
            }
        }
        Asked::Waits(self.after(wait), Until::Ready(watched, vec![(at, table)]))
    }

    /// `scale` is how many nanoseconds the unit of the time's second word is.
    fn selects(&self, call: &Notification, time: u64, scale: u64) -> Asked {
        let count = u64::from(call.args[0] as u32).min(MOST_FDS);
        let wait = self.read_time(call.tid, time, scale).filter(|wait| *wait > Duration::ZERO);
        let Some(wait) = wait else { return Asked::Passes };
        let sets = [PollFlags::POLLIN, PollFlags::POLLOUT, PollFlags::POLLPRI];
        let (mut watched, mut empty) = (Vec::new(), Vec::new());
        for (events, at) in sets.into_iter().zip(&call.args[1..4]).filter(|(_, at)| **at != 0) {
            let mut set = vec![0; (count as usize).div_ceil(64) * 8];
            if read_memory(call.tid, *at, &mut set) != Some(set.len()) {
                return Asked::Passes;
            }
            for fd in (0..count as usize).filter(|fd| set[fd / 8] & 1 << (fd % 8) != 0) {
                let Some(taken) = taken(call.tid, fd as i32) else { return Asked::Passes };
                watched.push((taken, events));
            }
            set.fill(0);
            empty.push((*at, set));
        }
        empty.push((time, vec![0; 16]));
        Asked::Waits(self.after(wait), Until::Ready(watched, empty))
    }

    fn futex(&self, call: &Notification) -> Asked {
        let [word, operation, value, time, ..] = call.args;
        let operation = operation as i32;
        let Some(time) = self.read_time(call.tid, time, 1) else { return Asked::Passes };
        let wait = match operation & FUTEX_COMMAND {
            libc::FUTEX_WAIT => time,
            libc::FUTEX_WAIT_BITSET => {
                let clock = match operation & libc::FUTEX_CLOCK_REALTIME {
                    0 => libc::CLOCK_MONOTONIC,
                    _ => libc::CLOCK_REALTIME,
                };
                let now = self.mediator.now_ns(clock).unwrap_or(0);
                time.saturating_sub(Duration::from_nanos(now))
            }
            libc::FUTEX_LOCK_PI | libc::FUTEX_LOCK_PI2 | libc::FUTEX_WAIT_REQUEUE_PI => {
                return Asked::Unseen("it waits for a lock that inherits priorities, for a time");
            }
            _ => return Asked::Passes,
        };
        match read_word(call.tid, word) {
            None => Asked::Passes,
            Some(now) if now != value as u32 => Asked::Gets(Response::Errno(libc::EAGAIN)),
            Some(_) if wait == Duration::ZERO => Asked::Gets(Response::Errno(libc::ETIMEDOUT)),
            Some(_) => Asked::Waits(self.after(wait), Until::Word(word, value as u32)),
        }
    }

    /// The kernel's timer stands still: it is set off when its instant comes.
    fn timer(&self, call: &Notification) -> Asked {
        let [fd, flags, new, old, ..] = call.args;
        let (fd, pid) = (fd as i32, process_of(call.tid).map(i32::cast_unsigned));
        let (Some(pid), Some(interval), Some(value)) =
            (pid, self.read_time(call.tid, new, 1), self.read_time(call.tid, new + 16, 1))
        else {
            return Asked::Passes;
        };
        let (Some(clock), Some(kernels)) = (timer::clock_of(pid, fd), taken(call.tid, fd)) else {
            return Asked::Passes;
        };
        let Some(shown) = self.mediator.now_ns(clock) else {
            return Asked::Unseen("it uses timers that wake the host");
        };
        if !self.notifier.valid(call.id) {
            return Asked::Passes;
        }
        if let Err(errno) = sys::set_timer(kernels.as_fd(), Duration::ZERO) {
            return Asked::Gets(Response::Errno(errno as i32));
        }
        let now = self.time.now_ns();
        let wait = match flags as i32 & libc::TFD_TIMER_ABSTIME {
            0 => nanos(value),
            _ => nanos(value).saturating_sub(shown),
        };
        let before = match value {
            Duration::ZERO => self.lock().timers.remove(&(pid, fd)),
            _ => self.lock().timers.insert((pid, fd), Timer { at_ns: now.saturating_add(wait), interval }),
        };
        if wait == 0 && value > Duration::ZERO {
            self.set_off(now);
        }
        if old != 0 && !write_memory(call.tid, old, &Timer::told(before, now)) {
            return Asked::Gets(Response::Errno(libc::EFAULT));
        }
        Asked::Gets(Response::Success)
    }

    fn told_of_timer(&self, call: &Notification) -> Asked {
        let [fd, at, ..] = call.args;
        let (fd, pid) = (fd as i32, process_of(call.tid).map(i32::cast_unsigned));
        let Some(pid) = pid.filter(|pid| timer::clock_of(*pid, fd).is_some()) else { return Asked::Passes };
        let timer = self.lock().timers.get(&(pid, fd)).copied();
        let written = write_memory(call.tid, at, &Timer::told(timer, self.time.now_ns()));
        Asked::Gets(if written { Response::Success } else { Response::Errno(libc::EFAULT) })
    }

    /// A `timespec` (or `timeval`, with a `scale` of 1000); `None` where there is none.
    fn read_time(&self, tid: u32, at: u64, scale: u64) -> Option<Duration> {
        let (seconds, rest) = read_pair(tid, at)?;
        let (seconds, rest) = (u64::try_from(seconds).ok()?, u64::try_from(rest).ok()?);
        let rest = rest.checked_mul(scale).filter(|rest| *rest < 1_000_000_000 || scale > 1)?;
        Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(rest)))
    }
}

/// `futex_waitv`, which the C library has no name for yet.
const FUTEX_WAITV: libc::c_long = 449;

/// What the filter traps so that calls can be held.
pub(in super::super) fn traps() -> Vec<Trap> {
    let mut traps = Vec::new();
    // Calls with a pointer to a time, which may be null.
    for (number, argument) in [
        (libc::SYS_epoll_pwait2, 3),
        (libc::SYS_ppoll, 2),
        (libc::SYS_select, 4),
        (libc::SYS_pselect6, 4),
        (libc::SYS_rt_sigtimedwait, 2),
        (libc::SYS_semtimedop, 3),
        (libc::SYS_mq_timedreceive, 4),
        (libc::SYS_mq_timedsend, 4),
        (libc::SYS_io_getevents, 4),
        (libc::SYS_recvmmsg, 4),
        (FUTEX_WAITV, 3),
    ] {
        let unless = Some(Unless { argument, value: 0 });
        traps.push(Trap { number: number as u32, when: None, unless });
    }
    for command in [
        libc::FUTEX_WAIT,
        libc::FUTEX_WAIT_BITSET,
        libc::FUTEX_LOCK_PI,
        libc::FUTEX_LOCK_PI2,
        libc::FUTEX_WAIT_REQUEUE_PI,
    ] {
        let mask = u64::from(FUTEX_COMMAND.cast_unsigned());
        let when = Some(When { argument: 1, mask, value: u64::from(command.cast_unsigned()) });
        let unless = Some(Unless { argument: 3, value: 0 });
        traps.push(Trap { number: libc::SYS_futex as u32, when, unless });
    }
    // Words of those that are held may be what they wait for then.
    for command in [
        libc::FUTEX_WAKE,
        libc::FUTEX_REQUEUE,
        libc::FUTEX_CMP_REQUEUE,
        libc::FUTEX_WAKE_OP,
        libc::FUTEX_WAKE_BITSET,
    ] {
        let mask = u64::from(FUTEX_COMMAND.cast_unsigned());
        let when = When { argument: 1, mask, value: u64::from(command.cast_unsigned()) };
        traps.push(Trap::when(libc::SYS_futex as u32, when));
    }
    // Calls with a time in milliseconds: more than 0, so without the sign and with another bit.
    for (number, argument) in [(libc::SYS_epoll_wait, 3), (libc::SYS_epoll_pwait, 3), (libc::SYS_poll, 2)] {
        for bit in 0..31 {
            let when = When { argument, mask: 1 << 31 | 1 << bit, value: 1 << bit };
            traps.push(Trap::when(number as u32, when));
        }
    }
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW] {
        traps.push(Trap::when(libc::SYS_setsockopt as u32, When::is(2, option.cast_unsigned())));
    }
    let always = [
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_timerfd_settime,
        libc::SYS_timerfd_gettime,
        libc::SYS_alarm,
        libc::SYS_setitimer,
        libc::SYS_timer_settime,
    ];
    traps.extend(always.into_iter().map(|number| Trap::always(number as u32)));
    traps
}

/// include/uapi/asm-generic/socket.h
const SO_RCVTIMEO_NEW: i32 = 66;
const SO_SNDTIMEO_NEW: i32 = 67;

/// A time in milliseconds; `None` is for ever.
fn millis(argument: u64) -> Option<Duration> {
    u64::try_from(argument as i32).ok().map(Duration::from_millis)
}

fn read_pair(tid: u32, at: u64) -> Option<(i64, i64)> {
    let mut bytes = [0; 16];
    if at == 0 || read_memory(tid, at, &mut bytes) != Some(bytes.len()) {
        return None;
    }
    let (first, second) = bytes.split_at(8);
    Some((i64::from_le_bytes(first.try_into().ok()?), i64::from_le_bytes(second.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_milliseconds() {
        assert_eq!(millis(1500), Some(Duration::from_millis(1500)));
        // The upper half of an `int` argument's register is anything.
        assert_eq!(millis(0xF_FFFF_FFFF), None);
    }

    #[test]
    fn only_what_waits_for_a_time_or_wakes_who_does_is_trapped() {
        let trapped = |number: libc::c_long, argument: u32, value: u64| {
            traps().into_iter().filter(|trap| i64::from(trap.number) == number).any(|trap| {
                let when =
                    trap.when.is_none_or(|when| when.argument != argument || value & when.mask == when.value);
                when && trap.unless.is_none_or(|unless| unless.argument != argument || value != unless.value)
            })
        };
        for (timeout, wanted) in
            [(0, false), (1, true), (2500, true), (0x7FFF_FFFF, true), (0xFFFF_FFFF, false)]
        {
            assert_eq!(trapped(libc::SYS_epoll_wait, 3, timeout), wanted, "{timeout}");
            assert_eq!(trapped(libc::SYS_epoll_pwait, 3, timeout), wanted, "{timeout}");
            assert_eq!(trapped(libc::SYS_poll, 2, timeout), wanted, "{timeout}");
        }
        assert!(!trapped(libc::SYS_ppoll, 2, 0) && trapped(libc::SYS_ppoll, 2, 4096));
        let futex = |operation: i32, time: u64| {
            let operation = u64::from((operation | libc::FUTEX_PRIVATE_FLAG).cast_unsigned());
            traps().into_iter().filter(|trap| i64::from(trap.number) == libc::SYS_futex).any(|trap| {
                trap.when.is_some_and(|when| operation & when.mask == when.value)
                    && trap.unless.is_none_or(|unless| time != unless.value)
            })
        };
        assert!(!futex(libc::FUTEX_WAIT, 0) && futex(libc::FUTEX_WAIT, 4096));
        assert!(futex(libc::FUTEX_WAKE, 0) && !futex(libc::FUTEX_UNLOCK_PI, 0));
        let program = super::super::super::filter::program(&traps()).unwrap();
        assert!(program.len() < 4096, "the kernel takes no longer one");
    }
}

//! Timers with descriptors: when they come, and what `/proc` tells of them (proc_pid_fdinfo(5)).

use crate::clock::nanos;
use std::fs;
use std::time::Duration;

/// A timer that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timer {
    /// When it comes.
    pub at_ns: u64,
    /// How often from then on; zero where it is once.
    pub interval: Duration,
}

impl Timer {
    /// It has come: when it comes again.
    pub(super) fn next(self, now_ns: u64) -> Option<Self> {
        let interval = nanos(self.interval);
        let missed = now_ns.saturating_sub(self.at_ns).checked_div(interval)?;
        let at_ns = self.at_ns.saturating_add(interval.saturating_mul(missed.saturating_add(1)));
        Some(Timer { at_ns, ..self })
    }

    /// A `struct itimerspec` (timerfd_create(2)) of a timer, or of none.
    pub(super) fn told(timer: Option<Self>, now_ns: u64) -> Vec<u8> {
        let interval = timer.map_or(Duration::ZERO, |timer| timer.interval);
        let left = timer.map_or(0, |timer| timer.at_ns.saturating_sub(now_ns).max(1));
        let words =
            |time: Duration| [time.as_secs().to_le_bytes(), u64::from(time.subsec_nanos()).to_le_bytes()];
        [words(interval), words(Duration::from_nanos(left))].concat().concat()
    }
}

/// By which clock the timer comes that this descriptor is, if it is one.
pub(super) fn clock_of(pid: u32, fd: i32) -> Option<libc::clockid_t> {
    clock_in(&fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?)
}

fn clock_in(info: &str) -> Option<libc::clockid_t> {
    info.lines().find_map(|line| line.strip_prefix("clockid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_of_a_timer() {
        assert_eq!(clock_in("pos:\t0\nflags:\t02\nclockid: 1\nticks: 0\n"), Some(1));
        assert_eq!(clock_in("pos:\t0\nflags:\t02\n"), None);
    }

    #[test]
    fn a_timer_comes_again_after_its_interval_and_not_for_what_was_missed() {
        let timer = Timer { at_ns: 10, interval: Duration::from_nanos(4) };
        assert_eq!(timer.next(10), Some(Timer { at_ns: 14, ..timer }));
        assert_eq!(timer.next(21), Some(Timer { at_ns: 22, ..timer }));
        assert_eq!(Timer { interval: Duration::ZERO, ..timer }.next(10), None);
    }

    #[test]
    fn what_a_program_is_told_of_a_timer() {
        let words = |timer, now| -> Vec<u64> {
            let bytes = Timer::told(timer, now);
            bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
        };
        let timer = Timer { at_ns: 2_000_000_007, interval: Duration::new(3, 4) };
        assert_eq!(words(Some(timer), 1_000_000_000), [3, 4, 1, 7]);
        // One that is set has time left.
        assert_eq!(words(Some(timer), 3_000_000_000), [3, 4, 0, 1]);
        assert_eq!(words(None, 7), [0; 4]);
    }
}

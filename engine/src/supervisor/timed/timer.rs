//! Timers with descriptors, as `/proc` tells of them (proc_pid_fdinfo(5)).

use std::fs;
use std::time::Duration;

/// A timer at one moment.
pub(super) struct Timer {
    /// By which clock.
    pub clock: libc::clockid_t,
    /// How long until it comes; zero where it is not set.
    pub left: Duration,
    /// How often from then on; zero where it is once.
    pub interval: Duration,
}

impl Timer {
    /// The timer that this descriptor is, if it is one.
    pub(super) fn of(pid: u32, fd: i32) -> Option<Self> {
        Timer::parse(&fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?)
    }

    fn parse(info: &str) -> Option<Self> {
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let time = |name: &str| {
            let (seconds, rest) = field(name)?.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
            Some(Duration::new(seconds.trim().parse().ok()?, rest.trim().parse().ok()?))
        };
        Some(Timer {
            clock: field("clockid:")?.parse().ok()?,
            left: time("it_value:")?,
            interval: time("it_interval:")?,
        })
    }

    /// Whether it will come.
    pub(super) fn is_set(&self) -> bool {
        self.left > Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_of_a_timer() {
        let info = "pos:\t0\nflags:\t02\nclockid: 1\nticks: 0\nsettime flags: 00\nit_value: (2, 500)\nit_interval: (0, 7)\n";
        let timer = Timer::parse(info).unwrap();
        assert_eq!((timer.clock, timer.left, timer.interval.as_nanos()), (1, Duration::new(2, 500), 7));
        assert!(timer.is_set());
        assert!(Timer::parse("pos:\t0\nflags:\t02\n").is_none());
    }
}

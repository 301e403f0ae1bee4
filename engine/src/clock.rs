//! The run's clock: one of the two files that may read ambient time.
//!
//! Contract: monotonic nanoseconds since the run began, by what the run waits by, and the wall clock at the start.
//! Code that decides never reads it; it gets instants passed in or asks the journal.
#![expect(clippy::disallowed_methods, reason = "this file owns the clock")]

use crate::virtual_time::Time;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Monotonic time since the run began.
#[derive(Debug, Clone)]
pub struct RunClock {
    began: Duration,
    unix_ns: u64,
    time: Time,
}

impl RunClock {
    /// Starts a run's clock now.
    pub fn start() -> Self {
        RunClock::start_in(Time::default())
    }

    /// Starts the clock of a run whose waits are those of `time`.
    pub fn start_in(time: Time) -> Self {
        RunClock { began: time.now(), unix_ns: wall_ns(), time }
    }

    /// Nanoseconds since the run began.
    pub fn now_ns(&self) -> u64 {
        nanos(self.time.now().saturating_sub(self.began))
    }

    /// Wall clock at the start of the run, nanoseconds since the Unix epoch.
    pub fn unix_ns(&self) -> u64 {
        self.unix_ns
    }

    /// What a run waits by.
    pub fn time(&self) -> &Time {
        &self.time
    }
}

/// The host's wall clock, nanoseconds since the Unix epoch: for what waits on it in the place of a service.
pub fn wall_ns() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

/// One of the host's clocks (clock_gettime(2)), nanoseconds; 0 where there is none of that number.
#[cfg(target_os = "linux")]
pub fn host_ns(clock: libc::clockid_t) -> u64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::from_raw(clock)).map_or(0, |time| nanos(Duration::from(time)))
}

/// The host's monotonic clock, nanoseconds.
#[cfg(target_os = "linux")]
pub fn monotonic_ns() -> u64 {
    host_ns(libc::CLOCK_MONOTONIC)
}

/// The host's monotonic clock, nanoseconds since it was first read here.
#[cfg(not(target_os = "linux"))]
pub fn monotonic_ns() -> u64 {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    nanos(FIRST.get_or_init(std::time::Instant::now).elapsed())
}

/// The processor time that a process has taken (clock_getcpuclockid(3)), nanoseconds; 0 where there is none.
#[cfg(target_os = "linux")]
pub fn worked_ns(pid: u32) -> u64 {
    let clock = nix::time::ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(pid.cast_signed()));
    clock.map_or(0, |clock| host_ns(clock.as_raw()))
}

/// A duration in nanoseconds, as far as they go.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

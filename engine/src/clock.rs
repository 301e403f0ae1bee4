//! The run's clock: one of the two files that may read ambient time.
//!
//! Contract: monotonic nanoseconds since the run began, and the wall clock at the start.
//! Code that decides never reads it; it gets instants passed in or asks the journal.
#![expect(clippy::disallowed_methods, reason = "this file owns the clock")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time since the run began.
#[derive(Debug, Clone, Copy)]
pub struct RunClock {
    began: Instant,
    unix_ns: u64,
}

impl RunClock {
    /// Starts a run's clock now.
    pub fn start() -> Self {
        RunClock { began: Instant::now(), unix_ns: wall_ns() }
    }

    /// Nanoseconds since the run began.
    pub fn now_ns(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// Wall clock at the start of the run, nanoseconds since the Unix epoch.
    pub fn unix_ns(&self) -> u64 {
        self.unix_ns
    }
}

/// The host's wall clock, nanoseconds since the Unix epoch: for what waits on it in the place of a service.
pub fn wall_ns() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! The names of signals.
//!
//! Contract: Linux's numbers on x86_64 and aarch64 (signal(7)), wherever this runs. Not here: real-time signals.

/// Names, from signal 1 on.
const SIGNALS: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// Asks a process to end.
pub const SIGTERM: i32 = 15;

/// The number of a signal (`SIGTERM`).
pub fn signal_by_name(name: &str) -> Option<i32> {
    (1..).zip(SIGNALS).find_map(|(number, known)| (known == name).then_some(number))
}

/// The name of a signal, `signal?` for one that has none here.
pub fn signal_name(number: i32) -> &'static str {
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    place.and_then(|place| SIGNALS.get(place)).copied().unwrap_or("signal?")
}

/// All names.
pub fn signal_names() -> impl Iterator<Item = &'static str> {
    SIGNALS.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_those_of_the_system() {
        for signal in nix::sys::signal::Signal::iterator() {
            assert_eq!(signal_by_name(signal.as_str()), Some(signal as i32));
            assert_eq!(signal_name(signal as i32), signal.as_str());
        }
        assert_eq!(nix::sys::signal::Signal::iterator().count(), SIGNALS.len());
        assert_eq!(signal_by_name("SIGTERM"), Some(SIGTERM));
        assert_eq!(signal_by_name("SIGNOPE"), None);
        for number in [-1, 0, 32] {
            assert_eq!(signal_name(number), "signal?");
        }
    }
}

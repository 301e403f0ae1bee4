//! Whether threads sleep, and whether bytes are under way between sockets.
//!
//! Contract: nothing is changed but when an acknowledgement is sent. A thread that is neither asleep nor dead is awake. How
//! often it was switched to or from tells whether it ran between two looks. Bytes are under way on a
//! connection until its other end has acknowledged them.
//! Not modelled: datagrams, what a device or another host does.
//!
//! Source: proc_pid_status(5), tcp(7).

use super::sys;
use crate::virtual_time::{Elsewhere, Sleeper};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// States of a TCP socket (include/net/tcp_states.h) in which it is being connected.
const CONNECTING: [u8; 2] = [2, 3];
/// A TCP socket that listens.
const LISTENING: u8 = 10;

/// A thread at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thread {
    /// Its state, as `/proc` abbreviates it.
    pub state: u8,
    /// How often it was switched to or from.
    pub switches: u64,
    /// Signals that wait for it, or its process, and that it does not block: bits by number minus one.
    pub signals: u64,
}

impl Thread {
    fn parse(status: &[u8]) -> Option<Self> {
        let number = |value: &[u8]| std::str::from_utf8(value.trim_ascii()).ok()?.parse::<u64>().ok();
        let bits = |value: &[u8]| u64::from_str_radix(std::str::from_utf8(value.trim_ascii()).ok()?, 16).ok();
        let (mut state, mut pending, mut blocked, mut switches) = (None, 0, None, [None; 2]);
        for line in status.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            match name {
                b"State" => state = value.trim_ascii().first().copied(),
                b"SigPnd" | b"ShdPnd" => pending |= bits(value)?,
                b"SigBlk" => blocked = Some(bits(value)?),
                b"voluntary_ctxt_switches" => switches[0] = number(value),
                b"nonvoluntary_ctxt_switches" => switches[1] = number(value),
                _ => {}
            }
        }
        let [voluntary, involuntary] = switches;
        Some(Thread { state: state?, switches: voluntary? + involuntary?, signals: pending & !blocked? })
    }

    /// Whether it sleeps until something wakes it, or is dead.
    pub(super) fn sleeps(&self) -> bool {
        matches!(self.state, b'S' | b'Z' | b'X')
    }
}

/// More than `/proc` says of a thread.
const STATUS_MAX: usize = 4096;

/// Looks at threads again and again: what `/proc` says of each is opened once.
#[derive(Default)]
pub(super) struct Watch(Mutex<BTreeMap<u32, File>>);

impl Watch {
    /// A thread; `None` where it is gone.
    pub(super) fn thread(&self, tid: u32) -> Option<Thread> {
        let mut files = self.files();
        let file = match files.entry(tid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(File::open(format!("/proc/{tid}/status")).ok()?),
        };
        let mut status = [0; STATUS_MAX];
        let thread = file.read_at(&mut status, 0).ok().and_then(|len| Thread::parse(status.get(..len)?));
        if thread.is_none() {
            // Another one may have its number.
            files.remove(&tid);
        }
        thread
    }

    /// Forgets all threads but these.
    pub(super) fn keep(&self, tids: &BTreeSet<u32>) {
        self.files().retain(|tid, _| tids.contains(tid));
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<u32, File>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The threads of a process.
pub(super) fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// These processes and all that descend from them, as far as they are there.
pub(super) fn with_descendants(roots: Vec<u32>) -> BTreeSet<u32> {
    let (mut found, mut left) = (BTreeSet::new(), roots);
    while let Some(pid) = left.pop() {
        if !found.insert(pid) {
            continue;
        }
        for thread in threads(pid).unwrap_or_default() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children"));
            let children = children.unwrap_or_default();
            left.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// Tells of the threads of this process, but for the one that asks.
pub fn this_process() -> Elsewhere {
    let watch = Watch::default();
    Box::new(move |keepers| {
        let asking = nix::unistd::gettid().as_raw().cast_unsigned();
        let mut others: BTreeSet<u32> = threads(std::process::id()).ok()?.into_iter().collect();
        others.remove(&asking);
        watch.keep(&others);
        others.into_iter().map(|tid| asleep(&watch, tid, keepers.contains(&tid))).collect()
    })
}

/// A thread that sleeps; `wakes` is whether it may have woken up in between.
fn asleep(watch: &Watch, tid: u32, wakes: bool) -> Option<Sleeper> {
    // One that has ended since it was listed is one less the next time.
    let thread = watch.thread(tid)?;
    thread.sleeps().then_some((tid, if wakes { 0 } else { thread.switches }))
}

/// Whether bytes or connections are under way on a TCP connection of these processes. What was received and
/// not acknowledged yet, as that may take 40 ms, is acknowledged now.
pub(super) fn under_way(processes: impl IntoIterator<Item = u32>) -> bool {
    let sockets: Vec<OwnedFd> = processes.into_iter().flat_map(sockets).collect();
    let any = || sockets.iter().any(|socket| sys::tcp_state(socket.as_fd()).is_ok_and(is_under_way));
    if !any() {
        return false;
    }
    sockets.iter().for_each(|socket| sys::acknowledge(socket.as_fd()));
    any()
}

/// Duplicates of a process's sockets.
fn sockets(pid: u32) -> Vec<OwnedFd> {
    let Ok(process) = sys::open_process(pid.cast_signed()) else { return Vec::new() };
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let is_socket = |path: &Path| {
        fs::read_link(path).is_ok_and(|link| link.as_os_str().as_bytes().starts_with(b"socket:"))
    };
    let open = open.flatten().filter(|entry| is_socket(&entry.path()));
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // What was closed meanwhile is not there any more.
    numbers.filter_map(|fd| sys::take_from(process.as_fd(), fd).ok()).collect()
}

/// `unacknowledged` counts packets; for a socket that listens it is something else.
fn is_under_way((state, unacknowledged): (u8, u32)) -> bool {
    CONNECTING.contains(&state) || (state != LISTENING && unacknowledged > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_state_switches_and_signals() {
        let status = "Name:\tx\nState:\tS (sleeping)\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000004100\n\
                      SigBlk:\t0000000000000100\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(
            Thread::parse(status.as_bytes()),
            Some(Thread { state: b'S', switches: 9, signals: 0x4001 })
        );
        assert_eq!(Thread::parse(b"State:\tS\n"), None);
    }

    #[test]
    fn a_thread_that_runs_is_not_still_and_one_that_waits_is() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let waits = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw().cast_unsigned()).unwrap();
            let _ = ended.recv();
        });
        let tid = told.recv().unwrap();
        let watch = Watch::default();
        while !watch.thread(tid).unwrap().sleeps() {
            std::thread::yield_now();
        }
        assert_eq!(asleep(&watch, tid, false), asleep(&watch, tid, false));
        assert!(!watch.thread(nix::unistd::gettid().as_raw().cast_unsigned()).unwrap().sleeps());
        drop(end);
        waits.join().unwrap();
        assert_eq!(asleep(&watch, tid, false), None);
        watch.keep(&BTreeSet::new());
        assert!(watch.files().is_empty());
    }

    #[test]
    fn bytes_are_under_way_until_acknowledged() {
        assert!(!is_under_way((1, 0)) && is_under_way((1, 2)));
        assert!(is_under_way((2, 0)), "a connection that is being made");
        assert!(!is_under_way((10, 4)), "who waits to be accepted");
    }

    #[test]
    fn a_connection_on_which_nothing_was_sent_is_still() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(sys::tcp_state(client.as_fd()), Ok((1, 0)));
        assert_eq!(sys::tcp_state(listener.as_fd()).map(|(state, _)| state), Ok(LISTENING));
        assert!(sys::tcp_state(fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    }
}

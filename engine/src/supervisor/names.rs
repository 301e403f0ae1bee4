//! Names of services inside a service's network: an `/etc/hosts` of its own.
//!
//! Contract: a mount namespace in which nothing but `/etc/hosts` differs. What the host's file says of
//! other names stays; a service's name leads to loopback, where its stand-ins listen. Nothing
//! is left on the disk. What the host mounts later is seen inside too.
//!
//! Not modelled: resolvers that do not read `/etc/hosts` (a running nscd, a `nsswitch.conf` without
//! `files`).

use super::features::{Feature, refuse};
use super::launcher::{Step, StepResult};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, OwnedFd};

/// The file.
pub(super) const HOSTS: &str = "/etc/hosts";

const ETC: &str = "/etc";

/// Moves this process (in a user namespace that it may rule, or root) into a mount namespace in
/// which these names lead to loopback.
pub(super) fn enter(names: &[String]) -> StepResult<()> {
    let text = hosts(&std::fs::read_to_string(HOSTS).unwrap_or_default(), names);
    let entered = refuse(Feature::MountNamespace).and_then(|()| unshare(CloneFlags::CLONE_NEWNS));
    entered.step(|| "enter a mount namespace".to_owned())?;
    let nothing: Option<&str> = None;
    // From the host to here only.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing)
        .step(|| "part from the host's mounts".to_owned())?;
    let place = place(HOSTS).step(|| format!("find {HOSTS}"))?;
    // The new file lies on a file system in memory that covers `/etc` for a moment.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), ETC, Some("tmpfs"), flags, Some("mode=755,size=1m"))
        .step(|| "mount a file system in memory".to_owned())?;
    let put = put(&text, &place);
    umount2(ETC, MntFlags::MNT_DETACH).step(|| "uncover /etc".to_owned())?;
    put
}

fn put(text: &str, at: &OwnedFd) -> StepResult<()> {
    std::fs::write(HOSTS, text).step(|| format!("write a {HOSTS}"))?;
    let file = place(HOSTS).step(|| format!("find the new {HOSTS}"))?;
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let nothing: Option<&str> = None;
    mount(Some(name(&file).as_str()), name(at).as_str(), nothing, MsFlags::MS_BIND, nothing)
        .step(|| format!("mount the new {HOSTS}"))
}

fn place(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// The file's text: the host's, with these names leading to loopback and nowhere else.
fn hosts(host: &str, names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_host_name(name)).collect();
    let mut text = format!("127.0.0.1 localhost\n::1 localhost\n127.0.0.1 {}\n", names.join(" "));
    for line in host.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next() else { continue };
        let ours =
            |word: &&str| *word == "localhost" || names.iter().any(|name| name.eq_ignore_ascii_case(word));
        let kept: Vec<&str> = words.filter(|word| !ours(word)).collect();
        if !kept.is_empty() {
            text.push_str(&format!("{address} {}\n", kept.join(" ")));
        }
    }
    text
}

fn is_host_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name != "localhost" && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_come_first_and_only_once() {
        let host = "127.0.0.1\tlocalhost vm\n# a note\n10.0.0.7 DB other # db\n\n10.0.0.8 cache\n";
        let names = ["db", "cache", "no name", "localhost"].map(str::to_owned);
        let wanted = "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 db cache\n127.0.0.1 vm\n10.0.0.7 other\n";
        assert_eq!(hosts(host, &names), wanted);
        assert_eq!(hosts("", &["db".to_owned()]), "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 db\n");
    }
}

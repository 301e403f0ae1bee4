//! What Faultbox can use of a kernel, why a host refuses it, and what would enable it.
//!
//! Contract: pure, but for [`without`]: `FAULTBOX_WITHOUT=netns,sync_wake_up` makes this process and
//! its launchers do without these features, as on a host that does not have them: for tests, and to
//! see what a smaller host would give. It can only take away.

use super::errno::errno_name;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// The variable that simulates a smaller host.
pub const WITHOUT: &str = "FAULTBOX_WITHOUT";

/// Something of the kernel's that Faultbox uses where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Feature {
    /// Trapped syscalls go to the supervisor.
    Notify,
    /// A trapped call can be let pass.
    Continue,
    /// A descriptor can be put into a trapped process.
    AddDescriptor,
    /// A trapped call waits on when a signal arrives.
    WaitKillable,
    /// Caller and supervisor take turns on one processor.
    SyncWakeUp,
    /// A user namespace.
    UserNamespace,
    /// A network namespace, by whichever way this user has.
    NetworkNamespace,
    /// A mount namespace beside it, with an `/etc/hosts` of its own.
    MountNamespace,
    /// The memory of a service can be read.
    ReadMemory,
    /// A descriptor of a service can be taken.
    TakeDescriptor,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 10] = [
        Feature::Notify,
        Feature::Continue,
        Feature::AddDescriptor,
        Feature::WaitKillable,
        Feature::SyncWakeUp,
        Feature::UserNamespace,
        Feature::NetworkNamespace,
        Feature::MountNamespace,
        Feature::ReadMemory,
        Feature::TakeDescriptor,
    ];

    /// Its short name, as [`WITHOUT`] and `--format json` have it.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Notify => "notify",
            Feature::Continue => "continue",
            Feature::AddDescriptor => "addfd",
            Feature::WaitKillable => "wait_killable",
            Feature::SyncWakeUp => "sync_wake_up",
            Feature::UserNamespace => "userns",
            Feature::NetworkNamespace => "netns",
            Feature::MountNamespace => "mountns",
            Feature::ReadMemory => "memory",
            Feature::TakeDescriptor => "pidfd_getfd",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Feature::Notify => "seccomp user notification",
            Feature::Continue => "seccomp continue",
            Feature::AddDescriptor => "seccomp add descriptor",
            Feature::WaitKillable => "seccomp wait killable",
            Feature::SyncWakeUp => "seccomp synchronous wake-up",
            Feature::UserNamespace => "user namespaces",
            Feature::NetworkNamespace => "network namespaces",
            Feature::MountNamespace => "mount namespaces",
            Feature::ReadMemory => "memory of services",
            Feature::TakeDescriptor => "descriptors of services",
        }
    }

    /// The first Linux that has it, where that is what a host may lack.
    pub fn since(self) -> Option<&'static str> {
        match self {
            Feature::Notify => Some("5.0"),
            Feature::Continue => Some("5.5"),
            Feature::AddDescriptor => Some("5.9"),
            Feature::WaitKillable => Some("5.19"),
            Feature::SyncWakeUp => Some("6.6"),
            Feature::TakeDescriptor => Some("5.6"),
            _ => None,
        }
    }
}

/// What went wrong with an attempt, as the launcher that made it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What was tried, and what the system said.
    pub why: String,
    /// The system's errno; 0 where there is none.
    pub errno: i32,
}

/// Why something is not to be had, and what would enable it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}; to enable: {enable}")]
pub struct Lack {
    /// What was tried, and what came of it.
    pub why: String,
    /// The command, where there is one.
    pub enable: String,
}

/// Settings of a host that decide about [`Feature`]s; those that the host has.
pub const SETTINGS: [&str; 6] = [
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_userns_clone",
    "user.max_user_namespaces",
    "user.max_net_namespaces",
    "user.max_mnt_namespaces",
    "kernel.yama.ptrace_scope",
];

/// What a refusal comes to on a host with these settings.
pub fn explain(feature: Feature, refused: &Refused, settings: &BTreeMap<String, String>) -> Lack {
    let is = |name: &str, value: &str| settings.get(name).is_some_and(|held| held == value);
    let set = |name: &str, value: &str| format!("sudo sysctl -w {name}={value}");
    let errno = errno_name(refused.errno);
    let older = || format!("boot Linux {} or later", feature.since().unwrap_or("5.9"));
    let enable = match feature {
        Feature::UserNamespace | Feature::NetworkNamespace | Feature::MountNamespace => {
            // In the order in which the kernel asks them.
            let switches = [
                ("user.max_user_namespaces", "0", "10000"),
                ("user.max_net_namespaces", "0", "10000"),
                ("user.max_mnt_namespaces", "0", "10000"),
                ("kernel.unprivileged_userns_clone", "0", "1"),
                ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
            ];
            match switches.iter().find(|(name, off, _)| is(name, off)) {
                Some((name, _, on)) => set(name, on),
                // A limit that is reached, not zero.
                None if errno == "ENOSPC" => {
                    "sudo sysctl -w user.max_user_namespaces=100000 user.max_net_namespaces=100000".to_owned()
                }
                None => "sudo faultbox ...; in a container: docker run --cap-add SYS_ADMIN ...".to_owned(),
            }
        }
        Feature::ReadMemory | Feature::TakeDescriptor if is("kernel.yama.ptrace_scope", "3") => {
            "set kernel.yama.ptrace_scope to 1 in /etc/sysctl.d and boot again".to_owned()
        }
        Feature::ReadMemory | Feature::TakeDescriptor if is("kernel.yama.ptrace_scope", "2") => {
            set("kernel.yama.ptrace_scope", "1")
        }
        Feature::TakeDescriptor if errno == "ENOSYS" => older(),
        Feature::ReadMemory | Feature::TakeDescriptor => {
            "sudo faultbox ...; in a container: docker run --cap-add SYS_PTRACE ...".to_owned()
        }
        _ => match errno {
            "EPERM" | "EACCES" => {
                "in a container: docker run --security-opt seccomp=PROFILE ... with a profile that permits seccomp(2)"
                    .to_owned()
            }
            "EBUSY" => "run outside the other supervisor, whose filter is on this process".to_owned(),
            _ if feature == Feature::Notify => "boot Linux 5.5 or later, with CONFIG_SECCOMP_FILTER".to_owned(),
            _ => older(),
        },
    };
    Lack { why: refused.why.clone(), enable }
}

/// The features that a text like `netns,sync_wake_up` names.
///
/// # Errors
/// The name that is no feature, in words.
pub fn parse_without(text: &str) -> Result<BTreeSet<Feature>, String> {
    let one = |name: &str| {
        let found = Feature::ALL.into_iter().find(|feature| feature.name() == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = Feature::ALL.iter().map(|feature| feature.name()).collect();
            format!("{WITHOUT}: no feature is called {name:?}; there are {}", known.join(", "))
        })
    };
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(one).collect()
}

/// What this process was told to do without; `Err` where that was not understood.
pub fn without() -> &'static Result<BTreeSet<Feature>, String> {
    static TOLD: OnceLock<Result<BTreeSet<Feature>, String>> = OnceLock::new();
    TOLD.get_or_init(|| match std::env::var_os(WITHOUT) {
        None => Ok(BTreeSet::new()),
        Some(text) => parse_without(&text.to_string_lossy()),
    })
}

/// The answer of a host without this feature, where this process was told to do without it.
#[cfg(target_os = "linux")]
pub(super) fn refuse(feature: Feature) -> nix::Result<()> {
    use nix::errno::Errno;
    // A text that is not understood ended the command before anything was launched.
    let told = without().as_ref().is_ok_and(|told| told.contains(&feature));
    let answer = match feature {
        Feature::UserNamespace | Feature::NetworkNamespace | Feature::MountNamespace => Errno::EPERM,
        Feature::ReadMemory => Errno::EPERM,
        Feature::TakeDescriptor => Errno::ENOSYS,
        _ => Errno::EINVAL,
    };
    if told { Err(answer) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    fn refused(errno: Errno) -> Refused {
        Refused { why: "tried: no".to_owned(), errno: errno as i32 }
    }

    fn enable(feature: Feature, errno: Errno, settings: &[(&str, &str)]) -> String {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let lack = explain(feature, &refused(errno), &settings.collect());
        assert_eq!(lack.why, "tried: no");
        lack.enable
    }

    #[test]
    fn each_switch_that_is_off_gets_its_own_command() {
        for (name, off, on) in [
            ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
            ("kernel.unprivileged_userns_clone", "0", "1"),
            ("user.max_user_namespaces", "0", "10000"),
            ("user.max_net_namespaces", "0", "10000"),
        ] {
            let wanted = format!("sudo sysctl -w {name}={on}");
            assert_eq!(enable(Feature::NetworkNamespace, Errno::EPERM, &[(name, off)]), wanted);
        }
        let on = [("kernel.unprivileged_userns_clone", "1"), ("user.max_user_namespaces", "96364")];
        assert!(enable(Feature::NetworkNamespace, Errno::EPERM, &on).starts_with("sudo faultbox"));
        assert!(enable(Feature::NetworkNamespace, Errno::ENOSPC, &on).ends_with("max_net_namespaces=100000"));
        for (scope, wanted) in [
            ("2", "sudo sysctl -w kernel.yama.ptrace_scope=1"),
            ("3", "set kernel.yama.ptrace_scope to 1 in /etc/sysctl.d and boot again"),
        ] {
            let held = [("kernel.yama.ptrace_scope", scope)];
            assert_eq!(enable(Feature::ReadMemory, Errno::EPERM, &held), wanted);
            assert_eq!(enable(Feature::TakeDescriptor, Errno::EPERM, &held), wanted);
        }
    }

    #[test]
    fn an_older_kernel_is_told_which_one_has_it() {
        assert_eq!(enable(Feature::SyncWakeUp, Errno::EINVAL, &[]), "boot Linux 6.6 or later");
        assert_eq!(enable(Feature::WaitKillable, Errno::EINVAL, &[]), "boot Linux 5.19 or later");
        assert_eq!(enable(Feature::TakeDescriptor, Errno::ENOSYS, &[]), "boot Linux 5.6 or later");
        let notify = enable(Feature::Notify, Errno::EINVAL, &[]);
        assert_eq!(notify, "boot Linux 5.5 or later, with CONFIG_SECCOMP_FILTER");
        assert!(enable(Feature::Notify, Errno::EPERM, &[]).contains("seccomp=PROFILE"));
    }

    #[test]
    fn what_to_do_without_is_understood_or_refused() {
        let told = parse_without("netns, sync_wake_up,").unwrap();
        assert_eq!(told, [Feature::NetworkNamespace, Feature::SyncWakeUp].into());
        assert_eq!(parse_without(""), Ok(BTreeSet::new()));
        let error = parse_without("netns,nets").unwrap_err();
        assert!(error.contains("\"nets\"") && error.contains("mountns"), "{error}");
        let names: BTreeSet<&str> = Feature::ALL.iter().map(|feature| feature.name()).collect();
        assert_eq!(names.len(), Feature::ALL.len());
    }
}

//! What this host permits, found out by trying.
//!
//! Contract: asks a launcher to try ([`super::launcher_main`]); what a launcher that does not
//! answer would have said is an error that says so.

use super::channel::{Channel, Command, Probed, Report};
use super::facts::{Account, HostFacts};
use super::features::{Feature, Refused, SETTINGS, explain, without};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Group, User, getegid, geteuid, getgroups};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

/// Finds out what this host permits, by having `launcher` really try. Blocks for some
/// milliseconds.
pub fn probe_host(launcher: &Path) -> HostFacts {
    let settings: BTreeMap<String, String> =
        SETTINGS.iter().filter_map(|name| Some(((*name).to_owned(), setting(name)?))).collect();
    let probed = ask(launcher).unwrap_or_else(|why| {
        let refused = Refused { why, errno: 0 };
        Probed(Feature::ALL.iter().map(|feature| (*feature, Err(refused.clone()))).collect())
    });
    let simulated: Vec<Feature> = without().iter().flatten().copied().collect();
    let told = |feature: Feature, refused: Refused| {
        let mut lack = explain(feature, &refused, &settings);
        // An ordinary user has the other namespaces by way of a user namespace.
        let by_way_of: &[Feature] = match feature {
            Feature::NetworkNamespace => &[Feature::UserNamespace],
            Feature::MountNamespace => &[Feature::UserNamespace, Feature::NetworkNamespace],
            _ => &[],
        };
        if simulated.contains(&feature) || by_way_of.iter().any(|way| simulated.contains(way)) {
            lack.why.push_str(" (simulated)");
        }
        (feature, Err(lack))
    };
    let found = probed.0.into_iter().map(|(feature, result)| match result {
        Ok(()) => (feature, Ok(())),
        Err(refused) => told(feature, refused),
    });
    let mut facts = HostFacts::new(account(), found.collect());
    (facts.kernel, facts.settings, facts.simulated) = (kernel_release(), settings, simulated);
    facts
}

fn account() -> Account {
    let uid = geteuid();
    let mut groups = getgroups().unwrap_or_default();
    if !groups.contains(&getegid()) {
        groups.insert(0, getegid());
    }
    let name = |group: nix::unistd::Gid| {
        let known = Group::from_gid(group).ok().flatten();
        known.map_or_else(|| group.to_string(), |known| known.name)
    };
    Account {
        uid: uid.as_raw(),
        name: User::from_uid(uid).ok().flatten().map(|user| user.name),
        groups: groups.into_iter().map(name).collect(),
    }
}

fn setting(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.trim().to_owned())
}

fn ask(launcher: &Path) -> Result<Probed, String> {
    let told = |what: &str, why: &dyn std::fmt::Display| format!("{what} {}: {why}", launcher.display());
    let (control, theirs) = Channel::pair().map_err(|errno| told("cannot make a channel to", &errno))?;
    setsockopt(&control, sockopt::ReceiveTimeout, &TimeVal::seconds(20))
        .map_err(|errno| told("cannot make a channel to", &errno))?;
    let mut child = std::process::Command::new(launcher)
        .arg("__launch")
        .stdin(Stdio::from(theirs.into_fd()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| told("cannot start", &error))?;
    let answer = control
        .send(&Command::Probe, &[])
        .and_then(|()| control.receive::<Report>())
        .map_err(|errno| told("no answer from", &errno.desc()));
    // It has answered, or will not; either way nothing of it is needed any more.
    let _ = child.kill();
    let _ = child.wait();
    match answer? {
        Some((Report::Probed(probed), _)) => Ok(probed),
        other => Err(told("no answer from", &format!("{:?}", other.map(|(report, _)| report)))),
    }
}

/// The kernel's release (`6.18.44`).
fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Whether the kernel is at least this version.
pub(super) fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = kernel_release();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

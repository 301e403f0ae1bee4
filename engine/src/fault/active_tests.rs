use super::*;
use crate::fault::Target;
use crate::oracle::SeededOracle;
use crate::virtual_time::Time;

fn rule(family: &str, action: SyscallAction) -> SyscallRule {
    SyscallRule {
        family: family.to_owned(),
        path: None,
        to: None,
        fd: None,
        process: None,
        action,
        inbound: false,
        modifiers: Modifiers::default(),
        words: format!("{family} = {action:?}"),
    }
}

fn assumption(name: &str, syscalls: Vec<SyscallRule>, parts: Vec<Assumption>) -> Assumption {
    let target = Some(Target { service: "db".to_owned(), interface: None });
    Assumption {
        name: name.to_owned(),
        description: String::new(),
        target,
        rules: Vec::new(),
        syscalls,
        parts,
    }
}

fn active(assumption: Assumption) -> Arc<ActiveFaults> {
    let faults = ActiveFaults::new(Journal::null(&Time::default()), Arc::new(SeededOracle::new(1)), "db");
    faults.activate(Arc::new(assumption));
    faults
}

const FILE: SyscallAsk<'static> = SyscallAsk {
    service: "db",
    families: &["write", "pwrite64"],
    peer: None,
    peers: &[],
    path: Some("data"),
    kind: Some(Kind::File),
    bytes: Some(10),
    process: &[],
    key: "write data",
};

fn actions(faults: &ActiveFaults, about: &SyscallAsk<'_>) -> Vec<SyscallAction> {
    faults.consult_syscall(about).into_iter().map(|(action, _)| action).collect()
}

fn glob(text: &str) -> Option<Pattern> {
    Some(Pattern { glob: text.to_owned(), case_sensitive: true })
}

#[test]
fn a_disk_fills_up_and_stays_full() {
    let full = SyscallAction::Deny(libc::ENOSPC);
    let faults = active(assumption("a", vec![rule("write", SyscallAction::EnospcAfter(25))], Vec::new()));
    let said: Vec<_> = (0..4).map(|_| actions(&faults, &FILE)).collect();
    assert_eq!(said, [vec![], vec![], vec![SyscallAction::Partial(5)], vec![full]]);
    // Nothing is left for a shorter one either, and another kind of file is not on this disk.
    assert_eq!(actions(&faults, &SyscallAsk { bytes: Some(1), ..FILE }), [full]);
    assert_eq!(actions(&faults, &SyscallAsk { kind: Some(Kind::Socket), path: None, ..FILE }), []);
    let counts = faults.account(&assumption("a", vec![rule("write", full)], Vec::new()));
    assert_eq!((counts[0].matched, counts[0].fired), (3, 3), "what fits is no match");
}

#[test]
fn a_part_is_of_calls_that_ask_for_more() {
    let part = SyscallAction::Partial(4);
    let faults = active(assumption("a", vec![rule("write", part)], Vec::new()));
    assert_eq!(actions(&faults, &FILE), [part]);
    assert_eq!(actions(&faults, &SyscallAsk { bytes: Some(4), ..FILE }), []);
    assert_eq!(actions(&faults, &SyscallAsk { bytes: None, ..FILE }), []);
}

/// Pauses of an outer and an inner assumption add up, and neither takes the other's failure away.
#[test]
fn nested_and_overlapping_rules_compose() {
    let (slow, slower) = (Duration::from_millis(3), Duration::from_millis(4));
    let only = |path: &str, action| SyscallRule { path: glob(path), ..rule("write", action) };
    let inner = assumption(
        "inner",
        vec![
            rule("pwrite64", SyscallAction::Delay(slower)),
            only("d*", SyscallAction::Deny(libc::EIO)),
            only("*", SyscallAction::Deny(libc::EROFS)),
        ],
        Vec::new(),
    );
    let outer =
        vec![rule("write", SyscallAction::Delay(slow)), only("log", SyscallAction::Deny(libc::ENOSPC))];
    let faults = active(assumption("outer", outer, vec![inner]));
    let [slow, slower] = [slow, slower].map(SyscallAction::Delay);
    assert_eq!(actions(&faults, &FILE), [slow, slower, SyscallAction::Deny(libc::EIO)]);
    let log = SyscallAsk { path: Some("log"), ..FILE };
    assert_eq!(actions(&faults, &log), [slow, SyscallAction::Deny(libc::ENOSPC)]);
    let other = SyscallAsk { path: Some("other"), ..FILE };
    assert_eq!(actions(&faults, &other), [slow, slower, SyscallAction::Deny(libc::EROFS)]);
}

#[test]
fn where_a_rule_acts_is_all_of_what_it_says() {
    let deny = SyscallAction::Deny(libc::EPIPE);
    let peers = ["bus".to_owned(), "bus.main".to_owned(), "10.0.0.7:9092".to_owned(), "10.0.0.7".to_owned()];
    let names = ["java".to_owned(), "kafka-writer".to_owned()];
    let socket = SyscallAsk { kind: Some(Kind::Socket), path: None, peers: &peers, process: &names, ..FILE };
    let acts = |rule: SyscallRule, about: &SyscallAsk<'_>| {
        !actions(&active(assumption("a", vec![rule], Vec::new())), about).is_empty()
    };
    let base = || rule("write", deny);
    for (rule, on_file, on_socket) in [
        (base(), true, false),
        (SyscallRule { fd: Some(FdScope::Any), ..base() }, true, true),
        (SyscallRule { fd: Some(FdScope::Kind(Kind::Socket)), ..base() }, false, true),
        (SyscallRule { to: glob("bus"), ..base() }, false, true),
        (SyscallRule { to: glob("bus.main"), ..base() }, false, true),
        (SyscallRule { to: glob("10.0.*:9092"), ..base() }, false, true),
        (SyscallRule { to: glob("cache"), ..base() }, false, false),
        (SyscallRule { to: glob("bus"), process: glob("kafka-*"), ..base() }, false, true),
        (SyscallRule { to: glob("bus"), process: glob("node"), ..base() }, false, false),
        // A call that is named by itself means files as its family does.
        (SyscallRule { family: "pwrite64".to_owned(), ..base() }, true, false),
        (SyscallRule { path: glob("dat*"), ..base() }, true, false),
    ] {
        let words = format!("{rule:?}");
        assert_eq!((acts(rule.clone(), &FILE), acts(rule, &socket)), (on_file, on_socket), "{words}");
    }
}

#[test]
fn a_rule_says_what_it_looks_at() {
    let to = SyscallRule { to: glob("bus"), ..rule("send", SyscallAction::Kill(9)) };
    let partial = rule("recv", SyscallAction::Partial(1));
    let faults =
        active(assumption("a", vec![rule("write", SyscallAction::Kill(9)), to, partial], Vec::new()));
    assert_eq!(faults.looks_at(&["write"]), Some(Interest::default()));
    assert_eq!(
        faults.looks_at(&["send", "sendto"]),
        Some(Interest { peer: true, process: false, bytes: false })
    );
    assert_eq!(faults.looks_at(&["recv"]), Some(Interest { bytes: true, ..Interest::default() }));
    assert_eq!(faults.looks_at(&["read"]), None);
}

#[test]
fn a_rule_that_denies_some_connects_does_not_deny_every_one() {
    let deny = || SyscallRule { inbound: true, ..rule("connect", SyscallAction::Deny(libc::ECONNREFUSED)) };
    let twice = Modifiers { times: Some(2), ..Modifiers::default() };
    let some = [
        SyscallRule { modifiers: twice, ..deny() },
        SyscallRule { process: glob("worker"), ..deny() },
        SyscallRule { inbound: false, ..deny() },
        SyscallRule { action: SyscallAction::Delay(std::time::Duration::ZERO), ..deny() },
    ];
    for rule in some {
        assert!(!active(assumption("some", vec![rule], Vec::new())).denies_every_connect("db"));
    }
    let faults = active(assumption("down", Vec::new(), vec![assumption("db", vec![deny()], Vec::new())]));
    assert_eq!(["db", "cache"].map(|service| faults.denies_every_connect(service)), [true, false]);
    assert_eq!(faults.resets_inbound(), ["db"]);
}

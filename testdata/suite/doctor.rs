//! `faultbox doctor`: what it says of this host, of smaller hosts that `FAULTBOX_WITHOUT` simulates,
//! and to an ordinary user; and that a run does what it says.
//!
//! Method: documents of `--format json`. What this host lacks by itself it may lack in every test;
//! what was taken away must be missing, with a command, and concern exactly its layers.

use super::{code, document, faultbox, orders_api, repository, skipped};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

/// An ordinary user's number.
const NOBODY: &str = "65534";

const NO_ENGINE: &str = "unix:///nonexistent/engine.sock";

fn doctor(without: &str, engine: Option<&str>) -> (Value, i32) {
    let mut command = Command::new(faultbox());
    command.args(["doctor", "--format", "json"]).env("FAULTBOX_WITHOUT", without);
    engine.map(|engine| command.env("DOCKER_HOST", engine));
    let output = command.output().unwrap();
    (document(&output), code(&output))
}

fn list<'a>(document: &'a Value, part: &str) -> &'a Vec<Value> {
    document[part].as_array().unwrap_or_else(|| panic!("no {part} in {document}"))
}

fn named<'a>(document: &'a Value, part: &str, name: &str) -> &'a Value {
    let found = list(document, part).iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} among the {part} of {document}"))
}

fn state<'a>(document: &'a Value, layer: &str) -> &'a str {
    named(document, "layers", layer)["state"].as_str().unwrap()
}

/// What holds for every answer: the exit code, and a reason with a command for each missing thing.
fn is_sound(document: &Value, code: i32) {
    let complete = list(document, "layers").iter().all(|layer| layer["state"] == "yes");
    assert_eq!(document["complete"], complete, "{document}");
    assert_eq!(code, if complete { 0 } else { 4 }, "{document}");
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    for layer in list(document, "layers") {
        let missing = layer["missing"].as_array().unwrap();
        assert_eq!(missing.is_empty(), layer["state"] == "yes", "{layer}");
        for one in missing {
            assert!(["what", "so", "why", "enable"].iter().all(|part| text(&one[part])), "{layer}");
        }
    }
    for feature in list(document, "features") {
        assert_eq!(feature["there"] == false, text(&feature["why"]), "{feature}");
        assert_eq!(feature["there"] == false, text(&feature["enable"]), "{feature}");
    }
}

#[test]
fn this_host_is_described() {
    let (document, code) = doctor("", None);
    is_sound(&document, code);
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    assert_eq!(document["user"]["uid"], uid);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(document["kernel"]["release"], kernel.trim());
    assert_eq!(list(&document, "simulated_without").len(), 0);
    let names: Vec<&str> =
        list(&document, "layers").iter().filter_map(|layer| layer["name"].as_str()).collect();
    let wanted = [
        "protocol rules",
        "syscall faults",
        "isolation",
        "containers",
        "syscall faults in containers",
        "replay",
    ];
    assert_eq!(names, wanted);
    // The suite's other tests need these.
    assert_eq!(state(&document, "protocol rules"), "yes", "{document}");
    let output = super::run(&["doctor"]);
    assert_eq!(super::code(&output), code);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(wanted.iter().all(|name| said.contains(name)), "{said}");
    assert_eq!(said.contains("to enable: "), code == 4, "{said}");
}

#[test]
fn what_is_taken_away_is_missing_where_it_is_needed() {
    let (whole, _) = doctor("", None);
    for (without, concerned) in [
        (
            "notify",
            &[("syscall faults", "no"), ("syscall faults in containers", "no"), ("replay", "partly")][..],
        ),
        ("continue", &[("syscall faults", "no"), ("replay", "partly")]),
        ("memory", &[("syscall faults", "no"), ("replay", "partly")]),
        ("sync_wake_up", &[("syscall faults", "partly")]),
        ("wait_killable", &[("syscall faults", "partly")]),
        ("netns", &[("isolation", "no"), ("replay", "partly")]),
        ("mountns", &[("isolation", "partly")]),
        (
            "netns,notify",
            &[("protocol rules", "no"), ("isolation", "no"), ("syscall faults", "no"), ("replay", "partly")],
        ),
        ("addfd", &[]),
    ] {
        let (document, code) = doctor(without, None);
        is_sound(&document, code);
        for feature in without.split(',') {
            let found = named(&document, "features", feature);
            assert_eq!(found["there"], false, "{without}: {found}");
            assert!(found["why"].as_str().unwrap().contains("(simulated)"), "{found}");
        }
        for layer in list(&whole, "layers").iter().filter_map(|layer| layer["name"].as_str()) {
            let taken = concerned.iter().find(|(name, _)| *name == layer);
            let in_containers = layer == "syscall faults in containers";
            match taken {
                Some((_, wanted)) => assert_eq!(state(&document, layer), *wanted, "{without}: {layer}"),
                // It needs what syscall faults need, and an engine.
                None if in_containers => {}
                None => assert_eq!(state(&document, layer), state(&whole, layer), "{without}: {layer}"),
            }
        }
    }
}

#[test]
fn without_an_engine_containers_are_what_is_missing() {
    let (whole, _) = doctor("", None);
    let (document, code) = doctor("", Some(NO_ENGINE));
    is_sound(&document, code);
    assert_eq!(code, 4);
    assert_eq!(document["container_engine"]["endpoint"], NO_ENGINE);
    assert_eq!(document["container_engine"]["why"], "there is no such socket");
    for layer in ["containers", "syscall faults in containers"] {
        assert_eq!(state(&document, layer), "no");
    }
    for layer in ["protocol rules", "syscall faults", "isolation", "replay"] {
        assert_eq!(state(&document, layer), state(&whole, layer));
    }
}

#[test]
fn a_feature_that_does_not_exist_cannot_be_taken_away() {
    for words in [&["doctor"][..], &["test", "specs/orders/faultbox.star", "--embedded"]] {
        let output = Command::new(faultbox())
            .args(words)
            .current_dir(repository("."))
            .env("FAULTBOX_WITHOUT", "netns,nets")
            .output()
            .unwrap();
        assert_eq!(code(&output), 2);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("no feature is called \"nets\"; there are notify,"), "{said}");
    }
}

/// A few cells of the chapter without some features.
fn chapter(without: &str, spec: &str, cells: &[&str]) -> (Output, String) {
    record(without, spec, cells, &["--no-bundle"])
}

fn record(without: &str, spec: &str, cells: &[&str], bundle: &[&str]) -> (Output, String) {
    let api = format!("api={}", orders_api().display());
    let mut words = vec!["test", spec, "--embedded", "--seed", "1", "--binary", &api];
    words.extend(bundle);
    cells.iter().for_each(|cell| words.extend(["--test", cell]));
    let output = Command::new(faultbox())
        .args(words)
        .current_dir(repository("."))
        .env("FAULTBOX_WITHOUT", without)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

const CHAPTER: &str = "specs/orders/faultbox.star";
const WRITES_FAIL: &str = "matrix_order_creation_db_write_fail";

#[test]
fn without_user_notification_syscall_faults_are_refused_and_the_rest_runs() {
    for (without, what) in [
        ("notify", "seccomp user notification: install a syscall filter"),
        ("continue", "seccomp continue: let a trapped call pass"),
        ("memory", "memory of services: read a service's memory"),
    ] {
        let (output, said) = chapter(without, CHAPTER, &["test_health_endpoint"]);
        assert_eq!(code(&output), 4, "{said}");
        assert!(said.contains("the spec has syscall faults (trapped in "), "{said}");
        assert!(said.contains(what) && said.contains("to enable: "), "{said}");
        assert!(!said.contains("---"), "a cell ran: {said}");
    }
    // One without syscall faults.
    let (output, said) = chapter("notify,continue,memory", "testdata/transcripts/small.star", &[]);
    assert!(!said.contains("syscall faults"), "{said}");
    assert!(said.contains(" passed, "), "{said}");
    assert_ne!(code(&output), 4, "{said}");
}

#[test]
fn an_older_kernel_faults_syscalls_all_the_same_and_says_in_which_mode() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("run.fb").display().to_string();
    let without = "wait_killable,sync_wake_up";
    let (output, said) = record(without, CHAPTER, &[WRITES_FAIL], &["--bundle", &bundle]);
    assert_eq!(code(&output), 0, "{said}");
    for part in [
        "notice: syscall faults work without seccomp wait killable: ",
        "notice: syscall faults work without seccomp synchronous wake-up: ",
        "to enable: boot Linux 6.6 or later",
        "1 passed, 0 failed",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!said.contains("unreached"), "{said}");
    let told = super::run(&["inspect", &bundle, WRITES_FAIL]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("seccomp user notification: yes"), "{told}");
    for feature in ["seccomp wait killable: no: ", "seccomp synchronous wake-up: no: "] {
        let line = told.lines().find(|line| line.contains(feature)).unwrap_or_else(|| panic!("{told}"));
        assert!(line.ends_with("(simulated)"), "{line}");
    }
}

#[test]
fn without_namespaces_and_ports_nothing_starts_and_that_is_said() {
    let (output, said) = chapter("netns,pidfd_getfd", CHAPTER, &["test_health_endpoint"]);
    assert_eq!(code(&output), 4, "{said}");
    for part in
        ["no local service can be started: network namespaces", "descriptors of services", "Linux 5.6"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!said.contains("---"), "a cell ran: {said}");
}

#[test]
fn an_ordinary_user_is_told_what_is_theirs() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return skipped("only root can become another user");
    }
    let dir = tempfile::Builder::new().prefix("faultbox-doctor").tempdir_in("/tmp").unwrap();
    let copied = dir.path().join("faultbox");
    std::fs::copy(faultbox(), &copied).unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(&copied)
        .args(["doctor", "--format", "json"])
        .output()
        .unwrap();
    let document = document(&output);
    is_sound(&document, code(&output));
    assert_eq!(document["user"]["uid"], 65534);
    let (whole, _) = doctor("", None);
    for layer in ["protocol rules", "syscall faults"] {
        assert_eq!(state(&document, layer), "yes", "{document}");
    }
    let engine = &document["container_engine"];
    if whole["container_engine"]["there"] == true {
        assert_eq!((code(&output), &engine["there"]), (4, &Value::Bool(false)), "{document}");
        assert!(engine["why"].as_str().unwrap().contains("this user may not talk to it"), "{engine}");
        assert_eq!(state(&document, "containers"), "no");
    }
}

#[test]
fn a_service_reaches_another_by_its_name_and_so_does_its_replay() {
    let (host, _) = doctor("", None);
    if named(&host, "features", "mountns")["there"] != true {
        return skipped("no mount namespaces here");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut spec = std::fs::read_to_string(repository("testdata/transcripts/small.star")).unwrap();
    // No address and no dependency: only the name says whom it asks.
    for (was, is) in [
        ("auth.service.main.url", "\"http://auth:8090\""),
        ("    depends_on = [auth.service],\n", ""),
        ("\"./bin/api\"", &format!("\"{}\"", orders_api().display())),
    ] {
        assert!(spec.contains(was), "{was}");
        spec = spec.replace(was, is);
    }
    let path = dir.path().join("named.star");
    std::fs::write(&path, spec).unwrap();
    let (path, bundle) = (path.display().to_string(), dir.path().join("run.fb").display().to_string());
    // A token is accepted only when its key could be fetched.
    let cell = "test_listing_without_a_database";
    let output = super::run(&["test", &path, "--seed", "1", "--embed", "--bundle", &bundle, "--test", cell]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 0, "{said}{}", String::from_utf8_lossy(&output.stderr));
    let output = super::run(&["replay", &bundle]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(code(&output) == 0 && said.contains("  exact ("), "{said}");
}

/// A member of the group that the engine's socket belongs to, with these capabilities.
fn member(group: u32, capabilities: Option<&str>, folder: &std::path::Path) -> (Output, String) {
    let group = group.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--groups", &group]);
    if let Some(some) = capabilities {
        command.args(["--inh-caps", some, "--ambient-caps", some]);
    }
    command.arg(folder.join("faultbox")).args(["test", "closed.star", "--seed", "1", "--no-bundle"]);
    let output = command.current_dir(folder).env("HOME", folder).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn a_member_of_the_engines_group_loses_one_layer_and_two_capabilities_give_it_back() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return skipped("only root can become another user");
    }
    if !super::containers::ready(&["redis"]) {
        return;
    }
    let Ok(socket) = std::fs::metadata("/var/run/docker.sock") else {
        return skipped("the engine has no socket at the usual place");
    };
    let dir = tempfile::Builder::new().prefix("faultbox-doctor").tempdir_in("/tmp").unwrap();
    std::fs::copy(faultbox(), dir.path().join("faultbox")).unwrap();
    std::fs::copy(repository("testdata/containers/closed.star"), dir.path().join("closed.star")).unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    // The right to trace alone opens no folder of descriptors: no fault may be lost in silence.
    for some in [None, Some("+sys_ptrace")] {
        let (output, said) = member(socket.gid(), some, dir.path());
        assert_eq!(code(&output), 4, "{said}");
        assert!(said.contains("--- ERROR: matrix_save_full"), "{said}");
        assert!(said.contains("its process is another user's"), "{said}");
        assert!(said.contains("--- PASS: matrix_save_slow"), "{said}");
        let notice = "notice: a cell that faults syscalls of the container of cache ends in an error";
        assert!(said.contains(notice) && said.contains("cap_sys_ptrace,cap_dac_read_search"), "{said}");
    }
    let (output, said) = member(socket.gid(), Some("+sys_ptrace,+dac_read_search"), dir.path());
    assert_eq!(code(&output), 0, "{said}");
    assert!(said.contains("2 passed, 0 failed") && !said.contains("unreached"), "{said}");
    assert!(!said.contains("ends in an error"), "{said}");
}

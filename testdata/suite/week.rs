//! A bundle that is more than a week old replays exactly: its tokens have long expired, its times are
//! long past, and the service checks tokens by its own clock, which nobody moves then.
//!
//! Method: the recording is made by a Faultbox and a service whose wall clocks are ten days behind
//! (`testdata/clock`); it is replayed with everybody's clock as it is. That tokens are checked in earnest
//! is seen by a service whose clock is ahead: it refuses those that the replay makes.

use super::go::go_api;
use super::replays::{inexact, replay};
use super::{cells, code, document, faultbox, orders_api, reasons, red, repository, skipped};
use faultbox_bundle_format::{Body, Bundle, fuzzing};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

const TEN_DAYS_S: i64 = 10 * 24 * 60 * 60;
const TESTS: &[&str] = &[
    "test_*",
    "matrix_order_creation_db_write_fail",
    "matrix_order_listing_cache_down",
    "matrix_login_flow_users_unavailable",
];

/// The command that moves a program's clock, where it can be built.
fn shift(folder: &Path) -> Option<PathBuf> {
    if !cfg!(target_arch = "x86_64") {
        skipped("clocks are moved on x86-64 only");
        return None;
    }
    let compile = |source: &str, built: &Path, more: &[&str]| {
        let mut command = Command::new("cc");
        command.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(built);
        command.arg(repository("testdata/clock").join(source)).args(more);
        let compiled = command.status();
        assert!(compiled.is_ok_and(|status| status.success()), "no C compiler: `make setup` brings one");
    };
    let built = folder.join("shift");
    compile("shift.c", &built, &[]);
    compile("waits.c", &folder.join("waits.so"), &["-shared", "-fPIC"]);
    Some(built)
}

/// The service with its clock moved, as one executable.
fn shifted(folder: &Path, shift: &Path, seconds: i64, api: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(format!("api{seconds}"));
    let (waits, shift, api) = (folder.join("waits.so"), shift.display(), api.display());
    let script =
        format!("#!/bin/sh\nSHIFT_PRELOAD={} exec {shift} {seconds} {api} \"$@\"\n", waits.display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn replays_after_a_week(api: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let Some(shift) = shift(dir.path()) else { return };
    let bundle = dir.path().join("old.fb");
    let then = shifted(dir.path(), &shift, -TEN_DAYS_S, api);
    let mut command = Command::new(&shift);
    command.arg((-TEN_DAYS_S).to_string()).arg(faultbox());
    command.args(["test", "--embedded", "--seed", "1", "--format", "json", "--bundle"]).arg(&bundle);
    command.arg("--binary").arg(format!("api={}", then.display()));
    command.args(TESTS.iter().flat_map(|test| ["--test", test]));
    let recorded = command.arg(repository("specs/orders/faultbox.star")).output().unwrap();
    assert_eq!(code(&recorded), 0, "{}", reasons(&document(&recorded)));
    let count = cells(&document(&recorded)).len();
    assert_eq!(count, 6);

    let opened = Bundle::open(&bundle).unwrap();
    let began = opened.run_entries().unwrap().into_iter().find_map(|entry| match entry.body {
        Body::RunStarted(started) => Some(Duration::from_nanos(started.unix_ns)),
        _ => None,
    });
    let written = std::fs::metadata(&bundle).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
    assert!(written - began.unwrap() > Duration::from_secs(7 * 24 * 60 * 60), "the clock was not moved");
    // The beginning of every token, `{"alg":` in base64.
    let plain = fuzzing::uncompressed(&opened).unwrap();
    let holds = |what: &str| plain.windows(what.len()).any(|window| window == what.as_bytes());
    assert!(!holds("eyJhbGciOi"), "a token is in the bundle");
    assert!(holds("Bearer <secret "), "no token was sent");

    let now = format!("api={}", api.display());
    let (again, exit) = replay(&bundle, &["--with", &now]);
    assert_eq!(inexact(&again), Vec::<String>::new());
    assert_eq!((cells(&again).len(), exit), (count, 0), "{}", reasons(&again));

    let ahead = format!("api={}", shifted(dir.path(), &shift, TEN_DAYS_S, api).display());
    let (refused, exit) = replay(&bundle, &["--with", &ahead, "--test", "test_create_order"]);
    assert_eq!(
        (red(&refused), exit),
        (vec!["test_create_order".to_owned()], 1),
        "an expired token was taken"
    );
}

#[test]
fn the_rust_service_replays_exactly_after_a_week() {
    replays_after_a_week(&orders_api());
}

#[test]
fn the_go_service_replays_exactly_after_a_week() {
    if let Some(api) = go_api() {
        replays_after_a_week(&api);
    }
}

//! Real servers in containers: the chapter without `--embedded`, resets, disk faults, what a run
//! leaves behind. Needs a container engine and the images of `testdata/images`; where there is no
//! engine the tests say so and pass, unless `CI` is set: there it is a failure.

use super::chapter::DEFECTS;
use super::go::go_api;
use super::{cells, code, document, faultbox, orders_api, reasons, red, repository, run};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const SPECS: &str = "testdata/containers";
/// What the chapter runs beside.
const STACK: &[&str] = &["mariadb", "redis", "kafka"];

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("the docker command")
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Whether containers can be tested here, with these images (as `testdata/images/build` names them).
pub fn ready(images: &[&str]) -> bool {
    let answers = Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success());
    let built = answers
        && Command::new(repository("testdata/images/build")).args(images).status().is_ok_and(|s| s.success());
    if !built {
        let why = if answers { "an image could not be built" } else { "no container engine answers" };
        assert!(std::env::var_os("CI").is_none(), "{why}: run .ci/docker first");
        eprintln!("skipped: {why} (.ci/docker starts an engine)");
    }
    built
}

/// Ids of the processes that made the containers that there are, with their containers.
fn owned() -> Vec<(String, String)> {
    let format = "{{.Label \"faultbox.owner\"}} {{.Names}}";
    let listed = docker(&["ps", "--all", "--filter", "label=faultbox", "--format", format]);
    let owner = |line: String| {
        let words: Vec<&str> = line.split(' ').collect();
        Some(((*words.get(2)?).to_owned(), (*words.last()?).to_owned()))
    };
    lines(&listed).into_iter().filter_map(owner).collect()
}

/// Containers of runs that have ended.
fn left() -> Vec<String> {
    let dead = |pid: &str| !std::path::Path::new("/proc").join(pid).exists();
    owned().into_iter().filter(|(pid, _)| dead(pid)).map(|(_, name)| name).collect()
}

fn spec(name: &str) -> String {
    repository(SPECS).join(name).display().to_string()
}

/// The chapter's spec with this service, beside containers.
fn chapter(api: &Path, more: &[&str]) -> (serde_json::Value, i32) {
    let spec = repository("specs/orders/faultbox.star").display().to_string();
    let api = format!("api={}", api.display());
    let mut arguments = vec!["test", &spec, "--seed", "1", "--binary", &api, "--format", "json"];
    arguments.extend(more);
    let output = run(&arguments);
    (document(&output), code(&output))
}

/// A healthy service passes all 27, and each replays exactly where there is no container engine.
fn healthy(api: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("containers.fb").display().to_string();
    let (recorded, exit) = chapter(api, &["--bundle", &bundle]);
    assert_eq!(red(&recorded), Vec::<String>::new(), "{}", reasons(&recorded));
    assert_eq!((cells(&recorded).len(), exit), (27, 0));
    let fired = |name: &str| {
        let cell = cells(&recorded).iter().find(|cell| cell["name"] == *name).unwrap();
        cell["faults"][0]["fired"].as_u64().unwrap()
    };
    for name in ["db_write_fail", "db_down", "cache_down", "bus_down"] {
        assert!(fired(&format!("matrix_order_creation_{name}")) > 0, "{name} never fired");
    }
    // The server died of it in that cell, and was there again in the next.
    assert_eq!(fired("matrix_order_listing_db_write_fail"), 0, "only the scenario's own writes meet it");
    assert_eq!(left(), Vec::<String>::new());

    let replayed = Command::new(faultbox())
        .args(["replay", &bundle, "--format", "json"])
        .env("DOCKER_HOST", "unix:///nonexistent/engine.sock")
        .output()
        .unwrap();
    let replayed = document(&replayed);
    let inexact: Vec<_> = cells(&replayed).iter().filter(|cell| cell["exact"] != true).collect();
    assert!(inexact.is_empty(), "{inexact:#?}");
}

/// Each defect turns the cells red that it turns red beside stand-ins, and no others.
fn defects_turn_their_cells_red(api: &Path) {
    for (name, expected) in DEFECTS {
        let (document, exit) = chapter(api, &["--no-bundle", "--env", &format!("api:ORDERS_BUG={name}")]);
        assert_eq!(red(&document), *expected, "{name}: {}", reasons(&document));
        assert_eq!(exit, 1, "{name}");
    }
}

#[test]
fn the_chapter_passes_in_containers_and_replays_without_them() {
    if ready(STACK) {
        healthy(&orders_api());
    }
}

#[test]
fn each_defect_turns_the_same_cells_red_in_containers() {
    if ready(STACK) {
        defects_turn_their_cells_red(&orders_api());
    }
}

#[test]
fn so_does_the_go_service_pass_and_replay() {
    if let (true, Some(api)) = (ready(STACK), go_api()) {
        healthy(&api);
    }
}

#[test]
fn and_so_does_each_defect_of_the_go_service() {
    if let (true, Some(api)) = (ready(STACK), go_api()) {
        defects_turn_their_cells_red(&api);
    }
}

/// Runs a spec of `testdata/containers`: all of it passes, and nothing is left.
pub fn passes(name: &str) {
    let output = run(&["test", &spec(name), "--seed", "1", "--no-bundle", "--format", "json"]);
    let document = document(&output);
    assert_eq!(red(&document), Vec::<String>::new(), "{}", reasons(&document));
    assert_eq!(code(&output), 0);
    assert_eq!(left(), Vec::<String>::new());
}

#[test]
fn mariadb_is_put_back() {
    if ready(&["mariadb"]) {
        passes("reset_mariadb.star");
    }
}

#[test]
fn mysql_is_put_back() {
    if ready(&["mysql"]) {
        passes("reset_mysql.star");
    }
}

#[test]
fn redis_is_put_back_and_meets_a_full_disk_as_an_ordinary_user() {
    if ready(&["redis"]) {
        passes("redis.star");
    }
}

#[test]
fn kafka_is_put_back() {
    if ready(&["kafka"]) {
        passes("reset_kafka.star");
    }
}

#[test]
fn a_jvm_is_supervised() {
    if ready(&["kafka"]) {
        passes("jvm.star");
    }
}

#[test]
fn an_image_that_is_nowhere_is_named_with_its_registry() {
    if !ready(&[]) {
        return;
    }
    let output = run(&["test", &spec("absent.star"), "--seed", "1", "--no-bundle"]);
    assert_eq!(code(&output), 4);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["localhost:1/faultbox/absent:3", "from localhost:1", "docker pull"] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
}

#[test]
fn a_program_that_is_not_in_the_image_is_an_error_with_its_reason() {
    if !ready(&["redis"]) {
        return;
    }
    let output = run(&["test", &spec("no_program.star"), "--seed", "1", "--no-bundle"]);
    assert_eq!(code(&output), 4);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("execute no-such-program"), "{said}");
    assert_eq!(left(), Vec::<String>::new());
}

/// Starts a run that lasts, and returns when its container is there.
fn lasting() -> std::process::Child {
    lasting_at(None)
}

/// As [`lasting`], on another engine than the usual one.
fn lasting_at(engine: Option<&str>) -> std::process::Child {
    let mut command = Command::new(faultbox());
    command.args(["test", &spec("lasting.star"), "--seed", "1", "--no-bundle"]);
    command.envs(engine.map(|engine| ("DOCKER_HOST", engine)));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id().to_string();
    for _ in 0..100_000 {
        if owned().iter().any(|(owner, _)| *owner == pid) {
            return child;
        }
    }
    // Else it would outlive the test.
    let _ = child.kill();
    panic!("the run made no container: {:?}", child.wait());
}

#[test]
fn an_interrupted_run_leaves_nothing_and_a_killed_one_is_cleaned_up() {
    if !ready(&["redis"]) {
        return;
    }
    let mut interrupted = lasting();
    let pid = interrupted.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    interrupted.wait().unwrap();
    assert_eq!(left(), Vec::<String>::new());

    let mut killed = lasting();
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The shim may have ended it by now, else this does.
    passes("redis.star");

    let name = format!("not-ours-{}", std::process::id());
    docker(&["create", "--name", &name, "redis:7-alpine"]);
    let mut cleaned = lasting();
    let output = run(&["clean"]);
    assert_eq!(code(&output), 0);
    let said = lines(&output).join("\n");
    assert!(said.contains("removed faultbox-") && said.contains("redis:7-alpine"), "{said}");
    let pid = cleaned.id().to_string();
    assert!(!owned().iter().any(|(owner, _)| *owner == pid), "{:?}", owned());
    let theirs = lines(&docker(&["ps", "--all", "--quiet", "--filter", &format!("name={name}")]));
    docker(&["rm", &name]);
    assert_eq!(theirs.len(), 1, "a container without our label was removed");
    // Its server is gone; how it ends is its own business.
    let _ = cleaned.kill();
    cleaned.wait().unwrap();
}

/// What a run said, both streams.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Copies a folder of the repository, one level and what is below it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &place),
            false => drop(std::fs::copy(entry.path(), place).unwrap()),
        }
    }
}

/// The specs of containers in a folder of their own, with the program of `plain.star` compiled.
fn plain() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    copy(&repository(SPECS), dir.path());
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-C", "opt-level=s", "-o"])
        .arg(dir.path().join("plain/server"))
        .arg(dir.path().join("plain/main.rs"))
        .status();
    assert!(compiled.unwrap().success());
    let spec = dir.path().join("plain.star").display().to_string();
    (dir, spec)
}

/// Removes the images that were built for these services, now or in a test that failed.
pub fn forget_builds(services: &[&str]) {
    for service in services {
        for id in lines(&docker(&["images", "--quiet", &format!("faultbox-build/{service}")])) {
            docker(&["rmi", "--force", &id]);
        }
    }
}

fn exact(document: &serde_json::Value) -> usize {
    let inexact: Vec<_> = cells(document).iter().filter(|cell| cell["exact"] != true).collect();
    assert!(inexact.is_empty(), "{inexact:#?}");
    cells(document).len()
}

#[test]
fn a_container_without_libc_or_shell_is_a_service_under_test() {
    if !ready(&["redis"]) {
        return;
    }
    let (dir, spec) = plain();
    let bundle = dir.path().join("plain.fb").display().to_string();
    let output = run(&["test", &spec, "--seed", "1", "--bundle", &bundle, "--format", "json"]);
    let recorded = document(&output);
    assert_eq!(red(&recorded), Vec::<String>::new(), "{}", reasons(&recorded));
    assert_eq!((cells(&recorded).len(), code(&output)), (11, 0));
    let fired = |name: &str| {
        let cell = cells(&recorded).iter().find(|cell| cell["name"] == *name).unwrap();
        cell["faults"][0]["fired"].as_u64().unwrap()
    };
    assert!(fired("matrix_writes_full") > 0, "its own disk");
    assert!(fired("matrix_asks_cache_down") > 0, "what it asks");
    assert!(fired("matrix_asks_the_relay_cache_down") > 0, "what another container asks");
    assert!(fired("matrix_asks_slow") > 0, "rules on what it asks");
    assert_eq!(left(), Vec::<String>::new());

    let replayed = run(&["replay", &bundle, "--format", "json"]);
    assert_eq!(exact(&document(&replayed)), 11, "{}", said(&replayed));
    assert_eq!(code(&replayed), 0);
    assert_eq!(left(), Vec::<String>::new());

    // The image of the bundle is known by what it is.
    let shown = said(&run(&["inspect", &bundle, "matrix_writes_full"]));
    assert!(shown.contains("build ./plain sha256:"), "{shown}");
    let lost = Command::new(faultbox())
        .args(["replay", &bundle])
        .env("DOCKER_HOST", "unix:///nonexistent/engine.sock")
        .output()
        .unwrap();
    assert_eq!(code(&lost), 4);
    assert!(said(&lost).contains("plain: build ./plain needs a container engine"), "{}", said(&lost));

    forget_builds(&["plain", "relay"]);
    let gone = run(&["replay", &bundle]);
    assert_eq!(code(&gone), 4);
    assert!(said(&gone).contains("plain: the recorded image (build ./plain, sha256:"), "{}", said(&gone));
}

/// The chapter with its service built as an image, with this said of it as well. Its spec.
pub fn chapter_in_a_container(folder: &Path, more: &str) -> PathBuf {
    copy(&repository("specs/orders"), folder);
    let spec = folder.join("faultbox.star");
    let text = std::fs::read_to_string(&spec).unwrap();
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    let built = text.replace("binary = \"./bin/api\"", &format!("build = \"./app\"{more}"));
    assert_ne!(text, built);
    std::fs::write(&spec, built).unwrap();
    let app = folder.join("app");
    std::fs::create_dir(&app).unwrap();
    std::fs::copy(orders_api(), app.join("api")).unwrap();
    // The base has the C library that the service was linked with.
    std::fs::write(app.join("Dockerfile"), "FROM mysql:8.0.32\nCOPY api /api\nENTRYPOINT [\"/api\"]\n")
        .unwrap();
    spec
}

#[test]
fn the_chapters_service_in_a_container_is_found_out_and_replays() {
    if !ready(&["mariadb"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = chapter_in_a_container(dir.path(), "");
    let (spec, bundle) = (spec.display().to_string(), dir.path().join("api.fb").display().to_string());
    let mut arguments =
        vec!["test", &spec, "--embedded", "--seed", "1", "--bundle", &bundle, "--format", "json"];
    arguments.extend(["--env", "api:ORDERS_BUG=db-slow-health"]);
    for cell in ["test_*", "matrix_*_db_slow", "matrix_order_creation_*_down"] {
        arguments.extend(["--test", cell]);
    }
    let output = run(&arguments);
    let recorded = document(&output);
    assert_eq!(red(&recorded), ["matrix_health_probe_db_slow"], "{}", reasons(&recorded));
    assert_eq!((cells(&recorded).len(), code(&output)), (10, 1));
    assert_eq!(left(), Vec::<String>::new());

    let replayed = run(&["replay", &bundle, "--format", "json"]);
    assert_eq!(exact(&document(&replayed)), 10, "{}", said(&replayed));
    let healthy =
        run(&["replay", &bundle, "--test", "matrix_health_probe_db_slow", "--env", "api:ORDERS_BUG="]);
    assert_eq!(code(&healthy), 1);
    assert!(said(&healthy).contains("verdict flipped: was FAIL, now PASS"), "{}", said(&healthy));
    let other = run(&["replay", &bundle, "--with", "api=localhost:1/faultbox/absent:3"]);
    assert_eq!(code(&other), 4);
    assert!(said(&other).contains("localhost:1/faultbox/absent:3"), "{}", said(&other));
    forget_builds(&["api"]);
    assert_eq!(left(), Vec::<String>::new());
}

#[test]
fn a_build_that_fails_shows_its_last_lines() {
    if !ready(&[]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = dir.path().join("broken.star");
    let text = "thing = service(\"thing\", build = \"./app\", interface(\"main\", \"http\", 8080))\n\
                def test_nothing():\n    pass\n";
    std::fs::write(&spec, text).unwrap();
    let spec = spec.display().to_string();
    let output = run(&["test", &spec, "--seed", "1", "--no-bundle"]);
    assert_eq!(code(&output), 4);
    assert!(said(&output).contains("app is not a folder"), "{}", said(&output));

    let app = dir.path().join("app");
    std::fs::create_dir(&app).unwrap();
    let output = run(&["test", &spec, "--seed", "1", "--no-bundle"]);
    assert_eq!(code(&output), 4);
    assert!(said(&output).contains("has no Dockerfile"), "{}", said(&output));

    // What `.dockerignore` names does not go along.
    std::fs::write(app.join("Dockerfile"), "FROM scratch\nLABEL a=b\nCOPY left-behind /x\n").unwrap();
    std::fs::write(app.join(".dockerignore"), "left-*\n").unwrap();
    std::fs::write(app.join("left-behind"), "x").unwrap();
    let output = run(&["test", &spec, "--seed", "1", "--no-bundle"]);
    assert_eq!(code(&output), 4);
    for part in ["build of thing from ./app failed", "COPY failed", " : LABEL a=b"] {
        assert!(said(&output).contains(part), "no {part:?} in:\n{}", said(&output));
    }
    assert_eq!(left(), Vec::<String>::new());
}

#[test]
fn images_are_pinned_and_a_drift_is_told() {
    if !ready(&["redis"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&repository(SPECS), dir.path());
    let spec = dir.path().join("kept.star").display().to_string();
    let file = dir.path().join("faultbox.lock");
    let test = |more: &[&str]| {
        let mut arguments = vec!["test", &spec, "--seed", "1", "--no-bundle", "--test", "test_a*"];
        arguments.extend(more);
        run(&arguments)
    };
    let unpinned = test(&["--locked"]);
    assert_eq!(code(&unpinned), 2);
    assert!(said(&unpinned).contains("faultbox.lock pins nothing for kept.star"), "{}", said(&unpinned));

    let locked = run(&["lock", &spec]);
    assert_eq!(code(&locked), 0, "{}", said(&locked));
    let written = std::fs::read_to_string(&file).unwrap();
    let id = lines(&docker(&["image", "inspect", "--format", "{{.Id}}", "redis:7-alpine"])).remove(0);
    assert!(written.contains(&id), "{written}");
    let as_pinned = test(&["--locked"]);
    assert_eq!(code(&as_pinned), 0, "{}", said(&as_pinned));

    let other = format!("sha256:{}", "0".repeat(64));
    std::fs::write(&file, written.replace(&id, &other)).unwrap();
    let drifted = test(&["--locked"]);
    assert_eq!(code(&drifted), 4);
    for part in ["redis:7-alpine", id.as_str(), other.as_str(), "faultbox lock"] {
        assert!(said(&drifted).contains(part), "no {part:?} in:\n{}", said(&drifted));
    }
    assert!(!said(&drifted).contains("---"), "no cell ran");
    let told = test(&[]);
    assert_eq!(code(&told), 0);
    let notices = said(&told).lines().filter(|line| line.contains("faultbox.lock")).count();
    assert_eq!(notices, 1, "{}", said(&told));

    let missing = written.replace("redis:7-alpine", "redis:6");
    std::fs::write(&file, missing).unwrap();
    let differs = test(&["--locked"]);
    assert_eq!(code(&differs), 2);
    for part in ["redis:7-alpine is not in faultbox.lock", "pins redis:6, which the spec does not use"] {
        assert!(said(&differs).contains(part), "no {part:?} in:\n{}", said(&differs));
    }
    std::fs::write(&file, "{").unwrap();
    assert_eq!(code(&test(&[])), 2, "a lock file that cannot be read is never passed over");
}

/// The name of the container of which a run says this.
fn named(said: &str, before: &str) -> String {
    let at = said.find(before).unwrap_or_else(|| panic!("no {before:?} in:\n{said}"));
    said[at + before.len()..].split([' ', '\n']).next().unwrap().to_owned()
}

fn is_running(name: &str) -> bool {
    let state = docker(&["inspect", "--format", "{{.State.Running}}", name]);
    lines(&state) == ["true"]
}

#[test]
fn a_kept_container_is_found_by_its_definition_and_put_back() {
    if !ready(&["redis"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&repository(SPECS), dir.path());
    let spec = dir.path().join("kept.star");
    let test = |more: &[&str]| {
        // Slots of its own.
        let mut command = Command::new(faultbox());
        command
            .env("TMPDIR", dir.path())
            .arg("test")
            .arg(&spec)
            .args(["--seed", "1", "--no-bundle"])
            .args(more);
        command.output().unwrap()
    };
    let first = test(&["--keep", "--test", "test_*"]);
    assert_eq!(code(&first), 0, "{}", said(&first));
    let name = named(&said(&first), "cache: its container ");
    assert!(is_running(&name), "{}", said(&first));

    // Between runs nothing holds up its syscalls: a write of its own gets through.
    let saved = docker(&["exec", &name, "redis-cli", "SAVE"]);
    assert_eq!(lines(&saved), ["OK"], "{}", said(&saved));

    // Twice, so that one that was taken over is left as well; a run without --keep leaves it too.
    for more in [&["--keep"][..], &["--keep"], &[]] {
        let again = test(&[&["--test", "test_*"], more].concat());
        assert_eq!(code(&again), 0, "{}", said(&again));
        assert_eq!(named(&said(&again), "cache: uses the kept container "), name);
        assert_eq!(named(&said(&again), "cache: its container "), name);
        assert!(is_running(&name), "{}", said(&again));
    }

    // Another name or more cells are no other definition, another seed is.
    let text = std::fs::read_to_string(&spec).unwrap();
    std::fs::write(&spec, format!("{text}\ndef test_c():\n    pass\n")).unwrap();
    assert_eq!(named(&said(&test(&["--keep", "--test", "test_c"])), "cache: uses the kept container "), name);
    std::fs::write(&spec, text.replace("value = \"yes\"", "value = \"no\"")).unwrap();
    let other = test(&["--keep", "--test", "test_b*"]);
    let changed = "cache: its definition has changed: the kept container ";
    assert_eq!(named(&said(&other), changed), name);
    assert!(!is_running(&name));
    let name = named(&said(&other), "cache: its container ");
    std::fs::write(&spec, &text).unwrap();

    // A run without --keep and with another definition neither uses nor removes it.
    let apart = test(&["--test", "test_a*"]);
    assert_eq!(code(&apart), 0, "{}", said(&apart));
    assert!(!said(&apart).contains("kept") && is_running(&name), "{}", said(&apart));

    // A fault that takes it down, or fails its disk, is met by a container that was taken over too.
    let kept = named(&said(&test(&["--keep", "--env", "cache:GENERATION=2"])), "cache: its container ");
    let faulted = test(&["--keep", "--env", "cache:GENERATION=2", "--test", "matrix_save_full"]);
    assert_eq!(code(&faulted), 0, "{}", said(&faulted));
    assert_eq!(named(&said(&faulted), "cache: uses the kept container "), kept);

    let cleaned = run(&["clean"]);
    let line = format!("removed {kept} (cache, ");
    assert!(
        said(&cleaned).contains(&line) && said(&cleaned).contains("kept by --keep"),
        "{}",
        said(&cleaned)
    );
    assert!(!is_running(&kept) && !is_running(&name));
    let slots = dir
        .path()
        .join(format!("faultbox-kept-{}", lines(&Command::new("id").arg("-u").output().unwrap())[0]));
    assert_eq!(std::fs::read_dir(slots).unwrap().count(), 0, "and what they needed");
}

#[test]
fn an_interrupted_run_keeps_nothing() {
    if !ready(&["redis"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(faultbox());
    command
        .args(["test", &spec("lasting.star"), "--seed", "1", "--no-bundle", "--keep"])
        .env("TMPDIR", dir.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id().to_string();
    while !owned().iter().any(|(owner, _)| *owner == pid) {}
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(said(&output).contains("everything that was started has ended"), "{}", said(&output));
    assert!(!owned().iter().any(|(owner, _)| *owner == pid), "{:?}", owned());
}

/// Something between a client and the engine that can go away.
struct Between {
    path: std::path::PathBuf,
    ended: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Between {
    fn start(path: std::path::PathBuf) -> Self {
        let between = Between { path, ended: Arc::default(), open: Arc::default() };
        let listener = UnixListener::bind(&between.path).unwrap();
        let (ended, open) = (between.ended.clone(), between.open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let usual = std::env::var("DOCKER_HOST").unwrap_or("unix:///var/run/docker.sock".to_owned());
                let engine = UnixStream::connect(usual.trim_start_matches("unix://")).unwrap();
                let mut open = open.lock().unwrap();
                for (from, to) in [(&client, &engine), (&engine, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    open.push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        between
    }

    fn go_away(&self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which ends then.
        UnixStream::connect(&self.path).unwrap();
        std::fs::remove_file(&self.path).unwrap();
        for stream in self.open.lock().unwrap().iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn an_engine_that_goes_away_is_one_line_and_the_next_run_cleans_up() {
    if !ready(&["redis"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let between = Between::start(dir.path().join("engine.sock"));
    let endpoint = format!("unix://{}", between.path.display());
    let child = lasting_at(Some(&endpoint));
    let pid = child.id().to_string();
    between.go_away();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 4, "{}", said(&output));
    let told = said(&output);
    let about: Vec<&str> = told.lines().filter(|line| line.contains("engine")).collect();
    assert_eq!(about.len(), 1, "{told}");
    assert!(
        about[0].contains(&endpoint) && about[0].contains("went away in the middle of the run"),
        "{told}"
    );
    passes("redis.star");
    assert!(!owned().iter().any(|(owner, _)| *owner == pid), "{:?}", owned());
}

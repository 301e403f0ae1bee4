//! Real servers in containers: the chapter without `--embedded`, resets, disk faults, what a run
//! leaves behind. Needs a container engine and the images of `testdata/images`; where there is no
//! engine the tests say so and pass, unless `CI` is set: there it is a failure.

use super::{cells, code, document, faultbox, orders_api, reasons, red, repository, run};
use std::process::{Command, Output, Stdio};

const SPECS: &str = "testdata/containers";

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

fn chapter(more: &[&str]) -> (serde_json::Value, i32) {
    let spec = repository("specs/orders/faultbox.star").display().to_string();
    let api = format!("api={}", orders_api().display());
    let mut arguments = vec!["test", &spec, "--seed", "1", "--binary", &api, "--format", "json"];
    arguments.extend(more);
    let output = run(&arguments);
    (document(&output), code(&output))
}

#[test]
fn the_chapter_passes_in_containers_and_replays_without_them() {
    if !ready(&["mariadb", "redis", "kafka"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("containers.fb").display().to_string();
    let (recorded, exit) = chapter(&["--bundle", &bundle]);
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

#[test]
fn a_defect_turns_the_same_cells_red_in_containers() {
    if !ready(&["mariadb", "redis", "kafka"]) {
        return;
    }
    let (document, exit) = chapter(&["--no-bundle", "--env", "api:ORDERS_BUG=db-poison"]);
    let expected = [
        "matrix_order_creation_db_down",
        "matrix_order_creation_db_write_fail",
        "matrix_order_listing_db_down",
    ];
    assert_eq!(red(&document), expected, "{}", reasons(&document));
    assert_eq!(exit, 1);
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
    let mut child = Command::new(faultbox())
        .args(["test", &spec("lasting.star"), "--seed", "1", "--no-bundle"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
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

//! `faultbox init`: the spec that it writes runs as it is, out of an executable, a compose file and a descriptor set;
//! the workflow is sound for actionlint (which lies where `.ci/setup tests` puts it).

use super::{code, faultbox, orders_api, repository, skipped};
use std::path::Path;
use std::process::{Command, Output};

fn within(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(faultbox()).args(arguments).current_dir(folder).output().unwrap()
}

/// Makes a spec out of the file, and runs it.
fn made_and_run(folder: &Path, from: &str, spec: &str, more: &[&str]) {
    let made = within(folder, &["init", from, "--spec", spec]);
    assert_eq!(code(&made), 0, "{}", String::from_utf8_lossy(&made.stderr));
    let ran = within(folder, &[&["test", spec, "--embedded", "--seed", "1", "--no-bundle"], more].concat());
    let said = String::from_utf8_lossy(&ran.stdout);
    let text = std::fs::read_to_string(folder.join(spec)).unwrap();
    assert_eq!(code(&ran), 0, "{said}\n{}\n{text}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("--- PASS: test_"), "{said}");
    let again = within(folder, &["init", from, "--spec", spec]);
    assert_eq!(code(&again), 2, "a file that is there is not written over");
}

#[test]
fn what_it_writes_runs() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    // What they have clients for is found; the gRPC services that they call are not.
    let upstreams =
        ["GEO_CONFIG_ADDR=127.0.0.1:4", "USER_SERVICE_ADDR=127.0.0.1:5", "BALANCE_API_ADDR=127.0.0.1:6"];
    let mut executables = vec![("orders-api", orders_api())];
    executables.extend(super::go::go_api().map(|api| ("go-api", api)));
    for (name, executable) in executables {
        std::fs::copy(executable, top.join(name)).unwrap();
        let set: Vec<String> =
            upstreams.iter().flat_map(|v| ["--env".to_owned(), format!("{name}:{v}")]).collect();
        let spec = format!("{name}.star");
        made_and_run(top, name, &spec, &set.iter().map(String::as_str).collect::<Vec<_>>());
        let text = std::fs::read_to_string(top.join(spec)).unwrap();
        for found in [
            "\"DATABASE_URL\": \"mysql://root:%s@%s/app\" % (password, db.main.addr)",
            "\"KAFKA_BROKERS\": bus.main.addr",
            "\"REDIS_URL\": \"redis://%s\" % cache.main.addr",
            "\"OIDC_JWKS_URL\": auth.service.main.url + \"/.well-known/jwks.json\"",
            "# It knows gRPC.",
            "faults = [db_down, cache_down, bus_down, auth_down]",
        ] {
            assert!(text.contains(found), "{name}: {found}: {text}");
        }
    }

    let compose = "services:\n  cache:\n    image: redis:7-alpine\n  db:\n    image: mysql:8.0.32\n    environment:\n      \
                   MYSQL_ROOT_PASSWORD: test\n      MYSQL_DATABASE: appdb\n";
    std::fs::write(top.join("compose.yml"), compose).unwrap();
    made_and_run(top, "compose.yml", "compose.star", &[]);

    std::fs::copy(repository("specs/orders/proto/all_upstreams.pb"), top.join("upstreams.pb")).unwrap();
    made_and_run(top, "upstreams.pb", "descriptors.star", &[]);

    std::fs::write(top.join("script.sh"), "#!/bin/sh\n").unwrap();
    let script = within(top, &["init", "script.sh", "--spec", "x.star"]);
    assert_eq!(code(&script), 2);
    assert!(!top.join("x.star").exists());
}

#[test]
fn the_workflow_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let made = within(folder.path(), &["init", "--ci", "github", "--spec", "specs/it's mine.star"]);
    assert_eq!(code(&made), 0, "{}", String::from_utf8_lossy(&made.stderr));
    let workflow = folder.path().join(".github/workflows/faultbox.yml");
    let text = std::fs::read_to_string(&workflow).unwrap();
    assert!(text.contains(r"faultbox test 'specs/it'\''s mine.star' --bundle faultbox.fb"), "{text}");
    let lint = repository("target/readers/actionlint");
    if !lint.exists() {
        return skipped("the workflow by actionlint (no Go toolchain when .ci/setup tests was run)");
    }
    let linted = Command::new(lint).arg(&workflow).output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
}

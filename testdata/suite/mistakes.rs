//! Mistakes of users: each gets its exit code and one clear line.

use super::{code, repository, run};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn chapter() -> String {
    repository("specs/orders/faultbox.star").display().to_string()
}

#[test]
fn a_spec_that_is_not_there() {
    let output = run(&["test", "nowhere.star"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("nowhere.star"), "{}", stderr(&output));
}

#[test]
fn a_typo_in_a_spec_has_place_caret_and_nearest_name() {
    let dir = tempfile::tempdir().unwrap();
    let spec = dir.path().join("typo.star");
    let text = "db = service(\"db\", interface(\"main\", \"mysql\", 3306), imgae = \"mysql:8\")\n";
    std::fs::write(&spec, text).unwrap();
    let output = run(&["test", &spec.display().to_string(), "--dry-run"]);
    assert_eq!(code(&output), 2);
    let said = stderr(&output);
    for part in ["typo.star:1", "imgae", "image", "^"] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
}

#[test]
fn a_cell_that_is_not_there_names_the_nearest() {
    let output = run(&["test", &chapter(), "--list", "--test", "test_create_ordr"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("test_create_order"), "{}", stderr(&output));
}

#[test]
fn the_list_has_27_cells() {
    let output = run(&["test", &chapter(), "--list"]);
    assert_eq!(code(&output), 0);
    let listed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(listed.lines().count(), 27, "{listed}");
}

#[test]
fn without_a_container_engine_the_images_are_named() {
    let output = std::process::Command::new(super::faultbox())
        .args(["test", &chapter(), "--seed", "1", "--no-bundle"])
        .env("DOCKER_HOST", "unix:///nonexistent/engine.sock")
        .output()
        .unwrap();
    assert_eq!(code(&output), 4);
    for part in ["mysql:8.0.32", "apache/kafka:3.7.0", "--embedded", "unix:///nonexistent/engine.sock"] {
        assert!(stderr(&output).contains(part), "no {part:?} in:\n{}", stderr(&output));
    }
}

#[test]
fn a_bundle_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("none.fb");
    std::fs::write(&file, b"this is no bundle").unwrap();
    for command in ["replay", "inspect"] {
        let output = run(&[command, &file.display().to_string()]);
        assert_eq!(code(&output), 5, "{command}: {}", stderr(&output));
    }
}

#[test]
fn an_executable_that_is_replaced_while_it_runs_is_not_taken_for_what_ran() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (spec, api) = (dir.path().join("replaced.star"), dir.path().join("api"));
    std::fs::write(&api, "#!/bin/sh\necho '# another' >> \"$0\"\nexec sleep 60\n").unwrap();
    std::fs::set_permissions(&api, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = "api = service(\"api\", interface(\"public\", \"http\", 8080), binary = \"./api\",\n    \
                healthcheck = http(\"http://localhost:8080/\", timeout = \"2s\"))\n\
                def test_it(): step(api.public, \"get\", path = \"/\")\n";
    std::fs::write(&spec, text).unwrap();
    let (bundle, laid_out) = (dir.path().join("r.fb"), dir.path().join("laid_out"));
    let (bundle, laid_out) = (bundle.display().to_string(), laid_out.display().to_string());
    let output = run(&["test", &spec.display().to_string(), "--embed", "--bundle", &bundle]);
    let said = stderr(&output);
    assert!(said.contains("was replaced while the run went on"), "{said}");
    run(&["inspect", &bundle, "--extract", &laid_out]);
    assert!(std::path::Path::new(&laid_out).join("run.json").exists());
    assert!(!std::path::Path::new(&laid_out).join("bin/api").exists(), "it is not what ran");
}

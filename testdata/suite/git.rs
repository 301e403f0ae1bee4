//! `faultbox git-setup`, with a real git: a bundle that was recorded again and means the same shows no change, one
//! that means something else shows what.
//! Method: the whole chapter is recorded twice with one seed; then two of its cells with a planted defect.

use super::{code, faultbox, record};
use std::path::Path;
use std::process::{Command, Output};

const CELLS: &[&str] = &["--test", "test_create_order", "--test", "matrix_order_listing_db_down"];

fn git(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new("git")
        .args(["-c", "user.name=suite", "-c", "user.email=suite@invalid"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn git_shows_what_changed_in_meaning() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    git(top, &["init", "-q"]);
    let set_up = || {
        let output = Command::new(faultbox()).arg("git-setup").current_dir(top).output().unwrap();
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(top.join(".gitattributes")).unwrap()
    };
    assert_eq!(set_up(), "*.fb -text diff=faultbox\n");
    assert_eq!(set_up(), "*.fb -text diff=faultbox\n", "run again, it changes nothing");

    let bundle = top.join("run.fb");
    record(&bundle, &[]);
    git(top, &["add", "."]);
    git(top, &["commit", "-qm", "recorded"]);
    let diff = || String::from_utf8_lossy(&git(top, &["diff", "HEAD"]).stdout).into_owned();

    let before = std::fs::read(&bundle).unwrap();
    std::fs::remove_file(&bundle).unwrap();
    record(&bundle, &[]);
    assert_ne!(std::fs::read(&bundle).unwrap(), before, "another file");
    assert_eq!(diff(), "", "that means the same");

    std::fs::remove_file(&bundle).unwrap();
    record(&bundle, &[CELLS, &["--env", "api:ORDERS_BUG=db-poison"]].concat());
    let shown = diff();
    assert!(shown.contains("-  verdict: PASS\n") && shown.contains("+  verdict: FAIL\n"), "{shown}");
    assert!(shown.contains("504"), "{shown}");

    std::fs::write(&bundle, "no bundle").unwrap();
    assert!(diff().contains("+no bundle that can be read: "), "git goes on where a file is damaged");
}

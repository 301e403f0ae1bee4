//! A host that permits no namespaces: services share its loopback, and all of the chapter that
//! is there works. Simulated where we are root: an ordinary user in a changed root may not make
//! a namespace (user_namespaces(7)).

use super::{faultbox, orders_api, repository, skipped};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a script as an ordinary user to whom namespaces are refused.
fn refused(dir: &Path, script: &str) -> Output {
    let inside = format!(
        "mount --rbind / {root} && exec chroot --userspec=65534:65534 {root} sh -c 'cd {dir} && {script}'",
        root = dir.join("root").display(),
        dir = dir.display(),
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &inside]).env("HOME", dir).output();
    output.unwrap_or_else(|error| panic!("unshare: {error}"))
}

#[test]
fn without_namespaces_cells_pass_and_replay_exactly() {
    // The owner of a process's folder is its effective user, proc(5).
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return skipped("only root can take namespaces away from an ordinary user");
    }
    let dir = tempfile::Builder::new().prefix("faultbox-shared").tempdir_in("/tmp").unwrap();
    let copied = Command::new("sh")
        .arg("-c")
        .arg(
            "mkdir root bin && cp -r \"$1\" specs && cp \"$2\" \"$3\" bin && chown -R 65534 . && chmod 755 .",
        )
        .arg("sh")
        .args([repository("specs"), faultbox(), orders_api()])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let output = refused(
        dir.path(),
        "bin/faultbox test specs/orders/faultbox.star --embedded --seed 1 --embed --binary api=bin/orders-api \
         --bundle run.fb --test test_create_order --test matrix_order_creation_db_write_fail \
         --test matrix_order_listing_cache_down --test matrix_order_listing_db_down \
         && bin/faultbox replay run.fb",
    );
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("services share this host's loopback"), "{said}");
    assert!(said.contains("4 passed, 0 failed"), "{said}");
    assert_eq!(said.matches("  exact (").count(), 4, "{said}");
}

//! Every action and modifier of a syscall fault on the service under test: recorded without an environment,
//! replayed exactly.

use super::replays::{inexact, replay};
use super::{cells, code, document, reasons, red, repository, run};

#[test]
fn each_syscall_fault_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("syscalls.fb");
    let (spec, path) = (repository("testdata/syscalls/syscalls.star"), bundle.display().to_string());
    let spec = spec.display().to_string();
    let more = ["--seed", "1", "--bundle", &path, "--embed", "--format", "json"];
    let output = run(&[&["test", &spec, "--embedded"][..], &more].concat());
    let recorded = document(&output);
    assert_eq!((red(&recorded), code(&output)), (Vec::new(), 0), "{}", reasons(&recorded));
    let (replayed, exit) = replay(&bundle, &[]);
    assert_eq!((red(&replayed), inexact(&replayed), exit), (Vec::new(), Vec::new(), 0));
    assert_eq!(cells(&replayed).len(), 7);
}

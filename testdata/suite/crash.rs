//! Goal: whatever ends `faultbox test`, its bundle is not taken for whole: a kill leaves a prefix that
//! says that it is cut short and can be recovered, a disk that takes no more ends the run with exit
//! code 5. Method: the command itself, killed with SIGKILL when its file has reached one of many lengths,
//! each once; and under a limit on the length of files (`ulimit -f`), which fails a write as a full
//! disk does.

use super::{code, faultbox, orders_api, repository, run};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SPEC: &str = "testdata/transcripts/small.star";
const KILLS: u64 = 60;
/// Cells that pass, so that no executable is embedded.
const CELLS: [&str; 4] =
    ["test_health", "test_listing_without_a_database", "matrix_probe_slow", "matrix_probe_no_keys"];

fn test(bundle: &Path) -> Command {
    let mut command = Command::new(faultbox());
    command.current_dir(repository("")).args(["test", SPEC, "--seed", "1"]);
    command.args(["--binary", &format!("api={}", orders_api().display())]);
    command.arg("--bundle").arg(bundle);
    CELLS.iter().for_each(|cell| {
        command.args(["--test", cell]);
    });
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn partial(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn json(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_run_that_is_killed_leaves_what_it_had_written() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.fb");
    assert!(test(&whole).status().unwrap().success());
    let length = std::fs::metadata(&whole).unwrap().len();
    let (mut with_verdicts, mut killed) = (0, 0);
    for kill in 0..KILLS {
        let bundle = dir.path().join(format!("{kill}.fb"));
        let partial = partial(&bundle);
        // Spread over the file, out of order.
        let at = kill * 37 % KILLS * length / KILLS;
        let mut child = test(&bundle).spawn().unwrap();
        let written = || std::fs::metadata(&partial).map_or(0, |meta| meta.len());
        while written() <= at && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if bundle.exists() {
            assert!(status.success() || status.code().is_none(), "{status}");
            assert_eq!(code(&run(&["verify", bundle.to_str().unwrap()])), 0, "kill {kill}: it has its name");
            continue;
        }
        let partial = partial.to_str().unwrap();
        let shown = run(&["inspect", partial, "--manifest", "--format", "json"]);
        assert_eq!(code(&shown), 0, "kill {kill}: {shown:?}");
        // Killed between the footer and the renaming it is whole, and says so.
        let complete = json(&shown)["complete"] == true;
        killed += u64::from(!complete);
        let (verified, lossy) = if complete { (0, 0) } else { (5, 3) };
        assert_eq!(code(&run(&["verify", partial])), verified, "kill {kill}");
        let bundle = bundle.to_str().unwrap();
        let recovered = run(&["recover", partial, "--output", bundle]);
        assert_eq!(code(&recovered), lossy, "kill {kill}: {recovered:?}");
        assert!(String::from_utf8_lossy(&recovered.stdout).contains("missing"), "{recovered:?}");
        assert_eq!(code(&run(&["verify", bundle])), 0, "kill {kill}");
        let cells = json(&run(&["inspect", bundle, "--manifest", "--format", "json"]));
        let ended = |cell: &&serde_json::Value| cell["verdict"] != "incomplete";
        with_verdicts += cells["cells"].as_array().unwrap().iter().filter(ended).count();
    }
    assert!(killed > KILLS / 2, "only {killed} of {KILLS} were killed before they had ended");
    assert!(with_verdicts > 0, "all were killed before their first verdict");
}

#[test]
fn a_disk_that_takes_no_more_is_exit_code_5() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.fb");
    assert_eq!(code(&test(&whole).output().unwrap()), 0);
    // A block is half a KiB in one shell and a whole one in another.
    let eighth = std::fs::metadata(&whole).unwrap().len() / 512 / 8;
    for blocks in [0, 1, eighth, 2 * eighth, 3 * eighth] {
        let bundle = dir.path().join(format!("{blocks}.fb"));
        let ours = test(&bundle);
        // The signal that comes with the failed write is ignored, so that the write fails.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", &blocks.to_string()]);
        command.arg(ours.get_program()).args(ours.get_args()).current_dir(repository(""));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(&output), 5, "{blocks} blocks: {output:?}");
        assert!(said.contains("cannot write") && said.contains("File too large"), "{said}");
        assert!(!bundle.exists(), "{blocks} blocks: it looks whole");
        let left = partial(&bundle);
        if blocks > 0 {
            let shown = run(&["inspect", left.to_str().unwrap(), "--manifest", "--format", "json"]);
            assert_eq!(json(&shown)["complete"], false);
        }
        assert_eq!(code(&run(&["verify", left.to_str().unwrap()])), 5);
    }
}

//! `faultbox recover`: writes what is whole in a damaged or unfinished bundle as a finished one.
//!
//! Contract: the bundle that is read is not changed; what is missing is said, and the exit code
//! says whether anything is.

use crate::exit_code;
use crate::terminal::{notice, one_line, say};
use faultbox_bundle_format::recover::{RecoverError, Recovered, recover};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(bundle: &Path, output: Option<PathBuf>) -> u8 {
    let to = output.unwrap_or_else(|| beside(bundle));
    if to.exists() {
        notice(&format!("faultbox: {} is there already; --output PATH writes elsewhere", to.display()));
        return exit_code::USAGE;
    }
    match recover(bundle, &to) {
        Ok(recovered) => {
            report(&recovered);
            if recovered.is_lossless() { exit_code::OK } else { exit_code::LOSSY }
        }
        Err(RecoverError::Read(error)) => {
            notice(&format!("faultbox: {}: {}", bundle.display(), one_line(&error.to_string())));
            exit_code::BUNDLE
        }
        Err(RecoverError::Write(error)) => {
            notice(&format!("faultbox: {}", one_line(&error.to_string())));
            exit_code::BUNDLE
        }
    }
}

/// `run.fb.partial` becomes `run.recovered.fb`, and so does `run.fb`.
fn beside(bundle: &Path) -> PathBuf {
    let name = bundle.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split_once(".fb").map_or(&*name, |(stem, _)| stem);
    bundle.with_file_name(format!("{stem}.recovered.fb"))
}

fn report(recovered: &Recovered) {
    say(&format!("Bundle: {}", recovered.path.display()));
    say(&format!("{} cells, {} entries", recovered.cells, recovered.entries));
    if recovered.is_lossless() {
        say("nothing is missing");
        return;
    }
    if !recovered.was_complete {
        say("the run did not end the bundle: what came after its last whole chunk is missing");
    }
    for damage in &recovered.damages {
        say(&format!("lost: {} bytes at byte {} ({})", damage.lost, damage.at, one_line(&damage.what)));
    }
    for cell in &recovered.unfinished {
        say(&format!("no verdict: {}", one_line(cell)));
    }
    if recovered.missing_payloads > 0 {
        say(&format!("payloads that entries refer to and that are gone: {}", recovered.missing_payloads));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_bundle_stands_beside_the_old_one() {
        assert_eq!(beside(Path::new("a/run.fb.partial")), Path::new("a/run.recovered.fb"));
        assert_eq!(beside(Path::new("run.fb")), Path::new("run.recovered.fb"));
        assert_eq!(beside(Path::new("odd")), Path::new("odd.recovered.fb"));
    }
}

//! `faultbox verify`: checks a whole bundle, every byte and every digest.
//!
//! Contract: reads the bundle and nothing else; the first thing that is wrong is printed and
//! the exit code says so.

use super::test::hex;
use crate::exit_code;
use crate::terminal::{notice, one_line, say};
use faultbox_bundle_format::canonical::{self, Policy};
use faultbox_bundle_format::{Body, Bundle, ReadError};
use std::path::Path;

/// Runs the command.
pub fn run(path: &Path) -> u8 {
    match check(path) {
        Ok(text) => {
            say(&text);
            exit_code::OK
        }
        Err(error) => {
            let cut = Bundle::open(path).is_ok_and(|bundle| !bundle.is_complete());
            let cut = if cut { "incomplete, the run that wrote it was cut short: " } else { "" };
            notice(&format!("faultbox: {}: {cut}{}", path.display(), one_line(&error.to_string())));
            exit_code::BUNDLE
        }
    }
}

fn check(path: &Path) -> Result<String, ReadError> {
    let bundle = Bundle::open(path)?;
    let verified = bundle.verify()?;
    let unix_ns = bundle.raw_entries(0)?.iter().find_map(|entry| match &entry.body {
        Body::RunStarted(started) => Some(started.unix_ns),
        _ => None,
    });
    for cell in bundle.cells() {
        let (Some(stored), Some(unix_ns)) = (cell.digest(), unix_ns) else { continue };
        let digest = canonical::of_cell(&bundle.entries(cell.cell)?, unix_ns, Policy::Default).digest;
        // All zeros: the recorder was not given one.
        if stored != [0; 32] && digest != stored {
            let (stored, digest) = (hex(&stored), hex(&digest));
            return Err(ReadError::Index(format!(
                "cell {}: its digest is {stored}, its entries give {digest}",
                cell.name
            )));
        }
    }
    for file in bundle.files()?.iter().filter(|file| file.content.is_some()) {
        bundle.file(&file.path)?;
    }
    let (entries, blobs, cells) = (verified.entries, verified.blobs, bundle.cells().len());
    Ok(format!("whole: {cells} cells, {entries} entries, {blobs} payloads, digest {}", hex(&verified.digest)))
}

//! `faultbox report`: a bundle as one HTML file, for whoever has a browser and nothing else.
//!
//! Contract: reads the bundle and writes that file, whole or not at all; no part of it is fetched when it
//! is opened.

use crate::exit_code;
use crate::report::{self, ReportError};
use crate::terminal::{notice, one_line, say};
use faultbox_bundle_format::Bundle;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(bundle: &Path, output: Option<PathBuf>) -> u8 {
    let output = output.unwrap_or_else(|| bundle.with_extension("html"));
    match write(bundle, &output) {
        Ok(bytes) => {
            say(&format!("{} ({} kB)", output.display(), bytes.div_ceil(1000)));
            exit_code::OK
        }
        Err(ReportError::Read(error)) => {
            notice(&format!("faultbox: {}: {}", bundle.display(), one_line(&error.to_string())));
            exit_code::BUNDLE
        }
        Err(ReportError::Write(error)) => {
            notice(&format!("faultbox: cannot write {}: {error}", output.display()));
            exit_code::USAGE
        }
    }
}

/// How many bytes were written.
fn write(path: &Path, output: &Path) -> Result<u64, ReportError> {
    let bundle = Bundle::open(path)?;
    if same_file(path, output) {
        let why = "it is the bundle itself; --output wants another file";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why).into());
    }
    let mut partial = output.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = fill(&bundle, path, &partial).and_then(|bytes| {
        std::fs::rename(&partial, output)?;
        Ok(bytes)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}

fn fill(bundle: &Bundle, path: &Path, partial: &Path) -> Result<u64, ReportError> {
    // Where the bundle lies here is no concern of whoever reads the page elsewhere.
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = std::fs::File::create(partial)?;
    let mut out = std::io::BufWriter::new(file);
    report::write(bundle, &name, &mut out)?;
    out.flush()?;
    Ok(out.get_ref().metadata()?.len())
}

fn same_file(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).ok();
    whole(a).is_some() && whole(a) == whole(b)
}

//! Extraction: what a bundle holds, laid out in a folder.
//!
//! Contract: nothing is written outside the folder, whatever the names in the bundle say: the
//! folder must not exist or be empty, names are taken apart and put together again from plain
//! parts, and no existing file or link is followed. Layout: `files/` (the spec tree and what it
//! loaded), `bin/<service>` (executables), `logs/<cell>/<service>.out` and `.err` (each line
//! with its milliseconds since the run began), `manifest.txt`.
//! Not modelled: file modes other than "executable".

use crate::error::ReadError;
use crate::event::{Body, StoredFile};
use crate::reader::Bundle;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Longest part of a name that is kept, in characters: below what file systems take, in bytes.
const PART_MAX: usize = 60;

/// Why a bundle could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The folder holds something.
    #[error("{0} is not empty")]
    NotEmpty(PathBuf),
    /// Something could not be written.
    #[error("{path}: {source}")]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Lays a bundle out in a folder; gives what was written, in order, relative to the folder.
///
/// # Errors
/// When the bundle is damaged, or the folder cannot be written or holds something.
pub fn extract(bundle: &Bundle, folder: &Path) -> Result<Vec<PathBuf>, ExtractError> {
    let failed = |source| ExtractError::Write { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    if std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(ExtractError::NotEmpty(folder.to_owned()));
    }
    let mut out = Layout { folder, written: Vec::new(), manifest: String::new() };
    for file in bundle.files()? {
        out.file(bundle, &file)?;
    }
    for cell in bundle.cells() {
        let mut logs: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for entry in bundle.entries(cell.cell)? {
            let Body::Output(output) = &entry.body else { continue };
            let name = format!("{}.{}", part(&output.service), if output.stderr { "err" } else { "out" });
            let log = logs.entry(Path::new("logs").join(part(&cell.name)).join(name)).or_default();
            let ms = entry.at_ns as f64 / 1e6;
            for line in output.bytes.split_inclusive(|byte| *byte == b'\n') {
                log.extend_from_slice(format!("{ms:12.3} ").as_bytes());
                log.extend_from_slice(line);
                if !line.ends_with(b"\n") {
                    log.push(b'\n');
                }
            }
        }
        for (path, log) in logs {
            out.write(&path, &log, false)?;
        }
    }
    let manifest = std::mem::take(&mut out.manifest);
    out.write(Path::new("manifest.txt"), manifest.as_bytes(), false)?;
    Ok(out.written)
}

struct Layout<'a> {
    folder: &'a Path,
    written: Vec<PathBuf>,
    manifest: String,
}

impl Layout<'_> {
    fn file(&mut self, bundle: &Bundle, file: &StoredFile) -> Result<(), ExtractError> {
        let binary = file.role == "binary";
        let path = match binary {
            true => Path::new("bin").join(part(&file.service)),
            false => inside(&file.path),
        };
        let digest = blake3::Hash::from(file.digest).to_hex();
        let what = match &file.content {
            Some(content) => {
                let bytes = bundle.content(content)?;
                if blake3::hash(&bytes).as_bytes() != &file.digest {
                    let what = format!("the content of {:?} does not have its digest", file.path);
                    return Err(ReadError::Index(what).into());
                }
                self.write(&path, &bytes, binary)?;
                path.display().to_string()
            }
            None => "(only its digest is in the bundle)".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.manifest, "{digest} {} {:?} -> {what}", file.role, file.path);
        Ok(())
    }

    fn write(&mut self, path: &Path, bytes: &[u8], executable: bool) -> Result<(), ExtractError> {
        // Two names of a bundle can come to one name on the disk: neither is lost.
        let mut path = path.to_owned();
        while self.written.contains(&path) {
            path.as_mut_os_string().push("_");
        }
        let full = self.folder.join(&path);
        let failed = |source| ExtractError::Write { path: full.clone(), source };
        if let Some(parent) = full.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(if executable { 0o755 } else { 0o644 });
        }
        #[cfg(not(unix))]
        let _ = executable;
        options.open(&full).and_then(|mut file| file.write_all(bytes)).map_err(failed)?;
        self.written.push(path);
        Ok(())
    }
}

/// A stored path below `files/`: plain parts only, so that it cannot lead out.
fn inside(path: &str) -> PathBuf {
    let parts = path.split(['/', '\\']).filter(|part| !matches!(*part, "" | "." | "..")).map(part);
    let below: PathBuf = parts.collect();
    Path::new("files").join(if below.as_os_str().is_empty() { Path::new("_") } else { &below })
}

/// One part of a path: letters, digits and a few signs; never empty, never special.
fn part(name: &str) -> String {
    let plain =
        |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '@') { c } else { '_' };
    let kept: String = name.chars().map(plain).take(PART_MAX).collect();
    match kept.as_str() {
        "" | "." | ".." => "_".to_owned(),
        _ => kept,
    }
}

/// Fuzz entry point: no name leads out of its folder.
pub fn fuzz_one(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    for path in [inside(&name), Path::new("bin").join(part(&name))] {
        let mut parts = path.components();
        assert!(matches!(parts.next(), Some(std::path::Component::Normal(_))));
        assert!(parts.all(|part| matches!(part, std::path::Component::Normal(_))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_inside() {
        for name in
            ["../../etc/passwd", "/etc/passwd", "a/../../b", "..\\..\\x", "", ".", "..", "C:\\x", "a\0b"]
        {
            fuzz_one(name.as_bytes());
        }
        assert_eq!(inside("../proto/all.pb"), Path::new("files/proto/all.pb"));
        assert_eq!(inside("/"), Path::new("files/_"));
    }

    proptest! {
        #[test]
        fn no_name_leads_out(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            fuzz_one(&bytes);
        }
    }
}

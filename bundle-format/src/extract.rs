//! Extraction: what a bundle holds, laid out in a folder.
//!
//! Contract: nothing is written outside the folder, whatever the names in the bundle say: the
//! folder must not exist or be empty, names are taken apart and put together again from plain
//! parts, no existing file or link is followed, and a bundle that would grow beyond
//! [`limits::EXTRACT_MAX`] is refused. Layout: `run.json` (how it was recorded, on what, its cells
//! and their verdicts), `manifest.txt` (every file with its digest and its place), `files/` (the spec
//! tree and what it loaded), `bin/<service>` (executables), `logs/<cell>/<service>.out` and `.err`
//! (each line with its milliseconds since the run began).
//! Not modelled: file modes other than "executable".

use crate::error::ReadError;
use crate::event::{Body, Entry, Output, StoredFile};
use crate::limits;
use crate::reader::Bundle;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
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
    /// The bundle grows beyond the limit.
    #[error("laid out it is larger than {} GiB; nothing more is written", limits::EXTRACT_MAX >> 30)]
    TooLarge,
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
    let mut out = Layout {
        folder,
        written: Vec::new(),
        files: BTreeSet::new(),
        folders: BTreeSet::new(),
        next: BTreeMap::new(),
        bytes: 0,
        manifest: String::new(),
    };
    let run = bundle.raw_entries(0)?;
    let facts = facts(bundle, &run);
    let facts = serde_json::to_string_pretty(&facts).unwrap_or_default();
    out.write(Path::new("run.json"), facts.as_bytes(), false)?;
    for entry in &run {
        if let Body::File(file) = &entry.body {
            out.file(bundle, file)?;
        }
    }
    out.logs("_run", &run)?;
    drop(run);
    for cell in bundle.cells() {
        // What services print stands in the entries; payloads may be large and are not needed.
        out.logs(&cell.name, &bundle.raw_entries(cell.cell)?)?;
    }
    let manifest = std::mem::take(&mut out.manifest);
    out.write(Path::new("manifest.txt"), manifest.as_bytes(), false)?;
    Ok(out.written)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How the bundle was recorded and what came of it.
fn facts(bundle: &Bundle, run: &[Entry]) -> serde_json::Value {
    let mut facts = json!({
        "format": format!("{}.{}", bundle.header().major, bundle.header().minor),
        "id": hex(&bundle.header().id),
        "complete": bundle.is_complete(),
        "digest": bundle.digest().map(|digest| hex(&digest)),
    });
    let mut host = Vec::new();
    let Some(fields) = facts.as_object_mut() else { return facts };
    for entry in run {
        match &entry.body {
            Body::RunStarted(started) => {
                fields.insert("tool_version".to_owned(), json!(started.tool_version));
                fields.insert("command".to_owned(), json!(started.command));
                fields.insert("spec".to_owned(), json!(started.spec));
                fields.insert("seed".to_owned(), json!(started.seed));
                fields.insert("seed_source".to_owned(), json!(started.seed_source));
                fields.insert("began_unix_ns".to_owned(), json!(started.unix_ns));
            }
            Body::HostFact(fact) => host.push(json!({ "name": fact.name, "value": fact.value })),
            Body::RunEnded(ended) => {
                fields.insert("passed".to_owned(), json!(ended.passed));
                fields.insert("failed".to_owned(), json!(ended.failed));
                fields.insert("interrupted".to_owned(), json!(ended.interrupted));
            }
            _ => {}
        }
    }
    fields.insert("host".to_owned(), json!(host));
    let cells = bundle.cells().iter().map(|cell| {
        let verdict = cell.verdict.as_ref();
        json!({
            "name": cell.name,
            "scenario": cell.scenario,
            "assumption": cell.assumption,
            "expectation": cell.expectation,
            "verdict": verdict.map(|verdict| format!("{:?}", verdict.ending).to_lowercase()),
            "reason": verdict.map(|verdict| &verdict.reason),
            "digest": verdict.map(|verdict| hex(&verdict.digest)),
        })
    });
    fields.insert("cells".to_owned(), cells.collect());
    facts
}

struct Layout<'a> {
    folder: &'a Path,
    written: Vec<PathBuf>,
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    /// Where to go on looking for a free name, by the name that is wanted.
    next: BTreeMap<PathBuf, u32>,
    bytes: u64,
    manifest: String,
}

impl Layout<'_> {
    fn file(&mut self, bundle: &Bundle, file: &StoredFile) -> Result<(), ExtractError> {
        let binary = file.role == "binary";
        let path = match binary {
            true => Path::new("bin").join(part(&file.service)),
            false => inside(&file.path),
        };
        let digest = hex(&file.digest);
        let what = match &file.content {
            Some(content) => {
                let bytes = bundle.content(content)?;
                if blake3::hash(&bytes).as_bytes() != &file.digest {
                    let what = format!("the content of {:?} does not have its digest", file.path);
                    return Err(ReadError::Index(what).into());
                }
                self.write(&path, &bytes, binary)?.display().to_string()
            }
            None => "(only its digest is in the bundle)".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.manifest, "{digest} {:?} {:?} -> {what}", file.role, file.path);
        Ok(())
    }

    /// What services printed in a cell: whole lines, each with the time at which it began.
    fn logs(&mut self, cell: &str, entries: &[Entry]) -> Result<(), ExtractError> {
        let mut logs: BTreeMap<(&str, bool), (Vec<u8>, bool)> = BTreeMap::new();
        for entry in entries {
            let Body::Output(Output { service, stderr, bytes }) = &entry.body else { continue };
            let (log, inside) = logs.entry((service, *stderr)).or_default();
            let ms = entry.at_ns as f64 / 1e6;
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                if !*inside {
                    log.extend_from_slice(format!("{ms:12.3} ").as_bytes());
                }
                log.extend_from_slice(line);
                *inside = !line.ends_with(b"\n");
            }
        }
        for ((service, stderr), (log, _)) in logs {
            let name = format!("{}.{}", part(service), if stderr { "err" } else { "out" });
            self.write(&Path::new("logs").join(part(cell)).join(name), &log, false)?;
        }
        Ok(())
    }

    /// The path, or one beside it: two names of a bundle can come to one name on the disk, and one can
    /// be a file where another has a folder. Neither is lost.
    fn free(&mut self, path: &Path) -> PathBuf {
        let mut free = PathBuf::new();
        let mut parts = path.iter().peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let wanted = free.join(part);
            let mut there = wanted.clone();
            while self.files.contains(&there) || last && self.folders.contains(&there) {
                let number = self.next.entry(wanted.clone()).or_insert(1);
                *number += 1;
                there = wanted.clone();
                there.as_mut_os_string().push(format!("~{number}"));
            }
            if !last {
                self.folders.insert(there.clone());
            }
            free = there;
        }
        free
    }

    fn write(&mut self, path: &Path, bytes: &[u8], executable: bool) -> Result<PathBuf, ExtractError> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > limits::EXTRACT_MAX {
            return Err(ExtractError::TooLarge);
        }
        let path = self.free(path);
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
        self.files.insert(path.clone());
        self.written.push(path.clone());
        Ok(path)
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

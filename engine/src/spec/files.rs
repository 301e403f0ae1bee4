//! Where a spec's files come from: the disk, or the tree that a bundle keeps.
//!
//! Contract: paths are relative to the root, `/` separated, without `.` and `..`; nothing
//! outside the root is ever read, not through symbolic links either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a file cannot be read that is not there.
pub(super) const NO_SUCH_FILE: &str = "no such file";

/// Where a spec's files come from.
pub trait FileSource: Send + Sync {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    fn read(&self, path: &str) -> Result<Vec<u8>, String>;

    /// The same source, for as long as it is needed.
    fn shared(&self) -> Arc<dyn FileSource>;
}

/// Files below a folder.
#[derive(Debug, Clone)]
pub struct DiskFiles {
    root: PathBuf,
}

impl DiskFiles {
    /// Files below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        DiskFiles { root: root.into() }
    }
}

impl FileSource for DiskFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let words = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => NO_SUCH_FILE.to_owned(),
            _ => error.to_string(),
        };
        let root = self.root.canonicalize().map_err(words)?;
        let file = root.join(path).canonicalize().map_err(words)?;
        if !file.starts_with(&root) {
            return Err("it leads outside the folder that may be read (--root sets it)".to_owned());
        }
        std::fs::read(file).map_err(words)
    }

    fn shared(&self) -> Arc<dyn FileSource> {
        Arc::new(self.clone())
    }
}

/// Files in memory: what a bundle stored.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles(BTreeMap<String, Vec<u8>>);

impl MemoryFiles {
    /// Adds a file.
    pub fn insert(&mut self, path: &str, content: Vec<u8>) {
        self.0.insert(path.to_owned(), content);
    }
}

impl FileSource for MemoryFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).cloned().ok_or_else(|| NO_SUCH_FILE.to_owned())
    }

    fn shared(&self) -> Arc<dyn FileSource> {
        Arc::new(self.clone())
    }
}

/// The path, relative to the root, of what the file `from` calls `written`.
///
/// # Errors
/// Why there is none: an absolute path, or one that leaves the root.
pub fn resolve(from: &str, written: &str) -> Result<String, String> {
    if Path::new(written).is_absolute() {
        return Err("an absolute path is outside the folder that may be read".to_owned());
    }
    let mut parts: Vec<&str> = match from.rsplit_once('/') {
        Some((folder, _)) => folder.split('/').collect(),
        None => Vec::new(),
    };
    for part in written.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err("it leads outside the folder that may be read (--root sets it)".to_owned());
                }
            }
            name => parts.push(name),
        }
    }
    match parts.is_empty() {
        true => Err("it names no file".to_owned()),
        false => Ok(parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file_that_writes_them() {
        assert_eq!(resolve("faultbox.star", "./schema.sql").unwrap(), "schema.sql");
        assert_eq!(resolve("a/b/c.star", "../x/y.json").unwrap(), "a/x/y.json");
        assert!(resolve("faultbox.star", "../up").is_err());
        assert!(resolve("faultbox.star", "/etc/passwd").is_err());
    }

    #[test]
    fn a_link_out_of_the_root_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("link")).unwrap();
        let error = DiskFiles::new(root.path()).read("link").unwrap_err();
        assert!(error.contains("outside"), "{error}");
    }
}

//! Containers that are kept after their run: where they are found again, and by whom.
//!
//! Contract:
//! - A *slot* is a folder named by the hash of a service's definition. Its `control` socket leads to
//!   the container's shim; its `kept.json` is there exactly while the container waits for the next
//!   run, and holds what its state was just after `seed`.
//! - Whoever holds the slot's lock uses the container. The lock ends with its process, so a
//!   container without `kept.json` and without a holder was left by a run that was killed.
//! - The folder of all slots is ours alone.

use super::ContainerError;
use super::keep::Kept;
use crate::os;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// How a run treats containers that are kept.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// Whether the run keeps containers that it starts (`--keep`).
    pub keep: bool,
    /// The folder of all slots.
    pub root: PathBuf,
    /// The spec's path: a slot of the same service of the same spec is replaced by a new one.
    pub spec: String,
}

impl Keeping {
    /// The folder of all of this user's slots, below the one for temporary files. It outlives runs.
    pub fn folder(temporary: &Path) -> PathBuf {
        temporary.join(format!("faultbox-kept-{}", os::user()))
    }
}

/// A slot that this process holds.
#[derive(Debug)]
pub struct Slot {
    dir: PathBuf,
    /// The definition that it is for.
    pub definition: String,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Written {
    definition: String,
    state: Kept,
}

const STATE: &str = "kept.json";
const LOCK: &str = "lock";

impl Slot {
    /// Takes the slot of a definition; `None` when another process has it, or when it is not there
    /// and is not to be made.
    ///
    /// # Errors
    /// When the folder cannot be used, or is not ours alone.
    pub fn take(keeping: &Keeping, definition: &str) -> Result<Option<Slot>, ContainerError> {
        let failed = |source| ContainerError::io(keeping.root.display().to_string())(source);
        let dir = keeping.root.join(definition);
        if !keeping.keep && !is_kept(&dir) {
            return Ok(None);
        }
        own_folder(&keeping.root).map_err(failed)?;
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let lock = lock(&dir).map_err(failed)?;
        Ok(lock.map(|lock| Slot { dir, definition: definition.to_owned(), _lock: lock }))
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The socket that leads to the shim of the container that is kept here.
    pub fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// What the state of the container that is kept here was just after `seed`. It is not kept any
    /// more once this was asked: a process that ends from now on ends the container.
    pub fn reclaim(&self) -> Option<Kept> {
        let written = std::fs::read(self.dir.join(STATE)).ok()?;
        std::fs::remove_file(self.dir.join(STATE)).ok()?;
        let written: Written = serde_json::from_slice(&written).ok()?;
        (written.definition == self.definition).then_some(written.state)
    }

    /// From now on the container is kept.
    ///
    /// # Errors
    /// When its state cannot be written.
    pub fn keep(&self, state: Kept) -> io::Result<()> {
        let written = Written { definition: self.definition.clone(), state };
        let new = self.dir.join("kept.new");
        // It holds what was seeded.
        serde_json::to_writer(os::create_private_file(&new)?, &written)?;
        std::fs::rename(new, self.dir.join(STATE))
    }

    /// Removes the slot: there is no container in it any more.
    pub fn discard(self) {
        remove(&self.dir);
    }
}

fn own_folder(root: &Path) -> io::Result<()> {
    match os::create_private_dir(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if os::is_ours_alone(&std::fs::symlink_metadata(root)?) {
        Ok(())
    } else {
        Err(io::Error::other("this folder is not ours alone; remove it"))
    }
}

/// `None` when another process holds it, or has just removed it.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let path = dir.join(LOCK);
    let file = File::options().write(true).create(true).truncate(false).open(&path)?;
    match file.try_lock() {
        Ok(()) => {
            let opened = os::stamp(&file.metadata()?);
            let present = std::fs::metadata(&path).is_ok_and(|meta| os::stamp(&meta) == opened);
            Ok(present.then_some(file))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the container of this slot waits for the next run.
pub(super) fn is_kept(dir: &Path) -> bool {
    dir.join(STATE).is_file()
}

/// Whether nobody uses the container of this slot; `None` when there is no such slot here.
pub(super) fn is_free(dir: &Path) -> Option<bool> {
    match std::fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // Another user's, perhaps: not for us to say.
        Err(_) => Some(false),
        Ok(_) => Some(matches!(lock(dir), Ok(Some(_)))),
    }
}

/// Removes a slot's folder; what is in it besides our files stays.
pub(super) fn remove(dir: &Path) {
    for name in [STATE, LOCK, "control", "shim"] {
        let _ = std::fs::remove_file(dir.join(name));
    }
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(root: &Path, keep: bool) -> Keeping {
        Keeping { keep, root: root.join("kept"), spec: "a.star".to_owned() }
    }

    #[test]
    fn a_slot_has_one_holder_and_its_state_is_there_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Slot::take(&keeping(dir.path(), false), "ab").unwrap().is_none(), "nothing is kept");
        let slot = Slot::take(&keeping(dir.path(), true), "ab").unwrap().unwrap();
        assert!(Slot::take(&keeping(dir.path(), true), "ab").unwrap().is_none(), "it is held");
        assert!(slot.reclaim().is_none());
        slot.keep(Kept::Known(Vec::new())).unwrap();
        let place = slot.dir().to_owned();
        assert!(is_kept(&place) && is_free(&place) == Some(false));
        drop(slot);
        assert_eq!(is_free(&place), Some(true));
        let slot = Slot::take(&keeping(dir.path(), false), "ab").unwrap().unwrap();
        assert!(matches!(slot.reclaim(), Some(Kept::Known(known)) if known.is_empty()));
        assert!(slot.reclaim().is_none() && !is_kept(&place));
        slot.discard();
        assert!(!place.exists() && is_free(&place).is_none());
    }

    #[test]
    fn a_folder_of_somebody_elses_making_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("kept")).unwrap();
        os::set_mode(&dir.path().join("kept"), 0o755).unwrap();
        let error = Slot::take(&keeping(dir.path(), true), "ab").unwrap_err().to_string();
        assert!(error.contains("not ours alone"), "{error}");
    }
}

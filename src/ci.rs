//! What a CI system says of itself in the environment; read here alone.
//!
//! Contract: nothing is written where no CI system asks for it.

use std::io::Write;
use std::path::{Path, PathBuf};

/// A step of a GitHub Actions job.
pub struct GitHub {
    workspace: Option<PathBuf>,
    summary: Option<PathBuf>,
}

impl GitHub {
    /// The step that we are in, if we are in one.
    pub fn here() -> Option<Self> {
        std::env::var_os("GITHUB_ACTIONS").filter(|value| value == "true").map(|_| GitHub::named())
    }

    /// What is said of a step, wherever we are.
    pub fn named() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        GitHub { workspace: path("GITHUB_WORKSPACE"), summary: path("GITHUB_STEP_SUMMARY") }
    }

    /// A path as one from the top of the repository.
    pub fn path(&self, path: &str) -> String {
        let absolute = std::path::absolute(path).ok();
        let below = absolute.zip(self.workspace.as_ref());
        let below = below.and_then(|(path, top)| path.strip_prefix(top).ok().map(Path::to_owned));
        below.map_or_else(|| path.to_owned(), |path| path.display().to_string())
    }

    /// Adds to the job's summary; false where none is kept.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn summarise(&self, text: &str) -> std::io::Result<bool> {
        let Some(path) = &self.summary else { return Ok(false) };
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(text.as_bytes()).map(|()| true)
    }
}

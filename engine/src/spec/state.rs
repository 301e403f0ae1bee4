//! What builtins work on: the draft of a plan while a spec is loaded, the driver while one of
//! its callables runs.

use super::diagnostics::{Problem, Sources};
use super::dialect::{Evaluator, FileSpan, PrintHandler, ProvidesStaticType, Result, Value};
use super::expect::Expectation;
use super::faults::AssumptionDraft;
use super::files::FileSource;
use super::syscalls::Side;
use crate::addresses::AddressBook;
use crate::plan::{Driver, LoadedFile, RequireFire};
use crate::prng::Key;
use crate::topology::Service;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What outlives the load: texts for diagnostics, and every file that was read.
#[derive(Default)]
pub struct Shared {
    sources: Mutex<Sources>,
    files: Mutex<BTreeMap<String, LoadedFile>>,
}

impl Shared {
    /// The texts of the spec.
    pub fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The content of a file that was read.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        let files = self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        files.get(path).map(|file| file.content.clone())
    }

    /// Keeps a file that was read.
    pub fn keep(&self, path: &str, role: &'static str, content: &[u8]) {
        let mut files = self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let file = || LoadedFile { path: path.to_owned(), role, content: content.to_vec() };
        files.entry(path.to_owned()).or_insert_with(file);
    }

    /// Every file that was read, by path.
    pub fn files(&self) -> Vec<LoadedFile> {
        let files = self.files.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        files.values().cloned().collect()
    }
}

/// What builtins work on.
#[derive(ProvidesStaticType)]
pub struct Context {
    /// Texts and files.
    pub shared: Arc<Shared>,
    /// Load or run.
    pub stage: Stage,
}

/// Load or run.
pub enum Stage {
    /// A spec is loaded.
    Load(Box<Load>),
    /// A callable of it runs.
    Run(Run),
}

/// What a load works with.
pub struct Load {
    /// Where files come from.
    pub files: Arc<dyn FileSource>,
    /// Where addresses come from.
    pub addresses: AddressBook,
    /// The folder that all paths are relative to.
    pub root: PathBuf,
    /// Environment variables from the command line: service, name, value.
    pub env: Vec<(String, String, String)>,
    /// Executables from the command line: service, path.
    pub binaries: Vec<(String, PathBuf)>,
    /// The run's key.
    pub run_key: Key,
    /// What the spec comes to so far.
    pub draft: RefCell<Draft>,
}

/// What a run works with.
pub struct Run {
    /// The world.
    pub driver: Arc<dyn Driver>,
    /// The last step and what it got, for failed assertions.
    pub last_step: RefCell<Option<String>>,
    /// Whether a step that fails ends it (seeds and resets).
    pub strict: bool,
    /// How many assertions were made.
    pub assertions: RefCell<usize>,
}

/// What a spec comes to so far.
#[derive(Default)]
pub struct Draft {
    /// The module that is evaluated.
    pub module: usize,
    /// Services in order of declaration.
    pub services: Vec<ServiceDraft>,
    /// Assumptions in order of declaration.
    pub assumptions: Vec<AssumptionDraft>,
    /// Cells of matrices in order.
    pub cells: Vec<CellDraft>,
    /// Callables to keep: the module and the variable that holds each.
    pub callables: Vec<(usize, String)>,
    /// Values of `secret(...)`, by name.
    pub secrets: Vec<(String, String)>,
    /// Whether what local executables ask of time and randomness follows from the seed.
    pub seeded: bool,
    /// Whether what they ask the host is told of.
    pub watched: bool,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// A declared service.
pub struct ServiceDraft {
    /// The service.
    pub service: Service,
    /// The call that declared it.
    pub span: Option<FileSpan>,
    /// Its `seed`, an index of [`Draft::callables`].
    pub seed: Option<usize>,
    /// Its `reset`.
    pub reset: Option<usize>,
    /// Whether its clock is virtual, where it says.
    pub clock: Option<bool>,
    /// Whether its randomness is seeded, where it says.
    pub entropy: Option<bool>,
    /// Whether its process ids are its own.
    pub pids: bool,
}

/// A cell of a matrix.
pub struct CellDraft {
    /// Its name.
    pub name: String,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario, an index of [`Draft::callables`].
    pub callable: usize,
    /// The assumption, an index of [`Draft::assumptions`].
    pub assumption: Option<usize>,
    /// What it expects.
    pub expectation: Option<Arc<Expectation>>,
    /// All of its scenario time.
    pub timeout: Duration,
    /// What becomes of it if no fault fires.
    pub fire: RequireFire,
    /// The call that declared it.
    pub span: Option<FileSpan>,
}

impl Context {
    /// The load, where there is one.
    ///
    /// # Errors
    /// While a callable runs.
    pub fn load(&self, what: &str) -> Result<&Load, Problem> {
        match &self.stage {
            Stage::Load(load) => Ok(load),
            Stage::Run(_) => Err(Problem::new(format!("{what} declares: it stands at the top of a spec"))
                .hint("tests, scenarios, seed and reset run after the spec is loaded")),
        }
    }

    /// The run, where there is one.
    ///
    /// # Errors
    /// While the spec is loaded.
    pub fn run(&self, what: &str) -> Result<&Run, Problem> {
        match &self.stage {
            Stage::Run(run) => Ok(run),
            Stage::Load(_) => Err(Problem::new(format!("{what} works only while a cell runs"))
                .hint("call it in a test, a scenario, seed or reset")),
        }
    }

    /// `file:line` of a call.
    pub fn line(&self, span: &Option<FileSpan>) -> String {
        span.as_ref().map(|span| self.shared.sources().line(span)).unwrap_or_default()
    }
}

impl PrintHandler for Context {
    fn println(&self, text: &str) -> Result<()> {
        match &self.stage {
            Stage::Load(load) => load.draft.borrow_mut().warnings.push(format!("print: {text}")),
            Stage::Run(run) => run.driver.print(text),
        }
        Ok(())
    }
}

impl Draft {
    /// Keeps a callable beyond the load; gives its number.
    pub fn keep<'v>(&mut self, eval: &mut Evaluator<'v, '_, '_>, callable: Value<'v>) -> usize {
        let number = self.callables.len();
        let variable = format!("__callable_{number}");
        eval.module().set(&variable, callable);
        self.callables.push((self.module, variable));
        number
    }

    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&ServiceDraft> {
        self.services.iter().find(|draft| draft.service.name == name)
    }

    /// Whether another service depends on it.
    pub fn depended_on(&self, name: &str) -> bool {
        self.services.iter().any(|draft| draft.service.depends_on.iter().any(|d| d == name))
    }

    /// The services that depend on this one, where they are several; else none.
    pub fn fleet(&self, service: &str) -> Vec<String> {
        let depending = self.services.iter().map(|draft| &draft.service);
        let names = depending.filter(|other| other.depends_on.iter().any(|name| name == service));
        let names: Vec<String> = names.map(|other| other.name.clone()).collect();
        if names.len() > 1 { names } else { Vec::new() }
    }

    /// Whether a `connect` rule on the service is about connects *to* it.
    pub fn inbound(&self, service: &str, side: Option<Side>) -> bool {
        match side {
            Some(side) => side == Side::In,
            None => self.depended_on(service),
        }
    }
}

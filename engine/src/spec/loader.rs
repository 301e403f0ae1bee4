//! The loader: modules in order, each evaluated once; then the checks that need all of them.
//!
//! Contract: a [`Plan`] exists only if every check passed. The first error of an evaluation
//! ends it; the checks after it are all reported.

use super::builtins;
use super::diagnostics::{Diagnostic, Place, Problem, SpecErrors, nearest, place_in};
use super::dialect::{
    AstModule, Error, Evaluator, FileLoader, FileSpan, FrozenModule, Globals, Module, Token, limit, parse,
};
use super::expect::Expectation;
use super::files::{self, DiskFiles, FileSource};
use super::late;
use super::lint;
use super::loads;
use super::matrix;
use super::program::{ProgramCell, SpecProgram};
use super::state::{CellDraft, Context, Draft, Load, Shared, Stage};
use super::volatile;
use crate::addresses::AddressBook;
use crate::fault::Assumption;
use crate::plan::{Cell, Plan, RequireFire};
use crate::prng::Key;
use crate::topology::{Determinism, Service, ServiceKind, Topology};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a load needs besides the spec.
pub struct LoadOptions<'a> {
    /// Where addresses come from.
    pub addresses: &'a AddressBook,
    /// Environment variables that replace the spec's: service, name, value.
    pub env: Vec<(String, String, String)>,
    /// Executables that replace the spec's: service, path.
    pub binaries: Vec<(String, PathBuf)>,
    /// The run's seed: an issuer's keys (`.jwks`) follow from it.
    pub seed: u64,
    /// The folder whose files may be read; `None` is the spec's own.
    pub root: Option<&'a Path>,
    /// Where files come from; `None` is the disk below the root.
    pub files: Option<&'a dyn FileSource>,
}

impl<'a> LoadOptions<'a> {
    /// The spec as it is written, from the disk, with seed 1.
    pub fn new(addresses: &'a AddressBook) -> Self {
        LoadOptions { addresses, env: Vec::new(), binaries: Vec::new(), seed: 1, root: None, files: None }
    }
}

/// Loads a spec.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, options: &LoadOptions<'_>) -> Result<Plan, SpecErrors> {
    // Parsing and compiling recurse: on a stack of their own, with room for what `late::too_deep` lets pass.
    std::thread::scope(|scope| {
        let loader = std::thread::Builder::new().name("spec".to_owned()).stack_size(STACK);
        match loader.spawn_scoped(scope, || load_here(path, options)) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(one(plain(format!("no thread to load the spec on: {error}")))),
        }
    })
}

/// Address space for the stack of a load; only what is used is ever backed by memory.
const STACK: usize = 256 * 1024 * 1024;

fn load_here(path: &Path, options: &LoadOptions<'_>) -> Result<Plan, SpecErrors> {
    let (root, name) = match (options.files, options.root) {
        (None, Some(root)) => (root.to_path_buf(), Some(below(root, path)?)),
        // What another source holds is not looked for on the disk.
        (Some(_), Some(root)) => {
            let name = path.strip_prefix(root).ok().and_then(Path::to_str);
            (root.to_path_buf(), name.map(str::to_owned))
        }
        (_, None) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let name = path.file_name().and_then(|name| name.to_str());
            (parent.unwrap_or(Path::new(".")).to_path_buf(), name.map(str::to_owned))
        }
    };
    let name = name.filter(|name| !name.is_empty());
    let name = &*name.ok_or_else(|| one(plain(format!("{} names no spec", path.display()))))?;
    let files = options
        .files
        .map_or_else(|| Arc::new(DiskFiles::new(&root)) as Arc<dyn FileSource>, FileSource::shared);
    let context = Context {
        shared: Arc::new(Shared::default()),
        stage: Stage::Load(Box::new(Load {
            files,
            addresses: options.addresses.clone(),
            root: root.clone(),
            env: options.env.clone(),
            binaries: options.binaries.clone(),
            run_key: Key::of_run(options.seed),
            draft: RefCell::new(Draft::default()),
        })),
    };
    let mut loader = Loader {
        context: &context,
        globals: builtins::globals(),
        library: builtins::library_globals(),
        modules: Vec::new(),
        open: Vec::new(),
    };
    if let Err(why) = loader.source(name) {
        return Err(one(plain(format!("cannot read {}: {why}", path.display()))));
    }
    loader.module(name)?;
    let modules = std::mem::take(&mut loader.modules);
    let Stage::Load(load) = &context.stage else { return Err(one(plain("the load ended early".to_owned()))) };
    let draft = load.draft.take();
    if let Some(content) = volatile::read(&*load.files, name).map_err(one)? {
        context.shared.keep(&volatile::file_of(name), "loaded", &content);
    }
    Finish { shared: &context.shared, draft, modules, spec: name, options }.plan(root)
}

/// The path of the spec below the root.
fn below(root: &Path, path: &Path) -> Result<String, SpecErrors> {
    let real = |path: &Path| {
        path.canonicalize().map_err(|error| one(plain(format!("cannot read {}: {error}", path.display()))))
    };
    let (folder, spec) = (real(root)?, real(path)?);
    let parts = spec.strip_prefix(&folder).ok().map(|rest| rest.components());
    let parts: Option<Vec<&str>> =
        parts.and_then(|rest| rest.map(|part| part.as_os_str().to_str()).collect());
    parts.map(|parts| parts.join("/")).ok_or_else(|| {
        one(Diagnostic {
            message: format!("--root: {} is not in {}", path.display(), root.display()),
            place: None,
            hints: vec!["the root is a folder above the spec".to_owned()],
        })
    })
}

fn plain(message: String) -> Diagnostic {
    Diagnostic { message, place: None, hints: Vec::new() }
}

fn one(diagnostic: Diagnostic) -> SpecErrors {
    SpecErrors(vec![diagnostic])
}

struct Loader<'c> {
    context: &'c Context,
    globals: Globals,
    library: Globals,
    /// Evaluated modules by path, in order.
    modules: Vec<(String, FrozenModule)>,
    /// Paths of the modules that are being loaded.
    open: Vec<String>,
}

/// Modules under the names that one file gives them.
struct Loaded(BTreeMap<String, FrozenModule>);

impl FileLoader for Loaded {
    fn load(&self, path: &str) -> super::dialect::Result<FrozenModule> {
        let module = self.0.get(path).cloned();
        module.ok_or_else(|| Error::from(Problem::new(format!("\"{path}\" was not loaded"))))
    }
}

impl Loader<'_> {
    fn error(&self, error: &Error) -> SpecErrors {
        one(self.context.shared.sources().diagnostic(error))
    }

    fn at(&self, span: &FileSpan, problem: Problem) -> SpecErrors {
        let place = self.context.shared.sources().place(span);
        one(Diagnostic { message: problem.message, place, hints: problem.hint.into_iter().collect() })
    }

    /// The text of a module.
    fn source(&self, path: &str) -> Result<String, String> {
        if path.starts_with('@') {
            return builtins::library(path).map(str::to_owned).map_err(|problem| problem.message);
        }
        if let Some(content) = self.context.shared.file(path) {
            return String::from_utf8(content).map_err(|_| "it is not UTF-8 text".to_owned());
        }
        let Stage::Load(load) = &self.context.stage else { return Err("the load is over".to_owned()) };
        let content = load.files.read(path)?;
        self.context.shared.keep(path, "spec", &content);
        String::from_utf8(content).map_err(|_| "it is not UTF-8 text".to_owned())
    }

    /// Loads a module and what it loads; each once.
    fn module(&mut self, path: &str) -> Result<FrozenModule, SpecErrors> {
        if let Some((_, module)) = self.modules.iter().find(|(known, _)| known == path) {
            return Ok(module.clone());
        }
        let text = self.source(path).map_err(|why| one(plain(format!("cannot read {path}: {why}"))))?;
        if let Some((begin, end)) = late::too_deep(&late::tokens(&text).0) {
            let message = "the program nests too deep here".to_owned();
            let place = place_in(path, &text, begin, end);
            return Err(one(Diagnostic { message, place, hints: Vec::new() }));
        }
        let parsed = self.context.shared.sources().add(path, &text);
        let ast = parse(path, parsed).map_err(|error| self.error(&error))?;
        self.open.push(path.to_owned());
        let loaded = self.loads(path, &ast)?;
        self.open.pop();
        self.literal_files(path, &text)?;
        let module = self.evaluate(path, ast, &loaded)?;
        self.modules.push((path.to_owned(), module.clone()));
        Ok(module)
    }

    fn loads(&mut self, path: &str, ast: &AstModule) -> Result<Loaded, SpecErrors> {
        let mut loaded = BTreeMap::new();
        for load in ast.loads() {
            let target = match load.module_id.starts_with('@') {
                true => builtins::library(load.module_id).map(|_| load.module_id.to_owned()),
                false => files::resolve(path, load.module_id)
                    .map_err(|why| Problem::new(format!("cannot load \"{}\": {why}", load.module_id))),
            };
            let target = target.map_err(|problem| self.at(&load.span, problem))?;
            if self.open.contains(&target) {
                let cycle = self.open.iter().skip_while(|open| **open != target).cloned().collect::<Vec<_>>();
                let message = format!("modules load each other: {} -> {target}", cycle.join(" -> "));
                return Err(self.at(&load.span, Problem::new(message)));
            }
            if let Err(why) = self.source(&target) {
                let message = format!("cannot load \"{}\": {why}", load.module_id);
                return Err(self.at(&load.span, Problem::new(message)));
            }
            let module = self.module(&target)?;
            for (_, symbol) in &load.symbols {
                let checked = builtins::check_symbol(&module, load.module_id, symbol);
                checked.map_err(|problem| self.at(&load.span, problem))?;
            }
            loaded.insert(load.module_id.to_owned(), module);
        }
        Ok(Loaded(loaded))
    }

    /// Reads the files that the text names by literals, for calls that come only in a run.
    fn literal_files(&self, path: &str, text: &str) -> Result<(), SpecErrors> {
        let Stage::Load(load) = &self.context.stage else { return Ok(()) };
        for (written, place) in loads::literal_paths(path, text) {
            let read = files::resolve(path, &written).and_then(|file| Ok((load.files.read(&file)?, file)));
            match read {
                Ok((content, file)) => self.context.shared.keep(&file, "loaded", &content),
                Err(why) => {
                    let message = format!("cannot read \"{written}\": {why}");
                    return Err(one(Diagnostic { message, place, hints: Vec::new() }));
                }
            }
        }
        Ok(())
    }

    fn evaluate(&self, path: &str, ast: AstModule, loaded: &Loaded) -> Result<FrozenModule, SpecErrors> {
        if let Stage::Load(load) = &self.context.stage {
            load.draft.borrow_mut().module = self.modules.len();
        }
        let globals = if path.starts_with('@') { &self.library } else { &self.globals };
        Module::with_temp_heap(|module| {
            {
                let mut eval = Evaluator::new(&module);
                limit(&mut eval);
                eval.extra = Some(self.context);
                eval.set_loader(loaded);
                eval.set_print_handler(self.context);
                eval.eval_module(ast, globals).map_err(|error| self.error(&error))?;
            }
            module.freeze().map_err(|error| one(plain(format!("{path} cannot be kept: {error:?}"))))
        })
    }
}

/// The checks that need the whole spec.
struct Finish<'a> {
    shared: &'a Arc<Shared>,
    draft: Draft,
    modules: Vec<(String, FrozenModule)>,
    spec: &'a str,
    options: &'a LoadOptions<'a>,
}

impl Finish<'_> {
    fn diagnostic(&self, span: &Option<FileSpan>, problem: Problem) -> Diagnostic {
        let span = problem.call.as_ref().or(span.as_ref());
        let place = span.and_then(|span| self.shared.sources().argument(span, problem.argument.as_ref()));
        Diagnostic { message: problem.message, place, hints: problem.hint.into_iter().collect() }
    }

    fn plan(mut self, root: PathBuf) -> Result<Plan, SpecErrors> {
        let mut errors = self.dependencies();
        errors.extend(self.overrides());
        let mut assumptions = Vec::new();
        for assumption in &self.draft.assumptions {
            match assumption.build(&self.draft) {
                Ok(built) => assumptions.push(Arc::new(built)),
                Err(problems) => {
                    errors.extend(problems.into_iter().map(|p| self.diagnostic(&assumption.span, p)))
                }
            }
        }
        for (path, module) in self.modules.iter().filter(|(path, _)| !path.starts_with('@')) {
            let text = self
                .shared
                .file(path)
                .and_then(|content| String::from_utf8(content).ok())
                .unwrap_or_default();
            errors.extend(lint::check(path, &text, module));
        }
        let tests = self.tests(&mut errors);
        if !errors.is_empty() {
            return Err(SpecErrors(errors));
        }
        self.warn_of_unused();
        let drafts = std::mem::take(&mut self.draft.cells);
        let mut cells = Vec::new();
        let mut scenarios = Vec::new();
        for test in tests {
            let location = test.location.clone();
            scenarios.push(ProgramCell { scenario: test.callable, expectation: None, location });
            cells.push(test.cell);
        }
        for draft in drafts {
            let cell = self.cell(&draft, &assumptions, cells.len());
            let location = cell.location.clone();
            scenarios.push(ProgramCell {
                scenario: draft.callable,
                expectation: draft.expectation,
                location,
            });
            cells.push(cell);
        }
        let local = |service: &Service| service.seccomp && matches!(service.kind, ServiceKind::Binary { .. });
        let services = self.draft.services.iter().map(|draft| {
            let mut service = draft.service.clone();
            let unsaid = self.draft.seeded && local(&service);
            service.determinism = Determinism {
                clock: draft.clock.unwrap_or(unsaid),
                entropy: draft.entropy.unwrap_or(unsaid),
                pids: draft.pids,
                watched: self.draft.watched && local(&service),
            };
            service
        });
        let services = services.collect();
        let topology = Topology { services };
        let program = self.program(scenarios, &topology)?;
        let side_file = volatile::file_of(self.spec);
        let learned = match self.shared.file(&side_file) {
            Some(content) => volatile::parse(&side_file, &content, &topology.services).map_err(SpecErrors)?,
            None => Vec::new(),
        };
        Ok(Plan {
            topology,
            cells,
            files: self.shared.files(),
            warnings: self.draft.warnings,
            secrets: self.draft.secrets,
            spec: self.spec.to_owned(),
            root,
            learned,
            program: Arc::new(program),
        })
    }

    fn cell(&self, draft: &CellDraft, assumptions: &[Arc<Assumption>], number: usize) -> Cell {
        Cell {
            name: draft.name.clone(),
            number,
            scenario: draft.scenario.clone(),
            assumption: draft.assumption.and_then(|index| assumptions.get(index)).cloned(),
            expectation: draft.expectation.as_deref().map(Expectation::words).unwrap_or_default(),
            timeout: draft.timeout,
            require_faults_fire: draft.fire,
            location: draft.span.as_ref().map(|span| self.shared.sources().line(span)).unwrap_or_default(),
        }
    }

    fn program(&self, cells: Vec<ProgramCell>, topology: &Topology) -> Result<SpecProgram, SpecErrors> {
        let mut callables = Vec::new();
        for (module, variable) in &self.draft.callables {
            let module = self.modules.get(*module).map(|(_, module)| module);
            let value = module.and_then(|module| module.get_any_visibility(variable).ok());
            let value = value.ok_or_else(|| {
                one(plain(format!("a function was lost when the spec was kept ({variable})")))
            })?;
            callables.push(value.0);
        }
        let of = |pick: fn(&super::state::ServiceDraft) -> Option<usize>| -> BTreeMap<String, usize> {
            let services = self.draft.services.iter();
            services.filter_map(|draft| Some((draft.service.name.clone(), pick(draft)?))).collect()
        };
        let shared = self.shared.clone();
        let suts = topology.suts().map(|service| service.name.clone()).collect();
        Ok(SpecProgram { cells, callables, seeds: of(|d| d.seed), resets: of(|d| d.reset), suts, shared })
    }

    /// Unknown names and cycles in `depends_on`.
    fn dependencies(&self) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        let services = &self.draft.services;
        for draft in services {
            for name in &draft.service.depends_on {
                if self.draft.service(name).is_none() {
                    let names = services.iter().map(|draft| draft.service.name.as_str());
                    let problem = Problem::new(format!("no service is called `{name}`")).at("depends_on");
                    errors.push(self.diagnostic(&draft.span, problem.nearest(name, names)));
                }
            }
        }
        if let Some(cycle) = self.cycle() {
            let span = self.draft.service(&cycle[0]).map(|draft| draft.span.clone()).unwrap_or_default();
            let message = format!("services depend on each other: {} -> {}", cycle.join(" -> "), cycle[0]);
            errors.push(self.diagnostic(&span, Problem::new(message).at("depends_on")));
        }
        errors
    }

    /// A cycle of dependencies, if there is one.
    fn cycle(&self) -> Option<Vec<String>> {
        for start in &self.draft.services {
            let mut path: Vec<&str> = vec![&start.service.name];
            // Each level holds the dependencies of the path's last service still to be tried.
            let mut levels: Vec<Vec<&str>> =
                vec![start.service.depends_on.iter().map(String::as_str).collect()];
            let mut seen: Vec<&str> = Vec::new();
            while let Some(level) = levels.last_mut() {
                match level.pop() {
                    None => {
                        levels.pop();
                        path.pop();
                    }
                    Some(next) if next == start.service.name => {
                        return Some(path.iter().map(|s| (*s).to_owned()).collect());
                    }
                    Some(next) if seen.contains(&next) => {}
                    Some(next) => {
                        seen.push(next);
                        if let Some(draft) = self.draft.service(next) {
                            path.push(next);
                            levels.push(draft.service.depends_on.iter().map(String::as_str).collect());
                        }
                    }
                }
            }
        }
        None
    }

    /// Overrides of the command line must name services of the right kind.
    fn overrides(&self) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        let env = self.options.env.iter().map(|(service, ..)| (service, "--env"));
        let binaries = self.options.binaries.iter().map(|(service, _)| (service, "--binary"));
        for (name, flag) in env.chain(binaries) {
            let message = match self.draft.service(name).map(|draft| &draft.service.kind) {
                None => format!("{flag}: no service is called `{name}`"),
                Some(ServiceKind::Mock(_) | ServiceKind::Remote(_)) => {
                    format!("{flag}: {name} starts no process")
                }
                Some(kind) if flag == "--binary" && !matches!(kind, ServiceKind::Binary { .. }) => {
                    format!("{flag}: {name} is no binary")
                }
                Some(_) => continue,
            };
            let names = self.draft.services.iter().map(|draft| draft.service.name.as_str());
            let near = nearest(name, names).filter(|near| near != name);
            let hints = near.map(|near| format!("did you mean `{near}`?")).into_iter().collect();
            errors.push(Diagnostic { message, place: None, hints });
        }
        errors
    }

    /// The functions `test_*` of the spec, in order of definition.
    fn tests(&mut self, errors: &mut Vec<Diagnostic>) -> Vec<Test> {
        let Some((_, module)) = self.modules.iter().find(|(path, _)| path == self.spec) else {
            return Vec::new();
        };
        let text = self
            .shared
            .file(self.spec)
            .and_then(|content| String::from_utf8(content).ok())
            .unwrap_or_default();
        let definitions = definitions(self.spec, &text);
        let index = self.modules.iter().position(|(path, _)| path == self.spec).unwrap_or_default();
        let mut names: Vec<String> = module
            .names()
            .map(|name| name.as_str().to_owned())
            .filter(|name| name.starts_with("test_"))
            .collect();
        let position = |name: &String| definitions.iter().position(|(defined, _)| defined == name);
        names.sort_by_key(|name| position(name).unwrap_or(usize::MAX));
        let mut tests = Vec::new();
        for name in names {
            let Ok(value) = module.get(&name) else { continue };
            let Some(spec) = value.value().parameters_spec() else { continue };
            let mut places =
                definitions.iter().filter(|(defined, _)| *defined == name).map(|(_, place)| place.clone());
            let place = places.next().flatten();
            if let Some(again) = places.next() {
                let first = place.map(|place| format!("{}:{}", place.file, place.line)).unwrap_or_default();
                let hints = vec![format!("the other is at {first}")];
                errors.push(Diagnostic {
                    message: format!("two cells are called {name}"),
                    place: again,
                    hints,
                });
                continue;
            }
            if !spec.can_fill_with_args(0, &[]) {
                let message = format!("{name} has parameters, and nothing gives it arguments");
                errors.push(Diagnostic { message, place, hints: Vec::new() });
                continue;
            }
            let location =
                place.map_or_else(|| self.spec.to_owned(), |place| format!("{}:{}", place.file, place.line));
            let callable = self.draft.callables.len();
            self.draft.callables.push((index, name.clone()));
            let cell = Cell {
                name: name.clone(),
                // They are the first ones.
                number: tests.len(),
                scenario: name,
                assumption: None,
                expectation: String::new(),
                timeout: matrix::TIMEOUT,
                require_faults_fire: RequireFire::No,
                location: location.clone(),
            };
            tests.push(Test { cell, callable, location });
        }
        tests
    }

    fn warn_of_unused(&mut self) {
        let composed: Vec<usize> =
            self.draft.assumptions.iter().flat_map(|a| a.parts.iter().copied()).collect();
        for (index, assumption) in self.draft.assumptions.iter().enumerate() {
            let used = composed.contains(&index)
                || self.draft.cells.iter().any(|cell| cell.assumption == Some(index));
            if !used {
                let line =
                    assumption.span.as_ref().map(|span| self.shared.sources().line(span)).unwrap_or_default();
                self.draft
                    .warnings
                    .push(format!("{line}: fault assumption {} is in no matrix", assumption.name));
            }
        }
    }
}

struct Test {
    cell: Cell,
    callable: usize,
    location: String,
}

/// Functions that a file defines at its top level, in order.
fn definitions(file: &str, text: &str) -> Vec<(String, Option<Place>)> {
    let (tokens, _) = late::tokens(text);
    let at_line_start = |at: usize| at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n');
    let found = tokens.windows(2).filter_map(|window| match window {
        [(begin, Token::Def, _), (from, Token::Identifier(name), to)] if at_line_start(*begin) => {
            Some((name.clone(), place_in(file, text, *from, *to)))
        }
        _ => None,
    });
    found.collect()
}

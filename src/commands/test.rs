//! `faultbox test`: run every cell of a spec, write the bundle, report.

use super::run::{self, Host};
use super::{images, learn, skipping, stack};
use crate::baseline::{self, Baseline, Compared};
use crate::ci::GitHub;
use crate::cli::{Format, TestArgs};
use crate::export::{self, Suite, Told, github, junit, summary};
use crate::flaky::{Flaky, flaky};
use crate::terminal::{self, Findings, Progress, notice, say, say_json, say_result};
use crate::{exit_code, host};
use faultbox_bundle_format::redact::Redactor;
use faultbox_bundle_format::{
    Blame, Body, Bundle, Ending, Header, Named, Payload, RunEnded, RunStarted, StoredFile, Verdict,
};
use faultbox_engine::addresses::AddressBook;
use faultbox_engine::clock::RunClock;
use faultbox_engine::containers::Keeping;
use faultbox_engine::event_sink::{EventSink, NullSink};
use faultbox_engine::journal::Journal;
use faultbox_engine::oracle::SeededOracle;
use faultbox_engine::plan::{Plan, last_run, run_of};
use faultbox_engine::runner::live::Live;
use faultbox_engine::runner::{self, CellResult, RunContext};
use faultbox_engine::spec::{self, volatile};
use faultbox_engine::supervisor::Feature;
use faultbox_engine::topology::ServiceKind;
use faultbox_engine::virtual_time::{Skipped, Time, VirtualTime};
use faultbox_recorder::Recorder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file that is kept in a bundle (a service's binary).
const BINARY_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Runs the command.
pub fn run(args: TestArgs) -> u8 {
    match try_run(&args) {
        Ok(code) | Err(code) => code,
    }
}

fn try_run(args: &TestArgs) -> Result<u8, u8> {
    if args.virtual_time && !args.stack.embedded {
        notice("faultbox: --virtual-time needs --embedded: what runs in a container waits in real time");
        return Err(exit_code::USAGE);
    }
    let offline = args.list || args.dry_run;
    let mut host = if offline { None } else { Some(Host::probe()?) };
    let addresses = Arc::new(host.as_ref().map_or_else(AddressBook::isolated, Host::addresses));
    let (seed, source) = match args.stack.seed {
        None if offline => (0, "none"),
        _ => stack::seed(&args.stack)?,
    };
    let mut plan = stack::load(&args.stack, &addresses, seed)?;
    // A name of one run says that there are several.
    if let Some(runs) = args.runs.max(last_run(args.tests.iter().map(String::as_str))) {
        plan = plan.repeated(runs);
    }
    if plan.cells.is_empty() {
        notice(&format!(
            "faultbox: {} has no cells: a test is a function whose name begins with test_, or comes from fault_scenario() \
             or fault_matrix()",
            args.stack.spec.display()
        ));
        return Err(exit_code::USAGE);
    }
    let cells = select(&plan, &args.tests, &format!("faultbox test {} --list", args.stack.spec.display()))?;
    let baseline = known(args, &plan)?;
    if args.list {
        cells.iter().for_each(|index| say(&plan.cells[*index].name));
        return Ok(exit_code::OK);
    }
    if args.dry_run {
        say(spec::describe(&plan, &cells).trim_end());
        return Ok(exit_code::OK);
    }
    let mut host = host.take().ok_or(exit_code::HOST)?;
    stack::check_host(&plan, &args.stack, &host)?;
    let runtime = run::runtime()?;
    host.keeping = Some(keeping(args));
    stack::make_ready(&mut host, &plan, &args.stack, &runtime)?;
    if args.format == Format::Human {
        say(&format!("Seed: {seed} ({source})\n"));
    }
    tell_of_undrawn(&plan, &cells);
    let plan = Arc::new(plan);
    let unix_ns = RunClock::start().unix_ns();
    let header = faultbox_recorder::new_header().map_err(|error| {
        notice(&format!("faultbox: {error}"));
        exit_code::HOST
    })?;
    let redactor = Redactor::new(&header.salt, run::secrets(&plan));
    let host = &host;
    let session =
        Session { args, host, plan, cells, seed, source, addresses, baseline, unix_ns, header, redactor };
    let code = session.run(&runtime);
    // Tasks that still hold connections end with the runtime.
    runtime.shutdown_background();
    code
}

/// Says of how many cells with several runs none differs from another by what the seed decides.
fn tell_of_undrawn(plan: &Plan, cells: &[usize]) {
    let mut drawn: BTreeMap<&str, bool> = BTreeMap::new();
    for index in cells {
        if let (name, Some(_)) = run_of(&plan.cells[*index].name) {
            drawn.insert(name, plan.draws(*index));
        }
    }
    let (all, undrawn) = (drawn.len(), drawn.values().filter(|drawn| !**drawn).count());
    if undrawn > 0 {
        notice(&format!(
            "notice: nothing is drawn from the seed in {undrawn} of {all} cells: their runs differ only as the services do"
        ));
    }
}

/// The baseline that the run is held against, where there is one.
fn known(args: &TestArgs, plan: &Plan) -> Result<Option<Baseline>, u8> {
    let Some(path) = &args.baseline else { return Ok(None) };
    let failed = |error: &dyn std::fmt::Display| {
        notice(&format!("faultbox: {}: {error}", path.display()));
        exit_code::USAGE
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let baseline = Baseline::read(&text).map_err(|error| failed(&error))?;
    baseline.check(plan.cells.iter().map(|cell| run_of(&cell.name).0)).map_err(|error| failed(&error))?;
    Ok(Some(baseline))
}

/// How containers are kept after this run.
fn keeping(args: &TestArgs) -> Keeping {
    let spec = std::path::absolute(&args.stack.spec).unwrap_or_else(|_| args.stack.spec.clone());
    let root = Keeping::folder(&std::env::temp_dir());
    Keeping { keep: args.keep, root, spec: spec.display().to_string() }
}

/// Indices of the cells that the patterns choose; `lists` is the command that shows their names.
pub fn select(plan: &Plan, patterns: &[String], lists: &str) -> Result<Vec<usize>, u8> {
    spec::select(plan, patterns).map_err(|error| {
        let lost = matches!(error, spec::SelectError::None { nearest: None, .. });
        let hint = if lost { format!("; their names: {lists}") } else { String::new() };
        notice(&format!("faultbox: {error}{hint}"));
        exit_code::USAGE
    })
}

struct Session<'a> {
    args: &'a TestArgs,
    host: &'a Host,
    plan: Arc<Plan>,
    cells: Vec<usize>,
    seed: u64,
    source: &'static str,
    addresses: Arc<AddressBook>,
    baseline: Option<Baseline>,
    /// When the run began, nanoseconds since the Unix epoch.
    unix_ns: u64,
    header: Header,
    redactor: Redactor,
}

impl Session<'_> {
    fn run(&self, runtime: &tokio::runtime::Runtime) -> Result<u8, u8> {
        let dir = host::RunDir::create().map_err(|error| {
            notice(&format!("faultbox: the temporary folder cannot be used: {error}"));
            exit_code::HOST
        })?;
        let redactor = self.redactor.clone();
        let recorder = self.recorder(self.header, redactor.clone())?;
        let sink: Arc<dyn EventSink> = match &recorder {
            Some(recorder) => recorder.clone(),
            None => Arc::new(NullSink),
        };
        let topology = &self.plan.topology;
        // What else is an image has a stand-in, which is a process here.
        let own = topology.services.iter().filter(|s| !s.is_contained() || topology.is_sut(&s.name));
        let time = self.args.virtual_time.then(|| self.host.virtual_time(own));
        let (results, interrupted) = runtime.block_on(async {
            let oracle = Arc::new(SeededOracle::new(self.seed));
            let (embedded, addresses) = (self.args.stack.embedded, self.addresses.clone());
            let context =
                self.host.context(self.seed, redactor, sink.clone(), oracle, &dir, embedded, addresses);
            let clock = RunClock::start_in(time.clone().map_or_else(Time::default, Time::skipping));
            // Stand-ins outlast a cell.
            let _skipping = time.as_ref().map(VirtualTime::skip);
            self.run_cells(&Arc::new(RunContext { clock, ..context })).await
        });
        let time = time.map(|time| time.sum());
        // Results that were reached are shown even where the bundle was lost.
        let (bundle, lost) = match self.finish(recorder) {
            Ok(bundle) => (bundle, None),
            Err(code) => (None, Some(code)),
        };
        let code = self.report(&results, bundle.as_deref(), time.as_ref(), interrupted);
        let code = lost.unwrap_or(code);
        Ok(code)
    }

    fn recorder(&self, header: Header, redactor: Redactor) -> Result<Option<Arc<Recorder>>, u8> {
        if self.args.no_bundle {
            return Ok(None);
        }
        let path = self.args.bundle.clone().unwrap_or_else(|| {
            let dir = std::env::var_os("FAULTBOX_BUNDLE_DIR").map(PathBuf::from).unwrap_or_default();
            let stamp = host::stamp(self.unix_ns);
            dir.join(format!("run-{stamp}-{}.fb", self.seed))
        });
        if path.is_dir() {
            notice(&format!(
                "faultbox: cannot write {}: it is a folder; --bundle wants a file",
                path.display()
            ));
            return Err(exit_code::BUNDLE);
        }
        let recorder = Recorder::create(&path, header, redactor).map_err(|error| {
            notice(&format!("faultbox: {error}; give another --bundle PATH, or --no-bundle"));
            exit_code::BUNDLE
        })?;
        Ok(Some(Arc::new(recorder)))
    }

    async fn run_cells(&self, context: &Arc<RunContext>) -> (Vec<CellResult>, bool) {
        let journal =
            Journal::new(context.sink.clone(), context.clock.clone(), context.sequence.clone(), 0, "");
        self.note_run(&journal, context);
        let live = Live::new(context.clone());
        let progress = Progress::new();
        let mut results = Vec::new();
        for (done, index) in self.cells.iter().enumerate() {
            if context.interrupted.is_cancelled() {
                break;
            }
            progress.show(done, self.cells.len(), &self.plan.cells[*index].name);
            let result = runner::run_cell(context, &self.plan, *index, live.clone()).await;
            progress.clear();
            if self.args.format == Format::Human {
                say_result(
                    Some(result.verdict.ending),
                    &terminal::result(&result.name, &result.verdict, self.seed),
                );
                Findings::of(&result.entries).lines().iter().for_each(|line| say(&format!("  {line}")));
            }
            live.take_notices().iter().for_each(|text| notice(&format!("notice: {text}")));
            let setup_failed = result.setup_failed;
            results.push(result);
            if setup_failed {
                match self.cells.len() - results.len() {
                    0 => {}
                    1 => notice("faultbox: the remaining cell was not run"),
                    more => notice(&format!("faultbox: the remaining {more} cells were not run")),
                }
                break;
            }
        }
        live.stop().await;
        live.take_notices().iter().for_each(|text| notice(&format!("notice: {text}")));
        self.note_binaries(&journal, &results);
        let passed = results.iter().filter(|r| r.verdict.ending == Ending::Passed).count();
        let interrupted = context.interrupted.is_cancelled();
        let ended = RunEnded { passed: passed as u32, failed: (results.len() - passed) as u32, interrupted };
        journal.note("faultbox", "run", None, Body::RunEnded(ended));
        (results, interrupted)
    }

    fn note_run(&self, journal: &Journal, context: &RunContext) {
        let started = RunStarted {
            seed: self.seed,
            seed_source: self.source.to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            command: std::env::args().skip(1).collect(),
            unix_ns: context.clock.unix_ns(),
            spec: self.plan.spec.clone(),
        };
        journal.note("faultbox", "run", None, Body::RunStarted(started));
        for file in &self.plan.files {
            let stored = StoredFile {
                path: file.path.clone(),
                role: file.role.to_owned(),
                service: String::new(),
                digest: *blake3::hash(&file.content).as_bytes(),
                content: Some(Payload::Inline(file.content.clone())),
            };
            journal.note("faultbox", "run", None, Body::File(stored));
        }
        let facts = &self.host.facts;
        let features = Feature::ALL.iter().map(|feature| {
            let value =
                facts.has(*feature).map_or_else(|lack| format!("no: {}", lack.why), |()| "yes".to_owned());
            (feature.title(), value)
        });
        let privilege = if facts.account.uid == 0 { "root" } else { "ordinary user" };
        let host = [
            ("kernel", facts.kernel.clone()),
            ("architecture", std::env::consts::ARCH.to_owned()),
            ("privilege", privilege.to_owned()),
        ];
        for (name, value) in host.into_iter().chain(features) {
            journal.note("faultbox", "run", None, Body::HostFact(Named { name: name.to_owned(), value }));
        }
        let engine = self.host.engine.iter().map(|engine| ("container engine".to_owned(), engine.describe()));
        let mut images: Vec<(String, String)> = self
            .host
            .images
            .values()
            .map(|image| (format!("image {}", image.name), image.describe()))
            .collect();
        images.sort();
        images.dedup();
        let containers = self
            .host
            .images
            .iter()
            .map(|(service, image)| (format!("{}{service}", images::CONTAINER), image.identity()));
        for (name, value) in engine.chain(images).chain(containers) {
            journal.note("faultbox", "run", None, Body::HostFact(Named { name, value }));
        }
    }

    /// The digest of every local executable; its content too where a cell failed or it was asked for.
    fn note_binaries(&self, journal: &Journal, results: &[CellResult]) {
        let failed = results.iter().any(|r| r.verdict.ending != Ending::Passed);
        let wanted = !self.args.no_embed && (self.args.embed || failed);
        for service in &self.plan.topology.services {
            let ServiceKind::Binary { path, written } = &service.kind else { continue };
            let small = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= BINARY_BYTES_MAX);
            if wanted && !small && !self.args.no_bundle {
                let mib = BINARY_BYTES_MAX >> 20;
                notice(&format!(
                    "notice: {}: an executable of more than {mib} MiB is not kept in the bundle",
                    service.name
                ));
            }
            let Ok(content) = std::fs::read(path) else { continue };
            let now = *blake3::hash(&content).as_bytes();
            let ran = digests_that_ran(results, &service.name);
            let as_it_ran = ran.iter().all(|digest| *digest == now);
            if !as_it_ran {
                notice(&format!(
                    "notice: {}: {} was replaced while the run went on; the bundle keeps the digest of what ran, not \
                     its content",
                    service.name,
                    path.display()
                ));
            }
            let stored = StoredFile {
                path: written.trim_start_matches("./").trim_start_matches('/').replace("../", ""),
                role: "binary".to_owned(),
                service: service.name.clone(),
                digest: ran.last().copied().unwrap_or(now),
                content: (wanted && small && as_it_ran).then_some(Payload::Inline(content)),
            };
            journal.note("faultbox", "run", None, Body::File(stored));
        }
    }

    fn finish(&self, recorder: Option<Arc<Recorder>>) -> Result<Option<PathBuf>, u8> {
        let Some(recorder) = recorder else { return Ok(None) };
        recorder.finish().map(Some).map_err(|error| {
            notice(&format!("faultbox: the bundle could not be written: {error}"));
            exit_code::BUNDLE
        })
    }

    fn report(
        &self,
        results: &[CellResult],
        bundle: Option<&Path>,
        time: Option<&Skipped>,
        interrupted: bool,
    ) -> u8 {
        let failed: Vec<&CellResult> =
            results.iter().filter(|r| r.verdict.ending != Ending::Passed).collect();
        let passed = results.len() - failed.len();
        let replay = |name: &str| bundle.map(|bundle| terminal::replay_line(bundle, name, self.seed));
        let verdicts = || results.iter().map(|r| (r.name.as_str(), &r.verdict));
        let compared = self.baseline.as_ref().map(|baseline| baseline.compare(verdicts()));
        let flaky = flaky(results.iter().map(|r| (r.name.as_str(), Some(&r.verdict))));
        match self.args.format {
            Format::Human => {
                if let Some(bundle) = bundle {
                    say(&format!("\nBundle: {}", bundle.display()));
                    // The lines on stdout are fixed.
                    digest(bundle).iter().for_each(|digest| notice(&format!("digest: {digest}")));
                }
                say(&format!("\n{passed} passed, {} failed", failed.len()));
                let unreached = results.iter().filter(|r| r.verdict.unreached).count();
                if unreached > 0 {
                    say(&format!("{unreached} unreached (no fault of theirs fired)"));
                }
                flaky.iter().for_each(|flaky| say(&format!("flaky: {}", flaky.line())));
                time.iter().flat_map(|time| skipping::lines(time)).for_each(|line| say(&line));
                compared.iter().flat_map(Compared::lines).for_each(|line| say(&line));
                // Nothing is to be seen again in a cell that was cut short.
                let whole =
                    |result: &&&CellResult| !interrupted || result.verdict.ending != Ending::Inconclusive;
                for (place, result) in failed.iter().filter(whole).enumerate() {
                    if let Some(line) = replay(&result.name) {
                        say(&format!("{}Replay: {line}", if place == 0 { "\n" } else { "" }));
                    }
                }
            }
            Format::Json => {
                let cells: Vec<_> = results.iter().map(|r| cell_json(r, replay(&r.name))).collect();
                let mut document = serde_json::json!({
                    "seed": self.seed,
                    "bundle": bundle.map(|b| b.display().to_string()),
                    "digest": bundle.and_then(digest),
                    "passed": passed,
                    "failed": failed.len(),
                    "interrupted": interrupted,
                    "flaky": flaky.iter().map(Flaky::json).collect::<Vec<_>>(),
                    "cells": cells,
                });
                if let (Some(time), Some(map)) = (time, document.as_object_mut()) {
                    map.insert("virtual_time".to_owned(), skipping::json(time));
                }
                if let (Some(compared), Some(map)) = (&compared, document.as_object_mut()) {
                    map.insert("baseline".to_owned(), compared.json());
                }
                say_json(&document);
            }
        }
        self.tell_of_idle_lines(results);
        let told = self.tell(results, bundle, compared.as_ref());
        if interrupted {
            let left = match self.cells.len() - results.len() {
                0 => String::new(),
                1 => ", one cell was not run".to_owned(),
                more => format!(", {more} cells were not run"),
            };
            notice(&format!("faultbox: interrupted{left}; everything that was started has ended"));
        }
        let code = match &self.args.write_baseline {
            Some(path) => self.write_baseline(path, results, interrupted),
            None => exit_for(results, interrupted, compared.as_ref()),
        };
        told.err().unwrap_or(code)
    }

    /// Says which lines of the side file found nothing in a run of every cell.
    fn tell_of_idle_lines(&self, results: &[CellResult]) {
        if self.plan.learned.is_empty() || results.len() != self.plan.cells.len() {
            return;
        }
        let cells = results.iter().map(|result| {
            // Lines are written of what is redacted.
            let mut entries = result.entries.clone();
            entries.iter_mut().for_each(|entry| self.redactor.entry(entry));
            (entries, self.unix_ns)
        });
        let file = volatile::file_of(&self.plan.spec);
        for line in learn::idle_lines(&self.plan.learned, cells) {
            notice(&format!("notice: {}", learn::idle_line(&file, &line)));
        }
    }

    /// Tells other tools: a JUnit file where one is wanted, and the job that this is a step of.
    fn tell(
        &self,
        results: &[CellResult],
        bundle: Option<&Path>,
        compared: Option<&Compared>,
    ) -> Result<(), u8> {
        let github = GitHub::here();
        if self.args.junit.is_none() && github.is_none() {
            return Ok(());
        }
        let suite = self.suite(results, bundle, compared);
        if let Some(github) = github {
            let lines = github::annotations(&suite, |path| github.path(path));
            // A document on stdout stays one; GitHub reads both.
            let print: fn(&str) = if self.args.format == Format::Human { say } else { notice };
            lines.iter().for_each(|line| print(line));
            if let Err(error) = github.summarise(&summary::text(&suite)) {
                notice(&format!("notice: the job summary cannot be written: {error}"));
            }
        }
        let Some(path) = &self.args.junit else { return Ok(()) };
        std::fs::write(path, junit::document(&suite)).map_err(|error| {
            notice(&format!("faultbox: cannot write {}: {error}", path.display()));
            exit_code::USAGE
        })
    }

    /// The results as other tools are told them.
    fn suite(&self, results: &[CellResult], bundle: Option<&Path>, compared: Option<&Compared>) -> Suite {
        let told = |result: &CellResult| {
            let cell = self.plan.cells.iter().find(|cell| cell.name == result.name);
            let scenario = cell.map_or(result.name.as_str(), |cell| cell.scenario.as_str());
            let fault = cell.and_then(|cell| cell.assumption.as_ref()).map(|fault| fault.name.as_str());
            Told::new(&result.name, scenario, fault, Some(&result.verdict), &result.entries)
        };
        let spec = self.args.stack.spec.display().to_string();
        let mut suite = Suite {
            folder: export::folder(&spec, &self.plan.spec),
            spec,
            seed: self.seed,
            unix_ns: self.unix_ns,
            bundle: bundle.map(|bundle| bundle.display().to_string()),
            cells: results.iter().map(told).collect(),
        };
        if let Some(compared) = compared {
            suite.mark(compared);
        }
        suite
    }

    /// Writes the reds of a whole run; the exit code of the run.
    fn write_baseline(&self, path: &Path, results: &[CellResult], interrupted: bool) -> u8 {
        let all = results.len() == self.cells.len();
        if interrupted || !all {
            notice(&format!("faultbox: {} is not written: not every cell was run", path.display()));
            return exit_for(results, interrupted, None);
        }
        let verdicts = || results.iter().map(|r| (r.name.as_str(), &r.verdict));
        let text = baseline::text(&self.plan.spec, verdicts());
        if let Err(error) = std::fs::write(path, &text) {
            notice(&format!("faultbox: cannot write {}: {error}", path.display()));
            return exit_code::USAGE;
        }
        let compared = Baseline::read(&text).map(|written| written.compare(verdicts()));
        exit_for(results, interrupted, compared.ok().as_ref())
    }
}

/// The exit code of a run, as far as it is not as a baseline has it.
fn exit_for(results: &[CellResult], interrupted: bool, compared: Option<&Compared>) -> u8 {
    let known = |name: &String| compared.is_some_and(|compared| compared.known.contains(name));
    let counts: Vec<&CellResult> = results.iter().filter(|r| !known(&r.name)).collect();
    let any = |endings: &[Ending]| counts.iter().any(|r| endings.contains(&r.verdict.ending));
    if results.iter().any(|r| r.setup_failed) && !interrupted {
        exit_code::HOST
    } else if any(&[Ending::Failed, Ending::Violated])
        || counts.iter().any(|r| is_their_error(r))
        || compared.is_some_and(Compared::fails)
    {
        exit_code::FAILED
    } else if any(&[Ending::Error]) {
        // All of them ours or the host's.
        exit_code::HOST
    } else if any(&[Ending::Inconclusive]) || interrupted {
        exit_code::INCONCLUSIVE
    } else {
        exit_code::OK
    }
}

/// An error that is not Faultbox's or the host's.
fn is_their_error(result: &CellResult) -> bool {
    result.verdict.ending == Ending::Error && result.verdict.blame != Blame::Faultbox
}

/// The digests of the executables that ran as this service, in order.
fn digests_that_ran(results: &[CellResult], service: &str) -> Vec<[u8; 32]> {
    let entries = results.iter().flat_map(|result| &result.entries);
    entries
        .filter_map(|entry| match &entry.body {
            Body::ServiceStarted(started) if started.service == service => started.digest,
            _ => None,
        })
        .collect()
}

/// The digest of a bundle that was just finished.
fn digest(bundle: &Path) -> Option<String> {
    Bundle::open(bundle).ok().and_then(|bundle| bundle.digest()).map(|digest| hex(&digest))
}

/// A digest in hexadecimal.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A verdict for `--format json`.
pub fn verdict_json(name: &str, verdict: &Verdict) -> serde_json::Value {
    let faults = verdict.fired.iter().map(|count| {
        serde_json::json!({
            "assumption": count.assumption,
            "rule": count.rule,
            "target": count.target,
            "matched": count.matched,
            "fired": count.fired,
        })
    });
    serde_json::json!({
        "name": name,
        "verdict": format!("{:?}", verdict.ending).to_lowercase(),
        "reason": verdict.reason,
        "whose": if verdict.ending == Ending::Passed { "" } else { terminal::whose(verdict.blame) },
        "digest": hex(&verdict.digest),
        "duration_ms": verdict.scenario_ns / 1_000_000,
        "cell_ms": verdict.cell_ns / 1_000_000,
        "unreached": verdict.unreached,
        "faults": faults.collect::<Vec<_>>(),
    })
}

fn cell_json(result: &CellResult, replay: Option<String>) -> serde_json::Value {
    let mut cell = verdict_json(&result.name, &result.verdict);
    Findings::of(&result.entries).put_into(&mut cell);
    if let (Some(line), Some(map)) = (replay, cell.as_object_mut())
        && result.verdict.ending != Ending::Passed
    {
        map.insert("replay".to_owned(), line.into());
    }
    cell
}

//! `faultbox replay`: drive recorded cells again from a bundle, compare, say exact or where.

use super::hold::AtStep;
use super::images;
use super::replay_report::{Replay, print, report};
use super::run::{self, Host};
use super::test::select;
use crate::cli::{Depth, Format, ReplayArgs};
use crate::terminal::notice;
use crate::{exit_code, host};
use faultbox_bundle_format::canonical::Policy;
use faultbox_bundle_format::redact::{self, Redactor};
use faultbox_bundle_format::{Body, Bundle, Entry, Named, RunStarted, StoredFile};
use faultbox_engine::addresses::AddressBook;
use faultbox_engine::clock::RunClock;
use faultbox_engine::event_sink::NullSink;
use faultbox_engine::os;
use faultbox_engine::plan::{Plan, last_run};
use faultbox_engine::prng::Key;
use faultbox_engine::runner::live::Live;
use faultbox_engine::runner::{self, RunContext};
use faultbox_engine::spec::{self, LoadOptions, MemoryFiles};
use faultbox_engine::topology::{Service, ServiceKind};
use faultbox_engine::virtual_time::{Skipped, Time};
use faultbox_replayer::diagnosis::{self, Cause, Circumstances};
use faultbox_replayer::oracle::RecordedOracle;
use faultbox_replayer::session::{self, Outcome, Recording};
use faultbox_replayer::waits::Waiting;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Runs the command.
pub fn run(args: ReplayArgs) -> u8 {
    match try_run(&args) {
        Ok(code) | Err(code) => code,
    }
}

fn try_run(args: &ReplayArgs) -> Result<u8, u8> {
    if args.depth == Depth::Judge && !(args.with.is_empty() && args.env.is_empty()) {
        notice("faultbox: --depth judge runs no service, so --with and --env change nothing");
        return Err(exit_code::USAGE);
    }
    if args.depth != Depth::Redrive && args.no_wait {
        notice("faultbox: --no-wait is for a redrive: --depth judge waits for nothing, rerun for everything");
        return Err(exit_code::USAGE);
    }
    if let (true, Some(why)) = (args.virtual_time, no_virtual_time(args)) {
        notice(&format!("faultbox: --virtual-time {why}"));
        return Err(exit_code::USAGE);
    }
    let source = Source::open(&args.bundle)?;
    if args.seed.is_some_and(|seed| seed != source.started.seed) {
        notice(&format!("faultbox: the bundle was recorded with --seed {}", source.started.seed));
        return Err(exit_code::USAGE);
    }
    let mut host = if args.depth == Depth::Judge { None } else { Some(Host::probe()?) };
    let addresses = Arc::new(host.as_ref().map_or_else(AddressBook::isolated, Host::addresses));
    let dir = host::RunDir::create().map_err(|error| {
        notice(&format!("faultbox: the temporary folder cannot be used: {error}"));
        exit_code::HOST
    })?;
    let mut plan = source.plan(args, &addresses, dir.path())?;
    if let Some(runs) = last_run(source.bundle.cells().iter().map(|cell| cell.name.as_str())) {
        plan = plan.repeated(runs);
    }
    let plan = Arc::new(plan);
    let cells = source.cells(&plan, &args.tests)?;
    let hold = args.hold.map(|step| Arc::new(AtStep::new(step)));
    if hold.is_some() && (cells.len() > 1 || host.is_none()) {
        notice("faultbox: --hold is for one cell (--test) that is driven, not only judged");
        return Err(exit_code::USAGE);
    }
    if let (Some(host), Some(hold)) = (&mut host, &hold) {
        host.hold = Some(hold.clone());
    }
    let runtime = run::runtime()?;
    let embedded = source.started.command.iter().any(|word| word == "--embedded");
    if let Some(host) = &mut host {
        // What ran in containers runs in containers again; in a redrive that is the service under
        // test at most.
        let services = images::contained(&plan, embedded || args.depth == Depth::Redrive);
        runtime.block_on(source.images(args, host, &services))?;
    }
    if let Some(host) = &host {
        let rerun = args.depth == Depth::Rerun;
        host.check_kernel(&plan, embedded, |service| match service.kind {
            ServiceKind::Binary { .. } => true,
            ServiceKind::Image(_) => rerun,
            _ => false,
        })?;
    }
    let policy = if args.strict { Policy::Strict } else { Policy::Default };
    let driving = host.as_ref().map(|host| Driving {
        host,
        plan: &plan,
        dir: &dir,
        addresses: &addresses,
        embedded,
        policy,
        waiting: if args.no_wait { Waiting::WhereItDecides } else { Waiting::AsRecorded },
        skipping: args.virtual_time,
    });
    let given = given(args);
    // What stands in the bundle is what was recorded.
    let spec = args.spec.as_ref().map(|_| source.changed_files(&plan)).unwrap_or_default();
    let mut replays = Vec::new();
    for index in cells {
        let Some(recording) = source.recording(&plan, index)? else { continue };
        let mut decided = false;
        let mut outcome = match (&driving, args.depth) {
            (Some(driving), Depth::Redrive) => {
                let outcome;
                (outcome, decided) = runtime.block_on(driving.redrive(index, &recording));
                outcome
            }
            (Some(driving), Depth::Rerun) => runtime.block_on(driving.rerun(index, &recording)),
            _ => session::judge(&plan, index, &recording, Key::of_run(recording.seed)),
        };
        let mut known = Circumstances { spec: spec.clone(), given: given.clone(), again: None };
        let mut cause = diagnosis::cause(&outcome.divergences, &known);
        let unclear =
            hold.is_none() && cause.is_none() && !outcome.divergences.is_empty() && !outcome.setup_failed;
        let mut in_real_time = Vec::new();
        if let (Some(driving), Depth::Redrive, true) = (&driving, args.depth, unclear) {
            if let Some(calm) = runtime.block_on(driving.in_virtual_time(index, &recording)) {
                in_real_time = std::mem::replace(&mut outcome, calm).divergences;
            } else {
                // Only driving it again tells a race from what happens each time.
                known.again =
                    Some(runtime.block_on(driving.drive_as_recorded(index, &recording)).divergences);
                cause = diagnosis::cause(&outcome.divergences, &known);
            }
        }
        if let (Some(driving), Some(Cause::MadeUp { looks, calls, .. })) = (&driving, &mut cause)
            && args.depth == Depth::Redrive
            && hold.is_none()
        {
            // Watching changes nothing but how long a call takes.
            let plan = Arc::new(plan.watched());
            let watching = Driving { plan: &plan, ..*driving };
            let watched = runtime.block_on(watching.drive_as_recorded(index, &recording));
            *calls = diagnosis::calls(*looks, &watched.entries);
        }
        let name = plan.cells[index].name.clone();
        let replay = Replay { name, recording, outcome, cause, decided, in_real_time };
        if args.format == Format::Human {
            print(args, &replay);
        }
        replays.push(replay);
    }
    runtime.shutdown_background();
    hold.iter().for_each(|hold| hold.end());
    Ok(report(args, &replays, policy))
}

/// What stands in for the recorded service, as it was given.
fn given(args: &ReplayArgs) -> Vec<String> {
    let flags = |flag: &str, values: &[String]| {
        values.iter().map(|value| format!("{flag} {value}")).collect::<Vec<_>>()
    };
    [flags("--with", &args.with), flags("--env", &args.env)].concat()
}

/// Why time cannot be skipped in such a replay.
fn no_virtual_time(args: &ReplayArgs) -> Option<&'static str> {
    match () {
        () if args.depth != Depth::Redrive => {
            Some("is for a redrive: --depth judge waits for nothing, rerun for everything")
        }
        () if args.hold.is_some() => Some("cannot skip the time that --hold waits for somebody"),
        () if args.no_wait => Some("leaves nothing to --no-wait: give one of them"),
        () => None,
    }
}

/// What every cell of a replay is driven with.
struct Driving<'a> {
    host: &'a Host,
    plan: &'a Arc<Plan>,
    dir: &'a host::RunDir,
    addresses: &'a Arc<AddressBook>,
    embedded: bool,
    policy: Policy,
    waiting: Waiting,
    /// Whether time is skipped.
    skipping: bool,
}

impl Driving<'_> {
    fn context(
        &self,
        recording: &Recording,
        journal: &[Entry],
        time: Time,
    ) -> (Arc<RunContext>, Arc<RecordedOracle>) {
        let oracle = Arc::new(RecordedOracle::new(recording.seed, journal));
        let (redactor, sink) = (recording.redactor.clone(), Arc::new(NullSink));
        let addresses = self.addresses.clone();
        let context = self.host.context(
            recording.seed,
            redactor,
            sink,
            oracle.clone(),
            self.dir,
            self.embedded,
            addresses,
        );
        (Arc::new(RunContext { clock: RunClock::start_in(time), ..context }), oracle)
    }

    /// Drives a cell; one that is not exact without its waits, again with them. Whether that was so.
    async fn redrive(&self, index: usize, recording: &Recording) -> (Outcome, bool) {
        let outcome = self.drive(index, recording, self.waiting, self.time()).await;
        let clear = outcome.exact() || outcome.setup_failed || self.host.hold.is_some();
        let jumped = outcome.time.as_ref().is_some_and(|time| time.jumps > 0);
        if clear || outcome.waits.skipped == 0 && !jumped {
            return (outcome, false);
        }
        let time = outcome.time.clone();
        let again = self.drive_as_recorded(index, recording).await;
        (Outcome { time: time.map(|time| Skipped { real: time.real, ..Skipped::default() }), ..again }, true)
    }

    /// Drives a cell and waits for everything.
    async fn drive_as_recorded(&self, index: usize, recording: &Recording) -> Outcome {
        self.drive(index, recording, Waiting::AsRecorded, Time::default()).await
    }

    /// Drives a cell with its waits in a time that moves only while everybody waits: a timeout of the service's does not
    /// come before an answer that is on its way because this machine is slow. `None` where it is not exact so, or where
    /// time cannot be skipped.
    async fn in_virtual_time(&self, index: usize, recording: &Recording) -> Option<Outcome> {
        let time = self.skipped();
        if self.skipping || time.virtual_time().is_none_or(|time| !time.real().is_empty()) {
            return None;
        }
        let outcome = self.drive(index, recording, Waiting::AsRecorded, time).await;
        let held = outcome.time.as_ref().is_some_and(|time| time.real.is_empty());
        (held && outcome.exact() && !outcome.setup_failed).then_some(outcome)
    }

    /// What a cell waits by: where time is skipped, each has one of its own.
    fn time(&self) -> Time {
        if self.skipping { self.skipped() } else { Time::default() }
    }

    fn skipped(&self) -> Time {
        Time::skipping(self.host.virtual_time(self.plan.topology.suts()))
    }

    async fn drive(&self, index: usize, recording: &Recording, waiting: Waiting, time: Time) -> Outcome {
        let (run, oracle) = self.context(recording, &recording.entries, time);
        let mut outcome = session::redrive(&run, self.plan, index, recording, self.policy, waiting).await;
        outcome.divergences.extend(oracle.divergences());
        outcome
    }

    async fn rerun(&self, index: usize, recording: &Recording) -> Outcome {
        let (context, _) = self.context(recording, &[], Time::default());
        let live = Live::new(context.clone());
        let result = runner::run_cell(&context, self.plan, index, live.clone()).await;
        live.stop().await;
        session::outcome(recording, result, context.clock.unix_ns(), self.policy)
    }
}

/// A bundle as a replay needs it.
struct Source {
    path: PathBuf,
    bundle: Bundle,
    started: RunStarted,
    files: Vec<StoredFile>,
    /// What the containers of services were: id, digest and name of their images.
    containers: BTreeMap<String, String>,
}

impl Source {
    fn open(path: &Path) -> Result<Self, u8> {
        let unreadable = |why: String| {
            notice(&format!("faultbox: {}: {why}", path.display()));
            exit_code::BUNDLE
        };
        let bundle = Bundle::open(path).map_err(|error| unreadable(error.to_string()))?;
        let entries = bundle.run_entries().map_err(|error| unreadable(error.to_string()))?;
        let mut started = None;
        let mut files = Vec::new();
        let mut containers = BTreeMap::new();
        for entry in entries {
            match entry.body {
                Body::RunStarted(run) => started = Some(run),
                Body::File(file) => files.push(file),
                Body::HostFact(Named { name, value }) => {
                    let service = name.strip_prefix(images::CONTAINER);
                    containers.extend(service.map(|service| (service.to_owned(), value)));
                }
                _ => {}
            }
        }
        let started = started.ok_or_else(|| unreadable("it does not say how its run began".to_owned()))?;
        Ok(Source { path: path.to_owned(), bundle, started, files, containers })
    }

    fn unreadable(&self, why: &str) -> u8 {
        notice(&format!("faultbox: {}: {why}", self.path.display()));
        exit_code::BUNDLE
    }

    /// The plan of the recorded spec, with the service's executable in place.
    fn plan(&self, args: &ReplayArgs, addresses: &AddressBook, dir: &Path) -> Result<Plan, u8> {
        let usage = |why: String| {
            notice(&format!("faultbox: {why}"));
            exit_code::USAGE
        };
        let mut files = MemoryFiles::default();
        for file in self.files.iter().filter(|file| file.role != "binary") {
            let content = file.content.as_ref().and_then(|payload| payload.bytes());
            let content = content
                .ok_or_else(|| self.unreadable(&format!("the content of {} is missing", file.path)))?;
            files.insert(&file.path, content.to_vec());
        }
        // The recorded run's own overrides come first; what is given now wins.
        let mut env = recorded_flags(&self.started.command, "--env");
        env.extend(args.env.iter().cloned());
        let env = run::env_overrides(&env).map_err(usage)?;
        let load = |binaries| {
            let (env, seed) = (env.clone(), self.started.seed);
            let common = LoadOptions { env, binaries, seed, ..LoadOptions::new(addresses) };
            let loaded = match &args.spec {
                Some(path) => spec::load(path, &common),
                // The spec's path in the bundle is relative to the tree in the bundle.
                None => spec::load(
                    Path::new(&self.started.spec),
                    &LoadOptions { root: Some(Path::new("")), files: Some(&files), ..common },
                ),
            };
            let mut plan = loaded.map_err(|errors| {
                notice(errors.to_string().trim_end());
                exit_code::USAGE
            })?;
            // The recorded spec has tokens in the place of its secrets.
            for (_, value) in plan.topology.services.iter_mut().flat_map(|service| &mut service.env) {
                *value = redact::escaped_in_url(value).into_owned();
            }
            Ok(plan)
        };
        let given = run::overrides("with", &args.with).map_err(usage)?;
        if args.depth == Depth::Judge {
            return load(Vec::new());
        }
        let mut binaries = Vec::new();
        let mut known = Vec::new();
        let declared = load(Vec::new())?;
        for service in &declared.topology.services {
            let with = given.iter().find(|(name, _)| *name == service.name).map(|(_, value)| value);
            let path = match (&service.kind, with) {
                (ServiceKind::Binary { .. }, Some(path)) => executable_given(&service.name, path)?,
                (ServiceKind::Binary { written, .. }, None) => {
                    self.executable(&service.name, written, dir)?
                }
                _ => {
                    // An image takes its place later.
                    let under_test = service.is_contained() && declared.topology.is_sut(&service.name);
                    known.extend(under_test.then_some(service.name.clone()));
                    continue;
                }
            };
            known.push(service.name.clone());
            binaries.push((service.name.clone(), path));
        }
        if let Some((name, _)) = given.iter().find(|(name, _)| !known.contains(name)) {
            notice(&format!(
                "faultbox: --with: no service with an executable is called {name}; there is {}",
                known.join(", ")
            ));
            return Err(exit_code::USAGE);
        }
        load(binaries)
    }

    /// Files in which a plan's spec is not the recorded one.
    fn changed_files(&self, plan: &Plan) -> Vec<String> {
        let recorded = self.files.iter().filter(|file| file.role != "binary");
        let mut before: BTreeMap<&str, [u8; 32]> =
            recorded.map(|file| (file.path.as_str(), file.digest)).collect();
        let redactor = self.redactor(plan);
        let kept = |content: &[u8], role: &str| match role {
            // Their digest is that of what the bundle keeps of them.
            "spec" | "loaded" => *blake3::hash(&redactor.known_only(content)).as_bytes(),
            _ => *blake3::hash(content).as_bytes(),
        };
        let differs = |path: &str, digest: [u8; 32], before: Option<[u8; 32]>| match before {
            Some(before) if before == digest => None,
            Some(_) => Some(format!("{path} differs")),
            None => Some(format!("{path} is new")),
        };
        let now = plan.files.iter();
        let mut changed: Vec<String> = now
            .filter_map(|file| {
                differs(&file.path, kept(&file.content, file.role), before.remove(file.path.as_str()))
            })
            .collect();
        changed.extend(before.keys().map(|path| format!("{path} is gone")));
        changed
    }

    /// The container engine and the images of these services: those of the recording, or what is
    /// given by `--with`.
    async fn images(&self, args: &ReplayArgs, host: &mut Host, services: &[&Service]) -> Result<(), u8> {
        if services.is_empty() {
            return Ok(());
        }
        images::connect(host, services).await?;
        let Some(engine) = host.engine.clone() else { return Err(exit_code::HOST) };
        let given = run::overrides("with", &args.with).unwrap_or_default();
        for service in services {
            let lacks = |why: String| {
                notice(&format!("faultbox: {}: {why}", service.name));
                exit_code::HOST
            };
            let with = given.iter().find(|(name, _)| *name == service.name);
            if let Some((_, image)) = with {
                let facts = engine.image(image, &|_| {}).await.map_err(|error| lacks(error.to_string()))?;
                host.images.insert(service.name.clone(), facts);
                continue;
            }
            let recorded = self.containers.get(&service.name);
            let mut parts = recorded.map(|text| text.splitn(3, ' ')).into_iter().flatten();
            let (id, digest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let name = parts.next().unwrap_or_default();
            let local = engine.local_image(id).await.map_err(|error| lacks(error.to_string()))?;
            let mut facts = match local {
                Some(facts) => facts,
                None if digest.contains('@') => {
                    engine.image(digest, &|_| {}).await.map_err(|error| lacks(error.to_string()))?
                }
                None if matches!(service.kind, ServiceKind::Image(_)) && args.depth == Depth::Rerun => {
                    continue;
                }
                None => {
                    return Err(lacks(format!(
                        "the recorded image ({name}, {id}) is not on this machine; `docker load` brings it from a \
                         file, --with {}=IMAGE drives another one",
                        service.name
                    )));
                }
            };
            facts.name = name.to_owned();
            host.images.insert(service.name.clone(), facts);
        }
        images::ready(host, services).await
    }

    /// The recorded executable: out of the bundle, else the file that still has its digest.
    fn executable(&self, service: &str, written: &str, dir: &Path) -> Result<PathBuf, u8> {
        let stored = self.files.iter().find(|file| file.role == "binary" && file.service == service);
        let Some(stored) = stored else {
            let why = match self.bundle.is_complete() {
                true => "it does not say",
                false => "it was cut short before it said",
            };
            return Err(
                self.unreadable(&format!("{why} which executable {service} was; give --with {service}=PATH"))
            );
        };
        if let Some(content) = stored.content.as_ref().and_then(|payload| payload.bytes()) {
            let path = dir.join(format!("{service}.recorded"));
            let written = std::fs::write(&path, content).and_then(|()| os::set_mode(&path, 0o755));
            return written.map(|()| path).map_err(|error| {
                notice(&format!("faultbox: the recorded executable cannot be laid out: {error}"));
                exit_code::HOST
            });
        }
        let recorded_spec = self.started.command.iter().find(|word| word.ends_with(".star"));
        let folder = recorded_spec.and_then(|spec| Path::new(spec).parent()).unwrap_or(Path::new("."));
        let overrides = recorded_flags(&self.started.command, "--binary");
        let overridden =
            overrides.iter().filter_map(|flag| flag.split_once('=')).filter(|(name, _)| *name == service);
        let mut candidates: Vec<PathBuf> = overridden.map(|(_, path)| PathBuf::from(path)).collect();
        candidates.push(folder.join(written));
        let same = |path: &PathBuf| {
            std::fs::read(path).is_ok_and(|bytes| *blake3::hash(&bytes).as_bytes() == stored.digest)
        };
        candidates.into_iter().find(same).and_then(|path| std::path::absolute(path).ok()).ok_or_else(|| {
            notice(&format!(
                "faultbox: the bundle keeps only the digest of {service}'s executable, and no file here has it; give \
                 --with {service}=PATH, or record with --embed"
            ));
            exit_code::HOST
        })
    }

    /// The cells that the patterns choose among the recorded ones.
    fn cells(&self, plan: &Plan, patterns: &[String]) -> Result<Vec<usize>, u8> {
        let chosen = select(plan, patterns, &format!("faultbox inspect {}", self.path.display()))?;
        let recorded: Vec<&str> = self.bundle.cells().iter().map(|cell| cell.name.as_str()).collect();
        let cells: Vec<usize> =
            chosen.into_iter().filter(|index| recorded.contains(&plan.cells[*index].name.as_str())).collect();
        if cells.is_empty() {
            notice(&format!("faultbox: no such cell was recorded in {}", self.path.display()));
            return Err(exit_code::USAGE);
        }
        Ok(cells)
    }

    /// What made the recording's tokens.
    fn redactor(&self, plan: &Plan) -> Redactor {
        Redactor::new(&self.bundle.header().salt, run::secrets(plan))
    }

    fn recording(&self, plan: &Plan, index: usize) -> Result<Option<Recording>, u8> {
        let name = &plan.cells[index].name;
        let Some(summary) = self.bundle.cells().iter().find(|cell| &cell.name == name) else {
            return Ok(None);
        };
        let entries =
            self.bundle.entries(summary.cell).map_err(|error| self.unreadable(&error.to_string()))?;
        let recording = Recording::new(entries, self.started.unix_ns, self.started.seed, self.redactor(plan));
        if recording.is_none() {
            notice(&format!("faultbox: the recording of {name} is incomplete; it cannot be replayed"));
            return Err(exit_code::BUNDLE);
        }
        Ok(recording)
    }
}

/// The executable that `--with` gives for a service.
fn executable_given(service: &str, path: &str) -> Result<PathBuf, u8> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    if os::is_executable(&absolute) {
        return Ok(absolute);
    }
    notice(&format!(
        "faultbox: {service}: {}, given by --with, is not an executable file",
        absolute.display()
    ));
    Err(exit_code::HOST)
}

/// Values of a repeatable flag on the recorded command line.
fn recorded_flags(command: &[String], flag: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut words = command.iter();
    while let Some(word) = words.next() {
        if word == flag {
            values.extend(words.next().cloned());
        } else if let Some(value) = word.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
            values.push(value.to_owned());
        }
    }
    values
}

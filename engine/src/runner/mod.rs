//! The runner: one cell from start to verdict, in the phases of design.md section 4.
//!
//! In reading order: [`run_cell`] is the story; [`switchboard`] carries its connections;
//! [`driver`] performs its steps; [`policy`] answers the syscall supervisor; [`health`]
//! waits for services; [`live`] is everything that is not a local executable; [`up`] is a stack without a cell.
//!
//! Contract: the same code runs a cell live and in a replay; only the [`Environment`] and
//! the [`Oracle`] differ. Whatever a cell started has ended when `run_cell` returns.

mod contained;
pub mod driver;
pub mod health;
pub mod hold;
pub mod live;
pub mod policy;
mod refusal;
mod seed_words;
pub mod switchboard;
pub mod up;
pub mod whose;

use crate::clock::RunClock;
use crate::containers::Container;
use crate::determinism::{BEGINNING_NS, Entropy, Mediation, PATIENCE, VirtualClock};
use crate::environment::Environment;
use crate::event_sink::{EventSink, MemorySink, Tee};
use crate::fault::ActiveFaults;
use crate::journal::{Journal, Sequence};
use crate::link::OpenExchanges;
use crate::mock::MockCell;
use crate::oracle::Oracle;
use crate::os;
use crate::plan::{Judgement, Plan, RequireFire};
use crate::prng::Key;
use crate::protocol::Protocol;
use crate::supervisor::{self, Exit, Isolation, Launch, Running};
use crate::topology::{Determinism, Service, ServiceKind, Topology};
use crate::virtual_time::{Time, VirtualTime};
use faultbox_bundle_format::canonical::{self, Policy};
use faultbox_bundle_format::learned;
use faultbox_bundle_format::redact::{Redactor, WholeLines};
use faultbox_bundle_format::{
    Blame, Body, CellStarted, Ending, Entry, FaultCount, Named, Output, Phase, ServiceExited, ServiceStarted,
    Verdict, split_interface,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use switchboard::{Switchboard, lock};
use tokio_util::sync::CancellationToken;

/// The name under which the test driver asks.
pub const TEST: &str = "test";
/// How long a service may take to end after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long the end of a scenario waits for open exchanges.
const QUIESCE: Duration = Duration::from_secs(1);
/// How much of a service's output is kept at hand for messages.
const TAIL_BYTES: usize = 4096;
/// The time of a cell that somebody makes wait.
const TIME_WHILE_HELD: Duration = Duration::from_secs(24 * 60 * 60);

/// What all cells of a run share.
pub struct RunContext {
    /// The run's clock.
    pub clock: RunClock,
    /// The run's seed.
    pub seed: u64,
    /// Numbers of entries.
    pub sequence: Arc<Sequence>,
    /// Replaces secrets before anything is digested.
    pub redactor: Redactor,
    /// Where entries go.
    pub sink: Arc<dyn EventSink>,
    /// Who makes choices.
    pub oracle: Arc<dyn Oracle>,
    /// Whether services have networks of their own.
    pub isolation: Isolation,
    /// The `faultbox` executable (hidden subcommands `__launch` and `__standin`).
    pub launcher: PathBuf,
    /// A folder of this run's own.
    pub dir: PathBuf,
    /// Whether stand-ins take the place of images.
    pub embedded: bool,
    /// The container engine, where the run has one.
    pub engine: Option<Arc<crate::containers::Engine>>,
    /// How containers are kept after the run, where they may be.
    pub keeping: Option<crate::containers::Keeping>,
    /// The images of the services that run in containers, by service.
    pub images: BTreeMap<String, crate::containers::ImageFacts>,
    /// Held listeners, where services share the host's loopback.
    pub addresses: Arc<crate::addresses::AddressBook>,
    /// Digests of executables.
    pub digests: Arc<Digests>,
    /// Cancelled when the user interrupts the run.
    pub interrupted: CancellationToken,
    /// Who makes cells wait before their steps, if anybody does.
    pub hold: Option<Arc<dyn hold::Hold>>,
}

/// What everything in one cell shares.
pub struct CellContext {
    /// Index in the plan.
    pub index: usize,
    /// The plan.
    pub plan: Arc<Plan>,
    /// The run.
    pub run: Arc<RunContext>,
    /// The run's key (mocks' keys are below it).
    pub run_key: Key,
    /// The cell's journal.
    pub journal: Arc<Journal>,
    /// The journal of the run, for what outlives the cell.
    pub run_journal: Arc<Journal>,
    /// The rules.
    pub faults: Arc<ActiveFaults>,
    /// Exchanges that are open.
    pub open: Arc<OpenExchanges>,
    /// The connections.
    pub switchboard: Switchboard,
    /// The mocks by name.
    pub mocks: BTreeMap<String, MockCell>,
    /// The wall clock of those services that have not the host's.
    pub wall: Arc<VirtualClock>,
    /// What services asked the host, and how often, where that is watched: service, what.
    pub asked: Mutex<BTreeMap<(String, String), u64>>,
    memory: Arc<MemorySink>,
}

/// Why a cell could not begin. Every message says whose failure it is.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The service did not start.
    #[error("{service} did not start: {why}")]
    Start {
        /// The service.
        service: String,
        /// Why.
        why: String,
    },
    /// The host did not let the service start.
    #[error("{service} did not start: {why}")]
    Host {
        /// The service.
        service: String,
        /// Why.
        why: String,
    },
    /// The user ended the run.
    #[error("interrupted")]
    Interrupted,
    /// The service did not become ready.
    #[error("{service} was not ready within {limit:?}: {why}")]
    NotReady {
        /// The service.
        service: String,
        /// Its limit.
        limit: Duration,
        /// The last attempt's reason.
        why: String,
    },
    /// The seed failed.
    #[error("seed of {service} failed: {why}")]
    Seed {
        /// The service.
        service: String,
        /// Why.
        why: String,
    },
    /// The reset failed.
    #[error("reset of {service} failed: {why}")]
    Reset {
        /// The service.
        service: String,
        /// Why.
        why: String,
    },
    /// There is nothing here that could run the image.
    #[error(
        "{service}: {image} needs a container engine; `--embedded` runs stand-ins for mysql, redis and kafka images"
    )]
    NoEngine {
        /// The service.
        service: String,
        /// The image.
        image: String,
    },
    /// What the services run on is gone.
    #[error("{0}")]
    Lost(String),
    /// Another error, with what the service printed last.
    #[error("{error}\n  its last output:\n{log}")]
    WithLog {
        /// The error.
        error: Box<SetupError>,
        /// Indented lines.
        log: String,
    },
}

impl SetupError {
    /// Why a launch failed: the executable's own fault, or the host's.
    pub fn of_launch(service: &str, error: &supervisor::LaunchError) -> Self {
        let service = service.to_owned();
        match error {
            supervisor::LaunchError::Step { step, source, .. } if step.starts_with("execute") => {
                SetupError::Start { service, why: format!("{step}: {source}") }
            }
            supervisor::LaunchError::Step { step, source, .. } => {
                SetupError::Host { service, why: format!("{step}: {source}") }
            }
            supervisor::LaunchError::Launcher { message, .. } => {
                SetupError::Host { service, why: format!("the launcher failed: {message}") }
            }
            supervisor::LaunchError::UnknownFamily(_) => SetupError::Host { service, why: error.to_string() },
        }
    }

    /// Whose failure it is.
    fn blame(&self, topology: &Topology) -> Blame {
        match self {
            SetupError::Seed { .. } | SetupError::Reset { .. } => Blame::Spec,
            SetupError::Start { service, .. } | SetupError::NotReady { service, .. } => {
                blame_of(service, topology)
            }
            SetupError::WithLog { error, .. } => error.blame(topology),
            SetupError::NoEngine { .. } | SetupError::Host { .. } | SetupError::Lost(_) => Blame::Faultbox,
            SetupError::Interrupted => Blame::None,
        }
    }

    /// The error with the service's last lines, where there are any.
    pub fn with_log(self, tail: &[u8]) -> Self {
        let text = String::from_utf8_lossy(tail);
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            return self;
        }
        let last = lines[lines.len().saturating_sub(10)..].iter().map(|line| format!("    {line}"));
        SetupError::WithLog { error: Box::new(self), log: last.collect::<Vec<_>>().join("\n") }
    }
}

/// What came of a cell.
#[derive(Debug, Clone)]
pub struct CellResult {
    /// The cell's name.
    pub name: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// All of its entries.
    pub entries: Vec<Entry>,
    /// Whether the environment (and not the cell) failed.
    pub setup_failed: bool,
}

/// Follows a process's output into the journal and keeps its end at hand.
pub struct OutputLog {
    tail: Arc<Mutex<Vec<u8>>>,
    followed: tokio::task::JoinHandle<()>,
}

impl OutputLog {
    /// Follows until the process has closed both streams.
    pub fn follow(
        service: &str,
        output: Option<tokio::sync::mpsc::UnboundedReceiver<supervisor::Output>>,
        journal: Arc<Journal>,
    ) -> Self {
        let tail: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (service, kept) = (service.to_owned(), tail.clone());
        let followed = tokio::spawn(async move {
            let Some(mut output) = output else { return };
            let note = |stderr: bool, bytes: Vec<u8>| {
                if !bytes.is_empty() {
                    let output = Output { service: service.clone(), stderr, bytes };
                    journal.note(&service, &format!("{service}/output"), None, Body::Output(output));
                }
            };
            let (mut out, mut err) = (WholeLines::default(), WholeLines::default());
            while let Some(chunk) = output.recv().await {
                let mut kept = lock(&kept);
                kept.extend_from_slice(&chunk.bytes);
                let excess = kept.len().saturating_sub(TAIL_BYTES);
                kept.drain(..excess);
                drop(kept);
                let stderr = chunk.stream == supervisor::OutputStream::Stderr;
                let lines = if stderr { &mut err } else { &mut out };
                note(stderr, lines.push(&chunk.bytes));
            }
            note(false, out.end());
            note(true, err.end());
        });
        OutputLog { tail, followed }
    }

    /// The end of what was printed so far.
    pub fn tail(&self) -> Vec<u8> {
        lock(&self.tail).clone()
    }

    /// The end of what a process that has ended printed.
    pub async fn whole_tail(&mut self) -> Vec<u8> {
        self.followed_to_end().await;
        self.tail()
    }

    /// Waits until everything printed is in the journal.
    pub async fn drained(mut self) {
        self.followed_to_end().await;
    }

    async fn followed_to_end(&mut self) {
        // A descendant that keeps the pipe open must not keep the cell.
        if !self.followed.is_finished() {
            let _ = tokio::time::timeout(GRACE, &mut self.followed).await;
        }
    }
}

impl CellContext {
    /// A cell's context under an environment.
    pub fn new(
        run: &Arc<RunContext>,
        plan: &Arc<Plan>,
        index: usize,
        environment: Arc<dyn Environment>,
        memory: &Arc<MemorySink>,
    ) -> Arc<Self> {
        let cell = &plan.cells[index];
        let sink: Arc<dyn EventSink> = Arc::new(Tee(memory.clone(), run.sink.clone()));
        let number = index as u32 + 1;
        let journal =
            Arc::new(Journal::new(sink, run.clock.clone(), run.sequence.clone(), number, &cell.name));
        let run_journal =
            Arc::new(Journal::new(run.sink.clone(), run.clock.clone(), run.sequence.clone(), 0, ""));
        let suts = plan.topology.suts().map(|s| s.name.clone()).collect();
        let faults = ActiveFaults::of_fleet(journal.clone(), run.oracle.clone(), suts);
        let run_key = Key::of_run(run.seed);
        let mocks = plan.topology.services.iter().filter(|s| matches!(s.kind, ServiceKind::Mock(_)));
        let mocks =
            mocks.map(|s| (s.name.clone(), MockCell::new(&run_key, &s.name, plan.program.clone()))).collect();
        Arc::new(CellContext {
            index,
            plan: plan.clone(),
            run: run.clone(),
            run_key,
            mocks,
            wall: Arc::default(),
            asked: Mutex::default(),
            memory: memory.clone(),
            journal,
            run_journal,
            faults,
            open: Arc::default(),
            switchboard: Switchboard::new(environment),
        })
    }

    /// Whose clock and dice a service has in this cell.
    fn mediation(&self, service: &Service) -> Mediation {
        let Determinism { clock, entropy, pids, watched } = service.determinism;
        let key = || self.run_key.below(&self.plan.cells[self.index].name).below(&service.name);
        Mediation {
            clock: clock.then(|| self.wall.clone()),
            entropy: entropy.then(|| Entropy::of(key().below("entropy"))),
            watched,
            time: self.held_time(),
            pids,
        }
    }

    /// What skips the time that services wait, where their waits are held.
    fn held_time(&self) -> Option<Arc<VirtualTime>> {
        self.time().virtual_time().filter(|time| time.real().is_empty()).cloned()
    }

    /// Whether the wall clock of the cell is not the host's.
    fn is_virtual(&self) -> bool {
        self.plan.topology.services.iter().any(|service| service.determinism.clock)
    }

    /// What the cell waits by.
    pub fn time(&self) -> &Time {
        self.run.clock.time()
    }

    /// Nanoseconds since the Unix epoch, as the cell's services see it.
    fn unix_ns(&self) -> u64 {
        match self.is_virtual() {
            true => self.wall.now_ns(),
            false => self.journal.clock().unix_ns() + self.journal.clock().now_ns(),
        }
    }

    /// The protocol of `service.interface`.
    pub fn protocol(&self, interface: &str) -> Option<&'static dyn Protocol> {
        let (service, name) = split_interface(interface);
        let service = self.plan.topology.service(service)?;
        service.interfaces.iter().find(|i| i.name == name).map(|i| i.protocol)
    }

    /// Runs a service's seed on a thread that may block.
    ///
    /// # Errors
    /// The failure with its place in the spec.
    pub async fn call_seed(self: &Arc<Self>, service: &str) -> Result<(), String> {
        self.call(service, |cell, service, driver| cell.plan.program.seed(service, driver)).await
    }

    /// Runs a service's reset on a thread that may block.
    ///
    /// # Errors
    /// The failure with its place in the spec.
    pub async fn call_reset(self: &Arc<Self>, service: &str) -> Result<(), String> {
        self.call(service, |cell, service, driver| cell.plan.program.reset(service, driver)).await
    }

    /// Waits until nothing that the scenario began is open, for a while at most.
    async fn quiesce(&self) {
        let _ = self.time().timeout(QUIESCE, self.open.idle()).await;
    }

    /// Ends the faults once the scenario has quiesced; what begins later is tail.
    async fn end_faults(&self) {
        self.quiesce().await;
        self.faults.deactivate();
        self.journal.enter(Phase::Tail);
    }

    async fn call(self: &Arc<Self>, service: &str, what: Callable) -> Result<(), String> {
        let deadline = self.time().now() + Duration::from_secs(60);
        let driver = Arc::new(driver::CellDriver::new(self.clone(), deadline));
        let (cell, service) = (self.clone(), service.to_owned());
        let called = tokio::task::spawn_blocking(move || what(&cell, &service, driver));
        called.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// A callable of the spec about one service.
type Callable = fn(&CellContext, &str, Arc<dyn crate::plan::Driver>) -> Result<(), String>;

/// A local executable, or a service under test in a container, that the runner started.
struct Local {
    service: String,
    process: Process,
    output: OutputLog,
}

enum Process {
    Local(Running),
    Contained(Container),
}

impl Local {
    fn running(&self) -> &Running {
        match &self.process {
            Process::Local(running) => running,
            Process::Contained(container) => container.running(),
        }
    }

    /// How it ended, if it has. The end of a container is told a moment after its way in has closed.
    async fn ended(&self) -> Option<Exit> {
        let running = self.running();
        match running.exit() {
            None if running.is_gone() => Some(running.exited_within(GRACE).await),
            exit => exit,
        }
    }

    /// Ends it, and waits until nothing of it is left and all that it printed is noted.
    async fn stop(self, grace: Duration) -> Exit {
        let exit = match self.process {
            Process::Local(running) => running.stop(grace).await,
            // What the engine does not remove now, the end of the run or the next one does.
            Process::Contained(container) => container.stop(grace).await.unwrap_or(Exit::Unknown),
        };
        self.output.drained().await;
        exit
    }
}

/// Runs one cell. Everything that it started has ended when this returns.
pub async fn run_cell(
    run: &Arc<RunContext>,
    plan: &Arc<Plan>,
    index: usize,
    environment: Arc<dyn Environment>,
) -> CellResult {
    let memory = Arc::new(MemorySink::default());
    let cell = CellContext::new(run, plan, index, environment.clone(), &memory);
    let began_ns = run.clock.now_ns();
    note_start(&cell);
    let creeping = cell.is_virtual().then(|| tokio::spawn(creep(Arc::downgrade(&cell.wall))));
    // For as long as any service runs: their clocks have no other that moves them.
    let skipping = cell.time().virtual_time().map(|time| time.skip());
    let mut locals = Vec::new();
    let prepared = set_up(&cell, &environment, &mut locals).await;
    let mut setup_failed = prepared.is_err();
    let (judgement, scenario_ns) = match prepared {
        Ok(()) => {
            let ran = async {
                environment.steady(&cell).await;
                // What a service still does of its own accord at its start is no part of the scenario.
                cell.time().rest().await;
                scenario(&cell, &locals).await
            };
            tokio::select! {
                biased;
                why = environment.lost() => {
                    setup_failed = true;
                    cell.faults.deactivate();
                    (setup_failure(&cell, &SetupError::Lost(why)), 0)
                }
                (judgement, scenario_ns) = ran => match environment.trouble() {
                    Some(trouble) => (unsupervised(&trouble), scenario_ns),
                    None => (judgement, scenario_ns),
                }
            }
        }
        Err(error) => (setup_failure(&cell, &error), 0),
    };
    cell.journal.enter(Phase::Tail);
    let crashed = stop(&cell, locals, environment.grace()).await;
    environment.settle(&cell).await;
    drop(skipping);
    cell.switchboard.close();
    if let Some(creeping) = creeping {
        creeping.abort();
        note_clock(&cell);
    }
    note_asked(&cell);
    let verdict = verdict(&cell, judgement, crashed, began_ns, scenario_ns, &memory);
    let name = plan.cells[index].name.clone();
    cell.journal.note("faultbox", "verdict", None, Body::Verdict(verdict.clone()));
    CellResult { name, verdict, entries: memory.drain(), setup_failed }
}

fn note_start(cell: &CellContext) {
    let planned = &cell.plan.cells[cell.index];
    let started = CellStarted {
        name: planned.name.clone(),
        scenario: planned.scenario.clone(),
        assumption: planned.assumption.as_ref().map(|a| a.name.clone()),
        expectation: planned.expectation.clone(),
    };
    cell.journal.note("faultbox", "cell", None, Body::CellStarted(started));
    let addresses = cell.plan.topology.services.iter().flat_map(addresses_of);
    cell.journal.note("faultbox", "cell", None, Body::Addresses(addresses.collect()));
    for line in &cell.plan.learned {
        let fact = Named { name: learned::FACT.to_owned(), value: line.rule.to_string() };
        cell.journal.note("faultbox", "cell", None, Body::HostFact(fact));
    }
}

/// Moves a clock that has stood still for too long, and from then on in real time.
async fn creep(clock: Weak<VirtualClock>) {
    const PACE: Duration = Duration::from_millis(100);
    let state = || clock.upgrade().map(|clock| (clock.moved(), if clock.crept() { PACE } else { PATIENCE }));
    while let Some((moved, pause)) = state() {
        tokio::time::sleep(pause).await;
        if let Some(clock) = clock.upgrade() {
            clock.creep(moved, pause);
        }
    }
}

/// The name of the fact that says what became of a cell's virtual clock.
pub const CLOCK_FACT: &str = "virtual clock";
/// What that fact says of a clock that has moved without an event.
pub const CREPT: &str = "moved by itself";

fn note_clock(cell: &CellContext) {
    let crept = match cell.wall.crept() {
        true => {
            format!(
                "; it stood still for {}s and then {CREPT}: what was stamped differs between runs",
                PATIENCE.as_secs()
            )
        }
        false => String::new(),
    };
    let since = Duration::from_nanos(cell.wall.now_ns() - BEGINNING_NS);
    let value = format!("{}ms after its beginning{crept}", since.as_millis());
    let fact = Named { name: CLOCK_FACT.to_owned(), value };
    cell.journal.note("faultbox", "cell", None, Body::HostFact(fact));
}

/// The name of the fact that a cell's judge could not have failed it; its value says why.
pub const PROVES_NOTHING: &str = "proves nothing";

/// The beginning of the name of a fact that says what a service asked the host.
const ASKED_FACT: &str = "undetermined: ";
/// How such a fact's words about the time and about randomness begin; the call follows.
pub const TIME_BY: &str = "wall clock by ";
/// See [`TIME_BY`].
pub const RANDOMNESS_BY: &str = "randomness by ";

/// The service that a fact says something of, and what it asked the host, separated by commas.
pub fn asked_host(fact: &Named) -> Option<(&str, &str)> {
    fact.name.strip_prefix(ASKED_FACT).map(|service| (service, fact.value.as_str()))
}

fn note_asked(cell: &CellContext) {
    let asked = std::mem::take(&mut *lock(&cell.asked));
    let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for ((service, what), times) in asked {
        words.entry(service).or_default().push(format!("{what} {times}x"));
    }
    for (service, words) in words {
        let fact = Named { name: format!("{ASKED_FACT}{service}"), value: words.join(", ") };
        cell.journal.note("faultbox", "cell", None, Body::HostFact(fact));
    }
}

/// The addresses of a service's interfaces and what they stand for.
pub fn addresses_of(service: &Service) -> impl Iterator<Item = Named> + '_ {
    service
        .interfaces
        .iter()
        .map(|i| Named { name: format!("@{}.{}", service.name, i.name), value: i.addr.clone() })
}

/// Whose failure it is when this service fails.
fn blame_of(service: &str, topology: &Topology) -> Blame {
    match topology.suts().any(|sut| sut.name == service) {
        true => Blame::ServiceUnderTest,
        false => Blame::Dependency,
    }
}

fn setup_failure(cell: &CellContext, error: &SetupError) -> Judgement {
    let ending = match error {
        SetupError::Interrupted => Ending::Inconclusive,
        _ => Ending::Error,
    };
    Judgement { ending, reason: error.to_string(), blame: error.blame(&cell.plan.topology) }
}

/// What to say of a service that found a port taken, by its last words: who has it.
fn taken_port(tail: &[u8], asked: &[(String, std::net::SocketAddr)], isolated: bool) -> Option<String> {
    let text = String::from_utf8_lossy(tail).to_lowercase();
    let line = text.lines().rfind(|line| {
        ["address already in use", "address in use", "eaddrinuse"].iter().any(|words| line.contains(words))
    })?;
    if !isolated {
        let why = "it wants a port that is taken on this host's loopback, which services share here; a port that an \
                   interface() declares is never taken";
        return Some(why.to_owned());
    }
    let named = |port: u16| line.split(|c: char| !c.is_ascii_digit()).any(|n| n == port.to_string());
    let mut holders: Vec<_> = asked.iter().filter(|(_, addr)| named(addr.port())).collect();
    if holders.is_empty() {
        holders.extend(asked);
    }
    let list: Vec<String> = holders.iter().map(|(name, addr)| format!("{name} at {addr}")).collect();
    (!list.is_empty()).then(|| {
        format!(
            "it wants a port that is taken in its network by {}; declare another port there",
            list.join(", ")
        )
    })
}

/// Brings up everything, unless the environment is lost or the user ends it before.
async fn set_up(
    cell: &Arc<CellContext>,
    environment: &Arc<dyn Environment>,
    locals: &mut Vec<Local>,
) -> Result<(), SetupError> {
    tokio::select! {
        // What fails because the engine went away is not told as its own failure.
        biased;
        why = environment.lost() => Err(SetupError::Lost(why)),
        prepared = prepare(cell, environment, locals) => prepared,
        () = cell.run.interrupted.cancelled() => Err(SetupError::Interrupted),
    }
}

async fn prepare(
    cell: &Arc<CellContext>,
    environment: &Arc<dyn Environment>,
    locals: &mut Vec<Local>,
) -> Result<(), SetupError> {
    environment.prepare(cell).await?;
    for service in cell.plan.topology.start_order() {
        if !environment.runs(&service.name) {
            continue;
        }
        match &service.kind {
            ServiceKind::Binary { path, written } => {
                start_local(cell, service, path, written, locals).await?
            }
            _ if service.is_contained() && cell.faults.is_sut(&service.name) => {
                start_contained(cell, service, locals).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

async fn start_local(
    cell: &Arc<CellContext>,
    service: &Service,
    path: &std::path::Path,
    written: &str,
    locals: &mut Vec<Local>,
) -> Result<(), SetupError> {
    let failed = |why: String| SetupError::Start { service: service.name.clone(), why };
    let digest = cell.run.digests.of(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let topology = &cell.plan.topology;
    let dir = cell.run.dir.join(format!("{}-{}", cell.index, service.name));
    std::fs::create_dir_all(&dir).map_err(|error| failed(error.to_string()))?;
    let asked = upstreams(topology, service);
    let isolated = cell.run.isolation == Isolation::Namespace;
    let policy = policy::CellPolicy::new(&service.name, dir.clone());
    policy.enter(cell);
    let launch = Launch {
        service: service.name.clone(),
        launcher: cell.run.launcher.clone(),
        program: path.to_owned(),
        args: service.args.clone(),
        env: service.env.clone(),
        cwd: service.cwd.clone().unwrap_or(dir),
        isolation: cell.run.isolation,
        names: topology.names(),
        listen: if isolated { asked.iter().map(|(_, addr)| *addr).collect() } else { Vec::new() },
        declared_ports: service.interfaces.iter().map(|i| i.port).collect(),
        families: contained::families(cell, service),
        mediation: cell.mediation(service),
    };
    let started = ServiceStarted {
        service: service.name.clone(),
        pid: 0,
        program: written.to_owned(),
        digest: Some(digest),
        args: launch.args.clone(),
        env: launch
            .env
            .iter()
            .map(|(name, value)| Named { name: name.clone(), value: value.clone() })
            .collect(),
        isolated,
    };
    let mut running = supervisor::launch(launch, policy)
        .await
        .map_err(|error| SetupError::of_launch(&service.name, &error))?;
    let started = ServiceStarted { pid: running.pid, ..started };
    cell.journal.note(&service.name, "lifecycle", None, Body::ServiceStarted(started));
    if service.determinism.pids {
        let (name, value) =
            (format!("process ids of {}", service.name), "its own, counted from 2".to_owned());
        cell.journal.note(&service.name, "lifecycle", None, Body::HostFact(Named { name, value }));
    }
    let mut output = OutputLog::follow(&service.name, running.output(), cell.journal.clone());

    let listeners = if isolated {
        std::mem::take(&mut running.listeners)
    } else {
        held(cell, &asked).map_err(|e| failed(e.to_string()))?
    };
    for ((interface, _), listener) in asked.iter().zip(listeners) {
        let listening = cell.switchboard.listen(cell, &service.name, interface, listener);
        listening.map_err(|error| failed(format!("{interface}: {error}")))?;
    }
    let exec = |command| health::exec_here(command);
    let ready = await_local(cell, service, &running, &mut output, &exec, (&asked, isolated)).await;
    locals.push(Local { service: service.name.clone(), process: Process::Local(running), output });
    ready
}

/// Starts a service under test that is a container.
async fn start_contained(
    cell: &Arc<CellContext>,
    service: &Service,
    locals: &mut Vec<Local>,
) -> Result<(), SetupError> {
    let mut started = contained::start(cell, service, None, cell.journal.clone()).await?;
    started.policy.enter(cell);
    for (interface, listener) in std::mem::take(&mut started.upstreams) {
        let listening = cell.switchboard.listen(cell, &service.name, &interface, listener);
        listening.map_err(|error| SetupError::Start {
            service: service.name.clone(),
            why: format!("{interface}: {error}"),
        })?;
    }
    let asked = upstreams(&cell.plan.topology, service);
    let (container, mut output) = (started.container, started.output);
    let exec = |command: Vec<String>| container.exec(command);
    let ready = await_local(cell, service, container.running(), &mut output, &exec, (&asked, true)).await;
    locals.push(Local { service: service.name.clone(), process: Process::Contained(container), output });
    ready
}

/// Lets others in, and waits until the service is ready.
async fn await_local(
    cell: &Arc<CellContext>,
    service: &Service,
    running: &Running,
    output: &mut OutputLog,
    exec: health::Exec<'_>,
    network: (&[(String, std::net::SocketAddr)], bool),
) -> Result<(), SetupError> {
    for interface in &service.interfaces {
        let name = format!("{}.{}", service.name, interface.name);
        cell.switchboard.register_local(&name, running.dial(interface.port));
    }
    await_ready(service, running, output, exec, network, cell.time()).await?;
    cell.journal.note(&service.name, "lifecycle", None, Body::ServiceReady(service.name.clone()));
    Ok(())
}

/// Waits until a service is ready; what ends before is an error with its last words. `network` is
/// what it asks, and whether its network is its own.
async fn await_ready(
    service: &Service,
    running: &Running,
    output: &mut OutputLog,
    exec: health::Exec<'_>,
    (asked, isolated): (&[(String, std::net::SocketAddr)], bool),
    time: &Time,
) -> Result<(), SetupError> {
    let (way, log) = (|port| running.dial(port), || output.tail());
    let ready = tokio::select! {
        ready = health::wait_ready(service, &way, &log, exec, time) => ready.map_err(|error| (error, output.tail())),
        exit = running.exited() => {
            let tail = output.whole_tail().await;
            let taken = taken_port(&tail, asked, isolated).map(|why| format!(": {why}")).unwrap_or_default();
            let why = format!("it ended at once ({}){taken}", exit_words(exit));
            Err((SetupError::Start { service: service.name.clone(), why }, tail))
        }
    };
    ready.map_err(|(error, tail)| error.with_log(&tail))
}

/// The interfaces that a service asks, and their addresses.
fn upstreams(topology: &crate::topology::Topology, service: &Service) -> Vec<(String, std::net::SocketAddr)> {
    let asked = topology.services.iter().filter(|other| topology.asks(&service.name, &other.name));
    let addresses = asked.flat_map(|other| {
        other.interfaces.iter().map(|i| (format!("{}.{}", other.name, i.name), i.addr.clone()))
    });
    addresses.filter_map(|(name, addr)| Some((name, addr.parse().ok()?))).collect()
}

/// The listeners that stand for interfaces where services share the host's loopback.
fn held(
    cell: &CellContext,
    asked: &[(String, std::net::SocketAddr)],
) -> std::io::Result<Vec<std::net::TcpListener>> {
    let listeners = asked.iter().map(|(interface, _)| cell.run.addresses.listener(interface));
    listeners.filter_map(Result::transpose).collect()
}

/// Digests of executables. A file is read again only when it was changed: to read a large one takes
/// longer than all else that a cell needs.
#[derive(Debug, Default)]
pub struct Digests(Mutex<BTreeMap<PathBuf, (os::Stamp, [u8; 32])>>);

impl Digests {
    /// The BLAKE3 of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(&self, path: &std::path::Path) -> std::io::Result<[u8; 32]> {
        let file = std::fs::File::open(path)?;
        let meta = file.metadata()?;
        let stamp = os::stamp(&meta);
        match lock(&self.0).get(path) {
            Some((known, digest)) if *known == stamp => return Ok(*digest),
            _ => {}
        }
        let digest = *blake3::Hasher::new().update_reader(file)?.finalize().as_bytes();
        lock(&self.0).insert(path.to_owned(), (stamp, digest));
        Ok(digest)
    }
}

async fn scenario(cell: &Arc<CellContext>, locals: &[Local]) -> (Judgement, u64) {
    let planned = &cell.plan.cells[cell.index];
    if let Some(assumption) = &planned.assumption {
        cell.faults.activate(assumption.clone());
        let reset = cell.faults.resets_inbound();
        let inbound = |interface: &str, source: &str| {
            source != TEST && reset.iter().any(|name| name == split_interface(interface).0)
        };
        cell.switchboard.reset(inbound).await;
        let refused = |interface: &str, source: &str| {
            let refused = cell.faults.refuses(interface, source);
            if refused {
                cell.faults.note_refusal(interface, source);
            }
            refused
        };
        cell.switchboard.reset(refused).await;
    }
    cell.journal.enter(Phase::Scenario);
    let began_ns = cell.journal.clock().now_ns();
    let time = if cell.run.hold.is_some() { TIME_WHILE_HELD } else { planned.timeout };
    let deadline = cell.time().now() + time;
    let driver = Arc::new(driver::CellDriver::new(cell.clone(), deadline));
    let (program, number) = (cell.plan.program.clone(), planned.number);
    let running = tokio::task::spawn_blocking(move || program.run(number, driver));
    let judgement = tokio::select! {
        ended = cell.time().timeout_at(deadline, running) => match ended {
            Ok(Ok(result)) => result.judgement,
            Ok(Err(panic)) => Judgement {
                ending: Ending::Error,
                reason: format!("the scenario could not be run: {panic}"),
                blame: Blame::Faultbox,
            },
            Err(_) => Judgement {
                ending: Ending::Inconclusive,
                reason: format!("no verdict within {}ms", planned.timeout.as_millis()),
                blame: Blame::Spec,
            },
        },
        () = cell.run.interrupted.cancelled() => {
            Judgement { ending: Ending::Inconclusive, reason: "interrupted".to_owned(), blame: Blame::None }
        }
    };
    let scenario_ns = cell.journal.clock().now_ns() - began_ns;
    cell.end_faults().await;
    let judgement = whose::settled(judgement, planned.assumption.as_deref(), || cell.memory.entries());
    if let Some(trouble) = locals.iter().find_map(|local| local.running().trouble()) {
        return (unsupervised(&trouble), scenario_ns);
    }
    for local in locals {
        if let Some(exit) = local.ended().await {
            return (crash(cell, &local.service, Some(exit)), scenario_ns);
        }
    }
    (judgement, scenario_ns)
}

fn unsupervised(trouble: &str) -> Judgement {
    let reason = format!("the syscall supervisor failed: {trouble}");
    Judgement { ending: Ending::Error, reason, blame: Blame::Faultbox }
}

fn crash(cell: &CellContext, service: &str, exit: Option<Exit>) -> Judgement {
    let how = exit.map(|exit| format!(" ({})", exit_words(exit))).unwrap_or_default();
    Judgement {
        ending: Ending::Failed,
        reason: format!("{service} exited unasked{how}"),
        blame: blame_of(service, &cell.plan.topology),
    }
}

/// Ends the local executables, last started first. Gives the one that had ended by itself.
async fn stop(cell: &Arc<CellContext>, locals: Vec<Local>, grace: Duration) -> Option<(String, Exit)> {
    let mut crashed = None;
    for local in locals.into_iter().rev() {
        let ended = local.ended().await;
        let unasked = ended.is_some();
        let service = local.service.clone();
        crashed = ended.map(|exit| (service.clone(), exit)).or(crashed);
        let exit = local.stop(grace).await;
        note_exited(cell, &service, exit, !unasked);
    }
    crashed
}

fn note_exited(cell: &CellContext, service: &str, exit: Exit, asked: bool) {
    let (code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
        Exit::Unknown => (None, None),
    };
    let exited = ServiceExited { service: service.to_owned(), code, signal, asked };
    cell.journal.note(service, "lifecycle", None, Body::ServiceExited(exited));
}

fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unknown => "its end was not seen".to_owned(),
    }
}

fn verdict(
    cell: &CellContext,
    judgement: Judgement,
    crashed: Option<(String, Exit)>,
    began_ns: u64,
    scenario_ns: u64,
    memory: &MemorySink,
) -> Verdict {
    let planned = &cell.plan.cells[cell.index];
    let fired: Vec<FaultCount> =
        planned.assumption.as_ref().map(|a| cell.faults.account(a)).unwrap_or_default();
    let unreached = !fired.is_empty() && fired.iter().all(|count| count.fired == 0);
    let mut judgement = judgement;
    if judgement.ending == Ending::Passed && unreached && planned.require_faults_fire == RequireFire::Yes {
        judgement = Judgement {
            ending: Ending::Violated,
            reason: "require_faults_fire: no rule of the assumption fired".to_owned(),
            blame: Blame::Spec,
        };
    }
    if let (Ending::Passed, Some((service, exit))) = (judgement.ending, crashed) {
        judgement = crash(cell, &service, Some(exit));
    }
    let mut entries = memory.entries();
    entries.iter_mut().for_each(|entry| cell.run.redactor.entry(entry));
    let mut reason = judgement.reason;
    if judgement.ending != Ending::Passed
        && let Some(refused) = refusal::last(&entries)
    {
        reason += &format!("; {refused}");
    }
    let mut verdict = Verdict {
        ending: judgement.ending,
        reason,
        blame: judgement.blame,
        fired,
        unreached,
        scenario_ns,
        cell_ns: cell.journal.clock().now_ns() - began_ns,
        digest: [0; 32],
    };
    // It is printed, and its digest is that of what is recorded.
    cell.run.redactor.verdict(&mut verdict);
    let unix_ns = cell.journal.clock().unix_ns();
    let digest = canonical::of_cell_with(&entries, Some(&verdict), unix_ns, Policy::Default).digest;
    Verdict { digest, ..verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Vec<(String, std::net::SocketAddr)> {
        [("auth.main", 8080), ("db.main", 3306)]
            .map(|(name, port)| (name.to_owned(), std::net::SocketAddr::from(([127, 0, 0, 1], port))))
            .to_vec()
    }

    #[test]
    fn a_changed_file_has_another_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        let digests = Digests::default();
        std::fs::write(&path, "one").unwrap();
        let one = digests.of(&path).unwrap();
        assert_eq!(one, *blake3::hash(b"one").as_bytes());
        assert_eq!(digests.of(&path).unwrap(), one);
        // As a build does it: another file in its place.
        std::fs::write(folder.path().join("new"), "two").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(digests.of(&path).unwrap(), *blake3::hash(b"two").as_bytes());
        std::fs::write(&path, "three").unwrap();
        assert_eq!(digests.of(&path).unwrap(), *blake3::hash(b"three").as_bytes());
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let tail = b"starting\nlisten tcp :8080: bind: address already in use\n";
        let said = taken_port(tail, &asked(), true).unwrap();
        assert!(said.contains("auth.main at 127.0.0.1:8080") && !said.contains("db.main"), "{said}");
        let unnamed = taken_port(b"Error: EADDRINUSE\n", &asked(), true).unwrap();
        assert!(unnamed.contains("auth.main") && unnamed.contains("db.main"), "{unnamed}");
        let shared = taken_port(tail, &asked(), false).unwrap();
        assert!(shared.contains("this host's loopback"), "{shared}");
    }

    #[test]
    fn other_last_words_say_nothing_of_ports() {
        assert_eq!(taken_port(b"DATABASE_URL is not set on 8080\n", &asked(), true), None);
        assert_eq!(taken_port(b"", &asked(), false), None);
        assert_eq!(taken_port(b"address already in use\n", &[], true), None);
    }
}

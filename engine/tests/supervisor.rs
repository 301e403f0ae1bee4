//! The supervisor against real processes, namespaces and filters.
//!
//! This executable is the tests, the launcher (`__launch`) and the guest programs (`guest ...`).
//! What the host does not permit is printed as skipped, with the reason.

use faultbox_engine::determinism::{BEGINNING_NS, Entropy, Mediation};
use faultbox_engine::link::{Dial, Stream};
use faultbox_engine::prng::Key;
use faultbox_engine::supervisor::{
    Asked, Exit, Feature, Given, Isolation, Kind, Launch, LaunchError, Output, OutputStream, Quiet, Running,
    SyscallAct, SyscallCall, SyscallDecision, SyscallPolicy, SyscallTarget, launch, launcher_main,
    probe_host,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

#[path = "supervisor/faults.rs"]
mod faults;
#[path = "supervisor/waits.rs"]
mod waits;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["__launch"] => launcher_main(),
        ["guest", guest @ ..] => {
            run_guest(guest);
            ExitCode::SUCCESS
        }
        _ => run_cases(&words),
    }
}

// ---------------------------------------------------------------- guests

fn run_guest(words: &[&str]) {
    match words {
        ["serve", port, name] => serve(port.parse().unwrap(), name),
        ["call", address] => println!("{address} {}", call(address)),
        ["call", address, rest @ ..] => {
            println!("{address} {}", call(address));
            run_guest(&[&["call"], rest].concat());
        }
        ["write", path] => println!("{path} {}", write(path)),
        ["parent", guest @ ..] => {
            // The child inherits everything, the filter included.
            let status = Command::new(me()).arg("guest").args(guest).status().unwrap();
            println!("child {}", status.success());
        }
        ["mixed", path] => mixed(path),
        ["threads", path] => threads(path),
        ["pair", first, second] => pair(first, second),
        ["after", path, guest @ ..] => {
            run_guest(&[&["parent"], guest].concat());
            println!("{path} {}", write(path));
        }
        ["files", dir] => files(Path::new(dir)),
        ["flood"] => flood(),
        ["environment"] => environment(),
        ["look-up", names @ ..] => names.iter().for_each(|name| println!("{name} {}", look_up(name))),
        ["resolve", address] => {
            // It asks as librdkafka and others do, with AI_ADDRCONFIG.
            let getent = Command::new("getent").args(["ahostsv4", address]).output().unwrap();
            println!("{address} {}", String::from_utf8_lossy(&getent.stdout).contains(address));
        }
        ["hold", socket, children] => hold(socket, children.parse().unwrap()),
        ["orphan", socket] => {
            // Its parent ends at once, so that it has none of its own.
            drop(Command::new(me()).args(["guest", "hold", socket, "0"]).spawn().unwrap());
        }
        ["busy", socket, children] => {
            let enosys = format!("{socket}.enosys");
            std::thread::spawn(move || busy(&enosys));
            hold(socket, children.parse().unwrap());
        }
        ["driver", socket] => drive(socket),
        ["watch"] => watch(),
        ["faults", guest @ ..] => faults::guest(guest),
        other => panic!("no guest {other:?}"),
    }
}

/// The wall clock, and the wall clock when it has moved; and what a program of the system says of it.
fn watch() {
    use faultbox_engine::clock::wall_ns as now;
    let first = now();
    let date = Command::new("date").arg("+%s%N").output().unwrap();
    println!("{first} {}", String::from_utf8_lossy(&date.stdout).trim());
    while now() == first {
        std::thread::yield_now();
    }
    println!("{}", now());
}

fn me() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn outcome<T>(result: std::io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

/// Answers one line a connection.
fn serve(port: u16, name: &str) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        stream.write_all(format!("{name} got {line}").as_bytes()).unwrap();
    }
}

fn call(address: &str) -> String {
    let mut stream = match TcpStream::connect(address) {
        Ok(stream) => stream,
        failed => return outcome(failed),
    };
    stream.write_all(b"hello\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.trim().to_owned()
}

fn write(path: &str) -> String {
    outcome(File::options().create(true).append(true).open(path).and_then(|mut file| file.write_all(b"x")))
}

/// Where a name leads, by the C library.
fn look_up(name: &str) -> String {
    use std::net::ToSocketAddrs;
    match (name, 80).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(","),
        Err(_) => "unknown".to_owned(),
    }
}

/// Writes to a file, a socket, a pipe and standard output.
fn mixed(path: &str) {
    println!("file {}", write(path));
    let (mut a, _b) = UnixStream::pair().unwrap();
    println!("socket {}", outcome(a.write_all(b"x")));
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    println!("pipe {}", outcome(cat.stdin.take().unwrap().write_all(b"x")));
    cat.wait().unwrap();
}

/// Eight threads, two hundred writes each.
fn threads(path: &str) {
    let write_many = || (0..200).filter(|_| write(path) == "errno 5").count();
    let failed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(write_many)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("failed {failed}");
}

/// Two threads, one write each.
fn pair(first: &str, second: &str) {
    std::thread::scope(|scope| {
        scope.spawn(|| println!("{first} {}", write(first)));
        scope.spawn(|| println!("{second} {}", write(second)));
    });
}

/// One call of each kind on paths of every form.
fn files(dir: &Path) {
    std::env::set_current_dir(dir).unwrap();
    println!("open {}", outcome(File::open("./sub/../data")));
    println!("link {}", outcome(File::open("link")));
    println!("rename {}", outcome(std::fs::rename("data", "renamed")));
    println!("unlink {}", outcome(std::fs::remove_file("link")));
    let file = File::options().write(true).open("renamed").unwrap();
    println!("fsync {}", outcome(file.sync_all()));
    println!("fdatasync {}", outcome(file.sync_data()));
    println!("unix {}", outcome(UnixStream::connect("sock")));
}

/// A megabyte on each stream.
fn flood() {
    for line in 0..16384 {
        println!("{line:063}");
        eprintln!("{line:063}");
    }
}

fn environment() {
    let mut stdin = Vec::new();
    std::io::stdin().read_to_end(&mut stdin).unwrap();
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    // The folder that is being read is open too.
    let mut open: Vec<String> = open.filter(|name| name.len() == 1).collect();
    open.sort();
    let vars: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
    println!("{} {} {:?} {:?}", stdin.len(), std::env::current_dir().unwrap().display(), vars, open);
    println!("blocked {:?}", nix::sys::signal::SigSet::thread_get_mask().unwrap().iter().count());
}

/// Says its id on a socket that closes when it dies, has children that do the same, and ignores
/// requests to end.
fn hold(socket: &str, children: u32) {
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGTERM);
    signals.thread_block().unwrap();
    let mut held = UnixStream::connect(socket).unwrap();
    writeln!(held, "{}", std::process::id()).unwrap();
    for _ in 0..children {
        use std::os::unix::process::CommandExt;
        drop(Command::new(me()).args(["guest", "hold", socket, "0"]).process_group(0).spawn().unwrap());
        Command::new(me()).args(["guest", "orphan", socket]).process_group(0).status().unwrap();
    }
    let _ = held.read(&mut [0]);
    loop {
        std::thread::park();
    }
}

/// Makes trapped calls without end, and leaves a file when one fails as if nobody answered.
fn busy(enosys: &str) {
    let mut null = File::options().write(true).open("/dev/null").unwrap();
    loop {
        if outcome(null.write(b"x")) == "errno 38" {
            File::create(enosys).unwrap();
        }
    }
}

/// A Faultbox that launches a service and waits to be killed.
fn drive(socket: &str) {
    runtime().block_on(async {
        let mut plan = plan(&["busy", socket, "2"]);
        plan.families.insert("write".to_owned());
        let _running = launch(plan, Arc::new(Quiet)).await.unwrap();
        std::future::pending::<()>().await;
    });
}

// ---------------------------------------------------------------- the harness

type Case = Pin<Box<dyn Future<Output = ()>>>;
type Run = fn() -> Case;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Namespace,
    Names,
    NamesAndTraps,
    Traps,
    Both,
    TrapsAndSockets,
}

fn run_cases(words: &[&str]) -> ExitCode {
    let facts = probe_host(&me());
    let namespaces = || facts.has(Feature::NetworkNamespace);
    let traps = || facts.has(Feature::Notify).and_then(|()| facts.has(Feature::ReadMemory));
    let cases: Vec<(&str, Needs, Run)> = vec![
        ("one_port_in_two_namespaces", Needs::Namespace, || Box::pin(one_port_in_two_namespaces())),
        ("upstreams_are_accepted_outside", Needs::Namespace, || Box::pin(upstreams_are_accepted_outside())),
        ("nothing_else_is_reachable_inside", Needs::Namespace, || {
            Box::pin(nothing_else_is_reachable_inside())
        }),
        ("addresses_resolve_inside", Needs::Namespace, || Box::pin(addresses_resolve_inside())),
        ("names_of_services_resolve_inside", Needs::Names, || Box::pin(names_of_services_resolve_inside())),
        ("a_smaller_kernel_is_made_do_with", Needs::Traps, || Box::pin(a_smaller_kernel_is_made_do_with())),
        ("a_clean_start", Needs::Nothing, || Box::pin(a_clean_start())),
        ("output_is_whole_and_in_order", Needs::Nothing, || Box::pin(output_is_whole_and_in_order())),
        ("failures_to_start_say_why", Needs::Traps, || Box::pin(failures_to_start_say_why())),
        ("a_write_rule_means_files", Needs::Traps, || Box::pin(a_write_rule_means_files())),
        ("a_connect_is_denied_by_its_peer", Needs::Both, || Box::pin(a_connect_is_denied_by_its_peer())),
        ("a_delay_holds_up_only_its_caller", Needs::Traps, || Box::pin(a_delay_holds_up_only_its_caller())),
        ("children_are_included", Needs::Traps, || Box::pin(children_are_included())),
        ("many_threads_each_get_their_answer", Needs::Traps, || {
            Box::pin(many_threads_each_get_their_answer())
        }),
        ("targets_are_resolved", Needs::Traps, || Box::pin(targets_are_resolved())),
        ("a_caller_killed_meanwhile_harms_nobody", Needs::Traps, || {
            Box::pin(a_caller_killed_meanwhile_harms_nobody())
        }),
        ("waits_cost_no_time", Needs::TrapsAndSockets, || Box::pin(waits::waits_cost_no_time())),
        ("waits_end_in_their_order", Needs::TrapsAndSockets, || Box::pin(waits::waits_end_in_their_order())),
        ("what_comes_wins_over_the_time", Needs::TrapsAndSockets, || {
            Box::pin(waits::what_comes_wins_over_the_time())
        }),
        ("a_signal_ends_a_wait_and_a_timer_that_sends_one_ends_the_skipping", Needs::TrapsAndSockets, || {
            Box::pin(waits::a_signal_ends_a_wait_and_a_timer_that_sends_one_ends_the_skipping())
        }),
        ("a_policy_that_panics_lets_pass", Needs::Traps, || Box::pin(a_policy_that_panics_lets_pass())),
        ("a_shared_network_remaps_ports", Needs::TrapsAndSockets, || {
            Box::pin(a_shared_network_remaps_ports())
        }),
        ("stop_leaves_no_process", Needs::Nothing, || Box::pin(stop_leaves_no_process())),
        ("dropping_leaves_no_process", Needs::Nothing, || Box::pin(dropping_leaves_no_process())),
        ("its_threads_end_with_it", Needs::Traps, || Box::pin(its_threads_end_with_it())),
        ("our_own_death_leaves_no_process", Needs::Traps, || Box::pin(our_own_death_leaves_no_process())),
        ("time_and_randomness_of_c_programs", Needs::Traps, || Box::pin(time_and_randomness_of_c_programs())),
        ("what_is_asked_of_the_host_is_told", Needs::Traps, || Box::pin(what_is_asked_of_the_host_is_told())),
        ("a_clock_moves_in_every_process", Needs::Traps, || Box::pin(a_clock_moves_in_every_process())),
        ("process_ids_of_its_own", Needs::NamesAndTraps, || Box::pin(process_ids_of_its_own())),
        ("the_helpers_death_is_noticed", Needs::Nothing, || Box::pin(the_helpers_death_is_noticed())),
    ];
    let cases: Vec<_> = cases.into_iter().chain(faults::cases()).collect();
    if words.contains(&"--list") {
        let listed = if words.contains(&"--ignored") { &[][..] } else { &cases[..] };
        listed.iter().for_each(|(name, ..)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nhost: {facts:?}");
    let filters: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let (mut passed, mut failed, mut skipped, mut filtered) = (0, Vec::new(), 0, 0);
    for (name, needs, case) in cases {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(**filter)) {
            filtered += 1;
            continue;
        }
        let lacking = match needs {
            Needs::Nothing => Ok(()),
            Needs::Namespace => namespaces(),
            Needs::Names => facts.has(Feature::MountNamespace),
            Needs::Traps => traps(),
            Needs::NamesAndTraps => facts.has(Feature::MountNamespace).and_then(|()| traps()),
            Needs::Both => namespaces().and_then(|()| traps()),
            Needs::TrapsAndSockets => traps().and_then(|()| facts.has(Feature::TakeDescriptor)),
        };
        if let Err(why) = lacking {
            println!("test {name} ... skipped: {why}");
            skipped += 1;
            continue;
        }
        let held = std::panic::catch_unwind(|| {
            runtime().block_on(async {
                // Only a guard against hanging for ever.
                tokio::time::timeout(Duration::from_secs(60), case()).await.expect("it hangs");
            });
        });
        println!("test {name} ... {}", if held.is_ok() { "ok" } else { "FAILED" });
        match held {
            Ok(()) => passed += 1,
            Err(_) => failed.push(name),
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {filtered} filtered out\n",
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// In a namespace of its own where the host permits.
fn plan(guest: &[&str]) -> Launch {
    let isolation = match probe_host(&me()).has(Feature::NetworkNamespace) {
        Ok(()) => Isolation::Namespace,
        Err(_) => Isolation::Shared,
    };
    Launch {
        service: "guest".to_owned(),
        launcher: me(),
        program: me(),
        args: std::iter::once("guest").chain(guest.iter().copied()).map(str::to_owned).collect(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: PathBuf::from("/"),
        isolation,
        names: Vec::new(),
        listen: Vec::new(),
        declared_ports: Vec::new(),
        families: Default::default(),
        mediation: Default::default(),
    }
}

fn trapping(guest: &[&str], families: &[&str]) -> Launch {
    Launch { families: families.iter().map(|f| (*f).to_owned()).collect(), ..plan(guest) }
}

/// All that comes on standard output, when the service has ended with 0.
async fn whole_output(running: &mut Running) -> String {
    let mut output = running.output().unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(Output { stream, bytes }) = output.recv().await {
        if stream == OutputStream::Stdout { &mut out } else { &mut err }.extend(bytes);
    }
    assert_eq!(running.exited().await, Exit::Code(0), "{}", String::from_utf8_lossy(&err));
    String::from_utf8(out).unwrap()
}

/// The service's standard output line by line.
struct Lines {
    output: tokio::sync::mpsc::UnboundedReceiver<Output>,
    buffer: Vec<u8>,
}

impl Lines {
    fn of(running: &mut Running) -> Self {
        Lines { output: running.output().unwrap(), buffer: Vec::new() }
    }
    async fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return String::from_utf8(line).unwrap().trim().to_owned();
            }
            let chunk = self.output.recv().await.expect("the output ended");
            self.buffer.extend(chunk.bytes);
        }
    }
}

async fn ask(dial: &Arc<dyn Dial>) -> String {
    let mut stream: Stream = dial.dial().await.unwrap();
    stream.write_all(b"who\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.trim().to_owned()
}

/// Decides by a function.
struct By<F>(F);

impl<F: Fn(&SyscallCall<'_>) -> SyscallAct + Send + Sync> SyscallPolicy for By<F> {
    fn decide(&self, call: &SyscallCall<'_>) -> SyscallDecision {
        self.0(call).into()
    }
}

fn deny_regular(call: &SyscallCall<'_>) -> SyscallAct {
    match call.target {
        SyscallTarget::File { kind: Kind::File, .. } => SyscallAct::Errno(libc::EIO),
        _ => SyscallAct::Continue,
    }
}

fn names(call: &SyscallCall<'_>, end: &str) -> bool {
    matches!(&call.target, SyscallTarget::File { path, .. } if path.ends_with(end))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

// ---------------------------------------------------------------- the cases

async fn one_port_in_two_namespaces() {
    let mut a = launch(plan(&["serve", "8080", "a"]), Arc::new(Quiet)).await.unwrap();
    let mut b = launch(plan(&["serve", "8080", "b"]), Arc::new(Quiet)).await.unwrap();
    for running in [&mut a, &mut b] {
        assert_eq!(Lines::of(running).next().await, "ready");
    }
    let (to_a, to_b) = (a.dial(8080), b.dial(8080));
    assert_eq!(ask(&to_a).await, "a got who");
    assert_eq!(ask(&to_b).await, "b got who");
    assert_eq!(ask(&to_a).await, "a got who");
    assert_eq!(a.dial(81).dial().await.err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(a.stop(Duration::from_secs(20)).await, Exit::Signal(libc::SIGTERM));
    assert!(to_a.dial().await.is_err());
    assert_eq!(ask(&to_b).await, "b got who");
    // A low port is free too, for ordinary users as well.
    let mut low = launch(plan(&["serve", "80", "low"]), Arc::new(Quiet)).await.unwrap();
    assert_eq!(Lines::of(&mut low).next().await, "ready");
    assert_eq!(ask(&low.dial(80)).await, "low got who");
}

/// Accepts one connection on each and answers with the port it came to.
async fn answer_each(listeners: Vec<TcpListener>) {
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = tokio::io::BufReader::new(stream);
            stream.read_line(&mut String::new()).await.unwrap();
            stream.write_all(format!("upstream {port}").as_bytes()).await.unwrap();
        });
    }
}

async fn upstreams_are_accepted_outside() {
    let addresses = ["127.0.0.1:3306", "127.0.0.1:6379"];
    let mut plan = plan(&["call", addresses[0], addresses[1]]);
    plan.listen = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let mut running = launch(plan, Arc::new(Quiet)).await.unwrap();
    let listeners = std::mem::take(&mut running.listeners);
    let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
    assert_eq!(ports, [3306, 6379]);
    answer_each(listeners).await;
    let output = whole_output(&mut running).await;
    assert_eq!(output, "127.0.0.1:3306 upstream 3306\n127.0.0.1:6379 upstream 6379\n");
}

async fn nothing_else_is_reachable_inside() {
    // A server of the host's, and an address that is nowhere.
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = host.local_addr().unwrap().to_string();
    let mut running = launch(plan(&["call", &address, "192.0.2.1:80"]), Arc::new(Quiet)).await.unwrap();
    let output = whole_output(&mut running).await;
    assert_eq!(output, format!("{address} errno 111\n192.0.2.1:80 errno 101\n"));
}

async fn addresses_resolve_inside() {
    let mut running = launch(plan(&["resolve", "127.0.0.1"]), Arc::new(Quiet)).await.unwrap();
    assert_eq!(whole_output(&mut running).await, "127.0.0.1 true\n");
}

async fn names_of_services_resolve_inside() {
    let mut resolving = plan(&["look-up", "db", "cache-1", "db.nowhere.invalid", "localhost"]);
    resolving.names = vec!["db".to_owned(), "cache-1".to_owned()];
    let mut running = launch(resolving, Arc::new(Quiet)).await.unwrap();
    let output = whole_output(&mut running).await;
    let mut lines = output.lines();
    for wanted in ["db 127.0.0.1", "cache-1 127.0.0.1", "db.nowhere.invalid unknown"] {
        assert_eq!(lines.next(), Some(wanted), "{output}");
    }
    assert!(lines.next().is_some_and(|line| line.contains("127.0.0.1")), "{output}");
    // The host's own file is as it was.
    assert_eq!(look_up("cache-1"), "unknown");

    // What stands for the service is reached by its name.
    let mut calling = plan(&["call", "db:3306"]);
    calling.names = vec!["db".to_owned()];
    calling.listen = vec!["127.0.0.1:3306".parse().unwrap()];
    let mut running = launch(calling, Arc::new(Quiet)).await.unwrap();
    answer_each(std::mem::take(&mut running.listeners)).await;
    assert_eq!(whole_output(&mut running).await, "db:3306 upstream 3306\n");

    // Files are still named as the host names them.
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("here")).unwrap();
    let wanted = std::fs::canonicalize(dir.path()).unwrap().join("data");
    let policy = By(move |call: &SyscallCall<'_>| match &call.target {
        SyscallTarget::File { path, .. } if *path == wanted => SyscallAct::Errno(libc::EDQUOT),
        _ => SyscallAct::Continue,
    });
    let file = dir.path().join("here/data");
    let mut writing = trapping(&["write", text(&file)], &["open"]);
    writing.names = vec!["db".to_owned()];
    let mut running = launch(writing, Arc::new(policy)).await.unwrap();
    assert_eq!(whole_output(&mut running).await, format!("{} errno 122\n", file.display()));
}

/// Every case again on a kernel without the two modes: they change how fast, never what.
async fn a_smaller_kernel_is_made_do_with() {
    for without in ["wait_killable", "sync_wake_up,wait_killable,mountns"] {
        for case in ["a_write_rule", "many_threads", "children_are", "targets_are", "a_caller_killed"] {
            let told = Command::new(me()).arg(case).env("FAULTBOX_WITHOUT", without).output().unwrap();
            let said = String::from_utf8_lossy(&told.stdout);
            assert!(told.status.success() && said.contains("1 passed"), "without {without}: {said}");
            let mode = "Err(Lack { why: \"install a filter whose calls wait on when a signal arrives";
            assert!(said.contains(mode) && said.contains("(simulated)"), "{said}");
        }
    }
    let told = Command::new(me()).arg("a_write_rule").env("FAULTBOX_WITHOUT", "notify").output().unwrap();
    let said = String::from_utf8_lossy(&told.stdout);
    assert!(said.contains("skipped: install a syscall filter: Invalid argument (simulated)"), "{said}");
}

async fn a_clean_start() {
    let mut plan = plan(&["environment"]);
    plan.env.push(("GREETING".to_owned(), "hello there".to_owned()));
    plan.cwd = PathBuf::from("/tmp");
    let mut running = launch(plan, Arc::new(Quiet)).await.unwrap();
    let output = whole_output(&mut running).await;
    let wanted =
        "0 /tmp [\"PATH=/usr/bin:/bin\", \"GREETING=hello there\"] [\"0\", \"1\", \"2\", \"3\"]\nblocked 0\n";
    assert_eq!(output, wanted);
}

async fn output_is_whole_and_in_order() {
    let mut running = launch(plan(&["flood"]), Arc::new(Quiet)).await.unwrap();
    // Taken only after the end: nothing waits for us, nothing is lost.
    assert_eq!(running.exited().await, Exit::Code(0));
    let mut output = running.output().unwrap();
    let mut streams = [Vec::new(), Vec::new()];
    while let Some(Output { stream, bytes }) = output.recv().await {
        streams[usize::from(stream == OutputStream::Stderr)].extend(bytes);
    }
    let wanted: String = (0..16384).map(|line| format!("{line:063}\n")).collect();
    for stream in streams {
        assert!(stream == wanted.as_bytes(), "{} bytes", stream.len());
    }
    assert!(running.output().is_none());
}

async fn failures_to_start_say_why() {
    let started = |plan| async { launch(plan, Arc::new(Quiet)).await.err().unwrap().to_string() };
    for families in [&[][..], &["write", "send", "close"]] {
        let mut lost = trapping(&[], families);
        lost.program = PathBuf::from("/nonexistent/api");
        let wanted = "service 'guest' could not be started: execute /nonexistent/api: No such file or directory (os error 2)";
        assert_eq!(started(lost).await, wanted);
    }
    let mut nowhere = plan(&[]);
    nowhere.cwd = PathBuf::from("/nonexistent");
    assert!(started(nowhere).await.contains("enter the folder /nonexistent: No such file"));
    let mut twice = plan(&[]);
    twice.listen = vec!["127.0.0.1:9000".parse().unwrap(); 2];
    assert!(started(twice).await.contains("listen on 127.0.0.1:9000: Address already in use"));
    let mut unknown = plan(&[]);
    unknown.families.insert("wriet".to_owned());
    assert_eq!(started(unknown).await, "no syscall family 'wriet'");
    let mut launcherless = plan(&[]);
    launcherless.launcher = PathBuf::from("/bin/true");
    assert_eq!(
        started(launcherless).await,
        "the launcher of 'guest' failed: it did not launch: it ended without a word"
    );
    let error = launch(Launch { launcher: "/nonexistent".into(), ..plan(&[]) }, Arc::new(Quiet)).await;
    assert!(matches!(error, Err(LaunchError::Launcher { .. })));
}

async fn a_write_rule_means_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    let mut running =
        launch(trapping(&["mixed", text(&file)], &["write"]), Arc::new(By(deny_regular))).await.unwrap();
    assert_eq!(whole_output(&mut running).await, "file errno 5\nsocket ok\npipe ok\n");
    assert_eq!(std::fs::read(&file).unwrap(), b"");
    // Without a rule the same program writes.
    let mut running = launch(trapping(&["mixed", text(&file)], &["write"]), Arc::new(Quiet)).await.unwrap();
    assert_eq!(whole_output(&mut running).await, "file ok\nsocket ok\npipe ok\n");
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}

async fn a_connect_is_denied_by_its_peer() {
    let peers = ["127.0.0.1:3306", "127.0.0.1:6379", "[::1]:3306"];
    let denied: SocketAddr = peers[0].parse().unwrap();
    let policy = By(move |call: &SyscallCall<'_>| match &call.target {
        SyscallTarget::Peer(peer) if *peer == denied => SyscallAct::Errno(libc::ETIMEDOUT),
        SyscallTarget::Peer(peer) if peer.is_ipv6() => SyscallAct::Errno(libc::EHOSTUNREACH),
        _ => SyscallAct::Continue,
    });
    let mut plan = trapping(&["call", peers[0], peers[1], peers[2]], &["connect"]);
    plan.listen = peers[..2].iter().map(|a| a.parse().unwrap()).collect();
    let mut running = launch(plan, Arc::new(policy)).await.unwrap();
    answer_each(std::mem::take(&mut running.listeners)).await;
    let output = whole_output(&mut running).await;
    assert_eq!(output, "127.0.0.1:3306 errno 110\n127.0.0.1:6379 upstream 6379\n[::1]:3306 errno 113\n");
}

struct DelayFirst {
    changes: watch::Sender<u64>,
    delayed: watch::Sender<bool>,
}

impl SyscallPolicy for DelayFirst {
    fn decide(&self, call: &SyscallCall<'_>) -> SyscallDecision {
        match names(call, "first") {
            true => {
                self.delayed.send_replace(true);
                SyscallDecision { pause: Duration::from_secs(3600), act: SyscallAct::Continue }
            }
            false => SyscallDecision { pause: Duration::from_millis(1), act: SyscallAct::Continue },
        }
    }
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }
}

async fn a_delay_holds_up_only_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let policy = Arc::new(DelayFirst { changes: watch::channel(0).0, delayed: watch::channel(false).0 });
    let guest = ["pair", text(&first), text(&second)];
    let mut running = launch(trapping(&guest, &["pwrite64", "open"]), policy.clone()).await.unwrap();
    let mut lines = Lines::of(&mut running);
    assert_eq!(lines.next().await, format!("{} ok", second.display()));
    policy.delayed.subscribe().wait_for(|delayed| *delayed).await.unwrap();
    assert_eq!(running.exit(), None);
    policy.changes.send_replace(1);
    assert_eq!(lines.next().await, format!("{} ok", first.display()));
    assert_eq!(running.exited().await, Exit::Code(0));
    // Being stopped ends a delay too.
    std::fs::remove_file(&first).unwrap();
    policy.delayed.send_replace(false);
    let mut running = launch(trapping(&guest, &["open"]), policy.clone()).await.unwrap();
    assert_eq!(Lines::of(&mut running).next().await, format!("{} ok", second.display()));
    policy.delayed.subscribe().wait_for(|delayed| *delayed).await.unwrap();
    running.stop(Duration::from_secs(20)).await;
}

async fn children_are_included() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    let guest = ["parent", "parent", "write", text(&file)];
    let mut running = launch(trapping(&guest, &["write"]), Arc::new(By(deny_regular))).await.unwrap();
    assert_eq!(
        whole_output(&mut running).await,
        format!("{} errno 5\nchild true\nchild true\n", file.display())
    );
}

async fn many_threads_each_get_their_answer() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    // Every other write fails, whoever makes it.
    let policy = By(move |call: &SyscallCall<'_>| {
        let mut seen = count.lock().unwrap();
        if !names(call, "data") {
            return SyscallAct::Continue;
        }
        *seen += 1;
        if *seen % 2 == 0 { SyscallAct::Errno(libc::EIO) } else { SyscallAct::Continue }
    });
    let mut running =
        launch(trapping(&["threads", text(&file)], &["write"]), Arc::new(policy)).await.unwrap();
    assert_eq!(whole_output(&mut running).await, "failed 800\n");
    assert_eq!(*seen.lock().unwrap(), 1600);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 800);
}

async fn targets_are_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let dir = std::fs::canonicalize(dir.path()).unwrap();
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::write(dir.join("data"), "x").unwrap();
    std::os::unix::fs::symlink("data", dir.join("link")).unwrap();
    let _listener = UnixListener::bind(dir.join("sock")).unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, root) = (seen.clone(), dir.clone());
    let policy = By(move |call: &SyscallCall<'_>| {
        let (path, regular) = match &call.target {
            SyscallTarget::File { path, kind } => (path, *kind == Kind::File),
            SyscallTarget::UnixPeer(path) => (path, false),
            _ => return SyscallAct::Continue,
        };
        if let Ok(path) = path.strip_prefix(&root) {
            log.lock().unwrap().push(format!(
                "{} {} {} {regular}",
                call.families[0],
                call.name,
                path.display()
            ));
        }
        if call.families.contains(&"fsync") { SyscallAct::Errno(libc::ENOSPC) } else { SyscallAct::Continue }
    });
    let families = ["open", "rename", "unlink", "fsync", "connect"];
    let mut running = launch(trapping(&["files", text(&dir)], &families), Arc::new(policy)).await.unwrap();
    let output = whole_output(&mut running).await;
    assert_eq!(
        output,
        "open ok\nlink ok\nrename ok\nunlink ok\nfsync errno 28\nfdatasync errno 28\nunix ok\n"
    );
    let wanted = [
        "open openat data true",
        "open openat data true",
        "rename rename renamed true",
        "unlink unlink link false",
        "open openat renamed true",
        "fsync fsync renamed true",
        "fsync fdatasync renamed true",
        "connect connect sock false",
    ];
    let mut seen = seen.lock().unwrap().clone();
    // Other architectures have only the `at` forms.
    seen.iter_mut()
        .for_each(|line| *line = line.replace("renameat2", "rename").replace("unlinkat", "unlink"));
    // What the link led to was renamed before it was removed.
    assert_eq!(seen, wanted.map(|line| line.replace("link false", "link true")));
}

async fn a_caller_killed_meanwhile_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (doomed, later) = (dir.path().join("doomed"), dir.path().join("later"));
    let (tell, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let policy = By(move |call: &SyscallCall<'_>| {
        if names(call, "doomed") {
            tell.send(call.pid).unwrap();
            wait.lock().unwrap().recv().unwrap();
        }
        if names(call, "later") { SyscallAct::Errno(libc::EDQUOT) } else { SyscallAct::Continue }
    });
    let guest = ["after", text(&later), "write", text(&doomed)];
    let mut running = launch(trapping(&guest, &["write"]), Arc::new(policy)).await.unwrap();
    let mut lines = Lines::of(&mut running);
    let pid = tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    go_on.send(()).unwrap();
    assert_eq!(lines.next().await, "child false");
    assert_eq!(lines.next().await, format!("{} errno 122", later.display()));
    assert_eq!(running.exited().await, Exit::Code(0));
    assert_eq!(running.trouble(), None);
}

async fn a_policy_that_panics_lets_pass() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    // The panic is meant: no need to tell of it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let policy = By(|call: &SyscallCall<'_>| {
        assert!(!names(call, "data"), "on purpose");
        SyscallAct::Continue
    });
    let mut running = launch(trapping(&["write", text(&file)], &["write"]), Arc::new(policy)).await.unwrap();
    let output = whole_output(&mut running).await;
    std::panic::set_hook(hook);
    assert_eq!(output, format!("{} ok\n", file.display()));
    assert_eq!(running.trouble().unwrap(), "the policy panicked on a write of 'guest'");
}

async fn a_shared_network_remaps_ports() {
    let shared = |name: &str| Launch {
        isolation: Isolation::Shared,
        declared_ports: vec![8080],
        ..plan(&["serve", "8080", name])
    };
    let mut a = launch(shared("a"), Arc::new(Quiet)).await.unwrap();
    let mut b = launch(shared("b"), Arc::new(Quiet)).await.unwrap();
    for running in [&mut a, &mut b] {
        assert_eq!(Lines::of(running).next().await, "ready");
        let bound = running.bound(8080).unwrap();
        assert!(bound.ip().is_loopback() && bound.port() != 8080, "{bound}");
    }
    assert_eq!(ask(&a.dial(8080)).await, "a got who");
    assert_eq!(ask(&b.dial(8080)).await, "b got who");
}

/// Who holds connections to a socket: their ids, and then their ends.
struct Held {
    listener: tokio::net::UnixListener,
    held: BTreeMap<u32, tokio::io::BufReader<tokio::net::UnixStream>>,
}

impl Held {
    fn at(path: &Path) -> Self {
        Held { listener: tokio::net::UnixListener::bind(path).unwrap(), held: BTreeMap::new() }
    }
    async fn wait_for(&mut self, count: usize) {
        while self.held.len() < count {
            let (stream, _) = self.listener.accept().await.unwrap();
            // As it is known here: it may know itself by another number.
            let pid = stream.peer_cred().unwrap().pid().unwrap();
            let mut stream = tokio::io::BufReader::new(stream);
            stream.read_line(&mut String::new()).await.unwrap();
            self.held.insert(pid.cast_unsigned(), stream);
        }
    }
    /// Returns when all of them are dead.
    async fn all_dead(self) {
        for (_, mut stream) in self.held {
            // A reset is an end as well.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    fn none_lives(&self) {
        for pid in self.held.keys() {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
        }
    }
}

/// Whether process ids are its own: both ways where the host permits.
fn own_or_not() -> &'static [bool] {
    match probe_host(&me()).has(Feature::MountNamespace) {
        Ok(()) => &[false, true],
        Err(_) => &[false],
    }
}

fn holding(pids: &bool, guest: &[&str]) -> Launch {
    Launch { mediation: Mediation { pids: *pids, ..Mediation::default() }, ..plan(guest) }
}

async fn stop_leaves_no_process() {
    for pids in own_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("held");
        let mut held = Held::at(&socket);
        let mut running =
            launch(holding(pids, &["hold", text(&socket), "2"]), Arc::new(Quiet)).await.unwrap();
        // The service, two children in groups of their own, two whose parents are gone.
        held.wait_for(5).await;
        assert!(held.held.contains_key(&running.pid));
        assert_eq!(running.stop(Duration::from_millis(1)).await, Exit::Signal(libc::SIGKILL));
        held.none_lives();
        // Its output has ended too.
        let mut output = running.output().unwrap();
        while output.recv().await.is_some() {}
    }
}

async fn dropping_leaves_no_process() {
    for pids in own_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("held");
        let mut held = Held::at(&socket);
        let running = launch(holding(pids, &["hold", text(&socket), "2"]), Arc::new(Quiet)).await.unwrap();
        held.wait_for(5).await;
        drop(running);
        held.all_dead().await;
    }
}

async fn its_threads_end_with_it() {
    let mut running = launch(trapping(&["parent", "environment"], &["read"]), Arc::new(Quiet)).await.unwrap();
    whole_output(&mut running).await;
    running.stop(Duration::ZERO).await;
    let ours = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("syscalls of") || name.starts_with("helper of")).count()
    };
    while ours() > 0 {
        tokio::task::yield_now().await;
    }
}

async fn our_own_death_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("held");
    let mut held = Held::at(&socket);
    let mut driver = Command::new(me()).args(["guest", "driver", text(&socket)]).spawn().unwrap();
    held.wait_for(5).await;
    driver.kill().unwrap();
    driver.wait().unwrap();
    held.all_dead().await;
    // Nor did it see its supervisor vanish.
    assert!(!dir.path().join("held.enosys").exists());
}

async fn the_helpers_death_is_noticed() {
    for pids in own_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("held");
        let mut held = Held::at(&socket);
        let running = launch(holding(pids, &["hold", text(&socket), "0"]), Arc::new(Quiet)).await.unwrap();
        held.wait_for(1).await;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid)).unwrap();
        let helper: i32 =
            stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        assert_eq!(running.exited().await, Exit::Unknown);
        held.all_dead().await;
        assert_eq!(running.stop(Duration::ZERO).await, Exit::Unknown);
        assert!(running.dial(80).dial().await.is_err());
    }
}

// ---------------------------------------------------------------- time and randomness

/// What was given, in order; and what the host was asked.
#[derive(Default)]
struct Noting(Mutex<Vec<&'static str>>, Mutex<BTreeMap<Asked, usize>>);

impl SyscallPolicy for Noting {
    fn decide(&self, _: &SyscallCall<'_>) -> SyscallDecision {
        SyscallDecision::CONTINUE
    }
    fn given(&self, given: &Given) {
        self.0.lock().unwrap().push(given.call);
    }
    fn asked(&self, asked: Asked) {
        *self.1.lock().unwrap().entry(asked).or_default() += 1;
    }
}

fn mediation(seed: u64) -> Mediation {
    Mediation {
        clock: Some(Arc::default()),
        entropy: Some(Entropy::of(Key::of_run(seed))),
        ..Mediation::default()
    }
}

/// Compiles a guest that is written in C.
fn compiled(dir: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guests/{name}.c"));
    let program = dir.join(format!("{name}{}", flags.concat()));
    let made = Command::new("cc").args(flags).arg("-o").arg(&program).arg(source).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    program
}

async fn time_and_randomness_of_c_programs() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [&[][..], &["-static"]] {
        let program = compiled(dir.path(), "time", flags);
        let mut seen = Vec::new();
        for seed in [1, 1, 2] {
            let (mediation, policy) = (mediation(seed), Arc::new(Noting::default()));
            let clock = mediation.clock.clone().unwrap();
            let launched = Launch { program: program.clone(), mediation, ..plan(&[]) };
            let mut running = launch(launched, policy.clone()).await.unwrap();
            let mut lines = Lines::of(&mut running);
            let mut said = Vec::new();
            // Both processes have looked at the clock before it moves.
            while said.iter().filter(|line: &&String| line.starts_with("child") || *line == "parent").count()
                < 2
            {
                said.push(lines.next().await);
            }
            clock.advance(Duration::from_secs(5));
            said.push(lines.next().await);
            said.push(lines.next().await);
            assert_eq!(running.exited().await, Exit::Code(0));
            assert_eq!(running.trouble(), None);
            // Its C library asks as well.
            let mut given = std::mem::take(&mut *policy.0.lock().unwrap());
            given.dedup();
            assert_eq!(given, ["AT_RANDOM", "getrandom", "/dev/urandom"]);
            said.sort();
            seen.push(said);
        }
        let began = BEGINNING_NS / 1_000_000_000;
        let mut told = vec![
            "sem_timedwait timed out after its time".to_owned(),
            "sem_timedwait timed out after its time".to_owned(),
            "clock_nanosleep after its time".to_owned(),
            "parent".to_owned(),
            format!("parent {}", began + 5),
            format!("child {began}"),
            format!("child {}", began + 5),
            format!("clock_gettime {began}.000000000"),
            format!("coarse {began}.000000000"),
            format!("syscall {began}.000000000"),
            format!("gettimeofday {began}.000000"),
            format!("time {began} {began}"),
        ];
        told.sort();
        let random =
            |line: &&String| ["AT_RANDOM", "getrandom", "urandom"].iter().any(|w| line.starts_with(w));
        let rest: Vec<&String> = seen[0].iter().filter(|line| !random(line)).collect();
        assert_eq!(rest, told.iter().collect::<Vec<_>>());
        assert_eq!(seen[0], seen[1]);
        for line in seen[0].iter().filter(random) {
            assert!(!seen[2].contains(line), "another seed, and yet {line}");
        }
    }
}

async fn what_is_asked_of_the_host_is_told() {
    let policy = Arc::new(Noting::default());
    let mediation = Mediation { watched: true, ..Mediation::default() };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    // Nobody listens there in a network of its own.
    let guest = ["parent", "call", &address.to_string()];
    let shared = Launch { mediation, isolation: Isolation::Shared, ..plan(&guest) };
    let answering = std::thread::spawn(move || drop(server.accept().unwrap().0.write_all(b"x")));
    let mut running = launch(shared, policy.clone()).await.unwrap();
    whole_output(&mut running).await;
    answering.join().unwrap();
    assert_eq!(running.trouble(), None);
    let dir = tempfile::tempdir().unwrap();
    let mediation = Mediation { watched: true, ..Mediation::default() };
    let launched = Launch { program: compiled(dir.path(), "time", &[]), mediation, ..plan(&[]) };
    let mut running = launch(launched, policy.clone()).await.unwrap();
    let output = whole_output(&mut running).await;
    let told = policy.1.lock().unwrap().clone();
    for asked in [
        Asked::Peer(address),
        Asked::Time("clock_gettime"),
        Asked::Time("gettimeofday"),
        Asked::Time("time"),
        Asked::Randomness("AT_RANDOM"),
        Asked::Randomness("getrandom"),
        Asked::Randomness("/dev/urandom"),
    ] {
        assert!(told.contains_key(&asked), "{asked:?} in {told:?} of {output}");
    }
    assert_eq!(*policy.0.lock().unwrap(), Vec::<&str>::new(), "nothing was changed");
}

async fn a_clock_moves_in_every_process() {
    for guest in [&["watch"][..], &["parent", "watch"]] {
        let mediation = mediation(1);
        let clock = mediation.clock.clone().unwrap();
        let mut running = launch(Launch { mediation, ..plan(guest) }, Arc::new(Quiet)).await.unwrap();
        let mut lines = Lines::of(&mut running);
        assert_eq!(lines.next().await, format!("{BEGINNING_NS} {BEGINNING_NS}"));
        clock.advance(Duration::from_millis(1));
        assert_eq!(lines.next().await, (BEGINNING_NS + 1_000_000).to_string());
        assert_eq!(running.exited().await, Exit::Code(0));
        assert_eq!(running.trouble(), None);
    }
}

async fn process_ids_of_its_own() {
    let shell = |script: &str, families: &[&str]| Launch {
        program: PathBuf::from("/bin/sh"),
        args: vec!["-c".to_owned(), script.to_owned()],
        mediation: Mediation { pids: true, ..Mediation::default() },
        ..trapping(&[], families)
    };
    let mut said = Vec::new();
    for families in [&[][..], &["write"]] {
        for _ in 0..2 {
            let script = "echo $$ $PPID; sh -c 'echo $$ $PPID'; readlink /proc/self; cat /proc/1/comm";
            let mut running = launch(shell(script, families), Arc::new(Quiet)).await.unwrap();
            assert_ne!(running.pid, 2, "outside it has another");
            said.push(whole_output(&mut running).await);
        }
    }
    assert_eq!(said[0], "2 0\n4 2\n5\nfaultbox-init\n");
    assert!(said.iter().all(|other| *other == said[0]), "{said:?}");
    // It is not the first process of the namespace, which no signal ends.
    let running = launch(shell("kill -TERM $$", &[]), Arc::new(Quiet)).await.unwrap();
    assert_eq!(running.exited().await, Exit::Signal(libc::SIGTERM));
    // A rule finds its files under their names, although it has mounts of its own.
    let (files, calls) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let file = files.path().join("data");
    let noted = calls.clone();
    let policy = By(move |call: &SyscallCall<'_>| {
        noted.lock().unwrap().push(format!("{:?}", call.target));
        SyscallAct::Continue
    });
    let script = format!("echo something >{}", text(&file));
    let mut running = launch(shell(&script, &["write"]), Arc::new(policy)).await.unwrap();
    whole_output(&mut running).await;
    let calls = calls.lock().unwrap();
    assert!(calls.iter().any(|call| call.contains(text(&file))), "{calls:?}");
}

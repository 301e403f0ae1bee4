//! What can be done to a call, and what it is found to be about.

use super::*;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, UnixAddr, sendmsg, socket};
use std::io::{IoSlice, Seek};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::os::unix::process::ExitStatusExt;

pub fn cases() -> Vec<(&'static str, Needs, Run)> {
    vec![
        ("a_part_of_a_file_is_moved", Needs::TrapsAndSockets, || Box::pin(a_part_of_a_file_is_moved())),
        ("a_part_of_a_stream_is_moved", Needs::TrapsAndSockets, || Box::pin(a_part_of_a_stream_is_moved())),
        ("a_waiting_part_ends_with_its_service", Needs::TrapsAndSockets, || {
            Box::pin(a_waiting_part_ends_with_its_service())
        }),
        ("a_signal_comes_instead_of_the_call", Needs::Traps, || {
            Box::pin(a_signal_comes_instead_of_the_call())
        }),
        ("a_pause_and_a_failure_compose", Needs::Traps, || Box::pin(a_pause_and_a_failure_compose())),
        ("peers_are_found", Needs::TrapsAndSockets, || Box::pin(peers_are_found())),
        ("kinds_and_names_are_told", Needs::Traps, || Box::pin(kinds_and_names_are_told())),
        ("files_without_a_name_or_a_root_of_their_own", Needs::Traps, || {
            Box::pin(files_without_a_name_or_a_root_of_their_own())
        }),
        ("every_family_at_once", Needs::Traps, || Box::pin(every_family_at_once())),
        ("a_process_cannot_be_made", Needs::Traps, || Box::pin(a_process_cannot_be_made())),
        ("a_policy_that_never_answers_is_stopped", Needs::Traps, || {
            Box::pin(a_policy_that_never_answers_is_stopped())
        }),
        ("programs_of_every_language", Needs::Traps, || Box::pin(programs_of_every_language())),
    ]
}

// ---------------------------------------------------------------- guests

pub fn guest(words: &[&str]) {
    match words {
        ["file", path] => file(path),
        ["streams"] => streams(),
        ["wait"] => {
            let (mut a, _b) = UnixStream::pair().unwrap();
            println!("waiting");
            let _ = a.read(&mut [0; 8]);
        }
        ["signal", path] => {
            println!("write {:?}", File::create(path).unwrap().write(b"x").map_err(|e| e.raw_os_error()))
        }
        ["killed", guest @ ..] => {
            let status = Command::new(me()).args(["guest", "faults"]).args(guest).status().unwrap();
            println!("child {:?}", status.signal());
        }
        ["peers", dir, v4, v6] => peers(dir, v4, v6),
        ["kinds", dir] => kinds(Path::new(dir)),
        ["nameless", dir, root] => nameless(Path::new(dir), Path::new(root)),
        ["spawn"] => match Command::new("/bin/true").status() {
            Ok(status) => println!("ok {}", status.success()),
            failed => println!("{}", outcome(failed)),
        },
        other => panic!("no guest {other:?}"),
    }
}

/// Every call that moves bytes of a file, ten each; and where the file stands afterwards.
fn file(path: &str) {
    let mut file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let parts = [IoSlice::new(b"01"), IoSlice::new(b"23456789")];
    println!("write {}", file.write(b"0123456789").unwrap());
    println!("writev {}", file.write_vectored(&parts).unwrap());
    println!("pwrite {}", file.write_at(b"0123456789", 20).unwrap());
    println!("at {}", file.stream_position().unwrap());
    file.rewind().unwrap();
    let mut bytes = [b'.'; 10];
    println!("read {} {}", file.read(&mut bytes).unwrap(), String::from_utf8_lossy(&bytes));
    let (mut a, mut b) = ([b'.'; 2], [b'.'; 8]);
    let mut parts = [std::io::IoSliceMut::new(&mut a), std::io::IoSliceMut::new(&mut b)];
    let read = file.read_vectored(&mut parts).unwrap();
    println!("readv {read} {}{}", String::from_utf8_lossy(&a), String::from_utf8_lossy(&b));
    let mut bytes = [b'.'; 10];
    println!("pread {} {}", file.read_at(&mut bytes, 1).unwrap(), String::from_utf8_lossy(&bytes));
    println!("at {}", file.stream_position().unwrap());
}

fn streams() {
    let (mut a, mut b) = UnixStream::pair().unwrap();
    // The reader waits before there is anything.
    let reader = std::thread::spawn(move || {
        let mut bytes = [b'.'; 10];
        let read = b.read(&mut bytes).unwrap();
        (b, format!("waited {read} {}", String::from_utf8_lossy(&bytes)))
    });
    println!("socket {}", a.write(b"0123456789").unwrap());
    let (mut b, said) = reader.join().unwrap();
    println!("{said}");
    b.set_nonblocking(true).unwrap();
    let mut bytes = [0; 10];
    while b.read(&mut bytes).is_ok() {}
    println!("empty {}", outcome(b.read(&mut bytes)));
    b.set_nonblocking(false).unwrap();
    b.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
    println!("timeout {}", outcome(b.read(&mut bytes)));
    drop(b);
    println!("broken {}", outcome(a.write(b"0123456789")));
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    println!("pipe {}", writer.write(b"0123456789").unwrap());
    println!("pipe {}", reader.read(&mut bytes).unwrap());
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    a.connect(b.local_addr().unwrap()).unwrap();
    println!("datagram {}", a.send(b"0123456789").unwrap());
}

/// Calls to peers of every kind.
fn peers(dir: &str, v4: &str, v6: &str) {
    std::env::set_current_dir(dir).unwrap();
    let mut first = TcpStream::connect(v4).unwrap();
    first.write_all(b"over a connection").unwrap();
    drop(TcpStream::connect(v6));
    let mut unix = UnixStream::connect("sock").unwrap();
    unix.write_all(b"x").unwrap();
    let name = UnixAddress::from_abstract_name(dir).unwrap();
    let mut hidden = UnixStream::connect_addr(&name).unwrap();
    hidden.write_all(b"x").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.send_to(b"x", v4).unwrap();
    let peer: std::net::SocketAddrV4 = v4.parse().unwrap();
    let (part, to) = ([IoSlice::new(b"x")], SockaddrIn::from(peer));
    sendmsg(udp.as_raw_fd(), &part, &[], MsgFlags::empty(), Some(&to)).unwrap();
    let local = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::empty(), None).unwrap();
    let to = UnixAddr::new("dgram").unwrap();
    sendmsg(local.as_raw_fd(), &part, &[], MsgFlags::empty(), Some(&to)).unwrap();
}

/// A byte to each kind of descriptor.
fn kinds(dir: &Path) {
    let mut file = File::create(dir.join("file")).unwrap();
    file.write_all(b"x").unwrap();
    let (mut a, _b) = UnixStream::pair().unwrap();
    a.write_all(b"x").unwrap();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let memory = nix::sys::memfd::memfd_create(c"memory", nix::sys::memfd::MFdFlags::empty()).unwrap();
    File::from(memory).write_all(b"x").unwrap();
    File::options().write(true).open("/dev/null").unwrap().write_all(b"x").unwrap();
    if let Ok(mut tty) = File::options().read(true).write(true).open("/dev/ptmx") {
        tty.write_all(b"x").unwrap();
    }
    let worker = std::thread::Builder::new().name("worker".to_owned());
    let path = dir.join("worker");
    worker.spawn(move || std::fs::write(path, "x").unwrap()).unwrap().join().unwrap();
}

/// Files whose name is not what it seems: relative to a folder, removed, behind another root.
fn nameless(dir: &Path, root: &Path) {
    let folder = File::open(dir).unwrap();
    let flags = nix::fcntl::OFlag::O_CREAT | nix::fcntl::OFlag::O_RDWR;
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    let file = File::from(nix::fcntl::openat(&folder, "sub/../at", flags, mode).unwrap());
    std::fs::remove_file(dir.join("at")).unwrap();
    file.sync_all().unwrap();
    if nix::unistd::chroot(root).is_ok() {
        std::env::set_current_dir("/").unwrap();
        drop(File::create("/inside").unwrap());
        drop(File::create("relative").unwrap());
        println!("chroot");
    }
}

// ---------------------------------------------------------------- the cases

/// At most so many bytes of every call that moves more.
fn at_most(most: u64) -> impl Fn(&SyscallCall<'_>) -> SyscallAct + Send + Sync {
    move |call| match call.bytes {
        // What it prints is whole.
        Some(bytes) if bytes == 10 && bytes > most => SyscallAct::AtMost(most),
        _ => SyscallAct::Continue,
    }
}

async fn a_part_of_a_file_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let plan = trapping(&["faults", "file", text(&path)], &["write", "read"]);
    let mut running = launch(plan, Arc::new(By(at_most(4)))).await.unwrap();
    let said = whole_output(&mut running).await;
    let wanted = "write 4\nwritev 4\npwrite 4\nat 8\nread 4 0123......\nreadv 4 0123......\npread 4 1230......\nat 8\n";
    assert_eq!(said, wanted);
    assert_eq!(std::fs::read(&path).unwrap(), [&b"01230123"[..], &[0; 12], b"0123"].concat());
    assert_eq!(running.trouble(), None);
}

async fn a_part_of_a_stream_is_moved() {
    let plan = trapping(&["faults", "streams"], &["write", "read", "send", "recv"]);
    let mut running = launch(plan, Arc::new(By(at_most(4)))).await.unwrap();
    let said = whole_output(&mut running).await;
    let wanted = "socket 4\nwaited 4 0123......\nempty errno 11\ntimeout errno 11\nbroken errno 32\n\
                  pipe 4\npipe 4\ndatagram 10\n";
    assert_eq!(said, wanted);
    assert_eq!(running.trouble(), None);
}

async fn a_waiting_part_ends_with_its_service() {
    let (tell, mut told) = watch::channel(false);
    let policy = By(move |call: &SyscallCall<'_>| match call.bytes {
        Some(8) => {
            tell.send_replace(true);
            SyscallAct::AtMost(1)
        }
        _ => SyscallAct::Continue,
    });
    let running = launch(trapping(&["faults", "wait"], &["read", "recv"]), Arc::new(policy)).await.unwrap();
    told.wait_for(|waits| *waits).await.unwrap();
    assert_eq!(running.stop(Duration::from_secs(20)).await, Exit::Signal(libc::SIGTERM));
    let ours = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("syscalls of")).count()
    };
    while ours() > 0 {
        tokio::task::yield_now().await;
    }
}

async fn a_signal_comes_instead_of_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let kill = |signal: i32| {
        By(move |call: &SyscallCall<'_>| match names(call, "data") {
            true => SyscallAct::Kill(signal),
            false => SyscallAct::Continue,
        })
    };
    let guest = ["faults", "killed", "signal", text(&path)];
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGABRT] {
        let mut running = launch(trapping(&guest, &["write"]), Arc::new(kill(signal))).await.unwrap();
        assert_eq!(whole_output(&mut running).await, format!("child Some({signal})\n"));
        assert_eq!(std::fs::read(&path).unwrap(), b"", "the call was not made");
        assert_eq!(running.trouble(), None);
    }
    // One that is survived.
    let guest = ["faults", "signal", text(&path)];
    let mut running = launch(trapping(&guest, &["write"]), Arc::new(kill(libc::SIGURG))).await.unwrap();
    assert_eq!(whole_output(&mut running).await, "write Err(Some(4))\n");
}

struct Late(watch::Sender<bool>);

impl SyscallPolicy for Late {
    fn decide(&self, call: &SyscallCall<'_>) -> SyscallDecision {
        if !names(call, "data") {
            return SyscallDecision::CONTINUE;
        }
        self.0.send_replace(true);
        SyscallDecision { pause: Duration::from_millis(5), act: SyscallAct::Errno(libc::EROFS) }
    }
}

async fn a_pause_and_a_failure_compose() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let policy = Arc::new(Late(watch::channel(false).0));
    let mut running = launch(trapping(&["write", text(&path)], &["write"]), policy.clone()).await.unwrap();
    assert_eq!(whole_output(&mut running).await, format!("{} errno 30\n", path.display()));
    assert!(*policy.0.borrow());
}

async fn peers_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = std::fs::canonicalize(dir.path()).unwrap();
    let _unix = UnixListener::bind(dir.join("sock")).unwrap();
    let _dgram = std::os::unix::net::UnixDatagram::bind(dir.join("dgram")).unwrap();
    let hidden = UnixAddress::from_abstract_name(text(&dir)).unwrap();
    let _hidden = UnixListener::bind_addr(&hidden).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let v4 = server.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let policy = By(move |call: &SyscallCall<'_>| {
        let peer = match &call.target {
            SyscallTarget::Fd { peer: Some(peer), .. } => format!("connected {peer:?}"),
            SyscallTarget::File { .. } | SyscallTarget::Fd { .. } => return SyscallAct::Continue,
            target => format!("{target:?}"),
        };
        log.lock().unwrap().push(format!("{} {peer}", call.families[0]));
        SyscallAct::Continue
    });
    let v4_text = v4.to_string();
    let guest = ["faults", "peers", text(&dir), &v4_text, "[::1]:9"];
    // The host's network, where the abstract name is known.
    let plan = Launch { isolation: Isolation::Shared, ..trapping(&guest, &["connect", "send", "write"]) };
    let mut running = launch(plan, Arc::new(policy)).await.unwrap();
    whole_output(&mut running).await;
    let named = |name: &str| format!("UnixPeer({:?})", dir.join(name));
    let hidden = format!("UnixPeer({:?})", format!("@{}", dir.display()));
    let wanted = [
        format!("connect Peer({v4})"),
        format!("send connected Peer({v4})"),
        "connect Peer([::1]:9)".to_owned(),
        format!("connect {}", named("sock")),
        format!("send connected {}", named("sock")),
        format!("connect {hidden}"),
        format!("send connected {hidden}"),
        format!("send Peer({v4})"),
        format!("send Peer({v4})"),
        format!("send {}", named("dgram")),
    ];
    let mut seen = seen.lock().unwrap().clone();
    // Whether a connection is written to by `write` or by `send` is the standard library's to say.
    seen.iter_mut().for_each(|line| *line = line.replace("write connected", "send connected"));
    assert_eq!(seen, wanted);
}

async fn kinds_and_names_are_told() {
    type Writer = (Kind, Vec<String>);
    let dir = tempfile::tempdir().unwrap();
    let seen: Arc<Mutex<Vec<Writer>>> = Arc::default();
    let log = seen.clone();
    let policy = By(move |call: &SyscallCall<'_>| {
        let (SyscallTarget::File { kind, .. } | SyscallTarget::Fd { kind, .. }) = &call.target else {
            return SyscallAct::Continue;
        };
        if call.bytes == Some(1) {
            log.lock().unwrap().push((*kind, call.process.clone()));
        }
        SyscallAct::Continue
    });
    let guest = ["faults", "kinds", text(dir.path())];
    let mut running = launch(trapping(&guest, &["write", "send"]), Arc::new(policy)).await.unwrap();
    whole_output(&mut running).await;
    let seen = seen.lock().unwrap().clone();
    let mut kinds: Vec<Kind> = seen.iter().map(|(kind, _)| *kind).collect();
    // Where there are no pseudo-terminals.
    if kinds.len() == 6 {
        kinds.insert(5, Kind::Tty);
    }
    let wanted = [Kind::File, Kind::Socket, Kind::Pipe, Kind::Memfd, Kind::Device, Kind::Tty, Kind::File];
    assert_eq!(kinds, wanted);
    let program = me().file_name().unwrap().to_string_lossy().into_owned();
    let by = |names: &[String]| (names[0] == program, names[1].clone());
    assert_eq!(by(&seen[seen.len() - 1].1), (true, "worker".to_owned()));
    assert!(by(&seen[0].1).0 && program.starts_with(&seen[0].1[1]), "{seen:?}");
}

async fn files_without_a_name_or_a_root_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let dir = std::fs::canonicalize(dir.path()).unwrap();
    let root = dir.join("root");
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    std::fs::create_dir(&root).unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, under) = (seen.clone(), dir.clone());
    let policy = By(move |call: &SyscallCall<'_>| {
        if let SyscallTarget::File { path, kind: Kind::File } = &call.target
            && let Ok(path) = path.strip_prefix(&under)
        {
            log.lock().unwrap().push(format!("{} {}", call.families[0], path.display()));
        }
        SyscallAct::Continue
    });
    let guest = ["faults", "nameless", text(&dir), text(&root)];
    let mut running = launch(trapping(&guest, &["open", "fsync", "unlink"]), Arc::new(policy)).await.unwrap();
    let said = whole_output(&mut running).await;
    let mut wanted = vec!["open at", "unlink at", "fsync at"];
    if said == "chroot\n" {
        wanted.extend(["open root/inside", "open root/relative"]);
    } else {
        println!("skipped: another root (not permitted)");
    }
    assert_eq!(*seen.lock().unwrap(), wanted);
}

async fn every_family_at_once() {
    let families: Vec<&str> = faultbox_engine::supervisor::family_names().collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    let seen: Arc<Mutex<std::collections::BTreeSet<&'static str>>> = Arc::default();
    let log = seen.clone();
    let policy = By(move |call: &SyscallCall<'_>| {
        log.lock().unwrap().extend(call.families.iter().copied());
        SyscallAct::Continue
    });
    let guest = ["parent", "parent", "write", text(&file)];
    let mut running = launch(trapping(&guest, &families), Arc::new(policy)).await.unwrap();
    assert_eq!(whole_output(&mut running).await, format!("{} ok\nchild true\nchild true\n", file.display()));
    let seen = seen.lock().unwrap();
    for family in ["memory", "mmap", "fork", "exec", "wait", "write", "open", "close", "read"] {
        assert!(seen.contains(family), "{family} in {seen:?}");
    }
}

async fn a_process_cannot_be_made() {
    for (family, errno) in [("fork", libc::EAGAIN), ("exec", libc::ENOMEM)] {
        let policy = By(move |call: &SyscallCall<'_>| match &call.target {
            // The service's own program is executed all the same.
            SyscallTarget::File { path, .. } if *path == me() => SyscallAct::Continue,
            _ => SyscallAct::Errno(errno),
        });
        let mut running = launch(trapping(&["faults", "spawn"], &[family]), Arc::new(policy)).await.unwrap();
        assert_eq!(whole_output(&mut running).await, format!("errno {errno}\n"));
    }
}

async fn a_policy_that_never_answers_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (tell, mut told) = watch::channel(false);
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let policy = By(move |call: &SyscallCall<'_>| {
        if names(call, "data") {
            tell.send_replace(true);
            let _ = wait.lock().unwrap().recv();
        }
        SyscallAct::Continue
    });
    let running = launch(trapping(&["write", text(&path)], &["write"]), Arc::new(policy)).await.unwrap();
    told.wait_for(|asked| *asked).await.unwrap();
    let exit = running.stop(Duration::from_millis(1)).await;
    assert!(matches!(exit, Exit::Signal(libc::SIGTERM | libc::SIGKILL)), "{exit:?}");
    drop(go_on);
}

/// A program that appends a byte to a file and says `ok`, or the error's number or name.
struct Written {
    language: &'static str,
    /// The program and what comes before its arguments; `Err` where it cannot be had.
    made: Result<Vec<PathBuf>, String>,
}

fn made(language: &'static str, command: &mut Command, program: Vec<PathBuf>) -> Written {
    let made = match command.output() {
        Ok(done) if done.status.success() => Ok(program),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).lines().next().unwrap_or("failed").to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Written { language, made }
}

fn programs(dir: &Path) -> Vec<Written> {
    let source = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests").join(name);
    let c = |language: &'static str, flags: &[&str]| {
        let program = dir.join(language.replace(' ', "-"));
        let mut cc = Command::new("cc");
        cc.args(flags).arg("-pthread").arg("-o").arg(&program).arg(source("writers.c"));
        made(language, &mut cc, vec![program])
    };
    let go = dir.join("go-writer");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&go).arg(source("writer.go")).env("GOCACHE", dir.join("go-cache"));
    build.env("GO111MODULE", "off").env("GOTOOLCHAIN", "local");
    // What is found may be a script that chooses one.
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let python = python.map(|said| PathBuf::from(String::from_utf8_lossy(&said.stdout).trim().to_owned()));
    let java = Command::new("java").args(["-XshowSettings:properties", "-version"]).output();
    let home = java.ok().and_then(|said| {
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        Some(PathBuf::from(said.lines().find_map(|line| line.trim().strip_prefix("java.home = "))?))
    });
    let mut javac = Command::new("javac");
    javac.arg("-d").arg(dir).arg(source("Writer.java"));
    let java = home.unwrap_or_default().join("bin/java");
    let node = Command::new("node").args(["-p", "process.execPath"]).output();
    let node = node.map(|said| PathBuf::from(String::from_utf8_lossy(&said.stdout).trim().to_owned()));
    let script = |language, found: std::io::Result<PathBuf>, name: &str| Written {
        language,
        made: found
            .map_err(|error| error.to_string())
            .and_then(|program| if program.is_file() { Ok(program) } else { Err("not installed".to_owned()) })
            .map(|program| vec![program, source(name)]),
    };
    vec![
        c("C", &[]),
        c("C static", &["-static"]),
        made("Go", &mut build, vec![go]),
        made(
            "Java",
            &mut javac,
            vec![java, "-Xshare:auto".into(), "-cp".into(), dir.to_owned(), "Writer".into()],
        ),
        script("Python", python, "writer.py"),
        script("Node", node, "writer.js"),
    ]
}

async fn programs_of_every_language() {
    let dir = tempfile::tempdir().unwrap();
    for Written { language, made } in programs(dir.path()) {
        let made = match made {
            Ok(made) => made,
            Err(why) => {
                // There `.ci/setup tests` has installed it.
                assert!(std::env::var_os("CI").is_none(), "skipped in CI: {language} ({why})");
                println!("skipped: {language} ({why})");
                continue;
            }
        };
        // C does it in a process of its own, a child by fork and one by vfork, and in a thread.
        let who: &[&str] =
            if language.starts_with('C') { &["self", "fork", "vfork", "thread"] } else { &["self"] };
        for who in who {
            let path = dir.path().join(format!("data-{who}"));
            let data = path.clone();
            let policy = By(move |call: &SyscallCall<'_>| match &call.target {
                SyscallTarget::File { path, .. } if *path == data => SyscallAct::Errno(libc::ENOSPC),
                _ => SyscallAct::Continue,
            });
            let (program, args) = made.split_first().unwrap();
            let mut args: Vec<String> = args.iter().map(|arg| arg.display().to_string()).collect();
            args.extend([text(&path).to_owned(), (*who).to_owned()]);
            let plan = Launch { program: program.clone(), args, ..trapping(&[], &["write"]) };
            let mut running = launch(plan, Arc::new(policy)).await.unwrap();
            assert_eq!(whole_output(&mut running).await.trim(), "full", "{language} {who}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "{language} {who}");
            assert_eq!(running.trouble(), None, "{language} {who}");
        }
    }
}

//! HTTP recorded and played back by Faultbox and by mitmproxy, requests per second on one connection.
//!
//! Question: what do others' recorders and players of HTTP do with the same client and server? Method: as of the
//! proxies; Faultbox's recorder and `mitmdump -w` as reverse proxies take turns, then what each recorded is played
//! back to the same client (`Tape` in a process of its own, `mitmdump --server-replay`), in turns too. Neither
//! knows a rule. mitmproxy writes flows to its file as they end; Faultbox writes a bundle.

use crate::clients::{Client, KINDS, Kind};
use crate::parts::Part;
use crate::{Way, median};
use faultbox_engine::clock::RunClock;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What is recorded is played back once, so it is little: a cell, not a load test.
const ROUNDS: usize = 10;

/// A process of mitmproxy's.
struct Mitmdump {
    child: Child,
    port: u16,
}

impl Mitmdump {
    /// Starts it as a reverse proxy of a server and waits until it listens.
    async fn start(program: &str, server: u16, args: &[&str]) -> Mitmdump {
        // It does not say which port the kernel chose: one that is free now.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let mode = format!("reverse:http://127.0.0.1:{server}");
        let mut command = Command::new(program);
        command.args(["--quiet", "--mode", &mode, "--listen-host", "127.0.0.1", "--listen-port"]);
        // What it says as it is interrupted is of no interest.
        let command = command.arg(port.to_string()).args(args).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        let child = child.expect("mitmdump starts");
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Mitmdump { child, port }
    }

    /// Asks it to end, and waits until its file is written.
    fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it is there");
        let _ = self.child.wait();
    }
}

impl Drop for Mitmdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn take_turns(ways: &mut [&mut Way], clock: &RunClock) {
    for way in ways.iter_mut() {
        way.warm().await;
    }
    for _ in 0..ROUNDS {
        for way in ways.iter_mut() {
            way.round(clock).await;
        }
    }
}

async fn way(kind: &'static Kind, port: u16, parts: Vec<Part>) -> Way {
    Way::over(Client::connect(kind, port).await, parts)
}

fn line(what: &str, direct: f64, ours: &mut Way, theirs: &mut Way) {
    let (faultbox, mitmproxy) = (median(&mut ours.rates), median(&mut theirs.rates));
    println!(
        "  {what:<10} Faultbox {faultbox:>6.0} ({:.0} us), mitmproxy {mitmproxy:>5.0} ({:.0} us), {:.1} times; direct {direct:.0}",
        ours.latency(0.5),
        theirs.latency(0.5),
        faultbox / mitmproxy
    );
}

/// Measures with this `mitmdump`.
pub async fn measure(mitmdump: &str) {
    let kind = &KINDS[0];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = RunClock::start();
    let mut direct = Way::open(kind, "direct", folder.path()).await;
    let mut ours = Way::open(kind, "proxy", folder.path()).await;
    let server = Part::start(&["__server", kind.protocol, &folder.path().display().to_string(), "0"]);
    let flows = folder.path().join("flows").display().to_string();
    let peer = Mitmdump::start(mitmdump, server.port, &["-w", &flows]).await;
    let mut theirs = way(kind, peer.port, vec![server]).await;
    println!("HTTP recorded and played back, requests per second on one connection (p50):");
    take_turns(&mut [&mut direct, &mut ours, &mut theirs], &clock).await;
    let plain = median(&mut direct.rates);
    line("recording", plain, &mut ours, &mut theirs);
    let asked = ours.asked;
    direct.end();
    theirs.end();
    peer.end();
    assert!(ours.end().is_some_and(|noted| noted >= asked), "a request is missing in the bundle");
    played(kind, mitmdump, folder.path(), &flows, plain, &clock).await;
}

async fn played(
    kind: &'static Kind,
    mitmdump: &str,
    folder: &Path,
    flows: &str,
    plain: f64,
    clock: &RunClock,
) {
    let tape = Part::start(&["__tape", &folder.display().to_string()]);
    let mut ours = way(kind, tape.port, vec![tape]).await;
    let mut args = vec!["--server-replay", flows];
    let options = [
        "server_replay_reuse=true",
        "server_replay_extra=404",
        "server_replay_ignore_port=true",
        "connection_strategy=lazy",
    ];
    args.extend(options.iter().flat_map(|option| ["--set", option]));
    // There is nobody at the port behind it.
    let peer = Mitmdump::start(mitmdump, 1, &args).await;
    let mut theirs = way(kind, peer.port, Vec::new()).await;
    take_turns(&mut [&mut ours, &mut theirs], clock).await;
    line("playing", plain, &mut ours, &mut theirs);
    ours.end();
    peer.end();
}

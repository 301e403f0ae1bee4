//! What real servers pay for being a service, and for a filter on `write` while no rule is active: Redis asked by
//! `redis-benchmark`, MariaDB asked by `sysbench`.
//!
//! Method: each server runs without Faultbox, as a service for which there is no rule, and as one with every call of
//! the family `write` trapped and let pass; all three are up together, on sockets of their own, and take turns. Figures
//! are what the client says, medians of the rounds.

use super::clock::{median, service};
use faultbox_engine::supervisor::{Launch, Quiet, Running, launch};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Turns of each way.
const ROUNDS: usize = 9;
/// Transactions of `sysbench` in a turn, of 20 statements each, from four threads.
const TRANSACTIONS: &str = "400";
/// What `redis-benchmark`'s 50 clients ask before they wait for an answer, and how much in a turn.
const PIPELINES: [(&str, &str); 2] = [("1", "100000"), ("16", "1000000")];
/// How often a server that starts is asked whether it has.
const OFTEN: Duration = Duration::from_millis(50);

/// How a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    WithoutFaultbox,
    NoRule,
    NoRuleActive,
}

const WAYS: [Way; 3] = [Way::WithoutFaultbox, Way::NoRule, Way::NoRuleActive];

enum Process {
    Alone(Child),
    Service(Running),
}

/// A server, up.
struct Up {
    process: Process,
    socket: PathBuf,
}

impl Up {
    /// Starts a server and waits until its socket is there.
    async fn start(program: &str, args: &[String], socket: PathBuf, way: Way) -> Up {
        let program = std::fs::canonicalize(program).expect("a program");
        let process = match way {
            Way::WithoutFaultbox => {
                let mut command = Command::new(program);
                let command = command.args(args).current_dir("/").stdin(Stdio::null());
                Process::Alone(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server"))
            }
            Way::NoRule | Way::NoRuleActive => {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let families =
                    if way == Way::NoRule { Default::default() } else { ["write".to_owned()].into() };
                let service = Launch { program, families, ..service("server", &args) };
                let mut running = launch(service, Arc::new(Quiet)).await.expect("a server");
                let mut output = running.output().expect("its output");
                // Nobody reads it; it must not be in its way.
                tokio::spawn(async move { while output.recv().await.is_some() {} });
                Process::Service(running)
            }
        };
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(OFTEN).await;
        }
        Up { process, socket }
    }

    async fn end(self) {
        match self.process {
            Process::Alone(mut child) => {
                child.kill().expect("it runs");
                child.wait().expect("it has ended");
            }
            Process::Service(running) => {
                running.stop(Duration::from_secs(10)).await;
            }
        }
    }
}

/// What a client prints.
fn said(program: &str, args: &[&str]) -> String {
    let said = Command::new(program).args(args).output().expect("a client");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&said.stderr));
    text
}

fn line(what: &str, rates: &mut [Vec<f64>; 3]) {
    let [alone, service, filtered] = rates.each_mut().map(|rates| median(rates));
    println!(
        "  {what:<38} {alone:>8.0} without Faultbox, {service:>8.0} with no rule ({:.2}), {filtered:>8.0} with none active ({:.2})",
        service / alone,
        filtered / alone
    );
}

/// Prints both servers' figures. `programs`: `redis-server`, `redis-benchmark`, `mariadbd`, `sysbench`.
pub async fn measure(programs: &[String]) {
    let [redis, redis_benchmark, mariadb, sysbench] = programs else {
        panic!("wanted: REDIS_SERVER REDIS_BENCHMARK MARIADBD SYSBENCH");
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!(
        "Servers without Faultbox, with no rule, with each write trapped and no rule active, a second, median of {ROUNDS}:"
    );
    ask_redis(redis, redis_benchmark, folder.path()).await;
    ask_mariadb(mariadb, sysbench, folder.path()).await;
}

async fn ask_redis(server: &str, client: &str, folder: &Path) {
    let mut ways = Vec::new();
    for way in WAYS {
        let socket = folder.join(format!("redis-{way:?}"));
        let args = ["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"];
        let args: Vec<String> =
            args.map(str::to_owned).into_iter().chain([socket.display().to_string()]).collect();
        ways.push(Up::start(server, &args, socket, way).await);
    }
    for (pipeline, requests) in PIPELINES {
        // By command, by way.
        let mut rates = ["SET", "GET"].map(|command| (command, [const { Vec::new() }; 3]));
        for _ in 0..ROUNDS {
            for (way, up) in ways.iter().enumerate() {
                let socket = up.socket.display().to_string();
                let args = ["-s", &socket, "-t", "set,get", "-n", requests, "-P", pipeline, "--csv"];
                let csv = said(client, &args);
                for (command, rates) in &mut rates {
                    let begins = format!("\"{command}\",\"");
                    let rate = csv
                        .lines()
                        .find_map(|line| line.strip_prefix(&begins)?.split('"').next()?.parse().ok());
                    rates[way].push(rate.expect("a rate"));
                }
            }
        }
        for (command, rates) in &mut rates {
            line(&format!("Redis {command}, {pipeline} at a time, requests"), rates);
        }
    }
    for up in ways {
        up.end().await;
    }
}

async fn ask_mariadb(server: &str, client: &str, folder: &Path) {
    let mut ways = Vec::new();
    for way in WAYS {
        let data = folder.join(format!("mariadb-{way:?}"));
        // A folder is a database.
        std::fs::create_dir_all(data.join("sbtest")).expect("a folder");
        let socket = data.join("socket");
        let args = [
            "--no-defaults".to_owned(),
            "--user=root".to_owned(),
            format!("--datadir={}", data.display()),
            format!("--socket={}", socket.display()),
            "--skip-networking".to_owned(),
            "--skip-grant-tables".to_owned(),
        ];
        ways.push(Up::start(server, &args, socket, way).await);
    }
    let ask = |up: &Up, what: &str| {
        let socket = format!("--mysql-socket={}", up.socket.display());
        let events = format!("--events={TRANSACTIONS}");
        let args =
            ["oltp_read_write", &socket, "--mysql-user=root", "--table-size=1000", "--threads=4", "--time=0"];
        said(client, &[&args[..], &[&events, what]].concat())
    };
    for up in &ways {
        ask(up, "prepare");
    }
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (up, rates) in ways.iter().zip(&mut rates) {
            let text = ask(up, "run");
            let per = text.lines().find(|line| line.trim_start().starts_with("transactions:"));
            let rate = per.and_then(|line| line.split_once('(')?.1.split_whitespace().next()?.parse().ok());
            rates.push(rate.expect("a rate"));
        }
    }
    line("MariaDB oltp_read_write, transactions", &mut rates);
    for up in ways {
        up.end().await;
    }
}

//! The processes beside the client: the server, the plain byte-copying proxy, and ours.
//!
//! Each prints the port it listens on, takes orders on its standard input, and ends when that
//! is closed.

use crate::clients::{City, CityQuery, DESCRIPTORS};
use faultbox_bundle_format::generated::Scanner;
use faultbox_bundle_format::redact::Redactor;
use faultbox_bundle_format::{Blame, Bundle, Ending, Phase, Verdict};
use faultbox_engine::clock::RunClock;
use faultbox_engine::event_sink::{EventSink, MemorySink, Tee};
use faultbox_engine::fault::ActiveFaults;
use faultbox_engine::journal::Journal;
use faultbox_engine::link::{BoxFuture, Dial, InterfaceOptions, Link, Stream};
use faultbox_engine::oracle::SeededOracle;
use faultbox_engine::protocol;
use faultbox_engine::standin::{StandInOptions, process};
use faultbox_engine::virtual_time::Time;
use faultbox_recorder::Recorder;
use faultbox_replayer::session::Recording;
use faultbox_replayer::tape::Tape;
use faultbox_replayer::waits::Waiting;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tonic_prost::ProstCodec;

/// A process of this executable.
pub struct Part {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Where it listens.
    pub port: u16,
}

impl Part {
    /// Starts one and waits until it listens.
    pub fn start(args: &[&str]) -> Part {
        let this = std::env::current_exe().expect("this executable");
        let child = Command::new(this).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("a process of this executable");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut part = Part { child, orders, answers, port: 0 };
        part.port = part.line().parse().expect("a port");
        part
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    /// Gives it a line.
    pub fn tell(&mut self, line: &str) {
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{line}").expect("an order");
        }
    }

    /// Ends a round: a proxy forgets what its cell had in memory, as at the end of a cell.
    pub fn next_round(&mut self) {
        self.tell("");
        self.line();
    }

    /// Ends it. What it said last.
    pub fn end(mut self) -> String {
        drop(self.orders.take());
        let mut said = String::new();
        let _ = self.answers.read_to_string(&mut said);
        let _ = self.child.wait();
        said
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.orders.take().is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The body of a part.
pub fn run(runtime: &Runtime, args: &[String]) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a listener");
    let address = listener.local_addr().expect("an address");
    println!("{}", address.port());
    match args.as_slice() {
        ["__server", kind, data, seen_at] => {
            let seen_at: u16 = seen_at.parse().expect("a port");
            let address = if seen_at == 0 { address } else { ([127, 0, 0, 1], seen_at).into() };
            runtime.spawn(serve((*kind).to_owned(), (*data).to_owned(), listener, address));
            follow_orders(|| {});
        }
        ["__copy"] => {
            let upstream = next_port();
            runtime.spawn(accept(listener, move |mut client| async move {
                let mut server = connect(upstream).await;
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }));
            follow_orders(|| {});
        }
        ["__tape", folder] => tape(runtime, Path::new(folder), listener),
        ["__proxy", kind, folder] => ours(runtime, kind, Path::new(folder), listener),
        other => panic!("no part {other:?}"),
    }
}

fn next_port() -> u16 {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the server's port");
    line.trim().parse().expect("a port")
}

fn follow_orders(order: impl Fn()) {
    for _ in std::io::stdin().lines() {
        order();
        println!();
    }
}

async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
    stream.set_nodelay(true).expect("no delay");
    stream
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    take: impl Fn(TcpStream) -> F,
) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("no delay");
        tokio::spawn(take(stream));
    }
}

struct Upstream(u16);

impl Dial for Upstream {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        Box::pin(async { Ok(Box::new(connect(self.0).await) as Stream) })
    }
}

/// A recorder that writes a bundle in this folder.
pub fn recorder(folder: &Path) -> Arc<Recorder> {
    let header = faultbox_recorder::new_header().expect("a header");
    let secrets = [("MYSQL_ROOT_PASSWORD".to_owned(), "correct horse".to_owned())];
    let redactor = Redactor::new(&header.salt, secrets);
    Arc::new(Recorder::create(&folder.join("run.fb"), header, redactor).expect("a bundle"))
}

/// A journal of a scenario.
pub fn journal(sink: Arc<dyn EventSink>) -> Arc<Journal> {
    let journal = Journal::new(sink, RunClock::start(), Arc::default(), 1, "cell");
    journal.enter(Phase::Scenario);
    Arc::new(journal)
}

/// Our proxy, as a run has it: rules are asked, the journal goes to memory and into a bundle.
fn ours(runtime: &Runtime, kind: &str, folder: &Path, listener: TcpListener) {
    let upstream = next_port();
    let address = listener.local_addr().expect("an address").to_string();
    let (recorder, memory) = (recorder(folder), Arc::new(MemorySink::default()));
    let journal = journal(Arc::new(Tee(memory.clone(), recorder.clone())));
    let faults = ActiveFaults::new(journal.clone(), Arc::new(SeededOracle::new(1)), "api");
    let protocol = protocol::by_name(kind).expect("a protocol");
    let descriptors = (kind == "grpc").then(|| Arc::new(DESCRIPTORS.to_vec()));
    let options = Arc::new(InterfaceOptions { descriptors, ..InterfaceOptions::default() });
    let faults = Some(faults);
    let link =
        Link::new("peer.main", protocol.name(), "api", &address, options, journal, faults, Arc::default());
    let tasks = runtime.spawn(accept(listener, move |client| {
        let carried = protocol.proxy(Box::new(client), Arc::new(Upstream(upstream)), link.clone());
        async { drop(carried.await) }
    }));
    follow_orders(|| drop(memory.drain()));
    tasks.abort();
    let path = recorder.finish().expect("the bundle is written");
    println!("{}", Bundle::open(&path).and_then(|bundle| bundle.verify()).expect("a whole bundle").entries);
}

/// What [`ours`] recorded, played back as a replay does.
fn tape(runtime: &Runtime, folder: &Path, listener: TcpListener) {
    let bundle = Bundle::open(&folder.join("run.fb")).expect("a bundle");
    let entries = bundle.entries(1).expect("its cell");
    let (ending, blame) = (Ending::Passed, Blame::None);
    let verdict = Verdict {
        ending,
        reason: String::new(),
        blame,
        fired: Vec::new(),
        unreached: false,
        scenario_ns: 0,
        cell_ns: 0,
        digest: [0; 32],
    };
    let redactor = Redactor::new(&bundle.header().salt, Vec::new());
    let now = RunClock::start();
    let recording = Recording { entries, unix_ns: now.unix_ns(), seed: 1, verdict, redactor };
    let scanner = || Scanner::new(now.unix_ns());
    let waiting = Waiting::AsRecorded;
    let tape = Tape::new(&recording, scanner(), scanner(), &BTreeSet::new(), waiting, Time::default());
    let journal = journal(Arc::new(MemorySink::default()));
    let (protocol, options) = (protocol::by_name("http").expect("a protocol"), Arc::default());
    let address = listener.local_addr().expect("an address").to_string();
    let link =
        Link::new("peer.main", "http", "api", &address, options, journal.clone(), None, Arc::default());
    runtime.spawn(accept(listener, move |client| {
        let responder = tape.connected("peer.main").responder(journal.clone());
        let served = protocol.serve(Box::new(client), link.clone(), responder);
        async { drop(served.await) }
    }));
    follow_orders(|| {});
}

/// A server of this kind.
async fn serve(kind: String, data: String, listener: TcpListener, address: std::net::SocketAddr) {
    match kind.as_str() {
        "http" => accept(listener, serve_http).await,
        "grpc" => accept(listener, serve_grpc).await,
        kind => {
            let control = Path::new(&data).join("control");
            let env = [("MYSQL_ROOT_PASSWORD", "test"), ("MYSQL_DATABASE", "appdb")];
            let env: BTreeMap<_, _> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let options = StandInOptions { data: data.into(), listen: address, env };
            let standin = process::open(kind, options).expect("a stand-in");
            process::serve(standin, listener, &control).await.expect("a stand-in that serves");
        }
    }
}

const ORDER: &str =
    r#"{"id":"6b3dee00-0a4e-4ba4-b10c-400c6c10c2d7","user":"user-1","price":5000,"city":"Almaty"}"#;

async fn serve_http(stream: TcpStream) {
    let service = hyper::service::service_fn(|_| async {
        let response = http::Response::builder().header("content-type", "application/json");
        Ok::<_, Infallible>(
            response.body(Full::new(bytes::Bytes::from_static(ORDER.as_bytes()))).expect("a response"),
        )
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

struct Cities;

impl tonic::server::UnaryService<CityQuery> for Cities {
    type Response = City;
    type Future = BoxFuture<'static, Result<tonic::Response<City>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<CityQuery>) -> Self::Future {
        let id = request.into_inner().id;
        let city = City { id, name: "Almaty".to_owned(), country: "KZ".to_owned() };
        Box::pin(std::future::ready(Ok(tonic::Response::new(city))))
    }
}

async fn serve_grpc(stream: TcpStream) {
    let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<City, CityQuery>::default());
        Ok::<_, Infallible>(grpc.unary(Cities, request).await)
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

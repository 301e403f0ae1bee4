//! What the proxy does to HTTP/2 itself: both of its sides are spoken to frame by frame.
//!
//! Method: everything runs in one thread over pipes in memory, so that whatever makes no progress
//! while the others get their turns has really come to a stop.

use super::PROTOCOL;
use super::testing::descriptors;
use crate::link::{BoxFuture, Dial, InterfaceOptions, Stream};
use crate::protocol::Protocol;
use crate::protocol::testing::World;
use bytes::Bytes;
use faultbox_bundle_format::{Exchange, Outcome};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

const UNARY: &str = "/geo.Cities/GetCity";
const CHAT: &str = "/geo.Cities/Chat";

/// What the server got of a call, and where its answer goes.
type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// Hands the server's end of a connection to the test.
struct Handed(mpsc::UnboundedSender<DuplexStream>);

impl Dial for Handed {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        let (near, far) = tokio::io::duplex(1 << 16);
        self.0.send(far).unwrap();
        Box::pin(async move { Ok(Box::new(near) as Stream) })
    }
}

/// A client, the proxy and a server.
struct Rig {
    world: World,
    client: SendRequest<Bytes>,
    client_over: JoinHandle<Result<(), h2::Error>>,
    calls: mpsc::UnboundedReceiver<Call>,
    go_away: Arc<Notify>,
    server: JoinHandle<()>,
}

async fn rig(concurrent: u32) -> Rig {
    let options = InterfaceOptions { descriptors: Some(Arc::new(descriptors())), ..Default::default() };
    let world = World::new("grpc", options);
    let (dialed, mut far) = mpsc::unbounded_channel();
    let (near, proxys) = tokio::io::duplex(1 << 16);
    tokio::spawn(PROTOCOL.proxy(Box::new(proxys), Arc::new(Handed(dialed)), world.link.clone()));
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let client_over = tokio::spawn(connection);
    let (accepted, calls) = mpsc::unbounded_channel();
    let go_away = Arc::new(Notify::new());
    let told = go_away.clone();
    let server = tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(concurrent);
        let mut server = builder.handshake(far.recv().await.unwrap()).await.unwrap();
        loop {
            tokio::select! {
                call = server.accept() => match call {
                    Some(Ok(call)) => accepted.send(call).unwrap(),
                    _ => return,
                },
                () = told.notified() => server.graceful_shutdown(),
            }
        }
    });
    Rig { world, client, client_over, calls, go_away, server }
}

impl Rig {
    fn ask(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("http://peer{path}")).header("content-type", "application/grpc");
        self.client.send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// A call of which the server has got the beginning, and the client's end of it.
    async fn begun(&mut self, path: &str) -> (ResponseFuture, SendStream<Bytes>, Call) {
        let (response, asking) = self.ask(path);
        let call = self.calls.recv().await.unwrap();
        (response, asking, call)
    }

    async fn exchange(&self) -> Exchange {
        loop {
            match self.world.exchanges().pop() {
                Some(exchange) => return exchange,
                None => tokio::task::yield_now().await,
            }
        }
    }
}

fn test(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("hangs") });
}

/// One gRPC message of so many bytes, none like its neighbour.
fn message(length: usize) -> Bytes {
    let mut message = vec![0];
    message.extend((length as u32).to_be_bytes());
    message.extend((0..length).map(|at| (at % 251) as u8));
    message.into()
}

fn trailers(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))])
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// Sends as long as the other side takes it: how much that was when it no longer did.
async fn flood(to: &mut SendStream<Bytes>, data: &Bytes) -> usize {
    let (mut sent, mut idle) = (0, 0);
    to.reserve_capacity(data.len());
    while sent < data.len() && idle < 2000 {
        let room = poll_fn(|cx| Poll::Ready(to.poll_capacity(cx))).await;
        match (room, to.capacity().min(data.len() - sent)) {
            (Poll::Ready(None | Some(Err(_))), _) => panic!("the stream is gone"),
            (_, 0) => {
                idle += 1;
                tokio::task::yield_now().await;
            }
            (_, room) => {
                to.send_data(data.slice(sent..sent + room), false).unwrap();
                (sent, idle) = (sent + room, 0);
            }
        }
    }
    sent
}

#[test]
fn messages_larger_than_every_window_pass_in_both_directions() {
    test(async {
        for path in [UNARY, CHAT] {
            let mut rig = rig(100).await;
            let (question, answer) = (message(3 << 20), message(5 << 20));
            let (response, mut asking) = rig.ask(path);
            asking.send_data(question.clone(), true).unwrap();
            let (request, mut answering) = rig.calls.recv().await.unwrap();
            assert_eq!(request.headers()["content-type"], "application/grpc");
            assert!(read(&mut request.into_body()).await.unwrap() == question);
            let mut to = answering.send_response(Response::new(()), false).unwrap();
            to.send_data(answer.clone(), false).unwrap();
            to.send_trailers(trailers("0")).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert!(read(&mut body).await.unwrap() == answer);
            assert_eq!(body.trailers().await.unwrap().unwrap(), trailers("0"));
            let exchange = rig.exchange().await;
            assert_eq!(exchange.outcome, Outcome::Answered);
            let response = exchange.response.unwrap().value().unwrap();
            assert_eq!(response.get("status").and_then(|s| s.as_int()), Some(0));
        }
    });
}

#[test]
fn a_receiver_that_does_not_read_holds_up_the_sender_in_both_directions() {
    test(async {
        let mut rig = rig(100).await;
        let much = message(16 << 20);
        let (response, mut asking, (request, mut answering)) = rig.begun(CHAT).await;
        let mut to = answering.send_response(Response::new(()), false).unwrap();
        let mut body = response.await.unwrap().into_body();

        let sent = flood(&mut asking, &much).await;
        assert!((1..2 << 20).contains(&sent), "{sent} bytes of a request were taken");
        let mut request = request.into_body();
        let rest = async {
            let mut sent = sent;
            while sent < much.len() {
                sent += flood(&mut asking, &much.slice(sent..)).await;
            }
            asking.send_data(Bytes::new(), true).unwrap();
        };
        let (got, ()) = tokio::join!(read(&mut request), rest);
        assert!(got.unwrap() == much);

        let sent = flood(&mut to, &much).await;
        assert!((1..4 << 20).contains(&sent), "{sent} bytes of a response were taken");
        let rest = async {
            let mut sent = sent;
            while sent < much.len() {
                sent += flood(&mut to, &much.slice(sent..)).await;
            }
            to.send_trailers(trailers("0")).unwrap();
        };
        let (got, ()) = tokio::join!(read(&mut body), rest);
        assert!(got.unwrap() == much);
    });
}

#[test]
fn a_call_that_is_given_up_is_reset_at_the_server_for_the_same_reason() {
    test(async {
        for (path, answered) in [(UNARY, false), (CHAT, false), (CHAT, true)] {
            let mut rig = rig(100).await;
            let (response, mut asking) = rig.ask(path);
            if path == UNARY {
                asking.send_data(message(1), true).unwrap();
            }
            let (request, mut answering) = rig.calls.recv().await.unwrap();
            let mut to = None;
            if answered {
                to = Some(answering.send_response(Response::new(()), false).unwrap());
                response.await.unwrap();
            }
            asking.send_reset(Reason::ENHANCE_YOUR_CALM);
            let reset = match &mut to {
                Some(to) => poll_fn(|cx| to.poll_reset(cx)).await,
                None => poll_fn(|cx| answering.poll_reset(cx)).await,
            };
            assert_eq!(reset.unwrap(), Reason::ENHANCE_YOUR_CALM, "{path} {answered}");
            assert_eq!(rig.exchange().await.outcome, Outcome::Abandoned);
            drop(request);
        }
    });
}

#[test]
fn a_client_that_goes_away_gives_its_calls_up() {
    test(async {
        let mut rig = rig(100).await;
        let (_response, _asking, (_request, mut answering)) = rig.begun(CHAT).await;
        rig.client_over.abort();
        assert!(poll_fn(|cx| answering.poll_reset(cx)).await.is_err());
        assert_eq!(rig.exchange().await.outcome, Outcome::Abandoned);
        rig.server.await.unwrap();
    });
}

#[test]
fn a_call_that_the_server_resets_is_reset_at_the_client_for_the_same_reason() {
    test(async {
        let mut rig = rig(100).await;
        let (response, _asking, (_request, mut answering)) = rig.begun(CHAT).await;
        answering.send_reset(Reason::REFUSED_STREAM);
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
        assert_eq!(rig.exchange().await.outcome, Outcome::Failed);

        let (response, _asking, (_request, mut answering)) = rig.begun(CHAT).await;
        let mut to = answering.send_response(Response::new(()), false).unwrap();
        to.send_data(message(9), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), message(9));
        to.send_reset(Reason::ENHANCE_YOUR_CALM);
        assert_eq!(read(&mut body).await.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
        assert_eq!(rig.world.exchanges().len(), 2);
        assert_eq!(rig.exchange().await.outcome, Outcome::Failed);
    });
}

#[test]
fn a_server_that_says_goodbye_finishes_its_calls_and_refuses_others() {
    test(async {
        let mut rig = rig(100).await;
        let (response, mut asking, (request, mut answering)) = rig.begun(CHAT).await;
        rig.go_away.notify_one();
        let refused = loop {
            let (response, mut asking) = rig.ask(UNARY);
            asking.send_data(message(1), true).unwrap();
            tokio::select! {
                refused = response => break refused.unwrap_err(),
                // Made before the goodbye arrived.
                call = rig.calls.recv() => drop(call),
            }
        };
        assert_eq!(refused.reason(), Some(Reason::REFUSED_STREAM));
        asking.send_data(message(9), true).unwrap();
        assert_eq!(read(&mut request.into_body()).await.unwrap(), message(9));
        let mut to = answering.send_response(Response::new(()), false).unwrap();
        to.send_trailers(trailers("0")).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.map(Result::unwrap), None);
        assert_eq!(body.trailers().await.unwrap().unwrap(), trailers("0"));
        drop((asking, body, to, answering));
        rig.server.await.unwrap();
        rig.client_over.await.unwrap().unwrap();
    });
}

#[test]
fn a_server_that_breaks_off_ends_its_calls_and_the_connection() {
    test(async {
        let mut rig = rig(100).await;
        let (response, asking, _call) = rig.begun(CHAT).await;
        rig.server.abort();
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(rig.exchange().await.outcome, Outcome::Failed);
        drop(asking);
        rig.client_over.await.unwrap().unwrap();
    });
}

#[test]
fn a_client_streams_and_the_server_may_answer_before_the_end() {
    test(async {
        let mut rig = rig(100).await;
        let (response, mut asking, (request, mut answering)) = rig.begun(CHAT).await;
        let mut body = request.into_body();
        for length in [1, 0, 70_000] {
            asking.send_data(message(length), false).unwrap();
            let mut got = Vec::new();
            while got.len() < length + 5 {
                let data = body.data().await.unwrap().unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                got.extend_from_slice(&data);
            }
            assert!(got == message(length));
        }
        asking.send_trailers(trailers("7")).unwrap();
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap(), trailers("7"));
        let mut to = answering.send_response(Response::new(()), false).unwrap();
        to.send_data(message(4), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(read(&mut body).await.unwrap(), message(4));
        assert_eq!(body.trailers().await.unwrap(), None);
        let exchange = rig.exchange().await;
        let asked = exchange.request.value().unwrap();
        assert_eq!(asked.get("messages").unwrap().as_list().unwrap().len(), 3);

        // The server has heard enough.
        let (response, mut asking, (request, mut answering)) = rig.begun(CHAT).await;
        let answer = Response::builder().header("grpc-status", "8").header("content-length", "0");
        answering.send_response(answer.body(()).unwrap(), true).unwrap();
        drop((request, answering));
        let answer = response.await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "8");
        assert_eq!(answer.headers()["content-length"], "0");
        assert!(answer.body().is_end_stream());
        let reset = poll_fn(|cx| asking.poll_reset(cx)).await;
        assert_eq!(reset.unwrap(), Reason::NO_ERROR);
        assert_eq!(rig.exchange().await.outcome, Outcome::Answered);
    });
}

#[test]
fn what_comes_before_the_answer_passes_too() {
    test(async {
        let mut rig = rig(100).await;
        let (mut response, _asking, (_request, mut answering)) = rig.begun(CHAT).await;
        let early = Response::builder().status(103).header("link", "</a>");
        answering.send_informational(early.body(()).unwrap()).unwrap();
        let early = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(
            (early.status().as_u16(), &early.headers()["link"]),
            (103, &HeaderValue::from_static("</a>"))
        );
        answering.send_response(Response::new(()), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn more_calls_at_once_than_the_server_allows_are_all_answered() {
    test(async {
        let mut rig = rig(7).await;
        // The server's limit is known once it has answered.
        let (response, _, (_, mut answering)) = rig.begun(CHAT).await;
        answering.send_response(Response::new(()), true).unwrap();
        response.await.unwrap();
        let mut asked = Vec::new();
        for n in 0..64 {
            let (response, mut asking) = rig.ask(if n % 2 == 0 { UNARY } else { CHAT });
            asking.send_data(message(n), true).unwrap();
            asked.push((n, response));
        }
        let mut calls = rig.calls;
        tokio::spawn(async move {
            while let Some((request, mut answering)) = calls.recv().await {
                tokio::spawn(async move {
                    let body = read(&mut request.into_body()).await.unwrap();
                    let mut to = answering.send_response(Response::new(()), false).unwrap();
                    to.send_data(body.into(), false).unwrap();
                    to.send_trailers(trailers("0")).unwrap();
                });
            }
        });
        for (n, response) in asked {
            let mut body = response.await.unwrap().into_body();
            assert!(read(&mut body).await.unwrap() == message(n), "{n}");
            assert_eq!(body.trailers().await.unwrap().unwrap(), trailers("0"));
        }
        assert_eq!(rig.world.exchanges().len(), 65);
    });
}

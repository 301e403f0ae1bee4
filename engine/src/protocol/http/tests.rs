use super::PROTOCOL;
use crate::fault::rule::{Effect, Fields};
use crate::link::{Answer, Dial, InterfaceOptions, Request, Responder, Stream};
use crate::protocol::Protocol;
use crate::protocol::testing::{Proxied, Scripted, Served, World, recorded};
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::{Outcome, Value};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn guard<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("hangs")
}

/// A little service: echoes, counts, misbehaves.
fn service() -> Arc<dyn Responder> {
    Scripted::responder(|request: &Request| {
        let text =
            |name: &str| request.body.get(name).and_then(Value::as_text).unwrap_or_default().to_owned();
        match text("path").as_str() {
            "/cut" => Answer::Cut,
            "/silent" => Answer::Silence,
            path => Answer::Reply(Value::map([
                ("status", Value::Int(if path == "/missing" { 404 } else { 200 })),
                (
                    "headers",
                    Value::map([
                        ("content-type", Value::text("text/plain")),
                        ("date", Value::text("Tue, 24 Nov 2026 00:00:00 GMT")),
                        ("set-cookie", Value::text("a=1")),
                        ("set-cookie", Value::text("b=2")),
                    ]),
                ),
                ("body", Value::text(format!("{} {} {}", text("method"), path, text("body")))),
            ])),
        }
    })
}

fn served(world: &World, responder: Arc<dyn Responder>) -> Arc<dyn Dial> {
    Arc::new(Served { protocol: &PROTOCOL, link: world.link.clone(), responder })
}

/// Through a proxy that records in `world` to the service.
fn proxied(world: &World) -> Arc<dyn Dial> {
    let behind = World::new("http", InterfaceOptions::default());
    Arc::new(Proxied { protocol: &PROTOCOL, link: world.link.clone(), upstream: served(&behind, service()) })
}

fn world() -> World {
    World::new("http", InterfaceOptions::default())
}

fn call(verb: &str, arguments: &[(&str, Value)]) -> StepCall {
    StepCall {
        service: "peer".into(),
        interface: "main".into(),
        verb: verb.into(),
        arguments: arguments.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        timeout: Some(Duration::from_secs(10)),
        location: String::new(),
    }
}

async fn step(dial: &Arc<dyn Dial>, world: &World, verb: &str, path: &str) -> StepResponse {
    let call = call(verb, &[("path", Value::text(path))]);
    PROTOCOL.step(dial.clone(), world.link.clone(), &call).await
}

/// What a hyper client sees of a few requests on one connection.
async fn drive(dial: &Arc<dyn Dial>) -> Vec<(u16, Vec<String>, Vec<u8>)> {
    let stream = dial.dial().await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut seen = Vec::new();
    for (method, path, body) in [
        ("GET", "/orders?x=1", ""),
        ("POST", "/orders", "{\"price\":5000}"),
        ("HEAD", "/orders", ""),
        ("DELETE", "/orders/17", ""),
        ("GET", "/missing", ""),
        ("PUT", "/orders/9f8b2c1e-3f6a-4a51-9d1c-2f6f3f1f7c11", "x"),
    ] {
        let request = http::Request::builder().method(method).uri(path).header("host", "peer");
        let request = request.header("traceparent", "00-1-2-3").body(Full::new(bytes::Bytes::from(body)));
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let cookies = response.headers().get_all("set-cookie").iter();
        let cookies = cookies.map(|v| v.to_str().unwrap().to_owned()).collect();
        seen.push((status, cookies, response.into_body().collect().await.unwrap().to_bytes().to_vec()));
    }
    seen
}

#[tokio::test]
async fn what_was_recorded_replays() {
    guard(async {
        let recording = world();
        let seen = drive(&proxied(&recording)).await;
        assert_eq!(seen[1].2, b"POST /orders {\"price\":5000}");
        assert_eq!(seen[0].1, ["a=1", "b=2"]);
        assert_eq!(seen[4].0, 404);
        let exchanges = recording.exchanges();
        assert_eq!(exchanges.len(), 6);
        assert_eq!(exchanges[3].key, "DELETE /orders/{}");
        assert!(exchanges[3].mutating && !exchanges[0].mutating);
        let replay = world();
        let again = drive(&served(&replay, recorded(&exchanges))).await;
        assert_eq!(seen, again);
        assert_eq!(recording.asked(), replay.asked());
        assert_eq!(replay.asked()[1].1.get("body"), Some(&Value::text("{\"price\":5000}")));
        assert!(replay.asked()[0].1.get("headers").unwrap().get("host").is_none());
    })
    .await;
}

#[tokio::test]
async fn steps_say_what_they_got() {
    guard(async {
        let world = world();
        let dial = proxied(&world);
        let arguments = [
            ("path", Value::text("/a b")),
            ("json", Value::map([("n", Value::Int(1))])),
            (
                "query",
                Value::map([
                    ("q", Value::text("x&y")),
                    ("l", Value::List(vec![Value::Int(1), Value::Int(2)])),
                ]),
            ),
            ("headers", Value::map([("Authorization", Value::text("Bearer t"))])),
        ];
        let response = PROTOCOL.step(dial.clone(), world.link.clone(), &call("post", &arguments)).await;
        assert!(response.ok && response.status == 200 && response.error.is_none(), "{response:?}");
        assert_eq!(response.body, b"POST /a%20b {\"n\":1}");
        let request = world.exchanges()[0].request.value().unwrap();
        assert_eq!(request.get("query"), Some(&Value::text("q=x%26y&l=1&l=2")));
        let missing = step(&dial, &world, "get", "/missing").await;
        assert!(!missing.ok && missing.status == 404);
        let cut = step(&dial, &world, "get", "/cut").await;
        assert_eq!((cut.ok, cut.status), (false, 0));
        assert!(cut.error.is_some());
        let mut silent = call("get", &[("path", Value::text("/silent"))]);
        silent.timeout = Some(Duration::from_millis(50));
        let silent = PROTOCOL.step(dial.clone(), world.link.clone(), &silent).await;
        assert!(silent.timed_out && silent.status == 0);
        let bad = call("get", &[("headers", Value::map([("x", Value::text("a\r\nb"))]))]);
        assert!(
            PROTOCOL
                .step(dial.clone(), world.link.clone(), &bad)
                .await
                .error
                .unwrap()
                .contains("cannot be sent")
        );
        PROTOCOL.ready(dial.dial().await.unwrap(), world.link.clone()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn rules_act() {
    guard(rules_act_in_turn()).await;
}

async fn rules_act_in_turn() {
    let world = world();
    let dial = proxied(&world);
    let fields = |f: &[(&str, Value)]| Fields(f.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect());
    world.rule(
        &[("path", "/orders*")],
        Effect::Error(fields(&[("status_code", Value::Int(503)), ("message", Value::text("down"))])),
    );
    let answer = step(&dial, &world, "post", "/orders").await;
    assert_eq!((answer.status, answer.body.as_slice()), (503, b"down".as_slice()));
    assert_eq!(step(&dial, &world, "get", "/other").await.status, 200);

    let body = Value::map([("items", Value::List(vec![]))]);
    world.rule(
        &[],
        Effect::Respond(fields(&[
            ("body", body.clone()),
            ("headers", Value::map([("X-A", Value::text("1"))])),
        ])),
    );
    let answer = step(&dial, &world, "get", "/orders").await;
    assert_eq!((answer.status, &answer.data), (200, &body));
    assert!(answer.headers.contains(&("x-a".into(), "1".into())));

    world.rule(&[], Effect::Delay(Duration::from_millis(200)));
    let began = world.journal.clock().now_ns();
    let answer = step(&dial, &world, "get", "/orders").await;
    assert_eq!(answer.body, b"GET /orders ");
    assert!(world.journal.clock().now_ns() - began >= 200_000_000);

    world.rule(&[], Effect::Drop);
    assert_eq!(step(&dial, &world, "get", "/orders").await.status, 0);

    world.rule(&[], Effect::Corrupt);
    let answer = step(&dial, &world, "get", "/orders").await;
    assert_eq!(answer.body[0], b'G' ^ 0x5a);
    assert_eq!(&answer.body[1..], b"ET /orders ");

    world.rule(&[], Effect::ResetAfter { bytes: 30 });
    let answer = step(&dial, &world, "get", "/orders").await;
    assert_eq!(answer.status, 0);

    world.rule(&[], Effect::Slow { bytes_per_second: 1000 });
    let began = world.journal.clock().now_ns();
    assert_eq!(step(&dial, &world, "get", "/orders").await.body, b"GET /orders ");
    assert!(world.journal.clock().now_ns() - began >= 100_000_000);

    world.rule(&[], Effect::Duplicate);
    assert_eq!(step(&dial, &world, "post", "/orders").await.body, b"POST /orders ");

    let outcomes: Vec<Outcome> = world.exchanges().iter().map(|e| e.outcome).collect();
    assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Dropped).count(), 2);
    assert_eq!(world.exchanges().iter().filter(|e| e.rule.is_none()).count(), 1);

    // What rules did replays as it was.
    let replay = self::world();
    let replayed = served(&replay, recorded(&world.exchanges()));
    let answer = step(&replayed, &replay, "post", "/orders").await;
    assert_eq!((answer.status, answer.body.as_slice()), (503, b"down".as_slice()));
}

/// An upstream that answers raw bytes when it has seen a blank line, and returns what it got.
fn raw_upstream(
    answer: &'static [u8],
    until: &'static [u8],
) -> (Arc<dyn Dial>, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    struct Raw(&'static [u8], &'static [u8], tokio::sync::mpsc::UnboundedSender<Vec<u8>>);
    impl Dial for Raw {
        fn dial(&self) -> crate::link::BoxFuture<'_, std::io::Result<Stream>> {
            let (near, mut far) = tokio::io::duplex(1 << 10);
            let (answer, until, got) = (self.0, self.1, self.2.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.ends_with(until) {
                    if far.read_buf(&mut seen).await.unwrap() == 0 {
                        break;
                    }
                }
                far.write_all(answer).await.unwrap();
                let mut rest = Vec::new();
                far.read_to_end(&mut rest).await.unwrap();
                seen.extend(rest);
                let _ = got.send(seen);
            });
            Box::pin(async move { Ok(Box::new(near) as Stream) })
        }
    }
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    (Arc::new(Raw(answer, until, sender)), receiver)
}

async fn through_raw(sent: &[u8], answer: &'static [u8], until: &'static [u8]) -> (World, Vec<u8>, Vec<u8>) {
    let world = world();
    let (upstream, mut got) = raw_upstream(answer, until);
    let dial = Proxied { protocol: &PROTOCOL, link: world.link.clone(), upstream };
    let mut client = dial.dial().await.unwrap();
    client.write_all(sent).await.unwrap();
    let mut seen = vec![0; answer.len()];
    client.read_exact(&mut seen).await.unwrap();
    client.shutdown().await.unwrap();
    let arrived = got.recv().await.unwrap();
    client.read_to_end(&mut seen).await.unwrap();
    (world, arrived, seen)
}

#[tokio::test]
async fn bytes_pass_unchanged() {
    guard(async {
        // Odd case, odd spacing, a chunked body with an extension, a half-closed client.
        let sent = b"POST /x HTTP/1.1\r\nHoSt:  a\r\ntransfer-encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nT: 1\r\n\r\n";
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Weird Reason\r\nX-Odd:   v\r\ntransfer-encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n";
        let (world, arrived, seen) = through_raw(sent, answer, b"T: 1\r\n\r\n").await;
        assert_eq!(arrived, sent);
        assert_eq!(seen, answer);
        let exchange = &world.exchanges()[0];
        assert_eq!(exchange.request.value().unwrap().get("body"), Some(&Value::text("abc")));
        assert_eq!(exchange.response.as_ref().unwrap().value().unwrap().get("body"), Some(&Value::text("z")));
    })
    .await;
}

#[tokio::test]
async fn upgrades_and_other_protocols_pass() {
    guard(async {
        let sent = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw!";
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x81\x05hello";
        let (world, arrived, seen) = through_raw(sent, answer, b"\r\n\r\n").await;
        assert_eq!((arrived.as_slice(), seen.as_slice()), (sent.as_slice(), answer.as_slice()));
        assert_eq!(
            world.exchanges()[0].response.as_ref().unwrap().value().unwrap().get("status"),
            Some(&Value::Int(101))
        );
        let (world, arrived, _) = through_raw(b"\x16\x03\x01\x02", b"\x15\x03", b"\x02").await;
        assert_eq!(arrived, b"\x16\x03\x01\x02");
        assert_eq!(world.exchanges()[0].operation, "undecodable");
    })
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    guard(async {
        let world = world();
        let mut client = proxied(&world).dial().await.unwrap();
        client
            .write_all(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.find("GET /1").unwrap() < seen.find("GET /2").unwrap());
        assert_eq!(world.exchanges().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noted_and_a_large_body_streams() {
    guard(async {
        let world = world();
        let dial = proxied(&world);
        let mut client = dial.dial().await.unwrap();
        let request = b"POST /silent HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut go_on = [0; 25];
        client.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"body").await.unwrap();
        // All of it is at the server once the server has it in its journal, which it has not:
        // it stays silent. The proxy has passed it on when it reads our end.
        drop(client);
        while world.exchanges().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.exchanges()[0].outcome, Outcome::Abandoned);
        let abandoned = world.exchanges()[0].request.value().unwrap();
        assert_eq!(abandoned.get("body"), Some(&Value::text("body")));

        let large = "x".repeat(super::kept::KEPT_MAX + 10);
        let response = PROTOCOL
            .step(
                dial,
                world.link.clone(),
                &call("post", &[("path", Value::text("/l")), ("body", Value::text(large))]),
            )
            .await;
        assert_eq!(response.status, 200, "{:?}", response.error);
        let request = world.exchanges()[1].request.value().unwrap();
        let omitted = request.get("body").unwrap().get("omitted_bytes").and_then(Value::as_int);
        assert_eq!(omitted, Some(super::kept::KEPT_MAX as i64 + 10));
    })
    .await;
}

#[tokio::test]
async fn a_token_verifies_against_the_issuer_that_is_served() {
    use crate::mock::{Mock, MockCell, SignRequest, jwt::JwtMock};
    guard(async {
        let key = crate::prng::Key::of_run(1);
        let cell = MockCell::new(&key, "auth", Arc::new(crate::plan::NoProgram));
        let mock = JwtMock::new("https://issuer.invalid", None, "ES256").unwrap();
        let world = world();
        let behind = self::world();
        let upstream = served(&behind, mock.responder(&cell));
        let dial: Arc<dyn Dial> =
            Arc::new(Proxied { protocol: &PROTOCOL, link: world.link.clone(), upstream });
        let discovery = step(&dial, &world, "get", "/.well-known/openid-configuration").await;
        assert_eq!(discovery.data.get("issuer"), Some(&Value::text("https://issuer.invalid")));
        let jwks_uri = discovery.data.get("jwks_uri").and_then(Value::as_text).unwrap();
        assert_eq!(jwks_uri, "http://127.0.0.1:9000/.well-known/jwks.json");
        let jwks = step(&dial, &world, "get", "/.well-known/jwks.json").await;
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_slice(&jwks.body).unwrap();
        let claims = Value::map([("sub", Value::text("user-1"))]);
        let request = SignRequest { claims, headers: Value::Null, expires_in: None, now_unix_s: 0 };
        let token = mock.sign(&cell, &request).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        let jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
        let decoding = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
        let validation = jsonwebtoken::Validation::new(header.alg);
        let claims =
            jsonwebtoken::decode::<serde_json::Value>(&token, &decoding, &validation).unwrap().claims;
        assert_eq!(claims["sub"], "user-1");
        assert_eq!(step(&dial, &world, "get", "/token").await.status, 404);
    })
    .await;
}

/// A real server (hyper's) and a real client over real sockets, with the proxy between.
#[tokio::test]
async fn real_peers_meet_through_the_proxy() {
    use crate::protocol::testing::Tcp;
    guard(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream: Arc<dyn Dial> = Arc::new(Tcp(listener.local_addr().unwrap()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service =
                    hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
                        // Streams what comes back as it comes, in chunks.
                        Ok::<_, std::convert::Infallible>(http::Response::new(request.into_body()))
                    });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move { server.serve_connection(TokioIo::new(stream), service).await });
            }
        });
        let world = world();
        let proxy = Proxied { protocol: &PROTOCOL, link: world.link.clone(), upstream };
        let stream = proxy.dial().await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        // Larger than all buffers on the way: request and answer must flow at the same time.
        for size in [3_000_000, 0, 17] {
            let body = bytes::Bytes::from(vec![b'x'; size]);
            let request =
                http::Request::post("/echo").header("host", "peer").body(Full::new(body.clone())).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        }
        let exchanges = world.exchanges();
        assert_eq!(exchanges.len(), 3);
        assert!(exchanges.iter().all(|e| e.connection == 1 && e.outcome == Outcome::Answered));
        let answer = exchanges[2].response.as_ref().unwrap().value().unwrap();
        assert_eq!(answer.get("body"), Some(&Value::text("x".repeat(17))));
    })
    .await;
}

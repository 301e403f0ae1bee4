use super::testing::descriptors;
use super::{PROTOCOL, status};
use crate::fault::rule::{Effect, Fields};
use crate::link::{BoxFuture, Dial, InterfaceOptions, Responder, Stream};
use crate::mock::grpc::{GrpcAnswer, GrpcMock};
use crate::mock::{Mock, MockCell};
use crate::prng::Key;
use crate::protocol::Protocol;
use crate::protocol::testing::{Proxied, Served, Tcp, World, recorded};
use crate::step::{StepCall, StepResponse};
use faultbox_bundle_format::{Class, Outcome, Value};
use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use std::time::Duration;
use tonic::codegen::tokio_stream::{self, StreamExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct CityQuery {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, tag = "2")]
    trace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct City {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    tags: Vec<String>,
    #[prost(bytes = "vec", tag = "4")]
    blob: Vec<u8>,
    #[prost(uint64, tag = "5")]
    big: u64,
    #[prost(double, tag = "6")]
    area: f64,
    #[prost(bool, tag = "7")]
    capital: bool,
}

fn city(id: i64) -> City {
    let tags = vec!["a".to_owned(), "b".to_owned()];
    City { id, name: format!("city {id}"), tags, blob: vec![0, 255], big: u64::MAX, area: 1.5, capital: true }
}

async fn guard<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("hangs")
}

/// A real server (tonic's), reached through pipes. Says when a call was cancelled.
#[derive(Clone)]
struct Upstream {
    cancelled: tokio::sync::mpsc::UnboundedSender<()>,
    deadline: tokio::sync::mpsc::UnboundedSender<String>,
}

struct Cities(Upstream);

struct OnDrop(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl tonic::server::UnaryService<CityQuery> for Cities {
    type Response = City;
    type Future = BoxFuture<'static, Result<Response<City>, Status>>;

    fn call(&mut self, request: Request<CityQuery>) -> Self::Future {
        let upstream = self.0.clone();
        Box::pin(async move {
            if let Some(timeout) = request.metadata().get("grpc-timeout") {
                let _ = upstream.deadline.send(timeout.to_str().unwrap().to_owned());
            }
            match request.into_inner().id {
                404 => {
                    let mut status = Status::not_found("no such city: 100% gone");
                    status.metadata_mut().insert("x-why", "moved".parse().unwrap());
                    Err(status)
                }
                7 => {
                    let _noted = OnDrop(upstream.cancelled);
                    std::future::pending().await
                }
                id => {
                    let mut response = Response::new(city(id));
                    response.metadata_mut().insert("x-served-by", "cities".parse().unwrap());
                    Ok(response)
                }
            }
        })
    }
}

impl tonic::server::ServerStreamingService<CityQuery> for Cities {
    type Response = City;
    type ResponseStream = tonic::codegen::BoxStream<City>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<CityQuery>) -> Self::Future {
        let cities = tokio_stream::iter((1..=3).map(|id| Ok(city(id))));
        Box::pin(async move { Ok(Response::new(Box::pin(cities) as Self::ResponseStream)) })
    }
}

impl tonic::server::StreamingService<CityQuery> for Cities {
    type Response = City;
    type ResponseStream = tonic::codegen::BoxStream<City>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<tonic::Streaming<CityQuery>>) -> Self::Future {
        let answers = request.into_inner().map(|query| query.map(|query| city(query.id)));
        Box::pin(async move { Ok(Response::new(Box::pin(answers) as Self::ResponseStream)) })
    }
}

impl Dial for Upstream {
    fn dial(&self) -> BoxFuture<'_, std::io::Result<Stream>> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let upstream = self.clone();
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let cities = Cities(upstream.clone());
            async move {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<City, CityQuery>::default());
                Ok::<_, std::convert::Infallible>(match request.uri().path() {
                    "/geo.Cities/ListCities" => grpc.server_streaming(cities, request).await,
                    "/geo.Cities/Chat" => grpc.streaming(cities, request).await,
                    _ => grpc.unary(cities, request).await,
                })
            }
        });
        tokio::spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(far), service).await;
        });
        Box::pin(async move { Ok(Box::new(near) as Stream) })
    }
}

fn world() -> World {
    World::new("grpc", options(true))
}

fn options(descriptors: bool) -> InterfaceOptions {
    let descriptors = descriptors.then(|| Arc::new(self::descriptors()));
    InterfaceOptions { descriptors, ..InterfaceOptions::default() }
}

struct Rig {
    world: World,
    dial: Arc<dyn Dial>,
    cancelled: tokio::sync::mpsc::UnboundedReceiver<()>,
    deadline: tokio::sync::mpsc::UnboundedReceiver<String>,
}

/// Through the proxy to the real server.
fn rig(world: World) -> Rig {
    let (cancelled_tx, cancelled) = tokio::sync::mpsc::unbounded_channel();
    let (deadline_tx, deadline) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Arc::new(Upstream { cancelled: cancelled_tx, deadline: deadline_tx });
    let dial = Arc::new(Proxied { protocol: &PROTOCOL, link: world.link.clone(), upstream });
    Rig { world, dial, cancelled, deadline }
}

fn served(world: &World, responder: Arc<dyn Responder>) -> Arc<dyn Dial> {
    Arc::new(Served { protocol: &PROTOCOL, link: world.link.clone(), responder })
}

/// A tonic client of whatever `dial` leads to, over TCP.
async fn client(dial: Arc<dyn Dial>) -> tonic::client::Grpc<Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = dial.dial().await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    tonic::client::Grpc::new(channel)
}

type Client = tonic::client::Grpc<Channel>;

async fn get(client: &mut Client, id: i64) -> Result<Response<City>, Status> {
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut request = Request::new(CityQuery { id, trace: "t".into() });
    request.metadata_mut().insert("traceparent", "00-1-2-01".parse().unwrap());
    request.set_timeout(Duration::from_secs(15));
    let path = PathAndQuery::from_static("/geo.Cities/GetCity");
    client.unary(request, path, ProstCodec::<CityQuery, City>::default()).await
}

async fn list(client: &mut Client) -> Vec<City> {
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/geo.Cities/ListCities");
    let codec = ProstCodec::<CityQuery, City>::default();
    let stream = client.server_streaming(Request::new(CityQuery::default()), path, codec).await.unwrap();
    stream.into_inner().map(Result::unwrap).collect().await
}

/// What a tonic client sees.
async fn drive(dial: Arc<dyn Dial>) -> Vec<String> {
    let mut client = client(dial).await;
    let mut seen = Vec::new();
    for id in [1, 404, 2] {
        seen.push(match get(&mut client, id).await {
            Ok(answer) => format!("{:?} {:?}", answer.metadata().get("x-served-by"), answer.get_ref()),
            Err(status) => {
                format!("{:?} {} {:?}", status.code(), status.message(), status.metadata().get("x-why"))
            }
        });
    }
    seen.push(format!("{:?}", list(&mut client).await));
    seen
}

#[tokio::test]
async fn what_was_recorded_replays() {
    guard(async {
        for with_descriptors in [true, false] {
            let mut rig = rig(World::new("grpc", options(with_descriptors)));
            let seen = drive(rig.dial.clone()).await;
            assert!(seen[0].contains("city 1") && seen[0].contains("cities"), "{}", seen[0]);
            assert_eq!(seen[1], "NotFound no such city: 100% gone Some(\"moved\")");
            assert_eq!(seen[3], format!("{:?}", [city(1), city(2), city(3)]));
            assert_eq!(rig.deadline.recv().await.unwrap(), "15000000u");
            let exchanges = rig.world.exchanges();
            assert_eq!(exchanges.len(), 4);
            assert_eq!(exchanges[0].key, "/geo.Cities/GetCity");
            assert!(exchanges[0].repeatable && !exchanges[0].mutating);
            if with_descriptors {
                let response = exchanges[0].response.as_ref().unwrap().value().unwrap();
                let message = response.get("message").unwrap();
                assert_eq!(message.get("name"), Some(&Value::text("city 1")));
                assert_eq!(message.get("big"), Some(&Value::UInt(u64::MAX)));
                let asked = exchanges[0].request.value().unwrap();
                assert_eq!(asked.get("message").unwrap().get("id"), Some(&Value::Int(1)));
                let traceparent = asked.get("metadata").unwrap().get("traceparent");
                assert_eq!(traceparent, Some(&Value::text("00-1-2-01")));
            }
            let replay = World::new("grpc", options(with_descriptors));
            let again = drive(served(&replay, recorded(&exchanges))).await;
            assert_eq!(seen, again);
            assert_eq!(rig.world.asked(), replay.asked());
            assert!(replay.asked()[0].1.get("metadata").unwrap().get("grpc-timeout").is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn rules_answer_with_real_statuses() {
    guard(async {
        let rig = rig(world());
        let fields =
            |f: &[(&str, Value)]| Fields(f.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect());
        let mut client = client(rig.dial.clone()).await;
        let unavailable =
            [("code", Value::text("UNAVAILABLE")), ("message", Value::text("user-service down"))];
        rig.world.rule(&[("method", "*/GetCity")], Effect::Error(fields(&unavailable)));
        let status = get(&mut client, 1).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "user-service down"));
        assert_eq!(list(&mut client).await.len(), 3);

        rig.world.rule(&[("message", "id=2")], Effect::Error(fields(&[("code", Value::Int(8))])));
        assert_eq!(get(&mut client, 2).await.unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(get(&mut client, 1).await.unwrap().get_ref(), &city(1));

        let message = Value::map([("name", Value::text("elsewhere"))]);
        rig.world.rule(&[], Effect::Respond(fields(&[("message", message)])));
        assert_eq!(get(&mut client, 1).await.unwrap().get_ref().name, "elsewhere");

        rig.world.rule(&[], Effect::Delay(Duration::from_millis(150)));
        let began = rig.world.journal.clock().now_ns();
        assert_eq!(get(&mut client, 1).await.unwrap().get_ref(), &city(1));
        assert!(rig.world.journal.clock().now_ns() - began >= 150_000_000);

        rig.world.rule(&[], Effect::Drop);
        assert!(get(&mut client, 1).await.is_err());
        let outcomes: Vec<Outcome> = rig.world.exchanges().iter().map(|e| e.outcome).collect();
        assert!(outcomes.contains(&Outcome::Dropped));

        // The recorded error replays as the same status.
        let replay = world();
        let mut client = self::client(served(&replay, recorded(&rig.world.exchanges()))).await;
        assert_eq!(get(&mut client, 1).await.unwrap_err().message(), "user-service down");
    })
    .await;
}

#[tokio::test]
async fn cancellation_reaches_the_server_and_streams_flow_both_ways() {
    guard(async {
        let mut rig = rig(world());
        let mut client = client(rig.dial.clone()).await;
        {
            let mut hanging = client.clone();
            let call = tokio::spawn(async move { get(&mut hanging, 7).await });
            rig.deadline.recv().await.unwrap();
            call.abort();
        }
        rig.cancelled.recv().await.unwrap();
        while rig.world.exchanges().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(rig.world.exchanges()[0].outcome, Outcome::Abandoned);

        // Each question waits for the answer to the one before.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let questions = tokio_stream::wrappers::ReceiverStream::new(receiver);
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/geo.Cities/Chat");
        let codec = ProstCodec::<CityQuery, City>::default();
        let answers = client.streaming(Request::new(questions), path, codec);
        sender.send(CityQuery { id: 1, trace: String::new() }).await.unwrap();
        let mut answers = answers.await.unwrap().into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap(), city(1));
        sender.send(CityQuery { id: 2, trace: String::new() }).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), city(2));
        drop(sender);
        assert!(answers.next().await.is_none());
        let chat = rig.world.exchanges().pop().unwrap();
        assert_eq!(chat.request.value().unwrap().get("messages").unwrap().as_list().unwrap().len(), 2);
        assert_eq!(chat.outcome, Outcome::Answered);
    })
    .await;
}

fn cell() -> MockCell {
    MockCell::new(&Key::of_run(1), "peer", Arc::new(crate::plan::NoProgram))
}

fn mock() -> (GrpcMock, World) {
    let answer =
        Value::map([("id", Value::Int(169)), ("name", Value::text("Almaty")), ("blob", Value::text("AP8="))]);
    let error = GrpcAnswer::Error { code: "PERMISSION_DENIED".into(), message: "no".into() };
    let stream = GrpcAnswer::Responses(vec![Value::map([("id", Value::Int(1))]), Value::Map(vec![])]);
    let services = vec![
        ("/geo.Cities/GetCity".to_owned(), GrpcAnswer::Response(answer)),
        ("/geo.Cities/PutCity".to_owned(), error),
        ("/geo.Cities/ListCities".to_owned(), stream),
    ];
    (GrpcMock::new(descriptors(), services).unwrap(), world())
}

async fn step(dial: &Arc<dyn Dial>, world: &World, method: &str, message: Value) -> StepResponse {
    let call = StepCall {
        service: "peer".into(),
        interface: "main".into(),
        verb: "call".into(),
        arguments: vec![("method".into(), Value::text(method)), ("message".into(), message)],
        timeout: Some(Duration::from_secs(10)),
        location: String::new(),
    };
    PROTOCOL.step(dial.clone(), world.link.clone(), &call).await
}

#[tokio::test]
async fn a_mock_answers_tonic_and_steps() {
    guard(async {
        let (mock, world) = mock();
        let dial = served(&world, mock.responder(&cell()));
        let mut client = client(dial.clone()).await;
        let answer = get(&mut client, 1).await.unwrap().into_inner();
        assert_eq!(
            (answer.id, answer.name.as_str(), answer.blob.as_slice()),
            (169, "Almaty", [0, 255].as_slice())
        );
        assert_eq!(list(&mut client).await.len(), 2);
        PROTOCOL.ready(dial.dial().await.unwrap(), world.link.clone()).await.unwrap();

        let id = Value::map([("id", Value::Int(1))]);
        let got = step(&dial, &world, "geo.Cities/GetCity", id.clone()).await;
        assert!(got.ok, "{got:?}");
        assert_eq!(got.data.get("name"), Some(&Value::text("Almaty")));
        assert_eq!(got.data.get("capital"), Some(&Value::Bool(false)));
        let denied = step(&dial, &world, "/geo.Cities/PutCity", id.clone()).await;
        assert_eq!(
            (denied.ok, denied.status, denied.error.as_deref()),
            (false, 7, Some("PERMISSION_DENIED: no"))
        );
        let missing = step(&dial, &world, "/geo.Cities/Chat", Value::List(vec![id.clone()])).await;
        assert_eq!(missing.status, status::UNIMPLEMENTED);
        let typo = step(&dial, &world, "/geo.Cities/GetCitty", id.clone()).await;
        assert!(typo.error.unwrap().contains("the nearest is /geo.Cities/GetCity"));
        let listed = step(&dial, &world, "/geo.Cities/ListCities", Value::Null).await;
        assert_eq!(listed.data.as_list().unwrap().len(), 2);

        // A client without descriptors finds them by reflection.
        let blind = World::new("grpc", options(false));
        let got = step(&dial, &blind, "/geo.Cities/GetCity", id).await;
        assert_eq!(got.data.get("name"), Some(&Value::text("Almaty")), "{got:?}");
        let work = world.exchanges().into_iter().filter(|e| e.class == Class::Work).count();
        assert_eq!(work, 7);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_the_connection() {
    guard(async {
        let world = world();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dial: Arc<dyn Dial> = Arc::new(Proxied {
            protocol: &PROTOCOL,
            link: world.link.clone(),
            upstream: Arc::new(Tcp(gone)),
        });
        let got = step(&dial, &world, "/geo.Cities/GetCity", Value::Null).await;
        assert!(got.error.is_some() && got.status == 0, "{got:?}");
        assert_eq!(world.exchanges()[0].outcome, Outcome::Failed);
    })
    .await;
}

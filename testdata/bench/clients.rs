//! The clients: libraries that services use, one connection each.

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use mysql_async::prelude::Queryable;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// How many commands a pipeline holds.
const PIPELINE: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(20);

/// The example's descriptors.
pub const DESCRIPTORS: &[u8] = include_bytes!("../../specs/orders/proto/all_upstreams.pb");

#[derive(Clone, PartialEq, prost::Message)]
pub struct CityQuery {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct City {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub country: String,
}

/// What is measured.
pub struct Kind {
    pub name: &'static str,
    pub protocol: &'static str,
    /// Requests that go out together.
    pub batch: u64,
}

const fn kind(name: &'static str, protocol: &'static str, batch: u64) -> Kind {
    Kind { name, protocol, batch }
}

pub const KINDS: &[Kind] = &[
    kind("HTTP keep-alive", "http", 1),
    kind("MySQL select, text", "mysql", 1),
    kind("MySQL select, prepared", "mysql", 1),
    kind("Redis GET", "redis", 1),
    kind("Redis GET, 50 pipelined", "redis", PIPELINE),
    kind("Kafka produce", "kafka", 1),
    kind("gRPC unary", "grpc", 1),
];

enum Library {
    Http(SendRequest<Empty<bytes::Bytes>>),
    MySqlText(mysql_async::Conn),
    MySqlPrepared(mysql_async::Conn, mysql_async::Statement),
    Redis(redis::aio::MultiplexedConnection),
    Kafka(FutureProducer),
    Grpc(tonic::client::Grpc<Channel>),
}

/// A connected client.
pub struct Client {
    pub kind: &'static Kind,
    library: Library,
    asked: u64,
}

impl Client {
    pub async fn connect(kind: &'static Kind, port: u16) -> Client {
        let library = match (kind.protocol, kind.name) {
            ("http", _) => http(port).await,
            ("mysql", name) => mysql(port, name.ends_with("prepared")).await,
            ("redis", _) => redis(port).await,
            ("kafka", _) => kafka(port),
            _ => grpc(port).await,
        };
        Client { kind, library, asked: 0 }
    }

    /// One request and its answer (or one pipeline of them).
    pub async fn ask(&mut self) {
        self.asked += 1;
        let id = self.asked % 100 + 1;
        match &mut self.library {
            Library::Http(sender) => {
                let request = http::Request::get(format!("/orders/{id}")).header("host", "orders");
                let request = request.header("authorization", "Bearer abcdefghijklmnopqrstuvwxyz");
                let response = sender.send_request(request.body(Empty::new()).expect("a request")).await;
                let body = response.expect("a response").into_body().collect().await.expect("a body");
                assert!(body.to_bytes().len() > 50);
            }
            Library::MySqlText(conn) => {
                let row = conn.query_first(format!("SELECT id, name FROM items WHERE id = {id}")).await;
                let row: Option<(u64, String)> = row.expect("a result");
                assert_eq!(row.expect("a row").0, id);
            }
            Library::MySqlPrepared(conn, statement) => {
                let row: Option<(u64, String)> = conn.exec_first(&*statement, (id,)).await.expect("a result");
                assert_eq!(row.expect("a row").0, id);
            }
            Library::Redis(conn) if self.kind.batch == 1 => {
                let value: String =
                    redis::cmd("GET").arg(format!("key:{id}")).query_async(conn).await.expect("a value");
                assert_eq!(value.len(), 32);
            }
            Library::Redis(conn) => {
                let mut pipe = redis::pipe();
                for key in 1..=PIPELINE {
                    pipe.cmd("GET").arg(format!("key:{key}"));
                }
                let values: Vec<String> = pipe.query_async(conn).await.expect("values");
                assert_eq!(values.len() as u64, PIPELINE);
            }
            Library::Kafka(producer) => {
                let payload = "x".repeat(100);
                let record = FutureRecord::<str, str>::to("bench").partition(0).payload(&payload);
                producer.send(record, PATIENCE).await.expect("a delivery");
            }
            Library::Grpc(client) => {
                client.ready().await.expect("a connection");
                let path =
                    http::uri::PathAndQuery::from_static("/inDriver.geo_config.GeoConfigService/GetCity");
                let request = tonic::Request::new(CityQuery { id: id as i64 });
                let city = client.unary(request, path, ProstCodec::<CityQuery, City>::default()).await;
                assert_eq!(city.expect("a city").into_inner().id, id as i64);
            }
        }
    }
}

async fn http(port: u16) -> Library {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    Library::Http(sender)
}

async fn mysql(port: u16, prepared: bool) -> Library {
    let url = format!("mysql://root:test@127.0.0.1:{port}/appdb");
    let mut conn = mysql_async::Conn::from_url(url).await.expect("a connection");
    let table = "CREATE TABLE items (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL)";
    conn.query_drop(table).await.expect("a table");
    let rows: Vec<String> = (1..=100).map(|id| format!("({id}, 'the item with the number {id}')")).collect();
    conn.query_drop(format!("INSERT INTO items (id, name) VALUES {}", rows.join(", "))).await.expect("rows");
    if !prepared {
        return Library::MySqlText(conn);
    }
    let statement = conn.prep("SELECT id, name FROM items WHERE id = ?").await.expect("a statement");
    Library::MySqlPrepared(conn, statement)
}

async fn redis(port: u16) -> Library {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
    let mut conn = client.get_multiplexed_async_connection().await.expect("a connection");
    for key in 1..=100 {
        let mut set = redis::cmd("SET");
        let set = set.arg(format!("key:{key}")).arg("v".repeat(32));
        set.exec_async(&mut conn).await.expect("a key is set");
    }
    Library::Redis(conn)
}

fn kafka(port: u16) -> Library {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", format!("127.0.0.1:{port}")).set("linger.ms", "0");
    config.set("socket.nagle.disable", "true").set("allow.auto.create.topics", "true");
    Library::Kafka(config.create().expect("a producer"))
}

async fn grpc(port: u16) -> Library {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
    Library::Grpc(tonic::client::Grpc::new(endpoint.connect().await.expect("a connection")))
}

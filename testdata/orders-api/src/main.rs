//! The service under test of `specs/orders`: orders in MySQL, their list cached in Redis, events in
//! Kafka, three gRPC upstreams, tokens checked against an issuer's keys.
//!
//! Contract: it is written as an ordinary service is, not to be convenient to test. Ids are random,
//! times its own clock's, upstreams are asked concurrently, connections are kept, a ticker and a
//! consumer run beside the requests. It starts whether or not its dependencies are up.

mod auth;
mod bus;
mod cache;
mod clock;
mod config;
mod db;
mod fetch;
mod log;
mod mutation;
mod routes;
mod trace;
mod upstreams;

use config::{Config, ConfigError};
use routes::App;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const LISTEN: (&str, u16) = ("0.0.0.0", 8080);
/// How long the first request waits for connections that are still being made.
const WARM_LIMIT: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(500);
/// How long requests and the consumer group may take to end once we are told to stop.
const STOP_LIMIT: Duration = Duration::from_millis(100);

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("REDIS_URL: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("KAFKA_BROKERS: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error("an upstream's address: {0}")]
    Upstream(#[from] tonic::transport::Error),
    #[error("port 8080: {0}")]
    Listen(#[from] std::io::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    let error = match start().await {
        // Returning would wait for the producer's and the consumer's threads.
        Ok(()) => std::process::exit(0),
        Err(error) => error,
    };
    log::warn("cannot start", json!({ "why": error.to_string() }));
    ExitCode::from(2)
}

async fn start() -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = Arc::new(app(Config::read(|name| std::env::var(name).ok())?)?);
    let listener = TcpListener::bind(LISTEN).await?;
    begin_background_work(&app);
    warm(&app).await;
    log::info("ready", json!({ "port": LISTEN.1 }));

    let stopping = Arc::new(tokio::sync::Notify::new());
    let stopped = stopping.clone();
    let serving = axum::serve(listener, routes::router(app.clone()))
        .with_graceful_shutdown(async move { stopped.notified().await });
    let serving = tokio::spawn(async move { serving.await });
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stopping.notify_one();
    // What is not done by then is cut off.
    let _ = tokio::time::timeout(STOP_LIMIT, async { tokio::join!(serving, app.bus.leave()) }).await;
    log::info("stopped", json!({}));
    Ok(())
}

fn app(config: Config) -> Result<App, StartError> {
    Ok(App {
        db: db::Database::new(config.database, config.bug),
        cache: cache::Cache::new(&config.redis, clock::Moment::now().millis())?,
        bus: bus::Bus::new(&config.brokers, config.events, config.bug)?,
        upstreams: upstreams::Upstreams::new(&config.geo, &config.users, &config.balance)?,
        verifier: auth::Verifier::new(&config.issuer, &config.jwks),
        bug: config.bug,
    })
}

/// The outbox's ticker and the consumer of events.
fn begin_background_work(app: &Arc<App>) {
    let bus = app.bus.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            bus.drain().await;
        }
    });
    let bus = app.bus.clone();
    tokio::spawn(async move { bus.listen().await });
}

/// Makes the connections that requests will need. Whatever takes longer goes on in the background.
async fn warm(app: &Arc<App>) {
    let app = app.clone();
    let warming = tokio::spawn(async move {
        tokio::join!(
            app.db.warm(),
            app.cache.warm(),
            app.bus.warm(),
            app.upstreams.warm(),
            app.verifier.warm()
        );
    });
    if tokio::time::timeout(WARM_LIMIT, warming).await.is_err() {
        log::warn("not everything is connected yet", json!({}));
    }
}

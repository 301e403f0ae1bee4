//! Putting a reused server back to its state just after `seed`.
//!
//! Contract: [`Kept::remember`] looks at the server once, after its seed; [`Kept::put_back`] makes
//! it equal to that again, or says why a cold start is needed. Neither goes through a proxy, and
//! neither is journaled. What a server has besides its data (settings changed while it runs, users)
//! is not put back.
//!
//! Not modelled: servers of other protocols; they are started cold.

mod kafka;
mod mysql;
mod redis;

use crate::link::{Dial, InterfaceOptions};
use crate::topology::Service;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long putting back one server may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Ways into a service, by declared port.
pub type Ways<'a> = &'a (dyn Fn(u16) -> Arc<dyn Dial> + Send + Sync);

/// What a server's state was.
#[derive(Debug, Serialize, Deserialize)]
pub enum Kept {
    /// All of its interfaces, by port.
    Known(Vec<(u16, State)>),
    /// It cannot be put back; why.
    Unknown(String),
}

/// What one interface leads to.
#[derive(Debug, Serialize, Deserialize)]
pub enum State {
    /// Databases and their tables.
    Mysql(mysql::State),
    /// Keys.
    Redis(redis::State),
    /// Topics.
    Kafka(kafka::State),
}

/// What came of putting back.
#[derive(Debug, PartialEq, Eq)]
pub enum PutBack {
    /// It is as it was.
    Done,
    /// It has to be started cold, because of this.
    Cold(String),
}

fn options(service: &Service) -> InterfaceOptions {
    InterfaceOptions { env: service.env.iter().cloned().collect(), ..InterfaceOptions::default() }
}

/// In words: what failed, or that it took too long.
async fn limited<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("not done within {}s", LIMIT.as_secs()));
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(late)
}

impl Kept {
    /// Remembers the present state.
    ///
    /// # Errors
    /// When a server of a known protocol cannot be asked.
    pub async fn remember(service: &Service, ways: Ways<'_>) -> Result<Kept, String> {
        let options = options(service);
        let mut known = Vec::new();
        for interface in &service.interfaces {
            let dial = ways(interface.port);
            let state = match interface.protocol.name() {
                "mysql" => limited(mysql::State::remember(dial, &options)).await?.map(State::Mysql),
                "redis" => limited(redis::State::remember(dial, &options)).await?.map(State::Redis),
                "kafka" => limited(kafka::State::remember(dial)).await?.map(State::Kafka),
                other => Err(format!("{other} servers are not put back")),
            };
            match state {
                Ok(state) => known.push((interface.port, state)),
                Err(why) => return Ok(Kept::Unknown(why)),
            }
        }
        Ok(Kept::Known(known))
    }

    /// Makes the server's state the remembered one.
    ///
    /// # Errors
    /// When the server cannot be asked or refuses.
    pub async fn put_back(&self, service: &Service, ways: Ways<'_>) -> Result<PutBack, String> {
        let known = match self {
            Kept::Known(known) => known,
            Kept::Unknown(why) => return Ok(PutBack::Cold(why.clone())),
        };
        let options = options(service);
        for (port, state) in known {
            let dial = ways(*port);
            match state {
                State::Mysql(state) => limited(state.put_back(dial, &options)).await?,
                State::Redis(state) => limited(state.put_back(dial, &options)).await?,
                State::Kafka(state) => limited(state.put_back(dial)).await?,
            }
        }
        Ok(PutBack::Done)
    }
}

/// Has a server that is known write out what is pending, so that a disk fault that comes next
/// meets only what is written from then on.
///
/// # Errors
/// When the server cannot be asked; it may still be as it should.
pub async fn settle(service: &Service, ways: Ways<'_>) -> Result<(), String> {
    let options = options(service);
    for interface in &service.interfaces {
        let dial = ways(interface.port);
        match interface.protocol.name() {
            "mysql" => limited(mysql::settle(dial, &options)).await?,
            "redis" => limited(redis::settle(dial, &options)).await?,
            // A broker writes a record when it takes it on.
            _ => {}
        }
    }
    Ok(())
}

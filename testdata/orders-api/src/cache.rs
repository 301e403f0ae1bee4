//! The list of orders in Redis.
//!
//! Contract: the cache is a help, never a need. Each operation takes [`LIMIT`] at most, and a failure
//! is logged and otherwise as good as a miss. Keys carry the moment this process started, so that a
//! new version never reads what an old one wrote.

use crate::log;
use crate::mutation;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, FromRedisValue, RedisError, RedisResult, cmd};
use serde_json::json;
use std::time::Duration;

/// How long one operation may take, with a new connection and all.
const LIMIT: Duration = Duration::from_millis(500);
const SECONDS_TO_LIVE: u32 = 30;

/// What the cache said.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It has the list.
    Hit(String),
    /// It has not.
    Miss,
    /// It cannot be asked.
    Down,
}

/// The cache.
#[derive(Debug, Clone)]
pub struct Cache {
    manager: ConnectionManager,
    key: String,
}

impl Cache {
    /// A cache that has not connected yet.
    ///
    /// # Errors
    /// When the URL makes no sense.
    pub fn new(url: &str, started_ms: u128) -> RedisResult<Cache> {
        // One attempt to connect for each operation that needs it; whoever comes next tries again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(LIMIT / 2))
            .set_response_timeout(Some(LIMIT / 2));
        let manager = ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, config)?;
        let name = mutation::pick("cache-key", "list", "all");
        let prefix = mutation::pick("cache-prefix", "orders", "order");
        let key = match mutation::is_on("cache-key-fixed") {
            true => format!("{prefix}:{name}"),
            false => format!("{prefix}:{started_ms}:{name}"),
        };
        Ok(Cache { manager, key })
    }

    /// Connects ahead of the first request.
    pub async fn warm(&self) {
        self.ask::<String>(&cmd("PING")).await;
    }

    /// The kept list.
    pub async fn get(&self) -> Lookup {
        if mutation::is_on("cache-get-missing") {
            return Lookup::Miss;
        }
        match self.ask::<Option<String>>(cmd("GET").arg(&self.key)).await {
            Some(Some(list)) => Lookup::Hit(list),
            Some(None) => Lookup::Miss,
            None => Lookup::Down,
        }
    }

    /// Keeps the list.
    pub async fn put(&self, list: &str) {
        if mutation::is_on("cache-set-missing") {
            return;
        }
        let seconds = mutation::pick("cache-ttl", SECONDS_TO_LIVE, SECONDS_TO_LIVE + 1);
        let list = mutation::pick("cache-value", list, "{}");
        let mut set = cmd("SET");
        set.arg(&self.key).arg(list);
        if !mutation::is_on("cache-ttl-missing") {
            set.arg(mutation::pick("cache-ttl-unit", "EX", "PX")).arg(seconds);
        }
        if mutation::is_on("cache-only-new") {
            set.arg("NX");
        }
        self.ask::<()>(&set).await;
        if mutation::is_on("cache-expire") {
            self.ask::<i64>(cmd("EXPIRE").arg(&self.key).arg(seconds)).await;
        }
    }

    /// Forgets the list.
    pub async fn forget(&self) {
        if mutation::is_on("cache-not-invalidated") {
            return;
        }
        if mutation::is_on("made-up-receipt") {
            self.ask::<i64>(cmd("DEL").arg(format!("lock:{}", mutation::receipt()))).await;
        }
        self.ask::<i64>(cmd(mutation::pick("cache-unlink", "DEL", "UNLINK")).arg(&self.key)).await;
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let why = match tokio::time::timeout(LIMIT, self.attempts(command)).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".into(),
        };
        log::warn("cache", json!({ "why": why }));
        None
    }

    /// A pooled connection may have died unseen: one more attempt, on a new one.
    async fn attempts<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let gone = |error: &RedisError| error.is_io_error() && !error.is_timeout();
        match command.query_async(&mut self.manager.clone()).await {
            Err(error) if gone(&error) => command.query_async(&mut self.manager.clone()).await,
            result => result,
        }
    }
}

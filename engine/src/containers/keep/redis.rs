//! Redis: keys with their values and times to live, in every database.
//!
//! Contract: `FLUSHALL`, then what was there is restored from its dump; what a key had left to
//! live is counted from then on.

use crate::link::{Dial, InterfaceOptions, Link};
use crate::protocol;
use crate::step::{StepCall, StepResponse};
use crate::virtual_time::Time;
use faultbox_bundle_format::Value;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Keys as they were: name, time to live in milliseconds (0: for ever), dump.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    keys: Vec<(Vec<u8>, i64, Vec<u8>)>,
}

async fn ask(dial: &Arc<dyn Dial>, options: &InterfaceOptions, args: Vec<Value>) -> Result<Value, String> {
    let redis = protocol::by_name("redis").ok_or("redis is not built in")?;
    let link = Link::unobserved("keep.redis", "redis", "", options.clone(), &Time::default());
    let call = StepCall {
        service: "keep".to_owned(),
        interface: "redis".to_owned(),
        verb: "command".to_owned(),
        arguments: vec![("args".to_owned(), Value::List(args))],
        timeout: None,
        location: String::new(),
    };
    match redis.step(dial.clone(), link, &call).await {
        StepResponse { ok: true, data, .. } => Ok(data),
        response => Err(response.error.unwrap_or_else(|| "no answer".to_owned())),
    }
}

fn words(words: &[&str]) -> Vec<Value> {
    words.iter().map(|word| Value::text(*word)).collect()
}

impl State {
    /// `Ok(Err)`: it cannot be put back, and why.
    pub async fn remember(
        dial: Arc<dyn Dial>,
        options: &InterfaceOptions,
    ) -> Result<Result<State, String>, String> {
        let info = ask(&dial, options, words(&["INFO", "keyspace"])).await?;
        let info =
            info.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        if info.lines().any(|line| line.starts_with("db") && !line.starts_with("db0:")) {
            return Ok(Err("it has keys in other databases than 0".to_owned()));
        }
        let mut state = State::default();
        let keys = ask(&dial, options, words(&["KEYS", "*"])).await?;
        for key in keys.as_list().unwrap_or_default() {
            let of_key = |command: &str| vec![Value::text(command), key.clone()];
            let left = ask(&dial, options, of_key("PTTL")).await?.as_int().unwrap_or(-1);
            let dump = ask(&dial, options, of_key("DUMP")).await?;
            if let (Some(key), Some(dump)) = (key.as_bytes(), dump.as_bytes()) {
                state.keys.push((key.to_vec(), left.max(0), dump.to_vec()));
            }
        }
        Ok(Ok(state))
    }

    pub async fn put_back(&self, dial: Arc<dyn Dial>, options: &InterfaceOptions) -> Result<(), String> {
        ask(&dial, options, words(&["FLUSHALL", "SYNC"])).await?;
        ask(&dial, options, words(&["SCRIPT", "FLUSH"])).await?;
        for (key, left, dump) in &self.keys {
            let bytes = Value::text_or_bytes;
            let restore =
                vec![Value::text("RESTORE"), bytes(key), Value::text(left.to_string()), bytes(dump)];
            ask(&dial, options, restore).await?;
        }
        Ok(())
    }
}

/// Waits until the server is not saving in the background.
pub async fn settle(dial: Arc<dyn Dial>, options: &InterfaceOptions) -> Result<(), String> {
    loop {
        let info = ask(&dial, options, words(&["INFO", "persistence"])).await?;
        let info =
            info.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        let busy = ["rdb_bgsave_in_progress:1", "aof_rewrite_in_progress:1"];
        if !info.lines().any(|line| busy.contains(&line.trim())) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

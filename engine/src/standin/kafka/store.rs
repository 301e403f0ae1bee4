//! Topics and committed offsets on disk.
//!
//! Contract: `topics/<name>/<partition>.log` and `offsets.jsonl` below the data directory; a
//! snapshot is a copy of both in `snapshot/`. Names are checked before they become paths.
//! Not modelled: more than one process over one directory.

use super::log::{Log, Refused};
use crate::protocol::kafka::groups::Committed;
use bytes::Bytes;
use kafka_protocol::ResponseError as E;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::Notify;

/// More partitions than anyone asks for on purpose.
const PARTITIONS_MAX: i32 = 10_000;

type Partitions = Vec<Arc<Mutex<Log>>>;

/// Everything on disk.
pub struct Store {
    data: PathBuf,
    topics: RwLock<BTreeMap<String, Partitions>>,
    offsets: Mutex<fs::File>,
    producers: AtomicI64,
    grown: Notify,
}

#[derive(Serialize, Deserialize)]
struct Line {
    group: String,
    topic: String,
    partition: i32,
    offset: i64,
    metadata: String,
}

fn offsets_file(data: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().append(true).create(true).open(data.join("offsets.jsonl"))
}

impl Store {
    /// Opens what is in a directory, with the committed offsets in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(data: &Path) -> io::Result<(Self, Vec<Committed>)> {
        fs::create_dir_all(data.join("topics"))?;
        let store = Store {
            data: data.to_owned(),
            topics: RwLock::default(),
            offsets: Mutex::new(offsets_file(data)?),
            producers: AtomicI64::new(0),
            grown: Notify::new(),
        };
        let committed = store.load()?;
        Ok((store, committed))
    }

    fn load(&self) -> io::Result<Vec<Committed>> {
        let mut topics = BTreeMap::new();
        let mut producer = self.producers.load(Ordering::SeqCst);
        for entry in fs::read_dir(self.data.join("topics"))? {
            let folder = entry?;
            let count = fs::read_dir(folder.path())?.count();
            let mut partitions = Vec::new();
            for number in 0..count {
                let log = Log::open(&folder.path().join(format!("{number}.log")))?;
                producer = producer.max(log.highest_producer() + 1);
                partitions.push(Arc::new(Mutex::new(log)));
            }
            topics.insert(folder.file_name().to_string_lossy().into_owned(), partitions);
        }
        *self.topics.write().unwrap_or_else(|p| p.into_inner()) = topics;
        self.producers.store(producer, Ordering::SeqCst);
        let mut committed = BTreeMap::new();
        let text = fs::read_to_string(self.data.join("offsets.jsonl"))?;
        // A line that was cut off was never acknowledged.
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let Line { group, topic, partition, offset, metadata } = line;
            let key = (group.clone(), topic.clone(), partition);
            committed.insert(key, Committed { group, topic, partition, offset, metadata });
        }
        Ok(committed.into_values().collect())
    }

    /// Every topic.
    pub fn names(&self) -> Vec<String> {
        self.topics.read().unwrap_or_else(|p| p.into_inner()).keys().cloned().collect()
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: &str) -> Option<i32> {
        let topics = self.topics.read().unwrap_or_else(|p| p.into_inner());
        topics.get(topic).map(|partitions| i32::try_from(partitions.len()).unwrap_or(i32::MAX))
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// The protocol's error code.
    pub fn create(&self, topic: &str, partitions: i32) -> Result<(), i16> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.bytes().all(legal)
        {
            return Err(E::InvalidTopicException.code());
        }
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(E::InvalidPartitions.code());
        }
        let mut topics = self.topics.write().unwrap_or_else(|p| p.into_inner());
        if topics.contains_key(topic) {
            return Ok(());
        }
        let folder = self.data.join("topics").join(topic);
        let make = || {
            fs::create_dir_all(&folder)?;
            let log = |number| Ok(Arc::new(Mutex::new(Log::open(&folder.join(format!("{number}.log")))?)));
            (0..partitions).map(log).collect::<io::Result<Partitions>>()
        };
        match make() {
            Ok(made) => {
                topics.insert(topic.to_owned(), made);
                Ok(())
            }
            Err(_) => {
                // Half a topic is none; the error is told either way.
                let _ = fs::remove_dir_all(&folder);
                Err(E::KafkaStorageError.code())
            }
        }
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// The protocol's error code.
    pub fn delete(&self, topic: &str) -> Result<(), i16> {
        let mut topics = self.topics.write().unwrap_or_else(|p| p.into_inner());
        if topics.remove(topic).is_none() {
            return Err(E::UnknownTopicOrPartition.code());
        }
        let removed = fs::remove_dir_all(self.data.join("topics").join(topic));
        drop(topics);
        self.grown.notify_waiters();
        removed.map_err(|_| E::KafkaStorageError.code())
    }

    fn log(&self, topic: &str, partition: i32) -> Result<Arc<Mutex<Log>>, i16> {
        let topics = self.topics.read().unwrap_or_else(|p| p.into_inner());
        let partitions = topics.get(topic).map(Vec::as_slice).unwrap_or_default();
        let found = usize::try_from(partition).ok().and_then(|n| partitions.get(n));
        found.cloned().ok_or(E::UnknownTopicOrPartition.code())
    }

    /// Appends batches; the first one's offset.
    ///
    /// # Errors
    /// The protocol's error code.
    pub fn append(&self, topic: &str, partition: i32, batches: &Bytes) -> Result<i64, i16> {
        let log = self.log(topic, partition)?;
        let appended = log.lock().unwrap_or_else(|p| p.into_inner()).append(batches);
        self.grown.notify_waiters();
        appended.map_err(|refused| match refused {
            Refused::Code(code) => code,
            Refused::Disk(error) => {
                eprintln!("cannot write {topic}-{partition}: {error}");
                E::KafkaStorageError.code()
            }
        })
    }

    /// Batches from an offset on, and the next offset of the log.
    ///
    /// # Errors
    /// The protocol's error code.
    pub fn read(&self, topic: &str, partition: i32, offset: i64, max: usize) -> Result<(Bytes, i64), i16> {
        let log = self.log(topic, partition)?;
        let log = log.lock().unwrap_or_else(|p| p.into_inner());
        match log.read(offset, max) {
            Ok(bytes) => Ok((bytes, log.next_offset())),
            Err(None) => Err(E::OffsetOutOfRange.code()),
            Err(Some(error)) => {
                eprintln!("cannot read {topic}-{partition}: {error}");
                Err(E::KafkaStorageError.code())
            }
        }
    }

    /// Timestamp and offset (-1: the end, -2: the beginning, else the first at or after).
    ///
    /// # Errors
    /// The protocol's error code.
    pub fn offset(&self, topic: &str, partition: i32, timestamp: i64) -> Result<(i64, i64), i16> {
        let log = self.log(topic, partition)?;
        let log = log.lock().unwrap_or_else(|p| p.into_inner());
        Ok(match timestamp {
            -1 => (-1, log.next_offset()),
            -2 => (-1, 0),
            // The record with the highest timestamp.
            -3 => (-1, log.next_offset() - 1),
            timestamp => log.at_timestamp(timestamp).unwrap_or((-1, -1)),
        })
    }

    /// Resolves when something was appended (or a topic went) after the call.
    pub fn grown(&self) -> tokio::sync::futures::Notified<'_> {
        self.grown.notified()
    }

    /// A number for a producer.
    pub fn next_producer(&self) -> i64 {
        self.producers.fetch_add(1, Ordering::SeqCst)
    }

    /// Keeps committed offsets.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_offsets(&self, offsets: &[Committed]) -> io::Result<()> {
        let mut text = String::new();
        for c in offsets.iter().cloned() {
            let Committed { group, topic, partition, offset, metadata } = c;
            let line = Line { group, topic, partition, offset, metadata };
            text.push_str(&serde_json::to_string(&line).map_err(io::Error::other)?);
            text.push('\n');
        }
        self.offsets.lock().unwrap_or_else(|p| p.into_inner()).write_all(text.as_bytes())
    }

    /// Remembers the present state.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn snapshot(&self) -> io::Result<()> {
        // Held so that nothing is made or appended meanwhile.
        let topics = self.topics.write().unwrap_or_else(|p| p.into_inner());
        let _logs: Vec<_> =
            topics.values().flatten().map(|l| l.lock().unwrap_or_else(|p| p.into_inner())).collect();
        let _offsets = self.offsets.lock().unwrap_or_else(|p| p.into_inner());
        let snapshot = self.data.join("snapshot");
        remove(&snapshot)?;
        fs::create_dir_all(&snapshot)?;
        copy(&self.data.join("topics"), &snapshot.join("topics"))?;
        fs::copy(self.data.join("offsets.jsonl"), snapshot.join("offsets.jsonl")).map(drop)
    }

    /// Goes back to the remembered state, or to none; the offsets that were committed then.
    ///
    /// # Errors
    /// When it cannot be copied back or read.
    pub fn restore(&self) -> io::Result<Vec<Committed>> {
        let snapshot = self.data.join("snapshot");
        {
            let mut topics = self.topics.write().unwrap_or_else(|p| p.into_inner());
            let mut offsets = self.offsets.lock().unwrap_or_else(|p| p.into_inner());
            topics.clear();
            remove(&self.data.join("topics"))?;
            fs::create_dir_all(self.data.join("topics"))?;
            remove(&self.data.join("offsets.jsonl"))?;
            if snapshot.exists() {
                copy(&snapshot.join("topics"), &self.data.join("topics"))?;
                fs::copy(snapshot.join("offsets.jsonl"), self.data.join("offsets.jsonl"))?;
            }
            *offsets = offsets_file(&self.data)?;
        }
        self.load()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Copies a folder of folders of files.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

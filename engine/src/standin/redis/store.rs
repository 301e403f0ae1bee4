//! The store: the keyspace behind its append-only file.
//!
//! Contract: a command that writes is appended to the file, in one write(2), before it is carried
//! out and before it is answered. When the file cannot be written nothing changes, the client gets
//! a `MISCONF` error, and reads go on. What the file holds is carried out again at start, so
//! whatever was answered is there after a crash. A transaction is one record: all of it or nothing.
//! Not modelled: fsync (Redis's default does not wait for it either), and rewriting a grown file
//! in the background.

use super::keyspace::{Data, Keyspace, Reply, Run};
use super::table;
use crate::clock::RunClock;
use crate::protocol::redis::codec::{Command, Frame, FrameDecoder};
use crate::protocol::redis::command::{self, Kind};
use crate::protocol::redis::value;
use faultbox_bundle_format::Value;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A keyspace and its file.
pub struct Store {
    space: Keyspace,
    log: Log,
    folder: PathBuf,
    clock: RunClock,
}

/// The append-only file.
struct Log {
    file: File,
    /// Its length up to the last whole record.
    len: u64,
    /// Something may stand after `len`.
    torn: bool,
}

impl Log {
    fn open(path: &Path, len: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Log { file, len, torn: true })
    }

    /// Appends a record, or leaves the file as it was.
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(record) {
            // Part of it may be there. If it cannot be taken back now, it is before the next record.
            self.torn = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        self.len += record.len() as u64;
        Ok(())
    }
}

/// One record: when, in which database, and the commands.
fn record(now: u64, db: i64, commands: &[&Command]) -> Vec<u8> {
    let words = |words: &&Command| Frame::Array(words.iter().cloned().map(Frame::Bulk).collect());
    let commands = Frame::Array(commands.iter().map(words).collect());
    Frame::Array(vec![Frame::Integer(now as i64), Frame::Integer(db), commands]).encode()
}

/// Carries out what a file holds. Gives the data, the length of the whole records, and the time
/// of the last one. What is cut short at the end was never answered: it is left out.
fn load(path: &Path) -> io::Result<(Keyspace, u64, u64)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let damaged = |why: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {why}", path.display()))
    };
    let mut decoder = FrameDecoder::default();
    decoder.buffer().extend_from_slice(&bytes);
    let (mut space, mut len, mut last) = (Keyspace::default(), 0, 0);
    while let Some((frame, raw)) = decoder.next_frame().map_err(|error| damaged(error.to_string()))? {
        let parts = match frame {
            Frame::Array(parts) => parts,
            _ => return Err(damaged("a record is no array".to_owned())),
        };
        let [Frame::Integer(now), Frame::Integer(db), Frame::Array(commands)] = parts.as_slice() else {
            return Err(damaged("a record has other parts".to_owned()));
        };
        last = u64::try_from(*now).unwrap_or(0);
        for words in commands {
            let words = match words {
                Frame::Array(words) => words.iter().map(|word| match word {
                    Frame::Bulk(word) => word.clone(),
                    _ => Vec::new(),
                }),
                _ => return Err(damaged("a command is no array".to_owned())),
            };
            // An error is what the client got then, too.
            let _ = carry_out(&mut space, *db, last, 2, &words.collect::<Command>());
        }
        len += raw.len() as u64;
    }
    Ok((space, len, last))
}

fn carry_out(space: &mut Keyspace, db: i64, now: u64, version: i64, words: &Command) -> Reply {
    let handler = table::find(words)?;
    let reply = handler(&mut Run { space, db, now, version }, words)?;
    if writes(words) {
        space.touched(db, words);
    }
    Ok(reply)
}

/// Whether a command changes data.
pub fn writes(words: &[Vec<u8>]) -> bool {
    matches!(command::kind(words), Kind::Write | Kind::Settle | Kind::Wait)
}

/// Why a write is refused.
fn refused(error: &io::Error) -> String {
    format!(
        "MISCONF the append-only file cannot be written ({error}): nothing was changed, only reads are served"
    )
}

impl Store {
    /// Opens the store in a folder.
    ///
    /// # Errors
    /// When its file cannot be read, is damaged, or cannot be opened for writing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("appendonly.aof");
        let (space, len, _) = load(&path)?;
        let log = Log::open(&path, len)?;
        Ok(Store { space, log, folder: folder.to_owned(), clock: RunClock::start() })
    }

    /// Unix milliseconds.
    pub fn now(&self) -> u64 {
        (self.clock.unix_ns() + self.clock.now_ns()) / 1_000_000
    }

    /// Seconds since the store was opened.
    pub fn uptime(&self) -> u64 {
        self.clock.now_ns() / 1_000_000_000
    }

    /// The data.
    pub fn space(&self) -> &Keyspace {
        &self.space
    }

    /// Carries a command out.
    pub fn run(&mut self, db: i64, version: i64, words: &Command) -> Value {
        let now = self.now();
        if let Err(error) = table::find(words) {
            return error;
        }
        if writes(words)
            && let Err(error) = self.log.append(&record(now, db, &[words]))
        {
            return value::error(refused(&error));
        }
        carry_out(&mut self.space, db, now, version, words).unwrap_or_else(|error| error)
    }

    /// Carries the commands of a transaction out; what is no command on data is left to `other`.
    pub fn transact(
        &mut self,
        db: i64,
        version: i64,
        commands: &[Command],
        mut other: impl FnMut(&Store, &Command) -> Option<Value>,
    ) -> Value {
        let now = self.now();
        let writing: Vec<&Command> =
            commands.iter().filter(|words| table::find(words).is_ok() && writes(words)).collect();
        if !writing.is_empty()
            && let Err(error) = self.log.append(&record(now, db, &writing))
        {
            return value::error(format!("EXECABORT Transaction discarded because of: {}", refused(&error)));
        }
        let results = commands.iter().map(|words| match other(self, words) {
            Some(result) => result,
            None => carry_out(&mut self.space, db, now, version, words).unwrap_or_else(|error| error),
        });
        Value::List(results.collect())
    }

    /// A file that holds the present state and nothing else.
    fn dump(&self, now: u64) -> Vec<u8> {
        let mut out = record(now, 0, &[]);
        for (db, keys) in &self.space.dbs {
            for (key, entry) in keys.iter().filter(|(_, entry)| entry.expires.is_none_or(|at| at > now)) {
                let mut words: Command = vec![Vec::new(), key.clone()];
                let name: &[u8] = match &entry.data {
                    Data::Text(text) => {
                        words.push(text.clone());
                        b"SET"
                    }
                    Data::List(items) => {
                        words.extend(items.iter().cloned());
                        b"RPUSH"
                    }
                    Data::Hash(fields) => {
                        words.extend(fields.iter().flat_map(|(name, text)| [name.clone(), text.clone()]));
                        b"HSET"
                    }
                    Data::Set(members) => {
                        words.extend(members.iter().cloned());
                        b"SADD"
                    }
                    Data::Sorted(members) => {
                        let pair = |(name, score): (&Vec<u8>, &f64)| {
                            [value::number_text(*score).into_bytes(), name.clone()]
                        };
                        words.extend(members.iter().flat_map(pair));
                        b"ZADD"
                    }
                };
                if let Some(first) = words.first_mut() {
                    *first = name.to_vec();
                }
                out.extend(record(now, *db, &[&words]));
                if let Some(at) = entry.expires {
                    let expire = vec![b"PEXPIREAT".to_vec(), key.clone(), at.to_string().into_bytes()];
                    out.extend(record(now, *db, &[&expire]));
                }
            }
        }
        out
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = self.folder.join(format!("{name}.new"));
        std::fs::write(&new, content)?;
        std::fs::rename(&new, self.folder.join(name))
    }

    /// Remembers the present state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn snapshot(&self) -> io::Result<()> {
        self.replace("snapshot.aof", &self.dump(self.now()))
    }

    /// Goes back to the remembered state. Keys that expire have as long to live as they had then.
    ///
    /// # Errors
    /// When it cannot be read, or the append-only file cannot be written.
    pub fn restore(&mut self) -> io::Result<()> {
        let (mut space, _, then) = load(&self.folder.join("snapshot.aof"))?;
        let now = self.now();
        for entry in space.dbs.values_mut().flat_map(|keys| keys.values_mut()) {
            entry.expires = entry.expires.map(|at| at.saturating_sub(then).saturating_add(now));
        }
        self.space = space;
        let content = self.dump(now);
        self.replace("appendonly.aof", &content)?;
        self.log = Log::open(&self.folder.join("appendonly.aof"), content.len() as u64)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::redis::command::of;

    fn run(store: &mut Store, words: &str) -> Value {
        store.run(0, 2, &of(&words.split(' ').collect::<Vec<_>>()))
    }

    #[test]
    fn what_was_answered_is_there_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        run(&mut store, "SET a 1");
        run(&mut store, "RPUSH l x y z");
        run(&mut store, "SET gone 1 PX 1000");
        let commands = [of(&["INCR", "a"]), of(&["LPOP", "l"]), of(&["GET", "a"])];
        let results = store.transact(0, 2, &commands, |_, _| None);
        assert_eq!(results, Value::List(vec![Value::Int(2), "x".into(), "2".into()]));
        drop(store);
        // The last record is cut short: it was never answered.
        let path = folder.path().join("appendonly.aof");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"*3\r\n:1\r\n:0\r\n*1\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1");
        std::fs::write(&path, bytes).unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        assert_eq!(run(&mut store, "GET a"), "2".into());
        assert_eq!(run(&mut store, "LRANGE l 0 -1"), Value::List(vec!["y".into(), "z".into()]));
        run(&mut store, "SET b 1");
        drop(store);
        assert_eq!(run(&mut Store::open(folder.path()).unwrap(), "GET b"), "1".into());
        std::fs::write(&path, b"+what\r\n").unwrap();
        assert!(Store::open(folder.path()).is_err());
    }

    #[test]
    fn a_write_that_fails_changes_nothing_and_reads_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        run(&mut store, "SET a 1");
        // A file that is open for reading only fails as a full disk does.
        let good =
            std::mem::replace(&mut store.log.file, File::open(folder.path().join("appendonly.aof")).unwrap());
        let message = |value: &Value| value::error_text(value).unwrap_or_default().to_owned();
        assert!(message(&run(&mut store, "SET a 2")).starts_with("MISCONF "));
        let failed = store.transact(0, 2, &[of(&["SET", "a", "3"])], |_, _| None);
        assert!(message(&failed).starts_with("EXECABORT "));
        assert_eq!(run(&mut store, "GET a"), "1".into());
        store.log.file = good;
        assert_eq!(run(&mut store, "INCR a"), Value::Int(2));
        drop(store);
        assert_eq!(run(&mut Store::open(folder.path()).unwrap(), "GET a"), "2".into());
    }

    #[test]
    fn restore_goes_back_to_the_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        for words in ["SET a 1", "HSET h f v", "SADD s m", "ZADD z 1.5 m", "RPUSH l 1 2", "SET t v EX 1000"] {
            run(&mut store, words);
        }
        let before = store.space().clone();
        store.snapshot().unwrap();
        for words in ["SET a 2", "DEL h s z l t", "SET new 1"] {
            run(&mut store, words);
        }
        store.restore().unwrap();
        let data = |space: &Keyspace| {
            let keys = space.dbs.values().flatten();
            keys.map(|(key, entry)| (key.clone(), entry.data.clone(), entry.expires.is_some()))
                .collect::<Vec<_>>()
        };
        assert_eq!(data(store.space()), data(&before));
        run(&mut store, "INCR a");
        drop(store);
        let mut store = Store::open(folder.path()).unwrap();
        assert_eq!(run(&mut store, "GET a"), "2".into());
        assert_eq!(run(&mut store, "ZSCORE z m"), Value::map([("double", Value::text("1.5"))]));
        std::fs::remove_file(folder.path().join("snapshot.aof")).unwrap();
        store.restore().unwrap();
        assert_eq!(run(&mut store, "DBSIZE"), Value::Int(0));
    }
}

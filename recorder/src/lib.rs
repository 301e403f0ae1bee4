//! The recorder: the `EventSink` that writes a bundle.
//!
//! Contract: noting an entry costs the actor a place in a bounded queue; one writer thread takes
//! them out in batches (waking it for each would cost the actor more than the rest of noting),
//! puts them into words, redacts and archives; another one compresses and writes. It shares entries with whoever else holds them,
//! and copies only what it must change. A full queue slows the run down rather than losing an entry.
//! The first failed write ends writing; [`Recorder::finish`] reports it and the file keeps
//! its temporary name.
//! Not modelled: any protocol.
#![forbid(unsafe_code)]

use faultbox_bundle_format::redact::Redactor;
use faultbox_bundle_format::writer::Tuning;
use faultbox_bundle_format::{BundleWriter, Entry, Header, WriteError};
use faultbox_engine::event_sink::EventSink;
use faultbox_engine::noted::Noted;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// Entries that wait for the writer at most.
const QUEUE: usize = 16384;
/// How many entries wake the writer at once.
const BATCH: usize = 1024;
/// How long fewer of them may wait for company.
const LINGER: Duration = Duration::from_millis(10);
/// After so many entries the writer asks whether another thread wants the processor: it may be the
/// one that is recorded, whose turn would else come when the scheduler's slice is over.
const COURTESY: usize = 16;
/// What was taken is written at the latest when nothing came for this long, so that a killed
/// run leaves what led to its end.
const IDLE: Duration = Duration::from_millis(250);

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The host gave no randomness for the bundle's id.
    #[error("no randomness: {0}")]
    Random(#[source] std::io::Error),
    /// The writer thread could not be started.
    #[error("no thread: {0}")]
    Thread(#[source] std::io::Error),
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The recorder was finished before.
    #[error("the bundle is finished already")]
    Finished,
    /// The writer thread ended in a panic.
    #[error("the writer stopped unexpectedly")]
    Writer,
}

/// Writes a bundle.
pub struct Recorder {
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<Result<PathBuf, WriteError>>>>,
}

impl Recorder {
    /// Begins a bundle at `path`. `salt` makes the tokens of secrets; `redactor` is made of it.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, header: Header, redactor: Redactor) -> Result<Self, RecordError> {
        Self::create_with(path, header, redactor, Tuning::default())
    }

    /// As [`Recorder::create`], with chunks made so.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create_with(
        path: &Path,
        header: Header,
        redactor: Redactor,
        tuning: Tuning,
    ) -> Result<Self, RecordError> {
        let writer = BundleWriter::create_with(path, header, tuning)?;
        let queue = Arc::new(Queue::default());
        let entries = Entries(queue.clone());
        let thread = std::thread::Builder::new().name("recorder".to_owned());
        let writer = thread.spawn(move || {
            // What is recorded comes first.
            faultbox_engine::supervisor::step_back();
            // A thread's own threads are as far back as it is.
            write(writer.in_background()?, &entries, &redactor)
        });
        let writer = writer.map_err(RecordError::Thread)?;
        Ok(Recorder { queue, writer: Mutex::new(Some(writer)) })
    }

    /// Writes what is queued, closes the bundle and gives it its name.
    ///
    /// # Errors
    /// The first write that failed.
    pub fn finish(&self) -> Result<PathBuf, RecordError> {
        self.queue.close();
        let writer = lock(&self.writer).take().ok_or(RecordError::Finished)?;
        writer.join().map_err(|_| RecordError::Writer)?.map_err(RecordError::Write)
    }
}

impl EventSink for Recorder {
    fn take(&self, noted: Noted) {
        self.queue.put(noted);
    }
}

/// An entry until it is written.
enum Held {
    /// As it was noted.
    Noted(Noted),
    /// Without its secrets, or its payloads in the store.
    Changed(Box<Entry>),
}

impl AsRef<Entry> for Held {
    fn as_ref(&self) -> &Entry {
        match self {
            Held::Noted(noted) => noted.entry(),
            Held::Changed(entry) => entry,
        }
    }
}

impl From<Entry> for Held {
    fn from(entry: Entry) -> Self {
        Held::Changed(Box::new(entry))
    }
}

struct Waiting {
    entries: Vec<Noted>,
    /// No more will come.
    closed: bool,
    /// Nobody will take them: the writer failed, and [`Recorder::finish`] says why.
    abandoned: bool,
}

impl Default for Waiting {
    fn default() -> Self {
        Waiting { entries: Vec::with_capacity(QUEUE), closed: false, abandoned: false }
    }
}

/// Entries on their way to the writer, in the order in which they were noted.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is a first entry, a batch, or no more to come.
    filled: Condvar,
    /// There is room again.
    taken: Condvar,
}

impl Queue {
    fn put(&self, entry: Noted) {
        let full = |waiting: &mut Waiting| waiting.entries.len() >= QUEUE && !waiting.abandoned;
        let waited = self.taken.wait_while(lock(&self.waiting), full);
        let mut waiting = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        if waiting.closed || waiting.abandoned {
            return;
        }
        waiting.entries.push(entry);
        if matches!(waiting.entries.len(), 1 | BATCH) {
            self.filled.notify_one();
        }
    }

    fn close(&self) {
        lock(&self.waiting).closed = true;
        self.filled.notify_one();
    }
}

/// What the writer gets.
enum Taken {
    /// Entries, in order.
    Batch,
    /// Nothing came for a while.
    Nothing,
    End,
}

/// The writer's end of the queue. Going away, it lets go of whoever waits for room.
struct Entries(Arc<Queue>);

impl Entries {
    /// Waits for a batch, which it puts into the empty `batch`; for [`IDLE`] at most where something
    /// is `held`. The two lists change places, so that neither has to grow again.
    fn take(&self, held: bool, batch: &mut Vec<Noted>) -> Taken {
        let none = |waiting: &mut Waiting| waiting.entries.is_empty() && !waiting.closed;
        let few = |waiting: &mut Waiting| waiting.entries.len() < BATCH && !waiting.closed;
        let mut waiting = lock(&self.0.waiting);
        if held {
            let waited = self.0.filled.wait_timeout_while(waiting, IDLE, none);
            waiting = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            if none(&mut waiting) {
                return Taken::Nothing;
            }
        } else {
            let waited = self.0.filled.wait_while(waiting, none);
            waiting = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let waited = self.0.filled.wait_timeout_while(waiting, LINGER, few);
        waiting = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        std::mem::swap(&mut waiting.entries, batch);
        drop(waiting);
        self.0.taken.notify_all();
        if batch.is_empty() { Taken::End } else { Taken::Batch }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        lock(&self.0.waiting).abandoned = true;
        self.0.taken.notify_all();
    }
}

/// A header for a new bundle, its id and salt from the host's entropy.
///
/// # Errors
/// When the host's random device cannot be read.
pub fn new_header() -> Result<Header, RecordError> {
    let half = || faultbox_engine::prng::fresh_bytes().map_err(RecordError::Random);
    Ok(Header::new(half()?, half()?))
}

fn write(
    mut writer: BundleWriter<Held>,
    entries: &Entries,
    redactor: &Redactor,
) -> Result<PathBuf, WriteError> {
    let mut held = false;
    let mut batch = Vec::with_capacity(QUEUE);
    loop {
        match entries.take(held, &mut batch) {
            Taken::Batch => {
                for (n, noted) in batch.drain(..).enumerate() {
                    if n % COURTESY == 0 {
                        std::thread::yield_now();
                    }
                    let changed = redactor.redacted(noted.entry()).map(Held::from);
                    writer.take(changed.unwrap_or(Held::Noted(noted)))?;
                }
                held = true;
            }
            Taken::Nothing => {
                writer.flush()?;
                held = false;
            }
            Taken::End => return writer.finish(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    //! Goal: what is noted is in the bundle, what is secret is not, and a failure is told.

    use super::*;
    use faultbox_bundle_format::*;

    fn entry(seq: u64, cell: u32, body: Body) -> Entry {
        Entry {
            seq,
            at_ns: seq,
            cell,
            phase: if cell == 0 { Phase::Run } else { Phase::Scenario },
            actor: "api".into(),
            stream: "s".to_owned(),
            ordinal: seq,
            cause: None,
            body,
        }
    }

    fn named(name: &str, value: &str) -> Named {
        Named { name: name.to_owned(), value: value.to_owned() }
    }

    fn exchange(request: Value, response: Value) -> Body {
        Body::Exchange(Exchange {
            protocol: "http".into(),
            source: "api".into(),
            interface: "users.main".into(),
            connection: 1,
            operation: "GET /".into(),
            key: "GET /".to_owned(),
            class: Class::Work,
            mutating: false,
            repeatable: false,
            request: Payload::of(&request),
            outcome: Outcome::Answered,
            response: Some(Payload::of(&response)),
            rule: None,
            began_ns: 0,
            ended_ns: 1,
            began_seq: 0,
        })
    }

    /// Every frame of a bundle, decompressed.
    fn decompressed(bundle: &Bundle) -> Vec<u8> {
        let mut all = Vec::new();
        for cell in 0..=1 {
            for entry in bundle.entries(cell).unwrap() {
                all.extend(format!("{entry:?}").into_bytes());
                for payload in check::payloads(&entry.body) {
                    all.extend_from_slice(payload.bytes().unwrap());
                }
                if let Body::Output(output) = &entry.body {
                    all.extend_from_slice(&output.bytes);
                }
            }
        }
        all
    }

    fn holds(bytes: &[u8], needle: &str) -> bool {
        bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    }

    const SECRETS: [&str; 8] = [
        "spec-secret-0001",
        "env-secret-0002",
        "url-secret-0003",
        "bearer-secret-0004",
        "cookie-secret-0005",
        "keybody-secret0006",
        "short07",
        "flag-secret-0008",
    ];

    fn record(folder: &Path) -> PathBuf {
        let [spec, env, url, bearer, cookie, key, short, flag] = SECRETS;
        let variables = [
            ("API_TOKEN", env.to_owned()),
            ("DB_URL", format!("mysql://root:{url}@127.0.0.1:3306/appdb")),
            ("DB_PASSWORD", short.to_owned()),
            ("PUBLIC_URL", "http://example.test".to_owned()),
        ];
        let mut known =
            Redactor::secrets_of_env(variables.iter().map(|(name, value)| (*name, value.as_str())));
        known.push(("payment".to_owned(), spec.to_owned()));
        let header = new_header().unwrap();
        let recorder =
            Recorder::create(&folder.join("r.fb"), header, Redactor::new(&header.salt, known)).unwrap();
        let run = Body::RunStarted(RunStarted {
            seed: 1,
            seed_source: "cli".to_owned(),
            tool_version: "0".to_owned(),
            command: vec!["test".to_owned(), "--env".to_owned(), format!("api:AUTH_TOKEN={flag}")],
            unix_ns: 1,
            spec: "a.star".to_owned(),
        });
        recorder.note(entry(0, 0, run));
        let started = ServiceStarted {
            service: "api".to_owned(),
            pid: 1,
            program: "api".to_owned(),
            digest: None,
            args: vec![format!("--token={env}")],
            env: variables.iter().map(|(name, value)| named(name, value)).collect(),
            isolated: true,
        };
        recorder.note(entry(1, 1, Body::ServiceStarted(started)));
        let headers = Value::map([
            ("Authorization", Value::text(format!("Bearer {bearer}"))),
            ("Cookie", Value::text(format!("sid={cookie}; theme=dark"))),
        ]);
        let body = Value::map([("headers", headers), ("body", Value::text(format!("{spec} and {env}")))]);
        let mut binary = vec![0xff, 0xfe];
        binary.extend_from_slice(spec.as_bytes());
        let pairs = Value::List(vec![
            Value::text("Set-Cookie"),
            Value::text(format!("sid={cookie}; Path=/; HttpOnly")),
        ]);
        let response = Value::map([("headers", Value::List(vec![pairs])), ("body", Value::Bytes(binary))]);
        recorder.note(entry(2, 1, exchange(body, response)));
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----");
        let output = format!("connecting to redis://u:{url}@cache {pem} with {spec}");
        let output = Output { service: "api".to_owned(), stderr: true, bytes: output.into_bytes() };
        recorder.note(entry(3, 1, Body::Output(output)));
        recorder.finish().unwrap()
    }

    #[test]
    fn no_secret_reaches_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = record(folder.path());
        let bundle = Bundle::open(&path).unwrap();
        let (raw, plain) = (std::fs::read(&path).unwrap(), decompressed(&bundle));
        for secret in SECRETS {
            assert!(!holds(&raw, secret), "{secret} is in the file");
            assert!(!holds(&plain, secret), "{secret} is in a frame");
        }
        for kept in [
            "http://example.test",
            "theme=<secret cookie#",
            "Path=/; HttpOnly",
            "Bearer <secret authorization#",
        ] {
            assert!(holds(&plain, kept), "{kept} is gone");
        }
    }

    #[test]
    fn equal_secrets_are_equal_tokens_and_a_live_message_matches() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = Bundle::open(&record(folder.path())).unwrap();
        let recorded = bundle.entries(1).unwrap();
        let Body::Exchange(exchange) = &recorded[1].body else { panic!("another body") };
        let (request, response) =
            (exchange.request.value().unwrap(), exchange.response.as_ref().unwrap().value().unwrap());
        let redactor = Redactor::new(&bundle.header().salt, []);
        let live = Value::map([(
            "headers",
            Value::map([
                ("Authorization", Value::text(format!("Bearer {}", SECRETS[3]))),
                ("Cookie", Value::text(format!("sid={}; theme=dark", SECRETS[4]))),
            ]),
        )]);
        assert_eq!(redactor.value(&live).get("headers"), request.get("headers"));
        let cookie = request.get("headers").unwrap().get("Cookie").unwrap().as_text().unwrap();
        let token = cookie.strip_prefix("sid=").unwrap().split(';').next().unwrap();
        assert!(
            format!("{response:?}").contains(token),
            "the cookie that was set is the cookie that came back"
        );
        assert_eq!(redactor.value(&redactor.value(&live)), redactor.value(&live));
    }

    #[test]
    fn known_secrets_can_be_put_back() {
        let known = [("db".to_owned(), "correct horse".to_owned())];
        let redactor = Redactor::new(&[1; 16], known);
        let value = Value::map([("body", Value::text("say correct horse twice: correct horse"))]);
        let redacted = redactor.value(&value);
        assert_ne!(redacted, value);
        assert_eq!(redactor.restore(&redacted), value);
    }

    #[test]
    fn a_bundle_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let header = new_header().unwrap();
        let nowhere = folder.path().join("missing/r.fb");
        assert!(Recorder::create(&nowhere, header, Redactor::new(&header.salt, [])).is_err());
        let path = folder.path().join("r.fb");
        let recorder = Recorder::create(&path, header, Redactor::new(&header.salt, [])).unwrap();
        let bytes = vec![0; limits::ENTRY_MAX + 1];
        recorder.note(entry(0, 1, Body::Output(Output { service: "api".to_owned(), stderr: false, bytes })));
        for seq in 1..10_000 {
            // More than the queue holds: a failed writer must not block its callers.
            recorder.note(entry(seq, 1, Body::PhaseBegan));
        }
        assert!(recorder.finish().is_err());
        assert!(recorder.finish().is_err(), "it stays an error");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_left_as_it_is_holds_nothing_to_replace() {
        let [known, ..] = SECRETS;
        let redactor = Redactor::new(&[1; 16], [("payment".to_owned(), known.to_owned())]);
        let decision = |key: &str| {
            Body::Decision(Decision {
                assumption: "slow".to_owned(),
                index: 0,
                key: key.to_owned(),
                source: "api".to_owned(),
                matched: 1,
                draw: 0,
                fired: true,
                on_sut: true,
            })
        };
        let output = |text: &str| {
            Body::Output(Output { service: "api".to_owned(), stderr: false, bytes: text.as_bytes().to_vec() })
        };
        let syscall = |target: &str| {
            Body::Syscall(Syscall {
                service: "db".to_owned(),
                name: "pwrite64".to_owned(),
                family: "write".to_owned(),
                target: target.to_owned(),
                action: "allow".to_owned(),
                rule: None,
                on_sut: false,
            })
        };
        let asked = |text: &str| exchange(Value::map([("sql", Value::text(text))]), Value::Null);
        let answered = |text: &str| exchange(Value::Null, Value::List(vec![Value::text(text)]));
        for make in [&decision as &dyn Fn(&str) -> Body, &output, &syscall, &asked, &answered] {
            for (text, kept) in [("plain", true), (known, false), ("mysql://root:hidden@db/app", false)] {
                let before = entry(1, 1, make(text));
                let mut after = before.clone();
                redactor.entry(&mut after);
                assert_eq!(after == before, kept, "{before:?}");
                assert_eq!(redactor.redacted(&before).unwrap_or_else(|| before.clone()), after);
                assert!(!kept || redactor.redacted(&before).is_none(), "no copy is made of it");
            }
            // What a rule did is in words of the spec.
            let mut ruled = entry(1, 1, make("plain"));
            if let Body::Exchange(Exchange { rule, .. }) | Body::Syscall(Syscall { rule, .. }) =
                &mut ruled.body
            {
                let action = format!("respond {known}");
                *rule = Some(RuleHit { assumption: "slow".to_owned(), index: 0, action });
            }
            let mut after = ruled.clone();
            redactor.entry(&mut after);
            assert_eq!(redactor.redacted(&ruled).unwrap_or(ruled), after);
            let mut named = entry(1, 1, make("plain"));
            named.stream = format!("api>{known}");
            assert!(redactor.redacted(&named).is_some_and(|changed| !changed.stream.contains(known)));
        }
    }

    #[test]
    fn the_queue_needs_no_more_room_than_it_has() {
        let queue = Arc::new(Queue::default());
        let entries = Entries(queue.clone());
        let mut batch = Vec::with_capacity(QUEUE);
        let noted = faultbox_engine::noted::later(|| entry(0, 1, Body::PhaseBegan));
        for round in 0..10 {
            // More than wakes the writer, up to all that there is room for.
            let count = BATCH + round * (QUEUE - BATCH) / 9;
            (0..count).for_each(|_| queue.put(noted.clone()));
            assert!(matches!(entries.take(true, &mut batch), Taken::Batch));
            assert_eq!(batch.len(), count);
            batch.clear();
            assert_eq!((batch.capacity(), lock(&queue.waiting).entries.capacity()), (QUEUE, QUEUE));
        }
    }

    #[test]
    fn nothing_that_is_noted_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let header = new_header().unwrap();
        let path = folder.path().join("r.fb");
        let recorder = Recorder::create(&path, header, Redactor::new(&header.salt, [])).unwrap();
        std::thread::scope(|scope| {
            for cell in 1..=4u32 {
                let recorder = &recorder;
                scope.spawn(move || {
                    (0..5000).for_each(|n| {
                        recorder.note(entry(u64::from(cell) * 10_000 + n, cell, Body::PhaseBegan))
                    });
                });
            }
        });
        let bundle = Bundle::open(&recorder.finish().unwrap()).unwrap();
        assert_eq!(bundle.verify().unwrap().entries, 20_000);
        for cell in 1..=4 {
            let ordinals: Vec<u64> = bundle.entries(cell).unwrap().iter().map(|e| e.seq % 10_000).collect();
            assert_eq!(ordinals, (0..5000).collect::<Vec<_>>());
        }
    }
}

#[cfg(test)]
mod crash_tests;

//! The stand-in for MySQL: the wire protocol over SQLite on disk.
//!
//! Contract: what ordinary clients and ORMs send works; what does not is refused with 1235
//! and its name. A change is on disk (written and synced through a rollback journal, no
//! mapping) before OK is sent; a write that the disk refuses is MySQL's own error, and reads
//! go on, before and after, on the same connection.
//! Not modelled: locks of rows (two transactions that write to one table, or to tables that
//! foreign keys tie together, come one after the other); snapshots of a transaction that has
//! only read (it sees what is committed); gaps that rolled-back inserts leave in counters;
//! integers beyond 63 bits; stored programs, views.

mod catalog;
mod ddl;
mod dialect;
mod emit;
mod functions;
mod gate;
mod locks;
mod moment;
mod schema;
mod session;
#[cfg(test)]
mod tests;

use super::{StandIn, StandInOptions};
use crate::link::{Answer, BoxFuture, Conversation, InterfaceOptions, Link, Request, Responder, Stream};
use crate::protocol::mysql::command::asks_found_rows;
use crate::protocol::mysql::serve::{Accounts, run};
use crate::virtual_time::Time;
use faultbox_bundle_format::RuleHit;
use gate::Gate;
use locks::NamedLocks;
use session::Session;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// What all connections share.
struct Store {
    data: PathBuf,
    database: String,
    gate: Arc<Gate>,
    locks: Arc<NamedLocks>,
    /// Counts restores: a connection to an older state is opened anew.
    generation: AtomicU64,
    link: Arc<Link>,
}

impl Store {
    fn file(&self) -> PathBuf {
        self.data.join("mysql.sqlite")
    }

    fn snapshot_file(&self) -> PathBuf {
        self.data.join("snapshot.sqlite")
    }

    /// Microseconds since 1970.
    fn now(&self) -> i64 {
        let clock = self.link.journal().clock();
        i64::try_from((clock.unix_ns() + clock.now_ns()) / 1000).unwrap_or(i64::MAX)
    }

    /// Makes the bookkeeping tables and the declared database.
    fn prepare(&self) -> io::Result<()> {
        let connection = session::open(&self.file()).map_err(io::Error::other)?;
        connection
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS faultbox_tables (database TEXT COLLATE NOCASE, name TEXT COLLATE NOCASE, def TEXT NOT NULL, PRIMARY KEY (database, name));
                 CREATE TABLE IF NOT EXISTS faultbox_databases (name TEXT PRIMARY KEY);",
            )
            .and_then(|()| {
                connection.execute("INSERT OR IGNORE INTO faultbox_databases VALUES (?1)", [&self.database]).map(|_| ())
            })
            .map_err(io::Error::other)
    }
}

struct Server {
    store: Arc<Store>,
    accounts: Accounts,
}

/// Opens the stand-in over a data directory.
///
/// # Errors
/// When the data cannot be opened.
pub fn open(options: StandInOptions) -> io::Result<Arc<dyn StandIn>> {
    let env = |names: [&str; 2]| names.iter().find_map(|name| options.env.get(*name)).cloned();
    let root = env(["MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD"]).unwrap_or_default();
    let mut passwords = BTreeMap::from([("root".to_owned(), root)]);
    if let Some(user) = env(["MYSQL_USER", "MARIADB_USER"]) {
        passwords.insert(user, env(["MYSQL_PASSWORD", "MARIADB_PASSWORD"]).unwrap_or_default());
    }
    let interface = InterfaceOptions { env: options.env.clone(), ..InterfaceOptions::default() };
    let store = Store {
        data: options.data.clone(),
        database: env(["MYSQL_DATABASE", "MARIADB_DATABASE"]).unwrap_or_else(|| "mysql".to_owned()),
        gate: Arc::default(),
        locks: Arc::default(),
        generation: AtomicU64::new(0),
        link: Link::unobserved("mysql", "mysql", &options.listen.to_string(), interface, &Time::default()),
    };
    std::fs::create_dir_all(&options.data)?;
    store.prepare()?;
    let accounts = Accounts { passwords: Some(passwords), full_authentication: false };
    Ok(Arc::new(Server { store: Arc::new(store), accounts }))
}

impl StandIn for Server {
    fn serve(&self, stream: Stream, _connection: u64) -> BoxFuture<'static, ()> {
        let responder = Arc::new(Sessions(self.store.clone()));
        let (link, accounts) = (self.store.link.clone(), self.accounts.clone());
        Box::pin(async move {
            // How a connection ended is its client's business.
            let _ = run(stream, link, responder, accounts).await;
        })
    }

    fn snapshot(&self) -> io::Result<()> {
        let _permit = self.store.gate.close(Duration::from_secs(10)).ok_or_else(busy)?;
        let connection = session::open(&self.store.file()).map_err(io::Error::other)?;
        let fresh = self.store.data.join("snapshot.new");
        remove(&fresh)?;
        let path = fresh.to_string_lossy().into_owned();
        connection.execute("VACUUM INTO ?1", [path]).map_err(io::Error::other)?;
        std::fs::rename(&fresh, self.store.snapshot_file())
    }

    fn restore(&self) -> io::Result<()> {
        let _permit = self.store.gate.close(Duration::from_secs(10)).ok_or_else(busy)?;
        // Connections of before keep the file that is replaced, and are opened anew.
        self.store.generation.fetch_add(1, Ordering::SeqCst);
        let (snapshot, fresh) = (self.store.snapshot_file(), self.store.data.join("restored.new"));
        remove(&self.store.data.join("mysql.sqlite-journal"))?;
        if !snapshot.exists() {
            remove(&self.store.file())?;
            return self.store.prepare();
        }
        std::fs::copy(&snapshot, &fresh)?;
        std::fs::File::open(&fresh)?.sync_all()?;
        std::fs::rename(&fresh, self.store.file())
    }
}

fn busy() -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, "a transaction is open")
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

struct Sessions(Arc<Store>);

impl Responder for Sessions {
    fn converse(&self, _source: &str, connection: u64) -> Arc<dyn Conversation> {
        let session = Arc::new_cyclic(|me: &Weak<Mutex<Session>>| {
            Mutex::new(Session::new(self.0.clone(), connection, me.clone()))
        });
        Arc::new(Talk { session, gate: self.0.gate.clone(), connection })
    }
}

struct Talk {
    session: Arc<Mutex<Session>>,
    gate: Arc<Gate>,
    connection: u64,
}

impl Conversation for Talk {
    fn answer<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, (Answer, Option<RuleHit>)> {
        let (session, gate, id) = (self.session.clone(), self.gate.clone(), self.connection);
        let (body, found_rows) = (request.body.clone(), asks_found_rows(request));
        Box::pin(async move {
            // SQLite blocks: on the disk, and on another writer.
            let work = move || {
                gate.idles(id, false);
                let answer = session.lock().unwrap_or_else(PoisonError::into_inner).answer(&body, found_rows);
                // Now, not before: who waits may want to lock the session.
                gate.idles(id, true);
                answer
            };
            let answer = tokio::task::spawn_blocking(work).await;
            (answer.map_or(Answer::Cut, Answer::Reply), None)
        })
    }
}

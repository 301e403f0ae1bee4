//! One client's session: dispatch of statements, transactions, errors.
//!
//! Contract: every answer is one MySQL gives; a statement that fails leaves nothing behind,
//! and a change is committed to disk before it is answered. A transaction holds the tables that
//! it writes to (or locks) to its end. One that is parked, so that another may write, is put back
//! by running its writing statements again: nothing that they read can have changed meanwhile.

use super::Store;
use super::catalog::{self, Catalog, Show};
use super::ddl;
use super::dialect::parse;
use super::emit::{self, Emitter, Listing, Out, Tables, by_value, outs, store, table_name, values};
use super::functions::{Held, Shared, register};
use super::gate::{Locks, Park, Permit, Refused};
use super::schema::{ColumnDef, TableDef, literal, quote};
use crate::protocol::mysql::facts::{Facts, VERSION, sql_like};
use crate::protocol::mysql::fingerprint::{placeholders, split};
use crate::protocol::mysql::result::{Column, error_value, ok_value, status, types};
use faultbox_bundle_format::Value;
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, ErrorCode};
use sqlparser::ast::{self, Expr, Statement};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// An error as MySQL gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    errno: u16,
    state: String,
    message: String,
}

impl Failure {
    /// An error with its number, SQLSTATE and message.
    pub fn new(errno: u16, state: &str, message: String) -> Self {
        Failure { errno, state: state.to_owned(), message }
    }
    /// In a form that comes through SQLite's messages.
    pub fn packed(&self) -> String {
        format!("\u{1}{}\u{1}{}\u{1}{}", self.errno, self.state, self.message)
    }
    fn unpacked(text: &str) -> Option<Failure> {
        let mut parts = text.split_once('\u{1}')?.1.splitn(3, '\u{1}');
        let errno = parts.next()?.parse().ok()?;
        Some(Failure { errno, state: parts.next()?.to_owned(), message: parts.next()?.to_owned() })
    }
    fn value(&self) -> Value {
        error_value(i64::from(self.errno), &self.state, &self.message)
    }
}

/// What the stand-in does not do.
pub fn unsupported(what: &str) -> Failure {
    Failure::new(1235, "42000", format!("not supported by the Faultbox stand-in: {what}"))
}

/// Opens a connection with the settings that the contract needs.
pub fn open(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    // A rollback journal that is deleted: reads write nothing. No mapping: writes are writes.
    // No spilling: a long transaction keeps readers out only while it commits.
    connection.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA mmap_size = 0; PRAGMA cache_spill = OFF; PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = ON; PRAGMA legacy_alter_table = ON;",
    )?;
    Ok(connection)
}

type Outcome = Result<Value, Failure>;

/// A statement that an open transaction has run on the storage.
#[derive(Debug)]
struct Done {
    sql: String,
    params: Vec<Cell>,
    now: i64,
    random: u64,
}

/// One client's session. (The connection is dropped before the right to write.)
pub struct Session {
    connection: Option<Connection>,
    permit: Option<Permit>,
    me: Weak<Mutex<Session>>,
    /// What the open transaction has run.
    done: RefCell<Vec<Done>>,
    /// The tables that the statement names.
    mentioned: RefCell<BTreeSet<String>>,
    /// Whether the storage has forgotten the open transaction for another's sake.
    parked: bool,
    /// Whether updates count the rows that match.
    found_rows: bool,
    read_only: bool,
    next_read_only: Option<bool>,
    store: Arc<Store>,
    shared: Shared,
    facts: Facts,
    generation: u64,
    autocommit: bool,
    in_transaction: bool,
    begun: bool,
    last_insert_id: i64,
    row_count: i64,
    lock_wait: Duration,
    params: Vec<Cell>,
}

impl Session {
    /// A session that has not begun.
    pub fn new(store: Arc<Store>, connection: u64, me: Weak<Mutex<Session>>) -> Self {
        let shared = Shared::default();
        {
            let mut running = shared.lock().unwrap_or_else(PoisonError::into_inner);
            running.held = Held { locks: store.locks.clone(), owner: connection };
        }
        Session {
            connection: None,
            permit: None,
            me,
            done: RefCell::default(),
            mentioned: RefCell::default(),
            parked: false,
            found_rows: false,
            read_only: false,
            next_read_only: None,
            shared,
            facts: Facts { connection, ..Facts::default() },
            generation: store.generation.load(Ordering::SeqCst),
            store,
            autocommit: true,
            in_transaction: false,
            begun: false,
            last_insert_id: 0,
            row_count: 0,
            lock_wait: Duration::from_secs(50),
            params: Vec::new(),
        }
    }

    fn status(&self) -> u64 {
        u64::from(self.autocommit) * status::AUTOCOMMIT + u64::from(self.in_transaction) * status::IN_TRANS
    }

    fn fine(&self) -> Value {
        ok_value(0, 0, self.status(), 0, "")
    }

    fn sql(&self) -> Result<&Connection, Failure> {
        self.connection
            .as_ref()
            .ok_or_else(|| Failure::new(1105, "HY000", "the database is not open".to_owned()))
    }

    fn refresh(&mut self) -> Result<(), Failure> {
        let generation = self.store.generation.load(Ordering::SeqCst);
        if self.connection.is_some() && generation == self.generation {
            return Ok(());
        }
        self.abandon();
        self.connection = None;
        self.generation = generation;
        let connection = open(&self.store.file()).map_err(|e| failure(&e, None, false))?;
        register(&connection, &self.shared).map_err(|e| failure(&e, None, false))?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Rolls back whatever is open.
    fn abandon(&mut self) {
        if self.begun
            && let Some(connection) = &self.connection
            && !connection.is_autocommit()
        {
            // The disk may refuse this too; SQLite then recovers from the journal.
            let _ = connection.execute_batch("ROLLBACK");
        }
        self.ended();
    }

    /// Nothing of a transaction is left.
    fn ended(&mut self) {
        self.begun = false;
        self.parked = false;
        self.in_transaction = false;
        self.read_only = false;
        self.done.borrow_mut().clear();
        self.permit = None;
    }

    /// Answers a request of the protocol; `found_rows` is what a login asks for.
    pub fn answer(&mut self, body: &Value, found_rows: bool) -> Value {
        let text = |name: &str| body.get(name).and_then(Value::as_text).unwrap_or_default();
        let result = self.refresh().and_then(|()| match text("command") {
            "connect" | "change_user" => {
                self.abandon();
                self.store.locks.release_all(self.facts.connection);
                // A change of user keeps the connection's capabilities.
                self.found_rows |= found_rows;
                self.facts.user = text("user").to_owned();
                self.facts.database = None;
                match body.get("database").and_then(Value::as_text) {
                    Some(name) => self.use_database(name),
                    None => Ok(self.fine()),
                }
            }
            "init_db" => self.use_database(text("database")),
            "reset_connection" => {
                self.abandon();
                self.store.locks.release_all(self.facts.connection);
                self.autocommit = true;
                self.facts.set.clear();
                self.last_insert_id = 0;
                self.pragma_foreign_keys(true)?;
                Ok(self.fine())
            }
            "prepare" => self.prepare(text("sql")),
            "query" => Ok(self.script(text("sql"))),
            "execute" => {
                let params = body.get("params").and_then(Value::as_list).unwrap_or_default();
                let params: Result<Vec<Cell>, Failure> = params.iter().map(cell).collect();
                self.params = params?;
                self.statement(text("sql"))
            }
            "fetch" => Err(unsupported("cursors")),
            "field_list" => {
                let table = self.table(None, text("table"))?;
                let columns: Vec<Value> = outs(&table, &table.name)
                    .into_iter()
                    .filter_map(|o| o.column)
                    .map(|c| c.to_value())
                    .collect();
                Ok(Value::map([("resultset", Value::map([("columns", Value::List(columns))]))]))
            }
            _ => Ok(self.fine()),
        });
        self.params.clear();
        result.unwrap_or_else(|failure| failure.value())
    }

    fn script(&mut self, sql: &str) -> Value {
        let mut results = Vec::new();
        for statement in split(sql) {
            match self.statement(statement) {
                Ok(value) => results.push(value),
                Err(failure) => {
                    results.push(failure.value());
                    break;
                }
            }
        }
        match results.len() {
            0 => Failure::new(1065, "42000", "Query was empty".to_owned()).value(),
            1 => results.remove(0),
            _ => Value::map([("results", Value::List(results))]),
        }
    }

    fn use_database(&mut self, name: &str) -> Outcome {
        let unknown = || Failure::new(1049, "42000", format!("Unknown database '{name}'"));
        let real =
            self.databases()?.into_iter().find(|d| d.eq_ignore_ascii_case(name)).ok_or_else(unknown)?;
        self.facts.database = Some(real);
        Ok(self.fine())
    }

    fn databases(&self) -> Result<Vec<String>, Failure> {
        let rows =
            self.rows("SELECT name FROM faultbox_databases UNION SELECT 'information_schema' ORDER BY 1")?;
        Ok(rows
            .into_iter()
            .filter_map(|mut row| row.pop())
            .filter_map(|c| if let Cell::Text(t) = c { Some(t) } else { None })
            .collect())
    }

    fn rows(&self, sql: &str) -> Result<Vec<Vec<Cell>>, Failure> {
        let run = || -> rusqlite::Result<Vec<Vec<Cell>>> {
            let mut statement = self.sql().map_err(|_| rusqlite::Error::InvalidQuery)?.prepare(sql)?;
            let width = statement.column_count();
            statement.query_map([], |row| (0..width).map(|i| row.get(i)).collect())?.collect()
        };
        run().map_err(|e| failure(&e, None, false))
    }

    fn run(&self, sql: &str, table: Option<&TableDef>, deletes: bool) -> Result<(), Failure> {
        let run = || -> rusqlite::Result<()> {
            let mut statement = self.sql().map_err(|_| rusqlite::Error::InvalidQuery)?.prepare(sql)?;
            self.bind(&mut statement)?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        };
        let stored = || self.shared.lock().unwrap_or_else(PoisonError::into_inner).stored.clone();
        let (now, random) = self.moment();
        let ran = run();
        if ran.is_ok() && self.begun {
            let params = self.params.clone();
            self.done.borrow_mut().push(Done { sql: sql.to_owned(), params, now, random });
        }
        ran.map_err(|e| match failure(&e, table, deletes) {
            duplicate if duplicate.errno == 1062 => {
                // SQLite names the columns; the row that met the duplicate was stored last.
                let columns: Vec<&str> = duplicate.state.split('\u{1}').collect();
                let key = columns.first().copied().unwrap_or_default();
                let stored = stored();
                let values: Vec<&str> = columns
                    .iter()
                    .skip(1)
                    .map(|c| stored.get(&c.to_lowercase()).map_or("", String::as_str))
                    .collect();
                Failure::new(1062, "23000", format!("Duplicate entry '{}' for key '{key}'", values.join("-")))
            }
            other => other,
        })
    }

    fn bind(&self, statement: &mut rusqlite::Statement<'_>) -> rusqlite::Result<()> {
        for index in 0..statement.parameter_count() {
            statement.raw_bind_parameter(index + 1, self.params.get(index).unwrap_or(&Cell::Null))?;
        }
        Ok(())
    }

    fn prepare(&mut self, sql: &str) -> Outcome {
        let columns = match first_word(sql).as_str() {
            "select" | "with" | "(" => match self.facts_answer(sql) {
                Some(answer) => answer.get("resultset").and_then(|s| s.get("columns")).cloned(),
                None => match parse(sql)? {
                    Statement::Query(query) => {
                        let (_, outs) = Emitter::new(self).query(&query)?;
                        Some(Value::List(outs.iter().map(|o| wire(o, None).to_value()).collect()))
                    }
                    _ => None,
                },
            },
            "insert" | "update" | "delete" | "replace" => {
                if let Statement::Insert(insert) = parse(sql)?
                    && let ast::TableObject::TableName(name) = &insert.table
                {
                    let (database, table) = table_name(name)?;
                    self.table(database, table)?;
                }
                None
            }
            _ => None,
        };
        let params = vec![Column::plain("?", types::VAR_STRING).to_value(); placeholders(sql)];
        let parts =
            [("params", Value::List(params)), ("columns", columns.unwrap_or(Value::List(Vec::new())))];
        Ok(Value::map([("prepared", Value::map(parts))]))
    }

    fn facts_answer(&self, sql: &str) -> Option<Value> {
        let answer = self.facts.answer(sql)?;
        Some(self.with_status(answer))
    }

    fn with_status(&self, mut answer: Value) -> Value {
        let status = self.status() as i64;
        if let Value::Map(outer) = &mut answer
            && let Some((name, Value::Map(set))) = outer.first_mut()
            && name == "resultset"
        {
            for (_, value) in set.iter_mut().filter(|(name, _)| name == "status") {
                *value = Value::Int(status);
            }
        }
        answer
    }

    /// Carries out one statement.
    fn statement(&mut self, sql: &str) -> Outcome {
        self.mentioned.borrow_mut().clear();
        if self.parked && first_word(sql) != "rollback" {
            self.unpark()?;
        }
        {
            let mut running = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            running.now = self.store.now();
            running.stored.clear();
            (running.touched, running.changed) = (0, 0);
        }
        let sql = executable_comment(sql);
        let result = self.dispatch(sql);
        // An I/O error may have ended the transaction under us.
        if self.begun && self.connection.as_ref().is_some_and(Connection::is_autocommit) {
            self.abandon();
        }
        if result.is_err() {
            self.row_count = -1;
        }
        result
    }

    fn dispatch(&mut self, sql: &str) -> Outcome {
        let lower = sql.to_lowercase();
        let words: Vec<&str> = lower.split_whitespace().map(|w| w.trim_end_matches(';')).collect();
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        match first_word(sql).as_str() {
            "" => Ok(self.fine()),
            "begin" | "start" => {
                self.commit()?;
                let own = words.windows(2).find(|pair| pair[0] == "read").map(|pair| pair[1] == "only");
                self.read_only = self.begins_read_only(own);
                self.in_transaction = true;
                Ok(self.fine())
            }
            "commit" => {
                self.commit()?;
                Ok(self.fine())
            }
            "rollback" if words.contains(&"to") && self.parked => {
                self.unpark()?;
                self.savepoint("ROLLBACK TO", words.last())
            }
            "rollback" if words.contains(&"to") => self.savepoint("ROLLBACK TO", words.last()),
            "rollback" => {
                self.abandon();
                Ok(self.fine())
            }
            "savepoint" => self.savepoint("SAVEPOINT", words.last()),
            "release" => self.savepoint("RELEASE", words.last()),
            "set" => self.set(sql),
            "use" => self.use_database(sql[3..].trim().trim_end_matches(';').trim_matches('`')),
            "show" => self.show(sql),
            "describe" | "desc" | "explain" if words.len() == 2 => {
                self.describe(sql.split_whitespace().nth(1).unwrap_or_default().trim_end_matches(';'))
            }
            "unlock" => {
                self.commit()?;
                Ok(self.fine())
            }
            "lock" => {
                self.commit()?;
                self.in_transaction = true;
                self.begin_writing(Locks::all())?;
                Ok(self.fine())
            }
            "flush" | "kill" | "analyze" if word(0) != "analyze" => Ok(self.fine()),
            "create" | "drop" | "alter" | "truncate" | "rename" => self.declare(sql, &words),
            "select" | "with" | "values" | "(" => {
                if let Some(answer) = self.facts_answer(sql) {
                    return Ok(answer);
                }
                match parse(sql)? {
                    Statement::Query(query) => self.select(&query),
                    other => Err(unsupported(&other.to_string())),
                }
            }
            "insert" | "replace" | "update" | "delete" => match &parse(sql)? {
                Statement::Insert(insert) => self.insert(insert),
                Statement::Update(update) => self.update(update),
                Statement::Delete(delete) => self.delete(delete),
                other => Err(unsupported(&other.to_string())),
            },
            other => Err(unsupported(&other.to_uppercase())),
        }
    }

    // Transactions.

    fn begin_writing(&mut self, mut locks: Locks) -> Result<(), Failure> {
        let who: Weak<Mutex<dyn Park>> = self.me.clone();
        let (gate, id) = (self.store.gate.clone(), self.facts.connection);
        if self.begun && !gate.lets(id, &locks) {
            // Waiting with the storage in hand would keep out the one that is waited for.
            self.park();
            gate.left(id);
        }
        loop {
            match gate.enter(id, &who, &locks, self.lock_wait, &mut self.permit) {
                Ok(()) => break,
                Err(Refused::Unrelated) => locks = self.related(locks)?,
                Err(Refused::Late) => {
                    let message = "Lock wait timeout exceeded; try restarting transaction";
                    return Err(Failure::new(1205, "HY000", message.to_owned()));
                }
                Err(Refused::Deadlock) => {
                    self.abandon();
                    let message = "Deadlock found when trying to get lock; try restarting transaction";
                    return Err(Failure::new(1213, "40001", message.to_owned()));
                }
            }
        }
        if self.begun {
            return Ok(());
        }
        if let Err(error) = self.sql()?.execute_batch("BEGIN IMMEDIATE") {
            self.abandon();
            return Err(failure(&error, None, false));
        }
        self.begun = true;
        if std::mem::take(&mut self.parked) {
            self.again()?;
        }
        Ok(())
    }

    /// Goes on with a transaction that was parked.
    fn unpark(&mut self) -> Result<(), Failure> {
        // What it holds nobody else wants; whoever writes just now is only waited for.
        self.begin_writing(Locks { related: true, ..Locks::default() })
    }

    /// Runs what the open transaction has run.
    fn again(&mut self) -> Result<(), Failure> {
        let (statements, params) = (self.done.take(), std::mem::take(&mut self.params));
        let (now, random) = self.moment();
        let mut outcome = Ok(());
        for Done { sql, params, now, random } in statements {
            self.set_moment(now, random);
            self.params = params;
            outcome = outcome.and_then(|()| self.run(&sql, None, false));
        }
        self.set_moment(now, random);
        self.params = params;
        if outcome.is_err() {
            self.abandon();
        }
        outcome
    }

    /// The statement's time, and the number of its next random value.
    fn moment(&self) -> (i64, u64) {
        let running = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (running.now, running.random)
    }

    fn set_moment(&self, now: i64, random: u64) {
        let mut running = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (running.now, running.random) = (now, random);
        (running.touched, running.changed) = (0, 0);
    }

    /// The tables that the statement names.
    fn named_tables(&self) -> Locks {
        Locks { tables: self.mentioned.borrow().clone(), ..Locks::default() }
    }

    /// With the tables that foreign keys tie to them, however far.
    fn related(&self, mut locks: Locks) -> Result<Locks, Failure> {
        let catalog = self.catalog()?;
        loop {
            let before = locks.tables.len();
            for table in &catalog.tables {
                let ends = || table.foreign.iter().map(|key| key.table.clone()).chain([table.stored()]);
                if !table.foreign.is_empty() && ends().any(|name| locks.tables.contains(&name)) {
                    locks.tables.extend(ends());
                }
            }
            if locks.tables.len() == before {
                locks.related = true;
                return Ok(locks);
            }
        }
    }

    fn commit(&mut self) -> Result<(), Failure> {
        let done = match (self.begun, &self.connection) {
            (true, Some(connection)) => {
                connection.execute_batch("COMMIT").map_err(|e| failure(&e, None, false))
            }
            _ => Ok(()),
        };
        if done.is_ok() {
            self.ended();
        } else {
            self.abandon();
        }
        done
    }

    /// Whether a transaction that begins now may only read; `own` is what it says itself.
    fn begins_read_only(&mut self, own: Option<bool>) -> bool {
        let usual = self.facts.variable("transaction_read_only") == Some(Value::Int(1));
        own.or(self.next_read_only.take()).unwrap_or(usual)
    }

    /// Without autocommit every statement is in a transaction.
    fn begin_implicitly(&mut self) {
        if !self.autocommit && !self.in_transaction {
            self.read_only = self.begins_read_only(None);
            self.in_transaction = true;
        }
    }

    /// Runs a writing statement in the open transaction, or in one of its own.
    fn writing(&mut self, locks: Locks, work: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        self.begin_implicitly();
        let own = !self.in_transaction;
        if if own { self.begins_read_only(None) } else { self.read_only } {
            let message = "Cannot execute statement in a READ ONLY transaction.";
            return Err(Failure::new(1792, "25006", message.to_owned()));
        }
        self.begin_writing(locks)?;
        if own {
            let done = work(self).and_then(|value| self.commit().map(|()| value));
            if done.is_err() {
                self.abandon();
            }
            return done;
        }
        work(self)
    }

    fn savepoint(&mut self, verb: &str, name: Option<&&str>) -> Outcome {
        let name = name.map(|n| n.trim_matches('`')).unwrap_or_default();
        if !self.in_transaction && self.autocommit {
            return Ok(self.fine());
        }
        self.begin_implicitly();
        self.begin_writing(Locks::default())?;
        let missing = |_| Failure::new(1305, "42000", format!("SAVEPOINT {name} does not exist"));
        self.run(&format!("{verb} {}", quote(name)), None, false).map_err(missing)?;
        Ok(self.fine())
    }

    fn pragma_foreign_keys(&self, on: bool) -> Result<(), Failure> {
        let word = if on { "ON" } else { "OFF" };
        self.sql()?
            .execute_batch(&format!("PRAGMA foreign_keys = {word}"))
            .map_err(|e| failure(&e, None, false))
    }

    fn set(&mut self, sql: &str) -> Outcome {
        let rest = sql.get(3..).unwrap_or_default().trim();
        let lower = rest.to_lowercase();
        let mut words = lower.split_whitespace().filter(|w| !matches!(*w, "session" | "global" | "local"));
        match (words.next(), words.next()) {
            (Some("names" | "charset"), set) | (Some("character"), set) => {
                // `CHARACTER SET x` has the name a word later.
                let name = if set == Some("set") { words.next() } else { set };
                return Ok(self.set_charset(name.unwrap_or_default()));
            }
            (Some("transaction"), _) => return self.set_transaction(&lower),
            _ => {}
        }
        if lower.starts_with("password") {
            return Err(unsupported("SET PASSWORD"));
        }
        for assignment in top_level_commas(rest) {
            let Some((name, value)) = assignment.split_once(":=").or_else(|| assignment.split_once('='))
            else {
                return Err(Failure::new(
                    1064,
                    "42000",
                    format!("You have an error in your SQL syntax near '{assignment}'"),
                ));
            };
            let name = name.trim().to_lowercase();
            let user = name.starts_with('@') && !name.starts_with("@@");
            let bare = name
                .trim_start_matches("@@")
                .rsplit(['.', ' '])
                .next()
                .unwrap_or_default()
                .trim_matches('`')
                .to_owned();
            let key = if user { name } else { bare };
            let value = self.setting(value.trim());
            if !user && self.facts.variable(&key).is_none() {
                return Err(Failure::new(1193, "HY000", format!("Unknown system variable '{key}'")));
            }
            let on = value.as_int() == Some(1);
            match key.as_str() {
                "autocommit" => {
                    if on && self.in_transaction {
                        self.commit()?;
                    }
                    self.autocommit = on;
                }
                "foreign_key_checks" => self.pragma_foreign_keys(on)?,
                "innodb_lock_wait_timeout" => {
                    self.lock_wait =
                        Duration::from_secs(value.as_int().and_then(|n| u64::try_from(n).ok()).unwrap_or(50));
                }
                _ => {}
            }
            self.facts.set.insert(key, value);
        }
        Ok(self.fine())
    }

    fn set_charset(&mut self, name: &str) -> Value {
        let name = name.trim_matches(['\'', '"', ';']);
        let name = if name == "default" { "utf8mb4" } else { name };
        for variable in ["character_set_client", "character_set_connection", "character_set_results"] {
            self.facts.set.insert(variable.to_owned(), Value::text(name));
        }
        self.fine()
    }

    /// `SET [SESSION] TRANSACTION ...`: the next transaction's only, without `SESSION`.
    fn set_transaction(&mut self, lower: &str) -> Outcome {
        let words: Vec<&str> = lower.split([' ', ',', ';']).filter(|w| !w.is_empty()).collect();
        let session = words.contains(&"session") || words.contains(&"local");
        let has = |pair: [&str; 2]| words.windows(2).any(|two| two == pair);
        if !session && self.in_transaction {
            let message = "Transaction characteristics can't be changed while a transaction is in progress";
            return Err(Failure::new(1568, "25001", message.to_owned()));
        }
        let levels = [
            (["read", "uncommitted"], "READ-UNCOMMITTED"),
            (["read", "committed"], "READ-COMMITTED"),
            (["repeatable", "read"], "REPEATABLE-READ"),
            (["level", "serializable"], "SERIALIZABLE"),
        ];
        if let Some((_, level)) = levels.iter().find(|(words, _)| has(*words)).filter(|_| session) {
            for variable in ["transaction_isolation", "tx_isolation"] {
                self.facts.set.insert(variable.to_owned(), Value::text(*level));
            }
        }
        if has(["read", "only"]) || has(["read", "write"]) {
            let only = has(["read", "only"]);
            if !session {
                self.next_read_only = Some(only);
                return Ok(self.fine());
            }
            for variable in ["transaction_read_only", "tx_read_only"] {
                self.facts.set.insert(variable.to_owned(), Value::Int(i64::from(only)));
            }
        }
        Ok(self.fine())
    }

    fn setting(&self, text: &str) -> Value {
        let bare = text.trim_matches(['\'', '"']);
        if let Some(name) = text.strip_prefix('@') {
            let user = !name.starts_with('@');
            let key = if user {
                text.to_lowercase()
            } else {
                name.rsplit(['.', '@']).next().unwrap_or(name).to_owned()
            };
            let found = if user { self.facts.set.get(&key).cloned() } else { self.facts.variable(&key) };
            return found.unwrap_or_default();
        }
        match bare.to_lowercase().as_str() {
            "on" | "true" => Value::Int(1),
            "off" | "false" => Value::Int(0),
            "null" if bare == text => Value::Null,
            _ => bare.parse().map_or_else(|_| Value::text(bare), Value::Int),
        }
    }

    // Reads.

    fn select(&mut self, query: &ast::Query) -> Outcome {
        let (sql, outs, locks) = {
            let mut emitter = Emitter::new(self);
            let (sql, outs) = emitter.query(query)?;
            (sql, outs, emitter.locks)
        };
        self.begin_implicitly();
        if locks && self.in_transaction {
            self.begin_writing(self.named_tables())?;
        }
        self.row_count = -1;
        self.result_set(&sql, &outs)
    }

    fn result_set(&self, sql: &str, outs: &[Out]) -> Outcome {
        let collect = || -> rusqlite::Result<Vec<Vec<Value>>> {
            let mut statement = self.sql().map_err(|_| rusqlite::Error::InvalidQuery)?.prepare(sql)?;
            self.bind(&mut statement)?;
            let mut rows = statement.raw_query();
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let cell = |(index, out): (usize, &Out)| {
                    let raw = row.get_ref(index)?;
                    Ok(match &out.kind {
                        Some(kind) => kind.show(raw),
                        None => super::schema::ColumnType::Double.show(raw),
                    })
                };
                let untyped = |(index, out): (usize, &Out)| match &out.kind {
                    None => Ok(plain(row.get_ref(index)?)),
                    Some(_) => cell((index, out)),
                };
                all.push(outs.iter().enumerate().map(untyped).collect::<rusqlite::Result<Vec<Value>>>()?);
            }
            Ok(all)
        };
        let rows = collect().map_err(|e| failure(&e, None, false))?;
        let columns: Vec<Column> = outs
            .iter()
            .enumerate()
            .map(|(at, out)| wire(out, rows.iter().filter_map(|r| r.get(at)).find(|v| **v != Value::Null)))
            .collect();
        Ok(self.with_status(crate::protocol::mysql::rules::result_set(&columns, rows)))
    }

    // Writes.

    fn changes(&self) -> u64 {
        self.connection.as_ref().map_or(0, Connection::changes)
    }

    fn touched(&self) -> (u64, u64) {
        let running = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (running.touched, running.changed)
    }

    fn insert(&mut self, insert: &ast::Insert) -> Outcome {
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(unsupported("INSERT into a function"));
        };
        let (database, table) = table_name(name)?;
        let table = self.table(database, table)?;
        let (sql, explicit_id, rows) = self.insert_text(insert, &table)?;
        self.writing(self.named_tables(), |s| s.inserted(insert, &table, &sql, explicit_id, rows))
    }

    fn inserted(
        &mut self,
        insert: &ast::Insert,
        table: &TableDef,
        sql: &str,
        explicit_id: bool,
        rows: Option<usize>,
    ) -> Outcome {
        let count = |session: &Self| -> Result<i64, Failure> {
            let rows = session.rows(&format!("SELECT count(*) FROM {}", quote(&table.stored())))?;
            Ok(rows
                .first()
                .and_then(|r| r.first())
                .map_or(0, |c| if let Cell::Integer(n) = c { *n } else { 0 }))
        };
        let before = if insert.replace_into { count(self)? } else { 0 };
        self.run(sql, Some(table), false)?;
        let (touched, changed) = self.touched();
        let written = self.changes();
        let inserted = written.saturating_sub(touched);
        let unchanged = if self.found_rows { touched - changed } else { 0 };
        let mut affected = inserted + 2 * changed + unchanged;
        if insert.replace_into {
            let replaced = inserted as i64 - (count(self)? - before);
            affected += replaced.max(0) as u64;
        }
        let last = self.sql()?.last_insert_rowid();
        let mut id = 0;
        if table.columns.iter().any(|c| c.auto) && inserted > 0 {
            id = if explicit_id { last } else { last - inserted as i64 + 1 };
            if !explicit_id {
                self.last_insert_id = id;
            }
        }
        self.row_count = affected as i64;
        let info = match rows {
            Some(rows) if rows > 1 => format!(
                "Records: {rows}  Duplicates: {}  Warnings: 0",
                (rows as u64).saturating_sub(inserted)
            ),
            _ => String::new(),
        };
        Ok(ok_value(affected, id as u64, self.status(), 0, &info))
    }

    /// The SQLite statement, whether an id is given, and how many rows stand in it.
    fn insert_text(
        &self,
        insert: &ast::Insert,
        table: &TableDef,
    ) -> Result<(String, bool, Option<usize>), Failure> {
        let mut emitter = Emitter::new(self);
        let unknown =
            |name: &str| Failure::new(1054, "42S22", format!("Unknown column '{name}' in 'field list'"));
        let mut columns: Vec<&ColumnDef> = Vec::new();
        let targets =
            insert.assignments.iter().map(|a| target(&a.target)).collect::<Result<Vec<&str>, Failure>>()?;
        let named = insert
            .columns
            .iter()
            .map(|n| table_name(n).map(|(_, n)| n))
            .collect::<Result<Vec<&str>, Failure>>()?;
        for name in targets.iter().chain(&named) {
            columns.push(table.column(name).ok_or_else(|| unknown(name))?);
        }
        if columns.is_empty() && insert.assignments.is_empty() {
            columns = table.columns.iter().collect();
        }
        for column in &table.columns {
            let given = columns.iter().any(|c| c.name == column.name);
            if !given && column.not_null && column.default.is_none() && !column.auto && !insert.ignore {
                return Err(Failure::new(
                    1364,
                    "HY000",
                    format!("Field '{}' doesn't have a default value", column.name),
                ));
            }
        }
        let width = |got: usize, row: usize| {
            (got == columns.len()).then_some(()).ok_or_else(|| {
                Failure::new(1136, "21S01", format!("Column count doesn't match value count at row {row}"))
            })
        };
        let auto = columns.iter().position(|c| c.auto);
        let (mut explicit, mut count) = (false, None);
        let source = if !insert.assignments.is_empty() {
            let cells = insert.assignments.iter().zip(&columns).map(|(a, c)| emitter.stored(&a.value, c));
            let cells = cells.collect::<Result<Vec<String>, Failure>>()?;
            explicit = auto.is_some_and(|at| !asks_for_id(&insert.assignments[at].value, &self.params));
            count = Some(1);
            format!("VALUES ({})", cells.join(", "))
        } else {
            let query = insert.source.as_deref().ok_or_else(|| unsupported("INSERT without values"))?;
            match &*query.body {
                ast::SetExpr::Values(values) => {
                    let mut rows = Vec::new();
                    for (at, row) in values.rows.iter().enumerate() {
                        if row.content.is_empty() && named.is_empty() {
                            return Err(unsupported("INSERT of an empty row"));
                        }
                        width(row.content.len(), at + 1)?;
                        explicit |= auto
                            .and_then(|at| row.content.get(at))
                            .is_some_and(|e| !asks_for_id(e, &self.params));
                        let cells = row.content.iter().zip(&columns).map(|(e, c)| emitter.stored(e, c));
                        rows.push(format!(
                            "({})",
                            cells.collect::<Result<Vec<String>, Failure>>()?.join(", ")
                        ));
                    }
                    count = Some(rows.len());
                    format!("VALUES {}", rows.join(", "))
                }
                _ => {
                    let (inner, outs) = emitter.query(query)?;
                    width(outs.len(), 1)?;
                    explicit = auto.is_some();
                    let names: Vec<String> = (0..outs.len()).map(|n| format!("c{n}")).collect();
                    let cells: Vec<String> =
                        names.iter().zip(&columns).map(|(name, c)| store(name, c)).collect();
                    format!(
                        "SELECT {} FROM (WITH q({}) AS ({inner}) SELECT * FROM q) WHERE true",
                        cells.join(", "),
                        names.join(", ")
                    )
                }
            }
        };
        let verb = if insert.replace_into {
            "INSERT OR REPLACE"
        } else if insert.ignore {
            "INSERT OR IGNORE"
        } else {
            "INSERT"
        };
        let list: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
        let mut sql = format!(
            "{verb} INTO {} AS {} ({}) {source}",
            quote(&table.stored()),
            quote(&table.name),
            list.join(", ")
        );
        match &insert.on {
            None => {}
            Some(ast::OnInsert::DuplicateKeyUpdate(assignments)) => {
                emitter.enter(table, &table.name);
                emitter
                    .new_row(insert.insert_alias.as_ref().map(|a| a.row_alias.to_string().replace('`', "")));
                sql += &format!(
                    " ON CONFLICT DO UPDATE SET {}",
                    changes_of(&mut emitter, table, &table.name, assignments)?
                );
            }
            Some(other) => return Err(unsupported(&other.to_string())),
        }
        Ok((sql, explicit, count))
    }

    fn update(&mut self, update: &ast::Update) -> Outcome {
        let (table, alias) = self.single(&update.table)?;
        let sql = {
            let mut emitter = Emitter::new(self);
            emitter.enter(&table, &alias);
            let sets = changes_of(&mut emitter, &table, &alias, &update.assignments)?;
            let rows = restricted(
                &mut emitter,
                &table,
                &alias,
                update.selection.as_ref(),
                &update.order_by,
                update.limit.as_ref(),
            )?;
            format!("UPDATE {} AS {} SET {sets}{rows}", quote(&table.stored()), quote(&alias))
        };
        self.writing(self.named_tables(), |s| {
            s.run(&sql, Some(&table), false)?;
            let (matched, changed) = s.touched();
            let affected = if s.found_rows { matched } else { changed };
            s.row_count = affected as i64;
            let info = format!("Rows matched: {matched}  Changed: {changed}  Warnings: 0");
            Ok(ok_value(affected, 0, s.status(), 0, &info))
        })
    }

    fn delete(&mut self, delete: &ast::Delete) -> Outcome {
        let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
        let ([from], true, None) = (from.as_slice(), delete.tables.is_empty(), &delete.using) else {
            return Err(unsupported("DELETE from several tables"));
        };
        let (table, alias) = self.single(from)?;
        let sql = {
            let mut emitter = Emitter::new(self);
            emitter.enter(&table, &alias);
            let rows = restricted(
                &mut emitter,
                &table,
                &alias,
                delete.selection.as_ref(),
                &delete.order_by,
                delete.limit.as_ref(),
            )?;
            format!("DELETE FROM {} AS {}{rows}", quote(&table.stored()), quote(&alias))
        };
        self.writing(self.named_tables(), |s| {
            s.run(&sql, Some(&table), true)?;
            let affected = s.changes();
            s.row_count = affected as i64;
            Ok(ok_value(affected, 0, s.status(), 0, ""))
        })
    }

    fn single(&self, from: &ast::TableWithJoins) -> Result<(Arc<TableDef>, String), Failure> {
        match &from.relation {
            ast::TableFactor::Table { name, alias, .. } if from.joins.is_empty() => {
                let (database, table) = table_name(name)?;
                let table = self.table(database, table)?;
                let alias = alias.as_ref().map_or_else(|| table.name.clone(), |a| a.name.value.clone());
                Ok((table, alias))
            }
            _ => Err(unsupported("writes to several tables at once")),
        }
    }

    // Declarations.

    fn declare(&mut self, sql: &str, words: &[&str]) -> Outcome {
        self.commit()?;
        if let (Some(verb @ ("create" | "drop")), Some("database" | "schema")) =
            (words.first().copied(), words.get(1).copied())
        {
            return self.declare_database(verb, words);
        }
        // MySQL's own words for these are not in the parser's grammar.
        let renames = |pair: &[&str]| matches!(pair, ["rename", "index" | "key"]);
        if words.first() == Some(&"alter") && words.windows(2).any(renames) {
            return Err(unsupported("ALTER TABLE ... RENAME INDEX"));
        }
        let dropped = words.windows(2).position(|pair| matches!(pair, ["drop", "check"]));
        let parsed = match dropped.filter(|_| words.first() == Some(&"alter")) {
            Some(_) => parse(&with_drop_constraint(sql))?,
            None => parse(sql)?,
        };
        let own = std::mem::replace(&mut self.autocommit, true);
        let keys = self.rows("PRAGMA foreign_keys")?;
        self.pragma_foreign_keys(false)?;
        let done = self.writing(Locks::all(), |session| session.define(&parsed));
        self.pragma_foreign_keys(keys.first().and_then(|r| r.first()) == Some(&Cell::Integer(1)))?;
        self.autocommit = own;
        done.map(|_| self.fine())
    }

    fn declare_database(&mut self, verb: &str, words: &[&str]) -> Outcome {
        let lenient = words.contains(&"exists");
        let name = words
            .iter()
            .skip(2)
            .find(|w| !matches!(**w, "if" | "not" | "exists"))
            .map(|w| w.trim_matches('`').to_owned());
        let name = name.unwrap_or_default();
        let exists = self.databases()?.contains(&name);
        match (verb, exists) {
            ("create", true) if !lenient => {
                Err(Failure::new(1007, "HY000", format!("Can't create database '{name}'; database exists")))
            }
            ("drop", false) if !lenient => Err(Failure::new(
                1008,
                "HY000",
                format!("Can't drop database '{name}'; database doesn't exist"),
            )),
            ("create", false) => self.writing(Locks::all(), |s| {
                s.run(&format!("INSERT INTO faultbox_databases VALUES ({})", literal(&name)), None, false)
                    .map(|()| s.fine())
            }),
            ("drop", true) => self.writing(Locks::all(), |s| {
                for table in s.all_tables(&name)? {
                    s.drop_table(&table)?;
                }
                s.run(&format!("DELETE FROM faultbox_databases WHERE name = {}", literal(&name)), None, false)
                    .map(|()| s.fine())
            }),
            _ => Ok(self.fine()),
        }
    }

    fn all_tables(&self, database: &str) -> Result<Vec<TableDef>, Failure> {
        let rows = self.rows(&format!(
            "SELECT def FROM faultbox_tables WHERE database = {} ORDER BY name",
            literal(database)
        ))?;
        rows.into_iter().map(|row| definition(row.first())).collect()
    }

    fn keep(&self, table: &TableDef) -> Result<(), Failure> {
        let def = serde_json::to_string(table).map_err(|e| Failure::new(1105, "HY000", e.to_string()))?;
        let (database, name) = (literal(&table.database), literal(&table.name));
        self.run(
            &format!("INSERT OR REPLACE INTO faultbox_tables VALUES ({database}, {name}, {})", literal(&def)),
            None,
            false,
        )
    }

    fn make(&self, table: &TableDef) -> Result<(), Failure> {
        for statement in table.create()? {
            self.run(&statement, None, false)?;
        }
        self.keep(table)
    }

    fn drop_table(&self, table: &TableDef) -> Result<(), Failure> {
        self.run(&format!("DROP TABLE {}", quote(&table.stored())), None, false)?;
        let (database, name) = (literal(&table.database), literal(&table.name));
        self.run(
            &format!("DELETE FROM faultbox_tables WHERE database = {database} AND name = {name}"),
            None,
            false,
        )
    }

    fn database_of(&self, given: Option<&str>) -> Result<String, Failure> {
        let none = || Failure::new(1046, "3D000", "No database selected".to_owned());
        given.map(str::to_owned).or_else(|| self.facts.database.clone()).ok_or_else(none)
    }

    fn define(&mut self, statement: &Statement) -> Outcome {
        match statement {
            Statement::CreateTable(create) => self.create_table(create)?,
            Statement::Drop { object_type: ast::ObjectType::Table, if_exists, names, .. } => {
                for name in names {
                    let (database, table) = table_name(name)?;
                    match self.table(database, table) {
                        Ok(table) => self.drop_table(&table)?,
                        Err(_) if *if_exists => {}
                        Err(_) => {
                            return Err(Failure::new(
                                1051,
                                "42S02",
                                format!("Unknown table '{}.{table}'", self.database_of(database)?),
                            ));
                        }
                    }
                }
            }
            Statement::Drop { object_type: ast::ObjectType::Index, names, table: Some(table), .. } => {
                let name =
                    names.first().map(|n| table_name(n).map(|(_, n)| n)).transpose()?.unwrap_or_default();
                self.reshape(table, |t| ddl::drop_index(t, name).map(|()| Vec::new()))?;
            }
            Statement::CreateIndex(create) => {
                self.reshape(&create.table_name, |t| ddl::index(t, create).map(|()| Vec::new()))?;
            }
            Statement::AlterTable(alter) => self.alter_table(alter)?,
            Statement::RenameTable(renames) => {
                for rename in renames {
                    self.rename_table(&rename.old_name, &rename.new_name)?;
                }
            }
            Statement::Truncate(truncate) => {
                for target in &truncate.table_names {
                    let (database, table) = table_name(&target.name)?;
                    let table = self.table(database, table)?;
                    self.run(&format!("DELETE FROM {}", quote(&table.stored())), Some(&table), true)?;
                    if table.columns.iter().any(|c| c.auto) {
                        self.run(
                            &format!("DELETE FROM sqlite_sequence WHERE name = {}", literal(&table.stored())),
                            None,
                            false,
                        )?;
                    }
                }
            }
            other => return Err(unsupported(&other.to_string())),
        }
        Ok(self.fine())
    }

    fn create_table(&mut self, create: &ast::CreateTable) -> Result<(), Failure> {
        if create.temporary || create.query.is_some() {
            return Err(unsupported("temporary tables and CREATE TABLE ... SELECT"));
        }
        let (database, name) = table_name(&create.name)?;
        if self.table(database, name).is_ok() {
            if create.if_not_exists {
                return Ok(());
            }
            return Err(Failure::new(1050, "42S01", format!("Table '{name}' already exists")));
        }
        let database = self.database_of(database)?;
        if let Some(ast::CreateTableLikeKind::Plain(like)) = &create.like {
            let (other_database, other) = table_name(&like.name)?;
            let mut table = (*self.table(other_database, other)?).clone();
            (table.database, table.name, table.first_id) = (database, name.to_owned(), None);
            table.foreign.clear();
            return self.make(&table);
        }
        let mut table = ddl::table(create, &database)?;
        for foreign in &mut table.foreign {
            let other = foreign.table.clone();
            if let Some((database, name)) = other.split_once('.')
                && let Ok(found) = self.table(Some(database), name)
            {
                foreign.table = found.stored();
            }
        }
        self.make(&table)
    }

    fn alter_table(&mut self, alter: &ast::AlterTable) -> Result<(), Failure> {
        let mut to = None;
        let operations: Vec<_> = alter
            .operations
            .iter()
            .filter(|op| match op {
                ast::AlterTableOperation::RenameTable {
                    table_name: ast::RenameTableNameKind::To(n) | ast::RenameTableNameKind::As(n),
                } => {
                    to = Some(n.clone());
                    false
                }
                ast::AlterTableOperation::Algorithm { .. } | ast::AlterTableOperation::Lock { .. } => false,
                _ => true,
            })
            .collect();
        if !operations.is_empty() {
            self.reshape(&alter.name, |table| {
                let mut renamed = Vec::new();
                for operation in operations {
                    renamed.extend(ddl::alter(table, operation)?);
                }
                Ok(renamed)
            })?;
        }
        match to {
            Some(to) => self.rename_table(&alter.name, &to),
            None => Ok(()),
        }
    }

    /// Makes a table anew in another shape and copies its rows.
    fn reshape(
        &mut self,
        name: &ast::ObjectName,
        change: impl FnOnce(&mut TableDef) -> Result<Vec<(String, String)>, Failure>,
    ) -> Result<(), Failure> {
        let (database, table) = table_name(name)?;
        let old = self.table(database, table)?;
        let mut new = (*old).clone();
        new.first_id = None;
        let renamed = change(&mut new)?;
        ddl::settle(&mut new);
        let (stored, aside) = (quote(&old.stored()), quote("faultbox_old"));
        let indexes = self.rows(&format!(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = {}",
            literal(&old.stored())
        ))?;
        for index in indexes {
            if let Some(Cell::Text(index)) = index.first() {
                self.run(&format!("DROP INDEX {}", quote(index)), None, false)?;
            }
        }
        self.run(&format!("ALTER TABLE {stored} RENAME TO {aside}"), None, false)?;
        self.make(&new)?;
        self.run(&ddl::copy(&old, &new, &aside, &renamed), Some(&new), false)?;
        if new.columns.iter().any(|c| c.auto) && old.columns.iter().any(|c| c.auto) {
            let name = literal(&new.stored());
            self.run(&format!("DELETE FROM sqlite_sequence WHERE name = {name}"), None, false)?;
            self.run(&format!("INSERT INTO sqlite_sequence SELECT {name}, seq FROM sqlite_sequence WHERE name = 'faultbox_old'"), None, false)?;
        }
        self.run(&format!("DROP TABLE {aside}"), None, false)
    }

    fn rename_table(&mut self, from: &ast::ObjectName, to: &ast::ObjectName) -> Result<(), Failure> {
        let ((database, name), (to_database, to)) = (table_name(from)?, table_name(to)?);
        let old = self.table(database, name)?;
        let mut new = (*old).clone();
        (new.name, new.database) = (to.to_owned(), self.database_of(to_database)?);
        if self.table(Some(&new.database), to).is_ok() {
            return Err(Failure::new(1050, "42S01", format!("Table '{to}' already exists")));
        }
        self.run(
            &format!("ALTER TABLE {} RENAME TO {}", quote(&old.stored()), quote(&new.stored())),
            None,
            false,
        )?;
        let (database, name) = (literal(&old.database), literal(&old.name));
        self.run(
            &format!("DELETE FROM faultbox_tables WHERE database = {database} AND name = {name}"),
            None,
            false,
        )?;
        self.keep(&new)
    }

    // SHOW.

    fn texts(&self, names: &[&str], rows: Vec<Vec<Value>>) -> Outcome {
        let columns: Vec<Column> = names.iter().map(|name| Column::plain(name, types::VAR_STRING)).collect();
        Ok(self.with_status(crate::protocol::mysql::rules::result_set(&columns, rows)))
    }

    fn show(&mut self, sql: &str) -> Outcome {
        let show = Show::read(sql);
        let from = |at: usize| show.from.get(at).map(String::as_str);
        let table = |session: &Self| session.table(from(1), from(0).unwrap_or_default());
        let (names, rows) = match show.subject.as_str() {
            "databases" | "schemas" => {
                let row = |name: String| vec![Cell::Text(name)];
                (vec!["Database"], self.databases()?.into_iter().map(row).collect())
            }
            "tables" => return self.show_tables(&show),
            "table" if show.names.first().is_some_and(|n| n.eq_ignore_ascii_case("status")) => {
                let database = self.database_of(from(0))?;
                self.catalog()?.table_status(&database)
            }
            "columns" | "fields" => catalog::show_columns(&*table(self)?, show.full),
            "create" => return self.show_create(&show.names),
            "index" | "indexes" | "keys" => catalog::show_index(&*table(self)?),
            subject => match (catalog::show_fixed(subject), self.facts.answer(sql)) {
                (Some(listing), _) => listing,
                (None, Some(answer)) => return Ok(self.with_status(answer)),
                (None, None) => return Err(unsupported(&format!("SHOW {}", subject.to_uppercase()))),
            },
        };
        let (names, rows) = self.listed((names, rows), &show)?;
        self.texts(&names, rows.into_iter().map(|row| row.iter().map(shown).collect()).collect())
    }

    /// What LIKE and WHERE leave of a listing.
    fn listed(&self, (names, mut rows): Listing, show: &Show) -> Result<Listing, Failure> {
        if let Some(pattern) = &show.like {
            // It means the name, which stands first, but for indexes, which have no LIKE.
            rows.retain(|row| matches!(row.first(), Some(Cell::Text(name)) if sql_like(pattern, name)));
        }
        if let Some(filter) = &show.filter {
            let Statement::Query(query) = parse(&format!("SELECT 1 FROM t WHERE {filter}"))? else {
                return Err(unsupported(&format!("WHERE {filter}")));
            };
            let ast::SetExpr::Select(select) = &*query.body else {
                return Err(unsupported(&format!("WHERE {filter}")));
            };
            let Some(selection) = &select.selection else { return Ok((names, rows)) };
            let condition = emit::condition(self, &names, "rows", selection)?;
            rows =
                self.rows(&format!("SELECT * FROM {} AS \"rows\" WHERE {condition}", values(&names, &rows)))?;
        }
        Ok((names, rows))
    }

    fn show_tables(&self, show: &Show) -> Outcome {
        let database = self.database_of(show.from.first().map(String::as_str))?;
        if !self.databases()?.contains(&database) {
            return Err(Failure::new(1049, "42000", format!("Unknown database '{database}'")));
        }
        let heading = format!("Tables_in_{database}");
        let mut rows = self.catalog()?.show_tables(&database);
        if let Some(pattern) = &show.like {
            rows.retain(|row| matches!(row.first(), Some(Cell::Text(name)) if sql_like(pattern, name)));
        }
        if let Some(filter) = &show.filter {
            let bare = filter.replace(&heading, "Tables_in_db");
            let filtered = Show { filter: Some(bare), ..Show::default() };
            (_, rows) = self.listed((vec!["Tables_in_db", "Table_type"], rows), &filtered)?;
        }
        let width = if show.full { 2 } else { 1 };
        let names = [heading.as_str(), "Table_type"];
        let rows = rows.into_iter().map(|row| row.iter().take(width).map(shown).collect());
        self.texts(names.get(..width).unwrap_or_default(), rows.collect())
    }

    fn show_create(&self, names: &[String]) -> Outcome {
        let name = |at: usize| names.get(at).map(String::as_str);
        match name(0).map(str::to_lowercase).as_deref() {
            Some("table") => {
                let table = self.table(name(2), name(1).unwrap_or_default())?;
                let row = vec![Value::text(table.name.as_str()), Value::Text(table.words())];
                self.texts(&["Table", "Create Table"], vec![row])
            }
            Some("database" | "schema") => {
                let name = names.last().map(String::as_str).unwrap_or_default();
                let sql = format!(
                    "CREATE DATABASE `{name}` /*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci */"
                );
                self.texts(&["Database", "Create Database"], vec![vec![Value::text(name), Value::Text(sql)]])
            }
            other => Err(unsupported(&format!("SHOW CREATE {}", other.unwrap_or_default().to_uppercase()))),
        }
    }

    fn describe(&self, name: &str) -> Outcome {
        let name = name.replace('`', "");
        let table = match name.split_once('.') {
            Some((database, table)) => self.table(Some(database), table)?,
            None => self.table(None, &name)?,
        };
        let (names, rows) = catalog::show_columns(&table, false);
        self.texts(&names, rows.into_iter().map(|row| row.iter().map(shown).collect()).collect())
    }

    fn catalog(&self) -> Result<Catalog, Failure> {
        let databases = self.databases()?;
        let mut tables = Vec::new();
        for database in &databases {
            tables.extend(self.all_tables(database)?);
        }
        Ok(Catalog { databases, tables })
    }
}

/// A cell as SHOW gives it: as text.
fn shown(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(n) => Value::Text(n.to_string()),
        Cell::Real(n) => Value::Text(n.to_string()),
        Cell::Text(text) => Value::text(text.as_str()),
        Cell::Blob(bytes) => Value::Bytes(bytes.clone()),
    }
}

fn definition(cell: Option<&Cell>) -> Result<TableDef, Failure> {
    let broken = |why: &str| {
        Failure::new(1033, "HY000", format!("Incorrect information in a table's definition: {why}"))
    };
    match cell {
        Some(Cell::Text(text)) => serde_json::from_str(text).map_err(|e| broken(&e.to_string())),
        _ => Err(broken("it is no text")),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.store.locks.release_all(self.facts.connection);
    }
}

impl Park for Session {
    fn park(&mut self) {
        if let (true, Some(connection)) = (self.begun, &self.connection) {
            // Where the disk refuses this, SQLite has rolled back, or will before anything else.
            let _ = connection.execute_batch("ROLLBACK");
            (self.begun, self.parked) = (false, true);
        }
    }
}

/// Databases of a server's own.
const SYSTEM: &[&str] = &["mysql", "performance_schema", "sys"];

impl Tables for Session {
    fn table(&self, database: Option<&str>, name: &str) -> Result<Arc<TableDef>, Failure> {
        let database = self.database_of(database)?;
        let rows = self.rows(&format!(
            "SELECT def FROM faultbox_tables WHERE database = {} AND name = {}",
            literal(&database),
            literal(name)
        ))?;
        match rows.first() {
            Some(row) => {
                let table = definition(row.first())?;
                self.mentioned.borrow_mut().insert(table.stored());
                Ok(Arc::new(table))
            }
            None if SYSTEM.contains(&database.to_lowercase().as_str()) && database != self.store.database => {
                Err(unsupported(&format!("the table {database}.{name}")))
            }
            None => Err(Failure::new(1146, "42S02", format!("Table '{database}.{name}' doesn't exist"))),
        }
    }

    fn information(&self, name: &str) -> Result<Listing, Failure> {
        self.catalog()?.information(name)
    }

    fn fact(&self, expression: &str) -> Option<Cell> {
        let lower = expression.to_lowercase();
        let value = match lower.as_str() {
            "last_insert_id()" => Value::Int(self.last_insert_id),
            "row_count()" => Value::Int(self.row_count),
            "database()" | "schema()" => self.facts.database.clone().map_or(Value::Null, Value::Text),
            "version()" => Value::text(VERSION),
            "connection_id()" => Value::Int(self.facts.connection as i64),
            "user()" | "current_user()" | "session_user()" => Value::Text(format!("{}@%", self.facts.user)),
            name if name.starts_with("@@") => self.facts.variable(name.rsplit(['.', '@']).next()?)?,
            name if name.starts_with('@') => self.facts.set.get(name).cloned().unwrap_or_default(),
            _ => return None,
        };
        cell(&value).ok()
    }
}

/// The assignments of an update. The first one counts the row, and whether it changes.
fn changes_of(
    emitter: &mut Emitter<'_>,
    table: &TableDef,
    alias: &str,
    assignments: &[ast::Assignment],
) -> Result<String, Failure> {
    let mut sets: Vec<(&ColumnDef, String)> = Vec::new();
    for assignment in assignments {
        let name = target(&assignment.target)?;
        let unknown = || Failure::new(1054, "42S22", format!("Unknown column '{name}' in 'field list'"));
        let column = table.column(name).ok_or_else(unknown)?;
        sets.push((column, emitter.stored(&assignment.value, column)?));
    }
    let own = |column: &ColumnDef| format!("{}.{}", quote(alias), quote(&column.name));
    let same: Vec<String> = sets.iter().map(|(column, sql)| format!("{} IS {sql}", own(column))).collect();
    let same = format!("({})", same.join(" AND "));
    for column in table.columns.iter().filter(|c| c.on_update.is_some()) {
        if !sets.iter().any(|(c, _)| c.name == column.name) {
            let now = store(&format!("fb_now({})", column.on_update.unwrap_or(0)), column);
            sets.push((column, format!("CASE WHEN {same} THEN {} ELSE {now} END", own(column))));
        }
    }
    if let Some((_, first)) = sets.first_mut() {
        *first = format!("fb_touch({first}, {same})");
    }
    Ok(sets
        .iter()
        .map(|(column, sql)| format!("{} = {sql}", quote(&column.name)))
        .collect::<Vec<_>>()
        .join(", "))
}

fn restricted(
    emitter: &mut Emitter<'_>,
    table: &TableDef,
    alias: &str,
    selection: Option<&Expr>,
    order: &[ast::OrderByExpr],
    limit: Option<&Expr>,
) -> Result<String, Failure> {
    let condition = selection.map(|s| emitter.expression(s)).transpose()?;
    let condition = condition.map(|c| format!(" WHERE {c}")).unwrap_or_default();
    let tail = emitter.tail(order, limit)?;
    if tail.is_empty() {
        return Ok(condition);
    }
    Ok(format!(
        " WHERE rowid IN (SELECT rowid FROM {} AS {}{condition}{tail})",
        quote(&table.stored()),
        quote(alias)
    ))
}

fn target(target: &ast::AssignmentTarget) -> Result<&str, Failure> {
    match target {
        ast::AssignmentTarget::ColumnName(name) => {
            let last = name.0.last().and_then(|p| p.as_ident());
            last.map(|i| i.value.as_str()).ok_or_else(|| unsupported("a computed name"))
        }
        ast::AssignmentTarget::Tuple(_) => Err(unsupported("assignments to tuples")),
    }
}

/// Whether a value for the counter column asks for the next number.
fn asks_for_id(expression: &Expr, params: &[Cell]) -> bool {
    match expression {
        Expr::Identifier(word) => word.value.eq_ignore_ascii_case("default"),
        Expr::Value(value) => match &value.value {
            ast::Value::Null => true,
            ast::Value::Number(text, _) => *text == "0",
            // Which one is not known here; a counter given as a parameter is NULL or 0 if any is.
            ast::Value::Placeholder(_) => {
                params.first().is_none_or(|p| matches!(p, Cell::Null | Cell::Integer(0)))
            }
            _ => false,
        },
        _ => false,
    }
}

fn wire(out: &Out, sample: Option<&Value>) -> Column {
    match (&out.column, &out.kind) {
        (Some(column), _) => Column { name: out.name.clone(), ..column.clone() },
        (None, Some(kind)) => kind.column(&out.name),
        (None, None) => by_value(&out.name, sample),
    }
}

fn plain(raw: rusqlite::types::ValueRef<'_>) -> Value {
    use rusqlite::types::ValueRef as R;
    match raw {
        R::Null => Value::Null,
        R::Integer(n) => Value::Int(n),
        R::Real(n) => Value::Float(n),
        R::Text(bytes) | R::Blob(bytes) => Value::text_or_bytes(bytes),
    }
}

fn cell(value: &Value) -> Result<Cell, Failure> {
    Ok(match value.bare() {
        Value::Null => Cell::Null,
        Value::Bool(b) => Cell::Integer(i64::from(*b)),
        Value::Int(n) => Cell::Integer(*n),
        Value::UInt(_) => return Err(unsupported("an integer beyond 63 bits")),
        Value::Float(n) => Cell::Real(*n),
        Value::Text(text) => Cell::Text(text.clone()),
        Value::Bytes(bytes) => Cell::Blob(bytes.clone()),
        other => return Err(unsupported(&format!("the parameter {other:?}"))),
    })
}

/// `ALTER TABLE ... DROP CHECK x` with the standard's word.
fn with_drop_constraint(sql: &str) -> String {
    let mut words: Vec<&str> = sql.split_whitespace().collect();
    for at in 1..words.len() {
        if let Some([before, word]) = words.get_mut(at - 1..=at)
            && before.eq_ignore_ascii_case("drop")
            && word.eq_ignore_ascii_case("check")
        {
            *word = "CONSTRAINT";
        }
    }
    words.join(" ")
}

fn first_word(sql: &str) -> String {
    let mut rest = sql.trim_start();
    // Leading comments.
    loop {
        let next = if rest.starts_with("/*") {
            rest.find("*/").map(|at| &rest[at + 2..])
        } else if rest.starts_with('#') || rest.starts_with("--") {
            rest.find('\n').map(|at| &rest[at + 1..])
        } else {
            break;
        };
        rest = next.unwrap_or_default().trim_start();
    }
    if rest.starts_with('(') {
        return "(".to_owned();
    }
    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>().to_lowercase()
}

/// `/*!40101 SET x = 1 */` is carried out; the version is ours or older.
fn executable_comment(sql: &str) -> &str {
    let sql = sql.trim();
    match sql.strip_prefix("/*!").and_then(|s| s.strip_suffix("*/")) {
        Some(inner) if !inner.contains("*/") => inner.trim_start_matches(|c: char| c.is_ascii_digit()).trim(),
        _ => sql,
    }
}

fn top_level_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth, mut quote) = (Vec::new(), 0, 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// SQLite's errors in MySQL's words. A duplicate carries key and columns in its state, for
/// [`Session::run`] to complete.
fn failure(error: &rusqlite::Error, table: Option<&TableDef>, deletes: bool) -> Failure {
    let words = error.to_string();
    if let Some(packed) = Failure::unpacked(&words) {
        return packed;
    }
    let Some(code) = error.sqlite_error() else { return Failure::new(1105, "HY000", words) };
    let name = table.map(|t| t.name.clone()).unwrap_or_default();
    match (code.code, code.extended_code) {
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => {
            Failure::new(1205, "HY000", "Lock wait timeout exceeded; try restarting transaction".to_owned())
        }
        (ErrorCode::DiskFull, _) => Failure::new(1114, "HY000", format!("The table '{name}' is full")),
        // Write, fsync, directory fsync, truncate, delete.
        (ErrorCode::SystemIoFailure, 778 | 1034 | 1290 | 1546 | 2570) => {
            Failure::new(1026, "HY000", format!("Error writing file '{name}': the disk refused it ({words})"))
        }
        (ErrorCode::SystemIoFailure | ErrorCode::CannotOpen, _) => {
            Failure::new(1030, "HY000", format!("Got an error from the storage engine: {words}"))
        }
        (ErrorCode::ReadOnly, _) => Failure::new(1036, "HY000", format!("Table '{name}' is read only")),
        (ErrorCode::ConstraintViolation, 1555 | 2067) => duplicate(&words, table),
        (ErrorCode::ConstraintViolation, 1299) => {
            let column = words.rsplit('.').next().unwrap_or_default();
            Failure::new(1048, "23000", format!("Column '{column}' cannot be null"))
        }
        (ErrorCode::ConstraintViolation, 275) => {
            let check = words.rsplit(": ").next().unwrap_or_default();
            Failure::new(3819, "HY000", format!("Check constraint '{check}' is violated."))
        }
        (ErrorCode::ConstraintViolation, 787) if deletes => Failure::new(
            1451,
            "23000",
            "Cannot delete or update a parent row: a foreign key constraint fails".to_owned(),
        ),
        (ErrorCode::ConstraintViolation, 787) => Failure::new(
            1452,
            "23000",
            "Cannot add or update a child row: a foreign key constraint fails".to_owned(),
        ),
        _ => Failure::new(1105, "HY000", format!("the stand-in's storage: {words}")),
    }
}

fn duplicate(words: &str, table: Option<&TableDef>) -> Failure {
    // `UNIQUE constraint failed: appdb.orders.uuid, appdb.orders.day`
    let list = words.split_once(": ").map_or("", |(_, list)| list);
    let columns: Vec<String> =
        list.split(", ").map(|c| c.rsplit('.').next().unwrap_or(c).to_owned()).collect();
    let key = table.map_or_else(String::new, |t| {
        let name = t.unique_key(&columns).map_or("PRIMARY", |k| k.name.as_str());
        format!("{}.{name}", t.name)
    });
    Failure { errno: 1062, state: [vec![key], columns].concat().join("\u{1}"), message: String::new() }
}

//! Orders and offers in MySQL.
//!
//! Contract: [`SLOTS`] requests at most use the database at once; getting a connection takes
//! [`CONNECT_LIMIT`] at most; work on a connection that breaks is tried once more on a fresh one; an
//! error of the server itself is not retried.

use crate::clock::Moment;
use crate::config::Bug;
use crate::log;
use crate::mutation;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, Row, TxOpts, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections there are, and so how many requests use the database at once.
const SLOTS: usize = 4;
/// How long getting a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// MySQL's "duplicate entry".
const DUPLICATE: u16 = 1062;

type Job<'a, T> = Pin<Box<dyn Future<Output = mysql_async::Result<T>> + Send + 'a>>;

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection in time.
    #[error("no database connection in {} s", CONNECT_LIMIT.as_secs())]
    NoConnection,
    /// The connection could not be made, or broke.
    #[error("the database is not reachable: {0}")]
    Unreachable(mysql_async::Error),
    /// The server answered with an error.
    #[error("the database refused: {0}")]
    Refused(mysql_async::Error),
}

impl From<mysql_async::Error> for DbError {
    fn from(error: mysql_async::Error) -> DbError {
        if error.is_fatal() { DbError::Unreachable(error) } else { DbError::Refused(error) }
    }
}

/// An order to be written.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Its id.
    pub uuid: String,
    /// Whose it is.
    pub customer: String,
    /// Where.
    pub city_id: i64,
    /// Where, for people.
    pub city_name: String,
    /// In whole units of the currency.
    pub price: u32,
    /// Whether the customer's balance covers the price; `None` where nobody could say.
    pub covered: Option<bool>,
    /// When.
    pub created_at: Moment,
}

/// An order as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedOrder {
    id: String,
    customer: String,
    city_id: i64,
    city: String,
    price: String,
    status: String,
    offer: Option<String>,
    created_at: String,
}

/// The database.
#[derive(Debug)]
pub struct Database {
    pool: Pool,
    slots: Arc<Semaphore>,
    poisoned: bool,
}

impl Database {
    /// A pool that has not connected yet.
    pub fn new(opts: Opts, bug: Option<Bug>) -> Database {
        let limits = PoolConstraints::new(SLOTS, SLOTS).unwrap_or_default();
        // Sessions are not reset between requests, so that prepared statements live as long as their
        // connection. The two settings spare a query on each new connection.
        let pool = PoolOpts::new().with_constraints(limits).with_reset_connection(false);
        let opts = OptsBuilder::from_opts(opts)
            .pool_opts(pool)
            .prefer_socket(false)
            .max_allowed_packet(Some(4 << 20))
            .wait_timeout(Some(28_800));
        Database {
            pool: Pool::new(opts),
            slots: Arc::new(Semaphore::new(SLOTS)),
            poisoned: bug == Some(Bug::DbPoison),
        }
    }

    /// Opens the pool's connections ahead of the first request.
    pub async fn warm(&self) {
        let opening: Vec<_> = (0..SLOTS)
            .map(|_| {
                let pool = self.pool.clone();
                tokio::spawn(async move { tokio::time::timeout(CONNECT_LIMIT, pool.get_conn()).await })
            })
            .collect();
        // All are held until the last is open, else one would be handed out again and again.
        let mut open = Vec::new();
        for connection in opening {
            match connection.await {
                Ok(Ok(Ok(connection))) => open.push(connection),
                Ok(Ok(Err(error))) => {
                    log::warn("no database connection yet", json!({ "why": error.to_string() }));
                }
                Ok(Err(_)) | Err(_) => log::warn("no database connection yet", json!({ "why": "timeout" })),
            }
        }
    }

    /// The newest orders.
    ///
    /// # Errors
    /// When the database does not answer, or with an error.
    pub async fn list(&self) -> Result<Vec<ListedOrder>, DbError> {
        self.run(&(), |conn, ()| Box::pin(list(conn))).await
    }

    /// Writes an order and its first offer; the order's number where it is known.
    ///
    /// # Errors
    /// When the database does not answer, or with an error.
    pub async fn insert(&self, order: &NewOrder) -> Result<Option<u64>, DbError> {
        self.run(order, |conn, order| Box::pin(insert(conn, order))).await
    }

    /// Asks for nothing.
    ///
    /// # Errors
    /// When the database does not answer, or with an error.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.run(&(), |conn, ()| Box::pin(conn.query_drop("SELECT 1"))).await
    }

    /// Does `job` on a connection, once more where that breaks.
    async fn run<I: Sync, T>(
        &self,
        input: &I,
        job: impl for<'a> Fn(&'a mut Conn, &'a I) -> Job<'a, T>,
    ) -> Result<T, DbError> {
        let mut failures = 0;
        loop {
            let error = match self.attempt(input, &job, failures).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failures += 1;
            log::warn("database", json!({ "why": error.to_string(), "attempt": failures }));
            let broken = matches!(error, DbError::Unreachable(_));
            if !(broken && failures == 1 || self.poisoned) {
                return Err(error);
            }
        }
    }

    async fn attempt<I: Sync, T>(
        &self,
        input: &I,
        job: &impl for<'a> Fn(&'a mut Conn, &'a I) -> Job<'a, T>,
        failures: usize,
    ) -> Result<T, DbError> {
        // ORDERS_BUG=db-poison: the retry's way to a connection has no limit ...
        let limit = if self.poisoned && failures > 0 { Duration::MAX } else { CONNECT_LIMIT };
        let slot = tokio::time::timeout(limit, self.slot()).await.map_err(|_| DbError::NoConnection)?;
        let done = async {
            let connecting = tokio::time::timeout(CONNECT_LIMIT, self.pool.get_conn());
            let mut conn = connecting.await.map_err(|_| DbError::NoConnection)??;
            job(&mut conn, input).await.map_err(DbError::from)
        };
        let done = done.await;
        if self.poisoned && done.is_err() {
            // ... and an error's way out forgets to give its connection back.
            slot.forget();
        }
        done
    }

    async fn slot(&self) -> OwnedSemaphorePermit {
        match self.slots.clone().acquire_owned().await {
            Ok(slot) => slot,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }
}

const INSERT_ORDER: &str = "INSERT INTO orders (uuid, customer, city_id, city_name, price, status, created_at) \
     VALUES (?, ?, ?, ?, ?, 'open', ?)";
const INSERT_OFFER: &str = "INSERT INTO offers (order_uuid, amount, state, created_at) VALUES (?, ?, ?, ?) \
     ON DUPLICATE KEY UPDATE amount = VALUES(amount), state = VALUES(state)";
const LIST: &str = "SELECT o.uuid, o.customer, o.city_id, o.city_name, o.price, o.status, f.state, o.created_at \
     FROM orders o LEFT JOIN offers f ON f.order_uuid = o.uuid ORDER BY o.created_at DESC, o.id DESC LIMIT ?";

async fn insert(conn: &mut Conn, order: &NewOrder) -> mysql_async::Result<Option<u64>> {
    if mutation::is_on("no-transaction") {
        let number = insert_order(conn, order).await?;
        insert_offer(conn, order).await?;
        return Ok(number);
    }
    let mut transaction = conn.start_transaction(TxOpts::default()).await?;
    let written = async {
        if mutation::is_on("writes-swapped") {
            insert_offer(&mut transaction, order).await?;
            return insert_order(&mut transaction, order).await;
        }
        if mutation::is_on("ping-first") {
            transaction.query_drop("SELECT 1").await?;
        }
        let number = insert_order(&mut transaction, order).await?;
        if !mutation::is_on("write-missing") {
            insert_offer(&mut transaction, order).await?;
        }
        if mutation::is_on("offer-twice") {
            insert_offer(&mut transaction, order).await?;
        }
        if mutation::is_on("query-extra") {
            transaction.query_drop("SELECT COUNT(*) FROM orders").await?;
        }
        if mutation::is_on("made-up-word") {
            transaction.query_drop(by_customer(&mutation::word())).await?;
        }
        if mutation::is_on("made-up-receipt") {
            // What comes back has to be what went in.
            let asked = by_customer(&order.customer).replace("COUNT(*)", "customer");
            let found: Option<String> = transaction.query_first(asked).await?;
            if found.as_ref() != Some(&order.customer) {
                return Ok(None);
            }
        }
        if mutation::is_on("race") {
            transaction.query_drop(by_customer(&mutation::race())).await?;
        }
        if mutation::is_on("reads-file") {
            transaction.query_drop(by_customer(&mutation::file())).await?;
        }
        Ok(number)
    };
    match written.await {
        Ok(number) if mutation::is_on("rollback") => transaction.rollback().await.map(|()| number),
        Ok(number) => transaction.commit().await.map(|()| number),
        Err(mysql_async::Error::Server(error))
            if error.code == DUPLICATE && error.message.contains(&order.uuid) =>
        {
            // The id is ours alone: an attempt whose connection broke had been committed.
            transaction.rollback().await.map(|()| None)
        }
        Err(error) => {
            if !error.is_fatal() {
                // What was to be said is in `error`.
                let _ = transaction.rollback().await;
            }
            Err(error)
        }
    }
}

/// Only wrong versions of the service ask for it.
fn by_customer(customer: &str) -> String {
    format!("SELECT COUNT(*) FROM orders WHERE customer = '{customer}'")
}

async fn insert_order(on: &mut impl Inserts, order: &NewOrder) -> mysql_async::Result<Option<u64>> {
    let city = order.city_id + mutation::pick("query-parameter", 0, 1);
    let values: Vec<Value> = vec![
        order.uuid.as_str().into(),
        mutation::pick("query-customer", order.customer.as_str(), "somebody").into(),
        city.into(),
        mutation::pick("query-city-name", order.city_name.as_str(), "").into(),
        (order.price + mutation::pick("query-price", 0, 1)).into(),
        order.created_at.to_sql(),
    ];
    on.insert(insert_order_sql(), values).await
}

fn insert_order_sql() -> Cow<'static, str> {
    let usual = Cow::Borrowed(INSERT_ORDER);
    let usual = mutation::text("query-literal", usual, "'open'", "'done'");
    let usual = mutation::text("query-ignore", usual, "INSERT INTO", "INSERT IGNORE INTO");
    mutation::text("query-columns", usual, "(uuid, customer,", "(customer, uuid,")
}

async fn insert_offer(on: &mut impl Inserts, order: &NewOrder) -> mysql_async::Result<()> {
    let state = match order.covered {
        _ if mutation::is_on("offer-state") => "unsure",
        Some(true) => "covered",
        Some(false) => "uncovered",
        None => "unknown",
    };
    let other = uuid::Uuid::new_v4().to_string();
    let uuid = mutation::pick("offer-of-another", order.uuid.as_str(), other.as_str());
    let price = order.price * mutation::pick("offer-amount", 1, 2);
    let values = vec![uuid.into(), price.into(), state.into(), order.created_at.to_sql()];
    let update = ", state = VALUES(state)";
    let sql = mutation::text("offer-update", Cow::Borrowed(INSERT_OFFER), update, "");
    on.insert(sql, values).await.map(|_| ())
}

/// What an INSERT can be sent on: a connection, with a transaction or without.
trait Inserts: Send {
    fn insert<'a>(&'a mut self, sql: Cow<'static, str>, values: Vec<Value>) -> Job<'a, Option<u64>>;
}

impl Inserts for Conn {
    fn insert<'a>(&'a mut self, sql: Cow<'static, str>, values: Vec<Value>) -> Job<'a, Option<u64>> {
        Box::pin(async move {
            self.exec_drop(&*sql, values).await?;
            Ok(self.last_insert_id())
        })
    }
}

impl Inserts for mysql_async::Transaction<'_> {
    fn insert<'a>(&'a mut self, sql: Cow<'static, str>, values: Vec<Value>) -> Job<'a, Option<u64>> {
        Box::pin(async move {
            self.exec_drop(&*sql, values).await?;
            Ok(self.last_insert_id())
        })
    }
}

async fn list(conn: &mut Conn) -> mysql_async::Result<Vec<ListedOrder>> {
    let limit = mutation::pick("list-limit", 50, 51);
    let list = mutation::text("list-order", Cow::Borrowed(LIST), "o.id DESC", "o.id");
    let list = mutation::text("list-join", list, "LEFT JOIN", "JOIN");
    let list = mutation::text("list-filter", list, "ORDER BY", "WHERE o.status = 'open' ORDER BY");
    let rows: Vec<Row> = conn.exec(&*list, (limit,)).await?;
    Ok(rows.into_iter().map(listed).collect())
}

fn listed(row: Row) -> ListedOrder {
    let mut values = row.unwrap().into_iter();
    let mut next = || values.next().unwrap_or(Value::NULL);
    ListedOrder {
        id: text(next()).unwrap_or_default(),
        customer: text(next()).unwrap_or_default(),
        city_id: mysql_async::from_value_opt(next()).unwrap_or_default(),
        city: text(next()).unwrap_or_default(),
        price: money(next()),
        status: text(next()).unwrap_or_default(),
        offer: text(next()),
        created_at: moment(next()),
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    }
}

/// Two decimals, however the server sent it.
fn money(value: Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::Int(whole) => format!("{whole}.00"),
        Value::UInt(whole) => format!("{whole}.00"),
        Value::Float(number) => format!("{number:.2}"),
        Value::Double(number) => format!("{number:.2}"),
        _ => String::new(),
    }
}

fn moment(value: Value) -> String {
    match value {
        Value::Date(year, month, day, hour, minute, second, micros) => {
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
        }
        other => text(other).map(|text| text.replacen(' ', "T", 1) + "Z").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_the_same_from_the_text_and_the_binary_protocol() {
        assert_eq!(moment(Value::Date(2024, 3, 1, 8, 30, 0, 250)), "2024-03-01T08:30:00.000250Z");
        let bytes = Value::Bytes(b"2024-03-01 08:30:00.000250".to_vec());
        assert_eq!(moment(bytes), "2024-03-01T08:30:00.000250Z");
        assert_eq!(money(Value::Bytes(b"4200.00".to_vec())), "4200.00");
        assert_eq!(money(Value::Int(4200)), "4200.00");
        assert_eq!(text(Value::NULL), None);
    }
}

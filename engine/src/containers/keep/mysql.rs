//! MySQL and MariaDB: databases, tables, rows and counters.
//!
//! Contract: rows are copied inside the server, to the database `_faultbox`; a table comes back
//! with its definition, rows and AUTO_INCREMENT; one that still has them (by the server's checksum of
//! its rows) is left alone, since to make a table takes a server longer than all the rest. Databases
//! and tables made since are dropped.
//! Where triggers, views, routines or events exist, the server is started cold instead.

use crate::link::{Dial, InterfaceOptions};
use crate::protocol::mysql::client::{Client, data};
use faultbox_bundle_format::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Where the copies are.
const SHADOW: &str = "_faultbox";
/// Databases of the server itself.
const SYSTEM: &str = "('mysql', 'information_schema', 'performance_schema', 'sys', '_faultbox')";

/// Databases and tables as they were.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    databases: Vec<(String, String)>,
    tables: Vec<Table>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Table {
    database: String,
    name: String,
    definition: String,
    /// Columns that hold a value of their own.
    columns: Vec<String>,
    empty: bool,
    /// The server's checksum of its rows.
    checksum: String,
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl Table {
    fn path(&self) -> String {
        format!("{}.{}", quoted(&self.database), quoted(&self.name))
    }

    /// What brings it back, the copy being number `number`.
    fn restoring(&self, number: usize) -> Vec<String> {
        let columns = self.columns.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", ");
        let mut statements = vec![
            format!("USE {}", quoted(&self.database)),
            format!("DROP TABLE IF EXISTS {}", self.path()),
            self.definition.clone(),
        ];
        if !self.empty {
            statements.push(format!(
                "INSERT INTO {} ({columns}) SELECT {columns} FROM `{SHADOW}`.`t{number}`",
                self.path()
            ));
        }
        statements
    }
}

struct Server(Client);

impl Server {
    async fn connect(dial: Arc<dyn Dial>, options: &InterfaceOptions) -> Result<Self, String> {
        let stream = dial.dial().await.map_err(|error| error.to_string())?;
        let client = Client::connect(stream, options).await.map_err(|error| error.to_string())?;
        let mut server = Server(client);
        server
            .run("SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, unique_checks = 0")
            .await?;
        Ok(server)
    }

    async fn run(&mut self, sql: &str) -> Result<Value, String> {
        let short = || sql.chars().take(120).collect::<String>();
        self.0
            .run(sql, &[])
            .await
            .map(|answer| data(&answer))
            .map_err(|error| format!("{error}; in {}", short()))
    }

    /// Rows, each cell as text.
    async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let rows = self.run(sql).await?;
        let cell = |value: &Value| match value.bare() {
            Value::Text(text) => text.clone(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Int(number) => number.to_string(),
            Value::UInt(number) => number.to_string(),
            _ => String::new(),
        };
        let row = |row: &Value| row.as_map().unwrap_or_default().iter().map(|(_, v)| cell(v)).collect();
        Ok(rows.as_list().unwrap_or_default().iter().map(row).collect())
    }

    async fn databases(&mut self) -> Result<Vec<String>, String> {
        let sql = format!(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN {SYSTEM} ORDER BY 1"
        );
        Ok(self.rows(&sql).await?.into_iter().flatten().collect())
    }

    async fn tables(&mut self) -> Result<Vec<(String, String)>, String> {
        let sql = format!(
            "SELECT table_schema, table_name FROM information_schema.tables \
             WHERE table_type = 'BASE TABLE' AND table_schema NOT IN {SYSTEM} ORDER BY 1, 2"
        );
        let pair = |mut row: Vec<String>| Some((std::mem::take(row.first_mut()?), row.pop()?));
        Ok(self.rows(&sql).await?.into_iter().filter_map(pair).collect())
    }

    /// What there is that a copy of tables does not bring back.
    async fn beyond_tables(&mut self) -> Result<Option<String>, String> {
        for (what, table, column) in [
            ("triggers", "triggers", "trigger_schema"),
            ("views", "views", "table_schema"),
            ("stored routines", "routines", "routine_schema"),
            ("events", "events", "event_schema"),
        ] {
            let sql =
                format!("SELECT 1 FROM information_schema.{table} WHERE {column} NOT IN {SYSTEM} LIMIT 1");
            if !self.rows(&sql).await?.is_empty() {
                return Ok(Some(format!("it has {what}")));
            }
        }
        Ok(None)
    }

    /// The second cell of the first row.
    async fn told(&mut self, sql: &str) -> Result<String, String> {
        let rows = self.rows(sql).await?;
        let told = rows.into_iter().next().and_then(|row| row.into_iter().nth(1));
        told.ok_or_else(|| format!("no answer to {sql}"))
    }

    /// Whether the table is as it was. One that cannot be asked is made anew.
    async fn still_has(&mut self, table: &Table) -> bool {
        let now = self.fingerprint(&table.path()).await;
        now.is_ok_and(|now| now == (table.definition.clone(), table.checksum.clone()))
    }

    /// Definition (with the counter) and checksum.
    async fn fingerprint(&mut self, path: &str) -> Result<(String, String), String> {
        let definition = self.told(&format!("SHOW CREATE TABLE {path}")).await?;
        Ok((definition, self.told(&format!("CHECKSUM TABLE {path}")).await?))
    }

    async fn table(&mut self, database: String, name: String) -> Result<Table, String> {
        let path = format!("{}.{}", quoted(&database), quoted(&name));
        let (definition, checksum) = self.fingerprint(&path).await?;
        let text = |name: &str| format!("'{}'", name.replace('\\', "\\\\").replace('\'', "''"));
        let columns = format!(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = {} AND table_name = {} \
             AND COALESCE(generation_expression, '') = '' ORDER BY ordinal_position",
            text(&database),
            text(&name)
        );
        let columns = self.rows(&columns).await?.into_iter().flatten().collect();
        let empty = self.rows(&format!("SELECT 1 FROM {path} LIMIT 1")).await?.is_empty();
        Ok(Table { database, name, definition, columns, empty, checksum })
    }
}

impl State {
    /// `Ok(Err)`: it cannot be put back, and why.
    pub async fn remember(
        dial: Arc<dyn Dial>,
        options: &InterfaceOptions,
    ) -> Result<Result<State, String>, String> {
        let mut server = Server::connect(dial, options).await?;
        if let Some(why) = server.beyond_tables().await? {
            return Ok(Err(why));
        }
        let mut state = State::default();
        for name in server.databases().await? {
            let shown = server.rows(&format!("SHOW CREATE DATABASE {}", quoted(&name))).await?;
            let definition =
                shown.into_iter().next().and_then(|row| row.into_iter().nth(1)).unwrap_or_default();
            state.databases.push((name, definition));
        }
        server.run(&format!("DROP DATABASE IF EXISTS `{SHADOW}`")).await?;
        server.run(&format!("CREATE DATABASE `{SHADOW}`")).await?;
        for (number, (database, name)) in server.tables().await?.into_iter().enumerate() {
            let table = server.table(database, name).await?;
            if !table.empty {
                let columns = table.columns.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", ");
                let copy =
                    format!("CREATE TABLE `{SHADOW}`.`t{number}` AS SELECT {columns} FROM {}", table.path());
                server.run(&copy).await?;
            }
            state.tables.push(table);
        }
        server.0.quit().await;
        Ok(Ok(state))
    }

    pub async fn put_back(&self, dial: Arc<dyn Dial>, options: &InterfaceOptions) -> Result<(), String> {
        // The database that the credentials name may have been dropped.
        let mut anywhere = options.clone();
        anywhere.env.retain(|name, _| !name.ends_with("_DATABASE"));
        let mut server = Server::connect(dial, &anywhere).await?;
        let now: BTreeSet<String> = server.databases().await?.into_iter().collect();
        let known = |name: &String| self.databases.iter().any(|(known, _)| known == name);
        for name in now.iter().filter(|name| !known(name)) {
            server.run(&format!("DROP DATABASE {}", quoted(name))).await?;
        }
        for (_, definition) in self.databases.iter().filter(|(name, _)| !now.contains(name)) {
            server.run(definition).await?;
        }
        let present = server.tables().await?;
        for (database, name) in &present {
            if !self.tables.iter().any(|table| (&table.database, &table.name) == (database, name)) {
                server.run(&format!("DROP TABLE {}.{}", quoted(database), quoted(name))).await?;
            }
        }
        for (number, table) in self.tables.iter().enumerate() {
            let of = (&table.database, &table.name);
            if present.iter().any(|(database, name)| (database, name) == of) && server.still_has(table).await
            {
                continue;
            }
            for statement in table.restoring(number) {
                server.run(&statement).await?;
            }
        }
        server.0.quit().await;
        Ok(())
    }
}

/// What moves while the server has something to write.
const MOVING: &str = "SHOW GLOBAL STATUS WHERE variable_name IN ('Innodb_buffer_pool_pages_dirty', \
     'Innodb_lsn_current', 'Innodb_redo_log_current_lsn', 'Innodb_history_list_length')";
/// How often in a row nothing may have moved, and the pause between looks.
const STILL: usize = 3;
const LOOK: Duration = Duration::from_millis(7);

/// Has the server write its dirty pages and its log, until nothing more comes.
pub async fn settle(dial: Arc<dyn Dial>, options: &InterfaceOptions) -> Result<(), String> {
    let mut server = Server::connect(dial, options).await?;
    let checkpoint = "SET GLOBAL innodb_log_checkpoint_now = 1";
    let at_once = server.run(checkpoint).await.is_ok();
    if !at_once {
        // Servers without it write as soon as no page may be dirty, in rounds of a second.
        for name in ["innodb_max_dirty_pages_pct_lwm", "innodb_max_dirty_pages_pct"] {
            server.run(&format!("SET GLOBAL {name} = 0")).await?;
        }
    }
    let (mut still, mut before) = (0, Vec::new());
    loop {
        let now = server.rows(MOVING).await?;
        let dirty = now.iter().any(|row| {
            row.first().is_some_and(|name| name.ends_with("pages_dirty"))
                && row.last().is_some_and(|n| n != "0")
        });
        if dirty && at_once {
            server.run(checkpoint).await?;
        }
        still = if !dirty && now == before { still + 1 } else { 0 };
        if still == STILL {
            break;
        }
        before = now;
        tokio::time::sleep(LOOK).await;
    }
    server.0.quit().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_with_its_rows() {
        let table = |empty| Table {
            database: "a`b".to_owned(),
            name: "orders".to_owned(),
            definition: "CREATE TABLE `orders` (`id` int) AUTO_INCREMENT=7".to_owned(),
            columns: vec!["id".to_owned(), "k".to_owned()],
            empty,
            checksum: "1".to_owned(),
        };
        let statements = table(false).restoring(3);
        assert_eq!(
            statements,
            [
                "USE `a``b`",
                "DROP TABLE IF EXISTS `a``b`.`orders`",
                "CREATE TABLE `orders` (`id` int) AUTO_INCREMENT=7",
                "INSERT INTO `a``b`.`orders` (`id`, `k`) SELECT `id`, `k` FROM `_faultbox`.`t3`",
            ]
        );
        assert_eq!(table(true).restoring(3).len(), 3);
    }
}

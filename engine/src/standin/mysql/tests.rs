//! Tests with a real client: what ordinary clients and ORMs send.

use crate::protocol::mysql::tests::{pool, standin};
use mysql_async::prelude::*;
use mysql_async::{Conn, Error, Value};
use std::net::SocketAddr;

async fn connect(address: SocketAddr) -> Conn {
    Conn::from_url(format!("mysql://root:test@{address}/appdb")).await.expect("connect")
}

fn cell(value: &Value) -> String {
    match value {
        Value::NULL => "NULL".to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_sql(false).trim_matches('\'').to_owned(),
    }
}

/// Rows as text, counts, or the error's number.
async fn ask(conn: &mut Conn, sql: &str) -> String {
    let rows: Result<Vec<mysql_async::Row>, Error> = conn.query(sql).await;
    match rows {
        Ok(rows) if rows.is_empty() => format!("{} affected", conn.affected_rows()),
        Ok(rows) => {
            let row = |row: mysql_async::Row| row.unwrap().iter().map(cell).collect::<Vec<_>>().join("|");
            rows.into_iter().map(row).collect::<Vec<_>>().join("; ")
        }
        Err(Error::Server(e)) => format!("{}/{} {}", e.code, e.state, e.message),
        Err(other) => other.to_string(),
    }
}

async fn check(conn: &mut Conn, pairs: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, want) in pairs {
        let got = ask(conn, sql).await;
        let fine = match want.strip_suffix('*') {
            Some(start) => got.starts_with(start),
            None => got == *want,
        };
        if !fine {
            wrong.push(format!("{sql}\n   want {want}\n   got  {got}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

const USERS: &str = "CREATE TABLE users (
    id INT UNSIGNED NOT NULL AUTO_INCREMENT COMMENT 'the id', name VARCHAR(10) CHARACTER SET utf8mb4 NOT NULL,
    kind ENUM('a','b') NOT NULL DEFAULT 'a', balance DECIMAL(10,2) NOT NULL DEFAULT 0.00, active TINYINT(1) DEFAULT TRUE,
    meta JSON, made DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, changed TIMESTAMP(3) NULL ON UPDATE CURRENT_TIMESTAMP(3),
    born DATE, PRIMARY KEY (id), UNIQUE KEY name_key (name), INDEX kind_key (kind, balance)
) ENGINE=InnoDB AUTO_INCREMENT=10 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='people'";

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_change_things() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let mut conn = connect(address).await;
    check(
        &mut conn,
        &[
            (USERS, "0 affected"),
            (USERS, "1050/42S01*"),
            ("INSERT INTO users (name, balance, meta) VALUES ('ann', 1.005, '{\"bb\":1,\"a\":[1,2]}'), ('Bob', '20', NULL)", "2 affected"),
            ("SELECT LAST_INSERT_ID(), @@autocommit", "10|1"),
            ("SELECT id, name, kind, balance, active, meta FROM users ORDER BY id", "10|ann|a|1.01|1|{\"a\": [1, 2], \"bb\": 1}; 11|Bob|a|20.00|1|NULL"),
            ("SELECT count(*) FROM users WHERE made > '2020-01-01' AND changed IS NULL", "2"),
            ("INSERT INTO users (name) VALUES ('BOB')", "1062/23000 Duplicate entry 'BOB' for key 'users.name_key'"),
            ("INSERT IGNORE INTO users (name) VALUES ('BOB')", "0 affected"),
            ("INSERT INTO users (id, name) VALUES (11, 'x')", "1062/23000 Duplicate entry '11' for key 'users.PRIMARY'"),
            ("INSERT INTO users (name) VALUES (NULL)", "1048/23000 Column 'name' cannot be null"),
            ("INSERT INTO users (balance) VALUES (1)", "1364/HY000 Field 'name' doesn't have a default value"),
            ("INSERT INTO users (name) VALUES ('12345678901')", "1406/22001 Data too long for column 'name' at row 1"),
            ("INSERT INTO users (name, kind) VALUES ('z', 'c')", "1265/01000*"),
            ("INSERT INTO users (name, made) VALUES ('z', 'never')", "1292/22007*"),
            ("INSERT INTO users (name, active) VALUES ('z', 1000)", "1264/22003*"),
            ("INSERT INTO users (name, balance) VALUES ('z', 'much')", "1366/HY000*"),
            ("INSERT INTO users (nme) VALUES ('z')", "1054/42S22 Unknown column 'nme' in 'field list'"),
            ("INSERT INTO users (name, kind) VALUES ('z')", "1136/21S01*"),
            ("INSERT INTO users (name, balance) VALUES ('ann', 5) ON DUPLICATE KEY UPDATE balance = balance + VALUES(balance)", "2 affected"),
            ("INSERT INTO users (name, balance) VALUES ('ann', 5) AS new ON DUPLICATE KEY UPDATE balance = new.balance", "2 affected"),
            ("INSERT INTO users (name, balance) VALUES ('ann', 5) ON DUPLICATE KEY UPDATE balance = 5", "0 affected"),
            ("SELECT balance, changed IS NOT NULL FROM users WHERE name = 'ANN'", "5.00|1"),
            ("UPDATE users SET balance = balance * 2, name = CONCAT(name, '!') WHERE id IN (10, 11)", "2 affected"),
            ("UPDATE users SET balance = 10 WHERE name LIKE 'ann_'", "0 affected"),
            ("SELECT name, balance FROM users ORDER BY balance DESC LIMIT 1, 1", "ann!|10.00"),
            ("REPLACE INTO users (id, name) VALUES (10, 'carl')", "2 affected"),
            ("INSERT INTO users SET name = 'dora', born = '2000-02-29'", "1 affected"),
            ("DELETE FROM users ORDER BY id LIMIT 1", "1 affected"),
            ("SELECT name, born FROM users ORDER BY id", "Bob!|NULL; dora|2000-02-29"),
            ("INSERT INTO users (name, balance) SELECT CONCAT(name, '2'), balance FROM users WHERE name = 'dora'", "1 affected"),
            ("SELECT * FROM nowhere", "1146/42S02 Table 'appdb.nowhere' doesn't exist"),
            ("SELECT nothing FROM users", "1054/42S22*"),
            ("SELEC 1", "1235/42000*"),
            ("SELECT FROM WHERE", "1064/42000*"),
            ("CREATE VIEW v AS SELECT 1", "1235/42000 not supported by the Faultbox stand-in: *"),
            (
                "SELECT 1 FROM t FOR UPDATE SKIP LOCKED",
                "1235/42000 not supported by the Faultbox stand-in: SKIP LOCKED",
            ),
            ("SELECT SOUNDEX('x')", "1235/42000 not supported by the Faultbox stand-in: the function SOUNDEX"),
            ("TRUNCATE TABLE users", "0 affected"),
            ("INSERT INTO users (name) VALUES ('first')", "1 affected"),
            ("SELECT id FROM users", "1"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let mut conn = connect(address).await;
    check(
        &mut conn,
        &[
            ("CREATE TABLE a (id INT PRIMARY KEY, d DATETIME(6), n DECIMAL(8,3), t TEXT, u BIGINT UNSIGNED)", "0 affected"),
            ("CREATE TABLE b (id INT PRIMARY KEY, a_id INT, FOREIGN KEY (a_id) REFERENCES a (id) ON DELETE CASCADE, KEY (a_id))", "0 affected"),
            ("INSERT INTO a VALUES (1, '2024-03-01 10:00:00', 1.5, 'x', 1), (2, '2024-03-02T11:00:00.5Z', 2.25, NULL, 2), (3, NULL, NULL, '', 3)", "3 affected"),
            ("INSERT INTO b VALUES (1, 1), (2, 1), (3, 2)", "3 affected"),
            ("INSERT INTO b VALUES (4, 9)", "1452/23000*"),
            ("SELECT a.id, count(b.id) AS n FROM a LEFT JOIN b ON b.a_id = a.id GROUP BY a.id HAVING n > 0 ORDER BY n DESC", "1|2; 2|1"),
            ("SELECT id FROM a WHERE d = '2024-03-01 10:00:00'", "1"),
            ("SELECT id FROM a WHERE d BETWEEN '2024-03-02' AND '2024-03-03'", "2"),
            ("SELECT sum(n), avg(n), max(d), min(t), count(DISTINCT t) FROM a", "3.750|1.8750000|2024-03-02 11:00:00.500000||2"),
            ("SELECT IFNULL(t, 'none'), IF(n > 2, 'big', 'small'), CASE id WHEN 1 THEN 'one' ELSE 'more' END FROM a ORDER BY id", "x|small|one; none|big|more; |small|more"),
            ("SELECT 7 / 2, 7 DIV 2, 7 % 4, MOD(-7, 4)", "3.5000|3|3|-3"),
            ("SELECT CONCAT('a', NULL), CONCAT_WS(',', 'a', NULL, 'b'), UPPER('ab'), LENGTH('h\u{e9}'), CHAR_LENGTH('h\u{e9}')", "NULL|a,b|AB|3|2"),
            ("SELECT DATE_ADD('2024-01-31', INTERVAL 1 MONTH), DATE_FORMAT('2024-03-01 08:05:00', '%Y/%m/%d %H:%i'), DATEDIFF('2024-03-01', '2024-02-01'), TIMESTAMPDIFF(HOUR, '2024-03-01', '2024-03-02')", "2024-02-29|2024/03/01 08:05|29|24"),
            ("SELECT id FROM a WHERE d > NOW() - INTERVAL 1 DAY", "0 affected"),
            ("SELECT a.* FROM a JOIN (SELECT max(id) AS m FROM a) AS q ON q.m = a.id", "3|NULL|NULL||3"),
            ("SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.a_id = a.id) UNION ALL SELECT 99 ORDER BY 1 DESC", "99; 2; 1"),
            ("WITH w AS (SELECT id FROM a WHERE id > 1) SELECT count(*) FROM w", "2"),
            ("SELECT x.id, y.id FROM b x JOIN b y USING (a_id) WHERE x.id < y.id", "1|2"),
            ("SELECT id FROM a ORDER BY t IS NULL, id DESC LIMIT 2 OFFSET 1", "1; 2"),
            ("SELECT JSON_EXTRACT('{\"a\":5}', '$.a'), 'a''b' 'c', \"dq\", 0x41, TRUE", "5|a'bc|dq|A|1"),
            ("DELETE FROM a WHERE id = 1", "1 affected"),
            ("SELECT count(*) FROM b", "1"),
            ("SELECT VERSION()", "8.0.32*"),
            ("SELECT DATABASE(), USER()", "appdb|root@%"),
            ("SHOW VARIABLES LIKE 'max_allowed%'", "max_allowed_packet|67108864"),
            ("SHOW TABLES", "a; b"),
            ("SHOW FULL TABLES LIKE 'a'", "a|BASE TABLE"),
            ("DESCRIBE b", "id|int|NO|PRI|NULL|; a_id|int|YES|MUL|NULL|"),
            ("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'A'", "a"),
            ("SELECT column_name, data_type, column_key FROM information_schema.columns WHERE table_schema = 'appdb' AND table_name = 'b' ORDER BY ordinal_position", "id|int|PRI; a_id|int|MUL"),
            ("SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci", "0 affected"),
            ("SET SESSION sql_mode = 'ANSI', time_zone = '+00:00'", "0 affected"),
            ("SELECT @@sql_mode", "ANSI"),
            ("SET nonsense = 1", "1193/HY000*"),
            ("/*!40101 SET @saved = 5 */", "0 affected"),
            ("SELECT @saved + 1", "6"),
            ("ALTER TABLE a ADD COLUMN extra INT NOT NULL DEFAULT 4 AFTER id, ADD INDEX (extra), DROP COLUMN u", "0 affected"),
            ("SELECT * FROM a ORDER BY id", "2|4|2024-03-02 11:00:00.500000|2.250|NULL; 3|4|NULL|NULL|"),
            ("ALTER TABLE a RENAME COLUMN extra TO more, MODIFY t VARCHAR(5) NULL", "0 affected"),
            ("CREATE UNIQUE INDEX a_t ON a (t)", "0 affected"),
            ("INSERT INTO a (id, t) VALUES (9, '')", "1062/23000 Duplicate entry '' for key 'a.a_t'"),
            ("DROP INDEX a_t ON a", "0 affected"),
            ("RENAME TABLE a TO c", "0 affected"),
            ("SELECT count(*) FROM c", "2"),
            ("DROP TABLE IF EXISTS b, nowhere", "0 affected"),
            ("DROP TABLE nowhere", "1051/42S02*"),
            ("CREATE DATABASE other", "0 affected"),
            ("CREATE TABLE other.t (id INT)", "0 affected"),
            ("USE other", "0 affected"),
            ("SELECT count(*) FROM t", "0"),
            ("USE third", "1049/42000*"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let (mut one, mut two) = (connect(address).await, connect(address).await);
    check(
        &mut one,
        &[
            ("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "0 affected"),
            ("BEGIN", "0 affected"),
            ("INSERT INTO t VALUES (1, 1)", "1 affected"),
            ("SAVEPOINT s1", "0 affected"),
            ("INSERT INTO t VALUES (2, 2)", "1 affected"),
            ("INSERT INTO t VALUES (3, 3), (1, 9)", "1062/23000*"),
            ("ROLLBACK TO SAVEPOINT s1", "0 affected"),
            ("SELECT count(*) FROM t", "1"),
        ],
    )
    .await;
    // The other neither sees nor waits; writing, it waits for the lock and gives up.
    check(
        &mut two,
        &[
            ("SELECT count(*) FROM t", "0"),
            ("SET innodb_lock_wait_timeout = 0", "0 affected"),
            ("INSERT INTO t VALUES (5, 5)", "1205/HY000*"),
        ],
    )
    .await;
    check(&mut one, &[("COMMIT", "0 affected")]).await;
    check(
        &mut two,
        &[
            ("SELECT count(*) FROM t", "1"),
            ("SET autocommit = 0", "0 affected"),
            ("UPDATE t SET v = 7", "1 affected"),
            ("ROLLBACK", "0 affected"),
            ("SELECT v FROM t", "1"),
        ],
    )
    .await;
    check(&mut one, &[("START TRANSACTION", "0 affected"), ("SELECT v FROM t WHERE id = 1 FOR UPDATE", "1")])
        .await;
    check(&mut two, &[("UPDATE t SET v = 8", "1205/HY000*")]).await;
    // A client that goes away leaves nothing behind.
    drop(one);
    let mut three = connect(address).await;
    check(&mut three, &[("UPDATE t SET v = 8", "1 affected"), ("SELECT v FROM t", "8")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_and_types() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let pool = pool(address);
    let mut conn = pool.get_conn().await.expect("connect");
    conn.query_drop("CREATE TABLE t (id BIGINT PRIMARY KEY AUTO_INCREMENT, f FLOAT, d DATE, tm TIME(3), b BLOB, y BOOL, s VARCHAR(9))").await.expect("create");
    let insert =
        conn.prep("INSERT INTO t (f, d, tm, b, y, s) VALUES (?, ?, ?, ?, ?, ?)").await.expect("prepare");
    for n in 0..3u8 {
        let time = Value::Time(false, 0, 25, 1, n, 250_000);
        let day = Value::Date(2024, 1, n, 0, 0, 0, 0);
        let day = if n == 0 { Value::NULL } else { day };
        let params = (0.1f32, day, time, vec![n, 255], n == 1, "\u{e9}");
        conn.exec_drop(&insert, params).await.expect("insert");
        assert_eq!(conn.last_insert_id(), Some(u64::from(n) + 1));
    }
    let rows: Vec<mysql_async::Row> = conn
        .exec("SELECT id, f, d, tm, b, y, s FROM t WHERE id >= ? AND d = ?", (1, "2024-01-02"))
        .await
        .expect("select");
    let cells: Vec<Value> = rows.into_iter().next().expect("a row").unwrap();
    let want = vec![
        Value::Int(3),
        Value::Float(0.1),
        Value::Date(2024, 1, 2, 0, 0, 0, 0),
        Value::Time(false, 1, 1, 1, 2, 250_000),
        Value::Bytes(vec![2, 255]),
        Value::Int(0),
        Value::Bytes("\u{e9}".into()),
    ];
    assert_eq!(cells, want);
    let count: Option<i64> = conn
        .exec_first("SELECT count(*) FROM t WHERE b = ? LIMIT ?", (vec![1u8, 255], 5))
        .await
        .expect("count");
    assert_eq!(count, Some(1));
    let missing = conn.prep("SELECT * FROM nowhere WHERE id = ?").await;
    assert!(matches!(missing, Err(Error::Server(e)) if e.code == 1146));
    drop(conn);
    pool.disconnect().await.expect("disconnect");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_restore() {
    let data = tempfile::tempdir().expect("tempdir");
    let (server, address) = standin(data.path()).await;
    let mut conn = connect(address).await;
    check(
        &mut conn,
        &[
            ("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)", "0 affected"),
            ("INSERT INTO t (v) VALUES (1), (2)", "2 affected"),
        ],
    )
    .await;
    server.snapshot().expect("snapshot");
    check(
        &mut conn,
        &[("INSERT INTO t (v) VALUES (3)", "1 affected"), ("CREATE TABLE u (id INT)", "0 affected")],
    )
    .await;
    for _ in 0..2 {
        server.restore().expect("restore");
        // A connection of before sees the state of now.
        check(
            &mut conn,
            &[
                ("SELECT count(*) FROM t", "2"),
                ("SELECT * FROM u", "1146*"),
                ("INSERT INTO t (v) VALUES (9)", "1 affected"),
                ("SELECT max(id) FROM t", "3"),
            ],
        )
        .await;
    }
    drop(conn);
    drop(server);
    // A new process finds what was committed.
    let (_server, address) = standin(data.path()).await;
    check(&mut connect(address).await, &[("SELECT max(v) FROM t", "9")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_snapshot_restore_empties() {
    let data = tempfile::tempdir().expect("tempdir");
    let (server, address) = standin(data.path()).await;
    let mut conn = connect(address).await;
    check(&mut conn, &[("CREATE TABLE t (id INT)", "0 affected")]).await;
    server.restore().expect("restore");
    check(&mut conn, &[("SELECT * FROM t", "1146*"), ("CREATE TABLE t (id INT)", "0 affected")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_orms_ask_of_the_catalog() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let mut conn = connect(address).await;
    check(
        &mut conn,
        &[
            ("CREATE TABLE Owners (id INT PRIMARY KEY, name CHAR(4) COMMENT 'who') COMMENT='people'", "0 affected"),
            (
                "CREATE TABLE things (id BIGINT AUTO_INCREMENT PRIMARY KEY, owner INT NULL, flag BOOL NOT NULL DEFAULT 0, bits BIT(9) DEFAULT b'1', \
                 n INT UNSIGNED CHECK (n < 10), at TIMESTAMP(3) NULL DEFAULT NOW(3) ON UPDATE NOW(3), raw BINARY(3), note TEXT, \
                 CONSTRAINT own FOREIGN KEY (owner) REFERENCES Owners (id) ON DELETE SET NULL)",
                "0 affected",
            ),
            (
                "SHOW CREATE TABLE `appdb`.`things`",
                "things|CREATE TABLE `things` (\n  `id` bigint NOT NULL AUTO_INCREMENT,\n  `owner` int DEFAULT NULL,\n  `flag` tinyint(1) NOT NULL DEFAULT '0',\n  \
                 `bits` bit(9) DEFAULT b'1',\n  `n` int unsigned DEFAULT NULL,\n  \
                 `at` timestamp(3) NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),\n  `raw` binary(3) DEFAULT NULL,\n  `note` text,\n  \
                 PRIMARY KEY (`id`),\n  KEY `own` (`owner`),\n  \
                 CONSTRAINT `own` FOREIGN KEY (`owner`) REFERENCES `Owners` (`id`) ON DELETE SET NULL,\n  CONSTRAINT `things_chk_1` CHECK ((n < 10))\n\
                 ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci",
            ),
            ("SHOW FULL COLUMNS FROM `Owners` FROM `appdb` LIKE 'na%'", "name|char(4)|utf8mb4_0900_ai_ci|YES||NULL||select,insert,update,references|who"),
            ("SHOW KEYS FROM things WHERE Key_name = 'own' AND Non_unique = 1", "things|1|own|1|owner|A|0|NULL|NULL|YES|BTREE|||YES|NULL"),
            ("SHOW FULL TABLES WHERE Table_type = 'VIEW'", "0 affected"),
            ("SHOW TABLES FROM nowhere", "1049/42000*"),
            ("SHOW PROCEDURE STATUS", "0 affected"),
            ("SHOW MASTER STATUS", "1235/42000*"),
            (
                "SELECT k.column_name, k.referenced_table_name, r.delete_rule FROM information_schema.key_column_usage k \
                 JOIN information_schema.referential_constraints r ON r.constraint_name = k.constraint_name \
                 WHERE k.table_schema = 'appdb' AND k.table_name = 'things'",
                "owner|Owners|SET NULL",
            ),
            ("SELECT count(*) FROM information_schema.views", "0"),
            ("SELECT word FROM information_schema.keywords WHERE reserved = 1 ORDER BY word LIMIT 1", "ACCESSIBLE"),
            ("SELECT column_type, extra, datetime_precision FROM information_schema.columns WHERE column_name = 'at'", "timestamp(3)|DEFAULT_GENERATED on update CURRENT_TIMESTAMP(3)|3"),
            ("INSERT INTO things (n) VALUES (10)", "3819/HY000 Check constraint 'things_chk_1' is violated."),
            ("INSERT INTO Owners VALUES (1, 'ann  ')", "1 affected"),
            ("INSERT INTO things (n, owner, flag, bits, raw) VALUES (9, 1, TRUE, b'101', 'a')", "1 affected"),
            ("SELECT flag, HEX(bits), bits + 0, HEX(raw), LENGTH(name) FROM things JOIN Owners ON owner = Owners.id", "1|*"),
            ("ALTER TABLE things RENAME COLUMN n TO m", "3959/HY000*"),
            ("ALTER TABLE things DROP CHECK things_chk_1", "0 affected"),
            ("ALTER TABLE things ADD CONSTRAINT positive CHECK (n > 0), ADD CHECK (n < 99)", "0 affected"),
            ("INSERT INTO things (n) VALUES (0)", "3819/HY000 Check constraint 'positive' is violated."),
            ("ALTER TABLE things DROP INDEX own", "1553/HY000*"),
            ("ALTER TABLE things DROP FOREIGN KEY own", "0 affected"),
            ("ALTER TABLE things DROP INDEX own", "0 affected"),
            // The index that a foreign key brought along goes when another serves it.
            ("CREATE TABLE paid (id INT PRIMARY KEY, owner INT, total INT, FOREIGN KEY (owner) REFERENCES Owners (id))", "0 affected"),
            ("CREATE INDEX by_owner ON paid (owner, total)", "0 affected"),
            ("SELECT index_name, column_name FROM information_schema.statistics WHERE table_name = 'paid' AND column_name = 'owner'", "by_owner|owner"),
            ("SELECT table_name AS t, table_type AS kind FROM information_schema.tables WHERE table_schema = 'appdb' HAVING kind IN ('BASE TABLE') AND t = 'paid'", "paid|BASE TABLE"),
            ("SELECT CONVERT_TZ('2001-01-01 01:00:00', 'UTC', '+02:00'), CONVERT_TZ('2001-01-01', 'Mars', 'UTC')", "2001-01-01 03:00:00|NULL"),
            ("/* a driver signs */ SELECT @@session.sql_auto_is_null AS x, @@transaction_isolation", "0|REPEATABLE-READ"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_means_something_where_it_is_said() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let mut conn = connect(address).await;
    check(
        &mut conn,
        &[
            ("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(20), mail VARCHAR(20), code VARCHAR(9) COLLATE utf8mb4_bin, raw VARBINARY(9))", "0 affected"),
            ("INSERT INTO t VALUES (1, 'u1', '', 'Ab', 'Ab'), (2, 'U2', '', 'ab', 'ab'), (3, 'ann', 'ann@x', '\u{c4}', NULL)", "3 affected"),
            // `BINARY` takes one operand, not the rest of the condition.
            ("SELECT id FROM t WHERE (name LIKE BINARY 'u%' OR mail LIKE '%ANN@%') ORDER BY id", "1; 3"),
            ("SELECT id FROM t WHERE name LIKE 'u%' ORDER BY id", "1; 2"),
            ("SELECT id FROM t WHERE name NOT LIKE 'u%'", "3"),
            ("SELECT id FROM t WHERE name LIKE 'u%' COLLATE utf8mb4_bin", "1"),
            ("SELECT id FROM t WHERE code LIKE 'a%'", "2"),
            ("SELECT id FROM t WHERE code LIKE 'A_' COLLATE utf8mb4_0900_ai_ci ORDER BY id", "1; 2"),
            ("SELECT id FROM t WHERE code LIKE '\u{e4}'", "0 affected"),
            ("SELECT id FROM t WHERE UPPER(mail) LIKE 'ANN@_' AND CONCAT(name, '\u{e4}') LIKE 'ANN\u{c4}'", "3"),
            ("SELECT id FROM t WHERE raw LIKE 'a%'", "2"),
            ("SELECT id FROM t WHERE name = BINARY 'U2' OR BINARY name = 'u1' ORDER BY id", "1; 2"),
            ("SELECT id FROM t WHERE name = BINARY 'u2'", "0 affected"),
            ("SELECT id FROM t WHERE name REGEXP BINARY '^u' OR name REGEXP '^ANN$' ORDER BY id", "1; 3"),
            ("SELECT id FROM t WHERE REGEXP_LIKE(name, '^u', 'c')", "1"),
            ("SELECT 'a' = 'A', LOWER('A') = 'A', 'a' = BINARY 'A', 'a' LIKE 'A'", "1|1|0|1"),
            ("SELECT id FROM t WHERE id = 1 || id = 2", "1; 2"),
            // HAVING means the list's column, not the table's of that name.
            ("SELECT id, CONCAT('x', name) AS name FROM t HAVING name = 'xu1'", "1|xu1"),
            ("CREATE TABLE b (name VARCHAR(9)) COLLATE=utf8mb4_bin", "0 affected"),
            ("INSERT INTO b VALUES ('Ab')", "1 affected"),
            ("SELECT name FROM b WHERE name = 'ab'", "0 affected"),
        ],
    )
    .await;
    let sql = "SELECT id FROM t WHERE name LIKE BINARY ? AND id IN (?, ?)";
    let found: Vec<i64> = conn.exec(sql, ("u%", 2, 1)).await.expect("rows");
    assert_eq!(found, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_how_its_transactions_are() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let mut conn = connect(address).await;
    check(
        &mut conn,
        &[
            ("CREATE TABLE t (id INT PRIMARY KEY)", "0 affected"),
            ("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "0 affected"),
            ("SELECT @@session.transaction_isolation", "READ-COMMITTED"),
            ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "0 affected"),
            ("SELECT @@transaction_isolation", "READ-COMMITTED"),
            ("SET SESSION TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ", "0 affected"),
            ("SELECT @@transaction_isolation, @@transaction_read_only", "REPEATABLE-READ|1"),
            ("INSERT INTO t VALUES (1)", "1792/25006*"),
            ("START TRANSACTION READ WRITE", "0 affected"),
            ("INSERT INTO t VALUES (1)", "1 affected"),
            ("SET TRANSACTION READ ONLY", "1568/25001*"),
            ("COMMIT", "0 affected"),
            ("SET SESSION TRANSACTION READ WRITE", "0 affected"),
            ("START TRANSACTION READ ONLY", "0 affected"),
            ("DELETE FROM t", "1792/25006*"),
            ("SELECT id FROM t", "1"),
            ("ROLLBACK", "0 affected"),
            ("SET NAMES latin1", "0 affected"),
            ("SELECT @@character_set_client", "latin1"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_found_rows_gets_those_that_match() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let url = format!("mysql://root:test@{address}/appdb?client_found_rows=true");
    let (mut found, mut changed) = (Conn::from_url(url).await.expect("connect"), connect(address).await);
    let made = [
        ("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "0 affected"),
        ("INSERT INTO t VALUES (1, 1), (2, 2)", "2 affected"),
    ];
    check(&mut found, &made).await;
    let same = "UPDATE t SET v = 2 WHERE id IN (1, 2)";
    check(&mut found, &[(same, "2 affected"), (same, "2 affected")]).await;
    check(&mut changed, &[(same, "0 affected")]).await;
    let again = "INSERT INTO t VALUES (1, 2) ON DUPLICATE KEY UPDATE v = 2";
    check(&mut found, &[(again, "1 affected")]).await;
    check(&mut changed, &[(again, "0 affected")]).await;
}

const LIMIT: (&str, &str) = ("SET innodb_lock_wait_timeout = 1", "0 affected");

/// Hibernate takes ids from a table on a second connection, while the first one's transaction is open.
#[tokio::test(flavor = "multi_thread")]
async fn writers_of_other_tables_pass_one_that_idles() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let (mut one, mut two) = (connect(address).await, connect(address).await);
    let mut three = connect(address).await;
    check(
        &mut one,
        &[
            ("CREATE TABLE seq (next INT)", "0 affected"),
            (
                "CREATE TABLE parent (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(36), at DATETIME(6))",
                "0 affected",
            ),
            (
                "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id))",
                "0 affected",
            ),
            ("INSERT INTO seq VALUES (1)", "1 affected"),
            ("BEGIN", "0 affected"),
            ("INSERT INTO parent (v, at) VALUES (UUID(), NOW(6))", "1 affected"),
            ("SAVEPOINT a", "0 affected"),
            ("INSERT INTO child VALUES (1, 1)", "1 affected"),
        ],
    )
    .await;
    let before = ask(&mut one, "SELECT v, at FROM parent").await;
    check(
        &mut two,
        &[
            LIMIT,
            ("BEGIN", "0 affected"),
            ("SELECT next FROM seq FOR UPDATE", "1"),
            ("UPDATE seq SET next = next + 1", "1 affected"),
            ("SELECT count(*) FROM parent", "0"),
        ],
    )
    .await;
    // Each sees its own; what the one has written is what it was.
    assert_eq!(ask(&mut one, "SELECT v, at FROM parent").await, before);
    check(
        &mut one,
        &[
            ("SELECT next FROM seq", "1"),
            ("ROLLBACK TO SAVEPOINT a", "0 affected"),
            ("SELECT count(*) FROM child", "0"),
        ],
    )
    .await;
    check(&mut two, &[("COMMIT", "0 affected"), ("SELECT next FROM seq", "2")]).await;
    // Tables that a foreign key ties to a held one are held.
    check(
        &mut three,
        &[
            LIMIT,
            ("INSERT INTO child VALUES (2, NULL)", "1205/HY000*"),
            ("CREATE TABLE x (id INT)", "1205/HY000*"),
        ],
    )
    .await;
    check(&mut one, &[("COMMIT", "0 affected")]).await;
    assert_eq!(ask(&mut three, "SELECT v, at FROM parent").await, before);
    check(
        &mut three,
        &[("INSERT INTO child VALUES (2, 1)", "1 affected"), ("SELECT count(*) FROM child", "1")],
    )
    .await;
}

/// Two tables, and two connections of which the first has written to `a` and not committed.
async fn one_writes(address: SocketAddr) -> (Conn, Conn) {
    let (mut one, two) = (connect(address).await, connect(address).await);
    check(
        &mut one,
        &[
            ("CREATE TABLE a (id INT)", "0 affected"),
            ("CREATE TABLE b (id INT)", "0 affected"),
            ("BEGIN", "0 affected"),
            ("INSERT INTO a VALUES (1)", "1 affected"),
        ],
    )
    .await;
    (one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_wait_for_each_other_are_told() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let (mut one, mut two) = one_writes(address).await;
    check(&mut two, &[("BEGIN", "0 affected"), ("INSERT INTO b VALUES (2)", "1 affected")]).await;
    // The loser's transaction is over at once, and lets the other go on.
    let (first, second) =
        tokio::join!(ask(&mut one, "INSERT INTO b VALUES (1)"), ask(&mut two, "INSERT INTO a VALUES (2)"));
    let told = |answer: &String| answer.starts_with("1213/40001");
    assert!(told(&first) != told(&second), "{first} / {second}");
    let (winner, loser) = if told(&second) { (&mut one, &mut two) } else { (&mut two, &mut one) };
    check(winner, &[("COMMIT", "0 affected")]).await;
    check(loser, &[("SELECT count(*) FROM a", "1"), ("SELECT count(*) FROM b", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_parked_may_go_away() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let (one, mut two) = one_writes(address).await;
    check(&mut two, &[("INSERT INTO b VALUES (2)", "1 affected")]).await;
    drop(one);
    check(&mut two, &[("INSERT INTO a VALUES (2)", "1 affected"), ("SELECT id FROM a", "2")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_migrate_lock_by_name() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let (mut one, mut two) = (connect(address).await, connect(address).await);
    check(&mut one, &[("SELECT GET_LOCK('Migrate', 10)", "1"), ("SELECT GET_LOCK('migrate', -1)", "1")])
        .await;
    let other = [
        ("SELECT GET_LOCK('migrate', 0) AS l", "0"),
        ("SELECT IS_FREE_LOCK('migrate'), IS_FREE_LOCK('x')", "0|1"),
        ("SELECT RELEASE_LOCK('migrate'), RELEASE_LOCK('x')", "0|NULL"),
    ];
    check(&mut two, &other).await;
    check(&mut one, &[("SELECT RELEASE_LOCK('migrate')", "1")]).await;
    check(&mut two, &other[..1]).await;
    // Its session's end frees it.
    drop(one);
    let got: Option<i64> = two.exec_first("SELECT GET_LOCK(?, ?)", ("migrate", 30)).await.expect("lock");
    assert_eq!(got, Some(1));
    check(&mut two, &[("SELECT RELEASE_ALL_LOCKS()", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_is_refused_by_name() {
    let data = tempfile::tempdir().expect("tempdir");
    let (_server, address) = standin(data.path()).await;
    let mut conn = connect(address).await;
    check(
        &mut conn,
        &[("CREATE TABLE t (id INT PRIMARY KEY, KEY k (id))", "0 affected"), ("SELECT !1, !0 + 1", "0|2")],
    )
    .await;
    for (sql, what) in [
        ("SELECT 1 FROM mysql.user", "the table mysql.user"),
        ("SELECT 1 FROM performance_schema.threads", "the table performance_schema.threads"),
        ("SELECT 1 FROM information_schema.innodb_trx", "information_schema.innodb_trx"),
        ("ALTER TABLE t RENAME INDEX k TO l", "ALTER TABLE ... RENAME INDEX"),
        ("SELECT ROW_NUMBER() OVER (ORDER BY id) FROM t", "window functions"),
        ("SHOW GRANTS", "SHOW GRANTS"),
        ("CALL x()", "CALL"),
    ] {
        let want = format!("1235/42000 not supported by the Faultbox stand-in: {what}");
        assert_eq!(ask(&mut conn, sql).await, want);
    }
}

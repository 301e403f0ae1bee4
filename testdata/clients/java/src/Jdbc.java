import static java.util.stream.Collectors.toList;

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Driver;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;

/** MySQL Connector/J: plain JDBC and a HikariCP pool. */
class Jdbc {
    static final String URL = "jdbc:mysql://" + System.getenv("DB") + "/appdb";

    static Connection connect(Driver driver, String options) throws SQLException {
        Properties properties = new Properties();
        properties.put("user", "root");
        properties.put("password", "test");
        return driver.connect(URL + "?allowPublicKeyRetrieval=true&sslMode=DISABLED" + options, properties);
    }

    static void run(String name, ClassLoader loader, String prefix) throws Exception {
        Driver driver = (Driver) loader.loadClass(name).getDeclaredConstructor().newInstance();
        List<String> options = List.of(
            "", "&useServerPrepStmts=true&cachePrepStmts=true", "&rewriteBatchedStatements=true",
            "&useServerPrepStmts=true&rewriteBatchedStatements=true", "&useInformationSchema=true");
        for (int i = 0; i < options.size(); i++) {
            try (Connection db = connect(driver, options.get(i))) {
                drive(db, prefix + "_" + i);
            } catch (Throwable e) {
                throw new RuntimeException("with " + options.get(i), e);
            }
        }
        try (Connection db = connect(driver, "&useCursorFetch=true"); PreparedStatement s = db.prepareStatement("SELECT id FROM " + prefix + "_0")) {
            s.setFetchSize(2);
            int n = 0;
            try (ResultSet r = s.executeQuery()) {
                while (r.next()) n++;
            }
            Serve.check(n > 2, n);
        } catch (SQLException e) { // the stand-in has no cursors, and says so
            Serve.check(e.getErrorCode() == 1235, e);
        }
    }

    static void drive(Connection db, String t) throws Exception {
        LocalDateTime at = LocalDateTime.of(2024, 5, 6, 7, 8, 9, 123456000);
        byte[] raw = {0, (byte) 255, 39, 92};
        try (Statement s = db.createStatement()) {
            s.executeUpdate("CREATE TABLE " + t + "_owners (id INT PRIMARY KEY, name VARCHAR(20) COMMENT 'who')");
            s.executeUpdate("CREATE TABLE " + t + " (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64) NOT NULL,"
                + " price DECIMAL(10,2), ratio DOUBLE, at DATETIME(6), day DATE, raw VARBINARY(16), doc JSON, flag TINYINT(1) NOT NULL DEFAULT 0,"
                + " bits BIT(1), code CHAR(3), note TEXT, owner INT, UNIQUE KEY by_name (name),"
                + " CONSTRAINT " + t + "_fk FOREIGN KEY (owner) REFERENCES " + t + "_owners (id) ON DELETE CASCADE)");
            s.executeUpdate("INSERT INTO " + t + "_owners VALUES (1, 'ann')");
        }
        String insert = "INSERT INTO " + t + " (name, price, ratio, at, day, raw, doc, flag, bits, code, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        try (PreparedStatement s = db.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            for (String name : List.of("one", "two", "drei ß 🦀")) {
                s.setString(1, name);
                s.setBigDecimal(2, new BigDecimal("12.50"));
                s.setDouble(3, 0.25);
                s.setObject(4, at);
                s.setObject(5, LocalDate.of(2024, 5, 6));
                s.setBytes(6, raw);
                s.setString(7, "{\"a\": 1}");
                s.setBoolean(8, true);
                s.setBoolean(9, true);
                s.setString(10, "abc");
                s.setInt(11, 1);
                s.addBatch();
            }
            int[] counts = s.executeBatch();
            Serve.check(Arrays.stream(counts).allMatch(n -> n == 1 || n == Statement.SUCCESS_NO_INFO), Arrays.toString(counts));
            List<Long> ids = new ArrayList<>();
            try (ResultSet keys = s.getGeneratedKeys()) {
                while (keys.next()) ids.add(keys.getLong(1));
            }
            Serve.equal(ids, List.of(1L, 2L, 3L));
        }
        try (PreparedStatement s = db.prepareStatement("SELECT * FROM " + t + " WHERE name = ? OR id = ? ORDER BY id")) {
            s.setString(1, "one");
            s.setLong(2, 3);
            try (ResultSet r = s.executeQuery()) {
                Serve.equal(r.getMetaData().getColumnType(2), Types.VARCHAR);
                Serve.equal(r.getMetaData().getColumnType(9), Types.BIT);
                Serve.equal(r.getMetaData().getColumnTypeName(3), "DECIMAL");
                Serve.equal(r.getMetaData().getColumnType(11), Types.CHAR);
                Serve.check(r.next(), "no row");
                Serve.equal(r.getLong("id"), 1L);
                Serve.equal(r.getBigDecimal("price"), new BigDecimal("12.50"));
                Serve.equal(r.getDouble("ratio"), 0.25);
                Serve.equal(r.getObject("at", LocalDateTime.class), at);
                Serve.equal(r.getTimestamp("at"), Timestamp.valueOf(at));
                Serve.equal(r.getObject("day", LocalDate.class), LocalDate.of(2024, 5, 6));
                Serve.check(Arrays.equals(r.getBytes("raw"), raw), Arrays.toString(r.getBytes("raw")));
                Serve.equal(r.getString("doc"), "{\"a\": 1}");
                Serve.equal(r.getObject("flag"), true);
                Serve.check(r.getBoolean("bits"), "bits");
                Serve.check(r.getString("note") == null && r.wasNull(), "note");
                Serve.check(r.next(), "no second row");
                Serve.equal(r.getString("name"), "drei ß 🦀");
            }
        }
        try (Statement s = db.createStatement()) {
            s.executeUpdate("INSERT INTO " + t + " (name) VALUES ('one')");
            throw new AssertionError("a duplicate was taken");
        } catch (SQLException e) {
            Serve.equal(e.getClass().getSimpleName(), "SQLIntegrityConstraintViolationException");
            Serve.equal(e.getErrorCode(), 1062);
        }
        db.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        Serve.equal(db.getTransactionIsolation(), Connection.TRANSACTION_READ_COMMITTED);
        db.setAutoCommit(false);
        try (Statement s = db.createStatement()) {
            Serve.equal(s.executeUpdate("UPDATE " + t + " SET price = price + 1 WHERE name LIKE '%o%'"), 2);
            var save = db.setSavepoint();
            s.executeUpdate("DELETE FROM " + t);
            db.rollback(save);
            db.rollback();
            db.setAutoCommit(true);
            try (ResultSet r = s.executeQuery("SELECT COUNT(*), SUM(price) FROM " + t)) {
                Serve.check(r.next() && r.getInt(1) == 3 && r.getBigDecimal(2).equals(new BigDecimal("37.50")), "sums");
            }
        }
        Serve.check(db.isValid(2), "valid");
        metadata(db, t);
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> all = new ArrayList<>();
        try (rows) {
            while (rows.next()) all.add(rows.getString(name));
        }
        return all;
    }

    static void metadata(Connection db, String t) throws SQLException {
        DatabaseMetaData m = db.getMetaData();
        Serve.check(m.getDatabaseMajorVersion() == 8, m.getDatabaseProductVersion());
        Serve.equal(column(m.getTables("appdb", null, t + "%", new String[] {"TABLE"}), "TABLE_NAME"), List.of(t, t + "_owners"));
        Serve.check(column(m.getCatalogs(), "TABLE_CAT").contains("appdb"), "catalogs");
        Serve.equal(column(m.getPrimaryKeys("appdb", null, t), "COLUMN_NAME"), List.of("id"));
        Serve.equal(column(m.getImportedKeys("appdb", null, t), "PKTABLE_NAME"), List.of(t + "_owners"));
        Serve.equal(column(m.getImportedKeys("appdb", null, t), "DELETE_RULE"), List.of("" + DatabaseMetaData.importedKeyCascade));
        Serve.equal(column(m.getExportedKeys("appdb", null, t + "_owners"), "FKTABLE_NAME"), List.of(t));
        Serve.equal(
            column(m.getIndexInfo("appdb", null, t, false, false), "INDEX_NAME").stream().sorted().collect(toList()),
            List.of("PRIMARY", "by_name", t + "_fk"));
        List<String> types = column(m.getColumns("appdb", null, t, "%"), "TYPE_NAME");
        Serve.equal(types, List.of("BIGINT UNSIGNED", "VARCHAR", "DECIMAL", "DOUBLE", "DATETIME", "DATE", "VARBINARY", "JSON", "BIT", "BIT", "CHAR", "TEXT", "INT"));
        Serve.equal(column(m.getColumns("appdb", null, t + "_owners", "name"), "REMARKS"), List.of("who"));
        Serve.equal(column(m.getColumns("appdb", null, t, "id"), "IS_AUTOINCREMENT"), List.of("YES"));
        Serve.check(column(m.getProcedures("appdb", null, "%"), "PROCEDURE_NAME").isEmpty(), "procedures");
        Serve.check(column(m.getFunctions("appdb", null, "%"), "FUNCTION_NAME").isEmpty(), "functions");
        Serve.check(m.getTypeInfo().next(), "types");
        m.getBestRowIdentifier("appdb", null, t, DatabaseMetaData.bestRowSession, false).close();
    }

    static void hikari() throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(URL + "?allowPublicKeyRetrieval=true");
        config.setUsername("root");
        config.setPassword("test");
        config.setMaximumPoolSize(3);
        for (String[] option : new String[][] {
            {"cachePrepStmts", "true"}, {"useServerPrepStmts", "true"}, {"useLocalSessionState", "true"},
            {"rewriteBatchedStatements", "true"}, {"cacheResultSetMetadata", "true"}, {"cacheServerConfiguration", "true"},
            {"elideSetAutoCommits", "true"}, {"maintainTimeStats", "false"}}) {
            config.addDataSourceProperty(option[0], option[1]);
        }
        try (HikariDataSource pool = new HikariDataSource(config)) {
            try (Connection db = pool.getConnection(); Statement s = db.createStatement()) {
                s.execute("CREATE TABLE hikari_items (id INT AUTO_INCREMENT PRIMARY KEY, n INT NOT NULL)");
            }
            for (int round = 0; round < 5; round++) {
                try (Connection db = pool.getConnection(); PreparedStatement s = db.prepareStatement("INSERT INTO hikari_items (n) VALUES (?)")) {
                    db.setAutoCommit(false);
                    s.setInt(1, round);
                    Serve.equal(s.executeUpdate(), 1);
                    if (round % 2 == 0) db.commit();
                    else db.rollback();
                }
            }
            try (Connection db = pool.getConnection(); ResultSet r = db.createStatement().executeQuery("SELECT COUNT(*) FROM hikari_items")) {
                db.setReadOnly(true);
                Serve.check(r.next() && r.getInt(1) == 3, "count");
            }
        }
    }
}

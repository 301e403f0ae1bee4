//! What a server tells of its databases: `information_schema` and the `SHOW` statements.
//!
//! Contract: pure, over the declared tables. Tables of `information_schema` have all the columns
//! of MySQL 8, in its order; those that nothing here could fill (routines, triggers, views) are
//! empty. A `SHOW` or a table that is not kept is refused by name with 1235.
//! Not modelled: sizes, cardinalities and times (NULL or zero), privileges.

use super::emit::Listing;
use super::schema::{ColumnDef, ColumnType, Foreign, Key, TableDef};
use super::session::{Failure, unsupported};
use rusqlite::types::Value as Cell;

const COLLATION: &str = "utf8mb4_0900_ai_ci";

/// Name, character set, number, whether it is its set's default, length.
const COLLATIONS: &[(&str, &str, i64, &str)] = &[
    ("ascii_general_ci", "ascii", 11, "Yes"),
    ("binary", "binary", 63, "Yes"),
    ("latin1_swedish_ci", "latin1", 8, "Yes"),
    ("utf8mb3_general_ci", "utf8mb3", 33, "Yes"),
    ("utf8mb4_0900_ai_ci", "utf8mb4", 255, "Yes"),
    ("utf8mb4_bin", "utf8mb4", 46, ""),
    ("utf8mb4_general_ci", "utf8mb4", 45, ""),
    ("utf8mb4_unicode_ci", "utf8mb4", 224, ""),
];

/// The words that MySQL 8 reserves.
const RESERVED: &str = "ACCESSIBLE ADD ALL ALTER ANALYZE AND AS ASC ASENSITIVE BEFORE BETWEEN BIGINT BINARY BLOB \
    BOTH BY CALL CASCADE CASE CHANGE CHAR CHARACTER CHECK COLLATE COLUMN CONDITION CONSTRAINT CONTINUE CONVERT \
    CREATE CROSS CUBE CUME_DIST CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURSOR DATABASE DATABASES \
    DAY_HOUR DAY_MICROSECOND DAY_MINUTE DAY_SECOND DEC DECIMAL DECLARE DEFAULT DELAYED DELETE DENSE_RANK DESC \
    DESCRIBE DETERMINISTIC DISTINCT DISTINCTROW DIV DOUBLE DROP DUAL EACH ELSE ELSEIF EMPTY ENCLOSED ESCAPED EXCEPT \
    EXISTS EXIT EXPLAIN FALSE FETCH FIRST_VALUE FLOAT FLOAT4 FLOAT8 FOR FORCE FOREIGN FROM FULLTEXT FUNCTION \
    GENERATED GET GRANT GROUP GROUPING GROUPS HAVING HIGH_PRIORITY HOUR_MICROSECOND HOUR_MINUTE HOUR_SECOND IF \
    IGNORE IN INDEX INFILE INNER INOUT INSENSITIVE INSERT INT INT1 INT2 INT3 INT4 INT8 INTEGER INTERSECT INTERVAL \
    INTO IO_AFTER_GTIDS IO_BEFORE_GTIDS IS ITERATE JOIN JSON_TABLE KEY KEYS KILL LAG LAST_VALUE LATERAL LEAD \
    LEADING LEAVE LEFT LIKE LIMIT LINEAR LINES LOAD LOCALTIME LOCALTIMESTAMP LOCK LONG LONGBLOB LONGTEXT LOOP \
    LOW_PRIORITY MASTER_BIND MASTER_SSL_VERIFY_SERVER_CERT MATCH MAXVALUE MEDIUMBLOB MEDIUMINT MEDIUMTEXT MIDDLEINT \
    MINUTE_MICROSECOND MINUTE_SECOND MOD MODIFIES NATURAL NOT NO_WRITE_TO_BINLOG NTH_VALUE NTILE NULL NUMERIC OF ON \
    OPTIMIZE OPTIMIZER_COSTS OPTION OPTIONALLY OR ORDER OUT OUTER OUTFILE OVER PARTITION PERCENT_RANK PRECISION \
    PRIMARY PROCEDURE PURGE RANGE RANK READ READS READ_WRITE REAL RECURSIVE REFERENCES REGEXP RELEASE RENAME REPEAT \
    REPLACE REQUIRE RESIGNAL RESTRICT RETURN REVOKE RIGHT RLIKE ROW ROWS ROW_NUMBER SCHEMA SCHEMAS \
    SECOND_MICROSECOND SELECT SENSITIVE SEPARATOR SET SHOW SIGNAL SMALLINT SPATIAL SPECIFIC SQL SQLEXCEPTION \
    SQLSTATE SQLWARNING SQL_BIG_RESULT SQL_CALC_FOUND_ROWS SQL_SMALL_RESULT SSL STARTING STORED STRAIGHT_JOIN SYSTEM \
    TABLE TERMINATED THEN TINYBLOB TINYINT TINYTEXT TO TRAILING TRIGGER TRUE UNDO UNION UNIQUE UNLOCK UNSIGNED \
    UPDATE USAGE USE USING UTC_DATE UTC_TIME UTC_TIMESTAMP VALUES VARBINARY VARCHAR VARCHARACTER VARYING VIRTUAL \
    WHEN WHERE WHILE WINDOW WITH WRITE XOR YEAR_MONTH ZEROFILL";

/// Tables that are there and empty.
const EMPTY: &[(&str, &str)] = &[
    (
        "views",
        "TABLE_CATALOG TABLE_SCHEMA TABLE_NAME VIEW_DEFINITION CHECK_OPTION IS_UPDATABLE DEFINER SECURITY_TYPE CHARACTER_SET_CLIENT COLLATION_CONNECTION",
    ),
    (
        "routines",
        "SPECIFIC_NAME ROUTINE_CATALOG ROUTINE_SCHEMA ROUTINE_NAME ROUTINE_TYPE DATA_TYPE CHARACTER_MAXIMUM_LENGTH CHARACTER_OCTET_LENGTH NUMERIC_PRECISION NUMERIC_SCALE DATETIME_PRECISION CHARACTER_SET_NAME COLLATION_NAME DTD_IDENTIFIER ROUTINE_BODY ROUTINE_DEFINITION EXTERNAL_NAME EXTERNAL_LANGUAGE PARAMETER_STYLE IS_DETERMINISTIC SQL_DATA_ACCESS SQL_PATH SECURITY_TYPE CREATED LAST_ALTERED SQL_MODE ROUTINE_COMMENT DEFINER CHARACTER_SET_CLIENT COLLATION_CONNECTION DATABASE_COLLATION",
    ),
    (
        "parameters",
        "SPECIFIC_CATALOG SPECIFIC_SCHEMA SPECIFIC_NAME ORDINAL_POSITION PARAMETER_MODE PARAMETER_NAME DATA_TYPE CHARACTER_MAXIMUM_LENGTH CHARACTER_OCTET_LENGTH NUMERIC_PRECISION NUMERIC_SCALE DATETIME_PRECISION CHARACTER_SET_NAME COLLATION_NAME DTD_IDENTIFIER ROUTINE_TYPE",
    ),
    (
        "triggers",
        "TRIGGER_CATALOG TRIGGER_SCHEMA TRIGGER_NAME EVENT_MANIPULATION EVENT_OBJECT_CATALOG EVENT_OBJECT_SCHEMA EVENT_OBJECT_TABLE ACTION_ORDER ACTION_CONDITION ACTION_STATEMENT ACTION_ORIENTATION ACTION_TIMING ACTION_REFERENCE_OLD_TABLE ACTION_REFERENCE_NEW_TABLE ACTION_REFERENCE_OLD_ROW ACTION_REFERENCE_NEW_ROW CREATED SQL_MODE DEFINER CHARACTER_SET_CLIENT COLLATION_CONNECTION DATABASE_COLLATION",
    ),
    (
        "events",
        "EVENT_CATALOG EVENT_SCHEMA EVENT_NAME DEFINER TIME_ZONE EVENT_BODY EVENT_DEFINITION EVENT_TYPE EXECUTE_AT INTERVAL_VALUE INTERVAL_FIELD SQL_MODE STARTS ENDS STATUS ON_COMPLETION CREATED LAST_ALTERED LAST_EXECUTED EVENT_COMMENT ORIGINATOR CHARACTER_SET_CLIENT COLLATION_CONNECTION DATABASE_COLLATION",
    ),
];

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn number(n: impl TryInto<i64>) -> Cell {
    n.try_into().map_or(Cell::Null, Cell::Integer)
}

fn names(list: &'static str) -> Vec<&'static str> {
    list.split_whitespace().collect()
}

/// The databases and their tables.
pub struct Catalog {
    /// Names of the databases.
    pub databases: Vec<String>,
    /// Every table of each.
    pub tables: Vec<TableDef>,
}

impl Catalog {
    /// A table of `information_schema`.
    ///
    /// # Errors
    /// 1235 where it is not kept.
    pub fn information(&self, name: &str) -> Result<Listing, Failure> {
        let name = name.to_lowercase();
        if let Some((_, columns)) = EMPTY.iter().find(|(empty, _)| *empty == name) {
            return Ok((names(columns), Vec::new()));
        }
        Ok(match name.as_str() {
            "schemata" => self.schemata(),
            "tables" => self.list_tables(),
            "columns" => self.list_columns(),
            "statistics" => self.statistics(),
            "key_column_usage" => self.key_column_usage(),
            "table_constraints" => self.table_constraints(),
            "referential_constraints" => self.referential_constraints(),
            "check_constraints" => self.check_constraints(),
            "keywords" => {
                let row = |word: &str| vec![text(word), Cell::Integer(1)];
                (names("WORD RESERVED"), RESERVED.split_whitespace().map(row).collect())
            }
            "engines" => engines(),
            "character_sets" => character_sets(),
            "collations" => collations(
                "COLLATION_NAME CHARACTER_SET_NAME ID IS_DEFAULT IS_COMPILED SORTLEN PAD_ATTRIBUTE",
            ),
            "collation_character_set_applicability" => {
                let row = |(name, set, _, _): &(&str, &str, i64, &str)| vec![text(name), text(set)];
                (names("COLLATION_NAME CHARACTER_SET_NAME"), COLLATIONS.iter().map(row).collect())
            }
            other => return Err(unsupported(&format!("information_schema.{other}"))),
        })
    }

    fn schemata(&self) -> Listing {
        let row = |name: &String| {
            vec![text("def"), text(name), text("utf8mb4"), text(COLLATION), Cell::Null, text("NO")]
        };
        let columns = "CATALOG_NAME SCHEMA_NAME DEFAULT_CHARACTER_SET_NAME DEFAULT_COLLATION_NAME SQL_PATH DEFAULT_ENCRYPTION";
        (names(columns), self.databases.iter().map(row).collect())
    }

    fn list_tables(&self) -> Listing {
        let row = |t: &TableDef| {
            let mut row = vec![text("def"), text(&t.database), text(&t.name), text("BASE TABLE")];
            row.extend([text("InnoDB"), number(10), text("Dynamic"), number(0), number(0), number(16384)]);
            row.extend([number(0), number(0), number(0)]);
            row.extend([
                Cell::Null,
                Cell::Null,
                Cell::Null,
                Cell::Null,
                text(COLLATION),
                Cell::Null,
                text(""),
            ]);
            row.push(text(&t.comment));
            row
        };
        let columns = "TABLE_CATALOG TABLE_SCHEMA TABLE_NAME TABLE_TYPE ENGINE VERSION ROW_FORMAT TABLE_ROWS AVG_ROW_LENGTH \
            DATA_LENGTH MAX_DATA_LENGTH INDEX_LENGTH DATA_FREE AUTO_INCREMENT CREATE_TIME UPDATE_TIME CHECK_TIME \
            TABLE_COLLATION CHECKSUM CREATE_OPTIONS TABLE_COMMENT";
        (names(columns), self.tables.iter().map(row).collect())
    }

    fn list_columns(&self) -> Listing {
        let mut rows = Vec::new();
        for table in &self.tables {
            for (at, c) in table.columns.iter().enumerate() {
                let words = c.kind.words();
                let mut row = vec![text("def"), text(&table.database), text(&table.name), text(&c.name)];
                row.extend([number(at + 1), default_of(c), text(if c.not_null { "NO" } else { "YES" })]);
                row.push(text(words.split(['(', ' ']).next().unwrap_or_default()));
                row.extend(sizes(&c.kind));
                row.extend([text(&words), text(key_of(table, c)), text(&c.extra())]);
                row.extend([text("select,insert,update,references"), text(&c.comment), text(""), Cell::Null]);
                rows.push(row);
            }
        }
        let columns = "TABLE_CATALOG TABLE_SCHEMA TABLE_NAME COLUMN_NAME ORDINAL_POSITION COLUMN_DEFAULT IS_NULLABLE DATA_TYPE \
            CHARACTER_MAXIMUM_LENGTH CHARACTER_OCTET_LENGTH NUMERIC_PRECISION NUMERIC_SCALE DATETIME_PRECISION \
            CHARACTER_SET_NAME COLLATION_NAME COLUMN_TYPE COLUMN_KEY EXTRA PRIVILEGES COLUMN_COMMENT \
            GENERATION_EXPRESSION SRS_ID";
        (names(columns), rows)
    }

    fn statistics(&self) -> Listing {
        let mut rows = Vec::new();
        for table in &self.tables {
            for (key, at, column) in parts(table) {
                let mut row = vec![text("def"), text(&table.database), text(&table.name)];
                row.extend([number(i64::from(!key.unique)), text(&table.database), text(&key.name)]);
                row.extend([number(at + 1), text(column), text("A"), number(0), Cell::Null, Cell::Null]);
                row.extend([
                    nullable(table, column),
                    text("BTREE"),
                    text(""),
                    text(""),
                    text("YES"),
                    Cell::Null,
                ]);
                rows.push(row);
            }
        }
        let columns = "TABLE_CATALOG TABLE_SCHEMA TABLE_NAME NON_UNIQUE INDEX_SCHEMA INDEX_NAME SEQ_IN_INDEX COLUMN_NAME COLLATION \
            CARDINALITY SUB_PART PACKED NULLABLE INDEX_TYPE COMMENT INDEX_COMMENT IS_VISIBLE EXPRESSION";
        (names(columns), rows)
    }

    fn key_column_usage(&self) -> Listing {
        let mut rows = Vec::new();
        for table in &self.tables {
            let start = |name: &str, column: &str, at: usize| {
                let (database, def) = (text(&table.database), text("def"));
                let mut row = vec![def.clone(), database.clone(), text(name), def, database];
                row.extend([text(&table.name), text(column), number(at + 1)]);
                row
            };
            for (key, at, column) in parts(table).filter(|(key, _, _)| key.unique) {
                let mut row = start(&key.name, column, at);
                row.extend([Cell::Null, Cell::Null, Cell::Null, Cell::Null]);
                rows.push(row);
            }
            for key in &table.foreign {
                let (database, other) = key.referred_table();
                for (at, (column, referred)) in key.columns.iter().zip(&key.referred).enumerate() {
                    let mut row = start(&key.name, column, at);
                    row.extend([number(at + 1), text(database), text(other), text(referred)]);
                    rows.push(row);
                }
            }
        }
        let columns = "CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME TABLE_CATALOG TABLE_SCHEMA TABLE_NAME COLUMN_NAME \
            ORDINAL_POSITION POSITION_IN_UNIQUE_CONSTRAINT REFERENCED_TABLE_SCHEMA REFERENCED_TABLE_NAME REFERENCED_COLUMN_NAME";
        (names(columns), rows)
    }

    fn table_constraints(&self) -> Listing {
        let mut rows = Vec::new();
        for table in &self.tables {
            let unique = table
                .keys
                .iter()
                .filter(|key| key.unique)
                .map(|key| (&key.name, if key.name == "PRIMARY" { "PRIMARY KEY" } else { "UNIQUE" }));
            let foreign = table.foreign.iter().map(|key| (&key.name, "FOREIGN KEY"));
            let checks = table.checks.iter().map(|check| (&check.name, "CHECK"));
            for (name, kind) in unique.chain(foreign).chain(checks) {
                let database = text(&table.database);
                rows.push(vec![
                    text("def"),
                    database.clone(),
                    text(name),
                    database,
                    text(&table.name),
                    text(kind),
                    text("YES"),
                ]);
            }
        }
        let columns = "CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME TABLE_SCHEMA TABLE_NAME CONSTRAINT_TYPE ENFORCED";
        (names(columns), rows)
    }

    fn referential_constraints(&self) -> Listing {
        let mut rows = Vec::new();
        for table in &self.tables {
            for key in &table.foreign {
                let (database, other) = key.referred_table();
                let mut row =
                    vec![text("def"), text(&table.database), text(&key.name), text("def"), text(database)];
                row.extend([
                    self.unique_name(key),
                    text("NONE"),
                    text(key.rule("UPDATE")),
                    text(key.rule("DELETE")),
                ]);
                row.extend([text(&table.name), text(other)]);
                rows.push(row);
            }
        }
        let columns = "CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME UNIQUE_CONSTRAINT_CATALOG UNIQUE_CONSTRAINT_SCHEMA \
            UNIQUE_CONSTRAINT_NAME MATCH_OPTION UPDATE_RULE DELETE_RULE TABLE_NAME REFERENCED_TABLE_NAME";
        (names(columns), rows)
    }

    /// The other table's key that a foreign key means.
    fn unique_name(&self, key: &Foreign) -> Cell {
        let (database, other) = key.referred_table();
        let table = self.tables.iter().find(|t| t.database == database && t.name == other);
        let found = table.and_then(|t| t.unique_key(&key.referred));
        found.map_or(Cell::Null, |k| text(&k.name))
    }

    fn check_constraints(&self) -> Listing {
        let all = self.tables.iter().flat_map(|t| t.checks.iter().map(move |check| (t, check)));
        let rows = all.map(|(t, c)| vec![text("def"), text(&t.database), text(&c.name), text(&c.words)]);
        (names("CONSTRAINT_CATALOG CONSTRAINT_SCHEMA CONSTRAINT_NAME CHECK_CLAUSE"), rows.collect())
    }

    /// `SHOW FULL TABLES` of a database: its heading is the caller's.
    pub fn show_tables(&self, database: &str) -> Vec<Vec<Cell>> {
        let own = self.tables.iter().filter(|t| t.database == database);
        own.map(|t| vec![text(&t.name), text("BASE TABLE")]).collect()
    }

    /// `SHOW TABLE STATUS`.
    pub fn table_status(&self, database: &str) -> Listing {
        let (_, rows) = self.list_tables();
        let own = rows.into_iter().filter(|row| row.get(1) == Some(&text(database)));
        // The same, but for where it is and what kind of table.
        let row = |row: Vec<Cell>| {
            row.into_iter()
                .enumerate()
                .filter(|(at, _)| !matches!(at, 0 | 1 | 3))
                .map(|(_, cell)| cell)
                .collect()
        };
        let columns = "Name Engine Version Row_format Rows Avg_row_length Data_length Max_data_length Index_length Data_free \
            Auto_increment Create_time Update_time Check_time Collation Checksum Create_options Comment";
        (names(columns), own.map(row).collect())
    }
}

fn engines() -> Listing {
    let row = ["InnoDB", "DEFAULT", "Faultbox stand-in: InnoDB's answers over SQLite", "YES", "NO", "YES"];
    (names("ENGINE SUPPORT COMMENT TRANSACTIONS XA SAVEPOINTS"), vec![row.map(text).to_vec()])
}

fn character_sets() -> Listing {
    let defaults = COLLATIONS.iter().filter(|(_, _, _, default)| *default == "Yes");
    let row = |(name, set, _, _): &(&str, &str, i64, &str)| {
        let length = match *set {
            "utf8mb4" => 4,
            "utf8mb3" => 3,
            _ => 1,
        };
        vec![text(set), text(name), text(set), number(length)]
    };
    (names("CHARACTER_SET_NAME DEFAULT_COLLATE_NAME DESCRIPTION MAXLEN"), defaults.map(row).collect())
}

fn collations(columns: &'static str) -> Listing {
    let row = |(name, set, id, default): &(&str, &str, i64, &str)| {
        let pad = if name.contains("0900") || *name == "binary" { "NO PAD" } else { "PAD SPACE" };
        vec![text(name), text(set), number(*id), text(default), text("Yes"), number(1), text(pad)]
    };
    (names(columns), COLLATIONS.iter().map(row).collect())
}

/// What `SHOW` lists that no table decides.
pub fn show_fixed(subject: &str) -> Option<Listing> {
    Some(match subject {
        "engines" => {
            let (_, rows) = engines();
            (names("Engine Support Comment Transactions XA Savepoints"), rows)
        }
        "collation" => collations("Collation Charset Id Default Compiled Sortlen Pad_attribute"),
        "character" | "charset" => {
            let (_, rows) = character_sets();
            let order = |row: Vec<Cell>| match <[Cell; 4]>::try_from(row) {
                Ok([set, collation, words, length]) => vec![set, words, collation, length],
                Err(row) => row,
            };
            (
                vec!["Charset", "Description", "Default collation", "Maxlen"],
                rows.into_iter().map(order).collect(),
            )
        }
        "procedure" | "function" => (
            names(
                "Db Name Type Language Definer Modified Created Security_type Comment character_set_client collation_connection Database_Collation",
            ),
            Vec::new(),
        ),
        "triggers" => (
            names(
                "Trigger Event Table Statement Timing Created sql_mode Definer character_set_client collation_connection Database_Collation",
            ),
            Vec::new(),
        ),
        "events" => (
            names(
                "Db Name Definer Time_zone Type Execute_at Interval_value Interval_field Starts Ends Status Originator character_set_client collation_connection Database_Collation",
            ),
            Vec::new(),
        ),
        "plugins" => (
            names("Name Status Type Library License"),
            vec![["InnoDB", "ACTIVE", "STORAGE ENGINE", "", "MIT"].map(text).to_vec()],
        ),
        "privileges" => (names("Privilege Context Comment"), Vec::new()),
        _ => return None,
    })
}

/// `SHOW [FULL] COLUMNS`.
pub fn show_columns(table: &TableDef, full: bool) -> Listing {
    let row = |c: &ColumnDef| {
        let (name, kind) = (text(&c.name), text(&c.kind.words()));
        let null = text(if c.not_null { "NO" } else { "YES" });
        let (key, default, extra) = (text(key_of(table, c)), default_of(c), text(&c.extra()));
        if !full {
            return vec![name, kind, null, key, default, extra];
        }
        let collation = if textual(&c.kind) { text(collation_of(&c.kind)) } else { Cell::Null };
        let privileges = text("select,insert,update,references");
        vec![name, kind, collation, null, key, default, extra, privileges, text(&c.comment)]
    };
    let columns = match full {
        true => "Field Type Collation Null Key Default Extra Privileges Comment",
        false => "Field Type Null Key Default Extra",
    };
    (names(columns), table.columns.iter().map(row).collect())
}

/// `SHOW INDEX`.
pub fn show_index(table: &TableDef) -> Listing {
    let row = |(key, at, column): (&Key, usize, &String)| {
        let mut row =
            vec![text(&table.name), number(i64::from(!key.unique)), text(&key.name), number(at + 1)];
        row.extend([text(column), text("A"), number(0), Cell::Null, Cell::Null, nullable(table, column)]);
        row.extend([text("BTREE"), text(""), text(""), text("YES"), Cell::Null]);
        row
    };
    let columns = "Table Non_unique Key_name Seq_in_index Column_name Collation Cardinality Sub_part Packed Null Index_type \
        Comment Index_comment Visible Expression";
    (names(columns), parts(table).map(row).collect())
}

fn parts(table: &TableDef) -> impl Iterator<Item = (&Key, usize, &String)> {
    table
        .keys
        .iter()
        .flat_map(|key| key.columns.iter().enumerate().map(move |(at, column)| (key, at, column)))
}

fn nullable(table: &TableDef, column: &str) -> Cell {
    text(if table.column(column).is_some_and(|c| !c.not_null) { "YES" } else { "" })
}

fn default_of(column: &ColumnDef) -> Cell {
    let words = column.default_words.as_deref();
    match words.map(|w| w.strip_prefix('\'').and_then(|w| w.strip_suffix('\'')).unwrap_or(w)) {
        Some(words) => Cell::Text(words.replace("''", "'")),
        None => Cell::Null,
    }
}

fn key_of(table: &TableDef, column: &ColumnDef) -> &'static str {
    let first = |k: &&Key| k.columns.first().is_some_and(|c| c.eq_ignore_ascii_case(&column.name));
    if table.primary().iter().any(|c| c.eq_ignore_ascii_case(&column.name)) {
        return "PRI";
    }
    match table.keys.iter().find(first) {
        Some(key) if key.unique && key.columns.len() == 1 => "UNI",
        Some(_) => "MUL",
        None => "",
    }
}

fn textual(kind: &ColumnType) -> bool {
    matches!(kind, ColumnType::Text { .. } | ColumnType::Enum(_))
}

fn collation_of(kind: &ColumnType) -> &'static str {
    if matches!(kind, ColumnType::Text { binary: true, .. }) { "utf8mb4_bin" } else { COLLATION }
}

/// Character and octet length, numeric precision and scale, digits of a time, character set, collation.
fn sizes(kind: &ColumnType) -> [Cell; 7] {
    let mut cells = [const { Cell::Null }; 7];
    let [characters, octets, precision, scale, digits, set, collation] = &mut cells;
    match kind {
        ColumnType::Text { max, long, .. } => {
            *characters = number(*max);
            *octets = number(if *long { *max } else { max.saturating_mul(4) });
        }
        ColumnType::Enum(members) => {
            let longest = members.iter().map(|m| m.chars().count()).max().unwrap_or(0);
            (*characters, *octets) = (number(longest), number(longest * 4));
        }
        ColumnType::Bytes { max, .. } => (*characters, *octets) = (number(*max), number(*max)),
        ColumnType::Int { bytes, unsigned, .. } => {
            *precision = number(match (bytes, unsigned) {
                (1, _) => 3,
                (2, _) => 5,
                (3, _) => 7,
                (4, _) => 10,
                (_, true) => 20,
                (_, false) => 19,
            });
            *scale = number(0);
        }
        ColumnType::Bit(bits) => *precision = number(*bits),
        ColumnType::Decimal { digits, scale: n } => (*precision, *scale) = (number(*digits), number(*n)),
        ColumnType::Float => *precision = number(12),
        ColumnType::Double => *precision = number(22),
        ColumnType::DateTime { digits: n, .. } | ColumnType::Time { digits: n } => *digits = number(*n),
        ColumnType::Date | ColumnType::Year | ColumnType::Json => {}
    }
    if textual(kind) {
        (*set, *collation) = (text("utf8mb4"), text(collation_of(kind)));
    }
    cells
}

/// A `SHOW` in its parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// `FULL`.
    pub full: bool,
    /// What is to be shown, lower case.
    pub subject: String,
    /// The words after it up to `FROM`, `LIKE` or `WHERE`.
    pub names: Vec<String>,
    /// What stands after `FROM` or `IN`, `a.b` as b and a.
    pub from: Vec<String>,
    /// The pattern of `LIKE`.
    pub like: Option<String>,
    /// The condition after `WHERE`.
    pub filter: Option<String>,
}

impl Show {
    /// Reads a statement that begins with `SHOW`.
    pub fn read(sql: &str) -> Show {
        let mut show = Show::default();
        let mut words = words(sql).into_iter().skip(1).peekable();
        while let Some((_, word, quoted)) = words.next() {
            let lower = word.to_lowercase();
            match lower.as_str() {
                _ if quoted => show.names.extend(word.rsplit('\u{1}').map(str::to_owned)),
                "full" => show.full = true,
                "extended" | "global" | "session" | "local" | "storage" if show.subject.is_empty() => {}
                "from" | "in" => {
                    if let Some((_, name, _)) = words.next() {
                        show.from.extend(name.rsplit('\u{1}').map(str::to_owned));
                    }
                }
                "like" => show.like = words.next().map(|(_, pattern, _)| pattern),
                "where" => {
                    show.filter =
                        words.peek().and_then(|(at, _, _)| sql.get(*at..)).map(|s| s.trim().to_owned());
                    break;
                }
                _ if show.subject.is_empty() => show.subject = lower,
                _ => show.names.extend(word.rsplit('\u{1}').map(str::to_owned)),
            }
        }
        show
    }
}

/// Words with their places, bare; the parts of `a.b` are joined by U+0001. Quoted ones are marked.
fn words(sql: &str) -> Vec<(usize, String, bool)> {
    let mut found: Vec<(usize, String, bool)> = Vec::new();
    let mut chars = sql.char_indices().peekable();
    let mut joins = false;
    while let Some((at, c)) = chars.next() {
        let (mut word, mut quoted) = (String::new(), false);
        match c {
            '.' if !found.is_empty() => {
                joins = true;
                continue;
            }
            '`' | '\'' | '"' => {
                quoted = true;
                while let Some((_, next)) = chars.next() {
                    if next == '\\' && c != '`' {
                        // A pattern keeps what it escapes escaped.
                        let escaped = chars.next().map(|(_, c)| c);
                        word.extend(escaped.filter(|c| matches!(c, '%' | '_')).map(|_| '\\'));
                        word.extend(escaped);
                    } else if next != c {
                        word.push(next);
                    } else if chars.next_if(|(_, again)| *again == c).is_some() {
                        word.push(c);
                    } else {
                        break;
                    }
                }
            }
            c if c.is_alphanumeric() || c == '_' || c == '$' || c == '%' => {
                word.push(c);
                while let Some((_, c)) =
                    chars.next_if(|(_, c)| c.is_alphanumeric() || matches!(c, '_' | '$' | '%'))
                {
                    word.push(c);
                }
            }
            _ => continue,
        }
        match (std::mem::take(&mut joins), found.last_mut()) {
            (true, Some((_, last, _))) => *last += &format!("\u{1}{word}"),
            _ => found.push((at, word, quoted)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_show_is_read_in_its_parts() {
        let show = Show::read("SHOW FULL COLUMNS FROM `My Table` FROM `db` LIKE 'a\\_%'");
        assert!(show.full && show.subject == "columns");
        assert_eq!(
            (show.from, show.like),
            (vec!["My Table".to_owned(), "db".to_owned()], Some("a\\_%".to_owned()))
        );
        let show = Show::read("show create table `d`.`T`");
        assert_eq!((show.subject.as_str(), show.names.join(" ")), ("create", "table T d".to_owned()));
        let show = Show::read("SHOW KEYS FROM t WHERE Key_name = 'PRIMARY'");
        assert_eq!(show.filter.as_deref(), Some("Key_name = 'PRIMARY'"));
        assert_eq!(Show::read("SHOW INDEX IN a.b").from, ["b", "a"]);
    }

    #[test]
    fn every_row_has_every_column() {
        let sql = "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(5) UNIQUE, b BIT(3), p INT, \
            CONSTRAINT f FOREIGN KEY (p) REFERENCES t (id), CHECK (p > 0))";
        let Ok(sqlparser::ast::Statement::CreateTable(create)) = super::super::dialect::parse(sql) else {
            panic!("no table")
        };
        let table = super::super::ddl::table(&create, "d").unwrap();
        let catalog = Catalog { databases: vec!["d".to_owned()], tables: vec![table.clone()] };
        let full = "schemata tables columns statistics key_column_usage table_constraints referential_constraints \
            check_constraints keywords engines character_sets collations collation_character_set_applicability";
        for name in full.split_whitespace() {
            let (columns, rows) = catalog.information(name).unwrap();
            assert!(!rows.is_empty() && rows.iter().all(|row| row.len() == columns.len()), "{name}");
        }
        let others = [
            show_columns(&table, true),
            show_columns(&table, false),
            show_index(&table),
            catalog.table_status("d"),
        ];
        let fixed =
            ["engines", "collation", "charset", "procedure", "plugins"].map(|s| show_fixed(s).unwrap());
        for (columns, rows) in others.into_iter().chain(fixed) {
            assert!(rows.iter().all(|row| row.len() == columns.len()), "{columns:?}");
        }
        assert!(catalog.information("processlist").is_err());
    }
}

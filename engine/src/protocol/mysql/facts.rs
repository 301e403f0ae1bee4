//! What a session asks about itself and its server: system variables, the current database.
//!
//! Contract: pure; answers only what it knows. Used where no real server can be asked: by
//! the stand-in, and by the server side in a replay.

use super::result::{Column, error_value, types};
use super::rules::result_set;
use faultbox_bundle_format::Value;

/// The version that our server side shows.
pub const VERSION: &str = "8.0.32-faultbox";

/// What a session knows about itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The database in use.
    pub database: Option<String>,
    /// Who logged in.
    pub user: String,
    /// The connection's number.
    pub connection: u64,
    /// Variables that the session has set.
    pub set: std::collections::BTreeMap<String, Value>,
}

const VARIABLES: &[(&str, &str)] = &[
    ("auto_increment_increment", "1"),
    ("auto_increment_offset", "1"),
    ("autocommit", "1"),
    ("big_tables", "0"),
    ("character_set_client", "utf8mb4"),
    ("character_set_connection", "utf8mb4"),
    ("character_set_database", "utf8mb4"),
    ("character_set_filesystem", "binary"),
    ("character_set_results", "utf8mb4"),
    ("character_set_server", "utf8mb4"),
    ("character_set_system", "utf8mb3"),
    ("collation_connection", "utf8mb4_0900_ai_ci"),
    ("collation_database", "utf8mb4_0900_ai_ci"),
    ("collation_server", "utf8mb4_0900_ai_ci"),
    ("completion_type", "NO_CHAIN"),
    ("concurrent_insert", "AUTO"),
    ("cte_max_recursion_depth", "1000"),
    ("default_authentication_plugin", "mysql_native_password"),
    ("default_collation_for_utf8mb4", "utf8mb4_0900_ai_ci"),
    ("default_storage_engine", "InnoDB"),
    ("default_tmp_storage_engine", "InnoDB"),
    ("default_week_format", "0"),
    ("div_precision_increment", "4"),
    ("error_count", "0"),
    ("event_scheduler", "OFF"),
    ("explicit_defaults_for_timestamp", "1"),
    ("foreign_key_checks", "1"),
    ("general_log", "0"),
    ("group_concat_max_len", "1024"),
    ("gtid_mode", "OFF"),
    ("have_openssl", "DISABLED"),
    ("have_profiling", "NO"),
    ("have_ssl", "DISABLED"),
    ("hostname", "faultbox"),
    ("information_schema_stats_expiry", "86400"),
    ("init_connect", ""),
    ("innodb_file_per_table", "1"),
    ("innodb_lock_wait_timeout", "50"),
    ("innodb_read_only", "0"),
    ("innodb_version", "8.0.32"),
    ("interactive_timeout", "28800"),
    ("join_buffer_size", "262144"),
    ("lc_messages", "en_US"),
    ("lc_time_names", "en_US"),
    ("license", "MIT OR Apache-2.0"),
    ("local_infile", "0"),
    ("log_bin", "0"),
    ("lower_case_file_system", "OFF"),
    ("lower_case_table_names", "0"),
    ("max_allowed_packet", "67108864"),
    ("max_connections", "151"),
    ("max_execution_time", "0"),
    ("max_join_size", "18446744073709551615"),
    ("max_sp_recursion_depth", "0"),
    ("max_user_connections", "0"),
    ("net_buffer_length", "16384"),
    ("net_read_timeout", "30"),
    ("net_write_timeout", "60"),
    ("offline_mode", "0"),
    ("optimizer_switch", ""),
    ("performance_schema", "0"),
    ("port", "3306"),
    ("profiling", "0"),
    ("protocol_version", "10"),
    ("pseudo_thread_id", "1"),
    ("query_cache_size", "0"),
    ("query_cache_type", "OFF"),
    ("read_only", "0"),
    ("require_secure_transport", "0"),
    ("server_id", "1"),
    ("session_track_gtids", "OFF"),
    ("session_track_schema", "1"),
    ("session_track_state_change", "0"),
    ("session_track_transaction_info", "OFF"),
    ("show_create_table_skip_secondary_engine", "0"),
    ("socket", ""),
    ("sql_auto_is_null", "0"),
    ("sql_big_selects", "1"),
    ("sql_buffer_result", "0"),
    ("sql_generate_invisible_primary_key", "0"),
    ("sql_log_bin", "1"),
    (
        "sql_mode",
        "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
    ),
    ("sql_notes", "1"),
    ("sql_quote_show_create", "1"),
    ("sql_require_primary_key", "0"),
    ("sql_safe_updates", "0"),
    ("sql_select_limit", "18446744073709551615"),
    ("sql_warnings", "0"),
    ("super_read_only", "0"),
    ("system_time_zone", "UTC"),
    ("thread_cache_size", "9"),
    ("time_zone", "SYSTEM"),
    ("tls_version", "TLSv1.2,TLSv1.3"),
    ("tmp_table_size", "16777216"),
    ("transaction_isolation", "REPEATABLE-READ"),
    ("transaction_read_only", "0"),
    ("tx_isolation", "REPEATABLE-READ"),
    ("tx_read_only", "0"),
    ("unique_checks", "1"),
    ("updatable_views_with_limit", "YES"),
    ("version", VERSION),
    ("version_comment", "Faultbox stand-in"),
    ("version_compile_machine", "x86_64"),
    ("version_compile_os", "Linux"),
    ("wait_timeout", "28800"),
    ("warning_count", "0"),
    ("windowing_use_high_precision", "1"),
];

impl Facts {
    /// A system variable.
    pub fn variable(&self, name: &str) -> Option<Value> {
        let name = name.to_lowercase();
        if let Some(value) = self.set.get(&name) {
            return Some(value.clone());
        }
        let (_, value) = VARIABLES.iter().find(|(known, _)| *known == name)?;
        Some(value.parse().map_or_else(|_| Value::text(*value), Value::Int))
    }

    /// The value of an expression like `@@x` or `DATABASE()`.
    fn value(&self, expression: &str) -> Option<Result<Value, Value>> {
        let lower = expression.trim().to_lowercase();
        if let Some(name) = lower.strip_prefix("@@") {
            let name = name.rsplit('.').next().unwrap_or(name).trim_matches('`');
            let unknown = || error_value(1193, "HY000", &format!("Unknown system variable '{name}'"));
            return Some(self.variable(name).ok_or_else(unknown));
        }
        let call: String = lower.split_whitespace().collect();
        Some(Ok(match call.as_str() {
            "database()" | "schema()" => self.database.clone().map_or(Value::Null, Value::Text),
            "version()" => Value::text(VERSION),
            "connection_id()" => Value::Int(self.connection as i64),
            "user()" | "current_user()" | "session_user()" | "current_user" => {
                Value::text(format!("{}@%", self.user))
            }
            _ => return None,
        }))
    }

    /// The answer to a statement that only asks for such facts.
    pub fn answer(&self, sql: &str) -> Option<Value> {
        let sql = uncommented(sql).trim().trim_end_matches(';').trim();
        let lower = sql.to_lowercase();
        if lower.starts_with("show") {
            return self.show(&lower);
        }
        if !lower.starts_with("select") {
            return None;
        }
        let list = sql.get(6..)?;
        let end = list.to_lowercase().rfind(" limit ").unwrap_or(list.len());
        let (mut columns, mut row) = (Vec::new(), Vec::new());
        for item in list.get(..end)?.split(',') {
            let item = item.trim();
            let (expression, name) = aliased(item);
            let value = match self.value(expression)? {
                Ok(value) => value,
                Err(error) => return Some(error),
            };
            let kind = if matches!(value, Value::Int(_)) { types::LONGLONG } else { types::VAR_STRING };
            columns.push(Column::plain(name, kind));
            row.push(value);
        }
        Some(result_set(&columns, vec![row]))
    }

    fn show(&self, lower: &str) -> Option<Value> {
        let words: Vec<&str> = lower.split_whitespace().collect();
        let names = |names: &[&str]| -> Vec<Column> {
            names.iter().map(|name| Column::plain(name, types::VAR_STRING)).collect()
        };
        let subject = words.iter().skip(1).find(|w| !matches!(**w, "session" | "global" | "full"))?;
        Some(match *subject {
            "warnings" | "errors" => result_set(&names(&["Level", "Code", "Message"]), Vec::new()),
            "status" => result_set(&names(&["Variable_name", "Value"]), Vec::new()),
            "variables" => {
                let patterns = quoted(lower);
                let like = words.contains(&"like");
                let rows = VARIABLES.iter().filter(|(name, _)| {
                    patterns.is_empty()
                        || patterns.iter().any(|p| if like { sql_like(p, name) } else { p == name })
                });
                let shown = |name: &str, value: &str| {
                    let set = self.set.get(name).map(super::result::shown);
                    set.map_or_else(|| Value::text(value), |bytes| Value::text_or_bytes(&bytes))
                };
                let rows = rows.map(|(name, value)| vec![Value::text(*name), shown(name, value)]).collect();
                result_set(&names(&["Variable_name", "Value"]), rows)
            }
            "collation" => {
                let rows = [
                    ("utf8mb4_0900_ai_ci", "utf8mb4", "255", "Yes"),
                    ("utf8mb4_bin", "utf8mb4", "46", ""),
                    ("binary", "binary", "63", "Yes"),
                ];
                let rows = rows.iter().map(|(name, set, id, default)| {
                    [*name, *set, *id, *default, "Yes", "1"].map(Value::text).to_vec()
                });
                result_set(
                    &names(&["Collation", "Charset", "Id", "Default", "Compiled", "Sortlen"]),
                    rows.collect(),
                )
            }
            _ => return None,
        })
    }
}

/// A statement without the comments that lead it (drivers sign their questions so).
pub fn uncommented(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    while let Some(inner) = rest.strip_prefix("/*").filter(|inner| !inner.starts_with(['!', '+'])) {
        rest = inner.split_once("*/").map_or("", |(_, after)| after).trim_start();
    }
    rest
}

/// `expression AS name`, `expression name`, or the expression as its own name.
fn aliased(item: &str) -> (&str, &str) {
    let quotes: &[char] = &['`', '\'', '"'];
    match item.rsplit_once(char::is_whitespace) {
        Some((expression, name)) if !name.ends_with(')') => {
            let expression = expression.trim_end();
            let bare =
                expression.len().checked_sub(3).and_then(|at| expression.get(at..).map(|tail| (at, tail)));
            let expression = match bare {
                Some((at, tail)) if tail.eq_ignore_ascii_case(" as") => &expression[..at],
                _ => expression,
            };
            (expression, name.trim_matches(quotes))
        }
        _ => (item, item),
    }
}

fn quoted(text: &str) -> Vec<String> {
    text.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

/// SQL's `LIKE` on names, whose case means nothing.
pub fn sql_like(pattern: &str, text: &str) -> bool {
    like(pattern, text, Some('\\'), false)
}

/// SQL's `LIKE`, with the character that takes a wildcard's meaning, and whether case means something.
pub fn like(pattern: &str, text: &str, escape: Option<char>, cased: bool) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Part {
        Any,
        One,
        Is(char),
    }
    let fold = |text: &str| -> Vec<char> {
        if cased { text.chars().collect() } else { text.chars().flat_map(char::to_lowercase).collect() }
    };
    let (text, mut parts) = (fold(text), Vec::new());
    let mut chars = fold(pattern).into_iter();
    let escape = escape.map(|c| if cased { c } else { c.to_lowercase().next().unwrap_or(c) });
    while let Some(c) = chars.next() {
        parts.push(match c {
            c if Some(c) == escape => Part::Is(chars.next().unwrap_or(c)),
            '%' => Part::Any,
            '_' => Part::One,
            c => Part::Is(c),
        });
    }
    // Only the last `%` is ever taken back: what stood before it was matched as early as possible.
    let (mut at, mut part, mut last) = (0, 0, None);
    while at < text.len() {
        match parts.get(part) {
            Some(Part::Any) => {
                last = Some((part, at));
                part += 1;
            }
            Some(Part::One) => (at, part) = (at + 1, part + 1),
            Some(Part::Is(c)) if *c == text[at] => (at, part) = (at + 1, part + 1),
            _ => match last {
                Some((any, from)) => {
                    last = Some((any, from + 1));
                    (at, part) = (from + 1, any + 1);
                }
                None => return false,
            },
        }
    }
    parts[part..].iter().all(|p| *p == Part::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_knows_wildcards_escapes_and_case() {
        let fits = |pattern: &str, text: &str, cased: bool| like(pattern, text, Some('\\'), cased);
        for (pattern, text) in [
            ("%", ""),
            ("a%", "a"),
            ("%b%", "abc"),
            ("%a%b", "xaxab"),
            ("_\u{df}", "a\u{df}"),
            ("100\\%", "100%"),
            ("a\\_b", "a_b"),
            ("%ANN@%", "ann@example.com"),
            ("\u{c4}%", "\u{e4}b"),
            ("x\\", "x\\"),
        ] {
            assert!(fits(pattern, text, false), "{pattern} {text}");
        }
        for (pattern, text) in
            [("", "a"), ("a", ""), ("a_", "a"), ("100\\%", "1000"), ("a\\_b", "axb"), ("%a%b", "xaxabc")]
        {
            assert!(!fits(pattern, text, false), "{pattern} {text}");
        }
        assert!(fits("u%", "u1", true) && !fits("u%", "U1", true) && !fits("\u{c4}", "\u{e4}", true));
        assert!(like("1|%", "1%", Some('|'), false) && like("a\\%", "a\\b", None, false));
        // Many wildcards take no longer for it.
        assert!(!fits(&"%a".repeat(200), &"a".repeat(199), false));
    }
}

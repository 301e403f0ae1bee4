//! What a statement is, without its literals: fingerprint, tables, kind, and the splitting
//! of scripts.
//!
//! Contract: a lexer's work, total on any text; equal statements that differ in case, white
//! space, comments, literals, number of rows or length of an `IN` list have one fingerprint.
//! Not modelled: `ANSI_QUOTES` (a double-quoted text is a literal) and stored programs.

use faultbox_bundle_format::Value;

/// A token of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Literal,
    Variable(&'a str),
    Symbol(&'a str),
}

/// Where a piece of SQL that must be read as a whole ends.
fn skip_quoted(text: &str, from: usize, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let mut at = from + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quote != b'`' => at += 2,
            byte if *byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if *byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of the comment that begins at `from`, if one does. Optimizer and version comments
/// are not comments: only their marks are skipped.
fn skip_comment(text: &str, from: usize) -> Option<usize> {
    let rest = &text.as_bytes()[from..];
    let line = |rest: &[u8]| from + rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |n| n + 1);
    match rest {
        [b'#', ..] => Some(line(rest)),
        [b'-', b'-'] => Some(from + 2),
        [b'-', b'-', space, ..] if space.is_ascii_whitespace() || space.is_ascii_control() => {
            Some(line(rest))
        }
        [b'/', b'*', b'!', ..] => {
            let digits = rest[3..].iter().take_while(|b| b.is_ascii_digit()).count();
            Some(from + 3 + digits)
        }
        [b'/', b'*', ..] => Some(from + text[from..].find("*/").map_or(rest.len(), |n| n + 2)),
        [b'*', b'/', ..] => Some(from + 2),
        _ => None,
    }
}

fn word_end(text: &str, from: usize) -> usize {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    from + text[from..].find(|c: char| !part(c)).unwrap_or(text.len() - from)
}

/// The token at `at`, and where it ends; `None` for white space and comments.
fn token(text: &str, at: usize) -> (Option<Token<'_>>, usize) {
    let rest = &text[at..];
    let Some(first) = rest.chars().next() else { return (None, text.len()) };
    if first.is_whitespace() {
        return (None, at + first.len_utf8());
    }
    if let Some(end) = skip_comment(text, at) {
        return (None, end);
    }
    let numeric = |c: char| c.is_alphanumeric() || c == '.';
    match first {
        '\'' | '"' => (Some(Token::Literal), skip_quoted(text, at, first as u8)),
        '`' => {
            let end = skip_quoted(text, at, b'`');
            (Some(Token::Quoted(text[at + 1..end].strip_suffix('`').unwrap_or(&text[at + 1..end]))), end)
        }
        '?' => (Some(Token::Literal), at + 1),
        '0'..='9' => {
            let mut end = at + rest.find(|c: char| !numeric(c)).unwrap_or(rest.len());
            // The sign of an exponent.
            if text[at..end].ends_with(['e', 'E']) && text[end..].starts_with(['-', '+']) {
                end = word_end(text, end + 1);
            }
            (Some(Token::Literal), end)
        }
        '@' => {
            let from = at + rest.find(|c| c != '@').unwrap_or(rest.len());
            let dotted = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.');
            let end = from + text[from..].find(|c: char| !dotted(c)).unwrap_or(text.len() - from);
            (Some(Token::Variable(&text[at..end])), end)
        }
        c if c.is_alphabetic() || c == '_' => {
            let end = word_end(text, at);
            let prefix = matches!(
                &text[at..end],
                "x" | "X" | "b" | "B" | "n" | "N" | "_utf8mb4" | "_binary" | "_utf8"
            );
            if prefix && text[end..].starts_with('\'') {
                return (Some(Token::Literal), skip_quoted(text, end, b'\''));
            }
            (Some(Token::Word(&text[at..end])), end)
        }
        _ => {
            let pairs = ["<=>", "->>", "<=", ">=", "<>", "!=", "||", "&&", ":=", "->", "<<", ">>"];
            let len = pairs.iter().find(|p| rest.starts_with(**p)).map_or(first.len_utf8(), |p| p.len());
            (Some(Token::Symbol(&text[at..at + len])), at + len)
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut at, mut all) = (0, Vec::new());
    while at < text.len() {
        let (token, end) = token(text, at);
        all.extend(token);
        at = end.max(at + 1);
    }
    all
}

/// Splits a script into its statements, without their delimiters. Knows texts, comments,
/// quoted names and the client's `DELIMITER` line.
pub fn split(script: &str) -> Vec<&str> {
    let (mut at, mut from, mut delimiter, mut parts) = (0, 0, ";", Vec::new());
    let mut fresh = true;
    while at < script.len() {
        let rest = &script[at..];
        if fresh
            && rest.get(..9).is_some_and(|word| word.eq_ignore_ascii_case("delimiter"))
            && rest[9..].starts_with([' ', '\t'])
        {
            let line = rest.lines().next().unwrap_or(rest);
            delimiter = Some(line[9..].trim()).filter(|d| !d.is_empty()).unwrap_or(";");
            at += line.len();
            from = at;
            continue;
        }
        if rest.starts_with(delimiter) {
            parts.push(&script[from..at]);
            at += delimiter.len();
            from = at;
            fresh = true;
            continue;
        }
        let (token, end) = token(script, at);
        if token.is_some() {
            // A symbol may run into the delimiter (`$$`, `//`): step over one character of it.
            fresh = false;
        }
        at = match token {
            Some(Token::Symbol(symbol)) => at + symbol.chars().next().map_or(1, char::len_utf8),
            _ => end,
        };
    }
    parts.push(script.get(from..).unwrap_or_default());
    parts.into_iter().map(str::trim).filter(|part| !tokens(part).is_empty()).collect()
}

/// How many placeholders a statement has.
pub fn placeholders(text: &str) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < text.len() {
        let (token, end) = token(text, at);
        count += usize::from(token == Some(Token::Literal) && &text[at..end] == "?");
        at = end.max(at + 1);
    }
    count
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Sets the session up or asks what it is (`SET NAMES`, `SELECT @@x`, `USE`).
    Session,
    /// `BEGIN`, `COMMIT`, `ROLLBACK`, `SAVEPOINT`.
    Transaction,
    /// Reads.
    Read,
    /// May change something.
    Write,
}

/// A statement (or several in one request) without its literals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Lower case, one space where one is needed, literals as `?`.
    pub text: String,
    /// Its first word, in capitals.
    pub operation: String,
    /// The tables that it names, lower case, without their databases.
    pub tables: Vec<String>,
    /// What it does.
    pub kind: Kind,
    /// Whether it changes state (a transaction's end makes changes visible).
    pub mutating: bool,
}

/// The fingerprint of a statement.
pub fn fingerprint(sql: &str) -> Fingerprint {
    let mut tokens = tokens(sql);
    hide_savepoint(&mut tokens);
    let text = normal_text(&tokens);
    let operation = tokens.iter().find_map(|t| match t {
        Token::Word(word) => Some(word.to_uppercase()),
        _ => None,
    });
    let statements = tokens.split(|t| *t == Token::Symbol(";")).filter(|s| !s.is_empty());
    let kind = statements.map(kind).max().unwrap_or(Kind::Session);
    let ends = matches!(operation.as_deref(), Some("COMMIT" | "ROLLBACK"));
    Fingerprint {
        text,
        operation: operation.unwrap_or_else(|| "EMPTY".to_owned()),
        tables: tables(&tokens),
        kind,
        mutating: kind == Kind::Write || kind == Kind::Transaction && ends,
    }
}

/// The name of a savepoint is made up by libraries, of threads and random numbers: it is a literal.
fn hide_savepoint(tokens: &mut [Token<'_>]) {
    let is = |token: Option<&Token<'_>>, words: &[&str]| matches!(token, Some(Token::Word(w)) if words.iter().any(|x| w.eq_ignore_ascii_case(x)));
    if is(tokens.first(), &["savepoint", "release", "rollback"])
        && let Some(at) = tokens.iter().rposition(|t| *t != Token::Symbol(";"))
        && at > 0
        && is(tokens.get(at - 1), &["savepoint", "to"])
    {
        tokens[at] = Token::Literal;
    }
}

impl Fingerprint {
    /// Whether the statement names a savepoint, and nothing else.
    pub fn of_savepoint(&self) -> bool {
        self.kind == Kind::Transaction && self.text.ends_with('?')
    }
}

/// An item of an `IN` list: where it stands, and which placeholder it is.
struct Item {
    from: usize,
    end: usize,
    placeholder: Option<usize>,
}

/// The `IN` lists of a statement that hold several literals and nothing else.
fn in_lists(sql: &str) -> Vec<Vec<Item>> {
    let (mut at, mut count, mut after_in) = (0, 0, false);
    let (mut lists, mut list): (Vec<Vec<Item>>, Option<Vec<Item>>) = (Vec::new(), None);
    while at < sql.len() {
        let (found, end) = token(sql, at);
        let (from, end) = (at, end.max(at + 1));
        at = end;
        let Some(found) = found else { continue };
        let placeholder = (found == Token::Literal && &sql[from..end] == "?").then_some(count);
        count += usize::from(placeholder.is_some());
        let opens = after_in && found == Token::Symbol("(");
        after_in = matches!(found, Token::Word(word) if word.eq_ignore_ascii_case("in"));
        list = match (list.take(), found) {
            _ if opens => Some(Vec::new()),
            (Some(mut items), Token::Literal) => {
                items.push(Item { from, end, placeholder });
                Some(items)
            }
            (Some(items), Token::Symbol(",")) => Some(items),
            (Some(items), Token::Symbol(")")) => {
                lists.extend((items.len() > 1).then_some(items));
                None
            }
            _ => None,
        };
    }
    lists
}

/// A statement and its parameters with every `IN` list of literals in order: where there is one, its
/// order says nothing (sets and maps of many languages give another one in every process). Lists of
/// what may be generated (ids, times) stay: their order is where they are told apart.
pub fn any_order(sql: &str, params: &[Value]) -> Option<(String, Vec<Value>)> {
    let shown = |item: &Item| match item.placeholder.map(|at| params.get(at)) {
        None => sql[item.from..item.end].to_owned(),
        Some(Some(Value::Text(text))) => format!("'{text}'"),
        Some(Some(Value::Int(n))) => n.to_string(),
        Some(_) => "?".repeat(24),
    };
    let lasting = |text: &str| {
        text.len() < 12 || text.len() < 64 && !text.contains(|c: char| c.is_ascii_digit() || c == '?')
    };
    let (mut out, mut sorted, mut done, mut any) = (String::new(), params.to_vec(), 0, false);
    for items in in_lists(sql) {
        let mut order: Vec<(String, &Item)> = items.iter().map(|item| (shown(item), item)).collect();
        if !order.iter().all(|(text, _)| lasting(text)) {
            continue;
        }
        any = true;
        order.sort_by(|a, b| a.0.cmp(&b.0));
        for (to, (_, from)) in items.iter().zip(order) {
            out += &sql[done..to.from];
            out += &sql[from.from..from.end];
            done = to.end;
            let (to, from) = (to.placeholder, from.placeholder);
            if let (Some(to), Some(from)) =
                (to.and_then(|at| sorted.get_mut(at)), from.and_then(|at| params.get(at)))
            {
                to.clone_from(from);
            }
        }
    }
    any.then(|| (out + &sql[done..], sorted))
}

/// A pattern of a rule in a form in which statements are matched; `*` stays what it is. One
/// that names a literal means that literal, and is matched against statements as they came.
pub fn pattern(glob: &str) -> String {
    let holes = |text: &str| text.matches('?').count();
    let normal = normal_pattern(glob);
    if holes(&normal) > holes(glob) { collapsed(glob) } else { normal }
}

fn normal_pattern(glob: &str) -> String {
    // An asterisk that stands alone is the wildcard, and may be glued to a word.
    glob.split('*')
        .map(|part| {
            let normal = normal_text(&tokens(part));
            let lead = if part.starts_with(char::is_whitespace) && !normal.is_empty() { " " } else { "" };
            let trail = if part.ends_with(char::is_whitespace) && !normal.is_empty() { " " } else { "" };
            format!("{lead}{normal}{trail}")
        })
        .collect::<Vec<_>>()
        .join("*")
}

/// One line, single spaces, lower case: a statement as people write it into a rule.
pub fn collapsed(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(';').to_lowercase()
}

/// Words before a parenthesis that are not the name of a function.
const SPACED: &[&str] = &[
    "in", "values", "value", "and", "or", "not", "on", "exists", "as", "using", "key", "select", "where",
    "from", "join", "when", "then", "else", "by", "all", "any", "some", "union", "index", "unique", "is",
    "between", "like", "limit", "set", "having", "over", "check", "distinct", "xor", "div", "mod",
];

fn normal_text(tokens: &[Token<'_>]) -> String {
    let mut words: Vec<String> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let word = match token {
            Token::Word(word) | Token::Quoted(word) | Token::Variable(word) => word.to_lowercase(),
            Token::Literal => "?".to_owned(),
            Token::Symbol(symbol) => (*symbol).to_owned(),
        };
        // A sign belongs to its literal, two adjacent literals are one text.
        if word == "?" {
            let sign = words.len() >= 2
                && matches!(words[words.len() - 1].as_str(), "-" | "+")
                && !is_operand(&words[words.len() - 2]);
            if sign {
                words.pop();
            } else if words.last().is_some_and(|last| last == "?") {
                continue;
            }
        }
        words.push(word);
        if words.last().is_some_and(|last| last == ")") {
            collapse(&mut words);
        }
    }
    while words.last().is_some_and(|last| last == ";") {
        words.pop();
    }
    spaced(&words)
}

fn is_operand(word: &str) -> bool {
    let named = word.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '@' | '?' | ')'));
    named && !SPACED.contains(&word) && !matches!(word, "return" | "offset" | "interval" | "case")
}

/// After a closing parenthesis: `(?, ?, ?)` behind `in` becomes `(?)`, `(..), (..)` becomes
/// `(..)`.
fn collapse(words: &mut Vec<String>) {
    let mut depth = 0;
    let open = words.iter().rposition(|word| {
        depth += i32::from(word == ")") - i32::from(word == "(");
        depth == 0
    });
    let Some(open) = open else { return };
    let before = open.checked_sub(1).and_then(|at| words.get(at)).map(String::as_str);
    let inside = &words[open + 1..words.len() - 1];
    if before == Some("in") && inside.iter().all(|w| w == "?" || w == ",") && inside.len() > 1 {
        words.truncate(open + 1);
        words.extend(["?".to_owned(), ")".to_owned()]);
    } else if before == Some(",") {
        let group = words.len() - open;
        let start = (open - 1).checked_sub(group);
        if let Some(start) = start
            && words[start..open - 1] == words[open..]
        {
            words.truncate(open - 1);
        }
    }
}

fn spaced(words: &[String]) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        let last = index.checked_sub(1).map(|at| words[at].as_str());
        let before = index.checked_sub(2).map(|at| words[at].as_str());
        let glued = match (last, word.as_str()) {
            (None, _) | (Some("(" | "."), _) | (_, "," | ")" | "." | ";") => true,
            (Some(last), "(") => {
                let name = last.starts_with(|c: char| c.is_alphabetic() || c == '_');
                name && !SPACED.contains(&last)
                    && !matches!(
                        before,
                        Some("into" | "table" | "exists" | "on" | "references" | "key" | "index")
                    )
            }
            _ => false,
        };
        if !glued {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

fn word_at<'a>(tokens: &[Token<'a>], at: usize) -> Option<&'a str> {
    match tokens.get(at) {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    }
}

fn tables(tokens: &[Token<'_>]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let begins = |word: &str| {
        ["from", "join", "into", "update", "table", "describe"].iter().any(|w| word.eq_ignore_ascii_case(w))
    };
    let skipped = ["if", "not", "exists", "ignore", "low_priority", "lateral", "only"];
    let mut at = 0;
    while at < tokens.len() {
        let opens = word_at(tokens, at).is_some_and(begins)
            // `ON DUPLICATE KEY UPDATE` and `FOR UPDATE` name no table.
            && !(at > 0 && word_at(tokens, at - 1).is_some_and(|w| w.eq_ignore_ascii_case("key") || w.eq_ignore_ascii_case("for") || w.eq_ignore_ascii_case("on")));
        at += 1;
        if !opens {
            continue;
        }
        while word_at(tokens, at).is_some_and(|w| skipped.iter().any(|s| w.eq_ignore_ascii_case(s))) {
            at += 1;
        }
        if let Some(name) = name_at(tokens, &mut at)
            && !found.contains(&name)
        {
            found.push(name);
        }
    }
    found
}

fn name_at(tokens: &[Token<'_>], at: &mut usize) -> Option<String> {
    let mut name = None;
    while let Some(Token::Word(word) | Token::Quoted(word)) = tokens.get(*at) {
        name = Some(word.to_lowercase());
        *at += 1;
        if tokens.get(*at) != Some(&Token::Symbol(".")) {
            break;
        }
        *at += 1;
    }
    name.filter(|name| name != "select" && name != "values")
}

fn kind(statement: &[Token<'_>]) -> Kind {
    let Some(first) = statement.iter().find_map(|t| match t {
        Token::Word(word) => Some(word.to_lowercase()),
        _ => None,
    }) else {
        return Kind::Read;
    };
    let second = word_at(statement, 1).unwrap_or_default().to_lowercase();
    match first.as_str() {
        "set" | "use" | "kill" => Kind::Session,
        "begin" | "commit" | "rollback" | "savepoint" | "release" | "xa" => Kind::Transaction,
        "start" if second == "transaction" => Kind::Transaction,
        "show"
            if matches!(
                second.as_str(),
                "variables" | "session" | "global" | "warnings" | "errors" | "collation" | "status"
            ) =>
        {
            Kind::Session
        }
        "select" if about_session(&statement[1..]) => Kind::Session,
        "with" | "select" | "show" | "explain" | "describe" | "desc" | "table" | "help" | "values" => {
            let writes = ["insert", "update", "delete"];
            let embedded = first == "with"
                && statement
                    .iter()
                    .any(|t| matches!(t, Token::Word(w) if writes.iter().any(|x| w.eq_ignore_ascii_case(x))));
            if embedded { Kind::Write } else { Kind::Read }
        }
        _ => Kind::Write,
    }
}

/// Whether a select list asks only for system variables and facts about the connection.
fn about_session(list: &[Token<'_>]) -> bool {
    let facts = ["database", "schema", "version", "connection_id", "current_user", "user", "session_user"];
    let words = ["as", "limit"];
    let mut asked = false;
    for (index, token) in list.iter().enumerate() {
        let call = list.get(index + 1) == Some(&Token::Symbol("("));
        let fine = match token {
            Token::Variable(name) => {
                asked = true;
                name.starts_with("@@")
            }
            Token::Word(word) if facts.iter().any(|f| word.eq_ignore_ascii_case(f)) && call => {
                asked = true;
                true
            }
            Token::Word(word) if words.iter().any(|w| word.eq_ignore_ascii_case(w)) => true,
            // An alias: a name after `AS` or after what it names.
            Token::Word(_) | Token::Quoted(_) => {
                !call && index > 0 && !matches!(list[index - 1], Token::Symbol(symbol) if symbol != ")")
            }
            Token::Symbol("," | "(" | ")") => true,
            Token::Literal => {
                index > 0
                    && matches!(list[index - 1], Token::Word(w) if words.iter().any(|x| w.eq_ignore_ascii_case(x)))
            }
            Token::Symbol(_) => false,
        };
        let from = matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("from"));
        if !fine || from {
            return false;
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savepoints_are_one() {
        for (sql, text) in [
            ("SAVEPOINT `cae12556_1351_4c88_be7f_1b55e39ed19e`", "savepoint ?"),
            ("RELEASE SAVEPOINT s140735_x1;", "release savepoint ?"),
            ("ROLLBACK WORK TO `a`", "rollback work to ?"),
        ] {
            let print = fingerprint(sql);
            assert_eq!((print.text.as_str(), print.of_savepoint()), (text, true));
        }
        assert!(!fingerprint("ROLLBACK").of_savepoint() && !fingerprint("SELECT ?").of_savepoint());
    }

    #[test]
    fn lists_have_no_order() {
        let text = |sql: &str| any_order(sql, &[]).map(|(sql, _)| sql);
        let sql = "SELECT 1 FROM t WHERE a IN ('b', 'a') AND c in (3,1)";
        assert_eq!(text(sql).as_deref(), Some("SELECT 1 FROM t WHERE a IN ('a', 'b') AND c in (1,3)"));
        for kept in [
            "SELECT 1 FROM t WHERE a IN ('b')",
            "SELECT 1 FROM t WHERE a IN (SELECT 1, 2)",
            "SELECT 1 FROM t WHERE a IN (b, 'a')",
            "INSERT INTO t VALUES (2, 1)",
            "SELECT 1 FROM t WHERE id IN (?, ?)",
            "SELECT 1 FROM t WHERE id IN ('9b2f1c9e-8d0b-4a63-8a53-f3c5d4f0a111', '1b2f1c9e-8d0b-4a63-8a53-f3c5d4f0a111')",
            "SELECT 1 FROM t WHERE id IN ('a', 'b",
        ] {
            assert_eq!(text(kept), None, "{kept}");
        }
        let params = [5, 9, 2, 7].map(Value::Int);
        let sql = "SELECT ? FROM t WHERE a IN (?, ?) AND b = ?";
        let want = (sql.to_owned(), [5, 2, 9, 7].map(Value::Int).to_vec());
        assert_eq!(any_order(sql, &params), Some(want));
    }

    fn text(sql: &str) -> String {
        fingerprint(sql).text
    }

    #[test]
    fn literals_space_case_and_comments_do_not_matter() {
        let want = "select id, uuid from orders where customer = ? and price > ? limit ?";
        for sql in [
            "SELECT id, uuid FROM orders WHERE customer = ? AND price > ? LIMIT ?",
            "select  `id`,`uuid`\nfrom `orders` where customer='a''b\\'c' and price>-4.5e-3 limit 10;",
            "/* traceparent='00-1' */ select id, uuid from orders -- x\nwhere customer=\"z\" and price > 0x1f limit 5",
        ] {
            assert_eq!(text(sql), want, "{sql}");
        }
        assert_eq!(text("select a - 5, b-?"), "select a - ?, b - ?");
    }

    #[test]
    fn lists_and_rows_collapse() {
        assert_eq!(
            text("SELECT count(*) FROM t WHERE a IN (1, 2,3)"),
            "select count(*) from t where a in (?)"
        );
        assert_eq!(
            text("INSERT INTO t (a, b) VALUES (1, NOW()), (2, NOW()), (3, NOW())"),
            "insert into t (a, b) values (?, now())"
        );
    }

    #[test]
    fn kinds_and_tables() {
        let of = |sql: &str| (fingerprint(sql).kind, fingerprint(sql).tables);
        assert_eq!(of("select @@max_allowed_packet, @@wait_timeout as w limit 1"), (Kind::Session, vec![]));
        assert_eq!(of("SELECT DATABASE()").0, Kind::Session);
        assert_eq!(of("SELECT 1").0, Kind::Read);
        assert_eq!(of("select @@x, id from orders").0, Kind::Read);
        assert_eq!(of("START TRANSACTION").0, Kind::Transaction);
        assert!(fingerprint("COMMIT").mutating && !fingerprint("BEGIN").mutating);
        assert_eq!(
            of("insert into `appdb`.`Orders` (a) values (1) on duplicate key update a = 2"),
            (Kind::Write, vec!["orders".to_owned()])
        );
        assert_eq!(of("select * from a join b on a.x = b.x for update").1, ["a", "b"]);
        assert_eq!(of("create table if not exists t (id int)").1, ["t"]);
    }

    #[test]
    fn scripts_split_at_real_delimiters() {
        let script = "insert into t values ('a;b', \"c\\\";\"); -- x; y\n# z;\nselect `a;b`; /* ; */\nDELIMITER //\ncreate trigger x begin a; b; end//\nDELIMITER ;\nselect 2";
        assert_eq!(
            split(script),
            [
                "insert into t values ('a;b', \"c\\\";\")",
                "-- x; y\n# z;\nselect `a;b`",
                "create trigger x begin a; b; end",
                "select 2"
            ]
        );
    }

    #[test]
    fn patterns_take_the_same_form() {
        assert_eq!(normal_pattern("INSERT  INTO `orders`*"), "insert into orders*");
        assert_eq!(pattern("*FROM orders where id=5"), "*from orders where id=5");
        assert_eq!(pattern("*FROM orders where id=?"), "*from orders where id = ?");
        assert_eq!(normal_pattern("UPDATE * SET"), "update * set");
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_fingerprint(sql in ".{0,200}") {
            fingerprint(&sql);
            split(&sql);
            placeholders(&sql);
        }
    }
}

//! Learned values: what a service makes up anew in each run and no pattern of [`crate::generated`] knows, found
//! by where it stands.
//!
//! Contract: pure. A [`Rule`] is one line of text and is printed as it is read. It holds for one interface, one
//! side, one operation and one path in the message, and only where the text there has the rule's form: what
//! stands around the hole is still compared. Text that is JSON is looked into (`:json`).
//! Not modelled: values that are spelled in another way than as they are (base64 inside of something else).

use crate::generated::{Generated, Kind};
use crate::json_places;
use crate::key_template::{self, HOLE};
use crate::value::Value;
use regex::Regex;
use std::fmt;
use std::ops::Range;

/// Name of the [`crate::Body::HostFact`] that holds a rule which a cell was recorded with.
pub const FACT: &str = "volatile";
/// Fewer characters than this are taken for a made-up value at their place only, not wherever they stand.
const TELLING: usize = 6;
/// Longest line of a rule, bytes.
const LINE_MAX: usize = 64 << 10;

/// Which message of an exchange it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// What is asked of an interface.
    Request,
    /// What the interface answers.
    Response,
    /// What a step of the scenario got.
    Step,
}

impl Side {
    /// All of them.
    pub const ALL: [Side; 3] = [Side::Request, Side::Response, Side::Step];

    /// The word in a rule.
    pub fn word(self) -> &'static str {
        match self {
            Side::Request => "request",
            Side::Response => "response",
            Side::Step => "step",
        }
    }

    /// The field of the canonical item that holds it.
    fn field(self) -> &'static str {
        match self {
            Side::Request => "request",
            Side::Response | Side::Step => "response",
        }
    }
}

/// What fits a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hole {
    /// Decimal digits, with or without a sign.
    Number,
    /// Hexadecimal digits.
    Hex,
    /// Letters, digits and `_`.
    Word,
    /// Letters, digits and `_ + / = . ~ -`.
    Token,
    /// Anything that is not empty, bytes too.
    Any,
}

impl Hole {
    /// All of them, the narrowest first.
    pub const ALL: [Hole; 5] = [Hole::Number, Hole::Hex, Hole::Word, Hole::Token, Hole::Any];

    /// The word between the braces.
    pub fn word(self) -> &'static str {
        match self {
            Hole::Number => "number",
            Hole::Hex => "hex",
            Hole::Word => "word",
            Hole::Token => "token",
            Hole::Any => "any",
        }
    }

    fn pattern(self) -> &'static str {
        match self {
            Hole::Number => "(-?[0-9]+)",
            Hole::Hex => "([0-9A-Fa-f]+)",
            Hole::Word => "([A-Za-z0-9_]+)",
            Hole::Token => "([A-Za-z0-9_+/=.~-]+)",
            Hole::Any => "((?s:.+))",
        }
    }
}

/// A piece of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that has to stand there.
    Literal(String),
    /// What is made up.
    Hole(Hole),
}

/// A text with holes.
#[derive(Debug, Clone)]
pub struct Form {
    pieces: Vec<Piece>,
    pattern: Regex,
}

impl PartialEq for Form {
    fn eq(&self, other: &Form) -> bool {
        self.pieces == other.pieces
    }
}

impl Form {
    /// A form of these pieces; none where it is too long for a pattern.
    pub fn new(pieces: Vec<Piece>) -> Option<Form> {
        let mut pattern = r"\A".to_owned();
        for piece in &pieces {
            match piece {
                Piece::Literal(text) => pattern.push_str(&regex::escape(text)),
                Piece::Hole(hole) => pattern.push_str(hole.pattern()),
            }
        }
        pattern.push_str(r"\z");
        Some(Form { pieces, pattern: Regex::new(&pattern).ok()? })
    }

    /// Its pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether a text has this form.
    pub fn fits(&self, text: &str) -> bool {
        self.pattern.is_match(text)
    }

    fn has_holes(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Hole(_)))
    }

    /// Where the holes are in a text that has this form.
    fn holes(&self, text: &str) -> Vec<Range<usize>> {
        let Some(found) = self.pattern.captures(text) else { return Vec::new() };
        found.iter().skip(1).flatten().map(|hole| hole.range()).collect()
    }

    /// # Errors
    /// Where in the text the mistake is, what it is, and what may have been meant.
    fn parse(text: &str) -> Result<Form, Mistake> {
        let (mut pieces, mut literal, mut at) = (Vec::new(), String::new(), 0);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with("{{") {
                literal.push('{');
                at += 2;
            } else if rest.starts_with('{') {
                let end = rest.find('}').map_or(rest.len(), |end| end + 1);
                let word = rest.get(1..end.max(2) - 1).unwrap_or_default();
                let known = Hole::ALL.into_iter().find(|hole| hole.word() == word);
                let Some(hole) = known else {
                    let holes: Vec<String> =
                        Hole::ALL.iter().map(|hole| format!("{{{}}}", hole.word())).collect();
                    return Err(Mistake {
                        at: at..at + end,
                        message: format!("`{}` is no hole", &rest[..end]),
                        hint: format!("there are {}; a brace itself is written {{{{", holes.join(", ")),
                    });
                };
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Hole(hole));
                at += end;
            } else {
                let len = rest.find('{').unwrap_or(rest.len());
                literal.push_str(rest.get(..len).unwrap_or_default());
                at += len;
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Form::new(pieces).ok_or_else(|| Mistake {
            at: 0..text.len(),
            message: "this form is too long".to_owned(),
            hint: "name a shorter text around the hole".to_owned(),
        })
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => write!(f, "{}", text.replace('{', "{{"))?,
                Piece::Hole(hole) => write!(f, "{{{}}}", hole.word())?,
            }
        }
        Ok(())
    }
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A field of a map, or the pair of that name in a list of pairs.
    Name(String),
    /// An item of a list, from 0.
    Index(usize),
    /// Every item of a list.
    Each,
    /// Into text that is JSON.
    Json,
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A path as it is written: `topics[].partitions[].records[].value:json.id`.
pub fn path_text(path: &[Segment]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-$@/".contains(c);
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Name(name) if !name.is_empty() && name.chars().all(plain) => {
                out.push_str(if out.is_empty() { "" } else { "." });
                out.push_str(name);
            }
            Segment::Name(name) => out.push_str(&format!("[{}]", quoted(name))),
            Segment::Index(index) => out.push_str(&format!("[{index}]")),
            Segment::Each => out.push_str("[]"),
            Segment::Json => out.push_str(":json"),
        }
    }
    out
}

fn parse_path(text: &str) -> Result<Vec<Segment>, Mistake> {
    let mut path = Vec::new();
    let mut at = 0;
    let wrong = |at: usize, message: &str| Mistake {
        at: at..text.len().max(at + 1),
        message: message.to_owned(),
        hint: "a path looks like body:json.id, params[2] or topics[].partitions[].records[].value".to_owned(),
    };
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some(after) = rest.strip_prefix(":json") {
            path.push(Segment::Json);
            at = text.len() - after.len();
        } else if let Some(after) = rest.strip_prefix("[]") {
            path.push(Segment::Each);
            at = text.len() - after.len();
        } else if rest.starts_with("[\"") {
            let (name, len) = json_string(&rest[1..]).ok_or_else(|| wrong(at, "this name has no end"))?;
            if rest.as_bytes().get(1 + len) != Some(&b']') {
                return Err(wrong(at, "this name has no end"));
            }
            path.push(Segment::Name(name));
            at += len + 2;
        } else if let Some(after) = rest.strip_prefix('[') {
            let digits = after.split(']').next().unwrap_or_default();
            let index = digits.parse().map_err(|_| wrong(at, "this is no place in a list"))?;
            if after.len() == digits.len() {
                return Err(wrong(at, "this bracket is not closed"));
            }
            path.push(Segment::Index(index));
            at += digits.len() + 2;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let len = name.find(['.', '[', ':']).unwrap_or(name.len());
            if len == 0 {
                return Err(wrong(at, "a name is missing here"));
            }
            path.push(Segment::Name(name.get(..len).unwrap_or_default().to_owned()));
            at += rest.len() - name.len() + len;
        }
    }
    if path.is_empty() {
        return Err(wrong(0, "the path is empty"));
    }
    Ok(path)
}

/// What is wrong in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the line that it is about.
    pub at: Range<usize>,
    /// What it is.
    pub message: String,
    /// What may have been meant.
    pub hint: String,
}

/// Where a value that each run makes up stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// `service.interface`.
    pub interface: String,
    /// Which message.
    pub side: Side,
    /// What was asked, or the verb of the step; may have holes itself.
    pub operation: Form,
    /// Where in the message.
    pub path: Vec<Segment>,
    /// The text there.
    pub form: Form,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.interface.clone(),
            self.side.word().to_owned(),
            self.operation.to_string(),
            path_text(&self.path),
            self.form.to_string(),
        ];
        let mut gap = "";
        for word in words {
            let plain = !word.is_empty()
                && !word.starts_with('"')
                && word.chars().all(|c| c.is_ascii_graphic() && c != '#');
            match plain {
                true => write!(f, "{gap}{word}")?,
                false => write!(f, "{gap}{}", quoted(&word))?,
            }
            gap = "  ";
        }
        Ok(())
    }
}

impl Rule {
    /// Reads a rule: interface, side, operation, path and form; words with spaces in them are JSON strings. What
    /// follows a `#` is a comment. None where the line says nothing.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(line: &str) -> Result<Option<Rule>, Mistake> {
        let words = words(line)?;
        let [interface, side, operation, path, form] = words.as_slice() else {
            let Some((_, last)) = words.last() else { return Ok(None) };
            let at = match words.get(5) {
                Some((_, sixth)) => sixth.start..last.end,
                None => last.end.saturating_sub(1)..last.end,
            };
            return Err(Mistake {
                at,
                message: format!("a line has five words, this one has {}", words.len()),
                hint: "INTERFACE SIDE OPERATION PATH FORM, as in: db.main request INSERT params[2] {word}; a word \
                       with spaces is \"quoted\""
                    .to_owned(),
            });
        };
        let Some(which) = Side::ALL.into_iter().find(|known| known.word() == side.0) else {
            return Err(Mistake {
                at: side.1.clone(),
                message: format!("`{}` is no side of an exchange", side.0),
                hint: "there are request, response and step".to_owned(),
            });
        };
        // A place inside a quoted word is that of the word.
        let within = |(text, at): &(String, Range<usize>), mistake: Mistake| match at.len() == text.len() {
            true => Mistake {
                at: at.start + mistake.at.start..at.start + mistake.at.end.min(text.len()),
                ..mistake
            },
            false => Mistake { at: at.clone(), ..mistake },
        };
        let rule = Rule {
            interface: interface.0.clone(),
            side: which,
            operation: Form::parse(&operation.0).map_err(|mistake| within(operation, mistake))?,
            path: parse_path(&path.0).map_err(|mistake| within(path, mistake))?,
            form: Form::parse(&form.0).map_err(|mistake| within(form, mistake))?,
        };
        if !rule.form.has_holes() {
            return Err(Mistake {
                at: form.1.clone(),
                message: "this form has no hole, so there is nothing that a run could make up".to_owned(),
                hint: format!("`{}` for the whole text, `id-{}` for a part of it", "{word}", "{word}"),
            });
        }
        Ok(Some(rule))
    }

    /// Whether it is about this message; `seen` is the operation with placeholders for what the patterns know.
    pub(crate) fn is_about(&self, interface: &str, operation: &str, seen: &str) -> bool {
        let fits = |operation| self.operation.pattern.is_match(operation);
        self.interface == interface && (fits(operation) || fits(seen))
    }

    /// Whether it is about this place in this message.
    pub fn finds_at(&self, interface: &str, side: Side, operation: &str, path: &[Segment]) -> bool {
        self.side == side && self.path == path && self.is_about(interface, operation, operation)
    }

    /// Whether it stands at the same place as another and has the same text around its holes.
    fn is_alike(&self, other: &Rule) -> bool {
        let shape = |piece: &(&Piece, &Piece)| match piece {
            (Piece::Literal(a), Piece::Literal(b)) => a == b,
            (a, b) => matches!((a, b), (Piece::Hole(_), Piece::Hole(_))),
        };
        (&self.interface, self.side, &self.operation, &self.path)
            == (&other.interface, other.side, &other.operation, &other.path)
            && self.form.pieces.len() == other.form.pieces.len()
            && self.form.pieces.iter().zip(&other.form.pieces).all(|pair| shape(&pair))
    }

    /// A rule that finds what this one and another that is like it find; none where they are not alike.
    pub fn widened(&self, other: &Rule) -> Option<Rule> {
        let wider = |(a, b): (&Piece, &Piece)| match (a, b) {
            (Piece::Hole(a), Piece::Hole(b)) => Piece::Hole(*a.max(b)),
            (a, _) => a.clone(),
        };
        let pieces =
            self.is_alike(other).then(|| self.form.pieces.iter().zip(&other.form.pieces).map(wider))?;
        Some(Rule { form: Form::new(pieces.collect())?, ..self.clone() })
    }
}

/// The words of a line with their places, up to a comment.
fn words(line: &str) -> Result<Vec<(String, Range<usize>)>, Mistake> {
    let mut found = Vec::new();
    let mut at = 0;
    if line.len() > LINE_MAX {
        let message = format!("a line of more than {LINE_MAX} bytes");
        return Err(Mistake { at: 0..1, message, hint: "name a shorter text around the hole".to_owned() });
    }
    while let Some(rest) = line.get(at..).filter(|rest| !rest.is_empty()) {
        let skipped = rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        at += skipped;
        if rest.is_empty() || rest.starts_with('#') {
            break;
        }
        let (word, len) = if rest.starts_with('"') {
            json_string(rest).ok_or_else(|| Mistake {
                at: at..line.trim_end().len(),
                message: "this quoted word has no end".to_owned(),
                hint: "quoted words are JSON strings: a quote inside is written \\\"".to_owned(),
            })?
        } else {
            let len = rest.find(char::is_whitespace).unwrap_or(rest.len());
            (rest.get(..len).unwrap_or_default().to_owned(), len)
        };
        found.push((word, at..at + len));
        at += len;
    }
    Ok(found)
}

/// The JSON string that a text begins with, and its length there in bytes.
fn json_string(text: &str) -> Option<(String, usize)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let word = stream.next()?.ok()?;
    Some((word, stream.byte_offset()))
}

/// Whether a value that was made up is known wherever it stands, by its looks.
pub fn is_telling(value: &str) -> bool {
    value.len() >= TELLING && value.bytes().any(|byte| byte.is_ascii_digit())
}

/// A rule and the rest of the path to where it holds.
#[derive(Debug, Clone)]
pub(crate) struct Active {
    path: Vec<Segment>,
    form: Form,
}

/// The rules that hold in a message of this side; without one, in the item of the canonical form that the message
/// is a part of, where the operation is a text of its own.
pub(crate) fn active(
    rules: &[Rule],
    interface: &str,
    operation: &str,
    side: Option<Side>,
    seen: Seen<'_>,
) -> Vec<Active> {
    let mut found = Vec::new();
    if !rules.iter().any(|rule| rule.interface == interface) {
        return found;
    }
    let seen = seen(operation).text;
    for rule in rules.iter().filter(|rule| rule.is_about(interface, operation, &seen)) {
        match side {
            Some(side) if side != rule.side => {}
            Some(_) => found.push(Active { path: rule.path.clone(), form: rule.form.clone() }),
            None => {
                let mut path = vec![Segment::Name(rule.side.field().to_owned())];
                path.extend(rule.path.iter().cloned());
                found.push(Active { path, form: rule.form.clone() });
                if rule.operation.has_holes() {
                    let path = vec![Segment::Name("operation".to_owned())];
                    found.push(Active { path, form: rule.operation.clone() });
                }
            }
        }
    }
    found
}

/// A learned value.
pub(crate) fn generated(text: &str) -> Generated {
    Generated { kind: Kind::Learned, text: text.to_owned(), name: String::new() }
}

/// A text as rules see it: with placeholders for what the patterns know.
pub(crate) struct Sight {
    pub text: String,
    /// Places of placeholders in it, and of what they stand for.
    pub places: Vec<(Range<usize>, Range<usize>)>,
}

/// Who sees texts so.
pub(crate) type Seen<'a> = &'a dyn Fn(&str) -> Sight;

/// The message with what `name` says in the place of each value that a rule finds.
pub(crate) fn replace(
    value: &Value,
    rules: &[Active],
    seen: Seen<'_>,
    name: &mut dyn FnMut(&Generated) -> String,
) -> Value {
    let tails: Vec<(&[Segment], &Form)> =
        rules.iter().map(|rule| (rule.path.as_slice(), &rule.form)).collect();
    walk(value, &tails, seen, name)
}

type Tails<'a> = [(&'a [Segment], &'a Form)];

fn walk(
    value: &Value,
    tails: &Tails<'_>,
    seen: Seen<'_>,
    name: &mut dyn FnMut(&Generated) -> String,
) -> Value {
    if tails.is_empty() {
        return value.clone();
    }
    let whole = |form: &Form, text: &str| matches!(form.pieces(), [Piece::Hole(_)]) && form.fits(text);
    match value {
        Value::Map(fields) => {
            let field = |(key, value): &(String, Value)| {
                let below = below(tails, |segment| *segment == Segment::Name(key.clone()));
                (key.clone(), walk(value, &below, seen, name))
            };
            Value::Map(fields.iter().map(field).collect())
        }
        Value::List(items) => {
            let item = |(at, item): (usize, &Value)| {
                let own = below(tails, |s| *s == Segment::Index(at) || *s == Segment::Each);
                let Value::List(pair) = item else { return walk(item, &own, seen, name) };
                let [Value::Text(key), value] = pair.as_slice() else { return walk(item, &own, seen, name) };
                let named = below(tails, |segment| *segment == Segment::Name(key.clone()));
                match named.is_empty() {
                    true => walk(item, &own, seen, name),
                    false => Value::List(vec![pair[0].clone(), walk(value, &named, seen, name)]),
                }
            };
            Value::List(items.iter().enumerate().map(item).collect())
        }
        Value::Text(text) => {
            let mut holes = Vec::new();
            for (path, form) in tails {
                holes.extend(in_text(text, path, form, seen));
            }
            Value::Text(put(text, holes, name))
        }
        Value::Int(_) | Value::UInt(_) => {
            let text = number_text(value);
            let fits = tails.iter().any(|(path, form)| path.is_empty() && whole(form, &text));
            if fits { Value::Text(name(&generated(&text))) } else { value.clone() }
        }
        Value::Bytes(bytes) => {
            let any = |(path, form): &(&[Segment], &Form)| {
                path.is_empty() && form.pieces == [Piece::Hole(Hole::Any)] && !bytes.is_empty()
            };
            match tails.iter().any(any) {
                true => Value::Text(name(&generated(""))),
                false => value.clone(),
            }
        }
        other => other.clone(),
    }
}

fn number_text(value: &Value) -> String {
    match value {
        Value::UInt(n) => n.to_string(),
        other => other.as_int().unwrap_or_default().to_string(),
    }
}

/// The rules that hold below a field or an item.
fn below<'a>(tails: &Tails<'a>, leads: impl Fn(&Segment) -> bool) -> Vec<(&'a [Segment], &'a Form)> {
    let rest = |(path, form): &(&'a [Segment], &'a Form)| match path.split_first() {
        Some((first, rest)) if leads(first) => Some((rest, *form)),
        _ => None,
    };
    tails.iter().filter_map(rest).collect()
}

/// Where the holes of a rule are in a text.
fn in_text(text: &str, path: &[Segment], form: &Form, seen: Seen<'_>) -> Vec<Range<usize>> {
    match path.split_first() {
        None => in_leaf(text, form, seen),
        Some((Segment::Json, rest)) => {
            let moved = |scalar: Range<usize>| {
                let holes = in_leaf(text.get(scalar.clone()).unwrap_or_default(), form, seen);
                holes.into_iter().map(move |hole| scalar.start + hole.start..scalar.start + hole.end)
            };
            json_places::scalars(text, rest).into_iter().flat_map(moved).collect()
        }
        Some(_) => Vec::new(),
    }
}

/// Holes in one text whose known generated values stand for themselves.
fn in_leaf(text: &str, form: &Form, seen: Seen<'_>) -> Vec<Range<usize>> {
    let straight = form.holes(text);
    if !straight.is_empty() {
        return straight;
    }
    let sight = seen(text);
    // A place in the template as one in the text; none inside a placeholder.
    let back = |at: usize| {
        let mut moved = at as i64;
        for (there, original) in &sight.places {
            if at >= there.end {
                moved += original.len() as i64 - there.len() as i64;
            } else if at > there.start {
                return None;
            }
        }
        usize::try_from(moved).ok()
    };
    let holes = form.holes(&sight.text);
    holes.into_iter().filter_map(|hole| Some(back(hole.start)?..back(hole.end)?)).collect()
}

fn put(text: &str, mut holes: Vec<Range<usize>>, name: &mut dyn FnMut(&Generated) -> String) -> String {
    holes.sort_by_key(|hole| (hole.start, std::cmp::Reverse(hole.end)));
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    for hole in holes {
        if hole.start < from {
            continue;
        }
        let (Some(before), Some(made_up)) = (text.get(from..hole.start), text.get(hole.clone())) else {
            continue;
        };
        out.push_str(before);
        out.push_str(&name(&generated(made_up)));
        from = hole.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// How a value stands in a stable key in which a protocol has put holes for what looks made up to it. `None` where it
/// stands there as it is, or not at all.
pub(crate) fn in_key(key: &str, value: &str) -> Option<String> {
    if key.contains(value) || !key.contains(HOLE) {
        return None;
    }
    let held = key_template::of(value);
    if held != HOLE && key.contains(&held) {
        return Some(held);
    }
    // In another run it may leave no hole, or more of it: but which hole it is can be known of one only.
    let has = |kind: fn(&u8) -> bool| value.as_bytes().iter().any(kind);
    let word = value.bytes().all(|byte| byte.is_ascii_alphanumeric()) && value.len() >= 8;
    let mixed = word && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    (mixed && key.matches(HOLE).count() == 1).then(|| HOLE.to_owned())
}

/// The text with what `name` says wherever one of these values stands by itself.
pub(crate) fn replace_known<'v>(
    text: &str,
    known: impl IntoIterator<Item = &'v String>,
    name: &mut dyn FnMut(&Generated) -> String,
) -> String {
    let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let mut holes = Vec::new();
    for value in known.into_iter().filter(|value| !value.is_empty()) {
        let alone = |at: &usize| {
            let before = at.checked_sub(1).and_then(|before| text.as_bytes().get(before));
            !word(before) && !word(text.as_bytes().get(at + value.len()))
        };
        let places = text.match_indices(value.as_str()).map(|(at, _)| at).filter(alone);
        holes.extend(places.map(|at| at..at + value.len()));
    }
    if holes.is_empty() { text.to_owned() } else { put(text, holes, name) }
}

/// [`replace_known`] in every text and integer of a message.
pub(crate) fn replace_known_in(
    value: &Value,
    known: &std::collections::BTreeSet<String>,
    name: &mut dyn FnMut(&Generated) -> String,
) -> Value {
    match value {
        Value::Text(text) => Value::Text(replace_known(text, known, name)),
        Value::Int(_) | Value::UInt(_) if known.contains(&number_text(value)) => {
            Value::Text(name(&generated(&number_text(value))))
        }
        Value::List(items) => {
            Value::List(items.iter().map(|item| replace_known_in(item, known, name)).collect())
        }
        Value::Map(fields) => {
            let field = |(key, value): &(String, Value)| (key.clone(), replace_known_in(value, known, name));
            Value::Map(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::Scanner;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NEAR: u64 = 1_795_480_000_000_000_000;

    fn rule(line: &str) -> Rule {
        Rule::parse(line).unwrap().unwrap()
    }

    /// What is compared of a message of `db.main INSERT` under one rule.
    fn compared(rest: &str, value: &Value) -> String {
        let scanner = Scanner::new(NEAR).with_rules([rule(&format!("db.main request INSERT {rest}"))]);
        let about = scanner.about("db.main", "INSERT", Some(Side::Request));
        serde_json::to_string(&format!("{:?}", about.template(value))).unwrap()
    }

    fn holds(rest: &str, value: Value) -> bool {
        compared(rest, &value).contains("<learned>")
    }

    #[test]
    fn a_rule_holds_at_its_path_and_in_its_form() {
        let params = |a: &str, b: &str| Value::map([("params", Value::List(vec![a.into(), b.into()]))]);
        assert!(holds("params[1] {word}", params("fixed", "k3x9")));
        assert!(!compared("params[1] {word}", &params("k3x9", "k3 x9")).contains("<learned>"));
        assert!(!holds("params[1] {number}", params("", "k3x9")), "of another kind");
        assert!(!holds("params[1] id-{word}", params("", "k3x9")), "without what stands around it");
        assert!(holds("params[] id-{hex}", params("id-f00", "")));
        assert!(holds("n {number}", Value::map([("n", Value::Int(-7))])));
        assert!(holds("n {any}", Value::map([("n", Value::Bytes(vec![255, 1]))])));
        let headers = Value::List(vec![Value::List(vec!["x-nonce".into(), "ab12".into()])]);
        assert!(holds("headers.x-nonce {word}", Value::map([("headers", headers)])));
        assert!(!holds("n {word}", Value::map([("n", Value::text("ab12").volatile())])), "volatile anyway");
    }

    #[test]
    fn json_in_a_text_is_looked_into_and_else_stays_as_it_is() {
        let body = |text: &str| Value::map([("body", Value::text(text))]);
        let path = "body:json.items[].id {word}";
        let both = compared(path, &body(r#"{ "items":[{"id":"a1","n":1}, {"id":"b2"}], "id":"c3"}"#));
        assert_eq!(both.matches("<learned>").count(), 2, "{both}");
        assert!(both.contains("c3") && both.contains("items"), "{both}");
        assert!(holds("body:json.n {number}", body(r#"{"n": 12}"#)));
        assert!(holds(r#"body:json["a.b"] {word}"#, body(r#"{"a\u002eb": "x"}"#)));
        for broken in [r#"{"n": 12"#, r#"{"n": }"#, r#"{"n": 12} more"#, "", "12", r#"{"n\"#] {
            assert!(!holds("body:json.n {number}", body(broken)), "{broken}");
        }
    }

    #[test]
    fn what_the_patterns_know_may_stand_around_a_hole() {
        let sql = |id: &str, word: &str| {
            Value::map([("sql", Value::text(format!("SELECT '{id}' = '{word}' AT 2026-11-24 00:43:06")))])
        };
        let form = r#"sql "SELECT '<uuid>' = '{word}' AT <datetime>""#;
        let one = compared(form, &sql("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "k3x9q2"));
        assert_eq!(one, compared(form, &sql("3f2504e0-4f89-41d3-9a0c-0305e82c3302", "b1c44x0z")));
        assert!(one.contains("<learned>") && one.contains("<uuid>"), "{one}");
    }

    #[test]
    fn a_learned_value_is_known_elsewhere_where_it_says_enough() {
        assert!(is_telling("k3x9q2") && !is_telling("7f3") && !is_telling("created"));
        let known = BTreeSet::from(["k3x9q2".to_owned()]);
        let scanner = Scanner::new(NEAR).knowing(known);
        let seen = |text: &str| match scanner.template(&Value::text(text)) {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(seen("lock:k3x9q2, k3x9q2"), "lock:<learned>, <learned>");
        assert_eq!(seen("ak3x9q2 k3x9q29"), "ak3x9q2 k3x9q29", "a part of a longer word is none");
        let rule = rule("cache.main request SET args[1] lock:{word}");
        let scanner = Scanner::new(NEAR).with_rules([rule]);
        let about = scanner.about("cache.main", "SET", Some(Side::Request));
        let request = Value::map([("args", Value::List(vec!["SET".into(), "lock:7f".into()]))]);
        assert_eq!(about.keyed("SET lock:7f", &request), "SET lock:<learned>");
        // What a protocol's key has holes for already.
        let keyed = |key: &str, value: &str| {
            let request =
                Value::map([("args", Value::List(vec!["SET".into(), Value::text(format!("lock:{value}"))]))]);
            about.keyed(key, &request)
        };
        assert_eq!(keyed("SET lock:rbjssps{}", "rbjssps81377"), "SET lock:<learned>");
        assert_eq!(keyed("SET lock:n{}z{}", "n1234z56789"), "SET lock:<learned>");
        assert_eq!(keyed("SET lock:{}", "a1b2c3d4e5"), "SET lock:<learned>");
        assert_eq!(keyed("SET lock:{}:{}", "a1b2c3d4e5"), "SET lock:{}:{}", "it could be either");
        assert_eq!(keyed("SET lock:{}", "x1"), "SET lock:{}", "too short for a hole");
    }

    #[test]
    fn a_wider_rule_takes_the_place_of_one_that_is_alike() {
        let of = |line: &str| rule(&format!("a.b request GET {line}"));
        let wider = of("x id-{hex}").widened(&of("x id-{word}")).unwrap();
        assert_eq!(wider, of("x id-{word}"));
        assert_eq!(of("x id-{hex}").widened(&of("x no-{hex}")), None);
        assert_eq!(of("x {hex}").widened(&of("y {hex}")), None);
    }

    proptest! {
        #[test]
        fn a_rule_is_printed_as_it_is_read(
            operation in "[ -~]{1,12}",
            name in "[ -~]{1,8}",
            literal in "[ -~äß\n]{0,12}",
            index in 0usize..99,
        ) {
            let pieces = |text: &str| vec![Piece::Literal(text.to_owned()), Piece::Hole(Hole::Token)];
            let written = Rule {
                interface: "a.b".to_owned(),
                side: Side::Step,
                operation: Form::new(vec![Piece::Literal(operation)]).unwrap(),
                path: vec![Segment::Name(name), Segment::Index(index), Segment::Each, Segment::Json],
                form: Form::new(match literal.is_empty() {
                    true => vec![Piece::Hole(Hole::Any)],
                    false => pieces(&literal),
                })
                .unwrap(),
            };
            prop_assert_eq!(Rule::parse(&written.to_string()), Ok(Some(written)));
        }

        #[test]
        fn no_line_and_no_text_panics(line in ".{0,60}", text in ".{0,60}") {
            let _ = Rule::parse(&line);
            let _ = holds("body:json.a[0] {any}", Value::map([("body", Value::text(text))]));
        }
    }
}

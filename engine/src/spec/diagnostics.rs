//! Diagnostics: what is wrong with a spec, where, and what was probably meant.
//!
//! Contract: every place is a place in the text that the user wrote (never in the rewritten
//! one), with the line and a caret below it.

use super::dialect::{Error, ErrorKind, FileSpan, Token};
use super::late::{self, Rewritten};
use std::collections::BTreeMap;
use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What was probably meant, what to do, who called.
    pub hints: Vec<String>,
}

/// A place in a file of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the root.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters of the line it covers, at least 1.
    pub width: usize,
    /// The whole line.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        let margin = self.place.as_ref().map_or(1, |place| place.line.to_string().len());
        if let Some(place) = &self.place {
            writeln!(f, "{:margin$}--> {}:{}:{}", "", place.file, place.line, place.column)?;
            writeln!(f, "{:margin$} |", "")?;
            writeln!(f, "{} | {}", place.line, place.text)?;
            let indent: String = place
                .text
                .chars()
                .take(place.column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            writeln!(f, "{:margin$} | {indent}{}", "", "^".repeat(place.width))?;
        }
        for hint in &self.hints {
            writeln!(f, "{:margin$} = {hint}", "")?;
        }
        Ok(())
    }
}

/// All that is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors(pub Vec<Diagnostic>);

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

/// Which argument of a call a problem is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// The named one.
    Named(String),
    /// The how many-th positional one, from 0, late ones included.
    Positional(usize),
    /// The pair (scenario, fault) of identifiers, wherever it stands in the call.
    Pair(String, String),
}

/// What a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The spec is wrong.
    Spec,
    /// An assertion does not hold.
    Assertion,
    /// The mock could not do it, the driver is missing: not the spec's fault.
    Faultbox,
}

/// A problem that a builtin found.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
    /// Which argument of the call it is about.
    pub argument: Option<Argument>,
    /// Which call, where it is another than the one that raises it.
    pub call: Option<FileSpan>,
    /// What it is.
    pub kind: Kind,
}

impl Problem {
    /// A problem with the spec.
    pub fn new(message: impl Into<String>) -> Self {
        Problem { message: message.into(), hint: None, argument: None, call: None, kind: Kind::Spec }
    }

    /// What this version does not do, loudly.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Problem::new(format!("{what} is not supported yet"))
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the nearest of the right names, if one is near.
    pub fn nearest<'a>(mut self, name: &str, right: impl IntoIterator<Item = &'a str>) -> Self {
        let right: Vec<&str> = right.into_iter().collect();
        self.hint = match nearest(name, right.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if !right.is_empty() && right.len() <= 24 => {
                Some(format!("there are: {}", right.join(", ")))
            }
            None => self.hint,
        };
        self
    }

    /// About a named argument.
    pub fn at(mut self, argument: &str) -> Self {
        self.argument = Some(Argument::Named(argument.to_owned()));
        self
    }

    /// About an argument.
    pub fn about(mut self, argument: Option<Argument>) -> Self {
        self.argument = argument.or(self.argument);
        self
    }

    /// About another call than the one that raises it.
    pub fn in_call(mut self, call: &Option<FileSpan>) -> Self {
        self.call = call.clone();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error::new_other(problem)
    }
}

/// The nearest of the right names, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, right: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let far = (name.chars().count() / 3).max(1) + 1;
    right
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= far && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The files of a spec as they were written and as the parser got them.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<String, (String, Rewritten)>);

impl Sources {
    /// Adds a file and gives the text for the parser.
    pub fn add(&mut self, file: &str, text: &str) -> String {
        let rewritten = late::rewrite(text);
        let parsed = rewritten.text.clone();
        self.0.insert(file.to_owned(), (text.to_owned(), rewritten));
        parsed
    }

    /// Where a span begins and ends in the text that was written.
    fn offsets(&self, span: &FileSpan) -> Option<(&str, usize, usize)> {
        let (text, rewritten) = self.0.get(span.filename())?;
        let begin = rewritten.original(span.span.begin().get() as usize).min(text.len());
        let end = rewritten.original(span.span.end().get() as usize).clamp(begin, text.len());
        Some((text, begin, end))
    }

    /// `file:line` of a span.
    pub fn line(&self, span: &FileSpan) -> String {
        match self.place(span) {
            Some(place) => format!("{}:{}", place.file, place.line),
            None => format!("{}:{}", span.filename(), span.resolve_span().begin.line + 1),
        }
    }

    /// The place of a span.
    pub fn place(&self, span: &FileSpan) -> Option<Place> {
        let (text, begin, end) = self.offsets(span)?;
        place_in(span.filename(), text, begin, end)
    }

    /// The text of a span as it was written, on one line.
    pub fn text(&self, span: &FileSpan) -> Option<String> {
        let (text, begin, end) = self.offsets(span)?;
        Some(text.get(begin..end)?.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The text of the first argument of a call, on one line.
    pub fn first_argument(&self, span: &FileSpan) -> Option<String> {
        let (text, begin, end) = self.offsets(span)?;
        let (from, to) = *arguments_of(text.get(begin..end)?).first().map(|(_, range)| range)?;
        Some(text.get(begin + from..begin + to)?.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The place of an argument of the call at `span`, else of the call.
    pub fn argument(&self, span: &FileSpan, argument: Option<&Argument>) -> Option<Place> {
        let (text, begin, end) = self.offsets(span)?;
        let found = argument.and_then(|wanted| {
            let call = text.get(begin..end)?;
            if let Argument::Pair(scenario, fault) = wanted {
                return pair_range(call, scenario, fault);
            }
            arguments_of(call).into_iter().find(|(argument, _)| argument == wanted).map(|(_, range)| range)
        });
        match found {
            Some((from, to)) => place_in(span.filename(), text, begin + from, begin + to),
            None => place_in(span.filename(), text, begin, end),
        }
    }

    /// The place of the name with which a span ends, else of the span.
    fn end_of(&self, span: &FileSpan, name: &str) -> Option<Place> {
        let (text, begin, end) = self.offsets(span)?;
        let begin = if text.get(begin..end)?.ends_with(name) { end - name.len() } else { begin };
        place_in(span.filename(), text, begin, end)
    }

    /// What an error of the evaluation says.
    pub fn diagnostic(&self, error: &Error) -> Diagnostic {
        let mut hints = Vec::new();
        let (message, place) = match problem(error) {
            Some(problem) => {
                hints.extend(problem.hint.clone());
                let call = problem.call.as_ref().or(error.span());
                let place = call.and_then(|span| self.argument(span, problem.argument.as_ref()));
                (problem.message.clone(), place)
            }
            None => {
                let (message, hint) = in_our_words(&error.without_diagnostic().to_string());
                hints.extend(hint);
                let place = error.span().and_then(|span| match attribute_name(&message) {
                    Some(name) => self.end_of(span, name),
                    None => self.place(span),
                });
                (message, place)
            }
        };
        let raised = error.span().map(|span| self.line(span));
        for frame in error.call_stack().frames.iter().rev() {
            let line = frame.location.as_ref().map(|span| self.line(span));
            if let Some(line) = line.filter(|line| Some(line) != raised.as_ref()) {
                hints.push(format!("called from {line}"));
            }
        }
        Diagnostic { message, place, hints }
    }
}

/// The problem of ours that an error carries.
pub fn problem(error: &Error) -> Option<&Problem> {
    match error.kind() {
        ErrorKind::Other(inner) | ErrorKind::Native(inner) => inner.downcast_ref::<Problem>(),
        _ => None,
    }
}

/// A place from byte offsets.
pub fn place_in(file: &str, text: &str, begin: usize, end: usize) -> Option<Place> {
    let line_begin = text.get(..begin)?.rfind('\n').map_or(0, |at| at + 1);
    let line_end = text.get(begin..)?.find('\n').map_or(text.len(), |at| begin + at);
    let line = text.get(line_begin..line_end)?.trim_end_matches('\r');
    let width = text.get(begin..end.min(line_end).max(begin))?.trim_end().chars().count().max(1);
    Some(Place {
        file: file.to_owned(),
        line: text.get(..line_begin)?.matches('\n').count() + 1,
        column: text.get(line_begin..begin)?.chars().count() + 1,
        width,
        text: line.to_owned(),
    })
}

/// The arguments of the last call in an expression, with the byte ranges of a named one's
/// name and of a positional one's value.
fn arguments_of(call: &str) -> Vec<(Argument, (usize, usize))> {
    let (tokens, _) = late::tokens(call);
    let mut found: Vec<(Argument, (usize, usize))> = Vec::new();
    let (mut depth, mut positional, mut expecting, mut lambdas) = (0usize, 0usize, false, 0usize);
    for (index, (begin, token, end)) in tokens.iter().enumerate() {
        let opens = matches!(token, Token::OpeningRound | Token::OpeningSquare | Token::OpeningCurly);
        let closes = matches!(token, Token::ClosingRound | Token::ClosingSquare | Token::ClosingCurly);
        if depth == 1 && expecting && !closes {
            expecting = false;
            let named = matches!(tokens.get(index + 1), Some((_, Token::Equal, _)));
            let argument = match token {
                Token::Identifier(name) if named => Argument::Named(name.clone()),
                _ => {
                    positional += 1;
                    Argument::Positional(positional - 1)
                }
            };
            found.push((argument, (*begin, *end)));
        } else if depth >= 1
            && !(depth == 1 && matches!(token, Token::Comma | Token::ClosingRound))
            && let Some((Argument::Positional(_), range)) = found.last_mut()
        {
            range.1 = *end;
        }
        if opens {
            if depth == 0 {
                // An earlier group was part of the callee.
                found.clear();
                positional = 0;
                expecting = true;
            }
            depth += 1;
        } else if closes {
            depth = depth.saturating_sub(1);
        } else if depth == 1 {
            match token {
                Token::Lambda => lambdas += 1,
                Token::Colon if lambdas > 0 => lambdas -= 1,
                Token::Comma if lambdas == 0 => expecting = true,
                _ => {}
            }
        }
    }
    found
}

/// Where the pair of two identifiers stands in the text of a call.
fn pair_range(text: &str, first: &str, second: &str) -> Option<(usize, usize)> {
    let (tokens, _) = late::tokens(text);
    tokens.windows(5).find_map(|window| match window {
        [
            (begin, Token::OpeningRound, _),
            (_, Token::Identifier(a), _),
            (_, Token::Comma, _),
            (_, Token::Identifier(b), _),
            (_, Token::ClosingRound, end),
        ] if a == first && b == second => Some((*begin, *end)),
        _ => None,
    })
}

/// Words of the language that this version does not have.
const LATER: &[&str] = &[
    "mock_service",
    "tls_cert",
    "client",
    "fault",
    "fault_start",
    "fault_stop",
    "fault_all",
    "fault_scenario",
    "partition",
    "kill",
    "pause",
    "restart",
    "oom",
    "skew",
    "jump",
    "freeze",
    "torn_write",
    "lost_fsync",
    "enospc_after",
    "events",
    "assert_eventually",
    "assert_never",
    "assert_before",
    "monitor",
    "eventually",
    "always",
    "await_event",
    "await_stable",
    "choose",
    "assume",
    "halt",
    "parallel",
    "hold",
    "release",
    "duration",
    "sleep",
    "observe",
    "setup",
    "teardown",
    "websocket",
    "postgres",
    "mongodb",
    "nats",
    "amqp",
    "memcached",
    "cassandra",
    "clickhouse",
    "dns",
    "smtp",
    "udp",
    "http2",
    "s3",
];

/// Attributes of every interface.
const INTERFACE: &[&str] = &["addr", "host", "port", "internal_addr", "name"];

/// The attribute that a message says is missing.
fn attribute_name(message: &str) -> Option<&str> {
    let name = message.split_once("has no attribute `").map(|(_, name)| name).or(message.strip_prefix('`'))?;
    name.split('`').next()
}

/// What the language's own messages say, in our words: (message, hint).
fn in_our_words(message: &str) -> (String, Option<String>) {
    let message = message.trim().trim_start_matches("Parse error: ");
    let (message, hint) = match message.split_once(", did you mean `") {
        Some((message, near)) => (message, Some(format!("did you mean `{}`?", near.trim_end_matches("`?")))),
        None => (message, None),
    };
    let between = |text: &str, before: &str, after: &str| -> Option<String> {
        Some(text.strip_prefix(before)?.strip_suffix(after)?.to_owned())
    };
    if let Some(name) = between(message, "Variable `", "` not found") {
        if LATER.contains(&name.as_str()) {
            return (format!("`{name}` is not supported yet"), None);
        }
        let hint = match name.as_str() {
            "jwt" => Some("load(\"@faultbox/mocks/jwt.star\", \"jwt\") brings it".to_owned()),
            _ => hint,
        };
        return (format!("unknown name `{name}`"), hint);
    }
    if let Some(rest) = message.strip_prefix("Object of type `")
        && let Some((kind, name)) = rest.split_once("` has no attribute `")
    {
        let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let name = name.trim_end_matches('`');
        let hint = match (kind, name) {
            ("module", "server") => {
                Some("load(\"@faultbox/mocks/grpc.star\", \"grpc\") brings it".to_owned())
            }
            ("interface", _) if hint.is_none() => match nearest(name, INTERFACE.iter().copied()) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None => Some(format!("there are {}, and the steps of its protocol", INTERFACE.join(", "))),
            },
            _ => hint,
        };
        return (format!("{article} {kind} has no attribute `{name}`"), hint);
    }
    let mut characters = message.chars();
    let first = characters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
    (first + characters.as_str(), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_found_in_the_text() {
        let call = "a(1).f(\"x\", k = g(2, 3), h(4, z = 5), j = lambda p, q: p)";
        let found = arguments_of(call);
        let texts: Vec<&str> = found.iter().map(|(_, (from, to))| &call[*from..*to]).collect();
        assert_eq!(texts, ["\"x\"", "k", "h(4, z = 5)", "j"]);
        assert_eq!(found[2].0, Argument::Positional(1));
    }

    #[test]
    fn the_nearest_name_is_one_that_may_be_meant() {
        assert_eq!(nearest("imgae", ["image", "binary", "env"]), Some("image"));
        assert_eq!(nearest("heathcheck", ["healthcheck", "reset"]), Some("healthcheck"));
        assert_eq!(nearest("zzz", ["image", "env"]), None);
    }

    #[test]
    fn a_diagnostic_is_shown_with_line_and_caret() {
        let text = "x = 1\ny = service(imgae = 2)\n";
        let place = place_in("a.star", text, 18, 23);
        let shown =
            Diagnostic { message: "no".to_owned(), place, hints: vec!["did you mean `image`?".to_owned()] }
                .to_string();
        let expected = "error: no\n --> a.star:2:13\n  |\n2 | y = service(imgae = 2)\n  |             ^^^^^\n  \
                        = did you mean `image`?\n";
        assert_eq!(shown, expected);
    }
}

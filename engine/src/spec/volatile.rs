//! The spec's side file: where services make values up anew in each run (`faultbox learn` writes it).
//!
//! Contract: `NAME.volatile` beside `NAME.star`, one rule a line ([`Rule`]), `#` before comments. It is read with
//! the spec and kept with it in the bundle. Everything wrong in it is reported, with its place.

use super::diagnostics::{Diagnostic, nearest, place_in};
use super::files::FileSource;
use crate::topology::Service;
use faultbox_bundle_format::learned::{Mistake, Rule, quoted};

/// A rule and the line of the side file on which it stands, from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The line.
    pub number: usize,
    /// What it says.
    pub rule: Rule,
}

/// The side file of a spec.
pub fn file_of(spec: &str) -> String {
    format!("{}.volatile", spec.strip_suffix(".star").unwrap_or(spec))
}

/// The side file of the spec `spec` as it is, where there is one.
///
/// # Errors
/// Why it cannot be read.
pub fn read(files: &dyn FileSource, spec: &str) -> Result<Option<Vec<u8>>, Diagnostic> {
    let file = file_of(spec);
    match files.read(&file) {
        Ok(content) => Ok(Some(content)),
        Err(why) if why == super::files::NO_SUCH_FILE => Ok(None),
        Err(why) => {
            Err(Diagnostic { message: format!("cannot read {file}: {why}"), place: None, hints: Vec::new() })
        }
    }
}

/// What a side file says, for these services.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse(file: &str, content: &[u8], services: &[Service]) -> Result<Vec<Line>, Vec<Diagnostic>> {
    let text = std::str::from_utf8(content).map_err(|_| {
        vec![Diagnostic { message: format!("{file} is not UTF-8 text"), place: None, hints: Vec::new() }]
    })?;
    let interfaces: Vec<String> = services
        .iter()
        .flat_map(|service| service.interfaces.iter().map(|i| format!("{}.{}", service.name, i.name)))
        .collect();
    let (mut lines, mut errors, mut begin) = (Vec::new(), Vec::new(), 0);
    let mut wrong = |begin: usize, mistake: Mistake| {
        let (from, to) = (begin + mistake.at.start, begin + mistake.at.end);
        let place = place_in(file, text, from, to);
        errors.push(Diagnostic { message: mistake.message, place, hints: vec![mistake.hint] });
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match Rule::parse(line.trim_end()) {
            Ok(Some(rule)) if !interfaces.contains(&rule.interface) => {
                let at = line.find(|c: char| !c.is_whitespace()).unwrap_or_default();
                let length = line[at..].find(char::is_whitespace).unwrap_or(line.len() - at);
                let near = nearest(&rule.interface, interfaces.iter().map(String::as_str));
                wrong(
                    begin,
                    Mistake {
                        at: at..at + length,
                        message: format!("no interface is called `{}`", rule.interface),
                        hint: match near {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => format!("there are: {}", interfaces.join(", ")),
                        },
                    },
                );
            }
            Ok(Some(rule)) => lines.push(Line { number: index + 1, rule }),
            Ok(None) => {}
            Err(mistake) => wrong(begin, mistake),
        }
        begin += line.len();
    }
    if errors.is_empty() { Ok(lines) } else { Err(errors) }
}

/// What a new side file begins with.
const HEAD: &str =
    "# What the services of this spec make up anew in each run: interface, side, operation, path, form.
# A comment names two values that were seen. `faultbox learn` adds lines and widens holes; it removes none.
";

/// The text of a side file with lines for further rules, each with the two values that it was learned from, sorted
/// among those that are there. A rule that takes the place of another takes its line.
pub fn amended<'r>(
    text: &str,
    further: impl IntoIterator<Item = (&'r Rule, Option<&'r Rule>, [&'r str; 2])>,
) -> String {
    let text = if text.trim().is_empty() { HEAD } else { text };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let rule_of = |line: &String| Rule::parse(line).ok().flatten();
    for (rule, instead, values) in further {
        let told = rule.to_string();
        let line = format!("{told}  # {}", values.map(shown).join(", "));
        let place = lines.iter().position(|old| {
            let old = rule_of(old);
            old.is_some() && old.as_ref() == instead
        });
        match place {
            Some(place) => lines[place] = line,
            None => {
                let later = |old: &String| rule_of(old).is_some_and(|old| old.to_string() > told);
                let place = lines.iter().position(later).unwrap_or(lines.len());
                lines.insert(place, line);
            }
        }
    }
    lines.join("\n") + "\n"
}

/// A value in a comment, on one line and not too long.
fn shown(value: &str) -> String {
    const LONGEST: usize = 40;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", quoted(&value[..end])),
        None => quoted(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(line: &str) -> Rule {
        Rule::parse(line).unwrap().unwrap()
    }

    #[test]
    fn lines_are_added_in_order_and_nothing_is_removed() {
        let first = rule("db.main request INSERT params[2] {word}");
        let text = amended("", [(&first, None, ["k3x9q2", "a81zq7"])]);
        let line = "db.main  request  INSERT  params[2]  {word}  # \"k3x9q2\", \"a81zq7\"\n";
        assert_eq!(text, format!("{HEAD}{line}"));
        let by_hand = format!("# mine\n{text}db.main request zzz sql {{any}} # stays\n");
        let second = rule("bus.main request Produce topics[].value:json.id {hex}");
        let wider = rule("db.main request INSERT params[2] {token}");
        let both = amended(&by_hand, [(&second, None, ["1f", "2e"]), (&wider, Some(&first), ["a-b", "c-d"])]);
        let lines: Vec<&str> = both.lines().collect();
        assert_eq!(lines[0], "# mine");
        assert!(lines[3].starts_with("bus.main  request  Produce"), "{both}");
        assert_eq!(lines[4], "db.main  request  INSERT  params[2]  {token}  # \"a-b\", \"c-d\"");
        assert_eq!(lines[5], "db.main request zzz sql {any} # stays");
        assert_eq!(lines.len(), 6);
        assert_eq!(amended(&both, []), both, "nothing to add, nothing changes");
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let text = "# fine\ndb.main request INSERT params[2] {wrod}\ndb.main requests a b {word}\nx.y step get a {any}\n";
        let errors = parse("a.volatile", text.as_bytes(), &[]).unwrap_err();
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            said[0].contains("`{wrod}` is no hole") && said[0].contains("--> a.volatile:2:34"),
            "{}",
            said[0]
        );
        assert!(
            said[1].contains("`requests` is no side") && said[1].contains("a.volatile:3:9"),
            "{}",
            said[1]
        );
        assert!(
            said[2].contains("no interface is called `x.y`") && said[2].contains("a.volatile:4:1"),
            "{}",
            said[2]
        );
        for line in
            ["a.b request", "a.b request GET x y", "a.b request GET x[ {any}", "a.b request GET \"x {any}"]
        {
            assert!(parse("a.volatile", line.as_bytes(), &[]).is_err(), "{line}");
        }
    }
}

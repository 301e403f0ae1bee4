//! `faultbox diff --format html`: the differences as a page that needs nothing else.
//!
//! Contract: made of the document that `--format json` prints; no script, and a policy that permits none.

use crate::report;
use crate::terminal::one_line;
use serde_json::Value as Json;

const STYLE: &str = "
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border: 1px solid #8888; padding: .3rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, monospace; }
section { margin: 2rem 0; }
";

/// The page.
pub fn page(summary: &str, document: &Json) -> String {
    let mut body = format!("<h1>{}</h1>\n<ul>\n", escaped(summary));
    for (name, side) in [("A", &document["a"]), ("B", &document["b"])] {
        body.push_str(&format!("<li>{name}: {}, seed {}</li>\n", code(&side["bundle"]), side["seed"]));
    }
    body.push_str("</ul>\n");
    for (name, cells) in [("only in A", &document["only_a"]), ("only in B", &document["only_b"])] {
        for cell in cells.as_array().into_iter().flatten() {
            body.push_str(&format!("<p>{name}: {}</p>\n", code(cell)));
        }
    }
    document["changed"].as_array().into_iter().flatten().for_each(|cell| changed(cell, &mut body));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src {}; base-uri 'none'; form-action 'none'\">\n<title>Faultbox: differences</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>",
        report::policy_hash(STYLE)
    )
}

fn changed(cell: &Json, body: &mut String) {
    body.push_str(&format!("<section>\n<h2>{}</h2>\n<table>\n", code(&cell["name"])));
    body.push_str("<tr><th scope=\"col\"></th><th scope=\"col\">A</th><th scope=\"col\">B</th></tr>\n");
    let mut row = |name: &str, a: &Json, b: &Json| {
        let name = escaped(name);
        body.push_str(&format!(
            "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td></tr>\n",
            code(a),
            code(b)
        ));
    };
    row("verdict", &cell["a"]["verdict"], &cell["b"]["verdict"]);
    row("reason", &cell["a"]["reason"], &cell["b"]["reason"]);
    let first = &cell["first"];
    if first.is_object() {
        let at = format!("{} [{}]", first["stream"].as_str().unwrap_or_default(), first["at"]);
        row(&at, &first["a"], &first["b"]);
        for field in first["fields"].as_array().into_iter().flatten() {
            row(field["path"].as_str().unwrap_or_default(), &field["a"], &field["b"]);
        }
    }
    body.push_str("</table>\n");
    if let Some(more) = cell["more"].as_u64().filter(|more| *more > 0) {
        body.push_str(&format!("<p>and {more} more differences</p>\n"));
    }
    body.push_str("</section>\n");
}

fn code(value: &Json) -> String {
    match value {
        Json::Null => "nothing".to_owned(),
        Json::String(text) if text.is_empty() => String::new(),
        Json::String(text) => format!("<code>{}</code>", escaped(text)),
        other => format!("<code>{}</code>", escaped(&other.to_string())),
    }
}

fn escaped(text: &str) -> String {
    let text = one_line(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_it_is_markup() {
        let hostile = "</code><script>x</script>\" onload='y";
        let side = serde_json::json!({ "verdict": hostile, "reason": hostile });
        let cell = serde_json::json!({ "name": hostile, "a": side, "b": side, "more": 1,
            "first": { "stream": hostile, "at": 0, "a": hostile, "b": null, "fields": [{ "path": hostile, "a": "1", "b": "2" }] } });
        let bundle = serde_json::json!({ "bundle": hostile, "seed": 1 });
        let document = serde_json::json!({ "a": bundle, "b": bundle, "only_a": [hostile], "only_b": [], "changed": [cell] });
        let page = page(hostile, &document);
        assert!(!page.contains("<script") && !page.contains("onload='"), "{page}");
        assert!(page.contains("<td>nothing</td>"), "{page}");
    }
}

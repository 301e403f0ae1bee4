//! The page of `faultbox report`: one HTML file that needs nothing else.
//!
//! [`document`] makes the data, [`tree`] puts values into text; `page.html`, `page.css` and the scripts in `page/` are
//! what shows it. Text from a bundle only ever becomes text there (`textContent`, or pixels of a canvas), never markup, a
//! style or an address; the address bar alone says what is shown, so that every view can be linked to; of a list only
//! the rows that are in sight exist. The grid's data and the script come first and the cells after them, so that a large
//! report is on the screen before it is read to its end.
//!
//! Contract: what a bundle holds reaches the page as JSON in elements that no browser executes, with every
//! character escaped that could end one; the policy in the page's head permits this one script and this
//! one style and nothing else, no address included. A bundle's bytes cannot drive a terminal to which
//! the file is printed either.

mod document;
pub mod tree;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use faultbox_bundle_format::{Bundle, ReadError};
use sha2::{Digest, Sha256};
use std::io::{self, Write};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// One script of one block: none of its names becomes the window's.
const SCRIPT: &str = concat!(
    "\"use strict\";\n{\n",
    include_str!("page/base.js"),
    include_str!("page/grid.js"),
    include_str!("page/cell.js"),
    include_str!("page/timeline.js"),
    include_str!("page/spec.js"),
    include_str!("page/search.js"),
    include_str!("page/main.js"),
    "}\n"
);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Writes the page of a bundle that people know by this name.
///
/// # Errors
/// When the bundle cannot be read, or the page not be written.
pub fn write(bundle: &Bundle, name: &str, out: &mut impl Write) -> Result<(), ReportError> {
    let report = document::Report::of(bundle, name)?;
    // What stands between the places that are filled in, in order.
    let mut rest = PAGE;
    for (place, content) in [
        ("{{policy}}", policy()),
        ("{{style}}", STYLE.to_owned()),
        ("{{index}}", in_script(&report.index())),
        ("{{script}}", SCRIPT.to_owned()),
    ] {
        let (before, after) = rest.split_once(place).unwrap_or((rest, ""));
        write!(out, "{before}{content}")?;
        rest = after;
    }
    let (before, after) = rest.split_once("{{cells}}").unwrap_or((rest, ""));
    out.write_all(before.as_bytes())?;
    for place in 0..report.len() {
        let cell = in_script(&report.cell(place)?);
        writeln!(out, "<script type=\"application/json\" id=\"cell-{place}\">{cell}</script>")?;
    }
    out.write_all(after.as_bytes())?;
    Ok(())
}

/// The content security policy: nothing but the style and the script that are in the page.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        policy_hash(SCRIPT),
        policy_hash(STYLE)
    )
}

/// How a policy names a script or a style that stands in the page.
pub fn policy_hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// JSON that can stand in a script element: what could end it, or begin a comment, is escaped.
fn in_script(document: &serde_json::Value) -> String {
    let text = document.to_string();
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_data_ends_its_element() {
        let hostile = serde_json::json!({
            "</script><!--": "<script>alert(1)</script>",
            "b": ["]]>", "&lt;", "a\u{2028}b\u{9b}", "\"\\"],
        });
        let text = in_script(&hostile);
        assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{9b}']), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), hostile);
    }

    #[test]
    fn the_page_has_its_places_in_order() {
        let mut rest = PAGE;
        for place in ["{{policy}}", "{{style}}", "{{index}}", "{{script}}", "{{cells}}"] {
            assert_eq!(PAGE.matches(place).count(), 1, "{place}");
            rest = rest.split_once(place).expect("in this order").1;
        }
        // The hash is of what stands in the element, which ends where its end is first spelt.
        assert!(!SCRIPT.contains("</script") && !SCRIPT.contains("<!--") && !STYLE.contains("</style"));
        assert!(PAGE.contains("<script>{{script}}</script>") && PAGE.contains("<style>{{style}}</style>"));
    }

    #[test]
    fn the_script_makes_no_html_and_no_code_out_of_text() {
        for banned in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
        {
            assert!(!SCRIPT.contains(banned), "{banned}");
        }
        for handler in [" onclick=", " onload=", " onerror=", "javascript:", "http://", "https://"] {
            assert!(!PAGE.contains(handler), "{handler}");
        }
    }
}

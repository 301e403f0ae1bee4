//! Files and secrets: `load_file`, `load_json`, `load_yaml`, `secret`.
//!
//! Contract: what is read is kept for the bundle. A path that is read only while a cell runs
//! (in a seed, a scenario) is found in the text of the spec before anything is evaluated, so
//! it must be a literal; another path at run time is refused.

use super::call::Call;
use super::convert;
use super::diagnostics::{Place, place_in};
use super::dialect::{Result, Token, Value};
use super::files;
use super::late;
use super::services::file_of;
use super::state::Stage;

/// Names of the builtins that read files.
const READERS: &[&str] = &["load_file", "load_json", "load_yaml"];

fn read(call: &Call<'_, '_, '_, '_>) -> Result<Vec<u8>> {
    let written = call.needed_text("path")?;
    let context = call.context()?;
    let unreadable = |why: String| call.problem("path", format!("cannot read \"{written}\": {why}"));
    let path = files::resolve(&file_of(call), &written).map_err(unreadable)?;
    if let Some(content) = context.shared.file(&path) {
        return Ok(content);
    }
    match &context.stage {
        Stage::Load(load) => {
            let content = load.files.read(&path).map_err(unreadable)?;
            context.shared.keep(&path, "loaded", &content);
            Ok(content)
        }
        Stage::Run(_) => {
            let problem =
                call.problem("path", format!("\"{written}\" was not read when the spec was loaded"));
            Err(problem
                .hint("while a cell runs, the path is a literal, so that the file is in the bundle")
                .into())
        }
    }
}

fn text(call: &Call<'_, '_, '_, '_>) -> Result<String> {
    let bytes = read(call)?;
    let text = String::from_utf8(bytes);
    Ok(text.map_err(|_| call.problem("path", "the file is not UTF-8 text"))?)
}

/// `load_file(path)`.
pub fn load_file<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let text = text(call)?;
    Ok(call.eval.heap().alloc(text))
}

/// `load_json(path)`.
pub fn load_json<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let text = text(call)?;
    let tree: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| call.problem("path", format!("the file is no JSON: {error}")))?;
    Ok(convert::from_plain(call.eval.heap(), &convert::from_json(&tree)))
}

/// `load_yaml(path)`.
pub fn load_yaml<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let text = text(call)?;
    let tree: serde_json::Value = serde_yaml_ng::from_str(&text)
        .map_err(|error| call.problem("path", format!("the file is no YAML: {error}")))?;
    Ok(convert::from_plain(call.eval.heap(), &convert::from_json(&tree)))
}

/// `secret(value, name=)`: the value itself; the recorder replaces it.
pub fn secret<'v>(call: &mut Call<'_, 'v, '_, '_>) -> Result<Value<'v>> {
    let value = call.needed_text("value")?;
    let context = call.context()?;
    let load = context.load("secret()")?;
    if value.is_empty() {
        return Err(call.problem("value", "a secret is not empty").into());
    }
    let mut draft = load.draft.borrow_mut();
    if !draft.secrets.iter().any(|(_, known)| *known == value) {
        let name = call.text("name")?.unwrap_or_else(|| format!("secret{}", draft.secrets.len() + 1));
        super::builtins::check_name(&name).map_err(|problem| call.problem("name", problem.message))?;
        if draft.secrets.iter().any(|(known, _)| *known == name) {
            return Err(call.problem("name", format!("another secret is called {name}")).into());
        }
        draft.secrets.push((name, value.clone()));
    }
    Ok(call.eval.heap().alloc(value))
}

/// The literal paths that a text reads, with the place of each.
pub fn literal_paths(file: &str, text: &str) -> Vec<(String, Option<Place>)> {
    let (tokens, _) = late::tokens(text);
    let found = tokens.windows(3).filter_map(|window| match window {
        [(_, Token::Identifier(name), _), (_, Token::OpeningRound, _), (begin, Token::String(path), end)]
            if READERS.contains(&name.as_str()) =>
        {
            Some((path.clone(), place_in(file, text, *begin, *end)))
        }
        _ => None,
    });
    found.collect()
}

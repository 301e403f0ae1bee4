//! First specs: out of an executable, a compose file or a descriptor set.
//!
//! Contract: a function of the file's content. What is written loads and runs as it is, and says where somebody who
//! knows the service has something to add. What a compose file has and a spec does not is named in a comment.

mod compose;
mod executable;
mod linked;

pub use compose::compose;

use faultbox_engine::protocol::grpc::message::Schema;

/// The workflow of `--ci github`; `{{spec}}` stands for the spec's path.
pub const GITHUB: &str = include_str!("github.yml");

/// Why there is no spec.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The file is none of the three.
    #[error(
        "it is no executable (ELF), no compose file (services: ...) and no descriptor set (protoc --descriptor_set_out)"
    )]
    Unknown,
    /// A compose file without a service that a spec can have.
    #[error("no service in it has an image or a build folder")]
    NoServices,
    /// Descriptors without methods.
    #[error("no service in it has a method that a test can call")]
    NoMethods,
}

/// A spec for a file of this content; `path` is how the spec names it, `name` what a service of it is called.
///
/// # Errors
/// When nothing can be made of it.
pub fn spec(content: &[u8], path: &str, name: &str, port: u16) -> Result<String, InitError> {
    if content.starts_with(b"\x7fELF") {
        return Ok(executable::executable(&linked::linked(content), path, name, port));
    }
    if let Some(found) = std::str::from_utf8(content).ok().and_then(compose) {
        return found;
    }
    match Schema::decode(content) {
        Ok(schema) => descriptors(&schema, path, name),
        Err(_) => Err(InitError::Unknown),
    }
}

/// A text as the language writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A name as the language's variables have them.
fn variable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = name.chars().map(plain).collect();
    // A word that the language knows already, or a number, is none.
    let taken = faultbox_engine::spec::words().contains(&name.as_str())
        || faultbox_engine::protocol::by_name(&name).is_some()
        || ["and", "def", "for", "if", "in", "load", "not", "or", "pass", "return", "lambda"]
            .contains(&name.as_str())
        || !name.starts_with(|c: char| c.is_ascii_alphabetic());
    if taken { format!("the_{name}") } else { name }
}

fn descriptors(schema: &Schema, path: &str, name: &str) -> Result<String, InitError> {
    let streams = |method: &str| schema.method(method).is_none_or(|m| m.is_client_streaming());
    let methods: Vec<String> = schema.methods().into_iter().filter(|method| !streams(method)).collect();
    if methods.is_empty() {
        return Err(InitError::NoMethods);
    }
    let (var, name, path) = (variable(name), quoted(name), quoted(path));
    let answers: String = methods
        .iter()
        .map(|method| format!("        {}: {{\"response\": {{}}}},\n", quoted(method)))
        .collect();
    let calls: String = methods
        .iter()
        .map(|method| {
            format!(
                "    response = step({var}.service.main, \"call\", method = {}, message = {{}})\n    \
                 assert_true(response.ok, \"%s: %s\" % ({0}, response.error))\n",
                quoted(method)
            )
        })
        .collect();
    Ok(format!(
        "# A first spec: a mock that answers every method with an empty message. docs/language.md has the rest.\n\n\
         load(\"@faultbox/mocks/grpc.star\", \"grpc\")\n\n\
         {var} = grpc.server(\n    name        = {name},\n    interface   = interface(\"main\", \"grpc\", 9000),\n    \
         descriptors = {path},\n    services    = {{\n{answers}    }},\n)\n\n\
         # Your service goes here, with {var}.service.main.addr in its environment.\n\n\
         def test_every_method_answers():\n{calls}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_none_of_them_is_said() {
        assert!(matches!(spec(b"#!/bin/sh\n", "x", "x", 1), Err(InitError::Unknown)));
        assert!(matches!(spec(b"services: {}", "x", "x", 1), Err(InitError::NoServices)));
        assert!(matches!(spec(b"", "x", "x", 1), Err(InitError::Unknown | InitError::NoMethods)));
    }

    #[test]
    fn names_are_names_of_the_language() {
        assert_eq!(variable("orders-api"), "orders_api");
        assert_eq!(variable("redis"), "the_redis");
        assert_eq!(variable("1st"), "the_1st");
        assert_eq!(quoted("a\"\\\n"), "\"a\\\"\\\\\\n\"");
    }
}

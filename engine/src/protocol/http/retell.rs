//! Exchanges as HTTP/1.1 again. Lengths and transfer codings are made anew; nothing is compressed that was not.

use super::value::{body_bytes, encode, put_header, put_headers};
use crate::protocol::retell::{Pieces, Retell};
use faultbox_bundle_format::Value;

/// A connection of HTTP/1.1.
pub struct Retold;

impl Retell for Retold {
    fn exchange(&mut self, request: &Value, response: Option<&Value>) -> Result<Pieces, String> {
        let text = |name: &str| request.get(name).and_then(Value::as_text).unwrap_or_default();
        let (method, query) = (text("method"), text("query"));
        let mark = if query.is_empty() { "" } else { "?" };
        let (body, _) = body_bytes(request.get("body"))?;
        let mut asked = format!("{method} {}{mark}{query} HTTP/1.1\r\n", text("path")).into_bytes();
        put_headers(&mut asked, request.get("headers"), &["content-length", "transfer-encoding", "trailer"]);
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            put_header(&mut asked, "content-length", body.len().to_string().as_bytes());
        }
        asked.extend_from_slice(b"\r\n");
        asked.extend_from_slice(&body);
        let answered = response.map(|response| encode(method, response)).transpose()?;
        let response = answered.map(|(bytes, _)| bytes).unwrap_or_default();
        Ok(Pieces { before: Vec::new(), request: asked, response })
    }
}

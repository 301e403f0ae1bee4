//! HTTP exchanges as HAR 1.2, which browsers and proxies open.
//!
//! Contract: one page a cell, one entry an exchange of an HTTP interface, in order of their beginning. What
//! is not in a bundle is not made up: sizes of heads are -1, all of an exchange's time is waiting. An exchange
//! without an answer has status 0 and says why in its comment.

use crate::host;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use faultbox_bundle_format::{Body, Bundle, CellSummary, Exchange, Outcome, ReadError, Value};
use faultbox_engine::protocol::http::value::body_bytes;
use serde_json::{Value as Json, json};

/// The document of these cells.
///
/// # Errors
/// When the bundle is damaged.
pub fn document(bundle: &Bundle, cells: &[&CellSummary]) -> Result<Json, ReadError> {
    let started = super::run_started(bundle)?;
    let base = started.as_ref().map_or(0, |started| started.unix_ns);
    let (mut pages, mut shown) = (Vec::new(), Vec::new());
    for cell in cells {
        let entries = bundle.entries(cell.cell)?;
        let mut exchanges: Vec<&Exchange> = entries
            .iter()
            .filter_map(|entry| match &entry.body {
                Body::Exchange(exchange) if exchange.protocol == "http" => Some(exchange),
                _ => None,
            })
            .collect();
        exchanges.sort_by_key(|exchange| (exchange.began_ns, exchange.began_seq));
        let Some(first) = exchanges.first() else { continue };
        pages.push(json!({
            "startedDateTime": host::iso(base.saturating_add(first.began_ns)),
            "id": cell.name,
            "title": cell.name,
            "pageTimings": {},
        }));
        shown.extend(exchanges.iter().map(|exchange| entry(&cell.name, base, exchange)));
    }
    let version = started.map_or(String::new(), |started| started.tool_version);
    let creator = json!({ "name": "faultbox", "version": version });
    Ok(json!({ "log": { "version": "1.2", "creator": creator, "pages": pages, "entries": shown } }))
}

fn entry(page: &str, base: u64, exchange: &Exchange) -> Json {
    let ms = exchange.ended_ns.saturating_sub(exchange.began_ns) as f64 / 1e6;
    let request = exchange.request.value().unwrap_or_default();
    let response = exchange.response.as_ref().and_then(|response| response.value());
    let mut entry = json!({
        "pageref": page,
        "startedDateTime": host::iso(base.saturating_add(exchange.began_ns)),
        "time": ms,
        "request": asked(exchange, &request),
        "response": answered(&response.unwrap_or_default()),
        "cache": {},
        "timings": { "send": 0, "wait": ms, "receive": 0 },
        "connection": exchange.connection.to_string(),
        "_source": exchange.source,
        "_interface": exchange.interface,
    });
    let said = match exchange.outcome {
        Outcome::Answered => None,
        Outcome::Dropped => Some("cut by a rule"),
        Outcome::Failed => Some("failed"),
        Outcome::Abandoned => Some("the asker went away"),
        Outcome::OneWay => Some("no answer wanted"),
    };
    let rule = exchange.rule.as_ref().map(|hit| format!("{}: {}", hit.assumption, hit.action));
    let comment: Vec<String> = said.map(str::to_owned).into_iter().chain(rule).collect();
    if let (Some(map), false) = (entry.as_object_mut(), comment.is_empty()) {
        map.insert("comment".to_owned(), comment.join("; ").into());
    }
    entry
}

fn asked(exchange: &Exchange, request: &Value) -> Json {
    let text = |name: &str| request.get(name).and_then(Value::as_text).unwrap_or_default();
    let (host, query) = (header(request, "host"), text("query"));
    let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| exchange.interface.to_string());
    let mark = if query.is_empty() { "" } else { "?" };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        json!({ "name": name, "value": value })
    };
    let pairs: Vec<Json> = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    let (body, said, _) = body(request);
    let mut json = json!({
        "method": text("method"),
        "url": format!("http://{host}{}{mark}{query}", text("path")),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": headers(request),
        "queryString": pairs,
        "headersSize": -1,
        "bodySize": body.len(),
    });
    if let (Some(map), false) = (json.as_object_mut(), body.is_empty() && said.is_none()) {
        let mime = header(request, "content-type").unwrap_or_default();
        let mut data = json!({ "mimeType": mime, "params": [], "text": String::from_utf8_lossy(&body) });
        if let (Some(data), Some(said)) = (data.as_object_mut(), said) {
            data.insert("comment".to_owned(), said.into());
        }
        map.insert("postData".to_owned(), data);
    }
    json
}

fn answered(response: &Value) -> Json {
    let (bytes, said, is_json) = body(response);
    let mime = header(response, "content-type");
    let mime = mime.unwrap_or_else(|| if is_json { "application/json" } else { "x-unknown" }.to_owned());
    let mut content = json!({ "size": bytes.len(), "mimeType": mime });
    if let Some(map) = content.as_object_mut() {
        match std::str::from_utf8(&bytes) {
            Ok(text) => drop(map.insert("text".to_owned(), text.into())),
            Err(_) => {
                map.insert("text".to_owned(), STANDARD.encode(&bytes).into());
                map.insert("encoding".to_owned(), "base64".into());
            }
        }
        if let Some(said) = said {
            map.insert("comment".to_owned(), said.into());
        }
    }
    let status = response.get("status").and_then(Value::as_int).unwrap_or(0);
    json!({
        "status": status,
        "statusText": response.get("reason").and_then(Value::as_text).unwrap_or_default(),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": headers(response),
        "content": content,
        "redirectURL": header(response, "location").unwrap_or_default(),
        "headersSize": -1,
        "bodySize": bytes.len(),
    })
}

/// The bytes of a body; why there are none, where it was not kept; and whether JSON was made of a tree.
fn body(of: &Value) -> (Vec<u8>, Option<String>, bool) {
    match body_bytes(of.get("body")) {
        Ok((bytes, is_json)) => (bytes, None, is_json),
        Err(why) => (Vec::new(), Some(why), false),
    }
}

/// Each header with each of its values.
fn pairs(of: &Value) -> impl Iterator<Item = (&str, String)> {
    let fields = of.get("headers").and_then(Value::as_map).unwrap_or_default();
    fields.iter().flat_map(|(name, value)| {
        let values = value.as_list().unwrap_or(std::slice::from_ref(value));
        let text = |value: &Value| String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned();
        values.iter().map(move |value| (name.as_str(), text(value)))
    })
}

fn header(of: &Value, wanted: &str) -> Option<String> {
    pairs(of).find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

fn headers(of: &Value) -> Vec<Json> {
    pairs(of).map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

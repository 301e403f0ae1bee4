//! One HTTP GET at a time, for the issuer's two documents.
//!
//! Not modelled: TLS, redirects, proxies. The issuer is inside the same network.

use crate::trace::{HEADER, Trace};
use axum::body::Bytes;
use axum::http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(2);
const LONGEST_BODY: usize = 256 * 1024;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
#[error("GET {url}: {why}")]
pub struct FetchError {
    url: String,
    why: String,
}

/// The body at `url`, in two seconds at most.
///
/// # Errors
/// When there is no answer in time, or another one than 200.
pub async fn get(url: &str, trace: &Trace) -> Result<Bytes, FetchError> {
    let failed = |why: String| FetchError { url: url.to_owned(), why };
    match tokio::time::timeout(LIMIT, attempt(url, trace)).await {
        Ok(result) => result.map_err(|error| failed(error.to_string())),
        Err(_) => Err(failed("no answer in 2 s".into())),
    }
}

async fn attempt(url: &str, trace: &Trace) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let uri: Uri = url.parse()?;
    if uri.scheme_str() != Some("http") {
        return Err("only http:// is spoken to the issuer".into());
    }
    let authority = uri.authority().ok_or("no host")?.clone();
    let address = (authority.host().to_owned(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect((address.0.as_str(), address.1)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::get(path)
        .header("host", authority.as_str())
        .header("accept", "application/json")
        .header(HEADER, trace.span())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST_BODY).collect().await?.to_bytes();
    connection.abort();
    if status != 200 {
        return Err(format!("status {status}").into());
    }
    Ok(body)
}

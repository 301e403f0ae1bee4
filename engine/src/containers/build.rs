//! `build=`: an image from a folder with a Dockerfile.
//!
//! Contract: the folder goes to the engine as it is, without what its `.dockerignore` names, as it
//! is read; the engine's cache decides what is built again. The image carries our label and a tag
//! that names the service and the folder, so that building again replaces it.
//!
//! Not modelled: BuildKit's own syntax (`RUN --mount`), build arguments, targets.

use super::context::{self, Ignore};
use super::engine::{Engine, ImageFacts};
use super::{ContainerError, LABEL, LABEL_SERVICE, words};
use bollard::query_parameters::{BuildImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::StreamExt;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::pin::pin;
use tokio::sync::mpsc;

/// How many lines of a build that failed are shown.
const LAST_LINES: usize = 12;
/// Bytes of a context that go at once.
const CHUNK: usize = 64 * 1024;

impl Engine {
    /// Builds the image of a service from a folder; says how that goes.
    ///
    /// # Errors
    /// When the folder cannot be read or has no Dockerfile, or the build fails: with its last lines.
    pub async fn build(
        &self,
        service: &str,
        written: &str,
        folder: &Path,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<ImageFacts, ContainerError> {
        let failed = |why: String| ContainerError::Build {
            service: service.to_owned(),
            folder: written.to_owned(),
            why,
        };
        let ignore = ignore(folder).map_err(failed)?;
        let tag = tag(service, folder);
        let before = self.local_image(&tag).await?;
        let labels = [(LABEL, env!("CARGO_PKG_VERSION")), (LABEL_SERVICE, service)];
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let options = BuildImageOptionsBuilder::new().t(&tag).labels(&labels).rm(true).forcerm(true).build();
        let body = bollard::body_try_stream(stream(folder, ignore));
        let mut last = VecDeque::new();
        let mut answers = pin!(self.docker.build_image(options, None, Some(body)));
        while let Some(answer) = answers.next().await {
            let why = match answer {
                Ok(info) => {
                    let said = info.stream.or(info.status).unwrap_or_default();
                    for line in said.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
                        progress(&format!("building {service}: {line}"));
                        last.push_back(line.to_owned());
                    }
                    last.drain(..last.len().saturating_sub(LAST_LINES));
                    info.error_detail.and_then(|detail| detail.message)
                }
                Err(error) => Some(words(&error)),
            };
            if let Some(why) = why {
                return Err(failed(with_lines(&why, &last)));
            }
        }
        let built = self.local_image(&tag).await?;
        let built = built.ok_or_else(|| failed("the engine built no image".to_owned()))?;
        if let Some(before) = before.filter(|before| before.id != built.id) {
            // A container that still runs may hold it: then it stays.
            let options = RemoveImageOptionsBuilder::new().build();
            let _ = self.docker.remove_image(&before.id, Some(options), None).await;
        }
        // What it is built on may be another than its name says; it itself is what it is.
        Ok(ImageFacts { name: format!("build {written}"), really: None, ..built })
    }
}

fn with_lines(why: &str, last: &VecDeque<String>) -> String {
    let lines = last.iter().filter(|line| !why.contains(line.as_str()));
    std::iter::once(why.to_owned())
        .chain(lines.map(|line| format!("    {line}")))
        .collect::<Vec<_>>()
        .join("\n")
}

fn ignore(folder: &Path) -> Result<Ignore, String> {
    if !folder.is_dir() {
        return Err(format!("{} is not a folder", folder.display()));
    }
    if !folder.join("Dockerfile").is_file() {
        return Err(format!("{} has no Dockerfile", folder.display()));
    }
    match std::fs::read_to_string(folder.join(".dockerignore")) {
        Ok(text) => Ignore::parse(&text).map_err(|why| format!(".dockerignore: {why}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ignore::default()),
        Err(error) => Err(format!(".dockerignore: {error}")),
    }
}

/// The tag of what is built for a service from a folder.
fn tag(service: &str, folder: &Path) -> String {
    let place = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = service.chars().map(plain).collect();
    format!("faultbox-build/{}:{}", name.trim_matches('-'), &place[..12])
}

/// The tar of a folder, written while it is sent.
fn stream(
    folder: &Path,
    ignore: Ignore,
) -> impl futures_util::Stream<Item = Result<bytes::Bytes, io::Error>> + Send + 'static {
    let (send, receive) = mpsc::channel(8);
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(CHUNK, Pipe(send.clone()));
        let written = context::write(&folder, &ignore, &mut out).and_then(|()| io::Write::flush(&mut out));
        if let Err(error) = written {
            // Nobody listens any more: then the build has failed already.
            let _ = send.blocking_send(Err(error));
        }
    });
    futures_util::stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|chunk| (chunk, receive))
    })
}

struct Pipe(mpsc::Sender<Result<bytes::Bytes, io::Error>>);

impl io::Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(bytes::Bytes::copy_from_slice(data)));
        sent.map(|()| data.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_the_service_and_the_folder() {
        let tag_a = tag("Order API", Path::new("/a"));
        assert!(tag_a.starts_with("faultbox-build/order-api:"), "{tag_a}");
        assert_ne!(tag_a, tag("Order API", Path::new("/b")));
    }

    #[test]
    fn a_failed_build_shows_its_last_lines_once() {
        let last = VecDeque::from(["Step 1/1 : RUN x".to_owned(), "x: not found".to_owned()]);
        let text = with_lines("x: not found", &last);
        assert_eq!(text, "x: not found\n    Step 1/1 : RUN x");
    }
}

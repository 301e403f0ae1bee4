//! `faultbox.lock`: what every image of a spec was when it was pinned.
//!
//! Contract: pure; one file beside the specs of a folder, one section a spec, in the order of names
//! so that it reads well in a diff. An image is pinned by the digest in its registry, and by its id
//! where it was made here.

use super::ImageFacts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the file.
pub const FILE: &str = "faultbox.lock";

/// Pins by the image's name.
pub type Pins = BTreeMap<String, String>;

/// The content of a `faultbox.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// Pins by the spec's file name.
    specs: BTreeMap<String, Pins>,
}

impl Default for Lock {
    fn default() -> Self {
        Lock { version: 1, specs: BTreeMap::new() }
    }
}

/// Where a spec's images and their pins part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// The image is another than the pinned one.
    Changed {
        /// Its name.
        image: String,
        /// What was pinned.
        locked: String,
        /// What is here.
        here: String,
    },
    /// The spec uses it and it is not pinned.
    Unpinned(String),
    /// It is pinned and the spec does not use it.
    Unused(String),
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Drift::Changed { image, locked, here } => {
                write!(f, "{image} is not what {FILE} pins: locked {locked}, here {here}")
            }
            Drift::Unpinned(image) => write!(f, "{image} is not in {FILE}"),
            Drift::Unused(image) => write!(f, "{FILE} pins {image}, which the spec does not use"),
        }
    }
}

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Lock, String> {
        let lock: Lock = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match lock.version {
            1 => Ok(lock),
            other => Err(format!("it has version {other}, this faultbox reads version 1")),
        }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        // Maps of strings can always be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Pins the images of a spec, instead of what it pinned before.
    pub fn pin<'a>(&mut self, spec: &str, images: impl IntoIterator<Item = &'a ImageFacts>) {
        let pins = images.into_iter().map(|image| (image.name.clone(), image.pin().to_owned()));
        self.specs.insert(spec.to_owned(), pins.collect());
    }

    /// The pins of a spec, if it has any.
    pub fn pins(&self, spec: &str) -> Option<&Pins> {
        self.specs.get(spec)
    }
}

/// Where a spec's images and their pins part, by name.
pub fn drifts<'a>(pins: &Pins, images: impl IntoIterator<Item = &'a ImageFacts>) -> Vec<Drift> {
    let images: BTreeMap<&str, &ImageFacts> =
        images.into_iter().map(|image| (image.name.as_str(), image)).collect();
    let mut drifts = Vec::new();
    for (name, image) in &images {
        match pins.get(*name) {
            None => drifts.push(Drift::Unpinned((*name).to_owned())),
            Some(pin) if !image.is(pin) => drifts.push(Drift::Changed {
                image: (*name).to_owned(),
                locked: pin.clone(),
                here: image.pin().to_owned(),
            }),
            Some(_) => {}
        }
    }
    let unused = pins.keys().filter(|name| !images.contains_key(name.as_str()));
    drifts.extend(unused.cloned().map(Drift::Unused));
    drifts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, id: &str, digests: &[&str]) -> ImageFacts {
        let digests: Vec<String> = digests.iter().map(|digest| (*digest).to_owned()).collect();
        ImageFacts {
            name: name.to_owned(),
            id: id.to_owned(),
            repo_digest: digests.first().cloned(),
            digests,
            ..ImageFacts::default()
        }
    }

    #[test]
    fn what_was_pinned_is_the_same_and_everything_else_is_a_drift() {
        let db = image("mysql:8", "sha256:1", &["mysql@sha256:a", "mirror/mysql@sha256:a"]);
        let api = image("build ./app", "sha256:2", &[]);
        let mut lock = Lock::default();
        lock.pin("other.star", [&api]);
        lock.pin("a.star", [&db, &api]);
        let lock = Lock::parse(&lock.text()).unwrap();
        let pins = lock.pins("a.star").unwrap();
        assert_eq!(pins["mysql:8"], "mysql@sha256:a");
        assert_eq!(pins["build ./app"], "sha256:2");
        assert_eq!(drifts(pins, [&db, &api]), []);
        // The same image under a mirror's name first.
        assert_eq!(
            drifts(pins, [&image("mysql:8", "sha256:1", &["mirror/mysql@sha256:a", "mysql@sha256:a"]), &api]),
            []
        );

        let changed = image("mysql:8", "sha256:3", &["mysql@sha256:b"]);
        let found = drifts(pins, [&changed, &image("redis:7", "sha256:4", &[])]);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "mysql:8 is not what faultbox.lock pins: locked mysql@sha256:a, here mysql@sha256:b",
                "redis:7 is not in faultbox.lock",
                "faultbox.lock pins build ./app, which the spec does not use",
            ]
        );
        assert_eq!(lock.pins("b.star"), None);
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        for text in ["", "{}", "{\"version\": 2, \"specs\": {}}", "{\"version\":1,\"specs\":{},\"x\":1}"] {
            assert!(Lock::parse(text).is_err(), "{text}");
        }
    }
}

//! The spec language: a Starlark front end that turns a spec into a [`crate::plan::Plan`].
//!
//! In reading order: [`load`] (`loader`) reads modules from a [`FileSource`], rewrites late
//! positional arguments (`late`), evaluates them in the `dialect` with the `builtins`, and
//! checks the whole, functions that have not run too (`lint`); `diagnostics` says what is wrong and where. Builtins work on the `state`
//! and are grouped by what they make: `services`, `faults`, `matrix`, `expect`, `steps`,
//! `loads`. The `volatile` file beside a spec says what its services make up. Objects of the language are in
//! `values`, arguments in `call`, data in `convert`.
//! The `program` runs the callables of a loaded spec. [`select`] and [`describe`] serve the
//! command line.
//!
//! Contract: nothing is ignored: an unknown name, keyword or attribute, a rule that its
//! protocol cannot carry out, an override for no cell are errors at load, with place, caret
//! and the nearest right name. A spec reads files below its own folder only.
//! Not modelled: part 2 of the language; each of its words is refused by name.

mod builtins;
mod call;
mod convert;
mod diagnostics;
mod dialect;
mod expect;
mod faults;
mod files;
mod late;
mod lint;
mod loader;
mod loads;
mod matrix;
mod program;
mod select;
mod services;
mod state;
mod steps;
mod syscalls;
mod values;
pub mod volatile;

#[cfg(test)]
mod tests;

pub use builtins::{signature, words};
pub use diagnostics::{Diagnostic, Place, SpecErrors, nearest};
pub use files::{DiskFiles, FileSource, MemoryFiles};
pub use loader::{LoadOptions, load};
pub use select::{SelectError, describe, select};

/// For the fuzz target: no text makes the front end panic.
pub fn fuzz_one(bytes: &[u8]) {
    let mut files = MemoryFiles::default();
    files.insert("fuzz.star", bytes.to_vec());
    let addresses = crate::addresses::AddressBook::isolated();
    let options = LoadOptions { files: Some(&files), ..LoadOptions::new(&addresses) };
    let _ = load(std::path::Path::new("fuzz.star"), &options);
}

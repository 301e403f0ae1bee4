//! The replayer: a cell driven again from its bundle, and the comparison with what was
//! recorded.
//!
//! In reading order: [`session`] drives and judges; [`tape`] matches requests to recorded
//! exchanges, [`waits`] knows how long they took; [`environment`] and [`oracle`] are the engine's seams over it; [`divergence`]
//! and [`diff`] say what differs, [`diagnosis`] where it comes from; [`learn`] tells what services make up.
#![forbid(unsafe_code)]

pub mod diagnosis;
pub mod diff;
pub mod divergence;
pub mod environment;
pub mod learn;
pub mod oracle;
pub mod session;
pub mod tape;
pub mod waits;

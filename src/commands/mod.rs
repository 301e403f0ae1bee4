//! One file a command. Each returns the exit code.

pub mod clean;
pub mod diff;
pub mod doctor;
pub mod hold;
pub mod images;
pub mod inspect;
pub mod manifest;
pub mod recover;
pub mod replay;
pub mod report;
pub mod run;
pub mod standin;
pub mod test;
pub mod verify;

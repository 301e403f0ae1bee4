//! One file a command, and what commands share. Each returns the exit code.

pub mod clean;
pub mod diff;
mod diff_page;
pub mod doctor;
pub mod export;
pub mod git_setup;
pub mod hold;
pub mod images;
pub mod init;
pub mod inspect;
pub mod learn;
pub mod manifest;
pub mod recover;
pub mod replay;
pub mod replay_report;
pub mod report;
pub mod run;
pub mod shell;
mod skipping;
pub mod stack;
pub mod standin;
pub mod test;
pub mod up;
pub mod verify;

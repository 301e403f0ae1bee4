//! Faults: what a rule matches and does ([`rule`]), and which of them act now ([`active`]).

pub mod active;
pub mod rule;

pub use active::{ActiveFaults, Firing};
pub use rule::{
    Assumption, Effect, Fields, Matcher, Modifiers, Pattern, Rule, Share, SyscallAction, SyscallRule, Target,
};

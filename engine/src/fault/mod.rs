//! Faults: what a rule matches and does ([`rule`]), and which of them act now ([`active`]).

pub mod active;
pub mod rule;

pub use active::{ActiveFaults, Firing, SyscallAsk};
pub use rule::{
    Assumption, Effect, FdScope, Fields, Matcher, Modifiers, Pattern, Rule, Share, SyscallAction,
    SyscallRule, Target,
};

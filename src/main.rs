//! The `faultbox` command.
fn main() {}

//! The replayer: a cell driven again from its bundle, and the comparison with what was recorded.

//! The `onced` binary.
fn main() {}

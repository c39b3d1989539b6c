//! The `napa` binary.

fn main() {}

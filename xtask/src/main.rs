//! Developer commands: `cargo xtask lab …`.

fn main() {}

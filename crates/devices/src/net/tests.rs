//! Cards on real taps, each test in a network namespace of its own.

mod bad_input;
mod card;
mod frame;
mod hostile;
mod namespace;
mod traffic;

//! The API as a client meets it: over its socket, byte by byte.

#![allow(clippy::unwrap_used)]

mod certificates;
mod document;
mod problems;
mod shapes;
mod support;

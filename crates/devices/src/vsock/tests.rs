//! The device between a guest that a test plays and Unix sockets.

mod connections;
mod flow;
mod guest;
mod hostile;
mod paths;

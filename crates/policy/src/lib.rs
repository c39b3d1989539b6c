//! What to do about the memory of a host: observation and offers in, grants and reasons out. Pure.
//!
//! It knows no clock, thread, file or guest, and no mechanism by name: the daemon and a simulator call the same
//! function.

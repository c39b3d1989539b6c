//! The routes, by what they do.

pub mod ask;
pub mod host;
pub mod logs;
pub mod verbs;
pub mod vms;

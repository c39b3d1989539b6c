//! What crosses a process boundary: the configuration of a VM, control messages, exit codes.
//!
//! The command line, a TOML file, the control socket and a snapshot share these types. Nothing here
//! opens a file or asks the host; [`VmConfig::check`] finds what contradicts itself in the words alone.

pub mod config;
pub mod control;
pub mod exit;
pub mod host;
pub mod mechanism;

pub use config::VmConfig;
pub use exit::Exit;

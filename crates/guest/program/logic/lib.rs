//! What the guest program decides, apart from how it touches the machine.
//!
//! Everything here is a function of values and runs on the host too, so that it can be tested there. It holds no
//! instruction of ring 0, no I/O port and no register; those live in the program itself.

#![cfg_attr(not(test), no_std)]

pub mod acpi;
pub mod balloon;
pub mod command_line;
pub mod cpu_time;
pub mod entropy;
pub mod histogram;
pub mod memory_map;
pub mod pattern;
pub mod random;
pub mod ring;
pub mod size;
pub mod start_info;
pub mod zipf;

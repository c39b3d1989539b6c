//! Why the guest could not do what it was told, and the exit code for it.

use crate::print_line;
use core::fmt::{self, Write};
use guest_logic::memory_map::OutOfMemory;
use heapless::String;

/// The command line or the start-of-day structure makes no sense.
pub const CODE_BAD_INPUT: u8 = 2;
/// Memory, disk or network did not keep what was written.
pub const CODE_CORRUPT: u8 = 3;
/// A device is missing, refuses to work, or a resource ran out.
pub const CODE_DEVICE: u8 = 4;
/// The guest itself failed.
pub const CODE_PANIC: u8 = 70;

/// A failure with its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    reason: String<104>,
}

impl Failure {
    /// A failure with a reason of at most 104 bytes; what is longer is cut.
    pub fn new(code: u8, reason: fmt::Arguments) -> Self {
        let mut failure = Self { code, reason: String::new() };
        // Too long a text is refused piece by piece: what fitted stays.
        let _ = failure.reason.write_fmt(reason);
        failure
    }

    /// Writes the line and gives the exit code.
    pub fn report(&self) -> u8 {
        print_line!("FAIL reason=\"{}\"", self.reason);
        self.code
    }
}

impl From<OutOfMemory> for Failure {
    fn from(error: OutOfMemory) -> Self {
        let (wanted, free) = (error.wanted >> 10, error.free >> 10);
        Self::new(CODE_BAD_INPUT, format_args!("{wanted} KiB do not fit the {free} KiB of free guest memory"))
    }
}

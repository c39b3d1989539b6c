//! The port by which a guest ends its VM with an exit code (see docs/guest-interface.md).

use std::ops::Range;

use napa_api::Exit;
use napa_virtio::BusDevice;

use crate::ExitSink;

/// Where it is.
pub(crate) const PORTS: Range<u16> = 0xf4..0xf8;

/// A write of `code`, in 1, 2 or 4 bytes, ends the VM with the low 8 bits of `code`. Reads as zero.
pub(crate) struct ExitPort {
    exit: ExitSink,
}

impl ExitPort {
    pub fn new(exit: ExitSink) -> Self {
        Self { exit }
    }
}

impl BusDevice for ExitPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let (0, [code, ..]) = (offset, data) {
            (self.exit)(Exit::Guest(*code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::testing::exits;

    #[test]
    fn the_low_byte_of_what_is_written_is_the_exit_code() {
        let check = |offset, data: &[u8], expected: &[Exit]| {
            let (sink, seen) = exits();
            ExitPort::new(sink).write(offset, data);
            assert_eq!(*seen.lock().unwrap(), expected, "{data:?} at {offset}");
        };
        check(0, &0_u32.to_le_bytes(), &[Exit::Guest(0)]);
        check(0, &255_u32.to_le_bytes(), &[Exit::Guest(255)]);
        check(0, &0x1_2345_u32.to_le_bytes(), &[Exit::Guest(0x45)]);
        check(0, &[7], &[Exit::Guest(7)]);
        check(1, &[7], &[]);
    }
}

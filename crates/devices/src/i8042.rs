//! The keyboard controller, as far as software still needs it: its reset line.
//!
//! There is no keyboard. The output buffer always holds a byte that cannot be drained, by which drivers
//! know within a millisecond that there is no working controller, while the input buffer is always free,
//! so that code which waits to send the reset command does not wait.

use std::ops::Range;

use napa_api::Exit;
use napa_virtio::BusDevice;

use crate::ExitSink;

/// The command and status port. The data port at 0x60 reads like any port where nothing answers.
pub(crate) const PORTS: Range<u16> = 0x64..0x65;

/// Output buffer full; the system flag says that the self-test passed.
const STATUS: u8 = 0x01 | 0x04;
/// What is read where nothing answers.
const NOTHING: u8 = 0xff;
/// Commands `0xf0..=0xff` pulse the output lines whose bit is zero; bit 0 is the processors' reset.
const PULSE_COMMANDS: u8 = 0xf0;
const RESET_LINE: u8 = 1;

/// A keyboard controller that only resets.
pub(crate) struct I8042 {
    exit: ExitSink,
}

impl I8042 {
    pub fn new(exit: ExitSink) -> Self {
        Self { exit }
    }
}

impl BusDevice for I8042 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(NOTHING);
        if let (0, [status, ..]) = (offset, data) {
            *status = STATUS;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (0, [command, ..]) = (offset, data) else { return };
        if command & PULSE_COMMANDS == PULSE_COMMANDS && command & RESET_LINE == 0 {
            (self.exit)(Exit::Reboot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::testing::exits;

    #[test]
    fn only_a_pulse_of_the_reset_line_resets() {
        for (offset, command, resets) in [
            (0, 0xfe, true),
            (0, 0xf0, true),
            (0, 0xff, false),
            (0, 0xee, false),
            (0, 0xaa, false),
            (1, 0xfe, false),
        ] {
            let (sink, seen) = exits();
            I8042::new(sink).write(offset, &[command]);
            let expected: &[Exit] = if resets { &[Exit::Reboot] } else { &[] };
            assert_eq!(*seen.lock().unwrap(), expected, "{command:#x} at {offset}");
        }
    }

    #[test]
    fn a_driver_finds_the_buffer_stuck_and_the_command_port_free() {
        let controller = I8042::new(exits().0);
        for _ in 0..32 {
            let mut status = [0];
            controller.read(0, &mut status);
            assert_eq!(status[0] & 0x01, 0x01, "output buffer full");
            assert_eq!(status[0] & 0x02, 0, "input buffer free");
        }
    }
}

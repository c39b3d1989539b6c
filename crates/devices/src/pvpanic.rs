//! The port on which a guest reports its panic: the ISA device `pvpanic`.

use std::ops::Range;
use std::sync::Once;

use napa_api::Exit;
use napa_virtio::BusDevice;

use crate::ExitSink;

/// Where it is; ACPI tells the guest under `QEMU0001`.
pub const PORTS: Range<u16> = 0x505..0x506;

/// The guest has panicked and does nothing more.
const PANICKED: u8 = 1;
/// The guest has panicked, and its crash kernel takes over.
const CRASH_LOADED: u8 = 2;

/// Reads tell which events are understood; a write reports some of them.
pub(crate) struct PvPanic {
    exit: ExitSink,
    crash_said: Once,
}

impl PvPanic {
    pub fn new(exit: ExitSink) -> Self {
        Self { exit, crash_said: Once::new() }
    }
}

impl BusDevice for PvPanic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (0, [events, ..]) = (offset, data) {
            *events = PANICKED | CRASH_LOADED;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (0, [events, ..]) = (offset, data) else { return };
        if events & PANICKED != 0 {
            (self.exit)(Exit::Panic);
        } else if events & CRASH_LOADED != 0 {
            // The VM goes on: the crash kernel saves what it came for and ends the VM itself.
            self.crash_said.call_once(|| eprintln!("napa: the guest has panicked; its crash kernel runs"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::testing::exits;

    #[test]
    fn a_panic_ends_the_vm_unless_a_crash_kernel_takes_over() {
        for (written, expected) in
            [(0, vec![]), (1, vec![Exit::Panic]), (2, vec![]), (3, vec![Exit::Panic]), (0xfc, vec![])]
        {
            let (sink, seen) = exits();
            PvPanic::new(sink).write(0, &[written]);
            assert_eq!(*seen.lock().unwrap(), expected, "{written}");
        }
    }

    #[test]
    fn both_events_are_offered() {
        let mut data = [0];
        PvPanic::new(exits().0).read(0, &mut data);
        assert_eq!(data, [3]);
    }
}

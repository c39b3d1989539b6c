//! The real-time clock and its battery-backed bytes: an MC146818 with a century byte.
//!
//! The time is the host's, in UTC, shifted by what the guest set. No interrupt is connected: alarms,
//! periodic and update-ended events are registers only. Memory sizes are not told here.

mod calendar;
mod registers;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use napa_virtio::BusDevice;

use self::registers::Registers;

/// Index port and data port.
pub(crate) const PORTS: Range<u16> = 0x70..0x72;
const INDEX: u64 = 0;
const DATA: u64 = 1;
/// Bit 7 of the index port masks the NMI on a PC and is no part of the index.
const INDEX_MASK: u8 = 0x7f;

/// The clock at ports 0x70 and 0x71.
#[derive(Default)]
pub(crate) struct Rtc {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: u8,
    registers: Registers,
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        // The index port is write-only, as on a PC.
        if let (DATA, [value, ..]) = (offset, data) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let index = state.index;
            *value = state.registers.read(index, now());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A 16-bit write to the index port sets the index and then the data.
        for (port, value) in (offset..).zip(data) {
            let index = state.index;
            match port {
                INDEX => state.index = value & INDEX_MASK,
                DATA => state.registers.write(index, *value, now()),
                _ => {}
            }
        }
    }
}

/// Time since 1970 by the host's clock; a host that believes to be earlier counts as 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

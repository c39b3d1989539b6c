//! Features (VIRTIO 1.3 §5.5.3) and configuration space (§5.5.4).

use std::sync::atomic::{AtomicU32, Ordering};

use napa_virtio::read_config_bytes;

/// Feature bits of the balloon.
pub(super) struct Feature;

impl Feature {
    /// The driver tells before it uses a page again.
    pub const MUST_TELL_HOST: u64 = 1 << 0;
    /// There is a queue for statistics.
    pub const STATISTICS: u64 = 1 << 1;
    /// The guest takes pages back rather than kill a program.
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    /// There is a queue for hints of free pages.
    pub const HINTS: u64 = 1 << 3;
    /// The driver says which value it expects in free pages. A kernel that writes one into them (zero or not) reports
    /// free pages only to a device that knows of it.
    pub const POISON: u64 = 1 << 4;
    /// There is a queue for reports of free pages.
    pub const REPORTING: u64 = 1 << 5;
    /// All that the device knows.
    pub const ALL: u64 = Self::MUST_TELL_HOST
        | Self::STATISTICS
        | Self::DEFLATE_ON_OOM
        | Self::HINTS
        | Self::POISON
        | Self::REPORTING;
}

/// The values of the configuration space.
#[derive(Default)]
pub(super) struct Registers {
    /// Pages that the guest is asked to give up; read-only to the driver.
    pub target: AtomicU32,
    /// Pages that the guest says it has given up.
    pub actual: AtomicU32,
    /// Which hints are wanted; read-only to the driver.
    pub hint_command: AtomicU32,
    /// What the guest expects in free pages.
    pub poison: AtomicU32,
}

const ACTUAL: usize = 4;
const POISON: usize = 12;
const BYTES: usize = 16;

impl Registers {
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.bytes(), offset, data);
    }

    /// Writes what the driver may write; a part of a field changes that part.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut bytes = self.bytes();
        for (index, byte) in data.iter().enumerate() {
            let place = offset.checked_add(index as u64).and_then(|place| usize::try_from(place).ok());
            if let Some(place) = place.and_then(|place| bytes.get_mut(place)) {
                *place = *byte;
            }
        }
        let field = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        self.actual.store(field(ACTUAL), Ordering::Relaxed);
        self.poison.store(field(POISON), Ordering::Relaxed);
    }

    fn bytes(&self) -> [u8; BYTES] {
        let fields = [&self.target, &self.actual, &self.hint_command, &self.poison];
        let mut bytes = [0; BYTES];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.load(Ordering::Relaxed).to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_writes_its_own_fields_alone() {
        let registers = Registers::default();
        registers.target.store(0x0102, Ordering::Relaxed);
        registers.write(0, &[0xff; 16]);
        let mut read = [0; 18];
        registers.read(0, &mut read);
        assert_eq!(read[..4], [2, 1, 0, 0]);
        assert_eq!(read[4..8], [0xff; 4]);
        assert_eq!(read[8..12], [0; 4]);
        assert_eq!(read[12..], [0xff, 0xff, 0xff, 0xff, 0, 0]);
        registers.write(5, &[1]);
        assert_eq!(registers.actual.load(Ordering::Relaxed), 0xffff_01ff);
        registers.write(u64::MAX, &[1, 2]);
    }
}

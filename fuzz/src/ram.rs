//! Guest RAM whose changes are watched.

use std::ops::Range;
use std::sync::Arc;

use napa_memory::{GuestRam, PageStates, RamRegion, allocate, host_address};
use napa_units::{Bytes, GuestAddress};
use napa_virtio::IoVec;
use vm_memory::{Bytes as _, GuestMemoryBackend as _, GuestMemoryRegion as _};

/// End of the first region, which starts at zero.
pub const LOW_END: u64 = 0x1_0000;
/// Start of the second region, behind a hole.
pub const HIGH_START: u64 = 0x10_0000;
/// End of the second region.
pub const HIGH_END: u64 = HIGH_START + 0x4000;

/// RAM in two pieces with a hole between them.
pub struct Ram {
    memory: Arc<GuestRam>,
    /// What each region held when somebody last looked.
    seen: Vec<Vec<u8>>,
}

impl Ram {
    /// Zeros.
    pub fn new() -> Self {
        let region = |start, end: u64| RamRegion { start: GuestAddress(start), size: Bytes(end - start) };
        let regions = [region(0, LOW_END), region(HIGH_START, HIGH_END)];
        let memory = Arc::new(allocate(&regions).expect("a few pages can be mapped"));
        let seen = regions.iter().map(|region| vec![0; region.size.0 as usize]).collect();
        Self { memory, seen }
    }

    /// The RAM itself.
    pub fn memory(&self) -> &Arc<GuestRam> {
        &self.memory
    }

    /// Its pages, none of which was discarded.
    pub fn pages(&self) -> Arc<PageStates> {
        Arc::new(PageStates::new(Arc::clone(&self.memory)))
    }

    /// Writes as the guest does. What lies outside RAM is left out.
    pub fn store(&mut self, address: u64, bytes: &[u8]) {
        // A guest's write past its RAM goes nowhere; the part before the hole is written.
        let _ = self.memory.write(bytes, vm_memory::GuestAddress(address));
        self.look();
    }

    /// Reads what must be RAM.
    pub fn load(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, vm_memory::GuestAddress(address)).expect("the caller names RAM");
        bytes
    }

    /// Reads a number of 16 bits that must be in RAM.
    pub fn load_half(&self, address: u64) -> u16 {
        u16::from_le_bytes([self.load(address, 1)[0], self.load(address + 1, 1)[0]])
    }

    /// Whether all bytes of the range are RAM, in one region.
    pub fn has(&self, address: u64, length: u32) -> bool {
        self.memory.get_slice(vm_memory::GuestAddress(address), length as usize).is_ok()
    }

    /// Where the guest sees a piece of this process. Panics if any of it is not the guest's.
    pub fn guest_range(&self, piece: &IoVec) -> Range<u64> {
        let start = piece.iov_base.addr() as u64;
        let found = self.memory.iter().find_map(|region| {
            let offset = start.checked_sub(host_address(region))?;
            let end = offset.checked_add(piece.iov_len as u64)?;
            (end <= region.len()).then(|| region.start_addr().0 + offset..region.start_addr().0 + end)
        });
        found.unwrap_or_else(|| panic!("{} bytes at {start:#x} are not the guest's", piece.iov_len))
    }

    /// Panics if anything but `allowed` has changed since the last look.
    pub fn check_changes(&mut self, what: &str, allowed: &[Range<u64>]) {
        for (region, seen) in self.memory.iter().zip(&mut self.seen) {
            let start = region.start_addr().0;
            let mut now = vec![0; seen.len()];
            self.memory.read_slice(&mut now, region.start_addr()).expect("a region is RAM");
            if now != *seen {
                let changed =
                    (start..).zip(now.iter().zip(seen.iter())).filter(|(_, (now, seen))| now != seen);
                for (address, _) in changed {
                    let is_allowed = allowed.iter().any(|range| range.contains(&address));
                    assert!(is_allowed, "{what} changed guest memory at {address:#x}");
                }
                *seen = now;
            }
        }
    }

    /// Takes what is there as seen.
    fn look(&mut self) {
        for (region, seen) in self.memory.iter().zip(&mut self.seen) {
            self.memory.read_slice(seen, region.start_addr()).expect("a region is RAM");
        }
    }
}

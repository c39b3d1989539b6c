//! What answers an access to I/O ports or memory-mapped registers.

/// A range of ports or of guest-physical addresses that leaves the guest for the VMM.
///
/// Called on vCPU threads, several at a time. Never called by the control thread, so an
/// implementation may wait for that thread.
pub trait BusDevice: Send + Sync {
    /// The guest reads `data.len()` bytes (1 to 8) at `offset` into the range.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// The guest writes `data` (1 to 8 bytes) at `offset` into the range.
    fn write(&self, offset: u64, data: &[u8]);
}

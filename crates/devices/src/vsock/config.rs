//! The configuration space of the socket device (VIRTIO 1.3 §5.10.4).

/// The guest's context id, as the driver reads it.
pub fn config_bytes(cid: u32) -> [u8; 8] {
    u64::from(cid).to_le_bytes()
}

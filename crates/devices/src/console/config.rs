//! Features and configuration space (VIRTIO 1.3 §5.3.3 and §5.3.4).

/// Feature bits.
pub(super) mod feature {
    /// VIRTIO_CONSOLE_F_SIZE: the configuration space tells columns and rows.
    pub const SIZE: u64 = 1 << 0;
    /// VIRTIO_CONSOLE_F_EMERG_WRITE: a byte can be written without a queue.
    pub const EMERGENCY_WRITE: u64 = 1 << 2;
}

/// Where the driver writes a byte in an emergency.
pub(super) const EMERGENCY_WRITE_OFFSET: u64 = 8;

/// `struct virtio_console_config`: columns, rows, number of ports (none without multiport), emergency write.
pub(super) fn config_space(columns: u16, rows: u16) -> [u8; 12] {
    let mut space = [0; 12];
    space[0..2].copy_from_slice(&columns.to_le_bytes());
    space[2..4].copy_from_slice(&rows.to_le_bytes());
    space
}

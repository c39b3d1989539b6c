//! What a VM says about itself.

use std::time::Instant;

use napa_api::control::{DeviceState, DeviceStatus, State, Status};
use napa_units::Bytes;
use napa_virtio::DeviceMonitor;

/// What stays the same while a VM runs, and where to look for the rest.
pub struct Identity {
    pub name: String,
    pub vcpus: u32,
    pub memory: Bytes,
    pub started: Instant,
    pub devices: Vec<Listed>,
}

/// A device with its place.
pub struct Listed {
    pub name: String,
    pub kind: &'static str,
    pub slot: u8,
    pub monitor: DeviceMonitor,
}

impl Identity {
    /// The VM in this state, now.
    pub fn status(&self, state: State) -> Status {
        Status {
            name: self.name.clone(),
            state,
            pid: std::process::id(),
            vcpus: self.vcpus,
            memory: self.memory,
            uptime_ms: self.started.elapsed().as_millis() as u64,
            devices: self.devices.iter().map(Listed::status).collect(),
        }
    }
}

impl Listed {
    fn status(&self) -> DeviceStatus {
        let state = match (self.monitor.needs_reset(), self.monitor.is_driven()) {
            (true, _) => DeviceState::NeedsReset,
            (false, true) => DeviceState::Active,
            (false, false) => DeviceState::Idle,
        };
        DeviceStatus {
            name: self.name.clone(),
            kind: self.kind.into(),
            pci: Some(format!("00:{:02x}.0", self.slot)),
            state,
        }
    }
}

/// What a virtio device id is called (VIRTIO 1.3 §5).
pub const fn kind(id: u16) -> &'static str {
    match id {
        1 => "virtio-net",
        2 => "virtio-blk",
        3 => "virtio-console",
        4 => "virtio-rng",
        19 => "virtio-vsock",
        _ => "virtio",
    }
}

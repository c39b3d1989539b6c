//! What a VM says about itself.

use std::time::Instant;

use napa_api::control::{DeviceState, DeviceStatus, State, Status};
use napa_virtio::DeviceMonitor;

use crate::opened::Opened;

/// The VM in this state, now.
pub fn status(opened: &Opened, monitors: &[DeviceMonitor], started: Instant, state: State) -> Status {
    let places = opened.devices.iter().zip(&opened.plan.pci).zip(monitors);
    let devices = places.map(|((plugged, place), monitor)| DeviceStatus {
        name: place.name.clone(),
        kind: kind(plugged.id).into(),
        pci: Some(format!("00:{:02x}.0", place.slot)),
        state: device_state(monitor),
    });
    Status {
        name: opened.config.name_or_default().to_owned(),
        state,
        pid: std::process::id(),
        vcpus: opened.config.cpus,
        memory: opened.config.memory,
        uptime_ms: started.elapsed().as_millis() as u64,
        devices: devices.collect(),
    }
}

fn device_state(monitor: &DeviceMonitor) -> DeviceState {
    match (monitor.needs_reset(), monitor.is_driven()) {
        (true, _) => DeviceState::NeedsReset,
        (false, true) => DeviceState::Active,
        (false, false) => DeviceState::Idle,
    }
}

/// What a virtio device id is called (VIRTIO 1.3 §5).
const fn kind(id: u16) -> &'static str {
    match id {
        1 => "virtio-net",
        2 => "virtio-blk",
        3 => "virtio-console",
        4 => "virtio-rng",
        5 => "virtio-balloon",
        19 => "virtio-vsock",
        24 => "virtio-mem",
        27 => "virtio-pmem",
        _ => "virtio",
    }
}

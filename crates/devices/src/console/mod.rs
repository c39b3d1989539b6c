//! virtio-console (VIRTIO 1.3 §5.3): one port, a terminal's size, and an emergency write.
//!
//! ```text
//!  receiveq  <-- Receive  <-- input, bounded --+
//!                                              |-- Port -- ConsoleBackend
//!  transmitq --> Transmit --> written at once -+
//! ```
//!
//! Both workers belong to the control thread, as does the back end's. A guest that writes faster than
//! the host reads keeps its buffers until there is room; they are given back in order.

mod config;
mod port;
mod receive;
mod transmit;

use std::sync::Arc;

use napa_sys::reactor::Worker;
use napa_virtio::{Activation, Device, DeviceError, Placed, Placement, read_config_bytes};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use self::config::{EMERGENCY_WRITE_OFFSET, config_space, feature};
use self::port::Port;
use self::receive::Receive;
use self::transmit::Transmit;
use crate::terminal::ConsoleKind;
use crate::{ConsoleBackend, Context, OpenError};

/// Entries of each queue.
const QUEUE_SIZE: u16 = 64;

/// Opens the console of a VM; every VM has one.
///
/// # Errors
/// The process is out of file descriptors.
pub fn open(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    Ok(vec![Box::new(VirtioConsole::new(context.console)?)])
}

struct VirtioConsole {
    backend: Arc<ConsoleBackend>,
    port: Arc<Port>,
}

impl VirtioConsole {
    fn new(backend: &Arc<ConsoleBackend>) -> Result<Self, OpenError> {
        let failed =
            |source| OpenError::Host { what: "cannot make an eventfd for the console".into(), source };
        Ok(Self { backend: Arc::clone(backend), port: Port::connect(backend).map_err(failed)? })
    }
}

impl Device for VirtioConsole {
    fn name(&self) -> &str {
        "console0"
    }

    fn id(&self) -> u16 {
        VIRTIO_ID_CONSOLE as u16
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn features(&self) -> u64 {
        feature::SIZE | feature::EMERGENCY_WRITE
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (columns, rows) = self.backend.size();
        read_config_bytes(&config_space(columns, rows), offset, data);
    }

    /// Works before the driver is ready: that is what it is for (VIRTIO 1.3 §5.3.4).
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (EMERGENCY_WRITE_OFFSET, [byte, ..]) = (offset, data) {
            self.backend.write_or_drop(ConsoleKind::Virtio, &[*byte]);
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        let Activation { features, queues, config_interrupt, .. } = activation;
        if features & feature::SIZE != 0 {
            self.port.tell_size_by(config_interrupt);
        }
        let mut queues = queues.into_iter();
        let mut workers: Vec<Placed> = Vec::new();
        if let Some(queue) = queues.next().flatten() {
            workers.push((Placement::Control, Box::new(Receive::new(queue, Arc::clone(&self.port)))));
        }
        if let Some(queue) = queues.next().flatten() {
            workers.push((Placement::Control, Box::new(Transmit::new(queue, Arc::clone(&self.port)))));
        }
        Ok(workers)
    }

    fn reset(&mut self, workers: Vec<Box<dyn Worker>>) {
        drop(workers);
        self.port.reset();
    }
}

#[cfg(test)]
mod tests;

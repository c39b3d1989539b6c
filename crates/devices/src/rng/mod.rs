//! virtio-rng (VIRTIO 1.3 §5.4): random bytes of the host's kernel.

mod worker;

use napa_virtio::{Activation, Device, DeviceError, Placed, Placement, read_config_bytes};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use self::worker::RngWorker;
use crate::{Context, OpenError};

/// Entries of the request queue: a driver has one request under way.
const QUEUE_SIZE: u16 = 16;

/// Opens the entropy device if the configuration asks for it.
///
/// # Errors
/// None so far.
pub fn open(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    let device = context.config.rng.then(|| Box::new(Rng) as Box<dyn Device>);
    Ok(device.into_iter().collect())
}

struct Rng;

impl Device for Rng {
    fn name(&self) -> &str {
        "rng0"
    }

    fn id(&self) -> u16 {
        VIRTIO_ID_RNG as u16
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    /// There is no configuration space (VIRTIO 1.3 §5.4.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&[], offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        let queues = activation.queues.into_iter().flatten();
        Ok(queues.map(|queue| (Placement::Control, Box::new(RngWorker::new(queue)) as _)).collect())
    }
}

#[cfg(test)]
mod tests;

//! The memory balloon (VIRTIO 1.3 §5.5): the guest gives memory up, says how its memory is, and tells what is free.
//!
//! ```text
//!   inflate ---> pages given up ---> gathered into huge pages --+--> discarded
//!   reports ---> free pages ------------------------------------+
//!   deflate ---> no longer given up
//!   hints -----> called free, not discarded       statistics ---> kept until the next ones
//! ```
//!
//! Invariants: a reported page is discarded before the guest gets its report back; a page is never discarded after the
//! guest was told that it has it again. A guest that lies loses its own data and nothing else: all that it names is
//! its own memory.

mod config;
mod handle;
mod hinting;
mod page_set;
mod pending;
mod queues;
mod request;
mod statistics;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use napa_api::config::BalloonConfig;
use napa_sys::reactor::Worker;
use napa_virtio::{Activation, Device, DeviceError, Placed, Placement};
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;

use self::config::Feature;
pub use self::handle::{Balloon, BalloonError, Hints};
pub use self::page_set::{PageSet, Run};
use self::queues::Queues;
use self::worker::BalloonWorker;
use crate::{Context, OpenError};

/// Opens the balloon if the VM has one.
///
/// # Errors
/// None so far.
pub fn open(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    let reports = context.config.balloon == BalloonConfig::On;
    let device = |balloon: &Arc<Balloon>| {
        let features = if reports { Feature::ALL } else { Feature::ALL & !Feature::REPORTING };
        Box::new(BalloonDevice { balloon: Arc::clone(balloon), features }) as Box<dyn Device>
    };
    Ok(context.balloon.map(device).into_iter().collect())
}

/// The guest's side of a [`Balloon`].
struct BalloonDevice {
    balloon: Arc<Balloon>,
    features: u64,
}

impl Device for BalloonDevice {
    fn name(&self) -> &str {
        "balloon0"
    }

    fn id(&self) -> u16 {
        VIRTIO_ID_BALLOON as u16
    }

    fn queue_sizes(&self) -> Vec<u16> {
        queues::sizes(self.features)
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.balloon.read_config(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.balloon.write_config(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        let Some(queues) = Queues::assign(activation.queues, activation.features) else {
            // A driver that does not set up the queues that there always are gets no balloon.
            return Ok(Vec::new());
        };
        let driver = handle::Driver {
            features: activation.features,
            config_interrupt: activation.config_interrupt,
            health: activation.health,
            // Devices may bring more memory; only the guest's own can be given up.
            memory: Arc::clone(activation.pages.all()),
        };
        self.balloon.bind(driver);
        let worker =
            BalloonWorker::new(Arc::clone(&self.balloon), activation.pages, queues, activation.features);
        Ok(vec![(Placement::Control, Box::new(worker))])
    }

    fn reset(&mut self, workers: Vec<Box<dyn Worker>>) {
        drop(workers);
        self.balloon.unbind();
    }
}

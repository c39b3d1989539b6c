//! The network card (VIRTIO 1.3 §5.1), on a tap device of the host.
//!
//! Each queue pair is one queue of the tap; frames go between guest RAM and the tap with one system call and
//! no copy. Checksums and segmentation are left undone where both sides can: a frame of 64 KiB passes whole.
//! The card never looks into a frame.
//!
//! ```text
//!  receiveq i  <-- Receive  <-- readv  --+
//!                                        |-- queue i of the tap -- the host's network
//!  transmitq i --> Transmit --> writev --+
//!  controlq    --> Control  --> how many queues of the tap take part
//! ```

mod config;
mod control;
mod features;
mod interface;
mod link;
mod open;
mod posted;
mod receive;
mod request;
mod tap;
mod transmit;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napa_api::VmConfig;
use napa_virtio::{Activation, Device, DeviceError, Placed, Placement, Queue, read_config_bytes};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ};

use self::config::Config;
use self::control::Control;
use self::features::{has, offered, tap_offloads};
use self::link::Link;
use self::open::QueueCount;
use self::receive::Receive;
use self::tap::Tap;
use self::transmit::Transmit;
use crate::{Context, OpenError};

/// Queue pairs of a card for which nobody chose a number: more add threads, not throughput.
const PAIRS_DEFAULT_MAX: usize = 4;
/// Entries of a receive or transmit queue.
const QUEUE_SIZE: u16 = 256;
/// Entries of the control queue: the driver waits for each command.
const CONTROL_QUEUE_SIZE: u16 = 16;
/// The control queue of a driver that uses one pair only (VIRTIO 1.3 §5.1.2).
const SINGLE_CONTROL: usize = 2;

/// Opens the cards that the configuration asks for.
///
/// # Errors
/// The first card whose tap cannot be had.
pub fn open(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    let card = |index| Ok(Box::new(Net::open(context.config, index)?) as Box<dyn Device>);
    (0..context.config.nets.len()).map(card).collect()
}

/// A network card.
struct Net {
    name: Arc<str>,
    tap: Arc<Tap>,
    config: Config,
    link_is_up: Arc<AtomicBool>,
}

impl Net {
    fn open(config: &VmConfig, index: usize) -> Result<Self, OpenError> {
        let net = &config.nets[index];
        let default = QueueCount::UpTo((config.cpus as usize).clamp(1, PAIRS_DEFAULT_MAX));
        let count = net.queues.map_or(default, |count| QueueCount::Exactly(usize::from(count)));
        let tap = open::open(&net.tap, count, net.mtu)?;
        let mac = config.mac_of(index).expect("the card is one of the configuration");
        let config = Config { mac, pairs: tap.queue_count() as u16, mtu: net.mtu.unwrap_or(tap.mtu()) };
        Ok(Self {
            name: format!("net{index}").into(),
            tap: Arc::new(tap),
            config,
            link_is_up: Arc::new(AtomicBool::new(true)),
        })
    }

    /// One queue takes part, until the driver asks for more, and frames need what the driver takes.
    fn prepare_tap(&self, features: u64) -> Result<(), DeviceError> {
        let prepared = self.tap.activate(1).and_then(|()| self.tap.set_offloads(tap_offloads(features)));
        match prepared {
            // The card lives on without a link.
            Err(_) if self.tap.queue(0).is_gone() => {
                self.link_is_up.store(false, Ordering::Release);
                Ok(())
            }
            Err(error) => Err(DeviceError {
                device: self.name.to_string(),
                problem: format!("cannot set the queues and offloads of its tap: {error}"),
            }),
            Ok(()) => Ok(()),
        }
    }
}

impl Device for Net {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> u16 {
        VIRTIO_ID_NET as u16
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let pairs = usize::from(self.config.pairs);
        let mut sizes = vec![QUEUE_SIZE; pairs * 2];
        if pairs > 1 {
            sizes.push(CONTROL_QUEUE_SIZE);
        }
        sizes
    }

    fn features(&self) -> u64 {
        offered(self.tap.offloads(), self.config.pairs)
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config.bytes(self.link_is_up.load(Ordering::Acquire)), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        let Activation { features, mut queues, config_interrupt, .. } = activation;
        self.prepare_tap(features)?;
        let link =
            Link { card: Arc::clone(&self.name), is_up: Arc::clone(&self.link_is_up), config_interrupt };
        let pairs = if has(features, VIRTIO_NET_F_MQ) { usize::from(self.config.pairs) } else { 1 };
        let mut take = |index: usize| -> Option<Queue> { queues.get_mut(index)?.take() };

        let mut workers = Vec::new();
        for pair in 0..pairs {
            let place = Placement::Io(pair);
            let tap = || Arc::clone(&self.tap);
            if let Some(queue) = take(pair * 2) {
                let worker = Receive::new(queue, tap(), pair, link.clone(), features);
                workers.push((place, Box::new(worker) as _));
            }
            if let Some(queue) = take(pair * 2 + 1) {
                let worker = Transmit::new(queue, tap(), pair, link.clone(), features);
                workers.push((place, Box::new(worker) as _));
            }
        }
        if has(features, VIRTIO_NET_F_CTRL_VQ) {
            let index = if has(features, VIRTIO_NET_F_MQ) { pairs * 2 } else { SINGLE_CONTROL };
            if let Some(queue) = take(index) {
                let worker = Control::new(queue, Arc::clone(&self.tap), pairs as u16);
                workers.push((Placement::Control, Box::new(worker) as _));
            }
        }
        Ok(workers)
    }
}

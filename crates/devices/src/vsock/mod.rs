//! Sockets between the guest and the host (VIRTIO 1.3 §5.10), with Unix sockets as the host's side.
//!
//! A client of the host connects to `PATH`, writes `CONNECT PORT` and a line feed, and reads `OK HOSTPORT`
//! and a line feed: from then on it talks to what listens on `PORT` in the guest. A connection of the guest
//! to port `P` of the host goes to the Unix socket `PATH_P`. Only streams are offered.
//!
//! ```text
//!   client --> PATH ---+                                 +--> guest's port
//!                      |--- Muxer: one Connection each --|
//!   service at PATH_P -+                                 +--- guest's program
//! ```
//!
//! Invariants: the device holds at most [`credit::BUFFER_BYTES`] for each of at most [`muxer::PEERS_MAX`]
//! connections; a packet that belongs to nothing is answered with a reset.

mod config;
mod connection;
mod credit;
mod greeting;
mod muxer;
mod request;
mod stream;
mod worker;

#[cfg(test)]
mod tests;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use napa_api::config::VsockConfig;
use napa_sys::socket::{BindError, Listener};
use napa_virtio::{Activation, Device, DeviceError, Placed, Placement, read_config_bytes};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use self::config::config_bytes;
use self::muxer::Muxer;
use self::worker::Sockets;
use crate::{Context, OpenError};

/// `VIRTIO_VSOCK_F_STREAM` (VIRTIO 1.3 §5.10.3).
const STREAM_FEATURE: u64 = 1;
/// Entries of the receive and the transmit queue.
const QUEUE_SIZE: u16 = 256;
/// Entries of the event queue.
const EVENT_QUEUE_SIZE: u16 = 16;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Opens the socket device, if the configuration asks for one.
///
/// # Errors
/// The Unix socket cannot be made.
pub fn open(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    let device = |vsock: &VsockConfig| Ok(Box::new(Vsock::open(vsock)?) as Box<dyn Device>);
    context.config.vsock.iter().map(device).collect()
}

/// The socket device. Its Unix socket vanishes with it.
struct Vsock {
    config: VsockConfig,
    listener: Listener,
}

impl Vsock {
    fn open(config: &VsockConfig) -> Result<Self, OpenError> {
        let listener = Listener::bind(&config.path).map_err(|error| match error {
            BindError::Refused { .. } => OpenError::Input(format!(
                "--vsock: {error}; choose a path in a folder that exists and that you may write"
            )),
            error => OpenError::Input(format!("--vsock: {error}")),
        })?;
        Ok(Self { config: config.clone(), listener })
    }
}

impl Device for Vsock {
    fn name(&self) -> &str {
        "vsock0"
    }

    fn id(&self) -> u16 {
        VIRTIO_ID_VSOCK as u16
    }

    fn queue_sizes(&self) -> Vec<u16> {
        // Events tell of a guest that was moved; until then the driver's buffers stay where they are.
        vec![QUEUE_SIZE, QUEUE_SIZE, EVENT_QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        STREAM_FEATURE
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&config_bytes(self.config.cid), offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        let mut take = |index: usize| activation.queues.get_mut(index).and_then(Option::take);
        let (Some(receive), Some(transmit)) = (take(RECEIVE), take(TRANSMIT)) else {
            // A driver that enables only one direction gets no sockets.
            return Ok(Vec::new());
        };
        // The path stays with the device, whatever becomes of the worker.
        let listener = self.listener.as_fd().try_clone_to_owned().map_err(|error| DeviceError {
            device: self.name().to_owned(),
            problem: format!("cannot share its listening socket with a thread: {error}"),
        })?;
        let muxer = Muxer::new(self.config.cid, UnixListener::from(listener), &self.config.path);
        let worker = Sockets::new(receive, transmit, muxer);
        Ok(vec![(Placement::Io(0), Box::new(worker) as _)])
    }
}

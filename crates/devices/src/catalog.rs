//! Every virtio device there is, a line each.

use napa_virtio::Device;

use crate::{Context, OpenError};

/// Opens the devices of one kind that a configuration asks for; none if it asks for none.
type Open = fn(&Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError>;

/// In the order of their PCI slots: a new kind goes to the end, so that no other device moves.
const CATALOG: &[Open] = &[
    crate::blk::open,
    crate::net::open,
    crate::console::open,
    crate::rng::open,
    crate::vsock::open,
    crate::balloon::open,
    crate::pmem::open,
    crate::mem::open,
];

/// Opens all devices that the configuration asks for.
///
/// # Errors
/// The first device that cannot be opened; those before it are closed again.
pub fn open_all(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    let mut devices = Vec::new();
    for open in CATALOG {
        devices.extend(open(context)?);
    }
    Ok(devices)
}

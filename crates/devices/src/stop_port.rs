//! The port on which a guest without ACPI sees that it should stop (see docs/guest-interface.md).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napa_virtio::BusDevice;

/// Where it is.
pub(crate) const PORTS: Range<u16> = 0x604..0x605;
/// Bit 0 of the port: an orderly stop was asked for.
const STOP_REQUESTED: u8 = 1;

/// Says that the guest should stop by itself. Clones are the same request.
#[derive(Clone, Debug, Default)]
pub struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Asks for an orderly stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Bit 0 reads as one once an orderly stop was asked for; all else reads as zero. Writes do nothing.
pub(crate) struct StopPort {
    request: StopRequest,
}

impl StopPort {
    pub fn new(request: StopRequest) -> Self {
        Self { request }
    }
}

impl BusDevice for StopPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (0, [status, ..]) = (offset, data) {
            *status = if self.request.0.load(Ordering::Acquire) { STOP_REQUESTED } else { 0 };
        }
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_shows_in_bit_0_and_stays() {
        let request = StopRequest::default();
        let port = StopPort::new(request.clone());
        let read = || {
            let mut data = [0xff; 2];
            port.read(0, &mut data);
            data
        };
        assert_eq!(read(), [0, 0]);
        request.raise();
        port.write(0, &[0]);
        assert_eq!(read(), [1, 0]);
        assert_eq!(read(), [1, 0], "it stays");
    }
}

//! How much each side may send (VIRTIO 1.3 §5.10.6.3). Pure.

use super::request::Packet;

/// Bytes from the guest that the host holds for a connection whose client does not read.
pub const BUFFER_BYTES: u32 = 256 * 1024;
/// The guest is told about room in the host's buffer once there is this much news.
const UPDATE_BYTES: u32 = BUFFER_BYTES / 4;

/// The guest has sent more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

/// The counters of one connection. All of them wrap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credit {
    /// Bytes sent to the guest.
    sent: u32,
    guest_buffer: u32,
    guest_forwarded: u32,
    /// Bytes that came from the guest.
    received: u32,
    /// Bytes of these that the client took.
    forwarded: u32,
    /// Value of `forwarded` that the guest knows.
    told: u32,
}

impl Credit {
    /// Takes what a packet from the guest says about its buffer.
    pub fn learn(&mut self, packet: &Packet) {
        self.guest_buffer = packet.buffer_bytes;
        self.guest_forwarded = packet.forwarded;
    }

    /// Bytes that may be sent to the guest now.
    pub fn available(&self) -> u32 {
        self.guest_buffer.saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }

    /// `bytes` go to the guest.
    pub fn send(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// `bytes` came from the guest.
    ///
    /// # Errors
    /// There was no room for them.
    pub fn receive(&mut self, bytes: u32) -> Result<(), Overrun> {
        let held = self.received.wrapping_sub(self.forwarded);
        if bytes > BUFFER_BYTES - held {
            return Err(Overrun);
        }
        self.received = self.received.wrapping_add(bytes);
        Ok(())
    }

    /// The client took `bytes` of what came from the guest.
    pub fn forward(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// Whether the guest should learn about room in the host's buffer.
    pub fn has_news(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= UPDATE_BYTES
    }

    /// Puts the host's side of the account into a packet to the guest.
    pub fn tell(&mut self, packet: &mut Packet) {
        packet.buffer_bytes = BUFFER_BYTES;
        packet.forwarded = self.forwarded;
        self.told = self.forwarded;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vsock::request::{Operation, Ports};

    fn packet(buffer_bytes: u32, forwarded: u32) -> Packet {
        let ports = Ports { host: 1, guest: 1 };
        Packet { buffer_bytes, forwarded, ..Packet::to_guest(3, ports, Operation::CreditUpdate) }
    }

    #[test]
    fn the_guest_takes_no_more_than_its_buffer() {
        let mut credit = Credit::default();
        assert_eq!(credit.available(), 0);
        credit.learn(&packet(100, 0));
        credit.send(60);
        assert_eq!(credit.available(), 40);
        credit.learn(&packet(100, 50));
        assert_eq!(credit.available(), 90);
        credit.learn(&packet(5, 50));
        assert_eq!(credit.available(), 0, "the buffer became smaller than what is in it");
        credit.learn(&packet(100, 61));
        assert_eq!(credit.available(), 0, "a guest that took more than was sent gets nothing");
    }

    #[test]
    fn the_host_takes_no_more_than_its_buffer_and_tells_of_room() {
        let mut credit = Credit::default();
        assert_eq!(credit.receive(BUFFER_BYTES), Ok(()));
        assert_eq!(credit.receive(1), Err(Overrun));
        assert!(!credit.has_news());
        credit.forward(UPDATE_BYTES);
        assert!(credit.has_news());
        let mut told = packet(0, 0);
        credit.tell(&mut told);
        assert_eq!((told.buffer_bytes, told.forwarded), (BUFFER_BYTES, UPDATE_BYTES));
        assert!(!credit.has_news());
        assert_eq!(credit.receive(UPDATE_BYTES), Ok(()));
        assert_eq!(credit.receive(1), Err(Overrun));
    }

    proptest! {
        #[test]
        fn what_the_host_holds_never_exceeds_its_buffer(steps in prop::collection::vec((any::<u32>(), any::<u32>()), 0..200)) {
            let mut credit = Credit { received: u32::MAX - 1000, forwarded: u32::MAX - 1000, ..Credit::default() };
            let mut held = 0;
            for (come, go) in steps {
                if credit.receive(come).is_ok() {
                    held += come;
                }
                prop_assert!(held <= BUFFER_BYTES);
                let gone = go.min(held);
                credit.forward(gone);
                held -= gone;
            }
        }
    }
}

//! The configuration space of a network card (VIRTIO 1.3 §5.1.4).

use napa_api::config::MacAddress;
use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

/// MAC address, status, most queue pairs, MTU.
pub const CONFIG_BYTES: usize = 12;

/// What the driver can read about the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The card's address.
    pub mac: MacAddress,
    /// Most queue pairs that the driver may use.
    pub pairs: u16,
    /// Largest packet without its Ethernet header, in bytes.
    pub mtu: u16,
}

impl Config {
    /// The configuration space, with the link as it is now.
    pub fn bytes(&self, link_is_up: bool) -> [u8; CONFIG_BYTES] {
        let status = if link_is_up { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        let mut bytes = [0; CONFIG_BYTES];
        bytes[..6].copy_from_slice(&self.mac.0);
        bytes[6..8].copy_from_slice(&status.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.pairs.to_le_bytes());
        bytes[10..].copy_from_slice(&self.mtu.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_where_the_driver_looks_for_them() {
        let config = Config { mac: MacAddress([2, 1, 2, 3, 4, 5]), pairs: 3, mtu: 0x2328 };
        assert_eq!(config.bytes(true), [2, 1, 2, 3, 4, 5, 1, 0, 3, 0, 0x28, 0x23]);
        assert_eq!(config.bytes(false)[6..8], [0, 0]);
    }
}

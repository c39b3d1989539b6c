//! Which features the card offers, and what they mean for the tap (VIRTIO 1.3 §5.1.3).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};

use super::request::{FRAME_BYTES_MAX, HEADER_BYTES};

/// Offered by every card.
const ALWAYS: &[u32] = &[VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_MRG_RXBUF];

/// One offload: the tap's flags for it, what the guest may take, what it may leave undone.
const OFFLOADS: &[(u32, u32, u32)] = &[
    (libc::TUN_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_CSUM),
    (libc::TUN_F_TSO4, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4),
    (libc::TUN_F_TSO6, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO6),
    (libc::TUN_F_TSO_ECN, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_HOST_ECN),
    (libc::TUN_F_UFO, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_HOST_UFO),
    (libc::TUN_F_USO4, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_HOST_USO),
    (libc::TUN_F_USO6, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_USO),
];
/// Frames of up to 64 KiB come from a tap with any of these.
const LARGE: u32 = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_UFO | USO;
const TSO: u32 = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
/// The kernel takes both or none.
const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;
/// An Ethernet header with a VLAN tag, in bytes.
const ETHERNET_BYTES: u64 = 18;
/// The MTU of Ethernet: a guest that does not read the card's MTU expects this one.
const MTU_DEFAULT: u16 = 1500;

/// Whether the feature with this bit number is among `features`.
pub const fn has(features: u64, bit: u32) -> bool {
    features >> bit & 1 != 0
}

/// What a card with `pairs` queue pairs on a tap that knows `offloads` (`TUN_F_*`) offers.
pub fn offered(offloads: u32, pairs: u16) -> u64 {
    let known = OFFLOADS.iter().filter(|(flag, ..)| offloads & flag != 0);
    let mut features = known.fold(0, |all, (_, guest, host)| all | 1 << guest | 1 << host);
    features = ALWAYS.iter().fold(features, |all, bit| all | 1 << bit);
    if pairs > 1 {
        features |= 1 << VIRTIO_NET_F_MQ | 1 << VIRTIO_NET_F_CTRL_VQ;
    }
    features
}

/// What the tap may leave undone for a driver that accepted `features`, as `TUN_F_*`. A driver that accepted
/// something without what it needs gets less (VIRTIO 1.3 §5.1.3.1).
pub fn tap_offloads(features: u64) -> u32 {
    let accepted = OFFLOADS.iter().filter(|(_, guest, _)| has(features, *guest));
    let mut flags = accepted.fold(0, |all, (flag, ..)| all | flag);
    if flags & libc::TUN_F_CSUM == 0 {
        return 0;
    }
    if flags & TSO == 0 {
        flags &= !libc::TUN_F_TSO_ECN;
    }
    if flags & USO != USO {
        flags &= !USO;
    }
    flags
}

/// Bytes of the longest frame, with its header, that the tap hands over under `offloads`.
pub fn frame_bytes_max(offloads: u32, mtu: u16) -> u64 {
    let plain = u64::from(mtu.max(MTU_DEFAULT)) + ETHERNET_BYTES;
    let frame = if offloads & LARGE != 0 { FRAME_BYTES_MAX } else { plain };
    frame + HEADER_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(bits: &[u32]) -> u64 {
        bits.iter().fold(0, |all, bit| all | 1 << bit)
    }

    #[test]
    fn a_card_offers_what_its_tap_knows() {
        let plain = offered(0, 1);
        assert_eq!(plain, bits(ALWAYS));
        let full = offered(u32::MAX, 4);
        for (_, guest, host) in OFFLOADS {
            assert!(has(full, *guest) && has(full, *host) && !has(plain, *guest) && !has(plain, *host));
        }
        assert!(has(full, VIRTIO_NET_F_MQ) && has(full, VIRTIO_NET_F_CTRL_VQ));
    }

    #[test]
    fn the_tap_leaves_undone_what_the_driver_takes() {
        let check = |accepted: &[u32], expected: u32| {
            assert_eq!(tap_offloads(bits(accepted)), expected, "{accepted:?}");
        };
        check(&[], 0);
        check(&[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4], 0);
        check(&[VIRTIO_NET_F_GUEST_CSUM], libc::TUN_F_CSUM);
        check(&[VIRTIO_NET_F_GUEST_TSO4], 0);
        check(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN], libc::TUN_F_CSUM);
        check(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_USO4], libc::TUN_F_CSUM);
        check(
            &[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN],
            libc::TUN_F_CSUM | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN,
        );
    }

    #[test]
    fn the_longest_frame_follows_offloads_and_mtu() {
        assert_eq!(frame_bytes_max(libc::TUN_F_CSUM, 1400), 1530);
        assert_eq!(frame_bytes_max(libc::TUN_F_CSUM, 9000), 9030);
        assert_eq!(frame_bytes_max(libc::TUN_F_TSO4, 1500), 65_566);
    }
}

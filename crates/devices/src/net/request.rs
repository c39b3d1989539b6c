//! What stands in front of a frame, and what the control queue carries. Pure.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO,
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP, VIRTIO_NET_HDR_GSO_UDP_L4,
};

use super::features::has;

/// Bytes of `struct virtio_net_hdr` with `num_buffers` (VIRTIO 1.3 §5.1.6).
pub const HEADER_BYTES: usize = 12;
/// Where `num_buffers` is in the header.
pub const NUM_BUFFERS_OFFSET: usize = 10;
/// Where the flags are in the header.
pub const FLAGS_OFFSET: usize = 0;
/// Bytes of the shortest frame that a tap takes: an Ethernet header.
const FRAME_BYTES_MIN: u64 = 14;
/// Bytes of the longest frame: 64 KiB of IP packet behind an Ethernet header with a VLAN tag.
pub const FRAME_BYTES_MAX: u64 = 65_536 + 18;

/// A frame that the driver must not send: it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsendable;

/// Checks the header of a frame of `frame_bytes` to be sent, and returns it without what the device ignores.
///
/// # Errors
/// It asks for what was not negotiated, or for what no frame of this size can want (VIRTIO 1.3 §5.1.6.2).
pub fn check_header(
    header: &[u8; HEADER_BYTES],
    frame_bytes: u64,
    features: u64,
) -> Result<[u8; HEADER_BYTES], Unsendable> {
    let half = |offset: usize| u16::from_le_bytes([header[offset], header[offset + 1]]);
    let needs_checksum = u32::from(header[FLAGS_OFFSET]) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
    let (segmentation, segment_bytes) = (u32::from(header[1]), half(4));
    let (checksum_start, checksum_offset) = (half(6), half(8));

    require((FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame_bytes))?;
    let mut checked = [0; HEADER_BYTES];
    if needs_checksum {
        require(has(features, VIRTIO_NET_F_CSUM))?;
        require(u64::from(checksum_start) + u64::from(checksum_offset) + 2 <= frame_bytes)?;
        checked[FLAGS_OFFSET] = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
        checked[6..10].copy_from_slice(&header[6..10]);
    }
    if segmentation != VIRTIO_NET_HDR_GSO_NONE {
        require(needs_checksum && segment_bytes > 0 && may_segment(segmentation, features))?;
        checked[1] = header[1];
        // How long the headers are is a hint, which the kernel takes for granted.
        let header_bytes = half(2).min(u16::try_from(frame_bytes).unwrap_or(u16::MAX));
        checked[2..4].copy_from_slice(&header_bytes.to_le_bytes());
        checked[4..6].copy_from_slice(&segment_bytes.to_le_bytes());
    }
    Ok(checked)
}

fn may_segment(segmentation: u32, features: u64) -> bool {
    if segmentation & VIRTIO_NET_HDR_GSO_ECN != 0 && !has(features, VIRTIO_NET_F_HOST_ECN) {
        return false;
    }
    match segmentation & !VIRTIO_NET_HDR_GSO_ECN {
        VIRTIO_NET_HDR_GSO_TCPV4 => has(features, VIRTIO_NET_F_HOST_TSO4),
        VIRTIO_NET_HDR_GSO_TCPV6 => has(features, VIRTIO_NET_F_HOST_TSO6),
        VIRTIO_NET_HDR_GSO_UDP => has(features, VIRTIO_NET_F_HOST_UFO),
        VIRTIO_NET_HDR_GSO_UDP_L4 => has(features, VIRTIO_NET_F_HOST_USO),
        _ => false,
    }
}

fn require(condition: bool) -> Result<(), Unsendable> {
    condition.then_some(()).ok_or(Unsendable)
}

/// What the control queue asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Use this many queue pairs (VIRTIO 1.3 §5.1.6.5.6).
    QueuePairs(u16),
    /// Something that was not offered.
    Unknown,
}

impl Command {
    /// Longest command that is understood, in bytes: class, command, and a number of pairs.
    pub const BYTES_MAX: usize = 4;

    /// Decodes the readable part of a command.
    pub fn parse(bytes: &[u8]) -> Self {
        const CLASS: u8 = VIRTIO_NET_CTRL_MQ as u8;
        const SET: u8 = VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET as u8;
        match *bytes {
            [CLASS, SET, low, high] => Self::QueuePairs(u16::from_le_bytes([low, high])),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CSUM: u64 = 1 << VIRTIO_NET_F_CSUM;
    const TSO4: u64 = 1 << VIRTIO_NET_F_HOST_TSO4;
    const ECN: u64 = 1 << VIRTIO_NET_F_HOST_ECN;

    fn header(flags: u8, segmentation: u8, fields: [u16; 4]) -> [u8; HEADER_BYTES] {
        let mut header = [0xff; HEADER_BYTES];
        header[..2].copy_from_slice(&[flags, segmentation]);
        for (index, field) in fields.iter().enumerate() {
            header[2 + index * 2..4 + index * 2].copy_from_slice(&field.to_le_bytes());
        }
        header
    }

    #[test]
    fn a_header_passes_only_with_what_was_negotiated_and_fits_the_frame() {
        let check = |flags, segmentation, fields, bytes, features, expected| {
            let result = check_header(&header(flags, segmentation, fields), bytes, features).is_ok();
            assert_eq!(result, expected, "{flags} {segmentation} {fields:?} {bytes} {features:#x}");
        };
        check(0, 0, [0; 4], 14, 0, true);
        check(0, 0, [0; 4], 13, 0, false);
        check(0, 0, [0; 4], FRAME_BYTES_MAX, 0, true);
        check(0, 0, [0; 4], FRAME_BYTES_MAX + 1, 0, false);
        check(1, 0, [0, 0, 34, 16], 60, CSUM, true);
        check(1, 0, [0, 0, 34, 16], 60, 0, false);
        check(1, 0, [0, 0, 34, 25], 60, CSUM, false);
        check(1, 0, [0, 0, u16::MAX, u16::MAX], 60, CSUM, false);
        check(1, 1, [54, 1448, 34, 16], 3000, CSUM | TSO4, true);
        check(0, 1, [54, 1448, 34, 16], 3000, CSUM | TSO4, false);
        check(1, 1, [54, 0, 34, 16], 3000, CSUM | TSO4, false);
        check(1, 1, [54, 1448, 34, 16], 3000, CSUM, false);
        check(1, 4, [54, 1448, 34, 16], 3000, CSUM | TSO4, false);
        check(1, 0x81, [54, 1448, 34, 16], 3000, CSUM | TSO4, false);
        check(1, 0x81, [54, 1448, 34, 16], 3000, CSUM | TSO4 | ECN, true);
        check(1, 0x80, [54, 1448, 34, 16], 3000, CSUM | TSO4 | ECN, false);
        check(1, 7, [54, 1448, 34, 16], 3000, u64::MAX, false);
    }

    #[test]
    fn what_the_device_ignores_is_cleared() {
        let plain = check_header(&header(0xfe, 0, [9, 9, 9, 9]), 60, u64::MAX).unwrap();
        assert_eq!(plain, [0; HEADER_BYTES]);
        let long = check_header(&header(1, 1, [5000, 1448, 34, 16]), 3000, u64::MAX).unwrap();
        assert_eq!(u16::from_le_bytes([long[2], long[3]]), 3000, "headers longer than the frame");
        assert_eq!(&long[NUM_BUFFERS_OFFSET..], &[0, 0]);
    }

    #[test]
    fn commands_are_understood_only_whole() {
        assert_eq!(Command::parse(&[4, 0, 2, 1]), Command::QueuePairs(0x102));
        for other in [&[][..], &[4], &[4, 0, 2], &[4, 1, 2, 0], &[1, 0, 1, 0], &[4, 0, 2, 0, 0]] {
            assert_eq!(Command::parse(other), Command::Unknown, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics_and_what_passes_stays_in_the_frame(
            bytes in any::<[u8; HEADER_BYTES]>(), frame in any::<u32>(), features in any::<u64>()
        ) {
            let frame = u64::from(frame) % 0x20000;
            if let Ok(checked) = check_header(&bytes, frame, features) {
                let half = |offset: usize| u64::from(u16::from_le_bytes([checked[offset], checked[offset + 1]]));
                prop_assert!(half(2) <= frame);
                prop_assert!(checked[0] == 0 || half(6) + half(8) + 2 <= frame);
            }
        }
    }
}

//! Frames that tests send and expect.

use crate::net::request::HEADER_BYTES;

pub const BROADCAST: [u8; 6] = [0xff; 6];
pub const ALICE: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
pub const BOB: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
/// An EtherType for local experiments (IEEE 802).
pub const EXPERIMENT: u16 = 0x88b5;
pub const IPV4: u16 = 0x0800;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Bytes of an Ethernet, an IPv4 and a TCP header.
pub const TCP_HEADERS_BYTES: usize = 54;

/// A frame as it lies in a virtqueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: [u8; HEADER_BYTES],
    pub bytes: Vec<u8>,
}

impl Frame {
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self { header: [0; HEADER_BYTES], bytes }
    }

    pub fn ethertype(&self) -> u16 {
        u16::from_be_bytes([self.bytes[12], self.bytes[13]])
    }

    /// A bridge asks now and then who wants its multicast frames.
    pub fn is_igmp(&self) -> bool {
        const IPV4: u16 = 0x0800;
        const IGMP: u8 = 2;
        self.bytes.len() > 23 && self.ethertype() == IPV4 && self.bytes[23] == IGMP
    }

    pub fn num_buffers(&self) -> u16 {
        u16::from_le_bytes([self.header[10], self.header[11]])
    }
}

pub fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// An experiment with `bytes` bytes of payload that depend on their place.
pub fn experiment(bytes: usize) -> Frame {
    let payload: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
    Frame::plain(ethernet(BOB, ALICE, EXPERIMENT, &payload))
}

/// A UDP datagram from `port`, so that different ports are different flows.
pub fn udp(port: u16) -> Frame {
    let ports = [port.to_be_bytes(), 9_u16.to_be_bytes()].concat();
    let datagram = [&ports[..], &12_u16.to_be_bytes(), &[0, 0], b"flow"].concat();
    Frame::plain(ethernet(BOB, ALICE, IPV4, &ipv4(UDP, &datagram)))
}

/// A TCP segment with `payload` bytes that the host shall cut into segments of `segment` bytes.
pub fn tcp_large(payload: usize, segment: u16) -> Frame {
    let mut tcp =
        [&5000_u16.to_be_bytes()[..], &80_u16.to_be_bytes(), &[0; 8], &[0x50, 0x10, 0, 64]].concat();
    // The checksum field holds the sum over the pseudo header; the rest is left undone.
    let pseudo = [&ADDRESSES[..], &[0, TCP], &((20 + payload) as u16).to_be_bytes()].concat();
    tcp.extend((!checksum(&pseudo)).to_be_bytes());
    tcp.extend([0, 0]);
    tcp.extend((0..payload).map(|index| (index % 251) as u8));
    let mut header = [0; HEADER_BYTES];
    header[..2].copy_from_slice(&[1, 1]);
    header[2..4].copy_from_slice(&(TCP_HEADERS_BYTES as u16).to_le_bytes());
    header[4..6].copy_from_slice(&segment.to_le_bytes());
    header[6..8].copy_from_slice(&34_u16.to_le_bytes());
    header[8..10].copy_from_slice(&16_u16.to_le_bytes());
    Frame { header, bytes: ethernet(BOB, ALICE, IPV4, &ipv4(TCP, &tcp)) }
}

/// Whether the TCP checksum of a frame is right.
pub fn tcp_checksum_is_right(frame: &[u8]) -> bool {
    let segment = &frame[34..];
    let pseudo = [&ADDRESSES[..], &[0, TCP], &(segment.len() as u16).to_be_bytes(), segment].concat();
    checksum(&pseudo) == 0
}

/// Source and destination.
const ADDRESSES: [u8; 8] = [10, 0, 0, 2, 10, 0, 0, 1];

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let [high, low] = length.to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(ADDRESSES);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// Who has 10.0.0.1? Tell 10.0.0.2.
pub fn arp_request() -> Frame {
    let who = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &ALICE, &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat();
    Frame::plain(ethernet(BROADCAST, ALICE, 0x0806, &who))
}

/// An ICMP echo request from 10.0.0.2 to 10.0.0.1.
pub fn ping(to: [u8; 6], data: &[u8]) -> Frame {
    let mut icmp = [&[8, 0, 0, 0, 0, 1, 0, 1][..], data].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Frame::plain(ethernet(to, ALICE, IPV4, &ipv4(1, &icmp)))
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

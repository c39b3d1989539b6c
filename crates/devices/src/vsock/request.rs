//! Packets (VIRTIO 1.3 §5.10.6) and the line with which a client of the host asks for a port. Pure.

/// Context id of the host (VIRTIO 1.3 §5.10.4).
pub const HOST_CID: u64 = 2;
/// Bytes of a packet's header.
pub const HEADER_BYTES: usize = 44;
/// Longest `CONNECT` line, in bytes: ten digits fit a port.
pub const LINE_BYTES_MAX: usize = 32;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub const STREAM: u16 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender of the packet receives no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender of the packet sends no more.
pub const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for (VIRTIO 1.3 §5.10.6, `VIRTIO_VSOCK_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
    /// None of these.
    Unknown(u16),
}

const OPERATIONS: [Operation; 7] = [
    Operation::Request,
    Operation::Response,
    Operation::Reset,
    Operation::Shutdown,
    Operation::Data,
    Operation::CreditUpdate,
    Operation::CreditRequest,
];

impl From<u16> for Operation {
    fn from(number: u16) -> Self {
        let known = usize::from(number).checked_sub(1).and_then(|index| OPERATIONS.get(index));
        known.copied().unwrap_or(Self::Unknown(number))
    }
}

impl From<Operation> for u16 {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Unknown(number) => number,
            known => OPERATIONS.iter().zip(1..).find(|(other, _)| **other == known).map_or(0, |(_, at)| at),
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// Port on the host.
    pub host: u32,
    /// Port in the guest.
    pub guest: u32,
}

/// A packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source_cid: u64,
    pub destination_cid: u64,
    pub source_port: u32,
    pub destination_port: u32,
    /// Bytes of data behind the header.
    pub length: u32,
    /// [`STREAM`], or something that was not offered.
    pub kind: u16,
    pub operation: Operation,
    pub flags: u32,
    /// Bytes that the sender can hold for this connection (`buf_alloc`).
    pub buffer_bytes: u32,
    /// Bytes that the sender has taken out of that buffer, modulo 2^32 (`fwd_cnt`).
    pub forwarded: u32,
}

impl Packet {
    /// A packet from the host without data.
    pub fn to_guest(cid: u64, ports: Ports, operation: Operation) -> Self {
        Self {
            source_cid: HOST_CID,
            destination_cid: cid,
            source_port: ports.host,
            destination_port: ports.guest,
            length: 0,
            kind: STREAM,
            operation,
            flags: 0,
            buffer_bytes: 0,
            forwarded: 0,
        }
    }

    /// The ends of the connection that a packet from the guest is about.
    pub fn ports(&self) -> Ports {
        Ports { host: self.destination_port, guest: self.source_port }
    }

    /// Decodes a header.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            source_cid: long(0),
            destination_cid: long(8),
            source_port: word(16),
            destination_port: word(20),
            length: word(24),
            kind: word(28) as u16,
            operation: Operation::from((word(28) >> 16) as u16),
            flags: word(32),
            buffer_bytes: word(36),
            forwarded: word(40),
        }
    }

    /// Encodes a header.
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.source_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.destination_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.source_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.destination_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&u16::from(self.operation).to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer_bytes.to_le_bytes());
        bytes[40..].copy_from_slice(&self.forwarded.to_le_bytes());
        bytes
    }
}

/// The port that a client asks for with `CONNECT PORT`; `line` is without its end. `None`: that is no such
/// line.
pub fn parse_connect(line: &[u8]) -> Option<u32> {
    let port = line.strip_prefix(b"CONNECT ")?;
    let is_number = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(port).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn operations_have_the_numbers_of_the_specification() {
        let numbers = OPERATIONS.map(u16::from);
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Operation::from(0), Operation::Unknown(0));
        assert_eq!(Operation::from(8), Operation::Unknown(8));
    }

    #[test]
    fn a_port_is_asked_for_in_one_way_only() {
        let check = |line: &str, expected| assert_eq!(parse_connect(line.as_bytes()), expected, "{line:?}");
        check("CONNECT 0", Some(0));
        check("CONNECT 1024", Some(1024));
        check("CONNECT 4294967295", Some(u32::MAX));
        for wrong in [
            "",
            "CONNECT",
            "CONNECT ",
            "CONNECT  1",
            "CONNECT +1",
            "CONNECT -1",
            "CONNECT 1 ",
            "CONNECT 4294967296",
            "connect 1",
            "GET / HTTP/1.1",
        ] {
            check(wrong, None);
        }
    }

    proptest! {
        #[test]
        fn a_header_survives_the_way_through_memory(bytes in prop::array::uniform32(any::<u8>()), rest in prop::array::uniform12(any::<u8>())) {
            let whole: [u8; HEADER_BYTES] = [&bytes[..], &rest].concat().try_into().unwrap();
            prop_assert_eq!(Packet::parse(&whole).bytes(), whole);
        }
    }
}

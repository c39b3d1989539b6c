//! What a driver asks of a disk (VIRTIO 1.3 §5.2.6). Pure: bytes in; a request, or why there is none.

use std::fmt;

use virtio_bindings::bindings::virtio_blk as abi;

/// Unit of every sector number (VIRTIO 1.3 §5.2.6), in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// Length of the header in front of every request: type, reserved, sector.
pub const HEADER_BYTES: usize = 16;
/// Length of the range that a discard or write-zeroes request carries: sector, count, flags.
pub const SEGMENT_BYTES: usize = 16;
/// Sectors that one discard or write-zeroes request covers at most: 1 GiB.
pub const SEGMENT_SECTORS_MAX: u32 = 1 << 21;

/// Outcome of a request, its last byte (VIRTIO 1.3 §5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = abi::VIRTIO_BLK_S_OK as u8,
    /// Not done, or not wholly.
    IoError = abi::VIRTIO_BLK_S_IOERR as u8,
    /// The device does not know the request.
    Unsupported = abi::VIRTIO_BLK_S_UNSUPP as u8,
}

/// Bytes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub offset: u64,
    /// How many there are.
    pub length: u64,
}

/// A request that the disk can be asked to carry out: inside the disk, and of whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Disk to guest.
    Read(Range),
    /// Guest to disk.
    Write(Range),
    /// What was written before is to survive a power cut.
    Flush,
    /// The serial number is wanted.
    Identify,
    /// The guest does not need the content any more.
    Discard(Range),
    /// The content is to read as zeros.
    WriteZeroes {
        /// What becomes zero.
        range: Range,
        /// The space may be given back to the host.
        may_unmap: bool,
    },
}

impl Request {
    /// The bytes of the disk that it is about, if it is about any.
    pub fn range(&self) -> Option<Range> {
        match *self {
            Self::Read(range) | Self::Write(range) | Self::Discard(range) => Some(range),
            Self::WriteZeroes { range, .. } => Some(range),
            Self::Flush | Self::Identify => None,
        }
    }

    /// Bytes that the guest's memory has received when it is done. A chain has less than 4 GiB.
    pub fn bytes_to_guest(&self) -> u32 {
        match self {
            Self::Read(range) => u32::try_from(range.length).unwrap_or(u32::MAX),
            _ => 0,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Flush => "flush",
            Self::Identify => "serial number",
            Self::Discard(_) => "discard",
            Self::WriteZeroes { .. } => "write zeroes",
        };
        match self.range() {
            Some(Range { offset, length }) => write!(formatter, "{what} of {length} bytes at {offset:#x}"),
            None => formatter.write_str(what),
        }
    }
}

/// What a disk allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of the disk in bytes.
    pub capacity: u64,
    /// Requests start and end at multiples of this many bytes: a power of two, at least a sector.
    pub block: u64,
    /// Whether the disk refuses to change.
    pub is_readonly: bool,
}

/// Why a well-formed request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A request that changes the disk came to one that must not change.
    #[error("a write to a read-only disk")]
    ReadOnly,
    /// The request ends past the disk.
    #[error("{length} bytes at sector {sector} reach past the end of the disk")]
    PastEnd {
        /// The first sector.
        sector: u64,
        /// Bytes from there.
        length: u64,
    },
    /// The image can only be reached in larger blocks.
    #[error(
        "{length} bytes at sector {sector} are not whole blocks of {block} bytes; \
         `cache=writeback` on the disk takes any sector"
    )]
    Unaligned {
        /// The first sector.
        sector: u64,
        /// Bytes from there.
        length: u64,
        /// What they should be multiples of.
        block: u64,
    },
    /// A discard or write-zeroes request that does not carry exactly one range.
    #[error("{0} bytes of ranges where the device takes one of {SEGMENT_BYTES}")]
    Segments(u64),
    /// A discard or write-zeroes request over more than was offered.
    #[error("{0} sectors in one request where the device takes {SEGMENT_SECTORS_MAX}")]
    TooLong(u32),
    /// Flags that the request does not have.
    #[error("unknown flags {0:#x}")]
    Flags(u32),
    /// A type that the device does not serve.
    #[error("unknown request type {0}")]
    Type(u32),
}

impl Refusal {
    /// What the driver is told (VIRTIO 1.3 §5.2.6.2).
    pub fn status(self) -> Status {
        match self {
            Self::Flags(_) | Self::Type(_) => Status::Unsupported,
            _ => Status::IoError,
        }
    }
}

/// Decodes a request whose header is followed by `readable` and `writable` bytes of data. `segment`
/// gives the first readable bytes; it is called if the request has a range there.
///
/// # Errors
/// The request cannot be carried out on such a disk.
pub fn decode(
    header: [u8; HEADER_BYTES],
    readable: u64,
    writable: u64,
    segment: impl FnOnce() -> [u8; SEGMENT_BYTES],
    limits: &Limits,
) -> Result<Request, Refusal> {
    let kind = u32_at(&header, 0);
    let sector = u64_at(&header, 8);
    match kind {
        abi::VIRTIO_BLK_T_IN => limits.range(sector, writable).map(Request::Read),
        abi::VIRTIO_BLK_T_OUT => {
            limits.check_writable()?;
            limits.range(sector, readable).map(Request::Write)
        }
        abi::VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        abi::VIRTIO_BLK_T_GET_ID => Ok(Request::Identify),
        abi::VIRTIO_BLK_T_DISCARD => {
            decode_segment(readable, segment, 0, limits).map(|(range, _)| Request::Discard(range))
        }
        abi::VIRTIO_BLK_T_WRITE_ZEROES => {
            let unmap = abi::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
            decode_segment(readable, segment, unmap, limits)
                .map(|(range, flags)| Request::WriteZeroes { range, may_unmap: flags & unmap != 0 })
        }
        unknown => Err(Refusal::Type(unknown)),
    }
}

/// The range that a request carries in its data, with its flags, of which only `known` may be set.
fn decode_segment(
    readable: u64,
    segment: impl FnOnce() -> [u8; SEGMENT_BYTES],
    known: u32,
    limits: &Limits,
) -> Result<(Range, u32), Refusal> {
    limits.check_writable()?;
    if readable != SEGMENT_BYTES as u64 {
        return Err(Refusal::Segments(readable));
    }
    let segment = segment();
    let (sectors, flags) = (u32_at(&segment, 8), u32_at(&segment, 12));
    if flags & !known != 0 {
        return Err(Refusal::Flags(flags));
    }
    if sectors > SEGMENT_SECTORS_MAX {
        return Err(Refusal::TooLong(sectors));
    }
    let range = limits.range(u64_at(&segment, 0), u64::from(sectors) * SECTOR_BYTES)?;
    Ok((range, flags))
}

impl Limits {
    fn check_writable(&self) -> Result<(), Refusal> {
        if self.is_readonly { Err(Refusal::ReadOnly) } else { Ok(()) }
    }

    fn range(&self, sector: u64, length: u64) -> Result<Range, Refusal> {
        let range = sector.checked_mul(SECTOR_BYTES).map(|offset| Range { offset, length });
        let Some(range) = range.filter(|range| range.ends_within(self.capacity)) else {
            return Err(Refusal::PastEnd { sector, length });
        };
        if (range.offset | range.length) & (self.block - 1) != 0 {
            return Err(Refusal::Unaligned { sector, length, block: self.block });
        }
        Ok(range)
    }
}

impl Range {
    fn ends_within(self, capacity: u64) -> bool {
        self.offset.checked_add(self.length).is_some_and(|end| end <= capacity)
    }

    /// The range without its first `count` bytes, of which it must have as many.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        assert!(count <= self.length, "more was done than was asked for");
        Self { offset: self.offset + count, length: self.length - count }
    }
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DISK: Limits = Limits { capacity: 1 << 20, block: 512, is_readonly: false };
    const SECTORS: u64 = DISK.capacity / SECTOR_BYTES;

    fn header(kind: u32, sector: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0xa5; HEADER_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        bytes
    }

    fn segment(sector: u64, sectors: u32, flags: u32) -> [u8; SEGMENT_BYTES] {
        let mut bytes = [0; SEGMENT_BYTES];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    fn range(offset: u64, length: u64) -> Range {
        Range { offset, length }
    }

    #[test]
    fn reads_and_writes_are_ranges_of_bytes() {
        let check = |kind, sector, readable, writable, expected| {
            let decoded = decode(header(kind, sector), readable, writable, || unreachable!(), &DISK);
            assert_eq!(decoded, expected, "type {kind}, sector {sector}, {readable}/{writable} bytes");
        };
        check(0, 0, 0, 4096, Ok(Request::Read(range(0, 4096))));
        check(0, 3, 0, 0, Ok(Request::Read(range(1536, 0))));
        check(1, 8, 512, 0, Ok(Request::Write(range(4096, 512))));
        check(1, SECTORS - 1, 512, 0, Ok(Request::Write(range(DISK.capacity - 512, 512))));
        check(4, u64::MAX, 0, 0, Ok(Request::Flush));
        check(8, 0, 0, 20, Ok(Request::Identify));

        let past = |sector, length| Err(Refusal::PastEnd { sector, length });
        check(0, SECTORS, 0, 512, past(SECTORS, 512));
        check(1, SECTORS - 1, 1024, 0, past(SECTORS - 1, 1024));
        check(0, u64::MAX, 0, 512, past(u64::MAX, 512));
        check(0, u64::MAX / 512, 0, 1 << 20, past(u64::MAX / 512, 1 << 20));
        check(0, 0, 0, 100, Err(Refusal::Unaligned { sector: 0, length: 100, block: 512 }));
        check(2, 0, 0, 0, Err(Refusal::Type(2)));
        check(14, 0, 16, 0, Err(Refusal::Type(14)));
        check(0x8000_0000, 0, 0, 0, Err(Refusal::Type(0x8000_0000)));
    }

    #[test]
    fn discards_carry_one_range() {
        let check = |kind, bytes: [u8; SEGMENT_BYTES], expected| {
            let decoded = decode(header(kind, u64::MAX), SEGMENT_BYTES as u64, 0, || bytes, &DISK);
            assert_eq!(decoded, expected, "type {kind}, segment {bytes:?}");
        };
        let zeroes =
            |offset, length, may_unmap| Ok(Request::WriteZeroes { range: range(offset, length), may_unmap });
        check(11, segment(1, 2, 0), Ok(Request::Discard(range(512, 1024))));
        check(13, segment(0, 4, 0), zeroes(0, 2048, false));
        check(13, segment(0, 4, 1), zeroes(0, 2048, true));
        check(11, segment(0, 4, 1), Err(Refusal::Flags(1)));
        check(13, segment(0, 4, 3), Err(Refusal::Flags(3)));
        check(11, segment(SECTORS, 1, 0), Err(Refusal::PastEnd { sector: SECTORS, length: 512 }));
        check(13, segment(0, u32::MAX, 0), Err(Refusal::TooLong(u32::MAX)));

        for readable in [0, 15, 17, 32] {
            let decoded = decode(header(11, 0), readable, 0, || segment(0, 1, 0), &DISK);
            assert_eq!(decoded, Err(Refusal::Segments(readable)));
        }
    }

    #[test]
    fn a_read_only_disk_refuses_what_changes_it() {
        let disk = Limits { is_readonly: true, ..DISK };
        for (kind, readable) in [(1, 512), (11, 16), (13, 16)] {
            let refusal = decode(header(kind, 0), readable, 0, || segment(0, 1, 0), &disk).unwrap_err();
            assert_eq!(refusal, Refusal::ReadOnly);
            assert_eq!(refusal.status(), Status::IoError);
        }
        assert!(decode(header(0, 0), 0, 512, || unreachable!(), &disk).is_ok());
        assert!(decode(header(4, 0), 0, 0, || unreachable!(), &disk).is_ok());
    }

    #[test]
    fn a_disk_of_large_blocks_takes_whole_blocks_only() {
        let disk = Limits { block: 4096, ..DISK };
        let read = |sector, length| decode(header(0, sector), 0, length, || unreachable!(), &disk);
        assert!(read(8, 4096).is_ok());
        assert_eq!(read(1, 4096), Err(Refusal::Unaligned { sector: 1, length: 4096, block: 4096 }));
        assert_eq!(read(8, 512), Err(Refusal::Unaligned { sector: 8, length: 512, block: 4096 }));
    }

    proptest! {
        #[test]
        fn what_is_accepted_lies_inside_the_disk(
            kind in 0..16_u32,
            sector in prop_oneof![0..2 * SECTORS, any::<u64>()],
            readable in prop_oneof![0..1_u64 << 22, Just(16), any::<u64>()],
            writable in prop_oneof![0..1_u64 << 22, any::<u64>()],
            bytes in any::<[u8; SEGMENT_BYTES]>(),
            is_readonly in any::<bool>(),
        ) {
            let disk = Limits { is_readonly, ..DISK };
            match decode(header(kind, sector), readable, writable, || bytes, &disk) {
                Ok(Request::Read(range)) => prop_assert!(range.offset + range.length <= disk.capacity),
                Ok(Request::Write(range) | Request::Discard(range) | Request::WriteZeroes { range, .. }) => {
                    prop_assert!(!is_readonly);
                    prop_assert!(range.offset + range.length <= disk.capacity);
                    prop_assert_eq!((range.offset | range.length) % SECTOR_BYTES, 0);
                }
                Ok(Request::Flush | Request::Identify) => {}
                Err(refusal) => prop_assert_ne!(refusal.status(), Status::Ok),
            }
        }
    }
}

//! What a disk must answer, from the specification alone (VIRTIO 1.3 §5.2.6).

use std::ops::Range;

use super::chain::Chain;
use crate::ram::Ram;

const SECTOR: u64 = 512;
const HEADER: usize = 16;
const SEGMENT: usize = 16;
/// Sectors in one range, as the device's configuration says.
const SEGMENT_SECTORS_MAX: u32 = 1 << 21;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// The disk as it must be.
pub struct Model {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What requests must be multiples of.
    pub block: u64,
    /// Its serial number.
    pub serial: [u8; 20],
}

/// What must come of a request.
#[derive(Debug)]
pub enum Expected {
    /// The device needs a reset, and nothing was done.
    NeedsReset,
    /// The request comes back.
    Done {
        /// The outcome, and where it lies.
        outcome: (u64, u8),
        /// Bytes written to the guest's memory, the outcome among them.
        written: u32,
        /// What lies in the guest's memory afterwards.
        data: Vec<(u64, Vec<u8>)>,
        /// What happens to the disk.
        effect: Effect,
    },
}

/// What happens to the disk.
#[derive(Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// These bytes are at this place.
    Write(usize, Vec<u8>),
    /// Zeros are there, all or none if it is only a hint.
    Zeros(Range<usize>, IsHint),
}

/// Whether the device may as well do nothing.
pub type IsHint = bool;

impl Model {
    /// What must come of `chain`.
    pub fn expect(&self, chain: &Chain, ram: &Ram) -> Expected {
        let Some(parts) = Parts::of(chain, ram) else { return Expected::NeedsReset };
        let (status, effect) = self.outcome(&parts);
        let mut data = Vec::new();
        let mut written = 1;
        if status == OK {
            let bytes = match parts.kind {
                0 => &self.bytes[parts.sector as usize * SECTOR as usize..][..parts.room as usize],
                8 => &self.serial[..parts.room.min(20) as usize],
                _ => &[],
            };
            written += bytes.len() as u32;
            data = parts.place(bytes);
        }
        Expected::Done { outcome: (parts.outcome, status), written, data, effect }
    }

    fn outcome(&self, parts: &Parts) -> (u8, Effect) {
        match parts.kind {
            0 => (self.status(self.holds(parts.sector, parts.room)), Effect::None),
            1 => {
                let is_held = self.holds(parts.sector, parts.data.len() as u64);
                let write = || Effect::Write((parts.sector * SECTOR) as usize, parts.data.clone());
                (self.status(is_held), if is_held { write() } else { Effect::None })
            }
            4 | 8 => (OK, Effect::None),
            11 => self.zeros(&parts.data, 0),
            13 => self.zeros(&parts.data, 1),
            _ => (UNSUPPORTED, Effect::None),
        }
    }

    fn zeros(&self, segment: &[u8], known_flags: u32) -> (u8, Effect) {
        if segment.len() != SEGMENT {
            return (IO_ERROR, Effect::None);
        }
        let long = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|index| segment[at + index]));
        let (sector, sectors, flags) = (u64::from(long(0)) | u64::from(long(4)) << 32, long(8), long(12));
        if flags & !known_flags != 0 {
            return (UNSUPPORTED, Effect::None);
        }
        let length = u64::from(sectors) * SECTOR;
        if sectors > SEGMENT_SECTORS_MAX || !self.holds(sector, length) {
            return (IO_ERROR, Effect::None);
        }
        let start = (sector * SECTOR) as usize;
        (OK, Effect::Zeros(start..start + length as usize, known_flags == 0))
    }

    fn status(&self, is_held: bool) -> u8 {
        if is_held { OK } else { IO_ERROR }
    }

    /// Whether the range is on the disk and of whole blocks.
    fn holds(&self, sector: u64, length: u64) -> bool {
        let start = u128::from(sector) * u128::from(SECTOR);
        let is_whole = (start as u64 | length).is_multiple_of(self.block);
        start + u128::from(length) <= self.bytes.len() as u128 && is_whole
    }
}

/// A request taken apart.
struct Parts {
    kind: u32,
    sector: u64,
    /// Readable bytes behind the header.
    data: Vec<u8>,
    /// Writable ranges without the outcome.
    targets: Vec<Range<u64>>,
    /// Bytes of them.
    room: u64,
    /// Where the outcome goes.
    outcome: u64,
}

impl Parts {
    /// `None`: the request breaks the rules of the ring, or is too short.
    fn of(chain: &Chain, ram: &Ram) -> Option<Self> {
        let pieces = &chain.pieces;
        let is_ordered = pieces.is_sorted_by_key(|piece| piece.is_writable);
        let is_ram = pieces.iter().all(|piece| ram.has(piece.address, piece.length));
        if pieces.is_empty() || pieces.len() > 1024 || !is_ordered || !is_ram {
            return None;
        }
        let (writable, readable): (Vec<_>, Vec<_>) = pieces.iter().partition(|piece| piece.is_writable);
        let readable: Vec<u8> =
            readable.iter().flat_map(|piece| ram.load(piece.address, piece.length as usize)).collect();
        let (header, data) = readable.split_at_checked(HEADER)?;
        let mut targets: Vec<_> = writable.iter().map(|piece| piece.range()).collect();
        targets.retain(|range| !range.is_empty());
        let last = targets.last_mut()?;
        last.end -= 1;
        let outcome = last.end;
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|index| header[at + index]));
        Some(Self {
            kind: number(0),
            sector: u64::from(number(8)) | u64::from(number(12)) << 32,
            data: data.to_vec(),
            room: targets.iter().map(|range| range.end - range.start).sum(),
            targets,
            outcome,
        })
    }

    /// Where `bytes` end up.
    fn place(&self, mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut placed = Vec::new();
        for range in &self.targets {
            let (now, later) = bytes.split_at(bytes.len().min((range.end - range.start) as usize));
            placed.push((range.start, now.to_vec()));
            bytes = later;
        }
        placed
    }
}

//! Requests to a disk as a driver lays them out, and as a bad one does.

use std::ops::Range;

use arbitrary::{Result, Unstructured};

use crate::words::{address, length};

/// Where header, data and outcome of well-made requests lie.
pub const DATA: u64 = 0x8000;
const WRITE: u16 = 2;
const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

const READ_FROM_DISK: u32 = 0;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// A piece of memory that a request names.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its first byte.
    pub address: u64,
    /// Its bytes.
    pub length: u32,
    /// Whether the device writes it.
    pub is_writable: bool,
}

impl Piece {
    /// The bytes it covers; none if it wraps around.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address.checked_add(self.length.into()).unwrap_or(self.address)
    }
}

/// A request, and what the driver writes to memory before it makes it available.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// In the order of the chain.
    pub pieces: Vec<Piece>,
    /// Address and content.
    pub content: Vec<(u64, Vec<u8>)>,
}

impl Chain {
    /// A request whose memory starts at `base`.
    pub fn generate(base: u64, input: &mut Unstructured<'_>) -> Result<Self> {
        let mut chain = Self::well_made(base, input)?;
        for _ in 0..input.int_in_range(0..=10_u8)?.saturating_sub(7) {
            chain.spoil(input)?;
        }
        Ok(chain)
    }

    /// One request of more pieces than any is allowed to have.
    pub fn endless(base: u64) -> Self {
        let piece = Piece { address: base, length: 1, is_writable: false };
        Self { pieces: vec![piece; 1030], content: Vec::new() }
    }

    fn well_made(base: u64, input: &mut Unstructured<'_>) -> Result<Self> {
        let kind = *input.choose(&[0_u32, 1, 1, 0, 4, 8, DISCARD, WRITE_ZEROES, 7])?;
        let sector = u64::from(input.int_in_range(0..=66_u8)?);
        let mut chain = Self::default();
        let mut next = base;
        let header = [&u64::from(kind).to_le_bytes()[..], &sector.to_le_bytes()].concat();
        chain.add(&mut next, 16, false, Some(header));
        if matches!(kind, DISCARD | WRITE_ZEROES) {
            let (sectors, flags) = (u32::from(input.int_in_range(0..=20_u8)?), u32::from(input.ratio(1, 4)?));
            let segment = [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat();
            chain.add(&mut next, 16, false, Some(segment));
        } else {
            for _ in 0..input.int_in_range(0..=3_u8)? {
                // Misaligned memory takes another way in direct I/O.
                next += u64::from(input.ratio(1, 4)?) * 8;
                let bytes = 512 * u32::from(input.int_in_range(0..=4_u8)?);
                let fill = input.arbitrary::<u8>()?;
                let content = (kind != READ_FROM_DISK).then(|| pattern(fill, bytes));
                chain.add(&mut next, bytes, matches!(kind, READ_FROM_DISK | 8), content);
            }
        }
        chain.add(&mut next, 1, true, None);
        Ok(chain)
    }

    fn add(&mut self, next: &mut u64, length: u32, is_writable: bool, content: Option<Vec<u8>>) {
        self.content.extend(content.map(|content| (*next, content)));
        self.pieces.push(Piece { address: *next, length, is_writable });
        *next += u64::from(length.next_multiple_of(512));
    }

    /// Changes one thing, for better or worse.
    fn spoil(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let index = input.choose_index(self.pieces.len().max(1))?;
        let Some(piece) = self.pieces.get_mut(index) else { return Ok(()) };
        match input.int_in_range(0..=8_u8)? {
            0 => piece.address = address(input)?,
            1 => piece.length = length(input)?,
            2 => piece.is_writable = !piece.is_writable,
            3 => drop(self.pieces.remove(index)),
            4 => {
                let copy = piece.clone();
                self.pieces.insert(index, copy);
            }
            5 => {
                let last = self.pieces.len() - 1;
                self.pieces.swap(index, last);
            }
            6 => self.split(index, input)?,
            7 => self.content.push((piece.address, input.arbitrary::<[u8; 16]>()?.to_vec())),
            // Both in one piece, which is no worse.
            _ => piece.length = piece.length.saturating_add(1),
        }
        Ok(())
    }

    fn split(&mut self, index: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let piece = &mut self.pieces[index];
        let first = input.int_in_range(0..=piece.length)?;
        let rest = Piece {
            address: piece.address.wrapping_add(first.into()),
            length: piece.length - first,
            is_writable: piece.is_writable,
        };
        piece.length = first;
        self.pieces.insert(index + 1, rest);
        Ok(())
    }

    /// The descriptors of the pieces, from `first` on in a table.
    pub fn descriptors(&self, first: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let link = if index + 1 < self.pieces.len() { NEXT } else { 0 };
            let flags = link | if piece.is_writable { WRITE } else { 0 };
            bytes.extend(descriptor(piece.address, piece.length, flags, first + index as u16 + 1));
        }
        bytes
    }

    /// The descriptor that points to the pieces' own table at `table`.
    pub fn indirect(&self, table: u64) -> [u8; 16] {
        descriptor(table, 16 * self.pieces.len() as u32, INDIRECT, 0)
    }

    /// What the device may write.
    pub fn writable(&self) -> impl Iterator<Item = Range<u64>> {
        self.pieces.iter().filter(|piece| piece.is_writable).map(Piece::range)
    }

    /// Whether what the device does depends on the order in which it does it: its own writes meet each
    /// other, or what it reads.
    pub fn is_ambiguous(&self, rings: &Range<u64>) -> bool {
        let writable: Vec<_> = self.writable().filter(|range| !range.is_empty()).collect();
        let meet = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
        let among = writable.iter().enumerate().any(|(n, a)| writable[n + 1..].iter().any(|b| meet(a, b)));
        among || self.pieces.iter().any(|piece| meet(&piece.range(), rings))
    }
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

fn pattern(fill: u8, length: u32) -> Vec<u8> {
    (0..length).map(|index| fill.wrapping_add((index / 16) as u8)).collect()
}

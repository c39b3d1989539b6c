//! What an ELF image says of itself, checked against the length of its file before anything is loaded.

use std::io::{Read, Seek, SeekFrom};

/// Segments of a kernel at most; Linux has five.
const SEGMENTS_MAX: usize = 64;
/// Bytes of a note segment that are read at most.
const NOTES_MAX: u64 = 64 << 10;
const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const LOAD: u32 = 1;
const NOTE: u32 = 4;

/// Owner and type of the note by which an image says that its code runs at privilege level 3.
const LEVEL_3_OWNER: &[u8] = b"napa\0";
const LEVEL_3_TYPE: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Lowest guest-physical address of a segment.
    pub start: u64,
    /// First address after the highest.
    pub end: u64,
    pub runs_at_level_3: bool,
}

/// Reads the headers of an image of `length` bytes. The error completes the sentence "kernel NAME …".
pub(super) fn examine(image: &mut (impl Read + Seek), length: u64) -> Result<Facts, String> {
    let header: [u8; HEADER_SIZE] = read_at(image, 0)?;
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || half(&header, 18) != MACHINE_X86_64 {
        return Err("is an ELF image for another processor: only 64-bit x86 kernels can run here".into());
    }
    let count = usize::from(half(&header, 56));
    if usize::from(half(&header, 54)) != PROGRAM_HEADER_SIZE || count == 0 || count > SEGMENTS_MAX {
        return Err("has no usable program headers: it is not a kernel".into());
    }
    let table = quad(&header, 32);
    let mut facts = Facts { start: u64::MAX, end: 0, runs_at_level_3: false };
    for index in 0..count {
        let at = table
            .checked_add((index * PROGRAM_HEADER_SIZE) as u64)
            .ok_or("has its program headers nowhere")?;
        let segment: [u8; PROGRAM_HEADER_SIZE] = read_at(image, at)?;
        take_segment(&mut facts, image, &segment, index, length)?;
    }
    if facts.end == 0 { Err("has no segment to load: it is not a kernel".into()) } else { Ok(facts) }
}

fn take_segment(
    facts: &mut Facts,
    image: &mut (impl Read + Seek),
    segment: &[u8; PROGRAM_HEADER_SIZE],
    index: usize,
    length: u64,
) -> Result<(), String> {
    let (kind, offset, address) = (long(segment, 0), quad(segment, 8), quad(segment, 24));
    let (file_size, memory_size) = (quad(segment, 32), quad(segment, 40));
    if kind != LOAD && kind != NOTE {
        return Ok(());
    }
    let file_end =
        offset.checked_add(file_size).ok_or_else(|| format!("has a segment {index} of impossible size"))?;
    if file_end > length {
        return Err(format!(
            "is truncated: segment {index} ends at byte {file_end}, and the file has {length}"
        ));
    }
    if kind == NOTE {
        facts.runs_at_level_3 |= has_level_3_note(image, offset, file_size)?;
    } else if memory_size != 0 {
        let end = address.checked_add(memory_size.max(file_size));
        facts.start = facts.start.min(address);
        facts.end =
            facts.end.max(end.ok_or_else(|| format!("has a segment {index} past the end of memory"))?);
    }
    Ok(())
}

/// Notes are `name size, descriptor size, type, name, descriptor`, each padded to four bytes (ELF gABI, ch. 5).
fn has_level_3_note(image: &mut (impl Read + Seek), offset: u64, size: u64) -> Result<bool, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    image.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
    let mut notes = Vec::new();
    image.by_ref().take(size.min(NOTES_MAX)).read_to_end(&mut notes).map_err(unreadable)?;
    let mut rest = notes.as_slice();
    while rest.len() >= 12 {
        let (name_size, descriptor_size, kind) =
            (long(rest, 0) as usize, long(rest, 4) as usize, long(rest, 8));
        let name = rest.get(12..12_usize.saturating_add(name_size)).unwrap_or_default();
        if kind == LEVEL_3_TYPE && name == LEVEL_3_OWNER {
            return Ok(true);
        }
        let padded = |size: usize| size.saturating_add(3) & !3;
        let next = padded(name_size).saturating_add(padded(descriptor_size)).saturating_add(12);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(false)
}

fn read_at<const N: usize>(image: &mut (impl Read + Seek), offset: u64) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    image
        .seek(SeekFrom::Start(offset))
        .and_then(|_| image.read_exact(&mut bytes))
        .map_err(|_| format!("is truncated: it ends before byte {}", offset.saturating_add(N as u64)))?;
    Ok(bytes)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from(long(bytes, at)) | u64::from(long(bytes, at + 4)) << 32
}

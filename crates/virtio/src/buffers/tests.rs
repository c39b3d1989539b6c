use std::sync::Arc;

use napa_memory::{RamRegion, allocate, map_image};
use napa_units::{Bytes, GuestAddress as Address_};
use proptest::prelude::*;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue as Ring, QueueT};
use vm_memory::{Bytes as _, GuestAddress};

use super::*;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const RAM: u64 = 1 << 20;

fn ram() -> Arc<GuestRam> {
    Arc::new(allocate(&[RamRegion { start: Address_(0), size: Bytes(RAM) }]).unwrap())
}

/// The buffers of one chain made of `(address, length, flags)`, with links in order.
fn fill(ram: &Arc<GuestRam>, pieces: &[(u64, u32, u16)]) -> Result<Buffers, BuffersError> {
    let mock = MockSplitQueue::create(ram.as_ref(), GuestAddress(0x8_0000), 16);
    let last = pieces.len() - 1;
    let descriptors: Vec<RawDescriptor> = pieces
        .iter()
        .enumerate()
        .map(|(index, (address, length, flags))| {
            let next = if index < last { NEXT } else { 0 };
            RawDescriptor::from(Descriptor::new(*address, *length, flags | next, index as u16 + 1))
        })
        .collect();
    mock.add_desc_chains(&descriptors, 0).unwrap();
    let mut ring: Ring = mock.create_queue().unwrap();
    let mut chain = ring.pop_descriptor_chain(Arc::clone(ram)).unwrap();
    let mut buffers = Buffers::default();
    buffers.fill(&mut chain, ram).map(|()| buffers)
}

#[test]
fn a_request_is_split_into_header_data_and_status() {
    let ram = ram();
    ram.write_slice(b"headerdata", GuestAddress(0x100)).unwrap();
    let mut buffers =
        fill(&ram, &[(0x100, 3, 0), (0x103, 7, 0), (0x200, 4, WRITE), (0x300, 1, WRITE)]).unwrap();
    assert_eq!(&buffers.take_header::<6>().unwrap(), b"header");
    let mut data = [0; 8];
    assert_eq!(buffers.read(&mut data), 4);
    assert_eq!(&data[..4], b"data");
    assert!(buffers.take_status().is_some());
    assert_eq!(buffers.writable_bytes(), 4);
    assert_eq!(buffers.write(b"12345"), 4);
    assert_eq!(ram.read_obj::<[u8; 4]>(GuestAddress(0x200)).unwrap(), *b"1234");
    assert!(buffers.take_header::<5>().is_none(), "only four bytes are left");
}

#[test]
fn memory_that_the_guest_cannot_write_is_read_only_to_devices_too() {
    const IMAGE: u64 = 1 << 32;
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"image").unwrap();
    let region = RamRegion { start: Address_(IMAGE), size: Bytes(4096) };
    let image = Arc::new(map_image(&file, region).unwrap());
    let memory = Arc::new(ram().insert_region(image).unwrap());
    let mut buffers = fill(&memory, &[(IMAGE, 5, 0), (0x100, 1, WRITE)]).unwrap();
    assert_eq!(&buffers.take_header::<5>().unwrap(), b"image");
    let error = fill(&memory, &[(0x100, 1, WRITE), (IMAGE + 5, 1, WRITE)]).err();
    assert_eq!(error, Some(BuffersError::ReadOnly(IMAGE + 5, 1)));
    assert_eq!(fill(&memory, &[(IMAGE, 4097, 0)]).err(), Some(BuffersError::Outside(IMAGE, 4097)));
}

#[test]
fn what_was_dealt_with_is_skipped() {
    let ram = ram();
    let check = |count: u64, lengths: &[usize]| {
        let pieces = [(0x100, 3, 0), (0x200, 0, 0), (0x300, 5, 0), (0x400, 4, WRITE), (0x500, 4, WRITE)];
        let mut buffers = fill(&ram, &pieces).unwrap();
        buffers.skip_readable(count);
        let left: Vec<usize> = buffers.readable.iter().map(|piece| piece.iov_len).collect();
        assert_eq!(left, lengths, "after {count} bytes");
        assert_eq!(buffers.writable_bytes(), 8, "writable memory was not meant");
    };
    check(0, &[3, 0, 5]);
    check(2, &[1, 0, 5]);
    check(3, &[5]);
    check(4, &[4]);
    check(8, &[]);
    check(u64::MAX, &[]);

    let mut buffers = fill(&ram, &[(0x400, 4, WRITE), (0x500, 4, WRITE)]).unwrap();
    buffers.skip_writable(6);
    buffers.write(b"xy");
    assert_eq!(ram.read_obj::<[u8; 4]>(GuestAddress(0x500)).unwrap(), *b"\0\0xy");
}

#[test]
fn what_is_past_the_end_is_forgotten() {
    let ram = ram();
    for (count, expected) in [(0, 0), (1, 1), (2, 2), (3, 3), (5, 5), (6, 5), (u64::MAX, 5)] {
        let mut buffers = fill(&ram, &[(0x100, 5, 0), (0x200, 2, WRITE), (0x300, 3, WRITE)]).unwrap();
        buffers.truncate_writable(count);
        assert_eq!((buffers.readable_bytes(), buffers.writable_bytes()), (5, expected), "{count}");
        buffers.truncate_readable(count);
        assert_eq!((buffers.readable_bytes(), buffers.writable_bytes()), (expected, expected), "{count}");
        assert_eq!(buffers.write(b"12345") as u64, expected);
    }
}

#[test]
fn a_write_at_an_offset_crosses_pieces_and_stops_at_the_end() {
    let ram = ram();
    let buffers = fill(&ram, &[(0x100, 2, WRITE), (0x200, 0, WRITE), (0x300, 3, WRITE)]).unwrap();
    let check = |offset, data: &[u8], expected: &[u8; 5]| {
        buffers.write(b".....");
        buffers.write_at(offset, data);
        let mut bytes = [0; 5];
        ram.read_slice(&mut bytes[..2], GuestAddress(0x100)).unwrap();
        ram.read_slice(&mut bytes[2..], GuestAddress(0x300)).unwrap();
        assert_eq!(&bytes, expected, "{data:?} at {offset}");
    };
    check(0, b"ab", b"ab...");
    check(1, b"abc", b".abc.");
    check(2, b"a", b"..a..");
    check(4, b"ab", b"....a");
    check(5, b"ab", b".....");
    check(usize::MAX, b"ab", b".....");
    check(3, b"", b".....");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let ram = ram();
    let check = |pieces: &[(u64, u32, u16)], expected| assert_eq!(fill(&ram, pieces).err(), Some(expected));
    check(&[(RAM, 1, 0)], BuffersError::Outside(RAM, 1));
    check(&[(RAM - 1, 2, 0)], BuffersError::Outside(RAM - 1, 2));
    check(&[(u64::MAX, 2, WRITE)], BuffersError::Outside(u64::MAX, 2));
    check(&[(0x100, 1, WRITE), (0x200, 1, 0)], BuffersError::Order);
}

proptest! {
    #[test]
    fn what_was_filled_lies_inside_ram(pieces in proptest::collection::vec((0..2 * RAM, 0..2 * RAM as u32, 0..4_u16), 1..12)) {
        let ram = ram();
        let plain: Vec<_> = pieces.into_iter().map(|(address, length, flags)| (address, length, flags & WRITE)).collect();
        if let Ok(mut buffers) = fill(&ram, &plain) {
            let start = ram.get_host_address(GuestAddress(0)).unwrap() as u64;
            for piece in buffers.readable.iter().chain(&buffers.writable) {
                let from = piece.iov_base as u64;
                prop_assert!(from >= start && from + piece.iov_len as u64 <= start + RAM);
            }
            let _ = buffers.take_header::<16>();
            let _ = buffers.take_status();
        }
    }
}

//! Whether the kernel may merge pages of guest RAM with equal ones.
#![allow(unsafe_code)] // Advice about a mapping is given by address.

use std::io;
use std::time::Instant;

use napa_units::{PAGE_SIZE, Pages};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::{PageStates, Piece, host_address};

/// Merged pages are taken apart in pieces of so many, 16 MiB: each has to be copied, and the clock is looked at in
/// between.
const PIECE: u64 = 4096;

/// Lets the kernel merge all pages that the guest has, and those that are plugged later (`MADV_MERGEABLE`). It does so
/// when its scanner comes by.
///
/// # Errors
/// The kernel has no KSM, or no memory for its notes.
pub fn make_mergeable(states: &PageStates) -> io::Result<()> {
    let mut ram = states.ram().iter();
    ram.try_for_each(|region| advise(host_address(region), region.len(), libc::MADV_MERGEABLE))?;
    states.blocks().map_or(Ok(()), |blocks| blocks.make_mergeable())
}

/// Takes merged pages apart (`MADV_UNMERGEABLE`), from the one with the index `from` on, until all are done or it is
/// `until`. Returns the index to go on from, which is the end of all indices at the end. What is plugged from now on is
/// not merged.
///
/// # Errors
/// The host has no memory for a copy of a page. What was taken apart before stays so, and the contents are what they
/// were.
pub fn take_apart(states: &PageStates, from: Pages, until: Instant) -> (Pages, io::Result<()>) {
    if let Some(blocks) = states.blocks() {
        blocks.keep_unmerged();
    }
    // A block that is unplugged meanwhile has nothing to take apart any more, and takes the advice.
    for piece in states.pieces(from.0..states.end()) {
        let Piece { index, start, count } = piece;
        let mut done = 0;
        while done < count.0 {
            if Instant::now() >= until {
                return (Pages(index + done), Ok(()));
            }
            let pages = PIECE.min(count.0 - done);
            match advise(start + done * PAGE_SIZE, pages * PAGE_SIZE, libc::MADV_UNMERGEABLE) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return (Pages(index + done), Err(error));
                }
                Err(_) => {}
                Ok(()) => done += pages,
            }
        }
    }
    (Pages(states.end()), Ok(()))
}

fn advise(start: u64, bytes: u64, advice: i32) -> io::Result<()> {
    let start = start as *mut libc::c_void;
    // SAFETY: the range lies in guest memory, which stays mapped; the advice changes what its pages share with others,
    // not what they hold.
    match unsafe { libc::madvise(start, bytes as usize, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use napa_units::{Bytes, GuestAddress};
    use vm_memory::Bytes as _;

    use super::*;
    use crate::{RamRegion, allocate};

    /// Nothing is merged here: the scanner is the host's, and other tests' as well.
    #[test]
    fn memory_becomes_mergeable_and_private_again_and_keeps_its_contents() {
        let low = RamRegion { start: GuestAddress(0), size: Bytes::mib(33) };
        let high = RamRegion { start: GuestAddress(1 << 32), size: Bytes::mib(1) };
        let states = PageStates::new(Arc::new(allocate(&[low, high]).unwrap()));
        let ram = states.ram();
        let address = vm_memory::GuestAddress((1 << 32) + 8);
        ram.write_obj(7_u64, address).unwrap();
        match make_mergeable(&states) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                println!("skipped: this kernel has no KSM");
                return;
            }
            made => made.unwrap(),
        }
        let all = Pages::covering(Bytes::mib(34));
        let (at, result) = take_apart(&states, Pages(0), Instant::now());
        assert_eq!((at, result.is_ok()), (Pages(0), true), "there was no time for a single piece");
        let (at, result) = take_apart(&states, Pages(8_000), Instant::now() + Duration::from_secs(60));
        assert_eq!((at, result.is_ok()), (all, true));
        assert_eq!(take_apart(&states, all, Instant::now() + Duration::from_secs(60)).0, all);
        assert_eq!(ram.read_obj::<u64>(address).unwrap(), 7);
    }
}

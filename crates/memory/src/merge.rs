//! Whether the kernel may merge pages of guest RAM with equal ones.
#![allow(unsafe_code)] // Advice about a mapping is given by address.

use std::io;
use std::time::Instant;

use napa_units::{PAGE_SIZE, Pages};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

use crate::{GuestRam, host_address};

/// Merged pages are taken apart in pieces of so many, 16 MiB: each has to be copied, and the clock is looked at in
/// between.
const PIECE: u64 = 4096;

/// Lets the kernel merge the pages of all of `ram` (`MADV_MERGEABLE`). It does so when its scanner comes by.
///
/// # Errors
/// The kernel has no KSM, or no memory for its notes.
pub fn make_mergeable(ram: &GuestRam) -> io::Result<()> {
    ram.iter().try_for_each(|region| advise(region, 0, region.len(), libc::MADV_MERGEABLE))
}

/// Takes merged pages of `ram` apart (`MADV_UNMERGEABLE`), from the page `from` on in the order of their addresses,
/// until all are done or it is `until`. Returns the page to go on from, which is the number of pages at the end.
///
/// # Errors
/// The host has no memory for a copy of a page. What was taken apart before stays so, and the contents are what they
/// were.
pub fn take_apart(ram: &GuestRam, from: Pages, until: Instant) -> (Pages, io::Result<()>) {
    let (mut at, mut before) = (from.0, 0);
    for region in ram.iter() {
        let pages = region.len() / PAGE_SIZE;
        while at < before + pages {
            if Instant::now() >= until {
                return (Pages(at), Ok(()));
            }
            let first = at - before;
            let count = PIECE.min(pages - first);
            match advise(region, first * PAGE_SIZE, count * PAGE_SIZE, libc::MADV_UNMERGEABLE) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return (Pages(at), Err(error)),
                Err(_) => {}
                Ok(()) => at += count,
            }
        }
        before += pages;
    }
    (Pages(at), Ok(()))
}

fn advise(region: &GuestRegionMmap<()>, offset: u64, bytes: u64, advice: i32) -> io::Result<()> {
    let start = (host_address(region) + offset) as *mut libc::c_void;
    // SAFETY: the range lies inside one mapping that `ram` owns; the advice changes what its pages share with others,
    // not what they hold.
    match unsafe { libc::madvise(start, bytes as usize, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
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
        let ram = allocate(&[low, high]).unwrap();
        let address = vm_memory::GuestAddress((1 << 32) + 8);
        ram.write_obj(7_u64, address).unwrap();
        match make_mergeable(&ram) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                println!("skipped: this kernel has no KSM");
                return;
            }
            made => made.unwrap(),
        }
        let all = Pages::covering(Bytes::mib(34));
        let (at, result) = take_apart(&ram, Pages(0), Instant::now());
        assert_eq!((at, result.is_ok()), (Pages(0), true), "there was no time for a single piece");
        let (at, result) = take_apart(&ram, Pages(8_000), Instant::now() + Duration::from_secs(60));
        assert_eq!((at, result.is_ok()), (all, true));
        assert_eq!(take_apart(&ram, all, Instant::now() + Duration::from_secs(60)).0, all);
        assert_eq!(ram.read_obj::<u64>(address).unwrap(), 7);
    }
}

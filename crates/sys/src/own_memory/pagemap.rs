//! The state of each page (Documentation/admin-guide/mm/pagemap.rst).
#![allow(unsafe_code)] // PAGEMAP_SCAN writes through an address in its argument.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use napa_units::PAGE_SIZE;

use crate::host::Root;

/// Runs of equal pages that one call of PAGEMAP_SCAN gives at most.
const SCAN_RUNS: usize = 1024;
/// Entries that are read at a time.
const READ_ENTRIES: usize = 4096;
/// Types of swap entries from here on are not swap: the page is on its way between two places in memory, for
/// example (`MAX_SWAPFILES` in include/linux/swap.h; kernels with fewer kinds of such entries start later).
const SWAP_AREAS_MAX: u64 = 23;

/// `/proc/self/pagemap`.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    /// The kernel has PAGEMAP_SCAN (Linux 6.7) and lets this process call it; so it is believed until it refuses.
    scans: AtomicBool,
}

/// Pages one after the other that look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub pages: u64,
    /// What the kernel shows of them.
    pub seen: Seen,
}

/// What the kernel shows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing is there.
    Absent,
    /// The kernel's page of zeros.
    Zeros,
    /// A page in memory.
    Present,
    /// A page in memory, or the kernel's page of zeros.
    PresentOrZeros,
    /// A page in swap; the number of the swap area, where the kernel shows it to this process.
    Swapped(Option<u8>),
}

/// Whether the numbers of swap areas are asked for, which costs a closer look at each page in swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapAreas {
    /// They are.
    Named,
    /// They are not: all of them are of one kind.
    Alike,
}

impl Pagemap {
    /// Opens it.
    ///
    /// # Errors
    /// There is no such file.
    pub fn open(root: &Root) -> io::Result<Self> {
        let file = File::open(root.as_ref().join("proc/self/pagemap"))?;
        Ok(Self { file, scans: AtomicBool::new(true) })
    }

    /// Looks at `pages` pages of this process from the address `start` on, and gives `each` all of them in order.
    ///
    /// # Errors
    /// The kernel does not give them; `each` has seen a part.
    pub fn look(
        &self,
        start: u64,
        pages: u64,
        areas: SwapAreas,
        each: &mut dyn FnMut(Run),
    ) -> io::Result<()> {
        if self.scans.load(Ordering::Relaxed) {
            match self.scan(start, pages, areas, each) {
                Err(Refused::AtOnce) => self.scans.store(false, Ordering::Relaxed),
                Err(Refused::Later(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        self.read(start, pages, areas, each)
    }

    /// Whether the page at this address lies in a huge page that is mapped whole. `false`, too, where the kernel does
    /// not say.
    pub fn is_huge(&self, address: u64) -> bool {
        let page = address - address % PAGE_SIZE;
        let mut regions = [Region::default()];
        let found = scan_once(&self.file, page, page + PAGE_SIZE, &mut regions);
        found.is_ok_and(|(found, _)| found == 1 && regions[0].categories & IS_HUGE != 0)
    }

    /// Whether the page at this address is there and nobody else's: neither merged with others nor a page of zeros.
    ///
    /// # Errors
    /// The kernel does not give its entry.
    pub fn is_own(&self, address: u64) -> io::Result<bool> {
        let mut own = false;
        self.read(address, 1, SwapAreas::Alike, &mut |run| own = run.seen == Seen::Present)?;
        Ok(own)
    }

    fn scan(
        &self,
        start: u64,
        pages: u64,
        areas: SwapAreas,
        each: &mut dyn FnMut(Run),
    ) -> Result<(), Refused> {
        let end = start + pages * PAGE_SIZE;
        let mut regions = [Region::default(); SCAN_RUNS];
        let mut at = start;
        while at < end {
            let (found, next) = match scan_once(&self.file, at, end, &mut regions) {
                Ok(found) => found,
                Err(_) if at == start => return Err(Refused::AtOnce),
                Err(error) => return Err(Refused::Later(error)),
            };
            for region in &regions[..found] {
                give(each, region.start.saturating_sub(at) / PAGE_SIZE, Seen::Absent);
                let pages = (region.end - region.start) / PAGE_SIZE;
                match (region.seen(), areas) {
                    (Seen::Swapped(_), SwapAreas::Named) => {
                        self.read(region.start, pages, areas, each).map_err(Refused::Later)?;
                    }
                    (seen, _) => give(each, pages, seen),
                }
                at = region.end;
            }
            if next <= at && found == 0 {
                return Err(Refused::Later(io::Error::other("PAGEMAP_SCAN makes no progress")));
            }
            give(each, next.saturating_sub(at) / PAGE_SIZE, Seen::Absent);
            at = at.max(next);
        }
        Ok(())
    }

    fn read(&self, start: u64, pages: u64, areas: SwapAreas, each: &mut dyn FnMut(Run)) -> io::Result<()> {
        let mut bytes = vec![0; READ_ENTRIES.min(pages as usize) * 8];
        let mut run = Run { pages: 0, seen: Seen::Absent };
        let mut at = start / PAGE_SIZE;
        let end = at + pages;
        while at < end {
            let part = &mut bytes[..READ_ENTRIES.min((end - at) as usize) * 8];
            self.file.read_exact_at(part, at * 8)?;
            for entry in part.chunks_exact(8) {
                let entry = u64::from_ne_bytes(entry.try_into().expect("a chunk has eight bytes"));
                let seen = seen_in(entry, areas);
                if seen != run.seen {
                    give(each, run.pages, run.seen);
                    run = Run { pages: 0, seen };
                }
                run.pages += 1;
            }
            at += (part.len() / 8) as u64;
        }
        give(each, run.pages, run.seen);
        Ok(())
    }
}

/// How the kernel refused to scan.
enum Refused {
    /// It cannot, and nothing was given.
    AtOnce,
    /// In the middle.
    Later(io::Error),
}

fn give(each: &mut dyn FnMut(Run), pages: u64, seen: Seen) {
    if pages > 0 {
        each(Run { pages, seen });
    }
}

/// Reads an entry of pagemap.
fn seen_in(entry: u64, areas: SwapAreas) -> Seen {
    let bit = |number: u32| entry >> number & 1 != 0;
    let (exclusive, of_file, swapped, present) = (bit(56), bit(61), bit(62), bit(63));
    // An entry of swap has the area in its lowest five bits and the place within it above, which is never 0.
    let (place, area) = (entry & ((1 << 55) - 1), entry & 0x1f);
    match (present, swapped) {
        // The page of zeros is mapped in many places, so it is never exclusive; a merged page is like it.
        (true, _) if exclusive || of_file => Seen::Present,
        (true, _) => Seen::PresentOrZeros,
        (false, true) if place != 0 && area >= SWAP_AREAS_MAX => Seen::Present,
        (false, true) if place != 0 && areas == SwapAreas::Named => Seen::Swapped(Some(area as u8)),
        (false, true) => Seen::Swapped(None),
        (false, false) => Seen::Absent,
    }
}

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_ZEROS: u64 = 1 << 5;
const IS_HUGE: u64 = 1 << 6;

impl Region {
    fn seen(&self) -> Seen {
        let is = |category| self.categories & category != 0;
        if is(IS_ZEROS) {
            Seen::Zeros
        } else if is(IS_PRESENT) {
            // Not all kernels say so of the huge page of zeros.
            if is(IS_HUGE) { Seen::PresentOrZeros } else { Seen::Present }
        } else {
            Seen::Swapped(None)
        }
    }
}

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `PAGEMAP_SCAN` of linux/fs.h: `_IOWR('f', 16, struct pm_scan_arg)`.
pub const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// Fills `regions` with runs of pages that are present or swapped; returns how many, and where the kernel stopped.
fn scan_once(file: &File, start: u64, end: u64, regions: &mut [Region]) -> io::Result<(usize, u64)> {
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        start,
        end,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.len() as u64,
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        return_mask: IS_PRESENT | IS_SWAPPED | IS_ZEROS | IS_HUGE,
        ..Scan::default()
    };
    // SAFETY: the argument is a whole `struct pm_scan_arg`, and the kernel writes at most `vec_len` regions to `vec`,
    // which is a buffer of that many that nobody else uses meanwhile. No flag asks for a change of any page.
    let found = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
    usize::try_from(found).map(|found| (found, scan.walk_end)).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    /// Memory of this process that only the test touches.
    struct Mapping {
        start: u64,
        pages: u64,
    }

    impl Mapping {
        fn new(pages: u64) -> Self {
            let bytes = (pages * PAGE_SIZE) as usize;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping at an address that the kernel chooses.
            let start = unsafe { libc::mmap(ptr::null_mut(), bytes, rights, flags, -1, 0) };
            assert_ne!(start, libc::MAP_FAILED);
            // SAFETY: the range is the mapping just made; huge pages would blur which page was touched.
            unsafe { libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE) };
            Self { start: start as u64, pages }
        }

        fn page(&self, page: u64) -> *mut u8 {
            (self.start + page * PAGE_SIZE) as *mut u8
        }

        fn write(&self, page: u64) {
            // SAFETY: the page lies in the mapping, which nobody else uses.
            unsafe { self.page(page).write_volatile(1) };
        }

        fn read(&self, page: u64) {
            // SAFETY: as above.
            unsafe { self.page(page).read_volatile() };
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping was made by `new`, and nothing refers to it any more.
            unsafe { libc::munmap(self.start as *mut libc::c_void, (self.pages * PAGE_SIZE) as usize) };
        }
    }

    fn look(pagemap: &Pagemap, mapping: &Mapping) -> Vec<Seen> {
        let mut pages = Vec::new();
        let mut each = |run: Run| pages.extend(std::iter::repeat_n(run.seen, run.pages as usize));
        pagemap.look(mapping.start, mapping.pages, SwapAreas::Named, &mut each).unwrap();
        pages
    }

    #[test]
    fn pages_are_seen_as_they_are_with_and_without_a_scan() {
        let mapping = Mapping::new(10_000);
        for page in (0..9_000).step_by(3) {
            mapping.write(page);
        }
        mapping.read(9_001);
        let pagemap = Pagemap::open(&Root::system()).unwrap();
        let can_scan = scan_once(&pagemap.file, mapping.start, mapping.start, &mut []).is_ok();
        for scans in [true, false] {
            pagemap.scans.store(scans && can_scan, Ordering::Relaxed);
            let seen = look(&pagemap, &mapping);
            assert_eq!(seen.len(), 10_000);
            for (page, seen) in seen.into_iter().enumerate() {
                let expected = match page {
                    9_001 if scans && can_scan => Seen::Zeros,
                    9_001 => Seen::PresentOrZeros,
                    page if page < 9_000 && page % 3 == 0 => Seen::Present,
                    _ => Seen::Absent,
                };
                assert_eq!(seen, expected, "page {page}, scan {scans}");
            }
            let own = |page: u64| pagemap.is_own(mapping.page(page) as u64).unwrap();
            assert_eq!([0, 1, 9_001].map(own), [true, false, false]);
        }
    }

    #[test]
    fn entries_of_swap_tell_their_area_where_it_is_shown() {
        let swapped = 1 << 62;
        for (entry, areas, expected) in [
            (swapped | 5 << 5 | 2, SwapAreas::Named, Seen::Swapped(Some(2))),
            (swapped | 5 << 5 | 2, SwapAreas::Alike, Seen::Swapped(None)),
            (swapped, SwapAreas::Named, Seen::Swapped(None)),
            (swapped | 5 << 5 | 30, SwapAreas::Named, Seen::Present),
            (0, SwapAreas::Named, Seen::Absent),
            (1 << 63 | 1 << 56, SwapAreas::Named, Seen::Present),
            (1 << 63 | 1 << 61, SwapAreas::Named, Seen::Present),
            (1 << 63, SwapAreas::Named, Seen::PresentOrZeros),
        ] {
            assert_eq!(seen_in(entry, areas), expected, "{entry:#x}");
        }
    }

    #[test]
    fn what_is_not_mapped_is_absent() {
        let mapping = Mapping::new(4);
        mapping.write(1);
        let pagemap = Pagemap::open(&Root::system()).unwrap();
        assert_eq!(look(&pagemap, &mapping), [Seen::Absent, Seen::Present, Seen::Absent, Seen::Absent]);
    }
}

//! Allocation of guest RAM.
#![allow(unsafe_code)] // Advice about a mapping is given by address.

use napa_units::{Bytes, GuestAddress};
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

/// Bytes of a huge page.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory of one guest: its RAM, or all that its devices may address. Clones share the memory.
pub type GuestRam = GuestMemoryMmap<()>;

/// One contiguous piece of guest-physical RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRegion {
    /// Where the guest sees it; a multiple of the page size.
    pub start: GuestAddress,
    /// How long it is; a multiple of the page size, not zero.
    pub size: Bytes,
}

/// Why RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The kernel has no address space or memory left for the region.
    #[error("cannot map {size} of guest memory at {start}: {reason}; give the VM less --memory")]
    Map {
        /// Guest address of the region.
        start: GuestAddress,
        /// Its size.
        size: Bytes,
        /// What the kernel said.
        reason: String,
    },
    /// Regions overlap or wrap around the address space.
    #[error("the guest's memory regions do not fit together: {0}")]
    Layout(String),
}

/// Maps RAM for `regions`. No page is touched: the kernel fills them with zeros as the guest comes to them.
///
/// # Errors
/// The kernel refused a mapping, or the regions overlap.
pub fn allocate(regions: &[RamRegion]) -> Result<GuestRam, RamError> {
    let mapped = regions.iter().map(map).collect::<Result<Vec<_>, _>>()?;
    GuestRam::from_regions(mapped).map_err(|error| RamError::Layout(error.to_string()))
}

/// Address in this process at which `region` starts, for KVM's memory slots and `madvise`.
pub fn host_address(region: &GuestRegionMmap<()>) -> u64 {
    region.get_mmap().as_ptr() as u64
}

/// Asks the kernel to back `ram` with transparent huge pages where it can: a guest's first touch of memory then
/// costs a fault per 2 MiB, and its address translation fewer steps. A kernel without them goes on with small pages.
pub fn prefer_huge_pages(ram: &GuestRam) {
    for region in ram.iter() {
        let mapping = region.get_mmap();
        // SAFETY: the range is exactly one mapping that `ram` owns; the advice changes how it is backed, not
        // what it holds.
        let _unsupported =
            unsafe { libc::madvise(mapping.as_ptr().cast(), mapping.size(), libc::MADV_HUGEPAGE) };
    }
}

fn map(region: &RamRegion) -> Result<GuestRegionMmap<()>, RamError> {
    let refused = |reason: String| RamError::Map { start: region.start, size: region.size, reason };
    let size = usize::try_from(region.size.0).map_err(|error| refused(error.to_string()))?;
    let mapping = map_like(region.start, size).map_err(|error| refused(error.to_string()))?;
    let mapped = GuestRegionMmap::new(mapping, vm_memory::GuestAddress(region.start.0))
        .ok_or_else(|| refused("the region ends past the address space".into()))?;
    debug_assert_eq!(mapped.len(), region.size.0);
    Ok(mapped)
}

/// Maps memory so that a huge page of the host is one of the guest, where the kernel can be talked into it. Linux 6.7
/// and newer do so by themselves for whole huge pages. Otherwise no block of the guest would be a huge page of the
/// host, and giving one back would break two.
pub(crate) fn map_like(start: GuestAddress, size: usize) -> Result<MmapRegion<()>, MmapRegionError> {
    let mapping = map_anywhere(size)?;
    let address = mapping.as_ptr() as usize;
    let too_high = address.wrapping_sub(start.0 as usize) % HUGE_PAGE_BYTES;
    if too_high == 0 || size < HUGE_PAGE_BYTES {
        return Ok(mapping);
    }
    drop(mapping);
    // The kernel maps from the top down: what takes the end of the gap moves the next mapping down.
    let _filler = Filler::map(address + size - too_high, too_high);
    map_anywhere(size)
}

fn map_anywhere(size: usize) -> Result<MmapRegion<()>, MmapRegionError> {
    // No reserve: what the host can promise is decided by admission, not by the kernel's overcommit heuristic.
    MmapRegionBuilder::new_with_bitmap(size, ())
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
        .build()
}

/// A mapping that only takes room.
struct Filler {
    address: *mut libc::c_void,
    size: usize,
}

impl Filler {
    /// Takes this room. `None`: somebody else has some of it.
    fn map(address: usize, size: usize) -> Option<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        let address = address as *mut libc::c_void;
        // SAFETY: a mapping that replaces no other changes nothing that anybody uses.
        let mapped = unsafe { libc::mmap(address, size, libc::PROT_NONE, flags, -1, 0) };
        (mapped != libc::MAP_FAILED).then_some(Self { address: mapped, size })
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping that this made, and nobody else knows of it.
        let _always = unsafe { libc::munmap(self.address, self.size) };
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes as _;

    use super::*;

    #[test]
    fn ram_starts_as_zeros_and_keeps_what_is_written() {
        let low = RamRegion { start: GuestAddress(0), size: Bytes::mib(1) };
        let high = RamRegion { start: GuestAddress(1 << 32), size: Bytes::mib(1) };
        let ram = allocate(&[low, high]).unwrap();
        let address = vm_memory::GuestAddress((1 << 32) + 8);
        assert_eq!(ram.read_obj::<u64>(address).unwrap(), 0);
        ram.write_obj(7_u64, address).unwrap();
        assert_eq!(ram.clone().read_obj::<u64>(address).unwrap(), 7);
        assert!(ram.read_obj::<u64>(vm_memory::GuestAddress(Bytes::mib(1).0)).is_err());
        assert_eq!(ram.num_regions(), 2);
    }

    #[test]
    fn huge_pages_of_the_host_are_those_of_the_guest() {
        // No whole number of huge pages, which every kernel puts anywhere.
        let size = Bytes(Bytes::mib(64).0 + 4096);
        for start in [0, 1 << 32, 4096] {
            let region = RamRegion { start: GuestAddress(start), size };
            let is_like = || {
                let ram = allocate(&[region]).unwrap();
                let address = host_address(ram.iter().next().unwrap());
                address.wrapping_sub(start) % HUGE_PAGE_BYTES as u64 == 0
            };
            // Another thread may take the room that was made.
            assert!((0..20).any(|_| is_like()), "{start:#x}");
        }
    }

    #[test]
    fn huge_pages_change_nothing_but_the_backing() {
        let ram = allocate(&[RamRegion { start: GuestAddress(0), size: Bytes::mib(4) }]).unwrap();
        ram.write_obj(7_u64, vm_memory::GuestAddress(8)).unwrap();
        prefer_huge_pages(&ram);
        assert_eq!(ram.read_obj::<u64>(vm_memory::GuestAddress(8)).unwrap(), 7);
        let flags = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", host_address(ram.iter().next().unwrap()));
        let mapping = flags.split(&start).nth(1).expect("the mapping is listed");
        let flags = mapping.lines().find(|line| line.starts_with("VmFlags")).unwrap();
        // Kernels without huge pages have no such flag to show.
        let has_huge_pages = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert_eq!(flags.split_whitespace().any(|flag| flag == "hg"), has_huge_pages, "{flags}");
    }

    #[test]
    fn regions_that_overlap_are_refused() {
        let region = RamRegion { start: GuestAddress(0), size: Bytes::mib(1) };
        assert!(matches!(allocate(&[region, region]), Err(RamError::Layout(_))));
    }

    #[test]
    fn more_than_the_address_space_is_refused_with_the_size() {
        let region = RamRegion { start: GuestAddress(0), size: Bytes::gib(1 << 20) };
        let error = allocate(&[region]).unwrap_err().to_string();
        assert!(error.contains("1024T"), "{error}");
    }
}

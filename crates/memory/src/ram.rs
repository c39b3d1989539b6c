//! Allocation of guest RAM.
#![allow(unsafe_code)] // Advice about a mapping is given by address.

use napa_units::{Bytes, GuestAddress};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

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
    // No reserve: what the host can promise is decided by admission, not by the kernel's overcommit heuristic.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let mapping = MmapRegionBuilder::new_with_bitmap(size, ())
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags)
        .build()
        .map_err(|error| refused(error.to_string()))?;
    let mapped = GuestRegionMmap::new(mapping, vm_memory::GuestAddress(region.start.0))
        .ok_or_else(|| refused("the region ends past the address space".into()))?;
    debug_assert_eq!(mapped.len(), region.size.0);
    Ok(mapped)
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

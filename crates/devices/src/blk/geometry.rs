//! Sizes that matter for speed, and for direct I/O at all: what the image's storage is made of.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};

use rustix::fs::{AtFlags, StatxFlags, ioctl_blkpbszget, ioctl_blksszget, statx};

use super::aligned::AlignedBuffer;
use super::request::SECTOR_BYTES;

/// What storage reads and writes at once where nothing else is known, in bytes.
const PHYSICAL_BYTES: u32 = 4096;
/// Blocks larger than this are no reason to ask a guest for larger requests.
const PHYSICAL_BYTES_MAX: u32 = 1 << 16;

/// What direct I/O asks of a request; powers of two, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Of addresses in memory.
    pub memory: u64,
    /// Of offsets and lengths; at least a sector.
    pub offset: u64,
}

impl Alignment {
    /// What `file`, opened for direct I/O, asks for. `None`: it cannot do direct I/O.
    pub fn of(file: &File, metadata: &Metadata) -> Option<Self> {
        if let Ok(stat) = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
            && stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0
        {
            return Self::checked(stat.stx_dio_mem_align, stat.stx_dio_offset_align);
        }
        // The kernel does not say (before Linux 6.1, or this file system).
        let block = match metadata.file_type().is_block_device() {
            true => u64::from(ioctl_blksszget(file).ok()?),
            false => probe(file)?,
        };
        Some(Self { memory: block, offset: block })
    }

    fn checked(memory: u32, offset: u32) -> Option<Self> {
        let is_usable = memory.is_power_of_two() && offset.is_power_of_two();
        is_usable.then(|| Self { memory: u64::from(memory), offset: u64::from(offset).max(SECTOR_BYTES) })
    }

    /// Whether direct I/O takes memory of `length` bytes at `address`.
    pub fn admits(&self, address: u64, length: u64) -> bool {
        // Kernels before 6.18 want each piece to have whole blocks, not just the request.
        address & (self.memory - 1) == 0 && length & (self.offset - 1) == 0
    }
}

/// The smallest block at which a read succeeds.
fn probe(file: &File) -> Option<u64> {
    let reads = |block: usize| {
        let mut buffer = AlignedBuffer::new(block);
        file.read_at(buffer.bytes_mut(), block as u64).is_ok()
    };
    [512, 4096].into_iter().find(|block| reads(*block)).map(|block| block as u64)
}

/// Sizes of blocks that the driver is told of (VIRTIO 1.3 §5.2.4); powers of two, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    /// The smallest request that makes sense.
    pub logical: u32,
    /// What the storage reads and writes at once; at least `logical`.
    pub physical: u32,
}

impl Blocks {
    /// The blocks of `file`: its own for a block device, the usual ones for an image file.
    pub fn of(file: &File, metadata: &Metadata, alignment: Option<&Alignment>) -> Self {
        let (logical, physical) = match metadata.file_type().is_block_device() {
            true => (ioctl_blksszget(file).ok(), ioctl_blkpbszget(file).ok()),
            false => (None, u32::try_from(metadata.blksize()).ok()),
        };
        let least = alignment.map_or(SECTOR_BYTES, |alignment| alignment.offset) as u32;
        let known = |size: Option<u32>, otherwise: u32| {
            size.filter(|size| size.is_power_of_two()).unwrap_or(otherwise)
        };
        let logical = known(logical, SECTOR_BYTES as u32).max(least);
        let physical = known(physical, PHYSICAL_BYTES).min(PHYSICAL_BYTES_MAX).max(logical);
        Self { logical, physical }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_admitted_by_its_address_and_length() {
        let alignment = Alignment { memory: 4, offset: 512 };
        let check = |address, length, expected| assert_eq!(alignment.admits(address, length), expected);
        check(0x1000, 512, true);
        check(0x1004, 4096, true);
        check(0x1002, 512, false);
        check(0x1000, 100, false);
        check(0x1001, 0, false);
    }

    #[test]
    fn nonsense_from_the_kernel_is_no_direct_io() {
        assert_eq!(Alignment::checked(0, 0), None);
        assert_eq!(Alignment::checked(512, 0), None);
        assert_eq!(Alignment::checked(3, 512), None);
        assert_eq!(Alignment::checked(4, 4), Some(Alignment { memory: 4, offset: 512 }));
        assert_eq!(Alignment::checked(512, 4096), Some(Alignment { memory: 512, offset: 4096 }));
    }

    #[test]
    fn an_image_file_has_sectors_and_larger_physical_blocks() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let blocks = Blocks::of(&file, &metadata, None);
        assert_eq!(blocks.logical, 512);
        assert!(blocks.physical.is_power_of_two() && blocks.physical >= 512);
        let large = Alignment { memory: 512, offset: 4096 };
        assert_eq!(Blocks::of(&file, &metadata, Some(&large)).logical, 4096);
    }
}

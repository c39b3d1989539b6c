//! Guest memory that is plugged and unplugged in blocks.
#![allow(unsafe_code)] // Memory is mapped over parts of a mapping.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napa_units::{Bytes, PAGE_SIZE};
use vm_memory::{GuestAddress, GuestMemoryRegion, GuestRegionMmap};

use crate::ram::map_like;
use crate::{RamRegion, host_address};

/// A region of memory in blocks, each of which is plugged or not; all are unplugged at first.
///
/// A plugged block is private anonymous memory like RAM. All unplugged blocks are one and the same scratch block, so that a
/// device that a guest leads there neither faults nor reaches memory that the guest does not have, and a guest cannot
/// keep more there than one block. What it finds in a block that is plugged is zeros.
#[derive(Debug)]
pub struct Blocks {
    region: Arc<GuestRegionMmap<()>>,
    block: Bytes,
    /// As long as a block.
    scratch: Arc<File>,
    backing: Backing,
    /// One bit a block. Changed only by who holds the lock, after the mapping.
    plugged: Vec<AtomicU64>,
    changing: Mutex<Merging>,
}

/// Whether the kernel may merge pages of plugged blocks, those that are plugged later included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Merging {
    #[default]
    Forbidden,
    Allowed,
}

/// How plugged blocks are backed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// As the kernel does it.
    Ordinary,
    /// With transparent huge pages where the kernel can.
    HugePages,
}

/// Why there are no such blocks.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The kernel has no address space left, or the scratch file cannot be mapped.
    #[error("cannot map {size} of pluggable memory at {start}: {source}", size = region.size, start = region.start)]
    Map {
        /// The memory.
        region: RamRegion,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Blocks {
    /// `region` in blocks of `block` bytes, a multiple of the page size that divides the region's size. `scratch` is a
    /// file of that size in memory, which nobody else uses.
    ///
    /// # Errors
    /// The kernel refused a mapping.
    pub fn new(
        region: RamRegion,
        block: Bytes,
        scratch: Arc<File>,
        backing: Backing,
    ) -> Result<Self, BlocksError> {
        assert!(block.0 > 0 && region.size.0.is_multiple_of(block.0), "a region is made of whole blocks");
        let failed = |source| BlocksError::Map { region, source };
        let size = usize::try_from(region.size.0).map_err(|error| failed(io::Error::other(error)))?;
        let mapping =
            map_like(region.start, size).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let mapped = GuestRegionMmap::new(mapping, GuestAddress(region.start.0))
            .ok_or_else(|| failed(io::Error::other("it ends past the address space")))?;
        let count = region.size.0 / block.0;
        let plugged = (0..count.div_ceil(u64::BITS.into())).map(|_| AtomicU64::new(0)).collect();
        let region_mapped = Arc::new(mapped);
        let blocks =
            Self { region: region_mapped, block, scratch, backing, plugged, changing: Mutex::default() };
        (0..count).try_for_each(|index| blocks.map_scratch(index)).map_err(failed)?;
        Ok(blocks)
    }

    /// All of it, plugged or not.
    pub fn region(&self) -> &Arc<GuestRegionMmap<()>> {
        &self.region
    }

    /// Size of a block.
    pub const fn block(&self) -> Bytes {
        self.block
    }

    /// How many blocks there are.
    pub fn count(&self) -> u64 {
        self.region.len() / self.block.0
    }

    /// Pages of a block.
    pub const fn block_pages(&self) -> u64 {
        self.block.0 / PAGE_SIZE
    }

    /// The plugged ones of these blocks, as runs of neighbours in their order.
    pub fn plugged_runs(&self, blocks: Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for block in blocks.start..blocks.end.min(self.count()) {
            if self.is_plugged(block) {
                match runs.last_mut() {
                    Some(last) if last.end == block => last.end += 1,
                    _ => runs.push(block..block + 1),
                }
            }
        }
        runs
    }

    /// Whether the block `index` is plugged; there is none past the end.
    pub fn is_plugged(&self, index: u64) -> bool {
        let word = self.plugged.get((index / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (index % 64) & 1 != 0)
    }

    /// How much is plugged.
    pub fn plugged(&self) -> Bytes {
        let ones = |word: &AtomicU64| u64::from(word.load(Ordering::Acquire).count_ones());
        Bytes(self.plugged.iter().map(ones).sum::<u64>() * self.block.0)
    }

    /// Address of a block in this process.
    pub fn host_address(&self, index: u64) -> u64 {
        assert!(index < self.count(), "there is no block {index}");
        host_address(&self.region) + index * self.block.0
    }

    /// Gives a block memory of its own, which is zeros. Does nothing to one that has it.
    ///
    /// # Errors
    /// The kernel refused; the block is as it was.
    pub fn plug(&self, index: u64) -> io::Result<()> {
        let merging = self.lock();
        if self.is_plugged(index) {
            return Ok(());
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.map(index, flags, -1)?;
        if self.backing == Backing::HugePages {
            let _unsupported = self.advise(index, libc::MADV_HUGEPAGE);
        }
        if *merging == Merging::Allowed {
            // The guest has its memory all the same.
            let _unmerged = self.advise(index, libc::MADV_MERGEABLE);
        }
        self.plugged[(index / 64) as usize].fetch_or(1 << (index % 64), Ordering::AcqRel);
        Ok(())
    }

    /// Gives the memory of a block back to the host. Does nothing to one that has none.
    ///
    /// # Errors
    /// The kernel refused; the block is as it was.
    pub fn unplug(&self, index: u64) -> io::Result<()> {
        let _changing = self.lock();
        if !self.is_plugged(index) {
            return Ok(());
        }
        self.map_scratch(index)?;
        self.plugged[(index / 64) as usize].fetch_and(!(1 << (index % 64)), Ordering::AcqRel);
        Ok(())
    }

    /// Lets the kernel merge the pages of all plugged blocks, and of those that will be.
    ///
    /// # Errors
    /// The kernel has no KSM, or no memory for its notes.
    pub fn make_mergeable(&self) -> io::Result<()> {
        let mut merging = self.lock();
        *merging = Merging::Allowed;
        let mut plugged = (0..self.count()).filter(|index| self.is_plugged(*index));
        plugged.try_for_each(|index| self.advise(index, libc::MADV_MERGEABLE))
    }

    /// Keeps the kernel from merging pages of blocks that are plugged from now on. Those of others stay as they are.
    pub fn keep_unmerged(&self) {
        *self.lock() = Merging::Forbidden;
    }

    /// Does something while a block is plugged for sure. `None`: it is not.
    pub fn while_plugged<T>(&self, index: u64, work: impl FnOnce() -> T) -> Option<T> {
        let _changing = self.lock();
        self.is_plugged(index).then(work)
    }

    fn lock(&self) -> MutexGuard<'_, Merging> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advise(&self, index: u64, advice: i32) -> io::Result<()> {
        let start = self.host_address(index) as *mut libc::c_void;
        // SAFETY: the range is a mapping of ours; the advice changes how it is backed, not what it holds.
        match unsafe { libc::madvise(start, self.block.0 as usize, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn map_scratch(&self, index: u64) -> io::Result<()> {
        self.map(index, libc::MAP_SHARED | libc::MAP_NORESERVE, self.scratch.as_raw_fd())
    }

    fn map(&self, index: u64, flags: i32, file: i32) -> io::Result<()> {
        let start = self.host_address(index) as *mut libc::c_void;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = flags | libc::MAP_FIXED;
        // SAFETY: the block lies inside the region's mapping, which is unmapped whole; it stays mapped with the same
        // rights, so whoever is reading or writing there goes on with other memory, which is theirs to see.
        let mapped = unsafe { libc::mmap(start, self.block.0 as usize, protection, flags, file, 0) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use napa_units::GuestAddress as Start;
    use proptest::prelude::*;
    use vm_memory::Bytes as _;

    use super::*;
    use crate::GuestRam;

    const BLOCK: Bytes = Bytes(64 << 10);
    const COUNT: u64 = 70;
    const REGION: RamRegion = RamRegion { start: Start(6 << 30), size: Bytes(COUNT * BLOCK.0) };

    fn blocks() -> Blocks {
        let scratch = tempfile::tempfile().unwrap();
        scratch.set_len(BLOCK.0).unwrap();
        Blocks::new(REGION, BLOCK, Arc::new(scratch), Backing::HugePages).unwrap()
    }

    struct Seen(GuestRam);

    impl Seen {
        fn of(blocks: &Blocks) -> Self {
            Self(GuestRam::from_arc_regions(vec![Arc::clone(blocks.region())]).unwrap())
        }

        fn address(index: u64) -> GuestAddress {
            GuestAddress(REGION.start.0 + index * BLOCK.0 + 8)
        }

        fn write(&self, index: u64, value: u64) {
            self.0.write_obj(value, Self::address(index)).unwrap();
        }

        fn read(&self, index: u64) -> u64 {
            self.0.read_obj(Self::address(index)).unwrap()
        }
    }

    #[test]
    fn unplugged_blocks_are_one_scratch_block() {
        let blocks = blocks();
        let seen = Seen::of(&blocks);
        assert_eq!((blocks.count(), blocks.plugged()), (COUNT, Bytes(0)));
        seen.write(3, 7);
        assert_eq!([0, 3, COUNT - 1].map(|index| seen.read(index)), [7; 3]);
    }

    #[test]
    fn a_plugged_block_holds_its_own_and_begins_as_zeros() {
        let blocks = blocks();
        let seen = Seen::of(&blocks);
        seen.write(0, 7);
        blocks.plug(65).unwrap();
        assert_eq!((seen.read(65), seen.read(66)), (0, 7));
        seen.write(65, 8);
        blocks.plug(65).unwrap();
        assert_eq!((seen.read(65), blocks.plugged()), (8, BLOCK));
        blocks.unplug(65).unwrap();
        assert_eq!((seen.read(65), blocks.plugged()), (7, Bytes(0)));
        blocks.plug(65).unwrap();
        assert_eq!(seen.read(65), 0, "what was there is gone");
    }

    proptest! {
        #[test]
        fn any_order_of_plugging_agrees_with_a_model(
            steps in proptest::collection::vec((0..COUNT, any::<bool>(), any::<u64>()), 0..60)
        ) {
            let blocks = blocks();
            let seen = Seen::of(&blocks);
            let mut model: Vec<Option<u64>> = vec![None; COUNT as usize];
            for (index, is_plug, value) in steps {
                let place = &mut model[index as usize];
                if is_plug {
                    blocks.plug(index).unwrap();
                    prop_assert_eq!(seen.read(index), place.unwrap_or(0));
                    seen.write(index, value);
                    *place = Some(value);
                } else {
                    blocks.unplug(index).unwrap();
                    *place = None;
                }
            }
            for (index, expected) in (0..).zip(&model) {
                prop_assert_eq!(blocks.is_plugged(index), expected.is_some());
                if let Some(expected) = expected {
                    prop_assert_eq!(seen.read(index), *expected);
                }
            }
            let plugged = model.iter().flatten().count() as u64;
            prop_assert_eq!(blocks.plugged(), Bytes(plugged * BLOCK.0));
        }
    }
}

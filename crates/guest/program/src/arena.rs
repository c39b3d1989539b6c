//! Zeroed memory for one workload, free again when the workload ends.

#![allow(unsafe_code, reason = "turns free memory into slices")]

use crate::background;
use crate::failure::Failure;
use core::cell::{Cell, RefCell, RefMut};
use core::sync::atomic::{AtomicU32, AtomicU64};
use guest_logic::histogram::{Histogram, Snapshot};
use guest_logic::memory_map::{FreeMemory, Mark, OutOfMemory, PageSet, Range};

/// The guest's memory. Arenas share it with the balloon.
pub struct Memory {
    free: RefCell<FreeMemory>,
    total: u64,
    arenas: Cell<usize>,
}

impl Memory {
    /// What is `free` of `total` bytes of RAM.
    pub fn new(free: FreeMemory, total: u64) -> Self {
        Self { free: RefCell::new(free), total, arenas: Cell::new(0) }
    }

    /// Bytes of RAM, those in use included.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The map, for a short look or change: nothing is taken or freed meanwhile.
    pub fn map(&self) -> RefMut<'_, FreeMemory> {
        self.free.borrow_mut()
    }

    /// The map, to take what is never given back. There is no arena meanwhile.
    pub fn permanent(&self) -> RefMut<'_, FreeMemory> {
        assert_eq!(self.arenas.get(), 0, "what an arena hands out is given back");
        self.free.borrow_mut()
    }
}

/// Hands out pieces of the free memory, and frees them all when it is dropped. While there is an arena inside another,
/// only the inner one hands out.
pub struct Arena<'a> {
    memory: &'a Memory,
    mark: Mark,
    depth: usize,
}

/// Types of which all bits zero is a value.
///
/// # Safety
/// It must be, and the type must not need dropping.
pub unsafe trait Zeroed {}
// SAFETY: plain numbers.
unsafe impl Zeroed for u8 {}
// SAFETY: plain numbers.
unsafe impl Zeroed for u16 {}
// SAFETY: plain numbers.
unsafe impl Zeroed for u32 {}
// SAFETY: plain numbers.
unsafe impl Zeroed for u64 {}
// SAFETY: plain numbers.
unsafe impl Zeroed for AtomicU32 {}
// SAFETY: plain numbers.
unsafe impl Zeroed for AtomicU64 {}
// SAFETY: an array of plain numbers.
unsafe impl Zeroed for Histogram {}
// SAFETY: an array of plain numbers.
unsafe impl Zeroed for Snapshot {}

impl<'a> Arena<'a> {
    /// An arena over `memory`.
    pub fn new(memory: &'a Memory) -> Self {
        memory.arenas.set(memory.arenas.get() + 1);
        Self { memory, mark: memory.map().mark(), depth: memory.arenas.get() }
    }

    /// An arena whose memory is free again while this one's stays.
    pub fn inner(&self) -> Arena<'a> {
        Arena::new(self.memory)
    }

    fn take<T>(&self, take: impl Fn(&mut FreeMemory) -> Result<T, OutOfMemory>) -> Result<T, Failure> {
        assert_eq!(
            self.depth,
            self.memory.arenas.get(),
            "the inner arena would free what the outer one takes"
        );
        background::wait_for_lent_memory()?;
        loop {
            let taken = take(&mut self.memory.map());
            match taken {
                Ok(taken) => return Ok(taken),
                Err(missing) if background::make_room(missing.wanted)? => {}
                Err(missing) => return Err(missing.into()),
            }
        }
    }

    /// One function for all types of slices, for the image is small.
    #[inline(never)]
    fn piece(&self, bytes: u64, alignment: u64) -> Result<Range, Failure> {
        self.take(|free| free.take(bytes, alignment))
    }

    /// `count` zeroed elements, aligned to `alignment` bytes or to what the type needs, whichever is more, in one
    /// physical piece.
    #[allow(clippy::mut_from_ref, reason = "each call hands out other memory")]
    pub fn slice<T: Zeroed>(&self, count: usize, alignment: usize) -> Result<&mut [T], Failure> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        let alignment = alignment.max(align_of::<T>()).next_power_of_two();
        let piece = self.piece(bytes, alignment as u64)?;
        let start = piece.start as *mut T;
        // SAFETY: free RAM, mapped, which this arena hands out once.
        unsafe { start.write_bytes(0, count) };
        // SAFETY: as above, aligned and zeroed, and all zero is a value of the type.
        Ok(unsafe { core::slice::from_raw_parts_mut(start, count) })
    }

    /// `pages` pages as they are, not zeroed.
    pub fn pages(&self, pages: u64) -> Result<PageSet, Failure> {
        self.take(|free| free.take_pages(pages))
    }
}

impl Drop for Arena<'_> {
    fn drop(&mut self) {
        assert_eq!(self.depth, self.memory.arenas.get(), "inner arenas end first");
        self.memory.arenas.set(self.depth - 1);
        self.memory.map().release(&self.mark);
    }
}

/// Memory that a device reads and writes too.
pub struct DeviceMemory<'a> {
    bytes: &'a mut [u8],
}

impl<'a> Arena<'_> {
    /// `bytes` zeroed bytes in one physical piece, aligned to `alignment`.
    pub fn device_memory(&'a self, bytes: usize, alignment: usize) -> Result<DeviceMemory<'a>, Failure> {
        Ok(DeviceMemory { bytes: self.slice(bytes, alignment)? })
    }
}

impl DeviceMemory<'_> {
    /// Its guest-physical address.
    pub fn address(&self) -> u64 {
        self.bytes.as_ptr() as u64
    }

    /// What it holds. Only while no request with it is under way; the optimiser is told that it may have changed.
    pub fn contents(&mut self) -> &mut [u8] {
        core::hint::black_box(&mut *self.bytes)
    }
}

//! Zeroed memory for one workload, free again when the workload ends.

#![allow(unsafe_code, reason = "turns free memory into slices")]

use core::cell::RefCell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, AtomicU64};
use guest_logic::histogram::Histogram;
use guest_logic::memory_map::{FreeMemory, OutOfMemory, PageSet};

/// Hands out pieces of a copy of the free memory. It borrows the original, so that there is one arena at a time.
pub struct Arena<'a> {
    free: RefCell<FreeMemory>,
    original: PhantomData<&'a mut FreeMemory>,
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

impl<'a> Arena<'a> {
    /// An arena over `free`.
    pub fn new(free: &'a mut FreeMemory) -> Self {
        Self { free: RefCell::new(free.clone()), original: PhantomData }
    }

    /// `count` zeroed elements, aligned to `alignment` bytes or to what the type needs, whichever is more, in one
    /// physical piece.
    #[allow(clippy::mut_from_ref, reason = "each call hands out other memory")]
    pub fn slice<T: Zeroed>(&self, count: usize, alignment: usize) -> Result<&mut [T], OutOfMemory> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        let alignment = alignment.max(align_of::<T>()).next_power_of_two();
        let piece = self.free.borrow_mut().take(bytes, alignment as u64)?;
        let start = piece.start as *mut T;
        // SAFETY: free RAM, mapped, which this arena hands out once.
        unsafe { start.write_bytes(0, count) };
        // SAFETY: as above, aligned and zeroed, and all zero is a value of the type.
        Ok(unsafe { core::slice::from_raw_parts_mut(start, count) })
    }

    /// `pages` pages as they are, not zeroed.
    pub fn pages(&self, pages: u64) -> Result<PageSet, OutOfMemory> {
        self.free.borrow_mut().take_pages(pages)
    }
}

/// Memory that a device reads and writes too.
pub struct DeviceMemory<'a> {
    bytes: &'a mut [u8],
}

impl<'a> Arena<'_> {
    /// `bytes` zeroed bytes in one physical piece, aligned to `alignment`.
    pub fn device_memory(&'a self, bytes: usize, alignment: usize) -> Result<DeviceMemory<'a>, OutOfMemory> {
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

//! Memory that is a file: guests read it, all of them from the host's page cache, and none can change it.
#![allow(unsafe_code)] // The file is mapped over a part of a mapping.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use napa_units::PAGE_SIZE;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestRegionMmap};

use crate::{RamRegion, host_address};

/// Why an image cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {what} of {size} bytes at guest address {start}: {source}", size = region.size.0, start = region.start)]
pub struct ImageMapError {
    what: &'static str,
    region: RamRegion,
    #[source]
    source: io::Error,
}

/// Maps `file`, all of it or as much as `region` has room for, followed by zeros to the end of the region. The region
/// is not to be written: [`is_writable`] says so to whoever moves data.
///
/// The mapping is private and takes writes all the same, because a write that nobody stopped must not end the process;
/// it would make a copy of the page, which only this process sees.
///
/// # Errors
/// The kernel has no address space left, or cannot map such a file.
pub fn map_image(file: &File, region: RamRegion) -> Result<GuestRegionMmap<()>, ImageMapError> {
    let failed = |what| move |source: io::Error| ImageMapError { what, region, source };
    let invalid = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let size = usize::try_from(region.size.0).map_err(|error| failed("a window")(invalid(&error)))?;
    let file_bytes = file.metadata().map_err(failed("an image"))?.len();
    // The end of a block device is not in its metadata; asking for the position of the end finds both.
    let file_bytes = file_bytes.max(end_of(file).map_err(failed("an image"))?);
    let mapping = MmapRegionBuilder::new_with_bitmap(size, ())
        .with_mmap_prot(libc::PROT_READ)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
        .build()
        .map_err(|error| failed("a window")(invalid(&error)))?;
    let window = GuestRegionMmap::new(mapping, GuestAddress(region.start.0))
        .ok_or_else(|| failed("a window")(invalid(&"it ends past the address space")))?;
    let start = host_address(&window) as *mut libc::c_void;
    let covered = file_bytes.min(region.size.0).next_multiple_of(PAGE_SIZE) as usize;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the window is a mapping of this size, which nobody uses yet; its zeros take writes from now on.
    if unsafe { libc::mprotect(start, size, protection) } != 0 {
        return Err(failed("a window")(io::Error::last_os_error()));
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the range lies inside the window, which nobody uses yet and which is unmapped whole.
    let mapped = unsafe { libc::mmap(start, covered, protection, flags, file.as_raw_fd(), 0) };
    if mapped == libc::MAP_FAILED {
        return Err(failed("an image")(io::Error::last_os_error()));
    }
    Ok(window)
}

/// Whether devices may write to a region. They may to RAM, and not to an image.
pub fn is_writable(region: &GuestRegionMmap<()>) -> bool {
    region.get_mmap().prot() & libc::PROT_WRITE != 0
}

fn end_of(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use napa_units::{Bytes, GuestAddress as Start};
    use vm_memory::{Bytes as _, GuestMemoryBackend};

    use super::*;
    use crate::{GuestRam, allocate};

    const WINDOW: RamRegion = RamRegion { start: Start(1 << 32), size: Bytes::mib(2) };

    fn image(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn an_image_is_followed_by_zeros() {
        let file = image(&[7; 5000]);
        let window = map_image(&file, WINDOW).unwrap();
        let memory = GuestRam::from_regions(vec![window]).unwrap();
        let byte = |offset| memory.read_obj::<u8>(GuestAddress(WINDOW.start.0 + offset)).unwrap();
        assert_eq!([0, 4999, 5000, 8191, 8192, (2 << 20) - 1].map(byte), [7, 7, 0, 0, 0, 0]);
    }

    #[test]
    fn a_stray_write_stays_in_this_process() {
        let file = image(&[7; 5000]);
        let memory = GuestRam::from_regions(vec![map_image(&file, WINDOW).unwrap()]).unwrap();
        for offset in [0, 1 << 20] {
            memory.write_obj(1_u8, GuestAddress(WINDOW.start.0 + offset)).unwrap();
        }
        let mut found = [0; 1];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, [7]);
        let another = GuestRam::from_regions(vec![map_image(&file, WINDOW).unwrap()]).unwrap();
        assert_eq!(another.read_obj::<u8>(GuestAddress(WINDOW.start.0)).unwrap(), 7);
    }

    #[test]
    fn devices_may_write_to_ram_and_not_to_an_image() {
        let ram = allocate(&[RamRegion { start: Start(0), size: Bytes::mib(1) }]).unwrap();
        assert!(ram.iter().all(is_writable));
        assert!(!is_writable(&map_image(&image(&[1]), WINDOW).unwrap()));
    }

    #[test]
    fn a_file_without_pages_is_refused() {
        let error = map_image(&File::open("/proc/self/maps").unwrap(), WINDOW).unwrap_err();
        assert!(error.to_string().starts_with("cannot map an image"), "{error}");
    }
}

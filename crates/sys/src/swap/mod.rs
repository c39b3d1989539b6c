//! Swap areas that napa makes, switches on and removes again.
//!
//! Its own areas are known by the label in their headers, so that nothing has to be remembered: a reboot switches an
//! area off and leaves the file, and whoever looks finds whose it is. Only what zswap was set to before has to be
//! kept; a reboot sets that back too.
#![allow(unsafe_code)] // Two system calls that nobody wraps.

mod file;
mod header;
mod zram;
mod zswap;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use napa_units::Bytes;

pub use self::file::{SwapFile, check_size};
pub use self::header::{SIZE_MAX, SIZE_MIN};
pub use self::zram::{UnusedZram, Zram};
pub use self::zswap::Zswap;
use crate::host::{Memory, Root, Swap, SwapKind};

/// Priority of a file: before what the host swaps to by default, after compressed memory.
pub const FILE_PRIORITY: u16 = 10;
/// Priority of compressed memory.
pub const ZRAM_PRIORITY: u16 = 100;

/// `SWAP_FLAG_PREFER` and the priority's bits (include/linux/swap.h).
const PREFER: i32 = 0x8000;
const PRIORITY_MAX: u16 = 0x7fff;

/// Why an area could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// What was asked for cannot be: what, and how to mend it.
    #[error("{0}")]
    Input(String),
    /// The kernel refused.
    #[error("cannot {what} {}: {source}{mend}", .path.display())]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// On which file or device.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
        /// What to do, after "; ", or nothing.
        mend: &'static str,
    },
}

/// The areas in use that napa made: files and zram devices with its label. A partition with that label is somebody's.
///
/// # Errors
/// One of the host's areas cannot be read: that takes root.
pub fn ours(root: &Root) -> Result<Vec<Swap>, SwapError> {
    let mut ours = Vec::new();
    for area in Swap::read(root).into_iter().filter(may_be_ours) {
        let path = Path::new(&area.path);
        let is_ours = match File::open(path) {
            Ok(file) => header::is_ours(&file),
            // Removed while in use: somebody's, but not to be switched off by name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        match is_ours {
            Ok(true) => ours.push(area),
            Ok(false) => {}
            Err(source) => {
                let mend = "; run it as root";
                return Err(SwapError::Refused { what: "read", path: path.to_owned(), source, mend });
            }
        }
    }
    Ok(ours)
}

fn may_be_ours(area: &Swap) -> bool {
    let path = Path::new(&area.path);
    match area.kind {
        // A file that cannot be looked at is gone, or is refused when it is opened.
        SwapKind::File => path.metadata().map_or(true, |metadata| metadata.is_file()),
        SwapKind::Zram => zram::number(path).is_some(),
        SwapKind::Partition => false,
    }
}

/// Switches an area on.
fn switch_on(path: &Path, priority: u16) -> Result<(), SwapError> {
    let name = c_path(path)?;
    let flags = PREFER | i32::from(priority.min(PRIORITY_MAX));
    // SAFETY: `name` is a string that ends with a zero and outlives the call.
    match unsafe { libc::swapon(name.as_ptr(), flags) } {
        0 => Ok(()),
        _ => {
            let source = io::Error::last_os_error();
            let mend = match source.raw_os_error() {
                Some(libc::EPERM) => "; run it as root, outside of a container",
                Some(libc::EINVAL) => {
                    "; its file system cannot hold a swap file: put it on ext4, xfs or btrfs"
                }
                _ => "",
            };
            Err(SwapError::Refused { what: "swap to", path: path.to_owned(), source, mend })
        }
    }
}

/// Switches an area off, which brings back all that is in it.
fn switch_off(path: &Path) -> Result<(), SwapError> {
    let name = c_path(path)?;
    // SAFETY: `name` is a string that ends with a zero and outlives the call.
    match unsafe { libc::swapoff(name.as_ptr()) } {
        0 => Ok(()),
        _ => {
            let source = io::Error::last_os_error();
            let mend = match source.raw_os_error() {
                Some(libc::ENOMEM) => {
                    "; what it holds does not fit in memory: it stays in use and nothing is lost; stop a VM, or create \
                     another area, and try again"
                }
                Some(libc::EPERM) => "; run it as root, outside of a container",
                Some(libc::EINTR) => "; it was interrupted: it stays in use and nothing is lost",
                _ => "",
            };
            Err(SwapError::Refused { what: "stop swapping to", path: path.to_owned(), source, mend })
        }
    }
}

/// Switches an area off and takes away what napa made for it. Gives what it held.
///
/// # Errors
/// What it holds does not fit in memory; then it stays in use.
pub fn remove(root: &Root, area: &Swap) -> Result<Bytes, SwapError> {
    let path = Path::new(&area.path);
    refuse_what_does_not_fit(root, area)?;
    switch_off(path)?;
    match (area.kind, zram::number(path)) {
        (SwapKind::Zram, Some(number)) => zram::take_away(root, number)?,
        (SwapKind::File, _) => file::take_away(path)?,
        // Not napa's: a device's node is nobody's to remove.
        (SwapKind::Zram | SwapKind::Partition, _) => {}
    }
    Ok(area.used)
}

/// What is in an area has to be somewhere else: the kernel finds out by trying, and ends processes where it cannot go on.
fn refuse_what_does_not_fit(root: &Root, area: &Swap) -> Result<(), SwapError> {
    let Some(memory) = Memory::read(root) else { return Ok(()) };
    let in_other_areas = memory.swap_free.0.saturating_sub(area.size.0.saturating_sub(area.used.0));
    let missing = area.used.0.saturating_sub(memory.available.0.saturating_add(in_other_areas));
    if missing == 0 {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(SwapError::Input(format!(
        "{} holds {} MiB, and the host has {} MiB for it (memory {}, other swap {}): it stays in use and nothing is \
         lost; stop VMs of {} MiB, or create another area, and try again",
        area.path,
        mib(area.used.0),
        (memory.available.0 + in_other_areas) >> 20,
        memory.available.0 >> 20,
        in_other_areas >> 20,
        mib(missing),
    )))
}

fn c_path(path: &Path) -> Result<CString, SwapError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| SwapError::Input(format!("{} holds a zero byte: name another path", path.display())))
}

/// A new UUID (RFC 9562 §5.4).
fn uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut uuid)?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    #[test]
    fn an_area_stays_while_there_is_no_room_for_what_it_holds() {
        let kib = |mib: u64| mib << 10;
        // Used, available memory, all free swap; the area has 1000 MiB.
        for (used, available, free, missing) in [
            (0, 0, 1000, None),
            (600, 600, 400, None),
            (600, 500, 400, Some("memory 500, other swap 0")),
            (600, 500, 500, None),
            (600, 400, 450, Some("stop VMs of 150 MiB")),
        ] {
            let text = format!(
                "MemTotal: {} kB\nMemAvailable: {} kB\nSwapTotal: {} kB\nSwapFree: {} kB\n",
                kib(2000),
                kib(available),
                kib(2000),
                kib(free)
            );
            let host = Fixture::new(&[("proc/meminfo", &text)]);
            let area = Swap {
                path: "/swap".into(),
                kind: SwapKind::File,
                size: Bytes::mib(1000),
                used: Bytes::mib(used),
                priority: 10,
            };
            let said = refuse_what_does_not_fit(&host.root(), &area).map_err(|error| error.to_string());
            match missing {
                None => assert_eq!(said, Ok(()), "{used} {available} {free}"),
                Some(words) => assert!(said.unwrap_err().contains(words), "{used} {available} {free}"),
            }
        }
    }

    #[test]
    fn a_partition_with_napas_label_is_not_napas() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, header::header(Bytes::mib(1), [7; 16])).unwrap();
        let path = file.path().to_str().unwrap();
        for (kind, expected) in [("file", 1), ("partition", 0)] {
            let swaps = format!("Filename Type Size Used Priority\n{path} {kind} 1020 0 10\n");
            let host = Fixture::new(&[("proc/swaps", &swaps)]);
            assert_eq!(ours(&host.root()).unwrap().len(), expected, "{kind}");
        }
    }
}

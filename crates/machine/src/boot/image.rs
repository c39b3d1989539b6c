//! Kernel images: which kind a file is, and whether it can be loaded at all.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use linux_loader::loader::KernelLoader;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use napa_memory::GuestRam;
use vm_memory::ReadVolatile;

use super::{BootError, Source, bzimage, elf, too_small};
use crate::layout;

/// A regular file that holds a kernel or an initial RAM disk. It stays open, so that a reboot needs no path.
pub struct ImageFile {
    what: &'static str,
    path: PathBuf,
    file: File,
    size: u64,
}

impl ImageFile {
    /// Opens `path`; `what` names its part in messages: `kernel`, `initrd`.
    ///
    /// # Errors
    /// There is no such file, it may not be read, or it is no regular file.
    pub fn open(what: &'static str, path: &Path) -> Result<Self, BootError> {
        let failed = |source| BootError::File { what, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("is not a regular file")));
        }
        Ok(Self { what, path: path.to_owned(), file, size: metadata.len() })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn failed(&self, source: io::Error) -> BootError {
        BootError::File { what: self.what, path: self.path.clone(), source }
    }
}

impl fmt::Display for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Where a kernel comes from.
#[derive(Clone, Copy)]
pub enum KernelImage<'a> {
    /// A file.
    File(&'a ImageFile),
    /// An image in napa's own memory.
    Embedded(&'a [u8]),
}

impl KernelImage<'_> {
    fn name(&self) -> String {
        match self {
            Self::File(file) => file.to_string(),
            Self::Embedded(_) => "(embedded guest)".into(),
        }
    }
}

/// A kernel that lies in guest memory.
pub(super) struct Placed {
    pub kind: Kind,
    /// First address used.
    pub start: u64,
    /// First address that is free behind it.
    pub end: u64,
    /// The RAM disk must end below this.
    pub initrd_end_max: u64,
}

pub(super) enum Kind {
    Pvh { entry: u32 },
    BzImage(Box<setup_header>),
}

pub(super) fn load(ram: &GuestRam, low_end: u64, source: &Source<'_>) -> Result<Placed, BootError> {
    match source.kernel {
        KernelImage::Embedded(bytes) => load_from(ram, low_end, source, &mut Cursor::new(bytes)),
        KernelImage::File(image) => load_from(ram, low_end, source, &mut image.file()),
    }
}

fn load_from<F>(ram: &GuestRam, low_end: u64, source: &Source<'_>, image: &mut F) -> Result<Placed, BootError>
where
    F: Read + ReadVolatile + Seek,
{
    let name = source.kernel.name();
    let refused = |problem: String| BootError::Image(name.clone(), problem);
    let mut head = Vec::new();
    // A file has been read before when its guest reboots.
    image
        .rewind()
        .and_then(|()| image.by_ref().take(HEAD).read_to_end(&mut head))
        .map_err(|error| refused(format!("cannot be read: {error}")))?;
    let length = image.seek(SeekFrom::End(0)).map_err(|error| refused(format!("cannot be read: {error}")))?;
    match recognise(&head) {
        Format::Elf => load_elf(ram, low_end, source, image, length),
        Format::BzImage if (source.runs_ring_0)() => bzimage::load(ram, low_end, &name, image),
        Format::BzImage => Err(BootError::NeedsRing0(name)),
        Format::Other(problem) => Err(refused(problem.into())),
    }
}

/// Enough of a file to see what it is.
const HEAD: u64 = 4096;

enum Format {
    Elf,
    BzImage,
    Other(&'static str),
}

fn recognise(head: &[u8]) -> Format {
    const COMPRESSED: &str = "is a compressed file: unpack it first (zcat, unxz, unzstd)";
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    match () {
        () if at(0, b"\x7fELF") => Format::Elf,
        () if at(0x202, b"HdrS") => Format::BzImage,
        () if at(56, b"ARM\x64") => {
            Format::Other("is a kernel for 64-bit ARM; this host runs x86-64 kernels")
        }
        () if at(56, b"RSC\x05") => Format::Other("is a kernel for RISC-V; this host runs x86-64 kernels"),
        () if at(0, b"\x1f\x8b") || at(0, b"\xfd7zXZ") || at(0, b"\x28\xb5\x2f\xfd") => {
            Format::Other(COMPRESSED)
        }
        () if at(0, b"QFI\xfb") => {
            Format::Other("is a qcow2 disk image, not a kernel: give it with --disk path=…")
        }
        () if head.is_empty() => Format::Other("is empty"),
        () => Format::Other("is neither an ELF image nor a bzImage; on Debian, /boot/vmlinuz-… is a bzImage"),
    }
}

fn load_elf<F>(
    ram: &GuestRam,
    low_end: u64,
    source: &Source<'_>,
    image: &mut F,
    length: u64,
) -> Result<Placed, BootError>
where
    F: Read + ReadVolatile + Seek,
{
    let name = source.kernel.name();
    let facts = elf::examine(image, length).map_err(|problem| BootError::Image(name.clone(), problem))?;
    if !facts.runs_at_level_3 && !(source.runs_ring_0)() {
        return Err(BootError::NeedsRing0(name));
    }
    if facts.start < layout::HIGH_RAM_START {
        let problem = format!("wants to be loaded at {:#x}; kernels start at 1 MiB or above", facts.start);
        return Err(BootError::Image(name, problem));
    }
    if facts.end > low_end {
        return Err(too_small(&format!("kernel {name}"), facts.end, low_end));
    }
    let loaded = Elf::load(ram, None, image, None)
        .map_err(|error| BootError::Image(name.clone(), format!("is a broken ELF image: {error}")))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        let problem = "has no PVH entry note: build Linux with CONFIG_PVH=y, or use its bzImage".into();
        return Err(BootError::Image(name, problem));
    };
    if entry.0 < facts.start || entry.0 >= facts.end {
        return Err(BootError::Image(
            name,
            format!("has its PVH entry at {:#x}, outside of its segments", entry.0),
        ));
    }
    let kind = Kind::Pvh { entry: entry.0 as u32 };
    Ok(Placed { kind, start: facts.start, end: facts.end, initrd_end_max: u64::from(u32::MAX) })
}

//! Loading a kernel, without firmware.
//!
//! Two ways in: an ELF image by its PVH note (Xen's x86/HVM direct boot ABI), a bzImage by the 64-bit
//! protocol of Linux (Documentation/arch/x86/boot.rst). Images come from users: nothing in them is
//! believed before it was checked.

mod bzimage;
mod elf;
mod image;
mod pvh;
mod registers;

use std::io::{Seek, SeekFrom};
use std::path::PathBuf;

use napa_memory::GuestRam;
use napa_units::{Bytes, GuestAddress, PAGE_SIZE};
use vm_memory::Bytes as _;

pub use image::{ImageFile, KernelImage};
pub(crate) use registers::prepare;

use crate::layout;
use crate::plan::Plan;

/// Longest command line: what a Linux kernel takes (COMMAND_LINE_SIZE), its terminator included.
const CMDLINE_MAX: usize = 2048;
const CMDLINE_ADDRESS: u64 = 0x2_0000;

/// What stands at the reset vector: it writes the reset register. Linux goes there when it reboots a
/// hardware-reduced machine that has no EFI.
const RESET_CODE: [u8; 9] = {
    let [port_low, port_high] = layout::RESET_PORT.to_le_bytes();
    // mov dx, port; mov al, value; out dx, al; hlt; jmp back to hlt.
    [0xba, port_low, port_high, 0xb0, layout::RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
};

/// What to boot.
pub struct Source<'a> {
    /// The kernel.
    pub kernel: KernelImage<'a>,
    /// Initial RAM disk.
    pub initrd: Option<&'a ImageFile>,
    /// Command line.
    pub cmdline: &'a str,
    /// Whether kernel code runs at full privilege on this host's KVM. Where it does not (a host
    /// without VT-x and SVM), only images that say they can do without are let in; asked only for the others.
    pub runs_ring_0: &'a dyn Fn() -> bool,
}

/// How the boot vCPU enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode; EBX points to the start info.
    Pvh {
        /// First instruction.
        entry: u32,
        /// Address of `hvm_start_info`.
        start_info: u32,
    },
    /// 64-bit mode; RSI points to the zero page.
    Linux64 {
        /// First instruction.
        entry: u64,
        /// Address of `boot_params`.
        zero_page: u64,
    },
}

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file could not be read.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel is not an image that can be booted.
    #[error("kernel {0}: {1}")]
    Image(String, String),
    /// Something does not fit in guest memory.
    #[error(
        "{what} needs guest memory up to {end:#x}, and the guest has {memory}: give it at least --memory {enough}"
    )]
    Memory {
        /// What does not fit.
        what: String,
        /// The first address after it.
        end: u64,
        /// Size of the guest.
        memory: Bytes,
        /// A size that is enough.
        enough: Bytes,
    },
    /// The kernel needs privileges that this KVM does not give.
    #[error(
        "kernel {0} cannot run on this host: its KVM has neither VT-x nor SVM below it, so code at privilege level 0 is \
         emulated; use a host with hardware virtualisation, or a kernel whose ELF note says that it runs at level 3 \
         (docs/guest.md)"
    )]
    NeedsRing0(String),
    /// The command line is longer than kernels take.
    #[error("the kernel command line has {0} bytes: kernels take at most {max}", max = CMDLINE_MAX - 1)]
    CmdlineLength(usize),
    /// The command line holds a zero byte.
    #[error("the kernel command line holds a zero byte at position {0}")]
    CmdlineZero(usize),
    /// Guest memory refused a write that the plan says must fit.
    #[error("cannot write {0} to guest memory: {1}")]
    Write(&'static str, vm_memory::GuestMemoryError),
}

/// Loads what `source` names into RAM. `root_pointer`: address of the ACPI root pointer.
///
/// # Errors
/// The image cannot be booted here; RAM holds a part of it then.
pub fn load(
    ram: &GuestRam,
    plan: &Plan,
    source: &Source<'_>,
    root_pointer: GuestAddress,
) -> Result<Entry, BootError> {
    let low_end = plan.ram[0].size.0;
    let placed = image::load(ram, low_end, source)?;
    write_cmdline(ram, source.cmdline)?;
    write(ram, "the reset vector", layout::RESET_VECTOR, &RESET_CODE)?;
    let initrd = source.initrd.map(|file| load_initrd(ram, low_end, file, &placed)).transpose()?;
    let info = BootInfo { plan, cmdline: source.cmdline, initrd, root_pointer };
    match placed.kind {
        image::Kind::Pvh { entry } => {
            pvh::write_start_info(ram, &info).map(|start_info| Entry::Pvh { entry, start_info })
        }
        image::Kind::BzImage(header) => bzimage::write_zero_page(ram, &info, *header, placed.start),
    }
}

/// What both protocols tell the kernel.
struct BootInfo<'a> {
    plan: &'a Plan,
    cmdline: &'a str,
    initrd: Option<Initrd>,
    root_pointer: GuestAddress,
}

#[derive(Clone, Copy)]
struct Initrd {
    start: u64,
    size: u64,
}

/// One entry of the memory map, as both protocols know it (types of the BIOS call E820).
struct MapEntry {
    start: u64,
    size: u64,
    kind: u32,
}

const MAP_RAM: u32 = 1;
const MAP_RESERVED: u32 = 2;

impl BootInfo<'_> {
    fn memory_map(&self) -> Vec<MapEntry> {
        let entry = |start, end, kind| MapEntry { start, size: end - start, kind };
        let low = &self.plan.ram[0];
        let mut map = vec![
            entry(0, layout::LOW_RAM_END, MAP_RAM),
            entry(layout::ACPI_START, layout::HIGH_RAM_START, MAP_RESERVED),
            entry(layout::HIGH_RAM_START, low.size.0, MAP_RAM),
            entry(layout::ECAM_START, layout::ECAM_START + layout::ECAM_SIZE, MAP_RESERVED),
        ];
        let above = self.plan.ram.iter().skip(1);
        map.extend(above.map(|region| entry(region.start.0, region.start.0 + region.size.0, MAP_RAM)));
        map
    }
}

fn write_cmdline(ram: &GuestRam, cmdline: &str) -> Result<(), BootError> {
    if cmdline.len() >= CMDLINE_MAX {
        return Err(BootError::CmdlineLength(cmdline.len()));
    }
    if let Some(position) = cmdline.bytes().position(|byte| byte == 0) {
        return Err(BootError::CmdlineZero(position));
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    write(ram, "the command line", CMDLINE_ADDRESS, &bytes)
}

/// Puts the RAM disk as high as kernels look for it, page aligned.
fn load_initrd(
    ram: &GuestRam,
    low_end: u64,
    initrd: &ImageFile,
    kernel: &image::Placed,
) -> Result<Initrd, BootError> {
    let size = initrd.size();
    if size == 0 {
        return Err(initrd.failed(std::io::Error::other("is empty")));
    }
    let end = low_end.min(kernel.initrd_end_max);
    let start =
        end.checked_sub(size).map(|start| start & !(PAGE_SIZE - 1)).filter(|start| *start >= kernel.end);
    let start = start
        .ok_or_else(|| too_small(&format!("initrd {initrd}"), kernel.end.saturating_add(size), low_end))?;
    let mut file = initrd.file();
    file.seek(SeekFrom::Start(0)).map_err(|source| initrd.failed(source))?;
    ram.read_exact_volatile_from(vm_memory::GuestAddress(start), &mut file, size as usize)
        .map_err(|error| initrd.failed(std::io::Error::other(error.to_string())))?;
    Ok(Initrd { start, size })
}

/// The error for something that ends at `end`.
fn too_small(what: &str, end: u64, memory: u64) -> BootError {
    let enough = Bytes::mib(end.div_ceil(Bytes::mib(1).0) + 1);
    BootError::Memory { what: what.to_owned(), end, memory: Bytes(memory), enough }
}

fn write(ram: &GuestRam, what: &'static str, address: u64, bytes: &[u8]) -> Result<(), BootError> {
    ram.write_slice(bytes, vm_memory::GuestAddress(address)).map_err(|error| BootError::Write(what, error))
}

#[cfg(test)]
mod tests;

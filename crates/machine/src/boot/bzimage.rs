//! bzImage by the 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst).

use std::io::{Read, Seek};

use linux_loader::loader::KernelLoader;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::bzimage::BzImage;
use napa_memory::GuestRam;
use vm_memory::{ByteValued, GuestAddress, ReadVolatile};

use super::image::{Kind, Placed};
use super::{BootError, BootInfo, CMDLINE_ADDRESS, Entry, too_small, write};
use crate::layout;

const ZERO_PAGE: u64 = 0x7000;
/// The 64-bit entry lies this far into the loaded part (boot.rst, "64-bit boot protocol").
const ENTRY_64: u64 = 0x200;
/// The first protocol with a 64-bit entry flag.
const VERSION_MIN: u16 = 0x020c;
const XLF_KERNEL_64: u16 = 1;
/// Loader id for those that have none of their own.
const LOADER_UNDEFINED: u8 = 0xff;

pub(super) fn load<F>(ram: &GuestRam, low_end: u64, name: &str, image: &mut F) -> Result<Placed, BootError>
where
    F: Read + ReadVolatile + Seek,
{
    let refused = |problem: String| BootError::Image(name.to_owned(), problem);
    let header = read_header(image).map_err(refused)?;
    let (version, flags) = (header.version, header.xloadflags);
    if version < VERSION_MIN || flags & XLF_KERNEL_64 == 0 {
        return Err(refused("has no 64-bit entry: it is too old, or not a 64-bit kernel".into()));
    }
    let start = header.pref_address.max(layout::HIGH_RAM_START);
    // The kernel unpacks itself within this range (boot.rst, init_size).
    let end = start.saturating_add(u64::from(header.init_size));
    if end > low_end {
        return Err(too_small(&format!("kernel {name}"), end, low_end));
    }
    let loaded = BzImage::load(ram, Some(GuestAddress(start)), image, None)
        .map_err(|error| refused(format!("is a broken or truncated bzImage: {error}")))?;
    let header = loaded.setup_header.ok_or_else(|| refused("has no setup header".into()))?;
    let initrd_end_max = u64::from(header.initrd_addr_max) + 1;
    Ok(Placed {
        kind: Kind::BzImage(Box::new(header)),
        start,
        end: end.max(loaded.kernel_end),
        initrd_end_max,
    })
}

pub(super) fn write_zero_page(
    ram: &GuestRam,
    info: &BootInfo<'_>,
    header: setup_header,
    start: u64,
) -> Result<Entry, BootError> {
    let mut page = boot_params { hdr: header, ..Default::default() };
    page.hdr.type_of_loader = LOADER_UNDEFINED;
    page.hdr.cmd_line_ptr = CMDLINE_ADDRESS as u32;
    if let Some(initrd) = info.initrd {
        // Below 4 GiB: RAM in the first region ends at 3 GiB.
        page.hdr.ramdisk_image = initrd.start as u32;
        page.hdr.ramdisk_size = initrd.size as u32;
    }
    page.acpi_rsdp_addr = info.root_pointer.0;
    let map = info.memory_map();
    page.e820_entries = map.len() as u8;
    for (slot, entry) in page.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry { addr: entry.start, size: entry.size, r#type: entry.kind };
    }
    write(ram, "the zero page", ZERO_PAGE, page.as_slice())?;
    Ok(Entry::Linux64 { entry: start + ENTRY_64, zero_page: ZERO_PAGE })
}

fn read_header(image: &mut (impl Read + Seek)) -> Result<setup_header, String> {
    const HEADER_OFFSET: u64 = 0x1f1;
    let mut header = setup_header::default();
    image
        .seek(std::io::SeekFrom::Start(HEADER_OFFSET))
        .and_then(|_| image.read_exact(header.as_mut_slice()))
        .map_err(|_| "is truncated: it ends within the setup header".to_owned())?;
    Ok(header)
}

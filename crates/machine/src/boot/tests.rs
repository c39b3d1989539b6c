use std::io::Write as _;
use std::path::Path;

use linux_loader::loader::bootparam::{boot_params, setup_header};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use napa_memory::allocate;
use proptest::prelude::*;
use vm_memory::ByteValued;

use super::*;
use crate::plan::{Needs, plan};

const MEMORY: Bytes = Bytes::mib(64);
const ROOT_POINTER: GuestAddress = GuestAddress(layout::ACPI_START);

/// An ELF image with one segment at 1 MiB and the given notes: owner, type, descriptor.
fn elf(segment_memory: u64, notes: &[(&[u8], u32, u32)]) -> Vec<u8> {
    let mut note_bytes = Vec::new();
    for (owner, kind, descriptor) in notes {
        note_bytes.extend([owner.len() as u32, 4, *kind].iter().flat_map(|word| word.to_le_bytes()));
        note_bytes.extend_from_slice(owner);
        note_bytes.resize(note_bytes.len().next_multiple_of(4), 0);
        note_bytes.extend(descriptor.to_le_bytes());
    }
    let code_at = 0x200_u64;
    let mut image = vec![0; 64];
    image[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    image[16..20].copy_from_slice(&[2, 0, 62, 0]);
    image[20] = 1;
    image[24..32].copy_from_slice(&0x10_0000_u64.to_le_bytes());
    image[32..40].copy_from_slice(&64_u64.to_le_bytes());
    image[52..58].copy_from_slice(&[64, 0, 56, 0, 2, 0]);
    let header = |kind: u32, offset: u64, address: u64, file: u64, memory: u64| {
        let mut bytes = [kind.to_le_bytes(), 5_u32.to_le_bytes()].concat();
        bytes.extend([offset, address, address, file, memory, 4].iter().flat_map(|word| word.to_le_bytes()));
        bytes
    };
    image.extend(header(1, code_at, 0x10_0000, 16, segment_memory));
    image.extend(header(4, code_at + 16, 0, note_bytes.len() as u64, 0));
    image.resize(code_at as usize, 0);
    image.extend(b"sixteen bytes...");
    image.extend(note_bytes);
    image
}

const PVH: (&[u8], u32, u32) = (b"Xen\0", 18, 0x10_0004);
const LEVEL_3: (&[u8], u32, u32) = (b"napa\0", 1, 1);

fn bzimage(init_size: u32) -> Vec<u8> {
    let header = setup_header {
        header: 0x5372_6448,
        version: 0x020f,
        loadflags: 1,
        setup_sects: 1,
        xloadflags: 1,
        pref_address: 0x100_0000,
        init_size,
        initrd_addr_max: 0x7fff_ffff,
        ..Default::default()
    };
    let mut image = vec![0; 1024];
    image[0x1f1..0x1f1 + size_of::<setup_header>()].copy_from_slice(header.as_slice());
    image.extend(b"kernel");
    image
}

struct Loaded {
    ram: GuestRam,
    entry: Entry,
}

fn boot(
    image: &[u8],
    initrd: Option<&ImageFile>,
    cmdline: &str,
    runs_ring_0: bool,
) -> Result<Loaded, BootError> {
    let plan = plan(&Needs { memory: MEMORY, cpus: 1, devices: Vec::new(), address_bits: 46 }).unwrap();
    let ram = allocate(&plan.ram).unwrap();
    let source =
        Source { kernel: KernelImage::Embedded(image), initrd, cmdline, runs_ring_0: &|| runs_ring_0 };
    load(&ram, &plan, &source, ROOT_POINTER).map(|entry| Loaded { ram, entry })
}

fn refusal(image: &[u8]) -> String {
    boot(image, None, "", true).err().expect("the image should be refused").to_string()
}

struct TemporaryFile(PathBuf, ImageFile);

impl TemporaryFile {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("napa-boot-{name}-{}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(content).unwrap();
        let image = ImageFile::open("initrd", &path).unwrap();
        Self(path, image)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn an_elf_image_is_told_its_command_line_and_memory() {
    let loaded = boot(&elf(4096, &[PVH]), None, "quiet", true).unwrap();
    let Entry::Pvh { entry: 0x10_0004, start_info } = loaded.entry else { panic!("{:?}", loaded.entry) };
    let at = |address| vm_memory::GuestAddress(address);
    let info: hvm_start_info = loaded.ram.read_obj(at(start_info.into())).unwrap();
    assert_eq!((info.magic, info.version, info.rsdp_paddr), (0x336e_c578, 1, ROOT_POINTER.0));
    assert_eq!(&loaded.ram.read_obj::<[u8; 6]>(at(info.cmdline_paddr)).unwrap(), b"quiet\0");
    assert_eq!(&loaded.ram.read_obj::<[u8; 7]>(at(0x10_0000)).unwrap(), b"sixteen");
    let entry = |index: u64| -> hvm_memmap_table_entry {
        loaded.ram.read_obj(at(info.memmap_paddr + index * 24)).unwrap()
    };
    let ram: u64 =
        (0..info.memmap_entries.into()).map(entry).filter(|line| line.type_ == 1).map(|line| line.size).sum();
    assert_eq!(ram, MEMORY.0 - (layout::HIGH_RAM_START - layout::LOW_RAM_END));
}

#[test]
fn a_bzimage_is_entered_in_64_bit_mode_with_its_initrd() {
    let initrd = TemporaryFile::new("initrd", &[7; 5000]);
    let loaded = boot(&bzimage(0x10_0000), Some(&initrd.1), "root=/dev/vda", true).unwrap();
    let Entry::Linux64 { entry: 0x100_0200, zero_page } = loaded.entry else { panic!("{:?}", loaded.entry) };
    let page: boot_params = loaded.ram.read_obj(vm_memory::GuestAddress(zero_page)).unwrap();
    let (start, size, entries) = (page.hdr.ramdisk_image, page.hdr.ramdisk_size, page.e820_entries);
    assert_eq!((size, entries), (5000, 4));
    assert_eq!(u64::from(start) % PAGE_SIZE, 0);
    assert_eq!(loaded.ram.read_obj::<u8>(vm_memory::GuestAddress(u64::from(start) + 4999)).unwrap(), 7);
    assert_eq!({ page.acpi_rsdp_addr }, ROOT_POINTER.0);
}

#[test]
fn only_images_for_level_3_run_without_hardware_virtualisation() {
    let plain = elf(4096, &[PVH]);
    assert!(matches!(boot(&plain, None, "", false), Err(BootError::NeedsRing0(_))));
    assert!(matches!(boot(&bzimage(4096), None, "", false), Err(BootError::NeedsRing0(_))));
    assert!(boot(&elf(4096, &[PVH, LEVEL_3]), None, "", false).is_ok());
    assert!(boot(&elf(4096, &[LEVEL_3, PVH]), None, "", false).is_ok());
}

#[test]
fn what_is_no_kernel_is_refused_with_what_it_is() {
    let mut arm = elf(4096, &[PVH]);
    arm[18] = 0xb7;
    let mut truncated = elf(4096, &[PVH]);
    truncated.truncate(0x208);
    let mut arm_image = vec![0; 64];
    arm_image[56..60].copy_from_slice(b"ARM\x64");
    let cases: [(&[u8], &str); 9] = [
        (b"", "is empty"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"QFI\xfb", "qcow2"),
        (b"#!/bin/sh", "neither an ELF image nor a bzImage"),
        (&arm, "another processor"),
        (&arm_image, "64-bit ARM"),
        (&truncated, "truncated: segment 0 ends at byte 528, and the file has 520"),
        (&elf(4096, &[]), "no PVH entry note"),
        (&bzimage(0)[..0x210], "truncated"),
    ];
    for (image, expected) in cases {
        let message = refusal(image);
        assert!(message.contains(expected), "{message:?} should say {expected:?}");
    }
}

#[test]
fn memory_that_is_too_small_is_refused_with_a_size_that_is_enough() {
    let message = refusal(&elf(100 << 20, &[PVH]));
    assert!(message.contains("--memory 102M"), "{message}");
    assert!(refusal(&bzimage(0x7000_0000)).contains("--memory"));
    let initrd = TemporaryFile::new("large", &vec![1; 63 << 20]);
    let error = boot(&elf(4096, &[PVH]), Some(&initrd.1), "", true).err().unwrap().to_string();
    assert!(error.contains("initrd") && error.contains("--memory"), "{error}");
}

#[test]
fn a_command_line_has_an_end() {
    let image = elf(4096, &[PVH]);
    let check = |cmdline: &str| boot(&image, None, cmdline, true).err().map(|error| error.to_string());
    assert_eq!(check(&"x".repeat(CMDLINE_MAX - 1)), None);
    assert!(check(&"x".repeat(CMDLINE_MAX)).unwrap().contains("2048 bytes"));
    assert!(check("a\0b").unwrap().contains("position 1"));
}

#[test]
fn a_kernel_file_can_be_loaded_again_for_a_reboot() {
    let plan = plan(&Needs { memory: MEMORY, cpus: 1, devices: Vec::new(), address_bits: 46 }).unwrap();
    for (name, image) in [("elf", elf(4096, &[PVH])), ("bzimage", bzimage(0x10_0000))] {
        let kernel = TemporaryFile::new(name, &image);
        let source =
            Source { kernel: KernelImage::File(&kernel.1), initrd: None, cmdline: "", runs_ring_0: &|| true };
        let boot = || load(&allocate(&plan.ram).unwrap(), &plan, &source, ROOT_POINTER).unwrap();
        assert_eq!(boot(), boot(), "{name}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    for path in ["/nonexistent/kernel", "/"] {
        let error = ImageFile::open("kernel", Path::new(path)).err().unwrap().to_string();
        assert!(error.contains(path), "{error}");
    }
}

proptest! {
    #[test]
    fn no_image_harms_the_host(
        flips in proptest::collection::vec((0..0x240_usize, any::<u8>()), 0..12),
        cut in 0..0x260_usize,
        is_elf in any::<bool>(),
    ) {
        let mut image = if is_elf { elf(4096, &[PVH]) } else { bzimage(4096) };
        for (at, value) in flips {
            if let Some(byte) = image.get_mut(at) {
                *byte = value;
            }
        }
        image.truncate(image.len().saturating_sub(cut));
        let _ = boot(&image, None, "", true);
    }
}

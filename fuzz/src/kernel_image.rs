//! Kernel images: one that is taken has its entry in guest memory, and every other is refused.

use std::cell::OnceCell;
use std::io::Write as _;

use napa_machine::boot::{Entry, ImageFile, KernelImage, Source, load};
use napa_machine::{Needs, layout, plan};
use napa_memory::allocate;
use napa_units::{Bytes, GuestAddress};
use tempfile::NamedTempFile;

const MEMORIES: [Bytes; 4] = [Bytes::mib(2), Bytes::mib(16), Bytes::mib(64), Bytes::gib(5)];
const INITRD_BYTES: usize = 5000;

/// The first byte chooses the machine, the rest is the image.
pub fn kernel_image(input: &[u8]) {
    let Some((choice, image)) = input.split_first() else { return };
    let needs =
        Needs { memory: MEMORIES[usize::from(choice & 3)], cpus: 1, devices: Vec::new(), address_bits: 46 };
    let plan = plan(&needs).expect("such a machine can be planned");
    let ram = allocate(&plan.ram).expect("memory is not reserved");
    let boot = |initrd: Option<&ImageFile>| {
        let source = Source {
            kernel: KernelImage::Embedded(image),
            initrd,
            cmdline: "console=ttyS0",
            runs_ring_0: &|| choice & 4 != 0,
        };
        load(&ram, &plan, &source, GuestAddress(layout::ACPI_START))
    };
    let outcome = if choice & 8 == 0 { boot(None) } else { with_initrd(|initrd| boot(Some(initrd))) };
    match outcome {
        Ok(entry) => check(entry, plan.ram[0].size.0),
        Err(refusal) => {
            let message = refusal.to_string();
            assert_eq!(message.lines().count(), 1, "{message:?}");
        }
    }
}

fn check(entry: Entry, low_end: u64) {
    let (first, information) = match entry {
        Entry::Pvh { entry, start_info } => (u64::from(entry), u64::from(start_info)),
        Entry::Linux64 { entry, zero_page } => (entry, zero_page),
    };
    assert!((layout::HIGH_RAM_START..low_end).contains(&first), "entry at {first:#x}");
    assert!(information < layout::LOW_RAM_END);
}

fn with_initrd<T>(call: impl FnOnce(&ImageFile) -> T) -> T {
    thread_local!(static INITRD: OnceCell<(NamedTempFile, ImageFile)> = const { OnceCell::new() });
    INITRD.with(|cell| call(&cell.get_or_init(make_initrd).1))
}

fn make_initrd() -> (NamedTempFile, ImageFile) {
    let mut file = NamedTempFile::new().expect("a file can be made");
    file.write_all(&[7; INITRD_BYTES]).expect("there is room for it");
    let image = ImageFile::open("initrd", file.path()).expect("it can be opened");
    (file, image)
}

//! Images in memory, seen by a guest of a few instructions.

use std::path::PathBuf;

use crate::machine_code;
use crate::support::{Host, Vm, is_locked, wait_until};

const IMAGE_BYTES: usize = 4 << 20;

struct Image {
    kernel: String,
    path: PathBuf,
}

impl Image {
    fn new(host: &Host) -> Self {
        let kernel = host.kernel("reader", &machine_code::image_reader());
        let path = host.path("image");
        let bytes: Vec<u8> = b"an image".iter().copied().cycle().take(IMAGE_BYTES).collect();
        std::fs::write(&path, bytes).unwrap();
        Self { kernel, path }
    }

    fn run(&self, host: &Host) -> Vm {
        let pmem = format!("path={}", self.path.display());
        // The console and the image are the only devices, so that the guest knows their slots.
        let mut vm =
            host.run(&["--kernel", &self.kernel, "--rng", "off", "--balloon", "off", "--pmem", &pmem]);
        vm.wait_line("an image");
        vm
    }
}

/// What a line of a mapping in `/proc/PID/smaps` says, in KiB.
fn smaps(vm: &Vm, image: &Image, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps", vm.pid())).unwrap();
    let mapping = text.split(image.path.to_str().unwrap()).nth(1).expect("the image is mapped");
    let line = mapping.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn guests_read_one_copy_of_an_image_and_cannot_write_it() {
    let Some(host) = Host::new() else { return };
    let image = Image::new(&host);
    let mut vms = [image.run(&host), image.run(&host)];
    for vm in &mut vms {
        // After the guest has written to it.
        vm.wait_line("an image");
        assert!(is_locked(&image.path));
    }
    for vm in &vms {
        assert_eq!(smaps(vm, &image, "Anonymous"), 0, "nobody has a copy");
        // The file may not have reached the disk yet.
        wait_until("sharing", || smaps(vm, &image, "Shared_Clean") + smaps(vm, &image, "Shared_Dirty") >= 8);
    }
    for vm in vms {
        vm.signal("TERM");
        vm.signal("TERM");
        assert_eq!(vm.end().code, Some(83));
    }
    assert!(std::fs::read(&image.path).unwrap().starts_with(b"an image"));
}

#[test]
fn an_image_that_shrinks_ends_its_vm_with_the_reason() {
    let Some(host) = Host::new() else { return };
    let image = Image::new(&host);
    let vm = image.run(&host);
    std::fs::File::options().write(true).open(&image.path).unwrap().set_len(4096).unwrap();
    let ended = vm.end();
    assert_eq!(ended.code, Some(84), "{ended:?}");
    assert!(ended.error.contains("the image of a --pmem has shrunk"), "{ended:?}");
}

#[test]
fn an_image_with_a_writer_is_refused() {
    let Some(host) = Host::new() else { return };
    let image = Image::new(&host);
    let disk = format!("path={},cache=writeback", image.path.display());
    let mut writer = host.run(&["--cmdline", "workload=idle", "--disk", &disk]);
    writer.wait_line("READY ");
    let (code, _, error) = host.napa(&["run", "--pmem", &format!("path={}", image.path.display())]);
    assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("is locked by"), "{error}");
}

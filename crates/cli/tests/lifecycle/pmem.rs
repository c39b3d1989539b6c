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

/// The device comes to the page, and not the guest: it is outside of KVM.
#[test]
fn an_image_that_shrinks_under_a_device_ends_its_vm_alone_with_the_reason() {
    let Some(host) = Host::new() else { return };
    let path = host.path("rings");
    std::fs::write(&path, vec![0; IMAGE_BYTES]).unwrap();
    let kernel = host.kernel("ringer", &machine_code::ringer());
    let pmem = format!("path={}", path.display());
    let flags = ["--rng", "off", "--balloon", "off", "--pmem", &pmem];
    let mut other = host.run(&["--name", "other", "--cmdline", "workload=verify:16M report=0"]);
    other.wait_line("READY ");
    for sandbox in ["on", "off"] {
        std::fs::File::options().write(true).open(&path).unwrap().set_len(IMAGE_BYTES as u64).unwrap();
        let words = [&["--kernel", &kernel, "--name", "vm", "--sandbox", sandbox][..], &flags].concat();
        let mut vm = host.run(&words);
        vm.wait_line("R");
        assert!(host.socket("vm").exists());
        std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let ended = vm.end();
        assert_eq!(ended.code, Some(84), "{ended:?}");
        assert!(
            ended.error.starts_with("napa: the host has no page for the guest's address 0x"),
            "{ended:?}"
        );
        assert!(ended.error.ends_with("or its disk cannot be read; the VM has ended\n"), "{ended:?}");
        assert_eq!(ended.error.lines().count(), 1, "{ended:?}");
        assert!(!host.socket("vm").exists(), "the socket is left");
    }
    other.signal("TERM");
    let ended = other.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.output.contains("CORRUPT"), "{ended:?}");
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

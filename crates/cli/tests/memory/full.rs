//! File systems that are full, become full, or copy on write: napa says so, leaves nothing behind, and VMs run on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Host;
use crate::swap_area::{Turn, areas};

/// A file system of a file of its own, mounted while this lives.
struct Mounted(PathBuf);

impl Mounted {
    /// Made by the program and its words. `None`, with a word about it: not on this machine.
    fn make(host: &Host, size: u64, maker: &[&str], options: &str) -> Option<Self> {
        let (image, folder) = (host.path("image"), host.path("mounted"));
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        fs::create_dir(&folder).unwrap();
        let mut make = Command::new(maker[0]);
        make.args(&maker[1..]).arg(&image);
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).args([&image, &folder]);
        for command in [make, mount] {
            let_or_skip(command)?;
        }
        Some(Self(folder))
    }

    fn tmpfs(host: &Host, options: &str) -> Option<Self> {
        let folder = host.path("mounted");
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&folder);
        let_or_skip(mount)?;
        Some(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// `None`, with a word about it: the command does not exist or fails on this machine.
fn let_or_skip(mut command: Command) -> Option<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => {
            println!("skipped: {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(error) => {
            println!("skipped: {name}: {error}");
            None
        }
    }
}

fn free(folder: &Path) -> u64 {
    let system = rustix::fs::statvfs(folder).unwrap();
    system.f_bavail * system.f_frsize
}

#[test]
fn a_file_system_that_becomes_full_under_a_swap_file_has_its_room_back() {
    let Some(host) = Host::new() else { return };
    let Some(_turn) = Turn::take() else { return };
    // Without extents it cannot reserve space, and takes some for itself with every mebibyte that is written.
    let maker = ["mkfs.ext2", "-q", "-F", "-m", "0"];
    let Some(disk) = Mounted::make(&host, 64 << 20, &maker, "loop") else { return };
    let (before, areas_before) = (free(&disk.0), areas());
    let size = format!("{}K", before >> 10);
    let file = disk.path("swap");
    let words = ["swap", "create", "--size", &size, "--file", file.to_str().unwrap(), "--compressed", "off"];
    let (code, _, error) = host.napa(&words);
    assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("became full while") && error.contains("make room for 1 MiB more"), "{error}");
    assert!(!file.exists());
    assert_eq!((free(&disk.0), areas()), (before, areas_before));
}

#[test]
fn a_file_system_that_copies_on_write_and_compresses_holds_a_swap_file() {
    let Some(host) = Host::new() else { return };
    let Some(_turn) = Turn::take() else { return };
    let Some(disk) = Mounted::make(&host, 256 << 20, &["mkfs.btrfs", "-q"], "loop,compress=zstd") else {
        return;
    };
    let before = areas();
    let file = disk.path("swap");
    let file = file.to_str().unwrap();
    let words = |size| ["swap", "create", "--size", size, "--file", file, "--compressed", "off"];
    let (code, _, error) = host.napa(&words("1G"));
    assert!(code == Some(2) && error.contains("that are free for"), "{code:?} {error}");
    let (code, _, error) = host.napa(&words("16M"));
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(areas().len(), before.len() + 1);
    let (code, _, error) = host.napa(&["swap", "remove", "--file", file]);
    assert_eq!(code, Some(0), "{error}");
    assert!(!Path::new(file).exists());
    assert_eq!(areas(), before);
}

#[test]
fn a_vm_whose_console_has_no_room_runs_on() {
    let Some(host) = Host::new() else { return };
    let Some(disk) = Mounted::tmpfs(&host, "size=16k") else { return };
    let log = disk.path("log");
    fs::write(disk.path("rest"), vec![0; 16 << 10]).unwrap();
    let console = format!("file={}", log.display());
    let cmdline = "workload=verify:16M,2";
    let vm = host.run(&["--name", "vm", "--console", &console, "--cmdline", cmdline]);
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(fs::metadata(&log).unwrap().len() <= 4096);
    assert!(ended.error.contains("No space left on device"), "{ended:?}");
}

//! The emulated machine that every host runs on.
//!
//! All its devices are always present, at fixed places, with or without a use for them: a snapshot can
//! only be loaded by a machine with the same devices.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::descriptor_number;

/// Size of the disk that a test may use as it likes, swap included. The file is sparse.
const SCRATCH_SIZE: u64 = 8 << 30;

/// What QEMU calls that disk.
pub(crate) const SCRATCH: &str = "scratch";

/// Size of the disk with the guests' images; [`crate::images`] makes a file system of this size.
pub(crate) const IMAGES_SIZE: u64 = 4 << 30;

/// What the fixed devices are connected to.
pub(crate) struct Backends {
    /// Control protocol.
    pub control: OwnedFd,
    /// The agent's port.
    pub agent: OwnedFd,
    /// The network card: Ethernet frames, each after its length (u32, big endian).
    pub peer: OwnedFd,
    /// Receives the serial console.
    pub console: PathBuf,
    /// The read-only disk `/dev/lab/share`.
    pub share: PathBuf,
    /// The disk `/dev/lab/images`; what the host writes to it is forgotten at its end.
    pub images: PathBuf,
    /// The disk `/dev/lab/scratch`.
    pub scratch: PathBuf,
}

/// Makes the scratch disk.
pub(crate) fn create_scratch(path: &Path) -> Result<()> {
    create_sparse(path, SCRATCH_SIZE)
}

/// Makes an empty disk in place of the guests' images.
pub(crate) fn create_empty_images(path: &Path) -> Result<()> {
    create_sparse(path, IMAGES_SIZE)
}

fn create_sparse(path: &Path, size: u64) -> Result<()> {
    let file = File::create(path).and_then(|file| file.set_len(size));
    file.with_context(|| format!("make the disk {}", path.display()))
}

/// QEMU's options for the machine, without its memory, kernel and backends: the part that a snapshot
/// depends on.
pub(crate) fn machine_options(memory_mib: u32) -> Vec<String> {
    let memory = memory_mib.to_string();
    // One CPU: with two, the emulation of SVM has been seen to corrupt guests.
    let options = [
        "-M",
        "q35,mem-merge=off",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max,+svm,+npt",
        "-smp",
        "1",
        "-m",
        &memory,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-device",
        "virtio-serial-pci,addr=0x2",
        "-device",
        "virtserialport,chardev=agent,name=napa.lab.agent",
        "-device",
        "virtio-blk-pci,addr=0x3,drive=share,serial=share",
        "-device",
        "virtio-blk-pci,addr=0x4,drive=images,serial=images",
        "-device",
        "virtio-blk-pci,addr=0x5,drive=scratch,serial=scratch",
        "-device",
        "virtio-net-pci,addr=0x6,netdev=peer,mac=52:54:00:6c:61:00,romfile=",
        "-device",
        "virtio-rng-pci,addr=0x7",
    ];
    options.map(str::to_owned).to_vec()
}

impl Backends {
    /// QEMU's options for what the devices are connected to.
    pub fn options(&self) -> Vec<String> {
        let drive = |id: &str, file: &Path, more: &str| {
            // QEMU reads a doubled comma as one.
            let file = file.display().to_string().replace(',', ",,");
            ["-drive".to_owned(), format!("id={id},if=none,format=raw,file={file}{more}")]
        };
        let socket = |id: &str, fd: &OwnedFd| {
            ["-chardev".to_owned(), format!("socket,id={id},fd={}", descriptor_number(fd))]
        };
        let mut options = Vec::new();
        options.extend(socket("control", &self.control));
        options.extend(["-mon", "chardev=control,mode=control"].map(str::to_owned));
        options.extend(socket("agent", &self.agent));
        let peer = descriptor_number(&self.peer);
        options.extend(["-netdev".to_owned(), format!("stream,id=peer,addr.type=fd,addr.str={peer}")]);
        options.extend(drive("share", &self.share, ",readonly=on"));
        options.extend(drive("images", &self.images, ",snapshot=on"));
        options.extend(drive(SCRATCH, &self.scratch, ",cache=unsafe,discard=unmap"));
        options.extend(["-serial".to_owned(), format!("file:{}", self.console.display())]);
        options
    }

    /// The descriptors that QEMU inherits.
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        vec![self.control, self.agent, self.peer]
    }
}

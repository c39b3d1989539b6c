//! The initial RAM file system of a host, which is all the system it has: busybox, the agent, modules.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::binaries;
use crate::cpio::Archive;
use crate::kernel::Kernel;
use crate::tools::Tools;

/// What a host loads at boot: its own devices, and everything napa uses of a production host.
const MODULES: [&str; 29] = [
    // The host's own devices.
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "erofs",
    "ext4",
    "loop",
    // What runs guests.
    "kvm_amd",
    "tun",
    "tap",
    "vhost_net",
    "vhost_vsock",
    "vsock_loopback",
    "bridge",
    "veth",
    "macvtap",
    "vxlan",
    // Where their memory goes.
    "zram",
    "lzo",
    "lzo_rle",
    "lz4",
    "zstd",
    // Networks and disks that tests build.
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "overlay",
    "dm_mod",
    "dm_snapshot",
];

/// The agent becomes process 1 once everything is there. A command that fails ends the host, and its
/// console says which.
const INIT: &str = r#"#!/bin/busybox sh
set -e
/bin/busybox --install -s /bin
export PATH=/share/bin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/lab
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
modprobe -a MODULES
for controller in cpu io memory pids; do echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control; done
for disk in /sys/block/vd*; do ln -s "/dev/${disk##*/}" "/dev/lab/$(cat "$disk/serial")"; done
until port=$(grep -lsx napa.lab.agent /sys/class/virtio-ports/*/name); do usleep 1000; done
port=${port%/name}
ln -s "/dev/${port##*/}" /dev/lab/agent
hostname lab
ip link set lo up
export HOME=/root TERM=linux
exec /bin/napa-lab-agent
"#;

/// Builds the archive for a kernel.
///
/// # Errors
/// The agent does not build, or a package does not hold what it should.
pub(crate) fn build(kernel: &Kernel, tools: &Tools) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for folder in ["bin", "dev", "etc", "images", "proc", "root", "run", "share", "sys", "tmp", "lib", "var"]
    {
        archive.folder(folder);
    }
    archive.character_device("dev/console", 5, 1);
    add_busybox(&mut archive, tools)?;
    add_program(&mut archive, &binaries::agent()?)?;
    add_program(&mut archive, &binaries::socket()?)?;
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", b"root:x:0:\n");
    kernel.add_modules(&mut archive, &MODULES)?;
    archive.program("init", INIT.replace("MODULES", &MODULES.join(" ")).as_bytes());
    Ok(archive.finish())
}

/// Adds a program of this workspace.
pub(crate) fn add_program(archive: &mut Archive, program: &Path) -> Result<()> {
    let content = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let name = program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
    archive.program(&format!("bin/{name}"), &content);
    Ok(())
}

/// Adds the statically linked busybox.
pub(crate) fn add_busybox(archive: &mut Archive, tools: &Tools) -> Result<()> {
    let busybox = tools.root().join("usr/bin/busybox");
    let busybox = fs::read(&busybox).with_context(|| format!("read {}", busybox.display()))?;
    archive.program("bin/busybox", &busybox);
    Ok(())
}

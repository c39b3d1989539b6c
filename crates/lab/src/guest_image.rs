//! The initial RAM file system of a guest: busybox, the virtio drivers, and a script that takes its work
//! from the kernel's command line.
//!
//! * `DO="COMMANDS"` is executed as a shell script; the guest then powers off.
//! * `root=DEVICE` instead mounts that disk and continues with the `init` on it.
//!
//! What it says on its console starts with `guest:`. The kernel hands words of the form `NAME=VALUE` that
//! it does not know to the first process as variables, which is how `DO` arrives.

use anyhow::Result;

use crate::binaries;
use crate::cpio::Archive;
use crate::host_image::{add_busybox, add_program};
use crate::kernel::Kernel;
use crate::tools::Tools;

/// The drivers that a guest may need for the devices of any virtual machine monitor.
pub(crate) const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "virtio_mem",
    "virtio_pmem",
    "nd_pmem",
    "vmw_vsock_virtio_transport",
    "pvpanic_mmio",
    "pvpanic_pci",
    "ptp_kvm",
    "ext4",
    "crc32c_intel",
    "button",
    "evdev",
    "zram",
    "autofs4",
    "loop",
];

/// What every guest loads: the rest is there for `modprobe`.
const LOADED: &str = "virtio_pci virtio_blk virtio_net virtio_console virtio_rng virtio_balloon virtio_pmem nd_pmem button evdev crc32c_intel";

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
modprobe -a LOADED 2>/dev/null
for word in $(cat /proc/cmdline); do
  case "$word" in root=*) root="${word#root=}" ;; esac
done
if [ -n "$root" ]; then
  # Disks appear some time after their driver.
  tries=0
  until [ -b "$root" ] || [ $tries -ge 1000 ]; do usleep 10000; tries=$((tries + 1)); done
  mount -t ext4 -o rw "$root" /root || { echo "guest: no root file system on $root"; poweroff -f; }
  mount --move /dev /root/dev
  umount /proc /sys
  exec switch_root /root /sbin/init
fi
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
ip link set lo up
echo "guest: up, Linux $(uname -r), $(nproc) CPUs"
# The variable arrives from the kernel's command line.
eval "$DO"
echo "guest: done with code $?"
sync
poweroff -f
"#;

/// What `acpid` runs when the power button is pressed.
const POWER_BUTTON: &str =
    "#!/bin/busybox sh\necho 'guest: power button' > /dev/console\nsync\npoweroff -f\n";

/// Builds the archive for a kernel.
///
/// # Errors
/// A package does not hold what it should.
pub(crate) fn build(kernel: &Kernel, tools: &Tools) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for folder in [
        "bin",
        "dev",
        "etc",
        "etc/acpi",
        "etc/acpi/PWRF",
        "lib",
        "mnt",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "var",
    ] {
        archive.folder(folder);
    }
    archive.link("var/run", "/run");
    archive.character_device("dev/console", 5, 1);
    add_busybox(&mut archive, tools)?;
    add_program(&mut archive, &binaries::socket()?)?;
    archive.program("etc/acpi/PWRF/00000080", POWER_BUTTON.as_bytes());
    kernel.add_modules(&mut archive, MODULES)?;
    archive.program("init", INIT.replace("LOADED", LOADED).as_bytes());
    Ok(archive.finish())
}

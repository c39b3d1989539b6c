//! The disk with everything that guests are made of, mounted at `/images` in a host:
//!
//! | file | what |
//! |---|---|
//! | `vmlinux-VERSION` | Debian's stock cloud kernel as an ELF file |
//! | `bzImage-VERSION` | the same kernel as packaged |
//! | `initramfs-VERSION.cpio` | busybox and drivers: see [`crate::guest_image`] |
//! | `debian.ext4` | a Debian with systemd, for `root=/dev/vda` and an initramfs: see [`crate::debian`] |
//! | `qemu/` | QEMU with its libraries, as a peer of napa |
//!
//! The host may write to it; what it writes is kept outside the image and forgotten with the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Archive;
use crate::cache::{Cache, Key};
use crate::command::run_quietly;
use crate::debian;
use crate::devices::IMAGES_SIZE;
use crate::guest_image;
use crate::kernel::{HostKernel, Kernel};
use crate::qemu::Qemu;
use crate::tools::Tools;

/// Changes with what this file makes of its inputs.
const RECIPE: &str = "1";

/// The disk image, built if the cache does not hold it.
///
/// # Errors
/// Something cannot be fetched or built; [`crate::debian`] needs root when it is first built.
pub(crate) fn image(cache: &Cache, archive: &Archive, tools: &Tools, qemu: &Qemu) -> Result<PathBuf> {
    let mut key = Key::new().with(RECIPE).with(qemu.root().display().to_string());
    let mut guests = Vec::new();
    for version in HostKernel::ALL {
        let kernel = Kernel::unpacked(cache, tools, version)?;
        let initramfs = guest_image::build(&kernel, tools)?;
        key = key.with(kernel.release()).with(&initramfs);
        guests.push((version, kernel, initramfs));
    }
    let debian = debian::image(cache, archive, tools, &Kernel::unpacked(cache, tools, HostKernel::V6_12)?)?;
    let key = key.with(debian.display().to_string());
    let entry = cache.entry("images", key, |entry| {
        crate::progress("building the disk with the guests' images");
        let files = entry.join("files");
        fs::create_dir(&files).with_context(|| format!("make {}", files.display()))?;
        for (version, kernel, initramfs) in guests {
            let version = version.version();
            link(&kernel.vmlinux(), &files.join(format!("vmlinux-{version}")))?;
            link(&kernel.bzimage(), &files.join(format!("bzImage-{version}")))?;
            fs::write(files.join(format!("initramfs-{version}.cpio")), initramfs)
                .context("write an initramfs")?;
        }
        link(&debian, &files.join("debian.ext4"))?;
        link(qemu.root(), &files.join("qemu"))?;
        // Without a journal: nothing on this disk is meant to survive its host.
        let mut mkfs = tools.command("usr/sbin/mke2fs")?;
        mkfs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-L", "images", "-m", "0", "-d"]).arg(&files);
        let kib = (IMAGES_SIZE / 1024).to_string();
        run_quietly(mkfs.arg(entry.join("images.ext4")).arg(kib + "k"))?;
        fs::remove_dir_all(&files).context("delete the files that are on the disk now")
    })?;
    Ok(entry.join("images.ext4"))
}

/// Hard links cost nothing, and everything here is in one folder.
fn link(original: &Path, link: &Path) -> Result<()> {
    run_quietly(Command::new("cp").args(["--archive", "--link"]).arg(original).arg(link))
}

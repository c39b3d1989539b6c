//! A Debian root file system for guests, made by debootstrap: systemd, udev, a login on every console.
//!
//! `root` has no password. The file system is ext4 without a partition table, for `root=/dev/vda`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Archive;
use crate::cache::{Cache, Key};
use crate::command::run_quietly;
use crate::guest_image;
use crate::kernel::Kernel;
use crate::packages::{Packages, command_prefix};
use crate::tools::Tools;
use crate::unavailable::Unavailable;

/// Changes with what this file makes of the packages.
const RECIPE: &str = "3";

/// What a minimal Debian lacks to boot, and to be looked at through a console.
const INCLUDED: &str = "systemd-sysv,systemd,udev,dbus,iproute2,iputils-ping,kmod,netcat-openbsd";

/// Size of the file system; the file is sparse.
const SIZE: &str = "2G";

/// Parts that no test reads.
const UNUSED: [&str; 6] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/i18n",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Units that only keep an emulated CPU busy.
const MASKED: [&str; 5] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
];

/// The ext4 image, built if the cache does not hold it.
///
/// # Errors
/// The caller is not root, which debootstrap has to be, or a package cannot be fetched.
pub(crate) fn image(cache: &Cache, archive: &Archive, tools: &Tools, kernel: &Kernel) -> Result<PathBuf> {
    let packages: Vec<&str> = INCLUDED.split(',').collect();
    let versions = archive.closure(&packages)?;
    let key = Key::new().with(RECIPE).with(kernel.release()).with(guest_image::MODULES.join(" "));
    let key = versions.iter().fold(key, |key, package| key.with(package.to_string()));
    let entry = cache.entry("debian", key, |entry| {
        if !rustix::process::geteuid().is_root() {
            return Err(Unavailable::Root.into());
        }
        let debootstrap =
            Packages::with_dependencies(cache, archive, "debootstrap", &["debootstrap", "gpgv", "wget"])?;
        crate::progress("making a Debian for guests with debootstrap");
        let root = entry.join("root");
        bootstrap(&debootstrap, archive, entry, &root)?;
        configure(&root, kernel)?;
        let mut mkfs = tools.command("usr/sbin/mke2fs")?;
        mkfs.args(["-q", "-t", "ext4", "-L", "debian", "-m", "0", "-d"]).arg(&root);
        run_quietly(mkfs.arg(entry.join("debian.ext4")).arg(SIZE))?;
        fs::remove_dir_all(&root).context("delete the folder that debootstrap filled")
    })?;
    Ok(entry.join("debian.ext4"))
}

/// What debootstrap mounts stays in a mount name space of its own.
fn bootstrap(debootstrap: &Packages, archive: &Archive, scratch: &Path, root: &Path) -> Result<()> {
    let programs = scratch.join("programs");
    fs::create_dir(&programs).with_context(|| format!("make {}", programs.display()))?;
    for program in ["wget", "gpgv"] {
        wrap(debootstrap, program, &programs)?;
    }
    let system_path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{system_path}:/usr/sbin:/sbin", programs.display());
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh"])
        .arg(debootstrap.root().join("usr/sbin/debootstrap"));
    command.args(["--variant=minbase", &format!("--include={INCLUDED}")]);
    if let Some(keyring) = &archive.mirror().keyring {
        command.arg(format!("--keyring={}", keyring.display()));
    }
    command.arg(archive.suite().name()).arg(root).arg(&archive.mirror().archive);
    command.env("PATH", path).env("DEBOOTSTRAP_DIR", debootstrap.root().join("usr/share/debootstrap"));
    run_quietly(command.env("LC_ALL", "C.UTF-8")).context("make a Debian with debootstrap")?;
    fs::remove_dir_all(&programs).with_context(|| format!("delete {}", programs.display()))
}

/// A script that starts an unpacked program like an installed one.
fn wrap(packages: &Packages, program: &str, folder: &Path) -> Result<()> {
    let words = command_prefix(packages.root(), &format!("usr/bin/{program}"))?;
    let words: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    let script = folder.join(program);
    fs::write(&script, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))
        .and_then(|()| fs::set_permissions(&script, Permissions::from_mode(0o755)))
        .with_context(|| format!("write {}", script.display()))
}

fn configure(root: &Path, kernel: &Kernel) -> Result<()> {
    for part in UNUSED.map(|part| root.join(part)) {
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("delete {}", part.display()))?;
        }
    }
    let write = |path: &str, content: &[u8]| {
        let file = root.join(path);
        let parent = file.parent().context("a file has a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        fs::write(&file, content).with_context(|| format!("write {}", file.display()))
    };
    write("etc/hostname", b"debian\n")?;
    // Without one systemd takes the first boot's detour.
    write("etc/machine-id", b"6e6170616c6162000000000000000001\n")?;
    write("etc/fstab", b"")?;
    let shadow = fs::read_to_string(root.join("etc/shadow")).context("read the guest's passwords")?;
    write("etc/shadow", without_root_password(&shadow).as_bytes())?;
    for unit in MASKED {
        let link = root.join("etc/systemd/system").join(unit);
        symlink("/dev/null", &link).with_context(|| format!("mask {unit}"))?;
    }
    let modules = kernel.modules(guest_image::MODULES)?.into_iter().chain(kernel.module_indexes()?);
    // Debian's /lib is a link into /usr.
    modules.into_iter().try_for_each(|(path, content)| write(&format!("usr/{path}"), &content))?;
    write("etc/systemd/journald.conf.d/lab.conf", b"[Journal]\nStorage=volatile\n")?;
    // Marks that are newer than /usr spare the first boot from building every cache anew.
    ["etc/.updated", "var/.updated"].iter().try_for_each(|mark| write(mark, b""))
}

/// `root:HASH:…` becomes `root::…`, which lets anybody in at a console.
fn without_root_password(shadow: &str) -> String {
    let line = |line: &str| match line.strip_prefix("root:").and_then(|rest| rest.split_once(':')) {
        Some((_, rest)) => format!("root::{rest}\n"),
        None => format!("{line}\n"),
    };
    shadow.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_loses_its_password() {
        let shadow = "root:*:20000:0:99999:7:::\nrootless:!:1::::::\ndaemon:*:20000:0:99999:7:::\n";
        let expected = "root::20000:0:99999:7:::\nrootless:!:1::::::\ndaemon:*:20000:0:99999:7:::\n";
        assert_eq!(without_root_password(shadow), expected);
    }
}

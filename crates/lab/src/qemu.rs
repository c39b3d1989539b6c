//! QEMU as Debian packages it, unpacked into the cache and never installed.
//!
//! It emulates the lab's hosts, and it is the peer that benchmarks compare napa with.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt::{Archive, Suite};
use crate::cache::Cache;
use crate::packages::{Packages, command_prefix};

const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// An unpacked QEMU.
#[derive(Debug, Clone)]
pub struct Qemu {
    packages: Packages,
}

/// The QEMU of Debian 13, fetched if the cache does not hold it.
///
/// # Errors
/// There is no place for the cache, or the packages cannot be fetched.
pub fn unpacked() -> Result<Qemu> {
    let cache = Cache::of_this_user()?;
    unpacked_in(&cache, &Archive::open(&cache, Suite::Trixie)?)
}

/// As [`unpacked`], from a cache and an archive that the caller has open.
///
/// # Errors
/// The packages cannot be fetched.
pub fn unpacked_in(cache: &Cache, archive: &Archive) -> Result<Qemu> {
    let packages = Packages::with_dependencies(cache, archive, "qemu", &["qemu-system-x86"])?;
    Ok(Qemu { packages })
}

impl Qemu {
    /// The emulator's ELF file. It is started through the loader beside it: see [`Qemu::prefix`].
    pub fn binary(&self) -> PathBuf {
        self.packages.root().join(PROGRAM)
    }

    /// The folder with everything QEMU needs: program, libraries, firmware.
    pub fn root(&self) -> &Path {
        self.packages.root()
    }

    /// The folders of its firmware images.
    pub fn firmware(&self) -> [PathBuf; 2] {
        FIRMWARE.map(|folder| self.packages.root().join(folder))
    }

    /// The words that start QEMU, to be followed by its options.
    ///
    /// # Errors
    /// The unpacked packages hold no QEMU.
    pub fn prefix(&self) -> Result<Vec<String>> {
        prefix_at(self.packages.root())
    }

    /// A command that starts QEMU, to be given its options.
    ///
    /// # Errors
    /// The unpacked packages hold no QEMU.
    pub fn command(&self) -> Result<Command> {
        let mut command = self.packages.command(PROGRAM)?;
        for folder in self.firmware() {
            command.arg("-L").arg(folder);
        }
        Ok(command)
    }
}

fn prefix_at(root: &Path) -> Result<Vec<String>> {
    let mut prefix = command_prefix(root, PROGRAM)?;
    for folder in FIRMWARE {
        prefix.extend(["-L".to_owned(), root.join(folder).display().to_string()]);
    }
    Ok(prefix)
}

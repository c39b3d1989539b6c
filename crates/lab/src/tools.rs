//! The programs that the lab runs on the machine itself.
//!
//! Those that come with every Debian are named here with their package, so that an error can say what
//! to install. All others are unpacked into the cache like everything else.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::apt::Archive;
use crate::cache::Cache;
use crate::packages::Packages;

/// What must be installed: program and Debian package. `.ci/packages` lists the same packages.
const INSTALLED: [(&str, &str); 6] = [
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("apt-config", "apt"),
    ("dpkg-deb", "dpkg"),
    ("cp", "coreutils"),
    ("unshare", "util-linux"),
];

/// What is unpacked.
const UNPACKED: [&str; 7] = ["busybox-static", "e2fsprogs", "erofs-utils", "kmod", "lz4", "xz-utils", "zstd"];

/// Programs unpacked from packages.
#[derive(Debug, Clone)]
pub struct Tools {
    packages: Packages,
}

impl Tools {
    /// The lab's tools, fetched if the cache does not hold them.
    ///
    /// # Errors
    /// The packages cannot be fetched.
    pub fn unpacked(cache: &Cache, archive: &Archive) -> Result<Tools> {
        Ok(Tools { packages: Packages::with_dependencies(cache, archive, "tools", &UNPACKED)? })
    }

    /// A command that runs one of the tools, such as `usr/bin/xz`.
    ///
    /// # Errors
    /// There is no such program.
    pub fn command(&self, path: &str) -> Result<Command> {
        self.packages.command(path)
    }

    /// The folder that stands for `/`.
    pub fn root(&self) -> &Path {
        self.packages.root()
    }
}

/// The Debian package of a program that has to be installed.
pub(crate) fn package_of(program: &str) -> Option<&'static str> {
    let name = program.rsplit('/').next().unwrap_or(program);
    INSTALLED.iter().find(|(installed, _)| *installed == name).map(|(_, package)| *package)
}

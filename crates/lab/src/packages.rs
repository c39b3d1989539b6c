//! Programs that run straight out of unpacked packages, whatever the host has installed.
//!
//! The folder holds a program with all its libraries and their dynamic loader. The program is started
//! through that loader, so neither the host's libc nor its other libraries matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::{Archive, Package};
use crate::cache::{Cache, Key};

const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Parts of packages that nothing at run time reads.
const UNUSED: [&str; 5] =
    ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/bug", "usr/lib/x86_64-linux-gnu/gconv"];

/// A folder of unpacked packages.
#[derive(Debug, Clone)]
pub struct Packages {
    root: PathBuf,
}

impl Packages {
    /// The packages `names` with all they depend on, as the cache entry `kind`.
    ///
    /// # Errors
    /// A package does not exist or cannot be fetched.
    pub fn with_dependencies(
        cache: &Cache,
        archive: &Archive,
        kind: &str,
        names: &[&str],
    ) -> Result<Packages> {
        archive
            .with_fresh_lists_if_needed(|| Packages::exactly(cache, archive, kind, &archive.closure(names)?))
    }

    /// These packages and no others, as the cache entry `kind`.
    ///
    /// # Errors
    /// A package cannot be fetched or unpacked.
    pub fn exactly(cache: &Cache, archive: &Archive, kind: &str, packages: &[Package]) -> Result<Packages> {
        let key = packages.iter().fold(Key::new(), |key, package| key.with(package.to_string()));
        let root = cache.entry(kind, key, |folder| {
            crate::progress(&format!("fetching {kind} ({} packages)", packages.len()));
            archive.unpack(packages, folder)?;
            UNUSED.iter().try_for_each(|part| remove_unused(&folder.join(part)))
        })?;
        Ok(Packages { root })
    }

    /// The folder that stands for `/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A command that runs the program at `path` (such as `usr/bin/xz`) with its own libraries.
    ///
    /// # Errors
    /// There is no such program.
    pub fn command(&self, path: &str) -> Result<Command> {
        let prefix = command_prefix(&self.root, path)?;
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]);
        Ok(command)
    }
}

/// The words that start the program at `path` below `root`.
///
/// # Errors
/// There is no such program.
pub(crate) fn command_prefix(root: &Path, path: &str) -> Result<Vec<String>> {
    let program = root.join(path);
    ensure!(program.exists(), "there is no {} among the unpacked packages", program.display());
    let name = path.rsplit('/').next().unwrap_or(path);
    let text = |path: PathBuf| path.display().to_string();
    let words = ["--inhibit-cache", "--library-path", &text(root.join(LIBRARIES)), "--argv0", name];
    let mut prefix = vec![text(root.join(LOADER))];
    prefix.extend(words.map(str::to_owned));
    prefix.push(text(program));
    Ok(prefix)
}

fn remove_unused(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("delete {}", path.display()))?;
    }
    Ok(())
}

//! Debian's stock cloud kernels: as bzImage, as ELF, and their modules.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{Archive, Suite};
use crate::cache::{Cache, Key};
use crate::command::run_quietly;
use crate::cpio;
use crate::tools::Tools;
use crate::vmlinux::{Compression, payload};

/// Changes with what this file makes of a package.
const RECIPE: &str = "1";

/// A kernel for a host or a guest of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostKernel {
    /// Debian 12's: the oldest host that napa supports.
    V6_1,
    /// Debian 13's: the main one.
    V6_12,
}

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub struct Kernel {
    folder: PathBuf,
    release: String,
}

/// Busybox reads the text of the indexes, kmod their binary form.
const MODULE_INDEXES: [&str; 7] = [
    "modules.dep",
    "modules.dep.bin",
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin",
    "modules.builtin.bin",
    "modules.builtin.modinfo",
];

/// A module and those it needs, in loading order.
type Dependencies = Vec<String>;

impl HostKernel {
    /// All of them.
    pub const ALL: [HostKernel; 2] = [HostKernel::V6_1, HostKernel::V6_12];

    /// The version, as people write it.
    pub fn version(self) -> &'static str {
        match self {
            HostKernel::V6_1 => "6.1",
            HostKernel::V6_12 => "6.12",
        }
    }

    /// The Debian release whose kernel this is.
    pub fn suite(self) -> Suite {
        match self {
            HostKernel::V6_1 => Suite::Bookworm,
            HostKernel::V6_12 => Suite::Trixie,
        }
    }
}

impl Kernel {
    /// The kernel, fetched if the cache does not hold it.
    ///
    /// # Errors
    /// The package cannot be fetched, or is not built as expected.
    pub fn unpacked(cache: &Cache, tools: &Tools, version: HostKernel) -> Result<Kernel> {
        let archive = Archive::open(cache, version.suite())?;
        let folder = archive.with_fresh_lists_if_needed(|| {
            let package = archive.behind("linux-image-cloud-amd64", "linux-image-")?;
            let key = Key::new().with(RECIPE).with(package.to_string());
            cache.entry(&format!("kernel-{}", version.version()), key, |folder| {
                crate::progress(&format!("fetching the kernel {}", package.name));
                archive.unpack(&[package], folder)?;
                prepare(folder, tools)
            })
        })?;
        let release = only_name_in(&folder.join("modules/lib/modules"))?;
        Ok(Kernel { folder, release })
    }

    /// What `uname -r` says.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The kernel as the package has it.
    pub fn bzimage(&self) -> PathBuf {
        self.folder.join("bzImage")
    }

    /// The kernel as an uncompressed ELF file, bootable through its PVH note.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The modules `names` and all they need, as (path below `/`, content).
    ///
    /// # Errors
    /// A name is neither a module nor built into this kernel.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let folder = self.modules_folder();
        let read = |name: &str| {
            fs::read_to_string(folder.join(name)).with_context(|| format!("read {name} of {}", self.release))
        };
        let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
        let mut paths = BTreeSet::new();
        for name in names {
            match find_module(&dependencies, name) {
                Some(found) => paths.extend(found),
                None => ensure!(is_listed(&builtin, name), "the kernel {} has no {name}", self.release),
            }
        }
        let file = |path: String| {
            let content = fs::read(folder.join(&path)).with_context(|| format!("read the module {path}"))?;
            Ok((format!("lib/modules/{}/{path}", self.release), content))
        };
        paths.into_iter().map(file).collect()
    }

    /// Puts the modules `names`, all they need, and the index that `modprobe` reads, into an archive.
    ///
    /// # Errors
    /// A name is neither a module nor built into this kernel.
    pub fn add_modules(&self, archive: &mut cpio::Archive, names: &[&str]) -> Result<()> {
        let modules = self.modules(names)?;
        let mut folders = BTreeSet::new();
        for (path, _) in &modules {
            folders.extend(Path::new(path).ancestors().skip(1).filter(|folder| *folder != Path::new("")));
        }
        folders.iter().filter_map(|folder| folder.to_str()).for_each(|folder| archive.folder(folder));
        modules.iter().for_each(|(path, content)| archive.file(path, content));
        for (path, content) in self.module_indexes()? {
            archive.file(&path, &content);
        }
        Ok(())
    }

    /// The indexes that `modprobe` reads, as (path below `/`, content).
    ///
    /// # Errors
    /// An index cannot be read.
    pub fn module_indexes(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let index = |name: &str| {
            let content =
                fs::read(self.modules_folder().join(name)).with_context(|| format!("read {name}"))?;
            Ok((format!("lib/modules/{}/{name}", self.release), content))
        };
        MODULE_INDEXES.into_iter().map(index).collect()
    }

    fn modules_folder(&self) -> PathBuf {
        self.folder.join("modules/lib/modules").join(&self.release)
    }
}

/// Brings an unpacked package into one form, whatever the release: `bzImage`, `vmlinux`, and
/// `modules/lib/modules/RELEASE` with uncompressed modules and their indexes.
fn prepare(folder: &Path, tools: &Tools) -> Result<()> {
    let boot = folder.join("boot");
    let image = fs::read_dir(&boot).with_context(|| format!("list {}", boot.display()))?.flatten();
    let image = image.map(|file| file.path()).find(|path| path.display().to_string().contains("/vmlinuz-"));
    let image = image.context("the kernel package has no vmlinuz")?;
    fs::rename(&image, folder.join("bzImage")).context("move the kernel")?;
    cut_vmlinux(folder, tools)?;
    let modules = ["usr/lib/modules", "lib/modules"].map(|path| folder.join(path));
    let modules = modules.iter().find(|path| path.is_dir()).context("the kernel package has no modules")?;
    fs::create_dir_all(folder.join("modules/lib")).context("make the folder for the modules")?;
    fs::rename(modules, folder.join("modules/lib/modules")).context("move the modules")?;
    unpack_modules(&folder.join("modules"), tools)?;
    let release = only_name_in(&folder.join("modules/lib/modules"))?;
    let mut depmod = tools.command("usr/sbin/depmod")?;
    run_quietly(depmod.arg("-b").arg(folder.join("modules")).arg(release))?;
    for rest in ["boot", "usr", "lib"].map(|name| folder.join(name)).iter().filter(|path| path.exists()) {
        fs::remove_dir_all(rest).with_context(|| format!("delete {}", rest.display()))?;
    }
    Ok(())
}

fn cut_vmlinux(folder: &Path, tools: &Tools) -> Result<()> {
    let bzimage = fs::read(folder.join("bzImage")).context("read the kernel")?;
    let payload = payload(&bzimage).context("find the kernel in its package's bzImage")?;
    let compressed = folder.join("vmlinux.compressed");
    fs::write(&compressed, payload.stream).context("write the compressed kernel")?;
    let program = match payload.compression {
        Compression::Lz4 => "usr/bin/lz4",
        Compression::Xz => "usr/bin/xz",
        Compression::Zstd => "usr/bin/zstd",
    };
    let vmlinux = File::create(folder.join("vmlinux")).context("make the file for the kernel")?;
    let mut unpack = tools.command(program)?;
    let status =
        unpack.args(["-d", "-c", "-q"]).arg(&compressed).stdout(vmlinux).stdin(Stdio::null()).status();
    let status = status.context("unpack the kernel")?;
    ensure!(status.success(), "unpack the kernel: {program} failed ({status})");
    fs::remove_file(&compressed).context("delete the compressed kernel")
}

/// Emulated CPUs unpack slowly: modules are stored as they are loaded.
fn unpack_modules(folder: &Path, tools: &Tools) -> Result<()> {
    let mut compressed = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "xz") {
                compressed.push(path);
            }
        }
    }
    for files in compressed.chunks(500) {
        run_quietly(tools.command("usr/bin/xz")?.arg("-d").args(files))?;
    }
    Ok(())
}

/// Looks a module up in `modules.dep`, whose lines are `PATH: NEEDED-PATH …`.
fn find_module(dependencies: &str, name: &str) -> Option<Dependencies> {
    let line =
        dependencies.lines().find(|line| module_name(line.split(':').next().unwrap_or_default()) == name)?;
    let (path, needed) = line.split_once(':')?;
    Some(needed.split_whitespace().rev().chain([path]).map(str::to_owned).collect())
}

fn is_listed(builtin: &str, name: &str) -> bool {
    builtin.lines().any(|path| module_name(path) == name)
}

/// `kernel/drivers/block/virtio-blk.ko` is the module `virtio_blk`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn only_name_in(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        names => bail!("{} should hold one kernel's modules, not {names:?}", folder.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/net/vmw_vsock/vsock.ko:\n\
        kernel/drivers/vhost/vhost-vsock.ko: kernel/net/vmw_vsock/common.ko kernel/net/vmw_vsock/vsock.ko\n";

    #[test]
    fn modules_come_with_what_they_need_first() {
        let found = find_module(DEPENDENCIES, "vhost_vsock").unwrap();
        assert_eq!(
            found,
            [
                "kernel/net/vmw_vsock/vsock.ko",
                "kernel/net/vmw_vsock/common.ko",
                "kernel/drivers/vhost/vhost-vsock.ko"
            ]
        );
        assert_eq!(find_module(DEPENDENCIES, "vsock").unwrap().len(), 1);
        assert_eq!(find_module(DEPENDENCIES, "vhost"), None);
    }

    #[test]
    fn built_in_modules_are_known_by_name() {
        let builtin = "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n";
        assert!(is_listed(builtin, "ext4") && is_listed(builtin, "virtio_pci"));
        assert!(!is_listed(builtin, "virtio_blk"));
    }
}

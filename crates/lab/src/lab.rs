//! Starts hosts from snapshots, which are made when they are first needed.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{Archive, Suite};
use crate::binaries;
use crate::cache::{Cache, Key};
use crate::devices::{self, Backends, machine_options};
use crate::host::{Boot, Host, RunFolder, Sockets};
use crate::host_image;
use crate::images;
use crate::job::JobError;
use crate::kernel::{HostKernel, Kernel};
use crate::qemu::{self, Qemu};
use crate::share::Share;
use crate::tools::Tools;
use crate::tsc;

/// Frequencies this close count as one machine's: measurements differ a little.
const TSC_STEP_KHZ: u64 = 20_000;

const DEFAULT_MEMORY_MIB: u32 = 1024;

/// A lab that is ready to start hosts.
pub struct Lab {
    cache: Cache,
    tools: Tools,
    qemu: Qemu,
    tsc_khz: u64,
}

/// What a host is given.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Files for it, found below `/share`; `/share/bin` is in its `PATH`.
    pub share: Share,
    /// Whether `napa` is in its `PATH`, freshly built.
    pub napa: Presence,
    /// Whether the guests' images are mounted at `/images`, writable; what is written is forgotten.
    pub images: Presence,
}

/// Whether something is in a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// It is not.
    Absent,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions {
            memory_mib: DEFAULT_MEMORY_MIB,
            share: Share::new(),
            napa: Presence::Present,
            images: Presence::Present,
        }
    }
}

impl HostOptions {
    /// Options for a host without napa and guests.
    pub fn bare() -> HostOptions {
        HostOptions { napa: Presence::Absent, images: Presence::Absent, ..HostOptions::default() }
    }
}

impl Lab {
    /// Fetches what every host needs, if the cache does not hold it.
    ///
    /// # Errors
    /// A package cannot be fetched.
    pub fn open() -> Result<Lab> {
        let cache = Cache::of_this_user()?;
        let archive = Archive::open(&cache, Suite::Trixie)?;
        let tools = Tools::unpacked(&cache, &archive)?;
        let qemu = qemu::unpacked_in(&cache, &archive)?;
        Ok(Lab { cache, tools, qemu, tsc_khz: tsc::frequency_khz() })
    }

    /// Fetches fresh lists of packages: what is built next may be made of newer ones.
    ///
    /// # Errors
    /// The mirror does not answer.
    pub fn update() -> Result<()> {
        let cache = Cache::of_this_user()?;
        [Suite::Bookworm, Suite::Trixie].iter().try_for_each(|suite| Archive::open(&cache, *suite)?.update())
    }

    /// Starts a host with `napa` and the guests' images.
    ///
    /// # Errors
    /// As [`Lab::start_with`].
    pub fn start(&self, kernel: HostKernel) -> Result<Host> {
        self.start_with(kernel, &HostOptions::default())
    }

    /// Starts a host.
    ///
    /// # Errors
    /// Something cannot be fetched or built, or the host does not come up.
    pub fn start_with(&self, kernel: HostKernel, options: &HostOptions) -> Result<Host> {
        let (peer, unconnected) = UnixStream::pair().context("make the end of a network cable")?;
        let host = self.start_connected(kernel, options, peer.into());
        drop(unconnected);
        host
    }

    /// Starts two hosts whose cards `eth0` are connected to each other.
    ///
    /// # Errors
    /// As [`Lab::start_with`].
    pub fn start_pair(&self, kernels: [HostKernel; 2], options: &HostOptions) -> Result<[Host; 2]> {
        let (first, second) = UnixStream::pair().context("make a network cable")?;
        let first = self.start_connected(kernels[0], options, first.into())?;
        let second = self.start_connected(kernels[1], options, second.into())?;
        // Both came from one snapshot.
        first.shell("ip link set eth0 address 52:54:00:6c:61:01")?;
        second.shell("ip link set eth0 address 52:54:00:6c:61:02")?;
        Ok([first, second])
    }

    /// Fetches and builds everything that [`Lab::start`] needs, so that every later start is quick.
    ///
    /// # Errors
    /// Something cannot be fetched or built, or a host does not come up.
    pub fn build(&self) -> Result<()> {
        self.images()?;
        HostKernel::ALL.iter().try_for_each(|kernel| self.snapshot(*kernel, DEFAULT_MEMORY_MIB).map(drop))
    }

    /// The disk with the guests' images.
    fn images(&self) -> Result<PathBuf> {
        let archive = Archive::open(&self.cache, Suite::Trixie)?;
        images::image(&self.cache, &archive, &self.tools, &self.qemu)
    }

    fn kernel(&self, version: HostKernel) -> Result<Kernel> {
        Kernel::unpacked(&self.cache, &self.tools, version)
    }

    fn start_connected(&self, kernel: HostKernel, options: &HostOptions, peer: OwnedFd) -> Result<Host> {
        let snapshot = self.snapshot(kernel, options.memory_mib)?;
        let folder = RunFolder::new(&self.cache.root().join("run"))?;
        let images = match options.images {
            Presence::Absent => None,
            Presence::Present => Some(self.images()?),
        };
        let share = match options.napa {
            Presence::Absent => Share::new(),
            Presence::Present => Share::new().with_file("bin/napa", &binaries::napa()?),
        }
        .with(&options.share);
        let (backends, sockets) = self.backends(&folder, &share, images, peer)?;
        let mut machine = machine_options(options.memory_mib);
        machine.extend(["-incoming", "defer"].map(str::to_owned));
        let boot = Boot { options: machine, snapshot: Some(&snapshot) };
        let host = Host::boot(&self.qemu, boot, backends, sockets, folder)?;
        host.shell("mount -t erofs -o ro /dev/lab/share /share")?;
        if options.images == Presence::Present {
            host.shell("mount -t ext4 /dev/lab/images /images")?;
        }
        Ok(host)
    }

    /// The snapshot of a host that has just booted.
    fn snapshot(&self, version: HostKernel, memory_mib: u32) -> Result<PathBuf> {
        let kernel = self.kernel(version)?;
        let image = host_image::build(&kernel, &self.tools)?;
        let machine = machine_options(memory_mib);
        let key = [self.qemu.root().display().to_string(), kernel.release().to_owned(), machine.join(" ")]
            .iter()
            .fold(Key::new(), Key::with)
            .with(&image)
            .with((self.tsc_khz / TSC_STEP_KHZ).to_string());
        let entry = self.cache.entry(&format!("host-{}", version.version()), key, |entry| {
            crate::progress(&format!("booting a host with Linux {}", version.version()));
            let initramfs = entry.join("initramfs.cpio");
            fs::write(&initramfs, &image).context("write the host's initial RAM file system")?;
            self.cold_boot(&kernel, &initramfs, machine)?.save(&entry.join("snapshot"))
        })?;
        Ok(entry.join("snapshot"))
    }

    fn cold_boot(&self, kernel: &Kernel, initramfs: &Path, mut machine: Vec<String>) -> Result<Host> {
        let folder = RunFolder::new(&self.cache.root().join("run"))?;
        // The far end stays open: a card that lost its cable would be saved without one.
        let (peer, _far_end) = UnixStream::pair().context("make the end of a network cable")?;
        let (backends, sockets) = self.backends(&folder, &Share::new(), None, peer.into())?;
        let text = |path: &Path| path.display().to_string();
        let command_line = format!(
            "quiet console=ttyS0 panic=-1 random.trust_cpu=on tsc=reliable tsc_early_khz={}",
            self.tsc_khz
        );
        machine.extend([
            "-kernel".to_owned(),
            text(&kernel.vmlinux()),
            "-initrd".to_owned(),
            text(initramfs),
        ]);
        machine.extend(["-append".to_owned(), command_line]);
        Host::boot(&self.qemu, Boot { options: machine, snapshot: None }, backends, sockets, folder)
    }

    fn backends(
        &self,
        folder: &RunFolder,
        share: &Share,
        images: Option<PathBuf>,
        peer: OwnedFd,
    ) -> Result<(Backends, Sockets)> {
        let path = |name: &str| folder.path().join(name);
        share.write_image(&path("share"), &path("share-files"), &self.tools)?;
        devices::create_scratch(&path("scratch"))?;
        let images = match images {
            Some(images) => images,
            None => {
                devices::create_empty_images(&path("images"))?;
                path("images")
            }
        };
        let (sockets, control, agent) = Sockets::pairs()?;
        let (share, scratch, console) = (path("share"), path("scratch"), path("console"));
        Ok((Backends { control, agent, peer, console, share, images, scratch }, sockets))
    }
}

/// Runs `test`; if the emulator of a host ended by itself, which nothing inside can cause, once more.
///
/// # Errors
/// What `test` reports.
pub fn with_one_retry_for_lost_hosts(test: impl Fn() -> Result<()>) -> Result<()> {
    test().or_else(|error| {
        let host_gone =
            error.chain().any(|cause| matches!(cause.downcast_ref(), Some(JobError::HostGone(_))));
        if !host_gone {
            return Err(error);
        }
        crate::progress(&format!("a defect of the emulation: {error:#}; trying once more"));
        test()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn runs(failure: impl Fn() -> anyhow::Error) -> u32 {
        let runs = Cell::new(0);
        let result = with_one_retry_for_lost_hosts(|| {
            runs.set(runs.get() + 1);
            Err(failure().context("during the test"))
        });
        assert!(result.is_err());
        runs.get()
    }

    #[test]
    fn only_a_lost_host_is_a_reason_to_try_again() {
        assert_eq!(runs(|| JobError::HostGone("true".to_owned()).into()), 2);
        assert_eq!(runs(|| anyhow::anyhow!("the marker did not come")), 1);
        assert_eq!(runs(|| JobError::TooMuchOutput("yes".to_owned()).into()), 1);
    }
}

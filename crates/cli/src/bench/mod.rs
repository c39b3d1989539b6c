//! `napa bench`: napa and QEMU run the same embedded guest in turn, and are compared.
//!
//! ```text
//!  subject (command lines) -> vm (process, time, words) -> start | memory | disk | latency -> figure -> table | JSON
//! ```
//!
//! Subjects take turns within each repetition, so that a busy moment of the host meets all of them; medians are
//! quoted. The exit code says whether it was measured, not what came out. This process has one thread: its
//! network namespace is its own.

mod balloon;
mod disk;
mod figure;
mod host_loop;
mod latency;
mod load;
mod memory;
mod merging;
mod network;
mod pageout;
mod qemu;
mod remote;
mod reporting;
mod sample;
mod share;
mod start;
mod storage;
mod subject;
mod swap;
mod table;
mod vm;

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use napa_sys::host::Root;
use napa_sys::signal::SignalFd;
use napa_sys::swap::Zram;
use napa_units::Bytes;
use serde::Serialize;
use tempfile::TempDir;

use self::figure::{Figure, Subject};
use self::network::Taps;
use self::qemu::Qemu;
use self::share::Fleet;
use self::storage::Storage;
use self::subject::{Disk, Machine, Vmms};
use self::vm::Vm;
use crate::error::Error;
use crate::guests::require_kvm;
use crate::output::{self, Style};

/// VMs that run at once where pages are shared between them.
const VMS_AT_ONCE: usize = 8;
/// The swap area that is made to measure swap.
const SWAP: Bytes = Bytes::gib(1);
/// The disk of a VM whose disk is not what is measured.
const SMALL_DISK: Bytes = Bytes::mib(64);

/// The flags of `napa bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// QEMU's program, or the folder its packages were unpacked to [default: found]
    #[arg(long, value_name = "PATH", conflicts_with = "napa_only")]
    qemu: Option<PathBuf>,
    /// Measure napa alone
    #[arg(long)]
    napa_only: bool,
    /// Measure disks on this file or block device instead of one made for it; it is only read
    #[arg(long, value_name = "PATH")]
    device: Option<PathBuf>,
    /// Let --device be written to as well: WHAT IT HOLDS IS LOST
    #[arg(long, requires = "device")]
    overwrite: bool,
    /// Guests that share their pages [default: 20; with --quick: 4]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(2..=1000))]
    guests: Option<u32>,
    /// What each of the guests that share pages holds: a number and one of K, M, G [default: 512M; with --quick: 64M]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Fewer repetitions, shorter runs
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// From exec to the guest's first byte
    Start,
    /// Memory, threads and wake-ups of an idle VM
    Memory,
    /// Transfers a second, on a file and on a device in memory
    Disk,
    /// From a doorbell to its completion
    Latency,
    /// Memory that a guest gives to the host and takes back
    Balloon,
    /// What free page reporting costs a guest
    Reporting,
    /// Pages that come back from swap
    Swap,
    /// Memory of many guests with the same contents once they are merged (napa alone)
    Share,
    /// Everything
    All,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    /// Something that the user asked for cannot be.
    #[error("{0}")]
    Input(String),
    /// A VMM or the host failed.
    #[error("{0}")]
    Failed(String),
    /// Somebody ended the benchmark.
    #[error("the benchmark was interrupted; its VMs have ended")]
    Interrupted,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    qemu: Option<&'a str>,
    figures: &'a [Figure],
    not_measured: &'a [String],
}

/// What all measurements need.
struct Bench {
    vmms: Vmms,
    signals: SignalFd,
    /// Why there are none, otherwise.
    taps: Result<Taps, String>,
    disks: Vec<PathBuf>,
    quick: bool,
    /// Deleted at the end, with everything in it.
    folder: TempDir,
}

/// Runs the benchmark.
pub fn bench(arguments: &BenchArgs) -> Result<ExitCode, Error> {
    require_kvm()?;
    let (bench, version) = Bench::prepare(arguments)?;
    let measured = bench.measure(arguments);
    bench.progress("");
    let (figures, not_measured) = measured?;
    if arguments.json {
        let qemu = version.as_deref();
        return output::print_json(&Report { qemu, figures: &figures, not_measured: &not_measured });
    }
    let heading = version.map_or(String::new(), |version| format!("{version}\n\n"));
    output::print((heading + &table::render(&figures, &not_measured, Style::for_output())).as_bytes())
}

impl Bench {
    fn prepare(arguments: &BenchArgs) -> Result<(Self, Option<String>), BenchError> {
        arguments.check()?;
        let qemu = match arguments.napa_only || arguments.what == What::Share {
            true => None,
            false => Some(Qemu::find(arguments.qemu.as_deref())?),
        };
        let version = qemu.as_ref().map(Qemu::version).transpose()?;
        // Before any VM starts: a signal must find somebody who ends it.
        let signals = SignalFd::new(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
            .map_err(|error| BenchError::failed(format!("cannot collect signals: {error}")))?;
        let folder = tempfile::Builder::new().prefix("napa-bench-").tempdir().map_err(no_folder)?;
        let kernel = folder.path().join("guest.elf");
        fs::write(&kernel, napa_guest::IMAGE).map_err(no_folder)?;
        let disks = small_disks(folder.path()).map_err(no_folder)?;
        let taps = Taps::make(VMS_AT_ONCE).map_err(|error| {
            format!("network cards, with either VMM: no private network namespace with taps can be made ({error}): run as root")
        });
        let vmms = Vmms { kernel, qemu };
        Ok((Self { vmms, signals, taps, disks, quick: arguments.quick, folder }, version))
    }

    /// The figures, and what there are none of.
    fn measure(&self, arguments: &BenchArgs) -> Result<(Vec<Figure>, Vec<String>), BenchError> {
        let wants = |what| arguments.what == what || arguments.what == What::All;
        let (mut figures, mut missing) = (Vec::new(), Vec::new());
        if wants(What::Start) || wants(What::Memory) {
            missing.extend(self.taps.as_ref().err().cloned());
        }
        if wants(What::Start) {
            figures.extend(start::measure(self)?);
        }
        if wants(What::Memory) {
            figures.extend(memory::measure(self)?);
        }
        if wants(What::Disk) || wants(What::Latency) {
            let storages = self.storages(arguments, &mut missing);
            if wants(What::Disk) {
                figures.extend(disk::measure(self, &storages)?);
            }
            if wants(What::Latency)
                && let Some(storage) = storages.last()
            {
                figures.extend(latency::measure(self, storage)?);
            }
        }
        if wants(What::Balloon) {
            figures.extend(balloon::measure(self)?);
        }
        if wants(What::Reporting) {
            figures.extend(reporting::measure(self)?);
        }
        if wants(What::Swap) {
            self.progress("swap: making an area in compressed memory");
            match Zram::make(&Root::system(), SWAP) {
                Ok(_area) => figures.extend(swap::measure(self)?),
                Err(error) => missing.push(format!("pages that come back from swap: {error}")),
            }
        }
        match arguments.what {
            What::Share => figures.extend(share::measure(self, arguments.fleet())?),
            // Somebody else may hold the host's sharing; the other figures are there.
            What::All => match share::measure(self, arguments.fleet()) {
                Ok(of_sharing) => figures.extend(of_sharing),
                Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
                Err(error) => missing.push(format!("guests that share pages: {error}")),
            },
            _ => {}
        }
        Ok((figures, missing))
    }

    /// What disks are measured on. The last is the one with the least latency of its own.
    fn storages(&self, arguments: &BenchArgs, missing: &mut Vec<String>) -> Vec<Storage> {
        if let Some(path) = &arguments.device {
            return vec![Storage::named(path, arguments.overwrite)];
        }
        self.progress("disk: making a file and a device in memory");
        let file = Storage::file(self.folder.path()).map_err(|error| {
            format!("disks on a file: {error}; set TMPDIR to a folder on a disk with 512 MiB")
        });
        let memory = Storage::in_memory().map_err(|error| {
            format!("disks on a device in memory: {error}; run as root on a host with zram (modprobe zram)")
        });
        let mut storages = Vec::new();
        for made in [file, memory] {
            match made {
                Ok(storage) => storages.push(storage),
                Err(reason) => missing.push(reason),
            }
        }
        storages
    }

    fn check_signals(&self) -> Result<(), BenchError> {
        match self.signals.next() {
            Some(_) => Err(BenchError::Interrupted),
            None => Ok(()),
        }
    }

    /// Starts `machine`.
    fn start(&self, subject: Subject, machine: Machine<'_>) -> Result<Vm<'_>, BenchError> {
        let command = self.vmms.command(subject, machine).ok_or_else(|| {
            BenchError::failed(format!("{} cannot run a guest here", subject::name(subject)))
        })?;
        Vm::start(subject::name(subject), command, &self.signals)
    }

    /// The disk of VM `index` of those that run at once.
    fn disk(&self, index: usize) -> Disk<'_> {
        Disk { path: &self.disks[index], readonly: false }
    }

    /// The tap of VM `index` of those that run at once, if there are any.
    fn tap(&self, index: usize) -> Option<&str> {
        self.taps.as_ref().ok().map(|taps| taps.name(index))
    }

    /// What the machines under measurement have.
    fn devices(&self) -> &'static str {
        match self.taps {
            Ok(_) => "128 MiB, console, disk, net, rng",
            Err(_) => "128 MiB, console, disk, rng",
        }
    }

    /// The first of a pair, or the second for a quick run.
    fn effort(&self, (usual, quick): (usize, usize)) -> usize {
        if self.quick { quick } else { usual }
    }

    /// Says what is done, in the place of what was said before; nothing where nobody looks.
    fn progress(&self, what: &str) {
        if io::stderr().is_terminal() {
            // It is no loss if that does not arrive.
            let _ = write!(io::stderr(), "\r\x1b[K{what}");
        }
    }
}

impl BenchArgs {
    fn check(&self) -> Result<(), BenchError> {
        if !matches!(self.what, What::Share | What::All) && (self.guests.is_some() || self.memory.is_some()) {
            return Err(BenchError::input("--guests and --memory are for: napa bench share"));
        }
        if self.memory.is_some_and(|memory| memory < share::HELD_MIN || memory > share::HELD_MAX) {
            return Err(BenchError::input(format!(
                "--memory: a guest of this benchmark holds {} to {}",
                share::HELD_MIN,
                share::HELD_MAX
            )));
        }
        Ok(())
    }

    fn fleet(&self) -> Fleet {
        Fleet::new(self.guests.map(|count| count as usize), self.memory, self.quick)
    }
}

impl BenchError {
    fn input(what: impl Into<String>) -> Self {
        Self::Input(what.into())
    }

    fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }
}

impl From<BenchError> for Error {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Input(what) => Self::BadInput(what),
            BenchError::Failed(_) | BenchError::Interrupted => Self::failure(error),
        }
    }
}

fn small_disks(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let make = |index| {
        let path = folder.join(format!("disk{index}.raw"));
        File::create(&path)?.set_len(SMALL_DISK.0)?;
        Ok(path)
    };
    (0..VMS_AT_ONCE).map(make).collect()
}

fn no_folder(error: io::Error) -> BenchError {
    BenchError::failed(format!(
        "cannot make files to measure with: {error}; set TMPDIR to a folder with room"
    ))
}

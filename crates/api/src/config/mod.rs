//! The configuration of one VM.
//!
//! Words become a [`VmConfig`] in `parse` (flags) and `file` (TOML); `check` finds what contradicts itself
//! in the words alone; `cmdline` says what a Linux kernel is told when nobody says it.

mod cgroup;
mod check;
mod cmdline;
mod file;
mod hotplug;
mod mac;
mod parse;
#[cfg(feature = "schema")]
mod schema;
mod share;
#[cfg(any(test, feature = "strategies"))]
pub mod strategies;
#[cfg(test)]
mod tests;
mod words;

use std::path::PathBuf;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

pub use cgroup::{CgroupConfig, CgroupError};
pub use check::{
    CPUS_MAX, ConfigError, MEMORY_MAX, NAME_BYTES_MAX, QUEUES_MAX, STOP_TIMEOUT_S_MAX, check_name,
};
pub use file::{TomlReadError, TomlWriteError};
pub use hotplug::hotplug_block;
pub use mac::{MacAddress, MacError};
pub use share::{ShareConfig, ShareError};
pub use words::{WordError, nearest};

/// Everything `napa run` is told about a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct VmConfig {
    /// Name of the VM: 1 to 64 letters, digits, `.`, `_`, `-`; the first one a letter or a digit.
    pub name: Option<String>,
    /// Guest memory; a multiple of 4 KiB.
    pub memory: Bytes,
    /// Memory that can be plugged while the VM runs; a multiple of its [block](hotplug_block). `None`: none.
    pub hotplug_memory: Option<Bytes>,
    /// Whether guest memory is backed with transparent huge pages where the kernel can.
    pub huge_pages: bool,
    /// Control group of version 2 to run in, alone. `None`: that of whoever starts the VM.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub cgroup: Option<CgroupConfig>,
    /// Memory that is not taken from the VM while other groups have some to give (`memory.low` of its group).
    pub memory_low: Option<Bytes>,
    /// The most that the VM may have in swap (`memory.swap.max` of its group).
    pub swap_max: Option<Bytes>,
    /// How far equal pages are merged. `None`: as [`ShareConfig::Vm`], once somebody asks for it.
    pub share: Option<ShareConfig>,
    /// Number of vCPUs, 1 to 64.
    pub cpus: u32,
    /// Kernel image (ELF with a PVH note, or bzImage). `None`: the embedded guest.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub initrd: Option<PathBuf>,
    /// Kernel command line. `None`: what the kernel and the disks suggest
    /// ([`effective_cmdline`](Self::effective_cmdline)).
    pub cmdline: Option<String>,
    /// Where the consoles go.
    pub console: ConsoleConfig,
    /// File to which what the guest writes on its consoles is added as well, until it has 4 MiB.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub console_log: Option<PathBuf>,
    /// Entropy device.
    pub rng: bool,
    /// Memory balloon.
    pub balloon: BalloonConfig,
    /// What a guest's own reset does.
    pub on_reboot: OnReboot,
    /// How long an orderly stop may take before it becomes a hard stop, in seconds, 0 to one day.
    pub stop_timeout_s: u32,
    /// Control socket to listen on.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub api_socket: Option<PathBuf>,
    /// Whether the VM's process gives up what it does not need before guest code runs. Off: for debugging.
    pub sandbox: bool,
    /// Socket to the host's Unix sockets.
    pub vsock: Option<VsockConfig>,
    /// Disks, in the order of their PCI slots.
    #[serde(rename = "disk")]
    pub disks: Vec<DiskConfig>,
    /// Network cards, in the order of their PCI slots.
    #[serde(rename = "net")]
    pub nets: Vec<NetConfig>,
    /// Images in memory, in the order of their PCI slots.
    #[serde(rename = "pmem")]
    pub pmems: Vec<PmemConfig>,
}

impl VmConfig {
    /// The name, or `vm` where nobody gave one.
    pub fn name_or_default(&self) -> &str {
        self.name.as_deref().unwrap_or("vm")
    }

    /// How far equal pages may be merged.
    pub fn share_or_default(&self) -> &ShareConfig {
        self.share.as_ref().unwrap_or(&ShareConfig::Vm)
    }

    /// The MAC address of card `index` of [`nets`](Self::nets): the given one, or one derived from the VM's
    /// name (from the tap's name where the VM has none) and the card's number, locally administered.
    pub fn mac_of(&self, index: usize) -> Option<MacAddress> {
        let net = self.nets.get(index)?;
        let seed = self.name.as_deref().unwrap_or(&net.tap);
        Some(net.mac.unwrap_or_else(|| MacAddress::derived(seed, index)))
    }
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            name: None,
            memory: Bytes::mib(128),
            hotplug_memory: None,
            huge_pages: true,
            cgroup: None,
            memory_low: None,
            swap_max: None,
            share: None,
            cpus: 1,
            kernel: None,
            initrd: None,
            cmdline: None,
            console: ConsoleConfig::Stdio,
            console_log: None,
            rng: true,
            balloon: BalloonConfig::On,
            on_reboot: OnReboot::Restart,
            stop_timeout_s: 30,
            api_socket: None,
            sandbox: true,
            vsock: None,
            disks: Vec::new(),
            nets: Vec::new(),
            pmems: Vec::new(),
        }
    }
}

/// One virtio block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// Image file or block device.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub path: PathBuf,
    /// Refuse writes; the image is locked for reading only.
    #[serde(default)]
    pub readonly: bool,
    /// Format of the image.
    #[serde(default)]
    pub format: DiskFormat,
    /// Whether the host's page cache is used.
    #[serde(default)]
    pub cache: CacheMode,
    /// Request queues, 1 to 64. `None`: one per vCPU, up to the device's own limit.
    #[serde(default)]
    pub queues: Option<u16>,
    /// Serial number shown to the guest, 1 to 20 printable ASCII bytes.
    #[serde(default)]
    pub serial: Option<String>,
}

/// Format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Bytes of the disk, one after the other.
    #[default]
    Raw,
}

/// Which cache stands between the guest and the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// `O_DIRECT`: the host's page cache is not used.
    #[default]
    None,
    /// The host's page cache; a guest's flush is an `fdatasync`.
    Writeback,
}

/// One virtio network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// Name of the host's tap device: opened if it exists, made (and removed at the end) if not.
    pub tap: String,
    /// MAC address. `None`: see [`VmConfig::mac_of`].
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub mac: Option<MacAddress>,
    /// Queue pairs, 1 to 64. `None`: one per vCPU, up to the device's own limit.
    #[serde(default)]
    pub queues: Option<u16>,
    /// MTU told to the guest, 68 to 65535 bytes.
    #[serde(default)]
    pub mtu: Option<u16>,
}

/// One read-only image that the guest has in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PmemConfig {
    /// Image file or block device.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub path: PathBuf,
}

/// The vsock device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// Context id of the guest, 3 to 4294967294 (VIRTIO 1.3 §5.10.4).
    pub cid: u32,
    /// Unix socket that stands for the host side; guest connections go to `PATH_PORT`.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub path: PathBuf,
}

/// Where the serial and the virtio console go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsoleConfig {
    /// The terminal, or standard input and output.
    #[default]
    Stdio,
    /// Output is appended to a file; there is no input.
    File(PathBuf),
    /// A Unix socket that takes one connection at a time.
    Socket(PathBuf),
    /// Output is dropped; there is no input.
    Off,
}

/// Whether there is a memory balloon, and what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BalloonConfig {
    /// The guest can be asked to give memory up, and reports what it frees.
    #[default]
    On,
    /// It can be asked, but does not report.
    NoReporting,
    /// There is none.
    Off,
}

/// What a reset that the guest asks for does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnReboot {
    /// The VM starts again from its kernel.
    #[default]
    Restart,
    /// napa ends with [`Exit::Reboot`](crate::Exit::Reboot).
    Exit,
}

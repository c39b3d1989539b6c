//! What contradicts itself in the words of a configuration alone, without a look at the host.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use napa_units::{Bytes, PAGE_SIZE};

use crate::mechanism::{Feature, Rule, broken_rule};

use super::{
    ConsoleConfig, DiskConfig, MacAddress, NetConfig, PmemConfig, ShareConfig, VmConfig, hotplug_block,
};

/// The most vCPUs of a VM.
pub const CPUS_MAX: u32 = 64;
/// The most guest memory of a VM: what a physical address of 46 bits reaches.
pub const MEMORY_MAX: Bytes = Bytes(1 << 46);
/// The most queues (for a network card: queue pairs) of a device.
pub const QUEUES_MAX: u16 = 64;
/// The longest name of a VM, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest bound of an orderly stop, in seconds: one day.
pub const STOP_TIMEOUT_S_MAX: u32 = 86_400;
/// The longest kernel command line, in bytes without the final zero: Linux on x86 takes 2048 with it.
pub const CMDLINE_BYTES_MAX: usize = 2047;
/// The longest serial number of a disk, in bytes (VIRTIO 1.3 §5.2.6).
pub const SERIAL_BYTES_MAX: usize = 20;
/// The longest name of a network interface, in bytes (`IFNAMSIZ` without the final zero).
pub const TAP_BYTES_MAX: usize = 15;
/// The longest path of a Unix socket, in bytes (`sun_path` without the final zero).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The smallest MTU of IPv4, in bytes.
pub(super) const MTU_MIN: u16 = 68;
/// The first context id that a guest may have (VIRTIO 1.3 §5.10.4).
pub(super) const VSOCK_CID_MIN: u32 = 3;
/// The last context id that a guest may have; the one above means any.
pub(super) const VSOCK_CID_MAX: u32 = u32::MAX - 1;
/// The longest port that a vsock backend appends to its path: `_4294967295`.
const VSOCK_PORT_BYTES_MAX: usize = 11;

/// Why a configuration cannot be that of a VM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The VM's name is not one.
    #[error(
        "--name {0:?} cannot be a VM's name: use 1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit"
    )]
    Name(String),
    /// The name of a trust domain is not one.
    #[error(
        "--share domain={0:?} cannot be a trust domain's name: use 1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit"
    )]
    Domain(String),
    /// The number of vCPUs is out of range.
    #[error("--cpus {0} is out of range: a VM has 1 to {CPUS_MAX} vCPUs")]
    Cpus(u32),
    /// No memory at all.
    #[error("--memory 0 leaves the guest nothing to run in: give it some, such as 128M")]
    NoMemory,
    /// The memory is not whole pages.
    #[error("--memory {0} is not a whole number of 4 KiB pages: the next one is {next}", next = next_page(*.0))]
    MemoryNotPages(Bytes),
    /// More memory than a guest can address.
    #[error("--memory {0} is more than a guest can address: at most {MEMORY_MAX}")]
    MemoryTooLarge(Bytes),
    /// Nothing can be plugged.
    #[error("--hotplug-memory 0 is none: give it a size, such as 1G, or leave it out")]
    NoHotplugMemory,
    /// What can be plugged is not whole blocks.
    #[error(
        "--hotplug-memory {0} is not a whole number of blocks, which are {block} at this size: the next one is {next}",
        block = hotplug_block(*.0), next = next_block(*.0)
    )]
    HotplugNotBlocks(Bytes),
    /// More memory with what can be plugged than a guest can address.
    #[error(
        "--memory {memory} and --hotplug-memory {hotplug} are more than a guest can address: at most {MEMORY_MAX}"
    )]
    HotplugTooLarge {
        /// Guest memory.
        memory: Bytes,
        /// What can be plugged.
        hotplug: Bytes,
    },
    /// Two things that do not go together.
    #[error("{0}")]
    Contradiction(&'static Rule),
    /// An initial RAM disk without a kernel that would take it.
    #[error("--initrd needs --kernel: the embedded guest takes none")]
    InitrdWithoutKernel,
    /// A path is empty.
    #[error("{flag} has an empty path: name a file, or leave it out")]
    EmptyPath {
        /// The flag, with its key.
        flag: &'static str,
    },
    /// The kernel command line is too long.
    #[error("--cmdline has {0} bytes: a Linux kernel takes at most {CMDLINE_BYTES_MAX}")]
    CmdlineTooLong(usize),
    /// The kernel command line holds a character that would end it or break it into lines.
    #[error("--cmdline holds the control character {0:?}: remove it")]
    CmdlineControl(char),
    /// The bound of an orderly stop is too long.
    #[error("--stop-timeout {0} is too long: at most {STOP_TIMEOUT_S_MAX} seconds (one day)")]
    StopTimeout(u32),
    /// Two disks on one image, one of which would write.
    #[error(
        "--disk path={0} is there twice, and a writer must have its image alone: remove one, or make both readonly"
    )]
    SameDisk(String),
    /// An image in memory that a disk of the same VM would write.
    #[error(
        "--pmem path={0} is also a --disk, which would write to it: remove one, or make the disk readonly"
    )]
    PmemIsDisk(String),
    /// A disk's serial number is not one.
    #[error("--disk serial={0:?} cannot be a serial number: use 1 to 20 printable ASCII characters")]
    Serial(String),
    /// Too few or too many queues.
    #[error("{flag} queues={queues} is out of range: a device has 1 to {QUEUES_MAX}")]
    Queues {
        /// The device's flag.
        flag: &'static str,
        /// How many were asked for.
        queues: u16,
    },
    /// A tap device's name is not one.
    #[error(
        "--net tap={0:?} cannot be an interface: use 1 to {TAP_BYTES_MAX} characters without blanks, '/', ':' or '%'"
    )]
    Tap(String),
    /// Two network cards on one tap device.
    #[error("--net tap={0} is there twice: give each network card a tap device of its own")]
    SameTap(String),
    /// A MAC address that no card may have.
    #[error("--net mac={mac} is {what}: use a unicast address, such as {mend}", mend = unicast(*mac))]
    Mac {
        /// The address.
        mac: MacAddress,
        /// What it is instead.
        what: &'static str,
    },
    /// Two network cards with one MAC address.
    #[error("--net mac={0} belongs to two network cards: give each an address of its own")]
    SameMac(MacAddress),
    /// An MTU below that of IPv4.
    #[error("--net mtu={0} is out of range: {MTU_MIN} to 65535 bytes")]
    Mtu(u16),
    /// A context id that is reserved.
    #[error("--vsock cid={0} is reserved: a guest has one from {VSOCK_CID_MIN} to {VSOCK_CID_MAX}")]
    Cid(u32),
    /// A socket's path does not fit.
    #[error("{flag} has {length} bytes, and a Unix socket's path at most {max}: use a shorter one")]
    SocketPathTooLong {
        /// The flag, with its key.
        flag: &'static str,
        /// Length of the path, in bytes.
        length: usize,
        /// The most there may be, in bytes.
        max: usize,
    },
    /// Two things would listen on or write to the same path.
    #[error("{one} and {other} have the same path {path}: give each its own")]
    SamePath {
        /// A flag, with its key.
        one: &'static str,
        /// Another flag, with its key.
        other: &'static str,
        /// What they share.
        path: String,
    },
}

impl VmConfig {
    /// Finds what contradicts itself in the words alone. A VM that passes may still ask for what its host
    /// does not have.
    ///
    /// # Errors
    /// The first contradiction, with the flag that holds it and how to mend it.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if let Some(ShareConfig::Domain(name)) = &self.share {
            check_name(name).map_err(|_| ConfigError::Domain(name.clone()))?;
        }
        self.check_processors_and_memory()?;
        self.check_rules()?;
        self.check_boot()?;
        self.check_paths()?;
        self.disks.iter().try_for_each(check_disk)?;
        check_disks_apart(&self.disks)?;
        self.pmems.iter().try_for_each(|pmem| check_pmem(pmem, &self.disks))?;
        self.nets.iter().try_for_each(check_net)?;
        self.check_nets_apart()
    }

    fn check_processors_and_memory(&self) -> Result<(), ConfigError> {
        within(self.cpus, 1..=CPUS_MAX, ConfigError::Cpus)?;
        within(self.stop_timeout_s, 0..=STOP_TIMEOUT_S_MAX, ConfigError::StopTimeout)?;
        match self.memory {
            Bytes(0) => Err(ConfigError::NoMemory),
            memory if memory > MEMORY_MAX => Err(ConfigError::MemoryTooLarge(memory)),
            memory if memory.0 % PAGE_SIZE != 0 => Err(ConfigError::MemoryNotPages(memory)),
            memory => self.hotplug_memory.map_or(Ok(()), |hotplug| check_hotplug(memory, hotplug)),
        }
    }

    fn check_rules(&self) -> Result<(), ConfigError> {
        broken_rule(&Feature::of_config(self)).map_or(Ok(()), |rule| Err(ConfigError::Contradiction(rule)))
    }

    fn check_boot(&self) -> Result<(), ConfigError> {
        if self.initrd.is_some() && self.kernel.is_none() {
            return Err(ConfigError::InitrdWithoutKernel);
        }
        let cmdline = self.cmdline.as_deref().unwrap_or_default();
        if let Some(control) = cmdline.chars().find(|character| character.is_control()) {
            return Err(ConfigError::CmdlineControl(control));
        }
        match cmdline.len() {
            length if length > CMDLINE_BYTES_MAX => Err(ConfigError::CmdlineTooLong(length)),
            _ => Ok(()),
        }
    }

    /// Paths are there, fit where they must, and no two of those that the VM makes are the same.
    fn check_paths(&self) -> Result<(), ConfigError> {
        check_not_empty("--kernel", self.kernel.as_deref())?;
        check_not_empty("--initrd", self.initrd.as_deref())?;
        let console_log = self.console_log.as_deref().map(|path| ("--console-log", path));
        check_not_empty("--console-log", self.console_log.as_deref())?;
        let console = match &self.console {
            ConsoleConfig::File(path) => Some(("--console file", path.as_path())),
            ConsoleConfig::Socket(path) => Some(("--console socket", path.as_path())),
            ConsoleConfig::Stdio | ConsoleConfig::Off => None,
        };
        let api_socket = self.api_socket.as_deref().map(|path| ("--api-socket", path));
        let vsock = self.vsock.as_ref().map(|vsock| ("--vsock path", vsock.path.as_path()));
        for (flag, path) in [console, api_socket, vsock].into_iter().flatten() {
            check_not_empty(flag, Some(path))?;
        }
        if let ConsoleConfig::Socket(path) = &self.console {
            check_socket_path("--console socket", path, SOCKET_PATH_BYTES_MAX)?;
        }
        if let Some(path) = &self.api_socket {
            check_socket_path("--api-socket", path, SOCKET_PATH_BYTES_MAX)?;
        }
        if let Some(vsock) = &self.vsock {
            within(vsock.cid, VSOCK_CID_MIN..=VSOCK_CID_MAX, ConfigError::Cid)?;
            check_socket_path("--vsock path", &vsock.path, SOCKET_PATH_BYTES_MAX - VSOCK_PORT_BYTES_MAX)?;
        }
        check_apart(console, api_socket)?;
        check_apart(console, console_log)?;
        check_apart(console, vsock)?;
        check_apart(api_socket, vsock)
    }

    fn check_nets_apart(&self) -> Result<(), ConfigError> {
        for (index, net) in self.nets.iter().enumerate() {
            if self.nets[..index].iter().any(|other| other.tap == net.tap) {
                return Err(ConfigError::SameTap(net.tap.clone()));
            }
            let mac = self.mac_of(index);
            if let Some(mac) = mac
                && (0..index).any(|other| self.mac_of(other) == Some(mac))
            {
                return Err(ConfigError::SameMac(mac));
            }
        }
        Ok(())
    }
}

/// A VM's name is one path component, one word of a command line, and starts like neither a flag nor a
/// hidden file.
///
/// # Errors
/// [`ConfigError::Name`].
pub fn check_name(name: &str) -> Result<(), ConfigError> {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= NAME_BYTES_MAX && name.bytes().all(rest) {
        return Ok(());
    }
    Err(ConfigError::Name(name.to_owned()))
}

fn check_hotplug(memory: Bytes, hotplug: Bytes) -> Result<(), ConfigError> {
    match hotplug {
        Bytes(0) => Err(ConfigError::NoHotplugMemory),
        _ if memory.0.saturating_add(hotplug.0) > MEMORY_MAX.0 => {
            Err(ConfigError::HotplugTooLarge { memory, hotplug })
        }
        _ if !hotplug.0.is_multiple_of(hotplug_block(hotplug).0) => {
            Err(ConfigError::HotplugNotBlocks(hotplug))
        }
        _ => Ok(()),
    }
}

fn check_disk(disk: &DiskConfig) -> Result<(), ConfigError> {
    check_not_empty("--disk path", Some(&disk.path))?;
    check_queues("--disk", disk.queues)?;
    let fits = |serial: &str| {
        (1..=SERIAL_BYTES_MAX).contains(&serial.len())
            && serial.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    match &disk.serial {
        Some(serial) if !fits(serial) => Err(ConfigError::Serial(serial.clone())),
        _ => Ok(()),
    }
}

fn check_disks_apart(disks: &[DiskConfig]) -> Result<(), ConfigError> {
    for (index, disk) in disks.iter().enumerate() {
        let path = plain(&disk.path);
        let shared = |other: &DiskConfig| plain(&other.path) == path && !(other.readonly && disk.readonly);
        if disks[..index].iter().any(shared) {
            return Err(ConfigError::SameDisk(disk.path.display().to_string()));
        }
    }
    Ok(())
}

fn check_pmem(pmem: &PmemConfig, disks: &[DiskConfig]) -> Result<(), ConfigError> {
    check_not_empty("--pmem path", Some(&pmem.path))?;
    let path = plain(&pmem.path);
    match disks.iter().any(|disk| !disk.readonly && plain(&disk.path) == path) {
        true => Err(ConfigError::PmemIsDisk(pmem.path.display().to_string())),
        false => Ok(()),
    }
}

fn check_net(net: &NetConfig) -> Result<(), ConfigError> {
    let possible = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    let name = net.tap.as_str();
    let dots = name == "." || name == "..";
    if !(1..=TAP_BYTES_MAX).contains(&name.len()) || !name.bytes().all(possible) || dots {
        return Err(ConfigError::Tap(net.tap.clone()));
    }
    check_queues("--net", net.queues)?;
    match net.mac {
        Some(mac) if mac.is_multicast() => Err(ConfigError::Mac { mac, what: "a multicast address" }),
        Some(mac) if mac.is_zero() => Err(ConfigError::Mac { mac, what: "no address at all" }),
        _ => net.mtu.map_or(Ok(()), |mtu| within(mtu, MTU_MIN..=u16::MAX, ConfigError::Mtu)),
    }
}

fn check_queues(flag: &'static str, queues: Option<u16>) -> Result<(), ConfigError> {
    let error = |queues| ConfigError::Queues { flag, queues };
    queues.map_or(Ok(()), |queues| within(queues, 1..=QUEUES_MAX, error))
}

fn check_not_empty(flag: &'static str, path: Option<&Path>) -> Result<(), ConfigError> {
    match path {
        Some(path) if path.as_os_str().is_empty() => Err(ConfigError::EmptyPath { flag }),
        _ => Ok(()),
    }
}

fn check_socket_path(flag: &'static str, path: &Path, max: usize) -> Result<(), ConfigError> {
    match path.as_os_str().len() {
        length if length > max => Err(ConfigError::SocketPathTooLong { flag, length, max }),
        _ => Ok(()),
    }
}

fn check_apart(
    one: Option<(&'static str, &Path)>,
    other: Option<(&'static str, &Path)>,
) -> Result<(), ConfigError> {
    match (one, other) {
        (Some((one, path)), Some((other, same))) if plain(path) == plain(same) => {
            Err(ConfigError::SamePath { one, other, path: path.display().to_string() })
        }
        _ => Ok(()),
    }
}

fn within<T: PartialOrd + Copy>(
    value: T,
    range: RangeInclusive<T>,
    error: impl FnOnce(T) -> ConfigError,
) -> Result<(), ConfigError> {
    if range.contains(&value) { Ok(()) } else { Err(error(value)) }
}

/// The path without the `.` in it, so that `disk.img` and `./disk.img` are seen to be the same.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

fn next_block(size: Bytes) -> Bytes {
    Bytes(size.0.next_multiple_of(hotplug_block(size).0))
}

fn next_page(memory: Bytes) -> Bytes {
    Bytes(memory.0.next_multiple_of(PAGE_SIZE))
}

/// An address much like `mac` that a card may have.
fn unicast(mac: MacAddress) -> MacAddress {
    let mut bytes = mac.0;
    bytes[0] = (bytes[0] & !1) | 2;
    MacAddress(bytes)
}

//! From a tap's name to an attached tap, with an error for everything that can stand in the way.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use super::interface::{Interface, InterfaceName, Interfaces, control};
use super::request::HEADER_BYTES;
use super::tap::{Tap, TapQueue, set_header_bytes, set_offloads};
use crate::OpenError;

const TUN: &str = "/dev/net/tun";
/// Frames with a virtio header and without the kernel's own one.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// Offloads in the order in which older kernels learned them: the first set that is accepted counts.
const OFFLOADS: &[u32] = &[
    BASIC_OFFLOADS | libc::TUN_F_UFO | libc::TUN_F_USO4 | libc::TUN_F_USO6,
    BASIC_OFFLOADS | libc::TUN_F_UFO,
    BASIC_OFFLOADS,
    libc::TUN_F_CSUM,
];
const BASIC_OFFLOADS: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// How many queues a tap shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueCount {
    /// As the user said.
    Exactly(usize),
    /// As many as the tap can have, at most this.
    UpTo(usize),
}

/// Why a tap cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel's tun driver is not there.
    #[error("--net tap={tap}: this host has no {TUN}: load the driver with 'modprobe tun'")]
    NoDriver {
        /// Name of the tap.
        tap: String,
    },
    /// Only some users may open the driver.
    #[error("--net tap={tap}: no permission to open {TUN}: run as a user who may read and write it")]
    NoAccess {
        /// Name of the tap.
        tap: String,
    },
    /// Neither the capability nor a tap made for this user.
    #[error(
        "--net tap={tap}: no permission to {verb} it: run with CAP_NET_ADMIN, \
         or let root run 'ip tuntap add {tap} mode tap{multi_queue} user USER' first"
    )]
    NotPermitted {
        /// Name of the tap.
        tap: String,
        /// What was refused.
        verb: &'static str,
        /// What the command needs for several queues.
        multi_queue: &'static str,
    },
    /// No interface can be called so.
    #[error("--net tap={0:?} cannot be an interface: use 1 to 15 characters without blanks, '/', ':' or '%'")]
    Name(String),
    /// There is an interface of this name, of another kind.
    #[error(
        "--net tap={0}: this interface is not a tap: choose a name that is free, or that of a tap device"
    )]
    NotATap(String),
    /// The tap was made for one queue only.
    #[error(
        "--net tap={tap}: this tap has a single queue, not {queues}: use queues=1, \
         or make it with 'ip tuntap add {tap} mode tap multi_queue'"
    )]
    SingleQueue {
        /// Name of the tap.
        tap: String,
        /// How many were asked for.
        queues: usize,
    },
    /// Another process has it.
    #[error("--net tap={0}: another process uses this tap: stop that VM, or give this one a tap of its own")]
    Busy(String),
    /// The tap takes fewer bytes than the guest would be told.
    #[error(
        "--net tap={tap},mtu={mtu}: this tap has an MTU of {actual}: use mtu={actual}, \
         or run 'ip link set {tap} mtu {mtu}'"
    )]
    MtuAboveTap {
        /// Name of the tap.
        tap: String,
        /// What the guest would be told.
        mtu: u16,
        /// What the tap has.
        actual: u16,
    },
    /// No tap can have this MTU.
    #[error("--net tap={tap},mtu={mtu}: a tap cannot have this MTU: use 68 to 65521 bytes")]
    Mtu {
        /// Name of the tap.
        tap: String,
        /// What was asked for.
        mtu: u16,
    },
    /// The kernel failed at something that should have worked.
    #[error("--net tap={tap}: cannot {what}")]
    Host {
        /// Name of the tap.
        tap: String,
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl From<TapError> for OpenError {
    fn from(error: TapError) -> Self {
        let text = error.to_string();
        match error {
            TapError::Host { source, .. } => Self::Host { what: text, source },
            _ => Self::Input(text),
        }
    }
}

/// Opens the tap called `tap`, or makes it if there is none: with `mtu` if given, switched on, and gone with
/// its last descriptor.
///
/// # Errors
/// See [`TapError`]; a tap that was made for this is gone again.
pub fn open(tap: &str, count: QueueCount, mtu: Option<u16>) -> Result<Tap, TapError> {
    let name = InterfaceName::parse(tap).ok_or_else(|| TapError::Name(tap.to_owned()))?;
    let opening = Opening { tap, name, interfaces: Interfaces::new().map_err(host(tap, "make a socket"))? };
    opening.open(count, mtu)
}

struct Opening<'a> {
    tap: &'a str,
    name: InterfaceName,
    interfaces: Interfaces,
}

impl Opening<'_> {
    fn open(&self, count: QueueCount, mtu: Option<u16>) -> Result<Tap, TapError> {
        let existed = self.interfaces.exists(self.name);
        let (first, flags) = self.attach_first(count, existed)?;
        let is_multi_queue = flags & libc::IFF_MULTI_QUEUE != 0;
        let wanted = match count {
            QueueCount::Exactly(count) => count,
            QueueCount::UpTo(limit) if is_multi_queue => limit,
            QueueCount::UpTo(_) => 1,
        };
        let mut files = vec![first];
        while files.len() < wanted {
            files.push(self.attach(flags).map_err(|error| self.refused(error, existed, wanted))?);
        }
        // A single queue is busy by itself; several VMs on one multi-queue tap would take each other's frames.
        if is_multi_queue && self.interfaces.channels(self.name).is_some_and(|count| count > wanted) {
            return Err(TapError::Busy(self.tap.to_owned()));
        }
        let mtu = if existed { self.check_mtu(mtu)? } else { self.prepare(mtu)? };
        let offloads = offloads_of(&files[0]).map_err(self.host("set the offloads of the tap"))?;
        let queues = files.into_iter().map(TapQueue::new).collect::<io::Result<Vec<_>>>();
        Ok(Tap::new(queues.map_err(self.host("make an eventfd"))?, offloads, mtu))
    }

    /// Attaches the first queue, in the way in which the tap was made if it exists: the kernel refuses the
    /// other one with the error that an interface of another kind gives, too.
    fn attach_first(&self, count: QueueCount, existed: bool) -> Result<(File, i32), TapError> {
        let (QueueCount::Exactly(wanted) | QueueCount::UpTo(wanted)) = count;
        let single = (FLAGS, self.tap);
        let multi = (FLAGS | libc::IFF_MULTI_QUEUE, self.tap);
        let [(flags, _), (other, _)] = if wanted > 1 { [multi, single] } else { [single, multi] };
        match self.attach(flags) {
            Ok(file) => return Ok((file, flags)),
            Err(error) if existed && is(&error, libc::EINVAL) => {}
            Err(error) => return Err(self.refused(error, existed, wanted)),
        }
        let file = self.attach(other).map_err(|error| match error {
            error if is(&error, libc::EINVAL) => TapError::NotATap(self.tap.to_owned()),
            error => self.refused(error, existed, wanted),
        })?;
        match count {
            QueueCount::Exactly(queues) if queues > 1 => {
                Err(TapError::SingleQueue { tap: self.tap.to_owned(), queues })
            }
            _ => Ok((file, other)),
        }
    }

    fn attach(&self, flags: i32) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN)?;
        let mut request = Interface::named(self.name);
        request.set_flags(flags);
        control(&file, libc::TUNSETIFF, &mut request)?;
        set_header_bytes(&file, HEADER_BYTES as i32)?;
        Ok(file)
    }

    fn refused(&self, error: io::Error, existed: bool, queues: usize) -> TapError {
        let tap = self.tap.to_owned();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver { tap },
            Some(libc::EACCES) => TapError::NoAccess { tap },
            Some(libc::EPERM) => TapError::NotPermitted {
                tap,
                verb: if existed { "use" } else { "make" },
                multi_queue: if queues > 1 { " multi_queue" } else { "" },
            },
            Some(libc::EBUSY) => TapError::Busy(tap),
            _ => self.host("attach to the tap")(error),
        }
    }

    /// The tap belongs to somebody else, who chose its MTU.
    fn check_mtu(&self, wanted: Option<u16>) -> Result<u16, TapError> {
        let actual = self.mtu()?;
        match wanted {
            Some(mtu) if mtu > actual => Err(TapError::MtuAboveTap { tap: self.tap.to_owned(), mtu, actual }),
            _ => Ok(actual),
        }
    }

    fn prepare(&self, mtu: Option<u16>) -> Result<u16, TapError> {
        if let Some(mtu) = mtu {
            self.interfaces.set_mtu(self.name, mtu).map_err(|error| match error {
                error if is(&error, libc::EINVAL) => TapError::Mtu { tap: self.tap.to_owned(), mtu },
                error => self.host("set the MTU of the tap")(error),
            })?;
        }
        self.interfaces.set_up(self.name).map_err(self.host("switch the tap on"))?;
        self.mtu()
    }

    fn mtu(&self) -> Result<u16, TapError> {
        let mtu = self.interfaces.mtu(self.name).map_err(self.host("read the MTU of the tap"))?;
        Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    fn host(&self, what: &'static str) -> impl FnOnce(io::Error) -> TapError {
        host(self.tap, what)
    }
}

fn host(tap: &str, what: &'static str) -> impl FnOnce(io::Error) -> TapError + use<> {
    let tap = tap.to_owned();
    move |source| TapError::Host { tap, what, source }
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}

/// Finds out which offloads the kernel knows and leaves all of them off.
fn offloads_of(file: &File) -> io::Result<u32> {
    let known = OFFLOADS.iter().copied().find(|flags| set_offloads(file, *flags).is_ok());
    set_offloads(file, 0)?;
    Ok(known.unwrap_or(0))
}

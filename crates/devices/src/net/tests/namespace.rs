//! A network namespace for a test, and what a test does to it.
#![allow(unsafe_code)] // Namespaces and interfaces are made by system calls that no safe crate here wraps.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread;

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::net::interface::{Interface, InterfaceName, Interfaces, control};

/// `SIOCBRADDBR` and `SIOCBRADDIF`.
const ADD_BRIDGE: libc::Ioctl = 0x89a0;
const ADD_PORT: libc::Ioctl = 0x89a2;

/// `struct ifreq` with a socket address or an index in place of the union.
#[repr(C)]
struct Request<T> {
    name: [u8; 16],
    value: T,
    rest: [u8; 16],
}

/// Runs `test` in an empty network namespace, or says why it cannot.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making a network namespace needs root");
        return;
    }
    let result = thread::spawn(move || {
        // SAFETY: only the network namespace of this new thread changes; no descriptor is affected.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        // Otherwise the kernel greets its neighbours on a new tap with frames of its own. A kernel without
        // IPv6 has no such file.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        test();
    })
    .join();
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

fn name(name: &str) -> InterfaceName {
    InterfaceName::parse(name).unwrap()
}

pub fn exists(interface: &str) -> bool {
    Interfaces::new().unwrap().exists(name(interface))
}

pub fn mtu(interface: &str) -> i32 {
    Interfaces::new().unwrap().mtu(name(interface)).unwrap()
}

/// Makes a tap that outlives its descriptors; `flags` are added to those of a tap.
pub fn persistent_tap(tap: &str, flags: i32) {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = Interface::named(name(tap));
    request.set_flags(libc::IFF_TAP | libc::IFF_NO_PI | flags);
    control(&file, libc::TUNSETIFF, &mut request).unwrap();
    // SAFETY: TUNSETPERSIST takes its argument by value.
    assert_eq!(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1_u64) }, 0);
    Interfaces::new().unwrap().set_up(name(tap)).unwrap();
}

/// Joins interfaces into one Ethernet.
pub fn bridge(ports: &[&str]) {
    const BRIDGE: &str = "bridge";
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    let bridge = Interface::named(name(BRIDGE));
    // SAFETY: SIOCBRADDBR reads a name, with which an `ifreq` starts.
    let made = unsafe { libc::ioctl(socket.as_raw_fd(), ADD_BRIDGE, &raw const bridge) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    for port in ports {
        let index = rustix::net::netdevice::name_to_index(&socket, port).unwrap();
        request(&socket, ADD_PORT, BRIDGE, index);
    }
    Interfaces::new().unwrap().set_up(name(BRIDGE)).unwrap();
}

/// Gives `interface` an address of the network 10.0.0.0/8.
pub fn set_address(interface: &str, address: [u8; 4]) {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address) },
        sin_zero: [0; 8],
    };
    request(&socket, libc::SIOCSIFADDR as _, interface, address);
}

/// Removes an interface, even one that is in use.
pub fn remove(interface: &str) {
    // SAFETY: socket takes plain numbers.
    let netlink = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE) };
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let netlink = unsafe { OwnedFd::from_raw_fd(netlink) };
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    let index = rustix::net::netdevice::name_to_index(&any, interface).unwrap();
    // nlmsghdr (length, type, flags, sequence, port), then ifinfomsg (family, type, index, flags, change).
    let mut message = Vec::new();
    message.extend(32_u32.to_ne_bytes());
    message.extend(libc::RTM_DELLINK.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    rustix::io::write(&netlink, &message).unwrap();
    let mut answer = [0; 256];
    rustix::io::read(&netlink, &mut answer).unwrap();
    assert_eq!(answer[16..20], [0; 4], "the kernel refused to remove {interface}");
}

fn request<T>(socket: &OwnedFd, code: libc::Ioctl, interface: &str, value: T) {
    let mut request = Request { name: [0; 16], value, rest: [0; 16] };
    request.name[..interface.len()].copy_from_slice(interface.as_bytes());
    // SAFETY: the structure is at least as large as an `ifreq`, has its layout, and lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), code, &raw const request) };
    assert_eq!(result, 0, "{interface}: {}", std::io::Error::last_os_error());
}

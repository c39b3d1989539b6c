//! Workloads over the network card: what they share is the interface and the way to sleep.

pub mod echo;
pub mod ping;

use super::Ending;
use crate::failure::{CODE_BAD_INPUT, Failure};
use crate::machine::Machine;
use crate::virtio::net::Net;
use crate::{clock, stop, timer};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address};

/// The interface with the address of the command line.
fn interface(machine: &Machine, net: &mut Net) -> Result<Interface, Failure> {
    let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(net.mac())));
    config.random_seed = clock::now();
    let mut interface = Interface::new(config, net, now());
    let ([a, b, c, d], prefix) = machine.arguments.address;
    interface.update_ip_addrs(|addresses| {
        let network = IpCidr::new(Ipv4Address::new(a, b, c, d).into(), prefix);
        addresses.push(network).expect("the list of addresses has room for one");
    });
    if let Some([a, b, c, d]) = machine.arguments.gateway {
        interface
            .routes_mut()
            .add_default_ipv4_route(Ipv4Address::new(a, b, c, d))
            .map_err(|error| Failure::new(CODE_BAD_INPUT, format_args!("gateway: {error}")))?;
    }
    Ok(interface)
}

fn now() -> Instant {
    Instant::from_micros((clock::now() / 1000).cast_signed())
}

/// Sleeps until a frame comes, the interface has something to do, or `deadline_ns`. The timer runs only if there is
/// something to wait for.
fn sleep(net: &mut Net, interface: &mut Interface, sockets: &SocketSet, deadline_ns: Option<u64>) {
    let protocol =
        interface.poll_delay(now(), sockets).map(|delay| delay.total_micros().saturating_mul(1000));
    let deadline = deadline_ns.map(|deadline| deadline.saturating_sub(clock::now()));
    match protocol.into_iter().chain(deadline).min() {
        Some(0) => return,
        Some(ns) => timer::once(ns),
        None => timer::stop(),
    }
    if !stop::announced() {
        net.sleep();
    }
}

//! Everything the doctor looks at, gathered before anything is judged.

use std::io;

use napa_sys::host::{
    Capabilities, Cgroup, Device, HugePages, IoUringRule, Ksm, KvmModule, Memory, Mmu, OvercommitRule,
    Pressure, Processor, Root, Swap, ThpRule, Userfaultfd, swappiness, try_io_uring, zswap_enabled,
};

use napa_sys::ksm::{Leftovers, Registry, Stranger, strangers};
use napa_sys::mglru::{Mglru, MglruError};

use crate::features::{KvmError, Offer};

/// What is the case on a host.
#[derive(Debug)]
pub struct Facts {
    pub processor: Processor,
    pub module: Option<(KvmModule, Mmu)>,
    pub kvm: Result<Offer, KvmError>,
    pub io_uring: Result<(), io::Error>,
    pub io_uring_rule: IoUringRule,
    pub memory: Option<Memory>,
    pub overcommit: Option<OvercommitRule>,
    pub swaps: Vec<Swap>,
    /// `None`: the kernel has no zswap.
    pub zswap: Option<bool>,
    pub swappiness: Option<u32>,
    pub ksm: Option<Ksm>,
    /// Settings of KSM that a VM which was killed has left behind.
    pub ksm_leftovers: Option<Leftovers>,
    /// Processes that let the kernel merge their memory outside of any trust domain.
    pub ksm_strangers: Vec<Stranger>,
    pub ksm_settings: Device,
    pub thp: Option<ThpRule>,
    pub huge_pages: Vec<HugePages>,
    pub cgroup: Cgroup,
    pub pressure: Option<Pressure>,
    /// Whether the kernel tells how old pages are, or why not.
    pub mglru: Result<(), MglruError>,
    pub userfaultfd: Userfaultfd,
    pub tun: Device,
    pub vhost_net: Device,
    pub net_admin: bool,
}

impl Facts {
    /// Looks at this host.
    pub fn gather() -> Self {
        let root = &Root::system();
        Self {
            processor: Processor::read(root),
            module: KvmModule::read(root).map(|module| (module, module.mmu(root))),
            kvm: Offer::ask(),
            io_uring: try_io_uring(),
            io_uring_rule: IoUringRule::read(root),
            memory: Memory::read(root),
            overcommit: OvercommitRule::read(root),
            swaps: Swap::read(root),
            zswap: zswap_enabled(root),
            swappiness: swappiness(root),
            ksm: Ksm::read(root),
            ksm_leftovers: Registry::leftovers(root),
            ksm_strangers: strangers(root),
            ksm_settings: Device::ksm_settings(root),
            thp: ThpRule::read(root),
            huge_pages: HugePages::read(root),
            cgroup: Cgroup::read(root),
            pressure: Pressure::memory(root),
            mglru: Mglru::offered(root),
            userfaultfd: Userfaultfd::read(root),
            tun: Device::tun(root),
            vhost_net: Device::vhost_net(root),
            net_admin: Capabilities::read(root).net_admin(),
        }
    }
}

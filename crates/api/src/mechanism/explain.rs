//! Which mechanisms a VM has, and what stands in the way of the others.

use std::fmt;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use super::{Feature, RULES, Relation};
use crate::VmConfig;
use crate::config::{BalloonConfig, ShareConfig};
use crate::control::{MeansReport, ReclaimMechanism};

/// A way to get memory back from a VM, or to know how much it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Pages of zeros are given back.
    ZeroPages,
    /// Equal pages of the VM are merged.
    SharingWithin,
    /// Equal pages of the VMs of a trust domain are merged.
    SharingAcross,
    /// An image is mapped into many guests.
    Pmem,
    /// The guest says which pages are free.
    FreePageReporting,
    /// The guest gives memory up when it is asked.
    Balloon,
    /// The guest unplugs memory when it is asked.
    MemoryHotplug,
    /// The kernel takes memory of the VM's control group.
    CgroupReclaim,
    /// The VM's process gives pages to swap.
    PageOut,
    /// Swap in compressed memory.
    CompressedSwap,
    /// Swap on a disk.
    DiskSwap,
    /// The working set is found out by taking pages away.
    WorkingSetSampling,
}

/// Whether a VM has a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// It can be used now.
    Available,
    /// The VM's configuration has it off.
    Off,
    /// The host or the guest lacks something.
    Missing,
}

/// What is known of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// It runs guests without VT-x and SVM.
    pub is_pvm: bool,
    /// Swap areas: whether each is in compressed memory, and its size.
    pub swaps: Vec<(SwapMedium, Bytes)>,
    /// Pages on their way to a disk are kept compressed in memory first.
    pub has_zswap: bool,
}

/// Where a swap area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapMedium {
    /// Compressed memory.
    Compressed,
    /// A file or a block device.
    Disk,
}

/// What is known of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestFacts {
    /// Its driver has taken the balloon.
    pub drives_balloon: bool,
    /// Its driver has taken the memory that can be plugged.
    pub drives_hotplug: bool,
}

/// All mechanisms of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the VM.
    pub name: String,
    /// One each, in the order in which a host should use them.
    pub mechanisms: Vec<Finding>,
    /// What limits what here.
    pub limits: Vec<Limit>,
}

/// Whether the VM has one mechanism, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which.
    pub mechanism: Mechanism,
    /// Whether the VM has it.
    pub availability: Availability,
    /// Why, as a sentence.
    pub why: String,
    /// The flag or command that changes it. Empty where nothing has to be changed or nothing can.
    pub mend: String,
}

/// Two things that work together, one of them less well than alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The one that does less.
    pub feature: String,
    /// The other one.
    pub other: String,
    /// How that comes.
    pub because: String,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroPages => "zero pages",
            Self::SharingWithin => "sharing within the VM",
            Self::SharingAcross => "sharing with other VMs",
            Self::Pmem => "image in memory",
            Self::FreePageReporting => "free page reporting",
            Self::Balloon => "balloon",
            Self::MemoryHotplug => "memory hotplug",
            Self::CgroupReclaim => "reclaim by the kernel",
            Self::PageOut => "reclaim by the VM",
            Self::CompressedSwap => "compressed swap",
            Self::DiskSwap => "swap on disk",
            Self::WorkingSetSampling => "working set by sampling",
        })
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Available => "available",
            Self::Off => "off",
            Self::Missing => "missing",
        })
    }
}

/// Says which mechanisms the VM of this configuration has on this host, with the means that it found when it started,
/// and with this guest.
pub fn explain(config: &VmConfig, host: &HostFacts, means: &MeansReport, guest: GuestFacts) -> Explanation {
    let verdicts = [
        (Mechanism::ZeroPages, zero_pages(config, means)),
        (Mechanism::SharingWithin, sharing_within(config, means)),
        (Mechanism::SharingAcross, sharing_across(config, means)),
        (Mechanism::Pmem, pmem(config)),
        (Mechanism::FreePageReporting, reporting(config, guest)),
        (Mechanism::Balloon, balloon(config, guest)),
        (Mechanism::MemoryHotplug, hotplug(config, guest)),
        (Mechanism::CgroupReclaim, cgroup_reclaim(config, host, means)),
        (Mechanism::PageOut, page_out(config, host, means)),
        (Mechanism::CompressedSwap, compressed_swap(host)),
        (Mechanism::DiskSwap, disk_swap(host)),
        (Mechanism::WorkingSetSampling, sampling(config, host)),
    ];
    let finding = |(mechanism, Verdict(availability, why, mend)): (Mechanism, Verdict)| Finding {
        mechanism,
        availability,
        why,
        mend: mend.to_owned(),
    };
    Explanation {
        name: config.name_or_default().to_owned(),
        mechanisms: verdicts.into_iter().map(finding).collect(),
        limits: limits(config, host),
    }
}

/// Availability, why, and what mends it.
struct Verdict(Availability, String, &'static str);

fn available(why: impl Into<String>) -> Verdict {
    Verdict(Availability::Available, why.into(), "")
}

fn off(why: impl Into<String>, mend: &'static str) -> Verdict {
    Verdict(Availability::Off, why.into(), mend)
}

fn missing(why: impl Into<String>, mend: &'static str) -> Verdict {
    Verdict(Availability::Missing, why.into(), mend)
}

const NO_SWAP: &str = "the host has no swap";
const MAKE_SWAP: &str = "napa swap create --size SIZE";
const DRIVER: &str = "load the guest's driver virtio_balloon";

fn zero_pages(config: &VmConfig, means: &MeansReport) -> Verdict {
    match (config.share_or_default(), &means.no_zero_pages) {
        (ShareConfig::Off, _) => off("--share off", "start it with --share zero"),
        (_, Some(why)) => missing(why, "run the VM as root, on Linux 6.8 or newer"),
        (_, None) => available("given back when the VM has grown, and by 'napa share VM on'"),
    }
}

fn sharing_within(config: &VmConfig, means: &MeansReport) -> Verdict {
    match (config.share_or_default(), &means.no_merging) {
        (ShareConfig::Off, _) => off("--share off", "start it with --share vm"),
        (ShareConfig::Zero, _) => off("--share zero", "start it with --share vm"),
        (_, Some(why)) => missing(why, ""),
        (_, None) if config.share.is_some() => available("merging is asked for by --share"),
        (_, None) => {
            available("merging starts with 'napa share VM on': a host does it for one domain at a time")
        }
    }
}

fn sharing_across(config: &VmConfig, means: &MeansReport) -> Verdict {
    match (config.share_or_default(), &means.no_merging) {
        (ShareConfig::Domain(_), Some(why)) => missing(why, ""),
        (ShareConfig::Domain(name), None) => available(format!("with the VMs of trust domain {name}")),
        _ => off("the VM is in no trust domain", "start it with --share domain=NAME"),
    }
}

fn pmem(config: &VmConfig) -> Verdict {
    match config.pmems.len() {
        0 => off("no --pmem", "start it with --pmem path=IMAGE"),
        1 => available("one image"),
        count => available(format!("{count} images")),
    }
}

fn reporting(config: &VmConfig, guest: GuestFacts) -> Verdict {
    match (config.balloon, guest.drives_balloon) {
        (BalloonConfig::Off, _) => off("--balloon off", "start it with --balloon on"),
        (BalloonConfig::NoReporting, _) => off("--balloon no-reporting", "start it with --balloon on"),
        (BalloonConfig::On, true) => available("the guest's driver has taken the balloon"),
        (BalloonConfig::On, false) => missing("no driver of the guest has taken the balloon", DRIVER),
    }
}

fn balloon(config: &VmConfig, guest: GuestFacts) -> Verdict {
    match (config.balloon, guest.drives_balloon) {
        (BalloonConfig::Off, _) => off("--balloon off", "start it with --balloon on"),
        (_, true) => available("'napa balloon VM SIZE' asks the guest for memory"),
        (_, false) => missing("no driver of the guest has taken the balloon", DRIVER),
    }
}

fn hotplug(config: &VmConfig, guest: GuestFacts) -> Verdict {
    match (config.hotplug_memory, guest.drives_hotplug) {
        (None, _) => off("no --hotplug-memory", "start it with --hotplug-memory SIZE"),
        (Some(size), true) => available(format!("'napa plug VM SIZE' plugs up to {size}")),
        (Some(_), false) => missing(
            "no driver of the guest has taken the memory that can be plugged",
            "load the guest's driver virtio_mem",
        ),
    }
}

fn cgroup_reclaim(config: &VmConfig, host: &HostFacts, means: &MeansReport) -> Verdict {
    match (means.reclaim, &config.cgroup) {
        (ReclaimMechanism::ControlGroup, _) if host.swaps.is_empty() => missing(NO_SWAP, MAKE_SWAP),
        (ReclaimMechanism::ControlGroup, _) => available("'napa reclaim VM SIZE' by the VM's control group"),
        (ReclaimMechanism::PageOut, _) if host.is_pvm => {
            missing("this host's KVM has no VT-x or SVM below it: the VM gives pages up itself", "")
        }
        (ReclaimMechanism::PageOut, None) => {
            off("the VM has no control group of its own", "start it with --cgroup auto")
        }
        (ReclaimMechanism::PageOut, Some(_)) => missing(
            "the VM's control group has no memory.reclaim: the VM gives pages up itself",
            "enable the memory controller of version 2 for the group, on Linux 5.19 or newer",
        ),
    }
}

fn page_out(config: &VmConfig, host: &HostFacts, means: &MeansReport) -> Verdict {
    match (means.reclaim, host.swaps.is_empty(), config.swap_max) {
        (ReclaimMechanism::ControlGroup, ..) => off("the kernel does it, by the VM's control group", ""),
        (_, true, _) => missing(NO_SWAP, MAKE_SWAP),
        (_, false, Some(Bytes(0))) => off("--swap-max 0", "start it with another --swap-max"),
        (_, false, _) => available("'napa reclaim VM SIZE' puts cold pages into swap"),
    }
}

fn compressed_swap(host: &HostFacts) -> Verdict {
    match size_of(host, SwapMedium::Compressed) {
        _ if host.has_zswap && size_of(host, SwapMedium::Disk).is_some() => available("zswap"),
        Some(size) => available(format!("zram of {size}")),
        None => missing(
            "neither zram nor zswap stands in front of the disk",
            "napa swap create --size SIZE --compressed zram",
        ),
    }
}

fn disk_swap(host: &HostFacts) -> Verdict {
    match size_of(host, SwapMedium::Disk) {
        Some(size) => available(size.to_string()),
        None => missing("no swap area is on a disk", MAKE_SWAP),
    }
}

fn sampling(config: &VmConfig, host: &HostFacts) -> Verdict {
    match (host.swaps.is_empty(), config.swap_max) {
        (true, _) => missing(NO_SWAP, MAKE_SWAP),
        (false, Some(Bytes(0))) => off("--swap-max 0", "start it with another --swap-max"),
        (false, _) => {
            available("'napa inspect VM --working-set' takes a hundred pages and counts what comes back")
        }
    }
}

/// The size of all swap areas of a kind; `None` if there are none.
fn size_of(host: &HostFacts, medium: SwapMedium) -> Option<Bytes> {
    let sizes = host.swaps.iter().filter(|(found, _)| *found == medium).map(|(_, size)| size.0);
    sizes.reduce(u64::saturating_add).map(Bytes)
}

fn limits(config: &VmConfig, host: &HostFacts) -> Vec<Limit> {
    let features = [Feature::of_config(config), Feature::of_host(host)].concat();
    let applies = |feature: &Feature| features.contains(feature);
    RULES
        .iter()
        .filter(|rule| rule.relation == Relation::Limits && applies(&rule.feature) && applies(&rule.other))
        .map(|rule| Limit {
            feature: rule.feature.to_string(),
            other: rule.other.to_string(),
            because: rule.because.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &VmConfig, means: &MeansReport, mechanism: Mechanism) -> Finding {
        let all = explain(config, &rich_host(), means, DRIVEN).mechanisms;
        let mut found = all.into_iter().filter(|finding| finding.mechanism == mechanism);
        let finding = found.next().expect("every mechanism is explained");
        assert!(found.next().is_none(), "{mechanism} is explained once");
        finding
    }

    const DRIVEN: GuestFacts = GuestFacts { drives_balloon: true, drives_hotplug: true };

    fn rich_host() -> HostFacts {
        HostFacts {
            is_pvm: false,
            swaps: vec![(SwapMedium::Compressed, Bytes::gib(1)), (SwapMedium::Disk, Bytes::gib(4))],
            has_zswap: false,
        }
    }

    fn rich_config() -> VmConfig {
        VmConfig {
            share: Some(ShareConfig::Domain("web".into())),
            hotplug_memory: Some(Bytes::gib(1)),
            pmems: vec![crate::config::PmemConfig { path: "root.img".into() }],
            ..VmConfig::default()
        }
    }

    fn with(reclaim: ReclaimMechanism) -> MeansReport {
        MeansReport { no_zero_pages: None, no_merging: None, reclaim }
    }

    #[test]
    fn a_rich_vm_on_a_rich_host_has_everything_but_one_of_two_ways_to_reclaim() {
        for (reclaim, other) in [
            (ReclaimMechanism::PageOut, Mechanism::CgroupReclaim),
            (ReclaimMechanism::ControlGroup, Mechanism::PageOut),
        ] {
            for finding in explain(&rich_config(), &rich_host(), &with(reclaim), DRIVEN).mechanisms {
                let expected =
                    if finding.mechanism == other { Availability::Off } else { Availability::Available };
                assert_eq!(finding.availability, expected, "{finding:?}");
            }
        }
    }

    #[test]
    fn a_bare_host_lacks_things() {
        let means = MeansReport {
            no_zero_pages: Some("no way".into()),
            no_merging: Some("no KSM".into()),
            reclaim: ReclaimMechanism::PageOut,
        };
        let config = VmConfig { cgroup: Some("auto".parse().unwrap()), ..rich_config() };
        let explanation = explain(&config, &HostFacts::default(), &means, GuestFacts::default());
        for finding in explanation.mechanisms {
            let expected = match finding.mechanism {
                Mechanism::Pmem => Availability::Available,
                _ => Availability::Missing,
            };
            assert_eq!(finding.availability, expected, "{finding:?}");
            assert!(!finding.why.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn what_a_flag_switched_off_names_the_flag() {
        let check = |config: VmConfig, mechanism, why: &str| {
            let finding = found(&config, &with(ReclaimMechanism::PageOut), mechanism);
            assert_eq!((finding.availability, finding.why.as_str()), (Availability::Off, why), "{mechanism}");
        };
        let share = |share| VmConfig { share: Some(share), ..VmConfig::default() };
        let balloon = |balloon| VmConfig { balloon, ..VmConfig::default() };
        check(share(ShareConfig::Off), Mechanism::ZeroPages, "--share off");
        check(share(ShareConfig::Zero), Mechanism::SharingWithin, "--share zero");
        check(share(ShareConfig::Vm), Mechanism::SharingAcross, "the VM is in no trust domain");
        check(balloon(BalloonConfig::Off), Mechanism::Balloon, "--balloon off");
        check(balloon(BalloonConfig::NoReporting), Mechanism::FreePageReporting, "--balloon no-reporting");
        let no_swap = VmConfig { swap_max: Some(Bytes(0)), ..rich_config() };
        check(VmConfig::default(), Mechanism::MemoryHotplug, "no --hotplug-memory");
        check(no_swap.clone(), Mechanism::PageOut, "--swap-max 0");
        check(no_swap, Mechanism::WorkingSetSampling, "--swap-max 0");
    }

    #[test]
    fn limits_are_those_of_what_is_there() {
        let pairs = |config: &VmConfig, host: &HostFacts| -> Vec<(String, String)> {
            let limits = explain(config, host, &with(ReclaimMechanism::PageOut), DRIVEN).limits;
            limits.into_iter().map(|limit| (limit.feature, limit.other)).collect()
        };
        let quiet =
            VmConfig { share: Some(ShareConfig::Off), balloon: BalloonConfig::Off, ..VmConfig::default() };
        assert_eq!(pairs(&quiet, &rich_host()), []);
        let names = pairs(&VmConfig::default(), &rich_host());
        assert!(names.contains(&("--share vm or domain=NAME".into(), "--huge-pages".into())), "{names:?}");
        let pvm = HostFacts { is_pvm: true, ..rich_host() };
        let grouped = VmConfig { cgroup: Some("auto".parse().unwrap()), ..rich_config() };
        let names = pairs(&grouped, &pvm);
        assert!(names.iter().any(|(_, other)| other == "a host without VT-x and SVM"), "{names:?}");
    }
}

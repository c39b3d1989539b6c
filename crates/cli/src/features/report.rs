//! KVM's answers for people and for programs.

use kvm_bindings::{
    KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_IRQCHIP, KVM_CAP_SPLIT_IRQCHIP,
};
use napa_api::config::CPUS_MAX;
use napa_sys::host::{IoUringRule, KvmModule, Mmu, Root, Userfaultfd};
use napa_sys::mglru::{Mglru, MglruError};
use serde::Serialize;

use super::offer::Offer;
use super::paravirt::{FEATURES, unnamed};
use crate::output::Table;

/// Bytes of one entry of a dirty ring (`struct kvm_dirty_gfn`).
const DIRTY_RING_ENTRY_BYTES: u32 = 16;

/// What this host's KVM offers, as it is printed.
#[derive(Serialize)]
pub struct Report {
    kernel: Option<String>,
    module: Option<&'static str>,
    mmu: Option<&'static str>,
    mmu_means: &'static str,
    nested: bool,
    api_version: i32,
    /// What napa gives at most.
    vcpus_max: usize,
    /// What KVM would give.
    kvm_vcpus_max: usize,
    kvm_vcpus_recommended: usize,
    memory_slots_max: usize,
    irqchip: Vec<&'static str>,
    /// Entries of a dirty ring at most; 0 where there is none.
    dirty_ring_entries_max: u32,
    userfaultfd: &'static str,
    io_uring: &'static str,
    mglru: &'static str,
    capabilities: Vec<Line>,
    paravirt: Vec<Line>,
    /// Bits of EAX of CPUID leaf 0x4000_0001 that have no name in this release.
    paravirt_unnamed: u32,
}

/// A capability or a feature.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    offered: bool,
    value: u32,
    meaning: &'static str,
}

impl Report {
    pub fn new(offer: &Offer, root: &Root) -> Self {
        let module = KvmModule::read(root);
        let mmu = module.map(|module| module.mmu(root));
        let modes = [("full", KVM_CAP_IRQCHIP), ("split", KVM_CAP_SPLIT_IRQCHIP)];
        let ring = offer.answer(KVM_CAP_DIRTY_LOG_RING_ACQ_REL).max(offer.answer(KVM_CAP_DIRTY_LOG_RING));
        let capabilities = offer.capabilities.iter().map(|(capability, value)| Line {
            name: capability.name,
            offered: *value != 0,
            value: *value,
            meaning: capability.meaning,
        });
        let paravirt = FEATURES.iter().map(|feature| Line {
            name: feature.name,
            offered: feature.is_in(offer.paravirt),
            value: feature.bit,
            meaning: feature.meaning,
        });
        Self {
            kernel: root.kernel_release(),
            module: module.map(KvmModule::name),
            mmu: mmu.map(Mmu::name),
            mmu_means: mmu_means(mmu),
            nested: module.is_some_and(|module| module.nested(root)),
            api_version: offer.api_version,
            vcpus_max: offer.vcpus_max.min(CPUS_MAX as usize),
            kvm_vcpus_max: offer.vcpus_max,
            kvm_vcpus_recommended: offer.vcpus_recommended,
            memory_slots_max: offer.memory_slots_max,
            irqchip: modes.iter().filter(|(_, cap)| offer.answer(*cap) != 0).map(|(name, _)| *name).collect(),
            dirty_ring_entries_max: ring / DIRTY_RING_ENTRY_BYTES,
            userfaultfd: match Userfaultfd::read(root) {
                Userfaultfd::Absent => "absent",
                Userfaultfd::Denied => "denied",
                Userfaultfd::Usable => "usable",
            },
            io_uring: match IoUringRule::read(root) {
                IoUringRule::Everyone => "everyone",
                IoUringRule::Privileged => "privileged",
                IoUringRule::Nobody => "nobody",
            },
            mglru: match Mglru::offered(root) {
                Ok(()) => "usable",
                Err(MglruError::Absent) => "absent",
                Err(MglruError::Blind) => "blind to guests",
                Err(MglruError::Off) => "off",
                Err(_) => "without debugfs",
            },
            capabilities: capabilities.collect(),
            paravirt: paravirt.collect(),
            paravirt_unnamed: unnamed(offer.paravirt),
        }
    }

    /// The report for people.
    pub fn table(&self) -> String {
        let unknown = "unknown";
        let mut host = Table::new();
        host.row(["kernel", self.kernel.as_deref().unwrap_or(unknown)]);
        host.row(["module", self.module.unwrap_or(unknown)]);
        host.row(["mmu", &format!("{}: {}", self.mmu.unwrap_or(unknown), self.mmu_means)]);
        host.row(["nested guests", if self.nested { "yes" } else { "no" }]);
        host.row(["API version", &self.api_version.to_string()]);
        let vcpus = format!(
            "up to {} a VM (KVM: {}, recommended {})",
            self.vcpus_max, self.kvm_vcpus_max, self.kvm_vcpus_recommended
        );
        host.row(["vCPUs", &vcpus]);
        host.row(["memory slots", &self.memory_slots_max.to_string()]);
        host.row([
            "irqchip",
            &if self.irqchip.is_empty() { "none".to_owned() } else { self.irqchip.join(", ") },
        ]);
        let ring = match self.dirty_ring_entries_max {
            0 => "none".to_owned(),
            entries => format!("up to {entries} entries"),
        };
        host.row(["dirty ring", &ring]);
        host.row(["userfaultfd", self.userfaultfd]);
        host.row(["io_uring", self.io_uring]);
        host.row(["mglru", self.mglru]);
        let paravirt = lines(&self.paravirt, |_| String::new());
        let capabilities =
            lines(&self.capabilities, |value| if value > 1 { value.to_string() } else { String::new() });
        let rest = match self.paravirt_unnamed {
            0 => String::new(),
            bits => format!("      (and bits without a name here: {bits:#x})\n"),
        };
        format!(
            "{}\nWhat a guest can get (CPUID 0x40000001):\n{paravirt}{rest}\nWhat KVM can do:\n{capabilities}",
            host.finish()
        )
    }
}

fn lines(lines: &[Line], value: impl Fn(u32) -> String) -> String {
    let mut table = Table::new();
    for line in lines {
        let offered = if line.offered { "yes" } else { "no" };
        table.row([offered, line.name, &value(line.value), line.meaning]);
    }
    table.finish()
}

fn mmu_means(mmu: Option<Mmu>) -> &'static str {
    match mmu {
        Some(Mmu::Ept | Mmu::Npt) => "paging in hardware; every kernel runs at full speed",
        Some(Mmu::Shadow) => {
            "shadow page tables; every kernel runs, but each change of its page tables costs an exit"
        }
        Some(Mmu::Pvm) => {
            "no hardware virtualisation; kernels that run at CPL 3, as the embedded guest does, run at full speed, stock kernels do not run"
        }
        None => "KVM's vendor module shows no name",
    }
}

#[cfg(test)]
mod tests {
    use super::super::capabilities::CAPABILITIES;
    use super::*;

    fn offer() -> Offer {
        Offer {
            api_version: 12,
            vcpus_max: 1024,
            vcpus_recommended: 8,
            memory_slots_max: 509,
            capabilities: CAPABILITIES
                .iter()
                .map(|capability| (capability, u32::from(capability.required)))
                .collect(),
            paravirt: 1 << 3 | 1 << 31,
        }
    }

    #[test]
    fn what_is_offered_and_what_is_not_is_told_apart() {
        let report = Report::new(&offer(), &Root::at("/nonexistent"));
        assert_eq!(report.irqchip, ["full"]);
        assert_eq!((report.vcpus_max, report.dirty_ring_entries_max), (64, 0));
        assert_eq!(report.paravirt_unnamed, 1 << 31);
        let offered: Vec<_> =
            report.paravirt.iter().filter(|line| line.offered).map(|line| line.name).collect();
        assert_eq!(offered, ["clocksource2"]);
        let table = report.table();
        assert!(table.contains("yes  clocksource2"), "{table}");
        assert!(table.contains("no   SPLIT_IRQCHIP"), "{table}");
    }

    #[test]
    fn a_capability_that_napa_needs_is_missed() {
        let mut offer = offer();
        assert!(offer.missing().is_empty());
        offer.capabilities[3].1 = 0;
        assert_eq!(offer.missing(), [offer.capabilities[3].0.name]);
    }
}

//! KVM's paravirtual features: bits of EAX of CPUID leaf 0x4000_0001.

/// One feature (Documentation/virt/kvm/x86/cpuid.rst).
pub struct Feature {
    /// Its bit in EAX.
    pub bit: u32,
    /// Its name, as in the kernel's `KVM_FEATURE_` and in small letters.
    pub name: &'static str,
    /// What a guest gains by it.
    pub meaning: &'static str,
}

/// All features that have a name, by their bits.
pub const FEATURES: &[Feature] = &[
    feature(0, "clocksource", "a clock without exits, by its first pair of registers"),
    feature(1, "nop-io-delay", "no need to wait between port writes: there is no slow bus"),
    feature(2, "mmu-op", "page table changes by hypercall; given up by Linux, as hardware paging is faster"),
    feature(3, "clocksource2", "a clock without exits: time is read from a shared page and the TSC"),
    feature(4, "async-pf", "a task that touches a swapped page sleeps, and the vCPU runs another"),
    feature(5, "steal-time", "the guest learns how long its vCPUs waited for a processor"),
    feature(6, "pv-eoi", "most ends of interrupts are signalled without an exit"),
    feature(7, "pv-unhalt", "a vCPU that waits for a lock sleeps until the holder wakes it"),
    feature(
        9,
        "pv-tlb-flush",
        "no need to interrupt a vCPU that does not run: its TLB is flushed when it does",
    ),
    feature(10, "async-pf-vmexit", "the swapped-page notice reaches a guest that runs guests"),
    feature(11, "pv-send-ipi", "one hypercall interrupts many vCPUs"),
    feature(12, "poll-control", "a guest that polls before it sleeps can stop the host from doing the same"),
    feature(13, "pv-sched-yield", "a vCPU that waits for another one lets it run"),
    feature(14, "async-pf-int", "the page is here: told by an interrupt"),
    feature(15, "msi-ext-dest-id", "interrupts reach more than 255 vCPUs without an IOMMU"),
    feature(16, "hc-map-gpa-range", "the guest tells which pages are encrypted"),
    feature(17, "migration-control", "the guest can refuse to be migrated until it is ready"),
    feature(24, "clocksource-stable", "the clocks of all vCPUs agree: no need to compare them"),
];

const fn feature(bit: u32, name: &'static str, meaning: &'static str) -> Feature {
    Feature { bit, name, meaning }
}

impl Feature {
    /// Whether it is among the bits of `eax`.
    pub const fn is_in(&self, eax: u32) -> bool {
        eax >> self.bit & 1 != 0
    }
}

/// The bits of `eax` that have no name here.
pub fn unnamed(eax: u32) -> u32 {
    FEATURES.iter().fold(eax, |rest, feature| rest & !(1 << feature.bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_one_name_each_and_the_others_are_kept() {
        assert!(FEATURES.windows(2).all(|pair| pair[0].bit < pair[1].bit && pair[0].name != pair[1].name));
        assert_eq!(unnamed(0b1001 | 1 << 24 | 1 << 8 | 1 << 31), 1 << 8 | 1 << 31);
        assert!(FEATURES[3].is_in(0b1000) && !FEATURES[0].is_in(0b1000));
    }
}

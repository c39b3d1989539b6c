//! The capabilities of KVM that matter to napa, and what each is for.

use kvm_bindings::*;

/// One capability (KVM API §4.4).
#[derive(Debug)]
pub struct Capability {
    /// Its number in the interface.
    pub number: u32,
    /// Its name in the interface, without `KVM_CAP_`.
    pub name: &'static str,
    /// napa runs no VM without it.
    pub required: bool,
    /// What it is for.
    pub meaning: &'static str,
}

/// All of them, those that napa needs first.
pub const CAPABILITIES: &[Capability] = &[
    needed(KVM_CAP_USER_MEMORY, "USER_MEMORY", "guest memory is memory of the VM's process"),
    needed(KVM_CAP_IRQCHIP, "IRQCHIP", "interrupt controllers in the kernel"),
    needed(KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING", "routes from interrupts to vCPUs, MSI-X among them"),
    needed(KVM_CAP_IRQFD, "IRQFD", "devices interrupt a vCPU through a file descriptor, without an ioctl"),
    needed(
        KVM_CAP_IOEVENTFD,
        "IOEVENTFD",
        "a guest's doorbell wakes a device without an exit to the VM's process",
    ),
    needed(KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI", "message-signalled interrupts sent directly"),
    needed(KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", "a vCPU can be called out of the guest without a race"),
    needed(KVM_CAP_MP_STATE, "MP_STATE", "further vCPUs wait until the first one starts them"),
    wanted(
        KVM_CAP_SPLIT_IRQCHIP,
        "SPLIT_IRQCHIP",
        "only the local APICs in the kernel, the rest in the VM's process",
    ),
    wanted(KVM_CAP_READONLY_MEM, "READONLY_MEM", "read-only memory for firmware"),
    wanted(
        KVM_CAP_SYNC_MMU,
        "SYNC_MMU",
        "guest memory can be swapped, merged and reclaimed under a running guest",
    ),
    wanted(KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER", "the cheapest timer of a local APIC"),
    wanted(KVM_CAP_X2APIC_API, "X2APIC_API", "more than 255 vCPUs, and cheaper interrupts between them"),
    wanted(
        KVM_CAP_ADJUST_CLOCK,
        "ADJUST_CLOCK",
        "the guest's clock can be saved and set, for snapshot and migration",
    ),
    wanted(
        KVM_CAP_KVMCLOCK_CTRL,
        "KVMCLOCK_CTRL",
        "the guest is told that it was paused, so its watchdog keeps still",
    ),
    wanted(KVM_CAP_XSAVE2, "XSAVE2", "vector registers of any size are saved"),
    wanted(
        KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        "MANUAL_DIRTY_LOG_PROTECT2",
        "the log of written pages is cleared in small steps",
    ),
    wanted(
        KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
        "DIRTY_LOG_RING_ACQ_REL",
        "written pages are told one by one, at a cost that does not grow with the guest (bytes of a ring)",
    ),
    wanted(KVM_CAP_DIRTY_LOG_RING, "DIRTY_LOG_RING", "the same with the ordering of x86 (bytes of a ring)"),
    wanted(
        KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
        "ENFORCE_PV_FEATURE_CPUID",
        "a paravirtual feature that is hidden does not work either",
    ),
    wanted(
        KVM_CAP_X86_USER_SPACE_MSR,
        "X86_USER_SPACE_MSR",
        "the VM's process can answer for unknown registers",
    ),
    wanted(
        KVM_CAP_X86_DISABLE_EXITS,
        "X86_DISABLE_EXITS",
        "a guest with processors of its own can idle without exits (bits)",
    ),
    wanted(KVM_CAP_HALT_POLL, "HALT_POLL", "how long KVM waits for work before it sleeps, for each VM"),
    wanted(KVM_CAP_MEMORY_FAULT_INFO, "MEMORY_FAULT_INFO", "a fault that KVM cannot mend names its address"),
    wanted(KVM_CAP_PRE_FAULT_MEMORY, "PRE_FAULT_MEMORY", "guest memory can be mapped before it is touched"),
    wanted(KVM_CAP_GUEST_MEMFD, "GUEST_MEMFD", "guest memory that no process on the host can read"),
    wanted(KVM_CAP_NESTED_STATE, "NESTED_STATE", "guests that run guests can be saved (bytes of state)"),
];

const fn needed(number: u32, name: &'static str, meaning: &'static str) -> Capability {
    Capability { number, name, required: true, meaning }
}

const fn wanted(number: u32, name: &'static str, meaning: &'static str) -> Capability {
    Capability { number, name, required: false, meaning }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_is_listed_once() {
        for (index, capability) in CAPABILITIES.iter().enumerate() {
            let same =
                |other: &&Capability| other.number == capability.number || other.name == capability.name;
            assert!(CAPABILITIES[..index].iter().find(same).is_none(), "{}", capability.name);
        }
    }
}

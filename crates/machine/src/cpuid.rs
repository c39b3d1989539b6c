//! What CPUID tells the guest: the host's answer, with the VM's own topology and identity.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const LEAF_FEATURES: u32 = 0x1;
const LEAF_CACHES: u32 = 0x4;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
const LEAF_FREQUENCY: u32 = 0x4000_0010;
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_CACHES: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;

const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HYPER_THREADING: u32 = 1 << 28;

/// Bits of a guest-physical address where the host does not say (AMD64 APM vol. 3, E.4.7; Intel SDM vol. 2A, CPUID).
const ADDRESS_BITS_DEFAULT: u32 = 36;

/// Bits of a guest-physical address.
pub fn address_bits(supported: &CpuId) -> u32 {
    let sizes = supported.as_slice().iter().find(|entry| entry.function == LEAF_AMD_SIZES);
    sizes.map_or(ADDRESS_BITS_DEFAULT, |sizes| sizes.eax & 0xff)
}

/// CPUID of vCPU `id` of `cpus`: one socket, one thread a core. `tsc_khz`: frequency of the TSC, if known.
pub fn for_vcpu(supported: &CpuId, id: u32, cpus: u32, tsc_khz: Option<u32>) -> CpuId {
    let mut entries: Vec<kvm_cpuid_entry2> = supported.as_slice().to_vec();
    entries.retain(|entry| !matches!(entry.function, LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 | LEAF_FREQUENCY));
    for entry in &mut entries {
        adjust(entry, id, cpus, tsc_khz.is_some());
    }
    let has_v2 = supported.as_slice().iter().any(|entry| entry.function == LEAF_TOPOLOGY_V2);
    entries.extend(topology(LEAF_TOPOLOGY, id, cpus));
    if has_v2 {
        entries.extend(topology(LEAF_TOPOLOGY_V2, id, cpus));
    }
    if let Some(khz) = tsc_khz {
        // TSC and local APIC timer frequency in kHz; KVM's timer bus runs at 1 GHz.
        entries.push(kvm_cpuid_entry2 {
            function: LEAF_FREQUENCY,
            eax: khz,
            ebx: 1_000_000,
            ..Default::default()
        });
    }
    entries.sort_by_key(|entry| (entry.function, entry.index));
    CpuId::from_entries(&entries).expect("KVM's own table leaves room for five more leaves")
}

fn adjust(entry: &mut kvm_cpuid_entry2, id: u32, cpus: u32, has_frequency: bool) {
    match entry.function {
        LEAF_FEATURES => {
            entry.ebx = (entry.ebx & 0x0000_ffff) | cpus.min(255) << 16 | id << 24;
            entry.ecx |= ECX_TSC_DEADLINE | ECX_HYPERVISOR;
            entry.edx = set_if(entry.edx, EDX_HYPER_THREADING, cpus > 1);
        }
        // Cores of the package, and a cache to each core (Intel SDM vol. 2A, CPUID leaf 4).
        LEAF_CACHES if entry.eax & 0x1f != 0 => entry.eax = (entry.eax & 0x3fff) | (cpus.min(64) - 1) << 26,
        LEAF_HYPERVISOR if has_frequency => entry.eax = entry.eax.max(LEAF_FREQUENCY),
        LEAF_AMD_SIZES => entry.ecx = (entry.ecx & !0xf0ff) | (cpus - 1) | core_bits(cpus) << 12,
        LEAF_AMD_CACHES => entry.eax &= 0x3fff,
        LEAF_AMD_TOPOLOGY => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
        _ => {}
    }
}

/// Extended topology: a thread level of one, a core level of all (Intel SDM vol. 2A, CPUID leaf 0xB).
fn topology(function: u32, id: u32, cpus: u32) -> [kvm_cpuid_entry2; 3] {
    const SIGNIFICANT_INDEX: u32 = 1;
    const THREADS: u32 = 1;
    const CORES: u32 = 2;
    let level = |index: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
        function,
        index,
        flags: SIGNIFICANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: index | kind << 8,
        edx: id,
        ..Default::default()
    };
    [level(0, 0, 1, THREADS), level(1, core_bits(cpus), cpus, CORES), level(2, 0, 0, 0)]
}

/// Bits of an APIC id that number the cores.
fn core_bits(cpus: u32) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

const fn set_if(word: u32, bit: u32, condition: bool) -> u32 {
    if condition { word | bit } else { word & !bit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> CpuId {
        let leaf = |function| kvm_cpuid_entry2 { function, ..Default::default() };
        let mut caches = leaf(LEAF_CACHES);
        caches.eax = 0xffff_c121;
        CpuId::from_entries(&[leaf(0), leaf(1), caches, leaf(LEAF_HYPERVISOR), leaf(LEAF_AMD_SIZES)]).unwrap()
    }

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid.as_slice().iter().find(|entry| entry.function == function && entry.index == index).unwrap()
    }

    #[test]
    fn every_vcpu_finds_itself_in_one_socket() {
        let cpuid = for_vcpu(&supported(), 2, 3, Some(2_600_000));
        assert_eq!(leaf(&cpuid, 1, 0).ebx >> 16, 0x0203);
        assert_ne!(leaf(&cpuid, 1, 0).edx & EDX_HYPER_THREADING, 0);
        assert_eq!(leaf(&cpuid, LEAF_CACHES, 0).eax, 0x121 | 2 << 26);
        assert_eq!(leaf(&cpuid, LEAF_TOPOLOGY, 1).eax, 2, "three cores take two bits");
        assert_eq!(leaf(&cpuid, LEAF_TOPOLOGY, 1).ebx, 3);
        assert_eq!(leaf(&cpuid, LEAF_TOPOLOGY, 0).edx, 2);
        assert_eq!(leaf(&cpuid, LEAF_AMD_SIZES, 0).ecx, 2 | 2 << 12);
        assert_eq!(leaf(&cpuid, LEAF_FREQUENCY, 0).eax, 2_600_000);
        assert_eq!(leaf(&cpuid, LEAF_HYPERVISOR, 0).eax, LEAF_FREQUENCY);
    }

    /// A guest whose memory the host swaps loses a task for the time of the swap-in, not a vCPU, where KVM can tell it.
    #[test]
    fn what_kvm_says_of_its_own_features_reaches_the_guest() {
        let (async_page_faults, told_by_interrupt) = (1 << 4, 1 << 14);
        let mut own = kvm_cpuid_entry2 { function: LEAF_HYPERVISOR + 1, ..Default::default() };
        own.eax = async_page_faults | told_by_interrupt;
        let entries = [supported().as_slice(), &[own]].concat();
        let cpuid = for_vcpu(&CpuId::from_entries(&entries).unwrap(), 0, 1, Some(2_600_000));
        assert_eq!(leaf(&cpuid, LEAF_HYPERVISOR + 1, 0).eax, own.eax);
    }

    #[test]
    fn a_host_says_how_far_addresses_reach() {
        assert_eq!(address_bits(&CpuId::from_entries(&[]).unwrap()), ADDRESS_BITS_DEFAULT);
        let sizes = kvm_cpuid_entry2 { function: LEAF_AMD_SIZES, eax: 0x0010_3028, ..Default::default() };
        assert_eq!(address_bits(&CpuId::from_entries(&[sizes]).unwrap()), 40);
    }

    #[test]
    fn a_lone_vcpu_has_no_siblings() {
        let cpuid = for_vcpu(&supported(), 0, 1, None);
        assert_eq!(leaf(&cpuid, 1, 0).edx & EDX_HYPER_THREADING, 0);
        assert_eq!(leaf(&cpuid, LEAF_TOPOLOGY, 1).eax, 0);
        assert!(cpuid.as_slice().iter().all(|entry| entry.function != LEAF_FREQUENCY));
    }
}

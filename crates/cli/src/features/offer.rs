//! What KVM answers when it is asked.

use std::io;

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;

use super::capabilities::{CAPABILITIES, Capability};

/// Leaf of CPUID that holds KVM's paravirtual features (Documentation/virt/kvm/x86/cpuid.rst).
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;

/// What this host's KVM offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Version of the interface; every KVM since 2007 says 12 (KVM API §4.1).
    pub api_version: i32,
    /// vCPUs that KVM supports in one VM.
    pub vcpus_max: usize,
    /// vCPUs that KVM recommends at most.
    pub vcpus_recommended: usize,
    /// Memory slots of one VM.
    pub memory_slots_max: usize,
    /// What [`CAPABILITIES`] asks for, each with KVM's answer: 0 is no.
    pub capabilities: Vec<(&'static Capability, u32)>,
    /// EAX of the paravirtual features: what KVM can give a guest.
    pub paravirt: u32,
}

/// Why KVM did not answer.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no device node.
    #[error("there is no /dev/kvm: load KVM's module; 'napa doctor' says which")]
    Absent,
    /// This user may not open it.
    #[error(
        "this user may not open /dev/kvm: join the group that owns it (sudo usermod -aG kvm $USER), then log in again"
    )]
    Denied,
    /// It cannot be opened for another reason.
    #[error("cannot open /dev/kvm: {0}; 'napa doctor' looks for the cause")]
    Open(#[source] io::Error),
    /// A question was not answered.
    #[error("KVM does not tell its CPUID table: {0}; another kernel may do better")]
    Cpuid(#[source] io::Error),
}

impl Offer {
    /// Asks `/dev/kvm`.
    ///
    /// # Errors
    /// [`KvmError`]: KVM is not there, not for this user, or does not answer.
    pub fn ask() -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(|error| open_error(error.into()))?;
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|error| KvmError::Cpuid(error.into()))?;
        let features = cpuid.as_slice().iter().find(|entry| entry.function == LEAF_KVM_FEATURES);
        // A negative answer is an error; KVM does not offer then either.
        let answer = |number: u32| u32::try_from(kvm.check_extension_raw(number.into())).unwrap_or(0);
        Ok(Self {
            api_version: kvm.get_api_version(),
            vcpus_max: kvm.get_max_vcpus(),
            vcpus_recommended: kvm.get_nr_vcpus(),
            memory_slots_max: kvm.get_nr_memslots(),
            capabilities: CAPABILITIES
                .iter()
                .map(|capability| (capability, answer(capability.number)))
                .collect(),
            paravirt: features.map_or(0, |entry| entry.eax),
        })
    }

    /// KVM's answer about a capability; 0 is no.
    pub fn answer(&self, number: u32) -> u32 {
        let found = self.capabilities.iter().find(|(capability, _)| capability.number == number);
        found.map_or(0, |(_, answer)| *answer)
    }

    /// The names of the capabilities that napa cannot do without and that KVM does not offer.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing =
            self.capabilities.iter().filter(|(capability, answer)| capability.required && *answer == 0);
        missing.map(|(capability, _)| capability.name).collect()
    }
}

fn open_error(error: io::Error) -> KvmError {
    match error.kind() {
        io::ErrorKind::NotFound => KvmError::Absent,
        io::ErrorKind::PermissionDenied => KvmError::Denied,
        _ => KvmError::Open(error),
    }
}

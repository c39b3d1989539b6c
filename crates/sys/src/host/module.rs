//! Which of KVM's vendor modules runs, and how it translates guest addresses.

use super::Root;

/// KVM's vendor module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmModule {
    /// `kvm_intel`: VT-x.
    Intel,
    /// `kvm_amd`: SVM.
    Amd,
    /// `kvm_pvm`: no hardware virtualisation; ring 0 of a guest is emulated or paravirtual.
    Pvm,
}

/// How guest addresses become host addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mmu {
    /// Extended page tables: in hardware.
    Ept,
    /// Nested page tables: in hardware.
    Npt,
    /// KVM keeps shadow page tables; the guest's kernel runs in hardware.
    Shadow,
    /// KVM keeps shadow page tables, and the guest's kernel has no hardware to run in.
    Pvm,
}

/// What a processor has for virtualisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// VT-x.
    Vmx,
    /// SVM.
    Svm,
    /// Nothing, or switched off by the firmware.
    Plain,
}

impl Processor {
    /// Reads `/proc/cpuinfo`.
    pub fn read(root: &Root) -> Self {
        let text = root.text("proc/cpuinfo").unwrap_or_default();
        let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        let has = |flag| flags.split_whitespace().any(|word| word == flag);
        match (has("vmx"), has("svm")) {
            (true, _) => Self::Vmx,
            (false, true) => Self::Svm,
            (false, false) => Self::Plain,
        }
    }
}

impl KvmModule {
    /// The module that runs. `None`: none is loaded.
    pub fn read(root: &Root) -> Option<Self> {
        let loaded = |module: &Self| root.exists(&format!("sys/module/{}", module.name()));
        let processor = Processor::read(root);
        // A module built into the kernel has its folder even where it found no hardware to serve.
        let fits = |module: &Self| match module {
            Self::Pvm => true,
            Self::Intel => processor == Processor::Vmx,
            Self::Amd => processor == Processor::Svm,
        };
        let order = [Self::Pvm, Self::Intel, Self::Amd];
        let running = order.into_iter().find(|module| loaded(module) && fits(module));
        running.or_else(|| order.into_iter().find(loaded))
    }

    /// The module's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intel => "kvm_intel",
            Self::Amd => "kvm_amd",
            Self::Pvm => "kvm_pvm",
        }
    }

    /// How this module translates guest addresses.
    pub fn mmu(self, root: &Root) -> Mmu {
        let off = |parameter| {
            root.switch(&format!("sys/module/{}/parameters/{parameter}", self.name())) == Some(false)
        };
        match self {
            Self::Pvm => Mmu::Pvm,
            Self::Intel if off("ept") => Mmu::Shadow,
            Self::Intel => Mmu::Ept,
            Self::Amd if off("npt") => Mmu::Shadow,
            Self::Amd => Mmu::Npt,
        }
    }

    /// Whether guests may run guests of their own.
    pub fn nested(self, root: &Root) -> bool {
        root.switch(&format!("sys/module/{}/parameters/nested", self.name())) == Some(true)
    }
}

impl Mmu {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ept => "ept",
            Self::Npt => "npt",
            Self::Shadow => "shadow",
            Self::Pvm => "pvm",
        }
    }

    /// Whether a kernel that knows nothing of napa runs at full speed on it.
    pub const fn runs_stock_kernels(self) -> bool {
        !matches!(self, Self::Pvm)
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    fn check(files: &[(&str, &str)], expected: Option<(KvmModule, Mmu, bool)>) {
        let host = Fixture::new(files);
        let root = host.root();
        let found = KvmModule::read(&root).map(|module| (module, module.mmu(&root), module.nested(&root)));
        assert_eq!(found, expected, "{files:?}");
    }

    const VMX: (&str, &str) = ("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vmx sse\nflags\t: fpu\n");
    const SVM: (&str, &str) = ("proc/cpuinfo", "flags\t\t: fpu svm\n");
    const PLAIN: (&str, &str) = ("proc/cpuinfo", "flags\t\t: fpu vmxoff\n");

    #[test]
    fn the_module_and_its_parameters_decide() {
        let intel = |ept| ("sys/module/kvm_intel/parameters/ept", ept);
        let amd = |npt| ("sys/module/kvm_amd/parameters/npt", npt);
        let nested = ("sys/module/kvm_amd/parameters/nested", "1\n");
        check(&[VMX, intel("Y\n")], Some((KvmModule::Intel, Mmu::Ept, false)));
        check(&[VMX, intel("N\n")], Some((KvmModule::Intel, Mmu::Shadow, false)));
        check(&[SVM, amd("1\n"), nested], Some((KvmModule::Amd, Mmu::Npt, true)));
        check(&[SVM, amd("0\n")], Some((KvmModule::Amd, Mmu::Shadow, false)));
        check(&[PLAIN, ("sys/module/kvm_pvm/parameters/x", "")], Some((KvmModule::Pvm, Mmu::Pvm, false)));
        check(&[PLAIN], None);
        check(&[], None);
    }

    #[test]
    fn of_two_built_in_modules_the_one_with_hardware_runs() {
        let both = [("sys/module/kvm_intel/parameters/ept", "Y"), ("sys/module/kvm_amd/parameters/npt", "Y")];
        check(&[SVM, both[0], both[1]], Some((KvmModule::Amd, Mmu::Npt, false)));
        check(&[VMX, both[0], both[1]], Some((KvmModule::Intel, Mmu::Ept, false)));
    }
}

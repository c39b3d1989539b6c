//! Who may handle page faults in user space (userfaultfd(2)).

use super::{Capabilities, Device, Root};

/// Whether this process may handle the faults of a VM: those that KVM takes in the kernel too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Userfaultfd {
    /// The kernel has none.
    Absent,
    /// This process may not.
    Denied,
    /// It may.
    Usable,
}

impl Userfaultfd {
    /// Looks at the rule for everyone, at this process's privilege and at the device node.
    pub fn read(root: &Root) -> Self {
        let everyone = root.switch("proc/sys/vm/unprivileged_userfaultfd");
        let device = Device::userfaultfd(root);
        match (everyone, device) {
            (None, Device::Absent) => Self::Absent,
            (Some(true), _) | (_, Device::Usable) => Self::Usable,
            _ if Capabilities::read(root).sys_ptrace() => Self::Usable,
            _ => Self::Denied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn privilege_a_rule_or_a_device_node_opens_it() {
        let rule = |text| ("proc/sys/vm/unprivileged_userfaultfd", text);
        let node = ("dev/userfaultfd", "");
        let privilege = ("proc/self/status", "CapEff:\t0000000000080000\n");
        for (files, expected) in [
            (vec![], Userfaultfd::Absent),
            (vec![rule("0")], Userfaultfd::Denied),
            (vec![rule("1")], Userfaultfd::Usable),
            (vec![rule("0"), node], Userfaultfd::Usable),
            (vec![rule("0"), privilege], Userfaultfd::Usable),
        ] {
            assert_eq!(Userfaultfd::read(&Fixture::new(&files).root()), expected);
        }
    }
}

//! Device nodes that a VM may use.

use rustix::fs::{Access, access};

use super::Root;

/// A device node, as this user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// There is no such node: its module is not loaded.
    Absent,
    /// It is there, but this user may not read and write it.
    Denied,
    /// It can be opened.
    Usable,
}

impl Device {
    /// `/dev/kvm`.
    pub fn kvm(root: &Root) -> Self {
        Self::read(root, "dev/kvm")
    }

    /// `/dev/net/tun`: network cards of guests.
    pub fn tun(root: &Root) -> Self {
        Self::read(root, "dev/net/tun")
    }

    /// `/dev/vhost-net`: network cards of guests served by the kernel.
    pub fn vhost_net(root: &Root) -> Self {
        Self::read(root, "dev/vhost-net")
    }

    /// `/dev/userfaultfd`: page faults for users without privilege.
    pub fn userfaultfd(root: &Root) -> Self {
        Self::read(root, "dev/userfaultfd")
    }

    /// `/sys/kernel/mm/ksm/run`: the kernel's merging of equal pages.
    pub fn ksm_settings(root: &Root) -> Self {
        Self::read(root, "sys/kernel/mm/ksm/run")
    }

    fn read(root: &Root, path: &str) -> Self {
        match access(root.path(path), Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => Self::Usable,
            Err(_) if root.exists(path) => Self::Denied,
            Err(_) => Self::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn a_node_is_there_or_not() {
        let host = Fixture::new(&[("dev/kvm", "")]);
        assert_eq!(Device::kvm(&host.root()), Device::Usable);
        assert_eq!(Device::tun(&host.root()), Device::Absent);
    }
}

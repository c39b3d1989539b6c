//! What this process may do (capabilities(7)).

use super::Root;

/// The effective capabilities of this process, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    const NET_ADMIN: u32 = 12;
    const SYS_PTRACE: u32 = 19;
    const SYS_ADMIN: u32 = 21;

    /// Reads `/proc/self/status`; nothing is granted where it cannot be read.
    pub fn read(root: &Root) -> Self {
        let status = root.text("proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0))
    }

    /// May make and change network interfaces.
    pub const fn net_admin(self) -> bool {
        self.has(Self::NET_ADMIN)
    }

    /// May handle the page faults that the kernel takes on behalf of a process.
    pub const fn sys_ptrace(self) -> bool {
        self.has(Self::SYS_PTRACE)
    }

    /// May nearly everything.
    pub const fn sys_admin(self) -> bool {
        self.has(Self::SYS_ADMIN)
    }

    const fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn bits_are_read_from_the_status() {
        let host =
            Fixture::new(&[("proc/self/status", "Name:\tx\nCapPrm:\tff\nCapEff:\t0000000000081000\n")]);
        let found = Capabilities::read(&host.root());
        assert_eq!((found.net_admin(), found.sys_ptrace(), found.sys_admin()), (true, true, false));
        assert_eq!(Capabilities::read(&Fixture::new(&[]).root()), Capabilities(0));
    }
}

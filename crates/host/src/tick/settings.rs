//! What the host's owner decides.

use napa_units::Bytes;

/// What a host keeps for itself, if nobody says how much: so much, and a part of its RAM.
const RESERVE: (Bytes, u64) = (Bytes::mib(256), 32);

/// How much RAM the VMs may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// So much. `None`: all that the host does not keep for itself.
    pub budget: Option<Bytes>,
    /// What the host keeps for itself. `None`: 256 MiB and a 32nd of its RAM.
    pub reserve: Option<Bytes>,
}

impl Settings {
    /// What VMs may hold of so much RAM.
    pub fn capacity(&self, ram: Bytes) -> Bytes {
        let reserve = self.reserve.unwrap_or(Bytes(RESERVE.0.0 + ram.0 / RESERVE.1));
        let rest = Bytes(ram.0.saturating_sub(reserve.0));
        self.budget.map_or(rest, |budget| budget.min(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_more_than_what_the_host_can_spare() {
        let mib = |size| Some(Bytes::mib(size));
        for (budget, reserve, expected) in [
            (None, None, 8192 - 512),
            (None, mib(1024), 7168),
            (mib(2048), None, 2048),
            (mib(9000), mib(192), 8000),
            (None, mib(9000), 0),
        ] {
            assert_eq!(Settings { budget, reserve }.capacity(Bytes::gib(8)), Bytes::mib(expected));
        }
    }
}

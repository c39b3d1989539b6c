//! All that is read about the host itself.

use std::time::Duration;

use napa_sys::host::Root;

use super::{HostSharing, Kept, Meminfo, Meter, SensorError, Shares, Stalls, SwapState};

/// The sensors of a host.
#[derive(Debug)]
pub struct HostSensors {
    root: Root,
    memory: Kept<Meminfo>,
    swap: Kept<SwapState>,
    sharing: Kept<Option<HostSharing>>,
    stalls: Kept<Option<Stalls>>,
    meter: Meter,
}

/// A host at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostState {
    /// Its memory.
    pub memory: Meminfo,
    /// Where it swaps to.
    pub swap: SwapState,
    /// What merging saves. `None`: the kernel has no KSM.
    pub sharing: Option<HostSharing>,
    /// Time lost since the last reading. `None`: the kernel does not measure it.
    pub pressure: Option<Shares>,
}

impl HostSensors {
    /// The sensors of the host at `root`; nothing is read yet.
    pub fn new(root: &Root) -> Self {
        Self {
            root: root.clone(),
            memory: Kept::default(),
            swap: Kept::default(),
            sharing: Kept::default(),
            stalls: Kept::default(),
            meter: Meter::default(),
        }
    }

    /// Reads them all. `None`: the host has never said how much memory it has.
    pub fn read(&mut self, now: Duration) -> Option<HostState> {
        self.memory.note(Meminfo::read(&self.root), now);
        self.swap.note(SwapState::read(&self.root), now);
        self.sharing.note(HostSharing::read(&self.root), now);
        self.stalls.note(stalls(&self.root), now);
        let pressure = match (self.stalls.is_stale(), self.stalls.value().copied().flatten()) {
            // Old sums would say that nothing waits any more.
            (true, _) | (_, None) => None,
            (false, Some(stalls)) => Some(self.meter.shares(stalls, now)),
        };
        Some(HostState {
            memory: *self.memory.value()?,
            swap: self.swap.value().copied().unwrap_or_default(),
            sharing: self.sharing.value().copied().flatten(),
            pressure,
        })
    }

    /// What is wrong with the last readings.
    pub fn troubles(&self) -> impl Iterator<Item = &SensorError> {
        let found =
            [self.memory.trouble(), self.swap.trouble(), self.sharing.trouble(), self.stalls.trouble()];
        found.into_iter().flatten()
    }
}

/// Sums of the host's pressure. `None`: the kernel does not measure it.
fn stalls(root: &Root) -> Result<Option<Stalls>, SensorError> {
    match Stalls::read(&root.as_ref().join("proc/pressure/memory")) {
        Ok(stalls) => Ok(Some(stalls)),
        Err(error) if error.is_gone() => Ok(None),
        Err(SensorError::Unreadable { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use napa_units::Bytes;

    use super::*;
    use crate::fixture::Fixture;

    const MEMINFO: &str =
        "MemTotal: 2048 kB\nMemFree: 512 kB\nMemAvailable: 1024 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";

    fn pressure(total: u64) -> String {
        ["some", "full"]
            .map(|kind| format!("{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n"))
            .concat()
    }

    #[test]
    fn what_was_good_stays_in_use_while_a_file_holds_nonsense() {
        let host =
            Fixture::new(&[("proc/meminfo", "MemTotal: none"), ("proc/pressure/memory", &pressure(0))]);
        let mut sensors = HostSensors::new(&host.root());
        let second = Duration::from_secs;
        assert_eq!(sensors.read(second(1)), None);
        host.write("proc/meminfo", MEMINFO);
        host.write("proc/pressure/memory", &pressure(500_000));
        let state = sensors.read(second(2)).unwrap();
        assert_eq!((state.memory.total, state.pressure.unwrap().some), (Bytes::mib(2), 0.5));
        assert_eq!(sensors.troubles().count(), 0);
        host.write("proc/meminfo", "Mem");
        host.write("proc/pressure/memory", "nonsense");
        let state = sensors.read(second(3)).unwrap();
        assert_eq!((state.memory.total, state.pressure), (Bytes::mib(2), None));
        let troubles: Vec<String> = sensors.troubles().map(ToString::to_string).collect();
        assert!(troubles.len() == 2 && troubles[0].contains("meminfo") && troubles[1].contains("pressure"));
    }

    #[test]
    fn a_host_without_ksm_swap_and_pressure_is_a_host() {
        let host = Fixture::new(&[("proc/meminfo", MEMINFO)]);
        let mut sensors = HostSensors::new(&host.root());
        let state = sensors.read(Duration::ZERO).unwrap();
        assert_eq!((state.sharing, state.pressure, state.swap), (None, None, SwapState::default()));
        assert_eq!(sensors.troubles().count(), 0);
    }
}

//! What the kernel says about one VM, and what follows for its guest.

use std::time::Duration;

use napa_policy::{Fraction, GuestHints, GuestObservation, Pressure, WorkingSet};
use napa_sys::host::Root;
use napa_units::{Bytes, Pages};

use super::Subject;
use crate::sensors::{
    GroupSensor, GroupState, Kept, Meter, ProcessSensor, ProcessSharing, Rollup, SensorError, Shares, Statm,
    Usage,
};

/// Memory of a VM's process that is neither the guest's nor a file's, as measured: its heap, stacks and rings.
pub const OWN_MEMORY: Bytes = Bytes::mib(2);

/// The sensors of one VM, with their last values.
#[derive(Debug)]
pub struct Readings {
    process: Result<ProcessSensor, SensorError>,
    group: Option<GroupSensor>,
    statm: Kept<Statm>,
    usage: Kept<Usage>,
    rollup: Kept<Rollup>,
    sharing: Kept<ProcessSharing>,
    state: Kept<GroupState>,
    meter: Meter,
    pressure: Shares,
    refaults: Counter,
}

/// A count that only grows, as a rate.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    last: Option<(u64, Duration)>,
    per_second: f64,
}

impl Counter {
    fn note(&mut self, count: u64, now: Duration) {
        if let Some((before, then)) = self.last.replace((count, now)) {
            let elapsed = now.saturating_sub(then).as_secs_f64();
            if elapsed > 0.0 {
                self.per_second = count.saturating_sub(before) as f64 / elapsed;
            }
        }
    }
}

/// What others have said about the guest.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// In the balloon, by the VM's own count.
    pub ballooned: Bytes,
    /// What the guest says, if it does.
    pub hints: Option<GuestHints>,
    /// The last estimate of what it uses.
    pub working_set: Option<WorkingSet>,
}

impl Readings {
    /// Opens the sensors of a VM; nothing is read yet.
    pub fn open(root: &Root, subject: &Subject) -> Self {
        Self {
            process: ProcessSensor::open(root, subject.pid),
            group: subject.group.as_deref().map(GroupSensor::new),
            statm: Kept::default(),
            usage: Kept::default(),
            rollup: Kept::default(),
            sharing: Kept::default(),
            state: Kept::default(),
            meter: Meter::default(),
            pressure: Shares::default(),
            refaults: Counter::default(),
        }
    }

    /// Reads the resident size, which is cheap.
    pub fn glance(&mut self, now: Duration) {
        if let Ok(process) = &self.process {
            self.statm.note(process.statm(), now);
        }
    }

    /// Reads what is in swap, which costs a little more.
    pub fn look(&mut self, now: Duration) {
        if let Ok(process) = &self.process {
            self.usage.note(process.usage(), now);
        }
        if let (Some(usage), None) = (self.usage.value(), self.group_refaults()) {
            self.refaults.note(usage.major_faults, now);
        }
    }

    /// Reads the rest, which is dear: the kernel walks page tables and sums up what its processors count each.
    pub fn study(&mut self, now: Duration) {
        if let Ok(process) = &self.process {
            self.rollup.note(process.rollup(), now);
            self.sharing.note(process.sharing(), now);
        }
        let Some(group) = &self.group else { return };
        self.state.note(group.read(), now);
        if self.state.is_stale() {
            return;
        }
        if let Some(stalls) = self.state.value().and_then(|state| state.memory_stalls) {
            self.pressure = self.meter.shares(stalls, now);
        }
        if let Some(refaults) = self.group_refaults() {
            self.refaults.note(refaults, now);
        }
    }

    /// How much a study would tell: what has changed since the last one, in mebibytes, and how long that was ago.
    pub fn curiosity(&self, now: Duration) -> f64 {
        let (Some(statm), Some(rollup)) = (self.statm.value(), self.rollup.value()) else {
            return f64::INFINITY;
        };
        let changed = statm.resident.0.abs_diff(rollup.resident.0) >> 20;
        changed as f64 + self.rollup.age(now).as_secs_f64()
    }

    /// Whether the VM's process has ended.
    pub fn is_gone(&self) -> bool {
        match &self.process {
            Ok(_) => self.statm.trouble().is_some_and(SensorError::is_gone),
            Err(error) => error.is_gone(),
        }
    }

    /// What is wrong with the last readings.
    pub fn troubles(&self) -> impl Iterator<Item = &SensorError> {
        let found = [
            self.process.as_ref().err(),
            self.statm.trouble(),
            self.usage.trouble(),
            self.rollup.trouble(),
            self.sharing.trouble(),
            self.state.trouble(),
        ];
        found.into_iter().flatten()
    }

    /// The size of the process in RAM, each page counted whole.
    pub fn resident_of_process(&self) -> Bytes {
        self.statm.value().map_or(Bytes(0), |statm| statm.resident)
    }

    /// What the process holds in RAM, its part of shared pages counted in proportion. What was shared at the last study
    /// is taken to be shared still.
    pub fn held(&self) -> Bytes {
        let resident = self.resident_of_process();
        let shared = self.rollup.value().map_or(0, |rollup| rollup.resident.0 - rollup.proportional.0);
        Bytes(resident.0.saturating_sub(shared))
    }

    /// Waiting for memory, of the VM's control group. `None`: it has none, or the kernel does not measure it.
    pub fn pressure(&self) -> Option<Shares> {
        self.state.value()?.memory_stalls.map(|_| self.pressure)
    }

    /// Pages that came back from swap, in a second.
    pub const fn refaults_per_second(&self) -> f64 {
        self.refaults.per_second
    }

    /// What is known about the guest, with what others have said.
    pub fn observe(&self, subject: &Subject, said: Said) -> GuestObservation {
        let statm = self.statm.value().copied().unwrap_or_default();
        let anonymous = statm.resident.0.saturating_sub(statm.files.0);
        let mut left = subject.limit.0;
        let mut take = |size: u64| {
            let part = size.min(left);
            left -= part;
            Bytes(part)
        };
        let resident = take(anonymous.saturating_sub(OWN_MEMORY.0));
        let swapped = take(self.usage.value().map_or(0, |usage| usage.swapped.0));
        let ballooned = take(said.ballooned.0);
        let shared = self.sharing.value().and_then(|sharing| sharing.merged).unwrap_or_default();
        let files =
            self.rollup.value().map_or(statm.files.0, |rollup| rollup.proportional.0 - rollup.anonymous.0);
        let pressure = self.pressure().unwrap_or_default();
        GuestObservation {
            id: subject.id,
            limit: subject.limit,
            reservation: subject.reservation,
            shares: subject.shares,
            overhead: Bytes(files.saturating_add(OWN_MEMORY.0)),
            held: self.held(),
            resident,
            shared: shared.min(resident),
            swapped,
            zero: Bytes(left),
            ballooned,
            working_set: said.working_set,
            refaults: Pages(self.refaults.per_second as u64),
            pressure: Pressure { some: Fraction::new(pressure.some), full: Fraction::new(pressure.full) },
            hints: said.hints,
        }
    }

    fn group_refaults(&self) -> Option<u64> {
        self.state.value()?.refaults
    }
}

#[cfg(test)]
mod tests {
    use napa_api::config::ShareConfig;
    use napa_units::{Shares as VmShares, VmId};

    use super::*;
    use crate::fixture::Fixture;

    fn subject(host: &Fixture) -> Subject {
        Subject {
            id: VmId(3),
            name: "web".into(),
            pid: 7,
            socket: "socket".into(),
            group: Some(host.path("group")),
            limit: Bytes::mib(64),
            reservation: Bytes::mib(8),
            shares: VmShares(200),
            share: ShareConfig::Vm,
        }
    }

    fn pages(mib: u64) -> u64 {
        Pages::covering(Bytes::mib(mib)).0
    }

    /// A VM whose process has 20 MiB of its program and 32 MiB of other memory, 10 MiB in swap, and shares a quarter.
    fn host() -> Fixture {
        let host = Fixture::new(&[
            ("proc/7/stat", "7 (napa) S 1 7 7 0 -1 4194304 1704 0 33 0 12 3 0 0 20 0 9 0 100 999 50\n"),
            ("proc/7/status", "VmSwap: 10240 kB\n"),
            ("proc/7/smaps_rollup", "Rss: 53248 kB\nPss: 39936 kB\nPss_Anon: 29696 kB\n"),
            ("proc/7/ksm_stat", "ksm_merging_pages 1024\n"),
            ("group/cgroup.procs", "7\n"),
            ("group/memory.pressure", "some avg10=0 total=0\nfull avg10=0 total=0\n"),
        ]);
        host.write("proc/7/statm", &format!("{} {} {} 0 0 0 0\n", pages(500), pages(52), pages(20)));
        host
    }

    fn read(readings: &mut Readings, second: u64) {
        let now = Duration::from_secs(second);
        readings.glance(now);
        readings.look(now);
        readings.study(now);
    }

    #[test]
    fn every_page_of_the_guest_counts_once() {
        let host = host();
        let mut readings = Readings::open(&host.root(), &subject(&host));
        read(&mut readings, 1);
        host.write("group/memory.pressure", "some avg10=0 total=500000\nfull avg10=0 total=100000\n");
        host.write("proc/7/stat", "7 (napa) S 1 7 7 0 -1 4194304 1704 0 53 0 12 3 0 0 20 0 9 0 100 999 50\n");
        read(&mut readings, 3);
        assert_eq!(readings.troubles().count(), 0);
        let said = Said { ballooned: Bytes::mib(12), ..Said::default() };
        let guest = readings.observe(&subject(&host), said);
        let mib = Bytes::mib;
        assert_eq!(
            (guest.resident, guest.swapped, guest.ballooned, guest.zero),
            (mib(30), mib(10), mib(12), mib(12))
        );
        assert_eq!((guest.held, guest.overhead, guest.shared), (mib(39), mib(12), mib(4)));
        assert_eq!((guest.pressure.some.get(), guest.refaults), (0.25, Pages(10)));
        // More than there is counts as all there is.
        let guest = readings.observe(&subject(&host), Said { ballooned: Bytes::gib(4), ..Said::default() });
        assert_eq!((guest.ballooned, guest.zero), (mib(24), mib(0)));
    }

    #[test]
    fn sharing_is_taken_to_last_until_the_next_study() {
        let host = host();
        let mut readings = Readings::open(&host.root(), &subject(&host));
        read(&mut readings, 1);
        host.write("proc/7/statm", &format!("{} {} {} 0 0 0 0\n", pages(500), pages(62), pages(20)));
        readings.glance(Duration::from_secs(2));
        assert_eq!(readings.held(), Bytes::mib(49));
        assert_eq!(readings.curiosity(Duration::from_secs(2)), 11.0);
    }

    #[test]
    fn nonsense_and_a_group_that_vanished_are_troubles_and_the_last_figures_stay() {
        let host = host();
        let mut readings = Readings::open(&host.root(), &subject(&host));
        read(&mut readings, 1);
        let before = readings.observe(&subject(&host), Said::default());
        host.write("proc/7/statm", "-5 x");
        host.write("proc/7/smaps_rollup", "Rss: NaN kB");
        host.remove("group");
        read(&mut readings, 2);
        assert!(!readings.is_gone());
        assert_eq!(readings.observe(&subject(&host), Said::default()), before);
        let troubles: Vec<String> = readings.troubles().map(ToString::to_string).collect();
        assert!(troubles.len() == 3 && troubles[2].ends_with("group/cgroup.procs is gone"), "{troubles:?}");
    }

    #[test]
    fn a_process_that_ended_is_gone() {
        let host = host();
        let mut readings = Readings::open(&host.root(), &subject(&host));
        read(&mut readings, 1);
        host.write("proc/7/statm", "0 0 0 0 0 0 0\n");
        readings.glance(Duration::from_secs(2));
        assert!(readings.is_gone());
        host.remove("proc/7");
        assert!(Readings::open(&host.root(), &subject(&host)).is_gone());
    }
}

//! A VM's control group (Documentation/admin-guide/cgroup-v2.rst).

use std::path::{Path, PathBuf};

use napa_units::Bytes;

use super::text::{Text, if_there};
use super::{SensorError, Stalls};

/// The files of one group.
#[derive(Clone, Debug)]
pub struct GroupSensor {
    folder: PathBuf,
}

/// A group at one moment. Counts are since the group was made. `None`: the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Memory charged to it, the kernel's own for it included. `None`: the memory controller does not look after it.
    pub current: Option<Bytes>,
    /// What it has in swap.
    pub swapped: Option<Bytes>,
    /// Anonymous pages that came back from swap soon after they went.
    pub refaults: Option<u64>,
    /// Processes that were killed for want of memory.
    pub kills: Option<u64>,
    /// Time lost for want of memory.
    pub memory_stalls: Option<Stalls>,
    /// Time lost waiting for disks.
    pub io_stalls: Option<Stalls>,
}

impl GroupSensor {
    /// The group with this folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Reads all that this kernel has.
    ///
    /// # Errors
    /// The group is gone, or a file is not as the kernel writes it.
    pub fn read(&self) -> Result<GroupState, SensorError> {
        let file = |name: &str| if_there(Text::read(&self.folder.join(name)));
        // Every group has this file, whatever looks after it.
        Text::read(&self.folder.join("cgroup.procs"))?;
        let size = |name: &str| file(name)?.map(|text| text.whole().map(Bytes)).transpose();
        let entry = |name: &str, entry: &str| match file(name)? {
            Some(text) => text.number(entry),
            None => Ok(None),
        };
        let stalls = |name: &str| match file(name) {
            Ok(text) => text.as_ref().map(Stalls::of).transpose(),
            // A kernel that could measure it and was told not to.
            Err(SensorError::Unreadable { source, .. })
                if source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        };
        Ok(GroupState {
            current: size("memory.current")?,
            swapped: size("memory.swap.current")?,
            refaults: entry("memory.stat", "workingset_refault_anon")?,
            kills: entry("memory.events", "oom_kill")?,
            memory_stalls: stalls("memory.pressure")?,
            io_stalls: stalls("io.pressure")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fixture::Fixture;

    const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000\n";
    const STAT: &str =
        "anon 4096\nfile 7\nworkingset_refault_anon 3\nworkingset_refault_file 1\npgmajfault 5\n";

    fn group() -> Fixture {
        Fixture::new(&[
            ("g/cgroup.procs", "7\n"),
            ("g/memory.current", "8192\n"),
            ("g/memory.swap.current", "4096\n"),
            ("g/memory.stat", STAT),
            ("g/memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
            ("g/memory.pressure", PRESSURE),
            ("g/io.pressure", PRESSURE),
        ])
    }

    fn read(host: &Fixture) -> Result<GroupState, SensorError> {
        GroupSensor::new(&host.path("g")).read()
    }

    #[test]
    fn a_group_is_read() {
        let stalls = Some(Stalls { some: Duration::from_millis(2), full: Duration::from_millis(1) });
        let whole = GroupState {
            current: Some(Bytes(8192)),
            swapped: Some(Bytes(4096)),
            refaults: Some(3),
            kills: Some(0),
            memory_stalls: stalls,
            io_stalls: stalls,
        };
        let host = group();
        assert_eq!(read(&host).unwrap(), whole);
        host.remove("g/memory.swap.current");
        host.remove("g/io.pressure");
        assert_eq!(read(&host).unwrap(), GroupState { swapped: None, io_stalls: None, ..whole });
    }

    #[test]
    fn a_group_without_the_memory_controller_has_pressure_alone() {
        let host = Fixture::new(&[("g/cgroup.procs", ""), ("g/memory.pressure", PRESSURE)]);
        let found = read(&host).unwrap();
        assert_eq!((found.current, found.refaults, found.memory_stalls.is_some()), (None, None, true));
    }

    #[test]
    fn nonsense_names_its_file_and_a_group_that_vanished_is_gone() {
        for (name, text) in [
            ("memory.current", "max\n"),
            ("memory.current", ""),
            ("memory.swap.current", "-1\n"),
            ("memory.stat", "workingset_refault_anon NaN\n"),
            ("memory.events", "oom_kill \n"),
            ("memory.pressure", "some avg10=0"),
        ] {
            let host = group();
            host.write(&format!("g/{name}"), text);
            let error = read(&host).unwrap_err().to_string();
            assert!(error.contains(&format!("g/{name} holds nonsense")), "{error}");
        }
        let host = group();
        host.remove("g");
        assert!(read(&host).unwrap_err().is_gone());
    }
}

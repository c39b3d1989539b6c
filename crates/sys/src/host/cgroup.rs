//! Control groups (cgroups(7)).

use super::Root;

/// Which control groups the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// Version 2 alone.
    V2 {
        /// The memory controller is there.
        memory: bool,
    },
    /// Version 2 beside version 1, which has the memory controller unless `memory` says otherwise.
    Hybrid {
        /// The memory controller is in version 2.
        memory: bool,
    },
    /// Version 1 alone.
    V1,
    /// None.
    Absent,
}

impl Cgroup {
    /// Looks below `/sys/fs/cgroup`.
    pub fn read(root: &Root) -> Self {
        let memory = |controllers: String| controllers.split_whitespace().any(|name| name == "memory");
        let unified = root.text("sys/fs/cgroup/cgroup.controllers");
        let beside = root.text("sys/fs/cgroup/unified/cgroup.controllers");
        match (unified, beside) {
            (Some(controllers), _) => Self::V2 { memory: memory(controllers) },
            (None, Some(controllers)) => Self::Hybrid { memory: memory(controllers) },
            (None, None) if root.exists("sys/fs/cgroup/memory") => Self::V1,
            (None, None) => Self::Absent,
        }
    }

    /// Whether memory can be reclaimed from one VM at a time (`memory.reclaim`, `memory.low`).
    pub const fn memory_v2(self) -> bool {
        matches!(self, Self::V2 { memory: true } | Self::Hybrid { memory: true })
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn the_files_tell_the_versions_apart() {
        let v2 = ("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n");
        let bare = ("sys/fs/cgroup/cgroup.controllers", "cpu memory_x\n");
        let hybrid = ("sys/fs/cgroup/unified/cgroup.controllers", "");
        let v1 = ("sys/fs/cgroup/memory/tasks", "");
        for (files, expected, memory_v2) in [
            (vec![v2], Cgroup::V2 { memory: true }, true),
            (vec![bare], Cgroup::V2 { memory: false }, false),
            (vec![hybrid, v1], Cgroup::Hybrid { memory: false }, false),
            (vec![v1], Cgroup::V1, false),
            (vec![], Cgroup::Absent, false),
        ] {
            let found = Cgroup::read(&Fixture::new(&files).root());
            assert_eq!((found, found.memory_v2()), (expected, memory_v2));
        }
    }
}

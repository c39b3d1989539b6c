//! The control group that a process's memory is counted in.

use std::fs;

use super::MglruError;
use crate::host::Root;

/// The group that has this process, and no other, for itself: its path within the hierarchy of the memory controller.
pub(super) fn own_group(root: &Root, process: u32) -> Result<String, MglruError> {
    let groups = root.text(&format!("proc/{process}/cgroup")).ok_or(MglruError::NoProcess(process))?;
    let (folder, path) = placed(root, &groups).ok_or(MglruError::NoGroup { process, path: "/".into() })?;
    let shared = || MglruError::NoGroup { process, path: path.clone() };
    if path == "/" {
        return Err(shared());
    }
    let processes = fs::read_to_string(root.path(&format!("{folder}{path}/cgroup.procs")));
    let processes = processes.map_err(|_| shared())?;
    let mut others = processes.lines().filter(|line| line.parse() != Ok(process) && has_memory(root, line));
    if others.next().is_some() { Err(shared()) } else { Ok(path) }
}

/// Whether a process has memory that is counted in its group: threads of the kernel, of which KVM puts one into the group
/// of each VM, have none.
fn has_memory(root: &Root, process: &str) -> bool {
    root.text(&format!("proc/{process}/status")).is_some_and(|status| status.contains("\nVmSize:"))
}

/// Where the hierarchy with the memory controller is, and the process's path in it: version 1 if that has the
/// controller, else version 2.
fn placed(root: &Root, groups: &str) -> Option<(&'static str, String)> {
    let lines = || groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let old = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    if let Some((_, path)) = old {
        return Some(("sys/fs/cgroup/memory", path.to_owned()));
    }
    let (_, path) = lines().find(|(controllers, _)| controllers.is_empty())?;
    let mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
    let mount = mounts.into_iter().find(|mount| root.exists(&format!("{mount}/cgroup.controllers")))?;
    Some((mount, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    #[test]
    fn only_a_group_of_its_own_counts() {
        let controllers = ("sys/fs/cgroup/cgroup.controllers", "memory\n");
        let own = ("sys/fs/cgroup/napa/vm/cgroup.procs", "7\n");
        for (files, expected) in [
            (vec![("proc/7/cgroup", "0::/napa/vm\n"), controllers, own], Some("/napa/vm")),
            (vec![("proc/7/cgroup", "0::/\n"), controllers], None),
            (
                vec![
                    ("proc/7/cgroup", "0::/napa/vm\n"),
                    controllers,
                    ("sys/fs/cgroup/napa/vm/cgroup.procs", "7\n70\n"),
                    ("proc/70/status", "Name:\tsh\nVmSize:\t 9 kB\n"),
                ],
                None,
            ),
            (
                vec![
                    ("proc/7/cgroup", "0::/napa/vm\n"),
                    controllers,
                    ("sys/fs/cgroup/napa/vm/cgroup.procs", "7\n70\n71\n"),
                    ("proc/70/status", "Name:\tkvm-nx-lpage-recovery\nState:\tS (sleeping)\n"),
                ],
                Some("/napa/vm"),
            ),
            (
                vec![
                    ("proc/7/cgroup", "5:cpu,memory:/x\n0::/\n"),
                    ("sys/fs/cgroup/memory/x/cgroup.procs", "7\n"),
                ],
                Some("/x"),
            ),
        ] {
            let host = Fixture::new(&files);
            assert_eq!(own_group(&host.root(), 7).ok().as_deref(), expected, "{files:?}");
        }
        let nobody = own_group(&Fixture::new(&[controllers]).root(), 7).unwrap_err();
        assert!(matches!(nobody, MglruError::NoProcess(7)), "{nobody}");
    }
}

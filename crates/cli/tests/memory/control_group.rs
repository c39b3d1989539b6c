//! The control group of a VM's own: all threads are in it, and it goes with the VM.

use std::path::{Path, PathBuf};

use crate::support::{Host, Vm, wait_until};

/// The hierarchy of version 2. `None`, with a word about it: there is none that this user may change.
fn hierarchy() -> Option<PathBuf> {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let found = mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists());
    // Root in a container may find them mounted to be read.
    let may_change = |mount: &&Path| rustix::fs::access(*mount, rustix::fs::Access::WRITE_OK).is_ok();
    match found.filter(may_change) {
        Some(mount) => Some(mount.to_owned()),
        None => {
            println!("skipped: no control groups of version 2 that this user may change");
            None
        }
    }
}

fn start(host: &Host, group: &str, more: &[&str]) -> Vm {
    let mut vm =
        host.run(&[&["--name", "vm", "--cgroup", group, "--cmdline", "workload=idle"], more].concat());
    vm.wait_line("READY ");
    vm
}

#[test]
fn all_threads_are_in_the_group_and_it_goes_with_the_vm() {
    let Some(host) = Host::new() else { return };
    let Some(mount) = hierarchy() else { return };
    let name = format!("napa-test-{}/a/b", std::process::id());
    let folder = mount.join(&name);
    for end in ["TERM", "KILL", "TERM"] {
        let vm = start(&host, &name, &["--cpus", "2"]);
        let threads = std::fs::read_dir(format!("/proc/{}/task", vm.pid())).unwrap();
        for thread in threads {
            let groups = std::fs::read_to_string(thread.unwrap().path().join("cgroup")).unwrap();
            assert!(groups.lines().any(|line| line == format!("0::/{name}")), "{groups}");
        }
        let second = host.run(&["--cgroup", &name]).end();
        assert_eq!((second.code, second.error.lines().count()), (Some(2), 1), "{second:?}");
        assert!(second.error.contains("give each VM a group of its own"), "{second:?}");
        vm.signal(end);
        vm.end();
        // Nobody can clean up after SIGKILL; the next VM takes what is left.
        wait_until("the end of its processes", || {
            std::fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty())
                || !folder.exists()
        });
        assert_eq!(folder.exists(), end == "KILL");
    }
    // The parents, too, though the VM that made them was killed.
    assert!(!mount.join(name.split('/').next().unwrap()).exists());
}

#[test]
fn the_last_of_two_vms_removes_their_parent() {
    let Some(host) = Host::new() else { return };
    let Some(mount) = hierarchy() else { return };
    let parent = format!("napa-test-{}-pair", std::process::id());
    let [first, second] = ["a", "b"].map(|name| {
        let group = format!("{parent}/{name}");
        let mut vm = host.run(&["--name", name, "--cgroup", &group, "--cmdline", "workload=idle"]);
        vm.wait_line("READY ");
        vm
    });
    first.signal("TERM");
    first.end();
    assert!(!mount.join(&parent).join("a").exists() && mount.join(&parent).join("b").exists());
    second.signal("TERM");
    second.end();
    assert!(!mount.join(&parent).exists());
}

#[test]
fn a_group_that_somebody_else_made_stays() {
    let Some(host) = Host::new() else { return };
    let Some(mount) = hierarchy() else { return };
    let name = format!("napa-test-{}-own", std::process::id());
    std::fs::create_dir(mount.join(&name)).unwrap();
    for group in [name.clone(), format!("{name}/below")] {
        let vm = start(&host, &group, &[]);
        vm.signal("TERM");
        vm.end();
        assert!(mount.join(&name).exists());
    }
    std::fs::remove_dir(mount.join(&name)).unwrap();
}

#[test]
fn what_starts_no_vm_leaves_no_group() {
    let Some(host) = Host::new() else { return };
    let Some(mount) = hierarchy() else { return };
    let name = format!("napa-test-{}-bad", std::process::id());
    let ended = host.run(&["--cgroup", &name, "--kernel", "/absent"]).end();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(!mount.join(&name).exists());
    let controllers = std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap();
    if !controllers.split_whitespace().any(|controller| controller == "memory") {
        let ended = host.run(&["--cgroup", &name, "--memory-low", "64M"]).end();
        assert_eq!((ended.code, ended.error.lines().count()), (Some(2), 1), "{ended:?}");
        assert!(ended.error.contains("does not name the memory controller"), "{ended:?}");
        assert!(!mount.join(&name).exists());
    }
    for (words, text) in [
        (&["--swap-max", "1G"][..], "--swap-max needs --cgroup"),
        (&["--cgroup", "../x"], "is not a control group"),
    ] {
        let ended = host.run(words).end();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.error.contains(text), "{ended:?}");
    }
}

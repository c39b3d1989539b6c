//! Hosts, each with one thing wrong.

use std::io;

use napa_sys::host::Root;
use napa_sys::host::{HugePages, Ksm, KvmModule, Memory, Pressure, Stall, Swap};
use napa_sys::ksm::{REGISTRY, Registry, Stranger};

use super::*;
use crate::features::Offer;

/// A host on which nothing is wrong.
fn sound() -> Facts {
    let stall = Stall { avg10: 0.0, avg60: 0.0, avg300: 0.0, total_us: 0 };
    Facts {
        processor: Processor::Svm,
        module: Some((KvmModule::Amd, Mmu::Npt)),
        kvm: Ok(offer()),
        io_uring: Ok(()),
        io_uring_rule: IoUringRule::Everyone,
        memory: Some(Memory {
            total: Bytes::gib(64),
            available: Bytes::gib(60),
            swap_total: Bytes::gib(8),
            swap_free: Bytes::gib(8),
        }),
        overcommit: Some(OvercommitRule::Heuristic),
        swaps: vec![swap_area(SwapKind::File)],
        zswap: Some(true),
        swappiness: Some(60),
        ksm: Some(Ksm {
            run: KsmRun::Running,
            pages_to_scan: 100,
            sleep_ms: 20,
            pages_shared: 0,
            pages_sharing: 0,
            advisor: None,
        }),
        ksm_leftovers: None,
        ksm_strangers: vec![],
        ksm_settings: Device::Usable,
        thp: Some(ThpRule::Madvise),
        huge_pages: vec![],
        cgroup: Cgroup::V2 { memory: true },
        pressure: Some(Pressure { some: stall, full: stall }),
        mglru: Ok(()),
        userfaultfd: Userfaultfd::Usable,
        tun: Device::Usable,
        vhost_net: Device::Usable,
        net_admin: true,
    }
}

fn offer() -> Offer {
    Offer {
        api_version: 12,
        vcpus_max: 1024,
        vcpus_recommended: 8,
        memory_slots_max: 509,
        capabilities: vec![],
        paravirt: 0,
    }
}

fn swap_area(kind: SwapKind) -> Swap {
    Swap { path: "/s".into(), kind, size: Bytes::gib(8), used: Bytes(0), priority: -2 }
}

/// Makes one thing wrong: exactly one finding differs, with this level, subject, and words in its mend.
fn check(change: impl FnOnce(&mut Facts), level: Level, subject: &str, mend: &str) {
    let mut facts = sound();
    change(&mut facts);
    let wrong: Vec<Finding> =
        judge(&facts).into_iter().filter(|finding| finding.level != Level::Ok).collect();
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    assert_eq!((wrong[0].level, wrong[0].subject), (level, subject));
    assert!(wrong[0].mend.contains(mend), "{wrong:#?}");
    assert!(!wrong[0].why.is_empty() && !wrong[0].found.is_empty());
}

#[test]
fn nothing_is_wrong_with_a_sound_host() {
    let findings = judge(&sound());
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok && finding.mend.is_empty()),
        "{findings:#?}"
    );
}

#[test]
fn without_kvm_no_vm_runs() {
    check(|facts| facts.kvm = Err(KvmError::Absent), Level::Fail, "kvm", "modprobe kvm_amd");
    check(
        |facts| {
            facts.kvm = Err(KvmError::Absent);
            facts.processor = Processor::Vmx;
        },
        Level::Fail,
        "kvm",
        "modprobe kvm_intel",
    );
    check(|facts| facts.kvm = Err(KvmError::Denied), Level::Fail, "kvm", "usermod -aG kvm");
    check(
        |facts| {
            facts.kvm = Err(KvmError::Open(io::Error::other("busy")));
            facts.processor = Processor::Plain;
        },
        Level::Fail,
        "kvm",
        "in the firmware",
    );
    let old = Offer { api_version: 11, ..offer() };
    check(|facts| facts.kvm = Ok(old), Level::Fail, "kvm", "kernel");
}

#[test]
fn the_way_of_paging_is_named() {
    check(
        |facts| facts.module = Some((KvmModule::Intel, Mmu::Shadow)),
        Level::Warn,
        "mmu",
        "kvm_intel ept=1",
    );
    check(|facts| facts.module = Some((KvmModule::Amd, Mmu::Shadow)), Level::Warn, "mmu", "kvm_amd npt=1");
    check(|facts| facts.module = Some((KvmModule::Pvm, Mmu::Pvm)), Level::Warn, "mmu", "VT-x or SVM");
    check(|facts| facts.module = None, Level::Warn, "mmu", "kvm_amd");
}

#[test]
fn without_io_uring_no_vm_runs() {
    let refuse = |facts: &mut Facts| facts.io_uring = Err(io::ErrorKind::PermissionDenied.into());
    check(refuse, Level::Fail, "io_uring", "container");
    check(
        |facts| {
            refuse(facts);
            facts.io_uring_rule = IoUringRule::Nobody;
        },
        Level::Fail,
        "io_uring",
        "kernel.io_uring_disabled=0",
    );
}

#[test]
fn what_memory_overcommit_needs_is_looked_at() {
    check(|facts| facts.swaps.clear(), Level::Warn, "swap", "napa swap create --size");
    check(|facts| facts.zswap = Some(false), Level::Warn, "swap", "zswap/parameters/enabled");
    check(|facts| facts.zswap = None, Level::Warn, "swap", "modprobe zram");
    check(|facts| facts.swappiness = Some(0), Level::Warn, "swap", "vm.swappiness=60");
    check(|facts| facts.ksm = None, Level::Warn, "ksm", "CONFIG_KSM");
    check(|facts| facts.ksm_settings = Device::Denied, Level::Warn, "ksm", "sudo napa run");
    let stranger = Stranger { pid: 7, name: "qemu".into() };
    check(|facts| facts.ksm_strangers.push(stranger), Level::Warn, "ksm", "mem-merge=off");
    check(
        |facts| facts.overcommit = Some(OvercommitRule::Never),
        Level::Warn,
        "overcommit",
        "overcommit_memory=0",
    );
    check(|facts| facts.thp = Some(ThpRule::Never), Level::Warn, "huge pages", "madvise");
    let reserve = HugePages { size: Bytes::mib(2), total: 8, free: 8 };
    check(|facts| facts.huge_pages.push(reserve), Level::Warn, "hugetlb", "nr_hugepages=0");
    check(|facts| facts.cgroup = Cgroup::V1, Level::Warn, "cgroup", "unified_cgroup_hierarchy=1");
    check(|facts| facts.pressure = None, Level::Warn, "pressure", "psi=1");
    check(
        |facts| facts.userfaultfd = Userfaultfd::Denied,
        Level::Warn,
        "userfaultfd",
        "unprivileged_userfaultfd=1",
    );
    check(|facts| facts.memory = None, Level::Warn, "memory", "proc");
}

#[test]
fn what_a_killed_vm_left_of_ksm_is_put_back_by_a_command() {
    let left = "napa-ksm 1\nprocess 7\nsaved advisor_mode none\nsaved run 0\nend\n";
    let host = tempfile::tempdir().unwrap();
    let folder = host.path().join(REGISTRY);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("lock"), "").unwrap();
    std::fs::write(folder.join("record"), left).unwrap();
    let leftovers = Registry::leftovers(&Root::at(host.path()));
    assert!(leftovers.is_some());
    let mend = "sudo napa doctor --mend";
    check(|facts| facts.ksm_leftovers = leftovers, Level::Warn, "ksm", mend);
}

#[test]
fn what_networks_need_is_looked_at() {
    check(|facts| facts.tun = Device::Absent, Level::Warn, "network", "modprobe tun");
    check(|facts| facts.net_admin = false, Level::Warn, "network", "ip tuntap add");
    check(|facts| facts.vhost_net = Device::Absent, Level::Warn, "vhost-net", "modprobe vhost_net");
}

#[test]
fn swap_of_both_kinds_is_told_apart() {
    let mut facts = sound();
    facts.swaps.push(swap_area(SwapKind::Zram));
    assert_eq!(swap(&facts).found, "8G on disk, 8G of compressed memory");
}

#[test]
fn sizes_for_people_are_short() {
    for (bytes, text) in [(Bytes(24 << 30 | 4096), "24G"), (Bytes::mib(9_000), "9000M"), (Bytes(5), "5")] {
        assert_eq!(whole(bytes).to_string(), text);
    }
}

#[test]
fn the_ages_of_pages_are_wanted_but_not_needed() {
    for (error, mend) in [
        (MglruError::Absent, "CONFIG_LRU_GEN"),
        (MglruError::Blind, "Linux 6.12"),
        (MglruError::Off, "lru_gen/enabled"),
        (MglruError::NotMounted, "mount -t debugfs"),
    ] {
        check(|facts| facts.mglru = Err(error), Level::Warn, "mglru", mend);
    }
}

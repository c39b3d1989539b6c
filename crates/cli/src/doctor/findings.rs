//! The facts of a host, judged.

use napa_sys::host::{
    Cgroup, Device, IoUringRule, KsmRun, Mmu, OvercommitRule, Processor, SwapKind, ThpRule, Userfaultfd,
};
use napa_sys::mglru::MglruError;
use napa_units::Bytes;

use super::facts::Facts;
use super::{Finding, Level};
use crate::features::KvmError;

/// The one version of KVM's interface (KVM API §4.1).
const KVM_API_VERSION: i32 = 12;

/// Looks at every fact, the gravest kinds first.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    vec![
        kvm(facts),
        mmu(facts),
        io_uring(facts),
        memory(facts),
        overcommit(facts),
        swap(facts),
        ksm(facts),
        thp(facts),
        huge_pages(facts),
        cgroup(facts),
        pressure(facts),
        mglru(facts),
        userfaultfd(facts),
        network(facts),
        vhost_net(facts),
    ]
}

fn ok(subject: &'static str, found: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, subject, found: found.into(), why: "", mend: String::new() }
}

fn warn(
    subject: &'static str,
    found: impl Into<String>,
    why: &'static str,
    mend: impl Into<String>,
) -> Finding {
    Finding { level: Level::Warn, subject, found: found.into(), why, mend: mend.into() }
}

fn fail(
    subject: &'static str,
    found: impl Into<String>,
    why: &'static str,
    mend: impl Into<String>,
) -> Finding {
    Finding { level: Level::Fail, subject, found: found.into(), why, mend: mend.into() }
}

fn kvm(facts: &Facts) -> Finding {
    let why = "every VM runs on KVM";
    match &facts.kvm {
        Ok(offer) if offer.api_version != KVM_API_VERSION => {
            let found =
                format!("KVM speaks version {} of its interface, not {KVM_API_VERSION}", offer.api_version);
            fail("kvm", found, why, "boot a kernel of this century")
        }
        Ok(offer) if !offer.missing().is_empty() => {
            let found = format!("KVM lacks {}", offer.missing().join(", "));
            fail("kvm", found, "napa builds every VM on these", "boot a newer kernel")
        }
        Ok(_) => ok("kvm", "/dev/kvm answers, and offers all that napa needs"),
        Err(KvmError::Denied) => {
            let mend = "sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm && sudo usermod -aG kvm $USER, then log in again";
            fail("kvm", "this user may not open /dev/kvm", why, mend)
        }
        Err(KvmError::Absent) => fail("kvm", "there is no /dev/kvm", why, load_kvm(facts.processor)),
        Err(error @ (KvmError::Open(_) | KvmError::Cpuid(_))) => {
            fail("kvm", error.to_string(), why, load_kvm(facts.processor))
        }
    }
}

fn load_kvm(processor: Processor) -> &'static str {
    match processor {
        Processor::Vmx => "sudo modprobe kvm_intel",
        Processor::Svm => "sudo modprobe kvm_amd",
        Processor::Plain => {
            "switch on virtualisation (VT-x, SVM) in the firmware; in a VM, let its host offer nested virtualisation"
        }
    }
}

fn mmu(facts: &Facts) -> Finding {
    match facts.module {
        Some((module, mmu @ (Mmu::Ept | Mmu::Npt))) => {
            ok("mmu", format!("{} uses {}: paging in hardware", module.name(), mmu.name()))
        }
        Some((module, Mmu::Shadow)) => {
            let (name, parameter) = (module.name(), if module.name() == "kvm_intel" { "ept" } else { "npt" });
            warn(
                "mmu",
                format!("{name} uses shadow page tables"),
                "each change of a guest's page tables costs an exit",
                format!("sudo modprobe -r {name} && sudo modprobe {name} {parameter}=1"),
            )
        }
        Some((module, Mmu::Pvm)) => warn(
            "mmu",
            format!("{} runs guests without hardware virtualisation", module.name()),
            "the embedded guest runs, stock kernels do not",
            "use a host with VT-x or SVM for stock kernels",
        ),
        None => warn(
            "mmu",
            "no vendor module of KVM shows itself",
            "napa cannot tell which kernels run here",
            load_kvm(facts.processor),
        ),
    }
}

fn io_uring(facts: &Facts) -> Finding {
    let why = "disks, networks and consoles of guests are served by io_uring";
    match (&facts.io_uring, facts.io_uring_rule) {
        (Ok(()), _) => ok("io_uring", "works"),
        (Err(_), IoUringRule::Nobody | IoUringRule::Privileged) => {
            let mend = "sudo sysctl kernel.io_uring_disabled=0";
            fail("io_uring", "is switched off for this user", why, mend)
        }
        (Err(error), IoUringRule::Everyone) => {
            let mend = "in a container, allow the io_uring system calls; else boot Linux 6.1 or newer";
            fail("io_uring", format!("does not work: {error}"), why, mend)
        }
    }
}

fn memory(facts: &Facts) -> Finding {
    match facts.memory {
        Some(memory) => {
            ok("memory", format!("{} of {} are available", whole(memory.available), whole(memory.total)))
        }
        None => {
            warn("memory", "its size is not known", "napa cannot tell what fits", "mount -t proc proc /proc")
        }
    }
}

fn overcommit(facts: &Facts) -> Finding {
    match facts.overcommit {
        Some(OvercommitRule::Never) => warn(
            "overcommit",
            "the kernel promises no more than swap and a part of RAM",
            "a VM whose memory exceeds that does not start",
            "sudo sysctl vm.overcommit_memory=0",
        ),
        Some(_) => ok("overcommit", "guests may be promised more memory than is free"),
        None => ok("overcommit", "the kernel does not say; it grants by default"),
    }
}

fn swap(facts: &Facts) -> Finding {
    let disk = |kind| kind != SwapKind::Zram;
    let size = |of: fn(SwapKind) -> bool| {
        Bytes(facts.swaps.iter().filter(|swap| of(swap.kind)).map(|swap| swap.size.0).sum())
    };
    let found = match (size(disk), size(|kind| kind == SwapKind::Zram)) {
        (Bytes(0), Bytes(0)) => {
            return warn(
                "swap",
                "there is none",
                "swap is what keeps guests alive when all of them want their memory at once",
                "sudo napa swap create --size 8G",
            );
        }
        (Bytes(0), zram) => format!("{} of compressed memory", whole(zram)),
        (disk, Bytes(0)) if facts.zswap == Some(true) => format!("{} on disk, with zswap", whole(disk)),
        (disk, Bytes(0)) => return uncompressed(facts, disk),
        (disk, zram) => format!("{} on disk, {} of compressed memory", whole(disk), whole(zram)),
    };
    match facts.swappiness {
        Some(0) => warn(
            "swap",
            format!("{found}, but vm.swappiness is 0"),
            "the kernel leaves the memory of idle guests alone until the host is all but out of it",
            "sudo sysctl vm.swappiness=60",
        ),
        _ => ok("swap", found),
    }
}

/// Nothing but a disk.
fn uncompressed(facts: &Facts, disk: Bytes) -> Finding {
    let mend = match facts.zswap {
        Some(_) => "echo Y | sudo tee /sys/module/zswap/parameters/enabled",
        None => "sudo modprobe zram && sudo napa swap create --size 0 --zram-size 2G",
    };
    warn(
        "swap",
        format!("{} on disk, and no compressed memory in front of it", whole(disk)),
        "a page comes back from compressed memory in microseconds, from a disk in milliseconds",
        mend,
    )
}

fn ksm(facts: &Facts) -> Finding {
    let why = "equal pages of guests are kept once for each guest";
    let Some(ksm) = &facts.ksm else {
        return warn("ksm", "the kernel has none", why, "boot a kernel with CONFIG_KSM");
    };
    if facts.ksm_leftovers.is_some() {
        let why =
            "the kernel goes on looking for equal pages; the next VM that shares puts its settings back too";
        return warn("ksm", "is still set up for VMs that were killed", why, "sudo napa doctor --mend");
    }
    if let Some(stranger) = facts.ksm_strangers.first() {
        let found = format!("process {} ({}) lets the kernel merge its memory", stranger.pid, stranger.name);
        let why = "it belongs to no trust domain, so no VM can share pages while it does";
        return warn(
            "ksm",
            found,
            why,
            "start QEMU with -machine mem-merge=off, other programs without PR_SET_MEMORY_MERGE",
        );
    }
    match (facts.ksm_settings, ksm.run) {
        (Device::Usable, KsmRun::Running) => ok("ksm", "merges equal pages"),
        (Device::Usable, _) => ok("ksm", "stands still until a VM shares pages"),
        _ => {
            let why = "only who may change its settings can run VMs that share pages";
            warn("ksm", "its settings belong to somebody else", why, "sudo napa run --share vm …")
        }
    }
}

fn thp(facts: &Facts) -> Finding {
    let why = "guests run slower on small pages";
    match facts.thp {
        Some(ThpRule::Always) => ok("huge pages", "transparent, for all memory"),
        Some(ThpRule::Madvise) => ok("huge pages", "transparent, for memory whose owner asks"),
        Some(ThpRule::Never) => {
            let mend = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";
            warn("huge pages", "transparent ones are switched off", why, mend)
        }
        None => warn(
            "huge pages",
            "the kernel has no transparent ones",
            why,
            "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
        ),
    }
}

fn huge_pages(facts: &Facts) -> Finding {
    let reserved = Bytes(facts.huge_pages.iter().map(|pages| pages.size.0.saturating_mul(pages.free)).sum());
    match reserved {
        Bytes(0) => ok("hugetlb", "no memory is set aside"),
        reserved => warn(
            "hugetlb",
            format!("{} are set aside and unused", whole(reserved)),
            "napa's guests cannot use memory that is reserved for hugetlbfs",
            "sudo sysctl vm.nr_hugepages=0",
        ),
    }
}

fn cgroup(facts: &Facts) -> Finding {
    let why = "memory can be taken from one VM at a time only through the memory controller of version 2";
    let boot = "boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=memory";
    match facts.cgroup {
        Cgroup::V2 { memory: true } => ok("cgroup", "version 2 with the memory controller"),
        Cgroup::Hybrid { memory: true } => {
            ok("cgroup", "versions 1 and 2; the memory controller is in version 2")
        }
        Cgroup::V2 { memory: false } => {
            warn("cgroup", "version 2 without the memory controller", why, "boot with cgroup_enable=memory")
        }
        Cgroup::Hybrid { memory: false } | Cgroup::V1 => {
            warn("cgroup", "the memory controller is in version 1", why, boot)
        }
        Cgroup::Absent => warn("cgroup", "there are none", why, "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

fn pressure(facts: &Facts) -> Finding {
    match facts.pressure {
        Some(pressure) => {
            ok("pressure", format!("{:.1} % of the last minute waited for memory", pressure.some.avg60))
        }
        None => warn(
            "pressure",
            "the kernel does not measure it",
            "napa learns of a shortage only after it has begun",
            "boot with psi=1",
        ),
    }
}

fn mglru(facts: &Facts) -> Finding {
    let why = "how much memory a VM uses is found by a sample instead, which needs swap";
    let warn = |found: &str, mend: &str| warn("mglru", found, why, mend);
    match &facts.mglru {
        Ok(()) => ok("mglru", "the kernel keeps generations of pages, and tells root how old they are"),
        Err(MglruError::Absent) => {
            warn("the kernel keeps no generations of pages", "boot Linux 6.12 or newer with CONFIG_LRU_GEN")
        }
        Err(MglruError::Blind) => {
            warn("the kernel's generations do not see what guests access", "boot Linux 6.12 or newer")
        }
        Err(MglruError::Off) => warn("is switched off", "echo y | sudo tee /sys/kernel/mm/lru_gen/enabled"),
        Err(_) => warn(
            "the kernel's files for debugging are not there",
            "sudo mount -t debugfs none /sys/kernel/debug",
        ),
    }
}

fn userfaultfd(facts: &Facts) -> Finding {
    let why = "guests start at once from a snapshot, and move while they run, through it";
    match facts.userfaultfd {
        Userfaultfd::Usable => ok("userfaultfd", "may be used"),
        Userfaultfd::Denied => {
            let mend = "sudo sysctl vm.unprivileged_userfaultfd=1";
            warn("userfaultfd", "this user may not handle a guest's page faults", why, mend)
        }
        Userfaultfd::Absent => {
            warn("userfaultfd", "the kernel has none", why, "boot a kernel with CONFIG_USERFAULTFD")
        }
    }
}

fn network(facts: &Facts) -> Finding {
    let why = "a guest's network card is a tap device of the host";
    match (facts.tun, facts.net_admin) {
        (Device::Usable, true) => ok("network", "tap devices can be made and opened"),
        (Device::Usable, false) => warn(
            "network",
            "this user can open tap devices that are there, but make none",
            why,
            "sudo ip tuntap add tap0 mode tap vnet_hdr multi_queue user $USER",
        ),
        (Device::Denied, _) => {
            warn("network", "this user may not open /dev/net/tun", why, "sudo chmod 666 /dev/net/tun")
        }
        (Device::Absent, _) => warn("network", "there is no /dev/net/tun", why, "sudo modprobe tun"),
    }
}

fn vhost_net(facts: &Facts) -> Finding {
    let why = "the kernel could carry a guest's packets without waking the VM's process";
    match facts.vhost_net {
        Device::Usable => ok("vhost-net", "may be used"),
        Device::Denied => warn(
            "vhost-net",
            "this user may not open /dev/vhost-net",
            why,
            "sudo usermod -aG kvm $USER, then log in again",
        ),
        Device::Absent => warn("vhost-net", "there is no /dev/vhost-net", why, "sudo modprobe vhost_net"),
    }
}

/// A size in the largest unit that leaves a whole number of at least two digits: for people, not exact.
fn whole(size: Bytes) -> Bytes {
    let shift = [40, 30, 20, 10].into_iter().find(|shift| size.0 >> shift >= 10).unwrap_or(0);
    Bytes(size.0 >> shift << shift)
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;

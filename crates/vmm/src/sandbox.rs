//! The sandbox of a VM's process: what is left to a guest that has broken out into it.
//!
//! Closed once everything is open and before any guest code runs, on the only thread there is; all
//! threads started later are inside. No new privileges; Landlock: no file can be opened, made or
//! changed by its path, except that sockets and the VM's control group can be removed again; seccomp: the system calls below and
//! no others. What is not allowed fails with EPERM rather than killing the process: a call that nobody
//! thought of must not cost a guest its data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, path_beneath_rules};
use libc::c_long;
use napa_api::VmConfig;
use napa_api::config::{ConsoleConfig, ShareConfig};
use napa_sys::cgroup::Group;
use napa_sys::own_memory::PAGEMAP_SCAN;
use napa_sys::userfaultfd;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::error::RunError;

/// The newest version of Landlock whose rights are taken away; older kernels take away what they know.
const LANDLOCK_ABI: ABI = ABI::V5;

/// Any arguments.
const CALLS: &[c_long] = &[
    // Files that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    // Removing one's sockets and one's control group at the end; Landlock says which.
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    // The sum of what is protected, which VMs of one parent group change by turns.
    libc::SYS_flock,
    // Connections on Unix sockets.
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // What a thread needs to say that memory was lost.
    libc::SYS_mlock,
    // How much swap is left.
    libc::SYS_sysinfo,
    // Threads, their signals and their clocks.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prlimit64,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_futex,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_getpgrp,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Types of ioctl requests (bits 8 to 15): KVM, and terminals, which share theirs with taps.
const IOCTL_TYPE_MASK: u64 = 0xff00;
const IOCTL_KVM: u64 = 0xae00;
const IOCTL_TERMINAL: u64 = 0x5400;

/// Closes the sandbox around the calling thread, which must be the only one.
///
/// # Errors
/// The kernel refused a filter that it knows.
pub fn close(config: &VmConfig, group: Option<&Group>) -> Result<(), RunError> {
    restrict_paths(config, group)
        .map_err(|error| RunError::host("cannot close the sandbox (Landlock)", error))?;
    let filter =
        filter(config).map_err(|error| RunError::host("cannot build the sandbox (seccomp)", error))?;
    seccompiler::apply_filter(&filter)
        .map_err(|error| RunError::host("cannot close the sandbox (seccomp)", error))
}

/// Takes all rights to paths away. A kernel without Landlock leaves that to seccomp.
fn restrict_paths(config: &VmConfig, group: Option<&Group>) -> Result<(), landlock::RulesetError> {
    let folders = socket_folders(config);
    let groups = group.into_iter().flat_map(Group::folders_of_removed);
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .create()?
        .add_rules(path_beneath_rules(folders, AccessFs::RemoveFile))?
        .add_rules(path_beneath_rules(groups, AccessFs::RemoveDir))?
        .restrict_self()
        .map(drop)
}

/// The folders of the sockets that this VM removes at its end.
fn socket_folders(config: &VmConfig) -> Vec<PathBuf> {
    let console = match &config.console {
        ConsoleConfig::Socket(path) => Some(path),
        _ => None,
    };
    let sockets = [config.api_socket.as_ref(), console, config.vsock.as_ref().map(|vsock| &vsock.path)];
    sockets.into_iter().flatten().map(|path| folder(path)).collect()
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn filter(config: &VmConfig) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        CALLS.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_madvise, advice_rules(config)?);
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![equals(0, libc::AF_UNIX as u64)?])?]);
    rules.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![equals(0, libc::PR_SET_NAME as u64)?])?]);
    // Looking at the states of one's own pages.
    let pagemap_scan = SeccompRule::new(vec![equals(1, PAGEMAP_SCAN)?])?;
    let kvm = SeccompRule::new(vec![ioctl_type(IOCTL_KVM)?])?;
    // One's own faults alone: no other process's userfaultfd can be opened here.
    let faults = SeccompRule::new(vec![ioctl_type(userfaultfd::IOCTL_TYPE)?])?;
    rules.insert(libc::SYS_ioctl, vec![kvm, terminal_rule()?, pagemap_scan, faults]);
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, denied, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// Any advice about memory, but not that its pages may be merged where the VM must never share them.
fn advice_rules(config: &VmConfig) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mergeable = libc::MADV_MERGEABLE as u64;
    match config.share_or_default() {
        ShareConfig::Vm | ShareConfig::Domain(_) => Ok(Vec::new()),
        ShareConfig::Zero | ShareConfig::Off => {
            let other = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, mergeable)?;
            Ok(vec![SeccompRule::new(vec![other])?])
        }
    }
}

/// Terminals and taps, but not typing into the terminal for its user.
fn terminal_rule() -> Result<SeccompRule, seccompiler::BackendError> {
    let not = |request: u64| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, request);
    SeccompRule::new(vec![ioctl_type(IOCTL_TERMINAL)?, not(libc::TIOCSTI)?, not(libc::TIOCLINUX)?])
}

fn ioctl_type(kind: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(IOCTL_TYPE_MASK), kind)
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

#[cfg(test)]
#[allow(unsafe_code)] // Advice about memory is given by address.
mod tests {
    use std::fs::File;
    use std::io::ErrorKind::PermissionDenied;
    use std::net::UdpSocket;
    use std::process::Command;

    use super::*;

    /// What the kernel says in the sandbox of a VM with this extent to advice: that memory may be merged, and that it is
    /// not needed.
    fn advise(share: Option<ShareConfig>) -> [i32; 2] {
        let config = VmConfig { share, ..VmConfig::default() };
        let advise = move || {
            close(&config, None).unwrap();
            [libc::MADV_MERGEABLE, libc::MADV_DONTNEED].map(|advice| {
                // SAFETY: advice about no memory at all.
                let answer = unsafe { libc::madvise(std::ptr::null_mut(), 0, advice) };
                if answer == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
            })
        };
        std::thread::spawn(advise).join().unwrap()
    }

    #[test]
    fn a_vm_that_must_not_share_cannot_make_memory_mergeable() {
        for share in [ShareConfig::Off, ShareConfig::Zero] {
            assert_eq!(advise(Some(share)), [libc::EPERM, 0]);
        }
        // A kernel without KSM does not know the advice.
        for share in [None, Some(ShareConfig::Vm), Some(ShareConfig::Domain("web".into()))] {
            let [mergeable, not_needed] = advise(share);
            assert!([0, libc::EINVAL].contains(&mergeable) && not_needed == 0, "{mergeable} {not_needed}");
        }
    }

    /// In a thread of its own: a sandbox is never opened again.
    #[test]
    fn a_closed_sandbox_has_no_way_out() {
        let folder = std::env::temp_dir().join(format!("napa-sandbox-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (socket, other) = (folder.join("s"), folder.join("other"));
        std::fs::write(&other, "").unwrap();
        std::fs::write(&socket, "").unwrap();
        let config = VmConfig { api_socket: Some(socket.clone()), ..VmConfig::default() };
        std::thread::spawn(move || {
            close(&config, None).unwrap();
            assert_eq!(File::open("/proc/self/status").unwrap_err().kind(), PermissionDenied);
            assert_eq!(File::create(&other).unwrap_err().kind(), PermissionDenied);
            assert_eq!(UdpSocket::bind("127.0.0.1:0").unwrap_err().kind(), PermissionDenied);
            assert!(Command::new("/bin/true").status().is_err());
            std::fs::remove_file(&socket).unwrap();
            std::thread::spawn(|| File::open("/dev/null").unwrap_err()).join().unwrap();
        })
        .join()
        .unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}

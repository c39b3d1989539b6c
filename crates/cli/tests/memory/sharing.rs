//! Equal pages are merged within a trust domain and nowhere else, guests notice nothing, and the host's settings come
//! back.

#![allow(unsafe_code)] // A test makes memory of its own mergeable.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use napa_sys::host::Root;
use napa_sys::ksm::{Registry, strangers};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::client::Client;
use crate::support::{Host, Vm, wait_until};

const SYSFS: &str = "/sys/kernel/mm/ksm";
const SETTINGS: [&str; 6] =
    ["run", "advisor_mode", "advisor_target_scan_time", "pages_to_scan", "sleep_millisecs", "use_zero_pages"];
/// How long somebody else's mergeable process is waited for before the test is given up.
const STRANGER_BOUND: Duration = Duration::from_secs(30);

/// The host's one scanner of pages, for one test at a time.
pub struct Ksm {
    before: Vec<String>,
    _lock: File,
}

impl Ksm {
    /// `None`, with a word about it: nothing can be shared on this machine.
    pub fn take() -> Option<Self> {
        Self::try_take().inspect_err(|why| println!("skipped: {why}")).ok()
    }

    fn try_take() -> Result<Self, String> {
        if !fs::read_to_string("/proc/self/ksm_stat").is_ok_and(|stat| stat.contains("ksm_merging_pages")) {
            return Err("the kernel does not count the merged pages of a process".into());
        }
        File::options()
            .write(true)
            .open(format!("{SYSFS}/run"))
            .map_err(|error| format!("{SYSFS}/run cannot be written: {error}"))?;
        // One of each user: nobody can open everybody's.
        let lock = std::env::temp_dir().join(format!("napa-ksm-{}.lock", rustix::process::getuid().as_raw()));
        let lock = File::create(&lock).map_err(|error| format!("cannot open {}: {error}", lock.display()))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| format!("cannot lock: {error}"))?;
        let until = Instant::now() + STRANGER_BOUND;
        while let Some(stranger) = strangers(&Root::system()).first() {
            if Instant::now() > until {
                return Err(stranger.to_string());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        put_leftovers_back()?;
        Ok(Self { before: settings(), _lock: lock })
    }

    /// Makes the scanner fast: it is not what is tested. The VM that leaves last puts everything back.
    fn hurry(&self) {
        let set = |name: &str, value: &str| fs::write(format!("{SYSFS}/{name}"), value);
        // Older kernels have no advisor.
        let _ = set("advisor_mode", "none");
        set("pages_to_scan", "20000").unwrap();
        set("sleep_millisecs", "1").unwrap();
    }

    fn assert_as_before(&self) {
        assert_eq!(settings(), self.before);
    }
}

impl Drop for Ksm {
    /// A test that failed has killed its VMs by now.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The next test tries again, and says what is in its way.
            let _ = put_leftovers_back();
        }
    }
}

/// What VMs that were killed have left; they are gone with the scanner fast.
fn put_leftovers_back() -> Result<(), String> {
    if Registry::leftovers(&Root::system()).is_some() {
        let registry = Registry::open(&Root::system()).map_err(|error| error.to_string())?;
        registry.put_leftovers_back().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What nearly every test needs; `None`, with one word about it: it is not there.
fn prepare() -> Option<(Host, Ksm)> {
    let host = Host::new()?;
    Some((host, Ksm::take()?))
}

fn settings() -> Vec<String> {
    let read = |name: &str| fs::read_to_string(format!("{SYSFS}/{name}")).unwrap_or_default();
    SETTINGS.iter().map(|name| read(name)).collect()
}

/// A counter of a VM's process.
fn counter(vm: &Vm, name: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/ksm_stat", vm.pid())).unwrap();
    let line = stat.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().parse().unwrap()
}

fn merged(vm: &Vm) -> u64 {
    counter(vm, "ksm_merging_pages")
}

/// A guest that holds 32 MiB (8192 pages) of this content until it is stopped, and then writes to and checks all of it.
pub fn hold(host: &Host, name: &str, content: &str, flags: &[&str]) -> Vm {
    let cmdline = format!("workload=hold:32M,{content} seed=7 rewrite=on report=0");
    let words = ["--memory", "64M", "--name", name, "--cmdline", &cmdline];
    let mut vm = host.run(&[&words, flags].concat());
    vm.wait_line("REPORT workload=hold phase=fill part=total");
    vm
}

pub fn stop(host: &Host, name: &str, vm: Vm) {
    Client::new(&host.socket(name)).call("stop");
    let ended = vm.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.output.contains("CORRUPT"), "{ended:?}");
    assert!(ended.output.contains("phase=check part=total"), "{ended:?}");
}

pub fn sharing(host: &Host, name: &str) -> Value {
    Client::new(&host.socket(name)).call("memory")["result"]["sharing"].clone()
}

#[test]
fn vms_of_one_domain_share_equal_pages_and_nobody_else_does() {
    let Some((host, ksm)) = prepare() else { return };
    let domain = ["--share", "domain=one"];
    let (one, two) = (hold(&host, "one", "identical", &domain), hold(&host, "two", "identical", &domain));
    let outsider = hold(&host, "outsider", "identical", &[]);
    ksm.hurry();
    wait_until("merging", || merged(&one).min(merged(&two)) >= 8_100);
    let report = sharing(&host, "one");
    assert_eq!(report["scope"], json!({ "domain": "one" }));
    assert_eq!(report["is_on"], true);
    assert!(report["merged"].as_u64().unwrap() >= 8_100 * 4096, "{report}");

    // Another domain is refused, at start and by hand, and told who is there.
    let said = "shared by the trust domain 'one' already (VM 'one'";
    for share in ["domain=two", "vm"] {
        let ended = host.run(&["--share", share]).end();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.error.contains(said) && ended.error.lines().count() == 1, "{ended:?}");
    }
    let (code, output, error) = host.napa(&["share", "outsider", "on"]);
    if code == Some(0) {
        // Pages of zeros are given back all the same.
        assert!(
            output.contains(&format!("note: equal pages are not merged: pages of this host are {said}")),
            "{output}"
        );
        assert!(output.starts_with("sharing            off\n"), "{output}");
    } else {
        assert!(code == Some(1) && error.contains(said) && error.contains("cannot be moved"), "{error}");
    }
    // It holds the same pages, the scanner has passed twice more, and none of its pages is merged.
    let scans = || sharing(&host, "one")["full_scans"].as_u64().unwrap();
    let passed = scans() + 2;
    wait_until("a scan", || scans() >= passed);
    assert_eq!((merged(&outsider), counter(&outsider, "ksm_rmap_items")), (0, 0));
    assert_eq!(sharing(&host, "outsider")["is_on"], false);

    stop(&host, "one", one);
    assert_eq!(host.run(&["--share", "domain=two"]).end().code, Some(2), "one member holds the domain still");
    stop(&host, "two", two);
    ksm.assert_as_before();
    // The host is free for another domain, and the one before is not part of it.
    assert_eq!(host.napa(&["share", "outsider", "on"]).0, Some(0));
    stop(&host, "outsider", outsider);
    ksm.assert_as_before();
}

#[test]
fn sharing_is_switched_on_and_off_by_hand() {
    let Some((host, ksm)) = prepare() else { return };
    let vm = hold(&host, "vm", "zero", &[]);
    assert_eq!(counter(&vm, "ksm_rmap_items"), 0, "nobody has asked for it");
    let (code, output, error) = host.napa(&["share", "vm", "on", "--json"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(output.contains("\"is_on\": true") && output.contains("\"scope\": \"vm\""), "{output}");
    ksm.hurry();
    let (code, output, error) = host.napa(&["share", "vm", "off"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(output.starts_with("sharing            off\n"), "{output}");
    ksm.assert_as_before();
    assert_eq!(host.napa(&["share", "vm", "off"]).0, Some(0), "there is nothing to do");
    wait_until("the kernel's counters", || (merged(&vm), counter(&vm, "ksm_rmap_items")) == (0, 0));
    stop(&host, "vm", vm);
    ksm.assert_as_before();
}

#[test]
fn equal_pages_of_one_vm_are_merged_and_taken_apart_again() {
    let Some((host, ksm)) = prepare() else { return };
    let vm = hold(&host, "vm", "identical", &["--share", "vm"]);
    ksm.hurry();
    // Huge pages of which the guest has touched a part are zeros for the rest.
    let found = || merged(&vm) + counter(&vm, "ksm_zero_pages");
    wait_until("merging", || found() > 0);
    assert_eq!(host.napa(&["share", "vm", "off"]).0, Some(0));
    // The kernel counts pages that were taken apart until its scanner comes by again.
    wait_until("the kernel's counters", || found() == 0);
    ksm.assert_as_before();
    stop(&host, "vm", vm);
}

#[test]
fn a_flag_that_forbids_sharing_is_named() {
    let Some(host) = Host::new() else { return };
    let mut vm = host.run(&["--name", "vm", "--share", "off", "--cmdline", "workload=idle"]);
    vm.wait_line("READY ");
    let (code, _, error) = host.napa(&["share", "vm", "on"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("--share off forbids it"), "{error}");
    assert_eq!(host.napa(&["share", "vm", "off"]).0, Some(0), "it does not share");
    Client::new(&host.socket("vm")).call("stop");
    assert_eq!(vm.end().code, Some(0));
}

#[test]
fn settings_that_a_killed_vm_left_are_put_back_by_the_next_one() {
    let Some((host, ksm)) = prepare() else { return };
    let vm = hold(&host, "killed", "identical", &["--share", "domain=one"]);
    vm.signal("KILL");
    assert_eq!(vm.end().code, None);
    assert_ne!(settings(), ksm.before, "nobody could put them back");
    let (_, output, _) = host.napa(&["doctor"]);
    assert!(output.contains("is still set up for VMs that were killed"), "{output}");
    assert_eq!(host.run(&["--share", "domain=two"]).end().code, Some(0));
    ksm.assert_as_before();
    assert!(!host.napa(&["doctor"]).1.contains("VMs that were killed"));
}

#[test]
fn settings_that_a_killed_vm_left_are_put_back_by_hand() {
    let Some((host, ksm)) = prepare() else { return };
    let vm = hold(&host, "killed", "identical", &["--share", "vm"]);
    let (_, output, _) = host.napa(&["doctor", "--mend"]);
    assert!(!output.contains("VMs that were killed"), "{output}");
    assert_eq!(sharing(&host, "killed")["is_on"], true);
    assert_ne!(settings(), ksm.before, "a VM that lives needs them");
    vm.signal("KILL");
    assert_eq!(vm.end().code, None);
    let (_, output, error) = host.napa(&["doctor", "--mend"]);
    assert!(!output.contains("VMs that were killed"), "{output} {error}");
    ksm.assert_as_before();
}

/// Lets the kernel merge all memory of this process, and of those that it starts. `false`: this kernel cannot.
fn merge_everything(wanted: bool) -> bool {
    let unused: libc::c_ulong = 0;
    // SAFETY: the request takes numbers alone, and changes what pages share, not what they hold.
    unsafe { libc::prctl(67, libc::c_ulong::from(wanted), unused, unused, unused) == 0 }
}

#[test]
fn a_vm_that_must_not_share_does_not_inherit_it_and_has_no_files_for_it() {
    let Some((host, _ksm)) = prepare() else { return };
    if !merge_everything(true) {
        println!("skipped: this kernel does not merge all memory of a process");
        return;
    }
    let vms = ["off", "zero"].map(|share| (share, hold(&host, share, "identical", &["--share", share])));
    assert!(merge_everything(false));
    for (share, vm) in vms {
        let stat = fs::read_to_string(format!("/proc/{}/ksm_stat", vm.pid())).unwrap();
        assert!(!stat.contains(": yes"), "--share {share}: {stat}");
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", vm.pid())).unwrap();
        let mut flags = smaps.lines().filter(|line| line.starts_with("VmFlags:"));
        assert!(!flags.any(|line| line.split_whitespace().any(|flag| flag == "mg")), "--share {share}");
        let files = fs::read_dir(format!("/proc/{}/fd", vm.pid())).unwrap().map_while(Result::ok);
        let names = files.filter_map(|file| fs::read_link(file.path()).ok());
        let of_ksm: Vec<_> =
            names.filter(|name| name.starts_with(SYSFS) || name.starts_with("/run/napa/ksm")).collect();
        assert!(of_ksm.is_empty(), "--share {share}: {of_ksm:?}");
        stop(&host, share, vm);
    }
}

/// A page of this process that the kernel may merge.
struct MergeablePage(*mut libc::c_void);

impl MergeablePage {
    fn new() -> Self {
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED);
        // SAFETY: the page is the mapping just made.
        assert_eq!(unsafe { libc::madvise(page, 4096, libc::MADV_MERGEABLE) }, 0);
        Self(page)
    }
}

impl Drop for MergeablePage {
    fn drop(&mut self) {
        // SAFETY: the mapping is that of `new`, and nobody uses it.
        unsafe { libc::munmap(self.0, 4096) };
    }
}

#[test]
fn nobody_shares_while_there_is_a_stranger() {
    let Some((host, ksm)) = prepare() else { return };
    let vm = hold(&host, "vm", "identical", &[]);
    let stranger = MergeablePage::new();
    let said = format!("process {} (", std::process::id());
    for share in ["vm", "domain=one"] {
        let ended = host.run(&["--share", share]).end();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.error.contains(&said) && ended.error.lines().count() == 1, "{ended:?}");
    }
    let (code, _, error) = host.napa(&["share", "vm", "on"]);
    assert!(code == Some(2) && error.contains(&said), "{error}");
    assert!(host.napa(&["doctor"]).1.contains(&said));
    drop(stranger);
    // One that comes later is told of.
    assert_eq!(host.napa(&["share", "vm", "on"]).0, Some(0));
    let _stranger = MergeablePage::new();
    let (_, output, _) = host.napa(&["inspect", "vm", "--memory"]);
    assert!(output.contains(&format!("warning: {said}")), "{output}");
    stop(&host, "vm", vm);
    ksm.assert_as_before();
}

#[test]
fn a_guest_that_reboots_shares_on() {
    let Some((host, ksm)) = prepare() else { return };
    let words = ["--share", "domain=one", "--name", "vm", "--cmdline", "workload=hold:1M,random,1+reboot"];
    let mut vm = host.run(&words);
    for _ in 0..3 {
        vm.wait_line("READY ");
    }
    let stat = || fs::read_to_string(format!("/proc/{}/ksm_stat", vm.pid())).unwrap();
    if stat().contains("ksm_mergeable") {
        wait_until("memory that can be merged", || stat().contains("ksm_mergeable: yes"));
    }
    Client::new(&host.socket("vm")).call("kill");
    assert_eq!(vm.end().code, Some(83));
    ksm.assert_as_before();
}

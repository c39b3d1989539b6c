//! A policy keeps the VMs of a host within a budget, by the mechanisms of real VMs.

use std::sync::mpsc::{Receiver, channel};

use napa_api::config::ShareConfig;
use napa_api::host::{HostReport, VmMemoryRow};
use napa_host::record::Recorder;
use napa_host::tick::{Settings, Subject, Tick, Ticker};
use napa_policy::Kind;
use napa_sys::host::Root;
use napa_units::{Bytes, Shares, VmId};

use crate::support::{Host, PATIENCE, Vm, wait_until};
use crate::swap_area::{Area, Turn};

const LIMIT: Bytes = Bytes::mib(128);
/// A third of the limits of six guests.
const BUDGET: Bytes = Bytes::mib(256);
/// What may be above it: memory is taken after guests have touched it.
const TOLERANCE: Bytes = Bytes::mib(24);

/// A guest that the host decides about.
struct Member {
    name: String,
    vm: Vm,
}

impl Member {
    fn start(host: &Host, number: usize, workload: &str) -> Self {
        let name = format!("vm{number}");
        let cmdline = format!("workload={workload} balloon=on seed={number}");
        let vm = host.run(&["--name", &name, "--memory", &LIMIT.to_string(), "--cmdline", &cmdline]);
        Self { name, vm }
    }

    fn subject(&self, host: &Host, number: usize) -> Subject {
        Subject {
            id: VmId(number as u64),
            name: self.name.clone(),
            pid: self.vm.pid(),
            socket: host.socket(&self.name),
            group: None,
            limit: LIMIT,
            reservation: Bytes(0),
            shares: Shares::default(),
            share: ShareConfig::Vm,
        }
    }

    /// What its process holds in RAM, by the kernel's own word.
    fn held(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.vm.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

fn decide_about(host: &Host, fleet: &[Member], budget: Bytes) -> (Ticker, Receiver<HostReport>) {
    let settings = Settings { budget: Some(budget), reserve: Some(Bytes(0)) };
    let mut tick = Tick::new(settings, Kind::Napa.start(), &Root::system());
    tick.record(Recorder::new(&host.path("."), Bytes::gib(1)));
    let subjects: Vec<Subject> =
        fleet.iter().enumerate().map(|(number, member)| member.subject(host, number)).collect();
    let (sender, reports) = channel();
    let tell = move |report| drop(sender.send(report));
    (Ticker::start(tick, move || subjects.clone(), tell).unwrap(), reports)
}

/// All that a row says of a guest's memory, each part once.
fn whole(vm: &VmMemoryRow) -> u64 {
    [vm.resident, vm.shared, vm.zero, vm.discarded, vm.ballooned, vm.swapped].iter().map(|size| size.0).sum()
}

#[test]
fn six_guests_stay_within_a_third_of_their_memory_and_lose_nothing() {
    let Some(host) = Host::new() else { return };
    let Some(turn) = Turn::take() else { return };
    let Some(area) = Area::file(&host, &turn, "swap", "1G") else { return };
    let workloads =
        ["hold:96M,random", "hold:96M,random", "hold:80M,identical", "verify:40M,0", "verify:40M,0", "idle"];
    let mut fleet: Vec<Member> = workloads
        .iter()
        .enumerate()
        .map(|(number, workload)| Member::start(&host, number, workload))
        .collect();
    for (member, workload) in fleet.iter_mut().zip(workloads) {
        match workload {
            "idle" => member.vm.wait_line("READY "),
            _ => member.vm.wait_line(&format!(
                "REPORT workload={} phase=fill part=total",
                &workload[..workload.find(':').unwrap()]
            )),
        };
    }
    let held = |fleet: &[Member]| fleet.iter().map(Member::held).sum::<u64>();
    let before = held(&fleet);
    assert!(before > BUDGET.0, "the guests hold {before} bytes");
    let (ticker, reports) = decide_about(&host, &fleet, BUDGET);
    let is_within = || held(&fleet) <= BUDGET.0 + TOLERANCE.0;
    wait_until("staying within the budget", is_within);
    // It stays so, although guests come back to their memory.
    let next = |_| reports.recv_timeout(PATIENCE).unwrap();
    let told: Vec<HostReport> = (0..8).map(next).collect();
    wait_until("coming back into the budget", is_within);
    println!("{} MiB before, {} MiB after", before >> 20, held(&fleet) >> 20);
    let swapped: u64 = told.last().unwrap().vms.iter().map(|vm| vm.swapped.0).sum();
    assert!(swapped > 0, "{told:#?}");
    for report in &told {
        assert!(report.troubles.is_empty() && report.vms.len() == fleet.len(), "{report:#?}");
        assert!(report.vms.iter().all(|vm| whole(vm) == LIMIT.0), "{report:#?}");
    }
    drop(ticker);
    let record = host.path("ticks.jsonl");
    let (code, said, _) = host.napa(&["simulate", "--replay", record.to_str().unwrap()]);
    assert!(code == Some(0) && said.starts_with("napa decides 0 of "), "{said}");
    for member in fleet {
        assert_eq!(host.napa(&["stop", &member.name]).0, Some(0));
        let ended = member.vm.end();
        assert_eq!(ended.code, Some(0), "{}: {ended:?}", member.name);
    }
    area.remove();
}

/// The next report of which something is so.
fn report_that(
    what: &str,
    reports: &Receiver<HostReport>,
    is_so: impl Fn(&HostReport) -> bool,
) -> HostReport {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let report = reports.recv_timeout(PATIENCE).unwrap();
        if is_so(&report) {
            return report;
        }
        assert!(std::time::Instant::now() < until, "{what} does not happen: {report:#?}");
    }
}

#[test]
fn a_vm_that_hangs_or_dies_costs_the_others_nothing() {
    let Some(host) = Host::new() else { return };
    let mut fleet: Vec<Member> = (0..3).map(|number| Member::start(&host, number, "idle")).collect();
    fleet.iter_mut().for_each(|member| drop(member.vm.wait_line("READY ")));
    let (hangs, dies) = (&fleet[0].vm, &fleet[1].vm);
    hangs.signal("STOP");
    let (ticker, reports) = decide_about(&host, &fleet, Bytes::gib(1));
    let says_so =
        |report: &HostReport| report.troubles.iter().any(|trouble| trouble.starts_with("vm0: it has not"));
    let report = report_that("a VM's silence", &reports, says_so);
    assert_eq!(report.vms.len(), 3, "{report:#?}");
    dies.signal("KILL");
    let report = report_that("a VM's end", &reports, |report| report.vms.len() == 2);
    assert!(report.vms.iter().all(|vm| vm.pss > Bytes(0)), "{report:#?}");
    hangs.signal("CONT");
    report_that("a VM's answer", &reports, |report| !says_so(report));
    drop(ticker);
    assert_eq!(host.napa(&["stop", "vm0"]).0, Some(0));
}

#[test]
fn a_guest_that_has_no_use_for_memory_gives_it_by_its_balloon() {
    let Some(host) = Host::new() else { return };
    // They have touched memory, freed it, and keep that to themselves.
    let workload = "touch:100M+idle reporting=off";
    let mut fleet: Vec<Member> = (0..2).map(|number| Member::start(&host, number, workload)).collect();
    fleet
        .iter_mut()
        .for_each(|member| drop(member.vm.wait_line("REPORT workload=touch phase=visit part=total")));
    let held: u64 = fleet.iter().map(Member::held).sum();
    // What is free then is less than the least that a host wants.
    let budget = Bytes(held + (held >> 6));
    let (ticker, reports) = decide_about(&host, &fleet, budget);
    let gives = |report: &HostReport| report.vms.iter().any(|vm| vm.ballooned > Bytes(0));
    let report = report_that("giving", &reports, gives);
    println!("{} of {held} bytes held: {:?}", report.host.held, report.reasons);
    wait_until("a gain", || fleet.iter().map(Member::held).sum::<u64>() < held);
    drop(ticker);
    for member in fleet {
        assert_eq!(host.napa(&["stop", &member.name]).0, Some(0));
        assert_eq!(member.vm.end().code, Some(0));
    }
}

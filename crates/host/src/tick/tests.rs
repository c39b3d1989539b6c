//! The tick on hosts of made-up files.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use napa_api::config::ShareConfig;
use napa_policy::Kind;
use napa_units::{Pages, Shares};
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::fixture::Fixture;
use crate::record::{Reader, replay};

/// Much longer than a test waits for what it expects.
const LONG: Duration = Duration::from_secs(300);

/// A host with 4 GiB and no swap, on which a process of 100 MiB is a VM of 1 GiB.
fn host() -> Fixture {
    let host = Fixture::new(&[
        (
            "proc/meminfo",
            "MemTotal: 4194304 kB\nMemFree: 1048576 kB\nMemAvailable: 3145728 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        ),
        ("proc/7/stat", "7 (napa) S 1 7 7 0 -1 4194304 1704 0 33 0 12 3 0 0 20 0 9 0 100 999 50\n"),
        ("proc/7/status", "VmSwap: 0 kB\n"),
        ("proc/7/smaps_rollup", "Rss: 102400 kB\nPss: 102400 kB\nPss_Anon: 98304 kB\n"),
    ]);
    grow(&host, 100);
    host
}

fn grow(host: &Fixture, mib: u64) {
    let pages = Pages::covering(Bytes::mib(mib)).0;
    host.write("proc/7/statm", &format!("{} {pages} 1024 0 0 0 0\n", pages * 2));
}

fn subject(host: &Fixture, id: u64, pid: u32) -> Subject {
    Subject {
        id: VmId(id),
        name: format!("vm{id}"),
        pid,
        socket: host.path("nobody-listens"),
        group: None,
        limit: Bytes::gib(1),
        reservation: Bytes(0),
        shares: Shares::default(),
        share: ShareConfig::Vm,
    }
}

fn tick(host: &Fixture, budget: Bytes) -> Tick {
    let settings = Settings { budget: Some(budget), reserve: Some(Bytes(0)) };
    Tick::new(settings, Kind::Napa.start(), &host.root())
}

fn bell() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

#[test]
fn a_vm_that_nobody_can_ask_is_counted_and_its_trouble_is_told() {
    let host = host();
    let mut tick = tick(&host, Bytes::gib(2));
    let subjects = [subject(&host, 1, 7), subject(&host, 2, 8)];
    tick.once(&subjects).unwrap();
    let report = tick.once(&subjects).unwrap();
    assert_eq!(report.vms.len(), 1, "{report:#?}");
    assert_eq!((report.host.held, report.vms[0].pss), (Bytes::mib(100), Bytes::mib(100)));
    assert_eq!((report.policy.as_str(), report.guarantees.limits), ("napa", Bytes::gib(1)));
    for trouble in ["vm1: its control socket cannot be reached", "proc/8/statm is gone"] {
        assert!(report.troubles.iter().any(|found| found.contains(trouble)), "{trouble}: {report:#?}");
    }
    // Its supervisor has noticed the end of the one, and started the other anew.
    host.write("proc/9/statm", "500 400 300 0 0 0 0\n");
    let report = tick.once(&[subject(&host, 1, 9)]).unwrap();
    assert_eq!((report.vms.len(), report.vms[0].pss), (1, Pages(400).bytes()));
}

#[test]
fn a_host_that_says_nothing_is_not_decided_about_and_one_that_said_something_is() {
    let host = host();
    let mut tick = tick(&host, Bytes::gib(2));
    host.write("proc/meminfo", "Mem");
    assert!(tick.once(&[]).is_none());
    host.write(
        "proc/meminfo",
        "MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 2 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    );
    assert!(tick.once(&[]).unwrap().troubles.is_empty());
    host.remove("proc/meminfo");
    let report = tick.once(&[]).unwrap();
    assert!(report.troubles[0].ends_with("proc/meminfo is gone"), "{report:#?}");
}

#[test]
fn the_next_tick_comes_at_once_when_vms_hold_too_much() {
    let host = host();
    let mut tick = tick(&host, Bytes::mib(200));
    tick.once(&[subject(&host, 1, 7)]).unwrap();
    grow(&host, 201);
    assert_eq!(tick.attend(Instant::now() + LONG, bell().as_fd()), Woken::Budget);
}

#[test]
fn the_next_tick_comes_at_once_when_tasks_wait_or_somebody_calls() {
    let host = host();
    let mut tick = tick(&host, Bytes::gib(2));
    assert!(tick.why_polled().unwrap().contains("psi=1"));
    tick.once(&[subject(&host, 1, 7)]).unwrap();
    let now = Instant::now();
    assert_eq!(tick.attend(now, bell().as_fd()), Woken::Time);
    let pressure = |total: u64| {
        let line = |kind| format!("{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n");
        host.write("proc/pressure/memory", &(line("some") + &line("full")));
    };
    pressure(0);
    let woken = std::thread::scope(|scope| {
        let attending = scope.spawn(|| tick.attend(Instant::now() + LONG, bell().as_fd()));
        let mut total = 0;
        while !attending.is_finished() {
            total += 50_000_000;
            pressure(total);
            std::thread::sleep(Duration::from_millis(20));
        }
        attending.join().unwrap()
    });
    assert_eq!(woken, Woken::Pressure);
    let rung = bell();
    rustix::io::write(&rung, &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(tick.attend(Instant::now() + LONG, rung.as_fd()), Woken::Called);
}

#[test]
fn what_a_tick_decides_is_recorded_and_decided_again() {
    let host = host();
    let mut tick = tick(&host, Bytes::mib(256));
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(folder.path(), Bytes::gib(1));
    let path = recorder.path();
    tick.record(recorder);
    for mib in (100..200).step_by(10) {
        grow(&host, mib);
        tick.once(&[subject(&host, 1, 7)]).unwrap();
    }
    let again = replay(Reader::open(&path).unwrap(), None).unwrap();
    assert_eq!((again.ticks, again.different), (10, 0), "{again:?}");
}

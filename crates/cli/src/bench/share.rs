//! Guests with the same contents in one trust domain: what they take of the host once they are merged, what merging
//! costs, and whether every one of them still finds what it wrote.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use napa_sys::host::Root;
use napa_sys::ksm::Registry;
use napa_units::{Bytes, Pages};

use super::figure::{Better, Figure, Subject, Unit};
use super::merging::{self, Usage};
use super::remote::{Remote, STOP_BOUND};
use super::subject::Machine;
use super::vm::Vm;
use super::{Bench, BenchError};
use crate::guests::{Line, Part, cpu_time};

const GUESTS: (usize, usize) = (20, 4);
const MEMORY: (Bytes, Bytes) = (Bytes::mib(512), Bytes::mib(64));
/// Less is not worth a measurement.
pub const HELD_MIN: Bytes = Bytes::mib(16);
/// More has no guest of this benchmark.
pub const HELD_MAX: Bytes = Bytes::gib(64);
/// What a VM has beside the pages that its guest holds: program, page tables, and a note about each page.
const BESIDES: Bytes = Bytes::mib(24);
const NOTES_SHARE: u64 = 16;
/// Memory of the host that is left alone while guests are started.
const RESERVE: Bytes = Bytes::gib(1);
const FILL_BOUND: Duration = Duration::from_secs(300);
/// Of what the guests hold, the part that has to be merged, in percent: the kernel passes over pages that it finds in
/// use, and takes them the next time.
const MERGED_PERCENT: u64 = 99;
/// Scans of the host after that much was merged: nearly all of the rest is, and what is left is private.
const SCANS_MORE: u64 = 2;
/// A page is merged after it was found unchanged once. What is not merged by then never is.
const SCANS_MAX: u64 = 10;
const MERGE_BOUND: Duration = Duration::from_secs(3600);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What the memory of all may be beyond that of one, in percent.
const BEYOND_MAX: f64 = 5.0;

/// How many guests hold how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    guests: usize,
    held: Bytes,
    pace: Pace,
}

/// How fast the kernel looks for equal pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As napa sets it.
    Usual,
    /// As fast as it can.
    Hurried,
}

/// Settings of the scanner for one that hurries. Kernels before 6.7 have no advisor to switch off.
const HURRIED: [(&str, &str); 3] =
    [("advisor_mode", "none"), ("pages_to_scan", "20000"), ("sleep_millisecs", "1")];

/// The guests that run.
struct Guests<'a> {
    bench: &'a Bench,
    fleet: Fleet,
    running: Vec<(Vm<'a>, PathBuf)>,
    scanner: Option<u32>,
}

/// Puts the kernel's settings back if the guests could not: they do it themselves unless they were killed.
struct Settings;

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    alone: Usage,
    all: Usage,
    kept_notes: Bytes,
    merging: Duration,
    scanning: Option<Duration>,
}

impl Fleet {
    /// What was asked for, or else what is usual.
    pub fn new(guests: Option<usize>, held: Option<Bytes>, is_quick: bool) -> Self {
        let (usual_guests, usual_held) = if is_quick { (GUESTS.1, MEMORY.1) } else { (GUESTS.0, MEMORY.0) };
        let pace = if is_quick { Pace::Hurried } else { Pace::Usual };
        Self { guests: guests.unwrap_or(usual_guests), held: held.unwrap_or(usual_held), pace }
    }

    /// Memory of a VM.
    fn memory(self) -> Bytes {
        let bytes = self.held.0 + self.held.0 / NOTES_SHARE + BESIDES.0;
        Bytes(bytes.next_multiple_of(Bytes::mib(2).0))
    }

    fn total(self) -> Bytes {
        Bytes(self.held.0 * self.guests as u64)
    }
}

/// Starts the guests as far as the host has room, merges, starts the rest, and has all of them look at their pages.
///
/// # Errors
/// The host cannot share pages or has no room, or a guest has lost what it wrote.
pub fn measure(bench: &Bench, fleet: Fleet) -> Result<Vec<Figure>, BenchError> {
    let _settings = Settings;
    let mut guests = Guests { bench, fleet, running: Vec::new(), scanner: merging::scanner() };
    guests.start_one()?;
    let mut outcome = Outcome { alone: guests.usage()?, ..Outcome::default() };
    let (begin, scanned_before) = (Instant::now(), guests.scanner_time());
    while guests.running.len() < fleet.guests {
        if !has_room(fleet.memory()) {
            guests.merge()?;
        }
        if !has_room(fleet.memory()) {
            let count = guests.running.len();
            return Err(BenchError::failed(format!(
                "the host has no room for more than {count} of {} guests with {}: ask for fewer (--guests), or for \
                 less memory (--memory)",
                fleet.guests, fleet.held
            )));
        }
        guests.start_one()?;
    }
    guests.merge()?;
    outcome.merging = begin.elapsed();
    outcome.scanning =
        guests.scanner_time().zip(scanned_before).map(|(now, before)| now.saturating_sub(before));
    outcome.all = guests.usage()?;
    outcome.kept_notes = merging::notes_of_kept_pages();
    guests.rewrite_and_check()?;
    Ok(outcome.figures(fleet))
}

impl Guests<'_> {
    /// Starts one more, and waits until it holds what it should.
    fn start_one(&mut self) -> Result<(), BenchError> {
        let (bench, index) = (self.bench, self.running.len());
        bench.progress(&format!("share: starting guest {} of {}", index + 1, self.fleet.guests));
        let socket = bench.folder.path().join(format!("share{index}.sock"));
        let cmdline = format!("workload=hold:{},identical seed=1 rewrite=on report=0", self.fleet.held);
        let machine = Machine { control: Some(&socket), ..Machine::plain(self.fleet.memory(), &cmdline) };
        let mut command =
            bench.vmms.command(Subject::Napa, machine).expect("napa has a command for every machine");
        let process = std::process::id();
        command.args(["--name", &format!("bench-{process}-{index}")]);
        command.args(["--share", &format!("domain=bench-{process}")]);
        let mut vm = Vm::start("napa", command, &bench.signals)?;
        vm.watch(FILL_BOUND, |line| match line {
            Line::Report(report) if report.phase == "fill" && report.part == Part::Total => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        self.running.push((vm, socket));
        Ok(())
    }

    /// Waits until what the guests hold is merged, or will not be.
    fn merge(&self) -> Result<(), BenchError> {
        if self.fleet.pace == Pace::Hurried {
            // Each guest that joined has set napa's pace, and the last one to leave puts back what was before.
            merging::set(&HURRIED);
        }
        let (until, first_scan) = (Instant::now() + MERGE_BOUND, merging::full_scans());
        let wanted = Pages::covering(Bytes(self.fleet.held.0 * self.running.len() as u64));
        let mut merged_at = None;
        loop {
            let percent = self.usage()?.merged.0 * 100 / wanted.0;
            let scans = merging::full_scans().saturating_sub(first_scan);
            if percent >= MERGED_PERCENT && scans >= *merged_at.get_or_insert(scans) + SCANS_MORE {
                return Ok(());
            }
            if scans > SCANS_MAX || Instant::now() > until {
                return Err(BenchError::failed(format!(
                    "{percent} % of what {} guests hold was merged after {scans} scans of the host",
                    self.running.len()
                )));
            }
            self.bench.progress(&format!(
                "share: {} of {} guests, {percent} % merged, {scans} scans",
                self.running.len(),
                self.fleet.guests
            ));
            self.running[0].0.settle(LOOK_EVERY)?;
        }
    }

    fn usage(&self) -> Result<Usage, BenchError> {
        let usages = self.running.iter().map(|(vm, _)| Usage::of(vm.pid()));
        usages
            .sum::<std::io::Result<Usage>>()
            .map_err(|error| BenchError::failed(format!("cannot look at a VM's process: {error}")))
    }

    fn scanner_time(&self) -> Option<Duration> {
        cpu_time(self.scanner?).ok()
    }

    /// Each guest in turn checks its pages, writes something of its own to each, checks again and ends. One at a time:
    /// a page that was written to takes memory of its own.
    fn rewrite_and_check(&mut self) -> Result<(), BenchError> {
        let count = self.running.len();
        for (index, (mut vm, socket)) in self.running.drain(..).enumerate() {
            self.bench.progress(&format!("share: guest {} of {count} rewrites and checks", index + 1));
            Remote::connect(Subject::Napa, &socket, self.fleet.memory())?.stop()?;
            let is_right = vm.watch(STOP_BOUND, |line| match line {
                Line::Corrupt => ControlFlow::Break(false),
                Line::Done(code) => ControlFlow::Break(*code == 0),
                _ => ControlFlow::Continue(()),
            })?;
            if !is_right {
                return Err(BenchError::failed(format!(
                    "guest {} of {count} found other pages than it had written",
                    index + 1
                )));
            }
            vm.wait_end(STOP_BOUND)?;
        }
        Ok(())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if Registry::leftovers(&Root::system()).is_some() {
            let restored = Registry::open(&Root::system()).map(|registry| registry.put_leftovers_back());
            if !matches!(restored, Ok(Ok(_))) {
                eprintln!("napa: the kernel's settings of KSM were not put back: run: napa doctor --mend");
            }
        }
    }
}

impl Outcome {
    fn figures(&self, fleet: Fleet) -> Vec<Figure> {
        let count = fleet.guests;
        let bytes = |bytes: Bytes| bytes.0 as f64;
        let notes = Bytes(self.all.notes.0 + self.kept_notes.0);
        let with_notes = Bytes(self.all.proportional.0 + notes.0);
        let beyond = |all: Bytes| (bytes(all) / bytes(self.alone.proportional) - 1.0) * 100.0;
        let per_gib = |time: Duration| time.as_nanos() as f64 * bytes(Bytes::gib(1)) / bytes(fleet.total());
        let figure = |name: String, unit, values: &[f64]| {
            let mut figure = Figure::new("share", name, unit, Better::Lower);
            figure.add(Subject::Napa, values);
            figure
        };
        let held = fleet.held;
        let part =
            figure(format!("{count} guests beyond one"), Unit::Percent, &[beyond(self.all.proportional)]);
        let pace = match fleet.pace {
            Pace::Usual => "",
            Pace::Hurried => ", in a hurry",
        };
        let scanning: Vec<f64> = self.scanning.map(per_gib).into_iter().collect();
        vec![
            figure(format!("one guest with {held}, Pss"), Unit::Bytes, &[bytes(self.alone.proportional)]),
            figure(format!("{count} guests, merged, Pss"), Unit::Bytes, &[bytes(self.all.proportional)]),
            part.limit(None, BEYOND_MAX, BEYOND_MAX),
            figure("the kernel's notes about their pages".into(), Unit::Bytes, &[bytes(notes)]),
            figure(format!("{count} guests and the notes beyond one"), Unit::Percent, &[beyond(with_notes)]),
            figure("one guest, private pages".into(), Unit::Bytes, &[bytes(self.alone.private)]),
            figure(format!("{count} guests, merged, private pages"), Unit::Bytes, &[bytes(self.all.private)]),
            figure("one guest, page tables".into(), Unit::Bytes, &[bytes(self.alone.page_tables)]),
            figure(
                format!("{count} guests, merged, page tables"),
                Unit::Bytes,
                &[bytes(self.all.page_tables)],
            ),
            figure(
                format!("time to merge a GiB of guests{pace}"),
                Unit::Nanoseconds,
                &[per_gib(self.merging)],
            ),
            figure(format!("ksmd's CPU time for a GiB of guests{pace}"), Unit::Nanoseconds, &scanning),
        ]
    }
}

/// Whether the host has room for one more guest, and one that rewrites its pages.
fn has_room(memory: Bytes) -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available(&text).is_none_or(|available| available.0 >= memory.0 * 2 + RESERVE.0)
}

/// The line `MemAvailable` (proc_meminfo(5)).
fn available(meminfo: &str) -> Option<Bytes> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok().map(Bytes::kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_what_was_asked_for_or_usual() {
        for (guests, held, is_quick, expected) in [
            (None, None, false, (20, Bytes::mib(512))),
            (None, None, true, (4, Bytes::mib(64))),
            (Some(3), Some(Bytes::mib(32)), true, (3, Bytes::mib(32))),
        ] {
            let fleet = Fleet::new(guests, held, is_quick);
            assert_eq!((fleet.guests, fleet.held), expected);
            assert!(fleet.memory().0 >= fleet.held.0 + BESIDES.0 && fleet.memory().0.is_multiple_of(2 << 20));
        }
    }

    #[test]
    fn memory_of_all_is_held_against_that_of_one() {
        let mib = |proportional, notes| Usage {
            proportional: Bytes::mib(proportional),
            notes: Bytes::mib(notes),
            ..Usage::default()
        };
        let outcome = Outcome {
            alone: mib(500, 0),
            all: mib(520, 70),
            kept_notes: Bytes::mib(10),
            merging: Duration::from_secs(20),
            scanning: None,
        };
        let figures = outcome.figures(Fleet::new(Some(4), None, false));
        let median = |name: &str| {
            let figure = figures.iter().find(|figure| figure.name == name).unwrap();
            figure.sample(Subject::Napa).map(|sample| sample.median.round())
        };
        assert_eq!(median("4 guests beyond one"), Some(4.0));
        assert_eq!(median("4 guests and the notes beyond one"), Some(20.0));
        assert_eq!(median("time to merge a GiB of guests"), Some(10e9));
        assert_eq!(median("ksmd's CPU time for a GiB of guests"), None);
    }

    #[test]
    fn available_memory_is_read() {
        assert_eq!(available("MemFree: 1 kB\nMemAvailable:   2048 kB\n"), Some(Bytes::mib(2)));
        assert_eq!(available(""), None);
    }
}

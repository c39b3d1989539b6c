//! Policies in a closed loop with a small model of a host and its guests.

mod model;

use model::{Answers, Guest, Host, Random, Report, mib, seeds};
use napa_policy::Kind;

/// Forty guests of 512 MiB that are idle, work by turns, work all at once, and are idle again: what each phase showed.
fn day(kind: Kind, seed: u64, kernel: bool) -> Vec<(&'static str, Report)> {
    let mut random = Random(seed);
    let guests: Vec<Guest> =
        (0..40).map(|id| Guest { hot_part: random.between(0.3, 0.7), ..Guest::new(id, 512) }).collect();
    let idle: Vec<f64> = guests.iter().map(|_| mib(1) * random.between(20.0, 40.0)).collect();
    let busy: Vec<f64> = guests.iter().map(|_| mib(1) * random.between(100.0, 400.0)).collect();
    let mut host = Host::new(mib(4096), mib(40 * 512), guests);
    host.kernel = kernel;
    let mut policy = kind.start();
    let by_turns = |index: usize, time: f64| {
        let works = (index + (time / 20.0) as usize).is_multiple_of(5);
        if works { busy[index] } else { idle[index] }
    };
    let mut phases = Vec::new();
    let phase = |name, host: &mut Host| (name, host.start_report());
    host.run(&mut policy, 60.0, |index, _| idle[index]);
    phases.push(phase("idle", &mut host));
    host.run(&mut policy, 120.0, by_turns);
    phases.push(phase("working", &mut host));
    host.run(&mut policy, 60.0, |index, _| busy[index]);
    phases.push(phase("spike", &mut host));
    host.run(&mut policy, 120.0, |index, _| idle[index]);
    phases.push(phase("idle", &mut host));
    phases
}

#[test]
fn a_day_of_forty_guests_in_a_fifth_of_their_memory() {
    for seed in seeds() {
        println!("seed {seed}, 40 guests of 512 MiB in 4 GiB\n{}", Report::head());
        for kind in Kind::ALL {
            for (phase, report) in day(kind, seed, true) {
                println!("{:8} {phase:8} {report}", kind.name());
                if kind == Kind::Napa {
                    assert_eq!(report.kills(), 0, "seed {seed}, {phase}");
                }
            }
        }
    }
}

#[test]
fn a_budget_is_kept_without_help_from_the_kernel() {
    for seed in seeds() {
        println!("seed {seed}, 40 guests of 512 MiB in a budget of 4 GiB\n{}", Report::head());
        for (phase, report) in day(Kind::Napa, seed, false) {
            println!("{:8} {phase:8} {report}, {:.0} s beyond", "napa", report.excess_seconds);
            assert_eq!(report.kills(), 0, "seed {seed}, {phase}");
            // At the worst moment guests touch twice the budget in a second, and a tenth of that can be swapped.
            assert!(
                report.excess < mib(2048),
                "seed {seed}, {phase}: {:.0} MiB beyond",
                report.excess / mib(1)
            );
            assert!(
                report.longest < 10.0,
                "seed {seed}, {phase}: a guest stood still for {} s",
                report.longest
            );
        }
    }
}

/// A hundred guests whose balloons never answer, and that all want most of their memory at once.
fn spike(kind: Kind, seed: u64) -> Report {
    let mut random = Random(seed);
    let guests: Vec<Guest> = (0..100)
        .map(|id| Guest {
            answers: Answers::Never,
            hot_part: random.between(0.2, 0.6),
            ..Guest::new(id, 512)
        })
        .collect();
    let busy: Vec<f64> = guests.iter().map(|_| mib(1) * random.between(200.0, 450.0)).collect();
    let mut host = Host::new(mib(10_240), mib(100 * 512), guests);
    let mut policy = kind.start();
    host.run(&mut policy, 30.0, |_, _| mib(50));
    host.start_report();
    host.run(&mut policy, 90.0, |index, time| if time < 75.0 { busy[index] } else { mib(50) });
    host.report
}

#[test]
fn a_spike_of_a_hundred_guests_with_silent_balloons_kills_nobody() {
    for seed in seeds() {
        println!("seed {seed}, 100 guests of 512 MiB in 10 GiB, balloons do not answer\n{}", Report::head());
        for kind in Kind::ALL {
            let report = spike(kind, seed);
            println!("{:8} {:8} {report}", kind.name(), "spike");
            if kind == Kind::Napa {
                assert_eq!(report.kills(), 0, "seed {seed}");
                assert!(report.longest < 10.0, "seed {seed}: a guest stood still for {} s", report.longest);
            }
        }
    }
}

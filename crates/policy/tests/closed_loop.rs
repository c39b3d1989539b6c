//! Policies in a closed loop with a small model of a host and its guests.

mod model;

use model::{Answers, Guest, Host, Random, Report, Says, mib, seeds};
use napa_policy::{Kind, Policy};

/// Where guests run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// On a host whose kernel reclaims when memory is full.
    Host,
    /// In a budget that only the policy keeps.
    Budget,
    /// The same, and guests cannot be kept from growing.
    PlainBudget,
}

/// Forty guests of 512 MiB that are idle, work by turns, work all at once, and are idle again: what each phase showed.
fn day(kind: Kind, seed: u64, site: Site) -> Vec<(&'static str, Report)> {
    let mut random = Random(seed);
    let guests: Vec<Guest> =
        (0..40).map(|id| Guest { hot_part: random.between(0.3, 0.7), ..Guest::new(id, 512) }).collect();
    let idle: Vec<f64> = guests.iter().map(|_| mib(1) * random.between(20.0, 40.0)).collect();
    let busy: Vec<f64> = guests.iter().map(|_| mib(1) * random.between(100.0, 400.0)).collect();
    let mut host = Host::new(mib(4096), mib(40 * 512), guests);
    (host.kernel, host.groups) = (site == Site::Host, site != Site::PlainBudget);
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
            for (phase, report) in day(kind, seed, Site::Host) {
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
        for (site, name, excess_max) in
            [(Site::Budget, "with brakes", mib(4096)), (Site::PlainBudget, "without brakes", mib(8192))]
        {
            println!("seed {seed}, 40 guests of 512 MiB in a budget of 4 GiB, {name}\n{}", Report::head());
            for (phase, report) in day(Kind::Napa, seed, site) {
                println!("{:8} {phase:8} {report}, {:.0} s beyond", "napa", report.excess_seconds);
                assert_eq!(report.kills(), 0, "seed {seed}, {phase}");
                // At the worst moment guests touch twice the budget in a second, and a tenth of that can be swapped.
                let excess = report.excess;
                assert!(
                    excess < excess_max,
                    "seed {seed}, {phase}, {name}: {:.0} MiB beyond",
                    excess / mib(1)
                );
                assert!(
                    report.longest < 10.0,
                    "seed {seed}, {phase}: a guest stood still for {} s",
                    report.longest
                );
            }
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
        let reports = Kind::ALL.map(|kind| {
            let report = spike(kind, seed);
            println!("{:8} {:8} {report}", kind.name(), "spike");
            (kind, report)
        });
        let of = |wanted: Kind| &reports.iter().find(|(kind, _)| *kind == wanted).expect("all ran").1;
        let napa = of(Kind::Napa);
        assert_eq!(napa.kills(), 0, "seed {seed}");
        assert!(napa.longest < 10.0, "seed {seed}: a guest stood still for {} s", napa.longest);
        for other in [Kind::Static, Kind::Swap] {
            let (ours, theirs) = (napa.stall(0.99), of(other).stall(0.99));
            assert!(ours < theirs * 1.1, "seed {seed}: guests wait {ours:.1} s, with {other} {theirs:.1} s");
        }
    }
}

/// Half of the guests need much more from one moment on, and the rest stays as it was.
#[test]
fn after_a_step_nothing_swings() {
    for seed in seeds() {
        let mut random = Random(seed);
        let guests: Vec<Guest> = (0..20).map(|id| Guest { hot_part: 0.3, ..Guest::new(id, 512) }).collect();
        let needs: Vec<(f64, f64)> = guests
            .iter()
            .map(|_| (mib(1) * random.between(20.0, 60.0), mib(1) * random.between(150.0, 250.0)))
            .collect();
        let mut host = Host::new(mib(3072), mib(20 * 512), guests);
        let mut policy = Kind::Napa.start();
        let wants = |index: usize, time: f64| {
            let (before, after) = needs[index];
            if index.is_multiple_of(2) && time > 60.0 { after } else { before }
        };
        host.run(&mut policy, 180.0, wants);
        // Two minutes after the step: what moves now moves for no reason.
        let mut history: Vec<Vec<f64>> = vec![Vec::new(); 20];
        for _ in 0..300 {
            host.run(&mut policy, 1.0, wants);
            for (guest, history) in host.guests.iter().zip(&mut history) {
                history.push(guest.ballooned / guest.limit);
            }
        }
        for (guest, history) in history.iter().enumerate() {
            let most = history.iter().fold(0.0, |most: f64, part| most.max(*part));
            let least = history.iter().fold(1.0, |least: f64, part| least.min(*part));
            let turns = reversals(history, 0.01);
            assert!(turns <= 2, "seed {seed}: the balloon of guest {guest} turned {turns} times in 5 min");
            assert!(
                most - least < 0.3,
                "seed {seed}: the balloon of guest {guest} went from {least} to {most}"
            );
        }
    }
}

/// How often a value turned back by more than `noise`.
fn reversals(values: &[f64], noise: f64) -> usize {
    let (mut turns, mut rising, mut extreme) = (0, None, values[0]);
    for value in values {
        match rising {
            Some(true) | None if *value < extreme - noise => {
                turns += usize::from(rising.is_some());
                (rising, extreme) = (Some(false), *value);
            }
            Some(false) | None if *value > extreme + noise => {
                turns += usize::from(rising.is_some());
                (rising, extreme) = (Some(true), *value);
            }
            Some(true) => extreme = extreme.max(*value),
            Some(false) => extreme = extreme.min(*value),
            None => {}
        }
    }
    turns
}

/// What makes a guest a bad one.
type Change = fn(&mut Guest);

/// The honest guests of a host with ten others: their waiting in the end, by index.
fn beside(seed: u64, change: Change) -> Report {
    let mut random = Random(seed);
    let mut guests: Vec<Guest> =
        (0..40).map(|id| Guest { hot_part: random.between(0.3, 0.5), ..Guest::new(id, 512) }).collect();
    guests[30..].iter_mut().for_each(change);
    let busy: Vec<f64> = guests.iter().map(|_| mib(1) * random.between(80.0, 250.0)).collect();
    let idle = mib(40);
    let mut host = Host::new(mib(4096), mib(40 * 512), guests);
    let mut policy = Kind::Napa.start();
    host.run(&mut policy, 180.0, |index, time| {
        let works = (index + (time / 15.0) as usize).is_multiple_of(3);
        if works { busy[index] } else { idle }
    });
    // A guest that lies about what it needs may have to kill programs of its own.
    assert!(
        host.report.host_kills == 0 && !host.guests[..30].iter().any(|guest| guest.killed),
        "seed {seed}"
    );
    let mut report = host.start_report();
    report.stalled.truncate(30);
    report
}

#[test]
fn guests_that_lie_or_do_not_answer_cost_the_others_nothing() {
    let bad: [(&str, Change); 5] = [
        ("never answer", |guest| guest.answers = Answers::Never),
        ("are slow", |guest| guest.answers = Answers::At(mib(1) / 4.0)),
        ("say nothing", |guest| guest.says = Says::Nothing),
        ("say that they lack memory", |guest| guest.says = Says::Greedy),
        ("say that they use nothing", |guest| guest.says = Says::Modest),
    ];
    for seed in seeds() {
        let honest = beside(seed, |_| {});
        println!("seed {seed}: 30 guests beside 10 honest ones wait {:.1} s (p99)", honest.stall(0.99));
        for (what, change) in bad {
            let report = beside(seed, change);
            println!("seed {seed}: beside 10 that {what} {:.1} s", report.stall(0.99));
            let bound = honest.stall(0.99) * 1.25 + 1.0;
            assert!(
                report.stall(0.99) <= bound,
                "seed {seed}: {:.1} s beside guests that {what}",
                report.stall(0.99)
            );
        }
    }
}

#[test]
fn a_thousand_guests_are_decided_about() {
    let guests: Vec<Guest> = (0..1000).map(|id| Guest::new(id, 512)).collect();
    let mut host = Host::new(mib(32 * 1024), mib(1000 * 512), guests);
    let mut policy = Kind::Napa.start();
    host.run(&mut policy, 20.0, |index, _| mib(30 + index as u64 % 200));
    let observation = host.observe();
    let start = std::time::Instant::now();
    let decision = policy.decide(&observation);
    let took = start.elapsed();
    println!("1000 guests, memory is {}, {} grants: {took:?}", decision.level, decision.grants.len());
    assert_eq!(decision.guests.len(), 1000);
    assert_eq!(host.report.kills(), 0);
}

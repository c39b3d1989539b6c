//! Reports for tests.

use napa_api::host::{
    Cooperation, Decided, Direction, Guarantees, HostFigures, HostReport, Level, SwapFigures, Time,
    VmMemoryRow,
};
use napa_units::Bytes;

/// A host with VMs `vm-0`, `vm-1` and so on: the higher the number, the more is in RAM.
pub fn report(vms: usize) -> HostReport {
    let time = Time(1_800_000_000_000);
    HostReport {
        time,
        level: Level::Soft,
        reasons: vec!["VMs hold 76 % of the budget".into()],
        policy: "napa".into(),
        admission_open: true,
        host: HostFigures {
            ram: Bytes::gib(16),
            capacity: Bytes::gib(4),
            held: Bytes::gib(3),
            available: Bytes::gib(11),
            free: Bytes::gib(9),
            sharing_profit: Some(300 << 20),
            pressure_some: 0.012,
            pressure_full: 0.001,
            swap: SwapFigures { total: Bytes::gib(8), used: Bytes::gib(2), compressed: Bytes::mib(500) },
        },
        guarantees: Guarantees {
            limits: Bytes::mib(512 * vms as u64),
            reservations: Bytes::mib(64 * vms as u64),
            swap_promised: Bytes::gib(3),
        },
        vms: (0..vms as u64).map(row).collect(),
        decisions: vec![
            decided(
                time,
                Some("vm-0"),
                "balloon",
                Direction::Take,
                64,
                "the level is soft, and it uses less",
            ),
            decided(time, Some("vm-1"), "reclaim", Direction::Return, 16, "its pages come back from swap"),
            decided(time, None, "share", Direction::Take, 256, "merging costs less than it saves"),
        ],
        troubles: Vec::new(),
    }
}

/// The same report some seconds later.
pub fn later(mut report: HostReport, seconds: u64) -> HostReport {
    let later = |time: &mut Time| time.0 += 1000 * seconds;
    later(&mut report.time);
    report.decisions.iter_mut().for_each(|decided| later(&mut decided.time));
    report
}

fn row(number: u64) -> VmMemoryRow {
    VmMemoryRow {
        name: format!("vm-{number}"),
        limit: Bytes::mib(512),
        reservation: Bytes::mib(64),
        shares: 1000,
        entitlement: Bytes::mib(160 + number),
        resident: Bytes::mib(100 + number),
        pss: Bytes::mib(120 + number),
        shared: Bytes::mib(40),
        zero: Bytes::mib(236),
        discarded: Bytes::mib(100),
        ballooned: Bytes::mib(96),
        balloon_target: Bytes::mib(128),
        swapped: Bytes::mib(36),
        working_set: (number != 0).then_some(Bytes::mib(90)),
        guest_available: (number != 0).then_some(Bytes::mib(30)),
        pressure: (number != 0).then_some(0.021),
        refaults: 1.5,
        cooperation: match number % 5 {
            2 => Cooperation::Stuck,
            4 => Cooperation::Uncooperative,
            _ => Cooperation::Cooperative,
        },
        reason: "its shares would allow more than it uses".into(),
    }
}

fn decided(
    time: Time,
    vm: Option<&str>,
    what: &str,
    direction: Direction,
    mebibytes: u64,
    reason: &str,
) -> Decided {
    let (vm, what, reason) = (vm.map(str::to_owned), what.to_owned(), reason.to_owned());
    Decided { time, vm, what, direction, bytes: Bytes::mib(mebibytes), reason }
}

//! What is told about a tick. No I/O but the time of day.

use std::collections::BTreeMap;

use napa_api::host::{
    Cooperation, Decided, Direction, Guarantees, HostFigures, HostReport, Level, SwapFigures, Time,
    VmMemoryRow,
};
use napa_policy::{GuestDecision, GuestObservation, Order};
use napa_units::{Bytes, PageState, VmId};

use super::Round;
use crate::clock;
use crate::guests::Guest;
use crate::sensors::HostState;

/// An order that was given.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// To which VM.
    pub vm: String,
    /// What by.
    pub what: &'static str,
    /// What.
    pub order: Order,
    /// Why.
    pub reason: String,
}

/// What the report is about, besides what the policy saw.
pub struct Seen<'a> {
    /// The host's own figures.
    pub state: &'a HostState,
    /// The VMs.
    pub guests: &'a BTreeMap<VmId, Guest>,
    /// What they were told.
    pub decided: Vec<Ordered>,
    /// What is wrong.
    pub troubles: Vec<String>,
}

/// The report of a round.
pub fn report(round: &Round<'_>, seen: Seen<'_>) -> HostReport {
    let time = clock::now();
    let (observation, decision) = (round.observation, round.decision);
    let mut vms: Vec<VmMemoryRow> = observation
        .guests
        .iter()
        .filter_map(|guest| {
            let decided = decision.guests.iter().find(|decided| decided.guest == guest.id);
            Some(row(seen.guests.get(&guest.id)?, guest, decided))
        })
        .collect();
    vms.sort_by(|left, right| left.name.cmp(&right.name));
    let host = &observation.host;
    let sum = |size: fn(&GuestObservation) -> Bytes| {
        Bytes(observation.guests.iter().fold(0, |sum, guest| sum.saturating_add(size(guest).0)))
    };
    HostReport {
        time,
        level: level(decision.level),
        reasons: decision.reasons.clone(),
        policy: round.policy.to_owned(),
        admission_open: decision.admission_open,
        host: figures(host, seen.state),
        guarantees: Guarantees {
            limits: sum(|guest| guest.limit),
            reservations: sum(|guest| guest.reservation),
            swap_promised: host.swap_promised,
        },
        vms,
        decisions: seen.decided.into_iter().map(|ordered| decided(ordered, time)).collect(),
        troubles: seen.troubles,
    }
}

fn figures(host: &napa_policy::HostObservation, state: &HostState) -> HostFigures {
    let swap = &state.swap;
    let compressed = [swap.compressed.memory, state.memory.zswap].into_iter().flatten();
    HostFigures {
        ram: state.memory.total,
        capacity: host.capacity,
        held: host.held,
        available: host.available,
        free: state.memory.free,
        sharing_profit: state.sharing.and_then(|sharing| sharing.profit),
        pressure_some: host.pressure.some.get(),
        pressure_full: host.pressure.full.get(),
        swap: SwapFigures {
            total: host.swap_total,
            used: Bytes(host.swap_total.0.saturating_sub(host.swap_free.0)),
            compressed: Bytes(compressed.fold(0, |sum, size| sum.saturating_add(size.0))),
        },
    }
}

fn row(guest: &Guest, observed: &GuestObservation, decided: Option<&GuestDecision>) -> VmMemoryRow {
    let balloon = guest.balloon().map(|(report, _)| report);
    // Pages that take no RAM were never touched, or given back; the VM's own ledger tells how many.
    let ledger = guest.probes.ledger();
    let given_back = ledger.map_or(Bytes(0), |ledger| ledger.count(PageState::Discarded).bytes());
    let discarded = Bytes(given_back.0.saturating_sub(observed.ballooned.0)).min(observed.zero);
    VmMemoryRow {
        name: guest.subject.name.clone(),
        limit: observed.limit,
        reservation: observed.reservation,
        shares: observed.shares.0,
        entitlement: decided.map_or(observed.limit, |decided| decided.entitlement),
        resident: Bytes(observed.resident.0 - observed.shared.0),
        pss: observed.held,
        shared: observed.shared,
        zero: Bytes(observed.zero.0 - discarded.0),
        discarded,
        ballooned: observed.ballooned,
        balloon_target: balloon.map_or(Bytes(0), |report| report.target),
        swapped: observed.swapped,
        working_set: decided.map(|decided| decided.working_set),
        guest_available: observed.hints.as_ref().and_then(|hints| hints.available),
        pressure: guest.readings.pressure().map(|shares| shares.some),
        refaults: guest.readings.refaults_per_second(),
        cooperation: decided.map_or(Cooperation::Cooperative, |decided| match decided.cooperation {
            napa_policy::Cooperation::Cooperative => Cooperation::Cooperative,
            napa_policy::Cooperation::Stuck => Cooperation::Stuck,
            napa_policy::Cooperation::Uncooperative => Cooperation::Uncooperative,
        }),
        reason: decided.map(|decided| decided.reason.clone()).unwrap_or_default(),
    }
}

fn decided(ordered: Ordered, time: Time) -> Decided {
    let (direction, bytes) = match ordered.order {
        Order::Take(pages) => (Direction::Take, pages.bytes()),
        Order::Return(pages) => (Direction::Return, pages.bytes()),
        Order::Cancel => (Direction::Cancel, Bytes(0)),
    };
    let (vm, what, reason) = (Some(ordered.vm), ordered.what.to_owned(), ordered.reason);
    Decided { time, vm, what, direction, bytes, reason }
}

const fn level(level: napa_policy::Level) -> Level {
    match level {
        napa_policy::Level::High => Level::High,
        napa_policy::Level::Clear => Level::Clear,
        napa_policy::Level::Soft => Level::Soft,
        napa_policy::Level::Hard => Level::Hard,
        napa_policy::Level::Low => Level::Low,
    }
}

//! Each law on figures that can be reckoned by hand.

use std::time::Duration;

use napa_units::{Bytes, Pages, Shares, VmId};

use super::{Ksm, Mom, Proxmox, Static, Swap};
use crate::{
    Consent, Direction, GuestHints, GuestObservation, HostObservation, Observation, Offer, OfferId, Order,
    Policy, Price, Works,
};

/// A host of 16 GiB of which this many hundredths are free, with guests of 4 GiB that use 1 GiB each.
fn observation(free_percent: u64, shares: &[u32]) -> Observation {
    let capacity = Bytes::gib(16);
    let free = Bytes(capacity.0 / 100 * free_percent);
    let guest = |(id, shares): (u64, &u32)| GuestObservation {
        shares: Shares(*shares),
        resident: Bytes::gib(4),
        hints: Some(GuestHints { free: Some(Bytes::gib(3)), ..GuestHints::default() }),
        ..GuestObservation::untouched(VmId(id), Bytes::gib(4))
    };
    let offer = |id: u64, guest, direction, consent, works| Offer {
        id: OfferId(id),
        guest,
        direction,
        pages_max: Pages(1 << 20),
        price: Price(1),
        delay: Duration::ZERO,
        reversible: true,
        consent,
        works,
        outstanding: Pages(0),
        taken: Pages(0),
    };
    let guests: Vec<GuestObservation> = (0..).zip(shares).map(guest).collect();
    let mut offers = vec![offer(1000, None, Direction::Take, Consent::Host, Works::Search)];
    for guest in &guests {
        let (id, whose) = (guest.id.0 * 10, Some(guest.id));
        offers.push(offer(id, whose, Direction::Take, Consent::Guest, Works::Amount));
        offers.push(offer(id + 1, whose, Direction::Return, Consent::Guest, Works::Amount));
        offers.push(offer(id + 2, whose, Direction::Take, Consent::Host, Works::Amount));
    }
    let host = HostObservation {
        capacity,
        held: Bytes(capacity.0 - free.0),
        available: free,
        ..HostObservation::default()
    };
    Observation { elapsed: Duration::from_secs(10), host, guests, offers }
}

/// The orders of the decision that comes after ten seconds, as offer and MiB (negative: returned).
fn check(policy: &mut dyn Policy, observation: &Observation, expected: &[(u64, i64)]) {
    let amount = |pages: Pages| (pages.bytes().0 >> 20) as i64;
    let grants = policy.decide(observation).grants;
    let amounts = grants.iter().filter(|grant| grant.offer != OfferId(1000)).map(|grant| match grant.order {
        Order::Take(pages) => (grant.offer.0, amount(pages)),
        Order::Return(pages) => (grant.offer.0, -amount(pages)),
        Order::Cancel => (grant.offer.0, 0),
    });
    assert_eq!(amounts.collect::<Vec<_>>(), expected);
}

fn paces(policy: &mut dyn Policy, observation: &Observation, minutes: usize) -> Vec<u64> {
    let decisions = (0..minutes * 6).map(|_| policy.decide(observation));
    let orders = decisions.flat_map(|decision| decision.grants).map(|grant| grant.order);
    orders.filter_map(|order| if let Order::Take(pages) = order { Some(pages.0) } else { None }).collect()
}

#[test]
fn a_static_host_moves_nothing() {
    check(&mut Static::default(), &observation(0, &[100; 4]), &[]);
}

#[test]
fn ksm_looks_faster_while_memory_is_short_and_slower_after() {
    let mut ksm = Ksm::default();
    // 64 pages and 300 more a minute, every 10 ms, up to 1250: 488 MiB a second.
    assert_eq!(paces(&mut ksm, &observation(10, &[100; 4]), 5), [36_400, 66_400, 96_400, 125_000, 125_000]);
    assert_eq!(paces(&mut ksm, &observation(30, &[100; 4]), 2), [120_000, 115_000]);
    // Three guests of 4 GiB are less than 80 % of the host, so it stops.
    assert_eq!(paces(&mut ksm, &observation(30, &[100; 3]), 1), Vec::<u64>::new());
}

#[test]
fn mom_shrinks_by_a_twentieth_towards_what_is_used() {
    // 1 GiB is used, and 10 % of 4 GiB should stay free: the step of 5 % is smaller.
    check(&mut Mom::default(), &observation(10, &[100]), &[(0, 204)]);
    // With enough free memory guests grow, but not beyond their limit.
    check(&mut Mom::default(), &observation(30, &[100]), &[]);
    let mut shrunk = observation(30, &[100]);
    shrunk.guests[0].ballooned = Bytes::gib(2);
    shrunk.guests[0].hints.as_mut().expect("it speaks").free = Some(Bytes::gib(1));
    check(&mut Mom::default(), &shrunk, &[(1, -102)]);
}

#[test]
fn proxmox_spreads_by_shares_a_hundred_mib_at_once() {
    check(&mut Proxmox::default(), &observation(10, &[100; 2]), &[(0, 100), (10, 100)]);
    // 1 % of 16 GiB, 163 MiB: the guest with more shares would be entitled to more than it has.
    check(&mut Proxmox::default(), &observation(19, &[100, 300]), &[(0, 100)]);
    check(&mut Proxmox::default(), &observation(20, &[100; 2]), &[]);
}

#[test]
fn swap_takes_from_all_alike_below_its_watermark() {
    // 1/32 of 16 GiB is 512 MiB, of which 163 are free.
    check(&mut Swap::default(), &observation(1, &[100; 2]), &[(2, 174), (12, 174)]);
    check(&mut Swap::default(), &observation(2, &[100; 2]), &[]);
}

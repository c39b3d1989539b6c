//! What holds for every decision, whatever is observed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use napa_policy::{
    Consent, Decision, Direction, Fraction, GuestHints, GuestObservation, HostObservation, Kind, Observation,
    Offer, OfferId, Order, Policy, Pressure, Price, WorkingSet, Works,
};
use napa_units::{Bytes, Pages, Shares, VmId};
use proptest::prelude::*;

/// Numbers of which most are near those of a host of some GiB, and some are absurd.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..8_u64 << 30, 2 => 0..1_u64 << 20, 1 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)]
}

fn fraction() -> impl Strategy<Value = Fraction> {
    prop_oneof![3 => Just(0.0), 1 => 0.0..0.2, 1 => any::<f64>()].prop_map(Fraction::new)
}

fn pressure() -> impl Strategy<Value = Pressure> {
    (fraction(), fraction()).prop_map(|(some, full)| Pressure { some, full })
}

fn hints() -> impl Strategy<Value = Option<GuestHints>> {
    let maybe = || proptest::option::of(number());
    let hints = (maybe(), maybe(), maybe(), maybe(), maybe(), maybe()).prop_map(|numbers| {
        let (total, available, free, oom_kills, alloc_stalls, direct_scans) = numbers;
        let bytes = |number: Option<u64>| number.map(Bytes);
        GuestHints {
            total: bytes(total),
            available: bytes(available),
            free: bytes(free),
            caches: None,
            oom_kills: oom_kills.map(|count| count % 3),
            alloc_stalls: alloc_stalls.map(|count| count % 3),
            direct_scans: direct_scans.map(|count| count % 3),
            major_faults: None,
        }
    });
    proptest::option::weighted(0.8, hints)
}

fn guest(id: u64) -> impl Strategy<Value = GuestObservation> {
    let working_set = proptest::option::of((number(), 0..300_u64)).prop_map(|estimate| {
        estimate.map(|(bytes, age)| WorkingSet { bytes: Bytes(bytes), age: Duration::from_secs(age) })
    });
    let sizes = proptest::array::uniform8(number());
    (sizes, any::<u32>(), working_set, pressure(), hints()).prop_map(
        move |(sizes, shares, working_set, pressure, hints)| {
            let [limit, reservation, overhead, held, resident, swapped, ballooned, refaults] =
                sizes.map(Bytes);
            GuestObservation {
                reservation,
                shares: Shares(shares % 1000),
                overhead,
                held,
                resident,
                swapped,
                ballooned,
                working_set,
                refaults: Pages(refaults.0 / 4096),
                pressure,
                hints,
                ..GuestObservation::untouched(VmId(id), limit)
            }
        },
    )
}

fn host() -> impl Strategy<Value = HostObservation> {
    (proptest::array::uniform8(number()), pressure()).prop_map(|(sizes, pressure)| {
        let [capacity, held, available, swap_total, swap_free, swap_promised, rate, profit] =
            sizes.map(Bytes);
        HostObservation {
            capacity,
            held,
            available,
            swap_total,
            swap_free,
            swap_promised,
            pressure,
            allocation_rate_p99: rate,
            sharing_profit: profit,
        }
    })
}

/// The four offers about a guest, and one search about all.
fn offers(guests: u64) -> impl Strategy<Value = Vec<Offer>> {
    proptest::collection::vec(proptest::array::uniform3(number()), guests as usize * 4 + 1).prop_map(
        |numbers| {
            let offer = |(index, [most, outstanding, taken]): (usize, [u64; 3])| {
                let (guest, kind) = (index as u64 / 4, index as u64 % 4);
                Offer {
                    id: OfferId(index as u64),
                    guest: Some(VmId(guest)),
                    direction: if kind % 2 == 0 { Direction::Take } else { Direction::Return },
                    pages_max: Pages(most / 4096),
                    price: Price(10 * kind as u32),
                    delay: Duration::from_secs(1),
                    reversible: true,
                    consent: if kind < 2 { Consent::Guest } else { Consent::Host },
                    works: Works::Amount,
                    outstanding: Pages(if outstanding % 3 == 0 { outstanding / 4096 } else { 0 }),
                    taken: Pages(taken / 4096),
                }
            };
            let mut offers: Vec<Offer> = numbers.into_iter().enumerate().map(offer).collect();
            let search = offers.last_mut().expect("there is one more");
            (search.guest, search.works, search.consent) = (None, Works::Search, Consent::Host);
            offers
        },
    )
}

fn observation() -> impl Strategy<Value = Observation> {
    (1..6_u64).prop_flat_map(|guests| {
        let elapsed = prop_oneof![3 => Just(1_000_000_000), 1 => 0..60_000_000_000_u64, 1 => any::<u64>()];
        let each: Vec<_> = (0..guests).map(guest).collect();
        (elapsed, host(), each, offers(guests)).prop_map(|(elapsed, host, guests, offers)| Observation {
            elapsed: Duration::from_nanos(elapsed),
            host,
            guests,
            offers,
        })
    })
}

/// What every decision of every policy keeps to.
fn check_lawful(observation: &Observation, decision: &Decision) {
    let offers: HashMap<OfferId, &Offer> = observation.offers.iter().map(|offer| (offer.id, offer)).collect();
    let mut granted = HashSet::new();
    for grant in &decision.grants {
        let offer = offers[&grant.offer];
        assert!(granted.insert(grant.offer), "two grants for one offer");
        assert!(!grant.reason.is_empty() && grant.guest == offer.guest);
        match grant.order {
            Order::Take(pages) => assert!(offer.direction == Direction::Take && pages <= offer.pages_max),
            Order::Return(pages) => assert!(offer.direction == Direction::Return && pages <= offer.pages_max),
            Order::Cancel => {}
        }
    }
    let ids: Vec<VmId> = decision.guests.iter().map(|guest| guest.guest).collect();
    assert_eq!(ids, observation.guests.iter().map(|guest| guest.id).collect::<Vec<_>>());
    for (guest, seen) in decision.guests.iter().zip(&observation.guests) {
        assert!(guest.entitlement <= seen.limit && guest.entitlement >= seen.reservation.min(seen.limit));
        assert!(guest.protected <= guest.entitlement && !guest.reason.is_empty());
        assert!(guest.brake.is_none_or(|brake| brake.at_most <= Duration::from_secs(2)));
    }
}

/// Nobody is asked for memory and swapped in the same decision.
fn check_not_asked_and_taken(observation: &Observation, decision: &Decision) {
    let order =
        |offer: &Offer| decision.grants.iter().find(|grant| grant.offer == offer.id).map(|grant| grant.order);
    let amounts = || observation.offers.iter().filter(|offer| offer.works == Works::Amount);
    let takes = amounts().filter(|offer| offer.direction == Direction::Take);
    let taken: HashSet<Option<VmId>> = takes
        .clone()
        .filter(|offer| offer.consent == Consent::Host && matches!(order(offer), Some(Order::Take(_))))
        .map(|offer| offer.guest)
        .collect();
    for offer in takes.filter(|offer| offer.consent == Consent::Guest && taken.contains(&offer.guest)) {
        let asked = match order(offer) {
            Some(Order::Take(_)) => true,
            Some(_) => false,
            None => offer.outstanding > Pages(0),
        };
        // What was ordered back instead replaces what is outstanding.
        let back = amounts().any(|other| {
            (other.guest, other.consent) == (offer.guest, Consent::Guest)
                && matches!(order(other), Some(Order::Return(_)))
        });
        assert!(!asked || back, "{offer:?}");
    }
}

/// What is returned fits in what is free, unless a guest is in distress: then its limit was promised to it.
fn check_two_phases(observation: &Observation, decision: &Decision) {
    let distress = |grant: &&napa_policy::Grant| grant.reason.contains("distress");
    let returned = |order: &Order| if let Order::Return(pages) = order { pages.bytes().0 } else { 0 };
    let sum: u128 = decision
        .grants
        .iter()
        .filter(|grant| !distress(grant))
        .map(|grant| u128::from(returned(&grant.order)))
        .sum();
    assert!(sum <= u128::from(observation.host.free().0), "{sum} returned of {:?}", observation.host.free());
}

proptest! {
    // A failure prints its input; there is no file to keep it in.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_policy_is_lawful_whatever_it_sees(observations in proptest::collection::vec(observation(), 1..8)) {
        for kind in Kind::ALL {
            let mut policy = kind.start();
            for observation in &observations {
                check_lawful(observation, &policy.decide(observation));
            }
        }
    }

    #[test]
    fn napa_never_asks_and_takes_and_returns_only_what_is_free(
        observations in proptest::collection::vec(observation(), 1..8),
    ) {
        let mut policy = Kind::Napa.start();
        for observation in &observations {
            let decision = policy.decide(observation);
            check_not_asked_and_taken(observation, &decision);
            check_two_phases(observation, &decision);
        }
    }

    /// No more is promised than there is, with half of what sharing saves, unless reservations alone are more.
    #[test]
    fn entitlements_fit_the_host(observation in observation()) {
        let decision = Kind::Napa.start().decide(&observation);
        let sum = |sizes: &mut dyn Iterator<Item = Bytes>| sizes.map(|bytes| u128::from(bytes.0)).sum::<u128>();
        let entitled = sum(&mut decision.guests.iter().map(|guest| guest.entitlement));
        let reserved = sum(&mut observation.guests.iter().map(|guest| guest.reservation.min(guest.limit)));
        let host = &observation.host;
        let most = u128::from(host.capacity.0) + u128::from(host.sharing_profit.0) / 2;
        prop_assert!(entitled <= most.max(reserved), "{} of {}", entitled, most);
    }

    /// Whatever a guest says, it is entitled to no more than if it said nothing, and the others to no less.
    #[test]
    fn words_never_cost_the_others(observation in observation(), words in hints()) {
        let with = |words: Option<GuestHints>| {
            let mut observation = observation.clone();
            observation.guests[0].hints = words;
            let decision = Kind::Napa.start().decide(&observation);
            decision.guests.iter().map(|guest| guest.entitlement.0).collect::<Vec<_>>()
        };
        let (silent, speaking) = (with(None), with(words));
        // Rounding gives some bytes to whoever comes first.
        let slack = |bytes: u64| bytes.saturating_add(4096.max(bytes >> 40));
        prop_assert!(speaking[0] <= slack(silent[0]));
        for (speaking, silent) in speaking.iter().zip(&silent).skip(1) {
            prop_assert!(slack(*speaking) >= *silent);
        }
    }

    /// A policy that was stored and read again decides as one that was not.
    #[test]
    fn a_stored_policy_goes_on(observations in proptest::collection::vec(observation(), 2..6)) {
        for kind in Kind::ALL {
            let mut policy = kind.start();
            let (last, before) = observations.split_last().expect("there are two at least");
            for observation in before {
                policy.decide(observation);
            }
            let text = serde_json::to_string(&policy).expect("a policy can be stored");
            let mut stored: napa_policy::Engine = serde_json::from_str(&text).expect("a policy can be read");
            // Averages may lose their last digit on the way.
            let (expected, found) = (policy.decide(last), stored.decide(last));
            prop_assert_eq!(expected.level, found.level);
            prop_assert_eq!(expected.grants.len(), found.grants.len());
        }
    }

    #[test]
    fn an_observation_and_a_decision_survive_their_journey(observation in observation()) {
        let decision = Kind::Napa.start().decide(&observation);
        let text = serde_json::to_string(&decision).expect("a decision can be written");
        prop_assert_eq!(&serde_json::from_str::<Decision>(&text).expect("and read"), &decision);
        let text = serde_json::to_string(&observation).expect("an observation can be written");
        serde_json::from_str::<Observation>(&text).expect("and read");
    }
}

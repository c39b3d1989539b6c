//! Decisions about a host of 16 GiB (m is 512 MiB) with guests of 4 GiB, step by step.

use std::time::Duration;

use napa_units::{Bytes, Pages, VmId};

use super::Napa;
use crate::{
    Consent, Cooperation, Decision, Direction, GuestHints, GuestObservation, HostObservation, Level,
    Observation, Offer, OfferId, Order, Policy, Price, Works,
};

/// One guest of the play: what it holds and uses, and its balloon.
#[derive(Clone, Copy)]
struct Actor {
    resident_mib: u64,
    used_mib: u64,
    ballooned: Pages,
    target: Pages,
    alloc_stalls: u64,
}

impl Actor {
    /// A guest that holds 4 GiB and uses 1.
    const IDLE: Self =
        Self { resident_mib: 4000, used_mib: 1000, ballooned: Pages(0), target: Pages(0), alloc_stalls: 0 };

    fn observe(&self, id: u64) -> GuestObservation {
        let total = Bytes(Bytes::gib(4).0 - self.ballooned.bytes().0);
        let available = Some(Bytes(total.0.saturating_sub(Bytes::mib(self.used_mib).0)));
        let resident = Bytes::mib(self.resident_mib);
        GuestObservation {
            held: resident,
            resident,
            ballooned: self.ballooned.bytes(),
            hints: Some(GuestHints {
                total: Some(total),
                available,
                free: available,
                alloc_stalls: Some(self.alloc_stalls),
                ..GuestHints::default()
            }),
            ..GuestObservation::untouched(VmId(id), Bytes::gib(4))
        }
    }

    /// A balloon in both directions, and swap.
    fn offers(&self, id: u64) -> [Offer; 3] {
        let offer = |kind: u64, direction, consent, pages_max, outstanding| Offer {
            id: OfferId(id * 4 + kind),
            guest: Some(VmId(id)),
            direction,
            pages_max,
            price: Price(10 + kind as u32),
            delay: Duration::from_secs(1),
            reversible: true,
            consent,
            works: Works::Amount,
            outstanding,
            taken: if kind < 2 { self.ballooned } else { Pages(0) },
        };
        let less = |a: Pages, b: Pages| Pages(a.0.saturating_sub(b.0));
        let (room, swap) = (less(Pages(1 << 20), self.ballooned), Pages(self.resident_mib * 256));
        [
            offer(0, Direction::Take, Consent::Guest, room, less(self.target, self.ballooned)),
            offer(1, Direction::Return, Consent::Guest, self.ballooned, less(self.ballooned, self.target)),
            offer(2, Direction::Take, Consent::Host, swap, Pages(0)),
        ]
    }
}

/// A host, its guests, and a policy that has seen all that happened.
struct Play {
    policy: Napa,
    /// Below zero: what VMs hold too much.
    free_mib: i64,
    actors: Vec<Actor>,
}

impl Play {
    fn new(free_mib: i64, actors: Vec<Actor>) -> Self {
        Self { policy: Napa::default(), free_mib, actors }
    }

    fn after(&mut self, elapsed: Duration) -> Decision {
        let capacity = Bytes::gib(16);
        let host = HostObservation {
            capacity,
            held: Bytes(capacity.0.saturating_add_signed(-self.free_mib << 20)),
            available: capacity,
            ..HostObservation::default()
        };
        let each = || (0..).zip(&self.actors);
        let decision = self.policy.decide(&Observation {
            elapsed,
            host,
            guests: each().map(|(id, actor)| actor.observe(id)).collect(),
            offers: each().flat_map(|(id, actor)| actor.offers(id)).collect(),
        });
        for grant in &decision.grants {
            let actor = &mut self.actors[(grant.offer.0 / 4) as usize];
            match (grant.offer.0 % 4, grant.order) {
                (0, Order::Take(pages)) => actor.target = Pages(actor.ballooned.0 + pages.0),
                (1, Order::Return(pages)) => actor.target = Pages(actor.ballooned.0 - pages.0),
                (0 | 1, Order::Cancel) => actor.target = actor.ballooned,
                _ => {}
            }
        }
        decision
    }

    fn second(&mut self) -> Decision {
        self.after(Duration::from_secs(1))
    }
}

fn orders(decision: &Decision, guest: u64) -> Vec<(u64, Order)> {
    let of_guest = decision.grants.iter().filter(|grant| grant.guest == Some(VmId(guest)));
    of_guest.map(|grant| (grant.offer.0 % 4, grant.order)).collect()
}

/// 5 % of 4 GiB.
const STEP: Pages = Pages(52_429);

#[test]
fn a_guest_that_answers_is_asked_step_by_step_until_memory_is_free() {
    let mut play = Play::new(400, vec![Actor::IDLE; 5]);
    let first = play.second();
    assert_eq!((first.level, orders(&first, 0)), (Level::Soft, vec![(0, Order::Take(STEP))]));
    // It is not asked for more before it has answered.
    assert_eq!(orders(&play.second(), 0), []);
    // It took two seconds, so it is asked for what it gives in one.
    play.actors.iter_mut().for_each(|actor| actor.ballooned = actor.target);
    assert_eq!(orders(&play.second(), 0), vec![(0, Order::Take(Pages(STEP.0 / 2)))]);
    play.free_mib = 5000;
    play.actors.iter_mut().for_each(|actor| actor.ballooned = actor.target);
    assert_eq!(orders(&play.second(), 0), []);
}

#[test]
fn a_guest_keeps_its_floor() {
    // 192 MiB should stay, so of 220 MiB it is asked for 28.
    let tight = Actor { used_mib: 4096 - 220, ..Actor::IDLE };
    let mut play = Play::new(400, vec![tight, Actor { resident_mib: 4090, ..tight }]);
    let decision = play.second();
    for guest in 0..2 {
        for (_, order) in orders(&decision, guest) {
            let Order::Take(pages) = order else { panic!("{order:?}") };
            assert!(pages.bytes() <= Bytes::mib(28), "{pages:?}");
        }
    }
}

#[test]
fn an_unmet_order_is_cancelled_after_five_seconds_and_after_twenty_the_guest_is_left_alone() {
    let mut play = Play::new(400, vec![Actor::IDLE; 5]);
    let mut story = Vec::new();
    for second in 0..40 {
        let decision = play.second();
        for (_, order) in orders(&decision, 0) {
            story.push((second, order == Order::Cancel, decision.guests[0].cooperation));
        }
    }
    use Cooperation::{Cooperative, Stuck, Uncooperative};
    assert_eq!(
        story,
        [
            (0, false, Cooperative),
            (5, true, Stuck),
            (10, false, Stuck),
            (15, true, Stuck),
            (20, false, Stuck),
            (25, true, Uncooperative)
        ]
    );
    // Ten minutes later it is asked again, for the least there is, and then left alone for twenty.
    let asked = play.after(Duration::from_secs(600));
    assert_eq!(orders(&asked, 0), vec![(0, Order::Take(Pages(256)))]);
    assert_eq!(orders(&play.after(Duration::from_secs(5)), 0), vec![(0, Order::Cancel)]);
    assert_eq!(orders(&play.after(Duration::from_secs(1190)), 0), []);
    assert_eq!(orders(&play.after(Duration::from_secs(10)), 0), vec![(0, Order::Take(Pages(256)))]);
    // Once it answers, it is as good as any other.
    play.actors[0].ballooned = play.actors[0].target;
    assert_eq!(play.second().guests[0].cooperation, Cooperative);
}

#[test]
fn a_guest_in_distress_has_everything_back_at_once_and_once() {
    let mut play = Play::new(400, vec![Actor { ballooned: STEP, target: STEP, ..Actor::IDLE }; 5]);
    play.second();
    for pause in [600, 1200, 2400, 3600] {
        play.actors[0].ballooned = STEP;
        play.actors[0].target = STEP;
        play.actors[0].alloc_stalls += 1;
        assert_eq!(orders(&play.second(), 0), vec![(1, Order::Return(STEP))], "{pause}");
        assert_eq!(orders(&play.second(), 0), [], "once, before the pause of {pause} s");
        play.actors[0].ballooned = Pages(0);
        assert_eq!(orders(&play.after(Duration::from_secs(pause - 10)), 0), [], "in the pause of {pause} s");
        let asked = play.after(Duration::from_secs(20));
        assert!(
            matches!(orders(&asked, 0)[..], [(0, Order::Take(_))]),
            "after the pause of {pause} s: {asked:?}"
        );
    }
}

#[test]
fn a_guest_that_has_become_short_has_everything_back_and_a_minute_of_peace() {
    let mut play = Play::new(400, vec![Actor { ballooned: STEP, target: STEP, ..Actor::IDLE }; 5]);
    play.actors[0].used_mib = 3800;
    assert_eq!(orders(&play.second(), 0), vec![(1, Order::Return(STEP))]);
    (play.actors[0].used_mib, play.actors[0].ballooned) = (1000, Pages(0));
    assert_eq!(orders(&play.after(Duration::from_secs(58)), 0), []);
    assert!(matches!(orders(&play.after(Duration::from_secs(3)), 0)[..], [(0, Order::Take(_))]));
}

#[test]
fn the_host_takes_from_those_that_do_not_answer_first_and_never_below_an_entitlement() {
    let mut play = Play::new(400, vec![Actor::IDLE; 5]);
    // Guest 0 alone does not answer, and the others have nothing to spare from then on.
    for _ in 0..8 {
        play.second();
        play.actors[1..].iter_mut().for_each(|actor| actor.ballooned = actor.target);
    }
    play.actors[1..].iter_mut().for_each(|actor| {
        (actor.used_mib, actor.ballooned, actor.target) = (3800, Pages(0), Pages(0));
    });
    play.free_mib = 100;
    let decision = play.second();
    assert_eq!((decision.level, decision.guests[0].cooperation), (Level::Low, Cooperation::Stuck));
    let Some((2, Order::Take(pages))) = orders(&decision, 0).last().copied() else { panic!("{decision:?}") };
    // 5/8 of m are wanted, and 100 MiB are there.
    assert_eq!(pages.bytes(), Bytes::mib(220));
    assert!((1..5).all(|guest| orders(&decision, guest).iter().all(|(kind, _)| *kind != 2)));
    let held = Bytes::mib(4000).0 - pages.bytes().0;
    assert!(held >= decision.guests[0].entitlement.0);
    assert!(!decision.admission_open);
}

#[test]
fn nobody_is_kept_from_growing_for_long_without_a_turn() {
    for interval_ms in [100, 300, 700, 1000] {
        let interval = Duration::from_millis(interval_ms);
        let mut play = Play::new(-2000, vec![Actor { resident_mib: 3500, used_mib: 3400, ..Actor::IDLE }; 6]);
        // Guest 5 has less than it is entitled to, and guest 4 does not take more.
        play.actors[5].resident_mib = 100;
        let (mut kept, mut turns, mut braked) = ([Duration::ZERO; 6], [0; 6], [false; 6]);
        for _ in 0..(30_000 / interval_ms) {
            let decision = play.after(interval);
            for (index, guest) in decision.guests.iter().enumerate() {
                turns[index] += usize::from(braked[index] && guest.brake.is_none());
                braked[index] = guest.brake.is_some();
                kept[index] = if braked[index] { kept[index] + interval } else { Duration::ZERO };
                assert!(kept[index] <= Duration::from_secs(2) + interval, "{index}, every {interval_ms} ms");
                play.actors[index].resident_mib += if braked[index] || index == 4 { 0 } else { 2 };
            }
        }
        assert!(turns[..4].iter().all(|turns| *turns >= 9), "every {interval_ms} ms: {turns:?}");
        assert_eq!((turns[4], turns[5]), (0, 0), "every {interval_ms} ms");
    }
}

#[test]
fn with_plenty_of_memory_what_was_given_goes_back() {
    let given = Pages(262_144);
    let lent = Actor { resident_mib: 1000, used_mib: 900, ballooned: given, target: given, alloc_stalls: 0 };
    let mut play = Play::new(9000, vec![lent; 3]);
    let decision = play.second();
    assert_eq!(
        (decision.level, orders(&decision, 0)),
        (Level::High, vec![(1, Order::Return(Pages(52_428)))])
    );
    // It is not returned where it is needed more urgently: by the host.
    play.free_mib = 400;
    assert_eq!(orders(&play.second(), 0), []);
}

#[test]
fn a_decision_says_why() {
    let mut play = Play::new(100, vec![Actor::IDLE, Actor { used_mib: 3900, ..Actor::IDLE }]);
    let decision = play.second();
    assert_eq!(decision.reasons[0], "low: 100 MiB of 16.0 GiB is free, m is 512 MiB");
    assert_eq!(
        decision.guests[0].reason,
        "uses 1.1 GiB with the buffer, holds 3.9 GiB, is entitled to 4.0 GiB"
    );
    assert!(decision.grants.iter().all(|grant| grant.reason.contains("MiB")), "{decision:#?}");
}

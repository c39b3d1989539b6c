//! How much of its memory a guest uses, made steady enough to act on.

use std::time::Duration;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{GuestHints, GuestObservation};

/// Time constant of the fast average.
const FAST: Duration = Duration::from_secs(10);
/// Time constant of the slow average: how long a guest keeps what it needed before.
const SLOW: Duration = Duration::from_mins(5);
/// An older estimate from outside says nothing any more.
const AGE_MAX: Duration = Duration::from_mins(2);
/// How long pages that come back from swap now are taken to go on coming.
const REFAULT_SECONDS: u64 = 10;

/// The averages of one guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    averages: Option<Averages>,
    resident: Option<Bytes>,
    growth: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Averages {
    fast: f64,
    slow: f64,
}

impl Demand {
    /// Takes an observation in and returns the working set: the largest of now, of a fast average and of a slow one,
    /// but no more than the guest itself says that it uses, and no more than its limit.
    ///
    /// A guest that exaggerates gains nothing, since its word only bounds what was measured. One that understates
    /// loses memory of its own.
    pub fn update(
        &mut self,
        guest: &GuestObservation,
        hints: Option<&GuestHints>,
        elapsed: Duration,
    ) -> Bytes {
        self.grow(guest, elapsed);
        let word = hints.and_then(|hints| used(guest, hints));
        let back = guest.refaults.bytes().0.saturating_mul(REFAULT_SECONDS).min(guest.swapped.0);
        let now = (measured(guest, word) as f64 + back as f64 + self.growth).min(guest.limit.0 as f64);
        let averages = self.averages.get_or_insert(Averages { fast: now, slow: now });
        averages.fast += (now - averages.fast) * weight(elapsed, FAST);
        averages.slow += (now - averages.slow) * weight(elapsed, SLOW);
        let largest = Bytes(now.max(averages.fast).max(averages.slow) as u64);
        largest.min(word.unwrap_or(guest.limit)).min(guest.limit)
    }

    /// What the guest has grown by lately: an estimate from outside lags behind, and this does not.
    fn grow(&mut self, guest: &GuestObservation, elapsed: Duration) {
        let before = self.resident.replace(guest.resident).unwrap_or(guest.resident);
        if estimate(guest).is_none() {
            self.growth = 0.0;
            return;
        }
        self.growth *= 1.0 - weight(elapsed, FAST);
        self.growth += guest.resident.0.saturating_sub(before.0) as f64;
    }
}

/// The estimate from outside, unless it is too old.
fn estimate(guest: &GuestObservation) -> Option<Bytes> {
    guest.working_set.filter(|estimate| estimate.age <= AGE_MAX).map(|estimate| estimate.bytes)
}

/// What the best source says that is there: an estimate from outside, the guest's word, what it has in RAM.
fn measured(guest: &GuestObservation, word: Option<Bytes>) -> u64 {
    estimate(guest).or(word).unwrap_or(guest.resident).min(guest.resident).0
}

/// What the guest says that it uses: all of its memory but what it could give to programs.
pub fn used(guest: &GuestObservation, hints: &GuestHints) -> Option<Bytes> {
    let total = hints.total.unwrap_or(Bytes(guest.limit.0.saturating_sub(guest.ballooned.0)));
    hints.available.map(|available| Bytes(total.0.saturating_sub(available.0).min(guest.limit.0)))
}

/// How much a new value counts in an average with this time constant.
fn weight(elapsed: Duration, constant: Duration) -> f64 {
    1.0 - (-elapsed.as_secs_f64() / constant.as_secs_f64()).exp()
}

/// What of the guest's memory it is charged with: its RAM, shared pages at the mean of whole and of its part in them,
/// so that sharing counts at most half of what it saves.
pub fn charge(guest: &GuestObservation) -> Bytes {
    let own = guest.held.0.saturating_sub(guest.overhead.0).min(guest.resident.0);
    Bytes((own + (guest.resident.0 - own) / 2).min(guest.limit.0))
}

#[cfg(test)]
mod tests {
    use napa_units::{Pages, VmId};
    use proptest::prelude::*;

    use super::*;
    use crate::WorkingSet;

    const SECOND: Duration = Duration::from_secs(1);

    fn guest(resident_mib: u64) -> GuestObservation {
        let resident = Bytes::mib(resident_mib);
        let mut guest = GuestObservation::untouched(VmId(1), Bytes::gib(1));
        (guest.resident, guest.held) = (resident, resident);
        guest
    }

    fn saying(available_mib: u64) -> GuestHints {
        GuestHints {
            total: Some(Bytes::gib(1)),
            available: Some(Bytes::mib(available_mib)),
            ..GuestHints::default()
        }
    }

    /// The working set in MiB after these observations, a second apart.
    fn after(observations: impl IntoIterator<Item = GuestObservation>) -> u64 {
        let mut demand = Demand::default();
        let last =
            observations.into_iter().map(|guest| demand.update(&guest, guest.hints.as_ref(), SECOND)).last();
        last.expect("there is an observation").0 >> 20
    }

    #[test]
    fn an_estimate_counts_before_the_word_and_the_word_before_what_is_resident() {
        let estimated = |mib, age| Some(WorkingSet { bytes: Bytes::mib(mib), age: Duration::from_secs(age) });
        assert_eq!(after([guest(600)]), 600);
        assert_eq!(after([GuestObservation { hints: Some(saying(824)), ..guest(600) }]), 200);
        let both =
            GuestObservation { working_set: estimated(100, 5), hints: Some(saying(824)), ..guest(600) };
        assert_eq!(after([both.clone()]), 100);
        // An old estimate says nothing.
        assert_eq!(after([GuestObservation { working_set: estimated(100, 121), ..both }]), 200);
    }

    #[test]
    fn need_counts_at_once_and_is_forgotten_slowly() {
        let quiet = vec![guest(100); 60];
        let spike = vec![guest(500); 20];
        let calm = |seconds| vec![guest(100); seconds];
        assert_eq!(after([quiet.clone(), spike[..1].to_vec()].concat()), 500);
        let fast = after([quiet.clone(), spike.clone(), calm(5)].concat());
        assert!((280..340).contains(&fast), "{fast}");
        let slow = after([quiet.clone(), spike.clone(), calm(60)].concat());
        assert!((110..130).contains(&slow), "{slow}");
        assert_eq!(after([quiet, spike, calm(1500)].concat()), 100);
    }

    #[test]
    fn a_guest_cannot_talk_its_working_set_up() {
        let greedy = GuestObservation { hints: Some(saying(0)), ..guest(100) };
        assert_eq!(after([greedy]), 100);
        let modest = GuestObservation { hints: Some(saying(u64::MAX >> 21)), ..guest(100) };
        assert_eq!(after([modest]), 0);
    }

    #[test]
    fn pages_that_come_back_are_in_use() {
        let thrashing = GuestObservation { swapped: Bytes::mib(300), refaults: Pages(2560), ..guest(100) };
        assert_eq!(after([thrashing]), 200);
    }

    #[test]
    fn growth_counts_before_the_estimate_knows_it() {
        let old = Some(WorkingSet { bytes: Bytes::mib(50), age: Duration::from_secs(60) });
        let small = GuestObservation { working_set: old, ..guest(100) };
        let grown = GuestObservation { working_set: old, ..guest(400) };
        assert_eq!(after([small, grown]), 350);
    }

    #[test]
    fn sharing_counts_at_most_half() {
        let sharing = GuestObservation { held: Bytes::mib(120), overhead: Bytes::mib(20), ..guest(500) };
        assert_eq!(charge(&sharing), Bytes::mib(300));
        assert_eq!(charge(&guest(500)), Bytes::mib(500));
    }

    proptest! {
        #[test]
        fn no_numbers_break_it(
            numbers in proptest::array::uniform8(any::<u64>()),
            elapsed in any::<u64>(),
            missing in any::<bool>(),
        ) {
            let [limit, resident, held, swapped, refaults, bytes, total, available] = numbers;
            let mut guest = GuestObservation::untouched(VmId(0), Bytes(limit));
            (guest.resident, guest.held, guest.swapped) = (Bytes(resident), Bytes(held), Bytes(swapped));
            guest.refaults = Pages(refaults);
            guest.working_set = Some(WorkingSet { bytes: Bytes(bytes), age: Duration::ZERO });
            guest.hints = Some(GuestHints {
                total: (!missing).then_some(Bytes(total)),
                available: Some(Bytes(available)),
                ..GuestHints::default()
            });
            let mut demand = Demand::default();
            for elapsed in [0, elapsed, 1] {
                prop_assert!(demand.update(&guest, guest.hints.as_ref(), Duration::from_nanos(elapsed)) <= guest.limit);
            }
            prop_assert!(charge(&guest) <= guest.limit);
        }
    }
}

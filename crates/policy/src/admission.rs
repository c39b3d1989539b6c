//! Which VMs may start: only those whose memory can be promised.
//!
//! A guest may use all of its limit at any time, so all limits together must fit RAM and swap. Its reservation must
//! not be swapped, so all reservations together must fit RAM. Sharing, ballooning and compressed memory count as
//! nothing in these sums: equal pages may be written to, balloons may be given back, and what does not compress stays
//! as large as it is, all at the same moment.

use std::fmt;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::words::Figure;

/// What a VM asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The guest's size.
    pub limit: Bytes,
    /// RAM that it may have whatever the others do. What is above the limit counts as the limit.
    pub reservation: Bytes,
    /// RAM that its process needs beside the guest's memory; never swapped.
    pub overhead: Bytes,
}

impl Request {
    fn unswapped(&self) -> u128 {
        u128::from(self.reservation.min(self.limit).0) + u128::from(self.overhead.0)
    }

    fn whole(&self) -> u128 {
        u128::from(self.limit.0) + u128::from(self.overhead.0)
    }
}

/// What a host has promised to its VMs, and what it has to keep it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promises {
    /// RAM that VMs may hold.
    pub ram: Bytes,
    /// Swap that is kept for VMs. Compressed memory in RAM is not swap here.
    pub swap: Bytes,
    unswapped: u128,
    whole: u128,
}

impl Promises {
    /// A host that has promised nothing.
    pub const fn none(ram: Bytes, swap: Bytes) -> Self {
        Self { ram, swap, unswapped: 0, whole: 0 }
    }

    /// The promises to these VMs, whether or not they can be kept.
    pub fn to(ram: Bytes, swap: Bytes, requests: impl IntoIterator<Item = Request>) -> Self {
        requests.into_iter().fold(Self::none(ram, swap), |promises, request| promises.with(&request))
    }

    /// These promises and one more.
    #[must_use]
    pub fn with(&self, request: &Request) -> Self {
        Self {
            unswapped: self.unswapped.saturating_add(request.unswapped()),
            whole: self.whole.saturating_add(request.whole()),
            ..*self
        }
    }

    /// These promises without one that was made before.
    #[must_use]
    pub fn without(&self, request: &Request) -> Self {
        Self {
            unswapped: self.unswapped.saturating_sub(request.unswapped()),
            whole: self.whole.saturating_sub(request.whole()),
            ..*self
        }
    }

    /// RAM that must never be swapped.
    pub fn ram_promised(&self) -> Bytes {
        bytes(self.unswapped)
    }

    /// Swap that is needed when every guest uses all of its limit.
    pub fn swap_promised(&self) -> Bytes {
        bytes(self.whole.saturating_sub(u128::from(self.ram.0)))
    }
}

/// Whether one VM more can be promised its memory.
///
/// # Errors
/// What is missing, if it cannot.
pub fn admit(promises: &Promises, request: &Request) -> Result<(), Shortage> {
    let after = promises.with(request);
    let ram_missing = bytes(after.unswapped.saturating_sub(u128::from(promises.ram.0)));
    let swap_missing = Bytes(after.swap_promised().0.saturating_sub(promises.swap.0));
    if (ram_missing, swap_missing) == (Bytes(0), Bytes(0)) {
        return Ok(());
    }
    Err(Shortage { request: *request, ram_missing, swap_missing })
}

/// Why a VM cannot be promised its memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub struct Shortage {
    /// What was asked for.
    pub request: Request,
    /// RAM that is missing for the reservations; zero if there is enough.
    pub ram_missing: Bytes,
    /// Swap that is missing for the limits; zero if there is enough.
    pub swap_missing: Bytes,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, ram_missing, swap_missing } = self;
        f.write_str("its memory cannot be promised: ")?;
        if ram_missing.0 > 0 {
            let reservation = Figure(request.reservation.min(request.limit));
            let overhead = Figure(request.overhead);
            write!(f, "{} of RAM is missing for a reservation of {reservation}", Figure(*ram_missing))?;
            write!(f, " and {overhead} for its process (lower the reservation, or stop a VM)")?;
        }
        if ram_missing.0 > 0 && swap_missing.0 > 0 {
            f.write_str("; ")?;
        }
        if swap_missing.0 > 0 {
            let (missing, limit) = (Figure(*swap_missing), Figure(request.limit));
            write!(f, "{missing} of swap is missing for a limit of {limit}")?;
            f.write_str(" (add swap with 'napa swap create', lower the limit, or stop a VM)")?;
        }
        Ok(())
    }
}

fn bytes(sum: u128) -> Bytes {
    Bytes(u64::try_from(sum).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn request(limit_mib: u64, reservation_mib: u64) -> Request {
        Request {
            limit: Bytes::mib(limit_mib),
            reservation: Bytes::mib(reservation_mib),
            overhead: Bytes::mib(10),
        }
    }

    /// A host of 1000 MiB of RAM and 2000 MiB of swap with one VM of 790 MiB (90 MiB of it reserved) and its overhead.
    fn check(limit_mib: u64, reservation_mib: u64, missing_mib: Option<(u64, u64)>) {
        let promises = Promises::to(Bytes::mib(1000), Bytes::mib(2000), [request(790, 90)]);
        let found = admit(&promises, &request(limit_mib, reservation_mib));
        let found = found.err().map(|shortage| (shortage.ram_missing.0 >> 20, shortage.swap_missing.0 >> 20));
        assert_eq!(found, missing_mib, "limit {limit_mib}, reservation {reservation_mib}");
    }

    #[test]
    fn reservations_fit_ram_and_limits_fit_ram_and_swap() {
        check(512, 0, None);
        check(2190, 0, None);
        check(2191, 0, Some((0, 1)));
        check(2190, 890, None);
        check(2190, 891, Some((1, 0)));
        check(4000, 1000, Some((110, 1810)));
        // A reservation above the limit is as good as the limit.
        check(100, 5000, None);
    }

    #[test]
    fn the_words_say_what_is_missing_and_what_to_do() {
        let promises = Promises::none(Bytes::gib(1), Bytes::gib(1));
        let shortage = admit(&promises, &request(4096, 2048)).unwrap_err();
        assert_eq!(
            shortage.to_string(),
            "its memory cannot be promised: 1.0 GiB of RAM is missing for a reservation of 2.0 GiB and 10 MiB for \
             its process (lower the reservation, or stop a VM); 2.0 GiB of swap is missing for a limit of 4.0 GiB \
             (add swap with 'napa swap create', lower the limit, or stop a VM)"
        );
    }

    #[test]
    fn sizes_beyond_all_memory_are_refused() {
        let huge =
            Request { limit: Bytes(u64::MAX), reservation: Bytes(u64::MAX), overhead: Bytes(u64::MAX) };
        let promises = Promises::to(Bytes::gib(1), Bytes::gib(1), [huge; 3]);
        assert!(admit(&promises, &huge).is_err());
        assert_eq!(promises.swap_promised(), Bytes(u64::MAX));
    }

    fn any_request() -> impl Strategy<Value = Request> {
        (0..8_u64 << 30, 0..8_u64 << 30, 0..64_u64 << 20).prop_map(|(limit, reservation, overhead)| Request {
            limit: Bytes(limit),
            reservation: Bytes(reservation),
            overhead: Bytes(overhead),
        })
    }

    proptest! {
        /// VMs come and go; what was admitted always fits, and nothing is left when all are gone.
        #[test]
        fn what_is_admitted_can_always_be_kept(
            ram in 0..64_u64 << 30,
            swap in 0..64_u64 << 30,
            moves in proptest::collection::vec((any_request(), any::<bool>()), 0..60),
        ) {
            let mut promises = Promises::none(Bytes(ram), Bytes(swap));
            let mut running: Vec<Request> = Vec::new();
            for (request, stops) in moves {
                if stops {
                    if let Some(gone) = running.pop() {
                        promises = promises.without(&gone);
                    }
                } else if admit(&promises, &request).is_ok() {
                    promises = promises.with(&request);
                    running.push(request);
                }
                let reserved: u64 = running.iter().map(|vm| vm.reservation.min(vm.limit).0 + vm.overhead.0).sum();
                let limits: u64 = running.iter().map(|vm| vm.limit.0 + vm.overhead.0).sum();
                prop_assert!(reserved <= ram && limits <= ram + swap);
                prop_assert_eq!(promises.ram_promised(), Bytes(reserved));
                prop_assert_eq!(promises.swap_promised(), Bytes(limits.saturating_sub(ram)));
            }
            let none = running.iter().fold(promises, |promises, gone| promises.without(gone));
            prop_assert_eq!(none, Promises::none(Bytes(ram), Bytes(swap)));
        }

        /// The smallest change of the host that the words name is enough.
        #[test]
        fn what_is_missing_is_enough(ram in 0..8_u64 << 30, swap in 0..8_u64 << 30, request in any_request()) {
            let promises = Promises::none(Bytes(ram), Bytes(swap));
            if let Err(shortage) = admit(&promises, &request) {
                let (ram, swap) = (ram + shortage.ram_missing.0, swap + shortage.swap_missing.0);
                prop_assert_eq!(admit(&Promises::none(Bytes(ram), Bytes(swap)), &request), Ok(()));
            }
        }
    }
}

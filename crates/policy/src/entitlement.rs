//! How much RAM each guest may have, when all of it is handed out.
//!
//! The equilibrium of min-funding revocation with an idle memory tax (Waldspurger, "Memory Resource Management in
//! VMware ESX Server", OSDI 2002, §5) in closed form. With weight w, working set A, reservation r, limit L and tax τ:
//!
//! ```text
//!   E(λ) = clamp(r, L, min(λw, (1−τ)λw + τA))        λ such that the sum over all guests is the capacity
//!
//!    L ┤              ┌──────        a guest's entitlement grows with λ: w a step while it needs the memory,
//!      │           ╱                 (1−τ)w a step when it would lie idle
//!    A ┤      ╱
//!    r ┤───╱
//!      └──────────────────── λ
//! ```

use napa_units::{Bytes, Shares};

use crate::Fraction;

/// What one guest brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// It is entitled to at least this, or to its limit if that is less.
    pub reservation: Bytes,
    /// It is entitled to at most this.
    pub limit: Bytes,
    /// Its weight for each byte of its limit.
    pub shares: Shares,
    /// What it uses.
    pub working_set: Bytes,
}

/// A claim in numbers that can be divided.
#[derive(Clone, Copy)]
struct Curve {
    reservation: f64,
    limit: f64,
    working_set: f64,
    weight: f64,
}

impl Curve {
    fn new(claim: &Claim) -> Self {
        let limit = claim.limit.0 as f64;
        Self {
            reservation: claim.reservation.min(claim.limit).0 as f64,
            limit,
            working_set: claim.working_set.min(claim.limit).0 as f64,
            // In pages, so that the products stay far from where a float loses bytes.
            weight: f64::from(claim.shares.0.max(1)) * (limit / 4096.0).max(1.0),
        }
    }

    /// The entitlement at this λ.
    fn at(&self, lambda: f64, tax: f64) -> f64 {
        let funded = lambda * self.weight;
        funded.min((1.0 - tax) * funded + tax * self.working_set).max(self.reservation).min(self.limit)
    }

    /// The λ at which the guest is entitled to this much, were there no bounds.
    fn lambda_of(&self, bytes: f64, tax: f64) -> f64 {
        if bytes <= self.working_set {
            bytes / self.weight
        } else {
            (bytes - tax * self.working_set) / ((1.0 - tax) * self.weight)
        }
    }

    /// Where the slope changes, and by how much.
    fn bends(&self, tax: f64) -> [(f64, f64); 3] {
        let slope =
            |bytes: f64| if bytes < self.working_set { self.weight } else { (1.0 - tax) * self.weight };
        let last = if self.limit <= self.working_set { self.weight } else { (1.0 - tax) * self.weight };
        let knee = if self.reservation < self.working_set && self.working_set < self.limit {
            (self.working_set / self.weight, -tax * self.weight)
        } else {
            (0.0, 0.0)
        };
        if self.reservation >= self.limit {
            return [(0.0, 0.0); 3];
        }
        [
            (self.lambda_of(self.reservation, tax), slope(self.reservation)),
            knee,
            (self.lambda_of(self.limit, tax), -last),
        ]
    }
}

/// The entitlements of guests with these claims, in their order.
///
/// They sum to `capacity` if the reservations fit in it and the limits fill it. If reservations do not fit, each is
/// entitled to its reservation; if limits do not fill it, each is entitled to its limit. A tax above 0.99 counts as 0.99,
/// so that what nobody needs still belongs to somebody.
pub fn entitlements(claims: &[Claim], capacity: Bytes, tax: Fraction) -> Vec<Bytes> {
    let curves: Vec<Curve> = claims.iter().map(Curve::new).collect();
    let tax = tax.get().min(0.99);
    let lambda = funding(&curves, capacity.0 as f64, tax);
    let mut entitled: Vec<Bytes> = curves
        .iter()
        .zip(claims)
        .map(|(curve, claim)| {
            let exact = Bytes(curve.at(lambda, tax) as u64);
            exact.max(claim.reservation).min(claim.limit)
        })
        .collect();
    settle(claims, &mut entitled, capacity);
    entitled
}

/// The λ at which the entitlements sum to `capacity`; infinite if they never do.
fn funding(curves: &[Curve], capacity: f64, tax: f64) -> f64 {
    let mut bends: Vec<(f64, f64)> = curves.iter().flat_map(|curve| curve.bends(tax)).collect();
    bends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut sum: f64 = curves.iter().map(|curve| curve.at(0.0, tax)).sum();
    if sum >= capacity {
        return 0.0;
    }
    let (mut lambda, mut slope) = (0.0, 0.0);
    for (next, change) in bends {
        let grown = sum + slope * (next - lambda);
        if grown >= capacity && slope > 0.0 {
            return lambda + (capacity - sum) / slope;
        }
        (sum, lambda, slope) = (grown, next, slope + change);
    }
    f64::INFINITY
}

/// Hands out the bytes that rounding left over, or takes back those that it invented.
fn settle(claims: &[Claim], entitled: &mut [Bytes], capacity: Bytes) {
    let sum: u128 = entitled.iter().map(|bytes| u128::from(bytes.0)).sum();
    let capacity = u128::from(capacity.0);
    let (mut missing, mut invented) = (capacity.saturating_sub(sum), sum.saturating_sub(capacity));
    // What fits the bounds of one guest fits 64 bits.
    let part = |rest: u128, most: u64| rest.min(u128::from(most)) as u64;
    for (claim, bytes) in claims.iter().zip(entitled) {
        let more = part(missing, claim.limit.0 - bytes.0);
        let less = part(invented, bytes.0 - claim.reservation.min(claim.limit).0);
        *bytes = Bytes(bytes.0 - less + more);
        missing -= u128::from(more);
        invented -= u128::from(less);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(reservation: u64, limit: u64, shares: u32, working_set: u64) -> Claim {
        Claim {
            reservation: Bytes::mib(reservation),
            limit: Bytes::mib(limit),
            shares: Shares(shares),
            working_set: Bytes::mib(working_set),
        }
    }

    fn check(claims: &[Claim], capacity_mib: u64, tax: f64, expected_mib: &[u64]) {
        let found = entitlements(claims, Bytes::mib(capacity_mib), Fraction::new(tax));
        let found: Vec<u64> = found.iter().map(|bytes| (bytes.0 + (1 << 19)) >> 20).collect();
        assert_eq!(found, expected_mib);
    }

    #[test]
    fn shares_reservations_limits_and_the_tax_have_their_say() {
        let busy = claim(0, 1000, 100, 1000);
        // Alone with more than enough, and alone with less.
        check(&[busy], 2000, 0.75, &[1000]);
        check(&[busy], 600, 0.75, &[600]);
        // Equals share equally; shares count; a reservation and a limit bound.
        check(&[busy, busy], 1000, 0.75, &[500, 500]);
        check(&[busy, claim(0, 1000, 300, 1000)], 1000, 0.75, &[250, 750]);
        check(&[busy, claim(700, 1000, 100, 1000)], 1000, 0.75, &[300, 700]);
        check(&[claim(0, 2000, 100, 2000), claim(0, 200, 1000, 200)], 1200, 0.75, &[1000, 200]);
        // An idle guest pays: it keeps (1−τ) of its share beyond what it uses.
        let idle = claim(0, 1000, 100, 100);
        check(&[busy, idle], 1000, 0.75, &[740, 260]);
        check(&[busy, idle], 1000, 0.0, &[500, 500]);
        check(&[busy, idle], 1000, 1.0, &[892, 108]);
        // What cannot be kept: reservations win.
        check(&[claim(700, 1000, 100, 0), claim(700, 1000, 100, 0)], 1000, 0.75, &[700, 700]);
        check(&[], 1000, 0.75, &[]);
    }

    fn any_claim() -> impl Strategy<Value = Claim> {
        let gib = 1_u64 << 30;
        (0..8 * gib, 0..8 * gib, 0..10_000_u32, 0..16 * gib).prop_map(
            |(reservation, limit, shares, active)| Claim {
                reservation: Bytes(reservation.min(limit)),
                limit: Bytes(limit),
                shares: Shares(shares),
                working_set: Bytes(active),
            },
        )
    }

    fn sum(of: impl Iterator<Item = Bytes>) -> u64 {
        of.map(|bytes| bytes.0).sum()
    }

    proptest! {
        #[test]
        fn everything_is_handed_out_within_the_bounds(
            claims in proptest::collection::vec(any_claim(), 1..50),
            capacity in 0..400_u64 << 30,
            tax in 0.0..=1.0_f64,
        ) {
            let entitled = entitlements(&claims, Bytes(capacity), Fraction::new(tax));
            for (claim, bytes) in claims.iter().zip(&entitled) {
                prop_assert!(claim.reservation <= *bytes && *bytes <= claim.limit, "{claim:?}: {bytes:?}");
            }
            let reserved = sum(claims.iter().map(|claim| claim.reservation));
            let limits = sum(claims.iter().map(|claim| claim.limit));
            prop_assert_eq!(sum(entitled.into_iter()), capacity.clamp(reserved, limits));
        }

        /// Who uses more is never entitled to less for it, and takes only from the others.
        #[test]
        fn using_more_never_costs(
            claims in proptest::collection::vec(any_claim(), 1..20),
            capacity in 0..100_u64 << 30,
            more in 0..4_u64 << 30,
        ) {
            let before = entitlements(&claims, Bytes(capacity), Fraction::new(0.75));
            let mut claims = claims;
            claims[0].working_set.0 += more;
            let after = entitlements(&claims, Bytes(capacity), Fraction::new(0.75));
            // The bytes that rounding leaves go to whoever comes first.
            prop_assert!(after[0].0 + 4096 >= before[0].0);
            for (after, before) in after.iter().zip(&before).skip(1) {
                prop_assert!(after.0 <= before.0 + 4096);
            }
        }

        #[test]
        fn absurd_claims_are_bounded_all_the_same(
            numbers in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>()), 0..20),
            capacity in any::<u64>(),
            tax in any::<f64>(),
        ) {
            let claims: Vec<Claim> = numbers
                .iter()
                .map(|(reservation, limit, shares, active)| Claim {
                    reservation: Bytes(*reservation),
                    limit: Bytes(*limit),
                    shares: Shares(*shares),
                    working_set: Bytes(*active),
                })
                .collect();
            let entitled = entitlements(&claims, Bytes(capacity), Fraction::new(tax));
            for (claim, bytes) in claims.iter().zip(&entitled) {
                prop_assert!(claim.reservation.min(claim.limit) <= *bytes && *bytes <= claim.limit);
            }
        }
    }
}

//! Zipf-distributed ranks without a table: rejection from the integral of x^-theta, inverted
//! (W. Hörmann, G. Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions", 1996).

use crate::random::Random;
use libm::{exp, expm1, log, log1p};

/// A sampler of ranks; the setup costs a few logarithms whatever the number of ranks.
#[derive(Debug, Clone)]
pub struct Zipf {
    theta: f64,
    ranks: u64,
    integral_first: f64,
    integral_last: f64,
    shortcut: f64,
}

impl Zipf {
    /// Ranks `0..ranks`, rank k with a weight of (k + 1)^-theta; `theta_thousandths` 0 is uniform. No rank at all
    /// counts as one.
    #[must_use]
    pub fn new(ranks: u64, theta_thousandths: u64) -> Self {
        let theta = theta_thousandths as f64 / 1000.0;
        let ranks = ranks.max(1);
        Self {
            theta,
            ranks,
            integral_first: integral(1.5, theta) - 1.0,
            integral_last: integral(ranks as f64 + 0.5, theta),
            shortcut: 2.0 - inverse_integral(integral(2.5, theta) - weight(2.0, theta), theta),
        }
    }

    /// The next rank, below the number of ranks.
    pub fn sample(&self, random: &mut Random) -> u64 {
        loop {
            let height = self.integral_last + random.unit() * (self.integral_first - self.integral_last);
            let place = inverse_integral(height, self.theta);
            let rank = ((place + 0.5) as u64).clamp(1, self.ranks);
            let near = rank as f64 - place <= self.shortcut;
            if near || height >= integral(rank as f64 + 0.5, self.theta) - weight(rank as f64, self.theta) {
                return rank - 1;
            }
        }
    }
}

/// x^-theta.
fn weight(x: f64, theta: f64) -> f64 {
    exp(-theta * log(x))
}

/// The integral of x^-theta, (x^(1-theta) - 1) / (1 - theta), and ln x at theta = 1.
fn integral(x: f64, theta: f64) -> f64 {
    let logarithm = log(x);
    ratio(expm1, (1.0 - theta) * logarithm) * logarithm
}

fn inverse_integral(height: f64, theta: f64) -> f64 {
    // Below -1 only rounding errors lead.
    let product = (height * (1.0 - theta)).max(-1.0);
    exp(ratio(log1p, product) * height)
}

/// `function(x) / x` for a function with `function(0) = 0` and slope 1 there.
fn ratio(function: fn(f64) -> f64, x: f64) -> f64 {
    if x.abs() > 1e-8 { function(x) / x } else { 1.0 }
}

/// Where rank `rank` of `ranks` lies: a permutation, so that popular ranks do not lie side by side.
#[must_use]
pub fn scatter(rank: u64, ranks: u64) -> u64 {
    /// A prime above any number of pages this guest can own, hence coprime to it.
    const PRIME: u64 = 4_294_967_291;
    (u128::from(rank) * u128::from(PRIME) % u128::from(ranks.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(ranks: u64, theta: u64) -> Vec<f64> {
        let zipf = Zipf::new(ranks, theta);
        let mut random = Random::new(11);
        let mut counts = vec![0_u32; ranks as usize];
        let draws = 400_000;
        for _ in 0..draws {
            counts[zipf.sample(&mut random) as usize] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / f64::from(draws)).collect()
    }

    #[test]
    fn ranks_have_the_weights_of_the_distribution() {
        for theta in [0, 500, 990, 1000, 1200, 2000] {
            let weights: Vec<f64> = (1..=20).map(|k| f64::from(k).powf(-(theta as f64) / 1000.0)).collect();
            let sum: f64 = weights.iter().sum();
            for (rank, share) in shares(20, theta).into_iter().enumerate() {
                let expected = weights[rank] / sum;
                assert!(
                    (share - expected).abs() < 0.004,
                    "theta {theta} rank {rank}: {share} for {expected}"
                );
            }
        }
    }

    #[test]
    fn one_rank_or_none_is_always_the_first() {
        let mut random = Random::new(1);
        for ranks in [0, 1] {
            let zipf = Zipf::new(ranks, 990);
            assert!((0..1000).all(|_| zipf.sample(&mut random) == 0));
        }
    }

    #[test]
    fn scattering_is_a_permutation() {
        for ranks in [1, 2, 7, 4096, 10_007] {
            let mut places: Vec<u64> = (0..ranks).map(|rank| scatter(rank, ranks)).collect();
            places.sort_unstable();
            assert!(places.into_iter().eq(0..ranks), "{ranks}");
        }
        assert_eq!(scatter(5, 0), 0);
    }

    proptest! {
        #[test]
        fn a_rank_is_always_in_range(ranks in 1_u64..1 << 40, theta in 0_u64..5000, seed in any::<u64>()) {
            let zipf = Zipf::new(ranks, theta);
            let mut random = Random::new(seed);
            for _ in 0..50 {
                prop_assert!(zipf.sample(&mut random) < ranks);
            }
        }
    }
}

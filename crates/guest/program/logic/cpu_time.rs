//! From time stamp counter readings to nanoseconds, without a division.

/// How the time stamp counter becomes nanoseconds: ns = ((ticks << shift) * multiplier) >> 32, as in the
/// `pvclock_vcpu_time_info` of the KVM clock (Linux, Documentation/virt/kvm/x86/msr.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Fraction of 2^32.
    pub multiplier: u32,
    /// Left shift before the multiplication; negative shifts right. Between -63 and 63.
    pub shift: i8,
}

impl Scale {
    /// The scale of a counter of `khz` (1 to 2^32 - 1; 0 counts as 1).
    #[must_use]
    pub fn from_khz(khz: u32) -> Self {
        let khz = u64::from(khz.max(1));
        let mut shift = 0_i8;
        // ns = ticks * 10^6 / khz; the multiplier must fit 32 bits.
        let mut numerator = 1_000_000_u128 << 32;
        while numerator / u128::from(khz) > u128::from(u32::MAX) {
            numerator >>= 1;
            shift += 1;
        }
        Self { multiplier: (numerator / u128::from(khz)) as u32, shift }
    }

    /// Nanoseconds in `ticks`.
    #[must_use]
    pub fn nanoseconds(self, ticks: u64) -> u64 {
        let shift = u32::from(self.shift.unsigned_abs()).min(63);
        let shifted = if self.shift < 0 { ticks >> shift } else { ticks << shift };
        ((u128::from(shifted) * u128::from(self.multiplier)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_second_of_ticks_is_a_second(khz in 1_000_u32..10_000_000) {
            let ns = Scale::from_khz(khz).nanoseconds(u64::from(khz) * 1000);
            prop_assert!(ns.abs_diff(1_000_000_000) < 1_000, "{ns}");
        }

        #[test]
        fn no_scale_of_a_host_makes_it_panic(multiplier in any::<u32>(), shift in any::<i8>(), ticks in any::<u64>()) {
            let _ = Scale { multiplier, shift }.nanoseconds(ticks);
        }
    }

    #[test]
    fn a_frequency_of_zero_is_survived() {
        assert_eq!(Scale::from_khz(0).nanoseconds(0), 0);
    }
}

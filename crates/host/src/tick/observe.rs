//! What a policy may know, from what sensors say. No I/O.

use napa_policy::admission::{Promises, Request};
use napa_policy::{Fraction, GuestObservation, HostObservation, Pressure};
use napa_units::{Bytes, Pages};

use super::Settings;
use crate::mechanisms::{Step, SwapRoom};
use crate::sensors::{HostState, SwapState};

/// The host, for a policy.
pub fn host(
    state: &HostState,
    settings: &Settings,
    guests: &[GuestObservation],
    growth: Bytes,
) -> HostObservation {
    let capacity = settings.capacity(state.memory.total);
    let pressure = state.pressure.unwrap_or_default();
    HostObservation {
        capacity,
        held: sum(guests.iter().map(|guest| guest.held)),
        available: state.memory.available,
        swap_total: sum([state.swap.disk.total, state.swap.compressed.total]),
        swap_free: free(&state.swap),
        swap_promised: promises(capacity, state.swap.disk.total, guests).swap_promised(),
        pressure: Pressure { some: Fraction::new(pressure.some), full: Fraction::new(pressure.full) },
        allocation_rate_p99: growth,
        sharing_profit: profit(state),
    }
}

/// All that the guests have, wherever it is.
pub fn whole(guests: &[GuestObservation]) -> Bytes {
    sum(guests.iter().flat_map(|guest| [guest.held, guest.swapped, guest.ballooned]))
}

/// Where the next page that is swapped goes, and how many have room. The kernel fills compressed memory first, where
/// there is any.
pub fn room(swap: &SwapState) -> SwapRoom {
    let left = |total: Bytes, used: Bytes| total.0.saturating_sub(used.0);
    let compressed = left(swap.compressed.total, swap.compressed.used);
    let disk = left(swap.disk.total, swap.disk.used);
    let next = match (compressed, disk) {
        (0, 0) => None,
        (0, _) if !swap.has_zswap => Some(Step::DiskSwap),
        _ => Some(Step::CompressedSwap),
    };
    SwapRoom { next, pages: Pages::covering(free(swap)) }
}

/// What was promised to the VMs that run.
pub fn promises(ram: Bytes, swap: Bytes, guests: &[GuestObservation]) -> Promises {
    let request = |guest: &GuestObservation| Request {
        limit: guest.limit,
        reservation: guest.reservation,
        overhead: guest.overhead,
    };
    Promises::to(ram, swap, guests.iter().map(request))
}

/// RAM that merging saves, less what it costs.
fn profit(state: &HostState) -> Bytes {
    let sharing = state.sharing.unwrap_or_default();
    match sharing.profit {
        Some(profit) => Bytes(u64::try_from(profit).unwrap_or(0)),
        None => sharing.saved,
    }
}

fn free(swap: &SwapState) -> Bytes {
    let left = |total: Bytes, used: Bytes| Bytes(total.0.saturating_sub(used.0));
    sum([left(swap.disk.total, swap.disk.used), left(swap.compressed.total, swap.compressed.used)])
}

fn sum(sizes: impl IntoIterator<Item = Bytes>) -> Bytes {
    Bytes(sizes.into_iter().fold(0, |sum, size| sum.saturating_add(size.0)))
}

#[cfg(test)]
mod tests {
    use napa_units::VmId;

    use super::*;
    use crate::sensors::{CompressedSwap, DiskSwap, HostSharing, Meminfo, Shares};

    fn state() -> HostState {
        let mib = Bytes::mib;
        HostState {
            memory: Meminfo {
                total: mib(4096),
                available: mib(3000),
                free: mib(2000),
                swap_total: mib(2048),
                swap_free: mib(1024),
                zswap: None,
                zswapped: None,
            },
            swap: SwapState {
                disk: DiskSwap { total: mib(1024), used: mib(24) },
                compressed: CompressedSwap { total: mib(512), used: mib(500), memory: None },
                has_zswap: false,
            },
            sharing: Some(HostSharing { is_running: true, saved: mib(9), profit: Some(-7) }),
            pressure: Some(Shares { some: 0.25, full: 2.0 }),
        }
    }

    #[test]
    fn a_host_is_summed_up() {
        let settings = Settings { budget: Some(Bytes::mib(100)), reserve: None };
        let mut guest = GuestObservation::untouched(VmId(1), Bytes::mib(64));
        (guest.held, guest.swapped, guest.ballooned) = (Bytes::mib(40), Bytes::mib(8), Bytes::mib(4));
        let guests = [guest.clone(), GuestObservation { id: VmId(2), ..guest }];
        let host = host(&state(), &settings, &guests, Bytes(77));
        assert_eq!(
            (host.capacity, host.held, host.free()),
            (Bytes::mib(100), Bytes::mib(80), Bytes::mib(20))
        );
        assert_eq!((host.swap_total, host.swap_free), (Bytes::mib(1536), Bytes::mib(1012)));
        assert_eq!(host.swap_promised, Bytes::mib(28));
        assert_eq!((host.pressure.some.get(), host.pressure.full.get()), (0.25, 1.0));
        assert_eq!((host.sharing_profit, host.allocation_rate_p99), (Bytes(0), Bytes(77)));
        assert_eq!(whole(&guests), Bytes::mib(104));
    }

    #[test]
    fn compressed_memory_is_filled_first() {
        let with = |compressed_used, disk_used, has_zswap| {
            let mut swap = state().swap;
            (swap.compressed.used, swap.disk.used) = (Bytes::mib(compressed_used), Bytes::mib(disk_used));
            room(&SwapState { has_zswap, ..swap })
        };
        let pages = |size| Pages::covering(Bytes::mib(size));
        for (compressed_used, disk_used, has_zswap, next, left) in [
            (500, 0, false, Some(Step::CompressedSwap), 1036),
            (512, 24, false, Some(Step::DiskSwap), 1000),
            (512, 24, true, Some(Step::CompressedSwap), 1000),
            (512, 1024, true, None, 0),
        ] {
            let expected = SwapRoom { next, pages: pages(left) };
            assert_eq!(with(compressed_used, disk_used, has_zswap), expected);
        }
    }
}

//! Drivers that break the rules.

use std::time::Duration;

use napa_api::control::DeviceState;
use napa_units::{Bytes, PAGE_SIZE};
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;

use super::rig::*;
use crate::balloon::BalloonError;
use crate::testing::WRITE;

const DATA: u64 = FIRST_PAGE * PAGE_SIZE;

#[test]
fn a_request_that_makes_no_sense_needs_a_reset() {
    for (queue, pieces) in [
        (INFLATE, &[(DATA, 8, WRITE)][..]),
        (INFLATE, &[(DATA, 8, 0), (DATA, 8, WRITE)]),
        (INFLATE, &[(DATA, 7, 0)]),
        (INFLATE, &[(u64::MAX - 8, 8, 0)]),
        (DEFLATE, &[(DATA, 4, 0), (DATA, 1, 0)]),
        (DEFLATE, &[(END_PAGE * PAGE_SIZE, 4, 0)]),
        (STATISTICS, &[(DATA, 10, WRITE)]),
        (STATISTICS, &[(DATA, 11, 0)]),
        (HINTS, &[(DATA, 8, 0)]),
        (HINTS, &[(DATA, 4096, WRITE), (DATA, 4, 0)]),
        (HINTS, &[(END_PAGE * PAGE_SIZE - 4096, 8192, WRITE)]),
        (REPORTS, &[(DATA, 4096, 0)]),
        (REPORTS, &[(DATA, 4096, WRITE), (u64::MAX, 4096, WRITE)]),
    ] {
        let mut rig = Rig::new();
        rig.mark(FIRST_PAGE, 0);
        rig.queues[queue].add(pieces);
        rig.queues[queue].kick();
        rig.bench.wait_needs_reset();
        assert_eq!(rig.queues[queue].used(), None, "{queue} {pieces:?}");
        let report = rig.balloon.report();
        assert_eq!((report.driver, report.discarded), (DeviceState::NeedsReset, Bytes(0)));
        // Nobody waits for such a driver.
        rig.balloon.refresh_statistics(Duration::from_secs(1000));
        assert_eq!(rig.balloon.hint(Duration::from_secs(1000)).unwrap_err(), BalloonError::NeedsReset);
    }
}

#[test]
fn a_second_buffer_for_statistics_waits() {
    let mut rig = Rig::new();
    let heads = [(); 2].map(|()| rig.queues[STATISTICS].add(&[(DATA, 10, 0)]));
    rig.queues[STATISTICS].kick();
    rig.wait_until("statistics", |rig| rig.balloon.report().statistics.is_some());
    rig.assert_alive();
    assert_eq!(rig.queues[STATISTICS].used(), None);
    rig.balloon.refresh_statistics(Duration::from_secs(20));
    assert_eq!(rig.queues[STATISTICS].wait_used(), (heads[0], 0));
    assert_eq!(rig.queues[STATISTICS].used(), None);
}

#[test]
fn a_list_that_covers_all_memory_is_read_to_its_end() {
    let mut rig = Rig::new();
    // 16 MiB of zeros a piece: four million times page 0, which holds nothing here.
    let whole = (0, (MEBIBYTES << 20) as u32, 0);
    let head = rig.queues[DEFLATE].add(&[whole, whole]);
    rig.queues[DEFLATE].kick();
    assert_eq!(rig.queues[DEFLATE].wait_used(), (head, 0));
    assert_eq!(rig.balloon.report().held, Bytes(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_rings_harm_nobody(
        descriptors in vec(vec((prop_oneof![4 => DATA..DATA + 0x40_0000, 1 => any::<u64>()], prop_oneof![4 => 0..2000_u32, 1 => any::<u32>()], 0..8_u16, 0..20_u16), 16), 5),
        heads in vec((0..5_usize, prop_oneof![8 => 0..16_u16, 1 => any::<u16>()]), 1..24),
        config in vec((0..20_u64, any::<u32>()), 0..4),
    ) {
        let mut rig = Rig::new();
        for (driver, descriptors) in rig.queues.iter().zip(descriptors) {
            for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
                driver.store(index as u16, Descriptor::new(address, length, flags, next));
            }
        }
        config.iter().for_each(|(offset, value)| rig.write_config(*offset, *value));
        heads.iter().for_each(|(queue, head)| rig.queues[*queue].offer(*head));
        rig.queues.iter().for_each(|driver| driver.kick());
        rig.balloon.refresh_statistics(Duration::from_millis(2));
        for driver in &mut rig.queues {
            while driver.wait_used_for(Duration::from_millis(1)).is_some() {}
            prop_assert!(driver.strays.is_empty(), "{:?}", driver.strays);
        }
        rig.assert_alive();
        let report = rig.balloon.report();
        prop_assert!(report.held <= report.size);
        rig.reset();
        prop_assert_eq!(rig.balloon.report().held, Bytes(0));
    }
}

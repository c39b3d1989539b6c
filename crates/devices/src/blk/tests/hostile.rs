//! Drivers that write nonsense: the disk may ask for a reset, and nothing else happens.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;

use super::*;

const DISK_BYTES: u64 = 1 << 20;
const RAM_BYTES: u64 = RAM_MIB << 20;
/// How long a case may take to settle before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A descriptor that may be fit for use, or point anywhere but at the rings, which the test relies on.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        8 => (0..256_u64).prop_map(|slot| HEADERS + slot * 64),
        4 => HEADERS..RAM_BYTES,
        1 => RAM_BYTES - 8..RAM_BYTES + 8,
        1 => RAM_BYTES..u64::MAX,
    ];
    let length = prop_oneof![
        4 => Just(16_u32),
        4 => Just(1_u32),
        4 => (0..64_u32).prop_map(|sectors| sectors * 512),
        2 => 0..8192_u32,
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![8 => 0..4_u16, 1 => 0..8_u16, 1 => any::<u16>()];
    (address, length, flags, prop_oneof![8 => 0..32_u16, 1 => any::<u16>()])
}

fn header() -> impl Strategy<Value = (u32, u64)> {
    let kind = prop_oneof![8 => 0..16_u32, 1 => any::<u32>()];
    let sector = prop_oneof![8 => 0..DISK_BYTES / 512, 1 => any::<u64>()];
    (kind, sector)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn hostile_rings_harm_nobody(
        descriptors in vec(descriptor(), 32),
        headers in vec(header(), 32),
        heads in vec(prop_oneof![20 => 0..32_u16, 1 => any::<u16>()], 1..64),
        is_direct in any::<bool>(),
    ) {
        let cache = if is_direct { CacheMode::None } else { CacheMode::Writeback };
        let (_folder, path) = image(DISK_BYTES);
        let mut rig = Rig::new(&config(&path, cache), ALL);
        for (index, (kind, sector)) in headers.iter().enumerate() {
            let bytes = [u64::from(*kind).to_le_bytes(), sector.to_le_bytes()].concat();
            rig.fill(HEADERS + index as u64 * 64, &bytes);
        }
        for (index, (address, length, flags, next)) in descriptors.iter().enumerate() {
            rig.drivers[0].store(index as u16, Descriptor::new(*address, *length, *flags, *next));
        }
        heads.iter().for_each(|head| rig.drivers[0].offer(*head));
        rig.drivers[0].kick();

        // Each request comes back, or the device has failed.
        let mut owed = heads;
        let start = Instant::now();
        while !owed.is_empty() && !rig.bench.needs_reset() {
            prop_assert!(start.elapsed() < PATIENCE, "{:?} did not come back", owed);
            match rig.drivers[0].used() {
                Some((head, _)) => take_off(&mut owed, head)?,
                None => std::thread::yield_now(),
            }
        }
        let worker = rig.workers.pop().unwrap();
        prop_assert!(rig.reactor.remove(worker).unwrap().is_some(), "the worker is alive and drained");
        while let Some((head, _)) = rig.drivers[0].used() {
            take_off(&mut owed, head)?;
        }
        prop_assert_eq!(path.metadata().unwrap().len(), DISK_BYTES);
    }
}

/// A request came back: it must have been one of those owed.
fn take_off(owed: &mut Vec<u16>, head: u16) -> Result<(), TestCaseError> {
    let Some(at) = owed.iter().position(|of| *of == head) else {
        return Err(TestCaseError::fail(format!("request {head} came back without having been made")));
    };
    owed.swap_remove(at);
    Ok(())
}

/// What makes no sense at all marks the device as failed.
#[test]
fn malformed_requests_need_a_reset() {
    let check = |pieces: &[(u64, u32, u16)], why: &str| {
        let (_folder, path) = image(DISK_BYTES);
        let mut rig = Rig::new(&config(&path, CacheMode::None), ALL);
        rig.drivers[0].add(pieces);
        rig.drivers[0].kick();
        rig.bench.wait_needs_reset();
        assert_eq!(rig.drivers[0].used(), None, "{why}");
    };
    check(&[(HEADERS, 15, 0), (DATA, 512, WRITE), (HEADERS + 32, 1, WRITE)], "a short header");
    check(&[(HEADERS, 16, 0)], "no outcome");
    check(&[(HEADERS, 16, 0), (DATA, 0, WRITE)], "an outcome without a byte");
    check(&[(HEADERS, 16, WRITE)], "a header that cannot be read");
    check(&[(HEADERS, 16, 0), (HEADERS, 1, WRITE), (DATA, 512, 0)], "data behind the outcome");
    check(&[(HEADERS, 16, 0), (RAM_BYTES - 1, 512, WRITE), (HEADERS + 32, 1, WRITE)], "data outside RAM");
    check(&[(RAM_BYTES, 16, 0), (HEADERS + 32, 1, WRITE)], "a header outside RAM");
}

/// The same request as often as the ring has entries, twice: more than one turn takes.
#[test]
fn a_full_ring_takes_several_turns() {
    let (_folder, path) = image(DISK_BYTES);
    let mut rig = Rig::new(&config(&path, CacheMode::None), ALL);
    let (head, _) = rig.start(&Ask { kind: abi::VIRTIO_BLK_T_GET_ID, sector: 0, data: &[(DATA, 20)] });
    (1..QUEUE_SIZE).for_each(|_| rig.drivers[0].offer(head));
    rig.drivers[0].kick();
    for _ in 0..QUEUE_SIZE {
        assert_eq!(rig.drivers[0].wait_used(), (head, 21));
    }
    (0..QUEUE_SIZE).for_each(|_| rig.drivers[0].offer(head));
    rig.drivers[0].kick();
    for _ in 0..QUEUE_SIZE {
        assert_eq!(rig.drivers[0].wait_used(), (head, 21));
    }
}

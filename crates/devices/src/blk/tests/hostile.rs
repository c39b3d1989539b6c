//! Drivers that write nonsense: the disk may ask for a reset, and nothing else happens.

use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;

use super::*;

const DISK_BYTES: u64 = 1 << 20;
const RAM_BYTES: u64 = RAM_MIB << 20;

/// A descriptor that may be fit for use, or point anywhere.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        8 => (0..256_u64).prop_map(|slot| HEADERS + slot * 64),
        4 => 0..RAM_BYTES,
        1 => RAM_BYTES - 8..RAM_BYTES + 8,
        1 => any::<u64>(),
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
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn hostile_rings_harm_nobody(
        descriptors in vec(descriptor(), 32),
        headers in vec(header(), 32),
        heads in vec(prop_oneof![8 => 0..32_u16, 1 => any::<u16>()], 1..64),
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

        let mut owed = heads.clone();
        let mut give_back = |rig: &mut Rig| while let Some((head, _)) = rig.drivers[0].used() {
            // Hostile descriptors may have let the disk write into the rings, so only heads that a ring
            // can hold are compared.
            owed.iter().position(|of| *of == head).map(|at| owed.swap_remove(at));
        };
        let start = std::time::Instant::now();
        loop {
            give_back(&mut rig);
            if rig.bench.needs_reset() || start.elapsed() > std::time::Duration::from_millis(20) {
                break;
            }
            std::thread::yield_now();
        }
        let worker = rig.workers.pop().unwrap();
        prop_assert!(rig.reactor.remove(worker).unwrap().is_some(), "the worker is alive and drained");
        prop_assert_eq!(path.metadata().unwrap().len(), DISK_BYTES);
    }
}

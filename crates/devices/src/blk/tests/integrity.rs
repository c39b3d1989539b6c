//! Many requests at once against a plain array of bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const BLOCKS: u64 = 256;
const BLOCK_BYTES: u64 = 4096;
const DISK_BYTES: u64 = BLOCKS * BLOCK_BYTES;
/// Guest memory for the data of one request.
const BUFFER_BYTES: u64 = 8 * BLOCK_BYTES + 512;

/// One request: what, the first block, how many, and how far its memory is from an aligned address.
#[derive(Clone, Debug)]
struct Operation {
    kind: u32,
    first: u64,
    blocks: u64,
    offset: u64,
    seed: u8,
}

fn operation() -> impl Strategy<Value = Operation> {
    let kind = prop_oneof![
        4 => Just(abi::VIRTIO_BLK_T_IN),
        4 => Just(abi::VIRTIO_BLK_T_OUT),
        1 => Just(abi::VIRTIO_BLK_T_DISCARD),
        1 => Just(abi::VIRTIO_BLK_T_WRITE_ZEROES),
        1 => Just(abi::VIRTIO_BLK_T_FLUSH),
    ];
    let offset = prop_oneof![4 => Just(0_u64), 1 => 0..512_u64];
    (kind, 0..BLOCKS - 8, 1..9_u64, offset, any::<u8>())
        .prop_map(|(kind, first, blocks, offset, seed)| Operation { kind, first, blocks, offset, seed })
}

impl Operation {
    fn bytes(&self) -> std::ops::Range<usize> {
        (self.first * BLOCK_BYTES) as usize..((self.first + self.blocks) * BLOCK_BYTES) as usize
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.first < other.first + other.blocks && other.first < self.first + self.blocks
    }

    /// Prepares the data at `buffer` and starts the request.
    fn start(&self, rig: &mut Rig, buffer: u64) -> GuestAddress {
        let length = (self.blocks * BLOCK_BYTES) as u32;
        let (sector, sectors) = (self.first * 8, length / 512);
        let segment = [sector.to_le_bytes(), u64::from(sectors).to_le_bytes()].concat();
        let data = match self.kind {
            abi::VIRTIO_BLK_T_FLUSH => vec![],
            abi::VIRTIO_BLK_T_DISCARD | abi::VIRTIO_BLK_T_WRITE_ZEROES => {
                rig.fill(buffer, &segment);
                vec![(buffer, 16)]
            }
            _ => {
                rig.fill(buffer, &pattern(self.seed, length as usize));
                vec![(buffer, 1024), (buffer + 1024, length - 1024)]
            }
        };
        rig.start(&Ask { kind: self.kind, sector, data: &data }).1
    }

    /// What the request should have done to `model`, and whether what it read agrees.
    fn check(&self, rig: &Rig, buffer: u64, model: &mut [u8]) {
        let range = &mut model[self.bytes()];
        match self.kind {
            abi::VIRTIO_BLK_T_IN => {
                assert!(rig.look(buffer, range.len()) == range, "{self:?} read other data")
            }
            abi::VIRTIO_BLK_T_OUT => range.copy_from_slice(&pattern(self.seed, range.len())),
            abi::VIRTIO_BLK_T_DISCARD | abi::VIRTIO_BLK_T_WRITE_ZEROES => range.fill(0),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_disk_is_an_array_of_bytes(
        rounds in vec(vec(operation(), 1..48), 1..8),
        is_direct in any::<bool>(),
        lasts in any::<bool>(),
    ) {
        let cache = if is_direct { CacheMode::None } else { CacheMode::Writeback };
        let (_folder, path) = image(DISK_BYTES);
        let mut rig = Rig::new(&config(&path, cache), if lasts { 0 } else { ALL });
        let mut model = vec![0; DISK_BYTES as usize];
        for round in rounds {
            // Requests under way at the same time have no order, so those that meet are left out.
            let mut chosen: Vec<Operation> = Vec::new();
            for operation in round {
                if !chosen.iter().any(|other| other.overlaps(&operation)) {
                    chosen.push(operation);
                }
            }
            let buffer = |index: usize, operation: &Operation| DATA + index as u64 * BUFFER_BYTES + operation.offset;
            let statuses: Vec<_> = chosen
                .iter()
                .enumerate()
                .map(|(index, operation)| operation.start(&mut rig, buffer(index, operation)))
                .collect();
            rig.drivers[0].kick();
            for _ in &chosen {
                rig.drivers[0].wait_used();
            }
            for (index, (operation, status)) in chosen.iter().zip(statuses).enumerate() {
                prop_assert_eq!(rig.ram().read_obj::<u8>(status).unwrap(), 0, "{:?}", operation);
                operation.check(&rig, buffer(index, operation), &mut model);
            }
        }
        prop_assert_eq!(rig.ask(abi::VIRTIO_BLK_T_FLUSH, 0, &[]).0, 0);
        prop_assert!(contents(&path, 0, DISK_BYTES as usize) == model, "the image differs from the model");
    }
}

//! The configuration space of a disk (VIRTIO 1.3 §5.2.4).

use std::mem::offset_of;

use virtio_bindings::bindings::virtio_blk::virtio_blk_config as Layout;

use super::QUEUE_SIZE;
use super::geometry::Blocks;
use super::request::{SECTOR_BYTES, SEGMENT_SECTORS_MAX};

/// Length of the configuration space in bytes.
pub(super) const CONFIG_BYTES: usize = size_of::<Layout>();
/// Where the driver finds, and may change, the cache mode: one byte, 1 for writeback.
pub(super) const WRITEBACK_OFFSET: usize = offset_of!(Layout, wce);

/// Pieces of one request at most: header and status take a descriptor each.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// The configuration space of a disk of `capacity` bytes.
pub(super) fn config_space(
    capacity: u64,
    blocks: Blocks,
    queues: u16,
    is_writeback: bool,
) -> [u8; CONFIG_BYTES] {
    let physical_blocks = blocks.physical / blocks.logical;
    let granularity = blocks.physical / SECTOR_BYTES as u32;
    let mut space = [0; CONFIG_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| space[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(Layout, capacity), &(capacity / SECTOR_BYTES).to_le_bytes());
    put(offset_of!(Layout, seg_max), &SEGMENTS_MAX.to_le_bytes());
    put(offset_of!(Layout, blk_size), &blocks.logical.to_le_bytes());
    put(offset_of!(Layout, physical_block_exp), &[physical_blocks.trailing_zeros() as u8]);
    put(offset_of!(Layout, min_io_size), &(physical_blocks as u16).to_le_bytes());
    put(offset_of!(Layout, opt_io_size), &physical_blocks.to_le_bytes());
    put(WRITEBACK_OFFSET, &[u8::from(is_writeback)]);
    put(offset_of!(Layout, num_queues), &queues.to_le_bytes());
    put(offset_of!(Layout, max_discard_sectors), &SEGMENT_SECTORS_MAX.to_le_bytes());
    put(offset_of!(Layout, max_discard_seg), &1_u32.to_le_bytes());
    put(offset_of!(Layout, discard_sector_alignment), &granularity.to_le_bytes());
    put(offset_of!(Layout, max_write_zeroes_sectors), &SEGMENT_SECTORS_MAX.to_le_bytes());
    put(offset_of!(Layout, max_write_zeroes_seg), &1_u32.to_le_bytes());
    put(offset_of!(Layout, write_zeroes_may_unmap), &[1]);
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let blocks = Blocks { logical: 512, physical: 4096 };
        let space = config_space(1 << 30, blocks, 3, true);
        let check = |offset: usize, bytes: &[u8], what: &str| {
            assert_eq!(&space[offset..offset + bytes.len()], bytes, "{what} at {offset}");
        };
        check(0, &(1_u64 << 21).to_le_bytes(), "capacity");
        check(8, &[0; 4], "size_max");
        check(12, &254_u32.to_le_bytes(), "seg_max");
        check(20, &512_u32.to_le_bytes(), "blk_size");
        check(24, &[3], "physical_block_exp");
        check(25, &[0], "alignment_offset");
        check(26, &8_u16.to_le_bytes(), "min_io_size");
        check(28, &8_u32.to_le_bytes(), "opt_io_size");
        check(32, &[1], "writeback");
        check(34, &3_u16.to_le_bytes(), "num_queues");
        check(36, &(1_u32 << 21).to_le_bytes(), "max_discard_sectors");
        check(40, &1_u32.to_le_bytes(), "max_discard_seg");
        check(44, &8_u32.to_le_bytes(), "discard_sector_alignment");
        check(48, &(1_u32 << 21).to_le_bytes(), "max_write_zeroes_sectors");
        check(52, &1_u32.to_le_bytes(), "max_write_zeroes_seg");
        check(56, &[1], "write_zeroes_may_unmap");
    }
}

//! Memory that is plugged in blocks.

use napa_units::Bytes;

/// The smallest block: a huge page.
const BLOCK_MIN: Bytes = Bytes::mib(2);
/// The most blocks of a VM: each takes a memory slot of KVM's and a mapping of the process's.
const BLOCKS_MAX: u64 = 2000;

/// The size of the blocks in which a VM plugs and unplugs memory that can come to `size`: the smallest power of two, 2 MiB or
/// more, with which there are at most 2000 blocks.
pub fn hotplug_block(size: Bytes) -> Bytes {
    let at_least = size.0.div_ceil(BLOCKS_MAX).max(BLOCK_MIN.0);
    Bytes(at_least.checked_next_power_of_two().unwrap_or(1 << 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_with_the_memory() {
        for (size, block) in [
            (Bytes(0), Bytes::mib(2)),
            (Bytes::mib(256), Bytes::mib(2)),
            (Bytes::mib(4000), Bytes::mib(2)),
            (Bytes(Bytes::mib(4000).0 + 1), Bytes::mib(4)),
            (Bytes::gib(1024), Bytes::gib(1)),
            (Bytes(u64::MAX), Bytes(1 << 54)),
        ] {
            assert_eq!(hotplug_block(size), block, "{size}");
        }
    }
}

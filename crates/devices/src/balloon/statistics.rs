//! What the guest says about its memory (VIRTIO 1.3 §5.5.6.3, §5.5.6.4).

use napa_api::control::BalloonStatistics;
use napa_units::Bytes;

/// Bytes of one statistic: a tag of 2 bytes and a value of 8, both little-endian.
pub(super) const ENTRY_BYTES: usize = 10;
/// Statistics that are read: four times as many as there are tags.
pub(super) const ENTRIES_MAX: usize = 64;

/// Reads statistics. Tags that nobody knows are skipped; of a tag that comes twice the last value counts.
pub(super) fn parse(entries: &[u8]) -> BalloonStatistics {
    let mut statistics = BalloonStatistics::default();
    for entry in entries.chunks_exact(ENTRY_BYTES) {
        let (tag, value) = entry.split_at(2);
        let tag = u16::from_le_bytes(tag.try_into().expect("a tag has two bytes"));
        let value = u64::from_le_bytes(value.try_into().expect("a value has eight bytes"));
        set(&mut statistics, tag, value);
    }
    statistics
}

fn set(statistics: &mut BalloonStatistics, tag: u16, value: u64) {
    let bytes = Some(Bytes(value));
    let count = Some(value);
    match tag {
        0 => statistics.swap_in = bytes,
        1 => statistics.swap_out = bytes,
        2 => statistics.major_faults = count,
        3 => statistics.minor_faults = count,
        4 => statistics.free = bytes,
        5 => statistics.total = bytes,
        6 => statistics.available = bytes,
        7 => statistics.caches = bytes,
        8 => statistics.huge_pages_allocated = count,
        9 => statistics.huge_pages_refused = count,
        10 => statistics.oom_kills = count,
        11 => statistics.allocation_stalls = count,
        12 => statistics.scanned_in_background = count,
        13 => statistics.scanned_directly = count,
        14 => statistics.reclaimed_in_background = count,
        15 => statistics.reclaimed_directly = count,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u16, value: u64) -> Vec<u8> {
        [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
    }

    #[test]
    fn what_was_not_said_is_absent() {
        let entries = [entry(10, 3), entry(0x7777, 5), entry(4, 1), entry(4, 8192)].concat();
        let expected =
            BalloonStatistics { oom_kills: Some(3), free: Some(Bytes(8192)), ..BalloonStatistics::default() };
        assert_eq!(parse(&entries), expected);
        assert_eq!(parse(&entries[..9]), BalloonStatistics::default());
    }

    #[test]
    fn every_tag_has_a_place_of_its_own() {
        let entries: Vec<u8> = (0..16).flat_map(|tag| entry(tag, 100 + u64::from(tag))).collect();
        let written = format!("{:?}", parse(&entries));
        for value in 100..116 {
            assert_eq!(written.matches(&value.to_string()).count(), 1, "{value} in {written}");
        }
    }
}

//! Sums over mappings (proc_pid_smaps(5)).

use std::ops::Range;

use napa_units::Bytes;

/// What smaps says about some mappings of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingSums {
    /// Pages that are present, those of the kernel's page of zeros apart.
    pub resident: Bytes,
    /// Pages merged by KSM; `None`: the kernel does not say (before Linux 6.7).
    pub merged: Option<Bytes>,
    /// Memory in huge pages.
    pub huge: Bytes,
}

impl MappingSums {
    /// Sums a text of smaps up over the mappings that have a part in one of `ranges`. A mapping that goes beyond them
    /// counts whole: the kernel joins neighbours that look alike.
    pub fn of(smaps: &str, ranges: &[Range<u64>]) -> Self {
        let mut sums = Self::default();
        let mut counts = false;
        for line in smaps.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let Some(word) = word.strip_suffix(':') else {
                counts =
                    addresses(word).is_some_and(|found| ranges.iter().any(|range| overlap(range, &found)));
                continue;
            };
            let Some(size) = counts.then(|| kibibytes(rest)).flatten() else { continue };
            match word {
                "Rss" => sums.resident.0 += size.0,
                "KSM" => sums.merged.get_or_insert_default().0 += size.0,
                "AnonHugePages" => sums.huge.0 += size.0,
                _ => {}
            }
        }
        sums
    }
}

/// `7f0000000000-7f0008000000`.
fn addresses(word: &str) -> Option<Range<u64>> {
    let (start, end) = word.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

fn kibibytes(text: &str) -> Option<Bytes> {
    let number: u64 = text.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024).map(Bytes)
}

const fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00001000 08:01 42                                 /usr/bin/napa: odd
Rss:                 600 kB
AnonHugePages:         0 kB
KSM:                   4 kB
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Size:             131072 kB
Rss:                 512 kB
KSM:                  12 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac nr
7f0008000000-7f0008021000 rw-p 00000000 00:00 0                          [heap]
Rss:                  40 kB
KSM:                   8 kB
";

    #[test]
    fn only_mappings_in_the_ranges_count() {
        let sums = |ranges: &[Range<u64>]| MappingSums::of(SMAPS, ranges);
        let one = |range: Range<u64>| sums(std::slice::from_ref(&range));
        let ram = 0x7f00_0000_0000..0x7f00_0800_0000;
        let expected =
            MappingSums { resident: Bytes::kib(512), merged: Some(Bytes::kib(12)), huge: Bytes::mib(2) };
        assert_eq!(one(ram.clone()), expected);
        assert_eq!(sums(&[ram.start..ram.start + 4096, ram.end - 4096..ram.end]), expected);
        assert_eq!(one(ram.start - 4096..ram.start), MappingSums::default());
        assert_eq!(one(ram.start..ram.end + 1).merged, Some(Bytes::kib(20)));
    }

    #[test]
    fn an_older_kernel_has_no_count_of_merged_pages() {
        let older: String =
            SMAPS.lines().filter(|line| !line.starts_with("KSM")).map(|line| format!("{line}\n")).collect();
        let sums = MappingSums::of(&older, std::slice::from_ref(&(0..u64::MAX)));
        assert_eq!((sums.merged, sums.resident), (None, Bytes::kib(1152)));
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let text = "0-1 rw-p\nRss: x kB\nKSM:\nRss: 99999999999999999999 kB\nzz-1 rw-p\nRss: 4 kB\n";
        assert_eq!(MappingSums::of(text, std::slice::from_ref(&(0..2))), MappingSums::default());
    }
}

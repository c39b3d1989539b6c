//! Where the host swaps to.

use napa_units::Bytes;

use super::Root;

/// One swap area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// File or device.
    pub path: String,
    /// What it is.
    pub kind: SwapKind,
    /// Its size.
    pub size: Bytes,
    /// What it holds.
    pub used: Bytes,
    /// The highest is used first.
    pub priority: i32,
}

/// What a swap area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapKind {
    /// A file.
    File,
    /// A partition or another block device.
    Partition,
    /// Compressed memory.
    Zram,
}

impl Swap {
    /// Reads `/proc/swaps`.
    pub fn read(root: &Root) -> Vec<Self> {
        Self::of(&root.text("proc/swaps").unwrap_or_default())
    }

    /// Reads a text of `/proc/swaps`: the areas in the order of their numbers.
    pub fn of(text: &str) -> Vec<Self> {
        text.lines().skip(1).filter_map(Self::parse).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let path = unescaped(words.next()?);
        let kind = match words.next()? {
            "file" => SwapKind::File,
            _ if path.starts_with("/dev/zram") => SwapKind::Zram,
            _ => SwapKind::Partition,
        };
        let mut kib = || words.next()?.parse::<u64>().ok()?.checked_mul(1024).map(Bytes);
        let (size, used) = (kib()?, kib()?);
        Some(Self { path, kind, size, used, priority: words.next()?.parse().ok()? })
    }
}

/// The kernel writes blanks and backslashes of a path as `\\` and three octal digits.
fn unescaped(word: &str) -> String {
    let mut parts = word.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte.into());
                path.push_str(&part[3..]);
            }
            None => path.push_str(part),
        }
    }
    path
}

/// Whether the kernel has zram, and it is loaded.
pub fn has_zram(root: &Root) -> bool {
    root.exists("sys/class/zram-control/hot_add")
}

/// How readily the kernel swaps, 0 (only in need) to 200 (`vm.swappiness`).
pub fn swappiness(root: &Root) -> Option<u32> {
    root.number("proc/sys/vm/swappiness")
}

/// Whether pages on their way to swap are kept compressed in memory first. `None`: the kernel has no zswap.
pub fn zswap_enabled(root: &Root) -> Option<bool> {
    root.switch("sys/module/zswap/parameters/enabled")
}

#[cfg(test)]
mod tests {
    use super::super::root::Fixture;
    use super::*;

    #[test]
    fn areas_are_told_apart() {
        let text = "Filename Type Size Used Priority\n\
            /swapfile\tfile\t1024\t4\t-2\n/dev/zram0 partition 2048 0 100\n/dev/vda2 partition 8 0 -3\nbroken\n";
        let areas = Swap::read(&Fixture::new(&[("proc/swaps", text)]).root());
        let kinds: Vec<_> = areas.iter().map(|area| (area.kind, area.size, area.priority)).collect();
        let expected = [
            (SwapKind::File, Bytes::mib(1), -2),
            (SwapKind::Zram, Bytes::mib(2), 100),
            (SwapKind::Partition, Bytes::kib(8), -3),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(Swap::read(&Fixture::new(&[]).root()), []);
    }

    #[test]
    fn a_path_with_blanks_is_read_back() {
        let text = "Filename Type Size Used Priority\n/my\\040swap\\134file file 1024 4 -2\n";
        let areas = Swap::read(&Fixture::new(&[("proc/swaps", text)]).root());
        assert_eq!(areas[0].path, "/my swap\\file");
    }

    #[test]
    fn switches_are_read() {
        let host = Fixture::new(&[("sys/module/zswap/parameters/enabled", "Y\n")]);
        assert_eq!(zswap_enabled(&host.root()), Some(true));
        assert_eq!(zswap_enabled(&Fixture::new(&[]).root()), None);
        let host = Fixture::new(&[("proc/sys/vm/swappiness", "60\n")]);
        assert_eq!(swappiness(&host.root()), Some(60));
    }
}

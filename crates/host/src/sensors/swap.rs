//! Where the host swaps to, and how much of it is RAM after all.

use napa_sys::host::{Root, Swap, SwapKind, zswap_enabled};
use napa_units::Bytes;

use super::SensorError;
use super::text::{Text, if_there};

/// All of a host's swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapState {
    /// Files and partitions: swap that limits can be promised against.
    pub disk: DiskSwap,
    /// zram: it is RAM, and nothing is promised against it.
    pub compressed: CompressedSwap,
    /// Pages on their way to a disk are kept compressed first.
    pub has_zswap: bool,
}

/// Swap on disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSwap {
    /// Size of all areas.
    pub total: Bytes,
    /// What they hold.
    pub used: Bytes,
}

/// Swap in RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressedSwap {
    /// Size of all areas, before compression.
    pub total: Bytes,
    /// What they hold, before compression.
    pub used: Bytes,
    /// RAM that this takes. `None`: the kernel does not say.
    pub memory: Option<Bytes>,
}

impl SwapState {
    /// Reads `/proc/swaps` and the figures of zram.
    ///
    /// # Errors
    /// A line or figure cannot be read, or an area holds more than its size.
    pub fn read(root: &Root) -> Result<Self, SensorError> {
        let Some(text) = if_there(Text::read(&root.as_ref().join("proc/swaps")))? else {
            // A kernel without swap.
            return Ok(Self::default());
        };
        let areas = Swap::of(text.as_str());
        let lines = text.as_str().lines().skip(1).filter(|line| !line.trim().is_empty()).count();
        if areas.len() != lines || areas.iter().any(|area| area.used > area.size) {
            return Err(text.nonsense("an area's line is not as it must be"));
        }
        let mut state = Self { has_zswap: zswap_enabled(root) == Some(true), ..Self::default() };
        for area in &areas {
            match area.kind {
                SwapKind::Zram => state.compressed.add(root, area)?,
                SwapKind::File | SwapKind::Partition => {
                    state.disk.total = sum(state.disk.total, area.size);
                    state.disk.used = sum(state.disk.used, area.used);
                }
            }
        }
        Ok(state)
    }
}

impl CompressedSwap {
    fn add(&mut self, root: &Root, area: &Swap) -> Result<(), SensorError> {
        self.total = sum(self.total, area.size);
        self.used = sum(self.used, area.used);
        let name = area.path.strip_prefix("/dev/").unwrap_or(&area.path);
        let file = root.as_ref().join(format!("sys/block/{name}/mm_stat"));
        let Some(text) = if_there(Text::read(&file))? else { return Ok(()) };
        // orig_data_size compr_data_size mem_used_total … (Documentation/admin-guide/blockdev/zram.rst).
        let word = text.as_str().split_whitespace().nth(2).and_then(|word| word.parse().ok());
        let used = text.required("mem_used_total", word.map(Bytes))?;
        self.memory = Some(sum(self.memory.unwrap_or_default(), used));
        Ok(())
    }
}

fn sum(left: Bytes, right: Bytes) -> Bytes {
    Bytes(left.0.saturating_add(right.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    const HEAD: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    fn read(files: &[(&str, &str)]) -> Result<SwapState, SensorError> {
        SwapState::read(&Fixture::new(files).root())
    }

    #[test]
    fn zram_is_ram_and_the_rest_is_disk() {
        let text = format!(
            "{HEAD}/swap file\t4096 4 10\n/dev/zram0 partition 2048 8 100\n/dev/vda2 partition 1024 0 -2\n"
        );
        let text = text.replace("/swap file", "/swap\\040file file");
        let swaps = ("proc/swaps", text.as_str());
        let zram = ("sys/block/zram0/mm_stat", "    8192     3000    12288        0   12288  0  0  0\n");
        let disk = DiskSwap { total: Bytes::mib(5), used: Bytes::kib(4) };
        let compressed =
            CompressedSwap { total: Bytes::mib(2), used: Bytes::kib(8), memory: Some(Bytes(12288)) };
        let found = read(&[swaps, zram, ("sys/module/zswap/parameters/enabled", "Y\n")]).unwrap();
        assert_eq!(found, SwapState { disk, compressed, has_zswap: true });
        let found = read(&[swaps]).unwrap();
        assert_eq!(found.compressed.memory, None);
        assert!(read(&[swaps, ("sys/block/zram0/mm_stat", "8192 3000\n")]).is_err());
    }

    #[test]
    fn no_swap_is_no_error_and_nonsense_is() {
        assert_eq!(read(&[]).unwrap(), SwapState::default());
        assert_eq!(read(&[("proc/swaps", HEAD)]).unwrap(), SwapState::default());
        for line in
            ["/swap file 4096 -4 10\n", "/swap file 4096\n", "/swap file 4 8 10\n", "/swap file NaN 0 0\n"]
        {
            let error = read(&[("proc/swaps", &format!("{HEAD}{line}"))]).unwrap_err().to_string();
            assert!(error.contains("proc/swaps holds nonsense"), "{error}");
        }
    }
}

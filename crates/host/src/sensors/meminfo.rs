//! The host's memory (`/proc/meminfo`).

use napa_sys::host::Root;
use napa_units::Bytes;

use super::SensorError;
use super::text::Text;

/// Memory and swap of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meminfo {
    /// RAM that the kernel manages.
    pub total: Bytes,
    /// What can be used without swapping, by the kernel's estimate.
    pub available: Bytes,
    /// What nobody uses.
    pub free: Bytes,
    /// Swap of all kinds.
    pub swap_total: Bytes,
    /// Swap that holds nothing.
    pub swap_free: Bytes,
    /// RAM that zswap takes. `None`: the kernel does not say (before 5.19), or has none.
    pub zswap: Option<Bytes>,
    /// What zswap holds, before compression.
    pub zswapped: Option<Bytes>,
}

impl Meminfo {
    /// Reads it.
    ///
    /// # Errors
    /// A figure is missing or cannot be: more is available than there is.
    pub fn read(root: &Root) -> Result<Self, SensorError> {
        let text = Text::read(&root.as_ref().join("proc/meminfo"))?;
        let size = |name| text.required(name, text.kib(name)?);
        let info = Self {
            total: size("MemTotal")?,
            available: size("MemAvailable")?,
            free: size("MemFree")?,
            swap_total: size("SwapTotal")?,
            swap_free: size("SwapFree")?,
            zswap: text.kib("Zswap")?,
            zswapped: text.kib("Zswapped")?,
        };
        let is_sound = info.total > Bytes(0)
            && info.available <= info.total
            && info.free <= info.total
            && info.swap_free <= info.swap_total;
        if is_sound { Ok(info) } else { Err(text.nonsense("more is free than there is")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    const OLD: &str = "MemTotal:        2048 kB\nMemFree:          512 kB\nMemAvailable:    1024 kB\nBuffers: 0 kB\n\
                       SwapTotal:       4096 kB\nSwapFree:        4000 kB\n";

    fn check(text: &str, expected: Option<(Bytes, Option<Bytes>)>) {
        let host = Fixture::new(&[("proc/meminfo", text)]);
        let found = Meminfo::read(&host.root());
        match (found, expected) {
            (Ok(found), Some(expected)) => assert_eq!((found.available, found.zswap), expected, "{text}"),
            (Err(error), None) => {
                assert!(error.to_string().contains("proc/meminfo holds nonsense"), "{error}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn kernels_of_all_ages_are_read_and_nonsense_is_refused() {
        check(OLD, Some((Bytes::mib(1), None)));
        check(&format!("{OLD}Zswap: 8 kB\nZswapped: 32 kB\n"), Some((Bytes::mib(1), Some(Bytes::kib(8)))));
        for (what, with) in [
            ("1024 kB", "-1024 kB"),
            ("1024 kB", "NaN kB"),
            ("1024 kB", "4096 kB"),
            ("1024 kB", "1024"),
            ("MemTotal:        2048", "MemTotal: 0"),
            ("SwapFree:        4000 kB\n", ""),
            ("4000 kB", "5000 kB"),
            ("2048 kB", "99999999999999999999 kB"),
        ] {
            check(&OLD.replace(what, with), None);
        }
        check("", None);
        check(&OLD[..40], None);
    }
}

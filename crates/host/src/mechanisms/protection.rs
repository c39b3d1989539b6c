//! Protection: the kernel takes a guest's memory last (`memory.low`), where the VM has a control group with the memory
//! controller. It is no way to get memory, so it makes no offers: a policy says how much of each guest is protected.

use std::path::{Path, PathBuf};

use napa_sys::cgroup::Protection;
use napa_units::Bytes;

/// Changes of less than this part are left: each is several writes to the kernel.
const PART: u64 = 8;

/// What is protected of one VM.
#[derive(Debug)]
pub struct Protected {
    folder: PathBuf,
    /// What its owner has protected.
    floor: Bytes,
    now: Bytes,
}

impl Protected {
    /// For the group with this folder. `None`: nothing can be protected there.
    pub fn find(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join("memory.low")).ok()?;
        let floor = match text.trim() {
            "max" => Bytes(u64::MAX),
            number => Bytes(number.parse().ok()?),
        };
        Some(Self { folder: folder.to_owned(), floor, now: floor })
    }

    /// Protects so much, and never less than the owner has.
    ///
    /// # Errors
    /// The group refuses, or is gone; in words.
    pub fn protect(&mut self, low: Bytes) -> Result<(), String> {
        let low = low.max(self.floor);
        let is_end = low == self.floor && low != self.now;
        if !is_end && low.0.abs_diff(self.now.0) <= self.now.0 / PART {
            return Ok(());
        }
        // What is protected stays when this is dropped: it is taken off by protecting less.
        match Protection::add(&self.folder, low) {
            Ok(_) => {
                self.now = low;
                Ok(())
            }
            Err(error) => Err(format!("cannot write {}: {error}", self.folder.join("memory.low").display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn protection_follows_the_policy_and_comes_back_to_what_the_owner_has_set() {
        let host = Fixture::new(&[("g/memory.low", "102400\n")]);
        let mut protected = Protected::find(&host.path("g")).unwrap();
        let now =
            || std::fs::read_to_string(host.path("g/memory.low")).unwrap().trim().parse::<u64>().unwrap();
        for (low, expected) in
            [(40_960, 102_400), (819_200, 819_200), (827_392, 819_200), (409_600, 409_600), (0, 102_400)]
        {
            protected.protect(Bytes(low)).unwrap();
            assert_eq!(now(), expected, "{low}");
        }
        host.remove("g");
        assert!(protected.protect(Bytes(1 << 20)).unwrap_err().contains("g/memory.low"));
        assert!(Protected::find(&host.path("g")).is_none());
    }
}

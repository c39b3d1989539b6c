//! The kernel's compressed cache in front of its swap (Documentation/admin-guide/mm/zswap.rst).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::SwapError;
use crate::host::{Root, zswap_enabled};

const SWITCH: &str = "sys/module/zswap/parameters/enabled";
/// What the switch was before napa moved it. A reboot moves it back, and forgets this folder.
const BEFORE: &str = "run/napa/zswap-before";

/// The switch of zswap.
#[derive(Debug)]
pub struct Zswap {
    root: Root,
}

impl Zswap {
    /// `None`: the kernel has none.
    pub fn find(root: &Root) -> Option<Self> {
        zswap_enabled(root).map(|_| Self { root: root.clone() })
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        zswap_enabled(&self.root) == Some(true)
    }

    /// Whether napa switched it on.
    pub fn is_ours(&self) -> bool {
        self.before().exists()
    }

    /// Switches it on and remembers if it was off.
    ///
    /// # Errors
    /// There is no right to it.
    pub fn switch_on(&self) -> Result<(), SwapError> {
        if self.is_on() {
            return Ok(());
        }
        let before = self.before();
        let remember = || {
            if let Some(folder) = before.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            fs::write(&before, "N\n")
        };
        remember().map_err(|source| refused(&before, source))?;
        self.set("Y").inspect_err(|_| self.forget())
    }

    /// Switches it off again if napa switched it on.
    ///
    /// # Errors
    /// There is no right to it.
    pub fn put_back(&self) -> Result<(), SwapError> {
        let before = self.before();
        if !before.exists() {
            return Ok(());
        }
        self.set("N")?;
        self.forget();
        Ok(())
    }

    fn set(&self, value: &str) -> Result<(), SwapError> {
        let path = self.root.path(SWITCH);
        fs::write(&path, value).map_err(|source| refused(&path, source))
    }

    fn forget(&self) {
        // What cannot be removed says only that zswap was off before, which is what it will be.
        let _ = fs::remove_file(self.before());
    }

    fn before(&self) -> PathBuf {
        self.root.path(BEFORE)
    }
}

fn refused(path: &Path, source: io::Error) -> SwapError {
    let mend = match source.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root, outside of a container",
        _ => "",
    };
    SwapError::Refused { what: "write", path: path.to_owned(), source, mend }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    fn host(enabled: &str) -> (Fixture, Zswap) {
        let host = Fixture::new(&[(SWITCH, enabled)]);
        let zswap = Zswap::find(&host.root()).unwrap();
        (host, zswap)
    }

    #[test]
    fn what_was_off_is_off_again_afterwards() {
        let (_host, zswap) = host("N\n");
        zswap.switch_on().unwrap();
        assert!(zswap.is_on() && zswap.is_ours());
        zswap.switch_on().unwrap();
        zswap.put_back().unwrap();
        assert!(!zswap.is_on() && !zswap.is_ours());
        zswap.put_back().unwrap();
    }

    #[test]
    fn what_was_on_stays_on() {
        let (_host, zswap) = host("Y\n");
        zswap.switch_on().unwrap();
        assert!(!zswap.is_ours());
        zswap.put_back().unwrap();
        assert!(zswap.is_on());
        assert!(Zswap::find(&Fixture::new(&[]).root()).is_none());
    }
}

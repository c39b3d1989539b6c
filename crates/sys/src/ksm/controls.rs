//! The kernel's settings of KSM: saved, set for VMs, and put back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::SYSFS;
use crate::host::Root;

/// The settings that are changed, in the order in which they are set: where the kernel has an advisor it comes first,
/// because the pace cannot be set while it has one; `run` comes last. Settings that cannot be changed while pages are
/// merged (`max_page_sharing`, `merge_across_nodes`) are left alone.
const NAMES: [&str; 5] = [ADVISOR.0, "pages_to_scan", "sleep_millisecs", "use_zero_pages", "run"];

/// The kernel's own advisor is switched off (Linux 6.8 and newer have one): it finds its next pace at the end of a round
/// and has no lower bound but a tenth of the pace before, so that after a round over VMs that had just started, and
/// nothing in memory, it looks at 750 pages a second, and needs more than an hour for 10 GiB.
const ADVISOR: (&str, &str) = ("advisor_mode", "none");
/// Up to 50,000 pages (200 MiB) a second, for about a tenth of a core. A page is merged after it was found unchanged
/// once, so what guests hold in common is merged within two rounds.
const PACED: &[(&str, &str)] =
    &[("pages_to_scan", "1000"), ("sleep_millisecs", "20"), ("use_zero_pages", "1"), ("run", "1")];

/// Values of settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Vec<(&'static str, String)>);

impl Settings {
    /// Adds a setting. `None`: it is none of those that are changed, or the value cannot be one.
    pub(super) fn put(&mut self, name: &str, value: &str) -> Option<()> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if value.is_empty() || value.len() > 20 || !value.bytes().all(is_plain) {
            return None;
        }
        self.0.push((name, value.to_owned()));
        Some(())
    }

    /// Name and value of each, in the order in which they are set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }
}

/// The kernel's files, open for writing.
#[derive(Debug)]
pub(super) struct Controls {
    files: Vec<(&'static str, File)>,
    full_scans: File,
}

impl Controls {
    /// Opens those that this kernel has.
    pub fn open(root: &Root) -> io::Result<Self> {
        let folder = root.as_ref().join(SYSFS);
        let mut files = Vec::new();
        for name in NAMES {
            match File::options().read(true).write(true).open(folder.join(name)) {
                Ok(file) => files.push((name, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && name == ADVISOR.0 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { files, full_scans: File::open(folder.join("full_scans"))? })
    }

    /// How often all mergeable memory was looked at.
    pub fn full_scans(&self) -> io::Result<u64> {
        read(&self.full_scans)?.parse().map_err(io::Error::other)
    }

    /// The settings as they are.
    pub fn save(&self) -> io::Result<Settings> {
        let mut saved = Settings::default();
        for (name, file) in &self.files {
            let text = read(file)?;
            saved.put(name, chosen(&text)).ok_or_else(|| {
                io::Error::other(format!("{name} is {text:?}, which is no value of this setting"))
            })?;
        }
        Ok(saved)
    }

    /// Sets what VMs need.
    pub fn set(&self) -> io::Result<()> {
        let has_advisor = self.files.iter().any(|(name, _)| *name == ADVISOR.0);
        let wanted = has_advisor.then_some(&ADVISOR).into_iter().chain(PACED);
        wanted.into_iter().try_for_each(|(name, value)| self.write(name, value))
    }

    /// Puts settings back.
    pub fn restore(&self, saved: &Settings) -> io::Result<()> {
        for (name, value) in saved.iter() {
            // The pace is the advisor's while there is one, and the kernel refuses another.
            let is_advised = saved.get(ADVISOR.0).is_some_and(|mode| mode != "none");
            if !(name == "pages_to_scan" && is_advised) {
                self.write(name, value)?;
            }
        }
        Ok(())
    }

    /// Takes apart whatever is merged, and lets the kernel forget what it knew of pages that are gone.
    pub fn unmerge_all(&self) -> io::Result<()> {
        self.write("run", "2")
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        let (_, file) = self.files.iter().find(|(other, _)| *other == name).ok_or(io::ErrorKind::NotFound)?;
        file.write_all_at(format!("{value}\n").as_bytes(), 0)
            .map_err(|error| io::Error::new(error.kind(), format!("{name} cannot be {value}: {error}")))
    }
}

fn read(file: &File) -> io::Result<String> {
    let mut bytes = [0; 256];
    let count = file.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..count]);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The present one of several choices is in brackets.
fn chosen(text: &str) -> &str {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map_or(text, |(choice, _)| choice)
}

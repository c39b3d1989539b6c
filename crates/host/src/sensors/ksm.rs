//! Merged pages, of the host and of one process (Documentation/admin-guide/mm/ksm.rst).

use std::path::Path;

use napa_sys::host::Root;
use napa_units::{Bytes, Pages};

use super::SensorError;
use super::text::{Text, if_there};

/// What merging saves on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSharing {
    /// The kernel looks for equal pages.
    pub is_running: bool,
    /// Memory saved.
    pub saved: Bytes,
    /// The same less what it costs, in bytes. `None`: the kernel does not say (before 6.4).
    pub profit: Option<i64>,
}

impl HostSharing {
    /// Reads `/sys/kernel/mm/ksm`. `None`: the kernel has no KSM.
    ///
    /// # Errors
    /// A figure cannot be read.
    pub fn read(root: &Root) -> Result<Option<Self>, SensorError> {
        let text = |name: &str| Text::read(&root.as_ref().join("sys/kernel/mm/ksm").join(name));
        let Some(run) = if_there(text("run"))? else { return Ok(None) };
        let profit = if_there(text("general_profit"))?;
        Ok(Some(Self {
            is_running: run.whole::<u64>()? == 1,
            saved: bytes(&text("pages_sharing")?, None)?,
            profit: profit.map(|text| text.whole()).transpose()?,
        }))
    }
}

/// What merging does for one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessSharing {
    /// Its memory that is merged with other memory, its own among it. `None`: the kernel does not say.
    pub merged: Option<Bytes>,
    /// Its memory that is the kernel's page of zeros instead. `None`: the kernel does not say.
    pub zero: Option<Bytes>,
    /// What merging saves less what it costs, in bytes. `None`: the kernel does not say.
    pub profit: Option<i64>,
}

impl ProcessSharing {
    /// Reads `/proc/PID/ksm_stat`, or what older kernels have in its place.
    ///
    /// # Errors
    /// A figure cannot be read.
    pub fn read(process: &Path) -> Result<Self, SensorError> {
        let Some(stat) = if_there(Text::read(&process.join("ksm_stat")))? else { return Ok(Self::default()) };
        let merged = match bytes_of(&stat, "ksm_merging_pages")? {
            Some(merged) => Some(merged),
            None => if_there(Text::read(&process.join("ksm_merging_pages")))?
                .map(|text| bytes(&text, None))
                .transpose()?,
        };
        let (zero, profit) = (bytes_of(&stat, "ksm_zero_pages")?, stat.number("ksm_process_profit")?);
        Ok(Self { merged, zero, profit })
    }
}

fn bytes_of(text: &Text, name: &str) -> Result<Option<Bytes>, SensorError> {
    match text.entry(name) {
        Some(_) => bytes(text, Some(name)).map(Some),
        None => Ok(None),
    }
}

/// A count of pages, alone in its file or behind a name.
fn bytes(text: &Text, name: Option<&str>) -> Result<Bytes, SensorError> {
    let pages: u64 = match name {
        Some(name) => text.required(name, text.number(name)?)?,
        None => text.whole()?,
    };
    match pages.checked_mul(Pages(1).bytes().0) {
        Some(bytes) => Ok(Bytes(bytes)),
        None => Err(text.nonsense(format!("{pages} pages are more than any memory"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    fn process(files: &[(&str, &str)]) -> Option<ProcessSharing> {
        let host = Fixture::new(files);
        ProcessSharing::read(&host.path("")).ok()
    }

    #[test]
    fn a_process_is_read_on_old_and_new_kernels() {
        let pages = |count| Some(Pages(count).bytes());
        let new = "ksm_rmap_items 9\nksm_zero_pages 1\nksm_merging_pages 7\nksm_process_profit -64\nksm_merge_any: no\n";
        for (files, expected) in [
            (vec![("ksm_stat", new)], Some([pages(7), pages(1)])),
            (vec![("ksm_stat", "ksm_rmap_items 9\n"), ("ksm_merging_pages", "5\n")], Some([pages(5), None])),
            (vec![("ksm_stat", "ksm_rmap_items 9\n")], Some([None, None])),
            (vec![], Some([None, None])),
            (vec![("ksm_stat", "ksm_merging_pages -1\n")], None),
            (vec![("ksm_stat", "ksm_merging_pages 18446744073709551615\n")], None),
        ] {
            let found = process(&files).map(|sharing| [sharing.merged, sharing.zero]);
            assert_eq!(found, expected, "{files:?}");
        }
        assert_eq!(process(&[("ksm_stat", new)]).unwrap().profit, Some(-64));
    }

    #[test]
    fn a_host_has_ksm_or_has_not() {
        let ksm = |name: &str| format!("sys/kernel/mm/ksm/{name}");
        let (run, sharing, profit) = (ksm("run"), ksm("pages_sharing"), ksm("general_profit"));
        let read = |files: &[(&str, &str)]| HostSharing::read(&Fixture::new(files).root());
        assert_eq!(read(&[]).unwrap(), None);
        let expected = HostSharing { is_running: true, saved: Pages(9).bytes(), profit: None };
        assert_eq!(read(&[(&run, "1\n"), (&sharing, "9\n")]).unwrap(), Some(expected));
        let expected = HostSharing { is_running: false, profit: Some(-8), ..expected };
        assert_eq!(read(&[(&run, "0\n"), (&sharing, "9\n"), (&profit, "-8\n")]).unwrap(), Some(expected));
        assert!(read(&[(&run, "1\n"), (&sharing, "nine\n")]).is_err());
        assert!(read(&[(&run, "1\n")]).unwrap_err().is_gone());
    }
}

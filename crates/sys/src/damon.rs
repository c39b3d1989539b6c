//! DAMON, the kernel's monitor of data accesses, through its files (Documentation/admin-guide/mm/damon/usage.rst).
//!
//! It marks one random page of each region of a process's memory as not accessed, waits, and looks whether the page was
//! accessed meanwhile, by the process or, where the processor or KVM tell, by a guest. It serves one owner at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use napa_units::{Bytes, PAGE_SIZE};

use crate::host::Root;

const FOLDER: &str = "sys/kernel/mm/damon/admin/kdamonds";
/// Regions that memory is cut into at most: each costs the kernel a page to look at, and us two files to write.
const REGIONS_MAX: u64 = 1000;
/// The least that the kernel takes (`damon_set_attrs`).
const REGIONS_MIN: usize = 3;
/// A file is busy while somebody reads another one of DAMON's; after so many attempts it stays so.
const ATTEMPTS_MAX: u32 = 50;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(20);

/// DAMON, claimed. Dropping it switches it off and leaves it as it was found.
#[derive(Debug)]
pub struct Damon {
    folder: PathBuf,
    /// Locked, so that two of us never take it at once.
    count: File,
    is_on: bool,
}

/// What was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accesses {
    /// The memory that was looked at.
    pub watched: Bytes,
    /// The part of it in regions whose page was accessed.
    pub accessed: Bytes,
    /// Regions that were looked at.
    pub regions: u64,
    /// Those of them whose page was accessed.
    pub accessed_regions: u64,
}

/// Why DAMON does not tell.
#[derive(Debug, thiserror::Error)]
pub enum DamonError {
    /// The kernel has no such files.
    #[error("this kernel has no DAMON that files control (CONFIG_DAMON_SYSFS)")]
    Absent,
    /// It cannot watch ranges of a process's memory, or tell what it saw.
    #[error("this kernel's DAMON lacks {0}, which came with {1}")]
    Lacks(&'static str, &'static str),
    /// Somebody has it.
    #[error(
        "DAMON serves somebody else ({0}/nr_kdamonds is {count}); if nobody needs it: echo off > {0}/0/state; \
         echo 0 > {0}/nr_kdamonds", .folder.display()
    )]
    InUse {
        /// Where DAMON's files are.
        folder: PathBuf,
        /// What `nr_kdamonds` says.
        count: String,
    },
    /// The process ended, or is none.
    #[error("DAMON has stopped: process {0} has ended")]
    Stopped(u32),
    /// What it says does not fit what it was asked.
    #[error("DAMON was asked about {asked} and tells of {told}")]
    Incomplete {
        /// What it should have watched.
        asked: Bytes,
        /// What it has watched.
        told: Bytes,
    },
    /// A file refused.
    #[error("cannot {what} {}: {source}{}", .path.display(), mend(.source))]
    Refused {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; DAMON is for root alone",
        io::ErrorKind::ResourceBusy => "; the kernel uses DAMON itself, for DAMON_RECLAIM or the like",
        _ => "",
    }
}

impl Damon {
    /// Takes DAMON, if nobody has it.
    ///
    /// # Errors
    /// The kernel has none that can do what is needed, somebody has it, or this process may not.
    pub fn claim(root: &Root) -> Result<Self, DamonError> {
        let folder = root.path(FOLDER);
        let path = folder.join("nr_kdamonds");
        let count =
            OpenOptions::new().read(true).write(true).open(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => DamonError::Absent,
                _ => DamonError::Refused { what: "open", path: path.clone(), source },
            })?;
        let in_use = |count: String| DamonError::InUse { folder: folder.clone(), count };
        rustix::fs::flock(&count, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| in_use("locked".into()))?;
        match read(&path)?.as_str() {
            "0" => {}
            other => return Err(in_use(other.to_owned())),
        }
        let damon = Self { folder, count, is_on: false };
        // From here on, dropping it puts this back.
        damon.write("nr_kdamonds", "1")?;
        damon.write("0/contexts/nr_contexts", "1")?;
        let operations = read(&damon.folder.join("0/contexts/0/avail_operations"))?;
        if !operations.split_whitespace().any(|name| name == "fvaddr") {
            return Err(DamonError::Lacks("fixed ranges of a process's memory (fvaddr)", "Linux 5.19"));
        }
        damon.write("0/contexts/0/schemes/nr_schemes", "1")?;
        if !damon.folder.join("0/contexts/0/schemes/0/tried_regions").exists() {
            return Err(DamonError::Lacks("a list of what it saw (tried_regions)", "Linux 6.2"));
        }
        Ok(damon)
    }

    /// Sees what of these ranges of a process's memory is accessed within `time`, which the call takes; it cannot be
    /// interrupted.
    ///
    /// # Errors
    /// The process ends, or the kernel refuses.
    pub fn watch(
        &mut self,
        process: u32,
        ranges: &[Range<u64>],
        time: Duration,
    ) -> Result<Accesses, DamonError> {
        let slices = slices(ranges);
        self.set_up(process, &slices, time)?;
        self.write("0/state", "on")?;
        self.is_on = true;
        // Returns when the pages have been looked at.
        match self.write("0/state", "update_schemes_tried_regions") {
            Err(_) if read(&self.folder.join("0/state"))? == "off" => Err(DamonError::Stopped(process)),
            Err(error) => Err(error),
            Ok(()) => self.seen(sum(&slices)),
        }
    }

    /// One look at one page of each region: a page counts that was accessed at any time from the beginning to the end.
    /// With as many regions as the least and the most there may be, the kernel neither joins nor splits them.
    fn set_up(&self, process: u32, slices: &[Range<u64>], time: Duration) -> Result<(), DamonError> {
        let write = |path: &str, value: &str| self.write(&format!("0/contexts/0/{path}"), value);
        write("operations", "fvaddr")?;
        let interval_us = time.as_micros().to_string();
        for name in ["sample_us", "aggr_us", "update_us"] {
            write(&format!("monitoring_attrs/intervals/{name}"), &interval_us)?;
        }
        let count = slices.len().max(REGIONS_MIN).to_string();
        // The greater first: the kernel refuses a least that is more than the most.
        write("monitoring_attrs/nr_regions/max", &count)?;
        write("monitoring_attrs/nr_regions/min", &count)?;
        write("targets/nr_targets", "1")?;
        write("targets/0/pid_target", &process.to_string())?;
        write("targets/0/regions/nr_regions", &slices.len().to_string())?;
        for (index, slice) in slices.iter().enumerate() {
            write(&format!("targets/0/regions/{index}/start"), &slice.start.to_string())?;
            write(&format!("targets/0/regions/{index}/end"), &slice.end.to_string())?;
        }
        write("schemes/0/action", "stat")?;
        for name in ["sz", "nr_accesses", "age"] {
            write(&format!("schemes/0/access_pattern/{name}/min"), "0")?;
            write(&format!("schemes/0/access_pattern/{name}/max"), &u64::MAX.to_string())?;
        }
        Ok(())
    }

    fn seen(&self, asked: Bytes) -> Result<Accesses, DamonError> {
        let folder = self.folder.join("0/contexts/0/schemes/0/tried_regions");
        let mut seen = Accesses { watched: Bytes(0), accessed: Bytes(0), regions: 0, accessed_regions: 0 };
        let refused = |source| DamonError::Refused { what: "list", path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(refused)? {
            let region = entry.map_err(refused)?.path();
            // Beside the regions there are files with sums.
            if !region.is_dir() {
                continue;
            }
            let [start, end, accesses] =
                [number(&region, "start")?, number(&region, "end")?, number(&region, "nr_accesses")?];
            let size = end.saturating_sub(start);
            seen.regions += 1;
            seen.watched.0 = seen.watched.0.saturating_add(size);
            if accesses > 0 {
                seen.accessed_regions += 1;
                seen.accessed.0 = seen.accessed.0.saturating_add(size);
            }
        }
        if seen.watched == asked {
            Ok(seen)
        } else {
            Err(DamonError::Incomplete { asked, told: seen.watched })
        }
    }

    fn write(&self, name: &str, value: &str) -> Result<(), DamonError> {
        let path = self.folder.join(name);
        let mut attempts = 1;
        loop {
            let written = OpenOptions::new().write(true).truncate(true).open(&path);
            match written.and_then(|mut file| file.write_all(value.as_bytes())) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                    thread::sleep(ATTEMPT_INTERVAL);
                }
                Err(source) => return Err(DamonError::Refused { what: "write", path, source }),
            }
        }
    }
}

impl Drop for Damon {
    fn drop(&mut self) {
        if self.is_on {
            // It is off by itself where the process has ended.
            let _ = self.write("0/state", "off");
        }
        // Takes away all that was set below it.
        let _ = self.write("nr_kdamonds", "0");
        let _ = rustix::fs::flock(&self.count, rustix::fs::FlockOperation::Unlock);
    }
}

/// Ranges of whole pages in order, cut into slices of about the same size.
fn slices(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut ranges = ranges.to_vec();
    ranges.sort_by_key(|range| range.start);
    let size = sum(&ranges).0.div_ceil(REGIONS_MAX).next_multiple_of(PAGE_SIZE).max(PAGE_SIZE);
    let cut = |range: Range<u64>| {
        let starts = (range.start..range.end).step_by(size as usize);
        starts.map(move |start| start..range.end.min(start.saturating_add(size)))
    };
    ranges.into_iter().flat_map(cut).collect()
}

fn sum(ranges: &[Range<u64>]) -> Bytes {
    Bytes(ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum())
}

fn read(path: &Path) -> Result<String, DamonError> {
    let mut attempts = 1;
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempts < ATTEMPTS_MAX => {
                attempts += 1;
                thread::sleep(ATTEMPT_INTERVAL);
            }
            Err(source) => return Err(DamonError::Refused { what: "read", path: path.to_owned(), source }),
        }
    }
}

fn number(folder: &Path, name: &str) -> Result<u64, DamonError> {
    let path = folder.join(name);
    read(&path)?.parse().map_err(|_| {
        let source = io::Error::new(io::ErrorKind::InvalidData, "it holds no number");
        DamonError::Refused { what: "read", path, source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::Fixture;

    const CONTEXT: &str = "sys/kernel/mm/damon/admin/kdamonds/0/contexts/0";

    /// A kernel's files, with `count` for `nr_kdamonds` and these regions that were seen.
    fn kernel(count: &str, operations: &str, seen: &[[u64; 3]]) -> Fixture {
        let mut files = vec![
            (format!("{FOLDER}/nr_kdamonds"), count.to_owned()),
            (format!("{FOLDER}/0/state"), "off\n".into()),
            (format!("{FOLDER}/0/contexts/nr_contexts"), "0\n".into()),
            (format!("{CONTEXT}/avail_operations"), operations.to_owned()),
            (format!("{CONTEXT}/schemes/0/tried_regions/total_bytes"), "0\n".into()),
        ];
        let attributes = ["intervals/sample_us", "intervals/aggr_us", "intervals/update_us"];
        let regions = ["nr_regions/min", "nr_regions/max"];
        let attributes = attributes.iter().chain(&regions).map(|name| format!("monitoring_attrs/{name}"));
        let pattern = ["sz", "nr_accesses", "age"]
            .map(|name| ["min", "max"].map(|end| format!("schemes/0/access_pattern/{name}/{end}")));
        let others = [
            "operations",
            "targets/nr_targets",
            "targets/0/pid_target",
            "targets/0/regions/nr_regions",
            "targets/0/regions/0/start",
            "targets/0/regions/0/end",
            "targets/0/regions/1/start",
            "targets/0/regions/1/end",
            "schemes/nr_schemes",
            "schemes/0/action",
        ];
        let names = attributes.chain(pattern.into_iter().flatten()).chain(others.map(String::from));
        files.extend(names.map(|name| (format!("{CONTEXT}/{name}"), "0\n".into())));
        for (index, region) in seen.iter().enumerate() {
            for (name, value) in ["start", "end", "nr_accesses"].iter().zip(region) {
                let path = format!("{CONTEXT}/schemes/0/tried_regions/{index}/{name}");
                files.push((path, format!("{value}\n")));
            }
        }
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        Fixture::new(&files)
    }

    /// Two pages in two places: a slice each.
    const RANGES: [Range<u64>; 2] = [0x5000..0x6000, 0x1000..0x2000];

    #[test]
    fn what_was_accessed_is_summed_and_everything_put_back() {
        let host = kernel("0\n", "vaddr\nfvaddr\npaddr\n", &[[0x1000, 0x2000, 1], [0x5000, 0x6000, 0]]);
        let text = |path: &str| host.root().text(path).unwrap();
        let mut damon = Damon::claim(&host.root()).unwrap();
        let error = Damon::claim(&host.root()).unwrap_err();
        assert!(matches!(&error, DamonError::InUse { count, .. } if count == "locked"), "{error}");
        let seen = damon.watch(7, &RANGES, Duration::from_secs(3)).unwrap();
        let page = Bytes(PAGE_SIZE);
        let expected = Accesses { watched: Bytes(8192), accessed: page, regions: 2, accessed_regions: 1 };
        assert_eq!(seen, expected);
        for (name, value) in [
            ("operations", "fvaddr"),
            ("monitoring_attrs/intervals/aggr_us", "3000000"),
            ("monitoring_attrs/nr_regions/max", "3"),
            ("targets/0/pid_target", "7"),
            ("targets/0/regions/0/start", "4096"),
            ("targets/0/regions/1/end", "24576"),
            ("schemes/0/action", "stat"),
        ] {
            assert_eq!(text(&format!("{CONTEXT}/{name}")), value, "{name}");
        }
        drop(damon);
        assert_eq!(text(&format!("{FOLDER}/0/state")), "off");
        assert_eq!(text(&format!("{FOLDER}/nr_kdamonds")), "0");
    }

    #[test]
    fn damon_that_somebody_has_is_left_alone() {
        let host = kernel("2\n", "vaddr\nfvaddr\n", &[]);
        let error = Damon::claim(&host.root()).unwrap_err().to_string();
        assert!(error.contains("serves somebody else") && error.contains("nr_kdamonds is 2"), "{error}");
        assert_eq!(host.root().text(&format!("{FOLDER}/nr_kdamonds")).as_deref(), Some("2"));
    }

    #[test]
    fn kernels_that_cannot_do_it_say_what_they_lack() {
        let empty = Fixture::new(&[]);
        assert!(matches!(Damon::claim(&empty.root()), Err(DamonError::Absent)));
        let host = kernel("0\n", "paddr\n", &[]);
        let error = Damon::claim(&host.root()).unwrap_err().to_string();
        assert!(error.contains("fvaddr"), "{error}");
        assert_eq!(host.root().text(&format!("{FOLDER}/nr_kdamonds")).as_deref(), Some("0"));
    }

    #[test]
    fn a_list_that_does_not_hold_all_memory_is_refused() {
        let host = kernel("0\n", "fvaddr\n", &[[0x1000, 0x2000, 1]]);
        let error =
            Damon::claim(&host.root()).unwrap().watch(7, &RANGES, Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, DamonError::Incomplete { .. }), "{error}");
    }

    #[test]
    fn slices_cover_the_ranges_in_order() {
        let all = 0..256 << 20;
        for (ranges, count) in [
            (&RANGES[..1], 1),
            (&RANGES, 2),
            (std::slice::from_ref(&all), 993),
            // Each range may end with a shorter one.
            (&[1 << 32..2 << 32, 0..3 << 30], 1001),
        ] {
            let cut = slices(ranges);
            assert_eq!((cut.len(), sum(&cut)), (count, sum(ranges)), "{ranges:?}");
            assert!(cut.is_sorted_by(|one, next| one.end <= next.start), "{ranges:?}");
        }
    }
}

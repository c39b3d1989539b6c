//! A VM's process (proc_pid_statm(5), proc_pid_status(5), proc_pid_smaps(5)).

use std::fs::File;
use std::path::PathBuf;

use napa_sys::host::Root;
use napa_units::{Bytes, Pages};

use super::text::Text;
use super::{ProcessSharing, SensorError};

/// The files of one process. They stay those of this process: when it has ended, they are gone, whoever has its number
/// by then.
#[derive(Debug)]
pub struct ProcessSensor {
    folder: PathBuf,
    statm: File,
}

/// What a process has in memory, at the price of one small read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statm {
    /// All of it, shared pages counted whole.
    pub resident: Bytes,
    /// The part of it that belongs to files, such as the program itself.
    pub files: Bytes,
}

/// What a process has in swap, and how often it waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What it has in swap of any kind.
    pub swapped: Bytes,
    /// Page faults that had to wait for a disk or swap, ever.
    pub major_faults: u64,
}

/// What a process has in memory, page by page: the kernel walks all its page tables for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollup {
    /// All of it.
    pub resident: Bytes,
    /// Its part of it: a page that N processes have counts for an Nth.
    pub proportional: Bytes,
    /// The part of that which belongs to no file: guest memory, and a little of the process's own.
    pub anonymous: Bytes,
    /// Its part of what is in swap.
    pub swapped: Bytes,
}

impl ProcessSensor {
    /// Opens the files of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn open(root: &Root, pid: u32) -> Result<Self, SensorError> {
        let folder = root.as_ref().join(format!("proc/{pid}"));
        let file = folder.join("statm");
        let statm = File::open(&file).map_err(|source| SensorError::of(&file, source))?;
        Ok(Self { folder, statm })
    }

    /// Reads `statm`.
    ///
    /// # Errors
    /// The process has ended, or the file is not as the kernel writes it.
    pub fn statm(&self) -> Result<Statm, SensorError> {
        let text = Text::read_open(&self.statm, &self.folder.join("statm"))?;
        let mut words = text.as_str().split_whitespace().map(str::parse::<u64>);
        match (words.next(), words.next(), words.next()) {
            // A process that has given its memory back, but was not waited for.
            (Some(Ok(0)), ..) => Err(SensorError::Gone { file: self.folder.join("statm") }),
            (Some(Ok(size)), Some(Ok(resident)), Some(Ok(files)))
                if files <= resident && resident <= size && size < u64::MAX >> 12 =>
            {
                Ok(Statm { resident: Pages(resident).bytes(), files: Pages(files).bytes() })
            }
            _ => Err(text.nonsense("its first three words are not sizes in pages")),
        }
    }

    /// Reads `status` and `stat`.
    ///
    /// # Errors
    /// As above.
    pub fn usage(&self) -> Result<Usage, SensorError> {
        let status = Text::read(&self.folder.join("status"))?;
        // A kernel without swap has no such line.
        let swapped = status.kib("VmSwap")?.unwrap_or_default();
        let stat = Text::read(&self.folder.join("stat"))?;
        // The name, in parentheses, may hold blanks: field 3 is the first behind it, field 12 counts major faults.
        let fields = stat.as_str().rsplit_once(')').map(|(_, fields)| fields);
        let word = fields.and_then(|fields| fields.split_whitespace().nth(9));
        let major_faults = word.and_then(|word| word.parse().ok());
        Ok(Usage { swapped, major_faults: stat.required("field 12", major_faults)? })
    }

    /// Reads `smaps_rollup`, which takes about a millisecond for each gibibyte in small pages.
    ///
    /// # Errors
    /// As above; or this user may not look at the process's memory.
    pub fn rollup(&self) -> Result<Rollup, SensorError> {
        let text = Text::read(&self.folder.join("smaps_rollup"))?;
        let size = |name| text.required(name, text.kib(name)?);
        let rollup = Rollup {
            resident: size("Rss")?,
            proportional: size("Pss")?,
            anonymous: size("Pss_Anon")?,
            swapped: text.kib("SwapPss")?.unwrap_or_default(),
        };
        match rollup.anonymous <= rollup.proportional && rollup.proportional <= rollup.resident {
            true => Ok(rollup),
            false => Err(text.nonsense("its part is more than the whole")),
        }
    }

    /// Reads what merging does for it.
    ///
    /// # Errors
    /// As above.
    pub fn sharing(&self) -> Result<ProcessSharing, SensorError> {
        ProcessSharing::read(&self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    const STAT: &str = "7 (a (b) c) S 1 7 7 0 -1 4194304 1704 0 33 0 12 3 0 0 20 0 9 0 100 999 50\n";
    const STATUS: &str = "Name:\tnapa\nVmRSS:\t   2048 kB\nVmSwap:\t    512 kB\n";
    const ROLLUP: &str = "55cf-7ffc ---p 00000000 00:00 0   [rollup]\nRss:  1704 kB\nPss:  361 kB\nPss_Dirty: 1 kB\nPss_Anon: 300 kB\n\
                          Swap: 8 kB\nSwapPss: 4 kB\n";

    fn process(name: &str, text: &str) -> (Fixture, ProcessSensor) {
        let files = [
            ("statm", "500 426 380 9 0 100 0\n"),
            ("stat", STAT),
            ("status", STATUS),
            ("smaps_rollup", ROLLUP),
        ];
        let host = Fixture::new(
            &files
                .map(|(name, text)| (format!("proc/7/{name}"), text))
                .each_ref()
                .map(|(path, text)| (path.as_str(), *text)),
        );
        if !name.is_empty() {
            host.write(&format!("proc/7/{name}"), text);
        }
        let sensor = ProcessSensor::open(&host.root(), 7).unwrap();
        (host, sensor)
    }

    #[test]
    fn a_process_is_read() {
        let (_host, sensor) = process("", "");
        assert_eq!(sensor.statm().unwrap().resident, Pages(426).bytes());
        assert_eq!(sensor.usage().unwrap(), Usage { swapped: Bytes::kib(512), major_faults: 33 });
        let expected = Rollup {
            resident: Bytes::kib(1704),
            proportional: Bytes::kib(361),
            anonymous: Bytes::kib(300),
            swapped: Bytes::kib(4),
        };
        assert_eq!(sensor.rollup().unwrap(), expected);
        assert_eq!(sensor.sharing().unwrap(), ProcessSharing::default());
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_file() {
        for (name, text) in [
            ("statm", ""),
            ("statm", "500 -1 0"),
            ("statm", "500 501 0 0"),
            ("statm", "500 42"),
            ("status", "VmSwap: many kB\n"),
            ("stat", "7 (a) S 1 2 3"),
            ("stat", ""),
            ("smaps_rollup", "Rss: 4 kB\n"),
            ("smaps_rollup", "Rss: 4 kB\nPss: 5 kB\nPss_Anon: 1 kB\n"),
            ("smaps_rollup", "Rss: NaN kB\nPss: 5 kB\n"),
        ] {
            let (_host, sensor) = process(name, text);
            let results = [sensor.statm().map(drop), sensor.usage().map(drop), sensor.rollup().map(drop)];
            let errors: Vec<String> =
                results.into_iter().filter_map(Result::err).map(|e| e.to_string()).collect();
            assert_eq!(errors.len(), 1, "{name} {text:?}: {errors:?}");
            assert!(errors[0].contains(&format!("proc/7/{name} holds nonsense")), "{errors:?}");
        }
    }

    #[test]
    fn a_process_that_ended_is_gone() {
        let (host, sensor) = process("statm", "0 0 0 0 0 0 0\n");
        assert!(sensor.statm().unwrap_err().is_gone());
        host.remove("proc/7");
        assert!(sensor.usage().unwrap_err().is_gone() && sensor.rollup().unwrap_err().is_gone());
        assert!(ProcessSensor::open(&host.root(), 7).unwrap_err().is_gone());
        // The same with a process of this host.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let sensor = ProcessSensor::open(&Root::system(), child.id()).unwrap();
        assert!(sensor.statm().unwrap().resident > Bytes(0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(sensor.statm().unwrap_err().is_gone());
    }
}

//! The kernel's call that tasks wait for memory (Documentation/accounting/psi.rst, "Monitoring for pressure
//! thresholds").

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use napa_sys::host::Root;

/// What wakes the daemon: some task waited 5 % of a second, or all of them 10 %. The words for a kernel that grants
/// short windows come first; to whoever is not root it grants multiples of two seconds.
const TRIGGERS: [[&str; 2]; 2] =
    [["some 50000 1000000", "full 100000 1000000"], ["some 100000 2000000", "full 200000 2000000"]];

/// How the daemon learns of pressure between ticks.
#[derive(Debug)]
pub enum Alarm {
    /// The kernel calls.
    Triggers(Triggers),
    /// The pressure file is looked at every so often.
    Polling {
        /// Why the kernel does not call.
        reason: String,
    },
}

/// Triggers of the host's memory pressure.
#[derive(Debug)]
pub struct Triggers(Vec<File>);

impl Alarm {
    /// Asks the kernel to call.
    pub fn set(root: &Root) -> Self {
        let file = root.as_ref().join("proc/pressure/memory");
        let mut refusal = io::Error::other("it was not asked");
        for words in TRIGGERS {
            match words.iter().map(|word| arm(&file, word)).collect::<io::Result<Vec<File>>>() {
                Ok(files) => return Self::Triggers(Triggers(files)),
                Err(error) => refusal = error,
            }
        }
        let reason = match refusal.kind() {
            io::ErrorKind::NotFound => "this kernel does not measure pressure: boot with psi=1".to_owned(),
            _ => format!("{} takes no trigger: {refusal}", file.display()),
        };
        Self::Polling { reason }
    }
}

impl Triggers {
    /// What to wait for, with `POLLPRI`.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd)
    }
}

fn arm(file: &std::path::Path, words: &str) -> io::Result<File> {
    let mut open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    // The kernel wants the zero at the end of the string, too.
    open.write_all(format!("{words}\0").as_bytes())?;
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn a_kernel_that_does_not_call_is_polled_and_the_reason_told() {
        let host = Fixture::new(&[]);
        let Alarm::Polling { reason } = Alarm::set(&host.root()) else { panic!("nothing can call") };
        assert!(reason.contains("psi=1"), "{reason}");
        let host = Fixture::new(&[("proc/pressure/memory/folder", "")]);
        let Alarm::Polling { reason } = Alarm::set(&host.root()) else { panic!("nothing can call") };
        assert!(reason.contains("proc/pressure/memory takes no trigger"), "{reason}");
    }

    #[test]
    fn a_kernel_that_calls_is_told_when() {
        let host = Fixture::new(&[("proc/pressure/memory", "")]);
        let Alarm::Triggers(triggers) = Alarm::set(&host.root()) else { panic!("the file takes it") };
        assert_eq!(triggers.files().count(), 2);
        let written = std::fs::read_to_string(host.path("proc/pressure/memory")).unwrap();
        assert_eq!(written, "full 100000 1000000\0");
    }
}

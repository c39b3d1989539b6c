//! Memory taken by the kernel from the VM's control group (`memory.reclaim`).

use std::io;

use napa_memory::End;
use napa_sys::cgroup::{GroupFiles, GroupMemory};
use napa_units::{Bytes, Pages};

use super::Outcome;

/// What one write asks for: the kernel does not come back before it has that much or has given up.
const STEP: Bytes = Bytes::mib(16);
/// Steps in a row that take nothing before it is said that nothing goes.
const IDLE_STEPS_MAX: usize = 3;

/// What is written after the size, in the order of preference: anonymous memory alone (Linux 6.16), as far as possible
/// (Linux 6.9), whatever the kernel thinks.
const WORDS: [&str; 3] = [" swappiness=max", " swappiness=200", ""];

/// Takes memory from one group.
pub struct GroupReclaim {
    files: GroupFiles,
    /// Into [`WORDS`]: the first that this kernel may know.
    words: usize,
    /// Refaults when memory was last taken.
    refaults: u64,
}

impl GroupReclaim {
    /// For the group with these files.
    pub fn new(files: GroupFiles) -> Self {
        let refaults = files.memory().map_or(0, |memory| memory.refaults);
        Self { files, words: 0, refaults }
    }

    /// Takes memory of `size`, as long as `may_go_on` says so.
    ///
    /// # Errors
    /// The kernel refuses to reclaim.
    pub fn take(&mut self, size: Bytes, may_go_on: impl Fn() -> bool) -> io::Result<Outcome> {
        let before = self.memory()?;
        let came_back = Pages(before.refaults.saturating_sub(self.refaults)).bytes();
        let (mut taken, mut idle) = (Bytes(0), 0);
        let end = loop {
            match size.0.saturating_sub(taken.0) {
                0 => break End::Complete,
                _ if idle >= IDLE_STEPS_MAX => break End::NothingGoes,
                _ if !may_go_on() => break End::Interrupted,
                left => {
                    let gone = self.step(Bytes(left).min(STEP))?;
                    taken.0 += gone.0;
                    idle = if gone > Bytes(0) { 0 } else { idle + 1 };
                }
            }
        };
        self.refaults = self.memory()?.refaults;
        Ok(Outcome { taken, came_back, end })
    }

    /// Gives how much is gone, whatever the kernel says that it did.
    fn step(&mut self, size: Bytes) -> io::Result<Bytes> {
        let before = self.memory()?.current;
        self.write(size)?;
        Ok(Bytes(before.0.saturating_sub(self.memory()?.current.0)))
    }

    fn write(&mut self, size: Bytes) -> io::Result<()> {
        loop {
            match self.files.reclaim(size, WORDS[self.words]) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.words + 1 < WORDS.len() => {
                    self.words += 1;
                }
                // Less than was asked for; how much is counted.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                    return Ok(());
                }
                other => return other,
            }
        }
    }

    fn memory(&self) -> io::Result<GroupMemory> {
        self.files.memory().ok_or_else(|| io::Error::other("the VM's control group has gone"))
    }
}

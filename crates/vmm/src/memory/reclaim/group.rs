//! Memory taken by the kernel from the VM's control group (`memory.reclaim`).

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use napa_memory::End;
use napa_sys::cgroup::{GroupFiles, GroupMemory};
use napa_sys::{lost_memory, signal};
use napa_units::{Bytes, Pages};

use super::Outcome;

/// What one write asks for: the kernel does not come back before it has that much or has given up.
const STEP: Bytes = Bytes::mib(16);
/// Steps in a row that take nothing before it is said that nothing goes.
const IDLE_STEPS_MAX: usize = 3;

/// How often the kernel is called back once it is time: a signal that comes between two writes interrupts none.
const CALL_EVERY: Duration = Duration::from_millis(100);

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

    /// Takes memory of `size`, until the `deadline` at most: the kernel is called back from a write that takes longer.
    ///
    /// # Errors
    /// The kernel refuses to reclaim, or there is no thread to be had that would call it back.
    pub fn take(&mut self, size: Bytes, deadline: Instant) -> io::Result<Outcome> {
        call_back_at(deadline, || self.take_steps(size, || Instant::now() < deadline))?
    }

    fn take_steps(&mut self, size: Bytes, may_go_on: impl Fn() -> bool) -> io::Result<Outcome> {
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

/// Does `work`, and interrupts what it waits for in the kernel from the `deadline` on: where a swap device fails, the
/// kernel tries the same pages again for minutes.
fn call_back_at<T>(deadline: Instant, work: impl FnOnce() -> T) -> io::Result<T> {
    signal::install_kick_handler()?;
    let thread = rustix::thread::gettid();
    let (is_working, ends) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let wait = move || {
            lost_memory::protect_thread();
            let mut time = deadline.saturating_duration_since(Instant::now());
            while ends.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                signal::kick(thread);
                time = CALL_EVERY;
            }
        };
        thread::Builder::new().name("deadline".into()).spawn_scoped(scope, wait)?;
        let done = work();
        drop(is_working);
        Ok(done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_the_kernel_is_called_back() {
        let (mut reader, _writer) = io::pipe().unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        // A crate that reads again after a signal would never come back.
        let read = || rustix::io::read(&mut reader, &mut [0_u8; 1][..]);
        assert_eq!(call_back_at(deadline, read).unwrap(), Err(rustix::io::Errno::INTR));
        assert_eq!(call_back_at(Instant::now() + Duration::from_secs(3600), || 7).unwrap(), 7);
    }
}

//! `memory.low` of the groups above a VM's.
//!
//! A group is protected only as far as those above it are. So each group that napa made protects the sum of what is
//! directly below it: a VM that enters counts anew, one that leaves takes its part off. Groups that somebody else
//! made keep what they were given.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use napa_units::Bytes;

use super::mark::is_marked;

const FILE: &str = "memory.low";
/// How often the lock is tried: a tenth of what a person notices. Then the sum is changed without it, because no VM
/// may keep others from starting or ending.
const LOCK_ATTEMPTS_MAX: usize = 100;
const LOCK_STEP: Duration = Duration::from_millis(2);
/// The longest text of a number, or `max`, with its end of line.
const TEXT_BYTES_MAX: usize = 24;

/// What one VM adds to the groups above its own, until it is taken off again. All files are open.
#[derive(Debug)]
pub struct Protection {
    low: Bytes,
    own: File,
    /// The nearest first.
    parents: Vec<File>,
}

impl Protection {
    /// Protects `low` of the group in `folder`, and as much more of the groups above it that napa made.
    ///
    /// # Errors
    /// The group's own file refuses. Of those above, the first that this user may not write ends it.
    pub fn add(folder: &Path, low: Bytes) -> io::Result<Self> {
        let own = open(&folder.join(FILE))?;
        let groups: Vec<&Path> = folder.ancestors().skip(1).take_while(|parent| is_marked(parent)).collect();
        let opened = groups.iter().map_while(|parent| open(&parent.join(FILE)).ok());
        let mut protection = Self { low, own, parents: opened.collect() };
        let lock = protection.lock();
        write(&protection.own, low.0)?;
        // In whole pages.
        let low = read(&protection.own)?;
        for (parent, file) in groups.iter().zip(&protection.parents) {
            write(file, sum_below(parent))?;
        }
        drop(lock);
        protection.low = Bytes(low);
        Ok(protection)
    }

    /// Takes it off again.
    pub fn remove(&self) {
        let _lock = self.lock();
        // It is about to be removed; if it cannot be, it is empty.
        let _ = write(&self.own, 0);
        for parent in &self.parents {
            let _ = read(parent).and_then(|now| write(parent, now.saturating_sub(self.low.0)));
        }
    }

    /// Keeps other VMs from changing sums, as far as it can be had: on the highest group, which all have in common.
    fn lock(&self) -> Option<Lock<'_>> {
        let file = self.parents.last()?;
        for _ in 0..LOCK_ATTEMPTS_MAX {
            match file.try_lock() {
                Ok(()) => return Some(Lock(file)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_STEP),
                Err(TryLockError::Error(_)) => return None,
            }
        }
        None
    }
}

struct Lock<'a>(&'a File);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // Closing the file does it too.
        let _ = self.0.unlock();
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn sum_below(folder: &Path) -> u64 {
    let groups = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = groups.filter_map(|group| File::open(low_of(group.path())).ok());
    files.filter_map(|file| read(&file).ok()).fold(0, u64::saturating_add)
}

fn low_of(group: PathBuf) -> PathBuf {
    group.join(FILE)
}

/// `max` is all that there can be.
fn read(file: &File) -> io::Result<u64> {
    let mut bytes = [0; TEXT_BYTES_MAX];
    let length = file.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    Ok(text.trim_end().parse().unwrap_or(u64::MAX))
}

fn write(file: &File, low: u64) -> io::Result<()> {
    file.write_all_at(low.to_string().as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::mark::mark;
    use crate::host::root::Fixture;

    fn low(host: &Fixture, group: &str) -> u64 {
        read(&File::open(host.root().path(group).join(FILE)).unwrap()).unwrap()
    }

    /// Numbers of one length, because a plain file keeps what is behind a shorter one.
    #[test]
    fn parents_that_napa_made_protect_the_sum_of_what_is_there() {
        let host = Fixture::new(&[
            ("cg/memory.low", "10"),
            ("cg/napa/memory.low", "90"),
            ("cg/napa/deep/memory.low", "10"),
            ("cg/napa/deep/a/memory.low", "10"),
            ("cg/napa/b/memory.low", "10"),
        ]);
        let path = |group: &str| host.root().path(group);
        ["cg/napa", "cg/napa/deep"].iter().for_each(|group| mark(&path(group)));
        if !is_marked(&path("cg/napa")) {
            return println!("skipped: the file system has no extended attributes");
        }
        let lows = || ["cg/napa/deep", "cg/napa", "cg"].map(|group| low(&host, group));
        let a = Protection::add(&path("cg/napa/deep/a"), Bytes(20)).unwrap();
        assert_eq!(lows(), [20, 30, 10]);
        let b = Protection::add(&path("cg/napa/b"), Bytes(40)).unwrap();
        assert_eq!(lows(), [20, 60, 10]);
        b.remove();
        assert_eq!(lows(), [20, 20, 10]);
        let b = Protection::add(&path("cg/napa/b"), Bytes(50)).unwrap();
        assert_eq!(lows(), [20, 70, 10]);
        a.remove();
        assert_eq!(lows()[1..], [50, 10]);
        b.remove();
        assert_eq!(low(&host, "cg"), 10);
    }

    #[test]
    fn a_lock_that_somebody_keeps_does_not_keep_a_vm() {
        let host = Fixture::new(&[("cg/napa/memory.low", "00"), ("cg/napa/a/memory.low", "00")]);
        mark(&host.root().path("cg/napa"));
        let kept = open(&host.root().path("cg/napa").join(FILE)).unwrap();
        kept.lock().unwrap();
        Protection::add(&host.root().path("cg/napa/a"), Bytes(70)).unwrap().remove();
    }

    #[test]
    fn groups_of_somebody_else_keep_what_they_were_given() {
        let host = Fixture::new(&[("cg/vms/memory.low", "50"), ("cg/vms/a/memory.low", "00")]);
        let added = Protection::add(&host.root().path("cg/vms/a"), Bytes(70)).unwrap();
        assert_eq!((low(&host, "cg/vms/a"), low(&host, "cg/vms")), (70, 50));
        added.remove();
        assert_eq!(low(&host, "cg/vms"), 50);
    }
}

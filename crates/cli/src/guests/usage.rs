//! What a guest's process takes of the host's memory, as the kernel counts it.

use std::fs;
use std::io;
use std::ops::Range;
use std::time::Duration;

use napa_units::Bytes;

/// Memory of a process that holds a guest, guest RAM apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Resident pages of guest RAM.
    pub guest: Bytes,
    /// Private anonymous pages of everything else: what nobody but this process can make use of.
    pub private_anonymous: Bytes,
    /// Proportional set size of everything else: shared pages count for a part.
    pub proportional: Bytes,
}

/// CPU time that a process has used so far, guest code included. Known to a hundredth of a second, and to less where
/// the kernel counts the time of its threads that are there still in nanoseconds.
///
/// # Errors
/// The process is gone.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let coarse = parse_stat(&text).ok_or_else(|| io::Error::other("/proc/PID/stat is not as expected"))?;
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    let fine = tasks.filter_map(|task| {
        // A thread may end meanwhile.
        parse_schedstat(&fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?)
    });
    Ok(coarse.max(fine.sum()))
}

/// The first field is time on a CPU, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Fields 14 and 15, user and system time in clock ticks, counted from behind the name, which may hold anything
/// (proc_pid_stat(5)).
fn parse_stat(text: &str) -> Option<Duration> {
    let (_, fields) = text.rsplit_once(')')?;
    let ticks = |index: usize| fields.split_whitespace().nth(index - 3)?.parse::<u64>().ok();
    let ticks = ticks(14)?.checked_add(ticks(15)?)?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

impl Footprint {
    /// Measures the process `pid`, whose guest has `memory`.
    ///
    /// # Errors
    /// The process is gone, or belongs to somebody else.
    pub fn measure(pid: u32, memory: Bytes) -> io::Result<Self> {
        Ok(Self::of(&fs::read_to_string(format!("/proc/{pid}/smaps"))?, memory))
    }

    /// Sums a text of `/proc/PID/smaps` up. Guest RAM is recognised by its size: the largest mappings of
    /// writable, nameless memory that `memory` is made of.
    pub fn of(smaps: &str, memory: Bytes) -> Self {
        let (ram, rest) = split(smaps, memory);
        let mut sum =
            Self { guest: Bytes(ram.iter().map(|mapping| mapping.resident.0).sum()), ..Self::default() };
        for mapping in &rest {
            sum.private_anonymous.0 += mapping.private.0.min(mapping.anonymous.0);
            sum.proportional.0 += mapping.proportional.0;
        }
        sum
    }
}

/// The addresses at which a process has its guest's RAM, from a text of `/proc/PID/smaps`.
pub fn guest_ram(smaps: &str, memory: Bytes) -> Vec<Range<u64>> {
    split(smaps, memory).0.into_iter().map(|mapping| mapping.start..mapping.start + mapping.size.0).collect()
}

/// The mappings of guest RAM, and all others.
fn split(smaps: &str, memory: Bytes) -> (Vec<Mapping>, Vec<Mapping>) {
    let mut mappings = mappings(smaps);
    mappings.sort_by_key(|mapping| std::cmp::Reverse(mapping.size));
    let mut missing = memory.0;
    mappings.into_iter().partition(|mapping| {
        let is_ram = mapping.could_be_ram && mapping.size.0 <= missing;
        missing -= if is_ram { mapping.size.0 } else { 0 };
        is_ram
    })
}

#[derive(Clone, Copy, Debug, Default)]
struct Mapping {
    start: u64,
    could_be_ram: bool,
    size: Bytes,
    resident: Bytes,
    private: Bytes,
    anonymous: Bytes,
    proportional: Bytes,
}

/// A mapping starts with a line of addresses, and lines `Name:  number kB` follow (proc_pid_smaps(5)).
fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let Some(name) = name.strip_suffix(':') else {
            let start = line.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok());
            let could_be_ram = start.is_some() && could_be_ram(line);
            mappings.push(Mapping { start: start.unwrap_or(0), could_be_ram, ..Mapping::default() });
            continue;
        };
        let kib = rest.trim().strip_suffix("kB").and_then(|number| number.trim().parse().ok());
        let (Some(mapping), Some(kib)) = (mappings.last_mut(), kib) else { continue };
        let place = match name {
            "Size" => &mut mapping.size,
            "Rss" => &mut mapping.resident,
            "Pss" => &mut mapping.proportional,
            "Private_Clean" | "Private_Dirty" => &mut mapping.private,
            "Anonymous" => &mut mapping.anonymous,
            _ => continue,
        };
        place.0 += Bytes::kib(kib).0;
    }
    mappings
}

/// Addresses, permissions, offset, device, inode, and no name.
fn could_be_ram(first_line: &str) -> bool {
    let mut words = first_line.split_whitespace();
    words.nth(1).is_some_and(|permissions| permissions.starts_with("rw")) && words.count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00001000 08:01 42                                 /usr/bin/napa: odd
Size:               1024 kB
Rss:                 600 kB
Pss:                 300 kB
Pss_Dirty:             0 kB
Private_Clean:         8 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Size:             131072 kB
Rss:                 512 kB
Pss:                 512 kB
Private_Clean:         0 kB
Private_Dirty:       512 kB
Anonymous:           512 kB
7f0008000000-7f0008021000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
Rss:                  40 kB
Pss:                  40 kB
Private_Clean:         0 kB
Private_Dirty:        40 kB
Anonymous:            40 kB
";

    #[test]
    fn what_is_not_guest_ram_is_summed_up() {
        let expected = Footprint {
            guest: Bytes::kib(512),
            private_anonymous: Bytes::kib(44),
            proportional: Bytes::kib(340),
        };
        assert_eq!(Footprint::of(SMAPS, Bytes::mib(128)), expected);
        assert_eq!(guest_ram(SMAPS, Bytes::mib(128)).first(), Some(&(0x7f00_0000_0000..0x7f00_0800_0000)));
    }

    #[test]
    fn a_larger_reservation_is_not_guest_ram() {
        let reserved = "7f1000000000-7f1010000000 ---p 00000000 00:00 0\nSize: 262144 kB\n";
        let smaps = format!("{SMAPS}{reserved}{}", reserved.replace("---p", "rw-p"));
        assert_eq!(Footprint::of(&smaps, Bytes::mib(128)), Footprint::of(SMAPS, Bytes::mib(128)));
    }

    #[test]
    fn guest_ram_may_be_in_two_pieces() {
        let smaps = SMAPS
            .replace("00000000 00:00 0                          [heap]", "00000000 00:00 0")
            .replace("Size:                132 kB", "Size:             262144 kB");
        let footprint = Footprint::of(&smaps, Bytes::mib(384));
        assert_eq!((footprint.guest, footprint.private_anonymous), (Bytes::kib(552), Bytes::kib(4)));
    }

    #[test]
    fn a_file_that_is_odd_or_empty_sums_up_to_what_can_be_read() {
        for text in ["", "Size: 4 kB\n", "0-1 rw-p\nSize: x kB\nRss:\n"] {
            assert_eq!(Footprint::of(text, Bytes::mib(1)), Footprint::default(), "{text:?}");
        }
    }

    #[test]
    fn cpu_time_is_user_and_system_time() {
        let ticks = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (a) b) S 1 1 1 0 -1 4194304 9 0 0 0 {ticks} {ticks} 5 5 20 0 1 0 100 0 0");
        assert_eq!(parse_stat(&stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat("7 (napa) S 1"), None);
        assert_eq!(parse_schedstat("1500 20 3\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        let footprint = Footprint::measure(std::process::id(), Bytes(1 << 50)).unwrap();
        assert!(footprint.guest.0 + footprint.private_anonymous.0 > 0, "{footprint:?}");
    }
}

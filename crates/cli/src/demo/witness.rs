//! An independent witness: what the guests hold in RAM by the kernel's own word, read by a thread that knows nothing of
//! what is decided.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use napa_units::Bytes;

/// Between two looks: short against the time in which anything is put right.
const PERIOD: Duration = Duration::from_millis(250);
/// How long more than the budget may be held before that counts: guests take memory faster than any disk takes it.
pub const REACTION: Duration = Duration::from_secs(10);

/// What it has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Testimony {
    /// The most that was held at one time.
    pub held_max: Bytes,
    /// How much of that was more than the budget.
    pub excess_max: Bytes,
    /// The most above the budget that was still held when [`REACTION`] was over.
    pub excess_lasting: Bytes,
    /// How long more than the budget was held, all in all.
    pub over: Duration,
    /// Since when the budget has been exceeded without a break.
    since: Option<Duration>,
    /// When it looked last.
    last: Duration,
}

impl Testimony {
    /// It saw so much, so long after the start.
    pub fn see(&mut self, held: Bytes, budget: Bytes, now: Duration) {
        let excess = Bytes(held.0.saturating_sub(budget.0));
        self.held_max = self.held_max.max(held);
        self.excess_max = self.excess_max.max(excess);
        if excess.0 == 0 {
            self.since = None;
        } else {
            let since = *self.since.get_or_insert(now);
            self.over += now.saturating_sub(self.last.max(since));
            if now.saturating_sub(since) >= REACTION {
                self.excess_lasting = self.excess_lasting.max(excess);
            }
        }
        self.last = now;
    }
}

/// The thread. It ends when this is dropped.
pub struct Witness {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    pids: Mutex<Vec<u32>>,
    testimony: Mutex<Testimony>,
    is_over: AtomicBool,
}

impl Witness {
    /// Begins to look.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn start(budget: Bytes) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            pids: Mutex::default(),
            testimony: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("witness".into()).spawn(move || watched.watch(budget))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Which processes it looks at from now on.
    pub fn watch(&self, pids: Vec<u32>) {
        *self.shared.pids.lock().unwrap_or_else(PoisonError::into_inner) = pids;
    }

    /// What it has seen so far.
    pub fn testimony(&self) -> Testimony {
        *self.shared.testimony.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic has said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn watch(&self, budget: Bytes) {
        let start = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let held = Bytes(pids.iter().filter_map(|&pid| proportional(pid)).map(|held| held.0).sum());
            self.testimony.lock().unwrap_or_else(PoisonError::into_inner).see(held, budget, start.elapsed());
            std::thread::park_timeout(PERIOD.saturating_sub(began.elapsed()));
        }
    }
}

/// The proportional set size of a process; `None`: it is gone.
fn proportional(pid: u32) -> Option<Bytes> {
    parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

/// proc_pid_smaps(5).
fn parse(rollup: &str) -> Option<Bytes> {
    let value = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    value.trim().strip_suffix(" kB")?.trim().parse().ok().map(Bytes::kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excess_counts_as_lasting_when_there_was_time_to_react() {
        let mut testimony = Testimony::default();
        for (second, held) in
            [(0, 90), (1, 130), (5, 120), (10, 110), (11, 105), (12, 99), (13, 140), (14, 100)]
        {
            testimony.see(Bytes::mib(held), Bytes::mib(100), Duration::from_secs(second));
        }
        assert_eq!((testimony.held_max, testimony.excess_max), (Bytes::mib(140), Bytes::mib(40)));
        assert_eq!(testimony.excess_lasting, Bytes::mib(5));
        assert_eq!(testimony.over, Duration::from_secs(10));
    }

    #[test]
    fn the_proportional_size_is_found_among_others() {
        let text = "00400000-7fff [rollup]\nRss:    900 kB\nPss:                 300 kB\nPss_Dirty:   7 kB\n";
        assert_eq!(parse(text), Some(Bytes::kib(300)));
        for wrong in ["", "Pss: kB\n", "Pss: -3 kB\n", "Rss: 3 kB\n"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}

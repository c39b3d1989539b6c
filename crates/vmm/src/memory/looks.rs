//! When a VM looks for pages of zeros by itself.
//!
//! Nothing that a guest does says that pages have become zeros, but pages of zeros come with memory that it begins to
//! use. So the VM looks again after it has grown, and at nothing while it has not. To see that it has grown costs one
//! reading of a file, at times that double while nothing comes of it: an idle VM wakes up 24 times a day.

use std::sync::Weak;
use std::thread;
use std::time::{Duration, Instant};

use napa_sys::lost_memory;
use napa_units::{Bytes, Pages};

use super::Subject;
use crate::events::{Event, Events};

/// The time from the start, or from a look that was worth it, to the next reading.
const WAIT_MIN: Duration = Duration::from_secs(30);
/// The longest time between two readings.
pub const LOOK_WAIT_MAX: Duration = Duration::from_secs(3600);
/// Growth below this is not worth a look.
const GROWN: Pages = Pages::covering(Bytes::mib(16));
/// A look is worth it if it gives back one in so many pages.
const WORTH: u64 = 64;
/// The time between two looks is at least so many times that of a look: half a percent of one processor.
const REST: u32 = 200;
/// How long other requests about the VM's memory wait for a look.
const STEP: Duration = Duration::from_millis(20);

/// What is remembered from one look to the next.
#[derive(Clone, Copy, Debug)]
pub struct Looks {
    wait: Duration,
    /// The least that the VM had in memory since the last look.
    least: Pages,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// What the VM has in memory after it.
    pub resident: Pages,
    /// What was given back.
    pub given_back: Pages,
    /// How long it took.
    pub time: Duration,
}

impl Default for Looks {
    fn default() -> Self {
        Self { wait: WAIT_MIN, least: Pages(0) }
    }
}

impl Looks {
    /// How long to wait for the next reading.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether a VM that has this much in memory should look. If not, it waits longer the next time.
    pub fn should_look(&mut self, resident: Pages) -> bool {
        self.least = self.least.min(resident);
        let has_grown = resident.0 >= self.least.0 + GROWN.0;
        if !has_grown {
            self.wait = (self.wait * 2).min(LOOK_WAIT_MAX);
        }
        has_grown
    }

    /// Takes in what came of a look.
    pub fn on_looked(&mut self, looked: Looked) {
        self.least = looked.resident;
        let all = looked.resident.0 + looked.given_back.0;
        let was_worth_it = looked.given_back.0 * WORTH >= all && looked.given_back > Pages(0);
        let wait = if was_worth_it { WAIT_MIN } else { self.wait * 2 };
        self.wait = wait.max(looked.time * REST).min(LOOK_WAIT_MAX);
    }
}

/// What the machine's process has in memory. `None`: nothing can be looked for, or the kernel does not say.
pub fn resident(subject: &Weak<Subject>) -> Option<Pages> {
    let subject = subject.upgrade()?;
    if subject.sharing.can_look() { subject.sensors.resident() } else { None }
}

/// Looks at all pages on a thread of its own, which ends with it, and posts [`Event::Looked`].
pub fn look(subject: Weak<Subject>, events: Events) -> std::io::Result<()> {
    let look = move || {
        lost_memory::protect_thread();
        let looked = look_at_all(&subject);
        events.post(Event::Looked(looked));
    };
    thread::Builder::new().name("zeros".into()).spawn(look).map(drop)
}

/// `None`: the machine has ended.
fn look_at_all(subject: &Weak<Subject>) -> Option<Looked> {
    let (mut at, mut given_back) = (Pages(0), Pages(0));
    let mut time = Duration::ZERO;
    loop {
        // Let go after each step, so that a machine that ends is not kept.
        let subject = subject.upgrade()?;
        let start = Instant::now();
        let progress = subject.sharing.look_by_itself(&subject.pages, at, start + STEP)?;
        time += start.elapsed();
        (at, given_back) = (progress.at, Pages(given_back.0 + progress.given_back.0));
        if at.0 >= subject.pages.end() {
            return Some(Looked { resident: subject.sensors.resident()?, given_back, time });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(mib: u64) -> Pages {
        Pages::covering(Bytes::mib(mib))
    }

    fn looked(resident: u64, given_back: u64, time_ms: u64) -> Looked {
        Looked {
            resident: pages(resident),
            given_back: pages(given_back),
            time: Duration::from_millis(time_ms),
        }
    }

    #[test]
    fn a_vm_that_does_not_grow_is_left_alone_for_longer_and_longer() {
        let mut looks = Looks::default();
        let waits: Vec<u64> = (0..9)
            .map(|_| {
                assert!(!looks.should_look(pages(15)));
                looks.wait().as_secs()
            })
            .collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert!(looks.should_look(pages(16)));
    }

    #[test]
    fn growth_counts_from_the_last_look_or_from_what_the_vm_shrank_to() {
        let mut looks = Looks::default();
        assert!(looks.should_look(pages(100)));
        looks.on_looked(looked(60, 40, 1));
        assert_eq!(looks.wait(), WAIT_MIN);
        for (resident, expected) in [(75, false), (76, true), (20, false), (35, false), (36, true)] {
            assert_eq!(looks.should_look(pages(resident)), expected, "{resident} MiB");
        }
    }

    #[test]
    fn looks_that_find_nothing_or_take_long_become_rare() {
        let mut looks = Looks::default();
        for expected in [60, 120, 240] {
            looks.on_looked(looked(1000, 1, 1));
            assert_eq!(looks.wait().as_secs(), expected);
        }
        looks.on_looked(looked(1000, 100, 500));
        assert_eq!(looks.wait().as_secs(), 100);
        looks.on_looked(looked(0, 0, 60_000));
        assert_eq!(looks.wait(), LOOK_WAIT_MAX);
    }
}

//! The host's side of the balloon: what is asked of the guest, and what came of it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use napa_api::control::{BalloonReport, BalloonStatistics, DeviceState};
use napa_memory::GuestRam;
use napa_units::{Bytes, PAGE_SIZE, Pages};
use napa_virtio::{Health, Interrupt};
use vmm_sys_util::eventfd::EventFd;

use super::config::{Feature, Registers};
use super::hinting::{DONE, Hinting, STOP};
use super::page_set::{PageSet, Run};

/// The balloon of one VM, over all its drivers and reboots. Any thread may use it.
pub struct Balloon {
    /// The memory that the guest starts with.
    size: Bytes,
    registers: Registers,
    counters: Counters,
    shared: Mutex<Shared>,
    /// Something in `shared` that somebody may wait for has changed.
    changed: Condvar,
    /// Tells the worker that statistics are wanted.
    bell: EventFd,
}

/// What was done, for all to see.
#[derive(Default)]
struct Counters {
    /// Pages in the balloon now.
    held: AtomicU64,
    /// Pages reported and discarded, since the start.
    reported: AtomicU64,
    /// Pages discarded, since the start.
    discarded: AtomicU64,
    /// Calls that this took.
    discards: AtomicU64,
    /// Pages named that the guest does not have.
    foreign: AtomicU64,
}

#[derive(Default)]
struct Shared {
    driver: Option<Driver>,
    statistics: Option<(Instant, BalloonStatistics)>,
    /// The driver owes statistics.
    wants_statistics: bool,
    hinting: Hinting,
}

/// The driver that has taken the device.
pub(super) struct Driver {
    pub features: u64,
    pub config_interrupt: Interrupt,
    pub health: Health,
    pub memory: Arc<GuestRam>,
}

/// What a guest called free.
#[derive(Debug)]
pub struct Hints {
    /// The pages. The guest may have begun to use some of them since.
    pub pages: PageSet,
    /// Whether the guest came to an end with it.
    pub is_complete: bool,
}

/// Why the balloon cannot do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BalloonError {
    /// The guest would have to give up more than it has.
    #[error("balloon beyond the guest's size: {target} of {size}; ask for less")]
    TooLarge {
        /// What was asked for.
        target: Bytes,
        /// What the guest has.
        size: Bytes,
    },
    /// Not a whole number of pages.
    #[error("a balloon of {0} bytes is no whole number of pages of {PAGE_SIZE} bytes")]
    Unaligned(u64),
    /// Nobody in the guest drives the balloon.
    #[error("no driver in the guest has taken the balloon")]
    NoDriver,
    /// The driver has broken the rules.
    #[error("the guest's balloon driver has broken the rules and not reset the device since")]
    NeedsReset,
    /// The driver does not know hints.
    #[error("the guest's balloon driver gives no hints of free pages")]
    NoHints,
    /// The guest expects its free pages to keep a value that is not zero.
    #[error(
        "the guest fills its free pages with a pattern (page poisoning): none of them can be done without"
    )]
    Poisoned,
    /// The driver went away meanwhile.
    #[error("the guest's balloon driver has gone away meanwhile")]
    Gone,
}

impl Balloon {
    /// A balloon for a guest with `size` of memory, asked for nothing.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new(size: Bytes) -> io::Result<Self> {
        Ok(Self {
            size,
            registers: Registers::default(),
            counters: Counters::default(),
            shared: Mutex::default(),
            changed: Condvar::new(),
            bell: EventFd::new(0)?,
        })
    }

    /// Asks the guest, which has `size` of memory now, to give up `target`, or as much as it can. A guest without a
    /// driver is asked when it has one.
    ///
    /// # Errors
    /// It is more than the guest has, or no whole number of pages.
    pub fn set_target(&self, target: Bytes, size: Bytes) -> Result<(), BalloonError> {
        let too_large = BalloonError::TooLarge { target, size };
        if target > size {
            return Err(too_large);
        }
        if !target.0.is_multiple_of(PAGE_SIZE) {
            return Err(BalloonError::Unaligned(target.0));
        }
        // The register has 32 bits: 16 TiB.
        let pages = u32::try_from(target.0 / PAGE_SIZE).map_err(|_| too_large)?;
        if self.registers.target.swap(pages, Ordering::Release) != pages {
            self.lock().tell_driver();
        }
        Ok(())
    }

    /// The balloon as it is now.
    pub fn report(&self) -> BalloonReport {
        let counters = &self.counters;
        let bytes = |pages: u64| Pages(pages).bytes();
        let shared = self.lock();
        let features = shared.driver.as_ref().map_or(0, |driver| driver.features);
        BalloonReport {
            size: self.size,
            target: bytes(self.registers.target.load(Ordering::Relaxed).into()),
            actual: bytes(self.registers.actual.load(Ordering::Relaxed).into()),
            held: bytes(counters.held.load(Ordering::Relaxed)),
            driver: shared.driver_state(),
            reporting: features & Feature::REPORTING != 0 && self.may_lose_free_pages(features),
            reported: bytes(counters.reported.load(Ordering::Relaxed)),
            discarded: bytes(counters.discarded.load(Ordering::Relaxed)),
            discards: counters.discards.load(Ordering::Relaxed),
            foreign_pages: counters.foreign.load(Ordering::Relaxed),
            statistics: shared.statistics.as_ref().map(|(when, statistics)| BalloonStatistics {
                age_ms: when.elapsed().as_millis() as u64,
                ..statistics.clone()
            }),
        }
    }

    /// The part of the balloon that the guest counts as memory that it has and uses. A driver that may take pages back
    /// when memory is short (`VIRTIO_BALLOON_F_DEFLATE_ON_OOM`) leaves them in the guest's total.
    pub fn counted_as_used(&self) -> Bytes {
        let shared = self.lock();
        match &shared.driver {
            Some(driver) if driver.features & Feature::DEFLATE_ON_OOM != 0 => {
                Pages(self.counters.held.load(Ordering::Relaxed)).bytes()
            }
            _ => Bytes(0),
        }
    }

    /// Asks the guest for statistics and waits for them at most `bound`. A guest that has left the last question
    /// unanswered is not waited for again.
    pub fn refresh_statistics(&self, bound: Duration) {
        let mut shared = self.lock();
        let answers = shared
            .driver
            .as_ref()
            .is_some_and(|driver| driver.features & Feature::STATISTICS != 0 && !driver.health.has_failed());
        if !answers || std::mem::replace(&mut shared.wants_statistics, true) {
            return;
        }
        // The counter of an eventfd overflows after 2^64 calls.
        let _ = self.bell.write(1);
        let waited = self.changed.wait_timeout_while(shared, bound, |shared| shared.wants_statistics);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks the guest which of its pages are free and waits for its end at most `bound`. Nothing is discarded.
    ///
    /// # Errors
    /// The guest's driver cannot say, or goes away meanwhile.
    pub fn hint(&self, bound: Duration) -> Result<Hints, BalloonError> {
        let mut shared = self.lock();
        let driver = shared.driver.as_ref().ok_or(BalloonError::NoDriver)?;
        match driver.features {
            _ if driver.health.has_failed() => return Err(BalloonError::NeedsReset),
            features if features & Feature::HINTS == 0 => return Err(BalloonError::NoHints),
            features if !self.may_lose_free_pages(features) => return Err(BalloonError::Poisoned),
            _ => {}
        }
        let memory = Arc::clone(&driver.memory);
        let command = shared.hinting.begin(&memory);
        // A machine that ends meanwhile takes its memory along.
        drop(memory);
        self.registers.hint_command.store(command, Ordering::Release);
        shared.tell_driver();
        let waited = self.changed.wait_timeout_while(shared, bound, |shared| shared.hinting.is_under_way());
        let (mut shared, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (pages, is_complete) = shared.hinting.end().ok_or(BalloonError::Gone)?;
        self.registers.hint_command.store(DONE, Ordering::Release);
        shared.tell_driver();
        Ok(Hints { pages, is_complete })
    }

    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.registers.read(offset, data);
    }

    pub(super) fn write_config(&self, offset: u64, data: &[u8]) {
        self.registers.write(offset, data);
    }

    /// A driver has taken the device.
    pub(super) fn bind(&self, driver: Driver) {
        self.lock().driver = Some(driver);
    }

    /// The driver has gone: all pages are the guest's again. The target stands.
    pub(super) fn unbind(&self) {
        let mut shared = self.lock();
        let statistics = shared.statistics.take();
        *shared = Shared { statistics, ..Shared::default() };
        self.registers.actual.store(0, Ordering::Relaxed);
        self.registers.poison.store(0, Ordering::Relaxed);
        self.registers.hint_command.store(STOP, Ordering::Relaxed);
        self.counters.held.store(0, Ordering::Relaxed);
        self.changed.notify_all();
    }

    pub(super) fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Whether a driver with these features takes zeros in place of what its free pages hold.
    pub(super) fn may_lose_free_pages(&self, features: u64) -> bool {
        features & Feature::POISON == 0 || self.registers.poison.load(Ordering::Relaxed) == 0
    }

    pub(super) fn wants_statistics(&self) -> bool {
        self.lock().wants_statistics
    }

    pub(super) fn on_statistics(&self, statistics: BalloonStatistics) {
        let mut shared = self.lock();
        shared.statistics = Some((Instant::now(), statistics));
        shared.wants_statistics = false;
        self.changed.notify_all();
    }

    pub(super) fn on_hint_command(&self, command: u32) {
        if self.lock().hinting.on_command(command) {
            self.changed.notify_all();
        }
    }

    pub(super) fn on_hints(&self, runs: impl Iterator<Item = Run>) {
        let mut shared = self.lock();
        runs.for_each(|run| shared.hinting.on_pages(run));
    }

    pub(super) fn set_held(&self, pages: u64) {
        self.counters.held.store(pages, Ordering::Relaxed);
    }

    pub(super) fn on_reported(&self, pages: u64) {
        self.counters.reported.fetch_add(pages, Ordering::Relaxed);
    }

    pub(super) fn on_discarded(&self, pages: u64) {
        self.counters.discarded.fetch_add(pages, Ordering::Relaxed);
        self.counters.discards.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts pages that the guest does not have. Returns whether they are the first.
    pub(super) fn on_foreign(&self, pages: u64) -> bool {
        self.counters.foreign.fetch_add(pages, Ordering::Relaxed) == 0 && pages > 0
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn driver_state(&self) -> DeviceState {
        match &self.driver {
            None => DeviceState::Idle,
            Some(driver) if driver.health.has_failed() => DeviceState::NeedsReset,
            Some(_) => DeviceState::Active,
        }
    }

    /// Tells the driver, if there is one, to look at the registers.
    fn tell_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.config_interrupt.signal();
        }
    }
}

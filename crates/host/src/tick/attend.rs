//! What happens between two ticks.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use napa_units::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Tick, pace};
use crate::guests::Moment;
use crate::sensors::{Alarm, Stalls};

/// Pressure that wakes where the kernel does not call: some task waited for 5 % of the time since the last glance.
const STALL_SHARE: f64 = 0.05;

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time has come.
    Time,
    /// Whoever runs the tick has called.
    Called,
    /// Tasks wait for memory.
    Pressure,
    /// VMs hold more than they may, or soon will.
    Budget,
}

impl Tick {
    /// Goes on with calls to VMs and watches their memory until it is time for the next tick: at `until`, or before if
    /// something does not bear waiting. `bell` ends the wait when it can be read.
    pub fn attend(&mut self, until: Instant, bell: BorrowedFd<'_>) -> Woken {
        let began = Instant::now();
        // However bad things are, most of the time is left to the VMs.
        let earliest = began + pace::GLANCE_MIN.max(self.took * 4);
        let growth = self.growth.p99();
        let mut glance = pace::glance(self.free, growth).map(|pause| began + pause);
        let mut stalls = self.stalls();
        loop {
            let now = Instant::now();
            if now >= until {
                return Woken::Time;
            }
            if glance.is_some_and(|glance| now >= glance) {
                let free = self.free_at_a_glance();
                if now >= earliest && pace::is_urgent(self.free, free, growth) {
                    return Woken::Budget;
                }
                if now >= earliest && self.has_stalled(&mut stalls, now) {
                    return Woken::Pressure;
                }
                glance = pace::glance(free, growth).map(|pause| now + pause);
            }
            let deadline = [Some(until), glance, self.calls.deadline()].into_iter().flatten().min();
            let wait = deadline.unwrap_or(until).saturating_duration_since(now);
            // A trigger that has called stays readable for a while: it is not waited for before the earliest time.
            if let Some(woken) = self.wait(wait, bell, now >= earliest) {
                return woken;
            }
            let moment = self.moment(self.clock.elapsed());
            if self.hear(moment) {
                self.ask(moment);
            }
        }
    }

    /// Waits for whatever comes first. `None`: a call goes on, or the time is over.
    fn wait(&self, time: Duration, bell: BorrowedFd<'_>, watches_pressure: bool) -> Option<Woken> {
        let mut files = vec![PollFd::from_borrowed_fd(bell, PollFlags::IN)];
        if let (Alarm::Triggers(triggers), true) = (&self.alarm, watches_pressure) {
            files.extend(triggers.files().map(|file| PollFd::from_borrowed_fd(file, PollFlags::PRI)));
        }
        let alarms = files.len();
        files.extend(self.calls.streams().map(|(file, flags)| PollFd::from_borrowed_fd(file, flags)));
        // A whole millisecond at least: poll rounds down, and would spin.
        let time = time.max(Duration::from_millis(1));
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        // An interruption is a short wait.
        let _ = poll(&mut files, Some(&timeout));
        if !files[0].revents().is_empty() {
            return Some(Woken::Called);
        }
        let called = files[1..alarms].iter().any(|file| file.revents().contains(PollFlags::PRI));
        called.then_some(Woken::Pressure)
    }

    /// Takes in the answers that have come. Whether there were any.
    fn hear(&mut self, moment: Moment) -> bool {
        let ended = self.calls.advance();
        for ended in &ended {
            if let Some(guest) = self.guests.get_mut(&ended.vm) {
                guest.answered(ended, moment.haste, moment.now);
            }
        }
        !ended.is_empty()
    }

    /// Asks every VM that has a wish and is not being asked, the most urgent first, as many as may be at once.
    pub(super) fn ask(&mut self, moment: Moment) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut wishes: Vec<_> = self
            .guests
            .iter()
            .filter(|(id, _)| !self.calls.is_asking(**id))
            .filter_map(|(id, guest)| Some((guest.wish(moment)?, *id)))
            .collect();
        wishes.sort_by_key(|(wish, _)| std::cmp::Reverse(wish.urgency));
        for (wish, id) in wishes {
            let Some(guest) = self.guests.get_mut(&id) else { continue };
            let alike = self.calls.under_way().filter(|urgency| *urgency == wish.urgency).count();
            if alike >= pace::calls_max(wish.urgency, processors) {
                continue;
            }
            if let Some(ended) = self.calls.start(id, &guest.subject.socket, wish) {
                guest.answered(&ended, moment.haste, moment.now);
            }
        }
    }

    /// RAM that VMs could still take, by the sizes that are cheap to read.
    fn free_at_a_glance(&mut self) -> Bytes {
        let now = self.clock.elapsed();
        let mut held = 0_u64;
        for guest in self.guests.values_mut() {
            guest.readings.glance(now);
            held = held.saturating_add(guest.readings.held().0);
        }
        let capacity = self.state.map_or(u64::MAX, |state| self.settings.capacity(state.memory.total).0);
        Bytes(capacity.saturating_sub(held))
    }

    /// The host's sums, where the kernel does not call.
    fn stalls(&self) -> Option<(Stalls, Instant)> {
        match self.alarm {
            Alarm::Triggers(_) => None,
            Alarm::Polling { .. } => {
                let file = self.root.as_ref().join("proc/pressure/memory");
                Stalls::read(&file).ok().map(|stalls| (stalls, Instant::now()))
            }
        }
    }

    /// Whether tasks have waited since `before`, where the kernel does not call.
    fn has_stalled(&self, before: &mut Option<(Stalls, Instant)>, now: Instant) -> bool {
        let Some((then, since)) = *before else { return false };
        let elapsed = now.saturating_duration_since(since);
        if elapsed < pace::GLANCE_MIN {
            return false;
        }
        *before = self.stalls();
        let waited = before.map_or(Duration::ZERO, |(stalls, _)| stalls.some.saturating_sub(then.some));
        waited.as_secs_f64() >= STALL_SHARE * elapsed.as_secs_f64()
    }
}

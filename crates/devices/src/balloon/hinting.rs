//! Asking a guest which of its pages are free (VIRTIO 1.3 §5.5.6.5).
//!
//! ```text
//!  idle --begin--> asked --the driver names the command--> running --the driver stops--> complete
//!    ^                                                                                      |
//!    +--------------------------------------- end ------------------------------------------+
//! ```

use napa_memory::GuestRam;

use super::page_set::{PageSet, Run};

/// Value of the command register, and of a message of the driver: nothing is wanted, nothing more comes.
pub(super) const STOP: u32 = 0;
/// Value of the command register: the device has what it wants, the pages are the driver's again.
pub(super) const DONE: u32 = 1;
/// The first value that names a request.
const FIRST: u32 = DONE + 1;

/// A request for hints, as far as it has got.
#[derive(Default)]
pub(super) struct Hinting {
    /// The command that names the last request.
    command: u32,
    phase: Phase,
    pages: Option<PageSet>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Asked,
    Running,
    Complete,
}

impl Hinting {
    /// Begins; gives the command for the driver.
    pub fn begin(&mut self, ram: &GuestRam) -> u32 {
        self.command = self.command.checked_add(1).unwrap_or(FIRST).max(FIRST);
        self.phase = Phase::Asked;
        self.pages = Some(PageSet::new(ram));
        self.command
    }

    /// The driver has named a command. Returns whether that was the end.
    pub fn on_command(&mut self, command: u32) -> bool {
        self.phase = match self.phase {
            Phase::Asked if command == self.command => Phase::Running,
            Phase::Running if command == STOP => Phase::Complete,
            phase => return phase == Phase::Complete,
        };
        self.phase == Phase::Complete
    }

    /// The driver has named free pages. They count only for the present request.
    pub fn on_pages(&mut self, run: Run) {
        if let (Phase::Running, Some(pages)) = (self.phase, &mut self.pages) {
            pages.insert(run);
        }
    }

    /// Whether the driver may still name pages.
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Asked | Phase::Running)
    }

    /// Ends: what was named, and whether the driver had come to its end. `None`: the driver is gone.
    pub fn end(&mut self) -> Option<(PageSet, bool)> {
        let is_complete = self.phase == Phase::Complete;
        self.phase = Phase::Idle;
        Some((self.pages.take()?, is_complete))
    }
}

#[cfg(test)]
mod tests {
    use napa_memory::{RamRegion, allocate};
    use napa_units::{Bytes, GuestAddress};

    use super::*;

    #[test]
    fn only_pages_of_the_present_request_count() {
        let ram = allocate(&[RamRegion { start: GuestAddress(0), size: Bytes::mib(1) }]).unwrap();
        let mut hinting = Hinting::default();
        let run = |first| Run { first, count: 2 };
        let first = hinting.begin(&ram);
        assert_eq!(first, FIRST);
        hinting.on_pages(run(0));
        assert!(!hinting.on_command(first));
        hinting.on_pages(run(2));
        let (pages, is_complete) = hinting.end().unwrap();
        assert!(pages.count() == 2 && !is_complete);

        let second = hinting.begin(&ram);
        assert!(!hinting.on_command(first) && !hinting.on_command(STOP) && !hinting.on_command(second));
        hinting.on_pages(run(4));
        hinting.on_pages(run(1000));
        assert!(hinting.is_under_way() && hinting.on_command(STOP) && !hinting.is_under_way());
        hinting.on_pages(run(6));
        let (pages, is_complete) = hinting.end().unwrap();
        assert!(pages.count() == 2 && pages.contains(4) && is_complete);
        assert!(hinting.end().is_none());
    }

    #[test]
    fn commands_never_mean_stop_or_done() {
        let ram = allocate(&[RamRegion { start: GuestAddress(0), size: Bytes::mib(1) }]).unwrap();
        let mut hinting = Hinting { command: u32::MAX - 1, ..Hinting::default() };
        assert_eq!([hinting.begin(&ram), hinting.begin(&ram)], [u32::MAX, FIRST]);
    }
}

//! Which queue is which (VIRTIO 1.3 §5.5.2).

use napa_virtio::Queue;

use super::config::Feature;

/// Entries of the queues for pages given up and taken back: a driver has one request under way, or a few.
const PAGES_ENTRIES: u16 = 128;
/// Entries of the queue for statistics: there is one buffer.
const STATISTICS_ENTRIES: u16 = 16;
/// Entries of the queue for hints: the driver allocates the more at once, the longer the queue.
const HINTS_ENTRIES: u16 = 256;
/// Entries of the queue for reports: a report has up to 32 pieces.
const REPORTS_ENTRIES: u16 = 128;
/// Queues that there always are.
const FIRST_OPTIONAL: usize = 2;
/// The queues that depend on a feature, in their order.
const OPTIONAL: [(u64, u16); 3] = [
    (Feature::STATISTICS, STATISTICS_ENTRIES),
    (Feature::HINTS, HINTS_ENTRIES),
    (Feature::REPORTING, REPORTS_ENTRIES),
];

/// The sizes of the queues of a device that offers `features`.
pub(super) fn sizes(features: u64) -> Vec<u16> {
    let optional = OPTIONAL.iter().filter(|(feature, _)| features & feature != 0).map(|(_, size)| *size);
    [PAGES_ENTRIES; FIRST_OPTIONAL].into_iter().chain(optional).collect()
}

/// The queues of a driver.
pub(super) struct Queues {
    pub inflate: Queue,
    pub deflate: Queue,
    pub statistics: Option<Queue>,
    pub hints: Option<Queue>,
    pub reports: Option<Queue>,
}

impl Queues {
    /// Names the queues that the driver has set up. `None`: those that there always are, are not there.
    ///
    /// The specification numbers the queues by feature; Linux leaves no gap for a queue of a feature that it did not
    /// accept, so that later ones move down. A driver that has set up as many queues as it accepted features means
    /// them in their order, which is the same in both.
    pub fn assign(queues: Vec<Option<Queue>>, accepted: u64) -> Option<Self> {
        let mut queues = queues.into_iter();
        let (inflate, deflate) = (queues.next()??, queues.next()??);
        let rest: Vec<Option<Queue>> = queues.collect();
        let is_accepted = OPTIONAL.map(|(feature, _)| accepted & feature != 0);
        let in_order = rest.iter().flatten().count() == is_accepted.iter().filter(|is| **is).count();
        let mut rest = rest.into_iter();
        let [statistics, hints, reports] = is_accepted.map(|is_accepted| match (in_order, is_accepted) {
            (true, true) => rest.by_ref().flatten().next(),
            (true, false) => None,
            (false, is_accepted) => rest.next().flatten().filter(|_| is_accepted),
        });
        Some(Self { inflate, deflate, statistics, hints, reports })
    }

    /// All queues, in their order.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Queue> {
        let optional = [&mut self.statistics, &mut self.hints, &mut self.reports];
        [&mut self.inflate, &mut self.deflate].into_iter().chain(optional.into_iter().flatten())
    }
}

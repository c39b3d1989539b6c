//! A memory balloon (VIRTIO 1.3 §5.5): requests that move pages, statistics, reports and hints. What is moved when is
//! `background`'s affair.

use super::queue::{Buffer, Queue};
use super::{DeviceKind, Transport};
use crate::arena::{Arena, DeviceMemory};
use crate::failure::Failure;
use crate::pci::Function;
use guest_logic::balloon::{Direction, STATISTICS_BYTES, Statistics};
use guest_logic::memory_map::{BLOCK, Range};
use heapless::Vec;

/// `VIRTIO_BALLOON_F_MUST_TELL_HOST`; this driver waits for the host in any case.
const FEATURE_MUST_TELL_HOST: u64 = 1;
const FEATURE_STATISTICS: u64 = 1 << 1;
const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;
const FEATURE_FREE_PAGE_HINT: u64 = 1 << 3;
const FEATURE_REPORTING: u64 = 1 << 5;

const TARGET: u64 = 0;
const ACTUAL: u64 = 4;
const HINT_COMMAND: u64 = 8;
/// Hint commands below this are none: stop, and done.
const HINT_COMMAND_FIRST: u32 = 2;
const HINT_STOP: u32 = 0;

const PAGE: u64 = 4096;
/// Requests under way: one for each block, so that 128 MiB are on their way.
const REQUESTS: usize = 64;
const NUMBERS: usize = (BLOCK / PAGE) as usize;
const NUMBER_BYTES: usize = 4;
const SLOT_BYTES: usize = NUMBERS * NUMBER_BYTES;
/// Blocks of one report.
pub const REPORT_BLOCKS: usize = 32;
const REPORT_QUEUE: u16 = 32;
const HINT_QUEUE: u16 = 64;
/// Bytes of one hint: a buffer's length has 32 bits.
const HINT_BYTES_MAX: u64 = 1 << 30;

/// Memory that a balloon takes from its arena at most.
pub const BYTES_MAX: u64 = 320 << 10;

/// A balloon that is ready. The transport comes first, so that the device is reset before its memory is given up.
pub struct Balloon<'a> {
    transport: Transport,
    changes: u8,
    inflate: Lane<'a>,
    deflate: Lane<'a>,
    numbers: DeviceMemory<'a>,
    free_slots: Vec<u16, REQUESTS>,
    statistics: Option<(Queue<'a>, DeviceMemory<'a>)>,
    hints: Option<Hints<'a>>,
    reports: Option<(Queue<'a>, u32)>,
}

/// A queue of lists of page numbers.
struct Lane<'a> {
    queue: Queue<'a>,
    slot_of_token: [u16; REQUESTS],
    under_way: u16,
}

/// The queue of hints about free pages.
struct Hints<'a> {
    queue: Queue<'a>,
    /// The command that is answered, and the one that ends an answer.
    words: DeviceMemory<'a>,
    answered: u32,
    under_way: u32,
}

impl<'a> Balloon<'a> {
    /// Opens the first balloon.
    pub fn open(functions: &[Function], arena: &'a Arena) -> Result<Self, Failure> {
        let wanted = FEATURE_MUST_TELL_HOST
            | FEATURE_STATISTICS
            | FEATURE_DEFLATE_ON_OOM
            | FEATURE_FREE_PAGE_HINT
            | FEATURE_REPORTING;
        let mut transport = Transport::open_first(DeviceKind::Balloon, functions, wanted)?;
        let changes = transport.watch_configuration()?;
        let (inflate, deflate) = (Lane::new(&transport, 0, arena)?, Lane::new(&transport, 1, arena)?);
        // Queues are numbered through those that the device has.
        let mut next_queue = 2;
        let mut index_for = |feature| {
            transport.has(feature).then(|| {
                next_queue += 1;
                next_queue - 1
            })
        };
        let (statistics, hints, reports) =
            (index_for(FEATURE_STATISTICS), index_for(FEATURE_FREE_PAGE_HINT), index_for(FEATURE_REPORTING));
        let statistics = statistics.map(|index| -> Result<_, Failure> {
            let memory = arena.device_memory(STATISTICS_BYTES, 64)?;
            Ok((transport.queue_for(index, 8, 1, arena)?, memory))
        });
        let hints = hints.map(|index| -> Result<_, Failure> {
            let queue = transport.queue_for(index, HINT_QUEUE, 1, arena)?;
            Ok(Hints { queue, words: arena.device_memory(8, 64)?, answered: 0, under_way: 0 })
        });
        let reports =
            reports.map(|index| transport.queue_for(index, REPORT_QUEUE, REPORT_BLOCKS as u16, arena));
        let requests = usize::from(inflate.queue.chains_max(1).min(deflate.queue.chains_max(1)));
        let balloon = Self {
            changes,
            inflate,
            deflate,
            numbers: arena.device_memory(REQUESTS * SLOT_BYTES, 4096)?,
            free_slots: (0..requests.min(REQUESTS) as u16).collect(),
            statistics: statistics.transpose()?,
            hints: hints.transpose()?,
            reports: reports.transpose()?.map(|queue| (queue, 0)),
            transport,
        };
        balloon.transport.start();
        Ok(balloon)
    }

    /// The vector of interrupts that tell that the device's registers changed.
    pub fn changes(&self) -> u8 {
        self.changes
    }

    /// The size that the host wants, in pages. An exit.
    pub fn target(&self) -> u64 {
        u64::from(self.transport.configuration_u32(TARGET))
    }

    /// Tells the host the size. An exit.
    pub fn set_actual(&self, pages: u64) {
        self.transport.set_configuration_u32(ACTUAL, u32::try_from(pages).unwrap_or(u32::MAX));
    }

    /// Whether the guest may take pages back without being asked to.
    pub fn deflates_in_need(&self) -> bool {
        self.transport.has(FEATURE_DEFLATE_ON_OOM)
    }

    /// Whether there is room for another request.
    pub fn has_room(&self) -> bool {
        !self.free_slots.is_empty()
    }

    /// Puts a piece, of one block at most, into the queue for its direction. There must be room.
    pub fn send(&mut self, direction: Direction, piece: Range) {
        let slot = self.free_slots.pop().expect("the caller looked for room");
        let start = usize::from(slot) * SLOT_BYTES;
        let pages = (piece.bytes() / PAGE) as usize;
        let numbers = &mut self.numbers.contents()[start..start + pages * NUMBER_BYTES];
        for (index, number) in numbers.chunks_exact_mut(NUMBER_BYTES).enumerate() {
            let page = piece.start / PAGE + index as u64;
            number.copy_from_slice(&(page as u32).to_le_bytes());
        }
        let address = self.numbers.address() + start as u64;
        let bytes = (pages * NUMBER_BYTES) as u32;
        self.lane(direction).send(slot, Buffer { address, bytes, device_writes: false });
    }

    fn lane(&mut self, direction: Direction) -> &mut Lane<'a> {
        match direction {
            Direction::Inflate => &mut self.inflate,
            Direction::Deflate => &mut self.deflate,
        }
    }

    /// Takes back one request that the device is done with. False if there is none.
    pub fn take_moved(&mut self) -> bool {
        let slot = self.inflate.take().or_else(|| self.deflate.take());
        slot.inspect(|&slot| self.free_slots.push(slot).expect("a slot is free once")).is_some()
    }

    /// Gives the statistics, if the host waits for them; the first ones it gets unasked.
    pub fn answer_statistics(&mut self, first: bool, statistics: impl FnOnce() -> Statistics) {
        let Some((queue, memory)) = &mut self.statistics else { return };
        if !first && queue.take_used().is_none() {
            return;
        }
        memory.contents().copy_from_slice(&statistics().encode());
        let (address, bytes) = (memory.address(), STATISTICS_BYTES as u32);
        queue.add(&[Buffer { address, bytes, device_writes: false }]).expect("one request at a time fits");
        queue.notify();
    }

    /// How many blocks the next report may hold; 0 without room for one.
    pub fn report_room(&self) -> usize {
        let Some((queue, under_way)) = &self.reports else { return 0 };
        let blocks =
            (1..=REPORT_BLOCKS as u16).rev().find(|&blocks| queue.chains_max(blocks) > 0).unwrap_or(0);
        let reports = if blocks == 0 { 0 } else { u32::from(queue.chains_max(blocks)) };
        if *under_way < reports { usize::from(blocks) } else { 0 }
    }

    /// Tells the host that these blocks are free, no more than there is room for.
    pub fn report(&mut self, blocks: &[Range]) {
        let Some((queue, under_way)) = &mut self.reports else { return };
        let buffers: Vec<Buffer, REPORT_BLOCKS> = blocks.iter().copied().map(given_away).collect();
        queue.add(&buffers).expect("the caller looked for room");
        *under_way += 1;
    }

    /// The hint command that waits for an answer. An exit.
    pub fn hint_command(&self) -> Option<u32> {
        let hints = self.hints.as_ref()?;
        let command = self.transport.configuration_u32(HINT_COMMAND);
        (command >= HINT_COMMAND_FIRST && command != hints.answered && hints.under_way == 0)
            .then_some(command)
    }

    /// Answers a hint command with what is free: the number, the memory, the end.
    pub fn hint(&mut self, command: u32, free: impl Iterator<Item = Range>) {
        let Some(hints) = &mut self.hints else { return };
        hints.answered = command;
        hints.words.contents()[..4].copy_from_slice(&command.to_le_bytes());
        hints.words.contents()[4..].copy_from_slice(&HINT_STOP.to_le_bytes());
        let word = |address| Buffer { address, bytes: 4, device_writes: false };
        let (start, end) = (word(hints.words.address()), word(hints.words.address() + 4));
        let pieces = free.flat_map(|range| {
            (range.start..range.end)
                .step_by(HINT_BYTES_MAX as usize)
                .map(move |start| Range { start, end: range.end.min(start + HINT_BYTES_MAX) })
        });
        // Hints are optional: what does not fit the queue beside the two words is left out.
        let room = usize::from(hints.queue.chains_max(1)).saturating_sub(2);
        let buffers = [start].into_iter().chain(pieces.take(room).map(given_away)).chain([end]);
        for buffer in buffers {
            hints.queue.add(&[buffer]).expect("no more are given than fit");
            hints.under_way += 1;
        }
        hints.queue.notify();
    }

    /// Takes back reports and hints. True while the device has some: that memory must not be used.
    pub fn lends(&mut self) -> bool {
        let mut lent = false;
        if let Some((queue, under_way)) = &mut self.reports {
            while queue.take_used().is_some() {
                *under_way -= 1;
            }
            lent |= *under_way > 0;
        }
        if let Some(hints) = &mut self.hints {
            while hints.queue.take_used().is_some() {
                hints.under_way -= 1;
            }
            lent |= hints.under_way > 0;
        }
        lent
    }

    /// Shows the device what was sent and reported.
    pub fn notify(&mut self) {
        self.inflate.queue.notify();
        self.deflate.queue.notify();
        if let Some((queue, _)) = &mut self.reports {
            queue.notify();
        }
    }

    /// Asks for interrupts: when the host wants statistics, when it is done with the reports, and when half of the pages
    /// have moved if `more` wait for room, else all. True if that is so already.
    pub fn arm(&self, more: bool) -> bool {
        let lanes = [&self.inflate, &self.deflate].into_iter().filter(|lane| lane.under_way > 0);
        let others = [
            self.statistics.as_ref().map(|(queue, _)| (queue, 1)),
            self.reports.as_ref().map(|(queue, under_way)| (queue, *under_way)),
            self.hints.as_ref().map(|hints| (&hints.queue, hints.under_way)),
        ];
        let awaited = others.into_iter().flatten().filter(|&(_, count)| count > 0);
        let mut ready = false;
        for lane in lanes {
            ready |= lane.queue.arm_for(if more { lane.under_way.div_ceil(2) } else { lane.under_way });
        }
        for (queue, count) in awaited {
            ready |= queue.arm_for(count as u16);
        }
        ready
    }
}

/// Memory whose content the device may take away.
fn given_away(range: Range) -> Buffer {
    Buffer { address: range.start, bytes: range.bytes() as u32, device_writes: true }
}

impl<'a> Lane<'a> {
    fn new(transport: &Transport, index: u16, arena: &'a Arena) -> Result<Self, Failure> {
        let queue = transport.queue_for(index, REQUESTS as u16, 1, arena)?;
        Ok(Self { queue, slot_of_token: [0; REQUESTS], under_way: 0 })
    }

    fn send(&mut self, slot: u16, buffer: Buffer) {
        let token = self.queue.add(&[buffer]).expect("there are no more slots than descriptors");
        self.slot_of_token[usize::from(token)] = slot;
        self.under_way += 1;
    }

    fn take(&mut self) -> Option<u16> {
        let (token, _) = self.queue.take_used()?;
        self.under_way -= 1;
        Some(self.slot_of_token[usize::from(token)])
    }
}

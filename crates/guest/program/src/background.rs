//! What the boot processor does beside the workloads: it serves the balloon (`balloon=on`). Without that word nothing
//! here does anything, and the device is not touched.
//!
//! Workloads know little of it. They call [`halt`] where they sleep, and [`look`] where they work; arenas ask
//! [`wait_for_lent_memory`] and [`make_room`]. Interrupts come only while a processor halts, so one that works looks
//! at its rings, and now and then at its local APIC for the news that the balloon's registers changed.

use crate::arena::{Arena, Memory};
use crate::failure::{CODE_DEVICE, Failure};
use crate::pci::Function;
use crate::processor::{self, BootOnly};
use crate::virtio::balloon::{BYTES_MAX, Balloon, REPORT_BLOCKS};
use crate::{apic, clock, interrupts, print_line, services, timer};
use core::cell::{OnceCell, RefCell};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_logic::balloon::{Course, Direction, Statistics, Step};
use guest_logic::command_line::Arguments;
use guest_logic::memory_map::{BLOCK, FreeMemory, Range};
use heapless::Vec;

const PAGE: u64 = 4096;
const NS_PER_MS: u64 = 1_000_000;
/// What the balloon leaves free: workloads need little more than their pages once they run.
const KEPT_FREE: u64 = 2 << 20;
/// How often a processor that works looks for news; a look costs a few microseconds.
const LOOK_NS: u64 = 5_000_000;
/// How often the host hears of the size while it changes.
const ACTUAL_NS: u64 = 100_000_000;
const NEVER: u64 = u64::MAX;
/// How long the device may take for one thing that a workload waits for.
const PATIENCE_NS: u64 = 60_000_000_000;
const WAKE_NS: u64 = 1_000_000_000;

/// When [`look`] has something to do; 0 while requests are under way.
static NEXT_LOOK_NS: AtomicU64 = AtomicU64::new(NEVER);
static SERVICE: BootOnly<RefCell<Option<Service>>> = BootOnly::new(RefCell::new(None));

/// The balloon and all that is known about it.
struct Service {
    balloon: Balloon<'static>,
    memory: &'static Memory,
    course: Course,
    /// How long memory must have been free before it is reported; none if nothing is.
    report_after_ns: Option<u64>,
    /// When memory is reported that became free.
    report_at_ns: Option<u64>,
    /// How often the device's registers had changed when they were last read.
    changes_seen: u64,
    /// When to look for news of the registers, while this processor does not halt.
    next_news_ns: u64,
    /// The size and the wish that were last told.
    told: (u64, u64),
    /// When the balloon began to move after it rested.
    moving_since_ns: Option<u64>,
    /// When the host hears of the size if it still moves then.
    next_actual_ns: u64,
    /// The host has reported or hinted memory that it has not given back.
    lends: bool,
    stalls: u64,
    refusals: u64,
}

/// Opens the balloon and serves it from now on, in memory that is taken for good.
pub fn start(memory: &'static Memory, functions: &[Function], arguments: &Arguments) -> Result<(), Failure> {
    static OWN_MEMORY: BootOnly<OnceCell<Memory>> = BootOnly::new(OnceCell::new());
    static OWN_ARENA: BootOnly<OnceCell<Arena>> = BootOnly::new(OnceCell::new());
    let piece = memory.permanent().take(BYTES_MAX, PAGE)?;
    let own = OWN_MEMORY.get().get_or_init(|| Memory::new(FreeMemory::above(0, &[piece]), BYTES_MAX));
    let arena = OWN_ARENA.get().get_or_init(|| Arena::new(own));
    let balloon = Balloon::open(functions, arena)?;
    let mut service = Service {
        changes_seen: interrupts::count(balloon.changes()),
        balloon,
        memory,
        course: Course::default(),
        report_after_ns: arguments.reporting.then(|| arguments.report_after_ms.saturating_mul(NS_PER_MS)),
        report_at_ns: None,
        next_news_ns: 0,
        told: (0, 0),
        moving_since_ns: None,
        next_actual_ns: 0,
        lends: false,
        stalls: 0,
        refusals: 0,
    };
    service.answer_statistics(true);
    service.read_registers();
    SERVICE.get().replace(Some(service));
    NEXT_LOOK_NS.store(0, Ordering::Relaxed);
    Ok(())
}

fn active() -> bool {
    NEXT_LOOK_NS.load(Ordering::Relaxed) != NEVER && processor::index() == 0
}

/// Halts until an interrupt was taken. Before that, on the boot processor, does what is to be done for the balloon.
pub fn halt() {
    match serve() {
        Some(end_ns) => timer::halt_until(end_ns),
        None => services::halt(),
    }
}

/// Serves the balloon if something is due at `now`. For the boot processor, often, but not between a look at what it
/// waits for and a halt: interrupts may be taken here.
pub fn look(now: u64) {
    if now >= NEXT_LOOK_NS.load(Ordering::Relaxed) {
        look_closely(now);
    }
}

/// Gives the time until which it is right to halt, if there is one.
#[inline(never)]
fn serve() -> Option<u64> {
    with_service(|service| {
        while service.serve() {}
        service.report_at_ns.filter(|&at_ns| at_ns > clock::now())
    })
    .flatten()
}

#[inline(never)]
fn look_closely(now: u64) {
    with_service(|service| service.look(now));
}

/// Waits until the host has given back the memory that it was told is free.
#[inline(never)]
pub fn wait_for_lent_memory() -> Result<(), Failure> {
    match with_service(Service::wait_for_lent_memory) {
        Some(waited) => waited,
        None => Ok(()),
    }
}

/// Takes pages back from the balloon for a workload that wants `bytes` and did not get them. False if that is not
/// possible.
#[cold]
pub fn make_room(bytes: u64) -> Result<bool, Failure> {
    with_service(|service| service.make_room(bytes)).unwrap_or(Ok(false))
}

/// None without a balloon, and inside of another call.
fn with_service<T>(act: impl FnOnce(&mut Service) -> T) -> Option<T> {
    if !active() {
        return None;
    }
    let mut service = SERVICE.get().try_borrow_mut().ok()?;
    service.as_mut().map(act)
}

impl Service {
    fn free_pages(&self) -> u64 {
        self.memory.map().free().saturating_sub(KEPT_FREE) / PAGE
    }

    fn next_step(&self) -> Step {
        let held = self.memory.map().ballooned_pages();
        self.course.next(held, self.free_pages())
    }

    /// Does all that can be done now, then asks for interrupts. True if there is more to do already.
    fn serve(&mut self) -> bool {
        self.work();
        let more = matches!(self.next_step(), Step::Move(..));
        self.balloon.arm(more) || interrupts::count(self.balloon.changes()) != self.changes_seen
    }

    fn look(&mut self, now: u64) {
        if now >= self.next_news_ns {
            self.next_news_ns = now.saturating_add(LOOK_NS);
            if apic::is_pending(self.balloon.changes()) {
                // It is there: the halt ends at once.
                services::halt();
            }
        }
        self.work();
        let busy = self.course.under_way() > 0 || self.lends;
        NEXT_LOOK_NS.store(if busy { 0 } else { self.next_news_ns }, Ordering::Relaxed);
    }

    fn work(&mut self) {
        if interrupts::count(self.balloon.changes()) != self.changes_seen {
            self.read_registers();
        }
        self.collect();
        self.move_pages();
        self.answer_statistics(false);
        self.report();
        self.balloon.notify();
        self.tell_progress();
    }

    /// For a long way: a host that hears nothing may take the guest for stuck.
    fn tell_progress(&mut self) {
        if self.moving_since_ns.is_none() {
            return;
        }
        let now = clock::now();
        if now >= self.next_actual_ns {
            self.balloon.set_actual(self.memory.map().ballooned_pages());
            self.next_actual_ns = now.saturating_add(ACTUAL_NS);
        }
    }

    fn read_registers(&mut self) {
        self.changes_seen = interrupts::count(self.balloon.changes());
        self.course.aim(self.balloon.target());
        self.lends = self.balloon.lends();
        if let Some(command) = self.balloon.hint_command() {
            self.balloon.hint(command, self.memory.map().whole_blocks());
        }
    }

    fn collect(&mut self) {
        while self.balloon.take_moved() {
            if self.course.came_back() == Some(Direction::Deflate) {
                self.memory.map().deflated();
            }
        }
        self.lends = self.balloon.lends();
    }

    /// Makes requests until the host's wish is met, there is no room for more, or no memory to give.
    fn move_pages(&mut self) {
        loop {
            match self.next_step() {
                Step::Move(direction, pages) => {
                    if !self.balloon.has_room() || !self.move_piece(direction, pages) {
                        return;
                    }
                }
                Step::Wait => return,
                Step::Rest => return self.tell(),
            }
        }
    }

    /// False if there is nothing to move.
    fn move_piece(&mut self, direction: Direction, pages: u64) -> bool {
        let piece = match direction {
            // Nothing that the host was told is free may go elsewhere before it gave it back.
            Direction::Inflate if self.lends => None,
            Direction::Inflate => self.memory.map().inflate(pages),
            Direction::Deflate => self.memory.map().deflate(pages),
        };
        let Some(piece) = piece else { return false };
        if self.moving_since_ns.is_none() {
            let now = clock::now();
            self.moving_since_ns = Some(now);
            self.next_actual_ns = now.saturating_add(ACTUAL_NS);
        }
        self.balloon.send(direction, piece);
        self.course.sent(direction);
        true
    }

    /// Says where the balloon rests, once.
    fn tell(&mut self) {
        let (pages, target) = (self.memory.map().ballooned_pages(), self.course.target());
        let since = self.moving_since_ns.take();
        if since.is_none() && (pages, target) == self.told {
            return;
        }
        self.told = (pages, target);
        self.balloon.set_actual(pages);
        let ms = since.map_or(0, |since| clock::now().saturating_sub(since) / 1_000_000);
        print_line!("BALLOON pages={pages} target={target} ms={ms}");
    }

    fn answer_statistics(&mut self, first: bool) {
        let map = self.memory.map();
        let (free, ballooned) = (map.free(), map.ballooned_pages() * PAGE);
        // As Linux counts: the balloon is a part of the guest's memory where the guest may take it back.
        let held = if self.balloon.deflates_in_need() { 0 } else { ballooned };
        let statistics = Statistics {
            free,
            total: self.memory.total().saturating_sub(held),
            available: free.saturating_sub(KEPT_FREE),
            stalls: self.stalls,
            refusals: self.refusals,
        };
        self.balloon.answer_statistics(first, || statistics);
    }

    /// Tells the host which blocks are free again, when they have been so for a while.
    fn report(&mut self) {
        let Some(after_ns) = self.report_after_ns else { return };
        if !self.memory.map().has_unreported() {
            self.report_at_ns = None;
            return;
        }
        if after_ns > 0 {
            let now = clock::now();
            if now < *self.report_at_ns.get_or_insert(now.saturating_add(after_ns)) {
                return;
            }
        }
        loop {
            let room = self.balloon.report_room();
            let mut map = self.memory.map();
            let unreported = core::iter::from_fn(|| map.next_unreported()).take(room);
            let blocks: Vec<Range, REPORT_BLOCKS> = unreported.collect();
            if blocks.is_empty() {
                // Without room, the rest is due as soon as there is some.
                if room > 0 {
                    self.report_at_ns = None;
                }
                return;
            }
            self.balloon.report(&blocks);
            self.lends = true;
        }
    }

    fn wait_for_lent_memory(&mut self) -> Result<(), Failure> {
        self.wait_while("memory that was reported as free", |service| service.lends)
    }

    fn wait_while(&mut self, what: &str, waiting: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let start = clock::now();
        self.collect();
        while waiting(self) {
            if clock::now().saturating_sub(start) > PATIENCE_NS {
                let reason = format_args!("virtio-balloon does not give back {what}");
                return Err(Failure::new(CODE_DEVICE, reason));
            }
            self.balloon.notify();
            if !self.balloon.arm(false) {
                timer::once(WAKE_NS);
                services::halt();
            }
            self.collect();
        }
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) -> Result<bool, Failure> {
        const WHAT: &str = "pages of the balloon";
        if !self.balloon.deflates_in_need() || self.memory.map().ballooned_pages() == 0 {
            self.refusals += 1;
            return Ok(false);
        }
        self.stalls += 1;
        self.course.give_up();
        self.wait_while(WHAT, |service| service.course.under_way() > 0)?;
        let mut missing = bytes.saturating_add(BLOCK) / PAGE;
        while missing > 0 {
            self.wait_while(WHAT, |service| !service.balloon.has_room())?;
            let Some(piece) = self.memory.map().deflate(missing) else { break };
            missing -= piece.bytes() / PAGE;
            self.balloon.send(Direction::Deflate, piece);
            self.course.sent(Direction::Deflate);
        }
        self.wait_while(WHAT, |service| service.course.under_way() > 0)?;
        Ok(true)
    }
}

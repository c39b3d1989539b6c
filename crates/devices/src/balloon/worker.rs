//! Serves the queues of the balloon.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use napa_memory::PageStates;
use napa_sys::reactor::{Io, Worker};
use napa_units::{Gfn, Pages};
use napa_virtio::{Buffers, Queue};

use super::config::Feature;
use super::handle::Balloon;
use super::page_set::{PageSet, Run, Spans, runs};
use super::pending::{BLOCK_PAGES, Pending};
use super::queues::Queues;
use super::request::{FrameList, NamedPages};
use super::statistics::{self, ENTRIES_MAX, ENTRY_BYTES};

/// Statistics are wanted.
const BELL: u32 = 0;
/// The turn was over before the work was.
const NEXT_TURN: u32 = 1;
/// Pages wait for their neighbours.
const PENDING: u32 = 2;
/// Tokens from here on belong to the queues.
const FIRST_QUEUE: u32 = 3;

/// Pages discarded in one turn, or what takes as long: the thread has others to serve. Two huge pages.
const TURN_COST: u64 = 2 * BLOCK_PAGES;
/// What each call of the kernel costs, and each look at a request, in pages.
const CALL_COST: u64 = 8;
/// How long pages wait for their neighbours, once to twice: a driver makes the next list of pages much faster.
const PENDING_PERIOD: Duration = Duration::from_millis(10);

pub(super) struct BalloonWorker {
    balloon: Arc<Balloon>,
    pages: Arc<PageStates>,
    queues: Queues,
    features: u64,
    spans: Spans,
    /// What is in the balloon.
    held: PageSet,
    pending: Pending,
    /// What is discarded next; nothing else is done before that.
    ready: VecDeque<Run>,
    inflating: FrameList,
    deflating: FrameList,
    /// A report whose pages are being discarded.
    report: Option<u16>,
    /// The driver's buffer for statistics, while nobody wants any.
    statistics: Option<u16>,
    // Kept and filled again.
    frames: Vec<u32>,
    named: NamedPages,
    buffers: Buffers,
    has_complained: bool,
}

/// How a turn ended.
enum Turn {
    /// There is nothing more to do now.
    Idle,
    /// There is more than fits into one turn.
    More,
    /// The device waits for a reset.
    Failed,
}

impl BalloonWorker {
    pub fn new(balloon: Arc<Balloon>, pages: Arc<PageStates>, queues: Queues, features: u64) -> Self {
        let ram = Arc::clone(pages.all());
        Self {
            balloon,
            pages,
            queues,
            features,
            spans: Spans::new(&ram),
            held: PageSet::new(&ram),
            pending: Pending::default(),
            ready: VecDeque::new(),
            inflating: FrameList::default(),
            deflating: FrameList::default(),
            report: None,
            statistics: None,
            frames: Vec::new(),
            named: NamedPages::default(),
            buffers: Buffers::default(),
            has_complained: false,
        }
    }

    fn serve(&mut self, io: &mut Io<'_>) {
        let mut budget = TURN_COST;
        self.queues.all().for_each(Queue::disable_doorbell);
        loop {
            match self.work(&mut budget) {
                Turn::Failed => return,
                Turn::More => {
                    io.wait_timeout(NEXT_TURN, Duration::ZERO);
                    break;
                }
                Turn::Idle if self.sleep(io) => break,
                // A guest that rings without end and offers nothing uses the turn up too.
                Turn::Idle => budget = budget.saturating_sub(CALL_COST),
            }
        }
        if !self.pending.is_empty() {
            io.wait_timeout(PENDING, PENDING_PERIOD);
        }
    }

    /// Waits for doorbells. `false`: requests came in meanwhile.
    fn sleep(&mut self, io: &mut Io<'_>) -> bool {
        // While the device has the buffer for statistics, a driver has no other.
        let keeps_statistics = self.statistics.is_some();
        let [inflate, deflate] = [&mut self.queues.inflate, &mut self.queues.deflate];
        let statistics = self.queues.statistics.as_mut().filter(|_| !keeps_statistics);
        let optional = [statistics, self.queues.hints.as_mut(), self.queues.reports.as_mut()];
        let all = || [Some(inflate), Some(deflate)].into_iter().chain(optional);
        let mut all: Vec<(u32, &mut Queue)> =
            (FIRST_QUEUE..).zip(all()).filter_map(|(token, queue)| Some((token, queue?))).collect();
        let has_more = all.iter_mut().fold(false, |more, (_, queue)| queue.enable_doorbell() || more);
        if has_more {
            all.iter_mut().for_each(|(_, queue)| queue.disable_doorbell());
            return false;
        }
        all.iter_mut().for_each(|(token, queue)| queue.wait(*token, io));
        true
    }

    fn work(&mut self, budget: &mut u64) -> Turn {
        loop {
            if !self.discard(budget) || *budget == 0 {
                return Turn::More;
            }
            // Pages given up come before pages taken back: a driver that does not wait for the answer to the former
            // means them in this order.
            let has_worked = self.finish_report()
                || self.pending.take_released(|run| push_run(&mut self.ready, run))
                || self.inflate()
                || self.take_report()
                || self.deflate()
                || self.take_hints()
                || self.take_statistics();
            if self.queues.inflate.has_failed() {
                return Turn::Failed;
            }
            if !has_worked {
                return Turn::Idle;
            }
            *budget = budget.saturating_sub(CALL_COST);
        }
    }

    /// Discards what is ready. `false`: the turn is over before all is discarded.
    fn discard(&mut self, budget: &mut u64) -> bool {
        while let Some(run) = self.ready.front_mut() {
            if *budget == 0 {
                return false;
            }
            // Never a part of a huge page, and never more than one region has.
            let whole_blocks = (run.first + *budget).next_multiple_of(BLOCK_PAGES) - run.first;
            let in_region = self.spans.parts(*run).next().map_or(run.count, |part| part.count);
            let count = run.count.min(whole_blocks).min(in_region);
            let (first, count) = (Gfn(run.first), Pages(count));
            (run.first, run.count) = (run.first + count.0, run.count - count.0);
            if run.count == 0 {
                self.ready.pop_front();
            }
            *budget = budget.saturating_sub(count.0 + CALL_COST);
            match self.pages.discard(first, count) {
                Ok(()) => self.balloon.on_discarded(count.0),
                // The guest does without the pages all the same; only the host does not get them.
                Err(error) if !std::mem::replace(&mut self.has_complained, true) => {
                    eprintln!("napa: balloon0: {error}");
                }
                Err(_) => {}
            }
        }
        true
    }

    /// Takes pages that the guest gives up.
    fn inflate(&mut self) -> bool {
        if !self.inflating.open(&mut self.queues.inflate) {
            return false;
        }
        // A driver that does not tell before it uses a page again has its answer after the pages were discarded.
        let tells = self.features & Feature::MUST_TELL_HOST != 0;
        if !tells && self.inflating.is_read() {
            self.inflating.close(&mut self.queues.inflate);
            return true;
        }
        self.inflating.read(&mut self.frames);
        self.frames.sort_unstable();
        let mut named = 0;
        for run in runs(&self.frames) {
            named += run.count;
            for part in self.spans.parts(run) {
                named -= part.count;
                self.held.insert(part);
                let ready = &mut self.ready;
                match tells {
                    true => self.pending.insert(part, |block| push_run(ready, block)),
                    false => push_run(ready, part),
                }
            }
        }
        self.count_foreign(named);
        self.balloon.set_held(self.held.count());
        if tells && self.inflating.is_read() {
            self.inflating.close(&mut self.queues.inflate);
            // The driver makes its next list while these pages are discarded.
            self.queues.inflate.notify();
        }
        true
    }

    /// Lets the guest have pages again.
    fn deflate(&mut self) -> bool {
        if !self.deflating.open(&mut self.queues.deflate) {
            return false;
        }
        self.deflating.read(&mut self.frames);
        self.frames.sort_unstable();
        let mut named = 0;
        for run in runs(&self.frames) {
            named += run.count;
            for part in self.spans.parts(run) {
                named -= part.count;
                self.held.remove(part);
                self.pending.remove(part);
            }
        }
        self.count_foreign(named);
        self.balloon.set_held(self.held.count());
        if self.deflating.is_read() {
            self.deflating.close(&mut self.queues.deflate);
        }
        true
    }

    /// Gives a report back: its pages are discarded.
    fn finish_report(&mut self) -> bool {
        match (self.report.take(), &mut self.queues.reports) {
            (Some(head), Some(queue)) => {
                queue.push(head, 0);
                true
            }
            _ => false,
        }
    }

    /// Takes a report of free pages.
    fn take_report(&mut self) -> bool {
        let Some(queue) = &mut self.queues.reports else { return false };
        let Some(mut chain) = queue.pop() else { return false };
        let filled = self.named.fill(&mut chain, queue.memory());
        if let Err(error) = filled.and_then(|()| self.named.no_command()) {
            queue.fail(error);
            return false;
        }
        self.report = Some(chain.head_index());
        if self.balloon.may_lose_free_pages(self.features) {
            let mut pages = 0;
            for part in self.named.runs.iter().flat_map(|run| self.spans.parts(*run)) {
                pages += part.count;
                push_run(&mut self.ready, part);
            }
            self.balloon.on_reported(pages);
        }
        true
    }

    /// Takes hints of free pages.
    fn take_hints(&mut self) -> bool {
        let Some(queue) = &mut self.queues.hints else { return false };
        let Some(mut chain) = queue.pop() else { return false };
        let filled = self.named.fill(&mut chain, queue.memory());
        match filled.and_then(|()| self.named.command()) {
            Ok(command) => {
                if let Some(command) = command {
                    self.balloon.on_hint_command(command);
                }
                self.balloon.on_hints(self.named.runs.iter().copied());
                queue.push(chain.head_index(), 0);
            }
            Err(error) => queue.fail(error),
        }
        true
    }

    /// Gives the driver its buffer for statistics back when somebody wants some, or takes it.
    fn take_statistics(&mut self) -> bool {
        let Some(queue) = &mut self.queues.statistics else { return false };
        if let Some(head) = self.statistics {
            let is_wanted = self.balloon.wants_statistics();
            if is_wanted {
                self.statistics = None;
                queue.push(head, 0);
            }
            return is_wanted;
        }
        let Some(mut chain) = queue.pop() else { return false };
        if let Err(error) = self.buffers.fill(&mut chain, queue.memory()) {
            queue.fail(error);
            return false;
        }
        let bytes = self.buffers.readable_bytes();
        if !self.buffers.writable.is_empty() || !bytes.is_multiple_of(ENTRY_BYTES as u64) {
            queue.fail(format_args!("statistics are {bytes} bytes, or have a part to be written"));
            return false;
        }
        let mut entries = [0; ENTRIES_MAX * ENTRY_BYTES];
        let count = self.buffers.read(&mut entries);
        self.balloon.on_statistics(statistics::parse(&entries[..count]));
        self.statistics = Some(chain.head_index());
        true
    }

    fn count_foreign(&self, pages: u64) {
        if self.balloon.on_foreign(pages) {
            eprintln!(
                "napa: balloon0: the guest named {pages} pages that it does not have; they are ignored"
            );
        }
    }
}

/// Adds a run, to the last one where it goes on.
fn push_run(ready: &mut VecDeque<Run>, run: Run) {
    match ready.back_mut() {
        Some(last) if last.end() == run.first => last.count += run.count,
        _ => ready.push_back(run),
    }
}

impl Worker for BalloonWorker {
    fn start(&mut self, io: &mut Io<'_>) {
        io.wait_event(BELL, self.balloon.bell());
        self.serve(io);
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        match token {
            BELL => io.wait_event(BELL, self.balloon.bell()),
            PENDING => self.pending.release_idle(),
            _ => {}
        }
        self.serve(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.queues.all().for_each(Queue::notify);
    }
}

//! Serves the request queue.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, Chain, PluggableMemory, Queue};

use super::handle::Hotplug;
use super::request::{Decision, Request, Response, decide};

/// The driver has made requests.
const KICK: u32 = 0;
/// The turn was over before the requests were.
const MORE: u32 = 1;

/// Blocks changed, or requests looked at, in one turn of the control thread, which has others to serve: KVM waits for the
/// vCPUs each time that a memory slot changes.
const TURN_MAX: usize = 8;

pub(super) struct RequestWorker {
    hotplug: Arc<Hotplug>,
    queue: Queue,
    /// Those of the request under way.
    buffers: Buffers,
    job: Option<Job>,
    has_complained: bool,
}

/// A request that changes blocks.
struct Job {
    head: u16,
    change: Change,
    /// Blocks that are still to be changed.
    left: Range<u64>,
    /// The first one of all.
    first: u64,
    response: Response,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Plug,
    Unplug,
    /// Some blocks may be unplugged already.
    UnplugAll,
    /// A change has failed: as it was before.
    TakeBack(Back),
}

/// What has to be done to have it as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    Plug,
    Unplug,
}

impl Change {
    fn make(self, blocks: &dyn PluggableMemory, block: u64) -> io::Result<()> {
        match self {
            Self::Plug | Self::TakeBack(Back::Plug) => blocks.plug(block),
            Self::Unplug | Self::UnplugAll | Self::TakeBack(Back::Unplug) => blocks.unplug(block),
        }
    }
}

impl Job {
    /// A block could not be changed. The driver is told that nothing was, so that is how it has to be.
    fn fail(&mut self) {
        let done = self.first..self.left.start;
        self.response = Response::Busy;
        (self.change, self.left) = match self.change {
            Change::Plug => (Change::TakeBack(Back::Unplug), done),
            Change::Unplug => (Change::TakeBack(Back::Plug), done),
            // Whoever asks for all of it asks again, and relies on none of it.
            Change::UnplugAll => (self.change, 0..0),
            Change::TakeBack(_) => (self.change, self.left.start + 1..self.left.end),
        };
    }
}

impl RequestWorker {
    pub fn new(hotplug: Arc<Hotplug>, queue: Queue) -> Self {
        Self { hotplug, queue, buffers: Buffers::default(), job: None, has_complained: false }
    }

    fn serve(&mut self, io: &mut Io<'_>) {
        let mut left = TURN_MAX;
        self.queue.disable_doorbell();
        // A machine that is ending has no blocks left; nobody waits for an answer.
        let Some(blocks) = self.hotplug.blocks() else { return };
        loop {
            if left == 0 {
                return io.wait_timeout(MORE, Duration::ZERO);
            }
            left -= 1;
            if let Some(job) = self.job.take() {
                self.go_on(job, &*blocks);
                continue;
            }
            match self.queue.pop() {
                Some(chain) => self.begin(chain, &*blocks),
                None if self.queue.enable_doorbell() => {}
                None => return self.queue.wait(KICK, io),
            }
        }
    }

    fn begin(&mut self, mut chain: Chain, blocks: &dyn PluggableMemory) {
        let head = chain.head_index();
        if let Err(error) = self.buffers.fill(&mut chain, self.queue.memory()) {
            return self.queue.fail(error);
        }
        let Some(bytes) = self.buffers.take_header() else {
            return self.queue.fail("a request is too short to say what it wants");
        };
        let request = Request::decode(&bytes);
        let (region, requested) = (self.hotplug.region(), self.hotplug.requested());
        let (change, left) =
            match decide(request, &region, requested, blocks.plugged(), |block| blocks.is_plugged(block)) {
                Decision::Answer(response) => return self.answer(head, response),
                Decision::Plug(blocks) => (Change::Plug, blocks),
                Decision::Unplug(blocks) if request == Request::UnplugAll => (Change::UnplugAll, blocks),
                Decision::Unplug(blocks) => (Change::Unplug, blocks),
            };
        self.job = Some(Job { head, change, first: left.start, left, response: Response::Done });
    }

    /// Changes the next block, or answers.
    fn go_on(&mut self, mut job: Job, blocks: &dyn PluggableMemory) {
        // What is unplugged already costs nothing.
        if job.change == Change::UnplugAll {
            let next = job.left.clone().find(|block| blocks.is_plugged(*block));
            job.left.start = next.unwrap_or(job.left.end);
        }
        let Some(block) = job.left.clone().next() else { return self.answer(job.head, job.response) };
        match job.change.make(blocks, block) {
            Ok(()) => job.left.start += 1,
            Err(error) => {
                if !std::mem::replace(&mut self.has_complained, true) {
                    eprintln!("napa: mem0: the host refuses to change block {block}: {error}");
                }
                job.fail();
            }
        }
        self.job = Some(job);
    }

    fn answer(&mut self, head: u16, response: Response) {
        let bytes = response.encode();
        let written = self.buffers.write(&bytes);
        if written < bytes.len() {
            return self.queue.fail("a request has no room for its response");
        }
        self.queue.push(head, written as u32);
    }
}

impl Worker for RequestWorker {
    fn start(&mut self, io: &mut Io<'_>) {
        self.serve(io);
    }

    fn ready(&mut self, _token: u32, io: &mut Io<'_>) {
        self.serve(io);
    }

    fn turn_end(&mut self, _: &mut Io<'_>) {
        self.queue.notify();
    }
}

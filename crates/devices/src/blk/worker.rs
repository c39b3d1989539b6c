//! Serves one queue of a disk.
#![allow(unsafe_code)] // Operations name guest memory and the image, which the kernel uses later.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use napa_sys::reactor::{Io, Worker};
use napa_virtio::{Buffers, BuffersError, Chain, Queue, StatusByte};

use super::bounce::Bounce;
use super::disk::Disk;
use super::operation::{self, Failure, Next, Step};
use super::pending::{Pending, Table};
use super::request::{HEADER_BYTES, Range, Request, SEGMENT_BYTES, Status, decode};

/// The driver rang the doorbell.
const KICK: u32 = 0;
/// The last turn left requests in the ring.
const MORE: u32 = 1;

/// How often one request may be interrupted in the kernel before it counts as failed.
const RETRIES_MAX: u8 = 16;

/// Why a request is none: the driver broke the rules of the ring, and the device stops.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error(transparent)]
    Memory(#[from] BuffersError),
    #[error("a request is shorter than its header of {HEADER_BYTES} bytes")]
    Header,
    #[error("a request has no byte for its outcome")]
    Status,
}

/// The worker of one queue.
pub(super) struct BlockWorker {
    queue: Queue,
    disk: Arc<Disk>,
    table: Table,
    bounce: Bounce,
}

impl BlockWorker {
    /// Serves `queue` from `disk`.
    pub fn new(queue: Queue, disk: Arc<Disk>) -> Self {
        let table = Table::new(queue.size());
        Self { queue, disk, table, bounce: Bounce::default() }
    }

    /// Takes requests until the ring is empty, or a ring's worth of them: other queues want their turn.
    fn serve(&mut self, io: &mut Io<'_>) {
        let mut budget = self.queue.size();
        loop {
            self.queue.disable_doorbell();
            while let Some(chain) = self.queue.pop() {
                self.accept(chain, io);
                budget -= 1;
                if budget == 0 {
                    io.wait_timeout(MORE, Duration::ZERO);
                    return;
                }
            }
            if !self.queue.enable_doorbell() {
                break;
            }
        }
        self.queue.wait(KICK, io);
    }

    fn accept(&mut self, mut chain: Chain, io: &mut Io<'_>) {
        if self.table.is_full() {
            self.queue.fail("more requests are under way than the ring has entries");
            return;
        }
        let mut buffers = self.table.take_buffers();
        match dissect(&mut buffers, &mut chain, &self.queue) {
            Ok((header, status)) => self.begin(chain.head_index(), header, status, buffers, io),
            Err(malformed) => self.queue.fail(malformed),
        }
    }

    fn begin(
        &mut self,
        head: u16,
        header: [u8; HEADER_BYTES],
        status: StatusByte,
        buffers: Buffers,
        io: &mut Io<'_>,
    ) {
        let segment = || {
            let mut bytes = [0; SEGMENT_BYTES];
            buffers.read(&mut bytes);
            bytes
        };
        let (readable, writable) = (buffers.readable_bytes(), buffers.writable_bytes());
        let request = match decode(header, readable, writable, segment, &self.disk.limits) {
            Ok(request) => request,
            Err(refusal) => {
                self.complain(refusal);
                self.table.keep_buffers(buffers);
                return self.give_back(head, status, refusal.status(), 0);
            }
        };
        let Some(step) = operation::first(&request, &buffers, &self.disk) else {
            let written = answer(&request, &buffers, &self.disk);
            self.table.keep_buffers(buffers);
            return self.give_back(head, status, Status::Ok, written);
        };
        let left = request.range().unwrap_or(Range { offset: 0, length: 0 });
        let tag =
            self.table.insert(Pending { head, status, buffers, request, step, left, retries: RETRIES_MAX });
        if step == Step::Bounced && !self.bounce.claim(tag, left.length) {
            return;
        }
        self.submit(tag, io);
    }

    fn submit(&mut self, tag: u16, io: &mut Io<'_>) {
        let entry = operation::entry(self.table.get(tag), &self.disk, &mut self.bounce);
        // SAFETY: the reactor keeps this worker until the completion. The worker keeps guest RAM by its
        // queue, the image by its disk, the bounce buffer until the request has ended, and the vectors on
        // the heap in the table, where nothing changes them while an operation is under way.
        unsafe { io.submit(entry, u32::from(tag)) };
    }

    fn end(&mut self, tag: u16, outcome: Result<(), Failure>, io: &mut Io<'_>) {
        let pending = self.table.remove(tag);
        let (status, written) = match outcome {
            Ok(()) => (Status::Ok, pending.request.bytes_to_guest()),
            Err(failure) => {
                self.complain(format_args!("{}: {failure}", pending.request));
                (Status::IoError, 0)
            }
        };
        self.table.keep_buffers(pending.buffers);
        self.give_back(pending.head, pending.status, status, written);
        if pending.step == Step::Bounced
            && let Some(next) = self.bounce.release()
        {
            let length = self.table.get(next).left.length;
            assert!(self.bounce.claim(next, length), "the buffer has just been released");
            self.submit(next, io);
        }
    }

    /// Returns a request with its outcome and `written` bytes of data in front of that.
    fn give_back(&mut self, head: u16, status: StatusByte, outcome: Status, written: u32) {
        status.write(&self.queue, outcome as u8);
        self.queue.push(head, written.saturating_add(1));
    }

    fn complain(&self, failure: impl Display) {
        self.disk.complaints.say(&self.disk.name, failure);
    }
}

impl Worker for BlockWorker {
    fn start(&mut self, io: &mut Io<'_>) {
        self.queue.wait(KICK, io);
    }

    fn ready(&mut self, _token: u32, io: &mut Io<'_>) {
        self.serve(io);
    }

    fn complete(&mut self, tag: u32, result: i32, io: &mut Io<'_>) {
        let tag = tag as u16;
        match operation::after(self.table.get(tag), result, &self.disk, &mut self.bounce) {
            Ok(Next::Submit) => self.submit(tag, io),
            Ok(Next::Done) => self.end(tag, Ok(()), io),
            Err(failure) => self.end(tag, Err(failure), io),
        }
    }

    fn turn_end(&mut self, _io: &mut Io<'_>) {
        self.queue.notify();
    }
}

/// Splits the memory of a request: header, outcome, and the data that stays in `buffers`.
fn dissect(
    buffers: &mut Buffers,
    chain: &mut Chain,
    queue: &Queue,
) -> Result<([u8; HEADER_BYTES], StatusByte), Malformed> {
    buffers.fill(chain, queue.memory())?;
    let header = buffers.take_header().ok_or(Malformed::Header)?;
    let status = buffers.take_status().ok_or(Malformed::Status)?;
    Ok((header, status))
}

/// Answers a request that needs no I/O, and says how many bytes the guest got.
fn answer(request: &Request, buffers: &Buffers, disk: &Disk) -> u32 {
    match request {
        Request::Identify => buffers.write(&disk.serial) as u32,
        _ => 0,
    }
}

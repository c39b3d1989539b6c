//! Which operations a request takes, for each answer of the kernel. No ring, no worker.

use io_uring::opcode;
use napa_virtio::{Buffers, IoVec};

use super::bounce::Bounce;
use super::operation::{Allocation, Next, Step, after, entry, first};
use super::pending::Pending;
use super::request::{Range, Request};
use super::*;

/// How a request ended; `None` if it wants more results.
type End = Option<Result<(), String>>;

/// What stays alive while a request is taken through its steps.
struct Play {
    _folder: TempDir,
    disk: Disk,
    bounce: Bounce,
    memory: Vec<u8>,
}

impl Play {
    fn new(cache: CacheMode) -> Self {
        let (folder, path) = image(1 << 20);
        let disk = Disk::new("disk0".into(), Image::open(&config(&path, cache)).unwrap(), "");
        Self { _folder: folder, disk, bounce: Bounce::default(), memory: vec![0; 4 << 20] }
    }

    /// Addresses in `memory`, `shift` bytes past a page boundary, as vectors of the given lengths.
    fn vectors(&mut self, shift: usize, lengths: &[usize]) -> Vec<IoVec> {
        let start = self.memory.as_ptr().align_offset(4096) + shift;
        let mut at = self.memory[start..].as_mut_ptr();
        let vector = |length: &usize| {
            let vector = IoVec { iov_base: at.cast(), iov_len: *length };
            at = at.wrapping_add(*length);
            vector
        };
        lengths.iter().map(vector).collect()
    }

    /// Takes `request` through the kernel's `results`. Gives each step with its opcode, and how it ended.
    fn take(&mut self, request: Request, data: Vec<IoVec>, results: &[i32]) -> (Vec<(Step, u8)>, End) {
        let outcome = self.vectors(3 << 20, &[1]);
        let status = Buffers { readable: vec![], writable: outcome }.take_status().unwrap();
        let buffers = match request {
            Request::Read(_) => Buffers { readable: vec![], writable: data },
            _ => Buffers { readable: data, writable: vec![] },
        };
        let Some(step) = first(&request, &buffers, &self.disk) else { return (vec![], Some(Ok(()))) };
        let left = request.range().unwrap_or(Range { offset: 0, length: 0 });
        let mut pending = Pending { head: 0, status, buffers, request, step, left, retries: 2 };
        if step == Step::Bounced {
            assert!(self.bounce.claim(0, left.length));
        }
        let mut steps = Vec::new();
        let mut end = None;
        for result in results {
            assert_eq!(end, None, "there are results left");
            let operation = entry(&mut pending, &self.disk, &mut self.bounce);
            steps.push((pending.step, operation.get_opcode() as u8));
            match after(&mut pending, *result, &self.disk, &mut self.bounce) {
                Ok(Next::Submit) => {}
                Ok(Next::Done) => end = Some(Ok(())),
                Err(failure) => end = Some(Err(failure.to_string())),
            }
        }
        self.bounce.release();
        (steps, end)
    }
}

const FALLOCATE: u8 = opcode::Fallocate::CODE;
const WRITE_ONE: u8 = opcode::Write::CODE;
const SYNC: (Step, u8) = (Step::Sync, opcode::Fsync::CODE);
const PUNCH: (Step, u8) = (Step::Allocate(Allocation::Punch), FALLOCATE);
const ZERO: (Step, u8) = (Step::Allocate(Allocation::Zero), FALLOCATE);
const ZEROS: (Step, u8) = (Step::Zeros, WRITE_ONE);

fn range(length: u64) -> Range {
    Range { offset: 4096, length }
}

#[test]
fn one_piece_takes_the_plain_operation_and_several_the_vectored_one() {
    let check = |shift, lengths: &[usize], step, read, write| {
        let mut play = Play::new(CacheMode::None);
        let total = lengths.iter().sum::<usize>() as u64;
        for (request, code) in [(Request::Read(range(total)), read), (Request::Write(range(total)), write)] {
            let data = play.vectors(shift, lengths);
            let (steps, end) = play.take(request, data, &[total as i32]);
            assert_eq!(
                (steps, end),
                (vec![(step, code)], Some(Ok(()))),
                "{request} of {lengths:?} at {shift}"
            );
        }
    };
    check(0, &[4096], Step::Transfer, opcode::Read::CODE, WRITE_ONE);
    check(0, &[4096, 8192], Step::Transfer, opcode::Readv::CODE, opcode::Writev::CODE);
    check(1, &[4096], Step::Bounced, opcode::Read::CODE, WRITE_ONE);
    check(0, &[100, 412], Step::Bounced, opcode::Read::CODE, WRITE_ONE);
}

#[test]
fn the_page_cache_takes_memory_at_any_address() {
    let mut play = Play::new(CacheMode::Writeback);
    let data = play.vectors(1, &[100, 412]);
    let (steps, _) = play.take(Request::Read(range(512)), data, &[512]);
    assert_eq!(steps, vec![(Step::Transfer, opcode::Readv::CODE)]);
}

#[test]
fn a_short_transfer_goes_on_and_an_empty_one_fails() {
    let check = |results: &[i32], expected: Option<Result<(), &str>>| {
        for request in [Request::Read(range(8192)), Request::Write(range(8192))] {
            let mut play = Play::new(CacheMode::None);
            let data = play.vectors(0, &[4096, 4096]);
            let (steps, end) = play.take(request, data, results);
            assert_eq!(steps.len(), results.len());
            let matches = match (&end, expected) {
                (Some(Err(message)), Some(Err(words))) => message.contains(words),
                (Some(Ok(())), Some(Ok(()))) | (None, None) => true,
                _ => false,
            };
            assert!(matches, "{request} with {results:?} ended as {end:?}");
        }
    };
    check(&[8192], Some(Ok(())));
    check(&[512], None);
    check(&[512, 3584, 4096], Some(Ok(())));
    check(&[4096, 0], Some(Err("shorter")));
    check(&[0], Some(Err("shorter")));
    check(&[-libc::EIO], Some(Err("Input/output error")));
    check(&[4096, -libc::ENOSPC], Some(Err("No space left")));
    check(&[-libc::EINTR, -libc::EAGAIN, 8192], Some(Ok(())));
    check(&[-libc::EINTR, -libc::EINTR, -libc::EINTR], Some(Err("Interrupted")));
}

#[test]
fn a_flush_is_one_sync_whose_failure_is_told() {
    let mut play = Play::new(CacheMode::Writeback);
    assert_eq!(play.take(Request::Flush, vec![], &[0]), (vec![SYNC], Some(Ok(()))));
    let (steps, end) = play.take(Request::Flush, vec![], &[-libc::EIO]);
    assert_eq!(steps, vec![SYNC]);
    assert!(end.unwrap().unwrap_err().contains("Input/output error"));
}

#[test]
fn zeroes_fall_back_to_what_the_file_system_has() {
    let request = |may_unmap| Request::WriteZeroes { range: range(100 << 10), may_unmap };
    let none = -libc::EOPNOTSUPP;
    let (chunk, rest) = (64 << 10, 36 << 10);
    let check = |may_unmap, lasts: bool, results: &[i32], expected: &[(Step, u8)]| {
        let mut play = Play::new(CacheMode::Writeback);
        if lasts {
            play.disk.write_through();
        }
        let (steps, end) = play.take(request(may_unmap), vec![], results);
        assert_eq!((steps.as_slice(), end), (expected, Some(Ok(()))), "unmap {may_unmap}, {results:?}");
    };
    check(true, false, &[0], &[PUNCH]);
    check(false, false, &[0], &[ZERO]);
    check(true, true, &[0, 0], &[PUNCH, SYNC]);
    check(false, true, &[0, 0], &[ZERO, SYNC]);
    check(true, false, &[none, 0], &[PUNCH, ZERO]);
    check(true, false, &[none, none, chunk, rest], &[PUNCH, ZERO, ZEROS, ZEROS]);
    check(false, true, &[none, 512, chunk, rest - 512], &[ZERO, ZEROS, ZEROS, ZEROS]);
}

#[test]
fn what_a_file_system_lacks_is_tried_once() {
    let mut play = Play::new(CacheMode::Writeback);
    let zeroes = Request::WriteZeroes { range: range(4096), may_unmap: true };
    play.take(zeroes, vec![], &[-libc::EOPNOTSUPP, -libc::ENOSYS, 4096]);
    assert_eq!(play.take(zeroes, vec![], &[4096]).0, vec![ZEROS]);
    assert_eq!(play.take(Request::Discard(range(4096)), vec![], &[]), (vec![], Some(Ok(()))));
}

#[test]
fn a_discard_is_a_hint_unless_the_disk_fails() {
    let discard = Request::Discard(range(4096));
    let mut play = Play::new(CacheMode::Writeback);
    assert_eq!(play.take(discard, vec![], &[0]), (vec![PUNCH], Some(Ok(()))));
    assert!(play.take(discard, vec![], &[-libc::EIO]).1.unwrap().is_err());
    assert_eq!(play.take(discard, vec![], &[-libc::EOPNOTSUPP]), (vec![PUNCH], Some(Ok(()))));
}

#[test]
fn a_request_over_nothing_needs_nothing() {
    let mut play = Play::new(CacheMode::None);
    let nothing = Range { offset: 0, length: 0 };
    for request in [
        Request::Read(nothing),
        Request::Write(nothing),
        Request::Discard(nothing),
        Request::WriteZeroes { range: nothing, may_unmap: false },
        Request::Identify,
    ] {
        assert_eq!(play.take(request, vec![], &[]), (vec![], Some(Ok(()))), "{request}");
    }
}

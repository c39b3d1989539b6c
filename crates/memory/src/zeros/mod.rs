//! Giving pages of zeros back to the host under a guest that runs.
//!
//! A page that is there and holds nothing but zeros is worth nothing: without it the guest reads zeros too. What has to
//! be prevented is that somebody writes between the look at a page and its end. The guest, the VM's own threads and
//! the kernel on their behalf write through page tables; a disk's transfer that has begun writes to the page itself.
//! So a page is not merely protected but moved away (userfaultfd, `UFFDIO_MOVE`), which the kernel refuses for pages
//! that are pinned:
//!
//! ```text
//!  look ─▶ register the block ─▶ move pages of zeros to a place of ours ─▶ look again ─▶ unregister ─▶ drop them
//!                                                                             │              ▲
//!                                                                   not zeros └─▶ move back ─┘
//! ```
//!
//! Between the second step and the last but one, whoever touches a page that was moved waits: a vCPU, a thread of the
//! VM, a worker of the kernel. **Nobody waits for them in turn**: the thread that does this touches no page of the
//! block meanwhile, takes no lock, allocates nothing and sends no message; the place of ours is touched only where
//! pages have arrived. A block is 2 MiB, so the wait is a few milliseconds. The one lock, which keeps what is plugged
//! from being unplugged, is taken before anybody has to wait, and whoever else holds it touches no guest memory.
#![allow(unsafe_code)] // Pages are moved by address.

mod scratch;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, Instant};

use napa_sys::host::Root;
use napa_sys::own_memory::{Pagemap, Run, Seen, SwapAreas};
use napa_sys::userfaultfd::Userfaultfd;
use napa_units::{PAGE_SIZE, Pages};

use self::scratch::Scratch;
use crate::{PageStates, Piece};

/// Memory that is handled at once: a huge page, which moves whole if all of it is zeros.
const BLOCK: u64 = 2 << 20;
const PAGES_IN_BLOCK: usize = (BLOCK / PAGE_SIZE) as usize;
/// A block that is there whole may be a huge page, and that is worth more to the guest than a few pages to the host.
const WORTH_SPLITTING: usize = PAGES_IN_BLOCK / 8;
/// How often a page that is in use for a moment is tried before it is copied instead of moved back.
const MOVE_TRIES: u32 = 1000;
/// How long between two tries.
const MOVE_PAUSE: Duration = Duration::from_micros(100);

/// What looks for pages of zeros. Made before the sandbox closes.
#[derive(Debug)]
pub struct ZeroPages {
    /// Before the scratch memory: no range is registered any more when that goes.
    faults: Userfaultfd,
    pagemap: Pagemap,
    scratch: Scratch,
}

/// Whether a huge page is split so that a part of it can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splitting {
    /// Where an eighth of it or more is zeros.
    WhereItPays,
    /// It goes whole, or stays.
    Never,
}

impl Splitting {
    /// How many pages of zeros a huge page must have to be touched.
    const fn least(self) -> usize {
        match self {
            Self::WhereItPays => WORTH_SPLITTING,
            Self::Never => PAGES_IN_BLOCK,
        }
    }
}

/// How far a look at all pages has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The index of the page to go on from; the end of all indices at the end.
    pub at: Pages,
    /// Pages that were given back.
    pub given_back: Pages,
}

impl ZeroPages {
    /// Opens what it takes.
    ///
    /// # Errors
    /// This process may not handle page faults, or the kernel is too old (Linux 6.8).
    pub fn open(root: &Root) -> io::Result<Self> {
        let (faults, pagemap, scratch) = (Userfaultfd::open()?, Pagemap::open(root)?, Scratch::new()?);
        // SAFETY: the memory is our own, and no absent page of it is ever touched.
        unsafe { faults.register(scratch.start(), BLOCK)? };
        Ok(Self { faults, pagemap, scratch })
    }

    /// Gives pages of zeros of `states` back from the index `from` on, until all were looked at or it is `until`. They
    /// are not marked as discarded any more: the guest has used them since. Memory that began as the contents of a file
    /// is passed over: zeros in it may hide the file's bytes. What is plugged stays so while a block of it is looked at.
    ///
    /// # Errors
    /// The kernel does not show the pages, or somebody else handles their faults. Contents are as they were.
    pub fn give_back(
        &mut self,
        states: &PageStates,
        from: Pages,
        until: Instant,
        splitting: Splitting,
    ) -> (Progress, io::Result<()>) {
        let mut progress = Progress { at: from, given_back: Pages(0) };
        for piece in states.pieces(from.0..states.end()) {
            let end = piece.index + piece.count.0;
            progress.at = Pages(piece.index);
            while progress.at.0 < end {
                if Instant::now() >= until {
                    return (progress, Ok(()));
                }
                let first = progress.at.0;
                let block = Block::at(piece, first);
                let forget = |page: usize| states.forget_discard(first + page as u64);
                let looked = match states.began_as_file(first) {
                    true => None,
                    false => states.while_there(first, || self.give_back_in(block, splitting, forget)),
                };
                match looked.transpose() {
                    Ok(given_back) => progress.given_back.0 += given_back.unwrap_or_default(),
                    Err(error) => return (progress, Err(error)),
                }
                progress.at.0 += block.pages;
            }
        }
        progress.at = Pages(states.end());
        (progress, Ok(()))
    }

    /// Calls `each` with the place in the block of every page that is given back.
    fn give_back_in(&mut self, block: Block, splitting: Splitting, each: impl Fn(usize)) -> io::Result<u64> {
        let mut is_zero = [false; PAGES_IN_BLOCK];
        let there = self.look(block, &mut is_zero)?;
        let zeros = is_zero.iter().filter(|is_zero| **is_zero).count();
        if zeros == 0 || (there == PAGES_IN_BLOCK && zeros < splitting.least()) {
            return Ok(0);
        }
        // SAFETY: the block is guest memory, whose users may wait, and this thread touches none of it until the range
        // is not registered any more.
        unsafe { self.faults.register(block.start, block.pages * PAGE_SIZE)? };
        let moved = self.move_zeros(block, &is_zero);
        let given_back = self.keep_zeros(block, moved, each);
        let let_go = self.faults.unregister(block.start, block.pages * PAGE_SIZE);
        self.scratch.clear()?;
        let_go.map(|()| given_back)
    }

    /// Finds pages that are there and hold zeros; returns how many are there.
    fn look(&self, block: Block, is_zero: &mut [bool; PAGES_IN_BLOCK]) -> io::Result<usize> {
        let (mut page, mut there) = (0, 0);
        let mut each = |run: Run| {
            let pages = page..page + run.pages;
            page = pages.end;
            if matches!(run.seen, Seen::Present | Seen::PresentOrZeros) {
                there += run.pages as usize;
                for page in pages {
                    // SAFETY: the page lies in the block, which is mapped; if it has gone meanwhile it reads as zeros.
                    is_zero[page as usize] = unsafe { holds_zeros(block.start + page * PAGE_SIZE) };
                }
            }
        };
        self.pagemap.look(block.start, block.pages, SwapAreas::Alike, &mut each)?;
        Ok(there)
    }

    /// Moves what seemed to be zeros to the scratch memory; returns which pages have arrived there.
    fn move_zeros(&self, block: Block, is_zero: &[bool; PAGES_IN_BLOCK]) -> [bool; PAGES_IN_BLOCK] {
        let mut moved = [false; PAGES_IN_BLOCK];
        for_each_run(is_zero, |first, end| {
            let mut at = first;
            while at < end {
                let offset = at as u64 * PAGE_SIZE;
                let (from, to) = (block.start + offset, self.place(block, at));
                // SAFETY: the page is guest memory whose users wait from now on, and the scratch memory is ours.
                match unsafe { self.faults.move_pages(to, from, (end - at) as u64 * PAGE_SIZE) } {
                    Ok(bytes) => {
                        let arrived = (bytes / PAGE_SIZE) as usize;
                        moved[at..at + arrived].fill(true);
                        at += arrived;
                    }
                    // Pinned, merged, gone or in use: it stays.
                    Err(_) => at += 1,
                }
            }
        });
        moved
    }

    /// Puts back what is not zeros after all, and calls `each` with every page that is; returns how many are.
    fn keep_zeros(&self, block: Block, moved: [bool; PAGES_IN_BLOCK], each: impl Fn(usize)) -> u64 {
        let mut given_back = 0;
        for page in (0..PAGES_IN_BLOCK).filter(|page| moved[*page]) {
            let place = self.place(block, page);
            // SAFETY: the page has arrived in the scratch memory, which nobody else uses.
            if unsafe { holds_zeros(place) } {
                each(page);
                given_back += 1;
            } else {
                self.put_back(block.start + page as u64 * PAGE_SIZE, place);
            }
        }
        given_back
    }

    fn put_back(&self, to: u64, from: u64) {
        for _ in 0..MOVE_TRIES {
            // SAFETY: the page came from there, and whoever wants it waits.
            if unsafe { self.faults.move_pages(to, from, PAGE_SIZE) }.is_ok() {
                return;
            }
            std::thread::sleep(MOVE_PAUSE);
        }
        // Whoever waits for the page waits on: nobody may see zeros in its place.
        // SAFETY: as above.
        while unsafe { self.faults.copy(to, from, PAGE_SIZE) }.is_err() {
            std::thread::sleep(MOVE_PAUSE);
        }
    }

    /// Where a page of the block is moved to: a huge page needs a place of the same alignment.
    fn place(&self, block: Block, page: usize) -> u64 {
        self.scratch.start() + (block.start + page as u64 * PAGE_SIZE) % BLOCK
    }
}

/// A part of guest memory that does not cross a boundary between huge pages.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Its address in this process.
    start: u64,
    pages: u64,
}

impl Block {
    /// The block from the page with this index on, which lies in the piece.
    fn at(piece: Piece, index: u64) -> Self {
        let before = index - piece.index;
        let start = piece.start + before * PAGE_SIZE;
        let pages = ((BLOCK - start % BLOCK) / PAGE_SIZE).min(piece.count.0 - before);
        Self { start, pages }
    }
}

/// # Safety
/// The address is that of a page that is mapped to be read. Others may write to it meanwhile.
unsafe fn holds_zeros(page: u64) -> bool {
    let words = page as *const u64;
    (0..(PAGE_SIZE / 8) as usize).all(|word| {
        // SAFETY: the word lies in the page.
        let word = unsafe { words.add(word) };
        // SAFETY: as the caller says; volatile, because what others write is not known to the compiler.
        unsafe { word.read_volatile() == 0 }
    })
}

/// Calls `each` with the first and the end of every run of pages that are set.
fn for_each_run(pages: &[bool; PAGES_IN_BLOCK], mut each: impl FnMut(usize, usize)) {
    let mut at = 0;
    while at < PAGES_IN_BLOCK {
        let end = at + pages[at..].iter().take_while(|is_set| **is_set).count();
        if end > at {
            each(at, end);
        }
        at = end + 1;
    }
}

//! Pages with known contents: writing them, and checking every word of them.

#![allow(unsafe_code, reason = "visits pages by their addresses")]

use crate::arena::Arena;
use crate::crew::Worker;
use crate::failure::{CODE_CORRUPT, Failure};
use crate::print_line;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_logic::memory_map::PageSet;
use guest_logic::pattern::{self, Mismatch, Page};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// `CORRUPT` lines at most: each costs the host an exit per few bytes.
const LINES_MAX: u64 = 16;

/// How often each page was written, and how often one was wrong.
pub struct Ledger<'a> {
    generations: &'a [AtomicU32],
    corrupt: AtomicU64,
}

/// What pages contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// The pattern of this seed, the page's number and its generation.
    Pattern(u64),
    /// The pattern, of the first seed for so many pages in a hundred, of the second for the others.
    Mixed {
        /// What is the same in other guests.
        common: u64,
        /// What is not.
        own: u64,
        /// Pages in a hundred that are common.
        percent: u64,
    },
    /// Zeros.
    Zero,
}

impl Contents {
    /// None: the page is zero.
    fn seed(self, page: u64) -> Option<u64> {
        match self {
            Self::Pattern(seed) => Some(seed),
            Self::Mixed { common, own, percent } => Some(if page % 100 < percent { common } else { own }),
            Self::Zero => None,
        }
    }
}

/// The pages and what they should hold. Each processor owns a share of the pages, so no page is visited by two.
pub struct Field<'a> {
    /// The pages.
    pub pages: &'a PageSet,
    /// How often they were written.
    pub ledger: &'a Ledger<'a>,
    /// What they contain.
    pub contents: Contents,
}

/// What a visit does after the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Leave,
    /// Writes the page anew.
    Rewrite,
}

impl<'a> Ledger<'a> {
    /// For `pages` pages, none of them written.
    pub fn new(arena: &'a Arena, pages: u64) -> Result<Self, Failure> {
        let generations = arena.slice::<AtomicU32>(pages as usize, 64)?;
        Ok(Self { generations, corrupt: AtomicU64::new(0) })
    }

    /// A failure if any page was wrong.
    pub fn verdict(&self) -> Result<(), Failure> {
        match self.corrupt.load(Ordering::Relaxed) {
            0 => Ok(()),
            count => {
                let reason = format_args!("{count} visits found a page that is not as written");
                Err(Failure::new(CODE_CORRUPT, reason))
            }
        }
    }
}

impl Field<'_> {
    /// Writes each page of the worker's share. Returns early if an operation was the last.
    pub fn fill(&self, worker: &Worker) {
        let (first, end) = worker.share(self.pages.pages());
        for page in first..end {
            if !worker.operation(|| self.write(page)) {
                return;
            }
        }
    }

    /// Visits each page of the worker's share in order, once. False if an operation was the last.
    pub fn visit_all(&self, worker: &Worker, after: After) -> bool {
        let (first, end) = worker.share(self.pages.pages());
        (first..end).all(|page| worker.operation(|| self.visit(page, after)))
    }

    /// The words of `page`. The processor that owns the page's share is the only caller for it.
    #[allow(clippy::mut_from_ref, reason = "each page belongs to one processor")]
    fn words(&self, page: u64) -> &mut Page {
        let address = self.pages.address(page).expect("shares end at the number of pages");
        // The optimiser must not know what was written here before: memory itself is under test.
        let words = core::hint::black_box(address as *mut Page);
        // SAFETY: a mapped page that the arena handed to this workload alone; no other processor visits it, and no
        // reference to it outlives a visit.
        unsafe { &mut *words }
    }

    fn generation(&self, page: u64) -> &AtomicU32 {
        &self.ledger.generations[page as usize]
    }

    /// Writes the next generation.
    pub fn write(&self, page: u64) {
        let generation = self.generation(page).load(Ordering::Relaxed).wrapping_add(1);
        self.generation(page).store(generation, Ordering::Relaxed);
        let words = self.words(page);
        match self.contents.seed(page) {
            Some(seed) => pattern::fill(words, pattern::first_word(seed, page, generation)),
            None => words.fill(0),
        }
    }

    fn check(&self, page: u64) -> Result<(), Mismatch> {
        let generation = self.generation(page).load(Ordering::Relaxed);
        match self.contents.seed(page) {
            Some(seed) => pattern::check(self.words(page), pattern::first_word(seed, page, generation)),
            None => pattern::check_zero(self.words(page)),
        }
    }

    /// Checks what is there, then goes on as told. A page that is wrong is reported and written anew.
    pub fn visit(&self, page: u64, after: After) {
        if let Err(mismatch) = self.check(page) {
            self.report(page, mismatch);
            self.write(page);
        } else if after == After::Rewrite {
            self.write(page);
        }
    }

    #[cold]
    fn report(&self, page: u64, mismatch: Mismatch) {
        if self.ledger.corrupt.fetch_add(1, Ordering::Relaxed) < LINES_MAX {
            let address = (&raw const self.words(page)[mismatch.word]) as u64;
            let generation = self.generation(page).load(Ordering::Relaxed);
            print_line!(
                "CORRUPT address={address:#x} expected={:#x} found={:#x} page={page} generation={generation}",
                mismatch.expected,
                mismatch.found
            );
        }
    }
}

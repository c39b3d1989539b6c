//! What becomes of a process whose memory the host cannot give any more (SIGBUS): it says which memory, gives back what
//! others would stumble over, and ends.
//!
//! A file that is mapped has shrunk, its disk or the swap cannot be read, or a memory module is broken. The thread that
//! came to such a page cannot go on, nothing can be put in the page's place that the guest would not take for its own
//! data, and other threads may wait for this one: so the end is at once, like that of a process that is killed. Works
//! inside the sandbox and allocates nothing.
#![allow(unsafe_code)] // Signal handlers are reached through libc.

use std::fmt::{self, Write};
use std::io::{Error, Result};
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// A line is cut there.
const LINE_BYTES: usize = 512;

/// Memory of this process that a fault can be told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it is in this process.
    pub addresses: Range<u64>,
    /// Where the guest has it.
    pub guest_start: u64,
    /// Whether it is a file that is mapped, or memory that may be in swap.
    pub content: Content,
}

/// What is behind memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Anonymous memory of the guest.
    Ram,
    /// The file of an image.
    Image,
}

impl Content {
    /// Why the host may have no page there, and where to look.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Ram => "it cannot be read back from swap, and dmesg tells why",
            Self::Image => "the image of a --pmem has shrunk, or its disk cannot be read",
        }
    }
}

/// The places that are known; leaked when they are replaced, which is once for each start of the guest, because a handler
/// may be reading them.
static PLACES: AtomicPtr<Vec<Place>> = AtomicPtr::new(null_mut());
static CODE: AtomicU32 = AtomicU32::new(1);
static CLEAN_UP: AtomicPtr<CleanUp> = AtomicPtr::new(null_mut());
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// What is done before the end. It runs in a signal handler: it may make system calls, and try locks, but neither wait
/// for one nor allocate.
pub type CleanUp = fn();

/// Lets this process end with `code`, after `clean_up` and a line about it, when it comes to memory that the host has
/// lost. Threads that were started before as well.
///
/// # Errors
/// The kernel refused the handler.
pub fn end_with(code: u8, clean_up: CleanUp) -> Result<()> {
    CODE.store(code.into(), Ordering::Relaxed);
    CLEAN_UP.store(Box::into_raw(Box::new(clean_up)), Ordering::Release);
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the mask is a part of `action`. Nothing but the end comes after the handler.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    // SAFETY: `action` is initialised, and its handler makes no use of what a signal may have interrupted.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) };
    if result != 0 {
        return Err(Error::last_os_error());
    }
    protect_process();
    protect_thread();
    Ok(())
}

/// Keeps in memory what the handler needs in the calling thread: where swap fails, a handler whose own stack is in it
/// cannot say anything. To be called by each thread at its start; without the right to lock memory nothing changes.
pub fn protect_thread() {
    // SAFETY: all-zero is a valid stack_t.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks for the stack that signal handlers of this thread have, and changes nothing.
    if unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) } == 0 && !stack.ss_sp.is_null() {
        lock(stack.ss_sp.cast_const(), stack.ss_size);
    }
    // The kernel writes there each time it lets the thread go on, and ends the process by SIGSEGV if it cannot
    // (rseq(2), registered by the C library).
    // SAFETY: gives the address of the thread's own descriptor, to which the offset is relative.
    let own = unsafe { libc::pthread_self() } as usize;
    // SAFETY: the C library writes it once, before the program starts.
    let offset = unsafe { __rseq_offset };
    lock(own.wrapping_add_signed(offset) as *const libc::c_void, RSEQ_BYTES);
}

/// Bytes of the kernel's `struct rseq`, aligned to as many.
const RSEQ_BYTES: usize = 32;

unsafe extern "C" {
    /// Where a thread's `struct rseq` is, from its descriptor (glibc 2.35 and newer, `sys/rseq.h`).
    static __rseq_offset: isize;
}

/// Keeps what all threads' handlers need in memory. Before the sandbox closes.
fn protect_process() {
    lock(CLEAN_UP.load(Ordering::Acquire).cast(), size_of::<CleanUp>());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let here = (&raw const IS_ENDING) as u64;
    // The variables of the program, and what follows them without a gap.
    let mut end = None;
    for range in maps.lines().filter_map(writable_range) {
        if range.contains(&here) || end == Some(range.start) {
            lock(range.start as *const libc::c_void, (range.end - range.start) as usize);
            end = Some(range.end);
        }
    }
}

/// The addresses of a private mapping that can be written, from a line of `/proc/self/maps` (proc_pid_maps(5)).
fn writable_range(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let is_heap = line.ends_with("[heap]");
    (words.next()? == "rw-p" && !is_heap).then_some(())?;
    Some(number(start)?..number(end)?)
}

fn lock(start: *const libc::c_void, bytes: usize) {
    // SAFETY: the range is mapped, and locking changes nothing but that it stays in memory. Without the right to do so it
    // may go, as before.
    let _ = unsafe { libc::mlock(start, bytes) };
}

/// Says where the guest's memory is, in place of what was said before.
pub fn name_places(places: Vec<Place>) {
    lock(places.as_ptr().cast(), size_of_val(places.as_slice()));
    let places = Box::into_raw(Box::new(places));
    lock(places.cast_const().cast(), size_of::<Vec<Place>>());
    PLACES.store(places, Ordering::Release);
}

extern "C" fn on_fault(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives the handler what it knows of the signal.
    let info = unsafe { &*info };
    let code = info.si_code;
    if code <= 0 {
        return die_of_it();
    }
    if IS_ENDING.swap(true, Ordering::Relaxed) {
        // Another thread is about to end the process.
        loop {
            std::thread::yield_now();
        }
    }
    // SAFETY: a fault has an address.
    let address = unsafe { info.si_addr() } as u64;
    let clean_up = CLEAN_UP.load(Ordering::Acquire);
    // SAFETY: the pointer is that of a box that is never freed.
    if let Some(clean_up) = unsafe { clean_up.as_ref() } {
        clean_up();
    }
    let places = PLACES.load(Ordering::Acquire);
    // SAFETY: as above.
    let places = unsafe { places.as_ref() }.map_or(&[][..], Vec::as_slice);
    let mut line = Line::default();
    // What does not fit is cut.
    let _ = describe(&mut line, address, is_broken(code), places);
    let text = line.finish();
    // SAFETY: the text is this function's own.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(CODE.load(Ordering::Relaxed) as i32) }
}

/// Somebody has sent the signal: what it does by itself is what he wants.
fn die_of_it() {
    // SAFETY: the default action has no handler to be called.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    // SAFETY: the signal is delivered to this thread once its handler has returned.
    unsafe { libc::raise(libc::SIGBUS) };
}

/// Whether the processor has found the memory to be broken.
fn is_broken(code: i32) -> bool {
    matches!(code, libc::BUS_MCEERR_AR | libc::BUS_MCEERR_AO)
}

fn describe(line: &mut impl Write, address: u64, is_broken: bool, places: &[Place]) -> fmt::Result {
    let place = places.iter().find(|place| place.addresses.contains(&address));
    let has_no_page = match is_broken {
        true => "the host's memory is broken at",
        false => "the host has no page for",
    };
    let cause = |other| if is_broken { "dmesg names the module" } else { other };
    match place {
        Some(place) => {
            let guest = place.guest_start + (address - place.addresses.start);
            let cause = cause(place.content.cause());
            writeln!(line, "napa: {has_no_page} the guest's address {guest:#x}: {cause}; the VM has ended")
        }
        None => {
            let cause = cause("a disk or the swap cannot be read, and dmesg tells why");
            writeln!(line, "napa: {has_no_page} its own address {address:#x}: {cause}; the VM has ended")
        }
    }
}

/// A line in a place of its own.
struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; LINE_BYTES], length: 0 }
    }
}

impl Line {
    fn finish(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let rest = &mut self.bytes[self.length..];
        let count = text.len().min(rest.len());
        rest[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        if count == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_memory_and_why() {
        let places = [
            Place { addresses: 0x1000..0x3000, guest_start: 0x10_0000, content: Content::Ram },
            Place { addresses: 0x8000..0x9000, guest_start: 1 << 32, content: Content::Image },
        ];
        for (address, is_broken, expected) in [
            (0x2008, false, "no page for the guest's address 0x101008: it cannot be read back from swap"),
            (0x8000, false, "no page for the guest's address 0x100000000: the image of a --pmem has shrunk"),
            (0x8000, true, "memory is broken at the guest's address 0x100000000: dmesg names the module"),
            (0x3000, false, "no page for its own address 0x3000: a disk or the swap"),
        ] {
            let mut line = Line::default();
            describe(&mut line, address, is_broken, &places).unwrap();
            let text = std::str::from_utf8(line.finish()).unwrap();
            assert!(text.contains(expected) && text.ends_with("the VM has ended\n"), "{text}");
        }
    }

    #[test]
    fn a_program_s_own_variables_are_found() {
        for (line, expected) in [
            ("00a1c000-00a2d000 rw-p 0081c000 fe:00 42   /usr/bin/napa", Some(0xa1_c000..0xa2_d000)),
            ("00a2d000-00a31000 rw-p 00000000 00:00 0 ", Some(0xa2_d000..0xa3_1000)),
            ("01b00000-01b22000 rw-p 00000000 00:00 0    [heap]", None),
            ("00400000-00a1c000 r-xp 00000000 fe:00 42   /usr/bin/napa", None),
            ("", None),
        ] {
            assert_eq!(writable_range(line), expected, "{line}");
        }
    }

    #[test]
    fn what_does_not_fit_in_a_line_is_cut() {
        let mut line = Line::default();
        assert!(line.write_str(&"x".repeat(LINE_BYTES)).is_ok());
        assert!(line.write_str("y").is_err());
        assert_eq!(line.finish(), "x".repeat(LINE_BYTES).as_bytes());
    }
}

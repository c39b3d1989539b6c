//! The host's wish that the guest end in an orderly way: bit 0 of I/O port 0x604, announced by interrupt 9.

use crate::{interrupts, port};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const STOP_REQUEST: u16 = 0x604;
const REQUESTED: u8 = 1;
const ABSENT: u8 = 0xff;

static LISTENING: AtomicBool = AtomicBool::new(false);
static REQUEST_SEEN: AtomicBool = AtomicBool::new(false);
static INTERRUPTS_SEEN: AtomicU64 = AtomicU64::new(0);

/// Listens, unless the port belongs to the power management block of another machine.
pub fn start(pm1_control_port: Option<u16>) {
    LISTENING.store(pm1_control_port != Some(STOP_REQUEST), Ordering::Relaxed);
}

/// Asks the host. An exit: once a second is often enough.
pub fn ask() -> bool {
    if LISTENING.load(Ordering::Relaxed) {
        let state = port::read_u8(STOP_REQUEST);
        if state != ABSENT && state & REQUESTED != 0 {
            REQUEST_SEEN.store(true, Ordering::Relaxed);
        }
    }
    requested()
}

/// Asks the host if its interrupt came since the last call; cheap otherwise.
pub fn announced() -> bool {
    let count = interrupts::count(interrupts::VECTOR_STOP);
    if INTERRUPTS_SEEN.swap(count, Ordering::Relaxed) == count { requested() } else { ask() }
}

/// Whether a stop was requested, as far as is known.
pub fn requested() -> bool {
    REQUEST_SEEN.load(Ordering::Relaxed)
}

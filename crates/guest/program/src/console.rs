//! Lines of text on the serial line, whole even when several processors write.

use crate::serial;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

static BUSY: AtomicBool = AtomicBool::new(false);
static PANICKING: AtomicBool = AtomicBool::new(false);
/// Looks at a busy line before a panic writes to it nevertheless: its owner may be the one that panics.
const LOOKS_MAX: u32 = 1_000_000;

/// Collects text and hands it on in pieces.
struct Buffer {
    bytes: [u8; 128],
    length: usize,
}

impl Buffer {
    fn flush(&mut self) {
        serial::write(&self.bytes[..self.length]);
        self.length = 0;
    }
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// Writes one line.
pub fn line(text: fmt::Arguments) {
    while BUSY.swap(true, Ordering::Acquire) && !PANICKING.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    let mut buffer = Buffer { bytes: [0; 128], length: 0 };
    // A formatter that fails leaves the line short; there is no other place to say so.
    let _ = buffer.write_fmt(text);
    let _ = buffer.write_str("\r\n");
    buffer.flush();
    BUSY.store(false, Ordering::Release);
}

/// Waits a while for the line to be free, then takes it from whoever has it: for the last words of a guest.
pub fn seize() {
    let free = |_: &u32| !BUSY.load(Ordering::Relaxed);
    let _ = (0..LOOKS_MAX).inspect(|_| core::hint::spin_loop()).find(free);
    PANICKING.store(true, Ordering::Relaxed);
}

/// Writes one line, formatted as by `format!`.
#[macro_export]
macro_rules! print_line {
    ($($argument:tt)*) => { $crate::console::line(format_args!($($argument)*)) };
}

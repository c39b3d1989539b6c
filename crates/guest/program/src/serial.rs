//! The 16550 on COM1, written to without interrupts.

use crate::port;

const DATA: u16 = 0x3f8;
const FIFO_CONTROL: u16 = DATA + 2;
const LINE_STATUS: u16 = DATA + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes that an empty transmitter takes.
const FIFO_BYTES: usize = 16;
/// Looks at a busy transmitter before its state is ignored, minutes on any host: what the guest says is its result, and a
/// slow reader should slow it down; a line that is stuck for ever should not keep it from ending.
const LOOKS_MAX: u32 = 100_000_000;

/// Switches the FIFOs on.
pub fn start() {
    // Enable; clearing them would drop the banner's first letter.
    port::write_u8(FIFO_CONTROL, 1);
}

/// Writes `bytes`, a FIFO at a time.
pub fn write(bytes: &[u8]) {
    for chunk in bytes.chunks(FIFO_BYTES) {
        for _ in 0..LOOKS_MAX {
            if port::read_u8(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
                break;
            }
            core::hint::spin_loop();
        }
        // Not by a string instruction: hosts take it byte by byte too, on a slower path.
        chunk.iter().for_each(|&byte| port::write_u8(DATA, byte));
    }
}

//! The I/O APIC: one pin, for the host's stop request.

use crate::interrupts::VECTOR_STOP;
use crate::physical::Registers;
use crate::port;
use guest_logic::acpi::Platform;

const SELECT: u64 = 0;
const WINDOW: u64 = 0x10;
const REDIRECTION: u32 = 0x10;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;
const STOP_INTERRUPT: u32 = 9;
const OLD_CONTROLLERS: [u16; 2] = [0x21, 0xa1];

/// Masks the old interrupt controllers: unprogrammed, they would interrupt with the numbers of exceptions.
pub fn silence_old_controllers() {
    for mask in OLD_CONTROLLERS {
        port::write_u8(mask, 0xff);
    }
}

/// Routes interrupt 9 to the processor `apic_id`. Without an I/O APIC the stop request is only polled.
pub fn route_stop_request(platform: &Platform, apic_id: u32) {
    let Some(io_apic) = platform.io_apic else { return };
    let route = platform.interrupt_9;
    let interrupt = route.map_or(STOP_INTERRUPT, |route| route.interrupt);
    let Some(pin) = interrupt.checked_sub(io_apic.first_interrupt).filter(|&pin| pin < 24) else { return };
    let mut low = u32::from(VECTOR_STOP);
    if route.is_some_and(|route| route.level) {
        low |= LEVEL;
    }
    if route.is_some_and(|route| route.low) {
        low |= ACTIVE_LOW;
    }
    let registers = Registers::new(io_apic.address, 0x20);
    let write = |register, value| {
        registers.write_u32(SELECT, register);
        registers.write_u32(WINDOW, value);
    };
    write(REDIRECTION + 2 * pin + 1, apic_id << 24);
    write(REDIRECTION + 2 * pin, low);
}

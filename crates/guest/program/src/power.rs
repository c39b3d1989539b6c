//! The ways to end: exit code, ACPI power-off and reset, and what happens after a panic.

use crate::failure::CODE_PANIC;
use crate::{physical, port, print_line, services};
use guest_logic::acpi::{Platform, Register, SleepRegister};

/// The exit port: a 32-bit write ends the machine with that code (0 to 255).
const EXIT: u16 = 0xf4;
/// The pvpanic device (QEMU, docs/specs/pvpanic.rst).
const PVPANIC: u16 = 0x505;
const PVPANIC_PANICKED: u8 = 1;
const RESET_CONTROL: u16 = 0xcf9;
const RESET_CONTROL_HARD: u8 = 0x06;
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

/// Ends the machine with `code`; where nothing listens to the exit port, halts for ever.
pub fn exit(code: u8) -> ! {
    print_line!("DONE code={code}");
    port::write_u32(EXIT, u32::from(code));
    services::stop()
}

/// Tells the host that the guest panicked, then ends the machine in the strongest way there is.
pub fn panicked() -> ! {
    port::write_u8(PVPANIC, PVPANIC_PANICKED);
    print_line!("DONE code={CODE_PANIC}");
    port::write_u32(EXIT, u32::from(CODE_PANIC));
    services::triple_fault()
}

/// Restarts the machine: by ACPI, else by the chipset, the keyboard controller, and finally a triple fault.
pub fn reboot(platform: &Platform) -> ! {
    if let Some(reset) = platform.reset {
        write_register(reset.register, reset.value);
    }
    port::write_u8(RESET_CONTROL, RESET_CONTROL_HARD);
    port::write_u8(KEYBOARD_COMMAND, KEYBOARD_RESET);
    services::triple_fault()
}

/// Switches the machine off by ACPI S5. Returns if there is no register for it, or it did not work.
pub fn power_off(platform: &Platform) {
    match platform.sleep {
        Some(SleepRegister::Control(register, value)) => write_register(register, value),
        Some(SleepRegister::Pm1(port, value)) => port::write_u16(port, value),
        None => {}
    }
}

fn write_register(register: Register, value: u8) {
    match register {
        Register::Port(port) => port::write_u8(port, value),
        Register::Memory(address) => physical::write_register_u8(address, value),
    }
}

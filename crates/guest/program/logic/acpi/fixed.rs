//! The registers that end and restart the machine (ACPI 6.5 §5.2.9, §4.8.3.6, §4.8.3.7).

use super::{ConfigurationSpace, Platform, base_address, sleep_type, tables};
use crate::start_info::{PhysicalMemory, u32_at, u64_at};

const DSDT: usize = 40;
const PM1A_CONTROL: usize = 64;
const FLAGS: usize = 112;
const RESET_REGISTER: usize = 116;
const RESET_VALUE: usize = 128;
const X_DSDT: usize = 140;
const X_PM1A_CONTROL: usize = 172;
const SLEEP_CONTROL: usize = 244;
const FLAG_RESET_SUPPORTED: u32 = 1 << 10;
const FLAG_HARDWARE_REDUCED: u32 = 1 << 20;

/// A register in one of the two address spaces this guest can reach (ACPI 6.5 §5.2.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// An I/O port.
    Port(u16),
    /// A guest-physical address.
    Memory(u64),
}

/// Writing `value` (a byte) to `register` restarts the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetRegister {
    /// Where.
    pub register: Register,
    /// What.
    pub value: u8,
}

/// How to enter S5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepRegister {
    /// The sleep control register of a hardware-reduced machine, and the byte for it.
    Control(Register, u8),
    /// The PM1a control port, and the 16-bit word for it.
    Pm1(u16, u16),
}

pub(super) fn read(memory: &impl PhysicalMemory, fadt: &[u8], platform: &mut Platform) {
    let flags = u32_at(fadt, FLAGS);
    if flags & FLAG_RESET_SUPPORTED != 0
        && let Some(register) = generic_address(fadt, RESET_REGISTER)
    {
        platform.reset = Some(ResetRegister { register, value: fadt.get(RESET_VALUE).copied().unwrap_or(0) });
    }
    platform.pm1_control_port = pm1_control(fadt);
    let Some(dsdt) = dsdt(memory, fadt) else { return };
    if platform.configuration_space.is_none() {
        platform.configuration_space =
            base_address::of_root(dsdt).map(|address| ConfigurationSpace { address, first_bus: 0 });
    }
    let Some(sleep_type) = sleep_type::of_s5(dsdt) else { return };
    platform.sleep = if flags & FLAG_HARDWARE_REDUCED != 0 {
        // SLP_TYP is bits 2 to 4, SLP_EN bit 5.
        generic_address(fadt, SLEEP_CONTROL)
            .map(|at| SleepRegister::Control(at, (sleep_type & 7) << 2 | 1 << 5))
    } else {
        // SLP_TYP is bits 10 to 12, SLP_EN bit 13, SCI_EN bit 0.
        platform
            .pm1_control_port
            .map(|port| SleepRegister::Pm1(port, u16::from(sleep_type & 7) << 10 | 1 << 13 | 1))
    };
}

fn pm1_control(fadt: &[u8]) -> Option<u16> {
    match generic_address(fadt, X_PM1A_CONTROL) {
        Some(Register::Port(port)) => Some(port),
        _ => u16::try_from(u32_at(fadt, PM1A_CONTROL)).ok().filter(|&port| port != 0),
    }
}

fn dsdt<'a>(memory: &'a impl PhysicalMemory, fadt: &[u8]) -> Option<&'a [u8]> {
    let wide = u64_at(fadt, X_DSDT);
    let address = if wide == 0 { u64::from(u32_at(fadt, DSDT)) } else { wide };
    tables::table(memory, address, *b"DSDT")
}

fn generic_address(fadt: &[u8], offset: usize) -> Option<Register> {
    let space = *fadt.get(offset)?;
    fadt.get(offset..offset + 12)?;
    match (space, u64_at(fadt, offset + 4)) {
        (_, 0) => None,
        (0, address) => Some(Register::Memory(address)),
        (1, address) => u16::try_from(address).ok().map(Register::Port),
        _ => None,
    }
}

//! Processors and interrupt routing (ACPI 6.5 §5.2.12).

use super::{Platform, tables::HEADER_BYTES};
use crate::start_info::{u32_at, u64_at};

/// Processors this guest uses at most; what is beyond stays off.
pub const PROCESSORS_MAX: usize = 64;

const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const OVERRIDE: u8 = 2;
const LOCAL_X2APIC: u8 = 9;
const ENABLED: u32 = 1;

/// An I/O APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoApic {
    /// Address of its registers.
    pub address: u64,
    /// The global interrupt of its first pin.
    pub first_interrupt: u32,
}

/// How an ISA interrupt reaches the I/O APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterruptOverride {
    /// The global interrupt.
    pub interrupt: u32,
    /// Level-triggered instead of edge-triggered.
    pub level: bool,
    /// Active low instead of active high.
    pub low: bool,
}

pub(super) fn read(madt: &[u8], platform: &mut Platform) {
    let mut rest = madt.get(HEADER_BYTES + 8..).unwrap_or_default();
    while let [kind, length, ..] = *rest {
        let length = usize::from(length);
        if length < 2 || length > rest.len() {
            return;
        }
        let (entry, next) = rest.split_at(length);
        add(kind, entry, platform);
        rest = next;
    }
}

fn add(kind: u8, entry: &[u8], platform: &mut Platform) {
    match (kind, entry.len()) {
        (LOCAL_APIC, 8..) if u32_at(entry, 4) & ENABLED != 0 => processor(u32::from(entry[3]), platform),
        (LOCAL_X2APIC, 16..) if u32_at(entry, 8) & ENABLED != 0 => processor(u32_at(entry, 4), platform),
        (IO_APIC, 12..) if u32_at(entry, 8) == 0 => {
            platform.io_apic = Some(IoApic { address: u64_at(entry, 4) & 0xffff_ffff, first_interrupt: 0 });
        }
        (OVERRIDE, 10..) if entry[3] == 9 => {
            let flags = entry[8];
            platform.interrupt_9 = Some(InterruptOverride {
                interrupt: u32_at(entry, 4),
                low: flags & 0b11 == 0b11,
                level: flags & 0b1100 == 0b1100,
            });
        }
        _ => {}
    }
}

fn processor(apic_id: u32, platform: &mut Platform) {
    if !platform.processors.contains(&apic_id) && !platform.processors.is_full() {
        platform.processors.push(apic_id).expect("there is room");
    }
}

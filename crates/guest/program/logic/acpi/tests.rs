//! Tables built by hand and walked; then damaged.

use super::*;
use crate::start_info::tests::Flat;
use proptest::prelude::*;
use std::vec::Vec;

const RSDP: usize = 0x100;
const XSDT: usize = 0x200;
const MADT: usize = 0x300;
const MCFG: usize = 0x400;
const FADT: usize = 0x500;
const DSDT: usize = 0x700;

fn seal(bytes: &mut [u8], checksum: usize) {
    bytes[checksum] = 0;
    bytes[checksum] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
}

fn put_table(memory: &mut [u8], address: usize, signature: &[u8; 4], body: &[u8]) {
    let length = tables::HEADER_BYTES + body.len();
    let table = &mut memory[address..address + length];
    table[..4].copy_from_slice(signature);
    table[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    table[tables::HEADER_BYTES..].copy_from_slice(body);
    seal(table, 9);
}

fn madt_body() -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    body.extend([0, 8, 1, 1, 1, 0, 0, 0]);
    body.extend([0, 8, 2, 2, 0, 0, 0, 0]);
    body.extend([9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
    body.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0]);
    body
}

fn fadt_body(flags: u32) -> Vec<u8> {
    let mut table = vec![0; 268];
    table[40..44].copy_from_slice(&(DSDT as u32).to_le_bytes());
    table[64..68].copy_from_slice(&0x604_u32.to_le_bytes());
    table[112..116].copy_from_slice(&flags.to_le_bytes());
    table[116] = 1;
    table[120..128].copy_from_slice(&0xcf9_u64.to_le_bytes());
    table[128] = 6;
    table[244] = 0;
    table[248..256].copy_from_slice(&0xfea0_0000_u64.to_le_bytes());
    table.split_off(tables::HEADER_BYTES)
}

fn machine(flags: u32) -> Flat {
    let mut memory = vec![0; 0x800];
    memory[RSDP..RSDP + 8].copy_from_slice(b"RSD PTR ");
    memory[RSDP + 15] = 2;
    memory[RSDP + 24..RSDP + 32].copy_from_slice(&(XSDT as u64).to_le_bytes());
    seal(&mut memory[RSDP..RSDP + 20], 8);
    let entries: Vec<u8> =
        [MADT, MCFG, FADT].iter().flat_map(|&table| (table as u64).to_le_bytes()).collect();
    put_table(&mut memory, XSDT, b"XSDT", &entries);
    put_table(&mut memory, MADT, b"APIC", &madt_body());
    let mut mcfg = vec![0; 24];
    mcfg[8..16].copy_from_slice(&0xe000_0000_u64.to_le_bytes());
    put_table(&mut memory, MCFG, b"MCFG", &mcfg);
    put_table(&mut memory, FADT, b"FACP", &fadt_body(flags));
    put_table(&mut memory, DSDT, b"DSDT", b"\x08_S5_\x12\x06\x04\x0a\x05\x0a\x00");
    Flat(memory)
}

#[test]
fn every_table_is_found_below_the_root_pointer() {
    let platform = read(&machine(1 << 10), RSDP as u64);
    assert_eq!(platform.processors, [0, 1, 300]);
    assert_eq!(platform.io_apic, Some(IoApic { address: 0xfec0_0000, first_interrupt: 0 }));
    assert_eq!(platform.interrupt_9, Some(InterruptOverride { interrupt: 9, level: true, low: false }));
    assert_eq!(platform.configuration_space, Some(ConfigurationSpace { address: 0xe000_0000, first_bus: 0 }));
    assert_eq!(platform.reset, Some(ResetRegister { register: Register::Port(0xcf9), value: 6 }));
    assert_eq!(platform.sleep, Some(SleepRegister::Pm1(0x604, 0x3401)));
    assert_eq!(platform.pm1_control_port, Some(0x604));
}

#[test]
fn a_hardware_reduced_machine_sleeps_by_its_control_register() {
    let platform = read(&machine(1 << 20), RSDP as u64);
    assert_eq!(platform.reset, None);
    assert_eq!(platform.sleep, Some(SleepRegister::Control(Register::Memory(0xfea0_0000), 0x34)));
}

#[test]
fn a_table_whose_checksum_is_wrong_says_nothing() {
    let mut memory = machine(0);
    memory.0[MADT + 50] ^= 1;
    let platform = read(&memory, RSDP as u64);
    assert!(platform.processors.is_empty());
    assert!(platform.configuration_space.is_some());
}

#[test]
fn the_root_pointer_is_found_in_the_bios_area() {
    let mut memory = machine(0);
    let pointer = memory.0[RSDP..RSDP + 36].to_vec();
    memory.0.resize(0x10_0000, 0);
    memory.0[0xf_5a30..0xf_5a30 + 36].copy_from_slice(&pointer);
    assert_eq!(read(&memory, 0).processors, [0, 1, 300]);
}

proptest! {
    #[test]
    fn no_damage_makes_the_walk_panic(
        damage in prop::collection::vec((0_usize..0x800, any::<u8>()), 1..40), seal_again in any::<bool>(),
    ) {
        let mut memory = machine(1 << 20);
        for (place, byte) in damage {
            memory.0[place] = byte;
        }
        if seal_again {
            seal(&mut memory.0[MADT..MADT + tables::HEADER_BYTES + madt_body().len()], 9);
            seal(&mut memory.0[FADT..FADT + 268], 9);
        }
        let _ = read(&memory, RSDP as u64);
    }
}

//! The ACPI tables of a machine (ACPI 6.5 §5.2), hardware-reduced: no timer, no old interrupt controller.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use napa_memory::GuestRam;
use napa_units::GuestAddress;
use vm_memory::{Bytes, GuestMemoryError};

use crate::layout;

const OEM: [u8; 6] = *b"NAPA  ";
const OEM_TABLE: [u8; 8] = *b"NAPAVM  ";
const OEM_REVISION: u32 = 1;
/// PC-compatible boot architecture: no VGA, no CMOS promise beyond the clock (ACPI 6.5 §5.2.9.3).
const VGA_NOT_PRESENT: u16 = 1 << 2;

/// Writes the tables and returns the address of the root pointer.
pub(crate) fn write(ram: &GuestRam, cpus: u32) -> Result<GuestAddress, GuestMemoryError> {
    let mut writer = Writer { ram, next: layout::ACPI_START + Rsdp::len().next_multiple_of(16) as u64 };
    let dsdt = writer.put(&dsdt::table(cpus))?;
    let tables =
        [writer.put(&bytes(&fadt(dsdt)))?, writer.put(&bytes(&madt(cpus)))?, writer.put(&bytes(&mcfg()))?];
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    tables.into_iter().for_each(|table| xsdt.add_entry(table));
    let xsdt = writer.put(&bytes(&xsdt))?;
    writer.next = layout::ACPI_START;
    writer.put(&bytes(&Rsdp::new(OEM, xsdt))).map(GuestAddress)
}

struct Writer<'a> {
    ram: &'a GuestRam,
    next: u64,
}

impl Writer<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, GuestMemoryError> {
        let address = self.next;
        self.next += (table.len() as u64).next_multiple_of(16);
        assert!(self.next <= layout::ACPI_END, "ACPI tables for 64 vCPUs fit in 128 KiB");
        self.ram.write_slice(table, vm_memory::GuestAddress(address))?;
        Ok(address)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .dsdt_64(dsdt);
    fadt.iapc_boot_arch = VGA_NOT_PRESENT.into();
    fadt.reset_reg = port(layout::RESET_PORT);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.sleep_control_reg = port(layout::SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(layout::SLEEP_STATUS_PORT);
    fadt.finalize()
}

fn port(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

fn madt(cpus: u32) -> MADT {
    let mut madt =
        MADT::new(OEM, OEM_TABLE, OEM_REVISION, LocalInterruptController::Address(layout::LOCAL_APIC));
    for id in 0..cpus as u8 {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    madt
}

fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM_START, 0, 0, 0);
    mcfg
}

//! The DSDT: PCI root, serial port, panic device, power button, sleep state S5 (ACPI 6.5 §5.2.11.1).

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, Equal, IO, If, Interrupt, Memory32Fixed,
    Method, Name, Notify, Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::{OEM, OEM_REVISION, OEM_TABLE, bytes};
use crate::layout;

/// The power button was pressed (ACPI 6.5 §4.8.3.1.1.2).
const BUTTON_PRESSED: u8 = 0x80;
const POWER_BUTTON: &str = "_SB_.PWRB";

pub(super) fn table(cpus: u32) -> Vec<u8> {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    for object in [pci_root(), board(), serial(), panic_device(), clock(), power_button(), events()] {
        dsdt.append_slice(&object);
    }
    dsdt.append_slice(&processors(cpus));
    dsdt.append_slice(&bytes(&Name::new("_S5_".into(), &Package::new(vec![&layout::S5_SLEEP_TYPE]))));
    dsdt.as_slice().to_vec()
}

/// AML of a device with the given objects.
fn device(path: &str, objects: &[(&str, &dyn Aml)], methods: &[&dyn Aml]) -> Vec<u8> {
    let names: Vec<Name> = objects.iter().map(|(name, value)| Name::new((*name).into(), *value)).collect();
    let children = names.iter().map(|name| name as &dyn Aml).chain(methods.iter().copied());
    bytes(&Device::new(path.into(), children.collect()))
}

fn pci_root() -> Vec<u8> {
    let window = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        layout::PCI_WINDOW_START as u32,
        (layout::PCI_WINDOW_END - 1) as u32,
        None,
    );
    let bus = AddressSpace::new_bus_number(0_u16, 0);
    let config_ports = IO::new(0xcf8, 0xcf8, 1, 8);
    let ports_below = AddressSpace::new_io(0_u16, 0xcf7, None);
    let ports_above = AddressSpace::new_io(0xd00_u16, 0xffff, None);
    let resources = ResourceTemplate::new(vec![&bus, &config_ports, &ports_below, &ports_above, &window]);
    device(
        "_SB_.PCI0",
        &[
            ("_HID", &EISAName::new("PNP0A08")),
            ("_CID", &EISAName::new("PNP0A03")),
            ("_SEG", &ZERO),
            ("_BBN", &ZERO),
            ("_UID", &ZERO),
            ("_CRS", &resources),
        ],
        &[],
    )
}

/// Claims the configuration window, which is how Linux knows that it may use it.
fn board() -> Vec<u8> {
    let ecam = Memory32Fixed::new(true, layout::ECAM_START as u32, layout::ECAM_SIZE as u32);
    let resources = ResourceTemplate::new(vec![&ecam]);
    device("_SB_.MBRD", &[("_HID", &EISAName::new("PNP0C02")), ("_UID", &ZERO), ("_CRS", &resources)], &[])
}

fn serial() -> Vec<u8> {
    let line = edge(layout::SERIAL_LINE);
    let ports = IO::new(0x3f8, 0x3f8, 1, 8);
    let resources = ResourceTemplate::new(vec![&line, &ports]);
    device("_SB_.COM1", &[("_HID", &EISAName::new("PNP0501")), ("_UID", &ZERO), ("_CRS", &resources)], &[])
}

/// The panic device under the name that guests know it by.
fn panic_device() -> Vec<u8> {
    let port = IO::new(0x505, 0x505, 1, 1);
    let resources = ResourceTemplate::new(vec![&port]);
    device("_SB_.PEVT", &[("_HID", &"QEMU0001"), ("_STA", &0x0f_u8), ("_CRS", &resources)], &[])
}

fn clock() -> Vec<u8> {
    let ports = IO::new(0x70, 0x70, 1, 2);
    let resources = ResourceTemplate::new(vec![&ports]);
    device("_SB_.RTC_", &[("_HID", &EISAName::new("PNP0B00")), ("_CRS", &resources)], &[])
}

fn power_button() -> Vec<u8> {
    device(POWER_BUTTON, &[("_HID", &EISAName::new("PNP0C0C")), ("_UID", &ZERO)], &[])
}

/// The generic event device turns its interrupt into a press of the power button (ACPI 6.5 §5.6.9).
fn events() -> Vec<u8> {
    let line = edge(layout::ACPI_LINE);
    let resources = ResourceTemplate::new(vec![&line]);
    let button = Path::new(&format!("\\{POWER_BUTTON}"));
    let press = Notify::new(&button, &BUTTON_PRESSED);
    let line_number = layout::ACPI_LINE as u8;
    let is_line = Equal::new(&Arg(0), &line_number);
    let on_line = If::new(&is_line, vec![&press]);
    let event = Method::new("_EVT".into(), 1, true, vec![&on_line]);
    device("_SB_.GED_", &[("_HID", &"ACPI0013"), ("_UID", &ZERO), ("_CRS", &resources)], &[&event])
}

fn edge(line: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, line)
}

fn processors(cpus: u32) -> Vec<u8> {
    let object = |id: u32| Raw(device(&format!("C{id:03X}"), &[("_HID", &"ACPI0007"), ("_UID", &id)], &[]));
    let processors: Vec<Raw> = (0..cpus).map(object).collect();
    bytes(&Scope::new("_SB_".into(), processors.iter().map(|processor| processor as &dyn Aml).collect()))
}

/// Bytes that are AML already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

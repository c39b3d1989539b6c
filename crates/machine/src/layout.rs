//! Guest-physical addresses, ports and interrupt lines that every machine has in the same place.
//!
//! ```text
//! 0                RAM (boot structures below 640 KiB)
//! 0x000a_0000      hole; ACPI tables from 0x000e_0000
//! 0x0010_0000      RAM, up to 3 GiB
//! 0xc000_0000      PCI memory window
//! 0xe000_0000      PCI configuration space (ECAM), bus 0
//! 0xfec0_0000      I/O APIC, then local APICs
//! 0x1_0000_0000    RAM, the rest
//! after RAM        memory of devices, each at a multiple of 2 GiB, with a gap before it
//! ```

/// End of conventional memory.
pub const LOW_RAM_END: u64 = 0xa_0000;
/// Where the ACPI tables are put; the root pointer comes first.
pub const ACPI_START: u64 = 0xe_0000;
/// End of the room for ACPI tables.
pub const ACPI_END: u64 = RESET_VECTOR;
/// Where a PC's firmware is entered after a reset, in real mode as F000:FFF0.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Start of memory above the hole at 640 KiB; kernels are loaded from here on.
pub const HIGH_RAM_START: u64 = 0x10_0000;

/// Start of the PCI memory window; RAM below it at most.
pub const PCI_WINDOW_START: u64 = 0xc000_0000;
/// End of the PCI memory window.
pub const PCI_WINDOW_END: u64 = 0xe000_0000;
/// PCI configuration space, memory mapped.
pub const ECAM_START: u64 = 0xe000_0000;
/// Size of the configuration space of one bus.
pub const ECAM_SIZE: u64 = 0x10_0000;
/// The I/O APIC of KVM's in-kernel interrupt controller.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM needs on Intel hosts without unrestricted guests (KVM API §4.35).
pub const KVM_TSS: usize = 0xfffb_d000;
/// One page for the same purpose (KVM API §4.41).
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// RAM goes on here.
pub const RAM_ABOVE_4G: u64 = 0x1_0000_0000;

/// Where the memory of a device may start: Linux adds memory in blocks of up to 2 GiB, each at a multiple of its size.
pub const DEVICE_MEMORY_ALIGNMENT: u64 = 2 << 30;

/// Pins of the I/O APIC; message-signalled interrupts are numbered after them.
pub const IO_APIC_PINS: u32 = 24;
/// Interrupt line of the first serial port.
pub const SERIAL_LINE: u32 = 4;
/// Interrupt line of ACPI events.
pub const ACPI_LINE: u32 = 9;

/// ACPI sleep control register (ACPI 6.5 §4.8.3.7).
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// Reset register: the port chipsets have had for it since 1994.
pub const RESET_PORT: u16 = 0xcf9;
/// Value that resets the machine when written to [`RESET_PORT`].
pub const RESET_VALUE: u8 = 0x06;
/// Sleep type of S5 in the sleep control register.
pub const S5_SLEEP_TYPE: u8 = 5;

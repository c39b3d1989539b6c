//! PCI bus 0: configuration by ports and by memory, and the windows of the functions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use napa_virtio::BusDevice;
use napa_virtio::pci::PciFunction;

use crate::layout::{RESET_PORT, RESET_VALUE};

/// First of the eight ports of configuration mechanism 1 (PCI 3.0 §3.2.2.3.2).
const CONFIG_PORT: u16 = 0xcf8;
const CONFIG_ENABLE: u32 = 1 << 31;
/// The reset register lies among the bytes of the address register.
const RESET_OFFSET: u64 = (RESET_PORT - CONFIG_PORT) as u64;

/// Vendor and device of the host bridge; class 0x0600. The ids are those of a bridge that every system
/// takes as it is.
const BRIDGE: [u8; 16] = [0x86, 0x80, 0x57, 0x0d, 0, 0, 0, 0, 0, 0, 0, 0x06, 0, 0, 0, 0];

type Reset = Box<dyn Fn() + Send + Sync>;

/// The bus with its functions. Functions are put in place once, before the machine runs.
pub struct PciBus {
    functions: OnceLock<Vec<(u8, Arc<dyn PciFunction>)>>,
    address: AtomicU32,
    reset: Reset,
}

impl PciBus {
    /// The ports of the bus, the reset register among them.
    pub const PORTS: std::ops::Range<u16> = CONFIG_PORT..CONFIG_PORT + 8;

    /// An empty bus. `reset` is called when the guest writes the reset register.
    pub fn new(reset: Reset) -> Self {
        Self { functions: OnceLock::new(), address: AtomicU32::new(0), reset }
    }

    /// Puts the functions in their slots.
    pub fn populate(&self, functions: Vec<(u8, Arc<dyn PciFunction>)>) {
        assert!(self.functions.set(functions).is_ok(), "a bus is populated once");
    }

    /// Quietens all functions. Waits for the threads that serve them, so never called on one of those.
    pub fn reset(&self) {
        self.functions().iter().for_each(|(_, function)| function.reset());
    }

    /// The guest reads configuration space at `offset` from the start of bus 0's ECAM window.
    pub fn read_ecam(&self, offset: u64, data: &mut [u8]) {
        // Function numbers above zero and the extended space exist for no device here.
        self.read_config((offset >> 15) as u8, (offset >> 12) as u8 & 7, (offset & 0xfff) as u16, data);
    }

    /// The guest writes configuration space.
    pub fn write_ecam(&self, offset: u64, data: &[u8]) {
        self.write_config((offset >> 15) as u8, (offset >> 12) as u8 & 7, (offset & 0xfff) as u16, data);
    }

    /// The guest reads a register of whatever function answers at `address`; all ones if none does.
    pub fn read_window(&self, address: u64, data: &mut [u8]) {
        match self.at(address) {
            Some((function, offset)) => function.read_bar(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes a register.
    pub fn write_window(&self, address: u64, data: &[u8]) {
        if let Some((function, offset)) = self.at(address) {
            function.write_bar(offset, data);
        }
    }

    fn at(&self, address: u64) -> Option<(&dyn PciFunction, u64)> {
        self.functions().iter().find_map(|(_, function)| {
            let (start, size) = function.window()?;
            let offset = address.checked_sub(start).filter(|offset| *offset < size)?;
            Some((function.as_ref(), offset))
        })
    }

    fn functions(&self) -> &[(u8, Arc<dyn PciFunction>)] {
        self.functions.get().map_or(&[], Vec::as_slice)
    }

    fn function(&self, slot: u8, function: u8) -> Option<&dyn PciFunction> {
        let found = self.functions().iter().find(|(at, _)| *at == slot && function == 0)?;
        Some(found.1.as_ref())
    }

    fn read_config(&self, slot: u8, function: u8, offset: u16, data: &mut [u8]) {
        match self.function(slot, function) {
            Some(found) => found.read_config(offset, data),
            None if slot == 0 && function == 0 => {
                napa_virtio::read_config_bytes(&BRIDGE, u64::from(offset), data);
            }
            None => data.fill(0xff),
        }
    }

    fn write_config(&self, slot: u8, function: u8, offset: u16, data: &[u8]) {
        if let Some(found) = self.function(slot, function) {
            found.write_config(offset, data);
        }
    }

    /// Slot, function and register that the address register selects; `None` for other buses.
    fn selected(&self, byte: u64) -> Option<(u8, u8, u16)> {
        let address = self.address.load(Ordering::Acquire);
        let is_here = address & CONFIG_ENABLE != 0 && address & 0x00ff_0000 == 0;
        let register = (address & 0xfc) as u16 + byte as u16;
        is_here.then_some(((address >> 11) as u8 & 0x1f, (address >> 8) as u8 & 7, register))
    }
}

impl BusDevice for PciBus {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        match offset {
            0 if data.len() == 4 => data.copy_from_slice(&self.address.load(Ordering::Acquire).to_le_bytes()),
            4..8 => {
                if let Some((slot, function, register)) = self.selected(offset - 4) {
                    self.read_config(slot, function, register, data);
                }
            }
            RESET_OFFSET => data.fill(0),
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, [a, b, c, d]) => self.address.store(u32::from_le_bytes([*a, *b, *c, *d]), Ordering::Release),
            // Bit 2 starts the reset; the other bit only says how thorough it is.
            (RESET_OFFSET, [value]) if value & RESET_VALUE & 4 != 0 => (self.reset)(),
            (4..8, _) => {
                if let Some((slot, function, register)) = self.selected(offset - 4) {
                    self.write_config(slot, function, register, data);
                }
            }
            _ => {}
        }
    }
}

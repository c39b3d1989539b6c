//! MSI-X: the guest's table of messages, brought to the machine's interrupt routes (PCI 3.0 §6.8.2).

use std::io;
use std::sync::Arc;

use crate::{MsiMessage, Platform, VectorTable};

const ENTRY_SIZE: usize = 16;
const ENTRY_CONTROL: usize = 12;
const ENTRY_MASKED: u8 = 1;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_MASK_ALL: u16 = 1 << 14;

pub struct Msix {
    table: Vec<u8>,
    control: u16,
    vectors: Arc<VectorTable>,
    /// What the machine delivers now, by vector.
    routed: Vec<Option<MsiMessage>>,
    /// Number of the first vector among the machine's interrupts.
    first_interrupt: u32,
    platform: Arc<dyn Platform>,
}

impl Msix {
    pub fn new(vectors: Arc<VectorTable>, first_interrupt: u32, platform: Arc<dyn Platform>) -> Self {
        let count = usize::from(vectors.count());
        let mut table = vec![0; count * ENTRY_SIZE];
        for entry in table.chunks_exact_mut(ENTRY_SIZE) {
            entry[ENTRY_CONTROL] = ENTRY_MASKED;
        }
        Self { table, control: 0, vectors, routed: vec![None; count], first_interrupt, platform }
    }

    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        crate::read_config_bytes(&self.table, offset, data);
    }

    /// # Errors
    /// The machine refused a route.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.table.len());
        let count = data.len().min(self.table.len() - start);
        self.table[start..start + count].copy_from_slice(&data[..count]);
        for vector in start / ENTRY_SIZE..(start + count).div_ceil(ENTRY_SIZE) {
            self.update(vector)?;
        }
        Ok(())
    }

    /// The control word of the capability has changed.
    ///
    /// # Errors
    /// The machine refused a route.
    pub fn set_control(&mut self, control: u16) -> io::Result<()> {
        self.control = control;
        (0..self.routed.len()).try_for_each(|vector| self.update(vector))
    }

    /// A vector is pending while it is masked and its event was written to.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let mut bits = vec![0; self.routed.len().div_ceil(64) * 8];
        for vector in (0..self.routed.len()).filter(|vector| self.routed[*vector].is_none()) {
            if self.is_pending(vector) {
                bits[vector / 8] |= 1 << (vector % 8);
            }
        }
        crate::read_config_bytes(&bits, offset, data);
    }

    /// Holds all interrupts back, as after a reset of the machine.
    pub fn disconnect(&mut self) {
        self.control = 0;
        // Nobody is left to tell if the machine refuses to let go.
        let _ = (0..self.routed.len()).try_for_each(|vector| self.update(vector));
    }

    fn is_pending(&self, vector: usize) -> bool {
        let Some(event) = self.vectors.event(vector as u16) else { return false };
        // Reading takes the count away; it is put back, since the interrupt has not been delivered.
        event.read().is_ok_and(|count| event.write(count).is_ok())
    }

    fn update(&mut self, vector: usize) -> io::Result<()> {
        let message = self.message(vector);
        let Some(event) = self.vectors.event(vector as u16) else { return Ok(()) };
        if self.routed[vector] != message {
            self.platform.route(self.first_interrupt + vector as u32, event, message)?;
            self.routed[vector] = message;
        }
        Ok(())
    }

    fn message(&self, vector: usize) -> Option<MsiMessage> {
        let entry = self.table.get(vector * ENTRY_SIZE..(vector + 1) * ENTRY_SIZE)?;
        let is_held = self.control & CONTROL_ENABLE == 0
            || self.control & CONTROL_MASK_ALL != 0
            || entry[ENTRY_CONTROL] & ENTRY_MASKED != 0;
        let long = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let address = u64::from(long(0)) | u64::from(long(4)) << 32;
        (!is_held).then(|| MsiMessage { address, data: long(8) })
    }
}

//! Switching the machine off, from inside and from outside: ACPI sleep registers, power button, reset.

use std::io;

use napa_api::Exit;
use napa_devices::ExitSink;
use napa_machine::{Routes, layout};
use napa_virtio::BusDevice;
use vmm_sys_util::eventfd::EventFd;

/// Sleep type and enable bit of the sleep control register (ACPI 6.5 §4.8.3.7).
const SLEEP_TYPE_SHIFT: u32 = 2;
const SLEEP_ENABLE: u8 = 1 << 5;

/// The sleep control and status registers of a hardware-reduced machine.
pub struct SleepRegisters {
    sink: ExitSink,
}

impl SleepRegisters {
    /// Tells `sink` when the guest enters S5.
    pub fn new(sink: ExitSink) -> Self {
        Self { sink }
    }
}

impl BusDevice for SleepRegisters {
    fn read(&self, _: u64, data: &mut [u8]) {
        // The machine has never slept: no wake status (ACPI 6.5 §4.8.3.8).
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let control = offset == 0;
        if let ([value], true) = (data, control)
            && value & SLEEP_ENABLE != 0
            && (value >> SLEEP_TYPE_SHIFT) & 7 == layout::S5_SLEEP_TYPE
        {
            (self.sink)(Exit::PowerOff);
        }
    }
}

/// The power button: an edge on the line of ACPI events.
pub struct PowerButton(EventFd);

impl PowerButton {
    /// Wires the button.
    ///
    /// # Errors
    /// KVM refused the interrupt.
    pub fn new(routes: &Routes) -> io::Result<Self> {
        let event = EventFd::new(0)?;
        routes.connect_line(layout::ACPI_LINE, &event)?;
        Ok(Self(event))
    }

    /// Presses it.
    pub fn press(&self) {
        // KVM takes the count away at once.
        let _ = self.0.write(1);
    }
}

//! Every device on I/O ports, a line each.

use std::ops::Range;
use std::sync::Arc;

use napa_virtio::BusDevice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::exit_port::{self, ExitPort};
use crate::i8042::{self, I8042};
use crate::pvpanic::{self, PvPanic};
use crate::rtc::{self, Rtc};
use crate::serial::{self, Serial};
use crate::stop_port::{self, StopPort};
use crate::{ConsoleBackend, ExitSink, OpenError, StopRequest};

/// What the devices on I/O ports are made from.
pub struct PortContext<'a> {
    /// Where the serial port leads.
    pub console: &'a Arc<ConsoleBackend>,
    /// Takes the news that the guest has ended.
    pub exit: &'a ExitSink,
    /// What the guest sees at the stop-request port.
    pub stop_request: &'a StopRequest,
}

/// All devices on I/O ports.
pub struct PortDevices {
    /// Which ports lead to which device. No port leads to two.
    pub ports: Vec<(Range<u16>, Arc<dyn BusDevice>)>,
    /// Written to for each edge on the interrupt line [`serial::INTERRUPT_LINE`].
    pub serial_interrupt: EventFd,
}

type Open = fn(&PortContext<'_>, &EventFd) -> std::io::Result<Arc<dyn BusDevice>>;

const PORTS: &[(Range<u16>, Open)] = &[
    (serial::PORTS, |context, interrupt| Ok(Serial::new(context.console, interrupt.try_clone()?))),
    (rtc::PORTS, |_, _| Ok(Arc::new(Rtc::default()))),
    (i8042::PORTS, |context, _| Ok(Arc::new(I8042::new(context.exit.clone())))),
    (pvpanic::PORTS, |context, _| Ok(Arc::new(PvPanic::new(context.exit.clone())))),
    (exit_port::PORTS, |context, _| Ok(Arc::new(ExitPort::new(context.exit.clone())))),
    (stop_port::PORTS, |context, _| Ok(Arc::new(StopPort::new(context.stop_request.clone())))),
];

/// Makes all devices on I/O ports, as they are after power-on.
///
/// # Errors
/// The process is out of file descriptors.
pub fn open_all(context: &PortContext<'_>) -> Result<PortDevices, OpenError> {
    let failed =
        |source| OpenError::Host { what: "cannot make an eventfd for the serial port".into(), source };
    // Non-blocking: a vCPU never waits for an interrupt to be taken.
    let serial_interrupt = EventFd::new(EFD_NONBLOCK).map_err(failed)?;
    let mut ports = Vec::new();
    for (range, open) in PORTS {
        ports.push((range.clone(), open(context, &serial_interrupt).map_err(failed)?));
    }
    Ok(PortDevices { ports, serial_interrupt })
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{Arc, Mutex};

    use napa_api::Exit;

    use crate::ExitSink;

    /// A sink and what it was told.
    pub fn exits() -> (ExitSink, Arc<Mutex<Vec<Exit>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink: ExitSink = Arc::new({
            let seen = Arc::clone(&seen);
            move |exit| seen.lock().unwrap().push(exit)
        });
        (sink, seen)
    }
}

#[cfg(test)]
mod tests {
    use napa_api::config::ConsoleConfig;
    use proptest::prelude::*;

    use super::*;

    fn open() -> PortDevices {
        let (console, _worker) = ConsoleBackend::open(&ConsoleConfig::Off, None, Box::new(|_| {})).unwrap();
        let (exit, _seen) = testing::exits();
        open_all(&PortContext { console: &console, exit: &exit, stop_request: &StopRequest::default() })
            .unwrap()
    }

    #[test]
    fn no_port_belongs_to_two_devices() {
        let mut owned = std::collections::BTreeSet::new();
        for port in open().ports.into_iter().flat_map(|(ports, _)| ports) {
            assert!(owned.insert(port), "port {port:#x} belongs to two devices");
        }
        assert_eq!(owned.len(), 8 + 2 + 1 + 1 + 4 + 1);
    }

    proptest! {
        #[test]
        fn no_sequence_of_accesses_breaks_a_device(
            accesses in proptest::collection::vec((0..6_usize, 0..9_u64, 1..9_usize, any::<Option<u64>>()), 0..200)
        ) {
            let devices = open().ports;
            for (device, offset, count, written) in accesses {
                let device = &devices[device].1;
                match written {
                    Some(value) => device.write(offset, &value.to_le_bytes()[..count]),
                    None => device.read(offset, &mut [0; 8][..count]),
                }
            }
        }
    }
}

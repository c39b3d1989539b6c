//! `hello`: names the PCI functions.

use super::Ending;
use crate::pci::Function;
use crate::print_line;
use crate::virtio::DeviceKind;

pub fn run(functions: &[Function]) -> Ending {
    for function in functions {
        let place = function.configuration;
        let (device, number) = (place.device, place.function);
        let kind = DeviceKind::ALL.into_iter().find(|kind| kind.is(function));
        let name: &dyn core::fmt::Display = kind.as_ref().map_or(&"other", |kind| kind);
        print_line!(
            "DEVICE pci={device:02x}.{number} id={:04x}:{:04x} class={:04x} kind={name}",
            function.vendor,
            function.device,
            function.class,
        );
    }
    Ending::Completed
}

//! The machine: what KVM is asked for, and in which order.
//!
//! [`plan`] fixes every address, PCI slot, interrupt and memory slot without touching KVM; [`Machine::build`]
//! only executes it. No device is named here: a device is what answers on a bus.
//!
//! ```text
//! config + needs --plan--> Plan --build--> Machine: RAM, interrupt routes, buses, vCPUs --load--> ready to run
//! ```

mod acpi;
pub mod boot;
mod build;
mod buses;
mod cpuid;
pub mod layout;
mod pci;
mod plan;
mod plugging;
mod routes;
mod vcpu;

pub use build::{BuildError, Hypervisor, Machine};
pub use buses::Buses;
pub use pci::PciBus;
pub use plan::{DeviceNeed, DeviceWindow, Needs, PciSlot, Plan, PlanError, plan};
pub use plugging::Plugging;
pub use routes::Routes;
pub use vcpu::{Step, Vcpu, VcpuError};

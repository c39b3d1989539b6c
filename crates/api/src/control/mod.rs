//! Messages of a VM's control socket: JSON-RPC 2.0, one message a line, on a Unix socket.
//!
//! | method | parameters | what it does |
//! |---|---|---|
//! | `status` | | nothing |
//! | `config` | | nothing; says how the VM is configured ([`VmConfig`](crate::VmConfig)) |
//! | `pause` | | stops the vCPUs; does nothing to a paused VM |
//! | `resume` | | lets them run again; does nothing to a running VM |
//! | `brake` | `time_ms`, at most 2000 | stops the vCPUs for that long at most, or lets them go on with 0; says that the VM runs |
//! | `stop` | `timeout_s`, optional | presses the power button; stops hard after that many seconds |
//! | `kill` | | stops hard |
//! | `memory` | | says where every page of guest memory is ([`MemoryReport`]) |
//! | `balloon` | `target`, optional, in bytes | asks the guest to give up so much; says how the balloon is ([`BalloonReport`]) |
//! | `balloon-statistics` | | asks the guest how its memory is; answers like `balloon` |
//! | `balloon-hint` | | asks the guest which of its pages are free ([`HintReport`]) |
//! | `plug` | `size`, optional, in bytes | asks the guest to plug or unplug memory until it has so much besides its own ([`PlugReport`]) |
//! | `reclaim` | `size` | puts that much memory into the host's swap, for two seconds at most ([`ReclaimReport`]) |
//! | `share` | `on`, true or false | merges equal pages, or takes them apart, for about a second ([`ShareReport`]) |
//! | `sample` | | takes a hundred pages away, into swap ([`SampleReport`]) |
//! | `means` | | says by what means memory can be taken from the VM ([`MeansReport`]) |
//! | `mapping` | | says where guest memory is in the VM's process ([`MappingReport`]) |
//! | `working-set` | | says how many of them came back, and what follows ([`WorkingSet`]) |
//!
//! Methods without a type of their own here answer with the [`Status`] that follows from them. Batches are refused: a line is one message.
//! Nothing here opens a socket.

mod balloon;
mod exchange;
mod group;
mod line;
mod memory;
mod message;
mod plug;
mod reclaim;
mod sharing;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod working_set;

pub use balloon::{BalloonReport, BalloonStatistics, HintReport};
pub use exchange::{Exchange, ExchangeError, Progress};
pub use group::GroupReport;
pub use line::{LINE_BYTES_MAX, LineTooLong, Lines};
pub use memory::{Certainty, MemoryCommand, MemoryReport};
pub use message::{BRAKE_MS_MAX, Command, Id, Reply, Request, Response, RpcError, code, reply};
pub use plug::PlugReport;
pub use reclaim::{MeansReport, ReclaimEnd, ReclaimMechanism, ReclaimReport};
pub use sharing::{ShareOrder, ShareReport, Stranger};
pub use socket::{SOCKET_SUFFIX, socket_folder, socket_path};
pub use status::{DeviceState, DeviceStatus, State, Status};
pub use working_set::{AddressRange, GroupInterval, MappingReport, SampleReport, WorkingSet};

//! From configuration to a device: what every device's `open` gets and gives.

use std::sync::Arc;

use napa_api::VmConfig;

use crate::ConsoleBackend;
use crate::balloon::Balloon;
use crate::mem::Hotplug;

/// What a device may know while it is opened.
pub struct Context<'a> {
    /// The whole configuration of the VM.
    pub config: &'a VmConfig,
    /// Where the consoles of this VM lead.
    pub console: &'a Arc<ConsoleBackend>,
    /// The memory balloon. `None`: the VM has none.
    pub balloon: Option<&'a Arc<Balloon>>,
    /// The memory that can be plugged. `None`: none can.
    pub hotplug: Option<&'a Arc<Hotplug>>,
}

/// Why a device could not be opened. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What the user asked for cannot be: says what, where and how to mend it.
    #[error("{0}")]
    Input(String),
    /// The host failed at something that should have worked.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted, on which object.
        what: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

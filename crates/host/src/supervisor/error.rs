//! Why a verb was not carried out.

use std::io;

use napa_api::config::ConfigError;
use napa_api::host::VmState;
use napa_units::Bytes;

use crate::state::StoreError;

/// Why a verb was not carried out. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// There is no such VM.
    #[error("there is no VM {name:?} on this host{hint}; 'napa ls' shows those there are")]
    Unknown {
        /// What it should have been called.
        name: String,
        /// The nearest name, as a part of the sentence.
        hint: String,
    },
    /// Another VM has the name.
    #[error("there is a VM {0:?} already: choose another name, or remove that one with 'napa rm {0}'")]
    NameInUse(String),
    /// The configuration cannot be that of a VM.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The configuration cannot be that of a VM of the host.
    #[error("{0}")]
    Unfit(String),
    /// The VM does something else.
    #[error("VM {name:?} is {state}: {mend}")]
    State {
        /// The VM.
        name: String,
        /// What it does.
        state: VmState,
        /// What to do.
        mend: &'static str,
    },
    /// The host cannot promise the VM its memory.
    #[error("{detail}")]
    Shortage {
        /// What is missing, and how to mend it.
        detail: String,
        /// RAM that is missing.
        ram: Bytes,
        /// Swap that is missing.
        swap: Bytes,
    },
    /// The disk under the state is full.
    #[error("the disk under {folder} is full: nothing was changed; make room there and try again")]
    DiskFull {
        /// The state folder.
        folder: String,
    },
    /// The state cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process could not be made.
    #[error("cannot start VM {name:?}: {source}")]
    Spawn {
        /// The VM.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

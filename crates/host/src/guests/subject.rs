//! A VM that runs, as its supervisor knows it.

use std::path::PathBuf;

use napa_api::config::ShareConfig;
use napa_units::{Bytes, Shares, VmId};

/// A VM that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its number, which no other VM ever has.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its control socket.
    pub socket: PathBuf,
    /// The folder of its control group. `None`: it has none of its own.
    pub group: Option<PathBuf>,
    /// The most that the guest can have, with all that can be plugged.
    pub limit: Bytes,
    /// What it can always have in RAM.
    pub reservation: Bytes,
    /// What it counts against others.
    pub shares: Shares,
    /// How far its pages may be merged.
    pub share: ShareConfig,
}

//! What the daemon reads about its host and its VMs.
//!
//! Every sensor reads below a [`Root`](napa_sys::host::Root), so that a test's host is a folder of made-up files. A file
//! that holds nonsense is a [`SensorError`] that names it, never a panic and never a zero: what it said last stays in
//! use and is marked as stale ([`Kept`]). What the kernel does not have is `None`.
//!
//! | what | file | cost |
//! |---|---|---|
//! | memory and swap of the host | `/proc/meminfo`, `/proc/swaps`, `/sys/block/zram*/mm_stat` | each tick |
//! | time lost for want of memory | `/proc/pressure/memory`, and its triggers | each tick, and at once |
//! | merging | `/sys/kernel/mm/ksm`, `/proc/PID/ksm_stat` | each tick; a VM's now and then |
//! | a VM's resident size | `/proc/PID/statm` | ten times a second while memory is short |
//! | its part of memory (Pss) | `/proc/PID/smaps_rollup` | as often as a budget of time allows |
//! | its control group | `memory.current`, `memory.stat`, `memory.pressure`, … | now and then |
//! | its balloon, its working set | its control socket | now and then |

mod group;
mod host;
mod kept;
mod ksm;
mod meminfo;
mod pressure;
mod process;
mod swap;
mod text;
mod trigger;

pub use self::group::{GroupSensor, GroupState};
pub use self::host::{HostSensors, HostState};
pub use self::kept::Kept;
pub use self::ksm::{HostSharing, ProcessSharing};
pub use self::meminfo::Meminfo;
pub use self::pressure::{Meter, Shares, Stalls};
pub use self::process::{ProcessSensor, Rollup, Statm, Usage};
pub use self::swap::{CompressedSwap, DiskSwap, SwapState};
pub use self::text::SensorError;
pub use self::trigger::{Alarm, Triggers};

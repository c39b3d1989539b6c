//! What the daemon remembers of its VMs, in one file that survives `kill -9` at any moment.
//!
//! A [`Store`] holds one [`Record`] per VM. A write returns when it is on the disk, whole or not at all. Nobody else
//! may have the folder at the same time ([`FolderLock`]).
//!
//! ```text
//!  STATE/lock         who has the folder
//!  STATE/state.redb   the records
//!  STATE/vm/ID/       what belongs to the VM with this number: sockets, log, run lock
//! ```

mod lock;
mod record;
mod store;

pub use lock::{FolderLock, LockError};
pub use record::{Launch, ProcessId, Record, RecordError, Wanted};
pub use store::{Store, StoreError};

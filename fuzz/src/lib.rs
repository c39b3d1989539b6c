//! What a hostile guest, file or peer can send, a function per target.
//!
//! A target takes any bytes and panics if napa does what it must never do: panic itself, touch memory
//! that is not the guest's, write past the end of a disk, lose a request, or keep something connected
//! that should be gone. The functions need no fuzzer: `tests/replay.rs` calls them with the inputs kept
//! in `corpus/` and with bounded random ones.

mod blk;
mod control;
mod function;
mod kernel_image;
mod kvm;
mod pci;
mod plugging;
mod queue;
mod ram;
mod words;

pub use blk::blk;
pub use control::control;
pub use kernel_image::kernel_image;
pub use pci::pci;
pub use queue::queue;

/// Takes one input.
pub type Target = fn(&[u8]);

/// Every target by the name of its folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] =
    &[("queue", queue), ("pci", pci), ("blk", blk), ("kernel_image", kernel_image), ("control", control)];

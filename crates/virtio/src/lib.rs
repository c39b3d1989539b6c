//! The napa virtio crate.

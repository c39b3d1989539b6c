//! The PCI side of a virtio device.

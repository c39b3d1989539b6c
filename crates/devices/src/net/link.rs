//! Whether the card has a link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use napa_virtio::Interrupt;

/// The link as workers see it. It is up until the tap is removed from the host.
#[derive(Clone)]
pub struct Link {
    pub(super) card: Arc<str>,
    pub(super) is_up: Arc<AtomicBool>,
    pub(super) config_interrupt: Interrupt,
}

impl Link {
    /// The tap is gone: the driver learns that the link is down. Told once.
    pub fn lose(&self) {
        if self.is_up.swap(false, Ordering::AcqRel) {
            eprintln!("napa: {}: its tap was removed from the host; the link is down", self.card);
            self.config_interrupt.signal();
        }
    }
}

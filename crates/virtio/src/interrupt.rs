//! Message-signalled interrupts: vectors, and what the machine does for them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use napa_units::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

/// The vector number that means "no interrupt" (VIRTIO 1.3 §4.1.5.1.3).
pub const NO_VECTOR: u16 = 0xffff;

/// What a device writes to raise an interrupt (PCI 3.0 §6.8.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// What the machine does for a PCI function. KVM is one, tests have another.
pub trait Platform: Send + Sync {
    /// Delivers `message` whenever `event` is written to; `None` holds interrupts back: they stay
    /// pending in `event` until there is a message again.
    ///
    /// # Errors
    /// KVM refused the route.
    fn route(&self, interrupt: u32, event: &EventFd, message: Option<MsiMessage>) -> io::Result<()>;

    /// Writes to `event` whenever the guest writes to `address`, without leaving the kernel.
    ///
    /// # Errors
    /// KVM refused the doorbell.
    fn connect_doorbell(&self, address: GuestAddress, event: &EventFd) -> io::Result<()>;

    /// Ends what [`connect_doorbell`](Self::connect_doorbell) began.
    fn disconnect_doorbell(&self, address: GuestAddress, event: &EventFd);
}

/// The MSI-X vectors of one function.
pub struct VectorTable {
    events: Vec<EventFd>,
}

impl VectorTable {
    /// A table of `count` vectors.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn new(count: u16) -> io::Result<Self> {
        // Non-blocking: the pending bit is read by looking at the counter.
        let events = (0..count).map(|_| EventFd::new(libc_nonblock())).collect::<io::Result<_>>()?;
        Ok(Self { events })
    }

    /// The eventfd of `vector`.
    pub fn event(&self, vector: u16) -> Option<&EventFd> {
        self.events.get(usize::from(vector))
    }

    /// Number of vectors.
    pub fn count(&self) -> u16 {
        self.events.len() as u16
    }
}

const fn libc_nonblock() -> i32 {
    vmm_sys_util::eventfd::EFD_NONBLOCK
}

/// Raises the interrupt that the driver chose for a queue or for configuration changes.
#[derive(Clone)]
pub struct Interrupt {
    vectors: Arc<VectorTable>,
    vector: Arc<AtomicU16>,
    count: Arc<AtomicU8>,
}

impl Interrupt {
    /// An interrupt on the vector that `vector` names at the time.
    pub fn new(vectors: Arc<VectorTable>, vector: Arc<AtomicU16>) -> Self {
        Self { vectors, vector, count: Arc::default() }
    }

    /// Raises the interrupt; does nothing if the driver chose no vector.
    pub fn signal(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        if let Some(event) = self.vectors.event(self.vector.load(Ordering::Acquire)) {
            // A full counter means that the interrupt is pending already.
            let _ = event.write(1);
        }
    }

    /// How often it was raised, modulo 256: the generation of a configuration space.
    pub(crate) fn count(&self) -> u8 {
        self.count.load(Ordering::Acquire)
    }
}

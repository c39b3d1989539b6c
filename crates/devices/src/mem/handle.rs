//! The host's side of memory that can be plugged: how much of it is asked for, and how much is plugged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use napa_api::config::hotplug_block;
use napa_api::control::{DeviceState, PlugReport};
use napa_units::{Bytes, GuestAddress};
use napa_virtio::{Health, Interrupt, PluggableMemory, read_config_bytes};

use super::request::Region;

/// The pluggable memory of one VM, over all its drivers and reboots. Any thread may use it.
pub struct Hotplug {
    size: Bytes,
    block: Bytes,
    shared: Mutex<Shared>,
}

struct Shared {
    start: GuestAddress,
    requested: Bytes,
    /// The blocks of the machine that runs.
    blocks: Option<Weak<dyn PluggableMemory>>,
    driver: Option<(Interrupt, Health)>,
}

/// Why so much cannot be plugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HotplugError {
    /// There is not so much.
    #[error("{asked} cannot be plugged: the VM was started with --hotplug-memory {size}; ask for less")]
    TooLarge {
        /// What was asked for.
        asked: Bytes,
        /// What there is.
        size: Bytes,
    },
    /// Not a whole number of blocks.
    #[error("{asked} is no whole number of blocks of {block}: the next one is {next}", next = Bytes(.asked.0.next_multiple_of(.block.0)))]
    NotBlocks {
        /// What was asked for.
        asked: Bytes,
        /// Size of a block.
        block: Bytes,
    },
}

impl Hotplug {
    /// `size` of memory, none of which is asked for. It is a multiple of its [`hotplug_block`].
    pub fn new(size: Bytes) -> Self {
        let shared = Shared { start: GuestAddress(0), requested: Bytes(0), blocks: None, driver: None };
        Self { size, block: hotplug_block(size), shared: Mutex::new(shared) }
    }

    /// How much can be plugged.
    pub const fn size(&self) -> Bytes {
        self.size
    }

    /// Size of a block.
    pub const fn block(&self) -> Bytes {
        self.block
    }

    /// Asks the guest to plug or unplug until it has `requested`. One without a driver is asked when it has one.
    ///
    /// # Errors
    /// It is more than there is, or no whole number of blocks.
    pub fn request(&self, requested: Bytes) -> Result<(), HotplugError> {
        if requested > self.size {
            return Err(HotplugError::TooLarge { asked: requested, size: self.size });
        }
        if !requested.0.is_multiple_of(self.block.0) {
            return Err(HotplugError::NotBlocks { asked: requested, block: self.block });
        }
        let mut shared = self.lock();
        if std::mem::replace(&mut shared.requested, requested) != requested
            && let Some((interrupt, _)) = &shared.driver
        {
            interrupt.signal();
        }
        Ok(())
    }

    /// How it is now.
    pub fn report(&self) -> PlugReport {
        let shared = self.lock();
        PlugReport {
            size: self.size,
            block: self.block,
            requested: shared.requested,
            plugged: shared.plugged(),
            driver: match &shared.driver {
                None => DeviceState::Idle,
                Some((_, health)) if health.has_failed() => DeviceState::NeedsReset,
                Some(_) => DeviceState::Active,
            },
        }
    }

    pub(super) fn place(&self, start: GuestAddress) {
        self.lock().start = start;
    }

    pub(super) fn adopt(&self, blocks: Weak<dyn PluggableMemory>) {
        self.lock().blocks = Some(blocks);
    }

    /// A driver has taken the device.
    pub(super) fn bind(&self, config_interrupt: Interrupt, health: Health) {
        self.lock().driver = Some((config_interrupt, health));
    }

    /// The driver has gone. What is plugged and what is asked for stand.
    pub(super) fn unbind(&self) {
        self.lock().driver = None;
    }

    pub(super) fn requested(&self) -> Bytes {
        self.lock().requested
    }

    pub(super) fn region(&self) -> Region {
        let start = self.lock().start;
        Region { start, block: self.block, blocks: self.size.0 / self.block.0 }
    }

    /// The blocks of the machine that runs. `None`: it is ending.
    pub(super) fn blocks(&self) -> Option<Arc<dyn PluggableMemory>> {
        self.lock().blocks.as_ref()?.upgrade()
    }

    /// The configuration space (VIRTIO 1.3 §5.15.4): all of the region is usable at any time.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        let shared = self.lock();
        let node = 0;
        let (size, plugged, requested) = (self.size.0, shared.plugged().0, shared.requested.0);
        let fields = [self.block.0, node, shared.start.0, size, size, plugged, requested];
        read_config_bytes(fields.map(u64::to_le_bytes).as_flattened(), offset, data);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn plugged(&self) -> Bytes {
        let blocks = self.blocks.as_ref().and_then(Weak::upgrade);
        blocks.map_or(Bytes(0), |blocks| blocks.plugged())
    }
}

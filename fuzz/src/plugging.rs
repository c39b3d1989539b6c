//! Memory that can be plugged, without a KVM that is told of it.

use std::io;
use std::sync::Arc;

use napa_memory::{Backing, Blocks, PageStates, RamRegion};
use napa_units::{Bytes, GuestAddress};
use napa_virtio::{DeviceMemory, PluggableMemory};

use crate::ram::Ram;

/// The blocks of one machine, none of which is plugged at first.
pub struct Plugging {
    pages: Arc<PageStates>,
    blocks: Arc<Blocks>,
}

impl Plugging {
    /// Blocks at `start`, as a device asks for them, beside the RAM of a machine.
    pub fn new(memory: &DeviceMemory, start: GuestAddress, ram: &Ram) -> Self {
        let DeviceMemory::Blocks { size, block, scratch, .. } = memory else { panic!("it has no blocks") };
        let region = RamRegion { start, size: *size };
        let blocks = Blocks::new(region, *block, Arc::clone(scratch), Backing::Ordinary);
        let blocks = Arc::new(blocks.expect("a few mebibytes can be mapped"));
        let pages = PageStates::with_blocks(Arc::clone(ram.memory()), Arc::clone(&blocks));
        Self { pages: Arc::new(pages.expect("a plan has no overlaps")), blocks }
    }

    /// The pages of RAM and of what is plugged.
    pub fn pages(&self) -> &Arc<PageStates> {
        &self.pages
    }
}

impl PluggableMemory for Plugging {
    fn is_plugged(&self, block: u64) -> bool {
        self.blocks.is_plugged(block)
    }

    fn plugged(&self) -> Bytes {
        self.blocks.plugged()
    }

    fn plug(&self, block: u64) -> io::Result<()> {
        self.pages.forget_block(block);
        self.blocks.plug(block)
    }

    fn unplug(&self, block: u64) -> io::Result<()> {
        self.blocks.unplug(block)
    }
}

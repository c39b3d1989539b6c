//! Memory that is plugged and unplugged while the guest runs.
#![allow(unsafe_code)] // KVM is given memory by address.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use napa_memory::{Blocks, PageStates};
use napa_units::Bytes;
use napa_virtio::PluggableMemory;
use vm_memory::GuestMemoryRegion as _;

use crate::routes::into_io;

/// The blocks of one machine: each is a KVM memory slot while it is plugged. Without a slot the guest has no memory at
/// these addresses: it reads ones there, and what it writes is dropped, like anywhere that nobody answers.
pub struct Plugging {
    vm: Arc<VmFd>,
    pages: Arc<PageStates>,
    blocks: Arc<Blocks>,
    /// Slot of block 0; the others follow.
    first_slot: u32,
    /// Slot and mapping of a block change together.
    changing: Mutex<()>,
}

impl Plugging {
    pub(crate) fn new(vm: Arc<VmFd>, pages: Arc<PageStates>, blocks: Arc<Blocks>, first_slot: u32) -> Self {
        Self { vm, pages, blocks, first_slot, changing: Mutex::default() }
    }

    /// Gives KVM `size` bytes of memory for a block; none takes the slot away, and KVM waits until no vCPU uses it.
    fn set_slot(&self, block: u64, size: Bytes) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: self.first_slot + block as u32,
            flags: 0,
            guest_phys_addr: self.blocks.region().start_addr().0 + block * self.blocks.block().0,
            memory_size: size.0,
            userspace_addr: self.blocks.host_address(block),
        };
        // SAFETY: the block is a part of a mapping that lives as long as the machine's memory, which each vCPU, without
        // which nothing reaches the slot, holds.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(into_io)
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
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.blocks.is_plugged(block) {
            return Ok(());
        }
        self.pages.forget_block(block);
        self.blocks.plug(block)?;
        self.set_slot(block, self.blocks.block()).inspect_err(|_| {
            // The guest does not have it: the memory that nobody has touched is of no use.
            let _kept = self.blocks.unplug(block);
        })
    }

    fn unplug(&self, block: u64) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.blocks.is_plugged(block) {
            return Ok(());
        }
        // The guest loses it first: at no time does it see what is common to unplugged blocks.
        self.set_slot(block, Bytes(0))?;
        self.blocks.unplug(block).inspect_err(|_| {
            let _lost = self.set_slot(block, self.blocks.block());
        })
    }
}

//! One vCPU: running it, and dispatching what leaves the guest.
#![allow(unsafe_code)] // The reason of an exit is a member of a C union.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_EXIT_MEMORY_FAULT, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use napa_memory::{GuestRam, is_writable};
use napa_sys::lost_memory::Content;
use vm_memory::GuestMemoryBackend as _;

use crate::buses::Buses;

/// Why [`Vcpu::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A signal asked the thread to look at its orders.
    Interrupted,
    /// The vCPU met a fault while delivering a double fault.
    TripleFault,
}

/// KVM cannot go on with a vCPU.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// `KVM_RUN` failed.
    #[error("vCPU {0}: KVM_RUN failed: {1}")]
    Run(u32, #[source] io::Error),
    /// There is no page behind an address that the guest has.
    #[error("vCPU {id}: the host has no page for {}", describe_place(.place))]
    NoPage {
        /// Number of the vCPU.
        id: u32,
        /// Guest-physical address and what is behind it, where KVM tells.
        place: Option<(u64, Content)>,
    },
    /// KVM gave up on an instruction, or the processor refused the vCPU's state.
    #[error("vCPU {id} at {rip:#x}: {reason}")]
    Stuck {
        /// Number of the vCPU.
        id: u32,
        /// Guest instruction pointer.
        rip: u64,
        /// What KVM said.
        reason: String,
    },
}

/// A vCPU. It belongs to one thread at a time.
pub struct Vcpu {
    fd: VcpuFd,
    id: u32,
    buses: Arc<Buses>,
    page: RunPage,
    keeps: Arc<Keeps>,
}

/// The page that KVM shares with us for one vCPU, for what the crate does not show of an exit.
struct RunPage(*const kvm_run);

// SAFETY: the page belongs to the vCPU, which goes from thread to thread as a whole.
unsafe impl Send for RunPage {}

impl RunPage {
    /// Bytes of one item of the port access that ended the last run: a string instruction has several.
    fn io_size(&self) -> usize {
        // SAFETY: the page is mapped while the vCPU's descriptor, a sibling of this field, lives; KVM writes to it
        // only inside KVM_RUN.
        let exit = unsafe { &(*self.0).__bindgen_anon_1 };
        // SAFETY: KVM fills this member when the exit reason is KVM_EXIT_IO; other bytes would be numbers too.
        let size = unsafe { exit.io }.size;
        usize::from(size).max(1)
    }
}

/// What a machine has to keep while any of its vCPUs may run.
pub(crate) struct Keeps {
    /// Interrupts by eventfd end when the VM's descriptor is closed.
    pub _vm: Arc<VmFd>,
    /// The memory slots point into it.
    pub memory: Arc<GuestRam>,
}

impl Keeps {
    /// What is behind an address: an image is what the guest can only read.
    fn content(&self, address: u64) -> Content {
        let region = self.memory.find_region(vm_memory::GuestAddress(address));
        if region.is_some_and(|region| !is_writable(region)) { Content::Image } else { Content::Ram }
    }
}

impl Vcpu {
    pub(crate) fn new(mut fd: VcpuFd, id: u32, buses: Arc<Buses>, keeps: Arc<Keeps>) -> Self {
        let page = RunPage(fd.get_kvm_run());
        Self { fd, id, buses, page, keeps }
    }

    /// Number of the vCPU, which is its APIC id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The byte that makes the next `KVM_RUN` return at once when it is not zero (KVM API §5, `immediate_exit`).
    pub fn immediate_exit(&mut self) -> *mut u8 {
        &raw mut self.fd.get_kvm_run().immediate_exit
    }

    /// Lets `KVM_RUN` run again after a kick.
    pub fn clear_immediate_exit(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Runs the guest until something other than an access to a device happens.
    ///
    /// # Errors
    /// KVM cannot go on; running again would end the same way.
    pub fn run(&mut self) -> Result<Step, VcpuError> {
        loop {
            match self.fd.run() {
                Ok(VcpuExit::IoIn(port, data)) => {
                    data.chunks_mut(self.page.io_size()).for_each(|item| self.buses.port_read(port, item));
                }
                Ok(VcpuExit::IoOut(port, data)) => {
                    data.chunks(self.page.io_size()).for_each(|item| self.buses.port_write(port, item));
                }
                // An image is read without leaving the guest, so its page is gone: KVM says it in two ways.
                Ok(VcpuExit::MmioRead(address, _)) if self.keeps.content(address) == Content::Image => {
                    return Err(VcpuError::NoPage { id: self.id, place: Some((address, Content::Image)) });
                }
                Ok(VcpuExit::MmioRead(address, data)) => self.buses.memory_read(address, data),
                Ok(VcpuExit::MmioWrite(address, data)) => self.buses.memory_write(address, data),
                Ok(VcpuExit::Shutdown) => return Ok(Step::TripleFault),
                Ok(VcpuExit::Intr) => return Ok(Step::Interrupted),
                Ok(VcpuExit::InternalError) => {
                    let reason = self.internal_error();
                    return Err(self.stuck(reason));
                }
                Ok(exit) => {
                    let reason = describe(&exit);
                    return Err(self.stuck(reason));
                }
                Err(error) if error.errno() == libc::EINTR => return Ok(Step::Interrupted),
                // A vCPU that waits for its start-up message may come back without a reason.
                Err(error) if error.errno() == libc::EAGAIN => {}
                Err(error) if error.errno() == libc::EFAULT => {
                    let place = self.fault_address().map(|address| (address, self.keeps.content(address)));
                    return Err(VcpuError::NoPage { id: self.id, place });
                }
                Err(error) => {
                    return Err(VcpuError::Run(self.id, io::Error::from_raw_os_error(error.errno())));
                }
            }
        }
    }

    /// What KVM could not do (KVM API §5, KVM_EXIT_INTERNAL_ERROR), with the instruction where it tells.
    fn internal_error(&mut self) -> String {
        const EMULATION: u32 = 1;
        let run = self.fd.get_kvm_run();
        // SAFETY: KVM fills this member when the exit reason is KVM_EXIT_INTERNAL_ERROR, which it was.
        let error = unsafe { run.__bindgen_anon_1.internal };
        let data = &error.data[..(error.ndata as usize).min(error.data.len())];
        let what = if error.suberror == EMULATION {
            "could not emulate an instruction"
        } else {
            "met an internal error"
        };
        format!("KVM {what} (suberror {}, data {data:x?})", error.suberror)
    }

    /// The address without a page (KVM API §5, KVM_EXIT_MEMORY_FAULT).
    fn fault_address(&mut self) -> Option<u64> {
        let run = self.fd.get_kvm_run();
        if run.exit_reason != KVM_EXIT_MEMORY_FAULT {
            return None;
        }
        // SAFETY: KVM fills this member when the exit reason is KVM_EXIT_MEMORY_FAULT, which it is.
        Some(unsafe { run.__bindgen_anon_1.memory_fault }.gpa)
    }

    fn stuck(&mut self, reason: String) -> VcpuError {
        let rip = self.fd.get_regs().map_or(0, |registers| registers.rip);
        VcpuError::Stuck { id: self.id, rip, reason }
    }
}

fn describe_place(place: &Option<(u64, Content)>) -> String {
    match place {
        Some((address, content)) => format!("the guest's address {address:#x}: {}", content.cause()),
        None => {
            let [image, ram] = [Content::Image, Content::Ram].map(Content::cause);
            format!("an address of the guest: {image}; or {ram}")
        }
    }
}

fn describe(exit: &VcpuExit<'_>) -> String {
    match exit {
        VcpuExit::FailEntry(reason, _) => {
            format!("the processor refused the vCPU's state (reason {reason:#x})")
        }
        other => format!("unexpected exit {other:?}"),
    }
}

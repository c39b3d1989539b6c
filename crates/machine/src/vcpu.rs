//! One vCPU: running it, and dispatching what leaves the guest.

use std::io;
use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};

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
}

impl Vcpu {
    pub(crate) fn new(fd: VcpuFd, id: u32, buses: Arc<Buses>) -> Self {
        Self { fd, id, buses }
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
                Ok(VcpuExit::IoIn(port, data)) => self.buses.port_read(port, data),
                Ok(VcpuExit::IoOut(port, data)) => self.buses.port_write(port, data),
                Ok(VcpuExit::MmioRead(address, data)) => self.buses.memory_read(address, data),
                Ok(VcpuExit::MmioWrite(address, data)) => self.buses.memory_write(address, data),
                Ok(VcpuExit::Shutdown) => return Ok(Step::TripleFault),
                Ok(VcpuExit::Intr) => return Ok(Step::Interrupted),
                Ok(exit) => {
                    let reason = describe(&exit);
                    return Err(self.stuck(reason));
                }
                Err(error) if error.errno() == libc::EINTR => return Ok(Step::Interrupted),
                // A vCPU that waits for its start-up message may come back without a reason.
                Err(error) if error.errno() == libc::EAGAIN => {}
                Err(error) => {
                    return Err(VcpuError::Run(self.id, io::Error::from_raw_os_error(error.errno())));
                }
            }
        }
    }

    fn stuck(&mut self, reason: String) -> VcpuError {
        let rip = self.fd.get_regs().map_or(0, |registers| registers.rip);
        VcpuError::Stuck { id: self.id, rip, reason }
    }
}

fn describe(exit: &VcpuExit<'_>) -> String {
    match exit {
        VcpuExit::InternalError => "KVM could not emulate an instruction (KVM_EXIT_INTERNAL_ERROR)".into(),
        VcpuExit::FailEntry(reason, _) => {
            format!("the processor refused the vCPU's state (reason {reason:#x})")
        }
        other => format!("unexpected exit {other:?}"),
    }
}

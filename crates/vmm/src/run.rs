//! The life of a VM from configuration to exit.

use napa_api::config::OnReboot;
use napa_api::{Exit, VmConfig};
use napa_sys::reactor::Reactor;
use napa_sys::signal::SignalFd;

use crate::assemble::assemble;
use crate::error::RunError;

/// Signals that the control thread takes: stop, stop, the terminal is gone, its size, back in the foreground.
const SIGNALS: [i32; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGWINCH, libc::SIGCONT];

/// Runs the VM that `config` describes, on the calling thread and threads of its own, until it ends.
/// A guest's reset starts it again, unless the configuration says otherwise.
///
/// # Errors
/// The VM could not be started, or the host failed; nothing of it is left behind.
pub fn run(config: &VmConfig) -> Result<Exit, RunError> {
    loop {
        let exit = run_once(config)?;
        if exit != Exit::Reboot || config.on_reboot == OnReboot::Exit {
            return Ok(exit);
        }
        eprintln!("napa: {}: the guest asked for a reboot: starting again\r", config.name_or_default());
    }
}

fn run_once(config: &VmConfig) -> Result<Exit, RunError> {
    // Before any thread starts, so that no other thread takes the signals.
    let signals = SignalFd::new(&SIGNALS).map_err(|error| RunError::host("cannot collect signals", error))?;
    let (mut reactor, handle) = Reactor::new().map_err(no_io_uring)?;
    let running = assemble(config, signals, &mut reactor, &handle)?;
    let served =
        reactor.run().map_err(|error| RunError::host("the control thread cannot wait for events", error));
    // Whoever waits for the control thread learns that it is over; the vCPUs end; then their devices.
    drop(reactor);
    let ended = running.finish();
    served?;
    ended.ok_or_else(|| RunError::Host("the control thread ended before the VM did".into()))
}

fn no_io_uring(error: std::io::Error) -> RunError {
    let mend = match error.raw_os_error() {
        Some(libc::EPERM) => "allow it: sysctl kernel.io_uring_disabled=0",
        Some(libc::ENOSYS) => "napa needs a kernel with io_uring (Linux 5.11 or later)",
        Some(libc::ENOMEM) => "raise the limit of locked memory: ulimit -l",
        _ => "napa doctor tells more",
    };
    RunError::BadInput(format!("the kernel gives napa no io_uring: {error}; {mend}"))
}

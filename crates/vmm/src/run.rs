//! The life of a VM from configuration to exit.

use napa_api::{Exit, VmConfig};
use napa_sys::cgroup::Group;
use napa_sys::lost_memory;
use napa_sys::reactor::{Handle, Reactor};
use napa_sys::signal::SignalFd;
use napa_sys::socket::{self, Listener};
use napa_virtio::Threads;

use crate::control::{Control, Lifecycle, Outcome, Sources};
use crate::control_group;
use crate::error::RunError;
use crate::events::{Event, Events};
use crate::opened::Opened;
use crate::sandbox;

/// Signals that the control thread takes: stop, stop, the terminal is gone, its size, back in the foreground.
const SIGNALS: [i32; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGWINCH, libc::SIGCONT];

/// Runs the VM that `config` describes, on the calling thread and threads of its own, until it ends.
/// A guest's reset starts it again, unless the configuration says otherwise.
///
/// # Errors
/// The VM could not be started, or the host failed; nothing of it is left behind.
pub fn run(config: &VmConfig) -> Result<Exit, RunError> {
    // Before any thread starts, so that no other thread takes the signals.
    let signals = SignalFd::new(&SIGNALS).map_err(|error| RunError::host("cannot collect signals", error))?;
    let (mut reactor, handle) = Reactor::new().map_err(no_io_uring)?;
    lost_memory::end_with(Exit::Stuck.code(), clean_up)
        .map_err(|error| RunError::host("cannot watch for memory that the host loses", error))?;
    // Before there is memory, which belongs to the group in which it is first touched; left after all is given back.
    let group = control_group::enter(config)?;
    let outcome = start(config, group.as_ref(), signals, &mut reactor, &handle)?;
    let served = reactor.run();
    // Drops the workers, and with them what is left of the VM.
    drop(reactor);
    served.map_err(|error| RunError::host("the control thread cannot wait for events", error))?;
    outcome.take()
}

fn start(
    config: &VmConfig,
    group: Option<&Group>,
    signals: SignalFd,
    reactor: &mut Reactor,
    handle: &Handle,
) -> Result<Outcome, RunError> {
    let events = Events::new().map_err(|error| RunError::host("cannot make an eventfd", error))?;
    let listener = config
        .api_socket
        .as_deref()
        .map(Listener::bind)
        .transpose()
        .map_err(|error| RunError::BadInput(format!("--api-socket {error}")))?;
    let on_command = {
        let events = events.clone();
        Box::new(move |command| events.post(Event::Console(command)))
    };
    let (opened, console_worker) =
        Opened::open(config, group.map(Group::files).unwrap_or_default(), on_command)?;
    if config.sandbox {
        sandbox::close(config, group)?;
    }
    let console = std::sync::Arc::clone(&opened.console);
    let threads = Threads::new(handle.clone(), config.cpus);
    let outcome = Outcome::default();
    let lifecycle = Lifecycle::start(opened, events.clone(), threads, outcome.clone())?;
    reactor.add(console_worker);
    console.attach()?;
    let sources = Sources { events, signals, listener, console, reactor: handle.clone() };
    reactor.add(Box::new(Control::new(sources, lifecycle)));
    Ok(outcome)
}

/// What others would stumble over once this process has ended without taking leave. Runs in a signal handler.
fn clean_up() {
    napa_devices::restore_terminal();
    socket::remove_all();
}

fn no_io_uring(error: std::io::Error) -> RunError {
    let mend = match error.raw_os_error() {
        Some(libc::EPERM) => "allow it: sysctl kernel.io_uring_disabled=0",
        Some(libc::ENOSYS) => "boot a kernel with io_uring: Linux 6.1 or newer",
        Some(libc::ENOMEM) => "raise the limit of locked memory: ulimit -l",
        _ => "napa doctor tells more",
    };
    RunError::BadInput(format!("the kernel gives napa no io_uring: {error}; {mend}"))
}

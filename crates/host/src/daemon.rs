//! The daemon: joins the state, the supervisor, the tick and the server, and ends them in order.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use napa_policy::Kind;
use napa_sys::host::{Cgroup, Root};
use napa_units::Bytes;
use tokio::signal::unix::{SignalKind, signal};

use crate::promises::Promises;
use crate::record::Recorder;
use crate::server::{self, Latest, ListenError, Sources, TlsError, TlsListener, TlsPaths, UnixSocket};
use crate::state::{FolderLock, LockError, Store, StoreError};
use crate::supervisor::{self, BeginError, Groups, Supervisor};
use crate::tick::{self, Tick, Ticker};

/// How long the state folder of a daemon that has just been killed may still be held: by a VM's process that it was about
/// to start.
const LOCK_BOUND: Duration = Duration::from_secs(2);
/// How often it is looked whether it is.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Threads beside the server's, for what waits for a disk or a VM.
const THREADS_BESIDE: usize = 8;

/// What the record of decisions takes of the disk: about a day of three VMs, three quarters of an hour of a hundred.
const RECORD_MAX: Bytes = Bytes::mib(256);

/// What a daemon is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state folder.
    pub state: PathBuf,
    /// The socket to listen on.
    pub socket: PathBuf,
    /// The group whose members may speak to it, besides its own user.
    pub group: Option<String>,
    /// The address to listen on, with certificates.
    pub listen: Option<(SocketAddr, TlsPaths)>,
    /// How much RAM VMs may hold.
    pub memory: tick::Settings,
    /// Who decides.
    pub policy: Kind,
    /// The `napa` program, which runs VMs.
    pub program: PathBuf,
}

/// Why a daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state folder cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// VMs cannot be supervised.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// The socket cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TCP cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The host failed.
    #[error("the daemon cannot go on: {0}")]
    Host(#[from] io::Error),
}

impl DaemonError {
    /// Whether the words it was started with are to blame, and not the host.
    pub const fn is_bad_input(&self) -> bool {
        matches!(self, Self::Lock(_) | Self::Listen(_) | Self::Tls(_))
    }
}

/// Runs a daemon until it is asked to end (SIGINT, SIGTERM). The VMs run on.
///
/// # Errors
/// It could not begin; no VM was touched then, unless the state could be read.
pub fn run(settings: Settings) -> Result<(), DaemonError> {
    let _lock = lock(&settings.state)?;
    let socket = UnixSocket::bind(&settings.socket, settings.group.as_deref())?;
    let store = Store::open(&settings.state)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS_BESIDE)
        .thread_keep_alive(Duration::from_secs(5))
        .build()?;
    runtime.block_on(async {
        let tcp = match &settings.listen {
            Some((address, paths)) => Some(TlsListener::bind(*address, paths).await?),
            None => None,
        };
        let root = Root::system();
        let groups = groups(&root);
        let supervised =
            supervisor::Settings { state: settings.state.clone(), program: settings.program.clone(), groups };
        let latest = Arc::new(Latest::default());
        let promises = Promises::new(settings.memory, root.clone(), Arc::clone(&latest));
        let supervisor = Supervisor::begin(supervised, store, Box::new(promises))?;
        let sources = Arc::new(Sources { supervisor, latest });
        let ticker = start_ticking(&settings, &root, &sources)?;
        serve(&settings, &sources, &socket, tcp).await?;
        crate::say(format_args!("ends; its VMs run on"));
        drop(ticker);
        Ok(())
    })
}

fn start_ticking(settings: &Settings, root: &Root, sources: &Arc<Sources>) -> io::Result<Ticker> {
    let mut tick = Tick::new(settings.memory, settings.policy.start(), root);
    tick.record(Recorder::new(&settings.state, RECORD_MAX));
    if let Some(reason) = tick.why_polled() {
        crate::say(format_args!("the kernel does not call when memory is short, so it is asked: {reason}"));
    }
    let top = hierarchy(root);
    // Weak: the thread must not keep alive what waits for its end.
    let (subjects, told) = (Arc::downgrade(sources), Arc::clone(&sources.latest));
    Ticker::start(
        tick,
        move || {
            subjects.upgrade().map(|sources| sources.supervisor.subjects(top.as_deref())).unwrap_or_default()
        },
        move |report| told.tell(report),
    )
}

/// Whether VMs can have control groups of their own: there is the memory controller, and groups can be made.
fn groups(root: &Root) -> Groups {
    let can_make = |top: PathBuf| rustix::fs::access(&top, rustix::fs::Access::WRITE_OK).is_ok();
    match Cgroup::read(root).memory_v2() && hierarchy(root).is_some_and(can_make) {
        true => Groups::Each,
        false => Groups::None,
    }
}

/// The root of the hierarchy of version 2.
fn hierarchy(root: &Root) -> Option<PathBuf> {
    let mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"].map(|mount| root.as_ref().join(mount));
    mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists())
}

async fn serve(
    settings: &Settings,
    sources: &Arc<Sources>,
    socket: &UnixSocket,
    tcp: Option<TlsListener>,
) -> Result<(), DaemonError> {
    let mut stop = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(terminate), Ok(interrupt)] = &mut stop else {
        return Err(io::Error::other("it cannot take signals").into());
    };
    let router = server::router(Arc::clone(sources));
    let unix = axum::serve(socket.for_server()?, server::local_router(Arc::clone(sources)));
    let vms = sources.list().len();
    crate::say(format_args!("listens on {}; {vms} VMs", settings.socket.display()));
    let over_tcp = async {
        match tcp {
            Some(listener) => {
                crate::say(format_args!("listens on https://{}", listener.address()));
                axum::serve(listener, router).await
            }
            None => std::future::pending().await,
        }
    };
    tell_service_manager();
    tokio::select! {
        served = unix => served?,
        served = over_tcp => served?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<FolderLock, LockError> {
    let until = Instant::now() + LOCK_BOUND;
    loop {
        match FolderLock::take(folder) {
            Err(LockError::Held { .. }) if Instant::now() < until => std::thread::sleep(LOCK_POLL),
            other => return other,
        }
    }
}

/// Tells systemd that the daemon can be spoken to, if it waits for that (sd_notify(3)).
fn tell_service_manager() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
    if let Err(error) = told {
        crate::say(format_args!("the service manager does not listen: {error}"));
    }
}

//! What can be asked of the supervisor. No verb waits for a VM.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use napa_api::VmConfig;
use napa_api::config::{ConfigError, ConsoleConfig, STOP_TIMEOUT_S_MAX, check_name};
use napa_api::control::{Command, State};
use napa_api::host::{CreateVm, SHARES_DEFAULT, SHARES_MAX, VmState};
use rustix::process::Signal;

use super::admission::Promise;
use super::process::{self, Process};
use super::vm::{Alive, Ending, Phase, Readiness, Vm, exit_of, limit, stop_bound};
use super::{Inner, Shared, Supervisor, VerbError, VmFolder, watch};
use crate::clock;
use crate::control;
use crate::state::{Launch, Record, Wanted};

/// What a VM is given beyond the time for its stop before its process is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a hard stop may take before the process is killed.
const KILL_GRACE: Duration = Duration::from_secs(3);

impl Supervisor {
    /// Notes a new VM. It is on the disk when this returns.
    ///
    /// # Errors
    /// The configuration cannot be, the name is in use, or the disk is full.
    pub fn create(&self, vm: CreateVm) -> Result<(), VerbError> {
        let shared = &self.shared;
        let mut inner = shared.lock();
        let name =
            vm.config.name.clone().ok_or_else(|| {
                VerbError::Unfit("config.name is missing: a VM of a host needs a name".into())
            })?;
        check(&vm)?;
        if inner.vms.contains_key(&name) {
            return Err(VerbError::NameInUse(name));
        }
        // What could not start on an otherwise empty host never can.
        let reservation = vm.reservation.unwrap_or_default();
        inner.admission.fits(&name, &[], Promise { limit: limit(&vm.config), reservation })?;
        let id = inner.store.next_id()?;
        let record = Record {
            id,
            config: vm.config,
            restart: vm.restart,
            reservation,
            shares: vm.shares.unwrap_or(SHARES_DEFAULT),
            created: clock::now(),
            wanted: Wanted::Stopped,
            restarts: 0,
            launch: None,
            exit: None,
        };
        let vm = Vm::resting(record, &shared.settings.state);
        let config = vm.config_to_run(shared.settings.groups);
        config.check().map_err(|error| too_deep(error, &vm.folder))?;
        inner.store.put(&vm.record)?;
        shared.changed(&vm);
        inner.vms.insert(name, vm);
        Ok(())
    }

    /// Forgets a VM that has no process, and all that belongs to it.
    ///
    /// # Errors
    /// It is unknown or has a process, or the state cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), VerbError> {
        let mut inner = self.shared.lock();
        let vm = inner.find(name)?;
        if vm.alive().is_some() {
            let mend = "stop it first: napa stop, or napa kill";
            return Err(VerbError::State { name: name.to_owned(), state: vm.state(), mend });
        }
        inner.store.remove(name)?;
        if let Some(vm) = inner.vms.remove(name)
            && let Err(error) = vm.folder.remove()
        {
            // The next daemon removes folders that belong to nobody.
            crate::say(format_args!("VM {name} is removed, but not its folder: {error}"));
        }
        self.shared.removed(name);
        Ok(())
    }

    /// Starts a VM; does nothing to one that has a process.
    ///
    /// # Errors
    /// It is unknown or ends just now, the host cannot promise its memory, or the process cannot be made.
    pub fn start(&self, name: &str) -> Result<(), VerbError> {
        let mut inner = self.shared.lock();
        match inner.find(name)?.state() {
            VmState::Starting | VmState::Running | VmState::Paused => return Ok(()),
            VmState::Stopping => {
                let mend = "wait until it has ended, then start it again";
                return Err(VerbError::State { name: name.to_owned(), state: VmState::Stopping, mend });
            }
            VmState::Created | VmState::Stopped | VmState::Waiting => {}
        }
        inner.admit(name)?;
        inner.launch(&self.shared, name, 0)
    }

    /// Asks a VM to switch itself off; it is stopped hard after its bound, or after `timeout_s` seconds.
    ///
    /// # Errors
    /// It is unknown, the bound is above one day, or the state cannot be written.
    pub fn stop(&self, name: &str, timeout_s: Option<u32>) -> Result<(), VerbError> {
        if let Some(timeout_s) = timeout_s.filter(|timeout_s| *timeout_s > STOP_TIMEOUT_S_MAX) {
            return Err(ConfigError::StopTimeout(timeout_s).into());
        }
        let mut inner = self.shared.lock();
        let bound = stop_bound(&inner.find(name)?.record.config, timeout_s) + STOP_GRACE;
        inner.end(&self.shared, name, Command::Stop { timeout_s }, bound)
    }

    /// Stops a VM hard.
    ///
    /// # Errors
    /// It is unknown, or the state cannot be written.
    pub fn kill(&self, name: &str) -> Result<(), VerbError> {
        self.shared.lock().end(&self.shared, name, Command::Kill, KILL_GRACE)
    }

    /// The control socket of a VM that runs, for verbs that talk to it.
    ///
    /// # Errors
    /// It is unknown or does not run.
    pub fn control_socket(&self, name: &str) -> Result<PathBuf, VerbError> {
        let inner = self.shared.lock();
        let vm = inner.find(name)?;
        match vm.state() {
            VmState::Running | VmState::Paused | VmState::Stopping => Ok(vm.folder.control()),
            state => {
                let mend = "this needs one that runs: napa start";
                Err(VerbError::State { name: name.to_owned(), state, mend })
            }
        }
    }

    /// Notes what a VM said of its vCPUs.
    pub fn note_state(&self, name: &str, state: State) {
        let mut inner = self.shared.lock();
        let Some(vm) = inner.vms.get_mut(name) else { return };
        let Phase::Alive(alive) = &mut vm.phase else { return };
        if std::mem::replace(&mut alive.is_paused, state == State::Paused) != alive.is_paused {
            self.shared.changed(vm);
        }
    }
}

impl Inner {
    /// Whether the host can promise a VM its memory besides what it has promised to others.
    fn admit(&self, name: &str) -> Result<(), VerbError> {
        let promise = |vm: &Vm| Promise { limit: vm.limit(), reservation: vm.record.reservation };
        let others = self.vms.values().filter(|vm| vm.has_promise() && vm.record.name() != name);
        let promised: Vec<Promise> = others.map(promise).collect();
        self.admission.is_open(name)?;
        self.admission.fits(name, &promised, promise(self.find(name)?))
    }

    /// Makes the process of a VM that has none.
    pub(super) fn launch(&mut self, shared: &Shared, name: &str, restarts: u32) -> Result<(), VerbError> {
        let vm = self.find(name)?;
        let folder = vm.folder.clone();
        let config = vm.config_to_run(shared.settings.groups);
        let prepared = folder.make().and_then(|()| process::forget_last(&folder));
        let prepared = prepared.and_then(|()| write_config(&config, &folder));
        prepared.map_err(|source| failed(name, source, &shared.settings.state))?;
        let launch = Launch { started: clock::now(), boot: boot(), process: None };
        self.update(name, |record| {
            record.wanted = Wanted::Running;
            record.restarts = restarts;
            record.launch = Some(launch);
        })?;
        match Process::start(&shared.settings.program, &folder) {
            Ok(process) => {
                self.took_over(shared, name, process);
                Ok(())
            }
            Err(source) => {
                self.note(name, |record| {
                    record.wanted = Wanted::Stopped;
                    record.launch = None;
                });
                if let Ok(vm) = self.find_mut(name) {
                    vm.phase = Phase::Resting;
                }
                Err(failed(name, source, &shared.settings.state))
            }
        }
    }

    /// Watches a process from now on, which was made or found.
    pub(super) fn took_over(&mut self, shared: &Shared, name: &str, process: Process) {
        let id = process.id();
        self.note(name, |record| {
            if let Some(launch) = &mut record.launch {
                launch.process = Some(id);
            }
        });
        let Some(vm) = self.vms.get_mut(name) else { return };
        if let Err(error) = shared.register(process.pidfd(), watch::data(vm.record.id, watch::Of::Process)) {
            // It is looked at now and then as well.
            crate::say(format_args!("VM {name}: its end may be noticed late: {error}"));
        }
        let now = Instant::now();
        vm.phase = Phase::Alive(Alive {
            process,
            since: now,
            readiness: Readiness::Absent { next: now },
            is_paused: false,
            ending: None,
        });
        shared.changed(vm);
        shared.wake();
    }

    /// Has a VM end by a command; its process is killed after `bound`. A full disk does not keep it from that.
    pub(super) fn end(
        &mut self,
        shared: &Shared,
        name: &str,
        command: Command,
        bound: Duration,
    ) -> Result<(), VerbError> {
        if self.find(name)?.record.wanted != Wanted::Stopped {
            self.note(name, |record| record.wanted = Wanted::Stopped);
        }
        let vm = self.find_mut(name)?;
        match &mut vm.phase {
            Phase::Resting => return Ok(()),
            Phase::Waiting { .. } => vm.phase = Phase::Resting,
            Phase::Alive(alive) => {
                let request = control::send(&vm.folder.control(), command);
                if request.is_err() {
                    // It does not listen yet, or any more.
                    alive.process.signal(Signal::TERM);
                }
                let deadline = Instant::now() + bound;
                let deadline =
                    alive.ending.as_ref().map_or(deadline, |earlier| earlier.deadline.min(deadline));
                alive.ending = Some(Ending { deadline, is_killed: false, _request: request.ok() });
            }
        }
        shared.changed(vm);
        shared.wake();
        Ok(())
    }

    /// Notes that the process of a VM has ended, and what follows from it.
    pub(super) fn ended(&mut self, shared: &Shared, name: &str) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Phase::Alive(alive) = std::mem::replace(&mut vm.phase, Phase::Resting) else { return };
        let was_killed = alive.ending.as_ref().is_some_and(|ending| ending.is_killed);
        let exit = exit_of(process::exit_note(&vm.folder), alive.process.status(), was_killed);
        crate::say(format_args!("VM {name} has ended: {}", exit.reason));
        self.settle(shared, name, exit, alive.since.elapsed());
    }

    /// What follows from an end.
    pub(super) fn settle(
        &mut self,
        shared: &Shared,
        name: &str,
        exit: napa_api::host::VmExit,
        ran: Duration,
    ) {
        use super::restart::{Next, after_end};
        let Some(vm) = self.vms.get(name) else { return };
        let record = &vm.record;
        let next = after_end(record.restart, record.wanted, &exit, ran, record.restarts);
        self.note(name, |record| {
            record.exit = Some(exit);
            record.launch = None;
            match next {
                Next::Rest => record.wanted = Wanted::Stopped,
                Next::StartAgain { restarts, .. } => record.restarts = restarts,
            }
        });
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.phase = match next {
            Next::Rest => Phase::Resting,
            Next::StartAgain { wait, .. } => {
                Phase::Waiting { until: Instant::now() + wait, time: clock::in_future(wait) }
            }
        };
        shared.changed(vm);
    }
}

/// The boot of the host.
pub(super) fn boot() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn check(vm: &CreateVm) -> Result<(), VerbError> {
    let unfit = |what: String| Err(VerbError::Unfit(what));
    vm.config.check()?;
    check_name(vm.config.name_or_default())?;
    if vm.config.api_socket.is_some() {
        return unfit("config.api_socket is the host's to choose: leave it out".into());
    }
    if let Some(path) = paths(&vm.config).into_iter().find(|path| !path.is_absolute()) {
        return unfit(format!(
            "the path {} is relative, and the host's folder is not yours: write it from '/' on",
            path.display()
        ));
    }
    let limit = limit(&vm.config);
    if let Some(reservation) = vm.reservation.filter(|reservation| *reservation > limit) {
        return unfit(format!(
            "a reservation of {reservation} is more than the VM's memory, {limit}: reserve less"
        ));
    }
    if let Some(shares) = vm.shares.filter(|shares| !(1..=SHARES_MAX).contains(shares)) {
        return unfit(format!("{shares} shares are out of range: a VM has 1 to {SHARES_MAX}"));
    }
    Ok(())
}

/// The files and sockets that a configuration names.
fn paths(config: &VmConfig) -> Vec<&Path> {
    let console = match &config.console {
        ConsoleConfig::File(path) | ConsoleConfig::Socket(path) => Some(path),
        ConsoleConfig::Stdio | ConsoleConfig::Off => None,
    };
    let single = [
        config.kernel.as_ref(),
        config.initrd.as_ref(),
        config.console_log.as_ref(),
        console,
        config.vsock.as_ref().map(|vsock| &vsock.path),
    ];
    let several =
        config.disks.iter().map(|disk| &disk.path).chain(config.pmems.iter().map(|pmem| &pmem.path));
    single.into_iter().flatten().chain(several).map(PathBuf::as_path).collect()
}

/// The sockets of a VM are in the state folder, whose path may be too long for them.
fn too_deep(error: ConfigError, folder: &VmFolder) -> VerbError {
    match error {
        ConfigError::SocketPathTooLong { max, .. } => VerbError::Unfit(format!(
            "{} is too long for a socket's path, which has at most {max} bytes: give 'napa host' a --state with a shorter path",
            folder.control().display()
        )),
        other => other.into(),
    }
}

fn write_config(config: &VmConfig, folder: &VmFolder) -> io::Result<()> {
    let text = config.to_toml().map_err(io::Error::other)?;
    std::fs::write(folder.config(), text)
}

fn failed(name: &str, source: io::Error, state: &Path) -> VerbError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            VerbError::DiskFull { folder: state.display().to_string() }
        }
        _ => VerbError::Spawn { name: name.to_owned(), source },
    }
}

/// Asks a VM how it is, without waiting for the answer.
pub(super) fn ask_status(folder: &VmFolder) -> io::Result<UnixStream> {
    control::send(&folder.control(), Command::Status)
}

//! The thread that waits for what VMs do, and for deadlines.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use napa_api::control::{LINE_BYTES_MAX, Response, State, Status};
use rustix::event::{Timespec, epoll};
use rustix::process::Signal;

use super::vm::{Phase, Readiness, Vm};
use super::{Inner, Shared, logs, verbs};
use crate::clock;
use crate::state::Wanted;

/// The event that makes the thread look at everything; VMs have numbers from 1.
pub(super) const WAKE: u64 = 0;
/// Events taken in one turn.
const EVENTS_MAX: usize = 64;
/// How often it is looked whether the socket of a starting VM is there.
const SOCKET_POLL: Duration = Duration::from_millis(10);
/// How often logs are measured while VMs run, and records written that could not be.
const CARE_EVERY: Duration = Duration::from_secs(5);

/// How long after a start that failed it is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What of a VM an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Its process has ended.
    Process = 0,
    /// It answers.
    Answer = 1,
}

/// What an event carries.
pub(super) const fn data(id: u64, of: Of) -> u64 {
    (id << 1) | of as u64
}

/// Watches until the supervisor is dropped.
pub(super) fn watch(shared: &Shared) {
    let mut next_care = Instant::now() + CARE_EVERY;
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        let timeout = {
            let mut inner = shared.lock();
            let now = Instant::now();
            inner.meet_deadlines(shared, now);
            if now >= next_care {
                inner.take_care(shared);
                next_care = now + CARE_EVERY;
            }
            let deadline = inner.next_deadline();
            let care = inner.needs_care().then_some(next_care);
            [deadline, care]
                .into_iter()
                .flatten()
                .min()
                .map(|next| next.saturating_duration_since(Instant::now()))
        };
        wait(shared, &mut events, timeout);
        if shared.is_over.load(Ordering::Acquire) {
            return;
        }
        let mut inner = shared.lock();
        for event in events.drain(..) {
            inner.handle(shared, event);
        }
    }
}

/// Waits for events or the end of a time, rounded up so that it is over then.
fn wait(shared: &Shared, events: &mut Vec<u64>, timeout: Option<Duration>) {
    let timeout = timeout
        .map(|timeout| timeout + Duration::from_millis(1))
        .map(|timeout| Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() });
    let mut found: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
    match epoll::wait(&shared.epoll, rustix::buffer::spare_capacity(&mut found), timeout.as_ref()) {
        Ok(_) => events.extend(found.iter().map(|event| event.data.u64())),
        // Interrupted: the turn is made without events.
        Err(_) => std::thread::yield_now(),
    }
}

impl Inner {
    fn handle(&mut self, shared: &Shared, event: u64) {
        if event == WAKE {
            let mut count = [0; 8];
            // Nobody else reads it: there is a count to be had, or it was had.
            let _ = rustix::io::read(&shared.wake, &mut count);
            return;
        }
        let Some(name) = self.name_of(event >> 1) else { return };
        match event & 1 == Of::Process as u64 {
            true => self.ended(shared, &name),
            false => self.answered(shared, &name),
        }
    }

    fn name_of(&self, id: u64) -> Option<String> {
        self.vms.iter().find(|(_, vm)| vm.record.id == id).map(|(name, _)| name.clone())
    }

    /// A VM that was asked how it is has something to say, or has hung up.
    fn answered(&mut self, shared: &Shared, name: &str) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Phase::Alive(alive) = &mut vm.phase else { return };
        let Readiness::Asked(stream) = &mut alive.readiness else { return };
        match read_status(stream) {
            Some(status) => {
                alive.readiness = Readiness::Ready;
                alive.is_paused = status.state == State::Paused;
                shared.changed(vm);
            }
            None => alive.readiness = Readiness::Absent { next: Instant::now() + SOCKET_POLL },
        }
    }

    fn meet_deadlines(&mut self, shared: &Shared, now: Instant) {
        for vm in self.vms.values_mut() {
            let Phase::Alive(alive) = &mut vm.phase else { continue };
            if let Some(ending) =
                alive.ending.as_mut().filter(|ending| !ending.is_killed && ending.deadline <= now)
            {
                ending.is_killed = true;
                alive.process.signal(Signal::KILL);
            }
            if matches!(alive.readiness, Readiness::Absent { next } if next <= now) {
                look_for_socket(shared, vm, now);
            }
        }
        let is_due = |vm: &Vm| matches!(vm.phase, Phase::Waiting { until, .. } if until <= now);
        let due: Vec<String> =
            self.vms.iter().filter(|(_, vm)| is_due(vm)).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.start_again(shared, &name);
        }
    }

    /// Starts a VM that should run, or tries it again later.
    pub(super) fn start_again(&mut self, shared: &Shared, name: &str) {
        let Some(vm) = self.vms.get(name) else { return };
        let restarts = vm.record.restarts;
        let Err(error) = self.launch(shared, name, restarts) else { return };
        crate::say(format_args!("VM {name} should run: {error}; it is tried again"));
        self.note(name, |record| record.wanted = Wanted::Running);
        if let Some(vm) = self.vms.get_mut(name) {
            vm.phase = Phase::Waiting { until: Instant::now() + RETRY, time: clock::in_future(RETRY) };
            shared.changed(vm);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let of = |vm: &Vm| match &vm.phase {
            Phase::Resting => None,
            Phase::Waiting { until, .. } => Some(*until),
            Phase::Alive(alive) => {
                let kill =
                    alive.ending.as_ref().filter(|ending| !ending.is_killed).map(|ending| ending.deadline);
                let look = match alive.readiness {
                    Readiness::Absent { next } => Some(next),
                    Readiness::Asked(_) | Readiness::Ready => None,
                };
                [kill, look].into_iter().flatten().min()
            }
        };
        self.vms.values().filter_map(of).min()
    }

    fn needs_care(&self) -> bool {
        self.vms.values().any(|vm| vm.alive().is_some() || vm.is_unsaved)
    }

    /// Keeps logs short, writes records that could not be written, and looks for ends that nobody told of.
    fn take_care(&mut self, shared: &Shared) {
        let mut ended = Vec::new();
        for (name, vm) in &mut self.vms {
            if let Some(alive) = vm.alive() {
                logs::bound(&vm.folder);
                if alive.process.has_ended() {
                    ended.push(name.clone());
                }
            }
            if vm.is_unsaved && self.store.put(&vm.record).is_ok() {
                vm.is_unsaved = false;
            }
        }
        for name in ended {
            self.ended(shared, &name);
        }
    }
}

/// Asks a VM how it is, once it listens.
fn look_for_socket(shared: &Shared, vm: &mut Vm, now: Instant) {
    let Phase::Alive(alive) = &mut vm.phase else { return };
    let asked = verbs::ask_status(&vm.folder)
        .and_then(|stream| shared.register(&stream, data(vm.record.id, Of::Answer)).map(|()| stream));
    alive.readiness = match asked {
        Ok(stream) => Readiness::Asked(stream),
        Err(_) => Readiness::Absent { next: now + SOCKET_POLL },
    };
}

/// `None`: the VM has hung up, or says something else.
fn read_status(stream: &mut std::os::unix::net::UnixStream) -> Option<Status> {
    // A line this short comes whole.
    let mut line = vec![0; LINE_BYTES_MAX];
    let count = stream.read(&mut line).ok()?;
    let result = Response::decode(&line[..count]).ok()?.outcome.ok()?;
    serde_json::from_value(result).ok()
}

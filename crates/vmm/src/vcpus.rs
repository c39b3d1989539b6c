//! The vCPU threads: they run, park and end together.
#![allow(unsafe_code)] // A thread registers the byte by which signals reach its vCPU.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use napa_api::Exit;
use napa_machine::{Step, Vcpu};
use napa_sys::lost_memory;
use napa_sys::signal::{self, KickTarget};
use rustix::process::Pid;

use crate::events::{Event, Events};

/// Stack of a vCPU thread: exits are dispatched to devices without recursion.
const STACK_BYTES: usize = 256 << 10;

/// All vCPU threads of a VM.
pub struct Vcpus {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
}

/// Where vCPU threads look for orders.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    events: Events,
    /// What the last thread to end does.
    last_out: Mutex<Option<LastOut>>,
}

type LastOut = Box<dyn FnOnce() + Send>;

struct GateState {
    order: Order,
    /// Threads that are neither parked nor over.
    running: usize,
    /// Threads that are not over.
    alive: usize,
    /// Ids of the threads, to kick them.
    ids: Vec<Pid>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    Park,
    End,
}

impl Vcpus {
    /// Starts a thread for each vCPU. The last one to end calls `last_out`.
    ///
    /// # Errors
    /// A thread could not be started; those before it have ended again.
    pub fn start(vcpus: Vec<Vcpu>, events: &Events, last_out: LastOut) -> io::Result<Self> {
        signal::install_kick_handler()?;
        let state =
            GateState { order: Order::Run, running: vcpus.len(), alive: vcpus.len(), ids: Vec::new() };
        let gate = Arc::new(Gate {
            state: Mutex::new(state),
            changed: Condvar::new(),
            events: events.clone(),
            last_out: Mutex::new(Some(last_out)),
        });
        let mut started = Self { gate, threads: Vec::new() };
        for vcpu in vcpus {
            let gate = Arc::clone(&started.gate);
            let builder = thread::Builder::new().name(format!("vcpu{}", vcpu.id())).stack_size(STACK_BYTES);
            started.threads.push(builder.spawn(move || gate.serve(vcpu))?);
        }
        Ok(started)
    }

    /// Asks all vCPUs to stop; [`Event::Parked`] follows.
    pub fn park(&self) {
        let state = self.gate.order(Order::Park);
        if state.running == 0 {
            self.gate.events.post(Event::Parked);
        }
    }

    /// Whether all have stopped. An [`Event::Parked`] may be older than the order that it answers.
    pub fn are_parked(&self) -> bool {
        let state = self.gate.lock();
        state.order == Order::Park && state.running == 0
    }

    /// Lets parked vCPUs run again.
    pub fn unpark(&self) {
        drop(self.gate.order(Order::Run));
    }
}

impl Vcpus {
    /// Asks all vCPUs to end.
    pub fn end(&self) {
        drop(self.gate.order(Order::End));
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.end();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) -> MutexGuard<'_, GateState> {
        let mut state = self.lock();
        state.order = order;
        self.changed.notify_all();
        // Under the lock: a thread takes its id back, also under the lock, before it ends.
        state.ids.iter().for_each(|id| signal::kick(*id));
        state
    }

    fn serve(&self, mut vcpu: Vcpu) {
        lost_memory::protect_thread();
        let id = rustix::thread::gettid();
        // SAFETY: `vcpu` lives until the end of this function, later than `target`, which this thread drops.
        let target = unsafe { KickTarget::new(vcpu.immediate_exit()) };
        self.lock().ids.push(id);
        self.run(&mut vcpu);
        drop(target);
        let mut state = self.lock();
        state.ids.retain(|other| *other != id);
        state.running -= 1;
        state.alive -= 1;
        if state.order == Order::Park && state.running == 0 {
            self.events.post(Event::Parked);
        }
        let is_last = state.alive == 0;
        drop(state);
        if is_last && let Some(last_out) = self.last_out.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            last_out();
        }
    }

    fn run(&self, vcpu: &mut Vcpu) {
        while self.may_run(vcpu) {
            match vcpu.run() {
                Ok(Step::Interrupted) => {}
                Ok(Step::TripleFault) => return self.events.post(Event::Ended(Exit::TripleFault)),
                Err(error) => {
                    eprintln!("napa: {error}");
                    return self.events.post(Event::Ended(Exit::Stuck));
                }
            }
        }
    }

    /// Waits while the order is to park. `false`: the thread has to end.
    fn may_run(&self, vcpu: &mut Vcpu) -> bool {
        // Cleared before the order is read: a later kick sets it again.
        vcpu.clear_immediate_exit();
        let mut state = self.lock();
        if state.order == Order::Park {
            state.running -= 1;
            if state.running == 0 {
                self.events.post(Event::Parked);
            }
            state = self
                .changed
                .wait_while(state, |state| state.order == Order::Park)
                .unwrap_or_else(PoisonError::into_inner);
            state.running += 1;
        }
        state.order == Order::Run
    }
}

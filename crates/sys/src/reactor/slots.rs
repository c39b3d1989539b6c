//! The workers of a reactor and what the kernel still owes each of them.

use std::time::Duration;

use io_uring::types::Timespec;

use super::handle::Reply;
use super::io::UserData;
use super::{Worker, WorkerId};

/// Workers that one reactor takes at most: the slot number has 16 bits and the top is reserved.
const WORKERS_MAX: usize = 0xff00;

#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    generation: u16,
    worker: Option<Box<dyn Worker>>,
    account: Account,
    /// Events that came while the reactor was paused.
    deferred: Vec<u32>,
    leaving: Option<Reply>,
}

/// What is under way for one worker.
#[derive(Default)]
pub(super) struct Account {
    pub operations: usize,
    pub armed: Vec<u32>,
    /// The worker is on its way out: what it would wait for now would keep it.
    is_closed: bool,
    /// Kept until the worker leaves: the kernel reads a timespec when the entry is submitted.
    timespecs: Vec<(u32, Box<Timespec>)>,
}

impl Account {
    /// Notes that `token` waits; `false` if it did already, or must not any more.
    pub fn arm(&mut self, token: u32) -> bool {
        let is_new = !self.is_closed && !self.armed.contains(&token);
        if is_new {
            self.armed.push(token);
        }
        is_new
    }

    pub fn timespec(&mut self, token: u32, delay: Duration) -> *const Timespec {
        let value = Timespec::from(delay);
        if let Some((_, kept)) = self.timespecs.iter_mut().find(|(of, _)| *of == token) {
            **kept = value;
            return &raw const **kept;
        }
        let kept = Box::new(value);
        let pointer = &raw const *kept;
        self.timespecs.push((token, kept));
        pointer
    }
}

impl Slots {
    pub fn insert(&mut self, worker: Box<dyn Worker>) -> WorkerId {
        let free = self.slots.iter().position(|slot| slot.worker.is_none());
        let index = free.unwrap_or_else(|| {
            assert!(self.slots.len() < WORKERS_MAX, "a reactor takes at most {WORKERS_MAX} workers");
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        let generation = (slot.generation + 1) & 0x7fff;
        *slot = Slot { generation, worker: Some(worker), ..Slot::default() };
        WorkerId { slot: index as u16, generation }
    }

    pub fn get(&mut self, id: WorkerId) -> Option<(&mut dyn Worker, &mut Account)> {
        let slot = self.slot(id)?;
        Some((slot.worker.as_mut()?.as_mut(), &mut slot.account))
    }

    /// Takes a completion off the account of its worker. `None` if the worker is gone.
    pub fn finished(&mut self, data: UserData) -> Option<WorkerId> {
        let id = data.worker()?;
        let account = &mut self.slot(id)?.account;
        if data.is_operation() {
            account.operations -= 1;
        } else {
            account.armed.retain(|token| *token != data.tag());
        }
        Some(id)
    }

    pub fn is_leaving(&mut self, id: WorkerId) -> bool {
        self.slot(id).is_some_and(|slot| slot.leaving.is_some())
    }

    pub fn defer(&mut self, id: WorkerId, token: u32) {
        if let Some(slot) = self.slot(id) {
            slot.deferred.push(token);
        }
    }

    pub fn take_deferred(&mut self) -> Vec<(WorkerId, u32)> {
        let mut all = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let id = WorkerId { slot: index as u16, generation: slot.generation };
            all.extend(slot.deferred.drain(..).map(|token| (id, token)));
        }
        all
    }

    /// The worker will be handed to `reply` once the kernel owes it nothing.
    pub fn leave(&mut self, id: WorkerId, reply: Reply) {
        match self.slot(id) {
            Some(slot) => {
                slot.leaving = Some(reply);
                slot.account.is_closed = true;
            }
            None => reply.gone(),
        }
    }

    pub fn armed(&mut self, id: WorkerId) -> Vec<u32> {
        self.slot(id).map(|slot| slot.account.armed.clone()).unwrap_or_default()
    }

    pub fn release_drained(&mut self) {
        for slot in &mut self.slots {
            let drained = slot.account.operations == 0 && slot.account.armed.is_empty();
            if drained && let Some(reply) = slot.leaving.take() {
                slot.deferred.clear();
                match slot.worker.take() {
                    Some(worker) => reply.removed(worker),
                    None => reply.gone(),
                }
            }
        }
    }

    pub fn operations_under_way(&self) -> usize {
        self.slots.iter().map(|slot| slot.account.operations).sum()
    }

    fn slot(&mut self, id: WorkerId) -> Option<&mut Slot> {
        self.slots
            .get_mut(usize::from(id.slot))
            .filter(|slot| slot.generation == id.generation && slot.worker.is_some())
    }
}

/// The workers that a turn called, each once.
#[derive(Default)]
pub(super) struct Touched(Vec<WorkerId>);

impl Touched {
    pub fn insert(&mut self, id: WorkerId) {
        if !self.0.contains(&id) {
            self.0.push(id);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = WorkerId> {
        self.0.iter().copied()
    }
}

//! The thread that does what takes long.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use napa_api::control::{Reply, RpcError, code};
use napa_sys::lost_memory;

use crate::events::{Event, Events};

/// Jobs that wait at most; whoever asks for more has asked too often.
const WAITING_MAX: usize = 64;

/// Names a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId(u64);

/// Something to be done away from the control thread.
pub type Job = Box<dyn FnOnce() -> Reply + Send>;

/// The jobs of one VM. The outcome of each arrives as [`Event::Done`].
pub struct Jobs {
    events: Events,
    thread: Option<SyncSender<(JobId, Job)>>,
    next: u64,
}

impl Jobs {
    /// No jobs; their outcomes will be posted to `events`.
    pub fn new(events: Events) -> Self {
        Self { events, thread: None, next: 0 }
    }

    /// Has `job` done after those that wait.
    ///
    /// # Errors
    /// Too many wait, or there is no thread to be had.
    pub fn submit(&mut self, job: Job) -> Result<JobId, RpcError> {
        let id = JobId(self.next);
        let thread = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(start(self.events.clone()).map_err(|error| {
                RpcError::new(
                    code::INTERNAL,
                    format!("cannot start a thread for the guest's memory: {error}"),
                )
            })?),
        };
        match thread.try_send((id, job)) {
            Ok(()) => {
                self.next += 1;
                Ok(id)
            }
            Err(TrySendError::Full(_)) => Err(RpcError::new(
                code::WRONG_STATE,
                format!("{WAITING_MAX} requests about the guest's memory wait already; ask again later"),
            )),
            Err(TrySendError::Disconnected(_)) => {
                Err(RpcError::new(code::INTERNAL, "the thread for the guest's memory has ended"))
            }
        }
    }
}

fn start(events: Events) -> io::Result<SyncSender<(JobId, Job)>> {
    let (sender, jobs) = sync_channel(WAITING_MAX);
    thread::Builder::new().name("memory".into()).spawn(move || serve(&jobs, &events))?;
    Ok(sender)
}

fn serve(jobs: &Receiver<(JobId, Job)>, events: &Events) {
    lost_memory::protect_thread();
    while let Ok((id, job)) = jobs.recv() {
        events.post(Event::Done(id, job()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_are_done_in_order_and_their_outcomes_posted() {
        let events = Events::new().unwrap();
        let mut jobs = Jobs::new(events.clone());
        let ids: Vec<JobId> =
            (0..3).map(|number| jobs.submit(Box::new(move || Ok(json!(number)))).unwrap()).collect();
        let mut done = Vec::new();
        while done.len() < 3 {
            events.bell().read().unwrap();
            done.extend(events.take());
        }
        for (number, (event, id)) in done.into_iter().zip(ids).enumerate() {
            let Event::Done(found, outcome) = event else { panic!("{event:?}") };
            assert_eq!((found, outcome), (id, Ok(json!(number))));
        }
    }

    #[test]
    fn too_many_jobs_are_refused() {
        let mut jobs = Jobs::new(Events::new().unwrap());
        let (release, held) = sync_channel::<()>(0);
        jobs.submit(Box::new(move || {
            let _ = held.recv();
            Ok(json!(null))
        }))
        .unwrap();
        let refusal = (0..=WAITING_MAX + 1).find_map(|_| jobs.submit(Box::new(|| Ok(json!(null)))).err());
        assert_eq!(refusal.unwrap().code, code::WRONG_STATE);
        drop(release);
    }
}

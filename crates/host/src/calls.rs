//! Requests to VMs, many at once, on one thread and with a deadline each.
//!
//! Every call has a connection of its own: an answer that comes too late goes away with it, and nobody takes it for that
//! of a later call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use napa_api::control::{Command, Exchange, ExchangeError, MemoryCommand, Progress};
use napa_units::VmId;

use crate::mechanisms::{Urgency, Wish};
use rustix::event::PollFlags;
use serde_json::Value;

/// How long a VM may take for an answer that it has at hand.
const BOUND: Duration = Duration::from_secs(2);
/// How long it may take to work at its memory: it answers after two seconds by itself, and may have other work before.
const WORK_BOUND: Duration = Duration::from_secs(8);

/// Requests under way.
#[derive(Debug, Default)]
pub struct Calls {
    under_way: Vec<Call>,
}

/// One request.
#[derive(Debug)]
struct Call {
    vm: VmId,
    urgency: Urgency,
    command: Command,
    stream: UnixStream,
    exchange: Exchange,
    /// What the stream has to be for the call to go on.
    awaits: PollFlags,
    started: Instant,
    deadline: Instant,
}

/// A request that came to its end.
#[derive(Debug)]
pub struct Ended {
    /// Who was asked.
    pub vm: VmId,
    /// What for.
    pub command: Command,
    /// The answer.
    pub outcome: Result<Value, CallError>,
    /// How long it took.
    pub took: Duration,
}

/// Why a VM did not answer. It is the trouble of this VM alone.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("its control socket cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// It takes too long.
    #[error("it has not answered '{method}' within {} seconds", .bound.as_secs())]
    Late {
        /// What it was asked for.
        method: &'static str,
        /// How long it had.
        bound: Duration,
    },
    /// The connection broke, what came was no answer, or the VM refused.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl CallError {
    /// Whether the VM is there and said no.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Exchange(ExchangeError::Refused(_)))
    }
}

impl Calls {
    /// Asks a VM. Nothing here waits. What has ended already is given.
    pub fn start(&mut self, vm: VmId, socket: &Path, wish: Wish) -> Option<Ended> {
        let Wish { urgency, command } = wish;
        let started = Instant::now();
        let connect = || {
            let stream = UnixStream::connect(socket)?;
            stream.set_nonblocking(true).map(|()| stream)
        };
        match connect() {
            Ok(stream) => {
                let deadline = started + bound(command);
                let (exchange, awaits) = (Exchange::new(command), PollFlags::OUT);
                self.under_way.push(Call {
                    vm,
                    urgency,
                    command,
                    stream,
                    exchange,
                    awaits,
                    started,
                    deadline,
                });
                None
            }
            Err(error) => {
                let outcome = Err(CallError::Unreachable(error));
                Some(Ended { vm, command, outcome, took: started.elapsed() })
            }
        }
    }

    /// How urgent the calls under way are.
    pub fn under_way(&self) -> impl Iterator<Item = Urgency> {
        self.under_way.iter().map(|call| call.urgency)
    }

    /// Whether a VM is being asked.
    pub fn is_asking(&self, vm: VmId) -> bool {
        self.under_way.iter().any(|call| call.vm == vm)
    }

    /// What to wait for.
    pub fn streams(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.under_way.iter().map(|call| (call.stream.as_fd(), call.awaits))
    }

    /// When the next call has taken too long.
    pub fn deadline(&self) -> Option<Instant> {
        self.under_way.iter().map(|call| call.deadline).min()
    }

    /// Goes on with all of them and gives those that have ended.
    pub fn advance(&mut self) -> Vec<Ended> {
        let now = Instant::now();
        let mut ended = Vec::new();
        self.under_way.retain_mut(|call| match call.advance(now) {
            None => true,
            Some(outcome) => {
                ended.push(Ended { vm: call.vm, command: call.command, outcome, took: now - call.started });
                false
            }
        });
        ended
    }

    /// Forgets the calls to a VM that is gone.
    pub fn forget(&mut self, vm: VmId) {
        self.under_way.retain(|call| call.vm != vm);
    }
}

impl Call {
    fn advance(&mut self, now: Instant) -> Option<Result<Value, CallError>> {
        match self.exchange.advance(&self.stream) {
            Ok(Progress::Answered(answer)) => return Some(Ok(answer)),
            Ok(Progress::Sending) => self.awaits = PollFlags::OUT,
            Ok(Progress::Waiting) => self.awaits = PollFlags::IN,
            Err(error) => return Some(Err(error.into())),
        }
        let bound = bound(self.command);
        (now >= self.deadline).then(|| Err(CallError::Late { method: self.command.method(), bound }))
    }
}

const fn bound(command: Command) -> Duration {
    match command {
        Command::Memory(
            MemoryCommand::Reclaim { .. }
            | MemoryCommand::Share(_)
            | MemoryCommand::Report
            | MemoryCommand::Sample
            | MemoryCommand::WorkingSet
            | MemoryCommand::BalloonStatistics,
        ) => WORK_BOUND,
        _ => BOUND,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use napa_api::control::{Id, Response, RpcError, code};
    use serde_json::json;

    use super::*;

    const STATUS: Wish = Wish { urgency: Urgency::Poll, command: Command::Status };

    fn until_ended(calls: &mut Calls) -> Ended {
        loop {
            if let Some(ended) = calls.advance().pop() {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_vm_that_is_silent_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let [quick, silent] = ["quick", "silent"].map(|name| folder.path().join(name));
        let listener = UnixListener::bind(&quick).unwrap();
        let _silent = UnixListener::bind(&silent).unwrap();
        let vm = std::thread::spawn(move || {
            for outcome in [Ok(json!({"target": 7})), Err(RpcError::new(code::WRONG_STATE, "no"))] {
                let (stream, _) = listener.accept().unwrap();
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                (&stream).write_all(&Response { id: Id::Null, outcome }.encode()).unwrap();
            }
        });
        let mut calls = Calls::default();
        assert!(calls.start(VmId(1), &silent, STATUS).is_none());
        for is_answered in [true, false] {
            assert!(calls.start(VmId(2), &quick, STATUS).is_none());
            assert_eq!(calls.under_way().count(), 2);
            let ended = until_ended(&mut calls);
            assert_eq!((ended.vm, ended.outcome.is_ok()), (VmId(2), is_answered));
            assert!(is_answered || ended.outcome.unwrap_err().is_refusal());
        }
        vm.join().unwrap();
        // The silent one is given up at its deadline.
        calls.under_way[0].deadline = Instant::now();
        let ended = until_ended(&mut calls);
        assert!(matches!(ended.outcome, Err(CallError::Late { method: "status", .. })), "{ended:?}");
        assert!(calls.start(VmId(3), &folder.path().join("none"), STATUS).is_some());
        assert!(calls.start(VmId(1), &silent, STATUS).is_none());
        calls.forget(VmId(1));
        assert_eq!((calls.streams().count(), calls.deadline()), (0, None));
    }
}

//! The control thread's worker: everything that a person or a program can ask of a running VM.

mod connections;
mod lifecycle;

use std::sync::Arc;
use std::time::Duration;

use napa_api::config::ShareConfig;
use napa_api::control::{Command, MemoryCommand, Reply, Request, Response, RpcError, Status, reply};
use napa_devices::{ConsoleBackend, ConsoleCommand};
use napa_sys::reactor::{Handle, Io, Worker};
use napa_sys::signal::SignalFd;
use napa_sys::socket::Listener;

use self::connections::{ConnectionId, Connections, FIRST_TOKEN};
pub use self::lifecycle::{Lifecycle, Outcome};
use crate::events::{Event, Events};
use crate::memory::{self, JobId, Jobs, Looks};

const BELL: u32 = 0;
const SIGNALS: u32 = 1;
const LISTENER: u32 = 2;
const STOP_TIMER: u32 = 3;
const END_TIMER: u32 = 4;
const LOOK_TIMER: u32 = 5;
const SAMPLE_TIMER: u32 = 6;
const BRAKE_TIMER: u32 = 7;

/// What the control thread listens to.
pub struct Sources {
    /// What other threads tell.
    pub events: Events,
    /// Signals of the process.
    pub signals: SignalFd,
    /// The control socket.
    pub listener: Option<Listener>,
    /// The terminal, which changes its size and comes back to the foreground.
    pub console: Arc<ConsoleBackend>,
    /// Ends the control thread's loop.
    pub reactor: Handle,
}

/// The worker of the control thread.
pub struct Control {
    sources: Sources,
    lifecycle: Lifecycle,
    connections: Connections,
    /// Connections that wait for an answer, with their requests.
    waiting: Vec<Waiting>,
    /// What is being done about the guest's memory.
    jobs: Jobs,
    /// When it looks for pages of zeros by itself.
    looks: Looks,
    /// The person at the terminal waits for it too.
    console_waits: bool,
    /// A signal has asked for a stop before.
    was_signalled: bool,
}

/// A request whose answer comes later.
struct Waiting {
    connection: ConnectionId,
    request: Request,
    awaits: Awaits,
}

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Pause,
    Job(JobId),
}

impl Control {
    /// Serves `lifecycle`.
    pub fn new(sources: Sources, lifecycle: Lifecycle) -> Self {
        let jobs = Jobs::new(sources.events.clone());
        Self {
            sources,
            lifecycle,
            connections: Connections::default(),
            waiting: Vec::new(),
            jobs,
            looks: Looks::default(),
            console_waits: false,
            was_signalled: false,
        }
    }

    fn on_events(&mut self, io: &mut Io<'_>) {
        for event in self.sources.events.take() {
            match event {
                Event::Ended(exit) => self.lifecycle.end(exit),
                Event::Parked => self.lifecycle.on_parked(),
                Event::Over => self.lifecycle.on_over(),
                Event::Console(command) => self.on_console(command, io),
                Event::Done(job, reply) => self.answer(Awaits::Job(job), &reply, io),
                Event::Looked(looked) => {
                    looked.into_iter().for_each(|looked| self.looks.on_looked(looked));
                    io.wait_timeout(LOOK_TIMER, self.looks.wait());
                }
            }
        }
    }

    fn on_console(&mut self, command: ConsoleCommand, io: &mut Io<'_>) {
        let command = match command {
            ConsoleCommand::HardStop => Command::Kill,
            ConsoleCommand::OrderlyStop => Command::Stop { timeout_s: None },
            ConsoleCommand::Pause => Command::Pause,
            ConsoleCommand::Resume => Command::Resume,
            ConsoleCommand::Status => Command::Status,
        };
        let outcome = self.carry_out(command, io);
        if command == Command::Pause && outcome.is_ok() && !self.lifecycle.is_paused() {
            self.console_waits = true;
        } else {
            self.say(outcome);
        }
    }

    fn say(&self, outcome: Result<Status, RpcError>) {
        let said = match outcome {
            Ok(status) => format!("the VM is {}", status.state),
            Err(error) => error.message,
        };
        self.sources.console.say(&format!("napa: {said}"));
    }

    fn on_signals(&mut self, io: &mut Io<'_>) {
        while let Some(signal) = self.sources.signals.next() {
            match signal {
                libc::SIGWINCH => self.sources.console.resized(),
                libc::SIGCONT => {
                    if let Err(error) = self.sources.console.continued() {
                        eprintln!("napa: {error}");
                    }
                }
                _ => self.on_stop_signal(io),
            }
        }
    }

    /// Whoever asks a second time does not want to wait.
    fn on_stop_signal(&mut self, io: &mut Io<'_>) {
        let is_second = std::mem::replace(&mut self.was_signalled, true);
        if self.lifecycle.is_stopping() {
            self.lifecycle.end(napa_api::Exit::HardStop);
        } else if is_second && self.lifecycle.is_ending() {
            self.lifecycle.abandon();
        } else {
            // It fails only for a VM that is ending anyway.
            let _ = self.carry_out(Command::Stop { timeout_s: None }, io);
        }
    }

    fn on_listener(&mut self, io: &mut Io<'_>) {
        let Some(listener) = &self.sources.listener else { return };
        // An error is that of one connection, or of a process short of descriptors: the next may do better.
        while let Ok(Some(stream)) = listener.accept() {
            self.connections.add(stream, io);
        }
        io.wait_readable(LISTENER, listener);
    }

    fn on_connection(&mut self, token: u32, io: &mut Io<'_>) {
        let Some((connection, requests)) = self.connections.ready(token, io) else { return };
        for request in requests {
            match request {
                Ok(request) => self.on_request(connection, request, io),
                Err(response) => self.connections.send(connection, &response, io),
            }
        }
    }

    fn on_request(&mut self, connection: ConnectionId, request: Request, io: &mut Io<'_>) {
        let answer = match request.command {
            Command::Memory(command) => match self.submit(command) {
                Ok(job) => {
                    if command == MemoryCommand::Mapping {
                        self.put_off_look(io);
                    }
                    if command == MemoryCommand::Sample {
                        io.forget(SAMPLE_TIMER);
                        io.wait_timeout(SAMPLE_TIMER, memory::KEPT);
                    }
                    return self.wait(connection, request, Awaits::Job(job));
                }
                Err(error) => Err(error),
            },
            Command::Config => reply(Ok(self.lifecycle.config())),
            command => {
                let status = self.carry_out(command, io);
                if command == Command::Pause && status.is_ok() && !self.lifecycle.is_paused() {
                    return self.wait(connection, request, Awaits::Pause);
                }
                reply(status)
            }
        };
        if let Some(response) = request.answer(answer) {
            self.connections.send(connection, &response, io);
        }
    }

    fn wait(&mut self, connection: ConnectionId, request: Request, awaits: Awaits) {
        self.waiting.push(Waiting { connection, request, awaits });
    }

    fn submit(&mut self, command: MemoryCommand) -> Result<JobId, RpcError> {
        let subject = self.lifecycle.subject()?;
        self.jobs.submit(Box::new(move || memory::carry_out(command, &subject)))
    }

    fn answer_paused(&mut self, io: &mut Io<'_>) {
        let Some(status) = self.lifecycle.pause_outcome() else { return };
        if std::mem::take(&mut self.console_waits) {
            self.say(status.clone());
        }
        self.answer(Awaits::Pause, &reply(status), io);
    }

    /// Answers all that wait for this.
    fn answer(&mut self, awaits: Awaits, reply: &Reply, io: &mut Io<'_>) {
        for waiting in self.waiting.extract_if(.., |waiting| waiting.awaits == awaits) {
            if let Some(response) = waiting.request.answer(reply.clone()) {
                self.connections.send(waiting.connection, &response, io);
            }
        }
    }

    fn carry_out(&mut self, command: Command, io: &mut Io<'_>) -> Result<Status, RpcError> {
        match command {
            // What has an answer of its own is answered elsewhere.
            Command::Status | Command::Config | Command::Memory(_) => {}
            Command::Pause => self.lifecycle.pause()?,
            Command::Resume => self.lifecycle.resume()?,
            Command::Brake { time_ms: 0 } => self.lifecycle.release(),
            Command::Brake { time_ms } => {
                self.lifecycle.brake();
                io.forget(BRAKE_TIMER);
                io.wait_timeout(BRAKE_TIMER, Duration::from_millis(time_ms.into()));
            }
            Command::Stop { timeout_s } => {
                let bound = self.lifecycle.stop(timeout_s)?;
                io.forget(STOP_TIMER);
                io.wait_timeout(STOP_TIMER, bound);
            }
            Command::Kill => self.lifecycle.end(napa_api::Exit::HardStop),
        }
        Ok(self.lifecycle.status())
    }

    /// Whoever asks where guest memory is wants to see what the guest accesses, among which a look would be everything.
    fn put_off_look(&self, io: &mut Io<'_>) {
        if self.lifecycle.config().share != Some(ShareConfig::Off) {
            io.forget(LOOK_TIMER);
            io.wait_timeout(LOOK_TIMER, memory::LOOK_WAIT_MAX);
        }
    }

    /// Has pages of zeros looked for if the VM has grown; a VM that is paused has not.
    fn on_look_timer(&mut self, io: &mut Io<'_>) {
        let subject = self.lifecycle.subject().ok();
        let resident = subject.as_ref().and_then(memory::resident);
        let should_look = resident.is_some_and(|resident| self.looks.should_look(resident));
        let begun = subject
            .filter(|_| should_look)
            .is_some_and(|subject| memory::look(subject, self.sources.events.clone()).is_ok());
        if !begun {
            io.wait_timeout(LOOK_TIMER, self.looks.wait());
        }
    }

    /// A machine that has ended, or that has too much to do, keeps its last sample: the next one gives it up.
    fn on_sample_timer(&mut self) {
        if let Ok(subject) = self.lifecycle.subject() {
            let give_up = move || {
                memory::give_up_forgotten(&subject);
                reply(Ok(()))
            };
            let _nobody_waits = self.jobs.submit(Box::new(give_up));
        }
    }

    fn on_stop_timer(&mut self, io: &mut Io<'_>) {
        match self.lifecycle.stop_time_left() {
            Some(Duration::ZERO) => self.lifecycle.end(napa_api::Exit::HardStop),
            // The timer of an earlier request came, and a later one has moved the bound.
            Some(left) => io.wait_timeout(STOP_TIMER, left),
            None => {}
        }
    }

    fn on_end_timer(&mut self, io: &mut Io<'_>) {
        match self.lifecycle.end_time_left() {
            Some(Duration::ZERO) => self.lifecycle.abandon(),
            // The timer is that of a machine that has ended since, and another one ends now.
            Some(left) => io.wait_timeout(END_TIMER, left),
            None => {}
        }
    }
}

impl Worker for Control {
    fn start(&mut self, io: &mut Io<'_>) {
        io.wait_event(BELL, self.sources.events.bell());
        io.wait_readable(SIGNALS, &self.sources.signals);
        if let Some(listener) = &self.sources.listener {
            io.wait_readable(LISTENER, listener);
        }
        if self.lifecycle.config().share != Some(ShareConfig::Off) {
            io.wait_timeout(LOOK_TIMER, self.looks.wait());
        }
    }

    fn ready(&mut self, token: u32, io: &mut Io<'_>) {
        match token {
            BELL => {
                self.on_events(io);
                io.wait_event(BELL, self.sources.events.bell());
            }
            SIGNALS => {
                self.on_signals(io);
                io.wait_readable(SIGNALS, &self.sources.signals);
            }
            LISTENER => self.on_listener(io),
            STOP_TIMER => self.on_stop_timer(io),
            END_TIMER => self.on_end_timer(io),
            LOOK_TIMER => self.on_look_timer(io),
            SAMPLE_TIMER => self.on_sample_timer(),
            BRAKE_TIMER => self.lifecycle.release(),
            FIRST_TOKEN.. => self.on_connection(token, io),
            _ => {}
        }
    }

    fn turn_end(&mut self, io: &mut Io<'_>) {
        self.answer_paused(io);
        match self.lifecycle.end_time_left() {
            Some(left) => io.wait_timeout(END_TIMER, left),
            None => io.forget(END_TIMER),
        }
        if self.lifecycle.is_over() {
            self.sources.reactor.quit();
        }
    }
}

/// A response that says why a line was no request.
type Refusal = Response;

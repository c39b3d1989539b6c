//! The guests of a plan as processes: started, listened to, asked, stopped.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use napa_api::config::ShareConfig;
use napa_api::control::{BalloonReport, Command, MemoryCommand};
use napa_host::tick::Subject;
use napa_units::{Bytes, Shares, VmId};

use super::guest::Progress;
use super::plan::{GuestPlan, Plan};
use crate::client;
use crate::command::Target;
use crate::guests::{GuestProcess, GuestWords};

/// How long a guest may take to end when asked, at least: it looks at all of its pages, and many of them come from swap.
const STOP_BOUND: Duration = Duration::from_secs(30);
/// And for each guest more, for all of them do that at once.
const STOP_BOUND_EACH: Duration = Duration::from_secs(1);
/// A VM that has not ended its guest by then has a fault of its own.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Within this time a guest that is well answers.
pub const ANSWER_BOUND: Duration = Duration::from_secs(1);

/// A fleet. Dropping it ends what still runs.
pub struct Fleet {
    started: Instant,
    plan: Plan,
    share: Option<ShareConfig>,
    folder: PathBuf,
    members: Vec<Member>,
    /// When it was asked to stop.
    stopped: Option<Duration>,
}

/// A guest of the fleet.
pub struct Member {
    plan: GuestPlan,
    cmdline: String,
    process: GuestProcess,
    progress: Progress,
    was_killed: bool,
    answered_in: Option<Duration>,
}

impl Fleet {
    /// A fleet of which no guest has started yet; their control sockets will be in `folder`.
    pub fn new(plan: Plan, share: Option<ShareConfig>, folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { started: Instant::now(), plan, share, folder, members: Vec::new(), stopped: None }
    }

    /// Starts the next guest. False if there is none left to start.
    ///
    /// # Errors
    /// The process could not be started.
    pub fn start_next(&mut self) -> io::Result<bool> {
        let Some(guest) = self.plan.guests.get(self.members.len()).cloned() else { return Ok(false) };
        if self.stopped.is_some() {
            return Ok(false);
        }
        let cmdline = self.plan.cmdline(&guest, self.age().as_secs() as u32);
        let words = GuestWords {
            name: &guest.name,
            memory: guest.memory,
            cpus: 1,
            cmdline: &cmdline,
            share: self.share.as_ref(),
        };
        let process = GuestProcess::start(words, &self.folder)?;
        self.members.push(Member {
            plan: guest,
            cmdline,
            process,
            progress: Progress::new(),
            was_killed: false,
            answered_in: None,
        });
        Ok(true)
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// What was planned.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its guests, as far as they have started.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether all guests are over that have started, and none is to come.
    pub fn has_ended(&self) -> bool {
        let is_whole = self.stopped.is_some() || self.members.len() == self.plan.guests.len();
        is_whole && self.members.iter().all(|member| member.progress.has_ended())
    }

    /// What to wait for.
    pub fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.members.iter().flat_map(|member| member.process.pipes())
    }

    /// Takes what the guests have written and notices who has ended.
    pub fn listen(&mut self) {
        let age = self.age();
        self.members.iter_mut().for_each(|member| member.listen(age));
    }

    /// The guests that run, for who decides about their memory.
    pub fn subjects(&self) -> Vec<Subject> {
        let share = self.plan.budget.0 / self.plan.guests.len() as u64;
        let running = self.members.iter().enumerate().filter(|(_, member)| !member.progress.has_ended());
        running
            .map(|(index, member)| Subject {
                id: VmId(index as u64 + 1),
                name: member.plan.name.clone(),
                pid: member.process.pid(),
                socket: member.process.socket().to_owned(),
                group: None,
                limit: member.plan.memory,
                // What it needs when it does nothing.
                reservation: Bytes(share / 8).min(member.plan.memory),
                shares: Shares::default(),
                share: self.share.clone().unwrap_or(ShareConfig::Vm),
            })
            .collect()
    }

    /// Asks every guest that runs for a word, and notes how long it takes: its own driver answers, not napa.
    pub fn ask_all(&mut self) {
        for member in self.members.iter_mut().filter(|member| !member.progress.has_ended()) {
            let target = Target { vm: member.process.socket().to_owned() };
            let asked = Instant::now();
            let answer: Result<BalloonReport, _> =
                client::ask(&target, Command::Memory(MemoryCommand::BalloonStatistics));
            let took = asked.elapsed();
            // What the guest said before it was asked is no answer.
            let is_fresh = |report: BalloonReport| {
                report.statistics.is_some_and(|words| Duration::from_millis(words.age_ms) <= took)
            };
            member.answered_in = answer.is_ok_and(is_fresh).then_some(took);
        }
    }

    /// Asks all guests to stop now. Asked again, it kills those that did not stop in time.
    pub fn stop(&mut self) {
        let (age, bound) = (self.age(), STOP_BOUND + STOP_BOUND_EACH * self.members.len() as u32);
        match self.stopped {
            None => {
                self.stopped = Some(age);
                for member in self.members.iter_mut().filter(|member| !member.progress.has_ended()) {
                    member.progress.on_stop_request();
                    member.process.ask_to_stop(bound.as_secs() as u32);
                }
            }
            Some(asked) if age >= asked + bound + KILL_GRACE => self.kill(),
            Some(_) => {}
        }
    }

    /// Whether it was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopped.is_some()
    }

    /// Ends all guests at once.
    pub fn kill(&mut self) {
        self.stopped.get_or_insert(self.started.elapsed());
        self.members.iter_mut().for_each(Member::kill);
    }
}

impl Member {
    /// What was planned.
    pub fn plan(&self) -> &GuestPlan {
        &self.plan
    }

    /// The guest's command line.
    pub fn cmdline(&self) -> &str {
        &self.cmdline
    }

    /// What it has done.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How long it took to answer. `None`: it was not asked, or did not answer.
    pub fn answered_in(&self) -> Option<Duration> {
        self.answered_in
    }

    fn listen(&mut self, age: Duration) {
        self.process.read(|line| self.progress.on_line(line, age));
        if let Some(gone) = self.process.gone() {
            self.progress.on_end(gone, self.process.last_complaint(), self.was_killed);
        }
    }

    fn kill(&mut self) {
        if !self.progress.has_ended() {
            self.was_killed = true;
            self.process.kill();
        }
    }
}

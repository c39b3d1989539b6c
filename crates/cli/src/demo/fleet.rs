//! The guests of a plan as processes: started, listened to, measured, stopped.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use napa_units::Bytes;

use super::guest::Progress;
use super::plan::{GuestPlan, Plan};
use crate::guests::{self, Footprint, GuestProcess, GuestWords};

/// How long a guest that works for a set time may take longer than that, for its first and its last pass.
const OVERTIME: Duration = Duration::from_secs(30);
/// How long a guest may take to end when asked; then it is killed.
const STOP_BOUND: Duration = Duration::from_secs(10);

/// A fleet. Dropping it ends what still runs.
pub struct Fleet {
    started: Instant,
    members: Vec<Member>,
}

/// A guest of the fleet.
pub struct Member {
    plan: GuestPlan,
    process: GuestProcess,
    progress: Progress,
    stop_at: Duration,
    kill_at: Option<Duration>,
    was_killed: bool,
    resident: Bytes,
    footprint: Option<Footprint>,
}

impl Fleet {
    /// Starts the guests of `plan`; their control sockets are in `folder`.
    ///
    /// # Errors
    /// A process could not be started; those before it are ended again.
    pub fn start(plan: Plan, folder: &Path) -> io::Result<Self> {
        let started = Instant::now();
        let duration = Duration::from_secs(plan.duration_s.into());
        let members = plan.guests.into_iter().map(|guest| Member::start(guest, duration, folder));
        Ok(Self { started, members: members.collect::<io::Result<_>>()? })
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Its guests.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether all guests are over.
    pub fn has_ended(&self) -> bool {
        self.members.iter().all(|member| member.progress.has_ended())
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

    /// Asks those to stop whose time has come, and kills those that did not.
    pub fn keep_time(&mut self) {
        let age = self.age();
        self.members.iter_mut().for_each(|member| member.keep_time(age));
    }

    /// Asks all guests to stop now.
    pub fn stop(&mut self) {
        let age = self.age();
        self.members.iter_mut().for_each(|member| member.stop_at = age.min(member.stop_at));
        self.keep_time();
    }

    /// Ends all guests at once.
    pub fn kill(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }

    /// Looks how much memory is resident.
    pub fn measure(&mut self) {
        self.members.iter_mut().for_each(Member::measure);
    }

    /// Looks once at each guest's memory by mapping: costly, for the kernel walks all of its pages.
    pub fn measure_footprints(&mut self) {
        self.members.iter_mut().for_each(Member::measure_footprint);
    }
}

impl Member {
    fn start(plan: GuestPlan, duration: Duration, folder: &Path) -> io::Result<Self> {
        let words =
            GuestWords { name: &plan.name, memory: plan.memory, cpus: plan.cpus, cmdline: &plan.cmdline };
        let process = GuestProcess::start(words, folder)?;
        let progress = Progress::new(!plan.ends_by_itself);
        let stop_at = if plan.ends_by_itself { duration + OVERTIME } else { duration };
        Ok(Self {
            plan,
            process,
            progress,
            stop_at,
            kill_at: None,
            was_killed: false,
            resident: Bytes(0),
            footprint: None,
        })
    }

    /// What was planned.
    pub fn plan(&self) -> &GuestPlan {
        &self.plan
    }

    /// What it has done.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Resident memory of its process, when last looked at.
    pub fn resident(&self) -> Bytes {
        self.resident
    }

    /// Its memory by mapping, if it ran long enough for that.
    pub fn footprint(&self) -> Option<Footprint> {
        self.footprint
    }

    fn listen(&mut self, age: Duration) {
        self.process.read(|line| self.progress.on_line(line, age));
        if let Some(gone) = self.process.gone() {
            self.progress.on_end(gone, self.process.last_complaint(), self.was_killed);
        }
    }

    fn keep_time(&mut self, age: Duration) {
        if self.progress.has_ended() {
            return;
        }
        match self.kill_at {
            Some(kill_at) if age >= kill_at => self.kill(),
            None if age >= self.stop_at => {
                self.progress.on_stop_request();
                self.process.ask_to_stop();
                self.kill_at = Some(age + STOP_BOUND);
            }
            _ => {}
        }
    }

    fn kill(&mut self) {
        if !self.progress.has_ended() {
            self.was_killed = true;
            self.process.kill();
        }
    }

    fn measure(&mut self) {
        let pid = self.process.pid();
        // A process that has just ended has nothing resident.
        self.resident = match self.progress.has_ended() {
            true => Bytes(0),
            false => guests::resident(pid).unwrap_or_default(),
        };
    }

    fn measure_footprint(&mut self) {
        if self.progress.has_ended() {
            return;
        }
        if let Ok(footprint) = Footprint::measure(self.process.pid(), self.plan.memory) {
            self.footprint = Some(footprint);
        }
    }
}

//! `napa demo`: a fleet of embedded guests whose limits come to several times the RAM that they may hold, kept within it
//! by the host's own policy, shown while it works, and a verdict at the end.
//!
//! ```text
//!  plan (pure) -> fleet (processes) -> guest (lines to figures) -> table (pure) -> screen | lines
//!                  keeper (policy, sensors, mechanisms) ------------^        `---> verdict (pure)
//!                  witness (what is held, by the kernel's word) ---------------------^
//! ```
//!
//! One thread waits for the guests' pipes, keys, signals and the next picture. Whatever ends it, no process,
//! socket or folder stays behind: guests die with it, and the folder is its own.

mod fleet;
mod guest;
mod keeper;
mod plan;
mod screen;
mod table;
mod verdict;
mod view;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use napa_policy::Kind;
use napa_sys::host::{Memory, Root};
use napa_sys::signal::SignalFd;
use napa_units::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::fleet::Fleet;
use self::keeper::{Keeper, OwnDomain, OwnSwap};
use self::plan::{Host, Plan, Wish};
use self::table::{Picture, Row};
use self::verdict::{Evidence, Verdict};
use self::view::View;
use self::witness::Witness;
use crate::error::Error;
use crate::guests::require_kvm;
use crate::output::{self, Style};

/// Guests that are started one after the other before anything else is looked at.
const STARTED_AT_ONCE: usize = 8;

/// The flags of `napa demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Number of guests [default: eight for each CPU, at most 24]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=2000))]
    guests: Option<u32>,
    /// Guest memory of each [default: what brings all of them to four times the budget]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// RAM that all guests may hold together [default: a quarter of what is available]
    #[arg(long, value_name = "SIZE")]
    budget: Option<Bytes>,
    /// How long the phases take together: idle, working, a spike of all at once, idle again
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(4..=86_400))]
    duration: u32,
    /// Who decides: napa, or one of static, ksm, mom, proxmox, swap to see what they do
    #[arg(long, value_name = "POLICY", default_value = "napa")]
    policy: Kind,
    /// Print the verdict as JSON, and nothing else
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration.
pub fn demo(arguments: &DemoArgs) -> Result<ExitCode, Error> {
    require_kvm()?;
    // Before anything is made: a signal must find somebody who ends it in order.
    let signals = SignalFd::new(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
        .map_err(|error| Error::failure(format!("cannot collect signals: {error}")))?;
    let view = View::open(arguments.json)?;
    let folder = folder()?;
    let (plan, swap) = plan_and_swap(arguments, folder.path())?;
    let failed = |what: &str, error: std::io::Error| Error::failure(format!("cannot start {what}: {error}"));
    let keeper = Keeper::start(plan.budget, arguments.policy).map_err(|error| failed("deciding", error))?;
    let witness = Witness::start(plan.budget).map_err(|error| failed("to look on", error))?;
    let domain = OwnDomain::join();
    let fleet = Fleet::new(plan, domain.as_ref().map(|_| OwnDomain::share()), folder.path());
    let demonstration =
        Demonstration { fleet, keeper, witness, view, signals, ends_asked: 0, policy: arguments.policy };
    let verdict = demonstration.run(&swap)?;
    match arguments.json {
        true => output::print_json(&verdict)?,
        false => output::print(verdict.text(Style::for_output()).as_bytes())?,
    };
    Ok(if verdict.passed { ExitCode::SUCCESS } else { output::failed() })
}

/// Where sockets and swap are. Swap cannot be in memory, where `/tmp` may be.
fn folder() -> Result<tempfile::TempDir, Error> {
    let place = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    tempfile::Builder::new().prefix("napa-demo-").tempdir_in(&place).map_err(|error| {
        Error::failure(format!(
            "cannot make a folder in {}: {error}; set TMPDIR to one that can be written to",
            place.display()
        ))
    })
}

/// What does not fit the budget has to be somewhere: with swap for it the spike goes beyond the budget, without it stays
/// below.
fn plan_and_swap(arguments: &DemoArgs, folder: &std::path::Path) -> Result<(Plan, OwnSwap), Error> {
    let wish = Wish {
        guests: arguments.guests,
        memory: arguments.memory,
        budget: arguments.budget,
        duration_s: arguments.duration,
    };
    let mut host = host()?;
    let plan = plan::plan(wish, host).map_err(Error::bad_input)?;
    let wanted = plan.touched_max();
    let swap = OwnSwap::ensure(wanted, folder);
    if swap.free >= wanted {
        return Ok((plan, swap));
    }
    host.has_swap = false;
    Ok((plan::plan(wish, host).map_err(Error::bad_input)?, swap))
}

fn host() -> Result<Host, Error> {
    let memory = Memory::read(&Root::system()).ok_or_else(|| {
        Error::failure("/proc/meminfo does not say how much memory is available: mount /proc")
    })?;
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    Ok(Host { cpus, available: memory.available, has_swap: true })
}

/// A fleet, who looks after it, who looks at it, and who may end it.
struct Demonstration {
    fleet: Fleet,
    keeper: Keeper,
    witness: Witness,
    view: View,
    signals: SignalFd,
    /// How many times somebody asked for the end.
    ends_asked: u32,
    policy: Kind,
}

/// What the keyboard has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    None,
    Pressed,
}

impl Demonstration {
    fn run(mut self, swap: &OwnSwap) -> Result<Verdict, Error> {
        let mut next_picture = Instant::now();
        let end = Duration::from_secs(self.fleet.plan().duration_s().into());
        while !self.fleet.has_ended() {
            let more = self.start_some()?;
            let until = if more { Instant::now() } else { next_picture };
            let keys = self.wait(until.saturating_duration_since(Instant::now()))?;
            self.fleet.listen();
            if self.fleet.is_stopping() {
                self.fleet.stop();
            } else if self.fleet.age() >= end {
                self.fleet.ask_all();
                self.fleet.stop();
            }
            self.take_orders(keys);
            if Instant::now() >= next_picture {
                self.look();
                next_picture = Instant::now() + self.view.period();
            }
        }
        self.view.close(&self.picture());
        let evidence = Evidence {
            policy: self.policy,
            plan: self.fleet.plan(),
            members: self.fleet.members(),
            account: &self.keeper.account(),
            testimony: self.witness.testimony(),
            has_swap: swap.free.0 > 0,
            was_cut_short: self.ends_asked > 0,
            elapsed: self.fleet.age(),
        };
        Ok(Verdict::of(&evidence))
    }

    /// Starts some of the guests that are to come. True if there are more.
    fn start_some(&mut self) -> Result<bool, Error> {
        for _ in 0..STARTED_AT_ONCE {
            let started = self.fleet.start_next();
            let started = started.map_err(|error| {
                Error::failure(format!("cannot start a guest: {error}; ask for fewer --guests"))
            })?;
            if !started {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until there is something to do.
    fn wait(&self, time: Duration) -> Result<Keys, Error> {
        let mut waited = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let keys = self.view.keys();
        let inputs = keys.into_iter().chain(self.fleet.pipes());
        waited.extend(inputs.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        match poll(&mut waited, Some(&time)) {
            Ok(_) if keys.is_some() && !waited[1].revents().is_empty() => Ok(Keys::Pressed),
            Ok(_) | Err(Errno::INTR) => Ok(Keys::None),
            Err(error) => Err(Error::failure(format!("cannot wait for the guests: {error}"))),
        }
    }

    /// Ends the fleet in order when asked for the first time, at once when asked again.
    fn take_orders(&mut self, keys: Keys) {
        let mut asked = keys == Keys::Pressed && self.view.wants_end();
        while self.signals.next().is_some() {
            asked = true;
        }
        if asked {
            self.ends_asked += 1;
            if self.ends_asked == 1 { self.fleet.stop() } else { self.fleet.kill() }
        }
    }

    fn look(&mut self) {
        let subjects = self.fleet.subjects();
        self.witness.watch(subjects.iter().map(|subject| subject.pid).collect());
        self.keeper.look_after(subjects);
        let picture = self.picture();
        if self.view.show(&picture).is_err() && !self.fleet.is_stopping() {
            // Nobody looks on any more.
            self.fleet.stop();
        }
    }

    fn picture(&self) -> Picture {
        let (plan, account) = (self.fleet.plan(), self.keeper.account());
        let age = self.fleet.age();
        Picture {
            age,
            duration: Duration::from_secs(plan.duration_s().into()),
            activity: plan.phases[plan.phase_at(age.as_secs())].activity,
            budget: plan.budget,
            held: account.report.as_ref().map_or(Bytes(0), |report| report.host.held),
            level: account.level(),
            rows: self
                .fleet
                .members()
                .iter()
                .map(|member| Row::of(member, account.row(&member.plan().name)))
                .collect(),
            decisions: account.decisions.iter().take(DECISIONS_SHOWN).map(table::sentence).collect(),
        }
    }
}

/// Decisions under the table.
const DECISIONS_SHOWN: usize = 5;

//! `napa demo`: a fleet of embedded guests on this host, shown while it works, and its memory verified.
//!
//! ```text
//!  plan (pure) -> fleet (processes) -> guest (lines to figures) -> table (pure) -> screen | lines
//!                                                             `--> summary (pure)
//! ```
//!
//! One thread waits for the guests' pipes, keys, signals and the next picture. Whatever ends it, no process,
//! socket or folder stays behind: guests die with it, and the folder is its own.

mod fleet;
mod guest;
mod plan;
mod screen;
mod summary;
mod table;
mod view;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use napa_sys::host::{Memory, Root};
use napa_sys::signal::SignalFd;
use napa_units::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::fleet::Fleet;
use self::plan::{Host, Wish};
use self::summary::Summary;
use self::table::{Picture, Row};
use self::view::View;
use crate::error::Error;
use crate::guests::require_kvm;
use crate::output::{self, Style};

/// When the guests' memory is looked at by mapping: they have all been filled by then.
const FOOTPRINT_AT: f64 = 0.5;

/// The flags of `napa demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Number of guests [default: four for each CPU, at most 24]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    guests: Option<u32>,
    /// Guest memory of all guests together [default: 128M for each, at most a quarter of what is available]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// How long the guests work; filling their memory and the last check come on top
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    duration: u32,
    /// Print the summary as JSON, and nothing else
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration.
pub fn demo(arguments: &DemoArgs) -> Result<ExitCode, Error> {
    require_kvm()?;
    let wish = Wish { guests: arguments.guests, memory: arguments.memory, duration_s: arguments.duration };
    let plan = plan::plan(wish, host()?).map_err(Error::bad_input)?;
    // Before any guest starts: a signal must find somebody who ends it.
    let signals = SignalFd::new(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
        .map_err(|error| Error::failure(format!("cannot collect signals: {error}")))?;
    let folder = tempfile::Builder::new().prefix("napa-demo-").tempdir().map_err(|error| {
        Error::failure(format!(
            "cannot make a folder for control sockets: {error}; set TMPDIR to one that can be written to"
        ))
    })?;
    let duration = Duration::from_secs(arguments.duration.into());
    let view = View::open(arguments.json)?;
    let fleet = Fleet::start(plan, folder.path())
        .map_err(|error| Error::failure(format!("cannot start a guest: {error}; ask for fewer --guests")))?;
    let summary = Demonstration::new(fleet, view, signals, duration).run()?;
    match arguments.json {
        true => output::print_json(&summary)?,
        false => output::print(summary.text(Style::for_output()).as_bytes())?,
    };
    Ok(if summary.verified { ExitCode::SUCCESS } else { output::failed() })
}

fn host() -> Result<Host, Error> {
    let memory = Memory::read(&Root::system()).ok_or_else(|| {
        Error::failure("/proc/meminfo does not say how much memory is available: mount /proc")
    })?;
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    Ok(Host { cpus, available: memory.available })
}

/// A fleet, who looks at it, and who may end it.
struct Demonstration {
    fleet: Fleet,
    view: View,
    signals: SignalFd,
    duration: Duration,
    resident_max: Bytes,
    footprints_measured: bool,
    /// How many times somebody asked for the end.
    ends_asked: u32,
}

/// What the keyboard has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    None,
    Pressed,
}

impl Demonstration {
    fn new(fleet: Fleet, view: View, signals: SignalFd, duration: Duration) -> Self {
        Self {
            fleet,
            view,
            signals,
            duration,
            resident_max: Bytes(0),
            footprints_measured: false,
            ends_asked: 0,
        }
    }

    fn run(mut self) -> Result<Summary, Error> {
        let mut next_picture = Instant::now();
        while !self.fleet.has_ended() {
            let keys = self.wait(next_picture.saturating_duration_since(Instant::now()))?;
            self.fleet.listen();
            self.fleet.keep_time();
            self.take_orders(keys);
            if Instant::now() >= next_picture {
                self.look();
                next_picture = Instant::now() + self.view.period();
            }
        }
        let elapsed = self.fleet.age();
        self.fleet.measure();
        self.view.close(&self.picture());
        Ok(Summary::of(self.fleet.members(), self.resident_max, elapsed))
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
        self.fleet.measure();
        if !self.footprints_measured && self.fleet.age() >= self.duration.mul_f64(FOOTPRINT_AT) {
            self.fleet.measure_footprints();
            self.footprints_measured = true;
        }
        let resident = self.fleet.members().iter().map(|member| member.resident().0).sum();
        self.resident_max = self.resident_max.max(Bytes(resident));
        let picture = self.picture();
        if self.view.show(&picture).is_err() {
            // Nobody looks on any more.
            self.fleet.stop();
        }
    }

    fn picture(&self) -> Picture {
        let rows = self.fleet.members().iter().map(Row::of).collect();
        Picture { age: self.fleet.age(), duration: self.duration, rows }
    }
}

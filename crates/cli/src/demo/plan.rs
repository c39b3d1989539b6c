//! Which guests a fleet has, how much memory they may hold together, and what they do when. A function of what was asked
//! for and of the host.
//!
//! ```text
//!  held by all    idle    working      spike of all at once     idle
//!  of the budget  15 %    60 % (±half) 140 %, or 90 % without   15 %
//!                                      swap to put it in
//! ```

use std::fmt;

use napa_units::{Bytes, PAGE_SIZE};

/// Guests for each CPU, unless told otherwise: far more than it can run at once.
const GUESTS_PER_CPU: u32 = 8;
/// More guests than fit a terminal show nothing new.
const GUESTS_DEFAULT_MAX: u32 = 24;
/// A guest needs room for its program and for the record of what its pages hold.
const GUEST_MEMORY_MIN: Bytes = Bytes::mib(32);
/// Guests come in sizes that are multiples of this.
const GUEST_MEMORY_STEP: Bytes = Bytes::mib(2);
/// The budget of a guest, at least: its process and its kernel's part are in there too.
const SHARE_MIN: Bytes = Bytes::mib(8);
/// What the limits come to, at least, unless told otherwise, in budgets.
const OVERCOMMIT: u64 = 4;
/// The part of the host's available memory that is the budget by default, and at most.
const BUDGET_DEFAULT: (u64, u64) = (1, 4);
const BUDGET_MAX: (u64, u64) = (3, 4);
/// The part of its memory that a guest can fill, in percent: some it needs itself.
const FILLED_MAX: u64 = 80;
/// Guests between two reports of each that a host takes easily, in a second.
const REPORTS_PER_SECOND: u64 = 10;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Number of guests.
    pub guests: Option<u32>,
    /// Guest memory of each: its limit.
    pub memory: Option<Bytes>,
    /// RAM that all of them together may hold.
    pub budget: Option<Bytes>,
    /// How long the phases take together, in seconds.
    pub duration_s: u32,
}

/// What the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// CPUs that this process may use.
    pub cpus: u32,
    /// Memory that can be had without swapping.
    pub available: Bytes,
    /// There is, or will be, swap for what does not fit the budget.
    pub has_swap: bool,
}

/// A fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its guests, in the order in which they start.
    pub guests: Vec<GuestPlan>,
    /// RAM that they may hold together.
    pub budget: Bytes,
    /// What they do, in order.
    pub phases: [Phase; PHASES],
}

/// How many phases there are.
pub const PHASES: usize = 4;

/// What all guests do for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// What.
    pub activity: Activity,
    /// For how long, in seconds; at least one.
    pub seconds: u32,
}

/// What guests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// They hold little and sleep.
    Idle,
    /// They hold what they usually need, some more than others, and work on half of it.
    Working,
    /// All need much more at the same time.
    Spike,
}

/// One guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPlan {
    /// Name of the VM.
    pub name: String,
    /// Guest memory.
    pub memory: Bytes,
    /// What it holds in each phase, and visits of that.
    pub steps: [Step; PHASES],
}

/// What a guest does in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Memory that it holds.
    pub held: Bytes,
    /// Memory of that which it visits; none: it sleeps.
    pub hot: Bytes,
}

/// Why there is no fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Guests that are too small to run.
    #[error("--memory {memory} is too little for a guest: {GUEST_MEMORY_MIN} is the least")]
    GuestTooSmall {
        /// What was asked for.
        memory: Bytes,
    },
    /// A budget that guests cannot live in.
    #[error(
        "--budget {budget} is too little for {guests} guests: {needed} is the least, or ask for fewer --guests"
    )]
    BudgetTooSmall {
        /// What was asked for, or what the host has.
        budget: Bytes,
        /// How many guests.
        guests: u32,
        /// What they need.
        needed: Bytes,
    },
    /// More than the host can give without harm to others.
    #[error(
        "--budget {budget} is more than three quarters of what this host has available ({available} MiB): ask for {most}M or less"
    )]
    BudgetTooLarge {
        /// What was asked for.
        budget: Bytes,
        /// What is available, in MiB.
        available: u64,
        /// The most that would be taken, in MiB.
        most: u64,
    },
    /// The host is too small for the guests.
    #[error(
        "this host has {available} MiB available, and a quarter of that is too little for {guests} guests: ask for fewer --guests, or end other programs"
    )]
    HostTooSmall {
        /// What is available, in MiB.
        available: u64,
        /// How many guests.
        guests: u32,
    },
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Spike => "spike",
        })
    }
}

impl Plan {
    /// The sum of the guests' limits.
    pub fn limits(&self) -> Bytes {
        Bytes(self.guests.iter().map(|guest| guest.memory.0).sum())
    }

    /// The most that the guests come to hold, each at its worst.
    pub fn touched_max(&self) -> Bytes {
        let most = |guest: &GuestPlan| guest.steps.iter().map(|step| step.held.0).max().unwrap_or(0);
        Bytes(self.guests.iter().map(most).sum())
    }

    /// How long the phases take together, in seconds.
    pub fn duration_s(&self) -> u32 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }

    /// Which phase it is, so many seconds after the start; the last one does not end by itself.
    pub fn phase_at(&self, second: u64) -> usize {
        let ends = self.phases.iter().scan(0, |end, phase| {
            *end += u64::from(phase.seconds);
            Some(*end)
        });
        ends.take(PHASES - 1).filter(|&end| end <= second).count()
    }

    /// The command line of a guest that starts so many seconds after the first one: its phases end with those of the
    /// others. Equal pages are there to be found: a quarter of what each holds.
    pub fn cmdline(&self, guest: &GuestPlan, started_s: u32) -> String {
        let mut late = started_s;
        let step = |(index, step): (usize, &Step)| {
            let seconds = self.phases[index].seconds;
            let left = seconds.saturating_sub(late).max(1);
            late -= late.min(seconds - 1);
            let time = if index == PHASES - 1 { 0 } else { left };
            let hot = if step.hot.0 == 0 { String::new() } else { format!("/{}", step.hot) };
            format!("{}/{time}{hot}", step.held)
        };
        let steps: Vec<String> = guest.steps.iter().enumerate().map(step).collect();
        let guests = self.guests.len() as u64;
        // Many guests say less each, and work less each: the CPUs are for the memory.
        let (report, pause) = ((guests / REPORTS_PER_SECOND).max(1), (guests * 5 / 2).clamp(50, 3000));
        format!(
            "workload=phases:{} balloon=on report={report} pause={pause} seed=1 common=25",
            steps.join(",")
        )
    }
}

/// Plans a fleet.
///
/// # Errors
/// The guests do not fit the budget, or the budget not the host.
pub fn plan(wish: Wish, host: Host) -> Result<Plan, PlanError> {
    let guests = wish.guests.unwrap_or_else(|| default_guests(host));
    let budget = budget(wish, guests, host)?;
    let memory = match wish.memory {
        Some(memory) if memory < GUEST_MEMORY_MIN => return Err(PlanError::GuestTooSmall { memory }),
        Some(memory) => memory,
        None => {
            let each = (budget.0 * OVERCOMMIT).div_ceil(u64::from(guests));
            Bytes(each.next_multiple_of(GUEST_MEMORY_STEP.0)).max(GUEST_MEMORY_MIN)
        }
    };
    let share = Bytes(budget.0 / u64::from(guests));
    let spike = if host.has_swap { 140 } else { 90 };
    let guests = (1..=guests).map(|number| guest(number, memory, share, spike)).collect();
    Ok(Plan { guests, budget, phases: phases(wish.duration_s) })
}

fn default_guests(host: Host) -> u32 {
    let fit = part(host.available, BUDGET_DEFAULT).0 / SHARE_MIN.0;
    (host.cpus * GUESTS_PER_CPU).min(GUESTS_DEFAULT_MAX).min(fit as u32).max(1)
}

fn budget(wish: Wish, guests: u32, host: Host) -> Result<Bytes, PlanError> {
    let needed = Bytes(u64::from(guests) * SHARE_MIN.0);
    let most = part(host.available, BUDGET_MAX);
    match wish.budget {
        Some(budget) if budget < needed => Err(PlanError::BudgetTooSmall { budget, guests, needed }),
        Some(budget) if budget > most => {
            Err(PlanError::BudgetTooLarge { budget, available: host.available.0 >> 20, most: most.0 >> 20 })
        }
        Some(budget) => Ok(budget),
        None => {
            let budget = part(host.available, BUDGET_DEFAULT);
            let too_small = PlanError::HostTooSmall { available: host.available.0 >> 20, guests };
            if budget < needed { Err(too_small) } else { Ok(Bytes(budget.0 & !((1 << 20) - 1))) }
        }
    }
}

fn part(bytes: Bytes, (numerator, denominator): (u64, u64)) -> Bytes {
    Bytes(bytes.0 / denominator * numerator)
}

fn phases(duration_s: u32) -> [Phase; PHASES] {
    let part = |percent: u32| (duration_s * percent / 100).max(1);
    [(Activity::Idle, 15), (Activity::Working, 35), (Activity::Spike, 30), (Activity::Idle, 20)]
        .map(|(activity, percent)| Phase { activity, seconds: part(percent) })
}

fn guest(number: u32, memory: Bytes, share: Bytes, spike: u64) -> GuestPlan {
    // Of three guests one works on little, one on what is its part, one on more.
    let working = [30, 60, 90][number as usize % 3];
    let step = |held: u64, hot: u64| {
        let percent = |bytes: u64, percent: u64| bytes / 100 * percent / PAGE_SIZE * PAGE_SIZE;
        let held = percent(share.0, held).min(percent(memory.0, FILLED_MAX)).max(PAGE_SIZE);
        Step { held: Bytes(held), hot: Bytes(percent(held, hot)) }
    };
    GuestPlan {
        name: format!("guest-{number}"),
        memory,
        steps: [step(15, 0), step(working, 50), step(spike, 25), step(15, 0)],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: Host = Host { cpus: 2, available: Bytes::gib(8), has_swap: true };
    const WISH: Wish = Wish { guests: None, memory: None, budget: None, duration_s: 20 };

    #[test]
    fn limits_come_to_four_budgets_by_default() {
        let plan = plan(WISH, HOST).unwrap();
        assert_eq!((plan.guests.len(), plan.budget), (16, Bytes::gib(2)));
        assert_eq!(plan.limits(), Bytes::gib(8));
        assert_eq!(plan.duration_s(), 20);
    }

    #[test]
    fn a_guest_that_starts_late_keeps_up_with_the_others() {
        let wish = Wish {
            guests: Some(2),
            memory: Some(Bytes::mib(64)),
            budget: Some(Bytes::mib(40)),
            duration_s: 20,
        };
        let plan = plan(wish, HOST).unwrap();
        for (started_s, expected) in [
            (0, "workload=phases:3068K/3,18428K/7/9212K,28668K/6/7164K,3068K/0"),
            (2, "workload=phases:3068K/1,18428K/7/9212K,28668K/6/7164K,3068K/0"),
            (5, "workload=phases:3068K/1,18428K/4/9212K,28668K/6/7164K,3068K/0"),
        ] {
            let line = plan.cmdline(&plan.guests[1], started_s);
            assert!(line.starts_with(expected), "{line}");
        }
    }

    #[test]
    fn phases_follow_each_other_and_the_last_one_stays() {
        let plan = plan(WISH, HOST).unwrap();
        let at = |second| plan.phase_at(second);
        assert_eq!([0, 2, 3, 9, 10, 15, 16, 1000].map(at), [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_way_out() {
        for (guests, memory, budget, available, expected) in [
            (Some(8), None, Some(40), 8192, "--budget 40M is too little for 8 guests: 64M is the least"),
            (None, Some(16), None, 8192, "--memory 16M is too little for a guest: 32M is the least"),
            (None, None, Some(7000), 8192, "(8192 MiB): ask for 6144M or less"),
            (
                Some(1000),
                None,
                None,
                8192,
                "8192 MiB available, and a quarter of that is too little for 1000 guests",
            ),
        ] {
            let wish =
                Wish { guests, memory: memory.map(Bytes::mib), budget: budget.map(Bytes::mib), ..WISH };
            let host = Host { available: Bytes::mib(available), ..HOST };
            let error = plan(wish, host).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_fleet_can_do_what_it_is_told(
            cpus in 1_u32..256, available_mib in 64_u64..(1 << 20), guests in prop::option::of(1_u32..2000),
            memory_mib in prop::option::of(1_u64..(1 << 16)), budget_mib in prop::option::of(1_u64..(1 << 20)),
            duration_s in 1_u32..1000, has_swap: bool, started_s in 0_u32..2000,
        ) {
            let host = Host { cpus, available: Bytes::mib(available_mib), has_swap };
            let wish =
                Wish { guests, memory: memory_mib.map(Bytes::mib), budget: budget_mib.map(Bytes::mib), duration_s };
            let Ok(plan) = plan(wish, host) else { return Ok(()) };
            prop_assert!(plan.budget.0 <= host.available.0 / 4 * 3);
            prop_assert!(memory_mib.is_some() || plan.limits().0 >= plan.budget.0 * OVERCOMMIT);
            for guest in &plan.guests {
                for step in guest.steps {
                    prop_assert!(step.held.0 > 0 && step.hot <= step.held);
                    prop_assert!(step.held.0 <= guest.memory.0 / 100 * 80);
                }
                prop_assert!(!plan.cmdline(guest, started_s).contains("/0,"));
            }
            let held: u64 = plan.guests.iter().map(|guest| guest.steps[2].held.0).sum();
            prop_assert!(has_swap || held <= plan.budget.0);
        }
    }
}

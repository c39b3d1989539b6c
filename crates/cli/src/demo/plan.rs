//! Which guests a fleet has: sizes and workloads, as a function of what was asked for and of the host.

use napa_units::Bytes;

/// Guests on a host of one CPU, unless told otherwise: more than it can run at once.
const GUESTS_PER_CPU: u32 = 4;
/// More guests than fit a terminal show nothing new.
const GUESTS_DEFAULT_MAX: u32 = 24;
/// Memory of a guest on average, unless told otherwise.
const GUEST_MEMORY_DEFAULT: Bytes = Bytes::mib(128);
/// A guest needs room for its program and for the record of what its pages hold.
const GUEST_MEMORY_MIN: Bytes = Bytes::mib(16);
/// Guests come in sizes that are multiples of this.
const GUEST_MEMORY_STEP: Bytes = Bytes::mib(2);
/// Part of the host's available memory that a fleet takes by itself, and at most when told to.
const SHARE_DEFAULT: (u64, u64) = (1, 4);
const SHARE_MAX: (u64, u64) = (3, 4);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Number of guests.
    pub guests: Option<u32>,
    /// Guest memory of all together.
    pub memory: Option<Bytes>,
    /// How long the guests work, in seconds; at least one.
    pub duration_s: u32,
}

/// What the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// CPUs that this process may use.
    pub cpus: u32,
    /// Memory that can be had without swapping.
    pub available: Bytes,
}

/// A fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its guests, in the order in which they start.
    pub guests: Vec<GuestPlan>,
    /// When guests that do not end by themselves are asked to, in seconds from the start.
    pub duration_s: u32,
}

/// One guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPlan {
    /// Name of the VM.
    pub name: String,
    /// Guest memory.
    pub memory: Bytes,
    /// vCPUs.
    pub cpus: u32,
    /// The workload, for people.
    pub workload: String,
    /// The guest's command line.
    pub cmdline: String,
    /// It stops working by itself, looks at all of its pages once more and ends.
    pub ends_by_itself: bool,
}

/// Why there is no fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Less memory than the guests need.
    #[error(
        "--memory {memory} is too little for {guests} guests: {needed} is the least, or ask for fewer --guests"
    )]
    TooLittle {
        /// What was asked for.
        memory: Bytes,
        /// How many guests.
        guests: u32,
        /// What they need.
        needed: Bytes,
    },
    /// More memory than the host can give without harm to others.
    #[error(
        "--memory {memory} is more than three quarters of what this host has available ({available} MiB): ask for {most}M or less"
    )]
    TooMuch {
        /// What was asked for.
        memory: Bytes,
        /// What is available, in MiB.
        available: u64,
        /// The most that would be taken, in MiB.
        most: u64,
    },
    /// The host is too small for the guests.
    #[error(
        "this host has {available} MiB available, too little for {guests} guests: ask for fewer --guests, or end other programs"
    )]
    HostTooSmall {
        /// What is available, in MiB.
        available: u64,
        /// How many guests.
        guests: u32,
    },
}

/// Plans a fleet.
///
/// # Errors
/// The guests do not fit the memory, or the memory not the host.
pub fn plan(wish: Wish, host: Host) -> Result<Plan, PlanError> {
    let guests = wish.guests.unwrap_or_else(|| default_guests(host));
    let memory = match wish.memory {
        Some(memory) => wished_memory(memory, guests, host)?,
        None => default_memory(guests, host)?,
    };
    let weights: Vec<u64> = kinds(guests).map(|kind| kind.weight).collect();
    let sizes = sizes(memory, &weights);
    let guests = (1..=guests).zip(kinds(guests)).zip(sizes);
    let guests =
        guests.map(|((number, kind), size)| kind.guest(number, size, wish.duration_s, host)).collect();
    Ok(Plan { guests, duration_s: wish.duration_s })
}

fn default_guests(host: Host) -> u32 {
    let fit = share(host.available, SHARE_DEFAULT).0 / GUEST_MEMORY_MIN.0;
    (host.cpus * GUESTS_PER_CPU).min(GUESTS_DEFAULT_MAX).min(fit as u32).max(1)
}

fn default_memory(guests: u32, host: Host) -> Result<Bytes, PlanError> {
    let memory = Bytes(u64::from(guests) * GUEST_MEMORY_DEFAULT.0).min(share(host.available, SHARE_DEFAULT));
    if memory < least(guests) {
        return Err(PlanError::HostTooSmall { available: host.available.0 >> 20, guests });
    }
    Ok(memory)
}

fn wished_memory(memory: Bytes, guests: u32, host: Host) -> Result<Bytes, PlanError> {
    let most = share(host.available, SHARE_MAX);
    if memory < least(guests) {
        return Err(PlanError::TooLittle { memory, guests, needed: least(guests) });
    }
    if memory > most {
        return Err(PlanError::TooMuch { memory, available: host.available.0 >> 20, most: most.0 >> 20 });
    }
    Ok(memory)
}

fn least(guests: u32) -> Bytes {
    Bytes(u64::from(guests) * GUEST_MEMORY_MIN.0)
}

fn share(bytes: Bytes, (numerator, denominator): (u64, u64)) -> Bytes {
    Bytes(bytes.0 / denominator * numerator)
}

/// Shares `memory` out by weight, in whole steps; nobody gets less than the least.
fn sizes(memory: Bytes, weights: &[u64]) -> Vec<Bytes> {
    let to_share = memory.0 - least(weights.len() as u32).0;
    let sum: u64 = weights.iter().sum();
    let size = |weight: &u64| {
        let more = (u128::from(to_share) * u128::from(*weight) / u128::from(sum)) as u64;
        Bytes(GUEST_MEMORY_MIN.0 + more / GUEST_MEMORY_STEP.0 * GUEST_MEMORY_STEP.0)
    };
    weights.iter().map(size).collect()
}

/// A kind of guest: what it does, and how large it is among its like.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Share of the fleet's memory.
    weight: u64,
    /// Part of the guest's memory that it works on, in percent.
    working_set: u64,
    cpus: u32,
    work: Work,
}

#[derive(Clone, Copy)]
enum Work {
    /// `NAME:SIZE`, then more values.
    Timed(&'static str),
    /// Fills its pages, reads them, and sleeps.
    ThenIdle,
}

/// The mix: random visits, few hot pages, a stream, reads only, and one that does nothing for most of the time.
const KINDS: [Kind; 5] = [
    Kind { name: "verify", weight: 3, working_set: 75, cpus: 1, work: Work::Timed("") },
    Kind { name: "zipf", weight: 4, working_set: 75, cpus: 2, work: Work::Timed(",0.99") },
    Kind { name: "sweep", weight: 2, working_set: 50, cpus: 1, work: Work::Timed("") },
    Kind { name: "touch", weight: 1, working_set: 75, cpus: 1, work: Work::Timed("") },
    Kind { name: "idle", weight: 2, working_set: 25, cpus: 1, work: Work::ThenIdle },
];

fn kinds(guests: u32) -> impl Iterator<Item = Kind> {
    KINDS.into_iter().cycle().take(guests as usize)
}

impl Kind {
    fn guest(self, number: u32, memory: Bytes, duration_s: u32, host: Host) -> GuestPlan {
        let size = Bytes(memory.0 / 100 * self.working_set / 4096 * 4096);
        let kib = Bytes::kib(size.0 >> 10);
        let (work, ends_by_itself) = match self.work {
            Work::Timed(more) => (format!("{}:{kib}{more},{duration_s}", self.name), true),
            Work::ThenIdle => (format!("touch:{kib}+idle"), false),
        };
        GuestPlan {
            name: format!("{}-{number}", self.name),
            memory,
            cpus: self.cpus.min(host.cpus).max(1),
            workload: format!("{} {}", self.name, crate::figures::size(size)),
            // The same page holds other bytes in each guest.
            cmdline: format!("workload={work} seed={number}"),
            ends_by_itself,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: Host = Host { cpus: 2, available: Bytes::gib(8) };
    const WISH: Wish = Wish { guests: None, memory: None, duration_s: 20 };

    fn total(plan: &Plan) -> Bytes {
        Bytes(plan.guests.iter().map(|guest| guest.memory.0).sum())
    }

    #[test]
    fn two_cpus_get_eight_guests_of_all_kinds() {
        let plan = plan(WISH, HOST).unwrap();
        let names: Vec<&str> = plan.guests.iter().map(|guest| guest.name.as_str()).collect();
        let expected =
            ["verify-1", "zipf-2", "sweep-3", "touch-4", "idle-5", "verify-6", "zipf-7", "sweep-8"];
        assert_eq!(names, expected);
        assert!(total(&plan) <= Bytes::gib(1) && total(&plan) > Bytes::mib(1000), "{:?}", total(&plan));
    }

    #[test]
    fn command_lines_name_work_size_and_time() {
        let wish = Wish { guests: Some(5), memory: Some(Bytes::mib(80)), duration_s: 7 };
        let plan = plan(wish, HOST).unwrap();
        let lines: Vec<&str> = plan.guests.iter().map(|guest| guest.cmdline.as_str()).collect();
        let expected = [
            "workload=verify:12284K,7 seed=1",
            "workload=zipf:12284K,0.99,7 seed=2",
            "workload=sweep:8188K,7 seed=3",
            "workload=touch:12284K,7 seed=4",
            "workload=touch:4092K+idle seed=5",
        ];
        assert_eq!(lines, expected);
        assert_eq!(plan.guests.iter().filter(|guest| !guest.ends_by_itself).count(), 1);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_way_out() {
        for (guests, memory, host, expected) in [
            (
                Some(8),
                Some(Bytes::mib(100)),
                HOST,
                "--memory 100M is too little for 8 guests: 128M is the least",
            ),
            (
                None,
                Some(Bytes::gib(7)),
                HOST,
                "more than three quarters of what this host has available (8192 MiB): ask for 6144M or less",
            ),
            (Some(1000), None, HOST, "8192 MiB available, too little for 1000 guests"),
            (
                None,
                None,
                Host { cpus: 64, available: Bytes::mib(40) },
                "40 MiB available, too little for 1 guests",
            ),
        ] {
            let error = plan(Wish { guests, memory, ..WISH }, host).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_fleet_fits_what_it_may_have(
            cpus in 1_u32..256, available_mib in 64_u64..(1 << 20), guests in prop::option::of(1_u32..200),
            memory_mib in prop::option::of(1_u64..(1 << 20)), duration_s in 1_u32..1000,
        ) {
            let host = Host { cpus, available: Bytes::mib(available_mib) };
            let memory = memory_mib.map(Bytes::mib);
            if let Ok(plan) = plan(Wish { guests, memory, duration_s }, host) {
                let total = total(&plan);
                prop_assert!(total <= memory.unwrap_or(Bytes(host.available.0 / 4)));
                prop_assert!(total.0 <= host.available.0 / 4 * 3);
                prop_assert!(guests.is_none_or(|guests| guests == plan.guests.len() as u32));
                for guest in &plan.guests {
                    prop_assert!(guest.memory >= GUEST_MEMORY_MIN && guest.cpus <= cpus);
                }
            }
        }
    }
}

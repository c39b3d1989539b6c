//! The workloads that a command line can name.

/// One piece of work.
#[allow(clippy::large_enum_variant, reason = "there are few of them, and no heap to put one on")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Names the devices and ends.
    Hello,
    /// Halts until it is stopped.
    Idle,
    /// A memory workload.
    Memory(Memory),
    /// Fills memory, checks it, frees it, again and again.
    Churn {
        /// Bytes, rounded up to whole pages.
        size: u64,
        /// How long.
        duration: Duration,
    },
    /// Fills memory, sleeps, and checks it at the end.
    Hold {
        /// Bytes, rounded up to whole pages.
        size: u64,
        /// What every page holds.
        content: Content,
        /// How long it sleeps; never [`Duration::OnePass`].
        duration: Duration,
    },
    /// Holds more memory and less, and works on some of it, as a service does over a day.
    Phases(Phases),
    /// Serves the balloon until it is stopped.
    Balloon,
    /// Random or sequential transfers on the disk.
    Block(Block),
    /// Writes a pattern over the first `size` bytes of the disk and checks it.
    BlockVerify {
        /// Bytes, a multiple of 4096.
        size: u64,
        /// How long; see [`Duration`].
        duration: Duration,
    },
    /// One request at a time, timed from doorbell to completion.
    BlockLatency {
        /// How long.
        duration: Duration,
    },
    /// Answers ARP, ICMP, UDP and TCP until it is stopped.
    NetEcho,
    /// Sends ICMP echo requests.
    NetPing {
        /// To whom.
        address: [u8; 4],
        /// How many.
        count: u64,
    },
    /// Sends back what the console receives until it is stopped.
    ConsoleEcho,
    /// Reads entropy and looks whether it is any.
    Rng {
        /// Bytes.
        size: u64,
    },
    /// Panics.
    Panic,
    /// Triple fault.
    TripleFault,
    /// Restarts the machine.
    Reboot,
    /// Switches the machine off.
    PowerOff,
    /// Computes without touching memory.
    Spin {
        /// How long.
        duration: Duration,
    },
    /// Ends with this code.
    Exit {
        /// 0 to 255.
        code: u8,
    },
}

/// A workload over guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Which pages it visits in which order.
    pub order: Order,
    /// Bytes, rounded up to whole pages.
    pub size: u64,
    /// How long.
    pub duration: Duration,
}

/// The order in which a memory workload visits its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each page once, in order: written, then checked.
    Touch,
    /// From the first page to the last, again and again: checked and rewritten.
    Sweep,
    /// Any page as likely as any other: checked, some rewritten.
    Random,
    /// Some pages more likely than others.
    Zipf {
        /// The exponent, in thousandths.
        theta: u64,
    },
}

/// What the pages of `hold` contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The pattern of the seed and the page's number: the same in every guest.
    Identical,
    /// The pattern of a seed that no other guest has.
    Random,
    /// Zeros.
    Zero,
}

/// Steps of `phases`, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    steps: [Step; STEPS_MAX],
    count: usize,
}

/// The most steps of `phases`.
pub const STEPS_MAX: usize = 8;

/// One step of `phases`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes held meanwhile, a multiple of 4096.
    pub held: u64,
    /// Bytes of them that are visited, a multiple of 4096; 0: none, the guest sleeps.
    pub hot: u64,
    /// How long; never [`Duration::OnePass`].
    pub duration: Duration,
}

impl Phases {
    /// No step yet.
    pub(super) const fn new() -> Self {
        Self { steps: [Step { held: 0, hot: 0, duration: Duration::UntilStopped }; STEPS_MAX], count: 0 }
    }

    /// False if there is no room for one more step.
    #[must_use]
    pub(super) fn push(&mut self, step: Step) -> bool {
        let place = self.steps.get_mut(self.count);
        let fits = place.map(|place| *place = step).is_some();
        self.count += usize::from(fits);
        fits
    }

    /// The steps in order; at least one.
    pub fn steps(&self) -> &[Step] {
        &self.steps[..self.count]
    }

    /// The smallest amount above `held` bytes that any step holds.
    pub fn level_above(&self, held: u64) -> Option<u64> {
        self.steps().iter().map(|step| step.held).filter(|&level| level > held).min()
    }
}

/// A transfer workload over the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Writes instead of reads.
    pub write: bool,
    /// One block after the other instead of any.
    pub sequential: bool,
    /// Bytes of one request, a multiple of 512, at most [`BLOCK_MAX`].
    pub block: u64,
    /// Requests under way at a time, 1 to [`DEPTH_MAX`].
    pub depth: u64,
    /// How long.
    pub duration: Duration,
}

/// The largest request.
pub const BLOCK_MAX: u64 = 4 << 20;
/// The most requests under way.
pub const DEPTH_MAX: u64 = 128;

/// How long a workload goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duration {
    /// Until each page or block was visited once.
    OnePass,
    /// This many seconds.
    Seconds(u64),
    /// Until the host asks it to stop.
    UntilStopped,
}

//! The command line: words `key=value` separated by spaces, and the workloads it names.

use crate::size::{parse_ipv4, parse_size, parse_thousandths, parse_u64};
use core::fmt;
use heapless::Vec;

mod work;

pub use work::{
    BLOCK_MAX, Block, Content, DEPTH_MAX, Duration, Memory, Order, Phases, STEPS_MAX, Step, Workload,
};

/// Workloads that one command line can name.
pub const WORKLOADS_MAX: usize = 16;

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments<'a> {
    /// The work, in order.
    pub workloads: Vec<Workload, WORKLOADS_MAX>,
    /// The text of `workload=`, for the report.
    pub workload_text: &'a str,
    /// Seconds between reports; 0 reports at the end only.
    pub report_seconds: u64,
    /// Seconds between ticks of `idle`; 0 sets no timer.
    pub tick_seconds: u64,
    /// What the contents of memory and disk depend on, besides place and generation.
    pub seed: u64,
    /// Visits that rewrite, in percent, where the workload leaves a choice.
    pub writes_percent: u64,
    /// Polls the used ring instead of sleeping for an interrupt.
    pub poll: bool,
    /// Which disk, counted in PCI order.
    pub disk: u64,
    /// The guest's own IPv4 address and prefix length.
    pub address: ([u8; 4], u8),
    /// The next hop for addresses outside the guest's network.
    pub gateway: Option<[u8; 4]>,
    /// Serves the balloon beside the workloads.
    pub balloon: bool,
    /// Tells the host which memory is free, where the balloon device wants to know.
    pub reporting: bool,
    /// Milliseconds that memory must have been free before the host hears of it.
    pub report_after_ms: u64,
    /// `hold` writes to its pages at the end.
    pub rewrite: bool,
    /// Milliseconds that `churn` leaves memory free, and that `phases` rests.
    pub pause_ms: u64,
    /// Pages that `phases` visits before each pause.
    pub burst_pages: u64,
    /// Pages in a hundred that are the same in every guest with the same seed, where the workload leaves a choice.
    pub common_percent: u64,
    /// Uses the x2APIC even where the memory-mapped APIC would do.
    pub x2apic: bool,
    /// A word that means nothing to this guest, if there is one.
    pub unknown: Option<&'a str>,
}

/// A word of the command line that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadArgument<'a> {
    /// The word, or the part of it that is wrong.
    pub text: &'a str,
    /// What it should be.
    pub expected: &'static str,
}

impl fmt::Display for BadArgument<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "'{}' on the command line: expected {}", self.text, self.expected)
    }
}

impl Default for Arguments<'_> {
    fn default() -> Self {
        Self {
            workloads: Vec::new(),
            workload_text: "hello",
            report_seconds: 1,
            tick_seconds: 0,
            seed: 0,
            writes_percent: 50,
            poll: false,
            disk: 0,
            address: ([10, 0, 2, 15], 24),
            gateway: None,
            balloon: false,
            reporting: true,
            report_after_ms: 0,
            rewrite: false,
            pause_ms: 100,
            burst_pages: 256,
            common_percent: 0,
            x2apic: false,
            unknown: None,
        }
    }
}

/// Reads the command line. Without `workload=` the work is `hello`.
pub fn parse(line: &str) -> Result<Arguments<'_>, BadArgument<'_>> {
    let mut arguments = Arguments::default();
    let mut default_duration = Duration::OnePass;
    for word in line.split_ascii_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "workload" => arguments.workload_text = value,
            "seconds" => default_duration = seconds(value)?,
            "report" => arguments.report_seconds = number(value)?,
            "tick" => arguments.tick_seconds = number(value)?,
            "seed" => arguments.seed = number(value)?,
            "writes" => arguments.writes_percent = within(value, 0, 100, "a percentage from 0 to 100")?,
            "poll" => arguments.poll = on_off(value)?,
            "disk" => arguments.disk = number(value)?,
            "ip" => arguments.address = network(value)?,
            "gateway" => arguments.gateway = Some(ipv4(value)?),
            "balloon" => arguments.balloon = on_off(value)?,
            "reporting" => arguments.reporting = on_off(value)?,
            "rewrite" => arguments.rewrite = on_off(value)?,
            "reporting-after" => arguments.report_after_ms = milliseconds(value)?,
            "pause" => arguments.pause_ms = milliseconds(value)?,
            "burst" => arguments.burst_pages = within(value, 1, 1 << 20, "pages, 1 to 1048576")?,
            "common" => arguments.common_percent = within(value, 0, 100, "a percentage from 0 to 100")?,
            "apic" if value == "x2apic" => arguments.x2apic = true,
            _ => arguments.unknown = arguments.unknown.or(Some(word)),
        }
    }
    for text in arguments.workload_text.split('+') {
        let workload = workload(text, default_duration)?;
        arguments
            .workloads
            .push(workload)
            .map_err(|_| BadArgument { text, expected: "at most sixteen workloads" })?;
        arguments.balloon |= workload == Workload::Balloon;
    }
    Ok(arguments)
}

fn workload(text: &str, default_duration: Duration) -> Result<Workload, BadArgument<'_>> {
    let (name, values) = text.split_once(':').unwrap_or((text, ""));
    let mut values = Values { rest: values, default_duration };
    let found = match name {
        "hello" => Workload::Hello,
        "idle" => Workload::Idle,
        "touch" => values.memory(Order::Touch)?,
        "sweep" => values.memory(Order::Sweep)?,
        "verify" => values.memory(Order::Random)?,
        "zipf" => {
            let size = size(values.next())?;
            let theta = thousandths(values.next())?;
            Workload::Memory(Memory { order: Order::Zipf { theta }, size, duration: values.duration()? })
        }
        "churn" => Workload::Churn { size: size(values.next())?, duration: values.duration()? },
        "hold" => {
            let (size, content) = (size(values.next())?, content(values.next())?);
            let duration = match values.duration()? {
                Duration::OnePass => Duration::UntilStopped,
                duration => duration,
            };
            Workload::Hold { size, content, duration }
        }
        "phases" => Workload::Phases(phases(&mut values)?),
        "balloon" => Workload::Balloon,
        "blk-read" => values.block(false, false)?,
        "blk-write" => values.block(true, false)?,
        "blk-seq-read" => values.block(false, true)?,
        "blk-seq-write" => values.block(true, true)?,
        "blk-verify" => {
            let text = values.next();
            let size = size(text)?;
            if size % 4096 != 0 {
                return Err(BadArgument { text, expected: "a multiple of 4K" });
            }
            Workload::BlockVerify { size, duration: values.duration()? }
        }
        "blk-latency" => Workload::BlockLatency { duration: values.duration()? },
        "net-echo" => Workload::NetEcho,
        "net-ping" => Workload::NetPing { address: ipv4(values.next())?, count: number(values.next())? },
        "console-echo" => Workload::ConsoleEcho,
        "rng" => Workload::Rng { size: size(values.next())? },
        "panic" => Workload::Panic,
        "triple-fault" => Workload::TripleFault,
        "reboot" => Workload::Reboot,
        "poweroff" => Workload::PowerOff,
        "spin" => Workload::Spin { duration: values.duration()? },
        "exit" => Workload::Exit { code: within(values.next(), 0, 255, "an exit code from 0 to 255")? as u8 },
        _ => return Err(BadArgument { text, expected: "the name of a workload" }),
    };
    match values.next() {
        "" => Ok(found),
        text => Err(BadArgument { text, expected: "no further value" }),
    }
}

/// The values behind a workload's name.
struct Values<'a> {
    rest: &'a str,
    default_duration: Duration,
}

impl<'a> Values<'a> {
    /// The next value; empty if there is none.
    fn next(&mut self) -> &'a str {
        let (value, rest) = self.rest.split_once(',').unwrap_or((self.rest, ""));
        self.rest = rest;
        value
    }

    fn duration(&mut self) -> Result<Duration, BadArgument<'a>> {
        match self.next() {
            "" => Ok(self.default_duration),
            text => seconds(text),
        }
    }

    fn memory(&mut self, order: Order) -> Result<Workload, BadArgument<'a>> {
        let size = size(self.next())?;
        Ok(Workload::Memory(Memory { order, size, duration: self.duration()? }))
    }

    fn block(&mut self, write: bool, sequential: bool) -> Result<Workload, BadArgument<'a>> {
        let text = self.next();
        let block = size(text)?;
        if block % 512 != 0 || block > BLOCK_MAX {
            return Err(BadArgument { text, expected: "a block size that is a multiple of 512, at most 4M" });
        }
        let depth = within(self.next(), 1, DEPTH_MAX, "a depth from 1 to 128")?;
        Ok(Workload::Block(Block { write, sequential, block, depth, duration: self.duration()? }))
    }
}

/// Steps HELD/SECONDS or HELD/SECONDS/HOT, separated by commas.
fn phases<'a>(values: &mut Values<'a>) -> Result<Phases, BadArgument<'a>> {
    let mut found = Phases::new();
    loop {
        let text = values.next();
        if text.is_empty() && !found.steps().is_empty() {
            return Ok(found);
        }
        if !found.push(step(text)?) {
            return Err(BadArgument { text, expected: "at most eight steps" });
        }
    }
}

fn step(text: &str) -> Result<Step, BadArgument<'_>> {
    const EXPECTED: &str = "a step HELD/SECONDS or HELD/SECONDS/HOT, such as 128M/30/64M";
    let mut parts = text.split('/');
    let (Some(held), Some(time), hot, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(BadArgument { text, expected: EXPECTED });
    };
    let whole_pages = |bytes: u64| bytes.next_multiple_of(4096);
    let held = whole_pages(size(held)?);
    let hot = hot.map_or(Ok(0), |hot| size(hot).map(whole_pages))?;
    if hot > held {
        return Err(BadArgument { text, expected: "a step that visits no more than it holds" });
    }
    Ok(Step { held, hot, duration: seconds(time)? })
}

fn number(text: &str) -> Result<u64, BadArgument<'_>> {
    parse_u64(text).map_err(|_| BadArgument { text, expected: "a whole number" })
}

fn within<'a>(text: &'a str, low: u64, high: u64, expected: &'static str) -> Result<u64, BadArgument<'a>> {
    parse_u64(text).ok().filter(|number| (low..=high).contains(number)).ok_or(BadArgument { text, expected })
}

fn seconds(text: &str) -> Result<Duration, BadArgument<'_>> {
    /// A year: more is a mistake, and nanoseconds stay far from overflow.
    const SECONDS_MAX: u64 = 366 * 86_400;
    match within(text, 0, SECONDS_MAX, "seconds, at most a year, or 0 for no end")? {
        0 => Ok(Duration::UntilStopped),
        seconds => Ok(Duration::Seconds(seconds)),
    }
}

fn milliseconds(text: &str) -> Result<u64, BadArgument<'_>> {
    const HOUR_MS: u64 = 3_600_000;
    within(text, 0, HOUR_MS, "milliseconds, at most an hour")
}

fn size(text: &str) -> Result<u64, BadArgument<'_>> {
    const EXPECTED: &str = "a size above 0 with K, M or G, such as 64M";
    parse_size(text).ok().filter(|&size| size > 0).ok_or(BadArgument { text, expected: EXPECTED })
}

fn content(text: &str) -> Result<Content, BadArgument<'_>> {
    match text {
        "identical" => Ok(Content::Identical),
        "random" => Ok(Content::Random),
        "zero" => Ok(Content::Zero),
        _ => Err(BadArgument { text, expected: "identical, random or zero" }),
    }
}

fn thousandths(text: &str) -> Result<u64, BadArgument<'_>> {
    const EXPECTED: &str = "an exponent from 0 to 5 with at most three places, such as 0.99";
    parse_thousandths(text)
        .ok()
        .filter(|&theta| theta <= 5000)
        .ok_or(BadArgument { text, expected: EXPECTED })
}

fn on_off(text: &str) -> Result<bool, BadArgument<'_>> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(BadArgument { text, expected: "on or off" }),
    }
}

fn ipv4(text: &str) -> Result<[u8; 4], BadArgument<'_>> {
    parse_ipv4(text).map_err(|_| BadArgument { text, expected: "an IPv4 address such as 10.0.2.15" })
}

fn network(text: &str) -> Result<([u8; 4], u8), BadArgument<'_>> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "24"));
    let prefix = within(prefix, 0, 32, "a prefix length from 0 to 32")? as u8;
    Ok((ipv4(address)?, prefix))
}

#[cfg(test)]
mod tests;

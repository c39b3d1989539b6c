//! The command line: every verb and flag, once.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use napa_units::Bytes;

use crate::balloon::BalloonArgs;
use crate::bench::BenchArgs;
use crate::demo::DemoArgs;
use crate::error::{self, Error};
use crate::explain::ExplainArgs;
use crate::host::{ConsoleArgs, CreateArgs, DaemonArgs, ListArgs, LogsArgs, RemoveArgs, VmArgs};
use crate::plug::PlugArgs;
use crate::run::{RunArgs, Switch};
use crate::simulate::SimulateArgs;
use crate::swap::SwapVerb;
use crate::top::TopArgs;

const ABOUT: &str = "A hypervisor for Linux hosts, on KVM";

const EXIT_CODES: &str = "\
Exit codes of 'napa run':
  0      the guest switched itself off
  1      napa or the host failed
  2      a flag, a file or an image cannot be used
  80     the guest asked for a reboot, and --on-reboot is exit
  81     the guest reported a panic
  82     a vCPU met a triple fault
  83     the VM was stopped hard
  84     KVM could not run a vCPU any further, or the host has lost memory
  other  the guest's own";

const HOST_NOTES: &str = "\
It runs in the foreground and writes its log to standard error. When it ends, its VMs run on; the next one finds them.
Who may open its socket may do everything: it is for its own user, and the members of --group.";

const EXAMPLES: &str = "\
Examples:
  napa run
  napa run --kernel vmlinuz --initrd initrd.img --disk path=root.img --memory 1G --cpus 2
  napa run --config web.toml --name web --net tap=tap0
  napa stop web";

/// `napa` and its verbs.
#[derive(Parser)]
#[command(name = "napa", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true,
    subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// What napa is asked to do.
#[derive(Subcommand)]
pub enum Verb {
    #[command(flatten)]
    Start(StartVerb),
    #[command(flatten)]
    Other(OtherVerb),
}

/// The verb whose start-up time counts: it is parsed without the definitions of the others.
#[derive(Subcommand)]
pub enum StartVerb {
    /// Run one VM in the foreground; its serial console is the terminal
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
}

/// All other verbs.
#[derive(Subcommand)]
pub enum OtherVerb {
    /// Run the daemon of this machine: it supervises VMs and decides about their memory
    #[command(after_help = HOST_NOTES)]
    Host(Box<DaemonArgs>),
    /// Have the host note a VM, which 'napa start' starts
    Create(Box<CreateArgs>),
    /// Start a VM of the host
    Start(VmArgs),
    /// Have the host forget a VM that does not run; its disks stay
    Rm(RemoveArgs),
    /// List the VMs of the host
    Ls(ListArgs),
    /// Become the console of a VM of the host
    Console(ConsoleArgs),
    /// Show what a VM of the host says
    Logs(LogsArgs),
    /// Run a fleet of embedded guests, show it live and verify its memory
    Demo(DemoArgs),
    /// Compare napa with QEMU on the same guest, in one run
    Bench(BenchArgs),
    /// Show where the memory of the host and of its VMs is, live
    Top(TopArgs),
    /// Show what this host's KVM offers, and what a guest would get
    Features(JsonArgs),
    /// Show what is wrong on this host, and the command that mends it
    Doctor(DoctorArgs),
    /// Show how a running VM is
    Status(StatusArgs),
    /// Show how a running VM is, and where its memory is
    Inspect(InspectArgs),
    /// Show which ways there are to get memory back from a running VM, and what stands in the way of others
    Explain(ExplainArgs),
    /// Stop the vCPUs of a running VM
    Pause(Target),
    /// Let the vCPUs of a paused VM run again
    Resume(Target),
    /// Ask a VM to switch itself off, and wait until it has ended
    Stop(StopArgs),
    /// Stop a VM hard, and wait until it has ended
    Kill(Target),
    /// Ask a guest to give memory up, or show what it has given up
    Balloon(BalloonArgs),
    /// Give a guest more memory while it runs, take it back, or show how much it has
    Plug(PlugArgs),
    /// Put memory of a running VM into the host's swap
    Reclaim(ReclaimArgs),
    /// Merge equal pages of a running VM, or take them apart
    Share(ShareArgs),
    /// Make, show and remove swap areas of the host
    Swap {
        #[command(subcommand)]
        verb: SwapVerb,
    },
    /// Decide again what a host has recorded, and show what is different
    Simulate(SimulateArgs),
    /// Write the embedded guest's image to a file
    GuestImage(GuestImageArgs),
    /// Write shell completions to standard output
    Completions(CompletionsArgs),
    /// Write the man pages
    Man(ManArgs),
}

/// Which VM.
#[derive(Args)]
pub struct Target {
    /// Name of the VM, alone or of the host, or the path of its control socket (with a '/' in it)
    #[arg(value_name = "VM")]
    pub vm: PathBuf,
}

/// For people or for programs.
#[derive(Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct DoctorArgs {
    /// First put the kernel's settings back that VMs left when they were killed
    #[arg(long)]
    pub mend: bool,
    #[command(flatten)]
    pub format: JsonArgs,
}

#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub format: JsonArgs,
}

#[derive(Args)]
pub struct InspectArgs {
    #[command(flatten)]
    pub target: Target,
    /// Show the memory alone
    #[arg(long)]
    pub memory: bool,
    /// Show how much memory the VM uses: a hundred pages are taken away, and those counted that come back within this
    /// time
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30", conflicts_with = "memory",
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub working_set: Option<u32>,
    /// How: by the generations that the kernel sorts pages into (mglru, as root), by taking pages away and counting
    /// which come back (sampling), or by the kernel's DAMON, which watches accesses (as root) [default: mglru where it
    /// can be had, else sampling]
    #[arg(long, value_name = "METHOD", requires = "working_set")]
    pub method: Option<Method>,
    #[command(flatten)]
    pub format: JsonArgs,
}

/// How to find out how much memory a VM uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Read how old the kernel takes pages to be.
    Mglru,
    /// Take a hundred pages away, and count which come back.
    Sampling,
    /// Have the kernel watch accesses.
    Damon,
}

#[derive(Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub target: Target,
    /// Stop hard after this many seconds [default: the VM's own --stop-timeout]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub timeout: Option<u32>,
}

#[derive(Args)]
pub struct ReclaimArgs {
    #[command(flatten)]
    pub target: Target,
    /// How much: a number and one of K, M, G, T
    #[arg(value_name = "SIZE")]
    pub size: Bytes,
    #[command(flatten)]
    pub format: JsonArgs,
}

#[derive(Args)]
pub struct ShareArgs {
    #[command(flatten)]
    pub target: Target,
    /// on: merge, within what the VM's --share allows; off: give every page a copy of its own again
    #[arg(value_name = "SWITCH", hide_possible_values = true)]
    pub switch: Switch,
    #[command(flatten)]
    pub format: JsonArgs,
}

#[derive(Args)]
pub struct GuestImageArgs {
    /// File to write; '-' is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

#[derive(Args)]
pub struct CompletionsArgs {
    /// Shell to write them for
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Args)]
pub struct ManArgs {
    /// Folder for one page per verb [default: the page of napa itself on standard output]
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
}

/// The whole definition, for completions and man pages.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Reads the command line; the first word is the program's own name.
///
/// # Errors
/// What is wrong with it, or the text that was asked for (help, version).
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Verb, Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let verb = match words.get(1) {
        Some(verb) if verb == "run" => parse_start(&words),
        _ => parse_any(&words),
    };
    verb.map_err(|error| error::from_clap(error, &words))
}

/// Saves the time to define all other verbs, half of that to parse.
fn parse_start(words: &[OsString]) -> Result<Verb, clap::Error> {
    let matches = StartVerb::augment_subcommands(clap::Command::new("napa")).try_get_matches_from(words)?;
    StartVerb::from_arg_matches(&matches).map(Verb::Start)
}

fn parse_any(words: &[OsString]) -> Result<Verb, clap::Error> {
    let matches = definition().try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches).map(|cli| cli.verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_the_same_verb_by_both_ways() {
        for words in
            ["run --help", "run --memory 1G --disk path=a", "run --memory", "run --nonsense", "run x"]
        {
            let words: Vec<OsString> = ["napa"].into_iter().chain(words.split(' ')).map(Into::into).collect();
            let text = |verb: Result<Verb, clap::Error>| match verb {
                Ok(Verb::Start(StartVerb::Run(arguments))) => format!("{arguments:?}"),
                Ok(Verb::Other(_)) => panic!("run was asked for"),
                Err(error) => error.to_string(),
            };
            assert_eq!(text(parse_start(&words)), text(parse_any(&words)));
        }
    }
}

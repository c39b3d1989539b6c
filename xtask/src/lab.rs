//! `cargo xtask lab …`

mod shell;

use std::io::Write;
use std::process::exit;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use napa_lab::cache::Cache;
use napa_lab::{HostKernel, HostOptions, Lab, Stream, qemu};

#[derive(Subcommand)]
pub enum Command {
    /// Fetch and build everything, so that hosts start in a second.
    Build {
        /// Look for newer packages first.
        #[arg(long)]
        update: bool,
    },
    /// Get a prompt in a host, with napa in the PATH and guests' images in /images.
    Shell {
        #[command(flatten)]
        host: HostArguments,
    },
    /// Run the lab's tests, or those whose name contains a filter.
    Test {
        /// A part of the tests' names, and options of the test program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command in a host; the exit code is the command's.
    Run {
        #[command(flatten)]
        host: HostArguments,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, required = true)]
        words: Vec<String>,
    },
    /// Fetch QEMU into the cache and print the words that start it.
    Qemu,
    /// Delete everything the lab has fetched and built.
    Clean,
}

/// Which host to start.
#[derive(Args)]
pub struct HostArguments {
    /// The host's kernel.
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: KernelArgument,
    /// The host's memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// Without napa and without guests' images.
    #[arg(long)]
    bare: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum KernelArgument {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Build { update } => build(update)?,
        Command::Shell { host } => {
            let host = host.start()?;
            let code = shell::run(&host)?;
            drop(host);
            exit(code)
        }
        Command::Test { arguments } => exit(test(&arguments)?),
        Command::Run { host, words } => run_in_host(&host, &words)?,
        Command::Qemu => println!("{}", qemu::unpacked()?.prefix()?.join(" ")),
        Command::Clean => Cache::of_this_user()?.clear()?,
    }
    Ok(())
}

fn build(update: bool) -> Result<()> {
    if update {
        Lab::update()?;
    }
    Lab::open()?.build()
}

fn run_in_host(arguments: &HostArguments, words: &[String]) -> Result<()> {
    let host = arguments.start()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let job = host.spawn(&words)?;
    job.end_input()?;
    let code = job.stream(|stream, bytes| {
        // Whoever closed our output does not want the rest.
        let _ = match stream {
            Stream::Output => std::io::stdout().write_all(bytes),
            Stream::Error => std::io::stderr().write_all(bytes),
        };
    })?;
    drop(host);
    exit(code)
}

fn test(arguments: &[String]) -> Result<i32> {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--package", "napa-lab", "--test", "lab", "--"]).args(arguments);
    let status = command.status().context("run cargo")?;
    Ok(status.code().unwrap_or(1))
}

impl HostArguments {
    fn start(&self) -> Result<napa_lab::Host> {
        let kernel = match self.kernel {
            KernelArgument::V6_1 => HostKernel::V6_1,
            KernelArgument::V6_12 => HostKernel::V6_12,
        };
        let base = if self.bare { HostOptions::bare() } else { HostOptions::default() };
        Lab::open()?.start_with(kernel, &HostOptions { memory_mib: self.memory, ..base })
    }
}

//! `napa create`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use napa_api::VmConfig;
use napa_api::config::ConsoleConfig;
use napa_api::host::{CreateVm, RestartPolicy, VmDetail};
use napa_units::Bytes;

use super::place::{HostArgs, client_for, vm_path};
use crate::error::Error;
use crate::output;
use crate::run::RunArgs;

/// The words of a new VM.
#[derive(Args)]
pub struct CreateArgs {
    /// Name of the VM: letters, digits, '.', '_', '-'
    #[arg(value_name = "NAME")]
    pub vm: String,
    #[command(flatten)]
    pub run: RunArgs,
    /// When it is started again after it has ended by itself: never, on-failure or always [default: never]
    #[arg(long, value_name = "WHEN", value_parser = parse_restart)]
    pub restart: Option<RestartPolicy>,
    /// Memory that it can always have in RAM, whatever others want [default: none]
    #[arg(long, value_name = "SIZE")]
    pub reservation: Option<Bytes>,
    /// Its part of memory that is short, in proportion to the shares of others and its size [default: 100]
    #[arg(long, value_name = "COUNT")]
    pub shares: Option<u32>,
    /// Start it at once
    #[arg(long)]
    pub start: bool,
    #[command(flatten)]
    pub host: HostArgs,
}

/// Has the host note a new VM.
pub fn create(arguments: CreateArgs) -> Result<ExitCode, Error> {
    let client = client_for(&arguments.host);
    let vm = arguments.vm;
    let start = vm_path(&vm, "/start")?;
    let config = arguments.run.into_host_config(&vm)?;
    let config = with_absolute_paths(config)?;
    config.check().map_err(Error::bad_input)?;
    let order = CreateVm {
        config,
        restart: arguments.restart.unwrap_or_default(),
        reservation: arguments.reservation,
        shares: arguments.shares,
    };
    let created: VmDetail = client.post("/v1/vms", &order)?;
    let state = match arguments.start {
        true => client.post::<VmDetail>(&start, &())?.summary.state,
        false => created.summary.state,
    };
    output::print(format!("{vm} is {state}\n").as_bytes())
}

fn parse_restart(word: &str) -> Result<RestartPolicy, String> {
    let all = [RestartPolicy::Never, RestartPolicy::OnFailure, RestartPolicy::Always];
    all.into_iter()
        .find(|policy| policy.name() == word)
        .ok_or_else(|| format!("'{word}' is not a choice: write never, on-failure or always"))
}

/// The host runs in a folder of its own, so that paths are taken from this one.
fn with_absolute_paths(mut config: VmConfig) -> Result<VmConfig, Error> {
    let VmConfig { kernel, initrd, console, console_log, vsock, disks, pmems, .. } = &mut config;
    let console = match console {
        ConsoleConfig::File(path) | ConsoleConfig::Socket(path) => Some(path),
        ConsoleConfig::Stdio | ConsoleConfig::Off => None,
    };
    let vsock = vsock.as_mut().map(|vsock| &mut vsock.path);
    let single = [kernel.as_mut(), initrd.as_mut(), console, console_log.as_mut(), vsock];
    let disks = disks.iter_mut().map(|disk| &mut disk.path);
    let pmems = pmems.iter_mut().map(|pmem| &mut pmem.path);
    for path in single.into_iter().flatten().chain(disks).chain(pmems) {
        *path = absolute(path)?;
    }
    Ok(config)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::bad_input(format!("{}: {error}", path.display())))
}

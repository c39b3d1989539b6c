//! Verbs for one VM of the host.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use napa_api::control::Status;
use napa_api::host::{StopOrder, VmDetail};
use napa_host::client::Client;

use super::place::{HostArgs, client_for, vm_path};
use crate::error::Error;
use crate::output;

/// Which VM of the host.
#[derive(Args)]
pub struct VmArgs {
    /// Name of the VM
    #[arg(value_name = "NAME")]
    pub vm: String,
    #[command(flatten)]
    pub host: HostArgs,
}

/// Which VM is removed, and how.
#[derive(Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    pub vm: VmArgs,
    /// Stop it hard first, if it runs
    #[arg(long)]
    pub force: bool,
}

/// Which log, and how much of it.
#[derive(Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub vm: VmArgs,
    /// Go on until the VM ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub lines: Option<u32>,
}

/// Starts a VM, and waits until it answers.
pub fn start(arguments: &VmArgs) -> Result<ExitCode, Error> {
    let detail: VmDetail = client_for(&arguments.host).post(&vm_path(&arguments.vm, "/start")?, &())?;
    tell(&detail)
}

/// Stops a VM, and waits until it has ended.
pub fn stop(client: &Client, name: &str, timeout_s: Option<u32>) -> Result<ExitCode, Error> {
    tell(&client.post(&vm_path(name, "/stop")?, &StopOrder { timeout_s })?)
}

/// Stops a VM hard, and waits until it has ended.
pub fn kill(client: &Client, name: &str) -> Result<ExitCode, Error> {
    tell(&client.post(&vm_path(name, "/kill")?, &())?)
}

/// Stops the vCPUs of a VM.
pub fn pause(client: &Client, name: &str) -> Result<ExitCode, Error> {
    tell_status(&client.post(&vm_path(name, "/pause")?, &())?)
}

/// Lets the vCPUs of a VM run again.
pub fn resume(client: &Client, name: &str) -> Result<ExitCode, Error> {
    tell_status(&client.post(&vm_path(name, "/resume")?, &())?)
}

/// Has the host forget a VM.
pub fn remove(arguments: &RemoveArgs) -> Result<ExitCode, Error> {
    let VmArgs { vm, host } = &arguments.vm;
    let client = client_for(host);
    if arguments.force {
        client.post::<VmDetail>(&vm_path(vm, "/kill")?, &())?;
    }
    client.delete(&vm_path(vm, "")?)?;
    output::print(format!("{vm} is removed\n").as_bytes())
}

/// Shows what a VM says.
pub fn logs(arguments: &LogsArgs) -> Result<ExitCode, Error> {
    let lines = arguments.lines.map(|lines| format!("&lines={lines}")).unwrap_or_default();
    let path = vm_path(&arguments.vm.vm, &format!("/logs?follow={}{lines}", arguments.follow))?;
    let mut written = Ok(());
    client_for(&arguments.vm.host).follow(&path, |piece| {
        let mut output = io::stdout().lock();
        written = output.write_all(piece).and_then(|()| output.flush());
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    match written {
        // A reader that went away has had enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::failure(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn tell(detail: &VmDetail) -> Result<ExitCode, Error> {
    let summary = &detail.summary;
    let reason = match &summary.exit {
        Some(exit) if !summary.state.is_alive() => format!(": {}", exit.reason),
        _ => String::new(),
    };
    output::print(format!("{} is {}{reason}\n", summary.name, summary.state).as_bytes())
}

fn tell_status(status: &Status) -> Result<ExitCode, Error> {
    output::print(format!("{} is {}\n", status.name, status.state).as_bytes())
}

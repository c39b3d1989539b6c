//! `napa ls`.

use std::process::ExitCode;

use clap::Args;
use napa_api::host::{VmList, VmSummary};
use napa_units::Bytes;

use super::place::{HostArgs, client_for};
use crate::command::JsonArgs;
use crate::error::Error;
use crate::output::{self, Table};

/// How VMs are listed.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub format: JsonArgs,
    #[command(flatten)]
    pub host: HostArgs,
}

/// Lists the VMs of the host.
pub fn list(arguments: &ListArgs) -> Result<ExitCode, Error> {
    let list: VmList = client_for(&arguments.host).get("/v1/vms")?;
    if arguments.format.json {
        return output::print_json(&list.vms);
    }
    output::print(table(&list.vms).as_bytes())
}

fn table(vms: &[VmSummary]) -> String {
    let mut table = Table::new();
    table.row(["NAME", "STATE", "PID", "VCPUS", "MEMORY", "HELD", "RESTART", "ENDED LAST"]);
    for vm in vms {
        let pid = vm.pid.map(|pid| pid.to_string()).unwrap_or_else(|| "-".into());
        let held = vm.held.map(mebibytes).unwrap_or_else(|| "-".into());
        let ended = vm.exit.as_ref().map(|exit| exit.reason.as_str()).unwrap_or_default();
        let (state, cpus) = (vm.state.to_string(), vm.cpus.to_string());
        let (memory, restart) = (vm.memory.to_string(), vm.restart.to_string());
        table.row([&vm.name, &state, &pid, &cpus, &memory, &held, &restart, ended]);
    }
    table.finish()
}

/// Rounded up: nothing that is held is shown as nothing.
fn mebibytes(size: Bytes) -> String {
    format!("{}M", size.0.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use napa_api::host::{RestartPolicy, Time, VmExit, VmState};

    use super::*;

    #[test]
    fn vms_are_lines() {
        let web = VmSummary {
            name: "web".into(),
            state: VmState::Running,
            pid: Some(42),
            memory: Bytes::mib(512),
            cpus: 2,
            restart: RestartPolicy::OnFailure,
            held: Some(Bytes(Bytes::mib(31).0 + 1)),
            started: Some(Time(0)),
            exit: None,
        };
        let exit = VmExit {
            time: Time(0),
            code: Some(81),
            signal: None,
            reason: "the guest reported a panic".into(),
        };
        let db = VmSummary {
            name: "db".into(),
            state: VmState::Stopped,
            pid: None,
            held: None,
            restart: RestartPolicy::Never,
            exit: Some(exit),
            ..web.clone()
        };
        let expected = "\
NAME  STATE    PID  VCPUS  MEMORY  HELD  RESTART     ENDED LAST
web   running  42   2      512M    32M   on-failure
db    stopped  -    2      512M    -     never       the guest reported a panic
";
        assert_eq!(table(&[web, db]), expected);
    }
}

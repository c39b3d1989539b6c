//! `napa explain VM`: which ways there are to get memory back from a VM, and what stands in the way of the others.
//!
//! The VM says how it is configured, what it found on the host when it started, and which devices its guest drives; the
//! host's swap is looked at from here. What follows from all that is [`napa_api::mechanism`]'s.

use std::process::ExitCode;

use clap::Args;
use napa_api::VmConfig;
use napa_api::control::{Command, DeviceState, MeansReport, MemoryCommand, Status};
use napa_api::mechanism::{
    Availability, Explanation, GuestFacts, HostFacts, SwapMedium, explain as explain_facts,
};
use napa_sys::host::{KvmModule, Root, Swap, SwapKind, zswap_enabled};

use crate::client;
use crate::command::{JsonArgs, Target};
use crate::error::Error;
use crate::output::{self, Style, Table};

/// The flags of `napa explain`.
#[derive(Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: JsonArgs,
}

/// Explains a running VM.
pub fn explain(arguments: &ExplainArgs) -> Result<ExitCode, Error> {
    let config: VmConfig = client::ask(&arguments.target, Command::Config)?;
    let status: Status = client::ask(&arguments.target, Command::Status)?;
    let means: MeansReport = client::ask(&arguments.target, Command::Memory(MemoryCommand::Means))?;
    let explanation = explain_facts(&config, &host_facts(&Root::system()), &means, guest_facts(&status));
    match arguments.format.json {
        true => output::print_json(&explanation),
        false => output::print(describe(&explanation, Style::for_output()).as_bytes()),
    }
}

fn host_facts(root: &Root) -> HostFacts {
    let swaps = Swap::read(root).into_iter().map(|area| {
        let medium = match area.kind {
            SwapKind::Zram => SwapMedium::Compressed,
            SwapKind::File | SwapKind::Partition => SwapMedium::Disk,
        };
        (medium, area.size)
    });
    HostFacts {
        is_pvm: KvmModule::read(root) == Some(KvmModule::Pvm),
        swaps: swaps.collect(),
        has_zswap: zswap_enabled(root) == Some(true),
    }
}

fn guest_facts(status: &Status) -> GuestFacts {
    let drives = |kind: &str| {
        status.devices.iter().any(|device| device.kind == kind && device.state == DeviceState::Active)
    };
    GuestFacts { drives_balloon: drives("virtio-balloon"), drives_hotplug: drives("virtio-mem") }
}

fn describe(explanation: &Explanation, style: Style) -> String {
    let mut mechanisms = Table::new();
    for finding in &explanation.mechanisms {
        let word = finding.availability.to_string();
        let word = match finding.availability {
            Availability::Available => style.good(&word),
            Availability::Off => word,
            Availability::Missing => style.doubtful(&word),
        };
        let why = match finding.mend.as_str() {
            "" => finding.why.clone(),
            mend => format!("{}: {mend}", finding.why),
        };
        mechanisms.row([&finding.mechanism.to_string(), &word, &why]);
    }
    let mut text = mechanisms.finish();
    for limit in &explanation.limits {
        text += &format!("\n{} with {}: {}.", limit.feature, limit.other, limit.because);
    }
    if !explanation.limits.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use napa_api::control::{DeviceStatus, ReclaimMechanism, State};
    use napa_units::Bytes;

    use super::*;

    #[test]
    fn a_device_counts_once_its_driver_has_taken_it() {
        let device =
            |kind: &str, state| DeviceStatus { name: "x".into(), kind: kind.into(), pci: None, state };
        let status = Status {
            name: "vm".into(),
            state: State::Running,
            pid: 1,
            vcpus: 1,
            memory: Bytes::mib(128),
            uptime_ms: 0,
            devices: vec![
                device("virtio-balloon", DeviceState::Active),
                device("virtio-mem", DeviceState::Idle),
            ],
        };
        assert_eq!(guest_facts(&status), GuestFacts { drives_balloon: true, drives_hotplug: false });
    }

    #[test]
    fn each_mechanism_is_a_line_and_each_limit_a_sentence() {
        let host = HostFacts { swaps: vec![(SwapMedium::Disk, Bytes::gib(1))], ..HostFacts::default() };
        let means = MeansReport {
            no_zero_pages: None,
            no_merging: Some("there is no KSM".into()),
            reclaim: ReclaimMechanism::PageOut,
        };
        let explanation = explain_facts(&VmConfig::default(), &host, &means, GuestFacts::default());
        let text = describe(&explanation, Style::PLAIN);
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), explanation.mechanisms.len() + explanation.limits.len(), "{text}");
        assert!(text.contains("swap on disk             available  1G\n"), "{text}");
        assert!(text.contains("missing    there is no KSM\n"), "{text}");
        assert!(text.contains(": start it with --cgroup auto"), "{text}");
        assert!(text.contains("--balloon with swap: "), "{text}");
    }
}

//! What a new daemon finds of an earlier one's VMs.

use std::time::Duration;

use napa_api::control::Command;

use super::process::{self, Found, Process, Status};
use super::vm::{Vm, exit_of, host_restarted, stop_bound};
use super::{Inner, Shared, VmFolder, folder, verbs};
use crate::state::{Launch, StoreError, Wanted};

/// Takes over what the state tells of.
pub(super) fn adopt(shared: &Shared) -> Result<(), StoreError> {
    let mut guard = shared.lock();
    let inner = &mut *guard;
    for record in inner.store.records()? {
        let name = record.name().to_owned();
        inner.vms.insert(name, Vm::resting(record, &shared.settings.state));
    }
    let names: Vec<String> = inner.vms.keys().cloned().collect();
    for name in &names {
        inner.adopt(shared, name);
    }
    inner.remove_orphans(shared);
    Ok(())
}

impl Inner {
    fn adopt(&mut self, shared: &Shared, name: &str) {
        let Some(vm) = self.vms.get(name) else { return };
        let launch = vm.record.launch.clone();
        let found = match &launch {
            Some(launch) if launch.boot == verbs::boot() => Process::find(&vm.folder),
            _ => Ok(Found::NeverMade),
        };
        match (found, launch) {
            (Ok(Found::Alive(process)), _) => {
                crate::say(format_args!("VM {name} runs: process {}", process.id().pid));
                self.took_over(shared, name, process);
                self.repeat_stop(shared, name);
            }
            (Ok(Found::Ended), _) => self.ended_before(shared, name),
            (Ok(Found::NeverMade), Some(launch)) if launch.boot != verbs::boot() => {
                self.settle(shared, name, host_restarted(), Duration::ZERO);
            }
            (Ok(Found::NeverMade), launch) => self.never_made(shared, name, launch),
            (Err(error), _) => {
                crate::say(format_args!("VM {name}: it is not known whether it runs: {error}"));
            }
        }
    }

    /// It was asked to end, and the daemon with it.
    fn repeat_stop(&mut self, shared: &Shared, name: &str) {
        let Some(vm) = self.vms.get(name).filter(|vm| vm.record.wanted == Wanted::Stopped) else { return };
        let bound = stop_bound(&vm.record.config, None);
        if let Err(error) = self.end(shared, name, Command::Stop { timeout_s: None }, bound) {
            crate::say(format_args!("VM {name} should stop: {error}"));
        }
    }

    fn ended_before(&mut self, shared: &Shared, name: &str) {
        let Some(vm) = self.vms.get(name) else { return };
        let exit = exit_of(process::exit_note(&vm.folder), Status::Unknown, false);
        crate::say(format_args!("VM {name} ended while no daemon ran: {}", exit.reason));
        self.settle(shared, name, exit, Duration::ZERO);
    }

    /// The earlier daemon ended before it had made the process, or while it waited to do it again.
    fn never_made(&mut self, shared: &Shared, name: &str, launch: Option<Launch>) {
        let Some(vm) = self.vms.get(name) else { return };
        if vm.record.wanted == Wanted::Stopped {
            if launch.is_some() {
                self.note(name, |record| record.launch = None);
            }
            return;
        }
        self.start_again(shared, name);
    }

    /// Removes folders whose VM was removed, unless somebody lives in them.
    fn remove_orphans(&self, shared: &Shared) {
        for id in folder::ids(&shared.settings.state) {
            let folder = VmFolder::new(&shared.settings.state, id);
            let is_known = self.vms.values().any(|vm| vm.record.id == id);
            if !is_known && !matches!(Process::find(&folder), Ok(Found::Alive(_)) | Err(_)) {
                // What cannot be removed now is left for the next daemon.
                let _ = folder.remove();
            }
        }
    }
}

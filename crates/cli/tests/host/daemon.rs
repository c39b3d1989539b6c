//! A daemon that ends with the test, and its VMs with it.

use std::path::PathBuf;
use std::process::Command;

use napa_api::host::{VmList, VmState, VmSummary};
use napa_host::client::Client;

use crate::support::{Host, Vm, wait_until};

/// The words of a small VM that runs until it is stopped.
pub const IDLE: [&str; 4] = ["--memory", "32M", "--cmdline", "workload=idle"];

/// A daemon with a state folder of its own.
pub struct Daemon<'a> {
    host: &'a Host,
    state: PathBuf,
    process: Option<Vm>,
}

impl<'a> Daemon<'a> {
    pub fn start(host: &'a Host) -> Self {
        let mut daemon = Self::at(host, host.path("state"));
        daemon.start_again();
        daemon
    }

    /// A daemon that is not started yet.
    pub fn at(host: &'a Host, state: PathBuf) -> Self {
        Self { host, state, process: None }
    }

    /// Starts a daemon on the state of the one before.
    pub fn start_again(&mut self) {
        let command = self.host.command(&["host", "--state", self.state.to_str().unwrap()]);
        self.run(command);
    }

    /// Runs it by this command, and waits until it answers.
    pub fn run(&mut self, command: Command) {
        self.process = Some(Vm::spawn(command));
        wait_until("an answer of the daemon", || self.client().get::<VmList>("/v1/vms").is_ok());
    }

    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.host.socket("host"))
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().pid()
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(&mut self) {
        let process = self.process.take().unwrap();
        process.signal("KILL");
        process.end();
    }

    /// Ends it in order.
    pub fn end(&mut self) {
        let process = self.process.take().unwrap();
        process.signal("TERM");
        let ended = process.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// Runs a verb that succeeds; gives what it says.
    pub fn napa(&self, words: &[&str]) -> String {
        let (code, output, error) = self.host.napa(words);
        assert_eq!(code, Some(0), "napa {words:?}: {output}{error}");
        output
    }

    /// Creates and starts VMs.
    pub fn create(&self, name: &str, words: &[&str]) {
        self.napa(&[&["create", name, "--start"], words].concat());
    }

    pub fn list(&self) -> Vec<VmSummary> {
        self.client().get::<VmList>("/v1/vms").unwrap().vms
    }

    pub fn vm(&self, name: &str) -> VmSummary {
        let list = self.list();
        let vm = list.iter().find(|vm| vm.name == name);
        vm.unwrap_or_else(|| panic!("{name} is not in {list:?}")).clone()
    }

    pub fn wait_state(&self, name: &str, state: VmState) {
        wait_until(&format!("that {name} is {state}"), || self.vm(name).state == state);
    }

    /// The processes of its VMs that live.
    pub fn processes(&self) -> Vec<u32> {
        let own = format!("{}/vm/", self.state().display());
        let is_own = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            words.starts_with("napa\0run\0") && words.contains(&own)
        };
        let entries = std::fs::read_dir("/proc").unwrap();
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_own).collect()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // First, so that it starts none again.
        self.process = None;
        for pid in self.processes() {
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
        }
    }
}

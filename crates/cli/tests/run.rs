//! The embedded guest on this host's KVM, from the command line: exit codes, and the verbs of a running VM.
#![allow(clippy::unwrap_used)] // A test ends where its preparation fails.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// A folder for sockets, and the words of napa run in it.
struct Host {
    folder: TempDir,
}

impl Host {
    /// `None`, with a word about it: no VM runs on this machine.
    fn new() -> Option<Self> {
        let open = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        match open {
            Ok(_) => Some(Self { folder: tempfile::tempdir().unwrap() }),
            Err(error) => {
                println!("skipped: /dev/kvm cannot be opened: {error}");
                None
            }
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_napa"));
        command.args(words).env("XDG_RUNTIME_DIR", self.folder.path()).stdin(Stdio::null());
        command
    }

    fn napa(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Starts a named VM that idles, and waits until its guest runs.
    fn idle(&self, name: &str) -> Child {
        let words = ["run", "--name", name, "--cmdline", "workload=idle"];
        let mut vm = self.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(vm.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("READY ")));
        vm
    }

    fn socket(&self, name: &str) -> bool {
        self.folder.path().join("napa").join(format!("{name}.sock")).exists()
    }
}

/// Waits for the end of a VM: its exit code and what it said on standard error.
fn end(mut vm: Child) -> (Option<i32>, String) {
    let mut error = String::new();
    vm.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    (vm.wait().unwrap().code(), error)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_exit_code_is_the_guests() {
    let Some(host) = Host::new() else { return };
    for (workload, code, words) in [
        ("hello", 0, ""),
        ("exit:7", 7, "napa: vm: the guest ended with exit code 7\n"),
        ("triple-fault", 82, "napa: vm: a vCPU met a triple fault\n"),
    ] {
        let output = host.napa(&["run", "--cmdline", &format!("workload={workload}")]);
        assert_eq!(output.status.code(), Some(code), "{workload}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), words, "{workload}");
        assert!(text(&output.stdout).contains("READY "), "{workload}");
    }
}

#[test]
fn a_machine_from_a_file_runs() {
    let Some(host) = Host::new() else { return };
    let file = host.folder.path().join("vm.toml");
    std::fs::write(&file, "memory = '64M'\ncmdline = 'workload=exit:5'\n").unwrap();
    let output = host.napa(&["run", "--config", file.to_str().unwrap(), "--cpus", "2"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("cpus=2"), "{}", text(&output.stdout));
}

#[test]
fn a_named_vm_is_paused_resumed_and_stopped() {
    let Some(host) = Host::new() else { return };
    let vm = host.idle("web");
    let status = host.napa(&["status", "web", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["name"], &status["state"]), (&"web".into(), &"running".into()));
    assert_eq!(status["pid"], vm.id());
    for (verb, words) in
        [("pause", "web is paused\n"), ("pause", "web is paused\n"), ("resume", "web is running\n")]
    {
        assert_eq!(text(&host.napa(&[verb, "web"]).stdout), words);
    }
    let error = text(&host.napa(&["status", "wbe"]).stderr);
    assert!(error.contains("these VMs run: web"), "{error}");
    let stop = host.napa(&["stop", "web", "--timeout", "30"]);
    assert_eq!(text(&stop.stdout), "web has ended\n", "{}", text(&stop.stderr));
    assert_eq!(end(vm), (Some(0), String::new()));
    assert!(!host.socket("web"));
}

#[test]
fn a_killed_vm_says_so() {
    let Some(host) = Host::new() else { return };
    let vm = host.idle("web");
    assert_eq!(text(&host.napa(&["kill", "web"]).stdout), "web has ended\n");
    assert_eq!(end(vm), (Some(83), "napa: web: the VM was stopped hard\n".into()));
    assert!(!host.socket("web"));
}

#[test]
fn a_second_vm_of_the_same_name_is_refused() {
    let Some(host) = Host::new() else { return };
    let vm = host.idle("web");
    let second = host.napa(&["run", "--name", "web"]);
    assert_eq!(second.status.code(), Some(2));
    assert_eq!(text(&second.stderr).lines().count(), 1, "{}", text(&second.stderr));
    assert_eq!(host.napa(&["status", "web"]).status.code(), Some(0));
    host.napa(&["kill", "web"]);
    end(vm);
}

#[test]
fn the_embedded_guest_runs_from_a_file_too() {
    let Some(host) = Host::new() else { return };
    let image = host.folder.path().join("guest.elf");
    let image = image.to_str().unwrap();
    assert!(host.napa(&["guest-image", "-o", image]).status.success());
    assert!(Path::new(image).exists());
    let output = host.napa(&["run", "--kernel", image, "--cmdline", "workload=exit:9"]);
    assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
}

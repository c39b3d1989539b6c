//! What a VM has taken of the host is given back, however it ends.

use std::process::{Child, Command, Stdio};

use crate::machine_code;
use crate::support::{Host, Vm, is_locked, wait, wait_until};

/// A network of its own, which vanishes with the test.
struct Network(Child);

impl Network {
    /// `None`, with a word about it: this user may not make one.
    fn new() -> Option<Self> {
        let command = ["--net", "sh", "-c", "echo made; exec sleep infinity"];
        let mut holder = Command::new("unshare")
            .args(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = [0; 4];
        let output = holder.stdout.as_mut().unwrap();
        if std::io::Read::read_exact(output, &mut said).is_err()
            || !std::path::Path::new("/dev/net/tun").exists()
        {
            println!("skipped: no network namespace with taps can be made");
            let _ = holder.kill();
            wait(&mut holder);
            return None;
        }
        Some(Self(holder))
    }

    fn has(&self, tap: &str) -> bool {
        let devices = std::fs::read_to_string(format!("/proc/{}/net/dev", self.0.id())).unwrap();
        devices.lines().any(|line| line.trim_start().starts_with(&format!("{tap}:")))
    }

    fn enter(&self) -> [String; 4] {
        ["nsenter".into(), "--target".into(), self.0.id().to_string(), "--net".into()]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A VM with one of everything that it can take of the host.
fn start(host: &Host, network: &Network, disk: &str, guest: &[&str]) -> Vm {
    let (console, vsock) = (host.path("console"), host.path("vsock"));
    let console = format!("socket={}", console.display());
    let vsock = format!("cid=3,path={}", vsock.display());
    let words =
        ["run", "--name", "vm", "--disk", disk, "--net", "tap=tap0", "--console", &console, "--vsock"];
    let words = [&words[..], &[&vsock, "--stop-timeout", "0"], guest].concat();
    let wrapper = network.enter();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    Vm::spawn(host.wrapped(&wrapper, &words))
}

#[test]
fn taps_sockets_and_locks_are_gone_after_each_kind_of_end() {
    let Some(host) = Host::new() else { return };
    let Some(network) = Network::new() else { return };
    let disk = host.disk("disk", 1);
    let image = host.path("disk");
    let stubborn = host.kernel("stubborn", &machine_code::stubborn());
    let lost = host.kernel("lost", &machine_code::lost());
    let end_by_itself: [(&[&str], i32); 5] = [
        (&["--cmdline", "workload=exit:7"], 7),
        (&["--cmdline", "workload=poweroff"], 0),
        (&["--cmdline", "workload=panic"], 81),
        (&["--cmdline", "workload=triple-fault"], 82),
        (&["--kernel", &lost], 84),
    ];
    let check = |vm: Vm, code: Option<i32>, keeps_sockets: bool| {
        let ended = vm.end();
        assert_eq!(ended.code, code, "{ended:?}");
        if code.is_none() {
            // The kernel lets go of what a killed process held a little after the process is gone.
            wait_until("the end of the tap and the lock", || !network.has("tap0") && !is_locked(&image));
        }
        assert!(!network.has("tap0"), "{ended:?}");
        assert!(!is_locked(&image), "{ended:?}");
        for socket in [host.path("console"), host.path("vsock"), host.socket("vm")] {
            assert!(keeps_sockets || !socket.exists(), "{} is left: {ended:?}", socket.display());
        }
    };
    for (guest, code) in end_by_itself {
        check(start(&host, &network, &disk, guest), Some(code), false);
    }
    for (signals, code) in [(&["TERM"][..], Some(83)), (&["INT", "INT"], Some(83)), (&["KILL"], None)] {
        let vm = start(&host, &network, &disk, &["--kernel", &stubborn]);
        wait_until("the control socket", || host.socket("vm").exists());
        wait_until("the tap", || network.has("tap0"));
        assert!(is_locked(&image));
        for signal in signals {
            // The second may come too late, which is no fault.
            let _ = Command::new("kill")
                .args(["-s", signal, &vm.pid().to_string()])
                .stderr(Stdio::null())
                .status();
        }
        // Nobody can clean up after SIGKILL; what is left does not stop the next VM.
        check(vm, code, code.is_none());
    }
    check(start(&host, &network, &disk, &["--cmdline", "workload=exit:3"]), Some(3), false);
}

#[test]
fn a_second_vm_on_the_same_disk_is_refused_until_the_first_has_ended() {
    let Some(host) = Host::new() else { return };
    let disk = host.disk("disk", 8);
    let verify = ["--disk", &disk, "--cmdline", "workload=blk-verify:1M"];
    for end in ["TERM", "KILL"] {
        let mut first = host.run(&["--disk", &disk, "--cmdline", "workload=idle"]);
        first.wait_line("READY ");
        let second = host.run(&verify).end();
        assert_eq!(second.code, Some(2), "{second:?}");
        assert!(second.error.contains("disk is locked by "), "{second:?}");
        assert_eq!(second.error.lines().count(), 1, "{second:?}");
        first.signal(end);
        first.end();
        assert_eq!(host.run(&verify).end().code, Some(0));
    }
}

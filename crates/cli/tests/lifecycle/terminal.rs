//! napa at a terminal: raw while a guest has it, and as it was afterwards.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::client::Client;
use crate::machine_code;
use crate::support::{Host, PATIENCE, wait};

const CTRL_A: u8 = 1;

/// Ends a VM that runs at a terminal.
type End = fn(&Host, &Terminal);

/// A terminal with napa on it.
struct Terminal {
    keyboard: File,
    /// The program's side.
    side: OwnedFd,
    before: Termios,
    child: Child,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn new(host: &Host, words: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let side = open(Path::new(path.to_str().unwrap()), flags, Mode::empty()).unwrap();
        set_size(&side, 80, 25);
        let before = tcgetattr(&side).unwrap();
        // In a session of its own, with this as the terminal that sends its signals.
        let words = [&["run", "--name", "vm"], words].concat();
        let mut command = host.wrapped(&["setsid", "--ctty"], &words);
        let end = || Stdio::from(side.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(keyboard);
        let (sender, screen) = channel();
        let mut output = keyboard.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { keyboard, side, before, child, screen, shown: String::new() }
    }

    /// Waits until this is on the screen, behind what was waited for before.
    fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text:?} does not appear: {:?}", self.shown),
            }
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.side).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the end: the exit code, with the terminal as it was before.
    fn end(mut self) -> Option<i32> {
        let code = wait(&mut self.child).code();
        let after = tcgetattr(&self.side).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before), "the terminal is not as it was");
        code
    }
}

fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn a_terminal_is_raw_while_attached_and_restored_after_every_kind_of_end() {
    let Some(host) = Host::new() else { return };
    let lost = host.kernel("lost", &machine_code::lost());
    let cases: [(&[&str], i32); 6] = [
        (&["--cmdline", "workload=hello"], 0),
        (&["--cmdline", "workload=exit:7"], 7),
        (&["--cmdline", "workload=panic"], 81),
        (&["--cmdline", "workload=triple-fault"], 82),
        (&["--kernel", &lost], 84),
        (&["--kernel", "/nonexistent"], 2),
    ];
    for (words, code) in cases {
        assert_eq!(Terminal::new(&host, words).end(), Some(code), "{words:?}");
    }
    let stubborn = host.kernel("stubborn", &machine_code::stubborn());
    let ends: [(End, i32); 3] = [
        (|host, _| assert_eq!(host.napa(&["kill", "vm"]).1, "vm has ended"), 83),
        (|host, _| assert_eq!(host.napa(&["stop", "vm", "--timeout", "0"]).1, "vm has ended"), 83),
        (|_, terminal| signal(&terminal.child, "TERM"), 83),
    ];
    for (end, code) in ends {
        let mut terminal = Terminal::new(&host, &["--kernel", &stubborn, "--stop-timeout", "0"]);
        terminal.wait_for("R");
        crate::support::wait_until("raw mode", || terminal.is_raw());
        end(&host, &terminal);
        assert_eq!(terminal.end(), Some(code));
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

#[test]
fn ctrl_a_x_leaves() {
    let Some(host) = Host::new() else { return };
    let mut terminal = Terminal::new(&host, &["--cmdline", "workload=idle"]);
    terminal.wait_for("READY ");
    terminal.press(&[CTRL_A, b'x']);
    assert_eq!(terminal.end(), Some(83));
}

#[test]
fn ctrl_a_c_is_a_prompt_that_obeys_its_keys() {
    let Some(host) = Host::new() else { return };
    let mut terminal = Terminal::new(&host, &["--cmdline", "workload=idle"]);
    terminal.wait_for("READY ");
    terminal.press(&[CTRL_A, b'c']);
    terminal.wait_for("p pause, r resume, s orderly stop, x hard stop");
    let keys = [(b'i', "the VM is running"), (b'p', "the VM is paused"), (b'r', "the VM is running")];
    for (key, said) in keys {
        terminal.press(&[key]);
        terminal.wait_for(said);
    }
    assert_eq!(Client::new(&host.socket("vm")).state("status"), "running");
    terminal.press(b"s");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn the_size_of_the_window_reaches_the_guest() {
    let Some(host) = Host::new() else { return };
    let kernel = host.kernel("watcher", &machine_code::watcher());
    let mut terminal = Terminal::new(&host, &["--kernel", &kernel]);
    terminal.wait_for("00190050");
    for (columns, rows, number) in [(100, 40, "00280064"), (80, 25, "00190050"), (400, 3, "00030190")] {
        set_size(&terminal.side, columns, rows);
        terminal.wait_for(number);
    }
    terminal.press(&[CTRL_A, b'x']);
    assert_eq!(terminal.end(), Some(83));
}
